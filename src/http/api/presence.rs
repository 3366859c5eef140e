//! `/api/studies/{study}/presence`: people who have one study open are told of each other.

use crate::{
    db::{error::DbError, presence::Present},
    http::{
        App,
        auth::Principal,
        dicomweb,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::ToSchema;

/// What a page says of its reader.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Here {
    /// Whether the reader has a mask in the hand.
    drawing: bool,
}

/// Says that the study is open, to be said again every 15 seconds, and asks who else is there.
#[utoipa::path(
    post, path = "/api/studies/{study}/presence", tag = "page", request_body = Here,
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "the others", body = Vec<Present>),
        (status = 400, description = "path or body is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "nobody signed in", body = Problem),
        (status = 404, description = "no such study", body = Problem),
    )
)]
pub(crate) async fn tell(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    body: Result<Json<Here>, JsonRejection>,
) -> Result<Json<Vec<Present>>, HttpError> {
    let account = person(&principal)?;
    let study = dicomweb::uid(&study, "StudyInstanceUID")?;
    let Json(Here { drawing }) =
        body.map_err(|_| HttpError::BadRequest("the body must be JSON with `drawing`".to_owned()))?;
    let others = app.db.be_present(&study, account, drawing).await;
    let others = others.map_err(failed)?;
    others
        .map(Json)
        .ok_or_else(|| HttpError::NotFound("no study of this UID is stored".to_owned()))
}

/// Says that the study was closed.
#[utoipa::path(
    delete, path = "/api/studies/{study}/presence", tag = "page",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 204, description = "noted"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "nobody signed in", body = Problem),
    )
)]
pub(crate) async fn leave(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
) -> Result<StatusCode, HttpError> {
    let account = person(&principal)?;
    let study = dicomweb::uid(&study, "StudyInstanceUID")?;
    app.db.leave(&study, account).await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

fn person(principal: &Principal) -> Result<i64, HttpError> {
    let account = principal.account.as_deref().map(|account| account.id);
    account
        .ok_or_else(|| HttpError::Forbidden("only people are told of each other: sign in first".to_owned()))
}

fn failed(error: DbError) -> HttpError {
    HttpError::of(error.class(), "saying who is there", error)
}
