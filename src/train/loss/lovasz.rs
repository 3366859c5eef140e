//! The Jaccard loss of each class through its Lovász extension: probabilities → a number, and its gradient along the logits.
//!
//! Errors are put in order, greatest first; each weighs what the Jaccard index loses when its voxel is wrong too.
//! The mean over the classes that the batch holds; equal errors keep the order of their voxels.
//!
//! Source: Berman et al., arXiv:1705.08790 (Lovász-softmax).

use rayon::prelude::*;

/// Value and gradient for softmax probabilities laid out as the logits are.
#[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
pub(super) fn evaluate(
    probabilities: &[f32],
    truth: &[u8],
    classes: usize,
    voxels: usize,
) -> (f64, Vec<f32>) {
    let at = |v: usize, k: usize| (v / voxels * classes + k) * voxels + v % voxels;
    let present: Vec<usize> = (0..classes)
        .filter(|k| truth.iter().any(|t| usize::from(*t) == *k))
        .collect();
    let weight = 1.0 / present.len().max(1) as f64;
    // What each class says along the probability of every voxel.
    let slopes: Vec<(f64, Vec<f32>)> = present
        .par_iter()
        .map(|k| {
            let own = |v: usize| usize::from(truth[v]) == *k;
            let error = |v: usize| {
                let p = probabilities[at(v, *k)];
                if own(v) { 1.0 - p } else { p }
            };
            let mut order: Vec<usize> = (0..truth.len()).collect();
            order.sort_unstable_by(|a, b| error(*b).total_cmp(&error(*a)).then(a.cmp(b)));
            let total = (0..truth.len()).filter(|v| own(*v)).count() as f64;
            let (mut right, mut union, mut before, mut value) = (total, total, 0.0, 0.0);
            let mut slope = vec![0.0f32; truth.len()];
            for v in order {
                if own(v) {
                    right -= 1.0;
                } else {
                    union += 1.0;
                }
                let lost = 1.0 - right / union;
                let step = lost - before;
                before = lost;
                value += f64::from(error(v)) * step;
                slope[v] = if own(v) { -step as f32 } else { step as f32 };
            }
            (value, slope)
        })
        .collect();
    let value = slopes.iter().map(|(value, _)| value).sum::<f64>() * weight;
    let mut gradient = vec![0.0f32; probabilities.len()];
    gradient
        .par_chunks_mut(classes * voxels)
        .enumerate()
        .for_each(|(sample, gradient)| {
            for v in 0..voxels {
                let all = sample * voxels + v;
                let p = |k: usize| f64::from(probabilities[at(all, k)]);
                let mut along = vec![0.0f64; classes];
                for (k, (_, slope)) in present.iter().zip(&slopes) {
                    along[*k] = f64::from(slope[all]) * weight;
                }
                let mean: f64 = along.iter().enumerate().map(|(k, a)| a * p(k)).sum();
                for (k, along) in along.iter().enumerate() {
                    gradient[k * voxels + v] = (p(k) * (along - mean)) as f32;
                }
            }
        });
    (value, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_answers_cost_one_less_the_jaccard_index() {
        // Class 1 is true for voxels 1 and 2, said of 2 and 3.
        let said = [0.0f32, 0.0, 1.0, 1.0];
        let probabilities: Vec<f32> = said.iter().map(|p| 1.0 - p).chain(said).collect();
        let (value, _) = evaluate(&probabilities, &[0, 1, 1, 0], 2, 4);
        // Both classes: one voxel of three in the union.
        assert!((value - 2.0 / 3.0).abs() < 1e-9, "{value}");
    }
}
