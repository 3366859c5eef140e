//! Sixteen f32 side by side, in whatever registers the machine has.

/// A vector of 16 f32.
///
/// # Safety
/// Pointers point at 16 readable (writable) values; the instruction set behind an implementation is there.
#[expect(
    unsafe_code,
    reason = "register kernels work on raw pointers; bounds are kept by `tile`"
)]
pub(super) trait Lanes: Copy {
    /// 32-bit values that a voxel of the copied input takes: 16 channels of f32, or 8 pairs of bf16.
    const SLOT: usize = 16;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The value of voxel P of the copied input on all lanes.
    unsafe fn voxel<const P: usize>(from: *const f32) -> Self;
    /// self + a × b.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// self + a × b in f32, whatever the tiles multiply.
    #[inline(always)]
    unsafe fn add_scaled(self, a: Self, b: Self) -> Self {
        // SAFETY: as `add_product`.
        unsafe { self.add_product(a, b) }
    }
    /// Stores 16 channels of a voxel as the tiles read them.
    #[inline(always)]
    unsafe fn put(self, to: *mut f32) {
        // SAFETY: as `store`.
        unsafe { self.store(to) }
    }
    /// self + the value of voxel P × b.
    #[inline(always)]
    unsafe fn add_voxel<const P: usize>(self, from: *const f32, b: Self) -> Self {
        // SAFETY: as `voxel`.
        unsafe { self.add_product(Self::voxel::<P>(from), b) }
    }
}

/// What only f32 is asked for: gradients, norms and activations.
///
/// # Safety
/// As [`Lanes`].
#[expect(unsafe_code, reason = "as `Lanes`")]
pub(super) trait Single: Lanes {
    /// The value of channel C on all lanes.
    unsafe fn channel<const C: usize>(from: *const f32) -> Self;
    /// The greater of self and self × slope, a slope of 0 to 1; an infinite self stays what it is.
    unsafe fn leaky(self, slope: Self) -> Self;
}

/// Plain arrays: works everywhere.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 16]);

#[expect(unsafe_code, reason = "see `Lanes`")]
impl Lanes for Portable {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 values.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 values.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn voxel<const P: usize>(from: *const f32) -> Self {
        // SAFETY: the caller vouches for one value.
        Self([unsafe { *from.add(P * Self::SLOT) }; 16])
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..16 {
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }
}

#[expect(unsafe_code, reason = "see `Lanes`")]
impl Single for Portable {
    #[inline(always)]
    unsafe fn channel<const C: usize>(from: *const f32) -> Self {
        // SAFETY: the caller vouches for one value.
        Self([unsafe { *from.add(C) }; 16])
    }
    #[inline(always)]
    unsafe fn leaky(mut self, slope: Self) -> Self {
        for i in 0..16 {
            self.0[i] = self.0[i].max(self.0[i] * slope.0[i]);
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Avx512Bf16, narrow};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, Single};
    use std::arch::{asm, x86_64::*};

    /// The value that lies `I` times `EACH` values on, on all lanes.
    ///
    /// Written out: the compiler would load neighbouring values as one vector and shuffle, which spills registers.
    /// The distance is part of the instruction: an addition before each load would cost a third of the kernel's instructions.
    ///
    /// # Safety
    /// AVX-512F is there, and the value.
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "one instruction of inline assembly")]
    unsafe fn broadcast_512<const I: usize, const EACH: usize>(from: *const f32) -> __m512 {
        let value;
        // SAFETY: reads the one value that the caller vouches for.
        unsafe {
            asm!("vbroadcastss {}, dword ptr [{} + {}]", out(zmm_reg) value, in(reg) from, const 4 * EACH * I, options(pure, readonly, nostack, preserves_flags));
        }
        value
    }

    /// As [`broadcast_512`], on 256 bits.
    ///
    /// # Safety
    /// AVX is there, and the value.
    #[inline]
    #[target_feature(enable = "avx")]
    #[expect(unsafe_code, reason = "one instruction of inline assembly")]
    unsafe fn broadcast_256<const I: usize, const EACH: usize>(from: *const f32) -> __m256 {
        let value;
        // SAFETY: reads the one value that the caller vouches for.
        unsafe {
            asm!("vbroadcastss {}, dword ptr [{} + {}]", out(ymm_reg) value, in(reg) from, const 4 * EACH * I, options(pure, readonly, nostack, preserves_flags));
        }
        value
    }

    /// sum + the value `I` times `EACH` values on × b, in one instruction.
    ///
    /// # Safety
    /// As [`broadcast_512`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "one instruction of inline assembly")]
    unsafe fn add_broadcast_512<const I: usize, const EACH: usize>(
        mut sum: __m512,
        from: *const f32,
        b: __m512,
    ) -> __m512 {
        // SAFETY: reads the one value that the caller vouches for.
        unsafe {
            asm!("vfmadd231ps {}, {}, dword ptr [{} + {}]{{1to16}}", inout(zmm_reg) sum, in(zmm_reg) b, in(reg) from, const 4 * EACH * I, options(pure, readonly, nostack, preserves_flags));
        }
        sum
    }

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512);

    #[expect(unsafe_code, reason = "see `Lanes`; AVX-512F was detected by `Isa::detect`")]
    impl Lanes for Avx512 {
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller vouches for 16 values and for AVX-512F.
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn voxel<const P: usize>(from: *const f32) -> Self {
            // SAFETY: as above, one value.
            Self(unsafe { broadcast_512::<P, 16>(from) })
        }
        #[inline(always)]
        unsafe fn add_voxel<const P: usize>(self, from: *const f32, b: Self) -> Self {
            // SAFETY: as above, one value.
            Self(unsafe { add_broadcast_512::<P, 16>(self.0, from, b.0) })
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }
    }

    #[expect(unsafe_code, reason = "see `Lanes`; AVX-512F was detected by `Isa::detect`")]
    impl Single for Avx512 {
        #[inline(always)]
        unsafe fn channel<const C: usize>(from: *const f32) -> Self {
            // SAFETY: the caller vouches for one value and for AVX-512F.
            Self(unsafe { broadcast_512::<C, 1>(from) })
        }
        #[inline(always)]
        unsafe fn leaky(self, slope: Self) -> Self {
            // Beside no number (∞ × 0) the instruction gives the second.
            // SAFETY: the caller vouches for AVX-512F.
            Self(unsafe { _mm512_max_ps(_mm512_mul_ps(self.0, slope.0), self.0) })
        }
    }

    /// One 512-bit register of f32 sums; what is multiplied are pairs of bf16.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512Bf16(__m512);

    #[expect(unsafe_code, reason = "see `Lanes`; AVX512-BF16 was detected by `Isa::bf16`")]
    impl Lanes for Avx512Bf16 {
        const SLOT: usize = 8;
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller vouches for 16 values and for AVX-512F.
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn voxel<const P: usize>(from: *const f32) -> Self {
            // SAFETY: as above, one pair.
            Self(unsafe { broadcast_512::<P, 8>(from) })
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: both kinds of register are 512 bits without invalid patterns; the caller vouches for AVX512-BF16.
            unsafe {
                let pairs = |lanes: Self| std::mem::transmute::<__m512, __m512bh>(lanes.0);
                Self(_mm512_dpbf16_ps(self.0, pairs(a), pairs(b)))
            }
        }
        #[inline(always)]
        unsafe fn add_scaled(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }
        #[inline(always)]
        unsafe fn put(self, to: *mut f32) {
            // SAFETY: the caller vouches for 8 values and for AVX512-BF16.
            unsafe { to.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(self.0)) }
        }
    }

    /// Rounds blocks of 16 f32 to 16 bf16, which take the room of 8 f32.
    ///
    /// # Safety
    /// AVX-512F and AVX512-BF16 are there.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[expect(unsafe_code, reason = "vector loads and stores")]
    pub(in super::super) unsafe fn narrow(from: &[f32], to: &mut [f32]) {
        for (from, to) in from.chunks_exact(16).zip(to.chunks_exact_mut(8)) {
            // SAFETY: 64 bytes are read and 32 written, which is what the chunks hold.
            unsafe {
                let half = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                to.as_mut_ptr().cast::<__m256bh>().write_unaligned(half);
            }
        }
    }

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256, __m256);

    #[expect(
        unsafe_code,
        reason = "see `Lanes`; AVX2 and FMA were detected by `Isa::detect`"
    )]
    impl Lanes for Avx2 {
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller vouches for 16 values and for AVX2 with FMA.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn voxel<const P: usize>(from: *const f32) -> Self {
            // SAFETY: as above, one value.
            let value = unsafe { broadcast_256::<P, 16>(from) };
            Self(value, value)
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller vouches for FMA.
            unsafe {
                Self(
                    _mm256_fmadd_ps(a.0, b.0, self.0),
                    _mm256_fmadd_ps(a.1, b.1, self.1),
                )
            }
        }
    }

    #[expect(
        unsafe_code,
        reason = "see `Lanes`; AVX2 and FMA were detected by `Isa::detect`"
    )]
    impl Single for Avx2 {
        #[inline(always)]
        unsafe fn channel<const C: usize>(from: *const f32) -> Self {
            // SAFETY: the caller vouches for one value and for AVX2.
            let value = unsafe { broadcast_256::<C, 1>(from) };
            Self(value, value)
        }
        #[inline(always)]
        unsafe fn leaky(self, slope: Self) -> Self {
            // Beside no number (∞ × 0) the instruction gives the second.
            // SAFETY: the caller vouches for AVX2.
            unsafe {
                Self(
                    _mm256_max_ps(_mm256_mul_ps(self.0, slope.0), self.0),
                    _mm256_max_ps(_mm256_mul_ps(self.1, slope.1), self.1),
                )
            }
        }
    }
}
