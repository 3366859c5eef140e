//! The register tiles, and the choice of the instruction set at run time.

use super::{BLOCK, lanes};
use lanes::Lanes;

/// One output tile row band: what [`Isa::run`] convolves.
pub(super) struct Task<'a> {
    /// `[input block][row][padded column][16]`
    pub(super) x: &'a [f32],
    pub(super) block_stride: usize,
    pub(super) row_stride: usize,
    pub(super) stride: usize,
    pub(super) c_in: usize,
    pub(super) kernel: [usize; 2],
    /// `[input block][tap][16 inputs][V × 16 outputs]`
    pub(super) weight: &'a [f32],
    /// V × 16 values.
    pub(super) bias: &'a [f32],
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// One tap of a weight gradient: what [`Isa::accumulate`] adds up.
pub(super) struct GradTask<'a> {
    /// The first input pixel under the tap; next row after `row_stride`, next pixel after `stride` × 16.
    pub(super) x: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) stride: usize,
    /// Input channels in use, 1 to 16.
    pub(super) channels: usize,
    /// `[row][column][16]`
    pub(super) grad: &'a [f32],
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// An instruction set that the kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The best one that this machine has.
    pub(super) fn detect() -> Self {
        *Self::available().last().unwrap_or(&Self::Portable)
    }

    /// All that this machine has, slowest first.
    pub(super) fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "only x86 has more"))]
        let mut found = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                found.push(Self::Avx512);
            }
        }
        found
    }

    /// The word for it in a numeric mode.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// Output blocks a tile computes together: two where 32 registers hold them.
    pub(super) fn vectors(self, out_blocks: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if out_blocks.is_multiple_of(2) => 2,
            _ => {
                let _ = out_blocks;
                1
            }
        }
    }

    /// Convolves one band of rows; `plane(v)` is where the v-th output block's band starts.
    ///
    /// # Safety
    /// Each `plane(v)` has `rows × width × 16` values that nobody else touches meanwhile.
    #[expect(
        unsafe_code,
        reason = "calls the kernel compiled for the detected instruction set"
    )]
    pub(super) unsafe fn run(self, task: &Task, vectors: usize, plane: &dyn Fn(usize) -> *mut f32) {
        let planes = [plane(0), plane(vectors - 1)];
        // SAFETY: the caller vouches for the planes, `detect` for the instruction set.
        unsafe {
            match (self, vectors) {
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512, 2) => band_avx512_two(task, planes),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512, _) => band_avx512_one(task, planes),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx2, _) => band_avx2(task, planes),
                (Self::Portable, _) => strided::<lanes::Portable, 4, 1>(task, planes),
            }
        }
    }

    /// Adds one tap's gradient to `sum` (`[16 inputs][16 outputs]`).
    pub(super) fn accumulate(self, task: &GradTask, sum: &mut [f32]) {
        assert_eq!(sum.len(), BLOCK * BLOCK, "one tap has 16 × 16 weights");
        assert_eq!(
            task.grad.len(),
            task.rows * task.width * BLOCK,
            "the gradient covers the band"
        );
        let last = (task.rows - 1) * task.row_stride + (task.width - 1) * task.stride * BLOCK + BLOCK;
        assert!(last <= task.x.len(), "the band lies within the scratch");
        #[expect(
            unsafe_code,
            reason = "calls the kernel compiled for the detected instruction set"
        )]
        // SAFETY: the bounds were checked above, the instruction set by `detect`.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => gradient_avx512(task, sum),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => gradient_avx2(task, sum),
                Self::Portable => gradient::<lanes::Portable, 4>(task, sum),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX-512F")]
unsafe fn band_avx512_two(task: &Task, planes: [*mut f32; 2]) {
    // SAFETY: as `Isa::run`.
    unsafe { strided::<lanes::Avx512, 8, 2>(task, planes) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX-512F")]
unsafe fn band_avx512_one(task: &Task, planes: [*mut f32; 2]) {
    // SAFETY: as `Isa::run`.
    unsafe { strided::<lanes::Avx512, 16, 1>(task, planes) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX2")]
unsafe fn band_avx2(task: &Task, planes: [*mut f32; 2]) {
    // SAFETY: as `Isa::run`.
    unsafe { strided::<lanes::Avx2, 6, 1>(task, planes) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic gradient for AVX-512F")]
unsafe fn gradient_avx512(task: &GradTask, sum: &mut [f32]) {
    // SAFETY: as `Isa::accumulate`.
    unsafe { gradient::<lanes::Avx512, 16>(task, sum) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles the generic gradient for AVX2")]
unsafe fn gradient_avx2(task: &GradTask, sum: &mut [f32]) {
    // SAFETY: as `Isa::accumulate`.
    unsafe { gradient::<lanes::Avx2, 4>(task, sum) }
}

/// Fixes the stride at compile time, so that a tile addresses its pixels by constants.
///
/// # Safety
/// As [`Isa::run`]; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "raw output rows")]
unsafe fn strided<L: Lanes, const P: usize, const V: usize>(task: &Task, planes: [*mut f32; 2]) {
    // SAFETY: as `Isa::run`.
    unsafe {
        match task.stride {
            1 => band::<L, P, V, 1>(task, planes),
            2 => band::<L, P, V, 2>(task, planes),
            other => unreachable!("a plan has strides 1 and 2, found {other}"),
        }
    }
}

/// All pixels of a band: tiles of P pixels, then single pixels.
///
/// # Safety
/// As [`Isa::run`]; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "raw output rows")]
unsafe fn band<L: Lanes, const P: usize, const V: usize, const S: usize>(task: &Task, planes: [*mut f32; 2]) {
    let x_blocks = task.c_in.div_ceil(BLOCK);
    let in_rows = (task.rows - 1) * task.stride + task.kernel[0];
    assert_eq!(
        task.block_stride,
        in_rows * task.row_stride,
        "blocks follow each other"
    );
    assert_eq!(
        task.x.len(),
        x_blocks * task.block_stride,
        "the scratch holds all blocks"
    );
    assert!(
        ((task.width - 1) * task.stride + task.kernel[1]) * BLOCK <= task.row_stride,
        "rows hold all taps"
    );
    assert_eq!(
        task.weight.len(),
        x_blocks * task.kernel[0] * task.kernel[1] * BLOCK * V * BLOCK,
        "weights are whole"
    );
    assert_eq!(task.bias.len(), V * BLOCK, "one bias an output");
    for row in 0..task.rows {
        let mut column = 0;
        // SAFETY: the asserts above keep every tap of every pixel of the row inside `x`; the planes hold the row.
        unsafe {
            let x = task.x.as_ptr().add(row * task.stride * task.row_stride);
            let out = planes.map(|p| p.add(row * task.width * BLOCK));
            while column + P <= task.width {
                pixels::<L, P, V, S>(
                    task,
                    x.add(column * task.stride * BLOCK),
                    out.map(|o| o.add(column * BLOCK)),
                );
                column += P;
            }
            while column < task.width {
                pixels::<L, 1, V, S>(
                    task,
                    x.add(column * task.stride * BLOCK),
                    out.map(|o| o.add(column * BLOCK)),
                );
                column += 1;
            }
        }
    }
}

/// P neighbouring pixels × V × 16 channels, all taps and inputs, in registers.
///
/// # Safety
/// As [`band`]; `x` and `out` have P pixels.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
unsafe fn pixels<L: Lanes, const P: usize, const V: usize, const S: usize>(
    task: &Task,
    x: *const f32,
    out: [*mut f32; 2],
) {
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        let mut sum: [[L; V]; P] = [std::array::from_fn(|v| L::load(task.bias.as_ptr().add(v * BLOCK))); P];
        let mut weight = task.weight.as_ptr();
        let mut left = task.c_in;
        let mut block = x;
        while left > 0 {
            let channels = left.min(BLOCK);
            let mut row = block;
            for _ in 0..task.kernel[0] {
                let mut tap = row;
                for _ in 0..task.kernel[1] {
                    // Pointers only step by constants in here: this is where the time goes.
                    let (mut value, mut w) = (tap, weight);
                    let end = tap.add(channels);
                    while value != end {
                        let factors: [L; V] = std::array::from_fn(|v| L::load(w.add(v * BLOCK)));
                        for (p, pixel) in sum.iter_mut().enumerate() {
                            let x = L::splat(value.add(p * S * BLOCK));
                            for (sum, factor) in pixel.iter_mut().zip(factors) {
                                *sum = sum.add_product(x, factor);
                            }
                        }
                        value = value.add(1);
                        w = w.add(V * BLOCK);
                    }
                    tap = tap.add(BLOCK);
                    weight = weight.add(BLOCK * V * BLOCK);
                }
                row = row.add(task.row_stride);
            }
            left -= channels;
            block = block.add(task.block_stride);
        }
        for (p, pixel) in sum.into_iter().enumerate() {
            for (value, out) in pixel.into_iter().zip(out) {
                value.store(out.add(p * BLOCK));
            }
        }
    }
}

/// C input channels at a time × 16 output channels over all pixels of the band.
///
/// # Safety
/// As [`Isa::accumulate`]; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
unsafe fn gradient<L: Lanes, const C: usize>(task: &GradTask, sum: &mut [f32]) {
    for first in (0..task.channels).step_by(C) {
        // SAFETY: `accumulate` checked that the band lies within `x` and `grad`; C divides 16.
        unsafe {
            let to = sum.as_mut_ptr().add(first * BLOCK);
            let mut acc: [L; C] = std::array::from_fn(|c| L::load(to.add(c * BLOCK)));
            for row in 0..task.rows {
                let mut x = task.x.as_ptr().wrapping_add(row * task.row_stride + first);
                let mut grad = task.grad.as_ptr().add(row * task.width * BLOCK);
                let end = grad.add(task.width * BLOCK);
                while grad != end {
                    let g = L::load(grad);
                    for (c, sum) in acc.iter_mut().enumerate() {
                        *sum = sum.add_product(L::splat(x.add(c)), g);
                    }
                    // The last step may leave the scratch: it is not read there.
                    x = x.wrapping_add(task.stride * BLOCK);
                    grad = grad.add(BLOCK);
                }
            }
            for (c, value) in acc.into_iter().enumerate() {
                value.store(to.add(c * BLOCK));
            }
        }
    }
}
