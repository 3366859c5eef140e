//! Storage commitment, both ways: what is truly stored is committed to, and a delivery ends when its target commits.

use crate::{
    deliver_support::{
        Delivering, Log, analyse, c_store, free_port, script_that_is_ready, trail, until_delivery,
    },
    dimse_support::{CT, Scp, call_as, exchange, peer, proposal, python, run, until},
    support::{Slice, World, uid},
};
use dicom_dictionary_std::uids;
use ictus::{
    association::{
        command::{Command, element, field, status},
        syntax,
    },
    dicom::identifier,
    domain::uid::Uid,
    scu::commitment::{Reference, Request},
};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/commitment.py");

/// Asks as pynetdicom; what it was told.
async fn ask(scp: &Scp, place: &str, own_port: u16, references: &[String]) -> String {
    let (port, own_port) = (scp.port(), own_port.to_string());
    let mut arguments = vec![SCRIPT, "ask", &port, place, &own_port];
    arguments.extend(references.iter().map(String::as_str));
    let said = run(&python(), &arguments).await;
    assert!(said.success, "{}", said.text);
    // Its first line; pynetdicom's own thread complains behind it when a report meets its abort on the way.
    said.text.lines().next().unwrap_or_default().to_owned()
}

fn named(class: &str, instance: &Uid) -> String {
    format!("{class}={instance}")
}

async fn reports(world: &World, state: &str) -> usize {
    let rows: Vec<String> = sqlx::query_scalar("SELECT state FROM commitment_report")
        .fetch_all(&mut world.superuser().await)
        .await
        .unwrap();
    rows.iter().filter(|row| *row == state).count()
}

#[tokio::test]
async fn what_is_stored_is_committed_to_on_the_association_of_the_request() {
    let world = World::new().await;
    let slices: Vec<_> = (1..=3).map(|n| Slice::new("s", "a", n)).collect();
    world.send(slices.iter().map(Slice::bytes).collect()).await;
    let scp = Scp::new(&world, |_| ()).await;
    let all: Vec<_> = slices.iter().map(|slice| named(CT, &slice.sop)).collect();
    let mut uids: Vec<_> = slices.iter().map(|slice| slice.sop.to_string()).collect();
    uids.sort();
    assert_eq!(
        ask(&scp, "here", 0, &all).await,
        format!("1|True|{}|", uids.join(","))
    );

    // Unknown, of another class, and gone from the disk.
    let key: String = sqlx::query_scalar("SELECT archive_key FROM instance WHERE sop_instance_uid = $1")
        .bind(slices[2].sop.as_str())
        .fetch_one(&mut world.superuser().await)
        .await
        .unwrap();
    std::fs::remove_file(world.folder.path().join(key)).unwrap();
    let unknown = uid("unknown");
    let asked = [
        all[0].clone(),
        named(uids::MR_IMAGE_STORAGE, &slices[1].sop),
        all[2].clone(),
        named(CT, &unknown),
    ];
    let mut failed = [
        format!("{}:0119", slices[1].sop),
        format!("{}:0110", slices[2].sop),
        format!("{unknown}:0112"),
    ];
    failed.sort();
    assert_eq!(
        ask(&scp, "here", 0, &asked).await,
        format!("2|True|{}|{}", slices[0].sop, failed.join(","))
    );
    until("both reports are noted as sent", async || {
        reports(&world, "sent").await == 2
    })
    .await;
    let rows = trail(&world, "commit").await;
    assert_eq!(
        (&rows[0]["committed"], &rows[1]["committed"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(rows[1]["failed"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn who_does_not_wait_is_told_on_another_association() {
    let world = World::new().await;
    let slice = Slice::new("s", "a", 1);
    world.send(vec![slice.bytes()]).await;
    let own = free_port();
    let scp = Scp::new(&world, |settings| {
        settings
            .peers
            .push(peer("MODALITY", format!("127.0.0.1:{own}").parse().unwrap()));
    })
    .await;
    let said = ask(&scp, "later", own, &[named(CT, &slice.sop)]).await;
    assert_eq!(said, format!("1|True|{}|", slice.sop));
    until("the report is noted as sent", async || {
        reports(&world, "sent").await == 1
    })
    .await;
    scp.stop().await;
}

#[tokio::test]
async fn a_request_that_is_none_is_refused_and_the_association_goes_on() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut association = call_as(
        &scp,
        "CT1",
        &[proposal(syntax::STORAGE_COMMITMENT, &[syntax::EXPLICIT])],
    )
    .await;
    let action = |class: &str, instance: &str, action: u16| {
        Command::new(field::N_ACTION)
            .with_u16(element::MESSAGE_ID, 5)
            .with_uid(element::REQUESTED_SOP_CLASS_UID, class)
            .with_uid(element::REQUESTED_SOP_INSTANCE_UID, instance)
            .with_u16(element::ACTION_TYPE_ID, action)
    };
    let request = Request {
        transaction_uid: uid("transaction"),
        references: vec![Reference {
            sop_class_uid: CT.to_owned(),
            sop_instance_uid: uid("x").to_string(),
        }],
    };
    let good = identifier::write(request.dataset(), syntax::EXPLICIT).unwrap();
    let (class, instance) = (syntax::STORAGE_COMMITMENT, syntax::STORAGE_COMMITMENT_INSTANCE);
    for (command, dataset, expected) in [
        (
            action(CT, instance, 1),
            Some(&good[..]),
            status::SOP_CLASS_NOT_SUPPORTED,
        ),
        (action(class, "1.2.3", 1), Some(&good), status::NO_SUCH_INSTANCE),
        (action(class, instance, 2), Some(&good), status::NO_SUCH_ACTION),
        (
            action(class, instance, 1),
            Some(&good[..20]),
            status::INVALID_ARGUMENT,
        ),
        (action(class, instance, 1), None, status::INVALID_ARGUMENT),
    ] {
        assert_eq!(
            exchange(&mut association, &command, dataset).await.status(),
            expected
        );
    }
    assert_eq!(reports(&world, "pending").await, 0);
    association.link.release().await.unwrap();
}

fn target(port: u16) -> Value {
    let mut target = c_store(port);
    target["commit"] = json!(true);
    target
}

#[tokio::test]
async fn a_delivery_to_another_ictus_is_done_when_that_has_committed() {
    let (here, there) = (World::new().await, World::new().await);
    let scp = Scp::new(&there, |settings| settings.title = "PEER".to_owned()).await;
    let _delivering = Delivering::start(&here, json!([target(scp.address.port())])).await;
    analyse(&here, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&here, "s", "delivered").await;
    assert_eq!(delivery.attempts, 1);
    let committed: i64 = here
        .count("SELECT count(*) FROM commitment_asked WHERE state = 'committed'")
        .await;
    assert_eq!(usize::try_from(committed).unwrap(), delivery.instances.len());
    assert_eq!(trail(&there, "commit").await.len(), 1);
}

#[tokio::test]
async fn a_target_that_commits_later_is_heard_by_our_listener() {
    let world = World::new().await;
    let ours = Scp::new(&world, |_| ()).await;
    let (port, log) = (free_port(), Log::new());
    let file = log.beside("kept");
    let (own, other) = (port.to_string(), ours.port());
    let keeping = script_that_is_ready(&[SCRIPT, "keep", &own, file.to_str().unwrap(), &other]).await;
    let _delivering = Delivering::start(&world, json!([target(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    let said = std::fs::read_to_string(&file).unwrap();
    // Sent once and asked once, however often it was looked whether the answer is there.
    assert_eq!(said.matches("stored").count(), delivery.instances.len(), "{said}");
    assert_eq!(said.matches("asked").count(), 1, "{said}");
    assert!(delivery.attempts > 1);
    // Who was not asked has nothing to say of it, not even with the right UID.
    assert!(said.contains("answered as STRANGER: 0112"), "{said}");
    drop(keeping);
}

#[tokio::test]
async fn what_a_target_does_not_commit_to_is_sent_again() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let file = log.beside("kept");
    let own = port.to_string();
    let keeping = script_that_is_ready(&[SCRIPT, "keep", &own, file.to_str().unwrap(), "fail"]).await;
    let _delivering = Delivering::start(&world, json!([target(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    let said = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        said.matches("stored").count(),
        2 * delivery.instances.len(),
        "{said}"
    );
    assert_eq!(
        (said.matches("asked").count(), delivery.attempts),
        (2, 2),
        "{said}"
    );
    drop(keeping);
}

#[tokio::test]
async fn a_target_without_storage_commitment_is_said_to_have_none() {
    let world = World::new().await;
    let (port, log) = (free_port(), Log::new());
    let _scp = crate::deliver_support::PythonScp::start(port, &log, &[]).await;
    let _delivering = Delivering::start(&world, json!([target(port)])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "dead").await;
    let said = delivery.last_error.unwrap();
    assert!(said.contains("offers no storage commitment"), "{said}");
}
