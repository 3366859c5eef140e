//! The card of an imported model: what is known of it, and that nothing of it was checked here.

use super::Trained;
use crate::domain::plan::{Ensemble, Normalization, Plan};
use std::fmt::Write as _;

/// Markdown; texts of the dataset stand in cells and cannot end them.
pub(super) fn text(plan: &Plan, trained: &Trained, difference: f64) -> String {
    let architecture = &trained.configuration.architecture;
    let mut rows: Vec<(String, String)> = vec![
        ("imported from".into(), trained.origin.clone()),
        (
            "network".into(),
            format!(
                "{} × {} ({}-D), {:.1} M parameters each",
                plan.members,
                architecture.class_name(),
                architecture.spatial_dims(),
                parameters(trained) / 1e6
            ),
        ),
        (
            "grid".into(),
            format!(
                "{:?} mm, tiles of {:?}",
                plan.configuration.spacing, plan.configuration.patch_size
            ),
        ),
    ];
    let schemes = plan.configuration.normalization_schemes.iter();
    for (i, scheme) in schemes.enumerate() {
        let how = match scheme {
            Normalization::CTNormalization {
                lower_hu,
                upper_hu,
                mean_hu,
                std_hu,
            } => format!("{lower_hu:.1} to {upper_hu:.1} HU, mean {mean_hu:.1}, deviation {std_hu:.1}"),
            Normalization::NoNormalization => "as it is".to_owned(),
            other => format!("{other:?}"),
        };
        let name = plan
            .configuration
            .channel_names
            .get(i)
            .map_or("image", String::as_str);
        rows.push((format!("channel {i}"), format!("{name}: {how}")));
    }
    rows.push((
        "mirrored at test time over axes".into(),
        format!("{:?} of the network's grid", plan.mirror_axes),
    ));
    if !plan.keep_largest.is_empty() {
        rows.push((
            "only the largest component of labels".into(),
            format!("{:?}", plan.keep_largest),
        ));
    }
    let ensemble = match plan.ensemble {
        Ensemble::MeanLogits => "mean of logits, as nnU-Net does",
        Ensemble::MeanProbabilities => "mean of probabilities",
    };
    if plan.members > 1 {
        rows.push(("ensemble".into(), ensemble.into()));
    }
    rows.push(("calibration".into(), "none: scores are scores".into()));
    rows.extend(trained.facts.iter().cloned());
    let mut card = format!(
        "# {} {}\n\n**Imported, not validated here, not for clinical use.**\nWhat it was trained on is as its own files say, below; nobody checked that here, nor what its labels mean, nor its licence.\n\n| | |\n|---|---|\n",
        plan.id, plan.version
    );
    for (what, how) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(card, "| {} | {} |", cell(&what), cell(&how));
    }
    let _ = write!(
        card,
        "\nThe golden patch was computed by ictus itself when the model was imported, on noise: it shows that a machine computes what the importing one did.\nFast kernels and plain operators differed there by at most {difference:.1e}.\nNo series asks for this model by itself: it runs when it is named (`--model {}`).\n",
        plan.id
    );
    card
}

fn parameters(trained: &Trained) -> f64 {
    let first = trained.members.first();
    let count = first.map_or(0, |m| m.values().map(candle_core::Tensor::elem_count).sum());
    count as f64
}

/// A text that stays within its cell.
fn cell(text: &str) -> String {
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    flat.replace('|', "\\|").replace('<', "&lt;")
}
