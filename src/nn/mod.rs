//! Network layers for candle: what U-Nets need, fast on a CPU, and the same on CUDA.
//!
//! A layer looks at the rank of what it is given.
//! Rank 5, `[N, C/16, H, W, 16]`, is the channel-blocked layout of the CPU kernels; [`layout`] makes it once at a network's entry.
//! Rank 4, `[N, C, H, W]`, runs on candle's own operators and so on any device.
//! Both are differentiable and are held to each other by tests.
//! What it does not do yet: 3-D, bf16.

pub mod checkpoint;
pub mod conv;
mod kernels;
pub mod layout;
pub mod network;
pub mod norm;
pub mod parameters;
pub mod residual_unet;
pub mod unet;
mod unet_decoder;
mod unit;

/// The instruction set that the CPU kernels run on: `avx512`, `avx2` or `portable`.
#[must_use]
pub fn instruction_set() -> &'static str {
    kernels::isa().name()
}
