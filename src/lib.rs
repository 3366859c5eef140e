//! ictus: head CT in, masks with honest uncertainty out.

pub mod analysis;
pub mod config;
pub mod dicom;
pub mod domain;
pub mod http;
pub mod nifti;
pub mod nn;
