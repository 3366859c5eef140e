//! The command line: parse, run, answer with an exit code.

mod cli;

use clap::Parser;
use std::{io::Write as _, process::ExitCode};

/// Head CT beside a PACS: masks with honest uncertainty, as standard DICOM. For research, not for clinical use.
#[derive(Debug, Parser)]
#[command(name = "ictus", version)]
struct Cli {
    /// What is logged: a level, or `target=level` pairs.
    #[arg(long, global = true, env = "ICTUS_LOG", default_value = ictus::telemetry::DEFAULT_FILTER)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(Box<cli::serve::Args>),
    Worker(cli::worker::Args),
    Demo(cli::demo::Args),
    Analyze(cli::analyze::Args),
    Phantom(cli::phantom::Args),
    Train(cli::train::Args),
    Evaluate(cli::evaluate::Args),
    Calibrate(cli::calibrate::Args),
    Model(cli::models::Args),
    Key(cli::key::Args),
    Account(cli::account::Args),
    Export(cli::export::Args),
    Link(cli::link::Args),
    Audit(cli::audit::Args),
    Deliver(cli::deliver::Args),
    Revision(cli::revision::Args),
    Migrate(cli::migrate::Args),
    Doctor(cli::doctor::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = ictus::telemetry::init(&cli.log, ictus::telemetry::Format::Text)
        .map_err(anyhow::Error::from)
        .and_then(|()| match &cli.command {
            Command::Serve(args) => cli::serve::run(args),
            Command::Worker(args) => cli::worker::run(args),
            Command::Demo(args) => cli::demo::run(args),
            Command::Phantom(args) => cli::phantom::run(args),
            Command::Analyze(args) => cli::analyze::run(args),
            Command::Train(args) => cli::train::run(args),
            Command::Evaluate(args) => cli::evaluate::run(args),
            Command::Calibrate(args) => cli::calibrate::run(args),
            Command::Model(args) => cli::models::run(args),
            Command::Key(args) => cli::key::run(args),
            Command::Account(args) => cli::account::run(args),
            Command::Export(args) => cli::export::run(args),
            Command::Link(args) => cli::link::run(args),
            Command::Audit(args) => cli::audit::run(args),
            Command::Deliver(args) => cli::deliver::run(args),
            Command::Revision(args) => cli::revision::run(args),
            Command::Migrate(args) => cli::migrate::run(args),
            Command::Doctor(args) => cli::doctor::run(args),
        });
    done.unwrap_or_else(|error| {
        // Nothing is left to be done when this cannot be said either.
        let _said = writeln!(std::io::stderr(), "ictus: {error:#}");
        ExitCode::FAILURE
    })
}
