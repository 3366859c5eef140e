//! From voxels to the case: one score.

use super::components::neighbours;
use crate::domain::volume::Volume;

/// Scores below this cannot lead to a flag and are not followed.
const LEAST: f32 = 0.05;
/// A voxel that no region holds yet.
const NOWHERE: u32 = u32::MAX;

/// A region as it grows from its strongest voxel down.
#[derive(Debug, Clone, Copy)]
struct Region {
    parent: u32,
    volume_ml: f64,
    moment: f64,
}

/// The score of the strongest lesion: regions grow from their strongest voxels down until they hold together `volume_ml`, and the highest mean among them counts.
///
/// Specks that together have the volume of a lesion but do not touch are none.
/// Only voxels where `counts` is true take part; 0 when no region reaches the volume.
#[must_use]
pub fn strongest_lesion(score: &Volume<f32>, counts: &[bool], volume_ml: f64) -> f64 {
    let geometry = &score.geometry;
    let mut order: Vec<u32> = (0..)
        .zip(score.data.iter().zip(counts))
        .filter(|(_, (value, counts))| **counts && **value >= LEAST)
        .map(|(v, _)| v)
        .collect();
    let at = |v: u32| score.data[v as usize];
    order.sort_unstable_by(|a, b| at(*b).total_cmp(&at(*a)).then(a.cmp(b)));
    let mut region_of = vec![NOWHERE; score.data.len()];
    let mut regions: Vec<Region> = Vec::with_capacity(order.len());
    let mut best = 0.0f64;
    for (index, v) in (0..).zip(order) {
        let voxel = v as usize;
        let ml = geometry.voxel_volume_ml(voxel / geometry.slice_len());
        let mut whole = Region {
            parent: index,
            volume_ml: ml,
            moment: ml * f64::from(at(v)),
        };
        let mut was_lesion = false;
        regions.push(whole);
        region_of[voxel] = index;
        for n in neighbours(voxel, geometry) {
            if region_of[n] == NOWHERE {
                continue;
            }
            let root = root(&mut regions, region_of[n]);
            if root != index {
                let part = regions[root as usize];
                was_lesion |= part.volume_ml >= volume_ml;
                whole.volume_ml += part.volume_ml;
                whole.moment += part.moment;
                regions[root as usize].parent = index;
            }
        }
        regions[index as usize] = whole;
        // What was a lesion before counts already with its stronger part.
        if !was_lesion && whole.volume_ml >= volume_ml {
            best = best.max(whole.moment / whole.volume_ml);
        }
    }
    best
}

fn root(regions: &mut [Region], mut index: u32) -> u32 {
    while regions[index as usize].parent != index {
        let above = regions[regions[index as usize].parent as usize].parent;
        regions[index as usize].parent = above;
        index = above;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::{Geometry, SlicePlane};

    /// Ten by ten voxels of 0.01 mL.
    fn plane(data: Vec<f32>) -> Volume<f32> {
        Volume {
            geometry: Geometry {
                rows: 10,
                columns: 10,
                row_direction: [1.0, 0.0, 0.0],
                column_direction: [0.0, 1.0, 0.0],
                pixel_spacing_mm: [1.0, 1.0],
                planes: vec![SlicePlane {
                    origin_mm: [0.0; 3],
                    thickness_mm: 10.0,
                }],
            },
            data,
        }
    }

    #[test]
    fn the_case_score_is_the_mean_of_the_strongest_lesion_sized_region() {
        // Ten of 1.0 in the first row, one of them outside; ninety of 0.5 below.
        let score = plane((0..100).map(|i| if i < 10 { 1.0 } else { 0.5 }).collect());
        let counts: Vec<bool> = (0..100).map(|i| i != 9).collect();
        assert!((strongest_lesion(&score, &counts, 0.085) - 1.0).abs() < 1e-9);
        assert!((strongest_lesion(&score, &counts, 0.195) - (9.0 + 5.5) / 20.0).abs() < 1e-9);
        assert!((strongest_lesion(&score, &counts, 2.0) - 0.0).abs() < 1e-9);
    }

    #[test]
    fn specks_that_do_not_touch_are_no_lesion() {
        // Twelve strong voxels, none beside another; a weaker block of nine.
        let strong = |i: usize| (i / 10).is_multiple_of(2) && (i % 10).is_multiple_of(3) && i < 60;
        let block = |i: usize| i / 10 >= 7 && i % 10 < 3;
        let value = |i| match i {
            i if strong(i) => 1.0,
            i if block(i) => 0.6,
            _ => 0.0,
        };
        let score = plane((0..100).map(value).collect());
        let everywhere = vec![true; 100];
        assert!((strongest_lesion(&score, &everywhere, 0.005) - 1.0).abs() < 1e-9);
        assert!((strongest_lesion(&score, &everywhere, 0.085) - 0.6).abs() < 1e-6);
        assert!(strongest_lesion(&score, &everywhere, 0.115) < 1e-9);
    }
}
