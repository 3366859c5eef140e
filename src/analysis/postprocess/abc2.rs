//! A connected region → its volume as it is estimated at the bedside, ABC/2.
//!
//! A is the largest diameter in the slice with the largest area, B the largest chord across it at a right angle, C the height:
//! slices with more than three quarters of the largest area count in full, with a quarter or more half, others not.
//! Diameters run from edge to edge of pixels, and a slice is as high as half the distance to both neighbours, so that uneven steps are right.
//! It is an ellipsoid's formula with a shortened height: below the volume of round bleeds, and off in either direction for crescents and scattered blood; the voxel sum is the measurement.
//!
//! Source: Kothari et al., doi:10.1161/01.STR.27.8.1304.

use super::components::Component;
use crate::domain::volume::Geometry;

/// From this share of the largest area on a slice counts in full, and in half.
const SHARES: [f64; 2] = [0.75, 0.25];

/// ABC/2 in mL.
#[must_use]
pub(super) fn abc2_ml(component: &Component, geometry: &Geometry) -> f64 {
    let (len, columns) = (geometry.slice_len(), geometry.columns);
    let mut counts = vec![0usize; geometry.slices()];
    for v in &component.voxels {
        counts[v / len] += 1;
    }
    let Some(largest) = (0..counts.len()).max_by_key(|s| counts[*s]) else {
        return 0.0;
    };
    let weight = |count: usize| {
        let share = count as f64 / counts[largest] as f64;
        match SHARES {
            [full, _] if share > full => 1.0,
            [_, half] if share >= half => 0.5,
            _ => 0.0,
        }
    };
    let height_mm: f64 = (0..counts.len())
        .filter(|s| counts[*s] > 0)
        .map(|s| weight(counts[s]) * geometry.slice_extent_mm(s))
        .sum();
    let pixels: Vec<[usize; 2]> = component
        .voxels
        .iter()
        .filter(|v| **v / len == largest)
        .map(|v| [v % len / columns, v % columns])
        .collect();
    let [length_mm, width_mm] = diameters_mm(&pixels, geometry.pixel_spacing_mm);
    length_mm * width_mm * height_mm / 2000.0
}

/// The largest diameter of pixels (row, column), and the largest chord at a right angle to it.
fn diameters_mm(pixels: &[[usize; 2]], spacing_mm: [f64; 2]) -> [f64; 2] {
    let ends = edges(pixels, spacing_mm);
    let (mut longest, mut along) = (0.0, [0.0, 1.0]);
    for (i, a) in ends.iter().enumerate() {
        for b in &ends[i + 1..] {
            let way = [b[0] - a[0], b[1] - a[1]];
            let length = way[0].hypot(way[1]);
            if length > longest {
                (longest, along) = (length, way.map(|w| w / length));
            }
        }
    }
    // Strips across the diameter, a pixel wide; each chord runs from its first to its last pixel, and half a pixel on.
    let pixel_mm = spacing_mm[0] * along[1].powi(2) + spacing_mm[1] * along[0].powi(2);
    let strip_mm = spacing_mm[0].max(spacing_mm[1]);
    let mut strips: std::collections::BTreeMap<i64, [f64; 2]> = std::collections::BTreeMap::new();
    for [r, c] in pixels {
        let at = [*r as f64 * spacing_mm[0], *c as f64 * spacing_mm[1]];
        let across = at[1] * along[0] - at[0] * along[1];
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred strips")]
        let strip = ((at[0] * along[0] + at[1] * along[1]) / strip_mm).floor() as i64;
        let chord = strips.entry(strip).or_insert([across, across]);
        *chord = [chord[0].min(across), chord[1].max(across)];
    }
    let widest = strips.values().map(|[low, high]| high - low).fold(0.0, f64::max);
    [longest, widest + pixel_mm]
}

/// Corners of pixels among which the farthest pair lies: the outermost of each line between rows, mm.
fn edges(pixels: &[[usize; 2]], spacing_mm: [f64; 2]) -> Vec<[f64; 2]> {
    let mut lines: std::collections::BTreeMap<usize, [usize; 2]> = std::collections::BTreeMap::new();
    for [r, c] in pixels {
        for line in [*r, r + 1] {
            let ends = lines.entry(line).or_insert([*c, c + 1]);
            *ends = [ends[0].min(*c), ends[1].max(c + 1)];
        }
    }
    lines
        .iter()
        .flat_map(|(line, ends)| ends.map(|c| [*line as f64 * spacing_mm[0], c as f64 * spacing_mm[1]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::components::components, *};
    use crate::domain::volume::SlicePlane;

    fn grid(heights_mm: &[f64]) -> Geometry {
        Geometry {
            rows: 80,
            columns: 80,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [1.0, 0.5],
            planes: heights_mm
                .iter()
                .map(|z| SlicePlane {
                    origin_mm: [0.0, 0.0, *z],
                    thickness_mm: 5.0,
                })
                .collect(),
        }
    }

    fn of(geometry: &Geometry, inside: impl Fn(usize, f64, f64) -> bool) -> (f64, f64) {
        let mask: Vec<bool> = (0..geometry.len())
            .map(|v| {
                let (r, c) = ((v % 6400 / 80) as f64, (v % 80) as f64);
                inside(v / 6400, r - 40.0, c / 2.0 - 20.0)
            })
            .collect();
        let found = components(&mask, geometry);
        assert_eq!(found.len(), 1);
        (abc2_ml(&found[0], geometry), found[0].volume_ml)
    }

    #[test]
    fn an_ellipsoid_has_its_diameters_and_its_weighted_height() {
        // Semi-axes 30, 15 and 20 mm, turned in the plane by 30°. Areas at ±2.5, 7.5, 12.5 and 17.5 mm are 1, 0.87, 0.62 and 0.24 of the largest: C is 25 mm.
        let heights: Vec<f64> = (0..12).map(|i| 5.0 * f64::from(i)).collect();
        let (sin, cos) = 30f64.to_radians().sin_cos();
        let (estimate, volume) = of(&grid(&heights), |s, y, x| {
            let z = heights[s] - 27.5;
            let (a, b) = (cos * y + sin * x, cos * x - sin * y);
            (a / 30.0).powi(2) + (b / 15.0).powi(2) + (z / 20.0).powi(2) <= 1.0
        });
        let expected = 60.0 * 30.0 * 25.0 / 2000.0;
        assert!(
            (estimate / expected - 1.0).abs() < 0.03,
            "{estimate}, expected {expected}"
        );
        assert!(
            estimate < volume,
            "the weights take off more than the formula adds"
        );
    }

    #[test]
    fn slices_count_by_their_share_of_the_largest_and_by_their_own_height() {
        // 20 × 10 mm in the slice at 8 mm; half of it at 3 mm, a tenth at 0. Heights 3, 4 and 5 mm: 0 + 4 / 2 + 5.
        let (estimate, _) = of(&grid(&[0.0, 3.0, 8.0]), |s, y, x| {
            let rows = [2.0, 10.0, 20.0][s];
            (0.0..rows).contains(&y) && (0.0..10.0).contains(&x)
        });
        // The largest diameter of a rectangle is its diagonal; the chord across it at a right angle ends at the sides.
        let diagonal = 20f64.hypot(10.0);
        let across = 10.0 * diagonal / 20.0;
        let expected = diagonal * across * 7.0 / 2000.0;
        assert!(
            (estimate / expected - 1.0).abs() < 0.06,
            "{estimate}, expected {expected}"
        );
    }
}
