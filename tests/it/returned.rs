//! Masks that another tool sends back: what is understood becomes a reader's correction, what is not is refused in words.

use crate::{
    correction::Room,
    deliver_support::{Delivering, until_delivery},
    dimse_support::{python, run},
    support::Slice,
};
use serde_json::{Value, json};

/// Draws on the images of the room's study and gives the file back.
async fn draw(form: &str, code: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..30 {
        let slice = Room::slice(number);
        std::fs::write(folder.path().join(format!("{number}.dcm")), slice.bytes()).unwrap();
    }
    let out = folder.path().join("mask.seg");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/edit_mask.py");
    let arguments = [
        "-W",
        "ignore",
        script,
        folder.path().to_str().unwrap(),
        out.to_str().unwrap(),
        form,
        code,
    ];
    let made = run(&python(), &arguments).await;
    assert!(made.success, "{}", made.text);
    std::fs::read(out).unwrap()
}

/// Sends a mask and has it read.
async fn send_back(room: &Room, mask: Vec<u8>) {
    let outcome = room.server.world.send(vec![mask]).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let world = &room.server.world;
    let read = ictus::review::returned::once(&world.db, &world.archive).await;
    assert!(read.unwrap());
    assert!(
        !ictus::review::returned::once(&world.db, &world.archive)
            .await
            .unwrap()
    );
}

async fn trail(room: &Room, act: &str) -> Vec<Value> {
    crate::deliver_support::trail(&room.server.world, act).await
}

#[tokio::test]
async fn masks_of_another_tool_become_corrections_by_their_reader() {
    let room = Room::open(Some(3.0)).await;
    let folder = tempfile::tempdir().unwrap();
    let target = json!({ "name": "drop", "kind": "folder", "path": folder.path(), "send": ["corrections"] });
    let _delivering = Delivering::start(&room.server.world, json!([target])).await;
    for form in ["binary", "labelmap"] {
        send_back(&room, draw(form, "50960005").await).await;
        assert_eq!(trail(&room, "refuse_mask").await, Vec::<Value>::new());
        let list = room.list().await;
        let row = list.as_array().unwrap().last().unwrap().clone();
        assert_eq!(
            (&row["kind"], &row["reader"], &row["edited"], &row["reader_name"]),
            (
                &json!("haemorrhage"),
                &json!("Else Where"),
                &json!(false),
                &Value::Null
            )
        );
        let volumes: Vec<f64> = row["regions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|region| region["volume_ml"].as_f64().unwrap())
            .collect();
        // Twelve pixels and one of 1 mm² × 5 mm.
        assert_eq!(volumes.len(), 2, "{form}");
        assert!(
            (volumes[0] - 0.06).abs() < 1e-9 && (volumes[1] - 0.005).abs() < 1e-9,
            "{volumes:?}"
        );
    }
    assert_eq!(
        room.server
            .world
            .count("SELECT count(*) FROM series WHERE origin = 'reader' AND modality = 'SEG'")
            .await,
        2
    );
    let rows = trail(&room, "correct").await;
    assert_eq!((rows.len(), &rows[0]["returned"]), (2, &json!(true)));
    // Nothing is analysed because of it, and the targets get it as it was sent.
    assert_eq!(room.server.world.count("SELECT count(*) FROM analysis").await, 1);
    until_delivery(&room.server.world, "s", "delivered").await;
    room.close().await;
}

#[tokio::test]
async fn what_is_not_understood_is_refused_once_with_the_reason() {
    let room = Room::open(Some(3.0)).await;
    for (form, code, words) in [
        ("fractional", "50960005", "FRACTIONAL"),
        ("binary", "10200004", "coded 10200004 (SCT)"),
        ("turned", "50960005", "oriented otherwise"),
        ("moved", "50960005", "mm, where there is no image"),
    ] {
        send_back(&room, draw(form, code).await).await;
        let refused = trail(&room, "refuse_mask").await;
        let said = refused.last().unwrap()["text"].as_str().unwrap().to_owned();
        assert!(said.contains(words), "{form}: {said}");
    }
    assert_eq!(room.list().await, json!([]));
    assert_eq!(trail(&room, "refuse_mask").await.len(), 4);
    room.close().await;
}

#[tokio::test]
async fn a_mask_on_images_that_nobody_analysed_is_refused() {
    let room = Room::open(Some(3.0)).await;
    let mask = draw("binary", "50960005").await;
    let mut object = dicom_object::from_reader(&mask[..]).unwrap();
    let other = Slice::new("another study", "b", 0);
    object.put(dicom_core::DataElement::new(
        dicom_dictionary_std::tags::STUDY_INSTANCE_UID,
        dicom_core::VR::UI,
        other.study.as_str(),
    ));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    send_back(&room, bytes).await;
    let refused = trail(&room, "refuse_mask").await;
    assert!(
        refused[0]["text"]
            .as_str()
            .unwrap()
            .contains("was not analysed yet")
    );
    room.close().await;
}
