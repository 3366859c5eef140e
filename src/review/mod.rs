//! SERVICE: people and what they say of the machine's answers → rows, each with its row in the audit trail.
//!
//! [`account`] knows who someone is, [`verdict`] what they said, [`correction`] what they drew, [`returned`] what they drew
//! elsewhere; [`link`] lets those in who were handed one study; [`export`] makes data to learn from of all that.
//! A verdict is a person's: no key and no program can give one.
//! Nothing here changes what the machine said; a reader's word stands beside it.

pub mod account;
pub mod correction;
pub mod export;
pub mod link;
pub mod oidc;
pub mod returned;
pub mod verdict;

use crate::{
    analysis::correction::CorrectionError,
    archive::ArchiveError,
    db::error::DbError,
    domain::{failure::FailureClass, phi::Redacted},
};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The database failed.
    #[error("the database cannot keep it")]
    Db(#[from] DbError),
    /// The name is taken.
    #[error(
        "there is an account of that name already; choose another name, or set its password with `ictus account password`"
    )]
    NameTaken,
    /// No account of that name.
    #[error("there is no account of that name; `ictus account list` shows them")]
    NoAccount,
    /// The name cannot be used.
    #[error("an account's name has 1 to 64 characters: letters, digits, `.`, `_`, `-` and `@`")]
    Name,
    /// The name to be shown cannot be used.
    #[error("the name to be shown has 1 to 100 characters")]
    DisplayName,
    /// The password is too short or too long.
    #[error("a password has {} to {} characters", account::PASSWORD_CHARACTERS.start(), account::PASSWORD_CHARACTERS.end())]
    Password,
    /// The password could not be hashed.
    #[error("the password could not be hashed; this is a fault of ictus")]
    Hash,
    /// Name and password do not belong together.
    #[error("name and password do not belong to an account")]
    SignIn,
    /// Too many wrong passwords.
    #[error("too many wrong passwords for this name; try again in a quarter of an hour")]
    Throttled,
    /// No such study, or nothing was said of it.
    #[error("the study is not stored, or was not analysed yet: there is no answer to judge")]
    NothingToJudge,
    /// Somebody else's answer.
    #[error("the answer was revised meanwhile; look at the new one and judge that")]
    Revised,
    /// No such finding.
    #[error("the analysis has no finding of that name")]
    NoFinding,
    /// The reason is missing or unknown.
    #[error("this verdict wants a reason: {0}")]
    Reason(String),
    /// The note is too long.
    #[error("a note has at most {} characters", verdict::NOTE_CHARACTERS)]
    Note,
    /// The archive failed.
    #[error("the archive cannot keep or give back a file")]
    Archive(#[from] ArchiveError),
    /// What was drawn cannot be saved.
    #[error(transparent)]
    Correction(#[from] CorrectionError),
    /// A slice under the mask cannot be read.
    #[error("a slice under the mask cannot be read")]
    Source(#[source] Redacted),
    /// A fault of ours.
    #[error("the mask could not be made into a Segmentation; this is a fault of ictus")]
    Drawing,
    /// A signed link, or its key.
    #[error("{0}")]
    Link(&'static str),
    /// A folder of an export.
    #[error("{0} cannot be read or written; name a folder of our own or an empty one, with room")]
    Folder(String, #[source] std::io::Error),
    /// Missed lesions belong to the study.
    #[error("`missed` is said of the study, not of a finding")]
    MissedFinding,
}

impl ReviewError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Correction(error) => error.class(),
            Self::Hash | Self::Source(_) | Self::Drawing => FailureClass::Internal,
            _ => FailureClass::Input,
        }
    }
}
