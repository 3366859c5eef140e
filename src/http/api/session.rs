//! `/api/session`: who someone is, for people with a name and a password.
//!
//! The session's token is in a cookie that scripts cannot read and other sites do not send;
//! besides, a request that changes something must come from a page of this server (see [`crate::http::auth`]).
//!
//! Source: RFC 6265bis (SameSite, Secure, HttpOnly).

use crate::{
    http::{
        App,
        auth::{self, Principal},
        error::{HttpError, Problem},
    },
    review::{ReviewError, account, link},
};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Name and password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The account's name.
    name: String,
    /// Its password.
    password: String,
}

/// Who sends these requests.
#[derive(Debug, Serialize, ToSchema)]
pub struct Who {
    /// The account's or the key's name; `local` for whoever sits at this machine.
    pub name: String,
    /// As others read it.
    pub display_name: String,
    /// `radiologist`, `auditor`, `admin`, or a key's `viewer`, `sender`, `operator`.
    pub role: String,
    /// Whether it is a person who signed in: only they can give verdicts.
    pub person: bool,
}

impl From<&Principal> for Who {
    fn from(principal: &Principal) -> Self {
        let account = principal.account.as_deref();
        Self {
            name: principal.name.to_string(),
            display_name: account.map_or_else(|| principal.name.to_string(), |a| a.display_name.clone()),
            role: principal.role.as_str().to_owned(),
            person: account.is_some(),
        }
    }
}

/// Begins a session.
#[utoipa::path(
    post, path = "/api/session", tag = "page", request_body = SignIn,
    responses(
        (status = 200, description = "signed in; the cookie holds the session", body = Who),
        (status = 400, description = "the body is not name and password", body = Problem),
        (status = 401, description = "name and password do not belong to an account", body = Problem),
        (status = 403, description = "another site's page sent it", body = Problem),
        (status = 429, description = "too many wrong passwords", body = Problem),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Json<SignIn>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, HttpError> {
    auth::same_origin(&headers)?;
    let Json(SignIn { name, password }) = body
        .map_err(|_| HttpError::BadRequest("the body must be JSON with `name` and `password`".to_owned()))?;
    let signed_in = account::sign_in(&app.db, &name, password)
        .await
        .map_err(|error| match error {
            ReviewError::SignIn => HttpError::SignIn(error.to_string()),
            ReviewError::Throttled => HttpError::TooManyRequests(error.to_string()),
            other => HttpError::of(other.class(), "signing in", other),
        })?;
    let principal = Principal::person(signed_in.account);
    let mut answer = Json(Who::from(&principal)).into_response();
    let cookie = auth::cookie(&signed_in.token, &headers);
    let value = HeaderValue::from_str(&cookie)
        .map_err(|_| HttpError::BadRequest("the Host header is malformed".to_owned()))?;
    answer.headers_mut().insert(header::SET_COOKIE, value);
    Ok(answer)
}

/// Says who sends the request.
#[utoipa::path(
    get, path = "/api/session", tag = "page",
    responses(
        (status = 200, description = "who it is", body = Who),
        (status = 401, description = "no session and no known key", body = Problem),
    )
)]
pub(crate) async fn get(Extension(principal): Extension<Principal>) -> Json<Who> {
    Json(Who::from(&principal))
}

/// The query of a signed link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    /// What stands behind `?` in the link's address.
    query: String,
}

/// Where a link leads.
#[derive(Debug, Serialize, ToSchema)]
pub struct Leads {
    /// The study that it opens.
    study_instance_uid: String,
}

/// Follows a signed link; who has no session yet gets one that opens its study and nothing else.
#[utoipa::path(
    post, path = "/api/session/link", tag = "page", request_body = Followed,
    responses(
        (status = 200, description = "the study", body = Leads),
        (status = 400, description = "the body is not a query", body = Problem),
        (status = 401, description = "the link opens nothing: altered, expired, revoked, or of no study here", body = Problem),
        (status = 403, description = "another site's page sent it", body = Problem),
    )
)]
pub(crate) async fn follow(
    State(app): State<App>,
    principal: Option<Extension<Principal>>,
    headers: HeaderMap,
    body: Result<Json<Followed>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, HttpError> {
    auth::same_origin(&headers)?;
    let Json(Followed { query }) =
        body.map_err(|_| HttpError::BadRequest("the body must be JSON with `query`".to_owned()))?;
    let failed = |error: ReviewError| HttpError::of(error.class(), "following a link", error);
    let person = match auth::session_token(&headers) {
        Some(token) => account::of_session(&app.db, token).await.map_err(failed)?,
        None => None,
    };
    // Without a key file everyone at this machine may look at everything.
    let may_look = principal.is_some_and(|Extension(principal)| principal.only.is_none());
    let begun = link::follow(
        &app.db,
        &query,
        person.is_some() || may_look,
        OffsetDateTime::now_utc(),
    )
    .await;
    let begun = begun.map_err(|error| match error {
        ReviewError::Link(text) => HttpError::SignIn(text.to_owned()),
        other => failed(other),
    })?;
    let study_instance_uid = begun.visit.study_instance_uid;
    let mut answer = Json(Leads { study_instance_uid }).into_response();
    if let Some(token) = begun.token {
        let cookie = HeaderValue::from_str(&auth::cookie(&token, &headers))
            .map_err(|_| HttpError::BadRequest("the Host header is malformed".to_owned()))?;
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(answer)
}

/// Ends the session.
#[utoipa::path(
    delete, path = "/api/session", tag = "page",
    responses(
        (status = 204, description = "signed out"),
        (status = 401, description = "no session and no known key", body = Problem),
        (status = 403, description = "another site's page sent it", body = Problem),
    )
)]
pub(crate) async fn delete(State(app): State<App>, headers: HeaderMap) -> Result<Response, HttpError> {
    if let Some(token) = auth::session_token(&headers) {
        account::sign_out(&app.db, token)
            .await
            .map_err(|error| HttpError::of(error.class(), "signing out", error))?;
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    answer
        .headers_mut()
        .insert(header::SET_COOKIE, HeaderValue::from_static(auth::NO_COOKIE));
    Ok(answer)
}
