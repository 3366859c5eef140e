//! Who a patient is turns out otherwise: ADT messages while things go on, rejection notes, and decisions on revisions.

use crate::{
    deliver_support::{Delivering, analyse, deliveries, trail, until_delivery},
    dimse_support::until,
    queue::{Fake, Running, report, until_no_job, until_state},
    support::{Slice, World, part10, uid},
    web::Server,
};
use axum::http::StatusCode;
use dicom_core::{DataElement, VR, value::DataSetSequence};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ictus::{
    adt, audit,
    hl7::{Acknowledgement, charset, mllp},
    identity::{self, Decision},
};
use serde_json::{Value, json};
use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A listener for ADT messages that works until it is dropped.
struct Hospital {
    port: u16,
    _stop: watch::Sender<bool>,
}

impl Hospital {
    async fn new(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(adt::run(
            world.db.clone(),
            listener,
            adt::Settings::default(),
            stopped,
        ));
        Self { port, _stop: stop }
    }

    /// Sends a message over a connection of its own.
    async fn says(&self, event: &str, segments: &str) -> Acknowledgement {
        let text = format!(
            "MSH|^~\\&|HIS|WARD|ICTUS|CT|20240131||ADT^{event}|77|P|2.5.1||||||UNICODE UTF-8\rEVN|{event}\r{segments}\r"
        );
        self.sends(text.as_bytes()).await
    }

    async fn sends(&self, message: &[u8]) -> Acknowledgement {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (reader, mut writer) = stream.split();
        mllp::write(&mut writer, message).await.unwrap();
        let answer = mllp::read(&mut BufReader::new(reader)).await.unwrap().unwrap();
        let text = charset::decode(&answer).unwrap();
        assert!(!text.contains("Müller") && !text.contains("TRAUMA"), "{text}");
        Acknowledgement::parse(&text).unwrap()
    }
}

/// The merge of the unknown patient with the known one.
const MERGE: &str = "PID|1||P900^^^HOSP^MR||Müller^Jürgen^^^||19611103|M\rMRG|TRAUMA-7";

/// A head of a patient whom nobody knows yet.
fn trauma(study: &str, numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| {
            let mut slice = Slice::new(study, &format!("series of {study}"), number);
            "TRAUMA-7".clone_into(&mut slice.patient_id);
            "Unknown^Seven".clone_into(&mut slice.patient_name);
            slice.bytes()
        })
        .collect()
}

fn text(object: &InMemDicomObject, tag: dicom_core::Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim().to_owned()
}

#[tokio::test]
async fn an_unknown_trauma_patient_is_reconciled_while_the_job_runs() {
    let server = Server::new().await;
    let world = &server.world;
    let hospital = Hospital::new(world).await;
    let folder = tempfile::tempdir().unwrap();
    let target = json!({ "name": "drop", "kind": "folder", "path": folder.path() });
    let _delivering = Delivering::start(world, json!([target])).await;
    let (runs, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begun, may_end) = (runs.clone(), go.clone());
    let fake = Fake::new(move |_, _, _| {
        begun.store(true, Ordering::SeqCst);
        while !may_end.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(report(Some(12.5)))
    });
    let worker = Running::start(world, fake).await;
    world.send(trauma("s", 0..30)).await;
    until("the job runs", async || runs.load(Ordering::SeqCst)).await;
    let stored = world.archive_files().await;

    assert_eq!(hospital.says("A40", MERGE).await.code, "AA");
    go.store(true, Ordering::SeqCst);
    until_state(world, "s", "flagged").await;

    // The worklist and the index say who it is, of the images and of the results that were made meanwhile.
    let list = server.get("/api/worklist", &[]).await.text();
    assert!(
        list.contains("Müller^Jürgen") && list.contains("P900") && !list.contains("TRAUMA"),
        "{list}"
    );
    let found = server.get("/dicom-web/studies?PatientID=P900", &[]).await;
    assert_eq!(found.json().as_array().unwrap().len(), 1);
    let old = server.get("/dicom-web/studies?PatientID=TRAUMA-7", &[]).await;
    assert_eq!(old.status, StatusCode::NO_CONTENT);
    let metadata = server
        .get(&format!("/dicom-web/studies/{}/metadata", uid("s")), &[])
        .await;
    let metadata = metadata.json();
    assert_eq!(metadata.as_array().unwrap().len(), 32);
    for dataset in metadata.as_array().unwrap() {
        assert_eq!(dataset["00100020"]["Value"][0], "P900");
        assert_eq!(dataset["00100010"]["Value"][0]["Alphabetic"], "Müller^Jürgen");
    }

    // What is retrieved says it too, with what it said before; what is stored does not change.
    let slice = Slice::new("s", "series of s", 3);
    let path = format!(
        "/dicom-web/studies/{}/series/{}/instances/{}",
        slice.study, slice.series, slice.sop
    );
    let answer = server.get(&path, &[("accept", "application/dicom")]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let object = ictus::dicom::instance::Instance::from_bytes(&answer.body)
        .unwrap()
        .object;
    assert_eq!(text(&object, tags::PATIENT_ID), "P900");
    assert_eq!(text(&object, tags::ISSUER_OF_PATIENT_ID), "HOSP");
    assert_eq!(text(&object, tags::PATIENT_NAME), "Müller^Jürgen");
    assert_eq!(text(&object, tags::PATIENT_BIRTH_DATE), "19611103");
    let original = &object
        .element(tags::ORIGINAL_ATTRIBUTES_SEQUENCE)
        .unwrap()
        .items()
        .unwrap()[0];
    let former = &original
        .element(tags::MODIFIED_ATTRIBUTES_SEQUENCE)
        .unwrap()
        .items()
        .unwrap()[0];
    assert_eq!(text(former, tags::PATIENT_ID), "TRAUMA-7");
    assert_eq!(text(former, tags::PATIENT_NAME), "Unknown^Seven");
    assert_eq!(
        text(original, tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION),
        "CORRECT"
    );
    let now = world.archive_files().await;
    assert!(stored.iter().all(|(key, bytes)| now.get(key) == Some(bytes)));
    let kept = stored.values().next().unwrap();
    assert!(kept.windows(8).any(|bytes| bytes == b"TRAUMA-7"));

    // Results go out under the right name.
    until_delivery(world, "s", "delivered").await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let object = dicom_object::open_file(file.unwrap().path()).unwrap();
        assert_eq!(text(&object, tags::PATIENT_ID), "P900");
    }

    // A scanner goes on sending what it was given: neither a conflict nor another patient.
    let outcome = world.send(trauma("s", 30..31)).await;
    assert!(outcome.stored[0].warning.is_none());
    let metadata = server
        .get(&format!("/dicom-web/studies/{}/metadata", uid("s")), &[])
        .await;
    assert!(!metadata.text().contains("TRAUMA"));
    let acts = trail(world, "correct_identity").await;
    assert_eq!(acts.len(), 1);
    assert_eq!(acts[0]["event"], "A40");
    assert!(!acts[0].to_string().contains("Müller"));
    audit::verify(&world.db).await.unwrap();
    worker.stop().await;
}

#[tokio::test]
async fn a_correction_after_the_delivery_sends_everything_again() {
    let world = World::new().await;
    let hospital = Hospital::new(&world).await;
    let folder = tempfile::tempdir().unwrap();
    let target = json!({ "name": "drop", "kind": "folder", "path": folder.path() });
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until_delivery(&world, "s", "delivered").await;
    let patient = "PID|1||P1^^^HOSP^MR||Doe^Jane||19500102|F";
    assert_eq!(hospital.says("A08", patient).await.code, "AA");
    until("it was sent again", async || {
        let all = deliveries(&world).await;
        all.len() == 2 && all.iter().all(|one| one.state == "delivered")
    })
    .await;
    let again = &deliveries(&world).await[0];
    assert!(again.note.as_deref().unwrap().contains("sent again"));
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let object = dicom_object::open_file(file.unwrap().path()).unwrap();
        assert_eq!(text(&object, tags::PATIENT_NAME), "Doe^Jane");
    }
    // The same again changes nothing, and so does an event of no concern.
    assert_eq!(hospital.says("A08", patient).await.code, "AA");
    assert_eq!(hospital.says("A01", "PV1|1").await.code, "AA");
    assert_eq!(hospital.says("A08", "PID|1||NOBODY").await.code, "AA");
    assert_eq!(deliveries(&world).await.len(), 2);
    assert_eq!(trail(&world, "correct_identity").await.len(), 1);
}

#[tokio::test]
async fn a_message_that_cannot_be_followed_is_answered_and_changes_nothing() {
    let world = World::new().await;
    let hospital = Hospital::new(&world).await;
    world.send(trauma("s", 0..2)).await;
    for (event, segments) in [
        ("A08", "PV1|1"),
        ("A08", "PID|1||"),
        ("A40", "PID|1||P900"),
        ("A40", "PID|1||P900\rMRG|"),
        ("A40", "PID|1||\rMRG|TRAUMA-7"),
        ("A40", &format!("PID|1||{}\rMRG|TRAUMA-7", "9".repeat(65))),
    ] {
        assert_eq!(hospital.says(event, segments).await.code, "AE", "{segments}");
    }
    let oru = b"MSH|^~\\&|HIS|WARD|ICTUS|CT|20240131||ORU^R01|77|P|2.5.1\r";
    assert_eq!(hospital.sends(oru).await.code, "AR");
    let latin =
        b"MSH|^~\\&|HIS|WARD|ICTUS|CT|1||ADT^A08|77|P|2.5.1||||||UNICODE UTF-8\rPID|1||P1||M\xfcller\r";
    assert_eq!(hospital.sends(latin).await.code, "AE");
    assert_eq!(
        world
            .count("SELECT count(*) FROM study WHERE patient_id = 'TRAUMA-7' AND identity_edition = 0")
            .await,
        1
    );
    // Another issuer's patient of the same number is another patient.
    let mut connection = world.superuser().await;
    sqlx::query("UPDATE study SET issuer_of_patient_id = 'ELSEWHERE'")
        .execute(&mut connection)
        .await
        .unwrap();
    let other = "PID|1||P900\rMRG|TRAUMA-7^^^HOSP";
    assert_eq!(hospital.says("A40", other).await.code, "AA");
    assert!(trail(&world, "correct_identity").await.is_empty());
}

/// A rejection note of these instances.
fn note(study: &str, series: &str, numbers: &[u32], code: &str) -> Vec<u8> {
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, value);
    let sequence =
        |tag, items: Vec<InMemDicomObject>| DataElement::new(tag, VR::SQ, DataSetSequence::from(items));
    let slice = Slice::new(study, series, 0);
    let references = numbers.iter().map(|number| {
        InMemDicomObject::from_element_iter([
            text(
                tags::REFERENCED_SOP_CLASS_UID,
                VR::UI,
                "1.2.840.10008.5.1.4.1.1.2",
            ),
            text(
                tags::REFERENCED_SOP_INSTANCE_UID,
                VR::UI,
                Slice::new(study, series, *number).sop.as_str(),
            ),
        ])
    });
    let of_series = InMemDicomObject::from_element_iter([
        text(tags::SERIES_INSTANCE_UID, VR::UI, slice.series.as_str()),
        sequence(tags::REFERENCED_SOP_SEQUENCE, references.collect()),
    ]);
    let evidence = InMemDicomObject::from_element_iter([
        text(tags::STUDY_INSTANCE_UID, VR::UI, slice.study.as_str()),
        sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![of_series]),
    ]);
    let title = InMemDicomObject::from_element_iter([
        text(tags::CODE_VALUE, VR::SH, code),
        text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "DCM"),
        text(tags::CODE_MEANING, VR::LO, "a reason"),
    ]);
    part10(InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.88.59"),
        text(
            tags::SOP_INSTANCE_UID,
            VR::UI,
            uid(&format!("note of {study} {numbers:?} {code}")).as_str(),
        ),
        text(tags::STUDY_INSTANCE_UID, VR::UI, slice.study.as_str()),
        text(
            tags::SERIES_INSTANCE_UID,
            VR::UI,
            uid(&format!("notes of {study}")).as_str(),
        ),
        text(tags::PATIENT_ID, VR::LO, "P1"),
        text(tags::PATIENT_NAME, VR::PN, "Phantom^One"),
        text(tags::MODALITY, VR::CS, "KO"),
        text(tags::VALUE_TYPE, VR::CS, "CONTAINER"),
        sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![title]),
        sequence(
            tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE,
            vec![evidence],
        ),
    ]))
}

#[tokio::test]
async fn what_a_note_rejects_is_hidden_and_the_rest_is_analysed_again() {
    let server = Server::new().await;
    let world = &server.world;
    let series = "series of s";
    analyse(world, &["s"], Some(12.5)).await;
    let worker = Running::start(world, Fake::new(|_, _, _| Ok(report(Some(8.0))))).await;
    // A selection that is no rejection hides nothing.
    world.send(vec![note("s", series, &[1], "113000")]).await;
    assert!(trail(world, "reject").await.is_empty());
    let outcome = world.send(vec![note("s", series, &[28, 29, 77], "113001")]).await;
    assert!(outcome.failed.is_empty());
    until_no_job(world).await;
    until("the rest was analysed", async || {
        world
            .count("SELECT count(*) FROM analysis WHERE state = 'complete'")
            .await
            == 2
    })
    .await;
    let path = format!("/dicom-web/studies/{}/series/{}", uid("s"), uid(series));
    let found = server.get(&format!("{path}/instances"), &[]).await.json();
    assert_eq!(found.as_array().unwrap().len(), 28);
    let hidden = format!("{path}/instances/{}", Slice::new("s", series, 28).sop);
    let answer = server.get(&hidden, &[("accept", "application/dicom")]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(
        world
            .count("SELECT count(*) FROM analysis_instance JOIN analysis ON analysis.id = analysis_id WHERE role = 'source' AND revision = 2")
            .await,
        // What is left of the images, and the selection, which came from outside, too.
        29
    );
    let acts = trail(world, "reject").await;
    assert_eq!(
        (&acts[0]["code"], &acts[0]["named"], &acts[0]["remaining"]),
        (&json!("113001"), &json!(3), &json!(28))
    );
    assert_eq!(acts[0]["instances"].as_array().unwrap().len(), 2);

    // The rest too: nothing of the study is in any list, and the files are where they were.
    let all: Vec<u32> = (0..30).collect();
    world.send(vec![note("s", series, &all, "113037")]).await;
    until_no_job(world).await;
    let list: Value = server.get("/api/worklist", &[]).await.json();
    assert!(!list.to_string().contains(uid("s").as_str()), "{list}");
    let found = server
        .get(&format!("/dicom-web/studies?StudyInstanceUID={}", uid("s")), &[])
        .await;
    // Only the selection that rejects nothing is still there.
    assert_eq!(found.status, StatusCode::OK);
    let found = server.get(&format!("{path}/instances"), &[]).await;
    assert_eq!(found.status, StatusCode::NO_CONTENT);
    assert!(world.archive_files().await.len() >= 34);

    // The same again stays hidden, and its sender hears that; images that are sent anew are new images.
    let again = world.send(vec![Slice::new("s", series, 5).bytes()]).await;
    let warning = again.stored[0].warning.as_ref().unwrap();
    assert!(
        warning.text.contains("a rejection note rejects it"),
        "{}",
        warning.text
    );
    let mut anew = Slice::new("s", series, 5);
    "P1".clone_into(&mut anew.patient_id);
    "Head again".clone_into(&mut anew.series_description);
    world.send(vec![anew.bytes()]).await;
    let list: Value = server.get("/api/worklist", &[]).await.json();
    assert!(list.to_string().contains(uid("s").as_str()));
    audit::verify(&world.db).await.unwrap();
    worker.stop().await;
}

#[tokio::test]
async fn a_person_decides_on_a_pending_revision() {
    let server = Server::new().await;
    let world = &server.world;
    analyse(world, &["s"], Some(12.5)).await;
    let series = uid("series of s");
    let revised = |number: u32, name: &str| {
        let mut slice = Slice::new("s", "series of s", number);
        name.clone_into(&mut slice.patient_name);
        slice.bytes()
    };
    let outcome = world
        .send(vec![revised(3, "Phantom^Two"), revised(4, "Phantom^Two")])
        .await;
    assert!(outcome.stored.iter().all(|stored| stored.warning.is_some()));
    let list = server.get("/api/revisions", &[]).await;
    let rows = list.json();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert_eq!(rows[0]["differs"], json!(["00100010"]));
    assert!(!list.text().contains("Phantom"));
    // One is dismissed: the other stays in use, and the first is kept.
    let one = Slice::new("s", "series of s", 3).sop;
    let path = format!("/api/revisions/{series}/dismiss?instance={one}");
    let answer = server.post(&path).await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::OK, json!({ "decided": 1 }))
    );
    let worker = Running::start(world, Fake::new(|_, _, _| Ok(report(Some(12.5))))).await;
    let answer = server.post(&format!("/api/revisions/{series}/accept")).await;
    assert_eq!(answer.json(), json!({ "decided": 1 }));
    assert_eq!(
        server
            .post(&format!("/api/revisions/{series}/accept"))
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    until("it was analysed again", async || {
        world
            .count("SELECT count(*) FROM analysis WHERE state = 'complete'")
            .await
            == 2
    })
    .await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM instance WHERE state = 'replaced'")
            .await,
        1
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM instance WHERE state = 'dismissed'")
            .await,
        1
    );
    let four = Slice::new("s", "series of s", 4).sop;
    let path = format!(
        "/dicom-web/studies/{}/series/{series}/instances/{four}/metadata",
        uid("s")
    );
    let metadata = server.get(&path, &[]).await.json();
    assert_eq!(metadata[0]["00100010"]["Value"][0]["Alphabetic"], "Phantom^Two");
    for act in ["accept_revision", "dismiss_revision"] {
        let acts = trail(world, act).await;
        assert_eq!(
            (acts.len(), acts[0]["instances"].as_array().unwrap().len()),
            (1, 1)
        );
    }
    let none = identity::decide(&world.db, "nobody", &series, None, Decision::Accept).await;
    assert_eq!(none.unwrap(), 0);
    worker.stop().await;
}

#[tokio::test]
async fn the_server_listens_for_messages_and_not_to_everybody() {
    let world = World::new().await;
    world.send(trauma("s", 0..2)).await;
    let data = tempfile::tempdir().unwrap();
    let arguments = [
        "serve",
        "--no-worker",
        "--listen",
        "127.0.0.1:0",
        "--hl7",
        "0.0.0.0:0",
    ];
    let mut open = crate::deliver_server::ictus(&world, data.path(), &arguments);
    let output = open.stderr(Stdio::piped()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--hl7-allow"));

    let arguments = [
        "serve",
        "--no-worker",
        "--listen",
        "127.0.0.1:0",
        "--hl7",
        "127.0.0.1:0",
    ];
    let mut server = crate::deliver_server::ictus(&world, data.path(), &arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some(address) = line.strip_prefix("ictus listens on mllp://127.0.0.1:") {
            break address.parse().unwrap();
        }
    };
    let (stop, _) = watch::channel(false);
    let hospital = Hospital { port, _stop: stop };
    assert_eq!(hospital.says("A40", MERGE).await.code, "AA");
    assert_eq!(
        world
            .count("SELECT count(*) FROM study WHERE patient_id = 'P900'")
            .await,
        1
    );
    server.kill().await.unwrap();

    // What waits for a decision is decided on the command line, too.
    let mut revised = Slice::new("s", "series of s", 0);
    "TRAUMA-7".clone_into(&mut revised.patient_id);
    "Somebody^Else".clone_into(&mut revised.patient_name);
    world.send(vec![revised.bytes()]).await;
    let list = crate::deliver_server::ictus(&world, data.path(), &["revision", "list"]);
    let (success, said) = crate::deliver_server::said(list).await;
    assert!(success && said.contains("differs in"), "{said}");
    let series = uid("series of s").to_string();
    let dismiss = crate::deliver_server::ictus(&world, data.path(), &["revision", "dismiss", &series]);
    let (success, said) = crate::deliver_server::said(dismiss).await;
    assert!(success && said.contains("1 revisions"), "{said}");
}
