//! The queue: "this study has something new" → one job a study, claimed by whichever worker is free.
//!
//! A job is put in by the transaction that stores the instances, so neither is there without the other.
//! The server's role may only call `enqueue_analysis` (migration 0002) and not touch the queue's tables.
//! A job's key is the study: each further instance replaces it and moves its time, and a job that runs already is followed by a new one.
//! Its queue is the study too, so that two workers never analyse one study at once.
//!
//! A job may run more than once: its worker can die between commit and acknowledgement.
//! What must happen once is made so by the unique identity of an analysis, not here.
//!
//! graphile_worker's own timing costs six minutes a crash, and its recovery gives the attempt back, so that a job that kills its worker would run for ever: [`Timing`] and `FailWithBackoff` mend both.

use super::{Db, Tx, error::DbError};
use crate::domain::uid::Uid;
use futures::future::BoxFuture;
use graphile_worker::{
    FailureReason, IntoTaskHandlerResult, JobRecovery, JobRecoveryResult, TaskHandler, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{fmt, future::Future, sync::Arc, time::Duration};

const SCHEMA: &str = "graphile_worker";
/// Runs of one job: the first, and three after backoffs of about 3, 7 and 20 seconds.
const MAX_ATTEMPTS: i32 = 4;
/// A study without an answer goes before a revision of one that has it; lower runs first.
const PRIORITY_FIRST: i32 = 0;
/// See [`PRIORITY_FIRST`].
const PRIORITY_REVISION: i32 = 10;
/// How long a job may go on after the signal to stop; it is cancelled between two steps, which are shorter.
const GRACE: Duration = Duration::from_secs(5);

/// How fast the death of a worker is noticed.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A worker says that it lives.
    pub heartbeat: Duration,
    /// A worker looks for dead ones.
    pub sweep: Duration,
    /// A worker is dead after so long a silence.
    pub threshold: Duration,
    /// A worker looks for jobs, should a notification have been lost.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            sweep: Duration::from_secs(3),
            threshold: Duration::from_secs(15),
            poll: Duration::from_secs(1),
        }
    }
}

/// A claimed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The study to analyse.
    pub study_instance_uid: String,
    /// This is the so-manieth run, from 1.
    pub attempt: i16,
    /// Runs in all.
    pub max_attempts: i16,
}

impl Ticket {
    /// Whether nobody will run it again if it fails.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.attempt >= self.max_attempts
    }
}

/// Runs a claimed job; an error without patient data is retried after a backoff.
pub type Run = Arc<dyn Fn(Ticket) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
/// Hears of a job whose worker died in its last run.
pub type Died = Arc<dyn Fn(Ticket) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Clone)]
struct Handler(Run);

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// The payload holds a UID and no patient data: graphile_worker logs it.
#[derive(Debug, Serialize, Deserialize)]
struct Analyse {
    study_instance_uid: String,
}

impl TaskHandler for Analyse {
    const IDENTIFIER: &'static str = "analyse";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let Some(Handler(run)) = context.get_ext::<Handler>().cloned() else {
            return Err("the worker has no handler".to_owned());
        };
        run(Ticket {
            study_instance_uid: self.study_instance_uid,
            attempt: *context.job().attempts(),
            max_attempts: *context.job().max_attempts(),
        })
        .await
    }
}

/// Asks for an analysis of a study after `delay`; replaces the one that waits already.
///
/// # Errors
/// When a statement fails.
pub async fn enqueue(tx: &mut Tx, study_id: i64, delay: Duration) -> Result<(), DbError> {
    sqlx::query("SELECT enqueue_analysis($1, $2, $3, $4, $5)")
        .bind(study_id)
        .bind(delay.as_secs_f64())
        .bind(MAX_ATTEMPTS)
        .bind(PRIORITY_FIRST)
        .bind(PRIORITY_REVISION)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// [`enqueue`] for what was received, unless the study was fetched to be looked at only.
///
/// # Errors
/// When a statement fails.
pub async fn enqueue_received(tx: &mut Tx, study_id: i64, delay: Duration) -> Result<(), DbError> {
    if super::fetch::is_prior(tx, study_id).await? {
        return Ok(());
    }
    enqueue(tx, study_id, delay).await
}

/// Analyses the studies of a series now, as far as they hold something to analyse. Returns the studies.
///
/// # Errors
/// When a statement fails.
pub async fn complete_series(tx: &mut Tx, series: &Uid) -> Result<Vec<String>, DbError> {
    let studies: Vec<(i64, String, bool)> = sqlx::query_as(
        "SELECT study.id, study_instance_uid, queued_at IS NOT NULL FROM study JOIN series ON series.study_id = study.id \
         WHERE series_instance_uid = $1 ORDER BY study.id",
    )
    .bind(series.as_str())
    .fetch_all(&mut **tx)
    .await?;
    for (study_id, _, analysable) in &studies {
        if *analysable {
            enqueue(tx, *study_id, Duration::ZERO).await?;
        }
    }
    Ok(studies.into_iter().map(|(_, uid, _)| uid).collect())
}

/// Brings the queue's own schema up to date.
pub(super) async fn migrate(owner: &PgPool) -> Result<(), DbError> {
    WorkerUtils::new(owner.clone(), SCHEMA)
        .migrate()
        .await
        .map_err(|error| DbError::queue(&error))
}

impl Db {
    /// Runs jobs until `shutdown`, `concurrency` at a time.
    ///
    /// # Errors
    /// When the queue cannot be reached for good.
    pub async fn run_jobs(
        &self,
        timing: Timing,
        concurrency: usize,
        run: Run,
        died: Died,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), DbError> {
        let worker = WorkerOptions::default()
            .schema(SCHEMA)
            .pg_pool(self.owner.clone())
            .concurrency(concurrency.max(1))
            .poll_interval(timing.poll)
            .heartbeat_interval(timing.heartbeat)
            .sweep_interval(timing.sweep)
            .sweep_threshold(timing.threshold)
            .recovery_delay(Duration::ZERO)
            .listen_os_shutdown_signals(false)
            .shutdown_signal(shutdown)
            .shutdown_grace_period(GRACE)
            .shutdown_interrupted_job_retry_delay(Duration::ZERO)
            .define_job::<Analyse>()
            .add_extension(Handler(run))
            .on(JobRecovery, move |context| {
                let died = died.clone();
                async move {
                    // A job that was stopped with its server did nothing wrong and gets its attempt back.
                    if context.reason == FailureReason::ShutdownAborted {
                        return JobRecoveryResult::Default;
                    }
                    let payload = serde_json::from_value::<Analyse>(context.job.payload().clone());
                    let ticket = payload.map(|Analyse { study_instance_uid }| Ticket {
                        study_instance_uid,
                        attempt: *context.job.attempts(),
                        max_attempts: *context.job.max_attempts(),
                    });
                    if let Ok(ticket) = ticket
                        && ticket.is_last()
                    {
                        died(ticket).await;
                    }
                    JobRecoveryResult::FailWithBackoff
                }
            })
            .init()
            .await
            .map_err(|error| DbError::queue(&error))?;
        worker.run().await.map_err(|error| DbError::queue(&error))
    }

    /// Removes the named queues of studies that have no job any more.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn sweep_queues(&self) -> Result<(), DbError> {
        WorkerUtils::new(self.owner.clone(), SCHEMA)
            .cleanup(&[graphile_worker::worker_utils::types::CleanupTask::GcJobQueues])
            .await
            .map_err(|error| DbError::queue(&error))
    }
}
