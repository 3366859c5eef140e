//! A stored instance → one C-STORE request in a form that the peer accepted.
//!
//! Each SOP class is offered in the transfer syntax of its file, in Explicit and in Implicit VR Little Endian, a context
//! each, so that what the peer accepts is unambiguous; the first of them that it accepts is used.
//!
//! Source: PS3.4 annex B, table B.2-1; PS3.7 section 9.1.1; PS3.8 section 7.1.

use crate::{
    association::{
        AssociationError, Context, Link,
        command::{Command, element, field},
        requestor::Proposal,
        syntax,
    },
    dicom::{part10, transcode},
    domain::{failure::FailureClass, phi::redact},
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// Priority MEDIUM (PS3.7 table 9.1-1).
const MEDIUM: u16 = 0;

/// Why a file cannot be given in a form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// The file itself.
    #[error("the stored file cannot be sent: {0}")]
    File(crate::domain::phi::Redacted),
    /// Decoding it.
    #[error("the stored file cannot be brought into a transfer syntax that the target accepts: {0}")]
    Transcode(crate::domain::phi::Redacted),
    /// A task of ours.
    #[error("preparing the file failed; this is a fault of ictus")]
    Interrupted,
}

impl FormError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::File(_) | Self::Transcode(_) => FailureClass::Input,
            Self::Interrupted => FailureClass::Internal,
        }
    }
}

/// The transfer syntaxes that a file can be given in, as it is first.
///
/// Deflated comes last: there are archives that take it and show nothing.
#[must_use]
pub fn forms(stored: &str) -> Vec<&str> {
    let mut forms = vec![stored];
    if transcode::is_decodable(stored) {
        for other in [syntax::EXPLICIT, syntax::IMPLICIT] {
            if other != stored {
                forms.push(other);
            }
        }
    }
    if stored == DEFLATED {
        forms.rotate_left(1);
    }
    forms
}

/// Deflated Explicit VR Little Endian.
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// The contexts to ask for, to send instances of these SOP classes and transfer syntaxes; each once.
#[must_use]
pub fn proposals<'a>(instances: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Proposal> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (class, stored) in instances {
        for form in forms(stored) {
            if !wanted.contains(&(class, form)) {
                wanted.push((class, form));
            }
        }
    }
    wanted
        .into_iter()
        .map(|(class, form)| Proposal {
            abstract_syntax: class.to_owned(),
            transfer_syntaxes: vec![form.to_owned()],
            we_provide: false,
        })
        .collect()
}

/// The context to send an instance on: the first of its forms that the peer takes from us.
#[must_use]
pub fn choose<'c>(contexts: &'c [Context], class: &str, stored: &str) -> Option<&'c Context> {
    forms(stored).into_iter().find_map(|form| {
        contexts.iter().find(|context| {
            context.we_may_send && context.abstract_syntax == class && context.transfer_syntax == form
        })
    })
}

/// The dataset of a file in the form of a context.
///
/// # Errors
/// When it cannot be decoded, which is not the peer's fault.
pub async fn in_form(file: Bytes, stored: &str, context: &Context) -> Result<Bytes, FormError> {
    let (same, explicit) = (
        context.transfer_syntax == stored,
        context.transfer_syntax == syntax::EXPLICIT,
    );
    let made = tokio::task::spawn_blocking(move || {
        let transcoded = |made: Result<Vec<u8>, transcode::TranscodeError>| {
            made.map(Bytes::from)
                .map_err(|error| FormError::Transcode(redact(&error)))
        };
        let file = match (same, explicit) {
            (true, _) => file,
            (false, true) => transcoded(transcode::to_explicit_vr_little_endian(&file))?,
            (false, false) => transcoded(transcode::to_implicit_vr_little_endian(&file))?,
        };
        match part10::dataset(&file) {
            Ok(dataset) => Ok(file.slice_ref(dataset)),
            Err(error) => Err(FormError::File(redact(&error))),
        }
    });
    made.await.unwrap_or(Err(FormError::Interrupted))
}

/// One C-STORE request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// SOPClassUID.
    pub sop_class_uid: &'a str,
    /// SOPInstanceUID.
    pub sop_instance_uid: &'a str,
    /// MessageID.
    pub number: u16,
    /// Who asked for it by C-MOVE, and in which message.
    pub originator: Option<(&'a str, u16)>,
    /// The dataset in the form of the context.
    pub dataset: &'a [u8],
}

/// What a C-STORE request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Whether a C-CANCEL came before the answer.
    pub cancelled: bool,
}

/// Sends an instance and waits for the answer.
///
/// # Errors
/// When the association ends, or something else is answered.
pub async fn c_store<S: AsyncRead + AsyncWrite + Unpin + Send>(
    link: &mut Link<S>,
    context: &Context,
    request: &Request<'_>,
) -> Result<Answer, AssociationError> {
    let mut command = Command::new(field::C_STORE)
        .with_u16(element::MESSAGE_ID, request.number)
        .with_u16(element::PRIORITY, MEDIUM)
        .with_uid(element::AFFECTED_SOP_CLASS_UID, request.sop_class_uid)
        .with_uid(element::AFFECTED_SOP_INSTANCE_UID, request.sop_instance_uid);
    if let Some((title, message)) = request.originator {
        command = command
            .with_text(element::MOVE_ORIGINATOR, title)
            .with_u16(element::MOVE_ORIGINATOR_MESSAGE_ID, message);
    }
    link.send(context.id, &command, Some(request.dataset)).await?;
    let mut cancelled = false;
    loop {
        let Some(answer) = link.next().await? else {
            return Err(AssociationError::Protocol(
                "it asked for the release before it answered".to_owned(),
            ));
        };
        if answer.command.field() == field::C_CANCEL {
            cancelled = true;
            continue;
        }
        let is_answer = answer.command.field() == field::C_STORE | field::RESPONSE
            && answer.command.u16(element::MESSAGE_ID_BEING_RESPONDED_TO) == Some(request.number);
        if !is_answer {
            return Err(AssociationError::Protocol(
                "it answered something else than the C-STORE request".to_owned(),
            ));
        }
        let status = answer
            .command
            .u16(element::STATUS)
            .ok_or_else(|| AssociationError::Protocol("its answer has no status".to_owned()))?;
        return Ok(Answer { status, cancelled });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_what_can_be_made_of_a_file() {
        const RLE: &str = "1.2.840.10008.1.2.5";
        assert_eq!(forms(RLE), [RLE, syntax::EXPLICIT, syntax::IMPLICIT]);
        assert_eq!(forms(syntax::EXPLICIT), [syntax::EXPLICIT, syntax::IMPLICIT]);
        assert_eq!(forms("1.2.840.10008.1.2.4.100"), ["1.2.840.10008.1.2.4.100"]);
        assert_eq!(forms(DEFLATED), [syntax::EXPLICIT, syntax::IMPLICIT, DEFLATED]);
    }

    #[test]
    fn sends_only_where_the_peer_takes_it_from_us() {
        let context = |id, transfer_syntax: &str, we_may_send| Context {
            id,
            abstract_syntax: "1.2.3".to_owned(),
            transfer_syntax: transfer_syntax.to_owned(),
            we_may_send,
        };
        let contexts = [
            context(1, syntax::IMPLICIT, true),
            context(3, syntax::EXPLICIT, false),
        ];
        let chosen = choose(&contexts, "1.2.3", syntax::EXPLICIT);
        assert_eq!(chosen.map(|context| context.id), Some(1));
        assert_eq!(choose(&contexts, "1.2.4", syntax::EXPLICIT), None);
    }
}
