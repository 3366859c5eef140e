//! A quota on the archive: what is delivered and routine makes room, and nothing is taken in that would not fit.
//!
//! Whether there is room is asked before a byte is staged; a sender that is refused keeps what it has and sends it again.
//! A study is evicted in two steps: its rows are marked and the trail says so in one commit, and then, under the lock that keeps
//! acknowledging transactions away, the files that still nobody needs are removed; a crash in between leaves files, never
//! rows without.
//! What may go is said by the schema (`evictable`).

use super::{ReceiveError, Receiver, sweep};
use crate::{
    archive::Archive,
    db::{
        self,
        audit::{self, Act},
        cache, index,
    },
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::Notify;

/// How often it is looked whether the archive grew past its quota, when nobody has to be refused.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Eviction begins when this share of the quota is used …
const BEGIN: f64 = 0.95;
/// … and ends at this one, so that it need not begin again with the next instance.
const END: f64 = 0.90;

/// How much the archive may take.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Bytes of files; nothing: as many as there is room for.
    pub bytes: Option<u64>,
    /// Bytes that stay free on the disk.
    pub free_bytes: u64,
}

/// What is known of the room in the archive.
#[derive(Debug)]
pub(super) struct Room {
    quota: Quota,
    /// Bytes of files, as the index last said, and what was staged since.
    used: AtomicU64,
    /// Somebody was refused.
    wanted: Notify,
}

impl Room {
    pub(super) fn new(quota: Quota) -> Self {
        Self {
            quota,
            used: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    /// Whether something may be taken in.
    pub(super) fn admit(&self, archive: &Archive) -> Result<(), ReceiveError> {
        let used = self.used.load(Ordering::Relaxed);
        if let Some(quota) = self.quota.bytes.filter(|quota| used >= *quota) {
            self.wanted.notify_one();
            return Err(ReceiveError::Full(format!(
                "{used} of the {quota} bytes of its quota are in use, and what is not delivered, not analysed or not read stays"
            )));
        }
        let free = archive.free_bytes()?;
        if free < self.quota.free_bytes {
            self.wanted.notify_one();
            return Err(ReceiveError::Full(format!(
                "{free} bytes are free on its disk, of which {} stay free",
                self.quota.free_bytes
            )));
        }
        Ok(())
    }

    /// Counts what was staged.
    pub(super) fn took(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Makes room from time to time, and when somebody was refused; never ends.
pub(super) async fn run(receiver: &Receiver) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = receiver.room.wanted.notified() => {}
        }
        if let Err(error) = make_room(receiver).await {
            tracing::warn!(%error, "making room in the archive failed; it is tried again in half a minute");
        }
    }
}

/// Evicts what may go, the least recently needed study first, until there is room again. Says how many studies.
pub(super) async fn make_room(receiver: &Receiver) -> Result<usize, ReceiveError> {
    let room = &receiver.room;
    let used = receiver.db.kept_bytes().await?;
    room.used.store(used, Ordering::Relaxed);
    let lacking = |used: u64, share: f64| -> Result<bool, ReceiveError> {
        let over = room.quota.bytes.is_some_and(|quota| used >= part(quota, share));
        Ok(over || receiver.archive.free_bytes()? < room.quota.free_bytes)
    };
    // Without a quota nobody has said that anything may go.
    if room.quota.bytes.is_none() || !lacking(used, BEGIN)? {
        return Ok(0);
    }
    let (mut studies, mut used) = (0, used);
    while lacking(used, END)? {
        let Some(study) = receiver.db.next_evictable().await? else {
            tracing::warn!("the archive has used up its quota, and nothing in it may be evicted");
            break;
        };
        used = used.saturating_sub(evict(receiver, &study).await?);
        room.used.store(used, Ordering::Relaxed);
        studies += 1;
    }
    Ok(studies)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a quota, to a few bytes"
)]
fn part(quota: u64, share: f64) -> u64 {
    (quota as f64 * share) as u64
}

/// Evicts one study. Says how many bytes.
async fn evict(receiver: &Receiver, study: &str) -> Result<u64, ReceiveError> {
    let mut tx = receiver.db.begin().await?;
    index::lock_studies(&mut tx, &[study]).await?;
    let evicted = cache::evict(&mut tx, study).await?;
    let keys: BTreeSet<String> = evicted.iter().map(|file| file.archive_key.clone()).collect();
    let bytes = evicted
        .iter()
        .filter_map(|file| u64::try_from(file.size_bytes).ok())
        .sum();
    let act = Act {
        principal: "ictus",
        act: "evict",
        studies: vec![study.to_owned()],
        detail: json!({ "policy": "quota", "bytes": bytes, "objects": keys }),
    };
    audit::append(&mut tx, &act).await?;
    db::commit(tx).await?;
    sweep::delete(receiver, &keys.into_iter().collect::<Vec<_>>()).await?;
    Ok(bytes)
}
