//! Masks that came back from other tools, as rows: taken up one by one, and ended as recorded or refused.

use super::{Db, Tx, error::DbError};
use sqlx::FromRow;

/// Who holds a mask that is being read has so long.
const LEASE_SECONDS: f64 = 120.0;
/// After so many tries it is refused: what fails each time is our fault or the disk's.
const MOST_TRIES: i32 = 20;

/// A mask to be read.
#[derive(Debug, Clone, FromRow)]
pub struct ReturnedMask {
    /// Row of the Segmentation.
    pub instance_id: i64,
    /// Who sent it.
    pub sent_by: String,
    /// Row of its study.
    pub study_id: i64,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Digest of its dataset.
    pub digest: Vec<u8>,
    /// Its file.
    pub archive_key: String,
    /// This is the last try.
    pub is_last: bool,
}

/// Notes that a mask came back.
///
/// # Errors
/// When the statement fails.
pub async fn came(tx: &mut Tx, instance_id: i64, sent_by: &str) -> Result<(), DbError> {
    sqlx::query("INSERT INTO returned_mask (instance_id, sent_by) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(instance_id)
        .bind(sent_by)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Ends a mask as a correction; its series is a reader's from now on, unless it is one of ours.
///
/// # Errors
/// When a statement fails.
pub async fn recorded(tx: &mut Tx, instance_id: i64, correction: i64) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE returned_mask SET state = 'recorded', correction_id = $2, ended_at = clock_timestamp() \
         WHERE instance_id = $1",
    )
    .bind(instance_id)
    .bind(correction)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE series SET origin = 'reader' FROM instance \
         WHERE instance.id = $1 AND series.id = instance.series_id AND origin = 'received'",
    )
    .bind(instance_id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends a mask as refused.
///
/// # Errors
/// When the statement fails.
pub async fn refused(tx: &mut Tx, instance_id: i64, reason: &str) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE returned_mask SET state = 'refused', reason = $2, ended_at = clock_timestamp() WHERE instance_id = $1",
    )
    .bind(instance_id)
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Db {
    /// Takes up the mask that is due, for two minutes; `None` when none is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_returned_mask(&self) -> Result<Option<ReturnedMask>, DbError> {
        Ok(sqlx::query_as(CLAIM)
            .bind(LEASE_SECONDS)
            .bind(MOST_TRIES)
            .fetch_optional(&self.app)
            .await?)
    }
}

const CLAIM: &str = "
UPDATE returned_mask SET tries = tries + 1, next_at = clock_timestamp() + make_interval(secs => $1)
FROM instance JOIN series ON series.id = series_id JOIN study ON study.id = series.study_id
WHERE returned_mask.instance_id = (SELECT due.instance_id FROM returned_mask due
        WHERE due.state = 'pending' AND due.next_at <= clock_timestamp()
        ORDER BY due.next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
  AND instance.id = returned_mask.instance_id
RETURNING returned_mask.instance_id, sent_by, study.id AS study_id, study_instance_uid, sop_instance_uid, digest,
          archive_key, tries >= $2 AS is_last
";
