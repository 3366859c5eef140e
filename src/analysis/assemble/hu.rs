//! Stored values of a stack → HU.
//!
//! Slope and intercept are each slice's own; padding becomes air; the outcome is finite everywhere.
//! Where it is not certain that the values are HU, the series is refused (`hu_unknown`); nothing is rescaled by guess.
//!
//! Source: PS3.3 sections C.8.2.1.1.2 to C.8.2.1.1.6, C.7.5.1.1.2 and C.11.1; design.md ("HU").
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "HU are computed in f64 and kept in f32, which holds every 16-bit value exactly"
)]

use super::{refusal, stack::Stack};
use crate::{
    dicom::{attribute::Attributes, instance::Instance},
    domain::{finding::Refusal, volume::Volume},
};
use rayon::prelude::*;
use std::ops::RangeInclusive;

/// What padding becomes: the HU of air, as most scanners write outside the field of view.
const PADDING_HU: f32 = -1024.0;
/// What counts as air.
const AIR_HU: RangeInclusive<f32> = -1100.0..=-850.0;
/// What counts as soft tissue or fluid.
const SOFT_HU: RangeInclusive<f32> = 0.0..=80.0;
/// Least share of air: a head fills at most three quarters of a square field of view.
const LEAST_AIR: f64 = 0.005;
/// Least share of soft tissue: a head in a wide field of view still fills several hundredths.
const LEAST_SOFT: f64 = 0.005;

/// Checks in the header whether stored values can become HU.
pub(super) fn check_header(slices: &[(usize, &Attributes)]) -> Result<(), Refusal> {
    let unknown = |text: &str| Err(refusal("hu_unknown", text));
    for (_, a) in slices {
        if a.rescale_slope.is_none_or(|slope| slope == 0.0) || a.rescale_intercept.is_none() {
            return unknown(
                "RescaleSlope or RescaleIntercept is missing or not a number; HU cannot be computed.",
            );
        }
        if a.rescale_type.as_deref().is_some_and(|unit| unit != "HU") {
            return unknown("RescaleType is neither absent nor HU.");
        }
        if a.has_modality_lut {
            return unknown("There is a Modality LUT; expected RescaleSlope and RescaleIntercept alone.");
        }
        if a.photometric_interpretation.as_deref() != Some("MONOCHROME2") {
            return unknown("PhotometricInterpretation is not MONOCHROME2.");
        }
    }
    Ok(())
}

/// Decodes every slice, in parallel, into one volume of HU.
pub(super) fn volume(instances: &[Instance], stack: &Stack) -> Result<Volume<f32>, Vec<Refusal>> {
    let geometry = stack.geometry.clone();
    let mut data = vec![0f32; geometry.len()];
    data.par_chunks_mut(geometry.slice_len())
        .zip(&stack.instances)
        .try_for_each(|(plane, &index)| fill(plane, &instances[index]))
        .map_err(|r| vec![r])?;
    let volume = Volume { geometry, data };
    check_histogram(&volume.data).map_err(|r| vec![r])?;
    Ok(volume)
}

fn fill(plane: &mut [f32], instance: &Instance) -> Result<(), Refusal> {
    let a = &instance.attributes;
    let stored = instance
        .pixels()
        .map_err(|e| refusal("pixels_unreadable", format!("A slice was not read: {e}.")))?;
    let (Some(slope), Some(intercept)) = (a.rescale_slope, a.rescale_intercept) else {
        return Err(refusal(
            "hu_unknown",
            "RescaleSlope or RescaleIntercept is missing.",
        ));
    };
    let padding = padding(a);
    for (hu, value) in plane.iter_mut().zip(stored) {
        *hu = match &padding {
            Some(range) if range.contains(&value) => PADDING_HU,
            _ => (f64::from(value) * slope + intercept) as f32,
        };
    }
    Ok(())
}

/// The stored values that are padding; the limit may lie on either side of the value.
fn padding(a: &Attributes) -> Option<RangeInclusive<i32>> {
    let value = a.pixel_padding_value?;
    let limit = a.pixel_padding_range_limit.unwrap_or(value);
    Some(value.min(limit)..=value.max(limit))
}

/// Refuses values that cannot be HU of a patient in air.
pub(super) fn check_histogram(hu: &[f32]) -> Result<(), Refusal> {
    let share = |range: &RangeInclusive<f32>| {
        let inside = hu.par_iter().filter(|value| range.contains(value)).count();
        inside as f64 / hu.len().max(1) as f64
    };
    let (air, soft) = (share(&AIR_HU), share(&SOFT_HU));
    if air < LEAST_AIR || soft < LEAST_SOFT {
        return Err(refusal(
            "hu_unknown",
            format!(
                "The values do not look like HU: {:.1} % lie near −1000 (air) and {:.1} % between 0 and 80 (soft tissue); expected at least {:.1} % of each.",
                air * 100.0,
                soft * 100.0,
                LEAST_AIR * 100.0,
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_without_air_or_without_tissue_is_refused() {
        let head: Vec<f32> = [vec![-1000.0; 50], vec![35.0; 50]].concat();
        assert!(check_histogram(&head).is_ok());
        let shifted: Vec<f32> = head.iter().map(|hu| hu + 1024.0).collect();
        assert_eq!(check_histogram(&shifted).unwrap_err().code, "hu_unknown");
        assert!(check_histogram(&[-1000.0; 10]).is_err());
    }

    #[test]
    fn the_padding_range_may_be_written_either_way_round() {
        let a = |value, limit| Attributes {
            pixel_padding_value: Some(value),
            pixel_padding_range_limit: limit,
            ..Attributes::default()
        };
        assert_eq!(padding(&a(-1500, None)), Some(-1500..=-1500));
        assert_eq!(padding(&a(-2000, Some(-1100))), Some(-2000..=-1100));
        assert_eq!(padding(&a(-1100, Some(-2000))), Some(-2000..=-1100));
    }
}
