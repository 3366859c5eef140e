//! Stage 2 as BLAST-CT does it: axes to the left, the back and the head, linear resampling, a window of HU.
//!
//! An axis that the file runs the other way is turned by resampling, in BLAST-CT one voxel beside its place: the first voxel is then the image's least value, the file's first one is lost, and the answer comes back the same way.
//! SimpleITK keeps the type of the file's numbers: where all are integers, so is what lies between them, cut off towards 0.
//!
//! Source: blast-ct 2.1.0, `nifti/rescale.py`, `nifti/datasets.py` and `nifti/savers.py`, run and compared.

use super::{ALONG, PreprocessError};
use crate::domain::{
    network::VolumeInput,
    resample::Method,
    volume::Volume,
    volume_trace::{Alignment, Turn, VolumeTrace},
};

/// From the border of the last voxel on nothing is inside, for SimpleITK.
const BORDER: f64 = 0.5;

/// The neighbours of a place along one axis and their shares; none outside.
type Tap = Option<[(usize, f64); 2]>;

/// Brings a CT to the grid of `target_mm`; `turn` is how it lies in its file.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of arrays, far below 2^52, and values in single precision"
)]
pub(super) fn preprocess(
    ct: &Volume<f32>,
    turn: Turn,
    step_mm: f64,
    target_mm: [f64; 3],
    [low, high]: [f64; 2],
) -> Result<(VolumeInput, VolumeTrace), PreprocessError> {
    let source = ct.geometry.clone();
    let spacing_mm = [step_mm, source.pixel_spacing_mm[0], source.pixel_spacing_mm[1]];
    // Slices along z, rows along y, columns along x, as an axial file has them.
    let along = [
        source.normal()[2],
        source.column_direction[1],
        source.row_direction[0],
    ];
    if along.iter().any(|cosine| cosine.abs() <= ALONG) {
        return Err(PreprocessError::Oblique);
    }
    let reversed = along.map(|cosine| cosine < 0.0);
    let in_file = [turn.slices, turn.rows, turn.columns];
    let beside: [usize; 3] = std::array::from_fn(|a| usize::from(reversed[a] != in_file[a]));
    let mut trace = VolumeTrace {
        turn: Turn {
            slices: reversed[0],
            rows: reversed[1],
            columns: reversed[2],
        },
        transpose: [0, 1, 2],
        crop: [0..source.slices(), 0..source.rows, 0..source.columns],
        shape: [0; 3],
        method: Method {
            order: 0,
            apart: None,
        },
        part: None,
        alignment: Alignment::Edges,
        source,
    };
    let shape = trace.transposed_shape();
    let data = trace.cut(&ct.data);
    let least = data.iter().copied().fold(f32::INFINITY, f32::min);
    let whole = data.iter().all(|value| value.fract() == 0.0);
    trace.shape = std::array::from_fn(|a| {
        ((shape[a] - 1) as f64 * spacing_mm[a] / target_mm[a] + 1.0).round_ties_even() as usize
    });
    let ratio: [f64; 3] = std::array::from_fn(|a| spacing_mm[a] / target_mm[a]);
    // What the turned image holds: one voxel beside, and the least value before.
    let at = |place: [usize; 3]| {
        let mut index = [0; 3];
        for a in 0..3 {
            match place[a].checked_sub(beside[a]) {
                Some(inside) => index[a] = inside,
                None => return least,
            }
        }
        data[(index[0] * shape[1] + index[1]) * shape[2] + index[2]]
    };
    let taps: [Vec<Tap>; 3] = std::array::from_fn(|a| {
        let last = (shape[a] - 1) as f64;
        (0..trace.shape[a])
            .map(|o| {
                let x = o as f64 / ratio[a];
                (x <= last + BORDER).then(|| {
                    let x = x.min(last);
                    let share = x - x.floor();
                    let next = (x.floor() + 1.0).min(last) as usize;
                    [(x.floor() as usize, 1.0 - share), (next, share)]
                })
            })
            .collect()
    });
    let (low, high) = (low as f32, high as f32);
    let mut out = Vec::with_capacity(trace.shape.iter().product());
    for z in &taps[0] {
        for y in &taps[1] {
            for x in &taps[2] {
                let value = match (z, y, x) {
                    (Some(z), Some(y), Some(x)) => {
                        let mut sum = 0.0;
                        for (k, a) in z {
                            for (j, b) in y {
                                for (i, c) in x {
                                    sum += a * b * c * f64::from(at([*k, *j, *i]));
                                }
                            }
                        }
                        if whole { sum.trunc() as f32 } else { sum as f32 }
                    }
                    _ => least,
                };
                out.push((2.0 * value.clamp(low, high) - low - high) / (high - low));
            }
        }
    }
    for a in 0..3 {
        // What lies beyond the network's grid is background.
        let inside = (0..shape[a])
            .take_while(|v| (v + beside[a]) as f64 * ratio[a] <= (trace.shape[a] - 1) as f64 + BORDER);
        trace.crop[a] = 0..inside.count();
    }
    trace.alignment = Alignment::Nearest {
        ratio,
        beside: beside.map(|n| n as f64),
    };
    let input = VolumeInput {
        channels: 1,
        shape: trace.shape,
        data: out,
    };
    Ok((input, trace))
}
