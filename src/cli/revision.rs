//! `ictus revision`: instances that came again with other attributes, and a decision on them.

use super::database::{DatabaseArgs, Role};
use anyhow::{Context as _, bail};
use ictus::{
    domain::uid::Uid,
    identity::{self, Decision},
};
use std::process::ExitCode;
use time::format_description::well_known::Rfc3339;

/// Who decides, in the trail.
const PRINCIPAL: &str = "ictus revision";
/// The most revisions of a list.
const MOST: i64 = 1000;

/// List the revisions that wait for a decision, or decide on them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write pending revisions to standard output, oldest first: one a line, or one JSON object a line.
    List {
        /// All that is known of each, as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Put the pending revisions of a series in the place of what is in use; the study is analysed again.
    Accept(Which),
    /// Decide against the pending revisions of a series; what is in use stays.
    Dismiss(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The series, by its SeriesInstanceUID.
    series: String,
    /// Only this instance of it, by its SOPInstanceUID.
    #[arg(long, value_name = "UID")]
    instance: Option<String>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (Command::List { database, .. }
    | Command::Accept(Which { database, .. })
    | Command::Dismiss(Which { database, .. })) = &args.command;
    let database = database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        db.migrate().await?;
        match &args.command {
            Command::List { json, .. } => {
                for revision in db.pending_revisions(MOST).await? {
                    super::say(&if *json {
                        serde_json::to_string(&revision)?
                    } else {
                        format!(
                            "{} {} series {} study {} differs in {}",
                            revision.stored_at.format(&Rfc3339)?,
                            revision.sop_instance_uid,
                            revision.series_instance_uid,
                            revision.study_instance_uid,
                            revision.differs.join(", ")
                        )
                    })?;
                }
            }
            Command::Accept(which) => decide(&db, which, Decision::Accept).await?,
            Command::Dismiss(which) => decide(&db, which, Decision::Dismiss).await?,
        }
        db.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn decide(db: &ictus::db::Db, which: &Which, decision: Decision) -> anyhow::Result<()> {
    let series = Uid::parse(&which.series).context("a series is named by its SeriesInstanceUID")?;
    let instance = which
        .instance
        .as_deref()
        .map(Uid::parse)
        .transpose()
        .context("an instance is named by its SOPInstanceUID")?;
    match identity::decide(db, PRINCIPAL, &series, instance.as_ref(), decision).await? {
        0 => bail!(
            "no revision of this series waits for a decision; `ictus revision list` shows those that do"
        ),
        count => super::say(&format!("{count} revisions: {}", decision.as_str()))?,
    }
    Ok(())
}
