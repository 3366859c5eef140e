//! From voxels to the case: one score.

use crate::domain::volume::Volume;

/// Mean of the highest scores inside `region` that together make `volume_ml`: the score of the strongest lesion-sized part, wherever its voxels lie.
///
/// Exact to 1/1000 of a score.
#[must_use]
pub fn strongest_mean(score: &Volume<f32>, region: &Volume<bool>, volume_ml: f64) -> f64 {
    const BINS: usize = 1000;
    let mut by_score = vec![0.0f64; BINS + 1];
    for slice in 0..score.geometry.slices() {
        let voxel = score.geometry.voxel_volume_ml(slice);
        let inside = score.slice(slice).iter().zip(region.slice(slice));
        for (value, _) in inside.filter(|(v, inside)| **inside && **v > 0.0) {
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
        // A voxel is 0.01 mL: ten of 1.0, one of them outside the region, and ninety of 0.5.
        let data = (0..100).map(|i| if i < 10 { 1.0 } else { 0.5 }).collect();
        let region = Volume {
            geometry: geometry.clone(),
            data: (0..100).map(|i| i != 5).collect(),
        };
        let score = Volume { geometry, data };
        assert!((strongest_mean(&score, &region, 0.2) - 0.725).abs() < 1e-9);
        assert!((strongest_mean(&score, &region, 2.0) - 0.27).abs() < 1e-9);
    }
}
