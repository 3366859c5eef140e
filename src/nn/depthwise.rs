//! A convolution in which no channel sees another, in two dimensions, with the padding that TensorFlow calls SAME, and its gradients.
//!
//! A blocked tensor is convolved where it lies, sixteen channels at a time; a plain one is padded and left to [`Conv`].

use super::{
    blocked::{Held, channel_sums, tracks, values},
    conv::Conv,
    kernels::{BLOCK, blocks},
    layout,
};
use candle_core::{CpuStorage, CustomOp3, Device, Error, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// A depthwise convolution with PyTorch's parameters.
#[derive(Debug, Clone)]
pub(super) struct Depthwise {
    /// `[C, 1, k, k]`
    pub(super) weight: Tensor,
    /// `[C]`
    pub(super) bias: Tensor,
    /// Step in voxels along both axes, of which the input's sizes are multiples.
    pub(super) stride: usize,
}

impl Depthwise {
    /// Convolves a plain or a blocked tensor.
    ///
    /// # Shape
    /// `[N, C, H, W]` → `[N, C, H / stride, W / stride]`, or the same blocked.
    ///
    /// # Errors
    /// Says which shape was found and which the weight wants.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, kernel) = (self.weight.dim(0)?, self.weight.dim(2)?);
        if self.stride == 0 || kernel < self.stride {
            return Err(wrong(format!(
                "a kernel of {kernel} does not reach from step to step of {}",
                self.stride
            )));
        }
        if !layout::is_blocked(x) {
            let unpadded = Conv {
                weight: self.weight.clone(),
                bias: Some(self.bias.clone()),
                stride: [1, self.stride, self.stride],
                padding: [0; 3],
                dilation: [1; 3],
                groups: channels,
            };
            return unpadded.forward(&padded(x, kernel, self.stride)?);
        }
        let &[batch, found, 1, rows, columns, _] = x.dims() else {
            return Err(wrong(format!(
                "a depthwise convolution has two axes, found shape {:?}",
                x.dims()
            )));
        };
        let even = rows.is_multiple_of(self.stride) && columns.is_multiple_of(self.stride);
        if found != blocks(channels) || !even {
            return Err(wrong(format!(
                "{channels} channels and steps of {} want a blocked input of {} blocks and such axes, found shape {:?}",
                self.stride,
                blocks(channels),
                x.dims()
            )));
        }
        let op = Op {
            kernel,
            stride: self.stride,
            before: before(kernel, self.stride),
            batch,
            channels,
            input: [rows, columns],
        };
        let (x, weight) = (x.contiguous()?, self.weight.contiguous()?);
        if tracks(&[&x, &weight, &self.bias]) {
            x.apply_op3(&weight, &self.bias, op)
        } else {
            x.apply_op3_no_bwd(&weight, &self.bias, &op)
        }
    }
}

/// Zeros before the first voxel: SAME puts the odd one behind the last.
fn before(kernel: usize, stride: usize) -> usize {
    (kernel - stride) / 2
}

/// A plain or blocked tensor with the zeros around both axes that SAME asks for, where they are multiples of the stride.
pub(super) fn padded(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let before = before(kernel, stride);
    let mut x = x.clone();
    for (axis, at) in layout::spatial_axes(&x)? {
        if axis > 0 {
            x = x.pad_with_zeros(at, before, kernel - stride - before)?;
        }
    }
    Ok(x)
}

fn wrong(what: String) -> Error {
    Error::Msg(what).bt()
}

/// x, weight, bias → y.
struct Op {
    kernel: usize,
    stride: usize,
    before: usize,
    batch: usize,
    channels: usize,
    input: [usize; 2],
}

impl Op {
    fn output(&self) -> [usize; 2] {
        self.input.map(|size| size / self.stride)
    }

    fn shape(&self, [rows, columns]: [usize; 2]) -> Shape {
        Shape::from(vec![self.batch, blocks(self.channels), 1, rows, columns, BLOCK])
    }

    /// Values of a plane of sixteen channels of the input, and of the output.
    fn planes(&self) -> (usize, usize) {
        let values = |size: [usize; 2]| size.iter().product::<usize>() * BLOCK;
        (values(self.input), values(self.output()))
    }

    /// The taps of each block, sixteen channels side by side.
    fn taps(&self, weight: &[f32]) -> Vec<f32> {
        let count = self.kernel * self.kernel;
        let mut taps = vec![0.0; blocks(self.channels) * count * BLOCK];
        for (channel, own) in weight.chunks_exact(count).enumerate() {
            let from = channel / BLOCK * count * BLOCK + channel % BLOCK;
            for (tap, value) in own.iter().enumerate() {
                taps[from + tap * BLOCK] = *value;
            }
        }
        taps
    }

    /// Calls `visit(output voxel, tap, input voxel)` for all that meet in one plane.
    fn meet(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let ([rows, columns], [out_rows, out_columns]) = (self.input, self.output());
        for y in 0..out_rows {
            for ky in 0..self.kernel {
                let Some(row) = self.at(y, ky, rows) else { continue };
                for x in 0..out_columns {
                    for kx in 0..self.kernel {
                        if let Some(column) = self.at(x, kx, columns) {
                            visit(y * out_columns + x, ky * self.kernel + kx, row * columns + column);
                        }
                    }
                }
            }
        }
    }

    /// The input's place under a tap, unless it lies in the padding.
    fn at(&self, out: usize, tap: usize, size: usize) -> Option<usize> {
        (out * self.stride + tap)
            .checked_sub(self.before)
            .filter(|at| *at < size)
    }

    fn run(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let blocks = blocks(self.channels);
        let taps = self.taps(weight);
        let (inside, outside) = self.planes();
        let mut y = vec![0.0; self.batch * blocks * outside];
        y.par_chunks_mut(outside).enumerate().for_each(|(plane, y)| {
            let (block, x) = (plane % blocks, &x[plane * inside..][..inside]);
            let taps = &taps[block * self.kernel * self.kernel * BLOCK..];
            let mut own = [0.0; BLOCK];
            for (own, bias) in own.iter_mut().zip(&bias[block * BLOCK..]) {
                *own = *bias;
            }
            y.chunks_exact_mut(BLOCK)
                .for_each(|voxel| voxel.copy_from_slice(&own));
            self.meet(|out, tap, inside| {
                let y = lanes_mut(y, out);
                let (w, x) = (lanes(taps, tap), lanes(x, inside));
                for c in 0..BLOCK {
                    y[c] += w[c] * x[c];
                }
            });
        });
        y
    }

    /// The gradient of the input.
    fn back(&self, grad: &[f32], weight: &[f32]) -> Vec<f32> {
        let blocks = blocks(self.channels);
        let taps = self.taps(weight);
        let (inside, outside) = self.planes();
        let mut x = vec![0.0; self.batch * blocks * inside];
        x.par_chunks_mut(inside).enumerate().for_each(|(plane, x)| {
            let grad = &grad[plane * outside..][..outside];
            let taps = &taps[plane % blocks * self.kernel * self.kernel * BLOCK..];
            self.meet(|out, tap, inside| {
                let x = lanes_mut(x, inside);
                let (w, g) = (lanes(taps, tap), lanes(grad, out));
                for c in 0..BLOCK {
                    x[c] += w[c] * g[c];
                }
            });
        });
        x
    }

    /// The gradient of the weight.
    fn weight_gradient(&self, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let (blocks, count) = (blocks(self.channels), self.kernel * self.kernel);
        let (inside, outside) = self.planes();
        // Of each block of each image.
        let sums: Vec<Vec<f32>> = (0..self.batch * blocks)
            .into_par_iter()
            .map(|plane| {
                let mut sums = vec![0.0; count * BLOCK];
                let x = &x[plane * inside..][..inside];
                let grad = &grad[plane * outside..][..outside];
                self.meet(|out, tap, inside| {
                    let sum = lanes_mut(&mut sums, tap);
                    let (x, g) = (lanes(x, inside), lanes(grad, out));
                    for c in 0..BLOCK {
                        sum[c] += x[c] * g[c];
                    }
                });
                sums
            })
            .collect();
        (0..self.channels * count)
            .map(|at| {
                let (channel, tap) = (at / count, at % count);
                let of_images = sums.iter().skip(channel / BLOCK).step_by(blocks);
                of_images.map(|own| own[tap * BLOCK + channel % BLOCK]).sum()
            })
            .collect()
    }
}

/// Sixteen channels of a voxel or a tap.
fn lanes(values: &[f32], at: usize) -> &[f32] {
    &values[at * BLOCK..][..BLOCK]
}

fn lanes_mut(values: &mut [f32], at: usize) -> &mut [f32] {
    &mut values[at * BLOCK..][..BLOCK]
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "depthwise convolution"
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
        let y = self.run(values(x, xl)?, values(weight, wl)?, values(bias, bl)?);
        Ok((CpuStorage::F32(y), self.shape(self.output())))
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
        let (hx, hw, hg) = (Held::new(x), Held::new(weight), Held::new(&grad));
        let (xv, wv, gv) = (hx.values()?, hw.values()?, hg.values()?);
        let made = |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
        let gx = x.track_op().then(|| made(self.back(gv, wv), x)).transpose()?;
        let gw = weight
            .track_op()
            .then(|| made(self.weight_gradient(xv, gv), weight))
            .transpose()?;
        let (_, plane) = self.planes();
        let sums = || channel_sums(gv, blocks(self.channels), plane, self.channels);
        let gb = bias.track_op().then(|| made(sums(), bias)).transpose()?;
        Ok((gx, gw, gb))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::largest;
    use super::*;
    use candle_core::Var;

    #[test]
    fn blocked_and_plain_agree_and_so_do_their_gradients() {
        for (channels, kernel, stride) in [(32, 3, 1), (20, 3, 2), (16, 5, 1), (40, 5, 2)] {
            let random = |dims: &[usize]| Tensor::randn(0.0f32, 1.0, dims, &Device::Cpu).unwrap();
            let (x, w, b) = (
                random(&[2, channels, 8, 12]),
                random(&[channels, 1, kernel, kernel]),
                random(&[channels]),
            );
            let weights = random(&[2, channels, 8 / stride, 12 / stride]);
            let run = |blocked: bool| -> Vec<Tensor> {
                let [x, w, b] = [&x, &w, &b].map(|t| Var::from_tensor(t).unwrap());
                let layer = Depthwise {
                    weight: w.as_tensor().clone(),
                    bias: b.as_tensor().clone(),
                    stride,
                };
                let y = if blocked {
                    let y = layer.forward(&layout::enter(&x).unwrap()).unwrap();
                    layout::leave(&y, channels, 2).unwrap()
                } else {
                    layer.forward(&x).unwrap()
                };
                let sum = (&y * &weights).unwrap().sum_all().unwrap();
                let grads = sum.backward().unwrap();
                let grad = |v: &Var| grads.get(v).unwrap().clone();
                vec![y.detach(), grad(&x), grad(&w), grad(&b)]
            };
            for (name, (a, b)) in ["y", "x", "w", "b"].iter().zip(run(true).iter().zip(&run(false))) {
                let apart = largest(&(a - b).unwrap());
                assert!(apart < 1e-3, "{channels} {kernel} {stride}: {name} {apart}");
            }
        }
    }

    #[test]
    fn the_odd_zero_lies_behind_the_last_voxel() {
        // A kernel that takes the first of its three: with a zero before, the answer would be 0, 1, 3, 5.
        let weight = Tensor::new(&[1.0f32, 0.0, 0.0], &Device::Cpu).unwrap();
        let weight = weight.reshape((1, 1, 1, 3)).unwrap();
        let weight = weight.pad_with_zeros(2, 0, 2).unwrap();
        let layer = Depthwise {
            weight,
            bias: Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap(),
            stride: 2,
        };
        let row = Tensor::arange(0.0f32, 8.0, &Device::Cpu).unwrap();
        let x = row.reshape((1, 1, 1, 8)).unwrap().repeat((1, 1, 2, 1)).unwrap();
        let y = layer.forward(&layout::enter(&x).unwrap()).unwrap();
        let y = layout::leave(&y, 1, 2).unwrap().flatten_all().unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 2.0, 4.0, 6.0]);
    }

    #[test]
    fn refuses_what_it_cannot_step_through() {
        let random = |dims: &[usize]| Tensor::randn(0.0f32, 1.0, dims, &Device::Cpu).unwrap();
        let layer = Depthwise {
            weight: random(&[16, 1, 3, 3]),
            bias: random(&[16]),
            stride: 2,
        };
        let odd = layout::enter(&random(&[1, 16, 7, 8])).unwrap();
        let error = layer.forward(&odd).unwrap_err().to_string();
        assert!(error.contains("steps of 2"), "{error}");
    }
}
