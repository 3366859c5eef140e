//! Our own workitems, performed: the analysis of the study that they name, from SCHEDULED to COMPLETED or CANCELED.
//!
//! A workitem waits until its input is READY and stored here (each instance that it names; else what the study holds when it
//! has been quiet), asks for the analysis of the study, and ends when a job has
//! looked at the study since: with the results of the analysis that holds, whether it was made for the workitem or before.
//! What cannot be done is cancelled with a reason in words and as a code; so is what nobody has begun, whoever was to, when its
//! images are removed.
//! Cancelling a workitem does not stop the analysis: every head CT that arrives is analysed, whoever asks.
//! A start time in the future is not waited for.

use super::{
    HEAD_CT, SCHEME, State, WorkitemError,
    dataset::{Dataset, code, dataset_of, date_time, items, put, text, values},
    enter, is_understood, note_cancellation, report, state_of, tell,
};
use crate::{
    db::{
        self, Db, Tx, analysis,
        audit::{self, Act},
        error::DbError,
        events::{self, Event, Events},
        queue,
        workitem::{self as rows, Outcome, Workitem},
    },
    domain::finding,
};
use dicom_dictionary_std::tags;
use serde_json::{Value, json};
use std::{collections::BTreeSet, future::Future, time::Duration};
use time::OffsetDateTime;
use tokio::sync::broadcast::error::RecvError;

/// Who acts in the trail.
const PRINCIPAL: &str = "ictus";
/// Workitems are looked at, should an event be lost.
const POLL: Duration = Duration::from_secs(2);
/// How long a workitem waits for images that are said to be ready.
const WAITS_FOR_IMAGES: time::Duration = time::Duration::hours(1);
/// An analysis that nobody has begun after so long is asked for again: its job may have been lost.
const ASKS_AGAIN: time::Duration = time::Duration::hours(1);
/// The longest ReasonForCancellation that every reader takes (an LT has 10240 characters).
const REASON_CHARACTERS: usize = 1024;

/// Why a workitem is given up: a code of PS3.16 CID 9300 or 9303.
struct Refusal {
    code: (&'static str, &'static str),
    text: String,
}

const REJECTED: (&str, &str) = ("110530", "Workitem assignment rejected by assigned resource");
const TYPES: (&str, &str) = ("110522", "Object Types not supported");
const INCOMPLETE: (&str, &str) = ("110523", "Object Set incomplete");
const FAILURE: (&str, &str) = ("110501", "Equipment failure");
const QUALITY: (&str, &str) = ("110531", "Insufficient quality for interpretation");

impl Refusal {
    fn new(code: (&'static str, &'static str), text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// What a workitem is about.
#[derive(Debug, PartialEq, Eq)]
struct Input {
    study: String,
    series: Vec<String>,
    instances: Vec<String>,
}

/// Performs our own workitems; clones share everything.
#[derive(Debug, Clone)]
pub struct Performer {
    db: Db,
    events: Events,
    station: String,
    quiet: Duration,
}

impl Performer {
    /// `station`: the code value by which workitems name this system;
    /// `quiet`: how long after its last instance a study is taken to be complete.
    #[must_use]
    pub fn new(db: Db, events: Events, station: &str, quiet: Duration) -> Self {
        Self {
            db,
            events,
            station: station.to_owned(),
            quiet,
        }
    }

    /// Works until `stop`.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) {
        let mut heard = self.events.subscribe();
        tokio::pin!(stop);
        loop {
            if let Err(error) = self.once().await {
                tracing::warn!(%error, "workitems cannot be performed now; it is tried again");
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(POLL) => {}
                () = about_us(&mut heard) => {}
            }
        }
    }

    /// Tells every subscriber that the server has started again, and that what it knew it knows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn announce(&self) -> Result<(), WorkitemError> {
        let mut tx = self.db.begin().await?;
        let everybody = rows::all_subscribers(&mut tx).await?;
        rows::file_events(&mut tx, &everybody, &[report::restarted()]).await?;
        Ok(db::commit(tx).await?)
    }

    /// Takes each workitem as far as it goes now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn once(&self) -> Result<(), WorkitemError> {
        let mut failed = None;
        if let Err(error) = self.settle_removed().await {
            failed = Some(error);
        }
        for uid in self.db.open_workitems().await? {
            // One that cannot be performed does not hold up the others.
            if let Err(error) = self.step(&uid).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn step(&self, uid: &str) -> Result<(), WorkitemError> {
        let mut tx = self.db.begin().await?;
        let Some(mut workitem) = rows::lock(&mut tx, uid).await? else {
            return Ok(());
        };
        // Without an act there is no row, and nothing to commit but progress.
        let act = match state_of(&workitem)? {
            State::Scheduled if workitem.ours => self.begin(&mut tx, &mut workitem).await?,
            State::InProgress if workitem.ours => self.follow(&mut tx, &mut workitem).await?,
            _ => None,
        };
        note_act(&mut tx, &workitem, act).await?;
        Ok(db::commit(tx).await?)
    }

    /// Cancels workitems that nobody has begun and whose images were removed: one transaction a removal.
    async fn settle_removed(&self) -> Result<(), WorkitemError> {
        loop {
            let mut tx = self.db.begin().await?;
            let Some(removed) = rows::take_removed_input(&mut tx).await? else {
                return Ok(());
            };
            for uid in rows::scheduled_on(&mut tx, &removed).await? {
                let Some(mut workitem) = rows::lock(&mut tx, &uid).await? else {
                    continue;
                };
                if state_of(&workitem)? != State::Scheduled {
                    continue;
                }
                let text = format!("what it names was removed from ictus ({})", removed.reason);
                let detail = give_up(&mut tx, &mut workitem, &Refusal::new(INCOMPLETE, text)).await?;
                note_act(&mut tx, &workitem, detail).await?;
            }
            events::notify_workitem(&mut tx).await?;
            db::commit(tx).await?;
        }
    }

    /// Claims a workitem whose input is there; returns what the trail says of it.
    async fn begin(&self, tx: &mut Tx, workitem: &mut Workitem) -> Result<Option<Value>, WorkitemError> {
        if !is_understood(&workitem.attributes) {
            let text = format!(
                "its workitem code is none that ictus performs: ({HEAD_CT}, {SCHEME}), (110004, DCM), (110003, DCM), or none"
            );
            return give_up(tx, workitem, &Refusal::new(REJECTED, text)).await;
        }
        if text(&workitem.attributes, tags::INPUT_READINESS_STATE) != "READY" {
            return Ok(None);
        }
        let input = match input_of(&workitem.attributes) {
            Ok(input) => input,
            Err(refusal) => return give_up(tx, workitem, &refusal).await,
        };
        let stored = rows::stored(tx, &input.study, &input.series, &input.instances).await?;
        let count = |list: &[String]| i64::try_from(list.len()).unwrap_or(i64::MAX);
        let there = stored.filter(|stored| {
            stored.series == count(&input.series) && stored.instances == count(&input.instances)
        });
        let now = rows::now(tx).await?;
        let Some(stored) = there else {
            if now - workitem.created_at < WAITS_FOR_IMAGES {
                return Ok(None);
            }
            let text = "images that it names have not been sent to ictus within an hour";
            return give_up(tx, workitem, &Refusal::new(INCOMPLETE, text)).await;
        };
        // READY is said of where the images come from; here they may be arriving still, unless each is named.
        if input.instances.is_empty() && stored.quiet_seconds < self.quiet.as_secs_f64() {
            return Ok(None);
        }
        if stored.images == 0 {
            let text = "what it names holds no original CT image";
            return give_up(tx, workitem, &Refusal::new(TYPES, text)).await;
        }
        workitem.transaction_uid = Some(format!("2.25.{}", uuid::Uuid::new_v4().as_u128()));
        workitem.study_instance_uid = Some(input.study);
        workitem.claimed_at = Some(now);
        workitem.asked_at = Some(now);
        queue::enqueue(tx, stored.study_id, Duration::ZERO).await?;
        enter(tx, workitem, State::InProgress).await?;
        Ok(Some(json!({})))
    }

    /// Looks how far the analysis is; returns what the trail says of its end.
    async fn follow(&self, tx: &mut Tx, workitem: &mut Workitem) -> Result<Option<Value>, WorkitemError> {
        let (Some(study), Some(claimed_at)) = (workitem.study_instance_uid.clone(), workitem.claimed_at)
        else {
            let text = "ictus does not know which study it was about";
            return give_up(tx, workitem, &Refusal::new(FAILURE, text)).await;
        };
        let Some(outcome) = rows::outcome(tx, &study, claimed_at).await? else {
            return self.ask_again(tx, workitem, &study).await;
        };
        match outcome.state.as_str() {
            "running" => {
                note_progress(tx, workitem, &outcome).await?;
                Ok(None)
            }
            "complete" => self.end(tx, workitem, &study, &outcome).await,
            "cancelled" => {
                let text = "somebody stopped the analysis, or its images were rejected";
                give_up(tx, workitem, &Refusal::new(REJECTED, text)).await
            }
            _ => {
                let code = outcome.failure_code.as_deref().unwrap_or("internal");
                let text = format!("{code}: {}", outcome.failure_text.as_deref().unwrap_or_default());
                let code = match code {
                    "internal" | "transient" | "worker_died" => FAILURE,
                    analysis::EVICTED => INCOMPLETE,
                    _ => QUALITY,
                };
                give_up(tx, workitem, &Refusal::new(code, text)).await
            }
        }
    }

    /// A job that nobody began for long is put in again.
    async fn ask_again(
        &self,
        tx: &mut Tx,
        workitem: &mut Workitem,
        study: &str,
    ) -> Result<Option<Value>, WorkitemError> {
        let now = rows::now(tx).await?;
        if workitem.asked_at.is_some_and(|asked| now - asked < ASKS_AGAIN) {
            return Ok(None);
        }
        let Some(stored) = rows::stored(tx, study, &[], &[]).await? else {
            let text = "the study was removed from ictus";
            return give_up(tx, workitem, &Refusal::new(INCOMPLETE, text)).await;
        };
        queue::enqueue(tx, stored.study_id, Duration::ZERO).await?;
        workitem.asked_at = Some(now);
        rows::save(tx, workitem).await?;
        Ok(None)
    }

    /// The analysis is there: what it says decides how the workitem ends.
    async fn end(
        &self,
        tx: &mut Tx,
        workitem: &mut Workitem,
        study: &str,
        outcome: &Outcome,
    ) -> Result<Option<Value>, WorkitemError> {
        let results = rows::results(tx, outcome.analysis).await?;
        let now = rows::now(tx).await?;
        self.note_performed(workitem, study, &results, now);
        let named = input_of(&workitem.attributes)
            .map(|input| input.series)
            .unwrap_or_default();
        if let Some(refusal) = why_not_answered(outcome, &named) {
            let mut detail = give_up(tx, workitem, &refusal).await?;
            if let Some(detail) = &mut detail {
                detail["analysis"] = json!(outcome.analysis);
            }
            return Ok(detail);
        }
        let done = dataset_of([(tags::PROCEDURE_STEP_PROGRESS, vec![json!("100")])]);
        let sequence = tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE;
        put(&mut workitem.attributes, sequence, vec![Value::Object(done)]);
        enter(tx, workitem, State::Completed).await?;
        Ok(Some(
            json!({ "analysis": outcome.analysis, "results": results.len() }),
        ))
    }

    /// What was done, by whom, and what it made.
    fn note_performed(
        &self,
        workitem: &mut Workitem,
        study: &str,
        results: &[rows::ResultReference],
        now: OffsetDateTime,
    ) {
        let mut series: Vec<(&str, Vec<Value>)> = Vec::new();
        for result in results {
            let item = dataset_of([
                (tags::REFERENCED_SOP_CLASS_UID, vec![json!(result.sop_class_uid)]),
                (
                    tags::REFERENCED_SOP_INSTANCE_UID,
                    vec![json!(result.sop_instance_uid)],
                ),
            ]);
            let uid = result.series_instance_uid.as_str();
            match series.iter_mut().find(|(other, _)| *other == uid) {
                Some((_, items)) => items.push(Value::Object(item)),
                None => series.push((uid, vec![Value::Object(item)])),
            }
        }
        let output = series
            .into_iter()
            .map(|(uid, items)| {
                Value::Object(dataset_of([
                    (tags::TYPE_OF_INSTANCES, vec![json!("DICOM")]),
                    (tags::STUDY_INSTANCE_UID, vec![json!(study)]),
                    (tags::SERIES_INSTANCE_UID, vec![json!(uid)]),
                    (tags::REFERENCED_SOP_SEQUENCE, items),
                ]))
            })
            .collect();
        let mut codes = values(&workitem.attributes, tags::SCHEDULED_WORKITEM_CODE_SEQUENCE).to_vec();
        if codes.is_empty() {
            codes.push(code(HEAD_CT, SCHEME, "Head CT analysis"));
        }
        let began = workitem.claimed_at.unwrap_or(now);
        let performed = dataset_of([
            (
                tags::PERFORMED_STATION_NAME_CODE_SEQUENCE,
                vec![code(&self.station, SCHEME, "ictus")],
            ),
            (tags::PERFORMED_STATION_CLASS_CODE_SEQUENCE, Vec::new()),
            (
                tags::PERFORMED_STATION_GEOGRAPHIC_LOCATION_CODE_SEQUENCE,
                Vec::new(),
            ),
            (
                tags::PERFORMED_PROCEDURE_STEP_START_DATE_TIME,
                vec![json!(date_time(began))],
            ),
            (
                tags::PERFORMED_PROCEDURE_STEP_DESCRIPTION,
                vec![json!("Head CT analysis, not for clinical use")],
            ),
            (tags::PERFORMED_WORKITEM_CODE_SEQUENCE, codes),
            (
                tags::PERFORMED_PROCEDURE_STEP_END_DATE_TIME,
                vec![json!(date_time(now))],
            ),
            (tags::OUTPUT_INFORMATION_SEQUENCE, output),
        ]);
        let sequence = tags::UNIFIED_PROCEDURE_STEP_PERFORMED_PROCEDURE_SEQUENCE;
        put(&mut workitem.attributes, sequence, vec![Value::Object(performed)]);
    }
}

/// The row of the trail of what was done to a workitem; none when nothing was.
async fn note_act(tx: &mut Tx, workitem: &Workitem, detail: Option<Value>) -> Result<(), DbError> {
    let Some(mut detail) = detail else {
        return Ok(());
    };
    detail["workitem"] = json!(workitem.uid);
    detail["state"] = json!(workitem.state);
    let act = Act {
        principal: PRINCIPAL,
        act: "change_workitem",
        studies: workitem.studies.clone(),
        detail,
    };
    audit::append(tx, &act).await?;
    Ok(())
}

/// Comes back when something happened that can take a workitem further.
async fn about_us(heard: &mut tokio::sync::broadcast::Receiver<Event>) {
    loop {
        match heard.recv().await {
            Ok(Event::Cancel(_)) => {}
            Ok(Event::Study(_) | Event::Workitem | Event::Missed) | Err(RecvError::Lagged(_)) => return,
            // The server ends; whoever waits hears it elsewhere.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// The one study that a workitem is about.
fn input_of(attributes: &Dataset) -> Result<Input, Refusal> {
    let named: Vec<&Dataset> = items(attributes, tags::INPUT_INFORMATION_SEQUENCE)
        .filter(|item| !text(item, tags::STUDY_INSTANCE_UID).is_empty())
        .collect();
    let studies: BTreeSet<&str> = named
        .iter()
        .map(|item| text(item, tags::STUDY_INSTANCE_UID))
        .collect();
    let own = text(attributes, tags::STUDY_INSTANCE_UID);
    let study = if studies.contains(own) {
        own
    } else if studies.len() == 1 {
        studies.first().copied().unwrap_or_default()
    } else if studies.is_empty() {
        let text = "its Input Information Sequence names no study";
        return Err(Refusal::new(INCOMPLETE, text));
    } else {
        let text = format!(
            "its Input Information Sequence names {} studies and StudyInstanceUID none of them; ictus analyses one study a workitem",
            studies.len()
        );
        return Err(Refusal::new(REJECTED, text));
    };
    let of_study = || {
        named
            .iter()
            .filter(|item| text(item, tags::STUDY_INSTANCE_UID) == study)
    };
    let series: BTreeSet<String> = of_study()
        .map(|item| text(item, tags::SERIES_INSTANCE_UID).to_owned())
        .filter(|uid| !uid.is_empty())
        .collect();
    let instances: BTreeSet<String> = of_study()
        .flat_map(|item| items(item, tags::REFERENCED_SOP_SEQUENCE))
        .map(|reference| text(reference, tags::REFERENCED_SOP_INSTANCE_UID).to_owned())
        .filter(|uid| !uid.is_empty())
        .collect();
    Ok(Input {
        study: study.to_owned(),
        series: series.into_iter().collect(),
        instances: instances.into_iter().collect(),
    })
}

/// Why a complete analysis does not answer what a workitem asked: nothing was evaluated, or none of its series was looked at.
fn why_not_answered(outcome: &Outcome, named: &[String]) -> Option<Refusal> {
    let report: Option<finding::Report> = outcome
        .report
        .clone()
        .and_then(|report| serde_json::from_value(report).ok());
    let Some(report) = report else {
        return Some(Refusal::new(FAILURE, "the report of the analysis cannot be read"));
    };
    let why = report
        .refusals
        .first()
        .map(|refusal| format!("{}: {}", refusal.code, refusal.text));
    if outcome.answer.as_deref() == Some("not_evaluated") {
        let text = why.unwrap_or_else(|| "nothing in the study could be evaluated".to_owned());
        return Some(Refusal::new(QUALITY, text));
    }
    let is_named = |uid: &str| named.iter().any(|name| name == uid);
    let choices: Vec<_> = report
        .series
        .iter()
        .filter(|choice| is_named(choice.uid.as_str()))
        .collect();
    // A report that does not say which series it chose says nothing against this one.
    if named.is_empty() || report.series.is_empty() || choices.iter().any(|choice| choice.chosen) {
        return None;
    }
    let reason = choices.first().map(|choice| choice.reason.as_str());
    let text = format!(
        "the study was analysed, and of the series that the workitem names none was looked at: {}",
        reason.unwrap_or("another series was chosen")
    );
    Some(Refusal::new(REJECTED, text))
}

async fn note_progress(tx: &mut Tx, workitem: &mut Workitem, outcome: &Outcome) -> Result<(), WorkitemError> {
    if outcome.progress_total <= 0 {
        return Ok(());
    }
    // A hundred is said by the end.
    let percent = (i64::from(outcome.progress_done) * 100 / i64::from(outcome.progress_total)).clamp(0, 99);
    let sequence = tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE;
    let before = items(&workitem.attributes, sequence).next();
    let percent = percent.to_string();
    if before.is_some_and(|progress| text(progress, tags::PROCEDURE_STEP_PROGRESS) == percent) {
        return Ok(());
    }
    let progress = dataset_of([(tags::PROCEDURE_STEP_PROGRESS, vec![json!(percent)])]);
    put(&mut workitem.attributes, sequence, vec![Value::Object(progress)]);
    rows::save(tx, workitem).await?;
    let report = report::progress(&workitem.uid, &workitem.attributes);
    Ok(tell(tx, workitem, &[report]).await?)
}

/// Cancels a workitem with its reason; returns what the trail says of it.
async fn give_up(
    tx: &mut Tx,
    workitem: &mut Workitem,
    refusal: &Refusal,
) -> Result<Option<Value>, WorkitemError> {
    let now = rows::now(tx).await?;
    if state_of(workitem)? == State::Scheduled {
        workitem.transaction_uid = Some(format!("2.25.{}", uuid::Uuid::new_v4().as_u128()));
        workitem.claimed_at = Some(now);
        enter(tx, workitem, State::InProgress).await?;
    }
    let reason: String = refusal.text.chars().take(REASON_CHARACTERS).collect();
    let (value, meaning) = refusal.code;
    let why = dataset_of([
        (tags::REASON_FOR_CANCELLATION, vec![json!(reason)]),
        (
            tags::PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE,
            vec![code(value, "DCM", meaning)],
        ),
    ]);
    note_cancellation(&mut workitem.attributes, &why, now);
    enter(tx, workitem, State::Canceled).await?;
    Ok(Some(json!({ "code": value, "reason": reason })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(study: &str, series: &str) -> Value {
        Value::Object(dataset_of([
            (tags::STUDY_INSTANCE_UID, vec![json!(study)]),
            (tags::SERIES_INSTANCE_UID, vec![json!(series)]),
        ]))
    }

    #[test]
    fn a_workitem_is_about_one_study() {
        let of = |own: &str, inputs: Vec<Value>| {
            let attributes = dataset_of([
                (tags::STUDY_INSTANCE_UID, vec![json!(own)]),
                (tags::INPUT_INFORMATION_SEQUENCE, inputs),
            ]);
            input_of(&attributes).map_err(|refusal| refusal.code.0)
        };
        let both = || vec![input("1.1", "2.1"), input("1.2", "2.2"), input("1.1", "2.3")];
        let one = of("1.1", both()).unwrap_or_else(|code| panic!("{code}"));
        assert_eq!(
            (one.study.as_str(), one.series),
            ("1.1", vec!["2.1".to_owned(), "2.3".to_owned()])
        );
        assert_eq!(of("", both()), Err("110530"));
        assert_eq!(of("", Vec::new()), Err("110523"));
        assert_eq!(
            of("", vec![input("1.2", "")]).map(|input| input.series),
            Ok(Vec::new())
        );
    }
}
