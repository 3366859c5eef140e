//! `ictus train`: phantoms, or with `--dataset` somebody's labelled scans → a model's folder.

mod dataset;

use anyhow::{Context, bail};
use ictus::{
    analysis::infer::{bundle::Bundle, engine},
    domain::{
        device::DeviceChoice,
        plan::{Plan, Precision},
    },
    train::{
        TrainError,
        dataset::{HaemorrhageSlabs, InfarctSlabs, Samples},
        heads::HaemorrhageHeads,
        log::Log,
        loss, recipe,
        start::Start,
        training::{Config, Progress, train},
        volumes::{ArteryBoxes, Sought},
    },
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Highest learning rate of a training from nothing.
const LEARNING_RATE: f64 = 2e-3;
/// Exit code of a shell for a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Train a model: on phantoms, or with --dataset on your own labelled scans. For research, not for clinical use.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the model's folder goes.
    #[arg(long)]
    out: PathBuf,
    /// What is looked for in phantoms.
    #[arg(long, value_enum, default_value_t = Recipe::Haemorrhage, conflicts_with = "dataset")]
    recipe: Recipe,
    /// Networks in the ensemble: 3, or with --dataset one a fold.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    members: Option<u16>,
    /// Steps of each member: 1500; with --dataset 2500 on a CPU, 25000 on CUDA.
    #[arg(long)]
    steps: Option<usize>,
    /// Steps that all members share before they part; cheaper than training each alone, and less independent
    #[arg(long, default_value_t = 0)]
    trunk_steps: usize,
    /// A model to start from: its folder, or the id of one that is shipped
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// First steps in which the encoder that training starts from stays as it is, and only what comes after it learns
    #[arg(long, default_value_t = 0)]
    frozen_steps: usize,
    /// Samples a step: 4; with --dataset 12 slices or 2 volumes.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// Show the recipes occlusion and hyperdense pieces of their box, of so many slices, rows and columns (as 24,32,72), around where an artery is closed or would be: several times as many clots in the same time. Whole boxes come after, with --from.
    #[arg(
        long,
        value_name = "VOXELS",
        value_delimiter = ',',
        conflicts_with = "dataset"
    )]
    piece: Option<Vec<usize>>,
    /// Seed of parameters and samples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Highest learning rate: 0.002; with --fine-tune 0.0005.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// What is asked of the network.
    #[arg(long, default_value = "dice-ce")]
    loss: LossName,
    /// What convolutions multiply, forward and back; they add in f32, and the rest is f32: f32, or bf16 on a GPU from Ampere on or a CPU with AVX-512 BF16.
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    own: dataset::Own,
}

/// A loss as it is called on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LossName {
    /// Soft Dice plus cross-entropy.
    DiceCe,
    /// Soft Dice.
    Dice,
    /// Cross-entropy.
    Ce,
    /// Focal loss, gamma 2.
    Focal,
    /// Tversky, false voxels 0.3 and missed ones 0.7.
    Tversky,
    /// Lovász-softmax: the Jaccard index.
    Lovasz,
}

impl LossName {
    fn kind(self) -> loss::Kind {
        match self {
            Self::DiceCe => loss::Kind::DiceCrossEntropy,
            Self::Dice => loss::Kind::Dice,
            Self::Ce => loss::Kind::CrossEntropy,
            Self::Focal => loss::Kind::Focal,
            Self::Tversky => loss::Kind::Tversky,
            Self::Lovasz => loss::Kind::Lovasz,
        }
    }
}

/// What `ictus train` can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Recipe {
    /// Bleeds and their kinds on non-contrast CT
    Haemorrhage,
    /// The same, by a 3-D network that sees the whole head
    #[value(name = "haemorrhage-3d")]
    Haemorrhage3d,
    /// Fresh infarcts on non-contrast CT, and the regions of ASPECTS
    Infarct,
    /// Closed arteries on CT angiography
    Occlusion,
    /// Dense clots in arteries on thin non-contrast CT
    Hyperdense,
}

impl Recipe {
    fn plan(self, members: usize, piece: Option<[usize; 3]>) -> (Plan, Arc<dyn Samples>) {
        let boxes = |sought| Arc::new(ArteryBoxes { sought, piece });
        match self {
            Self::Haemorrhage => (recipe::haemorrhage(members), Arc::new(HaemorrhageSlabs)),
            Self::Haemorrhage3d => (recipe::haemorrhage_3d(members), Arc::new(HaemorrhageHeads)),
            Self::Infarct => (recipe::infarct(members), Arc::new(InfarctSlabs)),
            Self::Occlusion => (recipe::occlusion(members), boxes(Sought::Closed)),
            Self::Hyperdense => (recipe::hyperdense(members), boxes(Sought::Dense)),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.own.dataset {
        return dataset::run(args, folder);
    }
    let from = args.from.as_deref().map(start).transpose()?;
    check_frozen(args, from.is_some())?;
    let (plan, samples) = args
        .recipe
        .plan(usize::from(args.members.unwrap_or(3)), piece(args)?);
    let config = Config {
        samples,
        plan,
        out: args.out.clone(),
        from: from.map(Start::Model),
        frozen_steps: args.frozen_steps,
        trunk_steps: args.trunk_steps,
        steps: args.steps.unwrap_or(1500),
        batch: usize::from(args.batch.unwrap_or(4)),
        seed: args.seed,
        learning_rate: args.learning_rate.unwrap_or(LEARNING_RATE),
        weight_decay: 1e-2,
        checkpoint_every: 50,
        loss: args.loss.kind(),
        precision: args.precision,
        stop: on_interrupt()?,
    };
    if !trained(args, &config)? {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    eprintln!(
        "Wrote {}. Synthetic training only: not for clinical use.",
        args.out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// The model that training starts from: a folder's, or a shipped one.
fn start(named: &str) -> anyhow::Result<Arc<Bundle>> {
    let folder = Path::new(named);
    if folder.is_dir() {
        return Ok(Arc::new(Bundle::read(folder)?));
    }
    let shipped = super::models::bundles(None)?;
    let ids: Vec<String> = shipped.iter().map(|bundle| bundle.plan.id.clone()).collect();
    let found = shipped.into_iter().find(|bundle| bundle.plan.id == named);
    Ok(Arc::new(found.with_context(|| {
        format!(
            "{named} is neither a model's folder nor the id of a shipped model; those are {}",
            ids.join(", ")
        )
    })?))
}

fn check_frozen(args: &Args, starts_with_something: bool) -> anyhow::Result<()> {
    if args.frozen_steps > 0 && !starts_with_something {
        bail!(
            "--frozen-steps keeps the encoder that training starts from; name one with --from, --fine-tune or --encoder"
        );
    }
    Ok(())
}

/// The piece of its box that the recipe is shown, which its network must take.
fn piece(args: &Args) -> anyhow::Result<Option<[usize; 3]>> {
    let Some(lengths) = &args.piece else {
        return Ok(None);
    };
    let (plan, _) = args.recipe.plan(1, None);
    if Sought::of(&plan.question).is_none() {
        bail!(
            "--piece is for the recipes occlusion and hyperdense, which look at a box around arteries; leave it out"
        );
    }
    let whole = &plan.configuration.patch_size;
    let divisors = plan.configuration.architecture.divisors();
    // Of one voxel at the lowest level nothing is left by its norm.
    let fits = |((length, whole), divisor): ((&usize, &usize), &usize)| {
        (2 * divisor..=*whole).contains(length) && length.is_multiple_of(*divisor)
    };
    match <[usize; 3]>::try_from(lengths.as_slice()) {
        Ok(piece) if piece.iter().zip(whole).zip(&divisors).all(fits) => Ok(Some(piece)),
        _ => bail!(
            "--piece {lengths:?} does not fit this network; expected slices, rows and columns, at most {whole:?}, each a multiple of its {divisors:?} and at least twice that"
        ),
    }
}

/// Trains with a bar and a log; whether it came to its end.
fn trained(args: &Args, config: &Config) -> anyhow::Result<bool> {
    let device = engine::open(args.device)?;
    let bar = ProgressBar::new((config.trunk_steps + config.plan.members * config.steps) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} (left {eta}) {msg}",
    )?);
    let mut log = Log::open(&config.out)?;
    let mut unwritten = None;
    let mut mean = None;
    let result = train(config, &device, |p: Progress| {
        bar.set_position(p.done as u64);
        let smooth = mean.map_or(p.loss, |m: f64| 0.98 * m + 0.02 * p.loss);
        mean = Some(smooth);
        bar.set_message(format!("{} loss {smooth:.3}", p.part));
        if bar.is_hidden() && p.step.is_multiple_of(50) {
            eprintln!(
                "{} step {} of {} loss {smooth:.4} learning rate {:.2e}",
                p.part, p.done, p.total, p.learning_rate
            );
        }
        // A log that cannot be written does not end a training.
        if let Err(error) = log.step(&p) {
            unwritten.get_or_insert(error);
        }
    });
    bar.finish();
    if let Err(error) = log.write() {
        unwritten.get_or_insert(error);
    }
    if let Some(error) = unwritten {
        eprintln!("the log is not complete: {:#}", anyhow::Error::from(error));
    }
    match result {
        Ok(()) => Ok(true),
        Err(stopped @ TrainError::Stopped { .. }) => {
            eprintln!("{stopped}.");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// A flag that the first Ctrl-C sets; the second ends the program as ever.
fn on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let flag = stop.clone();
    std::thread::spawn(move || {
        let interrupted = || runtime.block_on(tokio::signal::ctrl_c()).is_ok();
        if interrupted() {
            eprintln!("Stopping after this step, with a checkpoint; once more to stop now.");
            flag.store(true, Ordering::Relaxed);
            if interrupted() {
                std::process::exit(i32::from(INTERRUPTED));
            }
        }
    });
    Ok(stop)
}
