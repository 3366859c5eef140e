//! Studies as people see them: the worklist, one study with its series and analyses.
//!
//! The state of a study is made by the view `worklist` and nowhere else.

use super::{Db, error::DbError};
use crate::domain::uid::Uid;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, Row, postgres::PgRow};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Which studies, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these states; none means any.
    pub states: Vec<String>,
    /// Only those that a reader judged as they are now, or only those that nobody did.
    pub read: Option<bool>,
    /// Each word must be in the name, ID, accession number, description, date or reason; case and marks do not count.
    pub words: Vec<String>,
    /// In which order.
    pub order: Order,
}

/// The order of the worklist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Flagged, uncertain, then everything else that nobody read by arrival, and last what was read.
    /// The longest waiting comes first in each, so that no study is overtaken because the machine saw nothing in it.
    #[default]
    Urgency,
    /// The last arrived first.
    Newest,
}

/// A page of the worklist.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Worklist {
    /// Studies of this page.
    pub studies: Vec<Study>,
    /// Studies that the filter lets through.
    pub total: i64,
    /// All studies, by where they stand.
    pub lanes: Lanes,
}

/// How many studies stand where, whatever the filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct Lanes {
    /// Flagged, and nobody has read them.
    pub flagged: i64,
    /// Uncertain, and nobody has read them.
    pub uncertain: i64,
    /// Not flagged, failed or under way, and nobody has read them.
    pub other: i64,
    /// Judged by a reader as they are now.
    pub read: i64,
}

/// How far the analysis under way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Steps done.
    pub done: i32,
    /// Steps in all; 0 until the worker knows.
    pub total: i32,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// One study of the worklist.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Study {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// PatientName.
    pub patient_name: Option<String>,
    /// PatientID.
    pub patient_id: Option<String>,
    /// PatientBirthDate, YYYYMMDD.
    pub patient_birth_date: Option<String>,
    /// PatientSex.
    pub patient_sex: Option<String>,
    /// AccessionNumber.
    pub accession_number: Option<String>,
    /// StudyDate, YYYYMMDD.
    pub study_date: Option<String>,
    /// StudyTime, HHMMSS.
    pub study_time: Option<String>,
    /// StudyDescription.
    pub study_description: Option<String>,
    /// When its first instance was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub arrived_at: OffsetDateTime,
    /// When anything about it changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// `arriving`, `analysing`, `flagged`, `not_flagged`, `uncertain` or `failed`.
    pub state: String,
    /// The analysis under way, if any.
    pub progress: Option<Progress>,
    /// Case score of the current analysis, not calibrated.
    pub score: Option<f64>,
    /// Uncertainty of the current analysis about the case.
    pub uncertainty: Option<f64>,
    /// Number of findings.
    pub findings: Option<i32>,
    /// Volume of all findings.
    pub volume_ml: Option<f64>,
    /// Why there is no newer answer, in a sentence that starts with a reason code.
    pub reason: Option<String>,
    /// Revision of the latest analysis.
    pub revision: Option<i32>,
    /// Received series.
    pub series_count: i32,
    /// Received instances.
    pub instance_count: i32,
    /// The latest verdict on the study as a whole; null until somebody gave one.
    pub reading: Option<Reading>,
    /// Who has it open now.
    pub present: Vec<String>,
}

/// What a reader said of a study as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reading {
    /// `accept`, `reject`, `unsure` or `missed`.
    pub verdict: String,
    /// Who.
    pub reader: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whether the answer was revised since.
    pub outdated: bool,
}

impl FromRow<'_, PgRow> for Study {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let done: Option<i32> = row.try_get("progress_done")?;
        let total: Option<i32> = row.try_get("progress_total")?;
        let since: Option<OffsetDateTime> = row.try_get("progress_since")?;
        Ok(Self {
            study_instance_uid: row.try_get("study_instance_uid")?,
            patient_name: row.try_get("patient_name")?,
            patient_id: row.try_get("patient_id")?,
            patient_birth_date: row.try_get("patient_birth_date")?,
            patient_sex: row.try_get("patient_sex")?,
            accession_number: row.try_get("accession_number")?,
            study_date: row.try_get("study_date")?,
            study_time: row.try_get("study_time")?,
            study_description: row.try_get("study_description")?,
            arrived_at: row.try_get("arrived_at")?,
            updated_at: row.try_get("updated_at")?,
            state: row.try_get("state")?,
            progress: match (done, total, since) {
                (Some(done), Some(total), Some(since)) => Some(Progress { done, total, since }),
                _ => None,
            },
            score: row.try_get("score")?,
            uncertainty: row.try_get("uncertainty")?,
            findings: row.try_get("findings")?,
            volume_ml: row.try_get("volume_ml")?,
            reason: row.try_get("reason")?,
            revision: row.try_get("revision")?,
            series_count: row.try_get("series_count")?,
            instance_count: row.try_get("instance_count")?,
            reading: match row.try_get::<Option<String>, _>("read_as")? {
                Some(verdict) => Some(Reading {
                    verdict,
                    reader: row.try_get("reader")?,
                    at: row.try_get("read_at")?,
                    outdated: row.try_get("outdated")?,
                }),
                None => None,
            },
            present: row.try_get("present")?,
        })
    }
}

/// One study with everything that its page shows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StudyDetail {
    /// What the worklist shows of it.
    #[serde(flatten)]
    pub study: Study,
    /// Its series, results included, oldest first.
    pub series: Vec<StudySeries>,
    /// The current analysis; null until one is complete.
    pub analysis: Option<StudyAnalysis>,
    /// Every complete analysis, newest first.
    pub revisions: Vec<Revision>,
    /// Other studies of the patient with CT images, the latest first.
    pub comparisons: Vec<Comparison>,
}

/// Another study of the same patient: same PatientID and issuer, and an empty ID is nobody's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct Comparison {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// StudyDate, YYYYMMDD.
    pub study_date: Option<String>,
    /// StudyTime, HHMMSS.
    pub study_time: Option<String>,
    /// StudyDescription.
    pub study_description: Option<String>,
}

/// A series of a study.
#[derive(Debug, Clone, Serialize, FromRow, ToSchema)]
pub struct StudySeries {
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// Modality.
    pub modality: Option<String>,
    /// SeriesNumber.
    pub series_number: Option<i32>,
    /// SeriesDescription.
    pub series_description: Option<String>,
    /// Current instances.
    pub instance_count: i32,
    /// `received`, `result`, `derived` or `reader`.
    pub origin: String,
    /// Whether the current analysis used it; null before there is one.
    pub chosen: Option<bool>,
    /// Why, or why not; for a quarantined series why it is.
    pub reason: Option<String>,
}

/// A complete analysis.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StudyAnalysis {
    /// Its name.
    pub id: Uuid,
    /// 1 for the first of the study.
    pub revision: i32,
    /// Whether a later one replaced it.
    pub superseded: bool,
    /// The date in its results.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// From start to commit.
    pub duration_ms: Option<i64>,
    /// From the last stored instance to the start.
    pub waited_ms: i64,
    /// `findings.json`.
    pub report: serde_json::Value,
    /// Its results, in the order in which they were stored: those of each model that ran.
    pub objects: Vec<ResultObject>,
}

/// What a result object is, and where it is found over DICOMweb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ResultObject {
    /// `seg`, `pm`, `sr`, `labelmap`, `structures`, `sc`, `kos` or `other`.
    pub role: String,
    /// The question of the analysis that it is about; null when it cannot be told.
    pub question: Option<String>,
    /// SeriesInstanceUID of the images that it lies on; null for what lies on none.
    pub source_series: Option<String>,
    /// ContentLabel: which quantity a map shows, `ENTROPY` or another.
    pub content_label: Option<String>,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
}

/// One line of a study's history.
#[derive(Debug, Clone, Serialize, FromRow, ToSchema)]
pub struct Revision {
    /// Name of the analysis.
    pub id: Uuid,
    /// 1 for the first of the study.
    pub revision: i32,
    /// The date in its results.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether a later one replaced it.
    pub superseded: bool,
}

impl Db {
    /// A page of the studies that a filter lets through.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn worklist(&self, filter: &Filter, limit: i64, offset: i64) -> Result<Worklist, DbError> {
        let studies = sqlx::query_as(PAGE)
            .bind(&filter.states)
            .bind(filter.read)
            .bind(&filter.words)
            .bind(filter.order == Order::Newest)
            .bind(limit.max(0))
            .bind(offset.max(0))
            .fetch_all(&self.app)
            .await?;
        let counts = sqlx::query(COUNTS)
            .bind(&filter.states)
            .bind(filter.read)
            .bind(&filter.words)
            .fetch_one(&self.app)
            .await?;
        Ok(Worklist {
            studies,
            total: counts.try_get("total")?,
            lanes: Lanes::from_row(&counts)?,
        })
    }

    /// How many studies are in each state of the worklist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_studies(&self) -> Result<Vec<(String, i64)>, DbError> {
        Ok(
            sqlx::query_as("SELECT state, count(*) FROM study_state GROUP BY state ORDER BY state")
                .fetch_all(&self.app)
                .await?,
        )
    }

    /// One study for the worklist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn study(&self, study: &Uid) -> Result<Option<Study>, DbError> {
        Ok(
            sqlx::query_as("SELECT * FROM worklist WHERE study_instance_uid = $1")
                .bind(study.as_str())
                .fetch_optional(&self.app)
                .await?,
        )
    }

    /// One study for its page.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn study_detail(&self, study: &Uid) -> Result<Option<StudyDetail>, DbError> {
        let Some(head) = self.study(study).await? else {
            return Ok(None);
        };
        let series = sqlx::query_as(SERIES)
            .bind(study.as_str())
            .fetch_all(&self.app)
            .await?;
        let revisions: Vec<Revision> = sqlx::query_as(REVISIONS)
            .bind(study.as_str())
            .fetch_all(&self.app)
            .await?;
        let analysis = match revisions.first() {
            Some(current) => self.study_analysis(current.id).await?,
            None => None,
        };
        let comparisons = sqlx::query_as(COMPARISONS)
            .bind(study.as_str())
            .fetch_all(&self.app)
            .await?;
        Ok(Some(StudyDetail {
            study: head,
            series,
            analysis,
            revisions,
            comparisons,
        }))
    }

    /// One complete analysis, superseded or not.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn study_analysis(&self, analysis: Uuid) -> Result<Option<StudyAnalysis>, DbError> {
        let Some(row) = sqlx::query(ANALYSIS)
            .bind(analysis)
            .fetch_optional(&self.app)
            .await?
        else {
            return Ok(None);
        };
        let report: serde_json::Value = row.try_get("report")?;
        let objects = sqlx::query(OBJECTS).bind(analysis).fetch_all(&self.app).await?;
        let objects = objects.iter().map(|object| result_object(object, &report));
        Ok(Some(StudyAnalysis {
            id: analysis,
            revision: row.try_get("revision")?,
            superseded: row.try_get("superseded")?,
            created_at: row.try_get("created_at")?,
            duration_ms: row.try_get("duration_ms")?,
            waited_ms: row.try_get("waited_ms")?,
            objects: objects.collect::<Result<_, _>>()?,
            report,
        }))
    }
}

/// A row of `OBJECTS`; the description of a result's series begins with the question that it answers.
fn result_object(row: &PgRow, report: &serde_json::Value) -> Result<ResultObject, sqlx::Error> {
    let description: Option<String> = row.try_get("series_description")?;
    let description = description.unwrap_or_default();
    let answers = report["answers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut questions = answers.iter().filter_map(|answer| answer["question"].as_str());
    Ok(ResultObject {
        role: row.try_get("role")?,
        question: questions
            .find(|question| description.starts_with(&format!("ictus {question} ")))
            .map(str::to_owned),
        source_series: row.try_get("source_series")?,
        content_label: row.try_get("content_label")?,
        series_instance_uid: row.try_get("series_instance_uid")?,
        sop_instance_uid: row.try_get("sop_instance_uid")?,
    })
}

/// Found first, counted after: instances are counted for the studies of the page only.
const PAGE: &str = "
WITH page AS MATERIALIZED (
    SELECT study_id, row_number() OVER (
        ORDER BY CASE WHEN $4 THEN arrived_at END DESC,
            array_position(ARRAY['flagged', 'uncertain', 'other', 'read'], lane),
            CASE WHEN NOT read THEN arrived_at END, read_at DESC, study_id
    ) AS place
    FROM study_state WHERE matches(study_state, $1, $2, $3)
    ORDER BY place LIMIT $5 OFFSET $6
)
SELECT worklist.* FROM page JOIN worklist USING (study_id) ORDER BY place
";

const COUNTS: &str = "
SELECT count(*) FILTER (WHERE matches(study_state, $1, $2, $3)) AS total,
       count(*) FILTER (WHERE lane = 'flagged') AS flagged, count(*) FILTER (WHERE lane = 'uncertain') AS uncertain,
       count(*) FILTER (WHERE lane = 'other') AS other, count(*) FILTER (WHERE lane = 'read') AS read
FROM study_state
";

/// `chosen` and `reason` come from the report of the current analysis.
const SERIES: &str = "
SELECT series.series_instance_uid, series.modality, series.series_number, series.series_description, series.origin,
       count(instance.id)::integer AS instance_count,
       (choice.value ->> 'chosen')::boolean AS chosen,
       coalesce('identity_conflict: ' || series.conflict, choice.value ->> 'reason') AS reason
FROM series
JOIN study ON study.id = series.study_id
LEFT JOIN instance ON instance.series_id = series.id AND instance.state = 'current'
LEFT JOIN LATERAL (
    SELECT report FROM analysis WHERE analysis.study_id = study.id AND analysis.state = 'complete'
    ORDER BY analysis.created_at DESC, analysis.revision DESC LIMIT 1
) answer ON true
LEFT JOIN LATERAL (
    SELECT value FROM jsonb_array_elements(answer.report -> 'series')
    WHERE value ->> 'uid' = series.series_instance_uid LIMIT 1
) choice ON true
WHERE study.study_instance_uid = $1
GROUP BY series.id, choice.value
ORDER BY series.id
";

const REVISIONS: &str = "
SELECT analysis.id, revision, created_at, superseded_at IS NOT NULL AS superseded
FROM analysis JOIN study ON study.id = analysis.study_id
WHERE study_instance_uid = $1 AND state = 'complete'
ORDER BY created_at DESC, revision DESC
";

/// A quarantined series is nobody's until its identity is settled.
const COMPARISONS: &str = "
SELECT other.study_instance_uid, other.study_date, other.study_time, other.study_description
FROM study
JOIN study other ON other.patient_id = study.patient_id AND other.id <> study.id
    AND other.issuer_of_patient_id IS NOT DISTINCT FROM study.issuer_of_patient_id
WHERE study.study_instance_uid = $1 AND study.patient_id <> ''
  AND NOT EXISTS (SELECT FROM series WHERE series.study_id = study.id AND series.conflict IS NOT NULL)
  AND EXISTS (
      SELECT FROM series JOIN instance ON instance.series_id = series.id AND instance.state = 'current'
      WHERE series.study_id = other.id AND series.modality = 'CT' AND series.origin = 'received'
        AND series.conflict IS NULL
  )
ORDER BY other.study_date DESC NULLS LAST, other.study_time DESC NULLS LAST, other.id DESC
LIMIT 20
";

const ANALYSIS: &str = "
SELECT revision, superseded_at IS NOT NULL AS superseded, created_at, duration_ms, waited_ms, report
FROM analysis WHERE id = $1 AND state = 'complete'
";

const OBJECTS: &str = "
SELECT role, series_instance_uid, sop_instance_uid, series_description,
       metadata #>> '{00081115,Value,0,0020000E,Value,0}' AS source_series,
       metadata #>> '{00700080,Value,0}' AS content_label
FROM analysis_instance
JOIN instance ON instance.id = instance_id
JOIN series ON series.id = instance.series_id
WHERE analysis_id = $1 AND role <> 'source'
ORDER BY instance.id
";
