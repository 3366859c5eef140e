//! Stage 6: findings and uncertainty → SEG, Parametric Maps and TID 1500 report; and for those that show none of these, pictures
//! and a key-object selection.
//!
//! Every object stands on the grid of the source instances: frame for frame the same rows, columns, orientation and position, so that a mask can be laid over its slice by reference alone, however the stack is tilted or spaced.
//! Nothing comes from the clock or from chance: the same input encodes to the same bytes.
//! Nothing is resampled or measured here, and no word claims more than the numbers do: a `score` is never called a probability, and a study is "flagged" or "not flagged", never "cleared".
//!
//! Source: PS3.3 sections A.51 (Segmentation), A.75 (Parametric Map) and A.35.13 (Comprehensive 3D SR); PS3.16 TID 1500.

use crate::{
    dicom::instance::Instance,
    domain::{
        code::Code,
        failure::FailureClass,
        finding::{Region, Report},
        phi::Redacted,
        plan::Plan,
        prediction::{Prediction, holds_structures},
        uid::Uid,
        volume::Volume,
    },
};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use std::collections::BTreeSet;
use time::OffsetDateTime;

mod concept;
mod content;
mod context;
mod element;
mod font;
mod frames;
mod kos;
mod labelmap;
mod pm;
mod rle;
mod secondary_capture;
mod seg;
mod shared;
mod sr;

/// Changes whenever the same input would encode to other bytes; part of every UID made here.
pub const ENCODER_VERSION: &str = "1";

/// What makes the results of one analysis reproducible: nothing in them comes from the clock or from chance.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// SHA-256 over series, instance set, model and calibration: the identity of the analysis.
    pub analysis_key: [u8; 32],
    /// When the analysis row was made; every date in the results.
    pub created_at: OffsetDateTime,
}

/// How the values of a Parametric Map are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapFormat {
    /// 16-bit unsigned with a real-world value mapping, RLE Lossless.
    ///
    /// OHIF 3.13 draws float maps only, and dcmqi 1.5.7 ends with a segmentation fault on every 16-bit one.
    #[default]
    Unsigned16,
    /// 32-bit float in steps of 1/65536, Explicit VR Little Endian: what the commands write; the archive deflates it.
    Float32,
}

/// What a Parametric Map shows beside the entropy, which always has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Mean foreground score of the ensemble.
    Score,
    /// Mutual information between the voxel's label and the member: what the members disagree about.
    MutualInformation,
    /// Variance of the members' foreground score.
    Variance,
}

/// What is made beside mask, entropy map and report, and how maps are stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maps {
    /// Maps beside the entropy's, in this order.
    pub further: BTreeSet<Quantity>,
    /// How all of them are stored.
    pub format: MapFormat,
    /// Whether the masks are made as a label map too.
    pub labelmap: bool,
    /// Whether the anatomical structures that a model knows are made into a Segmentation of their own.
    pub structures: bool,
    /// Whether pictures of the findings are made (Secondary Capture).
    pub summary: bool,
    /// Whether the images that show a finding are selected (Key Object Selection).
    pub key_objects: bool,
}

impl Maps {
    /// The choice that led to these results, read from them.
    #[must_use]
    pub fn of(results: &[Instance]) -> Self {
        let mut maps = Self::default();
        for result in results {
            let label = result
                .object
                .get(tags::CONTENT_LABEL)
                .and_then(|e| e.to_str().ok());
            let label = label.as_deref();
            maps.further
                .extend(label.and_then(|label| pm::quantity_of(label.trim())));
            if result.object.get(tags::FLOAT_PIXEL_DATA).is_some() {
                maps.format = MapFormat::Float32;
            }
            maps.structures |= label.is_some_and(holds_structures);
            match result.attributes.sop_class_uid.as_ref().map(Uid::as_str) {
                Some(uids::LABEL_MAP_SEGMENTATION_STORAGE) => maps.labelmap = true,
                Some(uids::SECONDARY_CAPTURE_IMAGE_STORAGE) => maps.summary = true,
                Some(uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE) => maps.key_objects = true,
                _ => {}
            }
        }
        maps
    }
}

/// The report that this one takes the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predecessor {
    /// The series of the earlier report.
    pub series_instance_uid: Uid,
    /// The earlier report.
    pub sop_instance_uid: Uid,
}

/// Everything that the results are made from.
#[derive(Debug, Clone, Copy)]
pub struct EncodeInput<'a> {
    /// The source instances, one a plane, in the order of the planes.
    pub source: &'a [&'a Instance],
    /// The images in HU, for pictures of them; without it none are made.
    pub ct: Option<&'a Volume<f32>>,
    /// Voxel-wise answers on the source grid.
    pub prediction: &'a Prediction,
    /// Segment number (a finding each) of each voxel, 0 = none.
    pub segments: &'a Volume<u16>,
    /// Where the brain is: which frames the maps have.
    pub brain: &'a Volume<bool>,
    /// Findings, answers, models, refusals.
    pub report: &'a Report,
    /// The model's plan.
    pub plan: &'a Plan,
    /// Identity and time.
    pub stamp: &'a Stamp,
    /// Which maps, and how they are stored.
    pub maps: &'a Maps,
    /// The report of the earlier revision of this analysis, if there is one.
    pub predecessor: Option<&'a Predecessor>,
}

/// Why no results were made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The instances of the series disagree about the patient, the study or the order.
    #[error(
        "the instances of the series hold different values of {keyword} {tag}; results need one: correct the series and send it again"
    )]
    Conflict {
        /// The attribute's keyword.
        keyword: &'static str,
        /// Its tag.
        tag: dicom_core::Tag,
    },
    /// A text that results must repeat could not be decoded (reason code `charset`).
    #[error(
        "{keyword} {tag} holds bytes outside its declared character set; results must repeat it: correct SpecificCharacterSet and send the series again"
    )]
    Undecodable {
        /// The attribute's keyword.
        keyword: &'static str,
        /// Its tag.
        tag: dicom_core::Tag,
    },
    /// A source instance lacks what a reference to it needs.
    #[error(
        "source instance {instance} has no usable {keyword} {tag}, which the results must refer to: send the series with it"
    )]
    Missing {
        /// Index in the stack, from 1.
        instance: usize,
        /// The attribute's keyword.
        keyword: &'static str,
        /// Its tag.
        tag: dicom_core::Tag,
    },
    /// The volumes, the instances and the findings do not belong together.
    #[error("{what}: found {found}, expected {expected}; this is a fault of an earlier stage")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The dataset could not be given its file meta information.
    #[error("the file meta information of a result could not be made")]
    Meta(#[source] Redacted),
}

impl EncodeError {
    /// How the failure is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Conflict { .. } | Self::Undecodable { .. } | Self::Missing { .. } => FailureClass::Input,
            Self::Mismatch { .. } | Self::Meta(_) => FailureClass::Internal,
        }
    }
}

/// The machine's mask that a reader began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited<'a> {
    /// Its series.
    pub series_instance_uid: &'a Uid,
    /// The Segmentation.
    pub sop_instance_uid: &'a Uid,
    /// Name and version of the model.
    pub algorithm: &'a str,
}

/// Everything that a reader's mask is made into a Segmentation from.
#[derive(Debug, Clone, Copy)]
pub struct Correction<'a> {
    /// The source instances, one a plane, in the order of the planes.
    pub source: &'a [&'a Instance],
    /// Segment number (a connected region each) of each voxel, 0 = none.
    pub segments: &'a Volume<u16>,
    /// The regions, by segment number: 1, 2, …
    pub regions: &'a [Region],
    /// What was drawn: `haemorrhage`.
    pub kind: &'a str,
    /// The same, coded.
    pub code: &'a Code,
    /// The reader's name, as others read it.
    pub reader: &'a str,
    /// What the reader began with; nothing when all was drawn by hand.
    pub edited: Option<&'a Edited<'a>>,
    /// Identity and time.
    pub stamp: &'a Stamp,
}

/// Makes the Segmentation of a reader's mask.
///
/// # Errors
/// As [`encode`].
pub fn encode_correction(correction: &Correction<'_>) -> Result<DefaultDicomObject, EncodeError> {
    let context = context::Context::of_correction(correction)?;
    let segments = seg::Segment::of_regions(&context, correction);
    let label = context.maker.question();
    seg::encode(&context, &seg::READER_KIND, label, &segments, correction.segments)
}

/// Makes the results: a SEG if there is a finding, the entropy map, the further maps asked for, and the report that ties them together, in this order; then, where asked for, a SEG of the structures if the model sees some, the label map, the pictures and the key objects.
///
/// # Errors
/// Refuses a series whose instances disagree about patient, study or order, lack an identifier, or hold text that could not be decoded; and input that does not fit together.
pub fn encode(input: &EncodeInput<'_>) -> Result<Vec<DefaultDicomObject>, EncodeError> {
    let context = context::Context::of_analysis(input)?;
    let mut objects = Vec::with_capacity(3 + input.maps.further.len());
    if !context.findings.is_empty() {
        let segments = seg::Segment::of_findings(&context, input.plan);
        let label = context.maker.question();
        objects.push(seg::encode(
            &context,
            &seg::KIND,
            label,
            &segments,
            input.segments,
        )?);
    }
    objects.extend(pm::encode(&context, input)?);
    let report = sr::encode(&context, input, &objects)?;
    objects.push(report);
    // Regions of ASPECTS are for a score: where none is told they are not shown either.
    let is_shown = input.maps.structures && (context.aspects.is_some() || !input.plan.tells_aspects());
    if let Some(structures) = input.prediction.structures.as_ref().filter(|_| is_shown) {
        objects.extend(seg::encode_structures(&context, input.plan, structures)?);
    }
    if input.maps.labelmap && !context.findings.is_empty() {
        let segments = seg::Segment::of_findings(&context, input.plan);
        objects.push(labelmap::encode(&context, &segments, input.segments)?);
    }
    if let Some(ct) = input.ct.filter(|_| input.maps.summary) {
        objects.extend(secondary_capture::encode(&context, input, ct)?);
    }
    if input.maps.key_objects && !context.findings.is_empty() {
        objects.push(kos::encode(&context, input)?);
    }
    Ok(objects)
}
