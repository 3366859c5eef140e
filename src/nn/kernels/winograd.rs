//! Winograd's minimal filtering: three taps an axis, two outputs at a time, with four products instead of six.
//!
//! In the plane a tile of 4×4 inputs becomes 16 sums (its frequencies), each of which is multiplied by the weight's own and added up over channels; 2×2 outputs are sums of the 16 results: 16 products instead of 36.
//! Three neighbouring taps along depth are filtered in the same way: sums of two planes of four, spread as a plane is, have the products of 64 frequencies in all, instead of 216, and an output plane is the sum of three of the four results. Other taps along depth add up their products as channels do.
//! The products of one frequency are a convolution of a single tap, so that [`super::tile`] computes them; the sums before and after are done by a job on what its cache holds, and no transformed tensor passes over memory.
//! Tiles begin at even planes, rows and columns, whatever the cut into jobs, so that results do not depend on it.
//!
//! Its sums have other rounding errors than those of a direct convolution, about twice as large (`tests`).
//! With bf16 it is the frequencies that are rounded; sums before and after are f32.
//! Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, doi:10.1109/CVPR.2016.435: F(2×2, 3×3).

use super::{
    BLOCK, Isa, blocks,
    convolve::{Cut, Part, Weight},
    geometry::{Axis, Geometry, Tap},
    memory::Aligned,
    tile::{Band, Step},
    transform::{FREQUENCIES, LANES, SPREAD, SPREAD_FROM, Sum, TILE},
    window::{Copied, Source},
};
use rayon::prelude::*;
use std::ops::Range;

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
/// Filtering along depth as well gains with so many channels on both sides at least: twice as many values are held then for each of the output.
const LEAST_DEEP_CHANNELS: usize = 64;
/// And with so many voxels an image: the weights have a third more frequencies.
const LEAST_DEEP_VOXELS: usize = 4096;
/// And with so many planes: with fewer, the taps that fall on no plane save as much.
const LEAST_DEEP_PLANES: usize = 4;

/// A convolution that is done this way.
pub(super) struct Winograd<'a> {
    x: &'a [Source<'a>],
    /// `[group of up to V blocks][frequency][input block][tap or frequency along depth][16 inputs, or 8 pairs][V × 16 outputs]`
    weight: Aligned,
    /// Of all blocks.
    bias: &'a [f32],
    geometry: &'a Geometry,
    /// What is copied of the input at a time: a plane, or those of a tile, under row and column taps.
    copied: Geometry,
    form: Form,
    isa: Isa,
}

/// What one thread holds.
#[derive(Default)]
pub(super) struct Held {
    raw: Copied,
    /// A plane outside the input.
    none: Aligned,
    /// `[plane][block][frequency][tile row][tile column][16]`; planes are a ring, or the tiles' frequencies along depth.
    spread: Aligned,
    /// Planes of the ring.
    depth: usize,
    /// Planes that are in it.
    planes: Range<isize>,
    /// `[plane][frequency][block][tile row][tile column][16]`; planes are those of the output, or the tiles' frequencies along depth.
    sums: Aligned,
    /// Planes of the output that are multiplied together, and those whose sums are there.
    together: usize,
    multiplied: Range<usize>,
    steps: Vec<Step>,
}

/// Which axes are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Rows and columns.
    Flat,
    /// Depth, too.
    Deep,
}

impl Form {
    /// The one that a convolution gains by.
    pub(super) fn of(geometry: &Geometry, isa: Isa) -> Option<Self> {
        let (channels, voxels) = (geometry.c_in.min(geometry.c_out), geometry.out_voxels());
        // A product of bf16 costs half as much, and saving it is worth half.
        let worth = channels * geometry.axes[0].kernel >= LEAST_CHANNELS * BLOCK / isa.slot();
        let enough = worth && channels >= LEAST_CHANNELS && voxels >= LEAST_VOXELS;
        if !enough || !Self::Flat.suits(geometry, isa) {
            return None;
        }
        let deep = Self::Deep.suits(geometry, isa)
            && channels >= LEAST_DEEP_CHANNELS
            && voxels >= LEAST_DEEP_VOXELS
            && geometry.axes[0].output >= LEAST_DEEP_PLANES;
        Some(if deep { Self::Deep } else { Self::Flat })
    }

    /// Whether a convolution has three neighbouring taps and no stride along the axes that are filtered, and no half of a pair of bf16.
    pub(super) fn suits(self, geometry: &Geometry, isa: Isa) -> bool {
        let neighbours = |axis: &Axis| {
            let (low, high) = axis.reach();
            axis.kernel == 3 && axis.stride == 1 && axis.step == 1 && high - low == 2
        };
        let [z, y, x] = &geometry.axes;
        let depth = match self {
            Self::Flat => z.step == 1,
            Self::Deep => neighbours(z),
        };
        let whole = isa.slot() == BLOCK || geometry.c_in.is_multiple_of(2);
        whole && depth && neighbours(y) && neighbours(x)
    }

    /// Planes of the output that a tile has.
    fn planes(self) -> usize {
        match self {
            Self::Flat => 1,
            Self::Deep => TILE,
        }
    }

    /// Weights along depth: taps, or frequencies.
    pub(super) fn depth_of_weights(self, geometry: &Geometry) -> usize {
        match self {
            Self::Flat => geometry.axes[0].phases[0].len(),
            Self::Deep => SPREAD,
        }
    }

    /// Values of all frequencies of the weights.
    fn weights(self, geometry: &Geometry, isa: Isa) -> usize {
        let channels = blocks(geometry.c_in) * isa.slot() * blocks(geometry.c_out) * BLOCK;
        FREQUENCIES * self.depth_of_weights(geometry) * channels
    }

    /// Values that a job of so many rows and columns holds for a plane of tiles.
    fn held(self, geometry: &Geometry, isa: Isa, rows: usize, columns: usize) -> usize {
        let (spread, copied, sums) = match self {
            Self::Flat => (geometry.axes[0].under(0, 1).1, 1, 1),
            Self::Deep => (SPREAD, SPREAD, SPREAD),
        };
        let (rows, columns) = (rows.div_ceil(TILE), columns.div_ceil(TILE));
        let tiles = rows * columns * FREQUENCIES;
        let raw = (TILE * rows + 2) * (TILE * columns + 2) * BLOCK;
        blocks(geometry.c_in) * (spread * tiles * isa.slot() + copied * raw)
            + blocks(geometry.c_out) * sums * tiles * BLOCK
    }

    /// The cut into jobs: whole tiles.
    pub(super) fn cut(self, geometry: &Geometry, isa: Isa, threads: usize) -> Cut {
        let tiles = [1, 2].map(|a| geometry.axes[a].steps().div_ceil(TILE));
        // Every job has all weights pass by: where these are more than what it holds, few jobs hold more.
        let (most, jobs) = if self.weights(geometry, isa) > HELD_TOGETHER {
            (HELD_TOGETHER, 2 * threads)
        } else {
            (HELD, 4 * threads)
        };
        let fits = |rows: usize, columns: usize| {
            let [rows, columns] = [tiles[0].div_ceil(rows), tiles[1].div_ceil(columns)];
            self.held(geometry, isa, TILE * rows, TILE * columns) <= most
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
        Cut::of(geometry, [rows, columns], [self.planes(), TILE, TILE], jobs)
    }
}

/// The weights of all frequencies: the layout is that of [`Winograd::weight`].
fn pack(weight: Weight, geometry: &Geometry, form: Form, isa: Isa) -> Aligned {
    let len = form.weights(geometry, isa);
    let each = len / blocks(geometry.c_out);
    let mut data = Aligned::default();
    data.grow(len);
    data.par_chunks_mut(isa.vectors() * each)
        .enumerate()
        .for_each(|(group, data)| {
            let first = group * isa.vectors() * BLOCK;
            if data.len() == each {
                isa.pack::<BLOCK>(weight, geometry, form, first, data);
            } else {
                isa.pack::<LANES>(weight, geometry, form, first, data);
            }
        });
    data
}

impl<'a> Winograd<'a> {
    pub(super) fn new(
        x: &'a [Source],
        weight: Weight,
        bias: &'a [f32],
        geometry: &'a Geometry,
        form: Form,
        isa: Isa,
    ) -> Self {
        let [z, rows, columns] = &geometry.axes;
        let (count, low) = match form {
            Form::Flat => (1, 0),
            Form::Deep => (SPREAD, z.reach().0),
        };
        let taps = (low..).take(count).enumerate();
        let copied = Axis {
            input: z.input,
            output: z.output,
            kernel: count,
            stride: form.planes(),
            step: 1,
            phases: vec![taps.map(|(index, offset)| Tap { offset, index }).collect()],
        };
        Self {
            x,
            weight: pack(weight, geometry, form, isa),
            bias,
            geometry,
            copied: Geometry {
                axes: [copied, rows.clone(), columns.clone()],
                ..geometry.clone()
            },
            form,
            isa,
        }
    }

    /// Starts the job of a part.
    pub(super) fn open(&self, held: &mut Held, part: &Part) {
        let (in_blocks, out_blocks) = (blocks(self.geometry.c_in), blocks(self.geometry.c_out));
        let [high, wide] = part.tiles();
        let tiles = high * wide * FREQUENCIES;
        let (spread, sums) = (in_blocks * tiles * self.isa.slot(), out_blocks * tiles * BLOCK);
        let [rows, columns] = [(&part.rows, high), (&part.columns, wide)]
            .map(|(range, tiles)| range.start..range.start + TILE * tiles);
        held.none
            .grow((rows.len() + TILE) * (columns.len() + TILE) * BLOCK);
        held.raw
            .open(&self.copied, 0..in_blocks, rows, columns, self.isa.single());
        let unit = self.form.planes();
        // Planes that are multiplied for each of the output.
        let more = match self.form {
            Form::Flat => 1,
            Form::Deep => SPREAD / TILE,
        };
        // All weights pass by once for the planes that are multiplied together: as much should be held as they are.
        let of_plane = more * (spread + sums);
        held.together = self.weight.len().min(HELD_TOGETHER) / of_plane / unit * unit;
        held.together = held
            .together
            .clamp(unit, part.planes.len().next_multiple_of(unit));
        held.depth = match self.form {
            Form::Flat => self.geometry.axes[0].under(0, held.together).1,
            Form::Deep => more * held.together,
        };
        held.planes = 0..0;
        held.multiplied = 0..0;
        held.spread.grow(held.depth * spread);
        held.sums.grow(more * held.together * sums);
    }

    /// Convolves a plane of the part that was opened.
    ///
    /// # Safety
    /// `out` is the whole output; nobody else writes the voxels of this part meanwhile.
    #[expect(unsafe_code, reason = "jobs write disjoint voxels")]
    pub(super) unsafe fn convolve(&self, held: &mut Held, part: &Part, out: *mut f32) {
        if !held.multiplied.contains(&part.plane) {
            held.multiplied = part.plane..(part.plane + held.together).min(part.planes.end);
            match self.form {
                Form::Flat => self.spread_planes(held, part),
                Form::Deep => self.spread_tiles(held, part),
            }
            self.multiply(held, part);
        }
        let plane = part.plane - held.multiplied.start;
        // SAFETY: the caller's own.
        unsafe {
            match self.form {
                Form::Flat => self.gather::<1, 1>(held, part, [plane], out),
                // Both planes of a tile at once.
                Form::Deep if plane.is_multiple_of(TILE) => {
                    let first = plane / TILE * SPREAD;
                    self.gather::<SPREAD, TILE>(held, part, [0, 1, 2, 3].map(|k| first + k), out);
                }
                Form::Deep => {}
            }
        }
    }

    /// Spreads the planes of the input that are wanted and not there yet.
    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "axes are far below the limit of isize; planes lie within the input"
    )]
    fn spread_planes(&self, held: &mut Held, part: &Part) {
        let axis = &self.geometry.axes[0];
        let (first, count) = axis.under(held.multiplied.start, held.multiplied.len());
        let wanted = first.max(0)..(first + count as isize).min(axis.input as isize);
        for plane in wanted.start.max(held.planes.end)..wanted.end {
            held.raw
                .advance(self.x, &self.copied, part.n, plane as usize, self.isa.single());
            let at = ring(plane, held.depth);
            self.spread(held, part, at, [Some(plane)], 1.0);
        }
        held.planes = wanted.start..wanted.end.max(held.planes.end);
    }

    /// Spreads the planes of the input that the tiles along depth want, as their frequencies.
    #[expect(clippy::cast_possible_wrap, reason = "axes are far below the limit of isize")]
    fn spread_tiles(&self, held: &mut Held, part: &Part) {
        let axis = &self.geometry.axes[0];
        let tiles = held.multiplied.start / TILE..held.multiplied.end.div_ceil(TILE);
        for (at, tile) in tiles.enumerate() {
            held.raw
                .advance(self.x, &self.copied, part.n, tile, self.isa.single());
            let first = axis.under(TILE * tile, 1).0;
            for (k, (planes, sign)) in SPREAD_FROM.into_iter().enumerate() {
                let planes = planes.map(|plane| {
                    let plane = first + plane as isize;
                    (0..axis.input as isize).contains(&plane).then_some(plane)
                });
                self.spread(held, part, at * SPREAD + k, planes, sign);
            }
        }
    }

    /// Spreads the sum of some planes of the input, as plane `at`.
    fn spread<const N: usize>(
        &self,
        held: &mut Held,
        part: &Part,
        at: usize,
        planes: [Option<isize>; N],
        sign: f32,
    ) {
        let Held {
            raw, none, spread, ..
        } = held;
        let in_blocks = blocks(self.geometry.c_in);
        let tiles = part.tiles();
        let [y, x] = [1, 2].map(|a| self.geometry.axes[a].reach().0);
        let each = FREQUENCIES * tiles[0] * tiles[1] * self.isa.slot();
        let to = &mut spread[at * in_blocks * each..][..in_blocks * each];
        for (block, to) in to.chunks_exact_mut(each).enumerate() {
            let planes = planes.map(|plane| match plane {
                Some(plane) => &raw.data[raw.at(block, plane, [0, y, x])..],
                None => none,
            });
            let sum = Sum { planes, sign };
            self.isa.spread(&sum, raw.row_step(&self.copied), to, tiles);
        }
    }

    /// The products of all frequencies, added up over channels and taps along depth.
    #[expect(clippy::cast_possible_wrap, reason = "axes are far below the limit of isize")]
    fn multiply(&self, held: &mut Held, part: &Part) {
        let axis = &self.geometry.axes[0];
        let (in_blocks, out_blocks) = (blocks(self.geometry.c_in), blocks(self.geometry.c_out));
        let vectors = self.isa.vectors();
        let len = in_blocks * self.form.depth_of_weights(self.geometry) * self.isa.slot() * BLOCK;
        // The last group may be of fewer blocks; the steps of all others are the same for every frequency.
        let wide = out_blocks / vectors * vectors;
        for (groups, width) in [(0..wide, vectors), (wide..out_blocks, out_blocks - wide)] {
            if groups.is_empty() {
                continue;
            }
            held.steps.clear();
            // Planes of sums, and the steps of each.
            let mut planes: Vec<(usize, Range<usize>)> = Vec::new();
            match self.form {
                // Tiles with the same weights follow each other.
                Form::Deep => {
                    for k in 0..SPREAD {
                        for tile in 0..held.multiplied.len().div_ceil(TILE) {
                            let at = tile * SPREAD + k;
                            planes.push((at, self.add_steps(held, part, width, [(at, k)].into_iter())));
                        }
                    }
                }
                Form::Flat => {
                    for (at, plane) in held.multiplied.clone().enumerate() {
                        let depth = held.depth;
                        // Taps on planes outside the input add nothing.
                        let taps = axis.phases[0].iter().enumerate().filter_map(|(k, tap)| {
                            let plane = (plane * axis.stride) as isize + tap.offset;
                            let inside = (0..axis.input as isize).contains(&plane);
                            inside.then(|| (ring(plane, depth), k))
                        });
                        planes.push((at, self.add_steps(held, part, width, taps)));
                    }
                }
            }
            for frequency in 0..FREQUENCIES {
                for block in groups.clone().step_by(width) {
                    let at = (block * FREQUENCIES + frequency * width) * len;
                    let weight = &self.weight[at..at + len * width];
                    for (plane, steps) in &planes {
                        let to = (plane * FREQUENCIES + frequency) * out_blocks + block;
                        self.multiply_plane(held, part, [frequency, to], weight, steps.clone());
                    }
                }
            }
        }
    }

    /// The steps of some planes and the weights of each at the first frequency.
    fn add_steps(
        &self,
        held: &mut Held,
        part: &Part,
        width: usize,
        planes: impl Iterator<Item = (usize, usize)> + Clone,
    ) -> Range<usize> {
        let start = held.steps.len();
        let in_blocks = blocks(self.geometry.c_in);
        let (depth, slot) = (self.form.depth_of_weights(self.geometry), self.isa.slot());
        let [rows, columns] = part.tiles();
        for block in 0..in_blocks {
            held.steps.extend(planes.clone().map(|(plane, k)| Step {
                x: (plane * in_blocks + block) * FREQUENCIES * rows * columns * slot,
                weight: (block * depth + k) * slot * BLOCK * width,
            }));
        }
        start..held.steps.len()
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
        let (tiles, slot) = (rows * columns * BLOCK, self.isa.slot());
        let c_in = self.geometry.c_in;
        let in_blocks = blocks(c_in);
        let depth = self.form.depth_of_weights(self.geometry);
        let width = weight.len() / (in_blocks * depth * slot * BLOCK);
        let to = &mut held.sums[to * tiles..(to + width) * tiles];
        let first = to.as_mut_ptr();
        let to = [first, first.wrapping_add((width - 1) * tiles)];
        let steps = &held.steps[steps];
        // The last block of input channels may not be full.
        let (full, rest) = steps.split_at(c_in / BLOCK * (steps.len() / in_blocks));
        let none = [0.0; LANES];
        let mut bias = Some(&none[..width * BLOCK]);
        let more = (c_in % BLOCK).div_ceil(BLOCK / slot);
        for (part, channels) in [(full, slot), (rest, more)] {
            // Without any tap the sums are zero.
            let none = steps.is_empty() && channels == slot;
            if part.is_empty() && !none {
                continue;
            }
            let band = Band {
                x: &held.spread[frequency * rows * columns * slot..],
                // Tiles follow each other whatever their rows.
                rows: 1,
                columns: rows * columns,
                row_step: rows * columns * slot,
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

    /// Writes the outputs of all tiles of a plane and those that follow, from so many planes of sums.
    ///
    /// # Safety
    /// As [`Self::convolve`].
    #[expect(unsafe_code, reason = "jobs write disjoint voxels")]
    unsafe fn gather<const N: usize, const M: usize>(
        &self,
        held: &Held,
        part: &Part,
        planes: [usize; N],
        out: *mut f32,
    ) {
        let [z, y, x] = &self.geometry.axes;
        let out_blocks = blocks(self.geometry.c_out);
        let [rows, columns] = part.tiles();
        let each = rows * columns * BLOCK;
        for block in 0..out_blocks {
            let bias = &self.bias[block * BLOCK..(block + 1) * BLOCK];
            for row in 0..rows {
                let from = planes.map(|plane| {
                    let sums = (plane * FREQUENCIES * out_blocks + block) * each;
                    &held.sums[sums + row * columns * BLOCK..]
                });
                let mut to = [[std::ptr::null_mut(); TILE]; M];
                for (plane, to) in (part.plane..part.planes.end).zip(&mut to) {
                    for (row, to) in (part.rows.start + TILE * row..part.rows.end).zip(to) {
                        let plane = (part.n * out_blocks + block) * z.output + plane;
                        let at = (plane * y.output + row) * x.output + part.columns.start;
                        *to = out.wrapping_add(at * BLOCK);
                    }
                }
                // SAFETY: the planes, rows and columns are those of this part.
                unsafe {
                    self.isa
                        .gather(from, out_blocks * each, bias, to, part.columns.len());
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

/// Where a plane lies in the ring.
#[expect(clippy::cast_possible_wrap, reason = "a ring has a handful of planes")]
fn ring(plane: isize, planes: usize) -> usize {
    plane.rem_euclid(planes as isize).unsigned_abs()
}
