//! `ictus worker`: one more process that analyses, on the same database and archive.

use super::{
    analyser, archive,
    database::{DatabaseArgs, Role},
    engine::{EngineArgs, MapArgs},
    serve::{stop_signal, work},
};
use std::process::ExitCode;

/// Analyse what a server received; run as many as there are devices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    maps: MapArgs,
}

/// Runs the command until a signal ends it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let analysers = analyser::load(&args.engine, args.maps.maps())?;
    let database = args.database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        db.migrate().await?;
        let archive = archive::open(&args.database)?;
        let events = db.listen().await?;
        work(db.clone(), archive, events, analysers, stop_signal()).await?;
        db.close().await;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
