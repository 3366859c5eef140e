//! A folder in nnU-Net's raw layout → its cases, each read and checked.
//!
//! `dataset.json` names channels and labels; `imagesTr/CASE_0000.nii.gz` is the first channel of a case, `labelsTr/CASE.nii.gz` its labels.
//! Whatever does not fit is said in words with the case's name, all of it at once: who has 500 cases does not want to hear of one fault a day.

use crate::{
    analysis::assemble::{Values, from_nifti},
    domain::{
        volume::{Geometry, Volume},
        volume_trace::Turn,
    },
    nifti,
    train::TrainError,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Distance in mm within which two voxels are the same: programs round affines differently.
const SAME_PLACE_MM: f64 = 0.05;
/// Channel names that mean Hounsfield units.
const CT: &str = "ct";

/// A dataset whose files are there; what is in them, `read` says.
#[derive(Debug, Clone, PartialEq)]
pub struct RawDataset {
    /// Name of its folder.
    pub name: String,
    /// What each channel holds.
    pub channels: Vec<String>,
    /// Names of labels 1, 2, ….
    pub labels: Vec<String>,
    /// Its cases, by name.
    pub cases: Vec<RawCase>,
}

/// The files of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawCase {
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
    /// The channels, on one grid.
    pub channels: Vec<Volume<f32>>,
    /// How they lie in the array of the file.
    pub turn: Turn,
    /// The label of each voxel.
    pub labels: Vec<u8>,
}

#[derive(Deserialize)]
struct Description {
    // Early datasets called them modalities.
    #[serde(alias = "modality")]
    channel_names: Map<String, Value>,
    labels: Map<String, Value>,
    #[serde(default)]
    file_ending: Option<String>,
}

impl RawDataset {
    /// Finds the cases of a folder.
    ///
    /// # Errors
    /// All that is missing or not understood.
    pub fn open(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join("dataset.json");
        let text = fs::read(&path).map_err(|e| TrainError::file(&path, e))?;
        let one = |what: String| TrainError::Dataset(vec![what]);
        let description: Description = serde_json::from_slice(&text).map_err(|e| {
            one(format!(
                "dataset.json is not understood ({e}); it needs channel_names, labels and file_ending"
            ))
        })?;
        let channels = channels(&description.channel_names).map_err(one)?;
        let labels = labels(&description.labels).map_err(one)?;
        let ending = description.file_ending.unwrap_or_else(|| ".nii.gz".into());
        if ending != ".nii.gz" && ending != ".nii" {
            return Err(one(format!(
                "dataset.json has file_ending {ending:?}; this build reads .nii.gz and .nii"
            )));
        }
        let cases = cases(folder, &ending, channels.len())?;
        let absolute = fs::canonicalize(folder).map_err(|e| TrainError::file(folder, e))?;
        let name = absolute.file_name().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            channels,
            labels,
            cases,
        })
    }

    /// Whether a channel holds Hounsfield units.
    #[must_use]
    pub fn is_ct(&self, channel: usize) -> bool {
        self.channels[channel].eq_ignore_ascii_case(CT)
    }

    /// Reads and checks a case.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(&self, case: &RawCase) -> Result<Case, String> {
        let bytes = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", shown(path)));
        // As prediction will: only a model of CT alone is held to HU.
        let values = if (0..self.channels.len()).all(|c| self.is_ct(c)) {
            Values::Hu
        } else {
            Values::Any
        };
        let mut channels: Vec<Volume<f32>> = Vec::with_capacity(case.images.len());
        let mut turn = Turn::default();
        for (c, path) in case.images.iter().enumerate() {
            let file = bytes(path)?;
            let volume = from_nifti(&file, values).map_err(|e| format!("{}: {e}", shown(path)))?;
            if c == 0 {
                let image = nifti::read(&file).map_err(|e| format!("{}: {e}", shown(path)))?;
                turn.slices = image.is_reversed();
                if volume.geometry.regular_step_mm().is_none() {
                    return Err(format!(
                        "{}: the slices are uneven or sheared; resample it to a regular grid",
                        shown(path)
                    ));
                }
            } else if volume.geometry != channels[0].geometry {
                return Err(format!(
                    "{}: it lies on another grid than channel 0; resample it to that grid",
                    shown(path)
                ));
            }
            channels.push(volume);
        }
        let path = &case.labels;
        let volume = from_nifti(&bytes(path)?, Values::Any).map_err(|e| format!("{}: {e}", shown(path)))?;
        let grid = &channels[0].geometry;
        if !same_grid(&volume.geometry, grid) {
            return Err(format!(
                "{}: labels of {} × {} × {} voxels lie on another grid than the image of {} × {} × {}; both must have one size and one affine",
                shown(path),
                volume.geometry.slices(),
                volume.geometry.rows,
                volume.geometry.columns,
                grid.slices(),
                grid.rows,
                grid.columns,
            ));
        }
        let labels =
            values_of(&volume.data, self.labels.len()).map_err(|e| format!("{}: {e}", shown(path)))?;
        Ok(Case {
            channels,
            turn,
            labels,
        })
    }
}

/// A file as its folder and name: enough to find it.
fn shown(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    format!("{}/{}", folder.to_string_lossy(), name.to_string_lossy())
}

fn channels(named: &Map<String, Value>) -> Result<Vec<String>, String> {
    let name = |i: usize| named.get(&i.to_string())?.as_str().map(str::to_owned);
    let channels: Option<Vec<String>> = (0..named.len()).map(name).collect();
    channels
        .filter(|c| !c.is_empty())
        .ok_or_else(|| "dataset.json: channel_names does not name channels \"0\", \"1\", … in a row".into())
}

/// Names of labels 1, 2, …; the background is 0.
fn labels(named: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut by_value = BTreeMap::new();
    for (name, value) in named {
        if name == "ignore" {
            return Err("dataset.json has an `ignore` label (sparse annotations), which is not built; label every voxel".into());
        }
        if value.is_array() {
            return Err(format!(
                "dataset.json: label {name:?} is a region of several values, which is not built; give each label a value of its own"
            ));
        }
        let value = value.as_u64().and_then(|v| u8::try_from(v).ok()).ok_or_else(|| {
            format!("dataset.json: label {name:?} is {value}, expected a number from 0 to 255")
        })?;
        if let Some(other) = by_value.insert(value, name.clone()) {
            return Err(format!(
                "dataset.json: labels {other:?} and {name:?} both have the value {value}"
            ));
        }
    }
    let background = by_value.remove(&0).unwrap_or_default();
    let in_a_row = (1..=u8::MAX).zip(by_value.keys()).all(|(a, b)| a == *b);
    if background != "background" || by_value.is_empty() || !in_a_row {
        return Err(format!(
            "dataset.json: labels have the values {:?}, expected \"background\" for 0 and others for 1, 2, … in a row",
            named.values().collect::<Vec<_>>()
        ));
    }
    Ok(by_value.into_values().collect())
}

fn cases(folder: &Path, ending: &str, channels: usize) -> Result<Vec<RawCase>, TrainError> {
    let (images, labels) = (folder.join("imagesTr"), folder.join("labelsTr"));
    let mut faults = Vec::new();
    let mut found: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for name in names(&images, ending)? {
        match name.rsplit_once('_') {
            Some((case, digits)) if digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                let channel = digits.parse().unwrap_or_default();
                found.entry(case.to_owned()).or_default().insert(channel);
            }
            _ => faults.push(format!(
                "imagesTr/{name}{ending}: expected CASE_0000{ending}, CASE_0001{ending}, … with four digits for the channel"
            )),
        }
    }
    let labelled: BTreeSet<String> = names(&labels, ending)?.into_iter().collect();
    for (case, numbers) in &found {
        if !numbers.iter().copied().eq(0..channels) {
            faults.push(format!(
                "case {case}: found channels {numbers:?}, dataset.json names {channels} (0 to {})",
                channels - 1
            ));
        }
        if !labelled.contains(case) {
            faults.push(format!("case {case}: labelsTr/{case}{ending} is missing"));
        }
    }
    for case in labelled.iter().filter(|case| !found.contains_key(*case)) {
        faults.push(format!("case {case}: it has labels and no image in imagesTr"));
    }
    if found.is_empty() {
        faults.push(format!("imagesTr has no file CASE_0000{ending}"));
    }
    if !faults.is_empty() {
        return Err(TrainError::Dataset(faults));
    }
    let case = |name: String| RawCase {
        images: (0..channels)
            .map(|c| images.join(format!("{name}_{c:04}{ending}")))
            .collect(),
        labels: labels.join(format!("{name}{ending}")),
        name,
    };
    Ok(found.into_keys().map(case).collect())
}

/// Names in a folder that have the ending, without it; hidden files do not count.
fn names(folder: &Path, ending: &str) -> Result<Vec<String>, TrainError> {
    let entries = fs::read_dir(folder).map_err(|e| TrainError::file(folder, e))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| TrainError::file(folder, e))?.file_name();
        let name = name.to_string_lossy();
        if let Some(stem) = name.strip_suffix(ending).filter(|n| !n.starts_with('.')) {
            names.push(stem.to_owned());
        }
    }
    Ok(names)
}

fn same_grid(a: &Geometry, b: &Geometry) -> bool {
    if (a.slices(), a.rows, a.columns) != (b.slices(), b.rows, b.columns) {
        return false;
    }
    let (last, row, column) = (a.slices() - 1, a.rows as f64 - 1.0, a.columns as f64 - 1.0);
    let corners = [(0, 0.0, 0.0), (0, row, 0.0), (0, 0.0, column), (last, 0.0, 0.0)];
    corners.iter().all(|(k, j, i)| {
        let (p, q) = (a.voxel_to_lps(*k, *j, *i), b.voxel_to_lps(*k, *j, *i));
        p.iter().zip(q).all(|(p, q)| (p - q).abs() <= SAME_PLACE_MM)
    })
}

/// Values as labels from 0 to `highest`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be whole and from 0 to 255"
)]
fn values_of(data: &[f32], highest: usize) -> Result<Vec<u8>, String> {
    if let Some(strange) = data.iter().find(|v| v.fract() != 0.0) {
        return Err(format!(
            "found the value {strange}, expected whole numbers: labels must not be interpolated"
        ));
    }
    let unnamed = data.iter().find(|v| !(0.0..=highest as f32).contains(*v));
    if let Some(value) = unnamed {
        return Err(format!(
            "found the label {value}, dataset.json names 0 to {highest}"
        ));
    }
    Ok(data.iter().map(|v| *v as u8).collect())
}
