//! What Winograd's filtering does before and after the products: weights and values → their frequencies, sums of products → outputs.
//!
//! Along an axis, three taps g and four values d give two outputs, m₀ + m₁ + m₂ and m₁ − m₂ − m₃, of four products of their frequencies:
//! m₀ = (d₀ − d₂) g₀, m₁ = (d₁ + d₂) (g₀ + g₁ + g₂) / 2, m₂ = (d₂ − d₁) (g₀ − g₁ + g₂) / 2, m₃ = (d₁ − d₃) g₂.

use super::{
    BLOCK, Isa,
    convolve::{Weight, pair},
    geometry::{Axis, Geometry},
    lanes::Lanes,
    winograd::Form,
};

/// Outputs of a tile along each axis that is filtered.
pub(super) const TILE: usize = 2;
/// Inputs of a tile along such an axis, and its frequencies.
pub(super) const SPREAD: usize = 4;
/// Frequencies of a tile in the plane.
pub(super) const FREQUENCIES: usize = SPREAD * SPREAD;
/// Taps of a plane.
const PLANE: usize = 9;
/// Outputs of a group at most.
pub(super) const LANES: usize = 2 * BLOCK;

/// The two planes of a tile whose sum or difference is each frequency along depth, with the sign of the second ([`to_frequencies`]).
pub(super) const SPREAD_FROM: [([usize; 2], f32); SPREAD] =
    [([0, 2], -1.0), ([1, 2], 1.0), ([2, 1], -1.0), ([1, 3], -1.0)];

/// Planes that are read as one: the first, with the others added or subtracted.
pub(super) struct Sum<'a, const N: usize> {
    pub(super) planes: [&'a [f32]; N],
    /// Of all but the first: 1 or −1.
    pub(super) sign: f32,
}

/// The places in the weight of an axis's three taps, by their offsets.
fn order(axis: &Axis) -> [usize; 3] {
    let low = axis.reach().0;
    [0, 1, 2].map(|k| {
        let tap = axis.phases[0].iter().find(|tap| tap.offset == low + k);
        tap.map_or(0, |tap| tap.index)
    })
}

/// The weights of W outputs from `first` on: a group of [`super::winograd::Winograd::weight`].
#[inline(always)]
pub(super) fn pack_group<const W: usize>(
    weight: Weight,
    geometry: &Geometry,
    (form, isa): (Form, Isa),
    first: usize,
    data: &mut [f32],
) {
    let [z, y, x] = &geometry.axes;
    let (depths, rows, columns) = (order(z), order(y), order(x));
    let outputs = W.min(geometry.c_out - first);
    let len = data.len() / FREQUENCIES;
    let (depth, slot) = (form.depth_of_weights(geometry), isa.slot());
    // `[tap][output]`, and the same with frequencies along depth in their place.
    let mut taps = vec![[0.0; W]; PLANE * z.kernel];
    let mut along = vec![[0.0; W]; PLANE * depth];
    for i in 0..geometry.c_in {
        for o in 0..outputs {
            let from = (first + o) * weight.output + i * weight.input;
            for (tap, value) in taps.iter_mut().zip(&weight.values[from..]) {
                tap[o] = *value;
            }
        }
        for at in 0..PLANE {
            if form == Form::Deep {
                let sums = frequencies([0, 1, 2].map(|d| taps[PLANE * depths[d] + at]));
                for (k, values) in sums.into_iter().enumerate() {
                    along[PLANE * k + at] = values;
                }
            } else {
                for (k, tap) in z.phases[0].iter().enumerate() {
                    along[PLANE * k + at] = taps[PLANE * tap.index + at];
                }
            }
        }
        for (k, plane) in along.chunks_exact(PLANE).enumerate() {
            let at = ((i / BLOCK * depth + k) * slot + i % BLOCK * slot / BLOCK) * W;
            let mut across = [[[0.0; W]; SPREAD]; 3];
            for (across, row) in across.iter_mut().zip(rows) {
                let [a, b, c] = columns;
                *across = frequencies([plane[3 * row + a], plane[3 * row + b], plane[3 * row + c]]);
            }
            for column in 0..SPREAD {
                let down = frequencies([across[0][column], across[1][column], across[2][column]]);
                for (row, values) in down.iter().enumerate() {
                    let to = &mut data[(SPREAD * row + column) * len + at..][..W];
                    if slot == BLOCK {
                        to.copy_from_slice(values);
                    } else {
                        for (to, value) in to.iter_mut().zip(values) {
                            *to = pair(*to, *value, i % 2 == 1);
                        }
                    }
                }
            }
        }
    }
}

/// The four frequencies of three taps, for many outputs.
#[inline(always)]
fn frequencies<const W: usize>([a, b, c]: [[f32; W]; 3]) -> [[f32; W]; SPREAD] {
    let mut sums = [a, a, a, c];
    for o in 0..W {
        sums[1][o] = (a[o] + c[o] + b[o]) * 0.5;
        sums[2][o] = (a[o] + c[o] - b[o]) * 0.5;
    }
    sums
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
            a.add_scaled(c, minus),
            b.add_scaled(c, one),
            c.add_scaled(b, minus),
            b.add_scaled(d, minus),
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
            a.add_scaled(b, one).add_scaled(c, one),
            b.add_scaled(c, minus).add_scaled(d, minus),
        ]
    }
}

/// Rows as columns.
#[inline(always)]
fn turned<L: Copy, const N: usize>(rows: [[L; N]; 4]) -> [[L; 4]; N] {
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

/// Sixteen values of a sum of planes.
///
/// # Safety
/// They can be read; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "as `Lanes`")]
unsafe fn load<L: Lanes, const N: usize>(from: [*const f32; N], at: usize, sign: L) -> L {
    // SAFETY: the caller's own.
    unsafe {
        let mut sum = L::load(from[0].add(at));
        for plane in &from[1..] {
            sum = sum.add_scaled(L::load(plane.add(at)), sign);
        }
        sum
    }
}

/// The values of four places that follow each other at a distance.
///
/// # Safety
/// As [`load`].
#[inline(always)]
#[expect(unsafe_code, reason = "as `Lanes`")]
unsafe fn load_four<L: Lanes, const N: usize>(
    from: [*const f32; N],
    at: usize,
    step: usize,
    sign: L,
) -> [L; 4] {
    // SAFETY: the caller's own.
    unsafe {
        [
            load(from, at, sign),
            load(from, at + step, sign),
            load(from, at + 2 * step, sign),
            load(from, at + 3 * step, sign),
        ]
    }
}

/// Values of tiles → their frequencies: `from` is rows of voxels of planes that are summed, `to` `[frequency][row][column]` of 16 channels as the tiles read them.
///
/// # Safety
/// There are 2 + 2 × tiles rows and columns of each plane, and L's instruction set.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
pub(super) unsafe fn spread_of<L: Lanes, const N: usize>(
    from: [*const f32; N],
    sign: f32,
    row_len: usize,
    to: *mut f32,
    [rows, columns]: [usize; 2],
) {
    let each = rows * columns * L::SLOT;
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        let signs = [L::load([1.0; BLOCK].as_ptr()), L::load([-1.0; BLOCK].as_ptr())];
        let sign = L::load([sign; BLOCK].as_ptr());
        for row in 0..rows {
            let mut at = TILE * row * row_len;
            let mut to = to.add(row * columns * L::SLOT);
            let mut down = [[signs[0]; 4]; 4];
            for c in 0..TILE {
                down[TILE + c] = to_frequencies(load_four(from, at + c * BLOCK, row_len, sign), signs);
            }
            for _ in 0..columns {
                // Two of a tile's columns are those of the tile before.
                at += TILE * BLOCK;
                for c in 0..TILE {
                    down[c] = down[TILE + c];
                    down[TILE + c] = to_frequencies(load_four(from, at + c * BLOCK, row_len, sign), signs);
                }
                for (r, values) in turned(down).into_iter().enumerate() {
                    let across = to_frequencies(values, signs);
                    for (c, value) in across.into_iter().enumerate() {
                        value.put(to.add((4 * r + c) * each));
                    }
                }
                to = to.wrapping_add(L::SLOT);
            }
        }
    }
}

/// Sums of the frequencies of a row of tiles → two rows of outputs of one plane or, of sums of four frequencies along depth, of two; a row that is null is not wanted.
///
/// # Safety
/// Each of `from` has all tiles of each frequency, `each` values from one to the next; the rows have `columns` voxels; bias 16 values; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
pub(super) unsafe fn gather_of<L: Lanes, const N: usize, const M: usize>(
    from: [*const f32; N],
    each: usize,
    bias: *const f32,
    out: [[*mut f32; TILE]; M],
    columns: usize,
) {
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        let signs = [L::load([1.0; BLOCK].as_ptr()), L::load([-1.0; BLOCK].as_ptr())];
        let bias = L::load(bias);
        for column in (0..columns).step_by(TILE) {
            let mut across = [[[signs[0]; TILE]; 4]; M];
            for r in 0..4 {
                let at = column / TILE * BLOCK + 4 * r * each;
                let mut values = [[signs[0]; 4]; M];
                for c in 0..4 {
                    let mut planes = [signs[0]; N];
                    for (plane, from) in planes.iter_mut().zip(&from) {
                        *plane = L::load(from.add(at + c * each));
                    }
                    if let (Some(four), [first, second]) = (planes.first_chunk(), &mut values[..]) {
                        [first[c], second[c]] = to_outputs(*four, signs);
                    } else {
                        values[0][c] = planes[0];
                    }
                }
                for (across, values) in across.iter_mut().zip(values) {
                    across[r] = to_outputs(values, signs);
                }
            }
            for (across, out) in across.into_iter().zip(out) {
                let voxels = turned(across).into_iter().take(columns - column);
                for (c, values) in voxels.enumerate() {
                    for (value, out) in to_outputs(values, signs).into_iter().zip(out) {
                        if !out.is_null() {
                            let to = out.add((column + c) * BLOCK);
                            value.add_scaled(bias, signs[0]).store(to);
                        }
                    }
                }
            }
        }
    }
}
