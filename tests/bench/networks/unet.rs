//! The U-Nets that are measured: the product's own `PlainConvUNet`, as a plan builds it.
//!
//! Two convolutions a level, affine instance norm, LeakyReLU, stride 2 down, 2× transposed up.

use candle_core::{Device, Tensor, Var};
use ictus_compute::{
    domain::architecture::{Architecture, PlainConvUNet},
    nn::{network::Network, parameters::Parameters},
};
use std::collections::BTreeMap;

/// A network's size and its input.
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) features: &'static [usize],
    pub(crate) input: &'static [usize],
}

/// The 3-D network of the bar.
pub(crate) const UNET_3D: Size = Size {
    name: "unet3d",
    features: &[32, 64, 128, 256],
    input: &[1, 1, 96, 96, 96],
};
/// The 2-D network of the bar.
pub(crate) const UNET_2D: Size = Size {
    name: "unet2d",
    features: &[32, 64, 128, 256, 512],
    input: &[1, 1, 512, 512],
};
/// Output channels.
const CLASSES: usize = 4;
/// Of the weights.
const SEED: u64 = 7;

impl Size {
    fn architecture(&self) -> Architecture {
        let (n_stages, axes) = (self.features.len(), self.input.len() - 2);
        Architecture::PlainConvUNet(PlainConvUNet {
            input_channels: self.input[1],
            n_stages,
            features_per_stage: self.features.to_vec(),
            kernel_sizes: vec![vec![3; axes]; n_stages],
            strides: (0..n_stages)
                .map(|s| vec![if s == 0 { 1 } else { 2 }; axes])
                .collect(),
            n_conv_per_stage: vec![2; n_stages],
            n_conv_per_stage_decoder: vec![2; n_stages - 1],
            num_classes: CLASSES,
            conv_bias: true,
            deep_supervision: false,
        })
    }

    /// A network to train, and its variables under nnU-Net's names.
    pub(crate) fn trainable(&self) -> (Network, BTreeMap<String, Var>) {
        let mut parameters = Parameters::trainable(SEED, &Device::Cpu);
        let network = Network::new(&self.architecture(), &mut parameters).unwrap();
        let Parameters::Trainable { vars, .. } = parameters else {
            unreachable!("they were made so")
        };
        (network, vars)
    }

    /// A network to run, of the same weights.
    pub(crate) fn loaded(&self, weights: &BTreeMap<String, Tensor>) -> Network {
        Network::new(&self.architecture(), &mut Parameters::Loaded(weights.clone())).unwrap()
    }

    /// Multiplications and additions of all convolutions.
    pub(crate) fn gflop(&self, weights: &BTreeMap<String, Tensor>) -> f64 {
        let count = |(name, weight): (&String, &Tensor)| {
            let voxels: usize = self.input[2..]
                .iter()
                .map(|axis| axis >> self.level(name))
                .product();
            if weight.rank() > 1 {
                weight.elem_count() * voxels
            } else {
                0
            }
        };
        2e-9 * weights.iter().map(count).sum::<usize>() as f64
    }

    /// How often a layer's convolution saw its axes halved: by name, as `encoder.stages.1.…`.
    fn level(&self, name: &str) -> usize {
        let number = name.split('.').find_map(|part| part.parse::<usize>().ok());
        let at = number.unwrap();
        let lowest = self.features.len() - 1;
        match name.split('.').next() {
            Some("encoder") => at,
            // A transposed convolution multiplies once for each voxel below.
            _ if name.contains("transpconvs") => lowest - at,
            _ => lowest - 1 - at,
        }
    }
}
