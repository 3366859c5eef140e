//! What DICOMweb reads: studies, series and instances by their attributes, and the files behind them.
//!
//! A filter that is `None` matches everything.
//! Text filters take the wildcards of PS3.4 C.2.2.2.4 (`*`, `?`); person names match without regard to case.
//! The order of answers is stable: studies from the latest arrival on, what lies within one in the order of arrival.
//! Pending revisions are not shown, and derived series only when asked for.
//! First a page of rows is found, by indexes where the key has one; then what is shown is fetched for that page alone,
//! so that an answer costs the same in a large archive.

use super::{Db, error::DbError};
use crate::domain::uid::Uid;
use dicom_core::Tag;
use serde_json::Value;
use sqlx::FromRow;

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
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// Lowest.
    pub from: Option<String>,
    /// Highest; a shorter text covers everything that starts with it.
    pub to: Option<String>,
}

/// An attribute that has no column of its own.
#[derive(Debug, Clone)]
pub struct Other {
    /// Where it is, from the dataset through sequences to the attribute itself.
    pub path: Vec<Tag>,
    /// What its text must be.
    pub wanted: Wanted,
}

/// What the text of an attribute must be.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Equal to this with wildcards.
    Text(String),
    /// The same for a person name: without regard to case, in any of its groups.
    PersonName(String),
    /// This number.
    Number(f64),
    /// Within these, inclusive.
    Range(Range),
}

/// A study that matched.
#[derive(Debug, Clone, FromRow)]
pub struct StudyMatch {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// DICOM JSON of one of its instances, for every attribute of the patient and study level.
    pub metadata: Value,
    /// ModalitiesInStudy.
    pub modalities: Vec<String>,
    /// NumberOfStudyRelatedSeries.
    pub series_count: i64,
    /// NumberOfStudyRelatedInstances.
    pub instance_count: i64,
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
    pub metadata: Value,
    /// NumberOfSeriesRelatedInstances.
    pub instance_count: i64,
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
    /// DICOM JSON without bulk data.
    pub metadata: Value,
}

impl Db {
    /// Studies that match; one more than `limit` is never returned, so ask for one more to know whether there are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_studies(&self, filter: &Filter) -> Result<Vec<StudyMatch>, DbError> {
        Ok(bind(STUDIES, filter).fetch_all(&self.app).await?)
    }

    /// Series that match.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_series(&self, filter: &Filter) -> Result<Vec<SeriesMatch>, DbError> {
        Ok(bind(SERIES, filter).fetch_all(&self.app).await?)
    }

    /// Instances that match, by series and then InstanceNumber; also what WADO asks with exact UIDs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_instances(&self, filter: &Filter) -> Result<Vec<InstanceMatch>, DbError> {
        Ok(bind(INSTANCES, filter).fetch_all(&self.app).await?)
    }
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

type Query<'q, T> = sqlx::query::QueryAs<'q, sqlx::Postgres, T, sqlx::postgres::PgArguments>;

/// Not kept as a prepared statement: with its values at hand Postgres leaves out what is not asked and picks the index.
fn bind<'q, T>(statement: &'static str, filter: &Filter) -> Query<'q, T>
where
    T: for<'r> FromRow<'r, sqlx::postgres::PgRow>,
{
    let uids = |list: &Option<Vec<Uid>>| {
        list.as_ref()
            .map(|list| list.iter().map(|uid| uid.as_str().to_owned()).collect::<Vec<_>>())
    };
    let like = |text: &Option<String>| text.as_deref().map(like_pattern);
    let each = |of: fn(&Other) -> Option<String>| filter.others.iter().map(of).collect::<Vec<_>>();
    let ranged = |end: fn(&Range) -> Option<String>| {
        let other = |other: &Other| match &other.wanted {
            Wanted::Range(range) => end(range),
            Wanted::Text(_) | Wanted::PersonName(_) | Wanted::Number(_) => None,
        };
        filter.others.iter().map(other).collect::<Vec<_>>()
    };
    sqlx::query_as(statement)
        .persistent(false)
        .bind(uids(&filter.study_instance_uid))
        .bind(uids(&filter.series_instance_uid))
        .bind(uids(&filter.sop_instance_uid))
        .bind(uids(&filter.sop_class_uid))
        .bind(like(&filter.patient_name))
        .bind(like(&filter.patient_id))
        .bind(like(&filter.accession_number))
        .bind(like(&filter.study_id))
        .bind(like(&filter.study_description))
        .bind(like(&filter.referring_physician_name))
        .bind(like(&filter.modalities_in_study))
        .bind(filter.study_date.from.clone())
        .bind(filter.study_date.end())
        .bind(filter.study_time.from.clone())
        .bind(filter.study_time.end())
        .bind(like(&filter.modality))
        .bind(filter.series_number)
        .bind(like(&filter.series_description))
        .bind(filter.instance_number)
        .bind(filter.performed_procedure_step_start_date.from.clone())
        .bind(filter.performed_procedure_step_start_date.end())
        .bind(filter.include_derived)
        .bind(filter.limit.map(|limit| limit.max(0)))
        .bind(filter.offset.max(0))
        .bind(each(|other| Some(other.json_path())))
        .bind(each(|other| match &other.wanted {
            Wanted::Text(text) => Some(like_pattern(text)),
            Wanted::PersonName(text) => Some(like_pattern(&text.to_lowercase())),
            Wanted::Number(_) | Wanted::Range(_) => None,
        }))
        .bind(ranged(|range| range.from.clone()))
        .bind(ranged(Range::end))
        .bind(
            filter
                .others
                .iter()
                .map(|other| matches!(other.wanted, Wanted::PersonName(_)))
                .collect::<Vec<_>>(),
        )
        .bind(filter.patient_birth_date.from.clone())
        .bind(filter.patient_birth_date.end())
        .bind(like(&filter.patient_sex))
        .bind(filter.is_below_series())
        .bind(
            filter
                .others
                .iter()
                .map(|other| match other.wanted {
                    Wanted::Number(number) => Some(number),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        )
}

/// DICOM wildcards → SQL's, with SQL's own escaped.
fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', c]),
            _ => pattern.push(c),
        }
    }
    pattern
}

/// What is matched of a study; macros because statements are static text.
macro_rules! of_study {
    () => {
        "
      ($1::text[] IS NULL OR study.study_instance_uid = ANY ($1))
  AND ($5::text IS NULL OR lower(study.patient_name) LIKE lower($5))
  AND ($6::text IS NULL OR study.patient_id LIKE $6)
  AND ($7::text IS NULL OR study.accession_number LIKE $7)
  AND ($8::text IS NULL OR study.study_id LIKE $8)
  AND ($9::text IS NULL OR study.study_description ILIKE $9)
  AND ($10::text IS NULL OR study.referring_physician_name ILIKE $10)
  AND ($11::text IS NULL OR EXISTS (SELECT FROM series other WHERE other.study_id = study.id
       AND other.instance_count > 0 AND other.modality LIKE $11 AND ($22 OR other.origin <> 'derived')))
  AND ($12::text IS NULL OR study.study_date ~>=~ $12)
  AND ($13::text IS NULL OR study.study_date ~<=~ $13)
  AND ($14::text IS NULL OR study.study_time ~>=~ $14)
  AND ($15::text IS NULL OR study.study_time ~<=~ $15)
  AND ($30::text IS NULL OR study.patient_birth_date ~>=~ $30)
  AND ($31::text IS NULL OR study.patient_birth_date ~<=~ $31)
  AND ($32::text IS NULL OR study.patient_sex LIKE $32)
"
    };
}

/// What is matched of a series.
macro_rules! of_series {
    () => {
        "
      series.instance_count > 0
  AND ($2::text[] IS NULL OR series.series_instance_uid = ANY ($2))
  AND ($16::text IS NULL OR series.modality LIKE $16)
  AND ($17::integer IS NULL OR series.series_number = $17)
  AND ($18::text IS NULL OR series.series_description ILIKE $18)
  AND ($20::text IS NULL OR series.performed_procedure_step_start_date ~>=~ $20)
  AND ($21::text IS NULL OR series.performed_procedure_step_start_date ~<=~ $21)
  AND ($22 OR series.origin <> 'derived')
"
    };
}

/// What is matched of an instance.
macro_rules! of_instance {
    () => {
        "
      instance.state = 'current'
  AND ($3::text[] IS NULL OR instance.sop_instance_uid = ANY ($3))
  AND ($4::text[] IS NULL OR instance.sop_class_uid = ANY ($4))
  AND ($19::integer IS NULL OR instance.instance_number = $19)
  AND NOT EXISTS (
      SELECT FROM unnest($25::text[], $26::text[], $27::text[], $28::text[], $29::boolean[], $34::float8[])
           AS wanted (path, pattern, low, high, small, number)
      WHERE NOT EXISTS (
          SELECT FROM jsonb_path_query(instance.metadata, wanted.path::jsonpath) AS value
          WHERE (wanted.pattern IS NULL
                 OR CASE WHEN wanted.small THEN lower(value #>> '{}') ELSE value #>> '{}' END LIKE wanted.pattern)
            AND CASE WHEN wanted.number IS NULL THEN true
                     WHEN jsonb_typeof(value) = 'number' THEN value::float8 = wanted.number
                     ELSE false END
            AND (wanted.low IS NULL OR value #>> '{}' ~>=~ wanted.low)
            AND (wanted.high IS NULL OR value #>> '{}' ~<=~ wanted.high)))
"
    };
}

/// The first current instance of each series; its attributes per frame are no attributes of the series.
macro_rules! first_of_series {
    () => {
        "CROSS JOIN LATERAL (
    SELECT instance.id, instance.metadata - '52009230' AS metadata FROM instance
    WHERE instance.series_id = series.id AND instance.state = 'current' ORDER BY instance.id LIMIT 1
) first"
    };
}

/// Counts are of the whole study, not only of what matched.
const STUDIES: &str = concat!(
    "
WITH page AS (
SELECT study.id, study.study_instance_uid FROM study
WHERE ",
    of_study!(),
    "AND EXISTS (SELECT FROM series WHERE series.study_id = study.id AND (",
    of_series!(),
    ") AND (NOT $33 OR EXISTS (SELECT FROM instance WHERE instance.series_id = series.id AND (",
    of_instance!(),
    "))))
ORDER BY study.id DESC LIMIT $23 OFFSET $24)
SELECT page.study_instance_uid, sample.metadata, counts.modalities, counts.series_count, counts.instance_count
FROM page
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(DISTINCT series.modality ORDER BY series.modality)
               FILTER (WHERE series.modality IS NOT NULL), '{}') AS modalities,
           count(*) AS series_count, coalesce(sum(series.instance_count), 0)::bigint AS instance_count
    FROM series
    WHERE series.study_id = page.id AND series.instance_count > 0 AND ($22 OR series.origin <> 'derived')
) counts
CROSS JOIN LATERAL (
    SELECT first.metadata FROM series ",
    first_of_series!(),
    "
    WHERE series.study_id = page.id AND series.instance_count > 0 AND ($22 OR series.origin <> 'derived')
    ORDER BY first.id LIMIT 1
) sample
ORDER BY page.id DESC"
);

const SERIES: &str = concat!(
    "
WITH page AS (
SELECT series.*, study.study_instance_uid FROM series JOIN study ON study.id = series.study_id
WHERE ",
    of_study!(),
    "AND",
    of_series!(),
    "AND (NOT $33 OR EXISTS (SELECT FROM instance WHERE instance.series_id = series.id AND (",
    of_instance!(),
    ")))
ORDER BY series.id LIMIT $23 OFFSET $24)
SELECT series.study_instance_uid, series.series_instance_uid, series.origin, first.metadata,
       series.instance_count::bigint AS instance_count
FROM page series ",
    first_of_series!(),
    " ORDER BY series.id"
);

const INSTANCES: &str = concat!(
    "
SELECT study.study_instance_uid, series.series_instance_uid, instance.sop_instance_uid, instance.sop_class_uid,
       instance.transfer_syntax_uid, instance.archive_key, instance.size_bytes,
       instance.rows, instance.columns, instance.number_of_frames, instance.metadata
FROM study
JOIN series ON series.study_id = study.id
JOIN instance ON instance.series_id = series.id
WHERE ",
    of_study!(),
    "AND",
    of_series!(),
    "AND",
    of_instance!(),
    "AND $33 IS NOT NULL
ORDER BY series.id, instance.instance_number NULLS LAST, instance.id LIMIT $23 OFFSET $24"
);

#[cfg(test)]
mod tests {
    use super::like_pattern;

    #[test]
    fn turns_dicom_wildcards_into_sql_and_escapes_what_sql_would_take_for_one() {
        assert_eq!(like_pattern("Do*^J?"), "Do%^J_");
        assert_eq!(like_pattern("50%_\\"), "50\\%\\_\\\\");
    }
}
