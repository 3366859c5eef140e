//! Masks that readers draw: where they lie, what is measured, and what stays of them.

use crate::{
    queue::{Fake, Running, report, until_no_job, until_state},
    review::{add, cookie, from_page},
    support::{Slice, uid},
    web::{Answer, Server},
};
use axum::http::{Method, StatusCode};
use dicom_dictionary_std::tags;
use ictus::{
    audit,
    domain::finding::{Report, SeriesChoice},
    review::account::AccountRole,
};
use serde_json::{Value, json};

/// A report that chose the series.
fn chosen(series: &str, volume_ml: Option<f64>) -> Report {
    let series = SeriesChoice {
        uid: uid(series),
        origin: "received".to_owned(),
        chosen: true,
        reason: "the only one".to_owned(),
    };
    Report {
        series: vec![series],
        ..report(volume_ml)
    }
}

/// A server with one study `s` of 30 slices of 8 × 8 pixels of 1 mm, 5 mm apart, analysed, and a radiologist.
pub(crate) struct Room {
    pub(crate) server: Server,
    worker: Running,
    cookie: String,
}

impl Room {
    /// One of its images. Air and tissue by turns: what could not be HU is not put together.
    pub(crate) fn slice(number: u32) -> Slice {
        Slice {
            pixel: if number.is_multiple_of(2) { 24 } else { 1064 },
            ..Slice::new("s", "a", number)
        }
    }

    /// Ends its worker.
    pub(crate) async fn close(self) {
        self.worker.stop().await;
    }

    pub(crate) async fn open(volume_ml: Option<f64>) -> Self {
        let server = Server::new().await;
        let fake = Fake::new(move |_, _, _| Ok(chosen("a", volume_ml)));
        let worker = Running::start(&server.world, fake).await;
        let slices = (0..30).map(Self::slice);
        server
            .world
            .send(slices.map(|slice| slice.bytes()).collect())
            .await;
        let state = if volume_ml.is_some() {
            "flagged"
        } else {
            "not_flagged"
        };
        until_state(&server.world, "s", state).await;
        add(&server.world, "reader", AccountRole::Radiologist).await;
        let cookie = cookie(&server, "reader").await;
        Self {
            server,
            worker,
            cookie,
        }
    }

    pub(crate) async fn analysis(&self) -> Value {
        let detail = self.server.get(&format!("/api/studies/{}", uid("s")), &[]).await;
        detail.json()["analysis"]["id"].clone()
    }

    pub(crate) async fn save(&self, body: &Value) -> Answer {
        let path = format!("/api/studies/{}/corrections", uid("s"));
        from_page(&self.server, Method::POST, &path, &self.cookie, body).await
    }

    pub(crate) async fn judge(&self, body: &Value) -> Answer {
        let path = format!("/api/studies/{}/verdicts", uid("s"));
        from_page(&self.server, Method::POST, &path, &self.cookie, body).await
    }

    pub(crate) async fn list(&self) -> Value {
        let path = format!("/api/studies/{}/corrections", uid("s"));
        self.server.get(&path, &[]).await.json()
    }
}

pub(crate) fn on(slice: u32, runs: &[u32]) -> Value {
    json!({ "sop_instance_uid": uid(&format!("a/{slice}")), "runs": runs })
}

#[tokio::test]
async fn a_mask_becomes_a_segmentation_beside_the_machines_and_a_row_of_the_trail() {
    let room = Room::open(Some(3.0)).await;
    // Two rows of three pixels on two slices, and one pixel apart: 12 and 1 pixels of 1 mm² × 5 mm.
    let body = json!({
        "analysis": room.analysis().await, "kind": "haemorrhage", "edited": true,
        "slices": [on(10, &[17, 3, 25, 3]), on(11, &[17, 3, 25, 3, 63, 1])],
    });
    let answer = room.save(&body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let row = answer.json();
    let volumes: Vec<f64> = row["regions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|region| region["volume_ml"].as_f64().unwrap())
        .collect();
    assert_eq!(volumes.len(), 2);
    assert!(
        (volumes[0] - 0.06).abs() < 1e-12 && (volumes[1] - 0.005).abs() < 1e-12,
        "{volumes:?}"
    );
    // Columns 1 to 3 and rows 2 and 3 from −4 mm, slices at 50 and 55 mm.
    for (axis, wanted) in [-2.0, -1.5, 52.5].into_iter().enumerate() {
        let found = row["regions"][0]["center_mm"][axis].as_f64().unwrap();
        assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
    }
    assert_eq!(
        (&row["reader"], &row["edited"]),
        (&json!("Dr. reader"), &json!(true))
    );
    // It is retrieved like any instance, and says who made it and from what.
    let text = |key: &str| row[key].as_str().unwrap().to_owned();
    let path = format!(
        "/dicom-web/studies/{}/series/{}/instances/{}/metadata",
        uid("s"),
        text("series_instance_uid"),
        text("sop_instance_uid")
    );
    let metadata = room
        .server
        .get(&path, &[("accept", "application/dicom+json")])
        .await;
    let object = metadata.json()[0].clone();
    let value = |tag: dicom_core::Tag| object[format!("{:04X}{:04X}", tag.0, tag.1)]["Value"].clone();
    assert_eq!(value(tags::CONTENT_CREATOR_NAME)[0]["Alphabetic"], "Dr. reader");
    assert_eq!(
        value(tags::SEGMENT_SEQUENCE)[0]["00620008"]["Value"][0],
        "SEMIAUTOMATIC"
    );
    assert_eq!(value(tags::NUMBER_OF_FRAMES)[0], 3);
    assert_eq!(
        value(tags::REFERENCED_SERIES_SEQUENCE).as_array().unwrap().len(),
        2
    );
    let machine = room
        .server
        .get(&format!("/api/studies/{}", uid("s")), &[])
        .await
        .json();
    let objects = machine["analysis"]["objects"].as_array().unwrap();
    let seg = objects.iter().find(|object| object["role"] == "seg").unwrap();
    assert_ne!(seg["sop_instance_uid"], row["sop_instance_uid"]);
    // Nothing was analysed because of it, and the trail names it with its digest.
    until_no_job(&room.server.world).await;
    let trail = room
        .server
        .get(&format!("/api/studies/{}/audit", uid("s")), &[])
        .await
        .json();
    let acts: Vec<&Value> = trail
        .as_array()
        .unwrap()
        .iter()
        .filter(|act| act["act"] == "correct")
        .collect();
    assert_eq!(acts.len(), 1);
    assert_eq!(acts[0]["principal"], "reader");
    assert_eq!(acts[0]["detail"]["sop_instance_uid"], row["sop_instance_uid"]);
    assert_eq!(acts[0]["detail"]["volumes_ml"], json!([0.1, 0.0]));
    assert_eq!(room.server.world.count("SELECT count(*) FROM analysis").await, 1);
    audit::verify(&room.server.world.db).await.unwrap();
    room.worker.stop().await;
}

#[tokio::test]
async fn the_same_mask_is_saved_once_and_again_after_another() {
    let room = Room::open(None).await;
    let analysis = room.analysis().await;
    let mask = |slice: u32| {
        json!({
            "analysis": analysis, "kind": "haemorrhage", "edited": false, "slices": [on(slice, &[0, 64])],
        })
    };
    let first = room.save(&mask(3)).await.json();
    assert_eq!(room.save(&mask(3)).await.json(), first);
    let second = room.save(&mask(4)).await.json();
    let third = room.save(&mask(3)).await.json();
    assert_eq!(room.list().await, json!([first, second, third]));
    let mut uids: Vec<&Value> = [&first, &second, &third]
        .map(|row| &row["sop_instance_uid"])
        .into();
    uids.dedup();
    assert_eq!(uids.len(), 3);
    assert_ne!(first["sop_instance_uid"], third["sop_instance_uid"]);
    room.worker.stop().await;
}

#[tokio::test]
async fn masks_that_do_not_lie_on_the_slices_are_refused_in_words() {
    let room = Room::open(Some(3.0)).await;
    let analysis = room.analysis().await;
    let body = |kind: &str, slices: Value| json!({ "analysis": analysis, "kind": kind, "edited": true, "slices": slices });
    let other = json!({ "sop_instance_uid": "1.2.3", "runs": [0, 1] });
    for (slices, said) in [
        (json!([]), "nothing is drawn"),
        (json!([on(3, &[])]), "nothing is drawn"),
        (json!([other]), "did not look at this image"),
        (json!([on(3, &[0, 1]), on(3, &[5, 1])]), "twice"),
        (json!([on(3, &[0])]), "no length"),
        (json!([on(3, &[0, 65])]), "beyond the 64 pixels"),
        (
            json!([on(3, &[4_000_000_000, 4_000_000_000])]),
            "beyond the 64 pixels",
        ),
        (json!([on(3, &[8, 4, 9, 1])]), "overlaps"),
        (json!([on(3, &[8, 0])]), "empty"),
    ] {
        let answer = room.save(&body("haemorrhage", slices)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        assert!(answer.text().contains(said), "{said}: {}", answer.text());
    }
    let answer = room.save(&body("tumour", json!([on(3, &[0, 1])]))).await;
    assert!(
        answer.text().contains("`tumour` is not a kind"),
        "{}",
        answer.text()
    );
    let answer = room.save(&json!({ "analysis": analysis })).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    // A late slice revises the answer: what was drawn on the earlier one is refused.
    let stale = body("haemorrhage", json!([on(3, &[0, 1])]));
    room.server
        .world
        .send(vec![Slice::new("s", "late", 1).bytes()])
        .await;
    room.server
        .world
        .receiver
        .complete(&uid("late"), "test")
        .await
        .unwrap();
    until_no_job(&room.server.world).await;
    assert_eq!(room.save(&stale).await.status, StatusCode::CONFLICT);
    assert_eq!(room.list().await, json!([]));
    assert_eq!(
        room.server
            .world
            .count(
                "SELECT count(*) FROM instance JOIN series ON series.id = series_id WHERE origin = 'reader'"
            )
            .await,
        0
    );
    room.worker.stop().await;
}

#[tokio::test]
async fn only_a_radiologist_who_signed_in_corrects() {
    let room = Room::open(Some(3.0)).await;
    let body = json!({
        "analysis": room.analysis().await, "kind": "haemorrhage", "edited": true, "slices": [on(3, &[0, 4])],
    });
    let path = format!("/api/studies/{}/corrections", uid("s"));
    add(&room.server.world, "auditor", AccountRole::Auditor).await;
    let auditor = cookie(&room.server, "auditor").await;
    for cookie in ["", auditor.as_str()] {
        let answer = from_page(&room.server, Method::POST, &path, cookie, &body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
    }
    room.worker.stop().await;
}
