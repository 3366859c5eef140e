//! The command line: parse, wire, run.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod cli {
    //! One module a subcommand.
    pub(crate) mod phantom;
}

/// Head CT in, masks with honest uncertainty out. Not for clinical use.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Phantom(cli::phantom::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Phantom(args) => cli::phantom::run(args),
    }
}
