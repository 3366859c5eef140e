//! Other people's trained models → a folder of ours: `plan.json`, `weights.safetensors`, `golden.safetensors`, `card.md`.
//!
//! What must hold: the imported model computes what the original does, or there is no imported model.
//! So every argument is either understood or named in a refusal; nothing is skipped because it looks harmless.
//! What it deliberately does not do: judge the model, or say what its labels mean clinically.

mod blast;
mod card;
mod fields;
mod folder;
mod monai;
mod nnunet;
mod weights;
mod yaml;

use crate::{
    domain::{
        failure::FailureClass,
        plan::{Activation, Configuration, Ensemble, Label},
    },
    nn::checkpoint::CheckpointError,
};
use candle_core::Tensor;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Why a model is not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file is missing or cannot be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder is of no kind that is known.
    #[error("{path} is not a model that is known here: {what}")]
    Unknown {
        /// Which folder.
        path: String,
        /// What was looked for.
        what: String,
    },
    /// The model asks for something that this build does not do.
    #[error("{place}: {what}; it is refused rather than approximated")]
    Unsupported {
        /// Where it stands.
        place: String,
        /// What it is, and what is known instead.
        what: String,
    },
    /// A file says something that cannot be.
    #[error("{place}: {what}")]
    Damaged {
        /// Where it stands.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The weights' file.
    #[error("{path} is refused")]
    Checkpoint {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// The weights do not fit the network, or the network fails.
    #[error("{0}")]
    Network(String),
}

impl ImportError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::File { .. } => FailureClass::Transient,
            _ => FailureClass::Input,
        }
    }

    fn unsupported(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported {
            place: place.into(),
            what: what.into(),
        }
    }

    fn damaged(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged {
            place: place.into(),
            what: what.into(),
        }
    }

    fn network(error: &candle_core::Error) -> Self {
        // candle appends a backtrace to the first line, which is the sentence.
        let text = error.to_string();
        Self::Network(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// What to import, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    /// A model's folder.
    pub path: PathBuf,
    /// The id to give it; made from the model's own name when absent.
    pub id: Option<String>,
    /// Where the model's folder is made.
    pub out: PathBuf,
    /// Name of the checkpoint file of each fold, or of a bundle's; the usual one when absent.
    pub checkpoint: Option<String>,
    /// In which order outputs that may overlap are painted, the last on top, for a model that does not say it itself.
    pub painted: Option<Vec<usize>>,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The model's id.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
    /// How many networks it has.
    pub members: usize,
    /// Largest absolute difference between the fast kernels and candle's own operators on the golden input.
    pub difference: f64,
}

/// A model as it was trained, all of it understood.
#[derive(Debug)]
struct Trained {
    /// Its own name.
    name: String,
    /// Package and configuration: `nnU-Net v2, 3d_fullres`.
    origin: String,
    /// Grid, normalisation and architecture.
    configuration: Configuration,
    /// One network's tensors a member.
    members: Vec<BTreeMap<String, Tensor>>,
    /// How the members' answers become one.
    ensemble: Ensemble,
    /// What the outputs are.
    activation: Activation,
    /// Labels, or regions in the order in which they are painted.
    labels: Vec<Label>,
    /// Axes of the network's grid over which test images were allowed to be mirrored.
    mirror_axes: Vec<usize>,
    /// Sets of labels of which, one after the other, only the largest component is kept.
    keep_largest: Vec<Vec<u8>>,
    /// Earlier stages of a cascade, the first one first.
    stages: Vec<Trained>,
    /// Lines of the card: what, and how it is.
    facts: Vec<(String, String)>,
}

/// Imports a model.
///
/// # Errors
/// Says what is not understood, damaged, or does not fit; then nothing was written.
pub fn import(request: &Request) -> Result<Imported, ImportError> {
    let path = &request.path;
    let has = |name: &str| path.join(name).is_file();
    let bundle =
        |folder: &Path| monai::read(folder, request.checkpoint.as_deref(), request.painted.as_deref());
    let ordered = || match &request.painted {
        Some(_) => Err(ImportError::damaged(
            "--painted",
            "only the outputs of a MONAI bundle have no order of their own; leave it out",
        )),
        None => Ok(()),
    };
    if has("plans.json") {
        ordered()?;
        let trained = nnunet::read(path, request.checkpoint.as_deref())?;
        return folder::write(request, trained);
    }
    if path
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("zip"))
    {
        return monai::unpacked(path, &request.out, |folder| {
            folder::write(request, bundle(folder)?)
        });
    }
    if monai::is_bundle(path) {
        return folder::write(request, bundle(path)?);
    }
    if blast::is_blast(path) {
        ordered()?;
        return folder::write(request, blast::read(path)?);
    }
    let what = if !path.is_dir() {
        "it is not a folder, nor a zip of a MONAI bundle; unpack other archives first".to_owned()
    } else if has("plan.json") {
        "it is one of ictus's own, which need no import (`--models-dir`)".to_owned()
    } else {
        let inner = results_inside(path);
        if inner.is_empty() {
            "it holds no plans.json (an nnU-Net v2 results folder has one beside its folds)".to_owned()
        } else {
            format!("it holds several; choose one of {}", inner.join(", "))
        }
    };
    Err(ImportError::Unknown {
        path: path.display().to_string(),
        what,
    })
}

/// The names of the results folders in a dataset's folder.
fn results_inside(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("plans.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
