//! One file a command; each turns arguments into calls of the library and results into text.

pub(crate) mod account;
mod adt;
pub(crate) mod analyser;
pub(crate) mod analyze;
mod archive;
pub(crate) mod audit;
pub(crate) mod calibrate;
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

use std::io::Write as _;

/// Prints a line for a person or a pipe.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
