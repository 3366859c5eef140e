//! Normalisation layers, and a normalisation followed by an activation as one layer, with gradients.
//!
//! Source: Ioffe and Szegedy, arXiv:1502.03167 (batch); Ulyanov et al., arXiv:1607.08022 (instance); Wu and He, arXiv:1803.08494 (group); Ba et al., arXiv:1607.06450 (layer); PyTorch's conventions: biased variance, epsilon under the root.

use super::{activation::Activation, blocked::values, kernels::BLOCK, layout};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

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
        match self {
            Self::None => Ok(x.clone()),
            Self::Instance { weight, bias, eps } => {
                if layout::is_blocked(x) {
                    return fused(x, weight.as_ref(), bias.as_ref(), *eps, 1.0);
                }
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
                if layout::is_blocked(x) {
                    let plain = self.forward(&layout::leave(x, weight.elem_count(), 3)?)?;
                    return layout::enter(&plain);
                }
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

/// A normalisation followed by an activation, one pass where the kernels know both.
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
        if let (Norm::Instance { weight, bias, eps }, true) = (&self.norm, layout::is_blocked(x)) {
            let slope = match self.activation {
                Activation::Identity => Some(1.0),
                Activation::Relu => Some(0.0),
                Activation::LeakyRelu(slope) if (0.0..=1.0).contains(&slope) => Some(slope),
                _ => None,
            };
            if let Some(slope) = slope {
                return fused(x, weight.as_ref(), bias.as_ref(), *eps, slope);
            }
        }
        self.activation.forward(&self.norm.forward(x)?)
    }
}

/// Instance normalisation and LeakyReLU of a blocked tensor.
fn fused(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64, slope: f64) -> Result<Tensor> {
    let channels = weight.or(bias).map_or(x.dim(1)? * BLOCK, Tensor::elem_count);
    let weight = match weight {
        Some(weight) => weight.clone(),
        None => Tensor::ones(channels, x.dtype(), x.device())?,
    };
    let bias = match bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(channels, x.dtype(), x.device())?,
    };
    #[expect(clippy::cast_possible_truncation, reason = "the network's precision")]
    let slope = slope as f32;
    x.apply_op3(&weight, &bias, Fused { eps, slope })
}

type Lane = [f32; BLOCK];

/// Mean and 1/√(variance + eps) of one plane's sixteen channels.
fn statistics(plane: &[f32], eps: f64) -> (Lane, Lane) {
    let pixels = (plane.len() / BLOCK) as f64;
    // The first pixel as a shift keeps the sums small, so that f32 rows are exact enough.
    let mut shift = [0.0f32; BLOCK];
    shift.copy_from_slice(&plane[..BLOCK]);
    let (mut sum, mut square) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
    for row in plane.chunks(BLOCK * 256) {
        let (mut s, mut q) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        for pixel in row.chunks_exact(BLOCK) {
            for c in 0..BLOCK {
                let d = pixel[c] - shift[c];
                s[c] += d;
                q[c] += d * d;
            }
        }
        for c in 0..BLOCK {
            sum[c] += f64::from(s[c]);
            square[c] += f64::from(q[c]);
        }
    }
    let (mut mean, mut inverse) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
    for c in 0..BLOCK {
        let m = sum[c] / pixels;
        let variance = (square[c] / pixels - m * m).max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "statistics are kept in the network's precision"
        )]
        {
            mean[c] = (m + f64::from(shift[c])) as f32;
            inverse[c] = (1.0 / (variance + eps).sqrt()) as f32;
        }
    }
    (mean, inverse)
}

/// The parameters of one block of channels; lanes beyond the last channel are zero.
fn lane(parameters: &[f32], block: usize) -> Lane {
    let mut lane = [0.0f32; BLOCK];
    let part = &parameters[block * BLOCK..parameters.len().min((block + 1) * BLOCK)];
    lane[..part.len()].copy_from_slice(part);
    lane
}

/// x, weight, bias → y.
struct Fused {
    eps: f64,
    /// Of LeakyReLU: 1 for none, 0 for ReLU.
    slope: f32,
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "blocked instance norm and LeakyReLU"
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
        let (blocks, voxels) = (xl.dims()[1], xl.dims()[2..5].iter().product::<usize>());
        let (x, weight, bias) = (values(x, xl)?, values(weight, wl)?, values(bias, bl)?);
        let plane = voxels * BLOCK;
        let mut y = vec![0.0f32; x.len()];
        y.par_chunks_mut(plane)
            .zip(x.par_chunks(plane))
            .enumerate()
            .for_each(|(i, (y, x))| {
                let (mean, inverse) = statistics(x, self.eps);
                let (weight, bias) = (lane(weight, i % blocks), lane(bias, i % blocks));
                let mut factor = [0.0f32; BLOCK];
                let mut offset = [0.0f32; BLOCK];
                for c in 0..BLOCK {
                    factor[c] = weight[c] * inverse[c];
                    offset[c] = bias[c] - mean[c] * factor[c];
                }
                for (y, x) in y.chunks_exact_mut(BLOCK).zip(x.chunks_exact(BLOCK)) {
                    for c in 0..BLOCK {
                        let z = x[c] * factor[c] + offset[c];
                        y[c] = z.max(z * self.slope);
                    }
                }
            });
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let before = y.apply_op2_no_bwd(&grad.contiguous()?, &ReluGradient { slope: self.slope })?;
        let both = x.apply_op3_no_bwd(&before, weight, &Gradient { eps: self.eps })?;
        let (n, channels) = (x.elem_count(), weight.elem_count());
        let gx = both.narrow(0, 0, n)?.reshape(x.shape())?;
        let gw = both.narrow(0, n, channels)?;
        let gb = both.narrow(0, n + channels, channels)?;
        Ok((Some(gx), Some(gw), Some(gb)))
    }
}

/// y, gradient of y → gradient before LeakyReLU; y has the sign of what went in.
struct ReluGradient {
    slope: f32,
}

impl CustomOp2 for ReluGradient {
    fn name(&self) -> &'static str {
        "LeakyReLU, gradient"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        yl: &Layout,
        grad: &CpuStorage,
        gl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (y, grad) = (values(y, yl)?, values(grad, gl)?);
        let mut out = vec![0.0f32; y.len()];
        out.par_chunks_mut(1 << 14)
            .zip(y.par_chunks(1 << 14).zip(grad.par_chunks(1 << 14)))
            .for_each(|(out, (y, g))| {
                for ((out, y), g) in out.iter_mut().zip(y).zip(g) {
                    *out = if *y > 0.0 { *g } else { *g * self.slope };
                }
            });
        Ok((CpuStorage::F32(out), yl.shape().clone()))
    }
}

/// x, gradient after the norm, weight → `[gradient of x…, of weight…, of bias…]`.
struct Gradient {
    eps: f64,
}

impl CustomOp3 for Gradient {
    fn name(&self) -> &'static str {
        "blocked instance norm, gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        grad: &CpuStorage,
        gl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (blocks, voxels) = (xl.dims()[1], xl.dims()[2..5].iter().product::<usize>());
        let (x, grad, weight) = (values(x, xl)?, values(grad, gl)?, values(weight, wl)?);
        let plane = voxels * BLOCK;
        let mut out = vec![0.0f32; x.len() + 2 * weight.len()];
        let (gx, parameters) = out.split_at_mut(x.len());
        let sums: Vec<(Lane, Lane)> = gx
            .par_chunks_mut(plane)
            .zip(x.par_chunks(plane).zip(grad.par_chunks(plane)))
            .enumerate()
            .map(|(i, (gx, (x, g)))| plane_gradient(gx, x, g, &lane(weight, i % blocks), self.eps))
            .collect();
        let channels = weight.len();
        for (i, (gw, gb)) in sums.iter().enumerate() {
            for c in 0..BLOCK {
                let channel = i % blocks * BLOCK + c;
                if channel < channels {
                    parameters[channel] += gw[c];
                    parameters[channels + channel] += gb[c];
                }
            }
        }
        let len = out.len();
        Ok((CpuStorage::F32(out), Shape::from(vec![len])))
    }
}

/// Fills the gradient of one plane; returns those of the scale and the shift.
fn plane_gradient(gx: &mut [f32], x: &[f32], g: &[f32], weight: &Lane, eps: f64) -> (Lane, Lane) {
    let pixels = (x.len() / BLOCK) as f64;
    let (mean, inverse) = statistics(x, eps);
    let (mut sum, mut product) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
    for (x, g) in x.chunks(BLOCK * 256).zip(g.chunks(BLOCK * 256)) {
        let (mut s, mut p) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        for (x, g) in x.chunks_exact(BLOCK).zip(g.chunks_exact(BLOCK)) {
            for c in 0..BLOCK {
                s[c] += g[c];
                p[c] += g[c] * (x[c] - mean[c]) * inverse[c];
            }
        }
        for c in 0..BLOCK {
            sum[c] += f64::from(s[c]);
            product[c] += f64::from(p[c]);
        }
    }
    let (mut gw, mut gb, mut s, mut p) = ([0.0f32; BLOCK], [0.0f32; BLOCK], [0.0f32; BLOCK], [0.0f32; BLOCK]);
    for c in 0..BLOCK {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "gradients are kept in the network's precision"
        )]
        {
            gw[c] = product[c] as f32;
            gb[c] = sum[c] as f32;
            s[c] = (sum[c] / pixels) as f32;
            p[c] = (product[c] / pixels) as f32;
        }
    }
    for ((gx, x), g) in gx
        .chunks_exact_mut(BLOCK)
        .zip(x.chunks_exact(BLOCK))
        .zip(g.chunks_exact(BLOCK))
    {
        for c in 0..BLOCK {
            let normal = (x[c] - mean[c]) * inverse[c];
            gx[c] = weight[c] * inverse[c] * (g[c] - s[c] - normal * p[c]);
        }
    }
    (gw, gb)
}

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn the_fused_layer_and_its_gradients_equal_candles_operators() {
        let device = &Device::Cpu;
        let x = Var::randn(0.5f32, 2.0, (2, 20, 9, 11), device).unwrap();
        let weight = Var::randn(1.0f32, 0.3, 20, device).unwrap();
        let bias = Var::randn(0.0f32, 0.5, 20, device).unwrap();
        let scale = Tensor::randn(0.0f32, 1.0, (2, 20, 9, 11), device).unwrap();
        let layer = NormAct {
            norm: Norm::Instance {
                weight: Some(weight.as_tensor().clone()),
                bias: Some(bias.as_tensor().clone()),
                eps: EPS,
            },
            activation: Activation::LeakyRelu(NEGATIVE_SLOPE),
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
