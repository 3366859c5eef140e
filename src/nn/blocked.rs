//! The blocked convolution as a candle operator, with its gradients.

use super::kernels::{self, BLOCK, ConvShape, Direction, blocks};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor};

/// The values of a contiguous f32 CPU tensor.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => Err(Error::Msg("a blocked layer wants contiguous tensors".into()).bt()),
    }
}

/// The shape of a convolution from the shapes of its tensors; `spatial` is the input's height and width.
fn shape_of(
    x: &[usize],
    weight: &[usize],
    spatial: [usize; 2],
    stride: usize,
    padding: usize,
) -> Result<ConvShape> {
    let &[c_out, c_in, kh, kw] = weight else {
        return Err(Error::Msg(format!("a weight has rank 4, this one has shape {weight:?}")).bt());
    };
    if x.len() != 5 || x[1] != blocks(c_in) || x[4] != BLOCK {
        return Err(Error::Msg(format!("{c_in} channels want a blocked input, found shape {x:?}")).bt());
    }
    let [height, width] = spatial;
    if height + 2 * padding < kh || width + 2 * padding < kw {
        return Err(Error::Msg(format!(
            "{height}×{width} pixels are smaller than the kernel {kh}×{kw}"
        ))
        .bt());
    }
    Ok(ConvShape {
        batch: x[0],
        c_in,
        c_out,
        height,
        width,
        kernel: [kh, kw],
        stride,
        padding,
    })
}

/// x, weight, bias → y.
pub(super) struct Blocked {
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl CustomOp3 for Blocked {
    fn name(&self) -> &'static str {
        "blocked conv2d"
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
        let d = xl.dims();
        let shape = shape_of(d, wl.dims(), [d[2], d[3]], self.stride, self.padding)?;
        let (x, weight, bias) = (values(x, xl)?, values(weight, wl)?, values(bias, bl)?);
        let out = kernels::convolve(x, weight, bias, &shape, Direction::Forward, kernels::isa());
        let dims = [
            d[0],
            blocks(shape.c_out),
            shape.out_height(),
            shape.out_width(),
            BLOCK,
        ];
        Ok((CpuStorage::F32(out), Shape::from(dims.to_vec())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let d = x.dims();
        let gx = if x.track_op() {
            Some(grad.apply_op2_no_bwd(
                weight,
                &InputGradient {
                    spatial: [d[2], d[3]],
                    stride: self.stride,
                    padding: self.padding,
                },
            )?)
        } else {
            None
        };
        let (_, _, kh, kw) = weight.dims4()?;
        let op = WeightGradient {
            channels: [weight.dim(1)?, weight.dim(0)?],
            kernel: [kh, kw],
            stride: self.stride,
            padding: self.padding,
        };
        let gw = x.apply_op2_no_bwd(&grad, &op)?;
        let gb = grad.apply_op1_no_bwd(&BiasGradient {
            channels: bias.elem_count(),
        })?;
        Ok((gx, Some(gw), Some(gb)))
    }
}

/// Gradient of y, weight → gradient of x: the convolution with the flipped, transposed weight.
struct InputGradient {
    spatial: [usize; 2],
    stride: usize,
    padding: usize,
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "blocked conv2d, gradient of the input"
    }

    fn cpu_fwd(
        &self,
        grad: &CpuStorage,
        gl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let &[c_out, c_in, kh, kw] = wl.dims() else {
            return Err(Error::Msg("a weight has rank 4".into()).bt());
        };
        if kh != kw || self.padding >= kh {
            return Err(Error::Msg(
                "the input's gradient wants a square kernel larger than its padding".into(),
            )
            .bt());
        }
        let (grad, weight) = (values(grad, gl)?, values(weight, wl)?);
        let [height, width] = self.spatial;
        let (n, oh, ow) = (gl.dims()[0], gl.dims()[2], gl.dims()[3]);
        // A strided convolution's gradient is that of a plain one whose skipped outputs had none.
        let padding = kh - 1 - self.padding;
        let (gh, gw) = (
            height + 2 * self.padding + 1 - kh,
            width + 2 * self.padding + 1 - kw,
        );
        let spread;
        let grad = if self.stride == 1 {
            grad
        } else {
            let mut wide = vec![0.0f32; n * blocks(c_out) * gh * gw * BLOCK];
            for (row, line) in grad.chunks_exact(ow * BLOCK).enumerate() {
                let start = (row / oh * gh + row % oh * self.stride) * gw * BLOCK;
                for (column, pixel) in line.chunks_exact(BLOCK).enumerate() {
                    let at = start + column * self.stride * BLOCK;
                    wide[at..at + BLOCK].copy_from_slice(pixel);
                }
            }
            spread = wide;
            &spread
        };
        let shape = ConvShape {
            batch: n,
            c_in: c_out,
            c_out: c_in,
            height: gh,
            width: gw,
            kernel: [kh, kw],
            stride: 1,
            padding,
        };
        let out = kernels::convolve(grad, weight, &[], &shape, Direction::Backward, kernels::isa());
        Ok((
            CpuStorage::F32(out),
            Shape::from(vec![n, blocks(c_in), height, width, BLOCK]),
        ))
    }
}

/// x, gradient of y → gradient of the weight.
struct WeightGradient {
    /// In, out.
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "blocked conv2d, gradient of the weight"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        grad: &CpuStorage,
        gl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let d = xl.dims();
        let weight = [self.channels[1], self.channels[0], self.kernel[0], self.kernel[1]];
        let shape = shape_of(d, &weight, [d[2], d[3]], self.stride, self.padding)?;
        let out = kernels::weight_gradient(values(x, xl)?, values(grad, gl)?, &shape, kernels::isa());
        Ok((CpuStorage::F32(out), Shape::from(weight.to_vec())))
    }
}

/// Gradient of y → gradient of the bias.
struct BiasGradient {
    channels: usize,
}

impl CustomOp1 for BiasGradient {
    fn name(&self) -> &'static str {
        "blocked conv2d, gradient of the bias"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, blocks, h, w, _) = gl.shape().dims5()?;
        let mut sum = vec![0.0f32; blocks * BLOCK];
        for (i, plane) in values(grad, gl)?.chunks_exact(h * w * BLOCK).enumerate() {
            let mut part = [0.0f32; BLOCK];
            for pixel in plane.chunks_exact(BLOCK) {
                for c in 0..BLOCK {
                    part[c] += pixel[c];
                }
            }
            for c in 0..BLOCK {
                sum[i % blocks * BLOCK + c] += part[c];
            }
        }
        sum.truncate(self.channels);
        Ok((CpuStorage::F32(sum), Shape::from(vec![self.channels])))
    }
}
