//! `ictus train`: phantoms → a model's folder.

use ictus::{
    analysis::infer::engine,
    domain::device::DeviceChoice,
    train::{
        recipe,
        training::{Config, train},
    },
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `ictus train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the model's folder goes.
    #[arg(long)]
    out: PathBuf,
    /// Networks in the ensemble.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Steps a member.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
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

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let device = engine::open(args.device)?;
    let config = Config {
        plan: recipe::haemorrhage_2d(args.members),
        out: args.out.clone(),
        steps: args.steps,
        batch: args.batch,
        seed: args.seed,
        learning_rate: args.learning_rate,
        weight_decay: 1e-2,
        checkpoint_every: 50,
    };
    let bar = ProgressBar::new((args.members * args.steps) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} (left {eta}) {msg}",
    )?);
    let mut mean = None;
    train(&config, &device, |p| {
        bar.set_position((p.member * args.steps + p.step) as u64);
        let smooth = mean.map_or(p.loss, |m: f32| 0.98 * m + 0.02 * p.loss);
        mean = Some(smooth);
        bar.set_message(format!("member {} loss {smooth:.3}", p.member));
        if bar.is_hidden() && p.step % 50 == 0 {
            eprintln!(
                "member {} step {} loss {smooth:.4} learning rate {:.2e}",
                p.member, p.step, p.learning_rate
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
