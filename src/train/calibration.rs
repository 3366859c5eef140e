//! Judged cases → `calibration.json`: what the scores of a model meant on cases whose truth is known; and whether that holds on others.
//!
//! Reads the folders that `ictus evaluate` fills. Cases with less of a lesion than counts are left out, and phantoms with a closed M2, which no detector is made for.
//! What is fitted, and what it promises: `domain::calibration`.

use super::{
    TrainError,
    evaluation::{
        judge::{self, FindingCase},
        ledger::{Header, read_cases, read_header},
        statistics::{Estimate, share},
    },
    occlusion,
    phantom::Site,
    training,
};
use crate::{
    analysis::infer::bundle::CALIBRATION,
    domain::calibration::{Calibration, Cases, Curve, SCHEMA, SMALLEST_ML, VolumeRange, excess, log_odds},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Share of findings whose true volume lies below its interval, and above it.
const TAIL: f64 = 0.05;
/// True and false findings that a curve of findings needs of each.
const LEAST_FINDINGS: usize = 10;
/// Steps of Newton's method; a handful is enough.
const STEPS: usize = 50;
/// How often a step is halved before it counts as none.
const HALVINGS: i32 = 30;
/// Beyond the score that is still taken for no lesion: more than a number loses when it is written.
const BEYOND: f64 = 1e-6;

/// What is promised.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Share of cases with a lesion for which probabilities are meant; none: as among the cases.
    pub prevalence: Option<f64>,
    /// Share of cases with a lesion that may be answered "absent".
    pub missed: f64,
    /// Share of cases without one that may be answered "present".
    pub false_flags: f64,
}

/// A case whose truth is known.
#[derive(Debug, Clone)]
struct Known {
    score: f64,
    has_lesion: bool,
    has_finding: bool,
    findings: Vec<FindingCase>,
}

/// The cases of a folder that count.
fn known(folder: &Path) -> Result<(Header, Vec<Known>), TrainError> {
    let path = folder.join("cases.jsonl");
    let header = read_header(&path)?;
    let of_arteries = occlusion::judges(&header.question) && matches!(header.source, Cases::Phantoms { .. });
    let cases = if of_arteries {
        let cases: Vec<occlusion::Case> = read_cases(&path, &header)?;
        let counted = cases
            .into_iter()
            .filter(|case| case.visible && case.site != Some(Site::M2));
        counted
            .map(|case| Known {
                score: case.score,
                has_lesion: case.site.is_some(),
                has_finding: case.findings > 0,
                findings: Vec::new(),
            })
            .collect()
    } else {
        let cases: Vec<judge::Case> = read_cases(&path, &header)?;
        let counted = cases
            .into_iter()
            .filter(|case| !case.is_positive() || case.truth_ml >= SMALLEST_ML);
        counted
            .map(|case| Known {
                score: case.score,
                has_lesion: case.is_positive(),
                has_finding: !case.findings.is_empty(),
                findings: case.findings,
            })
            .collect()
    };
    Ok((header, cases))
}

/// Makes the calibration of the model that a folder's cases were judged with.
///
/// # Errors
/// When the folder cannot be read, its run is not finished, or its cases are too few for what is wanted.
pub fn calibrate(folder: &Path, wanted: Wanted) -> Result<Calibration, TrainError> {
    let (header, cases) = known(folder)?;
    let of = |lesion: bool| {
        let mut scores: Vec<f64> = cases
            .iter()
            .filter(|case| case.has_lesion == lesion)
            .map(|case| case.score)
            .collect();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let (positive, mut negative) = (of(true), of(false));
    let low = positive[allowed(positive.len(), wanted.missed, "with", "missed")? - 1];
    negative.reverse();
    let high = negative[allowed(negative.len(), wanted.false_flags, "without", "flagged")? - 1] + BEYOND;
    if high > 1.0 {
        return Err(TrainError::Mismatch(format!(
            "of {} cases without a lesion more than the share of {} have a score of 1, so that no threshold tells them from those with one; allow more false flags, or train the model further",
            negative.len(),
            wanted.false_flags
        )));
    }
    let meaning = Meaning::of(&header.source, &cases, wanted.prevalence);
    Ok(Calibration {
        schema: SCHEMA,
        model: header.model,
        model_sha256: header.model_sha256,
        cases: header.source,
        positive: positive.len(),
        negative: negative.len(),
        flag_score: [low.min(high), high],
        missed: wanted.missed,
        false_flags: wanted.false_flags,
        prevalence: meaning.prevalence,
        case: meaning.case,
        finding: meaning.finding,
        volume: meaning.volume,
    })
}

/// How many of `n` known ones may lie outside so that the next one does with at most the probability `share`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count"
)]
fn outside(n: usize, share: f64) -> usize {
    // A twentieth of twenty is one, however it is rounded.
    ((share * (n as f64 + 1.0) + 1e-9).floor() as usize).min(n)
}

/// How many of `n` known cases may lie on the wrong side of a threshold so that the next one does with at most the probability `share`.
fn allowed(n: usize, share: f64, which: &str, what: &str) -> Result<usize, TrainError> {
    let allowed = outside(n, share);
    if allowed > 0 {
        Ok(allowed)
    } else {
        let needed = (n..).find(|n| outside(*n, share) > 0).unwrap_or(usize::MAX);
        Err(TrainError::Mismatch(format!(
            "found {n} cases {which} a lesion, at least {needed} are needed to promise that at most a share of {share} is {what}; evaluate more cases, or allow a larger share"
        )))
    }
}

/// What only scans can say.
#[derive(Debug, Default)]
struct Meaning {
    prevalence: Option<f64>,
    case: Option<Curve>,
    finding: Option<Curve>,
    volume: Option<VolumeRange>,
}

impl Meaning {
    fn of(source: &Cases, cases: &[Known], prevalence: Option<f64>) -> Self {
        if matches!(source, Cases::Phantoms { .. }) {
            return Self::default();
        }
        let there = cases.iter().filter(|case| case.has_lesion).count() as f64 / cases.len() as f64;
        let prevalence = prevalence.unwrap_or(there);
        // How much more often a case with a lesion, and one without, occurs than it is there.
        let weights = [(1.0 - prevalence) / (1.0 - there), prevalence / there];
        let is_true = |finding: &FindingCase| finding.truth_ml > 0.0;
        let (mut findings, mut often) = (Vec::new(), [0.0; 2]);
        for case in cases {
            for finding in &case.findings {
                findings.push((finding.score, is_true(finding)));
                often[usize::from(is_true(finding))] += weights[usize::from(case.has_lesion)];
            }
        }
        let found = findings.iter().filter(|(_, is_true)| *is_true).count();
        let enough = found.min(findings.len() - found) >= LEAST_FINDINGS;
        let scores: Vec<(f64, bool)> = cases.iter().map(|case| (case.score, case.has_lesion)).collect();
        Self {
            prevalence: Some(prevalence),
            case: Some(curve(&scores, prevalence)),
            finding: enough.then(|| curve(&findings, often[1] / (often[0] + often[1]))),
            volume: volume(
                cases
                    .iter()
                    .flat_map(|case| &case.findings)
                    .filter(|finding| is_true(finding)),
            ),
        }
    }
}

/// Fits a curve to scores and whether each was true, never falling, and moves it to another share of true ones.
fn curve(points: &[(f64, bool)], share: f64) -> Curve {
    let count = |which: bool| points.iter().filter(|point| point.1 == which).count() as f64;
    // Platt's targets: nobody is sure after so many cases.
    let target = [
        1.0 / (count(false) + 2.0),
        (count(true) + 1.0) / (count(true) + 2.0),
    ];
    let odds = |share: f64| (share / (1.0 - share)).ln();
    let there = count(true) / points.len() as f64;
    let level = Curve {
        intercept: odds(there),
        slope: 0.0,
    };
    let unlikeliness = |curve: Curve| -> f64 {
        let terms = points.iter().map(|(score, is_true)| {
            let (p, t) = (curve.at(*score), target[usize::from(*is_true)]);
            -(t * p.max(1e-300).ln() + (1.0 - t) * (1.0 - p).max(1e-300).ln())
        });
        terms.sum()
    };
    let (mut fitted, mut worst) = (level, unlikeliness(level));
    for _ in 0..STEPS {
        let (mut down, mut bend) = ([0.0; 2], [1e-9, 0.0, 1e-9]);
        for (score, is_true) in points {
            let (x, p) = (log_odds(*score), fitted.at(*score));
            let (off, steep) = (target[usize::from(*is_true)] - p, p * (1.0 - p));
            down = [down[0] + off, down[1] + off * x];
            bend = [bend[0] + steep, bend[1] + steep * x, bend[2] + steep * x * x];
        }
        let determinant = bend[0] * bend[2] - bend[1] * bend[1];
        let step = [
            (bend[2] * down[0] - bend[1] * down[1]) / determinant,
            (bend[0] * down[1] - bend[1] * down[0]) / determinant,
        ];
        // Half as far as long as that is no better.
        let next = (0..HALVINGS)
            .map(|halving| 0.5f64.powi(halving))
            .find_map(|part| {
                let tried = Curve {
                    intercept: fitted.intercept + part * step[0],
                    slope: fitted.slope + part * step[1],
                };
                let value = unlikeliness(tried);
                (value < worst).then_some((tried, value))
            });
        let Some((tried, value)) = next else { break };
        (fitted, worst) = (tried, value);
    }
    let fitted = if fitted.slope > 0.0 { fitted } else { level };
    Curve {
        intercept: fitted.intercept + odds(share) - odds(there),
        ..fitted
    }
}

/// The conformal range of true over found volumes, where there are enough.
fn volume<'a>(found: impl Iterator<Item = &'a FindingCase>) -> Option<VolumeRange> {
    let mut logs: Vec<f64> = found
        .map(|finding| excess(finding.truth_ml, finding.volume_ml))
        .collect();
    logs.sort_by(f64::total_cmp);
    let n = logs.len();
    let outside = outside(n, TAIL);
    (outside > 0).then(|| VolumeRange {
        level: 1.0 - 2.0 * TAIL,
        log_range: [logs[outside - 1], logs[n - outside]],
    })
}

/// Writes a calibration into its model's folder below `models`, whole or not at all; where it lies now.
///
/// # Errors
/// When that cannot be written.
pub fn save(calibration: &Calibration, models: &Path) -> Result<PathBuf, TrainError> {
    let folder = models.join(&calibration.model);
    fs::create_dir_all(&folder).map_err(|e| TrainError::file(&folder, e))?;
    let path = folder.join(CALIBRATION);
    let json = serde_json::to_vec_pretty(calibration).map_err(|e| TrainError::file(&path, e.into()))?;
    training::write(&path, &json)?;
    Ok(path)
}

/// How a calibration fares on other cases of the same model.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The cases.
    pub cases: Cases,
    /// Cases with a lesion that are answered "absent".
    pub missed: Estimate,
    /// Cases without one that are answered "present".
    pub false_flags: Estimate,
    /// Cases that are answered "uncertain".
    pub uncertain: Estimate,
    /// Of the case's probability at the calibration's prevalence: expected calibration error in ten bins, and mean squared error; null where there is none.
    pub case: Option<[f64; 2]>,
    /// Findings that are lesions and whose true volume lies in its interval.
    pub volume: Option<Estimate>,
}

/// Holds a calibration against the cases of another folder.
///
/// # Errors
/// When the folder cannot be read, is of another model, or of the very cases that the calibration was made on.
pub fn check(calibration: &Calibration, folder: &Path) -> Result<Checked, TrainError> {
    let (header, cases) = known(folder)?;
    let refused = |what: String| Err(TrainError::Mismatch(format!("{}: {what}", folder.display())));
    if (&header.model, &header.model_sha256) != (&calibration.model, &calibration.model_sha256) {
        return refused(format!(
            "its cases were judged with {} {}, the calibration is of {}; evaluate the same model",
            header.model, header.model_version, calibration.model
        ));
    }
    if header.source.overlaps(&calibration.cases) {
        return refused(format!(
            "the calibration was made on cases ({}) that are among these ({}); check it on others",
            calibration.cases, header.source
        ));
    }
    let [low, high] = calibration.flag_score;
    let count = |lesion: Option<bool>, is: &dyn Fn(&Known) -> bool| {
        let of: Vec<&Known> = cases
            .iter()
            .filter(|case| lesion.is_none_or(|lesion| case.has_lesion == lesion))
            .collect();
        share(of.iter().filter(|case| is(case)).count(), of.len())
    };
    let is_absent = |case: &Known| !case.has_finding && case.score < low;
    let is_present = |case: &Known| case.has_finding && case.score >= high;
    let is_inside = |finding: &&&FindingCase| {
        let ratio = excess(finding.truth_ml, finding.volume_ml);
        calibration
            .volume
            .is_some_and(|range| (range.log_range[0]..=range.log_range[1]).contains(&ratio))
    };
    let found: Vec<&FindingCase> = cases
        .iter()
        .flat_map(|case| &case.findings)
        .filter(|finding| finding.truth_ml > 0.0)
        .collect();
    Ok(Checked {
        missed: count(Some(true), &is_absent),
        false_flags: count(Some(false), &is_present),
        uncertain: count(None, &|case| !is_absent(case) && !is_present(case)),
        case: probability_errors(calibration, &cases),
        volume: calibration
            .volume
            .map(|_| share(found.iter().filter(is_inside).count(), found.len())),
        cases: header.source,
    })
}

/// Expected calibration error and mean squared error of the case's probability, each case weighing as often as it occurs at the prevalence that is meant.
fn probability_errors(calibration: &Calibration, cases: &[Known]) -> Option<[f64; 2]> {
    let (curve, prevalence) = (calibration.case?, calibration.prevalence?);
    let positive = cases.iter().filter(|case| case.has_lesion).count() as f64;
    let negative = cases.len() as f64 - positive;
    if positive == 0.0 || negative == 0.0 {
        return None;
    }
    let weights = [(1.0 - prevalence) / negative, prevalence / positive];
    let (mut gaps, mut squares) = ([0.0f64; 10], 0.0);
    for case in cases {
        let weight = weights[usize::from(case.has_lesion)];
        let probability = curve.at(case.score);
        let off = probability - f64::from(u8::from(case.has_lesion));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a bin of 0..=1"
        )]
        let bin = ((probability * 10.0) as usize).min(9);
        gaps[bin] += weight * off;
        squares += weight * off * off;
    }
    Some([gaps.iter().map(|gap| gap.abs()).sum(), squares])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::finding::AnswerValue, train::evaluation::calibration::Voxels};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;

    const WANTED: Wanted = Wanted {
        prevalence: None,
        missed: 0.05,
        false_flags: 0.03,
    };

    fn header(name: &str, count: usize) -> serde_json::Value {
        json!({
            "schema": crate::train::evaluation::ledger::SCHEMA, "ictus": "0", "question": "haemorrhage", "model": "m",
            "model_version": "1", "model_sha256": "aa", "weights_sha256": "bb", "calibration_sha256": null, "numeric_mode": "cpu",
            "source": { "kind": "dataset", "name": name, "count": count, "digest": format!("of {name}") },
        })
    }

    fn case(index: usize, truth_ml: f64, score: f64, findings: &[FindingCase]) -> serde_json::Value {
        json!({
            "name": index.to_string(), "seed": null, "kind": "unknown", "stack": "file", "strata": [],
            "slices": 1, "thickness_mm": 5.0, "tilt_degrees": 0.0, "truth_ml": truth_ml, "found_ml": 0.0,
            "dice": null, "nsd": null, "hd95_mm": null, "classes": {}, "lesions": [], "false_lesions": [],
            "findings": findings, "answer": AnswerValue::Uncertain, "score": score, "disagreement": 0.0,
            "voxels": Voxels::default(), "seconds": 0.0,
        })
    }

    fn write(folder: &Path, header: &serde_json::Value, cases: &[serde_json::Value]) {
        fs::create_dir_all(folder).unwrap();
        let lines: Vec<String> = [header]
            .into_iter()
            .chain(cases)
            .map(ToString::to_string)
            .collect();
        fs::write(folder.join("cases.jsonl"), lines.join("\n") + "\n").unwrap();
    }

    /// Cases of which every second one has a lesion: its score is the higher of two draws, that of others the lower of two.
    /// Then a score `s` belongs to a lesion with the probability `s`.
    /// What is found of a lesion is between half and all of it.
    fn drawn(seed: u64, count: usize) -> Vec<serde_json::Value> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count)
            .map(|index| {
                let two: [f64; 2] = [rng.random(), rng.random()];
                let has_lesion = index % 2 == 0;
                let score = if has_lesion {
                    two[0].max(two[1])
                } else {
                    two[0].min(two[1])
                };
                let truth_ml = if has_lesion {
                    rng.random_range(1.0..60.0)
                } else {
                    0.0
                };
                let found_ml = if has_lesion {
                    truth_ml * rng.random_range(0.5..1.0)
                } else {
                    2.0
                };
                let finding = FindingCase {
                    volume_ml: found_ml,
                    score,
                    truth_ml,
                };
                // Nothing is shown of a weak one.
                let shown = if score > 0.3 { vec![finding] } else { Vec::new() };
                case(index, truth_ml, score, &shown)
            })
            .collect()
    }

    #[test]
    fn promises_are_kept_on_other_cases_and_probabilities_mean_what_they_say() {
        let root = tempfile::tempdir().unwrap();
        let (mut missed, mut flagged, mut covered) = (0.0, 0.0, 0.0);
        let rounds = 30u32;
        for round in 0..u64::from(rounds) {
            let [one, other] = ["one", "other"].map(|name| root.path().join(format!("{name}{round}")));
            write(&one, &header("one", 200), &drawn(round, 200));
            write(&other, &header("other", 400), &drawn(1000 + round, 400));
            let calibration = calibrate(&one, WANTED).unwrap();
            let checked = check(&calibration, &other).unwrap();
            missed += checked.missed.value.unwrap();
            flagged += checked.false_flags.value.unwrap();
            covered += checked.volume.unwrap().value.unwrap();
            for score in [0.2, 0.5, 0.8] {
                let found = calibration.case_probability(score).unwrap();
                assert!((found - score).abs() < 0.15, "{round}: {score} means {found}");
            }
            let [ece, brier] = checked.case.unwrap();
            assert!(ece < 0.15 && brier < 0.22, "{round}: {checked:?}");
        }
        let mean = |sum: f64| sum / f64::from(rounds);
        assert!(mean(missed) <= 0.05 && mean(missed) > 0.0, "{}", mean(missed));
        assert!(
            mean(flagged) <= 0.03 && mean(flagged) > 0.005,
            "{}",
            mean(flagged)
        );
        assert!((mean(covered) - 0.9).abs() < 0.03, "{}", mean(covered));
    }

    #[test]
    fn where_lesions_are_rarer_the_same_score_means_less() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &header("one", 400), &drawn(1, 400));
        let at = |prevalence| {
            let wanted = Wanted { prevalence, ..WANTED };
            let calibration = calibrate(root.path(), wanted).unwrap();
            (
                calibration.case_probability(0.9).unwrap(),
                calibration.finding_probability(0.9).unwrap(),
            )
        };
        let ((case, finding), (rare_case, rare_finding)) = (at(None), at(Some(0.1)));
        // Bayes: odds of 9 to 1 among as many with as without become even ones.
        assert!(
            (case - 0.9).abs() < 0.05 && (rare_case - 0.5).abs() < 0.15,
            "{case} {rare_case}"
        );
        assert!(rare_finding < finding, "{rare_finding} {finding}");
    }

    #[test]
    fn probabilities_are_as_rare_as_lesions_are_meant_to_be_however_few_cases_there_are() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &header("one", 80), &drawn(5, 80));
        let wanted = Wanted {
            prevalence: Some(0.01),
            ..WANTED
        };
        let curve = calibrate(root.path(), wanted).unwrap().case.unwrap();
        // Scores as they come at that prevalence: the higher of two for one in a hundred.
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let told = (0..20_000).map(|index| {
            let two: [f64; 2] = [rng.random(), rng.random()];
            curve.at(if index % 100 == 0 {
                two[0].max(two[1])
            } else {
                two[0].min(two[1])
            })
        });
        let mean = told.sum::<f64>() / 20_000.0;
        assert!((0.005..0.02).contains(&mean), "{mean}");
    }

    #[test]
    fn phantoms_give_thresholds_and_nothing_that_is_called_a_probability() {
        let root = tempfile::tempdir().unwrap();
        let mut header = header("one", 200);
        header["source"] = json!({ "kind": "phantoms", "first_seed": 100, "count": 200 });
        write(root.path(), &header, &drawn(1, 200));
        let calibration = calibrate(root.path(), WANTED).unwrap();
        calibration.check("m", "aa").unwrap();
        assert_eq!(
            (calibration.case, calibration.finding, calibration.volume),
            (None, None, None)
        );
        // Seeds that are among those it was made on.
        header["source"] = json!({ "kind": "phantoms", "first_seed": 250, "count": 200 });
        write(root.path(), &header, &drawn(2, 200));
        assert!(check(&calibration, root.path()).is_err());
        header["source"] = json!({ "kind": "phantoms", "first_seed": 300, "count": 200 });
        write(root.path(), &header, &drawn(2, 200));
        assert!(check(&calibration, root.path()).unwrap().case.is_none());
    }

    #[test]
    fn small_lesions_count_neither_as_lesions_nor_as_none() {
        let root = tempfile::tempdir().unwrap();
        let mut cases = drawn(3, 200);
        for index in 0..10 {
            cases.push(case(200 + index, 0.4, 0.0, &[]));
        }
        write(root.path(), &header("one", 210), &cases);
        let calibration = calibrate(root.path(), WANTED).unwrap();
        assert_eq!((calibration.positive, calibration.negative), (100, 100));
        assert!(calibration.flag_score[0] > 0.0);
    }

    #[test]
    fn says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let refused = |wanted: Wanted| calibrate(root.path(), wanted).unwrap_err().to_string();
        assert!(refused(WANTED).contains("cases.jsonl"));
        write(root.path(), &header("one", 30), &drawn(1, 30));
        let few = refused(WANTED);
        assert!(
            few.contains("found 15 cases with a lesion, at least 19 are needed"),
            "{few}"
        );
        let looser = Wanted {
            missed: 0.1,
            false_flags: 0.1,
            ..WANTED
        };
        let calibration = calibrate(root.path(), looser).unwrap();
        let same = check(&calibration, root.path()).unwrap_err().to_string();
        assert!(same.contains("check it on others"), "{same}");
        write(root.path(), &header("one", 31), &drawn(1, 30));
        let unfinished = refused(looser);
        assert!(unfinished.contains("holds 30 of 31 cases of one"), "{unfinished}");
        let mut all_ones = drawn(1, 30);
        for one in &mut all_ones {
            one["score"] = 1.0.into();
        }
        write(root.path(), &header("one", 30), &all_ones);
        assert!(refused(looser).contains("no threshold"));
    }
}
