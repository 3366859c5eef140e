//! Routes and what surrounds them: one list, from which the OpenAPI document is made, too.
//!
//! From the outside in: request id, other origins, security headers, counting, problem documents, panics, access, compression.
//! Everything that answers 4xx or 5xx therefore has an id, headers and a body, wherever it arose.
//!
//! Source: Content Security Policy Level 3; Fetch (CORP); RFC 9111 section 5.2.2.5.

use super::{
    App, api, assets,
    auth::{self, Access},
    cors,
    dicomweb::{
        self, capabilities, commitment, qido, removal, rendered, stow, ups, ups_channel, wado, wado_uri,
    },
    error, health, metrics, openapi,
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, Predicate, predicate::SizeAbove},
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Smaller answers are not worth compressing: they fit in one packet.
const COMPRESS_FROM_BYTES: u64 = 1024;

/// What the page may load, and from where.
///
/// Cornerstone3D compiles its codecs from WebAssembly and starts workers from blobs; its tools set inline styles.
/// Nothing comes from another host, and no frame may hold the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
     worker-src 'self' blob:; connect-src 'self' blob: data:; img-src 'self' data: blob:; font-src 'self' data:; \
     style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Every route and its place in the OpenAPI document.
fn routes() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(stow::store, qido::studies))
        .routes(routes!(stow::store_in_study, wado::study, removal::study))
        .routes(routes!(qido::series_of_all))
        .routes(routes!(qido::instances_of_all))
        .routes(routes!(qido::series_of_study))
        .routes(routes!(qido::instances_of_study))
        .routes(routes!(qido::instances_of_series))
        .routes(routes!(wado::study_metadata))
        .routes(routes!(wado::series, removal::series))
        .routes(routes!(wado::series_metadata))
        .routes(routes!(wado::instance, removal::instance))
        .routes(routes!(wado::instance_metadata))
        .routes(routes!(wado::frames))
        .routes(routes!(wado::study_bulk_data))
        .routes(routes!(wado::series_bulk_data))
        .routes(routes!(wado::instance_bulk_data))
        .routes(routes!(wado::study_pixel_data))
        .routes(routes!(wado::series_pixel_data))
        .routes(routes!(wado::instance_pixel_data))
        .routes(routes!(rendered::study))
        .routes(routes!(rendered::series))
        .routes(routes!(rendered::instance))
        .routes(routes!(rendered::frames))
        .routes(routes!(rendered::study_thumbnail))
        .routes(routes!(rendered::series_thumbnail))
        .routes(routes!(rendered::instance_thumbnail))
        .routes(routes!(rendered::frame_thumbnail))
        .routes(routes!(wado_uri::get))
        .routes(routes!(ups::create, ups::search))
        .routes(routes!(ups::retrieve, ups::update))
        .routes(routes!(ups::change_state))
        .routes(routes!(ups::request_cancel))
        .routes(routes!(ups::subscribe, ups::unsubscribe))
        .routes(routes!(ups::suspend))
        .routes(routes!(ups_channel::open))
        .routes(routes!(commitment::request, commitment::check))
        .routes(routes!(api::worklist::list))
        .routes(routes!(api::study::get))
        .routes(routes!(api::study::audit))
        .routes(routes!(
            api::session::create,
            api::session::get,
            api::session::delete
        ))
        .routes(routes!(api::session::follow))
        .routes(routes!(api::oidc::ways))
        .routes(routes!(api::oidc::start))
        .routes(routes!(api::oidc::callback))
        .routes(routes!(api::verdict::list, api::verdict::give))
        .routes(routes!(api::presence::tell, api::presence::leave))
        .routes(routes!(api::correction::list, api::correction::save))
        .routes(routes!(api::views::list, api::views::save))
        .routes(routes!(api::views::forget))
        .routes(routes!(api::figures::get))
        .routes(routes!(api::figures::cases))
        .routes(routes!(api::figures::label_next))
        .routes(routes!(api::series::complete))
        .routes(routes!(api::deliveries::list))
        .routes(routes!(api::deliveries::retry))
        .routes(routes!(api::deliveries::acknowledge))
        .routes(routes!(api::revisions::list))
        .routes(routes!(api::revisions::accept))
        .routes(routes!(api::revisions::dismiss))
        .routes(routes!(api::events::stream))
        .routes(routes!(api::version::get))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .split_for_parts()
}

/// The path of bulk data spans several segments, which OpenAPI cannot say; the document has it with one.
const BULK_DATA: &str = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata/{*path}";

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let (_, mut document) = routes();
    document.merge(BulkData::openapi());
    document
}

#[derive(OpenApi)]
#[openapi(paths(wado::bulk_data))]
struct BulkData;

/// The whole server: routes, the page, and what surrounds them.
pub fn router(app: App, access: Access) -> Router {
    let (metrics, origins) = (app.metrics.clone(), app.allow_origins.clone());
    let door = auth::Door {
        access: Arc::new(access),
        db: app.db.clone(),
    };
    let (router, _) = routes();
    router
        .route(BULK_DATA, get(wado::bulk_data))
        .with_state(app)
        .merge(Router::from(openapi::routes(document())))
        .fallback(assets::serve)
        .layer(middleware::from_fn(options))
        .layer(middleware::from_fn(locate))
        .layer(
            CompressionLayer::new()
                .gzip(true)
                .compress_when(SizeAbove::new(COMPRESS_FROM_BYTES).and(is_text)),
        )
        .layer(middleware::from_fn_with_state(door, auth::guard))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(error::render))
        .layer(middleware::from_fn_with_state(metrics, metrics::observe))
        .layer(middleware::from_fn(secure))
        .layer(middleware::from_fn_with_state(origins, cors::share))
        .layer(PropagateRequestIdLayer::new(error::REQUEST_ID))
        .layer(SetRequestIdLayer::new(error::REQUEST_ID, MakeRequestUuid))
        .layer(middleware::from_fn(drop_foreign_request_id))
}

/// Pixels do not get smaller in the time they take, and events must not wait in a buffer.
fn is_text(
    _status: StatusCode,
    _version: axum::http::Version,
    headers: &axum::http::HeaderMap,
    _extensions: &axum::http::Extensions,
) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let text = [
        "application/json",
        "application/dicom+json",
        "text/",
        "application/javascript",
        "application/wasm",
    ];
    text.iter().any(|prefix| kind.starts_with(prefix)) && !kind.starts_with("text/event-stream")
}

/// Every DICOMweb resource answers OPTIONS, its root too (PS3.18 section 8.9).
async fn options(request: Request, next: Next) -> Response {
    let described = request.method() == Method::OPTIONS && dicomweb::is_within(request.uri().path());
    if !described {
        return next.run(request).await;
    }
    capabilities::describe(request.uri(), request.headers()).into_response()
}

/// What is retrieved says whose representation it is, unless its handler has (PS3.18 table 8.4.2-1).
async fn locate(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let location = is_read
        .then(|| dicomweb::location(request.uri().path(), request.headers()))
        .flatten();
    let mut response = next.run(request).await;
    let is_whole = matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    if let Some(location) = location.filter(|_| is_whole) {
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_LOCATION).or_insert(location);
    }
    response
}

/// The id is ours: a client's own could name another request in the log, or hold anything.
async fn drop_foreign_request_id(mut request: Request, next: Next) -> Response {
    request.headers_mut().remove(error::REQUEST_ID);
    next.run(request).await
}

/// Headers that every answer has.
async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What is said about patients stays in no cache; the page's own files say otherwise themselves.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
