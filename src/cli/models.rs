//! The models that a command has: those shipped in the binary, and those of a folder.

use anyhow::Context;
use ictus::{
    analysis::infer::{
        bundle::{Bundle, CALIBRATION},
        engine,
    },
    domain::device::DeviceChoice,
    import::{self, Request},
};
use rust_embed::RustEmbed;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// `models/` as it was when the binary was built.
#[derive(RustEmbed)]
#[folder = "models"]
struct Shipped;

/// All models: the shipped ones, and those of `folder`, which win over shipped ones of the same id; a folder of that name with a calibration alone calibrates the shipped one.
pub(crate) fn bundles(folder: Option<&Path>) -> anyhow::Result<Vec<Bundle>> {
    let mut all = Vec::new();
    for name in Shipped::iter().filter(|n| n.ends_with("/plan.json")) {
        let file = |part: &str| {
            let path = name.replace("plan.json", part);
            Shipped::get(&path)
                .map(|f| f.data.into_owned())
                .with_context(|| format!("the binary lacks models/{path}"))
        };
        let mut bundle = Bundle::parse(
            &file("plan.json")?,
            file("weights.safetensors")?,
            file("golden.safetensors")?,
        )?;
        if let Ok(calibration) = file(CALIBRATION) {
            bundle.calibrate(&calibration)?;
        }
        all.push(bundle);
    }
    if let Some(folder) = folder {
        let read = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let folders: Vec<PathBuf> = read.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        let (models, others): (Vec<_>, Vec<_>) = folders
            .into_iter()
            .partition(|path| path.join("plan.json").is_file());
        for path in models {
            let bundle = Bundle::read(&path)?;
            all.retain(|known: &Bundle| known.plan.id != bundle.plan.id);
            all.push(bundle);
        }
        for path in others.iter().filter(|path| path.join(CALIBRATION).is_file()) {
            let id = path.file_name().unwrap_or_default().to_string_lossy();
            let file = path.join(CALIBRATION);
            let bundle = all
                .iter_mut()
                .find(|known| known.plan.id == id)
                .with_context(|| {
                    format!(
                        "{} is for a model {id}, which is not there; remove it, or bring the model",
                        file.display()
                    )
                })?;
            bundle.calibrate(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?)?;
        }
    }
    // What every study is asked comes before what was asked for beside it.
    all.sort_by_key(|bundle| bundle.plan.trigger.only_named);
    Ok(all)
}

/// Models: list them, or hold them to their golden patches.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the models.
    List(Folder),
    /// Reproduce golden patches on this machine.
    Check {
        /// Only this model.
        id: Option<String>,
        #[command(flatten)]
        folder: Folder,
    },
    /// Import a trained model of another program: a results folder of nnU-Net v2, or a MONAI bundle.
    Import(Import),
}

#[derive(Debug, clap::Args)]
struct Import {
    /// Its folder.
    path: PathBuf,
    /// Id to give it; made from its own name when absent.
    #[arg(long)]
    id: Option<String>,
    /// Folder of models in which its folder is made.
    #[arg(long, env = "ICTUS_MODELS", value_name = "DIR", default_value = "models")]
    out: PathBuf,
    /// Name of each fold's checkpoint (checkpoint_final.pth), or of a bundle's (model.pt), if it is another.
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<String>,
    /// For a bundle whose outputs may overlap: in which order they are painted, by number from 0, the last on top.
    #[arg(long, value_name = "OUTPUTS", value_delimiter = ',')]
    painted: Option<Vec<usize>>,
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// Folder of further models.
    #[arg(long, env = "ICTUS_MODELS", value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List(folder) => {
            for bundle in bundles(folder.models_dir.as_deref())? {
                let Bundle { plan, .. } = &bundle;
                let line = format!(
                    "{} {}: {}, {} members, weights {}",
                    plan.id,
                    plan.version,
                    plan.question,
                    plan.members,
                    bundle.weights_sha256()
                );
                super::say(&line)?;
                if let Some(calibration) = &plan.calibration {
                    super::say(&format!("  calibrated: {calibration}"))?;
                }
            }
        }
        Command::Check { id, folder } => {
            let device = engine::open(folder.device)?;
            let mut checked = 0;
            for bundle in bundles(folder.models_dir.as_deref())? {
                if id.as_ref().is_none_or(|id| *id == bundle.plan.id) {
                    let worst = bundle.check(&bundle.load(&device)?, &device)?;
                    super::say(&format!(
                        "{}: golden patch reproduced, largest difference {worst:.1e}",
                        bundle.plan.id
                    ))?;
                    checked += 1;
                }
            }
            anyhow::ensure!(
                checked > 0,
                "no such model; `ictus model list` names those that are there"
            );
        }
        Command::Import(args) => {
            let imported = import::import(&Request {
                path: args.path.clone(),
                id: args.id.clone(),
                out: args.out.clone(),
                checkpoint: args.checkpoint.clone(),
                painted: args.painted.clone(),
            })?;
            // What was written is read again, as a server would.
            let device = engine::open(DeviceChoice::Cpu)?;
            let bundle = Bundle::read(&imported.folder)?;
            bundle.check(&bundle.load(&device)?, &device)?;
            super::say(&format!(
                "{}: {} members in {}; its golden patch is reproduced; not validated, not for clinical use (see its card.md)",
                imported.id,
                imported.members,
                imported.folder.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
