//! One image ↔ overlapping tiles with Gaussian weights.
//!
//! nnU-Net's scheme: steps re-spaced evenly so that the first and last tile touch the border, sigma = patch / 8, weights never zero.
//! Source: Isensee et al., doi:10.1038/s41592-020-01008-z, and nnU-Net v2's `sliding_window_prediction.py`.

/// How an image is cut into tiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    image: [usize; 2],
    /// Rows and columns of a tile.
    pub patch: [usize; 2],
    starts: [Vec<usize>; 2],
    /// Offset of the image in its padded frame: smaller images are centred in a patch.
    pad: [usize; 2],
    weight: Vec<f32>,
}

impl Window {
    /// The tiles of an image of `image` pixels, in patches of `patch`, moved by `step` of a patch.
    #[must_use]
    pub fn new(image: [usize; 2], patch: [usize; 2], step: f64) -> Self {
        let padded = [image[0].max(patch[0]), image[1].max(patch[1])];
        let starts = [0, 1].map(|a| starts(padded[a], patch[a], step));
        let pad = [0, 1].map(|a| (padded[a] - image[a]) / 2);
        Self {
            image,
            patch,
            starts,
            pad,
            weight: gaussian(patch),
        }
    }

    /// Number of tiles.
    #[must_use]
    pub fn tiles(&self) -> usize {
        self.starts[0].len() * self.starts[1].len()
    }

    fn origins(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.starts[0]
            .iter()
            .flat_map(|r| self.starts[1].iter().map(move |c| [*r, *c]))
    }

    /// The image row (column) under row (column) `i` of a tile that starts at `start`, if any.
    fn under(&self, axis: usize, start: usize, i: usize) -> Option<usize> {
        (start + i)
            .checked_sub(self.pad[axis])
            .filter(|at| *at < self.image[axis])
    }

    /// All tiles of an image `[channel][row][column]` one after the other, `[tile][channel][row][column]`; outside the image stands `outside`.
    #[must_use]
    pub fn cut(&self, image: &[f32], channels: usize, outside: f32) -> Vec<f32> {
        let [rows, columns] = self.patch;
        let pixels = self.image[0] * self.image[1];
        let mut out = vec![outside; self.tiles() * channels * rows * columns];
        let mut parts = out.chunks_exact_mut(rows * columns);
        for [r0, c0] in self.origins() {
            for (image, part) in image.chunks_exact(pixels).zip(parts.by_ref()) {
                for r in 0..rows {
                    let Some(y) = self.under(0, r0, r) else { continue };
                    for c in 0..columns {
                        if let Some(x) = self.under(1, c0, c) {
                            part[r * columns + c] = image[y * self.image[1] + x];
                        }
                    }
                }
            }
        }
        out
    }

    /// Tiles of logits, `[tile][class][row][column]`, back to one image `[class][row][column]`.
    #[must_use]
    pub fn merge(&self, logits: &[f32], classes: usize) -> Vec<f32> {
        let [rows, columns] = self.patch;
        let pixels = self.image[0] * self.image[1];
        let mut out = vec![0.0f32; classes * pixels];
        let mut sum = vec![0.0f32; pixels];
        for (tile, [r0, c0]) in logits.chunks_exact(classes * rows * columns).zip(self.origins()) {
            for r in 0..rows {
                let Some(y) = self.under(0, r0, r) else { continue };
                for c in 0..columns {
                    let Some(x) = self.under(1, c0, c) else { continue };
                    let (to, from) = (y * self.image[1] + x, r * columns + c);
                    sum[to] += self.weight[from];
                    for k in 0..classes {
                        out[k * pixels + to] += self.weight[from] * tile[k * rows * columns + from];
                    }
                }
            }
        }
        for class in out.chunks_exact_mut(pixels) {
            for (value, sum) in class.iter_mut().zip(&sum) {
                *value /= sum;
            }
        }
        out
    }
}

/// First pixels of the tiles along one axis.
pub(super) fn starts(len: usize, patch: usize, step: f64) -> Vec<usize> {
    let span = len - patch;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive numbers"
    )]
    {
        let steps = (span as f64 / (patch as f64 * step)).ceil() as usize;
        (0..=steps)
            .map(|i| {
                if steps == 0 {
                    0
                } else {
                    (span as f64 * i as f64 / steps as f64).round_ties_even() as usize
                }
            })
            .collect()
    }
}

/// The importance of each pixel of a tile, greatest in the middle.
fn gaussian([rows, columns]: [usize; 2]) -> Vec<f32> {
    let axis = |n: usize| -> Vec<f64> {
        let (centre, sigma) = ((n as f64 - 1.0) / 2.0, n as f64 / 8.0);
        (0..n)
            .map(|i| (-0.5 * ((i as f64 - centre) / sigma).powi(2)).exp())
            .collect()
    };
    let (by_row, by_column) = (axis(rows), axis(columns));
    // The corners are tiny but never zero, so that every pixel has an answer.
    #[expect(clippy::cast_possible_truncation, reason = "weights are used in f32")]
    by_row
        .iter()
        .flat_map(|r| by_column.iter().map(move |c| (r * c).max(1e-6) as f32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_every_pixel_and_merge_to_what_was_cut(
            rows in 5usize..70, columns in 5usize..70, patch_r in 8usize..40, patch_c in 8usize..40,
        ) {
            let window = Window::new([rows, columns], [patch_r, patch_c], 0.5);
            let image: Vec<f32> = (0..2 * rows * columns).map(|i| (i % 97) as f32).collect();
            let merged = window.merge(&window.cut(&image, 2, -1.0), 2);
            for (a, b) in image.iter().zip(&merged) {
                prop_assert!((a - b).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn the_first_and_last_tile_touch_the_border() {
        assert_eq!(starts(100, 40, 0.5), [0, 20, 40, 60]);
        assert_eq!(starts(64, 64, 0.5), [0]);
        assert_eq!(starts(65, 64, 0.5), [0, 1]);
    }
}
