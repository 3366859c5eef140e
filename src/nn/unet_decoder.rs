//! The decoder that nnU-Net's U-Nets share: transposed convolution, skip, convolutions, and a head a level.
//!
//! Source: dynamic-network-architectures, `unet_decoder.py` (names and wiring).

use super::{
    conv::{Conv, ConvTranspose},
    deferred::Deferred,
    parameters::Parameters,
    unit::{Unit, UnitPlan, conv, refuse, transpose},
};
use candle_core::{Result, Tensor};

/// Bounds on what a plan may ask for, some times what nnU-Net's planners make: a plan must not exhaust the memory.
const MOST_STAGES: usize = 12;
const MOST_FEATURES: usize = 2048;
const MOST_LAYERS: usize = 64;
const WIDEST: usize = 15;

/// One level of the way up.
#[derive(Debug, Clone)]
struct Level {
    transpose: ConvTranspose,
    /// Takes what came up, and the skip.
    joined: Unit,
    units: Vec<Unit>,
    /// Only the last level has one without deep supervision.
    head: Option<Conv>,
}

/// What a decoder is made of; lists begin at the full resolution, as in the encoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecoderPlan<'a> {
    pub(super) features_per_stage: &'a [usize],
    pub(super) kernel_sizes: &'a [Vec<usize>],
    pub(super) strides: &'a [Vec<usize>],
    /// Lowest level first.
    pub(super) n_conv_per_stage_decoder: &'a [usize],
    pub(super) num_classes: usize,
    pub(super) conv_bias: bool,
    pub(super) deep_supervision: bool,
}

impl DecoderPlan<'_> {
    /// Refuses lists that do not fit each other.
    pub(super) fn check(&self, n_stages: usize, encoder: &[usize]) -> Result<()> {
        let axes = self.kernel_sizes.first().map_or(0, Vec::len);
        let fits = n_stages >= 2
            && self.features_per_stage.len() == n_stages
            && self.kernel_sizes.len() == n_stages
            && self.strides.len() == n_stages
            && encoder.len() == n_stages
            && self.n_conv_per_stage_decoder.len() + 1 == n_stages;
        if !fits {
            return Err(refuse(format!(
                "the plan's lists do not fit its {n_stages} stages"
            )));
        }
        let lists = self.kernel_sizes.iter().chain(self.strides);
        if !matches!(axes, 2 | 3) || lists.into_iter().any(|l| l.len() != axes) {
            return Err(refuse(
                "kernel sizes and strides have two or three axes, the same number on every level".into(),
            ));
        }
        let most = self.features_per_stage.iter().chain([&self.num_classes]).max();
        let longest = encoder.iter().chain(self.n_conv_per_stage_decoder).max();
        let widest = self.kernel_sizes.iter().chain(self.strides).flatten().max();
        let within = n_stages <= MOST_STAGES
            && most.is_none_or(|n| *n <= MOST_FEATURES)
            && longest.is_none_or(|n| *n <= MOST_LAYERS)
            && widest.is_none_or(|n| *n <= WIDEST);
        if !within {
            return Err(refuse(format!(
                "a network has at most {MOST_STAGES} stages, {MOST_FEATURES} features, {MOST_LAYERS} layers a stage and kernels and strides of {WIDEST}"
            )));
        }
        let counts = encoder
            .iter()
            .chain(self.n_conv_per_stage_decoder)
            .chain(self.features_per_stage)
            .chain([&self.num_classes]);
        if counts.into_iter().any(|count| *count == 0) {
            return Err(refuse("every level has a convolution, and channels".into()));
        }
        Ok(())
    }
}

/// nnU-Net's `UNetDecoder`.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    levels: Vec<Level>,
}

impl Decoder {
    /// `plan` has been checked.
    pub(super) fn new(p: &mut Parameters, plan: DecoderPlan<'_>) -> Result<Self> {
        let n = plan.features_per_stage.len();
        let mut levels = Vec::with_capacity(n - 1);
        for d in 0..n - 1 {
            let level = n - 2 - d;
            let (below, features) = (plan.features_per_stage[level + 1], plan.features_per_stage[level]);
            let kernel = &plan.kernel_sizes[level];
            let ones = vec![1; kernel.len()];
            let transpose = transpose(
                p,
                &format!("decoder.transpconvs.{d}"),
                [below, features],
                &plan.strides[level + 1],
                plan.conv_bias,
            )?;
            let mut unit = |c: usize, c_in: usize| {
                let unit = UnitPlan {
                    c_in,
                    c_out: features,
                    kernel,
                    stride: &ones,
                    bias: plan.conv_bias,
                    activate: true,
                };
                Unit::new(p, &format!("decoder.stages.{d}.convs.{c}"), unit)
            };
            let joined = unit(0, 2 * features)?;
            let units = (1..plan.n_conv_per_stage_decoder[d])
                .map(|c| unit(c, features))
                .collect::<Result<_>>()?;
            let head = (plan.deep_supervision || level == 0)
                .then(|| {
                    let name = format!("decoder.seg_layers.{d}");
                    conv(p, &name, [features, plan.num_classes], &ones, &ones, true)
                })
                .transpose()?;
            levels.push(Level {
                transpose,
                joined,
                units,
                head,
            });
        }
        Ok(Self { levels })
    }

    /// The encoder's outputs, full resolution first → logits, full resolution first; all heads or only the first.
    pub(super) fn forward(&self, mut skips: Vec<Deferred>, all: bool) -> Result<Vec<Tensor>> {
        let missing = || refuse("one skip a level".into());
        let mut x = skips.pop().ok_or_else(missing)?;
        let mut heads = Vec::new();
        for (d, level) in self.levels.iter().enumerate() {
            // The skip is let go before the next convolution needs a buffer.
            x = {
                let skip = skips.pop().ok_or_else(missing)?;
                level
                    .joined
                    .forward_joined(&level.transpose.read(&x)?.into(), &skip)?
            };
            for unit in &level.units {
                x = unit.forward(&x)?;
            }
            if let Some(head) = &level.head
                && (all || d + 1 == self.levels.len())
            {
                heads.push(head.read(&x)?);
            }
        }
        heads.reverse();
        Ok(heads)
    }
}
