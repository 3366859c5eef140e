//! The instances of one association, one by one: each is committed when it is acknowledged, the trail gets one row.
//!
//! What became of each instance is a line of the journal (`db::association`) in the transaction that stores it.
//! The end of the association makes one row of the trail of the lines; after a crash [`Receiver::audit_associations`] does.
//!
//! The job of a study is armed with its first new instance and armed again at most once in a part of the quiet time,
//! which costs a small part of the speed that arming it with each instance would.
//! At the end of an association that was released a series that came whole is analysed at once.

use super::{
    ReceiveError, Receiver, Staged,
    outcome::{FailedInstance, StoredInstance},
    plausible::covers_a_head,
    store::{Filed, Filing, Part, TRIES, keep_all},
};
use crate::{
    db::{
        self,
        association::{self, Line},
        error::DbError,
        events, index, queue,
    },
    dicom::attribute::Attributes,
    domain::uid::Uid,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A job is armed again after this part of the quiet time: late enough to be cheap, early enough to never run too soon
/// by more than this part.
const ARM_PART: u32 = 5;
/// An association that is open may be as silent as this without being taken for dead.
const SILENT: Duration = Duration::from_secs(15 * 60);

/// An association that stores instances.
#[derive(Debug)]
pub struct Session {
    receiver: Receiver,
    id: Uuid,
    principal: String,
    detail: Value,
    armed: HashMap<i64, Instant>,
    /// New original CT slices by study and series.
    fresh: BTreeMap<(i64, i64), Vec<Vec<Attributes>>>,
    wrote: bool,
}

impl Receiver {
    /// Begins an association; nothing is written before its first instance.
    #[must_use]
    pub fn open(&self, calling: &str, called: &str, address: SocketAddr) -> Session {
        Session {
            receiver: self.clone(),
            id: Uuid::new_v4(),
            principal: calling.to_owned(),
            detail: json!({ "called": called, "address": address.ip().to_string() }),
            armed: HashMap::new(),
            fresh: BTreeMap::new(),
            wrote: false,
        }
    }

    /// Puts associations into the trail whose server was killed, and clears the journal.
    ///
    /// `at_start`: whatever is open belongs to nobody who lives here; else only what has long been silent is taken.
    /// Another server's open association only gets its row in two pieces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_associations(&self, at_start: bool) -> Result<usize, ReceiveError> {
        let silent = if at_start { Duration::ZERO } else { SILENT };
        let left = self.db.unaudited_associations(silent).await?;
        for id in &left {
            let mut tx = self.db.begin().await?;
            association::audit(&mut tx, *id, "interrupted").await?;
            db::commit(tx).await?;
        }
        self.db.clear_associations().await?;
        Ok(left.len())
    }
}

impl Session {
    /// Checks, archives, indexes and queues one instance; what it returns is committed.
    ///
    /// # Errors
    /// When the archive or the database fails: then the instance is not acknowledged.
    pub async fn store(
        &mut self,
        staged: Staged,
    ) -> Result<Result<StoredInstance, FailedInstance>, ReceiveError> {
        let parts = [Part::of(staged, None).await?];
        keep_all(&self.receiver.archive, &parts).await?;
        let [part] = parts;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.commit(&part).await {
                Err(ReceiveError::Db(DbError::Contention(_))) if tries < TRIES => {}
                done => return done,
            }
        }
    }

    /// Writes down an instance that was refused before it could be stored.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refuse(&mut self, failed: &FailedInstance) -> Result<(), ReceiveError> {
        let mut tx = self.receiver.db.begin().await?;
        association::put_line(&mut tx, self.id, &self.principal, &self.detail, &refusal(failed)).await?;
        db::commit(tx).await?;
        self.wrote = true;
        Ok(())
    }

    async fn commit(&mut self, part: &Part) -> Result<Result<StoredInstance, FailedInstance>, ReceiveError> {
        let (staged, checked) = match part {
            Part::Good { staged, checked } => (staged, checked),
            Part::Bad(failed) => {
                self.refuse(failed).await?;
                return Ok(Err(failed.clone()));
            }
        };
        let receiver = self.receiver.clone();
        let mut tx = receiver.db.begin().await?;
        index::lock_studies(&mut tx, &[&checked.new.study_instance_uid]).await?;
        // Again, under the sweep lock: an old unreferenced twin may have been swept since the first time.
        receiver.archive.keep_still([&**staged]).await?;
        let existing = index::existing(&mut tx, &[&checked.new.sop_instance_uid]).await?;
        let mut filing = Filing::new(existing, &self.principal);
        let outcome = filing.file(&receiver, &mut tx, staged, checked).await?;
        filing.write(&mut tx).await?;
        let Filed {
            became,
            fresh,
            study_id,
            quarantines,
        } = filing.filed(&self.principal);
        let line = match &outcome {
            Ok(stored) => Line {
                study_instance_uid: Some(stored.study_instance_uid.to_string()),
                series_instance_uid: Some(stored.series_instance_uid.to_string()),
                sop_instance_uid: Some(stored.sop_instance_uid.to_string()),
                sha256: Some(hex::encode(checked.new.digest)),
                became: became.to_owned(),
                ..Line::default()
            },
            Err(failed) => Line {
                study_instance_uid: Some(checked.new.study_instance_uid.to_string()),
                ..refusal(failed)
            },
        };
        let arm = study_id.filter(|study| self.is_due(*study));
        if let Some(study_id) = arm {
            if fresh.is_some() {
                queue::enqueue_received(&mut tx, study_id, receiver.quiet).await?;
            }
            events::notify_study(&mut tx, study_id).await?;
        }
        association::put_line(&mut tx, self.id, &self.principal, &self.detail, &line).await?;
        for act in &quarantines {
            db::audit::append(&mut tx, act).await?;
        }
        db::commit(tx).await?;
        self.wrote = true;
        if let Some(study_id) = arm {
            self.armed.insert(study_id, Instant::now());
        }
        if let Some(key) = fresh {
            self.fresh.entry(key).or_default().push(checked.slices.clone());
        }
        Ok(outcome)
    }

    fn is_due(&self, study_id: i64) -> bool {
        let pause = self.receiver.quiet / ARM_PART;
        self.armed
            .get(&study_id)
            .is_none_or(|armed| armed.elapsed() >= pause)
    }

    /// Ends the association: its row gets into the trail, and what came whole is analysed.
    ///
    /// `ended`: `released`, `aborted`, …; only a release says that the sender has sent all it wanted.
    ///
    /// # Errors
    /// When the database fails; the next server that starts puts the row into the trail then.
    pub async fn end(self, ended: &str) -> Result<(), ReceiveError> {
        if !self.wrote {
            return Ok(());
        }
        let mut tx = self.receiver.db.begin().await?;
        if ended == "released" {
            let mut whole = BTreeMap::new();
            for ((study_id, series_id), instances) in &self.fresh {
                let attributes: Vec<_> = instances.iter().flatten().collect();
                let here = index::series_size(&mut tx, *series_id).await?;
                let came_at_once = here == i64::try_from(instances.len()).unwrap_or(-1);
                *whole.entry(*study_id).or_insert(false) |= came_at_once && covers_a_head(&attributes);
            }
            for (study_id, whole) in whole {
                let delay = if whole {
                    Duration::ZERO
                } else {
                    self.receiver.quiet
                };
                queue::enqueue_received(&mut tx, study_id, delay).await?;
                events::notify_study(&mut tx, study_id).await?;
            }
        }
        association::audit(&mut tx, self.id, ended).await?;
        Ok(db::commit(tx).await?)
    }
}

fn refusal(failed: &FailedInstance) -> Line {
    Line {
        sop_instance_uid: failed.sop_instance_uid.as_ref().map(Uid::to_string),
        became: "refused".to_owned(),
        failure_reason: Some(i32::from(failed.failure_reason)),
        failure_text: Some(failed.text.clone()),
        ..Line::default()
    }
}
