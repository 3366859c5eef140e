//! Instance normalisation followed by LeakyReLU, as one layer, with gradients.
//!
//! Source: Ulyanov et al., arXiv:1607.08022; PyTorch's `InstanceNorm2d(affine=True)` with biased variance.

use super::conv::values;
use super::kernels::BLOCK;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// nnU-Net's epsilon.
pub const EPS: f64 = 1e-5;
/// nnU-Net's slope of LeakyReLU below zero.
pub const NEGATIVE_SLOPE: f64 = 0.01;

/// Affine instance normalisation and LeakyReLU.
#[derive(Debug, Clone)]
pub struct NormRelu {
    /// Scale, `[C]`.
    pub weight: Tensor,
    /// Shift, `[C]`.
    pub bias: Tensor,
}

impl NormRelu {
    /// Normalises each channel of each image over its pixels, scales, shifts, and applies LeakyReLU.
    ///
    /// # Errors
    /// candle's, for shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() == 4 {
            let mean = x.mean_keepdim((2, 3))?;
            let centred = x.broadcast_sub(&mean)?;
            let variance = centred.sqr()?.mean_keepdim((2, 3))?;
            let y = centred
                .broadcast_div(&(variance + EPS)?.sqrt()?)?
                .broadcast_mul(&self.weight.reshape((1, (), 1, 1))?)?
                .broadcast_add(&self.bias.reshape((1, (), 1, 1))?)?;
            return y.maximum(&(&y * NEGATIVE_SLOPE)?);
        }
        x.apply_op3(&self.weight, &self.bias, Fused)
    }
}

type Lane = [f32; BLOCK];

/// Mean and 1/√(variance + eps) of one plane's sixteen channels.
fn statistics(plane: &[f32]) -> (Lane, Lane) {
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
            inverse[c] = (1.0 / (variance + EPS).sqrt()) as f32;
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
struct Fused;

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
        let (_, blocks, h, w, _) = xl.shape().dims5()?;
        let (x, weight, bias) = (values(x, xl)?, values(weight, wl)?, values(bias, bl)?);
        let plane = h * w * BLOCK;
        let mut y = vec![0.0f32; x.len()];
        y.par_chunks_mut(plane)
            .zip(x.par_chunks(plane))
            .enumerate()
            .for_each(|(i, (y, x))| {
                let (mean, inverse) = statistics(x);
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
                        y[c] = z.max(z * SLOPE);
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
        let before = y.apply_op2_no_bwd(&grad.contiguous()?, &ReluGradient)?;
        let both = x.apply_op3_no_bwd(&before, weight, &Gradient)?;
        let (n, channels) = (x.elem_count(), weight.elem_count());
        let gx = both.narrow(0, 0, n)?.reshape(x.shape())?;
        let gw = both.narrow(0, n, channels)?;
        let gb = both.narrow(0, n + channels, channels)?;
        Ok((Some(gx), Some(gw), Some(gb)))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a constant")]
const SLOPE: f32 = NEGATIVE_SLOPE as f32;

/// y, gradient of y → gradient before LeakyReLU; y has the sign of what went in.
struct ReluGradient;

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
                    *out = if *y > 0.0 { *g } else { *g * SLOPE };
                }
            });
        Ok((CpuStorage::F32(out), yl.shape().clone()))
    }
}

/// x, gradient after the norm, weight → `[gradient of x…, of weight…, of bias…]`.
struct Gradient;

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
        let (_, blocks, h, w, _) = xl.shape().dims5()?;
        let (x, grad, weight) = (values(x, xl)?, values(grad, gl)?, values(weight, wl)?);
        let plane = h * w * BLOCK;
        let mut out = vec![0.0f32; x.len() + 2 * weight.len()];
        let (gx, parameters) = out.split_at_mut(x.len());
        let sums: Vec<(Lane, Lane)> = gx
            .par_chunks_mut(plane)
            .zip(x.par_chunks(plane).zip(grad.par_chunks(plane)))
            .enumerate()
            .map(|(i, (gx, (x, g)))| plane_gradient(gx, x, g, &lane(weight, i % blocks)))
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
fn plane_gradient(gx: &mut [f32], x: &[f32], g: &[f32], weight: &Lane) -> (Lane, Lane) {
    let pixels = (x.len() / BLOCK) as f64;
    let (mean, inverse) = statistics(x);
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
        let layer = NormRelu {
            weight: weight.as_tensor().clone(),
            bias: bias.as_tensor().clone(),
        };
        let run = |blocked: bool| {
            let input = if blocked {
                layout::enter(&x).unwrap()
            } else {
                x.as_tensor().clone()
            };
            let y = layout::leave(&layer.forward(&input).unwrap(), 20).unwrap();
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
