//! Storage commitment over HTTP: `POST /dicom-web/commitment-requests/{transaction}`, and `GET` for the answer.
//!
//! What can be looked at within some seconds is answered at once (200); a larger request is answered later (202), and the
//! client comes back for it.
//! Instances are named one by one (ReferencedSOPSequence); by studies they are not taken, and the refusal says so.
//!
//! Source: PS3.18 chapter 13 and annex J.

use super::{
    attribute::{self, Dataset},
    datasets,
    media::{Accept, Form},
    ups::{OtherBody, OtherTypes, Strangers},
};
use crate::{
    db::commitment::Requested,
    domain::uid::Uid,
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
    receive::ReceiveError,
    workitem::dataset as read,
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::{Value, json};

/// When a client should come back for an answer that takes long.
const COME_BACK: &str = "5";
/// Instances of one request.
const MOST: usize = 100_000;

fn transaction(text: &str) -> Result<Uid, HttpError> {
    super::uid(text, "Transaction UID")
}

/// The instances that a request names.
fn instances(dataset: &Dataset) -> Result<Vec<(String, String)>, HttpError> {
    let refused = |text: &str| Err(HttpError::BadRequest(text.to_owned()));
    let named: Vec<&Dataset> = read::items(dataset, tags::REFERENCED_SOP_SEQUENCE).collect();
    if named.is_empty() {
        return refused(
            "name the instances one by one in ReferencedSOPSequence (0008,1199); by ReferencedStudySequence they are \
             not taken here",
        );
    }
    if named.len() > MOST {
        return refused("a request names at most 100000 instances; split it");
    }
    named
        .into_iter()
        .map(|item| {
            let uid = |tag: Tag, name: &str| {
                Uid::parse(read::text(item, tag)).map(String::from).map_err(|_| {
                    HttpError::BadRequest(format!("an item of ReferencedSOPSequence has no UID as {name}"))
                })
            };
            Ok((
                uid(tags::REFERENCED_SOP_CLASS_UID, "ReferencedSOPClassUID")?,
                uid(tags::REFERENCED_SOP_INSTANCE_UID, "ReferencedSOPInstanceUID")?,
            ))
        })
        .collect()
}

/// The Storage Commitment Response Module (PS3.18 table J.2-1).
fn answer(asked: &Requested) -> Dataset {
    let (mut committed, mut failed) = (Vec::new(), Vec::new());
    let failures = asked.failures.iter().flat_map(|failures| failures.iter());
    for ((class, uid), reason) in asked.instances.iter().zip(failures) {
        let mut item = Dataset::new();
        attribute::put(&mut item, tags::REFERENCED_SOP_CLASS_UID, vec![json!(class)]);
        attribute::put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, vec![json!(uid)]);
        match reason {
            None => committed.push(Value::Object(item)),
            Some(reason) => {
                attribute::put(&mut item, tags::FAILURE_REASON, vec![json!(reason)]);
                failed.push(Value::Object(item));
            }
        }
    }
    let mut dataset = Dataset::new();
    for (tag, items) in [
        (tags::FAILED_SOP_SEQUENCE, failed),
        (tags::REFERENCED_SOP_SEQUENCE, committed),
    ] {
        if !items.is_empty() {
            attribute::put(&mut dataset, tag, items);
        }
    }
    dataset
}

/// Waits for the answer, but not for long.
async fn respond(app: App, transaction: Uid, form: Form) -> Result<Response, HttpError> {
    let wait = app.limits.wait;
    // On its own: it is finished and written down although the client has gone.
    let looking = tokio::spawn(async move { app.receiver.commitment(transaction.as_str()).await });
    let looked = match tokio::time::timeout(wait, looking).await {
        Ok(looked) => looked.unwrap_or(Err(ReceiveError::Interrupted)),
        Err(_) => {
            return Ok((StatusCode::ACCEPTED, [(header::RETRY_AFTER, COME_BACK)]).into_response());
        }
    };
    let asked =
        looked.map_err(|error| HttpError::of(error.class(), "answering storage commitment", error))?;
    match asked {
        Some(asked) => Ok(datasets::one(form, answer(&asked))),
        None => Err(HttpError::NotFound(
            "nothing was asked under that Transaction UID".to_owned(),
        )),
    }
}

/// How it is said that nobody can look now, for the OpenAPI document.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
enum Away {
    /// the database or the archive is away
    #[response(status = 503)]
    Now(Problem),
}

/// Asks whether instances are kept.
#[utoipa::path(
    post, path = "/dicom-web/commitment-requests/{transaction}", tag = "storage commitment",
    operation_id = "request_commitment",
    params(("transaction" = String, Path, description = "a new UID, the client's own")),
    request_body(content_type = "application/dicom+json", description = "ReferencedSOPSequence; XML, too"),
    responses(
        (status = 200, description = "what is kept and what is not, with the reasons", content_type = "application/dicom+json"),
        (status = 202, description = "it takes longer: ask for the answer by GET"),
        (status = 400, description = "the request names no instances, or one without UIDs", body = Problem),
        Strangers,
        OtherTypes,
        (status = 409, description = "the Transaction UID is in use", body = Problem),
        OtherBody,
        Away,
    )
)]
pub(crate) async fn request(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let uid = transaction(&uid)?;
    let form = datasets::one_form(&Accept::new(&headers, None))?;
    let dataset = super::ups::read_dataset(&headers, body)
        .await?
        .unwrap_or_default();
    let named = instances(&dataset)?;
    let asked = app
        .receiver
        .ask_commitment(uid.as_str(), &named, &principal.name)
        .await;
    if !asked.map_err(|error| HttpError::of(error.class(), "asking for storage commitment", error))? {
        return Err(HttpError::Conflict(
            "the Transaction UID is in use; ask under a new one, or for its answer by GET".to_owned(),
        ));
    }
    respond(app, uid, form).await
}

/// Gives the answer to an earlier request.
#[utoipa::path(
    get, path = "/dicom-web/commitment-requests/{transaction}", tag = "storage commitment",
    operation_id = "check_commitment",
    params(("transaction" = String, Path, description = "the UID of the request")),
    responses(
        (status = 200, description = "what was kept and what was not when it was asked", content_type = "application/dicom+json"),
        (status = 202, description = "it takes longer still"),
        (status = 400, description = "the path is malformed", body = Problem),
        Strangers,
        (status = 404, description = "nothing was asked under that UID", body = Problem),
        OtherTypes,
        Away,
    )
)]
pub(crate) async fn check(
    State(app): State<App>,
    Path(uid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let uid = transaction(&uid)?;
    let form = datasets::one_form(&Accept::new(&headers, None))?;
    respond(app, uid, form).await
}
