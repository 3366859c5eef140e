//! The plane that mirrors the brain onto itself: what left and right are measured from.
//!
//! Searched over yaw, roll and offset for the greatest overlap of the brain mask with its mirror image.
//! A head that lies turned in the scanner keeps its own left and right.

use super::{
    geometry::{Vec3, add, dot, norm, scale, sub},
    volume::Volume,
};
use rayon::prelude::*;

/// Brain voxels that are mirrored at each trial.
const SAMPLES: usize = 3000;
/// A head lies within these angles of straight, radians.
const REACH: f64 = 0.45;
/// The plane lies within this distance of the brain's centre of mass, mm.
const SHIFT_MM: f64 = 18.0;
/// Less overlap than this is no symmetry: side stays unknown.
const LEAST_OVERLAP: f64 = 0.75;

/// A plane with its normal towards the patient's left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MidsagittalPlane {
    normal: Vec3,
    point_mm: Vec3,
}

impl MidsagittalPlane {
    /// The plane of a brain mask; `None` when there is too little brain or no symmetry.
    #[must_use]
    pub fn estimate(brain: &Volume<bool>) -> Option<Self> {
        let geometry = &brain.geometry;
        let (len, columns) = (geometry.slice_len(), geometry.columns);
        let inside: Vec<usize> = brain
            .data
            .iter()
            .enumerate()
            .filter_map(|(i, b)| b.then_some(i))
            .collect();
        if inside.len() < SAMPLES {
            return None;
        }
        let points: Vec<Vec3> = (0..SAMPLES)
            .map(|k| {
                let v = inside[k * inside.len() / SAMPLES];
                geometry.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64)
            })
            .collect();
        let center = scale(
            points.iter().fold([0.0; 3], |sum, p| add(sum, *p)),
            1.0 / points.len() as f64,
        );
        let positions = geometry.positions_mm();
        let normal = geometry.normal();
        let is_brain = |p: Vec3| {
            let at = dot(p, normal);
            let above = positions.partition_point(|z| *z < at);
            let nearest = [above.checked_sub(1), (above < positions.len()).then_some(above)]
                .into_iter()
                .flatten()
                .min_by(|a, b| (positions[*a] - at).abs().total_cmp(&(positions[*b] - at).abs()));
            let Some(slice) = nearest else { return false };
            if (positions[slice] - at).abs() > geometry.slice_extent_mm(slice) {
                return false;
            }
            let (r, c, _) = geometry.lps_to_voxel(slice, p);
            let (r, c) = (r.round(), c.round());
            if r < 0.0 || c < 0.0 || r >= geometry.rows as f64 || c >= geometry.columns as f64 {
                return false;
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be an index"
            )]
            brain.data[slice * len + r as usize * columns + c as usize]
        };
        let overlap = |[yaw, roll, shift]: [f64; 3]| {
            let plane = Self::at(center, yaw, roll, shift);
            let hits = points.iter().filter(|p| is_brain(plane.mirror(**p))).count();
            hits as f64 / points.len() as f64
        };
        let mut best = [0.0; 3];
        let mut step = [REACH / 4.0, REACH / 4.0, SHIFT_MM / 4.0];
        let mut best_overlap = 0.0;
        // Coarse to fine: nine trials an axis, then steps of a quarter around the best.
        for _ in 0..3 {
            let trials: Vec<[f64; 3]> = (0..729)
                .map(|i| {
                    let at = |axis: usize, n: i32| best[axis] + f64::from(n - 4) * step[axis];
                    [at(0, i / 81), at(1, i / 9 % 9), at(2, i % 9)]
                })
                .collect();
            let scored = trials.par_iter().map(|t| (overlap(*t), *t)).collect::<Vec<_>>();
            // The first of equals, so that the answer does not depend on threads; of near equals the straightest is first tried.
            let top = scored
                .iter()
                .fold((-1.0, best), |top, s| if s.0 > top.0 { *s } else { top });
            (best_overlap, best) = top;
            step = step.map(|s| s / 4.0);
        }
        (best_overlap >= LEAST_OVERLAP).then(|| Self::at(center, best[0], best[1], best[2]))
    }

    fn at(center: Vec3, yaw: f64, roll: f64, shift: f64) -> Self {
        let normal = [roll.cos() * yaw.cos(), roll.cos() * yaw.sin(), roll.sin()];
        Self {
            normal,
            point_mm: add(center, scale(normal, shift)),
        }
    }

    /// The plane through a point, its normal along `left`.
    #[must_use]
    pub fn through(point_mm: Vec3, left: Vec3) -> Self {
        Self {
            normal: scale(left, 1.0 / norm(left)),
            point_mm,
        }
    }

    /// The point as far on the other side.
    #[must_use]
    pub fn mirror(&self, p: Vec3) -> Vec3 {
        sub(p, self.across(self.left_of_mm(p)))
    }

    /// The direction on the other side.
    #[must_use]
    pub fn mirror_direction(&self, v: Vec3) -> Vec3 {
        sub(v, self.across(dot(v, self.normal)))
    }

    fn across(&self, distance: f64) -> Vec3 {
        scale(self.normal, 2.0 * distance)
    }

    /// Distance from the plane in mm, positive on the patient's left.
    #[must_use]
    pub fn left_of_mm(&self, p: Vec3) -> f64 {
        dot(sub(p, self.point_mm), self.normal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::{Geometry, SlicePlane};

    /// A brain-like ellipsoid, longer than wide, turned by `yaw` and moved.
    fn brain(yaw: f64, shift: Vec3) -> Volume<bool> {
        let geometry = Geometry {
            rows: 128,
            columns: 128,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [2.0, 2.0],
            planes: (0..24)
                .map(|i| SlicePlane {
                    origin_mm: [-128.0, -128.0, f64::from(i) * 5.0],
                    thickness_mm: 5.0,
                })
                .collect(),
        };
        let data = (0..geometry.len())
            .map(|v| {
                let len = geometry.slice_len();
                let p = geometry.voxel_to_lps(v / len, (v % len / 128) as f64, (v % 128) as f64);
                let q = sub(p, shift);
                let (x, y) = (
                    q[0] * yaw.cos() + q[1] * yaw.sin(),
                    q[1] * yaw.cos() - q[0] * yaw.sin(),
                );
                // Wider behind than in front, as a brain is.
                (x / (62.0 + y * 0.15)).powi(2) + (y / 80.0).powi(2) + ((q[2] - 40.0) / 70.0).powi(2) < 1.0
            })
            .collect();
        Volume { geometry, data }
    }

    #[test]
    fn a_turned_and_shifted_head_keeps_its_own_left() {
        for (yaw, x) in [(0.0, 0.0), (0.2, 25.0), (-0.25, -30.0)] {
            let plane = MidsagittalPlane::estimate(&brain(yaw, [x, 5.0, 10.0])).unwrap();
            let left = |d: f64| [x + d * f64::cos(yaw), 5.0 + d * f64::sin(yaw), 50.0];
            for d in [-30.0, -10.0, 10.0, 30.0] {
                assert!(
                    (plane.left_of_mm(left(d)) - d).abs() < 4.0,
                    "{yaw} {d} {}",
                    plane.left_of_mm(left(d))
                );
            }
        }
    }

    #[test]
    fn says_nothing_without_a_brain() {
        let mut none = brain(0.0, [0.0; 3]);
        none.data.fill(false);
        assert_eq!(MidsagittalPlane::estimate(&none), None);
    }
}
