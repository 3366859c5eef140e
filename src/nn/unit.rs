//! Convolution, norm and activation as one layer, and what the U-Nets of nnU-Net build from it.

use super::{
    activation::Activation,
    conv::{Conv, ConvTranspose},
    deferred::Deferred,
    norm::{EPS, NEGATIVE_SLOPE, Norm, NormAct},
    parameters::{Init, Parameters},
};
use candle_core::{Error, Result, Tensor};

/// The axes of a plan, two or three, as depth, rows, columns.
///
/// `fill` is what a 2-D network has for its depth.
pub(super) fn axes(given: &[usize], fill: usize) -> Result<[usize; 3]> {
    match given {
        &[rows, columns] => Ok([fill, rows, columns]),
        &[depth, rows, columns] => Ok([depth, rows, columns]),
        other => Err(refuse(format!("a network has 2 or 3 axes, found {other:?}"))),
    }
}

/// An error in words.
pub(super) fn refuse(what: String) -> Error {
    Error::Msg(what).bt()
}

/// How nnU-Net's `ConvDropoutNormReLU` is made; dropout does nothing at inference and its plans have none.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitPlan<'a> {
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    /// Two or three axes.
    pub(super) kernel: &'a [usize],
    pub(super) stride: &'a [usize],
    pub(super) bias: bool,
    /// LeakyReLU, or none.
    pub(super) activate: bool,
}

/// nnU-Net's `ConvDropoutNormReLU`: convolution, affine instance norm, LeakyReLU.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    conv: Conv,
    norm: NormAct,
}

impl Unit {
    pub(super) fn new(p: &mut Parameters, name: &str, plan: UnitPlan<'_>) -> Result<Self> {
        let UnitPlan {
            c_in,
            c_out,
            kernel,
            stride,
            bias,
            activate,
        } = plan;
        Ok(Self {
            conv: conv(p, &format!("{name}.conv"), [c_in, c_out], kernel, stride, bias)?,
            norm: NormAct {
                norm: Norm::Instance {
                    weight: Some(p.get(&format!("{name}.norm.weight"), &[c_out], Init::Constant(1.0))?),
                    bias: Some(p.get(&format!("{name}.norm.bias"), &[c_out], Init::Constant(0.0))?),
                    eps: EPS,
                },
                activation: if activate {
                    Activation::LeakyRelu(NEGATIVE_SLOPE)
                } else {
                    Activation::Identity
                },
            },
        })
    }

    pub(super) fn forward(&self, x: &Deferred) -> Result<Deferred> {
        self.norm.defer(&self.conv, x)
    }

    /// The same for two tensors of equal channels, joined.
    pub(super) fn forward_joined(&self, first: &Deferred, second: &Deferred) -> Result<Deferred> {
        let channels = self.conv.weight.dim(1)? / 2;
        self.norm.defer2(&self.conv, first, second, channels)
    }
}

/// A convolution that keeps the grid but for its stride.
pub(super) fn conv(
    p: &mut Parameters,
    name: &str,
    [c_in, c_out]: [usize; 2],
    kernel: &[usize],
    stride: &[usize],
    bias: bool,
) -> Result<Conv> {
    if let Some(even) = kernel.iter().find(|k| k.is_multiple_of(2)) {
        return Err(refuse(format!(
            "kernel sizes are odd, found {even} in {kernel:?}"
        )));
    }
    if kernel.len() != stride.len() || stride.contains(&0) {
        return Err(refuse(format!(
            "stride {stride:?} does not fit kernel {kernel:?}"
        )));
    }
    let mut dims = vec![c_out, c_in];
    dims.extend(kernel);
    let fan_in = c_in * kernel.iter().product::<usize>();
    let padding: Vec<usize> = kernel.iter().map(|k| k / 2).collect();
    Ok(Conv {
        weight: p.get(&format!("{name}.weight"), &dims, Init::Kaiming { fan_in })?,
        bias: bias
            .then(|| p.get(&format!("{name}.bias"), &[c_out], Init::Constant(0.0)))
            .transpose()?,
        stride: axes(stride, 1)?,
        padding: axes(&padding, 0)?,
        dilation: [1; 3],
        groups: 1,
    })
}

/// A transposed convolution whose kernel is its stride.
pub(super) fn transpose(
    p: &mut Parameters,
    name: &str,
    [c_in, c_out]: [usize; 2],
    stride: &[usize],
    bias: bool,
) -> Result<ConvTranspose> {
    let mut dims = vec![c_in, c_out];
    dims.extend(stride);
    Ok(ConvTranspose {
        weight: p.get(&format!("{name}.weight"), &dims, Init::Kaiming { fan_in: c_in })?,
        bias: bias
            .then(|| p.get(&format!("{name}.bias"), &[c_out], Init::Constant(0.0)))
            .transpose()?,
        stride: axes(stride, 1)?,
        padding: [0; 3],
        output_padding: [0; 3],
    })
}

/// Refuses an input whose rank, channels or size the network cannot take.
///
/// # Shape
/// `[N, C, (D), H, W]`
pub(super) fn check_input(x: &Tensor, channels: usize, divisors: &[usize]) -> Result<()> {
    let dims = x.dims();
    let fits = dims.len() == divisors.len() + 2
        && dims[1] == channels
        && dims[2..]
            .iter()
            .zip(divisors)
            .all(|(size, divisor)| *size > 0 && size % divisor == 0);
    if fits {
        return Ok(());
    }
    Err(refuse(format!(
        "found an input of shape {dims:?}, wanted [N, {channels}, …] with {} axes that are multiples of {divisors:?}",
        divisors.len()
    )))
}
