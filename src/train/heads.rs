//! Whole heads of phantoms in a box, as samples for 3-D networks that look for bleeds.
//!
//! Each sample is its own head, rendered as a stack and brought into the box by the way that scans take, so that its slices lie between the box's, lean and are missing as theirs do.
//! A thin series comes into the box as means of its slices: the box itself is rendered.
//! Nothing is mirrored left–right.

use super::{
    TrainError,
    dataset::{BLEEDING, Intensity, Sample, Samples, matrix},
    phantom::{Class, training_stack},
    training::Part,
    volumes::laid,
};
use crate::{
    analysis::preprocess::{AIR_HU, normalize::normalize},
    domain::{head_box::BoxTrace, plan::Plan},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Share of thin series.
const THIN: f64 = 0.35;
/// Share of a slice's noise that a voxel of the box has, which is the mean of some ten of its pixels.
const AVERAGED: std::ops::Range<f32> = 0.35..0.9;
/// By how much the box is laid beside the head along each axis, at most, mm.
const ASIDE_MM: f64 = 9.0;

/// Whole heads with and without bleeds.
#[derive(Debug, Clone, Copy)]
pub struct HaemorrhageHeads;

impl Samples for HaemorrhageHeads {
    fn draw(&self, plan: &Plan, _part: Part, seed: u64, index: u64) -> Result<Sample, TrainError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        let (head, _) = BLEEDING.head(&mut rng);
        let head = head.averaged(rng.random_range(AVERAGED));
        let mut trace = laid(plan, &head, ASIDE_MM, &mut rng)?;
        trace.source = if rng.random_bool(THIN) {
            trace.geometry()
        } else {
            let spacing_mm = trace.spacing_mm[2];
            training_stack(rng.random(), matrix(spacing_mm), spacing_mm)
        };
        let rendered = head.render(&trace.source);
        let (rows, columns) = (trace.source.rows, trace.source.columns);
        let change = Intensity::draw(&mut rng, rows, columns);
        let hu: Vec<f32> = rendered
            .hu
            .data
            .chunks_exact(rows * columns)
            .flat_map(|slice| change.apply(slice.to_vec(), false))
            .collect();
        let mut input = trace.forth(&hu, AIR_HU);
        normalize(&mut input, &plan.configuration.normalization_schemes[0], None);
        Ok(Sample {
            input,
            truth: classes(&rendered.truth.data, &trace),
            structures: Vec::new(),
        })
    }

    fn name(&self) -> String {
        format!("haemorrhage heads, {} with one, shaded", BLEEDING.share)
    }
}

/// The class that fills at least half of a voxel of the box.
fn classes(truth: &[u8], trace: &BoxTrace) -> Vec<u8> {
    let mut out = vec![0; trace.shape.iter().product()];
    for class in Class::BLEEDS.map(|class| class as u8) {
        if !truth.contains(&class) {
            continue;
        }
        let mask: Vec<f32> = truth.iter().map(|t| f32::from(u8::from(*t == class))).collect();
        for (value, share) in out.iter_mut().zip(trace.forth(&mask, 0.0)) {
            if share >= 0.5 {
                *value = class;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::preprocess::head_box,
        train::{
            phantom::{Head, Kind, Range, coarse},
            recipe::{haemorrhage, haemorrhage_3d},
        },
    };
    use rayon::prelude::*;

    fn draw(index: u64) -> Sample {
        let plan = haemorrhage_3d(1);
        HaemorrhageHeads.draw(&plan, Part::Trunk, 3, index).unwrap()
    }

    #[test]
    fn the_same_index_gives_the_same_sample_and_every_kind_of_bleed_occurs() {
        assert_eq!(draw(4), draw(4));
        let drawn: Vec<Sample> = (0..40).into_par_iter().map(draw).collect();
        let bleeding = drawn.iter().filter(|s| s.truth.iter().any(|t| *t > 0)).count();
        assert!((12..29).contains(&bleeding), "{bleeding} of 40");
        for class in 1..=5 {
            assert!(drawn.iter().any(|s| s.truth.contains(&class)), "class {class}");
        }
    }

    #[test]
    fn blood_is_brighter_than_what_lies_around_it_however_the_stack_lies() {
        let brighter = (0..24).into_par_iter().map(draw).filter_map(|sample| {
            let mean = |of: &dyn Fn(usize) -> bool| {
                let values: Vec<f32> = (0..sample.truth.len())
                    .filter(|v| of(*v))
                    .map(|v| sample.input[v])
                    .collect();
                (!values.is_empty()).then(|| values.iter().sum::<f32>() / values.len() as f32)
            };
            let blood = mean(&|v| sample.truth[v] > 0)?;
            let soft = mean(&|v| sample.truth[v] == 0 && (-1.0..2.5).contains(&sample.input[v]))?;
            Some(blood > soft)
        });
        let told: Vec<bool> = brighter.collect();
        let right = told.iter().filter(|b| **b).count();
        assert!(
            right + 1 >= told.len() && told.len() > 6,
            "{right} of {}",
            told.len()
        );
    }

    /// Of a head with an open skull the centre may be missed by a few centimetres.
    #[test]
    fn the_box_holds_the_whole_cavity_of_nearly_every_head() {
        let plan = haemorrhage_3d(1);
        let inside = |seed: u64| {
            let head = Head::new(seed, Kind::Normal, Range::Evaluation);
            let rendered = head.render(&coarse(60, 3.0));
            let trace = head_box::preprocess(&rendered.hu, &plan).unwrap().trace;
            let grid = &rendered.brain.geometry;
            let (len, columns) = (grid.slice_len(), grid.columns);
            let is_inside = |v: usize| {
                let p = grid.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64);
                // LPS x runs along columns, y along rows, z along slices.
                [2, 1, 0].into_iter().enumerate().all(|(a, axis)| {
                    let at = (p[a] - trace.origin_mm[a]) / trace.spacing_mm[axis];
                    (-0.5..=trace.shape[axis] as f64 - 0.5).contains(&at)
                })
            };
            let brain = (0..grid.len()).filter(|v| rendered.brain.data[*v]);
            let held: Vec<bool> = brain.map(is_inside).collect();
            held.iter().filter(|held| **held).count() as f64 / held.len() as f64
        };
        let shares: Vec<f64> = (3..19).map(inside).collect();
        let whole = shares.iter().filter(|share| **share > 0.997).count();
        assert!(
            whole >= 15 && shares.iter().all(|share| *share > 0.9),
            "{shares:?}"
        );
    }

    #[test]
    fn refuses_a_plan_on_slices() {
        let error = HaemorrhageHeads
            .draw(&haemorrhage(1), Part::Trunk, 1, 0)
            .unwrap_err();
        assert!(error.to_string().contains("box of the head"), "{error}");
    }
}
