//! Offline work, no database: phantoms, training, evaluation.
//!
//! `dataset` draws samples from phantoms, `labelled` reads somebody's labelled scans, `nnunet` draws from them, `loss` says how wrong the network is, `optimizer` moves the parameters, `training` loops and resumes, `evaluation` judges on held-out cases, `calibration` learns from them what scores mean.

pub mod augment;
pub mod calibration;
pub mod dataset;
pub mod evaluation;
pub mod events;
pub mod heads;
pub mod imagenet;
pub mod labelled;
pub mod log;
pub mod loss;
pub mod nnunet;
pub mod occlusion;
pub mod optimizer;
pub mod phantom;
pub mod recipe;
pub mod start;
pub mod training;
pub mod volumes;

use crate::{analysis::infer::InferError, domain::failure::FailureClass, domain::phi::Redacted};

/// Why training or evaluation stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint or plan is not what this run would make.
    #[error("{0}")]
    Mismatch(String),
    /// A dataset that cannot be used.
    #[error("{}", listed(.0))]
    Dataset(Vec<String>),
    /// Somebody asked to stop; the state was saved.
    #[error("stopped after step {step} of {part}; the same command goes on from there")]
    Stopped {
        /// In which part of the training.
        part: String,
        /// Steps of it that are done.
        step: usize,
    },
    /// The loss is no longer a number.
    #[error("the loss of {part} is not finite at step {step}; lower the learning rate")]
    Diverged {
        /// Which part of the training.
        part: String,
        /// At which step.
        step: usize,
    },
    /// The tensor library failed.
    #[error("the network failed")]
    Network(#[source] Redacted),
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] InferError),
    /// A case cannot be read or looked at.
    #[error("case {case} cannot be judged: {what}")]
    Stage {
        /// The phantom's seed, or the name in the data set.
        case: String,
        /// What the stage said.
        what: String,
    },
}

impl TrainError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::File { .. } => FailureClass::Transient,
            Self::Mismatch(_) | Self::Dataset(_) | Self::Stopped { .. } => FailureClass::Input,
            Self::Model(error) => error.class(),
            _ => FailureClass::Internal,
        }
    }

    fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            source,
        }
    }
}

/// Faults that are listed; of more, their number is said.
const MOST_LISTED: usize = 20;

fn listed(faults: &[String]) -> String {
    let shown: Vec<&str> = faults.iter().take(MOST_LISTED).map(String::as_str).collect();
    let more = match faults.len().saturating_sub(MOST_LISTED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    format!(
        "the dataset cannot be used as it is:\n  {}{more}",
        shown.join("\n  ")
    )
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(crate::domain::phi::redact(&error))
    }
}
