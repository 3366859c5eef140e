//! Storage commitment over HTTP: what is kept is committed to, what is not has its reason, and a UID is used once.

use crate::{
    deliver_support::trail,
    queue::until,
    support::{Slice, uid},
    web::{Answer, Server, request},
};
use axum::http::{Method, StatusCode};
use ictus::{
    audit,
    http::{Limits, auth::Access},
};
use serde_json::{Value, json};
use sqlx::Connection;
use std::time::Duration;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const MR: &str = "1.2.840.10008.5.1.4.1.1.4";

fn named(instances: &[(&str, String)]) -> Value {
    let items: Vec<Value> = instances
        .iter()
        .map(|(class, uid)| {
            json!({
                "00081150": { "vr": "UI", "Value": [class] },
                "00081155": { "vr": "UI", "Value": [uid] },
            })
        })
        .collect();
    json!({ "00081199": { "vr": "SQ", "Value": items } })
}

fn path(transaction: &str) -> String {
    format!("/dicom-web/commitment-requests/{}", uid(transaction))
}

async fn ask(server: &Server, transaction: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/dicom+json")];
    let asked = request(
        Method::POST,
        &path(transaction),
        &headers,
        body.to_string().into(),
    );
    server.send(asked).await
}

/// UIDs and failure reasons of a sequence of the answer.
fn said(answer: &Value, tag: &str) -> Vec<(String, u64)> {
    let items = answer[tag]["Value"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| {
            let reason = item["00081197"]["Value"][0].as_u64().unwrap_or_default();
            (item["00081155"]["Value"][0].as_str().unwrap().to_owned(), reason)
        })
        .collect()
}

#[tokio::test]
async fn what_is_kept_is_committed_to_and_the_rest_has_its_reason() {
    let server = Server::new().await;
    let (kept, lost) = (Slice::new("s", "a", 1), Slice::new("s", "a", 2));
    server.world.send(vec![kept.bytes(), lost.bytes()]).await;
    // The file of one is damaged behind the server's back.
    let key: String = sqlx::query_scalar("SELECT archive_key FROM instance WHERE sop_instance_uid = $1")
        .bind(lost.sop.as_str())
        .fetch_one(&mut server.world.superuser().await)
        .await
        .unwrap();
    std::fs::write(server.world.folder.path().join(key), b"short").unwrap();
    let body = named(&[
        (CT, kept.sop.to_string()),
        (MR, kept.sop.to_string()),
        (CT, lost.sop.to_string()),
        (CT, uid("nowhere").to_string()),
    ]);
    let answer = ask(&server, "t", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/dicom+json");
    assert_eq!(said(&answer.json(), "00081199"), [(kept.sop.to_string(), 0)]);
    assert_eq!(
        said(&answer.json(), "00081198"),
        [
            (kept.sop.to_string(), 0x0119),
            (lost.sop.to_string(), 0x0110),
            (uid("nowhere").to_string(), 0x0112),
        ]
    );
    // The answer holds, and the UID is used up.
    let again = server.get(&path("t"), &[]).await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, answer.json()));
    assert_eq!(ask(&server, "t", &body).await.status, StatusCode::CONFLICT);
    let xml = server
        .get(&path("t"), &[("accept", "application/dicom+xml")])
        .await;
    assert!(
        xml.text().contains("keyword=\"FailedSOPSequence\""),
        "{}",
        xml.text()
    );
    let rows = trail(&server.world, "commit").await;
    assert_eq!((rows.len(), &rows[0]["committed"]), (1, &json!(1)));
    assert_eq!(audit::verify(&server.world.db).await.unwrap().fault, None);
}

#[tokio::test]
async fn a_request_that_a_crash_left_is_answered_when_it_is_asked_for() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    server.world.send(vec![slice.bytes()]).await;
    let instances = [(CT.to_owned(), slice.sop.to_string())];
    let receiver = &server.world.receiver;
    let transaction = uid("t");
    assert!(
        receiver
            .ask_commitment(transaction.as_str(), &instances, "x")
            .await
            .unwrap()
    );
    let answer = server.get(&path("t"), &[]).await;
    assert_eq!(said(&answer.json(), "00081199"), [(slice.sop.to_string(), 0)]);
    assert_eq!(trail(&server.world, "commit").await.len(), 1);
}

#[tokio::test]
async fn a_client_whose_answer_takes_long_is_told_when_to_come_back_and_finds_it_then() {
    let limits = Limits {
        wait: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::with(Access::new(None, [127, 0, 0, 1].into()).unwrap(), limits).await;
    let slice = Slice::new("s", "a", 1);
    server.world.send(vec![slice.bytes()]).await;
    // Nobody can look at what is stored.
    let mut superuser = server.world.superuser().await;
    let mut hold = superuser.begin().await.unwrap();
    sqlx::query("LOCK TABLE instance IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *hold)
        .await
        .unwrap();
    let body = named(&[(CT, slice.sop.to_string())]);
    let asked = ask(&server, "t", &body).await;
    let looked = server.get(&path("t"), &[]).await;
    for answer in [&asked, &looked] {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        assert_eq!(answer.header("retry-after"), "5");
        assert!(answer.body.is_empty());
    }
    // It is asked already.
    assert_eq!(ask(&server, "t", &body).await.status, StatusCode::CONFLICT);
    hold.rollback().await.unwrap();
    let answer = until("it is answered", async || {
        let answer = server.get(&path("t"), &[]).await;
        (answer.status == StatusCode::OK).then_some(answer)
    })
    .await;
    assert_eq!(said(&answer.json(), "00081199"), [(slice.sop.to_string(), 0)]);
    assert_eq!(trail(&server.world, "commit").await.len(), 1);
}

#[tokio::test]
async fn a_request_without_instances_or_under_no_uid_is_refused() {
    let server = Server::new().await;
    for body in [
        json!({}),
        json!({ "00081110": { "vr": "SQ", "Value": [{ "0020000D": { "vr": "UI", "Value": ["1.2"] } }] } }),
        named(&[("no uid", "1.2".to_owned())]),
    ] {
        assert_eq!(
            ask(&server, "t", &body).await.status,
            StatusCode::BAD_REQUEST,
            "{body}"
        );
    }
    let headers = [("content-type", "application/dicom+json")];
    let odd = request(
        Method::POST,
        "/dicom-web/commitment-requests/x",
        &headers,
        named(&[(CT, "1.2".to_owned())]).to_string().into(),
    );
    assert_eq!(server.send(odd).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(server.get(&path("t"), &[]).await.status, StatusCode::NOT_FOUND);
    let text = request(
        Method::POST,
        &path("t"),
        &[("content-type", "text/plain")],
        "x".into(),
    );
    assert_eq!(server.send(text).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
