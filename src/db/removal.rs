//! Removing what is stored, as rows: what a study holds, what stands against it, and what stays when it is gone.
//!
//! Rows of instances and analyses stay, without what they said of a patient, for the trail and for replays.
//! Who may remove what is decided by [`crate::receive::removal`]; files are its business, too.

use super::{Tx, error::DbError, events};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

/// Who removed something, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The admin.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Reason code.
    pub reason: String,
}

/// A stored instance of a study.
#[derive(Debug, Clone, FromRow)]
pub struct Held {
    /// Row.
    pub id: i64,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// `received`, `result`, `derived` or `reader`.
    pub origin: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Digest of its dataset.
    pub digest: Vec<u8>,
    /// Its file.
    pub archive_key: String,
    /// Bytes of the file.
    pub size_bytes: i64,
    /// Whether an analysis may start from it.
    pub original_ct: bool,
}

/// What stands against removing a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Obstacles {
    /// Analyses under way.
    pub running: i64,
    /// Workitems whose analysis is under way.
    pub workitems: i64,
    /// Deliveries that wait or were given up.
    pub undelivered: i64,
    /// Notifications that nobody has taken note of.
    pub unacknowledged: i64,
}

/// The row of a study, locked against analyses that begin or end.
///
/// # Errors
/// When the statement fails.
pub async fn lock_study(tx: &mut Tx, study: &str) -> Result<Option<i64>, DbError> {
    Ok(
        sqlx::query_scalar("SELECT id FROM study WHERE study_instance_uid = $1 FOR UPDATE")
            .bind(study)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// Everything that is stored of a study, shown or not.
///
/// # Errors
/// When the statement fails.
pub async fn held(tx: &mut Tx, study_id: i64) -> Result<Vec<Held>, DbError> {
    Ok(sqlx::query_as(
        "SELECT instance.id, series_instance_uid, origin, sop_instance_uid, digest, archive_key, size_bytes, original_ct \
         FROM instance JOIN series ON series.id = series_id \
         WHERE series.study_id = $1 AND instance.state <> 'removed' ORDER BY instance.id",
    )
    .bind(study_id)
    .fetch_all(&mut **tx)
    .await?)
}

/// What stands against it.
///
/// # Errors
/// When the statement fails.
pub async fn obstacles(tx: &mut Tx, study_id: i64) -> Result<Obstacles, DbError> {
    Ok(sqlx::query_as(OBSTACLES)
        .bind(study_id)
        .fetch_one(&mut **tx)
        .await?)
}

/// Takes instances out of every list; their files are no longer referred to.
///
/// # Errors
/// When a statement fails.
pub async fn remove(tx: &mut Tx, study_id: i64, instances: &[i64], why: &Removal) -> Result<(), DbError> {
    sqlx::query("SELECT remove_instances($1, $2)")
        .bind(instances)
        .bind(Json(why))
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "UPDATE returned_mask SET state = 'refused', reason = 'it was removed', ended_at = clock_timestamp() \
         WHERE instance_id = ANY ($1) AND state = 'pending'",
    )
    .bind(instances)
    .execute(&mut **tx)
    .await?;
    sqlx::query(FORGET_SERIES)
        .bind(study_id)
        .execute(&mut **tx)
        .await?;
    events::touch_study(tx, study_id).await
}

/// Takes the answers of a study back: its analyses are of images that are gone, and what waits is not sent.
/// Returns the analyses, and how many deliveries were withdrawn.
///
/// # Errors
/// When a statement fails.
pub async fn remove_answers(tx: &mut Tx, study_id: i64, why: &Removal) -> Result<(Vec<Uuid>, u64), DbError> {
    let withdrawn = sqlx::query(
        "UPDATE outbox SET state = 'superseded', ended_at = clock_timestamp(), escalate_at = NULL, \
         note = 'withdrawn: the images that it is about were removed' \
         FROM analysis WHERE analysis.id = outbox.analysis_id AND analysis.study_id = $1 \
         AND outbox.state IN ('pending', 'dead')",
    )
    .bind(study_id)
    .execute(&mut **tx)
    .await?
    .rows_affected();
    sqlx::query(
        "UPDATE outbox SET escalate_at = NULL FROM analysis \
         WHERE analysis.id = outbox.analysis_id AND analysis.study_id = $1 AND escalated_at IS NULL",
    )
    .bind(study_id)
    .execute(&mut **tx)
    .await?;
    let analyses = sqlx::query_scalar(REMOVE_ANALYSES)
        .bind(study_id)
        .bind(Json(why))
        .fetch_all(&mut **tx)
        .await?;
    sqlx::query("UPDATE study SET queued_at = NULL WHERE id = $1")
        .bind(study_id)
        .execute(&mut **tx)
        .await?;
    Ok((analyses, withdrawn))
}

/// Forgets whose a study was of which nothing is left; it is in no list.
///
/// # Errors
/// When a statement fails.
pub async fn forget(tx: &mut Tx, study_id: i64) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE study SET patient_name = NULL, patient_id = NULL, issuer_of_patient_id = NULL, \
         patient_birth_date = NULL, patient_sex = NULL, study_id = NULL, study_date = NULL, study_time = NULL, \
         accession_number = NULL, referring_physician_name = NULL, study_description = NULL, coercion = NULL, \
         relabelling = '{}', identity_edition = 0, hidden = true WHERE id = $1",
    )
    .bind(study_id)
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE fetch_study SET state = 'done' WHERE study_id = $1 AND state = 'pending'")
        .bind(study_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Leaves word for the workitems that name what was removed: the whole study, or these series and instances of it.
///
/// Word and not deed: whoever performs workitems locks them before studies, and here the study is locked.
///
/// # Errors
/// When the statement fails.
pub async fn note_removed_input(
    tx: &mut Tx,
    study: &str,
    uids: Option<&[String]>,
    reason: &str,
) -> Result<(), DbError> {
    sqlx::query("INSERT INTO removed_input (study_instance_uid, uids, reason) VALUES ($1, $2, $3)")
        .bind(study)
        .bind(uids)
        .bind(reason)
        .execute(&mut **tx)
        .await?;
    events::notify_workitem(tx).await
}

/// Series of a study, among these, of which nothing is left.
///
/// # Errors
/// When the statement fails.
pub async fn emptied(tx: &mut Tx, study_id: i64, series: &[String]) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT series_instance_uid FROM series WHERE study_id = $1 AND emptied AND series_instance_uid = ANY ($2)",
    )
    .bind(study_id)
    .bind(series)
    .fetch_all(&mut **tx)
    .await?)
}

const OBSTACLES: &str = "
SELECT
    (SELECT count(*) FROM analysis WHERE study_id = $1 AND state = 'running') AS running,
    (SELECT count(*) FROM workitem JOIN study ON study.study_instance_uid = workitem.study_instance_uid
     WHERE study.id = $1 AND ours AND workitem.state = 'IN PROGRESS') AS workitems,
    (SELECT count(*) FROM outbox JOIN analysis ON analysis.id = outbox.analysis_id
     WHERE study_id = $1 AND outbox.state IN ('pending', 'dead')) AS undelivered,
    (SELECT count(*) FROM outbox JOIN analysis ON analysis.id = outbox.analysis_id
     WHERE study_id = $1 AND outbox.state = 'delivered' AND escalate_at IS NOT NULL
       AND escalated_at IS NULL AND acknowledged_at IS NULL) AS unacknowledged
";

/// The identity is freed, and kept beside for the dates of the first time.
const REMOVE_ANALYSES: &str = "
UPDATE analysis SET state = 'removed', removal = $2, removed_identity = identity,
       identity = sha256(identity || convert_to(id::text, 'UTF8'))
WHERE study_id = $1 AND state <> 'removed' RETURNING id
";

const FORGET_SERIES: &str = "
UPDATE series SET emptied = true, series_description = NULL, patient_id = NULL, issuer_of_patient_id = NULL,
       frame_of_reference_uid = NULL, conflict = NULL
WHERE study_id = $1 AND NOT emptied
  AND NOT EXISTS (SELECT FROM instance WHERE instance.series_id = series.id AND instance.state <> 'removed')
";
