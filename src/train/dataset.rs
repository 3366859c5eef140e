//! A seed → one training batch of phantom slices, as the network will see real ones.
//!
//! Each sample is its own head; of a few slices at random heights one is kept, more often one that bleeds.
//! The same (seed, step) gives the same batch, which is what makes training resumable to the step.
//! Nothing is mirrored left–right.

use super::phantom::{Head, Kind, Range, training_slices};
use crate::{
    analysis::preprocess::{AIR_HU, normalize::normalize},
    domain::plan::Plan,
};
use candle_core::{Device, Result, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Slices rendered for each sample that is kept.
const CANDIDATES: usize = 3;
/// Share of heads that bleed.
const BLEEDING: f64 = 0.7;
/// Pixels of a rendered slice, both axes, 1 mm each.
const MATRIX: usize = 256;

/// One batch.
#[derive(Debug)]
pub struct Batch {
    /// `[N, 1, rows, columns]`, normalised.
    pub input: Tensor,
    /// `[N, 1, rows, columns]`, 1 where it bleeds.
    pub truth: Tensor,
}

/// Draws the batch of a step.
///
/// # Errors
/// candle's.
pub fn batch(plan: &Plan, seed: u64, step: usize, size: usize, device: &Device) -> Result<Batch> {
    let [rows, columns] = [plan.configuration.patch_size[0], plan.configuration.patch_size[1]];
    let samples: Vec<(Vec<f32>, Vec<f32>)> = (0..size)
        .into_par_iter()
        .map(|i| sample(plan, seed, (step * size + i) as u64))
        .collect();
    let (input, truth): (Vec<Vec<f32>>, Vec<Vec<f32>>) = samples.into_iter().unzip();
    let dims = (size, 1, rows, columns);
    Ok(Batch {
        input: Tensor::from_vec(input.concat(), dims, device)?,
        truth: Tensor::from_vec(truth.concat(), dims, device)?,
    })
}

fn sample(plan: &Plan, seed: u64, index: u64) -> (Vec<f32>, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let kind = if rng.random_bool(BLEEDING) {
        Kind::Haemorrhage
    } else {
        Kind::Normal
    };
    let head = Head::new(rng.random(), kind, Range::Training);
    let geometry = training_slices(rng.random(), Range::Training, CANDIDATES, MATRIX, 1.0);
    let rendered = head.render(&geometry);
    let bleeding: Vec<usize> = (0..CANDIDATES)
        .filter(|s| rendered.truth.slice(*s).iter().any(|t| *t > 0))
        .collect();
    let slice = if bleeding.is_empty() || rng.random_bool(0.15) {
        rng.random_range(0..CANDIDATES)
    } else {
        bleeding[rng.random_range(0..bleeding.len())]
    };
    let mut hu = rendered.hu.slice(slice).to_vec();
    intensity(&mut hu, &mut rng);
    let truth = rendered.truth.slice(slice);
    let (rows, columns) = (plan.configuration.patch_size[0], plan.configuration.patch_size[1]);
    // The head's box is centred in the tile at inference; a little off here.
    let (top, left) = origin(&hu, [rows, columns], &mut rng);
    let mut image = vec![AIR_HU; rows * columns];
    let mut mask = vec![0.0f32; rows * columns];
    for r in 0..rows {
        for c in 0..columns {
            if let Some(at) = pixel(top, r).zip(pixel(left, c)).map(|(y, x)| y * MATRIX + x) {
                image[r * columns + c] = hu[at];
                mask[r * columns + c] = f32::from(u8::from(truth[at] > 0));
            }
        }
    }
    normalize(&mut image, &plan.configuration.normalization_schemes[0], None);
    (image, mask)
}

/// The rendered pixel under tile pixel `i`, if any.
fn pixel(origin: i64, i: usize) -> Option<usize> {
    usize::try_from(origin + i64::try_from(i).ok()?)
        .ok()
        .filter(|p| *p < MATRIX)
}

/// Where the tile starts so that the head is about in its middle.
#[expect(clippy::cast_possible_wrap, reason = "pixels of a small image")]
fn origin(hu: &[f32], tile: [usize; 2], rng: &mut ChaCha8Rng) -> (i64, i64) {
    let inside = |i: usize| hu[i] > -300.0;
    let rows: Vec<usize> = (0..MATRIX)
        .filter(|r| (0..MATRIX).any(|c| inside(r * MATRIX + c)))
        .collect();
    let columns: Vec<usize> = (0..MATRIX)
        .filter(|c| (0..MATRIX).any(|r| inside(r * MATRIX + c)))
        .collect();
    let mut start = |found: &[usize], tile: usize| {
        let (low, high) = (
            found.first().copied().unwrap_or(0),
            found.last().copied().unwrap_or(MATRIX - 1),
        );
        i64::midpoint(low as i64, high as i64) - tile as i64 / 2 + rng.random_range(-12..=12)
    };
    (start(&rows, tile[0]), start(&columns, tile[1]))
}

/// Small changes of gain, offset and sharpness beyond those of the phantom's scanner.
fn intensity(hu: &mut [f32], rng: &mut ChaCha8Rng) {
    let (gain, offset): (f32, f32) = (rng.random_range(0.94..1.06), rng.random_range(-3.0..3.0));
    for value in hu.iter_mut() {
        *value = (*value - 30.0) * gain + 30.0 + offset;
    }
    if rng.random_bool(0.25) {
        // A smoother kernel: each pixel with its four neighbours.
        let sharp = hu.to_vec();
        let share: f32 = rng.random_range(0.05..0.18);
        for r in 1..MATRIX - 1 {
            for c in 1..MATRIX - 1 {
                let i = r * MATRIX + c;
                let around = sharp[i - 1] + sharp[i + 1] + sharp[i - MATRIX] + sharp[i + MATRIX];
                hu[i] = sharp[i] * (1.0 - 4.0 * share) + share * around;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::recipe::haemorrhage_2d;

    #[test]
    fn the_same_step_gives_the_same_batch_and_another_step_another() {
        let plan = haemorrhage_2d(1);
        let draw = |step| {
            let b = batch(&plan, 7, step, 2, &Device::Cpu).unwrap();
            (
                b.input.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                b.truth.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            )
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
