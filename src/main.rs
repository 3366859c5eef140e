//! The command line: parse, wire, run.

mod cli;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Head CT beside a PACS: masks with honest uncertainty, as standard DICOM. Not for clinical use.
#[derive(Parser)]
#[command(name = "ictus", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the haemorrhage model on synthetic phantoms; stopped runs go on where they were.
    Train(cli::train::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Train(args) => cli::train::run(&args),
    }
}
