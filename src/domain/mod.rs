//! The words of ictus: plain data that every other module may use and that uses none of them.

pub mod architecture;
pub mod artery;
pub mod aspects;
pub mod calibration;
pub mod code;
pub mod device;
pub mod failure;
pub mod finding;
pub mod from_first;
pub mod geometry;
pub mod head_box;
pub mod midsagittal;
pub mod network;
pub mod oriented;
pub mod phi;
pub mod plan;
pub mod prediction;
pub mod resample;
pub mod resample_labels;
pub mod trace;
pub mod uid;
pub mod volume;
pub mod volume_trace;
