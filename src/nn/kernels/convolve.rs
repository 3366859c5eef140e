//! The jobs of all convolutions, and the loop of those that are done directly.

use super::{
    BLOCK, Isa, blocks, filled,
    geometry::Geometry,
    memory::Aligned,
    norm::{self, Totals, Wide},
    tile::{Band, Step},
    window::{Copied, Source},
    winograd::{self, Form, Winograd},
};
use rayon::prelude::*;
use std::ops::Range;

/// Row steps of one job.
const ROWS: usize = 8;
/// Column steps of one job, at least: three tiles.
const COLUMNS: usize = 42;
/// The copied input of one job, in values: it shares 1 MiB of second-level cache with weights and output.
const WINDOW: usize = 128 << 10;
/// Steps between two visits of the output: their weights, 2 KiB each, stay in the second-level cache.
const STEPS: usize = 108;

/// A PyTorch weight and which way it is read.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'a> {
    pub(crate) values: &'a [f32],
    /// Values from one output channel to the next.
    pub(crate) output: usize,
    /// Values from one input channel to the next.
    pub(crate) input: usize,
}

/// The weights of one phase: `[group of up to V blocks][input block][tap][16 inputs][V × 16 outputs]`.
struct Packed {
    data: Aligned,
    /// Three offsets of each tap.
    taps: Vec<[isize; 3]>,
    phase: [usize; 3],
}

/// Where group `group` starts in [`Packed::data`], and how many blocks it has.
fn group_at(geometry: &Geometry, taps: usize, isa: Isa, group: usize) -> (usize, usize) {
    let vectors = isa.vectors();
    let each = blocks(geometry.c_in) * taps * isa.slot() * BLOCK;
    (
        group * vectors * each,
        vectors.min(blocks(geometry.c_out) - group * vectors),
    )
}

fn pack(weight: Weight, geometry: &Geometry, phase: [usize; 3], isa: Isa) -> Packed {
    let (vectors, slot) = (isa.vectors(), isa.slot());
    let share = BLOCK / slot;
    let taps = geometry.taps_of(phase);
    let each = taps.len() * slot * BLOCK;
    let mut data = Aligned::default();
    data.grow(blocks(geometry.c_out) * blocks(geometry.c_in) * each);
    if !taps.is_empty() {
        data.par_chunks_mut(blocks(geometry.c_in) * each * vectors)
            .enumerate()
            .for_each(|(group, data)| {
                let width = data.len() / (blocks(geometry.c_in) * each) * BLOCK;
                let first = group * vectors * BLOCK;
                let outputs = width.min(geometry.c_out - first);
                data.par_chunks_mut(taps.len() * slot * width)
                    .enumerate()
                    .for_each(|(block, data)| {
                        for i in block * BLOCK..((block + 1) * BLOCK).min(geometry.c_in) {
                            // The taps of an input lie side by side, so that one pass through its outputs fetches all of them.
                            for (data, (_, index)) in data.chunks_exact_mut(slot * width).zip(&taps) {
                                let to = &mut data[i % BLOCK / share * width..][..outputs];
                                let from = weight.values[first * weight.output + i * weight.input + index..]
                                    .chunks(weight.output);
                                if share == 1 {
                                    to.iter_mut().zip(from).for_each(|(to, from)| *to = from[0]);
                                } else {
                                    to.iter_mut()
                                        .zip(from)
                                        .for_each(|(to, from)| *to = pair(*to, from[0], i % 2 == 1));
                                }
                            }
                        }
                    });
            });
    }
    Packed {
        data,
        taps: taps.into_iter().map(|(offset, _)| offset).collect(),
        phase,
    }
}

/// Puts `value`, rounded to bf16, into the lower or upper half of a pair.
#[inline(always)]
pub(super) fn pair(pair: f32, value: f32, upper: bool) -> f32 {
    let bits = value.to_bits();
    // To the nearest, ties to even.
    let half = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    f32::from_bits(if upper {
        pair.to_bits() & 0xffff | half << 16
    } else {
        pair.to_bits() & 0xffff_0000 | half
    })
}

/// A pointer that jobs share because each writes voxels of its own.
#[derive(Clone, Copy)]
struct Output(*mut f32);
#[expect(
    unsafe_code,
    reason = "jobs write disjoint voxels of the output; see `convolve`"
)]
// SAFETY: every job derives its own, disjoint voxels from the pointer.
unsafe impl Sync for Output {}

/// `count` parts of nearly equal size: the `index`-th.
fn part(len: usize, count: usize, index: usize) -> Range<usize> {
    let (each, more) = (len / count, len % count);
    let start = index * each + index.min(more);
    start..start + each + usize::from(index < more)
}

/// How the steps of the three axes are cut into jobs.
pub(super) struct Cut {
    /// Parts along depth, rows, columns.
    pub(super) parts: [usize; 3],
    steps: [usize; 3],
    /// Steps that are not cut apart.
    units: [usize; 3],
}

impl Cut {
    /// Cuts so that the window of `blocks` blocks stays within the cache and `threads` have enough to do.
    pub(super) fn new(geometry: &Geometry, blocks: usize, threads: usize) -> Self {
        let steps = [0, 1, 2].map(|a| geometry.axes[a].steps());
        let mut rows = steps[1].div_ceil(ROWS);
        let mut columns = 1;
        let fits = |rows: usize, columns: usize| {
            Copied::len(
                geometry,
                blocks,
                steps[1].div_ceil(rows),
                steps[2].div_ceil(columns),
            ) <= WINDOW
        };
        while !fits(rows, columns) && steps[2].div_ceil(columns + 1) >= COLUMNS {
            columns += 1;
        }
        while !fits(rows, columns) && rows < steps[1].div_ceil(2) {
            rows += 1;
        }
        Self::of(geometry, [rows, columns], [1; 3], 4 * threads)
    }

    /// Cuts rows and columns into so many parts, and planes so that there are about `jobs`.
    pub(super) fn of(
        geometry: &Geometry,
        [rows, columns]: [usize; 2],
        units: [usize; 3],
        jobs: usize,
    ) -> Self {
        let steps = [0, 1, 2].map(|a| geometry.axes[a].steps());
        let planes = jobs.div_ceil(geometry.batch * rows * columns);
        let planes = planes.clamp(1, steps[0].div_ceil(units[0]));
        Self {
            parts: [planes, rows, columns],
            steps,
            units,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.parts.iter().product()
    }

    /// The steps of job `index`.
    pub(super) fn job(&self, index: usize) -> [Range<usize>; 3] {
        let [_, rows, columns] = self.parts;
        let at = [index / (rows * columns), index / columns % rows, index % columns];
        [0, 1, 2].map(|a| {
            let unit = self.units[a];
            let range = part(self.steps[a].div_ceil(unit), self.parts[a], at[a]);
            range.start * unit..(range.end * unit).min(self.steps[a])
        })
    }
}

/// Convolves `x` with `weight`; `bias` may be empty.
///
/// # Shape
/// `x`: sources whose blocks are those of `c_in`; result: `[batch, c_out/16, D, H, W, 16]`.
pub(crate) fn convolve(
    x: &[Source],
    weight: Weight,
    bias: &[f32],
    geometry: &Geometry,
    isa: Isa,
) -> Vec<f32> {
    run(x, weight, bias, geometry, isa, |_, _| ()).0
}

/// The same for a convolution of one phase, and the sums over its output that a norm wants, taken while the output is in the cache.
pub(crate) fn convolve_with_totals(
    x: &[Source],
    weight: Weight,
    bias: &[f32],
    geometry: &Geometry,
    isa: Isa,
) -> (Vec<f32>, Totals) {
    assert_eq!(geometry.phases().len(), 1, "a transposed convolution has no norm");
    let out_blocks = blocks(geometry.c_out);
    let [depth, height, width] = [0, 1, 2].map(|a| geometry.axes[a].output);
    let (out, parts) = run(x, weight, bias, geometry, isa, |done, out| {
        let whole = done.columns.len() == width;
        let (rows, len) = if whole {
            (0..1, done.rows.len() * width)
        } else {
            (0..done.rows.len(), done.columns.len())
        };
        (0..out_blocks)
            .map(|block| {
                let plane = ((done.n * out_blocks + block) * depth + done.plane) * height;
                let rows = rows.clone().map(|row| {
                    let at = ((plane + done.rows.start + row) * width + done.columns.start) * BLOCK;
                    #[expect(unsafe_code, reason = "reads what this job has just written")]
                    // SAFETY: the rows are this job's own and whole.
                    unsafe {
                        std::slice::from_raw_parts(out.add(at), len * BLOCK)
                    }
                });
                norm::add_rows(rows, isa)
            })
            .collect::<Vec<[Wide; 2]>>()
    });
    // First the parts of each plane, then the planes: the cut into planes depends on the number of threads.
    let mut planes = vec![[[0.0; BLOCK]; 2]; geometry.batch * depth * out_blocks];
    for (n, plane, part) in parts {
        let at = (n * depth + plane) * out_blocks;
        planes[at..at + out_blocks].iter_mut().zip(part).for_each(add);
    }
    let mut totals = vec![[[0.0; BLOCK]; 2]; geometry.batch * out_blocks];
    for (image, planes) in planes.chunks(depth * out_blocks).enumerate() {
        for plane in planes.chunks(out_blocks) {
            let at = image * out_blocks;
            totals[at..at + out_blocks]
                .iter_mut()
                .zip(plane.iter().copied())
                .for_each(add);
        }
    }
    (out, totals)
}

fn add((sum, more): (&mut [Wide; 2], [Wide; 2])) {
    for (sum, more) in sum.iter_mut().flatten().zip(more.iter().flatten()) {
        *sum += more;
    }
}

/// A plane of a job.
pub(super) struct Part {
    pub(super) n: usize,
    /// Steps; the plane is one of the planes of the job.
    pub(super) planes: Range<usize>,
    pub(super) plane: usize,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

/// The output, and what `finish` makes of each plane of each job, once it is written, with its image and plane, in the order of the jobs.
fn run<T: Send>(
    x: &[Source],
    weight: Weight,
    bias: &[f32],
    geometry: &Geometry,
    isa: Isa,
    finish: impl Fn(&Part, *const f32) -> T + Sync,
) -> (Vec<f32>, Vec<(usize, usize, T)>) {
    let in_blocks = blocks(geometry.c_in);
    assert_eq!(
        x.iter().map(|source| source.values.len()).sum::<usize>(),
        geometry.in_len(),
        "the input has the shape that was declared"
    );
    assert_eq!(
        weight.values.len(),
        geometry.c_in * geometry.c_out * geometry.taps(),
        "the weight has the shape that was declared"
    );
    let mut padded_bias = vec![0.0; blocks(geometry.c_out) * BLOCK];
    padded_bias[..bias.len()].copy_from_slice(bias);
    if let Some(form) = Form::of(geometry, isa) {
        return filtered(x, weight, &padded_bias, geometry, (form, isa), finish);
    }
    let packed: Vec<Packed> = geometry
        .phases()
        .into_iter()
        .map(|phase| pack(weight, geometry, phase, isa))
        .collect();
    let cut = Cut::new(geometry, in_blocks, rayon::current_num_threads());
    let open = |(window, _): &mut (Copied, Vec<Step>), part: &Part| {
        window.open(
            geometry,
            0..in_blocks,
            part.rows.clone(),
            part.columns.clone(),
            isa,
        );
    };
    let write = |(window, steps): &mut (Copied, Vec<Step>), part: &Part, out: *mut f32| {
        window.advance(x, geometry, part.n, part.plane, isa);
        for packed in &packed {
            let plane = Plane {
                geometry,
                window,
                packed,
                bias: &padded_bias,
                at: [part.plane, part.rows.start, part.columns.start],
                rows: part.rows.end,
                columns: part.columns.end,
                n: part.n,
            };
            #[expect(unsafe_code, reason = "hands each job the voxels that it owns")]
            // SAFETY: as `jobs` calls it.
            unsafe {
                convolve_plane(&plane, steps, out, isa);
            }
        }
    };
    jobs(geometry, &cut, open, write, finish)
}

/// The same by Winograd's filtering; `bias` is that of all blocks.
pub(super) fn filtered<T: Send>(
    x: &[Source],
    weight: Weight,
    bias: &[f32],
    geometry: &Geometry,
    (form, isa): (Form, Isa),
    finish: impl Fn(&Part, *const f32) -> T + Sync,
) -> (Vec<f32>, Vec<(usize, usize, T)>) {
    let winograd = Winograd::new(x, weight, bias, geometry, form, isa);
    let cut = form.cut(geometry, isa, rayon::current_num_threads());
    let open = |held: &mut winograd::Held, part: &Part| winograd.open(held, part);
    #[expect(unsafe_code, reason = "hands each job the voxels that it owns")]
    // SAFETY: as `jobs` calls it.
    let write = |held: &mut _, part: &Part, out| unsafe { winograd.convolve(held, part, out) };
    jobs(geometry, &cut, open, write, finish)
}

/// Runs all jobs of a convolution: `open` starts one, given its first plane, `write` writes a plane of it into the output, from the first to the last.
///
/// `write` writes every voxel of every phase of its part, and no other.
fn jobs<S: Default, T: Send>(
    geometry: &Geometry,
    cut: &Cut,
    open: impl Fn(&mut S, &Part) + Sync,
    write: impl Fn(&mut S, &Part, *mut f32) + Sync,
    finish: impl Fn(&Part, *const f32) -> T + Sync,
) -> (Vec<f32>, Vec<(usize, usize, T)>) {
    let mut parts: Vec<Vec<(usize, usize, T)>> = Vec::new();
    let run = |target: *mut f32| {
        let target = Output(target);
        let jobs = (0..geometry.batch * cut.count())
            .into_par_iter()
            .map_init(S::default, |state, job| {
                let target = &target;
                let n = job / cut.count();
                let [planes, rows, columns] = cut.job(job % cut.count());
                let mut part = Part {
                    n,
                    plane: planes.start,
                    planes,
                    rows,
                    columns,
                };
                open(state, &part);
                part.planes
                    .clone()
                    .map(|plane| {
                        part.plane = plane;
                        write(state, &part, target.0);
                        (n, plane, finish(&part, target.0))
                    })
                    .collect()
            });
        jobs.collect_into_vec(&mut parts);
    };
    #[expect(unsafe_code, reason = "the output is not zeroed first")]
    // SAFETY: no two jobs have the same voxels; they cover all steps, the phases of a step all its voxels: every value is written.
    let out = unsafe { filled(geometry.out_len(), run) };
    (out, parts.into_iter().flatten().collect())
}

/// One plane of one job.
struct Plane<'a> {
    geometry: &'a Geometry,
    window: &'a Copied,
    packed: &'a Packed,
    bias: &'a [f32],
    /// First steps.
    at: [usize; 3],
    /// Ends of the steps.
    rows: usize,
    columns: usize,
    n: usize,
}

/// # Safety
/// `out` is the whole output; nobody else writes the voxels of this plane, these rows and columns meanwhile.
#[expect(unsafe_code, reason = "jobs write disjoint voxels")]
#[expect(clippy::cast_possible_wrap, reason = "axes are far below the limit of isize")]
unsafe fn convolve_plane(job: &Plane, steps: &mut Vec<Step>, out: *mut f32, isa: Isa) {
    let Plane {
        geometry,
        window,
        packed,
        ..
    } = *job;
    let [z, y, x] = &geometry.axes;
    let [a, b, c] = packed.phase;
    let rows = y.steps_of(b).min(job.rows).saturating_sub(job.at[1]);
    let columns = x.steps_of(c).min(job.columns).saturating_sub(job.at[2]);
    if job.at[0] >= z.steps_of(a) || rows == 0 || columns == 0 {
        return;
    }
    let (in_blocks, out_blocks, vectors) = (blocks(geometry.c_in), blocks(geometry.c_out), isa.vectors());
    let taps = packed.taps.len();
    let voxel = [
        job.at[0] * z.step + a,
        job.at[1] * y.step + b,
        job.at[2] * x.step + c,
    ];
    let first = (voxel[0] * y.output + voxel[1]) * x.output + voxel[2];
    // Taps on planes outside the input add nothing.
    let plane = |offset: &[isize; 3]| {
        let plane = (job.at[0] * z.stride) as isize + offset[0];
        (0..z.input as isize).contains(&plane).then_some(plane)
    };
    for group in 0..out_blocks.div_ceil(vectors) {
        let (at, width) = group_at(geometry, taps, isa, group);
        let len = in_blocks * taps * isa.slot() * BLOCK * width;
        steps.clear();
        for block in 0..in_blocks {
            for (tap, offset) in packed.taps.iter().enumerate() {
                if let Some(plane) = plane(offset) {
                    steps.push(Step {
                        x: window.at(block, plane, *offset),
                        weight: (block * taps + tap) * isa.slot() * width * BLOCK,
                    });
                }
            }
        }
        let bias = &job.bias[group * vectors * BLOCK..(group * vectors + width) * BLOCK];
        let blocks_at = [0, width - 1].map(|v| {
            let block = job.n * out_blocks + group * vectors + v;
            out.wrapping_add((block * geometry.out_voxels() + first) * BLOCK)
        });
        // The last block of input channels may not be full.
        let each = steps.len() / in_blocks;
        let full = geometry.c_in / BLOCK * each;
        let rest = (geometry.c_in % BLOCK).div_ceil(BLOCK / isa.slot());
        let mut bias = Some(bias);
        for (part, channels) in [(&steps[..full], isa.slot()), (&steps[full..], rest)] {
            let mut chunks = part.chunks(STEPS);
            // Without any tap the output is the bias.
            let empty: &[Step] = &[];
            let none = (part.is_empty() && steps.is_empty() && bias.is_some()).then_some(empty);
            for steps in chunks.by_ref().chain(none) {
                let band = Band {
                    x: &window.data,
                    row_step: window.row_step(geometry),
                    steps,
                    channels: channels.max(1),
                    weight: &packed.data[at..at + len],
                    bias: bias.take(),
                    rows,
                    columns,
                    out_row: y.step * x.output * BLOCK,
                    out_step: x.step * BLOCK,
                };
                // SAFETY: the voxels are this job's own; after the first round they hold its sums.
                unsafe { isa.run(&band, width, blocks_at) };
            }
        }
    }
}
