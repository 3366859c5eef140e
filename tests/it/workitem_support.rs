//! A server with its performer of workitems, and what a task manager sends to it and hears from it.

use crate::{
    queue::until,
    support::uid,
    web::{Answer, Server, request},
};
use axum::http::{Method, StatusCode};
use futures::StreamExt;
use ictus::workitem::perform::Performer;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;

pub(crate) const JSON: &str = "application/dicom+json";

/// A server with its performer of workitems.
pub(crate) struct Desk {
    pub(crate) server: Server,
    address: std::net::SocketAddr,
    pub(crate) performer: Performer,
    _stop: oneshot::Sender<()>,
}

impl Desk {
    pub(crate) async fn open() -> Self {
        Self::with_quiet(Duration::ZERO).await
    }

    pub(crate) async fn with_quiet(quiet: Duration) -> Self {
        let server = Server::new().await;
        let address = server.listen().await;
        let db = server.world.db.clone();
        let performer = Performer::new(db.clone(), db.listen().await.unwrap(), "ICTUS", quiet);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(performer.clone().run(async move { drop(stopped.await) }));
        Self {
            server,
            address,
            performer,
            _stop: stop,
        }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let path = format!("/dicom-web/{path}");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = request(method, &path, &[("content-type", JSON)], body.into());
        self.server.send(answer).await
    }

    pub(crate) async fn create(&self, workitem: &str, dataset: &Value) -> Answer {
        self.send(Method::POST, &format!("workitems?{}", uid(workitem)), dataset)
            .await
    }

    pub(crate) async fn get(&self, workitem: &str) -> Value {
        let path = format!("/dicom-web/workitems/{}", uid(workitem));
        let answer = self.server.get(&path, &[("accept", JSON)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    pub(crate) async fn change(&self, workitem: &str, state: &str, transaction: &str) -> Answer {
        let mut body = dataset(&[("00741000", "CS", json!(state))]);
        if !transaction.is_empty() {
            body["00081195"] = json!({ "vr": "UI", "Value": [transaction] });
        }
        let path = format!("workitems/{}/state", uid(workitem));
        self.send(Method::PUT, &path, &body).await
    }

    pub(crate) async fn subscribe(&self, what: &str, title: &str, query: &str) -> Answer {
        let path = format!("workitems/{what}/subscribers/{title}{query}");
        self.send(Method::POST, &path, &Value::Null).await
    }

    /// Opens the channel of a title.
    pub(crate) async fn listen(&self, title: &str) -> Channel {
        let address = format!("ws://{}/dicom-web/subscribers/{title}", self.address);
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        Channel(Box::pin(socket.filter_map(async |message| match message {
            Ok(Message::Text(text)) => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        })))
    }

    pub(crate) async fn until(&self, workitem: &str, state: &str) -> Value {
        until(&format!("{workitem} is {state}"), async || {
            let found = self.get(workitem).await;
            (value(&found, "00741000") == state).then_some(found)
        })
        .await
    }
}

/// What an AE hears.
pub(crate) struct Channel(std::pin::Pin<Box<dyn futures::Stream<Item = Value> + Send>>);

impl Channel {
    pub(crate) async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(Duration::from_secs(60), self.0.next()).await;
        next.expect("an event within a minute").expect("an open channel")
    }

    /// Kind, workitem and state of the next event.
    pub(crate) async fn heard(&mut self) -> (u64, String, String) {
        let event = self.next().await;
        (
            event["00001002"]["Value"][0].as_u64().unwrap(),
            value(&event, "00001000").to_owned(),
            value(&event, "00741000").to_owned(),
        )
    }
}

pub(crate) fn value<'a>(dataset: &'a Value, tag: &str) -> &'a str {
    dataset[tag]["Value"][0].as_str().unwrap_or_default()
}

pub(crate) fn dataset(attributes: &[(&str, &str, Value)]) -> Value {
    let mut dataset = json!({});
    for (tag, vr, value) in attributes {
        dataset[*tag] = json!({ "vr": vr, "Value": [value] });
    }
    dataset
}

pub(crate) fn code(value: &str, scheme: &str) -> Value {
    dataset(&[
        ("00080100", "SH", json!(value)),
        ("00080102", "SH", json!(scheme)),
        ("00080104", "LO", json!("a meaning")),
    ])
}

/// What a task manager sends for a series, to a station.
pub(crate) fn scheduled(station: &str, study: &str, series: &str) -> Value {
    let input = dataset(&[
        ("0040E020", "CS", json!("DICOM")),
        ("0020000D", "UI", json!(uid(study))),
        ("0020000E", "UI", json!(uid(series))),
    ]);
    dataset(&[
        ("00404005", "DT", json!("20261128101500")),
        ("00404018", "SQ", code("110004", "DCM")),
        ("00404021", "SQ", input),
        ("00404025", "SQ", code(station, "99HOSPITAL")),
        ("00404041", "CS", json!("READY")),
        ("00741000", "CS", json!("SCHEDULED")),
        ("00741200", "CS", json!("HIGH")),
        ("00741202", "LO", json!("AI")),
        ("00741204", "LO", json!("Find the bleed")),
        ("00100010", "PN", json!({ "Alphabetic": "Phantom^One" })),
        ("00100020", "LO", json!("P1")),
    ])
}
