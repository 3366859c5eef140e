//! Attributes as DICOMweb names and returns them: keyword or tag → `GGGGEEEE`; which are returned on which level.
//!
//! Source: PS3.18 sections 8.3.4 and 10.6.3, tables 10.6.3-3 to 10.6.3-5; annex F for the JSON model.

use crate::db::metadata::Metadata;
use dicom_core::{
    Tag,
    dictionary::{DataDictionary, DataDictionaryEntry},
};
use dicom_dictionary_std::StandardDataDictionary;
use serde_json::{Map, Value, json};

/// A dataset in the DICOM JSON model.
pub type Dataset = Map<String, Value>;

/// The attributes of a path, each a keyword (`PatientName`) or a tag (`00100010`), joined by dots.
#[must_use]
pub fn path_of(text: &str) -> Option<Vec<Tag>> {
    text.split('.').map(one_tag).collect()
}

/// `GGGGEEEE` of a keyword or a tag; of a path only the first attribute.
#[must_use]
pub fn tag_of(text: &str) -> Option<Tag> {
    one_tag(text.split('.').next()?)
}

fn one_tag(text: &str) -> Option<Tag> {
    if text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let group = u16::from_str_radix(&text[..4], 16).ok()?;
        let element = u16::from_str_radix(&text[4..], 16).ok()?;
        return Some(Tag(group, element));
    }
    StandardDataDictionary.by_name(text).map(|entry| entry.tag())
}

/// The key of a tag in the JSON model.
#[must_use]
pub fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

/// The VR of a standard attribute, `UN` for others.
#[must_use]
pub fn vr_of(tag: Tag) -> &'static str {
    StandardDataDictionary
        .by_tag(tag)
        .map_or("UN", |entry| entry.vr().relaxed().to_string())
}

/// An attribute with its values; `vr` as PS3.6 has it.
#[must_use]
pub fn attribute(vr: &str, values: Vec<Value>) -> Value {
    if values.is_empty() {
        json!({ "vr": vr })
    } else {
        json!({ "vr": vr, "Value": values })
    }
}

/// Returned of every study (PS3.18 table 10.6.3-3), beside what is counted.
pub const STUDY: [Tag; 14] = [
    Tag(0x0008, 0x0005),
    Tag(0x0008, 0x0020),
    Tag(0x0008, 0x0030),
    Tag(0x0008, 0x0050),
    Tag(0x0008, 0x0056),
    Tag(0x0008, 0x0090),
    Tag(0x0008, 0x1030),
    Tag(0x0008, 0x1190),
    Tag(0x0010, 0x0010),
    Tag(0x0010, 0x0020),
    Tag(0x0010, 0x0030),
    Tag(0x0010, 0x0040),
    Tag(0x0020, 0x000D),
    Tag(0x0020, 0x0010),
];

/// Returned of every series (PS3.18 table 10.6.3-4).
pub const SERIES: [Tag; 9] = [
    Tag(0x0008, 0x0005),
    Tag(0x0008, 0x0060),
    Tag(0x0008, 0x103E),
    Tag(0x0008, 0x1190),
    Tag(0x0020, 0x000E),
    Tag(0x0020, 0x0011),
    Tag(0x0040, 0x0244),
    Tag(0x0040, 0x0245),
    Tag(0x0040, 0x0275),
];

/// Returned of every instance (PS3.18 table 10.6.3-5).
pub const INSTANCE: [Tag; 6] = [
    Tag(0x0008, 0x0005),
    Tag(0x0008, 0x0016),
    Tag(0x0008, 0x0018),
    Tag(0x0008, 0x0056),
    Tag(0x0008, 0x1190),
    Tag(0x0020, 0x0013),
];

/// Returned of an instance that is an image.
pub const IMAGE: [Tag; 4] = [
    Tag(0x0028, 0x0010),
    Tag(0x0028, 0x0011),
    Tag(0x0028, 0x0100),
    Tag(0x0028, 0x0008),
];

/// Further attributes that are the same for a whole study, on request (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2).
pub const STUDY_ON_REQUEST: [Tag; 25] = [
    Tag(0x0008, 0x0051),
    Tag(0x0008, 0x0096),
    Tag(0x0008, 0x009C),
    Tag(0x0008, 0x0201),
    Tag(0x0008, 0x1032),
    Tag(0x0008, 0x1048),
    Tag(0x0008, 0x1060),
    Tag(0x0008, 0x1080),
    Tag(0x0010, 0x0021),
    Tag(0x0010, 0x0024),
    Tag(0x0010, 0x0032),
    Tag(0x0010, 0x1000),
    Tag(0x0010, 0x1001),
    Tag(0x0010, 0x1002),
    Tag(0x0010, 0x1010),
    Tag(0x0010, 0x1020),
    Tag(0x0010, 0x1030),
    Tag(0x0010, 0x2160),
    Tag(0x0010, 0x2180),
    Tag(0x0010, 0x21B0),
    Tag(0x0010, 0x4000),
    Tag(0x0012, 0x0062),
    Tag(0x0012, 0x0063),
    Tag(0x0012, 0x0064),
    Tag(0x0032, 0x1032),
];

/// Further attributes that are the same for a whole series, on request (PS3.3 C.7.3.1, C.7.4.1, C.7.5.1).
pub const SERIES_ON_REQUEST: [Tag; 23] = [
    Tag(0x0008, 0x0021),
    Tag(0x0008, 0x0031),
    Tag(0x0008, 0x0068),
    Tag(0x0008, 0x0070),
    Tag(0x0008, 0x0080),
    Tag(0x0008, 0x0081),
    Tag(0x0008, 0x1010),
    Tag(0x0008, 0x1040),
    Tag(0x0008, 0x1050),
    Tag(0x0008, 0x1070),
    Tag(0x0008, 0x1090),
    Tag(0x0008, 0x1111),
    Tag(0x0018, 0x0015),
    Tag(0x0018, 0x1000),
    Tag(0x0018, 0x1020),
    Tag(0x0018, 0x1030),
    Tag(0x0018, 0x5100),
    Tag(0x0020, 0x0052),
    Tag(0x0020, 0x0060),
    Tag(0x0020, 0x1040),
    Tag(0x0040, 0x0253),
    Tag(0x0040, 0x0254),
    Tag(0x0040, 0x1001),
];

/// Takes attributes out of a stored dataset; those that are not there are empty.
pub fn copy(from: &Metadata, tags: &[Tag], into: &mut Dataset) {
    for &tag in tags {
        let key = key(tag);
        let value = from
            .get(&key)
            .unwrap_or_else(|| attribute(vr_of(tag), Vec::new()));
        into.insert(key, value);
    }
}

/// Puts an attribute that is made, not stored, in place.
pub fn put(into: &mut Dataset, tag: Tag, values: Vec<Value>) {
    into.insert(key(tag), attribute(vr_of(tag), values));
}

/// Says that the texts are UTF-8, whatever the stored file was written in (PS3.18 section F.2).
pub fn declare_utf8(dataset: &mut Dataset) {
    put(dataset, Tag(0x0008, 0x0005), vec![json!("ISO_IR 192")]);
}

/// Attributes of a dataset in ascending order of tags, as annex F wants them.
#[must_use]
pub fn sorted(dataset: Dataset) -> Dataset {
    let mut attributes: Vec<_> = dataset.into_iter().collect();
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    attributes.into_iter().collect()
}

/// Replaces the URIs of bulk data in a stored dataset by `{root}/{path}`, the path made of tags and item numbers.
pub fn set_bulk_data_uris(dataset: &mut Dataset, root: &str, path: &str) {
    for (key, attribute) in dataset.iter_mut() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}/{key}")
        };
        if let Some(uri) = attribute.get_mut("BulkDataURI") {
            *uri = json!(format!("{root}/{path}"));
        }
        let items = attribute
            .get_mut("Value")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for (index, item) in items.enumerate() {
            // A person name is an object too, but holds no attribute.
            if let Some(item) = item
                .as_object_mut()
                .filter(|item| item.values().all(|value| value.is_object()))
            {
                set_bulk_data_uris(item, root, &format!("{path}/{index}"));
            }
        }
    }
}

/// Where a stored dataset has values that are not in it but in the file: tags with the numbers of items between them.
pub fn bulk_places(
    dataset: &Dataset,
    above: &mut Vec<(Tag, Option<usize>)>,
    found: &mut Vec<Vec<(Tag, Option<usize>)>>,
) {
    for (key, attribute) in dataset {
        let Some(tag) = one_tag(key) else {
            continue;
        };
        if attribute.get("BulkDataURI").is_some() {
            let mut place = above.clone();
            place.push((tag, None));
            found.push(place);
        }
        let items = attribute.get("Value").and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            if let Some(item) = item
                .as_object()
                .filter(|item| item.values().all(|value| value.is_object()))
            {
                above.push((tag, Some(index)));
                bulk_places(item, above, found);
                above.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_attributes_by_keyword_and_by_tag() {
        assert_eq!(tag_of("PatientName"), Some(Tag(0x0010, 0x0010)));
        assert_eq!(tag_of("0020000d"), Some(Tag(0x0020, 0x000D)));
        assert_eq!(
            tag_of("RequestAttributesSequence.StudyID"),
            Some(Tag(0x0040, 0x0275))
        );
        assert_eq!(tag_of("limit"), None);
    }

    #[test]
    fn returns_required_attributes_even_when_they_are_not_known() {
        let stored = json!({ "00100020": { "vr": "LO", "Value": ["1"] } });
        let mut out = Dataset::new();
        copy(
            &serde_json::from_value(stored).unwrap(),
            &[Tag(0x0010, 0x0020), Tag(0x0010, 0x0010)],
            &mut out,
        );
        assert_eq!(
            Value::Object(out),
            json!({ "00100020": { "vr": "LO", "Value": ["1"] }, "00100010": { "vr": "PN" } })
        );
    }

    #[test]
    fn points_bulk_data_to_its_place_in_nested_items() {
        let mut stored = json!({
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "A" }] },
            "52009230": { "vr": "SQ", "Value": [{ "00281050": { "vr": "OW", "BulkDataURI": "x" } }] },
            "7FE00010": { "vr": "OW", "BulkDataURI": "y" },
        });
        set_bulk_data_uris(stored.as_object_mut().unwrap(), "http://h/b", "");
        assert_eq!(stored["7FE00010"]["BulkDataURI"], "http://h/b/7FE00010");
        assert_eq!(
            stored["52009230"]["Value"][0]["00281050"]["BulkDataURI"],
            "http://h/b/52009230/0/00281050"
        );
    }
}
