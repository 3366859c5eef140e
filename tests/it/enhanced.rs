//! Multi-frame CT that others made: the same head in the same place as its single slices, frame by frame; or refused in words.

use crate::{
    dimse_support::{python, run},
    series::{SIZE, Series, part10, plane_hu, trigger},
    web::Server,
};
use axum::http::StatusCode;
use bytes::Bytes;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ictus::{
    analysis::{
        assemble::{AssembleError, assemble},
        correction::{Corrected, Reader, Runs, correct},
        empty_report,
    },
    dicom::{enhanced, instance::Instance},
    domain::finding::SeriesChoice,
};
use std::path::{Path, PathBuf};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/enhanced.py");
const CLASSES: [(&str, &str); 2] = [
    ("enhanced", "1.2.840.10008.5.1.4.1.1.2.1"),
    ("legacy", "1.2.840.10008.5.1.4.1.1.2.2"),
];

/// A tilted, unevenly spaced stack over a whole head, whose slices come in no order.
fn head() -> Series {
    Series {
        positions_mm: (0..20)
            .map(|k| f64::from(7 * k % 20))
            .map(|place| 5.0 * place + (place - 10.0).max(0.0))
            .collect(),
        thickness_mm: 6.0,
        tilt_degrees: 12.0,
        ..Series::default()
    }
}

fn written(folder: &Path, series: &Series) -> Vec<PathBuf> {
    let slices = series.positions_mm.iter().enumerate().map(|(k, _)| {
        let path = folder.join(format!("{k:03}.dcm"));
        std::fs::write(&path, part10(series.dataset(k), series.transfer_syntax)).unwrap();
        path
    });
    slices.collect()
}

/// The slices in one file, as another program puts them there.
async fn made(folder: &Path, kind: &str, slices: &[PathBuf]) -> Vec<u8> {
    let out = folder.join(kind);
    let mut arguments = vec![SCRIPT, kind, out.to_str().unwrap()];
    arguments.extend(slices.iter().map(|path| path.to_str().unwrap()));
    let said = run(&python(), &arguments).await;
    assert!(said.success, "{kind}: {}", said.text);
    std::fs::read(out).unwrap()
}

fn read(files: Vec<Vec<u8>>) -> Vec<Instance> {
    let files: Vec<Bytes> = files.into_iter().map(Bytes::from).collect();
    enhanced::read(&files).unwrap()
}

#[tokio::test]
async fn is_the_same_volume_as_its_single_slices() {
    let folder = tempfile::tempdir().unwrap();
    let series = head();
    let paths = written(folder.path(), &series);
    let single = read(paths.iter().map(|path| std::fs::read(path).unwrap()).collect());
    let expected = assemble(&single, &trigger()).unwrap();
    for (kind, class) in CLASSES {
        let file = made(folder.path(), kind, &paths).await;
        let frames = read(vec![file]);
        assert_eq!(frames.len(), paths.len(), "{kind}");
        assert_eq!(
            frames[0].attributes.sop_class_uid.as_ref().unwrap().as_str(),
            class
        );
        let assembled = assemble(&frames, &trigger()).unwrap();
        assert_eq!(assembled.volume.geometry, expected.volume.geometry, "{kind}");
        assert_eq!(assembled.volume.data, expected.volume.data, "{kind}");
        assert_eq!(assembled.warnings, expected.warnings, "{kind}");
        for (slice, at) in assembled.instances.iter().enumerate() {
            let frame = frames[*at].attributes.frame_number().unwrap();
            let hu: Vec<f32> = plane_hu(expected.instances[slice])
                .into_iter()
                .map(f32::from)
                .collect();
            assert_eq!(assembled.volume.slice(slice), hu, "{kind}: frame {frame}");
        }
    }
}

#[tokio::test]
async fn compressed_frames_are_found_in_their_fragments() {
    let folder = tempfile::tempdir().unwrap();
    let series = head();
    let paths = written(folder.path(), &series);
    let plain = made(folder.path(), "enhanced", &paths).await;
    let plain = assemble(&read(vec![plain]), &trigger()).unwrap();
    let source = folder.path().join("enhanced");
    for (program, options) in [
        ("dcmcjpls", ["+el", "+fs", "1"]),
        ("dcmcrle", ["+fs", "1", "+ot"]),
    ] {
        let out = folder.path().join(program);
        let mut arguments: Vec<&str> = options.to_vec();
        arguments.extend([source.to_str().unwrap(), out.to_str().unwrap()]);
        let said = run(program, &arguments).await;
        assert!(said.success, "{program}: {}", said.text);
        let frames = read(vec![std::fs::read(&out).unwrap()]);
        let assembled = assemble(&frames, &trigger()).unwrap();
        assert_eq!(assembled.volume.data, plain.volume.data, "{program}");
    }
}

#[tokio::test]
async fn frames_that_are_not_one_stack_at_one_time_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let paths = written(folder.path(), &head());
    for (kind, code, words) in [
        ("temporal", "temporal_positions", "TemporalPositionIndex"),
        ("phases", "temporal_positions", "NominalPercentageOfCardiacPhase"),
        ("stacks", "mixed_stacks", "StackID"),
        ("kernels", "mixed_kernels", "ConvolutionKernel"),
        ("dimension", "mixed_dimensions", "DimensionIndexValues"),
        ("groups", "frames_unknown", "PerFrameFunctionalGroupsSequence"),
    ] {
        let frames = read(vec![made(folder.path(), kind, &paths).await]);
        let AssembleError::Refused { refusals, series } = assemble(&frames, &trigger()).unwrap_err() else {
            panic!("{kind}")
        };
        assert_eq!(refusals[0].code, code, "{kind}: {refusals:?}");
        assert!(refusals[0].text.contains(words), "{kind}: {refusals:?}");
        assert!(series[0].reason.contains(code), "{kind}: {series:?}");
    }
}

#[tokio::test]
async fn a_whole_head_in_one_file_waits_for_no_more_and_its_frames_are_served() {
    let server = Server::new().await;
    let folder = tempfile::tempdir().unwrap();
    let paths = written(folder.path(), &head());
    let file = made(folder.path(), "enhanced", &paths).await;
    assert_eq!(
        server.stow(std::slice::from_ref(&file)).await.status,
        StatusCode::OK
    );
    let due = "SELECT count(*) FROM graphile_worker._private_jobs WHERE run_at <= now()";
    assert_eq!(server.world.count(due).await, 1);
    let instance = Instance::from_bytes(&file).unwrap();
    let a = &instance.attributes;
    let [study, series, sop] = [&a.study_instance_uid, &a.series_instance_uid, &a.sop_instance_uid]
        .map(|uid| uid.as_ref().unwrap().clone());
    let path = format!("/dicom-web/studies/{study}/series/{series}/instances/{sop}/frames");
    let plain = "multipart/related; type=\"application/octet-stream\"";
    let answer = server.get(&format!("{path}/3,1"), &[("accept", plain)]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let frames: Vec<Vec<u8>> = answer.parts().into_iter().map(|part| part.1).collect();
    let words = |k: usize| -> Vec<u8> { plane_hu(k).into_iter().flat_map(i16::to_le_bytes).collect() };
    assert_eq!(frames, [words(2), words(0)]);
    // The window of the frame, center 40 and width 80: air is black, bone is white.
    let drawn = server
        .get(&format!("{path}/3/rendered"), &[("accept", "image/png")])
        .await;
    assert_eq!(drawn.status, StatusCode::OK, "{}", drawn.text());
    let picture = image::load_from_memory(&drawn.body).unwrap().into_luma8();
    assert_eq!(picture.dimensions(), (SIZE.into(), SIZE.into()));
    assert!(picture.pixels().any(|pixel| pixel.0 == [0]) && picture.pixels().any(|pixel| pixel.0 == [255]));
    assert!((100..150).contains(&picture.get_pixel(u32::from(SIZE) / 2 + 12, u32::from(SIZE) / 2).0[0]));
}

#[tokio::test]
async fn a_mask_drawn_on_frames_names_each_frame() {
    let folder = tempfile::tempdir().unwrap();
    let series = head();
    let paths = written(folder.path(), &series);
    let frames = read(vec![made(folder.path(), "enhanced", &paths).await]);
    let a = &frames[0].attributes;
    let sop = a.sop_instance_uid.clone().unwrap();
    let mut report = empty_report(a.study_instance_uid.clone());
    report.series.push(SeriesChoice {
        uid: a.series_instance_uid.clone().unwrap(),
        origin: "received".to_owned(),
        chosen: true,
        reason: String::new(),
    });
    let corrected = Corrected {
        report,
        masks: Vec::new(),
    };
    let reader = Reader {
        name: "Dr. R. Eader".to_owned(),
        key: [3; 32],
        at: time::OffsetDateTime::UNIX_EPOCH,
    };
    let middle = u32::from(SIZE) * u32::from(SIZE) / 2 + u32::from(SIZE) / 2;
    let runs = [middle, 4];
    let on = |frame: Option<u32>| Runs {
        sop_instance_uid: sop.as_str(),
        frame,
        runs: &runs,
    };
    let draw =
        |slices: &[Runs<'_>]| correct(frames.clone(), &corrected, "haemorrhage", slices, false, &reader);
    let drawn = draw(&[on(Some(5)), on(Some(2))]).unwrap();
    let groups = drawn
        .instance
        .object
        .element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
        .unwrap();
    let mut named = Vec::new();
    for group in groups.items().unwrap() {
        let inner = |object: &InMemDicomObject, tag| object.element(tag).unwrap().items().unwrap()[0].clone();
        let source = inner(
            &inner(group, tags::DERIVATION_IMAGE_SEQUENCE),
            tags::SOURCE_IMAGE_SEQUENCE,
        );
        let text =
            |object: &InMemDicomObject, tag| object.element(tag).unwrap().to_str().unwrap().into_owned();
        assert_eq!(text(&source, tags::REFERENCED_SOP_INSTANCE_UID), sop.as_str());
        let frame: usize = text(&source, tags::REFERENCED_FRAME_NUMBER).parse().unwrap();
        let place = inner(group, tags::PLANE_POSITION_SEQUENCE);
        let place = place.element(tags::IMAGE_POSITION_PATIENT).unwrap();
        let off = place
            .to_multi_float64()
            .unwrap()
            .iter()
            .zip(series.origin_mm(frame - 1))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(off < 1e-6, "frame {frame}");
        named.push(frame);
    }
    named.sort_unstable();
    assert_eq!(named, [2, 5]);
    for nowhere in [None, Some(0), Some(21)] {
        let said = draw(&[on(nowhere)]).unwrap_err().to_string();
        assert!(said.contains("did not look at this image"), "{said}");
    }
}
