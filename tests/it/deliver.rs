//! Results on their way out: to another ictus, dcmtk and pynetdicom, through deaths, refusals and revisions.

use crate::{
    deliver_support::{
        Compressed, Delivering, Log, Pictured, PythonScp, SC, SEG, SR, Stub, analyse, analyse_with, c_store,
        deliveries, free_port, instances, revise, trail, until_delivery,
    },
    dimse_support::{Scp, call_as, proposal, run, until},
    support::{Slice, World, uid},
    web::{Server, request},
};
use axum::{
    Router,
    body::Body,
    http::{Method, StatusCode},
    routing::post,
};
use ictus::{association::syntax, db::outbox::Delivery, dicom::part10};
use serde_json::json;
use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::process::Command;

const RESULTS: &str =
    "SELECT count(*) FROM instance JOIN series ON series.id = series_id WHERE origin = 'result'";
const JOBS: &str = "SELECT count(*) FROM graphile_worker._private_jobs";

/// The files of a world's results.
async fn result_files(world: &World) -> Vec<Vec<u8>> {
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT archive_key FROM instance JOIN series ON series.id = series_id WHERE origin = 'result' \
         ORDER BY sop_instance_uid",
    )
    .fetch_all(&mut world.superuser().await)
    .await
    .unwrap();
    let mut files = Vec::new();
    for key in keys {
        files.push(world.archive.read(&key).await.unwrap().to_vec());
    }
    files
}

fn states(delivery: &Delivery) -> Vec<(&str, &str)> {
    delivery
        .instances
        .iter()
        .map(|instance| (instance.role.as_str(), instance.state.as_str()))
        .collect()
}

#[tokio::test]
async fn results_reach_another_ictus_over_stow_and_are_results_there() {
    let there = Server::with_keys().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "sender\n").unwrap();
    let world = World::new().await;
    let target = json!({
        "name": "vna", "kind": "stow", "url": format!("http://{}/dicom-web/", there.listen().await), "token_file": token,
        "results": ["pm", "seg", "sr"],
    });
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!((delivery.attempts, delivery.last_error.as_deref()), (1, None));
    assert_eq!(states(&delivery), [("seg", "delivered"), ("sr", "delivered")]);

    let (sent, arrived) = (result_files(&world).await, result_files(&there.world).await);
    assert_eq!(sent, arrived);
    assert_eq!(arrived.len(), 2);
    assert_eq!(there.world.count(JOBS).await, 0);
    assert_eq!(trail(&there.world, "store").await.len(), 1);

    let rows = trail(&world, "deliver").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["target"], "vna");
    assert_eq!(rows[0]["complete"], true);
    assert_eq!(rows[0]["instances"].as_array().unwrap().len(), 2);
    assert_eq!(trail(&world, "analyse").await[0]["deliver_to"], json!(["vna"]));
    let configured = trail(&world, "configure").await;
    assert_eq!(configured[0]["targets"][0]["name"], "vna");
    assert!(!configured[0].to_string().contains("sender"));
}

#[tokio::test]
async fn dcmtk_stores_what_it_is_sent_byte_for_byte() {
    let world = World::new().await;
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let _scp = Command::new("storescp")
        .args([
            "-aet",
            "PEER",
            "+B",
            "+uf",
            "-od",
            folder.path().to_str().unwrap(),
        ])
        .arg(port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until_delivery(&world, "s", "delivered").await;
    let mut arrived: Vec<Vec<u8>> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .map(|file| part10::dataset(&file).unwrap().to_vec())
        .collect();
    let mut sent: Vec<Vec<u8>> = result_files(&world)
        .await
        .iter()
        .map(|file| part10::dataset(file).unwrap().to_vec())
        .collect();
    arrived.sort();
    sent.sort();
    assert!(arrived == sent, "{} files arrived", arrived.len());
}

#[tokio::test]
async fn a_target_that_reads_implicit_only_gets_it() {
    let world = World::new().await;
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let _scp = Command::new("storescp")
        .args(["-aet", "PEER", "+xi", "-od", folder.path().to_str().unwrap()])
        .arg(port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    let mut uids = Vec::new();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let dump = run("dcmdump", &[path.to_str().unwrap()]).await;
        assert!(dump.success && dump.text.contains("Phantom^One"), "{}", dump.text);
        let object = dicom_object::open_file(path).unwrap();
        assert_eq!(object.meta().transfer_syntax(), syntax::IMPLICIT);
        uids.push(object.meta().media_storage_sop_instance_uid().to_owned());
    }
    uids.sort();
    assert_eq!(uids, instances(&delivery));
}

#[tokio::test]
async fn pynetdicom_takes_each_instance_once() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let _scp = PythonScp::start(port, &log, &[]).await;
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(log.instances(), instances(&delivery));
    assert!(log.answers().iter().all(|[_, form, _]| form == syntax::EXPLICIT));
}

#[tokio::test]
async fn a_class_that_is_not_taken_is_said_and_the_others_arrive() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let scp = PythonScp::start(port, &log, &[&format!("only={SR}")]).await;
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let dead = until_delivery(&world, "s", "dead").await;
    assert_eq!(states(&dead), [("seg", "refused"), ("sr", "delivered")]);
    assert!(
        dead.last_error.as_deref().unwrap().contains(SEG),
        "{:?}",
        dead.last_error
    );
    assert_eq!(dead.attempts, 1);
    let (sent, gave_up) = (trail(&world, "deliver").await, trail(&world, "give_up").await);
    assert_eq!((sent.len(), gave_up.len()), (1, 1));
    assert_eq!(sent[0]["complete"], false);
    assert_eq!(sent[0]["instances"].as_array().unwrap().len(), 1);

    // The PACS learns the class, someone retries, and only the SEG goes out.
    drop(scp);
    let _scp = PythonScp::start(port, &log, &[]).await;
    ictus::deliver::retry(&world.db, dead.id, "operator")
        .await
        .unwrap();
    until_delivery(&world, "s", "delivered").await;
    assert_eq!(log.instances(), instances(&dead));
    assert_eq!(trail(&world, "retry").await.len(), 1);
}

#[tokio::test]
async fn a_target_that_is_down_gets_its_results_when_it_is_up() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was tried in vain", async || {
        deliveries(&world).await[0].attempts >= 2
    })
    .await;
    let waiting = &deliveries(&world).await[0];
    assert_eq!(waiting.state, "pending");
    assert!(
        waiting
            .last_error
            .as_deref()
            .unwrap()
            .contains("cannot be reached")
    );
    let _scp = PythonScp::start(port, &log, &[]).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(log.instances(), instances(&delivery));
    assert!(trail(&world, "give_up").await.is_empty());
}

#[tokio::test]
async fn a_target_that_dies_within_a_delivery_gets_the_rest_later() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let mut scp = PythonScp::start(port, &log, &["die=2"]).await;
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    scp.has_ended().await;
    assert_eq!(log.answers().len(), 1);
    let _scp = PythonScp::start(port, &log, &[]).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    // What was answered before the death is not sent again.
    assert_eq!(log.instances(), instances(&delivery));
    assert_eq!(trail(&world, "deliver").await.len(), 2);
}

#[tokio::test]
async fn a_refusal_for_good_is_given_up_at_once_and_a_shortage_is_not() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let scp = PythonScp::start(port, &log, &["status=A900"]).await;
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let dead = until_delivery(&world, "s", "dead").await;
    assert_eq!((dead.attempts, log.answers().len()), (1, 2));
    assert!(
        dead.last_error
            .unwrap()
            .contains("A900: the dataset does not match")
    );
    drop(scp);
    let scp = PythonScp::start(port, &log, &["status=A700"]).await;
    ictus::deliver::retry(&world.db, dead.id, "operator")
        .await
        .unwrap();
    until("it was tried twice", async || log.answers().len() >= 6).await;
    assert_eq!(deliveries(&world).await[0].state, "pending");
    drop(scp);
    let _scp = PythonScp::start(port, &log, &[]).await;
    until_delivery(&world, "s", "delivered").await;
}

#[tokio::test]
async fn a_stow_target_is_tried_again_or_given_up_by_its_status_and_its_words_are_not_kept() {
    let world = World::new().await;
    let stub = Stub::new(503).await;
    let _delivering = Delivering::start(&world, json!([stub.target()])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("503 is tried again", async || {
        stub.asked.load(Ordering::SeqCst) >= 3
    })
    .await;
    stub.status.store(400, Ordering::SeqCst);
    let dead = until_delivery(&world, "s", "dead").await;
    assert!(
        dead.last_error
            .as_deref()
            .unwrap()
            .starts_with("the target answered 400")
    );
    assert!(!serde_json::to_string(&dead).unwrap().contains("Phantom"));
    stub.status.store(200, Ordering::SeqCst);
    ictus::deliver::retry(&world.db, dead.id, "operator")
        .await
        .unwrap();
    let delivered = until_delivery(&world, "s", "delivered").await;
    assert_eq!(delivered.last_error, None);
}

#[tokio::test]
async fn the_last_attempt_is_the_last() {
    let world = World::new().await;
    let stub = Stub::new(500).await;
    let mut target = stub.target();
    target["attempts"] = json!(3);
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let dead = until_delivery(&world, "s", "dead").await;
    assert_eq!((dead.attempts, stub.asked.load(Ordering::SeqCst)), (3, 3));
    assert_eq!(trail(&world, "give_up").await[0]["attempts"], 3);
}

#[tokio::test]
async fn a_superseded_analysis_is_not_sent_and_its_revision_is() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was tried in vain", async || {
        deliveries(&world).await[0].attempts >= 1
    })
    .await;
    revise(&world, "s", Some(14.0)).await;
    let old = until_delivery(&world, "s", "superseded").await;
    let _scp = PythonScp::start(port, &log, &[]).await;
    let new = until_delivery(&world, "s", "delivered").await;
    assert_eq!((old.revision, new.revision), (1, 2));
    assert_eq!(log.instances(), instances(&new));
    let analysed = trail(&world, "analyse").await;
    assert_eq!(analysed[1]["withdrawn"][0]["target"], "peer");
    let retried = ictus::deliver::retry(&world.db, old.id, "operator")
        .await
        .unwrap();
    assert_eq!(
        retried,
        ictus::db::outbox::Retried::Ended("superseded".to_owned())
    );
}

#[tokio::test]
async fn what_is_superseded_while_it_is_sent_is_told_as_it_was() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let go = log.beside("go");
    let _scp = PythonScp::start(port, &log, &[&format!("hold={}", go.display())]).await;
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it is being sent", async || {
        world
            .count("SELECT count(*) FROM outbox WHERE lease_until IS NOT NULL")
            .await
            == 1
    })
    .await;
    revise(&world, "s", Some(14.0)).await;
    until_delivery(&world, "s", "superseded").await;
    std::fs::write(&go, "").unwrap();
    until("both are there", async || {
        trail(&world, "deliver").await.len() == 2
    })
    .await;
    let all = deliveries(&world).await;
    assert!(all.iter().all(|one| one.state == "delivered"));
    let mut wanted: Vec<String> = all.iter().flat_map(instances).collect();
    wanted.sort();
    assert_eq!(log.instances(), wanted);
}

#[tokio::test]
async fn a_target_that_is_in_the_file_no_more_gets_nothing_new_and_keeps_what_waits() {
    let world = World::new().await;
    let stub = Stub::new(503).await;
    let first = Delivering::start(&world, json!([stub.target()])).await;
    analyse(&world, &["s1"], Some(12.5)).await;
    drop(first);
    for _ in 0..2 {
        drop(Delivering::start(&world, json!([])).await);
    }
    analyse(&world, &["s2"], Some(12.5)).await;
    let waiting = deliveries(&world).await;
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (waiting[0].state.as_str(), waiting[0].target_active),
        ("pending", false)
    );
    // The same file twice is one change.
    assert_eq!(trail(&world, "configure").await.len(), 2);
    stub.status.store(200, Ordering::SeqCst);
    let _again = Delivering::start(&world, json!([stub.target()])).await;
    until_delivery(&world, "s1", "delivered").await;
}

#[tokio::test]
async fn a_target_for_flagged_studies_hears_of_no_other_but_that_a_flag_was_taken_back() {
    let world = World::new().await;
    let stub = Stub::new(200).await;
    let mut target = stub.target();
    target["when"] = json!("flagged");
    target["results"] = json!(["sr"]);
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["quiet"], None).await;
    analyse(&world, &["loud"], Some(12.5)).await;
    until_delivery(&world, "loud", "delivered").await;
    revise(&world, "loud", None).await;
    until("the revision is there", async || {
        deliveries(&world)
            .await
            .iter()
            .filter(|one| one.state == "delivered")
            .count()
            == 2
    })
    .await;
    let all = deliveries(&world).await;
    assert!(
        all.iter()
            .all(|one| one.study_instance_uid == uid("loud").as_str())
    );
    assert!(all.iter().all(|one| states(one) == [("sr", "delivered")]));
}

#[tokio::test]
async fn two_servers_on_one_database_send_each_result_once() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let _scp = PythonScp::start(port, &log, &[]).await;
    let studies = ["s1", "s2", "s3", "s4", "s5", "s6"];
    let _one = Delivering::start(&world, json!([c_store(port)])).await;
    let _two = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &studies, Some(12.5)).await;
    let mut wanted = Vec::new();
    for study in studies {
        wanted.extend(instances(&until_delivery(&world, study, "delivered").await));
    }
    wanted.sort();
    assert_eq!(log.instances(), wanted);
    assert_eq!(trail(&world, "deliver").await.len(), studies.len());
}

#[tokio::test]
async fn a_target_that_answers_slowly_is_not_taken_over_by_another_server() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let go = log.beside("go");
    let _scp = PythonScp::start(port, &log, &[&format!("hold={}", go.display())]).await;
    let _one = Delivering::start(&world, json!([c_store(port)])).await;
    let _two = Delivering::start(&world, json!([c_store(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    // The lease was renewed past its first length: it is held, not forgotten.
    until("the lease is renewed", async || {
        world
            .count("SELECT count(*) FROM outbox WHERE lease_until > created_at + interval '3 seconds'")
            .await
            == 1
    })
    .await;
    std::fs::write(&go, "").unwrap();
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(delivery.attempts, 1);
    assert_eq!(log.instances(), instances(&delivery));
}

#[tokio::test]
async fn a_quarantined_study_is_not_delivered() {
    let world = World::new().await;
    let stub = Stub::new(200).await;
    let target = json!([stub.target()]);
    drop(Delivering::start(&world, target.clone()).await);
    analyse(&world, &["s"], Some(12.5)).await;
    let mut stranger = Slice::new("s", "series of s", 31);
    stranger.patient_id = "P2".to_owned();
    world.send(vec![stranger.bytes()]).await;
    let _delivering = Delivering::start(&world, target).await;
    let dead = until_delivery(&world, "s", "dead").await;
    assert!(dead.last_error.unwrap().starts_with("identity_conflict"));
    assert_eq!(stub.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn our_own_results_coming_back_are_neither_analysed_nor_delivered() {
    let world = World::new().await;
    let stub = Stub::new(200).await;
    let _delivering = Delivering::start(&world, json!([stub.target()])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until_delivery(&world, "s", "delivered").await;
    let files = result_files(&world).await;
    let asked = stub.asked.load(Ordering::SeqCst);

    // As they left, over both doors.
    let outcome = world.send(files.clone()).await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (2, 0));
    let scp = Scp::new(&world, |_| ()).await;
    for (file, class) in files.iter().zip(classes(&files)) {
        let mut association = call_as(&scp, "PACS", &[proposal(&class, &[syntax::EXPLICIT])]).await;
        assert_eq!(
            crate::dimse_support::store(&mut association, file).await.status(),
            0
        );
        association.link.release().await.unwrap();
    }
    assert_eq!(world.count(RESULTS).await, 2);

    // As a PACS relabelled them, and as another ictus would get them that never saw the study.
    let mut edited = dicom_object::from_reader(files[0].as_slice()).unwrap();
    edited.put(dicom_core::DataElement::new(
        dicom_dictionary_std::tags::PATIENT_NAME,
        dicom_core::VR::PN,
        "Phantom^Renamed",
    ));
    let mut bytes = Vec::new();
    edited.write_all(&mut bytes).unwrap();
    world.send(vec![bytes]).await;
    let elsewhere = World::new().await;
    let _forwarding = Delivering::start(&elsewhere, json!([stub.target()])).await;
    elsewhere.send(files).await;
    assert_eq!(elsewhere.count(RESULTS).await, 2);

    for place in [&world, &elsewhere] {
        assert_eq!(place.count(JOBS).await, 0);
        let foreign = "SELECT count(*) FROM series WHERE origin = 'received' AND modality <> 'CT'";
        assert_eq!(place.count(foreign).await, 0);
    }
    assert_eq!(deliveries(&world).await.len(), 1);
    assert!(deliveries(&elsewhere).await.is_empty());
    assert_eq!(stub.asked.load(Ordering::SeqCst), asked);
}

fn classes(files: &[Vec<u8>]) -> Vec<String> {
    files
        .iter()
        .map(|file| {
            let object = dicom_object::from_reader(file.as_slice()).unwrap();
            object.meta().media_storage_sop_class_uid().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn operators_see_deliveries_and_retry_them_and_senders_do_not() {
    let server = Server::with_keys().await;
    let stub = Stub::new(400).await;
    let _delivering = Delivering::start(&server.world, json!([stub.target()])).await;
    analyse(&server.world, &["s"], Some(12.5)).await;
    let dead = until_delivery(&server.world, "s", "dead").await;
    let viewer = [("authorization", "Bearer viewer")];
    let list = server.get("/api/deliveries?state=dead", &viewer).await;
    assert_eq!(list.status, StatusCode::OK);
    let list = list.json();
    assert_eq!(list[0]["id"], json!(dead.id));
    assert_eq!(list[0]["instances"][0]["state"], "pending");
    assert!(!list.to_string().contains("Phantom"));
    let metrics = server.get("/metrics", &viewer).await.text();
    let line = "ictus_deliveries{target=\"stub\",state=\"dead\"} 1";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    for (query, status) in [
        ("state=lost", StatusCode::BAD_REQUEST),
        ("study=nobody", StatusCode::BAD_REQUEST),
        ("limit=many", StatusCode::BAD_REQUEST),
        ("target=other", StatusCode::OK),
    ] {
        let answer = server.get(&format!("/api/deliveries?{query}"), &viewer).await;
        assert_eq!(answer.status, status, "{query}");
    }

    let retry = async |id: &str, key: &str| {
        let path = format!("/api/deliveries/{id}/retry");
        let key = format!("Bearer {key}");
        let headers = [("authorization", key.as_str())];
        server
            .send(request(Method::POST, &path, &headers, Body::empty()))
            .await
            .status
    };
    let id = dead.id.to_string();
    assert_eq!(retry(&id, "sender").await, StatusCode::FORBIDDEN);
    assert_eq!(retry(&id, "viewer").await, StatusCode::FORBIDDEN);
    assert_eq!(retry("x", "operator").await, StatusCode::BAD_REQUEST);
    let unknown = uuid::Uuid::new_v4().to_string();
    assert_eq!(retry(&unknown, "operator").await, StatusCode::NOT_FOUND);
    stub.status.store(200, Ordering::SeqCst);
    assert_eq!(retry(&id, "operator").await, StatusCode::ACCEPTED);
    until_delivery(&server.world, "s", "delivered").await;
    assert_eq!(retry(&id, "operator").await, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_compressed_result_goes_out_as_it_is_or_uncompressed() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let plain = PythonScp::start(port, &log, &[]).await;
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse_with(&world, "s1", Arc::new(Compressed)).await;
    until_delivery(&world, "s1", "delivered").await;
    drop(plain);
    let _able = PythonScp::start(port, &log, &["also=1.2.840.10008.1.2.5"]).await;
    analyse_with(&world, "s2", Arc::new(Compressed)).await;
    until_delivery(&world, "s2", "delivered").await;
    let forms: Vec<String> = log.answers().into_iter().map(|[_, form, _]| form).collect();
    assert_eq!(forms, [syntax::EXPLICIT, "1.2.840.10008.1.2.5"]);
}

#[tokio::test]
async fn a_stow_target_that_refuses_compression_gets_the_result_without() {
    let world = World::new().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let counts = answered.clone();
    // The first answer is that of PS3.18 table I.2-2 for a transfer syntax that is not supported.
    let answer = move |body: axum::body::Bytes| async move {
        let call = counts.fetch_add(1, Ordering::SeqCst);
        let start = body.windows(4).position(|four| four == b"DICM").unwrap() - 128;
        let end = body.windows(9).rposition(|nine| nine == b"\r\n--ictus").unwrap();
        let head = String::from_utf8_lossy(&body[..start]).into_owned();
        let file = &body[start..end];
        let object = dicom_object::from_reader(file).unwrap();
        let uid = object.meta().media_storage_sop_instance_uid().to_owned();
        let form = object.meta().transfer_syntax().to_owned();
        assert!(head.contains("Content-Type: application/dicom"));
        if call > 0 {
            assert_eq!(form, syntax::EXPLICIT);
            return (StatusCode::OK, String::new());
        }
        let failed = json!({ "00081198": { "vr": "SQ", "Value": [{
            "00081155": { "vr": "UI", "Value": [uid] }, "00081197": { "vr": "US", "Value": [0xC122] },
        }] } });
        (StatusCode::CONFLICT, failed.to_string())
    };
    let router = Router::new().route("/studies", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let target = json!({ "name": "plain", "kind": "stow", "url": url, "results": ["pm"] });
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse_with(&world, "s", Arc::new(Compressed)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!((delivery.attempts, answered.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn of_a_pacs_that_nobody_knows_only_the_picture_is_asked() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let _scp = PythonScp::start(port, &log, &[]).await;
    let mut target = c_store(port);
    target.as_object_mut().unwrap().remove("results");
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse_with(&world, "s", Arc::new(Pictured)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(states(&delivery), [("sc", "delivered")]);
    assert_eq!(delivery.note, None);
}

#[tokio::test]
async fn what_a_pacs_does_not_take_is_replaced_by_the_picture_and_the_row_says_so() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let _scp = PythonScp::start(port, &log, &[&format!("only={SC}")]).await;
    let _delivering = Delivering::start(&world, json!([c_store(port)])).await;
    analyse_with(&world, "s", Arc::new(Pictured)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(
        states(&delivery),
        [("seg", "replaced"), ("sr", "replaced"), ("sc", "delivered")]
    );
    let note = delivery.note.as_deref().unwrap();
    assert!(
        note.starts_with("degraded: the target does not take seg (")
            && note.contains(SR)
            && note.contains("secondary capture"),
        "{note}"
    );
    assert_eq!(log.instances().len(), 1);
    let rows = trail(&world, "degrade").await;
    assert_eq!((rows.len(), &rows[0]["instead"]), (1, &json!("sc")));
    assert_eq!(rows[0]["not_taken"].as_array().unwrap().len(), 2);
    assert!(trail(&world, "give_up").await.is_empty());
    let (_, list) = crate::deliver_server::list(&world).await;
    assert!(list.contains("degraded: the target does not take"), "{list}");
}

#[tokio::test]
async fn a_profile_says_what_is_taken_in_which_words_and_how_large() {
    let world = World::new().await;
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let target = |name: &str, at: usize, profile: serde_json::Value| json!({ "name": name, "kind": "folder", "path": folders[at].path(), "results": ["seg", "sr"], "profile": profile });
    let named = json!({
        "series_description": "AI {role}", "character_set": "ISO_IR 100", "transfer_syntaxes": [syntax::IMPLICIT],
    });
    let targets = json!([
        target("classes", 0, json!({ "sop_classes": [SC, SR] })),
        target("named", 1, named),
        target("small", 2, json!({ "max_bytes": 100 })),
    ]);
    let _delivering = Delivering::start(&world, targets).await;
    analyse_with(&world, "s", Arc::new(Pictured)).await;
    until("all came to their end", async || {
        deliveries(&world)
            .await
            .iter()
            .filter(|one| one.state != "pending")
            .count()
            == 3
    })
    .await;
    let all = deliveries(&world).await;
    let by = |name: &str| all.iter().find(|one| one.target == name).unwrap();
    assert_eq!(
        states(by("classes")),
        [("seg", "replaced"), ("sr", "delivered"), ("sc", "delivered")]
    );
    assert_eq!(states(by("named")), [("seg", "delivered"), ("sr", "delivered")]);
    for file in std::fs::read_dir(folders[1].path()).unwrap() {
        let object = dicom_object::open_file(file.unwrap().path()).unwrap();
        let text = |tag| object.element(tag).unwrap().to_str().unwrap().trim().to_owned();
        assert!(text(dicom_dictionary_std::tags::SERIES_DESCRIPTION).starts_with("AI s"));
        assert_eq!(
            text(dicom_dictionary_std::tags::SPECIFIC_CHARACTER_SET),
            "ISO_IR 100"
        );
        assert_eq!(object.meta().transfer_syntax(), syntax::IMPLICIT);
    }
    // Even the picture is too large for this one: nothing goes, and it says why.
    assert_eq!(by("small").state, "dead");
    assert!(by("small").last_error.as_deref().unwrap().contains("takes 100"));
    assert_eq!(std::fs::read_dir(folders[2].path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_killed_server_was_sending_when_it_was_superseded_is_in_the_trail() {
    let world = World::new().await;
    let stub = Stub::new(200).await;
    drop(Delivering::start(&world, json!([stub.target()])).await);
    // Another server takes the delivery and is killed; meanwhile the analysis is revised.
    analyse(&world, &["s"], Some(12.5)).await;
    let server = uuid::Uuid::new_v4();
    let lease = std::time::Duration::from_millis(300);
    let claimed = loop {
        if let Some(claimed) = world.db.claim_delivery(server, "stub", lease).await.unwrap() {
            break claimed;
        }
    };
    revise(&world, "s", Some(14.0)).await;
    let _delivering = Delivering::start(&world, json!([stub.target()])).await;
    until("it is in the trail", async || {
        trail(&world, "deliver_unknown").await.len() == 1
    })
    .await;
    let row = trail(&world, "deliver_unknown").await.remove(0);
    assert_eq!(row["delivery"], json!(claimed.id));
    assert_eq!(row["instances"].as_array().unwrap().len(), 2);
    until_delivery(&world, "s", "delivered").await;
    assert_eq!(trail(&world, "deliver_unknown").await.len(), 1);
}
