//! What MONAI's networks are built from: its norms and activations by name, its `Convolution`, and the blocks of `DynUNet` and `SwinUNETR`.
//!
//! Source: MONAI, `networks/blocks/convolutions.py`, `acti_norm.py` and `dynunet_block.py` (names and wiring).

use super::{
    activation::Activation,
    conv::{Conv, ConvTranspose},
    deferred::Deferred,
    norm::{EPS, NEGATIVE_SLOPE, Norm, NormAct},
    parameters::{Init, Parameters},
    unit::{axes, conv, refuse},
};
use crate::domain::architecture::{FeatureActivation, FeatureNorm};
use candle_core::{Result, Tensor};

/// Slope below zero that PyTorch's PReLU starts with.
const PRELU_START: f32 = 0.25;

/// A norm whose parameters stand under `name`.
pub(super) fn norm(p: &mut Parameters, name: &str, channels: usize, kind: FeatureNorm) -> Result<Norm> {
    let mut get = |key: &str, start: f32| p.get(&format!("{name}.{key}"), &[channels], Init::Constant(start));
    Ok(match kind {
        FeatureNorm::Instance { affine } => Norm::Instance {
            weight: affine.then(|| get("weight", 1.0)).transpose()?,
            bias: affine.then(|| get("bias", 0.0)).transpose()?,
            eps: EPS,
        },
        FeatureNorm::Batch => Norm::Batch {
            weight: get("weight", 1.0)?,
            bias: get("bias", 0.0)?,
            running_mean: get("running_mean", 0.0)?,
            running_var: get("running_var", 1.0)?,
            eps: EPS,
        },
        FeatureNorm::Group { num_groups } => {
            if num_groups == 0 || !channels.is_multiple_of(num_groups) {
                return Err(refuse(format!(
                    "{channels} channels do not make {num_groups} groups"
                )));
            }
            Norm::Group {
                groups: num_groups,
                weight: get("weight", 1.0)?,
                bias: get("bias", 0.0)?,
                eps: EPS,
            }
        }
    })
}

/// MONAI's `ADN` in the order norm, dropout (nothing at inference), activation.
pub(super) fn norm_act(
    p: &mut Parameters,
    name: &str,
    channels: usize,
    kind: FeatureNorm,
    act: FeatureActivation,
) -> Result<NormAct> {
    Ok(NormAct {
        norm: norm(p, &format!("{name}.N"), channels, kind)?,
        activation: match act {
            FeatureActivation::Prelu => {
                Activation::Prelu(p.get(&format!("{name}.A.weight"), &[1], Init::Constant(PRELU_START))?)
            }
            FeatureActivation::Relu => Activation::Relu,
            FeatureActivation::LeakyRelu => Activation::LeakyRelu(NEGATIVE_SLOPE),
        },
    })
}

/// A convolution in either direction.
#[derive(Debug, Clone)]
pub(super) enum Direction {
    /// Keeps the grid but for its stride.
    Down(Conv),
    /// Multiplies the grid by its stride.
    Up(ConvTranspose),
}

/// MONAI's `Convolution`: a convolution, and norm and activation unless it stands alone.
#[derive(Debug, Clone)]
pub(super) struct Convolution {
    conv: Direction,
    adn: Option<NormAct>,
}

/// How a [`Convolution`] is made; kernel and stride are the same on all axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvolutionPlan {
    pub(super) dims: usize,
    pub(super) channels: [usize; 2],
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) bias: bool,
    pub(super) transposed: bool,
    /// Norm and activation.
    pub(super) adn: Option<(FeatureNorm, FeatureActivation)>,
}

impl Convolution {
    pub(super) fn new(p: &mut Parameters, name: &str, plan: ConvolutionPlan) -> Result<Self> {
        let (kernel, stride) = (vec![plan.kernel; plan.dims], vec![plan.stride; plan.dims]);
        let inner = format!("{name}.conv");
        let conv = if plan.transposed {
            Direction::Up(spread(p, &inner, plan.channels, &kernel, &stride, plan.bias)?)
        } else {
            Direction::Down(conv(p, &inner, plan.channels, &kernel, &stride, plan.bias)?)
        };
        let adn = plan
            .adn
            .map(|(kind, act)| norm_act(p, &format!("{name}.adn"), plan.channels[1], kind, act))
            .transpose()?;
        Ok(Self { conv, adn })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match (&self.conv, &self.adn) {
            (Direction::Down(conv), Some(adn)) => adn.after(conv, x),
            (Direction::Down(conv), None) => conv.forward(x),
            (Direction::Up(conv), Some(adn)) => adn.forward(&conv.forward(x)?),
            (Direction::Up(conv), None) => conv.forward(x),
        }
    }
}

/// A transposed convolution of odd kernel that multiplies the grid by its stride.
fn spread(
    p: &mut Parameters,
    name: &str,
    [c_in, c_out]: [usize; 2],
    kernel: &[usize],
    stride: &[usize],
    bias: bool,
) -> Result<ConvTranspose> {
    if kernel.iter().any(|k| k.is_multiple_of(2)) || stride.contains(&0) {
        return Err(refuse(format!(
            "a transposed convolution has an odd kernel and a stride, found {kernel:?} and {stride:?}"
        )));
    }
    let mut dims = vec![c_in, c_out];
    dims.extend(kernel);
    let padding: Vec<usize> = kernel.iter().map(|k| (k - 1) / 2).collect();
    let rest: Vec<usize> = stride.iter().map(|s| s - 1).collect();
    Ok(ConvTranspose {
        weight: p.get(&format!("{name}.weight"), &dims, Init::Kaiming { fan_in: c_in })?,
        bias: bias
            .then(|| p.get(&format!("{name}.bias"), &[c_out], Init::Constant(0.0)))
            .transpose()?,
        stride: axes(stride, 1)?,
        padding: axes(&padding, 0)?,
        output_padding: axes(&rest, 0)?,
    })
}

const LEAKY: Activation = Activation::LeakyRelu(NEGATIVE_SLOPE);

/// How a block is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnetBlockPlan<'a> {
    pub(super) channels: [usize; 2],
    pub(super) kernel: &'a [usize],
    pub(super) stride: &'a [usize],
    pub(super) norm: FeatureNorm,
    pub(super) residual: bool,
}

/// MONAI's `UnetBasicBlock` or `UnetResBlock`.
#[derive(Debug, Clone)]
pub(super) struct UnetBlock {
    conv1: Conv,
    norm1: NormAct,
    conv2: Conv,
    norm2: NormAct,
    residual: bool,
    projection: Option<(Conv, Norm)>,
}

impl UnetBlock {
    pub(super) fn new(p: &mut Parameters, name: &str, plan: UnetBlockPlan<'_>) -> Result<Self> {
        let [_, out] = plan.channels;
        let ones = vec![1; plan.kernel.len()];
        let mut layer = |i: usize, channels, kernel: &[usize], stride: &[usize]| {
            let conv = conv(
                p,
                &format!("{name}.conv{i}.conv"),
                channels,
                kernel,
                stride,
                false,
            )?;
            Ok::<_, candle_core::Error>((conv, norm(p, &format!("{name}.norm{i}"), out, plan.norm)?))
        };
        let (conv1, norm1) = layer(1, plan.channels, plan.kernel, plan.stride)?;
        let (conv2, norm2) = layer(2, [out; 2], plan.kernel, &ones)?;
        let other = plan.channels[0] != out || plan.stride.iter().any(|s| *s != 1);
        let projection = (plan.residual && other)
            .then(|| layer(3, plan.channels, &ones, plan.stride))
            .transpose()?;
        Ok(Self {
            conv1,
            norm1: NormAct {
                norm: norm1,
                activation: LEAKY,
            },
            conv2,
            norm2: NormAct {
                norm: norm2,
                // A residual block activates after the sum.
                activation: if plan.residual {
                    Activation::Identity
                } else {
                    LEAKY
                },
            },
            residual: plan.residual,
            projection,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let skip = match (&self.projection, self.residual) {
            (Some((conv, norm)), _) => Some(norm.forward(&conv.forward(x)?)?),
            (None, true) => Some(x.clone()),
            (None, false) => None,
        };
        self.rest(&self.norm1.defer(&self.conv1, &x.clone().into())?, skip)
    }

    /// The same for two tensors of equal channels, joined: a residual one has twice the channels that it gives, and so a projection.
    pub(super) fn forward_joined(&self, first: &Tensor, second: &Tensor) -> Result<Tensor> {
        let channels = self.conv1.weight.dim(1)? / 2;
        let skip = self
            .projection
            .as_ref()
            .map(|(conv, norm)| norm.forward(&conv.forward2(first, second, channels)?))
            .transpose()?;
        let (first, second) = (first.clone().into(), second.clone().into());
        self.rest(&self.norm1.defer2(&self.conv1, &first, &second, channels)?, skip)
    }

    /// What follows the first convolution, its norm and activation.
    fn rest(&self, y: &Deferred, skip: Option<Tensor>) -> Result<Tensor> {
        let y = self.norm2.defer(&self.conv2, y)?.finish()?;
        match skip {
            Some(skip) => LEAKY.forward(&(y + skip)?),
            None => Ok(y),
        }
    }
}
