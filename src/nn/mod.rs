//! Network layers for candle in two and three dimensions: what U-Nets need, fast on a CPU, and the same on CUDA.
//!
//! A layer looks at the rank of what it is given.
//! Rank 6, `[N, C/16, D, H, W, 16]`, is the channel-blocked layout of the CPU kernels (depth 1 in 2-D); [`layout`] makes it once at a network's entry.
//! Rank 4, `[N, C, H, W]`, and rank 5, `[N, C, D, H, W]`, run on candle's own operators and so on any device.
//! Both are differentiable and are held to each other by tests.
//! Spatial parameters are always three: depth, rows, columns; in 2-D the first is 1 (0 for a padding).
//! Without gradients the blocked convolutions can multiply bf16 ([`with_bf16`]), opt-in.

pub mod activation;
mod blocked;
pub mod checkpoint;
pub mod conv;
pub mod deepmedic;
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

pub use kernels::{KeepLarge, has_bf16, release, with_bf16};
pub use swin::relative_position_index;

/// The instruction set that the CPU kernels run on: `avx512`, `avx2` or `portable`.
#[must_use]
pub fn instruction_set() -> &'static str {
    kernels::isa().name()
}

#[cfg(test)]
mod tests;
