//! ictus: head CT in, masks with honest uncertainty out.

pub mod analysis;
pub mod db;
pub mod dicom;
pub mod domain;
pub mod nifti;
pub mod nn;
pub mod telemetry;
pub mod train;
