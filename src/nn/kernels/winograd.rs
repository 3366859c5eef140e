//! Winograd's minimal filtering: 3×3 taps in the plane, two by two outputs at a time, with 16 products instead of 36.
//!
//! A tile of 4×4 inputs becomes 16 sums (its frequencies), each of which is multiplied by the weight's own and added up over channels and depth; 2×2 outputs are sums of the 16 results.
//! The products of one frequency are a convolution of 1×1 taps in the plane, so that [`super::tile`] computes them; the sums before and after are done by a job on what its cache holds, and no transformed tensor passes over memory.
//! Tiles begin at even rows and columns, whatever the cut into jobs, so that results do not depend on it.
//!
//! Its sums have other rounding errors than those of a direct convolution, about twice as large (`tests`).
//! Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, doi:10.1109/CVPR.2016.435: F(2×2, 3×3).

use super::{
    BLOCK, Isa, blocks,
    convolve::{Cut, Part, Weight},
    geometry::{Axis, Geometry, Window},
    lanes::Lanes,
    memory::Aligned,
    tile::{Band, Step},
    window::{Copied, Source},
};
use rayon::prelude::*;
use std::ops::Range;

/// Outputs of a tile along each axis.
pub(super) const TILE: usize = 2;
/// Frequencies of a tile.
pub(super) const FREQUENCIES: usize = 16;
/// What a job holds of a plane, in values: most of 1 MiB of second-level cache.
const HELD: usize = 200 << 10;
/// What a job holds of all planes that are multiplied together, in values; of it one frequency at a time is in use.
const HELD_TOGETHER: usize = 768 << 10;
/// Tile columns of a job, at least.
const COLUMNS: usize = 24;

/// With fewer channels on either side the sums cost more than the products that they save.
const LEAST_CHANNELS: usize = 32;
/// With fewer voxels an image the weights' frequencies, which are worked out anew each time, cost more than is saved.
/// Of one image: what stands beside it must not change its result.
const LEAST_VOXELS: usize = 800;

/// A convolution that is done this way.
pub(super) struct Winograd<'a> {
    x: &'a [Source<'a>],
    /// `[group of up to V blocks][frequency][input block][tap along depth][16 inputs][V × 16 outputs]`
    weight: Aligned,
    /// Of all blocks.
    bias: &'a [f32],
    geometry: &'a Geometry,
    /// Row and column taps on one plane: what is copied of the input.
    plane: Geometry,
    isa: Isa,
}

/// What one thread holds.
#[derive(Default)]
pub(super) struct Held {
    raw: Copied,
    /// `[plane of the ring][block][frequency][tile row][tile column][16]`
    spread: Aligned,
    /// Planes of the ring.
    depth: usize,
    /// Planes that are in it.
    planes: Range<isize>,
    /// `[plane][frequency][block][tile row][tile column][16]`
    sums: Aligned,
    /// Planes of the output that are multiplied together, and those whose sums are there.
    together: usize,
    multiplied: Range<usize>,
    steps: Vec<Step>,
}

/// Whether a convolution has the form for it, and gains by it.
pub(super) fn suits(geometry: &Geometry, isa: Isa) -> bool {
    has_form(geometry, isa)
        && geometry.c_in.min(geometry.c_out) >= LEAST_CHANNELS
        && geometry.out_voxels() >= LEAST_VOXELS
}

/// Whether a convolution has three neighbouring taps along rows and columns, and f32.
pub(super) fn has_form(geometry: &Geometry, isa: Isa) -> bool {
    let [z, y, x] = &geometry.axes;
    let three = |axis: &Axis| {
        let (low, high) = axis.reach();
        axis.kernel == 3 && axis.stride == 1 && axis.step == 1 && high - low == 2
    };
    isa.slot() == BLOCK && z.step == 1 && three(y) && three(x)
}

/// Values that a job of so many rows and columns holds of a plane.
fn held(geometry: &Geometry, rows: usize, columns: usize) -> usize {
    let depth = geometry.axes[0].under(0, 1).1;
    let (rows, columns) = (rows.div_ceil(TILE), columns.div_ceil(TILE));
    let tiles = rows * columns * BLOCK * FREQUENCIES;
    let raw = (TILE * rows + 2) * (TILE * columns + 2) * BLOCK;
    blocks(geometry.c_in) * (depth * tiles + raw) + blocks(geometry.c_out) * tiles
}

/// Values of all frequencies of the weights.
fn weights(geometry: &Geometry) -> usize {
    let taps = geometry.axes[0].phases[0].len();
    FREQUENCIES * taps * blocks(geometry.c_in) * blocks(geometry.c_out) * BLOCK * BLOCK
}

/// The cut into jobs: whole tiles.
pub(super) fn cut(geometry: &Geometry, threads: usize) -> Cut {
    let tiles = [1, 2].map(|a| geometry.axes[a].steps().div_ceil(TILE));
    // Every job has all weights pass by: where these are more than what it holds, few jobs hold more.
    let (most, jobs) = if weights(geometry) > HELD_TOGETHER {
        (HELD_TOGETHER, 2 * threads)
    } else {
        (HELD, 4 * threads)
    };
    let fits = |rows: usize, columns: usize| {
        held(
            geometry,
            TILE * tiles[0].div_ceil(rows),
            TILE * tiles[1].div_ceil(columns),
        ) <= most
    };
    let (mut rows, mut columns) = (tiles[0].div_ceil(4), 1);
    while !fits(rows, columns) && rows < tiles[0].div_ceil(2) {
        rows += 1;
    }
    while !fits(rows, columns) && tiles[1].div_ceil(columns + 1) >= COLUMNS {
        columns += 1;
    }
    while !fits(rows, columns) && rows < tiles[0] {
        rows += 1;
    }
    Cut::of(geometry, [rows, columns], [1, TILE, TILE], jobs)
}

/// The places in the weight of an axis's three taps, by their offsets.
fn order(axis: &Axis) -> [usize; 3] {
    let low = axis.reach().0;
    [0, 1, 2].map(|k| {
        let tap = axis.phases[0].iter().find(|tap| tap.offset == low + k);
        tap.map_or(0, |tap| tap.index)
    })
}

/// The weights of all frequencies: the layout is that of [`Winograd::weight`].
fn pack(weight: Weight, geometry: &Geometry, isa: Isa) -> Aligned {
    let [z, y, x] = &geometry.axes;
    let (rows, columns) = (order(y), order(x));
    let taps = &z.phases[0];
    let each = FREQUENCIES * blocks(geometry.c_in) * taps.len() * BLOCK * BLOCK;
    let mut data = Aligned::default();
    data.grow(weights(geometry));
    data.par_chunks_mut(isa.vectors() * each)
        .enumerate()
        .for_each(|(group, data)| {
            let width = data.len() / each * BLOCK;
            let first = group * isa.vectors() * BLOCK;
            let outputs = width.min(geometry.c_out - first);
            let len = data.len() / FREQUENCIES;
            let mut planes = vec![[0.0; LANES]; 9 * taps.len()];
            for i in 0..geometry.c_in {
                for o in 0..outputs {
                    let from = (first + o) * weight.output + i * weight.input;
                    for (plane, value) in planes.iter_mut().zip(&weight.values[from..]) {
                        plane[o] = *value;
                    }
                }
                for (k, tap) in taps.iter().enumerate() {
                    let plane = &planes[9 * tap.index..];
                    let across = rows.map(|r| frequencies(columns.map(|c| &plane[3 * r + c])));
                    let at = ((i / BLOCK * taps.len() + k) * BLOCK + i % BLOCK) * width;
                    for column in 0..4 {
                        let down = frequencies([0, 1, 2].map(|r| &across[r][column]));
                        for (row, values) in down.iter().enumerate() {
                            data[(4 * row + column) * len + at..][..width].copy_from_slice(&values[..width]);
                        }
                    }
                }
            }
        });
    data
}

/// Outputs of a group at most.
const LANES: usize = 2 * BLOCK;

/// The four frequencies of three taps, for many outputs.
fn frequencies([a, b, c]: [&[f32; LANES]; 3]) -> [[f32; LANES]; 4] {
    let mut sums = [*a, *a, *a, *c];
    for o in 0..LANES {
        sums[1][o] = (a[o] + c[o] + b[o]) * 0.5;
        sums[2][o] = (a[o] + c[o] - b[o]) * 0.5;
    }
    sums
}

impl<'a> Winograd<'a> {
    pub(super) fn new(
        x: &'a [Source],
        weight: Weight,
        bias: &'a [f32],
        geometry: &'a Geometry,
        isa: Isa,
    ) -> Self {
        let [z, rows, columns] = &geometry.axes;
        let one = Window {
            kernel: 1,
            stride: 1,
            padding: 0,
            dilation: 1,
        };
        let plane = Axis::convolution(z.input, z.input, one);
        Self {
            x,
            weight: pack(weight, geometry, isa),
            bias,
            geometry,
            plane: Geometry {
                axes: [plane, rows.clone(), columns.clone()],
                ..geometry.clone()
            },
            isa,
        }
    }

    /// Starts the job of a part.
    pub(super) fn open(&self, held: &mut Held, part: &Part) {
        let (in_blocks, out_blocks) = (blocks(self.geometry.c_in), blocks(self.geometry.c_out));
        let [high, wide] = part.tiles();
        let values = high * wide * BLOCK * FREQUENCIES;
        let [rows, columns] = [(&part.rows, high), (&part.columns, wide)]
            .map(|(range, tiles)| range.start..range.start + TILE * tiles);
        held.raw.open(&self.plane, 0..in_blocks, rows, columns, self.isa);
        // All weights pass by once for the planes that are multiplied together: as much should be held as they are.
        let of_plane = (in_blocks + out_blocks) * values;
        held.together = self.weight.len().min(HELD_TOGETHER) / of_plane;
        held.together = held.together.clamp(1, part.planes.len());
        held.depth = self.geometry.axes[0].under(0, held.together).1;
        held.planes = 0..0;
        held.multiplied = 0..0;
        held.spread.grow(held.depth * in_blocks * values);
        held.sums.grow(held.together * out_blocks * values);
    }

    /// Convolves a plane of the part that was opened.
    ///
    /// # Safety
    /// `out` is the whole output; nobody else writes the voxels of this part meanwhile.
    #[expect(unsafe_code, reason = "jobs write disjoint voxels")]
    pub(super) unsafe fn convolve(&self, held: &mut Held, part: &Part, out: *mut f32) {
        if !held.multiplied.contains(&part.plane) {
            held.multiplied = part.plane..(part.plane + held.together).min(part.planes.end);
            self.advance(held, part);
            self.multiply(held, part);
        }
        // SAFETY: the caller's own.
        unsafe { self.gather(held, part, out) }
    }

    /// Spreads the planes of the input that are wanted and not there yet.
    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "axes are far below the limit of isize; planes lie within the input"
    )]
    fn advance(&self, held: &mut Held, part: &Part) {
        let axis = &self.geometry.axes[0];
        let (first, count) = axis.under(held.multiplied.start, held.multiplied.len());
        let wanted = first.max(0)..(first + count as isize).min(axis.input as isize);
        let in_blocks = blocks(self.geometry.c_in);
        let [rows, columns] = part.tiles();
        let [y, x] = [1, 2].map(|a| self.geometry.axes[a].reach().0);
        let each = FREQUENCIES * rows * columns * BLOCK;
        for plane in wanted.start.max(held.planes.end)..wanted.end {
            held.raw
                .advance(self.x, &self.plane, part.n, plane as usize, self.isa);
            let row_len = held.raw.row_step(&self.plane);
            for block in 0..in_blocks {
                let from = &held.raw.data[held.raw.at(block, plane, [0, y, x])..];
                let to = ring(plane, held.depth, in_blocks, block) * each;
                self.isa
                    .spread(from, row_len, &mut held.spread[to..to + each], [rows, columns]);
            }
        }
        held.planes = wanted.start..wanted.end.max(held.planes.end);
    }

    /// The products of all frequencies, added up over channels and depth.
    fn multiply(&self, held: &mut Held, part: &Part) {
        let (in_blocks, out_blocks) = (blocks(self.geometry.c_in), blocks(self.geometry.c_out));
        let vectors = self.isa.vectors();
        let len = in_blocks * self.geometry.axes[0].phases[0].len() * BLOCK * BLOCK;
        // The last group may be of fewer blocks; the steps of all others are the same for every frequency.
        let wide = out_blocks / vectors * vectors;
        for (groups, width) in [(0..wide, vectors), (wide..out_blocks, out_blocks - wide)] {
            if groups.is_empty() {
                continue;
            }
            held.steps.clear();
            let planes: Vec<Range<usize>> = held
                .multiplied
                .clone()
                .map(|plane| {
                    let start = held.steps.len();
                    self.add_steps(held, part, plane, width);
                    start..held.steps.len()
                })
                .collect();
            for frequency in 0..FREQUENCIES {
                for block in groups.clone().step_by(width) {
                    let at = (block * FREQUENCIES + frequency * width) * len;
                    let weight = &self.weight[at..at + len * width];
                    for (plane, steps) in planes.iter().enumerate() {
                        let to = (plane * FREQUENCIES + frequency) * out_blocks + block;
                        self.multiply_plane(held, part, [frequency, to], weight, steps.clone());
                    }
                }
            }
        }
    }

    /// The steps of a plane of the output at the first frequency.
    #[expect(clippy::cast_possible_wrap, reason = "axes are far below the limit of isize")]
    fn add_steps(&self, held: &mut Held, part: &Part, plane: usize, width: usize) {
        let axis = &self.geometry.axes[0];
        let taps = &axis.phases[0];
        let in_blocks = blocks(self.geometry.c_in);
        let [rows, columns] = part.tiles();
        for block in 0..in_blocks {
            for (k, tap) in taps.iter().enumerate() {
                // Taps on planes outside the input add nothing.
                let plane = (plane * axis.stride) as isize + tap.offset;
                if (0..axis.input as isize).contains(&plane) {
                    held.steps.push(Step {
                        x: ring(plane, held.depth, in_blocks, block) * FREQUENCIES * rows * columns * BLOCK,
                        weight: (block * taps.len() + k) * BLOCK * BLOCK * width,
                    });
                }
            }
        }
    }

    /// The products of one frequency and plane with the weights of some blocks, whose sums begin at place `to`.
    fn multiply_plane(
        &self,
        held: &mut Held,
        part: &Part,
        [frequency, to]: [usize; 2],
        weight: &[f32],
        steps: Range<usize>,
    ) {
        let [rows, columns] = part.tiles();
        let tiles = rows * columns * BLOCK;
        let c_in = self.geometry.c_in;
        let in_blocks = blocks(c_in);
        let width = weight.len() / (in_blocks * self.geometry.axes[0].phases[0].len() * BLOCK * BLOCK);
        let to = &mut held.sums[to * tiles..(to + width) * tiles];
        let first = to.as_mut_ptr();
        let to = [first, first.wrapping_add((width - 1) * tiles)];
        let steps = &held.steps[steps];
        // The last block of input channels may not be full.
        let (full, rest) = steps.split_at(c_in / BLOCK * (steps.len() / in_blocks));
        let none = [0.0; LANES];
        let mut bias = Some(&none[..width * BLOCK]);
        for (part, channels) in [(full, BLOCK), (rest, c_in % BLOCK)] {
            // Without any tap the sums are zero.
            let none = steps.is_empty() && channels == BLOCK;
            if part.is_empty() && !none {
                continue;
            }
            let band = Band {
                x: &held.spread[frequency * tiles..],
                // Tiles follow each other whatever their rows.
                rows: 1,
                columns: rows * columns,
                row_step: tiles,
                steps: part,
                channels,
                weight,
                bias: bias.take(),
                out_row: tiles,
                out_step: BLOCK,
            };
            #[expect(unsafe_code, reason = "tiles write through raw pointers")]
            // SAFETY: the blocks of sums are this job's own and hold all tiles; after the first round they hold its sums.
            unsafe {
                self.isa.run(&band, width, to);
            }
        }
    }

    /// Writes the outputs of all tiles.
    ///
    /// # Safety
    /// As [`Self::convolve`].
    #[expect(unsafe_code, reason = "jobs write disjoint voxels")]
    unsafe fn gather(&self, held: &Held, part: &Part, out: *mut f32) {
        let [z, y, x] = &self.geometry.axes;
        let out_blocks = blocks(self.geometry.c_out);
        let [rows, columns] = part.tiles();
        let each = rows * columns * BLOCK;
        let sums = (part.plane - held.multiplied.start) * FREQUENCIES * out_blocks;
        for block in 0..out_blocks {
            let bias = &self.bias[block * BLOCK..(block + 1) * BLOCK];
            let plane = ((part.n * out_blocks + block) * z.output + part.plane) * y.output;
            for row in 0..rows {
                let from = &held.sums[(sums + block) * each + row * columns * BLOCK..];
                let at = (plane + part.rows.start + TILE * row) * x.output + part.columns.start;
                let both = TILE * row + 1 < part.rows.len();
                // SAFETY: the rows and columns are those of this part.
                unsafe {
                    let first = out.add(at * BLOCK);
                    let second = if both {
                        first.add(x.output * BLOCK)
                    } else {
                        std::ptr::null_mut()
                    };
                    self.isa
                        .gather(from, out_blocks * each, bias, [first, second], part.columns.len());
                }
            }
        }
    }
}

impl Part {
    /// Rows and columns of tiles.
    fn tiles(&self) -> [usize; 2] {
        [&self.rows, &self.columns].map(|range| range.len().div_ceil(TILE))
    }
}

/// Where a block of a plane lies in the ring.
#[expect(clippy::cast_possible_wrap, reason = "a ring has a handful of planes")]
fn ring(plane: isize, planes: usize, in_blocks: usize, block: usize) -> usize {
    plane.rem_euclid(planes as isize) as usize * in_blocks + block
}

/// Four values → four sums of two of them; `signs` are 1 and −1.
///
/// # Safety
/// L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "as `Lanes`")]
unsafe fn to_frequencies<L: Lanes>([a, b, c, d]: [L; 4], [one, minus]: [L; 2]) -> [L; 4] {
    // SAFETY: the caller's own.
    unsafe {
        [
            a.add_product(c, minus),
            b.add_product(c, one),
            c.add_product(b, minus),
            b.add_product(d, minus),
        ]
    }
}

/// Four sums → the two outputs.
///
/// # Safety
/// As [`to_frequencies`].
#[inline(always)]
#[expect(unsafe_code, reason = "as `Lanes`")]
unsafe fn to_outputs<L: Lanes>([a, b, c, d]: [L; 4], [one, minus]: [L; 2]) -> [L; 2] {
    // SAFETY: the caller's own.
    unsafe {
        [
            a.add_product(b, one).add_product(c, one),
            b.add_product(c, minus).add_product(d, minus),
        ]
    }
}

/// Rows as columns.
#[inline(always)]
fn turned<L: Copy, const N: usize>(rows: [[L; N]; 4]) -> [[L; 4]; N] {
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

/// The voxels of a column of four rows.
///
/// # Safety
/// They can be read; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "as `Lanes`")]
unsafe fn column_of<L: Lanes>(from: *const f32, row_len: usize) -> [L; 4] {
    // SAFETY: the caller's own.
    unsafe {
        [
            L::load(from),
            L::load(from.add(row_len)),
            L::load(from.add(2 * row_len)),
            L::load(from.add(3 * row_len)),
        ]
    }
}

/// Values of tiles → their frequencies: `from` is rows of voxels, `to` `[frequency][row][column][16]`.
///
/// # Safety
/// There are 2 + 2 × tiles rows and columns, and L's instruction set.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
pub(super) unsafe fn spread_of<L: Lanes>(
    from: *const f32,
    row_len: usize,
    to: *mut f32,
    [rows, columns]: [usize; 2],
) {
    let each = rows * columns * BLOCK;
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        let signs = [L::load([1.0; BLOCK].as_ptr()), L::load([-1.0; BLOCK].as_ptr())];
        for row in 0..rows {
            let mut from = from.add(TILE * row * row_len);
            let mut to = to.add(row * columns * BLOCK);
            let mut down = [[signs[0]; 4]; 4];
            for c in 0..TILE {
                down[TILE + c] = to_frequencies(column_of(from.add(c * BLOCK), row_len), signs);
            }
            for _ in 0..columns {
                // Two of a tile's columns are those of the tile before.
                from = from.wrapping_add(TILE * BLOCK);
                for c in 0..TILE {
                    down[c] = down[TILE + c];
                    down[TILE + c] = to_frequencies(column_of(from.add(c * BLOCK), row_len), signs);
                }
                for (r, values) in turned(down).into_iter().enumerate() {
                    let across = to_frequencies(values, signs);
                    for (c, value) in across.into_iter().enumerate() {
                        value.store(to.add((4 * r + c) * each));
                    }
                }
                to = to.wrapping_add(BLOCK);
            }
        }
    }
}

/// Sums of the frequencies of a row of tiles → two rows of outputs, the second of which may not be wanted.
///
/// # Safety
/// `from` has all tiles of each frequency, `each` values from one to the next; the rows have `columns` voxels; bias 16 values; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
pub(super) unsafe fn gather_of<L: Lanes>(
    mut from: *const f32,
    each: usize,
    bias: *const f32,
    out: [*mut f32; 2],
    columns: usize,
) {
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        let signs = [L::load([1.0; BLOCK].as_ptr()), L::load([-1.0; BLOCK].as_ptr())];
        let bias = L::load(bias);
        for column in (0..columns).step_by(TILE) {
            let mut across = [[signs[0]; TILE]; 4];
            for (r, outputs) in across.iter_mut().enumerate() {
                let line = from.add(4 * r * each);
                let values = [
                    L::load(line),
                    L::load(line.add(each)),
                    L::load(line.add(2 * each)),
                    L::load(line.add(3 * each)),
                ];
                *outputs = to_outputs(values, signs);
            }
            let voxels = turned(across).into_iter().take(columns - column);
            for (c, values) in voxels.enumerate() {
                for (value, out) in to_outputs(values, signs).into_iter().zip(out) {
                    if !out.is_null() {
                        let to = out.add((column + c) * BLOCK);
                        value.add_product(bias, signs[0]).store(to);
                    }
                }
            }
            from = from.wrapping_add(BLOCK);
        }
    }
}
