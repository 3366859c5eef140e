//! Whole predictions against nnU-Net v2's own: `tests/golden/nnunet`.
//!
//! Preprocessing, tiles, mirroring, folds, the way back and the label map, each held to what nnU-Net made.

use crate::parity::{request, same_labels, show, values, worst};
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
    import,
    nn::{network::Network, parameters::Parameters},
};
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Largest difference of preprocessed values, which reach 4: nnU-Net normalises in single precision.
const INPUT_TOLERANCE: f32 = 1e-6;
/// Largest difference of logits on the network's grid, which reach 3.
const LOGIT_TOLERANCE: f32 = 3e-5;
/// Largest difference of probabilities on the source's grid.
const PROBABILITY_TOLERANCE: f32 = 1e-5;

struct Golden {
    plan: Plan,
    spacing: [f64; 3],
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../golden/nnunet/{name}.safetensors"));
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
        values(&self.tensors[name])
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
        scan(&self.values("image"), self.dims("image"), self.spacing)
    }
}

/// An image `[channel][slice][row][column]` as it would come in.
fn scan(data: &[f32], dims: &[usize], spacing: [f64; 3]) -> Scan {
    let &[channels, slices, rows, columns] = dims else {
        panic!("an image has four axes");
    };
    let geometry = Geometry {
        rows,
        columns,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        pixel_spacing_mm: [spacing[1], spacing[2]],
        planes: (0..slices)
            .map(|k| SlicePlane {
                origin_mm: [0.0, 0.0, k as f64 * spacing[0]],
                thickness_mm: spacing[0],
            })
            .collect(),
    };
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

fn agrees(name: &str) {
    let golden = Golden::read(name);
    let scan = golden.scan();
    let engine = Engine::start(&[golden.bundle()], DeviceChoice::Cpu).unwrap();
    let model = engine.model(&golden.plan.id).unwrap();
    let (input, _) = preprocess::volume::preprocess(&scan.channels, scan.turn, &golden.plan, None).unwrap();
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
    let labels: Vec<f32> = look
        .prediction
        .labels
        .data
        .iter()
        .map(|l| f32::from(*l))
        .collect();
    same_labels(&labels, &expected);
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

fn cascade(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../golden/nnunet/cascade")
        .join(case)
}

const SECOND_STAGE: &str = "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres";
const FIRST_STAGE: &str = "nnUNetTrainer__nnUNetPlans__3d_lowres";

/// Imports both stages from nnU-Net's own folders and holds every step to what nnU-Net's predictor made of them.
fn cascade_agrees(case: &str) {
    let out = tempfile::tempdir().unwrap();
    let imported = import::import(&request(cascade(case).join(SECOND_STAGE), out.path())).unwrap();
    let bundle = Bundle::read(&imported.folder).unwrap();
    let engine = Engine::start(std::slice::from_ref(&bundle), DeviceChoice::Cpu).unwrap();
    let model = engine.model(&imported.id).unwrap();
    assert_eq!(model.stages.len(), 1);
    let bytes = fs::read(cascade(case).join("expected.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let spacing = serde_json::from_str(&header.metadata().as_ref().unwrap()["spacing"]).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let values = |name: &str| values(&tensors[name]);
    let image = || scan(&values("image"), tensors["image"].dims(), spacing);

    // The second stage alone, shown nnU-Net's own map.
    let given = image();
    let map = Volume {
        geometry: given.channels[0].geometry.clone(),
        data: tensors["stage_0.segmentation"]
            .flatten_all()
            .unwrap()
            .to_vec1::<u8>()
            .unwrap(),
    };
    let (input, _) =
        preprocess::volume::preprocess(&given.channels, given.turn, &bundle.plan, Some(&map)).unwrap();
    assert_eq!(
        [&[input.channels], &input.shape[..]].concat(),
        tensors["preprocessed"].dims()
    );
    let by_input = worst(&input.data, &values("preprocessed"));
    assert!(by_input <= INPUT_TOLERANCE, "input differs by {by_input}");
    let mut logits = Vec::new();
    infer::volume::infer(&engine, model, &input, &Unattended, |member| {
        logits = member;
        Ok::<_, InferError>(())
    })
    .unwrap();
    let by_logit = worst(&logits, &values("logits"));
    assert!(by_logit <= LOGIT_TOLERANCE, "logits differ by {by_logit}");
    show(&format!(
        "cascade {case}: input {by_input:.1e}, logits {by_logit:.1e}"
    ));
    assert!(preprocess::volume::preprocess(&given.channels, given.turn, &bundle.plan, None).is_err());

    // Both stages, one after the other.
    let mut report = analysis::empty_report(None);
    let series = Uid::derive(&[b"series"]);
    let look = analysis::look(image(), &engine, model, &series, &Unattended, &mut report).unwrap();
    let expected = values("segmentation");
    let found: Vec<f32> = look
        .prediction
        .labels
        .data
        .iter()
        .map(|l| f32::from(*l))
        .collect();
    same_labels(&found, &expected);
    let card = fs::read_to_string(imported.folder.join("card.md")).unwrap();
    assert!(card.contains("| first stage | 3d_lowres:"), "{card}");
}

#[test]
fn a_cascade_whose_map_has_ties_and_an_outside_agrees() {
    cascade_agrees("labels");
}

#[test]
fn a_cascade_of_regions_on_coarse_slices_agrees() {
    cascade_agrees("regions");
}

#[test]
fn refuses_a_cascade_without_the_first_stage_that_it_was_trained_after() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |stage: &str, edit: fn(&mut serde_json::Value)| {
        let to = dir.path().join(stage);
        fs::create_dir_all(to.join("fold_0")).unwrap();
        for file in ["dataset.json", "plans.json", "fold_0/checkpoint_final.pth"] {
            fs::copy(cascade("labels").join(stage).join(file), to.join(file)).unwrap();
        }
        let file = to.join("dataset.json");
        let mut dataset = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        edit(&mut dataset);
        fs::write(file, dataset.to_string()).unwrap();
        to
    };
    let out = dir.path().join("models");
    let second = copy(SECOND_STAGE, |_| ());
    let refusal = || {
        import::import(&request(second.clone(), &out))
            .unwrap_err()
            .to_string()
    };
    assert!(
        refusal().contains("cascade after `3d_lowres`") && refusal().contains(FIRST_STAGE),
        "{}",
        refusal()
    );
    let first = copy(FIRST_STAGE, |d| {
        d["labels"] = serde_json::json!({"background": 0, "other": 1, "third": 2})
    });
    assert!(
        refusal().contains("labels or channels are not those of"),
        "{}",
        refusal()
    );
    // Truncated: the weights of the first stage are part of the model.
    fs::remove_dir_all(&first).unwrap();
    copy(FIRST_STAGE, |_| ());
    let weights = first.join("fold_0/checkpoint_final.pth");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    assert!(
        refusal().contains("3d_lowres") && refusal().contains("refused"),
        "{}",
        refusal()
    );
    fs::write(&weights, whole).unwrap();
    import::import(&request(second, &out)).unwrap();
}
