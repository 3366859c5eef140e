//! The slab around each slice as the other half of the head shows it: beside the slab itself, a network sees what differs between left and right.
//!
//! The mirror is the head's own midsagittal plane and not the middle of the image: a head that lies turned, or leans to a shoulder, is mirrored onto itself, across slices where need be.
//! Where the other half is not in the stack there is air, and everywhere when no plane is known.

use super::AIR_HU;
use crate::domain::{geometry::dot, midsagittal::MidsagittalPlane, trace::SpatialTrace};
use rayon::prelude::*;

/// The mirror images of slabs, one for each slice of the trace, in HU on the network's grid.
pub(super) fn reflect(
    trace: &SpatialTrace,
    slabs: &[&[f32]],
    plane: Option<&MidsagittalPlane>,
) -> Vec<Vec<f32>> {
    let shape = trace.shape();
    let normal = trace.source.normal();
    let positions = trace.source.positions_mm();
    let heights: Vec<f64> = trace.slices.iter().map(|slice| positions[*slice]).collect();
    let value = |point_mm| {
        let height = dot(point_mm, normal);
        let above = heights.partition_point(|other| *other < height);
        let on = |i: usize| between(slabs[i], shape, trace.place_of(trace.slices[i], point_mm));
        match (above.checked_sub(1), heights.get(above)) {
            (Some(below), Some(upper)) => {
                let share = (height - heights[below]) / (upper - heights[below]);
                mix(on(below), on(above), share)
            }
            (Some(last), None) if height - heights[last] <= extent(trace, last) => on(last),
            (None, Some(first)) if first - height <= extent(trace, 0) => on(0),
            _ => AIR_HU,
        }
    };
    trace
        .slices
        .par_iter()
        .map(|slice| {
            let Some(plane) = plane else {
                return vec![AIR_HU; shape[0] * shape[1]];
            };
            (0..shape[0] * shape[1])
                .map(|at| {
                    let (row, column) = (at / shape[1], at % shape[1]);
                    value(plane.mirror(trace.point_mm(*slice, row as f64, column as f64)))
                })
                .collect()
        })
        .collect()
}

fn extent(trace: &SpatialTrace, i: usize) -> f64 {
    trace.source.slice_extent_mm(trace.slices[i])
}

/// An image between its pixels, linearly; air outside.
fn between(image: &[f32], [rows, columns]: [usize; 2], [row, column]: [f64; 2]) -> f32 {
    let within = |at: f64, len: usize| at >= 0.0 && at <= (len - 1) as f64;
    if !within(row, rows) || !within(column, columns) {
        return AIR_HU;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the image"
    )]
    let (top, left) = (row as usize, column as usize);
    let (bottom, right) = ((top + 1).min(rows - 1), (left + 1).min(columns - 1));
    let line = |r: usize| {
        mix(
            image[r * columns + left],
            image[r * columns + right],
            column - left as f64,
        )
    };
    mix(line(top), line(bottom), row - top as f64)
}

#[expect(clippy::cast_possible_truncation, reason = "a share")]
fn mix(a: f32, b: f32, share: f64) -> f32 {
    a + (b - a) * share as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        geometry::Vec3,
        trace::AxisMap,
        volume::{Geometry, SlicePlane},
    };

    /// A stack of even slices, rows to the left and columns to the back or the other way round.
    fn trace(transposed: bool) -> SpatialTrace {
        let (left, back) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]);
        let source = Geometry {
            rows: 60,
            columns: 60,
            row_direction: if transposed { back } else { left },
            column_direction: if transposed { left } else { back },
            pixel_spacing_mm: [2.0, 2.0],
            planes: (0..12)
                .map(|i| SlicePlane {
                    origin_mm: [
                        -59.0,
                        -59.0,
                        4.0 * f64::from(i) * if transposed { -1.0 } else { 1.0 },
                    ],
                    thickness_mm: 4.0,
                })
                .collect(),
        };
        let whole = AxisMap {
            start: 0.0,
            step: 1.0,
            len: 60,
        };
        SpatialTrace {
            source,
            transposed,
            axes: [whole; 2],
            slices: (0..12).collect(),
        }
    }

    /// What a function of the place looks like on each slice.
    fn drawn(trace: &SpatialTrace, value: impl Fn(Vec3) -> f32) -> Vec<Vec<f32>> {
        let [rows, columns] = trace.shape();
        trace
            .slices
            .iter()
            .map(|slice| {
                (0..rows * columns)
                    .map(|at| value(trace.point_mm(*slice, (at / columns) as f64, (at % columns) as f64)))
                    .collect()
            })
            .collect()
    }

    #[test]
    fn a_pixel_shows_what_lies_across_the_heads_own_middle_though_it_lies_in_another_slice() {
        for transposed in [false, true] {
            let trace = trace(transposed);
            // Turned by 6° and leaning by 9°, off the middle of the image.
            let plane = MidsagittalPlane::through([4.0, 2.0, 20.0], [0.98, 0.1, 0.16]);
            // Linear, so that what stands between pixels and slices is known.
            #[expect(clippy::cast_possible_truncation, reason = "HU")]
            let ramp = |p: Vec3| (10.0 + p[0] - 0.5 * p[1] + 2.0 * p[2]) as f32;
            let slabs = drawn(&trace, ramp);
            let slabs: Vec<&[f32]> = slabs.iter().map(Vec::as_slice).collect();
            let reflected = reflect(&trace, &slabs, Some(&plane));
            let expected = drawn(&trace, |p| ramp(plane.mirror(p)));
            // How far beyond the stack the other side lies: in the plane, and above or below.
            #[expect(clippy::cast_possible_truncation, reason = "millimetres")]
            let beyond = |p: Vec3| {
                let [x, y, z] = plane.mirror(p);
                let across = if transposed { -z } else { z };
                (
                    (x.abs().max(y.abs()) - 59.0) as f32,
                    (-across).max(across - 44.0) as f32,
                )
            };
            let beside = drawn(&trace, |p| beyond(p).0);
            let above = drawn(&trace, |p| beyond(p).1);
            let all = reflected.iter().flatten().zip(expected.iter().flatten());
            let places = beside.iter().flatten().zip(above.iter().flatten());
            let (mut seen, mut air) = (0, 0);
            for ((found, expected), (beside, above)) in all.zip(places) {
                if *beside > 0.01 || *above > 4.01 {
                    assert_eq!(*found, AIR_HU);
                    air += 1;
                } else if *beside < -0.01 && *above < -0.01 {
                    assert!((found - expected).abs() < 0.01, "{found} {expected}");
                    seen += 1;
                }
            }
            assert!(seen > 25_000 && air > 5_000, "{seen} {air}");
        }
    }

    #[test]
    fn without_a_plane_there_is_air() {
        let trace = trace(false);
        let slabs = drawn(&trace, |_| 30.0);
        let slabs: Vec<&[f32]> = slabs.iter().map(Vec::as_slice).collect();
        assert!(
            reflect(&trace, &slabs, None)
                .iter()
                .flatten()
                .all(|hu| *hu == AIR_HU)
        );
    }
}
