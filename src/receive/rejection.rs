//! A rejection note → what it rejects is hidden, in the transaction that stores the note.
//!
//! A note is a Key Object Selection whose title says why; it rejects instances of its own study.
//! What is rejected stays in the archive and in the rows, is in no list and is given to nobody; the note is hidden with it.
//! What is left is analysed again; where nothing is left, nothing of the study is shown and nothing of it goes out.
//! An instance that the note names and that is not here is not held against one that comes later.
//!
//! Source: IHE RAD TF-3 sections 4.66 to 4.68 (Imaging Object Change Management); PS3.16 CID 7011.

use crate::{
    db::{
        Tx, analysis,
        error::DbError,
        identity::{self, Rejected},
        index::NewInstance,
        queue,
    },
    domain::uid::Uid,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Key Object Selection Document Storage.
const KEY_OBJECTS: &str = "1.2.840.10008.5.1.4.1.1.88.59";
/// Titles that reject, and what they say.
const TITLES: [(&str, &str); 4] = [
    ("113001", "quality"),
    ("113037", "patient safety"),
    ("113038", "incorrect worklist entry"),
    ("113039", "data retention expired"),
];

/// What a note says.
pub(super) struct Note {
    code: &'static str,
    reason: &'static str,
    instances: Vec<String>,
}

/// The note that an instance is, if it is one.
pub(super) fn of(new: &NewInstance) -> Option<Note> {
    if new.sop_class_uid.as_str() != KEY_OBJECTS {
        return None;
    }
    let title = items(&new.metadata, "0040A043").next()?;
    if text(title, "00080102")? != "DCM" {
        return None;
    }
    let code = text(title, "00080100")?;
    let (code, reason) = TITLES.into_iter().find(|(known, _)| *known == code)?;
    let own = |study: &&Value| text(study, "0020000D") == Some(new.study_instance_uid.as_str());
    let instances = items(&new.metadata, "0040A375")
        .filter(own)
        .flat_map(|study| items(study, "00081115"))
        .flat_map(|series| items(series, "00081199"))
        .filter_map(|instance| text(instance, "00081155").map(str::to_owned))
        .collect();
    Some(Note {
        code,
        reason,
        instances,
    })
}

fn items<'a>(dataset: &'a Value, tag: &str) -> impl Iterator<Item = &'a Value> {
    dataset[tag]["Value"].as_array().into_iter().flatten()
}

fn text<'a>(dataset: &'a Value, tag: &str) -> Option<&'a str> {
    dataset[tag]["Value"][0].as_str()
}

/// Hides what a note rejects; returns what the trail says of it.
pub(super) async fn apply(
    tx: &mut Tx,
    new: &NewInstance,
    instance_id: i64,
    study_id: i64,
    note: &Note,
) -> Result<(Uid, Value), DbError> {
    let why = json!({ "code": note.code, "reason": note.reason, "note": new.sop_instance_uid });
    let Rejected { instances, remaining } =
        identity::reject(tx, study_id, instance_id, &note.instances, &why).await?;
    if !instances.is_empty() {
        if remaining > 0 {
            queue::enqueue(tx, study_id, Duration::ZERO).await?;
        } else {
            analysis::request_cancel(tx, &new.study_instance_uid).await?;
            identity::hide(tx, study_id, &why).await?;
        }
    }
    let detail = json!({
        "code": note.code,
        "reason": note.reason,
        "note": new.sop_instance_uid,
        "named": note.instances.len(),
        "instances": instances,
        "remaining": remaining,
    });
    Ok((new.study_instance_uid.clone(), detail))
}
