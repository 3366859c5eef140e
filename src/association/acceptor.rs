//! An association request → an [`Association`], or the rejection that says why.
//!
//! Who may call and which contexts are taken is the caller's to say ([`Rules`]).
//! Asynchronous operations are not negotiated, so that one message is under way at a time each way (PS3.7 D.3.3.3).
//! Storage contexts are offered in both roles where the peer asks for it, which is what C-GET needs (PS3.7 D.3.3.4).
//!
//! Source: PS3.8 sections 7.1, 9.2 and 9.3; PS3.7 annex D.3.

use super::{
    APPLICATION_CONTEXT, Association, AssociationError, Context, IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME, Link, MAX_PDU,
};
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason, AssociationRJSource,
    AssociationRQ, Pdu, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason, UserVariableItem,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Its title is not on the list.
    CallingTitle,
    /// It wants somebody else.
    CalledTitle,
    /// Too many associations are open; it may try again.
    LimitReached,
}

/// What is done with a proposed context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Taken, in this transfer syntax.
    Take(&'a str),
    /// No such service here.
    AbstractSyntax,
    /// None of the transfer syntaxes.
    TransferSyntaxes,
}

/// Who may call, and for what.
pub trait Rules: Send + Sync {
    /// Whether an application entity may call this one.
    ///
    /// # Errors
    /// The reason to reject it.
    fn admit(&self, calling: &str, called: &str) -> Result<(), Rejection>;

    /// What is done with a context; `peer_provides`: the peer wants to be its SCP, so that we send on it.
    fn answer<'a>(
        &self,
        abstract_syntax: &str,
        transfer_syntaxes: &'a [String],
        peer_provides: bool,
    ) -> Answer<'a>;

    /// Whether the peer may be the SCP of a SOP class on this association.
    fn peer_may_provide(&self, abstract_syntax: &str) -> bool;
}

/// Reads an association request and answers it.
///
/// # Errors
/// When the request is refused, broken, or does not come in time; it is answered and the connection closed.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut link: Link<S>,
    rules: &dyn Rules,
) -> Result<Association<S>, AssociationError> {
    match link.receive_pdu("to ask for an association").await {
        Ok(Pdu::AssociationRQ(request)) => answer(link, request, rules).await,
        Ok(Pdu::AbortRQ { .. }) => Err(AssociationError::Aborted),
        Ok(_) => {
            let error = AssociationError::Protocol("the first PDU is no association request".to_owned());
            link.abort(Some(&error)).await;
            Err(error)
        }
        Err(error) => {
            link.abort(Some(&error)).await;
            Err(error)
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut link: Link<S>,
    request: AssociationRQ,
    rules: &dyn Rules,
) -> Result<Association<S>, AssociationError> {
    let (calling, called) = (title(&request.calling_ae_title), title(&request.called_ae_title));
    if let Err((result, source, why)) = judge(&request, &calling, &called, rules) {
        let rejection = AssociationRJ { result, source };
        link.send_pdu(&Pdu::AssociationRJ(rejection)).await?;
        link.linger().await;
        return Err(AssociationError::Refused { calling, why });
    }
    if let Some(problem) = contexts_problem(&request.presentation_contexts) {
        let error = AssociationError::Protocol(problem.to_owned());
        link.abort(Some(&error)).await;
        return Err(error);
    }
    let mut contexts = Vec::new();
    let results = request
        .presentation_contexts
        .iter()
        .map(|proposed| {
            let (result, context) = negotiate(proposed, &request.user_variables, rules);
            contexts.extend(context);
            result
        })
        .collect();
    let user_variables = variables(&request, rules, &mut contexts, &mut link);
    let accepted = AssociationAC {
        protocol_version: 1,
        // The titles come back as they were sent (PS3.8 section 9.3.3).
        calling_ae_title: request.calling_ae_title,
        called_ae_title: request.called_ae_title,
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: results,
        user_variables,
    };
    link.send_pdu(&Pdu::AssociationAC(accepted)).await?;
    Ok(Association {
        link,
        contexts,
        calling,
        called,
    })
}

type Verdict = (AssociationRJResult, AssociationRJSource, &'static str);

fn judge(request: &AssociationRQ, calling: &str, called: &str, rules: &dyn Rules) -> Result<(), Verdict> {
    use AssociationRJResult::{Permanent, Transient};
    use AssociationRJServiceUserReason as User;
    // Only bit 0 counts (PS3.8 section 9.3.2).
    if request.protocol_version & 1 == 0 {
        let reason = AssociationRJServiceProviderASCEReason::ProtocolVersionNotSupported;
        return Err((
            Permanent,
            AssociationRJSource::ServiceProviderASCE(reason),
            "its protocol version is not 1",
        ));
    }
    if trimmed(&request.application_context_name) != APPLICATION_CONTEXT {
        let reason = User::ApplicationContextNameNotSupported;
        return Err((
            Permanent,
            AssociationRJSource::ServiceUser(reason),
            "its application context is not DICOM's",
        ));
    }
    rules.admit(calling, called).map_err(|rejection| match rejection {
        Rejection::CallingTitle => (
            Permanent,
            AssociationRJSource::ServiceUser(User::CallingAETitleNotRecognized),
            "the calling AE title is not allowed",
        ),
        Rejection::CalledTitle => (
            Permanent,
            AssociationRJSource::ServiceUser(User::CalledAETitleNotRecognized),
            "the called AE title is not ours",
        ),
        Rejection::LimitReached => (
            Transient,
            AssociationRJSource::ServiceProviderPresentation(
                AssociationRJServiceProviderPresentationReason::LocalLimitExceeded,
            ),
            "too many associations are open",
        ),
    })
}

/// Contexts have odd numbers of their own (PS3.8 section 9.3.2.2).
fn contexts_problem(proposed: &[PresentationContextProposed]) -> Option<&'static str> {
    if proposed.is_empty() {
        return Some("it proposes no presentation context");
    }
    let mut seen = [false; 256];
    for context in proposed {
        let known = &mut seen[usize::from(context.id)];
        if context.id.is_multiple_of(2) || *known {
            return Some("the numbers of its presentation contexts are not odd and different");
        }
        *known = true;
    }
    None
}

fn negotiate(
    proposed: &PresentationContextProposed,
    variables: &[UserVariableItem],
    rules: &dyn Rules,
) -> (PresentationContextResult, Option<Context>) {
    use PresentationContextResultReason as Reason;
    let abstract_syntax = trimmed(&proposed.abstract_syntax).to_owned();
    let syntaxes: Vec<String> = proposed
        .transfer_syntaxes
        .iter()
        .map(|uid| trimmed(uid).to_owned())
        .collect();
    let peer_provides = variables.iter().any(|variable| match variable {
        UserVariableItem::ScuScpRoleSelectionSubItem(class, asked) => {
            asked.scp && trimmed(class) == abstract_syntax && rules.peer_may_provide(&abstract_syntax)
        }
        _ => false,
    });
    let (reason, transfer_syntax) = match rules.answer(&abstract_syntax, &syntaxes, peer_provides) {
        Answer::Take(syntax) => (Reason::Acceptance, syntax),
        Answer::AbstractSyntax => (Reason::AbstractSyntaxNotSupported, super::syntax::IMPLICIT),
        Answer::TransferSyntaxes => (Reason::TransferSyntaxesNotSupported, super::syntax::IMPLICIT),
    };
    let context = (reason == Reason::Acceptance).then(|| Context {
        id: proposed.id,
        abstract_syntax,
        transfer_syntax: transfer_syntax.to_owned(),
        we_may_send: false,
    });
    let result = PresentationContextResult {
        id: proposed.id,
        reason,
        transfer_syntax: transfer_syntax.to_owned(),
    };
    (result, context)
}

/// Answers the user information, and notes what it says on the link and the contexts.
fn variables<S: AsyncRead + AsyncWrite + Unpin + Send>(
    request: &AssociationRQ,
    rules: &dyn Rules,
    contexts: &mut [Context],
    link: &mut Link<S>,
) -> Vec<UserVariableItem> {
    let mut answers = vec![
        UserVariableItem::MaxLength(MAX_PDU),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ];
    for variable in &request.user_variables {
        match variable {
            UserVariableItem::MaxLength(bytes) => link.set_peer_max_pdu(*bytes),
            UserVariableItem::ScuScpRoleSelectionSubItem(class, asked) => {
                let class = trimmed(class);
                let mut granted = *asked;
                granted.scp = asked.scp && rules.peer_may_provide(class);
                for context in contexts.iter_mut().filter(|c| c.abstract_syntax == class) {
                    context.we_may_send = granted.scp;
                }
                answers.push(UserVariableItem::ScuScpRoleSelectionSubItem(
                    class.to_owned(),
                    granted,
                ));
            }
            _ => {}
        }
    }
    answers
}

/// An AE title as it is compared: without leading and trailing spaces.
fn title(text: &str) -> String {
    trimmed(text).to_owned()
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\0'])
}
