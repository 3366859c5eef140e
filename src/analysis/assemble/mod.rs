//! Stage 1: DICOM instances of one study, or one NIfTI volume → one [`Volume`] in HU.
//!
//! One series (or one stack of it) is chosen for the trigger of a model, its slices are ordered along their normal, and stored values become HU; why each other series was not chosen stands beside it.
//! Gantry tilt and uneven steps are kept as they are, and named in the warnings.
//! What cannot be placed or whose HU are in doubt is refused with a reason code; nothing is resampled, repaired or averaged.
//!
//! Source: design.md ("Geometry", "HU", "Which series", "Identity"); PS3.3 sections C.7.6.2, C.8.2.1 and C.11.1.

mod content;
mod frames;
mod hu;
mod identity;
mod kernel;
mod nifti;
mod select;
mod stack;
mod tilt;

pub use content::foreign_to;
pub use nifti::{Values, from_nifti};

use crate::{
    dicom::instance::Instance,
    domain::{
        failure::FailureClass,
        finding::{Refusal, SeriesChoice},
        phi::Redacted,
        plan::Trigger,
        volume::Volume,
    },
};

/// The volume to analyse and how it was come by.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// HU, ordered along the normal.
    pub volume: Volume<f32>,
    /// Of each plane, the index of its instance in the input.
    pub instances: Vec<usize>,
    /// Every series of the input: chosen or not, and why.
    pub series: Vec<SeriesChoice>,
    /// What a reader should know of the chosen series: `gantry_tilt`, `uneven_spacing`, `overlap`, `partial_head`, …
    pub warnings: Vec<Refusal>,
}

/// Why there is no volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// No series can be analysed; each refusal has its reason code.
    #[error("no series can be analysed: {}", texts(refusals))]
    Refused {
        /// Every series of the input, and why it was not chosen.
        series: Vec<SeriesChoice>,
        /// Why, with reason codes; never empty.
        refusals: Vec<Refusal>,
    },
    /// The bytes are not a NIfTI-1 volume that can be read.
    #[error("the NIfTI file cannot be read")]
    Nifti {
        /// What the reader said.
        #[source]
        source: Redacted,
    },
}

impl AssembleError {
    /// Always the input's fault.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

fn texts(refusals: &[Refusal]) -> String {
    refusals
        .iter()
        .map(|r| format!("{} ({})", r.text, r.code))
        .collect::<Vec<_>>()
        .join("; ")
}

fn refusal(code: &str, text: impl Into<String>) -> Refusal {
    Refusal {
        code: code.to_owned(),
        text: text.into(),
    }
}

/// Chooses a series for a model and builds its volume.
///
/// The best candidate by its header is decoded first; the next one only where the pixels of the best contradict its header.
///
/// # Errors
/// [`AssembleError::Refused`] when no series fits the trigger or none can be placed.
pub fn assemble(instances: &[Instance], trigger: &Trigger) -> Result<Assembled, AssembleError> {
    let mut selection = select::select(instances, trigger);
    while let Some(candidate) = selection.next_candidate() {
        match hu::volume(instances, &candidate.stack).and_then(|volume| {
            let seen = content::check(&volume, trigger, candidate.has_contrast_agent)?;
            Ok((volume, seen))
        }) {
            Ok((volume, seen)) => {
                let warnings = [candidate.warnings.clone(), seen].concat();
                let instances = candidate.stack.instances.clone();
                let series = selection.choose(&candidate);
                return Ok(Assembled {
                    volume,
                    instances,
                    series,
                    warnings,
                });
            }
            Err(refusals) => selection.reject(&candidate, refusals),
        }
    }
    let (series, refusals) = selection.into_refusals();
    Err(AssembleError::Refused { series, refusals })
}
