//! Datasets of messages, such as the identifier of a query: bytes ↔ a dataset with Unicode text.
//!
//! What comes in is read with the care and the character sets of an instance; what goes out is UTF-8 and says so where it
//! is not ASCII.
//!
//! Source: PS3.4 section C.4.1.1.3; PS3.7 section 6.3.1.

use super::{
    DicomError,
    instance::{Instance, guarded},
    part10::Head,
};
use crate::domain::phi::redact;
use dicom_core::{DataElement, VR, value::Value};
use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

/// Reads a dataset that came in this transfer syntax.
///
/// # Errors
/// When it is broken.
pub fn read(dataset: &[u8], transfer_syntax_uid: &str) -> Result<InMemDicomObject, DicomError> {
    let head = Head {
        sop_class_uid: "",
        sop_instance_uid: "",
        transfer_syntax_uid,
        implementation_class_uid: "",
    };
    let mut file = head.encode();
    file.extend_from_slice(dataset);
    Ok(Instance::read_header(&file)?.object.into_inner())
}

/// Writes a dataset in this transfer syntax; text that is not ASCII becomes UTF-8.
///
/// # Errors
/// When the transfer syntax is unknown or a value cannot be written.
pub fn write(mut dataset: InMemDicomObject, transfer_syntax_uid: &str) -> Result<Vec<u8>, DicomError> {
    let syntax =
        TransferSyntaxRegistry
            .get(transfer_syntax_uid)
            .ok_or_else(|| DicomError::TransferSyntax {
                uid: transfer_syntax_uid.to_owned(),
            })?;
    dataset.remove_element(tags::SPECIFIC_CHARACTER_SET);
    if !is_ascii(&dataset) {
        dataset.put(DataElement::new(
            tags::SPECIFIC_CHARACTER_SET,
            VR::CS,
            "ISO_IR 192",
        ));
    }
    guarded("writing a dataset", || {
        let mut bytes = Vec::new();
        dataset
            .write_dataset_with_ts(&mut bytes, syntax)
            .map_err(|error| DicomError::Dataset {
                source: redact(&error),
            })?;
        Ok(bytes)
    })
}

fn is_ascii(dataset: &InMemDicomObject) -> bool {
    dataset.iter().all(|element| match element.value() {
        Value::Sequence(sequence) => sequence.items().iter().all(is_ascii),
        Value::Primitive(value) if !is_binary(element.vr()) => value.to_str().is_ascii(),
        _ => true,
    })
}

fn is_binary(vr: VR) -> bool {
    matches!(
        vr,
        VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN | VR::AT
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_dictionary_std::uids;

    #[test]
    fn text_survives_and_says_what_it_is_written_in() {
        let mut dataset = InMemDicomObject::new_empty();
        dataset.put(DataElement::new(tags::PATIENT_NAME, VR::PN, "Müller^Jörg"));
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN] {
            let bytes = write(dataset.clone(), syntax).unwrap();
            let back = read(&bytes, syntax).unwrap();
            let text = |tag| back.get(tag).unwrap().to_str().unwrap().into_owned();
            assert_eq!(text(tags::PATIENT_NAME), "Müller^Jörg");
            assert_eq!(text(tags::SPECIFIC_CHARACTER_SET), "ISO_IR 192");
        }
    }

    #[test]
    fn a_query_in_latin_1_is_understood() {
        let bytes = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100\x10\x00\x10\x00PN\x08\x00M\xfcller* ";
        let query = read(bytes, uids::EXPLICIT_VR_LITTLE_ENDIAN).unwrap();
        assert_eq!(
            query.get(tags::PATIENT_NAME).unwrap().to_str().unwrap(),
            "Müller*"
        );
        assert!(read(&bytes[..20], uids::EXPLICIT_VR_LITTLE_ENDIAN).is_err());
    }
}
