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

fn yes() -> bool {
    true
}

impl Architecture {
    /// The class name of the family.
    #[must_use]
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::PlainConvUNet(_) => "PlainConvUNet",
            Self::ResidualEncoderUNet(_) => "ResidualEncoderUNet",
        }
    }

    /// Input channels.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        match self {
            Self::PlainConvUNet(a) => a.input_channels,
            Self::ResidualEncoderUNet(a) => a.input_channels,
        }
    }

    /// Output channels.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        match self {
            Self::PlainConvUNet(a) => a.num_classes,
            Self::ResidualEncoderUNet(a) => a.num_classes,
        }
    }

    /// Spatial axes of the input: 2 or 3; 0 for an architecture without levels, which no network accepts.
    #[must_use]
    pub fn spatial_dims(&self) -> usize {
        let axes = |sizes: &[Vec<usize>]| sizes.first().map_or(0, Vec::len);
        match self {
            Self::PlainConvUNet(a) => axes(&a.kernel_sizes),
            Self::ResidualEncoderUNet(a) => axes(&a.kernel_sizes),
        }
    }

    /// What each spatial axis of an input must be a multiple of.
    #[must_use]
    pub fn divisors(&self) -> Vec<usize> {
        let product = |strides: &[Vec<usize>]| {
            (0..self.spatial_dims())
                .map(|axis| strides.iter().filter_map(|s| s.get(axis)).product())
                .collect()
        };
        match self {
            Self::PlainConvUNet(a) => product(&a.strides),
            Self::ResidualEncoderUNet(a) => product(&a.strides),
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
