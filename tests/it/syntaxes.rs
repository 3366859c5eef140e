//! Every transfer syntax that a CT comes in: stored as it was sent, and read at analysis or refused in words.

use crate::{
    dimse_support::{CT, Scp, call_as, proposal, python, run, store},
    support::{Slice, World, part10},
};
use dicom_core::{
    DataElement, PrimitiveValue, Tag, VR,
    value::{C, PixelFragmentSequence, Value},
};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use ictus::{
    association::command::status,
    dicom::{enhanced, instance::Instance, part10 as file, transcode},
};
use std::{error::Error, path::Path};

const SIDE: u16 = 64;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/syntaxes.py");

/// Twelve bits of a picture with edges, slopes, flat places and noise.
fn picture() -> Vec<u16> {
    let mut noise = 7u32;
    (0..SIDE * SIDE)
        .map(|at| {
            let (x, y) = (at % SIDE, at / SIDE);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = u16::try_from(noise >> 29).unwrap();
            match (x / 16, y / 16) {
                (0, _) => 24,
                (1, _) => 1000 + 3 * x + y,
                (2, 0..2) => 4095,
                _ => 1060 + grain,
            }
        })
        .collect()
}

fn slice(number: u32) -> DefaultDicomObject {
    let mut object = Slice::new("s", "a", number).object();
    let short = |tag: Tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    object.put(short(tags::ROWS, SIDE));
    object.put(short(tags::COLUMNS, SIDE));
    object.put(short(tags::BITS_STORED, 12));
    object.put(short(tags::HIGH_BIT, 11));
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::U16(C::from_vec(picture())),
    ));
    dicom_object::from_reader(part10(object).as_slice()).unwrap()
}

fn written(object: &DefaultDicomObject) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    bytes
}

/// The slice as a program of another maker writes it.
async fn made(folder: &Path, number: u32, program: &str, options: &[&str]) -> Vec<u8> {
    let path = |end: &str| {
        folder
            .join(format!("{number}.{end}"))
            .to_str()
            .unwrap()
            .to_owned()
    };
    let (plain, other) = (path("plain"), path("other"));
    std::fs::write(&plain, written(&slice(number))).unwrap();
    let said = run(program, &[options, &[&plain, &other]].concat()).await;
    assert!(said.success, "{program} {options:?}: {}", said.text);
    std::fs::read(other).unwrap()
}

async fn stored(world: &World, sop: &str) -> Vec<u8> {
    let key: String = sqlx::query_scalar("SELECT archive_key FROM instance WHERE sop_instance_uid = $1")
        .bind(sop)
        .fetch_one(&mut world.superuser().await)
        .await
        .unwrap();
    world.archive.read(&key).await.unwrap().to_vec()
}

#[tokio::test]
async fn each_is_stored_as_sent_and_its_pixels_are_read() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let folder = tempfile::tempdir().unwrap();
    let python = python();
    let same: Vec<i32> = picture().into_iter().map(i32::from).collect();
    // The largest error: none, NEAR of JPEG-LS, and what the picture loses by a quantised transform (dcmtk moves its lowest
    // value to 0 and the intercept with it).
    let cases: [(&str, &str, &[&str], i32); 14] = [
        (uids::EXPLICIT_VR_LITTLE_ENDIAN, "dcmconv", &["+te"], 0),
        (uids::IMPLICIT_VR_LITTLE_ENDIAN, "dcmconv", &["+ti"], 0),
        ("1.2.840.10008.1.2.2", "dcmconv", &["+tb"], 0),
        (uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "dcmconv", &["+td"], 0),
        (uids::RLE_LOSSLESS, "dcmcrle", &[], 0),
        (uids::JPEG_LOSSLESS, "dcmcjpeg", &["+el"], 0),
        (uids::JPEG_LOSSLESS_SV1, "dcmcjpeg", &["+e1"], 0),
        (uids::JPEGLS_LOSSLESS, "dcmcjpls", &["+el"], 0),
        (uids::JPEGLS_NEAR_LOSSLESS, "dcmcjpls", &["+en"], 2),
        (uids::JPEG2000_LOSSLESS, &python, &[SCRIPT, "j2k"], 0),
        (uids::HTJ2K_LOSSLESS, &python, &[SCRIPT, "htj2k"], 0),
        (uids::JPEGXL_LOSSLESS, &python, &[SCRIPT, "jxl"], 0),
        (uids::JPEG_EXTENDED12_BIT, "dcmcjpeg", &["+ee", "+bt"], 30),
        (uids::JPEG_EXTENDED12_BIT, &python, &[SCRIPT, "dct"], 8),
    ];
    for (number, (syntax, program, options, error)) in (1..).zip(cases) {
        let sent = made(folder.path(), number, program, options).await;
        assert_eq!(file::transfer_syntax(&sent).unwrap(), syntax);
        let mut association = call_as(&scp, "CT1", &[proposal(CT, &[syntax])]).await;
        assert_eq!(
            store(&mut association, &sent).await.status(),
            status::SUCCESS,
            "{syntax}"
        );
        association.link.release().await.unwrap();
        let sop = dicom_object::from_reader(sent.as_slice()).unwrap();
        let sop = sop.meta().media_storage_sop_instance_uid().to_owned();
        let kept = stored(&world, sop.trim_end_matches('\0')).await;
        assert_eq!(
            file::dataset(&kept).unwrap(),
            file::dataset(&sent).unwrap(),
            "{syntax}"
        );
        assert_eq!(file::transfer_syntax(&kept).unwrap(), syntax);
        let pixels = Instance::from_bytes(&kept).unwrap().pixels().unwrap();
        let worst = pixels
            .iter()
            .zip(&same)
            .map(|(a, b)| (a - b).abs())
            .max()
            .unwrap();
        assert!(pixels.len() == same.len() && worst <= error, "{syntax}: {worst}");
        let explicit = transcode::to_explicit_vr_little_endian(&kept).unwrap();
        assert_eq!(
            file::transfer_syntax(&explicit).unwrap(),
            uids::EXPLICIT_VR_LITTLE_ENDIAN
        );
        assert_eq!(
            Instance::from_bytes(&explicit).unwrap().pixels().unwrap(),
            pixels,
            "{syntax}"
        );
    }
    for syntax in [
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.4.202",
        "1.2.840.10008.1.2.4.203",
    ] {
        let association = call_as(&scp, "CT1", &[proposal(CT, &[syntax])]).await;
        assert_eq!(association.contexts.len(), 1, "{syntax}");
        assert!(transcode::is_decodable(syntax), "{syntax}");
        association.link.release().await.unwrap();
    }
}

/// A slice of so many bits, signed or not, that holds the ends of its range and a picture between them.
fn slice_of(stored: u16, signed: bool) -> (DefaultDicomObject, Vec<i32>) {
    let (least, most) = match signed {
        true => (-(1i32 << (stored - 1)), (1i32 << (stored - 1)) - 1),
        false => (0, (1i32 << stored) - 1),
    };
    let values: Vec<i32> = picture()
        .iter()
        .enumerate()
        .map(|(at, value)| match at % 97 {
            0 => least,
            1 => most,
            _ => i32::from(*value) + if signed { -2048 } else { 0 },
        })
        .collect();
    let words = values
        .iter()
        .map(|value| u16::try_from(value & 0xFFFF).unwrap())
        .collect();
    let mut object = slice(1);
    let short = |tag: Tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    object.put(short(tags::BITS_STORED, stored));
    object.put(short(tags::HIGH_BIT, stored - 1));
    object.put(short(tags::PIXEL_REPRESENTATION, u16::from(signed)));
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::U16(words),
    ));
    (object, values)
}

/// An object as the script writes it in a format.
async fn scripted(folder: &Path, object: &DefaultDicomObject, format: &str) -> Vec<u8> {
    let (plain, other) = (folder.join("plain"), folder.join(format));
    std::fs::write(&plain, written(object)).unwrap();
    let paths = [plain.to_str().unwrap(), other.to_str().unwrap()];
    let said = run(&python(), &[SCRIPT, format, paths[0], paths[1]]).await;
    assert!(said.success, "{format}: {}", said.text);
    std::fs::read(&other).unwrap()
}

#[tokio::test]
async fn what_is_compressed_without_loss_comes_back_bit_by_bit_signed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    for (stored, signed) in [(12, false), (12, true), (16, false), (16, true)] {
        let (object, values) = slice_of(stored, signed);
        for format in ["htj2k", "jxl", "jxl-stored"] {
            // A signed word of twelve bits has no twelve bits in an encoder of unsigned words.
            if format == "jxl-stored" && signed && stored == 12 {
                continue;
            }
            let file = scripted(folder.path(), &object, format).await;
            let read = Instance::from_bytes(&file).unwrap().pixels();
            assert_eq!(read.unwrap(), values, "{format} {stored} {signed}");
            let explicit = transcode::to_explicit_vr_little_endian(&file).unwrap();
            let read = Instance::from_bytes(&explicit).unwrap().pixels();
            assert_eq!(read.unwrap(), values, "{format} {stored} {signed}, decoded");
        }
    }
}

#[tokio::test]
async fn jpeg_xl_that_may_have_been_changed_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (object, _) = slice_of(12, false);
    for (format, words) in [
        ("jxl-lossy", "do not come back exactly"),
        ("jxl-scaled", "it was scaled"),
        ("jxl-float", "floating-point samples"),
        ("jxl-colour", "more than one channel"),
    ] {
        let file = scripted(folder.path(), &object, format).await;
        let error = Instance::from_bytes(&file).unwrap().pixels().unwrap_err();
        let said = format!("{error} {}", error.source().unwrap());
        assert!(said.contains(words), "{format}: {said}");
        assert!(transcode::frames(&file, &[1]).is_err(), "{format}");
    }
}

#[tokio::test]
async fn twelve_bit_jpeg_is_within_one_of_what_dcmtk_decodes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (format, file) in [
        (
            "dcmcjpeg",
            made(folder.path(), 1, "dcmcjpeg", &["+ee", "+bt"]).await,
        ),
        ("dct", scripted(folder.path(), &slice(1), "dct").await),
    ] {
        std::fs::write(path("compressed"), &file).unwrap();
        let said = run("dcmdjpeg", &[&path("compressed"), &path("decoded")]).await;
        assert!(said.success, "{format}: {}", said.text);
        let theirs = std::fs::read(path("decoded")).unwrap();
        let theirs = Instance::from_bytes(&theirs).unwrap().pixels().unwrap();
        let ours = Instance::from_bytes(&file).unwrap().pixels().unwrap();
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).max();
        assert!(
            ours.len() == theirs.len() && worst <= Some(1),
            "{format}: {worst:?}"
        );
    }
}

#[tokio::test]
async fn a_broken_jpeg_xl_is_stored_as_sent_and_refused_with_its_name() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let syntax = "1.2.840.10008.1.2.4.110";
    let mut object = slice(1);
    // The signature of a codestream: nobody here looks further.
    let value = PixelFragmentSequence::new(Vec::<u32>::new(), vec![vec![0xFF, 0x0A, 0, 0]]);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
    object.update_meta(|meta| syntax.clone_into(&mut meta.transfer_syntax));
    let sent = written(&object);
    let mut association = call_as(&scp, "CT1", &[proposal(CT, &[syntax])]).await;
    assert_eq!(store(&mut association, &sent).await.status(), status::SUCCESS);
    association.link.release().await.unwrap();
    let kept = stored(&world, Slice::new("s", "a", 1).sop.as_str()).await;
    assert_eq!(file::dataset(&kept).unwrap(), file::dataset(&sent).unwrap());
    let said = Instance::from_bytes(&kept)
        .unwrap()
        .pixels()
        .unwrap_err()
        .to_string();
    assert!(said.contains(syntax), "{said}");
}

/// Two frames of JPEG-LS, each in two fragments.
async fn two_frames(folder: &Path) -> (DefaultDicomObject, Vec<Vec<u8>>) {
    let mut object =
        dicom_object::from_reader(made(folder, 1, "dcmcjpls", &["+el"]).await.as_slice()).unwrap();
    let stream = match object.get(tags::PIXEL_DATA).unwrap().value() {
        Value::PixelSequence(sequence) => sequence.fragments().concat(),
        _ => panic!("not encapsulated"),
    };
    object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, "2"));
    let (front, back) = stream.split_at(stream.len() / 4 * 2);
    let fragments: Vec<Vec<u8>> = [front, back, front, back].map(<[u8]>::to_vec).to_vec();
    (object, fragments)
}

#[tokio::test]
async fn frames_in_several_fragments_are_found_by_either_offset_table() {
    let folder = tempfile::tempdir().unwrap();
    let (object, fragments) = two_frames(folder.path()).await;
    let second = u32::try_from(fragments[0].len() + fragments[1].len() + 16).unwrap();
    let same: Vec<u8> = picture().iter().flat_map(|value| value.to_le_bytes()).collect();
    for (basic, extended) in [
        (vec![0, second], None),
        (Vec::new(), Some([0, u64::from(second)])),
    ] {
        let mut object = object.clone();
        if let Some(extended) = extended {
            let bytes: Vec<u8> = extended.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            object.put(DataElement::new(
                Tag(0x7FE0, 0x0001),
                VR::OV,
                PrimitiveValue::from(bytes),
            ));
        }
        let value = PixelFragmentSequence::new(basic, fragments.clone());
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
        let bytes = written(&object);
        let frames = transcode::frames(&bytes, &[2, 1]).unwrap();
        assert_eq!(frames, [same.clone(), same.clone()]);
        let explicit = transcode::to_explicit_vr_little_endian(&bytes).unwrap();
        assert_eq!(transcode::frames(&explicit, &[1, 2]).unwrap(), frames);
    }
    let mut untold = object.clone();
    let value = PixelFragmentSequence::new(Vec::<u32>::new(), fragments);
    untold.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
    let said = transcode::frames(&written(&untold), &[1])
        .unwrap_err()
        .to_string();
    assert!(said.contains("no offset table"), "{said}");
}

#[tokio::test]
async fn an_enhanced_ct_without_functional_groups_is_stored_and_refused_in_words() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut object = slice(1);
    object.put(DataElement::new(
        tags::SOP_CLASS_UID,
        VR::UI,
        uids::ENHANCED_CT_IMAGE_STORAGE,
    ));
    object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, "2"));
    let both = [picture(), picture()].concat();
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::U16(C::from_vec(both)),
    ));
    let bytes = part10(object.into_inner());
    let class = uids::ENHANCED_CT_IMAGE_STORAGE;
    let mut association = call_as(
        &scp,
        "CT1",
        &[proposal(class, &[uids::EXPLICIT_VR_LITTLE_ENDIAN])],
    )
    .await;
    assert_eq!(store(&mut association, &bytes).await.status(), status::SUCCESS);
    association.link.release().await.unwrap();
    let said = Instance::from_bytes(&bytes)
        .unwrap()
        .pixels()
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("2 frames; expected one frame an instance"),
        "{said}"
    );
    let slices = enhanced::slices(Instance::from_bytes(&bytes).unwrap());
    let problem = slices[0].attributes.frames_problem.unwrap();
    assert!(problem.contains("PerFrameFunctionalGroupsSequence"), "{problem}");
    assert_eq!(transcode::frames(&bytes, &[2]).unwrap().len(), 1);
}
