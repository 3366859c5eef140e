//! `ictus doctor`: looks at the machine and says, in a table, what works, what is missing and what to do.

use super::database::{DatabaseArgs, private_dir};
use ictus::{
    analysis::infer::engine,
    config,
    db::{Db, private},
    domain::{device::DeviceChoice, failure::sentence, plan::Precision},
};
use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Check database, folders, processor, models and page of this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Folder of further models; the shipped ones are in the binary.
    #[arg(long, env = "ICTUS_MODELS", value_name = "DIR")]
    models_dir: Option<PathBuf>,
}

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As it should be.
    Good,
    /// It works, with less.
    Fair,
    /// ictus does not run like this.
    Bad,
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    state: State,
    text: String,
}

impl Check {
    fn new(name: &'static str, state: State, text: impl Into<String>) -> Self {
        Self {
            name,
            state,
            text: text.into(),
        }
    }

    fn from_result<E: std::error::Error>(name: &'static str, result: Result<String, E>) -> Self {
        match result {
            Ok(text) => Self::new(name, State::Good, text),
            Err(error) => Self::new(name, State::Bad, sentence(&error)),
        }
    }
}

/// Runs the command; fails when something is bad.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let data = &args.database.data;
    let checks = [
        Check::new("version", State::Good, env!("CARGO_PKG_VERSION")),
        database(data)?,
        folder(data),
        processor(),
        memory(),
        device(),
        models(args.models_dir.as_deref()),
        page(),
    ];
    write!(io::stdout(), "{}", table(&checks))?;
    let bad = checks.iter().any(|check| check.state == State::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A server that answers, or the means to start a private one.
fn database(data: &Path) -> anyhow::Result<Check> {
    match config::database_url(std::env::var("DATABASE_URL").ok()) {
        Err(error) => Ok(Check::from_result("database", Err(error))),
        Ok(Some(url)) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let answer = runtime.block_on(async {
                Db::connect_url(url.expose()).await?.close().await;
                Ok("DATABASE_URL answers".to_owned())
            });
            Ok(Check::from_result::<ictus::db::error::DbError>(
                "database", answer,
            ))
        }
        Ok(None) => Ok(private_database(data)),
    }
}

fn private_database(data: &Path) -> Check {
    let checked = private::PrivatePostgres::check(&private_dir(data));
    Check::from_result(
        "database",
        checked.map(|binaries| {
            format!(
                "private, PostgreSQL {} in {}",
                binaries.major,
                binaries.dir.display()
            )
        }),
    )
}

/// The data folder can be written, or made.
fn folder(data: &Path) -> Check {
    const PROBE: &str = ".ictus-doctor";
    let existing = data
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("."));
    let probe = existing.join(PROBE);
    match fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)) {
        Ok(()) if existing == data => {
            Check::new("data", State::Good, format!("{} can be written", data.display()))
        }
        Ok(()) => Check::new(
            "data",
            State::Good,
            format!("{} will be made at the first start", data.display()),
        ),
        Err(error) => {
            let text = format!(
                "cannot write to {} ({error}): choose another --data",
                existing.display()
            );
            Check::new("data", State::Bad, text)
        }
    }
}

/// The instruction sets that the networks have kernels for.
fn processor() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[cfg(target_arch = "x86_64")]
    let (state, isa) = if std::arch::is_x86_feature_detected!("avx512f") {
        (State::Good, "AVX-512")
    } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        (State::Good, "AVX2 with FMA")
    } else {
        (State::Fair, "neither AVX-512 nor AVX2: the networks are slow")
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (state, isa) = (
        State::Fair,
        "no kernels for this architecture: the networks are slow",
    );
    Check::new("processor", state, format!("{cores} cores, {isa}"))
}

/// What Linux says is free.
fn memory() -> Check {
    /// A whole-head volume with its ensemble sums and one network at work.
    const ENOUGH_GIB: f64 = 2.0;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    match kib.map(|kib| kib / f64::from(1 << 20)) {
        None => Check::new("memory", State::Fair, "unknown"),
        Some(gib) if gib < ENOUGH_GIB => Check::new(
            "memory",
            State::Fair,
            format!("{gib:.1} GiB free, an analysis wants about {ENOUGH_GIB:.0}"),
        ),
        Some(gib) => Check::new("memory", State::Good, format!("{gib:.1} GiB free")),
    }
}

/// What `--device auto` comes to.
fn device() -> Check {
    if !cfg!(feature = "cuda") {
        return Check::new("device", State::Good, "built for CPU");
    }
    let opened = engine::open(DeviceChoice::Auto)
        .map_err(anyhow::Error::from)
        .and_then(|device| Ok(ictus::nn::numeric_mode(&device, Precision::F32)?));
    match opened {
        Ok(mode) => Check::new(
            "device",
            State::Good,
            format!("built for CUDA and CPU; networks run in {mode}"),
        ),
        Err(error) => Check::new(
            "device",
            State::Fair,
            format!("built for CUDA and CPU: {error:#}"),
        ),
    }
}

/// Plans and weights that can be read; whether they reproduce their golden patch is for `ictus model check`.
fn models(folder: Option<&Path>) -> Check {
    match super::models::bundles(folder) {
        Err(error) => Check::new("models", State::Bad, format!("{error:#}")),
        Ok(bundles) if bundles.is_empty() => Check::new(
            "models",
            State::Fair,
            "none: nothing can be analysed; --models-dir adds a folder of them",
        ),
        Ok(bundles) => {
            let names = bundles
                .iter()
                .map(|bundle| format!("{} {}", bundle.plan.id, bundle.plan.version));
            Check::new("models", State::Good, names.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What a browser gets.
fn page() -> Check {
    if ictus::http::has_page() {
        Check::new("page", State::Good, "in this build")
    } else {
        Check::new(
            "page",
            State::Fair,
            "not in this build: run `make web` and build again",
        )
    }
}

fn table(checks: &[Check]) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let state = match check.state {
            State::Good => "good",
            State::Fair => "fair",
            State::Bad => "BAD",
        };
        let _ = writeln!(text, "{state:<4}  {:<width$}  {}", check.name, check.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_models_that_cannot_be_read_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(models(Some(&dir.path().join("nowhere"))).state, State::Bad);
        fs::create_dir(dir.path().join("bleed")).unwrap();
        fs::write(dir.path().join("bleed/plan.json"), "{}").unwrap();
        assert_eq!(models(Some(dir.path())).state, State::Bad);
    }

    #[test]
    fn a_data_folder_that_is_missing_will_be_made_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let check = folder(&dir.path().join("a/b"));
        assert!(
            check.state == State::Good && check.text.contains("will be made"),
            "{check:?}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(folder(Path::new("/proc/nowhere")).state, State::Bad);
    }

    #[test]
    fn the_table_lines_up() {
        let checks = [
            Check::new("a", State::Good, "x"),
            Check::new("long", State::Bad, "y"),
        ];
        assert_eq!(table(&checks), "good  a     x\nBAD   long  y\n");
    }
}
