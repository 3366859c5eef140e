//! Stage 3: network input → the logits of every member, on the network's grid.
//!
//! One thread owns the device; callers hand it tiles through a bounded queue and so wait when it is busy.

pub mod bundle;
pub mod engine;
pub mod sliding_window;
mod valid;
pub mod volume;

use crate::domain::{
    failure::FailureClass,
    network::{Control, Members, NetworkInput},
    phi::Redacted,
};
pub use engine::Engine;

/// Why there are no logits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// Somebody asked to stop.
    #[error("the analysis was cancelled")]
    Cancelled,
    /// The model's folder is not what it should be.
    #[error("model {id}: {what}")]
    Model {
        /// The model's id.
        id: String,
        /// What was found and expected.
        what: String,
    },
    /// No model of that name.
    #[error("no model is called {0:?}; `ictus model list` names those that are there")]
    Unknown(String),
    /// A file of a model cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The device was asked for and is not there.
    #[error("{0}")]
    Device(String),
    /// The tensor library failed.
    #[error("the network failed")]
    Network(#[source] Redacted),
    /// The device thread is gone.
    #[error("the device thread has stopped; restart the server")]
    Stopped,
}

impl InferError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Cancelled | Self::Unknown(_) => FailureClass::Input,
            Self::Read { .. } | Self::Device(_) | Self::Stopped => FailureClass::Transient,
            Self::Model { .. } | Self::Network(_) => FailureClass::Internal,
        }
    }

    /// Memory that a GPU has not got may be free again later; smaller batches would round otherwise, and are not tried.
    fn network(error: &candle_core::Error) -> Self {
        if crate::nn::is_out_of_memory(error) {
            return Self::Device(
                "the GPU's memory is too small for what runs on it; end what else uses it, or use --device cpu".into(),
            );
        }
        Self::Network(crate::domain::phi::redact(error))
    }
}

/// Voxels that a batch of small tiles has at most: enough that cutting the work and reading the weights cost nothing beside it.
const BATCH: usize = 1 << 18;

/// How many inputs of `voxels` make a batch; each one's answer is the same, whatever stands beside it.
fn batch_of(voxels: usize) -> usize {
    (BATCH / voxels.max(1)).max(1)
}

/// Logits of all slices and members of one model.
///
/// # Errors
/// [`InferError::Cancelled`] between tiles, or what the network said.
pub fn infer(
    engine: &Engine,
    model: &bundle::Model,
    input: &NetworkInput,
    control: &dyn Control,
) -> Result<Members, InferError> {
    let plan = &model.plan;
    let &[patch_rows, patch_columns] = plan.configuration.patch_size.as_slice() else {
        let what = format!(
            "patch_size has {} axes, this build runs 2",
            plan.configuration.patch_size.len()
        );
        return Err(InferError::Model {
            id: plan.id.clone(),
            what,
        });
    };
    let window = sliding_window::Window::new(
        input.shape,
        [patch_rows, patch_columns],
        plan.configuration.tile_step_size,
    );
    let classes = plan.configuration.architecture.num_classes();
    let total = input.slices.len() * plan.members;
    let mut slices = Vec::with_capacity(input.slices.len());
    for images in input
        .slices
        .chunks(batch_of(window.tiles() * patch_rows * patch_columns))
    {
        let cut = images
            .iter()
            .map(|image| window.cut(image, input.channels, input.outside));
        let tiles = cut.collect::<Vec<_>>().concat();
        let dims = vec![
            images.len() * window.tiles(),
            input.channels,
            patch_rows,
            patch_columns,
        ];
        let mut members = vec![Vec::with_capacity(plan.members); images.len()];
        for member in 0..plan.members {
            if control.cancelled() {
                return Err(InferError::Cancelled);
            }
            let logits = engine.forward(&plan.id, member, tiles.clone(), dims.clone())?;
            for (members, logits) in members.iter_mut().zip(logits.chunks(logits.len() / images.len())) {
                members.push(window.merge(logits, classes));
            }
            control.progress(slices.len() * plan.members + (member + 1) * images.len(), total);
        }
        slices.extend(members);
    }
    Ok(Members {
        classes,
        shape: input.shape,
        slices,
    })
}
