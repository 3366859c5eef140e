use super::{
    judge::{FOUND_SHARE, Subject, Truth},
    ledger::SCHEMA,
    source::Dataset,
    *,
};
use crate::{
    analysis::{Look, postprocess::Found},
    domain::{
        calibration::Cases,
        finding::{Answer, AnswerValue, Finding, Side},
        midsagittal::MidlineShift,
        plan::{Label, Plan},
        prediction::Prediction,
        volume::{Geometry, SlicePlane, Volume},
    },
    nifti,
};

/// 40 × 40 pixels of 1 mm, slices of 10 mm: a voxel is 0.01 mL, the middle slice 0.015 mL, the last 0.02 mL.
fn grid() -> Geometry {
    Geometry {
        rows: 40,
        columns: 40,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        pixel_spacing_mm: [1.0, 1.0],
        planes: [0.0, 10.0, 30.0]
            .map(|z| SlicePlane {
                origin_mm: [0.0, 0.0, z],
                thickness_mm: 10.0,
            })
            .to_vec(),
    }
}

fn volume<T>(value: impl Fn(usize, usize, usize) -> T) -> Volume<T> {
    let at = |v: usize| value(v / 1600, v % 1600 / 40, v % 40);
    Volume {
        data: (0..grid().len()).map(at).collect(),
        geometry: grid(),
    }
}

/// The shipped plan with the labels of two classes.
fn plan() -> Plan {
    let mut plan: Plan =
        serde_json::from_str(include_str!("../../../models/haemorrhage-phantom/plan.json")).unwrap();
    let one = plan.labels[0].clone();
    plan.labels = [(1, "subdural"), (2, "epidural")]
        .map(|(value, name)| Label {
            value,
            name: name.into(),
            ..one.clone()
        })
        .to_vec();
    plan
}

fn names() -> BTreeMap<u8, String> {
    BTreeMap::from([(4, "subdural".into()), (5, "epidural".into())])
}

fn truth(classes: Volume<u8>) -> Truth {
    Truth {
        cavity: Some(volume(|_, _, _| true)),
        midline_left_mm: Some(-2.0),
        aspects: None,
        names: names(),
        classes,
    }
}

/// A finding of a label whose segment has the label's value.
fn finding(label: &Label) -> Finding {
    Finding {
        id: label.name.clone(),
        kind: label.name.clone(),
        code: label.kind.clone(),
        model: "a-model".into(),
        series: Uid::derive(&[b"a series"]),
        segment: label.value.into(),
        volume_ml: 1.0,
        abc2_ml: None,
        volume_interval_ml: None,
        center_mm: [0.0; 3],
        bounding_box_mm: [[0.0; 3]; 2],
        side: Side::Unknown,
        site: None,
        score: 0.9,
        probability: None,
        uncertainty: 0.1,
        key_slice: 0,
    }
}

/// What a model shows: its labels, of which each is a segment of its own, with a score of 0.9.
fn look(labels: Volume<u8>, answer: AnswerValue) -> Look {
    let mask = |v: &u8| if *v > 0 { 0.9f32 } else { 0.0 };
    let scores = Volume {
        data: labels.data.iter().map(mask).collect(),
        geometry: grid(),
    };
    Look {
        window_hu: [0.0, 80.0],
        volume: volume(|_, _, _| 30.0),
        brain: volume(|_, _, _| true),
        found: Found {
            findings: plan().labels.iter().map(finding).collect(),
            segments: Volume {
                data: labels.data.iter().map(|v| u16::from(*v)).collect(),
                geometry: grid(),
            },
            score: if answer == AnswerValue::Present { 0.9 } else { 0.1 },
            answer: Some(Answer {
                question: "haemorrhage".into(),
                model: None,
                answer,
                score: None,
                probability: None,
                uncertainty: None,
                lane: None,
            }),
            midline_shift: (answer == AnswerValue::Present).then_some(MidlineShift {
                left_mm: -3.5,
                interval_mm: [-4.5, -2.5],
            }),
            aspects: None,
            warnings: Vec::new(),
        },
        prediction: Prediction {
            labels,
            entropy: scores.clone(),
            mutual_information: scores.clone(),
            variance: scores.clone(),
            score: scores,
            structures: None,
            disagreement: 0.25,
        },
    }
}

fn subject(index: usize) -> Subject {
    Subject {
        name: index.to_string(),
        seed: Some(index as u64),
        kind: "haemorrhage".into(),
        stack: "even".into(),
        strata: vec![["motion", "metal"][index % 2].into()],
    }
}

/// Every third case is normal, one of them with a false alarm; of the others one is missed.
fn case(index: usize) -> Case {
    let bleeds = !index.is_multiple_of(3);
    let reach = 20 + index;
    let block = |value: u8, end: usize| {
        volume(move |s, r, c| {
            let inside = bleeds && s == 1 && (10..end).contains(&r) && (10..20).contains(&c);
            if inside { value } else { 0 }
        })
    };
    let mut labels = block(
        if index == 4 { 2 } else { 1 },
        if index == 2 { 10 } else { reach - 2 },
    );
    if index == 3 {
        labels = volume(|s, r, c| u8::from(s == 2 && r < 5 && c < 5));
    }
    let flagged = bleeds && index != 2 || index == 3;
    let answer = if flagged {
        AnswerValue::Present
    } else {
        AnswerValue::Absent
    };
    judge(
        subject(index),
        &truth(block(4, reach)),
        &look(labels, answer),
        &plan(),
    )
}

fn header(first_seed: u64) -> Header {
    Header {
        question: "haemorrhage".into(),
        schema: SCHEMA,
        ictus: "0".into(),
        model: "a-model".into(),
        model_version: "1".into(),
        model_sha256: "aa".into(),
        weights_sha256: "bb".into(),
        calibration_sha256: None,
        numeric_mode: "cpu".into(),
        source: Cases::Phantoms { first_seed, count: 9 },
    }
}

#[test]
fn the_midline_is_judged_where_it_was_told_and_where_it_was_not() {
    let cases: Vec<Case> = (0..9).map(case).collect();
    let midline = summarise(&header(1), &names(), &cases).midline.unwrap();
    assert_eq!(midline.all, midline.shifted);
    let midline = midline.all;
    let told = cases.iter().filter(|c| c.is_flagged()).count();
    assert!((midline.told.value.unwrap() - told as f64 / 9.0).abs() < 1e-9);
    assert!((midline.error.bias.value.unwrap() - 1.5).abs() < 1e-9);
    assert_eq!(midline.off_mm, [Some(1.5); 3]);
    assert_eq!(midline.within_interval.value, Some(0.0));
}

#[test]
fn a_case_is_counted_in_millilitres_by_lesion_and_by_class() {
    // Truth: 2 × 100 voxels of subdural blood in the middle slice; found: the lower half of one, called epidural, and 25 voxels elsewhere.
    let classes = volume(|s, r, c| {
        let inside = s == 1 && r < 10 && (c < 10 || (20..30).contains(&c));
        if inside { 4 } else { 0 }
    });
    let labels = volume(|s, r, c| match (s, r, c) {
        (1, 0..5, 0..10) => 2,
        (2, 30..35, 30..35) => 1,
        _ => 0,
    });
    let case = judge(
        subject(0),
        &truth(classes),
        &look(labels, AnswerValue::Present),
        &plan(),
    );
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a}, expected {b}");
    near(case.truth_ml, 3.0);
    near(case.found_ml, 0.75 + 0.5);
    near(case.dice.unwrap(), 2.0 * 0.75 / 4.25);
    near(case.thickness_mm, 15.0);
    assert_eq!(case.tilt_degrees, 0.0);
    let found: Vec<bool> = case.lesions.iter().map(|l| l.found).collect();
    assert_eq!(found, [true, false]);
    near(case.lesions[0].volume_ml, 1.5);
    near(case.lesions[0].dice, 2.0 * 0.75 / 2.25);
    assert_eq!(
        (case.lesions[0].class.as_str(), case.lesions[0].slice),
        ("subdural", 1)
    );
    assert_eq!(case.false_lesions.len(), 1);
    near(case.false_lesions[0].volume_ml, 0.5);
    near(case.false_lesions[0].score, f64::from(0.9f32));
    let stands_for: Vec<f64> = case.findings.iter().map(|finding| finding.truth_ml).collect();
    assert_eq!(stands_for[0], 0.0, "the false one stands for nothing");
    near(stands_for[1], 1.5);
    assert_eq!(case.classes["subdural"].dice, Some(0.0));
    near(case.classes["epidural"].found_ml, 0.75);
    assert_eq!(case.dominant(), Some(("subdural".into(), "epidural".into())));
    assert_eq!(case.failures(1.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_touch_does_not_make_a_lesion_found() {
    let classes = volume(|s, r, c| if s == 0 && r < 10 && c < 10 { 4 } else { 0 });
    for (rows, found) in [(0, false), (1, true)] {
        let labels = volume(|s, r, c| u8::from(s == 0 && r < rows && c < 10));
        let case = judge(
            subject(0),
            &truth(classes.clone()),
            &look(labels, AnswerValue::Present),
            &plan(),
        );
        assert_eq!(
            case.lesions[0].found, found,
            "{rows} of 10 rows, {FOUND_SHARE} is enough"
        );
    }
}

#[test]
fn a_run_that_stopped_goes_on_to_the_same_metrics() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let go = |out: &Path, stop: usize| {
        let one = |index| {
            if index == stop {
                return Err(TrainError::Mismatch("the power failed".into()));
            }
            Ok((case(index), None))
        };
        run(&header(7), &names(), 9, out, one, |_| {})
    };
    let metrics = go(whole.path(), 9).unwrap();
    assert!(go(parts.path(), 4).is_err());
    // The line that was being written when it stopped.
    let ledger = parts.path().join("cases.jsonl");
    let mut text = fs::read_to_string(&ledger).unwrap();
    assert_eq!(text.lines().count(), 5);
    text.push_str("{\"name\":\"4\",\"se");
    fs::write(&ledger, text).unwrap();
    go(parts.path(), 9).unwrap();
    for file in ["metrics.json", "cases.jsonl", "report.html"] {
        let bytes = |folder: &tempfile::TempDir| fs::read(folder.path().join(file)).unwrap();
        assert!(bytes(&whole) == bytes(&parts), "{file}");
    }
    assert_eq!(metrics.overall.cases, 9);
    assert_eq!(metrics.overall.sensitivity.n, 6);
    assert_eq!(metrics.overall.sensitivity.value, Some(5.0 / 6.0));
    let alarms = metrics.flags.false_per_100_normal.value.unwrap();
    assert!((alarms - 100.0 / 3.0).abs() < 1e-9);
    assert_eq!(metrics.by_stratum.len(), 2);
    let subtype = metrics.subtype.unwrap();
    assert_eq!(subtype.right.value, Some(4.0 / 6.0));
    assert_eq!(subtype.confusion["subdural"]["nothing"], 1);
}

#[test]
fn a_run_with_other_cases_or_another_model_is_refused_in_words() {
    let out = tempfile::tempdir().unwrap();
    let go = |header: &Header| run(header, &names(), 1, out.path(), |i| Ok((case(i), None)), |_| {});
    go(&header(7)).unwrap();
    let said = go(&header(8)).unwrap_err().to_string();
    assert!(
        said.contains("from seed 7") && said.contains("from seed 8"),
        "{said}"
    );
    let other = Header {
        model_sha256: "cc".into(),
        ..header(7)
    };
    assert!(
        go(&other)
            .unwrap_err()
            .to_string()
            .contains("plan and weights aa")
    );
    go(&header(7)).unwrap();
}

#[test]
fn the_report_is_one_file_that_says_what_it_is_not() {
    let out = tempfile::tempdir().unwrap();
    let png = picture::draw(
        &look(volume(|s, r, _| u8::from(s == 1 && r > 30)), AnswerValue::Present),
        &volume(|s, r, c| u8::from(s == 1 && r > 20 && c > 20)),
        1,
    );
    let one = |i| Ok((case(i), (i == 2).then(|| png.clone())));
    run(&header(7), &names(), 9, out.path(), one, |_| {}).unwrap();
    let html = fs::read_to_string(out.path().join("report.html")).unwrap();
    for outside in ["http:", "https:", "//", "<script", "<link", "@import", "url("] {
        // Base64 may hold two slashes.
        let found = html
            .split("base64,")
            .enumerate()
            .any(|(i, part)| part[if i == 0 { 0 } else { part.find('"').unwrap() }..].contains(outside));
        assert!(!found, "{outside}");
    }
    let said = "Synthetic phantoms only: says nothing of patients. For research, not for clinical use.";
    assert!(html.matches(said).count() >= 2);
    assert!(html.contains("prefers-color-scheme") && html.contains("data:image/png;base64,"));
    assert!(html.contains("missed subdural") && html.contains("<caption>"));
    assert!(!html.contains("NaN"));
    let opened = image::load_from_memory(&png).unwrap().to_rgb8();
    let colours = picture::OUTLINES.map(|outline| opened.pixels().any(|p| p.0 == outline));
    assert_eq!(colours, [true, true]);
}

#[test]
fn a_data_set_is_read_as_nnu_net_lays_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let plan = plan();
    assert!(
        Dataset::open(folder.path(), &plan)
            .unwrap_err()
            .to_string()
            .contains("imagesTs")
    );
    for name in ["imagesTs", "labelsTs"] {
        fs::create_dir(at(name)).unwrap();
    }
    // Even slices: NIfTI has no others. Air around tissue, as a head has it.
    let mut image = volume(|_, r, _| if r < 20 { -1000.0f32 } else { 30.0 });
    image.geometry.planes[2].origin_mm[2] = 20.0;
    let labels = Volume {
        data: volume(|s, r, _| {
            if s == 1 && r > 30 {
                2u8
            } else {
                7 * u8::from(r == 0)
            }
        })
        .data,
        geometry: image.geometry.clone(),
    };
    fs::write(at("labelsTs/a.nii.gz"), nifti::write(&labels).unwrap()).unwrap();
    let json = r#"{"channel_names": {"0": "CT"}, "labels": {"background": 0, "subdural": 1, "epidural": 2}}"#;
    fs::write(at("dataset.json"), json).unwrap();
    assert!(
        Dataset::open(folder.path(), &plan)
            .unwrap_err()
            .to_string()
            .contains("a_0000.nii.gz")
    );
    fs::write(at("imagesTs/a_0000.nii.gz"), nifti::write(&image).unwrap()).unwrap();
    let source = Source::Dataset(Dataset::open(folder.path(), &plan).unwrap());
    assert_eq!(source.names()[&2], "epidural");
    let drawn = source.draw(0, &plan).unwrap();
    assert_eq!(drawn.subject.name, "a");
    let counts = |value: u8| drawn.truth.classes.data.iter().filter(|v| **v == value).count();
    assert_eq!(
        (counts(2), counts(7)),
        (9 * 40, 0),
        "a value without a name is background"
    );
    for (labels, expected) in [
        (
            r#"{"background": 0, "subdural": 1, "ignore": 2}"#,
            "`ignore` label",
        ),
        (
            r#"{"background": 0, "blood": [1, 2], "epidural": 2}"#,
            "regions that overlap",
        ),
    ] {
        let json = format!(
            r#"{{"channel_names": {{"0": "CT"}}, "labels": {labels}, "regions_class_order": [1, 2]}}"#
        );
        fs::write(at("dataset.json"), json).unwrap();
        let said = Dataset::open(folder.path(), &plan).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    let before = source.description().unwrap();
    // Another image is another data set; a label map elsewhere is none for this image.
    let mut moved = labels;
    for plane in &mut moved.geometry.planes {
        plane.origin_mm[0] += 5.0;
    }
    fs::write(at("labelsTs/a.nii.gz"), nifti::write(&moved).unwrap()).unwrap();
    let refused = source.draw(0, &plan).unwrap_err().to_string();
    assert!(refused.contains("5.0 mm from the image"), "{refused}");
    fs::write(at("imagesTs/a_0000.nii.gz"), [0; 4]).unwrap();
    assert_ne!(source.description().unwrap(), before);
}

#[test]
fn phantoms_name_their_classes_as_the_model_names_its_labels() {
    let source = Source::Phantoms {
        first_seed: 1,
        count: 1,
    };
    let labels = crate::train::recipe::haemorrhage(1).labels;
    let of_plan: BTreeMap<u8, String> = labels.into_iter().map(|l| (l.value, l.name)).collect();
    assert_eq!(source.names(), of_plan);
}
