//! DICOMweb at `/dicom-web`: STOW-RS in, QIDO-RS and WADO-RS out.
//!
//! Source: PS3.18 chapters 8 and 10.

pub mod attribute;
pub(crate) mod capabilities;
mod datasets;
pub mod media;
pub mod multipart;
mod parts;
pub mod qido;
pub mod query;
pub(crate) mod rendered;
pub(crate) mod retrieve;
pub mod stow;
mod stow_metadata;
pub mod wado;
pub(crate) mod wado_uri;

use super::error::HttpError;
use crate::domain::uid::Uid;
use axum::http::{HeaderMap, header};

/// Where DICOMweb lives.
pub const ROOT: &str = "/dicom-web";

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

    /// An instance.
    #[must_use]
    pub fn instance(&self, study: &str, series: &str, instance: &str) -> String {
        format!("{}/instances/{instance}", self.series(study, series))
    }
}
