//! Where cases come from: phantoms by seed, or a folder in nnU-Net's raw layout.
//!
//! Of phantoms every second one bleeds, and the stacks take turns: as scanned, even, tilted, uneven, oblique, thin.
//! A data set has `imagesTs` with `labelsTs` (or `imagesTr` with `labelsTr`), and `dataset.json` that names the labels.

use super::{
    super::{
        TrainError,
        labelled::{Case, Description, Files, files},
        phantom::{Class, GeometryKind, Head, Kind, Range, Rendered, geometry},
        recipe,
    },
    aspects::AspectsTruth,
    judge::{Subject, Truth},
};
use crate::{
    analysis::{Scan, assemble::Values, postprocess::aspects::read as read_aspects},
    domain::{
        calibration::Cases,
        geometry::{add, dot, scale, sub},
        midsagittal::MidsagittalPlane,
        plan::Plan,
        volume::{Geometry, SlicePlane},
        volume_trace::Turn,
    },
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path};

/// The question of plans that are judged on infarcts rather than bleeds.
const INFARCT: &str = "infarct";

/// Step of the thin stacks, mm: those that scanners reconstruct beside the thick ones.
const THIN_MM: f64 = 2.0;
/// What the model is judged on.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Phantoms of the evaluation ranges, with consecutive seeds.
    Phantoms {
        /// Seed of the first.
        first_seed: u64,
        /// How many.
        count: usize,
    },
    /// Scans with labels.
    Dataset(Dataset),
}

/// Scans with labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// What its `dataset.json` says.
    pub description: Description,
    /// The cases, by name.
    pub cases: Vec<Files>,
}

/// A case ready to be looked at.
#[derive(Debug)]
pub struct Drawn {
    /// Which.
    pub subject: Subject,
    /// Its images.
    pub scan: Scan,
    /// What is true of it.
    pub truth: Truth,
}

impl Source {
    /// Number of cases.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Phantoms { count, .. } => *count,
            Self::Dataset(dataset) => dataset.cases.len(),
        }
    }

    /// Names of the classes of the truth, by value.
    #[must_use]
    pub fn names(&self) -> BTreeMap<u8, String> {
        match self {
            Self::Phantoms { .. } => (1..).zip(Class::BLEEDS.map(recipe::name)).collect(),
            Self::Dataset(dataset) => dataset.description.labels.clone(),
        }
    }

    /// In few words: what a run that goes on must have in common with the one that began.
    ///
    /// # Errors
    /// When a file is not there.
    pub fn description(&self) -> Result<Cases, TrainError> {
        match self {
            Self::Phantoms { first_seed, count } => Ok(Cases::Phantoms {
                first_seed: *first_seed,
                count: *count,
            }),
            Self::Dataset(dataset) => {
                let mut hash = Sha256::new();
                for (value, name) in &dataset.description.labels {
                    hash.update(format!("{value}\0{name}\0"));
                }
                for case in &dataset.cases {
                    hash.update(format!("{}\0", case.name));
                    // A mask that was drawn anew may have as many bytes.
                    for path in files(&case.labels).map_err(|fault| TrainError::Dataset(vec![fault]))? {
                        hash.update(fs::read(&path).map_err(|e| TrainError::file(&path, e))?);
                    }
                    for path in case.all()? {
                        let size = fs::metadata(&path).map_err(|e| TrainError::file(&path, e))?.len();
                        hash.update(size.to_le_bytes());
                    }
                }
                Ok(Cases::Dataset {
                    name: dataset.description.name.clone(),
                    count: dataset.cases.len(),
                    digest: hex::encode(hash.finalize()),
                })
            }
        }
    }

    /// Makes or reads case `index`.
    ///
    /// # Errors
    /// When a file cannot be read or does not fit the case.
    pub fn draw(&self, index: usize, plan: &Plan) -> Result<Drawn, TrainError> {
        match self {
            Self::Phantoms { first_seed, .. } if plan.question == INFARCT => {
                let kinds = [Kind::Infarct, Kind::Open];
                let mut drawn = phantom(*first_seed, index, kinds, self.names(), plan);
                let infarct = Class::Infarct as u8;
                drawn.truth.names = [(infarct, recipe::name(Class::Infarct))].into();
                // The clot is not what the question is about.
                for class in &mut drawn.truth.classes.data {
                    *class = if *class == infarct { infarct } else { 0 };
                }
                Ok(drawn)
            }
            Self::Phantoms { first_seed, .. } => {
                let kinds = [Kind::Haemorrhage, Kind::Normal];
                Ok(phantom(*first_seed, index, kinds, self.names(), plan))
            }
            Self::Dataset(dataset) => read(&dataset.description, &dataset.cases[index], plan),
        }
    }
}

fn phantom(
    first_seed: u64,
    index: usize,
    [struck, spared]: [Kind; 2],
    names: BTreeMap<u8, String>,
    plan: &Plan,
) -> Drawn {
    let stacks = [
        Some(GeometryKind::Scanner),
        Some(GeometryKind::Even),
        Some(GeometryKind::Tilted),
        Some(GeometryKind::Uneven),
        Some(GeometryKind::Oblique),
        None,
    ];
    let seed = first_seed + index as u64;
    let kind = if index.is_multiple_of(2) { struck } else { spared };
    let (stack, grid) = match stacks[index / 2 % stacks.len()] {
        Some(stack) => (stack.name(), geometry(stack, seed, Range::Evaluation)),
        None => (
            "thin",
            thin(geometry(GeometryKind::Even, seed, Range::Evaluation)),
        ),
    };
    let head = Head::new(seed, kind, Range::Evaluation);
    let rendered = head.render(&grid);
    let aspects = plan.tells_aspects().then(|| aspects(&head, &rendered));
    Drawn {
        subject: Subject {
            name: seed.to_string(),
            seed: Some(seed),
            kind: kind.name().into(),
            stack: stack.into(),
            strata: head.strata().iter().map(|s| s.name().to_owned()).collect(),
        },
        scan: Scan {
            channels: vec![rendered.hu],
            turn: Turn::DICOM,
        },
        truth: Truth {
            aspects,
            classes: rendered.truth,
            names,
            cavity: Some(rendered.brain),
            midline_left_mm: Some(head.midline_shift_mm()),
        },
    }
}

/// An even stack, cut into thin slices from its first to its last plane.
fn thin(mut even: Geometry) -> Geometry {
    let normal = even.normal();
    if let [first, .., last] = even.planes.as_slice() {
        let (origin, height) = (first.origin_mm, dot(sub(last.origin_mm, first.origin_mm), normal));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a hundred slices"
        )]
        let slices = (height / THIN_MM) as u32 + 1;
        even.planes = (0..slices)
            .map(|s| SlicePlane {
                origin_mm: add(origin, scale(normal, THIN_MM * f64::from(s))),
                thickness_mm: THIN_MM,
            })
            .collect();
    }
    even
}

/// The regions of ASPECTS as the phantom has them, and its true scores.
fn aspects(head: &Head, rendered: &Rendered) -> AspectsTruth {
    let regions = head.aspects(&rendered.truth.geometry);
    let (origin, [left, ..]) = head.frame();
    let plane = MidsagittalPlane::through(origin, left);
    let infarct = Class::Infarct as u8;
    let (aspects, _) = read_aspects(&regions, &plane, |v| [rendered.truth.data[v] == infarct; 3]);
    AspectsTruth { regions, aspects }
}

impl Dataset {
    /// Lists a data set for a model.
    ///
    /// # Errors
    /// Says which folder, label or channel is missing.
    pub fn open(folder: &Path, plan: &Plan) -> Result<Self, TrainError> {
        let channels = plan.configuration.scans();
        let pair = [("imagesTs", "labelsTs"), ("imagesTr", "labelsTr")]
            .map(|(images, labels)| (folder.join(images), folder.join(labels)))
            .into_iter()
            .find(|(images, labels)| images.is_dir() && labels.is_dir());
        let (images, labels) = pair.ok_or_else(|| {
            TrainError::Mismatch(format!(
                "{} has neither imagesTs with labelsTs nor imagesTr with labelsTr; lay it out as nnU-Net's raw data",
                folder.display()
            ))
        })?;
        let description = Description::read(folder)?;
        if description.channels.len() != channels {
            return Err(TrainError::Mismatch(format!(
                "the model wants {channels} channels a case, dataset.json names {}: {}",
                description.channels.len(),
                description.channels.join(", ")
            )));
        }
        if !description.regions.is_empty() {
            return Err(TrainError::Mismatch(
                "dataset.json has regions that overlap, and what is judged here are lesions, each of one kind; give each label one value, or see the Dice of regions on held-out cases in the validation.json of a model that was trained on them".into(),
            ));
        }
        if description.ignore.is_some() {
            return Err(TrainError::Mismatch(
                "dataset.json has an `ignore` label: what was labelled in part can be trained on, but a finding where nobody labelled would count as false; judge on scans that are labelled throughout, or take `ignore` out of dataset.json if these are".into(),
            ));
        }
        Ok(Self {
            cases: description.cases(&images, &labels, false)?,
            description,
        })
    }
}

fn read(description: &Description, files: &Files, plan: &Plan) -> Result<Drawn, TrainError> {
    let values = if plan.configuration.is_ct() {
        Values::Hu
    } else {
        Values::Any
    };
    // As for training: a network that sees a volume wants it even.
    let as_it_lies = plan.configuration.takes_stacks_as_they_lie();
    let Case {
        scan,
        mut labels,
        resampled,
    } = description
        .open(files, values, as_it_lies)
        .map_err(|what| TrainError::Stage {
            case: files.name.clone(),
            what,
        })?;
    // A value without a name is background.
    for label in &mut labels.data {
        if !description.labels.contains_key(label) {
            *label = 0;
        }
    }
    Ok(Drawn {
        subject: Subject {
            name: files.name.clone(),
            seed: None,
            kind: "unknown".into(),
            stack: if resampled { "file laid evenly" } else { "file" }.into(),
            strata: Vec::new(),
        },
        scan,
        truth: Truth {
            classes: labels,
            names: description.labels.clone(),
            cavity: None,
            midline_left_mm: None,
            aspects: None,
        },
    })
}
