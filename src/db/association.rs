//! The journal of associations: lines that commit with each instance → one row of the trail at the end.
//!
//! [`audit`] may run at any time and by any server: it takes the lines that are not in the trail yet, under the lock of
//! the association's row, so that each line gets into exactly one row of the trail.

use super::{Db, Tx, audit::Act, error::DbError};
use serde_json::{Value, json};
use sqlx::Row;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// How long the journal keeps what is in the trail.
const KEPT_HOURS: i32 = 24;

/// What became of one instance.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// StudyInstanceUID, when it could be read.
    pub study_instance_uid: Option<String>,
    /// SeriesInstanceUID, when it could be read.
    pub series_instance_uid: Option<String>,
    /// SOPInstanceUID, when it could be read.
    pub sop_instance_uid: Option<String>,
    /// Digest of a stored dataset, hexadecimal.
    pub sha256: Option<String>,
    /// `new`, `duplicate`, `pending` or `refused`.
    pub became: String,
    /// Status of a refusal.
    pub failure_reason: Option<i32>,
    /// Why, without patient data.
    pub failure_text: Option<String>,
}

/// Adds a line, and the association's row with the first.
///
/// # Errors
/// When a statement fails.
pub async fn put_line(
    tx: &mut Tx,
    id: Uuid,
    principal: &str,
    detail: &Value,
    line: &Line,
) -> Result<(), DbError> {
    let number: i32 = sqlx::query_scalar(
        "INSERT INTO association (id, principal, detail, last_number) VALUES ($1, $2, $3::json, 1) \
         ON CONFLICT (id) DO UPDATE SET last_number = association.last_number + 1, seen_at = clock_timestamp() \
         RETURNING last_number",
    )
    .bind(id)
    .bind(principal)
    .bind(detail.to_string())
    .fetch_one(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO association_line (association_id, number, study_instance_uid, series_instance_uid, \
         sop_instance_uid, sha256, became, failure_reason, failure_text) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id)
    .bind(number)
    .bind(&line.study_instance_uid)
    .bind(&line.series_instance_uid)
    .bind(&line.sop_instance_uid)
    .bind(&line.sha256)
    .bind(&line.became)
    .bind(line.failure_reason)
    .bind(&line.failure_text)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Puts the lines that are not in the trail yet into it: one row for what was stored and one for what was refused.
///
/// `ended`: how the association ended, in one word.
///
/// # Errors
/// When a statement fails.
pub async fn audit(tx: &mut Tx, id: Uuid, ended: &str) -> Result<(), DbError> {
    let head = sqlx::query(
        "SELECT principal, detail::text AS detail, last_number, audited_number FROM association \
         WHERE id = $1 AND audited_number < last_number FOR UPDATE",
    )
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(head) = head else { return Ok(()) };
    let (last, audited): (i32, i32) = (head.try_get("last_number")?, head.try_get("audited_number")?);
    let principal: String = head.try_get("principal")?;
    let detail: String = head.try_get("detail")?;
    let mut association: Value = serde_json::from_str(&detail).map_err(|_| DbError::Stored("association"))?;
    if let Some(members) = association.as_object_mut() {
        members.insert("id".to_owned(), json!(id));
        members.insert("ended".to_owned(), json!(ended));
    }
    let rows = sqlx::query(
        "SELECT study_instance_uid, series_instance_uid, sop_instance_uid, sha256, became, failure_reason, failure_text \
         FROM association_line WHERE association_id = $1 AND number > $2 AND number <= $3 ORDER BY number",
    )
    .bind(id)
    .bind(audited)
    .bind(last)
    .fetch_all(&mut **tx)
    .await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in &rows {
        lines.push(Line {
            study_instance_uid: row.try_get("study_instance_uid")?,
            series_instance_uid: row.try_get("series_instance_uid")?,
            sop_instance_uid: row.try_get("sop_instance_uid")?,
            sha256: row.try_get("sha256")?,
            became: row.try_get("became")?,
            failure_reason: row.try_get("failure_reason")?,
            failure_text: row.try_get("failure_text")?,
        });
    }
    sqlx::query("UPDATE association SET audited_number = $2 WHERE id = $1")
        .bind(id)
        .bind(last)
        .execute(&mut **tx)
        .await?;
    let (refused, stored): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.became == "refused");
    for (act, lines) in [("store", stored), ("refuse", refused)] {
        if lines.is_empty() {
            continue;
        }
        let mut studies: Vec<String> = lines
            .iter()
            .filter_map(|line| line.study_instance_uid.clone())
            .collect();
        studies.sort_unstable();
        studies.dedup();
        let mut detail = json!({ "association": association });
        if act == "store" {
            detail["series"] = by_series(&lines);
        } else {
            detail["failed"] = lines.iter().map(|line| refusal(line)).collect();
        }
        let act = Act {
            principal: &principal,
            act,
            studies,
            detail,
        };
        super::audit::append(tx, &act).await?;
    }
    Ok(())
}

/// As the row of a STOW request words it.
fn by_series(lines: &[&Line]) -> Value {
    let mut series: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for line in lines {
        let key = (&line.study_instance_uid, &line.series_instance_uid);
        series.entry(key).or_default().push(json!({
            "sop_instance_uid": line.sop_instance_uid,
            "sha256": line.sha256,
            "became": line.became,
        }));
    }
    series
        .into_iter()
        .map(|((study, series), instances)| {
            json!({ "study_instance_uid": study, "series_instance_uid": series, "instances": instances })
        })
        .collect()
}

fn refusal(line: &Line) -> Value {
    json!({
        "sop_instance_uid": line.sop_instance_uid,
        "failure_reason": line.failure_reason.map(|code| format!("{code:04X}")),
        "text": line.failure_text,
    })
}

impl Db {
    /// Associations with lines that are not in the trail, and that nothing was stored on for so long.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unaudited_associations(&self, silent: Duration) -> Result<Vec<Uuid>, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT id FROM association WHERE audited_number < last_number \
             AND seen_at <= clock_timestamp() - make_interval(secs => $1) ORDER BY opened_at",
        )
        .bind(silent.as_secs_f64())
        .fetch_all(&self.app)
        .await?)
    }

    /// Clears the journal of what has been in the trail for a day.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn clear_associations(&self) -> Result<(), DbError> {
        sqlx::query(
            "DELETE FROM association WHERE audited_number = last_number \
             AND seen_at < clock_timestamp() - make_interval(hours => $1)",
        )
        .bind(KEPT_HOURS)
        .execute(&self.owner)
        .await?;
        Ok(())
    }
}
