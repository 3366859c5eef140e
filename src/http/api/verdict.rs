//! `/api/studies/{study}/verdicts`: what readers say of the machine's answers.

use crate::{
    db::review::VerdictRow,
    domain::uid::Uid,
    http::{
        App,
        auth::Principal,
        dicomweb,
        error::{HttpError, Problem},
    },
    review::{
        ReviewError,
        verdict::{self, Verdict},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};

/// What was said of a study, oldest first.
#[utoipa::path(
    get, path = "/api/studies/{study}/verdicts", tag = "page",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "the verdicts", body = Vec<VerdictRow>),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
) -> Result<Json<Vec<VerdictRow>>, HttpError> {
    let study = dicomweb::uid(&study, "StudyInstanceUID")?;
    let failed = |error: crate::db::error::DbError| HttpError::of(error.class(), "reading verdicts", error);
    let verdicts = app.db.verdicts(&study).await.map_err(failed)?;
    super::study::read(&app, &principal, &study).await?;
    Ok(Json(verdicts))
}

/// Records a reader's verdict.
#[utoipa::path(
    post, path = "/api/studies/{study}/verdicts", tag = "page", request_body = Verdict,
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 201, description = "recorded, with its row in the trail", body = VerdictRow),
        (status = 400, description = "the verdict does not fit the analysis, or lacks its reason", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only a radiologist who signed in gives verdicts", body = Problem),
        (status = 404, description = "the study has no answer", body = Problem),
        (status = 409, description = "the answer was revised meanwhile", body = Problem),
    )
)]
pub(crate) async fn give(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    body: Result<Json<Verdict>, JsonRejection>,
) -> Result<(StatusCode, Json<VerdictRow>), HttpError> {
    let study: Uid = dicomweb::uid(&study, "StudyInstanceUID")?;
    let reader = principal.account.as_deref().ok_or_else(|| {
        let text = "a verdict is a person's: sign in with a radiologist's account (`ictus account create`)";
        HttpError::Forbidden(text.to_owned())
    })?;
    let Json(verdict) = body.map_err(|_| {
        let text = "the body must be JSON with `analysis`, `verdict`, and where they belong `finding`, `reason`, `note`";
        HttpError::BadRequest(text.to_owned())
    })?;
    let row = verdict::give(&app.db, reader, &study, &verdict)
        .await
        .map_err(|error| match error {
            ReviewError::NothingToJudge => HttpError::NotFound(error.to_string()),
            ReviewError::Revised => HttpError::Conflict(error.to_string()),
            other => HttpError::of(other.class(), "recording a verdict", other),
        })?;
    Ok((StatusCode::CREATED, Json(row)))
}
