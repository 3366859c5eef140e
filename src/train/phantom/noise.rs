//! Random numbers and smooth random fields: a seed → numbers; a point → noise of unit variance.
//!
//! The same seed gives the same numbers on every machine: only the ChaCha stream and our own arithmetic are used, not the distributions of a crate that may change.
//! The field is one periodic lattice, made once; a [`Field`] looks at it from its own place, so a head costs no lattice of its own.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "lattice indices are wrapped into the lattice; random words are cut on purpose"
)]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::sync::LazyLock;

/// A point or vector in head coordinates, mm, single precision.
pub(super) type Point = [f32; 3];

/// Cells of the lattice along an axis; a power of two, so that wrapping is a mask.
const CELLS: usize = 1 << BITS;
const BITS: u32 = 6;
/// x fastest.
type Lattice = [f32; CELLS * CELLS * CELLS];

/// Draws parameters from a seed.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// A stream for one purpose; `stream` keeps purposes apart, so that a new draw in one does not move another.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// 64 random bits.
    pub(super) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Between `range[0]` and `range[1]`.
    pub(super) fn within(&mut self, range: [f32; 2]) -> f32 {
        let unit = (self.word() >> 40) as f32 / (1u64 << 24) as f32;
        range[0] + (range[1] - range[0]) * unit
    }

    /// Between `range[0]` and `range[1]`, evenly in the logarithm.
    pub(super) fn within_log(&mut self, range: [f32; 2]) -> f32 {
        self.within([range[0].ln(), range[1].ln()]).exp()
    }

    /// ± `size`.
    pub(super) fn around(&mut self, size: f32) -> f32 {
        self.within([-size, size])
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.within([0.0, 1.0]) < probability
    }

    /// −1 or 1.
    pub(super) fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// A whole number from `low` to `high`, both included.
    pub(super) fn count(&mut self, low: usize, high: usize) -> usize {
        low + (self.word() % (high - low + 1) as u64) as usize
    }

    /// Close to normal: four uniform numbers, mean 0, variance 1.
    pub(super) fn normal(&mut self) -> f32 {
        let word = self.word();
        let sum = (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
        // Four uniform numbers of variance 1/12 each.
        (sum as f32 / 65535.0 - 2.0) * 1.732_050_8
    }

    /// A noise field of its own.
    pub(super) fn field(&mut self) -> Field {
        let mut offset = [0.0; 3];
        for value in &mut offset {
            *value = self.within([0.0, CELLS as f32]) + (CELLS * 64) as f32;
        }
        Field {
            lattice: &LATTICE,
            offset,
        }
    }
}

/// Smooth noise: mean 0, variance about 1, features about four cells long.
#[derive(Clone, Copy)]
pub(super) struct Field {
    lattice: &'static Lattice,
    offset: Point,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Field")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Field {
    /// The noise at `p` for cells of `1 / frequency` mm.
    #[inline(always)]
    pub(super) fn at(&self, p: Point, frequency: f32) -> f32 {
        let mut low = [0usize; 3];
        let mut high = [0usize; 3];
        let mut part = [0f32; 3];
        for axis in 0..3 {
            // Far above any coordinate times frequency, so that the cast floors.
            let at = p[axis] * frequency + self.offset[axis];
            let cell = at as i32;
            part[axis] = at - cell as f32;
            let shift = BITS * axis as u32;
            low[axis] = (cell as usize & (CELLS - 1)) << shift;
            high[axis] = ((cell as usize + 1) & (CELLS - 1)) << shift;
        }
        let row = |zy: usize| {
            let (a, b) = (self.lattice[zy | low[0]], self.lattice[zy | high[0]]);
            a + (b - a) * part[0]
        };
        let plane = |z: usize| {
            let (a, b) = (row(z | low[1]), row(z | high[1]));
            a + (b - a) * part[1]
        };
        let (a, b) = (plane(low[2]), plane(high[2]));
        a + (b - a) * part[2]
    }
}

static LATTICE: LazyLock<Box<Lattice>> = LazyLock::new(|| {
    let mut draw = Draw::new(0x6963_7475_7300, 0);
    let mut lattice = Box::new([0.0; CELLS * CELLS * CELLS]);
    lattice.iter_mut().for_each(|value| *value = draw.normal());
    // Twice (1 2 1)/4 along each axis: no feature shorter than the lattice can carry without showing its cells.
    for stride in [1, CELLS, CELLS * CELLS, 1, CELLS, CELLS * CELLS] {
        let before = lattice.clone();
        for (at, value) in lattice.iter_mut().enumerate() {
            let line = at / stride % CELLS;
            let base = at - line * stride;
            let next = base + (line + 1) % CELLS * stride;
            let last = base + (line + CELLS - 1) % CELLS * stride;
            *value = (before[last] + 2.0 * before[at] + before[next]) / 4.0;
        }
    }
    let variance = lattice.iter().map(|v| v * v).sum::<f32>() / lattice.len() as f32;
    let gain = variance.sqrt().recip();
    lattice.iter_mut().for_each(|v| *v *= gain);
    lattice
});

/// 0 below `low`, 1 above `high`, smooth between; `low` may be above `high`.
#[inline]
pub(super) fn step(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Straight from `a` to `b`.
#[inline]
pub(super) fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// x².
#[inline]
pub(super) fn sq(x: f32) -> f32 {
    x * x
}

/// (p − centre) / radii, squared length: below 1 inside the ellipsoid.
#[inline]
pub(super) fn ellipsoid(p: Point, centre: Point, radii: Point) -> f32 {
    sq((p[0] - centre[0]) / radii[0]) + sq((p[1] - centre[1]) / radii[1]) + sq((p[2] - centre[2]) / radii[2])
}

/// Signed distance from a capsule whose radius runs from `ra` at `a` to `rb` at `b`.
#[inline]
pub(super) fn capsule(p: Point, a: Point, ra: f32, b: Point, rb: f32) -> f32 {
    let along = [b[0] - a[0], b[1] - a[1], b[2] - a[2]];
    let from = [p[0] - a[0], p[1] - a[1], p[2] - a[2]];
    let dot = from[0] * along[0] + from[1] * along[1] + from[2] * along[2];
    let t = (dot / (sq(along[0]) + sq(along[1]) + sq(along[2]))).clamp(0.0, 1.0);
    let off = [
        from[0] - along[0] * t,
        from[1] - along[1] * t,
        from[2] - along[2] * t,
    ];
    (sq(off[0]) + sq(off[1]) + sq(off[2])).sqrt() - mix(ra, rb, t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_stream_gives_others() {
        let draw = |seed, stream| Draw::new(seed, stream).word();
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn noise_has_mean_zero_variance_one_and_no_jumps() {
        let field = Draw::new(1, 0).field();
        let values: Vec<f32> = (0..40_000u16)
            .map(|i| field.at([f32::from(i) * 0.37, 3.0, -90.0], 0.9))
            .collect();
        let mean = values.iter().sum::<f32>() / 40_000.0;
        let variance = values.iter().map(|v| sq(v - mean)).sum::<f32>() / 40_000.0;
        assert!(
            mean.abs() < 0.3 && (0.4..1.8).contains(&variance),
            "{mean} {variance}"
        );
        let jump = values.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
        assert!(jump < 1.0, "{jump}");
    }
}
