//! What DICOMweb reads: studies, series and instances by their attributes, and the files behind them.
//!
//! A filter that is `None` matches everything.
//! Text filters take the wildcards of PS3.4 C.2.2.2.4 (`*`, `?`); person names match without regard to case.
//! The order of answers is stable: by arrival.
//! Pending revisions are not shown, and derived series only when asked for.

use super::{Db, error::DbError};
use crate::domain::uid::Uid;
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

/// A patient of whom a study matched.
#[derive(Debug, Clone, FromRow)]
pub struct PatientMatch {
    /// DICOM JSON of one instance, for every attribute of the patient.
    pub metadata: Value,
    /// The studies of this patient.
    pub studies: Vec<String>,
    /// NumberOfPatientRelatedSeries.
    pub series_count: i64,
    /// NumberOfPatientRelatedInstances.
    pub instance_count: i64,
}

/// The file of an instance, without its attributes.
#[derive(Debug, Clone, FromRow)]
pub struct FileMatch {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// Transfer syntax of the file.
    pub transfer_syntax_uid: String,
    /// Name of the file in the archive.
    pub archive_key: String,
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
    /// Patients of whom a study matches; who has no PatientID is nobody.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_patients(&self, filter: &Filter) -> Result<Vec<PatientMatch>, DbError> {
        Ok(bind(sqlx::query_as(PATIENTS), filter)
            .fetch_all(&self.app)
            .await?)
    }

    /// The files of the instances that match, in the order of [`Db::find_instances`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_files(&self, filter: &Filter) -> Result<Vec<FileMatch>, DbError> {
        Ok(bind(sqlx::query_as(FILES), filter).fetch_all(&self.app).await?)
    }

    /// Studies that match; one more than `limit` is never returned, so ask for one more to know whether there are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_studies(&self, filter: &Filter) -> Result<Vec<StudyMatch>, DbError> {
        Ok(bind(sqlx::query_as(STUDIES), filter).fetch_all(&self.app).await?)
    }

    /// Series that match.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_series(&self, filter: &Filter) -> Result<Vec<SeriesMatch>, DbError> {
        Ok(bind(sqlx::query_as(SERIES), filter).fetch_all(&self.app).await?)
    }

    /// Instances that match, by series and then InstanceNumber; also what WADO asks with exact UIDs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_instances(&self, filter: &Filter) -> Result<Vec<InstanceMatch>, DbError> {
        Ok(bind(sqlx::query_as(INSTANCES), filter)
            .fetch_all(&self.app)
            .await?)
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
}

type Query<'q, T> = sqlx::query::QueryAs<'q, sqlx::Postgres, T, sqlx::postgres::PgArguments>;

fn bind<'q, T>(query: Query<'q, T>, filter: &Filter) -> Query<'q, T> {
    let uids = |list: &Option<Vec<Uid>>| {
        list.as_ref()
            .map(|list| list.iter().map(|uid| uid.as_str().to_owned()).collect::<Vec<_>>())
    };
    let like = |text: &Option<String>| text.as_deref().map(like_pattern);
    // '~' sorts after every digit and dot: "2024~" covers all of 2024.
    let to = |range: &Range| range.to.as_ref().map(|to| format!("{to}~"));
    query
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
        .bind(to(&filter.study_date))
        .bind(filter.study_time.from.clone())
        .bind(to(&filter.study_time))
        .bind(like(&filter.modality))
        .bind(filter.series_number)
        .bind(like(&filter.series_description))
        .bind(filter.instance_number)
        .bind(filter.performed_procedure_step_start_date.from.clone())
        .bind(to(&filter.performed_procedure_step_start_date))
        .bind(filter.include_derived)
        .bind(filter.limit.map(|limit| limit.max(0)))
        .bind(filter.offset.max(0))
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

/// The one condition of all three queries; a macro because statements are static text.
macro_rules! matching {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            "
FROM study
JOIN series ON series.study_id = study.id
JOIN instance ON instance.series_id = series.id AND instance.state = 'current'
WHERE ($1::text[] IS NULL OR study.study_instance_uid = ANY ($1))
  AND ($2::text[] IS NULL OR series.series_instance_uid = ANY ($2))
  AND ($3::text[] IS NULL OR instance.sop_instance_uid = ANY ($3))
  AND ($4::text[] IS NULL OR instance.sop_class_uid = ANY ($4))
  AND ($5::text IS NULL OR study.patient_name ILIKE $5)
  AND ($6::text IS NULL OR study.patient_id LIKE $6)
  AND ($7::text IS NULL OR study.accession_number LIKE $7)
  AND ($8::text IS NULL OR study.study_id LIKE $8)
  AND ($9::text IS NULL OR study.study_description ILIKE $9)
  AND ($10::text IS NULL OR study.referring_physician_name ILIKE $10)
  AND ($11::text IS NULL OR EXISTS (SELECT FROM series other WHERE other.study_id = study.id
       AND other.modality LIKE $11 AND ($22 OR other.origin <> 'derived')))
  AND ($12::text IS NULL OR study.study_date >= $12)
  AND ($13::text IS NULL OR study.study_date <= $13)
  AND ($14::text IS NULL OR study.study_time >= $14)
  AND ($15::text IS NULL OR study.study_time <= $15)
  AND ($16::text IS NULL OR series.modality LIKE $16)
  AND ($17::integer IS NULL OR series.series_number = $17)
  AND ($18::text IS NULL OR series.series_description ILIKE $18)
  AND ($19::integer IS NULL OR instance.instance_number = $19)
  AND ($20::text IS NULL OR series.performed_procedure_step_start_date >= $20)
  AND ($21::text IS NULL OR series.performed_procedure_step_start_date <= $21)
  AND ($22 OR series.origin <> 'derived')
",
            $tail
        )
    };
}

/// Studies and counts are all of the patient's, not only what matched.
const PATIENTS: &str = matching!(
    "
SELECT (SELECT first.metadata FROM instance first WHERE first.id = min(instance.id)) AS metadata,
       (SELECT array_agg(other.study_instance_uid ORDER BY other.id) FROM study other
        WHERE other.patient_id = study.patient_id
          AND other.issuer_of_patient_id IS NOT DISTINCT FROM study.issuer_of_patient_id) AS studies,
       (SELECT count(*) FROM series every JOIN study other ON other.id = every.study_id
        WHERE other.patient_id = study.patient_id AND ($22 OR every.origin <> 'derived')
          AND other.issuer_of_patient_id IS NOT DISTINCT FROM study.issuer_of_patient_id) AS series_count,
       (SELECT count(*) FROM instance any_instance JOIN series every ON every.id = any_instance.series_id
        JOIN study other ON other.id = every.study_id
        WHERE other.patient_id = study.patient_id AND ($22 OR every.origin <> 'derived')
          AND any_instance.state = 'current'
          AND other.issuer_of_patient_id IS NOT DISTINCT FROM study.issuer_of_patient_id) AS instance_count",
    "  AND study.patient_id IS NOT NULL
GROUP BY study.patient_id, study.issuer_of_patient_id ORDER BY min(study.id) LIMIT $23 OFFSET $24"
);

const FILES: &str = matching!(
    "
SELECT study.study_instance_uid, instance.sop_instance_uid, instance.sop_class_uid,
       instance.transfer_syntax_uid, instance.archive_key",
    "ORDER BY series.id, instance.instance_number NULLS LAST, instance.id LIMIT $23 OFFSET $24"
);

/// Counts are of the whole study, not only of what matched.
const STUDIES: &str = matching!(
    "
SELECT study.study_instance_uid,
       (SELECT first.metadata FROM instance first WHERE first.id = min(instance.id)) AS metadata,
       (SELECT coalesce(array_agg(DISTINCT other.modality ORDER BY other.modality)
               FILTER (WHERE other.modality IS NOT NULL), '{}')
        FROM series other WHERE other.study_id = study.id AND ($22 OR other.origin <> 'derived')) AS modalities,
       (SELECT count(*) FROM series other
        WHERE other.study_id = study.id AND ($22 OR other.origin <> 'derived')) AS series_count,
       (SELECT count(*) FROM instance every JOIN series other ON other.id = every.series_id
        WHERE other.study_id = study.id AND every.state = 'current'
          AND ($22 OR other.origin <> 'derived')) AS instance_count",
    "GROUP BY study.id ORDER BY study.id LIMIT $23 OFFSET $24"
);

const SERIES: &str = matching!(
    "
SELECT study.study_instance_uid, series.series_instance_uid, series.origin,
       (SELECT first.metadata FROM instance first WHERE first.id = min(instance.id)) AS metadata,
       (SELECT count(*) FROM instance every
        WHERE every.series_id = series.id AND every.state = 'current') AS instance_count",
    "GROUP BY study.id, series.id ORDER BY series.id LIMIT $23 OFFSET $24"
);

const INSTANCES: &str = matching!(
    "
SELECT study.study_instance_uid, series.series_instance_uid, instance.sop_instance_uid, instance.sop_class_uid,
       instance.transfer_syntax_uid, instance.archive_key, instance.size_bytes,
       instance.rows, instance.columns, instance.number_of_frames, instance.metadata",
    "ORDER BY series.id, instance.instance_number NULLS LAST, instance.id LIMIT $23 OFFSET $24"
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
