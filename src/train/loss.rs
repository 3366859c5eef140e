//! How wrong a network is: logits and true classes → a number, and the way down.
//!
//! Cross-entropy, plus soft Dice of everything that is not background, plus the mean soft Dice of the classes that the batch holds.
//! The first Dice term asks whether there is a lesion, the last which; a class that no sample of the batch has says nothing about either.
//! Loss and gradient come from one pass over the logits with sums in a fixed order, so that the number of threads changes nothing.
//!
//! Source: soft Dice, Milletari et al., arXiv:1606.04797; its sum with cross-entropy over the batch, nnU-Net (doi:10.1038/s41592-020-01008-z).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Keeps Dice finite where there is nothing, and small where there is little.
const SMOOTH: f64 = 1.0;

/// A loss and how to go down from it.
#[derive(Debug)]
pub struct Loss {
    /// The value.
    pub value: f64,
    /// A scalar whose gradient is the loss's: for `backward`.
    pub descent: Tensor,
}

/// Dice plus cross-entropy of a network's logits.
///
/// # Shape
/// `logits`: `[N, K, ...]`; `truth`: one class below K for each of the `N × ...` voxels.
///
/// # Errors
/// candle's, and a truth of another size.
pub fn dice_and_cross_entropy(logits: &Tensor, truth: &[u8]) -> Result<Loss> {
    let dims = logits.dims();
    let (samples, classes) = (dims[0], dims[1]);
    let voxels = dims[2..].iter().product();
    if truth.len() != samples * voxels {
        candle_core::bail!(
            "found a truth of {} voxels, the logits have {}",
            truth.len(),
            samples * voxels
        );
    }
    let values = logits.flatten_all()?.to_vec1::<f32>()?;
    let (value, gradient) = evaluate(&values, truth, classes, voxels);
    let gradient = Tensor::from_vec(gradient, dims, logits.device())?;
    Ok(Loss {
        value,
        descent: (logits * gradient)?.sum_all()?,
    })
}

/// What a part of the voxels adds up to.
#[derive(Clone)]
struct Sums {
    cross_entropy: f64,
    /// For each class, index 0 being all foreground together: Σ p t, Σ p, Σ t.
    overlap: Vec<[f64; 3]>,
}

impl Sums {
    fn new(classes: usize) -> Self {
        Self {
            cross_entropy: 0.0,
            overlap: vec![[0.0; 3]; classes],
        }
    }

    fn add(mut self, other: &Self) -> Self {
        self.cross_entropy += other.cross_entropy;
        for (sum, part) in self.overlap.iter_mut().zip(&other.overlap) {
            for (s, p) in sum.iter_mut().zip(part) {
                *s += p;
            }
        }
        self
    }
}

/// Voxels of one sample that are handled together.
const PART: usize = 4096;

#[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
fn evaluate(logits: &[f32], truth: &[u8], classes: usize, voxels: usize) -> (f64, Vec<f32>) {
    let mut probabilities = vec![0.0f32; logits.len()];
    let sums = probabilities
        .par_chunks_mut(classes * voxels)
        .zip(logits.par_chunks(classes * voxels))
        .zip(truth.par_chunks(voxels))
        .map(|((p, z), t)| softmax(p, z, t, classes))
        .collect::<Vec<_>>()
        .iter()
        .fold(Sums::new(classes), Sums::add);
    let count = truth.len() as f64;
    let mut value = sums.cross_entropy / count;
    // dDice/dp at a voxel is `gain` where the class is true and `cost` everywhere.
    let mut terms = vec![(0.0f64, 0.0f64); classes];
    let present = (1..classes).filter(|k| sums.overlap[*k][2] > 0.0).count();
    for (k, (term, [both, p, t])) in terms.iter_mut().zip(&sums.overlap).enumerate() {
        let weight = match k {
            0 => 1.0,
            // With one class the foreground is the class.
            _ if *t > 0.0 && classes > 2 => 1.0 / present as f64,
            _ => continue,
        };
        let (above, below) = (2.0 * both + SMOOTH, p + t + SMOOTH);
        value += weight * (1.0 - above / below);
        *term = (-2.0 * weight / below, weight * above / (below * below));
    }
    let mut gradient = vec![0.0f32; logits.len()];
    gradient
        .par_chunks_mut(classes * voxels)
        .zip(probabilities.par_chunks(classes * voxels))
        .zip(truth.par_chunks(voxels))
        .for_each(|((g, p), t)| {
            let mut along = vec![0.0f64; classes];
            for (v, truth) in t.iter().enumerate() {
                let truth = usize::from(*truth);
                let (all, (gain, cost)) = (f64::from(truth > 0), terms[0]);
                let mut mean = 0.0;
                for k in 0..classes {
                    let (own_gain, own_cost) = if k == 0 { (0.0, 0.0) } else { terms[k] };
                    along[k] = if k == 0 { 0.0 } else { gain * all + cost };
                    along[k] += own_gain * f64::from(k == truth) + own_cost;
                    mean += along[k] * f64::from(p[k * voxels + v]);
                }
                for k in 0..classes {
                    let p = f64::from(p[k * voxels + v]);
                    let cross_entropy = (p - f64::from(k == truth)) / count;
                    g[k * voxels + v] = (p * (along[k] - mean) + cross_entropy) as f32;
                }
            }
        });
    (value, gradient)
}

/// Softmax of one sample, and its sums.
fn softmax(p: &mut [f32], z: &[f32], truth: &[u8], classes: usize) -> Sums {
    let voxels = truth.len();
    let mut sums = Sums::new(classes);
    let mut highest = [0.0f32; PART];
    let mut total = [0.0f32; PART];
    for start in (0..voxels).step_by(PART) {
        let len = PART.min(voxels - start);
        let at = |k: usize| k * voxels + start..k * voxels + start + len;
        highest[..len].copy_from_slice(&z[at(0)]);
        for k in 1..classes {
            for (h, z) in highest.iter_mut().zip(&z[at(k)]) {
                *h = h.max(*z);
            }
        }
        total[..len].fill(0.0);
        for k in 0..classes {
            for (((p, z), h), total) in p[at(k)].iter_mut().zip(&z[at(k)]).zip(&highest).zip(&mut total) {
                *p = (z - h).exp();
                *total += *p;
            }
        }
        let part = &truth[start..start + len];
        for (v, truth) in part.iter().enumerate() {
            let z = z[usize::from(*truth) * voxels + start + v];
            sums.cross_entropy += f64::from(total[v].ln() + highest[v] - z);
        }
        for k in 0..classes {
            let [both, sum, count] = &mut sums.overlap[k];
            for ((p, total), truth) in p[at(k)].iter_mut().zip(&total).zip(part) {
                *p /= total;
                // Index 0 stands for the foreground: what is not background.
                let (p, t) = if k == 0 {
                    (1.0 - *p, *truth > 0)
                } else {
                    (*p, usize::from(*truth) == k)
                };
                *sum += f64::from(p);
                if t {
                    *both += f64::from(p);
                    *count += 1.0;
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Two samples, three classes, four voxels.
    fn example() -> (Vec<f32>, Vec<u8>) {
        let logits = (0..24).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.4).collect();
        (logits, vec![0, 1, 1, 0, 2, 0, 0, 1])
    }

    #[test]
    fn is_the_textbook_sum_for_two_classes() {
        let logits = [0.3f32, -0.2, 1.0, 0.1, 0.4, 0.0, -1.0, 2.0];
        let truth = [0u8, 1, 0, 1];
        let (mut ce, mut both, mut sum) = (0.0, 0.0, 0.0);
        for i in 0..4 {
            let p = 1.0 / (1.0 + f64::from(logits[i] - logits[4 + i]).exp());
            let t = f64::from(truth[i]);
            ce -= t * p.ln() + (1.0 - t) * (1.0 - p).ln();
            both += p * t;
            sum += p + t;
        }
        let expected = ce / 4.0 + 1.0 - (2.0 * both + 1.0) / (sum + 1.0);
        let (value, _) = evaluate(&logits, &truth, 2, 4);
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (logits, truth) = example();
        let (_, gradient) = evaluate(&logits, &truth, 3, 4);
        for i in 0..logits.len() {
            let moved = |by: f32| {
                let mut logits = logits.clone();
                logits[i] += by;
                evaluate(&logits, &truth, 3, 4).0
            };
            let slope = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!(
                (slope - f64::from(gradient[i])).abs() < 1e-4,
                "{i}: {slope} {}",
                gradient[i]
            );
        }
    }

    #[test]
    fn a_class_that_the_batch_lacks_is_not_asked_for() {
        let (logits, mut truth) = example();
        truth[4] = 1;
        let two = evaluate(&logits, &truth, 3, 4).0;
        let (mut both, mut sum) = (0.0, 0.0);
        for sample in 0..2 {
            for v in 0..4 {
                let z = |k: usize| f64::from(logits[sample * 12 + k * 4 + v]).exp();
                let p = z(1) / (z(0) + z(1) + z(2));
                let t = f64::from(truth[sample * 4 + v]);
                both += p * t;
                sum += p + t;
            }
        }
        // Taking the only class's Dice away leaves cross-entropy and foreground.
        let own = 1.0 - (2.0 * both + 1.0) / (sum + 1.0);
        let all = example().1;
        let with_both = evaluate(&logits, &all, 3, 4).0;
        assert!(own > 0.0 && own < 1.0 && two > own && (with_both - two).abs() > 1e-3);
    }

    #[test]
    fn descends_through_candle() {
        let (logits, truth) = example();
        let var = Var::from_vec(logits, (2, 3, 2, 2), &Device::Cpu).unwrap();
        let loss = dice_and_cross_entropy(&var, &truth).unwrap();
        let grads = loss.descent.backward().unwrap();
        let step = (grads.get(&var).unwrap() * 0.1).unwrap();
        let after = dice_and_cross_entropy(&(var.as_tensor() - step).unwrap(), &truth).unwrap();
        assert!(after.value < loss.value);
        assert!(dice_and_cross_entropy(&var, &truth[1..]).is_err());
    }
}
