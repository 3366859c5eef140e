//! What can be wrong with the private Postgres, in words that say what to do.

use crate::domain::failure::FailureClass;
use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

/// Why there is no private Postgres.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivatePostgresError {
    /// No initdb and postgres anywhere.
    #[error(
        "no PostgreSQL server found in {searched}: install Debian's package (`apt-get install postgresql`), \
         set PG_BINDIR to the folder of `initdb` and `postgres`, or set DATABASE_URL to a server that runs"
    )]
    NoBinaries {
        /// Where was looked.
        searched: String,
    },
    /// The data directory was made by another major version.
    #[error(
        "the database in {} was made by PostgreSQL {found}, and only {installed} is installed: install \
         Debian's package postgresql-{found} (or set PG_BINDIR to it), or move the data with pg_upgrade or pg_dump", data.display()
    )]
    OtherMajor {
        /// The data directory.
        data: PathBuf,
        /// Its PG_VERSION.
        found: String,
        /// The major versions at hand.
        installed: String,
    },
    /// We are root, and there is no one else to run the server as.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor `nobody`: run ictus as an ordinary user, or set DATABASE_URL"
    )]
    NoUser,
    /// The user that runs the server cannot reach a folder.
    #[error(
        "the user with uid {uid}, as which the database server runs because it refuses root, may not enter {}: \
         allow it (`chmod o+x`) or choose another data folder", directory.display()
    )]
    NotSearchable {
        /// The topmost folder that it may not enter.
        directory: PathBuf,
        /// The user.
        uid: u32,
    },
    /// The data folder belongs to someone else.
    #[error("{} belongs to uid {owner} and must belong to uid {uid}: change its owner or choose another data folder", directory.display())]
    WrongOwner {
        /// The folder.
        directory: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        uid: u32,
    },
    /// Another process runs a server here.
    #[error("the private Postgres in {} belongs to another ictus (process {pid}): stop it, choose another data folder, or set DATABASE_URL for both", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The owner's process number as it wrote it down.
        pid: String,
    },
    /// The server of a killed owner does not end.
    #[error("an earlier private Postgres (process {pid}) in {} does not stop: stop it by hand", dir.display())]
    StillRunning {
        /// The folder.
        dir: PathBuf,
        /// Its process number.
        pid: u32,
    },
    /// The socket's path does not fit, nor does another place.
    #[error(
        "the socket in {} would have a path of {bytes} bytes, a socket may have {allowed}, and neither \
         $XDG_RUNTIME_DIR nor /run can be used instead: choose a data folder with a shorter path", dir.display()
    )]
    PathTooLong {
        /// The folder.
        dir: PathBuf,
        /// Length of the socket's path.
        bytes: usize,
        /// Longest path.
        allowed: usize,
    },
    /// initdb, or the first statement, failed.
    #[error("{program} failed ({status}): {text}")]
    Prepare {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        text: String,
    },
    /// The server ends instead of starting.
    #[error("postgres ended ({status}) instead of starting: {reason}; its log is {}", log.display())]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// Its last complaint.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The server takes too long.
    #[error("the private Postgres was not ready after {seconds} s: see {}", log.display())]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// The thread that keeps the server is gone.
    #[error(
        "the thread that keeps the private Postgres ended before the server was ready: this is a defect, please report it"
    )]
    KeeperDied,
    /// A file, folder or process could not be handled.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl PrivatePostgresError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoBinaries { .. }
            | Self::OtherMajor { .. }
            | Self::NoUser
            | Self::NotSearchable { .. }
            | Self::WrongOwner { .. }
            | Self::PathTooLong { .. } => FailureClass::Input,
            Self::InUse { .. } | Self::StillRunning { .. } | Self::NotReady { .. } | Self::Io { .. } => {
                FailureClass::Transient
            }
            Self::Prepare { .. } | Self::Exited { .. } | Self::KeeperDied => FailureClass::Internal,
        }
    }
}
