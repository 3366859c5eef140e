//! Queries and retrievals that we ask for: C-FIND, C-MOVE and C-GET as a user.
//!
//! How many answers are taken is bounded: past the limit the query is cancelled.
//!
//! Source: PS3.4 section C.4; PS3.7 sections 9.1.2 to 9.1.4 and 9.3.

use crate::{
    association::{
        AssociationError, Context, Link,
        command::{Command, element, field, status},
    },
    dicom::identifier,
};
use dicom_object::InMemDicomObject;
use tokio::io::{AsyncRead, AsyncWrite};

/// Priority MEDIUM (PS3.7 table 9.1-1).
const MEDIUM: u16 = 0;
/// The longest answer to a query.
const MAX_ANSWER: usize = 1 << 20;

/// What a query found.
#[derive(Debug)]
pub struct Found {
    /// The answers, in the order of the peer.
    pub answers: Vec<InMemDicomObject>,
    /// The last status: 0000H when these are all.
    pub status: u16,
}

/// How a retrieval went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retrieved {
    /// The last status.
    pub status: u16,
    /// NumberOfCompletedSuboperations.
    pub completed: u16,
    /// NumberOfFailedSuboperations.
    pub failed: u16,
    /// NumberOfWarningSuboperations.
    pub warning: u16,
}

impl Retrieved {
    fn of(response: &Command) -> Self {
        let count = |element| response.u16(element).unwrap_or_default();
        Self {
            status: response.status(),
            completed: count(element::COMPLETED),
            failed: count(element::FAILED),
            warning: count(element::WARNING),
        }
    }
}

/// Asks a query and reads its answers, `limit` at most.
///
/// # Errors
/// When the association ends, or something else is answered.
pub async fn find<S: AsyncRead + AsyncWrite + Unpin + Send>(
    link: &mut Link<S>,
    context: &Context,
    number: u16,
    keys: InMemDicomObject,
    limit: usize,
) -> Result<Found, AssociationError> {
    request(link, context, field::C_FIND, number, keys, None).await?;
    let (mut answers, mut cancelled) = (Vec::new(), false);
    loop {
        let response = answer(link, field::C_FIND, number).await?;
        let status = response.status();
        if !is_pending(status) {
            return Ok(Found { answers, status });
        }
        if response.has_dataset() {
            let bytes = link.whole_dataset(MAX_ANSWER).await?;
            if answers.len() < limit {
                answers.push(read(&bytes, context)?);
            }
        }
        if answers.len() >= limit && !cancelled {
            cancelled = true;
            cancel(link, context, number).await?;
        }
    }
}

/// Asks the peer to send instances to somebody, and waits until it has.
///
/// # Errors
/// When the association ends, or something else is answered.
pub async fn move_to<S: AsyncRead + AsyncWrite + Unpin + Send>(
    link: &mut Link<S>,
    context: &Context,
    number: u16,
    keys: InMemDicomObject,
    destination: &str,
) -> Result<Retrieved, AssociationError> {
    request(link, context, field::C_MOVE, number, keys, Some(destination)).await?;
    loop {
        let response = answer(link, field::C_MOVE, number).await?;
        link.drain().await?;
        if !is_pending(response.status()) {
            return Ok(Retrieved::of(&response));
        }
    }
}

/// Tells the peer that no more answers are wanted.
///
/// # Errors
/// When the association ends.
pub async fn cancel<S: AsyncRead + AsyncWrite + Unpin + Send>(
    link: &mut Link<S>,
    context: &Context,
    number: u16,
) -> Result<(), AssociationError> {
    let command = Command::new(field::C_CANCEL).with_u16(element::MESSAGE_ID_BEING_RESPONDED_TO, number);
    link.send(context.id, &command, None).await
}

/// Sends the request of a query or retrieval.
///
/// # Errors
/// When the association ends, or a key cannot be written.
pub async fn request<S: AsyncRead + AsyncWrite + Unpin + Send>(
    link: &mut Link<S>,
    context: &Context,
    field: u16,
    number: u16,
    keys: InMemDicomObject,
    destination: Option<&str>,
) -> Result<(), AssociationError> {
    let mut command = Command::new(field)
        .with_u16(element::MESSAGE_ID, number)
        .with_u16(element::PRIORITY, MEDIUM)
        .with_uid(element::AFFECTED_SOP_CLASS_UID, &context.abstract_syntax);
    if let Some(destination) = destination {
        command = command.with_text(element::MOVE_DESTINATION, destination);
    }
    let bytes = identifier::write(keys, &context.transfer_syntax)
        .map_err(|_| AssociationError::Protocol("a key of ours cannot be written".to_owned()))?;
    link.send(context.id, &command, Some(&bytes)).await
}

/// Whether more follows.
#[must_use]
pub fn is_pending(code: u16) -> bool {
    matches!(code, status::PENDING | status::PENDING_WITHOUT_OPTIONAL_KEYS)
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send>(
    link: &mut Link<S>,
    field: u16,
    number: u16,
) -> Result<Command, AssociationError> {
    let Some(message) = link.next().await? else {
        return Err(AssociationError::Protocol(
            "it asked for the release before it answered".to_owned(),
        ));
    };
    let command = message.command;
    let is_answer = command.field() == field | field::RESPONSE
        && command.u16(element::MESSAGE_ID_BEING_RESPONDED_TO) == Some(number);
    if is_answer {
        Ok(command)
    } else {
        Err(AssociationError::Protocol(
            "it answered something else than the request".to_owned(),
        ))
    }
}

fn read(bytes: &[u8], context: &Context) -> Result<InMemDicomObject, AssociationError> {
    identifier::read(bytes, &context.transfer_syntax)
        .map_err(|_| AssociationError::Protocol("a dataset of its answer cannot be read".to_owned()))
}
