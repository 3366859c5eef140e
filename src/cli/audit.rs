//! `ictus audit`: the trail, verified or written out.

use super::database::{DatabaseArgs, Role};
use ictus::audit;
use std::process::ExitCode;

/// Verify or export the audit trail.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Recompute the hash of every row; ends with 1 when the chain does not hold.
    Verify {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Write the trail to standard output, one JSON object a line.
    Export {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Run an analysis of the trail again: not in this build.
    Replay {
        /// The analysis.
        id: String,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (database, verify) = match &args.command {
        Command::Verify { database } => (database, true),
        Command::Export { database } => (database, false),
        Command::Replay { id } => return Ok(super::not_in_this_build(&format!("audit replay of {id}"))),
    };
    let database = database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        let code = if verify {
            let verdict = audit::verify(&db).await?;
            match verdict.fault {
                None => {
                    super::say(&format!(
                        "{} rows hold; the last hash is {}",
                        verdict.rows, verdict.hash
                    ))?;
                    ExitCode::SUCCESS
                }
                Some(fault) => {
                    super::say(&format!(
                        "{} rows hold, then the chain breaks: {fault}",
                        verdict.rows
                    ))?;
                    ExitCode::FAILURE
                }
            }
        } else {
            audit::export(&db, &mut std::io::stdout()).await?;
            ExitCode::SUCCESS
        };
        db.close().await;
        Ok(code)
    })
}
