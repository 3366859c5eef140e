//! DICOMweb at `/dicom-web`: STOW-RS in, QIDO-RS and WADO-RS out, UPS-RS for who schedules the work.
//!
//! Source: PS3.18 chapters 8, 10, 11 and 13.

pub mod attribute;
pub(crate) mod capabilities;
pub(crate) mod commitment;
mod datasets;
pub mod media;
pub mod multipart;
mod parts;
pub mod qido;
pub mod query;
pub(crate) mod removal;
pub(crate) mod rendered;
pub(crate) mod retrieve;
pub mod stow;
mod stow_metadata;
pub(crate) mod ups;
pub(crate) mod ups_channel;
pub mod wado;
pub(crate) mod wado_uri;

use super::error::HttpError;
use crate::domain::uid::Uid;
use axum::http::{HeaderMap, HeaderValue, header};

/// Where DICOMweb lives.
pub const ROOT: &str = "/dicom-web";

/// Whether a path is DICOMweb's.
pub(super) fn is_within(path: &str) -> bool {
    path.strip_prefix(ROOT)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Where a path of what can be retrieved is, on the name by which the client reached us; nothing for a search.
pub(super) fn location(path: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    let below = path.strip_prefix(ROOT)?;
    let is_search = ["/studies", "/series", "/instances", "/workitems"]
        .iter()
        .any(|end| below.ends_with(end));
    if is_search || !below.starts_with("/studies/") {
        return None;
    }
    HeaderValue::try_from(format!("{}{below}", Links::new(headers).root)).ok()
}

/// A UID of a path, checked.
pub(super) fn uid(text: &str, name: &str) -> Result<Uid, HttpError> {
    Uid::parse(text).map_err(|why| HttpError::BadRequest(format!("the {name} of the path is none: {why}")))
}

/// The `accept` parameter of a raw query.
fn accept_parameter(query: Option<&str>) -> Option<String> {
    let uri: axum::http::Uri = format!("/?{}", query?).parse().ok()?;
    let axum::extract::Query(pairs) =
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok()?;
    pairs
        .into_iter()
        .find(|(name, _)| name == "accept")
        .map(|(_, value)| value)
}

/// URLs of resources, on the name by which the client reached us.
#[derive(Debug, Clone)]
pub struct Links {
    root: String,
}

impl Links {
    /// From the Host of a request; a proxy that speaks TLS says so in X-Forwarded-Proto.
    #[must_use]
    pub fn new(headers: &HeaderMap) -> Self {
        let host = headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("localhost");
        let proto = headers
            .get("x-forwarded-proto")
            .and_then(|value| value.to_str().ok());
        let scheme = if proto == Some("https") { "https" } else { "http" };
        Self {
            root: format!("{scheme}://{host}{ROOT}"),
        }
    }

    /// A study.
    #[must_use]
    pub fn study(&self, study: &str) -> String {
        format!("{}/studies/{study}", self.root)
    }

    /// A series.
    #[must_use]
    pub fn series(&self, study: &str, series: &str) -> String {
        format!("{}/series/{series}", self.study(study))
    }

    /// A workitem.
    #[must_use]
    pub fn workitem(&self, workitem: &str) -> String {
        format!("{}/workitems/{workitem}", self.root)
    }

    /// The WebSocket on which an AE title hears of workitems.
    #[must_use]
    pub fn channel(&self, title: &str) -> String {
        // http becomes ws, https wss.
        let title: String = form_urlencoded::byte_serialize(title.as_bytes()).collect();
        let title = title.replace('+', "%20");
        self.root.replacen("http", "ws", 1) + "/subscribers/" + &title
    }

    /// An instance.
    #[must_use]
    pub fn instance(&self, study: &str, series: &str, instance: &str) -> String {
        format!("{}/instances/{instance}", self.series(study, series))
    }
}
