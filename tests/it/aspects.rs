//! ASPECTS and fresh infarcts by the shipped model and the program as it is run, from DICOM files to findings; and a model that is asked though its plan waits to be named.

use serde_json::Value;
use std::{path::Path, process::Command};

fn ictus(arguments: &[&str]) {
    let output = Command::new(crate::support::ictus())
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// A phantom without contrast agent → what `ictus analyze` says of it with further arguments, and its truth.
fn analysed(kind: &str, seed: u64, further: &[&str]) -> (Value, Value) {
    let folder = tempfile::tempdir().unwrap();
    let (phantom, out) = (folder.path().join("phantom"), folder.path().join("out"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let seed = seed.to_string();
    let heads = ["--seed", &seed, "--kind", kind];
    ictus(&[["phantom", "--out", &text(&phantom)].as_slice(), &heads].concat());
    let head = std::fs::read_dir(&phantom).unwrap().next().unwrap().unwrap().path();
    let ct = text(&head.join("ct"));
    ictus(&[["analyze", &ct, "--out", &text(&out)].as_slice(), further].concat());
    let json = |path: &Path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    (json(&out.join("findings.json")), json(&head.join("truth.json")))
}

fn score(findings: &Value, side: &str) -> i64 {
    findings["aspects"][side]["score"].as_i64().unwrap()
}

fn other(side: &str) -> &str {
    if side == "left" { "right" } else { "left" }
}
