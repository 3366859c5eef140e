//! `ictus phantom`: seeds → DICOM series of synthetic heads with their truth.
//!
//! Writes `DIR/NNNN/ct/*.dcm`, `truth.nii.gz`, `aspects.nii.gz` and `truth.json` in `DIR/NNNN`, NNNN being the seed.

use anyhow::Context;
use ictus::train::phantom::{GeometryKind, Head, Kind, Range, geometry, write_dicom, write_truth};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes synthetic head CT series and what is truly in them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to write into; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Seed of the first head; the same seed gives the same bytes
    #[arg(long, value_name = "N")]
    pub(crate) seed: u64,
    /// Number of heads, with consecutive seeds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,
    /// What the heads hold
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Kind::ALL.map(Kind::name)), default_value = "haemorrhage")]
    pub(crate) kind: String,
    /// How the slices lie
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(GeometryKind::ALL.map(GeometryKind::name)), default_value = "even")]
    pub(crate) geometry: String,
    /// Ranges of anatomy, lesions and scanner; evaluation is wider
    #[arg(long, value_enum, default_value_t = RangeName::Evaluation)]
    pub(crate) range: RangeName,
}

/// [`Range`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RangeName {
    /// What networks are trained on
    Training,
    /// Wider than training: what they are judged on
    Evaluation,
}

/// Writes the heads.
///
/// # Errors
/// Says which file could not be written.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == args.kind)
        .with_context(|| format!("there is no kind {:?}", args.kind))?;
    let range = match args.range {
        RangeName::Training => Range::Training,
        RangeName::Evaluation => Range::Evaluation,
    };
    let lay = GeometryKind::ALL
        .into_iter()
        .find(|kind| kind.name() == args.geometry)
        .with_context(|| format!("there is no geometry {:?}", args.geometry))?;
    let last = args
        .seed
        .checked_add(args.count - 1)
        .context("the last seed does not fit into 64 bits")?;
    let progress = ProgressBar::new(args.count).with_style(ProgressStyle::with_template(
        "phantoms {bar:40} {pos}/{len}, {eta} left {msg}",
    )?);
    for seed in args.seed..=last {
        progress.set_message(format!("(seed {seed})"));
        let folder = args.out.join(format!("{seed:04}"));
        let head = Head::new(seed, kind, range);
        let rendered = head.render(&geometry(lay, seed, range));
        let instances = write_dicom(&head, &rendered, lay, &folder.join("ct"))?;
        write_truth(&head, &rendered, lay, &instances, &folder)?;
        progress.inc(1);
    }
    progress.finish_with_message(format!("in {}", args.out.display()));
    Ok(ExitCode::SUCCESS)
}
