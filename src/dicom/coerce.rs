//! A stored file → the same file as it is given out: with a corrected identity, another series description or character set.
//!
//! What is stored never changes; this is what retrieval and delivery hand out instead.
//! Attributes of the patient and the order that are replaced stand in Original Attributes Sequence with their former values.
//! Pixels, UIDs and everything that is not named stay as they are.
//!
//! Source: PS3.3 section C.12.1.1.9 (Original Attributes); PS3.18 section 10.4.1 for coercion on retrieval.

use super::{DicomError, instance::Instance};
use crate::domain::phi::redact;
use dicom_core::{
    DataElement, Tag, VR,
    dictionary::DataDictionary,
    value::{DataSetSequence, Value},
};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::InMemDicomObject;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is corrected about a patient or an order, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coercion {
    /// New values by tag, `00100010`; an empty one empties the attribute.
    pub attributes: BTreeMap<String, String>,
    /// When, as DT.
    pub at: String,
    /// Who said so, for Modifying System.
    pub by: String,
}

/// What a file is given out with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes<'a> {
    /// A corrected identity.
    pub coercion: Option<&'a Coercion>,
    /// Another SeriesDescription.
    pub series_description: Option<&'a str>,
    /// Another character set, by its defined term.
    pub character_set: Option<&'a str>,
}

/// Text attributes that a correction may replace.
pub const COERCIBLE: [Tag; 7] = [
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::ACCESSION_NUMBER,
    tags::STUDY_ID,
];

/// The key of a tag in [`Coercion::attributes`] and in DICOM JSON.
#[must_use]
pub fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.0, tag.1)
}

fn vr(tag: Tag) -> VR {
    StandardDataDictionary
        .by_tag(tag)
        .map_or(VR::LO, |entry| entry.vr.relaxed())
}

/// The file with a corrected identity: what retrieval calls.
///
/// # Errors
/// When the stored file cannot be read or written.
pub fn coerce(part10: &[u8], coercion: &Coercion) -> Result<Vec<u8>, DicomError> {
    let changes = Changes {
        coercion: Some(coercion),
        ..Changes::default()
    };
    apply(part10, &changes)
}

/// The file with changes.
///
/// # Errors
/// When the stored file cannot be read, or a text cannot be written in the character set.
pub fn apply(part10: &[u8], changes: &Changes<'_>) -> Result<Vec<u8>, DicomError> {
    let Instance { mut object, .. } = Instance::from_bytes(part10)?;
    if let Some(coercion) = changes.coercion {
        put_identity(&mut object, coercion);
    }
    if let Some(description) = changes.series_description {
        let cut: String = description.chars().take(64).collect();
        object.put(DataElement::new(tags::SERIES_DESCRIPTION, VR::LO, cut));
    }
    if let Some(character_set) = changes.character_set {
        object.put(DataElement::new(
            tags::SPECIFIC_CHARACTER_SET,
            VR::CS,
            character_set,
        ));
    }
    let mut bytes = Vec::with_capacity(part10.len() + 1024);
    object
        .write_all(&mut bytes)
        .map_err(|error| DicomError::Dataset {
            source: redact(&error),
        })?;
    Ok(bytes)
}

/// DICOM JSON without bulk data with a corrected identity: what the index shows.
pub fn coerce_json(metadata: &mut serde_json::Value, coercion: &Coercion) {
    let Some(members) = metadata.as_object_mut() else {
        return;
    };
    for tag in COERCIBLE {
        let Some(value) = coercion.attributes.get(&key(tag)) else {
            continue;
        };
        let mut attribute = serde_json::json!({ "vr": vr(tag).to_string() });
        if !value.is_empty() {
            attribute["Value"] = match vr(tag) {
                VR::PN => serde_json::json!([{ "Alphabetic": value }]),
                _ => serde_json::json!([value]),
            };
        }
        members.insert(key(tag), attribute);
    }
}

fn put_identity(object: &mut InMemDicomObject, coercion: &Coercion) {
    let mut former = Vec::new();
    for tag in COERCIBLE {
        let Some(value) = coercion.attributes.get(&key(tag)) else {
            continue;
        };
        let before = object.get(tag).cloned();
        let text = before
            .as_ref()
            .and_then(|element| element.to_str().ok())
            .map(|text| text.trim_matches([' ', '\0']).to_owned());
        if text.as_deref().unwrap_or_default() == value {
            continue;
        }
        former.push(before.unwrap_or_else(|| DataElement::empty(tag, vr(tag))));
        let element = if value.is_empty() {
            DataElement::empty(tag, vr(tag))
        } else {
            DataElement::new(tag, vr(tag), value.as_str())
        };
        object.put(element);
    }
    if former.is_empty() {
        return;
    }
    object.put(DataElement::new(
        tags::SPECIFIC_CHARACTER_SET,
        VR::CS,
        "ISO_IR 192",
    ));
    let by: String = coercion.by.chars().filter(|c| *c != '\\').take(64).collect();
    let at = coercion.at.as_str();
    let item = InMemDicomObject::from_element_iter([
        DataElement::empty(tags::SOURCE_OF_PREVIOUS_VALUES, VR::LO),
        DataElement::new(tags::ATTRIBUTE_MODIFICATION_DATE_TIME, VR::DT, at),
        DataElement::new(tags::MODIFYING_SYSTEM, VR::LO, by),
        DataElement::new(tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION, VR::CS, "CORRECT"),
        DataElement::new(
            tags::MODIFIED_ATTRIBUTES_SEQUENCE,
            VR::SQ,
            DataSetSequence::from(vec![InMemDicomObject::from_element_iter(former)]),
        ),
    ]);
    let mut items = match object
        .take(tags::ORIGINAL_ATTRIBUTES_SEQUENCE)
        .map(DataElement::into_value)
    {
        Some(Value::Sequence(sequence)) => sequence.into_items().into_vec(),
        _ => Vec::new(),
    };
    items.push(item);
    object.put(DataElement::new(
        tags::ORIGINAL_ATTRIBUTES_SEQUENCE,
        VR::SQ,
        DataSetSequence::from(items),
    ));
}
