//! Dataset → DICOM JSON model.
//!
//! Pixel data and large binary values become a BulkDataURI that the caller makes from the attribute's path; small binary values stay inline.
//! Group 0002, group lengths and trailing padding are left out, and numbers that JSON does not have are written as text.
//! This does not read JSON.
//!
//! Source: PS3.18 annex F.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use dicom_core::{PrimitiveValue, Tag, VR, header::Header, value::Value as DicomValue};
use dicom_dictionary_std::tags;
use dicom_object::{InMemDicomObject, mem::InMemElement};
use serde_json::{Map, Value, json};

/// Binary values up to this many bytes stay in the document; overlays, LUTs and pixels are larger.
const MAX_INLINE_BYTES: usize = 1024;

/// Writes a dataset as DICOM JSON.
///
/// `bulk_data_uri` gets the path of a bulk value, `7FE00010` or `52009230/0/00281050`, and answers its URI.
#[must_use]
pub fn to_json(object: &InMemDicomObject, bulk_data_uri: &dyn Fn(&str) -> String) -> Map<String, Value> {
    dataset(object, "", bulk_data_uri)
}

fn dataset(object: &InMemDicomObject, path: &str, bulk: &dyn Fn(&str) -> String) -> Map<String, Value> {
    object
        .into_iter()
        .filter(|element| element.tag().1 != 0 && element.tag().0 > 0x0002)
        .filter(|element| element.tag() != tags::DATA_SET_TRAILING_PADDING)
        .map(|element| {
            let key = key(element.tag());
            let attribute = attribute(element, &format!("{path}{key}"), bulk);
            (key, attribute)
        })
        .collect()
}

fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.0, tag.1)
}

fn attribute(element: &InMemElement, path: &str, bulk: &dyn Fn(&str) -> String) -> Value {
    let vr = element.vr();
    let mut attribute = Map::new();
    attribute.insert("vr".to_owned(), json!(vr.to_string()));
    match element.value() {
        DicomValue::PixelSequence(_) => {
            attribute.insert("BulkDataURI".to_owned(), json!(bulk(path)));
        }
        DicomValue::Sequence(sequence) => {
            let items: Vec<Value> = sequence
                .items()
                .iter()
                .enumerate()
                .map(|(index, item)| Value::Object(dataset(item, &format!("{path}/{index}/"), bulk)))
                .collect();
            if !items.is_empty() {
                attribute.insert("Value".to_owned(), Value::Array(items));
            }
        }
        DicomValue::Primitive(value) if is_binary(vr) => {
            let bytes = value.to_bytes();
            if element.tag() == tags::PIXEL_DATA || bytes.len() > MAX_INLINE_BYTES {
                attribute.insert("BulkDataURI".to_owned(), json!(bulk(path)));
            } else if !bytes.is_empty() {
                attribute.insert("InlineBinary".to_owned(), json!(BASE64.encode(&bytes)));
            }
        }
        DicomValue::Primitive(value) => {
            let values = values(value, vr);
            if !values.iter().all(Value::is_null) {
                attribute.insert("Value".to_owned(), Value::Array(values));
            }
        }
    }
    Value::Object(attribute)
}

fn is_binary(vr: VR) -> bool {
    matches!(vr, VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN)
}

fn values(value: &PrimitiveValue, vr: VR) -> Vec<Value> {
    match vr {
        VR::AT => match value {
            PrimitiveValue::Tags(tags) => tags.iter().map(|tag| json!(key(*tag))).collect(),
            _ => Vec::new(),
        },
        VR::DS | VR::FL | VR::FD => texts(value).iter().map(|text| float(text)).collect(),
        VR::IS | VR::SL | VR::SS | VR::UL | VR::US | VR::SV | VR::UV => {
            texts(value).iter().map(|text| integer(text)).collect()
        }
        VR::PN => texts(value).iter().map(|text| person_name(text)).collect(),
        VR::LT | VR::ST | VR::UT => vec![text_or_null(value.to_raw_str().trim_end_matches([' ', '\0']))],
        _ => texts(value).iter().map(|text| text_or_null(text)).collect(),
    }
}

fn texts(value: &PrimitiveValue) -> Vec<String> {
    value
        .to_multi_str()
        .iter()
        .map(|text| text.trim_matches([' ', '\0']).to_owned())
        .collect()
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn float(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        _ => text_or_null(text),
    }
}

fn integer(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return json!(number);
    }
    text.parse::<u64>()
        .map_or_else(|_| text_or_null(text), |number| json!(number))
}

fn person_name(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    let groups = ["Alphabetic", "Ideographic", "Phonetic"];
    let name: Map<String, Value> = groups
        .iter()
        .zip(text.splitn(3, '='))
        .filter(|(_, part)| !part.is_empty())
        .map(|(group, part)| ((*group).to_owned(), json!(part)))
        .collect();
    Value::Object(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::{DataElement, dicom_value};

    #[test]
    fn writes_the_model_of_ps3_18_annex_f() {
        let item = InMemDicomObject::from_element_iter([
            DataElement::new(tags::CODE_VALUE, VR::SH, "T-A0100 "),
            DataElement::new(
                Tag(0x6000, 0x3000),
                VR::OW,
                PrimitiveValue::U16(vec![0; 600].into()),
            ),
        ]);
        let object = InMemDicomObject::from_element_iter([
            DataElement::new(tags::PATIENT_NAME, VR::PN, "Yamada^Tarou=山田^太郎"),
            DataElement::new(
                tags::IMAGE_TYPE,
                VR::CS,
                dicom_value!(Strs, ["ORIGINAL", "", "AXIAL "]),
            ),
            DataElement::new(tags::ACCESSION_NUMBER, VR::SH, PrimitiveValue::Empty),
            DataElement::new(tags::PIXEL_SPACING, VR::DS, dicom_value!(Strs, ["0.5", "NaN"])),
            DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(512u16)),
            DataElement::new(
                tags::FRAME_INCREMENT_POINTER,
                VR::AT,
                dicom_value!(Tags, [tags::FRAME_TIME]),
            ),
            DataElement::new(
                Tag(0x0029, 0x1010),
                VR::OB,
                PrimitiveValue::from(vec![1u8, 2, 3, 4]),
            ),
            DataElement::new(
                tags::ANATOMIC_REGION_SEQUENCE,
                VR::SQ,
                DicomValue::Sequence(vec![item].into()),
            ),
            DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(vec![7; 4].into())),
        ]);
        let written = Value::Object(to_json(&object, &|path| format!("/bulk/{path}")));
        let expected = json!({
            "00080008": {"vr": "CS", "Value": ["ORIGINAL", null, "AXIAL"]},
            "00080050": {"vr": "SH"},
            "00082218": {"vr": "SQ", "Value": [{
                "00080100": {"vr": "SH", "Value": ["T-A0100"]},
                "60003000": {"vr": "OW", "BulkDataURI": "/bulk/00082218/0/60003000"},
            }]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
            "00280009": {"vr": "AT", "Value": ["00181063"]},
            "00280010": {"vr": "US", "Value": [512]},
            "00280030": {"vr": "DS", "Value": [0.5, "NaN"]},
            "00291010": {"vr": "OB", "InlineBinary": "AQIDBA=="},
            "7FE00010": {"vr": "OW", "BulkDataURI": "/bulk/7FE00010"},
        });
        assert_eq!(written, expected);
    }
}
