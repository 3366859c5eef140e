//! `plan.json`: everything about a model but its weights, in nnU-Net's words.
//!
//! Unknown keys are refused, so that a plan never asks for something that is silently not done.

use super::{architecture::Architecture, code::Code};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format of `plan.json` that this build reads.
pub const SCHEMA: u32 = 1;

/// A model's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Format of this file, [`SCHEMA`].
    pub schema: u32,
    /// The model's name; also the name of its folder in `models/`.
    pub id: String,
    /// Version of the weights and plan together.
    pub version: String,
    /// The clinical question that the model answers: `haemorrhage`, `infarct`, `occlusion`, …
    pub question: String,
    /// Grid, normalisation and architecture.
    pub configuration: Configuration,
    /// How many networks `weights.safetensors` holds, under `member_{i}.`.
    pub members: usize,
    /// How the members' answers become the mask.
    pub ensemble: Ensemble,
    /// The foreground labels.
    pub labels: Vec<Label>,
    /// Which series the model is for.
    pub trigger: Trigger,
    /// Spatial axes that may be flipped at test time; never left–right for a side-aware label.
    pub mirror_axes: Vec<usize>,
    /// What turns scores into probabilities; null until `ictus calibrate` has made one.
    pub calibration: Option<String>,
    /// How closely `golden.safetensors` must be reproduced before the model serves.
    pub golden: Golden,
}

/// The grid that the network sees and the network itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Voxels of one tile, `[rows, columns]` in 2-D.
    pub patch_size: Vec<usize>,
    /// Spacing in mm of the grid, `[rows, columns]` in 2-D: slices stay the source's.
    pub spacing: Vec<f64>,
    /// One scheme a channel.
    pub normalization_schemes: Vec<Normalization>,
    /// Share of a tile by which the next one moves.
    pub tile_step_size: f64,
    /// Network family and its layers.
    pub architecture: Architecture,
}

/// How HU become network input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "scheme")]
pub enum Normalization {
    /// nnU-Net's CT scheme: clip, subtract the mean, divide by the standard deviation.
    CTNormalization {
        /// Lower clip, HU.
        lower_hu: f64,
        /// Upper clip, HU.
        upper_hu: f64,
        /// Mean after clipping, HU.
        mean_hu: f64,
        /// Standard deviation after clipping, HU.
        std_hu: f64,
    },
}

/// How members become a mask; uncertainty always comes from the members' probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ensemble {
    /// Mean of logits, as nnU-Net does.
    MeanLogits,
    /// Mean of probabilities.
    MeanProbabilities,
}

/// One foreground class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Integer voxel value, 1 and up.
    pub value: u8,
    /// Machine name: `haemorrhage`.
    pub name: String,
    /// Segmented property category.
    pub category: Code,
    /// Segmented property type.
    #[serde(rename = "type")]
    pub kind: Code,
    /// Whether left and right mean something for it.
    pub side_aware: bool,
    /// Smaller components are not findings.
    pub min_volume_ml: f64,
    /// Mean score of the ensemble from which a voxel belongs to the mask.
    pub threshold: f64,
    /// Highest voxel score in a component from which it is a finding rather than noise.
    pub min_peak_score: f64,
    /// Case score (see `analysis::uncertainty::case`) from which the study is flagged, and below which it is not.
    /// Between the two the answer is `uncertain`.
    pub flag_score: [f64; 2],
}

/// Which series a model is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Modality (0008,0060).
    pub modality: String,
    /// Whether the series must be with or without contrast agent.
    pub contrast: Contrast,
    /// Allowed step between slices in mm, from and to.
    pub thickness_mm: [f64; 2],
    /// Body part, judged by content: `HEAD`.
    pub body_part: String,
}

/// Contrast agent wanted by a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contrast {
    /// Non-contrast series only.
    Without,
    /// Contrast series only.
    With,
    /// Either.
    Any,
}

/// The check that a model passes on this machine before it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Largest absolute difference of member logits, by numeric type: `f32`, `bf16`, `f16`.
    pub tolerance: BTreeMap<String, f64>,
}
