//! Two masks on one grid → how far their surfaces lie from each other.
//!
//! A voxel is a block that reaches halfway to its neighbours, also where slices are uneven, and leans where a stack is tilted.
//! The surface of a mask is made of the faces between a voxel inside and one outside, or the end of the grid; each face counts by its area and stands where its centre lies in the patient.
//! So equal masks have distance 0, a slice too much costs the distance to the next slice, and thick slices do not weigh less than thin ones.
//! Nothing is resampled; distances are exact between face centres.
//!
//! Source: normalised surface Dice and the weighting by area as in Nikolov et al., arXiv:1809.04430; the 95th percentile of both directions, the larger of the two.

use crate::domain::{
    geometry::{Vec3, add, norm, scale, sub},
    volume::Geometry,
};
use rayon::prelude::*;

/// A face of the surface.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Face {
    center_mm: Vec3,
    area_mm2: f64,
}

/// How two surfaces lie to each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// Share of both surfaces that lies within the tolerance of the other one.
    pub nsd: f64,
    /// 95th percentile of the distance to the other surface, mm; null when one mask is empty.
    pub hd95_mm: Option<f64>,
}

/// Compares two masks; nothing when both are empty.
#[must_use]
pub fn compare(a: &[bool], b: &[bool], geometry: &Geometry, tolerance_mm: f64) -> Option<Distances> {
    let (a, b) = (faces(a, geometry), faces(b, geometry));
    if a.is_empty() && b.is_empty() {
        return None;
    }
    if a.is_empty() || b.is_empty() {
        return Some(Distances {
            nsd: 0.0,
            hd95_mm: None,
        });
    }
    let (to_b, to_a) = (distances(&a, &b), distances(&b, &a));
    let (mut near, mut all) = (0.0, 0.0);
    for (mm, area) in to_b.iter().chain(&to_a) {
        all += area;
        near += if *mm <= tolerance_mm { *area } else { 0.0 };
    }
    Some(Distances {
        nsd: near / all,
        hd95_mm: Some(percentile(to_b, 0.95).max(percentile(to_a, 0.95))),
    })
}

/// The surface of a mask.
fn faces(mask: &[bool], geometry: &Geometry) -> Vec<Face> {
    let (rows, columns, len) = (geometry.rows, geometry.columns, geometry.slice_len());
    let [row_mm, column_mm] = geometry.pixel_spacing_mm;
    let last = geometry.slices() - 1;
    let mut found = Vec::new();
    for v in (0..mask.len()).filter(|v| mask[*v]) {
        let (s, r, c) = (v / len, v % len / columns, v % columns);
        let extent = geometry.slice_extent_mm(s);
        let (row, column) = (r as f64, c as f64);
        let mut side = |outside: bool, row: f64, column: f64, width: f64| {
            if outside {
                found.push(Face {
                    center_mm: geometry.voxel_to_lps(s, row, column),
                    area_mm2: width * extent,
                });
            }
        };
        side(r == 0 || !mask[v - columns], row - 0.5, column, column_mm);
        side(r + 1 == rows || !mask[v + columns], row + 0.5, column, column_mm);
        side(c == 0 || !mask[v - 1], row, column - 0.5, row_mm);
        side(c + 1 == columns || !mask[v + 1], row, column + 0.5, row_mm);
        let here = geometry.voxel_to_lps(s, row, column);
        let mut cap = |center_mm: Vec3| {
            found.push(Face {
                center_mm,
                area_mm2: row_mm * column_mm,
            });
        };
        let to = |other: usize| scale(add(here, geometry.voxel_to_lps(other, row, column)), 0.5);
        if s == 0 {
            cap(sub(here, scale(geometry.normal(), extent / 2.0)));
        } else if !mask[v - len] {
            cap(to(s - 1));
        }
        if s == last {
            cap(add(here, scale(geometry.normal(), extent / 2.0)));
        } else if !mask[v + len] {
            cap(to(s + 1));
        }
    }
    found
}

/// The distance of each face of `from` to the nearest one of `to`, and its area.
fn distances(from: &[Face], to: &[Face]) -> Vec<(f64, f64)> {
    let tree = Tree::new(to.iter().map(|face| face.center_mm).collect());
    from.par_iter()
        .map(|face| (tree.nearest_mm(face.center_mm), face.area_mm2))
        .collect()
}

/// The distance below which `share` of the area lies.
fn percentile(mut distances: Vec<(f64, f64)>, share: f64) -> f64 {
    distances.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: f64 = distances.iter().map(|d| d.1).sum();
    let mut below = 0.0;
    for (mm, area) in &distances {
        below += area;
        if below >= share * all {
            return *mm;
        }
    }
    distances.last().map_or(0.0, |d| d.0)
}

/// Points in a k-d tree: the median of each range splits it along x, y and z in turn.
struct Tree(Vec<Vec3>);

impl Tree {
    fn new(mut points: Vec<Vec3>) -> Self {
        fn split(points: &mut [Vec3], axis: usize) {
            if points.len() > 1 {
                let middle = points.len() / 2;
                points.select_nth_unstable_by(middle, |a, b| a[axis].total_cmp(&b[axis]));
                let (below, rest) = points.split_at_mut(middle);
                split(below, (axis + 1) % 3);
                split(&mut rest[1..], (axis + 1) % 3);
            }
        }
        split(&mut points, 0);
        Self(points)
    }

    fn nearest_mm(&self, point: Vec3) -> f64 {
        fn search(points: &[Vec3], axis: usize, point: Vec3, best: &mut f64) {
            let middle = points.len() / 2;
            let Some(here) = points.get(middle) else { return };
            *best = best.min(norm(sub(*here, point)));
            let off = point[axis] - here[axis];
            let (below, above) = (&points[..middle], &points[middle + 1..]);
            let (near, far) = if off < 0.0 { (below, above) } else { (above, below) };
            search(near, (axis + 1) % 3, point, best);
            if off.abs() < *best {
                search(far, (axis + 1) % 3, point, best);
            }
        }
        let mut best = f64::INFINITY;
        search(&self.0, 0, point, &mut best);
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;

    /// 6 × 6 pixels of 2 mm, slices at the given heights.
    fn grid(heights_mm: &[f64]) -> Geometry {
        Geometry {
            rows: 6,
            columns: 6,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [2.0, 2.0],
            planes: heights_mm
                .iter()
                .map(|z| SlicePlane {
                    origin_mm: [0.0, 0.0, *z],
                    thickness_mm: 4.0,
                })
                .collect(),
        }
    }

    fn block(geometry: &Geometry, inside: impl Fn(usize, usize, usize) -> bool) -> Vec<bool> {
        let mask = |v: usize| inside(v / 36, v % 36 / 6, v % 6);
        (0..geometry.len()).map(mask).collect()
    }

    #[test]
    fn equal_masks_touch_everywhere_and_empty_ones_nowhere() {
        let grid = grid(&[0.0, 4.0, 9.0]);
        let mask = block(&grid, |s, r, c| s == 1 && r > 1 && c > 2);
        let empty = vec![false; grid.len()];
        let same = compare(&mask, &mask, &grid, 0.0).unwrap();
        assert_eq!((same.nsd, same.hd95_mm), (1.0, Some(0.0)));
        let missed = compare(&mask, &empty, &grid, 2.0).unwrap();
        assert_eq!((missed.nsd, missed.hd95_mm), (0.0, None));
        assert_eq!(compare(&empty, &empty, &grid, 2.0), None);
    }

    #[test]
    fn a_voxel_one_pixel_aside_is_off_by_a_pixel_at_its_ends() {
        // One voxel, 2 × 2 × 4 mm; the other one beside it in the row. They share a face: 8 of 2 · (4 · 8 + 2 · 4) mm² a voxel.
        let grid = grid(&[0.0, 4.0, 8.0]);
        let one = block(&grid, |s, r, c| s == 1 && r == 2 && c == 2);
        let other = block(&grid, |s, r, c| s == 1 && r == 2 && c == 3);
        let found = compare(&one, &other, &grid, 1.0).unwrap();
        assert!((found.nsd - 8.0 / 40.0).abs() < 1e-12, "{found:?}");
        // The far face and the caps are 2 mm from the nearest face of the other.
        assert!((found.hd95_mm.unwrap() - 2.0).abs() < 1e-12, "{found:?}");
        assert_eq!(compare(&one, &other, &grid, 2.0).unwrap().nsd, 1.0);
    }

    #[test]
    fn a_slice_too_much_costs_the_distance_between_faces_of_uneven_slices() {
        // Faces between slices lie at −2, 2, 7 and 13 mm.
        let grid = grid(&[0.0, 4.0, 10.0]);
        let truth = block(&grid, |s, _, _| s == 0);
        let more = block(&grid, |s, _, _| s <= 1);
        let found = compare(&truth, &more, &grid, 4.9).unwrap();
        // Caps: 144 mm² each. Sides: 48 mm of outline times 4 mm (extents 4 and 5 mm).
        let truth_area: f64 = 2.0 * 144.0 + 48.0 * 4.0;
        let more_area = 2.0 * 144.0 + 48.0 * 9.0;
        let faces_of = |mask: &[bool]| faces(mask, &grid).iter().map(|f| f.area_mm2).sum::<f64>();
        assert!((faces_of(&truth) - truth_area).abs() < 1e-9);
        assert!((faces_of(&more) - more_area).abs() < 1e-9);
        assert!(found.nsd < 1.0);
        let wider = compare(&truth, &more, &grid, 5.0).unwrap();
        assert_eq!(
            wider.nsd, 1.0,
            "the caps are 5 mm apart: halfway to uneven neighbours"
        );
        assert!((wider.hd95_mm.unwrap() - 5.0).abs() < 1e-12);
    }

    #[test]
    fn the_tree_finds_what_a_search_of_all_finds() {
        let at = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) >> 8) / 1e5;
        let points: Vec<Vec3> = (0..300).map(|i| [at(i), at(i + 1000), at(i % 7)]).collect();
        let tree = Tree::new(points.clone());
        for i in 0..50 {
            let from = [at(i + 5000), at(i + 6000), at(i + 7000)];
            let all = points.iter().map(|p| norm(sub(*p, from)));
            let expected = all.fold(f64::INFINITY, f64::min);
            assert!((tree.nearest_mm(from) - expected).abs() < 1e-9);
        }
    }
}
