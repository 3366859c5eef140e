//! An array of three axes → another size, as nnU-Net's `resample_data_or_seg_to_shape` does it.
//!
//! Voxel edges stay where they are: output voxel `o` of `m` samples input coordinate `(o + 0.5) × n / m − 0.5`.
//! Order 3 is an interpolating cubic B-spline over the edge-extended array, clipped to the range of its input; order 1 is linear, order 0 takes the nearest voxel.
//! Splines are separable, so the axes are resampled one after the other; an axis that keeps its size is left alone.
//! A coarse axis may be treated apart: the planes across it first, each clipped to its own range, then the axis itself.
//!
//! Source: scipy `ndimage.zoom(grid_mode=True, mode="nearest")` as scikit-image `resize` calls it; Unser et al., doi:10.1109/78.193220 (recursive prefilter).

use rayon::prelude::*;

/// Pole of the cubic B-spline's inverse filter, √3 − 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Edge voxels repeated at either end: as many as scipy repeats, after which the ends no longer matter (POLE to the power of 24).
const PAD: usize = 12;
/// Columns that are filtered together.
const LANES: usize = 32;
/// From this ratio of spacings on an axis is coarse enough to be treated apart. Source: nnU-Net's ANISO_THRESHOLD.
const ANISOTROPY: f64 = 3.0;

/// How an array is resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Order of the spline: 0, 1 or 3.
    pub order: u8,
    /// The axis that is treated apart, and the order along it: 0 or 1.
    pub apart: Option<(usize, u8)>,
}

/// The axis that nnU-Net treats apart between two spacings, if any.
#[must_use]
pub fn axis_apart(force: Option<bool>, current_mm: [f64; 3], new_mm: [f64; 3]) -> Option<usize> {
    let ratio = |mm: [f64; 3]| {
        mm.iter().copied().fold(0.0, f64::max) / mm.iter().copied().fold(f64::INFINITY, f64::min)
    };
    // Two or three coarsest axes are no axis to treat apart.
    let coarsest = |mm: [f64; 3]| {
        let most = mm.iter().copied().fold(0.0, f64::max);
        let mut axes = (0..3).filter(|a| most / mm[*a] == 1.0);
        axes.next().filter(|_| axes.next().is_none())
    };
    match force {
        Some(false) => None,
        Some(true) => coarsest(current_mm),
        None if ratio(current_mm) > ANISOTROPY => coarsest(current_mm),
        None if ratio(new_mm) > ANISOTROPY => coarsest(new_mm),
        None => None,
    }
}

/// The size that an array gets at another spacing.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of arrays, far below 2^52"
)]
pub fn new_shape(shape: [usize; 3], current_mm: [f64; 3], new_mm: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| (current_mm[a] / new_mm[a] * shape[a] as f64).round_ties_even() as usize)
}

/// Resamples an array.
#[must_use]
pub fn resample(data: Vec<f32>, shape: [usize; 3], new: [usize; 3], method: Method) -> Vec<f32> {
    if shape == new {
        return data;
    }
    let (mut data, mut now) = (data, shape);
    let apart = method.apart.map(|(axis, _)| axis);
    let in_planes: Vec<usize> = (0..3)
        .filter(|a| Some(*a) != apart && now[*a] != new[*a])
        .collect();
    let ranges = (method.order == 3 && !in_planes.is_empty()).then(|| ranges(&data, now, apart));
    for axis in in_planes {
        data = along(&data, now, axis, new[axis], method.order);
        now[axis] = new[axis];
    }
    if let Some(ranges) = ranges {
        clip(&mut data, now, apart, &ranges);
    }
    if let Some((axis, order)) = method.apart
        && now[axis] != new[axis]
    {
        data = along(&data, now, axis, new[axis], order);
    }
    data
}

/// Lowest and highest value of the array, or of each plane across an axis.
fn ranges(data: &[f32], shape: [usize; 3], apart: Option<usize>) -> Vec<[f32; 2]> {
    let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; apart.map_or(1, |axis| shape[axis])];
    each(data.len(), shape, apart, |i, plane| {
        let [low, high] = &mut ranges[plane];
        *low = low.min(data[i]);
        *high = high.max(data[i]);
    });
    ranges
}

fn clip(data: &mut [f32], shape: [usize; 3], apart: Option<usize>, ranges: &[[f32; 2]]) {
    each(data.len(), shape, apart, |i, plane| {
        let [low, high] = ranges[plane];
        data[i] = data[i].clamp(low, high);
    });
}

/// Calls with each voxel and the index of its plane across `apart`.
fn each(len: usize, shape: [usize; 3], apart: Option<usize>, mut call: impl FnMut(usize, usize)) {
    let Some(axis) = apart else {
        (0..len).for_each(|i| call(i, 0));
        return;
    };
    let inner: usize = shape[axis + 1..].iter().product();
    (0..len).for_each(|i| call(i, i / inner % shape[axis]));
}

/// The taps of one output voxel along an axis: the first input voxel (of the padded line) and up to four weights.
type Taps = (usize, [f64; 4]);

/// Taps of every output voxel on a line padded by [`PAD`] at either end.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates lie within the padded line"
)]
fn taps(n: usize, m: usize, order: u8) -> Vec<Taps> {
    (0..m)
        .map(|o| {
            let at = (o as f64 + 0.5) * n as f64 / m as f64 - 0.5 + PAD as f64;
            match order {
                0 => ((at + 0.5).floor() as usize, [1.0, 0.0, 0.0, 0.0]),
                1 => {
                    let low = at.floor();
                    let t = at - low;
                    (low as usize, [1.0 - t, t, 0.0, 0.0])
                }
                _ => {
                    let low = at.floor();
                    let t = at - low;
                    let u = 1.0 - t;
                    let weights = [
                        u * u * u / 6.0,
                        2.0 / 3.0 - t * t * (2.0 - t) / 2.0,
                        2.0 / 3.0 - u * u * (2.0 - u) / 2.0,
                        t * t * t / 6.0,
                    ];
                    (low as usize - 1, weights)
                }
            }
        })
        .collect()
}

/// Resamples one axis; all others keep their size.
fn along(data: &[f32], shape: [usize; 3], axis: usize, m: usize, order: u8) -> Vec<f32> {
    let n = shape[axis];
    let (outer, inner): (usize, usize) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
    let taps = taps(n, m, order);
    let blocks = inner.div_ceil(LANES);
    // One job a block of columns; a job's columns do not meet another's.
    let done: Vec<Vec<f32>> = (0..outer * blocks)
        .into_par_iter()
        .map_init(Vec::new, |line, job| {
            let (o, first) = (job / blocks, job % blocks * LANES);
            let width = LANES.min(inner - first);
            gather(
                &data[o * n * inner..(o + 1) * n * inner],
                n,
                inner,
                first,
                width,
                line,
            );
            if order == 3 {
                prefilter(line, width);
            }
            sample(line, width, &taps)
        })
        .collect();
    let mut out = vec![0.0f32; outer * m * inner];
    out.par_chunks_mut(inner).enumerate().for_each(|(row, out)| {
        let (o, k) = (row / m, row % m);
        for block in 0..blocks {
            let first = block * LANES;
            let width = LANES.min(inner - first);
            let from = &done[o * blocks + block][k * width..(k + 1) * width];
            out[first..first + width].copy_from_slice(from);
        }
    });
    out
}

/// Copies columns `first..first + width` of `[n][inner]`, the edges repeated.
fn gather(data: &[f32], n: usize, inner: usize, first: usize, width: usize, line: &mut Vec<f64>) {
    line.clear();
    for k in 0..n + 2 * PAD {
        let row = k.saturating_sub(PAD).min(n - 1);
        let from = row * inner + first;
        line.extend(data[from..from + width].iter().map(|v| f64::from(*v)));
    }
}

/// Values of columns → coefficients of the cubic B-spline through them, the ends going on for ever.
fn prefilter(line: &mut [f64], width: usize) {
    let rows = line.len() / width;
    // (1 − z)(1 − 1/z)
    let gain = (1.0 - POLE) * (1.0 - 1.0 / POLE);
    for value in line.iter_mut() {
        *value *= gain;
    }
    for value in &mut line[..width] {
        *value /= 1.0 - POLE;
    }
    for row in 1..rows {
        let (before, now) = line.split_at_mut(row * width);
        let before = &before[(row - 1) * width..];
        for (value, before) in now[..width].iter_mut().zip(before) {
            *value += POLE * before;
        }
    }
    for value in &mut line[(rows - 1) * width..] {
        *value *= POLE / (POLE - 1.0);
    }
    for row in (0..rows - 1).rev() {
        let (now, after) = line.split_at_mut((row + 1) * width);
        for (value, after) in now[row * width..].iter_mut().zip(&after[..width]) {
            *value = POLE * (after - *value);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "arrays are f32")]
fn sample(line: &[f64], width: usize, taps: &[Taps]) -> Vec<f32> {
    let mut out = Vec::with_capacity(taps.len() * width);
    for (first, weights) in taps {
        for column in 0..width {
            let value = |t: usize| match weights[t] {
                0.0 => 0.0,
                weight => weight * line[(first + t) * width + column],
            };
            out.push((value(0) + value(1) + value(2) + value(3)) as f32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CUBIC: Method = Method {
        order: 3,
        apart: None,
    };

    #[test]
    fn a_coarse_axis_is_treated_apart_and_an_ambiguous_one_is_not() {
        let even = [1.0, 1.0, 1.0];
        assert_eq!(axis_apart(None, [5.0, 0.5, 0.5], even), Some(0));
        assert_eq!(axis_apart(None, even, [0.5, 0.5, 5.0]), Some(2));
        assert_eq!(axis_apart(None, [2.0, 1.0, 1.0], even), None);
        assert_eq!(axis_apart(None, [5.0, 5.0, 0.5], even), None);
        assert_eq!(axis_apart(Some(true), [2.0, 1.0, 1.0], even), Some(0));
        assert_eq!(axis_apart(Some(false), [9.0, 1.0, 1.0], even), None);
    }

    proptest! {
        #[test]
        fn a_constant_stays_and_nothing_leaves_the_range(
            shape in prop::array::uniform3(2usize..9), new in prop::array::uniform3(2usize..14), seed: u64,
        ) {
            let len = shape.iter().product();
            let method = |order, apart| Method { order, apart };
            for method in [CUBIC, method(1, None), method(0, None), method(3, Some((0, 0))), method(3, Some((2, 1)))] {
                let same = resample(vec![7.5; len], shape, new, method);
                prop_assert_eq!(same.len(), new.iter().product::<usize>());
                prop_assert!(same.iter().all(|v| (v - 7.5).abs() < 1e-4));
                let noise: Vec<f32> = (0..len as u64).map(|i| ((i ^ seed).wrapping_mul(0x9E37_79B9) >> 7 & 255) as f32).collect();
                let high = noise.iter().copied().fold(0.0, f32::max);
                prop_assert!(resample(noise, shape, new, method).iter().all(|v| (0.0..=high).contains(v)));
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing_and_linear_halves_are_means() {
        let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
        assert_eq!(resample(data.clone(), [2, 3, 4], [2, 3, 4], CUBIC), data);
        let linear = Method {
            order: 1,
            apart: None,
        };
        let half = resample(data, [2, 3, 4], [2, 3, 2], linear);
        assert_eq!(half[..4], [0.5, 2.5, 4.5, 6.5]);
    }
}
