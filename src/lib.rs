//! ictus: head CT in, masks with honest uncertainty out.

pub mod analysis;
pub mod archive;
pub mod audit;
pub mod config;
pub mod db;
pub mod dicom;
pub mod domain;
pub mod http;
pub mod nifti;
pub mod nn;
pub mod receive;
pub mod telemetry;
pub mod train;
pub mod worker;
