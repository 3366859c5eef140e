//! Closed arteries on CT angiography, by the shipped detector and the program as it is run: from DICOM files to findings.

use crate::support;
use serde_json::Value;

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
}
