//! The card of an imported model: what is known of it, and that nothing of it was checked here.

use super::{Trained, nnunet::Labels};
use crate::domain::plan::{Normalization, Plan};
use std::fmt::Write as _;

/// Markdown; texts of the dataset stand in cells and cannot end them.
pub(super) fn text(plan: &Plan, trained: &Trained, difference: f64) -> String {
    let mut rows: Vec<(String, String)> = vec![
        ("imported from".into(), trained.origin.clone()),
        (
            "network".into(),
            format!(
                "{} × {} ({}-D), {:.1} M parameters each",
                plan.members,
                trained.architecture.class_name(),
                trained.architecture.spatial_dims(),
                parameters(trained) / 1e6
            ),
        ),
        (
            "grid".into(),
            format!(
                "{:?} mm, tiles of {:?}",
                plan.configuration.spacing, trained.patch_size
            ),
        ),
    ];
    for (i, channel) in trained.recipe.channels.iter().enumerate() {
        let how = match &channel.normalization {
            Normalization::CTNormalization {
                lower_hu,
                upper_hu,
                mean_hu,
                std_hu,
            } => format!("{lower_hu:.1} to {upper_hu:.1} HU, mean {mean_hu:.1}, deviation {std_hu:.1}"),
            other => format!("{other:?}"),
        };
        rows.push((format!("channel {i}"), format!("{}: {how}", channel.name)));
    }
    let labels = match &trained.recipe.labels {
        Labels::Exclusive(names) => names.join(", "),
        Labels::Regions(regions) => {
            let regions = regions.iter().map(|r| format!("{} = {:?}", r.name, r.labels));
            format!("regions {}", regions.collect::<Vec<_>>().join(", "))
        }
    };
    rows.push(("labels".into(), labels));
    rows.push((
        "mirrored at test time over axes".into(),
        format!("{:?} of the network's grid", trained.recipe.mirror_axes),
    ));
    if !trained.recipe.keep_largest.is_empty() {
        rows.push((
            "only the largest component of labels".into(),
            format!("{:?}", trained.recipe.keep_largest),
        ));
    }
    rows.push(("ensemble".into(), "mean of logits, as nnU-Net does".into()));
    rows.push(("calibration".into(), "none: scores are scores".into()));
    rows.extend(trained.facts.iter().cloned());
    let mut card = format!(
        "# {} {}\n\n**Imported, not validated here, not for clinical use.**\nWhat it was trained on is as its dataset.json says, below; nobody checked that here, nor what its labels mean, nor its licence.\n\n| | |\n|---|---|\n",
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
