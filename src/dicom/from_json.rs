//! DICOM JSON model → dataset.
//!
//! The reverse of [`super::json`], for answers that are made of the index: what has only a BulkDataURI comes out empty,
//! and a value that does not fit its VR is left out.
//!
//! Source: PS3.18 annex F; PS3.5 table 6.2-1.

use dicom_core::{
    DataElement, PrimitiveValue, Tag, VR,
    value::{C, Value as DicomValue},
};
use dicom_object::{InMemDicomObject, mem::InMemElement};
use serde_json::{Map, Value};
use std::str::FromStr;

/// Reads a dataset; keys that are no tags are left out.
#[must_use]
pub fn dataset(json: &Map<String, Value>) -> InMemDicomObject {
    let elements = json
        .iter()
        .filter_map(|(key, attribute)| element(tag(key)?, attribute));
    InMemDicomObject::from_element_iter(elements)
}

/// Reads one attribute; `None` when it does not say its VR.
#[must_use]
pub fn element(tag: Tag, attribute: &Value) -> Option<InMemElement> {
    let vr = VR::from_str(attribute.get("vr")?.as_str()?).ok()?;
    let values = attribute.get("Value").and_then(Value::as_array);
    let values = values.map_or(&[][..], Vec::as_slice);
    if vr == VR::SQ {
        let items: Vec<InMemDicomObject> = values.iter().filter_map(Value::as_object).map(dataset).collect();
        return Some(DataElement::new(tag, vr, DicomValue::Sequence(items.into())));
    }
    Some(DataElement::new(
        tag,
        vr,
        DicomValue::Primitive(primitive(vr, values)),
    ))
}

/// An attribute without a value.
#[must_use]
pub fn empty(tag: Tag, vr: VR) -> InMemElement {
    if vr == VR::SQ {
        let none: Vec<InMemDicomObject> = Vec::new();
        return DataElement::new(tag, vr, DicomValue::Sequence(none.into()));
    }
    DataElement::new(tag, vr, DicomValue::Primitive(PrimitiveValue::Empty))
}

fn primitive(vr: VR, values: &[Value]) -> PrimitiveValue {
    let integers = || values.iter().filter_map(Value::as_i64);
    match vr {
        _ if values.is_empty() => PrimitiveValue::Empty,
        VR::US => PrimitiveValue::U16(integers().filter_map(|n| u16::try_from(n).ok()).collect()),
        VR::SS => PrimitiveValue::I16(integers().filter_map(|n| i16::try_from(n).ok()).collect()),
        VR::UL => PrimitiveValue::U32(integers().filter_map(|n| u32::try_from(n).ok()).collect()),
        VR::SL => PrimitiveValue::I32(integers().filter_map(|n| i32::try_from(n).ok()).collect()),
        VR::SV => PrimitiveValue::I64(integers().collect()),
        VR::UV => PrimitiveValue::U64(values.iter().filter_map(Value::as_u64).collect()),
        #[expect(clippy::cast_possible_truncation, reason = "an FL holds 32 bits")]
        VR::FL => PrimitiveValue::F32(
            values
                .iter()
                .filter_map(Value::as_f64)
                .map(|n| n as f32)
                .collect(),
        ),
        VR::FD => PrimitiveValue::F64(values.iter().filter_map(Value::as_f64).collect()),
        VR::AT => PrimitiveValue::Tags(values.iter().filter_map(Value::as_str).filter_map(tag).collect()),
        VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN => PrimitiveValue::Empty,
        VR::LT | VR::ST | VR::UT | VR::UR => PrimitiveValue::Str(text(&values[0])),
        _ => PrimitiveValue::Strs(values.iter().map(text).collect::<C<_>>()),
    }
}

/// A value as it is written in a dataset: a text, a number, or the three groups of a person's name.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Object(name) => {
            let group = |group: &str| name.get(group).and_then(Value::as_str).unwrap_or_default();
            let groups = [group("Alphabetic"), group("Ideographic"), group("Phonetic")];
            groups.join("=").trim_end_matches('=').to_owned()
        }
        _ => String::new(),
    }
}

/// The tag of a key of the JSON model.
#[must_use]
pub fn tag(key: &str) -> Option<Tag> {
    let hex = |range| u16::from_str_radix(key.get(range)?, 16).ok();
    (key.len() == 8).then_some(Tag(hex(0..4)?, hex(4..8)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::json::to_json;
    use serde_json::json;

    #[test]
    fn what_was_written_is_read_back() {
        let written = json!({
            "00080008": {"vr": "CS", "Value": ["ORIGINAL", "AXIAL"]},
            "00080050": {"vr": "SH"},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
            "00280010": {"vr": "US", "Value": [512]},
            "00280030": {"vr": "DS", "Value": [0.5, 0.5]},
            "00280009": {"vr": "AT", "Value": ["00181063"]},
            "00400275": {"vr": "SQ", "Value": [{"00401001": {"vr": "SH", "Value": ["P1"]}}]},
        });
        let object = dataset(written.as_object().unwrap());
        assert_eq!(Value::Object(to_json(&object, &str::to_owned)), written);
    }

    #[test]
    fn leaves_out_what_does_not_fit() {
        let strange =
            json!({ "x": {"vr": "CS"}, "00080050": {}, "00280010": {"vr": "US", "Value": [70000]} });
        let object = dataset(strange.as_object().unwrap());
        assert_eq!(object.into_iter().count(), 1);
    }
}
