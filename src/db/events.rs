//! Postgres NOTIFY → one tokio broadcast channel a process: what the page shows live and the worker stops for.
//!
//! Channel `ictus_study` tells that a study changed, `ictus_cancel` that an analysis is to stop, `ictus_workitem` that there
//! are event reports of workitems.
//! A notification is a hint to look again, never the only copy of something:
//! after a lost connection [`Event::Missed`] tells every listener to look at everything.

use super::{Db, Tx, error::DbError, worklist::Progress};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use std::time::Duration;
use tokio::sync::broadcast;

const STUDY_CHANNEL: &str = "ictus_study";
const CANCEL_CHANNEL: &str = "ictus_cancel";
const WORKITEM_CHANNEL: &str = "ictus_workitem";
/// Events that a slow listener may lag behind; it then gets `Lagged` and looks at everything.
const CAPACITY: usize = 1024;
/// Pause before listening again after the connection was lost.
const RECONNECT: Duration = Duration::from_secs(1);

/// Something happened in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A study changed.
    Study(StudyEvent),
    /// Someone asked this analysis to stop.
    Cancel(uuid::Uuid),
    /// A workitem changed, or there are event reports to be sent.
    Workitem,
    /// Notifications may have been lost: look at everything again.
    Missed,
}

/// A study changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyEvent {
    /// Which.
    pub study_instance_uid: String,
    /// Its state as the worklist words it.
    pub state: String,
    /// The analysis under way, if any.
    pub progress: Option<Progress>,
}

/// A handle on the broadcast; clones share it.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Events {
    /// A new listener; it sees what happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

impl Db {
    /// Starts listening; the task ends with the last handle.
    ///
    /// # Errors
    /// When the first connection fails; later losses are repaired.
    pub async fn listen(&self) -> Result<Events, DbError> {
        let (sender, _) = broadcast::channel(CAPACITY);
        let mut listener = self.listener().await?;
        let (db, weak) = (self.clone(), sender.downgrade());
        tokio::spawn(async move {
            loop {
                let received = tokio::select! {
                    received = listener.try_recv() => received,
                    () = ended(&weak) => return,
                };
                let Some(sender) = weak.upgrade() else { return };
                match received {
                    Ok(Some(notification)) => {
                        if let Some(event) = parse(notification.channel(), notification.payload()) {
                            // No listener at the moment is no fault.
                            let _ = sender.send(event);
                        }
                    }
                    // The connection was lost; sqlx makes a new one with the next call.
                    Ok(None) => drop(sender.send(Event::Missed)),
                    Err(error) => {
                        tracing::warn!(error = %DbError::from(error), "listening was interrupted");
                        drop(sender);
                        tokio::time::sleep(RECONNECT).await;
                        if let Ok(again) = db.listener().await {
                            listener = again;
                            if let Some(sender) = weak.upgrade() {
                                let _ = sender.send(Event::Missed);
                            }
                        }
                    }
                }
            }
        });
        Ok(Events(sender))
    }

    async fn listener(&self) -> Result<PgListener, DbError> {
        let mut listener = PgListener::connect_with(&self.app).await?;
        listener
            .listen_all([STUDY_CHANNEL, CANCEL_CHANNEL, WORKITEM_CHANNEL])
            .await?;
        Ok(listener)
    }
}

/// Comes back when nobody holds the broadcast any more.
async fn ended(weak: &broadcast::WeakSender<Event>) {
    while weak.upgrade().is_some() {
        tokio::time::sleep(RECONNECT).await;
    }
}

fn parse(channel: &str, payload: &str) -> Option<Event> {
    match channel {
        STUDY_CHANNEL => serde_json::from_str(payload).ok().map(Event::Study),
        CANCEL_CHANNEL => payload.parse().ok().map(Event::Cancel),
        WORKITEM_CHANNEL => Some(Event::Workitem),
        _ => None,
    }
}

/// Notes that a study changed, and tells so.
///
/// # Errors
/// When a statement fails.
pub(super) async fn touch_study(tx: &mut Tx, study_id: i64) -> Result<(), DbError> {
    sqlx::query("UPDATE study SET updated_at = clock_timestamp() WHERE id = $1")
        .bind(study_id)
        .execute(&mut **tx)
        .await?;
    notify_study(tx, study_id).await
}

/// Tells that a study changed, with the state that it has in this transaction; heard only if the transaction commits.
///
/// # Errors
/// When the statement fails.
pub async fn notify_study(tx: &mut Tx, study_id: i64) -> Result<(), DbError> {
    sqlx::query(
        "SELECT pg_notify($1, json_build_object('study_instance_uid', study_instance_uid, 'state', state, \
         'progress', CASE WHEN progress_since IS NOT NULL THEN json_build_object('done', progress_done, \
         'total', progress_total, 'since', to_char(progress_since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')) \
         END)::text) FROM study_state WHERE study_id = $2",
    )
    .bind(STUDY_CHANNEL)
    .bind(study_id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Tells the worker that runs it that an analysis is to stop.
///
/// # Errors
/// When the statement fails.
pub async fn notify_cancel(tx: &mut Tx, analysis: uuid::Uuid) -> Result<(), DbError> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CANCEL_CHANNEL)
        .bind(analysis.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Tells that a workitem changed.
///
/// # Errors
/// When the statement fails.
pub async fn notify_workitem(tx: &mut Tx) -> Result<(), DbError> {
    sqlx::query("SELECT pg_notify($1, '')")
        .bind(WORKITEM_CHANNEL)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
