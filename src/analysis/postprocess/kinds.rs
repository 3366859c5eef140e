//! Labels that are kinds of one thing → labels without crumbs: a region too small to be a finding takes the kind that leads where it lies.
//!
//! A bleed whose kind is uncertain in places would otherwise fall into pieces that are each too small to be told.
//! What is background stays background, and no voxel becomes foreground.

use super::components::components;
use crate::domain::{plan::Label, volume::Volume};

/// The same labels, with each region that is smaller than its label's `min_volume_ml` given to the largest kind of the foreground region around it.
pub(super) fn settle(labels: &Volume<u8>, kinds: &[Label]) -> Volume<u8> {
    let geometry = &labels.geometry;
    let mut settled = labels.clone();
    let mut leading = vec![0u8; labels.data.len()];
    let foreground: Vec<bool> = labels.data.iter().map(|v| *v > 0).collect();
    for region in components(&foreground, geometry) {
        let mut volumes = [0.0f64; 256];
        for v in &region.voxels {
            volumes[usize::from(labels.data[*v])] += geometry.voxel_volume_ml(v / geometry.slice_len());
        }
        let largest =
            (1..=u8::MAX).max_by(|a, b| volumes[usize::from(*a)].total_cmp(&volumes[usize::from(*b)]));
        for v in &region.voxels {
            leading[*v] = largest.unwrap_or(0);
        }
    }
    for kind in kinds {
        let mask: Vec<bool> = labels.data.iter().map(|v| *v == kind.value).collect();
        for crumb in components(&mask, geometry) {
            if crumb.volume_ml < kind.min_volume_ml {
                for v in &crumb.voxels {
                    settled.data[*v] = leading[*v];
                }
            }
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::volume::{Geometry, SlicePlane},
        train::recipe::haemorrhage,
    };

    /// One row of voxels of 0.1 mL.
    fn row(data: &[u8]) -> Volume<u8> {
        Volume {
            geometry: Geometry {
                rows: 1,
                columns: data.len(),
                row_direction: [1.0, 0.0, 0.0],
                column_direction: [0.0, 1.0, 0.0],
                pixel_spacing_mm: [2.0, 5.0],
                planes: vec![SlicePlane {
                    origin_mm: [0.0; 3],
                    thickness_mm: 10.0,
                }],
            },
            data: data.into(),
        }
    }

    #[test]
    fn crumbs_take_the_leading_kind_and_regions_that_are_large_enough_keep_theirs() {
        let kinds = haemorrhage(1).labels;
        let mixed = [[1u8; 6].as_slice(), &[4; 5], &[0, 0]].concat();
        let one = [[1u8; 11].as_slice(), &[0, 0]].concat();
        assert_eq!(settle(&row(&mixed), &kinds).data, one);
        let two = [[1u8; 12].as_slice(), &[2; 11], &[0]].concat();
        assert_eq!(settle(&row(&two), &kinds).data, two);
    }
}
