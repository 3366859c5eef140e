//! Accounts, sessions and verdicts as rows.
//!
//! Rules about them are [`crate::review`]'s; nothing is deleted here.

use super::{Db, Tx, error::DbError, events};
use crate::domain::uid::Uid;
use serde::Serialize;
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A session ends so many hours after sign-in, whatever happens: a long shift.
const SESSION_HOURS: i32 = 12;
/// A session ends after so many minutes without a request.
const IDLE_MINUTES: i32 = 120;
/// Wrong passwords count for so many minutes.
const FAILURES_COUNT_MINUTES: i32 = 15;

/// A person's account, as far as others may know it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct AccountRow {
    /// Row.
    pub id: i64,
    /// What they type.
    pub name: String,
    /// What others read.
    pub display_name: String,
    /// `radiologist`, `auditor` or `admin`.
    pub role: String,
}

/// An account with its password's hash.
#[derive(Debug, Clone, FromRow)]
pub struct Credentials {
    /// The account.
    #[sqlx(flatten)]
    pub account: AccountRow,
    /// Argon2id as a PHC string.
    pub password_hash: String,
    /// Whether it was disabled.
    pub disabled: bool,
}

/// What a reader said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct VerdictRow {
    /// Number, ascending in time.
    pub id: i64,
    /// The analysis that it is about.
    pub analysis: Uuid,
    /// The finding that it is about; null: the answer for the whole study.
    pub finding: Option<String>,
    /// `accept`, `reject`, `unsure` or `missed`.
    pub verdict: String,
    /// Reason code, if one was given.
    pub reason: Option<String>,
    /// Free text, if any was given.
    pub note: Option<String>,
    /// Who, as others read it.
    pub reader: String,
    /// Who, as they sign in.
    pub reader_name: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// A verdict on its way in.
#[derive(Debug, Clone, Copy)]
pub struct NewVerdict<'a> {
    /// Row of the study.
    pub study_id: i64,
    /// The analysis.
    pub analysis: Uuid,
    /// The finding, or the whole.
    pub finding: Option<&'a str>,
    /// The account.
    pub account_id: i64,
    /// The word.
    pub verdict: &'a str,
    /// The reason code.
    pub reason: Option<&'a str>,
    /// Free text.
    pub note: Option<&'a str>,
}

/// The current analysis of a study.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Current {
    /// Row of the study.
    pub study_id: i64,
    /// The analysis.
    pub analysis: Uuid,
    /// Names of its findings.
    pub findings: Vec<String>,
}

/// Adds an account; false when the name is taken.
///
/// # Errors
/// When the statement fails.
pub async fn insert_account(
    tx: &mut Tx,
    name: &str,
    display_name: &str,
    role: &str,
    password_hash: &str,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO account (name, display_name, role, password_hash) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(display_name)
    .bind(role)
    .bind(password_hash)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets the password of an account, enables it, and ends its sessions; false when there is none of that name.
///
/// # Errors
/// When a statement fails.
pub async fn set_password(tx: &mut Tx, name: &str, password_hash: &str) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE account SET password_hash = $2, disabled_at = NULL WHERE name = $1")
        .bind(name)
        .bind(password_hash)
        .execute(&mut **tx)
        .await?;
    end_sessions(tx, name).await?;
    Ok(done.rows_affected() == 1)
}

/// Disables an account and ends its sessions; false when there is none of that name.
///
/// # Errors
/// When a statement fails.
pub async fn disable_account(tx: &mut Tx, name: &str) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE account SET disabled_at = clock_timestamp() WHERE name = $1")
        .bind(name)
        .execute(&mut **tx)
        .await?;
    end_sessions(tx, name).await?;
    Ok(done.rows_affected() == 1)
}

async fn end_sessions(tx: &mut Tx, name: &str) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE session SET ended_at = clock_timestamp() FROM account \
         WHERE account.id = account_id AND account.name = $1 AND ended_at IS NULL",
    )
    .bind(name)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Begins a session.
///
/// # Errors
/// When the statement fails.
pub async fn insert_session(tx: &mut Tx, token_digest: &[u8; 32], account_id: i64) -> Result<(), DbError> {
    sqlx::query("INSERT INTO session (token_digest, account_id) VALUES ($1, $2)")
        .bind(token_digest.as_slice())
        .bind(account_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Ends a session; false when it has ended before.
///
/// # Errors
/// When the statement fails.
pub async fn end_session(tx: &mut Tx, token_digest: &[u8; 32]) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE session SET ended_at = clock_timestamp() WHERE token_digest = $1 AND ended_at IS NULL",
    )
    .bind(token_digest.as_slice())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes a wrong password.
///
/// # Errors
/// When the statement fails.
pub async fn insert_failed_sign_in(tx: &mut Tx, name: &str) -> Result<(), DbError> {
    sqlx::query("INSERT INTO failed_sign_in (name) VALUES ($1)")
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The current analysis of a study, locked against a revision until the transaction ends.
///
/// # Errors
/// When the statement fails.
pub async fn current_analysis(tx: &mut Tx, study: &Uid) -> Result<Option<Current>, DbError> {
    let study_id: Option<i64> =
        sqlx::query_scalar("SELECT id FROM study WHERE study_instance_uid = $1 FOR UPDATE")
            .bind(study.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    let Some(study_id) = study_id else { return Ok(None) };
    Ok(sqlx::query_as(
        "SELECT study_id, analysis.id AS analysis, \
         ARRAY(SELECT name FROM finding WHERE analysis_id = analysis.id ORDER BY name) AS findings \
         FROM analysis WHERE study_id = $1 AND state = 'complete' ORDER BY created_at DESC, revision DESC LIMIT 1",
    )
    .bind(study_id)
    .fetch_optional(&mut **tx)
    .await?)
}

/// Adds a verdict and tells the pages that show the study.
///
/// # Errors
/// When a statement fails.
pub async fn insert_verdict(tx: &mut Tx, verdict: &NewVerdict<'_>) -> Result<VerdictRow, DbError> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO verdict (study_id, analysis_id, finding, account_id, verdict, reason, note) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
    )
    .bind(verdict.study_id)
    .bind(verdict.analysis)
    .bind(verdict.finding)
    .bind(verdict.account_id)
    .bind(verdict.verdict)
    .bind(verdict.reason)
    .bind(verdict.note)
    .fetch_one(&mut **tx)
    .await?;
    events::touch_study(tx, verdict.study_id).await?;
    Ok(sqlx::query_as(VERDICT_BY_ID)
        .bind(id)
        .fetch_one(&mut **tx)
        .await?)
}

impl Db {
    /// The account of a name with its hash.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn credentials(&self, name: &str) -> Result<Option<Credentials>, DbError> {
        Ok(sqlx::query_as(
            "SELECT id, name, display_name, role, password_hash, disabled_at IS NOT NULL AS disabled \
             FROM account WHERE name = $1 AND password_hash IS NOT NULL",
        )
        .bind(name)
        .fetch_optional(&self.app)
        .await?)
    }

    /// Wrong passwords for a name in the last quarter of an hour.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn failed_sign_ins(&self, name: &str) -> Result<i64, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT count(*) FROM failed_sign_in \
             WHERE name = $1 AND at > clock_timestamp() - make_interval(mins => $2)",
        )
        .bind(name)
        .bind(FAILURES_COUNT_MINUTES)
        .fetch_one(&self.app)
        .await?)
    }

    /// Who a living session belongs to; the look keeps it alive.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn session_account(&self, token_digest: &[u8; 32]) -> Result<Option<AccountRow>, DbError> {
        let found: Option<(i64, String, String, String, bool)> = sqlx::query_as(
            "SELECT account.id, name, display_name, role, seen_at < clock_timestamp() - interval '1 minute' \
             FROM session JOIN account ON account.id = account_id \
             WHERE token_digest = $1 AND ended_at IS NULL AND disabled_at IS NULL \
             AND session.created_at > clock_timestamp() - make_interval(hours => $2) \
             AND seen_at > clock_timestamp() - make_interval(mins => $3)",
        )
        .bind(token_digest.as_slice())
        .bind(SESSION_HOURS)
        .bind(IDLE_MINUTES)
        .fetch_optional(&self.app)
        .await?;
        let Some((id, name, display_name, role, stale)) = found else {
            return Ok(None);
        };
        if stale {
            sqlx::query("UPDATE session SET seen_at = clock_timestamp() WHERE token_digest = $1")
                .bind(token_digest.as_slice())
                .execute(&self.app)
                .await?;
        }
        Ok(Some(AccountRow {
            id,
            name,
            display_name,
            role,
        }))
    }

    /// Accounts that exist, disabled ones last.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accounts(&self) -> Result<Vec<(AccountRow, bool)>, DbError> {
        let rows: Vec<Credentials> = sqlx::query_as(
            "SELECT id, name, display_name, role, '' AS password_hash, disabled_at IS NOT NULL AS disabled \
             FROM account ORDER BY disabled_at IS NOT NULL, name",
        )
        .fetch_all(&self.app)
        .await?;
        Ok(rows.into_iter().map(|row| (row.account, row.disabled)).collect())
    }

    /// What readers said of a study, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn verdicts(&self, study: &Uid) -> Result<Vec<VerdictRow>, DbError> {
        Ok(sqlx::query_as(VERDICTS_OF_STUDY)
            .bind(study.as_str())
            .fetch_all(&self.app)
            .await?)
    }
}

const VERDICT_BY_ID: &str = "
SELECT verdict.id, analysis_id AS analysis, finding, verdict, reason, note,
       display_name AS reader, account.name AS reader_name, at
FROM verdict JOIN account ON account.id = account_id WHERE verdict.id = $1
";

const VERDICTS_OF_STUDY: &str = "
SELECT verdict.id, analysis_id AS analysis, finding, verdict, reason, note,
       display_name AS reader, account.name AS reader_name, at
FROM verdict JOIN account ON account.id = account_id JOIN study ON study.id = verdict.study_id
WHERE study_instance_uid = $1 ORDER BY verdict.id
";
