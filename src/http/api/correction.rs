//! `/api/studies/{study}/corrections`: masks that readers drew.

use crate::{
    db::correction::CorrectionRow,
    http::{
        App,
        auth::Principal,
        body, dicomweb,
        error::{HttpError, Problem},
    },
    review::{
        ReviewError,
        correction::{self, Mask},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::StatusCode,
};

/// Runs of a ragged mask on every slice of a thin stack take some megabytes.
const LONGEST_BODY: usize = 32 << 20;

/// The masks that readers drew on a study, oldest first.
#[utoipa::path(
    get, path = "/api/studies/{study}/corrections", tag = "page",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "the masks; each Segmentation is retrieved over DICOMweb", body = Vec<CorrectionRow>),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
) -> Result<Json<Vec<CorrectionRow>>, HttpError> {
    let study = dicomweb::uid(&study, "StudyInstanceUID")?;
    let found = app.db.corrections(&study).await;
    let rows = found.map_err(|error| HttpError::of(error.class(), "reading corrections", error))?;
    super::study::read(&app, &principal, &study).await?;
    Ok(Json(rows))
}

/// Saves a reader's mask as a Segmentation beside the machine's.
#[utoipa::path(
    post, path = "/api/studies/{study}/corrections", tag = "page", request_body = Mask,
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 201, description = "saved, with its Segmentation and its row in the trail; or the reader's latest, if it is the same", body = CorrectionRow),
        (status = 400, description = "the mask does not fit the slices of the analysis, or holds nothing", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only a radiologist who signed in corrects", body = Problem),
        (status = 404, description = "the study has no answer", body = Problem),
        (status = 409, description = "the answer was revised meanwhile", body = Problem),
        (status = 413, description = "the body is longer than 32 MiB", body = Problem),
    )
)]
pub(crate) async fn save(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<CorrectionRow>), HttpError> {
    let study = dicomweb::uid(&study, "StudyInstanceUID")?;
    let reader = principal.account.as_deref().ok_or_else(|| {
        let text =
            "a correction is a person's: sign in with a radiologist's account (`ictus account create`)";
        HttpError::Forbidden(text.to_owned())
    })?;
    let mask: Mask = body::json(request.into_body(), LONGEST_BODY).await?;
    let row = correction::save(&app.db, &app.archive, reader, &study, mask)
        .await
        .map_err(|error| match error {
            ReviewError::NothingToJudge => HttpError::NotFound(error.to_string()),
            ReviewError::Revised => HttpError::Conflict(error.to_string()),
            other => HttpError::of(other.class(), "saving a correction", other),
        })?;
    Ok((StatusCode::CREATED, Json(row)))
}
