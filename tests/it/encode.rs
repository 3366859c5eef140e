//! Results on made-up series: what is written is what was meant, always the same, and never of two patients.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../conformance/source.rs"]
pub(crate) mod source;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, value::DataSetSequence};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, from_reader};
use dicom_pixeldata::PixelDecoder;
use ictus::{
    analysis::encode::{EncodeError, EncodeInput, MapFormat, Predecessor, Quantity},
    dicom::instance::Instance,
    domain::{
        failure::FailureClass,
        finding::AnswerValue,
        volume::{Geometry, Volume},
    },
};
use proptest::prelude::*;
use source::{Case, case, geometry};

const LESIONS: [([f64; 3], [f64; 3]); 2] = [
    ([0.45, 0.50, 0.65], [0.20, 0.12, 0.10]),
    ([0.50, 0.40, 0.35], [0.15, 0.08, 0.09]),
];

/// A small series with two bleeds.
fn bleeding() -> Case {
    case(&geometry(40, 36, 9, 0.0, &[5.0]), &LESIONS)
}

fn bytes(object: &DefaultDicomObject) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    bytes
}

fn put(instance: &mut Instance, tag: Tag, vr: VR, value: &str) {
    instance
        .object
        .put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().into_owned()
}

fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.element(tag).unwrap().items().unwrap()
}

fn frames(object: &InMemDicomObject) -> &[InMemDicomObject] {
    items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
}

/// The slice whose instance a frame names.
fn slice_of(frame: &InMemDicomObject, slices: usize) -> usize {
    let made = &items(frame, tags::DERIVATION_IMAGE_SEQUENCE)[0];
    let named = text(
        &items(made, tags::SOURCE_IMAGE_SEQUENCE)[0],
        tags::REFERENCED_SOP_INSTANCE_UID,
    );
    (0..slices)
        .find(|slice| source::uid("source.instance", *slice).as_str() == named)
        .unwrap()
}

/// Unpacks a SEG by its own header: the reader's side of PS3.3 section C.8.20 and PS3.5 section 8.1.1.
fn decode_seg(seg: &InMemDicomObject, geometry: &Geometry) -> Vec<u16> {
    let packed = seg.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    let len = geometry.slice_len();
    let mut voxels = vec![0u16; geometry.len()];
    for (index, frame) in frames(seg).iter().enumerate() {
        let identification = &items(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE)[0];
        let number = identification
            .element(tags::REFERENCED_SEGMENT_NUMBER)
            .unwrap()
            .to_int()
            .unwrap();
        let slice = slice_of(frame, geometry.slices());
        for voxel in 0..len {
            let bit = index * len + voxel;
            if packed[bit / 8] >> (bit % 8) & 1 == 1 {
                voxels[slice * len + voxel] = number;
            }
        }
    }
    voxels
}

/// Every text of a report, concept names, values and words alike.
fn words(object: &InMemDicomObject) -> String {
    let mut said = String::new();
    for element in object {
        match element.items() {
            Some(items) => said.extend(items.iter().map(words)),
            None if matches!(element.header().tag, tags::TEXT_VALUE | tags::CODE_MEANING) => {
                said.push_str(&element.to_str().unwrap());
                said.push('\n');
            }
            None => {}
        }
    }
    said
}

fn volume<T: Clone>(geometry: &Geometry, data: Vec<T>) -> Volume<T> {
    Volume {
        geometry: geometry.clone(),
        data,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn decoding_a_seg_gives_the_segments_back(
        rows in 1usize..12, columns in 1usize..12, slices in 2usize..6, seed in any::<u64>(), count in 1u16..4,
    ) {
        let grid = geometry(rows, columns, slices, 12.0, &[3.0, 5.0]);
        let mut case = case(&grid, &[]);
        let mut state = seed | 1;
        let mut data: Vec<u16> = (0..grid.len()).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u16::try_from(state >> 60).unwrap()
        }).map(|v| if v <= count { v } else { 0 }).collect();
        // Renumber to the segments that are there: a finding without voxels does not exist.
        let mut numbers: Vec<u16> = data.iter().copied().filter(|v| *v > 0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for voxel in &mut data {
            *voxel = numbers.iter().position(|n| n == voxel).map_or(0, |at| u16::try_from(at + 1).unwrap());
        }
        let template = bleeding().report.findings.remove(0);
        case.report.findings = (1..=numbers.len()).map(|at| {
            let mut finding = template.clone();
            finding.segment = u16::try_from(at).unwrap();
            finding.id = format!("haemorrhage-{at}");
            finding
        }).collect();
        case.segments = volume(&grid, data);
        let objects = case.encode().unwrap();
        if numbers.is_empty() {
            prop_assert_eq!(objects.len(), 2);
        } else {
            let seg = from_reader(&bytes(&objects[0])[..]).unwrap();
            prop_assert_eq!(decode_seg(&seg, &grid), case.segments.data);
            for frame in frames(&seg) {
                prop_assert!(slice_of(frame, slices) < slices);
            }
        }
    }
}

#[test]
fn the_map_read_back_is_the_entropy_within_half_a_step() {
    let case = bleeding();
    let objects = case.encode().unwrap();
    let pm = from_reader(&bytes(&objects[1])[..]).unwrap();
    assert_eq!(pm.meta().transfer_syntax(), uids::RLE_LOSSLESS);
    let grid = &case.segments.geometry;
    let stored: Vec<u16> = pm
        .decode_pixel_data()
        .unwrap()
        .data()
        .chunks(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]))
        .collect();
    assert_eq!(stored.len(), frames(&pm).len() * grid.slice_len());
    for (frame, values) in frames(&pm).iter().zip(stored.chunks(grid.slice_len())) {
        let meant = case.prediction.entropy.slice(slice_of(frame, grid.slices()));
        for (value, meant) in values.iter().zip(meant) {
            assert!((f64::from(*value) / 65535.0 - f64::from(*meant)).abs() <= 0.5 / 65535.0 + 1e-9);
        }
    }
}

#[test]
fn a_map_has_frames_from_the_first_to_the_last_slice_worth_one() {
    let mut case = bleeding();
    let grid = case.segments.geometry.clone();
    let len = grid.slice_len();
    case.brain.data.fill(false);
    case.prediction.entropy.data.fill(0.0005);
    case.brain.data[2 * len] = true;
    case.prediction.entropy.data[5 * len + 3] = 0.002;
    let objects = case.encode().unwrap();
    let shown: Vec<usize> = frames(&objects[1])
        .iter()
        .map(|f| slice_of(f, grid.slices()))
        .collect();
    assert_eq!(shown, [2, 3, 4, 5]);
}

#[test]
fn encoding_twice_gives_the_same_bytes() {
    let (first, second) = (bleeding().encode().unwrap(), bleeding().encode().unwrap());
    assert_eq!(first.len(), 3);
    for (first, second) in first.iter().zip(&second) {
        assert!(bytes(first) == bytes(second));
    }
}

#[test]
fn another_analysis_gets_other_uids() {
    let mut other = bleeding();
    other.stamp.analysis_key[31] ^= 1;
    for (first, second) in bleeding().encode().unwrap().iter().zip(&other.encode().unwrap()) {
        for tag in [tags::SOP_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
            assert_ne!(text(first, tag), text(second, tag));
        }
    }
}

#[test]
fn refuses_a_series_of_two_patients_without_naming_them() {
    for (tag, vr, keyword) in [
        (tags::PATIENT_ID, VR::LO, "PatientID"),
        (tags::PATIENT_NAME, VR::PN, "PatientName"),
        (tags::ACCESSION_NUMBER, VR::SH, "AccessionNumber"),
        (tags::STUDY_INSTANCE_UID, VR::UI, "StudyInstanceUID"),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, "FrameOfReferenceUID"),
    ] {
        let mut case = bleeding();
        put(&mut case.instances[3], tag, vr, "1.2.3.4567");
        let error = case.encode().unwrap_err();
        assert!(matches!(error, EncodeError::Conflict { .. }), "{error}");
        assert_eq!(error.class(), FailureClass::Input);
        let said = error.to_string();
        assert!(
            said.contains(keyword) && !said.contains("4567") && !said.contains("Doe"),
            "{said}"
        );
    }
}

#[test]
fn padding_and_a_missing_copy_are_no_conflict() {
    let mut case = bleeding();
    put(&mut case.instances[1], tags::PATIENT_ID, VR::LO, "PHANTOM-1 ");
    put(&mut case.instances[0], tags::PATIENT_NAME, VR::PN, "");
    let objects = case.encode().unwrap();
    assert_eq!(text(&objects[0], tags::PATIENT_NAME), "Doe^Phantom");
}

#[test]
fn refuses_text_that_could_not_be_decoded() {
    let mut case = bleeding();
    for instance in &mut case.instances {
        put(instance, tags::PATIENT_NAME, VR::PN, "M\u{F7FC}ller");
    }
    let error = case.encode().unwrap_err();
    assert!(matches!(error, EncodeError::Undecodable { .. }), "{error}");
    assert_eq!(error.class(), FailureClass::Input);
}

#[test]
fn a_mask_of_a_lossy_image_says_so() {
    let mut case = bleeding();
    put(
        &mut case.instances[2],
        tags::LOSSY_IMAGE_COMPRESSION,
        VR::CS,
        "01",
    );
    put(
        &mut case.instances[2],
        tags::LOSSY_IMAGE_COMPRESSION_RATIO,
        VR::DS,
        "8.5",
    );
    for image in &case.encode().unwrap()[..2] {
        assert_eq!(text(image, tags::LOSSY_IMAGE_COMPRESSION), "01");
        assert_eq!(text(image, tags::LOSSY_IMAGE_COMPRESSION_RATIO), "8.5");
    }
}

#[test]
fn a_float_map_is_another_instance_with_another_report() {
    let mut case = bleeding();
    let packed = case.encode().unwrap();
    case.maps.format = MapFormat::Float32;
    let float = case.encode().unwrap();
    let uid = |object: &DefaultDicomObject| text(object, tags::SOP_INSTANCE_UID);
    assert_eq!(uid(&packed[0]), uid(&float[0]));
    assert!(bytes(&packed[0]) == bytes(&float[0]));
    assert_ne!(uid(&packed[1]), uid(&float[1]));
    assert_ne!(uid(&packed[2]), uid(&float[2]));
    let stored = float[1]
        .element(tags::FLOAT_PIXEL_DATA)
        .unwrap()
        .to_multi_float32()
        .unwrap();
    let grid = &case.segments.geometry;
    for (frame, values) in frames(&float[1]).iter().zip(stored.chunks(grid.slice_len())) {
        let meant = case.prediction.entropy.slice(slice_of(frame, grid.slices()));
        for (value, meant) in values.iter().zip(meant) {
            assert!((value - meant).abs() <= 0.5 / 65536.0, "{value} {meant}");
        }
    }
}

#[test]
fn further_maps_stand_behind_the_entropy_and_the_report_names_them() {
    let mut case = bleeding();
    let plain = case.encode().unwrap();
    case.maps.further = [Quantity::Variance, Quantity::Score].into();
    let more = case.encode().unwrap();
    let uid = |object: &DefaultDicomObject| text(object, tags::SOP_INSTANCE_UID);
    let labels: Vec<_> = more[1..4]
        .iter()
        .map(|map| text(map, tags::CONTENT_LABEL))
        .collect();
    assert_eq!(labels, ["ENTROPY", "SCORE", "VARIANCE"]);
    assert!(bytes(&plain[0]) == bytes(&more[0]) && bytes(&plain[1]) == bytes(&more[1]));
    let report = more.last().unwrap();
    assert_ne!(uid(report), uid(plain.last().unwrap()), "another report");
    let study = &items(report, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE)[0];
    let evidence: Vec<_> = items(study, tags::REFERENCED_SERIES_SEQUENCE)
        .iter()
        .map(|series| {
            let instance = &items(series, tags::REFERENCED_SOP_SEQUENCE)[0];
            text(instance, tags::REFERENCED_SOP_INSTANCE_UID)
        })
        .collect();
    for map in &more[1..4] {
        assert!(evidence.contains(&uid(map)));
    }
    case.prediction.variance.data[3] = f32::NAN;
    assert_eq!(case.encode().unwrap_err().class(), FailureClass::Internal);
}

#[test]
fn refuses_a_source_without_a_frame_of_reference() {
    let mut case = bleeding();
    case.instances[4]
        .object
        .remove_element(tags::FRAME_OF_REFERENCE_UID);
    let error = case.encode().unwrap_err();
    assert!(
        matches!(error, EncodeError::Missing { instance: 5, .. }),
        "{error}"
    );
}

#[test]
fn a_fault_of_an_earlier_stage_is_ours_not_the_inputs() {
    let mut unknown = bleeding();
    unknown.segments.data[0] = 9;
    let mut empty = bleeding();
    empty.segments.data.fill(0);
    let mut short = bleeding();
    short.instances.pop();
    let mut undefined = bleeding();
    undefined.prediction.entropy.data[7] = f32::NAN;
    for case in [unknown, empty, short, undefined] {
        assert_eq!(case.encode().unwrap_err().class(), FailureClass::Internal);
    }
}

#[test]
fn text_is_written_as_utf8_and_type_2_attributes_are_written_empty() {
    let mut case = bleeding();
    for instance in &mut case.instances {
        put(instance, tags::PATIENT_NAME, VR::PN, "Müller^Jürgen");
        instance.object.remove_element(tags::PATIENT_BIRTH_DATE);
        instance.object.remove_element(tags::STUDY_ID);
    }
    for object in case.encode().unwrap() {
        assert_eq!(text(&object, tags::SPECIFIC_CHARACTER_SET), "ISO_IR 192");
        let written = bytes(&object);
        assert!(written.windows(7).any(|window| window == "Müller".as_bytes()));
        assert_eq!(
            text(&from_reader(&written[..]).unwrap(), tags::PATIENT_NAME),
            "Müller^Jürgen"
        );
        for tag in [
            tags::PATIENT_BIRTH_DATE,
            tags::STUDY_ID,
            tags::REFERRING_PHYSICIAN_NAME,
        ] {
            assert_eq!(text(&object, tag), "");
        }
    }
}

#[test]
fn results_keep_the_order_and_the_institution_stays_with_the_scanner() {
    let mut case = bleeding();
    let mut order = InMemDicomObject::new_empty();
    order.put(DataElement::new(
        tags::REQUESTED_PROCEDURE_ID,
        VR::SH,
        PrimitiveValue::from("RP-7"),
    ));
    for instance in &mut case.instances {
        let order = DataSetSequence::from(vec![order.clone()]);
        instance
            .object
            .put(DataElement::new(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, order));
    }
    let objects = case.encode().unwrap();
    for image in &objects[..2] {
        let order = &items(image, tags::REQUEST_ATTRIBUTES_SEQUENCE)[0];
        assert_eq!(text(order, tags::REQUESTED_PROCEDURE_ID), "RP-7");
    }
    let request = &items(&objects[2], tags::REFERENCED_REQUEST_SEQUENCE)[0];
    assert_eq!(text(request, tags::REQUESTED_PROCEDURE_ID), "RP-7");
    assert_eq!(text(request, tags::ACCESSION_NUMBER), "A-1");
    for object in &objects {
        assert!(object.get(tags::INSTITUTION_NAME).is_none());
        let scanner = &items(object, tags::CONTRIBUTING_EQUIPMENT_SEQUENCE)[0];
        assert_eq!(text(scanner, tags::INSTITUTION_NAME), "Nowhere General");
    }
}

#[test]
fn dates_stand_in_the_time_zone_that_the_source_declares() {
    let mut case = bleeding();
    for instance in &mut case.instances {
        put(instance, tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, "-0630");
    }
    let objects = case.encode().unwrap();
    assert_eq!(text(&objects[2], tags::CONTENT_DATE), "20260303");
    assert_eq!(text(&objects[2], tags::CONTENT_TIME), "223607.089000");
    assert_eq!(text(&objects[2], tags::TIMEZONE_OFFSET_FROM_UTC), "-0630");
}

#[test]
fn a_negative_study_has_no_seg_and_a_report_that_does_not_clear_it() {
    let objects = case(&geometry(40, 36, 9, 0.0, &[5.0]), &[]).encode().unwrap();
    let classes: Vec<String> = objects.iter().map(|o| text(o, tags::SOP_CLASS_UID)).collect();
    assert_eq!(
        classes,
        [uids::PARAMETRIC_MAP_STORAGE, uids::COMPREHENSIVE3_DSR_STORAGE]
    );
    let said = words(&objects[1]);
    assert!(
        said.contains("not flagged\n") && said.contains("not a statement that there is none"),
        "{said}"
    );
    assert!(
        said.contains("not for clinical use") && said.contains("no_model: "),
        "{said}"
    );
    for unwanted in ["cleared", "robability"] {
        assert!(!said.contains(unwanted), "{said}");
    }
}

#[test]
fn an_answer_is_worded_as_it_was_given() {
    for (answer, word) in [
        (AnswerValue::Present, "flagged"),
        (AnswerValue::Absent, "not flagged"),
        (AnswerValue::Uncertain, "uncertain"),
        (AnswerValue::NotEvaluated, "not evaluated"),
    ] {
        let mut case = bleeding();
        case.report.answers[0].answer = answer;
        let said = words(&case.encode().unwrap()[2]);
        let lines: Vec<&str> = said.lines().collect();
        let answers = lines
            .windows(2)
            .filter(|pair| pair[0] == "Answer for haemorrhage")
            .map(|pair| pair[1]);
        assert_eq!(
            answers.collect::<Vec<_>>(),
            [word, word],
            "of the case group and of the evaluations"
        );
    }
}

#[test]
fn a_later_report_names_the_one_that_it_replaces() {
    let case = bleeding();
    let predecessor = Predecessor {
        series_instance_uid: source::uid("earlier.series", 0),
        sop_instance_uid: source::uid("earlier.report", 0),
    };
    let source: Vec<&Instance> = case.instances.iter().collect();
    let objects = ictus::analysis::encode::encode(&EncodeInput {
        source: &source,
        ct: None,
        prediction: &case.prediction,
        segments: &case.segments,
        brain: &case.brain,
        report: &case.report,
        plan: &case.plan,
        stamp: &case.stamp,
        maps: &case.maps,
        predecessor: Some(&predecessor),
    })
    .unwrap();
    let study = &items(&objects[2], tags::PREDECESSOR_DOCUMENTS_SEQUENCE)[0];
    let series = &items(study, tags::REFERENCED_SERIES_SEQUENCE)[0];
    let report = &items(series, tags::REFERENCED_SOP_SEQUENCE)[0];
    assert_eq!(
        text(report, tags::REFERENCED_SOP_INSTANCE_UID),
        predecessor.sop_instance_uid.as_str()
    );
}

#[test]
fn results_of_a_head_stay_within_half_the_bytes_of_its_ct() {
    let case = case(&geometry(256, 256, 28, 18.5, &[5.0]), &LESIONS);
    let size = |objects: &[&DefaultDicomObject]| objects.iter().map(|o| bytes(o).len()).sum::<usize>();
    let results = case.encode().unwrap();
    let results = size(&results.iter().collect::<Vec<_>>());
    let ct = size(
        &case
            .instances
            .iter()
            .map(|instance| &instance.object)
            .collect::<Vec<_>>(),
    );
    assert!(results * 2 <= ct, "{results} bytes of results for {ct} of CT");
}
