//! `/api/revisions`: instances that came again with other attributes, and a person's decision on them.
//!
//! The list says which attributes differ and not how, since a value may name a patient.

use crate::{
    db::identity::Revision,
    http::{
        App,
        auth::Principal,
        dicomweb,
        error::{HttpError, Problem},
    },
    identity::{self, Decision},
};
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The most revisions of one answer.
const MOST: i64 = 1000;

/// Lists the revisions that nobody has decided on, oldest first; at most 1000.
#[utoipa::path(
    get, path = "/api/revisions", tag = "operation",
    responses(
        (status = 200, description = "the pending revisions", body = Vec<Revision>),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<Vec<Revision>>, HttpError> {
    let found = app.db.pending_revisions(MOST).await;
    Ok(Json(found.map_err(|error| {
        HttpError::of(error.class(), "reading revisions", error)
    })?))
}

/// Which revisions of the series.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Only this instance, by its SOPInstanceUID.
    instance: Option<String>,
}

/// How many revisions were decided on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecidedOn {
    /// Revisions.
    decided: usize,
}

/// Puts the pending revisions of a series in the place of what is in use; the study is analysed again.
#[utoipa::path(
    post, path = "/api/revisions/{series}/accept", tag = "operation",
    params(("series" = String, Path, description = "SeriesInstanceUID"), Which),
    responses(
        (status = 200, description = "they are in use now", body = DecidedOn),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only operators and admins may", body = Problem),
        (status = 404, description = "nothing waits there for a decision", body = Problem),
    )
)]
pub(crate) async fn accept(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(series): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<DecidedOn>, HttpError> {
    decide(&app, &principal, &series, &which, Decision::Accept).await
}

/// Decides against the pending revisions of a series; what is in use stays, and they are kept.
#[utoipa::path(
    post, path = "/api/revisions/{series}/dismiss", tag = "operation",
    params(("series" = String, Path, description = "SeriesInstanceUID"), Which),
    responses(
        (status = 200, description = "they wait no more", body = DecidedOn),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only operators and admins may", body = Problem),
        (status = 404, description = "nothing waits there for a decision", body = Problem),
    )
)]
pub(crate) async fn dismiss(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(series): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<DecidedOn>, HttpError> {
    decide(&app, &principal, &series, &which, Decision::Dismiss).await
}

async fn decide(
    app: &App,
    principal: &Principal,
    series: &str,
    which: &Which,
    decision: Decision,
) -> Result<Json<DecidedOn>, HttpError> {
    let series = dicomweb::uid(series, "SeriesInstanceUID")?;
    let instance = which
        .instance
        .as_deref()
        .map(|text| dicomweb::uid(text, "SOPInstanceUID"))
        .transpose()?;
    let decided = identity::decide(&app.db, &principal.name, &series, instance.as_ref(), decision).await;
    match decided.map_err(|error| HttpError::of(error.class(), "deciding on a revision", error))? {
        0 => Err(HttpError::NotFound(
            "no revision of this series waits for a decision".to_owned(),
        )),
        decided => Ok(Json(DecidedOn { decided })),
    }
}
