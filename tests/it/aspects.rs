//! ASPECTS and fresh infarcts by the shipped model and the program as it is run, from DICOM files to findings; and a model that is asked though its plan waits to be named.

use crate::support;
use serde_json::Value;
use std::process::Command;

/// A phantom without contrast agent → what `ictus analyze` says of it with further arguments, and its truth.
fn analysed(kind: &str, further: &[&str]) -> (Value, Value) {
    support::analysed(&["--seed", "5007", "--kind", kind], further)
}

fn score(findings: &Value, side: &str) -> i64 {
    findings["aspects"][side]["score"].as_i64().unwrap()
}

fn other(side: &str) -> &str {
    if side == "left" { "right" } else { "left" }
}

#[test]
fn the_side_of_an_infarct_loses_points_in_the_regions_that_it_lies_in_and_the_other_does_not() {
    let (findings, truth) = analysed("infarct", &["--model", "infarct-phantom"]);
    let lesions = truth["lesions"].as_array().unwrap();
    let infarct = lesions.iter().find(|lesion| lesion["kind"] == "infarct").unwrap();
    let side = infarct["side"].as_str().unwrap();
    assert!(score(&findings, side) < 10, "{}", findings["aspects"]);
    assert_eq!(score(&findings, other(side)), 10, "{}", findings["aspects"]);
    let regions = findings["aspects"][side]["regions"].as_array().unwrap();
    let affected = regions.iter().filter(|region| region["affected"] == true).count();
    assert_eq!(regions.len(), 10);
    assert_eq!(i64::try_from(affected).unwrap(), 10 - score(&findings, side));
    let range = &findings["aspects"][side]["range"];
    assert!(
        range[0].as_i64() <= Some(score(&findings, side))
            && range[1].as_i64() >= Some(score(&findings, side))
    );
}

#[test]
fn a_model_that_waits_to_be_named_is_asked_beside_the_others_where_somebody_wants_it() {
    let answers = |findings: &Value| {
        let answers = findings["answers"].as_array().unwrap().iter();
        answers
            .map(|answer| answer["question"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (plain, _) = analysed("open", &[]);
    assert_eq!(answers(&plain), ["haemorrhage", "occlusion"], "{plain}");
    assert_eq!(plain["aspects"], Value::Null);
    let leaning = ["--seed", "5007", "--kind", "open", "--geometry", "tilted"];
    let (both, _) = support::analysed(&leaning, &["--also", "infarct-phantom"]);
    let asked = answers(&both);
    assert!(
        asked.contains(&"infarct".to_owned()) && asked.contains(&"haemorrhage".to_owned()),
        "{asked:?}"
    );
    assert!(
        both["aspects"]["left"]["score"].is_number(),
        "{}",
        both["aspects"]
    );
    // Both looked at one series, and what is wrong with it is said once.
    let warnings = both["warnings"].as_array().unwrap();
    let tilts = warnings.iter().filter(|warning| warning["code"] == "gantry_tilt");
    assert_eq!(tilts.count(), 1, "{warnings:?}");
    let unknown = Command::new(support::ictus())
        .args(["analyze", ".", "--out", "nowhere", "--also", "another"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        !unknown.status.success() && said.contains("--also another: no model"),
        "{said}"
    );
}
