//! `ictus export`: what readers judged, as a dataset to train on.

use super::{
    archive,
    database::{DatabaseArgs, Role},
};
use anyhow::bail;
use ictus::{
    db::figures::Span,
    review::export::{self, Options},
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{path::PathBuf, process::ExitCode};
use time::{Date, macros::format_description};

/// Who exports, in the trail.
const PRINCIPAL: &str = "ictus export";

/// Write cases that readers judged as a dataset in nnU-Net's raw layout; a run that stopped goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The dataset's folder; nnU-Net wants `DatasetNNN_Name`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The question whose label is written, alone: `haemorrhage`, `infarct`, `occlusion` or a model's own.
    #[arg(long, default_value = "haemorrhage")]
    question: String,
    /// The dataset's name; that of its folder when absent.
    #[arg(long)]
    name: Option<String>,
    /// Only what was judged or drawn from this day on, UTC.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    from: Option<Date>,
    /// Only what was judged or drawn until this day, UTC.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    to: Option<Date>,
    /// Only answers of this model.
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// Only what this account judged or drew.
    #[arg(long, value_name = "NAME")]
    reader: Option<String>,
    /// With what nobody read too, with the machine's own mask, marked `silver`.
    #[arg(long)]
    include_silver: bool,
    /// Study and series UIDs in `provenance.json`; they lead back to patients.
    #[arg(long)]
    with_identifiers: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

fn day(text: &str) -> Result<Date, String> {
    Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map_err(|_| format!("`{text}` is no day; write it as 2026-11-23"))
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = args
        .out
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let Some(folder) = folder else {
        bail!(
            "{} is no folder's name; name one such as Dataset001_Bleeds",
            args.out.display()
        );
    };
    let options = Options {
        out: args.out.clone(),
        name: args.name.clone().unwrap_or(folder),
        question: args.question.clone(),
        span: Span {
            from: args.from,
            to: args.to,
        },
        model: args.model.clone(),
        reader: args.reader.clone(),
        silver: args.include_silver,
        identifiers: args.with_identifiers,
    };
    let archive = archive::open(&args.database)?;
    let database = args.database.open(Role::Visitor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:40} {pos} of {len} studies, {eta} left",
    )?);
    let exported = runtime.block_on(async {
        let db = database.connect().await?;
        let told = |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let exported = export::export(&db, &archive, PRINCIPAL, &options, told).await?;
        db.close().await;
        anyhow::Ok(exported)
    })?;
    bar.finish_and_clear();
    super::say(&format!(
        "{} with a reader's label, {} with the machine's alone; {} of them were there already, {} were laid on an even grid.",
        cases(exported.gold),
        exported.silver,
        exported.kept,
        exported.resampled
    ))?;
    for (reason, count) in &exported.left_out {
        super::say(&format!("{} left out: {reason}", cases(*count)))?;
    }
    if !exported.folds {
        super::say("Too few patients for splits_final.json; five are needed.")?;
    }
    super::say(&format!(
        "{}. For research, not for clinical use.",
        options.out.display()
    ))?;
    Ok(if exported.gold + exported.silver == 0 {
        ExitCode::from(3)
    } else {
        ExitCode::SUCCESS
    })
}

fn cases(count: usize) -> String {
    format!("{count} case{}", if count == 1 { "" } else { "s" })
}
