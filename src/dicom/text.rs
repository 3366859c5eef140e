//! A dataset whose text holds one character a byte → the same with Unicode text, which says ISO_IR 192.
//!
//! An item that declares its own character set has it for itself and its descendants.
//! Sequences lose their explicit lengths, which the new text may have made wrong.
//!
//! Source: PS3.5 sections 6.1.2.3 and 7.5.3; PS3.3 section C.12.1.1.2.

use super::charset::{Charset, ESC, has_values};
use dicom_core::{
    DataElement, PrimitiveValue, Tag, VR,
    header::Header,
    value::{C, Value},
};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

/// Turns a dataset whose text holds one character a byte into one that holds Unicode.
///
/// `in_transit` is the tag under which the declarations came.
/// Top-level elements with text that cannot be decoded are added to `undecodable`.
pub(super) fn to_unicode(
    object: InMemDicomObject,
    in_transit: Tag,
    undecodable: &mut Vec<Tag>,
) -> InMemDicomObject {
    let mut walk = Walk {
        in_transit,
        not_ascii: false,
        declared: false,
    };
    let mut unicode = walk.dataset(object, &Charset::default(), &mut |tag| {
        if undecodable.last() != Some(&tag) {
            undecodable.push(tag);
        }
    });
    if walk.declared || walk.not_ascii {
        unicode.put(DataElement::new(
            tags::SPECIFIC_CHARACTER_SET,
            VR::CS,
            "ISO_IR 192",
        ));
    }
    unicode
}

struct Walk {
    in_transit: Tag,
    not_ascii: bool,
    declared: bool,
}

impl Walk {
    fn dataset(
        &mut self,
        object: InMemDicomObject,
        outer: &Charset,
        report: &mut dyn FnMut(Tag),
    ) -> InMemDicomObject {
        let own = object.get(self.in_transit).map(|element| {
            self.declared = true;
            let values = match element.value() {
                Value::Primitive(PrimitiveValue::U8(bytes)) => bytes
                    .split(|b| *b == b'\\')
                    .map(|v| String::from_utf8_lossy(v).into_owned())
                    .collect(),
                Value::Primitive(value) => value.to_multi_str().into_owned(),
                _ => Vec::new(),
            };
            Charset::parse(&values)
        });
        let charset = match own {
            None => outer.clone(),
            Some(Ok(charset)) => charset,
            // An unknown term leaves plain ASCII readable and makes everything else undecodable.
            Some(Err(_)) => Charset::default(),
        };
        let in_transit = self.in_transit;
        let elements = object.into_iter().filter(|element| element.tag() != in_transit);
        let elements: Vec<_> = elements
            .map(|element| self.element(element, &charset, report))
            .collect();
        InMemDicomObject::from_element_iter(elements)
    }

    fn element(
        &mut self,
        element: DataElement<InMemDicomObject>,
        charset: &Charset,
        report: &mut dyn FnMut(Tag),
    ) -> DataElement<InMemDicomObject> {
        let (tag, vr) = (element.tag(), element.vr());
        match element.into_value() {
            Value::Sequence(sequence) => {
                let items: Vec<_> = sequence
                    .into_items()
                    .into_iter()
                    .map(|item| self.dataset(item, charset, &mut |_| report(tag)))
                    .collect();
                DataElement::new(tag, vr, Value::Sequence(items.into()))
            }
            Value::Primitive(value) if is_text(vr) => {
                let value = self.text(value, vr, charset, &mut || report(tag));
                DataElement::new(tag, vr, Value::Primitive(value))
            }
            value => DataElement::new(tag, vr, value),
        }
    }

    fn text(
        &mut self,
        value: PrimitiveValue,
        vr: VR,
        charset: &Charset,
        report: &mut dyn FnMut(),
    ) -> PrimitiveValue {
        let joined = match &value {
            PrimitiveValue::Str(text) => text.clone(),
            PrimitiveValue::Strs(texts) => texts.join("\\"),
            _ => return value,
        };
        if joined.bytes().all(|b| b.is_ascii() && b != ESC) && charset.has_ascii() {
            return value;
        }
        let bytes: Vec<u8> = joined
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
            .collect();
        let end = bytes
            .iter()
            .rposition(|b| !matches!(b, b' ' | 0))
            .map_or(0, |last| last + 1);
        let (text, complete) = charset.decode_keeping(&bytes[..end], vr);
        if !complete {
            report();
        }
        self.not_ascii |= !text.is_ascii();
        if has_values(vr) {
            PrimitiveValue::Strs(text.split('\\').map(str::to_owned).collect::<C<_>>())
        } else {
            PrimitiveValue::Str(text)
        }
    }
}

/// Whether Specific Character Set applies to a VR (PS3.5 section 6.1.2.3).
fn is_text(vr: VR) -> bool {
    matches!(vr, VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT)
}
