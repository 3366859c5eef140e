//! C-FIND: what a PACS or a workstation asks, in the words of dcmtk, pynetdicom and our own requestor.

use crate::{
    dimse_support::{Scp, call_as, peer, proposal, python, run, until},
    support::{Slice, World, part10, uid},
};
use dicom_core::{DataElement, Tag, VR, value::Value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ictus::{
    association::{
        Association, AssociationError, Context, Timeouts, Wire,
        command::{Command, element, field, status},
        requestor::{Peer, request},
        syntax,
    },
    dicom::identifier,
    scu::retrieve::{self, Found},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

/// Studies of three patients: two heads in one study, a name in two scripts, and one without anything special.
async fn world() -> World {
    let world = World::new().await;
    let mut files = Vec::new();
    for (series, count) in [("a", 3), ("b", 2)] {
        for number in 0..count {
            let mut object = Slice::new("one", series, number).object();
            object.put(DataElement::new(tags::BODY_PART_EXAMINED, VR::CS, "HEAD"));
            if series == "b" {
                object.put(DataElement::new(tags::MODALITY, VR::CS, "MR"));
                object.put(DataElement::new(tags::SERIES_NUMBER, VR::IS, "7"));
            }
            let code = InMemDicomObject::from_element_iter([
                DataElement::new(tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, "STEP1"),
                DataElement::new(tags::REQUESTED_PROCEDURE_ID, VR::SH, "P77"),
            ]);
            object.put(DataElement::new(
                tags::REQUEST_ATTRIBUTES_SEQUENCE,
                VR::SQ,
                Value::Sequence(vec![code].into()),
            ));
            files.push(part10(object));
        }
    }
    let mut two = Slice::new("two", "c", 1);
    two.patient_id = "P2".to_owned();
    let mut object = two.object();
    object.put(DataElement::new(
        tags::SPECIFIC_CHARACTER_SET,
        VR::CS,
        "ISO_IR 192",
    ));
    object.put(DataElement::new(
        tags::PATIENT_NAME,
        VR::PN,
        "Müller^Jörg=山田^太郎",
    ));
    object.put(DataElement::new(tags::STUDY_DATE, VR::DA, "20250615"));
    object.put(DataElement::new(tags::STUDY_TIME, VR::TM, "081530.5"));
    object.put(DataElement::new(tags::ACCESSION_NUMBER, VR::SH, "A_200"));
    object.put(DataElement::new(tags::PATIENT_BIRTH_DATE, VR::DA, "19701231"));
    files.push(part10(object));
    let mut three = Slice::new("three", "d", 1);
    three.patient_id = "P3".to_owned();
    three.patient_name = "phantom^two".to_owned();
    files.push(three.bytes());
    let outcome = world.send(files).await;
    assert_eq!(outcome.stored.len(), 7);
    world
}

fn keys(level: &str, wanted: &[(Tag, VR, &str)]) -> InMemDicomObject {
    let mut keys = InMemDicomObject::new_empty();
    keys.put(DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
    for (tag, vr, value) in wanted {
        keys.put(DataElement::new(*tag, *vr, *value));
    }
    keys
}

async fn ask_in(scp: &Scp, class: &str, transfer_syntax: &str, keys: InMemDicomObject) -> Found {
    let mut association = call_as(scp, "PACS", &[proposal(class, &[transfer_syntax])]).await;
    let context = association.contexts[0].clone();
    let found = retrieve::find(&mut association.link, &context, 3, keys, 1000)
        .await
        .unwrap();
    association.link.release().await.unwrap();
    found
}

async fn ask(scp: &Scp, keys: InMemDicomObject) -> Found {
    ask_in(scp, syntax::STUDY_ROOT_FIND, syntax::EXPLICIT, keys).await
}

fn text(answer: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = answer.get(tag)?.to_str().unwrap();
    Some(text.trim_matches([' ', '\0']).to_owned())
}

/// PatientIDs of the studies that match, or the status of the failure.
async fn patients(scp: &Scp, wanted: &[(Tag, VR, &str)]) -> Result<Vec<String>, u16> {
    let mut identifier = keys("STUDY", &[(tags::PATIENT_ID, VR::LO, "")]);
    for (tag, vr, value) in wanted {
        identifier.put(DataElement::new(*tag, *vr, *value));
    }
    let found = ask(scp, identifier).await;
    if found.status != status::SUCCESS {
        return Err(found.status);
    }
    let mut patients: Vec<String> = found
        .answers
        .iter()
        .filter_map(|answer| text(answer, tags::PATIENT_ID))
        .collect();
    patients.sort();
    Ok(patients)
}

#[tokio::test]
async fn each_kind_of_matching_finds_what_it_should() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let all = ["P1", "P2", "P3"];
    let (one, two, three) = (
        uid("one").to_string(),
        uid("two").to_string(),
        uid("three").to_string(),
    );
    let list = format!("{one}\\{three}");
    let none: [&str; 0] = [];
    for (tag, vr, value, expected) in [
        (tags::PATIENT_ID, VR::LO, "", &all[..]),
        (tags::PATIENT_ID, VR::LO, "*", &all),
        (tags::PATIENT_ID, VR::LO, "P?", &all),
        (tags::PATIENT_ID, VR::LO, "P2", &["P2"]),
        (tags::PATIENT_ID, VR::LO, "p2", &none),
        (tags::PATIENT_NAME, VR::PN, "PHANTOM^*", &["P1", "P3"]),
        (tags::PATIENT_NAME, VR::PN, "Phantom^One^^^", &["P1"]),
        (tags::STUDY_DATE, VR::DA, "20240131", &["P1", "P3"]),
        (tags::STUDY_DATE, VR::DA, "20240201-", &["P2"]),
        (tags::STUDY_DATE, VR::DA, "-20240201", &["P1", "P3"]),
        (tags::STUDY_DATE, VR::DA, "2025.06.01-2025.06.30", &["P2"]),
        (tags::STUDY_TIME, VR::TM, "0800-0900", &["P2"]),
        (tags::STUDY_TIME, VR::TM, "1015", &["P1", "P3"]),
        (tags::ACCESSION_NUMBER, VR::SH, "A_*", &["P2"]),
        (tags::STUDY_ID, VR::SH, "1", &all),
        (tags::STUDY_INSTANCE_UID, VR::UI, &two, &["P2"]),
        (tags::STUDY_INSTANCE_UID, VR::UI, &list, &["P1", "P3"]),
        (tags::MODALITIES_IN_STUDY, VR::CS, "MR", &["P1"]),
        (tags::MODALITIES_IN_STUDY, VR::CS, "MR\\XA", &["P1"]),
        (tags::PATIENT_BIRTH_DATE, VR::DA, "1970-1979", &["P2"]),
        (tags::PATIENT_SEX, VR::CS, "F", &none),
    ] {
        let found = patients(&scp, &[(tag, vr, value)]).await;
        let expected: Vec<String> = expected.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(found, Ok(expected), "{tag} {value}");
    }
    for (tag, vr, value) in [
        (tags::STUDY_INSTANCE_UID, VR::UI, "1.2.*"),
        (tags::STUDY_DATE, VR::DA, "last week"),
        (tags::QUERY_RETRIEVE_LEVEL, VR::CS, "WORLD"),
        (tags::QUERY_RETRIEVE_LEVEL, VR::CS, "PATIENT"),
    ] {
        assert_eq!(
            patients(&scp, &[(tag, vr, value)]).await,
            Err(status::IDENTIFIER_MISMATCH),
            "{value}"
        );
    }
}

#[tokio::test]
async fn answers_hold_each_key_and_say_where_the_images_are() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let one = uid("one").to_string();
    let study = keys(
        "STUDY",
        &[
            (tags::STUDY_INSTANCE_UID, VR::UI, &one),
            (tags::MODALITIES_IN_STUDY, VR::CS, ""),
            (tags::NUMBER_OF_STUDY_RELATED_SERIES, VR::IS, ""),
            (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, ""),
            (tags::STUDY_DESCRIPTION, VR::LO, ""),
            (tags::PATIENT_SEX, VR::CS, ""),
        ],
    );
    let found = ask(&scp, study).await;
    let answer = &found.answers[0];
    for (tag, expected) in [
        (tags::QUERY_RETRIEVE_LEVEL, "STUDY"),
        (tags::RETRIEVE_AE_TITLE, "ICTUS"),
        (tags::INSTANCE_AVAILABILITY, "ONLINE"),
        (tags::STUDY_INSTANCE_UID, one.as_str()),
        (tags::MODALITIES_IN_STUDY, "CT\\MR"),
        (tags::NUMBER_OF_STUDY_RELATED_SERIES, "2"),
        (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, "5"),
        (tags::STUDY_DESCRIPTION, ""),
        (tags::PATIENT_SEX, "O"),
    ] {
        assert_eq!(text(answer, tag).as_deref(), Some(expected), "{tag}");
    }
    assert!(answer.get(tags::SPECIFIC_CHARACTER_SET).is_none());

    let mut series = keys(
        "SERIES",
        &[
            (tags::STUDY_INSTANCE_UID, VR::UI, &one),
            (tags::SERIES_NUMBER, VR::IS, "7"),
            (tags::MODALITY, VR::CS, ""),
            (tags::BODY_PART_EXAMINED, VR::CS, "H*"),
            (tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, ""),
        ],
    );
    let nested =
        InMemDicomObject::from_element_iter([DataElement::new(tags::REQUESTED_PROCEDURE_ID, VR::SH, "")]);
    series.put(DataElement::new(
        tags::REQUEST_ATTRIBUTES_SEQUENCE,
        VR::SQ,
        Value::Sequence(vec![nested].into()),
    ));
    let found = ask(&scp, series).await;
    assert_eq!((found.status, found.answers.len()), (status::SUCCESS, 1));
    let answer = &found.answers[0];
    assert_eq!(text(answer, tags::MODALITY).as_deref(), Some("MR"));
    assert_eq!(
        text(answer, tags::NUMBER_OF_SERIES_RELATED_INSTANCES).as_deref(),
        Some("2")
    );
    let items = answer
        .get(tags::REQUEST_ATTRIBUTES_SEQUENCE)
        .unwrap()
        .items()
        .unwrap();
    assert_eq!(
        text(&items[0], tags::REQUESTED_PROCEDURE_ID).as_deref(),
        Some("P77")
    );
    assert!(items[0].get(tags::SCHEDULED_PROCEDURE_STEP_ID).is_none());

    let image = keys(
        "IMAGE",
        &[
            (tags::SERIES_INSTANCE_UID, VR::UI, uid("a").as_str()),
            (tags::INSTANCE_NUMBER, VR::IS, ""),
            (tags::SOP_INSTANCE_UID, VR::UI, ""),
            (tags::SOP_CLASS_UID, VR::UI, ""),
            (tags::ROWS, VR::US, ""),
            (tags::ANATOMIC_REGION_SEQUENCE, VR::SQ, ""),
        ],
    );
    for syntax in [syntax::EXPLICIT, syntax::IMPLICIT] {
        let found = ask_in(&scp, syntax::STUDY_ROOT_FIND, syntax, image.clone()).await;
        let numbers: Vec<_> = found
            .answers
            .iter()
            .filter_map(|answer| text(answer, tags::INSTANCE_NUMBER))
            .collect();
        assert_eq!(numbers, ["0", "1", "2"]);
        assert_eq!(
            found.answers[2].get(tags::ROWS).unwrap().to_int::<u16>().unwrap(),
            8
        );
    }
    let reads: Vec<_> = world.db.audit_rows(0, 100).await.unwrap();
    let read = reads.iter().find(|row| row.act == "read").unwrap();
    assert_eq!((read.principal.as_str(), &read.studies[..]), ("PACS", &[one][..]));
}

#[tokio::test]
async fn patient_root_counts_what_a_patient_has() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let patient = keys(
        "PATIENT",
        &[
            (tags::PATIENT_NAME, VR::PN, "phantom*"),
            (tags::PATIENT_ID, VR::LO, ""),
            (tags::NUMBER_OF_PATIENT_RELATED_STUDIES, VR::IS, ""),
            (tags::NUMBER_OF_PATIENT_RELATED_SERIES, VR::IS, ""),
            (tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, VR::IS, ""),
        ],
    );
    let found = ask_in(&scp, syntax::PATIENT_ROOT_FIND, syntax::EXPLICIT, patient).await;
    let said: Vec<_> = found
        .answers
        .iter()
        .map(|answer| {
            [
                tags::PATIENT_ID,
                tags::NUMBER_OF_PATIENT_RELATED_STUDIES,
                tags::NUMBER_OF_PATIENT_RELATED_SERIES,
                tags::NUMBER_OF_PATIENT_RELATED_INSTANCES,
            ]
            .map(|tag| text(answer, tag).unwrap())
            .join(" ")
        })
        .collect();
    // The latest first.
    assert_eq!(said, ["P3 1 1 1", "P1 1 2 5"]);
}

#[tokio::test]
async fn names_beyond_ascii_are_found_and_answered_whatever_the_query_is_written_in() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    for (charset, name) in [
        (&b"ISO_IR 100"[..], &b"m\xfcll*"[..]),
        (b"ISO_IR 192", "MÜLLER^*".as_bytes()),
        (b"ISO_IR 192", "山田*".as_bytes()),
        (b"\\ISO 2022 IR 87", b"=\x1b$B;3ED\x1b(B*"),
    ] {
        let mut dataset = Vec::new();
        for (tag, vr, value) in [
            (tags::SPECIFIC_CHARACTER_SET, b"CS", charset),
            (tags::QUERY_RETRIEVE_LEVEL, b"CS", b"STUDY"),
            (tags::PATIENT_NAME, b"PN", name),
            (tags::PATIENT_ID, b"LO", b""),
        ] {
            let mut value = value.to_vec();
            if value.len() % 2 == 1 {
                value.push(b' ');
            }
            dataset.extend_from_slice(&tag.group().to_le_bytes());
            dataset.extend_from_slice(&tag.element().to_le_bytes());
            dataset.extend_from_slice(vr);
            dataset.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
            dataset.extend_from_slice(&value);
        }
        let mut association = call_as(
            &scp,
            "PACS",
            &[proposal(syntax::STUDY_ROOT_FIND, &[syntax::EXPLICIT])],
        )
        .await;
        let answers = raw_answers(&mut association, &dataset).await;
        assert_eq!(answers.len(), 1, "{charset:?}");
        assert_eq!(
            text(&answers[0], tags::PATIENT_NAME).as_deref(),
            Some("Müller^Jörg=山田^太郎")
        );
        assert_eq!(
            text(&answers[0], tags::SPECIFIC_CHARACTER_SET).as_deref(),
            Some("ISO_IR 192")
        );
    }
}

fn find_command() -> Command {
    Command::new(field::C_FIND)
        .with_u16(element::MESSAGE_ID, 9)
        .with_u16(element::PRIORITY, 0)
        .with_uid(element::AFFECTED_SOP_CLASS_UID, syntax::STUDY_ROOT_FIND)
}

async fn raw_answers(association: &mut Association<Wire>, dataset: &[u8]) -> Vec<InMemDicomObject> {
    let id = association.contexts[0].id;
    association
        .link
        .send(id, &find_command(), Some(dataset))
        .await
        .unwrap();
    let mut answers = Vec::new();
    loop {
        let response = association.link.next().await.unwrap().unwrap().command;
        if !retrieve::is_pending(response.status()) {
            assert_eq!(response.status(), status::SUCCESS);
            return answers;
        }
        let bytes = association.link.whole_dataset(1 << 20).await.unwrap();
        answers.push(identifier::read(&bytes, syntax::EXPLICIT).unwrap());
    }
}

#[tokio::test]
async fn dcmtk_and_pynetdicom_ask_at_every_level() {
    let world = world().await;
    let scp = Scp::new(&world, |_| ()).await;
    let one = uid("one").to_string();
    for (level, keys, count) in [
        (
            "STUDY",
            vec!["PatientName=*", "StudyInstanceUID", "ModalitiesInStudy"],
            3,
        ),
        (
            "SERIES",
            vec![
                &*format!("StudyInstanceUID={one}"),
                "SeriesInstanceUID",
                "Modality",
            ],
            2,
        ),
        (
            "IMAGE",
            vec![
                &*format!("StudyInstanceUID={one}"),
                &*format!("SeriesInstanceUID={}", uid("a")),
                "SOPInstanceUID",
            ],
            3,
        ),
    ] {
        let level = format!("QueryRetrieveLevel={level}");
        let port = scp.port();
        let mut arguments = vec!["-v", "-S", "-aec", "ICTUS", "-k", &level];
        for key in &keys {
            arguments.extend(["-k", *key]);
        }
        arguments.extend(["127.0.0.1", &port]);
        let said = run("findscu", &arguments).await;
        assert!(said.success, "{}", said.text);
        assert_eq!(
            said.text.matches("Find Response: ").count(),
            count,
            "{}",
            said.text
        );
        let mut arguments = vec![
            "-m",
            "pynetdicom",
            "findscu",
            "127.0.0.1",
            &port,
            "-S",
            "-aec",
            "ICTUS",
        ];
        for key in [level.as_str()].into_iter().chain(keys.iter().copied()) {
            arguments.extend(["-k", key]);
        }
        let said = run(&python(), &arguments).await;
        assert!(said.success, "{}", said.text);
        assert_eq!(said.text.matches("Pending").count(), count, "{}", said.text);
    }
    let port = scp.port();
    let odd = run(
        "findscu",
        &[
            "-v",
            "-S",
            "-aec",
            "ICTUS",
            "-k",
            "QueryRetrieveLevel=STUDY",
            "-k",
            "Modality=CT",
            "127.0.0.1",
            &port,
        ],
    )
    .await;
    assert_eq!(
        odd.text.matches("0xff01").count() + odd.text.matches("Pending: Warning").count(),
        3,
        "{}",
        odd.text
    );
}

#[tokio::test]
async fn a_cancelled_query_ends_and_the_association_goes_on() {
    let world = World::new().await;
    world
        .send((0..400).map(|n| Slice::new("many", "m", n).bytes()).collect())
        .await;
    let scp = Scp::new(&world, |_| ()).await;
    let mut association = call_as(
        &scp,
        "PACS",
        &[proposal(syntax::STUDY_ROOT_FIND, &[syntax::EXPLICIT])],
    )
    .await;
    let context: Context = association.contexts[0].clone();
    let everything = keys("IMAGE", &[(tags::SOP_INSTANCE_UID, VR::UI, "")]);
    let link = &mut association.link;
    let all = retrieve::find(link, &context, 1, everything.clone(), 1000)
        .await
        .unwrap();
    // More than a page.
    assert_eq!((all.answers.len(), all.status), (400, status::SUCCESS));
    let bytes = identifier::write(everything, syntax::EXPLICIT).unwrap();
    link.send(context.id, &find_command(), Some(&bytes))
        .await
        .unwrap();
    retrieve::cancel(link, &context, 9).await.unwrap();
    let mut count = 0;
    let last = loop {
        let response = link.next().await.unwrap().unwrap().command;
        if !retrieve::is_pending(response.status()) {
            break response.status();
        }
        count += 1;
        link.drain().await.unwrap();
    };
    assert_eq!(last, status::CANCEL);
    assert!(count < 400, "{count}");
    let one = keys("STUDY", &[(tags::STUDY_INSTANCE_UID, VR::UI, "")]);
    let again = retrieve::find(link, &context, 2, one, 1000).await.unwrap();
    assert_eq!((again.answers.len(), again.status), (1, status::SUCCESS));
    association.link.release().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_is_cut_off_and_holds_up_nobody() {
    let world = World::new().await;
    let files = (0..300).map(|number| {
        let mut object = Slice::new("many", "m", number).object();
        let comment = "x".repeat(10_000);
        object.put(DataElement::new(tags::IMAGE_COMMENTS, VR::LT, comment));
        part10(object)
    });
    world.send(files.collect()).await;
    let scp = Scp::new(&world, |settings| {
        settings.timeouts.write = Duration::from_millis(500);
        settings.associations = 2;
    })
    .await;
    let proposals = [proposal(syntax::STUDY_ROOT_FIND, &[syntax::EXPLICIT])];
    let mut slow = request(&stalling(&scp).await, "SLOW", &proposals, Timeouts::default())
        .await
        .unwrap();
    let everything = keys("IMAGE", &[(tags::IMAGE_COMMENTS, VR::LT, "")]);
    let bytes = identifier::write(everything, syntax::EXPLICIT).unwrap();
    let id = slow.contexts[0].id;
    slow.link.send(id, &find_command(), Some(&bytes)).await.unwrap();
    // The place of its host is taken until it is cut off, and then it is free again.
    until("the silent peer's place is free", async || {
        match request(&scp.peer(), "NEXT", &proposals, Timeouts::default()).await {
            Ok(association) => association.link.release().await.is_ok(),
            Err(AssociationError::Rejected(_)) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    drop(slow);
}

/// A way to a listener that lets its answers come in drops after the association has come about.
async fn stalling(scp: &Scp) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (way, behind) = (listener.local_addr().unwrap(), scp.address);
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut far = socket.connect(behind).await.unwrap();
        let (mut from_near, mut to_near) = near.split();
        let (mut from_far, mut to_far) = far.split();
        let there = tokio::io::copy(&mut from_near, &mut to_far);
        let back = async {
            let mut first = [0; 1000];
            let count = from_far.read(&mut first).await.unwrap();
            to_near.write_all(&first[..count]).await.unwrap();
            let mut drop = [0];
            while from_far.read(&mut drop).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = there => {}
            () = back => {}
        }
    });
    peer("ICTUS", way)
}
