//! Stage 3 for whole-volume plans: nnU-Net's input → the logits of one member after the other, on the network's grid.
//!
//! nnU-Net's sliding window: steps re-spaced evenly, a frame of zeros where the volume is smaller than a tile, Gaussian weights with sigma = tile / 8, the mean over all flips of the allowed axes.
//! A 2-D plan goes through the first axis slice by slice.
//! Weights are rounded to half precision as nnU-Net rounds them; sums are f32 where nnU-Net has half precision: the two differ by its rounding.
//! That rounding is no small one where only the corner of a tile reaches: nnU-Net's logits move there by up to 0.5 (`tests/golden/nnunet/make.py` prints it), and ours do not.
//! A tile that holds one value and no other (air, clipped) is computed once a member: the same input has the same answer.
//! Members are handed on one at a time, so that the logits of an ensemble are never in memory together.
//!
//! Source: nnU-Net v2, `predict_from_raw_data.py` and `sliding_window_prediction.py`.

use super::{Engine, InferError, bundle::Model, sliding_window::starts, valid};
use crate::domain::{
    network::{Control, VolumeInput},
    oriented::{Blend, Oriented},
    plan::Grid,
};

/// MONAI's least weight.
const LEAST_WEIGHT: f32 = 1e-3;
/// The greatest weight.
const LARGEST_WEIGHT: f64 = 10.0;
/// Below this, half precision has steps of [`HALF_STEP`] (IEEE 754: 10 bits of fraction, least exponent −14).
const HALF_NORMAL: f64 = 6.103_515_625e-5;
const HALF_STEP: f64 = 5.960_464_477_539_063e-8;
const HALF_FRACTION_BITS: i32 = 10;

/// Tiles of one volume.
#[derive(Debug, Clone, PartialEq)]
struct Window {
    volume: [usize; 3],
    patch: [usize; 3],
    starts: [Vec<usize>; 3],
    /// Zeros before the volume along each axis.
    pad: [usize; 3],
    weight: Vec<f32>,
}

impl Window {
    fn new(volume: [usize; 3], patch: [usize; 3], step: f64) -> Self {
        let padded: [usize; 3] = std::array::from_fn(|a| volume[a].max(patch[a]));
        Self {
            volume,
            patch,
            starts: std::array::from_fn(|a| starts(padded[a], patch[a], step)),
            pad: std::array::from_fn(|a| (padded[a] - volume[a]) / 2),
            weight: gaussian(patch),
        }
    }

    /// MONAI's tiles: a fixed interval, the last one moved back to touch the border.
    fn monais(volume: [usize; 3], patch: [usize; 3], chain: &Oriented) -> Self {
        let mut window = Self::new(volume, patch, 1.0);
        window.starts = std::array::from_fn(|a| {
            let len = volume[a].max(patch[a]);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a tile"
            )]
            let interval = if len == patch[a] {
                len
            } else {
                ((patch[a] as f64 * (1.0 - chain.overlap[a])) as usize).max(1)
            };
            let last = len - patch[a];
            let count = last.div_ceil(interval) + 1;
            (0..count).map(|i| (i * interval).min(last)).collect()
        });
        window.weight = importance(patch, chain.blend);
        window
    }

    fn origins(&self) -> impl Iterator<Item = [usize; 3]> + '_ {
        let [a, b, c] = &self.starts;
        a.iter()
            .flat_map(move |x| b.iter().flat_map(move |y| c.iter().map(move |z| [*x, *y, *z])))
    }

    /// Calls with the offset in a tile, the offset in the volume, and the length of each row that both have.
    fn rows(&self, origin: [usize; 3], mut call: impl FnMut(usize, usize, usize)) {
        let overlap: [(usize, usize, usize); 3] = std::array::from_fn(|a| {
            // Voxel v of the volume is voxel v + pad of the frame.
            let first = origin[a].max(self.pad[a]);
            let end = (origin[a] + self.patch[a]).min(self.pad[a] + self.volume[a]);
            (first - origin[a], first - self.pad[a], end.saturating_sub(first))
        });
        let [(tx, vx, nx), (ty, vy, ny), (tz, vz, nz)] = overlap;
        for x in 0..nx {
            for y in 0..ny {
                let tile = ((tx + x) * self.patch[1] + ty + y) * self.patch[2] + tz;
                let volume = ((vx + x) * self.volume[1] + vy + y) * self.volume[2] + vz;
                call(tile, volume, nz);
            }
        }
    }

    /// One tile of all channels; zeros outside the volume.
    fn cut(&self, input: &VolumeInput, origin: [usize; 3]) -> Vec<f32> {
        let (tile, volume) = (self.patch.iter().product(), self.volume.iter().product());
        let mut out = vec![0.0; input.channels * tile];
        for (out, data) in out.chunks_exact_mut(tile).zip(input.data.chunks_exact(volume)) {
            self.rows(origin, |t, v, n| out[t..t + n].copy_from_slice(&data[v..v + n]));
        }
        out
    }

    /// Adds the weighted logits of a tile, and the weights.
    fn add(&self, origin: [usize; 3], logits: &[f32], sums: &mut [f32], weights: &mut [f32]) {
        let (tile, volume): (usize, usize) = (self.patch.iter().product(), self.volume.iter().product());
        self.rows(origin, |t, v, n| {
            let factors = &self.weight[t..t + n];
            for (sum, factor) in weights[v..v + n].iter_mut().zip(factors) {
                *sum += factor;
            }
            for (k, class) in logits.chunks_exact(tile).enumerate() {
                let sums = &mut sums[k * volume + v..k * volume + v + n];
                for ((sum, logit), factor) in sums.iter_mut().zip(&class[t..t + n]).zip(factors) {
                    *sum += logit * factor;
                }
            }
        });
    }
}

/// The importance of each voxel of a tile, greatest in the middle.
#[expect(clippy::cast_possible_truncation, reason = "weights are used in f32")]
fn gaussian(patch: [usize; 3]) -> Vec<f32> {
    let axes = patch.map(|n| {
        let (centre, sigma) = ((n / 2) as f64, n as f64 / 8.0);
        let weight = |i: usize| (-0.5 * ((i as f64 - centre) / sigma).powi(2)).exp();
        // An axis of one voxel (a 2-D plan) has nothing to weigh.
        (0..n)
            .map(|i| if n == 1 { 1.0 } else { weight(i) })
            .collect::<Vec<f64>>()
    });
    let mut out = Vec::with_capacity(patch.iter().product());
    for x in &axes[0] {
        for y in &axes[1] {
            out.extend(axes[2].iter().map(|z| half(x * y * z * LARGEST_WEIGHT) as f32));
        }
    }
    let smallest = out
        .iter()
        .copied()
        .filter(|w| *w > 0.0)
        .fold(f32::INFINITY, f32::min);
    for weight in out.iter_mut().filter(|w| **w == 0.0) {
        *weight = smallest;
    }
    out
}

/// MONAI's weights of a tile, in single precision and never below a thousandth.
#[expect(
    clippy::cast_possible_truncation,
    reason = "MONAI computes in single precision"
)]
fn importance(patch: [usize; 3], blend: Blend) -> Vec<f32> {
    let Blend::Gaussian { sigma_scale } = blend else {
        return vec![1.0; patch.iter().product()];
    };
    let [a, b, c] = patch.map(|n| {
        let divisor = (-2.0 * (n as f64 * sigma_scale).powi(2)) as f32;
        let first = -((n as f64) - 1.0) / 2.0;
        (0..n)
            .map(|i| ((first + i as f64) as f32).powi(2) / divisor)
            .map(f32::exp)
            .collect::<Vec<f32>>()
    });
    let mut out = Vec::with_capacity(patch.iter().product());
    for x in &a {
        for y in &b {
            out.extend(c.iter().map(|z| (x * y * z).max(LEAST_WEIGHT)));
        }
    }
    out
}

/// The nearest value of half precision: nnU-Net keeps its weights so, and at the corners of a tile little else is left of them.
fn half(value: f64) -> f64 {
    let step = if value < HALF_NORMAL {
        HALF_STEP
    } else {
        (value.log2().floor() - f64::from(HALF_FRACTION_BITS)).exp2()
    };
    (value / step).round_ties_even() * step
}

/// The bits of each channel's value, if a tile of `voxels` has only one in each.
fn single_values(tile: &[f32], voxels: usize) -> Option<Vec<u32>> {
    tile.chunks_exact(voxels)
        .map(|channel| {
            let first = channel[0].to_bits();
            channel.iter().all(|v| v.to_bits() == first).then_some(first)
        })
        .collect()
}

/// Every set of the allowed axes, the empty one first.
fn flips(axes: &[usize]) -> Vec<Vec<usize>> {
    (0..1usize << axes.len())
        .map(|set| {
            let chosen = axes.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
            chosen.map(|(_, axis)| *axis).collect()
        })
        .collect()
}

/// Blocks of one tile's shape, each turned round along some axes.
fn flip(data: &[f32], patch: [usize; 3], axes: &[usize]) -> Vec<f32> {
    if axes.is_empty() {
        return data.to_vec();
    }
    let at = |axis: usize, i: usize| {
        if axes.contains(&axis) {
            patch[axis] - 1 - i
        } else {
            i
        }
    };
    let tile: usize = patch.iter().product();
    let mut out = Vec::with_capacity(data.len());
    for block in data.chunks_exact(tile) {
        for x in 0..patch[0] {
            for y in 0..patch[1] {
                let row = (at(0, x) * patch[1] + at(1, y)) * patch[2];
                let row = &block[row..row + patch[2]];
                if axes.contains(&2) {
                    out.extend(row.iter().rev());
                } else {
                    out.extend_from_slice(row);
                }
            }
        }
    }
    out
}

/// Runs every member and hands its logits on: `[class][first axis][second][third]` of the network's grid.
///
/// # Errors
/// [`InferError::Cancelled`] between tiles, or what the network or `take` said.
pub fn infer<E: From<InferError>>(
    engine: &Engine,
    model: &Model,
    input: &VolumeInput,
    control: &dyn Control,
    mut take: impl FnMut(Vec<f32>) -> Result<(), E>,
) -> Result<(), E> {
    let plan = &model.plan;
    if let Some(sizes) = plan.configuration.unpadded() {
        return valid::infer(engine, model, input, sizes, control, take);
    }
    let (patch, flat) = match *plan.configuration.patch_size.as_slice() {
        [a, b, c] => ([a, b, c], false),
        [b, c] => match &plan.configuration.grid {
            Grid::Oriented(chain) => (chain.tile(&[b, c]).unwrap_or([1, b, c]), true),
            _ => ([1, b, c], true),
        },
        ref other => {
            let what = format!("patch_size has {} axes, this build runs 2 and 3", other.len());
            let id = plan.id.clone();
            return Err(InferError::Model { id, what }.into());
        }
    };
    // Mirror axes are the network's own: in 2-D they count from the second.
    let axes: Vec<usize> = plan.mirror_axes.iter().map(|a| a + usize::from(flat)).collect();
    if axes.iter().any(|axis| *axis > 2) {
        let what = format!("mirror axes {:?} are not axes of the network", plan.mirror_axes);
        let id = plan.id.clone();
        return Err(InferError::Model { id, what }.into());
    }
    let window = match &plan.configuration.grid {
        Grid::Oriented(chain) => Window::monais(input.shape, patch, chain),
        _ => Window::new(input.shape, patch, plan.configuration.tile_step_size),
    };
    let flips = flips(&axes);
    let tile_voxels: usize = patch.iter().product();
    let classes = plan.configuration.architecture.num_classes();
    let voxels: usize = input.shape.iter().product();
    let origins: Vec<[usize; 3]> = window.origins().collect();
    let total = plan.members * origins.len();
    for member in 0..plan.members {
        let (mut sums, mut weights) = (vec![0.0f32; classes * voxels], vec![0.0f32; voxels]);
        let mut answered: Option<(Vec<u32>, Vec<f32>)> = None;
        for (done, origin) in origins.iter().enumerate() {
            if control.cancelled() {
                return Err(InferError::Cancelled.into());
            }
            let tile = window.cut(input, *origin);
            let single = single_values(&tile, tile_voxels);
            let known = answered
                .as_ref()
                .filter(|(values, _)| single.as_ref() == Some(values));
            if let Some((_, mean)) = known {
                window.add(*origin, mean, &mut sums, &mut weights);
            } else {
                let mut mean = vec![0.0f32; classes * tile_voxels];
                for flips_at_once in flips.chunks(super::batch_of(tile_voxels)) {
                    let turned = flips_at_once.iter().map(|axes| flip(&tile, patch, axes));
                    let turned = turned.collect::<Vec<_>>().concat();
                    let mut dims = vec![flips_at_once.len(), input.channels];
                    dims.extend(&plan.configuration.patch_size);
                    let logits = engine.forward(&plan.id, member, turned, dims)?;
                    for (axes, logits) in flips_at_once.iter().zip(logits.chunks(mean.len())) {
                        for (sum, logit) in mean.iter_mut().zip(flip(logits, patch, axes)) {
                            *sum += logit / flips.len() as f32;
                        }
                    }
                }
                window.add(*origin, &mean, &mut sums, &mut weights);
                answered = single.map(|values| (values, mean)).or(answered);
            }
            control.progress(member * origins.len() + done + 1, total);
        }
        for class in sums.chunks_exact_mut(voxels) {
            for (sum, weight) in class.iter_mut().zip(&weights) {
                *sum /= weight;
            }
        }
        take(sums)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_every_voxel_and_merge_to_what_was_cut(
            volume in prop::array::uniform3(1usize..14), patch in prop::array::uniform3(1usize..9),
        ) {
            let window = Window::new(volume, patch, 0.5);
            let len: usize = volume.iter().product();
            let input = VolumeInput { channels: 1, shape: volume, data: (0..len).map(|i| (i % 91) as f32).collect() };
            let (mut sums, mut weights) = (vec![0.0; len], vec![0.0; len]);
            for origin in window.origins() {
                window.add(origin, &window.cut(&input, origin), &mut sums, &mut weights);
            }
            for i in 0..len {
                prop_assert!((sums[i] / weights[i] - input.data[i]).abs() < 1e-3);
            }
        }

        #[test]
        fn a_flip_undoes_itself(patch in prop::array::uniform3(1usize..5), set in 0usize..8) {
            let data: Vec<f32> = (0..2 * patch.iter().product::<usize>()).map(|i| i as f32).collect();
            let axes = &flips(&[0, 1, 2])[set];
            prop_assert_eq!(flip(&flip(&data, patch, axes), patch, axes), data);
        }
    }

    #[test]
    fn only_a_tile_of_one_value_a_channel_is_one() {
        let bits = |v: f32| v.to_bits();
        assert_eq!(
            single_values(&[2.0, 2.0, -1.0, -1.0], 2),
            Some(vec![bits(2.0), bits(-1.0)])
        );
        assert_eq!(single_values(&[2.0, 2.0, -1.0, -1.5], 2), None);
        // Equal, and not the same to every operation.
        assert_eq!(single_values(&[0.0, -0.0], 2), None);
    }

    #[test]
    fn all_sets_of_axes_are_flipped() {
        assert_eq!(flips(&[]), [Vec::<usize>::new()]);
        assert_eq!(flips(&[1, 2]), [vec![], vec![1], vec![2], vec![1, 2]]);
    }

    /// The values that scipy 1.17 gives for nnU-Net's call with tile (4, 6, 8), times ten.
    #[test]
    fn weights_are_nnunets() {
        let weight = gaussian([4, 6, 8]);
        let at = |x: usize, y: usize, z: usize| weight[(x * 6 + y) * 8 + z];
        assert!((at(2, 3, 4) - 10.0).abs() < 1e-6);
        let expected = 10.0 * (-0.5f64 * (1.0 / 0.25 + 4.0 / (0.75 * 0.75) + 9.0)).exp();
        assert!((f64::from(at(1, 1, 1)) - expected).abs() < 5e-4 * expected);
        // 10 × exp(−24) is nothing in half precision, and takes the place of the smallest that is something.
        assert!(at(0, 0, 0) > 0.0 && at(0, 0, 0) == weight.iter().copied().fold(f32::INFINITY, f32::min));
        assert_eq!(
            [1.0, 0.1, 3e-8, 2e-8].map(half),
            [1.0, 0.099_975_585_937_5, HALF_STEP, 0.0]
        );
    }
}
