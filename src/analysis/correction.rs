//! A reader's mask on the slices of an analysis → its connected regions, measured as findings are, and its Segmentation.
//!
//! The mask comes in pixels of the images, by their UIDs, so that it lies where it was drawn whatever the stack is like.
//! The series was chosen by the analysis; here it is only put together again.

use super::{
    assemble::{Assembled, assemble},
    encode::{self, Edited, EncodeError, Stamp, encode_correction},
    postprocess::{self, PostprocessError},
    preprocess,
};
use crate::{
    dicom::instance::Instance,
    domain::{
        code::{self, Code},
        failure::FailureClass,
        finding::{Region, Report},
        midsagittal::MidsagittalPlane,
        phi::{Redacted, redact},
        plan::{Contrast, Trigger},
        uid::Uid,
        volume::Volume,
    },
};
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// The analysis that is corrected.
#[derive(Debug, Clone)]
pub struct Corrected {
    /// What it said.
    pub report: Report,
    /// Its Segmentations: one for each question of which it found anything.
    pub masks: Vec<MachineMask>,
}

/// A Segmentation of the analysis.
#[derive(Debug, Clone)]
pub struct MachineMask {
    /// The question that it answers.
    pub question: String,
    /// The series of the images that it lies on.
    pub source_series: String,
    /// Its own series.
    pub series_instance_uid: Uid,
    /// Its own instance.
    pub sop_instance_uid: Uid,
}

impl Corrected {
    /// The mask that a correction of this kind, on images of this series, takes the place of.
    pub(super) fn mask(&self, kind: &str, series: &Uid) -> Option<&MachineMask> {
        let found = self.report.findings.iter().find(|finding| finding.kind == kind);
        let answers = &self.report.answers;
        let asked = found.and_then(|finding| {
            answers
                .iter()
                .find(|answer| answer.model.as_ref() == Some(&finding.model))
        });
        let question = asked.map_or(kind, |answer| &answer.question);
        self.masks
            .iter()
            .find(|mask| mask.question == question && mask.source_series == series.as_str())
    }

    /// Of the series that the analysis used the one that fits, and only its images.
    pub(super) fn series(
        &self,
        instances: &mut Vec<Instance>,
        fits: impl Fn(&Instance) -> bool,
    ) -> Result<Uid, CorrectionError> {
        let chosen = || self.report.series.iter().filter(|series| series.chosen);
        let of = |instance: &&Instance| {
            let uid = instance.attributes.series_instance_uid.clone();
            uid.filter(|uid| chosen().any(|series| series.uid == *uid))
        };
        let fitting = instances.iter().filter(|i| fits(i)).find_map(|i| of(&i));
        let uid = fitting.or_else(|| chosen().map(|series| series.uid.clone()).next());
        let uid = uid.ok_or(CorrectionError::NoSeries)?;
        instances.retain(|instance| instance.attributes.series_instance_uid.as_ref() == Some(&uid));
        Ok(uid)
    }
}

/// Who draws.
#[derive(Debug, Clone)]
pub struct Reader {
    /// As others read it.
    pub name: String,
    /// Identity of what is drawn: the same key gives the same UIDs.
    pub key: [u8; 32],
    /// The date in the Segmentation.
    pub at: OffsetDateTime,
}

/// A mask with what was measured on it.
#[derive(Debug)]
pub struct Drawn {
    /// The Segmentation as a Part 10 file.
    pub bytes: Vec<u8>,
    /// The Segmentation.
    pub instance: Instance,
    /// Connected regions, largest first.
    pub regions: Vec<Region>,
    /// Whether it takes the place of a mask of the machine.
    pub edited: bool,
}

/// Why a mask became nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorrectionError {
    /// The analysis looked at no series.
    #[error("the analysis looked at no series: there is nothing to draw on")]
    NoSeries,
    /// Nobody knows what was drawn.
    #[error(
        "`{0}` is not a kind of finding that can be drawn; `haemorrhage`, `infarct` and `occlusion` are, and what the analysis found"
    )]
    Kind(String),
    /// The mask does not lie on the slices.
    #[error("the mask cannot be saved: {0}")]
    Mask(String),
    /// The slices under the mask cannot be read.
    #[error("the slices under the mask cannot be put together")]
    Source(#[source] Redacted),
    /// There are too many regions.
    #[error(transparent)]
    Regions(#[from] PostprocessError),
    /// The Segmentation cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl CorrectionError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoSeries | Self::Kind(_) | Self::Mask(_) => FailureClass::Input,
            Self::Source(_) => FailureClass::Internal,
            Self::Regions(error) => error.class(),
            Self::Encode(error) => error.class(),
        }
    }
}

/// A mask on one slice.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a> {
    /// The image.
    pub sop_instance_uid: &'a str,
    /// Its frame, of an image with several.
    pub frame: Option<u32>,
    /// First pixel and length of each run, row by row, ascending.
    pub runs: &'a [u32],
}

/// Lays a mask on the slices of an analysis, measures it and writes its Segmentation.
///
/// `edited`: whether the mask began with the machine's.
///
/// # Errors
/// When the mask does not lie on the slices, or holds nothing.
pub fn correct(
    instances: Vec<Instance>,
    corrected: &Corrected,
    kind: &str,
    slices: &[Runs<'_>],
    edited: bool,
    reader: &Reader,
) -> Result<Drawn, CorrectionError> {
    let report = &corrected.report;
    let code = code_of(kind, report).ok_or_else(|| CorrectionError::Kind(kind.to_owned()))?;
    let mut instances = instances;
    let series = corrected.series(&mut instances, |instance| {
        let uid = instance.attributes.sop_instance_uid.as_ref();
        slices
            .first()
            .is_some_and(|first| uid.is_some_and(|uid| uid.as_str() == first.sop_instance_uid))
    })?;
    let Assembled {
        volume,
        instances: order,
        ..
    } = assemble(&instances, &any_ct()).map_err(|error| CorrectionError::Source(redact(&error)))?;
    let source: Vec<&Instance> = order.iter().map(|at| &instances[*at]).collect();
    let mask = lay(slices, &source, &volume)?;
    let plane = plane_of(&volume);
    let (regions, segments) = postprocess::regions(&mask, plane.as_ref())?;
    let models = report
        .models
        .iter()
        .map(|model| format!("{} {}", model.id, model.version));
    let algorithm = models.collect::<Vec<_>>().join(", ");
    let began_with = corrected.mask(kind, &series).filter(|_| edited);
    let began_with = began_with.map(|mask| Edited {
        series_instance_uid: &mask.series_instance_uid,
        sop_instance_uid: &mask.sop_instance_uid,
        algorithm: &algorithm,
    });
    let object = encode_correction(&encode::Correction {
        source: &source,
        segments: &segments,
        regions: &regions,
        kind,
        code: &code,
        reader: &reader.name,
        edited: began_with.as_ref(),
        stamp: &Stamp {
            analysis_key: reader.key,
            created_at: reader.at,
        },
    })?;
    let mut bytes = Vec::new();
    object
        .write_all(&mut bytes)
        .map_err(|error| CorrectionError::Source(redact(&error)))?;
    let instance = Instance::from_object(object).map_err(|error| CorrectionError::Source(redact(&error)))?;
    Ok(Drawn {
        bytes,
        instance,
        regions,
        edited: began_with.is_some(),
    })
}

/// The series was chosen already: anything goes that is CT.
pub(super) fn any_ct() -> Trigger {
    Trigger {
        modality: "CT".to_owned(),
        contrast: Contrast::Any,
        thickness_mm: [0.0, f64::INFINITY],
        body_part: String::new(),
        only_named: false,
        brain_hu: None,
        noise_hu: None,
    }
}

/// Between the halves of the head, if there is one.
pub(super) fn plane_of(volume: &Volume<f32>) -> Option<MidsagittalPlane> {
    let trace = preprocess::head_trace(volume).ok()?;
    MidsagittalPlane::estimate(&preprocess::brain::intracranial(volume, &trace).brain, volume)
}

/// What a reader may draw where the analysis found nothing, and its code.
pub(super) const KNOWN: [(&str, Code); 5] = [
    ("haemorrhage", code::HEMORRHAGE),
    ("haemorrhage_second_opinion", code::HEMORRHAGE),
    ("hyperdense_artery", code::THROMBUS),
    ("infarct", code::INFARCT),
    ("occlusion", code::ARTERIAL_OCCLUSION),
];

/// The code of what may be drawn.
pub(super) fn code_of(kind: &str, report: &Report) -> Option<Code> {
    let found = report.findings.iter().find(|finding| finding.kind == kind);
    let known = KNOWN.into_iter().find(|(name, _)| *name == kind);
    found
        .map(|finding| finding.code.clone())
        .or(known.map(|(_, code)| code))
}

/// The runs of each slice → a volume on the grid of the analysis.
fn lay(
    slices: &[Runs<'_>],
    source: &[&Instance],
    volume: &Volume<f32>,
) -> Result<Volume<bool>, CorrectionError> {
    let len = volume.geometry.slice_len();
    let uids = source.iter().enumerate().filter_map(|(at, instance)| {
        let uid = instance.attributes.sop_instance_uid.as_ref()?;
        Some(((uid.as_str(), instance.attributes.frame_number()), at))
    });
    let places: BTreeMap<(&str, Option<u32>), usize> = uids.collect();
    let mut data = vec![false; volume.geometry.len()];
    let mut laid = vec![false; volume.geometry.slices()];
    for Runs {
        sop_instance_uid: uid,
        frame,
        runs,
    } in slices
    {
        let wrong = |what: &str| CorrectionError::Mask(format!("slice {}: {what}", uid.escape_debug()));
        let at = *places
            .get(&(*uid, *frame))
            .ok_or_else(|| wrong("the analysis did not look at this image"))?;
        if std::mem::replace(&mut laid[at], true) {
            return Err(wrong("it is there twice"));
        }
        if !runs.len().is_multiple_of(2) {
            return Err(wrong("a run has no length"));
        }
        let mut end = 0;
        for run in runs.chunks_exact(2) {
            let (start, stop) = (run[0] as usize, run[0] as usize + run[1] as usize);
            if start < end || stop > len || stop == start {
                let what = format!(
                    "run {start} + {} is empty, overlaps the one before, or ends beyond the {len} pixels of the image",
                    run[1]
                );
                return Err(wrong(&what));
            }
            data[at * len + start..at * len + stop].fill(true);
            end = stop;
        }
    }
    if !data.contains(&true) {
        return Err(CorrectionError::Mask(
            "nothing is drawn; say with a verdict that there is no finding".to_owned(),
        ));
    }
    Ok(Volume {
        geometry: volume.geometry.clone(),
        data,
    })
}
