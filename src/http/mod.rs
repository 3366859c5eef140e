//! EDGE: HTTP in → services, state and audit → DICOMweb, the application's API and the page out.
//!
//! Every route but health and the page's own files wants a principal ([`auth`]), every read is in the audit trail
//! before its first byte leaves, and every failure is a problem document ([`error`]).
//! It holds no rules about studies and writes nothing itself: [`crate::receive`] stores, [`crate::db`] reads.
//!
//! Source: PS3.18; RFC 9110; RFC 9457.

pub mod api;
mod assets;
pub mod auth;
mod body;
pub mod cors;
pub mod dicomweb;
pub mod error;
pub mod health;
pub mod metrics;
pub mod openapi;
mod router;

pub use assets::has_page;
pub use router::{document, router};

use crate::{
    archive::Archive,
    config,
    db::{Db, events::Events},
    receive::Receiver,
    review::oidc::Oidc,
};
use axum::serve::ListenerExt;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Answers requests on `listener` until `stop`, then finishes those under way.
///
/// # Errors
/// When the listener fails.
pub async fn run(
    listener: tokio::net::TcpListener,
    router: axum::Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // A head and a body that are written one after the other would wait for each other's acknowledgement, some 40 ms.
    let at_once = listener.tap_io(|stream| {
        let _delayed = stream.set_nodelay(true);
    });
    axum::serve(at_once, router).with_graceful_shutdown(stop).await
}

/// How much a client may send at once, and how long it is kept waiting.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one STOW request.
    pub request_bytes: u64,
    /// Bytes of one instance in it.
    pub part_bytes: u64,
    /// How long a client waits for an answer that it can come back for.
    pub wait: Duration,
}

/// Proxies give up after half a minute.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: config::DEFAULT_MAX_REQUEST_BYTES,
            part_bytes: config::DEFAULT_MAX_INSTANCE_BYTES,
            wait: DEFAULT_WAIT,
        }
    }
}

/// What the handlers work with; clones share everything.
#[derive(Debug, Clone)]
pub struct App {
    /// Index, worklist and audit trail.
    pub db: Db,
    /// Files.
    pub archive: Archive,
    /// Stores what comes in.
    pub receiver: Receiver,
    /// What changes, live.
    pub events: Events,
    /// Counters.
    pub metrics: Arc<metrics::Metrics>,
    /// Build and models.
    pub version: Arc<api::version::Version>,
    /// How much a client may send.
    pub limits: Limits,
    /// The code value by which workitems name this system: its AE title.
    pub station: Arc<str>,
    /// Whose pages may use DICOMweb from their own origin.
    pub allow_origins: Arc<[cors::Origin]>,
    /// Who vouches for people beside local accounts.
    pub oidc: Option<Arc<Oidc>>,
    /// Turns true when the server stops: streams without an end then end.
    pub stopping: watch::Receiver<bool>,
}
