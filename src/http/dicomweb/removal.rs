//! `DELETE` of a study, a series or an instance: an extension, for admins who have signed in.
//!
//! The guard lets nobody else through; what stands against a removal is [`crate::receive::removal`]'s to say.

use crate::{
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
    receive::removal::{RemovalError, Removed, Target},
};
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Why, and what of the undelivered.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Why {
    /// `retention_expired`, `erasure_request`, `wrong_patient`, `duplicate`, `poor_quality` or `test_data`.
    reason: Option<String>,
    /// `discard` gives up what was not delivered or acknowledged; otherwise it stands against the removal.
    undelivered: Option<String>,
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Removal {
    /// Instances.
    instances: usize,
    /// Bytes of their files.
    bytes: i64,
    /// Files that are deleted within a day only.
    files_left: usize,
}

impl From<Removed> for Removal {
    fn from(removed: Removed) -> Self {
        Self {
            instances: removed.instances,
            bytes: removed.bytes,
            files_left: removed.files_left,
        }
    }
}

async fn remove(
    app: &App,
    principal: &Principal,
    [study, series, instance]: [Option<&str>; 3],
    why: Why,
) -> Result<Json<Removal>, HttpError> {
    let uid = |text: Option<&str>, name| text.map(|text| super::uid(text, name)).transpose();
    let discard_undelivered = match why.undelivered.as_deref() {
        None => false,
        Some("discard") => true,
        Some(_) => {
            return Err(HttpError::BadRequest(
                "undelivered takes `discard`, or is left out".to_owned(),
            ));
        }
    };
    let target = Target {
        study: super::uid(study.unwrap_or_default(), "StudyInstanceUID")?,
        series: uid(series, "SeriesInstanceUID")?,
        instance: uid(instance, "SOPInstanceUID")?,
        reason: why.reason.unwrap_or_default(),
        discard_undelivered,
    };
    match app.receiver.remove(&target, &principal.name).await {
        Ok(removed) => Ok(Json(removed.into())),
        Err(error @ RemovalError::Refused(_)) => Err(HttpError::Conflict(error.to_string())),
        Err(error @ RemovalError::Unknown) => Err(HttpError::NotFound(error.to_string())),
        Err(error) => Err(HttpError::of(error.class(), "removing", error)),
    }
}

/// Removes a study with everything that was made of it.
#[utoipa::path(
    delete, path = "/dicom-web/studies/{study}", tag = "operation", operation_id = "remove_study",
    params(("study" = String, Path, description = "StudyInstanceUID"), Why),
    responses(
        (status = 200, description = "it is removed, files included", body = Removal),
        (status = 400, description = "no reason, or none that is known", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only an admin who has signed in may", body = Problem),
        (status = 404, description = "nothing is stored under that UID", body = Problem),
        (status = 409, description = "it is being analysed, or its results are not delivered", body = Problem),
    )
)]
pub(crate) async fn study(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    Query(why): Query<Why>,
) -> Result<Json<Removal>, HttpError> {
    remove(&app, &principal, [Some(&study), None, None], why).await
}

/// Removes a series; what is left is analysed again.
#[utoipa::path(
    delete, path = "/dicom-web/studies/{study}/series/{series}", tag = "operation", operation_id = "remove_series",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
        Why,
    ),
    responses(
        (status = 200, description = "it is removed, files included", body = Removal),
        (status = 400, description = "no reason, or none that is known", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only an admin who has signed in may", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 409, description = "the study is being analysed, its results are not delivered, or it is a result", body = Problem),
    )
)]
pub(crate) async fn series(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series)): Path<(String, String)>,
    Query(why): Query<Why>,
) -> Result<Json<Removal>, HttpError> {
    remove(&app, &principal, [Some(&study), Some(&series), None], why).await
}

/// Removes an instance; what is left is analysed again.
#[utoipa::path(
    delete, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}", tag = "operation",
    operation_id = "remove_instance",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
        ("instance" = String, Path, description = "SOPInstanceUID"),
        Why,
    ),
    responses(
        (status = 200, description = "it is removed, files included", body = Removal),
        (status = 400, description = "no reason, or none that is known", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only an admin who has signed in may", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 409, description = "the study is being analysed, its results are not delivered, or it is a result", body = Problem),
    )
)]
pub(crate) async fn instance(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series, instance)): Path<(String, String, String)>,
    Query(why): Query<Why>,
) -> Result<Json<Removal>, HttpError> {
    let named = [
        Some(study.as_str()),
        Some(series.as_str()),
        Some(instance.as_str()),
    ];
    remove(&app, &principal, named, why).await
}
