//! The loss of outputs that may overlap: each region is a question of its own, answered by a sigmoid.
//!
//! What each voxel says is the mean over voxels and regions, what sums over all voxels say the mean over the regions, those that the batch lacks too.
//!
//! Source: nnU-Net v2 (doi:10.1038/s41592-020-01008-z), region-based training: Dice of all regions and binary cross-entropy.

use super::{Kind, Voxelwise, focal, focal_slope, index};
use rayon::prelude::*;

/// Loss and gradient; a voxel's truth has bit k where it lies in region k.
#[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
pub(super) fn evaluate(
    kind: Kind,
    logits: &[f32],
    truth: &[u8],
    regions: usize,
    voxels: usize,
) -> (f64, Vec<f32>) {
    let (voxelwise, costs) = kind.terms();
    let count = (truth.len() * regions) as f64;
    // Channel by channel: its region, its logits, and the truth of its sample.
    let channel = |c: usize| (c % regions, &truth[c / regions * voxels..][..voxels]);
    let sums: Vec<(f64, [f64; 3])> = logits
        .par_chunks(voxels)
        .enumerate()
        .map(|(c, logits)| {
            let (region, truth) = channel(c);
            let (mut said, mut overlap) = (0.0, [0.0; 3]);
            for (z, truth) in logits.iter().zip(truth) {
                let (z, is_in) = (f64::from(*z), is_in(*truth, region));
                let surprise = surprise(if is_in { z } else { -z });
                said += match voxelwise {
                    Voxelwise::Focal => focal(surprise),
                    Voxelwise::CrossEntropy | Voxelwise::Nothing => surprise,
                };
                let p = sigmoid(z);
                overlap[1] += p;
                if is_in {
                    overlap[0] += p;
                    overlap[2] += 1.0;
                }
            }
            (said, overlap)
        })
        .collect();
    let mut value = match voxelwise {
        Voxelwise::Nothing => 0.0,
        Voxelwise::CrossEntropy | Voxelwise::Focal => sums.iter().map(|(said, _)| said).sum::<f64>() / count,
    };
    let mut overlaps = vec![[0.0f64; 3]; regions];
    for (c, (_, overlap)) in sums.iter().enumerate() {
        for (sum, part) in overlaps[c % regions].iter_mut().zip(overlap) {
            *sum += part;
        }
    }
    let mut terms = vec![(0.0, 0.0); regions];
    if let Some(costs) = costs {
        for (term, overlap) in terms.iter_mut().zip(&overlaps) {
            let (lacking, slope) = index(costs, *overlap, 1.0 / regions as f64);
            value += lacking;
            *term = slope;
        }
    }
    let mut gradient = vec![0.0f32; logits.len()];
    gradient
        .par_chunks_mut(voxels)
        .zip(logits.par_chunks(voxels))
        .enumerate()
        .for_each(|(c, (gradient, logits))| {
            let (region, truth) = channel(c);
            let (gain, cost) = terms[region];
            for ((gradient, z), truth) in gradient.iter_mut().zip(logits).zip(truth) {
                let (p, t) = (sigmoid(f64::from(*z)), f64::from(is_in(*truth, region)));
                let share = match voxelwise {
                    Voxelwise::Nothing => 0.0,
                    Voxelwise::CrossEntropy => 1.0,
                    Voxelwise::Focal => focal_slope(if t > 0.0 { p } else { 1.0 - p }),
                };
                *gradient = (p * (1.0 - p) * (gain * t + cost) + share * (p - t) / count) as f32;
            }
        });
    (value, gradient)
}

fn is_in(truth: u8, region: usize) -> bool {
    truth >> region & 1 == 1
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// −ln of the sigmoid.
fn surprise(z: f64) -> f64 {
    (-z.abs()).exp().ln_1p() + (-z).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two samples of four voxels; three regions, the second within the first, the third nowhere.
    fn example() -> (Vec<f32>, Vec<u8>) {
        let logits = (0..24).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.4).collect();
        (logits, vec![0, 1, 3, 0, 1, 0, 3, 3])
    }

    #[test]
    fn is_the_textbook_sum_of_binary_cross_entropy_and_dice() {
        let (logits, truth) = example();
        let (mut ce, mut both, mut sum) = (0.0, [0.0; 3], [0.0; 3]);
        for (i, z) in logits.iter().enumerate() {
            let (region, voxel) = (i / 4 % 3, i / 12 * 4 + i % 4);
            let t = f64::from(truth[voxel] >> region & 1);
            let p = 1.0 / (1.0 + f64::from(-z).exp());
            ce -= t * p.ln() + (1.0 - t) * (1.0 - p).ln();
            both[region] += p * t;
            sum[region] += p + t;
        }
        let lacking = |r: usize| 1.0 - (2.0 * both[r] + 1.0) / (sum[r] + 1.0);
        let expected = ce / 24.0 + (lacking(0) + lacking(1) + lacking(2)) / 3.0;
        let (value, _) = evaluate(Kind::DiceCrossEntropy, &logits, &truth, 3, 4);
        assert!((value - expected).abs() < 1e-9, "{value} {expected}");
    }

    #[test]
    fn the_gradient_of_every_loss_is_that_of_finite_differences() {
        let (logits, truth) = example();
        for kind in [
            Kind::DiceCrossEntropy,
            Kind::Dice,
            Kind::CrossEntropy,
            Kind::Focal,
            Kind::Tversky,
        ] {
            let (_, gradient) = evaluate(kind, &logits, &truth, 3, 4);
            for i in 0..logits.len() {
                let moved = |by: f32| {
                    let mut logits = logits.clone();
                    logits[i] += by;
                    evaluate(kind, &logits, &truth, 3, 4).0
                };
                let slope = (moved(0.005) - moved(-0.005)) / 0.01;
                let found = f64::from(gradient[i]);
                assert!((slope - found).abs() < 1e-5, "{kind:?} {i}: {slope} {found}");
            }
        }
    }
}
