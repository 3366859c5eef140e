//! A patch → the same patch as another scanner, position or head would have shown it.
//!
//! Turned and scaled as it is read, then mirrored where that is allowed, then its values changed: noise, blur, brightness, contrast, low resolution, gamma.
//! Everything is drawn from the generator that is handed in, so that the same sample is always changed in the same way.
//! Left and right are never exchanged unless somebody said that they mean nothing.
//! What it deliberately does not do: elastic deformation, which nnU-Net dropped for want of effect.
//!
//! Source: kinds, ranges and shares of nnU-Net v2 (`nnUNetTrainer.py`); `SynthSeg` (doi:10.1016/j.media.2023.102789) for values drawn anew; CutMix, arXiv:1905.04899; mixup, arXiv:1710.09412.

use super::loss::IGNORE;
use crate::domain::resample::{Method, resample};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Share of patches that are turned, and, independently, scaled.
const MOVED: f64 = 0.2;
/// Largest turn about an axis, degrees: nnU-Net's for 3-D; heads lie as they lie.
const TURN_DEGREES: f64 = 30.0;
/// Scaling: below 1 shows a larger part of the head.
const SCALE: [f64; 2] = [0.7, 1.4];
/// A tile whose axes differ by more than this is turned and scaled in its planes only.
const FLAT: usize = 3;
/// Share of patches with values drawn anew, where that was asked for.
const RANDOMISED: f64 = 0.5;
/// Knots of the curve that they are drawn from, over ± this many standard deviations.
const KNOTS: usize = 9;
const KNOTS_OVER: f32 = 4.0;
/// Share of samples that hold a box of another, where that was asked for.
pub const CUTMIX: f64 = 0.25;

/// Which changes are made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Augmentation {
    /// Turn and scale.
    pub spatial: bool,
    /// Noise, blur, brightness, contrast, low resolution, gamma.
    pub intensity: bool,
    /// Channels show one scan: the values of all change alike.
    pub one_scan: bool,
    /// Axes of the volume that may be mirrored.
    pub mirror: Vec<usize>,
    /// SynthSeg's idea: values drawn anew, so that only shapes and borders are left to learn from.
    pub randomise: bool,
    /// A box of another sample, with its labels.
    pub cutmix: bool,
    /// Weighted sums of neighbouring samples of a batch.
    pub mixup: bool,
}

/// A turn and a scale: where in the volume a voxel of the tile looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Warp {
    /// Offset from the middle of the tile → offset from the same point of the volume, in voxels.
    matrix: [[f64; 3]; 3],
}

impl Warp {
    /// A warp for a tile, or none for most.
    #[must_use]
    pub fn draw(rng: &mut ChaCha8Rng, tile: [usize; 3]) -> Option<Self> {
        let (turned, scaled) = (rng.random_bool(MOVED), rng.random_bool(MOVED));
        if !turned && !scaled {
            return None;
        }
        let (longest, shortest) = (tile.iter().max()?, tile.iter().min()?);
        let flat = *longest > FLAT * shortest;
        let scale = if scaled {
            1.0 / rng.random_range(SCALE[0]..SCALE[1])
        } else {
            1.0
        };
        let mut matrix: [[f64; 3]; 3] = std::array::from_fn(|r| std::array::from_fn(|c| f64::from(r == c)));
        for axis in if flat { 0..1 } else { 0..3 } {
            let degrees = if turned {
                rng.random_range(-TURN_DEGREES..TURN_DEGREES)
            } else {
                0.0
            };
            let (sin, cos) = degrees.to_radians().sin_cos();
            let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
            for row in &mut matrix {
                let (p, q) = (row[a], row[b]);
                (row[a], row[b]) = (p * cos + q * sin, q * cos - p * sin);
            }
        }
        for (r, row) in matrix.iter_mut().enumerate() {
            if !flat || r > 0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        }
        Some(Self { matrix })
    }

    /// How far from the middle the tile looks along each axis of the volume, voxels.
    #[must_use]
    pub fn reach(&self, tile: [usize; 3]) -> [f64; 3] {
        self.matrix
            .map(|row| (0..3).map(|c| row[c].abs() * (tile[c] - 1) as f64 / 2.0).sum())
    }

    /// Where each voxel of a tile looks, in voxels of a region whose `middle` is the tile's.
    pub fn places(&self, tile: [usize; 3], middle: [f64; 3]) -> impl Iterator<Item = [f64; 3]> + '_ {
        let half = tile.map(|n| (n - 1) as f64 / 2.0);
        (0..tile.iter().product()).map(move |i: usize| {
            let at = [i / (tile[1] * tile[2]), i / tile[2] % tile[1], i % tile[2]];
            let offset: [f64; 3] = std::array::from_fn(|a| at[a] as f64 - half[a]);
            std::array::from_fn(|r| middle[r] + (0..3).map(|c| self.matrix[r][c] * offset[c]).sum::<f64>())
        })
    }
}

/// The value between eight voxels; outside, that of the edge.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "images are f32")]
pub fn between(data: &[f32], shape: [usize; 3], at: [f64; 3]) -> f32 {
    let corner = at.map(f64::floor);
    let share: [f64; 3] = std::array::from_fn(|a| at[a] - corner[a]);
    let mut sum = 0.0;
    for bits in 0..8usize {
        let up = [bits >> 2 & 1, bits >> 1 & 1, bits & 1];
        let weight: f64 = (0..3)
            .map(|a| if up[a] == 1 { share[a] } else { 1.0 - share[a] })
            .product();
        if weight > 0.0 {
            let place = std::array::from_fn(|a| corner[a] + up[a] as f64);
            sum += weight * f64::from(data[nearest(shape, place)]);
        }
    }
    sum as f32
}

/// The index of the voxel nearest to a place.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the array"
)]
pub fn nearest(shape: [usize; 3], at: [f64; 3]) -> usize {
    let [x, y, z]: [usize; 3] =
        std::array::from_fn(|a| at[a].round().clamp(0.0, (shape[a] - 1) as f64) as usize);
    (x * shape[1] + y) * shape[2] + z
}

impl Augmentation {
    /// Changes a tile in place.
    ///
    /// # Shape
    /// `input`: channels of `tile`; `truth`: `tile`.
    pub fn apply(&self, rng: &mut ChaCha8Rng, input: &mut [f32], truth: &mut [u8], tile: [usize; 3]) {
        for axis in &self.mirror {
            if rng.random_bool(0.5) {
                mirror(input, tile, *axis);
                mirror(truth, tile, *axis);
            }
        }
        let voxels: usize = tile.iter().product();
        if self.randomise && rng.random_bool(RANDOMISED) {
            for channel in input.chunks_exact_mut(voxels) {
                randomise(rng, channel, truth);
            }
        }
        if self.intensity {
            for channel in input.chunks_exact_mut(voxels) {
                if self.one_scan {
                    vary(&mut rng.clone(), channel, tile);
                } else {
                    vary(rng, channel, tile);
                }
            }
        }
    }
}

/// Turns blocks of a tile's shape round along an axis.
fn mirror<T>(data: &mut [T], tile: [usize; 3], axis: usize) {
    let inner: usize = tile[axis + 1..].iter().product();
    for line in data.chunks_exact_mut(tile[axis] * inner) {
        for i in 0..tile[axis] / 2 {
            let (low, high) = line.split_at_mut((tile[axis] - 1 - i) * inner);
            low[i * inner..(i + 1) * inner].swap_with_slice(&mut high[..inner]);
        }
    }
}

/// Values through a random curve, and each label shifted by a value of its own.
fn randomise(rng: &mut ChaCha8Rng, channel: &mut [f32], truth: &[u8]) {
    let curve: [f32; KNOTS] = std::array::from_fn(|_| normal(rng));
    let shifts: [f32; 256] = std::array::from_fn(|_| 0.5 * normal(rng));
    for (value, label) in channel.iter_mut().zip(truth) {
        let at = ((*value / KNOTS_OVER).clamp(-1.0, 1.0) + 1.0) / 2.0 * (KNOTS - 1) as f32;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index of the curve"
        )]
        let knot = (at as usize).min(KNOTS - 2);
        let share = at - knot as f32;
        *value = curve[knot] * (1.0 - share) + curve[knot + 1] * share;
        if !matches!(*label, 0 | IGNORE) {
            *value += shifts[usize::from(*label)];
        }
    }
}

/// nnU-Net's changes of values, each for itself.
fn vary(rng: &mut ChaCha8Rng, channel: &mut [f32], tile: [usize; 3]) {
    if rng.random_bool(0.1) {
        let deviation = rng.random_range(0.0f32..0.1).sqrt();
        channel.iter_mut().for_each(|v| *v += deviation * normal(rng));
    }
    if rng.random_bool(0.1) {
        blur(channel, tile, rng.random_range(0.5..1.0));
    }
    if rng.random_bool(0.15) {
        let factor = rng.random_range(0.75f32..1.25);
        channel.iter_mut().for_each(|v| *v *= factor);
    }
    if rng.random_bool(0.15) {
        let (factor, mean) = (rng.random_range(0.75f32..1.25), moments(channel).0);
        let (low, high) = range(channel);
        channel
            .iter_mut()
            .for_each(|v| *v = ((*v - mean) * factor + mean).clamp(low, high));
    }
    if rng.random_bool(0.125) {
        coarsen(channel, tile, rng.random_range(0.5..1.0));
    }
    if rng.random_bool(0.1) {
        channel.iter_mut().for_each(|v| *v = -*v);
        gamma(channel, rng.random_range(0.7..1.5));
        channel.iter_mut().for_each(|v| *v = -*v);
    }
    if rng.random_bool(0.3) {
        gamma(channel, rng.random_range(0.7..1.5));
    }
}

/// As if scanned at a share of the resolution: nearest voxels on the way down, a spline on the way up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of a tile"
)]
fn coarsen(channel: &mut [f32], tile: [usize; 3], share: f64) {
    let small = tile.map(|n| ((n as f64 * share).round() as usize).max(1));
    let method = |order| Method { order, apart: None };
    let down = resample(channel.to_vec(), tile, small, method(0));
    channel.copy_from_slice(&resample(down, small, tile, method(3)));
}

/// A power of the values' place in their range; mean and deviation stay.
fn gamma(channel: &mut [f32], power: f32) {
    let (low, high) = range(channel);
    let (mean, deviation) = moments(channel);
    let width = (high - low).max(1e-7);
    channel
        .iter_mut()
        .for_each(|v| *v = ((*v - low) / width).powf(power) * width + low);
    let (now, spread) = moments(channel);
    let factor = deviation / spread.max(1e-7);
    channel.iter_mut().for_each(|v| *v = (*v - now) * factor + mean);
}

/// A Gaussian of so many voxels along every axis, the edges repeated.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few voxels"
)]
fn blur(channel: &mut [f32], tile: [usize; 3], sigma: f32) {
    let radius = (3.0 * sigma).ceil() as usize;
    let mut kernel: Vec<f32> = (0..=2 * radius)
        .map(|i| (-0.5 * ((i as f32 - radius as f32) / sigma).powi(2)).exp())
        .collect();
    let sum: f32 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= sum);
    for axis in (0..3).filter(|axis| tile[*axis] > 1) {
        let inner: usize = tile[axis + 1..].iter().product();
        let n = tile[axis];
        let mut line = vec![0.0; n];
        for block in channel.chunks_exact_mut(n * inner) {
            for column in 0..inner {
                for (i, value) in line.iter_mut().enumerate() {
                    *value = block[i * inner + column];
                }
                for i in 0..n {
                    block[i * inner + column] = kernel
                        .iter()
                        .enumerate()
                        .map(|(k, weight)| weight * line[(i + k).saturating_sub(radius).min(n - 1)])
                        .sum();
                }
            }
        }
    }
}

fn range(channel: &[f32]) -> (f32, f32) {
    channel
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| {
            (low.min(*v), high.max(*v))
        })
}

#[expect(clippy::cast_possible_truncation, reason = "images are f32")]
fn moments(channel: &[f32]) -> (f32, f32) {
    let count = channel.len() as f64;
    let mean = channel.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = channel
        .iter()
        .map(|v| (f64::from(*v) - mean).powi(2))
        .sum::<f64>()
        / count;
    (mean as f32, variance.sqrt() as f32)
}

/// About normal: the sum of twelve uniform numbers less six has variance one.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn all() -> Augmentation {
        Augmentation {
            spatial: true,
            intensity: true,
            one_scan: false,
            mirror: vec![0, 1],
            randomise: true,
            cutmix: false,
            mixup: false,
        }
    }

    #[test]
    fn channels_of_one_scan_change_alike_and_others_each_for_itself() {
        let tile = [1, 12, 12];
        let image: Vec<f32> = (0..144).map(|v| (v % 17) as f32 / 9.0).collect();
        let equal = |one_scan: bool| {
            let some = Augmentation {
                intensity: true,
                one_scan,
                ..Augmentation::default()
            };
            (0..20).all(|seed| {
                let mut input = image.repeat(2);
                some.apply(&mut rng(seed), &mut input, &mut [0; 144], tile);
                input[..144] == input[144..]
            })
        };
        assert!(equal(true) && !equal(false));
    }

    #[test]
    fn the_same_generator_changes_a_tile_in_the_same_way_and_never_out_of_all_bounds() {
        let tile = [4, 6, 8];
        for seed in 0..60 {
            let run = || {
                let mut input: Vec<f32> = (0..192u8).map(|i| f32::from(i % 23) / 8.0 - 1.0).collect();
                let mut truth: Vec<u8> = (0..192u8).map(|i| i % 3).collect();
                all().apply(&mut rng(seed), &mut input, &mut truth, tile);
                (input, truth)
            };
            let (input, truth) = run();
            assert_eq!((&input, &truth), (&run().0, &run().1));
            assert!(input.iter().all(|v| v.is_finite() && v.abs() < 100.0));
            assert_eq!(truth.iter().filter(|t| **t == 1).count(), 64);
        }
    }

    #[test]
    fn mirroring_takes_the_labels_along_and_leaves_other_axes_alone() {
        let tile = [2, 3, 4];
        let mut data: Vec<usize> = (0..24).collect();
        mirror(&mut data, tile, 1);
        assert_eq!(data[..4], [8, 9, 10, 11]);
        assert_eq!(data[12..16], [20, 21, 22, 23]);
        mirror(&mut data, tile, 1);
        assert_eq!(data, (0..24).collect::<Vec<_>>());
        let no_mirrors = Augmentation::default();
        let (mut input, mut truth) = (vec![1.0, 2.0], vec![1, 2]);
        no_mirrors.apply(&mut rng(1), &mut input, &mut truth, [1, 1, 2]);
        assert_eq!((input, truth), (vec![1.0, 2.0], vec![1, 2]));
    }

    #[test]
    fn a_warp_keeps_the_middle_where_it_is_and_stays_within_its_reach() {
        let tile = [9, 9, 9];
        let warps: Vec<Warp> = (0..40).filter_map(|s| Warp::draw(&mut rng(s), tile)).collect();
        assert!(warps.len() > 5);
        for warp in warps {
            let reach = warp.reach(tile);
            let middle = [20.0, 21.0, 22.0];
            let places: Vec<[f64; 3]> = warp.places(tile, middle).collect();
            assert_eq!(places[364], middle);
            for place in places {
                assert!((0..3).all(|a| (place[a] - middle[a]).abs() <= reach[a] + 1e-9));
            }
        }
        // A flat tile stays in its plane.
        let flat = [1, 32, 32];
        for warp in (0..40).filter_map(|s| Warp::draw(&mut rng(s), flat)) {
            assert!(
                warp.places(flat, [5.0, 16.0, 16.0])
                    .all(|p| (p[0] - 5.0).abs() < 1e-12)
            );
        }
    }

    #[test]
    fn values_between_voxels_are_linear_and_gamma_keeps_mean_and_deviation() {
        let data: Vec<f32> = (0..8u8).map(f32::from).collect();
        assert!((between(&data, [2, 2, 2], [0.5, 0.5, 0.5]) - 3.5).abs() < 1e-6);
        assert!((between(&data, [2, 2, 2], [1.0, 0.0, 0.25]) - 4.25).abs() < 1e-6);
        let mut bent: Vec<f32> = (0..50u8).map(f32::from).collect();
        let before = moments(&bent);
        gamma(&mut bent, 1.4);
        let after = moments(&bent);
        assert!((before.0 - after.0).abs() < 1e-3 && (before.1 - after.1).abs() < 1e-3);
        assert!((bent[25] - 25.0).abs() > 0.5);
    }
}
