//! What a model's scores meant on cases whose truth was known → what they mean on others like them: probabilities, thresholds and intervals.
//!
//! Thresholds: conformal, each side for itself, so that of cases with a lesion at most the share `missed` is answered "absent", and of cases without one at most `false_flags` "present", in the mean over calibrations.
//! Probability: a logistic curve over the score's log-odds (Platt), moved to a stated prevalence.
//! Interval of a volume: the conformal range of true over found, for a finding that is a lesion; it takes each finding as drawn alone.
//! All of it holds for cases that come as the known ones did, and for no others: phantoms give thresholds, for there must be some, and nothing that is called a probability.
//!
//! Source: Platt, "Probabilistic outputs for support vector machines" (1999), with its targets; label-conditional conformal prediction, Vovk, arXiv:1209.2673; split conformal intervals, Lei et al., arXiv:1604.04173.

use serde::{Deserialize, Serialize};

/// The format of `calibration.json` that this build reads and writes.
pub const SCHEMA: u32 = 1;
/// Scores nearer to 0 or 1 than this count as so near: their log-odds say no more.
const EDGE: f64 = 0.01;
/// Lesions below this do not count for the sensitivity, and cases with less are neither with nor without one, mL.
pub const SMALLEST_ML: f64 = 1.0;
/// Added to volumes before they are compared, mL: small ones differ by voxels, not by shares.
const SMALL_ML: f64 = 0.5;

/// Where cases came from, in few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cases {
    /// Phantoms.
    Phantoms {
        /// Seed of the first.
        first_seed: u64,
        /// How many.
        count: usize,
    },
    /// Scans with labels.
    Dataset {
        /// The folder's name.
        name: String,
        /// How many.
        count: usize,
        /// SHA-256 over the names of cases and labels and the sizes of files, hexadecimal.
        digest: String,
    },
}

impl Cases {
    /// Whether some of them are the same, as far as can be told.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let seeds = |cases: &Self| match cases {
            Self::Phantoms { first_seed, count } => Some(*first_seed..first_seed + *count as u64),
            Self::Dataset { .. } => None,
        };
        match (self, other) {
            (Self::Dataset { digest, .. }, Self::Dataset { digest: same, .. }) => digest == same,
            _ => match (seeds(self), seeds(other)) {
                (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
                _ => false,
            },
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Phantoms { count, .. } | Self::Dataset { count, .. } => *count,
        }
    }
}

impl std::fmt::Display for Cases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Phantoms { first_seed, count } => write!(f, "{count} phantoms from seed {first_seed}"),
            Self::Dataset { name, count, digest } => {
                write!(f, "{count} cases of {name} ({})", &digest[..digest.len().min(8)])
            }
        }
    }
}

/// `calibration.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Format, [`SCHEMA`].
    pub schema: u32,
    /// The model's id.
    pub model: String,
    /// SHA-256 over its plan and weights, hexadecimal: another model has other scores.
    pub model_sha256: String,
    /// The cases whose truth was known.
    pub cases: Cases,
    /// Those with a lesion of [`SMALLEST_ML`] or more in all.
    pub positive: usize,
    /// Those without one; smaller ones are neither.
    pub negative: usize,
    /// Case score from which the study is flagged, and below which it is not: instead of the plan's.
    pub flag_score: [f64; 2],
    /// Cases with a lesion that are answered "absent": at most this share.
    pub missed: f64,
    /// Cases without one that are answered "present": at most this share.
    pub false_flags: f64,
    /// Share of cases with a lesion for which probabilities are meant; null of phantoms.
    pub prevalence: Option<f64>,
    /// Case score → probability that there is a lesion; null of phantoms.
    pub case: Option<Curve>,
    /// Score of a finding → probability that it is a lesion; null of phantoms, and where too few were found.
    pub finding: Option<Curve>,
    /// The range of true over found volumes; null of phantoms, and where too few were found.
    pub volume: Option<VolumeRange>,
}

/// Score → probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Log-odds of the probability where the score is 0.5.
    pub intercept: f64,
    /// Log-odds of the probability for each of the score's.
    pub slope: f64,
}

impl Curve {
    /// The probability that a score stands for.
    #[must_use]
    pub fn at(self, score: f64) -> f64 {
        1.0 / (1.0 + (-(self.intercept + self.slope * log_odds(score))).exp())
    }
}

/// The log-odds of a score, kept away from infinity.
#[must_use]
pub fn log_odds(score: f64) -> f64 {
    let score = score.clamp(EDGE, 1.0 - EDGE);
    (score / (1.0 - score)).ln()
}

/// Between which multiples of what was found the true volume lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRange {
    /// In this share of findings.
    pub level: f64,
    /// Natural logarithms of the lowest and the highest multiple, see [`excess`].
    pub log_range: [f64; 2],
}

/// How much larger the true volume is than the one found: the logarithm of their quotient, both a little enlarged.
#[must_use]
pub fn excess(true_ml: f64, found_ml: f64) -> f64 {
    ((true_ml + SMALL_ML) / (found_ml + SMALL_ML)).ln()
}

impl VolumeRange {
    /// Lowest and highest true volume of what was found, mL.
    #[must_use]
    pub fn around(self, found_ml: f64) -> [f64; 2] {
        self.log_range
            .map(|log| ((found_ml + SMALL_ML) * log.exp() - SMALL_ML).max(0.0))
    }
}

impl Calibration {
    /// Probability that a case has a lesion.
    #[must_use]
    pub fn case_probability(&self, score: f64) -> Option<f64> {
        self.case.map(|curve| curve.at(score))
    }

    /// Probability that a finding is a lesion.
    #[must_use]
    pub fn finding_probability(&self, score: f64) -> Option<f64> {
        self.finding.map(|curve| curve.at(score))
    }

    /// Between what the true volume of a finding lies if it is a lesion, mL.
    #[must_use]
    pub fn volume_interval_ml(&self, found_ml: f64) -> Option<[f64; 2]> {
        self.volume.map(|range| range.around(found_ml))
    }

    /// Checks that it is meant for a model and that its numbers can be used.
    ///
    /// # Errors
    /// Says what is wrong, and what to do.
    pub fn check(&self, model: &str, model_sha256: &str) -> Result<(), String> {
        let short = |sha: &str| sha[..sha.len().min(8)].to_owned();
        if self.schema != SCHEMA {
            return Err(format!(
                "it has schema {}, this build reads {SCHEMA}; make it anew with `ictus calibrate`",
                self.schema
            ));
        }
        if self.model != model || self.model_sha256 != model_sha256 {
            return Err(format!(
                "it is of {} {}, this is {model} {} (SHA-256 over plan and weights); evaluate and calibrate this one, or remove the file",
                self.model,
                short(&self.model_sha256),
                short(model_sha256)
            ));
        }
        let [low, high] = self.flag_score;
        let from_phantoms = matches!(self.cases, Cases::Phantoms { .. });
        let curves = [self.case, self.finding];
        let usable = curves
            .iter()
            .flatten()
            .all(|curve| curve.intercept.is_finite() && curve.slope.is_finite() && curve.slope >= 0.0)
            && !(from_phantoms && (self.case.is_some() || self.finding.is_some() || self.volume.is_some()))
            && (0.0..=1.0).contains(&low)
            && (low..=1.0).contains(&high)
            && self.volume.is_none_or(|range| {
                range.log_range[0].is_finite() && range.log_range[0] <= range.log_range[1]
            });
        if usable {
            Ok(())
        } else {
            Err("its numbers contradict each other; make it anew with `ictus calibrate`".into())
        }
    }
}

impl std::fmt::Display for Calibration {
    /// On what it rests and what it promises, in a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {} with a lesion of {SMALLEST_ML} mL or more: missed at most {}, false flags at most {}",
            self.cases, self.positive, self.missed, self.false_flags
        )?;
        match self.prevalence {
            Some(prevalence) => write!(f, "; probabilities at a prevalence of {prevalence}")?,
            None => f.write_str("; no probabilities")?,
        }
        match self.volume {
            Some(range) => write!(
                f,
                "; volumes of lesions lie in {} of their intervals",
                range.level
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(cases: Cases) -> Calibration {
        Calibration {
            schema: SCHEMA,
            model: "m".into(),
            model_sha256: "0123456789".into(),
            cases,
            positive: 40,
            negative: 60,
            prevalence: Some(0.1),
            case: Some(Curve {
                intercept: -1.0,
                slope: 0.8,
            }),
            finding: Some(Curve {
                intercept: 0.5,
                slope: 1.0,
            }),
            flag_score: [0.3, 0.9],
            missed: 0.05,
            false_flags: 0.03,
            volume: Some(VolumeRange {
                level: 0.9,
                log_range: [-0.5, 0.4],
            }),
        }
    }

    fn scans() -> Cases {
        Cases::Dataset {
            name: "clinic".into(),
            count: 100,
            digest: "abcdef0123".into(),
        }
    }

    #[test]
    fn a_higher_score_is_a_higher_probability_and_a_volume_lies_in_its_range() {
        let known = calibration(scans());
        let steps: Vec<f64> = [0.0, 0.2, 0.5, 0.8, 1.0]
            .iter()
            .map(|s| known.case_probability(*s).unwrap())
            .collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
        assert!((steps[2] - 1.0 / (1.0 + 1f64.exp())).abs() < 1e-12);
        let [low, high] = known.volume_interval_ml(10.0).unwrap();
        assert!(low < 10.0 && 10.0 < high);
        assert!((excess(high, 10.0) - 0.4).abs() < 1e-12);
        assert_eq!(known.volume_interval_ml(0.0).unwrap()[0], 0.0);
    }

    #[test]
    fn a_probability_from_phantoms_is_refused() {
        let phantoms = Cases::Phantoms {
            first_seed: 1,
            count: 100,
        };
        let known = calibration(phantoms);
        assert!(known.check("m", "0123456789").is_err());
        let thresholds = Calibration {
            prevalence: None,
            case: None,
            finding: None,
            volume: None,
            ..known
        };
        thresholds.check("m", "0123456789").unwrap();
        assert_eq!(thresholds.case_probability(0.9), None);
        assert!(
            thresholds.to_string().ends_with("; no probabilities"),
            "{thresholds}"
        );
    }

    #[test]
    fn is_refused_for_another_model_and_for_numbers_that_cannot_be() {
        let known = calibration(scans());
        known.check("m", "0123456789").unwrap();
        let other = known.check("m", "9999999999").unwrap_err();
        assert!(
            other.contains("01234567") && other.contains("99999999"),
            "{other}"
        );
        assert!(known.check("n", "0123456789").is_err());
        let upside_down = Calibration {
            flag_score: [0.9, 0.3],
            ..known
        };
        assert!(upside_down.check("m", "0123456789").is_err());
    }
}
