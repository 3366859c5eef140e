//! What an analysis says: findings, answers, refusals, and the report that holds them (`findings.json`).
//!
//! What is not known is `None` (null), never 0.
//! Until a model is calibrated `probability` is `None` and only `score` is filled.

use super::{aspects::Aspects, code::Code, geometry::Vec3, midsagittal::MidlineShift, uid::Uid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format of `findings.json` that this build writes.
pub const SCHEMA: u32 = 1;

/// Shown wherever a person reads a result of a shipped model.
pub const DISCLAIMER: &str = "Trained on synthetic phantoms only. For research, not for clinical use.";

/// A side of the patient, relative to the estimated midsagittal plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The patient's own left.
    Left,
    /// The patient's own right.
    Right,
    /// On the midsagittal plane.
    Midline,
    /// On both sides.
    Bilateral,
    /// No plane could be estimated, or the label has no side.
    Unknown,
}

impl Side {
    /// Its name in a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Midline => "midline",
            Self::Bilateral => "bilateral",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a connected region lies, and how large it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Segment Number in the SEG, from 1, largest first.
    pub segment: u16,
    /// Voxel sum.
    pub volume_ml: f64,
    /// Centre of mass, LPS mm.
    pub center_mm: Vec3,
    /// Corners of the axis-aligned box around the voxel centres, LPS mm: lowest, highest.
    pub bounding_box_mm: [Vec3; 2],
    /// Side of the patient.
    pub side: Side,
    /// The slice that holds most of it.
    pub key_slice: usize,
}

/// How far the midline of a head is pushed aside on a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesMidline {
    /// The source series.
    pub series: Uid,
    /// How far, and how sure that is.
    #[serde(flatten)]
    pub shift: MidlineShift,
}

/// How much of the territories of the middle cerebral arteries is affected on a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesAspects {
    /// The source series.
    pub series: Uid,
    /// The model that says so.
    pub model: String,
    /// The scores.
    #[serde(flatten)]
    pub aspects: Aspects,
}

/// A clinical statement about one connected region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name within the analysis: `haemorrhage-1`, largest first. Also the tracking identifier in SEG and SR.
    pub id: String,
    /// The plan's label name.
    pub kind: String,
    /// What was found, coded.
    pub code: Code,
    /// The model that found it.
    pub model: String,
    /// The source series.
    pub series: Uid,
    /// Segment Number in the SEG, from 1.
    pub segment: u16,
    /// Voxel sum.
    pub volume_ml: f64,
    /// ABC/2, an ellipsoid's volume from three diameters as it is taken at the bedside; null where it is not about a haemorrhage, or an older version did not say.
    #[serde(default)]
    pub abc2_ml: Option<f64>,
    /// Between what the true volume lies, at the calibration's level; null until calibrated.
    pub volume_interval_ml: Option<[f64; 2]>,
    /// Centre of mass, LPS mm.
    pub center_mm: Vec3,
    /// Corners of the axis-aligned box around the voxel centres, LPS mm: lowest, highest.
    pub bounding_box_mm: [Vec3; 2],
    /// Side of the patient.
    pub side: Side,
    /// Anatomic site, when the model tells.
    pub site: Option<Code>,
    /// Mean ensemble score of its voxels, 0 to 1, not calibrated.
    pub score: f64,
    /// Calibrated probability; null until calibrated.
    pub probability: Option<f64>,
    /// Mean normalised predictive entropy of its voxels, 0 to 1.
    pub uncertainty: f64,
    /// Index of the slice (ordered along the normal) with most of it: the key slice.
    pub key_slice: usize,
}

/// A case-level answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerValue {
    /// Flagged.
    Present,
    /// Not flagged. Never to be worded as "cleared".
    Absent,
    /// The ensemble does not agree with itself.
    Uncertain,
    /// Nothing was run, and `refusals` says why.
    NotEvaluated,
}

/// One answer to one clinical question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The plan's question: `haemorrhage`, …
    pub question: String,
    /// The model asked; null when none ran.
    pub model: Option<String>,
    /// The answer.
    pub answer: AnswerValue,
    /// Case score, 0 to 1, not calibrated.
    pub score: Option<f64>,
    /// Calibrated probability; null until calibrated.
    pub probability: Option<f64>,
    /// Disagreement of the members about the case, 0 to 1.
    pub uncertainty: Option<f64>,
    /// Triage lane, whose promise the calibration keeps; null until calibrated.
    pub lane: Option<Lane>,
}

/// How urgent a study is to be read, with a share of errors that the calibration promises not to exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Of cases without a lesion at most the promised share is here.
    High,
    /// Neither can be promised.
    Uncertain,
    /// Of cases with a lesion at most the promised share is here.
    Low,
}

impl Lane {
    /// That of an answer which was given by calibrated thresholds.
    #[must_use]
    pub fn of(answer: AnswerValue) -> Self {
        match answer {
            AnswerValue::Present => Self::High,
            AnswerValue::Absent => Self::Low,
            AnswerValue::Uncertain | AnswerValue::NotEvaluated => Self::Uncertain,
        }
    }
}

/// What became of one series of the study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesChoice {
    /// SeriesInstanceUID.
    pub uid: Uid,
    /// `received`, `result`, `derived` or `reader`.
    pub origin: String,
    /// Whether it was analysed.
    pub chosen: bool,
    /// Why, or why not, in a sentence without patient data.
    pub reason: String,
}

/// A model that ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRun {
    /// The plan's id.
    pub id: String,
    /// The plan's version.
    pub version: String,
    /// SHA-256 of `weights.safetensors`, hexadecimal.
    pub weights_sha256: String,
    /// `cpu-{isa}-{dtype}` or `cuda-{sm}-{dtype}`.
    pub numeric_mode: String,
    /// Wall time of inference.
    pub duration_ms: u64,
    /// On what its probabilities and thresholds rest, and what they promise; null where it is not calibrated, or an older version did not say.
    #[serde(default)]
    pub calibration: Option<String>,
}

impl Report {
    /// On what a model's probabilities rest, if it is calibrated.
    #[must_use]
    pub fn calibration_of(&self, model: &str) -> Option<&str> {
        let run = self.models.iter().find(|run| run.id == model)?;
        run.calibration.as_deref()
    }
}

/// Why something was not analysed, or a warning about what was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable reason code: `missing_slice`, `hu_unknown`, `identity_conflict`, …
    pub code: String,
    /// What was found, what was expected, what to do; without patient data.
    pub text: String,
}

/// `findings.json`, and the document that the database keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Format, [`SCHEMA`].
    pub schema: u32,
    /// [`DISCLAIMER`].
    pub disclaimer: String,
    /// The study; null for a volume that is not DICOM.
    pub study_instance_uid: Option<Uid>,
    /// Every series of the study.
    pub series: Vec<SeriesChoice>,
    /// Models that ran.
    pub models: Vec<ModelRun>,
    /// One answer a question.
    pub answers: Vec<Answer>,
    /// Findings, largest first.
    pub findings: Vec<Finding>,
    /// How far the midline is pushed aside; null where that was not to be seen, or an older version did not look.
    #[serde(default)]
    pub midline_shift: Option<SeriesMidline>,
    /// ASPECTS of both sides; null where no model that tells it ran, or no side could be scored.
    #[serde(default)]
    pub aspects: Option<SeriesAspects>,
    /// Refusals: what was not done and why.
    pub refusals: Vec<Refusal>,
    /// Warnings that came with the geometry or the HU: `overlap`, `uneven_spacing`, `gantry_tilt`, …
    pub warnings: Vec<Refusal>,
    /// Milliseconds a stage.
    pub timings: BTreeMap<String, u64>,
}
