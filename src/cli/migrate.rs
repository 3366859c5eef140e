//! `ictus migrate`: brings the schema of the database up to date and ends.

use super::database::{DatabaseArgs, Role};
use std::{io::Write as _, process::ExitCode};

/// Bring the database's schema up to date (`serve` does so by itself).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let database = args.database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        db.migrate().await?;
        db.close().await;
        anyhow::Ok(())
    })?;
    writeln!(std::io::stdout(), "the schema is up to date")?;
    Ok(ExitCode::SUCCESS)
}
