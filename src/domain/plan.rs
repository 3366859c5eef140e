//! `plan.json`: everything about a model but its weights, in nnU-Net's words.
//!
//! Unknown keys are refused, so that a plan never asks for something that is silently not done.

mod check;

use super::{
    architecture::Architecture,
    artery::Artery,
    aspects::Region,
    calibration::Calibration,
    code::{Code, INFARCT},
    finding::DISCLAIMER,
    oriented::Oriented,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, str::FromStr};

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
    /// What the network says beside its labels: which anatomical structure a voxel belongs to, in output channels of their own after those of the labels, the first of them "none".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub structures: Vec<Structure>,
    /// nnU-Net's postprocessing, in order: of each set of label values only the largest component of their union stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_largest: Vec<Vec<u8>>,
    /// Earlier stages of a cascade, the first one first: the label map of each is shown to the next, that of the last to the network itself.
    ///
    /// Their weights are under `stage_{s}.member_{i}.`, their labels are those of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// Which series the model is for.
    pub trigger: Trigger,
    /// Spatial axes that may be flipped at test time; never left–right for a side-aware label.
    pub mirror_axes: Vec<usize>,
    /// Where the weights come from: decides what every result says of its limits.
    #[serde(default)]
    pub provenance: Provenance,
    /// What its convolutions multiply, where the device can; else f32.
    #[serde(default, skip_serializing_if = "Precision::is_single")]
    pub precision: Precision,
    /// What scores meant on known cases; null until `ictus calibrate` has said it, in `calibration.json` beside the plan.
    pub calibration: Option<Calibration>,
    /// How closely `golden.safetensors` must be reproduced before the model serves.
    pub golden: Golden,
}

impl Plan {
    /// Output channels of the labels: one each, and the background's where classes exclude each other.
    #[must_use]
    pub fn label_channels(&self) -> usize {
        self.labels.len() + usize::from(self.activation == Activation::Softmax)
    }

    /// Output channels of the structures: one each and one for none of them, or no channel at all.
    #[must_use]
    pub fn structure_channels(&self) -> usize {
        self.structures.len() + usize::from(!self.structures.is_empty())
    }

    /// Whether infarcts are what is looked for, and the structures are the regions of ASPECTS.
    #[must_use]
    pub fn tells_aspects(&self) -> bool {
        let names = self.structures.iter().map(|structure| structure.name.as_str());
        names.eq(Region::ALL.map(Region::name)) && self.labels.iter().all(|label| label.kind == INFARCT)
    }

    /// Whether the structures are the arteries of the head, by their names.
    #[must_use]
    pub fn tells_arteries(&self) -> bool {
        let names = self.structures.iter().map(|structure| structure.name.as_str());
        names.eq(Artery::ALL.map(Artery::name))
    }

    /// Case score from which a study is flagged, and below which it is not: the lowest of the labels'; nothing where nobody has chosen one for each.
    #[must_use]
    pub fn flag_score(&self) -> Option<[f64; 2]> {
        let all: Option<Vec<[f64; 2]>> = self.labels.iter().map(|label| label.flag_score).collect();
        Some(
            all?.iter()
                .fold([1.0, 1.0], |[low, high], [l, h]| [low.min(*l), high.min(*h)]),
        )
    }
}

/// An anatomical structure that the network knows: no finding, and never part of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Structure {
    /// Machine name.
    pub name: String,
    /// What it is, coded.
    pub code: Code,
}

/// An earlier stage of a cascade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Grid, normalisation and architecture.
    pub configuration: Configuration,
    /// How many networks it has.
    pub members: usize,
    /// Axes of its own grid that may be flipped at test time.
    pub mirror_axes: Vec<usize>,
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

impl Configuration {
    /// How many images of the patient the network is made from: one, unless its grid is a whole volume's.
    #[must_use]
    pub fn scans(&self) -> usize {
        match self.grid {
            Grid::SourceSlices { .. } | Grid::HeadBox { .. } | Grid::Window { .. } => 1,
            Grid::Volume { .. } | Grid::Oriented(_) => self.normalization_schemes.len(),
        }
    }

    /// What the stage before adds to the channels.
    #[must_use]
    pub fn previous_stage(&self) -> Option<&PreviousStage> {
        match &self.grid {
            Grid::Volume { previous_stage, .. } => previous_stage.as_ref(),
            Grid::SourceSlices { .. } | Grid::HeadBox { .. } | Grid::Window { .. } | Grid::Oriented(_) => {
                None
            }
        }
    }

    /// What a network without padding sees at once, and for how much of its middle it answers; none for other networks.
    #[must_use]
    pub fn unpadded(&self) -> Option<[[usize; 3]; 2]> {
        let Architecture::DeepMedic(network) = &self.architecture else {
            return None;
        };
        let tile: [usize; 3] = self.patch_size.as_slice().try_into().ok()?;
        Some([tile, network.output_size(tile)?])
    }

    /// Tiles, steps and slabs in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let slabs = match self.grid {
            Grid::SourceSlices { slab_mm, .. } => format!(", slabs of {slab_mm:.1} mm"),
            _ => String::new(),
        };
        format!(
            "tiles of {:?} voxels at {:.2?} mm{slabs}",
            self.patch_size, self.spacing
        )
    }

    /// Whether tilted and uneven stacks come to its grid as they lie; else an even one is wanted.
    #[must_use]
    pub fn takes_stacks_as_they_lie(&self) -> bool {
        matches!(self.grid, Grid::SourceSlices { .. } | Grid::HeadBox { .. })
    }

    /// Whether every channel is CT; one of MR has no HU to be checked.
    #[must_use]
    pub fn is_ct(&self) -> bool {
        let mut schemes = self.normalization_schemes.iter();
        matches!(self.grid, Grid::Window { .. })
            || schemes.all(|scheme| matches!(scheme, Normalization::CTNormalization { .. }))
    }
}

/// The grid that a network sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Grid {
    /// The source's slices, wherever they lie; rows towards the patient's left, columns towards the back, resampled in the plane.
    ///
    /// With neighbours the network is "2.5-D": the channels are slabs from the feet to the head, the middle one around the slice that is answered for; a mirrored one comes last.
    SourceSlices {
        /// Height in mm of the slab that a channel shows: slices that are thinner are averaged over it; 0: the slice alone.
        #[serde(default)]
        slab_mm: f64,
        /// Slabs below, and as many above, that are channels too.
        #[serde(default)]
        neighbours: usize,
        /// Whether one more channel shows the middle slab mirrored at the head's midsagittal plane; air where no plane is found.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        mirrored: bool,
    },
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
        /// What the stage before adds to the channels; null where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_stage: Option<PreviousStage>,
    },
    /// MONAI's: the array turned to axis codes, resampled and scaled by a chain of transforms.
    ///
    /// Needs a stack that an affine describes; channels are normalised by the chain and by nothing else.
    Oriented(Oriented),
    /// BLAST-CT's: axes to the left, the back and the head, resampled linearly, a window of HU to −1 … 1; the network pads nothing, and answers are those of the nearest voxel.
    Window {
        /// What becomes −1, and what becomes 1.
        window_hu: [f64; 2],
    },
    /// A box of the head, even and along the patient's axes: slices to the vertex, rows to the back, columns to the left.
    ///
    /// It is one tile; each of its voxels is the mean of the source's voxels in it, so that any stack fits, leaning or uneven.
    HeadBox {
        /// From the centre of mass of the cranial cavity to the box's centre, LPS mm.
        centre_mm: [f64; 3],
    },
}

impl Default for Grid {
    fn default() -> Self {
        Self::SourceSlices {
            slab_mm: 0.0,
            neighbours: 0,
            mirrored: false,
        }
    }
}

/// The label map of one stage of a cascade as channels of the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousStage {
    /// Values of the map, a channel each, after those of the images: 1 where the map has the value, else 0.
    pub labels: Vec<u8>,
    /// How the map is resampled: order 0 or 1, and the nearest plane of a coarse axis.
    pub resampling: Resampling,
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
    /// Mean score of the ensemble from which a voxel belongs to the mask: that of all labels together, or the label's own where outputs overlap; 0: the highest class wins.
    pub threshold: f64,
    /// Highest voxel score in a component from which it is a finding rather than noise.
    pub min_peak_score: f64,
    /// Mean HU of a region from and to which it can be a finding, for what lies away from bone: clotted blood has less than bone, calcium or metal; null: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_hu: Option<[f64; 2]>,
    /// Case score (see `analysis::uncertainty::case`) from which the study is flagged, and below which it is not.
    /// Between the two the answer is `uncertain`; null: nobody has chosen them, and the question is not answered.
    pub flag_score: Option<[f64; 2]>,
    /// Where in the anatomy a finding with this label is; null where the label does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Code>,
}

impl Label {
    /// A label whose clinical meaning is not ours to say: its own name, in a scheme of our own, and no threshold chosen.
    #[must_use]
    pub fn unexplained(value: u8, name: &str) -> Self {
        Self {
            value,
            name: name.to_owned(),
            category: Code::new("unspecified", "99ICTUS", "Unspecified"),
            kind: Code {
                value: format!("LABEL-{value}").into(),
                scheme: "99ICTUS".into(),
                meaning: name.to_owned().into(),
            },
            side_aware: false,
            min_volume_ml: 0.0,
            // The highest class wins, however low, as in nnU-Net.
            threshold: 0.0,
            min_peak_score: 0.0,
            mean_hu: None,
            flag_score: None,
            site: None,
        }
    }
}

/// Which series a model is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Modality (0008,0060).
    pub modality: String,
    /// Whether the series must be with or without contrast agent.
    pub contrast: Contrast,
    /// Allowed step between slices in mm, from and to; up to 0: nobody has said, and no series is looked at unless the model is named.
    pub thickness_mm: [f64; 2],
    /// Whether the model waits to be named (`analyze --model`, `serve --also`) although series fit it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_named: bool,
    /// Body part, judged by content: `HEAD`.
    pub body_part: String,
    /// Density of the brain that the network has learnt from, in the median, HU: another one is out of its distribution; null: nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brain_hu: Option<[f64; 2]>,
    /// Noise of the brain up to which it has learnt, as slices of 5 mm have it, HU: more is out of its distribution; null: nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_hu: Option<f64>,
}

impl Trigger {
    /// Whether no series asks for the model by itself.
    #[must_use]
    pub fn is_only_by_name(&self) -> bool {
        self.only_named || self.has_no_step()
    }

    /// Whether nobody has said at which steps between slices the model is to be asked.
    #[must_use]
    pub fn has_no_step(&self) -> bool {
        self.thickness_mm[1] <= 0.0
    }

    /// Whether what is looked at are heads.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.body_part.eq_ignore_ascii_case("HEAD")
    }

    /// Whether what is looked at are heads on CT without contrast agent.
    #[must_use]
    pub fn is_plain_head(&self) -> bool {
        self.modality == "CT" && self.contrast == Contrast::Without && self.is_head()
    }
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

impl Contrast {
    /// The HU that a picture of such a series shows from black to white: the brain (level 40, width 80), or its vessels (level 200, width 600).
    #[must_use]
    pub fn window_hu(self) -> [f32; 2] {
        match self {
            Self::With => [-100.0, 500.0],
            Self::Without | Self::Any => [0.0, 80.0],
        }
    }
}

/// Where weights come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Trained on phantoms by `ictus train`.
    #[default]
    SyntheticPhantoms,
    /// Brought here by `ictus model import`; nobody has validated it here.
    Imported,
    /// Trained by `ictus train` on somebody's labelled scans; nobody has validated it.
    Dataset,
}

impl Provenance {
    /// The limits of use in few words: what every result says where a reader sees it.
    #[must_use]
    pub fn limits(self) -> &'static str {
        match self {
            Self::SyntheticPhantoms => "synthetic-trained, not for clinical use",
            Self::Imported => "imported, not validated, not for clinical use",
            Self::Dataset => "trained locally, not validated, not for clinical use",
        }
    }

    /// The same as a sentence.
    #[must_use]
    pub fn disclaimer(self) -> &'static str {
        match self {
            Self::SyntheticPhantoms => DISCLAIMER,
            Self::Imported => "Imported model, not validated here. For research, not for clinical use.",
            Self::Dataset => {
                "Model trained on somebody's labelled scans, not validated. For research, not for clinical use."
            }
        }
    }
}

/// What convolutions multiply; they add in f32, and what goes from layer to layer is f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Eight bits of fraction: faster, and off by what the plan's golden tolerance for it says.
    Bf16,
}

impl Precision {
    /// As in plans and numeric modes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_single(&self) -> bool {
        *self == Self::F32
    }
}

/// Not a precision.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a precision is `f32` or `bf16`")]
pub struct PrecisionError;

impl FromStr for Precision {
    type Err = PrecisionError;
    fn from_str(text: &str) -> Result<Self, PrecisionError> {
        let mut all = [Self::F32, Self::Bf16].into_iter();
        all.find(|precision| precision.name() == text)
            .ok_or(PrecisionError)
    }
}

/// The check that a model passes on this machine before it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Largest absolute difference of member logits, by numeric type: `f32`, `bf16`, `f16`.
    pub tolerance: BTreeMap<String, f64>,
}

impl Plan {
    /// The plan of an earlier stage of a cascade, as one of its own.
    #[must_use]
    pub fn of_stage(&self, stage: usize) -> Option<Self> {
        let Stage {
            configuration,
            members,
            mirror_axes,
        } = self.stages.get(stage)?.clone();
        Some(Self {
            id: format!("{}/stage_{stage}", self.id),
            configuration,
            members,
            mirror_axes,
            // nnU-Net hands a map on as the network gave it.
            keep_largest: Vec::new(),
            stages: self.stages[..stage].to_vec(),
            ..self.clone()
        })
    }
}
