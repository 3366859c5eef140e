//! Bytes of one part → an instance that can be indexed, or the reason why not.
//!
//! An instance is taken as it was sent: nothing is coerced, and a transfer syntax that is only storable is stored.
//! Whether it can be analysed is the analysis' business.
//!
//! Source: PS3.18 table I.2-2; PS3.4 table B.2-1.

use super::outcome::{FailedInstance, reason};
use crate::{
    db::index::{NewInstance, Origin},
    dicom::{DicomError, attribute::Attributes, enhanced, instance::Instance},
    domain::{failure::sentence, uid::Uid},
};
use uuid::Uuid;

/// An instance that can be indexed.
#[derive(Debug)]
pub(super) struct Checked {
    /// What goes into the index.
    pub(super) new: NewInstance,
    /// The headers of its slices: one, unless it is a multi-frame CT.
    pub(super) slices: Vec<Attributes>,
}

/// Checks one part; `archive_key` and `size_bytes` say where its file is.
pub(super) fn check(part10: &[u8], archive_key: &str, size_bytes: u64) -> Result<Checked, FailedInstance> {
    let instance = Instance::from_bytes(part10).map_err(|error| refused(part10, &error))?;
    let a = &instance.attributes;
    let Some(mut new) = NewInstance::of(&instance, Origin::Received, archive_key, size_bytes) else {
        return Err(failed(
            a,
            reason::DATASET_MISMATCHES_SOP_CLASS,
            "an identifier is missing".to_owned(),
        ));
    };
    // CT is never a result of ours, whoever made its UIDs: phantoms have UIDs of this kind too.
    if !new.original_ct && is_ours(&new.sop_instance_uid) {
        new.origin = Origin::Result;
    }
    Ok(Checked {
        new,
        slices: enhanced::attributes(&instance),
    })
}

impl Checked {
    /// What is wrong with it in a request for a study.
    pub(super) fn is_elsewhere(&self, study: &Uid) -> Option<FailedInstance> {
        let found = &self.new.study_instance_uid;
        (found != study).then(|| FailedInstance {
            sop_class_uid: Some(self.new.sop_class_uid.clone()),
            sop_instance_uid: Some(self.new.sop_instance_uid.clone()),
            failure_reason: reason::STUDY_MISMATCH,
            text: format!("the instance is of study {found}, the request is for study {study}"),
        })
    }
}

/// What two datasets with one UID have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Common {
    /// Everything: the stored one has a digest of the kind that was made before.
    All,
    /// The pixels: encoded alike, or the same values when both are decoded.
    Pixels,
    /// The UID only.
    Nothing,
}

pub(super) fn compare(stored: &[u8], sent: &[u8]) -> Result<Common, DicomError> {
    let (stored, sent) = (Instance::from_bytes(stored)?, Instance::from_bytes(sent)?);
    if stored.digest() == sent.digest() {
        return Ok(Common::All);
    }
    if stored.pixel_digest() == sent.pixel_digest() {
        return Ok(Common::Pixels);
    }
    let (stored, sent) = (enhanced::slices(stored), enhanced::slices(sent));
    let same = |(stored, sent): (&Instance, &Instance)| match (stored.pixels(), sent.pixels()) {
        (Ok(stored), Ok(sent)) => stored == sent,
        // What cannot be decoded is not known to be the same.
        _ => false,
    };
    let all = stored.len() == sent.len() && stored.iter().zip(&sent).all(same);
    Ok(if all { Common::Pixels } else { Common::Nothing })
}

/// Our UIDs are `2.25.` + a UUIDv8 (see [`Uid::derive`]); hardly anybody else uses that version.
fn is_ours(uid: &Uid) -> bool {
    uid.as_str()
        .strip_prefix("2.25.")
        .and_then(|number| number.parse::<u128>().ok())
        .map(Uuid::from_u128)
        .is_some_and(|uuid| uuid.get_version_num() == 8 && uuid.get_variant() == uuid::Variant::RFC4122)
}

fn refused(part10: &[u8], error: &DicomError) -> FailedInstance {
    let code = match error {
        DicomError::TransferSyntax { .. } => reason::TRANSFER_SYNTAX_NOT_SUPPORTED,
        DicomError::MissingUid { .. } | DicomError::MetaConflict { .. } => {
            reason::DATASET_MISMATCHES_SOP_CLASS
        }
        _ => reason::CANNOT_UNDERSTAND,
    };
    let header = Instance::read_header(part10)
        .map(|header| header.attributes)
        .unwrap_or_default();
    // None of its causes has patient data.
    failed(&header, code, sentence(error))
}

fn failed(attributes: &Attributes, failure_reason: u16, text: String) -> FailedInstance {
    FailedInstance {
        sop_class_uid: attributes.sop_class_uid.clone(),
        sop_instance_uid: attributes.sop_instance_uid.clone(),
        failure_reason,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_uids_that_we_issue() {
        assert!(is_ours(&Uid::derive(&[b"a result"])));
        assert!(!is_ours(
            &Uid::parse("2.25.329800735698586629295641978511506172918").unwrap()
        ));
        assert!(!is_ours(&Uid::parse("1.2.840.113619.2.1").unwrap()));
    }
}
