//! Rust values → data elements: the few ways in which the encoders fill a dataset.

use crate::domain::{code::Code, uid::Uid};
use dicom_core::{
    DataElement, PrimitiveValue, Tag, VR,
    value::{DataSetSequence, Value},
};
use dicom_dictionary_std::tags;
use dicom_object::{InMemDicomObject, mem::InMemElement};

/// A dataset, or an item of a sequence.
pub(super) type Dataset = InMemDicomObject;

/// Filling a dataset, in terms of what the encoders write.
pub(super) trait Fill {
    /// A text, cut to what its VR allows.
    fn text(&mut self, tag: Tag, vr: VR, value: impl Into<String>);
    /// Several values of a text VR.
    fn texts(&mut self, tag: Tag, vr: VR, values: &[&str]);
    /// A UID.
    fn uid(&mut self, tag: Tag, value: &str);
    /// An element without a value.
    fn empty(&mut self, tag: Tag, vr: VR);
    /// An unsigned 16-bit number.
    fn us(&mut self, tag: Tag, value: u16);
    /// Decimal strings.
    fn ds(&mut self, tag: Tag, values: &[f64]);
    /// A 64-bit float.
    fn fd(&mut self, tag: Tag, value: f64);
    /// A pointer to an attribute.
    fn at(&mut self, tag: Tag, value: Tag);
    /// A sequence.
    fn sequence(&mut self, tag: Tag, items: Vec<Dataset>);
    /// A sequence of one coded concept.
    fn code(&mut self, tag: Tag, code: &Code);
}

impl Fill for Dataset {
    fn text(&mut self, tag: Tag, vr: VR, value: impl Into<String>) {
        let mut value = value.into();
        let limit = longest(vr);
        if value.chars().count() > limit {
            value = value.chars().take(limit).collect();
        }
        self.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    }

    fn texts(&mut self, tag: Tag, vr: VR, values: &[&str]) {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        self.put(DataElement::new(tag, vr, PrimitiveValue::Strs(values)));
    }

    fn uid(&mut self, tag: Tag, value: &str) {
        self.put(DataElement::new(tag, VR::UI, PrimitiveValue::from(value)));
    }

    fn empty(&mut self, tag: Tag, vr: VR) {
        if vr == VR::SQ {
            self.sequence(tag, Vec::new());
        } else {
            self.put(DataElement::empty(tag, vr));
        }
    }

    fn us(&mut self, tag: Tag, value: u16) {
        self.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }

    fn ds(&mut self, tag: Tag, values: &[f64]) {
        let values = values.iter().map(|v| decimal_string(*v)).collect();
        self.put(DataElement::new(tag, VR::DS, PrimitiveValue::Strs(values)));
    }

    fn fd(&mut self, tag: Tag, value: f64) {
        self.put(DataElement::new(tag, VR::FD, PrimitiveValue::from(value)));
    }

    fn at(&mut self, tag: Tag, value: Tag) {
        self.put(DataElement::new(tag, VR::AT, PrimitiveValue::from(value)));
    }

    fn sequence(&mut self, tag: Tag, items: Vec<Dataset>) {
        self.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    }

    fn code(&mut self, tag: Tag, code: &Code) {
        self.sequence(tag, vec![code_item(code)]);
    }
}

/// The item of a code sequence.
pub(super) fn code_item(code: &Code) -> Dataset {
    let mut item = Dataset::new_empty();
    item.text(tags::CODE_VALUE, VR::SH, &*code.value);
    item.text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, &*code.scheme);
    item.text(tags::CODE_MEANING, VR::LO, &*code.meaning);
    item
}

/// The item of a reference to an instance.
pub(super) fn reference_item(class: &str, instance: &Uid) -> Dataset {
    let mut item = Dataset::new_empty();
    item.uid(tags::REFERENCED_SOP_CLASS_UID, class);
    item.uid(tags::REFERENCED_SOP_INSTANCE_UID, instance.as_str());
    item
}

/// Characters that a value of this VR may have (PS3.5 table 6.2-1); the encoders' own texts are shorter, a plan's may not be.
fn longest(vr: VR) -> usize {
    match vr {
        VR::CS | VR::SH | VR::DS => 16,
        VR::IS => 12,
        VR::LO | VR::PN | VR::UI => 64,
        VR::ST => 1024,
        VR::LT => 10240,
        _ => usize::MAX,
    }
}

/// A number in the 16 characters of a DS, as exactly as they allow.
pub(super) fn decimal_string(value: f64) -> String {
    const LONGEST: usize = 16;
    let shortest = format!("{}", value + 0.0);
    if shortest.len() <= LONGEST {
        return shortest;
    }
    if value.abs() < 1e12 {
        let fixed = (0..LONGEST).rev().map(|digits| format!("{value:.digits$}"));
        if let Some(text) = fixed.into_iter().find(|text| text.len() <= LONGEST) {
            return text;
        }
    }
    (0..LONGEST)
        .rev()
        .map(|digits| format!("{value:.digits$e}"))
        .find(|text| text.len() <= LONGEST)
        .unwrap_or(shortest)
}

/// A copy without the lengths and the character set that it was read with.
///
/// Sequences of a source carry lengths that were counted in its own character set; results are written in UTF-8.
pub(super) fn unbound(element: &InMemElement) -> InMemElement {
    let (tag, vr) = (element.header().tag, element.header().vr);
    match element.value() {
        Value::Sequence(sequence) => {
            let items: Vec<Dataset> = sequence
                .items()
                .iter()
                .map(|item| Dataset::from_element_iter(item.iter().map(unbound)))
                .collect();
            DataElement::new(tag, vr, DataSetSequence::from(items))
        }
        Value::Primitive(value) => DataElement::new(tag, vr, value.clone()),
        Value::PixelSequence(_) => element.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_strings_are_the_shortest_that_are_exact() {
        for (value, text) in [
            (-124.799, "-124.799"),
            (0.0, "0"),
            (-0.0, "0"),
            (0.1 + 0.2, "0.30000000000000"),
            (1.0 / 3.0, "0.33333333333333"),
            (-1.0 / 3.0, "-0.3333333333333"),
            (1e22, "1e22"),
        ] {
            let written = decimal_string(value);
            assert!(written.len() <= 16, "{written}");
            assert!((written.parse::<f64>().unwrap() - value).abs() <= value.abs() * 1e-13);
            if text.len() == written.len() {
                assert_eq!(written, text);
            }
        }
    }

    proptest! {
        #[test]
        fn decimal_strings_fit_and_keep_a_micrometre(value in -1e5..1e5f64) {
            let text = decimal_string(value);
            prop_assert!(text.len() <= 16);
            prop_assert!((text.parse::<f64>().unwrap() - value).abs() < 1e-6);
        }
    }
}
