//! `[N, C, H, W]` ↔ `[N, C/16, H, W, 16]`, the last block padded with zero channels.

use super::kernels::BLOCK;
use candle_core::{Device, Result, Tensor};

/// Brings a network's input into the layout that is fastest on its device.
///
/// # Errors
/// candle's, for a tensor that is not of rank 4.
pub fn enter(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    if !matches!(x.device(), Device::Cpu) {
        return Ok(x.clone());
    }
    let blocks = c.div_ceil(BLOCK);
    x.pad_with_zeros(1, 0, blocks * BLOCK - c)?
        .reshape((n, blocks, BLOCK, h, w))?
        .permute((0, 1, 3, 4, 2))?
        .contiguous()
}

/// Brings a network's output of `channels` back to `[N, C, H, W]`.
///
/// # Errors
/// candle's, for a tensor with fewer channels.
pub fn leave(x: &Tensor, channels: usize) -> Result<Tensor> {
    if x.rank() == 4 {
        return Ok(x.clone());
    }
    let (n, blocks, h, w, _) = x.dims5()?;
    x.permute((0, 1, 4, 2, 3))?
        .reshape((n, blocks * BLOCK, h, w))?
        .narrow(1, 0, channels)?
        .contiguous()
}
