//! Counts and values → estimates with 95 % intervals.
//!
//! Shares have Wilson's interval, counts a case Garwood's, means the bootstrap's, areas under the ROC curve Newcombe's, predictive values that of their logit.
//! All keep a width where everything or nothing succeeded, except the bootstrap of equal values.
//! Random numbers have a stated seed: the same input gives the same interval.
//!
//! Source: Wilson, doi:10.1080/01621459.1927.10502953; Garwood, doi:10.1093/biomet/28.3-4.437; Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; Newcombe, doi:10.1002/sim.2324 (method 5); Mercaldo, Lau and Zhou, doi:10.1002/sim.2677; Bland and Altman, doi:10.1016/S0140-6736(86)90837-8.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The normal quantile of 97.5 %.
const Z: f64 = 1.959_963_984_540_054;
/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 2000;
/// Seed of every bootstrap.
pub const BOOTSTRAP_SEED: u64 = 20_140;

/// A number and its 95 % interval; null where nothing could be estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// What it was estimated from: cases, lesions.
    pub n: usize,
}

impl Estimate {
    /// The same in other units.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            value: self.value.map(|v| v * factor),
            interval: self.interval.map(|i| i.map(|v| v * factor)),
            n: self.n,
        }
    }
}

/// A share with Wilson's interval.
#[must_use]
pub fn share(hits: usize, all: usize) -> Estimate {
    if all == 0 {
        return Estimate::default();
    }
    let (n, p) = (all as f64, hits as f64 / all as f64);
    let scale = 1.0 / (1.0 + Z * Z / n);
    let middle = (p + Z * Z / (2.0 * n)) * scale;
    let half = Z * scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Estimate {
        value: Some(p),
        interval: Some([(middle - half).max(0.0), (middle + half).min(1.0)]),
        n: all,
    }
}

/// How often something happens a case, with Garwood's interval, which takes the events as independent.
#[must_use]
pub fn rate(events: usize, cases: usize) -> Estimate {
    if cases == 0 {
        return Estimate::default();
    }
    // The limits are the means of which so many events, or more, or fewer, would be a surprise of 2.5 %.
    let lower = if events == 0 {
        0.0
    } else {
        poisson_mean(events - 1, 0.975)
    };
    let n = cases as f64;
    Estimate {
        value: Some(events as f64 / n),
        interval: Some([lower / n, poisson_mean(events, 0.025) / n]),
        n: cases,
    }
}

/// The mean of the Poisson distribution that gives at most `events` with this probability.
fn poisson_mean(events: usize, probability: f64) -> f64 {
    let at_most = |mean: f64| {
        let (mut log_term, mut sum) = (-mean, (-mean).exp());
        for i in 1..=events {
            log_term += (mean / i as f64).ln();
            sum += log_term.exp();
        }
        sum
    };
    let (mut low, mut high) = (0.0, 2.0 * events as f64 + 20.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if at_most(middle) > probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// A mean with the percentile interval of the bootstrap.
#[must_use]
pub fn mean(values: &[f64]) -> Estimate {
    if values.is_empty() {
        return Estimate::default();
    }
    let n = values.len();
    let mean = |sum: f64| sum / n as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(BOOTSTRAP_SEED);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| mean((0..n).map(|_| values[rng.random_range(0..n)]).sum()))
        .collect();
    means.sort_by(f64::total_cmp);
    Estimate {
        value: Some(mean(values.iter().sum())),
        interval: (n > 1).then(|| [quantile(&means, 0.025), quantile(&means, 0.975)]),
        n,
    }
}

/// A quantile of sorted values, linear between two of them.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = q * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let below = (at.floor() as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

/// The quantile of values in any order; null when there are none.
#[must_use]
pub fn quantile_of(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| quantile(&values, q))
}

/// Probability that a positive has the higher score than a negative, ties halved, with Newcombe's interval.
#[must_use]
pub fn auc(positives: &[f64], negatives: &[f64]) -> Estimate {
    let (m, n) = (positives.len() as f64, negatives.len() as f64);
    if positives.is_empty() || negatives.is_empty() {
        return Estimate::default();
    }
    let wins: f64 = positives
        .iter()
        .flat_map(|p| negatives.iter().map(move |q| (p, q)))
        .map(|(p, q)| match p.total_cmp(q) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum();
    let found = wins / (m * n);
    let half = f64::midpoint(m, n) - 1.0;
    let deviation = |t: f64| {
        let more = half * ((1.0 - t) / (2.0 - t) + t / (1.0 + t));
        (t * (1.0 - t) * (1.0 + more) / (m * n)).max(0.0).sqrt()
    };
    // The limits are those areas whose own deviation reaches just to what was found.
    let limit = |end: f64| {
        let (mut inside, mut outside) = (found, end);
        for _ in 0..60 {
            let middle = f64::midpoint(inside, outside);
            if (found - middle).abs() <= Z * deviation(middle) {
                inside = middle;
            } else {
                outside = middle;
            }
        }
        f64::midpoint(inside, outside)
    };
    Estimate {
        value: Some(found),
        interval: Some([limit(0.0), limit(1.0)]),
        n: positives.len() + negatives.len(),
    }
}

/// Points of the ROC curve: share of negatives and of positives at or above each score, from (0, 0) to (1, 1).
#[must_use]
pub fn roc(positives: &[f64], negatives: &[f64]) -> Vec<[f64; 2]> {
    let mut cuts: Vec<f64> = positives.iter().chain(negatives).copied().collect();
    cuts.sort_by(|a, b| b.total_cmp(a));
    cuts.dedup();
    let above = |values: &[f64], cut: f64| {
        values.iter().filter(|v| **v >= cut).count() as f64 / values.len().max(1) as f64
    };
    std::iter::once([0.0, 0.0])
        .chain(cuts.iter().map(|c| [above(negatives, *c), above(positives, *c)]))
        .collect()
}

/// What share of flags is right where `prevalence` of all cases is positive: flagged and all of the positive ones, flagged and all of the normal.
#[must_use]
pub fn predictive_value(positive: [usize; 2], normal: [usize; 2], prevalence: f64) -> Estimate {
    if positive[1] == 0 || normal[1] == 0 {
        return Estimate::default();
    }
    let plain = |[k, n]: [usize; 2]| k as f64 / n as f64;
    let (hit, false_flag) = (plain(positive), plain(normal));
    let flagged = prevalence * hit + (1.0 - prevalence) * false_flag;
    // Half of z² successes more and as many failures keep the logit finite.
    let padded = |[k, n]: [usize; 2]| {
        let n = n as f64 + Z * Z;
        let p = (k as f64 + Z * Z / 2.0) / n;
        (p, (1.0 - p) / (p * n))
    };
    let ((hit_padded, hit_variance), (false_padded, false_variance)) = (padded(positive), padded(normal));
    let logit = (prevalence * hit_padded / ((1.0 - prevalence) * false_padded)).ln();
    let half = Z * (hit_variance + false_variance).sqrt();
    let back = |x: f64| 1.0 / (1.0 + (-x).exp());
    let value = (flagged > 0.0).then(|| prevalence * hit / flagged);
    let [low, high] = [back(logit - half), back(logit + half)];
    Estimate {
        value,
        interval: value.map(|v| [low.min(v), high.max(v)]),
        n: positive[1] + normal[1],
    }
}

/// Bias and limits of agreement of differences.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Mean difference.
    pub bias: Estimate,
    /// Standard deviation of the differences.
    pub standard_deviation: Option<f64>,
    /// Bias ± 1.96 standard deviations: between them lie 95 % of differences, were they normally distributed.
    pub limits: Option<[f64; 2]>,
}

/// Bland and Altman's limits of agreement.
#[must_use]
pub fn agreement(differences: &[f64]) -> Agreement {
    let bias = mean(differences);
    let n = differences.len() as f64;
    let deviation = bias
        .value
        .filter(|_| n > 1.0)
        .map(|mean| (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    Agreement {
        limits: bias.value.zip(deviation).map(|(b, s)| [b - Z * s, b + Z * s]),
        standard_deviation: deviation,
        bias,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-3, "{found}, expected {expected}");
    }

    #[test]
    fn wilson_gives_the_published_intervals() {
        // Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3.
        for (hits, all, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let interval = share(hits, all).interval.unwrap();
            near(Some(interval[0]), low);
            near(Some(interval[1]), high);
        }
        assert_eq!(share(0, 0), Estimate::default());
    }

    #[test]
    fn counts_have_the_exact_limits_of_poisson() {
        // Half the χ² quantiles of 2 k and 2 k + 2 degrees of freedom.
        for (events, low, high) in [(0, 0.0, 3.6889), (5, 1.6235, 11.6683), (10, 4.7954, 18.3904)] {
            let found = rate(events, 100);
            let interval = found.interval.unwrap();
            near(found.value, events as f64 / 100.0);
            near(Some(100.0 * interval[0]), low);
            near(Some(100.0 * interval[1]), high);
        }
    }

    #[test]
    fn the_area_counts_pairs_and_its_limits_are_a_deviation_away() {
        let found = auc(&[3.0, 2.0], &[1.0, 2.0, 0.0]);
        near(found.value, 5.5 / 6.0);
        let [low, high] = found.interval.unwrap();
        assert!(low > 0.0 && low < 5.5 / 6.0 && high > 5.5 / 6.0 && high <= 1.0);
        // All right: with 20 and 20 the lower limit t solves 1 − t = z · deviation(t).
        let all: Vec<f64> = (0..20).map(f64::from).collect();
        let perfect = auc(&all.iter().map(|v| v + 30.0).collect::<Vec<_>>(), &all);
        near(perfect.value, 1.0);
        let [t, high] = perfect.interval.unwrap();
        near(Some(high), 1.0);
        let variance = t * (1.0 - t) * (1.0 + 19.0 * (1.0 - t) / (2.0 - t) + 19.0 * t / (1.0 + t)) / 400.0;
        near(Some(1.0 - t), Z * variance.sqrt());
    }

    #[test]
    fn the_curve_goes_from_nothing_to_everything_and_has_the_area() {
        let (positives, negatives) = ([3.0, 2.0], [1.0, 2.0, 0.0]);
        let curve = roc(&positives, &negatives);
        assert_eq!(curve.first(), Some(&[0.0, 0.0]));
        assert_eq!(curve.last(), Some(&[1.0, 1.0]));
        let area: f64 = curve
            .windows(2)
            .map(|w| (w[1][0] - w[0][0]) * (w[0][1] + w[1][1]) / 2.0)
            .sum();
        near(auc(&positives, &negatives).value, area);
    }

    #[test]
    fn a_flag_is_right_as_often_as_bayes_says() {
        // 90 of 100 and 5 of 100 flagged, a tenth positive: 0.09 / (0.09 + 0.045).
        let found = predictive_value([90, 100], [5, 100], 0.1);
        near(found.value, 0.09 / 0.135);
        let [low, high] = found.interval.unwrap();
        assert!(
            low > 0.4 && low < 0.667 && high > 0.667 && high < 0.9,
            "{low} {high}"
        );
        let spotless = predictive_value([100, 100], [0, 100], 0.1);
        near(spotless.value, 1.0);
        assert!(spotless.interval.unwrap()[0] < 0.95);
        assert_eq!(predictive_value([0, 100], [0, 100], 0.1).value, None);
    }

    #[test]
    fn means_and_limits_of_agreement_are_those_of_the_values() {
        let found = agreement(&[1.0, 2.0, 3.0, 4.0]);
        near(found.bias.value, 2.5);
        near(found.standard_deviation, (5.0f64 / 3.0).sqrt());
        let [low, high] = found.limits.unwrap();
        near(Some(high - low), 2.0 * 1.96 * (5.0f64 / 3.0).sqrt());
        let interval = found.bias.interval.unwrap();
        assert!(interval[0] < 2.5 && interval[1] > 2.5);
        assert_eq!(found.bias, mean(&[1.0, 2.0, 3.0, 4.0]), "the seed is fixed");
        assert_eq!(quantile_of(vec![3.0, 1.0, 2.0], 0.5), Some(2.0));
    }
}
