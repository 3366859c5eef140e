//! The plots of the report.

use super::{
    super::{
        calibration::Calibration,
        judge::Case,
        metrics::{Group, Metrics},
        statistics::Estimate,
    },
    escape, number,
    plot::{Plot, intervals},
    said, words,
};

const UNIT: [f64; 2] = [0.0, 1.0];
const DIAGONAL: [[f64; 2]; 2] = [[0.0, 0.0], [1.0, 1.0]];

/// All plots.
pub(super) fn all(metrics: &Metrics, cases: &[Case]) -> String {
    let figures = [
        roc(metrics),
        agreement(metrics, cases),
        reliability(
            "Reliability of voxel scores in the cranial cavity",
            &metrics.voxel_calibration,
        ),
        reliability("Reliability of case scores", &metrics.case_calibration),
        by_group(
            "Dice of positive cases by true volume",
            "mean Dice",
            &[&metrics.by_volume],
            |g| g.dice,
        ),
        by_group(
            "Sensitivity for lesions of 1 mL or more",
            "sensitivity",
            &[
                &metrics.by_thickness,
                &metrics.by_tilt,
                &metrics.by_stack,
                &metrics.by_stratum,
            ],
            |g| g.sensitivity,
        ),
        by_group(
            "Normal cases that were flagged",
            "share flagged",
            &[
                &metrics.by_thickness,
                &metrics.by_tilt,
                &metrics.by_stack,
                &metrics.by_stratum,
            ],
            |g| g.flagged_normal,
        ),
        risk(metrics),
    ];
    format!(
        "<h2>Plots</h2>\n<div class=\"figures\">{}</div>\n",
        figures.concat()
    )
}

fn figure(svg: &str, caption: &str) -> String {
    format!(
        "<figure>{svg}<figcaption>{}</figcaption></figure>\n",
        escape(caption)
    )
}

fn roc(metrics: &Metrics) -> String {
    let mut plot = Plot::new(
        "ROC curve of the case score",
        ("normal cases at or above the score", UNIT),
        ("positive cases", UNIT),
    );
    plot.line("reference", &DIAGONAL);
    plot.line("curve", &metrics.roc);
    figure(
        &plot.svg(),
        &format!("ROC curve of the case score: area {}.", said(&metrics.auc, 3)),
    )
}

fn reliability(title: &str, calibration: &Calibration) -> String {
    let mut plot = Plot::new(title, ("mean score", UNIT), ("share that is positive", UNIT));
    plot.line("reference", &DIAGONAL);
    let points: Vec<[f64; 2]> = calibration
        .reliability
        .iter()
        .filter_map(|bin| Some([bin.score, bin.share.value?]))
        .collect();
    plot.line("curve", &points);
    for bin in &calibration.reliability {
        if let (Some(value), Some(interval)) = (bin.share.value, bin.share.interval) {
            plot.interval(bin.score, interval);
            plot.dot(bin.score, value);
        }
    }
    figure(
        &plot.svg(),
        &format!(
            "{title}: ECE {}, ACE {}, Brier {}. On the dashed line scores are probabilities.",
            number(calibration.ece, 4),
            number(calibration.ace, 4),
            number(calibration.brier, 4)
        ),
    )
}

fn agreement(metrics: &Metrics, cases: &[Case]) -> String {
    let points: Vec<[f64; 2]> = cases
        .iter()
        .filter(|c| c.is_positive())
        .map(|c| [f64::midpoint(c.truth_ml, c.found_ml), c.found_ml - c.truth_ml])
        .collect();
    let limits = metrics.volume.limits.unwrap_or([-1.0, 1.0]);
    let high = points.iter().map(|p| p[0]).fold(1.0, f64::max) * 1.05;
    let reach = points.iter().map(|p| p[1].abs());
    let reach = reach.chain(limits.map(f64::abs)).fold(1.0, f64::max) * 1.1;
    let mut plot = Plot::new(
        "Bland–Altman plot of volumes",
        ("mean of true and found volume, mL", [0.0, high]),
        ("found minus true, mL", [-reach, reach]),
    );
    plot.line("reference", &[[0.0, 0.0], [high, 0.0]]);
    for limit in limits {
        plot.line("other", &[[0.0, limit], [high, limit]]);
    }
    if let Some(bias) = metrics.volume.bias.value {
        plot.line("bias", &[[0.0, bias], [high, bias]]);
    }
    for [x, y] in points {
        plot.dot(x, y);
    }
    figure(
        &plot.svg(),
        &format!(
            "Volumes (Bland and Altman): bias {} mL, limits of agreement {} to {} mL.",
            said(&metrics.volume.bias, 2),
            number(metrics.volume.limits.map(|l| l[0]), 1),
            number(metrics.volume.limits.map(|l| l[1]), 1)
        ),
    )
}

fn by_group(title: &str, axis: &str, groups: &[&Vec<Group>], value: impl Fn(&Group) -> Estimate) -> String {
    let rows: Vec<(String, Estimate)> = groups
        .iter()
        .flat_map(|groups| groups.iter())
        .map(|group| (words(&group.name), value(group)))
        .collect();
    figure(
        &intervals(title, axis, &rows),
        &format!("{title}, with 95 % intervals; the numbers stand in the tables below."),
    )
}

fn risk(metrics: &Metrics) -> String {
    let found = &metrics.risk_coverage;
    let high = found.curve.iter().map(|p| p[1]).fold(0.1, f64::max).min(1.0);
    let mut plot = Plot::new(
        "Risk and coverage",
        ("share of cases kept, the surest first", UNIT),
        ("mean of 1 − Dice", [0.0, high]),
    );
    plot.line("curve", &found.curve);
    if let Some(blind) = found.blind {
        plot.line("reference", &[[0.0, blind], [1.0, blind]]);
    }
    figure(
        &plot.svg(),
        &format!(
            "What is left of the errors when cases of which the members disagree most go to a person first: area {}, at best {}, without a ranking {} (dashed).",
            number(found.aurc, 3),
            number(found.best, 3),
            number(found.blind, 3)
        ),
    )
}
