//! The register tiles, and the choice of the instruction set at run time.

use super::{
    BLOCK,
    convolve::Weight,
    geometry::Geometry,
    lanes,
    norm::{Lane, Line},
    transform::{self, FREQUENCIES, Sum, TILE},
    winograd::Form,
};
use lanes::{Lanes, Single};

/// Voxels that are normalised at a time before they become bf16.
#[cfg(target_arch = "x86_64")]
const NARROWED: usize = 32;

/// One tap of one block of input channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Where the tap of the first voxel lies in the copied input.
    pub(super) x: usize,
    /// Where its weights lie.
    pub(super) weight: usize,
}

/// Some rows of output of V blocks, and the steps to add up for them.
pub(super) struct Band<'a> {
    /// The copied input; the next voxel of a row is [`Isa::slot`] values on.
    pub(super) x: &'a [f32],
    /// Values from one row to the next.
    pub(super) row_step: usize,
    pub(super) steps: &'a [Step],
    /// Input channels (or pairs of them) in use in each step, 1 to [`Isa::slot`].
    pub(super) channels: usize,
    /// `[16 inputs][V × 16 outputs]` at each step's place.
    pub(super) weight: &'a [f32],
    /// What the sums start with, V × 16 values; none: what the output holds.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Values from one row of the output to the next.
    pub(super) out_row: usize,
    /// Values from one voxel of the output to the next.
    pub(super) out_step: usize,
}

/// One tap of a weight gradient over some rows: what [`Isa::accumulate`] adds up.
pub(super) struct GradTask<'a> {
    /// The copied input from the tap of the first voxel on; the next voxel of a row is 16 values on.
    pub(super) x: &'a [f32],
    pub(super) row_step: usize,
    /// Input channels in use, 1 to 16.
    pub(super) channels: usize,
    /// The gradient of V blocks from their first voxel on; the next voxel of a row is 16 values on.
    pub(super) grad: [&'a [f32]; 2],
    pub(super) grad_row: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
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
    /// AVX-512F, products of bf16 added in f32; only where it was asked for.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
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

    /// The one that multiplies bf16, if this machine has it.
    pub(super) fn bf16() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
            return Some(Self::Avx512Bf16);
        }
        None
    }

    /// 32-bit values that a voxel of the copied input takes.
    pub(super) fn slot(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => lanes::Avx512Bf16::SLOT,
            _ => BLOCK,
        }
    }

    /// The one that has the same registers and multiplies f32.
    pub(super) fn single(self) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Self::Avx512,
            other => other,
        }
    }

    /// Copies every `step`-th voxel of 16 f32, after `line` if there is one, into the form that the tiles multiply.
    #[inline]
    pub(super) fn copy(self, from: &[f32], step: usize, to: &mut [f32], line: Option<Line>) {
        match (self, line) {
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Bf16, _) => {
                let mut piece = [0.0; NARROWED * BLOCK];
                let from = from.chunks(NARROWED * step * BLOCK);
                for (from, to) in from.zip(to.chunks_mut(NARROWED * self.slot())) {
                    let piece = &mut piece[..to.len() / self.slot() * BLOCK];
                    match line {
                        Some(line) => self.activate(from, step, piece, line),
                        None => copy(from, step, piece),
                    }
                    #[expect(unsafe_code, reason = "calls code compiled for the detected instruction set")]
                    // SAFETY: `bf16` has seen the instruction set.
                    unsafe {
                        lanes::narrow(piece, to);
                    }
                }
            }
            (_, Some(line)) => self.activate(from, step, to, line),
            (_, None) => copy(from, step, to),
        }
    }

    /// Does to every `step`-th voxel of 16 f32 what `line` says.
    pub(super) fn activate(self, from: &[f32], step: usize, to: &mut [f32], line: Line) {
        let voxels = to.len() / BLOCK;
        assert!(
            voxels == 0 || ((voxels - 1) * step + 1) * BLOCK <= from.len(),
            "every voxel is there"
        );
        #[expect(unsafe_code, reason = "reads one buffer and writes another")]
        // SAFETY: both hold that many voxels.
        unsafe {
            self.activate_raw(from.as_ptr(), step, to.as_mut_ptr(), voxels, line);
        }
    }

    /// Does to all voxels what `line` says, in place.
    pub(super) fn activate_in_place(self, values: &mut [f32], line: Line) {
        let (at, voxels) = (values.as_mut_ptr(), values.len() / BLOCK);
        #[expect(unsafe_code, reason = "reads and writes one buffer")]
        // SAFETY: the buffer holds that many voxels.
        unsafe {
            self.activate_raw(at, 1, at, voxels, line);
        }
    }

    /// # Safety
    /// Every `step`-th voxel of `from` can be read and `to` written for `voxels` × 16 values; the two are the same, with a step of 1, or do not overlap.
    #[inline]
    #[expect(
        unsafe_code,
        reason = "calls the kernel compiled for the detected instruction set"
    )]
    unsafe fn activate_raw(self, from: *const f32, step: usize, to: *mut f32, voxels: usize, line: Line) {
        // SAFETY: the caller vouches for the buffers, `detect` and `bf16` for the instruction set.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 | Self::Avx512Bf16 => activate_avx512(from, step, to, voxels, line),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => activate_avx2(from, step, to, voxels, line),
                Self::Portable => activate::<lanes::Portable>(from, step, to, voxels, line),
            }
        }
    }

    /// Weights of W outputs → their frequencies ([`transform::pack_group`]).
    pub(super) fn pack<const W: usize>(
        self,
        weight: Weight,
        geometry: &Geometry,
        form: Form,
        first: usize,
        to: &mut [f32],
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code compiled for the detected instruction set")]
            // SAFETY: `detect` has seen AVX-512F.
            Self::Avx512 | Self::Avx512Bf16 => unsafe {
                pack_avx512::<W>(weight, geometry, (form, self), first, to)
            },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code compiled for the detected instruction set")]
            // SAFETY: `detect` has seen AVX2 and FMA.
            Self::Avx2 => unsafe { pack_avx2::<W>(weight, geometry, (form, self), first, to) },
            Self::Portable => transform::pack_group::<W>(weight, geometry, (form, self), first, to),
        }
    }

    /// Values of tiles → their frequencies ([`transform::spread_of`]).
    pub(super) fn spread<const N: usize>(
        self,
        from: &Sum<N>,
        row_len: usize,
        to: &mut [f32],
        [rows, columns]: [usize; 2],
    ) {
        let last = (TILE * rows + 1) * row_len + (TILE * columns + 2) * BLOCK;
        let there = from.planes.iter().all(|plane| last <= plane.len());
        assert!(there, "every voxel of the tiles is there");
        assert_eq!(
            to.len(),
            FREQUENCIES * rows * columns * self.slot(),
            "there is room for every frequency"
        );
        let (sign, from) = (from.sign, from.planes.map(<[f32]>::as_ptr));
        let to = to.as_mut_ptr();
        #[expect(
            unsafe_code,
            reason = "calls the kernel compiled for the detected instruction set"
        )]
        // SAFETY: the ranges were checked above, the instruction set by `detect`.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => spread_avx512(from, sign, row_len, to, [rows, columns]),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Bf16 => spread_bf16(from, sign, row_len, to, [rows, columns]),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => spread_avx2(from, sign, row_len, to, [rows, columns]),
                Self::Portable => {
                    transform::spread_of::<lanes::Portable, N>(from, sign, row_len, to, [rows, columns]);
                }
            }
        }
    }

    /// Sums of frequencies → rows of outputs ([`transform::gather_of`]).
    ///
    /// # Safety
    /// Each row of `out` that is not null has `columns` voxels that nobody else touches meanwhile.
    #[expect(
        unsafe_code,
        reason = "calls the kernel compiled for the detected instruction set"
    )]
    pub(super) unsafe fn gather<const N: usize, const M: usize>(
        self,
        from: [&[f32]; N],
        each: usize,
        bias: &[f32],
        out: [[*mut f32; TILE]; M],
        columns: usize,
    ) {
        let last = (FREQUENCIES - 1) * each + columns.div_ceil(TILE) * BLOCK;
        let there = from.iter().all(|plane| last <= plane.len());
        assert!(there, "every frequency of the tiles is there");
        assert_eq!(bias.len(), BLOCK, "one bias an output");
        let (from, bias) = (from.map(<[f32]>::as_ptr), bias.as_ptr());
        // SAFETY: the ranges were checked above, the instruction set by `detect`; the caller vouches for the output.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 | Self::Avx512Bf16 => gather_avx512(from, each, bias, out, columns),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => gather_avx2(from, each, bias, out, columns),
                Self::Portable => {
                    transform::gather_of::<lanes::Portable, N, M>(from, each, bias, out, columns);
                }
            }
        }
    }

    /// The word for it in a numeric mode.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => "avx512",
        }
    }

    /// Runs a plain loop compiled for this instruction set; the loop is inlined where it is `#[inline(always)]`.
    #[inline(always)]
    pub(super) fn widely<R>(self, run: impl FnOnce() -> R) -> R {
        match self {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code compiled for the detected instruction set")]
            // SAFETY: `detect` has seen AVX-512F.
            Self::Avx512 | Self::Avx512Bf16 => unsafe { wide_avx512(run) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code compiled for the detected instruction set")]
            // SAFETY: `detect` has seen AVX2 and FMA.
            Self::Avx2 => unsafe { wide_avx2(run) },
            Self::Portable => run(),
        }
    }

    /// Output blocks that a tile computes together: two where 32 registers hold them.
    pub(super) fn vectors(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => 2,
            _ => 1,
        }
    }

    /// Convolves one band; `out[v]` is where the v-th block's first voxel lies.
    ///
    /// # Safety
    /// Every voxel of the band, `out[v] + row × out_row + column × out_step`, has 16 values that nobody else touches meanwhile; without a bias they are initialised.
    #[expect(
        unsafe_code,
        reason = "calls the kernel compiled for the detected instruction set"
    )]
    pub(super) unsafe fn run(self, band: &Band, vectors: usize, out: [*mut f32; 2]) {
        let last = (band.rows - 1) * band.row_step + (band.columns - 1) * self.slot() + band.channels;
        for step in band.steps {
            assert!(step.x + last <= band.x.len(), "the copied input holds every tap");
            assert!(
                step.weight + band.channels * vectors * BLOCK <= band.weight.len(),
                "weights are whole"
            );
        }
        assert!(
            band.bias.is_none_or(|bias| bias.len() == vectors * BLOCK),
            "one bias an output"
        );
        // SAFETY: the taps were checked above; the caller vouches for the output, `detect` for the instruction set.
        unsafe {
            match (self, vectors) {
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512, 2) => band_avx512_two(band, out),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512, _) => band_avx512_one(band, out),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512Bf16, 2) => band_bf16_two(band, out),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512Bf16, _) => band_bf16_one(band, out),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx2, _) => band_avx2(band, out),
                (Self::Portable, _) => rows::<lanes::Portable, 4, 1>(band, out),
            }
        }
    }

    /// Adds one tap's gradient to `sum` (`[16 inputs][V × 16 outputs]`).
    pub(super) fn accumulate(self, task: &GradTask, vectors: usize, sum: &mut [f32]) {
        assert_eq!(
            sum.len(),
            BLOCK * BLOCK * vectors,
            "one tap has 16 inputs and its outputs"
        );
        let last = (task.rows - 1) * task.row_step + task.columns * BLOCK;
        assert!(last <= task.x.len(), "the rows lie within the copied input");
        let last = (task.rows - 1) * task.grad_row + task.columns * BLOCK;
        for grad in &task.grad[..vectors] {
            assert!(last <= grad.len(), "the gradient covers the rows");
        }
        #[expect(
            unsafe_code,
            reason = "calls the kernel compiled for the detected instruction set"
        )]
        // SAFETY: the bounds were checked above, the instruction set by `detect`.
        unsafe {
            match (self, vectors) {
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512 | Self::Avx512Bf16, 2) => gradient_avx512_two(task, sum),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512 | Self::Avx512Bf16, _) => gradient_avx512_one(task, sum),
                #[cfg(target_arch = "x86_64")]
                (Self::Avx2, _) => gradient_avx2(task, sum),
                (Self::Portable, _) => gradient::<lanes::Portable, 4, 1>(task, sum),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles a loop for AVX-512F")]
unsafe fn wide_avx512<R>(run: impl FnOnce() -> R) -> R {
    run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles a loop for AVX2")]
unsafe fn wide_avx2<R>(run: impl FnOnce() -> R) -> R {
    run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic loop for AVX-512F")]
unsafe fn activate_avx512(from: *const f32, step: usize, to: *mut f32, voxels: usize, line: Line) {
    // SAFETY: as `Isa::activate_raw`.
    unsafe { activate::<lanes::Avx512>(from, step, to, voxels, line) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles the generic loop for AVX2")]
unsafe fn activate_avx2(from: *const f32, step: usize, to: *mut f32, voxels: usize, line: Line) {
    // SAFETY: as `Isa::activate_raw`.
    unsafe { activate::<lanes::Avx2>(from, step, to, voxels, line) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn pack_avx512<const W: usize>(
    weight: Weight,
    geometry: &Geometry,
    form: (Form, Isa),
    first: usize,
    to: &mut [f32],
) {
    transform::pack_group::<W>(weight, geometry, form, first, to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn pack_avx2<const W: usize>(
    weight: Weight,
    geometry: &Geometry,
    form: (Form, Isa),
    first: usize,
    to: &mut [f32],
) {
    transform::pack_group::<W>(weight, geometry, form, first, to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic loop for AVX-512F")]
unsafe fn spread_avx512<const N: usize>(
    from: [*const f32; N],
    sign: f32,
    row_len: usize,
    to: *mut f32,
    tiles: [usize; 2],
) {
    // SAFETY: as `Isa::spread`.
    unsafe { transform::spread_of::<lanes::Avx512, N>(from, sign, row_len, to, tiles) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "compiles the generic loop for AVX512-BF16")]
unsafe fn spread_bf16<const N: usize>(
    from: [*const f32; N],
    sign: f32,
    row_len: usize,
    to: *mut f32,
    tiles: [usize; 2],
) {
    // SAFETY: as `Isa::spread`.
    unsafe { transform::spread_of::<lanes::Avx512Bf16, N>(from, sign, row_len, to, tiles) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles the generic loop for AVX2")]
unsafe fn spread_avx2<const N: usize>(
    from: [*const f32; N],
    sign: f32,
    row_len: usize,
    to: *mut f32,
    tiles: [usize; 2],
) {
    // SAFETY: as `Isa::spread`.
    unsafe { transform::spread_of::<lanes::Avx2, N>(from, sign, row_len, to, tiles) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic loop for AVX-512F")]
unsafe fn gather_avx512<const N: usize, const M: usize>(
    from: [*const f32; N],
    each: usize,
    bias: *const f32,
    out: [[*mut f32; TILE]; M],
    columns: usize,
) {
    // SAFETY: as `Isa::gather`.
    unsafe { transform::gather_of::<lanes::Avx512, N, M>(from, each, bias, out, columns) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles the generic loop for AVX2")]
unsafe fn gather_avx2<const N: usize, const M: usize>(
    from: [*const f32; N],
    each: usize,
    bias: *const f32,
    out: [[*mut f32; TILE]; M],
    columns: usize,
) {
    // SAFETY: as `Isa::gather`.
    unsafe { transform::gather_of::<lanes::Avx2, N, M>(from, each, bias, out, columns) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX-512F")]
unsafe fn band_avx512_two(band: &Band, out: [*mut f32; 2]) {
    // 12 × 2 sums, 2 weights and values of the input; with 14 the compiler spills, at half the speed.
    // SAFETY: as `Isa::run`.
    unsafe { rows::<lanes::Avx512, 12, 2>(band, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX-512F")]
unsafe fn band_avx512_one(band: &Band, out: [*mut f32; 2]) {
    // SAFETY: as `Isa::run`.
    unsafe { rows::<lanes::Avx512, 12, 1>(band, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX512-BF16")]
unsafe fn band_bf16_two(band: &Band, out: [*mut f32; 2]) {
    // SAFETY: as `Isa::run`.
    unsafe { rows::<lanes::Avx512Bf16, 12, 2>(band, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX512-BF16")]
unsafe fn band_bf16_one(band: &Band, out: [*mut f32; 2]) {
    // SAFETY: as `Isa::run`.
    unsafe { rows::<lanes::Avx512Bf16, 12, 1>(band, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles the generic band for AVX2")]
unsafe fn band_avx2(band: &Band, out: [*mut f32; 2]) {
    // 6 × 2 half sums, 2 weights and a value of the input: 15 of 16 registers.
    // SAFETY: as `Isa::run`.
    unsafe { rows::<lanes::Avx2, 6, 1>(band, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic gradient for AVX-512F")]
unsafe fn gradient_avx512_two(task: &GradTask, sum: &mut [f32]) {
    // SAFETY: as `Isa::accumulate`.
    unsafe { gradient::<lanes::Avx512, 8, 2>(task, sum) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "compiles the generic gradient for AVX-512F")]
unsafe fn gradient_avx512_one(task: &GradTask, sum: &mut [f32]) {
    // SAFETY: as `Isa::accumulate`.
    unsafe { gradient::<lanes::Avx512, 16, 1>(task, sum) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "compiles the generic gradient for AVX2")]
unsafe fn gradient_avx2(task: &GradTask, sum: &mut [f32]) {
    // SAFETY: as `Isa::accumulate`.
    unsafe { gradient::<lanes::Avx2, 4, 1>(task, sum) }
}

/// Copies every `step`-th voxel.
fn copy(from: &[f32], step: usize, to: &mut [f32]) {
    if step == 1 {
        to.copy_from_slice(from);
        return;
    }
    for (to, from) in to
        .as_chunks_mut::<BLOCK>()
        .0
        .iter_mut()
        .zip(from.chunks(step * BLOCK))
    {
        to.copy_from_slice(&from[..BLOCK]);
    }
}

/// Vectors written out: left to itself, the compiler vectorises over voxels and shuffles.
///
/// # Safety
/// As [`Isa::activate_raw`]; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "raw voxels")]
unsafe fn activate<L: Single>(from: *const f32, step: usize, to: *mut f32, voxels: usize, line: Line) {
    let slope: Lane = [line.slope; BLOCK];
    // SAFETY: the caller vouches for the voxels; factor, offset and slope are 16 values.
    unsafe {
        let [factor, offset, slope] = [line.factor, line.offset, &slope].map(|lane| L::load(lane.as_ptr()));
        for voxel in 0..voxels {
            let x = L::load(from.add(voxel * step * BLOCK));
            offset
                .add_product(x, factor)
                .leaky(slope)
                .store(to.add(voxel * BLOCK));
        }
    }
}

/// All voxels of a band, each row in tiles of nearly equal width of at most P.
///
/// # Safety
/// As [`Isa::run`], which has checked the taps; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "raw output rows")]
unsafe fn rows<L: Lanes, const P: usize, const V: usize>(band: &Band, out: [*mut f32; 2]) {
    let tiles = band.columns.div_ceil(P);
    let (width, wider) = (band.columns / tiles, band.columns % tiles);
    for row in 0..band.rows {
        let mut column = 0;
        for tile in 0..tiles {
            let count = width + usize::from(tile < wider);
            // SAFETY: `run` checked that the taps of all rows and columns lie within the copied input; the caller vouches for the output.
            unsafe {
                let x = band.x.as_ptr().add(row * band.row_step + column * L::SLOT);
                let at = row * band.out_row + column * band.out_step;
                let out = out.map(|out| out.wrapping_add(at));
                match count {
                    1 => tile_of::<L, 1, V>(band, x, out),
                    2 => tile_of::<L, 2, V>(band, x, out),
                    3 => tile_of::<L, 3, V>(band, x, out),
                    4 => tile_of::<L, 4, V>(band, x, out),
                    5 if P >= 5 => tile_of::<L, 5, V>(band, x, out),
                    6 if P >= 6 => tile_of::<L, 6, V>(band, x, out),
                    7 if P >= 7 => tile_of::<L, 7, V>(band, x, out),
                    8 if P >= 8 => tile_of::<L, 8, V>(band, x, out),
                    9 if P >= 9 => tile_of::<L, 9, V>(band, x, out),
                    10 if P >= 10 => tile_of::<L, 10, V>(band, x, out),
                    11 if P >= 11 => tile_of::<L, 11, V>(band, x, out),
                    12 if P >= 12 => tile_of::<L, 12, V>(band, x, out),
                    other => unreachable!("a tile has 1 to {P} voxels, found {other}"),
                }
            }
            column += count;
        }
    }
}

/// P neighbouring voxels × V × 16 channels over all steps, in registers.
///
/// # Safety
/// As [`rows`]; `x` and `out` have P voxels.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
unsafe fn tile_of<L: Lanes, const P: usize, const V: usize>(band: &Band, x: *const f32, out: [*mut f32; 2]) {
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        let mut sum: [[L; V]; P] = match band.bias {
            Some(bias) => [std::array::from_fn(|v| L::load(bias.as_ptr().add(v * BLOCK))); P],
            None => std::array::from_fn(|p| std::array::from_fn(|v| L::load(out[v].add(p * band.out_step)))),
        };
        for step in band.steps {
            // Pointers only step by constants in here: this is where the time goes.
            let mut value = x.add(step.x);
            let mut weight = band.weight.as_ptr().add(step.weight);
            let end = value.add(band.channels);
            while value != end {
                let factors: [L; V] = std::array::from_fn(|v| L::load(weight.add(v * BLOCK)));
                /// Each voxel with its number as a constant: it becomes part of an instruction.
                macro_rules! voxels {
                    ($($p:literal)*) => { $(
                        if let Some(voxel) = sum.get_mut($p) {
                            if V == 1 {
                                voxel[0] = voxel[0].add_voxel::<$p>(value, factors[0]);
                            } else {
                                let x = L::voxel::<$p>(value);
                                for (sum, factor) in voxel.iter_mut().zip(factors) {
                                    *sum = sum.add_product(x, factor);
                                }
                            }
                        }
                    )* };
                }
                voxels!(0 1 2 3 4 5 6 7 8 9 10 11);
                value = value.add(1);
                weight = weight.add(V * BLOCK);
            }
        }
        for (p, voxel) in sum.into_iter().enumerate() {
            for (value, out) in voxel.into_iter().zip(out) {
                value.store(out.add(p * band.out_step));
            }
        }
    }
}

/// C input channels at a time × V × 16 output channels over all voxels of the rows, then channel by channel.
///
/// # Safety
/// As [`Isa::accumulate`]; L's instruction set is there.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
unsafe fn gradient<L: Single, const C: usize, const V: usize>(task: &GradTask, sum: &mut [f32]) {
    let mut first = 0;
    // SAFETY: `accumulate` checked that the rows lie within `x` and `grad`.
    unsafe {
        while first + C <= task.channels {
            channels::<L, C, V>(task, first, sum);
            first += C;
        }
        while first < task.channels {
            channels::<L, 1, V>(task, first, sum);
            first += 1;
        }
    }
}

/// # Safety
/// As [`gradient`]; `first + C` is at most 16.
#[inline(always)]
#[expect(unsafe_code, reason = "register kernel on raw pointers")]
unsafe fn channels<L: Single, const C: usize, const V: usize>(
    task: &GradTask,
    first: usize,
    sum: &mut [f32],
) {
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        let to = sum.as_mut_ptr().add(first * V * BLOCK);
        let mut acc: [[L; V]; C] =
            std::array::from_fn(|c| std::array::from_fn(|v| L::load(to.add((c * V + v) * BLOCK))));
        for row in 0..task.rows {
            let mut x = task.x.as_ptr().add(row * task.row_step + first);
            let mut grad: [*const f32; V] =
                std::array::from_fn(|v| task.grad[v].as_ptr().add(row * task.grad_row));
            for _ in 0..task.columns {
                let g: [L; V] = std::array::from_fn(|v| L::load(grad[v]));
                /// As in [`tile_of`].
                macro_rules! inputs {
                    ($($c:literal)*) => { $(
                        if let Some(sum) = acc.get_mut($c) {
                            let x = L::channel::<$c>(x);
                            for (sum, g) in sum.iter_mut().zip(g) {
                                *sum = sum.add_product(x, g);
                            }
                        }
                    )* };
                }
                inputs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                // The last step may point past the end: nothing is read there.
                x = x.wrapping_add(BLOCK);
                grad = grad.map(|g| g.wrapping_add(BLOCK));
            }
        }
        for (c, values) in acc.into_iter().enumerate() {
            for (v, value) in values.into_iter().enumerate() {
                value.store(to.add((c * V + v) * BLOCK));
            }
        }
    }
}
