//! `ictus account`: people who sign in at the page.

use super::database::{DatabaseArgs, Role};
use anyhow::Context as _;
use ictus::{
    db::Db,
    review::account::{self, AccountRole, NewAccount},
};
use std::{
    io::{IsTerminal as _, Read as _},
    process::ExitCode,
};

/// Who does it, in the trail.
const PRINCIPAL: &str = "ictus account";

/// Make, list and disable the accounts of readers, auditors and admins.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an account; the password is asked for, or read from standard input.
    Create {
        /// What the person types to sign in.
        name: String,
        /// radiologist (reads and judges), auditor (reads, with the trail) or admin (reads and runs the server).
        #[arg(long)]
        role: AccountRole,
        /// What others read; the name, when it is left out.
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
    },
    /// Set the password of an account, and end its sessions.
    Password {
        /// The account.
        name: String,
    },
    /// Disable an account and end its sessions; what it said stays.
    Disable {
        /// The account.
        name: String,
    },
    /// List the accounts.
    List,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Asked first: nobody should type a password to learn that there is no database.
    let database = args.database.open(Role::Visitor)?;
    let password = match &args.command {
        Command::Create { .. } | Command::Password { .. } => password()?,
        Command::Disable { .. } | Command::List => String::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = database.connect().await?;
        db.migrate().await?;
        act(&db, &args.command, password).await?;
        db.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn act(db: &Db, command: &Command, password: String) -> anyhow::Result<()> {
    match command {
        Command::Create {
            name,
            role,
            display_name,
        } => {
            let new = NewAccount {
                name: name.clone(),
                display_name: display_name.clone().unwrap_or_else(|| name.clone()),
                role: *role,
            };
            account::create(db, PRINCIPAL, &new, password).await?;
            super::say(&format!("{name} can sign in now"))?;
        }
        Command::Password { name } => {
            account::set_password(db, PRINCIPAL, name, password).await?;
            super::say(&format!("the password of {name} is set; its sessions have ended"))?;
        }
        Command::Disable { name } => {
            account::disable(db, PRINCIPAL, name).await?;
            super::say(&format!("{name} cannot sign in any more"))?;
        }
        Command::List => {
            for (account, disabled) in db.accounts().await? {
                let state = if disabled { ", disabled" } else { "" };
                super::say(&format!(
                    "{}  {} ({}{state})",
                    account.name, account.display_name, account.role
                ))?;
            }
        }
    }
    Ok(())
}

/// From the terminal twice, or from a pipe once.
fn password() -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the password from standard input")?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    let first = rpassword::prompt_password("password: ").context("cannot read the password")?;
    let second = rpassword::prompt_password("once more: ").context("cannot read the password")?;
    anyhow::ensure!(first == second, "the two passwords differ; nothing was done");
    Ok(first)
}
