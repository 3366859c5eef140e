//! What readers judged → a dataset: which label each case has, where it lies, and that a trainer takes it.

use crate::{
    encode::source::{Case, case, geometry},
    queue::{Running, until_no_job, until_state},
    review::{add, cookie, from_page},
    support::uid,
    web::Server,
};
use axum::http::{Method, StatusCode};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use ictus::{
    analysis::encode::Stamp,
    db::figures::Span,
    dicom::instance::Instance,
    domain::{finding::SeriesChoice, network::Control, volume::Volume},
    nifti,
    review::{
        account::AccountRole,
        export::{Exported, Options, export},
    },
    worker::{Analyser, Failure, Output, Request},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

const LESIONS: [([f64; 3], [f64; 3]); 2] = [
    ([0.45, 0.50, 0.65], [0.20, 0.12, 0.10]),
    ([0.50, 0.40, 0.35], [0.15, 0.08, 0.09]),
];

/// A made-up head under the UIDs of a study and of a patient.
fn head(study: &str, patient: &str, tilt_degrees: f64, lesions: usize) -> Case {
    let mut case = case(&geometry(40, 36, 9, tilt_degrees, &[5.0]), &LESIONS[..lesions]);
    for (number, instance) in case.instances.iter_mut().enumerate() {
        for (tag, vr, value) in [
            (tags::STUDY_INSTANCE_UID, VR::UI, uid(study).to_string()),
            (
                tags::SERIES_INSTANCE_UID,
                VR::UI,
                uid(&format!("{study} series")).to_string(),
            ),
            (
                tags::SOP_INSTANCE_UID,
                VR::UI,
                uid(&format!("{study} {number}")).to_string(),
            ),
            (tags::PATIENT_ID, VR::LO, patient.to_owned()),
        ] {
            instance.object.put(DataElement::new(tag, vr, value));
        }
        let sop_instance_uid = uid(&format!("{study} {number}")).to_string();
        instance
            .object
            .update_meta(|meta| meta.media_storage_sop_instance_uid = sop_instance_uid);
        *instance = Instance::from_object(instance.object.clone()).unwrap();
    }
    let series = uid(&format!("{study} series"));
    for finding in &mut case.report.findings {
        finding.series = series.clone();
    }
    case.report.series = vec![SeriesChoice {
        uid: series,
        origin: "received".to_owned(),
        chosen: true,
        reason: "the only one".to_owned(),
    }];
    case
}

/// Finds in each head what was put there.
struct Made(BTreeMap<String, Case>);

impl Analyser for Made {
    fn model_digest(&self) -> Vec<u8> {
        b"made".to_vec()
    }

    fn calibration_digest(&self) -> Vec<u8> {
        Vec::new()
    }

    fn analyse(&self, instances: &[Instance], request: &Request, _: &dyn Control) -> Result<Output, Failure> {
        let study = instances[0].attributes.study_instance_uid.as_ref().unwrap();
        let case = &self.0[study.as_str()];
        let source: Vec<&Instance> = case.instances.iter().collect();
        let stamp = Stamp {
            analysis_key: request.analysis_key,
            created_at: request.created_at,
        };
        let input = case.input(&source, &stamp);
        Ok(Output {
            report: case.report.clone(),
            objects: ictus::analysis::encode::encode(&input).unwrap(),
        })
    }
}

struct Department {
    server: Server,
    folder: tempfile::TempDir,
    cookie: String,
}

impl Department {
    /// Seven heads, of six patients.
    async fn open() -> Self {
        let heads = [
            ("tilted", "P1", 12.0, 2),
            ("drawn", "P2", 0.0, 2),
            ("clear", "P3", 0.0, 0),
            ("unsure", "P4", 0.0, 1),
            ("unread", "P5", 0.0, 1),
            ("again", "P1", 0.0, 1),
            ("cleared", "P6", 0.0, 1),
        ];
        let server = Server::new().await;
        let made = heads.map(|(study, patient, tilt, lesions)| {
            (uid(study).to_string(), head(study, patient, tilt, lesions))
        });
        let made = Made(made.into());
        for (study, ..) in heads {
            let parts = made.0[uid(study).as_str()].instances.iter().map(|instance| {
                let mut bytes = Vec::new();
                instance.object.write_all(&mut bytes).unwrap();
                bytes
            });
            server.world.send(parts.collect()).await;
        }
        let worker = Running::start(&server.world, Arc::new(made)).await;
        for (study, _, _, lesions) in heads {
            let series = uid(&format!("{study} series"));
            server
                .world
                .receiver
                .complete(&series, crate::support::SENDER)
                .await
                .unwrap();
            until_state(
                &server.world,
                study,
                if lesions > 0 { "flagged" } else { "not_flagged" },
            )
            .await;
        }
        until_no_job(&server.world).await;
        worker.stop().await;
        add(&server.world, "reader", AccountRole::Radiologist).await;
        let cookie = cookie(&server, "reader").await;
        Self {
            server,
            folder: tempfile::tempdir().unwrap(),
            cookie,
        }
    }

    async fn analysis(&self, study: &str) -> Value {
        let detail = self
            .server
            .world
            .db
            .study_detail(&uid(study))
            .await
            .unwrap()
            .unwrap();
        json!(detail.analysis.unwrap().id)
    }

    async fn act(&self, study: &str, what: &str, body: &Value) {
        let path = format!("/api/studies/{}/{what}", uid(study));
        let answer = from_page(&self.server, Method::POST, &path, &self.cookie, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    }

    async fn say(&self, study: &str, finding: Option<&str>, word: &str, reason: Option<&str>) {
        let analysis = self.analysis(study).await;
        let body = json!({"analysis": analysis, "finding": finding, "verdict": word, "reason": reason, "note": null});
        self.act(study, "verdicts", &body).await;
    }

    fn out(&self) -> std::path::PathBuf {
        self.folder.path().join("Dataset001_Bleeds")
    }

    async fn export(&self, silver: bool) -> Exported {
        let options = Options {
            out: self.out(),
            name: "Bleeds".to_owned(),
            question: "haemorrhage".to_owned(),
            span: Span::default(),
            model: None,
            reader: None,
            silver,
            identifiers: false,
        };
        let world = &self.server.world;
        export(&world.db, &world.archive, "test", &options, |_, _| {})
            .await
            .unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.out().join(name)).unwrap()).unwrap()
    }
}

fn voxels(path: &Path) -> (Volume<f32>, [f64; 3]) {
    let image = nifti::read(&std::fs::read(path).unwrap()).unwrap();
    let volume = ictus::analysis::assemble::from_nifti(
        &std::fs::read(path).unwrap(),
        ictus::analysis::assemble::Values::Any,
    )
    .unwrap();
    (volume, image.origin_mm)
}

/// Millilitres of a label.
fn volume_ml(path: &Path) -> f64 {
    let (volume, _) = voxels(path);
    let len = volume.geometry.slice_len();
    let inside = volume.data.iter().enumerate().filter(|(_, value)| **value > 0.5);
    inside
        .map(|(v, _)| volume.geometry.voxel_volume_ml(v / len))
        .sum()
}

#[tokio::test]
async fn what_readers_judged_becomes_a_dataset_and_nothing_else_does() {
    let department = Department::open().await;
    department
        .say("tilted", Some("haemorrhage-1"), "reject", Some("calcification"))
        .await;
    department.say("tilted", None, "accept", None).await;
    department.say("clear", None, "accept", None).await;
    department.say("unsure", None, "unsure", None).await;
    department.say("again", None, "accept", None).await;
    department.say("cleared", None, "reject", Some("artefact")).await;
    let drawn = json!({
        "analysis": department.analysis("drawn").await, "kind": "haemorrhage", "edited": true,
        "slices": [{"sop_instance_uid": uid("drawn 3"), "runs": [700, 5, 740, 2]}],
    });
    department.act("drawn", "corrections", &drawn).await;

    let exported = department.export(false).await;
    assert_eq!((exported.gold, exported.silver, exported.resampled), (5, 0, 1));
    let left: Vec<_> = exported
        .left_out
        .iter()
        .map(|(why, count)| (why.as_str(), *count))
        .collect();
    assert_eq!(left, [("its reader is not sure", 1), ("nobody read it", 1)]);
    let all = department.json("provenance.json");
    let of = |study: &str| -> (Value, std::path::PathBuf) {
        // The case of a study is found by its analysis: the dataset does not name the study.
        let analyses = all.as_array().unwrap();
        let found = analyses.iter().find(|one| one["case"] == case_of(study)).unwrap();
        let label = format!("labelsTr/{}.nii.gz", found["case"].as_str().unwrap());
        (found.clone(), department.out().join(label))
    };
    let (tilted, label) = of("tilted");
    assert_eq!(
        (
            &tilted["label"],
            &tilted["truth"],
            &tilted["resampled"],
            &tilted["readers"]
        ),
        (
            &json!("gold"),
            &json!("the machine’s mask, confirmed"),
            &json!(true),
            &json!(["Dr. reader"])
        )
    );
    // The finding that was rejected is background; the other has its volume, on the other grid too.
    let wanted = head("tilted", "P1", 12.0, 2).report.findings[1].volume_ml;
    let found = volume_ml(&label);
    assert!((found / wanted - 1.0).abs() < 0.12, "{found} {wanted}");
    for (study, wanted) in [("clear", 0), ("cleared", 0), ("drawn", 7)] {
        let (_, label) = of(study);
        let (volume, _) = voxels(&label);
        assert_eq!(
            volume.data.iter().filter(|v| **v > 0.5).count(),
            wanted,
            "{study}"
        );
    }
    assert_eq!(of("drawn").0["truth"], "drawn by a reader");
    let (same, label) = of("again");
    let confirmed = head("again", "P1", 0.0, 1).report.findings[0].volume_ml;
    assert!(
        (volume_ml(&label) - confirmed).abs() < 1e-6 * confirmed,
        "an even stack is not resampled"
    );
    assert_eq!(same["patient"], tilted["patient"]);

    // Images are HU on the same grid as their labels.
    for entry in std::fs::read_dir(department.out().join("labelsTr")).unwrap() {
        let label = entry.unwrap().path();
        let name = label
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace(".nii.gz", "_0000.nii.gz");
        let (image, origin) = voxels(&department.out().join("imagesTr").join(name));
        let (label, label_origin) = voxels(&label);
        assert_eq!((image.geometry, origin), (label.geometry, label_origin));
        assert!(image.data.iter().any(|hu| *hu > 800.0) && image.data.iter().any(|hu| *hu < -900.0));
    }
    assert_eq!(
        department.json("dataset.json")["labels"],
        json!({"background": 0, "haemorrhage": 1})
    );
    assert_eq!(department.json("dataset.json")["numTraining"], 5);
    assert!(!exported.folds, "four patients");

    // Nothing of the patient is in any file, and the trail knows who took what.
    for name in ["provenance.json", "dataset.json"] {
        let text = std::fs::read_to_string(department.out().join(name)).unwrap();
        for secret in ["Doe", "PHANTOM", "P1", uid("tilted").as_str()] {
            assert!(!text.contains(secret), "{name} holds {secret}");
        }
    }
    let trail = department
        .server
        .world
        .db
        .audit_of_study(&uid("tilted"))
        .await
        .unwrap();
    assert_eq!(trail.iter().filter(|row| row.act == "export").count(), 1);
    let trail = department
        .server
        .world
        .db
        .audit_of_study(&uid("unread"))
        .await
        .unwrap();
    assert_eq!(trail.iter().filter(|row| row.act == "export").count(), 0);
}

/// As the dataset calls a study.
fn case_of(study: &str) -> String {
    use sha2::{Digest, Sha256};
    let hash = Sha256::new_with_prefix(b"ictus export ").chain_update(uid(study).as_str());
    format!("ictus_{}", &hex::encode(hash.finalize())[..12])
}

#[tokio::test]
async fn it_goes_on_where_it_stopped_follows_what_readers_say_later_and_can_be_trained_on() {
    let department = Department::open().await;
    for study in ["tilted", "clear", "again", "drawn", "unsure"] {
        department.say(study, None, "accept", None).await;
    }
    let first = department.export(true).await;
    assert_eq!((first.gold, first.silver, first.kept), (5, 2, 0));
    assert!(first.folds);
    // Nobody is in two folds.
    let splits = department.json("splits_final.json");
    let all = department.json("provenance.json");
    let patient: BTreeMap<_, _> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["case"].clone().to_string(), one["patient"].clone()))
        .collect();
    for fold in splits.as_array().unwrap() {
        let of = |part: &str| -> Vec<Value> {
            fold[part]
                .as_array()
                .unwrap()
                .iter()
                .map(|case| patient[&case.to_string()].clone())
                .collect()
        };
        let (train, val) = (of("train"), of("val"));
        assert!(!val.is_empty() && val.iter().all(|patient| !train.contains(patient)));
        assert_eq!(train.len() + val.len(), 7);
    }

    let image = department
        .out()
        .join("imagesTr")
        .join(format!("{}_0000.nii.gz", case_of("clear")));
    let written = std::fs::metadata(&image).unwrap().modified().unwrap();
    let again = department.export(true).await;
    assert_eq!((again.gold, again.silver, again.kept), (5, 2, 7));
    assert_eq!(std::fs::metadata(&image).unwrap().modified().unwrap(), written);

    // A silver label is not asked for any more, and a reader is in doubt: both cases go.
    department.say("clear", None, "unsure", None).await;
    let fewer = department.export(false).await;
    assert_eq!((fewer.gold, fewer.silver, fewer.kept), (4, 0, 4));
    assert!(!image.exists());
    assert_eq!(
        std::fs::read_dir(department.out().join("labelsTr"))
            .unwrap()
            .count(),
        4
    );

    let model = department.folder.path().join("model");
    let trained = Command::new(crate::support::ictus())
        .args([
            "train",
            "--configuration",
            "2d",
            "--steps",
            "1",
            "--batch",
            "1",
            "--folds",
            "2",
            "--out",
        ])
        .arg(&model)
        .arg("--dataset")
        .arg(department.out())
        .output()
        .unwrap();
    assert!(
        trained.status.success(),
        "{}",
        String::from_utf8_lossy(&trained.stderr)
    );
    assert!(model.join("weights.safetensors").exists());
}
