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
    /// What turns logits into probabilities.
    #[serde(default)]
    pub activation: Activation,
    /// The foreground labels; with [`Activation::Sigmoid`] one a region and output channel, painted in this order.
    pub labels: Vec<Label>,
    /// nnU-Net's postprocessing, in order: of each set of label values only the largest component of their union stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_largest: Vec<Vec<u8>>,
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
    /// Which grid the network sees.
    #[serde(default)]
    pub grid: Grid,
    /// Voxels of one tile along the network's axes: two or three.
    pub patch_size: Vec<usize>,
    /// Spacing in mm of the grid along the network's axes; with two, the first (transposed) axis stays the source's.
    pub spacing: Vec<f64>,
    /// One scheme a channel.
    pub normalization_schemes: Vec<Normalization>,
    /// What each channel holds, in the words of the training data; as many as schemes, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channel_names: Vec<String>,
    /// Share of a tile by which the next one moves.
    pub tile_step_size: f64,
    /// Network family and its layers.
    pub architecture: Architecture,
}

/// The grid that a network sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Grid {
    /// The source's slices, wherever they lie; rows towards the patient's left, columns towards the back, resampled in the plane.
    #[default]
    SourceSlices,
    /// nnU-Net's: the array as a NIfTI file holds it (`k, j, i`), transposed, cropped to what is not zero, resampled.
    ///
    /// Needs a stack that an affine describes: even and without shear.
    Volume {
        /// nnU-Net's `transpose_forward`: which array axis becomes the first, second and third.
        transpose_forward: [usize; 3],
        /// Statistics within the non-zero mask only, one a channel (nnU-Net's `use_mask_for_norm`).
        use_mask_for_norm: Vec<bool>,
        /// How images are resampled.
        resampling_data: Resampling,
        /// How logits are resampled.
        resampling_probabilities: Resampling,
    },
}

/// nnU-Net's `resample_data_or_seg_to_shape` and its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resampling {
    /// Order of the spline: 0, 1 or 3.
    pub order: u8,
    /// Order along an axis that is treated apart: 0 or 1.
    pub order_z: u8,
    /// Whether the coarsest axis is treated apart; null: when it is more than three times as coarse as the finest.
    pub force_separate_z: Option<bool>,
}

/// What turns logits into probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Classes exclude each other; the first is background.
    #[default]
    Softmax,
    /// nnU-Net's regions: each channel for itself, no background.
    Sigmoid,
}

/// How values become network input: nnU-Net's schemes by their class names.
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
    /// Subtract the mean, divide by the standard deviation, of the image or of its non-zero part.
    ZScoreNormalization,
    /// Nothing.
    NoNormalization,
    /// Minimum to 0, maximum to 1.
    RescaleTo01Normalization,
    /// Divide by 255.
    RGBTo01Normalization,
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
    /// Between the two the answer is `uncertain`; null: nobody has chosen them, and the question is not answered.
    pub flag_score: Option<[f64; 2]>,
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
