//! Import of other people's models: the good one computes what the original did, every bad one is refused in words.

use crate::parity::{request, values, worst};
use candle_core::Device;
use ictus::{
    analysis::infer::bundle::Bundle,
    import::{ImportError, Request, import},
    nn::checkpoint::{Checkpoint, Object},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The project's tolerance for f32 goldens; the logits reach 3.
const TOLERANCE: f32 = 1e-4;
/// What the malicious checkpoints would do if they were run.
const TRACE: &str = "/tmp/a-checkpoint-was-run";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../golden/checkpoints")
        .join(name)
}

/// A copy of the good results folder that a test may spoil.
struct Results {
    dir: TempDir,
}

impl Results {
    fn new() -> Self {
        let results = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for file in ["plans.json", "dataset.json"] {
            fs::copy(golden("results").join(file), results.path().join(file)).unwrap();
        }
        results.add(
            "results/fold_0/checkpoint_final.pth",
            "fold_0/checkpoint_final.pth",
        );
        results
    }

    fn path(&self) -> PathBuf {
        let path = self.dir.path().join("nnUNetTrainer__nnUNetPlans__2d");
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn add(&self, from: &str, to: &str) {
        let to = self.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(golden(from), to).unwrap();
    }

    fn checkpoint(&self) -> PathBuf {
        self.path().join("fold_0/checkpoint_final.pth")
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path().join(file);
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    fn import(&self) -> Result<ictus::import::Imported, ImportError> {
        import(&request(self.path(), &self.dir.path().join("models")))
    }

    /// Refused with these words, and nothing written.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        crate::parity::refused(&self.dir.path().join("models"), self.import(), words);
    }
}

#[test]
fn an_imported_model_answers_as_the_original() {
    let results = Results::new();
    let imported = results.import().unwrap();
    assert_eq!(
        (imported.id.as_str(), imported.members),
        ("dataset900-tiny-2d", 1)
    );
    let bundle = Bundle::read(&imported.folder).unwrap();
    let model = bundle.load(&Device::Cpu).unwrap();
    assert!(bundle.check(&model, &Device::Cpu).unwrap() < f64::from(TOLERANCE));

    let bytes = fs::read(golden("expected.safetensors")).unwrap();
    let expected = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let weights = fs::read(imported.folder.join("weights.safetensors")).unwrap();
    let weights = candle_core::safetensors::load_buffer(&weights, &Device::Cpu).unwrap();
    let tensors = weights
        .into_iter()
        .map(|(key, tensor)| (key.strip_prefix("member_0.").unwrap().to_owned(), tensor))
        .collect();
    let network = ictus::nn::network::Network::new(
        &bundle.plan.configuration.architecture,
        &mut ictus::nn::parameters::Parameters::Loaded(tensors),
    )
    .unwrap();
    let found = network.forward(&expected["input"]).unwrap();
    let worst = worst(&values(&found), &values(&expected["logits"]));
    assert!(worst < TOLERANCE, "{worst}");

    let card = fs::read_to_string(imported.folder.join("card.md")).unwrap();
    for words in [
        "not validated here, not for clinical use",
        "nnUNetTrainer",
        "haemorrhage",
        "noise \\| made for tests",
    ] {
        assert!(card.contains(words), "{words} not in {card}");
    }
    assert!(
        results
            .import()
            .unwrap_err()
            .to_string()
            .contains("there already")
    );
}

#[test]
fn a_checkpoint_from_before_torch_1_6_gives_the_same_model_and_a_damaged_one_none() {
    let (new, old) = (Results::new(), Results::new());
    fs::copy(golden("old_format.pth"), old.checkpoint()).unwrap();
    let weights =
        |results: &Results| fs::read(results.import().unwrap().folder.join("weights.safetensors")).unwrap();
    assert_eq!(weights(&new), weights(&old));

    let whole = fs::read(golden("old_format.pth")).unwrap();
    let find = |part: &[u8]| whole.windows(part.len()).position(|w| w == part).unwrap();
    let big_endian = find(b"little_endian") + 15;
    let version = find(b"M\xe9\x03") + 1;
    for (spoil, words) in [
        (None, &["storage `", "is cut off"][..]),
        (Some((version, 0)), &["its version is Int(768), expected 1001"]),
        (Some((big_endian, b'\x89')), &["big-endian"]),
    ] {
        let results = Results::new();
        let mut bytes = whole.clone();
        match spoil {
            Some((at, byte)) => bytes[at] = byte,
            None => bytes.truncate(whole.len() - 4),
        }
        fs::write(results.checkpoint(), bytes).unwrap();
        results.refused(words);
    }
}

#[test]
fn folds_become_members_and_regions_and_postprocessing_stay() {
    let results = Results::new();
    results.add(
        "results/fold_0/checkpoint_final.pth",
        "fold_1/checkpoint_final.pth",
    );
    results.add(
        "postprocessing.pkl",
        "crossval_results_folds_0_1/postprocessing.pkl",
    );
    results.edit("dataset.json", |d| {
        d["labels"] = json!({"background": 0, "whole": [1, 2], "core": 2});
        d["regions_class_order"] = json!([1, 2]);
    });
    let imported = results.import().unwrap();
    assert_eq!(imported.members, 2);
    let plan: Value = serde_json::from_slice(&fs::read(imported.folder.join("plan.json")).unwrap()).unwrap();
    assert_eq!(plan["activation"], "sigmoid");
    assert_eq!(plan["keep_largest"], json!([[1]]));
    assert_eq!(plan["mirror_axes"], json!([0, 1]));
    assert_eq!(plan["labels"][0]["name"], "whole");
    assert_eq!(plan["labels"][1]["value"], 2);
    assert_eq!(plan["configuration"]["grid"]["resampling_data"]["order"], 3);
}

#[test]
fn refuses_bad_checkpoints_and_says_what_is_wrong() {
    for (file, words) in [
        (
            "malicious.pth",
            &["asks for `posix.system`", "nothing was run"][..],
        ),
        ("class.pth", &["pathlib"]),
        (
            "nan.pth",
            &[
                "encoder.stages.0.0.convs.0.conv.weight",
                "holds 1 of 18 numbers that are not finite",
            ],
        ),
        (
            "shape.pth",
            &[
                "decoder.seg_layers.0.weight",
                "[3, 2, 1, 1]",
                "wanted [2, 2, 1, 1]",
            ],
        ),
        ("integers.pth", &["decoder.seg_layers.0.bias", "Integer(8)"]),
        ("missing.pth", &["`decoder.seg_layers.0.bias` is missing"]),
        ("extra.pth", &["`attention.weight` has no place"]),
        ("two_truths.pth", &["the same layer and hold different numbers"]),
        ("expanded.pth", &["more numbers than its storage"]),
        ("no_weights.pth", &["has no `trainer_name`"]),
        ("trainer.pth", &["nnUNetTrainerMedNeXt"]),
        ("script.pth", &["TorchScript"]),
        ("compressed.pth", &["is compressed"]),
        (
            "storage.pth",
            &["says its storage holds", "the file holds 8 bytes"],
        ),
    ] {
        let results = Results::new();
        fs::copy(golden("bad").join(file), results.checkpoint()).unwrap();
        results.refused(words);
    }
    assert!(!Path::new(TRACE).exists(), "a checkpoint was run");
}

#[test]
fn refuses_a_checkpoint_that_was_cut_off_anywhere() {
    let whole = fs::read(golden("results/fold_0/checkpoint_final.pth")).unwrap();
    for len in [
        0,
        3,
        10,
        1000,
        whole.len() / 2,
        whole.len() - 100,
        whole.len() - 1,
    ] {
        let results = Results::new();
        fs::write(results.checkpoint(), &whole[..len]).unwrap();
        results.refused(&["not an intact zip archive"]);
    }
}

/// Reads everything that a file offers.
fn read_all(path: &Path) -> Result<usize, String> {
    let mut checkpoint = Checkpoint::open(path).map_err(|e| e.to_string())?;
    let weights = checkpoint.entry(checkpoint.root(), "network_weights");
    let weights = weights.ok_or("no weights")?;
    let tensors: Vec<_> = checkpoint
        .entries(weights)
        .filter_map(|(key, id)| match checkpoint.object(id) {
            Object::Tensor(tensor) => Some((key.to_owned(), tensor.clone())),
            _ => None,
        })
        .collect();
    for (key, tensor) in &tensors {
        checkpoint.tensor(key, tensor).map_err(|e| e.to_string())?;
    }
    Ok(tensors.len())
}

#[test]
fn a_flipped_bit_among_the_numbers_is_noticed() {
    let whole = fs::read(golden("results/fold_0/checkpoint_final.pth")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    fs::write(&path, &whole).unwrap();
    assert!(read_all(&path).unwrap() > 10);
    // The first weight: 0.25 or so is unlikely to be stored twice.
    let results = golden("results/fold_0/checkpoint_final.pth");
    let mut checkpoint = Checkpoint::open(&results).unwrap();
    let weights = checkpoint.entry(checkpoint.root(), "network_weights").unwrap();
    let (key, id) = checkpoint.entries(weights).next().unwrap();
    let (key, Object::Tensor(tensor)) = (key.to_owned(), checkpoint.object(id).clone()) else {
        panic!("a tensor");
    };
    let first: f32 = checkpoint
        .tensor(&key, &tensor)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()[0];
    let at = whole.windows(4).position(|w| w == first.to_le_bytes()).unwrap();
    let mut spoilt = whole;
    spoilt[at] ^= 1;
    fs::write(&path, spoilt).unwrap();
    assert!(read_all(&path).unwrap_err().contains("checksum"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damage_anywhere_never_panics(changes in proptest::collection::vec((0usize..1 << 20, 0u8..=255), 1..20)) {
        let mut bytes = fs::read(golden("results/fold_0/checkpoint_final.pth")).unwrap();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pth");
        fs::write(&path, bytes).unwrap();
        // Damage in unread places is harmless; what matters is that both answers are answers.
        let _answer = read_all(&path);
    }
}

#[test]
fn refuses_what_it_does_not_understand_by_name() {
    type Change = fn(&mut Value);
    let plans: [(Change, &[&str]); 14] = [
        (
            |p| p["configurations"]["2d"]["normalization_schemes"][0] = json!("MyNorm"),
            &["MyNorm"],
        ),
        (
            |p| p["configurations"]["2d"]["resampling_fn_data"] = json!("resample_torch_fornnunet"),
            &["resample_torch_fornnunet"],
        ),
        (
            |p| p["configurations"]["2d"]["resampling_fn_data_kwargs"]["order"] = json!(5),
            &["`order` is 5"],
        ),
        (
            |p| p["configurations"]["2d"]["preprocessor_name"] = json!("MyPreprocessor"),
            &["MyPreprocessor"],
        ),
        (
            |p| p["configurations"]["2d"]["previous_stage"] = json!("3d_lowres"),
            &["cascade", "3d_lowres"],
        ),
        (
            |p| p["configurations"]["2d"]["architecture"]["network_class_name"] = json!("my.MedNeXt"),
            &["my.MedNeXt"],
        ),
        (
            |p| {
                p["configurations"]["2d"]["architecture"]["arch_kwargs"]["norm_op"] =
                    json!("torch.nn.BatchNorm2d")
            },
            &["torch.nn.BatchNorm2d"],
        ),
        (
            |p| p["configurations"]["2d"]["architecture"]["arch_kwargs"]["attention"] = json!(true),
            &["attention"],
        ),
        (
            |p| p["configurations"]["2d"]["architecture"]["arch_kwargs"]["nonlin"] = json!("torch.nn.GELU"),
            &["torch.nn.GELU"],
        ),
        (
            |p| {
                p["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] =
                    json!([2, 1u64 << 40])
            },
            &["at most", "2048 features"],
        ),
        (
            |p| p["configurations"]["2d"]["patch_size"] = json!([1u64 << 40, 1u64 << 40]),
            &["voxels"],
        ),
        (|p| p["configurations"]["2d"]["tta"] = json!(1), &["tta"]),
        (|p| p["label_manager"] = json!("MyLabels"), &["MyLabels"]),
        (
            |p| p["image_reader_writer"] = json!("NibabelIOWithReorient"),
            &["NibabelIOWithReorient"],
        ),
    ];
    for (change, words) in plans {
        let results = Results::new();
        results.edit("plans.json", change);
        results.refused(words);
    }
    let datasets: [(Change, &[&str]); 4] = [
        (|d| d["labels"]["ignore"] = json!(2), &["ignore"]),
        (|d| d["labels"]["far"] = json!(7), &["in a row"]),
        (
            |d| d["labels"] = json!({"background": 0, "whole": [1, 2], "core": 2}),
            &["regions_class_order"],
        ),
        (
            |d| d["labels"]["infarct"] = json!(2),
            &["decoder.seg_layers.0", "wanted [3, 2, 1, 1]"],
        ),
    ];
    for (change, words) in datasets {
        let results = Results::new();
        results.edit("dataset.json", change);
        results.refused(words);
    }
}

#[test]
fn refuses_a_postprocessing_that_would_run_something() {
    let results = Results::new();
    results.add("bad/postprocessing.pkl", "postprocessing.pkl");
    results.refused(&["posix.system"]);
    assert!(!Path::new(TRACE).exists());
}

#[test]
fn reads_the_flat_keys_of_older_plans() {
    let results = Results::new();
    results.edit("plans.json", |p| {
        let c = p["configurations"]["2d"].as_object_mut().unwrap();
        c.remove("architecture");
        for (key, value) in [
            ("UNet_class_name", json!("PlainConvUNet")),
            ("UNet_base_num_features", json!(2)),
            ("unet_max_num_features", json!(512)),
            ("n_conv_per_stage_encoder", json!([1, 1])),
            ("n_conv_per_stage_decoder", json!([1])),
            ("num_pool_per_axis", json!([1, 1])),
            ("pool_op_kernel_sizes", json!([[1, 1], [2, 2]])),
            ("conv_kernel_sizes", json!([[3, 3], [3, 3]])),
        ] {
            c.insert(key.to_owned(), value);
        }
    });
    assert_eq!(results.import().unwrap().members, 1);
}

#[test]
fn says_what_a_folder_is_when_it_is_no_results_folder() {
    let results = Results::new();
    let ask = |path: PathBuf| {
        import(&request(path, &results.dir.path().join("models")))
            .unwrap_err()
            .to_string()
    };
    let bundle = results.dir.path().join("bundle");
    fs::create_dir_all(bundle.join("configs")).unwrap();
    fs::write(bundle.join("configs/inference.json"), "{}").unwrap();
    assert!(ask(bundle.clone()).contains("configs/metadata.json cannot be read"));
    fs::remove_dir_all(bundle).unwrap();
    assert!(ask(results.dir.path().to_owned()).contains("nnUNetTrainer__nnUNetPlans__2d"));
    assert!(ask(results.checkpoint()).contains("not a folder"));
    let ordered = Request {
        painted: Some(vec![0]),
        ..request(results.path(), &results.dir.path().join("models"))
    };
    let error = import(&ordered).unwrap_err().to_string();
    assert!(
        error.contains("--painted") && error.contains("leave it out"),
        "{error}"
    );
    fs::remove_dir_all(results.path().join("fold_0")).unwrap();
    results.refused(&["no folds"]);
    fs::create_dir(results.path().join("fold_0")).unwrap();
    results.refused(&["no checkpoint_final.pth"]);
}
