//! `ictus train`: phantoms → a model's folder.

use ictus::{
    analysis::infer::engine,
    domain::{device::DeviceChoice, plan::Plan},
    train::{
        dataset::{HaemorrhageSlabs, InfarctSlabs, Samples},
        recipe,
        training::{Config, train},
        volumes::OcclusionBoxes,
    },
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{path::PathBuf, process::ExitCode, sync::Arc};

/// Arguments of `ictus train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the model's folder goes.
    #[arg(long)]
    out: PathBuf,
    /// What is looked for.
    #[arg(long, value_enum, default_value_t = Recipe::Haemorrhage)]
    recipe: Recipe,
    /// Networks in the ensemble.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Steps of each member.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Steps that all members share before they part; cheaper than training each alone, and less independent
    #[arg(long, default_value_t = 0)]
    trunk_steps: usize,
    /// A model's folder to start from
    #[arg(long, value_name = "MODEL")]
    from: Option<PathBuf>,
    /// Phantom slices a step.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Seed of parameters and phantoms.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Highest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f64,
    /// auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// What `ictus train` can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Recipe {
    /// Bleeds and their kinds on non-contrast CT
    Haemorrhage,
    /// Fresh infarcts on non-contrast CT
    Infarct,
    /// Closed arteries on CT angiography
    Occlusion,
}

impl Recipe {
    fn plan(self, members: usize) -> (Plan, Arc<dyn Samples>) {
        match self {
            Self::Haemorrhage => (recipe::haemorrhage(members), Arc::new(HaemorrhageSlabs)),
            Self::Infarct => (recipe::infarct(members), Arc::new(InfarctSlabs)),
            Self::Occlusion => (recipe::occlusion(members), Arc::new(OcclusionBoxes)),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let device = engine::open(args.device)?;
    let (plan, samples) = args.recipe.plan(args.members);
    let config = Config {
        samples,
        plan,
        out: args.out.clone(),
        from: args.from.clone(),
        trunk_steps: args.trunk_steps,
        steps: args.steps,
        batch: args.batch,
        seed: args.seed,
        learning_rate: args.learning_rate,
        weight_decay: 1e-2,
        checkpoint_every: 50,
    };
    let bar = ProgressBar::new((args.trunk_steps + args.members * args.steps) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} (left {eta}) {msg}",
    )?);
    let mut mean = None;
    train(&config, &device, |p| {
        bar.set_position(p.done as u64);
        let smooth = mean.map_or(p.loss, |m: f64| 0.98 * m + 0.02 * p.loss);
        mean = Some(smooth);
        bar.set_message(format!("{} loss {smooth:.3}", p.part));
        if bar.is_hidden() && p.step % 50 == 0 {
            eprintln!(
                "{} step {} of {} loss {smooth:.4} learning rate {:.2e}",
                p.part, p.done, p.total, p.learning_rate
            );
        }
    })?;
    bar.finish();
    eprintln!(
        "Wrote {}. Synthetic training only: not for clinical use.",
        args.out.display()
    );
    Ok(ExitCode::SUCCESS)
}
