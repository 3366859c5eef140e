//! The archive as a cache: how much it holds, and which files may go.
//!
//! What may go is said by the view `evictable` of the schema and nowhere else.

use super::{Db, Tx, error::DbError};
use sqlx::FromRow;

/// A file that was evicted.
#[derive(Debug, Clone, FromRow)]
pub struct Evicted {
    /// Its name in the archive.
    pub archive_key: String,
    /// Its length.
    pub size_bytes: i64,
}

impl Db {
    /// Bytes of every file that the index needs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn kept_bytes(&self) -> Result<u64, DbError> {
        let query = "SELECT coalesce(sum(size_bytes), 0)::bigint FROM instance WHERE evicted_at IS NULL";
        let bytes: i64 = sqlx::query_scalar(query).fetch_one(&self.app).await?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// StudyInstanceUID of the study that was needed least recently among those that may be evicted.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_evictable(&self) -> Result<Option<String>, DbError> {
        let query = "SELECT study_instance_uid FROM evictable ORDER BY needed_at, study_id LIMIT 1";
        Ok(sqlx::query_scalar(query).fetch_optional(&self.app).await?)
    }
}

/// Marks the files of a study that may go as evicted, and says which these are; the caller holds the lock of the study.
///
/// # Errors
/// When the statement fails.
pub async fn evict(tx: &mut Tx, study_instance_uid: &str) -> Result<Vec<Evicted>, DbError> {
    Ok(sqlx::query_as(
        "UPDATE instance SET evicted_at = clock_timestamp() \
         WHERE id IN (SELECT instance_id FROM evictable WHERE study_instance_uid = $1) AND evicted_at IS NULL \
         RETURNING archive_key, size_bytes",
    )
    .bind(study_instance_uid)
    .fetch_all(&mut **tx)
    .await?)
}
