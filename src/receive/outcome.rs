//! What became of a request's instances, in PS3.18's words.

use crate::domain::uid::Uid;

/// Failure Reason (0008,1197) and Warning Reason (0008,1196) codes.
///
/// Source: PS3.18 tables I.2-1 and I.2-2; PS3.4 table B.2-1; PS3.7 annex C.
pub mod reason {
    /// Processing failure.
    pub const PROCESSING_FAILURE: u16 = 0x0110;
    /// Duplicate SOP instance: this UID is stored with other pixels.
    pub const DUPLICATE_SOP_INSTANCE: u16 = 0x0111;
    /// Refused: out of resources.
    pub const OUT_OF_RESOURCES: u16 = 0xA700;
    /// Error: dataset does not match SOP class.
    pub const DATASET_MISMATCHES_SOP_CLASS: u16 = 0xA900;
    /// Error: the study is not the one that the request names (43265).
    pub const STUDY_MISMATCH: u16 = 0xA901;
    /// Error: cannot understand.
    pub const CANNOT_UNDERSTAND: u16 = 0xC000;
    /// Referenced transfer syntax not supported.
    pub const TRANSFER_SYNTAX_NOT_SUPPORTED: u16 = 0xC122;
    /// Warning: coercion of data elements; here: kept as a pending revision.
    pub const COERCION: u16 = 0xB000;
    /// Warning: dataset does not match SOP class; here: quarantined with its series.
    pub const QUARANTINED: u16 = 0xB007;
}

/// What became of a request's instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreOutcome {
    /// Acknowledged, in the order of the request.
    pub stored: Vec<StoredInstance>,
    /// Refused, in the order of the request.
    pub failed: Vec<FailedInstance>,
}

/// An instance that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInstance {
    /// SOPClassUID.
    pub sop_class_uid: Uid,
    /// SOPInstanceUID.
    pub sop_instance_uid: Uid,
    /// SeriesInstanceUID.
    pub series_instance_uid: Uid,
    /// StudyInstanceUID.
    pub study_instance_uid: Uid,
    /// A warning, when it is stored but not as it would be expected.
    pub warning: Option<Warning>,
}

/// A warning about a stored instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Warning Reason (0008,1196).
    pub reason: u16,
    /// The same in words, without patient data.
    pub text: String,
}

/// An instance that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedInstance {
    /// SOPClassUID, when it could be read.
    pub sop_class_uid: Option<Uid>,
    /// SOPInstanceUID, when it could be read.
    pub sop_instance_uid: Option<Uid>,
    /// Failure Reason (0008,1197).
    pub failure_reason: u16,
    /// The same in words, without patient data.
    pub text: String,
}
