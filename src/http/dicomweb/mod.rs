//! DICOMweb at `/dicom-web`: STOW-RS in, QIDO-RS and WADO-RS out.
//!
//! Source: PS3.18 chapters 8 and 10.

pub mod media;
pub mod multipart;
