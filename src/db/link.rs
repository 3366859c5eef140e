//! Keys that sign links, and the visits that links begin.

use super::{Db, Tx, error::DbError};
use sqlx::FromRow;
use time::OffsetDateTime;

/// A key, without its secret.
#[derive(Debug, Clone, FromRow)]
pub struct LinkKey {
    /// Which system signs with it.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Where a visitor may go.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Visit {
    /// The key that signed the link.
    pub key: String,
    /// The one study, StudyInstanceUID.
    pub study_instance_uid: String,
}

/// Adds a key; false when the name is taken.
///
/// # Errors
/// When the statement fails.
pub async fn insert_key(tx: &mut Tx, name: &str, secret: &[u8; 32]) -> Result<bool, DbError> {
    let done =
        sqlx::query("INSERT INTO link_key (name, secret) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(secret.as_slice())
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes a key; false when no living one has that name.
///
/// # Errors
/// When the statement fails.
pub async fn revoke_key(tx: &mut Tx, name: &str) -> Result<bool, DbError> {
    let query = "UPDATE link_key SET revoked_at = clock_timestamp() WHERE name = $1 AND revoked_at IS NULL";
    let done = sqlx::query(query).bind(name).execute(&mut **tx).await?;
    Ok(done.rows_affected() == 1)
}

/// Begins a visit; false when the study is gone.
///
/// # Errors
/// When the statement fails.
pub async fn insert_visit(
    tx: &mut Tx,
    token_digest: &[u8; 32],
    key: &str,
    study_instance_uid: &str,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO link_visit (token_digest, key, study_id) SELECT $1, $2, id FROM study WHERE study_instance_uid = $3",
    )
    .bind(token_digest.as_slice())
    .bind(key)
    .bind(study_instance_uid)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

impl Db {
    /// Every key, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn link_keys(&self) -> Result<Vec<LinkKey>, DbError> {
        let query = "SELECT name, created_at, revoked_at FROM link_key ORDER BY name";
        Ok(sqlx::query_as(query).fetch_all(&self.app).await?)
    }

    /// The secret of a living key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn link_secret(&self, name: &str) -> Result<Option<Vec<u8>>, DbError> {
        let query = "SELECT secret FROM link_key WHERE name = $1 AND revoked_at IS NULL";
        Ok(sqlx::query_scalar(query)
            .bind(name)
            .fetch_optional(&self.app)
            .await?)
    }

    /// The studies that a link means: by UID, or by accession number exactly; two at most, since two are too many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn linked_studies(
        &self,
        uid: Option<&str>,
        accession: Option<&str>,
    ) -> Result<Vec<String>, DbError> {
        let query = "SELECT study_instance_uid FROM study \
                     WHERE study_instance_uid = $1 OR ($1::text IS NULL AND accession_number = $2) LIMIT 2";
        Ok(sqlx::query_scalar(query)
            .bind(uid)
            .bind(accession)
            .fetch_all(&self.app)
            .await?)
    }

    /// Where the holder of a token may go: two hours long, and not once the key was revoked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn link_visit(&self, token_digest: &[u8; 32]) -> Result<Option<Visit>, DbError> {
        Ok(sqlx::query_as(
            "SELECT key, study_instance_uid FROM link_visit JOIN study ON study.id = link_visit.study_id \
             JOIN link_key ON link_key.name = key \
             WHERE token_digest = $1 AND revoked_at IS NULL \
               AND link_visit.created_at > clock_timestamp() - interval '2 hours'",
        )
        .bind(token_digest.as_slice())
        .fetch_optional(&self.app)
        .await?)
    }
}
