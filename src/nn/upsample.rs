//! Upsampling by whole factors, nearest and linear, on plain and blocked tensors.
//!
//! An axis after the other: bilinear and trilinear interpolation are products of linear ones.

use super::layout;
use candle_core::{Error, Result, Tensor};

/// An upsampling layer with PyTorch's conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsample {
    /// Repeats values.
    Nearest {
        /// Factor: depth, rows, columns.
        scale: [usize; 3],
    },
    /// Interpolates: bilinear in 2-D, trilinear in 3-D.
    Linear {
        /// Factor: depth, rows, columns.
        scale: [usize; 3],
        /// Whether the outer voxel centres, and not the outer voxel edges, stay in place.
        align_corners: bool,
    },
}

impl Upsample {
    /// Enlarges a plain or a blocked tensor.
    ///
    /// # Errors
    /// candle's, for a rank that is not spatial.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let scale = match *self {
            Self::Nearest { scale } | Self::Linear { scale, .. } => scale,
        };
        let mut y = x.clone();
        for (axis, at) in layout::spatial_axes(x)? {
            if scale[axis] == 1 {
                continue;
            }
            let size = y.dim(at)?;
            let count = size * scale[axis];
            let pick = |picked: Vec<u32>, y: &Tensor| {
                y.contiguous()?
                    .index_select(&Tensor::from_vec(picked, count, y.device())?, at)
            };
            y = match *self {
                Self::Nearest { .. } => {
                    let picked: Vec<u32> = (0..count)
                        .map(|i| index(i / scale[axis]))
                        .collect::<Result<_>>()?;
                    pick(picked, &y)?
                }
                Self::Linear { align_corners, .. } => {
                    let (mut low, mut high, mut share) = (Vec::new(), Vec::new(), Vec::new());
                    for i in 0..count {
                        let (at, fraction) = source(i, size, scale[axis], align_corners);
                        low.push(index(at)?);
                        high.push(index((at + 1).min(size - 1))?);
                        share.push(fraction);
                    }
                    let mut shape = vec![1; y.rank()];
                    shape[at] = count;
                    let share = Tensor::from_vec(share, shape, y.device())?.to_dtype(y.dtype())?;
                    let (low, high) = (pick(low, &y)?, pick(high, &y)?);
                    (&low + (high - &low)?.broadcast_mul(&share)?)?
                }
            };
        }
        y.contiguous()
    }
}

fn index(i: usize) -> Result<u32> {
    u32::try_from(i).map_err(Error::wrap)
}

/// The lower neighbour of output `i` and how far it lies towards the next one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "indices are small and never negative"
)]
fn source(i: usize, size: usize, scale: usize, align_corners: bool) -> (usize, f32) {
    let at = if align_corners {
        i as f64 * (size - 1) as f64 / (size * scale - 1).max(1) as f64
    } else {
        ((i as f64 + 0.5) / scale as f64 - 0.5).max(0.0)
    };
    let low = (at.floor() as usize).min(size - 1);
    (low, (at - low as f64) as f32)
}
