//! What a worker needs of an analysis, so that it need not know the stages.

use crate::{
    dicom::instance::Instance,
    domain::{failure::FailureClass, finding::Report, network::Control, uid::Uid},
};
use dicom_object::DefaultDicomObject;
use time::OffsetDateTime;

/// Something that analyses a study: the stages with their models, or a stand-in in a test.
pub trait Analyser: Send + Sync + 'static {
    /// Digest of the models' plans and weights: other models make another analysis.
    fn model_digest(&self) -> Vec<u8>;

    /// Digest of the calibration: another calibration makes another analysis.
    fn calibration_digest(&self) -> Vec<u8>;

    /// Runs the stages on everything received of one study; blocks, and asks `control` between steps.
    ///
    /// # Errors
    /// When nothing can be answered: the failure says whose fault it is and why.
    fn analyse(
        &self,
        instances: &[Instance],
        request: &Request,
        control: &dyn Control,
    ) -> Result<Output, Failure>;
}

/// What makes the results reproducible.
#[derive(Debug, Clone)]
pub struct Request {
    /// Identity of the analysis.
    pub analysis_key: [u8; 32],
    /// Every date in the results.
    pub created_at: OffsetDateTime,
    /// The report of the revision that this one will replace.
    pub previous_report: Option<PreviousReport>,
}

/// Where the report of an earlier revision is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousReport {
    /// Its series.
    pub series_instance_uid: Uid,
    /// Itself.
    pub sop_instance_uid: Uid,
}

/// What an analysis hands back.
#[derive(Debug, Clone)]
pub struct Output {
    /// `findings.json`.
    pub report: Report,
    /// Objects to be stored.
    pub objects: Vec<DefaultDicomObject>,
}

/// Why an analysis has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Failure {
    /// Whose fault it is.
    pub class: FailureClass,
    /// Stable reason code.
    pub code: String,
    /// A sentence without patient data.
    pub text: String,
}

impl Failure {
    /// A failure that is the input's.
    #[must_use]
    pub fn input(code: &str, text: &str) -> Self {
        Self {
            class: FailureClass::Input,
            code: code.to_owned(),
            text: text.to_owned(),
        }
    }
}
