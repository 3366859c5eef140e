//! `/api/views`: the filters of the worklist that the person who signed in keeps.

use crate::{
    db::saved_view::{MOST_VIEWS, SavedView},
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};

const LONGEST_NAME: usize = 60;
const LONGEST_QUERY: usize = 500;

/// The person's views, by name.
#[utoipa::path(
    get, path = "/api/views", tag = "page",
    responses(
        (status = 200, description = "the views", body = Vec<SavedView>),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "nobody signed in", body = Problem),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Vec<SavedView>>, HttpError> {
    let views = app.db.saved_views(person(&principal)?).await;
    Ok(Json(views.map_err(failed)?))
}

/// Keeps a view, in place of the one of that name.
#[utoipa::path(
    put, path = "/api/views", tag = "page", request_body = SavedView,
    responses(
        (status = 204, description = "kept"),
        (status = 400, description = "the name or the query is empty or too long", body = Problem),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "nobody signed in", body = Problem),
        (status = 409, description = "the person has too many views", body = Problem),
    )
)]
pub(crate) async fn save(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    body: Result<Json<SavedView>, JsonRejection>,
) -> Result<StatusCode, HttpError> {
    let account = person(&principal)?;
    let Json(view) =
        body.map_err(|_| HttpError::BadRequest("the body must be JSON with `name` and `query`".to_owned()))?;
    let name = view.name.trim().to_owned();
    let (letters, query) = (name.chars().count(), view.query.chars().count());
    if !(1..=LONGEST_NAME).contains(&letters) || query > LONGEST_QUERY {
        let text = format!(
            "a view has a name of 1 to {LONGEST_NAME} characters (found {letters}) and a query of at most {LONGEST_QUERY} (found {query})"
        );
        return Err(HttpError::BadRequest(text));
    }
    let view = SavedView { name, ..view };
    if app.db.save_view(account, &view).await.map_err(failed)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        let text = format!("there are {MOST_VIEWS} views already; forget one first");
        Err(HttpError::Conflict(text))
    }
}

/// Forgets a view.
#[utoipa::path(
    delete, path = "/api/views/{name}", tag = "page",
    params(("name" = String, Path, description = "its name")),
    responses(
        (status = 204, description = "forgotten"),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "nobody signed in", body = Problem),
        (status = 404, description = "no such view", body = Problem),
    )
)]
pub(crate) async fn forget(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<StatusCode, HttpError> {
    let account = person(&principal)?;
    if app.db.forget_view(account, &name).await.map_err(failed)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(HttpError::NotFound("there is no view of this name".to_owned()))
    }
}

fn person(principal: &Principal) -> Result<i64, HttpError> {
    principal
        .account
        .as_deref()
        .map(|account| account.id)
        .ok_or_else(|| HttpError::Forbidden("views belong to a person: sign in first".to_owned()))
}

fn failed(error: crate::db::error::DbError) -> HttpError {
    HttpError::of(error.class(), "keeping views", error)
}
