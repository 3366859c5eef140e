//! `GET /api/worklist`: the studies that a filter lets through, page by page.

use crate::{
    db::worklist::{Filter, Order, Worklist},
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension, Json,
    extract::{Query, State},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// Studies of a page when nobody says how many.
const DEFAULT_LIMIT: u32 = 100;
/// The most studies of one page.
const MAX_LIMIT: u32 = 1000;
/// What a study can be: the words of `state`.
const STATES: [&str; 6] = [
    "arriving",
    "analysing",
    "flagged",
    "uncertain",
    "not_flagged",
    "failed",
];
/// A search of more words than a report has lines is none.
const MOST_WORDS: usize = 20;

/// Which page of which studies.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// At most so many studies, up to 1000.
    limit: Option<u32>,
    /// Skip so many.
    offset: Option<u32>,
    /// Only these states, separated by commas.
    #[param(example = "flagged,uncertain")]
    state: Option<String>,
    /// `true`: only studies that a reader judged as they are now; `false`: only the others.
    read: Option<bool>,
    /// Words that name, ID, accession number, description, date or reason must hold.
    q: Option<String>,
    /// `urgency` (flagged, uncertain, all others, read; the longest waiting first) or `newest`.
    #[serde(default)]
    #[param(inline)]
    order: Order,
}

impl Page {
    fn filter(&self) -> Result<Filter, HttpError> {
        let states: Vec<String> = self.state.as_deref().map(split(',')).unwrap_or_default();
        if let Some(other) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
            let known = STATES.join(", ");
            let text = format!(
                "`{}` is no state of a study; they are {known}",
                other.escape_debug()
            );
            return Err(HttpError::BadRequest(text));
        }
        let words: Vec<String> = self.q.as_deref().map(split(' ')).unwrap_or_default();
        if words.len() > MOST_WORDS {
            let text = format!("`q` has {} words; search by at most {MOST_WORDS}", words.len());
            return Err(HttpError::BadRequest(text));
        }
        Ok(Filter {
            states,
            read: self.read,
            words,
            order: self.order,
        })
    }
}

fn split(at: char) -> impl Fn(&str) -> Vec<String> {
    move |text| {
        let parts = text.split(at).map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }
}

/// Lists studies.
#[utoipa::path(
    get, path = "/api/worklist", tag = "page", params(Page),
    responses(
        (status = 200, description = "the studies of the page", body = Worklist),
        (status = 400, description = "a parameter is not what it should be", body = Problem),
        (status = 401, description = "no known key", body = Problem),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(page): Query<Page>,
) -> Result<Json<Worklist>, HttpError> {
    let filter = page.filter()?;
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let found = app
        .db
        .worklist(&filter, i64::from(limit), i64::from(page.offset.unwrap_or(0)))
        .await;
    let worklist = found.map_err(|error| HttpError::of(error.class(), "reading the worklist", error))?;
    let studies = worklist
        .studies
        .iter()
        .map(|study| study.study_instance_uid.clone())
        .collect();
    read(&app, &principal, studies).await?;
    Ok(Json(worklist))
}

/// Notes in the trail that studies were listed.
pub(super) async fn read(app: &App, principal: &Principal, studies: Vec<String>) -> Result<(), HttpError> {
    let audited = app.db.audit_reads(&principal.name, studies).await;
    audited.map_err(|error| HttpError::of(error.class(), "auditing a read", error))
}
