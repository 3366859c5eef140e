//! QIDO-RS: `GET /dicom-web/studies`, `…/series`, `…/instances`, under a study or series or over all of them.
//!
//! Results come in a stable order, so that `limit` and `offset` page through them.
//! Attributes that a level must return are there even when they are empty; counts are of everything stored.
//! Every study that an answer shows is in the audit trail before the answer leaves.
//!
//! Source: PS3.18 sections 8.3.4 and 10.6.

use super::{
    Links,
    attribute::{self, Dataset},
    datasets,
    media::{Accept, Form},
    query::Search,
    stow::warning,
};
use crate::{
    db::{
        metadata::Metadata,
        qido::{InstanceMatch, Level, SeriesMatch, StudyMatch},
    },
    http::{
        App,
        auth::Principal,
        error::{HttpError, Problem},
    },
};
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::json;

/// Results behind those of an answer are counted to here, so that a search costs the same in every archive.
pub(super) const COUNTED: i64 = 100;

/// The text of PS3.18 section 8.3.4.4.1, where there are results behind those of an answer.
pub(super) fn more(remaining: i64) -> Option<String> {
    let at_least = if remaining < COUNTED { "" } else { "at least " };
    (remaining > 0)
        .then(|| format!("There are {at_least}{remaining} additional results that can be requested"))
}

type Pairs = Query<Vec<(String, String)>>;

/// A request on its way through a search.
struct Asked {
    app: App,
    principal: Principal,
    search: Search,
    links: Links,
    form: Form,
}

impl Asked {
    fn new(
        app: App,
        principal: Principal,
        headers: &HeaderMap,
        Query(pairs): Pairs,
    ) -> Result<Self, HttpError> {
        let search = Search::parse(&pairs)?;
        let form = datasets::list_form(&Accept::new(headers, search.accept.as_deref()), false)?;
        Ok(Self {
            app,
            principal,
            search,
            links: Links::new(headers),
            form,
        })
    }

    fn within(mut self, study: Option<&str>, series: Option<&str>) -> Result<Self, HttpError> {
        let rows = self.search.rows();
        let filter = &mut self.search.filter;
        if let Some(study) = study {
            filter.study_instance_uid = Some(vec![super::uid(study, "StudyInstanceUID")?]);
        }
        if let Some(series) = series {
            filter.series_instance_uid = Some(vec![super::uid(series, "SeriesInstanceUID")?]);
        }
        filter.limit = Some(rows);
        Ok(self)
    }

    /// Cuts to the limit, audits what is shown, and writes the answer.
    async fn answer<T>(
        mut self,
        level: Level,
        mut rows: Vec<T>,
        study: impl Fn(&T) -> &str,
        dataset: impl Fn(&Search, &Links, &T) -> Dataset,
    ) -> Result<Response, HttpError> {
        let wanted = self.search.rows() - 1;
        let has_more = rows.len() as u64 > wanted.unsigned_abs();
        rows.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        if rows.is_empty() {
            return Ok(self.warned(StatusCode::NO_CONTENT.into_response()));
        }
        let mut studies: Vec<String> = rows.iter().map(|row| study(row).to_owned()).collect();
        studies.sort_unstable();
        studies.dedup();
        let db = &self.app.db;
        let counted = async {
            if !has_more {
                return Ok(0);
            }
            let filter = &self.search.filter;
            let passed = filter.offset.saturating_add(wanted);
            db.count_more(level, filter, passed, COUNTED).await
        };
        let (audited, remaining) = tokio::join!(db.audit_reads(&self.principal.name, studies), counted);
        audited.map_err(|error| HttpError::of(error.class(), "auditing a search", error))?;
        let remaining =
            remaining.map_err(|error| HttpError::of(error.class(), "counting what matches", error))?;
        self.search.warnings.extend(more(remaining));
        let found = rows
            .iter()
            .map(|row| {
                let mut dataset = dataset(&self.search, &self.links, row);
                attribute::declare_utf8(&mut dataset);
                attribute::sorted(dataset)
            })
            .collect();
        Ok(self.warned(datasets::list(self.form, found)))
    }

    fn warned(&self, mut response: Response) -> Response {
        for text in &self.search.warnings {
            if let Some(value) = warning(text) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }

    async fn studies(self) -> Result<Response, HttpError> {
        let asked = self.within(None, None)?;
        let found = asked.app.db.find_studies(&asked.search.filter).await;
        let rows = found.map_err(|error| HttpError::of(error.class(), "searching studies", error))?;
        asked
            .answer(Level::Study, rows, |row| &row.study_instance_uid, study)
            .await
    }

    async fn series(self, of: Option<&str>) -> Result<Response, HttpError> {
        let asked = self.within(of, None)?;
        let found = asked.app.db.find_series(&asked.search.filter).await;
        let rows = found.map_err(|error| HttpError::of(error.class(), "searching series", error))?;
        let relational = of.is_none();
        let dataset =
            move |search: &Search, links: &Links, row: &SeriesMatch| series(search, links, row, relational);
        asked
            .answer(Level::Series, rows, |row| &row.study_instance_uid, dataset)
            .await
    }

    async fn instances(self, study: Option<&str>, series: Option<&str>) -> Result<Response, HttpError> {
        let asked = self.within(study, series)?;
        let found = asked.app.db.find_instances(&asked.search.filter).await;
        let rows = found.map_err(|error| HttpError::of(error.class(), "searching instances", error))?;
        let shown = (study.is_none(), series.is_none());
        let dataset =
            move |search: &Search, links: &Links, row: &InstanceMatch| instance(search, links, row, shown);
        asked
            .answer(Level::Instance, rows, |row| &row.study_instance_uid, dataset)
            .await
    }
}

/// Copies what was asked for beyond the required, as far as the level has it.
fn copy_requested(search: &Search, stored: &Metadata, level: &[&[Tag]], into: &mut Dataset) {
    for tag in level.iter().copied().flatten() {
        let wanted = search.include_all || search.include.contains(tag);
        let key = attribute::key(*tag);
        if wanted
            && !into.contains_key(&key)
            && let Some(value) = stored.get(&key)
        {
            into.insert(key, value);
        }
    }
}

fn study(search: &Search, links: &Links, row: &StudyMatch) -> Dataset {
    let stored = &row.metadata;
    let mut dataset = Dataset::new();
    attribute::copy(stored, &attribute::STUDY, &mut dataset);
    copy_requested(search, stored, &[&attribute::STUDY_ON_REQUEST], &mut dataset);
    let modalities = row.modalities.iter().map(|modality| json!(modality)).collect();
    attribute::put(&mut dataset, tags::MODALITIES_IN_STUDY, modalities);
    attribute::put(
        &mut dataset,
        tags::NUMBER_OF_STUDY_RELATED_SERIES,
        vec![json!(row.series_count)],
    );
    attribute::put(
        &mut dataset,
        tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
        vec![json!(row.instance_count)],
    );
    attribute::put(
        &mut dataset,
        tags::INSTANCE_AVAILABILITY,
        vec![json!(row.availability)],
    );
    attribute::put(
        &mut dataset,
        tags::STUDY_INSTANCE_UID,
        vec![json!(row.study_instance_uid)],
    );
    attribute::put(
        &mut dataset,
        tags::RETRIEVE_URL,
        vec![json!(links.study(&row.study_instance_uid))],
    );
    dataset
}

fn series(search: &Search, links: &Links, row: &SeriesMatch, relational: bool) -> Dataset {
    let stored = &row.metadata;
    let mut dataset = Dataset::new();
    if relational {
        attribute::copy(stored, &attribute::STUDY, &mut dataset);
    }
    attribute::copy(stored, &attribute::SERIES, &mut dataset);
    let level: [&[Tag]; 3] = [
        &attribute::SERIES_ON_REQUEST,
        &attribute::STUDY_ON_REQUEST,
        &attribute::STUDY,
    ];
    copy_requested(search, stored, &level, &mut dataset);
    let (study, series) = (&row.study_instance_uid, &row.series_instance_uid);
    attribute::put(
        &mut dataset,
        tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
        vec![json!(row.instance_count)],
    );
    attribute::put(
        &mut dataset,
        tags::INSTANCE_AVAILABILITY,
        vec![json!(row.availability)],
    );
    attribute::put(&mut dataset, tags::STUDY_INSTANCE_UID, vec![json!(study)]);
    attribute::put(&mut dataset, tags::SERIES_INSTANCE_UID, vec![json!(series)]);
    attribute::put(
        &mut dataset,
        tags::RETRIEVE_URL,
        vec![json!(links.series(study, series))],
    );
    dataset
}

/// `shown`: whether the attributes of the study and of the series are returned, too.
fn instance(search: &Search, links: &Links, row: &InstanceMatch, shown: (bool, bool)) -> Dataset {
    let stored = &row.metadata;
    let mut dataset = Dataset::new();
    if shown.0 {
        attribute::copy(stored, &attribute::STUDY, &mut dataset);
    }
    if shown.1 {
        attribute::copy(stored, &attribute::SERIES, &mut dataset);
    }
    attribute::copy(stored, &attribute::INSTANCE, &mut dataset);
    if row.rows.is_some() {
        attribute::copy(stored, &attribute::IMAGE, &mut dataset);
    }
    for key in stored.keys() {
        let wanted = search.include_all || search.include.iter().any(|&tag| attribute::key(tag) == *key);
        if wanted
            && !dataset.contains_key(key)
            && let Some(value) = stored.get(key)
        {
            dataset.insert(key.to_owned(), value);
        }
    }
    let (study, series, sop) = (
        &row.study_instance_uid,
        &row.series_instance_uid,
        &row.sop_instance_uid,
    );
    let url = links.instance(study, series, sop);
    attribute::set_bulk_data_uris(&mut dataset, &format!("{url}/bulkdata"), "");
    attribute::put(
        &mut dataset,
        tags::INSTANCE_AVAILABILITY,
        vec![json!(row.availability)],
    );
    attribute::put(&mut dataset, tags::STUDY_INSTANCE_UID, vec![json!(study)]);
    attribute::put(&mut dataset, tags::SERIES_INSTANCE_UID, vec![json!(series)]);
    attribute::put(&mut dataset, tags::RETRIEVE_URL, vec![json!(url)]);
    dataset
}

/// Searches studies.
///
/// Parameters are attributes by keyword or tag with the values to match, and `limit`, `offset`, `includefield`,
/// `fuzzymatching` and `accept`.
#[utoipa::path(
    get, path = "/dicom-web/studies", tag = "QIDO-RS", operation_id = "search_studies",
    params(
        ("limit" = Option<u32>, Query, description = "at most so many results"),
        ("offset" = Option<u32>, Query, description = "skip so many results"),
        ("includefield" = Option<String>, Query, description = "further attributes, or `all`"),
        ("fuzzymatching" = Option<bool>, Query, description = "answered with a warning: matching is literal"),
    ),
    responses(
        (status = 200, description = "what matched", content_type = "application/dicom+json"),
        (status = 204, description = "nothing matched"),
        (status = 400, description = "a parameter cannot be used", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn studies(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, HttpError> {
    Asked::new(app, principal, &headers, pairs)?.studies().await
}

/// Searches the series of all studies.
#[utoipa::path(
    get, path = "/dicom-web/series", tag = "QIDO-RS", operation_id = "search_series",
    responses(
        (status = 200, description = "what matched", content_type = "application/dicom+json"),
        (status = 204, description = "nothing matched"),
        (status = 400, description = "a parameter cannot be used", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn series_of_all(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, HttpError> {
    Asked::new(app, principal, &headers, pairs)?.series(None).await
}

/// Searches the series of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series", tag = "QIDO-RS", operation_id = "search_series_of_study",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "what matched", content_type = "application/dicom+json"),
        (status = 204, description = "nothing matched"),
        (status = 400, description = "a parameter cannot be used", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn series_of_study(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, HttpError> {
    Asked::new(app, principal, &headers, pairs)?
        .series(Some(&study))
        .await
}

/// Searches the instances of all studies.
#[utoipa::path(
    get, path = "/dicom-web/instances", tag = "QIDO-RS", operation_id = "search_instances",
    responses(
        (status = 200, description = "what matched", content_type = "application/dicom+json"),
        (status = 204, description = "nothing matched"),
        (status = 400, description = "a parameter cannot be used", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn instances_of_all(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, HttpError> {
    Asked::new(app, principal, &headers, pairs)?
        .instances(None, None)
        .await
}

/// Searches the instances of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/instances", tag = "QIDO-RS", operation_id = "search_instances_of_study",
    params(("study" = String, Path, description = "StudyInstanceUID")),
    responses(
        (status = 200, description = "what matched", content_type = "application/dicom+json"),
        (status = 204, description = "nothing matched"),
        (status = 400, description = "a parameter cannot be used", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn instances_of_study(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(study): Path<String>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, HttpError> {
    Asked::new(app, principal, &headers, pairs)?
        .instances(Some(&study), None)
        .await
}

/// Searches the instances of a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances", tag = "QIDO-RS",
    operation_id = "search_instances_of_series",
    params(
        ("study" = String, Path, description = "StudyInstanceUID"),
        ("series" = String, Path, description = "SeriesInstanceUID"),
    ),
    responses(
        (status = 200, description = "what matched", content_type = "application/dicom+json"),
        (status = 204, description = "nothing matched"),
        (status = 400, description = "a parameter cannot be used", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 406, description = "the accepted types cannot be sent", body = Problem),
    )
)]
pub(crate) async fn instances_of_series(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((study, series)): Path<(String, String)>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, HttpError> {
    Asked::new(app, principal, &headers, pairs)?
        .instances(Some(&study), Some(&series))
        .await
}
