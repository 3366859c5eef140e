//! Synthetic non-contrast head CT: a seed and a geometry → HU, the mask of what bled, and the series as DICOM.
//!
//! A [`Head`] is a set of drawn parameters; anatomy is a function of a point, so that any slice of any stack can be rendered alone, thick slices by averaging over their thickness.
//! The same seed gives the same bytes. Heads are not mirror images of themselves, and a lesion's side is the patient's own, so that a flip shows.
//! It is no atlas: shapes are analytic caricatures with the right materials in the right places, and no patient's data went into it.
//! Ranges of all parameters: [`Range`].

mod anatomy;
mod base;
mod brain;
mod dicom;
mod geometry;
mod lesion;
mod noise;
mod past;
mod range;
mod render;
mod scanner;
mod skull;
#[cfg(test)]
mod tests;
mod truth;

pub use dicom::write_dicom;
pub use geometry::{GeometryKind, HEAD_CENTER_MM, geometry, training_slabs};
pub use past::Stratum;
pub use range::Range;
pub use truth::write_truth;

use crate::domain::failure::FailureClass;
use crate::domain::finding::Side;
use crate::domain::geometry::Vec3;
use crate::domain::volume::Volume;
use anatomy::Anatomy;
use scanner::Scanner;
use std::path::PathBuf;

/// What is wrong with the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that bled; old and harmless things may be there.
    Normal,
    /// One to three fresh haemorrhages.
    Haemorrhage,
}

/// What a voxel of the truth holds; 0 is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Fresh blood within brain tissue.
    Intraparenchymal = 1,
    /// Fresh blood in the ventricles.
    Intraventricular = 2,
    /// Fresh blood in sulci, fissures and cisterns.
    Subarachnoid = 3,
    /// Fresh blood under the dura.
    Subdural = 4,
    /// Fresh blood between dura and bone.
    Epidural = 5,
}

impl Class {
    /// All, in the order of their values from 1.
    pub const ALL: [Self; 5] = [
        Self::Intraparenchymal,
        Self::Intraventricular,
        Self::Subarachnoid,
        Self::Subdural,
        Self::Epidural,
    ];

    /// The name in `truth.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Intraparenchymal => "intraparenchymal",
            Self::Intraventricular => "intraventricular",
            Self::Subarachnoid => "subarachnoid",
            Self::Subdural => "subdural",
            Self::Epidural => "epidural",
        }
    }
}

/// A bleed as far as it lies in the rendered slices.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesion {
    /// What it is.
    pub class: Class,
    /// Voxel sum, by the volume's own rule.
    pub volume_ml: f64,
    /// Centre of mass, LPS mm.
    pub center_mm: Vec3,
    /// The patient's own side, by the head's own midsagittal plane.
    pub side: Side,
}

/// A synthetic head and the scanner it lies in.
#[derive(Debug, Clone)]
pub struct Head {
    seed: u64,
    kind: Kind,
    range: Range,
    anatomy: Anatomy,
    scanner: Scanner,
}

/// A rendered stack.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// HU, with noise and artefacts.
    pub hu: Volume<f32>,
    /// The [`Class`] that fills at least half of the voxel, or 0.
    pub truth: Volume<u8>,
    /// Where at least half of the voxel lies inside the cranial cavity: brain, CSF, dura and blood.
    pub brain: Volume<bool>,
    /// The bleeds that have voxels in this stack.
    pub lesions: Vec<Lesion>,
}

/// Why a phantom could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhantomError {
    /// A file or folder could not be written.
    #[error("{path} could not be written; check that the folder exists, is writable and has space")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A DICOM object could not be built or written.
    #[error("the DICOM file {path} could not be written; check that the folder is writable and has space")]
    Dicom {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stack does not fit the format.
    #[error("a stack of {slices} slices of {rows} × {columns} does not fit; at most 65535 along each axis")]
    TooLarge {
        /// Slices.
        slices: usize,
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
}

impl PhantomError {
    /// How the failure is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Write { .. } | Self::Dicom { .. } => FailureClass::Transient,
            Self::TooLarge { .. } => FailureClass::Input,
        }
    }
}

impl Head {
    /// Draws a head.
    ///
    /// The anatomy depends on `seed` and `range` only: the normal head of a seed is the bleeding one before it bled.
    #[must_use]
    pub fn new(seed: u64, kind: Kind, range: Range) -> Self {
        Self {
            seed,
            kind,
            range,
            anatomy: Anatomy::draw(seed, kind, range.table()),
            scanner: Scanner::draw(seed, range.table()),
        }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What makes it harder to read than a plain one, in the order of [`Stratum::ALL`].
    ///
    /// It depends on `seed` and `range` only; thin and thick slices are the geometry's.
    #[must_use]
    pub fn strata(&self) -> Vec<Stratum> {
        let mut strata = self.anatomy.strata();
        if self.scanner.moving() {
            strata.push(Stratum::Motion);
        }
        strata.sort_by_key(|stratum| *stratum as u8);
        strata
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The table it was drawn from.
    #[must_use]
    pub fn range(&self) -> Range {
        self.range
    }
}
