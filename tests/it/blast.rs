//! BLAST-CT's ensemble against the package's own: `tests/golden/blast`.

use crate::parity::{Case, request, same_labels, show, values, worst};
use candle_core::{Device, Tensor};
use ictus::{
    analysis::infer::{self, InferError},
    domain::network::Unattended,
    import::import,
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
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../golden/blast")
        .join(name)
}

fn agrees(name: &str) {
    let out = tempfile::tempdir().unwrap();
    let case = Case::new(
        &request(golden("model"), out.path()),
        &golden(&format!("{name}.nii.gz")),
        &golden(&format!("{name}.safetensors")),
    );
    assert_eq!(
        (case.imported.id.as_str(), case.imported.members),
        ("blast-ct", 2)
    );
    let names: Vec<&str> = case.bundle.plan.labels.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["IPH", "EAH", "oedema", "IVH"]);
    let (input, expected) = (case.input(), &case.expected);
    assert_eq!(&expected["input"].dims()[1..], input.shape);
    let by_input = worst(&input.data, &values(&expected["input"]));
    let voxels = input.shape.iter().product::<usize>();
    let mut mean = vec![0.0f32; 5 * voxels];
    infer::volume::infer(&case.engine, case.model(), &input, &Unattended, |logits| {
        let logits = Tensor::from_vec(logits, (5, voxels), &Device::Cpu).unwrap();
        let exponents = logits.exp().unwrap();
        let sums = exponents.sum_keepdim(0).unwrap();
        let member = values(&exponents.broadcast_div(&sums).unwrap());
        mean.iter_mut().zip(&member).for_each(|(sum, p)| *sum += p / 2.0);
        Ok::<_, InferError>(())
    })
    .unwrap();
    let by_probability = worst(&mean, &values(&expected["probabilities"]));
    let other = same_labels(&case.labels(), &values(&expected["labels"]));
    show(&format!(
        "blast {name}: input {by_input:.1e}, probabilities {by_probability:.1e}, {other} labels differ"
    ));
    assert!(by_input <= INPUT_TOLERANCE, "input differs by {by_input}");
    assert!(
        by_probability <= PROBABILITY_TOLERANCE,
        "probabilities differ by {by_probability}"
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
        crate::parity::refused(&out, import(&request(folder.clone(), &out)), words);
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
        let bad = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden").join(file);
        fs::copy(bad, &weights).unwrap();
        refused(words);
    }
    fs::remove_file(&weights).unwrap();
    refused(&["no checkpoints"]);
}
