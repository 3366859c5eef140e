//! `ictus evaluate`: held-out phantoms, or scans with labels → `cases.jsonl`, `metrics.json` and `report.html`.

use super::engine::EngineArgs;
use anyhow::Context;
use ictus::analysis::infer::{Engine, bundle::Model};
use ictus::train::{
    evaluation::{
        evaluate,
        source::{Dataset, Source},
        summary,
    },
    occlusion,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{fs, path::PathBuf, process::ExitCode};

/// Judge a model on phantoms that it was not trained on, or on your own scans with labels; a run that stopped goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model.
    #[arg(long, value_name = "ID")]
    model: String,
    #[command(flatten)]
    engine: EngineArgs,
    /// Where cases.jsonl, metrics.json and report.html go.
    #[arg(long)]
    out: PathBuf,
    /// Phantoms, half of them with a bleed.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Seed of the first phantom.
    #[arg(long, default_value_t = 900_000)]
    seed: u64,
    /// Scans with labels instead of phantoms: a folder in nnU-Net's raw layout (imagesTs with labelsTs, or imagesTr with labelsTr, and dataset.json).
    #[arg(long, value_name = "DIR", conflicts_with_all = ["count", "seed"])]
    dataset: Option<PathBuf>,
}

/// Judges a detector of closed arteries.
fn arteries(engine: &Engine, model: &Model, args: &Args) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let bar = ProgressBar::new(args.count.into());
    let metrics = occlusion::evaluate(engine, model, args.seed, usize::try_from(args.count)?, |_| {
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    let path = args.out.join("metrics.json");
    fs::write(&path, serde_json::to_vec_pretty(&metrics)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    super::say(&metrics.summary())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let engine = args.engine.start()?;
    let model = engine.model(&args.model)?;
    if model.plan.question == occlusion::QUESTION && args.dataset.is_none() {
        return arteries(&engine, model, args);
    }
    let source = match &args.dataset {
        Some(folder) => Source::Dataset(Dataset::open(folder, &model.plan)?),
        None => Source::Phantoms {
            first_seed: args.seed,
            count: usize::try_from(args.count)?,
        },
    };
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let bar = ProgressBar::new(source.count() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} (left {eta}) {msg}",
    )?);
    let mut begun = false;
    let metrics = evaluate(&engine, model, &source, &args.out, |cases| {
        let done = cases.len() as u64;
        if !begun {
            // What an earlier run did says nothing of how long the rest takes.
            begun = true;
            bar.reset_eta();
        }
        bar.set_position(done);
        if let Some(case) = cases.last() {
            let dice = case.dice.map_or("–".into(), |dice| format!("{dice:.2}"));
            bar.set_message(format!("{} Dice {dice}", case.subject.name));
        }
    })?;
    bar.finish_and_clear();
    super::say(&summary(&metrics))?;
    super::say(&format!("{}", args.out.join("report.html").display()))?;
    Ok(ExitCode::SUCCESS)
}
