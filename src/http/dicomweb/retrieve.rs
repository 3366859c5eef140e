//! What every retrieval shares: a path and its parameters → the instances that it names, found and audited.
//!
//! A read is in the audit trail before its first byte leaves.
//!
//! Source: PS3.18 sections 8.2, 8.3.3 and 10.4.

use super::{Links, attribute, media::Accept};
use crate::{
    archive::{Archive, ArchiveError},
    db::error::DbError,
    db::qido::{Document, Filter, StoredFile},
    dicom::{
        coerce::{Coercion, coerce},
        transcode::TranscodeError,
    },
    domain::{phi::redact, uid::Uid},
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
};
use axum::{
    extract::{FromRequestParts, Query, RawPathParams},
    http::{HeaderMap, request::Parts},
};
use bytes::Bytes;
use dicom_core::Tag;
use std::sync::Arc;

/// How a retrieval is refused, for the OpenAPI document.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum Refused {
    /// the path or a parameter is malformed
    #[response(status = 400)]
    Malformed(Problem),
    /// no known key
    #[response(status = 401)]
    Unknown(Problem),
    /// nothing is stored under these UIDs
    #[response(status = 404)]
    Missing(Problem),
    /// the accepted types cannot be sent
    #[response(status = 406)]
    NotAcceptable(Problem),
}

/// How a retrieval of what only the files hold is refused besides, for the OpenAPI document.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum Evicted {
    /// its file was evicted to make room: ask the archive that sent it, or send it again
    #[response(status = 410)]
    Gone(Problem),
}

/// The path of a study.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct OfStudy {
    /// StudyInstanceUID
    study: String,
}

/// The path of a series.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct OfSeries {
    /// StudyInstanceUID
    study: String,
    /// SeriesInstanceUID
    series: String,
}

/// The path of an instance.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct OfInstance {
    /// StudyInstanceUID
    study: String,
    /// SeriesInstanceUID
    series: String,
    /// SOPInstanceUID
    instance: String,
}

/// The path of frames.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct OfFrames {
    /// StudyInstanceUID
    study: String,
    /// SeriesInstanceUID
    series: String,
    /// SOPInstanceUID
    instance: String,
    /// frame numbers from 1, joined by commas
    frames: String,
}

/// A request for what is stored.
pub(crate) struct Retrieval {
    /// The server's parts.
    pub(super) app: App,
    /// The headers of the request.
    pub(super) headers: HeaderMap,
    /// The parameters of its query.
    pub(super) query: Vec<(String, String)>,
    /// The frames of its path.
    pub(super) frames: Option<Vec<u32>>,
    /// The value that its path names, within the instance.
    pub(super) place: Option<Vec<(Tag, Option<usize>)>>,
    principal: Principal,
    study: Uid,
    named: Filter,
}

impl FromRequestParts<App> for Retrieval {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let no_path = |_| HttpError::BadRequest("the path cannot be read".to_owned());
        let path = RawPathParams::from_request_parts(parts, app)
            .await
            .map_err(no_path)?;
        let of = |wanted: &str| {
            path.iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
        };
        let uid = |name: &str, keyword: &str| of(name).map(|text| super::uid(text, keyword)).transpose();
        let query = query(parts)?;
        Self::new(
            app.clone(),
            parts,
            query,
            [
                uid("study", "StudyInstanceUID")?,
                uid("series", "SeriesInstanceUID")?,
                uid("instance", "SOPInstanceUID")?,
            ],
            of("frames").map(frame_list).transpose()?,
            of("path").map(bulk_path).transpose()?,
        )
    }
}

/// The pairs of a query.
pub(super) fn query(parts: &Parts) -> Result<Vec<(String, String)>, HttpError> {
    Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
        .map(|Query(pairs)| pairs)
        .map_err(|_| HttpError::BadRequest("the query cannot be read".to_owned()))
}

impl Retrieval {
    /// From what a path, or the query of a WADO-URI, names.
    pub(super) fn new(
        app: App,
        parts: &Parts,
        query: Vec<(String, String)>,
        [study, series, instance]: [Option<Uid>; 3],
        frames: Option<Vec<u32>>,
        place: Option<Vec<(Tag, Option<usize>)>>,
    ) -> Result<Self, HttpError> {
        let principal = parts.extensions.get::<Principal>().cloned();
        let study = study.ok_or_else(|| HttpError::BadRequest("a StudyInstanceUID is missing".to_owned()))?;
        Ok(Self {
            app,
            headers: parts.headers.clone(),
            query,
            frames,
            place,
            principal: principal.ok_or(HttpError::Unauthorized)?,
            named: Filter::exactly(&study, series.as_ref(), instance.as_ref()),
            study,
        })
    }

    /// What the client accepts; the `accept` parameter outranks the header.
    pub(super) fn accept(&self) -> Accept {
        Accept::new(&self.headers, self.parameter("accept"))
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Addresses as the client reached us.
    pub(super) fn links(&self) -> Links {
        Links::new(&self.headers)
    }

    /// The files, after the audit row of their reading.
    ///
    /// # Errors
    /// When there are none, or the database does not answer.
    pub(super) async fn find(&self) -> Result<Vec<StoredFile>, HttpError> {
        let found = self.app.db.find_files(&self.named).await;
        self.read(found).await
    }

    /// What is said in the instances, after the audit row of their reading.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) async fn documents(&self) -> Result<Vec<Document>, HttpError> {
        let found = self.app.db.find_documents(&self.named).await;
        self.read(found).await
    }

    async fn read<T>(&self, found: Result<Vec<T>, DbError>) -> Result<Vec<T>, HttpError> {
        let found = found.map_err(|error| HttpError::of(error.class(), "finding instances", error))?;
        if found.is_empty() {
            return Err(nothing());
        }
        let db = &self.app.db;
        let audited = db.audit_read(&self.principal.name, &self.study).await;
        audited.map_err(|error| HttpError::of(error.class(), "auditing a read", error))?;
        Ok(found)
    }

    /// The one instance that the path names.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) async fn find_one(&self) -> Result<StoredFile, HttpError> {
        self.find().await?.pop().ok_or_else(nothing)
    }

    /// What is handed out instead of what is stored, since the identity was corrected.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn coercion(&self) -> Result<Option<Arc<Coercion>>, HttpError> {
        let found = self.app.db.coercion(self.study.as_str()).await;
        let found = found.map_err(|error| HttpError::of(error.class(), "reading a correction", error))?;
        Ok(found.map(Arc::new))
    }

    /// The address of an instance of the study.
    pub(super) fn url(&self, series: &str, instance: &str) -> String {
        self.links().instance(self.study.as_str(), series, instance)
    }
}

fn nothing() -> HttpError {
    HttpError::NotFound("nothing is stored under these UIDs".to_owned())
}

/// The bytes of a file of the archive.
pub(super) async fn read(archive: &Archive, key: &str) -> Result<Bytes, HttpError> {
    archive.read_shown(key).await.map_err(|error| match error {
        ArchiveError::Evicted(_) => HttpError::Gone(error.to_string()),
        error => HttpError::of(error.class(), "reading the archive", error),
    })
}

/// The same with the corrected identity, if there is one.
pub(super) async fn read_coerced(
    archive: &Archive,
    key: &str,
    coercion: Option<Arc<Coercion>>,
) -> Result<Bytes, HttpError> {
    let bytes = read(archive, key).await?;
    let Some(coercion) = coercion else {
        return Ok(bytes);
    };
    let coerced = move || coerce(&bytes, &coercion).map_err(|error| TranscodeError::Decode(redact(&error)));
    decode(coerced).await.map(Bytes::from)
}

/// What makes answers about a study others than before: how its identity was corrected.
pub(super) fn edition(coercion: Option<&Coercion>) -> String {
    coercion.map_or_else(String::new, |coercion| format!("{coercion:?}"))
}

/// Decodes off the threads that serve requests; a decoder that panics fails its own request only.
pub(super) async fn decode<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TranscodeError> + Send + 'static,
) -> Result<T, HttpError> {
    use TranscodeError as E;
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| HttpError::Internal {
        what: "decoding an instance",
        source: error.into(),
    })?;
    done.map_err(|error| match error {
        E::Frame { .. } | E::NoPixels => HttpError::NotFound(error.to_string()),
        E::Viewport => HttpError::BadRequest(error.to_string()),
        E::Syntax(_)
        | E::Samples(_)
        | E::Photometric(_)
        | E::CharacterSet
        | E::Layout(_)
        | E::NotBulk
        | E::Decode(_) => HttpError::NotAcceptable(error.to_string()),
    })
}

/// `1,2,5`: frames count from 1.
fn frame_list(text: &str) -> Result<Vec<u32>, HttpError> {
    let frames: Option<Vec<u32>> = text
        .split(',')
        .map(|frame| frame.trim().parse().ok().filter(|&frame| frame > 0))
        .collect();
    frames
        .ok_or_else(|| HttpError::BadRequest("frames are whole numbers from 1, joined by commas".to_owned()))
}

/// `7FE00010`, or `52009230/0/00281050`: tags with the numbers of items between them.
fn bulk_path(text: &str) -> Result<Vec<(Tag, Option<usize>)>, HttpError> {
    let fault = || {
        HttpError::BadRequest("bulk data is named by a tag, or by TAG/ITEM/TAG within sequences".to_owned())
    };
    let pieces: Vec<&str> = text.split('/').collect();
    if pieces.len().is_multiple_of(2) {
        return Err(fault());
    }
    pieces
        .chunks(2)
        .map(|pair| {
            let tag = attribute::tag_of(pair[0]).ok_or_else(fault)?;
            let item = pair
                .get(1)
                .map(|item| item.parse().map_err(|_| fault()))
                .transpose()?;
            Ok((tag, item))
        })
        .collect()
}
