//! The flags of the HL7 listener, for `serve`.

use anyhow::Context as _;
use ictus::adt::{AdtError, Settings};
use std::net::{IpAddr, SocketAddr, TcpListener};

/// HL7 v2 over MLLP.
#[derive(Debug, clap::Args)]
pub(crate) struct AdtArgs {
    /// Address for HL7 ADT messages (A08, A31, A40) over MLLP; beyond loopback only with --hl7-allow.
    #[arg(long, env = "ICTUS_HL7", value_name = "ADDRESS:PORT")]
    hl7: Option<SocketAddr>,
    /// An address that may send HL7 messages; repeat it, or join with commas.
    #[arg(long, env = "ICTUS_HL7_ALLOW", value_delimiter = ',', value_name = "ADDRESS")]
    hl7_allow: Vec<IpAddr>,
}

/// A bound listener with what it needs to know.
pub(crate) struct AdtListener {
    pub(crate) socket: TcpListener,
    pub(crate) settings: Settings,
}

impl AdtArgs {
    /// Whether the flags go together; the sentence says why not.
    pub(crate) fn check(&self) -> Result<(), AdtError> {
        self.hl7.map_or(Ok(()), |listen| self.settings().check(listen))
    }

    /// Binds the listener, if there is to be one.
    pub(crate) fn bind(&self) -> anyhow::Result<Option<AdtListener>> {
        let Some(listen) = self.hl7 else { return Ok(None) };
        let socket = TcpListener::bind(listen)
            .with_context(|| format!("cannot listen on {listen}; choose another --hl7"))?;
        socket.set_nonblocking(true)?;
        Ok(Some(AdtListener {
            socket,
            settings: self.settings(),
        }))
    }

    fn settings(&self) -> Settings {
        Settings {
            allowed: self.hl7_allow.clone(),
        }
    }
}
