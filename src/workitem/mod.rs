//! SERVICE: Unified Procedure Steps, by which a task manager drives analyses: created, claimed, updated, ended, watched.
//!
//! A workitem is SCHEDULED, then IN PROGRESS under the Transaction UID of its performer, then COMPLETED or CANCELED.
//! Those that are scheduled for this system it performs itself ([`perform`]); all others it keeps for whoever performs them.
//! Each act, what subscribers hear of it, and its row of the trail commit together.
//! It knows nothing of HTTP, and does not fetch what a workitem names: images are sent here, as always.
//!
//! Source: PS3.4 annex CC; PS3.18 chapter 11; IHE RAD AI Workflow for Imaging.

pub mod dataset;
pub mod perform;
pub mod report;
mod rules;
mod state;
mod subscription;

pub use rules::{FILTERED_WORKLIST, PUSH, WORKLIST};
pub use state::{State, WorkitemError};
pub use subscription::Watched;

use crate::{
    db::{
        self, Db, Tx,
        audit::{self, Act},
        error::DbError,
        events,
        workitem::{self as rows, Workitem},
    },
    domain::uid::Uid,
};
use dataset::{Dataset, has_value, key, put, text};
use dicom_dictionary_std::tags;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// The scheme of our own codes.
pub const SCHEME: &str = "99ICTUS";
/// Our workitem code: the analysis of a head CT.
pub const HEAD_CT: &str = "HEAD-CT";
/// Other workitem codes under which a workitem for our station is understood (PS3.16 CID 9231).
const COMPUTER_AIDED: [&str; 2] = ["110003", "110004"];

const NO_WORKITEM: WorkitemError = WorkitemError::Unknown("there is no workitem of that UID");

/// What is done with workitems, by whom.
#[derive(Debug, Clone)]
pub struct Desk<'a> {
    /// Where they are.
    pub db: &'a Db,
    /// Code value of our own station: our application entity title.
    pub station: &'a str,
    /// Who asks, for the trail.
    pub principal: &'a str,
}

impl Desk<'_> {
    /// Creates a workitem. Says whether it had to be completed for the sender.
    ///
    /// # Errors
    /// When it lacks something, when there is one of that UID, or when the database fails.
    pub async fn create(&self, uid: &Uid, mut attributes: Dataset) -> Result<bool, WorkitemError> {
        let now = OffsetDateTime::now_utc();
        let changed = rules::complete_new(&mut attributes, uid.as_str(), &dataset::date_time(now))?;
        let workitem = Workitem {
            uid: uid.to_string(),
            state: State::Scheduled.as_str().to_owned(),
            studies: rules::studies(&attributes),
            ours: is_ours(&attributes, self.station),
            attributes: attributes.into(),
            transaction_uid: None,
            study_instance_uid: None,
            created_at: now,
            claimed_at: None,
            asked_at: None,
        };
        let mut tx = self.db.begin().await?;
        if !rows::insert(&mut tx, &workitem).await? {
            return Err(WorkitemError::Exists);
        }
        rows::subscribe_to_new(&mut tx, &workitem.uid).await?;
        let mut reports = vec![report::state(&workitem.uid, &workitem.attributes)];
        reports.extend(report::assigned(&workitem.uid, &workitem.attributes));
        tell(&mut tx, &workitem, &reports).await?;
        let detail = json!({ "workitem": workitem.uid, "ours": workitem.ours });
        self.finish(tx, "schedule", &workitem.studies, detail).await?;
        Ok(changed)
    }

    /// Lays changes over a workitem.
    ///
    /// # Errors
    /// When it has ended, is claimed by another Transaction UID, or would not be what it must be.
    pub async fn update(
        &self,
        uid: &Uid,
        transaction_uid: Option<&str>,
        changes: Dataset,
    ) -> Result<(), WorkitemError> {
        let mut tx = self.db.begin().await?;
        let mut workitem = rows::lock(&mut tx, uid.as_str()).await?.ok_or(NO_WORKITEM)?;
        match (state_of(&workitem)?, transaction_uid) {
            (State::Scheduled, None) => {}
            (State::Scheduled, Some(_)) => return Err(WorkitemError::NotClaimed),
            (State::InProgress, given) => check_transaction(&workitem, given)?,
            (ended, _) => return Err(WorkitemError::Ended(ended)),
        }
        let now = dataset::date_time(OffsetDateTime::now_utc());
        let changed = rules::update(&mut workitem.attributes, changes, uid.as_str(), &now)?;
        workitem.studies = rules::studies(&workitem.attributes);
        if workitem.state == State::Scheduled.as_str() {
            workitem.ours = is_ours(&workitem.attributes, self.station);
        }
        rows::save(&mut tx, &workitem).await?;
        let has = |tag| changed.contains(&key(tag));
        let mut reports = Vec::new();
        if has(tags::INPUT_READINESS_STATE) {
            reports.push(report::state(uid.as_str(), &workitem.attributes));
        }
        if has(tags::SCHEDULED_STATION_NAME_CODE_SEQUENCE) || has(tags::SCHEDULED_HUMAN_PERFORMERS_SEQUENCE) {
            reports.extend(report::assigned(uid.as_str(), &workitem.attributes));
        }
        if has(tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE) {
            reports.push(report::progress(uid.as_str(), &workitem.attributes));
        }
        tell(&mut tx, &workitem, &reports).await?;
        let detail = json!({ "workitem": uid, "attributes": changed });
        self.finish(tx, "update_workitem", &workitem.studies, detail)
            .await
    }

    /// Claims, completes or cancels a workitem. False when it was in that state already.
    ///
    /// # Errors
    /// When the Transaction UID is not right, or the state cannot follow.
    pub async fn change_state(
        &self,
        uid: &Uid,
        to: State,
        transaction_uid: Option<&str>,
    ) -> Result<bool, WorkitemError> {
        let mut tx = self.db.begin().await?;
        let mut workitem = rows::lock(&mut tx, uid.as_str()).await?.ok_or(NO_WORKITEM)?;
        let from = state_of(&workitem)?;
        let given = transaction_uid.ok_or(WorkitemError::TransactionMissing)?;
        let refused = |lacks: &str| WorkitemError::Transition {
            from,
            to,
            lacks: lacks.to_owned(),
        };
        match (from, to) {
            (State::Scheduled, State::InProgress) => {
                let given = Uid::parse(given)
                    .map_err(|_| WorkitemError::Invalid("the Transaction UID is no UID".to_owned()))?;
                if workitem.ours {
                    return Err(refused(
                        "; it is scheduled for this system, which performs it itself",
                    ));
                }
                workitem.transaction_uid = Some(given.to_string());
                workitem.claimed_at = Some(rows::now(&mut tx).await?);
            }
            (State::Scheduled, _) => return Err(refused("; claim it first")),
            (_, State::Scheduled) => return Err(refused("")),
            (_, _) => {
                check_transaction(&workitem, Some(given))?;
                match (from, to) {
                    (State::Completed, State::Completed) | (State::Canceled, State::Canceled) => {
                        return Ok(false);
                    }
                    (State::InProgress, State::Completed) => {
                        let lacks = rules::lacks_to_complete(&workitem.attributes);
                        if !lacks.is_empty() {
                            return Err(refused(&format!(
                                ": before, an update gives it a value of {}",
                                lacks.join(", ")
                            )));
                        }
                    }
                    (State::InProgress, State::Canceled) => {
                        note_cancellation(
                            &mut workitem.attributes,
                            &Dataset::new(),
                            OffsetDateTime::now_utc(),
                        );
                    }
                    _ => return Err(refused("")),
                }
            }
        }
        enter(&mut tx, &mut workitem, to).await?;
        let detail = json!({ "workitem": uid, "state": to.as_str() });
        self.finish(tx, "change_workitem", &workitem.studies, detail)
            .await?;
        Ok(true)
    }

    /// Asks that a workitem be cancelled; `wish` is what was said of it. False when it was cancelled already.
    ///
    /// One that nobody has begun is cancelled at once, and so is one of ours.
    ///
    /// # Errors
    /// When it is completed, or nobody would hear of the wish.
    pub async fn request_cancel(&self, uid: &Uid, wish: &Dataset) -> Result<bool, WorkitemError> {
        if let Some(fault) = dataset::fault(wish) {
            let text = format!("the body is no dataset of the DICOM JSON model: {fault}");
            return Err(WorkitemError::Invalid(text));
        }
        let mut tx = self.db.begin().await?;
        let mut workitem = rows::lock(&mut tx, uid.as_str()).await?.ok_or(NO_WORKITEM)?;
        let state = state_of(&workitem)?;
        match state {
            State::Completed => return Err(WorkitemError::Completed),
            State::Canceled => return Ok(false),
            State::InProgress
                if !workitem.ours && rows::subscribers(&mut tx, uid.as_str()).await?.is_empty() =>
            {
                return Err(WorkitemError::NobodyHears);
            }
            State::Scheduled | State::InProgress => {}
        }
        let requester: String = self.principal.chars().filter(|c| *c != '\\').take(16).collect();
        let asked = report::cancel_requested(uid.as_str(), &requester, wish);
        tell(&mut tx, &workitem, &[asked]).await?;
        if state == State::Scheduled {
            // It passes through IN PROGRESS, as every end does.
            workitem.transaction_uid = Some(format!("2.25.{}", uuid::Uuid::new_v4().as_u128()));
            workitem.claimed_at = Some(rows::now(&mut tx).await?);
            enter(&mut tx, &mut workitem, State::InProgress).await?;
        }
        let cancelled = state == State::Scheduled || workitem.ours;
        if cancelled {
            note_cancellation(&mut workitem.attributes, wish, OffsetDateTime::now_utc());
            enter(&mut tx, &mut workitem, State::Canceled).await?;
        }
        let detail = json!({ "workitem": uid, "cancelled": cancelled });
        self.finish(tx, "cancel_workitem", &workitem.studies, detail)
            .await?;
        Ok(true)
    }

    /// The row of the trail, and the commit.
    async fn finish(
        &self,
        mut tx: Tx,
        act: &'static str,
        studies: &[String],
        detail: Value,
    ) -> Result<(), WorkitemError> {
        events::notify_workitem(&mut tx).await?;
        let act = Act {
            principal: self.principal,
            act,
            studies: studies.to_vec(),
            detail,
        };
        audit::append(&mut tx, &act).await?;
        Ok(db::commit(tx).await?)
    }
}

/// Whether a workitem is scheduled for this system: its station is ours, or none is named and the code is ours.
fn is_ours(attributes: &Dataset, station: &str) -> bool {
    let stations = tags::SCHEDULED_STATION_NAME_CODE_SEQUENCE;
    if has_value(attributes, stations) {
        return dataset::items(attributes, stations).any(|item| text(item, tags::CODE_VALUE) == station);
    }
    dataset::items(attributes, tags::SCHEDULED_WORKITEM_CODE_SEQUENCE).any(is_head_ct)
}

fn is_head_ct(code: &Dataset) -> bool {
    text(code, tags::CODING_SCHEME_DESIGNATOR) == SCHEME && text(code, tags::CODE_VALUE) == HEAD_CT
}

/// Whether one of the workitem codes is understood; without any the station says enough.
fn is_understood(attributes: &Dataset) -> bool {
    let mut codes = dataset::items(attributes, tags::SCHEDULED_WORKITEM_CODE_SEQUENCE).peekable();
    codes.peek().is_none()
        || codes.any(|code| {
            is_head_ct(code)
                || text(code, tags::CODING_SCHEME_DESIGNATOR) == "DCM"
                    && COMPUTER_AIDED.contains(&text(code, tags::CODE_VALUE))
        })
}

fn state_of(workitem: &Workitem) -> Result<State, WorkitemError> {
    workitem
        .state
        .parse()
        .map_err(|_| DbError::Stored("workitem").into())
}

/// Compared by digest: how much of a wrong UID was right is not to be told by the time it takes.
fn check_transaction(workitem: &Workitem, given: Option<&str>) -> Result<(), WorkitemError> {
    let given = given.ok_or(WorkitemError::TransactionMissing)?;
    let held = workitem.transaction_uid.as_deref().unwrap_or_default();
    if !held.is_empty() && Sha256::digest(held) == Sha256::digest(given.trim_matches([' ', '\0'])) {
        Ok(())
    } else {
        Err(WorkitemError::TransactionWrong)
    }
}

/// Takes a workitem into a state, and tells so.
async fn enter(tx: &mut Tx, workitem: &mut Workitem, state: State) -> Result<(), DbError> {
    state.as_str().clone_into(&mut workitem.state);
    put(
        &mut workitem.attributes,
        tags::PROCEDURE_STEP_STATE,
        vec![json!(state.as_str())],
    );
    let now = dataset::date_time(OffsetDateTime::now_utc());
    let modified = tags::SCHEDULED_PROCEDURE_STEP_MODIFICATION_DATE_TIME;
    put(&mut workitem.attributes, modified, vec![json!(now)]);
    rows::save(tx, workitem).await?;
    let report = report::state(&workitem.uid, &workitem.attributes);
    tell(tx, workitem, &[report]).await
}

async fn tell(tx: &mut Tx, workitem: &Workitem, reports: &[Dataset]) -> Result<(), DbError> {
    let subscribers = rows::subscribers(tx, &workitem.uid).await?;
    rows::file_events(tx, &subscribers, reports).await
}

/// What a cancelled workitem says of its end: when, and why as far as anybody said.
fn note_cancellation(attributes: &mut Dataset, why: &Dataset, at: OffsetDateTime) {
    let sequence = tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE;
    let mut progress = dataset::items(attributes, sequence)
        .next()
        .cloned()
        .unwrap_or_default();
    let reason = tags::PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE;
    for tag in [tags::REASON_FOR_CANCELLATION, reason] {
        if has_value(why, tag) {
            put(&mut progress, tag, dataset::values(why, tag).to_vec());
        }
    }
    if !has_value(&progress, tags::PROCEDURE_STEP_CANCELLATION_DATE_TIME) {
        let at = dataset::date_time(at);
        put(
            &mut progress,
            tags::PROCEDURE_STEP_CANCELLATION_DATE_TIME,
            vec![json!(at)],
        );
    }
    if !has_value(&progress, reason) {
        let unspecified = dataset::code("110513", "DCM", "Discontinued for unspecified reason");
        put(&mut progress, reason, vec![unspecified]);
    }
    put(attributes, sequence, vec![Value::Object(progress)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataset::{code, dataset_of};

    #[test]
    fn knows_by_station_and_code_what_is_scheduled_for_it() {
        let workitem = |stations: &[&str], codes: &[(&str, &str)]| {
            dataset_of([
                (
                    tags::SCHEDULED_STATION_NAME_CODE_SEQUENCE,
                    stations.iter().map(|name| code(name, "99LOCAL", "")).collect(),
                ),
                (
                    tags::SCHEDULED_WORKITEM_CODE_SEQUENCE,
                    codes
                        .iter()
                        .map(|(value, scheme)| code(value, scheme, ""))
                        .collect(),
                ),
            ])
        };
        for (stations, codes, ours, understood) in [
            (&["ICTUS"][..], &[][..], true, true),
            (&["OTHER", "ICTUS"], &[("110004", "DCM")], true, true),
            (&["ICTUS"], &[("110005", "DCM")], true, false),
            (&[], &[("HEAD-CT", "99ICTUS")], true, true),
            (&["OTHER"], &[("HEAD-CT", "99ICTUS")], false, true),
            (&[], &[("HEAD-CT", "99OTHER")], false, false),
            (&[], &[("110004", "DCM")], false, true),
            (&[], &[], false, true),
        ] {
            let attributes = workitem(stations, codes);
            assert_eq!(
                (is_ours(&attributes, "ICTUS"), is_understood(&attributes)),
                (ours, understood),
                "{stations:?} {codes:?}"
            );
        }
    }

    #[test]
    fn a_cancelled_workitem_says_when_and_why() {
        let mut attributes = Dataset::new();
        let why = dataset_of([(tags::REASON_FOR_CANCELLATION, vec![json!("no longer wanted")])]);
        note_cancellation(&mut attributes, &why, OffsetDateTime::UNIX_EPOCH);
        let sequence = tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE;
        let progress = dataset::items(&attributes, sequence).next().unwrap();
        assert_eq!(text(progress, tags::REASON_FOR_CANCELLATION), "no longer wanted");
        assert!(has_value(progress, tags::PROCEDURE_STEP_CANCELLATION_DATE_TIME));
        let reason = tags::PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE;
        let reason = dataset::items(progress, reason).next().unwrap();
        assert_eq!(text(reason, tags::CODE_VALUE), "110513");
    }
}
