//! `ictus audit`: the trail, verified, written out, or replayed.

use super::{
    analyser, archive,
    database::{DatabaseArgs, Role},
    engine::EngineArgs,
};
use anyhow::{Context as _, bail};
use ictus::{
    analysis::encode::Maps,
    audit,
    worker::replay::{Recorded, Verdict},
};
use std::process::ExitCode;
use uuid::Uuid;

/// Who replays, in the trail.
const PRINCIPAL: &str = "ictus audit replay";

/// Verify, export or replay the audit trail.
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
    /// Run an analysis again from the archive and hold each result to the trail; ends with 1 when one is not the same.
    Replay {
        /// The analysis, as the trail names it.
        id: Uuid,
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        engine: EngineArgs,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (database, verify) = match &args.command {
        Command::Verify { database } => (database, true),
        Command::Export { database } => (database, false),
        Command::Replay { id, database, engine } => return replay(*id, database, engine),
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

fn replay(id: Uuid, database: &DatabaseArgs, engine: &EngineArgs) -> anyhow::Result<ExitCode> {
    let archive = archive::open(database)?;
    let database = database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let db = runtime.block_on(database.connect())?;
    if let Some(fault) = runtime.block_on(audit::verify(&db))?.fault {
        bail!("the chain of the trail is broken ({fault}): what it says of an analysis proves nothing");
    }
    let recorded = runtime.block_on(Recorded::read(&db, &archive, id))?;
    let analyser = analyser::load(engine, Maps::of(recorded.results()))?
        .worker
        .context("this build has no model to analyse with")?;
    let bar = super::analyze::Bar::new()?;
    let replay = recorded.replay(&*analyser, &bar)?;
    bar.finish();
    runtime.block_on(replay.record(&db, PRINCIPAL))?;
    super::say(&format!(
        "The trail holds; its row {} says what analysis {id} made. {} source instances are the bytes that were analysed.",
        recorded.seq(),
        replay.sources
    ))?;
    for result in &replay.results {
        let verdict = match result.verdict {
            Verdict::Identical => "identical",
            Verdict::Differs => "DIFFERS",
            Verdict::NotMade => "NOT MADE AGAIN",
            Verdict::NotRecorded => "NOT IN THE TRAIL",
        };
        super::say(&format!(
            "  {:4} {} {verdict}",
            result.role, result.sop_instance_uid
        ))?;
    }
    super::say(&format!(
        "{} of {} results are the same to the last bit.",
        replay.identical(),
        replay.results.len()
    ))?;
    runtime.block_on(db.close());
    Ok(if replay.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
