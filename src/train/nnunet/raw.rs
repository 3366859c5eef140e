//! A labelled dataset as training wants it: labels in a row, and every case on a regular grid where the network needs one.

use crate::{
    analysis::{Scan, assemble::Values, preprocess::even::even},
    domain::volume::Volume,
    train::{
        TrainError,
        labelled::{self, Description, Files, is_ct, shown},
    },
};
use std::path::Path;

/// A dataset whose files are there; what is in them, `read` says.
#[derive(Debug, Clone, PartialEq)]
pub struct RawDataset {
    description: Description,
    /// Names of labels 1, 2, ….
    pub labels: Vec<String>,
    /// Its cases, by name.
    pub cases: Vec<Files>,
    /// Whether stacks may lean and be uneven, because the network's grid takes them so.
    pub as_they_lie: bool,
}

/// A case in memory.
#[derive(Debug, Clone)]
pub struct Case {
    /// The channels, on one grid.
    pub scan: Scan,
    /// The label of each voxel.
    pub labels: Volume<u8>,
    /// Whether it was tilted or uneven, and lies on an even grid now.
    pub resampled: bool,
}

impl RawDataset {
    /// Finds the cases of a folder.
    ///
    /// # Errors
    /// All that is missing or not understood.
    pub fn open(folder: &Path) -> Result<Self, TrainError> {
        let description = Description::read(folder)?;
        let values = description.labels.keys();
        if !values
            .clone()
            .copied()
            .eq(1..=u8::try_from(values.len()).unwrap_or(u8::MAX))
        {
            return Err(TrainError::Dataset(vec![format!(
                "dataset.json: labels have the values {:?}, expected 1, 2, … in a row",
                values.collect::<Vec<_>>()
            )]));
        }
        Ok(Self {
            cases: description.cases(&folder.join("imagesTr"), &folder.join("labelsTr"), true)?,
            labels: description.labels.values().cloned().collect(),
            description,
            as_they_lie: false,
        })
    }

    /// Name of its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// What each channel holds.
    #[must_use]
    pub fn channels(&self) -> &[String] {
        &self.description.channels
    }

    /// Whether a channel holds Hounsfield units.
    #[must_use]
    pub fn is_ct(&self, channel: usize) -> bool {
        is_ct(&self.channels()[channel])
    }

    /// Reads and checks a case.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(&self, files: &Files) -> Result<Case, String> {
        // As prediction will: only a model of CT alone is held to HU.
        let values = if (0..self.channels().len()).all(|c| self.is_ct(c)) {
            Values::Hu
        } else {
            Values::Any
        };
        let labelled::Case { mut scan, mut labels } = self.description.open(files, values)?;
        let mut resampled = false;
        // A stack that a scanner laid may lean; a file that says it is one volume must be.
        if self.description.is_dicom() && !self.as_they_lie {
            let (image, laid, moved) = even(scan.channels.remove(0), labels);
            (scan.channels, labels, resampled) = (vec![image], laid, moved);
        }
        if !self.as_they_lie && scan.channels[0].geometry.regular_step_mm().is_none() {
            return Err(format!(
                "{}: the slices are uneven or sheared; resample it to a regular grid",
                shown(&files.images[0])
            ));
        }
        let highest = self.labels.len();
        if let Some(strange) = labels.data.iter().find(|label| usize::from(**label) > highest) {
            return Err(format!(
                "{}: found the label {strange}, dataset.json names 0 to {highest}",
                shown(&files.labels)
            ));
        }
        Ok(Case {
            scan,
            labels,
            resampled,
        })
    }
}
