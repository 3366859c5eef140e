//! Scores and what was true → how far scores can be read as probabilities, and whether doubt lies where the errors are.
//!
//! A voxel's score is the ensemble's foreground score, its truth any lesion; only voxels inside the cranial cavity count, for nobody doubts air.
//! Counts add up, so that each case keeps its own and the sum is made from the cases.
//!
//! Source: expected calibration error, Guo et al., arXiv:1706.04599; average calibration error (mean over the bins that hold anything, which background cannot dilute), Neumann et al., arXiv:1809.10877; Brier, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; risk and coverage, Geifman and El-Yaniv, arXiv:1705.08500.

use super::statistics::{Estimate, share};
use serde::{Deserialize, Serialize};

/// Bins of the reliability curve.
const BINS: usize = 15;
/// Bins of the ranking by entropy; even steps of its square root, for most entropies are close to 0.
const RANKS: usize = 256;

/// Voxels by score and by entropy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Voxels {
    /// By score: voxels, sum of their scores, true ones.
    bins: Vec<(u64, f64, u64)>,
    /// Sum of squared differences of score and truth.
    squares: f64,
    /// Rightly labelled voxels by entropy.
    right: Vec<u64>,
    /// Wrongly labelled voxels by entropy.
    wrong: Vec<u64>,
}

impl Default for Voxels {
    fn default() -> Self {
        Self {
            bins: vec![(0, 0.0, 0); BINS],
            squares: 0.0,
            right: vec![0; RANKS],
            wrong: vec![0; RANKS],
        }
    }
}

impl Voxels {
    /// Counts a voxel.
    pub fn add(&mut self, score: f32, entropy: f32, truth: bool, found: bool) {
        let score = f64::from(score.clamp(0.0, 1.0));
        let bin = &mut self.bins[index(score, BINS)];
        bin.0 += 1;
        bin.1 += score;
        bin.2 += u64::from(truth);
        self.squares += (score - f64::from(u8::from(truth))).powi(2);
        let rank = index(f64::from(entropy.clamp(0.0, 1.0)).sqrt(), RANKS);
        *(if truth == found {
            &mut self.right[rank]
        } else {
            &mut self.wrong[rank]
        }) += 1;
    }

    /// Adds another case's voxels.
    pub fn merge(&mut self, other: &Self) {
        for (sum, part) in self.bins.iter_mut().zip(&other.bins) {
            *sum = (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2);
        }
        self.squares += other.squares;
        for (sum, part) in self.right.iter_mut().zip(&other.right) {
            *sum += part;
        }
        for (sum, part) in self.wrong.iter_mut().zip(&other.wrong) {
            *sum += part;
        }
    }

    /// The calibration of all voxels that were added.
    #[must_use]
    pub fn calibration(&self) -> Calibration {
        Calibration::of(&self.bins, self.squares)
    }

    /// Probability that a wrong voxel has the higher entropy than a right one, ties halved; null when nothing is wrong, or nothing right.
    #[must_use]
    pub fn entropy_auroc_wrong(&self) -> Option<f64> {
        let (right, wrong): (u64, u64) = (self.right.iter().sum(), self.wrong.iter().sum());
        let (mut below, mut sum) = (0.0, 0.0);
        for (r, w) in self.right.iter().zip(&self.wrong) {
            sum += *w as f64 * (below + *r as f64 / 2.0);
            below += *r as f64;
        }
        (right > 0 && wrong > 0).then(|| sum / (right as f64 * wrong as f64))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bin of 0..=1"
)]
fn index(value: f64, bins: usize) -> usize {
    ((value * bins as f64) as usize).min(bins - 1)
}

/// How far scores can be read as probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Scores that were counted.
    pub n: u64,
    /// Expected calibration error: difference of mean score and share, bins weighted by what they hold.
    pub ece: Option<f64>,
    /// Average calibration error: the same, each bin that holds anything weighs one.
    pub ace: Option<f64>,
    /// Mean squared difference of score and truth.
    pub brier: Option<f64>,
    /// The reliability curve: bins that hold anything.
    pub reliability: Vec<Bin>,
}

/// A point of the reliability curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Scores in it.
    pub n: u64,
    /// Their mean.
    pub score: f64,
    /// Share that is true; the interval takes each as drawn alone, which voxels are not.
    pub share: Estimate,
}

impl Calibration {
    /// Of cases: score, and whether it is positive.
    #[must_use]
    pub fn of_cases(cases: &[(f64, bool)]) -> Self {
        let mut bins = vec![(0, 0.0, 0); 10];
        let mut squares = 0.0;
        for (score, truth) in cases {
            let bin = &mut bins[index(*score, 10)];
            *bin = (bin.0 + 1, bin.1 + score, bin.2 + u64::from(*truth));
            squares += (score - f64::from(u8::from(*truth))).powi(2);
        }
        Self::of(&bins, squares)
    }

    fn of(bins: &[(u64, f64, u64)], squares: f64) -> Self {
        let n: u64 = bins.iter().map(|b| b.0).sum();
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let reliability: Vec<Bin> = bins
            .iter()
            .filter(|b| b.0 > 0)
            .map(|b| Bin {
                n: b.0,
                score: b.1 / b.0 as f64,
                share: share(size(b.2), size(b.0)),
            })
            .collect();
        let gap = |b: &Bin| (b.share.value.unwrap_or(0.0) - b.score).abs();
        let some = |value: f64| (n > 0).then_some(value);
        Self {
            n,
            ece: some(reliability.iter().map(|b| gap(b) * b.n as f64).sum::<f64>() / n as f64),
            ace: some(reliability.iter().map(gap).sum::<f64>() / reliability.len() as f64),
            brier: some(squares / n as f64),
            reliability,
        }
    }
}

/// What is left of the errors when the cases in most doubt go to a person first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RiskCoverage {
    /// Area under the curve of mean risk over the share of cases that is kept, the surest first.
    pub aurc: Option<f64>,
    /// The same if doubt ranked the cases by their errors.
    pub best: Option<f64>,
    /// The same if doubt said nothing: the mean risk.
    pub blind: Option<f64>,
    /// Coverage and mean risk.
    pub curve: Vec<[f64; 2]>,
}

/// The curve of pairs of doubt and risk; cases of equal doubt share their mean.
#[must_use]
pub fn risk_coverage(cases: &[(f64, f64)]) -> RiskCoverage {
    let n = cases.len() as f64;
    if cases.is_empty() {
        return RiskCoverage::default();
    }
    let curve = |mut cases: Vec<(f64, f64)>| {
        cases.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut sum, mut kept) = (0.0, 0.0);
        let mut points = Vec::new();
        for equal in cases.chunk_by(|a, b| a.0 == b.0) {
            let mean = equal.iter().map(|c| c.1).sum::<f64>() / equal.len() as f64;
            for _ in equal {
                sum += mean;
                kept += 1.0;
                points.push([kept / n, sum / kept]);
            }
        }
        points
    };
    let area = |points: &[[f64; 2]]| points.iter().map(|p| p[1]).sum::<f64>() / n;
    let points = curve(cases.to_vec());
    RiskCoverage {
        aurc: Some(area(&points)),
        best: Some(area(&curve(cases.iter().map(|c| (c.1, c.1)).collect()))),
        blind: Some(cases.iter().map(|c| c.1).sum::<f64>() / n),
        curve: points,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn a_score_that_keeps_its_word_has_no_calibration_error() {
        let mut voxels = Voxels::default();
        for i in 0..10 {
            voxels.add(0.2, 0.5, i < 2, false);
            voxels.add(0.8, 0.5, i < 8, true);
        }
        let found = voxels.calibration();
        near(found.ece, 0.0);
        near(found.ace, 0.0);
        near(found.brier, 0.16);
        assert_eq!(found.reliability.len(), 2);
    }

    #[test]
    fn errors_weigh_by_voxels_in_one_and_by_bins_in_the_other() {
        let mut voxels = Voxels::default();
        for _ in 0..9 {
            voxels.add(0.0, 0.0, false, false);
        }
        voxels.add(1.0, 0.0, false, true);
        let mut twice = voxels.clone();
        twice.merge(&voxels);
        for found in [voxels.calibration(), twice.calibration()] {
            near(found.ece, 0.1);
            near(found.ace, 0.5);
            near(found.brier, 0.1);
        }
    }

    #[test]
    fn auroc_is_one_when_doubt_separates_and_a_half_when_it_says_nothing() {
        let (mut separated, mut blind) = (Voxels::default(), Voxels::default());
        assert_eq!(blind.entropy_auroc_wrong(), None);
        for entropy in [0.001, 0.3] {
            separated.add(0.1, entropy, false, false);
            separated.add(0.4, entropy + 0.5, true, false);
            blind.add(0.1, entropy, false, false);
            blind.add(0.4, entropy, true, false);
        }
        near(separated.entropy_auroc_wrong(), 1.0);
        near(blind.entropy_auroc_wrong(), 0.5);
    }

    #[test]
    fn doubt_that_ranks_errors_reaches_the_best_area_and_equal_doubt_the_mean() {
        let ranked = risk_coverage(&[(0.1, 0.0), (0.2, 0.0), (0.9, 1.0)]);
        near(ranked.aurc, (1.0 / 3.0) / 3.0);
        assert_eq!(ranked.aurc, ranked.best);
        let blind = risk_coverage(&[(0.5, 0.0), (0.5, 1.0)]);
        near(blind.aurc, 0.5);
        near(blind.blind, 0.5);
        near(blind.best, 0.25);
    }

    #[test]
    fn cases_are_binned_by_tenths() {
        let found = Calibration::of_cases(&[(0.05, false), (0.95, true), (1.0, true)]);
        assert_eq!(found.reliability.len(), 2);
        near(found.ece, (0.05 + 2.0 * 0.025) / 3.0);
    }
}
