//! The card of a model that was trained on somebody's scans: what it learnt from, how it did, and what is not known.

use super::{fingerprint::Fingerprint, raw::RawDataset, validation::Validation};
use crate::{
    domain::plan::Plan,
    train::{TrainError, start::Start, training::write},
};
use std::{fmt::Write as _, path::Path};

/// Writes `OUT/card.md`.
///
/// # Errors
/// When the file cannot be written.
pub fn card(
    plan: &Plan,
    from: Option<&Start>,
    dataset: &RawDataset,
    fingerprint: &Fingerprint,
    validation: &Validation,
    out: &Path,
) -> Result<(), TrainError> {
    let configuration = &plan.configuration;
    let mut text = format!(
        "# {} {}\n\n**Trained locally, not validated, not for clinical use.**\n\n| | |\n|---|---|\n",
        plan.id, plan.version
    );
    let from = from.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let rows = [
        (
            "trained on",
            format!("{}: {} cases", dataset.name(), dataset.cases.len()),
        ),
        ("started from", from),
        ("channels", dataset.channels().join(", ")),
        (
            "network",
            format!(
                "{} × {} ({}-D)",
                plan.members,
                configuration.architecture.class_name(),
                configuration.architecture.spatial_dims()
            ),
        ),
        ("grid", configuration.in_words()),
    ];
    // Writing to a String cannot fail.
    for (what, how) in rows {
        let _ = writeln!(text, "| {what} | {} |", cell(&how));
    }
    text.push_str(
        "\n| label | cases that have it | mean Dice of single members on held-out cases |\n|---|---|---|\n",
    );
    for region in &dataset.regions {
        let having = fingerprint.cases.iter().filter(|case| case.has(region)).count();
        let dice = validation.mean_dice.get(&region.name).copied().flatten();
        let dice = dice.map_or_else(|| "not measured".to_owned(), |dice| format!("{dice:.3}"));
        let name = match dataset.overlap() {
            true => format!("{} (values {:?})", region.name, region.values),
            false => region.name.clone(),
        };
        let _ = writeln!(text, "| {} | {having} | {dice} |", cell(&name));
    }
    if dataset.overlap() {
        text.push_str("\nThese are regions that may overlap. The Dice is that of all values of a region; a result shows, and measures, of each what no later region covers.\n");
    }
    let resampled = fingerprint.cases.iter().filter(|case| case.resampled).count();
    if resampled > 0 {
        let _ = write!(
            text,
            "\n{resampled} cases were tilted or uneven and were laid on an even grid; the model refuses such series.\n"
        );
    }
    let _ = write!(
        text,
        "\n{}\nNobody has calibrated its scores or chosen when it flags: it answers no clinical question, and runs only when it is named (`--model {}`).\n",
        validation.about, plan.id
    );
    write(&out.join("card.md"), text.as_bytes())
}

/// A text that stays within its cell.
fn cell(text: &str) -> String {
    let flat: Vec<&str> = text.split_whitespace().collect();
    flat.join(" ").replace('|', "\\|").replace('<', "&lt;")
}
