//! A placed stack → what a reader should know of its shape: gantry tilt, uneven steps.
//!
//! Both are measured on the origins, not read from GantryDetectorTilt, which vendors sign in different ways and copies keep after a tilt was corrected.
//! Nothing is corrected here: the volume keeps each plane where it is.

use super::{refusal, stack};
use crate::domain::{
    finding::Refusal,
    geometry::{dot, norm, scale, sub},
    volume::Geometry,
};

/// Tilt below this is rounding of origins, degrees.
const LEAST_TILT_DEGREES: f64 = 0.1;
/// Steps that differ by less than this share of the median are even.
const EVEN_SHARE: f64 = 0.02;

/// Angle between the walk of the origins and the normal, degrees.
pub(super) fn tilt_degrees(geometry: &Geometry) -> f64 {
    let walk = stack::walk(geometry);
    let along = dot(walk, geometry.normal());
    let across = norm(sub(walk, scale(geometry.normal(), along)));
    across.atan2(along).to_degrees()
}

/// Warnings about the shape of a stack.
pub(super) fn warnings(geometry: &Geometry) -> Vec<Refusal> {
    let mut warnings = Vec::new();
    let tilt = tilt_degrees(geometry);
    if tilt >= LEAST_TILT_DEGREES {
        warnings.push(refusal(
            "gantry_tilt",
            format!("The slices are sheared by {tilt:.1}°: the origins do not walk along the normal (gantry tilt)."),
        ));
    }
    let positions = geometry.positions_mm();
    let steps: Vec<f64> = positions.windows(2).map(|p| p[1] - p[0]).collect();
    let lowest = steps.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = steps.iter().copied().fold(0.0, f64::max);
    if highest - lowest > EVEN_SHARE * stack::median(&steps) {
        warnings.push(refusal(
            "uneven_spacing",
            format!("The steps between slices are uneven: {lowest:.2} to {highest:.2} mm."),
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;

    fn geometry(degrees: f64, steps: &[f64]) -> Geometry {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let mut z = 0.0;
        let planes = std::iter::once(&0.0).chain(steps).map(|step| {
            z += step;
            SlicePlane {
                origin_mm: [1.0, 2.0, z],
                thickness_mm: 5.0,
            }
        });
        Geometry {
            rows: 2,
            columns: 2,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, cos, -sin],
            pixel_spacing_mm: [1.0, 1.0],
            planes: planes.collect(),
        }
    }

    #[test]
    fn tilt_is_the_angle_between_origins_and_normal() {
        for degrees in [-18.5, 0.0, 18.5] {
            assert!((tilt_degrees(&geometry(degrees, &[5.0, 5.0])) - degrees.abs()).abs() < 1e-6);
        }
    }

    #[test]
    fn names_tilt_and_uneven_steps() {
        let codes = |g: &Geometry| warnings(g).into_iter().map(|w| w.code).collect::<Vec<_>>();
        assert!(codes(&geometry(0.0, &[5.0, 5.0, 5.01])).is_empty());
        assert_eq!(
            codes(&geometry(18.5, &[4.0, 7.0])),
            ["gantry_tilt", "uneven_spacing"]
        );
        let text = &warnings(&geometry(-18.5, &[4.0, 4.0]))[0].text;
        assert!(text.contains("18.5°"), "{text}");
    }
}
