//! The tables of the report.

use super::{
    super::metrics::{ClassGroup, Goal, Group, LesionGroup, Metrics, Subtype},
    escape, number, said, words,
};
use crate::domain::calibration::Cases;
use std::{collections::BTreeSet, fmt::Write as _};

/// A table: caption, names of columns, rows of which the first cell is their name; what goes in is escaped.
pub(in crate::train) fn table(caption: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = format!(
        r#"<div class="wide" tabindex="0" role="region" aria-label="{0}"><table><caption>{0}</caption><thead><tr>"#,
        escape(caption)
    );
    for column in columns {
        text!(html, r#"<th scope="col">{}</th>"#, escape(column));
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            if i == 0 {
                text!(html, r#"<th scope="row">{}</th>"#, escape(cell));
            } else {
                text!(html, "<td>{}</td>", escape(cell));
            }
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// What the project wants.
pub(super) fn goals(goals: &[Goal]) -> String {
    let rows: Vec<Vec<String>> = goals
        .iter()
        .map(|goal| {
            let reached = match goal.reached {
                None => "not known",
                Some(true) => "yes",
                Some(false) => "no",
            };
            vec![goal.wanted.clone(), number(goal.found, 3), reached.into()]
        })
        .collect();
    table(
        "What the project wants on phantoms",
        &["Wanted", "Found", "Reached"],
        &rows,
    )
}

/// All cases, one number a row.
pub(super) fn overall(metrics: &Metrics) -> String {
    let (all, flags) = (&metrics.overall, &metrics.flags);
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("Dice, mean", said(&all.dice, 3)),
        row("Dice, median", number(all.dice_median, 3)),
        row("Normalised surface Dice, mean", said(&all.nsd, 3)),
        row(
            "HD95, median, mm",
            format!(
                "{}; {} cases have none",
                number(all.hd95_median_mm, 1),
                all.hd95_undefined
            ),
        ),
        row("Sensitivity, lesions of 1 mL or more", said(&all.sensitivity, 3)),
        row("False lesions a case", said(&all.false_lesions_per_case, 3)),
        row("Volume bias, mL", said(&metrics.volume.bias, 2)),
        row(
            "Limits of agreement, mL",
            metrics.volume.limits.map_or("–".into(), |[low, high]| {
                format!("{} to {}", number(Some(low), 1), number(Some(high), 1))
            }),
        ),
        row("Area under the ROC curve", said(&metrics.auc, 3)),
        row("Area under it, more than 10 mL", said(&metrics.auc_large, 3)),
        row("Positive cases flagged", said(&flags.sensitivity, 3)),
        row("Positive cases uncertain", said(&flags.uncertain_positive, 3)),
        row(
            "False flags of 100 normal cases",
            said(&flags.false_per_100_normal, 1),
        ),
        row(
            "Uncertain of 100 normal cases",
            said(&flags.uncertain_per_100_normal, 1),
        ),
    ];
    if let Some(midline) = &metrics.midline {
        for (which, group) in [
            ("all cases", &midline.all),
            ("shifted by 2 mm or more", &midline.shifted),
        ] {
            let [median, most, worst] = group.off_mm.map(|mm| number(mm, 1));
            rows.extend([
                row(&format!("Midline shift told, {which}"), said(&group.told, 3)),
                row(
                    &format!("Midline shift off by, mm: median, 90 %, greatest, {which}"),
                    [median, most, worst].join(", "),
                ),
                row(
                    &format!("Bias in the direction of the shift, mm, {which}"),
                    said(&group.error.bias, 2),
                ),
                row(
                    &format!("True shift within the interval told, {which}"),
                    said(&group.within_interval, 3),
                ),
            ]);
        }
    }
    if let Some(aspects) = &metrics.aspects {
        for (which, group) in [("all sides", &aspects.all), ("score below 10", &aspects.affected)] {
            rows.extend([
                row(&format!("ASPECTS told, {which}"), said(&group.told, 3)),
                row(&format!("ASPECTS right, {which}"), said(&group.exact, 3)),
                row(
                    &format!("ASPECTS off by a point at most, {which}"),
                    said(&group.within_one, 3),
                ),
                row(
                    &format!("Told minus true ASPECTS, {which}"),
                    said(&group.error.bias, 2),
                ),
                row(
                    &format!("True ASPECTS within the range told, {which}"),
                    said(&group.within_range, 3),
                ),
            ]);
        }
        rows.extend([
            row(
                "Affected regions of ASPECTS told",
                said(&aspects.affected_regions_told, 3),
            ),
            row(
                "Other regions of ASPECTS left alone",
                said(&aspects.other_regions_spared, 3),
            ),
        ]);
        for (region, dice) in &aspects.region_dice {
            rows.push(row(
                &format!("Dice of region {}, mean", region.letters()),
                said(dice, 3),
            ));
        }
    }
    for value in &flags.predictive_values {
        rows.push(row(
            &format!(
                "Share of flags that are right when {:.0} % are positive",
                100.0 * value.prevalence
            ),
            said(&value.positive_predictive_value, 3),
        ));
    }
    for (name, calibration) in [
        ("voxels in the cranial cavity", &metrics.voxel_calibration),
        ("cases", &metrics.case_calibration),
    ] {
        rows.push(row(
            &format!("ECE, ACE, Brier of {name}"),
            [calibration.ece, calibration.ace, calibration.brier]
                .map(|v| number(v, 4))
                .join(", "),
        ));
    }
    rows.push(row(
        "AUROC of entropy for wrong voxels",
        number(metrics.entropy_auroc_wrong, 3),
    ));
    let risk = &metrics.risk_coverage;
    rows.push(row(
        "Area under risk and coverage; at best; without a ranking",
        [risk.aurc, risk.best, risk.blind]
            .map(|v| number(v, 3))
            .join("; "),
    ));
    format!(
        "<h2>All cases</h2>\n{}",
        table("Estimates with 95 % intervals", &["Measure", "Value"], &rows)
    )
}

/// Everything by groups.
pub(super) fn groups(metrics: &Metrics) -> String {
    let mut html = String::from("<h2>By group</h2>\n");
    for (caption, rows) in [
        ("Positive cases by true volume", &metrics.by_volume),
        ("By distance of slices", &metrics.by_thickness),
        ("By tilt", &metrics.by_tilt),
        ("By stack", &metrics.by_stack),
        ("By what is special about the head", &metrics.by_stratum),
    ] {
        if !rows.is_empty() {
            html.push_str(&cases(caption, rows));
        }
    }
    html.push_str(&lesions(&metrics.lesions_by_size));
    html.push_str(&classes(&metrics.by_class));
    if let Some(subtype) = &metrics.subtype {
        html.push_str(&confusion(subtype));
    }
    html
}

fn cases(caption: &str, groups: &[Group]) -> String {
    let columns = [
        "Group",
        "Cases",
        "Positive",
        "Dice",
        "Surface Dice",
        "HD95, mm",
        "Sensitivity ≥ 1 mL",
        "False lesions a case",
        "Volume bias, mL",
        "Flagged, positive",
        "Flagged, normal",
    ];
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|g| {
            vec![
                words(&g.name),
                g.cases.to_string(),
                g.positive.to_string(),
                said(&g.dice, 2),
                said(&g.nsd, 2),
                number(g.hd95_median_mm, 1),
                said(&g.sensitivity, 2),
                said(&g.false_lesions_per_case, 2),
                said(&g.volume_bias_ml, 1),
                said(&g.flagged_positive, 2),
                said(&g.flagged_normal, 2),
            ]
        })
        .collect();
    table(caption, &columns, &rows)
}

fn lesions(groups: &[LesionGroup]) -> String {
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|g| {
            vec![
                g.name.clone(),
                g.sensitivity.n.to_string(),
                said(&g.sensitivity, 2),
                said(&g.dice, 2),
            ]
        })
        .collect();
    table(
        "Lesions by size",
        &["Size", "Lesions", "Sensitivity", "Dice"],
        &rows,
    )
}

fn classes(groups: &[ClassGroup]) -> String {
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|g| {
            vec![
                g.lesions.name.clone(),
                g.lesions.sensitivity.n.to_string(),
                said(&g.lesions.sensitivity, 2),
                said(&g.lesions.dice, 2),
                said(&g.dice, 2),
                said(&g.volume_bias_ml, 1),
                g.false_lesions.to_string(),
            ]
        })
        .collect();
    let columns = [
        "Class",
        "Lesions ≥ 1 mL",
        "Sensitivity",
        "Dice of lesions",
        "Dice of the class",
        "Volume bias, mL",
        "False lesions called so",
    ];
    table("By class", &columns, &rows)
}

fn confusion(subtype: &Subtype) -> String {
    let found: BTreeSet<&String> = subtype.confusion.values().flat_map(|row| row.keys()).collect();
    let mut columns = vec!["True class"];
    columns.extend(found.iter().map(|name| name.as_str()));
    let rows: Vec<Vec<String>> = subtype
        .confusion
        .iter()
        .map(|(truth, row)| {
            let counts = found
                .iter()
                .map(|name| row.get(*name).copied().unwrap_or(0).to_string());
            std::iter::once(truth.clone()).chain(counts).collect()
        })
        .collect();
    table(
        &format!(
            "Class with most volume in a case, by the class found; right {}",
            said(&subtype.right, 2)
        ),
        &columns,
        &rows,
    )
}

/// How everything was counted, and what was judged.
pub(super) fn definitions(metrics: &Metrics) -> String {
    let (d, judged) = (&metrics.definitions, &metrics.judged);
    let source = match &judged.source {
        Cases::Phantoms { first_seed, count } => format!(
            "{count} phantoms of the evaluation ranges, seeds {first_seed} to {}",
            first_seed + (*count as u64).saturating_sub(1)
        ),
        Cases::Dataset { name, count, digest } => {
            format!("{count} scans of the data set {name}, digest {digest}")
        }
    };
    format!(
        "<h2>How it was counted</h2>\n<ul>\
<li>Volumes are sums of voxels on the grid of the scan, each as high as half the distance to both neighbouring slices.</li>\
<li>A lesion is a connected region of what is looked for, of any class; it is found when at least {share:.0} % of it lies in what the model shows. A false lesion is a shown region of which at most {share:.0} % lies in one.</li>\
<li>Surfaces are the faces of voxels, weighted by their area; the normalised surface Dice allows {tolerance} mm in every direction, so that a whole slice too much in a stack of thicker slices counts as wrong. HD95 is the larger of both directions.</li>\
<li>A case is flagged when the model answers “present”; “uncertain” is counted apart.</li>\
<li>Shares have Wilson’s 95 % interval, which takes lesions as independent; false lesions a case Garwood’s, which does too; means that of a bootstrap of cases ({resamples} resamples, seed {seed}); areas under the curve Newcombe’s; shares of right flags that of their logit.</li>\
<li>Calibration compares the ensemble’s score with any lesion. ECE weighs bins by what they hold, ACE gives each the same weight. Until a model is calibrated its score is no probability.</li>\
<li>Thin stacks have slices at most {thin} mm apart; tilted ones lean by {tilted}° or more.</li></ul>\n\
<h2>What was judged</h2>\n<p>{source}. Model {model} {version}, weights <code>{weights}</code>, computed by {mode}, ictus {ictus}. \
{seconds} seconds a case (median), {longest} at most.</p>\n",
        share = 100.0 * d.found_share,
        tolerance = d.surface_tolerance_mm,
        resamples = d.bootstrap_resamples,
        seed = d.bootstrap_seed,
        thin = d.thin_mm,
        tilted = d.tilted_degrees,
        source = escape(&source),
        model = escape(&judged.model),
        version = escape(&judged.model_version),
        weights = escape(&judged.weights_sha256),
        mode = escape(&judged.numeric_mode),
        ictus = escape(&judged.ictus),
        seconds = number(metrics.timings.median_s, 1),
        longest = number(metrics.timings.max_s, 1),
    )
}
