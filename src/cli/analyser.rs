//! The models of this build → what the worker analyses with, and what `/api/version` says of it.

use ictus::{config::DeviceChoice, http::api::version::Version, worker::Analyser};
use std::sync::Arc;

/// What a process analyses with.
pub(crate) struct Analysers {
    /// Nothing when the process only serves.
    pub(crate) worker: Option<Arc<dyn Analyser>>,
    /// Build and models.
    pub(crate) version: Version,
}

impl Analysers {
    /// For a process that only serves.
    pub(crate) fn none() -> Self {
        Self { worker: None, version: Version::new(Vec::new(), None) }
    }
}

/// Loads the models; the stages are wired in here.
pub(crate) fn load(_device: DeviceChoice) -> anyhow::Result<Analysers> {
    tracing::warn!("no model is wired in: studies are stored and shown, and nothing is analysed");
    Ok(Analysers::none())
}
