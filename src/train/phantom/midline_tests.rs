//! The midline shift of phantoms, measured as an analysis does.

use super::{HEAD_CENTER_MM, Head, Kind, Range};
use crate::{
    analysis::preprocess::{brain::intracranial, head_trace},
    domain::{
        geometry::add,
        midsagittal::{MidlineShift, MidsagittalPlane},
        volume::{Geometry, SlicePlane},
    },
};
use rayon::prelude::*;

/// What is measured on a stack of 2 mm pixels and 4 mm slices.
fn measured(head: &Head) -> Option<MidlineShift> {
    let grid = Geometry {
        rows: 120,
        columns: 120,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        pixel_spacing_mm: [2.0, 2.0],
        planes: (0..45)
            .map(|k| SlicePlane {
                origin_mm: add(HEAD_CENTER_MM, [-119.0, -119.0, 4.0 * f64::from(k) - 75.0]),
                thickness_mm: 4.0,
            })
            .collect(),
    };
    let hu = head.render(&grid).hu;
    let brain = intracranial(&hu, &head_trace(&hu).unwrap()).brain;
    MidsagittalPlane::estimate(&brain, &hu)?.midline_shift(&brain, &hu)
}

#[test]
fn the_midline_shift_of_phantoms_is_measured_to_a_few_millimetres_or_not_told() {
    let shifted = |seed: &u64| {
        Head::new(*seed, Kind::Haemorrhage, Range::Evaluation)
            .midline_shift_mm()
            .abs()
            > 3.0
    };
    let bled = (0..)
        .filter(shifted)
        .take(12)
        .map(|seed| (seed, Kind::Haemorrhage));
    let heads: Vec<(u64, Kind)> = bled.chain((0..6).map(|seed| (seed, Kind::Normal))).collect();
    let told: Vec<(u64, f64, Option<MidlineShift>)> = heads
        .into_par_iter()
        .map(|(seed, kind)| {
            let head = Head::new(seed, kind, Range::Evaluation);
            (seed, head.midline_shift_mm(), measured(&head))
        })
        .collect();
    for (seed, truth, shift) in &told {
        assert!(
            shift.is_none_or(|shift| (shift.left_mm - truth).abs() < 3.0),
            "{seed}: {truth:.1} mm, told {shift:?}"
        );
    }
    let within = told.iter().filter(|(_, truth, shift)| {
        shift.is_some_and(|shift| shift.interval_mm[0] <= *truth && *truth <= shift.interval_mm[1])
    });
    let within = within.count();
    assert!(within >= 12, "{within} of 18 within the interval: {told:#?}");
}
