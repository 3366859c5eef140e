//! `ictus link`: keys for systems that hand studies over by signed links.

use super::database::{DatabaseArgs, Role};
use anyhow::bail;
use ictus::{
    db::Db,
    review::link::{self, Target},
};
use std::process::ExitCode;
use time::{Duration, OffsetDateTime};

/// Who acts, in the trail.
const PRINCIPAL: &str = "ictus link";

/// Let another system open one study here by a signed link, without an account.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key for a system, and print its secret, once.
    Create {
        /// The system's name, as the trail will have it.
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// The keys.
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Make a key useless, at once and for good.
    Revoke {
        /// The key.
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Print a signed link.
    Sign {
        /// The key.
        #[arg(long)]
        key: String,
        /// StudyInstanceUID.
        #[arg(
            long,
            value_name = "UID",
            conflicts_with = "accession",
            required_unless_present = "accession"
        )]
        study: Option<String>,
        /// AccessionNumber.
        #[arg(long, value_name = "NUMBER")]
        accession: Option<String>,
        /// For how long it is good, a week at most.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        /// The server's address, to be put in front.
        #[arg(long, value_name = "URL", default_value = "")]
        base: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (Command::Create { database, .. }
    | Command::List { database }
    | Command::Revoke { database, .. }
    | Command::Sign { database, .. }) = &args.command;
    let database = database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        for line in lines(&db, &args.command).await? {
            super::say(&line)?;
        }
        db.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn lines(db: &Db, command: &Command) -> anyhow::Result<Vec<String>> {
    Ok(match command {
        Command::Create { name, .. } => {
            let secret = link::create(db, PRINCIPAL, name).await?;
            vec![format!(
                "The secret of {name}, which is not shown again: {secret}"
            )]
        }
        Command::List { .. } => link::list(db)
            .await?
            .iter()
            .map(|key| {
                let state = key
                    .revoked_at
                    .map_or_else(|| "in use".to_owned(), |at| format!("revoked {at}"));
                format!("{}  made {}  {state}", key.name, key.created_at)
            })
            .collect(),
        Command::Revoke { name, .. } => {
            link::revoke(db, PRINCIPAL, name).await?;
            vec![format!("Links of {name} open nothing any more.")]
        }
        Command::Sign {
            key,
            study,
            accession,
            minutes,
            base,
            ..
        } => {
            let target = match (study, accession) {
                (Some(uid), _) => Target::Study(uid.clone()),
                (None, Some(number)) => Target::Accession(number.clone()),
                (None, None) => bail!("give --study or --accession"),
            };
            let good_for = Duration::minutes(i64::from(*minutes));
            if good_for > link::LONGEST {
                bail!(
                    "{minutes} minutes are more than a week ({}); sign a shorter link",
                    link::LONGEST.whole_minutes()
                );
            }
            let path = link::sign(db, key, &target, OffsetDateTime::now_utc() + good_for).await?;
            vec![format!("{}{path}", base.trim_end_matches('/'))]
        }
    })
}
