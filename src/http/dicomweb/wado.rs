//! WADO-RS: stored instances → the files as sent, their metadata, frames and bulk data.
//!
//! Without a transfer syntax in Accept objects are sent in Explicit VR Little Endian, as PS3.18 wants;
//! `transfer-syntax=*` gives the stored bytes, and an object that is stored as asked is never re-encoded.
//! Whatever has to be decided is decided before the first byte: a status of 200 is not taken back.
//! A read is in the audit trail before its first byte leaves.
//! Compressed frames are sent decoded; nothing is compressed here.
//!
//! Source: PS3.18 sections 8.7 and 10.4.

use super::{
    Links, attribute,
    media::{Accept, EXPLICIT_VR_LITTLE_ENDIAN, Offer, Syntax},
};
use crate::{
    archive::Archive,
    db::qido::{Filter, InstanceMatch},
    dicom::{
        coerce::{Coercion, coerce},
        transcode,
    },
    domain::phi::redact,
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use dicom_core::Tag;
use futures::{Stream, StreamExt};
use serde_json::Value;
use std::sync::Arc;

const DICOM: &str = "application/dicom";
const OCTETS: &str = "application/octet-stream";

/// A request for stored objects, with what it names found and audited.
struct Asked {
    app: App,
    accept: Accept,
    links: Links,
    instances: Vec<InstanceMatch>,
}

impl Asked {
    async fn new(
        app: App,
        principal: &Principal,
        headers: &HeaderMap,
        query: Option<&str>,
        path: [Option<&str>; 3],
    ) -> Result<Self, HttpError> {
        let accept = Accept::new(headers, super::accept_parameter(query).as_deref());
        let [study, series, instance] = path;
        let study = super::uid(study.unwrap_or_default(), "StudyInstanceUID")?;
        let series = series
            .map(|text| super::uid(text, "SeriesInstanceUID"))
            .transpose()?;
        let instance = instance
            .map(|text| super::uid(text, "SOPInstanceUID"))
            .transpose()?;
        let filter = Filter::exactly(&study, series.as_ref(), instance.as_ref());
        let found = app.db.find_instances(&filter).await;
        let instances = found.map_err(|error| HttpError::of(error.class(), "finding instances", error))?;
        if instances.is_empty() {
            return Err(HttpError::NotFound(
                "nothing is stored under these UIDs".to_owned(),
            ));
        }
        let audited = app.db.audit_read(&principal.name, &study).await;
        audited.map_err(|error| HttpError::of(error.class(), "auditing a read", error))?;
        Ok(Self {
            app,
            accept,
            links: Links::new(headers),
            instances,
        })
    }

    /// Whole objects.
    async fn objects(self, single: bool) -> Result<Response, HttpError> {
        let offers = self.accept.offers(DICOM, single);
        let Some(multipart) = offers.first().map(|offer| offer.multipart) else {
            let text = "objects are sent as multipart/related; type=\"application/dicom\", a single one also as \
                        application/dicom; accept one of them";
            return Err(HttpError::NotAcceptable(text.to_owned()));
        };
        let mut sendings = Vec::with_capacity(self.instances.len());
        for instance in &self.instances {
            sendings.push(Sending::choose(instance, &offers)?);
        }
        let archive = self.app.archive.clone();
        let coercion = self.coercion().await?;
        let mut sendings = sendings.into_iter();
        // The first object is read before the head of the answer, so that a fault there is told as one.
        let Some(first) = sendings.next() else {
            return Err(HttpError::NotFound("nothing is stored".to_owned()));
        };
        let kind = first.content_type();
        let first = first.read(&archive, coercion.clone()).await?;
        if !multipart {
            return Ok(([(header::CONTENT_TYPE, kind)], first).into_response());
        }
        let parts = async_stream::try_stream! {
            yield (kind, first);
            for sending in sendings {
                let kind = sending.content_type();
                yield (kind, sending.read(&archive, coercion.clone()).await?);
            }
        };
        Ok(multipart_response(DICOM, parts))
    }

    /// What is handed out instead of what is stored, since the identity was corrected.
    async fn coercion(&self) -> Result<Option<Arc<Coercion>>, HttpError> {
        let Some(instance) = self.instances.first() else {
            return Ok(None);
        };
        let found = self.app.db.coercion(&instance.study_instance_uid).await;
        let found = found.map_err(|error| HttpError::of(error.class(), "reading a correction", error))?;
        Ok(found.map(Arc::new))
    }

    /// Every attribute but bulk data, which is linked.
    fn metadata(self) -> Result<Response, HttpError> {
        let json = self.accept.json().ok_or_else(|| {
            HttpError::NotAcceptable("metadata is sent as application/dicom+json; accept that".to_owned())
        })?;
        let datasets: Vec<Value> = self
            .instances
            .into_iter()
            .filter_map(|instance| {
                let links = &self.links;
                let url = links.instance(
                    &instance.study_instance_uid,
                    &instance.series_instance_uid,
                    &instance.sop_instance_uid,
                );
                let Value::Object(mut dataset) = instance.metadata else {
                    return None;
                };
                attribute::set_bulk_data_uris(&mut dataset, &format!("{url}/bulkdata"), "");
                attribute::declare_utf8(&mut dataset);
                Some(Value::Object(attribute::sorted(dataset)))
            })
            .collect();
        Ok(([(header::CONTENT_TYPE, json)], Value::Array(datasets).to_string()).into_response())
    }

    /// Single frames of one instance.
    async fn frames(mut self, list: &str) -> Result<Response, HttpError> {
        let wanted = frame_list(list)?;
        let multipart = self.octets(wanted.len() == 1)?;
        let bytes = self.only_file().await?;
        let frames = decode(move || transcode::frames(&bytes, &wanted)).await?;
        Ok(octets_response(multipart, frames))
    }

    /// One value of one instance.
    async fn bulk_data(mut self, path: &str) -> Result<Response, HttpError> {
        let place = bulk_path(path)?;
        let multipart = self.octets(true)?;
        let bytes = self.only_file().await?;
        let value = decode(move || transcode::value_at(&bytes, &place)).await?;
        let none = || HttpError::NotFound("the instance has no such bulk data".to_owned());
        Ok(octets_response(multipart, vec![value.ok_or_else(none)?]))
    }

    /// Whether octets are sent in several parts; 406 when they are not accepted uncompressed.
    fn octets(&self, single: bool) -> Result<bool, HttpError> {
        let offers = self.accept.offers(OCTETS, single);
        let fits = |offer: &&Offer| offer.syntax.takes_as_stored(EXPLICIT_VR_LITTLE_ENDIAN);
        offers.iter().find(fits).map(|offer| offer.multipart).ok_or_else(|| {
            let text = "this is sent uncompressed, as multipart/related; type=\"application/octet-stream\" or, when it \
                        is one value, as application/octet-stream; accept one of them, with transfer-syntax=*";
            HttpError::NotAcceptable(text.to_owned())
        })
    }

    async fn only_file(&mut self) -> Result<Bytes, HttpError> {
        let none = || HttpError::NotFound("nothing is stored under these UIDs".to_owned());
        let instance = self.instances.pop().ok_or_else(none)?;
        read(&self.app.archive, &instance.archive_key).await
    }
}

/// One object and the form in which it goes.
struct Sending {
    archive_key: String,
    syntax: String,
    transcode: bool,
}

impl Sending {
    /// As stored if any offer takes that, else decoded if one takes that.
    fn choose(instance: &InstanceMatch, offers: &[Offer]) -> Result<Self, HttpError> {
        let stored = instance.transfer_syntax_uid.trim_end_matches(['\0', ' ']);
        let archive_key = instance.archive_key.clone();
        if offers.iter().any(|offer| offer.syntax.takes_as_stored(stored)) {
            return Ok(Self {
                archive_key,
                syntax: stored.to_owned(),
                transcode: false,
            });
        }
        let explicit = offers.iter().any(|offer| offer.syntax == Syntax::default());
        if explicit && transcode::is_decodable(stored) {
            return Ok(Self {
                archive_key,
                syntax: EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
                transcode: true,
            });
        }
        Err(HttpError::NotAcceptable(format!(
            "instance {} is stored in transfer syntax {stored} and cannot be given in the one that is accepted; \
             accept transfer-syntax=* to get it as it is stored",
            instance.sop_instance_uid
        )))
    }

    fn content_type(&self) -> String {
        format!("{DICOM}; transfer-syntax={}", self.syntax)
    }

    async fn read(self, archive: &Archive, coercion: Option<Arc<Coercion>>) -> Result<Bytes, HttpError> {
        let mut bytes = read(archive, &self.archive_key).await?;
        if let Some(coercion) = coercion {
            let coerced = decode(move || {
                coerce(&bytes, &coercion).map_err(|error| transcode::TranscodeError::Decode(redact(&error)))
            });
            bytes = coerced.await?.into();
        }
        if !self.transcode {
            return Ok(bytes);
        }
        decode(move || transcode::to_explicit_vr_little_endian(&bytes))
            .await
            .map(Bytes::from)
    }
}

async fn read(archive: &Archive, key: &str) -> Result<Bytes, HttpError> {
    archive
        .read(key)
        .await
        .map_err(|error| HttpError::of(error.class(), "reading the archive", error))
}

/// Decodes off the threads that serve requests; a decoder that panics fails its own request only.
async fn decode<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, transcode::TranscodeError> + Send + 'static,
) -> Result<T, HttpError> {
    use transcode::TranscodeError as E;
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| HttpError::Internal {
        what: "decoding an instance",
        source: error.into(),
    })?;
    done.map_err(|error| match error {
        E::Frame { .. } | E::NoPixels => HttpError::NotFound(error.to_string()),
        E::Syntax(_) | E::Samples(_) | E::CharacterSet | E::Layout(_) | E::NotBulk | E::Decode(_) => {
            HttpError::NotAcceptable(error.to_string())
        }
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

fn octets_response(multipart: bool, values: Vec<Vec<u8>>) -> Response {
    let kind = format!("{OCTETS}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}");
    if !multipart && values.len() == 1 {
        let value = values.into_iter().next().unwrap_or_default();
        return ([(header::CONTENT_TYPE, kind)], value).into_response();
    }
    let parts = values
        .into_iter()
        .map(move |value| Ok((kind.clone(), Bytes::from(value))));
    multipart_response(OCTETS, futures::stream::iter(parts))
}

/// A body of `multipart/related`; a part that fails breaks the connection off, so that nobody takes the rest for all.
fn multipart_response<S>(root: &str, parts: S) -> Response
where
    S: Stream<Item = Result<(String, Bytes), HttpError>> + Send + 'static,
{
    let boundary = format!("ictus-{}", uuid::Uuid::new_v4().simple());
    let kind = format!("multipart/related; type=\"{root}\"; boundary={boundary}");
    let body = async_stream::try_stream! {
        let mut parts = std::pin::pin!(parts);
        let mut line_end = "";
        while let Some(part) = parts.next().await {
            let (kind, bytes) = part.inspect_err(|error| {
                tracing::error!(%error, "an answer of several parts was broken off");
            })?;
            yield Bytes::from(format!("{line_end}--{boundary}\r\nContent-Type: {kind}\r\n\r\n"));
            yield bytes;
            line_end = "\r\n";
        }
        yield Bytes::from(format!("\r\n--{boundary}--\r\n"));
    };
    let body: std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, HttpError>> + Send>> = Box::pin(body);
    let mut response = Body::from_stream(body).into_response();
    if let Ok(kind) = HeaderValue::from_str(&kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// Retrieves every instance of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}", tag = "WADO-RS", operation_id = "retrieve_study",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "the instances", content_type = "multipart/related"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn study(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [Some(study.as_str()), None, None];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .objects(false)
        .await
}

/// Retrieves every instance of a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}", tag = "WADO-RS", operation_id = "retrieve_series",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
    ),
    responses(
        (status = 200, description = "the instances", content_type = "multipart/related"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn series(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [Some(study.as_str()), Some(series.as_str()), None];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .objects(false)
        .await
}

/// Retrieves one instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}", tag = "WADO-RS",
    operation_id = "retrieve_instance",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
        ("instance" = String, Path, description = "SOPInstanceUID"),
    ),
    responses(
        (status = 200, description = "the instance", content_type = "multipart/related"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn instance(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series, instance)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [
        Some(study.as_str()),
        Some(series.as_str()),
        Some(instance.as_str()),
    ];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .objects(true)
        .await
}

/// Retrieves the attributes of every instance of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/metadata", tag = "WADO-RS", operation_id = "retrieve_metadata_of_study",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "the attributes", content_type = "application/dicom+json"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn study_metadata(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [Some(study.as_str()), None, None];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .metadata()
}

/// Retrieves the attributes of every instance of a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/metadata", tag = "WADO-RS",
    operation_id = "retrieve_metadata_of_series",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
    ),
    responses(
        (status = 200, description = "the attributes", content_type = "application/dicom+json"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn series_metadata(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [Some(study.as_str()), Some(series.as_str()), None];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .metadata()
}

/// Retrieves the attributes of one instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata", tag = "WADO-RS",
    operation_id = "retrieve_metadata_of_instance",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
        ("instance" = String, Path, description = "SOPInstanceUID"),
    ),
    responses(
        (status = 200, description = "the attributes", content_type = "application/dicom+json"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "nothing is stored under these UIDs", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn instance_metadata(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series, instance)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [
        Some(study.as_str()),
        Some(series.as_str()),
        Some(instance.as_str()),
    ];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .metadata()
}

/// Retrieves frames of one instance, decoded.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", tag = "WADO-RS",
    operation_id = "retrieve_frames",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
        ("instance" = String, Path, description = "SOPInstanceUID"),
        ("frames" = String, Path, description = "frame numbers from 1, joined by commas"),
    ),
    responses(
        (status = 200, description = "the frames, one a part", content_type = "multipart/related"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "no such instance or frame", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn frames(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series, instance, frames)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [
        Some(study.as_str()),
        Some(series.as_str()),
        Some(instance.as_str()),
    ];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .frames(&frames)
        .await
}

/// Retrieves one large value of an instance, as its metadata links it.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata/{path}", tag = "WADO-RS",
    operation_id = "retrieve_bulk_data",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
        ("instance" = String, Path, description = "SOPInstanceUID"),
        ("path" = String, Path, description = "a tag of 8 hexadecimal digits, or TAG/ITEM/TAG"),
    ),
    responses(
        (status = 200, description = "the value", content_type = "multipart/related"),
        (status = 400, description = "the path is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 404, description = "no such instance or value", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn bulk_data(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series, instance, place)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = [
        Some(study.as_str()),
        Some(series.as_str()),
        Some(instance.as_str()),
    ];
    Asked::new(app, &principal, &headers, query.as_deref(), path)
        .await?
        .bulk_data(&place)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_frame_lists_and_bulk_paths() {
        assert_eq!(frame_list("1,2, 30").unwrap(), [1, 2, 30]);
        for bad in ["", "0", "1,,2", "-1", "a"] {
            assert!(frame_list(bad).is_err(), "{bad}");
        }
        assert_eq!(bulk_path("7FE00010").unwrap(), [(Tag(0x7FE0, 0x0010), None)]);
        let nested = bulk_path("52009230/3/00281050").unwrap();
        assert_eq!(
            nested,
            [(Tag(0x5200, 0x9230), Some(3)), (Tag(0x0028, 0x1050), None)]
        );
        for bad in ["", "7FE00010/0", "x", "52009230/x/00281050"] {
            assert!(bulk_path(bad).is_err(), "{bad}");
        }
    }
}
