//! Offline work, no database: phantoms, training, evaluation.
//!
//! `dataset` draws samples, `loss` says how wrong the network is, `optimizer` moves the parameters, `training` loops and resumes, `evaluation` judges on held-out phantoms.

pub mod dataset;
pub mod evaluation;
pub mod loss;
pub mod occlusion;
pub mod optimizer;
pub mod phantom;
pub mod recipe;
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
            Self::Mismatch(_) => FailureClass::Input,
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

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(crate::domain::phi::redact(&error))
    }
}
