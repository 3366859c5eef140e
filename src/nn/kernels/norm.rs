//! Normalisation and LeakyReLU of blocked activations, forward and backward, as passes of their own and as what a convolution does on its way.
//!
//! Sums run over fixed pieces that are added in order, so that results do not depend on the number of threads.

use super::{BLOCK, Isa};
use rayon::prelude::*;

/// One value for each channel of a block.
pub(super) type Lane = [f32; BLOCK];
/// The same for sums.
pub(crate) type Wide = [f64; BLOCK];

/// Voxels of a piece that one thread sums.
const PIECE: usize = 4096;
/// Voxels that are summed in f32 before they join the f64 sum.
const RUN: usize = 256;

/// What a normalisation runs over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Channel blocks of an image.
    pub(crate) blocks: usize,
    /// Channels that exist.
    pub(crate) channels: usize,
    /// Voxels of an image.
    pub(crate) voxels: usize,
    /// Groups of neighbouring channels that share their statistics.
    pub(crate) groups: usize,
}

/// Mean and 1/√(variance + eps) of each channel of each image, `[image][block]`.
pub(crate) type Moments = Vec<[Lane; 2]>;

/// For each plane, sums over its pieces of what `sum` returns for one run; in a fixed order.
fn sums<const K: usize>(
    planes: usize,
    voxels: usize,
    isa: Isa,
    sum: impl Fn(usize, std::ops::Range<usize>) -> [Lane; K] + Sync,
) -> Vec<[Wide; K]> {
    let pieces = voxels.div_ceil(PIECE);
    let parts: Vec<[Wide; K]> = (0..planes * pieces)
        .into_par_iter()
        .map(|job| {
            let (plane, first) = (job / pieces, job % pieces * PIECE);
            let mut total = [[0.0f64; BLOCK]; K];
            for start in (first..(first + PIECE).min(voxels)).step_by(RUN) {
                let end = (start + RUN).min(first + PIECE).min(voxels);
                let part = isa.widely(
                    #[inline(always)]
                    || sum(plane, start * BLOCK..end * BLOCK),
                );
                for (total, part) in total.iter_mut().zip(part) {
                    for c in 0..BLOCK {
                        total[c] += f64::from(part[c]);
                    }
                }
            }
            total
        })
        .collect();
    parts
        .chunks(pieces)
        .map(|parts| {
            let mut total = [[0.0f64; BLOCK]; K];
            for part in parts {
                for (total, part) in total.iter_mut().zip(part) {
                    for c in 0..BLOCK {
                        total[c] += part[c];
                    }
                }
            }
            total
        })
        .collect()
}

/// Averages `values` (one pair a channel, `[image][block]`) over groups of channels; `combine` finishes each group.
fn by_group<T>(
    values: &[[Wide; 2]],
    extent: Extent,
    combine: impl Fn([f64; 2]) -> [T; 2],
    mut put: impl FnMut(usize, usize, [T; 2]),
) where
    T: Copy,
{
    let each = extent.channels / extent.groups;
    for image in 0..values.len() / extent.blocks {
        for group in 0..extent.groups {
            let mut mean = [0.0; 2];
            for channel in group * each..(group + 1) * each {
                let value = &values[image * extent.blocks + channel / BLOCK];
                mean[0] += value[0][channel % BLOCK];
                mean[1] += value[1][channel % BLOCK];
            }
            let result = combine(mean.map(|sum| sum / each as f64));
            for channel in group * each..(group + 1) * each {
                put(image * extent.blocks + channel / BLOCK, channel % BLOCK, result);
            }
        }
    }
}

/// Sum and sum of squares of each channel of each image, `[image][block]`.
pub(crate) type Totals = Vec<[Wide; 2]>;

/// Adds up a run of voxels.
///
/// The first voxel as a shift keeps the sums small, so that f32 runs are exact enough.
#[inline(always)]
fn add_run(voxels: &[f32], shift: &Lane) -> [Lane; 2] {
    let (mut s, mut q) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
    for voxel in voxels.chunks_exact(BLOCK) {
        for c in 0..BLOCK {
            let d = voxel[c] - shift[c];
            s[c] += d;
            q[c] += d * d;
        }
    }
    [s, q]
}

/// Adds the sums of `count` voxels that were taken off `shift`.
fn add_shifted(total: &mut [Wide; 2], [s, q]: [Wide; 2], shift: &Lane, count: usize) {
    let count = count as f64;
    for c in 0..BLOCK {
        let shift = f64::from(shift[c]);
        total[0][c] += s[c] + count * shift;
        total[1][c] += q[c] + shift * (2.0 * s[c] + count * shift);
    }
}

/// Sum and sum of squares over some rows of one block.
pub(super) fn add_rows<'a>(rows: impl Iterator<Item = &'a [f32]>, isa: Isa) -> [Wide; 2] {
    let mut total = [[0.0; BLOCK]; 2];
    for row in rows {
        for run in row.chunks(RUN * BLOCK) {
            let shift: Lane = std::array::from_fn(|c| run[c]);
            let sums = isa.widely(
                #[inline(always)]
                || add_run(run, &shift),
            );
            add_shifted(
                &mut total,
                sums.map(|sum| sum.map(f64::from)),
                &shift,
                run.len() / BLOCK,
            );
        }
    }
    total
}

/// Sum and sum of squares of each channel of each image.
pub(crate) fn totals(x: &[f32], extent: Extent, isa: Isa) -> Totals {
    let plane = extent.voxels * BLOCK;
    let shift = |i: usize| -> Lane { std::array::from_fn(|c| x[i * plane + c]) };
    let sums = sums(x.len() / plane, extent.voxels, isa, |i, range| {
        add_run(&x[i * plane..][range], &shift(i))
    });
    let whole = |(i, sums)| {
        let mut total = [[0.0; BLOCK]; 2];
        add_shifted(&mut total, sums, &shift(i), extent.voxels);
        total
    };
    sums.into_iter().enumerate().map(whole).collect()
}

/// The statistics of each channel's group.
#[expect(
    clippy::cast_possible_truncation,
    reason = "statistics are kept in the network's precision"
)]
pub(crate) fn moments(totals: &Totals, extent: Extent, eps: f64) -> Moments {
    let means: Vec<[Wide; 2]> = totals
        .iter()
        .map(|total| total.map(|sum| sum.map(|sum| sum / extent.voxels as f64)))
        .collect();
    let mut moments = vec![[[0.0f32; BLOCK]; 2]; means.len()];
    by_group(
        &means,
        extent,
        |[mean, square]| [mean, 1.0 / ((square - mean * mean).max(0.0) + eps).sqrt()],
        |plane, lane, [mean, inverse]| {
            moments[plane][0][lane] = mean as f32;
            moments[plane][1][lane] = inverse as f32;
        },
    );
    moments
}

/// The values of one block of channels of a parameter; lanes beyond the last channel are zero.
fn lane(parameter: &[f32], block: usize) -> Lane {
    let mut lane = [0.0f32; BLOCK];
    let part = &parameter[block * BLOCK..parameter.len().min((block + 1) * BLOCK)];
    lane[..part.len()].copy_from_slice(part);
    lane
}

/// A norm and an activation as they are done to each voxel: LeakyReLU of x · factor + offset.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Factor and offset, `[image][block]`.
    each: Vec<[Lane; 2]>,
    /// Of LeakyReLU: 1 for none, 0 for ReLU.
    slope: f32,
}

/// [`Lines`] of one block of one image.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) factor: &'a Lane,
    pub(super) offset: &'a Lane,
    /// 0 to 1.
    pub(super) slope: f32,
}

impl Lines {
    pub(crate) fn new(moments: &Moments, weight: &[f32], bias: &[f32], slope: f32, extent: Extent) -> Self {
        let line = |(i, [mean, inverse]): (usize, &[Lane; 2])| {
            let (weight, bias) = (lane(weight, i % extent.blocks), lane(bias, i % extent.blocks));
            let factor: Lane = std::array::from_fn(|c| weight[c] * inverse[c]);
            [factor, std::array::from_fn(|c| bias[c] - mean[c] * factor[c])]
        };
        Self {
            each: moments.iter().enumerate().map(line).collect(),
            slope,
        }
    }

    pub(super) fn line(&self, plane: usize) -> Line<'_> {
        let [factor, offset] = &self.each[plane];
        Line {
            factor,
            offset,
            slope: self.slope,
        }
    }

    /// In place.
    pub(crate) fn apply(&self, x: &mut [f32], voxels: usize, isa: Isa) {
        // Pieces never straddle planes: a plane is cut from its own start.
        x.par_chunks_mut(voxels * BLOCK)
            .enumerate()
            .for_each(|(plane, x)| {
                let line = self.line(plane);
                x.par_chunks_mut(PIECE * BLOCK)
                    .for_each(|x| isa.activate_in_place(x, line));
            });
    }

    /// Into another buffer.
    pub(crate) fn apply_to(&self, x: &[f32], out: &mut [f32], voxels: usize, isa: Isa) {
        out.par_chunks_mut(voxels * BLOCK)
            .zip(x.par_chunks(voxels * BLOCK))
            .enumerate()
            .for_each(|(plane, (out, x))| {
                let line = self.line(plane);
                out.par_chunks_mut(PIECE * BLOCK)
                    .zip(x.par_chunks(PIECE * BLOCK))
                    .for_each(|(out, x)| isa.activate(x, 1, out, line));
            });
    }
}

/// What the gradient needs from the forward pass.
pub(crate) struct Forward<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) moments: &'a Moments,
    pub(crate) lines: &'a Lines,
    pub(crate) extent: Extent,
}

/// Gradients of x (into `gx`), of the weight and of the bias.
#[expect(
    clippy::cast_possible_truncation,
    reason = "gradients are kept in the network's precision"
)]
pub(crate) fn gradient(forward: &Forward, grad: &[f32], gx: &mut [f32], isa: Isa) -> (Vec<f32>, Vec<f32>) {
    let Forward { x, extent, lines, .. } = *forward;
    let slope = lines.slope;
    let plane = extent.voxels * BLOCK;
    let planes = x.len() / plane;
    // Σ g and Σ g · x̂ of each channel, g past the activation.
    let mut totals = sums(planes, extent.voxels, isa, |i, range| {
        let ([factor, offset], [mean, inverse]) = (lines.each[i], forward.moments[i]);
        let (mut s, mut p) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        let x = x[i * plane..][range.clone()].chunks_exact(BLOCK);
        for (x, g) in x.zip(grad[i * plane..][range].chunks_exact(BLOCK)) {
            for c in 0..BLOCK {
                let g = if x[c] * factor[c] + offset[c] > 0.0 {
                    g[c]
                } else {
                    g[c] * slope
                };
                s[c] += g;
                p[c] += g * ((x[c] - mean[c]) * inverse[c]);
            }
        }
        [s, p]
    });
    let (mut gw, mut gb) = (vec![0.0f32; extent.channels], vec![0.0f32; extent.channels]);
    for (i, [s, p]) in totals.iter_mut().enumerate() {
        let first = i % extent.blocks * BLOCK;
        let weight = lane(forward.weight, i % extent.blocks);
        for c in 0..BLOCK {
            if first + c < extent.channels {
                gb[first + c] += s[c] as f32;
                gw[first + c] += p[c] as f32;
            }
            // From here on: the means that the gradient of x subtracts.
            s[c] *= f64::from(weight[c]) / extent.voxels as f64;
            p[c] *= f64::from(weight[c]) / extent.voxels as f64;
        }
    }
    let mut means = vec![[[0.0f32; BLOCK]; 2]; planes];
    by_group(
        &totals,
        extent,
        |means| means,
        |plane, lane, [s, p]| {
            means[plane][0][lane] = s as f32;
            means[plane][1][lane] = p as f32;
        },
    );
    gx.par_chunks_mut(plane)
        .zip(x.par_chunks(plane).zip(grad.par_chunks(plane)))
        .enumerate()
        .for_each(|(i, (gx, (x, grad)))| {
            let ([factor, offset], [mean, inverse]) = (lines.each[i], forward.moments[i]);
            let [s, p] = means[i];
            let size = PIECE * BLOCK;
            gx.par_chunks_mut(size)
                .zip(x.par_chunks(size).zip(grad.par_chunks(size)))
                .for_each(|(gx, (x, g))| {
                    isa.widely(
                        #[inline(always)]
                        || {
                            let x = x.chunks_exact(BLOCK);
                            for ((gx, x), g) in gx.chunks_exact_mut(BLOCK).zip(x).zip(g.chunks_exact(BLOCK)) {
                                for c in 0..BLOCK {
                                    let g = if x[c] * factor[c] + offset[c] > 0.0 {
                                        g[c]
                                    } else {
                                        g[c] * slope
                                    };
                                    let normal = (x[c] - mean[c]) * inverse[c];
                                    gx[c] = factor[c] * g - inverse[c] * (s[c] + normal * p[c]);
                                }
                            }
                        },
                    );
                });
        });
    (gw, gb)
}
