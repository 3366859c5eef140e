//! C-MOVE and C-GET: what is stored goes where it is asked for, in a form that is taken there.

use crate::{
    dimse_support::{CT, Scp, call_as, folder_of, peer, proposal, python, run},
    support::{Slice, World, uid},
};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use ictus::{
    association::{
        Timeouts,
        command::{Command, element, field, status},
        requestor::{Proposal, request},
        syntax,
    },
    dicom::{identifier, instance::Instance},
    identity::{PatientId, Person, correct},
    scu::retrieve,
};
use serde_json::Value;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{net::TcpListener, process::Command as Process};

/// A study of a series as it comes and one in RLE.
async fn world() -> World {
    let world = World::new().await;
    let plain: Vec<_> = (0..3).map(|n| Slice::new("s", "a", n).bytes()).collect();
    let folder = folder_of(&[Slice::new("s", "b", 1).bytes(), Slice::new("s", "b", 2).bytes()]);
    let mut files = plain;
    for number in 0..2 {
        let name = folder.path().join(format!("{number:04}.dcm"));
        let name = name.to_str().unwrap();
        let said = run("dcmcrle", &[name, name]).await;
        assert!(said.success, "{}", said.text);
        files.push(std::fs::read(name).unwrap());
    }
    assert_eq!(world.send(files).await.stored.len(), 5);
    world
}

fn keys(level: &str, wanted: &[(Tag, &str)]) -> InMemDicomObject {
    let mut keys = InMemDicomObject::new_empty();
    keys.put(DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
    for (tag, value) in wanted {
        keys.put(DataElement::new(*tag, VR::UI, *value));
    }
    keys
}

/// The instances in a folder, by UID.
fn received(folder: &Path) -> Vec<DefaultDicomObject> {
    let mut found: Vec<DefaultDicomObject> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| dicom_object::open_file(entry.unwrap().path()).unwrap())
        .collect();
    found.sort_by_key(|object| object.meta().media_storage_sop_instance_uid().to_owned());
    found
}

fn pixels(object: &DefaultDicomObject) -> Vec<i32> {
    Instance::from_object(object.clone()).unwrap().pixels().unwrap()
}

async fn reads(world: &World) -> Vec<(String, Value)> {
    let rows = world.db.audit_rows(0, 1000).await.unwrap();
    rows.into_iter()
        .filter(|row| row.act == "read")
        .map(|row| (row.principal, serde_json::from_str(&row.detail).unwrap()))
        .collect()
}

/// A port that nobody listens on just now.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[tokio::test]
async fn dcmtk_gets_a_study_a_series_and_an_instance() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let study = format!("StudyInstanceUID={}", uid("s"));
    let series = format!("SeriesInstanceUID={}", uid("b"));
    let instance = format!("SOPInstanceUID={}", Slice::new("s", "a", 1).sop);
    for (level, keys, count, options) in [
        ("STUDY", vec![&study], 5, vec![]),
        ("SERIES", vec![&study, &series], 2, vec!["+B"]),
        ("IMAGE", vec![&study, &instance], 1, vec![]),
        ("SERIES", vec![&study, &series], 2, vec!["+xr"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (level, port) = (format!("QueryRetrieveLevel={level}"), scp.port());
        let mut arguments = vec!["-v", "-S", "-aet", "WORK", "-aec", "ICTUS", "-k", &level];
        arguments.extend(keys.iter().flat_map(|key| ["-k", key.as_str()]));
        arguments.extend(options.iter().copied());
        arguments.extend(["-od", folder.path().to_str().unwrap(), "127.0.0.1", &port]);
        let said = run("getscu", &arguments).await;
        assert!(said.success, "{}", said.text);
        let found = received(folder.path());
        assert_eq!(found.len(), count, "{}", said.text);
        for object in &found {
            assert_eq!(pixels(object), [1024; 64]);
            assert_eq!(object.meta().transfer_syntax(), syntax::EXPLICIT);
        }
    }
    let rows = reads(&world).await;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0].0, "WORK");
    assert_eq!(rows[0].1["service"], "C-GET");
    assert_eq!(rows[0].1["instances"], 5);
}

#[tokio::test]
async fn pynetdicom_gets_and_moves_a_study() {
    let world = world().await;
    let destination = free_port().await;
    let address = format!("127.0.0.1:{destination}").parse().unwrap();
    let scp = Scp::new(&world, |settings| settings.peers.push(peer("STORESCP", address))).await;
    let (folder, port) = (tempfile::tempdir().unwrap(), scp.port());
    let path = folder.path().to_str().unwrap().to_owned();
    let study = format!("StudyInstanceUID={}", uid("s"));
    let (python, to) = (python(), destination.to_string());
    let common = [
        "127.0.0.1",
        &port,
        "-S",
        "-aec",
        "ICTUS",
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        &study,
    ];
    let mut arguments = vec!["-m", "pynetdicom", "getscu"];
    arguments.extend(common);
    arguments.extend(["-od", &path]);
    let said = run(&python, &arguments).await;
    assert!(said.success, "{}", said.text);
    assert_eq!(received(folder.path()).len(), 5, "{}", said.text);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let mut arguments = vec!["-m", "pynetdicom", "movescu"];
    arguments.extend(common);
    arguments.extend(["-aem", "STORESCP", "--store", "--store-port", &to, "-od", &path]);
    let said = run(&python, &arguments).await;
    assert!(said.success, "{}", said.text);
    assert_eq!(received(folder.path()).len(), 5, "{}", said.text);
    let rows = reads(&world).await;
    assert_eq!(rows.last().unwrap().1["to"], "STORESCP");
}

#[tokio::test]
async fn dcmtk_moves_to_itself_and_to_a_third_and_what_is_stored_compressed_arrives() {
    let world = world().await;
    let (own, third) = (free_port().await, free_port().await);
    let scp = Scp::new(&world, |settings| {
        for (title, port) in [("MOVESCU", own), ("THIRD", third)] {
            settings
                .peers
                .push(peer(title, format!("127.0.0.1:{port}").parse().unwrap()));
        }
    })
    .await;
    let (port, own) = (scp.port(), own.to_string());
    let study = format!("StudyInstanceUID={}", uid("s"));
    for (option, form) in [("+xe", syntax::EXPLICIT), ("+xi", syntax::IMPLICIT)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let arguments = [
            "-v",
            "-S",
            "-aec",
            "ICTUS",
            option,
            "+P",
            &own,
            "-k",
            "QueryRetrieveLevel=STUDY",
            "-k",
            &study,
            "-od",
            path,
            "127.0.0.1",
            &port,
        ];
        let said = run("movescu", &arguments).await;
        assert!(said.success, "{}", said.text);
        let found = received(folder.path());
        assert_eq!(found.len(), 5, "{}", said.text);
        assert!(found.iter().all(|object| pixels(object) == [1024; 64]));
        assert!(found.iter().all(|object| object.meta().transfer_syntax() == form));
    }

    // A third one that takes everything gets it as it is stored.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let third = third.to_string();
    let mut storing = Process::new("storescp")
        .args(["+xa", "-aet", "THIRD", "-od", path, &third])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    crate::dimse_support::until("the third listens", async || {
        run("echoscu", &["-aec", "THIRD", "127.0.0.1", &third])
            .await
            .success
    })
    .await;
    let arguments = [
        "-v",
        "-S",
        "-aec",
        "ICTUS",
        "-aem",
        "THIRD",
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        &study,
        "127.0.0.1",
        &port,
    ];
    let said = run("movescu", &arguments).await;
    assert!(said.success, "{}", said.text);
    let found = received(folder.path());
    assert_eq!(found.len(), 5, "{}", said.text);
    let compressed = found
        .iter()
        .filter(|object| object.meta().transfer_syntax() == uids::RLE_LOSSLESS);
    assert_eq!(compressed.count(), 2);
    assert!(found.iter().all(|object| pixels(object) == [1024; 64]));
    storing.kill().await.unwrap();
}

#[tokio::test]
async fn a_move_that_cannot_be_done_says_why() {
    let world = world().await;
    let nobody = free_port().await;
    let scp = Scp::new(&world, |settings| {
        let address = format!("127.0.0.1:{nobody}").parse().unwrap();
        settings.peers.push(peer("AWAY", address));
    })
    .await;
    let mut association = call_as(
        &scp,
        "PACS",
        &[proposal(syntax::STUDY_ROOT_MOVE, &[syntax::EXPLICIT])],
    )
    .await;
    let context = association.contexts[0].clone();
    let study = uid("s").to_string();
    for (number, level, key, to, expected) in [
        (
            1,
            "STUDY",
            tags::STUDY_INSTANCE_UID,
            "NOBODY",
            status::MOVE_DESTINATION_UNKNOWN,
        ),
        (
            2,
            "STUDY",
            tags::STUDY_INSTANCE_UID,
            "AWAY",
            status::CANNOT_PERFORM,
        ),
        (
            3,
            "SERIES",
            tags::STUDY_INSTANCE_UID,
            "AWAY",
            status::IDENTIFIER_MISMATCH,
        ),
        (
            4,
            "PATIENT",
            tags::STUDY_INSTANCE_UID,
            "AWAY",
            status::IDENTIFIER_MISMATCH,
        ),
    ] {
        let wanted = keys(level, &[(key, &study)]);
        let link = &mut association.link;
        let moved = retrieve::move_to(link, &context, number, wanted, to)
            .await
            .unwrap();
        assert_eq!(moved.status, expected, "{level} {to}");
        assert_eq!(
            moved.failed,
            if expected == status::CANNOT_PERFORM { 5 } else { 0 }
        );
    }
    // Nothing is known of it, so there is nothing to send.
    let unknown = keys("STUDY", &[(tags::STUDY_INSTANCE_UID, "1.2.3")]);
    let moved = retrieve::move_to(&mut association.link, &context, 5, unknown, "AWAY")
        .await
        .unwrap();
    assert_eq!((moved.status, moved.completed), (status::SUCCESS, 0));
    association.link.release().await.unwrap();
}

fn get_contexts(classes: &[(&str, &str)]) -> Vec<Proposal> {
    let mut proposals = vec![proposal(syntax::STUDY_ROOT_GET, &[syntax::EXPLICIT])];
    proposals.extend(classes.iter().map(|(class, syntax)| Proposal {
        we_provide: true,
        ..proposal(class, &[syntax])
    }));
    proposals
}

/// Asks for a study by C-GET and answers each sub-operation as `answer` says; the last response and its dataset.
async fn get(
    scp: &Scp,
    proposals: &[Proposal],
    mut answer: impl FnMut(usize) -> (u16, bool),
) -> (Command, Vec<u8>, usize) {
    let mut association = request(&scp.peer(), "WORK", proposals, Timeouts::default())
        .await
        .unwrap();
    let context = association.contexts[0].clone();
    let wanted = keys("STUDY", &[(tags::STUDY_INSTANCE_UID, uid("s").as_str())]);
    let link = &mut association.link;
    retrieve::request(link, &context, field::C_GET, 7, wanted, None)
        .await
        .unwrap();
    let mut stored = 0;
    loop {
        let message = link.next().await.unwrap().unwrap();
        if message.command.field() == field::C_STORE {
            link.drain().await.unwrap();
            let (status, cancels) = answer(stored);
            stored += 1;
            if cancels {
                retrieve::cancel(link, &context, 7).await.unwrap();
            }
            let response = Command::response_to(&message.command, status);
            link.send(message.context, &response, None).await.unwrap();
            continue;
        }
        let bytes = link.whole_dataset(1 << 20).await.unwrap();
        if !retrieve::is_pending(message.command.status()) {
            association.link.release().await.unwrap();
            return (message.command, bytes, stored);
        }
        assert!(message.command.u16(element::REMAINING).is_some());
    }
}

#[tokio::test]
async fn sub_operations_are_counted_and_those_that_failed_are_named() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let all = get_contexts(&[(CT, syntax::EXPLICIT)]);
    let (last, list, stored) = get(&scp, &all, |n| {
        let status = match n {
            0 => 0xB000,
            1 => 0xA700,
            _ => 0,
        };
        (status, false)
    })
    .await;
    assert_eq!((last.status(), stored), (status::SUB_OPERATIONS_FAILED, 5));
    let counts = [element::COMPLETED, element::WARNING, element::FAILED].map(|count| last.u16(count));
    assert_eq!(counts, [Some(3), Some(1), Some(1)]);
    let list = identifier::read(&list, syntax::EXPLICIT).unwrap();
    let failed = list
        .get(tags::FAILED_SOP_INSTANCE_UID_LIST)
        .unwrap()
        .to_str()
        .unwrap();
    assert_eq!(
        failed.trim_end_matches('\0'),
        Slice::new("s", "a", 1).sop.as_str()
    );

    // Without the role nothing may be sent to it, and a class that it does not take fails alone.
    let without = [
        proposal(syntax::STUDY_ROOT_GET, &[syntax::EXPLICIT]),
        proposal(CT, &[syntax::EXPLICIT]),
    ];
    let (last, _, stored) = get(&scp, &without, |_| (0, false)).await;
    assert_eq!((last.status(), stored), (status::CANNOT_PERFORM, 0));
    assert_eq!(last.u16(element::FAILED), Some(5));
    let compressed = get_contexts(&[(CT, uids::RLE_LOSSLESS)]);
    let (last, _, stored) = get(&scp, &compressed, |_| (0, false)).await;
    assert_eq!((last.status(), stored), (status::SUB_OPERATIONS_FAILED, 2));
}

#[tokio::test]
async fn a_retrieval_stops_when_it_is_cancelled() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let all = get_contexts(&[(CT, syntax::EXPLICIT)]);
    let (last, _, stored) = get(&scp, &all, |n| (0, n == 1)).await;
    assert_eq!((last.status(), stored), (status::CANCEL, 2));
    assert_eq!(last.u16(element::COMPLETED), Some(2));
    assert_eq!(last.u16(element::REMAINING), Some(3));
}

#[tokio::test]
async fn a_destination_that_stalls_fails_the_move_and_nobody_else_waits_for_it() {
    let world = world().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It takes connections and says nothing.
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            silent.push(stream);
        }
    });
    let scp = Scp::new(&world, |settings| {
        settings.timeouts.establish = Duration::from_secs(2);
        settings.peers.push(peer("SILENT", address));
    })
    .await;
    let mut association = call_as(
        &scp,
        "PACS",
        &[proposal(syntax::STUDY_ROOT_MOVE, &[syntax::EXPLICIT])],
    )
    .await;
    let context = association.contexts[0].clone();
    let wanted = keys("STUDY", &[(tags::STUDY_INSTANCE_UID, uid("s").as_str())]);
    let moving = retrieve::move_to(&mut association.link, &context, 1, wanted, "SILENT");
    let others = async {
        let all = get_contexts(&[(CT, syntax::EXPLICIT)]);
        get(&scp, &all, |_| (0, false)).await.0.status()
    };
    let (moved, got) = tokio::join!(moving, others);
    assert_eq!(got, status::SUCCESS);
    let moved = moved.unwrap();
    assert_eq!((moved.status, moved.failed), (status::CANNOT_PERFORM, 5));
}

#[tokio::test]
async fn a_corrected_identity_is_handed_out_and_the_former_one_beside_it() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let patient = PatientId {
        id: "P1".to_owned(),
        issuer: None,
    };
    let person = Person {
        name: Some("Corrected^Carla".to_owned()),
        ..Person::default()
    };
    correct(&world.db, "his", "A08", &patient, &patient, &person)
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (study, port) = (format!("StudyInstanceUID={}", uid("s")), scp.port());
    let mut arguments = vec![
        "-v",
        "-S",
        "-aet",
        "WORK",
        "-aec",
        "ICTUS",
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        &study,
    ];
    arguments.extend(["-od", folder.path().to_str().unwrap(), "127.0.0.1", &port]);
    let said = run("getscu", &arguments).await;
    assert!(said.success, "{}", said.text);
    let found = received(folder.path());
    assert_eq!(found.len(), 5, "{}", said.text);
    for object in &found {
        let name = |object: &InMemDicomObject| {
            object
                .element(tags::PATIENT_NAME)
                .unwrap()
                .to_str()
                .unwrap()
                .into_owned()
        };
        assert_eq!(name(object), "Corrected^Carla");
        let original = object
            .element(tags::ORIGINAL_ATTRIBUTES_SEQUENCE)
            .unwrap()
            .items()
            .unwrap();
        let modified = original[0]
            .element(tags::MODIFIED_ATTRIBUTES_SEQUENCE)
            .unwrap()
            .items()
            .unwrap();
        assert_eq!(name(&modified[0]), "Phantom^One");
        assert_eq!(pixels(object), [1024; 64]);
    }
}
