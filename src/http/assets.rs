//! A path that no route takes → a file of the embedded page, or the page itself.
//!
//! Files whose names carry a hash are cached for ever, the page never.
//! A build without `web/dist` still compiles, and says how to make the page.
//! It serves no data: whoever may reach the server may read these files.

use super::error::HttpError;
use axum::{
    body::Body,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Page;

/// The page of the single-page application.
const INDEX: &str = "index.html";
/// What `/` says in a build without the page.
const NOT_BUILT: &str = "This build of ictus has no page. Run `make web`, build again, and reload. \
                         The API is described at /api/docs.\n";

/// Whether this build holds the page.
#[must_use]
pub fn has_page() -> bool {
    Page::get(INDEX).is_some()
}

/// Answers whatever no route takes.
pub(super) async fn serve(method: Method, uri: Uri) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if path
        .split('/')
        .next()
        .is_some_and(|root| matches!(root, "api" | "dicom-web" | "health" | "metrics"))
    {
        return HttpError::NotFound(
            "there is no such resource; /api/openapi.json lists what there is".to_owned(),
        )
        .into_response();
    }
    if let Some(file) = Page::get(path) {
        return respond(path, file);
    }
    // A missing script or image is missing; any other path is a place inside the application.
    if path.rsplit('/').next().is_some_and(|name| name.contains('.')) && path.starts_with("assets/") {
        return HttpError::NotFound("the page has no such file".to_owned()).into_response();
    }
    match Page::get(INDEX) {
        Some(file) => respond(INDEX, file),
        None => (StatusCode::OK, [(header::CACHE_CONTROL, "no-cache")], NOT_BUILT).into_response(),
    }
}

fn respond(path: &str, file: rust_embed::EmbeddedFile) -> Response {
    // Vite puts a hash of the content into every name under assets/.
    let cache = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let kind = HeaderValue::from_str(file.metadata.mimetype())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = Body::from(file.data.into_owned()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
