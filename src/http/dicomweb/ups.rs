//! UPS-RS: workitems created, found, claimed, updated, ended and watched below `/dicom-web/workitems`.
//!
//! It reads requests and words answers; what a workitem may become is [`crate::workitem`]'s.
//! A refusal has the Warning text that PS3.18 fixes for it, and a sentence of ours in its body.
//! A workitem names a patient: handing it out is reading the studies that it names, and is in the trail as such.
//!
//! Source: PS3.18 chapter 11.

use super::{
    Links,
    attribute::{self, Dataset},
    datasets,
    media::{Accept, DICOM_XML, MediaType},
    qido::{COUNTED, more},
    query::{MAX_RESULTS, WorkitemSearch},
    stow::warning,
};
use crate::{
    db::{audit::Act, error::DbError, workitem::Workitem},
    dicom::xml,
    domain::uid::Uid,
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
    workitem::{Desk, State, Watched, WorkitemError, dataset},
};
use axum::{
    Extension,
    body::{Body, to_bytes},
    extract::{Path, Query, RawQuery, State as Within},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use dicom_dictionary_std::tags;
use serde_json::{Value, json};

/// The longest dataset of a request: an input of ten thousand instances has two MB.
const MAX_BODY_BYTES: usize = 8 << 20;
/// An AE title has at most so many characters (PS3.5 table 6.2-1).
const MAX_TITLE: usize = 16;

const CREATED_WITH_MODIFICATIONS: &str = "The Workitem was created with modifications.";
const ALREADY_CANCELED: &str = "The UPS is already in the requested state of CANCELED.";
const ALREADY_COMPLETED: &str = "The UPS is already in the requested state of COMPLETED.";

/// What is being asked, for the Warning text of its refusal.
#[derive(Clone, Copy)]
enum Asking {
    Update,
    ChangeState,
    Cancel,
    Other,
}

/// A refusal with its status and the Warning text that PS3.18 gives it (11.6.3, 11.7.3, 11.8.3).
fn refusal(error: WorkitemError, asking: Asking) -> Response {
    let inconsistent = match asking {
        Asking::Update => "The submitted request is inconsistent with the current state of the Workitem.",
        _ => "The submitted request is inconsistent with the state of the UPS Instance.",
    };
    let text = error.to_string();
    let (answer, fixed) = match error {
        WorkitemError::Unknown(_) => (HttpError::NotFound(text), None),
        WorkitemError::Exists => (HttpError::Conflict(text), None),
        WorkitemError::TransactionMissing => (
            HttpError::BadRequest(text),
            Some("The Transaction UID is missing."),
        ),
        WorkitemError::TransactionWrong => (
            HttpError::BadRequest(text),
            Some("The Transaction UID is incorrect."),
        ),
        WorkitemError::NotClaimed => (
            HttpError::Conflict(text),
            Some("The target URI did not reference a claimed Workitem."),
        ),
        WorkitemError::Ended(_) => (HttpError::BadRequest(text), Some(inconsistent)),
        WorkitemError::Transition { .. } => (HttpError::Conflict(text), Some(inconsistent)),
        WorkitemError::Completed => (HttpError::Conflict(text), Some("The UPS is already COMPLETED.")),
        WorkitemError::NobodyHears => (
            HttpError::Conflict(text),
            Some("The performer cannot be contacted."),
        ),
        error => (HttpError::of(error.class(), "recording a workitem", error), None),
    };
    let fixed = fixed.filter(|_| !matches!(asking, Asking::Other));
    warned(answer.into_response(), fixed)
}

fn warned(mut response: Response, text: Option<&str>) -> Response {
    if let Some(value) = text.and_then(warning) {
        response.headers_mut().append(header::WARNING, value);
    }
    response
}

fn desk<'a>(app: &'a App, principal: &'a Principal) -> Desk<'a> {
    Desk {
        db: &app.db,
        station: &app.station,
        principal: &principal.name,
    }
}

fn workitem_uid(text: &str) -> Result<Uid, HttpError> {
    super::uid(text, "workitem UID")
}

/// The dataset of a request; nothing when it has no body.
pub(super) async fn read_dataset(headers: &HeaderMap, body: Body) -> Result<Option<Dataset>, HttpError> {
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| {
        HttpError::TooLarge(format!(
            "the body breaks off, or is longer than {MAX_BODY_BYTES} bytes"
        ))
    })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(MediaType::parse);
    let malformed = || {
        HttpError::BadRequest(
            "the body is not one dataset of the DICOM JSON model or the Native DICOM Model".to_owned(),
        )
    };
    match kind.as_ref().map(|kind| kind.essence.as_str()) {
        Some("application/dicom+json" | "application/json") => {
            let value = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
            match value {
                Value::Object(dataset) => Ok(Some(dataset)),
                // Some clients send the list of one that searches answer with.
                Value::Array(mut list) if list.len() == 1 => match list.pop() {
                    Some(Value::Object(dataset)) => Ok(Some(dataset)),
                    _ => Err(malformed()),
                },
                _ => Err(malformed()),
            }
        }
        Some(DICOM_XML) => {
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
            let read = xml::from_xml(text).map_err(|error| HttpError::BadRequest(error.to_string()))?;
            Ok(Some(read))
        }
        _ => Err(HttpError::UnsupportedMediaType(
            "a dataset is sent as application/dicom+json or application/dicom+xml".to_owned(),
        )),
    }
}

/// A UID of the query: under one of these names, or by itself (PS3.18 tables 11.4.1-1 and 11.6.1).
fn uid_of_query(query: Option<&str>, names: &[&str]) -> Result<Option<Uid>, HttpError> {
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let is_named = names.iter().any(|known| name.eq_ignore_ascii_case(known));
        if is_named {
            let why = |why| HttpError::BadRequest(format!("the UID of the query is none: {why}"));
            return Uid::parse(&value).map(Some).map_err(why);
        }
        if value.is_empty()
            && let Ok(uid) = Uid::parse(&name)
        {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

/// The UID of a new workitem: of the query, or of the dataset; one of ours when there is neither.
fn new_uid(query: Option<&str>, dataset: &mut Dataset) -> Result<Uid, HttpError> {
    let of_query = uid_of_query(query, &["workitem", "AffectedSOPInstanceUID"])?;
    let affected = dataset.remove("00001000");
    let own = affected
        .as_ref()
        .and_then(|attribute| attribute["Value"][0].as_str())
        .unwrap_or_else(|| dataset::text(dataset, tags::SOP_INSTANCE_UID));
    let of_dataset = match own {
        "" => None,
        text => Some(
            Uid::parse(text)
                .map_err(|why| HttpError::BadRequest(format!("SOPInstanceUID is no UID: {why}")))?,
        ),
    };
    match (of_query, of_dataset) {
        (Some(a), Some(b)) if a != b => Err(HttpError::BadRequest(
            "the UID of the query and the SOPInstanceUID of the dataset differ".to_owned(),
        )),
        (Some(uid), _) | (None, Some(uid)) => Ok(uid),
        (None, None) => Ok(Uid::derive(&[uuid::Uuid::new_v4().as_bytes()])),
    }
}

/// Group 0000 is of messages, 0002 of files.
fn drop_meta(dataset: &mut Dataset) {
    dataset.retain(|key, _| !key.starts_with("0000") && !key.starts_with("0002"));
}

/// How who may not is refused, for the OpenAPI document.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum Strangers {
    /// no known key
    #[response(status = 401)]
    Unknown(Problem),
    /// the key may not
    #[response(status = 403)]
    Forbidden(Problem),
}

/// How a body of another kind is refused.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum OtherBody {
    /// the body is neither JSON nor XML
    #[response(status = 415)]
    Refused(Problem),
}

/// How it is refused to answer in another type.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum OtherTypes {
    /// the accepted types cannot be sent
    #[response(status = 406)]
    Refused(Problem),
}

/// How an unknown workitem is refused.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
enum NoWorkitem {
    /// there is no such workitem
    #[response(status = 404)]
    Unknown(Problem),
}

/// How an unknown subscription is refused.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
enum NoSubscription {
    /// there is no such subscription
    #[response(status = 404)]
    Unknown(Problem),
}

/// Creates a workitem.
#[utoipa::path(
    post, path = "/dicom-web/workitems", tag = "UPS-RS", operation_id = "create_workitem",
    params(("workitem" = Option<String>, Query, description = "its UID; also as `?UID`, or in the dataset")),
    request_body(content_type = "application/dicom+json", description = "the workitem (PS3.4 table CC.2.5-3); XML, too"),
    responses(
        (status = 201, description = "it is created; Location says where"),
        (status = 400, description = "something that it needs is not there", body = Problem),
        Strangers,
        (status = 409, description = "there is one of that UID", body = Problem),
        OtherBody,
    )
)]
pub(crate) async fn create(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let nothing = || HttpError::BadRequest("the request has no workitem in its body".to_owned());
    let mut dataset = read_dataset(&headers, body).await?.ok_or_else(nothing)?;
    let uid = new_uid(query.as_deref(), &mut dataset)?;
    drop_meta(&mut dataset);
    let changed = match desk(&app, &principal).create(&uid, dataset).await {
        Ok(changed) => changed,
        Err(error) => return Ok(refusal(error, Asking::Other)),
    };
    let location = Links::new(&headers).workitem(uid.as_str());
    let response = (
        StatusCode::CREATED,
        [
            (header::LOCATION, location.clone()),
            (header::CONTENT_LOCATION, location),
        ],
    );
    Ok(warned(
        response.into_response(),
        changed.then_some(CREATED_WITH_MODIFICATIONS),
    ))
}

/// Searches workitems, the latest first.
#[utoipa::path(
    get, path = "/dicom-web/workitems", tag = "UPS-RS", operation_id = "search_workitems",
    responses(
        (status = 200, description = "what matched, whole", content_type = "application/dicom+json"),
        (status = 204, description = "nothing matched"),
        (status = 400, description = "a parameter cannot be used", body = Problem),
        Strangers,
        OtherTypes,
    )
)]
pub(crate) async fn search(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, HttpError> {
    let search = WorkitemSearch::parse(&pairs)?;
    let form = datasets::list_form(&Accept::new(&headers, search.accept.as_deref()), false)?;
    let rows = search.limit.min(MAX_RESULTS);
    let failed = |error: DbError| HttpError::of(error.class(), "searching workitems", error);
    let (keys, db) = (&search.keys, &app.db);
    let found = db
        .find_workitems(keys, rows, search.offset)
        .await
        .map_err(failed)?;
    let passed = search.offset.saturating_add(rows);
    let remaining = if found.is_empty() || found.len() < usize::try_from(rows).unwrap_or(usize::MAX) {
        0
    } else {
        let counted = db.count_more_workitems(keys, passed, COUNTED).await;
        counted.map_err(failed)?
    };
    let mut response = if found.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        audit_reads(&app, &principal, &found).await?;
        let links = Links::new(&headers);
        let shown = found
            .into_iter()
            .map(|workitem| shown(workitem, &links))
            .collect();
        datasets::list(form, shown)
    };
    for text in search.warnings.into_iter().chain(more(remaining)) {
        response = warned(response, Some(&text));
    }
    Ok(response)
}

/// Who reads a workitem reads of the studies that it names; one that names none has a row by its own UID.
async fn audit_reads(app: &App, principal: &Principal, workitems: &[Workitem]) -> Result<(), HttpError> {
    let mut studies: Vec<String> = workitems.iter().flat_map(|one| one.studies.clone()).collect();
    studies.sort_unstable();
    studies.dedup();
    let without: Vec<&str> = workitems
        .iter()
        .filter(|one| one.studies.is_empty())
        .map(|one| one.uid.as_str())
        .collect();
    let recorded = async {
        app.db.audit_reads(&principal.name, studies).await?;
        if without.is_empty() {
            return Ok(());
        }
        let act = Act {
            principal: &principal.name,
            act: "read",
            studies: Vec::new(),
            detail: json!({ "workitems": without }),
        };
        app.db.audit_act(&act).await
    };
    recorded
        .await
        .map_err(|error: DbError| HttpError::of(error.class(), "auditing a read", error))
}

/// A workitem as it goes out: in UTF-8, and with where its results are to be had.
fn shown(workitem: Workitem, links: &Links) -> Dataset {
    let mut dataset = workitem.attributes.0;
    if workitem.ours {
        for performed in items_mut(
            &mut dataset,
            tags::UNIFIED_PROCEDURE_STEP_PERFORMED_PROCEDURE_SEQUENCE,
        ) {
            for output in items_mut(performed, tags::OUTPUT_INFORMATION_SEQUENCE) {
                let uid = |tag| dataset::text(output, tag).to_owned();
                let url = links.series(&uid(tags::STUDY_INSTANCE_UID), &uid(tags::SERIES_INSTANCE_UID));
                let mut retrieval = Dataset::new();
                attribute::put(&mut retrieval, tags::RETRIEVE_URL, vec![json!(url)]);
                attribute::put(
                    output,
                    tags::WADORS_RETRIEVAL_SEQUENCE,
                    vec![Value::Object(retrieval)],
                );
                *output = attribute::sorted(std::mem::take(output));
            }
        }
    }
    attribute::declare_utf8(&mut dataset);
    attribute::sorted(dataset)
}

fn items_mut(dataset: &mut Dataset, tag: dicom_core::Tag) -> impl Iterator<Item = &mut Dataset> {
    dataset
        .get_mut(&attribute::key(tag))
        .and_then(|attribute| attribute.get_mut("Value"))
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Retrieves a workitem.
#[utoipa::path(
    get, path = "/dicom-web/workitems/{workitem}", tag = "UPS-RS", operation_id = "retrieve_workitem",
    params(("workitem" = String, Path, description = "its UID")),
    responses(
        (status = 200, description = "the workitem, without its Transaction UID", content_type = "application/dicom+json"),
        (status = 400, description = "the path is malformed", body = Problem),
        Strangers,
        NoWorkitem,
        OtherTypes,
    )
)]
pub(crate) async fn retrieve(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    Path(workitem): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let uid = workitem_uid(&workitem)?;
    let accept = super::accept_parameter(query.as_deref());
    let form = datasets::one_form(&Accept::new(&headers, accept.as_deref()))?;
    let found = app.db.workitem(uid.as_str()).await;
    let found = found.map_err(|error| HttpError::of(error.class(), "reading a workitem", error))?;
    let found = found.ok_or_else(|| HttpError::NotFound("there is no workitem of that UID".to_owned()))?;
    audit_reads(&app, &principal, std::slice::from_ref(&found)).await?;
    let links = Links::new(&headers);
    let location = links.workitem(uid.as_str());
    let body = datasets::one(form, shown(found, &links));
    Ok(([(header::CONTENT_LOCATION, location)], body).into_response())
}

/// Updates a workitem.
#[utoipa::path(
    post, path = "/dicom-web/workitems/{workitem}", tag = "UPS-RS", operation_id = "update_workitem",
    params(
        ("workitem" = String, Path, description = "its UID"),
        ("transaction-uid" = Option<String>, Query, description = "with which it was claimed; also as `?UID`, or in the dataset"),
    ),
    request_body(content_type = "application/dicom+json", description = "the attributes that change, sequences whole"),
    responses(
        (status = 200, description = "it is updated"),
        (status = 400, description = "it has ended, or the Transaction UID or an attribute is not right", body = Problem),
        Strangers,
        NoWorkitem,
        (status = 409, description = "it is not claimed", body = Problem),
        OtherBody,
    )
)]
pub(crate) async fn update(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    Path(workitem): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let uid = workitem_uid(&workitem)?;
    let nothing = || HttpError::BadRequest("the request has no attributes in its body".to_owned());
    let mut changes = read_dataset(&headers, body).await?.ok_or_else(nothing)?;
    let of_query = uid_of_query(
        query.as_deref(),
        &["transaction-uid", "transaction", "TransactionUID"],
    )?;
    let of_dataset = dataset::text(&changes, tags::TRANSACTION_UID).to_owned();
    let transaction = of_query
        .map(String::from)
        .or(Some(of_dataset))
        .filter(|uid| !uid.is_empty());
    drop_meta(&mut changes);
    match desk(&app, &principal)
        .update(&uid, transaction.as_deref(), changes)
        .await
    {
        Ok(()) => {
            let location = Links::new(&headers).workitem(uid.as_str());
            Ok((StatusCode::OK, [(header::CONTENT_LOCATION, location)]).into_response())
        }
        Err(error) => Ok(refusal(error, Asking::Update)),
    }
}

/// Claims, completes or cancels a workitem.
#[utoipa::path(
    put, path = "/dicom-web/workitems/{workitem}/state", tag = "UPS-RS", operation_id = "change_workitem_state",
    params(("workitem" = String, Path, description = "its UID")),
    request_body(content_type = "application/dicom+json", description = "ProcedureStepState and Transaction UID"),
    responses(
        (status = 200, description = "it is in that state"),
        (status = 400, description = "the Transaction UID is missing or wrong", body = Problem),
        Strangers,
        NoWorkitem,
        (status = 409, description = "the state cannot follow the one that it has", body = Problem),
        OtherBody,
    )
)]
pub(crate) async fn change_state(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    Path(workitem): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let uid = workitem_uid(&workitem)?;
    let nothing = || HttpError::BadRequest("the request has no state in its body".to_owned());
    let wanted = read_dataset(&headers, body).await?.ok_or_else(nothing)?;
    let state: State = match dataset::text(&wanted, tags::PROCEDURE_STEP_STATE).parse() {
        Ok(state) => state,
        Err(error) => return Ok(refusal(error, Asking::ChangeState)),
    };
    let transaction = Some(dataset::text(&wanted, tags::TRANSACTION_UID)).filter(|uid| !uid.is_empty());
    match desk(&app, &principal)
        .change_state(&uid, state, transaction)
        .await
    {
        Ok(true) => {
            let location = Links::new(&headers).workitem(uid.as_str());
            Ok((StatusCode::OK, [(header::CONTENT_LOCATION, location)]).into_response())
        }
        Ok(false) => {
            let text = if state == State::Canceled {
                ALREADY_CANCELED
            } else {
                ALREADY_COMPLETED
            };
            Ok(warned(StatusCode::OK.into_response(), Some(text)))
        }
        Err(error) => Ok(refusal(error, Asking::ChangeState)),
    }
}

/// Asks that a workitem be cancelled.
#[utoipa::path(
    post, path = "/dicom-web/workitems/{workitem}/cancelrequest", tag = "UPS-RS", operation_id = "request_cancellation",
    params(("workitem" = String, Path, description = "its UID")),
    request_body(content_type = "application/dicom+json", description = "why, and whom to ask; may be left out"),
    responses(
        (status = 202, description = "its performer is told; what nobody has begun, and what ictus performs, is cancelled"),
        (status = 400, description = "the request is malformed", body = Problem),
        Strangers,
        NoWorkitem,
        (status = 409, description = "it is completed, or nobody would hear of it", body = Problem),
        OtherBody,
    )
)]
pub(crate) async fn request_cancel(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    Path(workitem): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let uid = workitem_uid(&workitem)?;
    let wish = read_dataset(&headers, body).await?.unwrap_or_default();
    match desk(&app, &principal).request_cancel(&uid, &wish).await {
        Ok(done) => Ok(warned(
            StatusCode::ACCEPTED.into_response(),
            (!done).then_some(ALREADY_CANCELED),
        )),
        Err(error) => Ok(refusal(error, Asking::Cancel)),
    }
}

/// An AE title of a path, checked.
pub(super) fn title(text: &str) -> Result<String, HttpError> {
    let title = text.trim();
    let fits = !title.is_empty()
        && title.len() <= MAX_TITLE
        && title
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\');
    if fits {
        return Ok(title.to_owned());
    }
    Err(HttpError::BadRequest(format!(
        "an AE title has 1 to {MAX_TITLE} printable characters and no backslash"
    )))
}

/// Subscribes an AE to a workitem, to all, or to those that match.
#[utoipa::path(
    post, path = "/dicom-web/workitems/{workitem}/subscribers/{title}", tag = "UPS-RS", operation_id = "subscribe",
    params(
        ("workitem" = String, Path, description = "its UID; 1.2.840.10008.5.1.4.34.5 for all, …34.5.1 for those that match"),
        ("title" = String, Path, description = "AE title of who is to hear"),
        ("deletionlock" = Option<bool>, Query, description = "with true it also hears at once of what is there"),
        ("filter" = Option<String>, Query, description = "of …34.5.1: keys that match, ATTRIBUTE=VALUE,…"),
    ),
    responses(
        (status = 201, description = "it is subscribed; Content-Location is the WebSocket on which it hears"),
        (status = 400, description = "the title or the filter cannot be used", body = Problem),
        Strangers,
        NoWorkitem,
    )
)]
pub(crate) async fn subscribe(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    Path((workitem, ae_title)): Path<(String, String)>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, HttpError> {
    let watched = Watched::of(workitem_uid(&workitem)?);
    let title = title(&ae_title)?;
    let search = WorkitemSearch::parse_filter(&pairs)?;
    if (watched == Watched::Filtered) == search.keys.is_empty() {
        let text = "a filter of ATTRIBUTE=VALUE pairs belongs to a subscription to 1.2.840.10008.5.1.4.34.5.1, and to no other";
        return Err(HttpError::BadRequest(text.to_owned()));
    }
    let done = desk(&app, &principal)
        .subscribe(&watched, &title, &search.keys, search.deletion_lock)
        .await;
    match done {
        Ok(()) => {
            let channel = Links::new(&headers).channel(&title);
            Ok((StatusCode::CREATED, [(header::CONTENT_LOCATION, channel)]).into_response())
        }
        Err(error) => Ok(refusal(error, Asking::Other)),
    }
}

/// Ends a subscription.
#[utoipa::path(
    delete, path = "/dicom-web/workitems/{workitem}/subscribers/{title}", tag = "UPS-RS", operation_id = "unsubscribe",
    params(
        ("workitem" = String, Path, description = "as it was subscribed to"),
        ("title" = String, Path, description = "AE title of who heard"),
    ),
    responses(
        (status = 200, description = "it is ended; that to all takes those to single workitems with it"),
        (status = 400, description = "the path is malformed", body = Problem),
        Strangers,
        NoSubscription,
    )
)]
pub(crate) async fn unsubscribe(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    Path((workitem, ae_title)): Path<(String, String)>,
) -> Result<Response, HttpError> {
    let watched = Watched::of(workitem_uid(&workitem)?);
    let done = desk(&app, &principal)
        .unsubscribe(&watched, &title(&ae_title)?)
        .await;
    Ok(done.map_or_else(
        |error| refusal(error, Asking::Other),
        |()| StatusCode::OK.into_response(),
    ))
}

/// Ends the subscription to new workitems; those to single ones stay.
#[utoipa::path(
    post, path = "/dicom-web/workitems/{workitem}/subscribers/{title}/suspend", tag = "UPS-RS",
    operation_id = "suspend_subscription",
    params(
        ("workitem" = String, Path, description = "1.2.840.10008.5.1.4.34.5 or …34.5.1"),
        ("title" = String, Path, description = "AE title of who heard"),
    ),
    responses(
        (status = 200, description = "it is suspended"),
        (status = 400, description = "it is a subscription to one workitem", body = Problem),
        Strangers,
        NoSubscription,
    )
)]
pub(crate) async fn suspend(
    Within(app): Within<App>,
    Extension(principal): Extension<Principal>,
    Path((workitem, ae_title)): Path<(String, String)>,
) -> Result<Response, HttpError> {
    let watched = Watched::of(workitem_uid(&workitem)?);
    let done = desk(&app, &principal).suspend(&watched, &title(&ae_title)?).await;
    Ok(done.map_or_else(
        |error| refusal(error, Asking::Other),
        |()| StatusCode::OK.into_response(),
    ))
}
