//! Analyses as rows: begun once by identity, and ended once as complete, failed or cancelled.
//!
//! An identity (study, sorted instance digests, model digest, calibration digest) has one row, whatever happens to workers:
//! a repeated run finds its row, keeps `created_at`, and a complete row is never run again.
//! The current analysis of a study is its latest complete one by `created_at`; the others are superseded.

use super::{Tx, error::DbError, events};
use crate::domain::{
    finding::{AnswerValue, Report},
    uid::Uid,
};
use sqlx::{FromRow, Row};
use time::OffsetDateTime;
use uuid::Uuid;

/// Relative growth since the last alert from which a case is told again.
/// Source: the usual definition of haematoma expansion, a third or 6 mL (Dowlatshahi et al., Neurology 2011;76:1238).
const GROWN_RATIO: f64 = 1.33;
/// Absolute growth since the last alert from which a case is told again, whatever the ratio.
const GROWN_ML: f64 = 6.0;
/// Growth below this is not told again, whatever the ratio: a third of a drop is noise of the mask.
const GROWN_MIN_ML: f64 = 1.0;

/// Code of the failure of an analysis whose files were evicted.
pub const EVICTED: &str = "evicted";

/// An instance that an analysis looks at.
#[derive(Debug, Clone, FromRow)]
pub struct Source {
    /// Row.
    pub instance_id: i64,
    /// Its series.
    pub series_instance_uid: String,
    /// Digest of its dataset.
    pub digest: Vec<u8>,
    /// Its file.
    pub archive_key: String,
    /// Whether its series is quarantined.
    pub conflict: Option<String>,
}

/// Everything received of a study.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Row of the study.
    pub study_id: i64,
    /// Current received instances, quarantined ones included.
    pub instances: Vec<Source>,
}

/// What an analysis is of and with.
#[derive(Debug, Clone)]
pub struct Identity {
    /// SHA-256 over everything below and the instances.
    pub identity: [u8; 32],
    /// Digest of the models' weights and plans.
    pub model_digest: Vec<u8>,
    /// Digest of the calibration.
    pub calibration_digest: Vec<u8>,
}

/// What [`begin`] found.
#[derive(Debug, Clone)]
pub enum Begun {
    /// Run it.
    Run(Running),
    /// It is complete, or was refused for good: nothing to do but to commit that it was found so.
    Done,
}

/// An analysis under way.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its name.
    pub id: Uuid,
    /// Row of its study.
    pub study_id: i64,
    /// The date in its results.
    pub created_at: OffsetDateTime,
    /// Runs that ended with a fault of ours.
    pub internal_failures: i32,
    /// Whether someone asked it to stop before this run began.
    pub cancel_requested: bool,
}

/// Reads what a study holds for an analysis; nothing when it holds nothing.
///
/// # Errors
/// When a statement fails.
pub async fn sources(tx: &mut Tx, study: &Uid) -> Result<Option<Sources>, DbError> {
    // Locked, so that nothing is removed between reading what there is and beginning.
    let study_id: Option<i64> =
        sqlx::query_scalar("SELECT id FROM study WHERE study_instance_uid = $1 FOR UPDATE")
            .bind(study.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    let Some(study_id) = study_id else { return Ok(None) };
    let instances: Vec<Source> = sqlx::query_as(
        "SELECT instance.id AS instance_id, series_instance_uid, digest, archive_key, conflict \
         FROM instance JOIN series ON series.id = series_id \
         WHERE series.study_id = $1 AND origin = 'received' AND instance.state = 'current' ORDER BY instance.id",
    )
    .bind(study_id)
    .fetch_all(&mut **tx)
    .await?;
    // Everything was removed or rejected since the job was put in.
    Ok((!instances.is_empty()).then_some(Sources { study_id, instances }))
}

/// Finds or makes the row of an analysis and takes it into the running state.
///
/// # Errors
/// When a statement fails.
pub async fn begin(tx: &mut Tx, sources: &Sources, identity: &Identity) -> Result<Begun, DbError> {
    lock_study(tx, sources.study_id).await?;
    let row = sqlx::query(
        "SELECT id, state, failure_code, created_at, internal_failures, cancel_requested \
         FROM analysis WHERE identity = $1",
    )
    .bind(identity.identity.as_slice())
    .fetch_optional(&mut **tx)
    .await?;
    let running = match row {
        Some(row) => {
            let state: String = row.try_get("state")?;
            let code: Option<String> = row.try_get("failure_code")?;
            let id: Uuid = row.try_get("id")?;
            if state == "complete" || state == "failed" && !code.as_deref().is_some_and(is_ours) {
                confirm(tx, id).await?;
                return Ok(Begun::Done);
            }
            // A wish to stop outlives a crash, but not the end that it led to.
            let cancel_requested = state == "running" && row.try_get("cancel_requested")?;
            sqlx::query(
                "UPDATE analysis SET state = 'running', started_at = clock_timestamp(), finished_at = NULL, \
                 attempts = attempts + 1, failure_code = NULL, failure_text = NULL, cancel_requested = $2, \
                 progress_done = 0 WHERE id = $1",
            )
            .bind(id)
            .bind(cancel_requested)
            .execute(&mut **tx)
            .await?;
            Running {
                id,
                study_id: sources.study_id,
                created_at: row.try_get("created_at")?,
                internal_failures: row.try_get("internal_failures")?,
                cancel_requested,
            }
        }
        None => insert(tx, sources, identity).await?,
    };
    events::notify_study(tx, sources.study_id).await?;
    Ok(Begun::Run(running))
}

async fn insert(tx: &mut Tx, sources: &Sources, identity: &Identity) -> Result<Running, DbError> {
    let id = Uuid::new_v4();
    let created_at = sqlx::query_scalar(INSERT)
        .bind(id)
        .bind(sources.study_id)
        .bind(identity.identity.as_slice())
        .bind(&identity.model_digest)
        .bind(&identity.calibration_digest)
        .bind(i32::try_from(sources.instances.len()).unwrap_or(i32::MAX))
        .fetch_one(&mut **tx)
        .await?;
    let instances: Vec<i64> = sources
        .instances
        .iter()
        .map(|source| source.instance_id)
        .collect();
    sqlx::query(
        "INSERT INTO analysis_instance (analysis_id, instance_id, role) SELECT $1, unnest($2::bigint[]), 'source'",
    )
    .bind(id)
    .bind(instances)
    .execute(&mut **tx)
    .await?;
    Ok(Running {
        id,
        study_id: sources.study_id,
        created_at,
        internal_failures: 0,
        cancel_requested: false,
    })
}

/// Notes that an analysis is that of what is stored, for whoever waits for one.
async fn confirm(tx: &mut Tx, analysis: Uuid) -> Result<(), DbError> {
    sqlx::query("UPDATE analysis SET confirmed_at = clock_timestamp() WHERE id = $1")
        .bind(analysis)
        .execute(&mut **tx)
        .await?;
    events::notify_workitem(tx).await
}

/// Failures that are not the input's fault: a new job may try again.
fn is_ours(code: &str) -> bool {
    matches!(code, "internal" | "transient" | "worker_died" | EVICTED)
}

/// The row of a study whose analysis failed for want of files that were evicted; nothing for any other.
///
/// # Errors
/// When the statement fails.
pub async fn wants_evicted(tx: &mut Tx, study: &Uid) -> Result<Option<i64>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM study WHERE study_instance_uid = $1 AND EXISTS (SELECT FROM analysis \
         WHERE study_id = study.id AND state = 'failed' AND failure_code = $2)",
    )
    .bind(study.as_str())
    .bind(EVICTED)
    .fetch_optional(&mut **tx)
    .await?)
}

/// Notes how far an analysis is, tells the page, and says whether someone asked it to stop.
///
/// # Errors
/// When a statement fails.
pub async fn progress(tx: &mut Tx, running: &Running, done: i32, total: i32) -> Result<bool, DbError> {
    let cancelled: Option<bool> = sqlx::query_scalar(
        "UPDATE analysis SET progress_done = $2, progress_total = $3 WHERE id = $1 AND state = 'running' \
         RETURNING cancel_requested",
    )
    .bind(running.id)
    .bind(done)
    .bind(total)
    .fetch_optional(&mut **tx)
    .await?;
    events::notify_study(tx, running.study_id).await?;
    // A row that is no longer running was ended by someone else: there is nothing left to do for us.
    Ok(cancelled.unwrap_or(true))
}

/// Asks the running analysis of a study to stop; `None` when none runs.
///
/// # Errors
/// When a statement fails.
pub async fn request_cancel(tx: &mut Tx, study: &Uid) -> Result<Option<Uuid>, DbError> {
    let analysis: Option<Uuid> = sqlx::query_scalar(
        "UPDATE analysis SET cancel_requested = true FROM study \
         WHERE study.id = analysis.study_id AND study_instance_uid = $1 AND state = 'running' RETURNING analysis.id",
    )
    .bind(study.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(analysis) = analysis {
        events::notify_cancel(tx, analysis).await?;
    }
    Ok(analysis)
}

/// Locks the analysis for its end; false when it has ended already, in another run of the same job.
///
/// # Errors
/// When a statement fails.
pub async fn lock_running(tx: &mut Tx, running: &Running) -> Result<bool, DbError> {
    lock_study(tx, running.study_id).await?;
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM analysis WHERE id = $1 FOR UPDATE")
        .bind(running.id)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(state.as_deref() == Some("running"))
}

/// What [`complete`] decided beside storing.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    /// The state of the study that a person sees now.
    pub answer: String,
    /// Why someone has to be told, if so: `first`, `reappeared` or `grown`.
    pub alert: Option<&'static str>,
    /// Analyses that this one replaces.
    pub superseded: Vec<Uuid>,
}

/// Ends a locked analysis as complete: report, findings, results, supersession and alert.
///
/// # Errors
/// When a statement fails.
pub async fn complete(
    tx: &mut Tx,
    running: &Running,
    report: &Report,
    results: &[(i64, &'static str)],
) -> Result<Completed, DbError> {
    let summary = Summary::of(report);
    let document = serde_json::to_value(report).map_err(|_| DbError::Stored("report"))?;
    let stages = serde_json::to_value(&report.timings).map_err(|_| DbError::Stored("timing"))?;
    sqlx::query(COMPLETE)
        .bind(running.id)
        .bind(summary.answer)
        .bind(summary.score)
        .bind(summary.uncertainty)
        .bind(summary.volume_ml)
        .bind(i32::try_from(report.findings.len()).unwrap_or(i32::MAX))
        .bind(document)
        .bind(stages)
        .execute(&mut **tx)
        .await?;
    for finding in &report.findings {
        let document = serde_json::to_value(finding).map_err(|_| DbError::Stored("finding"))?;
        let side = document
            .get("side")
            .and_then(|side| side.as_str())
            .unwrap_or("unknown")
            .to_owned();
        sqlx::query(
            "INSERT INTO finding (analysis_id, name, kind, model, series_instance_uid, segment, volume_ml, side, \
             score, probability, uncertainty, document) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(running.id)
        .bind(&finding.id)
        .bind(&finding.kind)
        .bind(&finding.model)
        .bind(finding.series.as_str())
        .bind(i32::from(finding.segment))
        .bind(finding.volume_ml)
        .bind(side)
        .bind(finding.score)
        .bind(finding.probability)
        .bind(finding.uncertainty)
        .bind(document)
        .execute(&mut **tx)
        .await?;
    }
    for (instance_id, role) in results {
        sqlx::query("INSERT INTO analysis_instance (analysis_id, instance_id, role) VALUES ($1, $2, $3)")
            .bind(running.id)
            .bind(instance_id)
            .bind(*role)
            .execute(&mut **tx)
            .await?;
    }
    let superseded = supersede(tx, running).await?;
    let alert = alert(tx, running, &summary).await?;
    events::touch_study(tx, running.study_id).await?;
    Ok(Completed {
        answer: summary.answer.to_owned(),
        alert,
        superseded,
    })
}

/// The report (SR) of the analysis that a run replaces when it completes: SeriesInstanceUID and SOPInstanceUID.
///
/// # Errors
/// When the statement fails.
pub async fn previous_report(tx: &mut Tx, running: &Running) -> Result<Option<(String, String)>, DbError> {
    Ok(sqlx::query_as(PREVIOUS_REPORT)
        .bind(running.study_id)
        .bind(running.id)
        .fetch_optional(&mut **tx)
        .await?)
}

/// Older complete analyses are superseded by this one, or this one by a newer that was faster.
async fn supersede(tx: &mut Tx, running: &Running) -> Result<Vec<Uuid>, DbError> {
    sqlx::query(
        "UPDATE analysis SET superseded_at = clock_timestamp() WHERE id = $1 AND EXISTS (SELECT FROM analysis newer \
         WHERE newer.study_id = $2 AND newer.state = 'complete' AND newer.created_at > analysis.created_at)",
    )
    .bind(running.id)
    .bind(running.study_id)
    .execute(&mut **tx)
    .await?;
    let superseded: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE analysis older SET superseded_at = clock_timestamp() FROM analysis current \
         WHERE current.id = $1 AND older.study_id = current.study_id AND older.id <> current.id \
         AND older.state = 'complete' AND older.superseded_at IS NULL AND older.created_at <= current.created_at \
         RETURNING older.id",
    )
    .bind(running.id)
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query("UPDATE analysis SET supersedes = $2 WHERE id = $1")
        .bind(running.id)
        .bind(superseded.first())
        .execute(&mut **tx)
        .await?;
    Ok(superseded)
}

/// A case alerts once, and again only when it gets worse; a superseded answer alerts nobody.
async fn alert(tx: &mut Tx, running: &Running, summary: &Summary) -> Result<Option<&'static str>, DbError> {
    if summary.answer != "present" {
        return Ok(None);
    }
    let before = sqlx::query(BEFORE).bind(running.id).fetch_one(&mut **tx).await?;
    if before.try_get::<bool, _>("superseded")? {
        return Ok(None);
    }
    let told: Option<f64> = before.try_get("told_ml")?;
    let answer: Option<String> = before.try_get("answer")?;
    let volume_ml = summary.volume_ml.unwrap_or(0.0);
    let reason = match told {
        None => Some("first"),
        Some(_) if answer.as_deref() != Some("present") => Some("reappeared"),
        Some(told) if has_grown(told, volume_ml) => Some("grown"),
        Some(_) => None,
    };
    if let Some(reason) = reason {
        sqlx::query("INSERT INTO alert (study_id, analysis_id, reason, volume_ml) VALUES ($1, $2, $3, $4)")
            .bind(running.study_id)
            .bind(running.id)
            .bind(reason)
            .bind(volume_ml)
            .execute(&mut **tx)
            .await?;
    }
    Ok(reason)
}

/// Whether a volume is worse than the one that was told.
fn has_grown(told_ml: f64, volume_ml: f64) -> bool {
    let growth_ml = volume_ml - told_ml;
    growth_ml >= GROWN_ML || growth_ml >= GROWN_MIN_ML && volume_ml >= told_ml * GROWN_RATIO
}

/// Ends a locked analysis as failed for good.
///
/// # Errors
/// When a statement fails.
pub async fn fail(tx: &mut Tx, running: &Running, code: &str, text: &str) -> Result<(), DbError> {
    end(tx, running, "failed", code, text).await
}

/// Ends a locked analysis as cancelled.
///
/// # Errors
/// When a statement fails.
pub async fn cancel(tx: &mut Tx, running: &Running) -> Result<(), DbError> {
    end(
        tx,
        running,
        "cancelled",
        "cancelled",
        "someone stopped the analysis",
    )
    .await
}

async fn end(tx: &mut Tx, running: &Running, state: &str, code: &str, text: &str) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE analysis SET state = $2, failure_code = $3, failure_text = $4, finished_at = clock_timestamp() \
         WHERE id = $1 AND state = 'running'",
    )
    .bind(running.id)
    .bind(state)
    .bind(code)
    .bind(text)
    .execute(&mut **tx)
    .await?;
    events::touch_study(tx, running.study_id).await
}

/// Notes a fault of ours that will be tried again.
///
/// # Errors
/// When the statement fails.
pub async fn note_internal_failure(tx: &mut Tx, running: &Running) -> Result<(), DbError> {
    sqlx::query("UPDATE analysis SET internal_failures = internal_failures + 1 WHERE id = $1")
        .bind(running.id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The analyses of a study that are in the running state: what a dead worker left.
///
/// # Errors
/// When the statement fails.
pub async fn running_of_study(tx: &mut Tx, study: &Uid) -> Result<Vec<Running>, DbError> {
    let rows = sqlx::query(
        "SELECT analysis.id, analysis.study_id, analysis.created_at, internal_failures, cancel_requested \
         FROM analysis JOIN study ON study.id = analysis.study_id \
         WHERE study_instance_uid = $1 AND state = 'running' ORDER BY analysis.created_at",
    )
    .bind(study.as_str())
    .fetch_all(&mut **tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Running {
                id: row.try_get("id")?,
                study_id: row.try_get("study_id")?,
                created_at: row.try_get("created_at")?,
                internal_failures: row.try_get("internal_failures")?,
                cancel_requested: row.try_get("cancel_requested")?,
            })
        })
        .collect()
}

/// Ends and begins of one study's analyses happen one after the other.
async fn lock_study(tx: &mut Tx, study_id: i64) -> Result<(), DbError> {
    sqlx::query("SELECT id FROM study WHERE id = $1 FOR UPDATE")
        .bind(study_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The answers of a report as one: the worst of them, with its numbers.
struct Summary {
    answer: &'static str,
    score: Option<f64>,
    uncertainty: Option<f64>,
    volume_ml: Option<f64>,
}

impl Summary {
    fn of(report: &Report) -> Self {
        let rank = |answer: AnswerValue| match answer {
            AnswerValue::Present => 3,
            AnswerValue::Uncertain => 2,
            AnswerValue::Absent => 1,
            AnswerValue::NotEvaluated => 0,
        };
        let worst = report.answers.iter().max_by_key(|answer| rank(answer.answer));
        let value = worst.map_or(AnswerValue::NotEvaluated, |answer| answer.answer);
        let evaluated = value != AnswerValue::NotEvaluated;
        Self {
            answer: match value {
                AnswerValue::Present => "present",
                AnswerValue::Uncertain => "uncertain",
                AnswerValue::Absent => "absent",
                AnswerValue::NotEvaluated => "not_evaluated",
            },
            score: worst.and_then(|answer| answer.score),
            uncertainty: worst.and_then(|answer| answer.uncertainty),
            // What was not evaluated has no volume; what was and showed nothing has 0.
            volume_ml: evaluated.then(|| report.findings.iter().map(|finding| finding.volume_ml).sum()),
        }
    }
}

const INSERT: &str = "
INSERT INTO analysis (id, study_id, identity, model_digest, calibration_digest, instance_count, created_at, revision,
                      state, waited_ms)
SELECT $1, $2, $3, $4, $5, $6,
       -- What was removed and comes again has results of the same UIDs: they must have the same dates, too.
       coalesce((SELECT min(created_at) FROM analysis WHERE removed_identity = $3),
                date_trunc('milliseconds', clock_timestamp())),
       (SELECT coalesce(max(revision), 0) + 1 FROM analysis WHERE study_id = $2), 'running',
       greatest(0, extract(epoch FROM clock_timestamp() - received_at) * 1000)::bigint
FROM study WHERE id = $2
RETURNING created_at
";

const COMPLETE: &str = "
UPDATE analysis SET state = 'complete', finished_at = clock_timestamp(), answer = $2, score = $3, uncertainty = $4,
       volume_ml = $5, finding_count = $6, report = $7, stages_ms = $8, progress_done = progress_total,
       duration_ms = greatest(0, extract(epoch FROM clock_timestamp() - started_at) * 1000)::bigint
WHERE id = $1
";

const PREVIOUS_REPORT: &str = "
SELECT series_instance_uid, sop_instance_uid
FROM (SELECT id FROM analysis WHERE study_id = $1 AND state = 'complete' AND id <> $2
      ORDER BY created_at DESC, revision DESC LIMIT 1) previous
JOIN analysis_instance ON analysis_id = previous.id AND role = 'sr'
JOIN instance ON instance.id = instance_id
JOIN series ON series.id = instance.series_id
ORDER BY instance.id LIMIT 1
";

/// What was told and answered before this analysis.
const BEFORE: &str = "
SELECT this.superseded_at IS NOT NULL AS superseded,
       (SELECT volume_ml FROM alert WHERE alert.study_id = this.study_id ORDER BY id DESC LIMIT 1) AS told_ml,
       (SELECT answer FROM analysis earlier
        WHERE earlier.study_id = this.study_id AND earlier.state = 'complete' AND earlier.id <> this.id
          AND earlier.answer <> 'not_evaluated'
        ORDER BY earlier.created_at DESC, earlier.revision DESC LIMIT 1) AS answer
FROM analysis this WHERE this.id = $1
";

#[cfg(test)]
mod tests {
    use super::has_grown;

    #[test]
    fn a_case_is_worse_after_a_third_or_six_millilitres_but_not_for_a_drop() {
        assert!(has_grown(10.0, 13.4));
        assert!(!has_grown(10.0, 13.0));
        assert!(has_grown(60.0, 66.5));
        assert!(!has_grown(0.3, 0.9));
        assert!(!has_grown(10.0, 4.0));
    }
}
