//! A second opinion on haemorrhage, by the network of whole heads that waits to be asked for.

use crate::support;
use serde_json::Value;

fn answer<'a>(findings: &'a Value, question: &str) -> Option<&'a str> {
    let answers = findings["answers"].as_array().unwrap();
    let answer = answers.iter().find(|a| a["question"] == question)?;
    answer["answer"].as_str()
}

#[test]
fn a_bleed_on_a_stack_that_leans_is_seen_by_both_networks_each_for_its_own_question() {
    let heads = [
        "--seed",
        "820000",
        "--kind",
        "haemorrhage",
        "--geometry",
        "tilted",
    ];
    let (findings, truth) = support::analysed(&heads, &["--also", "haemorrhage-3d-phantom"]);
    assert_eq!(answer(&findings, "haemorrhage"), Some("present"));
    assert_eq!(answer(&findings, "haemorrhage_second_opinion"), Some("present"));
    let largest = |model: &str| -> Vec<f64> {
        let all = findings["findings"].as_array().unwrap();
        let own = all.iter().filter(|f| f["model"] == model);
        let volume = |f: &&Value| f["volume_ml"].as_f64().unwrap();
        let found = own.max_by(|a, b| volume(a).total_cmp(&volume(b))).unwrap();
        let at = found["center_mm"].as_array().unwrap();
        at.iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let (first, second) = (largest("haemorrhage-phantom"), largest("haemorrhage-3d-phantom"));
    let away = first
        .iter()
        .zip(&second)
        .map(|(a, b)| (a - b).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!(away < 15.0, "{away} mm apart; truth {truth}");
}
