//! TLS below an association: certificates in PEM files → a listener's or a caller's handshake.
//!
//! TLS 1.2 and 1.3 with forward secrecy and authenticated encryption only, which is what rustls has.
//! A caller trusts the authorities of its file and no others; a listener with a file of authorities lets in only who shows
//! a certificate of theirs.
//! A caller reads its files for each association, so that certificates may be renewed while the server runs.
//!
//! Source: PS3.15 annex B.12 (BCP 195); PS3.8 section 9.1.

use super::{AssociationError, Duplex, Wire};
use crate::domain::{failure::FailureClass, phi::redact};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file.
    #[error("{path} holds no usable {what} in PEM; name a file that does")]
    File {
        /// The file.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The certificate and the key do not go together, or are of a kind that is not known.
    #[error("the certificate {0} and its key cannot be used together")]
    Pair(String),
}

impl TlsError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// A certificate and its key, by file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Chain of certificates, PEM.
    pub certificate: PathBuf,
    /// Key, PEM.
    pub key: PathBuf,
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|_| TlsError::File {
            path: self.key.display().to_string(),
            what: "private key",
        })?;
        Ok((certificates(&self.certificate)?, key))
    }
}

/// How a listener does TLS; clones share it.
#[derive(Clone)]
pub struct Listening(TlsAcceptor);

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listening")
    }
}

impl Listening {
    /// Reads the files; `client_authorities`: who signs the certificates that callers must show.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub fn new(identity: &Identity, client_authorities: Option<&Path>) -> Result<Self, TlsError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Pair(identity.certificate.display().to_string()))?;
        let builder = match client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|_| TlsError::File {
                    path: path.display().to_string(),
                    what: "certificate of an authority",
                })?)
            }
        };
        let (chain, key) = identity.read()?;
        let config = builder
            .with_single_cert(chain, key)
            .map_err(|_| TlsError::Pair(identity.certificate.display().to_string()))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a caller; how long it may take is the caller's to bound.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or shows no certificate that is trusted.
    pub async fn accept(&self, stream: TcpStream) -> Result<Wire, AssociationError> {
        let stream = self.0.accept(stream).await;
        Ok(wire(
            stream.map_err(|error| AssociationError::Tls(redact(&error)))?,
        ))
    }
}

/// How a peer is called by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calling {
    /// Who signs the certificate of the peer, PEM.
    pub authorities: PathBuf,
    /// What we show, if it wants to see something.
    pub identity: Option<Identity>,
}

impl Calling {
    /// Reads the files, to find out at the start what is wrong with them.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let pair = |identity: &Identity| TlsError::Pair(identity.certificate.display().to_string());
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Pair(self.authorities.display().to_string()))?
            .with_root_certificates(authorities(&self.authorities)?);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(identity) => {
                let (chain, key) = identity.read()?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|_| pair(identity))
            }
        }
    }

    /// Shakes hands with the peer that is called `host`; how long it may take is the caller's to bound.
    ///
    /// # Errors
    /// When a file cannot be read, or the peer is not who it should be.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> Result<Wire, AssociationError> {
        let config = self
            .config()
            .map_err(|error| AssociationError::Tls(redact(&error)))?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| AssociationError::Tls(redact(&error)))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        Ok(wire(
            stream.map_err(|error| AssociationError::Tls(redact(&error)))?,
        ))
    }
}

fn wire(stream: impl Duplex + 'static) -> Wire {
    Box::new(stream)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = || TlsError::File {
        path: path.display().to_string(),
        what: "certificate",
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|_| unusable())?;
    if chain.is_empty() {
        Err(unusable())
    } else {
        Ok(chain)
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|_| TlsError::File {
            path: path.display().to_string(),
            what: "certificate of an authority",
        })?;
    }
    Ok(roots)
}
