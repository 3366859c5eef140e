//! Judged cases → `metrics.json`: what can be said of a model, each number with its interval.

use super::{
    aspects::{self, AspectsMetrics},
    calibration::{Calibration, RiskCoverage, Voxels, risk_coverage},
    judge::{Case, FOUND_SHARE, LesionCase, MidlineCase, TOLERANCE_MM},
    ledger::{Header, SCHEMA},
    statistics::{
        Agreement, BOOTSTRAP_SEED, Estimate, RESAMPLES, agreement, auc, mean, predictive_value, quantile_of,
        rate, roc, share,
    },
};
use crate::domain::{
    calibration::{Cases, SMALLEST_ML},
    finding::AnswerValue,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Sizes of lesions and of all lesions of a case, mL: names and where they end.
const SIZES: [(&str, f64); 4] = [
    ("< 1 mL", SMALLEST_ML),
    ("1–5 mL", 5.0),
    ("5–20 mL", 20.0),
    ("> 20 mL", f64::INFINITY),
];
/// A stack is thin when its slices are no farther apart than this, mm.
const THIN_MM: f64 = 2.5;
/// A stack is tilted from here on, degrees.
const TILTED_DEGREES: f64 = 5.0;
/// Lesions of a case from which it counts as one that must not be overlooked, mL.
const LARGE_ML: f64 = 10.0;
/// From this distance on a midline counts as shifted, mm.
const SHIFTED_MM: f64 = 2.0;
/// Prevalences of a lesion for which predictive values are given: an emergency department's, low and high.
const PREVALENCES: [f64; 2] = [0.05, 0.10];

/// `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Format, [`SCHEMA`].
    pub schema: u32,
    /// What these numbers are about, and what they say nothing of.
    pub about: String,
    /// What was judged.
    pub judged: Header,
    /// The numbers that the definitions rest on.
    pub definitions: Definitions,
    /// All cases.
    pub overall: Group,
    /// Positive cases by true volume.
    pub by_volume: Vec<Group>,
    /// Thin and thick stacks.
    pub by_thickness: Vec<Group>,
    /// Tilted stacks and others.
    pub by_tilt: Vec<Group>,
    /// How the slices lie.
    pub by_stack: Vec<Group>,
    /// What is special about a head; a case may be in several or none.
    pub by_stratum: Vec<Group>,
    /// Lesions by size.
    pub lesions_by_size: Vec<LesionGroup>,
    /// Lesions of any size by class, with the overlap of the class itself where the model tells classes apart.
    pub by_class: Vec<ClassGroup>,
    /// The class with most volume, of truth and of what was found; null when the model tells no classes apart.
    pub subtype: Option<Subtype>,
    /// Flags as a night on call has them.
    pub flags: Flags,
    /// Area under the ROC curve of the case score.
    pub auc: Estimate,
    /// The same, of positive cases with more than 10 mL.
    pub auc_large: Estimate,
    /// That curve: share of normal and of positive cases at or above each score.
    pub roc: Vec<[f64; 2]>,
    /// Found minus true volume of positive cases, mL.
    pub volume: Agreement,
    /// The shift of the midline; null where it is not known.
    pub midline: Option<Midline>,
    /// ASPECTS; null where the model does not tell it.
    pub aspects: Option<AspectsMetrics>,
    /// Score of voxels inside the cranial cavity against any lesion.
    pub voxel_calibration: Calibration,
    /// Score of cases against any lesion.
    pub case_calibration: Calibration,
    /// Probability that a wrongly labelled voxel has the higher entropy than a right one.
    pub entropy_auroc_wrong: Option<f64>,
    /// Risk (1 − Dice) over coverage, the members' agreement first.
    pub risk_coverage: RiskCoverage,
    /// What the project wants on phantoms, and whether it is reached.
    pub goals: Vec<Goal>,
    /// Seconds; the only numbers that differ from run to run.
    pub timings: Timings,
}

/// The numbers that the definitions rest on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Definitions {
    /// A lesion is found, a found region is no false one, from more than this share on.
    pub found_share: f64,
    /// Tolerance of the normalised surface Dice.
    pub surface_tolerance_mm: f64,
    /// Smallest lesion that counts for the sensitivity.
    pub smallest_lesion_ml: f64,
    /// Thin slices are at most so far apart.
    pub thin_mm: f64,
    /// Tilted stacks lean by at least so much.
    pub tilted_degrees: f64,
    /// Level of all intervals.
    pub level: f64,
    /// Resamples of the bootstrap of means.
    pub bootstrap_resamples: usize,
    /// Its seed.
    pub bootstrap_seed: u64,
}

/// Some of the cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Which.
    pub name: String,
    /// Cases.
    pub cases: usize,
    /// Those with a lesion.
    pub positive: usize,
    /// Mean Dice of positive cases.
    pub dice: Estimate,
    /// Their median.
    pub dice_median: Option<f64>,
    /// Mean normalised surface Dice of positive cases.
    pub nsd: Estimate,
    /// Median 95th percentile of the surface distance, over cases where both surfaces exist.
    pub hd95_median_mm: Option<f64>,
    /// Positive cases in which nothing was found, so that there is no distance.
    pub hd95_undefined: usize,
    /// Lesions of at least 1 mL that were found.
    pub sensitivity: Estimate,
    /// Found regions that are no lesion, a case.
    pub false_lesions_per_case: Estimate,
    /// Found minus true volume of positive cases, mL.
    pub volume_bias_ml: Estimate,
    /// Positive cases that were flagged.
    pub flagged_positive: Estimate,
    /// Normal cases that were flagged.
    pub flagged_normal: Estimate,
}

/// Some of the lesions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LesionGroup {
    /// Which.
    pub name: String,
    /// Those that were found.
    pub sensitivity: Estimate,
    /// Mean Dice of a lesion and the found regions that touch it.
    pub dice: Estimate,
}

/// A class of the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassGroup {
    /// Its lesions of at least 1 mL: regions in which it has most of the volume.
    pub lesions: LesionGroup,
    /// Mean Dice of the class in cases that have it.
    pub dice: Estimate,
    /// Found minus true volume of the class in those cases, mL.
    pub volume_bias_ml: Estimate,
    /// False regions that were called so.
    pub false_lesions: usize,
}

/// The dominant class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subtype {
    /// Share of positive cases in which it is right.
    pub right: Estimate,
    /// Cases by true class, then by found class.
    pub confusion: BTreeMap<String, BTreeMap<String, usize>>,
}

/// The measured shift of the midline against the true one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Midline {
    /// All cases; most have no shift.
    pub all: MidlineGroup,
    /// Those whose midline is shifted by at least 2 mm.
    pub shifted: MidlineGroup,
}

/// Some of the cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MidlineGroup {
    /// Share of cases in which it was told.
    pub told: Estimate,
    /// Measured minus true shift in the direction of the true one, mm: below 0 shifts are told too small.
    pub error: Agreement,
    /// Size of the error, mm: median, 90th percentile and greatest.
    pub off_mm: [Option<f64>; 3],
    /// Share of true shifts within the interval that was told.
    pub within_interval: Estimate,
}

/// Flags as a night on call has them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flags {
    /// Of a hundred normal cases.
    pub false_per_100_normal: Estimate,
    /// Of a hundred normal cases.
    pub uncertain_per_100_normal: Estimate,
    /// Share of positive cases that are flagged.
    pub sensitivity: Estimate,
    /// Share of positive cases that are answered as uncertain.
    pub uncertain_positive: Estimate,
    /// Share of flags that are right.
    pub predictive_values: Vec<PredictiveValue>,
}

/// Share of flags that are right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictiveValue {
    /// When this share of all cases is positive.
    pub prevalence: f64,
    /// The share.
    pub positive_predictive_value: Estimate,
}

/// One thing that the project wants on phantoms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// What is wanted.
    pub wanted: String,
    /// What was found.
    pub found: Option<f64>,
    /// Whether that is enough.
    pub reached: Option<bool>,
}

/// Seconds a case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timings {
    /// Mean.
    pub mean_s: Option<f64>,
    /// Median.
    pub median_s: Option<f64>,
    /// Longest.
    pub max_s: Option<f64>,
}

/// Summarises the cases; `names` are the classes of the truth.
#[must_use]
pub fn summarise(judged: &Header, names: &BTreeMap<u8, String>, cases: &[Case]) -> Metrics {
    let all: Vec<&Case> = cases.iter().collect();
    let lesions = || cases.iter().flat_map(|c| &c.lesions);
    let positive = || cases.iter().filter(|c| c.is_positive());
    let normal = || cases.iter().filter(|c| !c.is_positive());
    let is_phantom = matches!(judged.source, Cases::Phantoms { .. });
    let scores = |cases: &mut dyn Iterator<Item = &Case>| -> Vec<f64> { cases.map(|c| c.score).collect() };
    let (high, low) = (scores(&mut positive()), scores(&mut normal()));
    let mut voxels = Voxels::default();
    cases.iter().for_each(|c| voxels.merge(&c.voxels));
    let overall = group("all", &all);
    let subtype = subtype(cases);
    let flags = flags(cases);
    let large = scores(&mut positive().filter(|c| c.truth_ml > LARGE_ML));
    let auc_large = auc(&large, &low);
    let scored: Vec<(f64, bool)> = cases.iter().map(|c| (c.score, c.is_positive())).collect();
    // Nothing found where nothing is, is no risk.
    let risks: Vec<(f64, f64)> = cases
        .iter()
        .map(|c| (c.disagreement, 1.0 - c.dice.unwrap_or(1.0)))
        .collect();
    let seconds = || cases.iter().map(|c| c.seconds).collect::<Vec<_>>();
    let goals = if is_phantom {
        goals(&judged.question, &overall, &flags, subtype.as_ref(), &auc_large)
    } else {
        Vec::new()
    };
    Metrics {
        schema: SCHEMA,
        about: about(is_phantom).into(),
        judged: judged.clone(),
        definitions: Definitions {
            found_share: FOUND_SHARE,
            surface_tolerance_mm: TOLERANCE_MM,
            smallest_lesion_ml: SMALLEST_ML,
            thin_mm: THIN_MM,
            tilted_degrees: TILTED_DEGREES,
            level: 0.95,
            bootstrap_resamples: RESAMPLES,
            bootstrap_seed: BOOTSTRAP_SEED,
        },
        by_volume: split(&positive().collect::<Vec<_>>(), &SIZES.map(|s| s.0), |c| {
            vec![size(c.truth_ml).into()]
        }),
        by_thickness: split(&all, &["thin", "thick"], |c| {
            vec![
                if c.thickness_mm <= THIN_MM {
                    "thin"
                } else {
                    "thick"
                }
                .into(),
            ]
        }),
        by_tilt: split(&all, &["tilted", "not tilted"], |c| {
            let tilted = c.tilt_degrees >= TILTED_DEGREES;
            vec![if tilted { "tilted" } else { "not tilted" }.into()]
        }),
        by_stack: split(&all, &[], |c| vec![c.subject.stack.clone()]),
        by_stratum: split(&all, &[], |c| match c.subject.strata.as_slice() {
            [] if is_phantom => vec!["none of these".into()],
            strata => strata.to_vec(),
        }),
        lesions_by_size: SIZES
            .map(|(name, _)| lesion_group(name, lesions().filter(|l| size(l.volume_ml) == name)))
            .into(),
        by_class: names.values().map(|name| class(name, cases)).collect(),
        flags,
        auc: auc(&high, &low),
        auc_large,
        roc: roc(&high, &low),
        volume: agreement(&positive().map(|c| c.found_ml - c.truth_ml).collect::<Vec<_>>()),
        midline: midline(cases),
        aspects: aspects::summarise(cases),
        voxel_calibration: voxels.calibration(),
        case_calibration: Calibration::of_cases(&scored),
        entropy_auroc_wrong: voxels.entropy_auroc_wrong(),
        risk_coverage: risk_coverage(&risks),
        goals,
        subtype,
        overall,
        timings: Timings {
            mean_s: (!cases.is_empty()).then(|| seconds().iter().sum::<f64>() / cases.len() as f64),
            median_s: quantile_of(seconds(), 0.5),
            max_s: quantile_of(seconds(), 1.0),
        },
    }
}

/// What the numbers are about.
fn about(is_phantom: bool) -> &'static str {
    if is_phantom {
        "Synthetic phantoms only: says nothing of patients. For research, not for clinical use."
    } else {
        "Your own data: not a clinical validation. For research, not for clinical use."
    }
}

fn size(ml: f64) -> &'static str {
    let found = SIZES.iter().find(|(_, end)| ml < *end);
    found.map_or(SIZES[3].0, |(name, _)| name)
}

/// Groups in the given order, or in that of their names; empty ones are left out.
fn split(cases: &[&Case], order: &[&str], names: impl Fn(&Case) -> Vec<String>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        for name in names(case) {
            groups.entry(name).or_default().push(case);
        }
    }
    let place = |name: &str| order.iter().position(|o| *o == name);
    let mut groups: Vec<_> = groups.iter().collect();
    groups.sort_by_key(|(name, _)| place(name));
    groups
        .into_iter()
        .map(|(name, cases)| group(name, cases))
        .collect()
}

fn group(name: &str, cases: &[&Case]) -> Group {
    let positive: Vec<&&Case> = cases.iter().filter(|c| c.is_positive()).collect();
    let of = |value: &dyn Fn(&Case) -> Option<f64>| -> Vec<f64> {
        positive.iter().filter_map(|c| value(c)).collect()
    };
    let flagged = |positive: bool| {
        let all = cases.iter().filter(|c| c.is_positive() == positive);
        share(all.clone().filter(|c| c.is_flagged()).count(), all.count())
    };
    let lesions = cases.iter().flat_map(|c| &c.lesions);
    let false_lesions = cases.iter().map(|c| c.false_lesions.len()).sum();
    Group {
        name: name.into(),
        cases: cases.len(),
        positive: positive.len(),
        dice: mean(&of(&|c| c.dice)),
        dice_median: quantile_of(of(&|c| c.dice), 0.5),
        nsd: mean(&of(&|c| c.nsd)),
        hd95_median_mm: quantile_of(of(&|c| c.hd95_mm), 0.5),
        hd95_undefined: positive.iter().filter(|c| c.hd95_mm.is_none()).count(),
        sensitivity: lesion_group(name, lesions.filter(|l| l.volume_ml >= SMALLEST_ML)).sensitivity,
        false_lesions_per_case: rate(false_lesions, cases.len()),
        volume_bias_ml: mean(&of(&|c| Some(c.found_ml - c.truth_ml))),
        flagged_positive: flagged(true),
        flagged_normal: flagged(false),
    }
}

fn lesion_group<'a>(name: &str, lesions: impl Iterator<Item = &'a LesionCase>) -> LesionGroup {
    let lesions: Vec<&LesionCase> = lesions.collect();
    LesionGroup {
        name: name.into(),
        sensitivity: share(lesions.iter().filter(|l| l.found).count(), lesions.len()),
        dice: mean(&lesions.iter().map(|l| l.dice).collect::<Vec<_>>()),
    }
}

fn class(name: &str, cases: &[Case]) -> ClassGroup {
    let lesions = cases
        .iter()
        .flat_map(|c| &c.lesions)
        .filter(|l| l.class == name && l.volume_ml >= SMALLEST_ML);
    let there = || {
        let all = cases.iter().filter_map(|c| c.classes.get(name));
        all.filter(|class| class.truth_ml > 0.0)
    };
    ClassGroup {
        lesions: lesion_group(name, lesions),
        dice: mean(&there().filter_map(|class| class.dice).collect::<Vec<_>>()),
        volume_bias_ml: mean(
            &there()
                .map(|class| class.found_ml - class.truth_ml)
                .collect::<Vec<_>>(),
        ),
        false_lesions: cases
            .iter()
            .flat_map(|c| &c.false_lesions)
            .filter(|f| f.class == name)
            .count(),
    }
}

fn subtype(cases: &[Case]) -> Option<Subtype> {
    let dominant: Vec<(String, String)> = cases.iter().filter_map(Case::dominant).collect();
    let mut confusion: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for (truth, found) in &dominant {
        *confusion
            .entry(truth.clone())
            .or_default()
            .entry(found.clone())
            .or_default() += 1;
    }
    let right = dominant.iter().filter(|(truth, found)| truth == found).count();
    (!dominant.is_empty()).then(|| Subtype {
        right: share(right, dominant.len()),
        confusion,
    })
}

fn midline(cases: &[Case]) -> Option<Midline> {
    let known: Vec<_> = cases.iter().filter_map(|c| c.midline).collect();
    let shifted: Vec<_> = known
        .iter()
        .copied()
        .filter(|m| m.truth_left_mm.abs() >= SHIFTED_MM)
        .collect();
    (!known.is_empty()).then(|| Midline {
        all: midline_group(&known),
        shifted: midline_group(&shifted),
    })
}

fn midline_group(known: &[MidlineCase]) -> MidlineGroup {
    let told: Vec<_> = known
        .iter()
        .filter_map(|m| Some((m.truth_left_mm, m.measured?)))
        .collect();
    let errors: Vec<f64> = told
        .iter()
        .map(|(truth, told)| (told.left_mm - truth) * truth.signum())
        .collect();
    let off: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    let within = told
        .iter()
        .filter(|(truth, told)| (told.interval_mm[0]..=told.interval_mm[1]).contains(truth));
    MidlineGroup {
        told: share(told.len(), known.len()),
        error: agreement(&errors),
        off_mm: [0.5, 0.9, 1.0].map(|q| quantile_of(off.clone(), q)),
        within_interval: share(within.count(), told.len()),
    }
}

fn flags(cases: &[Case]) -> Flags {
    let count = |positive: bool, answer: AnswerValue| {
        let all = cases.iter().filter(|c| c.is_positive() == positive);
        [all.clone().filter(|c| c.answer == answer).count(), all.count()]
    };
    let of = |[hits, all]: [usize; 2]| share(hits, all);
    let (hits, alarms) = (
        count(true, AnswerValue::Present),
        count(false, AnswerValue::Present),
    );
    Flags {
        false_per_100_normal: of(alarms).times(100.0),
        uncertain_per_100_normal: of(count(false, AnswerValue::Uncertain)).times(100.0),
        sensitivity: of(hits),
        uncertain_positive: of(count(true, AnswerValue::Uncertain)),
        predictive_values: PREVALENCES
            .map(|prevalence| PredictiveValue {
                prevalence,
                positive_predictive_value: predictive_value(hits, alarms, prevalence),
            })
            .into(),
    }
}

/// What the project wants of phantoms, by what is asked.
fn goals(
    question: &str,
    overall: &Group,
    flags: &Flags,
    subtype: Option<&Subtype>,
    auc_large: &Estimate,
) -> Vec<Goal> {
    let goal = |wanted: &str, found: Option<f64>, enough: &dyn Fn(f64) -> bool| Goal {
        wanted: wanted.into(),
        found,
        reached: found.map(enough),
    };
    let false_flags = goal(
        "at most 3.3 false flags of 100 normal cases",
        flags.false_per_100_normal.value,
        &|v| v <= 100.0 / 30.0,
    );
    match question {
        "haemorrhage" | "haemorrhage_second_opinion" => vec![
            goal(
                "sensitivity for lesions of 1 mL or more at least 0.95",
                overall.sensitivity.value,
                &|v| v >= 0.95,
            ),
            goal(
                "at most 0.05 false lesions a case",
                overall.false_lesions_per_case.value,
                &|v| v <= 0.05,
            ),
            goal("mean Dice at least 0.80", overall.dice.value, &|v| v >= 0.80),
            goal(
                "subtype of the dominant lesion right in at least 0.85",
                subtype.and_then(|s| s.right.value),
                &|v| v >= 0.85,
            ),
            false_flags,
        ],
        "infarct" => vec![
            goal(
                "area under the ROC curve for more than 10 mL at least 0.90",
                auc_large.value,
                &|v| v >= 0.90,
            ),
            false_flags,
        ],
        _ => Vec::new(),
    }
}
