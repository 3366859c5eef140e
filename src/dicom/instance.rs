//! Part 10 bytes → one checked DICOM instance.

use super::attribute::Attributes;
use dicom_object::DefaultDicomObject;

/// One DICOM instance: the whole dataset and the attributes that ictus reads.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The dataset with its file meta information.
    pub object: DefaultDicomObject,
    /// Header values, parsed once.
    pub attributes: Attributes,
}
