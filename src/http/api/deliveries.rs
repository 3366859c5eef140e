//! `/api/deliveries`: what goes to the targets, and how far it got.
//!
//! It names studies by their UIDs and holds nothing about a patient.

use crate::{
    db::{
        filing::Acknowledged,
        outbox::{Delivery, Filter, Retried},
    },
    deliver,
    http::{
        App,
        api::series::Accepted,
        auth::Principal,
        dicomweb,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// Deliveries of a page when nobody says how many.
const DEFAULT_LIMIT: u32 = 100;
/// The most deliveries of one page.
const MAX_LIMIT: u32 = 1000;
/// What a delivery can be.
const STATES: [&str; 4] = ["pending", "delivered", "dead", "superseded"];

/// Which page of which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// At most so many, up to 1000.
    limit: Option<u32>,
    /// Skip so many.
    offset: Option<u32>,
    /// Only this state: `pending`, `delivered`, `dead` or `superseded`.
    #[param(example = "dead")]
    state: Option<String>,
    /// Only this target.
    target: Option<String>,
    /// Only this study, by its StudyInstanceUID.
    study: Option<String>,
}

/// Lists deliveries, the latest first.
#[utoipa::path(
    get, path = "/api/deliveries", tag = "operation", params(Page),
    responses(
        (status = 200, description = "the deliveries of the page", body = Vec<Delivery>),
        (status = 400, description = "a parameter is not what it should be", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Delivery>>, HttpError> {
    if let Some(other) = page.state.as_deref().filter(|state| !STATES.contains(state)) {
        let text = format!(
            "`{}` is no state of a delivery; they are {}",
            other.escape_debug(),
            STATES.join(", ")
        );
        return Err(HttpError::BadRequest(text));
    }
    if let Some(study) = &page.study {
        dicomweb::uid(study, "StudyInstanceUID")?;
    }
    let filter = Filter {
        state: page.state,
        target: page.target,
        study_instance_uid: page.study,
    };
    let limit = i64::from(page.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT));
    let found = app
        .db
        .deliveries(&filter, limit, i64::from(page.offset.unwrap_or(0)))
        .await;
    Ok(Json(found.map_err(|error| {
        HttpError::of(error.class(), "reading deliveries", error)
    })?))
}

/// The id that a path names.
fn id_of(delivery: &str) -> Result<Uuid, HttpError> {
    delivery.parse().map_err(|_| {
        HttpError::BadRequest("a delivery is named by the UUID that the list gives it".to_owned())
    })
}

/// Tries a delivery now: one that waits, or one that was given up.
#[utoipa::path(
    post, path = "/api/deliveries/{delivery}/retry", tag = "operation",
    params(("delivery" = String, Path, description = "its id in the list")),
    responses(
        (status = 202, description = "it is tried now, by a server that knows its target", body = Accepted),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only operators and admins may", body = Problem),
        (status = 404, description = "no such delivery", body = Problem),
        (status = 409, description = "it is delivered or superseded", body = Problem),
    )
)]
pub(crate) async fn retry(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(delivery): Path<String>,
) -> Result<(StatusCode, Json<Accepted>), HttpError> {
    let id = id_of(&delivery)?;
    let retried = deliver::retry(&app.db, id, &principal.name).await;
    match retried.map_err(|error| HttpError::of(error.class(), "retrying a delivery", error))? {
        Retried::Yes(..) => Ok((StatusCode::ACCEPTED, Json(Accepted {}))),
        Retried::Ended(state) => Err(HttpError::Conflict(format!(
            "the delivery is {state}, which no retry changes"
        ))),
        Retried::Unknown => Err(HttpError::NotFound("there is no such delivery".to_owned())),
    }
}

/// Takes note of a notification, so that it is not escalated.
#[utoipa::path(
    post, path = "/api/deliveries/{delivery}/acknowledge", tag = "operation",
    params(("delivery" = String, Path, description = "its id in the list")),
    responses(
        (status = 202, description = "it is noted", body = Accepted),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "only operators and admins may; a reader's verdict takes note, too", body = Problem),
        (status = 404, description = "no such delivery", body = Problem),
        (status = 409, description = "it is no notification, or somebody was faster", body = Problem),
    )
)]
pub(crate) async fn acknowledge(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(delivery): Path<String>,
) -> Result<(StatusCode, Json<Accepted>), HttpError> {
    let id = id_of(&delivery)?;
    let done = deliver::acknowledge(&app.db, id, &principal.name).await;
    match done.map_err(|error| HttpError::of(error.class(), "acknowledging a notification", error))? {
        Acknowledged::Yes(..) => Ok((StatusCode::ACCEPTED, Json(Accepted {}))),
        Acknowledged::Already(_) => Err(HttpError::Conflict("somebody took note of it before".to_owned())),
        Acknowledged::NoNotification => Err(HttpError::Conflict(
            "the delivery is no notification; only those are acknowledged".to_owned(),
        )),
        Acknowledged::Unknown => Err(HttpError::NotFound("there is no such delivery".to_owned())),
    }
}
