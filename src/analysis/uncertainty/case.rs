//! From voxels to the case: one score, and how much the members disagree.

use crate::domain::volume::Volume;

/// 1 − mean pairwise Dice of the members' masks; pairs that both saw nothing agree.
#[must_use]
pub fn disagreement(overlap: &[[u64; 2]]) -> f64 {
    if overlap.is_empty() {
        return 0.0;
    }
    let dice = |[both, either]: &[u64; 2]| {
        if *either == 0 {
            1.0
        } else {
            2.0 * *both as f64 / *either as f64
        }
    };
    1.0 - overlap.iter().map(dice).sum::<f64>() / overlap.len() as f64
}

/// Mean of the highest scores that together make `volume_ml`: the score of the strongest lesion-sized region, wherever its voxels lie.
///
/// Exact to 1/1000 of a score.
#[must_use]
pub fn strongest_mean(score: &Volume<f32>, volume_ml: f64) -> f64 {
    const BINS: usize = 1000;
    let mut by_score = vec![0.0f64; BINS + 1];
    for slice in 0..score.geometry.slices() {
        let voxel = score.geometry.voxel_volume_ml(slice);
        for value in score.slice(slice).iter().filter(|v| **v > 0.0) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "scores lie in 0..=1"
            )]
            let bin = (f64::from(*value).clamp(0.0, 1.0) * BINS as f64) as usize;
            by_score[bin] += voxel;
        }
    }
    let (mut left, mut sum) = (volume_ml, 0.0);
    for (bin, volume) in by_score.iter().enumerate().rev() {
        let taken = volume.min(left);
        sum += taken * bin as f64 / BINS as f64;
        left -= taken;
        if left <= 0.0 {
            break;
        }
    }
    if volume_ml > 0.0 { sum / volume_ml } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::{Geometry, SlicePlane};

    #[test]
    fn members_that_agree_have_no_disagreement() {
        assert_eq!(disagreement(&[[0, 0], [10, 20]]), 0.0);
        assert!((disagreement(&[[5, 20]]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_case_score_is_the_mean_of_the_strongest_millilitres() {
        let geometry = Geometry {
            rows: 10,
            columns: 10,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [1.0, 1.0],
            planes: vec![SlicePlane {
                origin_mm: [0.0; 3],
                thickness_mm: 10.0,
            }],
        };
        // A voxel is 0.01 mL: ten of 1.0 and ninety of 0.5.
        let data = (0..100).map(|i| if i < 10 { 1.0 } else { 0.5 }).collect();
        let score = Volume { geometry, data };
        assert!((strongest_mean(&score, 0.2) - 0.75).abs() < 1e-9);
        assert!((strongest_mean(&score, 2.0) - 0.275).abs() < 1e-9);
    }
}
