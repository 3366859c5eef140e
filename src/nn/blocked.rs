//! The blocked layers as candle operators, with their gradients.
//!
//! A convolution takes a *wide* side to a *narrow* one and its gradient back; a transposed convolution is the same pair the other way round.
//! The weight is `[C narrow, C wide, taps]` in both.

use super::{
    conv::{Conv, ConvTranspose},
    deferred::Deferred,
    kernels::{self, Axis, BLOCK, Geometry, Isa, Source, Weight, Window, blocks, norm::Totals},
};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Error, Layout, Result, Shape, Storage, Tensor};
use rayon::prelude::*;
use std::ops::Deref;

/// The values of a contiguous f32 CPU tensor.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => Err(Error::Msg("a blocked layer wants contiguous tensors".into()).bt()),
    }
}

/// A tensor whose values are being read.
pub(super) struct Held<'a> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    layout: &'a Layout,
}

impl<'a> Held<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self {
            storage: Box::new(storage),
            layout,
        }
    }

    pub(super) fn values(&self) -> Result<&[f32]> {
        match &**self.storage {
            Storage::Cpu(storage) => values(storage, self.layout),
            _ => Err(Error::Msg("a blocked layer wants tensors on the CPU".into()).bt()),
        }
    }
}

/// A convolution and the way back.
#[derive(Debug, Clone)]
struct Pair {
    windows: [Window; 3],
    batch: usize,
    /// Channels and axes on either side.
    wide: (usize, [usize; 3]),
    narrow: (usize, [usize; 3]),
}

impl Pair {
    fn taps(&self) -> usize {
        self.windows.iter().map(|window| window.kernel).product()
    }

    fn down_geometry(&self) -> Geometry {
        Geometry {
            batch: self.batch,
            c_in: self.wide.0,
            c_out: self.narrow.0,
            axes: [0, 1, 2].map(|a| Axis::convolution(self.wide.1[a], self.narrow.1[a], self.windows[a])),
        }
    }

    fn down_weight<'a>(&self, values: &'a [f32]) -> Weight<'a> {
        Weight {
            values,
            output: self.wide.0 * self.taps(),
            input: self.taps(),
        }
    }

    /// Wide → narrow.
    fn down(&self, x: &[Source], weight: &[f32], bias: &[f32], isa: Isa) -> Vec<f32> {
        kernels::convolve(x, self.down_weight(weight), bias, &self.down_geometry(), isa)
    }

    /// Narrow → wide.
    fn up(&self, x: &[Source], weight: &[f32], bias: &[f32], isa: Isa) -> Vec<f32> {
        let geometry = Geometry {
            batch: self.batch,
            c_in: self.narrow.0,
            c_out: self.wide.0,
            axes: [0, 1, 2].map(|a| Axis::transposed(self.narrow.1[a], self.wide.1[a], self.windows[a])),
        };
        let weight = Weight {
            values: weight,
            output: self.taps(),
            input: self.wide.0 * self.taps(),
        };
        kernels::convolve(x, weight, bias, &geometry, isa)
    }

    fn shape(&self, (channels, axes): (usize, [usize; 3])) -> Shape {
        Shape::from(vec![
            self.batch,
            blocks(channels),
            axes[0],
            axes[1],
            axes[2],
            BLOCK,
        ])
    }
}

/// A kernel's three sizes from a weight of rank 4 or 5.
fn kernel_of(weight: &Tensor) -> [usize; 3] {
    let d = weight.dims();
    let depth = if d.len() == 5 { d[2] } else { 1 };
    [depth, d[d.len() - 2], d[d.len() - 1]]
}

fn axes_of(x: &Tensor, channels: usize, blocks_found: usize) -> Result<[usize; 3]> {
    let d = x.dims();
    if blocks_found != blocks(channels) || d[5] != BLOCK {
        return Err(Error::Msg(format!(
            "{channels} channels want a blocked input of {} blocks, found shape {d:?}",
            blocks(channels)
        ))
        .bt());
    }
    Ok([d[2], d[3], d[4]])
}

/// Convolves blocked tensors, one after the other along their channels.
pub(super) fn convolve(parts: &[&Tensor], conv: &Conv) -> Result<Tensor> {
    apply(parts, &conv.weight, conv.bias.as_ref(), pair(parts, conv)?, false)
}

/// The same without gradients, on parts that may not be finished; with the sums over the output if a norm wants them.
pub(super) fn convolve_deferred(
    parts: &[&Deferred],
    conv: &Conv,
    totals: bool,
) -> Result<(Tensor, Option<Totals>)> {
    let raw: Vec<&Tensor> = parts.iter().map(|part| part.raw()).collect();
    let pair = pair(&raw, conv)?;
    let run = |x: &[Source], weight: &[f32], bias: &[f32], isa| {
        if !totals {
            return (pair.down(x, weight, bias, isa), None);
        }
        let geometry = pair.down_geometry();
        let (out, totals) = kernels::convolve_with_totals(x, pair.down_weight(weight), bias, &geometry, isa);
        (out, Some(totals))
    };
    let (out, totals) = infer(parts, &conv.weight, conv.bias.as_ref(), run)?;
    Ok((
        Tensor::from_vec(out, pair.shape(pair.narrow), &Device::Cpu)?,
        totals,
    ))
}

/// A convolution of blocked tensors, checked.
fn pair(parts: &[&Tensor], conv: &Conv) -> Result<Pair> {
    let weight = &conv.weight;
    let (c_out, c_in) = (weight.dim(0)?, weight.dim(1)?);
    let kernel = kernel_of(weight);
    let first = parts[0];
    let found = parts.iter().map(|part| part.dims()[1]).sum();
    let wide = axes_of(first, c_in, found)?;
    if let Some(other) = parts
        .iter()
        .find(|part| part.dims()[2..] != first.dims()[2..] || part.dims()[0] != first.dims()[0])
    {
        return Err(Error::Msg(format!(
            "shapes {:?} and {:?} do not lie side by side",
            first.dims(),
            other.dims()
        ))
        .bt());
    }
    let windows = [0, 1, 2].map(|a| Window {
        kernel: kernel[a],
        stride: conv.stride[a],
        padding: conv.padding[a],
        dilation: conv.dilation[a],
    });
    let mut narrow = [0; 3];
    for a in 0..3 {
        narrow[a] = windows[a].output(wide[a]).ok_or_else(|| {
            Error::Msg(format!("axes {wide:?} are smaller than the kernel {kernel:?}")).bt()
        })?;
    }
    Ok(Pair {
        windows,
        batch: first.dims()[0],
        wide: (c_in, wide),
        narrow: (c_out, narrow),
    })
}

/// Convolves a blocked tensor transposed.
pub(super) fn convolve_transposed(x: &Tensor, conv: &ConvTranspose) -> Result<Tensor> {
    apply(
        &[x],
        &conv.weight,
        conv.bias.as_ref(),
        pair_transposed(x, conv)?,
        true,
    )
}

/// The same without gradients, on a tensor that may not be finished.
pub(super) fn convolve_transposed_deferred(x: &Deferred, conv: &ConvTranspose) -> Result<Tensor> {
    let pair = pair_transposed(x.raw(), conv)?;
    let run = |x: &[Source], weight: &[f32], bias: &[f32], isa| pair.up(x, weight, bias, isa);
    let out = infer(&[x], &conv.weight, conv.bias.as_ref(), run)?;
    Tensor::from_vec(out, pair.shape(pair.wide), &Device::Cpu)
}

/// A transposed convolution of a blocked tensor, checked.
fn pair_transposed(x: &Tensor, conv: &ConvTranspose) -> Result<Pair> {
    let weight = &conv.weight;
    let (c_in, c_out) = (weight.dim(0)?, weight.dim(1)?);
    let kernel = kernel_of(weight);
    let narrow = axes_of(x, c_in, x.dims()[1])?;
    let mut wide = [0; 3];
    for a in 0..3 {
        let whole = (narrow[a] - 1) * conv.stride[a] + kernel[a] + conv.output_padding[a];
        wide[a] = whole
            .checked_sub(2 * conv.padding[a])
            .filter(|size| *size > 0)
            .ok_or_else(|| Error::Msg(format!("a padding of {:?} leaves nothing", conv.padding)).bt())?;
    }
    Ok(Pair {
        windows: [0, 1, 2].map(|a| Window {
            kernel: kernel[a],
            stride: conv.stride[a],
            padding: conv.padding[a],
            dilation: 1,
        }),
        batch: x.dims()[0],
        wide: (c_out, wide),
        narrow: (c_in, narrow),
    })
}

/// Whether gradients are wanted through any of these.
pub(super) fn tracks(tensors: &[&Tensor]) -> bool {
    tensors.iter().any(|tensor| tensor.track_op())
}

fn apply(
    parts: &[&Tensor],
    weight: &Tensor,
    bias: Option<&Tensor>,
    pair: Pair,
    transposed: bool,
) -> Result<Tensor> {
    let weight = weight.contiguous()?;
    if tracks(parts) || tracks(&[&weight]) || bias.is_some_and(Tensor::track_op) {
        let joined = Tensor::cat(parts, 1)?.contiguous()?;
        let bias = match bias {
            Some(bias) => bias.clone(),
            None => Tensor::zeros(
                if transposed { pair.wide.0 } else { pair.narrow.0 },
                joined.dtype(),
                joined.device(),
            )?,
        };
        return joined.apply_op3(&weight, &bias, Blocked { pair, transposed });
    }
    let parts: Vec<Deferred> = parts
        .iter()
        .map(|part| Ok(part.contiguous()?.into()))
        .collect::<Result<_>>()?;
    let parts: Vec<&Deferred> = parts.iter().collect();
    let run = |x: &[Source], weight: &[f32], bias: &[f32], isa| {
        if transposed {
            pair.up(x, weight, bias, isa)
        } else {
            pair.down(x, weight, bias, isa)
        }
    };
    let out = infer(&parts, &weight, bias, run)?;
    let side = if transposed { pair.wide } else { pair.narrow };
    Tensor::from_vec(out, pair.shape(side), &Device::Cpu)
}

/// Runs a convolution on contiguous parts without gradients, in the precision that this thread asks for.
fn infer<R>(
    parts: &[&Deferred],
    weight: &Tensor,
    bias: Option<&Tensor>,
    run: impl FnOnce(&[Source], &[f32], &[f32], Isa) -> R,
) -> Result<R> {
    let held: Vec<Held> = parts.iter().map(|part| Held::new(part.raw())).collect();
    let sources: Vec<Source> = held
        .iter()
        .zip(parts)
        .map(|(held, part)| {
            Ok(Source {
                values: held.values()?,
                blocks: part.raw().dims()[1],
                lines: part.lines(),
            })
        })
        .collect::<Result<_>>()?;
    let weight = weight.contiguous()?;
    let weight = Held::new(&weight);
    let bias = bias.map(Held::new);
    let bias = bias.as_ref().map_or(Ok(&[][..]), Held::values)?;
    Ok(run(&sources, weight.values()?, bias, kernels::asked_isa()))
}

/// x, weight, bias → y.
struct Blocked {
    pair: Pair,
    transposed: bool,
}

impl CustomOp3 for Blocked {
    fn name(&self) -> &'static str {
        "blocked convolution"
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
        let source = [Source {
            values: values(x, xl)?,
            blocks: xl.dims()[1],
            lines: None,
        }];
        let (weight, bias) = (values(weight, wl)?, values(bias, bl)?);
        let pair = &self.pair;
        Ok(if self.transposed {
            (
                CpuStorage::F32(pair.up(&source, weight, bias, kernels::asked_isa())),
                pair.shape(pair.wide),
            )
        } else {
            (
                CpuStorage::F32(pair.down(&source, weight, bias, kernels::asked_isa())),
                pair.shape(pair.narrow),
            )
        })
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
        let pair = &self.pair;
        let (hx, hw, hg) = (Held::new(x), Held::new(weight), Held::new(&grad));
        let (xv, wv, gv) = (hx.values()?, hw.values()?, hg.values()?);
        let gx = if x.track_op() {
            let source = [Source {
                values: gv,
                blocks: grad.dims()[1],
                lines: None,
            }];
            let out = if self.transposed {
                pair.down(&source, wv, &[], kernels::asked_isa())
            } else {
                pair.up(&source, wv, &[], kernels::asked_isa())
            };
            Some(Tensor::from_vec(out, x.shape(), &Device::Cpu)?)
        } else {
            None
        };
        let gw = if weight.track_op() {
            let (wide, narrow) = if self.transposed { (gv, xv) } else { (xv, gv) };
            let out = kernels::weight_gradient(wide, narrow, &pair.down_geometry(), kernels::isa());
            Some(Tensor::from_vec(out, weight.shape(), &Device::Cpu)?)
        } else {
            None
        };
        let gb = if bias.track_op() {
            let sums = channel_sums(
                gv,
                grad.dims()[1],
                grad.dims()[2..].iter().product(),
                bias.elem_count(),
            );
            Some(Tensor::from_vec(sums, bias.shape(), &Device::Cpu)?)
        } else {
            None
        };
        Ok((gx, gw, gb))
    }
}

/// The sum of each channel over images and voxels; `plane` is the values of one block of one image.
pub(super) fn channel_sums(grad: &[f32], in_blocks: usize, plane: usize, channels: usize) -> Vec<f32> {
    /// Voxels that are summed in f32 before they join the f64 sum.
    const RUN: usize = 256;
    let planes: Vec<[f64; BLOCK]> = grad
        .par_chunks(plane)
        .map(|plane| {
            let mut sum = [0.0f64; BLOCK];
            for run in plane.chunks(RUN * BLOCK) {
                let mut part = [0.0f32; BLOCK];
                for voxel in run.chunks_exact(BLOCK) {
                    for c in 0..BLOCK {
                        part[c] += voxel[c];
                    }
                }
                for c in 0..BLOCK {
                    sum[c] += f64::from(part[c]);
                }
            }
            sum
        })
        .collect();
    #[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
    (0..channels)
        .map(|c| {
            let of_image = planes.iter().skip(c / BLOCK).step_by(in_blocks);
            of_image.map(|plane| plane[c % BLOCK]).sum::<f64>() as f32
        })
        .collect()
}

/// Plain → blocked.
pub(super) struct Enter;

impl CustomOp1 for Enter {
    fn name(&self) -> &'static str {
        "enter the blocked layout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, d, h, w) = xl.shape().dims5()?;
        let x = values(x, xl)?;
        let voxels = d * h * w;
        let mut out = vec![0.0f32; n * blocks(c) * voxels * BLOCK];
        out.par_chunks_mut(voxels * BLOCK)
            .enumerate()
            .for_each(|(i, out)| {
                let (n, first) = (i / blocks(c), i % blocks(c) * BLOCK);
                for (start, out) in (0..voxels).step_by(TILE).zip(out.chunks_mut(TILE * BLOCK)) {
                    for channel in first..(first + BLOCK).min(c) {
                        let from = &x[(n * c + channel) * voxels + start..][..out.len() / BLOCK];
                        for (out, x) in out.iter_mut().skip(channel - first).step_by(BLOCK).zip(from) {
                            *out = *x;
                        }
                    }
                }
            });
        let shape = Shape::from(vec![n, blocks(c), d, h, w, BLOCK]);
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let channels = x.dim(1)?;
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&Leave { channels })?))
    }
}

/// Voxels that are turned over at a time: 16 channels of them stay in the first-level cache.
const TILE: usize = 256;

/// Blocked → plain, so many channels.
pub(super) struct Leave {
    pub(super) channels: usize,
}

impl CustomOp1 for Leave {
    fn name(&self) -> &'static str {
        "leave the blocked layout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let d = xl.dims().to_vec();
        let x = values(x, xl)?;
        let voxels = d[2] * d[3] * d[4];
        let mut out = vec![0.0f32; d[0] * self.channels * voxels];
        out.par_chunks_mut(voxels).enumerate().for_each(|(i, out)| {
            let (n, channel) = (i / self.channels, i % self.channels);
            let from = &x[(n * d[1] + channel / BLOCK) * voxels * BLOCK..][..voxels * BLOCK];
            for (out, x) in out
                .iter_mut()
                .zip(from.iter().skip(channel % BLOCK).step_by(BLOCK))
            {
                *out = *x;
            }
        });
        let shape = Shape::from(vec![d[0], self.channels, d[2], d[3], d[4]]);
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&Enter)?))
    }
}
