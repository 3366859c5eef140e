//! A claimed job → the study's instances → the analysis → its results, committed once.
//!
//! The answer is per study: thin, thick and bone reconstructions, resends and late slices revise one case.
//! The identity of an analysis (study, sorted instance digests, models, calibration) makes "once" true:
//! jobs may run more often, but a complete analysis is found and left alone, and results go in with the row that says complete.
//! A failure is final when the input is at fault, retried when the surroundings are, and tried once more when we are.
//! It does not know what an analysis does: an [`Analyser`] is handed to it.

pub mod analyser;
mod progress;
pub mod replay;
mod results;

pub use analyser::{Analyser, Failure, Output, PreviousReport, Request};

use crate::{
    archive::{Archive, ArchiveError},
    db::{
        self, Db,
        analysis::{self, Begun, Identity, Running, Source, Sources},
        audit::{self, Act},
        error::DbError,
        events::Events,
        queue::{Ticket, Timing},
    },
    dicom::enhanced,
    domain::{
        failure::FailureClass,
        phi::{Redacted, redact},
        uid::Uid,
    },
};
use progress::Watch;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{future::Future, sync::Arc};

/// Runs that may end with a fault of ours before it is final.
const INTERNAL_FAILURES: i32 = 2;
/// Why a study is not analysed again of which only the latest images are there.
const EVICTED: &str = "images of the study were evicted to make room in the archive, so that it cannot be analysed with what \
                       came since: send the study again, and it is; a rule of `fetch` for missing series gets it by itself";
/// Who acts in the audit trail.
const PRINCIPAL: &str = "ictus";

/// Why a job did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The database failed.
    #[error("the analysis cannot be recorded")]
    Db(#[from] DbError),
    /// The archive failed.
    #[error("the instances or results of the analysis cannot be read or written")]
    Archive(#[from] ArchiveError),
    /// The analysis failed; its reason is in words already.
    #[error("the analysis failed: {0}")]
    Analysis(#[from] Failure),
    /// A result cannot be indexed.
    #[error("a result is not a DICOM object that can be indexed; this is a fault of ictus")]
    Result(#[source] Redacted),
    /// The analysis panicked.
    #[error("the analysis panicked; this is a fault of ictus")]
    Panicked,
    /// The payload of the job is not a UID.
    #[error("the job names no study; it was not made by ictus")]
    Payload,
}

impl WorkerError {
    /// What is done about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Analysis(failure) => failure.class,
            Self::Result(_) | Self::Panicked | Self::Payload => FailureClass::Internal,
        }
    }
}

/// The service that runs jobs; clones share everything.
#[derive(Clone)]
pub struct Worker {
    db: Db,
    archive: Archive,
    events: Events,
    analyser: Arc<dyn Analyser>,
}

impl Worker {
    /// A worker that has not claimed anything yet.
    #[must_use]
    pub fn new(db: Db, archive: Archive, events: Events, analyser: Arc<dyn Analyser>) -> Self {
        Self {
            db,
            archive,
            events,
            analyser,
        }
    }

    /// Runs jobs, one at a time, until `shutdown`.
    ///
    /// One at a time: an analysis uses every core or the whole device.
    ///
    /// # Errors
    /// When the queue cannot be used for good.
    pub async fn run(
        self,
        timing: Timing,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), WorkerError> {
        let (runs, hears) = (self.clone(), self.clone());
        let run = Arc::new(move |ticket| {
            let worker = runs.clone();
            Box::pin(async move { worker.job(ticket).await }) as futures::future::BoxFuture<'static, _>
        });
        let died = Arc::new(move |ticket: Ticket| {
            let worker = hears.clone();
            Box::pin(async move {
                if let Err(error) = worker.died(&ticket).await {
                    tracing::error!(%error, "the end of a job whose worker died could not be recorded");
                }
            }) as futures::future::BoxFuture<'static, ()>
        });
        Ok(self.db.run_jobs(timing, 1, run, died, shutdown).await?)
    }

    /// Runs one job to its end; an error means "again, later".
    async fn job(&self, ticket: Ticket) -> Result<(), String> {
        self.try_job(&ticket).await.map_err(|error| {
            tracing::warn!(%error, study_instance_uid = ticket.study_instance_uid, attempt = ticket.attempt, "a job will run again");
            error.to_string()
        })
    }

    async fn try_job(&self, ticket: &Ticket) -> Result<(), WorkerError> {
        let study = Uid::parse(&ticket.study_instance_uid).map_err(|_| WorkerError::Payload)?;
        let mut tx = self.db.begin().await?;
        let Some(sources) = analysis::sources(&mut tx, &study).await? else {
            return Ok(());
        };
        let identity = self.identity(&study, &sources);
        let Begun::Run(running) = analysis::begin(&mut tx, &sources, &identity).await? else {
            return Ok(db::commit(tx).await?);
        };
        let previous_report = analysis::previous_report(&mut tx, &running)
            .await?
            .and_then(report_of);
        db::commit(tx).await?;
        let run = Run {
            worker: self,
            study: &study,
            running: &running,
            identity: identity.identity,
            previous_report,
        };
        match run.to_end(&sources).await {
            Ok(()) => Ok(()),
            Err(error) => run.failed(ticket, error).await,
        }
    }

    fn identity(&self, study: &Uid, sources: &Sources) -> Identity {
        let (model_digest, calibration_digest) =
            (self.analyser.model_digest(), self.analyser.calibration_digest());
        let digests = usable(sources).map(|source| source.digest.as_slice()).collect();
        Identity {
            identity: identity(study, digests, &model_digest, &calibration_digest),
            model_digest,
            calibration_digest,
        }
    }

    /// Nobody will run the job again: what it left under way has failed.
    async fn died(&self, ticket: &Ticket) -> Result<(), WorkerError> {
        let study = Uid::parse(&ticket.study_instance_uid).map_err(|_| WorkerError::Payload)?;
        let mut tx = self.db.begin().await?;
        let left = analysis::running_of_study(&mut tx, &study).await?;
        db::commit(tx).await?;
        for running in left {
            let run = Run {
                worker: self,
                study: &study,
                running: &running,
                identity: [0; 32],
                previous_report: None,
            };
            let text = format!(
                "the worker ended {} times while it ran this analysis",
                ticket.attempt
            );
            run.end_failed("worker_died", &text).await?;
        }
        Ok(())
    }
}

/// SHA-256 over what an analysis is of and with; every part with its length, so that no two lists collide.
fn identity(study: &Uid, mut digests: Vec<&[u8]>, model: &[u8], calibration: &[u8]) -> [u8; 32] {
    digests.sort_unstable();
    let head: [&[u8]; 4] = [b"ictus-analysis-1", study.as_str().as_bytes(), model, calibration];
    let mut hash = Sha256::new();
    for part in head.into_iter().chain(digests) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn report_of((series, sop): (String, String)) -> Option<PreviousReport> {
    Some(PreviousReport {
        series_instance_uid: Uid::parse(&series).ok()?,
        sop_instance_uid: Uid::parse(&sop).ok()?,
    })
}

/// What may be analysed: quarantined series are not.
fn usable(sources: &Sources) -> impl Iterator<Item = &Source> {
    sources
        .instances
        .iter()
        .filter(|source| source.conflict.is_none())
}

/// One run of one analysis.
struct Run<'a> {
    worker: &'a Worker,
    study: &'a Uid,
    running: &'a Running,
    identity: [u8; 32],
    previous_report: Option<PreviousReport>,
}

impl Run<'_> {
    async fn to_end(&self, sources: &Sources) -> Result<(), WorkerError> {
        if self.running.cancel_requested {
            return self.cancelled().await;
        }
        if let Some(conflict) = sources
            .instances
            .iter()
            .find_map(|source| source.conflict.as_deref())
            && usable(sources).next().is_none()
        {
            return Err(Failure::input(
                "identity_conflict",
                &format!("every series is quarantined: {conflict}"),
            )
            .into());
        }
        let keys: Vec<String> = usable(sources).map(|source| source.archive_key.clone()).collect();
        let files = match self.worker.archive.read_all(keys).await {
            Err(ArchiveError::Evicted(_)) => {
                return Err(Failure::input(db::analysis::EVICTED, EVICTED).into());
            }
            read => read?,
        };
        let watch = Watch::new(self.running.cancel_requested);
        let (analyser, control) = (self.worker.analyser.clone(), watch.control());
        let request = Request {
            analysis_key: self.identity,
            created_at: self.running.created_at,
            previous_report: self.previous_report.clone(),
        };
        let analysed = tokio::task::spawn_blocking(move || {
            let instances = enhanced::read(&files)
                .map_err(|error| Failure::input("unreadable", &redact(&error).to_string()))?;
            drop(files);
            analyser.analyse(&instances, &request, &*control)
        });
        let analysed = watch
            .until(self, analysed)
            .await
            .map_err(|_| WorkerError::Panicked)?;
        match analysed {
            Ok(output) => results::store(self, output).await,
            Err(_) if watch.stopped_by_request() => self.cancelled().await,
            Err(failure) => Err(failure.into()),
        }
    }

    /// Decides whether a failed run is the end.
    async fn failed(&self, ticket: &Ticket, error: WorkerError) -> Result<(), WorkerError> {
        let study_instance_uid = self.study.as_str();
        match (error.class(), &error) {
            (FailureClass::Input, WorkerError::Analysis(failure)) => {
                self.end_failed(&failure.code, &failure.text).await
            }
            (FailureClass::Input, _) => self.end_failed("unreadable", &error.to_string()).await,
            (FailureClass::Transient, _) if ticket.is_last() => {
                tracing::error!(%error, study_instance_uid, "an analysis is given up");
                self.end_failed("transient", &error.to_string()).await
            }
            (FailureClass::Transient, _) => Err(error),
            (FailureClass::Internal, _) => {
                tracing::error!(%error, study_instance_uid, "an analysis failed by a fault of ictus");
                if self.running.internal_failures + 1 >= INTERNAL_FAILURES || ticket.is_last() {
                    return self.end_failed("internal", &error.to_string()).await;
                }
                let mut tx = self.worker.db.begin().await?;
                analysis::note_internal_failure(&mut tx, self.running).await?;
                db::commit(tx).await?;
                Err(error)
            }
        }
    }

    async fn end_failed(&self, code: &str, text: &str) -> Result<(), WorkerError> {
        let mut tx = self.worker.db.begin().await?;
        if !analysis::lock_running(&mut tx, self.running).await? {
            return Ok(());
        }
        analysis::fail(&mut tx, self.running, code, text).await?;
        let detail = json!({ "analysis": self.running.id, "code": code, "text": text });
        audit::append(&mut tx, &self.act("fail", detail)).await?;
        Ok(db::commit(tx).await?)
    }

    async fn cancelled(&self) -> Result<(), WorkerError> {
        let mut tx = self.worker.db.begin().await?;
        if !analysis::lock_running(&mut tx, self.running).await? {
            return Ok(());
        }
        analysis::cancel(&mut tx, self.running).await?;
        let detail = json!({ "analysis": self.running.id });
        audit::append(&mut tx, &self.act("cancelled", detail)).await?;
        Ok(db::commit(tx).await?)
    }

    fn act(&self, act: &'static str, detail: serde_json::Value) -> Act<'static> {
        Act {
            principal: PRINCIPAL,
            act,
            studies: vec![self.study.to_string()],
            detail,
        }
    }
}
