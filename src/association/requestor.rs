//! Contexts that we want → an [`Association`] with the ones that the peer accepts.
//!
//! Which contexts were refused is for the caller to see: they are not among the accepted ones.
//!
//! Source: PS3.8 sections 7.1, 9.2 and 9.3; PS3.7 annex D.3.

use super::{
    APPLICATION_CONTEXT, Association, AssociationError, Context, IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME, Link, MAX_PDU, Timeouts, Wire, tls::Calling,
};
use crate::domain::phi::redact;
use dicom_ul::pdu::{
    AssociationRJResult, AssociationRQ, Pdu, PresentationContextProposed, PresentationContextResultReason,
    RequestorRoles, UserVariableItem,
};
use std::{fmt, str::FromStr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// The most contexts of an association: odd numbers of one byte.
pub const MAX_CONTEXTS: usize = 128;
/// How long a TCP connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);

/// An application entity and where it listens: `AET@HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its title.
    pub title: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How it is called by TLS; without, nothing is encrypted.
    pub tls: Option<Calling>,
}

/// A text that is not `AET@HOST:PORT`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a peer is written TITLE@HOST:PORT, such as PACS@10.0.0.5:104, and a title has 1 to 16 characters without a backslash"
)]
pub struct PeerError;

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (title, address) = text.split_once('@').ok_or(PeerError)?;
        let (host, port) = address.rsplit_once(':').ok_or(PeerError)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if !is_title(title) || host.is_empty() {
            return Err(PeerError);
        }
        Ok(Self {
            title: title.to_owned(),
            host: host.to_owned(),
            port: port.parse().map_err(|_| PeerError)?,
            tls: None,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.title, self.host, self.port)
    }
}

/// Whether a text can be an AE title (PS3.5 table 6.2-1, VR AE).
#[must_use]
pub fn is_title(text: &str) -> bool {
    let fits = |c: char| (' '..='~').contains(&c) && c != '\\';
    !text.trim().is_empty() && text.len() <= 16 && text.chars().all(fits) && text == text.trim()
}

/// A context to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// SOP class.
    pub abstract_syntax: String,
    /// What its datasets may be written in, best first.
    pub transfer_syntaxes: Vec<String>,
    /// Whether we are its SCP, which needs role selection; else we are its SCU.
    pub we_provide: bool,
}

/// Connects to a peer and asks for an association.
///
/// # Errors
/// When the peer cannot be reached, does not answer, or rejects the association.
pub async fn request(
    peer: &Peer,
    calling: &str,
    proposals: &[Proposal],
    timeouts: Timeouts,
) -> Result<Association<Wire>, AssociationError> {
    let address = (peer.host.as_str(), peer.port);
    let stream = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(AssociationError::Unreachable(redact(&error))),
        Err(_) => {
            return Err(AssociationError::Timeout {
                doing: "to accept a connection",
                seconds: CONNECT.as_secs(),
            });
        }
    };
    stream.set_nodelay(true)?;
    let wire: Wire = match &peer.tls {
        None => Box::new(stream),
        Some(tls) => match timeout(timeouts.establish, tls.connect(&peer.host, stream)).await {
            Ok(connected) => connected?,
            Err(_) => {
                return Err(AssociationError::Timeout {
                    doing: "to shake hands",
                    seconds: timeouts.establish.as_secs(),
                });
            }
        },
    };
    let link = Link::new(wire, timeouts);
    negotiate(link, peer, calling, proposals).await
}

async fn negotiate(
    mut link: Link<Wire>,
    peer: &Peer,
    calling: &str,
    proposals: &[Proposal],
) -> Result<Association<Wire>, AssociationError> {
    let numbered: Vec<(u8, &Proposal)> = (0..=127u8).map(|n| 2 * n + 1).zip(proposals).collect();
    let mut user_variables = vec![
        UserVariableItem::MaxLength(MAX_PDU),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ];
    let provided = proposals.iter().filter(|proposal| proposal.we_provide);
    user_variables.extend(provided.map(|proposal| {
        let roles = RequestorRoles {
            scu: false,
            scp: true,
        };
        UserVariableItem::ScuScpRoleSelectionSubItem(proposal.abstract_syntax.clone(), roles)
    }));
    let request = AssociationRQ {
        protocol_version: 1,
        calling_ae_title: calling.to_owned(),
        called_ae_title: peer.title.clone(),
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: numbered
            .iter()
            .map(|(id, proposal)| PresentationContextProposed {
                id: *id,
                abstract_syntax: proposal.abstract_syntax.clone(),
                transfer_syntaxes: proposal.transfer_syntaxes.clone(),
            })
            .collect(),
        user_variables,
    };
    link.send_pdu(&Pdu::AssociationRQ(request)).await?;
    let accepted = match link.receive_pdu("to answer an association request").await? {
        Pdu::AssociationAC(accepted) => accepted,
        Pdu::AssociationRJ(rejection) => {
            let how = match rejection.result {
                AssociationRJResult::Permanent => "for good",
                AssociationRJResult::Transient => "for now",
            };
            return Err(AssociationError::Rejected(format!(
                "{}, {how}",
                reason(&rejection.source)
            )));
        }
        Pdu::AbortRQ { .. } => return Err(AssociationError::Aborted),
        _ => {
            let error = AssociationError::Protocol("the answer to an association request is none".to_owned());
            link.abort(Some(&error)).await;
            return Err(error);
        }
    };
    for variable in &accepted.user_variables {
        if let UserVariableItem::MaxLength(bytes) = variable {
            link.set_peer_max_pdu(*bytes);
        }
    }
    let contexts = accepted
        .presentation_contexts
        .iter()
        .filter(|result| result.reason == PresentationContextResultReason::Acceptance)
        .filter_map(|result| {
            let (id, proposal) = numbered.iter().find(|(id, _)| *id == result.id)?;
            let chosen = result.transfer_syntax.trim_matches([' ', '\0']);
            // What was not proposed cannot be accepted; such a context is not used.
            let transfer_syntax = proposal.transfer_syntaxes.iter().find(|uid| *uid == chosen)?;
            Some(Context {
                id: *id,
                abstract_syntax: proposal.abstract_syntax.clone(),
                transfer_syntax: transfer_syntax.clone(),
                we_may_send: true,
            })
        })
        .collect();
    Ok(Association {
        link,
        contexts,
        calling: calling.to_owned(),
        called: peer.title.clone(),
    })
}

/// The words of PS3.8 table 9-21 for a rejection.
fn reason(source: &dicom_ul::pdu::AssociationRJSource) -> String {
    source.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_peers_and_refuses_what_is_none() {
        let peer: Peer = "MY PACS@10.0.0.5:104".parse().unwrap();
        assert_eq!(
            (peer.title.as_str(), peer.host.as_str(), peer.port),
            ("MY PACS", "10.0.0.5", 104)
        );
        assert_eq!("A@[::1]:11112".parse::<Peer>().unwrap().host, "::1");
        for text in [
            "PACS",
            "PACS@host",
            "@host:1",
            "PACS@host:x",
            "PACS@:1",
            "SEVENTEENLETTERSX@h:1",
        ] {
            assert_eq!(text.parse::<Peer>(), Err(PeerError), "{text}");
        }
    }
}
