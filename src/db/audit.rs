//! The append-only trail: an act in words → a row whose hash covers the row before.
//!
//! [`append`] must be the last statement before COMMIT: it locks the one-row head, so that numbers have no gap and the chain no fork, and nobody waits for it longer than a commit takes.
//! The canonical bytes of a row are length-prefixed fields, so that no two rows share them.
//! `db` only writes and reads rows; [`crate::audit`] judges them.

use super::{Db, Tx, error::DbError};
use crate::domain::uid::Uid;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{Row, postgres::PgRow};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// How long one read of a study covers the reads after it by the same principal.
const READ_COVERS_MINUTES: i32 = 10;

/// An act to be recorded.
#[derive(Debug, Clone)]
pub struct Act<'a> {
    /// Who: a key's name, an application entity title, a component.
    pub principal: &'a str,
    /// What: `store`, `refuse`, `analyse`, `read`, …
    pub act: &'a str,
    /// Which studies.
    pub studies: Vec<String>,
    /// Particulars without patient data: UIDs, digests, numbers, reason codes.
    pub detail: Value,
}

/// A row of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Number, from 1, without gaps.
    pub seq: i64,
    /// When, to the microsecond.
    pub at: OffsetDateTime,
    /// Who.
    pub principal: String,
    /// What.
    pub act: String,
    /// Which studies.
    pub studies: Vec<String>,
    /// Particulars, JSON as it was hashed.
    pub detail: String,
    /// Hash of the row before; zeros for the first.
    pub prev_hash: Vec<u8>,
    /// Hash of this row.
    pub hash: Vec<u8>,
}

/// A row as the API shows it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct AuditEntry {
    /// Number.
    pub seq: i64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub principal: String,
    /// What.
    pub act: String,
    /// Particulars.
    pub detail: Value,
    /// Hash of this row, hexadecimal.
    pub hash: String,
    /// Hash of the row before, hexadecimal.
    pub prev_hash: String,
}

impl AuditRow {
    /// SHA-256 over `prev_hash` and the canonical bytes: what [`AuditRow::hash`] must be.
    #[must_use]
    pub fn expected_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(b"ictus-audit-1");
        field(&self.prev_hash);
        field(&self.seq.to_be_bytes());
        field(&self.at.unix_timestamp_nanos().div_euclid(1000).to_be_bytes());
        field(self.principal.as_bytes());
        field(self.act.as_bytes());
        field(&(self.studies.len() as u64).to_be_bytes());
        for study in &self.studies {
            field(study.as_bytes());
        }
        field(self.detail.as_bytes());
        hash.finalize().into()
    }

    pub(super) fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            seq: row.try_get("seq")?,
            at: row.try_get("at")?,
            principal: row.try_get("principal")?,
            act: row.try_get("act")?,
            studies: row.try_get("studies")?,
            detail: row.try_get("detail")?,
            prev_hash: row.try_get("prev_hash")?,
            hash: row.try_get("hash")?,
        })
    }
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        Self {
            seq: row.seq,
            at: row.at,
            principal: row.principal,
            act: row.act,
            detail: serde_json::from_str(&row.detail).unwrap_or(Value::Null),
            hash: hex::encode(row.hash),
            prev_hash: hex::encode(row.prev_hash),
        }
    }
}

/// Appends one row; the last statement before COMMIT. Returns its number.
///
/// # Errors
/// When a statement fails.
pub async fn append(tx: &mut Tx, act: &Act<'_>) -> Result<i64, DbError> {
    append_if(tx, act, false).await.map(|seq| seq.unwrap_or_default())
}

/// `once`: not if the same principal's same act on the same study was recorded a short while ago.
async fn append_if(tx: &mut Tx, act: &Act<'_>, once: bool) -> Result<Option<i64>, DbError> {
    let head = sqlx::query("SELECT seq, hash, clock_timestamp() AS at FROM audit_head FOR UPDATE")
        .fetch_one(&mut **tx)
        .await?;
    if once && last_time(&mut **tx, act).await?.is_some() {
        return Ok(None);
    }
    let mut row = AuditRow {
        seq: head.try_get::<i64, _>("seq")? + 1,
        at: head.try_get("at")?,
        principal: act.principal.to_owned(),
        act: act.act.to_owned(),
        studies: act.studies.clone(),
        detail: act.detail.to_string(),
        prev_hash: head.try_get("hash")?,
        hash: Vec::new(),
    };
    row.hash = row.expected_hash().to_vec();
    sqlx::query(
        "INSERT INTO audit (seq, at, principal, act, studies, detail, prev_hash, hash) \
         VALUES ($1, $2, $3, $4, $5, $6::json, $7, $8)",
    )
    .bind(row.seq)
    .bind(row.at)
    .bind(&row.principal)
    .bind(&row.act)
    .bind(&row.studies)
    .bind(&row.detail)
    .bind(&row.prev_hash)
    .bind(&row.hash)
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE audit_head SET seq = $1, hash = $2")
        .bind(row.seq)
        .bind(&row.hash)
        .execute(&mut **tx)
        .await?;
    Ok(Some(row.seq))
}

/// Seconds since the row that still covers the act, if there is one.
async fn last_time(executor: impl sqlx::PgExecutor<'_>, act: &Act<'_>) -> Result<Option<f64>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT extract(epoch FROM clock_timestamp() - max(at))::float8 FROM audit \
         WHERE studies @> $1 AND principal = $2 AND act = $3 \
         AND at > clock_timestamp() - make_interval(mins => $4)",
    )
    .bind(&act.studies)
    .bind(act.principal)
    .bind(act.act)
    .bind(READ_COVERS_MINUTES)
    .fetch_one(executor)
    .await?)
}

/// Which reads are in the trail already, so that a viewer's thousand requests ask the database once.
#[derive(Debug, Default)]
pub(super) struct Covered(Mutex<HashMap<(String, String), Instant>>);

/// More than a busy hospital reads in ten minutes; beyond it what has run out is forgotten.
const MAX_COVERED: usize = 100_000;

impl Covered {
    fn holds(&self, principal: &str, studies: &[String]) -> bool {
        let now = Instant::now();
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_covered = |study: &String| {
            until
                .get(&(principal.to_owned(), study.clone()))
                .is_some_and(|end| *end > now)
        };
        studies.iter().all(is_covered)
    }

    /// `age`: seconds since the row was written.
    fn keep(&self, principal: &str, studies: &[String], age: f64) {
        let whole = 60.0 * f64::from(READ_COVERS_MINUTES);
        let left = Duration::try_from_secs_f64(whole - age).unwrap_or_default();
        let (now, end) = (Instant::now(), Instant::now() + left);
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() + studies.len() > MAX_COVERED {
            until.retain(|_, end| *end > now);
        }
        if until.len() + studies.len() > MAX_COVERED {
            until.clear();
        }
        for study in studies {
            until.insert((principal.to_owned(), study.clone()), end);
        }
    }
}

impl Db {
    /// Records that someone reads a study, once in ten minutes; call it before the first byte leaves.
    ///
    /// # Errors
    /// When it cannot be recorded; the study must then not be shown.
    pub async fn audit_read(&self, principal: &str, study: &Uid) -> Result<(), DbError> {
        self.audit_reads(principal, vec![study.to_string()]).await
    }

    /// The same for the studies of a list, in one row.
    ///
    /// # Errors
    /// When it cannot be recorded; the list must then not be shown.
    pub async fn audit_reads(&self, principal: &str, studies: Vec<String>) -> Result<(), DbError> {
        if studies.is_empty() {
            return Ok(());
        }
        let act = Act {
            principal,
            act: "read",
            studies,
            detail: Value::Object(serde_json::Map::new()),
        };
        if self.covered.holds(principal, &act.studies) {
            return Ok(());
        }
        let age = match last_time(&self.app, &act).await? {
            Some(age) => age,
            None => {
                let mut tx = self.begin().await?;
                // What is read is not what an archive that runs full lets go first.
                sqlx::query(
                    "UPDATE study SET needed_at = clock_timestamp() WHERE study_instance_uid = ANY ($1)",
                )
                .bind(&act.studies)
                .execute(&mut *tx)
                .await?;
                append_if(&mut tx, &act, true).await?;
                super::commit(tx).await?;
                0.0
            }
        };
        self.covered.keep(principal, &act.studies, age);
        Ok(())
    }

    /// Records one act that changes nothing else: a refused request.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn audit_act(&self, act: &Act<'_>) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        append(&mut tx, act).await?;
        super::commit(tx).await
    }

    /// Rows after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_rows(&self, after: i64, limit: i64) -> Result<Vec<AuditRow>, DbError> {
        let rows = sqlx::query(
            "SELECT seq, at, principal, act, studies, detail::text AS detail, prev_hash, hash \
             FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.app)
        .await?;
        Ok(rows.iter().map(AuditRow::from_row).collect::<Result<_, _>>()?)
    }

    /// The rows about one study, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_of_study(&self, study: &Uid) -> Result<Vec<AuditEntry>, DbError> {
        let rows = sqlx::query(
            "SELECT seq, at, principal, act, studies, detail::text AS detail, prev_hash, hash \
             FROM audit WHERE studies @> ARRAY[$1] ORDER BY seq",
        )
        .bind(study.as_str())
        .fetch_all(&self.app)
        .await?;
        rows.iter()
            .map(|row| Ok(AuditRow::from_row(row)?.into()))
            .collect()
    }

    /// Number and hash of the last row, as the head keeps them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_head(&self) -> Result<(i64, Vec<u8>), DbError> {
        Ok(sqlx::query_as("SELECT seq, hash FROM audit_head")
            .fetch_one(&self.app)
            .await?)
    }
}
