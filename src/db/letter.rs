//! What a message about an analysis is made from, read when it is sent: so it names the patient as the index does now.

use super::{Db, error::DbError};
use serde_json::Value;
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

/// Everything that a message may say.
#[derive(Debug, Clone, FromRow)]
pub struct Letter {
    /// The delivery.
    pub delivery: Uuid,
    /// `notification`, `results`, `correction` or `verdict`.
    pub subject: String,
    /// When it was filed.
    pub filed_at: OffsetDateTime,
    /// The identity's edition, 0 before any correction.
    pub edition: i32,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// PatientName, alphabetic.
    pub patient_name: Option<String>,
    /// PatientID.
    pub patient_id: Option<String>,
    /// IssuerOfPatientID.
    pub issuer_of_patient_id: Option<String>,
    /// PatientBirthDate.
    pub patient_birth_date: Option<String>,
    /// PatientSex.
    pub patient_sex: Option<String>,
    /// AccessionNumber.
    pub accession_number: Option<String>,
    /// StudyDate.
    pub study_date: Option<String>,
    /// StudyTime.
    pub study_time: Option<String>,
    /// StudyDescription.
    pub study_description: Option<String>,
    /// The analysis.
    pub analysis: Uuid,
    /// Its revision.
    pub revision: i32,
    /// The date in its results.
    pub analysed_at: OffsetDateTime,
    /// `present`, `absent`, `uncertain` or `not_evaluated`.
    pub answer: String,
    /// `findings.json`.
    pub report: Value,
    /// Why somebody has to be told: `first`, `reappeared` or `grown`.
    pub alert: Option<String>,
    /// The current results of the analysis.
    pub results: Json<Vec<LetterInstance>>,
    /// A reader's word, if it is about one.
    pub verdict: Option<String>,
    /// The finding that the word is about; the whole answer when it names none.
    pub verdict_finding: Option<String>,
    /// Who judged or drew, as others read it.
    pub reader: Option<String>,
    /// When.
    pub read_at: Option<OffsetDateTime>,
    /// Millilitres of what a reader drew, by region.
    pub drawn: Option<Value>,
}

/// A result as a message names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LetterInstance {
    /// `seg`, `pm`, `sr`, `sc`, `kos`, …
    pub role: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
}

impl Db {
    /// What there is to say in a delivery that is a message.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn letter(&self, delivery: Uuid) -> Result<Letter, DbError> {
        Ok(sqlx::query_as(LETTER).bind(delivery).fetch_one(&self.app).await?)
    }
}

const LETTER: &str = "
SELECT outbox.id AS delivery, outbox.subject, outbox.created_at AS filed_at, outbox.edition, study_instance_uid,
       patient_name, patient_id, issuer_of_patient_id, patient_birth_date, patient_sex, accession_number,
       study_date, study_time, study_description, analysis.id AS analysis, revision,
       analysis.created_at AS analysed_at, answer, report, alert.reason AS alert,
       (SELECT coalesce(json_agg(json_build_object('role', role, 'sop_class_uid', sop_class_uid,
                   'series_instance_uid', series_instance_uid, 'sop_instance_uid', sop_instance_uid)
                   ORDER BY instance.id), '[]')
        FROM analysis_instance JOIN instance ON instance.id = instance_id AND instance.state = 'current'
        JOIN series ON series.id = series_id
        WHERE analysis_id = analysis.id AND role <> 'source') AS results,
       verdict.verdict, verdict.finding AS verdict_finding,
       coalesce(account.display_name, correction.made_by) AS reader,
       coalesce(verdict.at, correction.at) AS read_at,
       (SELECT json_agg(region -> 'volume_ml') FROM jsonb_array_elements(correction.regions) AS region) AS drawn
FROM outbox JOIN analysis ON analysis.id = outbox.analysis_id JOIN study ON study.id = analysis.study_id
LEFT JOIN alert ON alert.analysis_id = analysis.id
LEFT JOIN verdict ON verdict.id = outbox.verdict_id
LEFT JOIN correction ON correction.id = outbox.correction_id
LEFT JOIN account ON account.id = coalesce(verdict.account_id, correction.account_id)
WHERE outbox.id = $1
";
