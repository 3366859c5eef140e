//! Storage commitment as its user: what a target took → whether it keeps it.
//!
//! The question is on the disk before it is asked, and the answer may come on the same association, or later on one of
//! the target's own to our listener; the next attempt finds it either way.
//! What the target does not commit to, or says nothing of for an hour, is sent again.
//!
//! Source: PS3.4 annex J; PS3.7 section 10.1.

use super::{c_store::words, meaning_of};
use crate::{
    association::{
        Association, AssociationError, Context, Wire,
        command::{Command, element, field, status},
        requestor::Proposal,
        syntax,
    },
    db::{
        Db,
        commitment::Asked,
        outbox::{Attempt, Claimed, Outgoing},
    },
    dicom::identifier::{read, write},
    domain::{phi::redact, uid::Uid},
    scu::commitment::{REQUEST, Reference, Report, Request},
};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How long the association is kept for the answer; most archives that answer on it do so at once.
const ANSWER_HERE: Duration = Duration::from_secs(5);
/// How long a target may take to commit before everything is sent again.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// The longest answer.
const MAX_DATASET: usize = 16 << 20;
/// What is said of an instance that the target has and has not committed to.
const WAITING: &str = "the target has taken it and has not committed to keep it yet";

/// The context to ask on; the first form that the target takes is used.
pub(super) fn proposal() -> Proposal {
    Proposal {
        abstract_syntax: syntax::STORAGE_COMMITMENT.to_owned(),
        transfer_syntaxes: vec![syntax::EXPLICIT.to_owned(), syntax::IMPLICIT.to_owned()],
        we_provide: false,
    }
}

/// Sorts out what was answered since the last attempt; returns what is to be sent.
pub(super) async fn answered(
    db: &Db,
    claimed: &Claimed,
    attempt: &mut Attempt,
) -> Result<Vec<Outgoing>, String> {
    let asked = db
        .commitments(claimed.id)
        .await
        .map_err(|error| redact(&error).to_string())?;
    let mut left = Vec::new();
    for instance in &claimed.instances {
        let id = instance.instance_id;
        match asked.iter().find(|(asked, _)| *asked == id).map(|(_, how)| how) {
            Some(Asked::Committed) => attempt.delivered.push(id),
            Some(Asked::Waiting(since)) if *since < PATIENCE => {
                attempt.postponed.push((id, WAITING.to_owned()));
            }
            Some(Asked::Waiting(_) | Asked::Failed(_)) | None => left.push(instance.clone()),
        }
    }
    Ok(left)
}

/// Asks the target to commit to what it took, and waits for its answer for a short while.
pub(super) async fn ask(
    association: &mut Association<Wire>,
    db: &Db,
    outbox: Uuid,
    taken: &[Outgoing],
    attempt: &mut Attempt,
) -> Result<(), String> {
    let context = association
        .contexts
        .iter()
        .find(|context| context.abstract_syntax == syntax::STORAGE_COMMITMENT);
    let Some(context) = context.cloned() else {
        attempt.is_final = true;
        return Err(
            "the target takes the results and offers no storage commitment; let it offer some, or take `commit` out \
             of the file, and retry"
                .to_owned(),
        );
    };
    let request = Request {
        transaction_uid: transaction()?,
        references: taken
            .iter()
            .map(|instance| Reference {
                sop_class_uid: instance.sop_class_uid.clone(),
                sop_instance_uid: instance.sop_instance_uid.clone(),
            })
            .collect(),
    };
    let ids: Vec<i64> = taken.iter().map(|instance| instance.instance_id).collect();
    let title = association.called.clone();
    db.ask_commitment(request.transaction_uid.as_str(), outbox, &ids, &title)
        .await
        .map_err(|error| redact(&error).to_string())?;
    let answer = exchange(association, &context, &request).await;
    let failed = |code: u16| Report {
        transaction_uid: request.transaction_uid.clone(),
        committed: Vec::new(),
        failed: request
            .references
            .iter()
            .cloned()
            .map(|one| (one, code))
            .collect(),
    };
    let report = match answer {
        Err(error) => {
            association.link.abort(Some(&error)).await;
            // Nobody knows whether it was asked: the next attempt asks again.
            note(db, &failed(status::PROCESSING_FAILURE), &title).await?;
            return Err(words(&error));
        }
        Ok(Answer::Refused(code)) => {
            note(db, &failed(code), &title).await?;
            return Err(format!(
                "the target takes the results and answered {code:04X} to the request for storage commitment: {}",
                meaning_of(code)
            ));
        }
        Ok(Answer::Later) => None,
        Ok(Answer::Report(report)) => Some(report),
    };
    if let Some(report) = &report {
        note(db, report, &title).await?;
    }
    for instance in taken {
        let uid = &instance.sop_instance_uid;
        let committed = |report: &Report| report.committed.iter().any(|one| one.sop_instance_uid == *uid);
        let reason = |report: &Report| {
            let failed = report.failed.iter().find(|(one, _)| one.sop_instance_uid == *uid);
            failed.map(|(_, reason)| *reason)
        };
        match &report {
            Some(report) if committed(report) => attempt.delivered.push(instance.instance_id),
            Some(report) if reason(report).is_some() => {
                let code = reason(report).unwrap_or_default();
                let why = format!(
                    "the target does not commit to it: {code:04X}, {}",
                    meaning_of(code)
                );
                attempt.postponed.push((instance.instance_id, why));
            }
            _ => attempt.postponed.push((instance.instance_id, WAITING.to_owned())),
        }
    }
    Ok(())
}

async fn note(db: &Db, report: &Report, title: &str) -> Result<(), String> {
    let committed: Vec<String> = report
        .committed
        .iter()
        .map(|one| one.sop_instance_uid.clone())
        .collect();
    let failed: Vec<(String, u16)> = report
        .failed
        .iter()
        .map(|(one, reason)| (one.sop_instance_uid.clone(), *reason))
        .collect();
    db.record_commitment(report.transaction_uid.as_str(), &committed, &failed, title)
        .await
        .map(drop)
        .map_err(|error| redact(&error).to_string())
}

/// A new UID: 2.25 and a random UUID (PS3.5 annex B.2).
fn transaction() -> Result<Uid, String> {
    Uid::parse(&format!("2.25.{}", Uuid::new_v4().as_u128()))
        .map_err(|_| "a TransactionUID cannot be made; this is a fault of ictus".to_owned())
}

/// What a target says to a request.
enum Answer {
    Refused(u16),
    Later,
    Report(Report),
}

async fn exchange(
    association: &mut Association<Wire>,
    context: &Context,
    request: &Request,
) -> Result<Answer, AssociationError> {
    const NUMBER: u16 = 1;
    let command = Command::new(field::N_ACTION)
        .with_u16(element::MESSAGE_ID, NUMBER)
        .with_uid(element::REQUESTED_SOP_CLASS_UID, syntax::STORAGE_COMMITMENT)
        .with_uid(
            element::REQUESTED_SOP_INSTANCE_UID,
            syntax::STORAGE_COMMITMENT_INSTANCE,
        )
        .with_u16(element::ACTION_TYPE_ID, REQUEST);
    let broken = |what: &str| AssociationError::Protocol(what.to_owned());
    let bytes = write(request.dataset(), &context.transfer_syntax)
        .map_err(|_| broken("a request of ours cannot be written"))?;
    let link = &mut association.link;
    link.send(context.id, &command, Some(&bytes)).await?;
    let mut is_taken = false;
    loop {
        // Waiting for the first byte of a message may be given up at any time.
        let next = if is_taken {
            match timeout(ANSWER_HERE, link.next()).await {
                Ok(next) => next?,
                Err(_) => return Ok(Answer::Later),
            }
        } else {
            link.next().await?
        };
        let Some(message) = next else {
            return if is_taken {
                Ok(Answer::Later)
            } else {
                Err(broken("it asked for the release before it answered"))
            };
        };
        let command = message.command;
        match command.field() {
            answer if answer == field::N_ACTION | field::RESPONSE => {
                link.drain().await?;
                match command.status() {
                    status::SUCCESS => is_taken = true,
                    code => return Ok(Answer::Refused(code)),
                }
            }
            field::N_EVENT_REPORT => {
                let bytes = link.whole_dataset(MAX_DATASET).await?;
                let report = read(&bytes, &context.transfer_syntax)
                    .ok()
                    .and_then(|dataset| Report::read(&dataset).ok())
                    .filter(|report| report.transaction_uid == request.transaction_uid);
                let code = if report.is_some() {
                    status::SUCCESS
                } else {
                    status::INVALID_ARGUMENT
                };
                let response = Command::response_to(&command, code);
                link.send(message.context, &response, None).await?;
                if let Some(report) = report {
                    return Ok(Answer::Report(report));
                }
            }
            _ => return Err(broken("it answered something else than the N-ACTION request")),
        }
    }
}
