//! BLAST-CT's ensemble against the package's own: `tests/golden/blast`.

use candle_core::{DType, Device, Tensor};
use ictus::{
    analysis::{
        self, Scan,
        assemble::Values,
        infer::{self, Engine, InferError, bundle::Bundle},
        preprocess,
    },
    domain::{device::DeviceChoice, network::Unattended, uid::Uid, volume_trace::Turn},
    import::{Request, import},
    nifti,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Largest difference of the network's input, which lies between −1 and 1.
const INPUT_TOLERANCE: f32 = 1e-5;
/// Largest difference of the ensemble's mean probabilities.
const PROBABILITY_TOLERANCE: f32 = 1e-4;
/// Voxels that may fall on the other side of a border between labels.
const OTHER_SHARE: f64 = 0.001;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/blast")
        .join(name)
}

fn request(path: PathBuf, out: &Path) -> Request {
    Request {
        path,
        id: None,
        out: out.to_owned(),
        checkpoint: None,
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn agrees(case: &str) {
    let out = tempfile::tempdir().unwrap();
    let imported = import(&request(golden("model"), out.path())).unwrap();
    assert_eq!((imported.id.as_str(), imported.members), ("blast-ct", 2));
    let bundle = Bundle::read(&imported.folder).unwrap();
    let names: Vec<&str> = bundle.plan.labels.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["IPH", "EAH", "oedema", "IVH"]);
    let engine = Engine::start(std::slice::from_ref(&bundle), DeviceChoice::Cpu).unwrap();
    let model = engine.model(&imported.id).unwrap();
    let bytes = fs::read(golden(&format!("{case}.nii.gz"))).unwrap();
    let source = nifti::read(&bytes).unwrap();
    let scan = || Scan {
        channels: vec![analysis::assemble::from_nifti(&bytes, Values::Any).unwrap()],
        turn: Turn {
            slices: source.is_reversed(),
            ..Turn::default()
        },
    };
    let expected = fs::read(golden(&format!("{case}.safetensors"))).unwrap();
    let expected = candle_core::safetensors::load_buffer(&expected, &Device::Cpu).unwrap();

    let given = scan();
    let (input, _) = preprocess::volume::preprocess(&given.channels, given.turn, &bundle.plan, None).unwrap();
    assert_eq!(&expected["input"].dims()[1..], input.shape);
    let by_input = worst(&input.data, &values(&expected["input"]));
    let voxels = input.shape.iter().product::<usize>();
    let mut mean = vec![0.0f32; 5 * voxels];
    infer::volume::infer(&engine, model, &input, &Unattended, |logits| {
        let logits = Tensor::from_vec(logits, (5, voxels), &Device::Cpu).unwrap();
        let exponents = logits.exp().unwrap();
        let sums = exponents.sum_keepdim(0).unwrap();
        let member = values(&exponents.broadcast_div(&sums).unwrap());
        mean.iter_mut().zip(&member).for_each(|(sum, p)| *sum += p / 2.0);
        Ok::<_, InferError>(())
    })
    .unwrap();
    let by_probability = worst(&mean, &values(&expected["probabilities"]));
    let mut report = analysis::empty_report(None);
    let series = Uid::derive(&[b"series"]);
    let look = analysis::look(scan(), &engine, model, &series, &Unattended, &mut report).unwrap();
    let written = nifti::write_like(&source, &look.prediction.labels).unwrap();
    let found = nifti::read(&written).unwrap().data;
    let theirs = values(&expected["labels"]);
    let other = found.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    if std::env::var_os("ICTUS_SHOW_PARITY").is_some() {
        eprintln!(
            "blast {case}: input {by_input:.1e}, probabilities {by_probability:.1e}, {other} of {} labels",
            theirs.len()
        );
    }
    assert!(by_input <= INPUT_TOLERANCE, "input differs by {by_input}");
    assert!(
        by_probability <= PROBABILITY_TOLERANCE,
        "probabilities differ by {by_probability}"
    );
    assert!(
        (other as f64) <= OTHER_SHARE * theirs.len() as f64,
        "{other} of {}",
        theirs.len()
    );
}

#[test]
fn integers_whose_rows_run_to_the_front_agree() {
    agrees("integers");
}

#[test]
fn a_leaning_stack_that_runs_downwards_agrees() {
    agrees("leaning");
}

#[test]
fn refuses_a_folder_of_blast_ct_that_says_something_else() {
    type Change = fn(&mut Value);
    let changes: [(Change, &[&str]); 7] = [
        (|c| c["model"] = json!({"UNet": {}}), &["DeepMedic"]),
        (
            |c| c["model"]["DeepMedic"]["attention"] = json!(1),
            &["attention"],
        ),
        (
            |c| c["model"]["DeepMedic"]["feature_maps"] = json!([4, 4, 6, 8]),
            &["its tensors do not fit"],
        ),
        (
            |c| c["data"]["transformation"] = json!({"MaskImageUsingSamplingMask": {}}),
            &["IntensityWindowNormalization"],
        ),
        (
            |c| c["data"]["class_names"] = json!(["a", "b"]),
            &["2 classes and has 5"],
        ),
        (
            |c| c["test"]["input_patch_size"] = json!([54, 55, 55]),
            &["[54, 55, 55]"],
        ),
        (
            |c| c["data"]["channels"] = json!(["image", "mask"]),
            &["`channels`"],
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (folder, out) = (dir.path().join("model"), dir.path().join("models"));
    fs::create_dir_all(folder.join("saved_models")).unwrap();
    let weights = folder.join("saved_models/model_1.torch_model");
    let good = fs::read(golden("model/saved_models/model_1.torch_model")).unwrap();
    fs::write(&weights, &good).unwrap();
    let refused = |words: &[&str]| {
        let error = import(&request(folder.clone(), &out)).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}", source.unwrap_or_default());
        if std::env::var_os("ICTUS_SHOW_REFUSALS").is_some() {
            eprintln!("{text}");
        }
        for word in words {
            assert!(text.contains(word), "{word} not in: {text}");
        }
        assert_eq!(fs::read_dir(&out).map_or(0, Iterator::count), 0, "{text}");
    };
    let config = fs::read(golden("model/config.json")).unwrap();
    for (change, words) in changes {
        let mut value: Value = serde_json::from_slice(&config).unwrap();
        change(&mut value);
        fs::write(folder.join("config.json"), value.to_string()).unwrap();
        refused(words);
    }
    fs::write(folder.join("config.json"), &config).unwrap();
    fs::write(&weights, &good[..good.len() / 2]).unwrap();
    refused(&["not an intact zip archive"]);
    for (file, words) in [
        (
            "blast/bad/nan.torch_model",
            &[
                "fully_connected.1.conv.weight",
                "1 of 144 numbers that are not finite",
            ][..],
        ),
        (
            "bundles/bad/malicious.pt",
            &["asks for `posix.system`", "nothing was run"],
        ),
        ("bundles/bad/extra.pt", &["its tensors do not fit", "is missing"]),
    ] {
        let bad = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(file);
        fs::copy(bad, &weights).unwrap();
        refused(words);
    }
    fs::remove_file(&weights).unwrap();
    refused(&["no checkpoints"]);
}
