//! The files of labelled cases, as nnU-Net's raw layout has them → images and the label of each voxel, on one grid.
//!
//! `imagesTr/CASE_0000.nii.gz` is the first channel of a case, `labelsTr/CASE.nii.gz` its labels; `dataset.json` names channels and labels.
//! With `file_ending` `.dcm`, `imagesTr/CASE_0000` is a folder with the series (or `CASE_0000.dcm` a multi-frame CT), and `labelsTr/CASE.dcm` a Segmentation on it, or `labelsTr/CASE` a folder of several; a segment's SegmentLabel is the name of its label.
//! Whatever does not fit is said in words with the case's name, all of it at once: who has 500 cases does not want to hear of one fault a day.

use super::TrainError;
use crate::{
    analysis::{
        Scan,
        assemble::{Values, from_nifti},
        correction::CorrectionError,
        labelled::segmented,
    },
    dicom::{enhanced, instance::Instance},
    domain::{
        geometry::{norm, sub},
        volume::{Geometry, Volume},
        volume_trace::Turn,
    },
    nifti,
};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

/// Distance in mm within which two voxels are the same: affines are 32-bit floats, and programs round them differently.
const SAME_PLACE_MM: f64 = 0.1;
/// Channel names that mean Hounsfield units.
const CT: &str = "ct";
/// What files of DICOM end with.
const DICOM: &str = ".dcm";

/// `dataset.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Name of its folder.
    pub name: String,
    /// What each channel holds.
    pub channels: Vec<String>,
    /// Names of the labels by value, without background.
    pub labels: BTreeMap<u8, String>,
    /// What names of files end with.
    ending: String,
}

/// The files of a case; of DICOM, folders or single files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Its name.
    pub name: String,
    /// One a channel.
    pub images: Vec<PathBuf>,
    /// The labels.
    pub labels: PathBuf,
}

/// A case in memory.
#[derive(Debug, Clone)]
pub struct Case {
    /// The images.
    pub scan: Scan,
    /// The label of each voxel of theirs.
    pub labels: Volume<u8>,
}

#[derive(Deserialize)]
struct Written {
    // Early datasets called them modalities.
    #[serde(alias = "modality")]
    channel_names: Map<String, Value>,
    labels: Map<String, Value>,
    #[serde(default)]
    file_ending: Option<String>,
}

impl Description {
    /// Reads `dataset.json` of a folder.
    ///
    /// # Errors
    /// What is missing or not understood.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join("dataset.json");
        let text = fs::read(&path).map_err(|e| TrainError::file(&path, e))?;
        let one = |what: String| TrainError::Dataset(vec![what]);
        let written: Written = serde_json::from_slice(&text).map_err(|e| {
            one(format!(
                "dataset.json is not understood ({e}); it needs channel_names, labels and file_ending"
            ))
        })?;
        let channels = channels(&written.channel_names).map_err(one)?;
        let ending = written.file_ending.unwrap_or_else(|| ".nii.gz".into());
        if ![".nii.gz", ".nii", DICOM].contains(&&*ending) {
            return Err(one(format!(
                "dataset.json has file_ending {ending:?}; this build reads .nii.gz, .nii and .dcm"
            )));
        }
        if ending == DICOM && (channels.len() != 1 || !is_ct(&channels[0])) {
            return Err(one(format!(
                "dataset.json has file_ending \".dcm\" and the channels {}; of DICOM one channel is read, \"CT\"",
                channels.join(", ")
            )));
        }
        let absolute = fs::canonicalize(folder).map_err(|e| TrainError::file(folder, e))?;
        Ok(Self {
            name: absolute
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            channels,
            labels: labels(&written.labels).map_err(one)?,
            ending,
        })
    }

    /// Finds the cases of a folder of images and one of labels.
    ///
    /// # Errors
    /// All that is missing.
    pub fn cases(&self, images: &Path, labels: &Path) -> Result<Vec<Files>, TrainError> {
        let ending = &*self.ending;
        let mut faults = Vec::new();
        let mut found: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for name in names(images, ending)? {
            match name.rsplit_once('_') {
                Some((case, digits)) if digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    let channel = digits.parse().unwrap_or_default();
                    found.entry(case.to_owned()).or_default().insert(channel);
                }
                _ => faults.push(format!(
                    "{}: expected CASE_0000{ending}, CASE_0001{ending}, … with four digits for the channel",
                    shown(&images.join(format!("{name}{ending}")))
                )),
            }
        }
        let labelled: BTreeSet<String> = names(labels, ending)?.into_iter().collect();
        for (case, numbers) in &found {
            if !numbers.iter().copied().eq(0..self.channels.len()) {
                faults.push(format!(
                    "case {case}: found channels {numbers:?}, dataset.json names {} (0 to {})",
                    self.channels.len(),
                    self.channels.len() - 1
                ));
            }
            if !labelled.contains(case) {
                let missing = labels.join(format!("{case}{ending}"));
                faults.push(format!("case {case}: {} is missing", shown(&missing)));
            }
        }
        for case in labelled.iter().filter(|case| !found.contains_key(*case)) {
            faults.push(format!(
                "case {case}: it has labels and no image {}",
                shown(&images.join(format!("{case}_0000{ending}")))
            ));
        }
        if found.is_empty() {
            faults.push(format!("{} has no file CASE_0000{ending}", shown(images)));
        }
        if !faults.is_empty() {
            return Err(TrainError::Dataset(faults));
        }
        let at = |folder: &Path, name: &str| {
            let as_folder = folder.join(name);
            if ending == DICOM && as_folder.is_dir() {
                as_folder
            } else {
                folder.join(format!("{name}{ending}"))
            }
        };
        let case = |name: String| Files {
            images: (0..self.channels.len())
                .map(|c| at(images, &format!("{name}_{c:04}")))
                .collect(),
            labels: at(labels, &name),
            name,
        };
        Ok(found.into_keys().map(case).collect())
    }

    /// Reads a case as it lies: a label that nobody named is handed on.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn open(&self, case: &Files, values: Values) -> Result<Case, String> {
        if self.is_dicom() {
            self.segmented(case)
        } else {
            volumes(case, values)
        }
    }

    /// Whether its files are DICOM.
    #[must_use]
    pub fn is_dicom(&self) -> bool {
        self.ending == DICOM
    }

    fn segmented(&self, case: &Files) -> Result<Case, String> {
        let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", shown(path)));
        let all = |path: &Path| files(path).map_err(|e| format!("{}: {e}", shown(path)));
        let instances: Vec<Vec<Instance>> = all(&case.images[0])?
            .par_iter()
            .map(|path| {
                let instance = Instance::from_bytes(&read(path)?);
                let instance = instance.map_err(|e| format!("{}: {}", shown(path), whole(&e)))?;
                Ok(enhanced::slices(instance))
            })
            .collect::<Result<_, String>>()?;
        let segmentations: Vec<Vec<u8>> = all(&case.labels)?
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, String>>()?;
        let (image, labels) = segmented(
            instances.into_iter().flatten().collect(),
            &segmentations,
            &self.labels,
        )
        .map_err(|e| match e {
            CorrectionError::Mask(what) => format!("{}: {what}", shown(&case.labels)),
            other => format!("{}: {}", shown(&case.images[0]), whole(&other)),
        })?;
        Ok(Case {
            scan: Scan {
                channels: vec![image],
                turn: Turn::DICOM,
            },
            labels,
        })
    }
}

impl Files {
    /// Every file, those in folders one by one.
    ///
    /// # Errors
    /// When one is not there.
    pub fn all(&self) -> Result<Vec<PathBuf>, TrainError> {
        let paths = self.images.iter().chain([&self.labels]);
        let listed = paths.map(|path| files(path).map_err(|e| TrainError::file(path, e)));
        Ok(listed.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

/// Whether a channel of that name holds Hounsfield units.
pub(super) fn is_ct(channel: &str) -> bool {
    channel.eq_ignore_ascii_case(CT)
}

/// A file as its folder and name: enough to find it.
pub(super) fn shown(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    format!("{}/{}", folder.to_string_lossy(), name.to_string_lossy())
}

/// An error with its causes.
fn whole(error: &dyn Error) -> String {
    let (mut said, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    said
}

/// A file, or those of a folder by name; hidden ones do not count.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes()[0] == b'.');
    files.retain(|path| path.is_file() && !is_hidden(path));
    files.sort();
    Ok(files)
}

fn volumes(case: &Files, values: Values) -> Result<Case, String> {
    let bytes = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", shown(path)));
    let mut channels: Vec<Volume<f32>> = Vec::with_capacity(case.images.len());
    let mut turn = Turn::default();
    for (c, path) in case.images.iter().enumerate() {
        let file = bytes(path)?;
        let volume = from_nifti(&file, values).map_err(|e| format!("{}: {}", shown(path), whole(&e)))?;
        if c == 0 {
            let image = nifti::read(&file).map_err(|e| format!("{}: {e}", shown(path)))?;
            turn.slices = image.is_reversed();
        } else if volume.geometry != channels[0].geometry {
            return Err(format!(
                "{}: it lies on another grid than channel 0; resample it to that grid",
                shown(path)
            ));
        }
        channels.push(volume);
    }
    let path = &case.labels;
    let volume =
        from_nifti(&bytes(path)?, Values::Any).map_err(|e| format!("{}: {}", shown(path), whole(&e)))?;
    let (grid, of_labels) = (&channels[0].geometry, &volume.geometry);
    let size = |g: &Geometry| [g.slices(), g.rows, g.columns];
    if size(of_labels) != size(grid) {
        return Err(format!(
            "{}: labels of {:?} voxels lie on another grid than the image of {:?}; both must have one size and one affine",
            shown(path),
            size(of_labels),
            size(grid)
        ));
    }
    let apart_mm = apart_mm(of_labels, grid);
    if apart_mm > SAME_PLACE_MM {
        return Err(format!(
            "{}: labels lie on another grid, up to {apart_mm:.1} mm from the image; both must have one size and one affine",
            shown(path)
        ));
    }
    let data = whole_numbers(&volume.data).map_err(|e| format!("{}: {e}", shown(path)))?;
    Ok(Case {
        labels: Volume {
            geometry: grid.clone(),
            data,
        },
        scan: Scan { channels, turn },
    })
}

fn channels(named: &Map<String, Value>) -> Result<Vec<String>, String> {
    let name = |i: usize| named.get(&i.to_string())?.as_str().map(str::to_owned);
    let channels: Option<Vec<String>> = (0..named.len()).map(name).collect();
    channels
        .filter(|c| !c.is_empty())
        .ok_or_else(|| "dataset.json: channel_names does not name channels \"0\", \"1\", … in a row".into())
}

/// Names of labels by value, without the background, which is 0: name and value, as nnU-Net 2 has them, or value and name, as nnU-Net 1 had.
fn labels(named: &Map<String, Value>) -> Result<BTreeMap<u8, String>, String> {
    let mut by_value: BTreeMap<u8, String> = BTreeMap::new();
    for (key, value) in named {
        if value.is_array() {
            return Err(format!(
                "dataset.json: label {key:?} is a region of several values, which is not built; give each label a value of its own"
            ));
        }
        let (name, number) = match value.as_str() {
            Some(name) => (name, key.parse().ok()),
            None => (&**key, value.as_u64().and_then(|v| u8::try_from(v).ok())),
        };
        let number = number.ok_or_else(|| {
            format!("dataset.json: label {key:?} is {value}, expected a number from 0 to 255")
        })?;
        if name == "ignore" {
            return Err("dataset.json has an `ignore` label (sparse annotations), which is not built; label every voxel".into());
        }
        if let Some(other) = by_value.insert(number, name.to_owned()) {
            return Err(format!(
                "dataset.json: labels {other:?} and {name:?} both have the value {number}"
            ));
        }
    }
    let background = by_value.remove(&0).unwrap_or_default();
    if background != "background" || by_value.is_empty() {
        return Err(format!(
            "dataset.json: labels have the values {:?}, expected \"background\" for 0 and others for 1, 2, …",
            named.values().collect::<Vec<_>>()
        ));
    }
    Ok(by_value)
}

/// Names in a folder that have the ending, without it, and of DICOM those of folders; hidden ones do not count.
fn names(folder: &Path, ending: &str) -> Result<Vec<String>, TrainError> {
    let entries = fs::read_dir(folder).map_err(|e| TrainError::file(folder, e))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| TrainError::file(folder, e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_series = ending == DICOM && entry.path().is_dir();
        let stem = if is_series {
            Some(&*name)
        } else {
            name.strip_suffix(ending)
        };
        if let Some(stem) = stem.filter(|n| !n.starts_with('.')) {
            names.push(stem.to_owned());
        }
    }
    Ok(names)
}

/// The farthest that a corner of one grid lies from that of the other of the same size, mm.
fn apart_mm(a: &Geometry, b: &Geometry) -> f64 {
    let (last, row, column) = (a.slices() - 1, a.rows as f64 - 1.0, a.columns as f64 - 1.0);
    let corners = [(0, 0.0, 0.0), (0, row, 0.0), (0, 0.0, column), (last, 0.0, 0.0)];
    let apart = corners.map(|(k, j, i)| norm(sub(a.voxel_to_lps(k, j, i), b.voxel_to_lps(k, j, i))));
    apart.into_iter().fold(0.0, f64::max)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be whole and from 0 to 255"
)]
fn whole_numbers(data: &[f32]) -> Result<Vec<u8>, String> {
    let is_label = |v: &f32| v.fract() == 0.0 && (0.0..=255.0).contains(v);
    if let Some(strange) = data.iter().find(|v| !is_label(v)) {
        return Err(format!(
            "found the value {strange}, expected whole numbers from 0 to 255: labels must not be interpolated"
        ));
    }
    Ok(data.iter().map(|v| *v as u8).collect())
}
