//! The cases that went most wrong, with their pictures.

use super::{super::judge::Case, escape, number};
use crate::domain::calibration::SMALLEST_ML;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fmt::Write as _;

/// Cases shown of each kind of failure.
const MOST: usize = 6;

/// Misses and false lesions by their volume, then poor overlaps; each case once.
pub(super) fn gallery(cases: &[Case], picture: impl Fn(&str) -> Option<Vec<u8>>) -> String {
    let largest = |volumes: &mut dyn Iterator<Item = f64>| volumes.fold(0.0, f64::max);
    let missed = |c: &Case| {
        let lost = c
            .lesions
            .iter()
            .filter(|l| !l.found && l.volume_ml >= SMALLEST_ML);
        largest(&mut lost.map(|l| l.volume_ml))
    };
    let alarm = |c: &Case| largest(&mut c.false_lesions.iter().map(|f| f.volume_ml));
    let poor = |c: &Case| {
        if c.is_positive() {
            1.0 - c.dice.unwrap_or(0.0)
        } else {
            0.0
        }
    };
    let mut html = String::from("<h2>Where it went wrong</h2>\n");
    let mut shown: Vec<&str> = Vec::new();
    for (title, how_bad) in [
        ("Missed lesions", &missed as &dyn Fn(&Case) -> f64),
        ("False lesions", &alarm),
        ("Poor overlap", &poor),
    ] {
        let mut worst: Vec<&Case> = cases
            .iter()
            .filter(|c| how_bad(c) > 0.0 && !shown.contains(&c.subject.name.as_str()))
            .collect();
        worst.sort_by(|a, b| how_bad(b).total_cmp(&how_bad(a)));
        let figures: Vec<String> = worst
            .iter()
            .filter_map(|case| Some((case, picture(&case.subject.name)?)))
            .take(MOST)
            .map(|(case, png)| {
                shown.push(&case.subject.name);
                let caption = caption(case);
                format!(
                    r#"<figure><img alt="{caption}" src="data:image/png;base64,{}"><figcaption>{caption}</figcaption></figure>"#,
                    STANDARD.encode(png)
                )
            })
            .collect();
        if !figures.is_empty() {
            text!(
                html,
                "<h3>{title}</h3>\n<div class=\"pictures\">{}</div>\n",
                figures.join("\n")
            );
        }
    }
    if shown.is_empty() {
        html.push_str("<p>No lesion of 1 mL or more was missed and none was made up.</p>\n");
    } else {
        html.push_str(
            "<p>Brain window, level 40, width 80 HU. Green outline: truth. Orange outline: what the model shows.</p>\n",
        );
    }
    html
}

fn caption(case: &Case) -> String {
    let volume = |ml: f64| number(Some(ml), 1);
    let mut parts = vec![format!(
        "{} ({}): true {} mL, shown {} mL",
        case.subject.name,
        case.subject.stack,
        volume(case.truth_ml),
        volume(case.found_ml)
    )];
    for lesion in case
        .lesions
        .iter()
        .filter(|l| !l.found && l.volume_ml >= SMALLEST_ML)
    {
        parts.push(format!(
            "missed {} of {} mL",
            lesion.class,
            volume(lesion.volume_ml)
        ));
    }
    for region in &case.false_lesions {
        parts.push(format!(
            "false {} of {} mL, score {}",
            region.class,
            volume(region.volume_ml),
            number(Some(region.score), 2)
        ));
    }
    if case.is_positive() {
        parts.push(format!("Dice {}", number(case.dice, 2)));
    }
    escape(&parts.join("; "))
}
