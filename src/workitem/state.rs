//! The states of a workitem, and why a request about one is not done.
//!
//! Source: PS3.4 table CC.1.1-2.

use crate::{db::error::DbError, domain::failure::FailureClass};
use std::{fmt, str::FromStr};

/// Why a request about workitems is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkitemError {
    /// The database failed.
    #[error("the workitem cannot be recorded")]
    Db(#[from] DbError),
    /// The request is not what is taken.
    #[error("{0}")]
    Invalid(String),
    /// There is no such workitem or subscription.
    #[error("{0}")]
    Unknown(&'static str),
    /// There is one of that UID.
    #[error("a workitem of that UID exists; create it under another one, or update it")]
    Exists,
    /// It is claimed, and the request does not say by which UID.
    #[error("the workitem is claimed: send the Transaction UID with which it was")]
    TransactionMissing,
    /// It is claimed by another UID.
    #[error("the Transaction UID is not the one with which the workitem was claimed")]
    TransactionWrong,
    /// A Transaction UID for a workitem that nobody has claimed.
    #[error("the workitem is not claimed: send the update without a Transaction UID, or claim it first")]
    NotClaimed,
    /// It has ended.
    #[error("the workitem is {0} and can no longer be changed")]
    Ended(State),
    /// The state cannot follow the one that it has.
    #[error("the workitem is {from}, from which it does not become {to}{lacks}")]
    Transition {
        /// Its state.
        from: State,
        /// The state that is wanted.
        to: State,
        /// What it lacks, as the end of the sentence.
        lacks: String,
    },
    /// It cannot be cancelled any more.
    #[error("the workitem is COMPLETED and cannot be cancelled")]
    Completed,
    /// Nobody would hear of it.
    #[error("nobody is subscribed to the workitem, so its performer cannot be told")]
    NobodyHears,
}

impl WorkitemError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            _ => FailureClass::Input,
        }
    }
}

/// ProcedureStepState.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To be performed.
    Scheduled,
    /// Claimed.
    InProgress,
    /// Performed.
    Completed,
    /// Given up.
    Canceled,
}

impl State {
    /// As DICOM writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::InProgress => "IN PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Canceled => "CANCELED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = WorkitemError;
    fn from_str(text: &str) -> Result<Self, WorkitemError> {
        [Self::Scheduled, Self::InProgress, Self::Completed, Self::Canceled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                WorkitemError::Invalid("ProcedureStepState is IN PROGRESS, COMPLETED or CANCELED".to_owned())
            })
    }
}
