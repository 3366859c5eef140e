//! `GET /api/worklist`: a page of studies, flagged first.

use crate::{
    db::worklist::Worklist,
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension, Json,
    extract::{Query, State},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// Studies of a page when nobody says how many.
const DEFAULT_LIMIT: u32 = 100;
/// The most studies of one page.
const MAX_LIMIT: u32 = 1000;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// At most so many studies, up to 1000.
    limit: Option<u32>,
    /// Skip so many.
    offset: Option<u32>,
}

/// Lists studies: flagged, uncertain, failed or under way, not flagged; newest first in each.
#[utoipa::path(
    get, path = "/api/worklist", tag = "page", params(Page),
    responses(
        (status = 200, description = "the studies of the page", body = Worklist),
        (status = 400, description = "limit or offset is no whole number", body = Problem),
        (status = 401, description = "no known key", body = Problem),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(page): Query<Page>,
) -> Result<Json<Worklist>, HttpError> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let found = app
        .db
        .worklist(i64::from(limit), i64::from(page.offset.unwrap_or(0)))
        .await;
    let worklist = found.map_err(|error| HttpError::of(error.class(), "reading the worklist", error))?;
    let studies = worklist
        .studies
        .iter()
        .map(|study| study.study_instance_uid.clone())
        .collect();
    let audited = app.db.audit_reads(&principal.name, studies).await;
    audited.map_err(|error| HttpError::of(error.class(), "auditing a read", error))?;
    Ok(Json(worklist))
}
