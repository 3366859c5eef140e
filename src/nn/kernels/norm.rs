//! Normalisation and LeakyReLU of blocked activations, forward and backward.
//!
//! Sums run over fixed pieces that are added in order, so that results do not depend on the number of threads.

use super::{BLOCK, Isa};
use rayon::prelude::*;

/// One value for each channel of a block.
pub(crate) type Lane = [f32; BLOCK];
/// The same for sums.
type Wide = [f64; BLOCK];

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

/// The statistics of each channel's group.
#[expect(
    clippy::cast_possible_truncation,
    reason = "statistics are kept in the network's precision"
)]
pub(crate) fn moments(x: &[f32], extent: Extent, eps: f64, isa: Isa) -> Moments {
    let plane = extent.voxels * BLOCK;
    let planes = x.len() / plane;
    // The first voxel as a shift keeps the sums small, so that f32 runs are exact enough.
    let shift = |i: usize| -> Lane { std::array::from_fn(|c| x[i * plane + c]) };
    let mut totals = sums(planes, extent.voxels, isa, |i, range| {
        let shift = shift(i);
        let (mut s, mut q) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        for voxel in x[i * plane..][range].chunks_exact(BLOCK) {
            for c in 0..BLOCK {
                let d = voxel[c] - shift[c];
                s[c] += d;
                q[c] += d * d;
            }
        }
        [s, q]
    });
    // Sums of differences to the shift → mean and variance of each channel.
    let voxels = extent.voxels as f64;
    for (i, [s, q]) in totals.iter_mut().enumerate() {
        let shift = shift(i);
        for c in 0..BLOCK {
            let mean = s[c] / voxels;
            q[c] = (q[c] / voxels - mean * mean).max(0.0);
            s[c] = mean + f64::from(shift[c]);
        }
    }
    let mut moments = vec![[[0.0f32; BLOCK]; 2]; planes];
    if extent.groups == extent.channels {
        for (moments, [mean, variance]) in moments.iter_mut().zip(&totals) {
            for c in 0..BLOCK {
                moments[0][c] = mean[c] as f32;
                moments[1][c] = (1.0 / (variance[c] + eps).sqrt()) as f32;
            }
        }
        return moments;
    }
    // E[x²] averages over channels, the variance does not.
    for [mean, variance] in &mut totals {
        for c in 0..BLOCK {
            variance[c] += mean[c] * mean[c];
        }
    }
    by_group(
        &totals,
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
pub(crate) fn lane(parameter: &[f32], block: usize) -> Lane {
    let mut lane = [0.0f32; BLOCK];
    let part = &parameter[block * BLOCK..parameter.len().min((block + 1) * BLOCK)];
    lane[..part.len()].copy_from_slice(part);
    lane
}

/// What each channel is multiplied with, and what is then added.
pub(crate) fn lines(moments: &Moments, weight: &[f32], bias: &[f32], extent: Extent) -> Vec<[Lane; 2]> {
    let line = |(i, [mean, inverse]): (usize, &[Lane; 2])| {
        let (weight, bias) = (lane(weight, i % extent.blocks), lane(bias, i % extent.blocks));
        let factor: Lane = std::array::from_fn(|c| weight[c] * inverse[c]);
        [factor, std::array::from_fn(|c| bias[c] - mean[c] * factor[c])]
    };
    moments.iter().enumerate().map(line).collect()
}

/// LeakyReLU of x · factor + offset, in place.
pub(crate) fn apply(x: &mut [f32], lines: &[[Lane; 2]], slope: f32, voxels: usize, isa: Isa) {
    let pieces = voxels.div_ceil(PIECE);
    // Pieces never straddle planes: a plane is cut from its own start.
    x.par_chunks_mut(voxels * BLOCK)
        .zip(lines)
        .for_each(|(plane, [factor, offset])| {
            let run = |piece: &mut [f32]| {
                isa.widely(
                    #[inline(always)]
                    || {
                        for voxel in piece.chunks_exact_mut(BLOCK) {
                            for c in 0..BLOCK {
                                let z = voxel[c] * factor[c] + offset[c];
                                voxel[c] = z.max(z * slope);
                            }
                        }
                    },
                );
            };
            if pieces == 1 {
                run(plane);
            } else {
                plane.par_chunks_mut(PIECE * BLOCK).for_each(run);
            }
        });
}

/// The same into another buffer.
pub(crate) fn apply_to(x: &[f32], out: &mut [f32], lines: &[[Lane; 2]], slope: f32, voxels: usize, isa: Isa) {
    out.par_chunks_mut(voxels * BLOCK)
        .zip(x.par_chunks(voxels * BLOCK))
        .zip(lines)
        .for_each(|((out, x), [factor, offset])| {
            out.par_chunks_mut(PIECE * BLOCK)
                .zip(x.par_chunks(PIECE * BLOCK))
                .for_each(|(out, x)| {
                    isa.widely(
                        #[inline(always)]
                        || {
                            for (out, x) in out.chunks_exact_mut(BLOCK).zip(x.chunks_exact(BLOCK)) {
                                for c in 0..BLOCK {
                                    let z = x[c] * factor[c] + offset[c];
                                    out[c] = z.max(z * slope);
                                }
                            }
                        },
                    );
                });
        });
}

/// What the gradient needs from the forward pass.
pub(crate) struct Forward<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) moments: &'a Moments,
    pub(crate) lines: &'a [[Lane; 2]],
    pub(crate) slope: f32,
    pub(crate) extent: Extent,
}

/// Gradients of x (into `gx`), of the weight and of the bias.
#[expect(
    clippy::cast_possible_truncation,
    reason = "gradients are kept in the network's precision"
)]
pub(crate) fn gradient(forward: &Forward, grad: &[f32], gx: &mut [f32], isa: Isa) -> (Vec<f32>, Vec<f32>) {
    let Forward { x, extent, slope, .. } = *forward;
    let plane = extent.voxels * BLOCK;
    let planes = x.len() / plane;
    // Σ g and Σ g · x̂ of each channel, g past the activation.
    let mut totals = sums(planes, extent.voxels, isa, |i, range| {
        let ([factor, offset], [mean, inverse]) = (forward.lines[i], forward.moments[i]);
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
            let ([factor, offset], [mean, inverse]) = (forward.lines[i], forward.moments[i]);
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
