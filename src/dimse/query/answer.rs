//! What matched → the dataset of an answer: every key that was asked for, and where it can be had.
//!
//! A key that is not known, or not on this level, is there without a value.
//!
//! Source: PS3.4 sections C.4.1.1.3.2, C.4.1.3.1.1 and C.6.

use super::identifier::{COUNTS, Identifier, Key};
use crate::{
    db::{
        metadata::Metadata,
        qido::{InstanceMatch, PatientMatch, SeriesMatch, StudyMatch},
    },
    dicom::{
        from_json::{element, empty},
        level::{self, Level},
    },
};
use dicom_core::{DataElement, Tag, VR, header::Header, value::Value as DicomValue};
use dicom_dictionary_std::tags;
use dicom_object::{InMemDicomObject, mem::InMemElement};
use serde_json::{Value, json};

/// One patient, study, series or instance that matched.
pub(super) struct Match {
    /// The studies that it shows, for the trail.
    pub(super) studies: Vec<String>,
    metadata: Metadata,
    modalities: Option<Vec<String>>,
    counts: Vec<(Tag, i64)>,
    /// InstanceAvailability; a patient has none.
    availability: Option<String>,
}

impl Match {
    /// A stored attribute in the DICOM JSON model.
    pub(super) fn attribute(&self, tag: Tag) -> Option<Value> {
        if tag == tags::MODALITIES_IN_STUDY {
            return Some(json!({ "vr": "CS", "Value": self.modalities.as_ref()? }));
        }
        let key = format!("{:04X}{:04X}", tag.group(), tag.element());
        self.metadata.get(&key)
    }
}

impl From<PatientMatch> for Match {
    fn from(found: PatientMatch) -> Self {
        let studies = i64::try_from(found.studies.len()).unwrap_or(i64::MAX);
        Self {
            counts: vec![
                (tags::NUMBER_OF_PATIENT_RELATED_STUDIES, studies),
                (tags::NUMBER_OF_PATIENT_RELATED_SERIES, found.series_count),
                (tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, found.instance_count),
            ],
            studies: found.studies,
            metadata: found.metadata,
            modalities: None,
            availability: None,
        }
    }
}

impl From<StudyMatch> for Match {
    fn from(found: StudyMatch) -> Self {
        Self {
            studies: vec![found.study_instance_uid],
            metadata: found.metadata,
            modalities: Some(found.modalities),
            counts: vec![
                (tags::NUMBER_OF_STUDY_RELATED_SERIES, found.series_count),
                (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, found.instance_count),
            ],
            availability: Some(found.availability),
        }
    }
}

impl From<SeriesMatch> for Match {
    fn from(found: SeriesMatch) -> Self {
        Self {
            studies: vec![found.study_instance_uid],
            metadata: found.metadata,
            modalities: None,
            counts: vec![(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, found.instance_count)],
            availability: Some(found.availability),
        }
    }
}

impl From<InstanceMatch> for Match {
    fn from(found: InstanceMatch) -> Self {
        Self {
            studies: vec![found.study_instance_uid],
            metadata: found.metadata,
            modalities: None,
            counts: Vec::new(),
            availability: Some(found.availability),
        }
    }
}

/// The dataset that answers an identifier with a match; `title` is who it can be had from.
pub(super) fn answer(identifier: &Identifier, found: &Match, title: &str) -> InMemDicomObject {
    let mut answer =
        InMemDicomObject::from_element_iter(identifier.keys.iter().map(|key| value(identifier, found, key)));
    let level = match identifier.level {
        Level::Patient => "PATIENT",
        Level::Study => "STUDY",
        Level::Series => "SERIES",
        Level::Image => "IMAGE",
    };
    answer.put(DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
    answer.put(DataElement::new(tags::RETRIEVE_AE_TITLE, VR::AE, title));
    if let Some(availability) = &found.availability {
        answer.put(DataElement::new(
            tags::INSTANCE_AVAILABILITY,
            VR::CS,
            availability.as_str(),
        ));
    }
    answer
}

fn value(identifier: &Identifier, found: &Match, key: &Key) -> InMemElement {
    let (tag, vr) = (key.tag, key.vr);
    if COUNTS.contains(&tag) {
        let count = found.counts.iter().find(|(counted, _)| *counted == tag);
        return count.map_or_else(
            || empty(tag, vr),
            |(_, count)| DataElement::new(tag, VR::IS, count.to_string()),
        );
    }
    let is_known = tag == tags::MODALITIES_IN_STUDY || level::of(tag) <= identifier.level;
    let stored = found.attribute(tag).filter(|_| is_known);
    let Some(stored) = stored.and_then(|stored| element(tag, &stored)) else {
        return empty(tag, vr);
    };
    match (stored.value(), key.items.is_empty()) {
        (DicomValue::Sequence(sequence), false) => {
            let items: Vec<InMemDicomObject> = sequence
                .items()
                .iter()
                .map(|item| {
                    let wanted = item.iter().filter(|nested| key.items.contains(&nested.tag()));
                    InMemDicomObject::from_element_iter(wanted.cloned())
                })
                .collect();
            DataElement::new(tag, VR::SQ, DicomValue::Sequence(items.into()))
        }
        _ => stored,
    }
}
