//! `ictus deliver`: what goes to the targets, and another try for what was given up.

use super::database::{DatabaseArgs, Role};
use anyhow::bail;
use ictus::{
    db::{
        Db,
        filing::Acknowledged,
        outbox::{Delivery, Filter, Retried},
    },
    deliver,
};
use std::process::ExitCode;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// Who retries, in the trail.
const PRINCIPAL: &str = "ictus deliver retry";

/// List the deliveries of results, or try them again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write deliveries to standard output, the latest first: one a line, or one JSON object a line.
    List {
        /// Only this state.
        #[arg(long, value_parser = ["pending", "delivered", "dead", "superseded"])]
        state: Option<String>,
        /// Only this target.
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: u32,
        /// All that is known of each, as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Take note of a notification, so that it is not escalated.
    Acknowledge {
        /// The delivery, as the list names it.
        id: Uuid,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Try a delivery now, or all that were given up; a running server with --deliver sends them.
    Retry {
        /// The delivery, as the list names it.
        #[arg(required_unless_present = "dead", conflicts_with = "dead")]
        id: Option<Uuid>,
        /// All that were given up.
        #[arg(long)]
        dead: bool,
        /// With --dead: only this target.
        #[arg(long, value_name = "NAME", requires = "dead")]
        target: Option<String>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (Command::List { database, .. }
    | Command::Acknowledge { database, .. }
    | Command::Retry { database, .. }) = &args.command;
    let database = database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        db.migrate().await?;
        match &args.command {
            Command::List {
                state,
                target,
                limit,
                json,
                ..
            } => {
                let filter = Filter {
                    state: state.clone(),
                    target: target.clone(),
                    study_instance_uid: None,
                };
                for delivery in db.deliveries(&filter, i64::from(*limit), 0).await? {
                    super::say(&if *json {
                        serde_json::to_string(&delivery)?
                    } else {
                        line(&delivery)?
                    })?;
                }
            }
            Command::Acknowledge { id, .. } => {
                match deliver::acknowledge(&db, *id, "ictus deliver acknowledge").await? {
                    Acknowledged::Yes(..) => super::say(&format!("{id} is acknowledged"))?,
                    Acknowledged::Already(_) => bail!("somebody took note of {id} before"),
                    Acknowledged::NoNotification => {
                        bail!("{id} is no notification; only those are acknowledged")
                    }
                    Acknowledged::Unknown => {
                        bail!("there is no delivery {id}; `ictus deliver list` shows those that there are")
                    }
                }
            }
            Command::Retry { id: Some(id), .. } => retry(&db, *id).await?,
            Command::Retry { id: None, target, .. } => {
                for id in db.dead_deliveries(target.as_deref()).await? {
                    retry(&db, id).await?;
                }
            }
        }
        db.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn retry(db: &Db, id: Uuid) -> anyhow::Result<()> {
    match deliver::retry(db, id, PRINCIPAL).await? {
        Retried::Yes(target, ..) => super::say(&format!("{id} to {target} is tried now"))?,
        Retried::Ended(state) => bail!("the delivery {id} is {state}, which no retry changes"),
        Retried::Unknown => {
            bail!("there is no delivery {id}; `ictus deliver list` shows those that there are")
        }
    }
    Ok(())
}

/// Id, state, target, study, what is there of how much, attempts, and what there is to say.
fn line(delivery: &Delivery) -> anyhow::Result<String> {
    let all = delivery.instances.len();
    let there = delivery
        .instances
        .iter()
        .filter(|instance| instance.state == "delivered")
        .count();
    let mut said = format!(
        "{} {:10} {} {} {there}/{all} attempts {}",
        delivery.id, delivery.state, delivery.target, delivery.study_instance_uid, delivery.attempts
    );
    if let Some(next) = delivery.next_at {
        said = format!("{said}, next at {}", next.format(&Rfc3339)?);
    }
    if delivery.subject != "results" {
        said = format!("{said}, {}", delivery.subject);
    }
    if let Some(by) = &delivery.acknowledged_by {
        said = format!("{said}, acknowledged by {by}");
    }
    if let Some(note) = &delivery.note {
        said = format!("{said}, {note}");
    }
    if !delivery.target_active {
        said.push_str(", the target is in no file of a server");
    }
    if let Some(error) = &delivery.last_error {
        said = format!("{said}: {error}");
    }
    Ok(said)
}
