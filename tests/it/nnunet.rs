//! Whole predictions against nnU-Net v2's own: `tests/golden/nnunet`.
//!
//! Preprocessing, tiles, mirroring, folds, the way back and the label map, each held to what nnU-Net made.

use candle_core::{Device, Tensor};
use ictus::{
    analysis::{
        self, Scan,
        infer::{self, Engine, InferError, bundle::Bundle},
        preprocess,
    },
    domain::{
        device::DeviceChoice,
        network::Unattended,
        plan::{Activation, Plan},
        uid::Uid,
        volume::{Geometry, SlicePlane, Volume},
        volume_trace::Turn,
    },
    nn::{network::Network, parameters::Parameters},
};
use safetensors::SafeTensors;
use std::{collections::BTreeMap, path::Path};

/// Largest difference of preprocessed values, which reach 4: nnU-Net normalises in single precision.
const INPUT_TOLERANCE: f32 = 1e-6;
/// Largest difference of logits on the network's grid, which reach 3.
const LOGIT_TOLERANCE: f32 = 3e-5;
/// Largest difference of probabilities on the source's grid.
const PROBABILITY_TOLERANCE: f32 = 1e-5;
/// Voxels that may fall on the other side of a border between labels.
const OTHER_SHARE: f64 = 0.001;

struct Golden {
    plan: Plan,
    spacing: [f64; 3],
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/nnunet/{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = header.metadata().as_ref().unwrap();
        Self {
            plan: serde_json::from_str(&text["plan"]).unwrap(),
            spacing: serde_json::from_str(&text["spacing"]).unwrap(),
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
                .unwrap()
                .into_iter()
                .collect(),
        }
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let tensor = self.tensors[name].to_dtype(candle_core::DType::F32).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn dims(&self, name: &str) -> &[usize] {
        self.tensors[name].dims()
    }

    /// The model's folder, with a golden patch of its own making.
    fn bundle(&self) -> Bundle {
        let weights: std::collections::HashMap<String, Tensor> = self
            .tensors
            .iter()
            .filter(|(name, _)| name.starts_with("member_"))
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        let configuration = &self.plan.configuration;
        let mut dims = vec![1, configuration.normalization_schemes.len()];
        dims.extend(&configuration.patch_size);
        let input = Tensor::rand(-1f32, 1.0, dims, &Device::Cpu).unwrap();
        let mut golden = std::collections::HashMap::from([("input".to_owned(), input.clone())]);
        for member in 0..self.plan.members {
            let prefix = format!("member_{member}.");
            let own = weights
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone())));
            let network = Network::new(
                &configuration.architecture,
                &mut Parameters::Loaded(own.collect()),
            )
            .unwrap();
            golden.insert(format!("logits_{member}"), network.forward(&input).unwrap());
        }
        let bytes = |tensors| safetensors::serialize(tensors, None).unwrap();
        Bundle::parse(
            &serde_json::to_vec(&self.plan).unwrap(),
            bytes(&weights),
            bytes(&golden),
        )
        .unwrap()
    }

    fn scan(&self) -> Scan {
        let &[channels, slices, rows, columns] = self.dims("image") else {
            panic!("an image has four axes");
        };
        let geometry = Geometry {
            rows,
            columns,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [self.spacing[1], self.spacing[2]],
            planes: (0..slices)
                .map(|k| SlicePlane {
                    origin_mm: [0.0, 0.0, k as f64 * self.spacing[0]],
                    thickness_mm: self.spacing[0],
                })
                .collect(),
        };
        let data = self.values("image");
        Scan {
            channels: data
                .chunks_exact(data.len() / channels)
                .map(|channel| Volume {
                    geometry: geometry.clone(),
                    data: channel.to_vec(),
                })
                .collect(),
            turn: Turn::default(),
        }
    }
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn agrees(name: &str) {
    let golden = Golden::read(name);
    let scan = golden.scan();
    let engine = Engine::start(&[golden.bundle()], DeviceChoice::Cpu).unwrap();
    let model = engine.model(&golden.plan.id).unwrap();
    let (input, _) = preprocess::volume::preprocess(&scan.channels, scan.turn, &golden.plan).unwrap();
    assert_eq!(
        [&[input.channels], &input.shape[..]].concat(),
        golden.dims("preprocessed")
    );
    let by_input = worst(&input.data, &golden.values("preprocessed"));

    let mut mean: Vec<f32> = Vec::new();
    infer::volume::infer(&engine, model, &input, &Unattended, |logits| {
        let share = 1.0 / golden.plan.members as f32;
        mean.resize(logits.len(), 0.0);
        mean.iter_mut()
            .zip(&logits)
            .for_each(|(sum, l)| *sum += l * share);
        Ok::<_, InferError>(())
    })
    .unwrap();
    let by_logit = worst(&mean, &golden.values("logits"));

    let mut report = analysis::empty_report(None);
    let series = Uid::derive(&[b"series"]);
    let look = analysis::look(scan, &engine, model, &series, &Unattended, &mut report).unwrap();
    let expected = golden.values("segmentation");
    let labels = look.prediction.labels.data.iter().map(|l| f32::from(*l));
    let other = labels
        .zip(&expected)
        .filter(|(found, expected)| found != *expected)
        .count();
    let probabilities = golden.values("probabilities");
    let (voxels, classes) = (expected.len(), golden.dims("probabilities")[0]);
    let foreground: Vec<f32> = (0..voxels)
        .map(|v| match golden.plan.activation {
            Activation::Softmax => 1.0 - probabilities[v],
            Activation::Sigmoid => (0..classes)
                .map(|k| probabilities[k * voxels + v])
                .fold(0.0, f32::max),
        })
        .collect();
    let by_probability = worst(&look.prediction.score.data, &foreground);
    assert!(
        by_input <= INPUT_TOLERANCE,
        "{name}: preprocessed values differ by {by_input}"
    );
    assert!(by_logit <= LOGIT_TOLERANCE, "{name}: logits differ by {by_logit}");
    assert!(
        (other as f64) <= OTHER_SHARE * voxels as f64,
        "{other} of {voxels}"
    );
    // nnU-Net's probabilities are those of the mean logits, ours the mean of the members' own.
    if golden.plan.members == 1 {
        assert!(by_probability <= PROBABILITY_TOLERANCE, "{by_probability}");
    }
    assert!(report.answers.is_empty(), "nobody chose when to flag");
}

#[test]
fn two_folds_on_transposed_coarse_slices_agree() {
    agrees("folds_3d");
}

#[test]
fn all_flips_on_a_volume_smaller_than_the_tile_agree() {
    agrees("mirrored_3d");
}

#[test]
fn slices_of_two_channels_agree() {
    agrees("channels_2d");
}

#[test]
fn overlapping_regions_agree() {
    agrees("regions_3d");
}
