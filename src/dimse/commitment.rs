//! Storage commitment: who asks whether we keep instances is told, and who answers our own question is heard.
//!
//! A request is answered from the index and from the archive: an instance is committed to when it is stored under its
//! SOP class and its file is there in full.
//! The answer is committed with a row of the trail before the request is answered, and is kept until the asker has taken it.
//! It is sent on the association of the request; when that ends first, on one of its own to the asker's address, if the
//! server knows one, again and again for two days.
//!
//! Source: PS3.4 annex J; PS3.7 sections 10.1.1 and 10.1.4; PS3.3 section C.14.1.1.

use super::{Provider, service::Service};
use crate::{
    association::{
        AssociationError, Context, Timeouts,
        command::{Command, element, field, status},
        requestor::{Peer, Proposal, request},
        syntax,
    },
    db::{
        self, Db,
        audit::Act,
        commitment::{self as rows, file_report},
        error::DbError,
    },
    dicom::identifier::{read, write},
    domain::uid::Uid,
    receive::commitment::{detail, judge},
    scu::commitment::{REQUEST, Reference, Report, Request},
};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// The longest dataset: a hundred thousand instances.
const MAX_DATASET: usize = 16 << 20;
/// How long the association of a request has to take the answer.
const HERE: Duration = Duration::from_secs(60);
/// Reports that are due are looked for.
const POLL: Duration = Duration::from_secs(1);

impl Service<'_> {
    /// Answers an N-ACTION-RQ, and reports on the same association.
    pub(super) async fn n_action(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<(), AssociationError> {
        let bytes = self.association.link.whole_dataset(MAX_DATASET).await?;
        let asked = asked(command, context, &bytes);
        let committed = match asked {
            Ok(request) => self.provider.commit(&self.association.calling, &request).await,
            Err(refusal) => Err(refusal),
        };
        let (code, comment) = match &committed {
            Ok(_) => (status::SUCCESS, None),
            Err((code, comment)) => (*code, Some(*comment)),
        };
        let mut response = Command::response_to(command, code);
        if let Some(comment) = comment {
            response = response.with_comment(comment);
        }
        self.association.link.send(context.id, &response, None).await?;
        let Ok((id, report)) = committed else {
            return Ok(());
        };
        let number = self.next_number();
        let title = &self.provider.settings.title;
        let (event, bytes) = event(&report, title, number, context)?;
        self.reports.insert(number, id);
        self.association.link.send(context.id, &event, Some(&bytes)).await
    }

    /// Notes that the asker has taken a report of this association.
    pub(super) async fn report_answered(&mut self, response: &Command) {
        let number = response.u16(element::MESSAGE_ID_BEING_RESPONDED_TO);
        let Some(id) = number.and_then(|number| self.reports.remove(&number)) else {
            return;
        };
        if response.status() == status::SUCCESS {
            self.provider.sent(id).await;
        } else {
            tracing::warn!(
                status = response.status(),
                "a report of storage commitment was not taken"
            );
            self.reports.insert(0, id);
        }
    }

    /// What the association did not take is sent on one of its own.
    pub(super) async fn release_reports(&mut self) {
        let ids: Vec<Uuid> = std::mem::take(&mut self.reports).into_values().collect();
        if ids.is_empty() {
            return;
        }
        if let Err(error) = self.provider.db.release_reports(&ids).await {
            tracing::warn!(%error, "reports of storage commitment wait a minute longer");
        }
    }

    /// Answers an N-EVENT-REPORT-RQ: a target's answer to our own request.
    pub(super) async fn n_event_report(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<(), AssociationError> {
        let bytes = self.association.link.whole_dataset(MAX_DATASET).await?;
        let calling = &self.association.calling;
        let code = match read(&bytes, &context.transfer_syntax).map(|dataset| Report::read(&dataset)) {
            Ok(Ok(report)) => match record(&self.provider.db, &report, calling).await {
                Ok(true) => status::SUCCESS,
                Ok(false) => {
                    tracing::warn!(
                        principal = calling,
                        "an answer to storage commitment was refused: its sender was asked nothing by that Transaction UID"
                    );
                    status::NO_SUCH_INSTANCE
                }
                Err(error) => {
                    tracing::error!(%error, "an answer to storage commitment could not be written down");
                    status::PROCESSING_FAILURE
                }
            },
            _ => status::INVALID_ARGUMENT,
        };
        let response = Command::response_to(command, code);
        self.association.link.send(context.id, &response, None).await
    }
}

/// Notes the answer of a target, by its title; false when it was asked nothing by that UID.
async fn record(db: &Db, report: &Report, calling: &str) -> Result<bool, DbError> {
    let committed: Vec<String> = report
        .committed
        .iter()
        .map(|reference| reference.sop_instance_uid.clone())
        .collect();
    let failed: Vec<(String, u16)> = report
        .failed
        .iter()
        .map(|(reference, reason)| (reference.sop_instance_uid.clone(), *reason))
        .collect();
    let transaction = report.transaction_uid.as_str();
    db.record_commitment(transaction, &committed, &failed, calling)
        .await
}

type Refused = (u16, &'static str);

fn asked(command: &Command, context: &Context, bytes: &[u8]) -> Result<Request, Refused> {
    let named = |element| command.text(element).unwrap_or_default();
    if named(element::REQUESTED_SOP_CLASS_UID) != syntax::STORAGE_COMMITMENT {
        return Err((
            status::SOP_CLASS_NOT_SUPPORTED,
            "the SOP class is not storage commitment",
        ));
    }
    if named(element::REQUESTED_SOP_INSTANCE_UID) != syntax::STORAGE_COMMITMENT_INSTANCE {
        return Err((
            status::NO_SUCH_INSTANCE,
            "the SOP instance is not the one of storage commitment",
        ));
    }
    if command.u16(element::ACTION_TYPE_ID) != Some(REQUEST) {
        return Err((status::NO_SUCH_ACTION, "the action is none but 1, a request"));
    }
    let dataset = read(bytes, &context.transfer_syntax)
        .map_err(|_| (status::INVALID_ARGUMENT, "the dataset cannot be read"))?;
    Request::read(&dataset).map_err(|_| {
        (
            status::INVALID_ARGUMENT,
            "the dataset lacks a TransactionUID or instances with UIDs",
        )
    })
}

/// The N-EVENT-REPORT-RQ of a report.
fn event(
    report: &Report,
    title: &str,
    number: u16,
    context: &Context,
) -> Result<(Command, Vec<u8>), AssociationError> {
    let command = Command::new(field::N_EVENT_REPORT)
        .with_u16(element::MESSAGE_ID, number)
        .with_uid(element::AFFECTED_SOP_CLASS_UID, syntax::STORAGE_COMMITMENT)
        .with_uid(
            element::AFFECTED_SOP_INSTANCE_UID,
            syntax::STORAGE_COMMITMENT_INSTANCE,
        )
        .with_u16(element::EVENT_TYPE_ID, report.event());
    let bytes = write(report.dataset(title), &context.transfer_syntax)
        .map_err(|_| AssociationError::Protocol("a report cannot be written".to_owned()))?;
    Ok((command, bytes))
}

impl Provider {
    /// Looks what is stored, and files the answer with its row of the trail.
    async fn commit(&self, calling: &str, request: &Request) -> Result<(Uuid, Report), Refused> {
        let pair = |one: &Reference| (one.sop_class_uid.clone(), one.sop_instance_uid.clone());
        let instances: Vec<(String, String)> = request.references.iter().map(pair).collect();
        let judged = judge(&self.db, &self.archive, &instances).await;
        let away = (
            status::PROCESSING_FAILURE,
            "the database is away; ask again later",
        );
        let failures = judged.map_err(|error| {
            tracing::error!(%error, "a request for storage commitment could not be answered");
            away
        })?;
        let mut report = Report {
            transaction_uid: request.transaction_uid.clone(),
            committed: Vec::new(),
            failed: Vec::new(),
        };
        for (reference, reason) in request.references.iter().cloned().zip(&failures) {
            match reason {
                None => report.committed.push(reference),
                Some(reason) => report.failed.push((reference, *reason)),
            }
        }
        let row = rows::Report {
            id: Uuid::new_v4(),
            principal: calling.to_owned(),
            transaction_uid: report.transaction_uid.to_string(),
            committed: report.committed.iter().map(pair).collect(),
            failed: report
                .failed
                .iter()
                .map(|(one, reason)| (one.sop_class_uid.clone(), one.sop_instance_uid.clone(), *reason))
                .collect(),
        };
        let act = Act {
            principal: calling,
            act: "commit",
            studies: Vec::new(),
            detail: detail(report.transaction_uid.as_str(), &instances, &failures),
        };
        let filed = async {
            let mut tx = self.db.begin().await?;
            file_report(&mut tx, &row, HERE).await?;
            db::audit::append(&mut tx, &act).await?;
            db::commit(tx).await
        };
        match filed.await {
            Ok(()) => Ok((row.id, report)),
            Err(error) => {
                tracing::error!(%error, "a request for storage commitment could not be answered");
                Err(away)
            }
        }
    }

    async fn sent(&self, id: Uuid) {
        if let Err(error) = self.db.report_sent(id).await {
            tracing::warn!(%error, "a report of storage commitment will be sent twice");
        }
    }

    /// Sends reports that are due to those whose addresses are known, until `stopped`.
    pub(super) async fn report(self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let titles: Vec<&str> = self
                .settings
                .peers
                .iter()
                .map(|peer| peer.title.as_str())
                .collect();
            let due = match self.db.claim_report(&titles).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(%error, "reports of storage commitment cannot be read; it is tried again");
                    None
                }
            };
            let due = due.and_then(|row| Some((self.settings.peer(&row.principal)?.clone(), row)));
            let Some((peer, row)) = due else {
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    _ = stopped.changed() => {}
                }
                continue;
            };
            match self.report_to(&peer, &row).await {
                Ok(()) => self.sent(row.id).await,
                Err(error) => {
                    tracing::warn!(%error, peer = peer.title, "a report of storage commitment is tried again later");
                }
            }
        }
    }

    /// Sends one report on an association of its own.
    async fn report_to(&self, peer: &Peer, row: &rows::Report) -> Result<(), AssociationError> {
        let report = Report {
            transaction_uid: Uid::parse(&row.transaction_uid)
                .map_err(|_| AssociationError::Protocol("a TransactionUID is no UID".to_owned()))?,
            committed: row
                .committed
                .iter()
                .map(|(class, uid)| reference(class, uid))
                .collect(),
            failed: row
                .failed
                .iter()
                .map(|(class, uid, reason)| (reference(class, uid), *reason))
                .collect(),
        };
        let proposal = Proposal {
            abstract_syntax: syntax::STORAGE_COMMITMENT.to_owned(),
            transfer_syntaxes: vec![syntax::EXPLICIT.to_owned(), syntax::IMPLICIT.to_owned()],
            we_provide: true,
        };
        let settings = &self.settings;
        let timeouts = Timeouts {
            idle: HERE,
            ..settings.timeouts
        };
        let mut association = request(peer, &settings.title, &[proposal], timeouts).await?;
        let Some(context) = association.contexts.first().cloned() else {
            association.link.abort(None).await;
            return Err(AssociationError::Rejected(
                "it takes no reports of storage commitment".to_owned(),
            ));
        };
        let (command, bytes) = event(&report, &settings.title, 1, &context)?;
        association.link.send(context.id, &command, Some(&bytes)).await?;
        let answer = association.link.next().await?;
        let taken = answer.is_some_and(|answer| answer.command.status() == status::SUCCESS);
        // It is answered: how the peer ends the association changes nothing.
        let _ended = association.link.release().await;
        if taken {
            Ok(())
        } else {
            Err(AssociationError::Protocol(
                "it did not take a report of storage commitment".to_owned(),
            ))
        }
    }
}

fn reference(class: &str, uid: &str) -> Reference {
    Reference {
        sop_class_uid: class.to_owned(),
        sop_instance_uid: uid.to_owned(),
    }
}
