//! The Swin transformer in three dimensions: attention within windows, every second time shifted by half a window.
//!
//! Tokens are `[N, D, H, W, C]`, channels last, on candle's own operators.
//! Windows are attended to a few at a time, so that the scores of all of them are never in memory together.
//! Source: MONAI, `networks/nets/swin_unetr.py` (names and wiring); Liu et al., arXiv:2103.14030.

use super::{
    activation::Activation,
    norm::{EPS, Norm},
    parameters::{Init, Parameters},
};
use crate::domain::architecture::Merging;
use candle_core::{D, DType, Device, Result, Tensor};

/// Windows whose scores are in memory together.
const WINDOWS_AT_ONCE: usize = 32;
/// What is added to the score of two tokens that only the shift has brought together.
const APART: f32 = -100.0;

/// A matrix and a bias on the last axis.
#[derive(Debug, Clone)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn new(p: &mut Parameters, name: &str, [c_in, c_out]: [usize; 2], bias: bool) -> Result<Self> {
        let init = Init::Kaiming { fan_in: c_in };
        Ok(Self {
            weight: p.get(&format!("{name}.weight"), &[c_out, c_in], init)?,
            bias: bias
                .then(|| p.get(&format!("{name}.bias"), &[c_out], Init::Constant(0.0)))
                .transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        let rows: usize = dims.iter().rev().skip(1).product();
        let y = x.reshape((rows, x.dim(D::Minus1)?))?.matmul(&self.weight.t()?)?;
        if let Some(last) = dims.last_mut() {
            *last = self.weight.dim(0)?;
        }
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        y.reshape(dims)
    }
}

/// A layer norm whose parameters stand under `name`.
fn layer_norm(p: &mut Parameters, name: &str, channels: usize) -> Result<Norm> {
    Ok(Norm::Layer {
        weight: p.get(&format!("{name}.weight"), &[channels], Init::Constant(1.0))?,
        bias: p.get(&format!("{name}.bias"), &[channels], Init::Constant(0.0))?,
        eps: EPS,
    })
}

/// A layer norm that has learnt nothing.
pub(super) fn bare_layer_norm(x: &Tensor) -> Result<Tensor> {
    let channels = x.dim(D::Minus1)?;
    Norm::Layer {
        weight: Tensor::ones(channels, x.dtype(), x.device())?,
        bias: Tensor::zeros(channels, x.dtype(), x.device())?,
        eps: EPS,
    }
    .forward(x)
}

/// How the windows of a stage lie on its grid.
#[derive(Debug, Clone, Copy)]
struct Windows {
    /// Tokens of a window; no more than the grid has.
    size: [usize; 3],
    /// Half a window; nothing along an axis with one window.
    shift: [usize; 3],
    /// The grid, filled up to whole windows.
    padded: [usize; 3],
}

impl Windows {
    fn new(grid: [usize; 3], window: [usize; 3]) -> Self {
        let one = |a: usize| grid[a] <= window[a];
        let size: [usize; 3] = std::array::from_fn(|a| if one(a) { grid[a] } else { window[a] });
        Self {
            size,
            shift: std::array::from_fn(|a| if one(a) { 0 } else { window[a] / 2 }),
            padded: std::array::from_fn(|a| grid[a].next_multiple_of(size[a])),
        }
    }

    fn counts(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.padded[a] / self.size[a])
    }

    /// `[N, D, H, W, C]` → `[N · windows, tokens, C]`
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c) = (x.dim(0)?, x.dim(4)?);
        let ([a, b, d], [i, j, k]) = (self.counts(), self.size);
        x.reshape(vec![n, a, i, b, j, d, k, c])?
            .permute(vec![0, 1, 3, 5, 2, 4, 6, 7])?
            .contiguous()?
            .reshape((n * a * b * d, i * j * k, c))
    }

    /// The way back.
    fn join(&self, x: &Tensor, n: usize) -> Result<Tensor> {
        let c = x.dim(2)?;
        let ([a, b, d], [i, j, k]) = (self.counts(), self.size);
        let [depth, rows, columns] = self.padded;
        x.reshape(vec![n, a, b, d, i, j, k, c])?
            .permute(vec![0, 1, 4, 2, 5, 3, 6, 7])?
            .contiguous()?
            .reshape((n, depth, rows, columns, c))
    }

    /// What is added to the scores of a shifted grid: nothing between tokens that belong together.
    ///
    /// # Shape
    /// `[windows, tokens, tokens]`
    fn mask(&self, device: &Device) -> Result<Tensor> {
        let region = |a: usize, at: usize| -> u32 {
            if self.shift[a] == 0 || at < self.padded[a] - self.size[a] {
                0
            } else if at < self.padded[a] - self.shift[a] {
                1
            } else {
                2
            }
        };
        let [depth, rows, columns] = self.padded;
        let mut regions = Vec::with_capacity(depth * rows * columns);
        for x in 0..depth {
            for y in 0..rows {
                regions.extend((0..columns).map(|z| 9 * region(0, x) + 3 * region(1, y) + region(2, z)));
            }
        }
        let regions = Tensor::from_vec(regions, (1, depth, rows, columns, 1), device)?;
        let regions = self.split(&regions)?.squeeze(2)?;
        let (windows, n) = regions.dims2()?;
        let other = regions
            .reshape((windows, 1, n))?
            .broadcast_ne(&regions.reshape((windows, n, 1))?)?;
        other.to_dtype(DType::F32)? * f64::from(APART)
    }
}

/// Attention among the tokens of a window, with a bias for each relative position.
#[derive(Debug, Clone)]
struct Attention {
    heads: usize,
    window: [usize; 3],
    bias_table: Tensor,
    qkv: Linear,
    proj: Linear,
}

impl Attention {
    fn new(p: &mut Parameters, name: &str, channels: usize, plan: &StagePlan) -> Result<Self> {
        let positions = plan.window.iter().map(|w| 2 * w - 1).product();
        let table = format!("{name}.relative_position_bias_table");
        Ok(Self {
            heads: plan.heads,
            window: plan.window,
            bias_table: p.get(&table, &[positions, plan.heads], Init::Constant(0.0))?,
            qkv: Linear::new(p, &format!("{name}.qkv"), [channels, 3 * channels], plan.qkv_bias)?,
            proj: Linear::new(p, &format!("{name}.proj"), [channels; 2], true)?,
        })
    }

    /// The bias of every pair among the first `n` tokens of a whole window, `[heads, n, n]`.
    ///
    /// A grid smaller than a window is looked up as if its tokens were the window's first ones, as MONAI does.
    fn bias(&self, n: usize) -> Result<Tensor> {
        let all = relative_position_index(self.window);
        let tokens: usize = self.window.iter().product();
        let first = all.chunks_exact(tokens).take(n).flat_map(|row| &row[..n]);
        let index: Vec<u32> = first.copied().collect();
        let index = Tensor::from_vec(index, n * n, self.bias_table.device())?;
        self.bias_table
            .index_select(&index, 0)?
            .reshape((n, n, self.heads))?
            .permute((2, 0, 1))?
            .contiguous()
    }

    /// `mask` is `[windows, tokens, tokens]` of one image.
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (all, n, _) = x.dims3()?;
        let bias = self.bias(n)?.unsqueeze(0)?;
        let an_image = match mask {
            Some(mask) => mask.dim(0)?,
            None => all,
        };
        let mut done = Vec::new();
        for image in (0..all).step_by(an_image) {
            for first in (0..an_image).step_by(WINDOWS_AT_ONCE) {
                let count = WINDOWS_AT_ONCE.min(an_image - first);
                let some = x.narrow(0, image + first, count)?.contiguous()?;
                let mask = match mask {
                    Some(mask) => Some(mask.narrow(0, first, count)?.unsqueeze(1)?),
                    None => None,
                };
                done.push(self.attend(&some, &bias, mask.as_ref())?);
            }
        }
        Tensor::cat(&done, 0)
    }

    fn attend(&self, x: &Tensor, bias: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (b, n, c) = x.dims3()?;
        let head = c / self.heads;
        let qkv = self
            .qkv
            .forward(x)?
            .reshape((b, n, 3, self.heads, head))?
            .permute((2, 0, 3, 1, 4))?
            .contiguous()?;
        let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
        let scores = (q * (head as f64).powf(-0.5))?.matmul(&k.transpose(2, 3)?.contiguous()?)?;
        let mut scores = scores.broadcast_add(bias)?;
        if let Some(mask) = mask {
            scores = scores.broadcast_add(mask)?;
        }
        let mixed = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v.contiguous()?)?;
        self.proj
            .forward(&mixed.transpose(1, 2)?.contiguous()?.reshape((b, n, c))?)
    }
}

/// Attention and a perceptron, each behind a norm and around a skip.
#[derive(Debug, Clone)]
struct Block {
    norms: [Norm; 2],
    attention: Attention,
    perceptron: [Linear; 2],
    shifted: bool,
}

impl Block {
    fn forward(&self, x: &Tensor, windows: &Windows, mask: Option<&Tensor>) -> Result<Tensor> {
        let (n, _, _, _, _) = x.dims5()?;
        let grid = [x.dim(1)?, x.dim(2)?, x.dim(3)?];
        let moves = |way: i32, mut y: Tensor| -> Result<Tensor> {
            for (a, shift) in windows.shift.iter().enumerate() {
                if self.shifted && *shift > 0 {
                    let by = way * i32::try_from(*shift).map_err(candle_core::Error::wrap)?;
                    y = y.roll(by, a + 1)?;
                }
            }
            Ok(y)
        };
        let mut y = self.norms[0].forward(x)?;
        for (a, (size, padded)) in grid.into_iter().zip(windows.padded).enumerate() {
            y = y.pad_with_zeros(a + 1, 0, padded - size)?;
        }
        let y = windows.split(&moves(-1, y)?.contiguous()?)?;
        let y = self.attention.forward(&y, mask.filter(|_| self.shifted))?;
        let mut y = moves(1, windows.join(&y, n)?)?;
        for (a, size) in grid.into_iter().enumerate() {
            y = y.narrow(a + 1, 0, size)?;
        }
        let x = (x + y)?;
        let [first, second] = &self.perceptron;
        let hidden = first.forward(&self.norms[1].forward(&x)?)?;
        let y = second.forward(&Activation::Gelu.forward(&hidden)?)?;
        x + y
    }
}

/// For every pair of tokens of a window the row of the bias table that says what they are to each other: MONAI's buffer `relative_position_index`.
#[must_use]
pub fn relative_position_index([depth, rows, columns]: [usize; 3]) -> Vec<u32> {
    let n = depth * rows * columns;
    let place = |t: usize| [t / (rows * columns), t / columns % rows, t % columns];
    let pairs = (0..n).flat_map(|i| (0..n).map(move |j| (place(i), place(j))));
    pairs
        .map(|(i, j)| {
            let along = |a: usize, size: usize| i[a] + size - 1 - j[a];
            let at =
                (along(0, depth) * (2 * rows - 1) + along(1, rows)) * (2 * columns - 1) + along(2, columns);
            u32::try_from(at).unwrap_or(u32::MAX)
        })
        .collect()
}

/// How a stage is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct StagePlan {
    pub(super) channels: usize,
    pub(super) depth: usize,
    pub(super) heads: usize,
    pub(super) window: [usize; 3],
    pub(super) hidden: usize,
    pub(super) qkv_bias: bool,
    pub(super) merging: Merging,
}

/// Blocks on one grid, and the merging that halves it.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    window: [usize; 3],
    blocks: Vec<Block>,
    merging: Merging,
    norm: Norm,
    reduction: Linear,
}

impl Stage {
    pub(super) fn new(p: &mut Parameters, name: &str, plan: &StagePlan) -> Result<Self> {
        let c = plan.channels;
        let mut blocks = Vec::with_capacity(plan.depth);
        for i in 0..plan.depth {
            let name = format!("{name}.blocks.{i}");
            blocks.push(Block {
                norms: [
                    layer_norm(p, &format!("{name}.norm1"), c)?,
                    layer_norm(p, &format!("{name}.norm2"), c)?,
                ],
                attention: Attention::new(p, &format!("{name}.attn"), c, plan)?,
                perceptron: [
                    Linear::new(p, &format!("{name}.mlp.linear1"), [c, plan.hidden], true)?,
                    Linear::new(p, &format!("{name}.mlp.linear2"), [plan.hidden, c], true)?,
                ],
                shifted: i % 2 == 1,
            });
        }
        Ok(Self {
            window: plan.window,
            blocks,
            merging: plan.merging,
            norm: layer_norm(p, &format!("{name}.downsample.norm"), 8 * c)?,
            reduction: Linear::new(p, &format!("{name}.downsample.reduction"), [8 * c, 2 * c], false)?,
        })
    }

    /// # Shape
    /// `[N, D, H, W, C]` → `[N, D/2, H/2, W/2, 2C]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let windows = Windows::new([x.dim(1)?, x.dim(2)?, x.dim(3)?], self.window);
        let shifts = windows.shift != [0; 3];
        let mask = if shifts && self.blocks.len() > 1 {
            Some(windows.mask(x.device())?)
        } else {
            None
        };
        let mut x = x.clone();
        for block in &self.blocks {
            x = block.forward(&x, &windows, mask.as_ref())?;
        }
        self.merge(&x)
    }

    /// The tokens of each 2 × 2 × 2 beside each other, normed, and their channels halved and halved again.
    fn merge(&self, x: &Tensor) -> Result<Tensor> {
        let (n, depth, rows, columns, c) = x.dims5()?;
        let halves = x.reshape(vec![n, depth / 2, 2, rows / 2, 2, columns / 2, 2, c])?;
        let order = match self.merging {
            Merging::Merging => [
                [0, 0, 0],
                [1, 0, 0],
                [0, 1, 0],
                [0, 0, 1],
                [1, 1, 0],
                [1, 0, 1],
                [0, 1, 1],
                [1, 1, 1],
            ],
            Merging::MergingV2 => [
                [0, 0, 0],
                [0, 0, 1],
                [0, 1, 0],
                [0, 1, 1],
                [1, 0, 0],
                [1, 0, 1],
                [1, 1, 0],
                [1, 1, 1],
            ],
        };
        let mut parts = Vec::with_capacity(order.len());
        for [i, j, k] in order {
            let part = halves.narrow(6, k, 1)?.narrow(4, j, 1)?.narrow(2, i, 1)?;
            parts.push(
                part.contiguous()?
                    .reshape((n, depth / 2, rows / 2, columns / 2, c))?,
            );
        }
        self.reduction
            .forward(&self.norm.forward(&Tensor::cat(&parts, 4)?)?)
    }
}
