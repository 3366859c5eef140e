//! One request's instances in: bytes → staged → checked → archived → indexed → queued → acknowledged.
//!
//! What is acknowledged is on the disk and committed, and survives `kill -9` the next instant.
//! Everything of a request is committed at once: index rows, the job, the audit row.
//! A part that fails does not take the others with it: [`StoreOutcome`] says which and why.
//! Nothing is ever overwritten: see the `store` module for what happens to a second dataset with the same UID.
//! It does not parse multipart bodies and knows no HTTP status.
//!
//! Source: PS3.18 section 10.5 and table I.2-2 (failure reasons); PS3.4 section B.2.3.

mod cache;
mod check;
pub mod commitment;
pub mod outcome;
mod plausible;
mod rejection;
pub mod removal;
mod session;
mod store;
mod sweep;

pub use cache::Quota;
pub use outcome::{FailedInstance, StoreOutcome, StoredInstance, Warning};
pub use session::Session;

use crate::{
    archive::{Archive, ArchiveError, StagedObject},
    db::{
        Db,
        audit::{self, Act},
        error::DbError,
    },
    domain::{failure::FailureClass, uid::Uid},
};
use bytes::Bytes;
use cache::Room;
use check::Checked;
use futures::Stream;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinHandle};

/// Largest Part 10 file that is taken: a multi-frame CT of 2000 slices of 512² needs 1 GiB.
pub const MAX_OBJECT_BYTES: u64 = 1 << 30;

/// A staged file that is older was left by a crash: parts of a request are written and stored within minutes.
const STAGED_FOR: Duration = Duration::from_secs(60 * 60);

/// Instances that are in memory for their check at once; each may have [`MAX_OBJECT_BYTES`].
const CHECKS_AT_ONCE: usize = 4;

/// Why a request could not be stored at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The archive failed.
    #[error("the instances could not be archived")]
    Archive(#[from] ArchiveError),
    /// The database failed.
    #[error("the instances could not be indexed")]
    Db(#[from] DbError),
    /// There is no room.
    #[error("the archive is full: {0}; send it again later")]
    Full(String),
    /// A task of ours ended early.
    #[error("checking an instance was interrupted; send it again")]
    Interrupted,
}

impl ReceiveError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Archive(error) => error.class(),
            Self::Db(error) => error.class(),
            Self::Interrupted | Self::Full(_) => FailureClass::Transient,
        }
    }
}

/// One part of a request, on the disk but not acknowledged, and being checked; dropped, it goes away.
#[derive(Debug)]
pub struct Staged {
    object: Arc<StagedObject>,
    check: JoinHandle<Result<Result<Checked, FailedInstance>, ReceiveError>>,
}

/// The service that stores what comes in; clones share everything.
#[derive(Debug, Clone)]
pub struct Receiver {
    db: Db,
    archive: Archive,
    quiet: Duration,
    /// Whoever they came from, only so many instances are checked at once.
    checks: Arc<Semaphore>,
    /// How much the archive may still take.
    room: Arc<Room>,
}

impl Receiver {
    /// `quiet`: how long after its last instance a study is taken to be complete, when nobody says so.
    #[must_use]
    pub fn new(db: Db, archive: Archive, quiet: Duration) -> Self {
        Self {
            db,
            archive,
            quiet,
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            room: Arc::new(Room::new(Quota {
                bytes: None,
                free_bytes: 0,
            })),
        }
    }

    /// The same with a limit to what the archive may take.
    #[must_use]
    pub fn with_quota(self, quota: Quota) -> Self {
        Self {
            room: Arc::new(Room::new(quota)),
            ..self
        }
    }

    /// Keeps the archive below its quota; never ends.
    pub async fn make_room_forever(self) {
        cache::run(&self).await;
    }

    /// Evicts what may go until the archive is below its quota. Says how many studies.
    ///
    /// # Errors
    /// When the archive or the database fails.
    pub async fn make_room(&self) -> Result<usize, ReceiveError> {
        cache::make_room(self).await
    }

    /// Writes one part to the disk while it arrives, and begins its check; the next one can be staged meanwhile.
    ///
    /// # Errors
    /// When there is no room, the stream breaks, is too long, or the disk fails; the other parts of the request are untouched.
    pub async fn stage<S, E>(&self, part: S) -> Result<Staged, ReceiveError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::error::Error + 'static,
    {
        self.room.admit(&self.archive)?;
        let (object, held) = self.archive.stage_held(part, MAX_OBJECT_BYTES).await?;
        self.room.took(object.size_bytes());
        let object = Arc::new(object);
        let turn = self.checks.clone().acquire_owned().await;
        let (archive, staged) = (self.archive.clone(), object.clone());
        let check = tokio::spawn(async move {
            let bytes = match held {
                Some(held) => held,
                None => archive.read_staged(&staged).await?,
            };
            let checked = tokio::task::spawn_blocking(move || {
                let checked = check::check(&bytes, staged.key(), staged.size_bytes());
                drop(turn);
                checked
            });
            checked.await.map_err(|_| ReceiveError::Interrupted)
        });
        Ok(Staged { object, check })
    }

    /// Checks, archives, indexes and queues the parts of one request; what it returns is committed.
    ///
    /// `study`: the study that the request names; other studies are refused.
    /// `principal`: who sent it, for the audit trail.
    ///
    /// # Errors
    /// When the archive or the database fails: then nothing of the request is acknowledged.
    pub async fn store(
        &self,
        batch: Vec<Staged>,
        study: Option<&Uid>,
        principal: &str,
    ) -> Result<StoreOutcome, ReceiveError> {
        store::store(self, batch, study, principal).await
    }

    /// Takes a series to be complete: its study is analysed now. False when no such series is known.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn complete(&self, series: &Uid, principal: &str) -> Result<bool, ReceiveError> {
        let mut tx = self.db.begin().await?;
        let studies = crate::db::queue::complete_series(&mut tx, series).await?;
        if studies.is_empty() {
            return Ok(false);
        }
        let act = Act {
            principal,
            act: "complete",
            studies,
            detail: json!({ "series_instance_uid": series }),
        };
        audit::append(&mut tx, &act).await?;
        crate::db::commit(tx).await?;
        Ok(true)
    }

    /// Asks the analysis of a study that is under way to stop. False when none is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel(&self, study: &Uid, principal: &str) -> Result<bool, ReceiveError> {
        let mut tx = self.db.begin().await?;
        let Some(analysis) = crate::db::analysis::request_cancel(&mut tx, study).await? else {
            return Ok(false);
        };
        let act = Act {
            principal,
            act: "cancel",
            studies: vec![study.to_string()],
            detail: json!({ "analysis": analysis }),
        };
        audit::append(&mut tx, &act).await?;
        crate::db::commit(tx).await?;
        Ok(true)
    }

    /// Removes what a crash left in the staging area; other processes may be staging meanwhile. Says how many.
    ///
    /// # Errors
    /// When the archive fails.
    pub async fn sweep_staging(&self) -> Result<usize, ReceiveError> {
        Ok(self.archive.sweep_staging(STAGED_FOR).await?)
    }

    /// Removes archived files older than a day that nothing refers to, and audits it; staged leftovers, too.
    /// Says how many archived files.
    ///
    /// # Errors
    /// When the archive or the database fails.
    pub async fn sweep_unreferenced(&self) -> Result<usize, ReceiveError> {
        self.sweep_staging().await?;
        sweep::unreferenced(self, sweep::MIN_AGE).await
    }
}
