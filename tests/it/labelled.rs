//! Datasets of DICOM series and Segmentations: read voxel by voxel, trained on and judged by the program as it is run.

use crate::{
    dimse_support::{python, run},
    support::ictus,
};
use ictus::{
    analysis::assemble::Values,
    train::{
        labelled::{Case, Description},
        phantom::{Class, GeometryKind, Head, Kind, Range, Rendered, geometry, write_dicom},
        recipe,
    },
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/label_mask.py");

fn names() -> Vec<String> {
    Class::BLEEDS.map(recipe::name).into()
}

/// Makes `dataset.json` and the folders.
fn describe(folder: &Path, names: &[String]) {
    let named = names
        .iter()
        .zip(1..)
        .map(|(name, value)| (name.clone(), json!(value)));
    let labels: serde_json::Map<String, Value> = [("background".to_owned(), json!(0))]
        .into_iter()
        .chain(named)
        .collect();
    let text = json!({ "channel_names": { "0": "CT" }, "labels": labels, "file_ending": ".dcm" });
    fs::create_dir_all(folder.join("imagesTr")).unwrap();
    fs::create_dir_all(folder.join("labelsTr")).unwrap();
    fs::write(folder.join("dataset.json"), text.to_string()).unwrap();
}

/// A head in which at least two kinds of bleed are drawn.
fn head(first_seed: u64, kind: GeometryKind) -> (Head, Rendered) {
    (first_seed..)
        .find_map(|seed| {
            let head = Head::new(seed, Kind::Haemorrhage, Range::Training);
            let rendered = head.render(&geometry(kind, seed, Range::Training));
            let holds = |class: &Class| rendered.truth.data.contains(&(*class as u8));
            (Class::BLEEDS.iter().filter(|c| holds(c)).count() > 1).then_some((head, rendered))
        })
        .unwrap()
}

/// Writes a case: its series, and its labels with another program.
async fn put(
    folder: &Path,
    case: &str,
    kind: GeometryKind,
    (head, rendered): &(Head, Rendered),
    form: &str,
    names: &[String],
) {
    let images = folder.join(format!("imagesTr/{case}_0000"));
    write_dicom(head, rendered, kind, &images).unwrap();
    let bytes = folder.join("labels.bin");
    fs::write(&bytes, &rendered.truth.data).unwrap();
    let ending = if form == "parts" { "" } else { ".dcm" };
    let out = folder.join(format!("labelsTr/{case}{ending}"));
    let paths = [&images, &bytes, &out].map(|path| path.to_str().unwrap());
    let mut arguments = vec!["-W", "ignore", SCRIPT, paths[0], paths[1], paths[2], form];
    arguments.extend(names.iter().map(String::as_str));
    let made = run(&python(), &arguments).await;
    assert!(made.success, "{}", made.text);
    fs::remove_file(bytes).unwrap();
}

fn opened(folder: &Path, case: &str) -> Result<Case, String> {
    let description = Description::read(folder).unwrap();
    let cases = description
        .cases(&folder.join("imagesTr"), &folder.join("labelsTr"))
        .unwrap();
    let files = cases.iter().find(|files| files.name == case).unwrap();
    description.open(files, Values::Hu)
}

#[tokio::test]
async fn series_and_segmentations_are_read_voxel_by_voxel_trained_on_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    describe(folder, &names());
    let cases = [
        ("even", GeometryKind::Even, "binary", 40),
        ("tilted", GeometryKind::Tilted, "labelmap", 60),
        ("uneven", GeometryKind::Uneven, "parts", 80),
    ];
    for (case, kind, form, first_seed) in cases {
        let made = head(first_seed, kind);
        put(folder, case, kind, &made, form, &names()).await;
        let Case { scan, labels } = opened(folder, case).unwrap();
        let truth = &made.1.truth;
        assert!(labels.data == truth.data, "{case}: labels differ");
        // A file of twelve bits ends at 3071 HU.
        let pairs = made.1.hu.data.iter().zip(&scan.channels[0].data);
        let farthest = pairs
            .filter(|(hu, _)| (-1000.0..3000.0).contains(*hu))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(farthest <= 0.51, "{case}: {farthest} HU");
    }
    let (at, out) = (folder.to_str().unwrap(), folder.join("model"));
    let out = out.to_str().unwrap();
    let train = [
        "train",
        "--dataset",
        at,
        "--out",
        out,
        "--folds",
        "1",
        "--steps",
        "2",
    ];
    let trained = Command::new(ictus())
        .args(train)
        .args(["--batch", "1", "--patch", "8,64,64"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&trained.stderr);
    assert!(trained.status.success(), "{words}");
    assert!(words.contains("2 of 3 cases"), "{words}");

    let judged = folder.join("judged");
    let evaluate = [
        "evaluate",
        "--dataset",
        at,
        "--model",
        "haemorrhage-phantom",
        "--out",
    ];
    let done = Command::new(ictus())
        .args(evaluate)
        .arg(&judged)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let metrics: Value = serde_json::from_slice(&fs::read(judged.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["cases"], 3, "{metrics}");
}

#[tokio::test]
async fn segmentations_that_do_not_fit_are_refused_with_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    describe(folder, &names());
    let made = head(40, GeometryKind::Even);
    put(
        folder,
        "twice",
        GeometryKind::Even,
        &made,
        "overlapping",
        &names(),
    )
    .await;
    let said = opened(folder, "twice").unwrap_err();
    assert!(
        said.contains("labelsTr/twice.dcm") && said.contains("a voxel has one label"),
        "{said}"
    );

    let mut others = names();
    others.iter_mut().for_each(|name| *name = format!("old {name}"));
    put(folder, "strange", GeometryKind::Even, &made, "binary", &others).await;
    let said = opened(folder, "strange").unwrap_err();
    assert!(
        said.contains("SegmentLabel \"old ") && said.contains("expected one of intraparenchymal_haemorrhage"),
        "{said}"
    );

    // The same Segmentation on the images of another head.
    put(folder, "right", GeometryKind::Even, &made, "binary", &names()).await;
    let other = head(60, GeometryKind::Tilted);
    put(folder, "wrong", GeometryKind::Tilted, &other, "binary", &names()).await;
    fs::copy(
        folder.join("labelsTr/right.dcm"),
        folder.join("labelsTr/wrong.dcm"),
    )
    .unwrap();
    let said = opened(folder, "wrong").unwrap_err();
    assert!(said.contains("labelsTr/wrong.dcm"), "{said}");

    // What is no image is said with its name.
    fs::write(folder.join("imagesTr/right_0000/notes.txt"), "spoiled").unwrap();
    let said = opened(folder, "right").unwrap_err();
    assert!(said.contains("right_0000/notes.txt"), "{said}");
}
