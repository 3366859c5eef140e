//! `GET /api/events`: studies that change, as server-sent events.
//!
//! `event: study` says that a study changed and how; `event: missed` that the page should look at everything again.
//! Nothing about a patient goes through here but what a study's UID and state tell, and even that is audited as a read.
//! The stream ends when the server stops, so that stopping does not wait for it.
//!
//! Source: HTML Living Standard, section 9.2.

use crate::{
    db::{
        events::{Event, StudyEvent},
        worklist::Progress,
    },
    domain::uid::Uid,
    http::{App, auth::Principal},
};
use axum::{
    Extension,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event as Message, KeepAlive, Sse},
    },
};
use futures::StreamExt;
use serde::Serialize;
use std::{convert::Infallible, time::Duration};
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

/// How often a silent stream says that it is alive: proxies close after half a minute to a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The data of `event: study`.
#[derive(Debug, Serialize, ToSchema)]
pub struct StudyChange {
    /// Which study.
    pub study_instance_uid: String,
    /// Its state as in the worklist.
    pub state: String,
    /// The analysis under way, if any.
    pub progress: Option<Progress>,
}

impl From<StudyEvent> for StudyChange {
    fn from(event: StudyEvent) -> Self {
        Self {
            study_instance_uid: event.study_instance_uid,
            state: event.state,
            progress: event.progress,
        }
    }
}

/// Tells live which studies change.
#[utoipa::path(
    get, path = "/api/events", tag = "page",
    responses(
        (status = 200, description = "`event: study` with a StudyChange, or `event: missed`", body = StudyChange,
         content_type = "text/event-stream"),
        (status = 401, description = "no known key", body = crate::http::error::Problem),
    )
)]
pub(crate) async fn stream(State(app): State<App>, Extension(principal): Extension<Principal>) -> Response {
    let mut events = app.events.subscribe();
    let mut stopping = app.stopping.clone();
    let messages = async_stream::stream! {
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => Event::Missed,
                Err(RecvError::Closed) => return,
            };
            if let Some(message) = message(&app, &principal, event).await {
                yield Ok::<_, Infallible>(message);
            }
        }
    };
    let stopped = async move {
        // An error means that the sender is gone: the server is ending too.
        let _stopped = stopping.wait_for(|stopping| *stopping).await;
    };
    Sse::new(messages.take_until(Box::pin(stopped)))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// What is sent of an event; nothing when the read cannot be audited.
async fn message(app: &App, principal: &Principal, event: Event) -> Option<Message> {
    match event {
        Event::Study(event) => {
            let study = Uid::parse(&event.study_instance_uid).ok()?;
            if principal
                .only
                .as_deref()
                .is_some_and(|only| only != study.as_str())
            {
                return None;
            }
            if let Err(error) = app.db.audit_read(&principal.name, &study).await {
                tracing::error!(%error, "an event was held back because its read could not be audited");
                return None;
            }
            Message::default()
                .event("study")
                .json_data(StudyChange::from(event))
                .ok()
        }
        Event::Missed => Some(Message::default().event("missed").data("{}")),
        Event::Cancel(_) | Event::Workitem => None,
    }
}
