//! One file a command; each turns arguments into calls of the library and results into text.

pub(crate) mod account;
mod adt;
pub(crate) mod analyser;
pub(crate) mod analyze;
mod archive;
pub(crate) mod audit;
mod channels;
pub(crate) mod database;
pub(crate) mod deliver;
pub(crate) mod demo;
mod dimse;
pub(crate) mod doctor;
mod engine;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod key;
mod key_slices;
pub(crate) mod link;
pub(crate) mod migrate;
pub(crate) mod models;
mod oidc;
pub(crate) mod phantom;
pub(crate) mod revision;
pub(crate) mod serve;
pub(crate) mod train;
pub(crate) mod worker;

use std::{io::Write as _, process::ExitCode};

/// Exit code for something that this build does not have.
const NOT_IN_THIS_BUILD: u8 = 2;

/// Prints a line for a person or a pipe.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Answers what is asked for and not built yet.
pub(crate) fn not_in_this_build(what: &str) -> ExitCode {
    // Nothing is left to be done when this cannot be said.
    let _said = writeln!(std::io::stderr(), "ictus: {what} is not in this build");
    ExitCode::from(NOT_IN_THIS_BUILD)
}
