//! What DICOMweb reads: studies, series and instances by their attributes, and the files behind them.
//!
//! A filter that is `None` matches everything.
//! Text filters take the wildcards of PS3.4 C.2.2.2.4 (`*`, `?`); person names match without regard to case.
//! The order of answers is stable: studies from the latest arrival on, what lies within one in the order of arrival.
//! Pending revisions are not shown, and derived series only when asked for.
//! First a page of rows is found, by indexes where the key has one; then what is shown is fetched for that page alone,
//! so that an answer costs the same in a large archive.

use super::{
    Db,
    error::DbError,
    metadata::Metadata,
    pattern::{put_small, put_text},
};
use crate::domain::uid::Uid;
use dicom_core::Tag;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, Postgres, QueryBuilder};

/// What to match, in the keys that PS3.18 table 10.6.1-5 asks a server to support.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// StudyInstanceUID, any of these.
    pub study_instance_uid: Option<Vec<Uid>>,
    /// SeriesInstanceUID, any of these.
    pub series_instance_uid: Option<Vec<Uid>>,
    /// SOPInstanceUID, any of these.
    pub sop_instance_uid: Option<Vec<Uid>>,
    /// SOPClassUID, any of these.
    pub sop_class_uid: Option<Vec<Uid>>,
    /// PatientName with wildcards.
    pub patient_name: Option<String>,
    /// PatientID with wildcards.
    pub patient_id: Option<String>,
    /// AccessionNumber with wildcards.
    pub accession_number: Option<String>,
    /// StudyID with wildcards.
    pub study_id: Option<String>,
    /// StudyDescription with wildcards.
    pub study_description: Option<String>,
    /// ReferringPhysicianName with wildcards.
    pub referring_physician_name: Option<String>,
    /// ModalitiesInStudy: at least one series has it.
    pub modalities_in_study: Option<String>,
    /// StudyDate, from and to inclusive, as written.
    pub study_date: Range,
    /// StudyTime, from and to inclusive, as written.
    pub study_time: Range,
    /// Whether ranges of StudyDate and StudyTime are one range of moments, and not of times within each day.
    pub moments: bool,
    /// PatientBirthDate, from and to inclusive.
    pub patient_birth_date: Range,
    /// PatientSex.
    pub patient_sex: Option<String>,
    /// Modality with wildcards.
    pub modality: Option<String>,
    /// SeriesNumber.
    pub series_number: Option<i32>,
    /// SeriesDescription with wildcards.
    pub series_description: Option<String>,
    /// InstanceNumber.
    pub instance_number: Option<i32>,
    /// PerformedProcedureStepStartDate, from and to inclusive.
    pub performed_procedure_step_start_date: Range,
    /// Any other attributes of at least one instance, also within sequences.
    pub others: Vec<Other>,
    /// Whether series of origin `derived` are shown.
    pub include_derived: bool,
    /// At most so many.
    pub limit: Option<i64>,
    /// Skip so many.
    pub offset: i64,
}

/// A range of dates or times as text; either end may be open.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Range {
    /// Lowest.
    pub from: Option<String>,
    /// Highest; a shorter text covers everything that starts with it.
    pub to: Option<String>,
}

/// An attribute that has no column of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Other {
    /// Where it is, from the dataset through sequences to the attribute itself.
    #[serde(with = "written_path")]
    pub path: Vec<Tag>,
    /// What its text must be.
    pub wanted: Wanted,
}

/// What the text of an attribute must be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Wanted {
    /// Equal to this with wildcards.
    Text(String),
    /// One of these, letter by letter.
    OneOf(Vec<String>),
    /// The same for a person name: without regard to case, in any of its groups.
    PersonName(String),
    /// This number.
    Number(f64),
    /// Within these, inclusive.
    Range(Range),
}

/// A path as pairs of group and element: a subscription is kept with what it matches.
mod written_path {
    use super::{Deserialize, Serialize, Tag};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &[Tag], serializer: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(u16, u16)> = path.iter().map(|tag| (tag.group(), tag.element())).collect();
        pairs.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Tag>, D::Error> {
        let pairs = Vec::<(u16, u16)>::deserialize(deserializer)?;
        Ok(pairs
            .into_iter()
            .map(|(group, element)| Tag(group, element))
            .collect())
    }
}

/// A patient of whom a study matched.
#[derive(Debug, Clone, FromRow)]
pub struct PatientMatch {
    /// DICOM JSON of one instance, for every attribute of the patient.
    #[sqlx(json)]
    pub metadata: Metadata,
    /// The studies of this patient.
    pub studies: Vec<String>,
    /// NumberOfPatientRelatedSeries.
    pub series_count: i64,
    /// NumberOfPatientRelatedInstances.
    pub instance_count: i64,
}

/// A study that matched.
#[derive(Debug, Clone, FromRow)]
pub struct StudyMatch {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// DICOM JSON of one of its instances, for every attribute of the patient and study level.
    #[sqlx(json)]
    pub metadata: Metadata,
    /// ModalitiesInStudy.
    pub modalities: Vec<String>,
    /// NumberOfStudyRelatedSeries.
    pub series_count: i64,
    /// NumberOfStudyRelatedInstances.
    pub instance_count: i64,
    /// InstanceAvailability (PS3.3 section C.4.23.1.1): what was evicted may be had elsewhere, not here.
    pub availability: String,
}

/// A series that matched.
#[derive(Debug, Clone, FromRow)]
pub struct SeriesMatch {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// `received`, `result`, `derived` or `reader`.
    pub origin: String,
    /// DICOM JSON of one of its instances.
    #[sqlx(json)]
    pub metadata: Metadata,
    /// NumberOfSeriesRelatedInstances.
    pub instance_count: i64,
    /// InstanceAvailability (PS3.3 section C.4.23.1.1): what was evicted may be had elsewhere, not here.
    pub availability: String,
}

/// An instance that matched, and its file.
#[derive(Debug, Clone, FromRow)]
pub struct InstanceMatch {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// Transfer syntax of the file.
    pub transfer_syntax_uid: String,
    /// Name of the file in the archive.
    pub archive_key: String,
    /// Bytes of the file.
    pub size_bytes: i64,
    /// Rows.
    pub rows: Option<i32>,
    /// Columns.
    pub columns: Option<i32>,
    /// NumberOfFrames, 1 when it is an image without.
    pub number_of_frames: Option<i32>,
    /// InstanceAvailability (PS3.3 section C.4.23.1.1): what was evicted may be had elsewhere, not here.
    pub availability: String,
    /// DICOM JSON without bulk data.
    #[sqlx(json)]
    pub metadata: Metadata,
}

/// An instance's file, without what is said in it.
#[derive(Debug, Clone, FromRow)]
pub struct StoredFile {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// Transfer syntax of the file.
    pub transfer_syntax_uid: String,
    /// Name of the file in the archive.
    pub archive_key: String,
    /// Rows.
    pub rows: Option<i32>,
    /// NumberOfFrames, 1 when it is an image without.
    pub number_of_frames: Option<i32>,
    /// Whether it was acquired, not made from other images.
    pub original: bool,
}

/// What is said in an instance, ready to be sent.
#[derive(Debug, Clone, FromRow)]
pub struct Document {
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Name of the file in the archive.
    pub archive_key: String,
    /// DICOM JSON in ascending order of tags, declared as UTF-8; each BulkDataURI is the path of its value.
    pub json: String,
}

impl Db {
    /// Patients of whom a study matches; who has no PatientID is nobody.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_patients(&self, filter: &Filter) -> Result<Vec<PatientMatch>, DbError> {
        Ok(patients(filter).build_query_as().fetch_all(&self.app).await?)
    }

    /// The files of the instances that match, in the order of [`Db::find_instances`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_files(&self, filter: &Filter) -> Result<Vec<StoredFile>, DbError> {
        Ok(instances(FILE, filter)
            .build_query_as()
            .fetch_all(&self.app)
            .await?)
    }

    /// What is said in the instances that match, in the same order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_documents(&self, filter: &Filter) -> Result<Vec<Document>, DbError> {
        Ok(instances(DOCUMENT, filter)
            .build_query_as()
            .fetch_all(&self.app)
            .await?)
    }

    /// Studies that match; one more than `limit` is never returned, so ask for one more to know whether there are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_studies(&self, filter: &Filter) -> Result<Vec<StudyMatch>, DbError> {
        Ok(studies(filter).build_query_as().fetch_all(&self.app).await?)
    }

    /// How many match behind the first `passed` ones, counted to `most` and no further.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_more(
        &self,
        level: Level,
        filter: &Filter,
        passed: i64,
        most: i64,
    ) -> Result<i64, DbError> {
        let mut statement = matching(level, filter);
        put_rest(&mut statement, passed, most);
        Ok(statement.build_query_scalar().fetch_one(&self.app).await?)
    }

    /// Series that match.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_series(&self, filter: &Filter) -> Result<Vec<SeriesMatch>, DbError> {
        Ok(series(filter).build_query_as().fetch_all(&self.app).await?)
    }

    /// Instances that match, by series and then InstanceNumber; also what WADO asks with exact UIDs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_instances(&self, filter: &Filter) -> Result<Vec<InstanceMatch>, DbError> {
        Ok(instances(INSTANCE, filter)
            .build_query_as()
            .fetch_all(&self.app)
            .await?)
    }
}

/// What a search is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Studies.
    Study,
    /// Series.
    Series,
    /// Instances.
    Instance,
}

impl Filter {
    /// Everything of one study, or of one series or instance of it.
    #[must_use]
    pub fn exactly(study: &Uid, series: Option<&Uid>, instance: Option<&Uid>) -> Self {
        Self {
            study_instance_uid: Some(vec![study.clone()]),
            series_instance_uid: series.map(|uid| vec![uid.clone()]),
            sop_instance_uid: instance.map(|uid| vec![uid.clone()]),
            include_derived: true,
            ..Self::default()
        }
    }

    /// Whether date and time are both ranges of the same form, and so one of moments.
    fn is_range_of_moments(&self) -> bool {
        let (date, time) = (&self.study_date, &self.study_time);
        let form = |range: &Range| (range.from.is_some(), range.to.is_some());
        let is_one = time.from.is_some() && time.from == time.to;
        self.moments && !is_one && form(date) == form(time)
    }

    /// Whether something of the instances is matched.
    fn is_below_series(&self) -> bool {
        self.sop_instance_uid.is_some()
            || self.sop_class_uid.is_some()
            || self.instance_number.is_some()
            || !self.others.is_empty()
    }
}

impl Range {
    /// '~' sorts after every digit and dot: "2024~" covers all of 2024.
    fn end(&self) -> Option<String> {
        self.to.as_ref().map(|to| format!("{to}~"))
    }
}

impl Other {
    /// The values of the attribute as an SQL/JSON path into DICOM JSON.
    fn json_path(&self) -> String {
        let mut path = String::from("$");
        for tag in &self.path {
            path.push_str(&format!(".\"{:04X}{:04X}\".Value[*]", tag.group(), tag.element()));
        }
        if matches!(self.wanted, Wanted::PersonName(_)) {
            path.push_str(".*");
        }
        path
    }
}

/// A statement made of the conditions that are asked, all of them static text with bound values.
type Statement = QueryBuilder<Postgres>;

fn put_uids(statement: &mut Statement, column: &str, wanted: Option<&Vec<Uid>>) {
    if let Some(uids) = wanted {
        let uids: Vec<String> = uids.iter().map(|uid| uid.as_str().to_owned()).collect();
        statement
            .push(format_args!(" AND {column} = ANY ("))
            .push_bind(uids)
            .push(")");
    }
}

/// Compared byte by byte, whatever the language of the database.
fn put_range(statement: &mut Statement, column: &str, wanted: &Range) {
    if let Some(from) = &wanted.from {
        statement
            .push(format_args!(" AND {column} ~>=~ "))
            .push_bind(from.clone());
    }
    if let Some(end) = wanted.end() {
        statement.push(format_args!(" AND {column} ~<=~ ")).push_bind(end);
    }
}

/// The times of the first and the last day; the days are matched already (PS3.4 section C.2.2.2.5.4).
fn put_times_of_ends(statement: &mut Statement, filter: &Filter) {
    let (date, time) = (&filter.study_date, &filter.study_time);
    if let (Some(day), Some(from)) = (&date.from, &time.from) {
        statement
            .push(" AND (study.study_date ~>~ ")
            .push_bind(day.clone())
            .push(" OR study.study_time ~>=~ ")
            .push_bind(from.clone())
            .push(")");
    }
    if let (Some(day), Some(end)) = (&date.to, time.end()) {
        statement
            .push(" AND (study.study_date ~<~ ")
            .push_bind(day.clone())
            .push(" OR study.study_time ~<=~ ")
            .push_bind(end)
            .push(")");
    }
}

fn put_number(statement: &mut Statement, column: &str, wanted: Option<i32>) {
    if let Some(number) = wanted {
        statement.push(format_args!(" AND {column} = ")).push_bind(number);
    }
}

fn put_study(statement: &mut Statement, filter: &Filter) {
    put_uids(
        statement,
        "study.study_instance_uid",
        filter.study_instance_uid.as_ref(),
    );
    put_small(
        statement,
        "lower(study.patient_name)",
        filter.patient_name.as_ref(),
    );
    put_text(statement, "study.patient_id", filter.patient_id.as_ref());
    put_text(
        statement,
        "study.accession_number",
        filter.accession_number.as_ref(),
    );
    put_text(statement, "study.study_id", filter.study_id.as_ref());
    put_small(
        statement,
        "lower(study.study_description)",
        filter.study_description.as_ref(),
    );
    let referring = filter.referring_physician_name.as_ref();
    put_small(statement, "lower(study.referring_physician_name)", referring);
    put_range(statement, "study.study_date", &filter.study_date);
    if filter.is_range_of_moments() {
        put_times_of_ends(statement, filter);
    } else {
        put_range(statement, "study.study_time", &filter.study_time);
    }
    put_range(statement, "study.patient_birth_date", &filter.patient_birth_date);
    put_text(statement, "study.patient_sex", filter.patient_sex.as_ref());
    if let Some(modality) = &filter.modalities_in_study {
        statement.push(" AND EXISTS (SELECT FROM series other WHERE other.study_id = study.id AND other.instance_count > 0");
        if !filter.include_derived {
            statement.push(" AND other.origin <> 'derived'");
        }
        // Some clients name several, any of which will do.
        if modality.contains([',', '\\']) {
            let any: Vec<String> = modality
                .split([',', '\\'])
                .map(|one| one.trim().to_owned())
                .collect();
            statement
                .push(" AND other.modality = ANY (")
                .push_bind(any)
                .push(")");
        } else {
            put_text(statement, "other.modality", Some(modality));
        }
        statement.push(")");
    }
}

fn put_series(statement: &mut Statement, filter: &Filter) {
    put_shown(statement, filter);
    put_uids(
        statement,
        "series.series_instance_uid",
        filter.series_instance_uid.as_ref(),
    );
    put_text(statement, "series.modality", filter.modality.as_ref());
    put_number(statement, "series.series_number", filter.series_number);
    put_small(
        statement,
        "lower(series.series_description)",
        filter.series_description.as_ref(),
    );
    put_range(
        statement,
        "series.performed_procedure_step_start_date",
        &filter.performed_procedure_step_start_date,
    );
}

/// Which series there are at all, for who asks.
fn put_shown(statement: &mut Statement, filter: &Filter) {
    statement.push(" AND series.instance_count > 0");
    if !filter.include_derived {
        statement.push(" AND series.origin <> 'derived'");
    }
}

fn put_instance(statement: &mut Statement, filter: &Filter) {
    statement.push(" AND instance.state = 'current'");
    put_uids(
        statement,
        "instance.sop_instance_uid",
        filter.sop_instance_uid.as_ref(),
    );
    put_uids(statement, "instance.sop_class_uid", filter.sop_class_uid.as_ref());
    put_number(statement, "instance.instance_number", filter.instance_number);
    put_others(statement, "instance.metadata", &filter.others);
}

/// Attributes anywhere in a column of DICOM JSON.
pub(super) fn put_others(statement: &mut Statement, column: &'static str, others: &[Other]) {
    for other in others {
        statement
            .push(format_args!(
                " AND EXISTS (SELECT FROM jsonb_path_query({column}, "
            ))
            .push_bind(other.json_path())
            .push("::jsonpath) AS value WHERE true");
        match &other.wanted {
            Wanted::Text(text) => put_text(statement, "value #>> '{}'", Some(text)),
            Wanted::OneOf(texts) => {
                statement
                    .push(" AND value #>> '{}' = ANY (")
                    .push_bind(texts.clone())
                    .push(")");
            }
            Wanted::PersonName(text) => put_small(statement, "lower(value #>> '{}')", Some(text)),
            Wanted::Range(range) => put_range(statement, "value #>> '{}'", range),
            Wanted::Number(number) => {
                statement
                    .push(" AND CASE WHEN jsonb_typeof(value) = 'number' THEN value::float8 = ")
                    .push_bind(*number)
                    .push(" ELSE false END");
            }
        }
        statement.push(")");
    }
}

fn put_page(statement: &mut Statement, order: &str, filter: &Filter) {
    statement.push(" ORDER BY ").push(order);
    if let Some(limit) = filter.limit {
        statement.push(" LIMIT ").push_bind(limit.max(0));
    }
    if filter.offset > 0 {
        statement.push(" OFFSET ").push_bind(filter.offset);
    }
}

/// The end of a count of what lies behind the first `passed`, to `most`.
pub(super) fn put_rest(statement: &mut Statement, passed: i64, most: i64) {
    statement
        .push(" LIMIT ")
        .push_bind(most)
        .push(" OFFSET ")
        .push_bind(passed)
        .push(") matching");
}

/// Studies that match, with a series that does.
fn put_matching_studies(statement: &mut Statement, filter: &Filter) {
    put_study(statement, filter);
    statement.push(" AND EXISTS (SELECT FROM series WHERE series.study_id = study.id");
    put_series(statement, filter);
    put_some_instance(statement, filter);
    statement.push(")");
}

/// Series that match, of a study that does.
fn put_matching_series(statement: &mut Statement, filter: &Filter) {
    put_study(statement, filter);
    put_series(statement, filter);
    put_some_instance(statement, filter);
}

/// Instances that match, of a series and a study that do.
fn put_matching_instances(statement: &mut Statement, filter: &Filter) {
    put_study(statement, filter);
    put_series(statement, filter);
    put_instance(statement, filter);
}

/// An instance of the series that matches, where something of the instances is asked.
fn put_some_instance(statement: &mut Statement, filter: &Filter) {
    if filter.is_below_series() {
        statement.push(" AND EXISTS (SELECT FROM instance WHERE instance.series_id = series.id");
        put_instance(statement, filter);
        statement.push(")");
    }
}

/// The first current instance of each series; its attributes per frame are no attributes of the series.
const FIRST_OF_SERIES: &str = " CROSS JOIN LATERAL (
    SELECT instance.id, instance.metadata - '52009230' AS metadata FROM instance
    WHERE instance.series_id = series.id AND instance.state = 'current' ORDER BY instance.id LIMIT 1
) first";

/// Whether a file of the series was evicted.
const EVICTED_IN_SERIES: &str = "EXISTS (SELECT FROM instance WHERE instance.series_id = series.id \
    AND instance.state = 'current' AND instance.evicted_at IS NOT NULL)";

/// Counts are of the whole study, not only of what matched.
fn studies(filter: &Filter) -> Statement {
    let mut statement =
        Statement::new("WITH page AS (SELECT study.id, study.study_instance_uid FROM study WHERE true");
    put_matching_studies(&mut statement, filter);
    put_page(&mut statement, "study.id DESC", filter);
    statement.push(
        ") SELECT page.study_instance_uid, sample.metadata, counts.modalities, counts.series_count, counts.instance_count,
       CASE WHEN EXISTS (SELECT FROM series WHERE series.study_id = page.id AND ",
    );
    statement.push(EVICTED_IN_SERIES).push(
        ") THEN 'UNAVAILABLE' ELSE 'ONLINE' END AS availability
FROM page
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(DISTINCT series.modality ORDER BY series.modality)
               FILTER (WHERE series.modality IS NOT NULL), '{}') AS modalities,
           count(*) AS series_count, coalesce(sum(series.instance_count), 0)::bigint AS instance_count
    FROM series WHERE series.study_id = page.id",
    );
    put_shown(&mut statement, filter);
    statement.push(") counts CROSS JOIN LATERAL (SELECT first.metadata FROM series");
    statement
        .push(FIRST_OF_SERIES)
        .push(" WHERE series.study_id = page.id");
    put_shown(&mut statement, filter);
    statement.push(" ORDER BY first.id LIMIT 1) sample ORDER BY page.id DESC");
    statement
}

fn series(filter: &Filter) -> Statement {
    let mut statement = Statement::new(
        "WITH page AS (SELECT series.*, study.study_instance_uid FROM series JOIN study ON study.id = series.study_id \
         WHERE true",
    );
    put_matching_series(&mut statement, filter);
    put_page(&mut statement, "series.id", filter);
    statement.push(
        ") SELECT series.study_instance_uid, series.series_instance_uid, series.origin, first.metadata, \
         series.instance_count::bigint AS instance_count, CASE WHEN ",
    );
    statement
        .push(EVICTED_IN_SERIES)
        .push(" THEN 'UNAVAILABLE' ELSE 'ONLINE' END AS availability FROM page series");
    statement.push(FIRST_OF_SERIES).push(" ORDER BY series.id");
    statement
}

/// What is selected of an instance: for an answer with attributes, for its file, for its document.
const INSTANCE: &str = "study.study_instance_uid, series.series_instance_uid, instance.sop_instance_uid, \
    instance.sop_class_uid, instance.transfer_syntax_uid, instance.archive_key, instance.size_bytes, \
    instance.rows, instance.columns, instance.number_of_frames, \
    CASE WHEN instance.evicted_at IS NULL THEN 'ONLINE' ELSE 'UNAVAILABLE' END AS availability, instance.metadata";
const FILE: &str = "study.study_instance_uid, series.series_instance_uid, instance.sop_instance_uid, \
    instance.sop_class_uid, instance.transfer_syntax_uid, instance.archive_key, \
    instance.rows, instance.number_of_frames, instance.original_ct AS original";
const DOCUMENT: &str = "series.series_instance_uid, instance.sop_instance_uid, instance.archive_key, \
    (instance.metadata || '{\"00080005\": {\"vr\": \"CS\", \"Value\": [\"ISO_IR 192\"]}}')::text AS json";

fn instances(selected: &'static str, filter: &Filter) -> Statement {
    let mut statement = Statement::new("SELECT ");
    statement.push(selected).push(
        " FROM study JOIN series ON series.study_id = study.id JOIN instance ON instance.series_id = series.id \
         WHERE true",
    );
    put_matching_instances(&mut statement, filter);
    let order = "series.id, instance.instance_number NULLS LAST, instance.id";
    put_page(&mut statement, order, filter);
    statement
}

/// Studies and counts are all of the patient's, not only what matched.
fn patients(filter: &Filter) -> Statement {
    let mut statement = Statement::new(
        "WITH page AS (SELECT study.patient_id, study.issuer_of_patient_id, max(study.id) AS latest FROM study \
         WHERE study.patient_id IS NOT NULL",
    );
    put_matching_studies(&mut statement, filter);
    statement.push(" GROUP BY study.patient_id, study.issuer_of_patient_id");
    put_page(&mut statement, "latest DESC", filter);
    statement.push(
        ") SELECT sample.metadata, counts.studies, counts.series_count, counts.instance_count FROM page \
         CROSS JOIN LATERAL (SELECT array_agg(DISTINCT study.study_instance_uid) AS studies, \
         count(*) AS series_count, coalesce(sum(series.instance_count), 0)::bigint AS instance_count \
         FROM study JOIN series ON series.study_id = study.id WHERE study.patient_id = page.patient_id \
         AND study.issuer_of_patient_id IS NOT DISTINCT FROM page.issuer_of_patient_id",
    );
    put_shown(&mut statement, filter);
    statement.push(") counts CROSS JOIN LATERAL (SELECT first.metadata FROM series");
    statement
        .push(FIRST_OF_SERIES)
        .push(" WHERE series.study_id = page.latest");
    put_shown(&mut statement, filter);
    statement.push(" ORDER BY first.id LIMIT 1) sample ORDER BY page.latest DESC");
    statement
}

/// Counts what matches, up to its closing parenthesis.
fn matching(level: Level, filter: &Filter) -> Statement {
    let mut statement = Statement::new("SELECT count(*) FROM (SELECT FROM study");
    match level {
        Level::Study => {
            statement.push(" WHERE true");
            put_matching_studies(&mut statement, filter);
        }
        Level::Series => {
            statement.push(" JOIN series ON series.study_id = study.id WHERE true");
            put_matching_series(&mut statement, filter);
        }
        Level::Instance => {
            statement.push(
                " JOIN series ON series.study_id = study.id JOIN instance ON instance.series_id = series.id WHERE true",
            );
            put_matching_instances(&mut statement, filter);
        }
    }
    statement
}
