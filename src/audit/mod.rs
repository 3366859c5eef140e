//! The trail of acts, judged and handed out: rows → whether the chain holds, and JSON lines.
//!
//! A row that was changed, taken out, put in or moved breaks the chain at its place; rows missing at the end show by the head.
//! What this cannot see is a trail that was rewritten from some row to its end with its head, so the head's hash should be noted outside now and then.
//! Writing is `db::audit::append`, within the transaction of the act.

use crate::{
    db::{
        Db,
        audit::{AuditEntry, AuditRow},
        error::DbError,
    },
    domain::{
        failure::FailureClass,
        phi::{Redacted, redact},
    },
};
use std::io::Write;

/// Rows read at once.
const PAGE: i64 = 1000;

/// Why the trail could not be read or handed out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The database failed.
    #[error("the audit trail cannot be read")]
    Db(#[from] DbError),
    /// The output failed.
    #[error("the audit trail cannot be written out; check the output and its space")]
    Output(#[source] Redacted),
}

impl AuditError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            Self::Output(_) => FailureClass::Transient,
        }
    }
}

/// The judgement of [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that hold, from the first.
    pub rows: i64,
    /// Hash of the last row that holds, hexadecimal: what to note outside.
    pub hash: String,
    /// The first place where the chain does not hold.
    pub fault: Option<Fault>,
}

/// Where and how the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A number is missing or out of place.
    #[error("row {expected} is missing: row {found} follows")]
    Gap {
        /// The number that should be there.
        expected: i64,
        /// The number that is.
        found: i64,
    },
    /// A row does not follow from the row before.
    #[error("row {0} does not continue the row before: one of them was replaced")]
    Link(i64),
    /// A row's content is not what was hashed.
    #[error("row {0} was changed after it was written")]
    Content(i64),
    /// Rows at the end are missing, or the head was changed.
    #[error("the trail ends at row {last}, its head says {head}")]
    End {
        /// Last row.
        last: i64,
        /// Number in the head.
        head: i64,
    },
}

/// Walks the whole chain up to the head as it is now.
///
/// # Errors
/// When the database does not answer; a broken chain is a verdict, not an error.
pub async fn verify(db: &Db) -> Result<Verdict, AuditError> {
    let (head, head_hash) = db.audit_head().await?;
    let (mut rows, mut hash) = (0, vec![0; 32]);
    let verdict = |rows, hash: &[u8], fault| Verdict {
        rows,
        hash: hex::encode(hash),
        fault,
    };
    loop {
        let page = db.audit_rows(rows, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for row in page {
            if let Some(fault) = judge(&row, rows, &hash) {
                return Ok(verdict(rows, &hash, Some(fault)));
            }
            (rows, hash) = (row.seq, row.hash);
            if rows == head && hash != head_hash {
                return Ok(verdict(rows, &hash, Some(Fault::End { last: rows, head })));
            }
        }
    }
    // More rows than the head had when we looked are acts meanwhile, and hold like the others.
    let fault = (rows < head).then_some(Fault::End { last: rows, head });
    Ok(verdict(rows, &hash, fault))
}

fn judge(row: &AuditRow, last: i64, hash: &[u8]) -> Option<Fault> {
    if row.seq != last + 1 {
        return Some(Fault::Gap {
            expected: last + 1,
            found: row.seq,
        });
    }
    if row.prev_hash != hash {
        return Some(Fault::Link(row.seq));
    }
    (row.hash != row.expected_hash()).then_some(Fault::Content(row.seq))
}

/// Writes the whole trail as JSON lines, oldest first. Says how many.
///
/// # Errors
/// When the database does not answer or the output fails.
pub async fn export(db: &Db, out: &mut (impl Write + Send)) -> Result<i64, AuditError> {
    let (mut last, mut rows) = (0, 0);
    loop {
        let page = db.audit_rows(last, PAGE).await?;
        let Some(end) = page.last() else { return Ok(rows) };
        last = end.seq;
        for row in page {
            write_line(out, row).map_err(|error| AuditError::Output(redact(&error)))?;
            rows += 1;
        }
    }
}

fn write_line(out: &mut impl Write, row: AuditRow) -> std::io::Result<()> {
    let studies = row.studies.clone();
    let mut line = serde_json::to_value(AuditEntry::from(row))?;
    line["studies"] = studies.into();
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn row(seq: i64, prev_hash: &[u8]) -> AuditRow {
        let mut row = AuditRow {
            seq,
            at: OffsetDateTime::UNIX_EPOCH,
            principal: "key".to_owned(),
            act: "store".to_owned(),
            studies: vec!["1.2".to_owned()],
            detail: "{}".to_owned(),
            prev_hash: prev_hash.to_vec(),
            hash: Vec::new(),
        };
        row.hash = row.expected_hash().to_vec();
        row
    }

    #[test]
    fn names_the_way_in_which_a_row_does_not_hold() {
        let first = row(1, &[0; 32]);
        assert_eq!(judge(&first, 0, &[0; 32]), None);
        assert_eq!(
            judge(&row(3, &first.hash), 1, &first.hash),
            Some(Fault::Gap {
                expected: 2,
                found: 3
            })
        );
        assert_eq!(judge(&row(2, &[7; 32]), 1, &first.hash), Some(Fault::Link(2)));
        let mut changed = row(2, &first.hash);
        changed.detail = "{ }".to_owned();
        assert_eq!(judge(&changed, 1, &first.hash), Some(Fault::Content(2)));
    }
}
