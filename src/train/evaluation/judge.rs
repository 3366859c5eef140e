//! One case: what is true and what was found → its record, a line of `cases.jsonl`.
//!
//! Everything is counted on the source's grid in millilitres and millimetres, whatever its spacing.
//! A lesion is a connected region of truth of any class, its class the one with most of it; what was found is what would be shown: the findings of all labels together.

use super::{
    aspects::{AspectsCase, AspectsTruth},
    calibration::Voxels,
    surface,
};
use crate::{
    analysis::{
        Look,
        postprocess::components::{Component, components},
    },
    domain::{
        finding::AnswerValue,
        geometry::{dot, norm, sub},
        midsagittal::MidlineShift,
        plan::Plan,
        volume::{Geometry, Volume},
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A lesion counts as found when this share of it is in the mask; a found region is false when no more than this share of it is in a lesion.
pub const FOUND_SHARE: f64 = 0.1;
/// Surfaces within this distance agree, mm: a few pixels in the plane, and less than a slice of a thick stack, where a whole slice too much does not agree.
pub const TOLERANCE_MM: f64 = 2.0;

/// What is known of a case beside its images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// The seed as text, or the name in the data set.
    pub name: String,
    /// Seed of a phantom.
    pub seed: Option<u64>,
    /// `haemorrhage`, `normal`, …; of a data set `unknown`.
    pub kind: String,
    /// How the slices lie: the name of the phantom's geometry, or `file`.
    pub stack: String,
    /// What is special about it.
    pub strata: Vec<String>,
}

/// What is true of a case.
#[derive(Debug)]
pub struct Truth {
    /// The class of each voxel, 0 = none.
    pub classes: Volume<u8>,
    /// Names of the classes by value.
    pub names: BTreeMap<u8, String>,
    /// Where voxels are counted for calibration; without it where the analysis sees brain.
    pub cavity: Option<Volume<bool>>,
    /// How far the septum pellucidum lies to the patient's left of the midsagittal plane, mm, where that is known.
    pub midline_left_mm: Option<f64>,
    /// Regions and scores of ASPECTS, where they are known and asked for.
    pub aspects: Option<AspectsTruth>,
}

/// One case as it was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Which case.
    #[serde(flatten)]
    pub subject: Subject,
    /// Slices.
    pub slices: usize,
    /// Median distance between slices, mm.
    pub thickness_mm: f64,
    /// How far the way from slice to slice leans from their normal, or the slices from axial, whichever is more; degrees.
    pub tilt_degrees: f64,
    /// True volume, mL.
    pub truth_ml: f64,
    /// Volume of what was found, mL.
    pub found_ml: f64,
    /// Dice; null when neither truth nor finding has a voxel.
    pub dice: Option<f64>,
    /// Normalised surface Dice at [`TOLERANCE_MM`]; null as for Dice.
    pub nsd: Option<f64>,
    /// 95th percentile of the surface distance, mm; null when truth or finding is empty.
    pub hd95_mm: Option<f64>,
    /// Each class that truth and model both name.
    pub classes: BTreeMap<String, ClassCase>,
    /// The lesions of the truth.
    pub lesions: Vec<LesionCase>,
    /// Found regions that are no lesion.
    pub false_lesions: Vec<FalseLesion>,
    /// All findings: what calibration learns from.
    pub findings: Vec<FindingCase>,
    /// The answer.
    pub answer: AnswerValue,
    /// Case score.
    pub score: f64,
    /// Disagreement of the members: 1 − mean pairwise Dice.
    pub disagreement: f64,
    /// The midline, where its shift is known.
    #[serde(default)]
    pub midline: Option<MidlineCase>,
    /// ASPECTS, where it is known.
    #[serde(default)]
    pub aspects: Option<AspectsCase>,
    /// Voxels inside the cavity by score and entropy.
    pub voxels: Voxels,
    /// Seconds that making or reading, looking and judging took.
    pub seconds: f64,
}

/// The midline of a case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MidlineCase {
    /// How far the septum pellucidum lies to the left, mm.
    pub truth_left_mm: f64,
    /// What was measured; null when nothing was told.
    pub measured: Option<MidlineShift>,
}

/// A class of a case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassCase {
    /// True volume, mL.
    pub truth_ml: f64,
    /// Found volume, mL.
    pub found_ml: f64,
    /// Dice; null when neither has a voxel.
    pub dice: Option<f64>,
}

/// A lesion of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LesionCase {
    /// The class with most of it.
    pub class: String,
    /// Its volume.
    pub volume_ml: f64,
    /// Whether it was found.
    pub found: bool,
    /// Dice of it and the found regions that touch it.
    pub dice: f64,
    /// Slice with most of it.
    pub slice: usize,
}

/// A found region that is no lesion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FalseLesion {
    /// The label with most of it.
    pub class: String,
    /// Its volume.
    pub volume_ml: f64,
    /// Mean score of its voxels.
    pub score: f64,
    /// Slice with most of it.
    pub slice: usize,
}

/// A finding and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FindingCase {
    /// Its volume.
    pub volume_ml: f64,
    /// Its score.
    pub score: f64,
    /// Volume of the lesions, each of one class, of which it has more than any other finding; at least what it has of lesions itself; 0 of a false one.
    pub truth_ml: f64,
}

impl Case {
    /// Whether anything is there to be found.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.truth_ml > 0.0
    }

    /// Whether it was flagged.
    #[must_use]
    pub fn is_flagged(&self) -> bool {
        self.answer == AnswerValue::Present
    }

    /// The classes with most of truth and of what was found, when both name them.
    #[must_use]
    pub fn dominant(&self) -> Option<(String, String)> {
        let most = |ml: &dyn Fn(&ClassCase) -> f64| {
            let all = self.classes.iter().filter(|(_, class)| ml(class) > 0.0);
            all.max_by(|a, b| ml(a.1).total_cmp(&ml(b.1)))
                .map(|(name, _)| name.clone())
        };
        let truth = most(&|class| class.truth_ml)?;
        Some((
            truth,
            most(&|class| class.found_ml).unwrap_or_else(|| NOTHING.into()),
        ))
    }

    /// Lesions of at least `ml` that were not found, then false ones, each with the slice that shows it.
    pub fn failures(&self, ml: f64) -> impl Iterator<Item = usize> {
        let missed = self.lesions.iter().filter(move |l| !l.found && l.volume_ml >= ml);
        let slices = missed.map(|l| l.slice);
        slices.chain(self.false_lesions.iter().map(|f| f.slice))
    }
}

/// The class of a case in which nothing was found.
pub const NOTHING: &str = "nothing";

/// Judges a case; `seconds` are left for the caller.
#[must_use]
pub fn judge(subject: Subject, truth: &Truth, look: &Look, plan: &Plan) -> Case {
    let grid = &truth.classes.geometry;
    let truth_mask: Vec<bool> = truth.classes.data.iter().map(|class| *class != 0).collect();
    let found_mask: Vec<bool> = look
        .found
        .segments
        .data
        .iter()
        .map(|segment| *segment != 0)
        .collect();
    let ml = Millilitres(grid);
    let (truth_ml, found_ml) = (ml.of(&truth_mask), ml.of(&found_mask));
    let both: Vec<bool> = truth_mask
        .iter()
        .zip(&found_mask)
        .map(|(a, b)| *a && *b)
        .collect();
    let distances = surface::compare(&truth_mask, &found_mask, grid, TOLERANCE_MM);
    let labels: BTreeMap<u8, String> = plan.labels.iter().map(|l| (l.value, l.name.clone())).collect();
    // The label of each finding, by segment number: what is shown, after crumbs were given to their surroundings.
    let value = |kind: &str| plan.labels.iter().find(|l| l.name == kind).map_or(0, |l| l.value);
    let values: BTreeMap<u16, u8> = look
        .found
        .findings
        .iter()
        .map(|finding| (finding.segment, value(&finding.kind)))
        .collect();
    let shown = Volume {
        geometry: grid.clone(),
        data: look
            .found
            .segments
            .data
            .iter()
            .map(|segment| {
                if *segment == 0 {
                    0
                } else {
                    values.get(segment).copied().unwrap_or(0)
                }
            })
            .collect(),
    };
    let found_regions = components(&found_mask, grid);
    let cavity = truth.cavity.as_ref().unwrap_or(&look.brain);
    let mut voxels = Voxels::default();
    for v in (0..grid.len()).filter(|v| cavity.data[*v]) {
        voxels.add(
            look.prediction.score.data[v],
            look.prediction.entropy.data[v],
            truth_mask[v],
            look.prediction.labels.data[v] != 0,
        );
    }
    let answer = look.found.answer.as_ref();
    Case {
        subject,
        slices: grid.slices(),
        thickness_mm: thickness_mm(grid),
        tilt_degrees: tilt_degrees(grid),
        truth_ml,
        found_ml,
        dice: dice(truth_ml, found_ml, ml.of(&both)),
        nsd: distances.map(|d| d.nsd),
        hd95_mm: distances.and_then(|d| d.hd95_mm),
        classes: classes(truth, &shown, &labels, &ml),
        lesions: components(&truth_mask, grid)
            .iter()
            .map(|lesion| LesionCase {
                class: name_of(lesion, &truth.classes, &truth.names),
                volume_ml: lesion.volume_ml,
                found: share(lesion, &found_mask) >= FOUND_SHARE,
                dice: lesion_dice(lesion, &found_regions, &ml),
                slice: key_slice(lesion, grid),
            })
            .collect(),
        false_lesions: found_regions
            .iter()
            .filter(|region| share(region, &truth_mask) <= FOUND_SHARE)
            .map(|region| FalseLesion {
                class: name_of(region, &shown, &labels),
                volume_ml: region.volume_ml,
                score: region
                    .voxels
                    .iter()
                    .map(|v| f64::from(look.prediction.score.data[*v]))
                    .sum::<f64>()
                    / region.voxels.len() as f64,
                slice: key_slice(region, grid),
            })
            .collect(),
        findings: findings(truth, look, &ml),
        answer: answer.map_or(AnswerValue::NotEvaluated, |a| a.answer),
        score: look.found.score,
        disagreement: look.prediction.disagreement,
        midline: truth
            .midline_left_mm
            .filter(|_| plan.trigger.is_plain_head())
            .map(|truth_left_mm| MidlineCase {
                truth_left_mm,
                measured: look.found.midline_shift,
            }),
        aspects: truth.aspects.as_ref().map(|truth| {
            let structures = look.prediction.structures.as_ref();
            AspectsCase::of(truth, look.found.aspects.as_ref(), structures)
        }),
        voxels,
        seconds: 0.0,
    }
}

/// Volumes by the grid's own rule.
struct Millilitres<'a>(&'a Geometry);

impl Millilitres<'_> {
    fn of(&self, mask: &[bool]) -> f64 {
        let slices = mask.chunks(self.0.slice_len()).enumerate();
        slices
            .map(|(s, slice)| slice.iter().filter(|m| **m).count() as f64 * self.0.voxel_volume_ml(s))
            .sum()
    }

    fn of_voxels<'v>(&self, voxels: impl Iterator<Item = &'v usize>) -> f64 {
        voxels
            .map(|v| self.0.voxel_volume_ml(v / self.0.slice_len()))
            .sum()
    }
}

/// Dice of two volumes and what both have; nothing where neither has any.
pub(in crate::train) fn dice(a: f64, b: f64, both: f64) -> Option<f64> {
    (a + b > 0.0).then(|| 2.0 * both / (a + b))
}

/// The classes that both name; a truth or a model of one class has none to be told apart.
fn classes(
    truth: &Truth,
    shown: &Volume<u8>,
    labels: &BTreeMap<u8, String>,
    ml: &Millilitres,
) -> BTreeMap<String, ClassCase> {
    let named = |value: u8, name: &String| {
        let other = labels.iter().find(|(_, label)| *label == name)?;
        Some((name.clone(), value, *other.0))
    };
    let shared: Vec<(String, u8, u8)> = truth.names.iter().filter_map(|(v, n)| named(*v, n)).collect();
    if shared.len() < 2 {
        return BTreeMap::new();
    }
    let mut volumes = vec![[0.0f64; 3]; shared.len()];
    let len = shown.geometry.slice_len();
    for (v, (t, f)) in truth.classes.data.iter().zip(&shown.data).enumerate() {
        if *t == 0 && *f == 0 {
            continue;
        }
        let voxel = ml.0.voxel_volume_ml(v / len);
        for ((_, value, label), sums) in shared.iter().zip(&mut volumes) {
            sums[0] += if t == value { voxel } else { 0.0 };
            sums[1] += if f == label { voxel } else { 0.0 };
            sums[2] += if t == value && f == label { voxel } else { 0.0 };
        }
    }
    let class = |[truth_ml, found_ml, both]: [f64; 3]| ClassCase {
        truth_ml,
        found_ml,
        dice: dice(truth_ml, found_ml, both),
    };
    let names = shared.into_iter().map(|(name, ..)| name);
    names.zip(volumes.into_iter().map(class)).collect()
}

/// The name of the value that most voxels of a region have.
fn name_of(region: &Component, values: &Volume<u8>, names: &BTreeMap<u8, String>) -> String {
    let mut counts = [0usize; 256];
    for v in &region.voxels {
        counts[usize::from(values.data[*v])] += 1;
    }
    let most = (1..=u8::MAX).max_by_key(|value| counts[usize::from(*value)]);
    most.and_then(|value| names.get(&value).cloned())
        .unwrap_or_else(|| "unnamed".into())
}

/// Share of a region's voxels that lie in a mask.
fn share(region: &Component, mask: &[bool]) -> f64 {
    region.voxels.iter().filter(|v| mask[**v]).count() as f64 / region.voxels.len() as f64
}

fn lesion_dice(lesion: &Component, found: &[Component], ml: &Millilitres) -> f64 {
    let inside = |v: &&usize| lesion.voxels.binary_search(v).is_ok();
    let (mut touching, mut both) = (0.0, 0.0);
    for region in found {
        let common = ml.of_voxels(region.voxels.iter().filter(inside));
        if common > 0.0 {
            touching += region.volume_ml;
            both += common;
        }
    }
    dice(lesion.volume_ml, touching, both).unwrap_or(0.0)
}

/// The findings, each with the volume that it stands for.
fn findings(truth: &Truth, look: &Look, ml: &Millilitres) -> Vec<FindingCase> {
    let (segments, classes) = (&look.found.segments, &truth.classes);
    // Of each segment: voxels, those in a lesion, their volume, and that of the lesions it has most of.
    let mut sums: BTreeMap<u16, (u64, u64, f64, f64)> = BTreeMap::new();
    let len = classes.geometry.slice_len();
    for (v, segment) in segments
        .data
        .iter()
        .enumerate()
        .filter(|(_, segment)| **segment > 0)
    {
        let sum = sums.entry(*segment).or_default();
        sum.0 += 1;
        if classes.data[v] > 0 {
            sum.1 += 1;
            sum.2 += ml.0.voxel_volume_ml(v / len);
        }
    }
    for class in truth.names.keys() {
        let mask: Vec<bool> = classes.data.iter().map(|value| value == class).collect();
        for lesion in components(&mask, &classes.geometry) {
            let mut within: BTreeMap<u16, u64> = BTreeMap::new();
            for v in lesion.voxels.iter().filter(|v| segments.data[**v] > 0) {
                *within.entry(segments.data[*v]).or_default() += 1;
            }
            let most = within.iter().max_by_key(|(_, count)| **count);
            if let Some(sum) = most.and_then(|(segment, _)| sums.get_mut(segment)) {
                sum.3 += lesion.volume_ml;
            }
        }
    }
    let stands_for = |segment| {
        let (all, within, own_ml, lesions_ml) = sums.get(&segment).copied().unwrap_or_default();
        let is_true = within as f64 > FOUND_SHARE * all as f64;
        if is_true { own_ml.max(lesions_ml) } else { 0.0 }
    };
    let all = look.found.findings.iter();
    all.map(|finding| FindingCase {
        volume_ml: finding.volume_ml,
        score: finding.score,
        truth_ml: stands_for(finding.segment),
    })
    .collect()
}

fn key_slice(region: &Component, grid: &Geometry) -> usize {
    let mut counts = vec![0usize; grid.slices()];
    for v in &region.voxels {
        counts[v / grid.slice_len()] += 1;
    }
    (0..counts.len()).max_by_key(|s| counts[*s]).unwrap_or(0)
}

fn thickness_mm(grid: &Geometry) -> f64 {
    let extents = (0..grid.slices()).map(|s| grid.slice_extent_mm(s)).collect();
    super::statistics::quantile_of(extents, 0.5).unwrap_or(0.0)
}

fn tilt_degrees(grid: &Geometry) -> f64 {
    let normal = grid.normal();
    let mut cosine = normal[2].abs();
    if let [first, .., last] = grid.planes.as_slice() {
        let way = sub(last.origin_mm, first.origin_mm);
        cosine = cosine.min(dot(way, normal).abs() / norm(way));
    }
    let degrees = cosine.min(1.0).acos().to_degrees();
    (degrees * 100.0).round() / 100.0
}
