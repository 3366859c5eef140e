//! SERVICE: who a patient is, as the hospital corrects it, and which of two revisions of an instance holds.
//!
//! A correction relabels index and worklist at once, is handed out with every stored file from then on (`dicom::coerce`), and
//! sends everything again that a target had; the stored bytes stay as they came.
//! It holds for what arrives or is analysed later, too: a scanner goes on sending the name that it was given.
//! A patient is an ID with its issuer; where only one side names an issuer the ID decides, and an empty ID matches nothing.
//! A pending revision is taken or left by a person; what was in use before is kept either way.
//!
//! Source: IHE RAD Patient Information Reconciliation (TF-1 section 4); HL7 v2.5.1 sections 3.3.8 (A08) and 3.3.40 (A40).

use crate::{
    db::{
        self, Db,
        audit::{self, Act},
        error::DbError,
        events, filing,
        identity::{self, StudyIdentity},
        index, queue,
    },
    dicom::coerce::{Coercion, key},
    domain::{failure::FailureClass, uid::Uid},
};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use time::{OffsetDateTime, macros::format_description};

/// Why something was not corrected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The database failed.
    #[error("the correction cannot be recorded")]
    Db(#[from] DbError),
    /// An empty ID matches nothing.
    #[error("a patient without an ID cannot be corrected; send the message with one")]
    NoId,
    /// Too long, or with characters that DICOM does not allow.
    #[error(
        "{0} is longer than 64 characters or holds a backslash or a control character; correct it at its source"
    )]
    Value(&'static str),
}

impl IdentityError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            Self::NoId | Self::Value(_) => FailureClass::Input,
        }
    }
}

/// A patient's ID and who issued it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatientId {
    /// PatientID.
    pub id: String,
    /// IssuerOfPatientID.
    pub issuer: Option<String>,
}

/// Who a patient is from now on; what is `None` stays as it is, an empty text empties.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// PatientName, as DICOM writes it.
    pub name: Option<String>,
    /// PatientBirthDate.
    pub birth_date: Option<String>,
    /// PatientSex.
    pub sex: Option<String>,
}

/// What a correction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corrected {
    /// StudyInstanceUIDs that are another's or otherwise now.
    pub studies: Vec<String>,
}

/// Corrects every study of a patient: `from` is whose they are now, `to` who that is.
///
/// `principal`: who says so; `event`: what said so, `A08` or `A40`.
///
/// # Errors
/// When an ID is empty, a value is no DICOM value, or the database fails; then nothing is corrected.
pub async fn correct(
    db: &Db,
    principal: &str,
    event: &str,
    from: &PatientId,
    to: &PatientId,
    person: &Person,
) -> Result<Corrected, IdentityError> {
    if from.id.trim().is_empty() || to.id.trim().is_empty() {
        return Err(IdentityError::NoId);
    }
    check("PatientID", &to.id)?;
    check("IssuerOfPatientID", to.issuer.as_deref().unwrap_or_default())?;
    check("PatientName", person.name.as_deref().unwrap_or_default())?;
    let mut tx = db.begin().await?;
    let found = identity::studies_of(&mut tx, &from.id, from.issuer.as_deref()).await?;
    let mut corrected = Corrected::default();
    for study in found {
        let changes = changes(&study, to, person);
        if changes.is_empty() {
            continue;
        }
        let uid = Uid::parse(&study.study_instance_uid).map_err(|_| DbError::Stored("study"))?;
        index::lock_studies(&mut tx, &[&uid]).await?;
        let mut attributes = study
            .coercion
            .map(|coercion| coercion.0.attributes)
            .unwrap_or_default();
        let tags: Vec<String> = changes.keys().cloned().collect();
        attributes.extend(changes);
        let coercion = Coercion {
            attributes,
            at: now(),
            by: principal.to_owned(),
        };
        identity::relabel(&mut tx, study.id, &coercion).await?;
        let again = filing::again(&mut tx, study.id).await?;
        let again: Vec<_> = again
            .iter()
            .map(|(target, subject)| json!({ "target": target, "subject": subject }))
            .collect();
        let act = Act {
            principal,
            act: "correct_identity",
            studies: vec![study.study_instance_uid.clone()],
            // Which attributes, not which values: the trail is shown to more people than a study is.
            detail: json!({ "event": event, "attributes": tags, "sent_again": again }),
        };
        audit::append(&mut tx, &act).await?;
        corrected.studies.push(study.study_instance_uid);
    }
    db::commit(tx).await?;
    Ok(corrected)
}

/// The attributes that would be otherwise.
fn changes(study: &StudyIdentity, to: &PatientId, person: &Person) -> BTreeMap<String, String> {
    let wanted: [(Tag, &Option<String>, Option<&String>); 5] = [
        (tags::PATIENT_ID, &study.patient_id, Some(&to.id)),
        (
            tags::ISSUER_OF_PATIENT_ID,
            &study.issuer_of_patient_id,
            to.issuer.as_ref(),
        ),
        (tags::PATIENT_NAME, &study.patient_name, person.name.as_ref()),
        (
            tags::PATIENT_BIRTH_DATE,
            &study.patient_birth_date,
            person.birth_date.as_ref(),
        ),
        (tags::PATIENT_SEX, &study.patient_sex, person.sex.as_ref()),
    ];
    let mut changes = BTreeMap::new();
    for (tag, held, wanted) in wanted {
        if let Some(wanted) = wanted
            && held.as_deref().unwrap_or_default() != wanted
        {
            changes.insert(key(tag), wanted.clone());
        }
    }
    changes
}

fn check(keyword: &'static str, value: &str) -> Result<(), IdentityError> {
    let fine = value.split('^').all(|part| part.chars().count() <= 64)
        && value.chars().count() <= 324
        && !value.chars().any(|c| c == '\\' || c.is_control());
    if fine {
        Ok(())
    } else {
        Err(IdentityError::Value(keyword))
    }
}

/// DT in UTC.
fn now() -> String {
    let format = format_description!("[year][month][day][hour][minute][second].[subsecond digits:6]+0000");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

/// What is done with pending revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They take the place of what is in use.
    Accept,
    /// What is in use stays.
    Dismiss,
}

impl Decision {
    /// The word for it in the trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept_revision",
            Self::Dismiss => "dismiss_revision",
        }
    }
}

/// Decides on the pending revisions of a series, or of one instance of it; returns how many.
///
/// Of several revisions of one instance the latest is accepted and the others are dismissed.
///
/// # Errors
/// When the database fails; then nothing is decided.
pub async fn decide(
    db: &Db,
    principal: &str,
    series: &Uid,
    instance: Option<&Uid>,
    decision: Decision,
) -> Result<usize, IdentityError> {
    let mut tx = db.begin().await?;
    let pending = identity::pending(&mut tx, series.as_str(), instance.map(Uid::as_str)).await?;
    let Some(first) = pending.first().cloned() else {
        return Ok(0);
    };
    let study = Uid::parse(&first.study_instance_uid).map_err(|_| DbError::Stored("study"))?;
    index::lock_studies(&mut tx, &[&study]).await?;
    let mut accepted = None;
    for (at, one) in pending.iter().enumerate() {
        let is_latest = pending
            .get(at + 1)
            .is_none_or(|next| next.sop_instance_uid != one.sop_instance_uid);
        if decision == Decision::Accept && is_latest {
            identity::accept(&mut tx, one.id).await?;
            accepted = Some(one);
        } else {
            identity::dismiss(&mut tx, one.id).await?;
        }
    }
    if let Some(one) = accepted {
        index::relabel_study(&mut tx, one.study_id, &one.metadata).await?;
        if pending.iter().any(|one| one.original_ct) {
            queue::enqueue(&mut tx, one.study_id, Duration::ZERO).await?;
        }
    }
    events::notify_study(&mut tx, first.study_id).await?;
    let instances: Vec<_> = pending
        .iter()
        .map(|one| json!({ "sop_instance_uid": one.sop_instance_uid, "sha256": hex::encode(&one.digest) }))
        .collect();
    let act = Act {
        principal,
        act: decision.as_str(),
        studies: vec![first.study_instance_uid.clone()],
        detail: json!({ "series_instance_uid": first.series_instance_uid, "instances": instances }),
    };
    audit::append(&mut tx, &act).await?;
    db::commit(tx).await?;
    Ok(pending.len())
}
