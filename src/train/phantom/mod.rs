//! Synthetic non-contrast head CT: a seed and a geometry → HU, the mask of what bled, and the series as DICOM.
//!
//! A [`Head`] is a set of drawn parameters; anatomy is a function of a point, so that any slice of any stack can be rendered alone, thick slices by averaging over their thickness.
//! The same seed gives the same bytes. Heads are not mirror images of themselves, and a lesion's side is the patient's own, so that a flip shows.
//! It is no atlas: shapes are analytic caricatures with the right materials in the right places, and no patient's data went into it.
//! Ranges of all parameters: [`Range`].

mod anatomy;
mod arteries;
mod base;
mod brain;
mod dicom;
mod geometry;
mod infarct;
mod lesion;
#[cfg(test)]
mod midline_tests;
mod noise;
mod past;
mod range;
mod render;
mod scanner;
mod skull;
#[cfg(test)]
mod tests;
mod truth;
mod veins;
#[cfg(test)]
mod vessel_tests;
mod vessels;

pub use dicom::write_dicom;
#[cfg(test)]
pub(in crate::train) use geometry::coarse;
pub use geometry::{GeometryKind, HEAD_CENTER_MM, geometry, training_slabs, training_stack};
pub use past::Stratum;
pub use range::Range;
pub use truth::write_truth;

use crate::domain::failure::FailureClass;
use crate::domain::finding::Side;
use crate::domain::geometry::{Vec3, add};
use crate::domain::volume::{Geometry, Volume};
use anatomy::Anatomy;
use rayon::prelude::*;
use scanner::Scanner;
use std::path::PathBuf;

/// What is wrong with the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that bled; old and harmless things may be there.
    Normal,
    /// One to three fresh haemorrhages.
    Haemorrhage,
    /// A closed artery and the fresh infarct behind it, without contrast agent.
    Infarct,
    /// What [`Kind::Infarct`] was before it: drawn arteries, all open, without contrast agent.
    Open,
    /// CT angiography with every artery open.
    Cta,
    /// CT angiography with one artery closed.
    Occlusion,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Normal,
        Self::Haemorrhage,
        Self::Infarct,
        Self::Open,
        Self::Cta,
        Self::Occlusion,
    ];

    /// Its name on the command line and in `truth.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Haemorrhage => "haemorrhage",
            Self::Infarct => "infarct",
            Self::Open => "open",
            Self::Cta => "cta",
            Self::Occlusion => "occlusion",
        }
    }

    /// Whether contrast agent was given.
    #[must_use]
    pub fn contrast(self) -> bool {
        matches!(self, Self::Cta | Self::Occlusion)
    }
}

/// Which artery is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// The end of the internal carotid, with the first of M1 and A1.
    IcaTerminus,
    /// The middle cerebral before it divides.
    M1,
    /// A trunk of the middle cerebral over the insula.
    M2,
    /// The basilar.
    Basilar,
}

impl Site {
    /// Every site.
    pub const ALL: [Self; 4] = [Self::IcaTerminus, Self::M1, Self::M2, Self::Basilar];

    /// Its name in `truth.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IcaTerminus => "ica_terminus",
            Self::M1 => "m1",
            Self::M2 => "m2",
            Self::Basilar => "basilar",
        }
    }
}

/// A closed artery as it truly is.
#[derive(Debug, Clone, PartialEq)]
pub struct Occlusion {
    /// Which artery.
    pub site: Site,
    /// The patient's own side; the basilar is on the midline.
    pub side: Side,
    /// Where the lumen ends, LPS mm.
    pub point_mm: Vec3,
    /// The middle line of the clot in the large arteries, LPS mm.
    pub clot_mm: Vec<Vec3>,
    /// How well the branches behind it are refilled, 0 to 1.
    pub collaterals: f32,
    /// Whether the clot can be told from flowing blood by its density; null with contrast agent.
    pub dense: Option<bool>,
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
    /// Brain tissue of a fresh infarct.
    Infarct = 6,
    /// Clot in an artery.
    Thrombus = 7,
}

impl Class {
    /// The kinds of bleed, in the order of their values from 1.
    pub const BLEEDS: [Self; 5] = [
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
            Self::Infarct => "infarct",
            Self::Thrombus => "thrombus",
        }
    }
}

/// A lesion as far as it lies in the rendered slices.
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
    /// The lesions that have voxels in this stack.
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
            scanner: if kind.contrast() {
                Scanner::draw(seed, range.table()).thin(range.table())
            } else {
                Scanner::draw(seed, range.table())
            },
        }
    }

    /// The same head in slices as thin and noisy as those of CT angiography.
    #[must_use]
    pub fn scanned_thin(mut self) -> Self {
        self.scanner = self.scanner.thin(self.range.table());
        self
    }

    /// The same head in voxels that are means of a scanner's: with so large a share of the noise.
    #[must_use]
    pub fn averaged(mut self, share: f32) -> Self {
        self.scanner = self.scanner.with_noise(share);
        self
    }

    /// The artery that is closed, if one is.
    #[must_use]
    pub fn occlusion(&self) -> Option<Occlusion> {
        let closure = self.anatomy.vessels.as_ref()?.closure.as_ref()?;
        let place = |p| add(HEAD_CENTER_MM, self.anatomy.to_lps(p).map(f64::from));
        Some(Occlusion {
            site: closure.site,
            side: match closure.side {
                s if s > 0.0 => Side::Left,
                s if s < 0.0 => Side::Right,
                _ => Side::Midline,
            },
            point_mm: place(closure.at),
            clot_mm: closure.clot.iter().map(|p| place(*p)).collect(),
            collaterals: closure.collaterals,
            dense: (!self.kind.contrast()).then_some(closure.dense),
        })
    }

    /// How far the septum pellucidum above the foramina of Monro lies to the patient's left of the head's own midsagittal plane, mm.
    #[must_use]
    pub fn midline_shift_mm(&self) -> f64 {
        f64::from(self.anatomy.midline_shift_mm())
    }

    /// Where the head's axes lie: its origin, and the directions to its left, back and vertex, LPS mm.
    #[must_use]
    pub fn frame(&self) -> (Vec3, [Vec3; 3]) {
        let at = |p| self.anatomy.to_lps(p).map(f64::from);
        let origin = at([0.0; 3]);
        let axis = |p| crate::domain::geometry::sub(at(p), origin);
        (
            add(HEAD_CENTER_MM, origin),
            [
                axis([1.0, 0.0, 0.0]),
                axis([0.0, 1.0, 0.0]),
                axis([0.0, 0.0, 1.0]),
            ],
        )
    }

    /// The class of each lesion.
    #[must_use]
    pub fn classes(&self) -> Vec<Class> {
        self.anatomy.lesions()
    }

    /// What the vessels hold at a point in LPS: 0 nothing, 1 flowing arterial blood, 2 clot, 3 venous blood.
    #[must_use]
    pub fn vessel_at(&self, lps_mm: Vec3) -> u8 {
        self.anatomy.vessel_at(lps_mm)
    }

    /// The region of ASPECTS that each voxel's centre lies in: its place in [`crate::domain::aspects::Region::ALL`] from 1, 0 outside of all.
    #[must_use]
    pub fn aspects(&self, geometry: &Geometry) -> Volume<u8> {
        at_centres(geometry, |place| {
            self.anatomy
                .aspects_at(place)
                .map_or(0, |region| region as u8 + 1)
        })
    }

    /// The artery that contrast agent fills at each voxel's centre: its place in [`crate::domain::artery::Artery::ALL`] from 1, 0 outside of all.
    #[must_use]
    pub fn arteries(&self, geometry: &Geometry) -> Volume<u8> {
        at_centres(geometry, |place| {
            self.anatomy.artery_at(place).map_or(0, |artery| artery as u8 + 1)
        })
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

/// A value for the centre of each voxel.
fn at_centres(geometry: &Geometry, of: impl Fn(Vec3) -> u8 + Sync) -> Volume<u8> {
    let (len, columns) = (geometry.slice_len(), geometry.columns);
    let data = (0..geometry.len())
        .into_par_iter()
        .map(|v| of(geometry.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64)))
        .collect();
    Volume {
        geometry: geometry.clone(),
        data,
    }
}
