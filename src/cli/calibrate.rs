//! `ictus calibrate`: a folder of `ictus evaluate` → `calibration.json`, which the model takes from then on.

use ictus::train::{
    calibration::{Checked, Wanted, calibrate, check, save},
    evaluation::statistics::Estimate,
};
use std::{path::PathBuf, process::ExitCode};

/// Learn what a model's scores mean from cases whose truth is known: when to flag, and from your own scans probabilities and intervals of volumes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder that `ictus evaluate` has filled, with cases that the model was not trained on
    #[arg(value_name = "EVALUATION")]
    evaluation: PathBuf,
    /// Folder of models: the calibration goes to MODEL/calibration.json in it
    #[arg(long, env = "ICTUS_MODELS", value_name = "DIR")]
    models_dir: PathBuf,
    /// Share of studies with a lesion where the model will work: probabilities are meant for it; else that of the cases
    #[arg(long, value_parser = part)]
    prevalence: Option<f64>,
    /// Share of studies with a lesion of 1 mL or more that may be answered "not flagged"
    #[arg(long, default_value_t = 0.05, value_parser = part)]
    missed: f64,
    /// Share of studies without one that may be flagged
    #[arg(long, default_value_t = 0.03, value_parser = part)]
    false_flags: f64,
    /// Folder of another evaluation of the model: says whether the promises hold there
    #[arg(long, value_name = "EVALUATION")]
    check: Option<PathBuf>,
}

/// A share that is neither nothing nor everything.
fn part(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.001..=0.999).contains(share))
        .ok_or_else(|| "expected a share from 0.001 to 0.999, as 0.05".into())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        prevalence: args.prevalence,
        missed: args.missed,
        false_flags: args.false_flags,
    };
    let calibration = calibrate(&args.evaluation, wanted)?;
    let checked = args
        .check
        .as_ref()
        .map(|folder| check(&calibration, folder))
        .transpose()?;
    let path = save(&calibration, &args.models_dir)?;
    let [low, high] = calibration.flag_score;
    super::say(&format!(
        "{}: {calibration}. Flagged from a case score of {high:.3}, not flagged below {low:.3}.",
        calibration.model
    ))?;
    if calibration.case.is_some() {
        for (what, there) in [
            ("probabilities of findings", calibration.finding.is_some()),
            ("intervals of volumes", calibration.volume.is_some()),
        ] {
            if !there {
                super::say(&format!("Too few findings for {what}: there will be none."))?;
            }
        }
    } else {
        super::say(
            "Phantoms say when to flag; they say nothing of patients, so that no result is called a probability.",
        )?;
    }
    if let Some(checked) = checked {
        super::say(&held(&checked, calibration.missed, calibration.false_flags))?;
    }
    super::say(&path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// How the promises fare on other cases.
fn held(checked: &Checked, missed: f64, false_flags: f64) -> String {
    let mut text = format!(
        "On {}: missed {} (promised {missed}), flagged without a lesion {} (promised {false_flags}), uncertain {}",
        checked.cases,
        said(checked.missed),
        said(checked.false_flags),
        said(checked.uncertain)
    );
    if let Some([ece, brier]) = checked.case {
        text.push_str(&format!(
            "; expected calibration error {ece:.3}, Brier {brier:.3}"
        ));
    }
    if let Some(volume) = checked.volume {
        text.push_str(&format!("; true volume within its interval {}", said(volume)));
    }
    text.push('.');
    text
}

/// A share with its interval.
fn said(share: Estimate) -> String {
    match (share.value, share.interval) {
        (Some(value), Some([low, high])) => format!("{value:.2} ({low:.2} to {high:.2} of {})", share.n),
        _ => "unknown (no such case)".into(),
    }
}
