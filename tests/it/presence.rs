//! Two readers on one study: who is told of whom, and for how long.

use crate::{
    review::{add, cookie, from_page},
    support::{Slice, uid},
    web::{Server, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use ictus::{db::events::Event, review::account::AccountRole};
use serde_json::{Value, json};

struct Room {
    server: Server,
    one: String,
    two: String,
}

impl Room {
    async fn open() -> Self {
        let server = Server::new().await;
        server.world.send(vec![Slice::new("s", "a", 1).bytes()]).await;
        add(&server.world, "one", AccountRole::Radiologist).await;
        add(&server.world, "two", AccountRole::Auditor).await;
        let (one, two) = (cookie(&server, "one").await, cookie(&server, "two").await);
        Self { server, one, two }
    }

    async fn tell(&self, cookie: &str, drawing: bool) -> Value {
        let path = format!("/api/studies/{}/presence", uid("s"));
        let body = json!({ "drawing": drawing });
        let answer = from_page(&self.server, Method::POST, &path, cookie, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    async fn leave(&self, cookie: &str) {
        let path = format!("/api/studies/{}/presence", uid("s"));
        let answer = from_page(&self.server, Method::DELETE, &path, cookie, &json!({})).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }

    /// Who the worklist says has it open.
    async fn row(&self) -> Value {
        self.server.get("/api/worklist", &[]).await.json()["studies"][0]["present"].clone()
    }
}

#[tokio::test]
async fn two_readers_on_one_study_are_told_of_each_other_until_they_leave() {
    let room = Room::open().await;
    assert_eq!(room.tell(&room.one, false).await, json!([]));
    let others = room.tell(&room.two, true).await;
    assert_eq!(
        (&others[0]["name"], &others[0]["drawing"]),
        (&json!("Dr. one"), &json!(false))
    );
    let others = room.tell(&room.one, false).await;
    assert_eq!(
        (&others[0]["name"], &others[0]["drawing"]),
        (&json!("Dr. two"), &json!(true))
    );
    assert_eq!(others.as_array().unwrap().len(), 1);
    assert_eq!(room.row().await, json!(["Dr. one", "Dr. two"]));
    room.leave(&room.one).await;
    assert_eq!(room.row().await, json!(["Dr. two"]));
    assert_eq!(room.tell(&room.two, false).await, json!([]));
}

#[tokio::test]
async fn a_page_that_fell_silent_counts_as_closed_and_only_news_is_told() {
    let room = Room::open().await;
    let listening = room.server.world.db.listen().await.unwrap();
    let mut events = listening.subscribe();
    room.tell(&room.one, false).await;
    room.tell(&room.one, false).await;
    room.tell(&room.one, true).await;
    let told = |event| matches!(event, Event::Study(study) if study.study_instance_uid == uid("s").as_str());
    assert!(told(events.recv().await.unwrap()) && told(events.recv().await.unwrap()));
    room.server
        .world
        .run("UPDATE presence SET seen_at = seen_at - interval '1 minute'")
        .await;
    assert_eq!(room.row().await, json!([]));
    // The next one who comes is alone, and the silent one's study is told of.
    assert_eq!(room.tell(&room.two, false).await, json!([]));
    assert_eq!(room.server.world.count("SELECT count(*) FROM presence").await, 1);
    assert!(told(events.recv().await.unwrap()));
}

#[tokio::test]
async fn programs_are_nobody_and_unknown_studies_are_refused() {
    let room = Room::open().await;
    let headers = [("content-type", "application/json")];
    let path = format!("/api/studies/{}/presence", uid("s"));
    let body = || Body::from(r#"{"drawing": false}"#);
    let local = room
        .server
        .send(request(Method::POST, &path, &headers, body()))
        .await;
    assert_eq!(local.status, StatusCode::FORBIDDEN, "{}", local.text());
    let path = format!("/api/studies/{}/presence", uid("other"));
    let body = json!({ "drawing": false });
    let unknown = from_page(&room.server, Method::POST, &path, &room.one, &body).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{}", unknown.text());
}
