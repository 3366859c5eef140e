//! The DICOM upper layer behind our words: a stream of bytes ↔ associations, commands and datasets.
//!
//! [`acceptor::accept`] answers who calls us, [`requestor::request`] calls somebody; both lead to an [`Association`] whose
//! [`Link`] sends and receives DIMSE messages.
//! PDUs of the association's begin and end are read and written by dicom-ul.
//! Its own server and client are not used: they choose one transfer syntax list for all SOP classes, answer garbage and
//! lying lengths with silence, have no limit on a whole association request, and cannot say that a limit is reached.
//!
//! What must hold: a peer that stalls, trickles, lies or shouts is answered with an abort within a bounded time, and
//! nothing is allocated because a length field says so.
//! It knows no database, no archive and no SOP class' meaning beside which are for storage.
//!
//! Source: PS3.8 sections 7 and 9; PS3.7 annex D.

pub mod acceptor;
pub mod command;
mod link;
pub mod requestor;
pub mod syntax;
pub mod tls;

pub use link::{Fragment, Link, Message, Timeouts};

use crate::domain::{
    failure::FailureClass,
    phi::{Redacted, redact},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Our Implementation Class UID (PS3.7 annex D.3.3.2): 2.25 and a random UUID, the same for every build.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.295810259018435567731579575889026578839";
/// Our Implementation Version Name, at most 16 characters.
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("ICTUS_", env!("CARGO_PKG_VERSION"));
/// DICOM Application Context Name (PS3.7 annex A.2.1).
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// The longest P-DATA-TF that we take, without its head: four times what most peers send.
const MAX_PDU: u32 = 1 << 17;

/// Why an association ended, or never began.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssociationError {
    /// The connection is gone.
    #[error("the peer closed the connection without a release")]
    Closed,
    /// A-ABORT came.
    #[error("the peer aborted the association")]
    Aborted,
    /// The peer was too slow.
    #[error("the peer took longer than {seconds} s {doing}")]
    Timeout {
        /// What was waited for.
        doing: &'static str,
        /// How long at most.
        seconds: u64,
    },
    /// The bytes are not what PS3.8 and PS3.7 say.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// A PDU type that does not exist.
    #[error("the peer sent a PDU of the unknown type {0:#04x}")]
    UnknownPdu(u8),
    /// We refused the request.
    #[error("the association is refused: {why}")]
    Refused {
        /// Who asked.
        calling: String,
        /// Why not.
        why: &'static str,
    },
    /// The peer refused our request.
    #[error("the peer rejected the association: {0}")]
    Rejected(String),
    /// Nobody answers at the peer's address.
    #[error("the peer cannot be reached")]
    Unreachable(#[source] Redacted),
    /// No handshake.
    #[error("TLS with the peer did not come about")]
    Tls(#[source] Redacted),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] Redacted),
}

impl AssociationError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Protocol(_) | Self::UnknownPdu(_) | Self::Refused { .. } => FailureClass::Input,
            _ => FailureClass::Transient,
        }
    }
}

impl From<std::io::Error> for AssociationError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionReset | Kind::BrokenPipe | Kind::UnexpectedEof | Kind::ConnectionAborted => {
                Self::Closed
            }
            _ => Self::Io(redact(&error)),
        }
    }
}

/// What carries an association: a TCP connection, or TLS on one.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug> Duplex for S {}

/// Any [`Duplex`].
pub type Wire = Box<dyn Duplex>;

/// A presentation context that both sides accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its number: odd, 1 to 255.
    pub id: u8,
    /// SOP class.
    pub abstract_syntax: String,
    /// The one transfer syntax of its datasets.
    pub transfer_syntax: String,
    /// Whether we may be the SCU of it, which needs role selection when the peer asked for the association.
    pub we_may_send: bool,
}

/// An established association.
#[derive(Debug)]
pub struct Association<S> {
    /// The messages.
    pub link: Link<S>,
    /// The accepted contexts.
    pub contexts: Vec<Context>,
    /// Who called.
    pub calling: String,
    /// Who was called.
    pub called: String,
}

impl<S> Association<S> {
    /// The context of a number.
    #[must_use]
    pub fn context(&self, id: u8) -> Option<&Context> {
        self.contexts.iter().find(|context| context.id == id)
    }
}
