//! The flags of the DICOM listener, for `serve`.

use anyhow::Context as _;
use ictus::{
    association::{
        Timeouts,
        requestor::Peer,
        tls::{Identity, Listening},
    },
    dimse::{Caller, DEFAULT_ASSOCIATIONS, Settings},
};
use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

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
    /// Certificate chain (PEM) of the listener: with it every association is over TLS.
    #[arg(
        long,
        env = "ICTUS_DIMSE_TLS_CERTIFICATE",
        requires = "dimse_tls_key",
        value_name = "PATH"
    )]
    dimse_tls_certificate: Option<PathBuf>,
    /// Key (PEM) of that certificate.
    #[arg(
        long,
        env = "ICTUS_DIMSE_TLS_KEY",
        requires = "dimse_tls_certificate",
        value_name = "PATH"
    )]
    dimse_tls_key: Option<PathBuf>,
    /// Authorities (PEM): who calls must show a certificate of theirs.
    #[arg(
        long,
        env = "ICTUS_DIMSE_TLS_CA",
        requires = "dimse_tls_certificate",
        value_name = "PATH"
    )]
    dimse_tls_ca: Option<PathBuf>,
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

    /// Our application entity title.
    pub(crate) fn title(&self) -> &str {
        &self.aet
    }

    /// Binds the listener, if there is to be one; `peers`: whom it may send to.
    pub(crate) fn bind(&self, peers: Vec<Peer>) -> anyhow::Result<Option<Listener>> {
        let Some(listen) = self.dimse else { return Ok(None) };
        let tls = match (&self.dimse_tls_certificate, &self.dimse_tls_key) {
            (Some(certificate), Some(key)) => {
                let identity = Identity {
                    certificate: certificate.clone(),
                    key: key.clone(),
                };
                Some(Listening::new(&identity, self.dimse_tls_ca.as_deref())?)
            }
            _ => None,
        };
        let socket = TcpListener::bind(listen)
            .with_context(|| format!("cannot listen on {listen}; choose another --dimse"))?;
        socket.set_nonblocking(true)?;
        Ok(Some(Listener {
            socket,
            settings: Settings {
                peers,
                tls,
                ..self.settings()
            },
        }))
    }

    fn settings(&self) -> Settings {
        Settings {
            title: self.aet.clone(),
            allowed: self.dimse_allow.clone(),
            associations: self.dimse_associations,
            timeouts: Timeouts::default(),
            peers: Vec::new(),
            tls: None,
        }
    }
}
