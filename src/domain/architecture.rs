//! Which network, with which layers: a family's class name and its arguments, in the words of the package it comes from.
//!
//! A family that this build lacks, and an argument that a family does not know, are refused when the plan is read.

use serde::{Deserialize, Serialize};

/// A network family and its layers.
///
/// # Source
/// `arch_kwargs` of dynamic-network-architectures (nnU-Net's plans) and the constructors of MONAI's networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network_class_name")]
pub enum Architecture {
    /// nnU-Net's plain convolutional U-Net.
    PlainConvUNet(PlainConvUNet),
    /// nnU-Net's U-Net with a residual encoder.
    ResidualEncoderUNet(ResidualEncoderUNet),
    /// MONAI's `UNet`.
    UNet(UNet),
    /// MONAI's `DynUNet`.
    DynUNet(DynUNet),
    /// MONAI's `SegResNet`.
    SegResNet(SegResNet),
    /// MONAI's `SwinUNETR`.
    SwinUNETR(SwinUNETR),
    /// BLAST-CT's `DeepMedic`.
    DeepMedic(DeepMedic),
    /// nnU-Net's decoder behind EfficientNet-Lite0.
    EfficientNetUNet(EfficientNetUNet),
}

/// A plain convolutional U-Net: convolution, instance norm, LeakyReLU; strided on the way down, transposed on the way up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainConvUNet {
    /// Input channels.
    pub input_channels: usize,
    /// Resolution levels.
    pub n_stages: usize,
    /// Channels a level.
    pub features_per_stage: Vec<usize>,
    /// Kernel size a level and axis; the number of axes is the network's.
    pub kernel_sizes: Vec<Vec<usize>>,
    /// Stride a level and axis.
    pub strides: Vec<Vec<usize>>,
    /// Convolutions a level on the way down.
    pub n_conv_per_stage: Vec<usize>,
    /// Convolutions a level on the way up, lowest level first.
    pub n_conv_per_stage_decoder: Vec<usize>,
    /// Output channels, background included.
    pub num_classes: usize,
    /// Whether convolutions have a bias; the heads always do.
    #[serde(default = "yes")]
    pub conv_bias: bool,
    /// Whether every level of the decoder has a head, for training.
    #[serde(default)]
    pub deep_supervision: bool,
}

/// A U-Net whose encoder has residual blocks behind a stem; its decoder is the plain one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidualEncoderUNet {
    /// Input channels.
    pub input_channels: usize,
    /// Resolution levels.
    pub n_stages: usize,
    /// Channels a level.
    pub features_per_stage: Vec<usize>,
    /// Kernel size a level and axis; the number of axes is the network's.
    pub kernel_sizes: Vec<Vec<usize>>,
    /// Stride a level and axis.
    pub strides: Vec<Vec<usize>>,
    /// Residual blocks a level.
    pub n_blocks_per_stage: Vec<usize>,
    /// Convolutions a level on the way up, lowest level first.
    pub n_conv_per_stage_decoder: Vec<usize>,
    /// Output channels, background included.
    pub num_classes: usize,
    /// Whether convolutions have a bias; the heads always do, projections of a skip never.
    #[serde(default = "yes")]
    pub conv_bias: bool,
    /// Whether every level of the decoder has a head, for training.
    #[serde(default)]
    pub deep_supervision: bool,
    /// Kind of residual block.
    #[serde(default)]
    pub block: ResidualBlock,
    /// Channels inside a bottleneck, a level; only with [`ResidualBlock::BottleneckD`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck_channels: Option<Vec<usize>>,
    /// Channels of the stem; those of the first level when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem_channels: Option<usize>,
}

/// The residual blocks of dynamic-network-architectures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResidualBlock {
    /// Two convolutions.
    #[default]
    BasicBlockD,
    /// A convolution between two of kernel 1.
    BottleneckD,
}

/// MONAI's U-Net: a recursion of strided layers, joined to what they lead to, and transposed ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNet {
    /// Spatial axes: 2 or 3.
    pub spatial_dims: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels, background included.
    pub out_channels: usize,
    /// Channels a level.
    pub channels: Vec<usize>,
    /// Stride between levels, the same on all axes.
    pub strides: Vec<usize>,
    /// Kernel size on the way down, the same on all axes.
    #[serde(default = "three")]
    pub kernel_size: usize,
    /// Kernel size of the transposed convolutions, the same on all axes.
    #[serde(default = "three")]
    pub up_kernel_size: usize,
    /// Convolutions of a residual unit; 0: no residual units.
    #[serde(default)]
    pub num_res_units: usize,
    /// What follows each norm.
    #[serde(default)]
    pub act: FeatureActivation,
    /// What follows each convolution.
    #[serde(default)]
    pub norm: FeatureNorm,
    /// Whether convolutions have a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

/// MONAI's remake of nnU-Net's U-Net; LeakyReLU of slope 0.01.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DynUNet {
    /// Spatial axes: 2 or 3.
    pub spatial_dims: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels, background included.
    pub out_channels: usize,
    /// Kernel size a level and axis.
    pub kernel_size: Vec<Vec<usize>>,
    /// Stride a level and axis, the first of ones.
    pub strides: Vec<Vec<usize>>,
    /// Channels a level.
    pub filters: Vec<usize>,
    /// What follows each convolution.
    #[serde(default = "affine")]
    pub norm_name: FeatureNorm,
    /// Whether blocks are residual.
    #[serde(default)]
    pub res_block: bool,
    /// Whether transposed convolutions have a bias.
    #[serde(default)]
    pub trans_bias: bool,
}

/// MONAI's residual network for segmentation, norm before convolution, without its auto-encoder; ReLU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegResNet {
    /// Spatial axes: 2 or 3.
    pub spatial_dims: usize,
    /// Channels of the first level; each level has twice those of the one above.
    pub init_filters: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels, background included.
    pub out_channels: usize,
    /// What precedes each convolution.
    #[serde(default = "groups")]
    pub norm: FeatureNorm,
    /// Residual blocks a level on the way down.
    pub blocks_down: Vec<usize>,
    /// Residual blocks a level on the way up, lowest level first.
    pub blocks_up: Vec<usize>,
    /// How a level is brought to the size of the one above.
    #[serde(default)]
    pub upsample_mode: UpsampleMode,
}

/// MONAI's U-Net with a Swin transformer for an encoder, in three dimensions; GELU and LeakyReLU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwinUNETR {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels, background included.
    pub out_channels: usize,
    /// Channels of the first level, a multiple of 12.
    #[serde(default = "twenty_four")]
    pub feature_size: usize,
    /// Transformer blocks a stage, of four.
    #[serde(default = "twos")]
    pub depths: Vec<usize>,
    /// Attention heads a stage, of four.
    #[serde(default = "heads")]
    pub num_heads: Vec<usize>,
    /// Tokens of a window along each axis.
    #[serde(default = "windows")]
    pub window_size: [usize; 3],
    /// Whether query, key and value have a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// Hidden channels of a block's perceptron for each of its channels.
    #[serde(default = "four")]
    pub mlp_ratio: f64,
    /// What follows each convolution.
    #[serde(default)]
    pub norm_name: FeatureNorm,
    /// Whether what each stage hands to the decoder is normalised.
    #[serde(default = "yes")]
    pub normalize: bool,
    /// In which order a patch's tokens are merged.
    #[serde(default)]
    pub downsample: Merging,
    /// Whether each stage begins with a residual block of convolutions.
    #[serde(default)]
    pub use_v2: bool,
}

/// MONAI's patch merging by its names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merging {
    /// Tokens with fewer odd places first.
    #[default]
    Merging,
    /// Tokens row by row.
    MergingV2,
}

/// BLAST-CT's DeepMedic: paths of unpadded convolutions at several scales, in three dimensions; PReLU and batch norm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeepMedic {
    /// Input channels.
    pub input_channels: usize,
    /// Output channels, background included.
    pub num_classes: usize,
    /// How coarsely each path sees, along each axis, the coarsest first.
    #[serde(default = "scales")]
    pub scale_factors: Vec<[usize; 3]>,
    /// Channels of each path's layers.
    #[serde(default = "feature_maps")]
    pub feature_maps: Vec<usize>,
    /// Channels of the layers that join the paths.
    #[serde(default = "fully_connected")]
    pub fully_connected: Vec<usize>,
}

/// A U-Net in two dimensions whose encoder is EfficientNet-Lite0 with its batch norms folded in; its decoder is nnU-Net's plain one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientNetUNet {
    /// Input channels.
    pub input_channels: usize,
    /// Channels of the decoder at each of six levels, the full resolution first.
    pub features_per_stage: Vec<usize>,
    /// Output channels, background included.
    pub num_classes: usize,
}

impl DeepMedic {
    /// Channels that each path ends with.
    #[must_use]
    pub fn last_features(&self) -> usize {
        self.feature_maps.last().copied().unwrap_or_default()
    }

    /// How many voxels in the middle of an input are answered for; none for an input of which some would be wasted.
    #[must_use]
    pub fn output_size(&self, input: [usize; 3]) -> Option<[usize; 3]> {
        let coarsest = self.scale_factors.first()?;
        let margin = 2 * self.feature_maps.len();
        let mut output = [0; 3];
        for (axis, out) in output.iter_mut().enumerate() {
            let scale = coarsest[axis];
            *out = (input[axis].checked_div(scale)?).checked_sub(margin)? * scale;
            if *out == 0 || input[axis] != *out + margin * scale {
                return None;
            }
        }
        Some(output)
    }
}

/// MONAI's norms by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "name", rename_all = "UPPERCASE")]
pub enum FeatureNorm {
    /// Each channel of each image.
    Instance {
        /// Whether it learns scale and shift.
        #[serde(default)]
        affine: bool,
    },
    /// Each channel, with the statistics of the training: at inference only.
    Batch,
    /// Groups of channels of each image.
    Group {
        /// How many.
        num_groups: usize,
    },
}

impl Default for FeatureNorm {
    fn default() -> Self {
        Self::Instance { affine: false }
    }
}

/// MONAI's activations by their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FeatureActivation {
    /// One learnt slope a layer.
    #[default]
    Prelu,
    /// ReLU.
    Relu,
    /// LeakyReLU of slope 0.01.
    LeakyRelu,
}

/// How MONAI's `SegResNet` makes a level larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpsampleMode {
    /// Linear interpolation.
    #[default]
    Nontrainable,
    /// Transposed convolution.
    Deconv,
}

fn yes() -> bool {
    true
}

fn scales() -> Vec<[usize; 3]> {
    vec![[5; 3], [3; 3], [1; 3]]
}

fn feature_maps() -> Vec<usize> {
    vec![30, 30, 40, 40, 40, 40, 50, 50]
}

fn fully_connected() -> Vec<usize> {
    vec![250, 250]
}

fn twenty_four() -> usize {
    24
}

fn twos() -> Vec<usize> {
    vec![2; 4]
}

fn heads() -> Vec<usize> {
    vec![3, 6, 12, 24]
}

fn windows() -> [usize; 3] {
    [7; 3]
}

fn four() -> f64 {
    4.0
}

fn three() -> usize {
    3
}

fn affine() -> FeatureNorm {
    FeatureNorm::Instance { affine: true }
}

fn groups() -> FeatureNorm {
    FeatureNorm::Group { num_groups: 8 }
}

impl Architecture {
    /// The class name of the family.
    #[must_use]
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::PlainConvUNet(_) => "PlainConvUNet",
            Self::ResidualEncoderUNet(_) => "ResidualEncoderUNet",
            Self::UNet(_) => "UNet",
            Self::DynUNet(_) => "DynUNet",
            Self::SegResNet(_) => "SegResNet",
            Self::SwinUNETR(_) => "SwinUNETR",
            Self::DeepMedic(_) => "DeepMedic",
            Self::EfficientNetUNet(_) => "EfficientNetUNet",
        }
    }

    /// Input channels.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        match self {
            Self::PlainConvUNet(a) => a.input_channels,
            Self::ResidualEncoderUNet(a) => a.input_channels,
            Self::UNet(a) => a.in_channels,
            Self::DynUNet(a) => a.in_channels,
            Self::SegResNet(a) => a.in_channels,
            Self::SwinUNETR(a) => a.in_channels,
            Self::DeepMedic(a) => a.input_channels,
            Self::EfficientNetUNet(a) => a.input_channels,
        }
    }

    /// Output channels.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        match self {
            Self::PlainConvUNet(a) => a.num_classes,
            Self::ResidualEncoderUNet(a) => a.num_classes,
            Self::UNet(a) => a.out_channels,
            Self::DynUNet(a) => a.out_channels,
            Self::SegResNet(a) => a.out_channels,
            Self::SwinUNETR(a) => a.out_channels,
            Self::DeepMedic(a) => a.num_classes,
            Self::EfficientNetUNet(a) => a.num_classes,
        }
    }

    /// Spatial axes of the input: 2 or 3; 0 for an architecture without levels, which no network accepts.
    #[must_use]
    pub fn spatial_dims(&self) -> usize {
        let axes = |sizes: &[Vec<usize>]| sizes.first().map_or(0, Vec::len);
        match self {
            Self::PlainConvUNet(a) => axes(&a.kernel_sizes),
            Self::ResidualEncoderUNet(a) => axes(&a.kernel_sizes),
            Self::UNet(a) => a.spatial_dims,
            Self::DynUNet(a) => a.spatial_dims,
            Self::SegResNet(a) => a.spatial_dims,
            Self::SwinUNETR(_) | Self::DeepMedic(_) => 3,
            Self::EfficientNetUNet(_) => 2,
        }
    }

    /// What each spatial axis of an input must be a multiple of.
    #[must_use]
    pub fn divisors(&self) -> Vec<usize> {
        let product = |strides: &[Vec<usize>]| {
            (0..self.spatial_dims())
                .map(|axis| {
                    let along = strides.iter().filter_map(|s| s.get(axis));
                    along.fold(1usize, |n, s| n.saturating_mul(*s))
                })
                .collect()
        };
        match self {
            Self::PlainConvUNet(a) => product(&a.strides),
            Self::ResidualEncoderUNet(a) => product(&a.strides),
            Self::UNet(a) => {
                let all = a.strides.iter().fold(1usize, |n, s| n.saturating_mul(*s));
                vec![all; a.spatial_dims]
            }
            Self::DynUNet(a) => product(&a.strides),
            Self::SegResNet(a) => {
                let levels = u32::try_from(a.blocks_down.len()).unwrap_or(u32::MAX);
                vec![1usize.checked_shl(levels.saturating_sub(1)).unwrap_or(0); a.spatial_dims]
            }
            // A patch of two and four mergings.
            Self::SwinUNETR(_) => vec![32; 3],
            // Five halvings.
            Self::EfficientNetUNet(_) => vec![32; 2],
            Self::DeepMedic(a) => a.scale_factors.first().map_or(vec![0; 3], |s| s.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"{"network_class_name": "PlainConvUNet", "input_channels": 1, "n_stages": 2,
        "features_per_stage": [8, 16], "kernel_sizes": [[1, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2]],
        "n_conv_per_stage": [2, 2], "n_conv_per_stage_decoder": [1], "num_classes": 3}"#;

    #[test]
    fn a_plan_says_its_family_axes_and_divisors() {
        let plain: Architecture = serde_json::from_str(PLAIN).unwrap();
        assert_eq!(plain.class_name(), "PlainConvUNet");
        assert_eq!((plain.spatial_dims(), plain.num_classes()), (3, 3));
        assert_eq!(plain.divisors(), [1, 2, 2]);
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(serde_json::from_str::<Architecture>(&text).unwrap(), plain);
    }

    #[test]
    fn refuses_an_unknown_argument_and_an_unknown_family() {
        let extra = PLAIN.replace("\"n_stages\"", "\"attention\": true, \"n_stages\"");
        let error = serde_json::from_str::<Architecture>(&extra).unwrap_err();
        assert!(error.to_string().contains("attention"), "{error}");
        let other = PLAIN.replace("PlainConvUNet", "MedNeXt");
        let error = serde_json::from_str::<Architecture>(&other).unwrap_err();
        assert!(error.to_string().contains("MedNeXt"), "{error}");
    }
}
