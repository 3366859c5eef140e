//! Source instances → the attributes and identifiers that results share with them.
//!
//! What all instances say, or what one says and the others leave out, is taken over; two different values are a refusal.
//! Text arrives decoded from `dicom`; text that could not be decoded is refused, because it would be repeated wrongly.
//!
//! Source: PS3.3 sections C.7.1.1 to C.7.2.3 for what belongs to patient and study.

use super::{
    EncodeError,
    element::{Dataset, Fill, unbound},
};
use crate::{dicom::instance::Instance, domain::uid::Uid};
use dicom_core::{Tag, VR, dictionary::DataDictionary};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::mem::InMemElement;

/// Whether an attribute is written when no instance has a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Type 2: written empty.
    Empty,
    /// Type 3, or conditional: empty where the source has it empty, else absent.
    AsSource,
}

/// Type 2 of patient and study.
pub(super) const TYPE_2: &[Tag] = &[
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::STUDY_ID,
    tags::ACCESSION_NUMBER,
];

/// The rest of patient, patient study, general study, clinical trial and de-identification.
pub(super) const OPTIONAL: &[Tag] = &[
    tags::ISSUER_OF_PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE,
    tags::OTHER_PATIENT_I_DS_SEQUENCE,
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
    tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::STUDY_DESCRIPTION,
    tags::PROCEDURE_CODE_SEQUENCE,
    tags::ADMISSION_ID,
    tags::CLINICAL_TRIAL_SPONSOR_NAME,
    tags::CLINICAL_TRIAL_PROTOCOL_ID,
    tags::CLINICAL_TRIAL_PROTOCOL_NAME,
    tags::CLINICAL_TRIAL_SITE_ID,
    tags::CLINICAL_TRIAL_SITE_NAME,
    tags::CLINICAL_TRIAL_SUBJECT_ID,
    tags::CLINICAL_TRIAL_TIME_POINT_ID,
    tags::TIMEZONE_OFFSET_FROM_UTC,
];

/// What the scanner says of itself, for Contributing Equipment Sequence.
pub(super) const ACQUISITION: &[Tag] = &[
    tags::MANUFACTURER,
    tags::INSTITUTION_NAME,
    tags::STATION_NAME,
    tags::MANUFACTURER_MODEL_NAME,
    tags::DEVICE_SERIAL_NUMBER,
    tags::SOFTWARE_VERSIONS,
];

/// PS3.6 keyword, for errors.
fn keyword(tag: Tag) -> &'static str {
    StandardDataDictionary
        .by_tag(tag)
        .map_or("an attribute", |entry| entry.alias)
}

/// PS3.6 VR; none of the attributes here has a choice.
fn vr(tag: Tag) -> VR {
    StandardDataDictionary
        .by_tag(tag)
        .map_or(VR::UN, |entry| entry.vr.relaxed())
}

/// Whether an element is there and has a value; text arrives decoded.
///
/// The one place where a source's text is taken over, and so the one place that follows how it is decoded.
pub(super) fn element_of(instance: &Instance, tag: Tag) -> Option<InMemElement> {
    instance
        .object
        .get(tag)
        .filter(|element| !is_blank(element))
        .map(unbound)
}

/// A text attribute, without padding.
pub(super) fn text_of(instance: &Instance, tag: Tag) -> Option<String> {
    let element = element_of(instance, tag)?;
    Some(element.to_str().ok()?.trim_matches(['\0', ' ']).to_owned())
}

fn is_blank(element: &InMemElement) -> bool {
    match element.items() {
        Some(items) => items.is_empty(),
        None => element
            .to_str()
            .is_ok_and(|text| text.trim_matches(['\0', ' ']).is_empty()),
    }
}

/// Whether two elements say the same, whatever their padding and the lengths of their items.
fn same(a: &InMemElement, b: &InMemElement) -> bool {
    match (a.items(), b.items()) {
        (Some(a), Some(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| a.tags().eq(b.tags()) && a.iter().zip(b.iter()).all(|(a, b)| same(a, b)))
        }
        (None, None) => match (a.to_str(), b.to_str()) {
            (Ok(a), Ok(b)) => a.trim_matches(['\0', ' ']) == b.trim_matches(['\0', ' ']),
            _ => a == b,
        },
        _ => false,
    }
}

/// Copies each attribute that any instance has; one that is there without a value stays so.
pub(super) fn copy(
    source: &[&Instance],
    attributes: &[Tag],
    presence: Presence,
    to: &mut Dataset,
) -> Result<(), EncodeError> {
    for tag in attributes {
        let mut held: Option<InMemElement> = None;
        for instance in source {
            let Some(element) = element_of(instance, *tag) else {
                continue;
            };
            if is_undecoded(&element) {
                return Err(EncodeError::Undecodable {
                    keyword: keyword(*tag),
                    tag: *tag,
                });
            }
            match &held {
                Some(first) if !same(first, &element) => {
                    return Err(EncodeError::Conflict {
                        keyword: keyword(*tag),
                        tag: *tag,
                    });
                }
                Some(_) => {}
                None => held = Some(element),
            }
        }
        let is_there = source.iter().any(|instance| instance.object.get(*tag).is_some());
        match held {
            Some(element) => {
                to.put(element);
            }
            None if presence == Presence::Empty || is_there => to.empty(*tag, vr(*tag)),
            None => {}
        }
    }
    Ok(())
}

/// Whether a text holds bytes that its character set does not know: `dicom` lets them stand as U+F700 + byte.
fn is_undecoded(element: &InMemElement) -> bool {
    match element.items() {
        Some(items) => items.iter().any(|item| item.iter().any(is_undecoded)),
        None => element
            .to_str()
            .is_ok_and(|text| text.contains(|c| ('\u{F700}'..='\u{F7FF}').contains(&c))),
    }
}

pub(super) fn uid_of(instance: &Instance, index: usize, tag: Tag) -> Result<Uid, EncodeError> {
    text_of(instance, tag)
        .and_then(|text| Uid::parse(&text).ok())
        .ok_or(EncodeError::Missing {
            instance: index + 1,
            keyword: keyword(tag),
            tag,
        })
}

/// A UID that every instance must share.
pub(super) fn one_uid(source: &[&Instance], tag: Tag) -> Result<Uid, EncodeError> {
    let mut one = None;
    for (index, instance) in source.iter().enumerate() {
        let uid = uid_of(instance, index, tag)?;
        if one.get_or_insert_with(|| uid.clone()) != &uid {
            return Err(EncodeError::Conflict {
                keyword: keyword(tag),
                tag,
            });
        }
    }
    one.ok_or(EncodeError::Missing {
        instance: 1,
        keyword: keyword(tag),
        tag,
    })
}
