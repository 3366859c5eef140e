//! A mask → its connected regions.

use crate::domain::volume::Geometry;

/// A connected region: voxels that touch by a face, an edge or a corner.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Indices into the volume, ascending.
    pub voxels: Vec<usize>,
    /// Sum of its voxels.
    pub volume_ml: f64,
}

/// The connected regions of a mask, in the order of their first voxel.
#[must_use]
pub fn components(mask: &[bool], geometry: &Geometry) -> Vec<Component> {
    let len = geometry.slice_len();
    let mut seen = vec![false; mask.len()];
    let mut found = Vec::new();
    let mut todo = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || seen[start] {
            continue;
        }
        seen[start] = true;
        todo.push(start);
        let mut voxels = Vec::new();
        while let Some(i) = todo.pop() {
            voxels.push(i);
            for j in neighbours(i, geometry) {
                if mask[j] && !seen[j] {
                    seen[j] = true;
                    todo.push(j);
                }
            }
        }
        voxels.sort_unstable();
        let volume_ml = voxels.iter().map(|v| geometry.voxel_volume_ml(v / len)).sum();
        found.push(Component { voxels, volume_ml });
    }
    found
}

/// The voxels that touch a voxel by a face, an edge or a corner, and itself.
pub(super) fn neighbours(voxel: usize, geometry: &Geometry) -> impl Iterator<Item = usize> {
    let (rows, columns) = (geometry.rows, geometry.columns);
    let len = rows * columns;
    let around = |at: usize, count: usize| at.saturating_sub(1)..(at + 2).min(count);
    let (slice, row, column) = (voxel / len, voxel % len / columns, voxel % columns);
    let beside = around(column, columns);
    around(slice, geometry.slices())
        .flat_map(move |s| around(row, rows).map(move |r| s * len + r * columns))
        .flat_map(move |row| beside.clone().map(move |c| row + c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;

    #[test]
    fn regions_that_touch_by_a_corner_are_one_and_volumes_follow_the_slices() {
        let geometry = Geometry {
            rows: 3,
            columns: 3,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [10.0, 10.0],
            planes: [0.0, 4.0, 12.0]
                .map(|z| SlicePlane {
                    origin_mm: [0.0, 0.0, z],
                    thickness_mm: 4.0,
                })
                .to_vec(),
        };
        let mut mask = vec![false; 27];
        mask[0] = true; // slice 0, corner
        mask[9 + 4] = true; // slice 1, middle
        mask[18 + 2] = true; // slice 2, touches the middle by a corner
        let found = components(&mask, &geometry);
        assert_eq!(found.len(), 1);
        assert!((found[0].volume_ml - (0.4 + 0.6 + 0.8)).abs() < 1e-12);
        mask[9 + 4] = false;
        assert_eq!(components(&mask, &geometry).len(), 2);
    }
}
