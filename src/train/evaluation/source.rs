//! Where cases come from: phantoms by seed, or a folder in nnU-Net's raw layout.
//!
//! Of phantoms every second one bleeds, and the stacks take turns: as scanned, even, tilted, uneven, oblique, thin.
//! A data set has `imagesTs` with `labelsTs` (or `imagesTr` with `labelsTr`), cases `NAME_0000.nii.gz`, … and `NAME.nii.gz`, and `dataset.json` that names the labels.

use super::{
    super::{
        TrainError,
        phantom::{Class, GeometryKind, Head, Kind, Range, Rendered, geometry},
        recipe,
    },
    aspects::AspectsTruth,
    judge::{Subject, Truth},
};
use crate::{
    analysis::{
        Scan,
        assemble::{Values, from_nifti},
        postprocess::aspects::read as read_aspects,
    },
    domain::{
        calibration::Cases,
        geometry::{add, dot, norm, scale, sub},
        midsagittal::MidsagittalPlane,
        plan::Plan,
        volume::{Geometry, SlicePlane, Volume},
        volume_trace::Turn,
    },
    nifti,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The question of plans that are judged on infarcts rather than bleeds.
const INFARCT: &str = "infarct";

/// Step of the thin stacks, mm: those that scanners reconstruct beside the thick ones.
const THIN_MM: f64 = 2.0;
/// A label map farther from its image than this lies on another grid, mm: affines are 32-bit floats.
const APART_MM: f64 = 0.1;

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
    /// The folder's name.
    pub name: String,
    /// Names of the labels by value, without background.
    pub labels: BTreeMap<u8, String>,
    /// The cases, by name.
    pub cases: Vec<Files>,
}

/// The files of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Files {
    /// Name in the data set.
    pub name: String,
    /// Its channels, in order.
    pub channels: Vec<PathBuf>,
    /// Its label map.
    pub label: PathBuf,
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
            Self::Dataset(dataset) => dataset.labels.clone(),
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
                for (value, name) in &dataset.labels {
                    hash.update(format!("{value}\0{name}\0"));
                }
                for case in &dataset.cases {
                    hash.update(format!("{}\0", case.name));
                    for path in case.channels.iter().chain([&case.label]) {
                        let size = fs::metadata(path).map_err(|e| TrainError::file(path, e))?.len();
                        hash.update(size.to_le_bytes());
                    }
                }
                Ok(Cases::Dataset {
                    name: dataset.name.clone(),
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
            Self::Dataset(dataset) => read(&dataset.cases[index], &dataset.labels, plan),
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
        let mut cases = Vec::new();
        for label in listed(&labels)? {
            let file = label
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let Some((name, end)) = [".nii.gz", ".nii"]
                .iter()
                .find_map(|end| Some((file.strip_suffix(end)?, end)))
            else {
                continue;
            };
            let paths: Vec<PathBuf> = (0..channels)
                .map(|c| images.join(format!("{name}_{c:04}{end}")))
                .collect();
            if let Some(missing) = paths.iter().find(|path| !path.is_file()) {
                return Err(TrainError::Mismatch(format!(
                    "the label map {file} has no image {}; the model wants {channels} a case",
                    missing.display()
                )));
            }
            cases.push(Files {
                name: name.into(),
                channels: paths,
                label,
            });
        }
        if cases.is_empty() {
            return Err(TrainError::Mismatch(format!(
                "{} has no label map (NAME.nii.gz)",
                labels.display()
            )));
        }
        let path = folder.join("dataset.json");
        let json = fs::read(&path).map_err(|e| TrainError::file(&path, e))?;
        Ok(Self {
            name: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            labels: label_names(&json)?,
            cases,
        })
    }
}

/// The labels of `dataset.json`: name and value, as nnU-Net 2 has them, or value and name, as nnU-Net 1 had.
fn label_names(json: &[u8]) -> Result<BTreeMap<u8, String>, TrainError> {
    let wrong = || {
        TrainError::Mismatch(
            "dataset.json has no labels that can be read; expected {\"labels\": {\"background\": 0, \"haemorrhage\": 1}}, one whole number a label"
                .into(),
        )
    };
    let json: serde_json::Value = serde_json::from_slice(json).map_err(|_| wrong())?;
    let labels = json["labels"].as_object().ok_or_else(wrong)?;
    let mut names = BTreeMap::new();
    for (key, value) in labels {
        let (name, number) = match (value.as_u64(), value.as_str()) {
            (Some(number), _) => (key.clone(), u8::try_from(number).ok()),
            (None, Some(name)) => (name.to_owned(), key.parse().ok()),
            (None, None) => return Err(wrong()),
        };
        let number = number.ok_or_else(wrong)?;
        if name == "ignore" {
            return Err(TrainError::Mismatch(
                "dataset.json has an ignore label; what is ignored cannot be judged, so label it or take the cases out"
                    .into(),
            ));
        }
        if number != 0 {
            names.insert(number, name);
        }
    }
    if names.is_empty() { Err(wrong()) } else { Ok(names) }
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let read = fs::read_dir(folder).map_err(|e| TrainError::file(folder, e))?;
    let mut paths = read
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TrainError::file(folder, e))?;
    paths.sort();
    Ok(paths)
}

fn read(files: &Files, labels: &BTreeMap<u8, String>, plan: &Plan) -> Result<Drawn, TrainError> {
    let stage = |what: String| TrainError::Stage {
        case: files.name.clone(),
        what,
    };
    let bytes = |path: &Path| fs::read(path).map_err(|e| TrainError::file(path, e));
    let values = if plan.configuration.is_ct() {
        Values::Hu
    } else {
        Values::Any
    };
    let mut channels = Vec::new();
    let mut reversed = false;
    for (c, path) in files.channels.iter().enumerate() {
        let bytes = bytes(path)?;
        if c == 0 {
            reversed = nifti::read(&bytes)
                .map_err(|e| stage(e.to_string()))?
                .is_reversed();
        }
        channels.push(from_nifti(&bytes, values).map_err(|e| stage(e.to_string()))?);
    }
    let map = from_nifti(&bytes(&files.label)?, Values::Any).map_err(|e| stage(e.to_string()))?;
    let grid = channels[0].geometry.clone();
    if (map.geometry.rows, map.geometry.columns, map.geometry.slices())
        != (grid.rows, grid.columns, grid.slices())
    {
        return Err(stage(format!(
            "the label map has {} slices of {} × {}, the image {} of {} × {}; both need one grid",
            map.geometry.slices(),
            map.geometry.rows,
            map.geometry.columns,
            grid.slices(),
            grid.rows,
            grid.columns
        )));
    }
    let corner = |g: &Geometry, s: usize| g.voxel_to_lps(s, 0.0, 0.0);
    let off = [0, grid.slices() - 1].map(|s| norm(sub(corner(&map.geometry, s), corner(&grid, s))));
    if off.iter().any(|mm| *mm > APART_MM) {
        return Err(stage(format!(
            "the label map lies {:.1} mm from the image; both need one grid",
            off[0].max(off[1])
        )));
    }
    let classes = map
        .data
        .iter()
        .map(|value| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates; what is no label is refused below"
            )]
            let class = value.round() as u8;
            (f32::from(class) == *value).then_some(class)
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| stage("the label map has values that are no whole numbers from 0 to 255".into()))?;
    Ok(Drawn {
        subject: Subject {
            name: files.name.clone(),
            seed: None,
            kind: "unknown".into(),
            stack: "file".into(),
            strata: Vec::new(),
        },
        scan: Scan {
            channels,
            turn: Turn {
                slices: reversed,
                rows: false,
                columns: false,
            },
        },
        truth: Truth {
            classes: Volume {
                // A value without a name is background.
                data: classes
                    .into_iter()
                    .map(|class| if labels.contains_key(&class) { class } else { 0 })
                    .collect(),
                geometry: grid,
            },
            names: labels.clone(),
            cavity: None,
            midline_left_mm: None,
            aspects: None,
        },
    })
}
