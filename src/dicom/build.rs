//! A dataset in the DICOM JSON model and the bulk values beside it → a Part 10 file.
//!
//! Bulk values are little-endian, as PS3.18 sends them; compressed pixels become the fragments of one frame.
//! JSON is UTF-8, so that is the character set of the file.
//! What a value may not be is dicom-json's to say.
//!
//! Source: PS3.18 section 10.5.1.2, annex F; PS3.10 section 7.1.

use crate::domain::phi::{Redacted, redact};
use dicom_core::{
    DataElement, Length, PrimitiveValue, Tag, VR,
    value::{C, DataSetSequence, PixelFragmentSequence, Value as DicomValue},
};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, mem::InMemElement};
use serde_json::{Map, Value};
use std::str::FromStr;

/// Sequences in sequences; deeper ones are taken for an attack on the stack.
const MAX_DEPTH: usize = 32;

/// Why metadata does not become an instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A key or a VR that is none, or a value of another shape than its VR has.
    #[error("attribute {0} of the metadata is not as the DICOM JSON model has it (PS3.18 annex F)")]
    Attribute(String),
    /// A BulkDataURI for which no part came.
    #[error("no part has the Content-Location of the BulkDataURI of attribute {0}")]
    Bulk(String),
    /// Compressed pixels within a sequence, or of several frames.
    #[error("compressed bulk data can only be the pixels of one frame, in attribute 7FE00010")]
    Compressed,
    /// Too deep.
    #[error("the sequences of the metadata are nested more than {MAX_DEPTH} deep")]
    Depth,
    /// It cannot be written.
    #[error("the metadata cannot be written as a DICOM file")]
    Write(#[source] Redacted),
}

/// One bulk value and how it is encoded.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The transfer syntax of its media type, when it is not Explicit VR Little Endian.
    pub compressed: Option<String>,
}

/// Writes the file; `bulk` is asked for the value of each BulkDataURI.
///
/// # Errors
/// When the metadata is not in the model, or a value that it names is not there.
pub fn part10(
    metadata: &Map<String, Value>,
    bulk: &mut dyn FnMut(&str) -> Option<Bulk>,
) -> Result<Vec<u8>, BuildError> {
    let mut syntax = uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned();
    let mut object = dataset(metadata, bulk, &mut syntax, 0)?;
    object.put(DataElement::new(
        tags::SPECIFIC_CHARACTER_SET,
        VR::CS,
        "ISO_IR 192",
    ));
    let text = |tag: Tag| {
        object
            .get(tag)
            .and_then(|element| element.to_str().ok())
            .map(|text| text.trim_end_matches([' ', '\0']).to_owned())
            .unwrap_or_default()
    };
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(&syntax)
        .media_storage_sop_class_uid(text(tags::SOP_CLASS_UID))
        .media_storage_sop_instance_uid(text(tags::SOP_INSTANCE_UID));
    let file = object
        .with_meta(meta)
        .map_err(|error| BuildError::Write(redact(&error)))?;
    let mut out = Vec::new();
    file.write_all(&mut out)
        .map_err(|error| BuildError::Write(redact(&error)))?;
    Ok(out)
}

fn dataset(
    metadata: &Map<String, Value>,
    bulk: &mut dyn FnMut(&str) -> Option<Bulk>,
    syntax: &mut String,
    depth: usize,
) -> Result<InMemDicomObject, BuildError> {
    if depth > MAX_DEPTH {
        return Err(BuildError::Depth);
    }
    let mut object = InMemDicomObject::new_empty();
    for (key, attribute) in metadata {
        let fault = || BuildError::Attribute(key.chars().take(8).collect());
        let half = |digits: Option<&str>| u16::from_str_radix(digits?, 16).ok();
        let tag = half(key.get(..4))
            .zip(half(key.get(4..)))
            .filter(|_| key.len() == 8)
            .map(|(group, element)| Tag(group, element))
            .ok_or_else(fault)?;
        // Group lengths and the meta information are written anew.
        if tag.element() == 0 || tag.group() <= 2 {
            continue;
        }
        let vr = attribute["vr"]
            .as_str()
            .and_then(|vr| VR::from_str(vr).ok())
            .ok_or_else(fault)?;
        let element = if vr == VR::SQ {
            let mut items: C<InMemDicomObject> = C::new();
            for item in attribute["Value"].as_array().into_iter().flatten() {
                let empty = Map::new();
                let item = if item.is_null() {
                    &empty
                } else {
                    item.as_object().ok_or_else(fault)?
                };
                items.push(dataset(item, bulk, syntax, depth + 1)?);
            }
            DataElement::new(
                tag,
                vr,
                DicomValue::Sequence(DataSetSequence::new(items, Length::UNDEFINED)),
            )
        } else if let Some(uri) = attribute.get("BulkDataURI") {
            let uri = uri.as_str().ok_or_else(fault)?;
            let value = bulk(uri).ok_or_else(|| BuildError::Bulk(key.clone()))?;
            bulk_element(tag, vr, value, syntax, depth)?
        } else {
            let alone = Value::Object(Map::from_iter([(key.clone(), attribute.clone())]));
            let alone: InMemDicomObject = dicom_json::from_value(alone).map_err(|_| fault())?;
            alone.into_iter().next().ok_or_else(fault)?
        };
        object.put(element);
    }
    Ok(object)
}

fn bulk_element(
    tag: Tag,
    vr: VR,
    value: Bulk,
    syntax: &mut String,
    depth: usize,
) -> Result<InMemElement, BuildError> {
    if let Some(compressed) = value.compressed {
        if tag != tags::PIXEL_DATA || depth > 0 {
            return Err(BuildError::Compressed);
        }
        *syntax = compressed;
        let mut fragment = value.bytes;
        if fragment.len() % 2 == 1 {
            fragment.push(0);
        }
        let sequence = PixelFragmentSequence::new(C::<u32>::new(), vec![fragment]);
        return Ok(DataElement::new(tag, VR::OB, sequence));
    }
    let words = |bytes: &[u8]| -> C<u16> {
        bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| u16::from_le_bytes(*pair))
            .collect()
    };
    let value = match vr {
        VR::OW => PrimitiveValue::U16(words(&value.bytes)),
        VR::OF => PrimitiveValue::F32(
            value
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
        ),
        VR::OD => PrimitiveValue::F64(
            value
                .bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect(),
        ),
        VR::OL => PrimitiveValue::U32(
            value
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| u32::from_le_bytes(*b))
                .collect(),
        ),
        VR::OV => PrimitiveValue::U64(
            value
                .bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| u64::from_le_bytes(*b))
                .collect(),
        ),
        VR::OB | VR::UN => PrimitiveValue::U8(value.bytes.into()),
        // Long texts may be sent as bulk data, too.
        VR::LT | VR::ST | VR::UC | VR::UR | VR::UT => String::from_utf8(value.bytes)
            .map(PrimitiveValue::from)
            .map_err(|_| BuildError::Attribute(format!("{tag}")))?,
        _ => return Err(BuildError::Attribute(format!("{tag}"))),
    };
    Ok(DataElement::new(tag, vr, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::instance::Instance;
    use serde_json::json;

    fn metadata() -> Map<String, Value> {
        let metadata = json!({
            "00080016": { "vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"] },
            "00080018": { "vr": "UI", "Value": ["1.2.3"] },
            "00081140": { "vr": "SQ", "Value": [{ "00081155": { "vr": "UI", "Value": ["1.2.9"] } }] },
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎" }] },
            "0020000D": { "vr": "UI", "Value": ["1.2.1"] },
            "0020000E": { "vr": "UI", "Value": ["1.2.2"] },
            "00280010": { "vr": "US", "Value": [1] },
            "7FE00010": { "vr": "OW", "BulkDataURI": "pixels" },
        });
        metadata.as_object().unwrap().clone()
    }

    #[test]
    fn writes_a_file_with_the_bulk_values_in_place() {
        let mut bulk = |uri: &str| {
            (uri == "pixels").then(|| Bulk {
                bytes: vec![1, 2, 3, 4],
                compressed: None,
            })
        };
        let file = part10(&metadata(), &mut bulk).unwrap();
        let instance = Instance::from_bytes(&file).unwrap();
        assert_eq!(instance.attributes.study_instance_uid.unwrap().as_str(), "1.2.1");
        let object = dicom_object::from_reader(&file[..]).unwrap();
        assert_eq!(
            object.get(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().as_ref(),
            [1, 2, 3, 4]
        );
        assert_eq!(
            object.get(tags::PATIENT_NAME).unwrap().to_str().unwrap(),
            "Yamada^Tarou=山田^太郎"
        );
    }

    #[test]
    fn refuses_what_is_missing_or_malformed() {
        let none = &mut |_: &str| None;
        assert!(matches!(part10(&metadata(), none), Err(BuildError::Bulk(tag)) if tag == "7FE00010"));
        let bad = json!({ "00280010": { "vr": "XX", "Value": [1] } });
        assert!(matches!(
            part10(bad.as_object().unwrap(), none),
            Err(BuildError::Attribute(_))
        ));
    }
}
