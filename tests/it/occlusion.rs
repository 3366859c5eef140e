//! Closed arteries on CT angiography, by the shipped detector and the program as it is run: from DICOM files to findings.

use crate::support;
use serde_json::Value;
use std::{fs, process::Command};

/// A phantom of 110 slices → what `ictus analyze` says of it, and its truth.
fn analysed(kind: &str, seed: u64) -> (Value, Value) {
    let seed = seed.to_string();
    support::analysed(&["--seed", &seed, "--kind", kind, "--geometry", "fine"], &[])
}

fn answer<'a>(findings: &'a Value, question: &str) -> &'a str {
    let answers = findings["answers"].as_array().unwrap();
    let answer = answers.iter().find(|a| a["question"] == question).unwrap();
    answer["answer"].as_str().unwrap()
}

fn place(at: &Value) -> Vec<f64> {
    at.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

#[test]
fn a_closed_artery_is_flagged_with_its_site_its_side_and_its_place() {
    let (findings, truth) = analysed("occlusion", 810_000);
    assert_eq!(answer(&findings, "occlusion"), "present");
    let (found, closed) = (&findings["findings"][0], &truth["occlusion"]);
    let site = closed["site"].as_str().unwrap();
    assert!(found["kind"].as_str().unwrap().starts_with(site), "{found}");
    assert_eq!(found["side"], closed["side"]);
    let (a, b) = (place(&found["center_mm"]), place(&closed["point_mm"]));
    let away = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    assert!(away < 15.0, "{away} mm");
    // A bleed is not looked for among enhanced vessels, and that is said.
    assert_eq!(answer(&findings, "haemorrhage"), "not_evaluated");
    let refusals = findings["refusals"].as_array().unwrap();
    assert!(refusals.iter().any(|r| r["code"] == "contrast"), "{refusals:?}");
}

#[test]
fn open_arteries_are_not_flagged() {
    let (findings, _) = analysed("cta", 810_001);
    assert_ne!(answer(&findings, "occlusion"), "present");
    assert!(findings["findings"].as_array().unwrap().is_empty());
}

#[test]
fn closed_arteries_are_not_looked_for_without_contrast_agent() {
    let (findings, _) = support::analysed(&["--seed", "810002", "--kind", "infarct"], &[]);
    assert_eq!(answer(&findings, "occlusion"), "not_evaluated");
    let refusals = findings["refusals"].as_array().unwrap();
    let said = refusals.iter().find(|r| r["code"] == "contrast").unwrap();
    assert!(
        said["text"].as_str().unwrap().contains("without contrast agent"),
        "{said}"
    );
    // Nor are dense clots, unless their model is named.
    let answers = findings["answers"].as_array().unwrap();
    assert!(answers.iter().all(|a| a["question"] != "hyperdense_artery"));
}

#[test]
fn a_dense_clot_is_told_on_a_thin_plain_scan_by_the_model_that_waits_to_be_asked() {
    let heads = |kind| ["--seed", "830005", "--kind", kind, "--geometry", "fine"];
    let named = ["--model", "hyperdense-phantom"];
    let (findings, truth) = support::analysed(&heads("infarct"), &named);
    assert_eq!(answer(&findings, "hyperdense_artery"), "present");
    let (found, closed) = (&findings["findings"][0], &truth["occlusion"]);
    assert_eq!(
        (&found["kind"], &closed["site"]),
        (&"m1_hyperdense".into(), &"m1".into())
    );
    assert_eq!(found["side"], closed["side"]);
    let (a, b) = (place(&found["center_mm"]), place(&closed["point_mm"]));
    let away = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    assert!(away < 15.0, "{away} mm");

    // The same head before.
    let (findings, _) = support::analysed(&heads("open"), &named);
    assert_eq!(answer(&findings, "hyperdense_artery"), "absent");
}

#[test]
fn a_detector_is_trained_on_pieces_of_its_box_then_on_whole_ones() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let [first, second] = [&first, &second].map(|path| path.to_str().unwrap());
    let steps = ["--members", "1", "--steps", "1", "--batch", "2", "--out"];
    let train = |recipe: &str, others: &[&str]| {
        let begin = ["train", "--recipe", recipe];
        let output = Command::new(support::ictus())
            .args([&begin[..], others].concat())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let pieces = ["--piece", "16,16,24"];
    let (done, said) = train("hyperdense", &[&pieces[..], &steps, &[first]].concat());
    assert!(done, "{said}");
    let (done, said) = train(
        "hyperdense",
        &[&["--from", first][..], &steps, &[second]].concat(),
    );
    assert!(done, "{said}");
    for model in [first, second] {
        let plan = fs::read(format!("{model}/plan.json")).unwrap();
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        let looked_at = &plan["configuration"]["patch_size"];
        assert_eq!(looked_at, &serde_json::json!([56, 56, 72]));
    }

    for (recipe, piece, expected) in [
        ("hyperdense", "20,32,72", "each a multiple of its [8, 8, 8] and"),
        ("hyperdense", "64,32,72", "at most [56, 56, 72]"),
        ("occlusion", "24,32", "expected slices, rows and columns"),
        ("haemorrhage", "24,32,72", "which look at a box around arteries"),
    ] {
        let (done, said) = train(recipe, &[&["--piece", piece][..], &steps, &[first]].concat());
        assert!(!done && said.contains(expected), "{recipe} {piece}: {said}");
    }
}
