//! DICOM JSON model ↔ Native DICOM Model, its XML twin.
//!
//! Both say the same; JSON is what is stored and computed with, so the XML is made from it and turned into it.
//! Texts that XML 1.0 cannot hold (control characters) are written without them.
//! Reading refuses a document type declaration: nothing is expanded or fetched.
//!
//! Source: PS3.19 annex A.1; PS3.18 annex F.

use dicom_core::{
    Tag,
    dictionary::{DataDictionary, DataDictionaryEntry},
};
use dicom_dictionary_std::StandardDataDictionary;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// The namespace of the model.
const NAMESPACE: &str = "http://dicom.nema.org/PS3.19/models/NativeDICOM";
/// Sequences in sequences; deeper ones are taken for an attack on the stack.
const MAX_DEPTH: usize = 32;
/// The groups of a person name, and the parts of a group.
const GROUPS: [&str; 3] = ["Alphabetic", "Ideographic", "Phonetic"];
const PARTS: [&str; 5] = [
    "FamilyName",
    "GivenName",
    "MiddleName",
    "NamePrefix",
    "NameSuffix",
];

/// Why XML is not a dataset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Not XML at all, or with a document type declaration.
    #[error("the XML cannot be read at line {line}; expected a NativeDicomModel without a document type")]
    Syntax {
        /// Counted from 1.
        line: u32,
    },
    /// Another element than the model has.
    #[error("the XML is no Native DICOM Model (PS3.19 annex A.1): {0}")]
    Model(&'static str),
}

/// Writes a dataset in the DICOM JSON model as a document of the Native DICOM Model.
#[must_use]
pub fn to_xml(dataset: &Map<String, Value>) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    let _ = write!(
        out,
        "<NativeDicomModel xmlns=\"{NAMESPACE}\" xml:space=\"preserve\">"
    );
    attributes(dataset, &mut out);
    out.push_str("</NativeDicomModel>");
    out
}

fn attributes(dataset: &Map<String, Value>, out: &mut String) {
    for (key, attribute) in dataset {
        let vr = attribute["vr"].as_str().unwrap_or("UN");
        let _ = write!(out, "<DicomAttribute tag=\"{}\" vr=\"{vr}\"", public_key(key));
        if let Some(keyword) = keyword(key) {
            let _ = write!(out, " keyword=\"{keyword}\"");
        }
        if let Some(creator) = private_creator(key, dataset) {
            out.push_str(" privateCreator=\"");
            escape(creator, out);
            out.push('"');
        }
        out.push('>');
        if let Some(uri) = attribute["BulkDataURI"].as_str() {
            out.push_str("<BulkData uri=\"");
            escape(uri, out);
            out.push_str("\"/>");
        }
        if let Some(binary) = attribute["InlineBinary"].as_str() {
            let _ = write!(out, "<InlineBinary>{binary}</InlineBinary>");
        }
        let values = attribute["Value"].as_array().into_iter().flatten();
        for (number, value) in (1..).zip(values) {
            one_value(vr, number, value, out);
        }
        out.push_str("</DicomAttribute>");
    }
}

fn one_value(vr: &str, number: usize, value: &Value, out: &mut String) {
    match value {
        Value::Object(item) if vr == "SQ" => {
            let _ = write!(out, "<Item number=\"{number}\">");
            attributes(item, out);
            out.push_str("</Item>");
        }
        Value::Object(name) => {
            let _ = write!(out, "<PersonName number=\"{number}\">");
            for group in GROUPS {
                let Some(text) = name.get(group).and_then(Value::as_str) else {
                    continue;
                };
                let _ = write!(out, "<{group}>");
                for (part, text) in PARTS.iter().zip(text.split('^')) {
                    if !text.is_empty() {
                        let _ = write!(out, "<{part}>");
                        escape(text, out);
                        let _ = write!(out, "</{part}>");
                    }
                }
                let _ = write!(out, "</{group}>");
            }
            out.push_str("</PersonName>");
        }
        // An empty value keeps its number by not being there.
        Value::Null => {}
        value => {
            let _ = write!(out, "<Value number=\"{number}\">");
            match value.as_str() {
                Some(text) => escape(text, out),
                None => out.push_str(&value.to_string()),
            }
            out.push_str("</Value>");
        }
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            // A bare carriage return would be read as a line feed.
            '\r' => out.push_str("&#13;"),
            c if c < ' ' || matches!(c, '\u{FFFE}' | '\u{FFFF}') => {}
            c => out.push(c),
        }
    }
}

fn tag(key: &str) -> Option<Tag> {
    let group = u16::from_str_radix(key.get(..4)?, 16).ok()?;
    let element = u16::from_str_radix(key.get(4..8)?, 16).ok()?;
    (key.len() == 8).then_some(Tag(group, element))
}

fn keyword(key: &str) -> Option<&'static str> {
    StandardDataDictionary
        .by_tag(tag(key)?)
        .map(|entry| entry.alias())
        .filter(|alias| alias.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn is_private(tag: Tag) -> bool {
    tag.group() % 2 == 1
}

/// The block number of a private element is written as 00: its creator stands beside it.
fn public_key(key: &str) -> String {
    match tag(key) {
        Some(tag) if is_private(tag) && tag.element() > 0xFF => {
            format!("{:04X}00{:02X}", tag.group(), tag.element() & 0xFF)
        }
        _ => key.to_owned(),
    }
}

fn private_creator<'d>(key: &str, dataset: &'d Map<String, Value>) -> Option<&'d str> {
    let tag = tag(key).filter(|&tag| is_private(tag) && tag.element() > 0xFF)?;
    let creator = format!("{:04X}{:04X}", tag.group(), tag.element() >> 8);
    dataset.get(&creator)?["Value"][0].as_str()
}

/// Reads a document of the Native DICOM Model as a dataset in the DICOM JSON model.
///
/// # Errors
/// When it is no XML or not of the model; a private attribute needs the creator that its block names.
pub fn from_xml(text: &str) -> Result<Map<String, Value>, XmlError> {
    let options = ParsingOptions {
        allow_dtd: false,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| XmlError::Syntax {
        line: error.pos().row,
    })?;
    let root = document.root_element();
    if root.tag_name().name() != "NativeDicomModel" {
        return Err(XmlError::Model("the root is not NativeDicomModel"));
    }
    dataset(root, 0)
}

fn dataset(parent: Node<'_, '_>, depth: usize) -> Result<Map<String, Value>, XmlError> {
    if depth > MAX_DEPTH {
        return Err(XmlError::Model("sequences are nested too deeply"));
    }
    let mut out = Map::new();
    let mut creators: Vec<(u16, String)> = Vec::new();
    for node in elements(parent) {
        if node.tag_name().name() != "DicomAttribute" {
            return Err(XmlError::Model("an element is not a DicomAttribute"));
        }
        let key = node.attribute("tag").ok_or(XmlError::Model("a tag is missing"))?;
        let vr = node.attribute("vr").ok_or(XmlError::Model("a vr is missing"))?;
        let found = tag(key).ok_or(XmlError::Model("a tag is not 8 hexadecimal digits"))?;
        let key = match node.attribute("privateCreator") {
            Some(creator) if is_private(found) => private_key(found, creator, &mut creators, &mut out)?,
            _ => key.to_uppercase(),
        };
        out.insert(key, attribute(node, vr, depth)?);
    }
    let mut sorted: Vec<_> = out.into_iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(sorted.into_iter().collect())
}

/// Reserves a block for the creator, once in a dataset and group.
fn private_key(
    tag: Tag,
    creator: &str,
    creators: &mut Vec<(u16, String)>,
    out: &mut Map<String, Value>,
) -> Result<String, XmlError> {
    let group = tag.group();
    let of_group = |(other, _): &&(u16, String)| *other == group;
    let known = creators
        .iter()
        .filter(of_group)
        .position(|(_, name)| name == creator);
    let index = known.unwrap_or_else(|| creators.iter().filter(of_group).count());
    if known.is_none() {
        creators.push((group, creator.to_owned()));
    }
    let block = 0x10 + index;
    if block > 0xFF {
        return Err(XmlError::Model("a group has too many private creators"));
    }
    out.insert(
        format!("{group:04X}{block:04X}"),
        json!({ "vr": "LO", "Value": [creator] }),
    );
    Ok(format!("{group:04X}{block:02X}{:02X}", tag.element() & 0xFF))
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

fn attribute(node: Node<'_, '_>, vr: &str, depth: usize) -> Result<Value, XmlError> {
    let mut attribute = Map::new();
    attribute.insert("vr".to_owned(), json!(vr));
    let mut values: Vec<Value> = Vec::new();
    for child in elements(node) {
        let text = child.text().unwrap_or_default();
        let value = match child.tag_name().name() {
            "Value" => json_value(vr, text),
            "PersonName" => person_name(child),
            "Item" => Value::Object(dataset(child, depth + 1)?),
            "InlineBinary" => {
                attribute.insert("InlineBinary".to_owned(), json!(text.trim()));
                continue;
            }
            "BulkData" => {
                let uri = child
                    .attribute("uri")
                    .ok_or(XmlError::Model("BulkData names no uri"))?;
                attribute.insert("BulkDataURI".to_owned(), json!(uri));
                continue;
            }
            _ => return Err(XmlError::Model("an attribute holds an unknown element")),
        };
        let number = child.attribute("number").and_then(|text| text.parse().ok());
        let at = number.map_or(values.len(), |number: usize| number.saturating_sub(1));
        // Numbers may leave gaps for empty values, but not more than a value multiplicity could mean.
        if at < values.len() || at > values.len() + usize::from(u16::MAX) {
            return Err(XmlError::Model(
                "values are not numbered in ascending order from 1",
            ));
        }
        values.resize(at, Value::Null);
        values.push(value);
    }
    if !values.is_empty() {
        attribute.insert("Value".to_owned(), Value::Array(values));
    }
    Ok(Value::Object(attribute))
}

/// Numbers are numbers in JSON where they can be.
fn json_value(vr: &str, text: &str) -> Value {
    let number = match vr {
        "IS" | "SL" | "SS" | "UL" | "US" | "SV" | "UV" => text.trim().parse::<i64>().ok().map(|n| json!(n)),
        "DS" | "FL" | "FD" => text
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|n| n.is_finite())
            .map(|n| json!(n)),
        _ => None,
    };
    number.unwrap_or_else(|| json!(text))
}

fn person_name(node: Node<'_, '_>) -> Value {
    let mut name = Map::new();
    for group in elements(node) {
        let parts = PARTS.map(|part| {
            elements(group)
                .find(|node| node.tag_name().name() == part)
                .and_then(|node| node.text())
                .unwrap_or_default()
        });
        let text = parts.join("^");
        name.insert(
            group.tag_name().name().to_owned(),
            json!(text.trim_end_matches('^')),
        );
    }
    Value::Object(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_the_model_of_ps3_19() {
        let dataset = json!({
            "00080008": { "vr": "CS", "Value": ["ORIGINAL", null, "AXIAL"] },
            "00080050": { "vr": "SH" },
            "00081030": { "vr": "LO", "Value": ["a < b & \"c\"\r\n"] },
            "00082218": { "vr": "SQ", "Value": [{ "00080100": { "vr": "SH", "Value": ["T-A0100"] } }] },
            "00090010": { "vr": "LO", "Value": ["ACME 1.1"] },
            "00091001": { "vr": "OB", "InlineBinary": "AQI=" },
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Yamada^Tarou^^Dr", "Ideographic": "山田^太郎" }] },
            "00280010": { "vr": "US", "Value": [512] },
            "00280030": { "vr": "DS", "Value": [0.5, 0.25] },
            "7FE00010": { "vr": "OW", "BulkDataURI": "http://h/b?a=1&b=2" },
        });
        let dataset = dataset.as_object().unwrap();
        let xml = to_xml(dataset);
        assert!(xml.contains(
            "<DicomAttribute tag=\"00280010\" vr=\"US\" keyword=\"Rows\"><Value number=\"1\">512</Value>"
        ));
        assert!(xml.contains("tag=\"00090001\" vr=\"OB\" privateCreator=\"ACME 1.1\""));
        assert!(xml.contains(
            "<FamilyName>Yamada</FamilyName><GivenName>Tarou</GivenName><NamePrefix>Dr</NamePrefix>"
        ));
        assert_eq!(&from_xml(&xml).unwrap(), dataset);
    }

    #[test]
    fn leaves_out_what_xml_cannot_hold() {
        let dataset = json!({ "00081030": { "vr": "LO", "Value": ["a\u{1}b"] } });
        let xml = to_xml(dataset.as_object().unwrap());
        assert_eq!(from_xml(&xml).unwrap()["00081030"]["Value"][0], "ab");
    }

    #[test]
    fn refuses_other_documents_and_document_types() {
        for bad in [
            "",
            "<a/>",
            "<NativeDicomModel><b/></NativeDicomModel>",
            "<NativeDicomModel><DicomAttribute tag=\"0008\" vr=\"CS\"/></NativeDicomModel>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><NativeDicomModel/>",
            "<NativeDicomModel><DicomAttribute tag=\"00080008\" vr=\"CS\"><Value number=\"99999999\">A</Value></DicomAttribute></NativeDicomModel>",
        ] {
            assert!(from_xml(bad).is_err(), "{bad}");
        }
    }
}
