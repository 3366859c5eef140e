//! `[N, C, (D), H, W]` ↔ `[N, C/16, D, H, W, 16]`, the last block padded with zero channels.
//!
//! In two dimensions the blocked depth is 1.
//! What the unused lanes of the last block hold after a layer is not defined: every layer reads only channels that exist.

use super::{
    blocked::{Enter, Leave},
    kernels::BLOCK,
};
use candle_core::{DType, Device, Error, Result, Tensor};

/// Whether a tensor is in the blocked layout.
#[must_use]
pub fn is_blocked(x: &Tensor) -> bool {
    x.rank() == 6
}

/// Brings a network's input into the layout that is fastest on its device: blocked for f32 on a CPU, as it is elsewhere.
///
/// # Shape
/// `[N, C, H, W]` or `[N, C, D, H, W]` → `[N, C/16, D, H, W, 16]`.
///
/// # Errors
/// Says which shape was found if it is of neither rank.
pub fn enter(x: &Tensor) -> Result<Tensor> {
    let deep = match x.rank() {
        4 => x.unsqueeze(2)?,
        5 => x.clone(),
        _ => {
            return Err(Error::Msg(format!(
                "a network's input is [N, C, H, W] or [N, C, D, H, W], found shape {:?}",
                x.dims()
            ))
            .bt());
        }
    };
    if !matches!(x.device(), Device::Cpu) || x.dtype() != DType::F32 {
        return Ok(x.clone());
    }
    deep.contiguous()?.apply_op1(Enter)
}

/// Brings a tensor of `channels` back to `dims` spatial axes; one that is not blocked stays as it is.
///
/// # Shape
/// `[N, C/16, D, H, W, 16]` → `[N, C, H, W]` (`dims` = 2) or `[N, C, D, H, W]` (`dims` = 3).
///
/// # Errors
/// candle's, for a tensor with fewer channels or a depth that does not fit.
pub fn leave(x: &Tensor, channels: usize, dims: usize) -> Result<Tensor> {
    if !is_blocked(x) {
        return Ok(x.clone());
    }
    let found = x.dim(1)? * BLOCK;
    if channels > found {
        return Err(Error::Msg(format!("wanted {channels} channels, found {found}")).bt());
    }
    let y = x.contiguous()?.apply_op1(Leave { channels })?;
    if dims == 2 { y.squeeze(2) } else { Ok(y) }
}

/// Joins tensors along their channels, each with how many it has; plain or blocked, all the same.
///
/// # Errors
/// candle's, for shapes that do not fit.
pub fn cat(parts: &[(&Tensor, usize)], dims: usize) -> Result<Tensor> {
    let Some(((last, _), first)) = parts.split_last() else {
        return Err(Error::Msg("there is nothing to join".into()).bt());
    };
    // Whole blocks follow each other in memory; only the last part may end within one.
    if !is_blocked(last) || first.iter().all(|(_, channels)| channels.is_multiple_of(BLOCK)) {
        let tensors: Vec<&Tensor> = parts.iter().map(|(x, _)| *x).collect();
        return Tensor::cat(&tensors, 1);
    }
    let plain: Vec<Tensor> = parts
        .iter()
        .map(|(x, channels)| leave(x, *channels, dims))
        .collect::<Result<_>>()?;
    enter(&Tensor::cat(&plain, 1)?)
}

/// A parameter of one value a channel, shaped so that it broadcasts over `x`.
///
/// Lanes without a channel get zero.
pub(super) fn per_channel(parameter: &Tensor, x: &Tensor) -> Result<Tensor> {
    let channels = parameter.elem_count();
    if is_blocked(x) {
        let blocks = x.dim(1)?;
        return parameter
            .flatten_all()?
            .pad_with_zeros(0, 0, blocks * BLOCK - channels)?
            .reshape(vec![1, blocks, 1, 1, 1, BLOCK]);
    }
    let mut shape = vec![1; x.rank()];
    shape[1] = channels;
    parameter.reshape(shape)
}

/// The spatial axes of a plain or blocked tensor: which of depth, rows, columns (0, 1, 2) is which axis.
pub(super) fn spatial_axes(x: &Tensor) -> Result<Vec<(usize, usize)>> {
    match x.rank() {
        4 => Ok(vec![(1, 2), (2, 3)]),
        5 | 6 => Ok(vec![(0, 2), (1, 3), (2, 4)]),
        _ => Err(Error::Msg(format!(
            "a spatial tensor has rank 4, 5, or 6 if blocked; found shape {:?}",
            x.dims()
        ))
        .bt()),
    }
}
