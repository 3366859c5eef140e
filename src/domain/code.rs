//! Coded concepts: the few that ictus speaks, in one place.
//!
//! Every code here was read in a stored source (PS3.16 context groups, SNOMED CT as DICOM uses it) unless its comment says otherwise.
//! Trap: SCT 1386000 is intracranial haemorrhage; pydicom's dictionary also files "Occlusion of artery" under it.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A coded concept: code value, coding scheme designator and meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Code Value (0008,0100).
    pub value: Cow<'static, str>,
    /// Coding Scheme Designator (0008,0102).
    pub scheme: Cow<'static, str>,
    /// Code Meaning (0008,0104).
    pub meaning: Cow<'static, str>,
}

impl Code {
    /// A concept known at compile time.
    #[must_use]
    pub const fn new(value: &'static str, scheme: &'static str, meaning: &'static str) -> Self {
        Self {
            value: Cow::Borrowed(value),
            scheme: Cow::Borrowed(scheme),
            meaning: Cow::Borrowed(meaning),
        }
    }
}

/// Segmented property category of a lesion.
pub const MORPHOLOGICALLY_ABNORMAL_STRUCTURE: Code =
    Code::new("49755003", "SCT", "Morphologically Abnormal Structure");
/// Segmented property category of what is no lesion (CID 7150).
pub const ANATOMICAL_STRUCTURE: Code = Code::new("123037004", "SCT", "Anatomical Structure");
/// Segmented property type of a bleed (CID 7159).
pub const HEMORRHAGE: Code = Code::new("50960005", "SCT", "Hemorrhage");
/// Bleed in brain tissue.
pub const CEREBRAL_HEMORRHAGE: Code = Code::new("274100004", "SCT", "Cerebral hemorrhage");
/// Bleed in the subarachnoid space.
pub const SUBARACHNOID_HEMORRHAGE: Code = Code::new("21454007", "SCT", "Subarachnoid hemorrhage");
/// Bleed under the dura.
pub const SUBDURAL_HEMORRHAGE: Code = Code::new("35486000", "SCT", "Subdural hemorrhage");
/// Bleed in the ventricles; private, since no standard code could be read in a source.
pub const INTRAVENTRICULAR_HEMORRHAGE: Code = Code::new(
    "intraventricular-hemorrhage",
    "99ICTUS",
    "Intraventricular hemorrhage",
);
/// Bleed between dura and bone; private, since no standard code could be read in a source.
pub const EPIDURAL_HEMORRHAGE: Code = Code::new("epidural-hemorrhage", "99ICTUS", "Epidural hemorrhage");
/// Tissue that died of missing blood; the morphology, of which only background knowledge vouches for the value.
pub const INFARCT: Code = Code::new("55641003", "SCT", "Infarct");
/// A clot where it formed or stuck.
pub const THROMBUS: Code = Code::new("396339007", "SCT", "Thrombus");
/// A closed artery; only background knowledge vouches for the value, which is not 1386000.
pub const ARTERIAL_OCCLUSION: Code = Code::new("2929001", "SCT", "Occlusion of artery");
/// The end of the internal carotid artery.
pub const CAROTID_TERMINUS: Code = Code::new("415646005", "SCT", "Terminal internal carotid artery");
/// M1.
pub const MIDDLE_CEREBRAL_M1: Code = Code::new("414722000", "SCT", "Middle cerebral artery, M1 segment");
/// M2.
pub const MIDDLE_CEREBRAL_M2: Code = Code::new("414723005", "SCT", "Middle cerebral artery, M2 segment");
/// The basilar artery.
pub const BASILAR_ARTERY: Code = Code::new("59011009", "SCT", "Basilar artery");
/// The internal carotid artery.
pub const INTERNAL_CAROTID_ARTERY: Code = Code::new("86117002", "SCT", "Internal carotid artery");
/// The anterior cerebral artery.
pub const ANTERIOR_CEREBRAL_ARTERY: Code = Code::new("60176003", "SCT", "Anterior Cerebral Artery");
/// The posterior cerebral artery.
pub const POSTERIOR_CEREBRAL_ARTERY: Code = Code::new("70382005", "SCT", "Posterior Cerebral Artery");
/// The vertebral artery.
pub const VERTEBRAL_ARTERY: Code = Code::new("85234005", "SCT", "Vertebral artery");
/// The brain, as anatomic region.
pub const BRAIN: Code = Code::new("12738006", "SCT", "Brain");
/// Laterality left.
pub const LEFT: Code = Code::new("7771000", "SCT", "Left");
/// Laterality right.
pub const RIGHT: Code = Code::new("24028007", "SCT", "Right");
