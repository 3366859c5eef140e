//! The files of labelled cases, as nnU-Net's raw layout has them → images and the label of each voxel, on one grid.
//!
//! `imagesTr/CASE_0000.nii.gz` is the first channel of a case, `labelsTr/CASE.nii.gz` its labels; `dataset.json` names channels and labels.
//! With `file_ending` `.dcm`, `imagesTr/CASE_0000` is a folder with the series (or `CASE_0000.dcm` a multi-frame CT), and `labelsTr/CASE.dcm` a Segmentation on it, or `labelsTr/CASE` a folder of several; a segment's SegmentLabel is the name of its label.
//! A label called `ignore` is of voxels that nobody labelled; one of several values is a region, which may overlap with others.
//! Whatever does not fit is said in words with the case's name, all of it at once: who has 500 cases does not want to hear of one fault a day.

use super::{TrainError, loss::IGNORE};
use crate::{
    analysis::{
        Scan,
        assemble::{Values, from_nifti},
        labelled::{SegmentedError, segmented},
        preprocess::even::even,
    },
    dicom::{enhanced, instance::Instance},
    domain::{
        failure::sentence,
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
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

/// Distance in mm within which two voxels are the same: affines are 32-bit floats, and programs round them differently.
const SAME_PLACE_MM: f64 = 0.1;
/// Channel names that mean Hounsfield units.
const CT: &str = "ct";
/// The name of the label of voxels that nobody labelled.
const UNLABELLED: &str = "ignore";
/// Most regions of a dataset: a voxel of a sample has a bit for each, and with all bits nobody labelled it.
const MOST_REGIONS: usize = 7;
/// What files of DICOM end with.
const DICOM: &str = ".dcm";

/// `dataset.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Name of its folder.
    pub name: String,
    /// What each channel holds.
    pub channels: Vec<String>,
    /// Names of the labels by value, without background; of regions, those that hold the value.
    pub labels: BTreeMap<u8, String>,
    /// What unites several labels, and therefore overlaps with others; nothing where each label stands for itself.
    pub regions: Vec<Region>,
    /// The value of voxels that nobody labelled, if there may be some.
    pub ignore: Option<u8>,
    /// What names of files end with.
    ending: String,
}

/// Labels with one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Their values.
    pub values: Vec<u8>,
    /// The value that it has on a label map, where later regions lie over earlier ones.
    pub painted: u8,
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
    /// Whether it was tilted or uneven, and lies on an even grid now.
    pub resampled: bool,
}

#[derive(Deserialize)]
struct Written {
    // Early datasets called them modalities.
    #[serde(alias = "modality")]
    channel_names: Map<String, Value>,
    labels: Map<String, Value>,
    #[serde(default)]
    regions_class_order: Value,
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
        let regions = regions(&written.labels, &written.regions_class_order).map_err(one)?;
        if ending == DICOM && !regions.is_empty() {
            return Err(one(
                "dataset.json has file_ending \".dcm\" and regions of several values; of DICOM each label is a segment of its own, so give each one value, or label maps of NIfTI".into(),
            ));
        }
        let (labels, ignore) = if regions.is_empty() {
            labels(&written.labels)
        } else {
            labels(&apart(&written.labels, &regions))
        }
        .map_err(one)?;
        let absolute = fs::canonicalize(folder).map_err(|e| TrainError::file(folder, e))?;
        Ok(Self {
            name: absolute
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            channels,
            labels,
            regions,
            ignore,
            ending,
        })
    }

    /// Finds the cases of a folder of images and one of labels.
    ///
    /// # Errors
    /// All that is missing; an image without labels only where `all_labelled`.
    pub fn cases(&self, images: &Path, labels: &Path, all_labelled: bool) -> Result<Vec<Files>, TrainError> {
        let mut faults = Vec::new();
        let (image_paths, label_paths) = (self.named(images, &mut faults)?, self.named(labels, &mut faults)?);
        let first = if self.is_dicom() {
            "CASE_0000.dcm or a folder CASE_0000".to_owned()
        } else {
            format!(
                "CASE_0000{0}, CASE_0001{0}, … with four digits for the channel",
                self.ending
            )
        };
        let mut found: BTreeMap<&str, BTreeMap<usize, &PathBuf>> = BTreeMap::new();
        for (name, path) in &image_paths {
            match name.rsplit_once('_') {
                Some((case, digits)) if digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    let channel = digits.parse().unwrap_or_default();
                    found.entry(case).or_default().insert(channel, path);
                }
                _ => faults.push(format!("{}: expected {first}", shown(path))),
            }
        }
        let mut cases = Vec::new();
        for (case, channels) in &found {
            let path = label_paths.get(*case);
            if path.is_none() && !all_labelled {
                continue;
            }
            let complete = channels.keys().copied().eq(0..self.channels.len());
            if !complete {
                faults.push(format!(
                    "case {case}: found channels {:?}, dataset.json names {} (0 to {})",
                    channels.keys().collect::<Vec<_>>(),
                    self.channels.len(),
                    self.channels.len() - 1
                ));
            }
            match path {
                None => faults.push(format!(
                    "case {case}: {} is missing",
                    shown(&labels.join(format!("{case}{}", self.ending)))
                )),
                Some(path) if complete => cases.push(Files {
                    name: (*case).to_owned(),
                    images: channels.values().map(|path| PathBuf::clone(path)).collect(),
                    labels: path.clone(),
                }),
                Some(_) => {}
            }
        }
        for case in label_paths.keys().filter(|case| !found.contains_key(&***case)) {
            faults.push(format!(
                "case {case}: it has labels and no image {}",
                shown(&images.join(format!("{case}_0000{}", self.ending)))
            ));
        }
        if cases.is_empty() && faults.is_empty() {
            faults.push(if found.is_empty() {
                format!("{}: found no file {first}", shown(images))
            } else {
                format!(
                    "{}: found no labels of any case in {}",
                    shown(labels),
                    shown(images)
                )
            });
        }
        if faults.is_empty() {
            Ok(cases)
        } else {
            Err(TrainError::Dataset(faults))
        }
    }

    /// What lies in a folder by name, without the ending: files, and of DICOM folders too; hidden ones do not count.
    fn named(
        &self,
        folder: &Path,
        faults: &mut Vec<String>,
    ) -> Result<BTreeMap<String, PathBuf>, TrainError> {
        let entries = fs::read_dir(folder).map_err(|e| TrainError::file(folder, e))?;
        let mut named = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|e| TrainError::file(folder, e))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let is_series = self.is_dicom() && path.is_dir();
            let stem = if is_series {
                Some(&*name)
            } else {
                name.strip_suffix(&self.ending)
            };
            let Some(stem) = stem.filter(|stem| !stem.starts_with('.')) else {
                continue;
            };
            if let Some(other) = named.insert(stem.to_owned(), path.clone()) {
                faults.push(format!(
                    "found {} and {}, expected one of them",
                    shown(&path),
                    shown(&other)
                ));
            }
        }
        Ok(named)
    }

    /// Reads a case: a label that nobody named is handed on, and a voxel that nobody labelled has [`IGNORE`].
    ///
    /// A stack that a scanner laid may lean and be uneven: unless `as_it_lies`, it is laid on an even grid. A file that says it is one volume stays as it is.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn open(&self, files: &Files, values: Values, as_it_lies: bool) -> Result<Case, String> {
        let mut case = if self.is_dicom() {
            self.segmented(files, as_it_lies)?
        } else {
            volumes(files, values)?
        };
        if let Some(ignore) = self.ignore {
            if ignore != IGNORE && case.labels.data.contains(&IGNORE) {
                return Err(format!(
                    "{}: found the label {IGNORE}, dataset.json names `{UNLABELLED}` as {ignore}",
                    shown(&files.labels)
                ));
            }
            let all = &mut case.labels.data;
            all.iter_mut()
                .filter(|label| **label == ignore)
                .for_each(|label| *label = IGNORE);
        }
        Ok(case)
    }

    /// Whether its files are DICOM.
    fn is_dicom(&self) -> bool {
        self.ending == DICOM
    }

    fn segmented(&self, case: &Files, as_it_lies: bool) -> Result<Case, String> {
        let read = |path: &PathBuf| fs::read(path).map_err(|e| said(path, &e));
        let instances: Vec<Vec<Instance>> = files(&case.images[0])?
            .par_iter()
            .map(|path| {
                let instance = Instance::from_bytes(&read(path)?).map_err(|e| said(path, &e))?;
                Ok(enhanced::slices(instance))
            })
            .collect::<Result<_, String>>()?;
        let paths = files(&case.labels)?;
        let segmentations = paths.iter().map(read).collect::<Result<Vec<_>, String>>()?;
        let instances = instances.into_iter().flatten().collect();
        let mut names = self.labels.clone();
        names.extend(self.ignore.map(|value| (value, UNLABELLED.to_owned())));
        let (mut image, mut labels) =
            segmented(instances, &segmentations, &names).map_err(|error| match &error {
                SegmentedError::Images(_) => said(&case.images[0], &error),
                SegmentedError::Segmentation(number, _) => said(&paths[*number], &error),
            })?;
        let mut resampled = false;
        if !as_it_lies {
            (image, labels, resampled) = even(image, labels);
        }
        Ok(Case {
            scan: Scan {
                channels: vec![image],
                turn: Turn::DICOM,
            },
            labels,
            resampled,
        })
    }
}

impl Files {
    /// Every file, those in folders one by one.
    ///
    /// # Errors
    /// When there is none.
    pub fn all(&self) -> Result<Vec<PathBuf>, TrainError> {
        let listed = self.images.iter().chain([&self.labels]).map(|path| files(path));
        let all: Result<Vec<_>, String> = listed.collect();
        Ok(all.map_err(|fault| TrainError::Dataset(vec![fault]))?.concat())
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

/// What is wrong with a file.
fn said(path: &Path, error: &dyn Error) -> String {
    format!("{}: {}", shown(path), sentence(error))
}

/// A file, or those of a folder by name; hidden ones do not count.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.map_err(|e| said(path, &e))?;
    let is_hidden = |entry: &DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    let mut files: Vec<PathBuf> = entries
        .iter()
        .filter(|entry| !is_hidden(entry))
        .map(DirEntry::path)
        .collect();
    files.sort();
    if let Some(folder) = files.iter().find(|path| path.is_dir()) {
        return Err(format!(
            "{}: found the folder {} in it, expected DICOM files only",
            shown(path),
            folder.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    if files.is_empty() {
        return Err(format!(
            "{}: found an empty folder, expected DICOM files",
            shown(path)
        ));
    }
    Ok(files)
}

fn volumes(case: &Files, values: Values) -> Result<Case, String> {
    let bytes = |path: &Path| fs::read(path).map_err(|e| said(path, &e));
    let mut channels: Vec<Volume<f32>> = Vec::with_capacity(case.images.len());
    let mut turn = Turn::default();
    for (c, path) in case.images.iter().enumerate() {
        let file = bytes(path)?;
        let volume = from_nifti(&file, values).map_err(|e| said(path, &e))?;
        if c == 0 {
            let image = nifti::read(&file).map_err(|e| said(path, &e))?;
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
    let volume = from_nifti(&bytes(path)?, Values::Any).map_err(|e| said(path, &e))?;
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
        resampled: false,
    })
}

fn channels(named: &Map<String, Value>) -> Result<Vec<String>, String> {
    let name = |i: usize| named.get(&i.to_string())?.as_str().map(str::to_owned);
    let channels: Option<Vec<String>> = (0..named.len()).map(name).collect();
    channels
        .filter(|c| !c.is_empty())
        .ok_or_else(|| "dataset.json: channel_names does not name channels \"0\", \"1\", … in a row".into())
}

/// The regions of nnU-Net 2, where a name stands for several values: the order of their names is that of the network's outputs.
fn regions(named: &Map<String, Value>, order: &Value) -> Result<Vec<Region>, String> {
    let is_region = |value: &Value| value.as_array().is_some_and(|values| values.len() > 1);
    if !named.values().any(is_region) {
        return Ok(Vec::new());
    }
    let number = |value: &Value| value.as_u64().and_then(|v| u8::try_from(v).ok());
    let written = order;
    let order: Option<Vec<u8>> = order
        .as_array()
        .and_then(|order| order.iter().map(number).collect());
    let order = order.unwrap_or_default();
    let mut regions = Vec::new();
    for (name, value) in named {
        let values = match value.as_array() {
            Some(values) => values.iter().map(number).collect(),
            None => number(value).map(|value| vec![value]),
        };
        let values: Vec<u8> = values
            .filter(|values: &Vec<u8>| !values.is_empty())
            .ok_or_else(|| {
                format!("dataset.json: label {name:?} is {value}, expected numbers from 0 to 255")
            })?;
        if values != [0] && !name.eq_ignore_ascii_case(UNLABELLED) {
            regions.push(Region {
                name: name.clone(),
                values,
                painted: 0,
            });
        }
    }
    if let Some(region) = regions.iter().find(|region| region.values.contains(&0)) {
        return Err(format!(
            "dataset.json: region {:?} has the value 0, which is background",
            region.name
        ));
    }
    let distinct: BTreeSet<u8> = order.iter().copied().filter(|value| *value > 0).collect();
    if order.len() != regions.len() || distinct.len() != order.len() {
        return Err(format!(
            "dataset.json names {} regions, and its regions_class_order is {written}; expected as many values above 0, each once: what each region is on a label map, later ones over earlier ones",
            regions.len()
        ));
    }
    if regions.len() > MOST_REGIONS {
        return Err(format!(
            "dataset.json names {} regions, expected at most {MOST_REGIONS}",
            regions.len()
        ));
    }
    for (i, painted) in order.iter().enumerate() {
        let (region, later) = (&regions[i], &regions[i + 1..]);
        if !region.values.contains(painted) || later.iter().any(|over| over.values.contains(painted)) {
            return Err(format!(
                "dataset.json: regions_class_order has {painted} for region {:?} of the values {:?}, expected one of these that no later region has: later ones lie over earlier ones, so name what lies inside after what lies around it",
                region.name, region.values
            ));
        }
        regions[i].painted = *painted;
    }
    distinct_names(regions.iter().map(|region| &region.name))?;
    Ok(regions)
}

/// The values of regions as labels of their own, beside what is no region; each is named by the regions that hold it.
fn apart(named: &Map<String, Value>, regions: &[Region]) -> Map<String, Value> {
    let is_beside = |name: &String| regions.iter().all(|region| region.name != *name);
    let mut labels: Map<String, Value> = named
        .iter()
        .filter(|(name, _)| is_beside(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let values: BTreeSet<u8> = regions
        .iter()
        .flat_map(|region| &region.values)
        .copied()
        .collect();
    for value in values {
        let holding = regions.iter().filter(|region| region.values.contains(&value));
        let names: Vec<&str> = holding.map(|region| region.name.as_str()).collect();
        labels.insert(format!("{value}: {}", names.join(" + ")), value.into());
    }
    labels
}

/// Names of labels by value, without the background, which is 0: name and value, as nnU-Net 2 has them, or value and name, as nnU-Net 1 had; and the value of what nobody labelled.
fn labels(named: &Map<String, Value>) -> Result<(BTreeMap<u8, String>, Option<u8>), String> {
    let mut by_value: BTreeMap<u8, String> = BTreeMap::new();
    for (key, value) in named {
        // nnU-Net takes a list of one for its value.
        let value = match value.as_array().map(Vec::as_slice) {
            Some([one]) => one,
            _ => value,
        };
        let (name, number) = match value.as_str() {
            Some(name) => (name, key.parse().ok()),
            None => (&**key, value.as_u64().and_then(|v| u8::try_from(v).ok())),
        };
        let number = number.ok_or_else(|| {
            format!("dataset.json: label {key:?} is {value}, expected a number from 0 to 255")
        })?;
        if let Some(other) = by_value.insert(number, name.to_owned()) {
            return Err(format!(
                "dataset.json: labels {other:?} and {name:?} both have the value {number}"
            ));
        }
    }
    let background = by_value.remove(&0).unwrap_or_default();
    if !background.eq_ignore_ascii_case("background") {
        return Err(format!(
            "dataset.json: label 0 is called {background:?}, expected \"background\""
        ));
    }
    let ignore = by_value
        .iter()
        .find_map(|(value, name)| name.eq_ignore_ascii_case(UNLABELLED).then_some(*value));
    if let Some(value) = ignore {
        by_value.remove(&value);
        if let Some(name) = by_value.get(&IGNORE) {
            return Err(format!(
                "dataset.json: label {name:?} has the value {IGNORE}, which stands for what nobody labelled; give it another"
            ));
        }
    }
    if by_value.is_empty() {
        return Err("dataset.json names no label beside the background".into());
    }
    distinct_names(by_value.values())?;
    Ok((by_value, ignore))
}

fn distinct_names<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> Result<(), String> {
    let count = names.len();
    let folded: BTreeSet<String> = names.map(|name| name.to_lowercase()).collect();
    if folded.len() < count {
        return Err("dataset.json: two labels have the same name, but for capitals".into());
    }
    Ok(())
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
