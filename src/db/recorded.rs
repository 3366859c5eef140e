//! What is on record of one analysis: its row, its instances, and the rows of the trail that name it.

use super::{Db, audit::AuditRow, error::DbError, removal::Removal};
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

/// The row of an analysis, as far as it says how to run it again.
#[derive(Debug, Clone, FromRow)]
pub struct RecordedAnalysis {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// `running`, `complete`, `failed`, `cancelled` or `removed`.
    pub state: String,
    /// Who removed its images and results.
    pub removal: Option<Json<Removal>>,
    /// The date in its results.
    pub created_at: OffsetDateTime,
    /// SHA-256 over instances, models and calibration.
    pub identity: Vec<u8>,
    /// Digest of the models.
    pub model_digest: Vec<u8>,
    /// Digest of the calibration.
    pub calibration_digest: Vec<u8>,
}

/// An instance that an analysis looked at or made.
#[derive(Debug, Clone, FromRow)]
pub struct RecordedInstance {
    /// `source`, or what it is to the analysis, as `seg`.
    pub role: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Digest of its dataset.
    pub digest: Vec<u8>,
    /// Its file.
    pub archive_key: String,
    /// Whether its series was quarantined, now or before.
    pub conflict: Option<String>,
    /// Who removed it; its file is gone.
    pub removal: Option<Json<Removal>>,
}

impl Db {
    /// The row of an analysis, whatever its state.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recorded_analysis(&self, analysis: Uuid) -> Result<Option<RecordedAnalysis>, DbError> {
        Ok(sqlx::query_as(
            "SELECT study_instance_uid, analysis.state, removal, analysis.created_at, identity, model_digest, calibration_digest \
             FROM analysis JOIN study ON study.id = analysis.study_id WHERE analysis.id = $1",
        )
        .bind(analysis)
        .fetch_optional(&self.app)
        .await?)
    }

    /// The instances of an analysis, in the order in which they came.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recorded_instances(&self, analysis: Uuid) -> Result<Vec<RecordedInstance>, DbError> {
        Ok(sqlx::query_as(
            "SELECT role, sop_instance_uid, instance.digest, archive_key, conflict, removal \
             FROM analysis_instance JOIN instance ON instance.id = instance_id \
             JOIN series ON series.id = series_id WHERE analysis_id = $1 ORDER BY instance.id",
        )
        .bind(analysis)
        .fetch_all(&self.app)
        .await?)
    }

    /// The file of a current instance.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn archive_key(&self, sop_instance_uid: &str) -> Result<Option<String>, DbError> {
        let query = "SELECT archive_key FROM instance WHERE sop_instance_uid = $1 AND state = 'current'";
        let query = sqlx::query_scalar(query).bind(sop_instance_uid);
        Ok(query.fetch_optional(&self.app).await?)
    }

    /// The row of the trail that says what an analysis made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_of_analysis(&self, analysis: Uuid) -> Result<Option<AuditRow>, DbError> {
        let row = sqlx::query(
            "SELECT seq, at, principal, act, studies, detail::text AS detail, prev_hash, hash \
             FROM audit WHERE act = 'analyse' AND detail ->> 'analysis' = $1 ORDER BY seq LIMIT 1",
        )
        .bind(analysis.to_string())
        .fetch_optional(&self.app)
        .await?;
        Ok(row.as_ref().map(AuditRow::from_row).transpose()?)
    }
}
