//! The U-Net that is measured, on ictus's layers: two convolutions a level, affine instance norm, LeakyReLU, stride 2 down, 2× transposed up.

use candle_core::{Device, Tensor};
use ictus::nn::{
    activation::Activation,
    conv::{Conv, ConvTranspose},
    layout,
    norm::{EPS, NEGATIVE_SLOPE, Norm, NormAct},
};
use std::collections::HashMap;

/// A network's size and its input.
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) features: &'static [usize],
    pub(crate) input: &'static [usize],
}

/// The 3-D network of the bar.
pub(crate) const UNET_3D: Size = Size {
    name: "unet3d",
    features: &[32, 64, 128, 256],
    input: &[1, 1, 96, 96, 96],
};
/// The 2-D network of the bar.
pub(crate) const UNET_2D: Size = Size {
    name: "unet2d",
    features: &[32, 64, 128, 256, 512],
    input: &[1, 1, 512, 512],
};
/// Output channels.
const CLASSES: usize = 4;

impl Size {
    fn dims(&self) -> usize {
        self.input.len() - 2
    }

    /// A value a spatial axis, depth first; `flat` stands for depth in 2-D.
    fn each(&self, value: usize, flat: usize) -> [usize; 3] {
        [if self.dims() == 3 { value } else { flat }, value, value]
    }
}

/// Random weights with PyTorch's names.
pub(crate) fn weights(size: &Size, device: &Device) -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    let mut conv = |name: String, first: usize, second: usize, kernel: usize, bias: usize| {
        let mut shape = vec![first, second];
        shape.extend(std::iter::repeat_n(kernel, size.dims()));
        let fan = second * kernel.pow(u32::try_from(size.dims()).unwrap());
        let std = (2.0 / fan as f32).sqrt();
        all.insert(
            format!("{name}.weight"),
            Tensor::randn(0.0, std, shape, device).unwrap(),
        );
        all.insert(
            format!("{name}.bias"),
            Tensor::randn(0.0f32, 0.1, bias, device).unwrap(),
        );
    };
    let features = size.features;
    for (i, f) in features.iter().enumerate() {
        let below = if i == 0 { 1 } else { features[i - 1] };
        conv(format!("enc.{i}.c1"), *f, below, 3, *f);
        conv(format!("enc.{i}.c2"), *f, *f, 3, *f);
        if i + 1 < features.len() {
            conv(format!("dec.{i}.c1"), *f, 2 * f, 3, *f);
            conv(format!("dec.{i}.c2"), *f, *f, 3, *f);
            conv(format!("up.{i}"), features[i + 1], *f, 2, *f);
        }
    }
    conv("head".into(), CLASSES, features[0], 1, CLASSES);
    for (i, f) in features.iter().enumerate() {
        for side in if i + 1 < features.len() {
            &["enc", "dec"][..]
        } else {
            &["enc"]
        } {
            for n in ["n1", "n2"] {
                let name = format!("{side}.{i}.{n}");
                all.insert(
                    format!("{name}.weight"),
                    Tensor::randn(1.0f32, 0.1, *f, device).unwrap(),
                );
                all.insert(
                    format!("{name}.bias"),
                    Tensor::randn(0.0f32, 0.1, *f, device).unwrap(),
                );
            }
        }
    }
    all
}

/// Two convolutions with their norms.
struct Level {
    convs: [(Conv, NormAct); 2],
}

/// The network.
pub(crate) struct Network {
    encoder: Vec<Level>,
    up: Vec<ConvTranspose>,
    decoder: Vec<Level>,
    head: Conv,
    dims: usize,
}

impl Network {
    pub(crate) fn new(size: &Size, weights: &HashMap<String, Tensor>) -> Self {
        let get = |name: String| weights[&name].clone();
        let conv = |name: &str, stride: usize, padding: usize| Conv {
            weight: get(format!("{name}.weight")),
            bias: Some(get(format!("{name}.bias"))),
            stride: size.each(stride, 1),
            padding: size.each(padding, 0),
            dilation: [1; 3],
            groups: 1,
        };
        let unit = |level: &str, i: usize, stride: usize| {
            let norm = NormAct {
                norm: Norm::Instance {
                    weight: Some(get(format!("{level}.n{i}.weight"))),
                    bias: Some(get(format!("{level}.n{i}.bias"))),
                    eps: EPS,
                },
                activation: Activation::LeakyRelu(NEGATIVE_SLOPE),
            };
            (conv(&format!("{level}.c{i}"), stride, 1), norm)
        };
        let level = |name: String, stride: usize| Level {
            convs: [unit(&name, 1, stride), unit(&name, 2, 1)],
        };
        let n = size.features.len();
        Self {
            encoder: (0..n)
                .map(|i| level(format!("enc.{i}"), if i == 0 { 1 } else { 2 }))
                .collect(),
            up: (0..n - 1)
                .map(|i| ConvTranspose {
                    weight: get(format!("up.{i}.weight")),
                    bias: Some(get(format!("up.{i}.bias"))),
                    stride: size.each(2, 1),
                    padding: [0; 3],
                    output_padding: [0; 3],
                })
                .collect(),
            decoder: (0..n - 1).map(|i| level(format!("dec.{i}"), 1)).collect(),
            head: conv("head", 1, 0),
            dims: size.dims(),
        }
    }

    /// On the fast layout.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.run(layout::enter(x).unwrap())
    }

    /// On candle's own operators.
    pub(crate) fn forward_plain(&self, x: &Tensor) -> Tensor {
        self.run(x.clone())
    }

    fn run(&self, mut x: Tensor) -> Tensor {
        let mut skips = Vec::new();
        for level in &self.encoder {
            for (conv, norm) in &level.convs {
                x = norm.after(conv, &x).unwrap();
            }
            skips.push(x.clone());
        }
        skips.pop();
        for (up, level) in self.up.iter().zip(&self.decoder).rev() {
            let above = up.forward(&x).unwrap();
            let skip = skips.pop().unwrap();
            let [(c1, n1), (c2, n2)] = &level.convs;
            let split = up.weight.dim(1).unwrap();
            x = n1.after2(c1, &above, &skip, split).unwrap();
            drop((above, skip));
            x = n2.after(c2, &x).unwrap();
        }
        layout::leave(&self.head.forward(&x).unwrap(), CLASSES, self.dims).unwrap()
    }

    /// Multiplications and additions of all convolutions.
    pub(crate) fn gflop(&self, size: &Size) -> f64 {
        let voxels = |level: usize| -> f64 {
            let whole: usize = size.input[2..].iter().map(|axis| axis >> level).product();
            whole as f64
        };
        let mut flop = self.head.weight.elem_count() as f64 * voxels(0);
        for (i, level) in self.encoder.iter().enumerate() {
            flop += level
                .convs
                .iter()
                .map(|(c, _)| c.weight.elem_count() as f64)
                .sum::<f64>()
                * voxels(i);
        }
        for (i, (level, up)) in self.decoder.iter().zip(&self.up).enumerate() {
            flop += level
                .convs
                .iter()
                .map(|(c, _)| c.weight.elem_count() as f64)
                .sum::<f64>()
                * voxels(i);
            flop += up.weight.elem_count() as f64 * voxels(i + 1);
        }
        2e-9 * flop
    }
}
