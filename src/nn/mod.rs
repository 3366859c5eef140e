//! Network layers for candle in two and three dimensions: what U-Nets need, fast on a CPU, and the same on CUDA.
//!
//! A layer looks at the rank of what it is given.
//! Rank 6, `[N, C/16, D, H, W, 16]`, is the channel-blocked layout of the CPU kernels (depth 1 in 2-D); [`layout`] makes it once at a network's entry.
//! Rank 4, `[N, C, H, W]`, and rank 5, `[N, C, D, H, W]`, run on candle's own operators and so on any device; on a GPU convolutions and norms are `cuda`'s.
//! Both are differentiable and are held to each other by tests.
//! Spatial parameters are always three: depth, rows, columns; in 2-D the first is 1 (0 for a padding).
//! The blocked convolutions, and those on a GPU, can multiply bf16 ([`with_bf16`]), opt-in, with gradients and without.

pub mod activation;
mod blocked;
pub mod checkpoint;
pub mod conv;
#[cfg(feature = "cuda")]
mod cuda;
pub mod deepmedic;
mod deferred;
mod depthwise;
pub mod efficientnet;
mod kernels;
pub mod layout;
mod monai_block;
pub mod monai_dynunet;
pub mod monai_segresnet;
pub mod monai_swin_unetr;
pub mod monai_unet;
pub mod network;
pub mod norm;
pub mod parameters;
mod plain;
pub mod pool;
pub mod residual_unet;
mod swin;
pub mod unet;
mod unet_decoder;
mod unit;
pub mod upsample;

#[cfg(feature = "cuda")]
pub use cuda::open as open_cuda;
pub use kernels::{KeepLarge, has_bf16, release, with_bf16};
pub use swin::relative_position_index;

use crate::domain::plan::Precision;
use candle_core::{Device, Error, Result};

/// The instruction set that the CPU kernels run on: `avx512`, `avx2` or `portable`.
#[must_use]
pub fn instruction_set() -> &'static str {
    kernels::isa().name()
}

/// Which order of operations the CPU kernels have: another number where the last bits of a layer may be others, so that an analysis of an earlier build is not replayed on this one.
const ARITHMETIC: u32 = 4;

/// How a device computes in a precision: `cpu-{isa}-{dtype}-{arithmetic}` or `cuda-{sm}-{dtype}`, as in `cpu-avx512-f32-4` and `cuda-sm80-bf16`.
///
/// # Errors
/// The GPU driver's.
pub fn numeric_mode(device: &Device, precision: Precision) -> Result<String> {
    let dtype = precision.name();
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let (major, minor) = cuda::capability(device)?;
            Ok(format!("cuda-sm{major}{minor}-{dtype}"))
        }
        _ => Ok(format!("cpu-{}-{dtype}-{ARITHMETIC}", instruction_set())),
    }
}

/// What a device multiplies when a precision is asked for: bf16 only where the machine has it.
///
/// # Errors
/// The GPU driver's.
pub fn precision_on(device: &Device, asked: Precision) -> Result<Precision> {
    let able = match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::capability(device)?.0 >= cuda::BF16_SINCE,
        _ => has_bf16(),
    };
    Ok(if able { asked } else { Precision::F32 })
}

/// Runs `run` with convolutions that multiply what `precision` says; see [`with_bf16`].
pub fn with_precision<R>(precision: Precision, run: impl FnOnce() -> R) -> R {
    match precision {
        Precision::F32 => run(),
        Precision::Bf16 => with_bf16(run),
    }
}

/// Whether a GPU's memory was too small for what failed.
#[must_use]
pub fn is_out_of_memory(error: &Error) -> bool {
    let text = error.to_string();
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUDNN_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|code| text.contains(code))
}

#[cfg(test)]
mod tests;
