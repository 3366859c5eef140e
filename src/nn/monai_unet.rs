//! MONAI's `UNet` in two and three dimensions, with its key names.
//!
//! A level is a strided block, whatever lies below it, both joined, and a transposed block; the lowest level is a block.
//! Source: MONAI, `networks/nets/unet.py` (names and wiring); Kerfoot et al., doi:10.1007/978-3-030-12029-0_40.

use super::{
    conv::Conv,
    layout,
    monai_block::{Convolution, ConvolutionPlan},
    parameters::Parameters,
    unit::{conv, refuse},
};
use crate::domain::architecture;
use candle_core::{Result, Tensor};

/// A convolution, or MONAI's `ResidualUnit`.
#[derive(Debug, Clone)]
struct Block {
    convs: Vec<Convolution>,
    /// None: no residual connection; `Some(None)`: the input itself.
    residual: Option<Option<Conv>>,
}

impl Block {
    /// `units` = 0 makes a plain convolution.
    fn new(
        p: &mut Parameters,
        name: &str,
        plan: ConvolutionPlan,
        units: usize,
        last_alone: bool,
    ) -> Result<Self> {
        if units == 0 {
            return Ok(Self {
                convs: vec![Convolution::new(p, name, plan)?],
                residual: None,
            });
        }
        let [c_in, c_out] = plan.channels;
        let mut convs = Vec::with_capacity(units);
        for u in 0..units {
            let unit = ConvolutionPlan {
                channels: [if u == 0 { c_in } else { c_out }, c_out],
                stride: if u == 0 { plan.stride } else { 1 },
                adn: plan.adn.filter(|_| !(last_alone && u + 1 == units)),
                ..plan
            };
            convs.push(Convolution::new(p, &format!("{name}.conv.unit{u}"), unit)?);
        }
        let residual = if plan.stride != 1 || c_in != c_out {
            let size = if plan.stride == 1 { 1 } else { plan.kernel };
            Some(conv(
                p,
                &format!("{name}.residual"),
                plan.channels,
                &vec![size; plan.dims],
                &vec![plan.stride; plan.dims],
                plan.bias,
            )?)
        } else {
            None
        };
        Ok(Self {
            convs,
            residual: Some(residual),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.clone();
        for conv in &self.convs {
            y = conv.forward(&y)?;
        }
        match &self.residual {
            None => Ok(y),
            Some(None) => y + x,
            Some(Some(conv)) => y + conv.forward(x)?,
        }
    }
}

/// One level but the lowest.
#[derive(Debug, Clone)]
struct Level {
    down: Block,
    /// Channels of `down`.
    features: usize,
    up: Vec<Block>,
    /// Channels of `up`.
    out: usize,
}

/// MONAI's U-Net.
#[derive(Debug, Clone)]
pub struct UNet {
    levels: Vec<Level>,
    bottom: Block,
    /// Channels of `bottom`.
    bottom_features: usize,
    dims: usize,
}

impl UNet {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::UNet, p: &mut Parameters) -> Result<Self> {
        let n = plan.channels.len();
        if n < 2 || plan.strides.len() + 1 != n || !matches!(plan.spatial_dims, 2 | 3) {
            return Err(refuse(format!(
                "a U-Net of {} axes has {n} channels and {} strides; wanted 2 or 3 axes, two levels or more, and a stride between levels",
                plan.spatial_dims,
                plan.strides.len()
            )));
        }
        let base = ConvolutionPlan {
            dims: plan.spatial_dims,
            channels: [plan.in_channels, plan.in_channels],
            kernel: plan.kernel_size,
            stride: 1,
            bias: plan.bias,
            transposed: false,
            adn: Some((plan.norm, plan.act)),
        };
        let mut levels = Vec::with_capacity(n - 1);
        let mut name = "model".to_owned();
        for l in 0..n - 1 {
            let features = plan.channels[l];
            let top = l == 0;
            let above = if top {
                plan.in_channels
            } else {
                plan.channels[l - 1]
            };
            let out = if top {
                plan.out_channels
            } else {
                plan.channels[l - 1]
            };
            let below = if l + 2 == n {
                plan.channels[l + 1]
            } else {
                features
            };
            let stride = plan.strides[l];
            let down = ConvolutionPlan {
                channels: [above, features],
                stride,
                ..base
            };
            let down = Block::new(p, &format!("{name}.0"), down, plan.num_res_units, false)?;
            let residual = plan.num_res_units > 0;
            let spread = ConvolutionPlan {
                channels: [features + below, out],
                kernel: plan.up_kernel_size,
                stride,
                transposed: true,
                adn: base.adn.filter(|_| !top || residual),
                ..base
            };
            let up = if residual {
                let last = ConvolutionPlan {
                    channels: [out, out],
                    ..base
                };
                vec![
                    Block::new(p, &format!("{name}.2.0"), spread, 0, false)?,
                    Block::new(p, &format!("{name}.2.1"), last, 1, top)?,
                ]
            } else {
                vec![Block::new(p, &format!("{name}.2"), spread, 0, false)?]
            };
            levels.push(Level {
                down,
                features,
                up,
                out,
            });
            name = format!("{name}.1.submodule");
        }
        let bottom_features = plan.channels[n - 1];
        let bottom = ConvolutionPlan {
            channels: [plan.channels[n - 2], bottom_features],
            ..base
        };
        Ok(Self {
            levels,
            bottom: Block::new(p, &name, bottom, plan.num_res_units, false)?,
            bottom_features,
            dims: plan.spatial_dims,
        })
    }

    /// Logits in the layout of the input.
    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mut skips = Vec::with_capacity(self.levels.len());
        let mut x = x.clone();
        for level in &self.levels {
            x = level.down.forward(&x)?;
            skips.push(x.clone());
        }
        x = self.bottom.forward(&x)?;
        let mut channels = self.bottom_features;
        for (level, skip) in self.levels.iter().zip(&skips).rev() {
            x = layout::cat(&[(skip, level.features), (&x, channels)], self.dims)?;
            for block in &level.up {
                x = block.forward(&x)?;
            }
            channels = level.out;
        }
        Ok(x)
    }
}
