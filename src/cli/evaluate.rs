//! `ictus evaluate`: held-out phantoms, or scans with labels → `cases.jsonl`, `metrics.json` and `report.html`.

use super::engine::EngineArgs;
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
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    /// Scans with labels instead of phantoms: a folder in nnU-Net's raw layout (imagesTs with labelsTs, or imagesTr with labelsTr, and dataset.json), of NIfTI or of DICOM series with Segmentations.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["count", "seed"])]
    dataset: Option<PathBuf>,
}

/// Judges a detector of closed arteries.
fn arteries(engine: &Engine, model: &Model, args: &Args) -> anyhow::Result<ExitCode> {
    let count = usize::try_from(args.count)?;
    let mut bar = Bar::new(count)?;
    let metrics = occlusion::evaluate(engine, model, args.seed, count, &args.out, |cases| {
        let last = cases.last();
        bar.show(cases.len(), last.map(|case| case.seed.to_string()));
    })?;
    bar.finish(&occlusion::summary(&metrics), &args.out)
}

/// How far an evaluation is.
struct Bar {
    bar: ProgressBar,
    begun: bool,
}

impl Bar {
    fn new(count: usize) -> anyhow::Result<Self> {
        let bar = ProgressBar::new(count as u64);
        bar.set_style(ProgressStyle::with_template(
            "{bar:40} {pos}/{len} {elapsed} (left {eta}) {msg}",
        )?);
        Ok(Self { bar, begun: false })
    }

    fn show(&mut self, done: usize, last: Option<String>) {
        if !self.begun {
            // What an earlier run did says nothing of how long the rest takes.
            self.begun = true;
            self.bar.reset_eta();
        }
        self.bar.set_position(done as u64);
        if let Some(last) = last {
            self.bar.set_message(last);
        }
    }

    fn finish(self, summary: &str, out: &Path) -> anyhow::Result<ExitCode> {
        self.bar.finish_and_clear();
        super::say(summary)?;
        super::say(&format!("{}", out.join("report.html").display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let engine = args.engine.start()?;
    let model = engine.model(&args.model)?;
    if occlusion::judges(&model.plan.question) && args.dataset.is_none() {
        return arteries(&engine, model, args);
    }
    let source = match &args.dataset {
        Some(folder) => Source::Dataset(Dataset::open(folder, &model.plan)?),
        None => Source::Phantoms {
            first_seed: args.seed,
            count: usize::try_from(args.count)?,
        },
    };
    let mut bar = Bar::new(source.count())?;
    let metrics = evaluate(&engine, model, &source, &args.out, |cases| {
        let last = cases.last().map(|case| {
            let dice = case.dice.map_or("–".into(), |dice| format!("{dice:.2}"));
            format!("{} Dice {dice}", case.subject.name)
        });
        bar.show(cases.len(), last);
    })?;
    bar.finish(&summary(&metrics), &args.out)
}
