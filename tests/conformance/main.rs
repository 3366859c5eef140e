//! Outside judges open our results: dicom3tools, dcmqi, highdicom, dcmtk.
//!
//! The judges are Python packages and Debian's dcmtk; `make setup` brings the former into `.venv`.
//! A test here fails when they are not there: a judge that does not sit acquits nobody.

#![expect(clippy::unwrap_used, reason = "a test program")]

mod source;

use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use ictus::{
    analysis::encode::{Correction, Edited, MapFormat, Maps, Quantity, Stamp, encode_correction},
    dicom::{enhanced, instance::Instance},
    domain::{
        artery::Artery, code, finding::Region, geometry::dot, plan::Structure, uid::Uid, volume::Volume,
    },
};
use source::Case;
use std::{fs, path::Path, process::Command};

/// Two bleeds on overlapping slices and one apart, so that frames have a gap and segments share slices.
const LESIONS: [([f64; 3], [f64; 3]); 3] = [
    ([0.45, 0.50, 0.65], [0.16, 0.10, 0.08]),
    ([0.50, 0.40, 0.35], [0.10, 0.05, 0.07]),
    ([0.82, 0.50, 0.50], [0.06, 0.06, 0.06]),
];

/// The same mask as a reader's, begun with the machine's or drawn by hand.
fn correct(case: &Case, machine: Option<&DefaultDicomObject>) -> DefaultDicomObject {
    let source: Vec<&Instance> = case.instances.iter().collect();
    let regions: Vec<Region> = case
        .report
        .findings
        .iter()
        .map(|finding| Region {
            segment: finding.segment,
            volume_ml: finding.volume_ml,
            center_mm: finding.center_mm,
            bounding_box_mm: finding.bounding_box_mm,
            side: finding.side,
            key_slice: finding.key_slice,
        })
        .collect();
    let uids = machine.map(|object| {
        [tags::SERIES_INSTANCE_UID, tags::SOP_INSTANCE_UID]
            .map(|tag| Uid::parse(&object.element(tag).unwrap().to_str().unwrap()).unwrap())
    });
    let edited = uids.as_ref().map(|[series, sop]| Edited {
        series_instance_uid: series,
        sop_instance_uid: sop,
        algorithm: "haemorrhage-2d-phantom 0.1.0",
    });
    // Another mask has another key.
    let stamp = Stamp {
        analysis_key: [u8::from(machine.is_some()); 32],
        ..case.stamp.clone()
    };
    encode_correction(&Correction {
        source: &source,
        segments: &case.segments,
        regions: &regions,
        kind: "haemorrhage",
        code: &code::HEMORRHAGE,
        reader: "Dr. R. Eader",
        edited: edited.as_ref(),
        stamp: &stamp,
    })
    .unwrap()
}

/// Writes the source, the results and what was meant by them, then calls the judges on the folder.
fn judge(case: &mut Case, whole: Option<&DefaultDicomObject>, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let write = |object: &DefaultDicomObject, name: &str| object.write_to_file(at(name)).unwrap();
    write_source(case, whole, folder.path());
    let negative = case.report.findings.is_empty();
    let names: &[&str] = if negative {
        &["pm.dcm", "sr.dcm"]
    } else {
        &["seg.dcm", "pm.dcm", "sr.dcm"]
    };
    let objects = case.encode().unwrap();
    assert_eq!(objects.len(), names.len());
    for (object, name) in objects.iter().zip(names) {
        write(object, name);
    }
    if !negative {
        write(&correct(case, Some(&objects[0])), "seg-edited.dcm");
        write(&correct(case, None), "seg-drawn.dcm");
    }
    case.maps.format = MapFormat::Float32;
    let float = case.encode().unwrap();
    write(&float[float.len() - 2], "pm-float.dcm");
    case.maps.format = MapFormat::Unsigned16;
    case.maps.further = [Quantity::Score, Quantity::MutualInformation, Quantity::Variance].into();
    let further = case.encode().unwrap();
    let first = further.len() - 4;
    for (object, name) in further[first..]
        .iter()
        .zip(["score", "mutual_information", "variance"])
    {
        write(object, &format!("pm-{name}.dcm"));
    }

    meant(case, folder.path());
    ask("judge.py", folder.path(), arguments);
}

/// Writes the source, anatomical structures, label map, pictures and key objects, then calls the judges on the folder.
fn judge_extras(case: &mut Case, whole: Option<&DefaultDicomObject>, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_source(case, whole, folder.path());
    // The basilar artery is known and not seen, so that segments have other numbers than the plan's.
    case.plan.structures = [Artery::M1, Artery::Basilar, Artery::M2]
        .map(|artery| Structure {
            name: artery.name().into(),
            code: artery.code(),
        })
        .into();
    let columns = case.segments.geometry.columns;
    let seen = case
        .brain
        .data
        .iter()
        .enumerate()
        .map(|(v, inside)| match v % columns {
            column if !inside || column % 3 == 0 => 0,
            column if 2 * column < columns => 1,
            _ => 3,
        });
    case.prediction.structures = Some(Volume {
        geometry: case.segments.geometry.clone(),
        data: seen.collect(),
    });
    case.maps.structures = true;
    let plain = case.encode().unwrap();
    plain[plain.len() - 1]
        .write_to_file(at("structures.dcm"))
        .unwrap();
    let plain = plain.len();
    case.maps.labelmap = true;
    case.maps.summary = true;
    case.maps.key_objects = true;
    let all = case.encode().unwrap();
    // A replay reads from the results what was asked for.
    let results = all
        .iter()
        .map(|object| Instance::from_object(object.clone()).unwrap());
    let mut asked = Maps::of(&results.collect::<Vec<_>>());
    let is_negative = case.report.findings.is_empty();
    asked.labelmap |= is_negative;
    asked.key_objects |= is_negative;
    assert_eq!(asked, case.maps);
    for (index, object) in all.iter().enumerate().skip(plain) {
        let name = match object.meta().media_storage_sop_class_uid().trim_end_matches('\0') {
            "1.2.840.10008.5.1.4.1.1.66.7" => "labelmap.dcm".to_owned(),
            "1.2.840.10008.5.1.4.1.1.7" => format!("sc{index:03}.dcm"),
            "1.2.840.10008.5.1.4.1.1.88.59" => "kos.dcm".to_owned(),
            other => panic!("{other} was not asked for"),
        };
        object.write_to_file(at(&name)).unwrap();
    }
    meant(case, folder.path());
    ask("judge_extras.py", folder.path(), arguments);
}

/// What was meant, for the judges.
fn meant(case: &Case, folder: &Path) {
    let at = |name: &str| folder.join(name);
    let geometry = &case.segments.geometry;
    let bytes: Vec<u8> = case.segments.data.iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(at("segments.u16"), bytes).unwrap();
    for (name, volume) in [
        ("entropy", &case.prediction.entropy),
        ("score", &case.prediction.score),
        ("mutual_information", &case.prediction.mutual_information),
        ("variance", &case.prediction.variance),
    ] {
        let bytes: Vec<u8> = volume.data.iter().flat_map(|v| v.to_le_bytes()).collect();
        fs::write(at(&format!("{name}.f32")), bytes).unwrap();
    }
    if let Some(structures) = &case.prediction.structures {
        fs::write(at("structures.u8"), &structures.data).unwrap();
    }
    let meant = serde_json::json!({
        "shape": [geometry.slices(), geometry.rows, geometry.columns],
        "sources": case.instances.iter().map(source_of).collect::<Vec<_>>(),
        "findings": case.report.findings,
    });
    fs::write(at("meant.json"), meant.to_string()).unwrap();
}

/// An image as references name it.
fn source_of(instance: &Instance) -> (String, Option<u32>) {
    let uid = instance.object.element(tags::SOP_INSTANCE_UID).unwrap();
    (
        uid.to_str().unwrap().into_owned(),
        instance.attributes.frame_number(),
    )
}

/// The same case on one multi-frame CT, which another program makes of its slices; and that.
fn on_frames(kind: &str, mut case: Case) -> (Case, DefaultDicomObject) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String| folder.path().join(name);
    let mut slices = Vec::new();
    for (index, instance) in case.instances.iter().enumerate() {
        let name = path(format!("ct{index:03}.dcm"));
        instance.object.write_to_file(&name).unwrap();
        slices.push(name.to_str().unwrap().to_owned());
    }
    let out = path("enhanced.dcm".to_owned());
    let slices: Vec<&str> = slices.iter().map(String::as_str).collect();
    let said = call(
        "enhanced.py",
        Path::new(kind),
        &[&[out.to_str().unwrap()], &slices[..]].concat(),
    );
    assert!(said.0, "{}", said.1);
    let whole = dicom_object::open_file(out).unwrap();
    case.instances = enhanced::slices(Instance::from_object(whole.clone()).unwrap());
    assert_eq!(case.instances.len(), slices.len());
    // The other program may have turned the order of the frames round.
    let normal = case.segments.geometry.normal();
    let along = |instance: &Instance| dot(instance.attributes.image_position_patient.unwrap(), normal);
    case.instances.sort_by(|a, b| along(a).total_cmp(&along(b)));
    (case, whole)
}

/// Writes the source of a case: its slices, or the one object that holds them.
fn write_source(case: &Case, whole: Option<&DefaultDicomObject>, folder: &Path) {
    if let Some(whole) = whole {
        whole.write_to_file(folder.join("ct000.dcm")).unwrap();
        return;
    }
    for (index, instance) in case.instances.iter().enumerate() {
        let name = folder.join(format!("ct{index:03}.dcm"));
        instance.object.write_to_file(name).unwrap();
    }
}

/// Calls one of the scripts of judges, who must have no objection.
fn ask(script: &str, folder: &Path, arguments: &[&str]) {
    let (success, said) = call(script, folder, arguments);
    assert!(success, "{said}");
    assert!(said.contains("no objection"), "{said}");
}

/// Whether a script ended well, and what it said.
fn call(script: &str, folder: &Path, arguments: &[&str]) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(
        python.exists(),
        "the outside judges are not installed: run `make setup`, which makes .venv, and test again"
    );
    let output = Command::new(python)
        .args(["-W", "ignore"])
        .arg(root.join("tests/conformance").join(script))
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), said)
}

/// 61 × 53 voxels a frame: no multiple of eight, so that frames of bits do not start on bytes.
#[test]
fn judges_accept_results_on_an_even_series() {
    let mut case = source::case(&source::geometry(61, 53, 16, 0.0, &[5.0]), &LESIONS);
    judge(&mut case, None, &["--even"]);
}

#[test]
fn judges_accept_results_on_a_tilted_unevenly_spaced_series() {
    let mut case = source::case(&source::geometry(64, 48, 18, 18.5, &[4.0, 4.0, 7.5]), &LESIONS);
    judge(&mut case, None, &[]);
}

#[test]
fn judges_accept_the_report_and_the_map_of_a_negative_study() {
    let mut case = source::case(&source::geometry(40, 40, 10, 0.0, &[5.0]), &[]);
    judge(&mut case, None, &["--even"]);
}

#[test]
fn judges_accept_structures_pictures_a_label_map_and_key_objects_of_an_even_series() {
    let mut case = source::case(&source::geometry(61, 53, 16, 0.0, &[5.0]), &LESIONS);
    judge_extras(&mut case, None, &["--even"]);
}

#[test]
fn judges_accept_structures_pictures_a_label_map_and_key_objects_of_a_tilted_series() {
    let mut case = source::case(&source::geometry(256, 256, 18, 18.5, &[4.0, 4.0, 7.5]), &LESIONS);
    judge_extras(&mut case, None, &[]);
}

#[test]
fn judges_accept_the_structures_and_the_picture_of_a_negative_study() {
    let mut case = source::case(&source::geometry(40, 40, 10, 0.0, &[5.0]), &[]);
    judge_extras(&mut case, None, &["--even"]);
}

#[test]
fn judges_accept_results_on_the_frames_of_an_enhanced_ct() {
    let even = source::case(&source::geometry(61, 53, 16, 0.0, &[5.0]), &LESIONS);
    let (mut case, whole) = on_frames("enhanced", even);
    judge(&mut case, Some(&whole), &["--even"]);
    let tilted = source::case(&source::geometry(64, 48, 18, 18.5, &[4.0, 4.0, 7.5]), &LESIONS);
    let (mut case, whole) = on_frames("enhanced", tilted);
    judge(&mut case, Some(&whole), &[]);
}

#[test]
fn judges_accept_structures_pictures_a_label_map_and_key_objects_of_an_enhanced_ct() {
    let even = source::case(&source::geometry(61, 53, 16, 0.0, &[5.0]), &LESIONS);
    let (mut case, whole) = on_frames("enhanced", even);
    judge_extras(&mut case, Some(&whole), &["--even"]);
}

#[test]
fn judges_accept_results_on_the_frames_of_a_legacy_converted_ct() {
    let even = source::case(&source::geometry(61, 53, 16, 0.0, &[5.0]), &LESIONS);
    let (mut case, whole) = on_frames("legacy", even);
    judge(&mut case, Some(&whole), &["--even"]);
}

#[test]
fn judges_accept_structures_pictures_a_label_map_and_key_objects_of_a_legacy_converted_ct() {
    let even = source::case(&source::geometry(61, 53, 16, 0.0, &[5.0]), &LESIONS);
    let (mut case, whole) = on_frames("legacy", even);
    judge_extras(&mut case, Some(&whole), &["--even"]);
}

/// The program as it is run: a tilted head as slices, and as the frames of one object in no order.
#[test]
fn a_multi_frame_ct_is_answered_as_its_single_slices_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let head = ["--seed", "36", "--kind", "haemorrhage", "--geometry", "tilted"];
    ictus(&[&["phantom", "--out", &at("phantom")], &head[..]].concat());
    fs::create_dir(folder.path().join("single")).unwrap();
    fs::rename(at("phantom/0036/ct"), at("single/source")).unwrap();
    let slices = fs::read_dir(at("single/source")).unwrap();
    let mut slices: Vec<String> = slices
        .map(|slice| slice.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    slices.sort();
    let half = slices.len() / 2;
    slices.rotate_left(half);
    slices[..half].reverse();
    let analyse = |name: &str| {
        let (source, results) = (at(&format!("{name}/source")), at(&format!("{name}/results")));
        ictus(&[
            "analyze",
            &source,
            "--out",
            &results,
            "--labelmap",
            "--maps",
            "score",
        ]);
    };
    analyse("single");
    for kind in ["enhanced", "legacy"] {
        let source = folder.path().join("frames/source");
        fs::create_dir_all(&source).unwrap();
        let out = source.join("ct.dcm");
        let arguments: Vec<&str> = std::iter::once(out.to_str().unwrap())
            .chain(slices.iter().map(String::as_str))
            .collect();
        let (success, said) = call("enhanced.py", Path::new(kind), &arguments);
        assert!(success, "{said}");
        analyse("frames");
        ask("judge_twins.py", folder.path(), &[]);
        fs::remove_dir_all(at("frames")).unwrap();
    }
}

/// Runs the program, which must end well.
fn ictus(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_ictus")).args(arguments).output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
