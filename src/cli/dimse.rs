//! The flags of the DICOM listener, for `serve`.

use anyhow::Context as _;
use ictus::{
    association::Timeouts,
    dimse::{Caller, DEFAULT_ASSOCIATIONS, Settings},
};
use std::net::{SocketAddr, TcpListener};

/// DICOM over associations.
#[derive(Debug, clap::Args)]
pub(crate) struct DimseArgs {
    /// Address for DICOM associations; beyond loopback only with --dimse-allow.
    #[arg(long, env = "ICTUS_DIMSE", value_name = "ADDRESS:PORT")]
    dimse: Option<SocketAddr>,
    /// Our application entity title.
    #[arg(long, env = "ICTUS_AET", default_value = "ICTUS", value_name = "TITLE")]
    aet: String,
    /// An application entity that may call, everywhere or from one address; repeat it, or join with commas.
    #[arg(
        long,
        env = "ICTUS_DIMSE_ALLOW",
        value_delimiter = ',',
        value_name = "TITLE[@ADDRESS]"
    )]
    dimse_allow: Vec<Caller>,
    /// Associations at once; one host gets half of them.
    #[arg(long, env = "ICTUS_DIMSE_ASSOCIATIONS", default_value_t = DEFAULT_ASSOCIATIONS, value_name = "COUNT")]
    dimse_associations: usize,
}

/// A bound listener with what it needs to know.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) settings: Settings,
}

impl DimseArgs {
    /// Whether the flags go together; the sentence says why not.
    pub(crate) fn check(&self) -> Result<(), ictus::dimse::DimseError> {
        match self.dimse {
            Some(listen) => self.settings().check(listen),
            None => Ok(()),
        }
    }

    /// Binds the listener, if there is to be one.
    pub(crate) fn bind(&self) -> anyhow::Result<Option<Listener>> {
        let Some(listen) = self.dimse else { return Ok(None) };
        let socket = TcpListener::bind(listen)
            .with_context(|| format!("cannot listen on {listen}; choose another --dimse"))?;
        socket.set_nonblocking(true)?;
        Ok(Some(Listener {
            socket,
            settings: self.settings(),
        }))
    }

    fn settings(&self) -> Settings {
        Settings {
            title: self.aet.clone(),
            allowed: self.dimse_allow.clone(),
            associations: self.dimse_associations,
            timeouts: Timeouts::default(),
            peers: Vec::new(),
        }
    }
}
