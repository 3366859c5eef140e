//! Removes archived files that nothing refers to: what a request left that was never acknowledged.
//!
//! A transaction that acknowledges holds the other side of the sweep lock and makes sure of its files under it, so a file cannot go between being kept and being indexed.

use super::{ReceiveError, Receiver};
use crate::{
    archive::ArchiveError,
    db::{
        self, Tx,
        audit::{self, Act},
        index,
    },
};
use futures::TryStreamExt;
use serde_json::json;
use std::time::{Duration, SystemTime};

/// Younger files may belong to a request under way.
pub(super) const MIN_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Files looked at in one transaction: short enough that nobody who stores waits for long.
const CHUNK: usize = 200;

/// Removes what is unreferenced and at least `min_age` old. Says how many.
pub(super) async fn unreferenced(receiver: &Receiver, min_age: Duration) -> Result<usize, ReceiveError> {
    let now = SystemTime::now();
    let old: Vec<String> = receiver
        .archive
        .kept()
        .try_filter(|kept| {
            let is_old = now
                .duration_since(kept.written_at)
                .is_ok_and(|age| age >= min_age);
            std::future::ready(is_old)
        })
        .map_ok(|kept| kept.key)
        .try_collect()
        .await?;
    let mut removed = 0;
    for keys in old.chunks(CHUNK) {
        let mut tx = receiver.db.begin().await?;
        index::lock_sweep(&mut tx).await?;
        let swept = remove(receiver, &mut tx, keys).await?;
        if swept.removed.is_empty() {
            continue;
        }
        removed += swept.removed.len();
        let act = Act {
            principal: "ictus",
            act: "remove",
            studies: Vec::new(),
            detail: json!({ "policy": "unreferenced for a day", "objects": swept.removed }),
        };
        audit::append(&mut tx, &act).await?;
        db::commit(tx).await?;
    }
    Ok(removed)
}

/// What became of files that nothing refers to.
struct Swept {
    /// They are gone.
    removed: Vec<String>,
    /// So many could not be removed, and are left to the next sweep.
    left: usize,
}

/// Removes those of these files that the index does not need; under the sweep lock. One that cannot be removed now does not
/// hold up the others.
async fn remove(receiver: &Receiver, tx: &mut Tx, keys: &[String]) -> Result<Swept, ReceiveError> {
    let mut swept = Swept {
        removed: Vec::new(),
        left: 0,
    };
    for file in index::unreferenced(tx, keys).await? {
        match discard(receiver, &file).await {
            Ok(()) => swept.removed.push(file.key),
            Err(error) => {
                tracing::warn!(%error, "a file of the archive cannot be removed now; it is left to the next sweep");
                swept.left += 1;
            }
        }
    }
    Ok(swept)
}

/// Removes those of these files that the index does not need; how many are left.
pub(super) async fn delete(receiver: &Receiver, keys: &[String]) -> Result<usize, ReceiveError> {
    let mut left = 0;
    for keys in keys.chunks(CHUNK) {
        let mut tx = receiver.db.begin().await?;
        index::lock_sweep(&mut tx).await?;
        left += remove(receiver, &mut tx, keys).await?.left;
        db::commit(tx).await?;
    }
    Ok(left)
}

/// Removes a file; of an evicted one word is left.
async fn discard(receiver: &Receiver, file: &index::Unreferenced) -> Result<(), ArchiveError> {
    if file.evicted {
        receiver.archive.evict(&file.key).await
    } else {
        receiver.archive.remove(&file.key).await
    }
}
