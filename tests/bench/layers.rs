//! How fast the shipped network runs on our kernels beside candle's own operators, measured side by side.
//!
//! Prints medians and the ratio with its 95 % interval over interleaved pairs; it asserts nothing.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops when it cannot run"
)]

use candle_core::{Device, Tensor};
use ictus_compute::{
    nn::{network::Network, parameters::Parameters},
    train::recipe::haemorrhage,
};
use std::time::Instant;

/// Pairs of runs.
const PAIRS: usize = 20;

fn main() {
    let plan = haemorrhage(1);
    let mut parameters = Parameters::trainable(1, &Device::Cpu);
    let network = Network::new(&plan.configuration.architecture, &mut parameters).unwrap();
    let [rows, columns] = [plan.configuration.patch_size[0], plan.configuration.patch_size[1]];
    let x = Tensor::randn(
        0f32,
        1.0,
        (1, plan.configuration.normalization_schemes.len(), rows, columns),
        &Device::Cpu,
    )
    .unwrap();
    let time = |run: &dyn Fn() -> Tensor| {
        let started = Instant::now();
        let y = run();
        (started.elapsed().as_secs_f64() * 1e3, y)
    };
    let ours = || network.forward(&x).unwrap();
    let candles = || network.forward_plain(&x).unwrap();
    let difference = (ours() - candles())
        .unwrap()
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap()
        .max(0)
        .unwrap();
    println!(
        "largest difference {:.1e}",
        difference.to_scalar::<f32>().unwrap()
    );
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let (ours_ms, _) = time(&ours);
        let (candles_ms, _) = time(&candles);
        ratios.push(candles_ms / ours_ms);
        a.push(ours_ms);
        b.push(candles_ms);
    }
    for values in [&mut a, &mut b, &mut ratios] {
        values.sort_by(f64::total_cmp);
    }
    let middle = PAIRS / 2;
    // The order statistics that hold the median with 95 % for twenty pairs (binomial).
    println!(
        "one tile of {rows} x {columns}, {}: ours {:.1} ms, candle {:.1} ms, ratio {:.2} (95 % interval {:.2} to {:.2}, {PAIRS} pairs)",
        ictus_compute::nn::instruction_set(),
        a[middle],
        b[middle],
        ratios[middle],
        ratios[5],
        ratios[14]
    );
}
