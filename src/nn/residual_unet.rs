//! nnU-Net's `ResidualEncoderUNet` in two and three dimensions, with its key names.
//!
//! A stem, then residual blocks as in ResNet-D: a strided block pools its skip by its mean and projects it where channels change.
//! Source: dynamic-network-architectures, `residual.py` and `residual_encoders.py` (names and wiring); He et al., arXiv:1812.01187; Isensee et al., arXiv:2404.09556.

use super::{
    activation::Activation,
    deferred::Deferred,
    norm::NEGATIVE_SLOPE,
    parameters::Parameters,
    pool::Pool,
    unet_decoder::{Decoder, DecoderPlan},
    unit::{Unit, UnitPlan, axes, refuse},
};
use crate::domain::architecture::{self, ResidualBlock};
use candle_core::{Result, Tensor};

/// nnU-Net's `BasicBlockD` or `BottleneckD`.
#[derive(Debug, Clone)]
struct Block {
    units: Vec<Unit>,
    pool: Option<Pool>,
    projection: Option<Unit>,
}

impl Block {
    fn new(p: &mut Parameters, name: &str, plan: UnitPlan<'_>, inside: Option<usize>) -> Result<Self> {
        let ones = vec![1; plan.kernel.len()];
        let units = match inside {
            None => vec![
                Unit::new(p, &format!("{name}.conv1"), plan)?,
                Unit::new(
                    p,
                    &format!("{name}.conv2"),
                    UnitPlan {
                        c_in: plan.c_out,
                        stride: &ones,
                        activate: false,
                        ..plan
                    },
                )?,
            ],
            Some(inside) => {
                let (first, last) = (
                    UnitPlan {
                        c_out: inside,
                        kernel: &ones,
                        stride: &ones,
                        ..plan
                    },
                    UnitPlan {
                        c_in: inside,
                        kernel: &ones,
                        stride: &ones,
                        activate: false,
                        ..plan
                    },
                );
                let middle = UnitPlan {
                    c_in: inside,
                    c_out: inside,
                    ..plan
                };
                vec![
                    Unit::new(p, &format!("{name}.conv1"), first)?,
                    Unit::new(p, &format!("{name}.conv2"), middle)?,
                    Unit::new(p, &format!("{name}.conv3"), last)?,
                ]
            }
        };
        let strided = plan.stride.iter().any(|s| *s != 1);
        let pool = if strided {
            Some(Pool::Average {
                kernel: axes(plan.stride, 1)?,
                stride: axes(plan.stride, 1)?,
                padding: [0; 3],
            })
        } else {
            None
        };
        let projection = (plan.c_in != plan.c_out)
            .then(|| {
                let at = usize::from(strided);
                let projection = UnitPlan {
                    kernel: &ones,
                    stride: &ones,
                    bias: false,
                    activate: false,
                    ..plan
                };
                Unit::new(p, &format!("{name}.skip.{at}"), projection)
            })
            .transpose()?;
        Ok(Self {
            units,
            pool,
            projection,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut skip = x.clone();
        if let Some(pool) = &self.pool {
            skip = pool.forward(&skip)?;
        }
        if let Some(projection) = &self.projection {
            skip = projection.forward(&skip.into())?.finish()?;
        }
        let mut y = Deferred::from(x.clone());
        for unit in &self.units {
            y = unit.forward(&y)?;
        }
        Activation::LeakyRelu(NEGATIVE_SLOPE).forward(&(y.finish()? + skip)?)
    }
}

/// A U-Net with a residual encoder.
#[derive(Debug, Clone)]
pub struct ResidualEncoderUNet {
    stem: Unit,
    encoder: Vec<Vec<Block>>,
    decoder: Decoder,
}

impl ResidualEncoderUNet {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::ResidualEncoderUNet, p: &mut Parameters) -> Result<Self> {
        let decoder = DecoderPlan {
            features_per_stage: &plan.features_per_stage,
            kernel_sizes: &plan.kernel_sizes,
            strides: &plan.strides,
            n_conv_per_stage_decoder: &plan.n_conv_per_stage_decoder,
            num_classes: plan.num_classes,
            conv_bias: plan.conv_bias,
            deep_supervision: plan.deep_supervision,
        };
        decoder.check(plan.n_stages, &plan.n_blocks_per_stage)?;
        let inside = match (plan.block, &plan.bottleneck_channels) {
            (ResidualBlock::BasicBlockD, None) => vec![None; plan.n_stages],
            (ResidualBlock::BottleneckD, Some(list)) if list.len() == plan.n_stages => {
                list.iter().copied().map(Some).collect()
            }
            (block, list) => {
                return Err(refuse(format!(
                    "bottleneck_channels {list:?} do not fit {} stages of {block:?}",
                    plan.n_stages
                )));
            }
        };
        let mut channels = plan.stem_channels.unwrap_or(plan.features_per_stage[0]);
        let kernel = &plan.kernel_sizes[0];
        let ones = vec![1; kernel.len()];
        let stem = UnitPlan {
            c_in: plan.input_channels,
            c_out: channels,
            kernel,
            stride: &ones,
            bias: plan.conv_bias,
            activate: true,
        };
        let stem = Unit::new(p, "encoder.stem.convs.0", stem)?;
        let mut encoder = Vec::with_capacity(plan.n_stages);
        for (s, inside) in inside.into_iter().enumerate() {
            let mut blocks = Vec::with_capacity(plan.n_blocks_per_stage[s]);
            for b in 0..plan.n_blocks_per_stage[s] {
                let block = UnitPlan {
                    c_in: channels,
                    c_out: plan.features_per_stage[s],
                    kernel: &plan.kernel_sizes[s],
                    stride: if b == 0 { &plan.strides[s] } else { &ones },
                    bias: plan.conv_bias,
                    activate: true,
                };
                let name = format!("encoder.stages.{s}.blocks.{b}");
                blocks.push(Block::new(p, &name, block, inside)?);
                channels = plan.features_per_stage[s];
            }
            encoder.push(blocks);
        }
        Ok(Self {
            stem,
            encoder,
            decoder: Decoder::new(p, decoder)?,
        })
    }

    /// Logits in the layout of the input, full resolution first: all heads, or only the first.
    pub(super) fn run(&self, x: Tensor, all: bool) -> Result<Vec<Tensor>> {
        let mut x = self.stem.forward(&x.into())?.finish()?;
        let mut skips = Vec::with_capacity(self.encoder.len());
        for stage in &self.encoder {
            for block in stage {
                x = block.forward(&x)?;
            }
            skips.push(x.clone().into());
        }
        self.decoder.forward(skips, all)
    }
}
