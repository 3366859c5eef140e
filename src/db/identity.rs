//! Who a patient is, which images are rejected, and which of two revisions holds, as rows.
//!
//! Rules about them are [`crate::identity`]'s and `receive`'s; the stored bytes are never touched here.

use super::{Db, Tx, error::DbError, events};
use crate::dicom::coerce::{COERCIBLE, Coercion, coerce_json, key};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Who a patient is, as the index has it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct StudyIdentity {
    /// Row.
    pub id: i64,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// PatientName.
    pub patient_name: Option<String>,
    /// PatientID.
    pub patient_id: Option<String>,
    /// IssuerOfPatientID.
    pub issuer_of_patient_id: Option<String>,
    /// PatientBirthDate.
    pub patient_birth_date: Option<String>,
    /// PatientSex.
    pub patient_sex: Option<String>,
    /// What was corrected before.
    pub coercion: Option<Json<Coercion>>,
}

/// The studies of a patient, locked: those with the ID, and the issuer where both say one.
///
/// # Errors
/// When the statement fails.
pub async fn studies_of(
    tx: &mut Tx,
    patient_id: &str,
    issuer: Option<&str>,
) -> Result<Vec<StudyIdentity>, DbError> {
    Ok(sqlx::query_as(
        "SELECT id, study_instance_uid, patient_name, patient_id, issuer_of_patient_id, patient_birth_date, patient_sex, \
         coercion FROM study WHERE patient_id = $1 \
         AND ($2::text IS NULL OR issuer_of_patient_id IS NULL OR issuer_of_patient_id = $2) ORDER BY id FOR UPDATE",
    )
    .bind(patient_id)
    .bind(issuer)
    .fetch_all(&mut **tx)
    .await?)
}

/// Makes a study another patient's, or the same one's with other words: index, coercion, edition.
///
/// # Errors
/// When a statement fails.
pub async fn relabel(tx: &mut Tx, study_id: i64, coercion: &Coercion) -> Result<(), DbError> {
    let value = |tag| coercion.attributes.get(&key(tag)).map(String::as_str);
    let mut relabelling = json!({});
    coerce_json(&mut relabelling, coercion);
    let document = serde_json::to_value(coercion).map_err(|_| DbError::Stored("coercion"))?;
    let [name, id, issuer, birth, sex, accession, study] = COERCIBLE.map(value);
    // An empty value empties the column; one that is not there leaves it.
    sqlx::query(
        "UPDATE study SET patient_name = nullif(coalesce($2, patient_name), ''), \
         patient_id = nullif(coalesce($3, patient_id), ''), \
         issuer_of_patient_id = nullif(coalesce($4, issuer_of_patient_id), ''), \
         patient_birth_date = nullif(coalesce($5, patient_birth_date), ''), \
         patient_sex = nullif(coalesce($6, patient_sex), ''), \
         accession_number = nullif(coalesce($7, accession_number), ''), \
         study_id = nullif(coalesce($8, study_id), ''), \
         coercion = $9, relabelling = relabelling || $10, identity_edition = identity_edition + 1, \
         updated_at = clock_timestamp() WHERE id = $1",
    )
    .bind(study_id)
    .bind(name)
    .bind(id)
    .bind(issuer)
    .bind(birth)
    .bind(sex)
    .bind(accession)
    .bind(study)
    .bind(document)
    .bind(&relabelling)
    .execute(&mut **tx)
    .await?;
    sqlx::query("SELECT relabel_instances($1, $2)")
        .bind(study_id)
        .bind(&relabelling)
        .execute(&mut **tx)
        .await?;
    events::touch_study(tx, study_id).await
}

/// What a rejection did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// SOPInstanceUIDs that are hidden now.
    pub instances: Vec<String>,
    /// Original CT images of the study that are left.
    pub remaining: i64,
}

/// Hides instances of a study, and the note that rejects them.
///
/// # Errors
/// When a statement fails.
pub async fn reject(
    tx: &mut Tx,
    study_id: i64,
    note: i64,
    sop_instance_uids: &[String],
    why: &Value,
) -> Result<Rejected, DbError> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT instance.id, sop_instance_uid FROM instance JOIN series ON series.id = series_id \
         WHERE series.study_id = $1 AND sop_instance_uid = ANY($2) AND instance.state = 'current' \
         AND instance.id <> $3 ORDER BY instance.id",
    )
    .bind(study_id)
    .bind(sop_instance_uids)
    .bind(note)
    .fetch_all(&mut **tx)
    .await?;
    for id in rows.iter().map(|(id, _)| *id).chain([note]) {
        reject_one(tx, id, why).await?;
    }
    let remaining = sqlx::query_scalar(
        "SELECT count(*) FROM instance JOIN series ON series.id = series_id \
         WHERE series.study_id = $1 AND origin = 'received' AND original_ct AND instance.state = 'current'",
    )
    .bind(study_id)
    .fetch_one(&mut **tx)
    .await?;
    events::touch_study(tx, study_id).await?;
    Ok(Rejected {
        instances: rows.into_iter().map(|(_, uid)| uid).collect(),
        remaining,
    })
}

async fn reject_one(tx: &mut Tx, instance_id: i64, why: &Value) -> Result<(), DbError> {
    sqlx::query("SELECT reject_instance($1, $2)")
        .bind(instance_id)
        .bind(why)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Takes a study of which no image is left out of every list: its results are hidden and what waits is not sent.
///
/// # Errors
/// When a statement fails.
pub async fn hide(tx: &mut Tx, study_id: i64, why: &Value) -> Result<(), DbError> {
    let made: Vec<i64> = sqlx::query_scalar(
        "SELECT instance.id FROM instance JOIN series ON series.id = series_id \
         WHERE series.study_id = $1 AND origin <> 'received' AND instance.state = 'current'",
    )
    .bind(study_id)
    .fetch_all(&mut **tx)
    .await?;
    for id in made {
        reject_one(tx, id, why).await?;
    }
    sqlx::query(
        "UPDATE outbox SET state = 'superseded', ended_at = clock_timestamp(), \
         note = 'withdrawn: the images that it is about were rejected' \
         FROM analysis WHERE analysis.id = outbox.analysis_id AND analysis.study_id = $1 \
         AND outbox.state IN ('pending', 'dead')",
    )
    .bind(study_id)
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE study SET hidden = true, queued_at = NULL WHERE id = $1")
        .bind(study_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A pending revision as the API shows it: no values, since they may name a patient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema, FromRow)]
pub struct Revision {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SHA-256 of the pending dataset, hexadecimal.
    pub sha256: String,
    /// When it was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub stored_at: OffsetDateTime,
    /// Tags whose values differ from those of the instance in use, `00100020`.
    pub differs: Vec<String>,
}

/// A revision that was decided on.
#[derive(Debug, Clone, FromRow)]
pub struct Decided {
    /// Row.
    pub id: i64,
    /// Row of the study.
    pub study_id: i64,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Digest of the pending dataset.
    pub digest: Vec<u8>,
    /// Its DICOM JSON.
    pub metadata: Value,
    /// Whether an analysis may start from it.
    pub original_ct: bool,
}

/// The pending revisions of a series, or of one instance of it, the latest of each instance last; locked by their study.
///
/// # Errors
/// When the statement fails.
pub async fn pending(tx: &mut Tx, series: &str, instance: Option<&str>) -> Result<Vec<Decided>, DbError> {
    Ok(sqlx::query_as(
        "SELECT instance.id, study.id AS study_id, study_instance_uid, series_instance_uid, sop_instance_uid, digest, \
         metadata, original_ct FROM instance JOIN series ON series.id = series_id JOIN study ON study.id = series.study_id \
         WHERE series_instance_uid = $1 AND ($2::text IS NULL OR sop_instance_uid = $2) AND instance.state = 'pending' \
         ORDER BY sop_instance_uid, instance.id FOR UPDATE OF study",
    )
    .bind(series)
    .bind(instance)
    .fetch_all(&mut **tx)
    .await?)
}

/// Puts a pending revision in the place of the current one.
///
/// # Errors
/// When the statement fails.
pub async fn accept(tx: &mut Tx, instance_id: i64) -> Result<(), DbError> {
    sqlx::query("SELECT accept_revision($1)")
        .bind(instance_id)
        .execute(&mut **tx)
        .await?;
    // What comes later is held to the identity that was accepted.
    sqlx::query(
        "UPDATE series SET patient_id = metadata #>> '{00100020,Value,0}', \
         issuer_of_patient_id = metadata #>> '{00100021,Value,0}' \
         FROM instance WHERE instance.id = $1 AND series.id = instance.series_id",
    )
    .bind(instance_id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Decides against a pending revision.
///
/// # Errors
/// When the statement fails.
pub async fn dismiss(tx: &mut Tx, instance_id: i64) -> Result<(), DbError> {
    sqlx::query("SELECT dismiss_revision($1)")
        .bind(instance_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Db {
    /// What is handed out of a study instead of what is stored; `None` when that is right as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn coercion(&self, study_instance_uid: &str) -> Result<Option<Coercion>, DbError> {
        let found: Option<Option<Json<Coercion>>> =
            sqlx::query_scalar("SELECT coercion FROM study WHERE study_instance_uid = $1")
                .bind(study_instance_uid)
                .fetch_optional(&self.app)
                .await?;
        Ok(found.flatten().map(|Json(coercion)| coercion))
    }

    /// The revisions that nobody has decided on, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pending_revisions(&self, limit: i64) -> Result<Vec<Revision>, DbError> {
        Ok(sqlx::query_as(PENDING).bind(limit).fetch_all(&self.app).await?)
    }
}

const PENDING: &str = "
SELECT study_instance_uid, series_instance_uid, pending.sop_instance_uid, encode(pending.digest, 'hex') AS sha256,
       pending.stored_at,
       ARRAY(SELECT coalesce(a.key, b.key)
             FROM jsonb_each(pending.metadata) a FULL JOIN jsonb_each(current.metadata) b ON a.key = b.key
             WHERE a.value IS DISTINCT FROM b.value ORDER BY 1) AS differs
FROM instance pending JOIN series ON series.id = pending.series_id JOIN study ON study.id = series.study_id
LEFT JOIN instance current ON current.sop_instance_uid = pending.sop_instance_uid AND current.state = 'current'
WHERE pending.state = 'pending' ORDER BY pending.id LIMIT $1
";
