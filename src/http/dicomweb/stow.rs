//! STOW-RS: `POST /dicom-web/studies[/{study}]` → instances stored, and an answer that says what became of each part.
//!
//! Parts are staged while they arrive and stored together at the end of the request.
//! A part that cannot be taken does not take the others with it, and of a body that breaks off everything complete
//! before the break is stored and acknowledged.
//! What is refused is read to its end, so that the client gets to see why.
//! Metadata with bulk data beside it becomes files first: see `stow_metadata`.
//!
//! Source: PS3.18 section 10.5 and annex I.

use super::{
    Links, attribute, datasets,
    media::{Accept, DICOM_XML, Form, MediaType},
    multipart::{Multipart, MultipartError, PartHeaders},
    stow_metadata,
};
use crate::{
    archive::ArchiveError,
    db::audit::Act,
    domain::uid::Uid,
    http::{
        App,
        auth::Principal,
        body,
        error::{HttpError, Problem},
    },
    receive::{FailedInstance, ReceiveError, Staged, StoreOutcome, outcome::reason},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use dicom_dictionary_std::tags;
use futures::StreamExt;
use serde_json::{Value, json};

/// The longest text of an LO attribute (PS3.5 table 6.2-1).
const LO_CHARACTERS: usize = 64;
/// The most Warning headers of one answer: proxies limit the size of a header block.
const MAX_WARNINGS: usize = 8;

/// Stores instances of any studies.
///
/// 200: all stored; 202: some stored, or stored with a warning; 409: none stored. The body says why, part by part.
#[utoipa::path(
    post, path = "/dicom-web/studies", tag = "STOW-RS", operation_id = "store_instances",
    request_body(
        content = Vec<u8>, content_type = "multipart/related",
        description = "multipart/related; type=\"application/dicom\": one Part 10 file a part; \
                       or application/dicom+json or +xml: metadata, then bulk data by Content-Location",
    ),
    responses(
        (status = 200, description = "all instances are stored", content_type = "application/dicom+json"),
        (status = 202, description = "some are stored, or stored with a warning", content_type = "application/dicom+json"),
        (status = 400, description = "the multipart body is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the answer cannot be given as accepted", body = Problem),
        (status = 409, description = "no instance is stored", content_type = "application/dicom+json"),
        (status = 413, description = "the request or every part of it is too large", body = Problem),
        (status = 415, description = "not multipart/related of a type that is taken", body = Problem),
        (status = 503, description = "the archive is full: its quota is used up, or its disk", body = Problem),
    )
)]
pub(crate) async fn store(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, HttpError> {
    receive(app, principal, None, request).await
}

/// Stores instances of one study; those of another are refused.
#[utoipa::path(
    post, path = "/dicom-web/studies/{study}", tag = "STOW-RS", operation_id = "store_instances_of_study",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    request_body(
        content = Vec<u8>, content_type = "multipart/related",
        description = "multipart/related; type=\"application/dicom\": one Part 10 file a part; \
                       or application/dicom+json or +xml: metadata, then bulk data by Content-Location",
    ),
    responses(
        (status = 200, description = "all instances are stored", content_type = "application/dicom+json"),
        (status = 202, description = "some are stored, or stored with a warning", content_type = "application/dicom+json"),
        (status = 400, description = "the path or the multipart body is malformed", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the answer cannot be given as accepted", body = Problem),
        (status = 409, description = "no instance is stored", content_type = "application/dicom+json"),
        (status = 413, description = "the request or every part of it is too large", body = Problem),
        (status = 415, description = "not multipart/related of a type that is taken", body = Problem),
        (status = 503, description = "the archive is full: its quota is used up, or its disk", body = Problem),
    )
)]
pub(crate) async fn store_in_study(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    request: Request,
) -> Result<Response, HttpError> {
    receive(app, principal, Some(study), request).await
}

/// What a request claims before its body is read.
struct Claim {
    study: Option<Uid>,
    boundary: String,
    /// Whether it is metadata with bulk data, not files.
    is_metadata: bool,
    form: Form,
}

async fn receive(
    app: App,
    principal: Principal,
    study: Option<String>,
    request: Request,
) -> Result<Response, HttpError> {
    let (head, body) = request.into_parts();
    let RawQuery(query) = RawQuery(head.uri.query().map(str::to_owned));
    let claim = check_head(&app, &head.headers, query.as_deref(), study.as_deref());
    let claim = match claim {
        Ok(claim) => claim,
        Err(error) => {
            refuse(&app, &principal, &error, body).await?;
            return Err(error);
        }
    };
    let mut multipart = Multipart::new(body.into_data_stream(), &claim.boundary, app.limits.request_bytes)
        .map_err(|error| HttpError::BadRequest(error.to_string()))?;
    let parts = if claim.is_metadata {
        match stow_metadata::read(&app, &mut multipart).await {
            Ok(parts) => parts,
            Err(error) => {
                multipart.drain().await;
                audit_refusal(&app, &principal, &error).await?;
                return Err(error);
            }
        }
    } else {
        read_parts(&app, &mut multipart).await?
    };
    if parts.ended_by.is_some() {
        multipart.drain().await;
    }
    let (bytes, unreadable) = (parts.bytes, parts.failed.len());
    if parts.staged.is_empty()
        && let Some(error) = parts.nothing_to_store()
    {
        audit_refusal(&app, &principal, &error).await?;
        app.metrics.count_stow(0, unreadable, bytes);
        return Err(error);
    }
    let outcome = keep(&app, parts, claim.study, &principal).await?;
    app.metrics
        .count_stow(outcome.stored.len(), outcome.failed.len(), bytes);
    Ok(answer(&outcome, &Links::new(&head.headers), claim.form))
}

/// Everything that can be refused before the body.
fn check_head(
    app: &App,
    headers: &HeaderMap,
    query: Option<&str>,
    study: Option<&str>,
) -> Result<Claim, HttpError> {
    let study = study
        .map(|text| super::uid(text, "StudyInstanceUID"))
        .transpose()?;
    let accept = super::accept_parameter(query);
    let form = datasets::one_form(&Accept::new(headers, accept.as_deref()))?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(MediaType::parse)
        .filter(|media| media.essence == "multipart/related");
    let wanted = "a store takes Content-Type: multipart/related; boundary=…, with type=\"application/dicom\", \
                  \"application/dicom+json\" or \"application/dicom+xml\"";
    let content_type = content_type.ok_or_else(|| HttpError::UnsupportedMediaType(wanted.to_owned()))?;
    let kind = content_type.parameter("type").map(str::to_ascii_lowercase);
    let is_metadata = match kind.as_deref() {
        None | Some("application/dicom") => false,
        Some("application/dicom+json" | DICOM_XML) => true,
        Some(_) => return Err(HttpError::UnsupportedMediaType(wanted.to_owned())),
    };
    let boundary = content_type
        .parameter("boundary")
        .ok_or_else(|| HttpError::BadRequest("Content-Type names no boundary".to_owned()))?;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    if let Some(bytes) = announced.filter(|&bytes| bytes > app.limits.request_bytes) {
        let limit = app.limits.request_bytes;
        let text =
            format!("the request has {bytes} bytes, {limit} are allowed; send the study in several requests");
        return Err(HttpError::TooLarge(text));
    }
    Ok(Claim {
        study,
        boundary: boundary.to_owned(),
        is_metadata,
        form,
    })
}

/// The parts of a request, read.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) staged: Vec<Staged>,
    failed: Vec<FailedInstance>,
    pub(super) bytes: u64,
    pub(super) count: usize,
    wrong_type: usize,
    no_headers: usize,
    too_large: usize,
    no_room: usize,
    ended_by: Option<MultipartError>,
}

impl Parts {
    pub(super) fn fail(&mut self, failure_reason: u16, text: String) {
        self.failed.push(FailedInstance {
            sop_class_uid: None,
            sop_instance_uid: None,
            failure_reason,
            text,
        });
    }

    /// The error of a request of which no part could even be staged.
    fn nothing_to_store(&self) -> Option<HttpError> {
        match &self.ended_by {
            Some(MultipartError::TooLarge { limit }) => {
                let text = format!(
                    "the request passes the limit of {limit} bytes; send the study in several requests"
                );
                return Some(HttpError::TooLarge(text));
            }
            Some(error) => return Some(HttpError::BadRequest(error.to_string())),
            None => {}
        }
        let first = || {
            self.failed
                .first()
                .map(|failed| failed.text.clone())
                .unwrap_or_default()
        };
        if self.count == 0 {
            Some(HttpError::BadRequest("the multipart body has no part".to_owned()))
        } else if self.wrong_type == self.count {
            Some(HttpError::UnsupportedMediaType(first()))
        } else if self.too_large == self.count {
            Some(HttpError::TooLarge(first()))
        } else if self.no_room == self.count {
            Some(HttpError::Full(first()))
        } else if self.no_headers == self.count {
            Some(HttpError::BadRequest(first()))
        } else {
            None
        }
    }
}

/// Why the bytes of a part stopped coming; what it was is kept beside the stream.
#[derive(Debug, thiserror::Error)]
#[error("the part ended early")]
pub(super) struct Interrupted;

async fn read_parts<S, E>(app: &App, multipart: &mut Multipart<S>) -> Result<Parts, HttpError>
where
    S: futures::Stream<Item = Result<bytes::Bytes, E>> + Send + Unpin,
{
    let mut parts = Parts::default();
    loop {
        let headers = match multipart.next_part().await {
            Ok(Some(headers)) => headers,
            Ok(None) => return Ok(parts),
            Err(error) => {
                // Without a single part there is nothing beside which this would be reported.
                if parts.count > 0 {
                    parts.fail(fault_reason(&error), error.to_string());
                }
                parts.ended_by = Some(error);
                return Ok(parts);
            }
        };
        parts.count += 1;
        if let Some(text) = wrong_headers(&headers, parts.count) {
            if headers.lines.is_empty() {
                parts.no_headers += 1;
            } else {
                parts.wrong_type += 1;
            }
            parts.fail(reason::CANNOT_UNDERSTAND, text);
            continue;
        }
        let (limit, mut length, mut broken, mut too_large) = (app.limits.part_bytes, 0, None, false);
        let stream = multipart.body().map(|chunk| {
            let chunk = chunk.map_err(|error| {
                broken = Some(error);
                Interrupted
            })?;
            length += chunk.len() as u64;
            too_large = length > limit;
            if too_large { Err(Interrupted) } else { Ok(chunk) }
        });
        let staged = app.receiver.stage(stream).await;
        parts.bytes += length;
        match (staged, broken) {
            (Ok(staged), _) => parts.staged.push(staged),
            (Err(_), Some(error)) => {
                parts.fail(fault_reason(&error), error.to_string());
                parts.ended_by = Some(error);
                return Ok(parts);
            }
            (Err(error @ ReceiveError::Full(_)), None) => {
                parts.no_room += 1;
                parts.fail(reason::OUT_OF_RESOURCES, error.to_string());
            }
            (Err(error), None) => {
                if !too_large && !matches!(error, ReceiveError::Archive(ArchiveError::TooLarge { .. })) {
                    return Err(HttpError::of(error.class(), "storing a part", error));
                }
                parts.too_large += 1;
                let text = format!(
                    "part {} passes the limit of {limit} bytes for one instance",
                    parts.count
                );
                parts.fail(reason::OUT_OF_RESOURCES, text);
            }
        }
    }
}

/// Failure Reason of a body that cannot be read on.
fn fault_reason(error: &MultipartError) -> u16 {
    match error {
        MultipartError::TooLarge { .. } => reason::OUT_OF_RESOURCES,
        _ => reason::CANNOT_UNDERSTAND,
    }
}

/// What is wrong with a part's headers: it needs some, and its type, if it names one, must be DICOM.
fn wrong_headers(headers: &PartHeaders, part: usize) -> Option<String> {
    if headers.lines.is_empty() {
        return Some(format!(
            "part {part} has no headers; each needs Content-Type: application/dicom"
        ));
    }
    let kind = headers.get("content-type")?;
    let fits = MediaType::parse(kind).is_some_and(|media| media.essence == "application/dicom");
    (!fits).then(|| format!("part {part} is not of Content-Type application/dicom"))
}

/// Stores what was staged; goes on to its end even if the client goes away now.
async fn keep(
    app: &App,
    parts: Parts,
    study: Option<Uid>,
    principal: &Principal,
) -> Result<StoreOutcome, HttpError> {
    let (receiver, name) = (app.receiver.clone(), principal.name.clone());
    let staged = parts.staged;
    let mut outcome = if staged.is_empty() {
        StoreOutcome::default()
    } else {
        tokio::spawn(async move { receiver.store(staged, study.as_ref(), &name).await })
            .await
            .map_err(|error| HttpError::Internal {
                what: "storing instances",
                source: error.into(),
            })?
            .map_err(|error| HttpError::of(error.class(), "storing instances", error))?
    };
    outcome.failed.extend(parts.failed);
    Ok(outcome)
}

/// The Store Instances Response (PS3.18 annex I) with its status.
fn answer(outcome: &StoreOutcome, links: &Links, form: Form) -> Response {
    let warned = outcome.stored.iter().any(|stored| stored.warning.is_some());
    let status = match (outcome.stored.is_empty(), outcome.failed.is_empty()) {
        (true, _) => StatusCode::CONFLICT,
        (false, true) if !warned => StatusCode::OK,
        (false, _) => StatusCode::ACCEPTED,
    };
    let mut texts: Vec<&str> = Vec::new();
    let mut response = attribute::Dataset::new();
    let mut studies: Vec<&str> = outcome
        .stored
        .iter()
        .map(|stored| stored.study_instance_uid.as_str())
        .collect();
    studies.dedup();
    let url = match studies[..] {
        [study] => vec![json!(links.study(study))],
        _ => Vec::new(),
    };
    attribute::put(&mut response, tags::RETRIEVE_URL, url);
    let mut stored = Vec::new();
    for instance in &outcome.stored {
        let mut item = attribute::Dataset::new();
        attribute::put(
            &mut item,
            tags::REFERENCED_SOP_CLASS_UID,
            vec![json!(instance.sop_class_uid)],
        );
        attribute::put(
            &mut item,
            tags::REFERENCED_SOP_INSTANCE_UID,
            vec![json!(instance.sop_instance_uid)],
        );
        let (study, series) = (
            instance.study_instance_uid.as_str(),
            instance.series_instance_uid.as_str(),
        );
        let url = links.instance(study, series, instance.sop_instance_uid.as_str());
        attribute::put(&mut item, tags::RETRIEVE_URL, vec![json!(url)]);
        if let Some(warning) = &instance.warning {
            attribute::put(&mut item, tags::WARNING_REASON, vec![json!(warning.reason)]);
            attribute::put(&mut item, tags::ERROR_COMMENT, vec![json!(short(&warning.text))]);
            texts.push(&warning.text);
        }
        stored.push(Value::Object(attribute::sorted(item)));
    }
    let (mut failed, mut other) = (Vec::new(), Vec::new());
    for instance in &outcome.failed {
        let mut item = attribute::Dataset::new();
        attribute::put(
            &mut item,
            tags::FAILURE_REASON,
            vec![json!(instance.failure_reason)],
        );
        attribute::put(&mut item, tags::ERROR_COMMENT, vec![json!(short(&instance.text))]);
        texts.push(&instance.text);
        let (Some(class), Some(sop)) = (&instance.sop_class_uid, &instance.sop_instance_uid) else {
            // An item of Failed SOP Sequence must name its instance; one that cannot be named goes here.
            other.push(Value::Object(attribute::sorted(item)));
            continue;
        };
        attribute::put(&mut item, tags::REFERENCED_SOP_CLASS_UID, vec![json!(class)]);
        attribute::put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, vec![json!(sop)]);
        failed.push(Value::Object(attribute::sorted(item)));
    }
    for (tag, items) in [
        (tags::REFERENCED_SOP_SEQUENCE, stored),
        (tags::FAILED_SOP_SEQUENCE, failed),
        (tags::OTHER_FAILURES_SEQUENCE, other),
    ] {
        if !items.is_empty() {
            attribute::put(&mut response, tag, items);
        }
    }
    let mut response = datasets::one(form, attribute::sorted(response));
    *response.status_mut() = status;
    texts.dedup();
    for text in texts.into_iter().take(MAX_WARNINGS) {
        if let Some(value) = warning(text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// A Warning header of code 299 (PS3.18 section 8.3.4.2 has the form).
pub(super) fn warning(text: &str) -> Option<HeaderValue> {
    let plain: String = text
        .chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .collect();
    HeaderValue::from_str(&format!("299 ictus: {plain}")).ok()
}

/// The beginning of a text, as long as an LO attribute may be; the whole is in the Warning header.
fn short(text: &str) -> String {
    if text.chars().count() <= LO_CHARACTERS {
        return text.replace('\\', "/");
    }
    let mut cut: String = text.chars().take(LO_CHARACTERS - 1).collect();
    if let Some(space) = cut.rfind(' ') {
        cut.truncate(space);
    }
    cut.push('…');
    cut.replace('\\', "/")
}

/// Audits a refusal and reads the body that goes with it.
async fn refuse(app: &App, principal: &Principal, error: &HttpError, body: Body) -> Result<(), HttpError> {
    body::drain(body).await;
    audit_refusal(app, principal, error).await
}

async fn audit_refusal(app: &App, principal: &Principal, error: &HttpError) -> Result<(), HttpError> {
    let act = Act {
        principal: &principal.name,
        act: "refuse",
        studies: Vec::new(),
        detail: json!({ "request": "stow", "status": error.status().as_u16(), "reason": error.to_string() }),
    };
    app.db
        .audit_act(&act)
        .await
        .map_err(|error| HttpError::of(error.class(), "auditing a refusal", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_reasons_to_what_an_attribute_holds() {
        let long = "a sentence that is quite a bit longer than sixty-four characters, by some";
        let cut = short(long);
        assert!(cut.chars().count() <= LO_CHARACTERS && cut.ends_with('…'));
        assert_eq!(short("brief\\"), "brief/");
    }

    #[test]
    fn warns_in_plain_ascii() {
        assert_eq!(warning("Müller\r\nX: y").unwrap(), "299 ictus: M?ller??X: y");
    }
}
