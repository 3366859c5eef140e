//! An array of three axes → another size, with first voxels on each other, as MONAI's `Spacing` does it.
//!
//! Output voxel `o` samples input coordinate `o × ratio`, linearly, in double precision, the edges repeated.
//!
//! Source: MONAI 1.6.1, `spatial_resample` (torch's `grid_sample` with `padding_mode="border"`).

use rayon::prelude::*;

/// From here on a difference of spacings, or of their ratio to 1, counts. Source: MONAI's `AFFINE_TOL`.
const TOLERANCE: f64 = 1e-3;

/// The size of the array at another spacing, and how many input voxels each output voxel is.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of arrays, far below 2^52"
)]
pub fn new_shape(shape: [usize; 3], current_mm: [f64; 3], new_mm: [f64; 3]) -> ([usize; 3], [f64; 3]) {
    let ratio: [f64; 3] = std::array::from_fn(|a| {
        let kept = (current_mm[a] - new_mm[a]).abs() <= TOLERANCE;
        if kept { 1.0 } else { new_mm[a] / current_mm[a] }
    });
    let new: [usize; 3] =
        std::array::from_fn(|a| ((shape[a] - 1) as f64 / ratio[a] + 1.0).round_ties_even() as usize);
    if new == shape && ratio.iter().all(|r| (r - 1.0).abs() <= TOLERANCE + 1e-5) {
        return (shape, [1.0; 3]);
    }
    (new, ratio)
}

/// The neighbours of a coordinate, and the share of the second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates are clamped to the array"
)]
fn tap(n: usize, at: usize, ratio: f64) -> [(usize, f64); 2] {
    let last = (n - 1) as f64;
    let x = (at as f64 * ratio).min(last);
    let low = x.floor();
    let share = x - low;
    [
        (low as usize, 1.0 - share),
        ((low + 1.0).min(last) as usize, share),
    ]
}

/// One output plane: `at` on the first axis, `new` rows and columns.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "arrays are f32")]
pub fn plane(data: &[f32], shape: [usize; 3], at: usize, new: [usize; 2], ratio: [f64; 3]) -> Vec<f32> {
    let across = tap(shape[0], at, ratio[0]);
    let columns: Vec<_> = (0..new[1]).map(|o| tap(shape[2], o, ratio[2])).collect();
    let mut out = Vec::with_capacity(new[0] * new[1]);
    for o in 0..new[0] {
        let rows = tap(shape[1], o, ratio[1]);
        for column in &columns {
            let mut sum = 0.0;
            for (x, a) in across {
                for (y, b) in rows {
                    for (z, c) in column {
                        let weight = a * b * c;
                        if weight != 0.0 {
                            sum += weight * f64::from(data[(x * shape[1] + y) * shape[2] + z]);
                        }
                    }
                }
            }
            out.push(sum as f32);
        }
    }
    out
}

/// The whole array.
#[must_use]
pub fn resample(data: &[f32], shape: [usize; 3], new: [usize; 3], ratio: [f64; 3]) -> Vec<f32> {
    if new == shape && ratio == [1.0; 3] {
        return data.to_vec();
    }
    (0..new[0])
        .into_par_iter()
        .flat_map_iter(|at| plane(data, shape, at, [new[1], new[2]], ratio))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_voxels_stay_and_the_last_is_repeated() {
        let (new, ratio) = new_shape([1, 1, 4], [1.0, 1.0, 2.0], [1.0, 1.0, 1.5]);
        assert_eq!((new, ratio), ([1, 1, 5], [1.0, 1.0, 0.75]));
        let out = resample(&[0.0, 4.0, 8.0, 12.0], [1, 1, 4], new, ratio);
        assert_eq!(out, [0.0, 3.0, 6.0, 9.0, 12.0]);
        let (new, ratio) = new_shape([1, 1, 4], [1.0; 3], [1.0, 1.0, 1.7]);
        assert_eq!(new, [1, 1, 3]);
        let beyond = resample(&[0.0, 1.0, 2.0, 3.0], [1, 1, 4], new, ratio);
        assert_eq!(beyond, [0.0, 1.7, 3.0]);
    }

    #[test]
    fn spacings_that_differ_by_next_to_nothing_change_nothing() {
        let same = ([9, 9, 9], [1.0; 3]);
        assert_eq!(new_shape([9; 3], [1.0009; 3], [1.0; 3]), same);
        assert_eq!(new_shape([9; 3], [5.004; 3], [5.0; 3]), same);
        assert_eq!(new_shape([9; 3], [1.1; 3], [1.0; 3]).0, [10; 3]);
    }
}
