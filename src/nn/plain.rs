//! The layers on candle's own operators: any device, any of candle's float types, differentiable.
//!
//! candle convolves in two dimensions with one scalar for both axes; depth is a sum over its taps, and what differs between rows and columns is a sum over all taps.

use super::conv::{Conv, ConvTranspose};
use candle_core::{Error, Result, Tensor};

/// The values at `from, from + step, …` along `axis`.
pub(super) fn strided(x: &Tensor, axis: usize, from: usize, count: usize, step: usize) -> Result<Tensor> {
    if step == 1 || count == 1 {
        return x.narrow(axis, from, count);
    }
    let picked: Vec<u32> = (0..count)
        .map(|i| u32::try_from(from + i * step))
        .collect::<std::result::Result<_, _>>()
        .map_err(Error::wrap)?;
    x.contiguous()?
        .index_select(&Tensor::from_vec(picked, count, x.device())?, axis)
}

/// Convolves a tensor of rank 4 or 5.
pub(super) fn convolve(x: &Tensor, conv: &Conv) -> Result<Tensor> {
    if x.rank() == 4 {
        let deep = Conv {
            weight: conv.weight.unsqueeze(2)?,
            ..conv.clone()
        };
        return convolve(&x.unsqueeze(2)?, &deep)?.squeeze(2);
    }
    let (_, c, ..) = x.dims5()?;
    let (c_out, c_group, kd, kh, kw) = conv.weight.dims5()?;
    if c != c_group * conv.groups {
        return Err(Error::Msg(format!(
            "the weight wants {} channels, found shape {:?}",
            c_group * conv.groups,
            x.dims()
        ))
        .bt());
    }
    let kernel = [kd, kh, kw];
    let mut x = x.clone();
    let mut size = [0; 3];
    for axis in 0..3 {
        let span = conv.dilation[axis] * (kernel[axis] - 1) + 1;
        let padded = x.dim(axis + 2)? + 2 * conv.padding[axis];
        if padded < span {
            return Err(Error::Msg(format!(
                "shape {:?} is smaller than the kernel {kernel:?}",
                x.dims()
            ))
            .bt());
        }
        size[axis] = (padded - span) / conv.stride[axis] + 1;
        if conv.padding[axis] > 0 {
            x = x.pad_with_zeros(axis + 2, conv.padding[axis], conv.padding[axis])?;
        }
        // What no tap reads is cut, so that candle's gradient finds the shape it expects.
        x = x.narrow(axis + 2, 0, (size[axis] - 1) * conv.stride[axis] + span)?;
    }
    let square = conv.stride[1] == conv.stride[2] && conv.dilation[1] == conv.dilation[2];
    let mut sum: Option<Tensor> = None;
    let mut add = |part: Tensor| -> Result<()> {
        sum = Some(match sum.take() {
            Some(sum) => (sum + part)?,
            None => part,
        });
        Ok(())
    };
    for z in 0..kd {
        let plane = strided(&x, 2, z * conv.dilation[0], size[0], conv.stride[0])?;
        let weight = conv.weight.narrow(2, z, 1)?.squeeze(2)?;
        if square {
            add(slices(&plane, &weight, conv)?)?;
            continue;
        }
        for y in 0..kh {
            let row = strided(&plane, 3, y * conv.dilation[1], size[1], conv.stride[1])?;
            for k in 0..kw {
                let column = strided(&row, 4, k * conv.dilation[2], size[2], conv.stride[2])?;
                let weight = weight.narrow(2, y, 1)?.narrow(3, k, 1)?;
                let unit = Conv {
                    stride: [1; 3],
                    dilation: [1; 3],
                    ..conv.clone()
                };
                add(slices(&column, &weight, &unit)?)?;
            }
        }
    }
    let y = sum.ok_or_else(|| Error::Msg("a kernel has at least one tap".into()).bt())?;
    debug_assert_eq!(y.dims()[1], c_out, "one output a row of the weight");
    add_bias(&y, conv.bias.as_ref())
}

/// Convolves each slice of `[N, C, D, H, W]` in its plane, without padding.
fn slices(x: &Tensor, weight: &Tensor, conv: &Conv) -> Result<Tensor> {
    let (n, c, d, h, w) = x.dims5()?;
    let flat = x.transpose(1, 2)?.reshape((n * d, c, h, w))?;
    let y = flat.conv2d(
        &weight.contiguous()?,
        0,
        conv.stride[1],
        conv.dilation[1],
        conv.groups,
    )?;
    let (_, o, h, w) = y.dims4()?;
    y.reshape((n, d, o, h, w))?.transpose(1, 2)
}

fn add_bias(y: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1, 1))?),
        None => y.contiguous(),
    }
}

/// Convolves transposed a tensor of rank 4 or 5.
pub(super) fn convolve_transposed(x: &Tensor, conv: &ConvTranspose) -> Result<Tensor> {
    if x.rank() == 4 {
        let deep = ConvTranspose {
            weight: conv.weight.unsqueeze(2)?,
            ..conv.clone()
        };
        return convolve_transposed(&x.unsqueeze(2)?, &deep)?.squeeze(2);
    }
    let (c_in, _, kd, kh, kw) = conv.weight.dims5()?;
    if x.dim(1)? != c_in {
        return Err(Error::Msg(format!(
            "the weight wants {c_in} channels, found shape {:?}",
            x.dims()
        ))
        .bt());
    }
    let kernel = [kd, kh, kw];
    if conv.stride == kernel && conv.padding == [0; 3] && conv.output_padding == [0; 3] {
        return add_bias(&spread(x, conv)?, conv.bias.as_ref());
    }
    // Zeros between the voxels, then the convolution with the mirrored kernel.
    let mut x = x.clone();
    for (axis, taps) in kernel.into_iter().enumerate() {
        let (at, step) = (axis + 2, conv.stride[axis]);
        if step > 1 {
            let size = x.dim(at)?;
            x = x
                .unsqueeze(at + 1)?
                .pad_with_zeros(at + 1, 0, step - 1)?
                .flatten(at, at + 1)?;
            x = x.narrow(at, 0, (size - 1) * step + 1)?;
        }
        let (before, after) = (taps - 1, taps - 1 + conv.output_padding[axis]);
        x = x.pad_with_zeros(at, before, after)?;
        let cut = conv.padding[axis];
        let left = x.dim(at)?.saturating_sub(2 * cut);
        x = x.narrow(at, cut, left)?;
    }
    let mirrored = Conv {
        weight: conv
            .weight
            .transpose(0, 1)?
            .contiguous()?
            .flip(&[2, 3, 4])?
            .contiguous()?,
        bias: conv.bias.clone(),
        stride: [1; 3],
        padding: [0; 3],
        dilation: [1; 3],
        groups: 1,
    };
    convolve(&x, &mirrored)
}

/// Windows that do not overlap: one matrix product, whose rows are then put in their places.
fn spread(x: &Tensor, conv: &ConvTranspose) -> Result<Tensor> {
    let (n, c_in, d, h, w) = x.dims5()?;
    let (_, c_out, kd, kh, kw) = conv.weight.dims5()?;
    let weight = conv
        .weight
        .reshape((c_in, c_out * kd * kh * kw))?
        .t()?
        .contiguous()?;
    let y = weight
        .unsqueeze(0)?
        .broadcast_matmul(&x.reshape((n, c_in, d * h * w))?)?;
    y.reshape(vec![n, c_out, kd, kh, kw, d, h, w])?
        .permute(vec![0, 1, 5, 2, 6, 3, 7, 4])?
        .reshape((n, c_out, d * kd, h * kh, w * kw))
}
