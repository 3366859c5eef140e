//! Every layer against PyTorch, output and gradients, plain and blocked, on the CPU and in a CUDA build on a GPU; and the gradients against finite differences.

use super::{
    activation::Activation,
    conv::{Conv, ConvTranspose},
    layout,
    norm::{EPS, Norm, NormAct},
    pool::Pool,
    upsample::Upsample,
};
use candle_core::{Device, Result, Tensor, Var};
use std::collections::{BTreeMap, HashMap};

/// Made by `tests/golden/layers.py`.
const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/golden/layers.safetensors"
);

/// A case's parameters.
type Parameters = BTreeMap<String, Tensor>;
type Layer = Box<dyn Fn(&Parameters, &Tensor) -> Result<Tensor>>;

fn get(p: &Parameters, name: &str) -> Tensor {
    p[name].clone()
}

fn maybe(p: &Parameters, name: &str) -> Option<Tensor> {
    p.get(name).cloned()
}

fn conv(stride: [usize; 3], padding: [usize; 3], dilation: [usize; 3], groups: usize) -> Layer {
    Box::new(move |p, x| {
        Conv {
            weight: get(p, "weight"),
            bias: maybe(p, "bias"),
            stride,
            padding,
            dilation,
            groups,
        }
        .forward(x)
    })
}

fn transpose(stride: [usize; 3], padding: [usize; 3], output_padding: [usize; 3]) -> Layer {
    Box::new(move |p, x| {
        ConvTranspose {
            weight: get(p, "weight"),
            bias: maybe(p, "bias"),
            stride,
            padding,
            output_padding,
        }
        .forward(x)
    })
}

fn activation(make: impl Fn(&Parameters) -> Activation + 'static) -> Layer {
    Box::new(move |p, x| make(p).forward(x))
}

/// The layers of the script, with their arguments.
fn layers() -> Vec<(&'static str, Layer)> {
    let one = [1; 3];
    let none = [0; 3];
    vec![
        ("conv3d", conv([2, 1, 3], [0, 2, 1], [1, 2, 1], 1)),
        ("conv3d_plain", conv(one, one, one, 1)),
        ("conv3d_groups", conv([2; 3], one, one, 3)),
        ("conv2d", conv([1, 2, 2], [0, 1, 1], one, 1)),
        ("conv2d_uneven", conv([1, 1, 2], [0, 2, 0], one, 1)),
        ("transpose3d_double", transpose([2; 3], none, none)),
        ("transpose3d", transpose([2, 1, 3], [1, 0, 1], [1, 0, 2])),
        ("transpose2d", transpose([1, 2, 2], [0, 1, 1], [0, 1, 1])),
        (
            "instance",
            Box::new(|p, x| {
                Norm::Instance {
                    weight: maybe(p, "weight"),
                    bias: maybe(p, "bias"),
                    eps: EPS,
                }
                .forward(x)
            }),
        ),
        (
            "instance_bare",
            Box::new(|_, x| {
                Norm::Instance {
                    weight: None,
                    bias: None,
                    eps: EPS,
                }
                .forward(x)
            }),
        ),
        (
            "group",
            Box::new(|p, x| {
                Norm::Group {
                    groups: 3,
                    weight: get(p, "weight"),
                    bias: get(p, "bias"),
                    eps: EPS,
                }
                .forward(x)
            }),
        ),
        (
            "batch",
            Box::new(|p, x| {
                Norm::Batch {
                    weight: get(p, "weight"),
                    bias: get(p, "bias"),
                    running_mean: get(p, "running_mean"),
                    running_var: get(p, "running_var"),
                    eps: EPS,
                }
                .forward(x)
            }),
        ),
        (
            "layer",
            Box::new(|p, x| {
                Norm::Layer {
                    weight: get(p, "weight"),
                    bias: get(p, "bias"),
                    eps: EPS,
                }
                .forward(x)
            }),
        ),
        ("relu", activation(|_| Activation::Relu)),
        ("leaky", activation(|_| Activation::LeakyRelu(0.01))),
        ("prelu", activation(|p| Activation::Prelu(get(p, "weight")))),
        ("prelu_each", activation(|p| Activation::Prelu(get(p, "weight")))),
        ("gelu", activation(|_| Activation::Gelu)),
        ("sigmoid", activation(|_| Activation::Sigmoid)),
        ("max3d", pool(true, [1, 3, 2], [1, 2, 2], [0, 1, 1])),
        ("max2d", pool(true, [1, 2, 2], [1, 2, 2], none)),
        ("average3d", pool(false, [1, 3, 2], [1, 2, 2], [0, 1, 1])),
        ("nearest3d", upsample(Upsample::Nearest { scale: [1, 2, 3] })),
        (
            "trilinear",
            upsample(Upsample::Linear {
                scale: [2; 3],
                align_corners: false,
            }),
        ),
        (
            "trilinear_corners",
            upsample(Upsample::Linear {
                scale: [2; 3],
                align_corners: true,
            }),
        ),
        (
            "bilinear",
            upsample(Upsample::Linear {
                scale: [1, 2, 2],
                align_corners: false,
            }),
        ),
    ]
}

fn pool(largest: bool, kernel: [usize; 3], stride: [usize; 3], padding: [usize; 3]) -> Layer {
    let pool = if largest {
        Pool::Max {
            kernel,
            stride,
            padding,
        }
    } else {
        Pool::Average {
            kernel,
            stride,
            padding,
        }
    };
    Box::new(move |_, x| pool.forward(x))
}

fn upsample(layer: Upsample) -> Layer {
    Box::new(move |_, x| layer.forward(x))
}

/// The largest absolute value.
pub(super) fn largest(tensor: &Tensor) -> f32 {
    tensor
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap()
        .max(0)
        .unwrap()
        .to_scalar()
        .unwrap()
}

/// The GPU that a test of a CUDA build runs on.
#[cfg(feature = "cuda")]
pub(super) fn gpu() -> Device {
    static DEVICE: std::sync::LazyLock<Device> = std::sync::LazyLock::new(|| {
        super::open_cuda().unwrap_or_else(|why| panic!("this test runs on a GPU, and {why}"))
    });
    DEVICE.clone()
}

#[test]
fn layers_and_their_gradients_equal_pytorchs() {
    compare_layers(&Device::Cpu, &[false, true]);
}

#[cfg(feature = "cuda")]
#[test]
fn layers_and_their_gradients_on_a_gpu_equal_pytorchs() {
    compare_layers(&gpu(), &[false]);
}

/// With gradients and without, in the layouts that the device has: plain, blocked or both.
fn compare_layers(device: &Device, layouts: &[bool]) {
    let golden = candle_core::safetensors::load(GOLDEN, device).unwrap();
    let mut seen = 0;
    for (name, layer) in layers() {
        let of = |key: &str| &golden[&format!("{name}.{key}")];
        let vars: BTreeMap<String, Var> = golden
            .iter()
            .filter_map(|(key, tensor)| {
                let key = key.strip_prefix(name)?.strip_prefix(".p.")?;
                Some((key.to_owned(), Var::from_tensor(tensor).unwrap()))
            })
            .collect();
        let tracked: Parameters = vars
            .iter()
            .map(|(key, var)| (key.clone(), var.as_tensor().clone()))
            .collect();
        let detached: Parameters = vars
            .iter()
            .map(|(key, var)| (key.clone(), var.detach()))
            .collect();
        let channels = of("y").dim(1).unwrap();
        // Tokens have no blocked form.
        let layouts = layouts.iter().filter(|blocked| !**blocked || of("x").rank() != 3);
        for blocked in layouts.copied() {
            let x = Var::from_tensor(of("x")).unwrap();
            let run = |x: &Tensor, parameters: &Parameters| {
                let input = if blocked {
                    layout::enter(x).unwrap()
                } else {
                    x.clone()
                };
                let y = layer(parameters, &input).unwrap_or_else(|error| panic!("{name}: {error}"));
                layout::leave(&y, channels, of("y").rank() - 2).unwrap()
            };
            let y = run(&x, &tracked);
            let grads = (&y * of("scale")).unwrap().sum_all().unwrap().backward().unwrap();
            let mut compare = |what: &str, ours: &Tensor, theirs: &Tensor| {
                assert_eq!(ours.dims(), theirs.dims(), "{name} {what}, blocked {blocked}");
                let worst = largest(&(ours - theirs).unwrap());
                let size = largest(theirs).max(1.0);
                assert!(
                    worst < 2e-5 * size,
                    "{name} {what}, blocked {blocked}: {worst} at values up to {size}"
                );
                seen += 1;
            };
            compare("output", &y, of("y"));
            compare("output without gradients", &run(&x.detach(), &detached), of("y"));
            compare("gradient of the input", grads.get(&x).unwrap(), of("gx"));
            for (key, var) in &vars {
                if let Some(theirs) = golden.get(&format!("{name}.g.{key}")) {
                    compare(key, grads.get(var).unwrap(), theirs);
                }
            }
        }
    }
    let least = if layouts.len() == 2 { 120 } else { 60 };
    assert!(seen > least, "only {seen} tensors were compared");
}

#[test]
fn gradients_of_a_small_network_equal_finite_differences() {
    /// Step of the central difference: its error in f32 stays near 1e-3.
    const STEP: f64 = 1e-2;
    let device = &Device::Cpu;
    let golden = candle_core::safetensors::load(GOLDEN, device).unwrap();
    let x = &golden["conv3d_plain.x"];
    let weight = Var::from_tensor(&golden["conv3d_plain.p.weight"]).unwrap();
    let scale = Var::from_tensor(&Tensor::new(&[0.5f32, -1.0, 2.0], device).unwrap()).unwrap();
    let loss = || -> Tensor {
        let conv = Conv {
            weight: weight.as_tensor().clone(),
            bias: None,
            stride: [1, 2, 1],
            padding: [1; 3],
            dilation: [1; 3],
            groups: 1,
        };
        let layer = NormAct {
            norm: Norm::Instance {
                weight: Some(scale.as_tensor().clone()),
                bias: None,
                eps: EPS,
            },
            activation: Activation::LeakyRelu(0.2),
        };
        let y = layer.after(&conv, &layout::enter(x).unwrap()).unwrap();
        let y = layout::leave(&y, 3, 3).unwrap();
        let ramp = Tensor::arange(0f32, y.elem_count() as f32, device).unwrap();
        let ramp = (ramp * 0.37).unwrap().sin().unwrap().reshape(y.shape()).unwrap();
        (y * ramp).unwrap().sum_all().unwrap()
    };
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let grads = loss().backward().unwrap();
    for var in [&weight, &scale] {
        let start = var.as_detached_tensor().copy().unwrap();
        let gradient: Vec<f32> = grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let count = start.elem_count();
        for i in (0..count).step_by(count.div_ceil(12)) {
            let mut unit = vec![0.0f32; count];
            unit[i] = 1.0;
            let unit = Tensor::from_vec(unit, start.shape(), device).unwrap();
            let at = |step: f64| {
                var.set(&(&start + (&unit * step).unwrap()).unwrap()).unwrap();
                value()
            };
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            assert!(
                (slope - f64::from(gradient[i])).abs() < 2e-2 * slope.abs().max(1.0),
                "{i} of {count}: {slope} and {}",
                gradient[i]
            );
        }
        var.set(&start).unwrap();
    }
}

#[test]
fn joined_inputs_equal_their_concatenation() {
    let device = &Device::Cpu;
    let tensors: HashMap<_, _> = [("a", 32), ("b", 20), ("c", 7)]
        .map(|(name, c)| {
            let x = Tensor::randn(0f32, 1.0, (2, c, 3, 4, 5), device).unwrap();
            (name, x)
        })
        .into();
    for (a, b) in [("a", "b"), ("c", "b")] {
        let (a, b) = (&tensors[a], &tensors[b]);
        let split = a.dim(1).unwrap();
        let conv = Conv {
            weight: Tensor::randn(0f32, 0.3, (5, split + 20, 3, 3, 3), device).unwrap(),
            bias: None,
            stride: [1; 3],
            padding: [1; 3],
            dilation: [1; 3],
            groups: 1,
        };
        let expected = conv.forward(&Tensor::cat(&[a, b], 1).unwrap()).unwrap();
        let (a, b) = (layout::enter(a).unwrap(), layout::enter(b).unwrap());
        let got = layout::leave(&conv.forward2(&a, &b, split).unwrap(), 5, 3).unwrap();
        assert!(largest(&(got - expected).unwrap()) < 1e-4, "{split}");
    }
}
