use candle_core::{Device, Tensor};
use ictus::{
    domain::plan::Architecture,
    nn::{parameters::Parameters, unet::PlainConvUNet},
};
use std::time::Instant;
fn main() {
    let f = vec![16usize, 32, 64, 96, 128];
    let n = f.len();
    let plan = Architecture {
        input_channels: 1,
        n_stages: n,
        features_per_stage: f,
        kernel_sizes: vec![vec![3, 3]; n],
        strides: (0..n).map(|i| vec![if i == 0 { 1 } else { 2 }; 2]).collect(),
        n_conv_per_stage: vec![2; n],
        n_conv_per_stage_decoder: vec![1; n - 1],
        num_classes: 2,
    };
    let mut p = Parameters::trainable(1, &Device::Cpu);
    let net = PlainConvUNet::new(&plan, &mut p).unwrap();
    for b in [1usize, 4] {
        let x = Tensor::randn(0f32, 1.0, (b, 1, 256, 256), &Device::Cpu).unwrap();
        for _ in 0..3 {
            let t = Instant::now();
            let y = net.forward(&x).unwrap();
            let f = t.elapsed();
            let t = Instant::now();
            let g = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let bw = t.elapsed();
            println!("batch {b} fwd {f:?} bwd {bw:?} {}", g.get_ids().count());
        }
    }
    println!("{}", ictus::nn::instruction_set());
}
