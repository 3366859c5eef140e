//! The parts of one request: check → archive → one transaction → acknowledged.
//!
//! What happens to a dataset, by what is stored under its SOPInstanceUID already:
//!
//! | stored already | becomes |
//! |---|---|
//! | nothing | current |
//! | the same dataset | acknowledged, nothing changes; one that was evicted is there again |
//! | other attributes, same pixels | a pending revision beside the current one, with a warning |
//! | other pixels | refused, 0111H |
//!
//! A series with two patients, two frames of reference or two studies is stored and quarantined.

use super::{
    ReceiveError, Receiver, Staged,
    check::{Checked, Common, compare},
    outcome::{FailedInstance, StoreOutcome, StoredInstance, Warning, reason},
    plausible::covers_a_head,
    rejection,
};
use crate::{
    archive::{Archive, ArchiveError, StagedObject},
    db::{
        self, Tx, analysis,
        audit::{self, Act},
        error::DbError,
        events,
        index::{self, ExistingInstance, NewRow, Origin, SeriesRow},
        queue, returned,
    },
    domain::uid::Uid,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Segmentation and Label Map Segmentation Storage: what a reader's tool sends back (PS3.6 annex A).
const MASKS: [&str; 2] = ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"];

/// A request that loses a race for a UID looks again; the second time it sees the winner.
pub(super) const TRIES: usize = 3;

/// One part after its check.
pub(super) enum Part {
    Good {
        staged: Arc<StagedObject>,
        checked: Box<Checked>,
    },
    Bad(FailedInstance),
}

pub(super) async fn store(
    receiver: &Receiver,
    batch: Vec<Staged>,
    study: Option<&Uid>,
    principal: &str,
) -> Result<StoreOutcome, ReceiveError> {
    let mut parts = Vec::new();
    for staged in batch {
        parts.push(Part::of(staged, study).await?);
    }
    keep_all(&receiver.archive, &parts).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        match commit(receiver, &parts, study, principal).await {
            Err(ReceiveError::Db(DbError::Contention(_))) if tries < TRIES => {}
            done => return done,
        }
    }
}

impl Part {
    /// What the check of a part says, when it is done; parts of another study than that of the request are bad.
    pub(super) async fn of(staged: Staged, study: Option<&Uid>) -> Result<Self, ReceiveError> {
        let checked = staged.check.await.map_err(|_| ReceiveError::Interrupted)??;
        Ok(match checked {
            Ok(checked) => match study.and_then(|study| checked.is_elsewhere(study)) {
                Some(failed) => Self::Bad(failed),
                None => Self::Good {
                    staged: staged.object,
                    checked: Box::new(checked),
                },
            },
            Err(failed) => Self::Bad(failed),
        })
    }
}

/// Puts every good part under its digest, on the disk for good.
pub(super) async fn keep_all(archive: &Archive, parts: &[Part]) -> Result<(), ArchiveError> {
    archive.keep_all(staged(parts)).await
}

fn staged(parts: &[Part]) -> impl Iterator<Item = &StagedObject> {
    parts.iter().filter_map(|part| match part {
        Part::Good { staged, .. } => Some(&**staged),
        Part::Bad(_) => None,
    })
}

/// The transaction: everything of the request or nothing.
async fn commit(
    receiver: &Receiver,
    parts: &[Part],
    study: Option<&Uid>,
    principal: &str,
) -> Result<StoreOutcome, ReceiveError> {
    let good: Vec<&Checked> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Good { checked, .. } => Some(&**checked),
            Part::Bad(_) => None,
        })
        .collect();
    let mut tx = receiver.db.begin().await?;
    let studies: Vec<&Uid> = good
        .iter()
        .map(|checked| &checked.new.study_instance_uid)
        .collect();
    index::lock_studies(&mut tx, &studies).await?;
    // Again, under the sweep lock: an old unreferenced twin may have been swept since the first time.
    receiver.archive.keep_still(staged(parts)).await?;
    let uids: Vec<&Uid> = good.iter().map(|checked| &checked.new.sop_instance_uid).collect();
    let mut filing = Filing::new(index::existing(&mut tx, &uids).await?, principal);
    let mut outcome = StoreOutcome::default();
    for part in parts {
        let filed = match part {
            Part::Good { staged, checked } => filing.file(receiver, &mut tx, staged, checked).await?,
            Part::Bad(failed) => Err(failed.clone()),
        };
        match filed {
            Ok(stored) => outcome.stored.push(stored),
            Err(failed) => outcome.failed.push(failed),
        }
    }
    filing.write(&mut tx).await?;
    filing.queue(receiver, &mut tx).await?;
    for study_id in filing.studies.values() {
        events::notify_study(&mut tx, *study_id).await?;
    }
    for act in filing.acts(&outcome, study, principal) {
        audit::append(&mut tx, &act).await?;
    }
    db::commit(tx).await?;
    Ok(outcome)
}

/// What became of the only instance of a transaction.
pub(super) struct Filed<'p> {
    /// `new`, `duplicate` or `pending`; empty when it was refused.
    pub(super) became: String,
    /// Rows of study and series of a new original CT slice.
    pub(super) fresh: Option<(i64, i64)>,
    /// Row of the study that changed.
    pub(super) study_id: Option<i64>,
    /// Acts of quarantine.
    pub(super) quarantines: Vec<Act<'p>>,
}

/// What one transaction has filed so far.
pub(super) struct Filing<'a> {
    /// Who sent it.
    principal: &'a str,
    existing: HashMap<String, Vec<ExistingInstance>>,
    studies: HashMap<Uid, i64>,
    series: HashMap<(i64, Uid), SeriesRow>,
    /// Instances without a row yet.
    unwritten: Vec<NewRow<'a>>,
    /// New original CT slices, by study and series: what there is to analyse.
    fresh: HashMap<(i64, i64), Vec<&'a Checked>>,
    quarantined: BTreeMap<Uid, &'static str>,
    /// What rejection notes did: study and what there is to say.
    rejections: Vec<(Uid, Value)>,
    /// For the audit trail: StudyInstanceUID, SeriesInstanceUID → what became of which instance.
    log: BTreeMap<(Uid, Uid), Vec<Value>>,
}

impl<'a> Filing<'a> {
    pub(super) fn new(existing: Vec<ExistingInstance>, principal: &'a str) -> Self {
        let mut by_uid: HashMap<String, Vec<ExistingInstance>> = HashMap::new();
        for row in existing {
            by_uid.entry(row.sop_instance_uid.clone()).or_default().push(row);
        }
        Self {
            principal,
            existing: by_uid,
            studies: HashMap::new(),
            series: HashMap::new(),
            unwritten: Vec::new(),
            fresh: HashMap::new(),
            quarantined: BTreeMap::new(),
            rejections: Vec::new(),
            log: BTreeMap::new(),
        }
    }

    pub(super) async fn file(
        &mut self,
        receiver: &Receiver,
        tx: &mut Tx,
        staged: &StagedObject,
        checked: &'a Checked,
    ) -> Result<Result<StoredInstance, FailedInstance>, ReceiveError> {
        let new = &checked.new;
        let known = self
            .existing
            .get(new.sop_instance_uid.as_str())
            .map_or(&[][..], Vec::as_slice);
        if let Some(same) = known.iter().find(|row| row.digest == new.digest) {
            let warning = same.rejected.then(|| Warning {
                reason: reason::COERCION,
                text: "it is stored and hidden, because a rejection note rejects it; send a corrected one"
                    .to_owned(),
            });
            if let Some(evicted) = same.evicted.then_some(same.id) {
                index::take_back(tx, evicted, new).await?;
                // An analysis may have waited for it.
                if new.original_ct
                    && let Some(study_id) = analysis::wants_evicted(tx, &new.study_instance_uid).await?
                {
                    queue::enqueue_received(tx, study_id, receiver.quiet).await?;
                }
                return Ok(Ok(self.stored(checked, "restored", warning)));
            }
            return Ok(Ok(self.stored(checked, "duplicate", warning)));
        }
        if let Some(current) = known.iter().find(|row| row.current).cloned() {
            return self.file_beside(receiver, staged, checked, &current).await;
        }
        let study_id = self.study(tx, checked).await?;
        let (series_id, conflict) = self.series(tx, study_id, checked).await?;
        self.put(checked, series_id, true);
        if new.original_ct && new.origin == Origin::Received {
            self.fresh.entry((study_id, series_id)).or_default().push(checked);
        }
        let note = rejection::of(new);
        let is_mask = new.origin == Origin::Received && MASKS.contains(&new.sop_class_uid.as_str());
        if note.is_some() || is_mask {
            // These name the row.
            let id = self.write(tx).await?.pop().ok_or(DbError::Stored("instance"))?;
            if let Some(note) = note {
                self.rejections
                    .push(rejection::apply(tx, new, id, study_id, &note).await?);
            }
            if is_mask {
                returned::came(tx, id, self.principal).await?;
            }
        }
        let warning = conflict.map(|conflict| Warning {
            reason: reason::QUARANTINED,
            text: format!("stored, but its series is quarantined: {conflict}"),
        });
        Ok(Ok(self.stored(checked, "new", warning)))
    }

    /// A second dataset with the UID of a stored one.
    async fn file_beside(
        &mut self,
        receiver: &Receiver,
        staged: &StagedObject,
        checked: &'a Checked,
        current: &ExistingInstance,
    ) -> Result<Result<StoredInstance, FailedInstance>, ReceiveError> {
        if current.evicted {
            return Ok(Err(FailedInstance {
                sop_class_uid: Some(checked.new.sop_class_uid.clone()),
                sop_instance_uid: Some(checked.new.sop_instance_uid.clone()),
                failure_reason: reason::PROCESSING_FAILURE,
                text: "this SOP Instance UID was stored with other attributes and its file was evicted, so that pixels cannot be compared; send it first as it was"
                    .to_owned(),
            }));
        }
        let (stored, sent) = (
            receiver.archive.read(&current.archive_key).await?,
            receiver.archive.read_staged(staged).await?,
        );
        let common = tokio::task::spawn_blocking(move || compare(&stored, &sent))
            .await
            .map_err(|_| ReceiveError::Interrupted)?;
        let new = &checked.new;
        if matches!(common, Ok(Common::All)) {
            return Ok(Ok(self.stored(checked, "duplicate", None)));
        }
        if !matches!(common, Ok(Common::Pixels)) {
            return Ok(Err(FailedInstance {
                sop_class_uid: Some(new.sop_class_uid.clone()),
                sop_instance_uid: Some(new.sop_instance_uid.clone()),
                failure_reason: reason::DUPLICATE_SOP_INSTANCE,
                text: "this SOP Instance UID is stored with other pixels; give the new instance a new UID"
                    .to_owned(),
            }));
        }
        self.put(checked, current.series_id, false);
        let warning = Warning {
            reason: reason::COERCION,
            text: "stored beside an instance with the same UID and pixels and other attributes; \
                   that one stays in use until someone decides"
                .to_owned(),
        };
        Ok(Ok(self.stored(checked, "pending", Some(warning))))
    }

    async fn study(&mut self, tx: &mut Tx, checked: &Checked) -> Result<i64, DbError> {
        let uid = &checked.new.study_instance_uid;
        if let Some(id) = self.studies.get(uid) {
            return Ok(*id);
        }
        let id = index::put_study(tx, &checked.new, checked.new.origin == Origin::Received).await?;
        self.studies.insert(uid.clone(), id);
        Ok(id)
    }

    /// The row of the series, and why it is quarantined if it is.
    async fn series(
        &mut self,
        tx: &mut Tx,
        study_id: i64,
        checked: &Checked,
    ) -> Result<(i64, Option<String>), DbError> {
        let new = &checked.new;
        let key = (study_id, new.series_instance_uid.clone());
        if !self.series.contains_key(&key) {
            let row = index::put_series(tx, study_id, new).await?;
            self.series.insert(key.clone(), row);
        }
        let Some(row) = self.series.get_mut(&key) else {
            return Err(DbError::Stored("series"));
        };
        if let Some(found) = conflict(row, checked).filter(|_| row.conflict.is_none()) {
            row.conflict = Some(found.to_owned());
            index::quarantine(tx, &new.series_instance_uid, found).await?;
            self.quarantined.insert(new.series_instance_uid.clone(), found);
        }
        Ok((row.id, row.conflict.clone()))
    }

    /// Adds an instance: [`Self::write`] makes its row, and later parts of the same request see it already.
    fn put(&mut self, checked: &'a Checked, series_id: i64, current: bool) {
        let new = &checked.new;
        self.unwritten.push(NewRow {
            series_id,
            instance: new,
            current,
        });
        self.existing
            .entry(new.sop_instance_uid.to_string())
            .or_default()
            .push(ExistingInstance {
                // It has none yet; only that of an evicted one is asked for.
                id: 0,
                series_id,
                sop_instance_uid: new.sop_instance_uid.to_string(),
                digest: new.digest.to_vec(),
                archive_key: new.archive_key.clone(),
                current,
                rejected: false,
                evicted: false,
                study_instance_uid: new.study_instance_uid.to_string(),
                series_instance_uid: new.series_instance_uid.to_string(),
            });
    }

    /// Makes the rows of what was added since the last time, in one statement; answers them in order.
    pub(super) async fn write(&mut self, tx: &mut Tx) -> Result<Vec<i64>, DbError> {
        if self.unwritten.is_empty() {
            return Ok(Vec::new());
        }
        index::put_instances(tx, &std::mem::take(&mut self.unwritten)).await
    }

    fn stored(&mut self, checked: &Checked, became: &str, warning: Option<Warning>) -> StoredInstance {
        let new = &checked.new;
        let key = (new.study_instance_uid.clone(), new.series_instance_uid.clone());
        self.log.entry(key).or_default().push(json!({
            "sop_instance_uid": new.sop_instance_uid,
            "sha256": hex::encode(new.digest),
            "became": became,
        }));
        StoredInstance {
            sop_class_uid: new.sop_class_uid.clone(),
            sop_instance_uid: new.sop_instance_uid.clone(),
            series_instance_uid: new.series_instance_uid.clone(),
            study_instance_uid: new.study_instance_uid.clone(),
            warning,
        }
    }

    /// Studies with new CT are analysed: at once when a whole head came in this request, else after the quiet time.
    async fn queue(&self, receiver: &Receiver, tx: &mut Tx) -> Result<(), DbError> {
        let mut delays: BTreeMap<i64, Duration> = BTreeMap::new();
        for ((study_id, series_id), slices) in &self.fresh {
            let delay = delays.entry(*study_id).or_insert(receiver.quiet);
            let attributes: Vec<_> = slices.iter().flat_map(|checked| &checked.slices).collect();
            let came_at_once =
                index::series_size(tx, *series_id).await? == i64::try_from(slices.len()).unwrap_or(-1);
            if came_at_once && covers_a_head(&attributes) {
                *delay = Duration::ZERO;
            }
        }
        for (study_id, delay) in delays {
            queue::enqueue_received(tx, study_id, delay).await?;
        }
        Ok(())
    }

    /// What there is to say of a transaction that filed one instance.
    pub(super) fn filed<'p>(&self, principal: &'p str) -> Filed<'p> {
        let became = self
            .log
            .values()
            .flatten()
            .find_map(|entry| entry["became"].as_str());
        Filed {
            became: became.unwrap_or_default().to_owned(),
            fresh: self.fresh.keys().next().copied(),
            study_id: self.studies.values().next().copied(),
            quarantines: self.quarantines(principal),
        }
    }

    /// One row for what was stored, one for what was refused, one a quarantined series.
    fn acts<'p>(&self, outcome: &StoreOutcome, study: Option<&Uid>, principal: &'p str) -> Vec<Act<'p>> {
        let mut acts = Vec::new();
        let mut studies: Vec<String> = self.log.keys().map(|(study, _)| study.to_string()).collect();
        studies.dedup();
        if !outcome.stored.is_empty() {
            let series: Vec<Value> = self
                .log
                .iter()
                .map(|((study, series), instances)| {
                    json!({ "study_instance_uid": study, "series_instance_uid": series, "instances": instances })
                })
                .collect();
            let detail = json!({ "series": series });
            acts.push(Act {
                principal,
                act: "store",
                studies: studies.clone(),
                detail,
            });
        }
        if !outcome.failed.is_empty() {
            let failed: Vec<Value> = outcome
                .failed
                .iter()
                .map(|failed| {
                    json!({
                        "sop_instance_uid": failed.sop_instance_uid,
                        "failure_reason": format!("{:04X}", failed.failure_reason),
                        "text": failed.text,
                    })
                })
                .collect();
            if let Some(study) = study.map(Uid::to_string).filter(|study| !studies.contains(study)) {
                studies.push(study);
            }
            acts.push(Act {
                principal,
                act: "refuse",
                studies,
                detail: json!({ "failed": failed }),
            });
        }
        acts.extend(self.quarantines(principal));
        acts
    }

    /// Acts beside the storing: rejections and quarantines.
    fn quarantines<'p>(&self, principal: &'p str) -> Vec<Act<'p>> {
        let mut acts = Vec::new();
        for (study, detail) in &self.rejections {
            acts.push(Act {
                principal,
                act: "reject",
                studies: vec![study.to_string()],
                detail: detail.clone(),
            });
        }
        for (series, why) in &self.quarantined {
            let studies = self
                .log
                .keys()
                .filter(|key| key.1 == *series)
                .map(|key| key.0.to_string())
                .collect();
            let detail = json!({ "series_instance_uid": series, "code": "identity_conflict", "text": why });
            acts.push(Act {
                principal,
                act: "quarantine",
                studies,
                detail,
            });
        }
        acts
    }
}

/// What is wrong between an instance and the series that it says it is of; without patient data.
fn conflict(series: &SeriesRow, checked: &Checked) -> Option<&'static str> {
    if checked.new.origin != Origin::Received {
        return None;
    }
    let patient = (series.patient_id.clone(), series.issuer_of_patient_id.clone());
    let frame = checked.new.frame_of_reference_uid();
    let now = checked.new.patient();
    let is_corrected = series.corrected_patient_id.is_some() && series.corrected_patient_id == now.0;
    if patient != now && !is_corrected {
        return Some("its instances name two patients");
    }
    if frame.is_some() && series.frame_of_reference_uid.is_some() && frame != series.frame_of_reference_uid {
        return Some("its instances have two frames of reference");
    }
    series.elsewhere.then_some("its UID is in use in two studies")
}
