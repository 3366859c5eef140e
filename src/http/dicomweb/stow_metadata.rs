//! STOW-RS of metadata and bulk data → the Part 10 files that they mean, staged like any others.
//!
//! Metadata comes first: one part with a list in JSON, or one part a dataset in XML; each further part is a bulk value
//! that the metadata names by its Content-Location. Bulk values wait on the disk, so that one instance at a time is in
//! memory.
//!
//! Source: PS3.18 section 10.5.1.2.

use super::{
    attribute::Dataset,
    media::{DICOM_XML, EXPLICIT_VR_LITTLE_ENDIAN, MediaType},
    multipart::{Multipart, MultipartError, PartHeaders},
    stow::{Interrupted, Parts},
};
use crate::{
    archive::StagedObject,
    dicom::{
        build::{self, Bulk},
        xml,
    },
    http::{App, error::HttpError},
    receive::outcome::reason,
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use serde_json::Value;
use std::{collections::HashMap, convert::Infallible};

/// The longest metadata of a request: a study of thousands of instances has some ten MB.
const MAX_METADATA_BYTES: usize = 256 << 20;

/// A bulk value on the disk.
struct Waiting {
    staged: StagedObject,
    compressed: Option<String>,
}

/// Reads a whole request and stages the instances that it describes.
pub(super) async fn read<S, E>(app: &App, multipart: &mut Multipart<S>) -> Result<Parts, HttpError>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
{
    let mut parts = Parts::default();
    let mut datasets: Vec<Dataset> = Vec::new();
    let mut bulk: HashMap<String, Waiting> = HashMap::new();
    loop {
        let headers = match multipart.next_part().await {
            Ok(Some(headers)) => headers,
            Ok(None) => break,
            Err(error) => return Err(broken(&error)),
        };
        parts.count += 1;
        let kind = headers.get("content-type").and_then(MediaType::parse);
        let essence = kind
            .as_ref()
            .map(|kind| kind.essence.as_str())
            .unwrap_or_default();
        match (essence, headers.get("content-location")) {
            ("application/dicom+json" | "application/json", None) => {
                let text = whole(multipart).await?;
                datasets.extend(json(&text, parts.count)?);
            }
            (DICOM_XML, None) => {
                let text = whole(multipart).await?;
                let text = std::str::from_utf8(&text).map_err(|_| no_metadata(parts.count))?;
                datasets.push(xml::from_xml(text).map_err(|error| HttpError::BadRequest(error.to_string()))?);
            }
            (_, Some(location)) => {
                let location = location.to_owned();
                let compressed = compressed(kind.as_ref());
                let (staged, bytes) = stage(app, multipart, &headers, parts.count).await?;
                parts.bytes += bytes;
                bulk.insert(location, Waiting { staged, compressed });
            }
            _ => {
                return Err(HttpError::UnsupportedMediaType(format!(
                    "part {} is neither metadata in application/dicom+json or application/dicom+xml nor bulk data \
                     with a Content-Location",
                    parts.count
                )));
            }
        }
    }
    if datasets.is_empty() {
        return Err(no_metadata(1));
    }
    for dataset in datasets {
        match assemble(app, &dataset, &bulk).await? {
            Ok(file) => {
                let bytes = stream::iter([Ok::<_, Infallible>(Bytes::from(file))]);
                let staged = app.receiver.stage(bytes).await;
                parts
                    .staged
                    .push(staged.map_err(|error| HttpError::of(error.class(), "storing a part", error))?);
            }
            Err(error) => parts.fail(reason::CANNOT_UNDERSTAND, error.to_string()),
        }
    }
    Ok(parts)
}

fn no_metadata(part: usize) -> HttpError {
    HttpError::BadRequest(format!(
        "part {part} holds no metadata: a list of datasets in the DICOM JSON model, or a Native DICOM Model"
    ))
}

fn broken(error: &MultipartError) -> HttpError {
    match error {
        MultipartError::TooLarge { .. } => HttpError::TooLarge(error.to_string()),
        _ => HttpError::BadRequest(error.to_string()),
    }
}

async fn whole<S, E>(multipart: &mut Multipart<S>) -> Result<Bytes, HttpError>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
{
    let mut text = BytesMut::new();
    let mut chunks = multipart.body();
    while let Some(chunk) = chunks.next().await {
        text.extend_from_slice(&chunk.map_err(|error| broken(&error))?);
        if text.len() > MAX_METADATA_BYTES {
            return Err(HttpError::TooLarge(format!(
                "the metadata passes {MAX_METADATA_BYTES} bytes; send the study in several requests"
            )));
        }
    }
    Ok(text.freeze())
}

/// One dataset, or a list of them.
fn json(text: &[u8], part: usize) -> Result<Vec<Dataset>, HttpError> {
    let value: Value = serde_json::from_slice(text).map_err(|_| no_metadata(part))?;
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    list.into_iter()
        .map(|value| match value {
            Value::Object(dataset) => Ok(dataset),
            _ => Err(no_metadata(part)),
        })
        .collect()
}

/// The transfer syntax of a bulk value that is not sent plainly.
fn compressed(kind: Option<&MediaType>) -> Option<String> {
    let syntax = kind?.parameter("transfer-syntax")?;
    (syntax != EXPLICIT_VR_LITTLE_ENDIAN).then(|| syntax.to_owned())
}

async fn stage<S, E>(
    app: &App,
    multipart: &mut Multipart<S>,
    headers: &PartHeaders,
    part: usize,
) -> Result<(StagedObject, u64), HttpError>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
{
    if headers.get("content-encoding").is_some() {
        let text = format!("part {part} is encoded; send bulk data as it is");
        return Err(HttpError::UnsupportedMediaType(text));
    }
    let (mut length, mut fault) = (0, None);
    let stream = multipart.body().map(|chunk| {
        let chunk = chunk.map_err(|error| {
            fault = Some(broken(&error));
            Interrupted
        })?;
        length += chunk.len() as u64;
        Ok::<_, Interrupted>(chunk)
    });
    let staged = app.archive.stage(stream, app.limits.part_bytes).await;
    match (staged, fault) {
        (Ok(staged), _) => Ok((staged, length)),
        (Err(_), Some(fault)) => Err(fault),
        (Err(error), None) => Err(HttpError::of(error.class(), "storing a part", error)),
    }
}

/// The file of one dataset; the inner error is the instance's own.
async fn assemble(
    app: &App,
    dataset: &Dataset,
    bulk: &HashMap<String, Waiting>,
) -> Result<Result<Vec<u8>, build::BuildError>, HttpError> {
    let mut needed = Vec::new();
    uris(dataset, &mut needed);
    let mut values: HashMap<String, Bulk> = HashMap::new();
    for uri in needed {
        let Some(waiting) = bulk.get(&uri) else {
            continue;
        };
        let bytes = app.archive.read_staged(&waiting.staged).await;
        let bytes = bytes.map_err(|error| HttpError::of(error.class(), "reading a part", error))?;
        let compressed = waiting.compressed.clone();
        values.insert(
            uri,
            Bulk {
                bytes: bytes.to_vec(),
                compressed,
            },
        );
    }
    let dataset = dataset.clone();
    tokio::task::spawn_blocking(move || build::part10(&dataset, &mut |uri| values.remove(uri)))
        .await
        .map_err(|error| HttpError::Internal {
            what: "writing an instance",
            source: error.into(),
        })
}

fn uris(dataset: &Dataset, found: &mut Vec<String>) {
    for attribute in dataset.values() {
        found.extend(attribute["BulkDataURI"].as_str().map(str::to_owned));
        for item in attribute["Value"].as_array().into_iter().flatten() {
            if let Some(item) = item.as_object() {
                uris(item, found);
            }
        }
    }
}
