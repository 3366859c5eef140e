//! What comes over associations: stored as sent, acknowledged when committed, and nobody holds anybody up.

use crate::{
    dimse_support::{
        CT, Scp, call, call_as, exchange, folder_of, proposal, python, run, store, store_command, until, url,
    },
    support::{Slice, World, part10, uid},
};
use dicom_core::{DataElement, PrimitiveValue, VR, value::PixelFragmentSequence};
use dicom_dictionary_std::{tags, uids};
use dicom_object::FileMetaTableBuilder;
use dicom_ul::pdu::{Pdu, UserVariableItem, read_pdu, write_pdu};
use ictus::{
    association::{
        AssociationError, Timeouts,
        command::{Command, element, field, status},
        requestor::request,
        syntax,
    },
    dicom::part10 as file,
};
use serde_json::Value;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const INSTANCES: &str = "SELECT count(*) FROM instance";
const STAGED_LONG: Duration = Duration::from_secs(5);

/// The rows of the trail by act.
async fn trail(world: &World, act: &str) -> Vec<(String, Value)> {
    let rows = world.db.audit_rows(0, 1000).await.unwrap();
    rows.into_iter()
        .filter(|row| row.act == act)
        .map(|row| (row.principal, serde_json::from_str(&row.detail).unwrap()))
        .collect()
}

async fn trail_of(world: &World, act: &str, count: usize) -> Vec<(String, Value)> {
    until("the trail has its rows", async || {
        trail(world, act).await.len() == count
    })
    .await;
    trail(world, act).await
}

#[tokio::test]
async fn dcmtk_sends_a_head_and_it_is_one_row_of_the_trail_and_a_job_at_once() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let echo = run("echoscu", &["-aec", "ICTUS", "127.0.0.1", &scp.port()]).await;
    assert!(echo.success, "{}", echo.text);
    let folder = folder_of(&Slice::head("s", "a"));
    let path = folder.path().to_str().unwrap();
    let sent = run(
        "storescu",
        &[
            "-v",
            "-aet",
            "CT1",
            "-aec",
            "ICTUS",
            "+sd",
            "127.0.0.1",
            &scp.port(),
            path,
        ],
    )
    .await;
    assert!(sent.success, "{}", sent.text);
    assert_eq!(sent.text.matches("Received Store Response (Success)").count(), 30);
    let rows = trail_of(&world, "store", 1).await;
    let (principal, detail) = &rows[0];
    assert_eq!(principal, "CT1");
    assert_eq!(detail["association"]["called"], "ICTUS");
    assert_eq!(detail["association"]["ended"], "released");
    assert_eq!(detail["series"][0]["instances"].as_array().unwrap().len(), 30);
    let due = "SELECT count(*) FROM graphile_worker._private_jobs WHERE run_at <= now()";
    assert_eq!(world.count(due).await, 1);
}

#[tokio::test]
async fn pynetdicom_sends_in_what_it_likes_best() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let folder = folder_of(&[Slice::new("s", "a", 1).bytes(), Slice::new("s", "a", 2).bytes()]);
    let arguments = [
        "-m",
        "pynetdicom",
        "storescu",
        "127.0.0.1",
        &scp.port(),
        folder.path().to_str().unwrap(),
        "-aec",
        "ICTUS",
        "-r",
    ];
    let sent = run(&python(), &arguments).await;
    assert!(sent.success, "{}", sent.text);
    assert_eq!(world.count(INSTANCES).await, 2);
    let echo = run(
        &python(),
        &[
            "-m",
            "pynetdicom",
            "echoscu",
            "127.0.0.1",
            &scp.port(),
            "-aec",
            "ICTUS",
        ],
    )
    .await;
    assert!(echo.success, "{}", echo.text);
}

#[tokio::test]
async fn an_association_that_is_aborted_waits_for_the_quiet_time() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut association = call(&scp).await;
    for slice in Slice::head("s", "a") {
        assert_eq!(store(&mut association, &slice).await.status(), status::SUCCESS);
    }
    association.link.abort(None).await;
    let rows = trail_of(&world, "store", 1).await;
    assert_eq!(rows[0].1["association"]["ended"], "aborted");
    let due = "SELECT count(*) FROM graphile_worker._private_jobs WHERE run_at <= now()";
    assert_eq!(world.count(due).await, 0);
    assert_eq!(
        world
            .count("SELECT count(*) FROM graphile_worker._private_jobs")
            .await,
        1
    );
}

#[tokio::test]
async fn every_status_of_the_table_is_given_and_the_association_goes_on() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut association = call(&scp).await;
    let slice = Slice::new("s", "a", 1);
    let dataset = |file: &[u8]| file::dataset(file).unwrap().to_vec();

    assert_eq!(
        store(&mut association, &slice.bytes()).await.status(),
        status::SUCCESS
    );
    assert_eq!(
        store(&mut association, &slice.bytes()).await.status(),
        status::SUCCESS
    );
    let mut attributes = slice.clone();
    attributes.series_description = "Head, edited".to_owned();
    assert_eq!(
        store(&mut association, &attributes.bytes()).await.status(),
        0xB000
    );
    let mut pixels = slice.clone();
    pixels.pixel = 7;
    let refused = store(&mut association, &pixels.bytes()).await;
    assert_eq!(refused.status(), 0x0111);
    assert!(
        refused
            .text(element::ERROR_COMMENT)
            .unwrap()
            .contains("other pixels")
    );
    let mut stranger = Slice::new("s", "a", 2);
    stranger.patient_id = "P2".to_owned();
    assert_eq!(store(&mut association, &stranger.bytes()).await.status(), 0xB007);

    let good = dataset(&Slice::new("s", "a", 3).bytes());
    let command = store_command(CT, uid("another").as_str());
    let other_instance = exchange(&mut association, &command, Some(&good)).await;
    assert_eq!(other_instance.status(), 0xA900);
    let mut nameless = Slice::new("s", "a", 4).object();
    nameless.remove_element(tags::SERIES_INSTANCE_UID);
    assert_eq!(store(&mut association, &part10(nameless)).await.status(), 0xA900);
    let command = store_command(uids::MR_IMAGE_STORAGE, slice.sop.as_str());
    let other_class = exchange(&mut association, &command, Some(&good)).await;
    assert_eq!(other_class.status(), 0x0122);
    let command = store_command(CT, "not a uid");
    assert_eq!(
        exchange(&mut association, &command, Some(&good)).await.status(),
        0x0117
    );
    let command = store_command(CT, slice.sop.as_str());
    assert_eq!(exchange(&mut association, &command, None).await.status(), 0xC000);
    let noise: Vec<u8> = (0..5000u32).map(|n| (n * 7919 % 251) as u8).collect();
    assert_eq!(
        exchange(&mut association, &command, Some(&noise)).await.status(),
        0xC000
    );
    let cut = &good[..good.len() - 60];
    let command = store_command(CT, uid("a/3").as_str());
    assert_eq!(
        exchange(&mut association, &command, Some(cut)).await.status(),
        0xC000
    );
    let strange = Command::new(0x0140).with_u16(element::MESSAGE_ID, 5);
    let strange = exchange(&mut association, &strange, None).await;
    assert_eq!((strange.field(), strange.status()), (0x8140, 0x0211));

    // After all that the association still works.
    let last = Slice::new("s", "b", 9).bytes();
    assert_eq!(store(&mut association, &last).await.status(), status::SUCCESS);
    association.link.release().await.unwrap();
    let stored = trail_of(&world, "store", 1).await;
    let became: Vec<_> = stored[0].1["series"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|series| series["instances"].as_array().unwrap())
        .map(|instance| instance["became"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(became, ["new", "duplicate", "pending", "new", "new"]);
    let refused = trail_of(&world, "refuse", 1).await;
    let reasons: Vec<_> = refused[0].1["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| failed["failure_reason"].as_str().unwrap().to_owned())
        .collect();
    let expected = ["0111", "A900", "A900", "0122", "0117", "C000", "C000", "C000"];
    assert_eq!(reasons, expected);
    assert_eq!(trail(&world, "quarantine").await.len(), 1);
}

#[tokio::test]
async fn an_archive_that_cannot_write_is_out_of_resources_and_the_next_instance_may_fit() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut association = call(&scp).await;
    let slice = Slice::new("s", "a", 1).bytes();
    let staging = world.folder.path().join("staging");
    let _ = std::fs::remove_dir_all(&staging);
    std::fs::write(&staging, b"a file where the folder should be").unwrap();
    let refused = store(&mut association, &slice).await;
    assert_eq!(refused.status(), status::OUT_OF_RESOURCES);
    assert_eq!(world.count(INSTANCES).await, 0);
    std::fs::remove_file(&staging).unwrap();
    assert_eq!(store(&mut association, &slice).await.status(), status::SUCCESS);
}

#[tokio::test]
async fn what_is_sent_is_stored_bit_for_bit_in_its_transfer_syntax_and_character_set() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    // ISO 2022 Japanese, as PS3.5 annex H writes it; dicom-rs would not write it back.
    let name = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B";
    let mut japanese = b"\x10\x00\x10\x00PN".to_vec();
    japanese.extend(
        u16::try_from(name.len().next_multiple_of(2))
            .unwrap()
            .to_le_bytes(),
    );
    japanese.extend(name);
    japanese.resize(8 + name.len().next_multiple_of(2), b' ');
    let mut object = Slice::new("s", "a", 1).object();
    object.put(DataElement::new(
        tags::SPECIFIC_CHARACTER_SET,
        VR::CS,
        PrimitiveValue::from("\\ISO 2022 IR 87"),
    ));
    let mut bytes = part10(object);
    let name = b"\x10\x00\x10\x00PN\x0c\x00Phantom^One ";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes.splice(at..at + name.len(), japanese);
    let mut association = call(&scp).await;
    assert_eq!(store(&mut association, &bytes).await.status(), status::SUCCESS);
    association.link.release().await.unwrap();

    // A transfer syntax that nobody here decodes, of a class that is not an image.
    let video = "1.2.840.10008.1.2.4.102";
    let mut object = Slice::new("s", "v", 2).object();
    object.put(DataElement::new(
        tags::SOP_CLASS_UID,
        VR::UI,
        "1.2.840.10008.5.1.4.1.1.77.1.4.1",
    ));
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PixelFragmentSequence::new(vec![0u32], vec![vec![1u8, 2, 3, 4]]),
    ));
    let meta = FileMetaTableBuilder::new().transfer_syntax(video);
    let mut compressed = Vec::new();
    object
        .with_meta(meta)
        .unwrap()
        .write_all(&mut compressed)
        .unwrap();
    let class = "1.2.840.10008.5.1.4.1.1.77.1.4.1";
    let mut association = call_as(&scp, "CT1", &[proposal(class, &[video])]).await;
    assert_eq!(
        store(&mut association, &compressed).await.status(),
        status::SUCCESS
    );
    association.link.release().await.unwrap();

    let found = world.db.find_instances(&Default::default()).await.unwrap();
    for (row, sent) in found.iter().zip([&bytes, &compressed]) {
        let kept = world.archive.read(&row.archive_key).await.unwrap();
        assert_eq!(file::dataset(&kept).unwrap(), file::dataset(sent).unwrap());
    }
    assert_eq!(found[1].transfer_syntax_uid, video);
    let name = &found[0].metadata.get("00100010").unwrap()["Value"][0];
    assert_eq!(name["Ideographic"], "山田^太郎");
}

#[tokio::test]
async fn an_abort_inside_a_dataset_leaves_nothing_half_stored() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let slice = Slice::new("s", "a", 1);
    let bytes = slice.bytes();
    let dataset = file::dataset(&bytes).unwrap();
    for abort in [true, false] {
        let mut stream = TcpStream::connect(scp.address).await.unwrap();
        associate(&mut stream, &[]).await;
        let command = store_command(CT, slice.sop.as_str()).with_dataset().encode();
        stream.write_all(&data(1, 3, &command)).await.unwrap();
        stream.write_all(&data(1, 0, &dataset[..200])).await.unwrap();
        if abort {
            stream.write_all(&[7, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
            let mut rest = Vec::new();
            // Reading to the end waits until the other side is done with it.
            let _ = stream.read_to_end(&mut rest).await;
        }
        drop(stream);
    }
    let staging = world.folder.path().join("staging");
    until("nothing is staged", async || {
        std::fs::read_dir(&staging).map_or(0, Iterator::count) == 0
    })
    .await;
    assert_eq!(world.count(INSTANCES).await, 0);
    assert!(trail(&world, "store").await.is_empty());
    assert_eq!(
        store(&mut call(&scp).await, &bytes).await.status(),
        status::SUCCESS
    );
}

/// A P-DATA-TF with one fragment.
fn data(context: u8, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let mut pdu = vec![4, 0];
    pdu.extend((length + 6).to_be_bytes());
    pdu.extend((length + 2).to_be_bytes());
    pdu.extend([context, flags]);
    pdu.extend(bytes);
    pdu
}

/// Asks for CT on a raw connection; the answer.
async fn associate(stream: &mut TcpStream, variables: &[UserVariableItem]) -> Pdu {
    let mut user_variables = vec![UserVariableItem::MaxLength(16384)];
    user_variables.extend_from_slice(variables);
    let request = Pdu::AssociationRQ(dicom_ul::pdu::AssociationRQ {
        protocol_version: 1,
        calling_ae_title: "CT1".to_owned(),
        called_ae_title: "ICTUS".to_owned(),
        application_context_name: "1.2.840.10008.3.1.1.1".to_owned(),
        presentation_contexts: vec![dicom_ul::pdu::PresentationContextProposed {
            id: 1,
            abstract_syntax: CT.to_owned(),
            transfer_syntaxes: vec![syntax::EXPLICIT.to_owned()],
        }],
        user_variables,
    });
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, &request).unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut head = [0; 6];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes(head[2..].try_into().unwrap());
    let mut answer = head.to_vec();
    answer.resize(6 + length as usize, 0);
    stream.read_exact(&mut answer[6..]).await.unwrap();
    read_pdu(answer.as_slice(), 1 << 17, false).unwrap().unwrap()
}

/// What comes back until the connection ends.
async fn answer_to(scp: &Scp, bytes: &[u8], first: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(scp.address).await.unwrap();
    if !first {
        associate(&mut stream, &[]).await;
    }
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(STAGED_LONG * 4, stream.read_to_end(&mut answer))
        .await
        .expect("it ends the connection")
        .unwrap();
    answer
}

#[tokio::test]
async fn garbage_and_lies_are_answered_with_an_abort() {
    let world = World::new().await;
    let quick = Timeouts {
        establish: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        pdu: Duration::from_secs(2),
        write: Duration::from_secs(2),
        ..Timeouts::default()
    };
    let scp = Scp::new(&world, |settings| settings.timeouts = quick).await;
    let broken_command = data(1, 3, b"\x00\x00\x00\x01\xff\xff\xff\xff\x01\x00");
    let unknown_context = data(99, 3, &Command::new(field::C_ECHO).encode());
    let long_command = {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.extend(data(1, 1, &vec![0; 40_000]));
        }
        all
    };
    let dataset_first = data(1, 2, b"no command came before");
    let mut inner_length = data(1, 3, &Command::new(field::C_ECHO).encode());
    inner_length[9] = 0xFF;
    let cases: [(&str, &[u8], bool); 14] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
        ("a PDU of 4 GiB", &[4, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1], true),
        ("a request of 2 GiB", &[1, 0, 0x7F, 0xFF, 0xFF, 0xFF], true),
        ("data before an association", &unknown_context, true),
        (
            "a release before an association",
            &[5, 0, 0, 0, 0, 4, 0, 0, 0, 0],
            true,
        ),
        ("a request that stalls", &[1, 0, 0, 0, 1, 0, 0, 1], true),
        ("silence", &[], true),
        ("a second request", &[1, 0, 0, 0, 0, 70, 0, 1], false),
        ("a PDU of 4 GiB inside", &[4, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1], false),
        ("a broken command", &broken_command, false),
        ("a context that was not accepted", &unknown_context, false),
        ("a command without end", &long_command, false),
        ("a dataset without a command", &dataset_first, false),
        ("a fragment longer than its PDU", &inner_length, false),
    ];
    for (what, bytes, first) in cases {
        let answer = answer_to(&scp, bytes, first).await;
        assert_eq!(answer.first(), Some(&7), "{what}: {answer:?}");
        assert_eq!(answer.len(), 10, "{what}");
    }
    // Whatever they tried, the listener is there.
    let slice = Slice::new("s", "a", 1).bytes();
    assert_eq!(
        store(&mut call(&scp).await, &slice).await.status(),
        status::SUCCESS
    );
    scp.stop().await;
}

#[tokio::test]
async fn callers_and_titles_that_are_not_on_the_list_are_rejected_and_in_the_trail_once() {
    let world = World::new().await;
    let scp = Scp::new(&world, |settings| {
        settings.allowed = vec!["CT1".parse().unwrap(), "PACS@10.9.9.9".parse().unwrap()];
    })
    .await;
    let wanted = [proposal(syntax::VERIFICATION, &[syntax::IMPLICIT])];
    for calling in ["STRANGER", "STRANGER", "PACS"] {
        let error = request(&scp.peer(), calling, &wanted, Timeouts::default())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, AssociationError::Rejected(why) if why.contains("calling AE title")),
            "{error}"
        );
    }
    let mut wrong = scp.peer();
    wrong.title = "OTHER".to_owned();
    let error = request(&wrong, "CT1", &wanted, Timeouts::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, AssociationError::Rejected(why) if why.contains("called AE title")),
        "{error}"
    );
    let mut association = call_as(&scp, "CT1", &wanted).await;
    let echo = Command::new(field::C_ECHO)
        .with_u16(element::MESSAGE_ID, 1)
        .with_uid(element::AFFECTED_SOP_CLASS_UID, syntax::VERIFICATION);
    assert_eq!(
        exchange(&mut association, &echo, None).await.status(),
        status::SUCCESS
    );
    let rows = trail_of(&world, "refuse", 3).await;
    let mut who: Vec<_> = rows.iter().map(|row| row.0.as_str()).collect();
    who.sort_unstable();
    assert_eq!(who, ["CT1", "PACS", "STRANGER"]);
}

#[tokio::test]
async fn many_and_stalling_associations_hold_nobody_up() {
    let world = World::new().await;
    let scp = Scp::new(&world, |settings| settings.associations = 8).await;
    // Three stall inside a dataset, and one host gets four places.
    let mut stalled = Vec::new();
    for number in 0..3 {
        let mut stream = TcpStream::connect(scp.address).await.unwrap();
        associate(&mut stream, &[]).await;
        let command = store_command(CT, uid(&format!("stalled {number}")).as_str())
            .with_dataset()
            .encode();
        stream.write_all(&data(1, 3, &command)).await.unwrap();
        stream.write_all(&data(1, 0, &[8, 0])).await.unwrap();
        stalled.push(stream);
    }
    let mut working = call(&scp).await;
    for number in 0..5 {
        let slice = Slice::new("s", "a", number).bytes();
        assert_eq!(store(&mut working, &slice).await.status(), status::SUCCESS);
    }
    let wanted = [proposal(CT, &[syntax::EXPLICIT])];
    let error = request(&scp.peer(), "CT2", &wanted, Timeouts::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, AssociationError::Rejected(why) if why.contains("local limit") && why.contains("for now")),
        "{error}"
    );
    // A flood beyond that is closed, and the working one does not notice.
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(TcpStream::connect(scp.address).await.unwrap());
    }
    let slice = Slice::new("s", "a", 9).bytes();
    assert_eq!(store(&mut working, &slice).await.status(), status::SUCCESS);
    drop((flood, stalled));
    until("places are free again", async || {
        request(&scp.peer(), "CT2", &wanted, Timeouts::default())
            .await
            .is_ok()
    })
    .await;
    working.link.release().await.unwrap();
}

#[tokio::test]
async fn one_operation_at_a_time_and_storage_in_both_roles() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut stream = TcpStream::connect(scp.address).await.unwrap();
    let both = dicom_ul::pdu::RequestorRoles { scu: true, scp: true };
    let wanted = [
        // Asynchronous Operations Window: any number each way (PS3.7 D.3.3.3).
        UserVariableItem::Unknown(0x53, vec![0, 0, 0, 0]),
        UserVariableItem::ScuScpRoleSelectionSubItem(CT.to_owned(), both),
        UserVariableItem::ScuScpRoleSelectionSubItem(syntax::VERIFICATION.to_owned(), both),
    ];
    let Pdu::AssociationAC(accepted) = associate(&mut stream, &wanted).await else {
        panic!("not accepted")
    };
    let answers = accepted.user_variables;
    assert!(
        !answers
            .iter()
            .any(|a| matches!(a, UserVariableItem::Unknown(0x53, _)))
    );
    let roles: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            UserVariableItem::ScuScpRoleSelectionSubItem(class, roles) => Some((class.as_str(), roles.scp)),
            _ => None,
        })
        .collect();
    assert_eq!(roles, [(CT, true), (syntax::VERIFICATION, false)]);
}

#[tokio::test]
async fn stopping_ends_idle_associations_and_keeps_what_was_stored() {
    let world = World::new().await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut association = call(&scp).await;
    let slice = Slice::new("s", "a", 1).bytes();
    assert_eq!(store(&mut association, &slice).await.status(), status::SUCCESS);
    scp.stop().await;
    assert!(matches!(
        association.link.next().await,
        Err(AssociationError::Aborted)
    ));
    let rows = trail(&world, "store").await;
    assert_eq!(rows[0].1["association"]["ended"], "stopped");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_server_was_killed() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let mut server = tokio::process::Command::new(crate::support::ictus())
        .args([
            "serve",
            "--no-worker",
            "--listen",
            "127.0.0.1:0",
            "--dimse",
            "127.0.0.1:0",
        ])
        .args(["--data", folder.path().to_str().unwrap()])
        .env("DATABASE_URL", url(&world))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("the server starts");
        if let Some(address) = line.strip_prefix("ictus listens on dicom://ICTUS@") {
            break address.parse().unwrap();
        }
    };
    let peer = crate::dimse_support::peer("ICTUS", address);
    let wanted = [proposal(CT, &[syntax::EXPLICIT])];
    let mut association = request(&peer, "CT1", &wanted, Timeouts::default()).await.unwrap();
    let mut acknowledged = Vec::new();
    for number in 0..12 {
        let slice = Slice::new("s", "a", number);
        assert_eq!(
            store(&mut association, &slice.bytes()).await.status(),
            status::SUCCESS
        );
        acknowledged.push(slice);
    }
    server.kill().await.unwrap();

    let archive = ictus::archive::Archive::open(&folder.path().join("archive")).unwrap();
    let found = world.db.find_instances(&Default::default()).await.unwrap();
    assert_eq!(found.len(), acknowledged.len());
    for (row, slice) in found.iter().zip(&acknowledged) {
        let kept = archive.read(&row.archive_key).await.unwrap();
        assert_eq!(
            file::dataset(&kept).unwrap(),
            file::dataset(&slice.bytes()).unwrap()
        );
    }
    assert!(trail(&world, "store").await.is_empty());
    assert_eq!(world.receiver.audit_associations(true).await.unwrap(), 1);
    let rows = trail(&world, "store").await;
    assert_eq!(rows[0].0, "CT1");
    assert_eq!(rows[0].1["association"]["ended"], "interrupted");
    assert_eq!(rows[0].1["series"][0]["instances"].as_array().unwrap().len(), 12);
    assert_eq!(world.receiver.audit_associations(true).await.unwrap(), 0);
}
