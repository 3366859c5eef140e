//! Whether the slices of one request look like a whole head, so that nobody need wait for more.
//!
//! This only saves the quiet time: a series that is taken for whole too early gets a revision with its late slices,
//! and one that is not taken for whole is analysed after the quiet time all the same.
//! Whether slices are missing for the analysis is `assemble`'s judgement, which is stricter.

use crate::{
    dicom::attribute::Attributes,
    domain::geometry::{Vec3, cross, dot},
};

/// Least extent along the normal: an adult brain from skull base to vertex measures 120 to 140 mm.
const HEAD_MM: f64 = 100.0;
/// A larger step, in local slice thicknesses, leaves a gap (design.md, Geometry).
const STEP_RATIO: f64 = 1.5;
/// Fewer slices are a scout or a stack over one lesion.
const MIN_SLICES: usize = 10;

/// Whether the slices cover a head without a gap.
pub(super) fn covers_a_head(slices: &[&Attributes]) -> bool {
    let Some(normal) = slices.first().and_then(|slice| normal(slice)) else {
        return false;
    };
    let mut places: Vec<(f64, f64)> = slices
        .iter()
        .filter_map(|slice| {
            let place = dot(slice.image_position_patient?, normal);
            Some((
                place,
                slice.slice_thickness.filter(|mm| mm.is_finite() && *mm > 0.0)?,
            ))
        })
        .collect();
    if places.len() < MIN_SLICES || places.len() < slices.len() {
        return false;
    }
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    let gapless = places
        .windows(2)
        .all(|pair| pair[1].0 - pair[0].0 <= STEP_RATIO * pair[0].1.max(pair[1].1));
    gapless && places[places.len() - 1].0 - places[0].0 >= HEAD_MM
}

fn normal(slice: &Attributes) -> Option<Vec3> {
    let [rx, ry, rz, cx, cy, cz] = slice.image_orientation_patient?;
    Some(cross([rx, ry, rz], [cx, cy, cz]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(places: impl Iterator<Item = f64>, thickness: f64) -> Vec<Attributes> {
        places
            .map(|z| Attributes {
                image_position_patient: Some([0.0, 0.0, z]),
                image_orientation_patient: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
                slice_thickness: Some(thickness),
                ..Attributes::default()
            })
            .collect()
    }

    fn judge(slices: &[Attributes]) -> bool {
        covers_a_head(&slices.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_stack_without_a_gap_over_a_head_is_whole_in_any_order() {
        let mut slices = stack((0..30).map(|i| f64::from(i) * 5.0), 5.0);
        slices.swap(3, 20);
        assert!(judge(&slices));
    }

    #[test]
    fn a_gap_a_short_stack_or_a_scout_is_not_whole() {
        assert!(!judge(&stack(
            (0..30).filter(|i| *i != 12).map(|i| f64::from(i) * 5.0),
            5.0
        )));
        assert!(!judge(&stack((0..15).map(|i| f64::from(i) * 5.0), 5.0)));
        assert!(!judge(&stack((0..2).map(|i| f64::from(i) * 500.0), 500.0)));
        assert!(!judge(&[]));
    }
}
