//! Removing a study, a series or an instance: an admin's act, with a reason, and never a silent one.
//!
//! What is being analysed is not removed, nor what a target has not got yet, unless the admin says that it need not.
//! Only what came from outside is removed by itself; results and readers' masks go with the images that they are about.
//! When images are left they are analysed again; when none is left, everything of the study goes.
//! Workitems that name what is gone, and that nobody has begun, are cancelled with the reason ([`crate::workitem`] does so).
//! Index, outbox and trail change in one transaction; files go after it, and what a crash leaves goes with the sweep.
//!
//! Source: an extension; PS3.18 knows no removal.

use super::{Receiver, sweep};
use crate::{
    archive::ArchiveError,
    db::{
        self, Tx,
        audit::{self, Act},
        error::DbError,
        index, queue,
        removal::{self as rows, Held, Obstacles, Removal},
    },
    domain::{failure::FailureClass, uid::Uid},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Why something may be removed. Codes, for the trail holds no free text about a patient.
pub const REASONS: [&str; 6] = [
    "retention_expired",
    "erasure_request",
    "wrong_patient",
    "duplicate",
    "poor_quality",
    "test_data",
];

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemovalError {
    /// The database failed.
    #[error("the removal cannot be recorded")]
    Db(#[from] DbError),
    /// The archive failed.
    #[error("the files cannot be looked at")]
    Archive(#[from] ArchiveError),
    /// No reason, or one that is no code.
    #[error("say why with reason=…, one of {}", REASONS.join(", "))]
    Reason,
    /// Nothing of that name is stored.
    #[error("nothing is stored under these UIDs")]
    Unknown,
    /// Something stands against it.
    #[error("{0}")]
    Refused(String),
}

impl RemovalError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            Self::Archive(error) => error.class(),
            _ => FailureClass::Input,
        }
    }
}

/// What is to be removed.
#[derive(Debug, Clone)]
pub struct Target {
    /// The study.
    pub study: Uid,
    /// Only this series of it.
    pub series: Option<Uid>,
    /// Only this instance of that series.
    pub instance: Option<Uid>,
    /// Reason code, of [`REASONS`].
    pub reason: String,
    /// Whether what was not delivered is given up.
    pub discard_undelivered: bool,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Instances that are gone from the index.
    pub instances: usize,
    /// Bytes of their files.
    pub bytes: i64,
    /// Files that could not be deleted yet; the sweep deletes them within a day.
    pub files_left: usize,
}

/// What follows from a removal.
struct Plan<'h> {
    gone: Vec<&'h Held>,
    /// Nothing of the study is left.
    everything: bool,
    /// No image that could be analysed is left: what was said of them is taken back.
    answers: bool,
    /// Images are left that have to be analysed anew.
    again: bool,
}

impl Receiver {
    /// Removes what an admin names.
    ///
    /// # Errors
    /// When there is no reason or no such thing, when something stands against it, or when the database fails; nothing
    /// is removed then.
    pub async fn remove(&self, target: &Target, admin: &str) -> Result<Removed, RemovalError> {
        if !REASONS.contains(&target.reason.as_str()) {
            return Err(RemovalError::Reason);
        }
        let mut tx = self.db.begin().await?;
        index::lock_studies(&mut tx, &[&target.study]).await?;
        let study_id = rows::lock_study(&mut tx, target.study.as_str())
            .await?
            .ok_or(RemovalError::Unknown)?;
        let held = rows::held(&mut tx, study_id).await?;
        let obstacles = rows::obstacles(&mut tx, study_id).await?;
        let plan = plan(&held, target).and_then(|plan| allow(&obstacles, target).map(|()| plan));
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                // What was tried and refused is in the trail, too.
                if let RemovalError::Refused(text) = &error {
                    let act = act(target, admin, "refuse_removal", json!({ "text": text }));
                    audit::append(&mut tx, &act).await?;
                    db::commit(tx).await?;
                }
                return Err(error);
            }
        };
        let at = OffsetDateTime::now_utc().replace_nanosecond(0);
        let why = Removal {
            by: admin.to_owned(),
            at: at
                .ok()
                .and_then(|at| at.format(&Rfc3339).ok())
                .unwrap_or_default(),
            reason: target.reason.clone(),
        };
        let ids: Vec<i64> = plan.gone.iter().map(|one| one.id).collect();
        rows::remove(&mut tx, study_id, &ids, &why).await?;
        let (analyses, withdrawn) = if plan.answers {
            rows::remove_answers(&mut tx, study_id, &why).await?
        } else {
            (Vec::new(), 0)
        };
        if plan.everything {
            rows::forget(&mut tx, study_id).await?;
        } else if plan.again {
            queue::enqueue(&mut tx, study_id, Duration::ZERO).await?;
        }
        tell_workitems(&mut tx, study_id, &plan, target).await?;
        let instances: Vec<Value> = plan
            .gone
            .iter()
            .map(|one| {
                json!({
                    "series_instance_uid": one.series_instance_uid,
                    "sop_instance_uid": one.sop_instance_uid,
                    "sha256": hex::encode(&one.digest),
                })
            })
            .collect();
        let bytes = plan.gone.iter().map(|one| one.size_bytes).sum();
        let detail = json!({
            "policy": "removed by an admin, bytes included",
            "instances": instances,
            "bytes": bytes,
            "analyses": analyses,
            "withdrawn": withdrawn,
            "analysed_again": plan.again,
        });
        audit::append(&mut tx, &act(target, admin, "remove", detail)).await?;
        db::commit(tx).await?;
        let mut keys: Vec<String> = plan.gone.iter().map(|one| one.archive_key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        Ok(Removed {
            instances: ids.len(),
            bytes,
            files_left: self.delete_files(&keys).await,
        })
    }

    /// Deletes files of which the index knows nothing any more; how many are left.
    async fn delete_files(&self, keys: &[String]) -> usize {
        match sweep::delete(self, keys).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "files of what was removed are left to the sweep");
                keys.len()
            }
        }
    }
}

/// Leaves word for workitems that name what is gone.
async fn tell_workitems(tx: &mut Tx, study_id: i64, plan: &Plan<'_>, target: &Target) -> Result<(), DbError> {
    let study = target.study.as_str();
    if plan.everything {
        return rows::note_removed_input(tx, study, None, &target.reason).await;
    }
    let series: BTreeSet<&str> = plan
        .gone
        .iter()
        .map(|one| one.series_instance_uid.as_str())
        .collect();
    let series: Vec<String> = series.into_iter().map(str::to_owned).collect();
    let mut uids = rows::emptied(tx, study_id, &series).await?;
    uids.extend(plan.gone.iter().map(|one| one.sop_instance_uid.clone()));
    rows::note_removed_input(tx, study, Some(&uids), &target.reason).await
}

fn act<'a>(target: &Target, admin: &'a str, act: &'a str, mut detail: Value) -> Act<'a> {
    detail["reason"] = json!(target.reason);
    for (key, uid) in [
        ("series_instance_uid", &target.series),
        ("sop_instance_uid", &target.instance),
    ] {
        if let Some(uid) = uid {
            detail[key] = json!(uid);
        }
    }
    Act {
        principal: admin,
        act,
        studies: vec![target.study.to_string()],
        detail,
    }
}

/// What goes, and what follows from it.
fn plan<'h>(held: &'h [Held], target: &Target) -> Result<Plan<'h>, RemovalError> {
    let is_named = |one: &Held| {
        target
            .series
            .as_ref()
            .is_none_or(|uid| uid.as_str() == one.series_instance_uid)
            && target
                .instance
                .as_ref()
                .is_none_or(|uid| uid.as_str() == one.sop_instance_uid)
    };
    let named: Vec<&Held> = held.iter().filter(|one| is_named(one)).collect();
    if named.is_empty() {
        return Err(RemovalError::Unknown);
    }
    let is_part = target.series.is_some();
    if is_part && named.iter().any(|one| one.origin != "received") {
        return Err(RemovalError::Refused(
            "it is a result of ictus or a reader's mask, which go with the images that they are about; remove those"
                .to_owned(),
        ));
    }
    let left = || {
        held.iter()
            .filter(|one| !is_named(one) && one.origin == "received")
    };
    let images = named.iter().any(|one| one.original_ct);
    let (something, images_left) = (left().next().is_some(), left().any(|one| one.original_ct));
    let answers = !something || images && !images_left;
    // Without the images that they are about, what was made of them goes, too.
    let gone = held
        .iter()
        .filter(|one| is_named(one) || answers && one.origin != "received")
        .collect();
    Ok(Plan {
        gone,
        everything: !something,
        answers,
        again: images && images_left,
    })
}

/// Whether nothing stands against it.
fn allow(obstacles: &Obstacles, target: &Target) -> Result<(), RemovalError> {
    let refused = |text: String| Err(RemovalError::Refused(text));
    if obstacles.running > 0 || obstacles.workitems > 0 {
        return refused(
            "the study is being analysed, or a workitem waits for it; remove it when that has ended"
                .to_owned(),
        );
    }
    if obstacles.undelivered > 0 && !target.discard_undelivered {
        return refused(format!(
            "{} deliveries of its results wait or were given up (`ictus deliver list`); let them be delivered, or say \
             undelivered=discard",
            obstacles.undelivered
        ));
    }
    if obstacles.unacknowledged > 0 && !target.discard_undelivered {
        return refused(format!(
            "{} notifications about it were acknowledged by nobody; acknowledge them, or say undelivered=discard",
            obstacles.unacknowledged
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(id: i64, series: &str, origin: &str, original_ct: bool) -> Held {
        Held {
            id,
            series_instance_uid: series.to_owned(),
            origin: origin.to_owned(),
            sop_instance_uid: format!("{series}.{id}"),
            digest: vec![0; 32],
            archive_key: format!("key {id}"),
            size_bytes: 1,
            original_ct,
        }
    }

    fn target(series: Option<&str>, instance: Option<&str>) -> Target {
        let uid = |text: &str| Uid::parse(text).unwrap();
        Target {
            study: uid("1.1"),
            series: series.map(uid),
            instance: instance.map(uid),
            reason: "duplicate".to_owned(),
            discard_undelivered: false,
        }
    }

    #[test]
    fn results_go_with_the_last_image_and_images_that_are_left_are_analysed_again() {
        let study = [
            held(1, "2.1", "received", true),
            held(2, "2.1", "received", true),
            held(3, "2.2", "received", false),
            held(4, "2.3", "result", false),
        ];
        let planned = |target: &Target| {
            let plan = plan(&study, target).unwrap();
            let ids: Vec<i64> = plan.gone.iter().map(|one| one.id).collect();
            (ids, plan.everything, plan.answers, plan.again)
        };
        assert_eq!(
            planned(&target(None, None)),
            (vec![1, 2, 3, 4], true, true, false)
        );
        assert_eq!(
            planned(&target(Some("2.1"), None)),
            (vec![1, 2, 4], false, true, false)
        );
        assert_eq!(
            planned(&target(Some("2.1"), Some("2.1.1"))),
            (vec![1], false, false, true)
        );
        assert_eq!(
            planned(&target(Some("2.2"), None)),
            (vec![3], false, false, false)
        );
        assert!(matches!(
            plan(&study, &target(Some("2.3"), None)),
            Err(RemovalError::Refused(_))
        ));
        assert!(matches!(
            plan(&study, &target(Some("2.9"), None)),
            Err(RemovalError::Unknown)
        ));
    }

    #[test]
    fn what_is_analysed_or_undelivered_stays_and_the_refusal_says_why() {
        let free = Obstacles {
            running: 0,
            workitems: 0,
            undelivered: 0,
            unacknowledged: 0,
        };
        let said = |obstacles, discard_undelivered| {
            let target = Target {
                discard_undelivered,
                ..target(None, None)
            };
            allow(&obstacles, &target).map_err(|error| error.to_string())
        };
        assert_eq!(said(free, false), Ok(()));
        let running = Obstacles { running: 1, ..free };
        assert!(said(running, true).unwrap_err().contains("being analysed"));
        let waiting = Obstacles {
            undelivered: 2,
            ..free
        };
        assert!(said(waiting, false).unwrap_err().starts_with("2 deliveries"));
        assert_eq!(said(waiting, true), Ok(()));
        let unheard = Obstacles {
            unacknowledged: 1,
            ..free
        };
        assert!(said(unheard, false).unwrap_err().contains("acknowledge them"));
    }
}
