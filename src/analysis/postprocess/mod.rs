//! Stage 5: [`Prediction`] → findings in source geometry, and the case's answer.
//!
//! Connected regions of a label become findings when they are large and strong enough for the plan; each gets its own segment number.
//! What it does not do: calibrate. Scores stay scores, and a study is flagged or not flagged, never cleared.

mod abc2;
pub mod aspects;
pub mod case_score;
pub mod components;
mod kinds;

use crate::domain::{
    aspects::Aspects,
    failure::FailureClass,
    finding::{Answer, AnswerValue, Finding, Lane, Refusal, Region, Side},
    geometry::{Vec3, add, scale},
    midsagittal::{MidlineShift, MidsagittalPlane},
    plan::{Grid, Label, Plan},
    prediction::Prediction,
    uid::Uid,
    volume::{Geometry, Volume},
};
use components::Component;
use std::borrow::Cow;

/// Questions that begin so have findings with an ABC/2.
const HAEMORRHAGE: &str = "haemorrhage";
/// A region with this share of its voxels on one side of the midsagittal plane lies on that side.
const ONE_SIDED: f64 = 0.8;
/// Share of a region that must lie inside the cavity: a film of blood along the bone may have no more.
const INSIDE: f64 = 0.25;
/// Scores from which voxels count for ASPECTS: for the upper end of its range, for the score itself, for the lower end; chosen on a hundred phantoms, which the infarct model's card names.
const COUNTED: [f32; 3] = [0.5, 0.3, 0.15];
/// A two-sided region that reaches no farther than this from the plane is a midline one, mm.
const MIDLINE_REACH_MM: f64 = 12.0;

/// Why there are no findings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostprocessError {
    /// More regions than a SEG can number.
    #[error("{0} separate regions were found, at most {max} can be reported; the input is probably not a head CT", max = u16::MAX)]
    TooMany(usize),
}

impl PostprocessError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// What an analysis found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Largest first.
    pub findings: Vec<Finding>,
    /// Segment number of each voxel, 0 = no finding.
    pub segments: Volume<u16>,
    /// Score of the case: that of its strongest lesion.
    pub score: f64,
    /// The plan's question, answered; nothing when nobody has chosen when to flag.
    pub answer: Option<Answer>,
    /// How far the midline is pushed aside, where the plan is for plain scans of the head.
    pub midline_shift: Option<MidlineShift>,
    /// ASPECTS, where the plan has its regions and a side could be scored.
    pub aspects: Option<Aspects>,
    /// What could not be told.
    pub warnings: Vec<Refusal>,
}

impl Found {
    /// Takes back what only a calibration says, where it does not hold.
    pub fn forget_calibration(&mut self) {
        for finding in &mut self.findings {
            (finding.probability, finding.volume_interval_ml) = (None, None);
        }
        if let Some(answer) = &mut self.answer {
            (answer.probability, answer.lane) = (None, None);
        }
    }
}

/// nnU-Net's postprocessing: of each set of labels only the largest region of their union stays.
pub fn keep_largest(labels: &mut Volume<u8>, sets: &[Vec<u8>]) {
    for set in sets {
        let mask: Vec<bool> = labels.data.iter().map(|v| set.contains(v)).collect();
        let mut regions = components::components(&mask, &labels.geometry);
        regions.sort_by_key(|region| std::cmp::Reverse(region.voxels.len()));
        for voxel in regions.iter().skip(1).flat_map(|region| &region.voxels) {
            labels.data[*voxel] = 0;
        }
    }
}

/// Turns a prediction into findings and an answer.
///
/// `ct` is what was looked at; it and `brain`, about where the brain is, give the midsagittal plane and the shift of the midline; regions of which less than a quarter lies in `cavity` are no findings, and only `cavity` counts for the case.
///
/// # Errors
/// [`PostprocessError::TooMany`].
pub fn find(
    prediction: &Prediction,
    ct: &Volume<f32>,
    brain: &Volume<bool>,
    cavity: &Volume<bool>,
    series: &Uid,
    plan: &Plan,
) -> Result<Found, PostprocessError> {
    let geometry = &prediction.labels.geometry;
    let plane = MidsagittalPlane::estimate(brain, ct);
    // What a box knows of the brain is too coarse to measure by.
    let is_boxed = matches!(plan.configuration.grid, Grid::HeadBox { .. });
    let midline_shift = plane
        .as_ref()
        .filter(|_| plan.trigger.is_plain_head() && !is_boxed)
        .and_then(|plane| plane.midline_shift(brain, cavity, ct));
    // On the source's slices and in a box labels are kinds of one thing; a volume's are what its training data had.
    let labels = match plan.configuration.grid {
        Grid::SourceSlices { .. } | Grid::HeadBox { .. } if plan.labels.len() > 1 => {
            Cow::Owned(kinds::settle(&prediction.labels, &plan.labels))
        }
        _ => Cow::Borrowed(&prediction.labels),
    };
    let mut regions: Vec<(&Label, Component)> = Vec::new();
    let mut counts = cavity.data.clone();
    for label in &plan.labels {
        let mask: Vec<bool> = labels.data.iter().map(|v| *v == label.value).collect();
        for component in components::components(&mask, geometry) {
            match judge(&component, label, prediction, ct, cavity) {
                Verdict::Finding => regions.push((label, component)),
                Verdict::Weak => {}
                // What cannot be the lesion is no doubt about the case either.
                Verdict::Impossible => component.voxels.iter().for_each(|v| counts[*v] = false),
            }
        }
    }
    regions.sort_by(|a, b| b.1.volume_ml.total_cmp(&a.1.volume_ml));
    let segments = numbered(regions.iter().map(|(_, component)| component), geometry)?;
    let findings: Vec<Finding> = (1..)
        .zip(&regions)
        .map(|(segment, (label, component))| {
            finding(
                component,
                label,
                segment,
                prediction,
                plane.as_ref(),
                series,
                plan,
            )
        })
        .collect();
    let smallest = plan
        .labels
        .iter()
        .map(|l| l.min_volume_ml)
        .fold(f64::INFINITY, f64::min);
    let score = case_score::strongest_lesion(&prediction.score, &counts, smallest);
    let answer = answer(score, prediction.disagreement, &findings, plan);
    let mut warnings = Vec::new();
    let aspects = plan
        .tells_aspects()
        .then(|| read_aspects(prediction, &counts, plane.as_ref(), plan, &mut warnings))
        .flatten();
    Ok(Found {
        findings,
        segments,
        score,
        answer,
        midline_shift,
        aspects,
        warnings,
    })
}

/// ASPECTS of the sides of which all regions were seen; of the others a warning says what lacks.
fn read_aspects(
    prediction: &Prediction,
    counts: &[bool],
    plane: Option<&MidsagittalPlane>,
    plan: &Plan,
    warnings: &mut Vec<Refusal>,
) -> Option<Aspects> {
    let mut untold = |what: &str, why: &str| {
        warnings.push(Refusal {
            code: "aspects_not_told".into(),
            text: format!(
                "{} does not tell ASPECTS of {what}: {why}; read it from the images.",
                plan.id
            ),
        });
    };
    let Some(plane) = plane else {
        untold(
            "this head",
            "no midsagittal plane was found, which the sides need",
        );
        return None;
    };
    let (aspects, unseen) = aspects::read(prediction.structures.as_ref()?, plane, |v| {
        // A region can be smaller than the smallest finding, and half of one is seldom marked: scores count, not what is shown.
        COUNTED.map(|least| counts[v] && prediction.score.data[v] >= least)
    });
    for (side, regions) in [Side::Left, Side::Right].into_iter().zip(&unseen) {
        if !regions.is_empty() {
            let names: Vec<&str> = regions.iter().map(|region| region.letters()).collect();
            untold(
                &format!("the {} side", side.name()),
                &format!(
                    "{} cannot be made out, and all ten regions are needed",
                    names.join(", ")
                ),
            );
        }
    }
    let is_told = aspects.left.is_some() || aspects.right.is_some();
    is_told.then_some(aspects)
}

/// What a region is for its label.
enum Verdict {
    /// Large and strong enough.
    Finding,
    /// Too small or too weak to be told; the case score still knows of it.
    Weak,
    /// Large enough, but of another density, or outside the head.
    Impossible,
}

fn judge(
    component: &Component,
    label: &Label,
    prediction: &Prediction,
    ct: &Volume<f32>,
    cavity: &Volume<bool>,
) -> Verdict {
    let geometry = &prediction.labels.geometry;
    let (mut inside_ml, mut moment, mut peak) = (0.0f64, 0.0f64, 0.0f32);
    for v in &component.voxels {
        let ml = geometry.voxel_volume_ml(v / geometry.slice_len());
        inside_ml += if cavity.data[*v] { ml } else { 0.0 };
        moment += ml * f64::from(ct.data[*v]);
        peak = peak.max(prediction.score.data[*v]);
    }
    let mean = moment / component.volume_ml;
    let is_dense = label
        .mean_hu
        .is_none_or(|[low, high]| (low..=high).contains(&mean));
    if component.volume_ml < label.min_volume_ml {
        Verdict::Weak
    } else if !is_dense || inside_ml < INSIDE * component.volume_ml {
        Verdict::Impossible
    } else if f64::from(peak) < label.min_peak_score {
        Verdict::Weak
    } else {
        Verdict::Finding
    }
}

fn finding(
    component: &Component,
    label: &Label,
    segment: u16,
    prediction: &Prediction,
    plane: Option<&MidsagittalPlane>,
    series: &Uid,
    plan: &Plan,
) -> Finding {
    let geometry = &prediction.labels.geometry;
    let (mut score, mut entropy, mut weight) = (0.0f64, 0.0f64, 0.0f64);
    for v in &component.voxels {
        let ml = geometry.voxel_volume_ml(v / geometry.slice_len());
        weight += ml;
        score += ml * f64::from(prediction.score.data[*v]);
        entropy += ml * f64::from(prediction.entropy.data[*v]);
    }
    let region = region(component, segment, geometry, plane.filter(|_| label.side_aware));
    let score = score / weight;
    let known = plan.calibration.as_ref();
    Finding {
        id: format!("{}-{segment}", label.name),
        kind: label.name.clone(),
        code: label.kind.clone(),
        model: plan.id.clone(),
        series: series.clone(),
        segment,
        volume_ml: region.volume_ml,
        abc2_ml: plan
            .question
            .starts_with(HAEMORRHAGE)
            .then(|| abc2::abc2_ml(component, geometry)),
        volume_interval_ml: known.and_then(|known| known.volume_interval_ml(region.volume_ml)),
        center_mm: region.center_mm,
        bounding_box_mm: region.bounding_box_mm,
        side: region.side,
        site: label.site.clone(),
        score,
        probability: known.and_then(|known| known.finding_probability(score)),
        uncertainty: entropy / weight,
        key_slice: region.key_slice,
    }
}

/// Where a connected region lies; without a plane its side is unknown.
#[must_use]
pub fn region(
    component: &Component,
    segment: u16,
    geometry: &Geometry,
    plane: Option<&MidsagittalPlane>,
) -> Region {
    let (len, columns) = (geometry.slice_len(), geometry.columns);
    let place = |v: usize| geometry.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64);
    let mut center: Vec3 = [0.0; 3];
    let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    let mut by_slice = vec![0.0f64; geometry.slices()];
    let (mut left, mut right, mut reach, mut weight) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for v in &component.voxels {
        let point = place(*v);
        let ml = geometry.voxel_volume_ml(v / len);
        weight += ml;
        center = add(center, scale(point, ml));
        for a in 0..3 {
            low[a] = low[a].min(point[a]);
            high[a] = high[a].max(point[a]);
        }
        by_slice[v / len] += ml;
        if let Some(plane) = plane {
            let distance = plane.left_of_mm(point);
            *(if distance >= 0.0 { &mut left } else { &mut right }) += ml;
            reach = reach.max(distance.abs());
        }
    }
    let side = match plane {
        None => Side::Unknown,
        Some(_) if left >= ONE_SIDED * weight => Side::Left,
        Some(_) if right >= ONE_SIDED * weight => Side::Right,
        Some(_) if reach <= MIDLINE_REACH_MM => Side::Midline,
        Some(_) => Side::Bilateral,
    };
    let key_slice = (0..by_slice.len())
        .max_by(|a, b| by_slice[*a].total_cmp(&by_slice[*b]))
        .unwrap_or(0);
    Region {
        segment,
        volume_ml: component.volume_ml,
        center_mm: scale(center, 1.0 / weight),
        bounding_box_mm: [low, high],
        side,
        key_slice,
    }
}

/// A mask as it stands → its connected regions, numbered from the largest, and the number of each voxel.
///
/// # Errors
/// [`PostprocessError::TooMany`].
pub fn regions(
    mask: &Volume<bool>,
    plane: Option<&MidsagittalPlane>,
) -> Result<(Vec<Region>, Volume<u16>), PostprocessError> {
    let geometry = &mask.geometry;
    let mut found = components::components(&mask.data, geometry);
    found.sort_by(|a, b| b.volume_ml.total_cmp(&a.volume_ml));
    let segments = numbered(found.iter(), geometry)?;
    let regions = (1..)
        .zip(&found)
        .map(|(segment, component)| region(component, segment, geometry, plane))
        .collect();
    Ok((regions, segments))
}

/// The number of each voxel: that of its component from 1, 0 outside of all.
fn numbered<'a>(
    components: impl ExactSizeIterator<Item = &'a Component>,
    geometry: &Geometry,
) -> Result<Volume<u16>, PostprocessError> {
    let total = components.len();
    if u16::try_from(total).is_err() {
        return Err(PostprocessError::TooMany(total));
    }
    let mut data = vec![0; geometry.len()];
    for (segment, component) in (1..).zip(components) {
        for voxel in &component.voxels {
            data[*voxel] = segment;
        }
    }
    Ok(Volume {
        geometry: geometry.clone(),
        data,
    })
}

/// The case's answer: flagged when the case score is high and something can be shown, not flagged when it is low and nothing was found, uncertain between.
fn answer(case_score: f64, disagreement: f64, findings: &[Finding], plan: &Plan) -> Option<Answer> {
    let known = plan.calibration.as_ref();
    let [low, high] = match known {
        Some(known) => known.flag_score,
        None => plan.flag_score()?,
    };
    let answer = match (findings.is_empty(), case_score) {
        (false, score) if score >= high => AnswerValue::Present,
        (true, score) if score < low => AnswerValue::Absent,
        _ => AnswerValue::Uncertain,
    };
    Some(Answer {
        question: plan.question.clone(),
        model: Some(plan.id.clone()),
        answer,
        score: Some(case_score),
        probability: known.and_then(|known| known.case_probability(case_score)),
        uncertainty: Some(disagreement),
        lane: known.map(|_| Lane::of(answer)),
    })
}
