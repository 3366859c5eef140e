//! Normalisation layers, and a normalisation followed by an activation as one layer, with gradients.
//!
//! Source: Ioffe and Szegedy, arXiv:1502.03167 (batch); Ulyanov et al., arXiv:1607.08022 (instance); Wu and He, arXiv:1803.08494 (group); Ba et al., arXiv:1607.06450 (layer); PyTorch's conventions: biased variance, epsilon under the root.

use super::{
    activation::Activation,
    blocked::{self, Held, tracks, values},
    conv::Conv,
    deferred::Deferred,
    kernels::{
        self, BLOCK,
        norm::{self as kernel, Extent, Lines, Moments, Totals},
    },
    layout,
};
use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Error, Layout, Result, Shape, Tensor};
use std::{borrow::Cow, sync::OnceLock};

#[cfg(feature = "cuda")]
use super::cuda::{self, norm::Own};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;

/// nnU-Net's epsilon, and PyTorch's default.
pub const EPS: f64 = 1e-5;
/// nnU-Net's slope of LeakyReLU below zero.
pub const NEGATIVE_SLOPE: f64 = 0.01;

/// A normalisation with PyTorch's parameters, each of one value a channel.
#[derive(Debug, Clone)]
pub enum Norm {
    /// Each channel of each image over its voxels.
    Instance {
        /// Scale; 1 if there is none.
        weight: Option<Tensor>,
        /// Shift; 0 if there is none.
        bias: Option<Tensor>,
        /// Added to the variance.
        eps: f64,
    },
    /// With the statistics that training left behind.
    Batch {
        /// Scale.
        weight: Tensor,
        /// Shift.
        bias: Tensor,
        /// Mean of each channel.
        running_mean: Tensor,
        /// Variance of each channel.
        running_var: Tensor,
        /// Added to the variance.
        eps: f64,
    },
    /// Each group of neighbouring channels of each image over its voxels.
    Group {
        /// Number of groups.
        groups: usize,
        /// Scale.
        weight: Tensor,
        /// Shift.
        bias: Tensor,
        /// Added to the variance.
        eps: f64,
    },
    /// Each token over its channels, which are the last axis.
    Layer {
        /// Scale.
        weight: Tensor,
        /// Shift.
        bias: Tensor,
        /// Added to the variance.
        eps: f64,
    },
    /// Nothing.
    None,
}

impl Norm {
    /// Normalises a plain or a blocked tensor (`Layer`: tokens of any rank).
    ///
    /// # Errors
    /// candle's, for shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.fused(x)? {
            Some(fused) => fused.forward(x, 1.0),
            None => self.plain(x),
        }
    }

    /// This layer in the form of the blocked kernels, or of those for a GPU, which have no gradients, if they know it.
    fn fused(&self, x: &Tensor) -> Result<Option<Fused>> {
        let blocked = layout::is_blocked(x);
        if !blocked && !x.device().is_cuda() {
            return Ok(None);
        }
        let fused = self.parameters(x)?;
        let Some(fused) = fused.filter(|fused| blocked || !tracks(&[x, &fused.weight, &fused.bias])) else {
            return Ok(None);
        };
        fused.check(x)?;
        Ok(Some(fused))
    }

    fn parameters(&self, x: &Tensor) -> Result<Option<Fused>> {
        Ok(match self {
            Self::Instance { weight, bias, eps } => {
                let lanes = if layout::is_blocked(x) { BLOCK } else { 1 };
                let channels = weight
                    .as_ref()
                    .or(bias.as_ref())
                    .map_or(x.dim(1)? * lanes, Tensor::elem_count);
                let given = |parameter: &Option<Tensor>, value: f32| match parameter {
                    Some(parameter) => Ok(parameter.clone()),
                    None => Tensor::full(value, channels, x.device()),
                };
                Some(Fused {
                    weight: given(weight, 1.0)?,
                    bias: given(bias, 0.0)?,
                    statistics: Statistics::Own {
                        groups: channels,
                        eps: *eps,
                    },
                })
            }
            Self::Group {
                groups,
                weight,
                bias,
                eps,
            } => Some(Fused {
                weight: weight.clone(),
                bias: bias.clone(),
                statistics: Statistics::Own {
                    groups: *groups,
                    eps: *eps,
                },
            }),
            Self::Batch {
                weight,
                bias,
                running_mean,
                running_var,
                eps,
            } if !tracks(&[x, weight, bias]) => {
                let factor = (weight / (running_var + *eps)?.sqrt()?)?;
                Some(Fused {
                    bias: (bias - (running_mean * &factor)?)?,
                    weight: factor,
                    statistics: Statistics::Given,
                })
            }
            Self::Batch { .. } | Self::Layer { .. } | Self::None => None,
        })
    }

    /// This layer on candle's operators.
    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Instance { weight, bias, eps } => {
                let y = normalise(&x.flatten_from(2)?, *eps)?.reshape(x.shape())?;
                scale_and_shift(&y, weight.as_ref(), bias.as_ref())
            }
            Self::Batch {
                weight,
                bias,
                running_mean,
                running_var,
                eps,
            } => {
                let factor = (weight / (running_var + *eps)?.sqrt()?)?;
                let offset = (bias - (running_mean * &factor)?)?;
                scale_and_shift(x, Some(&factor), Some(&offset))
            }
            Self::Group {
                groups,
                weight,
                bias,
                eps,
            } => {
                let (n, c) = (x.dim(0)?, x.dim(1)?);
                let spatial: usize = x.dims()[2..].iter().product();
                let grouped = x.reshape((n, *groups, c / groups * spatial))?;
                let y = normalise(&grouped, *eps)?.reshape(x.shape())?;
                scale_and_shift(&y, Some(weight), Some(bias))
            }
            Self::Layer { weight, bias, eps } => {
                normalise(x, *eps)?.broadcast_mul(weight)?.broadcast_add(bias)
            }
        }
    }
}

/// Zero mean and unit variance over the last axis.
fn normalise(x: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + eps)?.sqrt()?)
}

fn scale_and_shift(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut y = x.clone();
    if let Some(weight) = weight {
        y = y.broadcast_mul(&layout::per_channel(weight, x)?)?;
    }
    if let Some(bias) = bias {
        y = y.broadcast_add(&layout::per_channel(bias, x)?)?;
    }
    Ok(y)
}

/// A normalisation followed by an activation, one layer where the kernels know both.
#[derive(Debug, Clone)]
pub struct NormAct {
    /// What comes first.
    pub norm: Norm,
    /// What follows.
    pub activation: Activation,
}

impl NormAct {
    /// Normalises and activates a plain or a blocked tensor.
    ///
    /// # Errors
    /// candle's, for shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match (self.fused(x)?, self.slope()) {
            (Some(fused), Some(slope)) => fused.forward(x, slope),
            (Some(fused), None) => self.activation.forward(&fused.forward(x, 1.0)?),
            (None, _) => self.activation.forward(&self.norm.plain(x)?),
        }
    }

    /// Convolves, normalises and activates: one layer, and without gradients one buffer.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn after(&self, conv: &Conv, x: &Tensor) -> Result<Tensor> {
        self.defer(conv, &x.clone().into())?.finish()
    }

    /// The same on two tensors joined along their channels, of which the first has `split`.
    ///
    /// # Errors
    /// As [`Conv::forward2`].
    pub fn after2(&self, conv: &Conv, a: &Tensor, b: &Tensor, split: usize) -> Result<Tensor> {
        self.defer2(conv, &a.clone().into(), &b.clone().into(), split)?
            .finish()
    }

    /// As [`Self::after`], with norm and activation left to who reads the result where the kernels know both.
    pub(super) fn defer(&self, conv: &Conv, x: &Deferred) -> Result<Deferred> {
        if conv.reads(&[x]) {
            return self.read(conv, &[x]);
        }
        let x = x.finished()?;
        Ok(self.forward(&self.feeding(conv, &x).forward(&x)?)?.into())
    }

    /// As [`Self::after2`], likewise.
    pub(super) fn defer2(&self, conv: &Conv, a: &Deferred, b: &Deferred, split: usize) -> Result<Deferred> {
        if split.is_multiple_of(BLOCK) && conv.reads(&[a, b]) {
            return self.read(conv, &[a, b]);
        }
        let (a, b) = (a.finished()?, b.finished()?);
        Ok(self
            .forward(&self.feeding(conv, &a).forward2(&a, &b, split)?)?
            .into())
    }

    /// On parts that the blocked kernels read.
    fn read(&self, conv: &Conv, parts: &[&Deferred]) -> Result<Deferred> {
        conv.check(parts[0].raw())?;
        let own = matches!(self.norm, Norm::Instance { .. } | Norm::Group { .. });
        let (y, totals) = blocked::convolve_deferred(parts, conv, own)?;
        let (Some(fused), Some(slope)) = (self.fused(&y)?, self.slope()) else {
            return Ok(self.forward(&y)?.into());
        };
        if tracks(&[&fused.weight, &fused.bias]) {
            return Ok(fused.forward(&y, slope)?.into());
        }
        let lines = fused.lines(totals.as_ref(), y.dims(), slope)?;
        Ok(Deferred::new(y, lines))
    }

    /// The convolution without the bias that an instance norm takes off again: on a GPU, where adding it is a pass over the output, and without gradients.
    fn feeding<'a>(&self, conv: &'a Conv, x: &Tensor) -> Cow<'a, Conv> {
        let lost = matches!(self.norm, Norm::Instance { .. }) && x.device().is_cuda();
        match &conv.bias {
            Some(bias) if lost && !tracks(&[x, &conv.weight, bias]) => Cow::Owned(Conv {
                bias: None,
                ..conv.clone()
            }),
            _ => Cow::Borrowed(conv),
        }
    }

    /// The slope of the activation below zero, if it is of that kind.
    #[expect(clippy::cast_possible_truncation, reason = "the network's precision")]
    fn slope(&self) -> Option<f32> {
        match self.activation {
            Activation::Identity => Some(1.0),
            Activation::Relu => Some(0.0),
            Activation::LeakyRelu(slope) if (0.0..=1.0).contains(&slope) => Some(slope as f32),
            _ => None,
        }
    }

    fn fused(&self, x: &Tensor) -> Result<Option<Fused>> {
        self.norm.fused(x)
    }
}

/// Adds one value a channel, on a GPU and without gradients.
#[cfg(feature = "cuda")]
pub(super) fn shift(y: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let fused = Fused {
        weight: Tensor::ones(bias.shape(), DType::F32, bias.device())?,
        bias: bias.clone(),
        statistics: Statistics::Given,
    };
    fused.check(y)?;
    fused.forward(y, 1.0)
}

/// A normalisation that the fused kernels know.
struct Fused {
    weight: Tensor,
    bias: Tensor,
    statistics: Statistics,
}

/// Where mean and variance come from.
#[derive(Clone)]
enum Statistics {
    /// The tensor itself, by groups of channels.
    Own { groups: usize, eps: f64 },
    /// There are none: weight and bias say it all.
    Given,
}

impl Statistics {
    fn extent(&self, dims: &[usize], channels: usize) -> Extent {
        let groups = match self {
            Self::Own { groups, .. } => *groups,
            Self::Given => channels,
        };
        Extent {
            blocks: dims[1],
            channels,
            voxels: dims[2..5].iter().product(),
            groups,
        }
    }

    fn moments(&self, x: &[f32], extent: Extent) -> Moments {
        match self {
            Self::Own { eps, .. } => {
                kernel::moments(&kernel::totals(x, extent, kernels::isa()), extent, *eps)
            }
            Self::Given => given(x.len() / (extent.voxels * BLOCK)),
        }
    }
}

/// Moments that change nothing.
fn given(planes: usize) -> Moments {
    vec![[[0.0; BLOCK], [1.0; BLOCK]]; planes]
}

impl Fused {
    /// What is done to each voxel of a blocked tensor of shape `dims`, whose sums are `totals` where they matter.
    fn lines(&self, totals: Option<&Totals>, dims: &[usize], slope: f32) -> Result<Lines> {
        let (weight, bias) = (self.weight.contiguous()?, self.bias.contiguous()?);
        let (weight, bias) = (Held::new(&weight), Held::new(&bias));
        let (weight, bias) = (weight.values()?, bias.values()?);
        let extent = self.statistics.extent(dims, weight.len());
        let moments = match (&self.statistics, totals) {
            (Statistics::Own { eps, .. }, Some(totals)) => kernel::moments(totals, extent, *eps),
            _ => given(dims[0] * dims[1]),
        };
        Ok(Lines::new(&moments, weight, bias, slope, extent))
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let channels = self.weight.elem_count();
        let groups = match self.statistics {
            Statistics::Own { groups, .. } => groups,
            Statistics::Given => channels,
        };
        let wanted = if layout::is_blocked(x) {
            kernels::blocks(channels)
        } else {
            channels
        };
        let fits = wanted == x.dim(1)? && self.bias.elem_count() == channels;
        if fits && groups > 0 && channels.is_multiple_of(groups) {
            return Ok(());
        }
        Err(Error::Msg(format!(
            "a norm of {channels} channels in {groups} groups does not fit the shape {:?}",
            x.dims()
        ))
        .bt())
    }

    fn forward(&self, x: &Tensor, slope: f32) -> Result<Tensor> {
        let op = FusedOp {
            statistics: self.statistics.clone(),
            slope,
            moments: OnceLock::new(),
        };
        let parameter = |values: &Tensor| values.to_dtype(DType::F32)?.contiguous();
        x.contiguous()?
            .apply_op3(&parameter(&self.weight)?, &parameter(&self.bias)?, op)
    }
}

/// x, weight, bias → y.
struct FusedOp {
    statistics: Statistics,
    /// Of LeakyReLU: 1 for none, 0 for ReLU.
    slope: f32,
    /// Kept for the gradient.
    moments: OnceLock<Moments>,
}

impl CustomOp3 for FusedOp {
    fn name(&self) -> &'static str {
        "blocked norm and activation"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (values(x, xl)?, values(weight, wl)?, values(bias, bl)?);
        let extent = self.statistics.extent(xl.dims(), weight.len());
        let moments = self.moments.get_or_init(|| self.statistics.moments(x, extent));
        let lines = Lines::new(moments, weight, bias, self.slope, extent);
        let mut y = vec![0.0f32; x.len()];
        lines.apply_to(x, &mut y, extent.voxels, kernels::isa());
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        weight: &CudaStorage,
        wl: &Layout,
        bias: &CudaStorage,
        bl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let own = match self.statistics {
            Statistics::Own { groups, eps } => Some(Own { groups, eps }),
            Statistics::Given => None,
        };
        cuda::norm::forward((x, xl), (weight, wl), (bias, bl), own, self.slope)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        if matches!(self.statistics, Statistics::Given) {
            return Err(Error::Msg("a layer with given statistics is for inference".into()).bt());
        }
        let grad = grad.contiguous()?;
        let (hx, hw, hb, hg) = (Held::new(x), Held::new(weight), Held::new(bias), Held::new(&grad));
        let (xv, wv) = (hx.values()?, hw.values()?);
        let extent = self.statistics.extent(x.dims(), wv.len());
        let moments = self.moments.get_or_init(|| self.statistics.moments(xv, extent));
        let lines = Lines::new(moments, wv, hb.values()?, self.slope, extent);
        let mut gx = vec![0.0f32; xv.len()];
        let forward = kernel::Forward {
            x: xv,
            weight: wv,
            moments,
            lines: &lines,
            extent,
        };
        let (gw, gb) = kernel::gradient(&forward, hg.values()?, &mut gx, kernels::isa());
        Ok((
            Some(Tensor::from_vec(gx, x.shape(), &Device::Cpu)?),
            Some(Tensor::from_vec(gw, weight.shape(), &Device::Cpu)?),
            Some(Tensor::from_vec(gb, bias.shape(), &Device::Cpu)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn fused_layers_and_their_gradients_equal_candles_operators() {
        for (groups, slope) in [(None, NEGATIVE_SLOPE), (Some(4), 0.0), (Some(1), 1.0)] {
            compare(groups, slope);
        }
    }

    #[test]
    fn batch_norm_equals_its_formula_in_both_layouts_and_in_place() {
        let device = &Device::Cpu;
        let x = Tensor::randn(0.5f32, 2.0, (1, 20, 3, 4, 5), device).unwrap();
        let values = |seed: f32| Tensor::arange(seed, seed + 20.0, device).unwrap();
        let layer = NormAct {
            norm: Norm::Batch {
                weight: values(1.0),
                bias: values(-3.0),
                running_mean: values(-10.0),
                running_var: values(2.0),
                eps: EPS,
            },
            activation: Activation::Relu,
        };
        let unit = Conv {
            weight: Tensor::eye(20, candle_core::DType::F32, device)
                .unwrap()
                .reshape((20, 20, 1, 1, 1))
                .unwrap(),
            bias: None,
            stride: [1; 3],
            padding: [0; 3],
            dilation: [1; 3],
            groups: 1,
        };
        let plain = layer.forward(&x).unwrap();
        let blocked = layer.after(&unit, &layout::enter(&x).unwrap()).unwrap();
        let difference = (layout::leave(&blocked, 20, 3).unwrap() - plain).unwrap();
        assert!(
            difference
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
                < 1e-3
        );
    }

    fn compare(groups: Option<usize>, slope: f64) {
        let device = &Device::Cpu;
        let x = Var::randn(0.5f32, 2.0, (2, 20, 9, 11), device).unwrap();
        let weight = Var::randn(1.0f32, 0.3, 20, device).unwrap();
        let bias = Var::randn(0.0f32, 0.5, 20, device).unwrap();
        let scale = Tensor::randn(0.0f32, 1.0, (2, 20, 9, 11), device).unwrap();
        let layer = NormAct {
            norm: match groups {
                None => Norm::Instance {
                    weight: Some(weight.as_tensor().clone()),
                    bias: Some(bias.as_tensor().clone()),
                    eps: EPS,
                },
                Some(groups) => Norm::Group {
                    groups,
                    weight: weight.as_tensor().clone(),
                    bias: bias.as_tensor().clone(),
                    eps: EPS,
                },
            },
            activation: Activation::LeakyRelu(slope),
        };
        let run = |blocked: bool| {
            let input = if blocked {
                layout::enter(&x).unwrap()
            } else {
                x.as_tensor().clone()
            };
            let y = layout::leave(&layer.forward(&input).unwrap(), 20, 2).unwrap();
            let grads = (&y * &scale).unwrap().sum_all().unwrap().backward().unwrap();
            let grad = |v: &Var| grads.get(v).unwrap().clone();
            [y, grad(&x), grad(&weight), grad(&bias)]
        };
        for (ours, candles) in run(true).iter().zip(&run(false)) {
            let difference = (ours - candles)
                .unwrap()
                .abs()
                .unwrap()
                .flatten_all()
                .unwrap()
                .max(0)
                .unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-3);
        }
    }
}
