//! Values of an image → network input, as nnU-Net's normalisation schemes do it.
//!
//! Source: nnU-Net v2, `default_normalization_schemes.py`.

use super::PreprocessError;
use crate::domain::plan::Normalization;

/// Nothing is divided by less than this.
const SMALLEST_DIVISOR: f64 = 1e-8;

/// Normalises an image in place; `mask` says where statistics are taken and z-scores applied, everywhere when it is `None`.
#[expect(clippy::cast_possible_truncation, reason = "network input is f32")]
pub fn normalize(image: &mut [f32], scheme: &Normalization, mask: Option<&[bool]>) {
    match *scheme {
        Normalization::CTNormalization {
            lower_hu,
            upper_hu,
            mean_hu,
            std_hu,
        } => {
            let divisor = std_hu.max(SMALLEST_DIVISOR);
            for value in image {
                *value = ((f64::from(*value).clamp(lower_hu, upper_hu) - mean_hu) / divisor) as f32;
            }
        }
        Normalization::ZScoreNormalization => {
            let within = |i: usize| mask.is_none_or(|mask| mask[i]);
            let (mean, std) = statistics(image, within);
            let divisor = std.max(SMALLEST_DIVISOR);
            for (i, value) in image.iter_mut().enumerate() {
                if within(i) {
                    *value = ((f64::from(*value) - mean) / divisor) as f32;
                }
            }
        }
        Normalization::NoNormalization => {}
        Normalization::RescaleTo01Normalization => {
            let low = image.iter().copied().fold(f32::INFINITY, f32::min);
            let high = image.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let range = f64::from(high - low).max(SMALLEST_DIVISOR);
            for value in image {
                *value = (f64::from(*value - low) / range) as f32;
            }
        }
        Normalization::RGBTo01Normalization => image.iter_mut().for_each(|value| *value /= 255.0),
    }
}

/// Mean and standard deviation (of the population) of the values that count.
fn statistics(image: &[f32], within: impl Fn(usize) -> bool) -> (f64, f64) {
    let chosen = || {
        (0..image.len())
            .filter(|i| within(*i))
            .map(|i| f64::from(image[i]))
    };
    let count = chosen().count().max(1) as f64;
    let mean = chosen().sum::<f64>() / count;
    let variance = chosen().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The one scheme that means the same slice by slice.
///
/// # Errors
/// [`PreprocessError::Normalization`] for schemes that need the statistics of the whole image.
pub(super) fn by_slice(scheme: &Normalization) -> Result<&Normalization, PreprocessError> {
    match scheme {
        Normalization::CTNormalization { .. } | Normalization::NoNormalization => Ok(scheme),
        _ => Err(PreprocessError::Normalization),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_do_what_nnunet_says() {
        let ct = Normalization::CTNormalization {
            lower_hu: 0.0,
            upper_hu: 80.0,
            mean_hu: 40.0,
            std_hu: 20.0,
        };
        let run = |scheme: &Normalization, mask: Option<&[bool]>| {
            let mut image = vec![-10.0, 0.0, 40.0, 100.0];
            normalize(&mut image, scheme, mask);
            image
        };
        assert_eq!(run(&ct, None), [-2.0, -2.0, 0.0, 2.0]);
        let mask = [false, true, true, false];
        assert_eq!(
            run(&Normalization::ZScoreNormalization, Some(&mask)),
            [-10.0, -1.0, 1.0, 100.0]
        );
        assert_eq!(run(&Normalization::RescaleTo01Normalization, None)[3], 1.0);
        assert_eq!(run(&Normalization::RescaleTo01Normalization, None)[0], 0.0);
        assert_eq!(run(&Normalization::NoNormalization, None)[3], 100.0);
        assert!((run(&Normalization::RGBTo01Normalization, None)[3] - 100.0 / 255.0).abs() < 1e-7);
    }
}
