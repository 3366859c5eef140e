//! Storage commitment as rows: what is stored of what we are asked, reports on their way, and what others answered us.

use super::{Db, Tx, error::DbError};
use sqlx::{FromRow, types::Json};
use std::time::Duration;
use uuid::Uuid;

/// How often a report is tried: with the pauses of [`Db::claim_report`] about two days.
const ATTEMPTS: i32 = 50;

/// A stored instance, as far as a commitment needs it.
#[derive(Debug, Clone, FromRow)]
pub struct Kept {
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// Name of the file in the archive.
    pub archive_key: String,
    /// Bytes of the file.
    pub size_bytes: i64,
}

/// A report that is to be sent.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its row.
    pub id: Uuid,
    /// AE title of who gets it.
    pub principal: String,
    /// TransactionUID.
    pub transaction_uid: String,
    /// SOPClassUID and SOPInstanceUID of what is committed to.
    pub committed: Vec<(String, String)>,
    /// SOPClassUID, SOPInstanceUID and FailureReason of what is not.
    pub failed: Vec<(String, String, u16)>,
}

/// A request over HTTP.
#[derive(Debug, Clone, FromRow)]
pub struct Requested {
    /// Who asked.
    pub principal: String,
    /// SOPClassUID and SOPInstanceUID of what is to be kept.
    pub instances: Json<Vec<(String, String)>>,
    /// FailureReason of each, nothing where it is kept; nothing at all until all were looked at.
    pub failures: Option<Json<Vec<Option<u16>>>>,
}

/// How far a target has come with an instance that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It was asked so long ago and has not answered.
    Waiting(Duration),
    /// It commits to it.
    Committed,
    /// It does not, for this reason.
    Failed(u16),
}

/// Files a report; it is first tried by others than the open association after `delay`.
///
/// # Errors
/// When the statement fails.
pub async fn file_report(tx: &mut Tx, report: &Report, delay: Duration) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO commitment_report (id, principal, transaction_uid, committed, failed, next_at) \
         VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6))",
    )
    .bind(report.id)
    .bind(&report.principal)
    .bind(&report.transaction_uid)
    .bind(Json(&report.committed))
    .bind(Json(&report.failed))
    .bind(delay.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes a request over HTTP down; false when its UID is in use.
///
/// # Errors
/// When the statement fails.
pub async fn put_request(
    tx: &mut Tx,
    transaction_uid: &str,
    instances: &[(String, String)],
    principal: &str,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO commitment_request (transaction_uid, principal, instances) \
         SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM commitment_report WHERE transaction_uid = $1) \
         ON CONFLICT DO NOTHING",
    )
    .bind(transaction_uid)
    .bind(principal)
    .bind(Json(instances))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes the answer to a request over HTTP down, among the reports of what was promised; false when it has one.
///
/// # Errors
/// When a statement fails.
pub async fn answer_request(tx: &mut Tx, report: &Report, failures: &[Option<u16>]) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE commitment_request SET failures = $2 WHERE transaction_uid = $1 AND failures IS NULL",
    )
    .bind(&report.transaction_uid)
    .bind(Json(failures))
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    file_report(tx, report, Duration::ZERO).await?;
    // The answer is the report: nobody has to be sent one.
    sqlx::query("UPDATE commitment_report SET state = 'sent' WHERE id = $1")
        .bind(report.id)
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

impl Db {
    /// A request over HTTP, and its answer.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn commitment_request(&self, transaction_uid: &str) -> Result<Option<Requested>, DbError> {
        Ok(sqlx::query_as(
            "SELECT principal, instances, failures FROM commitment_request WHERE transaction_uid = $1",
        )
        .bind(transaction_uid)
        .fetch_optional(&self.app)
        .await?)
    }

    /// What is stored under these SOPInstanceUIDs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn kept(&self, sop_instance_uids: &[&str]) -> Result<Vec<Kept>, DbError> {
        Ok(sqlx::query_as(
            "SELECT sop_instance_uid, sop_class_uid, archive_key, size_bytes FROM instance \
             WHERE sop_instance_uid = ANY ($1) AND state = 'current'",
        )
        .bind(sop_instance_uids)
        .fetch_all(&self.app)
        .await?)
    }

    /// Takes a report that is due and of somebody on this list; the next try is later each time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_report(&self, titles: &[&str]) -> Result<Option<Report>, DbError> {
        type Row = (
            Uuid,
            String,
            String,
            Json<Vec<(String, String)>>,
            Json<Vec<(String, String, u16)>>,
        );
        let row: Option<Row> = sqlx::query_as(
            "UPDATE commitment_report SET attempts = attempts + 1, \
             state = CASE WHEN attempts + 1 >= $2 THEN 'dead' ELSE state END, \
             next_at = clock_timestamp() + least(make_interval(secs => 5 * 2 ^ least(attempts, 20)), '1 hour') \
             WHERE id = (SELECT id FROM commitment_report WHERE state = 'pending' AND next_at <= clock_timestamp() \
                         AND principal = ANY ($1) ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED) \
             RETURNING id, principal, transaction_uid, committed, failed",
        )
        .bind(titles)
        .bind(ATTEMPTS)
        .fetch_optional(&self.app)
        .await?;
        Ok(
            row.map(|(id, principal, transaction_uid, committed, failed)| Report {
                id,
                principal,
                transaction_uid,
                committed: committed.0,
                failed: failed.0,
            }),
        )
    }

    /// Notes that a report was taken.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn report_sent(&self, id: Uuid) -> Result<(), DbError> {
        sqlx::query("UPDATE commitment_report SET state = 'sent' WHERE id = $1")
            .bind(id)
            .execute(&self.app)
            .await?;
        Ok(())
    }

    /// Lets reports be sent on an association of their own now: the one that they were asked on is over.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_reports(&self, ids: &[Uuid]) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE commitment_report SET next_at = clock_timestamp() WHERE id = ANY ($1) AND state = 'pending'",
        )
        .bind(ids)
        .execute(&self.app)
        .await?;
        Ok(())
    }

    /// Notes what a target, by its application entity title, is about to be asked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ask_commitment(
        &self,
        transaction_uid: &str,
        outbox: Uuid,
        instances: &[i64],
        title: &str,
    ) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO commitment_asked (transaction_uid, outbox_id, instance_id, ae_title) \
             SELECT $1, $2, unnest($3::bigint[]), $4",
        )
        .bind(transaction_uid)
        .bind(outbox)
        .bind(instances)
        .bind(title)
        .execute(&self.app)
        .await?;
        Ok(())
    }

    /// Notes what a target answered, and lets the delivery go on now; false when it was asked nothing by this UID.
    ///
    /// `title`: as whom it answers.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn record_commitment(
        &self,
        transaction_uid: &str,
        committed: &[String],
        failed: &[(String, u16)],
        title: &str,
    ) -> Result<bool, DbError> {
        let (uids, reasons): (Vec<String>, Vec<i32>) = failed
            .iter()
            .map(|(uid, reason)| (uid.clone(), i32::from(*reason)))
            .unzip();
        let outbox: Vec<Uuid> = sqlx::query_scalar(
            "WITH failed AS (SELECT * FROM unnest($3::text[], $4::integer[]) AS failed (uid, reason)) \
             UPDATE commitment_asked asked \
             SET state = CASE WHEN sop_instance_uid = ANY ($2) THEN 'committed' ELSE 'failed' END, \
                 failure_reason = (SELECT reason FROM failed WHERE uid = sop_instance_uid LIMIT 1) \
             FROM instance WHERE instance.id = asked.instance_id AND transaction_uid = $1 \
             AND (asked.ae_title IS NULL OR asked.ae_title = $5) \
             AND (sop_instance_uid = ANY ($2) OR sop_instance_uid = ANY ($3)) RETURNING outbox_id",
        )
        .bind(transaction_uid)
        .bind(committed)
        .bind(&uids)
        .bind(&reasons)
        .bind(title)
        .fetch_all(&self.app)
        .await?;
        sqlx::query(
            "UPDATE outbox SET next_at = clock_timestamp() WHERE id = ANY ($1) AND state = 'pending'",
        )
        .bind(&outbox)
        .execute(&self.app)
        .await?;
        Ok(!outbox.is_empty())
    }

    /// What a target last said of the instances of a delivery that it was asked about.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn commitments(&self, outbox: Uuid) -> Result<Vec<(i64, Asked)>, DbError> {
        let rows: Vec<(i64, String, Option<i32>, f64)> = sqlx::query_as(
            "SELECT DISTINCT ON (instance_id) instance_id, state, failure_reason, \
             extract(epoch FROM clock_timestamp() - asked_at)::double precision \
             FROM commitment_asked WHERE outbox_id = $1 ORDER BY instance_id, asked_at DESC",
        )
        .bind(outbox)
        .fetch_all(&self.app)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(instance, state, reason, seconds)| {
                let asked = match state.as_str() {
                    "committed" => Asked::Committed,
                    "failed" => {
                        Asked::Failed(reason.and_then(|code| u16::try_from(code).ok()).unwrap_or(0x0110))
                    }
                    _ => Asked::Waiting(Duration::from_secs_f64(seconds.max(0.0))),
                };
                (instance, asked)
            })
            .collect())
    }
}
