//! The images that an analysis used and the masks on them → one labelled case on an even grid, as trainers want it.

use super::{
    assemble::{Assembled, assemble},
    correction::{CorrectionError, any_ct},
    preprocess::even::even,
    returned::{self, Segmentation},
};
use crate::{
    dicom::instance::Instance,
    domain::{
        finding::Report,
        phi::{Redacted, redact},
        uid::Uid,
        volume::Volume,
    },
};
use std::collections::BTreeMap;

/// A Segmentation, as far as it counts.
#[derive(Debug, Clone)]
pub struct Mask {
    /// Part 10 file.
    pub part10: Vec<u8>,
    /// Which of its segments count.
    pub which: Which,
}

/// Segments of a Segmentation.
#[derive(Debug, Clone)]
pub enum Which {
    /// All: a reader drew it here.
    All,
    /// Those of these findings: the machine made it.
    Findings(Vec<String>),
    /// Those of what the analysis looks for: another tool made it, and may have drawn other things too.
    LookedFor(Box<Report>),
}

/// A case to learn from.
#[derive(Debug)]
pub struct Labelled {
    /// The images, HU.
    pub ct: Volume<f32>,
    /// 1 where a mask is, else 0, on the grid of the images.
    pub labels: Volume<u8>,
    /// Whether the stack was tilted or uneven, so that images and labels are resampled.
    pub resampled: bool,
}

/// Puts masks on the images of a series.
///
/// # Errors
/// When the images are no stack, or a mask does not lie on them.
pub fn labelled(
    mut instances: Vec<Instance>,
    series: &Uid,
    masks: &[Mask],
) -> Result<Labelled, CorrectionError> {
    instances.retain(|instance| instance.attributes.series_instance_uid.as_ref() == Some(series));
    if instances.is_empty() {
        return Err(CorrectionError::NoSeries);
    }
    let Assembled { volume: ct, .. } =
        assemble(&instances, &any_ct()).map_err(|error| CorrectionError::Source(redact(&error)))?;
    let mut inside = Volume {
        geometry: ct.geometry.clone(),
        data: vec![false; ct.geometry.len()],
    };
    for mask in masks {
        let laid = returned::on_grid(&mask.part10, &mask.which, &ct.geometry)?;
        for (all, here) in inside.data.iter_mut().zip(laid.data) {
            *all |= here;
        }
    }
    let (ct, inside, resampled) = even(ct, inside);
    Ok(Labelled {
        labels: Volume {
            geometry: inside.geometry,
            data: inside.data.into_iter().map(u8::from).collect(),
        },
        ct,
        resampled,
    })
}

/// Why images and Segmentations make no labelled case.
#[derive(Debug, thiserror::Error)]
pub enum SegmentedError {
    /// The images are no stack.
    #[error("{0}")]
    Images(Redacted),
    /// The Segmentation of this number, from 0, is not understood or does not lie on them.
    #[error("{1}")]
    Segmentation(usize, String),
}

/// The images of a series and the labels that Segmentations give their voxels: the value of the name that a segment has as SegmentLabel.
///
/// Of several series those count that a Segmentation refers to; a mask lies on its images wherever they came from.
///
/// # Errors
/// When the images are no stack, or a Segmentation does not lie on them or has a segment of another name.
pub fn segmented(
    mut instances: Vec<Instance>,
    segmentations: &[Vec<u8>],
    names: &BTreeMap<u8, String>,
) -> Result<(Volume<f32>, Volume<u8>), SegmentedError> {
    let wrong = |number: usize| {
        move |error| {
            SegmentedError::Segmentation(
                number,
                match error {
                    CorrectionError::Mask(what) => what,
                    CorrectionError::Source(what) => what.to_string(),
                    other => other.to_string(),
                },
            )
        }
    };
    let opened = segmentations.iter().enumerate();
    let segmentations = opened
        .map(|(number, part10)| Segmentation::open(part10).map_err(wrong(number)))
        .collect::<Result<Vec<_>, _>>()?;
    let is_named = |instance: &Instance| segmentations.iter().any(|mask| mask.names(instance));
    if instances.iter().any(is_named) {
        instances.retain(is_named);
    }
    let Assembled { volume, .. } =
        assemble(&instances, &any_ct()).map_err(|error| SegmentedError::Images(redact(&error)))?;
    let mut labels = Volume {
        data: vec![0; volume.data.len()],
        geometry: volume.geometry.clone(),
    };
    for (number, segmentation) in segmentations.iter().enumerate() {
        segmentation
            .put_values(names, &mut labels)
            .map_err(wrong(number))?;
    }
    Ok((volume, labels))
}
