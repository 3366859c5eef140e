//! `ictus worker`: one more process that analyses, on the same database and archive.

use super::{
    analyser,
    database::{DatabaseArgs, Role},
    serve::{open_archive, stop_signal, work},
};
use ictus::domain::device::DeviceChoice;
use std::{path::PathBuf, process::ExitCode};

/// Analyse what a server received; run as many as there are devices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Where the networks run: auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Folder of further models; the shipped ones are in the binary.
    #[arg(long, env = "ICTUS_MODELS", value_name = "DIR")]
    models_dir: Option<PathBuf>,
}

/// Runs the command until a signal ends it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let analysers = analyser::load(args.device, args.models_dir.as_deref())?;
    let database = args.database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        db.migrate().await?;
        let archive = open_archive(&args.database.data)?;
        let events = db.listen().await?;
        work(db.clone(), archive, events, analysers, stop_signal()).await?;
        db.close().await;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
