//! nnU-Net's `PlainConvUNet` in two and three dimensions, with its key names.
//!
//! Encoder stages of convolution → instance norm → LeakyReLU, the first of a stage strided; then the shared decoder.
//! Source: dynamic-network-architectures, `plain_conv_encoder.py` (names and wiring); Isensee et al., doi:10.1038/s41592-020-01008-z.

use super::{
    deferred::Deferred,
    parameters::Parameters,
    unet_decoder::{Decoder, DecoderPlan},
    unit::{Unit, UnitPlan},
};
use crate::domain::architecture;
use candle_core::{Result, Tensor};

/// A plain convolutional U-Net.
#[derive(Debug, Clone)]
pub struct PlainConvUNet {
    encoder: Vec<Vec<Unit>>,
    decoder: Decoder,
}

impl PlainConvUNet {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::PlainConvUNet, p: &mut Parameters) -> Result<Self> {
        let decoder = DecoderPlan {
            features_per_stage: &plan.features_per_stage,
            kernel_sizes: &plan.kernel_sizes,
            strides: &plan.strides,
            n_conv_per_stage_decoder: &plan.n_conv_per_stage_decoder,
            num_classes: plan.num_classes,
            conv_bias: plan.conv_bias,
            deep_supervision: plan.deep_supervision,
        };
        decoder.check(plan.n_stages, &plan.n_conv_per_stage)?;
        let mut encoder = Vec::with_capacity(plan.n_stages);
        let mut channels = plan.input_channels;
        for s in 0..plan.n_stages {
            let kernel = &plan.kernel_sizes[s];
            let ones = vec![1; kernel.len()];
            let mut units = Vec::with_capacity(plan.n_conv_per_stage[s]);
            for c in 0..plan.n_conv_per_stage[s] {
                let unit = UnitPlan {
                    c_in: channels,
                    c_out: plan.features_per_stage[s],
                    kernel,
                    stride: if c == 0 { &plan.strides[s] } else { &ones },
                    bias: plan.conv_bias,
                    activate: true,
                };
                units.push(Unit::new(p, &format!("encoder.stages.{s}.0.convs.{c}"), unit)?);
                channels = plan.features_per_stage[s];
            }
            encoder.push(units);
        }
        Ok(Self {
            encoder,
            decoder: Decoder::new(p, decoder)?,
        })
    }

    /// Logits in the layout of the input, full resolution first: all heads, or only the first.
    pub(super) fn run(&self, x: Tensor, all: bool) -> Result<Vec<Tensor>> {
        let mut skips: Vec<Deferred> = Vec::with_capacity(self.encoder.len());
        let input = Deferred::from(x);
        for stage in &self.encoder {
            let mut x = stage[0].forward(skips.last().unwrap_or(&input))?;
            for unit in &stage[1..] {
                x = unit.forward(&x)?;
            }
            skips.push(x);
        }
        self.decoder.forward(skips, all)
    }
}
