//! CPU convolution on channel-blocked activations: `[N, C/16, H, W, 16]` → the same layout.
//!
//! Direct convolution: an output tile of a few pixels by 16 or 32 channels stays in registers while all taps and input channels pass by.
//! There is no im2col: a job copies the rows it needs once, with their zero border, into a scratch that fits the second-level cache.
//! Each output value is summed by one job in one fixed order, so results do not depend on the number of threads.
//! What it does not do: dilation, groups, 3-D.
//!
//! Source: the direct blocked scheme of Georganas et al., doi:10.1109/SC.2018.00069.

mod lanes;
mod tile;

pub(crate) use tile::Isa;

use rayon::prelude::*;
use std::sync::OnceLock;

/// Channels of a block: one AVX-512 register of f32.
pub(crate) const BLOCK: usize = 16;
/// Output rows of one job: the scratch rows of up to eight channel blocks stay within 1.25 MiB of L2.
const ROWS: usize = 8;

/// Number of blocks for a number of channels.
pub(crate) fn blocks(channels: usize) -> usize {
    channels.div_ceil(BLOCK)
}

/// The instruction set chosen once for this process.
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(Isa::detect)
}

/// A 2-D convolution with square stride and equal padding on all sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub(crate) batch: usize,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl ConvShape {
    pub(crate) fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel[0]) / self.stride + 1
    }
    pub(crate) fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel[1]) / self.stride + 1
    }
    pub(crate) fn in_len(&self) -> usize {
        self.batch * blocks(self.c_in) * self.height * self.width * BLOCK
    }
    pub(crate) fn out_len(&self) -> usize {
        self.batch * blocks(self.c_out) * self.out_height() * self.out_width() * BLOCK
    }
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
    /// Rows of the padded input that `rows` output rows read.
    fn in_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.kernel[0]
    }
    fn padded_width(&self) -> usize {
        self.width + 2 * self.padding
    }
}

/// Which way a PyTorch weight `[O, I, kh, kw]` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// As it is: input → output.
    Forward,
    /// Transposed and flipped: gradient of the output → gradient of the input.
    Backward,
}

/// Weights as the tile kernel reads them: `[groups of V blocks][input block][tap][16 inputs][V × 16 outputs]`.
struct Packed {
    data: Vec<f32>,
    /// Output blocks a tile computes together.
    vectors: usize,
    group_len: usize,
}

fn pack(weight: &[f32], shape: &ConvShape, direction: Direction, isa: Isa) -> Packed {
    let (c_in, c_out, taps) = (shape.c_in, shape.c_out, shape.taps());
    let vectors = isa.vectors(blocks(c_out));
    let width = vectors * BLOCK;
    let group_len = blocks(c_in) * taps * BLOCK * width;
    let mut data = vec![0.0; blocks(c_out).div_ceil(vectors) * group_len];
    for o in 0..c_out {
        for i in 0..c_in {
            for tap in 0..taps {
                let value = match direction {
                    Direction::Forward => weight[(o * c_in + i) * taps + tap],
                    Direction::Backward => weight[(i * c_out + o) * taps + taps - 1 - tap],
                };
                let at = (o / width) * group_len
                    + ((i / BLOCK * taps + tap) * BLOCK + i % BLOCK) * width
                    + o % width;
                data[at] = value;
            }
        }
    }
    Packed {
        data,
        vectors,
        group_len,
    }
}

/// A pointer that jobs share because each writes rows of its own.
#[derive(Clone, Copy)]
struct Rows(*mut f32);
#[expect(
    unsafe_code,
    reason = "jobs write disjoint rows of the output; see `convolve`"
)]
// SAFETY: every job derives its own, disjoint range of rows from the pointer.
unsafe impl Sync for Rows {}

/// Copies the rows that output rows `first..first + rows` of image `n` read, zero border included, into `scratch`.
///
/// Layout of the scratch: `[input block][row][padded column][16]`.
fn gather(x: &[f32], shape: &ConvShape, n: usize, first: usize, rows: usize, scratch: &mut Vec<f32>) {
    let (pad, row_len, padded) = (shape.padding, shape.width * BLOCK, shape.padded_width() * BLOCK);
    let in_rows = shape.in_rows(rows);
    scratch.clear();
    scratch.resize(blocks(shape.c_in) * in_rows * padded, 0.0);
    for block in 0..blocks(shape.c_in) {
        for r in 0..in_rows {
            let Some(y) = (first * shape.stride + r)
                .checked_sub(pad)
                .filter(|y| *y < shape.height)
            else {
                continue;
            };
            let from = ((n * blocks(shape.c_in) + block) * shape.height + y) * row_len;
            let to = (block * in_rows + r) * padded + pad * BLOCK;
            scratch[to..to + row_len].copy_from_slice(&x[from..from + row_len]);
        }
    }
}

/// Convolves `x` with `weight`; `bias` may be empty.
///
/// # Shape
/// `x`: `[batch, c_in/16, height, width, 16]`; `weight`: PyTorch's `[O, I, kh, kw]`; result: `[batch, c_out/16, out_height, out_width, 16]`.
pub(crate) fn convolve(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    shape: &ConvShape,
    direction: Direction,
    isa: Isa,
) -> Vec<f32> {
    assert_eq!(
        x.len(),
        shape.in_len(),
        "the input has the shape that was declared"
    );
    assert_eq!(
        weight.len(),
        shape.c_in * shape.c_out * shape.taps(),
        "the weight has the shape that was declared"
    );
    let packed = pack(weight, shape, direction, isa);
    let mut padded_bias = vec![0.0; blocks(shape.c_out).next_multiple_of(packed.vectors) * BLOCK];
    padded_bias[..bias.len()].copy_from_slice(bias);
    let mut out = vec![0.0f32; shape.out_len()];
    let (out_h, out_w) = (shape.out_height(), shape.out_width());
    let jobs_per_image = out_h.div_ceil(ROWS);
    let target = Rows(out.as_mut_ptr());
    (0..shape.batch * jobs_per_image)
        .into_par_iter()
        .for_each_init(Vec::new, |scratch, job| {
            let (n, first) = (job / jobs_per_image, job % jobs_per_image * ROWS);
            let rows = ROWS.min(out_h - first);
            gather(x, shape, n, first, rows, scratch);
            let target = &target;
            for group in 0..blocks(shape.c_out).div_ceil(packed.vectors) {
                let task = tile::Task {
                    x: scratch,
                    block_stride: shape.in_rows(rows) * shape.padded_width() * BLOCK,
                    row_stride: shape.padded_width() * BLOCK,
                    stride: shape.stride,
                    c_in: shape.c_in,
                    kernel: shape.kernel,
                    weight: &packed.data[group * packed.group_len..(group + 1) * packed.group_len],
                    bias: &padded_bias[group * packed.vectors * BLOCK..(group + 1) * packed.vectors * BLOCK],
                    rows,
                    width: out_w,
                };
                let plane = |v: usize| {
                    let block = (n * blocks(shape.c_out) + group * packed.vectors + v) * out_h + first;
                    target.0.wrapping_add(block * out_w * BLOCK)
                };
                #[expect(unsafe_code, reason = "hands each tile the rows it owns")]
                // SAFETY: `plane(v)` points at `rows` rows of a block that exists (V divides the number of blocks),
                // and no other job has the same (n, group, first).
                unsafe {
                    isa.run(&task, packed.vectors, &plane);
                }
            }
        });
    out
}

/// Gradient of a convolution's weight.
///
/// # Shape
/// `x` and `grad` as the input and output of [`convolve`]; result: PyTorch's `[O, I, kh, kw]`.
pub(crate) fn weight_gradient(x: &[f32], grad: &[f32], shape: &ConvShape, isa: Isa) -> Vec<f32> {
    assert_eq!(
        x.len(),
        shape.in_len(),
        "the input has the shape that was declared"
    );
    assert_eq!(
        grad.len(),
        shape.out_len(),
        "the gradient has the shape that was declared"
    );
    let (out_h, out_w, taps) = (shape.out_height(), shape.out_width(), shape.taps());
    let (bi, bo) = (blocks(shape.c_in), blocks(shape.c_out));
    // One partial sum an image, in image order: independent of the number of threads.
    let partial: Vec<Vec<f32>> = (0..shape.batch)
        .into_par_iter()
        .map(|n| {
            // [output block][input block][tap][16 inputs][16 outputs]
            let mut sum = vec![0.0f32; bo * bi * taps * BLOCK * BLOCK];
            let mut scratch = Vec::new();
            for first in (0..out_h).step_by(ROWS) {
                let rows = ROWS.min(out_h - first);
                gather(x, shape, n, first, rows, &mut scratch);
                let row_stride = shape.padded_width() * BLOCK;
                for o in 0..bo {
                    let at = ((n * bo + o) * out_h + first) * out_w * BLOCK;
                    let grad = &grad[at..at + rows * out_w * BLOCK];
                    for i in 0..bi {
                        for tap in 0..taps {
                            let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
                            let origin = (i * shape.in_rows(rows) + ky) * row_stride + kx * BLOCK;
                            let to = ((o * bi + i) * taps + tap) * BLOCK * BLOCK;
                            isa.accumulate(
                                &tile::GradTask {
                                    x: &scratch[origin..],
                                    row_stride: row_stride * shape.stride,
                                    stride: shape.stride,
                                    channels: BLOCK.min(shape.c_in - i * BLOCK),
                                    grad,
                                    rows,
                                    width: out_w,
                                },
                                &mut sum[to..to + BLOCK * BLOCK],
                            );
                        }
                    }
                }
            }
            sum
        })
        .collect();
    let mut weight = vec![0.0f32; shape.c_out * shape.c_in * taps];
    for sum in &partial {
        for o in 0..shape.c_out {
            for i in 0..shape.c_in {
                for tap in 0..taps {
                    let at =
                        (((o / BLOCK * bi + i / BLOCK) * taps + tap) * BLOCK + i % BLOCK) * BLOCK + o % BLOCK;
                    weight[(o * shape.c_in + i) * taps + tap] += sum[at];
                }
            }
        }
    }
    weight
}

#[cfg(test)]
mod tests;
