//! A stack as a scanner laid it → an even, straight grid that one affine describes, for formats that have nothing else.
//!
//! A stack that is even already is handed back untouched.
//! The slices keep their plane; the new ones follow each other along the normal, in steps of the median step, and the plane
//! grows by as much as the old slices walk sideways.
//! What the stack does not cover is air.
//!
//! Source: PS3.3 section C.7.6.2.1.1 (the image plane equation).

use crate::domain::{
    geometry::{Vec3, add, dot, scale, sub},
    volume::{Geometry, SlicePlane, Volume},
};
use rayon::prelude::*;

/// HU of what the stack does not cover.
const AIR_HU: f32 = -1024.0;

/// The images and a mask or labels on them, on an even grid, and whether that is another one than before.
///
/// HU are interpolated linearly, a label comes from its nearest voxel.
#[must_use]
pub fn even<T: Copy + Default + Send + Sync>(
    ct: Volume<f32>,
    mask: Volume<T>,
) -> (Volume<f32>, Volume<T>, bool) {
    let source = &ct.geometry;
    if source.slices() < 2 || source.regular_step_mm().is_some() {
        return (ct, mask, false);
    }
    let grid = grid(source);
    let positions = source.positions_mm();
    let len = grid.slice_len();
    let (mut hu, mut inside) = (vec![AIR_HU; grid.len()], vec![T::default(); grid.len()]);
    hu.par_chunks_mut(len)
        .zip(inside.par_chunks_mut(len))
        .enumerate()
        .for_each(|(k, (hu, inside))| {
            let (below, above, share) = between(&positions, dot(grid.planes[k].origin_mm, grid.normal()));
            let nearest = if share < 0.5 { below } else { above };
            for v in 0..len {
                let (row, column) = (v / grid.columns, v % grid.columns);
                let point = grid.voxel_to_lps(k, index(row), index(column));
                if let (Some(low), Some(high)) = (bilinear(&ct, below, point), bilinear(&ct, above, point)) {
                    hu[v] = low + (high - low) * share;
                }
                let (row, column, _) = source.lps_to_voxel(nearest, point);
                inside[v] = voxel(source, row, column).map_or(T::default(), |at| mask.slice(nearest)[at]);
            }
        });
    let straight = Volume {
        geometry: grid.clone(),
        data: hu,
    };
    let inside = Volume {
        geometry: grid,
        data: inside,
    };
    (straight, inside, true)
}

fn index(at: usize) -> f64 {
    f64::from(u32::try_from(at).unwrap_or(u32::MAX))
}

/// The even grid that holds a stack.
fn grid(source: &Geometry) -> Geometry {
    let positions = source.positions_mm();
    let step_mm = source.median_step_mm();
    let span_mm = positions[positions.len() - 1] - positions[0];
    let [row_mm, column_mm] = source.pixel_spacing_mm;
    // Where the slices begin in the plane, in pixels of the first one.
    let first = source.planes[0].origin_mm;
    let starts = source.planes.iter().map(|plane| {
        let offset = sub(plane.origin_mm, first);
        [
            dot(offset, source.column_direction) / row_mm,
            dot(offset, source.row_direction) / column_mm,
        ]
    });
    let starts: Vec<[f64; 2]> = starts.collect();
    let reach = |axis: usize| {
        let values = || starts.iter().map(|start| start[axis]);
        (
            values().fold(0.0, f64::min).floor(),
            values().fold(0.0, f64::max).ceil(),
        )
    };
    let ((top, bottom), (left, right)) = (reach(0), reach(1));
    let origin = add(
        first,
        add(
            scale(source.column_direction, top * row_mm),
            scale(source.row_direction, left * column_mm),
        ),
    );
    let normal = source.normal();
    let count = whole((span_mm / step_mm).round()) + 1;
    Geometry {
        rows: source.rows + whole(bottom - top),
        columns: source.columns + whole(right - left),
        planes: (0..count)
            .map(|k| SlicePlane {
                origin_mm: add(origin, scale(normal, step_mm * index(k))),
                thickness_mm: step_mm,
            })
            .collect(),
        ..source.clone()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of voxels, not negative"
)]
fn whole(value: f64) -> usize {
    value.max(0.0) as usize
}

/// The slices around a position along the normal, and how far from the lower to the upper one it lies.
///
/// The last plane of the grid may lie half a step beyond the stack; it shows the end of the stack.
fn between(positions: &[f64], at_mm: f64) -> (usize, usize, f32) {
    let last = positions.len() - 1;
    let at_mm = at_mm.min(positions[last]);
    let above = positions.iter().position(|position| *position >= at_mm);
    let above = above.unwrap_or(last).max(1);
    let (low, high) = (positions[above - 1], positions[above]);
    #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
    let share = ((at_mm - low) / (high - low)).clamp(0.0, 1.0) as f32;
    (above - 1, above, share)
}

/// The pixel that a place on a slice falls into; none outside.
fn voxel(source: &Geometry, row: f64, column: f64) -> Option<usize> {
    let (row, column) = (row.round(), column.round());
    let within = row >= 0.0 && column >= 0.0 && row < index(source.rows) && column < index(source.columns);
    within.then(|| whole(row) * source.columns + whole(column))
}

/// HU at the foot of a point on a slice; none outside.
fn bilinear(ct: &Volume<f32>, slice: usize, point_mm: Vec3) -> Option<f32> {
    let source = &ct.geometry;
    let (row, column, _) = source.lps_to_voxel(slice, point_mm);
    voxel(source, row, column)?;
    let (row, column) = (
        row.clamp(0.0, index(source.rows - 1)),
        column.clamp(0.0, index(source.columns - 1)),
    );
    let (r, c) = (whole(row), whole(column));
    let (r1, c1) = ((r + 1).min(source.rows - 1), (c + 1).min(source.columns - 1));
    #[expect(clippy::cast_possible_truncation, reason = "shares between 0 and 1")]
    let (fr, fc) = (row.fract() as f32, column.fract() as f32);
    let at = |row: usize, column: usize| ct.slice(slice)[row * source.columns + column];
    let low = at(r, c) + (at(r, c1) - at(r, c)) * fc;
    let high = at(r1, c) + (at(r1, c1) - at(r1, c)) * fc;
    Some(low + (high - low) * fr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::geometry::norm;

    /// Slices of 40 × 40 pixels of 2 mm, 3 mm apart but for one step, each `walk_mm` further along the columns; HU are
    /// 10 a millimetre along each direction of the patient.
    fn stack(walk_mm: f64, odd_step_mm: f64) -> (Volume<f32>, Volume<bool>) {
        let mut z = 0.0;
        let planes: Vec<SlicePlane> = (0..12)
            .map(|k| {
                if k > 0 {
                    z += if k == 5 { odd_step_mm } else { 3.0 };
                }
                SlicePlane {
                    origin_mm: [0.0, walk_mm * f64::from(k), z],
                    thickness_mm: 3.0,
                }
            })
            .collect();
        let geometry = Geometry {
            rows: 40,
            columns: 40,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [2.0, 2.0],
            planes,
        };
        let points: Vec<Vec3> = (0..geometry.len())
            .map(|v| {
                let (k, pixel) = (v / 1600, v % 1600);
                geometry.voxel_to_lps(k, index(pixel / 40), index(pixel % 40))
            })
            .collect();
        let ct = Volume {
            geometry: geometry.clone(),
            data: points.iter().map(|[x, y, z]| hu(*x, *y, *z)).collect(),
        };
        let ball = |p: &Vec3| norm(sub(*p, [40.0, 50.0, 16.0])) < 9.0;
        let mask = Volume {
            geometry,
            data: points.iter().map(ball).collect(),
        };
        (ct, mask)
    }

    #[expect(clippy::cast_possible_truncation, reason = "small")]
    fn hu(x: f64, y: f64, z: f64) -> f32 {
        (10.0 * (x + y + z)) as f32
    }

    /// Of the volume that is inside: slices of an uneven stack stand for unequal shares of the head.
    fn middle(mask: &Volume<bool>) -> Vec3 {
        let grid = &mask.geometry;
        let (mut sum, mut volume) = ([0.0; 3], 0.0);
        for (v, _) in mask.data.iter().enumerate().filter(|(_, inside)| **inside) {
            let (k, pixel) = (v / grid.slice_len(), v % grid.slice_len());
            let at = grid.voxel_to_lps(k, index(pixel / grid.columns), index(pixel % grid.columns));
            let share = grid.slice_extent_mm(k);
            sum = add(sum, scale(at, share));
            volume += share;
        }
        scale(sum, 1.0 / volume)
    }

    #[test]
    fn an_even_stack_is_left_as_it_is() {
        let (ct, mask) = stack(0.0, 3.0);
        let (same, still, moved) = even(ct.clone(), mask.clone());
        assert!(!moved && same == ct && still == mask);
    }

    #[test]
    fn density_and_mask_of_a_tilted_and_an_uneven_stack_stay_where_they_are_in_the_patient() {
        for (walk_mm, odd_step_mm) in [(1.0, 3.0), (-0.7, 3.0), (0.0, 4.2), (0.9, 2.1)] {
            let (ct, mask) = stack(walk_mm, odd_step_mm);
            let (straight, inside, moved) = even(ct, mask.clone());
            assert!(moved);
            let grid = &straight.geometry;
            assert_eq!(grid.regular_step_mm(), Some(3.0));
            let mut seen = 0;
            for v in 0..grid.len() {
                let (k, pixel) = (v / grid.slice_len(), v % grid.slice_len());
                let [x, y, z] =
                    grid.voxel_to_lps(k, index(pixel / grid.columns), index(pixel % grid.columns));
                if straight.data[v] > AIR_HU {
                    // Half a pixel beyond the last one keeps its value.
                    let off = (straight.data[v] - hu(x, y, z)).abs();
                    assert!(off <= 10.5, "{x} {y} {z}: {off}");
                    seen += usize::from(off < 0.1);
                }
            }
            assert!(seen > 12 * 1600 * 8 / 10, "{seen}");
            let away = norm(sub(middle(&inside), middle(&mask)));
            assert!(away < 0.8, "{walk_mm} {odd_step_mm}: {away} mm");
            assert!(nifti_is_exact(grid));
        }
    }

    fn nifti_is_exact(grid: &Geometry) -> bool {
        let steps: Vec<Vec3> = grid
            .planes
            .windows(2)
            .map(|p| sub(p[1].origin_mm, p[0].origin_mm))
            .collect();
        steps.iter().all(|step| norm(sub(*step, steps[0])) < 1e-9)
    }
}
