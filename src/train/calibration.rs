//! Judged cases → `calibration.json`: what the scores of a model meant on cases whose truth is known; and whether that holds on others.
//!
//! Reads the folders that `ictus evaluate` fills. Lesions below the smallest that counts are left out: they are neither to be found nor false.
//! What is fitted, and what it promises: `domain::calibration`.

use super::{
    TrainError,
    evaluation::{
        judge::{self, Region},
        ledger::{Header, read_cases, read_header},
        metrics::SMALLEST_ML,
        statistics::{Estimate, share},
    },
    occlusion,
    phantom::Site,
};
use crate::domain::calibration::{Calibration, Cases, Curve, SCHEMA, VolumeRange, excess, log_odds};
use std::path::Path;

/// Share of findings whose true volume lies in its interval.
const LEVEL: f64 = 0.9;
/// True and false findings that a curve of findings needs of each.
const LEAST_FINDINGS: usize = 10;
/// Steps of Newton's method; a handful is enough.
const STEPS: usize = 50;
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
    /// Whether anything would be shown.
    has_finding: bool,
    regions: Vec<Region>,
}

/// The cases of a folder that count.
fn known(folder: &Path) -> Result<(Header, Vec<Known>), TrainError> {
    let path = folder.join("cases.jsonl");
    let header = read_header(&path)?;
    let of_arteries =
        header.question == occlusion::QUESTION && matches!(header.source, Cases::Phantoms { .. });
    let cases = if of_arteries {
        let cases: Vec<occlusion::Case> = read_cases(&path, &header)?;
        let counted = cases.into_iter().filter(|case| case.site != Some(Site::M2));
        counted
            .map(|case| Known {
                score: case.score,
                has_lesion: case.site.is_some(),
                has_finding: case.found_site.is_some(),
                regions: Vec::new(),
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
                has_finding: !case.regions.is_empty(),
                regions: case.regions,
            })
            .collect()
    };
    Ok((header, cases))
}

/// How often each case with a lesion, and each without one, occurs at a prevalence beside how often it is there.
fn weights(cases: &[Known], prevalence: f64) -> [f64; 2] {
    let positive = cases.iter().filter(|case| case.has_lesion).count() as f64;
    let negative = cases.len() as f64 - positive;
    [(1.0 - prevalence) / negative, prevalence / positive]
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
    let prevalence = wanted
        .prevalence
        .unwrap_or(positive.len() as f64 / cases.len() as f64);
    let weights = weights(&cases, prevalence);
    let weight = |case: &Known| weights[usize::from(case.has_lesion)];
    let points = cases
        .iter()
        .map(|case| (case.score, case.has_lesion, weight(case)));
    let regions: Vec<(Region, f64)> = cases
        .iter()
        .flat_map(|case| case.regions.iter().map(|region| (*region, weight(case))))
        .collect();
    let is_true = |region: &Region| region.truth_ml > 0.0;
    let found = regions.iter().filter(|(region, _)| is_true(region)).count();
    let enough = found.min(regions.len() - found) >= LEAST_FINDINGS;
    let finding = enough.then(|| {
        let points = regions
            .iter()
            .map(|(region, weight)| (region.score, is_true(region), *weight));
        curve(&points.collect::<Vec<_>>())
    });
    Ok(Calibration {
        schema: SCHEMA,
        model: header.model,
        weights_sha256: header.weights_sha256,
        cases: header.source,
        positive: positive.len(),
        negative: negative.len(),
        prevalence,
        case: curve(&points.collect::<Vec<_>>()),
        finding,
        flag_score: [low.min(high), high],
        missed: wanted.missed,
        false_flags: wanted.false_flags,
        volume: volume(
            regions
                .iter()
                .map(|(region, _)| region)
                .filter(|region| is_true(region)),
        ),
    })
}

/// How many of `n` known cases may lie on the wrong side of a threshold so that the next one does with at most the probability `share`.
fn allowed(n: usize, share: f64, which: &str, what: &str) -> Result<usize, TrainError> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let (allowed, needed) = (
        (share * (n as f64 + 1.0)).floor() as usize,
        (1.0 / share).ceil() as usize - 1,
    );
    if allowed > 0 {
        Ok(allowed.min(n))
    } else {
        Err(TrainError::Mismatch(format!(
            "found {n} cases {which} a lesion, at least {needed} are needed to promise that at most a share of {share} is {what}; evaluate more cases, or allow a larger share"
        )))
    }
}

/// Fits a curve to scores, whether each was true, and its weight: the likeliest by Newton's method, never falling.
fn curve(points: &[(f64, bool, f64)]) -> Curve {
    let count = |which: bool| points.iter().filter(|point| point.1 == which).count() as f64;
    // Platt's targets: nobody is sure after so many cases.
    let target = [
        1.0 / (count(false) + 2.0),
        (count(true) + 1.0) / (count(true) + 2.0),
    ];
    let all: f64 = points.iter().map(|point| point.2).sum();
    let mean = points.iter().map(|p| p.2 * target[usize::from(p.1)]).sum::<f64>() / all;
    let level = Curve {
        intercept: (mean / (1.0 - mean)).ln(),
        slope: 0.0,
    };
    let mut fitted = level;
    for _ in 0..STEPS {
        let (mut down, mut bend) = ([0.0; 2], [1e-9, 0.0, 1e-9]);
        for (score, is_true, weight) in points {
            let (x, p) = (log_odds(*score), fitted.at(*score));
            let (off, steep) = (
                weight / all * (target[usize::from(*is_true)] - p),
                weight / all * p * (1.0 - p),
            );
            down = [down[0] + off, down[1] + off * x];
            bend = [bend[0] + steep, bend[1] + steep * x, bend[2] + steep * x * x];
        }
        let determinant = bend[0] * bend[2] - bend[1] * bend[1];
        if determinant <= 0.0 {
            break;
        }
        let limit = |step: f64| step.clamp(-2.0, 2.0);
        fitted.intercept += limit((bend[2] * down[0] - bend[1] * down[1]) / determinant);
        fitted.slope += limit((bend[0] * down[1] - bend[1] * down[0]) / determinant);
    }
    if fitted.slope > 0.0 { fitted } else { level }
}

/// The conformal range of true over found volumes, where there are enough.
fn volume<'a>(found: impl Iterator<Item = &'a Region>) -> Option<VolumeRange> {
    let mut logs: Vec<f64> = found
        .map(|region| excess(region.truth_ml, region.volume_ml))
        .collect();
    logs.sort_by(f64::total_cmp);
    let n = logs.len();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let outside = ((1.0 - LEVEL) / 2.0 * (n as f64 + 1.0)).floor() as usize;
    (outside > 0).then(|| VolumeRange {
        level: LEVEL,
        log_range: [logs[outside - 1], logs[n - outside]],
    })
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
    /// Expected calibration error of the case's probability at the calibration's prevalence, in ten bins.
    pub ece: f64,
    /// Its mean squared error.
    pub brier: f64,
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
    if (&header.model, &header.weights_sha256) != (&calibration.model, &calibration.weights_sha256) {
        return refused(format!(
            "its cases were judged with {} {}, the calibration is of {}; evaluate the same model",
            header.model, header.model_version, calibration.model
        ));
    }
    if header.source == calibration.cases {
        return refused(format!(
            "the calibration was made on these cases ({}); check it on others",
            header.source
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
    let weights = weights(&cases, calibration.prevalence);
    let (mut gaps, mut squares) = ([0.0f64; 10], 0.0);
    for case in &cases {
        let weight = weights[usize::from(case.has_lesion)];
        let probability = calibration.case.at(case.score);
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
    Ok(Checked {
        missed: count(Some(true), &is_absent),
        false_flags: count(Some(false), &is_present),
        uncertain: count(None, &|case| !is_absent(case) && !is_present(case)),
        ece: gaps.iter().map(|gap| gap.abs()).sum(),
        brier: squares,
        volume: calibration.volume.map(|range| {
            let found: Vec<&Region> = cases
                .iter()
                .flat_map(|case| &case.regions)
                .filter(|region| region.truth_ml > 0.0)
                .collect();
            let [low, high] = range.log_range;
            let inside = |r: &&&Region| (low..=high).contains(&excess(r.truth_ml, r.volume_ml));
            share(found.iter().filter(inside).count(), found.len())
        }),
        cases: header.source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::finding::AnswerValue, train::evaluation::calibration::Voxels};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;
    use std::fs;

    const WANTED: Wanted = Wanted {
        prevalence: None,
        missed: 0.05,
        false_flags: 0.03,
    };

    fn header(name: &str, count: usize) -> serde_json::Value {
        json!({
            "schema": crate::train::evaluation::ledger::SCHEMA, "ictus": "0", "question": "haemorrhage", "model": "m",
            "model_version": "1", "model_sha256": "aa", "weights_sha256": "bb", "numeric_mode": "cpu",
            "source": { "kind": "dataset", "name": name, "count": count, "digest": "cc" },
        })
    }

    fn case(index: usize, truth_ml: f64, score: f64, regions: &[Region]) -> serde_json::Value {
        json!({
            "name": index.to_string(), "seed": null, "kind": "unknown", "stack": "file", "strata": [],
            "slices": 1, "thickness_mm": 5.0, "tilt_degrees": 0.0, "truth_ml": truth_ml, "found_ml": 0.0,
            "dice": null, "nsd": null, "hd95_mm": null, "classes": {}, "lesions": [], "false_lesions": [],
            "regions": regions, "answer": AnswerValue::Uncertain, "score": score, "disagreement": 0.0,
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
                let region = Region {
                    volume_ml: found_ml,
                    score,
                    truth_ml,
                };
                // Nothing is shown of a weak one.
                let shown = if score > 0.3 { vec![region] } else { Vec::new() };
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
            assert!(checked.ece < 0.15 && checked.brier < 0.22, "{round}: {checked:?}");
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
        assert!(same.contains("made on these cases"), "{same}");
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
