//! One association from its request to its end: message after message, each answered before the next is read.
//!
//! Source: PS3.7 sections 7 to 10.

use super::{Provider, rules::Entrance};
use crate::{
    association::{
        Association, AssociationError, Context, Link, Message, Wire,
        acceptor::accept,
        command::{Command, field, status},
        syntax,
    },
    db::audit::Act,
    receive::Session,
};
use serde_json::json;
use std::{collections::HashMap, net::SocketAddr, time::Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// An association and what serves it.
pub(super) struct Service<'a> {
    pub(super) provider: &'a Provider,
    pub(super) association: Association<Wire>,
    pub(super) session: Session,
    pub(super) stored: usize,
    pub(super) failed: usize,
    /// Reports of storage commitment that were sent and not answered yet, by message.
    pub(super) reports: HashMap<u16, Uuid>,
    /// The number of our last request.
    number: u16,
}

impl Service<'_> {
    /// Serves a connection until its end, and puts what was stored into the trail.
    pub(super) async fn serve(
        provider: &Provider,
        link: Link<Wire>,
        address: SocketAddr,
        stopped: watch::Receiver<bool>,
    ) {
        let began = Instant::now();
        let entrance = Entrance::new(&provider.settings, address.ip());
        let association = match accept(link, &entrance).await {
            Ok(association) => association,
            Err(error) => {
                tracing::warn!(%error, address = %address.ip(), "an association did not come about");
                if let AssociationError::Refused { calling, why } = &error {
                    provider.audit_rejection(calling, why, address).await;
                }
                return;
            }
        };
        let session = provider
            .receiver
            .open(&association.calling, &association.called, address);
        let mut service = Service {
            provider,
            association,
            session,
            stored: 0,
            failed: 0,
            reports: HashMap::new(),
            number: 0,
        };
        let ended = service.messages(stopped).await;
        let how = match &ended {
            Ok(how) => how,
            Err(error) => {
                service.association.link.abort(Some(error)).await;
                tracing::warn!(%error, principal = service.association.calling, "an association ended early");
                ended_as(error)
            }
        };
        service.release_reports().await;
        tracing::info!(
            principal = service.association.calling,
            stored = service.stored,
            failed = service.failed,
            duration_ms = began.elapsed().as_millis(),
            reason = how,
            "an association ended"
        );
        if let Err(error) = service.session.end(how).await {
            tracing::error!(%error, "an association could not be put into the trail; the next start does it");
        }
    }

    /// Answers messages; says how the association ended.
    async fn messages(
        &mut self,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<&'static str, AssociationError> {
        loop {
            let message = tokio::select! {
                message = self.association.link.next() => message?,
                () = is_stopped(&mut stopped) => {
                    self.association.link.abort(None).await;
                    return Ok("stopped");
                }
            };
            match message {
                Some(message) => self.message(message).await?,
                None => return Ok("released"),
            }
        }
    }

    async fn message(&mut self, message: Message) -> Result<(), AssociationError> {
        let Message { context: id, command } = message;
        let Some(context) = self.association.context(id).cloned() else {
            return Err(AssociationError::Protocol(format!(
                "a message came on presentation context {id}, which was not accepted"
            )));
        };
        match command.field() {
            field::C_ECHO => {
                let response = Command::response_to(&command, status::SUCCESS);
                self.association.link.send(id, &response, None).await
            }
            field::C_STORE => self.c_store(&context, &command).await,
            field::C_FIND if is(&context, syntax::FIND) => self.c_find(&context, &command).await,
            field::C_GET if is(&context, syntax::GET) => self.c_get(&context, &command).await,
            field::C_MOVE if is(&context, syntax::MOVE) => self.c_move(&context, &command).await,
            field::N_ACTION if is_commitment(&context) => self.n_action(&context, &command).await,
            field::N_EVENT_REPORT if is_commitment(&context) => self.n_event_report(&context, &command).await,
            answer if answer == field::N_EVENT_REPORT | field::RESPONSE => {
                self.report_answered(&command).await;
                Ok(())
            }
            // Nothing is under way that could be cancelled, and an answer that was not asked for says nothing.
            field::C_CANCEL => Ok(()),
            answer if answer & field::RESPONSE != 0 => Ok(()),
            _ => self.unrecognized(&context, &command).await,
        }
    }

    /// The number of our next request on this association.
    pub(super) fn next_number(&mut self) -> u16 {
        // 0 is no message number.
        self.number = self.number.checked_add(1).unwrap_or(1);
        self.number
    }

    async fn unrecognized(&mut self, context: &Context, command: &Command) -> Result<(), AssociationError> {
        self.association.link.drain().await?;
        let response = Command::response_to(command, status::UNRECOGNIZED_OPERATION)
            .with_comment("this service is not provided here");
        self.association.link.send(context.id, &response, None).await
    }
}

fn is(context: &Context, classes: [&str; 2]) -> bool {
    classes.contains(&context.abstract_syntax.as_str())
}

fn is_commitment(context: &Context) -> bool {
    context.abstract_syntax == syntax::STORAGE_COMMITMENT
}

pub(super) async fn is_stopped(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop, too.
    let _stop = stopped.wait_for(|stop| *stop).await;
}

/// The end of an association in one word, for the trail.
fn ended_as(error: &AssociationError) -> &'static str {
    match error {
        AssociationError::Aborted => "aborted",
        AssociationError::Closed | AssociationError::Io(_) => "lost",
        AssociationError::Timeout { .. } => "timed_out",
        _ => "broken",
    }
}

impl Provider {
    async fn audit_rejection(&self, calling: &str, why: &str, address: SocketAddr) {
        if !self.is_new_rejection(calling, address.ip()) {
            return;
        }
        let act = Act {
            principal: calling,
            act: "refuse",
            studies: Vec::new(),
            detail: json!({ "association": { "address": address.ip().to_string() }, "text": why }),
        };
        if let Err(error) = self.db.audit_act(&act).await {
            tracing::error!(%error, "a rejected association could not be put into the trail");
        }
    }
}
