//! Held-out phantoms → how well a detector finds closed arteries, with contrast agent by their lumen, without by a dense clot, on which side, and in which: `cases.jsonl`, `metrics.json` and `report.html`.
//!
//! Every phantom goes through the real stages as an even, a leaning or an uneven stack, from the wider evaluation ranges; half of them have a closed artery.
//! ICA terminus, M1 and basilar count as large; M2 is told apart.
//! What comes out is about phantoms and says nothing of patients.

mod picture;
mod report;
mod tree;

use super::{
    TrainError,
    evaluation::{
        ledger::{Header, Ledger, SCHEMA},
        statistics::{Estimate, auc, quantile_of, share},
    },
    phantom::{HEAD_CENTER_MM, Head, Kind, Occlusion, Range, Site},
    volumes::{BALL_MM, MARKED_MM, Sought},
};
use crate::{
    analysis::{
        self, Look, Scan,
        infer::{Engine, bundle::Model},
    },
    domain::{
        artery::Artery,
        calibration::Cases,
        finding::{AnswerValue, Finding, Side},
        geometry::{Vec3, norm, sub},
        network::Unattended,
        uid::Uid,
        volume::{Geometry, SlicePlane},
        volume_trace::Turn,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path, time::Instant};

pub use report::summary;

/// A finding this near to the true place is at it, mm: the ball and the marked clot.
const NEAR_MM: f64 = BALL_MM + MARKED_MM;
/// Pixels along a row of the judged stacks.
const MATRIX: usize = 240;
/// Stacks reach this far above and below the nominal centre of heads, mm.
const REACH_MM: [f64; 2] = [102.0, 76.0];

/// Folder of the pictures of cases that went wrong, below the results.
const PICTURES: &str = "pictures";

/// `metrics.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Metrics {
    /// Format.
    pub schema: u32,
    /// What these numbers are about.
    pub about: String,
    /// What was judged.
    pub judged: Header,
    /// Large arteries closed and flagged.
    pub sensitivity_large: Estimate,
    /// Closed M2 flagged.
    pub sensitivity_m2: Estimate,
    /// Closed arteries flagged whose clot is as dense as blood, so that nothing but what follows from it is to be seen.
    pub flagged_unseen: Estimate,
    /// Open arteries not flagged.
    pub specificity: Estimate,
    /// Answered `uncertain`.
    pub uncertain: Estimate,
    /// Case score telling large closed arteries from open ones.
    pub auc_large: Estimate,
    /// The same of M2.
    pub auc_m2: Estimate,
    /// First findings of flagged closed ICA termini and M1 whose side is right.
    pub side_right: Estimate,
    /// First findings of flagged closed arteries that lie at the true place.
    pub at_the_place: Estimate,
    /// Flagged closed arteries by true site (rows) and by the first finding's (columns, in the order of the sites, then none).
    pub sites: [[usize; 5]; 4],
    /// Dice of each artery of the tree, where the model tells one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub artery_dice: BTreeMap<Artery, Estimate>,
    /// Median of the seconds that an analysis took.
    pub median_s: Option<f64>,
}

/// One phantom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// Its seed.
    pub seed: u64,
    /// Its stack.
    pub stack: String,
    /// Which artery is closed; null when all are open.
    pub site: Option<Site>,
    /// On which side.
    pub side: Option<Side>,
    /// The refilling of what lies behind it.
    pub collaterals: Option<f32>,
    /// Whether the clot is to be seen: with contrast agent always, without when it is denser than blood.
    #[serde(default = "yes")]
    pub visible: bool,
    /// The answer.
    pub answer: AnswerValue,
    /// Case score.
    pub score: f64,
    /// Disagreement of the members.
    pub disagreement: f64,
    /// Site of the strongest finding.
    pub found_site: Option<Site>,
    /// Its side.
    pub found_side: Option<Side>,
    /// Its distance from the true place, mm.
    pub distance_mm: Option<f64>,
    /// How many findings there are.
    pub findings: usize,
    /// Dice of each artery that is there or told; nothing where the model tells no tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artery_dice: Option<BTreeMap<Artery, f64>>,
    /// What the analysis took, without drawing the phantom.
    pub seconds: f64,
}

/// What cases of older evaluations are, which were all with contrast agent.
fn yes() -> bool {
    true
}

impl Case {
    /// Whether a reader would have been told wrong: a closed artery that is to be seen not flagged, its side wrong, an open one flagged.
    fn is_wrong(&self) -> bool {
        match (self.site, self.answer == AnswerValue::Present) {
            (Some(_), true) => self.side != self.found_side,
            (Some(_), false) => self.visible,
            (None, true) => true,
            (None, false) => false,
        }
    }
}

/// Whether models with this question are judged here.
#[must_use]
pub fn judges(question: &str) -> bool {
    Sought::of(question).is_some()
}

/// Judges a model on `count` phantoms from `first_seed` on; `out` may hold the cases of a run that stopped.
///
/// # Errors
/// When a stage fails on a phantom, `out` cannot be written or holds the cases of another run.
pub fn evaluate(
    engine: &Engine,
    model: &Model,
    first_seed: u64,
    count: usize,
    out: &Path,
    mut tell: impl FnMut(&[Case]),
) -> Result<Metrics, TrainError> {
    let pictures = out.join(PICTURES);
    fs::create_dir_all(&pictures).map_err(|e| TrainError::file(&pictures, e))?;
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(|e| TrainError::file(path, e));
    let header = Header::of(engine, model, Cases::Phantoms { first_seed, count });
    let mut ledger: Ledger<Case> = Ledger::open(&out.join("cases.jsonl"), &header)?;
    tell(ledger.cases());
    let [closed, open] = Sought::of(&model.plan.question).unwrap_or(Sought::Closed).kinds();
    for seed in (first_seed..).take(count).skip(ledger.cases().len()) {
        let is_closed = (seed - first_seed).is_multiple_of(2);
        let kind = if is_closed { closed } else { open };
        let (case, picture) = one(engine, model, seed, kind)?;
        if let Some(png) = picture {
            write(&pictures.join(format!("{seed}.png")), &png)?;
        }
        ledger.append(&case)?;
        tell(ledger.cases());
    }
    let metrics = summarise(header, ledger.cases());
    let path = out.join("metrics.json");
    let json = serde_json::to_vec_pretty(&metrics).map_err(|e| TrainError::file(&path, e.into()))?;
    write(&path, &json)?;
    let html = report::html(&metrics, ledger.cases(), |case| {
        fs::read(pictures.join(format!("{}.png", case.seed))).ok()
    });
    write(&out.join("report.html"), html.as_bytes())?;
    Ok(metrics)
}

/// Draws a phantom, looks at it and judges it; with a picture when it went wrong.
fn one(engine: &Engine, model: &Model, seed: u64, kind: Kind) -> Result<(Case, Option<Vec<u8>>), TrainError> {
    let head = Head::new(seed, kind, Range::Evaluation).scanned_thin();
    let (stack, grid) = stack(seed);
    let scan = Scan {
        channels: vec![head.render(&grid).hu],
        turn: Turn::DICOM,
    };
    let started = Instant::now();
    let mut report = analysis::empty_report(None);
    let series = Uid::derive(&[b"phantom", &seed.to_be_bytes()]);
    let look = analysis::look(scan, engine, model, &series, &Unattended, &mut report).map_err(|e| {
        TrainError::Stage {
            case: seed.to_string(),
            what: e.to_string(),
        }
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let closed = head.occlusion();
    let artery_dice = tree::judge(&head, &model.plan, look.prediction.structures.as_ref());
    let case = Case {
        artery_dice,
        ..judge(seed, stack, closed.as_ref(), &look, seconds)
    };
    let place = closed.map(|c| c.point_mm);
    let picture = case.is_wrong().then(|| picture::draw(&look, place)).flatten();
    Ok((case, picture))
}

/// A stack as scanners lay them, on fewer pixels than theirs: the detector's voxels are coarser still.
fn stack(seed: u64) -> (&'static str, Geometry) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(77);
    let spacing: f64 = rng.random_range(0.9..1.05);
    let step: f64 = rng.random_range(0.8..1.5);
    let (name, degrees, uneven) = match seed % 4 {
        0 | 1 => ("even", 0.0, 0.0),
        2 => ("tilted", rng.random_range(-18.0..18.0), 0.0),
        _ => ("uneven", 0.0, 0.3),
    };
    let (sin, cos) = f64::to_radians(degrees).sin_cos();
    let half = 0.5 * (MATRIX as f64 - 1.0) * spacing;
    let (mut z, mut planes) = (-REACH_MM[1], Vec::new());
    while z < REACH_MM[0] {
        planes.push(SlicePlane {
            origin_mm: [
                HEAD_CENTER_MM[0] - half,
                HEAD_CENTER_MM[1] - half * cos,
                HEAD_CENTER_MM[2] + z + half * sin,
            ],
            thickness_mm: step,
        });
        z += step * (1.0 + uneven * rng.random_range(-1.0..1.0f64));
    }
    let grid = Geometry {
        rows: MATRIX,
        columns: MATRIX,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, cos, -sin],
        pixel_spacing_mm: [spacing, spacing],
        planes,
    };
    (name, grid)
}

fn judge(seed: u64, stack: &str, truth: Option<&Occlusion>, look: &Look, seconds: f64) -> Case {
    let strongest = |a: &&Finding, b: &&Finding| (a.score * a.volume_ml).total_cmp(&(b.score * b.volume_ml));
    let first = look.found.findings.iter().max_by(strongest);
    let site = |finding: &Finding| Site::ALL.into_iter().find(|s| finding.kind.starts_with(s.name()));
    let from = |finding: &Finding, place: Vec3| norm(sub(finding.center_mm, place));
    let answer = look.found.answer.as_ref();
    Case {
        seed,
        stack: stack.into(),
        site: truth.map(|t| t.site),
        side: truth.map(|t| t.side),
        collaterals: truth.map(|t| t.collaterals),
        visible: truth.is_none_or(|t| t.dense != Some(false)),
        answer: answer.map_or(AnswerValue::NotEvaluated, |a| a.answer),
        score: look.found.score,
        disagreement: look.prediction.disagreement,
        found_site: first.and_then(site),
        found_side: first.map(|f| f.side),
        distance_mm: first.zip(truth).map(|(f, t)| from(f, t.point_mm)),
        findings: look.found.findings.len(),
        artery_dice: None,
        seconds,
    }
}

fn summarise(judged: Header, cases: &[Case]) -> Metrics {
    let is_large =
        |c: &&Case| c.visible && matches!(c.site, Some(Site::IcaTerminus | Site::M1 | Site::Basilar));
    let is_m2 = |c: &&Case| c.visible && c.site == Some(Site::M2);
    let flagged = |c: &&Case| c.answer == AnswerValue::Present;
    let of = |which: &dyn Fn(&&Case) -> bool| cases.iter().filter(|c| which(c)).collect::<Vec<_>>();
    let (large, m2, open) = (of(&is_large), of(&is_m2), of(&|c| c.site.is_none()));
    let unseen = of(&|c| !c.visible);
    let hits = |of: &[&Case]| share(of.iter().filter(|c| flagged(c)).count(), of.len());
    let scores = |of: &[&Case]| of.iter().map(|c| c.score).collect::<Vec<f64>>();
    let is_paired = |c: &&&Case| c.side.is_some_and(|side| side != Side::Midline);
    let sided: Vec<_> = large.iter().filter(|c| flagged(c)).filter(is_paired).collect();
    let told = of(&|c| c.visible && c.site.is_some() && flagged(c));
    let near = |c: &&&Case| c.distance_mm.is_some_and(|mm| mm <= NEAR_MM);
    let mut sites = [[0; 5]; 4];
    for case in &told {
        if let Some(site) = case.site {
            let place = |site: Site| Site::ALL.iter().position(|s| *s == site).unwrap_or(4);
            sites[place(site)][case.found_site.map_or(4, place)] += 1;
        }
    }
    Metrics {
        schema: SCHEMA,
        about: "Synthetic phantoms, drawn from wider ranges than training's: says nothing of patients. For research, not for clinical use."
            .into(),
        judged,
        sensitivity_large: hits(&large),
        sensitivity_m2: hits(&m2),
        flagged_unseen: hits(&unseen),
        specificity: share(open.iter().filter(|c| !flagged(c)).count(), open.len()),
        uncertain: share(
            cases
                .iter()
                .filter(|c| c.answer == AnswerValue::Uncertain)
                .count(),
            cases.len(),
        ),
        auc_large: auc(&scores(&large), &scores(&open)),
        auc_m2: auc(&scores(&m2), &scores(&open)),
        side_right: share(
            sided.iter().filter(|c| c.side == c.found_side).count(),
            sided.len(),
        ),
        at_the_place: share(told.iter().filter(near).count(), told.len()),
        sites,
        artery_dice: tree::summarise(cases),
        median_s: quantile_of(cases.iter().map(|c| c.seconds).collect(), 0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judged_stacks_miss_no_slice_and_some_lean_and_some_are_uneven() {
        for seed in 0..8 {
            let (name, grid) = stack(seed);
            let at = grid.positions_mm();
            let steps: Vec<f64> = at.windows(2).map(|w| w[1] - w[0]).collect();
            let (low, high) = steps
                .iter()
                .fold((f64::MAX, 0.0f64), |(l, h), s| (l.min(*s), h.max(*s)));
            assert!(low > 0.3 && high < 2.5, "{name}: {low} {high}");
            assert_eq!(grid.regular_step_mm().is_some(), name == "even", "{name}");
        }
    }
}
