//! Regions of ASPECTS and what is affected → how much of each region, a side of the midsagittal plane at a time.

use crate::domain::{
    aspects::{Aspects, Extent, Region, SideReading},
    midsagittal::MidsagittalPlane,
    volume::Volume,
};

/// Reads the score of both sides, and names the regions of each that are not on the scan.
///
/// `regions` holds places in [`Region::ALL`] from 1; `affected` says of a voxel whether it counts as affected strictly, for the score, and leniently.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::{Geometry, SlicePlane};

    /// One slice of 20 columns of 0.5 mL each for every region, the head's middle between the columns 9 and 10; columns run to the patient's left.
    fn regions() -> Volume<u8> {
        let geometry = Geometry {
            rows: 10,
            columns: 20,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [10.0, 5.0],
            planes: vec![SlicePlane {
                origin_mm: [-47.5, 0.0, 0.0],
                thickness_mm: 10.0,
            }],
        };
        let data = (0..200u8).map(|v| v / 20 + 1).collect();
        Volume { geometry, data }
    }

    fn plane() -> MidsagittalPlane {
        MidsagittalPlane::through([0.0; 3], [1.0, 0.0, 0.0])
    }

    #[test]
    fn each_side_is_scored_by_its_own_regions() {
        // The insula and M5 on the patient's left: a fifth of each strictly, half of them for the score; two fifths of M6 on the right leniently.
        let (aspects, unseen) = read(&regions(), &plane(), |v| {
            let (region, column) = (Region::ALL[v / 20], v % 20);
            match region {
                Region::Insula | Region::M5 => [column >= 18, column >= 15, column >= 15],
                Region::M6 => [false, false, column < 4],
                _ => [false; 3],
            }
        });
        assert_eq!(unseen, [Vec::new(), Vec::new()]);
        let said = |side: &Option<SideReading>| side.as_ref().unwrap().to_string();
        assert_eq!(said(&aspects.left), "8 (8 to 10): I, M5");
        assert_eq!(said(&aspects.right), "10 (9 to 10)");
        let insula = aspects.left.unwrap().regions[3];
        assert_eq!((insula.volume_ml, insula.affected_share), (5.0, 0.5));
    }

    #[test]
    fn a_side_that_lacks_a_region_is_not_scored_and_the_region_is_named() {
        let mut regions = regions();
        for column in 0..10 {
            regions.data[20 * (Region::M4 as usize) + column] = 0;
        }
        let (aspects, unseen) = read(&regions, &plane(), |_| [false; 3]);
        assert_eq!(aspects.left.map(|side| side.score), Some(10));
        assert_eq!(aspects.right, None);
        assert_eq!(unseen, [vec![], vec![Region::M4]]);
    }
}
