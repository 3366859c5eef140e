//! `GET /api/version`: which build, which models, and what they are not for.

use crate::{domain::finding::DISCLAIMER, http::App};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

/// A model that this server runs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelVersion {
    /// The plan's id.
    pub id: String,
    /// The plan's version.
    pub version: String,
    /// SHA-256 of its weights, hexadecimal.
    pub weights_sha256: String,
}

/// What runs here.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Version {
    /// Version of ictus.
    pub version: String,
    /// Models; empty when this process does not analyse.
    pub models: Vec<ModelVersion>,
    /// `cpu-{isa}-{dtype}` or `cuda-{sm}-{dtype}`; null when this process does not analyse.
    pub numeric_mode: Option<String>,
    /// Shown wherever a person reads a result.
    pub disclaimer: String,
}

impl Version {
    /// This build with the models that it runs.
    #[must_use]
    pub fn new(models: Vec<ModelVersion>, numeric_mode: Option<String>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            version,
            models,
            numeric_mode,
            disclaimer: DISCLAIMER.to_owned(),
        }
    }
}

/// Which build, which models.
#[utoipa::path(
    get, path = "/api/version", tag = "operation",
    responses(
        (status = 200, description = "what runs here", body = Version),
        (status = 401, description = "no known key", body = crate::http::error::Problem),
    )
)]
pub(crate) async fn get(State(app): State<App>) -> Json<Version> {
    Json((*app.version).clone())
}
