//! `ictus calibrate`: from judged cases to results that say a probability, by the program as it is run.

use candle_core::Device;
use dicom_object::open_file;
use ictus::{analysis::infer::bundle::Bundle, domain::calibration::Calibration};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn ictus(arguments: &[&str]) -> Output {
    Command::new(crate::support::ictus())
        .args(arguments)
        .output()
        .unwrap()
}

/// What a command prints when it succeeds.
fn said(arguments: &[&str]) -> String {
    let output = ictus(arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// SHA-256 over plan and weights of the shipped haemorrhage model.
fn digest() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/haemorrhage-phantom");
    let model = Bundle::read(&folder).unwrap().load(&Device::Cpu).unwrap();
    hex::encode(model.digest)
}

/// 60 judged cases with a lesion and 60 without one, as `ictus evaluate` writes them; a lesion is found to nine tenths.
fn judged(folder: &Path, source: &Value) {
    let header = json!({
        "schema": 4, "ictus": "0.1.0", "question": "haemorrhage", "model": "haemorrhage-phantom", "model_version": "1",
        "model_sha256": digest(), "weights_sha256": "bb", "calibration_sha256": null, "numeric_mode": "cpu", "source": source,
    });
    let case = |index: u32| {
        let (lesion, step) = (index.is_multiple_of(2), f64::from(index % 60) / 60.0);
        let score = if lesion { 0.5 + 0.5 * step } else { 0.6 * step };
        let truth_ml = if lesion { 2.0 + 50.0 * step } else { 0.0 };
        let finding = json!({ "volume_ml": 0.9 * truth_ml + 0.5, "score": score, "truth_ml": truth_ml });
        json!({
            "name": index.to_string(), "seed": null, "kind": "unknown", "stack": "file", "strata": [], "slices": 30,
            "thickness_mm": 5.0, "tilt_degrees": 0.0, "truth_ml": truth_ml, "found_ml": 0.9 * truth_ml, "dice": null,
            "nsd": null, "hd95_mm": null, "classes": {}, "lesions": [], "false_lesions": [], "findings": [finding],
            "answer": "uncertain", "score": score, "disagreement": 0.0,
            "voxels": { "bins": [], "squares": 0.0, "right": [], "wrong": [] }, "seconds": 1.0,
        })
    };
    let lines: Vec<String> = [header]
        .into_iter()
        .chain((0..120).map(case))
        .map(|v| v.to_string())
        .collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("cases.jsonl"), lines.join("\n") + "\n").unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn probabilities_lanes_and_intervals_come_from_scans_and_only_thresholds_from_phantoms() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let phantom = at("phantom");
    let head = [
        "phantom",
        "--seed",
        "700003",
        "--kind",
        "haemorrhage",
        "--geometry",
        "even",
        "--out",
    ];
    said(&[head.as_slice(), &[text(&phantom)]].concat());
    let ct = fs::read_dir(&phantom)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("ct");
    let analysed = |models: &Path, out: &str| -> Value {
        let arguments = [
            "analyze",
            text(&ct),
            "--models-dir",
            text(models),
            "--out",
            text(&at(out)),
        ]
        .map(str::to_owned);
        said(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        serde_json::from_slice(&fs::read(at(out).join("findings.json")).unwrap()).unwrap()
    };
    judged(
        &at("scans"),
        &json!({ "kind": "dataset", "name": "clinic", "count": 120, "digest": "c1d2e3f4a5" }),
    );
    let models = at("models");
    let told = said(&[
        "calibrate",
        text(&at("scans")),
        "--models-dir",
        text(&models),
        "--prevalence",
        "0.1",
    ]);
    assert!(
        told.contains("120 cases of clinic (c1d2e3f4), 60 with a lesion of 1 mL or more"),
        "{told}"
    );
    let list = said(&["model", "list", "--models-dir", text(&models)]);
    assert!(list.contains("calibrated: 120 cases of clinic"), "{list}");

    let report = analysed(&models, "by-scans");
    let answer = &report["answers"][0];
    assert_eq!(
        (&answer["answer"], &answer["lane"]),
        (&json!("present"), &json!("high"))
    );
    let probability = answer["probability"].as_f64().unwrap();
    assert!((0.5..1.0).contains(&probability), "{probability}");
    let finding = &report["findings"][0];
    let ends: Vec<f64> = serde_json::from_value(finding["volume_interval_ml"].clone()).unwrap();
    let written = fs::read(models.join("haemorrhage-phantom/calibration.json")).unwrap();
    let known: Calibration = serde_json::from_slice(&written).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let near = |found: f64, expected: Option<f64>| {
        let expected = expected.unwrap();
        assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
    };
    let interval = known.volume_interval_ml(number(&finding["volume_ml"])).unwrap();
    near(ends[0], Some(interval[0]));
    near(ends[1], Some(interval[1]));
    near(probability, known.case_probability(number(&answer["score"])));
    let told = number(&finding["probability"]);
    near(told, known.finding_probability(number(&finding["score"])));
    assert!(
        report["models"][0]["calibration"]
            .as_str()
            .unwrap()
            .contains("clinic")
    );
    let results = at("by-scans");
    let holds = |name: &str| {
        fs::read(results.join(name))
            .is_ok_and(|bytes| bytes.windows(30).any(|w| w == b"calibration=120 cases of clini"))
    };
    let files = fs::read_dir(&results)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        files.into_iter().any(|name| holds(&name)),
        "no result names its calibration"
    );

    judged(
        &at("phantoms"),
        &json!({ "kind": "phantoms", "first_seed": 1, "count": 120 }),
    );
    let told = said(&["calibrate", text(&at("phantoms")), "--models-dir", text(&models)]);
    assert!(told.contains("no result is called a probability"), "{told}");
    let report = analysed(&models, "by-phantoms");
    assert_eq!(report["answers"][0]["lane"], "high");
    for value in [
        &report["answers"][0]["probability"],
        &report["findings"][0]["probability"],
        &report["findings"][0]["volume_interval_ml"],
    ] {
        assert_eq!(value, &Value::Null);
    }

    // Other words under the same UID would be two objects that are one to everybody else.
    let uid = |out: &str| {
        let mut files = fs::read_dir(at(out)).unwrap().map(|entry| entry.unwrap().path());
        let report = files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("sr-"));
        open_file(report.unwrap())
            .unwrap()
            .meta()
            .media_storage_sop_instance_uid
            .clone()
    };
    assert_ne!(uid("by-scans"), uid("by-phantoms"));

    // Another model has other scores.
    let file = models.join("haemorrhage-phantom/calibration.json");
    let other = fs::read_to_string(&file)
        .unwrap()
        .replace(&digest(), &"0".repeat(64));
    fs::write(&file, other).unwrap();
    let refused = ictus(&["model", "list", "--models-dir", text(&models)]);
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        words.contains("haemorrhage-phantom 00000000") && words.contains("evaluate and calibrate this one"),
        "{words}"
    );
}

#[test]
fn a_calibration_for_a_model_that_is_not_there_and_a_promise_that_cannot_be_made_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let lost = root.path().join("models/nobody");
    fs::create_dir_all(&lost).unwrap();
    fs::write(lost.join("calibration.json"), "{}").unwrap();
    let refused = ictus(&["model", "list", "--models-dir", text(&root.path().join("models"))]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("a model nobody, which is not there"),
        "{words}"
    );
    let scans = root.path().join("scans");
    judged(
        &scans,
        &json!({ "kind": "dataset", "name": "clinic", "count": 120, "digest": "c1d2e3f4a5" }),
    );
    let models = root.path().join("out");
    let few = ictus(&[
        "calibrate",
        text(&scans),
        "--models-dir",
        text(&models),
        "--missed",
        "0.01",
    ]);
    let words = String::from_utf8_lossy(&few.stderr).into_owned();
    assert!(
        !few.status.success() && words.contains("found 60 cases with a lesion, at least 99 are needed"),
        "{words}"
    );
    assert!(!models.exists());
}
