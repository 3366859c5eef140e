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
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn splat(from: *const f32) -> Self;
    /// self + a × b.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
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
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller vouches for one value.
        Self([unsafe { *from }; 16])
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..16 {
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::{asm, x86_64::*};

    /// A value on all lanes.
    ///
    /// Written out: the compiler would load neighbouring values as one vector and shuffle, which spills registers.
    ///
    /// # Safety
    /// AVX-512F is there, and one value.
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "one instruction of inline assembly")]
    unsafe fn broadcast_512(from: *const f32) -> __m512 {
        let value;
        // SAFETY: reads the one value that the caller vouches for.
        unsafe {
            asm!("vbroadcastss {}, dword ptr [{}]", out(zmm_reg) value, in(reg) from, options(pure, readonly, nostack, preserves_flags));
        }
        value
    }

    /// As [`broadcast_512`], on 256 bits.
    ///
    /// # Safety
    /// AVX is there, and one value.
    #[inline]
    #[target_feature(enable = "avx")]
    #[expect(unsafe_code, reason = "one instruction of inline assembly")]
    unsafe fn broadcast_256(from: *const f32) -> __m256 {
        let value;
        // SAFETY: reads the one value that the caller vouches for.
        unsafe {
            asm!("vbroadcastss {}, dword ptr [{}]", out(ymm_reg) value, in(reg) from, options(pure, readonly, nostack, preserves_flags));
        }
        value
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
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: as above, one value.
            Self(unsafe { broadcast_512(from) })
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
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
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: as above, one value.
            let value = unsafe { broadcast_256(from) };
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
}
