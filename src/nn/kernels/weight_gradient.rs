//! The gradient of a convolution's weight.

use super::{
    BLOCK, Isa, blocks,
    convolve::Cut,
    geometry::Geometry,
    tile::GradTask,
    window::{Copied, Source},
};
use rayon::prelude::*;

/// Jobs to cut the work into where there are few channels; fixed, so that sums do not depend on the number of threads.
const JOBS: usize = 16;
/// Voxels of the rows that one tap walks over at a time: input and gradient stay in the first-level cache.
const VOXELS: usize = 128;

/// Sums x · grad over all voxels and images for each tap.
///
/// # Shape
/// `geometry` is that of the convolution `x` → `grad`; result: `[c_out, c_in, taps]`.
pub(crate) fn weight_gradient(x: &[f32], grad: &[f32], geometry: &Geometry, isa: Isa) -> Vec<f32> {
    assert_eq!(
        x.len(),
        geometry.in_len(),
        "the input has the shape that was declared"
    );
    assert_eq!(
        grad.len(),
        geometry.out_len(),
        "the gradient has the shape that was declared"
    );
    assert_eq!(isa.slot(), BLOCK, "gradients are f32");
    let (in_blocks, out_blocks, vectors) = (blocks(geometry.c_in), blocks(geometry.c_out), isa.vectors());
    let groups = out_blocks.div_ceil(vectors);
    // One thread: the cut itself must not depend on how many there are.
    let cut = Cut::new(geometry, 1, 1);
    let units = geometry.batch * cut.count();
    let slabs = JOBS.div_ceil(groups * in_blocks).min(units);
    let partial: Vec<Vec<f32>> = (0..groups * in_blocks * slabs)
        .into_par_iter()
        .map(|job| {
            let (group, block, slab) = (job / slabs / in_blocks, job / slabs % in_blocks, job % slabs);
            let mut sum = Sum {
                x,
                grad,
                geometry,
                isa,
                group,
                block,
                window: Copied::default(),
                values: vec![
                    0.0;
                    geometry.taps() * BLOCK * vectors.min(out_blocks - group * vectors) * BLOCK
                ],
            };
            for unit in units * slab / slabs..units * (slab + 1) / slabs {
                sum.add(unit / cut.count(), &cut, unit % cut.count());
            }
            sum.values
        })
        .collect();
    let taps = geometry.taps();
    let mut weight = vec![0.0f32; geometry.c_out * geometry.c_in * taps];
    for (job, sum) in partial.iter().enumerate() {
        let (group, block) = (job / slabs / in_blocks, job / slabs % in_blocks);
        let width = sum.len() / (taps * BLOCK);
        let first = group * vectors * BLOCK;
        for o in first..(first + width).min(geometry.c_out) {
            for i in block * BLOCK..((block + 1) * BLOCK).min(geometry.c_in) {
                for tap in 0..taps {
                    weight[(o * geometry.c_in + i) * taps + tap] +=
                        sum[(tap * BLOCK + i % BLOCK) * width + o - first];
                }
            }
        }
    }
    weight
}

/// The sum of one group of output blocks and one input block.
struct Sum<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    geometry: &'a Geometry,
    isa: Isa,
    group: usize,
    block: usize,
    window: Copied,
    /// `[tap][16 inputs][V × 16 outputs]`
    values: Vec<f32>,
}

impl Sum<'_> {
    #[expect(clippy::cast_possible_wrap, reason = "axes are far below the limit of isize")]
    fn add(&mut self, n: usize, cut: &Cut, job: usize) {
        let geometry = self.geometry;
        let [z, y, x] = &geometry.axes;
        let (out_blocks, vectors) = (blocks(geometry.c_out), self.isa.vectors());
        let first = self.group * vectors;
        let width = vectors.min(out_blocks - first);
        let [planes, rows, columns] = cut.job(job);
        self.window.open(
            geometry,
            self.block..self.block + 1,
            rows.clone(),
            columns.clone(),
            self.isa,
        );
        let source = [Source {
            values: self.x,
            blocks: blocks(geometry.c_in),
            lines: None,
        }];
        let taps = geometry.taps_of([0; 3]);
        let at_once = (VOXELS / columns.len()).max(1);
        for plane in planes {
            self.window.advance(&source, geometry, n, plane, self.isa);
            for row in rows.clone().step_by(at_once) {
                let count = at_once.min(rows.end - row);
                let grad = [0, width - 1].map(|v| {
                    let block = n * out_blocks + first + v;
                    let at = ((block * z.output + plane) * y.output + row) * x.output + columns.start;
                    &self.grad[at * BLOCK..]
                });
                for (tap, (offset, _)) in taps.iter().enumerate() {
                    let input = (plane * z.stride) as isize + offset[0];
                    if !(0..z.input as isize).contains(&input) {
                        continue;
                    }
                    let row_step = self.window.row_step(geometry);
                    let at = self.window.at(0, input, *offset) + (row - rows.start) * row_step;
                    let each = BLOCK * width * BLOCK;
                    self.isa.accumulate(
                        &GradTask {
                            x: &self.window.data[at..],
                            row_step,
                            channels: BLOCK.min(geometry.c_in - self.block * BLOCK),
                            grad,
                            grad_row: x.output * BLOCK,
                            rows: count,
                            columns: columns.len(),
                        },
                        width,
                        &mut self.values[tap * each..(tap + 1) * each],
                    );
                }
            }
        }
    }
}
