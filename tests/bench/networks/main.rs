//! How fast whole U-Nets run: ictus beside PyTorch, ONNX Runtime and OpenVINO, on the same weights, input and threads.
//!
//! `ICTUS_BENCH_PYTHON` names a Python with these packages (see `engines.py`); without it only ictus and candle's own operators are timed.
//! `ICTUS_BENCH_PAIRS` and `ICTUS_BENCH_ONLY` (`unet3d`, `unet2d`) shorten a run.
//! Prints medians and ratios with their 95 % intervals over interleaved rounds; it asserts nothing.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops when it cannot run"
)]

mod engines;
mod peak;
mod unet;

use candle_core::{DType, Device, Tensor};
use candle_nn::Optimizer;
use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};
use unet::Size;

/// Rounds in which every engine runs once.
const PAIRS: usize = 20;
/// Rounds of what takes long and is far from equal.
const BATCHED: usize = 3;

fn main() {
    let pairs = std::env::var("ICTUS_BENCH_PAIRS").map_or(PAIRS, |n| n.parse().unwrap());
    let only = std::env::var("ICTUS_BENCH_ONLY").unwrap_or_default();
    let threads = rayon::current_num_threads();
    println!(
        "{threads} threads, {}; load before: {}",
        ictus_compute::nn::instruction_set(),
        load()
    );
    let folder = tempfile::tempdir().unwrap();
    let mut python = engines::Engines::start(folder.path(), threads);
    for size in [&unet::UNET_3D, &unet::UNET_2D] {
        if only.is_empty() || size.name == only {
            compare(size, pairs, threads, folder.path(), python.as_mut());
        }
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_else(|_| "unknown".into());
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Milliseconds and the result.
fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let started = Instant::now();
    let result = run();
    (started.elapsed().as_secs_f64() * 1e3, result)
}

fn compare(
    size: &Size,
    pairs: usize,
    threads: usize,
    folder: &std::path::Path,
    mut python: Option<&mut engines::Engines>,
) {
    let (trained, vars) = size.trainable();
    let weights: BTreeMap<String, Tensor> = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().copy().unwrap().detach()))
        .collect();
    let network = size.loaded(&weights);
    let x = Tensor::randn(0f32, 1.0, size.input.to_vec(), &Device::Cpu).unwrap();
    let exact = network.forward(&x).unwrap();
    let eight = Tensor::cat(&[&x; 8], 0).unwrap();
    let gflop = size.gflop(&weights);
    println!("\n{} {:?}, {gflop:.0} GFLOP", size.name, size.input);
    let mut tensors: HashMap<String, Tensor> = weights.into_iter().collect();
    tensors.insert("input".into(), x.clone());
    tensors.insert("output".into(), exact.clone());
    candle_core::safetensors::save(&tensors, folder.join(format!("{}.safetensors", size.name))).unwrap();
    let others = python
        .as_mut()
        .map_or_else(Vec::new, |python| python.load(size.name));

    let parameters = candle_nn::ParamsAdamW {
        lr: 1e-4,
        ..Default::default()
    };
    let mut optimizer = candle_nn::AdamW::new(vars.into_values().collect(), parameters).unwrap();
    let mut train = || {
        let loss = trained.forward(&x).unwrap().sqr().unwrap().mean_all().unwrap();
        optimizer.backward_step(&loss).unwrap();
        loss.to_dtype(DType::F32).unwrap()
    };

    let mut times: HashMap<String, Vec<f64>> = HashMap::new();
    let mut differences: HashMap<String, f64> = HashMap::new();
    let mut peaks = Vec::new();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    // The first round warms up and is not counted.
    for round in 0..=pairs {
        let mut put = |name: &str, ms: f64| {
            if round > 0 {
                times.entry(name.to_owned()).or_default().push(ms);
            }
        };
        peaks.push(peak::gflops(threads));
        put("ictus", timed(|| network.forward(&x).unwrap()).0);
        if ictus_compute::nn::has_bf16() {
            let (ms, y) = timed(|| ictus_compute::nn::with_bf16(|| network.forward(&x).unwrap()));
            put("ictus_bf16", ms);
            let difference = (y - &exact).unwrap().abs().unwrap().flatten_all().unwrap();
            let difference: f32 = difference.max(0).unwrap().to_scalar().unwrap();
            differences.insert("ictus_bf16".into(), f64::from(difference));
        }
        put(
            "ictus_one_thread",
            timed(|| one.install(|| network.forward(&x).unwrap())).0,
        );
        put("ictus_training", timed(&mut train).0);
        if let Some(python) = python.as_mut() {
            for name in &others {
                let (ms, difference) = python.run(name);
                put(name, ms);
                differences.insert(name.clone(), difference);
            }
        }
        if round <= BATCHED {
            // What mirrored copies of a tile would cost together: the time of one.
            let (ms, _) = timed(|| network.forward(&eight).unwrap());
            put("ictus_batch_of_8", ms / 8.0);
        }
        if python.is_none() && round <= BATCHED {
            // candle's own operators take a minute in 3-D.
            put("candle", timed(|| network.forward_plain(&x).unwrap()).0);
        }
    }
    report(&times, &differences, gflop, median(&peaks));
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The order statistics that hold the median with at least 95 % (binomial).
fn interval(ratios: &[f64]) -> (f64, f64) {
    let mut ratios = ratios.to_vec();
    ratios.sort_by(f64::total_cmp);
    let n = ratios.len();
    let (mut below, mut term) = (0.0, 0.5f64.powi(i32::try_from(n).unwrap()));
    let mut k = 0;
    while below + term <= 0.025 {
        below += term;
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    let k = k.saturating_sub(1);
    (ratios[k], ratios[n - 1 - k])
}

fn report(times: &HashMap<String, Vec<f64>>, differences: &HashMap<String, f64>, gflop: f64, peak: f64) {
    println!(
        "FMA peak measured between the rounds, median: {peak:.0} GFLOP/s; load {}",
        load()
    );
    let mut names: Vec<&String> = times.keys().collect();
    names.sort();
    for name in names {
        let times_of = &times[name];
        let ms = median(times_of);
        let mut line = format!("{name:20} {ms:8.0} ms");
        // bf16 against bf16; ours against our f32.
        let base = match name.as_str() {
            name if name.contains("training") => "ictus_training",
            name if name.contains("bf16") && name != "ictus_bf16" && times.contains_key("ictus_bf16") => {
                "ictus_bf16"
            }
            _ => "ictus",
        };
        if name.contains("training") {
            line += &format!("  {:5.0} GFLOP/s", 3.0 * gflop / ms * 1e3);
        } else {
            line += &format!("  {:5.0} GFLOP/s", gflop / ms * 1e3);
        }
        if name == "ictus" {
            line += &format!("  {:.0} % of the peak", 100.0 * gflop / ms * 1e3 / peak);
        }
        if name != base {
            let ratios: Vec<f64> = times_of.iter().zip(&times[base]).map(|(a, b)| a / b).collect();
            let (low, high) = interval(&ratios);
            line += &format!(
                "  takes {:.2} times {base}'s time (95 %: {low:.2} to {high:.2}, n = {})",
                median(&ratios),
                ratios.len()
            );
        }
        if let Some(difference) = differences.get(name) {
            line += &format!("  largest difference {difference:.1e}");
        }
        println!("{line}");
    }
}
