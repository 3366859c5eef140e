//! The part of the input that one job reads, copied once with its zero border, normalised and activated on the way where that was left to the reader.
//!
//! Layout: `[plane][block][row][phase][column][16]`; planes form a ring, so that a job that walks through depth copies each plane once.
//! With a stride along the columns, column c lies at `[c mod stride][c / stride]`: neighbouring outputs always read neighbouring columns.

use super::{BLOCK, Isa, geometry::Geometry, memory::Aligned, norm::Lines};
use std::ops::Range;

/// An input made of one or more tensors whose channel blocks follow each other.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// `[batch][blocks][D][H][W][16]`
    pub(crate) values: &'a [f32],
    pub(crate) blocks: usize,
    /// What is done to the values as they are read.
    pub(crate) lines: Option<&'a Lines>,
}

/// A copied part of the input.
#[derive(Default)]
pub(super) struct Copied {
    pub(super) data: Aligned,
    /// Planes in the ring.
    depth: usize,
    rows: usize,
    row_len: usize,
    columns: usize,
    stride: usize,
    /// Values of a voxel.
    slot: usize,
    low: [isize; 3],
    first_row: isize,
    first_column: isize,
    blocks: Range<usize>,
    /// Planes that are there.
    held: Range<isize>,
}

impl Copied {
    /// How many values a part of `blocks` blocks under `rows` × `columns` steps takes.
    pub(super) fn len(geometry: &Geometry, blocks: usize, rows: usize, columns: usize) -> usize {
        let (_, depth) = geometry.axes[0].under(0, 1);
        let (_, rows) = geometry.axes[1].under(0, rows);
        let (_, columns) = geometry.axes[2].under(0, columns);
        let stride = geometry.axes[2].stride;
        depth * blocks * rows * columns.div_ceil(stride) * stride * BLOCK
    }

    /// Starts a new part: some blocks under a range of row and column steps.
    pub(super) fn open(
        &mut self,
        geometry: &Geometry,
        blocks: Range<usize>,
        rows: Range<usize>,
        columns: Range<usize>,
        isa: Isa,
    ) {
        self.slot = isa.slot();
        let [z, y, x] = &geometry.axes;
        self.low = [z.reach().0, y.reach().0, x.reach().0];
        self.depth = z.under(0, 1).1;
        (self.first_row, self.rows) = y.under(rows.start, rows.len());
        let span;
        (self.first_column, span) = x.under(columns.start, columns.len());
        self.stride = x.stride;
        self.columns = span.div_ceil(x.stride);
        self.row_len = self.columns * self.stride * self.slot;
        self.held = 0..0;
        let len = self.depth * blocks.len() * self.rows * self.row_len;
        self.blocks = blocks;
        self.data.grow(len);
    }

    /// Values from one row step to the next.
    pub(super) fn row_step(&self, geometry: &Geometry) -> usize {
        geometry.axes[1].stride * self.row_len
    }

    /// Where block `block` (of those copied) of the first voxel's tap lies; `plane` is the input plane that the tap reads.
    #[expect(clippy::cast_sign_loss, reason = "a tap's offset is at least the lowest one")]
    pub(super) fn at(&self, block: usize, plane: isize, offset: [isize; 3]) -> usize {
        let row = (offset[1] - self.low[1]) as usize;
        let column = (offset[2] - self.low[2]) as usize;
        ((self.plane(plane) * self.blocks.len() + block) * self.rows + row) * self.row_len
            + (column % self.stride * self.columns + column / self.stride) * self.slot
    }

    #[expect(clippy::cast_possible_wrap, reason = "a ring has a handful of planes")]
    fn plane(&self, plane: isize) -> usize {
        plane.rem_euclid(self.depth as isize) as usize
    }

    /// Copies the planes under depth step `step` of image `n` that are not there yet.
    #[expect(clippy::cast_possible_wrap, reason = "axes are far below the limit of isize")]
    pub(super) fn advance(&mut self, x: &[Source], geometry: &Geometry, n: usize, step: usize, isa: Isa) {
        let axis = &geometry.axes[0];
        let (first, count) = axis.under(step, 1);
        let wanted = first.max(0)..(first + count as isize).min(axis.input as isize);
        for plane in wanted.start.max(self.held.end)..wanted.end {
            self.copy(x, geometry, n, plane, isa);
        }
        self.held = wanted.start..wanted.end.max(self.held.end);
    }

    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "planes, rows and columns are checked to lie within the input"
    )]
    fn copy(&mut self, x: &[Source], geometry: &Geometry, n: usize, plane: isize, isa: Isa) {
        let [depth, height, width] = [0, 1, 2].map(|a| geometry.axes[a].input);
        let (at, slot) = (self.plane(plane), self.slot);
        for (b, block) in self.blocks.clone().enumerate() {
            let (mut local, mut source) = (block, x[0]);
            for next in x.iter().skip(1) {
                if local < source.blocks {
                    break;
                }
                local -= source.blocks;
                source = *next;
            }
            let from = ((n * source.blocks + local) * depth + plane as usize) * height * width * BLOCK;
            let from = &source.values[from..from + height * width * BLOCK];
            let line = source.lines.map(|lines| lines.line(n * source.blocks + local));
            let to = (at * self.blocks.len() + b) * self.rows * self.row_len;
            let to = &mut self.data[to..to + self.rows * self.row_len];
            // With an odd number of channels half of a pair is an unused lane, which may hold anything.
            let in_use = geometry.c_in - block * BLOCK;
            let odd = (slot < BLOCK && in_use < BLOCK && !in_use.is_multiple_of(2)).then_some(in_use / 2);
            for (r, to) in to.chunks_exact_mut(self.row_len).enumerate() {
                let y = self.first_row + r as isize;
                if y < 0 || y >= height as isize {
                    to.fill(0.0);
                    continue;
                }
                let row = &from[y as usize * width * BLOCK..(y as usize + 1) * width * BLOCK];
                if self.stride == 1 {
                    let before = (-self.first_column).clamp(0, self.columns as isize) as usize;
                    let start = (self.first_column.max(0) as usize).min(width);
                    let there = (width - start).min(self.columns - before);
                    to[..before * slot].fill(0.0);
                    isa.copy(
                        &row[start * BLOCK..(start + there) * BLOCK],
                        1,
                        &mut to[before * slot..(before + there) * slot],
                        line,
                    );
                    to[(before + there) * slot..].fill(0.0);
                    if let Some(odd) = odd {
                        clear_upper(to, odd, slot);
                    }
                    continue;
                }
                for phase in 0..self.stride {
                    let whole = &mut to[phase * self.columns * slot..][..self.columns * slot];
                    // Columns before `start` and from `end` on lie outside the input.
                    let first = self.first_column + phase as isize;
                    let start = (-first)
                        .max(0)
                        .unsigned_abs()
                        .div_ceil(self.stride)
                        .min(self.columns);
                    let end = (width as isize - first)
                        .max(0)
                        .unsigned_abs()
                        .div_ceil(self.stride)
                        .clamp(start, self.columns);
                    whole[..start * slot].fill(0.0);
                    whole[end * slot..].fill(0.0);
                    if start == end {
                        continue;
                    }
                    let from = &row[(first + (start * self.stride) as isize) as usize * BLOCK..];
                    isa.copy(from, self.stride, &mut whole[start * slot..end * slot], line);
                    if let Some(odd) = odd {
                        clear_upper(whole, odd, slot);
                    }
                }
            }
        }
    }
}

/// Zeroes the upper bf16 of pair `pair` of every voxel.
fn clear_upper(voxels: &mut [f32], pair: usize, slot: usize) {
    for voxel in voxels.chunks_exact_mut(slot) {
        voxel[pair] = f32::from_bits(voxel[pair].to_bits() & 0xffff);
    }
}
