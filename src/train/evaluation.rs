//! Held-out phantoms → how well a model segments and detects, and whether its doubt lies where it is wrong.
//!
//! Every phantom goes through the real stages on a whole stack, tilted, uneven or even, from the wider evaluation ranges.
//! What comes out is about phantoms and says nothing of patients.

use super::{
    TrainError,
    phantom::{GeometryKind, Head, Kind, Range, Rendered, geometry},
};
use crate::{
    analysis::{
        self, Look, Scan,
        infer::{Engine, bundle::Model},
    },
    domain::{finding::AnswerValue, network::Unattended, uid::Uid, volume_trace::Turn},
};
use serde::Serialize;

/// A lesion counts as found when this share of its voxels is in the mask, or it overlaps a finding by as much of the finding.
const FOUND_SHARE: f64 = 0.1;
/// Lesions below this are not counted, mL.
const SMALLEST_ML: f64 = 1.0;
/// Bins of the ranking of voxels by entropy.
const BINS: usize = 4096;

/// `metrics.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Metrics {
    /// What these numbers are about.
    pub about: String,
    /// Model.
    pub model: String,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// Phantoms with a bleed, and without.
    pub bleeding: usize,
    /// Phantoms without a bleed.
    pub normal: usize,
    /// Mean Dice of the mask over bleeding phantoms.
    pub dice_mean: f64,
    /// Median Dice.
    pub dice_median: f64,
    /// Lesions of at least 1 mL.
    pub lesions: usize,
    /// Share of them that was found.
    pub lesion_sensitivity: f64,
    /// Findings that overlap no lesion, a case, over all phantoms.
    pub false_alarms_per_case: f64,
    /// Share of bleeding phantoms that were flagged.
    pub flagged_bleeding: f64,
    /// Share of normal phantoms that were flagged.
    pub flagged_normal: f64,
    /// Share of all phantoms answered `uncertain`.
    pub uncertain: f64,
    /// Area under the ROC curve of entropy telling wrong from right voxels inside the brain.
    pub entropy_auroc_wrong: f64,
    /// Each phantom.
    pub cases: Vec<Case>,
}

/// One phantom.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// Its seed.
    pub seed: u64,
    /// Its stack.
    pub geometry: String,
    /// True volume, mL.
    pub truth_ml: f64,
    /// Volume of the mask, mL.
    pub found_ml: f64,
    /// Dice; null when nothing bleeds.
    pub dice: Option<f64>,
    /// The answer.
    pub answer: AnswerValue,
    /// Case score.
    pub score: f64,
    /// Disagreement of the members.
    pub disagreement: f64,
    /// Lesions that were counted, and found.
    pub lesions: [usize; 2],
    /// Findings without a lesion.
    pub false_alarms: usize,
}

/// Counts of right and wrong voxels by entropy.
struct Ranking {
    right: Vec<u64>,
    wrong: Vec<u64>,
}

impl Ranking {
    /// Probability that a wrong voxel has the higher entropy, ties halved.
    fn auroc(&self) -> f64 {
        let (right, wrong): (u64, u64) = (self.right.iter().sum(), self.wrong.iter().sum());
        let (mut below, mut sum) = (0.0, 0.0);
        for (r, w) in self.right.iter().zip(&self.wrong) {
            sum += *w as f64 * (below + *r as f64 / 2.0);
            below += *r as f64;
        }
        if right == 0 || wrong == 0 {
            f64::NAN
        } else {
            sum / (right as f64 * wrong as f64)
        }
    }
}

/// Judges a model on `count` phantoms, half of them bleeding, from `first_seed` on.
///
/// # Errors
/// When a stage fails on a phantom.
pub fn evaluate(
    engine: &Engine,
    model: &Model,
    first_seed: u64,
    count: usize,
    mut tell: impl FnMut(&Case),
) -> Result<Metrics, TrainError> {
    let kinds = [
        GeometryKind::Scanner,
        GeometryKind::Even,
        GeometryKind::Tilted,
        GeometryKind::Uneven,
        GeometryKind::Oblique,
    ];
    let mut ranking = Ranking {
        right: vec![0; BINS],
        wrong: vec![0; BINS],
    };
    let mut cases = Vec::with_capacity(count);
    for i in 0..count {
        let seed = first_seed + i as u64;
        let kind = if i % 2 == 0 {
            Kind::Haemorrhage
        } else {
            Kind::Normal
        };
        let stack = kinds[i / 2 % kinds.len()];
        let rendered =
            Head::new(seed, kind, Range::Evaluation).render(&geometry(stack, seed, Range::Evaluation));
        let series = Uid::derive(&[&seed.to_be_bytes()]);
        let mut report = analysis::empty_report(None);
        let scan = Scan {
            channels: vec![rendered.hu.clone()],
            turn: Turn::DICOM,
        };
        let look = analysis::look(scan, engine, model, &series, &Unattended, &mut report).map_err(|e| {
            TrainError::Stage {
                seed,
                what: e.to_string(),
            }
        })?;
        let case = judge(
            seed,
            format!("{stack:?}").to_lowercase(),
            &rendered,
            &look,
            &mut ranking,
        );
        tell(&case);
        cases.push(case);
    }
    Ok(summarise(model, cases, &ranking))
}

fn judge(seed: u64, geometry: String, rendered: &Rendered, look: &Look, ranking: &mut Ranking) -> Case {
    let grid = &rendered.truth.geometry;
    let len = grid.slice_len();
    let truth = |v: usize| rendered.truth.data[v] != 0;
    let mask = |v: usize| look.found.segments.data[v] != 0;
    let (mut both, mut truth_ml, mut found_ml) = (0.0, 0.0, 0.0);
    for v in 0..grid.len() {
        let ml = grid.voxel_volume_ml(v / len);
        truth_ml += if truth(v) { ml } else { 0.0 };
        found_ml += if mask(v) { ml } else { 0.0 };
        both += if truth(v) && mask(v) { ml } else { 0.0 };
        if rendered.brain.data[v] {
            let entropy = f64::from(look.prediction.entropy.data[v].clamp(0.0, 1.0));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a bin of 0..=1"
            )]
            let bin = ((entropy * BINS as f64) as usize).min(BINS - 1);
            let wrong = truth(v) != (look.prediction.labels.data[v] != 0);
            *(if wrong {
                &mut ranking.wrong[bin]
            } else {
                &mut ranking.right[bin]
            }) += 1;
        }
    }
    let truth_mask: Vec<bool> = (0..grid.len()).map(truth).collect();
    let lesions = analysis::postprocess::components::components(&truth_mask, grid);
    let counted: Vec<_> = lesions.iter().filter(|l| l.volume_ml >= SMALLEST_ML).collect();
    let hit = counted
        .iter()
        .filter(|l| {
            l.voxels.iter().filter(|v| mask(**v)).count() as f64 >= FOUND_SHARE * l.voxels.len() as f64
        })
        .count();
    let false_alarms = (1..=look.found.findings.len())
        .filter(|segment| {
            let voxels = || (0..grid.len()).filter(|v| usize::from(look.found.segments.data[*v]) == *segment);
            voxels().filter(|v| truth(*v)).count() as f64 <= FOUND_SHARE * voxels().count() as f64
        })
        .count();
    let answer = look.found.answer.as_ref();
    Case {
        seed,
        geometry,
        truth_ml,
        found_ml,
        dice: (truth_ml > 0.0).then(|| 2.0 * both / (truth_ml + found_ml)),
        answer: answer.map_or(AnswerValue::NotEvaluated, |a| a.answer),
        score: answer.and_then(|a| a.score).unwrap_or(f64::NAN),
        disagreement: look.prediction.disagreement,
        lesions: [counted.len(), hit],
        false_alarms,
    }
}

fn summarise(model: &Model, cases: Vec<Case>, ranking: &Ranking) -> Metrics {
    let mut dices: Vec<f64> = cases.iter().filter_map(|c| c.dice).collect();
    dices.sort_by(f64::total_cmp);
    let mean = |values: &[f64]| {
        if values.is_empty() {
            f64::NAN
        } else {
            values.iter().sum::<f64>() / values.len() as f64
        }
    };
    let share = |of: &dyn Fn(&&Case) -> bool, among: &dyn Fn(&&Case) -> bool| {
        let all = cases.iter().filter(among).count();
        if all == 0 {
            f64::NAN
        } else {
            cases.iter().filter(among).filter(of).count() as f64 / all as f64
        }
    };
    let bleeds = |c: &&Case| c.dice.is_some();
    let flagged = |c: &&Case| c.answer == AnswerValue::Present;
    let (lesions, hits) = cases
        .iter()
        .fold((0, 0), |(n, h), c| (n + c.lesions[0], h + c.lesions[1]));
    Metrics {
        about: "synthetic phantoms of the evaluation ranges; says nothing of patients".into(),
        model: model.plan.id.clone(),
        weights_sha256: model.weights_sha256.clone(),
        bleeding: dices.len(),
        normal: cases.len() - dices.len(),
        dice_mean: mean(&dices),
        dice_median: dices.get(dices.len() / 2).copied().unwrap_or(f64::NAN),
        lesions,
        lesion_sensitivity: hits as f64 / lesions as f64,
        false_alarms_per_case: cases.iter().map(|c| c.false_alarms).sum::<usize>() as f64
            / cases.len() as f64,
        flagged_bleeding: share(&flagged, &bleeds),
        flagged_normal: share(&flagged, &|c| !bleeds(c)),
        uncertain: share(&|c| c.answer == AnswerValue::Uncertain, &|_| true),
        entropy_auroc_wrong: ranking.auroc(),
        cases,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auroc_is_one_when_doubt_separates_and_a_half_when_it_says_nothing() {
        let separated = Ranking {
            right: vec![5, 3, 0],
            wrong: vec![0, 0, 4],
        };
        let blind = Ranking {
            right: vec![4, 2],
            wrong: vec![2, 1],
        };
        assert!((separated.auroc() - 1.0).abs() < 1e-12);
        assert!((blind.auroc() - 0.5).abs() < 1e-12);
    }
}
