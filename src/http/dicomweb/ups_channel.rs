//! `GET /dicom-web/subscribers/{title}`: the WebSocket on which an AE hears of workitems.
//!
//! Each event report is one text frame of DICOM JSON, in the order of the commits.
//! What was filed while nobody listened under the title is sent when the channel opens, if it is not older than an hour.
//! Reports name workitems by UID and say nothing of a patient.
//!
//! Source: PS3.18 sections 8.10.4, 8.10.5 and 11.13; RFC 6455.

use crate::{
    db::{error::DbError, events::Event},
    http::{App, auth::Principal, error::HttpError, error::Problem},
    workitem::report::numbered,
};
use axum::{
    Extension,
    extract::{
        Path, State,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How often a silent channel is tried: proxies close after half a minute to a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A reader that does not take a frame for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the channel of an AE title.
#[utoipa::path(
    get, path = "/dicom-web/subscribers/{title}", tag = "UPS-RS", operation_id = "open_event_channel",
    params(("title" = String, Path, description = "AE title that was subscribed")),
    responses(
        (status = 101, description = "a WebSocket: event reports as text frames of DICOM JSON"),
        (status = 400, description = "it is no request for a WebSocket, or no AE title", body = Problem),
        (status = 401, description = "no known key", body = Problem),
        (status = 403, description = "the key may not", body = Problem),
    )
)]
pub(crate) async fn open(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(title): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, HttpError> {
    let title = super::ups::title(&title)?;
    let upgrade = upgrade.map_err(|_| {
        HttpError::BadRequest("event reports are sent over a WebSocket; ask for one (RFC 6455)".to_owned())
    })?;
    tracing::debug!(
        principal = &*principal.name,
        "a channel of workitem events is opened"
    );
    let opened = app.db.open_channel(&title).await;
    let sent = opened.map_err(|error| HttpError::of(error.class(), "opening a channel", error))?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut channel = Channel { app, title, sent };
        channel.serve(socket).await;
    }))
}

/// An open channel.
struct Channel {
    app: App,
    title: String,
    /// Events up to this number are sent.
    sent: i64,
}

impl Channel {
    async fn serve(&mut self, mut socket: WebSocket) {
        let mut events = self.app.events.subscribe();
        let mut stopping = self.app.stopping.clone();
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = true;
        loop {
            if due && !self.send_due(&mut socket).await {
                return;
            }
            due = false;
            let message = tokio::select! {
                heard = events.recv() => match heard {
                    // Progress of analyses is heard here twice a second, and is no reason to ask the database.
                    Ok(Event::Study(_) | Event::Cancel(_)) => continue,
                    Ok(Event::Workitem | Event::Missed) | Err(RecvError::Lagged(_)) => {
                        due = true;
                        None
                    }
                    Err(RecvError::Closed) => return,
                },
                said = socket.recv() => match said {
                    // Nobody has anything to say here; pings are answered by the library.
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => None,
                },
                _ = keep_alive.tick() => {
                    // A notification is a hint, and may be lost.
                    due = true;
                    Some(Message::Ping(Vec::new().into()))
                }
                // An error means that the sender is gone: the server is ending too.
                () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => Some(Message::Close(None)),
            };
            if let Some(message) = message {
                let ends = matches!(message, Message::Close(_));
                if !send(&mut socket, message).await || ends {
                    return;
                }
            }
        }
    }

    /// Sends what is due; false when the reader is gone.
    async fn send_due(&mut self, socket: &mut WebSocket) -> bool {
        loop {
            let due = match self.app.db.workitem_events(&self.title, self.sent).await {
                Ok(due) => due,
                Err(error) => {
                    later(&error);
                    return true;
                }
            };
            let Some(last) = due.last().map(|event| event.id) else {
                return true;
            };
            for event in due {
                let report = Value::Object(numbered(event.report.0, event.id)).to_string();
                if !send(socket, Message::Text(report.into())).await {
                    return false;
                }
            }
            self.sent = last;
            if let Err(error) = self.app.db.workitem_events_sent(&self.title, last).await {
                later(&error);
            }
        }
    }
}

fn later(error: &DbError) {
    tracing::warn!(%error, "event reports of workitems wait");
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(
        tokio::time::timeout(PATIENCE, socket.send(message)).await,
        Ok(Ok(()))
    )
}
