//! `/api/figures`: how the machine did against its readers, the cases behind each number, and what to label next.

use super::worklist::read;
use crate::{
    db::{
        error::DbError,
        figures::{Behind, Candidate, Case, Figures, Span},
    },
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

/// The most studies of one answer.
const MAX_LIMIT: u32 = 1000;
/// Studies when nobody says how many.
const DEFAULT_LIMIT: u32 = 100;

/// How many studies.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Most {
    /// At most so many, up to 1000.
    limit: Option<u32>,
}

impl Most {
    fn limit(&self) -> i64 {
        i64::from(self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT))
    }
}

/// How the machine did against its readers so far: numbers only.
#[utoipa::path(
    get, path = "/api/figures", tag = "page", params(Span),
    responses(
        (status = 200, description = "the figures", body = Figures),
        (status = 400, description = "a day is not YYYY-MM-DD", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn get(
    State(app): State<App>,
    Query(span): Query<Span>,
) -> Result<Json<Figures>, HttpError> {
    Ok(Json(app.db.figures(span).await.map_err(failed)?))
}

/// The cases behind a number.
#[utoipa::path(
    get, path = "/api/figures/cases", tag = "page", params(Behind, Span, Most),
    responses(
        (status = 200, description = "the studies, the latest judged first", body = Vec<Case>),
        (status = 400, description = "a parameter is not what it should be", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn cases(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(behind): Query<Behind>,
    Query(span): Query<Span>,
    Query(most): Query<Most>,
) -> Result<Json<Vec<Case>>, HttpError> {
    let cases = app.db.figure_cases(span, &behind, most.limit()).await;
    let cases = cases.map_err(failed)?;
    let studies = cases.iter().map(|case| case.study_instance_uid.clone());
    read(&app, &principal, studies.collect()).await?;
    Ok(Json(cases))
}

/// Studies that nobody has read, those first whose label would teach most.
#[utoipa::path(
    get, path = "/api/figures/label-next", tag = "page", params(Most),
    responses(
        (status = 200, description = "the studies, taking turns between the lanes", body = Vec<Candidate>),
        (status = 400, description = "a parameter is not what it should be", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn label_next(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(most): Query<Most>,
) -> Result<Json<Vec<Candidate>>, HttpError> {
    let found = app.db.label_next(most.limit()).await.map_err(failed)?;
    let studies = found.iter().map(|one| one.study_instance_uid.clone());
    read(&app, &principal, studies.collect()).await?;
    Ok(Json(found))
}

fn failed(error: DbError) -> HttpError {
    HttpError::of(error.class(), "reading the figures", error)
}
