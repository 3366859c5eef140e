//! Stage 2 for MONAI's chain: channels on one regular grid → the network's input, and the [`VolumeTrace`] that leads back.

use super::{ALONG, PreprocessError};
use crate::domain::{
    from_first,
    network::VolumeInput,
    oriented::{Oriented, Step, Towards},
    resample::Method,
    volume::{Geometry, Volume},
    volume_trace::{Alignment, Part, Turn, VolumeTrace},
};
use std::ops::Range;

/// Most voxels of the network's grid: four times a head CT of 512 × 512 × 256.
const MOST_VOXELS: usize = 1 << 28;

/// Brings channels of one grid to the network; `turn` is how they lie in their file.
pub(super) fn preprocess(
    channels: &[Volume<f32>],
    turn: Turn,
    step_mm: f64,
    grid: &Oriented,
) -> Result<(VolumeInput, VolumeTrace), PreprocessError> {
    let source = channels[0].geometry.clone();
    let (transpose, turn) = match grid.axes().map_err(PreprocessError::Chain)? {
        Some(axes) => orient(&source, axes)?,
        None => ([2, 1, 0], turn),
    };
    let array_mm = [step_mm, source.pixel_spacing_mm[0], source.pixel_spacing_mm[1]];
    let spacing_mm = transpose.map(|axis| array_mm[axis]);
    let mut trace = VolumeTrace {
        source,
        turn,
        transpose,
        crop: [0..0, 0..0, 0..0],
        shape: [0; 3],
        part: None,
        method: Method {
            order: 1,
            apart: None,
        },
        alignment: Alignment::First([1.0; 3]),
    };
    trace.crop = trace.transposed_shape().map(|n| 0..n);
    trace.shape = trace.transposed_shape();
    let mut spaced = false;
    let mut data: Vec<Vec<f32>> = channels.iter().map(|c| trace.cut(&c.data)).collect();
    for step in &grid.steps {
        match *step {
            Step::Spacing { pixdim } => {
                // Across slices that stay as they lie nothing changes.
                let pixdim = [0, 1, 2].map(|a| if pixdim[a] > 0.0 { pixdim[a] } else { spacing_mm[a] });
                let (new, ratio) = from_first::new_shape(trace.shape, spacing_mm, pixdim);
                bounded("Spacingd", new)?;
                for channel in &mut data {
                    *channel = from_first::resample(channel, trace.shape, new, ratio);
                }
                trace.shape = new;
                spaced = true;
                trace.alignment = Alignment::First(ratio.map(|r| 1.0 / r));
            }
            Step::ScaleIntensityRange {
                a_min,
                a_max,
                b_min,
                b_max,
                clip,
            } => data
                .iter_mut()
                .flatten()
                .for_each(|v| *v = scaled(*v, [a_min, a_max], [b_min, b_max], clip)),
            Step::NormalizeIntensity {
                nonzero,
                channel_wise,
            } => {
                if channel_wise {
                    data.iter_mut()
                        .for_each(|channel| normalise(std::slice::from_mut(channel), nonzero));
                } else {
                    normalise(&mut data, nonzero);
                }
            }
            Step::CropForeground {
                margin,
                allow_smaller,
                k_divisible,
            } => {
                let seen = trace.network_shape();
                let (start, size) = foreground(&data, seen, margin, allow_smaller, k_divisible)?;
                bounded("CropForegroundd", size)?;
                if spaced {
                    window(&mut data, &mut trace, start, size, 0.0);
                    continue;
                }
                let kept = [0, 1, 2].map(|a| {
                    let first = usize::try_from(start[a]).ok()?;
                    (first + size[a] <= seen[a]).then_some(first..first + size[a])
                });
                let [Some(a), Some(b), Some(c)] = kept else {
                    return Err(PreprocessError::Chain(
                        "CropForegroundd wants more than the image has, before Spacingd; this build adds to an image only after it"
                            .to_owned(),
                    ));
                };
                let kept = [a, b, c];
                data.iter_mut()
                    .for_each(|channel| *channel = boxed(channel, seen, start, size, 0.0));
                trace.crop = [0, 1, 2].map(|a| shifted(&trace.crop[a], &kept[a]));
                trace.shape = size;
            }
            Step::SpatialPad {
                spatial_size,
                at_end,
                value,
            } => {
                let seen = trace.network_shape();
                let missing = [0, 1, 2].map(|a| spatial_size[a].saturating_sub(seen[a]));
                let before = missing.map(|n| if at_end { 0 } else { n / 2 });
                let start = before.map(|n| 0isize.saturating_sub_unsigned(n));
                let size = [0, 1, 2].map(|a| seen[a] + missing[a]);
                bounded("SpatialPadd", size)?;
                #[expect(clippy::cast_possible_truncation, reason = "the chain's precision")]
                window(&mut data, &mut trace, start, size, value as f32);
            }
        }
    }
    let input = VolumeInput {
        channels: channels.len(),
        shape: trace.network_shape(),
        data: data.concat(),
    };
    Ok((input, trace))
}

/// Refuses a grid that no memory holds.
fn bounded(transform: &str, size: [usize; 3]) -> Result<(), PreprocessError> {
    let voxels = size.iter().try_fold(1usize, |n, length| n.checked_mul(*length));
    if voxels.is_some_and(|n| n <= MOST_VOXELS) {
        return Ok(());
    }
    Err(PreprocessError::Chain(format!(
        "{transform} makes a grid of {size:?} voxels of this scan, at most {MOST_VOXELS} are computed; check that its voxels are in millimetres"
    )))
}

/// A range of a range.
fn shifted(outer: &Range<usize>, inner: &Range<usize>) -> Range<usize> {
    outer.start + inner.start..outer.start + inner.end
}

/// Shows the network a box of what it has been shown so far.
fn window(data: &mut [Vec<f32>], trace: &mut VolumeTrace, start: [isize; 3], size: [usize; 3], value: f32) {
    let part = trace.part.take().unwrap_or_else(|| Part::whole(trace.shape));
    for channel in data {
        *channel = boxed(channel, part.shape, start, size, value);
    }
    trace.part = Some(part.within(start, size));
}

/// The box from `start` on of an array, with `value` where the array is not.
fn boxed(data: &[f32], shape: [usize; 3], start: [isize; 3], size: [usize; 3], value: f32) -> Vec<f32> {
    let mut out = vec![value; size.iter().product()];
    let inner = Part::whole(size).within(start.map(|s| -s), shape);
    let [a, b, c] = &inner.kept;
    if c.is_empty() {
        return out;
    }
    let from = |axis: usize, at: usize| at.saturating_add_signed(inner.first[axis]);
    for x in a.clone() {
        for y in b.clone() {
            let source = (from(0, x) * shape[1] + from(1, y)) * shape[2] + from(2, c.start);
            let to = (x * size[1] + y) * size[2] + c.start;
            out[to..to + c.len()].copy_from_slice(&data[source..source + c.len()]);
        }
    }
    out
}

/// Where the box of what is above 0 in any channel begins, and its size: MONAI's `CropForeground.compute_bounding_box`.
fn foreground(
    channels: &[Vec<f32>],
    shape: [usize; 3],
    margin: [usize; 3],
    allow_smaller: bool,
    k_divisible: [usize; 3],
) -> Result<([isize; 3], [usize; 3]), PreprocessError> {
    let mut found: [Option<(usize, usize)>; 3] = [None; 3];
    for channel in channels {
        for (i, _) in channel.iter().enumerate().filter(|(_, v)| **v > 0.0) {
            let at = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            for (range, at) in found.iter_mut().zip(at) {
                let (low, high) = range.unwrap_or((at, at));
                *range = Some((low.min(at), high.max(at)));
            }
        }
    }
    let (mut start, mut size) = ([0; 3], [0; 3]);
    for a in 0..3 {
        let (low, high) = found[a].ok_or_else(|| {
            PreprocessError::Chain(
                "CropForegroundd found nothing above 0 in the image; a scan was expected".to_owned(),
            )
        })?;
        let mut first = 0isize
            .saturating_add_unsigned(low)
            .saturating_sub_unsigned(margin[a]);
        let mut end = 0isize.saturating_add_unsigned(high + 1 + margin[a]);
        if allow_smaller {
            first = first.max(0);
            end = end.min(0isize.saturating_add_unsigned(shape[a]));
        }
        let length = end.abs_diff(first);
        size[a] = length.next_multiple_of(k_divisible[a]);
        start[a] = first.saturating_sub_unsigned((size[a] - length) / 2);
    }
    Ok((start, size))
}

/// Which array axis (`k, j, i`) is the network's first, second and third, and which are reversed.
fn orient(source: &Geometry, wanted: [Towards; 3]) -> Result<([usize; 3], Turn), PreprocessError> {
    let array = [source.normal(), source.column_direction, source.row_direction];
    let mut found = [(0, false); 3];
    for (at, direction) in found.iter_mut().zip(array) {
        let world = (0..3)
            .find(|w| direction[*w].abs() > ALONG)
            .ok_or(PreprocessError::Oblique)?;
        *at = (world, direction[world] > 0.0);
    }
    let mut transpose = [0; 3];
    let mut reversed = [false; 3];
    for (axis, (world, up)) in transpose.iter_mut().zip(wanted) {
        *axis = (0..3)
            .find(|a| found[*a].0 == world)
            .ok_or(PreprocessError::Oblique)?;
        reversed[*axis] = found[*axis].1 != up;
    }
    let [slices, rows, columns] = reversed;
    let turn = Turn {
        slices,
        rows,
        columns,
    };
    Ok((transpose, turn))
}

/// In single precision, as MONAI's tensors are.
#[expect(clippy::cast_possible_truncation, reason = "the chain's precision")]
fn scaled(value: f32, [a_min, a_max]: [f64; 2], [b_min, b_max]: [f64; 2], clip: bool) -> f32 {
    let unit = (value - a_min as f32) / (a_max - a_min) as f32;
    let scaled = unit * (b_max - b_min) as f32 + b_min as f32;
    if clip {
        scaled.clamp(b_min as f32, b_max as f32)
    } else {
        scaled
    }
}

/// Zero mean and unit deviation (of the population) over all channels together.
#[expect(clippy::cast_possible_truncation, reason = "the chain's precision")]
fn normalise(channels: &mut [Vec<f32>], nonzero: bool) {
    let counts = |v: &f32| !nonzero || *v != 0.0;
    let chosen = || {
        channels
            .iter()
            .flatten()
            .filter(|v| counts(v))
            .map(|v| f64::from(*v))
    };
    let count = chosen().count();
    if count == 0 {
        return;
    }
    let mean = chosen().sum::<f64>() / count as f64;
    let std = (chosen().map(|v| (v - mean).powi(2)).sum::<f64>() / count as f64).sqrt();
    let divisor = if std == 0.0 { 1.0 } else { std };
    for value in channels.iter_mut().flatten().filter(|v| counts(v)) {
        *value = ((f64::from(*value) - mean) / divisor) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;

    /// Rows towards the left, columns towards the back, slices upwards: what an axial DICOM series is.
    fn axial() -> Geometry {
        Geometry {
            rows: 2,
            columns: 3,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [1.0, 1.0],
            planes: (0..2)
                .map(|k| SlicePlane {
                    origin_mm: [0.0, 0.0, f64::from(k)],
                    thickness_mm: 1.0,
                })
                .collect(),
        }
    }

    #[test]
    fn axes_are_turned_to_their_codes_and_an_oblique_stack_is_refused() {
        let turn = |slices, rows, columns| Turn {
            slices,
            rows,
            columns,
        };
        let (l, p, s, r, a) = ((0, true), (1, true), (2, true), (0, false), (1, false));
        assert_eq!(
            orient(&axial(), [l, p, s]).unwrap(),
            ([2, 1, 0], turn(false, false, false))
        );
        assert_eq!(
            orient(&axial(), [r, a, s]).unwrap(),
            ([2, 1, 0], turn(false, true, true))
        );
        assert_eq!(
            orient(&axial(), [s, l, a]).unwrap(),
            ([0, 2, 1], turn(false, true, false))
        );
        let oblique = Geometry {
            row_direction: [ALONG, ALONG, 0.0],
            column_direction: [-ALONG, ALONG, 0.0],
            ..axial()
        };
        assert!(matches!(
            orient(&oblique, [r, a, s]),
            Err(PreprocessError::Oblique)
        ));
    }

    #[test]
    fn the_foreground_has_a_margin_and_a_size_that_can_be_halved() {
        let mut image = vec![0.0; 2 * 3 * 7];
        image[7 + 2] = 1.0;
        image[7 + 4] = 0.5;
        let found = |margin, smaller, k| foreground(&[image.clone()], [2, 3, 7], margin, smaller, k).unwrap();
        assert_eq!(found([0; 3], false, [1; 3]), ([0, 1, 2], [1, 1, 3]));
        assert_eq!(found([1, 0, 3], false, [1; 3]), ([-1, 1, -1], [3, 1, 9]));
        assert_eq!(found([1, 0, 3], true, [1; 3]), ([0, 1, 0], [2, 1, 7]));
        assert_eq!(found([0; 3], false, [2, 1, 8]), ([0, 1, 0], [2, 1, 8]));
        assert_eq!(
            boxed(&[1.0, 2.0, 3.0], [1, 1, 3], [0, 0, -1], [1, 1, 3], 7.0),
            [7.0, 1.0, 2.0]
        );
        assert!(bounded("SpatialPadd", [4096, 4096, 17]).is_err());
        assert!(bounded("SpatialPadd", [512, 512, 512]).is_ok());
        assert!(foreground(&[vec![0.0; 42]], [2, 3, 7], [0; 3], false, [1; 3]).is_err());
    }

    #[test]
    fn zeros_stay_when_only_the_rest_is_normalised() {
        let mut channels = vec![vec![0.0, 2.0], vec![4.0, 0.0]];
        normalise(&mut channels, true);
        assert_eq!(channels, [[0.0, -1.0], [1.0, 0.0]]);
        let mut flat = vec![vec![3.0, 3.0]];
        normalise(&mut flat, false);
        assert_eq!(flat, [[0.0, 0.0]]);
        assert_eq!(scaled(250.0, [0.0, 100.0], [-1.0, 1.0], true), 1.0);
        assert_eq!(scaled(250.0, [0.0, 100.0], [-1.0, 1.0], false), 4.0);
    }
}
