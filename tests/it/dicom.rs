//! Bytes → `Instance`: bad input is refused with words and never panics, text becomes Unicode, digests mean what they say.

use crate::series::{Series, part10, plane_hu, set, words};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR, value::DataSetSequence};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use ictus::dicom::{DicomError, instance::Instance, json::to_json};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn slice() -> InMemDicomObject {
    Series::default().dataset(3)
}

fn file() -> Vec<u8> {
    part10(slice(), uids::EXPLICIT_VR_LITTLE_ENDIAN)
}

fn said(bytes: &[u8]) -> String {
    Instance::from_bytes(bytes).unwrap_err().to_string()
}

/// Puts raw text bytes in place of a value of as many `#`.
fn with_raw_text(mut dataset: InMemDicomObject, charset: &str, bytes: &[u8]) -> Vec<u8> {
    dataset.put(DataElement::new(
        tags::SPECIFIC_CHARACTER_SET,
        VR::CS,
        PrimitiveValue::Strs(charset.split('\\').map(str::to_owned).collect()),
    ));
    let padded = [bytes, b" "].concat();
    let bytes = if bytes.len().is_multiple_of(2) {
        bytes
    } else {
        &padded
    };
    set(&mut dataset, tags::PATIENT_NAME, VR::PN, &"#".repeat(bytes.len()));
    let mut file = part10(dataset, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let at = file
        .windows(bytes.len())
        .position(|w| w.iter().all(|b| *b == b'#'))
        .unwrap();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn name(instance: &Instance) -> String {
    instance
        .object
        .element(tags::PATIENT_NAME)
        .unwrap()
        .to_str()
        .unwrap()
        .into_owned()
}

#[test]
fn refuses_what_is_not_part_10() {
    assert!(said(b"").contains("0 bytes without the DICM prefix"));
    assert!(said(&[0; 4096]).contains("DICM"));
    assert!(said(&[&[0; 128][..], b"DICM"].concat()).contains("group 0002"));
}

#[test]
fn refuses_a_file_that_was_cut_anywhere() {
    let whole = file();
    assert!(Instance::from_bytes(&whole).is_ok());
    for cut in (0..whole.len()).step_by(7).chain(whole.len() - 9..whole.len()) {
        assert!(
            Instance::from_bytes(&whole[..cut]).is_err(),
            "cut at {cut} of {}",
            whole.len()
        );
    }
}

#[test]
fn refuses_a_claim_of_four_gibibytes_without_reserving_it() {
    let mut bytes = file();
    let at = bytes
        .windows(6)
        .rposition(|w| w == b"\xe0\x7f\x10\x00OW")
        .unwrap();
    bytes[at + 8..at + 12].copy_from_slice(&0xFFFF_FFF0_u32.to_le_bytes());
    assert!(
        said(&bytes).contains("claims 4294967280 bytes"),
        "{}",
        said(&bytes)
    );
}

#[test]
fn refuses_a_dataset_without_identifiers_and_still_reads_its_header() {
    for (tag, keyword) in [
        (tags::SOP_INSTANCE_UID, "SOPInstanceUID"),
        (tags::STUDY_INSTANCE_UID, "StudyInstanceUID"),
        (tags::SERIES_INSTANCE_UID, "SeriesInstanceUID"),
    ] {
        let mut dataset = slice();
        set(&mut dataset, tag, VR::UI, "../../etc");
        let meta = dicom_object::FileMetaTableBuilder::new()
            .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
            .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
            .media_storage_sop_instance_uid("1.2")
            .build()
            .unwrap();
        let mut bytes = Vec::new();
        dataset.with_exact_meta(meta).write_all(&mut bytes).unwrap();
        match Instance::from_bytes(&bytes).unwrap_err() {
            DicomError::MissingUid {
                keyword: missing,
                sop_class_uid,
                ..
            } => {
                assert_eq!(missing, keyword);
                assert_eq!(sop_class_uid.unwrap().as_str(), uids::CT_IMAGE_STORAGE);
            }
            other => panic!("{other}"),
        }
        assert!(Instance::read_header(&bytes).is_ok());
    }
}

#[test]
fn refuses_an_unknown_transfer_syntax_and_meta_information_that_contradicts() {
    let uid = b"1.2.840.10008.1.2.1\0";
    let mut bytes = file();
    let at = bytes.windows(uid.len()).position(|w| w == uid).unwrap();
    bytes[at..at + uid.len()].copy_from_slice(b"1.2.840.10008.9.9.9\0");
    assert!(said(&bytes).contains("1.2.840.10008.9.9.9"), "{}", said(&bytes));
    let mut bytes = file();
    let uid = b"1.2.3.1.4\0";
    let at = bytes.windows(uid.len()).position(|w| w == uid).unwrap();
    bytes[at] = b'2';
    assert!(
        said(&bytes).contains("SOPInstanceUID differs"),
        "{}",
        said(&bytes)
    );
}

#[test]
fn a_wrong_or_absent_group_length_does_not_hide_the_dataset() {
    let mut bytes = file();
    bytes[140..144].copy_from_slice(&7u32.to_le_bytes());
    assert!(Instance::from_bytes(&bytes).is_ok());
    bytes.drain(132..144);
    assert!(Instance::from_bytes(&bytes).is_ok());
}

#[test]
fn trailing_zeros_are_not_part_of_the_dataset() {
    let bytes = [file(), vec![0; 333]].concat();
    let padded = Instance::from_bytes(&bytes).unwrap();
    assert_eq!(padded.digest(), Instance::from_bytes(&file()).unwrap().digest());
}

#[test]
fn the_header_can_be_read_from_the_start_of_a_file() {
    let whole = file();
    let header = Instance::read_header(&whole[..whole.len() - 5000]).unwrap();
    assert_eq!(header.attributes.instance_number, Some(4));
    assert!(header.object.get(tags::PIXEL_DATA).is_none());
}

#[test]
fn names_in_every_kind_of_character_set_become_unicode() {
    let korean =
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf";
    let japanese = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B";
    for (charset, bytes, expected) in [
        ("\\ISO 2022 IR 87", &japanese[..], "Yamada^Tarou=山田^太郎"),
        ("\\ISO 2022 IR 149", &korean[..], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", b"Wang=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang=王^小东"),
        ("ISO_IR 148", b"\xc7avu\xfeo\xf0lu^\xdd", "Çavuşoğlu^İ"),
        ("ISO_IR 192", "Ærø^Åse".as_bytes(), "Ærø^Åse"),
    ] {
        let instance = Instance::from_bytes(&with_raw_text(slice(), charset, bytes)).unwrap();
        assert_eq!(name(&instance), expected);
        assert!(instance.attributes.undecodable_text.is_empty());
        let declared = instance.object.element(tags::SPECIFIC_CHARACTER_SET).unwrap();
        assert_eq!(declared.to_str().unwrap(), "ISO_IR 192");
        // What is written again is UTF-8 and says so.
        let mut bytes = Vec::new();
        instance.object.write_all(&mut bytes).unwrap();
        assert_eq!(name(&Instance::from_bytes(&bytes).unwrap()), expected);
    }
}

#[test]
fn text_outside_its_declaration_is_kept_byte_for_byte_and_named() {
    let instance = Instance::from_bytes(&with_raw_text(slice(), "ISO_IR 192", b"M\xfcller")).unwrap();
    assert_eq!(name(&instance), "M\u{f7fc}ller");
    assert_eq!(instance.attributes.undecodable_text, [tags::PATIENT_NAME]);
    assert!(instance.attributes.has_undecodable_identity());
    let other = Instance::from_bytes(&with_raw_text(slice(), "ISO_IR 192", b"M\xfdller")).unwrap();
    assert_ne!(instance.digest(), other.digest());
}

#[test]
fn an_item_has_its_own_character_set() {
    let mut item = InMemDicomObject::new_empty();
    set(&mut item, tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
    set(&mut item, tags::CODE_MEANING, VR::LO, "Schädel");
    let mut dataset = slice();
    dataset.put(DataElement::new(
        tags::ANATOMIC_REGION_SEQUENCE,
        VR::SQ,
        DataSetSequence::from(vec![item]),
    ));
    set(&mut dataset, tags::STUDY_DESCRIPTION, VR::LO, "plain");
    let bytes = part10(dataset, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert!(
        bytes.windows(7).any(|w| w == b"Sch\xe4del"),
        "the item is written in Latin-1"
    );
    let instance = Instance::from_bytes(&bytes).unwrap();
    let items = instance
        .object
        .element(tags::ANATOMIC_REGION_SEQUENCE)
        .unwrap()
        .items()
        .unwrap();
    assert_eq!(
        items[0].element(tags::CODE_MEANING).unwrap().to_str().unwrap(),
        "Schädel"
    );
    assert!(items[0].get(tags::SPECIFIC_CHARACTER_SET).is_none());
}

#[test]
fn the_digest_is_of_the_dataset_and_not_of_its_encoding() {
    let of = |dataset: InMemDicomObject, syntax| Instance::from_bytes(&part10(dataset, syntax)).unwrap();
    let plain = of(slice(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
    for syntax in [
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        "1.2.840.10008.1.2.2",
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ] {
        assert_eq!(of(slice(), syntax).digest(), plain.digest(), "{syntax}");
    }
    let mut renamed = slice();
    set(&mut renamed, tags::STUDY_DESCRIPTION, VR::LO, "other");
    let renamed = of(renamed, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert_ne!(renamed.digest(), plain.digest());
    assert_eq!(renamed.pixel_digest(), plain.pixel_digest());
    let mut altered = slice();
    altered.put(DataElement::new(tags::PIXEL_DATA, VR::OW, words(plane_hu(4))));
    let altered = of(altered, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert_ne!(altered.digest(), plain.digest());
    assert_ne!(altered.pixel_digest(), plain.pixel_digest());
}

#[test]
fn a_digest_holds_long_values_by_theirs_and_the_ones_that_were_written_before_are_known() {
    let mut dataset = slice();
    let long = vec![3u8; 64 << 10];
    dataset.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PrimitiveValue::U8(long.into()),
    ));
    let mut instance = Instance::from_bytes(&part10(dataset, uids::EXPLICIT_VR_LITTLE_ENDIAN)).unwrap();
    let kept = [tags::SOP_INSTANCE_UID, tags::PIXEL_DATA];
    let others: Vec<Tag> = instance
        .object
        .iter()
        .map(|e| e.header().tag)
        .filter(|tag| !kept.contains(tag))
        .collect();
    for tag in others {
        instance.object.remove_element(tag);
    }
    let uid = instance.attributes.sop_instance_uid.clone().unwrap().to_string();
    let head = |tag: Tag, vr: &[u8], length: usize| {
        [
            &tag.0.to_be_bytes()[..],
            &tag.1.to_be_bytes(),
            vr,
            &(length as u64).to_be_bytes(),
        ]
        .concat()
    };
    let begin = [
        head(tags::SOP_INSTANCE_UID, b"UI", uid.len()),
        uid.into_bytes(),
        head(tags::PIXEL_DATA, b"OB", 64 << 10),
    ]
    .concat();
    let long = vec![3u8; 64 << 10];
    let now = Sha256::digest([&begin[..], blake3::hash(&long).as_bytes()].concat());
    let before = hex::encode(Sha256::digest([&begin[..], &long].concat()));
    assert_eq!(instance.digest(), *now);
    assert!(instance.has_digest(&hex::encode(now)) && instance.has_digest(&before));
    instance
        .object
        .put(DataElement::new(tags::STUDY_ID, VR::SH, "other"));
    assert!(!instance.has_digest(&hex::encode(now)) && !instance.has_digest(&before));
}

#[test]
fn an_object_made_in_memory_has_the_digest_of_its_file() {
    let read = Instance::from_bytes(&file()).unwrap();
    let meta = read.object.meta().clone();
    let made = Instance::from_object(slice().with_exact_meta(meta)).unwrap();
    assert_eq!(made.digest(), read.digest());
    assert_eq!(made.attributes, read.attributes);
}

#[test]
fn the_json_of_an_instance_has_no_pixels_and_no_group_0002() {
    let instance = Instance::from_bytes(&file()).unwrap();
    let json = serde_json::to_string(&to_json(&instance.object, &|path| format!("bulk/{path}"))).unwrap();
    assert!(
        json.contains(r#""7FE00010":{"vr":"OW","BulkDataURI":"bulk/7FE00010"}"#),
        "{json}"
    );
    assert!(json.len() < 4000 && !json.contains("\"0002"), "{json}");
}

#[test]
fn a_compressed_image_of_another_size_than_the_header_is_refused_before_it_is_decoded() {
    let mut stream = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
    for number in [0xFFFF_FFF0_u32, 0xFFFF_FFF0, 0, 0] {
        stream.extend(number.to_be_bytes());
    }
    let mut dataset = slice();
    let fragments = dicom_core::value::PixelFragmentSequence::new(Vec::new(), vec![stream]);
    dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
    let said = Instance::from_bytes(&part10(dataset, uids::JPEG2000_LOSSLESS))
        .unwrap()
        .pixels()
        .unwrap_err();
    assert!(
        said.to_string()
            .contains("4294967280 × 4294967280; expected 64 × 64"),
        "{said}"
    );
}

#[test]
fn refuses_an_rle_frame_that_claims_segments_without_end() {
    for claimed in [0u32, 16, u32::MAX] {
        let mut bytes = claimed.to_le_bytes().to_vec();
        bytes.resize(64, 0);
        let mut dataset = slice();
        let fragments = dicom_core::value::PixelFragmentSequence::new(Vec::new(), vec![bytes]);
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
        let instance = Instance::from_bytes(&part10(dataset, uids::RLE_LOSSLESS)).unwrap();
        let error = instance.pixels().unwrap_err();
        assert!(
            error.to_string().contains(&format!("{claimed} segments")),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_files_never_panic(
        hits in prop::collection::vec((0usize..9000, any::<u8>()), 1..8), header in 0usize..900, byte: u8,
    ) {
        let mut bytes = file();
        bytes[132 + header] = byte;
        for (at, byte) in hits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(instance) = Instance::from_bytes(&bytes) {
            let _ = instance.pixels();
            let _ = instance.digest();
            let _ = to_json(&instance.object, &|path| path.to_owned());
        }
    }

    #[test]
    fn damaged_compressed_pixels_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        syntax in prop::sample::select(vec![
            uids::RLE_LOSSLESS, uids::JPEG_BASELINE8_BIT, uids::JPEG_LOSSLESS_SV1, uids::JPEG2000_LOSSLESS,
        ]),
    ) {
        let mut dataset = slice();
        let fragments = dicom_core::value::PixelFragmentSequence::new(Vec::new(), vec![bytes]);
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
        let instance = Instance::from_bytes(&part10(dataset, syntax)).unwrap();
        prop_assert!(instance.pixels().is_err());
    }
}
