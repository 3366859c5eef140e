//! All instances of a study → the stacks that fit a trigger, best first, and why each other series does not.
//!
//! Series are judged by their headers here: modality, kind of image, identity, kernel, contrast agent, geometry, step.
//! Scouts and other stray images within a series are set aside; a series that holds several stacks (orientations, kernels, matrices, or repeated acquisitions) is split, and each stack stands for itself.
//! Pixels are not touched: `content` looks at those of the best candidate.
//!
//! Source: design.md ("Which series", "Identity", "Origin"); PS3.3 section C.8.2.1.1.1 (Image Type).

use super::{
    frames, hu, identity,
    kernel::{Kernel, kernel},
    refusal,
    stack::{self, Frame, Stack},
};
use crate::{
    dicom::{attribute::Attributes, instance::Instance},
    domain::{
        finding::{Refusal, SeriesChoice},
        plan::{Contrast, Trigger},
        uid::Uid,
    },
};
use std::{cmp::Reverse, collections::BTreeMap};

/// CT Image Storage.
const CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Secondary Capture Image Storage and its multi-frame kin start so.
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
/// What our own objects say as Manufacturer.
const OUR_MANUFACTURER: &str = "ictus";
/// Differences of coverage below this do not decide between series, mm.
const COVERAGE_GRAIN_MM: f64 = 20.0;

/// Steps this far outside of what a model is for are rounding, mm.
const STEP_TOLERANCE_MM: f64 = 1e-3;

type Slices<'a> = Vec<(usize, &'a Attributes)>;

/// One stack that could be analysed, by its header.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    series: usize,
    part: usize,
    /// The slices, ordered.
    pub(super) stack: Stack,
    /// What a reader should know of it.
    pub(super) warnings: Vec<Refusal>,
    /// Whether ContrastBolusAgent is set.
    pub(super) has_contrast_agent: bool,
    kernel: Kernel,
    step_distance_mm: f64,
    acquired: String,
}

/// What is known of each series, and the candidates that are left.
#[derive(Debug)]
pub(super) struct Selection {
    uids: Vec<Uid>,
    origins: Vec<&'static str>,
    reasons: Vec<Vec<String>>,
    refusals: Vec<Refusal>,
    candidates: Vec<Candidate>,
}

impl Selection {
    /// The best candidate that was not handed out yet.
    pub(super) fn next_candidate(&mut self) -> Option<Candidate> {
        (!self.candidates.is_empty()).then(|| self.candidates.remove(0))
    }

    /// Notes why a candidate was not analysed after all.
    pub(super) fn reject(&mut self, candidate: &Candidate, refusals: Vec<Refusal>) {
        for refusal in refusals {
            self.reasons[candidate.series].push(said(&refusal));
            self.note(refusal);
        }
    }

    /// Ends the selection with a choice.
    pub(super) fn choose(mut self, chosen: &Candidate) -> Vec<SeriesChoice> {
        for left in &self.candidates {
            let reason = if left.series == chosen.series {
                "another stack of the series was preferred"
            } else {
                left.why_after(chosen)
            };
            self.reasons[left.series].push(reason.to_owned());
        }
        let why = format!(
            "best of the series that fit: {} slices, median step {:.2} mm, {:.0} mm covered",
            chosen.stack.instances.len(),
            chosen.stack.step_mm,
            chosen.stack.coverage_mm(),
        );
        self.reasons[chosen.series].insert(0, why);
        self.into_choices(Some(chosen.series))
    }

    /// Ends the selection without a choice.
    pub(super) fn into_refusals(mut self) -> (Vec<SeriesChoice>, Vec<Refusal>) {
        let refusals = std::mem::take(&mut self.refusals);
        let refusals = if refusals.is_empty() {
            vec![refusal(
                "no_series",
                "There is no series of axial CT slices that fits the model.",
            )]
        } else {
            refusals
        };
        (self.into_choices(None), refusals)
    }

    fn into_choices(self, chosen: Option<usize>) -> Vec<SeriesChoice> {
        let parts = self
            .uids
            .into_iter()
            .zip(self.origins)
            .zip(self.reasons)
            .enumerate();
        parts
            .map(|(index, ((uid, origin), mut reasons))| {
                reasons.dedup();
                SeriesChoice {
                    uid,
                    origin: origin.to_owned(),
                    chosen: chosen == Some(index),
                    reason: reasons.join("; "),
                }
            })
            .collect()
    }

    fn note(&mut self, refusal: Refusal) {
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }
}

impl Candidate {
    /// Lower is better.
    fn rank(&self) -> (Kernel, Reverse<i64>, i64) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "millimetres of a body, saturating"
        )]
        let grain = |mm: f64, size: f64| (mm / size).round() as i64;
        let coverage = grain(self.stack.coverage_mm(), COVERAGE_GRAIN_MM);
        (self.kernel, Reverse(coverage), grain(self.step_distance_mm, 0.1))
    }

    /// Why this one was not preferred.
    fn why_after(&self, chosen: &Self) -> &'static str {
        let (own, best) = (self.rank(), chosen.rank());
        if own.0 != best.0 {
            "a softer kernel was preferred"
        } else if own.1 != best.1 {
            "a series that covers more was preferred"
        } else if own.2 != best.2 {
            "a series with a step nearer to the model's was preferred"
        } else if self.acquired != chosen.acquired {
            "a later acquisition was preferred"
        } else {
            "an equal series was preferred"
        }
    }
}

fn said(refusal: &Refusal) -> String {
    format!("{} ({})", refusal.text.trim_end_matches('.'), refusal.code)
}

/// Judges every series of a study by its headers.
pub(super) fn select(instances: &[Instance], trigger: &Trigger) -> Selection {
    let mut by_uid: BTreeMap<&Uid, Slices> = BTreeMap::new();
    for (index, instance) in instances.iter().enumerate() {
        if let Some(uid) = &instance.attributes.series_instance_uid {
            by_uid.entry(uid).or_default().push((index, &instance.attributes));
        }
    }
    let mut selection = Selection {
        uids: by_uid.keys().map(|uid| (*uid).clone()).collect(),
        origins: by_uid.values().map(|slices| origin(slices)).collect(),
        reasons: vec![Vec::new(); by_uid.len()],
        refusals: Vec::new(),
        candidates: Vec::new(),
    };
    let all: Slices = instances
        .iter()
        .enumerate()
        .map(|(i, instance)| (i, &instance.attributes))
        .collect();
    if let Err(conflict) = identity::check_study(&all) {
        selection
            .reasons
            .iter_mut()
            .for_each(|reasons| reasons.push(said(&conflict)));
        selection.note(conflict);
        return selection;
    }
    for (series, slices) in by_uid.into_values().enumerate() {
        judge(&mut selection, series, &slices, trigger);
    }
    let numbers: Vec<Option<i32>> = selection
        .candidates
        .iter()
        .map(|c| {
            c.stack
                .instances
                .first()
                .and_then(|&i| instances[i].attributes.series_number)
        })
        .collect();
    let mut order: Vec<usize> = (0..selection.candidates.len()).collect();
    let candidates = &selection.candidates;
    order.sort_by(|&a, &b| {
        let (left, right) = (&candidates[a], &candidates[b]);
        left.rank()
            .cmp(&right.rank())
            .then_with(|| right.acquired.cmp(&left.acquired))
            .then_with(|| numbers[a].cmp(&numbers[b]))
            .then_with(|| (left.series, left.part).cmp(&(right.series, right.part)))
    });
    selection.candidates = order
        .iter()
        .map(|&index| selection.candidates[index].clone())
        .collect();
    selection
}

/// `received`, unless the object says that it is ours.
fn origin(slices: &Slices) -> &'static str {
    let Some((_, a)) = slices.first() else {
        return "received";
    };
    match (is_ours(a), a.modality.as_deref()) {
        (true, Some("CT")) => "derived",
        (true, _) => "result",
        (false, _) => "received",
    }
}

fn is_ours(a: &Attributes) -> bool {
    a.manufacturer.as_deref() == Some(OUR_MANUFACTURER)
}

fn judge(selection: &mut Selection, series: usize, slices: &Slices, trigger: &Trigger) {
    let mut images = Vec::new();
    let mut aside: BTreeMap<&'static str, usize> = BTreeMap::new();
    for &(index, a) in slices {
        match not_a_slice(a, trigger) {
            Some(reason) => *aside.entry(reason).or_default() += 1,
            None => images.push((index, a)),
        }
    }
    for (reason, count) in aside {
        selection.reasons[series].push(format!("{count} of {} instances: {reason}", slices.len()));
    }
    if let Some(problem) = slices.iter().find_map(|(_, a)| a.frames_problem) {
        let why = refusal(
            "frames_unknown",
            format!(
                "The frames of a multi-frame CT cannot be told apart: {problem}. Send it with its functional groups, or as single slices."
            ),
        );
        selection.reasons[series].push(said(&why));
        selection.note(why);
    }
    if images.is_empty() {
        return;
    }
    let checked = identity::check_series(&images)
        .and_then(|()| frames::check(&images))
        .and_then(|()| hu::check_header(&images));
    if let Err(why) = checked {
        selection.reasons[series].push(said(&why));
        selection.note(why);
        return;
    }
    let stacks = split(images);
    let parts = stacks.len();
    for (part, slices) in stacks.into_iter().enumerate() {
        let candidate = candidate(series, part, &slices, trigger).and_then(|candidate| {
            fits(&candidate, trigger)?;
            Ok(candidate)
        });
        match candidate {
            Ok(mut candidate) => {
                if parts > 1 {
                    candidate.warnings.push(refusal(
                        "mixed_series",
                        format!(
                            "The series holds {parts} stacks; {} of its instances form the one that was analysed.",
                            candidate.stack.instances.len()
                        ),
                    ));
                }
                selection.candidates.push(candidate);
            }
            Err(refusals) => {
                for refusal in refusals {
                    selection.reasons[series].push(said(&refusal));
                    selection.note(refusal);
                }
            }
        }
    }
}

/// Why an instance is not a slice that the trigger could want.
fn not_a_slice(a: &Attributes, trigger: &Trigger) -> Option<&'static str> {
    let class = a.sop_class_uid.as_ref().map(Uid::as_str);
    let says = |word: &str| a.image_type.iter().any(|value| value.eq_ignore_ascii_case(word));
    if is_ours(a) {
        Some("a result of this software")
    } else if class.is_some_and(|uid| uid.starts_with(SECONDARY_CAPTURE)) {
        Some("a secondary capture, not a CT slice")
    } else if a.modality.as_deref() != Some(trigger.modality.as_str()) {
        Some("not of the model's modality")
    } else if a.number_of_frames.is_some_and(|n| n > 1) || a.frames_problem.is_some() {
        Some("a multi-frame object whose frames are not slices that can be told apart")
    } else if class != Some(CT_IMAGE_STORAGE) && a.frame.is_none() {
        Some("not a CT Image Storage object")
    } else if says("LOCALIZER") || says("SCOUT") {
        Some("a scout (localizer)")
    } else if says("SCREEN SAVE") || says("DOSE") || says("DOSE_INFO") || says("PROTOCOL") {
        Some("a dose or protocol page, not a slice")
    } else if says("DERIVED") || says("SECONDARY") {
        Some("derived from other images, not an original reconstruction")
    } else {
        None
    }
}

/// Splits what one series holds into stacks of one orientation, kernel, matrix and spacing, and repeated acquisitions apart.
fn split(slices: Slices) -> Vec<Slices> {
    let mut groups: Vec<(Key, Slices)> = Vec::new();
    for (index, a) in slices {
        let key = Key::of(a);
        match groups.iter_mut().find(|(known, _)| known.is(&key)) {
            Some((_, group)) => group.push((index, a)),
            None => groups.push((key, vec![(index, a)])),
        }
    }
    groups
        .into_iter()
        .flat_map(|(_, group)| split_repeats(group))
        .collect()
}

/// What the slices of a stack have in common.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    frame: Option<Frame>,
    kernel: Option<String>,
    matrix: (Option<u16>, Option<u16>),
    /// Micrometres, so that rounding in the header does not matter.
    spacing_um: Option<[i64; 2]>,
}

impl Key {
    fn of(a: &Attributes) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "micrometres of a pixel, saturating"
        )]
        let spacing_um = a.pixel_spacing.map(|s| s.map(|mm| (mm * 1000.0).round() as i64));
        Self {
            frame: a.image_orientation_patient.and_then(Frame::of),
            kernel: a.convolution_kernel.clone(),
            matrix: (a.rows, a.columns),
            spacing_um,
        }
    }

    /// Whether slices of both keys belong to one stack, or are so nearly alike that splitting them would hide a fault.
    fn is(&self, other: &Self) -> bool {
        let near_direction = match (&self.frame, &other.frame) {
            (Some(a), Some(b)) => {
                let along = |a: [f64; 3], b: [f64; 3]| crate::domain::geometry::dot(a, b) > NEARLY_PARALLEL;
                along(a.row_direction, b.row_direction) && along(a.column_direction, b.column_direction)
            }
            (None, None) => true,
            _ => false,
        };
        let near_spacing = match (self.spacing_um, other.spacing_um) {
            (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1),
            (None, None) => true,
            _ => false,
        };
        near_direction && near_spacing && self.kernel == other.kernel && self.matrix == other.matrix
    }
}

/// cos 5°: two scans that were planned apart differ by more; slices of one scan do not differ at all.
const NEARLY_PARALLEL: f64 = 0.9962;

/// Tells repeated acquisitions apart, where positions repeat and AcquisitionNumber explains it; otherwise leaves the group whole.
fn split_repeats(group: Slices) -> Vec<Slices> {
    let repeats = |slices: &Slices| {
        let mut positions: Vec<[f64; 3]> = slices
            .iter()
            .filter_map(|(_, a)| a.image_position_patient)
            .collect();
        positions.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        positions.windows(2).any(|pair| pair[0] == pair[1])
    };
    if !repeats(&group) {
        return vec![group];
    }
    let mut acquisitions: BTreeMap<Option<i32>, Slices> = BTreeMap::new();
    for (index, a) in &group {
        acquisitions
            .entry(a.acquisition_number)
            .or_default()
            .push((*index, a));
    }
    if acquisitions
        .values()
        .any(|slices| repeats(slices) || slices.len() < 2)
    {
        return vec![group];
    }
    acquisitions.into_values().collect()
}

fn candidate(
    series: usize,
    part: usize,
    slices: &Slices,
    trigger: &Trigger,
) -> Result<Candidate, Vec<Refusal>> {
    let (stack, mut warnings) = stack::build(slices)?;
    let first = slices.first().map(|(_, a)| *a);
    let kernel = kernel(first.and_then(|a| a.convolution_kernel.as_deref()));
    if kernel == Kernel::Bone {
        warnings.push(refusal(
            "bone_kernel",
            "The reconstruction kernel is sharp (bone); soft tissue is noisy.",
        ));
    }
    let [lower, upper] = trigger.thickness_mm;
    let step_distance_mm = (lower - stack.step_mm).max(stack.step_mm - upper).max(0.0);
    Ok(Candidate {
        series,
        part,
        has_contrast_agent: slices.iter().any(|(_, a)| has_agent(a)),
        kernel,
        step_distance_mm,
        acquired: slices
            .iter()
            .filter_map(|(_, a)| a.acquisition_date_time.clone())
            .max()
            .unwrap_or_default(),
        stack,
        warnings,
    })
}

fn has_agent(a: &Attributes) -> bool {
    let none = ["NONE", "NO", "N", "WITHOUT", "NO CONTRAST"];
    a.contrast_bolus_agent
        .as_deref()
        .is_some_and(|agent| !none.iter().any(|word| agent.eq_ignore_ascii_case(word)))
}

/// Checks a stack against the trigger.
fn fits(candidate: &Candidate, trigger: &Trigger) -> Result<(), Vec<Refusal>> {
    let mut refusals = Vec::new();
    match (trigger.contrast, candidate.has_contrast_agent) {
        (Contrast::Without, true) => refusals.push(refusal(
            "contrast",
            "The series was made with contrast agent; the model is for series without.",
        )),
        (Contrast::With, false) => refusals.push(refusal(
            "contrast",
            "The series was made without contrast agent; the model is for series with it.",
        )),
        _ => {}
    }
    if candidate.step_distance_mm > STEP_TOLERANCE_MM {
        let [lower, upper] = trigger.thickness_mm;
        refusals.push(refusal(
            "step_out_of_range",
            format!(
                "The median step between slices is {:.2} mm; the model is for {lower} to {upper} mm.",
                candidate.stack.step_mm
            ),
        ));
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}
