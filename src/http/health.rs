//! `/health/live`, `/health/ready` and `/metrics`: for those who run it.

use super::{
    App,
    error::{HttpError, Problem},
};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// The server's state.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `live` or `ready`.
    pub status: &'static str,
}

/// The process runs.
#[utoipa::path(
    get, path = "/health/live", tag = "operation", security(()),
    responses((status = 200, description = "the process runs", body = Health))
)]
pub(crate) async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// The server can work: its database answers.
#[utoipa::path(
    get, path = "/health/ready", tag = "operation", security(()),
    responses(
        (status = 200, description = "the server can work", body = Health),
        (status = 503, description = "the database does not answer", body = Problem),
    )
)]
pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Health>, HttpError> {
    let answered = app.db.ready().await;
    answered.map_err(|error| HttpError::Unavailable {
        what: "asking the database",
        source: error.into(),
    })?;
    Ok(Json(Health { status: "ready" }))
}

/// Counters in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses(
        (status = 200, description = "counters", body = String, content_type = "text/plain"),
        (status = 401, description = "no known key", body = Problem),
    )
)]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, HttpError> {
    let counted = app.db.count_studies().await;
    let studies = counted.map_err(|error| HttpError::of(error.class(), "counting studies", error))?;
    let counted = app.db.count_deliveries().await;
    let deliveries = counted.map_err(|error| HttpError::of(error.class(), "counting deliveries", error))?;
    let text = app.metrics.text(&studies, &deliveries);
    Ok((
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response())
}
