//! Run by `make test-cuda` on a machine with a GPU; without one they fail and say so.
//!
//! The layers' goldens run in `nn::tests` and the networks' in `tests/it/networks.rs`, on this device; here is what only a GPU does.

use super::super::{
    activation::Activation,
    conv::{Conv, ConvTranspose},
    norm::{EPS, Norm, NormAct},
    tests::{gpu, largest},
    with_bf16,
};
use candle_core::{DType, Device, Tensor, Var};

fn random(dims: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, dims, &Device::Cpu).unwrap()
}

fn conv(weight: Tensor, bias: Option<Tensor>) -> Conv {
    Conv {
        weight,
        bias,
        stride: [1; 3],
        padding: [1; 3],
        dilation: [1; 3],
        groups: 1,
    }
}

/// The layer on another device.
fn moved(layer: &Conv, to: &Device) -> Conv {
    Conv {
        weight: layer.weight.to_device(to).unwrap(),
        bias: layer.bias.as_ref().map(|bias| bias.to_device(to).unwrap()),
        ..layer.clone()
    }
}

fn difference(gpu: &Tensor, cpu: &Tensor) -> f32 {
    largest(&(gpu.to_device(&Device::Cpu).unwrap() - cpu).unwrap())
}

#[test]
fn f32_is_not_tf32() {
    let (device, layer) = (gpu(), conv(random(&[32, 64, 3, 3, 3]), None));
    let x = random(&[1, 64, 12, 12, 12]);
    let y = moved(&layer, &device)
        .forward(&x.to_device(&device).unwrap())
        .unwrap();
    // Sums of 1728 products near 1 that reach 200: f32 errs by some 1e-4, TF32 by some 1e-2.
    let worst = difference(&y, &layer.forward(&x).unwrap());
    assert!(worst < 2e-3, "{worst}");
}

#[test]
fn f16_and_bf16_add_in_f32() {
    let (device, layer) = (gpu(), conv(random(&[32, 64, 3, 3, 3]), None));
    let x = random(&[1, 64, 12, 12, 12]);
    for (dtype, tolerance) in [(DType::F16, 0.3), (DType::BF16, 2.0)] {
        let rounded = |t: &Tensor| t.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
        // The same rounded factors, so that only the sums and the rounding of the output differ: values reach 200.
        let expected = conv(rounded(&layer.weight), None).forward(&rounded(&x)).unwrap();
        let half = |t: &Tensor| t.to_dtype(dtype).unwrap().to_device(&device).unwrap();
        let y = conv(half(&layer.weight), None).forward(&half(&x)).unwrap();
        assert_eq!(y.dtype(), dtype);
        let worst = difference(&y.to_dtype(DType::F32).unwrap(), &expected);
        assert!(worst < tolerance, "{dtype:?}: {worst}");
    }
}

#[test]
fn bf16_on_request_gives_f32_near_the_exact_answer() {
    let (device, layer) = (gpu(), conv(random(&[16, 16, 3, 3]), Some(random(&[16]))));
    let x = random(&[2, 16, 20, 24]);
    let (on_gpu, input) = (moved(&layer, &device), x.to_device(&device).unwrap());
    let y = with_bf16(|| on_gpu.forward(&input)).unwrap();
    assert_eq!(y.dtype(), DType::F32);
    let worst = difference(&y, &layer.forward(&x).unwrap());
    assert!(worst > 1e-4, "as exact as f32: {worst}");
    assert!(worst < 0.5, "{worst}");
}

#[test]
fn bf16_on_request_gives_gradients_near_the_exact_ones() {
    let device = gpu();
    let (x, weight, bias) = (random(&[2, 16, 20, 24]), random(&[16, 16, 3, 3]), random(&[16]));
    let sum = random(&[2, 16, 20, 24]);
    let gradients = |device: &Device| {
        let var = |t: &Tensor| Var::from_tensor(&t.to_device(device).unwrap()).unwrap();
        let (x, weight, bias) = (var(&x), var(&weight), var(&bias));
        let layer = Conv {
            padding: [0, 1, 1],
            ..conv(weight.as_tensor().clone(), Some(bias.as_tensor().clone()))
        };
        let y = layer.forward(&x).unwrap();
        let loss = (y * sum.to_device(device).unwrap()).unwrap().sum_all().unwrap();
        let all = loss.backward().unwrap();
        [&x, &weight, &bias].map(|var| all.get(var).unwrap().to_device(&Device::Cpu).unwrap())
    };
    let (exact, rounded) = (gradients(&Device::Cpu), with_bf16(|| gradients(&device)));
    for (k, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
        assert_eq!(rounded.dtype(), DType::F32);
        let share = difference(rounded, exact) / largest(exact);
        assert!(share < 0.02, "{k}: off by {share} of the largest");
        // A bias is summed in f32 all the same.
        assert!(k == 2 || share > 1e-5, "{k}: as exact as f32: {share}");
    }
}

#[test]
fn the_same_input_has_the_same_bits() {
    let (device, layer) = (gpu(), conv(random(&[8, 8, 3, 3, 3]), Some(random(&[8]))));
    let norm = NormAct {
        norm: Norm::Instance {
            weight: None,
            bias: None,
            eps: EPS,
        },
        activation: Activation::LeakyRelu(0.01),
    };
    let up = ConvTranspose {
        weight: random(&[8, 4, 2, 2, 2]).to_device(&device).unwrap(),
        bias: None,
        stride: [2; 3],
        padding: [0; 3],
        output_padding: [0; 3],
    };
    let (layer, x) = (
        moved(&layer, &device),
        random(&[2, 8, 40, 40, 40]).to_device(&device).unwrap(),
    );
    let run = || {
        let y = up.forward(&norm.after(&layer, &x).unwrap()).unwrap();
        y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let first = run();
    for _ in 0..5 {
        assert!(run() == first);
    }
}

/// A view, a slice with an offset and an empty batch are what a network hands over now and then.
#[test]
fn tensors_need_not_be_contiguous_or_have_values() {
    let (device, layer) = (gpu(), conv(random(&[5, 6, 3, 3, 3]), Some(random(&[5]))));
    let on_gpu = moved(&layer, &device);
    let x = random(&[3, 7, 8, 9, 10]);
    let views: [&dyn Fn(&Tensor) -> Tensor; 3] = [
        &|x| x.narrow(1, 1, 6).unwrap(),
        &|x| x.narrow(0, 1, 1).unwrap().narrow(1, 0, 6).unwrap(),
        &|x| x.narrow(1, 0, 6).unwrap().transpose(2, 4).unwrap(),
    ];
    for view in views {
        let y = on_gpu.forward(&view(&x.to_device(&device).unwrap())).unwrap();
        assert!(difference(&y, &layer.forward(&view(&x)).unwrap()) < 1e-4);
    }
    let none = Tensor::zeros((0, 6, 8, 9, 10), DType::F32, &device).unwrap();
    assert_eq!(on_gpu.forward(&none).unwrap().dims(), [0, 5, 8, 9, 10]);
}

#[test]
fn an_instance_norm_takes_off_the_bias_before_it() {
    let (device, layer) = (gpu(), conv(random(&[6, 3, 3, 3]), Some(random(&[6]))));
    let layer = Conv {
        padding: [0, 1, 1],
        ..layer
    };
    let x = random(&[2, 3, 33, 47]);
    let norm = |device: &Device| NormAct {
        norm: Norm::Instance {
            weight: Some(Tensor::arange(1f32, 7.0, device).unwrap()),
            bias: Some(Tensor::arange(-3f32, 3.0, device).unwrap()),
            eps: EPS,
        },
        activation: Activation::Relu,
    };
    let y = norm(&device)
        .after(&moved(&layer, &device), &x.to_device(&device).unwrap())
        .unwrap();
    let expected = norm(&Device::Cpu).after(&layer, &x).unwrap();
    assert!(difference(&y, &expected) < 1e-4);
}

#[test]
fn threads_share_the_device() {
    let (device, layer) = (gpu(), conv(random(&[8, 8, 3, 3, 3]), None));
    let (x, on_gpu) = (random(&[1, 8, 16, 16, 16]), moved(&layer, &device));
    let (expected, input) = (layer.forward(&x).unwrap(), x.to_device(&device).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert!(difference(&on_gpu.forward(&input).unwrap(), &expected) < 1e-3);
                }
            });
        }
    });
}

#[test]
fn memory_that_is_not_there_is_refused_in_words() {
    let device = gpu();
    // 4 TiB, which no GPU has.
    let error = Tensor::zeros((1024, 1024, 1024, 1024), DType::F32, &device).unwrap_err();
    assert!(super::super::is_out_of_memory(&error), "{error}");
}
