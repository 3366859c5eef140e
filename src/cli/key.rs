//! `ictus key create`: a new API key, shown once; only its digest is kept.

use anyhow::Context as _;
use ictus::http::auth::{Role, key_line};
use std::{
    fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf, process::ExitCode,
};

/// Make API keys for `serve --key-file`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key and show it once.
    Create {
        /// Who will use it: a person, a scanner, a program.
        name: String,
        /// viewer (reads), sender (stores) or operator (both).
        #[arg(long)]
        role: Role,
        /// File to add the key's line to; without it the line is printed.
        #[arg(long, env = "ICTUS_KEY_FILE", value_name = "PATH")]
        key_file: Option<PathBuf>,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Create { name, role, key_file } = &args.command;
    // 32 random bytes from the generator that the operating system seeds.
    let key = hex::encode(rand::random::<[u8; 32]>());
    let line = key_line(name, *role, &key)?;
    let mut out = std::io::stdout();
    if let Some(path) = key_file {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot write to {}", path.display()))?;
        writeln!(file, "{line}")?;
        writeln!(out, "{key}")?;
        writeln!(
            std::io::stderr(),
            "This is the key; it is shown only now. {} has its digest; restart the server to use it.",
            path.display()
        )?;
    } else {
        writeln!(out, "key:  {key}\nline: {line}")?;
        writeln!(
            std::io::stderr(),
            "Put the line into the file that `ictus serve --key-file` names."
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
