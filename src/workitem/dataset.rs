//! Attributes of a workitem in the DICOM JSON model: read, checked and put.
//!
//! Source: PS3.18 annex F; PS3.5 section 6.2 for DT.

use dicom_core::{
    Tag, VR,
    dictionary::{DataDictionary, DataDictionaryEntry},
};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use serde_json::{Map, Value, json};
use std::str::FromStr;
use time::{OffsetDateTime, macros::format_description};

/// A dataset in the DICOM JSON model.
pub type Dataset = Map<String, Value>;

/// The key of a tag.
#[must_use]
pub fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

/// The keyword of a tag, or the tag itself: for sentences.
pub(super) fn keyword(tag: Tag) -> String {
    StandardDataDictionary
        .by_tag(tag)
        .map_or_else(|| key(tag), |entry| entry.alias().to_owned())
}

/// Values of an attribute; none when it is empty or not there.
#[must_use]
pub fn values(dataset: &Dataset, tag: Tag) -> &[Value] {
    dataset
        .get(&key(tag))
        .and_then(|attribute| attribute.get("Value"))
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The first value as text, without padding; empty when there is none.
#[must_use]
pub fn text(dataset: &Dataset, tag: Tag) -> &str {
    let first = values(dataset, tag).first().and_then(Value::as_str);
    first.unwrap_or_default().trim_matches([' ', '\0'])
}

/// The items of a sequence.
pub fn items(dataset: &Dataset, tag: Tag) -> impl Iterator<Item = &Dataset> {
    values(dataset, tag).iter().filter_map(Value::as_object)
}

/// Whether an attribute has a value that is not empty.
pub(super) fn has_value(dataset: &Dataset, tag: Tag) -> bool {
    values(dataset, tag).iter().any(|value| {
        !matches!(value, Value::Null) && value.as_str().is_none_or(|text| !text.trim().is_empty())
    })
}

/// An attribute with the VR of PS3.6.
#[must_use]
pub fn attribute(tag: Tag, values: Vec<Value>) -> Value {
    let vr = StandardDataDictionary
        .by_tag(tag)
        .map_or("UN", |entry| entry.vr().relaxed().to_string());
    if values.is_empty() {
        json!({ "vr": vr })
    } else {
        json!({ "vr": vr, "Value": values })
    }
}

/// Puts an attribute in place.
pub fn put(dataset: &mut Dataset, tag: Tag, values: Vec<Value>) {
    dataset.insert(key(tag), attribute(tag, values));
}

/// A dataset of some attributes.
pub(super) fn dataset_of(attributes: impl IntoIterator<Item = (Tag, Vec<Value>)>) -> Dataset {
    let mut dataset = Dataset::new();
    for (tag, values) in attributes {
        put(&mut dataset, tag, values);
    }
    dataset
}

/// An item of a code sequence.
pub(super) fn code(value: &str, scheme: &str, meaning: &str) -> Value {
    Value::Object(dataset_of([
        (tags::CODE_VALUE, vec![json!(value)]),
        (tags::CODING_SCHEME_DESIGNATOR, vec![json!(scheme)]),
        (tags::CODE_MEANING, vec![json!(meaning)]),
    ]))
}

/// DT in UTC.
pub(super) fn date_time(at: OffsetDateTime) -> String {
    let format = format_description!("[year][month][day][hour][minute][second].[subsecond digits:3]+0000");
    at.to_offset(time::UtcOffset::UTC)
        .format(format)
        .unwrap_or_default()
}

/// What is wrong with a dataset of the JSON model; nothing when every attribute has its form.
pub(super) fn fault(dataset: &Dataset) -> Option<String> {
    for (name, attribute) in dataset {
        let is_tag = name.len() == 8
            && name
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        if !is_tag {
            return Some("a key is no tag of eight hexadecimal digits in capitals".to_owned());
        }
        let vr = attribute.get("vr").and_then(Value::as_str);
        let Some(vr) = vr.and_then(|vr| VR::from_str(vr).ok()) else {
            return Some(format!("attribute {name} does not say its VR"));
        };
        let Some(values) = attribute.get("Value") else {
            continue;
        };
        let Some(values) = values.as_array() else {
            return Some(format!("attribute {name} has a Value that is no list"));
        };
        for value in values {
            let within = match value {
                Value::Object(item) if vr == VR::SQ => fault(item),
                Value::Null => None,
                _ if vr == VR::SQ => Some(format!("sequence {name} holds something that is no item")),
                Value::Object(_) if vr != VR::PN => {
                    Some(format!("attribute {name} holds an item and is no sequence"))
                }
                Value::Array(_) => Some(format!("attribute {name} holds a list within its list")),
                _ => None,
            };
            if within.is_some() {
                return within;
            }
        }
        // Postgres keeps no NUL, and DICOM has it as padding only.
        if attribute.to_string().contains("\\u0000") {
            return Some(format!("attribute {name} holds a NUL character"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_attribute_has_not_its_form() {
        let fault_of = |value: Value| fault(value.as_object().unwrap()).unwrap_or_default();
        assert_eq!(
            fault_of(json!({ "00741204": { "vr": "LO", "Value": ["x"] }, "00404021": { "vr": "SQ" } })),
            ""
        );
        for (wrong, word) in [
            (json!({ "PatientName": { "vr": "PN" } }), "no tag"),
            (json!({ "00741204": { "Value": ["x"] } }), "00741204"),
            (json!({ "00741204": { "vr": "LO", "Value": "x" } }), "no list"),
            (json!({ "00404021": { "vr": "SQ", "Value": ["x"] } }), "no item"),
            (
                json!({ "00404021": { "vr": "SQ", "Value": [{ "0020000E": {} }] } }),
                "0020000E",
            ),
            (json!({ "00741204": { "vr": "LO", "Value": ["a\u{0}"] } }), "NUL"),
        ] {
            assert!(fault_of(wrong.clone()).contains(word), "{wrong}");
        }
    }

    #[test]
    fn writes_times_in_utc() {
        assert_eq!(date_time(OffsetDateTime::UNIX_EPOCH), "19700101000000.000+0000");
    }
}
