//! What readers left behind of each study, as far as it makes a label to learn from.

use super::{
    Db,
    error::DbError,
    figures::{Span, bounds},
};
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

/// The current answer for a study, and what readers said of it.
#[derive(Debug, Clone, FromRow)]
pub struct ExportRow {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// Issuer and PatientID; none when the ID is empty.
    pub patient: Option<String>,
    /// The analysis.
    pub analysis: Uuid,
    /// What readers said of the whole: a verdict, `differ`, or none.
    pub outcome: Option<String>,
    /// What readers said of each finding: its name and a verdict, or `differ`.
    pub findings: Json<Vec<(String, String)>>,
    /// Who gave verdicts on it, as others read them.
    pub readers: Vec<String>,
    /// The latest verdict.
    pub read_at: Option<OffsetDateTime>,
    /// The latest mask that a reader drew of the question.
    #[sqlx(flatten)]
    pub correction: CorrectionColumns,
}

/// A mask that a reader drew, if there is one.
#[derive(Debug, Clone, FromRow)]
pub struct CorrectionColumns {
    /// Its number.
    pub correction: Option<i64>,
    /// Its file.
    pub archive_key: Option<String>,
    /// Series of the images that it lies on.
    pub source_series: Option<String>,
    /// Who drew it.
    pub drawn_by: Option<String>,
    /// Whether another tool made it.
    pub returned: Option<bool>,
    /// When.
    pub drawn_at: Option<OffsetDateTime>,
}

impl Db {
    /// The current answers to a question and what readers said of them, in the order of their UIDs.
    ///
    /// `model` and `reader`: only answers of this model, or with a verdict or mask of this account.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn export_rows(
        &self,
        question: &str,
        span: Span,
        model: Option<&str>,
        reader: Option<&str>,
    ) -> Result<Vec<ExportRow>, DbError> {
        let (from, to) = bounds(span);
        Ok(sqlx::query_as(ROWS)
            .bind(question)
            .bind(from)
            .bind(to)
            .bind(model)
            .bind(reader)
            .fetch_all(&self.app)
            .await?)
    }
}

/// A kind belongs to the question that it ends with: `subdural_haemorrhage` to `haemorrhage`.
const ROWS: &str = "
SELECT study.study_instance_uid,
       CASE WHEN study.patient_id <> '' THEN concat(study.issuer_of_patient_id, '/', study.patient_id) END AS patient,
       answer.id AS analysis, judged_answer.outcome,
       coalesce((
           SELECT jsonb_agg(jsonb_build_array(name, judged_finding.outcome)) FROM judged_finding
           WHERE judged_finding.analysis_id = answer.id
       ), '[]') AS findings,
       ARRAY(
           SELECT DISTINCT account.display_name FROM verdict JOIN account ON account.id = account_id
           WHERE verdict.analysis_id = answer.id ORDER BY 1
       ) AS readers,
       judged_answer.at AS read_at,
       drawn.*
FROM study
CROSS JOIN LATERAL (
    SELECT id, report FROM analysis WHERE study_id = study.id AND state = 'complete'
    ORDER BY created_at DESC, revision DESC LIMIT 1
) answer
LEFT JOIN judged_answer ON judged_answer.analysis_id = answer.id
LEFT JOIN LATERAL (
    SELECT correction.id AS correction, instance.archive_key,
           metadata #>> '{00081115,Value,0,0020000E,Value,0}' AS source_series,
           coalesce(account.display_name, made_by) AS drawn_by, account_id IS NULL AS returned, correction.at AS drawn_at
    FROM correction JOIN instance ON instance.id = instance_id LEFT JOIN account ON account.id = account_id
    WHERE correction.analysis_id = answer.id AND correction.kind LIKE '%' || $1
    ORDER BY correction.id DESC LIMIT 1
) drawn ON true
WHERE EXISTS (
        SELECT FROM jsonb_array_elements(answer.report -> 'answers') AS answers (said)
        WHERE said ->> 'question' = $1 AND said ->> 'answer' <> 'not_evaluated'
          AND ($4::text IS NULL OR said ->> 'model' = $4)
    )
  AND ($2::timestamptz IS NULL OR coalesce(drawn_at, judged_answer.at) >= $2)
  AND ($3::timestamptz IS NULL OR coalesce(drawn_at, judged_answer.at) < $3)
  AND ($5::text IS NULL
       OR EXISTS (SELECT FROM verdict JOIN account ON account.id = account_id
                  WHERE verdict.analysis_id = answer.id AND account.name = $5)
       OR EXISTS (SELECT FROM correction JOIN account ON account.id = account_id
                  WHERE correction.analysis_id = answer.id AND account.name = $5))
ORDER BY study.study_instance_uid
";
