//! Stage 6: findings and uncertainty → SEG, Parametric Map and TID 1500 report.

use crate::{
    dicom::instance::Instance,
    domain::{finding::Report, plan::Plan, prediction::Prediction, volume::Volume},
};
use time::OffsetDateTime;

/// What makes the results of one analysis reproducible: nothing in them comes from the clock or from chance.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// SHA-256 over series, instance set, model and calibration: the identity of the analysis.
    pub analysis_key: [u8; 32],
    /// When the analysis row was made; every date in the results.
    pub created_at: OffsetDateTime,
}

/// Everything that the results are made from.
#[derive(Debug, Clone, Copy)]
pub struct EncodeInput<'a> {
    /// The source instances, one a plane, in the order of the planes.
    pub source: &'a [&'a Instance],
    /// Voxel-wise answers on the source grid.
    pub prediction: &'a Prediction,
    /// Segment number (a finding each) of each voxel, 0 = none.
    pub segments: &'a Volume<u16>,
    /// Where the brain is: which frames the maps have.
    pub brain: &'a Volume<bool>,
    /// Findings, answers, models, refusals.
    pub report: &'a Report,
    /// The model's plan.
    pub plan: &'a Plan,
    /// Identity and time.
    pub stamp: &'a Stamp,
}
