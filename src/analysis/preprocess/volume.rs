//! Stage 2 for whole-volume plans: channels on one regular grid → nnU-Net's input, and the [`VolumeTrace`] that leads back.
//!
//! In nnU-Net's order: transpose, crop to what is not zero, normalise, resample.
//! Only a regular stack is taken: nnU-Net's grid has one step and no shear, and a mask of another grid would be in the wrong place.
//!
//! Source: nnU-Net v2, `default_preprocessor.py` and `cropping.py`.

use super::{PreprocessError, blast, normalize::normalize, oriented};
use crate::domain::{
    network::VolumeInput,
    plan::{Grid, Plan, Resampling},
    resample::{self, Method},
    resample_labels::resample_labels,
    volume::Volume,
    volume_trace::{Alignment, Turn, VolumeTrace},
};
use rayon::prelude::*;
use std::ops::Range;

/// nnU-Net's label of what is outside the image.
const OUTSIDE: i16 = -1;

/// Brings the channels of a scan onto the grid of a plan with [`Grid::Volume`] or [`Grid::Oriented`].
///
/// `previous` is the label map of the stage before, for a plan that wants one.
///
/// # Errors
/// When the channels are not the plan's, lie on different grids or on no regular one, or hold nothing, or when there is no label map.
pub fn preprocess(
    channels: &[Volume<f32>],
    turn: Turn,
    plan: &Plan,
    previous: Option<&Volume<u8>>,
) -> Result<(VolumeInput, VolumeTrace), PreprocessError> {
    let configuration = &plan.configuration;
    let schemes = &configuration.normalization_schemes;
    if channels.len() != schemes.len() || channels.is_empty() {
        return Err(PreprocessError::ChannelCount {
            found: channels.len(),
            expected: schemes.len(),
            names: configuration.channel_names.join(", "),
        });
    }
    let source = channels[0].geometry.clone();
    if let Some(other) = channels.iter().position(|c| c.geometry != source) {
        return Err(PreprocessError::ChannelGrid(other));
    }
    let step_mm = source.regular_step_mm().ok_or(PreprocessError::Irregular)?;
    if let Grid::Oriented(grid) = &configuration.grid {
        return oriented::preprocess(channels, turn, step_mm, grid);
    }
    if let (Grid::Window { window_hu }, &[a, b, c]) = (&configuration.grid, configuration.spacing.as_slice())
    {
        return blast::preprocess(&channels[0], turn, step_mm, [a, b, c], *window_hu);
    }
    let Grid::Volume {
        transpose_forward,
        use_mask_for_norm,
        resampling_data,
        resampling_probabilities,
        previous_stage,
    } = &configuration.grid
    else {
        return Err(PreprocessError::Dimensions(configuration.spacing.len()));
    };
    for (order, allowed) in [
        (resampling_data.order, [0, 1, 3].as_slice()),
        (resampling_data.order_z, &[0, 1]),
        (resampling_probabilities.order, &[0, 1]),
        (resampling_probabilities.order_z, &[0, 1]),
    ] {
        if !allowed.contains(&order) {
            return Err(PreprocessError::Order(order));
        }
    }
    let array_mm = [step_mm, source.pixel_spacing_mm[0], source.pixel_spacing_mm[1]];
    let spacing_mm = transpose_forward.map(|axis| array_mm[axis]);
    let target_mm = match *configuration.spacing.as_slice() {
        [a, b, c] => [a, b, c],
        // A 2-D plan leaves the slices where they are.
        [b, c] => [spacing_mm[0], b, c],
        _ => return Err(PreprocessError::Dimensions(configuration.spacing.len())),
    };
    let mut trace = VolumeTrace {
        source,
        turn,
        transpose: *transpose_forward,
        crop: [0..0, 0..0, 0..0],
        shape: [0; 3],
        method: Method {
            order: resampling_probabilities.order,
            apart: resample::axis_apart(resampling_probabilities.force_separate_z, target_mm, spacing_mm)
                .map(|axis| (axis, resampling_probabilities.order_z)),
        },
        part: None,
        alignment: Alignment::Edges,
    };
    trace.crop = trace.transposed_shape().map(|n| 0..n);
    let nonzero: Vec<bool> = (0..trace.source.len())
        .into_par_iter()
        .map(|v| channels.iter().any(|channel| channel.data[v] != 0.0))
        .collect();
    trace.crop =
        bounding_box(&trace.cut(&nonzero), trace.transposed_shape()).ok_or(PreprocessError::Empty)?;
    let cropped = trace.cropped_shape();
    trace.shape = resample::new_shape(cropped, spacing_mm, target_mm);
    let shown = match previous_stage {
        Some(stage) => Some((
            stage,
            previous
                .filter(|map| map.geometry == trace.source)
                .ok_or(PreprocessError::PreviousStage)?,
        )),
        None => None,
    };
    let mut mask = (use_mask_for_norm.contains(&true) || shown.is_some())
        .then(|| fill_holes(&trace.cut(&nonzero), cropped));
    let map = shown.map(|(stage, map)| (stage, outside_apart(&trace.cut(&map.data), mask.as_deref_mut())));
    let method = |resampling: &Resampling| Method {
        order: resampling.order,
        apart: resample::axis_apart(resampling.force_separate_z, spacing_mm, target_mm)
            .map(|axis| (axis, resampling.order_z)),
    };
    let mut data = Vec::with_capacity(channels.len() * trace.shape.iter().product::<usize>());
    for (c, (channel, scheme)) in channels.iter().zip(schemes).enumerate() {
        let mut channel = trace.cut(&channel.data);
        let within = mask
            .as_deref()
            .filter(|_| use_mask_for_norm.get(c) == Some(&true));
        normalize(&mut channel, scheme, within);
        data.extend(resample::resample(
            channel,
            cropped,
            trace.shape,
            method(resampling_data),
        ));
    }
    if let Some((stage, map)) = &map {
        let map = resample_labels(map, cropped, trace.shape, method(&stage.resampling));
        for label in &stage.labels {
            data.extend(
                map.iter()
                    .map(|value| f32::from(u8::from(*value == i16::from(*label)))),
            );
        }
    }
    let input = VolumeInput {
        channels: channels.len() + map.map_or(0, |(stage, _)| stage.labels.len()),
        shape: trace.shape,
        data,
    };
    Ok((input, trace))
}

/// A label map in which background outside the image is a label of its own; what the map calls foreground counts as image from here on.
fn outside_apart(map: &[u8], mask: Option<&mut [bool]>) -> Vec<i16> {
    let mut map: Vec<i16> = map.iter().map(|label| i16::from(*label)).collect();
    for (label, inside) in map.iter_mut().zip(mask.into_iter().flatten()) {
        if *label == 0 && !*inside {
            *label = OUTSIDE;
        }
        *inside = *label != OUTSIDE;
    }
    map
}

/// The smallest box that holds every true voxel; none without one.
#[must_use]
pub fn bounding_box(mask: &[bool], [_, rows, columns]: [usize; 3]) -> Option<[Range<usize>; 3]> {
    let mut found: Option<[Range<usize>; 3]> = None;
    for i in mask
        .iter()
        .enumerate()
        .filter_map(|(i, inside)| inside.then_some(i))
    {
        let at = [i / (rows * columns), i / columns % rows, i % columns];
        let bounds = found.get_or_insert_with(|| at.map(|x| x..x + 1));
        for (bound, x) in bounds.iter_mut().zip(at) {
            bound.start = bound.start.min(x);
            bound.end = bound.end.max(x + 1);
        }
    }
    found
}

/// The mask with everything that cannot be reached from outside through faces (scipy's `binary_fill_holes`).
fn fill_holes(mask: &[bool], shape: [usize; 3]) -> Vec<bool> {
    let [n, rows, columns] = shape;
    let mut outside = vec![false; mask.len()];
    let mut open: Vec<usize> = Vec::new();
    let mut reach = |i: usize, open: &mut Vec<usize>| {
        if !mask[i] && !outside[i] {
            outside[i] = true;
            open.push(i);
        }
    };
    let at_border = |i: usize| {
        let at = [i / (rows * columns), i / columns % rows, i % columns];
        (0..3).any(|a| at[a] == 0 || at[a] + 1 == shape[a])
    };
    for i in (0..mask.len()).filter(|i| at_border(*i)) {
        reach(i, &mut open);
    }
    while let Some(i) = open.pop() {
        let (x, y, z) = (i / (rows * columns), i / columns % rows, i % columns);
        let steps = [
            (x > 0, i.wrapping_sub(rows * columns)),
            (x + 1 < n, i + rows * columns),
            (y > 0, i.wrapping_sub(columns)),
            (y + 1 < rows, i + columns),
            (z > 0, i.wrapping_sub(1)),
            (z + 1 < columns, i + 1),
        ];
        for (_, next) in steps.into_iter().filter(|(inside, _)| *inside) {
            reach(next, &mut open);
        }
    }
    outside.into_iter().map(|outside| !outside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_and_bays_are_not() {
        // A ring of five with a gap is a bay; closed, its middle is a hole.
        let shape = [1, 5, 5];
        let ring = |closed: bool| -> Vec<bool> {
            (0..25)
                .map(|i| {
                    let (y, x) = (i / 5, i % 5);
                    let edge = (1..4).contains(&y) && (1..4).contains(&x) && !(y == 2 && x == 2);
                    edge && (closed || (y, x) != (1, 2))
                })
                .collect()
        };
        // In one plane everything is at the border: stack three.
        let stack = |closed: bool| -> Vec<bool> {
            let lid: Vec<bool> = (0..25)
                .map(|i| (1..4).contains(&(i / 5)) && (1..4).contains(&(i % 5)))
                .collect();
            [lid.clone(), ring(closed), lid].concat()
        };
        let middle = 25 + 12;
        assert!(fill_holes(&stack(true), [3, 5, 5])[middle] || shape[0] == 1);
        assert!(!fill_holes(&stack(false), [3, 5, 5])[middle]);
        assert_eq!(bounding_box(&stack(true), [3, 5, 5]), Some([0..3, 1..4, 1..4]));
        assert_eq!(bounding_box(&[false; 8], [2, 2, 2]), None);
    }
}
