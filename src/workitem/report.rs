//! Event reports: what subscribers are told, as DICOM JSON.
//!
//! Source: PS3.4 table CC.2.4-1 and section CC.2.4.3; PS3.18 sections 8.10.5 and 11.13.

use super::{
    dataset::{Dataset, items, key, put, values},
    rules::PUSH,
};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::{Value, json};

const STATE_REPORT: u16 = 1;
const CANCEL_REQUESTED: u16 = 2;
const PROGRESS_REPORT: u16 = 3;
const STATUS_CHANGE: u16 = 4;
const ASSIGNED: u16 = 5;

/// Of command elements, which PS3.6 lists apart.
fn head(uid: &str, kind: u16) -> Dataset {
    let mut report = Dataset::new();
    for (tag, vr, value) in [
        (Tag(0x0000, 0x0002), "UI", json!(PUSH)),
        (Tag(0x0000, 0x1000), "UI", json!(uid)),
        (Tag(0x0000, 0x1002), "US", json!(kind)),
    ] {
        report.insert(key(tag), json!({ "vr": vr, "Value": [value] }));
    }
    report
}

fn copy(from: &Dataset, tags: &[Tag], into: &mut Dataset) {
    for tag in tags {
        if let Some(value) = from.get(&key(*tag)).filter(|_| !values(from, *tag).is_empty()) {
            into.insert(key(*tag), value.clone());
        }
    }
}

/// State and readiness of a workitem, and why it was cancelled.
pub(super) fn state(uid: &str, attributes: &Dataset) -> Dataset {
    let mut report = head(uid, STATE_REPORT);
    copy(
        attributes,
        &[tags::PROCEDURE_STEP_STATE, tags::INPUT_READINESS_STATE],
        &mut report,
    );
    if let Some(progress) = items(attributes, tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE).next() {
        let why = [
            tags::REASON_FOR_CANCELLATION,
            tags::PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE,
        ];
        copy(progress, &why, &mut report);
    }
    report
}

/// Somebody wants a workitem cancelled; `wish` is what they said.
pub(super) fn cancel_requested(uid: &str, requester: &str, wish: &Dataset) -> Dataset {
    let mut report = head(uid, CANCEL_REQUESTED);
    put(&mut report, tags::REQUESTING_AE, vec![json!(requester)]);
    let said = [
        tags::REASON_FOR_CANCELLATION,
        tags::PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE,
        tags::CONTACT_URI,
        tags::CONTACT_DISPLAY_NAME,
    ];
    copy(wish, &said, &mut report);
    report
}

/// How far a workitem is.
pub(super) fn progress(uid: &str, attributes: &Dataset) -> Dataset {
    let mut report = head(uid, PROGRESS_REPORT);
    let sequence = tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE;
    put(&mut report, sequence, values(attributes, sequence).to_vec());
    report
}

/// Who is to perform a workitem; nothing when nobody is named.
pub(super) fn assigned(uid: &str, attributes: &Dataset) -> Option<Dataset> {
    let mut report = head(uid, ASSIGNED);
    let length = report.len();
    copy(
        attributes,
        &[tags::SCHEDULED_STATION_NAME_CODE_SEQUENCE],
        &mut report,
    );
    let humans: Vec<&Dataset> = items(attributes, tags::SCHEDULED_HUMAN_PERFORMERS_SEQUENCE).collect();
    let codes: Vec<Value> = humans
        .iter()
        .flat_map(|human| values(human, tags::HUMAN_PERFORMER_CODE_SEQUENCE))
        .cloned()
        .collect();
    if !codes.is_empty() {
        put(&mut report, tags::HUMAN_PERFORMER_CODE_SEQUENCE, codes);
    }
    let organisation = humans
        .iter()
        .flat_map(|human| values(human, tags::HUMAN_PERFORMER_ORGANIZATION))
        .next();
    if let Some(organisation) = organisation {
        put(
            &mut report,
            tags::HUMAN_PERFORMER_ORGANIZATION,
            vec![organisation.clone()],
        );
    }
    (report.len() > length).then_some(report)
}

/// This server has started again and has kept everything.
pub(super) fn restarted() -> Dataset {
    let mut report = head(super::rules::WORKLIST, STATUS_CHANGE);
    put(&mut report, tags::SCP_STATUS, vec![json!("RESTARTED")]);
    put(
        &mut report,
        tags::SUBSCRIPTION_LIST_STATUS,
        vec![json!("WARM START")],
    );
    put(
        &mut report,
        tags::UNIFIED_PROCEDURE_STEP_LIST_STATUS,
        vec![json!("WARM START")],
    );
    report
}

/// A report as it goes out: with the number of its message.
#[must_use]
pub fn numbered(mut report: Dataset, id: i64) -> Dataset {
    let number = (id - 1).rem_euclid(65_535) + 1;
    report.insert(key(Tag(0x0000, 0x0110)), json!({ "vr": "US", "Value": [number] }));
    let mut attributes: Vec<_> = report.into_iter().collect();
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    attributes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_class_instance_kind_and_message_in_ascending_order() {
        let attributes = super::super::dataset::dataset_of([
            (tags::PROCEDURE_STEP_STATE, vec![json!("SCHEDULED")]),
            (tags::INPUT_READINESS_STATE, vec![json!("READY")]),
        ]);
        let report = numbered(state("1.2.3", &attributes), 65_536);
        assert_eq!(
            Value::Object(report),
            json!({
                "00000002": { "vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"] },
                "00000110": { "vr": "US", "Value": [1] },
                "00001000": { "vr": "UI", "Value": ["1.2.3"] },
                "00001002": { "vr": "US", "Value": [1] },
                "00404041": { "vr": "CS", "Value": ["READY"] },
                "00741000": { "vr": "CS", "Value": ["SCHEDULED"] },
            })
        );
    }

    #[test]
    fn nobody_is_assigned_when_nobody_is_named() {
        assert_eq!(assigned("1.2.3", &Dataset::new()), None);
    }
}
