//! The cases of a dataset → what planning needs: spacings, sizes, and the values inside the labels.
//!
//! Every case is read once, and thereby checked; `fingerprint.json` keeps what was measured, so that a second run with the same files measures nothing.
//!
//! Source: nnU-Net v2, `fingerprint_extractor.py`.

use super::raw::RawDataset;
use crate::{
    analysis::preprocess::volume::bounding_box,
    train::{
        TrainError,
        labelled::{Case, Files, Region},
        loss::IGNORE,
        training::write,
    },
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fs, path::Path, time::SystemTime};

/// Values of the foreground kept of each case: thousands in all give the percentiles.
const VALUES_PER_CASE: usize = 2000;
/// Cases in memory at once.
pub(super) const AT_ONCE: usize = 4;

/// What one case is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseFingerprint {
    /// Its name.
    pub name: String,
    /// Step along the axes of the file's array (`k, j, i`), mm.
    pub spacing_mm: [f64; 3],
    /// Voxels along them after the crop to what is not zero.
    pub shape: [usize; 3],
    /// Share of the volume that the crop keeps.
    pub kept: f64,
    /// Voxels of labels 1, 2, ….
    pub voxels: Vec<usize>,
    /// Whether it was tilted or uneven, and lies on an even grid now.
    #[serde(default)]
    pub resampled: bool,
    /// For each channel, values inside the labels.
    pub foreground: Vec<Vec<f32>>,
}

impl CaseFingerprint {
    /// Whether it has a voxel of a region.
    #[must_use]
    pub fn has(&self, region: &Region) -> bool {
        let there = |value: &u8| {
            self.voxels
                .get(usize::from(*value) - 1)
                .is_some_and(|voxels| *voxels > 0)
        };
        region.values.iter().any(there)
    }
}

/// What a dataset is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of the labels, and of the files' names, sizes and times.
    pub key: String,
    /// Each case.
    pub cases: Vec<CaseFingerprint>,
}

/// Reads, checks and measures every case, or takes what an earlier run measured of the same files.
///
/// # Errors
/// Every case that cannot be trained on, with its reason.
pub fn fingerprint(
    dataset: &RawDataset,
    out: &Path,
    mut tell: impl FnMut(usize, usize),
) -> Result<Fingerprint, TrainError> {
    // Of DICOM the names say which value a segment has.
    let mut hash = Sha256::new_with_prefix([u8::from(dataset.as_they_lie)]);
    hash.update(format!("{:?} {:?}", dataset.regions, dataset.ignore()));
    for case in &dataset.cases {
        hash.update(stamp(case)?);
    }
    let key = hex::encode(hash.finalize());
    let path = out.join("fingerprint.json");
    let earlier = fs::read(&path).ok();
    if let Some(known) = earlier.and_then(|text| serde_json::from_slice::<Fingerprint>(&text).ok())
        && known.key == key
        && known.cases.iter().all(|c| c.voxels.len() == dataset.values())
    {
        return Ok(known);
    }
    let (mut cases, mut faults) = (Vec::new(), Vec::new());
    for group in dataset.cases.chunks(AT_ONCE) {
        let measured: Vec<Result<CaseFingerprint, String>> = group
            .par_iter()
            .map(|case| {
                let read = dataset.read(case)?;
                if read.labels.data.iter().all(|label| *label == IGNORE) {
                    return Err(format!(
                        "case {}: no voxel is labelled, nothing can be learnt from it; leave it out",
                        case.name
                    ));
                }
                measure(&case.name, &read, dataset.values())
                    .ok_or_else(|| format!("case {}: the image is 0 everywhere", case.name))
            })
            .collect();
        for result in measured {
            match result {
                Ok(case) => cases.push(case),
                Err(fault) => faults.push(fault),
            }
        }
        tell(cases.len() + faults.len(), dataset.cases.len());
    }
    let complete = faults.is_empty();
    for region in dataset.regions.iter().filter(|_| complete) {
        if !cases.iter().any(|case| case.has(region)) {
            faults.push(format!(
                "label {:?} (value {}) is in no case; a network cannot learn what it is never shown",
                region.name,
                region
                    .values
                    .iter()
                    .map(u8::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
    }
    if !faults.is_empty() {
        return Err(TrainError::Dataset(faults));
    }
    let fingerprint = Fingerprint { key, cases };
    let text = serde_json::to_vec(&fingerprint)
        .map_err(|e| TrainError::Mismatch(format!("{}: {e}", path.display())))?;
    write(&path, &text)?;
    Ok(fingerprint)
}

/// What changes when a file of a case does: names, sizes, times.
pub(super) fn stamp(case: &Files) -> Result<[u8; 32], TrainError> {
    let mut hash = Sha256::new();
    for path in case.all()? {
        let about = fs::metadata(&path).map_err(|e| TrainError::file(&path, e))?;
        let since = about
            .modified()
            .ok()
            .and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(format!(" {} {:?};", about.len(), since));
    }
    Ok(hash.finalize().into())
}

fn measure(name: &str, case: &Case, labels: usize) -> Option<CaseFingerprint> {
    let channels = &case.scan.channels;
    let grid = &channels[0].geometry;
    let shape = [grid.slices(), grid.rows, grid.columns];
    let nonzero: Vec<bool> = (0..grid.len())
        .map(|v| channels.iter().any(|channel| channel.data[v] != 0.0))
        .collect();
    let crop = bounding_box(&nonzero, shape)?;
    let is_inside = |v: &usize| !matches!(case.labels.data[*v], 0 | IGNORE);
    let inside: Vec<usize> = (0..grid.len()).filter(is_inside).collect();
    let step = inside.len().div_ceil(VALUES_PER_CASE).max(1);
    let mut voxels = vec![0; labels];
    for v in &inside {
        voxels[usize::from(case.labels.data[*v]) - 1] += 1;
    }
    let shape = crop.map(|range| range.len());
    Some(CaseFingerprint {
        name: name.to_owned(),
        spacing_mm: [
            grid.median_step_mm(),
            grid.pixel_spacing_mm[0],
            grid.pixel_spacing_mm[1],
        ],
        shape,
        kept: shape.iter().product::<usize>() as f64 / grid.len() as f64,
        voxels,
        resampled: case.resampled,
        foreground: channels
            .iter()
            .map(|channel| inside.iter().step_by(step).map(|v| channel.data[*v]).collect())
            .collect(),
    })
}

/// The value below which a share of sorted values lies, in between by a straight line.
///
/// # Panics
/// Never for a value or more.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index of the list"
)]
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
