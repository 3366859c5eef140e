//! How wrong a network is: logits and true classes → a number, and the way down.
//!
//! By default cross-entropy, plus soft Dice of everything that is not background, plus the mean soft Dice of the classes that the batch holds.
//! The first Dice term asks whether there is a lesion, the last which; a class that no sample of the batch has says nothing about either.
//! Where outputs are regions that overlap, each is a question of its own, and `regions` answers for all of them.
//! A loss is what each voxel says (cross-entropy, focal) plus what the sums over all voxels say (Dice, Tversky); only Lovász needs an order of the voxels and stands in a file of its own.
//! Voxels that nobody labelled ([`IGNORE`]) say nothing: they are left out before anything else is done.
//! Loss and gradient come from one pass over the logits with sums in a fixed order, so that the number of threads changes nothing.
//!
//! Source: soft Dice, Milletari et al., arXiv:1606.04797; its sum with cross-entropy over the batch and the weights of deep supervision, nnU-Net (doi:10.1038/s41592-020-01008-z); focal, Lin et al., arXiv:1708.02002; Tversky, Salehi et al., arXiv:1706.05721.

mod lovasz;
mod regions;

use super::TrainError;
use crate::domain::plan::Activation;
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Keeps Dice finite where there is nothing, and small where there is little.
const SMOOTH: f64 = 1.0;

/// The class of voxels that nobody labelled.
pub const IGNORE: u8 = u8::MAX;

/// A loss and how to go down from it.
#[derive(Debug)]
pub struct Loss {
    /// The value.
    pub value: f64,
    /// A scalar whose gradient is the loss's: for `backward`.
    pub descent: Tensor,
}

/// What is asked of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// The sum of Dice and cross-entropy.
    #[default]
    DiceCrossEntropy,
    /// Dice alone.
    Dice,
    /// Cross-entropy alone.
    CrossEntropy,
    /// Cross-entropy that looks away from voxels that are right already.
    Focal,
    /// Dice in which a missed voxel costs more than a false one.
    Tversky,
    /// The Jaccard index (intersection over union) through its Lovász extension.
    Lovasz,
}

/// What each voxel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voxelwise {
    Nothing,
    CrossEntropy,
    Focal,
}

impl Kind {
    /// What each voxel says, and what a false and a missed voxel cost beside one that is right.
    fn terms(self) -> (Voxelwise, Option<[f64; 2]>) {
        match self {
            Self::DiceCrossEntropy => (Voxelwise::CrossEntropy, Some(DICE)),
            Self::Dice => (Voxelwise::Nothing, Some(DICE)),
            Self::CrossEntropy => (Voxelwise::CrossEntropy, None),
            Self::Focal => (Voxelwise::Focal, None),
            Self::Tversky => (Voxelwise::Nothing, Some(TVERSKY)),
            Self::Lovasz => (Voxelwise::Nothing, None),
        }
    }
}

impl Kind {
    /// Whether it can be asked of outputs that may `overlap`.
    ///
    /// # Errors
    /// In words, where it cannot.
    pub fn check(self, overlap: bool) -> std::result::Result<(), TrainError> {
        if overlap && self == Self::Lovasz {
            return Err(TrainError::Mismatch(
                "lovasz is for labels that exclude each other, and these regions overlap; train with --loss dice-ce, dice, ce, focal or tversky".into(),
            ));
        }
        Ok(())
    }
}

/// With halves, Tversky's index is Dice's.
const DICE: [f64; 2] = [0.5, 0.5];
/// False voxels, missed voxels.
const TVERSKY: [f64; 2] = [0.3, 0.7];

/// How wrong all heads of a network are; each further one counts half as much as the one before, the last of several nothing.
///
/// # Shape
/// `heads`: `[N, K, ...]` each, full resolution first; `truth`: one class below K for each of the `N × ...` voxels of the first, of regions a bit for each of the K.
///
/// # Errors
/// candle's, and a truth of another size.
pub fn of_heads(activation: Activation, kind: Kind, heads: &[Tensor], truth: &[u8]) -> Result<Loss> {
    let [first, further @ ..] = heads else {
        candle_core::bail!("a network has a head");
    };
    let loss = of(activation, kind, first, truth)?;
    let counted = further.len().saturating_sub(1);
    if counted == 0 {
        return Ok(loss);
    }
    let weight = |head: usize| 0.5f64.powi(i32::try_from(head).unwrap_or(i32::MAX));
    let sum: f64 = (0..=counted).map(weight).sum();
    let mut all = loss.scaled(weight(0) / sum)?;
    for (i, head) in (1..).zip(&further[..counted]) {
        let truth = coarser(truth, first.dims(), head.dims());
        all = all.plus(&of(activation, kind, head, &truth)?.scaled(weight(i) / sum)?)?;
    }
    Ok(all)
}

/// The nearest voxel's class for each voxel of a smaller head.
fn coarser(truth: &[u8], from: &[usize], to: &[usize]) -> Vec<u8> {
    let axes = |dims: &[usize]| match *dims {
        [n, _, b, c] => [n, 1, b, c],
        [n, _, a, b, c] => [n, a, b, c],
        _ => [0; 4],
    };
    let (from, to) = (axes(from), axes(to));
    let at = |i: usize, axis: usize| ((2 * i + 1) * from[axis] / (2 * to[axis])).min(from[axis] - 1);
    let mut out = Vec::with_capacity(to.iter().product());
    for n in 0..to[0] {
        for a in 0..to[1] {
            for b in 0..to[2] {
                let row = ((n * from[1] + at(a, 1)) * from[2] + at(b, 2)) * from[3];
                out.extend((0..to[3]).map(|c| truth[row + at(c, 3)]));
            }
        }
    }
    out
}

/// How wrong a network's logits are.
///
/// # Shape
/// `logits`: `[N, K, ...]`; `truth`: for each of the `N × ...` voxels one class below K, of regions a bit for each of the K, or [`IGNORE`].
///
/// # Errors
/// candle's, and a truth of another size.
pub fn of(activation: Activation, kind: Kind, logits: &Tensor, truth: &[u8]) -> Result<Loss> {
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
    let evaluate = |logits: &[f32], truth: &[u8], voxels| match activation {
        Activation::Softmax => evaluate(kind, logits, truth, classes, voxels),
        Activation::Sigmoid => regions::evaluate(kind, logits, truth, classes, voxels),
    };
    let (value, gradient) = if truth.contains(&IGNORE) {
        of_labelled(evaluate, &values, truth, classes, voxels)
    } else {
        evaluate(&values, truth, voxels)
    };
    let gradient = Tensor::from_vec(gradient, dims, logits.device())?;
    Ok(Loss {
        value,
        descent: (logits * gradient)?.sum_all()?,
    })
}

impl Loss {
    /// A share of it.
    ///
    /// # Errors
    /// candle's.
    pub fn scaled(&self, factor: f64) -> Result<Self> {
        Ok(Self {
            value: self.value * factor,
            descent: (&self.descent * factor)?,
        })
    }

    /// Both together.
    ///
    /// # Errors
    /// candle's.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        Ok(Self {
            value: self.value + other.value,
            descent: (&self.descent + &other.descent)?,
        })
    }
}

/// What a part of the voxels adds up to.
#[derive(Clone)]
struct Sums {
    /// Cross-entropy, or focal loss.
    voxelwise: f64,
    /// For each class, index 0 being all foreground together: Σ p t, Σ p, Σ t.
    overlap: Vec<[f64; 3]>,
}

impl Sums {
    fn new(classes: usize) -> Self {
        Self {
            voxelwise: 0.0,
            overlap: vec![[0.0; 3]; classes],
        }
    }

    fn add(mut self, other: &Self) -> Self {
        self.voxelwise += other.voxelwise;
        for (sum, part) in self.overlap.iter_mut().zip(&other.overlap) {
            for (s, p) in sum.iter_mut().zip(part) {
                *s += p;
            }
        }
        self
    }
}

/// The same of the labelled voxels alone, as if they were one sample.
fn of_labelled(
    evaluate: impl Fn(&[f32], &[u8], usize) -> (f64, Vec<f32>),
    logits: &[f32],
    truth: &[u8],
    classes: usize,
    voxels: usize,
) -> (f64, Vec<f32>) {
    let labelled: Vec<usize> = (0..truth.len()).filter(|v| truth[*v] != IGNORE).collect();
    let mut gradient = vec![0.0; logits.len()];
    if labelled.is_empty() {
        return (0.0, gradient);
    }
    let at = |v: usize, k: usize| (v / voxels * classes + k) * voxels + v % voxels;
    let known: Vec<u8> = labelled.iter().map(|v| truth[*v]).collect();
    let own: Vec<f32> = (0..classes)
        .flat_map(|k| labelled.iter().map(move |v| logits[at(*v, k)]))
        .collect();
    let (value, down) = evaluate(&own, &known, labelled.len());
    for (k, down) in down.chunks(labelled.len()).enumerate() {
        for (v, down) in labelled.iter().zip(down) {
            gradient[at(*v, k)] = *down;
        }
    }
    (value, gradient)
}

/// Voxels of one sample that are handled together.
const PART: usize = 4096;

#[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
fn evaluate(kind: Kind, logits: &[f32], truth: &[u8], classes: usize, voxels: usize) -> (f64, Vec<f32>) {
    let (voxelwise, costs) = kind.terms();
    let mut probabilities = vec![0.0f32; logits.len()];
    let sums = probabilities
        .par_chunks_mut(classes * voxels)
        .zip(logits.par_chunks(classes * voxels))
        .zip(truth.par_chunks(voxels))
        .map(|((p, z), t)| softmax(p, z, t, classes, voxelwise))
        .collect::<Vec<_>>()
        .iter()
        .fold(Sums::new(classes), Sums::add);
    let count = truth.len() as f64;
    if kind == Kind::Lovasz {
        return lovasz::evaluate(&probabilities, truth, classes, voxels);
    }
    let mut value = match voxelwise {
        Voxelwise::Nothing => 0.0,
        Voxelwise::CrossEntropy | Voxelwise::Focal => sums.voxelwise / count,
    };
    let mut terms = vec![(0.0f64, 0.0f64); classes];
    let present = (1..classes).filter(|k| sums.overlap[*k][2] > 0.0).count();
    for (k, (term, overlap)) in terms.iter_mut().zip(&sums.overlap).enumerate() {
        let Some(costs) = costs else { continue };
        let weight = match k {
            0 => 1.0,
            // With one class the foreground is the class.
            _ if overlap[2] > 0.0 && classes > 2 => 1.0 / present as f64,
            _ => continue,
        };
        let (lacking, slope) = index(costs, *overlap, weight);
        value += lacking;
        *term = slope;
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
                let own = f64::from(p[truth * voxels + v]);
                let share = match voxelwise {
                    Voxelwise::Nothing => 0.0,
                    Voxelwise::CrossEntropy => 1.0,
                    Voxelwise::Focal => focal_slope(own),
                };
                for k in 0..classes {
                    let p = f64::from(p[k * voxels + v]);
                    let voxelwise = share * (p - f64::from(k == truth)) / count;
                    g[k * voxels + v] = (p * (along[k] - mean) + voxelwise) as f32;
                }
            }
        });
    (value, gradient)
}

/// What lacks to Tversky's index, and its slope along p at a voxel: where the class is true, and everywhere.
fn index([false_cost, missed_cost]: [f64; 2], [both, p, t]: [f64; 3], weight: f64) -> (f64, (f64, f64)) {
    // Twice above and below: Dice for two halves.
    let rise = 2.0 * (1.0 - false_cost - missed_cost);
    let (above, below) = (
        2.0 * both + SMOOTH,
        rise * both + 2.0 * false_cost * p + 2.0 * missed_cost * t + SMOOTH,
    );
    let steep = weight * above / (below * below);
    (
        weight * (1.0 - above / below),
        (-2.0 * weight / below + steep * rise, steep * (2.0 * false_cost)),
    )
}

/// Focal loss of a voxel by its surprise, −ln of what its own class has; gamma is 2, as its authors found best.
fn focal(surprise: f64) -> f64 {
    (1.0 - (-surprise).exp()).powi(2) * surprise
}

/// How much steeper focal loss is along a logit than cross-entropy where the voxel's own class has this probability.
fn focal_slope(own: f64) -> f64 {
    (1.0 - own).powi(2) - 2.0 * (1.0 - own) * own * own.max(f64::MIN_POSITIVE).ln()
}

/// Softmax of one sample, and its sums.
fn softmax(p: &mut [f32], z: &[f32], truth: &[u8], classes: usize, voxelwise: Voxelwise) -> Sums {
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
            let surprise = f64::from(total[v].ln() + highest[v] - z);
            sums.voxelwise += match voxelwise {
                Voxelwise::Focal => focal(surprise),
                Voxelwise::CrossEntropy | Voxelwise::Nothing => surprise,
            };
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

    const DEFAULT: Kind = Kind::DiceCrossEntropy;
    const KINDS: [Kind; 6] = [
        DEFAULT,
        Kind::Dice,
        Kind::CrossEntropy,
        Kind::Focal,
        Kind::Tversky,
        Kind::Lovasz,
    ];

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
        let (value, _) = evaluate(DEFAULT, &logits, &truth, 2, 4);
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    }

    #[test]
    fn the_gradient_of_every_loss_is_that_of_finite_differences() {
        let (mut logits, truth) = example();
        // No two errors alike: where their order changes, Lovász has a kink.
        for (i, logit) in logits.iter_mut().enumerate() {
            *logit += (i * i) as f32 * 0.0071;
        }
        for kind in KINDS {
            let (value, gradient) = evaluate(kind, &logits, &truth, 3, 4);
            assert!(value > 0.0, "{kind:?} {value}");
            for i in 0..logits.len() {
                let moved = |by: f32| {
                    let mut logits = logits.clone();
                    logits[i] += by;
                    evaluate(kind, &logits, &truth, 3, 4).0
                };
                let slope = (moved(0.005) - moved(-0.005)) / 0.01;
                assert!(
                    (slope - f64::from(gradient[i])).abs() < 1e-4,
                    "{kind:?} {i}: {slope} {}",
                    gradient[i]
                );
            }
        }
    }

    #[test]
    fn voxels_that_nobody_labelled_change_nothing_and_are_not_moved() {
        let (logits, truth) = example();
        // Between the voxels of each sample one more, and one whole sample of nothing else.
        let wider = |values: &[f32]| -> Vec<f32> {
            let mut wider: Vec<f32> = values
                .chunks(4)
                .flat_map(|row| [&row[..2], &[9.0], &row[2..]].concat())
                .collect();
            wider.extend([3.0; 15]);
            wider
        };
        let mut sparse: Vec<u8> = truth
            .chunks(4)
            .flat_map(|row| [&row[..2], &[IGNORE], &row[2..]].concat())
            .collect();
        sparse.extend([IGNORE; 5]);
        for kind in KINDS {
            let full = Var::from_vec(logits.clone(), (2, 3, 4), &Device::Cpu).unwrap();
            let part = Var::from_vec(wider(&logits), (3, 3, 5), &Device::Cpu).unwrap();
            let (a, b) = (
                of(Activation::Softmax, kind, &full, &truth).unwrap(),
                of(Activation::Softmax, kind, &part, &sparse).unwrap(),
            );
            assert!((a.value - b.value).abs() < 1e-9, "{kind:?}");
            let grad = |loss: &Loss, of: &Var| {
                let grads = loss.descent.backward().unwrap();
                grads
                    .get(of)
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()
            };
            let mut expected: Vec<f32> = grad(&a, &full)
                .chunks(4)
                .flat_map(|row| [&row[..2], &[0.0], &row[2..]].concat())
                .collect();
            expected.extend([0.0; 15]);
            let apart = expected.iter().zip(grad(&b, &part)).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-6, "{kind:?}");
        }
        let none = of(
            Activation::Softmax,
            DEFAULT,
            &Tensor::zeros((1, 3, 2), candle_core::DType::F32, &Device::Cpu).unwrap(),
            &[IGNORE; 2],
        );
        assert_eq!(none.unwrap().value, 0.0);
    }

    #[test]
    fn focal_and_tversky_are_the_textbooks() {
        let logits = [0.3f32, -0.2, 1.0, 0.1, 0.4, 0.0, -1.0, 2.0];
        let truth = [0u8, 1, 0, 1];
        let (mut focal, mut both, mut sum) = (0.0, 0.0, 0.0);
        for i in 0..4 {
            let p = 1.0 / (1.0 + f64::from(logits[i] - logits[4 + i]).exp());
            let own = if truth[i] == 1 { p } else { 1.0 - p };
            focal -= (1.0 - own).powi(2) * own.ln() / 4.0;
            both += if truth[i] == 1 { p } else { 0.0 };
            sum += p;
        }
        let tversky = 1.0 - (both + 0.5) / (both + 0.3 * (sum - both) + 0.7 * (2.0 - both) + 0.5);
        for (kind, expected) in [(Kind::Focal, focal), (Kind::Tversky, tversky)] {
            let (value, _) = evaluate(kind, &logits, &truth, 2, 4);
            assert!((value - expected).abs() < 1e-6, "{kind:?} {value} {expected}");
        }
        let parts: f64 = [Kind::Dice, Kind::CrossEntropy]
            .map(|kind| evaluate(kind, &logits, &truth, 2, 4).0)
            .iter()
            .sum();
        assert!((parts - evaluate(DEFAULT, &logits, &truth, 2, 4).0).abs() < 1e-12);
    }

    #[test]
    fn further_heads_count_half_as_much_each_and_the_last_nothing() {
        let head = |side: usize, by: f32| {
            let values: Vec<f32> = (0..2 * side * side).map(|i| (i * 7 % 5) as f32 * by).collect();
            Tensor::from_vec(values, (1, 2, side, side), &Device::Cpu).unwrap()
        };
        let truth: Vec<u8> = (0..64).map(|i| u8::from(i % 8 > 3)).collect();
        let half = coarser(&truth, &[1, 2, 8, 8], &[1, 2, 4, 4]);
        assert_eq!(half[..4], [0, 0, 1, 1]);
        let (first, second, third) = (head(8, 0.3), head(4, 0.5), head(2, 9.0));
        let all = of_heads(
            Activation::Softmax,
            DEFAULT,
            &[first.clone(), second.clone(), third],
            &truth,
        )
        .unwrap();
        let one = of(Activation::Softmax, DEFAULT, &first, &truth).unwrap().value;
        let two = of(Activation::Softmax, DEFAULT, &second, &half).unwrap().value;
        assert!((all.value - (one + 0.5 * two) / 1.5).abs() < 1e-12);
        let single = of_heads(Activation::Softmax, DEFAULT, &[first], &truth).unwrap();
        assert!((single.value - one).abs() < 1e-12);
    }

    #[test]
    fn a_class_that_the_batch_lacks_is_not_asked_for() {
        let (logits, mut truth) = example();
        truth[4] = 1;
        let two = evaluate(DEFAULT, &logits, &truth, 3, 4).0;
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
        let with_both = evaluate(DEFAULT, &logits, &all, 3, 4).0;
        assert!(own > 0.0 && own < 1.0 && two > own && (with_both - two).abs() > 1e-3);
    }

    #[test]
    fn descends_through_candle() {
        let (logits, truth) = example();
        let var = Var::from_vec(logits, (2, 3, 2, 2), &Device::Cpu).unwrap();
        let loss = of(Activation::Softmax, DEFAULT, &var, &truth).unwrap();
        let grads = loss.descent.backward().unwrap();
        let step = (grads.get(&var).unwrap() * 0.1).unwrap();
        let after = of(
            Activation::Softmax,
            DEFAULT,
            &(var.as_tensor() - step).unwrap(),
            &truth,
        )
        .unwrap();
        assert!(after.value < loss.value);
        assert!(of(Activation::Softmax, DEFAULT, &var, &truth[1..]).is_err());
    }
}
