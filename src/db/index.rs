//! Writing the index of the archive: one checked instance → its study, series and instance rows.
//!
//! [`NewInstance::of`] reads everything off an instance that is stored or made.
//! Columns that are searched are taken out of the DICOM JSON here, so that what QIDO matches is what it shows.
//! A study's attributes are those of the first instance that has them; later ones only fill gaps.
//! What conflicts is decided by `receive`; this module only says what is there.

use super::{Tx, error::DbError};
use crate::{
    dicom::{instance::Instance, json},
    domain::uid::Uid,
};
use serde_json::Value;
use sqlx::FromRow;

/// Lock that keeps the sweeper and the acknowledging transactions apart.
const SWEEP_LOCK: i64 = 7_261_990_003;

/// CT Image Storage, Enhanced CT Image Storage and Legacy Converted Enhanced CT Image Storage (PS3.6 annex A).
const CT_STORAGE: [&str; 3] = [
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
];

/// Where an instance comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From outside.
    Received,
    /// Made by an analysis.
    Result,
    /// Resampled by us for display.
    Derived,
    /// A person's correction.
    Reader,
}

impl Origin {
    /// As the database words it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Result => "result",
            Self::Derived => "derived",
            Self::Reader => "reader",
        }
    }
}

/// An instance to be indexed; its file is in the archive already.
#[derive(Debug, Clone)]
pub struct NewInstance {
    /// StudyInstanceUID.
    pub study_instance_uid: Uid,
    /// SeriesInstanceUID.
    pub series_instance_uid: Uid,
    /// SOPInstanceUID.
    pub sop_instance_uid: Uid,
    /// SOPClassUID.
    pub sop_class_uid: Uid,
    /// Transfer syntax of the file.
    pub transfer_syntax_uid: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether an analysis may start from it.
    pub original_ct: bool,
    /// SHA-256 of the dataset without group 0002.
    pub digest: [u8; 32],
    /// Name of the file in the archive.
    pub archive_key: String,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// DICOM JSON without bulk data.
    pub metadata: Value,
}

impl NewInstance {
    /// The row of an instance whose file is in the archive; `None` when one of its four identifiers is missing.
    ///
    /// BulkDataURI in the metadata is the path of the attribute; who serves it makes it absolute.
    #[must_use]
    pub fn of(instance: &Instance, origin: Origin, archive_key: &str, size_bytes: u64) -> Option<Self> {
        let a = &instance.attributes;
        let sop_class_uid = a.sop_class_uid.clone()?;
        let mut metadata = Value::Object(json::to_json(&instance.object, &str::to_owned));
        drop_nul(&mut metadata);
        Some(Self {
            study_instance_uid: a.study_instance_uid.clone()?,
            series_instance_uid: a.series_instance_uid.clone()?,
            sop_instance_uid: a.sop_instance_uid.clone()?,
            original_ct: CT_STORAGE.contains(&sop_class_uid.as_str())
                && a.image_type.first().is_none_or(|kind| kind != "DERIVED"),
            sop_class_uid,
            transfer_syntax_uid: instance
                .object
                .meta()
                .transfer_syntax()
                .trim_end_matches(['\0', ' '])
                .to_owned(),
            origin,
            digest: instance.digest(),
            archive_key: archive_key.to_owned(),
            size_bytes,
            metadata,
        })
    }

    /// PatientID and IssuerOfPatientID: who this is.
    #[must_use]
    pub fn patient(&self) -> (Option<String>, Option<String>) {
        (text(&self.metadata, "00100020"), text(&self.metadata, "00100021"))
    }

    /// FrameOfReferenceUID.
    #[must_use]
    pub fn frame_of_reference_uid(&self) -> Option<String> {
        text(&self.metadata, "00200052")
    }
}

/// What the index already holds under a SOPInstanceUID.
#[derive(Debug, Clone, FromRow)]
pub struct ExistingInstance {
    /// Row of the instance.
    pub id: i64,
    /// Row of its series.
    pub series_id: i64,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Digest of its dataset.
    pub digest: Vec<u8>,
    /// Its file.
    pub archive_key: String,
    /// Whether it is the current one; otherwise it is pending, decided against, or rejected.
    pub current: bool,
    /// Whether a rejection note hides it.
    pub rejected: bool,
    /// Whether its file was evicted.
    pub evicted: bool,
    /// StudyInstanceUID under which it is filed.
    pub study_instance_uid: String,
    /// SeriesInstanceUID under which it is filed.
    pub series_instance_uid: String,
}

/// The identity that a series has.
#[derive(Debug, Clone, FromRow)]
pub struct SeriesRow {
    /// Row.
    pub id: i64,
    /// PatientID of its first instance.
    pub patient_id: Option<String>,
    /// IssuerOfPatientID of its first instance.
    pub issuer_of_patient_id: Option<String>,
    /// FrameOfReferenceUID of its first instance that has one.
    pub frame_of_reference_uid: Option<String>,
    /// Why it is quarantined.
    pub conflict: Option<String>,
    /// Whether the same UID is there under another study.
    pub elsewhere: bool,
    /// PatientID after a correction: instances that are sent after it may have it already.
    pub corrected_patient_id: Option<String>,
}

/// Keeps other requests for the same studies waiting until this transaction ends, and the sweeper too.
///
/// # Errors
/// When a statement fails.
pub async fn lock_studies(tx: &mut Tx, studies: &[impl AsRef<str>]) -> Result<(), DbError> {
    let mut sorted: Vec<&str> = studies.iter().map(AsRef::as_ref).collect();
    // One order for everybody, so that two requests cannot wait for each other.
    sorted.sort_unstable();
    sorted.dedup();
    // One way to the database for all of them; the rows of a list are locked one after the other.
    sqlx::query(
        "WITH sweep AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared($1)) \
         SELECT count(pg_advisory_xact_lock(hashtextextended(study, 0))::text) FROM sweep, unnest($2::text[]) AS study",
    )
    .bind(SWEEP_LOCK)
    .bind(sorted)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps acknowledging transactions waiting until this one ends: for the sweeper.
///
/// # Errors
/// When a statement fails.
pub async fn lock_sweep(tx: &mut Tx) -> Result<(), DbError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(SWEEP_LOCK)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A file that the index does not need.
#[derive(Debug, Clone, FromRow)]
pub struct Unreferenced {
    /// Its name.
    pub key: String,
    /// Whether the index knows it as evicted.
    pub evicted: bool,
}

/// Which of these files the index does not need.
///
/// # Errors
/// When the statement fails.
pub async fn unreferenced(tx: &mut Tx, keys: &[String]) -> Result<Vec<Unreferenced>, DbError> {
    Ok(sqlx::query_as(
        "SELECT key, EXISTS (SELECT FROM instance WHERE archive_key = key AND instance.state <> 'removed') AS evicted \
         FROM unnest($1::text[]) AS key \
         WHERE NOT EXISTS (SELECT FROM instance WHERE archive_key = key AND evicted_at IS NULL AND instance.state <> 'removed')",
    )
    .bind(keys)
    .fetch_all(&mut **tx)
    .await?)
}

/// Everything that is stored under these SOPInstanceUIDs.
///
/// # Errors
/// When the statement fails.
pub async fn existing(tx: &mut Tx, sop_instance_uids: &[&Uid]) -> Result<Vec<ExistingInstance>, DbError> {
    let uids: Vec<&str> = sop_instance_uids.iter().map(|uid| uid.as_str()).collect();
    Ok(sqlx::query_as(
        "SELECT instance.id, series_id, sop_instance_uid, digest, archive_key, instance.state = 'current' AS current, \
         instance.state = 'rejected' AS rejected, evicted_at IS NOT NULL AS evicted, \
         study_instance_uid, series_instance_uid \
         FROM instance JOIN series ON series.id = series_id JOIN study ON study.id = series.study_id \
         WHERE sop_instance_uid = ANY ($1) AND instance.state <> 'removed'",
    )
    .bind(uids)
    .fetch_all(&mut **tx)
    .await?)
}

/// Makes or completes the row of the study; `now_received` moves the time from which waiting counts.
///
/// # Errors
/// When the statement fails.
pub async fn put_study(tx: &mut Tx, instance: &NewInstance, now_received: bool) -> Result<i64, DbError> {
    let tag = |tag| text(&instance.metadata, tag);
    Ok(sqlx::query_scalar(PUT_STUDY)
        .bind(instance.study_instance_uid.as_str())
        .bind(person_name(&instance.metadata, "00100010"))
        .bind(tag("00100020"))
        .bind(tag("00100021"))
        .bind(tag("00100030"))
        .bind(tag("00100040"))
        .bind(tag("00200010"))
        .bind(tag("00080020"))
        .bind(tag("00080030"))
        .bind(tag("00080050"))
        .bind(person_name(&instance.metadata, "00080090"))
        .bind(tag("00081030"))
        .bind(now_received)
        .fetch_one(&mut **tx)
        .await?)
}

/// Makes the row of the series if it is not there, and says what identity it has.
///
/// # Errors
/// When a statement fails.
pub async fn put_series(tx: &mut Tx, study_id: i64, instance: &NewInstance) -> Result<SeriesRow, DbError> {
    let tag = |tag| text(&instance.metadata, tag);
    Ok(sqlx::query_as(PUT_SERIES)
        .bind(study_id)
        .bind(instance.series_instance_uid.as_str())
        .bind(instance.origin.as_str())
        .bind(tag("00080060"))
        .bind(integer(&instance.metadata, "00200011"))
        .bind(tag("0008103E"))
        .bind(tag("00180015"))
        .bind(tag("00100020"))
        .bind(tag("00100021"))
        .bind(tag("00200052"))
        .bind(tag("00400244"))
        .bind(tag("00400245"))
        .fetch_one(&mut **tx)
        .await?)
}

/// An instance to be added: the row of its series, and whether it is current or, beside another one, pending.
#[derive(Debug, Clone, Copy)]
pub struct NewRow<'a> {
    /// Row of its series.
    pub series_id: i64,
    /// What it says.
    pub instance: &'a NewInstance,
    /// Whether it is the current one.
    pub current: bool,
}

/// Adds the rows of instances, all in one statement; returns the rows in the order given.
///
/// # Errors
/// When the statement fails; `Contention` when another request stored one of the UIDs meanwhile.
pub async fn put_instances(tx: &mut Tx, rows: &[NewRow<'_>]) -> Result<Vec<i64>, DbError> {
    fn each<'a, T>(rows: &[NewRow<'a>], what: impl Fn(&'a NewInstance) -> T) -> Vec<T> {
        rows.iter().map(|row| what(row.instance)).collect()
    }
    let number = |tag| each(rows, |new| integer(&new.metadata, tag));
    let mut ids: Vec<i64> = sqlx::query_scalar(PUT_INSTANCES)
        .bind(rows.iter().map(|row| row.series_id).collect::<Vec<_>>())
        .bind(each(rows, |new| new.sop_instance_uid.as_str()))
        .bind(each(rows, |new| new.sop_class_uid.as_str()))
        .bind(each(rows, |new| new.transfer_syntax_uid.as_str()))
        .bind(number("00200013"))
        .bind(number("00280010"))
        .bind(number("00280011"))
        .bind(number("00280008"))
        .bind(number("00280100"))
        .bind(each(rows, |new| new.original_ct))
        .bind(each(rows, |new| new.digest.as_slice()))
        .bind(each(rows, |new| new.archive_key.as_str()))
        .bind(each(rows, |new| {
            i64::try_from(new.size_bytes).unwrap_or(i64::MAX)
        }))
        .bind(each(rows, |new| &new.metadata))
        .bind(
            rows.iter()
                .map(|row| if row.current { "current" } else { "pending" })
                .collect::<Vec<_>>(),
        )
        .fetch_all(&mut **tx)
        .await?;
    // The rows are numbered as they are inserted, and are inserted in order.
    ids.sort_unstable();
    Ok(ids)
}

/// The row of something that we made; it may be there already: sent back to us before, or kept by an archive that outlived its database.
///
/// # Errors
/// When a statement fails.
pub async fn put_made(tx: &mut Tx, new: &NewInstance) -> Result<i64, DbError> {
    let existing = existing(tx, &[&new.sop_instance_uid]).await?;
    if let Some(same) = existing.iter().find(|row| row.digest == new.digest) {
        if same.evicted {
            take_back(tx, same.id, new).await?;
        }
        return Ok(same.id);
    }
    let study_id = put_study(tx, new, false).await?;
    let series = put_series(tx, study_id, new).await?;
    let row = NewRow {
        series_id: series.id,
        instance: new,
        current: !existing.iter().any(|row| row.current),
    };
    let ids = put_instances(tx, &[row]).await?;
    ids.first().copied().ok_or(DbError::Stored("instance"))
}

/// Notes that an instance that was evicted is there again, in a file of the same dataset.
///
/// # Errors
/// When the statement fails.
pub async fn take_back(tx: &mut Tx, instance: i64, new: &NewInstance) -> Result<(), DbError> {
    sqlx::query("SELECT restore_instance($1, $2, $3, $4)")
        .bind(instance)
        .bind(&new.archive_key)
        .bind(i64::try_from(new.size_bytes).unwrap_or(i64::MAX))
        .bind(&new.transfer_syntax_uid)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Makes the attributes of a study those of an instance that was accepted in the place of another.
///
/// # Errors
/// When the statement fails.
pub async fn relabel_study(tx: &mut Tx, study_id: i64, metadata: &Value) -> Result<(), DbError> {
    let tag = |tag| text(metadata, tag);
    sqlx::query(
        "UPDATE study SET patient_name = coalesce($2, patient_name), patient_id = coalesce($3, patient_id), \
         issuer_of_patient_id = coalesce($4, issuer_of_patient_id), \
         patient_birth_date = coalesce($5, patient_birth_date), patient_sex = coalesce($6, patient_sex), \
         study_id = coalesce($7, study_id), accession_number = coalesce($8, accession_number), \
         study_description = coalesce($9, study_description), updated_at = clock_timestamp() WHERE id = $1",
    )
    .bind(study_id)
    .bind(person_name(metadata, "00100010"))
    .bind(tag("00100020"))
    .bind(tag("00100021"))
    .bind(tag("00100030"))
    .bind(tag("00100040"))
    .bind(tag("00200010"))
    .bind(tag("00080050"))
    .bind(tag("00081030"))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Quarantines a series in every study that has it.
///
/// # Errors
/// When the statement fails.
pub async fn quarantine(tx: &mut Tx, series: &Uid, reason: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE series SET conflict = coalesce(conflict, $2) WHERE series_instance_uid = $1")
        .bind(series.as_str())
        .bind(reason)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// How many current instances a series has.
///
/// # Errors
/// When the statement fails.
pub async fn series_size(tx: &mut Tx, series_id: i64) -> Result<i64, DbError> {
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM instance WHERE series_id = $1 AND state = 'current'")
            .bind(series_id)
            .fetch_one(&mut **tx)
            .await?,
    )
}

/// Postgres takes no NUL in text or JSON, and a dataset may hold some.
fn drop_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => text.retain(|c| c != '\0'),
        Value::Array(values) => values.iter_mut().for_each(drop_nul),
        Value::Object(members) => members.iter_mut().for_each(|(_, member)| drop_nul(member)),
        _ => {}
    }
}

/// The first value of an attribute as text; empty is absent.
fn text(metadata: &Value, tag: &str) -> Option<String> {
    let text = match metadata.get(tag)?.get("Value")?.get(0)? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn person_name(metadata: &Value, tag: &str) -> Option<String> {
    let name = metadata.get(tag)?.get("Value")?.get(0)?;
    let group = ["Alphabetic", "Ideographic", "Phonetic"]
        .iter()
        .find_map(|group| name.get(group)?.as_str())?;
    (!group.trim().is_empty()).then(|| group.trim().to_owned())
}

/// DICOM JSON may hold a number as text.
fn integer(metadata: &Value, tag: &str) -> Option<i32> {
    match metadata.get(tag)?.get("Value")?.get(0)? {
        Value::Number(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

const PUT_STUDY: &str = "
INSERT INTO study (study_instance_uid, patient_name, patient_id, issuer_of_patient_id, patient_birth_date,
                   patient_sex, study_id, study_date, study_time, accession_number, referring_physician_name,
                   study_description)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (study_instance_uid) DO UPDATE SET
    patient_name = coalesce(study.patient_name, excluded.patient_name),
    patient_id = coalesce(study.patient_id, excluded.patient_id),
    issuer_of_patient_id = coalesce(study.issuer_of_patient_id, excluded.issuer_of_patient_id),
    patient_birth_date = coalesce(study.patient_birth_date, excluded.patient_birth_date),
    patient_sex = coalesce(study.patient_sex, excluded.patient_sex),
    study_id = coalesce(study.study_id, excluded.study_id),
    study_date = coalesce(study.study_date, excluded.study_date),
    study_time = coalesce(study.study_time, excluded.study_time),
    accession_number = coalesce(study.accession_number, excluded.accession_number),
    referring_physician_name = coalesce(study.referring_physician_name, excluded.referring_physician_name),
    study_description = coalesce(study.study_description, excluded.study_description),
    hidden = study.hidden AND NOT $13,
    received_at = CASE WHEN $13 THEN clock_timestamp() ELSE study.received_at END,
    updated_at = clock_timestamp()
RETURNING id
";

const PUT_SERIES: &str = "
INSERT INTO series (study_id, series_instance_uid, origin, modality, series_number, series_description,
                    body_part_examined, patient_id, issuer_of_patient_id, frame_of_reference_uid,
                    performed_procedure_step_start_date, performed_procedure_step_start_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (study_id, series_instance_uid) DO UPDATE SET
    series_number = coalesce(series.series_number, excluded.series_number),
    series_description = coalesce(series.series_description, excluded.series_description),
    frame_of_reference_uid = coalesce(series.frame_of_reference_uid, excluded.frame_of_reference_uid),
    patient_id = CASE WHEN series.emptied THEN excluded.patient_id ELSE series.patient_id END,
    issuer_of_patient_id =
        CASE WHEN series.emptied THEN excluded.issuer_of_patient_id ELSE series.issuer_of_patient_id END,
    emptied = false
RETURNING id, patient_id, issuer_of_patient_id, frame_of_reference_uid, conflict,
    EXISTS (SELECT FROM series other
            WHERE other.series_instance_uid = $2 AND other.study_id <> $1) AS elsewhere,
    (SELECT study.patient_id FROM study WHERE study.id = $1 AND identity_edition > 0) AS corrected_patient_id
";

const PUT_INSTANCES: &str = "
INSERT INTO instance (series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
                      rows, columns, number_of_frames, bits_allocated, original_ct, digest, archive_key,
                      size_bytes, metadata, state)
SELECT filed.series_id, uid, class, syntax, number, filed.rows, filed.columns, frames, bits, original, filed.digest, key,
       size, filed.metadata || study.relabelling, filed.state
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::integer[], $7::integer[],
            $8::integer[], $9::integer[], $10::boolean[], $11::bytea[], $12::text[], $13::bigint[],
            $14::jsonb[], $15::text[])
     WITH ORDINALITY AS filed (series_id, uid, class, syntax, number, rows, columns, frames, bits, original, digest,
                               key, size, metadata, state, place)
     JOIN series ON series.id = filed.series_id
     JOIN study ON study.id = series.study_id
ORDER BY place
RETURNING id
";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn takes_nul_out_of_every_text() {
        let mut value = json!({ "00081030": { "Value": ["a\0b", { "Alphabetic": "\0" }] } });
        drop_nul(&mut value);
        assert_eq!(
            value,
            json!({ "00081030": { "Value": ["ab", { "Alphabetic": "" }] } })
        );
    }

    #[test]
    fn reads_columns_out_of_dicom_json() {
        let metadata = json!({
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Phantom^One " }] },
            "00200011": { "vr": "IS", "Value": ["3"] },
            "00280010": { "vr": "US", "Value": [512] },
            "00080050": { "vr": "SH" },
        });
        assert_eq!(person_name(&metadata, "00100010").as_deref(), Some("Phantom^One"));
        assert_eq!(integer(&metadata, "00200011"), Some(3));
        assert_eq!(integer(&metadata, "00280010"), Some(512));
        assert_eq!(text(&metadata, "00080050"), None);
    }
}
