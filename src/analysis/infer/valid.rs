//! Stage 3 for networks without padding: tiles of answers lie side by side, each from a larger tile of the image, whose edge goes on for ever.
//!
//! Source: blast-ct 2.1.0, `nifti/patch_samplers.py` and `nifti/savers.py`.

use super::{Engine, InferError, bundle::Model};
use crate::domain::network::{Control, VolumeInput};

/// Runs every member and hands its logits on: `[class][first axis][second][third]` of the network's grid.
///
/// # Errors
/// [`InferError::Cancelled`] between tiles, or what the network or `take` said.
pub(super) fn infer<E: From<InferError>>(
    engine: &Engine,
    model: &Model,
    input: &VolumeInput,
    [tile, answer]: [[usize; 3]; 2],
    control: &dyn Control,
    mut take: impl FnMut(Vec<f32>) -> Result<(), E>,
) -> Result<(), E> {
    let plan = &model.plan;
    let classes = plan.configuration.architecture.num_classes();
    let voxels: usize = input.shape.iter().product();
    let counts = [0, 1, 2].map(|a| input.shape[a].div_ceil(answer[a]));
    let tiles: usize = counts.iter().product();
    let total = plan.members * tiles;
    let mut dims = vec![1, input.channels];
    dims.extend(tile);
    let mut done = 0;
    for member in 0..plan.members {
        let mut logits = vec![0.0f32; classes * voxels];
        for place in 0..tiles {
            if control.cancelled() {
                return Err(InferError::Cancelled.into());
            }
            let at = [
                place / (counts[1] * counts[2]),
                place / counts[2] % counts[1],
                place % counts[2],
            ];
            let first: [usize; 3] = std::array::from_fn(|a| at[a] * answer[a]);
            let image = cut(input, first, [tile, answer]);
            let said = engine.forward(&plan.id, member, image, dims.clone())?;
            paste(&said, first, answer, input.shape, &mut logits);
            done += 1;
            control.progress(done, total);
        }
        take(logits)?;
    }
    Ok(())
}

/// The tile of all channels around an answer that begins at `first`.
fn cut(input: &VolumeInput, first: [usize; 3], [tile, answer]: [[usize; 3]; 2]) -> Vec<f32> {
    // Around the same centre, and never outside the image.
    let indices = |a: usize| -> Vec<usize> {
        let centre = first[a] + answer[a] / 2;
        (0..tile[a])
            .map(|i| (centre + i).saturating_sub(tile[a] / 2).min(input.shape[a] - 1))
            .collect()
    };
    let (slices, rows, columns) = (indices(0), indices(1), indices(2));
    let mut out = Vec::with_capacity(input.channels * tile.iter().product::<usize>());
    for channel in input.data.chunks_exact(input.shape.iter().product()) {
        for z in &slices {
            for y in &rows {
                let row = (z * input.shape[1] + y) * input.shape[2];
                out.extend(columns.iter().map(|x| channel[row + x]));
            }
        }
    }
    out
}

/// Puts an answer where it belongs, as far as it lies within the image.
fn paste(said: &[f32], first: [usize; 3], answer: [usize; 3], shape: [usize; 3], logits: &mut [f32]) {
    let kept: [usize; 3] = std::array::from_fn(|a| answer[a].min(shape[a] - first[a]));
    let (voxels, tile): (usize, usize) = (shape.iter().product(), answer.iter().product());
    for (class, said) in logits.chunks_exact_mut(voxels).zip(said.chunks_exact(tile)) {
        for z in 0..kept[0] {
            for y in 0..kept[1] {
                let to = ((first[0] + z) * shape[1] + first[1] + y) * shape[2] + first[2];
                let from = (z * answer[1] + y) * answer[2];
                class[to..to + kept[2]].copy_from_slice(&said[from..from + kept[2]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_cover_the_image_and_tiles_repeat_its_edge() {
        let shape = [2, 3, 5];
        let data: Vec<f32> = (0u8..30).map(f32::from).collect();
        let input = VolumeInput {
            channels: 1,
            shape,
            data: data.clone(),
        };
        let tile = cut(&input, [0, 0, 4], [[1, 1, 6], [1, 1, 2]]);
        // Around column 5, which is beyond the last: columns 2 to 7.
        assert_eq!(tile, [2.0, 3.0, 4.0, 4.0, 4.0, 4.0]);
        let mut logits = vec![-1.0; 30];
        for first in [[0, 0, 0], [0, 0, 3], [0, 2, 0], [0, 2, 3]] {
            let answer = [2, 2, 3];
            let said = cut(&input, first, [answer, answer]);
            paste(&said, first, answer, shape, &mut logits);
        }
        assert_eq!(logits, data);
    }
}
