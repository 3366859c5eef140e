//! `src/nn/kernels` and its tests, compiled without candle or anything of the server.

#[path = "../../../src/nn/kernels/mod.rs"]
pub mod kernels;

#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: kernels::KeepLarge = kernels::KeepLarge;
