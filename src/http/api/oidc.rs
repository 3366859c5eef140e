//! `/api/session/oidc`: to the OpenID provider and back; a browser comes and goes by redirects, so that errors are too.
//!
//! Source: OpenID Connect Core 1.0 section 3.1.2; RFC 6265bis (`SameSite=Lax`: the provider's page is another site).

use crate::{
    http::{
        App, auth,
        error::{HttpError, Problem},
    },
    review::oidc::{Finished, Oidc, OidcError, Returned},
};
use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The cookie of a sign-in on its way.
const COOKIE: &str = "ictus_oidc";

/// How people can sign in.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ways {
    /// The name of the OpenID provider; null without one.
    oidc: Option<String>,
}

/// How people can sign in, beside name and password.
#[utoipa::path(
    get, path = "/api/session/ways", tag = "page",
    responses((status = 200, description = "the ways", body = Ways))
)]
pub(crate) async fn ways(State(app): State<App>) -> Json<Ways> {
    Json(Ways {
        oidc: app.oidc.as_deref().map(|oidc| oidc.name().to_owned()),
    })
}

/// Where a sign-in ends.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Start {
    /// A path of the page; `/` when absent or not one.
    #[serde(default, rename = "return")]
    #[param(rename = "return")]
    return_to: String,
}

/// Sends a browser to the OpenID provider.
#[utoipa::path(
    get, path = "/api/session/oidc", tag = "page", params(Start),
    responses(
        (status = 303, description = "to the provider, or back to the page with `sign-in=CODE` when it cannot be reached"),
        (status = 404, description = "no provider is configured", body = Problem),
    )
)]
pub(crate) async fn start(
    State(app): State<App>,
    headers: HeaderMap,
    Query(Start { return_to }): Query<Start>,
) -> Result<Response, HttpError> {
    let oidc = provider(&app)?;
    match oidc.start(&app.db, &return_to).await {
        Ok(started) => see_other(&started.url, &[cookie(&started.state, &headers, 600)]),
        Err(error) => failed(&error),
    }
}

/// What the provider sends back with a browser.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Callback {
    /// What was sent to it.
    #[serde(default)]
    state: String,
    /// The authorization code.
    code: Option<String>,
}

/// Takes a browser back from the OpenID provider.
#[utoipa::path(
    get, path = "/api/session/oidc/callback", tag = "page", params(Callback),
    responses(
        (status = 303, description = "to the page, with a session, or with `sign-in=CODE` that says why not"),
        (status = 404, description = "no provider is configured", body = Problem),
    )
)]
pub(crate) async fn callback(
    State(app): State<App>,
    headers: HeaderMap,
    Query(Callback { state, code }): Query<Callback>,
) -> Result<Response, HttpError> {
    let oidc = provider(&app)?;
    let returned = Returned {
        state: &state,
        kept: auth::cookie_value(&headers, COOKIE),
        code: code.as_deref(),
    };
    match oidc.finish(&app.db, returned).await {
        Ok(Finished { signed_in, return_to }) => {
            let session = auth::cookie(&signed_in.token, &headers);
            see_other(&return_to, &[session, cookie("", &headers, 0)])
        }
        Err(error) => failed(&error),
    }
}

fn provider(app: &App) -> Result<&Oidc, HttpError> {
    let text = "no OpenID provider is configured; sign in with name and password, or start the server with --oidc-issuer";
    app.oidc
        .as_deref()
        .ok_or_else(|| HttpError::NotFound(text.to_owned()))
}

fn cookie(state: &str, headers: &HeaderMap, seconds: u32) -> String {
    let secure = auth::secure(headers);
    format!("{COOKIE}={state}; Path=/api/session/oidc; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}")
}

/// The page has a sentence for each code; the log has the reason.
fn failed(error: &OidcError) -> Result<Response, HttpError> {
    tracing::warn!(code = error.code(), %error, "nobody signed in at the OpenID provider");
    see_other(&format!("/?sign-in={}", error.code()), &[])
}

fn see_other(to: &str, cookies: &[String]) -> Result<Response, HttpError> {
    let fault = |_| HttpError::BadRequest("the Host header is malformed".to_owned());
    let mut answer = StatusCode::SEE_OTHER.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(to).map_err(fault)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, HeaderValue::from_str(cookie).map_err(fault)?);
    }
    Ok(answer)
}
