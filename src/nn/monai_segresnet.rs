//! MONAI's `SegResNet` in two and three dimensions, with its key names.
//!
//! Residual blocks with the norm before the convolution; skips are added, not joined.
//! Source: MONAI, `networks/nets/segresnet.py` and `blocks/segresnet_block.py` (names and wiring); Myronenko, arXiv:1810.11654.

use super::{
    activation::Activation,
    conv::{Conv, ConvTranspose},
    monai_block::norm,
    norm::NormAct,
    parameters::Parameters,
    unit::{conv, refuse, transpose},
    upsample::Upsample,
};
use crate::domain::architecture::{self, FeatureNorm, UpsampleMode};
use candle_core::{Result, Tensor};

/// MONAI's `ResBlock`.
#[derive(Debug, Clone)]
struct Block {
    halves: [(NormAct, Conv); 2],
}

impl Block {
    fn new(p: &mut Parameters, name: &str, channels: usize, dims: usize, kind: FeatureNorm) -> Result<Self> {
        let mut half = |i: usize| {
            let norm = norm(p, &format!("{name}.norm{i}"), channels, kind)?;
            let (kernel, stride) = (vec![3; dims], vec![1; dims]);
            let conv = conv(
                p,
                &format!("{name}.conv{i}.conv"),
                [channels; 2],
                &kernel,
                &stride,
                false,
            )?;
            let activation = Activation::Relu;
            Ok::<_, candle_core::Error>((NormAct { norm, activation }, conv))
        };
        Ok(Self {
            halves: [half(1)?, half(2)?],
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.clone();
        for (norm, conv) in &self.halves {
            y = conv.forward(&norm.forward(&y)?)?;
        }
        y + x
    }
}

/// One level of the way down.
#[derive(Debug, Clone)]
struct Down {
    /// None on the first level.
    conv: Option<Conv>,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
enum Enlarge {
    Linear(Upsample),
    Transpose(ConvTranspose),
}

/// One level of the way up.
#[derive(Debug, Clone)]
struct Up {
    conv: Conv,
    enlarge: Enlarge,
    blocks: Vec<Block>,
}

/// MONAI's residual segmentation network.
#[derive(Debug, Clone)]
pub struct SegResNet {
    first: Conv,
    down: Vec<Down>,
    up: Vec<Up>,
    last: (NormAct, Conv),
}

impl SegResNet {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::SegResNet, p: &mut Parameters) -> Result<Self> {
        let (dims, n) = (plan.spatial_dims, plan.blocks_down.len());
        // Sixteen levels would want images of 32768 voxels.
        if !matches!(dims, 2 | 3) || !(2..=16).contains(&n) || plan.blocks_up.len() + 1 != n {
            return Err(refuse(format!(
                "a SegResNet of {dims} axes has {n} levels down and {} up; wanted 2 or 3 axes, 2 to 16 levels, and one level less on the way up",
                plan.blocks_up.len()
            )));
        }
        let (three, two, one) = (vec![3; dims], vec![2; dims], vec![1; dims]);
        let features = |level: usize| plan.init_filters << level;
        let first = conv(
            p,
            "convInit.conv",
            [plan.in_channels, plan.init_filters],
            &three,
            &one,
            false,
        )?;
        let mut down = Vec::with_capacity(n);
        for (l, count) in plan.blocks_down.iter().enumerate() {
            let name = format!("down_layers.{l}");
            let conv = (l > 0)
                .then(|| {
                    let channels = [features(l) / 2, features(l)];
                    conv(p, &format!("{name}.0.conv"), channels, &three, &two, false)
                })
                .transpose()?;
            let blocks = (0..*count)
                .map(|b| Block::new(p, &format!("{name}.{}", b + 1), features(l), dims, plan.norm))
                .collect::<Result<_>>()?;
            down.push(Down { conv, blocks });
        }
        let mut up = Vec::with_capacity(n - 1);
        for (i, count) in plan.blocks_up.iter().enumerate() {
            let level = n - 2 - i;
            let (below, here) = (features(level + 1), features(level));
            let name = format!("up_samples.{i}");
            let conv = conv(p, &format!("{name}.0.conv"), [below, here], &one, &one, false)?;
            let enlarge = match plan.upsample_mode {
                UpsampleMode::Nontrainable => Enlarge::Linear(Upsample::Linear {
                    scale: super::unit::axes(&two, 1)?,
                    align_corners: false,
                }),
                UpsampleMode::Deconv => {
                    Enlarge::Transpose(transpose(p, &format!("{name}.1.deconv"), [here; 2], &two, true)?)
                }
            };
            let blocks = (0..*count)
                .map(|b| Block::new(p, &format!("up_layers.{i}.{b}"), here, dims, plan.norm))
                .collect::<Result<_>>()?;
            up.push(Up {
                conv,
                enlarge,
                blocks,
            });
        }
        let norm = NormAct {
            norm: norm(p, "conv_final.0", plan.init_filters, plan.norm)?,
            activation: Activation::Relu,
        };
        let channels = [plan.init_filters, plan.out_channels];
        let head = conv(p, "conv_final.2.conv", channels, &one, &one, true)?;
        Ok(Self {
            first,
            down,
            up,
            last: (norm, head),
        })
    }

    /// Logits in the layout of the input.
    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.first.forward(x)?;
        let mut skips = Vec::with_capacity(self.down.len());
        for level in &self.down {
            if let Some(conv) = &level.conv {
                x = conv.forward(&x)?;
            }
            for block in &level.blocks {
                x = block.forward(&x)?;
            }
            skips.push(x.clone());
        }
        skips.pop();
        for (level, skip) in self.up.iter().zip(skips.iter().rev()) {
            x = level.conv.forward(&x)?;
            x = match &level.enlarge {
                Enlarge::Linear(upsample) => upsample.forward(&x)?,
                Enlarge::Transpose(conv) => conv.forward(&x)?,
            };
            x = (x + skip)?;
            for block in &level.blocks {
                x = block.forward(&x)?;
            }
        }
        self.last.1.forward(&self.last.0.forward(&x)?)
    }
}
