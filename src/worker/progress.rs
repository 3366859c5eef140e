//! The reins between an analysis on its own thread and the database.
//!
//! Progress goes out at most twice a second; the wish to stop comes in by NOTIFY and, should one be lost, by the answer to each progress.
//! When the watch is dropped, because the server stops, the analysis is told to stop too: its thread cannot be ended from outside.

use super::Run;
use crate::{
    db::{self, analysis, error::DbError, events::Event},
    domain::network::Control,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::broadcast::error::RecvError,
    task::{JoinError, JoinHandle},
};

/// Time between two looks at the database.
const TICK: Duration = Duration::from_millis(500);

/// Shared with the thread of the analysis.
#[derive(Debug, Default)]
pub(super) struct Reins {
    stop: AtomicBool,
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Control for Reins {
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn progress(&self, done: usize, total: usize) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
}

/// Watches one analysis.
pub(super) struct Watch(Arc<Reins>);

impl Watch {
    pub(super) fn new(stop: bool) -> Self {
        let reins = Reins::default();
        reins.stop.store(stop, Ordering::Relaxed);
        Self(Arc::new(reins))
    }

    pub(super) fn control(&self) -> Arc<Reins> {
        self.0.clone()
    }

    /// Whether someone asked it to stop; while the watch lives nothing else stops it.
    pub(super) fn stopped_by_request(&self) -> bool {
        self.0.cancelled()
    }

    /// Waits for the analysis, telling the database how far it is and it whether to go on.
    pub(super) async fn until<T>(&self, run: &Run<'_>, mut analysis: JoinHandle<T>) -> Result<T, JoinError> {
        let mut events = run.worker.events.subscribe();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                ended = &mut analysis => return ended,
                _ = tick.tick() => match self.report(run).await {
                    Ok(true) => self.stop(),
                    Ok(false) => {}
                    // The next tick tries again; the analysis itself does not need the database.
                    Err(error) => tracing::warn!(%error, "progress could not be recorded"),
                },
                event = events.recv() => match event {
                    Ok(Event::Cancel(id)) if id == run.running.id => self.stop(),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return analysis.await,
                },
            }
        }
    }

    async fn report(&self, run: &Run<'_>) -> Result<bool, DbError> {
        let steps = |steps: &AtomicUsize| i32::try_from(steps.load(Ordering::Relaxed)).unwrap_or(i32::MAX);
        let mut tx = run.worker.db.begin().await?;
        let stop =
            analysis::progress(&mut tx, run.running, steps(&self.0.done), steps(&self.0.total)).await?;
        db::commit(tx).await?;
        Ok(stop)
    }

    fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}
