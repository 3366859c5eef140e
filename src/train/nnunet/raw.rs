//! A labelled dataset as training wants it: labels in a row, and every case on a regular grid where the network needs one.

use crate::{
    analysis::assemble::Values,
    train::{
        TrainError,
        labelled::{Case, Description, Files, Region, is_ct, shown},
        loss::IGNORE,
    },
};
use std::path::Path;

/// A dataset whose files are there; what is in them, `read` says.
#[derive(Debug, Clone, PartialEq)]
pub struct RawDataset {
    description: Description,
    /// What a network answers with, in the order of its outputs: each label alone, or the regions that unite them.
    pub regions: Vec<Region>,
    /// Its cases, by name.
    pub cases: Vec<Files>,
    /// Whether stacks may lean and be uneven, because the network's grid takes them so.
    pub as_they_lie: bool,
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
                "dataset.json: labels have the values {:?}, expected 1, 2, … in a row{}",
                values.collect::<Vec<_>>(),
                match description.ignore {
                    Some(_) => ", and `ignore` after them",
                    None => "",
                }
            )]));
        }
        if description.labels.contains_key(&IGNORE) {
            return Err(TrainError::Dataset(vec![format!(
                "dataset.json names {} labels, expected at most {}",
                description.labels.len(),
                IGNORE - 1
            )]));
        }
        Ok(Self {
            cases: description.cases(&folder.join("imagesTr"), &folder.join("labelsTr"), true)?,
            regions: if description.regions.is_empty() {
                let alone = |(value, name): (&u8, &String)| Region {
                    name: name.clone(),
                    values: vec![*value],
                    painted: *value,
                };
                description.labels.iter().map(alone).collect()
            } else {
                description.regions.clone()
            },
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

    /// Values of labels: 1, 2, … up to this.
    #[must_use]
    pub fn values(&self) -> usize {
        self.description.labels.len()
    }

    /// Whether regions may overlap, so that each is a question of its own.
    #[must_use]
    pub fn overlap(&self) -> bool {
        !self.description.regions.is_empty()
    }

    /// Output channels of a network: one a region, and where they exclude each other one for the background.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.regions.len() + usize::from(!self.overlap())
    }

    /// The value of voxels that nobody labelled, if there may be some.
    #[must_use]
    pub fn ignore(&self) -> Option<u8> {
        self.description.ignore
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
        let case = self.description.open(files, values, self.as_they_lie)?;
        if !self.as_they_lie && case.scan.channels[0].geometry.regular_step_mm().is_none() {
            return Err(format!(
                "{}: the slices are uneven or sheared; resample it to a regular grid",
                shown(&files.images[0])
            ));
        }
        let highest = self.values();
        let is_named =
            |label: &u8| usize::from(*label) <= highest || (*label == IGNORE && self.ignore().is_some());
        if let Some(strange) = case.labels.data.iter().find(|label| !is_named(label)) {
            return Err(format!(
                "{}: found the label {strange}, dataset.json names 0 to {highest}",
                shown(&files.labels)
            ));
        }
        Ok(case)
    }
}
