//! Words on their way out: webhook, HL7 v2, FHIR and a folder, each to a small listener of its own, with refusals,
//! retries, dead letters, acknowledgement and escalation.

use crate::{
    correction::{Room, on},
    deliver_support::{Delivering, analyse, deliveries, revise, trail, until_delivery},
    dimse_support::until,
    support::{Slice, World, uid},
};
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use ictus::{
    db::filing::Acknowledged,
    deliver,
    hl7::{Message, acknowledge, charset, mllp},
};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};
use tokio::{io::BufReader, net::TcpListener};

/// What one of the receivers got: headers and body.
type Got = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// An HTTP receiver that answers what it is told and keeps what it got.
struct Receiver {
    url: String,
    status: Arc<AtomicU16>,
    got: Got,
}

impl Receiver {
    async fn new(status: u16, answer: &'static str) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let got = Got::default();
        let (says, keeps) = (status.clone(), got.clone());
        let router = Router::new().route(
            "/in",
            post(move |headers: HeaderMap, body: Bytes| async move {
                let text = String::from_utf8(body.to_vec()).unwrap();
                keeps.lock().unwrap().push((headers, text));
                let status = StatusCode::from_u16(says.load(Ordering::SeqCst)).unwrap();
                (status, answer)
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, status, got }
    }

    fn got(&self) -> Vec<(HeaderMap, String)> {
        self.got.lock().unwrap().clone()
    }
}

/// A receiver of HL7 v2 that answers with a code and keeps what it got.
struct Mllp {
    port: u16,
    code: Arc<Mutex<&'static str>>,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Mllp {
    async fn new(code: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let code = Arc::new(Mutex::new(code));
        let got = Arc::new(Mutex::new(Vec::new()));
        let (says, keeps) = (code.clone(), got.clone());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (reader, mut writer) = stream.split();
                let mut reader = BufReader::new(reader);
                while let Ok(Some(bytes)) = mllp::read(&mut reader).await {
                    let message = Message::parse(&charset::decode(&bytes).unwrap()).unwrap();
                    keeps.lock().unwrap().push(bytes);
                    let code = *says.lock().unwrap();
                    // A receiver may quote the patient in its text: none of it may be kept.
                    let answer = acknowledge(&message, code, Some("Phantom^One is unknown"), "20240101", "1");
                    mllp::write(&mut writer, answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { port, code, got }
    }

    fn target(&self) -> Value {
        json!({ "name": "his", "kind": "hl7", "host": "127.0.0.1", "port": self.port, "application": "HIS", "facility": "WARD" })
    }

    fn got(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().clone()
    }
}

fn secret(folder: &Path) -> PathBuf {
    let path = folder.join("secret");
    std::fs::write(&path, "a secret of the ward\n").unwrap();
    path
}

fn pager(receiver: &Receiver, secret: &Path) -> Value {
    json!({ "name": "pager", "kind": "webhook", "url": receiver.url, "secret_file": secret })
}

#[tokio::test]
async fn a_flag_is_told_signed_before_anything_else_and_its_status_acknowledges_it() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path());
    let receiver = Receiver::new(200, "thanks, Phantom^One").await;
    let world = World::new().await;
    let _delivering = Delivering::start(&world, json!([pager(&receiver, &secret)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(
        (delivery.subject.as_str(), delivery.attempts),
        ("notification", 1)
    );
    assert_eq!(delivery.acknowledged_by.as_deref(), Some("pager"));
    let (headers, body) = receiver.got().remove(0);
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret of the ward").unwrap();
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), signature);
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["type"], "ictus.notification");
    assert_eq!(said["id"], json!(delivery.id));
    assert_eq!(said["study"]["study_instance_uid"], uid("s").as_str());
    assert_eq!(said["analysis"]["alert"], "first");
    assert_eq!(said["analysis"]["findings"][0]["volume_ml"], 12.5);
    assert_eq!(said["text"], "haemorrhage: flagged, 12.5 mL");
    assert_eq!(said["analysis"]["answers"][0]["probability"], 0.83);
    assert_eq!(said["analysis"]["findings"][0]["probability"], 0.91);
    assert_eq!(
        said["analysis"]["findings"][0]["volume_interval_ml"],
        json!([6.25, 25.0])
    );
    assert_eq!(
        said["analysis"]["models"][0]["calibration"],
        "100 cases of a clinic"
    );
    assert!(
        said["disclaimer"]
            .as_str()
            .unwrap()
            .contains("not for clinical use")
    );
    // Who the patient is is said only when the entry asks for it, and what a target says is not kept.
    assert!(!body.contains("Phantom"));
    assert!(
        !serde_json::to_string(&deliveries(&world).await)
            .unwrap()
            .contains("Phantom")
    );
    let rows = trail(&world, "deliver").await;
    assert_eq!(
        (&rows[0]["subject"], &rows[0]["complete"]),
        (&json!("notification"), &json!(true))
    );
    assert_eq!(trail(&world, "analyse").await[0]["notify"], json!(["pager"]));
}

#[tokio::test]
async fn a_case_is_told_once_and_a_study_without_a_flag_never() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(200, "").await;
    let world = World::new().await;
    let mut target = pager(&receiver, &secret(folder.path()));
    target["patient"] = json!(true);
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["quiet"], None).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until_delivery(&world, "s", "delivered").await;
    // A revision that is not worse tells nobody again.
    revise(&world, "s", Some(12.9)).await;
    analyse(&world, &["t"], Some(3.0)).await;
    until_delivery(&world, "t", "delivered").await;
    let got = receiver.got();
    assert_eq!(got.len(), 2);
    let said: Value = serde_json::from_str(&got[0].1).unwrap();
    assert_eq!(said["patient"]["name"], "Phantom^One");
    assert_eq!(said["study"]["accession_number"], "A100");
}

#[tokio::test]
async fn a_webhook_is_tried_again_and_given_up_by_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(503, "Phantom^One").await;
    let world = World::new().await;
    let target = pager(&receiver, &secret(folder.path()));
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was tried twice", async || receiver.got().len() >= 2).await;
    let ids: Vec<_> = receiver
        .got()
        .iter()
        .map(|(headers, _)| headers["webhook-id"].clone())
        .collect();
    assert_eq!(ids[0], ids[1]);
    receiver.status.store(400, Ordering::SeqCst);
    let dead = until_delivery(&world, "s", "dead").await;
    let why = dead.last_error.as_deref().unwrap();
    assert!(why.starts_with("the target answered 400"), "{why}");
    assert_eq!(trail(&world, "give_up").await.len(), 1);
    receiver.status.store(200, Ordering::SeqCst);
    deliver::retry(&world.db, dead.id, "operator").await.unwrap();
    until_delivery(&world, "s", "delivered").await;
}

#[tokio::test]
async fn what_nobody_acknowledges_goes_to_another_target_and_a_person_can_acknowledge_it() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path());
    let (first, second) = (Receiver::new(202, "").await, Receiver::new(200, "").await);
    let world = World::new().await;
    let mut one = pager(&first, &secret);
    one["escalate"] = json!({ "after_seconds": 1, "to": "consultant" });
    let two = json!({
        "name": "consultant", "kind": "webhook", "url": second.url, "secret_file": secret, "when": "escalated",
    });
    let _delivering = Delivering::start(&world, json!([one, two])).await;
    // 202: the target has it, and nobody took note.
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was escalated", async || !second.got().is_empty()).await;
    until("both are at their end", async || {
        deliveries(&world)
            .await
            .iter()
            .all(|one| one.state == "delivered")
    })
    .await;
    let all = deliveries(&world).await;
    let by = |name: &str| all.iter().find(|one| one.target == name).unwrap();
    assert_eq!(all.len(), 2);
    assert!(by("pager").escalated_at.is_some() && by("pager").acknowledged_at.is_none());
    assert_eq!(by("consultant").acknowledged_by.as_deref(), Some("consultant"));
    assert!(
        by("consultant")
            .note
            .as_deref()
            .unwrap()
            .contains("pager did not acknowledge")
    );
    let rows = trail(&world, "escalate").await;
    assert_eq!((rows.len(), &rows[0]["escalate_to"]), (1, &json!("consultant")));
    // Late, but noted; and once only.
    let id = by("pager").id;
    let done = deliver::acknowledge(&world.db, id, "nurse").await.unwrap();
    assert!(matches!(done, Acknowledged::Yes(..)));
    let again = deliver::acknowledge(&world.db, id, "doctor").await.unwrap();
    assert_eq!(again, Acknowledged::Already("nurse".to_owned()));
    assert_eq!(trail(&world, "acknowledge").await.len(), 1);

    // What is acknowledged in time stays where it is.
    first.status.store(200, Ordering::SeqCst);
    analyse(&world, &["t"], Some(12.5)).await;
    until_delivery(&world, "t", "delivered").await;
    analyse(&world, &["u"], Some(12.5)).await;
    until_delivery(&world, "u", "delivered").await;
    assert_eq!(second.got().len(), 1);
}

#[tokio::test]
async fn a_notification_that_is_given_up_is_escalated_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path());
    let (first, second) = (Receiver::new(410, "").await, Receiver::new(200, "").await);
    let world = World::new().await;
    let mut one = pager(&first, &secret);
    one["escalate"] = json!({ "after_seconds": 3600, "to": "consultant" });
    let two = json!({
        "name": "consultant", "kind": "webhook", "url": second.url, "secret_file": secret, "when": "escalated",
    });
    let _delivering = Delivering::start(&world, json!([one, two])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was escalated", async || second.got().len() == 1).await;
}

#[tokio::test]
async fn an_oru_says_who_what_and_how_sure_and_an_aa_takes_it() {
    let his = Mllp::new("AA").await;
    let world = World::new().await;
    let _delivering = Delivering::start(&world, json!([his.target()])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(
        (delivery.subject.as_str(), delivery.instances.len()),
        ("results", 0)
    );
    let message = Message::parse(&charset::decode(&his.got()[0]).unwrap()).unwrap();
    assert_eq!(message.kind(), ("ORU".to_owned(), "R01".to_owned()));
    let msh = message.segment("MSH").unwrap();
    assert_eq!(msh.text(5, 1).as_deref(), Some("HIS"));
    assert_eq!(msh.text(18, 1).as_deref(), Some("UNICODE UTF-8"));
    let pid = message.segment("PID").unwrap();
    assert_eq!(pid.text(3, 1).as_deref(), Some("P1"));
    assert_eq!(
        (pid.text(5, 1).as_deref(), pid.text(5, 2).as_deref()),
        (Some("Phantom"), Some("One"))
    );
    let obr = message.segment("OBR").unwrap();
    assert_eq!(obr.text(18, 1).as_deref(), Some("A100"));
    assert_eq!(obr.text(25, 1).as_deref(), Some("P"));
    let lines: Vec<_> = message.segments_of("OBX").collect();
    let value = |code: &str| {
        let line = lines.iter().find(|line| line.text(3, 1).as_deref() == Some(code));
        line.and_then(|line| line.text(5, 1))
    };
    assert_eq!(value("113014").as_deref(), Some(uid("s").as_str()));
    assert_eq!(value("haemorrhage").as_deref(), Some("present"));
    assert_eq!(value("118565006").as_deref(), Some("12.50"));
    assert_eq!(value("272741003").as_deref(), Some("left"));
    assert_eq!(value("probability").as_deref(), Some("0.830"));
    assert_eq!(value("volume-lower").as_deref(), Some("6.25"));
    assert_eq!(value("volume-upper").as_deref(), Some("25.00"));
    assert_eq!(value("midline-shift").as_deref(), Some("-4.2"));
    assert_eq!(value("midline-lower").as_deref(), Some("-6.4"));
    assert_eq!(value("midline-upper").as_deref(), Some("-2.6"));
    assert_eq!(value("aspects").as_deref(), Some("8"));
    assert_eq!(value("aspects-lower").as_deref(), Some("7"));
    assert_eq!(value("aspects-upper").as_deref(), Some("9"));
    let affected = lines
        .iter()
        .find(|line| line.text(3, 1).as_deref() == Some("affected-region"))
        .unwrap();
    assert_eq!(affected.text(4, 1).as_deref(), Some("aspects-left"));
    let regions: Vec<_> = affected
        .repetitions(5)
        .map(|region| affected.component(region, 1).unwrap())
        .collect();
    assert_eq!(regions, ["aspects-i", "aspects-m5"]);
    let right = lines
        .iter()
        .find(|line| line.text(4, 1).as_deref() == Some("aspects-right"))
        .unwrap();
    assert_eq!(right.text(5, 1).as_deref(), Some("not-evaluated"));
    let notes: Vec<_> = lines.iter().filter_map(|line| line.text(5, 1)).collect();
    assert!(
        notes.iter().any(|note| note.contains("not for clinical use")),
        "{notes:?}"
    );
    assert!(
        notes
            .iter()
            .any(|note| note.contains("calibrated on 100 cases of a clinic")),
        "{notes:?}"
    );
    // A later revision is a correction of what was said.
    revise(&world, "s", Some(14.0)).await;
    until("the revision is there", async || his.got().len() == 2).await;
    let message = Message::parse(&charset::decode(&his.got()[1]).unwrap()).unwrap();
    assert_eq!(message.segment("OBR").unwrap().text(25, 1).as_deref(), Some("C"));
}

#[tokio::test]
async fn an_oru_that_is_rejected_is_dead_with_the_reason_and_one_nobody_hears_waits() {
    let his = Mllp::new("AR").await;
    let world = World::new().await;
    let _delivering = Delivering::start(&world, json!([his.target()])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let dead = until_delivery(&world, "s", "dead").await;
    assert_eq!(
        dead.last_error.as_deref(),
        Some("the target answered AR: rejected, HL7 error 207")
    );
    assert!(!serde_json::to_string(&dead).unwrap().contains("Phantom"));
    *his.code.lock().unwrap() = "AA";
    deliver::retry(&world.db, dead.id, "operator").await.unwrap();
    until_delivery(&world, "s", "delivered").await;
    let ids: Vec<_> = his
        .got()
        .iter()
        .map(|bytes| {
            Message::parse(&charset::decode(bytes).unwrap())
                .unwrap()
                .control_id()
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_receiver_that_is_down_gets_its_message_when_it_is_up() {
    let port = crate::deliver_support::free_port();
    let world = World::new().await;
    let target = json!({ "name": "his", "kind": "hl7", "host": "127.0.0.1", "port": port });
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was tried in vain", async || {
        deliveries(&world).await[0].attempts >= 2
    })
    .await;
    let waiting = &deliveries(&world).await[0];
    assert!(
        waiting
            .last_error
            .as_deref()
            .unwrap()
            .contains("cannot be reached")
    );
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.split();
        let bytes = mllp::read(&mut BufReader::new(reader)).await.unwrap().unwrap();
        let message = Message::parse(&charset::decode(&bytes).unwrap()).unwrap();
        let answer = acknowledge(&message, "AA", None, "20240101", "1");
        mllp::write(&mut writer, answer.as_bytes()).await.unwrap();
    });
    until_delivery(&world, "s", "delivered").await;
}

#[tokio::test]
async fn a_name_that_the_stated_character_set_cannot_say_is_dead_and_no_question_mark() {
    let his = Mllp::new("AA").await;
    let world = World::new().await;
    let mut target = his.target();
    target["character_set"] = json!("8859/1");
    let _delivering = Delivering::start(&world, json!([target])).await;
    let mut connection = world.superuser().await;
    analyse(&world, &["s"], Some(12.5)).await;
    until_delivery(&world, "s", "delivered").await;
    for (study, name) in [("t", "Müller^Jürgen"), ("u", "漢字^氏")] {
        let slices = (0..30).map(|number| Slice::new(study, &format!("series of {study}"), number).bytes());
        world.send(slices.collect()).await;
        sqlx::query("UPDATE study SET patient_name = $1 WHERE study_instance_uid = $2")
            .bind(name)
            .bind(uid(study).as_str())
            .execute(&mut connection)
            .await
            .unwrap();
        analyse(&world, &[study], Some(12.5)).await;
    }
    until_delivery(&world, "t", "delivered").await;
    let latin = his.got().remove(1);
    assert!(latin.windows(6).any(|bytes| bytes == b"M\xfcller"));
    let dead = until_delivery(&world, "u", "dead").await;
    assert!(dead.last_error.as_deref().unwrap().contains("8859/1"));
}

#[tokio::test]
async fn fhir_gets_a_transaction_that_a_second_attempt_does_not_double() {
    let server = Receiver::new(
        503,
        r#"{"resourceType":"OperationOutcome","issue":[{"diagnostics":"Phantom^One"}]}"#,
    )
    .await;
    let world = World::new().await;
    let target = json!({ "name": "record", "kind": "fhir", "url": server.url });
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was tried", async || !server.got().is_empty()).await;
    server.status.store(200, Ordering::SeqCst);
    until_delivery(&world, "s", "delivered").await;
    let got = server.got();
    let bundles: Vec<Value> = got
        .iter()
        .map(|(_, body)| serde_json::from_str(body).unwrap())
        .collect();
    assert_eq!(bundles.first(), bundles.last());
    let bundle = &bundles[0];
    assert_eq!(
        (&bundle["resourceType"], &bundle["type"]),
        (&json!("Bundle"), &json!("transaction"))
    );
    let entries = bundle["entry"].as_array().unwrap();
    let kinds: Vec<&str> = entries
        .iter()
        .map(|entry| entry["request"]["url"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            ["ImagingStudy"].as_slice(),
            &["Observation"; 5],
            &["DiagnosticReport"],
        ]
        .concat()
    );
    assert!(entries.iter().all(|entry| {
        entry["request"]["ifNoneExist"]
            .as_str()
            .unwrap()
            .starts_with("identifier=")
    }));
    let report = &entries[6]["resource"];
    assert_eq!(report["status"], "preliminary");
    assert_eq!(report["result"][0]["reference"], entries[1]["fullUrl"]);
    assert_eq!(report["imagingStudy"][0]["reference"], entries[0]["fullUrl"]);
    assert_eq!(report["subject"]["identifier"]["value"], "P1");
    assert!(
        report["conclusion"]
            .as_str()
            .unwrap()
            .contains("not for clinical use")
    );
    assert_eq!(entries[2]["resource"]["valueQuantity"]["value"], 12.5);
    let part = |entry: usize, code: &str| -> Value {
        let parts = entries[entry]["resource"]["component"].as_array().unwrap();
        let is_it = |part: &&Value| part["code"]["coding"][0]["code"] == code;
        parts.iter().find(is_it).unwrap().clone()
    };
    let probability = part(1, "probability");
    assert_eq!(probability["valueQuantity"]["value"], 0.83);
    assert_eq!(
        probability["code"]["text"],
        "Probability, calibrated on 100 cases of a clinic"
    );
    assert_eq!(part(2, "probability")["valueQuantity"]["value"], 0.91);
    assert_eq!(part(2, "volume-interval")["valueRange"]["high"]["value"], 25.0);
    let midline = &entries[3]["resource"];
    assert_eq!(midline["valueQuantity"]["value"], -4.2);
    assert_eq!(midline["component"][0]["valueRange"]["low"]["value"], -6.4);
    let aspects = &entries[4]["resource"];
    assert_eq!(aspects["code"]["text"], "ASPECTS of the left side");
    assert_eq!(aspects["valueQuantity"]["value"], 8);
    assert_eq!(aspects["component"][1]["valueRange"]["low"]["value"], 7);
    let affected = &aspects["component"][3]["valueCodeableConcept"]["coding"][0];
    assert_eq!(affected["code"], "aspects-m5");
    let right = &entries[5]["resource"];
    assert_eq!(right["dataAbsentReason"]["coding"][0]["code"], "not-performed");
    assert!(right["valueQuantity"].is_null());
    assert_eq!(
        entries[0]["resource"]["identifier"][0]["value"],
        format!("urn:oid:{}", uid("s"))
    );
    // An entry that failed is a dead letter with its status and nothing of what the server said.
    let failing = Receiver::new(200, r#"{"entry":[{"response":{"status":"422 Phantom^One"}}]}"#).await;
    let target = json!({ "name": "strict", "kind": "fhir", "url": failing.url });
    let _second = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["t"], Some(12.5)).await;
    let dead = until_delivery(&world, "t", "dead").await;
    assert!(dead.last_error.as_deref().unwrap().contains("answered 422"));
    assert!(!serde_json::to_string(&dead).unwrap().contains("Phantom"));
}

#[tokio::test]
async fn a_folder_gets_whole_files_and_a_share_that_is_not_there_waits() {
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    let world = World::new().await;
    let target =
        json!({ "name": "drop", "kind": "folder", "path": share, "send": ["notification", "results"] });
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was tried in vain", async || {
        deliveries(&world)
            .await
            .iter()
            .all(|one| one.attempts >= 1 && one.last_error.is_some())
    })
    .await;
    assert!(!share.exists());
    std::fs::create_dir(&share).unwrap();
    until("both are there", async || {
        deliveries(&world)
            .await
            .iter()
            .all(|one| one.state == "delivered")
    })
    .await;
    let mut names: Vec<String> = std::fs::read_dir(&share)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0].starts_with("notification_") && names[0].ends_with(".json"));
    assert!(names[1].starts_with("seg_") && names[2].starts_with("sr_"));
    for name in &names[1..] {
        dicom_object::open_file(share.join(name)).unwrap();
    }
    // What people have to know goes before what is large, when both are due.
    let before = trail(&world, "deliver").await.len();
    analyse(&world, &["t"], Some(12.5)).await;
    until("those of the second study are there", async || {
        trail(&world, "deliver").await.len() >= before + 2
    })
    .await;
    assert_eq!(trail(&world, "deliver").await[before]["subject"], "notification");
}

#[tokio::test]
async fn a_condition_on_the_images_decides_who_hears_of_a_study() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path());
    let (head, knee) = (Receiver::new(200, "").await, Receiver::new(200, "").await);
    let world = World::new().await;
    let mut one = pager(&head, &secret);
    one["match"] = json!({ "SeriesDescription": ["head*"], "Modality": "CT" });
    let mut two = pager(&knee, &secret);
    two["name"] = json!("knees");
    two["match"] = json!({ "SeriesDescription": ["Knee*"] });
    let _delivering = Delivering::start(&world, json!([one, two])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until_delivery(&world, "s", "delivered").await;
    assert_eq!((deliveries(&world).await.len(), knee.got().len()), (1, 0));
}

#[tokio::test]
async fn a_readers_word_and_mask_go_out_too() {
    let room = Room::open(Some(3.0)).await;
    let world = &room.server.world;
    let his = Mllp::new("AA").await;
    let folder = tempfile::tempdir().unwrap();
    let mut words = his.target();
    words["send"] = json!(["verdicts", "corrections"]);
    let files = json!({ "name": "drop", "kind": "folder", "path": folder.path(), "send": ["corrections"] });
    let _delivering = Delivering::start(world, json!([words, files])).await;
    let analysis = room.analysis().await;
    let verdict =
        json!({ "analysis": analysis, "finding": null, "verdict": "reject", "reason": null, "note": null });
    let given = room.judge(&verdict).await;
    assert!(given.status.is_success(), "{}", given.text());
    until("the word is there", async || his.got().len() == 1).await;
    let mask = json!({ "analysis": analysis, "kind": "haemorrhage", "edited": true, "slices": [on(10, &[17, 3, 25, 3])] });
    let saved = room.save(&mask).await;
    assert_eq!(saved.status, StatusCode::CREATED, "{}", saved.text());
    until("all is there", async || {
        let all = deliveries(world).await;
        all.len() == 3 && all.iter().all(|one| one.state == "delivered")
    })
    .await;
    let notes: Vec<Vec<String>> = his
        .got()
        .iter()
        .map(|bytes| Message::parse(&charset::decode(bytes).unwrap()).unwrap())
        .map(|message| {
            assert_eq!(message.segment("OBR").unwrap().text(25, 1).as_deref(), Some("F"));
            message
                .segments_of("OBX")
                .filter_map(|line| line.text(5, 1))
                .collect()
        })
        .collect();
    assert!(
        notes[0].contains(&"Reader: a reader rejects the answer".to_owned()),
        "{notes:?}"
    );
    assert!(
        notes[1].contains(&"Reader: a reader drew 1 region(s), 0.0 mL".to_owned()),
        "{notes:?}"
    );
    let name = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    let sop = saved.json()["sop_instance_uid"].as_str().unwrap().to_owned();
    assert_eq!(name.to_str().unwrap(), format!("reader_{sop}.dcm"));
    assert_eq!(trail(world, "verdict").await[0]["deliver_to"], json!(["his"]));
    assert_eq!(
        trail(world, "correct").await[0]["deliver_to"],
        json!(["drop", "his"])
    );
    room.close().await;
}

#[tokio::test]
async fn a_verdict_takes_note_of_what_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path());
    let (first, second) = (Receiver::new(202, "").await, Receiver::new(200, "").await);
    let server = crate::web::Server::new().await;
    let world = &server.world;
    let mut one = pager(&first, &secret);
    one["escalate"] = json!({ "after_seconds": 3600, "to": "consultant" });
    let two = json!({
        "name": "consultant", "kind": "webhook", "url": second.url, "secret_file": secret, "when": "escalated",
    });
    let _delivering = Delivering::start(world, json!([one, two])).await;
    analyse(world, &["s"], Some(12.5)).await;
    let told = until_delivery(world, "s", "delivered").await;
    assert_eq!(told.acknowledged_at, None);
    crate::review::add(world, "reader", ictus::review::account::AccountRole::Radiologist).await;
    let cookie = crate::review::cookie(&server, "reader").await;
    let detail = server
        .get(&format!("/api/studies/{}", uid("s")), &[])
        .await
        .json();
    let verdict = json!({
        "analysis": detail["analysis"]["id"], "finding": null, "verdict": "accept", "reason": null, "note": null,
    });
    let path = format!("/api/studies/{}/verdicts", uid("s"));
    let given = crate::review::from_page(&server, axum::http::Method::POST, &path, &cookie, &verdict).await;
    assert!(given.status.is_success(), "{}", given.text());
    assert_eq!(
        deliveries(world).await[0].acknowledged_by.as_deref(),
        Some("reader")
    );
    // An operator is told that somebody was faster.
    let answer = server
        .post(&format!("/api/deliveries/{}/acknowledge", told.id))
        .await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(second.got().is_empty());
}
