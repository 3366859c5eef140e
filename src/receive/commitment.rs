//! Storage commitment: which instances are kept, whoever asks and over which protocol.
//!
//! An instance is committed to when it is stored under its SOP class and its file is in the archive in full.
//! Over HTTP a request is written down before it is looked at, so that its answer can be fetched later, even after a crash;
//! the answer is committed with its row of the trail.
//!
//! Source: PS3.4 annex J; PS3.3 section C.14.1.1; PS3.18 chapter 13.

use super::{ReceiveError, Receiver};
use crate::{
    archive::Archive,
    db::{
        self, Db,
        audit::{self, Act},
        commitment::{self as rows, Kept, Report, Requested},
        error::DbError,
    },
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;

/// FailureReason: the instance is here, and not in full.
pub const PROCESSING_FAILURE: u16 = 0x0110;
/// FailureReason: nothing is stored under that UID.
pub const NO_SUCH_INSTANCE: u16 = 0x0112;
/// FailureReason: it is stored under another SOP class.
pub const CLASS_INSTANCE_CONFLICT: u16 = 0x0119;
/// Files that are looked at at once.
const LOOKED_AT_ONCE: usize = 8;

/// Why each of these instances (SOP class and instance UID) is not committed to; nothing where it is.
///
/// # Errors
/// When the database does not answer.
pub async fn judge(
    db: &Db,
    archive: &Archive,
    instances: &[(String, String)],
) -> Result<Vec<Option<u16>>, DbError> {
    let uids: Vec<&str> = instances.iter().map(|(_, uid)| uid.as_str()).collect();
    let kept: HashMap<String, Kept> = db
        .kept(&uids)
        .await?
        .into_iter()
        .map(|row| (row.sop_instance_uid.clone(), row))
        .collect();
    Ok(stream::iter(instances.to_vec())
        .map(|(class, uid)| {
            let row = kept.get(&uid).cloned();
            let archive = archive.clone();
            async move { look(&archive, row, &class).await }
        })
        .buffered(LOOKED_AT_ONCE)
        .collect()
        .await)
}

/// Why an instance is not committed to.
async fn look(archive: &Archive, row: Option<Kept>, class: &str) -> Option<u16> {
    let Some(row) = row else {
        return Some(NO_SUCH_INSTANCE);
    };
    if row.sop_class_uid != class {
        return Some(CLASS_INSTANCE_CONFLICT);
    }
    match archive.size(&row.archive_key).await {
        Ok(size) if i64::try_from(size) == Ok(row.size_bytes) => None,
        Ok(_) | Err(_) => {
            tracing::error!(
                sop_instance_uid = row.sop_instance_uid,
                "an instance of the index is not in the archive in full; it is not committed to"
            );
            Some(PROCESSING_FAILURE)
        }
    }
}

/// What the trail says of an answer.
#[must_use]
pub fn detail(transaction_uid: &str, instances: &[(String, String)], failures: &[Option<u16>]) -> Value {
    let failed: Vec<Value> = instances
        .iter()
        .zip(failures)
        .filter_map(|((_, uid), reason)| {
            let reason = format!("{:04X}", (*reason)?);
            Some(json!({ "sop_instance_uid": uid, "failure_reason": reason }))
        })
        .collect();
    json!({
        "transaction_uid": transaction_uid,
        "committed": instances.len() - failed.len(),
        "failed": failed,
    })
}

/// The answer as it is kept among all that was promised.
fn report(transaction_uid: &str, asked: &Requested, failures: &[Option<u16>]) -> Report {
    let (mut committed, mut failed) = (Vec::new(), Vec::new());
    for ((class, uid), reason) in asked.instances.iter().cloned().zip(failures) {
        match reason {
            None => committed.push((class, uid)),
            Some(reason) => failed.push((class, uid, *reason)),
        }
    }
    Report {
        id: Uuid::new_v4(),
        principal: asked.principal.clone(),
        transaction_uid: transaction_uid.to_owned(),
        committed,
        failed,
    }
}

impl Receiver {
    /// Writes a request down; false when its Transaction UID is in use.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ask_commitment(
        &self,
        transaction_uid: &str,
        instances: &[(String, String)],
        principal: &str,
    ) -> Result<bool, ReceiveError> {
        let mut tx = self.db.begin().await?;
        let is_new = rows::put_request(&mut tx, transaction_uid, instances, principal).await?;
        db::commit(tx).await?;
        Ok(is_new)
    }

    /// Answers a request that was written down, or says again what was answered; nothing when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn commitment(&self, transaction_uid: &str) -> Result<Option<Requested>, ReceiveError> {
        let Some(mut asked) = self.db.commitment_request(transaction_uid).await? else {
            return Ok(None);
        };
        if asked.failures.is_none() {
            let failures = judge(&self.db, &self.archive, &asked.instances).await?;
            let report = report(transaction_uid, &asked, &failures);
            let mut tx = self.db.begin().await?;
            // Somebody else may have looked meanwhile: the first answer holds.
            if rows::answer_request(&mut tx, &report, &failures).await? {
                let act = Act {
                    principal: &asked.principal,
                    act: "commit",
                    studies: Vec::new(),
                    detail: detail(transaction_uid, &asked.instances, &failures),
                };
                audit::append(&mut tx, &act).await?;
                db::commit(tx).await?;
                asked.failures = Some(failures.into());
            } else {
                return Ok(self.db.commitment_request(transaction_uid).await?);
            }
        }
        Ok(Some(asked))
    }
}
