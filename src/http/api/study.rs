//! `GET /api/studies/{study}` and its audit trail.

use crate::{
    db::{audit::AuditEntry, worklist::StudyDetail},
    domain::uid::Uid,
    http::{
        App,
        auth::Principal,
        dicomweb,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, State},
};

/// One study with its series, its current analysis and its revisions.
#[utoipa::path(
    get, path = "/api/studies/{study}", tag = "page",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "the study", body = StudyDetail),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "no such study", body = Problem),
    )
)]
pub(crate) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
) -> Result<Json<StudyDetail>, HttpError> {
    let study = dicomweb::uid(&study, "StudyInstanceUID")?;
    let found = app.db.study_detail(&study).await;
    let detail = found.map_err(|error| HttpError::of(error.class(), "reading a study", error))?;
    let mut detail = detail.ok_or_else(unknown)?;
    if principal.only.is_some() {
        detail.comparisons.clear();
    }
    read(&app, &principal, &study).await?;
    Ok(Json(detail))
}

/// What was done with a study, by whom, oldest first.
#[utoipa::path(
    get, path = "/api/studies/{study}/audit", tag = "page",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "the rows of the trail", body = Vec<AuditEntry>),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "nothing is known about this study", body = Problem),
    )
)]
pub(crate) async fn audit(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
) -> Result<Json<Vec<AuditEntry>>, HttpError> {
    let study = dicomweb::uid(&study, "StudyInstanceUID")?;
    let failed =
        |error: crate::db::error::DbError| HttpError::of(error.class(), "reading the audit trail", error);
    if app.db.audit_of_study(&study).await.map_err(failed)?.is_empty() {
        return Err(unknown());
    }
    read(&app, &principal, &study).await?;
    // Once more: this read is part of what is shown.
    Ok(Json(app.db.audit_of_study(&study).await.map_err(failed)?))
}

fn unknown() -> HttpError {
    HttpError::NotFound("no study of this UID is stored".to_owned())
}

pub(super) async fn read(app: &App, principal: &Principal, study: &Uid) -> Result<(), HttpError> {
    let audited = app.db.audit_read(&principal.name, study).await;
    audited.map_err(|error| HttpError::of(error.class(), "auditing a read", error))
}
