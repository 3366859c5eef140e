//! A label map → another size, as nnU-Net brings the map of one stage of a cascade to the grid of the next.
//!
//! The mask of each label is resampled by itself, linearly; each voxel takes the label whose mask has most of it.
//! Where labels have exactly as much, the nearest voxel's is taken if it is one of them, else the lowest.
//! A coarse axis treated apart takes the nearest plane.
//!
//! Source: batchgenerators 0.25.5 (`resize_segmentation`) and nnU-Net 2.8.1 (`resample_data_or_seg`); the order of operations is scipy's, so that ties are ties in both.

use super::resample::Method;
use rayon::prelude::*;

/// What one output voxel sees of an axis.
#[derive(Debug, Clone, Copy)]
struct Tap {
    at: [usize; 2],
    weights: [f64; 2],
    nearest: usize,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates are clamped to the array"
)]
fn taps(n: usize, m: usize, order: u8) -> Vec<Tap> {
    let (zoom, last) = (n as f64 / m as f64, (n - 1) as f64);
    (0..m)
        .map(|o| {
            let x = ((o as f64 + 0.5) * zoom - 0.5).clamp(0.0, last);
            let nearest = (x + 0.5).floor().min(last) as usize;
            if order == 0 {
                return Tap {
                    at: [nearest; 2],
                    weights: [1.0, 0.0],
                    nearest,
                };
            }
            let low = x.floor();
            let first = 1.0 - (x - low);
            Tap {
                at: [low as usize, (low + 1.0).min(last) as usize],
                weights: [first, 1.0 - first],
                nearest,
            }
        })
        .collect()
}

/// Resamples a label map with order 0 or 1.
#[must_use]
pub fn resample_labels(labels: &[i16], shape: [usize; 3], new: [usize; 3], method: Method) -> Vec<i16> {
    if shape == new {
        return labels.to_vec();
    }
    let axes: [Vec<Tap>; 3] = std::array::from_fn(|a| {
        let apart = method.apart.is_some_and(|(axis, _)| axis == a);
        taps(shape[a], new[a], if apart { 0 } else { method.order })
    });
    let at = |x: usize, y: usize, z: usize| labels[(x * shape[1] + y) * shape[2] + z];
    let plane = |x: &Tap| {
        let mut out = Vec::with_capacity(new[1] * new[2]);
        for y in &axes[1] {
            for z in &axes[2] {
                let mut scores: [(i16, f64); 8] = [(0, 0.0); 8];
                let mut count = 0;
                for i in 0..8 {
                    let [a, b, c] = [i >> 2 & 1, i >> 1 & 1, i & 1];
                    let weight = x.weights[a] * y.weights[b] * z.weights[c];
                    if weight == 0.0 {
                        continue;
                    }
                    let label = at(x.at[a], y.at[b], z.at[c]);
                    if let Some(known) = scores[..count].iter_mut().find(|(known, _)| *known == label) {
                        known.1 += weight;
                    } else {
                        scores[count] = (label, weight);
                        count += 1;
                    }
                }
                let scores = &scores[..count];
                let best = scores.iter().map(|(_, score)| *score).fold(0.0, f64::max);
                let top = scores.iter().filter(|(_, score)| score.total_cmp(&best).is_eq());
                let nearest = at(x.nearest, y.nearest, z.nearest);
                let chosen = if top.clone().any(|(label, _)| *label == nearest) {
                    Some(nearest)
                } else {
                    top.map(|(label, _)| *label).min()
                };
                out.push(chosen.unwrap_or(nearest));
            }
        }
        out
    };
    axes[0].par_iter().flat_map_iter(plane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: Method = Method {
        order: 1,
        apart: None,
    };

    #[test]
    fn a_tie_goes_to_the_nearest_voxel_and_else_to_the_lowest_label() {
        // Halved, each voxel lies in the middle of two.
        let halved = resample_labels(&[0, 3, 3, 3, 5, 0], [1, 1, 6], [1, 1, 3], LINEAR);
        assert_eq!(halved, [3, 3, 0]);
        // The centre of eight: 1 and 2 have three each, the nearest voxel (the last) is neither.
        let centre = resample_labels(&[3, 1, 1, 1, 2, 2, 2, 3], [2, 2, 2], [1, 1, 1], LINEAR);
        assert_eq!(centre, [1]);
    }

    #[test]
    fn the_label_with_most_of_a_voxel_wins_however_little_that_is() {
        let mixed = resample_labels(&[1, 2, 3, 4, 5, 5, 5, 6], [2, 2, 2], [1, 1, 1], LINEAR);
        assert_eq!(mixed, [5]);
    }

    #[test]
    fn a_coarse_axis_takes_the_nearest_plane() {
        let method = Method {
            order: 1,
            apart: Some((0, 0)),
        };
        let out = resample_labels(&[1, 1, 2, 2], [2, 1, 2], [4, 1, 2], method);
        assert_eq!(out, [1, 1, 1, 1, 2, 2, 2, 2]);
    }
}
