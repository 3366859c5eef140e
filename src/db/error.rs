//! What can go wrong with the database, without the values that were on their way.
//!
//! Postgres quotes values in its messages and sqlx repeats them: each foreign error passes [`redact`] first.

use crate::domain::{
    failure::FailureClass,
    phi::{Redacted, redact},
};

/// A failed statement, connection or migration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// DATABASE_URL cannot be read.
    #[error("DATABASE_URL is not a postgres:// URL; write it as postgres://user@host/database")]
    Url,
    /// The server is away, full or restarting.
    #[error("the database cannot be reached or is busy; check that Postgres runs and has connections left")]
    Unavailable(#[source] Redacted),
    /// Two transactions were in each other's way, and this one lost.
    #[error("another transaction changed the same rows; try again")]
    Contention(#[source] Redacted),
    /// The server refused a statement.
    #[error("the database refused a statement; this is a fault of ictus, or the schema is not its own")]
    Statement(#[source] Redacted),
    /// The roles are missing and cannot be made.
    #[error(
        "the roles ictus_owner and ictus_app are missing and this user may not create them; create them and grant them to it"
    )]
    Roles(#[source] Redacted),
    /// A migration failed.
    #[error("the database schema cannot be brought up to date")]
    Migrate(#[source] Redacted),
    /// The queue failed.
    #[error("the job queue stopped")]
    Queue(#[source] Redacted),
    /// A stored value is not what this build writes.
    #[error("a stored {0} is not what this build writes; the database was changed by something else")]
    Stored(&'static str),
}

impl DbError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Unavailable(_) | Self::Contention(_) | Self::Queue(_) => FailureClass::Transient,
            Self::Url | Self::Statement(_) | Self::Roles(_) | Self::Migrate(_) | Self::Stored(_) => {
                FailureClass::Internal
            }
        }
    }

    pub(super) fn roles(error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Statement(cause) => Self::Roles(cause),
            other => other,
        }
    }

    pub(super) fn queue(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Queue(redact(error))
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let cause = redact(&error);
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Unavailable(cause)
            }
            E::Database(database) => match database.code().as_deref() {
                // Unique violation, serialization failure, deadlock, lock not available.
                Some("23505" | "40001" | "40P01" | "55P03") => Self::Contention(cause),
                // Connection exceptions, insufficient resources, operator intervention, cannot connect now.
                Some(code) if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                    Self::Unavailable(cause)
                }
                _ => Self::Statement(cause),
            },
            _ => Self::Statement(cause),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for DbError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migrate(redact(&error))
    }
}
