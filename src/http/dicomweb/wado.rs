//! WADO-RS: stored instances → the files as sent, their metadata, frames and bulk data.
//!
//! Without a transfer syntax in Accept objects are sent in Explicit VR Little Endian, as PS3.18 wants;
//! `transfer-syntax=*` gives the stored bytes, and an object that is stored as asked is never re-encoded.
//! Whatever has to be decided is decided before the first byte: a status of 200 is not taken back.
//! Compressed frames are sent decoded, or as they are stored to who names their media type; nothing is compressed here.
//! Pixels may be kept by a browser for good under their address; objects and metadata are asked for again, since what is
//! said around the pixels may be corrected.
//!
//! Source: PS3.18 sections 8.7 and 10.4.

use super::{
    attribute::{self, Dataset},
    datasets,
    media::{self, EXPLICIT_VR_LITTLE_ENDIAN, Form, OCTETS, Offer, Syntax},
    parts::{Keep, Part, Validator, multipart, whole_multipart},
    retrieve::{
        Evicted, OfFrames, OfInstance, OfSeries, OfStudy, Refused, Retrieval, decode, edition, read,
        read_coerced,
    },
};
use crate::{
    archive::Archive,
    db::qido::StoredFile,
    dicom::{coerce::Coercion, fragments, transcode},
    http::error::HttpError,
};
use axum::response::Response;
use bytes::Bytes;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use futures::{StreamExt, stream};
use std::sync::Arc;

const DICOM: &str = "application/dicom";

/// Whole objects.
async fn objects(asked: Retrieval, single: bool) -> Result<Response, HttpError> {
    let instances = asked.find().await?;
    let offers = asked.accept().offers(DICOM, single);
    let Some(multiple) = offers.first().map(|offer| offer.multipart) else {
        let text = "objects are sent as multipart/related; type=\"application/dicom\", a single one also as \
                    application/dicom; accept one of them";
        return Err(HttpError::NotAcceptable(text.to_owned()));
    };
    let mut sendings = Vec::with_capacity(instances.len());
    for instance in &instances {
        sendings.push(Sending::choose(instance, &offers)?);
    }
    let coercion = asked.coercion().await?;
    let edition = edition(coercion.as_deref());
    let mut pieces: Vec<&str> = vec![&edition];
    pieces.extend(
        sendings
            .iter()
            .flat_map(|sending| [sending.archive_key.as_str(), &sending.syntax]),
    );
    let validator = Validator::new(Keep::WhileTheSame, &pieces);
    if let Some(answer) = validator.not_modified(&asked.headers) {
        return Ok(answer);
    }
    let archive = asked.app.archive.clone();
    let mut sendings = sendings.into_iter();
    // The first object is read before the head of the answer, so that a fault there is told as one.
    let Some(first) = sendings.next() else {
        return Err(HttpError::NotFound("nothing is stored".to_owned()));
    };
    let first = first.read(&archive, coercion.clone()).await?;
    if !multiple {
        return Ok(validator.mark(first.alone(&asked.headers)));
    }
    let parts = async_stream::try_stream! {
        yield first;
        for sending in sendings {
            yield sending.read(&archive, coercion.clone()).await?;
        }
    };
    Ok(validator.mark(multipart(DICOM, parts)))
}

/// Every attribute but bulk data, which is linked.
async fn metadata(asked: Retrieval, single: bool) -> Result<Response, HttpError> {
    let form = datasets::list_form(&asked.accept(), single)?;
    let documents = asked.documents().await?;
    let (written, root) = (format!("{form:?}"), asked.links().study(""));
    let edition = edition(asked.coercion().await?.as_deref());
    let mut pieces: Vec<&str> = vec![&written, &root, &edition];
    pieces.extend(documents.iter().map(|document| document.archive_key.as_str()));
    let validator = Validator::new(Keep::WhileTheSame, &pieces);
    if let Some(answer) = validator.not_modified(&asked.headers) {
        return Ok(answer);
    }
    let texts: Vec<String> = documents
        .iter()
        .map(|document| {
            let url = asked.url(&document.series_instance_uid, &document.sop_instance_uid);
            // A quote within a value is written with a backslash, so this is found in front of links only.
            let linked = format!("\"BulkDataURI\": \"{url}/bulkdata/");
            document.json.replace("\"BulkDataURI\": \"", &linked)
        })
        .collect();
    let response = match form {
        Form::Json(kind) => datasets::written(kind, &texts),
        Form::Xml | Form::XmlParts => {
            let parsed: Result<Vec<Dataset>, _> =
                texts.iter().map(|text| serde_json::from_str(text)).collect();
            datasets::list(
                form,
                parsed.map_err(|error| HttpError::Internal {
                    what: "reading metadata",
                    source: error.into(),
                })?,
            )
        }
    };
    Ok(validator.mark(response))
}

/// Whether octets are sent in several parts; 406 when they are not accepted uncompressed.
fn octets(asked: &Retrieval, single: bool) -> Result<bool, HttpError> {
    let offers = asked.accept().offers(OCTETS, single);
    let fits = |offer: &&Offer| offer.syntax.takes_as_stored(EXPLICIT_VR_LITTLE_ENDIAN);
    offers.iter().find(fits).map(|offer| offer.multipart).ok_or_else(|| {
        let text = "this is sent uncompressed, as multipart/related; type=\"application/octet-stream\" or, when it is \
                    one value, as application/octet-stream; accept one of them, with transfer-syntax=*";
        HttpError::NotAcceptable(text.to_owned())
    })
}

fn octets_part(value: impl Into<Bytes>) -> Part {
    Part::new(
        format!("{OCTETS}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}"),
        value,
    )
}

/// Single frames of one instance: compressed as they are stored for who names their media type, else decoded.
async fn frames_of(asked: Retrieval) -> Result<Response, HttpError> {
    let wanted = asked.frames.clone().unwrap_or_default();
    let instance = asked.find_one().await?;
    let stored = instance
        .transfer_syntax_uid
        .trim_end_matches(['\0', ' '])
        .to_owned();
    let Some(form) = asked.accept().frames(&stored, wanted.len() == 1) else {
        let own = media::compressed(&stored).map_or(String::new(), |kind| {
            format!(", or compressed as they are stored, type=\"{kind}\"; transfer-syntax={stored}")
        });
        return Err(HttpError::NotAcceptable(format!(
            "frames are sent uncompressed, as multipart/related; type=\"{OCTETS}\" with transfer-syntax=*{own}; \
             accept one of them, or for a single frame that media type itself"
        )));
    };
    let list = format!("{wanted:?} {form:?}");
    let validator = Validator::new(Keep::ForGood, &[&instance.archive_key, "frames", &list]);
    if let Some(answer) = validator.not_modified(&asked.headers) {
        return Ok(answer);
    }
    let bytes = read(&asked.app.archive, &instance.archive_key).await?;
    let mut frames: Vec<Bytes> = decode(move || match form.compressed {
        Some(_) => {
            let frames = fragments::stored_frames(&bytes, &wanted)?;
            Ok(frames.into_iter().map(Bytes::from).collect())
        }
        None => transcode::cut_frames(&bytes, &wanted),
    })
    .await?;
    let part = |frame: Bytes| match form.compressed {
        Some(kind) => Part::new(format!("{kind}; transfer-syntax={stored}"), frame),
        None => octets_part(frame),
    };
    Ok(validator.mark(match frames.pop() {
        Some(frame) if !form.multipart && frames.is_empty() => part(frame).alone(&asked.headers),
        last => {
            let parts = frames.into_iter().chain(last).map(part).collect();
            whole_multipart(form.compressed.unwrap_or(OCTETS), parts)
        }
    }))
}

/// One value of one instance.
async fn value_of(asked: Retrieval) -> Result<Response, HttpError> {
    let multiple = octets(&asked, true)?;
    let instance = asked.find_one().await?;
    let place = asked.place.clone().unwrap_or_default();
    let list = format!("{place:?} {multiple}");
    let validator = Validator::new(Keep::ForGood, &[&instance.archive_key, "value", &list]);
    if let Some(answer) = validator.not_modified(&asked.headers) {
        return Ok(answer);
    }
    let bytes = read(&asked.app.archive, &instance.archive_key).await?;
    let value = decode(move || transcode::value_at(&bytes, &place)).await?;
    let none = || HttpError::NotFound("the instance has no such bulk data".to_owned());
    let part = octets_part(value.ok_or_else(none)?);
    Ok(validator.mark(if multiple {
        whole_multipart(OCTETS, vec![part])
    } else {
        part.alone(&asked.headers)
    }))
}

/// Every large value of instances, or only their pixels, each a part with its address.
async fn bulk_of(asked: Retrieval, only_pixels: bool) -> Result<Response, HttpError> {
    octets(&asked, false)?;
    let mut wanted = Vec::new();
    for document in asked.documents().await? {
        let url = asked.url(&document.series_instance_uid, &document.sop_instance_uid);
        let mut places = Vec::new();
        if let Ok(dataset) = serde_json::from_str(&document.json) {
            attribute::bulk_places(&dataset, &mut Vec::new(), &mut places);
        }
        if only_pixels {
            places.retain(|place| {
                matches!(
                    place[..],
                    [(
                        tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA,
                        None
                    )]
                )
            });
        }
        if !places.is_empty() {
            wanted.push((document.archive_key, url, places));
        }
    }
    let archive = asked.app.archive.clone();
    let mut parts = stream::iter(wanted)
        .then(move |(key, url, places)| bulk_parts(archive.clone(), key, url, places))
        .boxed();
    // The first instance is read before the head of the answer, so that a fault there is told as one.
    let Some(first) = parts.next().await else {
        return Err(HttpError::NotFound("there is no bulk data in it".to_owned()));
    };
    let first = first?;
    let rest = parts.flat_map(|of_one| match of_one {
        Ok(parts) => stream::iter(parts.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    });
    Ok(multipart(
        OCTETS,
        stream::iter(first.into_iter().map(Ok)).chain(rest),
    ))
}

type Place = Vec<(Tag, Option<usize>)>;

async fn bulk_parts(
    archive: Archive,
    key: String,
    url: String,
    places: Vec<Place>,
) -> Result<Vec<Part>, HttpError> {
    let bytes = read(&archive, &key).await?;
    decode(move || {
        let mut parts = Vec::with_capacity(places.len());
        for place in places {
            let value = match transcode::value_at(&bytes, &place) {
                // Compressed pixels are sent decoded, frame after frame.
                Err(transcode::TranscodeError::NotBulk) => Some(transcode::all_frames(&bytes)?),
                value => value?,
            };
            let path: Vec<String> = place
                .iter()
                .map(|(tag, item)| match item {
                    Some(item) => format!("{}/{item}", attribute::key(*tag)),
                    None => attribute::key(*tag),
                })
                .collect();
            let location = format!("{url}/bulkdata/{}", path.join("/"));
            parts.extend(value.map(|value| octets_part(value).at(location)));
        }
        Ok(parts)
    })
    .await
}

/// One object and the form in which it goes.
struct Sending {
    archive_key: String,
    syntax: String,
    transcode: bool,
}

impl Sending {
    /// As stored if any offer takes that, else decoded if one takes that.
    fn choose(instance: &StoredFile, offers: &[Offer]) -> Result<Self, HttpError> {
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

    async fn read(self, archive: &Archive, coercion: Option<Arc<Coercion>>) -> Result<Part, HttpError> {
        let kind = format!("{DICOM}; transfer-syntax={}", self.syntax);
        let bytes = read_coerced(archive, &self.archive_key, coercion).await?;
        if !self.transcode {
            return Ok(Part::new(kind, bytes));
        }
        let bytes = decode(move || transcode::to_explicit_vr_little_endian(&bytes)).await?;
        Ok(Part::new(kind, Bytes::from(bytes)))
    }
}

/// Retrieves every instance of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}", tag = "WADO-RS", operation_id = "retrieve_study", params(OfStudy),
    responses((status = 200, description = "the instances", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn study(asked: Retrieval) -> Result<Response, HttpError> {
    objects(asked, false).await
}

/// Retrieves every instance of a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}", tag = "WADO-RS", operation_id = "retrieve_series",
    params(OfSeries),
    responses((status = 200, description = "the instances", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn series(asked: Retrieval) -> Result<Response, HttpError> {
    objects(asked, false).await
}

/// Retrieves one instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}", tag = "WADO-RS",
    operation_id = "retrieve_instance", params(OfInstance),
    responses((status = 200, description = "the instance", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn instance(asked: Retrieval) -> Result<Response, HttpError> {
    objects(asked, true).await
}

/// Retrieves the metadata of a study's instances.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/metadata", tag = "WADO-RS", operation_id = "retrieve_study_metadata",
    params(OfStudy),
    responses((status = 200, description = "one dataset an instance", content_type = "application/dicom+json"), Refused)
)]
pub(crate) async fn study_metadata(asked: Retrieval) -> Result<Response, HttpError> {
    metadata(asked, false).await
}

/// Retrieves the metadata of a series' instances.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/metadata", tag = "WADO-RS",
    operation_id = "retrieve_series_metadata", params(OfSeries),
    responses((status = 200, description = "one dataset an instance", content_type = "application/dicom+json"), Refused)
)]
pub(crate) async fn series_metadata(asked: Retrieval) -> Result<Response, HttpError> {
    metadata(asked, false).await
}

/// Retrieves the metadata of an instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata", tag = "WADO-RS",
    operation_id = "retrieve_instance_metadata", params(OfInstance),
    responses((status = 200, description = "a list of one dataset", content_type = "application/dicom+json"), Refused)
)]
pub(crate) async fn instance_metadata(asked: Retrieval) -> Result<Response, HttpError> {
    metadata(asked, true).await
}

/// Retrieves single frames of an instance, decoded.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", tag = "WADO-RS",
    operation_id = "retrieve_frames", params(OfFrames),
    responses((status = 200, description = "the frames, one a part", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn frames(asked: Retrieval) -> Result<Response, HttpError> {
    frames_of(asked).await
}

/// Retrieves one large value of an instance, as its metadata links it.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata/{path}", tag = "WADO-RS",
    operation_id = "retrieve_bulk_data",
    params(OfInstance, ("path" = String, Path, description = "a tag of 8 hexadecimal digits, or TAG/ITEM/TAG")),
    responses((status = 200, description = "the value", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn bulk_data(asked: Retrieval) -> Result<Response, HttpError> {
    value_of(asked).await
}

/// Retrieves every large value of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/bulkdata", tag = "WADO-RS", operation_id = "retrieve_study_bulk_data",
    params(OfStudy),
    responses((status = 200, description = "the values, each with its address", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn study_bulk_data(asked: Retrieval) -> Result<Response, HttpError> {
    bulk_of(asked, false).await
}

/// Retrieves every large value of a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/bulkdata", tag = "WADO-RS",
    operation_id = "retrieve_series_bulk_data", params(OfSeries),
    responses((status = 200, description = "the values, each with its address", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn series_bulk_data(asked: Retrieval) -> Result<Response, HttpError> {
    bulk_of(asked, false).await
}

/// Retrieves every large value of an instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata", tag = "WADO-RS",
    operation_id = "retrieve_instance_bulk_data", params(OfInstance),
    responses((status = 200, description = "the values, each with its address", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn instance_bulk_data(asked: Retrieval) -> Result<Response, HttpError> {
    bulk_of(asked, false).await
}

/// Retrieves the pixels of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/pixeldata", tag = "WADO-RS", operation_id = "retrieve_study_pixel_data",
    params(OfStudy),
    responses((status = 200, description = "the pixels, an instance a part", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn study_pixel_data(asked: Retrieval) -> Result<Response, HttpError> {
    bulk_of(asked, true).await
}

/// Retrieves the pixels of a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/pixeldata", tag = "WADO-RS",
    operation_id = "retrieve_series_pixel_data", params(OfSeries),
    responses((status = 200, description = "the pixels, an instance a part", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn series_pixel_data(asked: Retrieval) -> Result<Response, HttpError> {
    bulk_of(asked, true).await
}

/// Retrieves the pixels of an instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/pixeldata", tag = "WADO-RS",
    operation_id = "retrieve_instance_pixel_data", params(OfInstance),
    responses((status = 200, description = "the pixels", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn instance_pixel_data(asked: Retrieval) -> Result<Response, HttpError> {
    bulk_of(asked, true).await
}
