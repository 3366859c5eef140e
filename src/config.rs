//! Flags and environment of the server → settings, parsed once.
//!
//! Secrets stay in [`Secret`], whose `Debug` shows nothing.
//! It reads no file itself and does not open what it names.

use crate::domain::device::DeviceChoice;
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// How long a series must be quiet before it is taken to be complete: modalities pause seconds, not tens of them,
/// between the slices of one series.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(10);

/// The largest instance that is taken; the largest head CT instances are multi-frame objects of some hundred MB.
pub const DEFAULT_MAX_INSTANCE_BYTES: u64 = 1 << 30;

/// The largest STOW request that is taken: a whole thin-slice study with room to spare.
pub const DEFAULT_MAX_REQUEST_BYTES: u64 = 16 << 30;

/// Why a setting cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a database URL.
    #[error(
        "DATABASE_URL must start with postgres:// or postgresql://; unset it to use the private database"
    )]
    DatabaseUrl,
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value, for the one place that uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A database URL from the environment: an empty value counts as none.
///
/// # Errors
/// When it is not a Postgres URL; the value is not quoted, it may hold a password.
pub fn database_url(value: Option<String>) -> Result<Option<Secret>, ConfigError> {
    match value.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) if text.starts_with("postgres://") || text.starts_with("postgresql://") => {
            Ok(Some(Secret(text)))
        }
        Some(_) => Err(ConfigError::DatabaseUrl),
    }
}

/// Settings of `serve`.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// Directory of the archive and the private database.
    pub data: PathBuf,
    /// The database; the private one when there is none.
    pub database_url: Option<Secret>,
    /// Where the networks run.
    pub device: DeviceChoice,
    /// Whether this process runs analyses.
    pub worker: bool,
    /// How long a series must be quiet.
    pub quiet: Duration,
    /// API keys.
    pub key_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shows_a_secret() {
        let url = database_url(Some("postgres://user:hunter2@db/ictus".to_owned())).unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
        assert!(url.is_some_and(|secret| secret.expose().contains("hunter2")));
    }

    #[test]
    fn takes_an_empty_database_url_for_none() {
        assert_eq!(database_url(Some(String::new())), Ok(None));
        assert_eq!(
            database_url(Some("mysql://x".to_owned())),
            Err(ConfigError::DatabaseUrl)
        );
    }
}
