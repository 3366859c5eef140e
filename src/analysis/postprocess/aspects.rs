//! Regions of ASPECTS and what is affected → how much of each region, a side of the midsagittal plane at a time.

use crate::domain::{
    aspects::{Aspects, Extent, Region, SideReading},
    midsagittal::MidsagittalPlane,
    volume::Volume,
};

/// Reads the score of both sides, and names the regions of each that are not on the scan.
///
/// `regions` holds places in [`Region::ALL`] from 1; `affected` says of a voxel whether it is affected surely, is shown so, and may be.
#[must_use]
pub fn read(
    regions: &Volume<u8>,
    plane: &MidsagittalPlane,
    affected: impl Fn(usize) -> [bool; 3],
) -> (Aspects, [Vec<Region>; 2]) {
    let geometry = &regions.geometry;
    let (len, columns) = (geometry.slice_len(), geometry.columns);
    let mut extents = [[Extent::default(); 10]; 2];
    for (v, region) in regions.data.iter().enumerate() {
        let Some(region) = usize::from(*region).checked_sub(1) else {
            continue;
        };
        let place = geometry.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64);
        let ml = geometry.voxel_volume_ml(v / len);
        let extent = &mut extents[usize::from(plane.left_of_mm(place) < 0.0)][region];
        extent.volume_ml += ml;
        for (sum, is) in extent.affected_ml.iter_mut().zip(affected(v)) {
            *sum += if is { ml } else { 0.0 };
        }
    }
    let [left, right] = extents.map(|side| SideReading::of(&side));
    let unseen = [&left, &right].map(|side| side.as_ref().err().cloned().unwrap_or_default());
    let aspects = Aspects {
        left: left.ok(),
        right: right.ok(),
    };
    (aspects, unseen)
}
