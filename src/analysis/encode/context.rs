//! The source series and the stamp → what every result says of patient, study, order, equipment and itself.
//!
//! Patient, General Study, Frame of Reference and order attributes are the source's own; what is type 2 and absent is written empty.
//! Two different values within the series are a refusal, since either could be the wrong patient; so is text that could not be decoded.
//! The institution and the scanner are facts about the acquisition, not about ictus: they stand in Contributing Equipment Sequence, and the equipment module names ictus.
//!
//! Source: PS3.3 sections C.7.1.1, C.7.2.1, C.7.2.2, C.7.3.1, C.7.4.1, C.7.5.1, C.12.1.

use super::{
    Correction, ENCODER_VERSION, EncodeError, EncodeInput, Stamp, concept,
    element::{Dataset, Fill, code_item, reference_item, unbound},
    shared::{ACQUISITION, OPTIONAL, Presence, TYPE_2, copy, element_of, one_uid, text_of, uid_of},
};
use crate::{
    dicom::instance::Instance,
    domain::{
        aspects::Aspects,
        finding::{Answer, Finding, ModelRun},
        midsagittal::MidlineShift,
        phi::redact,
        plan::Plan,
        uid::Uid,
        volume::Geometry,
    },
};
use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder};
use std::{borrow::Cow, collections::BTreeSet};
use time::{OffsetDateTime, UtcOffset, macros::format_description};

/// Names ictus as the writer in the file meta information: `2.25.` + a random UUID, drawn once.
const IMPLEMENTATION_CLASS_UID: &str = "2.25.245348425874022778137149802021144412979";

/// A kind of result, and how its series is told from the others.
pub(super) struct Kind {
    /// Part of the UIDs.
    pub(super) name: Cow<'static, str>,
    /// SOPClassUID.
    pub(super) sop_class_uid: &'static str,
    /// TransferSyntaxUID.
    pub(super) transfer_syntax: &'static str,
    /// Modality.
    pub(super) modality: &'static str,
    /// SeriesNumber: beyond what scanners count to, so that results stand behind the images.
    pub(super) series_number: u16,
    /// What it shows, for SeriesDescription.
    pub(super) shows: &'static str,
}

/// The identifiers of one source instance.
pub(super) struct SourceReference {
    /// SOPClassUID.
    pub(super) sop_class_uid: Uid,
    /// SOPInstanceUID.
    pub(super) sop_instance_uid: Uid,
    /// The frame, of an instance with several.
    frame: Option<u32>,
}

impl SourceReference {
    /// The item that refers to this slice: to its instance, and to its frame where there are several.
    pub(super) fn item(&self) -> Dataset {
        let mut item = self.instance_item();
        if let Some(frame) = self.frame {
            item.text(tags::REFERENCED_FRAME_NUMBER, VR::IS, frame.to_string());
        }
        item
    }

    /// The item that refers to the whole instance.
    fn instance_item(&self) -> Dataset {
        reference_item(self.sop_class_uid.as_str(), &self.sop_instance_uid)
    }
}

/// Who made a result.
#[derive(Clone, Copy)]
pub(super) enum Maker<'a> {
    /// A model, and how it ran.
    Model {
        plan: &'a Plan,
        run: Option<&'a ModelRun>,
    },
    /// A person.
    Reader(&'a Correction<'a>),
}

impl<'a> Maker<'a> {
    /// Part of the UIDs.
    fn id(&self) -> &'a str {
        match self {
            Self::Model { plan, .. } => &plan.id,
            Self::Reader(_) => "reader",
        }
    }

    /// Numeric mode of the run; empty when nothing was computed, or when it is not on record.
    fn numeric_mode(&self) -> &'a str {
        match self {
            Self::Model { run, .. } => run.map_or("", |run| &run.numeric_mode),
            Self::Reader(_) => "",
        }
    }

    /// What was looked for.
    pub(super) fn question(&self) -> &'a str {
        match self {
            Self::Model { plan, .. } => &plan.question,
            Self::Reader(correction) => correction.kind,
        }
    }

    /// What a result may not be used for.
    pub(super) fn limits(&self) -> &'static str {
        match self {
            Self::Model { plan, .. } => plan.provenance.limits(),
            Self::Reader(_) => "drawn by a reader in research software, not for clinical use",
        }
    }

    /// What tells this maker from every other: one a line.
    pub(super) fn parameters(&self) -> Vec<String> {
        let Self::Model { plan, run } = self else {
            return vec![self.limits().to_owned()];
        };
        [
            ("weights_sha256", run.map_or("", |run| &run.weights_sha256)),
            ("numeric_mode", self.numeric_mode()),
        ]
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={value}"))
        .chain([
            format!("members={}", plan.members),
            match &plan.calibration {
                Some(calibration) => format!("calibration={calibration}"),
                None => "calibration=none".to_owned(),
            },
            self.limits().to_owned(),
        ])
        .collect()
    }

    /// What ictus contributed, in words.
    fn contribution(&self) -> String {
        let who = match self {
            Self::Model { plan, .. } => format!("{} {}", plan.id, plan.version),
            Self::Reader(Correction { edited, .. }) => match edited {
                Some(edited) => format!("a reader's correction of {}", edited.algorithm),
                None => "a reader's mask".to_owned(),
            },
        };
        format!("{who}: {}", self.parameters().join(", "))
    }
}

/// The checked source, its maker, and what all results share.
pub(super) struct Context<'a> {
    /// The source instances, in the order of the planes.
    source: &'a [&'a Instance],
    /// The grid of the source and of every result.
    pub(super) geometry: &'a Geometry,
    stamp: &'a Stamp,
    /// Who made the results.
    pub(super) maker: Maker<'a>,
    /// The plan's findings, by segment number: 1, 2, …; none of a reader.
    pub(super) findings: Vec<&'a Finding>,
    /// The plan's answer.
    pub(super) answer: Option<&'a Answer>,
    /// How far the midline is pushed aside, if that was measured on this series.
    pub(super) midline_shift: Option<MidlineShift>,
    /// ASPECTS, if the model told it of this series.
    pub(super) aspects: Option<&'a Aspects>,
    /// The source study.
    pub(super) study: Uid,
    /// The source series.
    pub(super) series: Uid,
    /// The source instances, one a plane.
    pub(super) references: Vec<SourceReference>,
    shared: Dataset,
    created_at: OffsetDateTime,
}

impl<'a> Context<'a> {
    /// Checks that everything of an analysis belongs together and copies what its results share.
    pub(super) fn of_analysis(input: &'a EncodeInput<'a>) -> Result<Self, EncodeError> {
        check_grids(input)?;
        let mut findings: Vec<&Finding> = input
            .report
            .findings
            .iter()
            .filter(|f| f.model == input.plan.id)
            .collect();
        findings.sort_by_key(|finding| finding.segment);
        if let Some((at, finding)) = findings
            .iter()
            .enumerate()
            .find(|(at, finding)| usize::from(finding.segment) != at + 1)
        {
            return Err(mismatch(
                "segment numbers of the findings",
                finding.segment,
                at + 1,
            ));
        }
        let maker = Maker::Model {
            plan: input.plan,
            run: input.report.models.iter().find(|model| model.id == input.plan.id),
        };
        let mut answers = input.report.answers.iter();
        let context = Self::new(input.source, &input.segments.geometry, input.stamp, maker)?;
        let midline = input.report.midline_shift.as_ref();
        let aspects = input.report.aspects.as_ref();
        Ok(Self {
            findings,
            answer: answers.find(|a| a.question == input.plan.question),
            midline_shift: midline.filter(|m| m.series == context.series).map(|m| m.shift),
            aspects: aspects
                .filter(|told| told.model == input.plan.id && told.series == context.series)
                .map(|told| &told.aspects),
            ..context
        })
    }

    /// Checks the source of a reader's mask and copies what the result says of it.
    pub(super) fn of_correction(correction: &'a Correction<'a>) -> Result<Self, EncodeError> {
        let geometry = &correction.segments.geometry;
        check_source(correction.source, geometry)?;
        Self::new(
            correction.source,
            geometry,
            correction.stamp,
            Maker::Reader(correction),
        )
    }

    fn new(
        source: &'a [&'a Instance],
        geometry: &'a Geometry,
        stamp: &'a Stamp,
        maker: Maker<'a>,
    ) -> Result<Self, EncodeError> {
        let first = *source
            .first()
            .ok_or_else(|| mismatch("source instances", 0, "one a plane"))?;
        let mut shared = Dataset::new_empty();
        copy(source, TYPE_2, Presence::Empty, &mut shared)?;
        copy(source, OPTIONAL, Presence::AsSource, &mut shared)?;
        let references = source
            .iter()
            .enumerate()
            .map(|(index, instance)| {
                Ok(SourceReference {
                    sop_class_uid: uid_of(instance, index, tags::SOP_CLASS_UID)?,
                    sop_instance_uid: uid_of(instance, index, tags::SOP_INSTANCE_UID)?,
                    frame: instance.attributes.frame_number(),
                })
            })
            .collect::<Result<_, EncodeError>>()?;
        let offset = text_of(first, tags::TIMEZONE_OFFSET_FROM_UTC).and_then(|text| parse_offset(&text));
        Ok(Self {
            source,
            geometry,
            stamp,
            maker,
            findings: Vec::new(),
            answer: None,
            midline_shift: None,
            aspects: None,
            study: one_uid(source, tags::STUDY_INSTANCE_UID)?,
            series: one_uid(source, tags::SERIES_INSTANCE_UID)?,
            references,
            shared,
            created_at: stamp.created_at.to_offset(offset.unwrap_or(UtcOffset::UTC)),
        })
    }

    /// The UID of something that this analysis makes.
    pub(super) fn uid(&self, what: &str, index: u16) -> Uid {
        Uid::derive(&[
            b"ictus",
            &self.stamp.analysis_key,
            self.maker.id().as_bytes(),
            self.maker.numeric_mode().as_bytes(),
            ENCODER_VERSION.as_bytes(),
            what.as_bytes(),
            &index.to_be_bytes(),
        ])
    }

    /// References to the source instances of these slices, each once.
    pub(super) fn instance_items(&self, slices: impl Iterator<Item = usize>) -> Vec<Dataset> {
        let mut seen = BTreeSet::new();
        slices
            .map(|slice| &self.references[slice])
            .filter(|reference| seen.insert(&reference.sop_instance_uid))
            .map(SourceReference::instance_item)
            .collect()
    }

    /// The tracking UID of a segment, the same in SEG and report.
    pub(super) fn tracking_uid(&self, segment: u16) -> Uid {
        self.uid("tracking", segment)
    }

    /// A result with its patient, study, series, equipment and SOP common modules.
    pub(super) fn dataset(&self, kind: &Kind) -> Result<Dataset, EncodeError> {
        let mut dataset = self.shared.clone();
        dataset.text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
        dataset.uid(tags::STUDY_INSTANCE_UID, self.study.as_str());
        // SOP Common
        dataset.uid(tags::SOP_CLASS_UID, kind.sop_class_uid);
        dataset.uid(
            tags::SOP_INSTANCE_UID,
            self.uid(&format!("{}.instance", kind.name), 1).as_str(),
        );
        let (date, clock) = (self.date(), self.clock());
        dataset.text(tags::INSTANCE_CREATION_DATE, VR::DA, date.clone());
        dataset.text(tags::INSTANCE_CREATION_TIME, VR::TM, clock.clone());
        dataset.sequence(
            tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE,
            vec![private_scheme()],
        );
        // Series
        dataset.text(tags::MODALITY, VR::CS, kind.modality);
        dataset.uid(
            tags::SERIES_INSTANCE_UID,
            self.uid(&format!("{}.series", kind.name), 1).as_str(),
        );
        dataset.text(tags::SERIES_NUMBER, VR::IS, kind.series_number.to_string());
        dataset.text(tags::SERIES_DATE, VR::DA, date.clone());
        dataset.text(tags::SERIES_TIME, VR::TM, clock.clone());
        dataset.text(
            tags::SERIES_DESCRIPTION,
            VR::LO,
            format!(
                "ictus {} {}, not for clinical use",
                self.maker.question(),
                kind.shows
            ),
        );
        // Equipment; software has no serial number, so that its version stands for it.
        dataset.text(tags::MANUFACTURER, VR::LO, "ictus");
        dataset.text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "ictus");
        dataset.text(tags::DEVICE_SERIAL_NUMBER, VR::LO, env!("CARGO_PKG_VERSION"));
        dataset.texts(tags::SOFTWARE_VERSIONS, VR::LO, &[env!("CARGO_PKG_VERSION")]);
        dataset.sequence(
            tags::CONTRIBUTING_EQUIPMENT_SEQUENCE,
            self.contributing_equipment()?,
        );
        // Instance
        dataset.text(tags::INSTANCE_NUMBER, VR::IS, "1");
        dataset.text(tags::CONTENT_DATE, VR::DA, date);
        dataset.text(tags::CONTENT_TIME, VR::TM, clock);
        Ok(dataset)
    }

    /// Frame of Reference and the order that the images were made for, for results that are images.
    pub(super) fn put_frame_of_reference(&self, dataset: &mut Dataset) -> Result<(), EncodeError> {
        let uid = one_uid(self.source, tags::FRAME_OF_REFERENCE_UID)?;
        dataset.uid(tags::FRAME_OF_REFERENCE_UID, uid.as_str());
        copy(
            self.source,
            &[tags::POSITION_REFERENCE_INDICATOR],
            Presence::Empty,
            dataset,
        )?;
        copy(
            self.source,
            &[tags::REQUEST_ATTRIBUTES_SEQUENCE],
            Presence::AsSource,
            dataset,
        )
    }

    /// The requests that the source was made for, as a report refers to them.
    pub(super) fn referenced_requests(&self) -> Result<Vec<Dataset>, EncodeError> {
        let mut source = Dataset::new_empty();
        copy(
            self.source,
            &[tags::REQUEST_ATTRIBUTES_SEQUENCE],
            Presence::AsSource,
            &mut source,
        )?;
        let Some(items) = source
            .get(tags::REQUEST_ATTRIBUTES_SEQUENCE)
            .and_then(|e| e.items())
        else {
            return Ok(Vec::new());
        };
        Ok(items.iter().map(|item| self.referenced_request(item)).collect())
    }

    fn referenced_request(&self, attributes: &Dataset) -> Dataset {
        let mut request = Dataset::new_empty();
        request.uid(tags::STUDY_INSTANCE_UID, self.study.as_str());
        request.empty(tags::REFERENCED_STUDY_SEQUENCE, VR::SQ);
        let held = |tag| attributes.get(tag).or_else(|| self.shared.get(tag)).map(unbound);
        for (tag, vr) in [
            (tags::ACCESSION_NUMBER, VR::SH),
            (tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, VR::LO),
            (tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, VR::LO),
            (tags::REQUESTED_PROCEDURE_ID, VR::SH),
            (tags::REQUESTED_PROCEDURE_DESCRIPTION, VR::LO),
            (tags::REQUESTED_PROCEDURE_CODE_SEQUENCE, VR::SQ),
        ] {
            match held(tag) {
                Some(element) => {
                    request.put(element);
                }
                None => request.empty(tag, vr),
            }
        }
        if let Some(element) = held(tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE) {
            request.put(element);
        }
        request
    }

    /// Copies whether and how the source was compressed lossily: a mask of a lossy image is one too.
    pub(super) fn put_lossy_compression(&self, dataset: &mut Dataset) {
        let lossy = self
            .source
            .iter()
            .find(|instance| text_of(instance, tags::LOSSY_IMAGE_COMPRESSION).as_deref() == Some("01"));
        dataset.text(
            tags::LOSSY_IMAGE_COMPRESSION,
            VR::CS,
            if lossy.is_some() { "01" } else { "00" },
        );
        for tag in [
            tags::LOSSY_IMAGE_COMPRESSION_RATIO,
            tags::LOSSY_IMAGE_COMPRESSION_METHOD,
        ] {
            if let Some(element) = lossy.and_then(|instance| element_of(instance, tag)) {
                dataset.put(element);
            }
        }
    }

    /// Closes a dataset into an instance.
    pub(super) fn object(&self, dataset: Dataset, kind: &Kind) -> Result<DefaultDicomObject, EncodeError> {
        dataset
            .with_meta(
                FileMetaTableBuilder::new()
                    .transfer_syntax(kind.transfer_syntax)
                    .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
                    .implementation_version_name(concat!("ICTUS_", env!("CARGO_PKG_VERSION"))),
            )
            .map_err(|error| EncodeError::Meta(redact(&error)))
    }

    fn contributing_equipment(&self) -> Result<Vec<Dataset>, EncodeError> {
        let mut items = Vec::new();
        let mut acquisition = Dataset::new_empty();
        for tag in ACQUISITION {
            // A series may hold several software versions and be sound: the first speaks.
            if let Some(element) = self.source.iter().find_map(|i| element_of(i, *tag)) {
                acquisition.put(element);
            }
        }
        if acquisition.get(tags::MANUFACTURER).is_some() {
            acquisition.code(
                tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
                &concept::ACQUISITION_EQUIPMENT,
            );
            items.push(acquisition);
        }
        let mut processing = Dataset::new_empty();
        processing.text(tags::MANUFACTURER, VR::LO, "ictus");
        processing.text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "ictus");
        processing.text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
        processing.text(tags::CONTRIBUTION_DESCRIPTION, VR::ST, self.maker.contribution());
        processing.code(
            tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
            &concept::PROCESSING_EQUIPMENT,
        );
        items.push(processing);
        Ok(items)
    }

    /// DA of the analysis, in the time zone that the source declares, or UTC.
    fn date(&self) -> String {
        let format = format_description!("[year][month][day]");
        self.created_at.format(format).unwrap_or_default()
    }

    /// TM of the analysis, in the time zone that the source declares, or UTC.
    fn clock(&self) -> String {
        let format = format_description!("[hour][minute][second].[subsecond digits:6]");
        self.created_at.format(format).unwrap_or_default()
    }
}

/// What the private codes of the results are.
fn private_scheme() -> Dataset {
    let mut item = Dataset::new_empty();
    item.text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, concept::SCHEME);
    item.text(tags::CODING_SCHEME_NAME, VR::ST, concept::SCHEME_NAME);
    item.text(tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, VR::ST, "ictus");
    item
}

/// The anatomic region of everything that no closer site is known of.
pub(super) fn brain_region() -> Dataset {
    code_item(&crate::domain::code::BRAIN)
}

/// `+0130` or `-0500` (PS3.3 section C.12.1.1.8).
fn parse_offset(text: &str) -> Option<UtcOffset> {
    let number: i32 = text.parse().ok()?;
    if text.len() != 5 || !text.starts_with(['+', '-']) {
        return None;
    }
    UtcOffset::from_whole_seconds((number / 100) * 3600 + (number % 100) * 60).ok()
}

pub(super) fn mismatch(
    what: &'static str,
    found: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> EncodeError {
    EncodeError::Mismatch {
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

fn check_grids(input: &EncodeInput<'_>) -> Result<(), EncodeError> {
    let geometry = &input.prediction.entropy.geometry;
    check_source(input.source, geometry)?;
    if input.segments.geometry != *geometry || input.brain.geometry != *geometry {
        return Err(mismatch(
            "grids of mask, brain and entropy",
            "different ones",
            "one",
        ));
    }
    for (what, len) in [
        ("voxels of the entropy", input.prediction.entropy.data.len()),
        ("voxels of the segments", input.segments.data.len()),
        ("voxels of the brain", input.brain.data.len()),
    ] {
        if len != geometry.len() {
            return Err(mismatch(what, len, geometry.len()));
        }
    }
    Ok(())
}

fn check_source(source: &[&Instance], geometry: &Geometry) -> Result<(), EncodeError> {
    if source.len() != geometry.slices() {
        return Err(mismatch("source instances", source.len(), geometry.slices()));
    }
    if u16::try_from(geometry.rows).is_err() || u16::try_from(geometry.columns).is_err() {
        let found = format!("{} × {}", geometry.rows, geometry.columns);
        return Err(mismatch("rows and columns", found, "at most 65535 each"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_time_zones_east_and_west() {
        for (text, seconds) in [
            ("+0130", Some(5400)),
            ("-0500", Some(-18000)),
            ("0130", None),
            ("+01:30", None),
        ] {
            assert_eq!(
                parse_offset(text).map(UtcOffset::whole_seconds),
                seconds,
                "{text}"
            );
        }
    }
}
