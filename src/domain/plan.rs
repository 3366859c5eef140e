//! `plan.json`: everything about a model but its weights, in nnU-Net's words.
//!
//! Unknown keys are refused, so that a plan never asks for something that is silently not done.

use super::{architecture::Architecture, code::Code, finding::DISCLAIMER};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Where the weights come from: decides what every result says of its limits.
    #[serde(default)]
    pub provenance: Provenance,
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

impl Configuration {
    /// How many images of the patient the network is made from: one, unless its grid is a whole volume's.
    #[must_use]
    pub fn scans(&self) -> usize {
        match self.grid {
            Grid::SourceSlices { .. } | Grid::HeadBox { .. } => 1,
            Grid::Volume { .. } => self.normalization_schemes.len(),
        }
    }

    /// Whether every channel is CT; one of MR has no HU to be checked.
    #[must_use]
    pub fn is_ct(&self) -> bool {
        self.normalization_schemes
            .iter()
            .all(|scheme| matches!(scheme, Normalization::CTNormalization { .. }))
    }
}

/// The grid that a network sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Grid {
    /// The source's slices, wherever they lie; rows towards the patient's left, columns towards the back, resampled in the plane.
    ///
    /// With neighbours the network is "2.5-D": the channels are slabs from the feet to the head, the middle one around the slice that is answered for.
    SourceSlices {
        /// Height in mm of the slab that a channel shows: slices that are thinner are averaged over it; 0: the slice alone.
        #[serde(default)]
        slab_mm: f64,
        /// Slabs below, and as many above, that are channels too.
        #[serde(default)]
        neighbours: usize,
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
        }
    }
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
    /// Mean score of the ensemble from which a voxel belongs to the mask: the label's own on a volume's grid, that of all labels together on the source's slices.
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

/// The check that a model passes on this machine before it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Largest absolute difference of member logits, by numeric type: `f32`, `bf16`, `f16`.
    pub tolerance: BTreeMap<String, f64>,
}

impl Plan {
    /// Refuses a plan that contradicts itself, or asks for what its grid does not do.
    ///
    /// # Errors
    /// A sentence: what was found, what was expected.
    pub fn check(&self) -> Result<(), String> {
        let Configuration {
            patch_size,
            spacing,
            normalization_schemes,
            channel_names,
            tile_step_size,
            architecture,
            ..
        } = &self.configuration;
        let dims = patch_size.len();
        ensure(matches!(dims, 2 | 3) && spacing.len() == dims, || {
            format!(
                "patch_size has {dims} axes and spacing {}, expected 2 or 3 for both",
                spacing.len()
            )
        })?;
        ensure(architecture.spatial_dims() == dims, || {
            format!(
                "the network has {} spatial axes, patch_size {dims}",
                architecture.spatial_dims()
            )
        })?;
        ensure(spacing.iter().all(|mm| mm.is_finite() && *mm > 0.0), || {
            format!("spacing is {spacing:?}, expected millimetres above 0")
        })?;
        for (size, divisor) in patch_size.iter().zip(architecture.divisors()) {
            ensure(*size > 0 && size.is_multiple_of(divisor), || {
                format!(
                    "patch_size is {patch_size:?}, the network needs {size} to be a multiple of {divisor}"
                )
            })?;
        }
        ensure(*tile_step_size > 0.0 && *tile_step_size <= 1.0, || {
            format!("tile_step_size is {tile_step_size}, expected above 0 and at most 1")
        })?;
        let channels = normalization_schemes.len();
        ensure(channels == architecture.input_channels(), || {
            format!(
                "found {channels} normalization_schemes for a network of {} input channels",
                architecture.input_channels()
            )
        })?;
        ensure(
            channel_names.is_empty() || channel_names.len() == channels,
            || {
                format!(
                    "found {} channel_names for {channels} channels",
                    channel_names.len()
                )
            },
        )?;
        ensure(self.members > 0, || "members is 0, expected at least 1".into())?;
        self.check_grid()?;
        self.check_labels()?;
        self.check_mirrors()
    }

    fn check_grid(&self) -> Result<(), String> {
        let channels = self.configuration.normalization_schemes.len();
        match &self.configuration.grid {
            // What only whole-volume plans do is refused here rather than left out in silence.
            Grid::SourceSlices { slab_mm, neighbours } => ensure(
                self.configuration.patch_size.len() == 2
                    && channels == 2 * neighbours + 1
                    && (*neighbours == 0 || *slab_mm > 0.0)
                    && (0.0..=20.0).contains(slab_mm)
                    && self.activation == Activation::Softmax
                    && self.keep_largest.is_empty()
                    && self.mirror_axes.is_empty(),
                || {
                    "a plan on source_slices has two axes, a channel for the slice and one for each neighbouring slab (of 20 mm at most), softmax, and neither mirror_axes nor keep_largest"
                        .into()
                },
            ),
            Grid::HeadBox { centre_mm } => ensure(
                self.configuration.patch_size.len() == 3
                    && channels == 1
                    && centre_mm.iter().all(|mm| mm.is_finite())
                    && self.activation == Activation::Softmax
                    && self.keep_largest.is_empty()
                    && self.mirror_axes.is_empty(),
                || {
                    "a plan on head_box has three axes, one channel, softmax, and neither mirror_axes nor keep_largest".into()
                },
            ),
            Grid::Volume {
                transpose_forward,
                use_mask_for_norm,
                ..
            } => {
                let mut axes = *transpose_forward;
                axes.sort_unstable();
                ensure(axes == [0, 1, 2], || {
                    format!("transpose_forward is {transpose_forward:?}, expected each of 0, 1, 2 once")
                })?;
                ensure(
                    use_mask_for_norm.is_empty() || use_mask_for_norm.len() == channels,
                    || {
                        format!(
                            "use_mask_for_norm has {} entries for {channels} channels",
                            use_mask_for_norm.len()
                        )
                    },
                )
            }
        }
    }

    fn check_labels(&self) -> Result<(), String> {
        let values: BTreeSet<u8> = self.labels.iter().map(|l| l.value).collect();
        ensure(
            values.len() == self.labels.len() && !values.is_empty() && !values.contains(&0),
            || "labels need one entry or more, each with a value of its own above 0".into(),
        )?;
        let outputs = self.labels.len() + usize::from(self.activation == Activation::Softmax);
        let found = self.configuration.architecture.num_classes();
        ensure(found == outputs, || {
            format!("the network has {found} outputs, the labels need {outputs}")
        })?;
        let unknown = self.keep_largest.iter().flatten().find(|v| !values.contains(v));
        ensure(unknown.is_none(), || {
            format!("keep_largest names the value {unknown:?}, which no label has")
        })
    }

    fn check_mirrors(&self) -> Result<(), String> {
        let dims = self.configuration.patch_size.len();
        let axes: BTreeSet<usize> = self.mirror_axes.iter().copied().collect();
        ensure(
            axes.len() == self.mirror_axes.len() && axes.iter().all(|axis| *axis < dims),
            || {
                format!(
                    "mirror_axes is {:?}, expected some of the network's {dims} axes, each once",
                    self.mirror_axes
                )
            },
        )?;
        let Grid::Volume {
            transpose_forward, ..
        } = &self.configuration.grid
        else {
            return Ok(());
        };
        // The last axis of an axial stack runs from one side of the patient to the other; a 2-D network lacks the first.
        let across = transpose_forward
            .iter()
            .position(|source| *source == 2)
            .and_then(|axis| (axis + dims).checked_sub(3));
        let sided = self.labels.iter().find(|label| label.side_aware);
        match (sided, across) {
            (Some(label), Some(axis)) if axes.contains(&axis) => Err(format!(
                "mirror_axes has {axis}, which is left-right, and the label {} is side_aware",
                label.name
            )),
            _ => Ok(()),
        }
    }
}

fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(sentence()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Plan {
        serde_json::from_str(include_str!("../../models/haemorrhage-phantom/plan.json")).unwrap()
    }

    fn on_volume() -> Plan {
        let mut plan = shipped();
        let resampling = Resampling {
            order: 1,
            order_z: 0,
            force_separate_z: None,
        };
        plan.configuration.grid = Grid::Volume {
            transpose_forward: [0, 1, 2],
            use_mask_for_norm: vec![false; plan.configuration.normalization_schemes.len()],
            resampling_data: resampling,
            resampling_probabilities: resampling,
        };
        plan
    }

    #[test]
    fn the_shipped_plan_agrees_with_itself() {
        shipped().check().unwrap();
        on_volume().check().unwrap();
    }

    #[test]
    fn slabs_of_one_scan_are_channels_of_the_network_and_not_files() {
        let mut plan = crate::train::recipe::haemorrhage(1);
        assert_eq!(plan.configuration.normalization_schemes.len(), 3);
        assert_eq!(plan.configuration.scans(), 1);
        plan.configuration.grid = on_volume().configuration.grid;
        assert_eq!(plan.configuration.scans(), 3);
    }

    #[test]
    fn refuses_to_mirror_left_and_right_for_a_side_aware_label() {
        let mut plan = on_volume();
        plan.mirror_axes = vec![0];
        plan.check().unwrap();
        plan.mirror_axes = vec![0, 1];
        assert!(plan.check().unwrap_err().contains("left-right"));
        plan.labels.iter_mut().for_each(|label| label.side_aware = false);
        plan.check().unwrap();
        plan.mirror_axes = vec![2];
        assert!(plan.check().unwrap_err().contains("2 axes"));
    }

    #[test]
    fn refuses_what_its_grid_would_leave_out_and_what_contradicts_itself() {
        type Change = fn(&mut Plan);
        let changes: [(Change, &str); 7] = [
            (|p| p.mirror_axes = vec![0], "source_slices"),
            (|p| p.activation = Activation::Sigmoid, "source_slices"),
            (|p| p.configuration.patch_size[0] = 225, "multiple of 16"),
            (|p| p.configuration.spacing = vec![1.0, 0.0], "above 0"),
            (|p| p.labels[0].value = 0, "value of its own"),
            (
                |p| {
                    p.labels.push(Label {
                        value: 9,
                        ..p.labels[0].clone()
                    })
                },
                "6 outputs",
            ),
            (
                |p| p.configuration.normalization_schemes.clear(),
                "input channels",
            ),
        ];
        for (change, words) in changes {
            let mut plan = shipped();
            change(&mut plan);
            let error = plan.check().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
