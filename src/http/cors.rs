//! Viewers on another origin: which origins' pages may use DICOMweb, and what their browsers let them see of an answer.
//!
//! Nobody's by default. Allowed pages come with a key, never with a person's session: a cookie that such a request carries
//! is taken off before anybody looks, and no answer lets credentials through.
//! Only DICOMweb is open to them; the page's own API, and with it readers' acts, is not.
//! The origin is answered letter by letter, never `*`, and every answer says that it depends on it.
//!
//! Source: Fetch Living Standard, section 3.2 (CORS protocol).

use super::dicomweb;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{str::FromStr, sync::Arc};

/// What scripts may send beside the simple headers.
const REQUEST_HEADERS: &str = "accept, authorization, content-type, if-none-match, if-range, range";
/// What scripts may see of an answer beside the simple headers.
const RESPONSE_HEADERS: &str = "accept-ranges, allow, content-disposition, content-encoding, content-length, \
                                content-location, content-range, etag, link, location, retry-after, warning, \
                                www-authenticate, x-request-id";
const METHODS: &str = "GET, HEAD, OPTIONS, POST, PUT, DELETE";
/// Seconds for which a browser remembers what it was told.
const REMEMBERED: &str = "600";

/// An origin: scheme, host and port, as browsers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// A text that is no origin.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "an origin is http or https with a host and, if it is not the usual one, a port, without a path: \
     https://viewer.example; `*` and `null` are none"
)]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let text = text.trim().to_ascii_lowercase();
        let uri: Uri = text.parse().map_err(|_| OriginError)?;
        let (scheme, authority) = (uri.scheme_str(), uri.authority());
        let Some((scheme @ ("http" | "https"), authority)) = scheme.zip(authority) else {
            return Err(OriginError);
        };
        let is_bare = text == format!("{scheme}://{authority}");
        let is_usual = authority.port_u16() == Some(if scheme == "http" { 80 } else { 443 });
        if !is_bare || is_usual || authority.as_str().contains(['@', '*']) {
            return Err(OriginError);
        }
        HeaderValue::from_str(&text).map(Self).map_err(|_| OriginError)
    }
}

/// In the extensions of a request that comes from a page of an allowed origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromAllowedOrigin;

fn allowed<'o>(origins: &'o [Origin], headers: &HeaderMap) -> Option<&'o HeaderValue> {
    let mut said = headers.get_all(header::ORIGIN).iter();
    let origin = said.next().filter(|_| said.next().is_none())?;
    origins.iter().map(|Origin(one)| one).find(|one| *one == origin)
}

/// Middleware: answers preflights of allowed origins, and lets their scripts see the answers of DICOMweb.
pub(super) async fn share(
    State(origins): State<Arc<[Origin]>>,
    mut request: Request,
    next: Next,
) -> Response {
    if origins.is_empty() || !dicomweb::is_within(request.uri().path()) {
        return next.run(request).await;
    }
    let origin = allowed(&origins, request.headers()).cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(_) if is_preflight => preflight(),
        Some(_) => {
            request.headers_mut().remove(header::COOKIE);
            request.extensions_mut().insert(FromAllowedOrigin);
            next.run(request).await
        }
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(RESPONSE_HEADERS),
        );
    }
    response
}

fn preflight() -> Response {
    (
        StatusCode::NO_CONTENT,
        [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, REMEMBERED),
        ],
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_origins_as_browsers_write_them_and_nothing_wider() {
        for text in [
            "https://viewer.example",
            "http://localhost:3000",
            "https://[::1]:8443",
            " HTTPS://A.example ",
        ] {
            assert!(text.parse::<Origin>().is_ok(), "{text}");
        }
        for text in [
            "*",
            "null",
            "",
            "viewer.example",
            "https://viewer.example/",
            "https://viewer.example/path",
            "https://*.example",
            "https://viewer.example:443",
            "ftp://viewer.example",
            "https://user@viewer.example",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text}");
        }
    }
}
