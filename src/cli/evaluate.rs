//! `ictus evaluate`: held-out phantoms → `metrics.json`.

use super::engine::EngineArgs;
use ictus::train::evaluation::evaluate;
use indicatif::{ProgressBar, ProgressStyle};
use std::{fs, path::PathBuf, process::ExitCode};

/// Judge a model on phantoms that it was not trained on; says nothing of patients.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model.
    #[arg(long, value_name = "ID")]
    model: String,
    #[command(flatten)]
    engine: EngineArgs,
    /// Where metrics.json goes.
    #[arg(long)]
    out: PathBuf,
    /// Phantoms, half of them with a bleed.
    #[arg(long, default_value_t = 40)]
    count: usize,
    /// Seed of the first phantom.
    #[arg(long, default_value_t = 900_000)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let engine = args.engine.start()?;
    let model = engine.model(&args.model)?;
    let bar = ProgressBar::new(args.count as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} (left {eta}) {msg}",
    )?);
    let metrics = evaluate(&engine, model, args.seed, args.count, |case| {
        bar.inc(1);
        bar.set_message(format!(
            "seed {} Dice {:.2}",
            case.seed,
            case.dice.unwrap_or(f64::NAN)
        ));
    })?;
    bar.finish_and_clear();
    fs::create_dir_all(&args.out)?;
    fs::write(
        args.out.join("metrics.json"),
        serde_json::to_vec_pretty(&metrics)?,
    )?;
    super::say(&format!(
        "{} phantoms with a bleed, {} without: Dice mean {:.3}, median {:.3}; lesions of 1 mL or more found {:.3} of {}; \
         false alarms a case {:.2}; flagged {:.2} of bleeding and {:.2} of normal ones, uncertain {:.2}; \
         entropy tells wrong from right voxels in the brain with AUROC {:.3}. Phantoms only: says nothing of patients.",
        metrics.bleeding,
        metrics.normal,
        metrics.dice_mean,
        metrics.dice_median,
        metrics.lesion_sensitivity,
        metrics.lesions,
        metrics.false_alarms_per_case,
        metrics.flagged_bleeding,
        metrics.flagged_normal,
        metrics.uncertain,
        metrics.entropy_auroc_wrong
    ))?;
    Ok(ExitCode::SUCCESS)
}
