//! Whole networks against the packages that they come from: `tests/golden/networks`.

use candle_core::{DType, Device, Tensor};
use ictus::{
    domain::architecture::Architecture,
    nn::{network::Network, parameters::Parameters},
};
use safetensors::SafeTensors;
use std::{collections::BTreeMap, path::Path};

/// Largest absolute difference that a network's logits may have; they reach 3 to 7.
const TOLERANCE: f32 = 1e-4;

struct Golden {
    architecture: Architecture,
    weights: BTreeMap<String, Tensor>,
    input: Tensor,
    heads: Vec<Tensor>,
}

fn golden(name: &str) -> Golden {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/networks/{name}.safetensors"));
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let text = &header.metadata().as_ref().unwrap()["architecture"];
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
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
            .forward(&Tensor::zeros(dims.clone(), DType::F32, &Device::Cpu).unwrap())
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
