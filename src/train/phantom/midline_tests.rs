//! The midline shift of phantoms, measured as an analysis does.

use super::{Head, Kind, Range, geometry::coarse};
use crate::{
    analysis::preprocess::{
        brain::{Intracranial, intracranial},
        head_trace,
    },
    domain::midsagittal::{MidlineShift, MidsagittalPlane},
};
use rayon::prelude::*;

/// What is measured on a stack of 2 mm pixels and 4 mm slices.
fn measured(head: &Head) -> Option<MidlineShift> {
    let hu = head.render(&coarse(45, 4.0)).hu;
    let Intracranial { brain, cavity } = intracranial(&hu, &head_trace(&hu).unwrap());
    MidsagittalPlane::estimate(&brain, &hu)?.midline_shift(&brain, &cavity, &hu)
}

/// Heads with a bleed that pushes, and normal ones; `strength` times the push that they are drawn with.
fn heads(strength: f32) -> Vec<Head> {
    let draw = |seed, kind| Head::new(seed, kind, Range::Evaluation);
    let bled = (0..).map(|seed| draw(seed, Kind::Haemorrhage));
    let shifted = bled.filter(|head| head.midline_shift_mm().abs() > 3.0).take(12);
    shifted
        .map(|mut head| {
            head.anatomy.push_harder(strength);
            head
        })
        .chain((0..6).map(|seed| draw(seed, Kind::Normal)))
        .collect()
}

#[test]
fn the_midline_shift_of_phantoms_is_measured_to_a_few_millimetres_or_not_told() {
    for strength in [1.0, 2.0] {
        let told: Vec<(u64, f64, Option<MidlineShift>)> = heads(strength)
            .par_iter()
            .map(|head| (head.seed(), head.midline_shift_mm(), measured(head)))
            .collect();
        for (seed, truth, shift) in &told {
            assert!(
                shift.is_none_or(|shift| (shift.left_mm - truth).abs() < 3.0),
                "{seed}: {truth:.1} mm, told {shift:?}"
            );
        }
        let is_within = |truth: f64, shift: &MidlineShift| {
            let [low, high] = shift.interval_mm;
            (low..=high).contains(&truth)
        };
        let shifts = || {
            told.iter()
                .filter_map(|(_, truth, shift)| Some((*truth, shift.as_ref()?)))
        };
        let (count, within) = (
            shifts().count(),
            shifts().filter(|(truth, shift)| is_within(*truth, shift)).count(),
        );
        assert!(count >= 12, "only {count} of 18 told: {told:#?}");
        assert!(
            within + 2 >= count,
            "{within} of {count} within their intervals: {told:#?}"
        );
    }
}
