//! `POST /api/series/{series}/complete`: someone knows that nothing more comes.

use crate::http::{
    App,
    auth::Principal,
    dicomweb,
    error::{HttpError, Problem},
};
use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;

/// An answer that says no more than its status.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {}

/// Takes a series to be complete: its study is analysed now.
#[utoipa::path(
    post, path = "/api/series/{series}/complete", tag = "page",
    params(("series" = String, Path, description = "SeriesInstanceUID")),
    responses(
        (status = 202, description = "the analysis is queued", body = Accepted),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "no such series", body = Problem),
    )
)]
pub(crate) async fn complete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(series): Path<String>,
) -> Result<(StatusCode, Json<Accepted>), HttpError> {
    let series = dicomweb::uid(&series, "SeriesInstanceUID")?;
    let done = app.receiver.complete(&series, &principal.name).await;
    if done.map_err(|error| HttpError::of(error.class(), "completing a series", error))? {
        Ok((StatusCode::ACCEPTED, Json(Accepted {})))
    } else {
        Err(HttpError::NotFound("no series of this UID is stored".to_owned()))
    }
}
