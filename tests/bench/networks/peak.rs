//! What the machine's multipliers give at best: fused multiply-adds on registers alone.

use std::time::Instant;

/// Independent sums: more than the latency of an FMA hides.
const SUMS: usize = 24;
/// Rounds of one measurement: about 50 ms.
const ROUNDS: usize = 4_000_000;

/// GFLOP/s of `threads` threads with the widest vectors that the kernels use.
pub(crate) fn gflops(threads: usize) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| std::hint::black_box(run()));
        }
    });
    let lanes = if ictus_compute::nn::instruction_set() == "avx512" {
        16
    } else {
        8
    };
    (threads * ROUNDS * SUMS * lanes * 2) as f64 / started.elapsed().as_secs_f64() / 1e9
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "calls code compiled for the detected instruction set")]
fn run() -> f32 {
    match ictus_compute::nn::instruction_set() {
        // SAFETY: the kernels have detected AVX-512F.
        "avx512" => unsafe { x86::avx512() },
        // SAFETY: the kernels have detected AVX2 and FMA.
        "avx2" => unsafe { x86::avx2() },
        _ => f32::NAN,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn run() -> f32 {
    f32::NAN
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ROUNDS, SUMS};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512() -> f32 {
        let mut sums = [_mm512_setzero_ps(); SUMS];
        let (a, b) = (_mm512_set1_ps(1.0), _mm512_set1_ps(std::hint::black_box(1e-9)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2() -> f32 {
        // Twelve sums: sixteen registers hold no more.
        let mut sums = [_mm256_setzero_ps(); SUMS / 2];
        let (a, b) = (_mm256_set1_ps(1.0), _mm256_set1_ps(std::hint::black_box(1e-9)));
        for _ in 0..2 * ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        // The sums only have to be used.
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }
}
