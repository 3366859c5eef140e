//! Maximum and average pooling, per axis, on plain and blocked tensors.
//!
//! Both are separable: an axis after the other, each a handful of strided slices.
//! Where the largest value is there twice, its gradient is shared.

use super::{layout, plain};
use candle_core::{Error, Result, Tensor};

/// A pooling layer with PyTorch's parameters; averages count the padding, as PyTorch's do by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The largest value of each window.
    Max {
        /// Size of the window: depth, rows, columns.
        kernel: [usize; 3],
        /// Step between windows.
        stride: [usize; 3],
        /// What surrounds the input, both sides of each axis.
        padding: [usize; 3],
    },
    /// The mean of each window.
    Average {
        /// Size of the window: depth, rows, columns.
        kernel: [usize; 3],
        /// Step between windows.
        stride: [usize; 3],
        /// Zeros around the input, both sides of each axis.
        padding: [usize; 3],
    },
}

impl Pool {
    /// Pools a plain or a blocked tensor.
    ///
    /// # Errors
    /// Says which axis is smaller than its window.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (largest, kernel, stride, padding) = match *self {
            Self::Max {
                kernel,
                stride,
                padding,
            } => (true, kernel, stride, padding),
            Self::Average {
                kernel,
                stride,
                padding,
            } => (false, kernel, stride, padding),
        };
        let mut y = x.clone();
        for (axis, at) in layout::spatial_axes(x)? {
            let (kernel, stride, pad) = (kernel[axis], stride[axis], padding[axis]);
            if kernel == 1 && stride == 1 && pad == 0 {
                continue;
            }
            if pad > 0 {
                y = if largest {
                    pad_with(&y, at, pad, f64::NEG_INFINITY)?
                } else {
                    y.pad_with_zeros(at, pad, pad)?
                };
            }
            let size = y.dim(at)?;
            if size < kernel {
                return Err(Error::Msg(format!("a window of {kernel} does not fit an axis of {size}")).bt());
            }
            let count = (size - kernel) / stride + 1;
            let mut sum = plain::strided(&y, at, 0, count, stride)?;
            for tap in 1..kernel {
                let slice = plain::strided(&y, at, tap, count, stride)?;
                sum = if largest {
                    sum.maximum(&slice)?
                } else {
                    (sum + slice)?
                };
            }
            #[expect(clippy::cast_precision_loss, reason = "windows are small")]
            let share = 1.0 / kernel as f64;
            y = if largest { sum } else { (sum * share)? };
        }
        y.contiguous()
    }
}

fn pad_with(x: &Tensor, at: usize, count: usize, value: f64) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    shape[at] = count;
    let side = Tensor::full(value, shape, x.device())?.to_dtype(x.dtype())?;
    Tensor::cat(&[&side, x, &side], at)
}
