//! `ictus demo`: a server, a synthetic stroke study through its STOW-RS door, the findings, and the address of the page.
//!
//! Nothing here takes a short cut: the study is DICOM files that arrive over HTTP, as from a scanner.

use super::{
    analyser, analyze, archive,
    database::{DatabaseArgs, Role},
    engine::{EngineArgs, MapArgs},
    serve::{Settings, serve, stop_signal},
};
use anyhow::{Context as _, bail};
use ictus::{
    domain::finding::Report,
    http::auth::Access,
    receive::Quota,
    train::phantom::{GeometryKind, Head, Kind, Range, geometry, write_dicom},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Separates the parts of the request.
const BOUNDARY: &str = "ictus-demo-part";
/// The demo waits this long for its own study.
const PATIENCE: Duration = Duration::from_secs(600);

/// Start a server, send it a synthetic stroke study and show what was found.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    maps: MapArgs,
    /// Seed of the synthetic study.
    #[arg(long, default_value_t = 3)]
    seed: u64,
    /// End after printing instead of serving on.
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ictus::deliver::install_cryptography();
    let access = Access::new(None, args.listen.ip())?;
    let listener = std::net::TcpListener::bind(args.listen)
        .with_context(|| format!("cannot listen on {}; choose another --listen", args.listen))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let analysers = analyser::load(&args.engine, args.maps.maps())?;
    // From the main thread, before the runtime: the private server ends with the thread that started it.
    let database = args.database.open(Role::Owner)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let settings = Settings {
        archive: archive::open(&args.database)?,
        quota: Quota {
            bytes: None,
            free_bytes: 0,
        },
        quiet: Duration::from_secs(2),
        access,
        analysers,
        dimse: None,
        adt: None,
        deliver: None,
        fetch: ("ICTUS".to_owned(), Vec::new()),
        oidc: None,
        allow_origins: Vec::new(),
    };
    let done = runtime.block_on(async {
        let (finish, finished) = oneshot::channel::<()>();
        let stop = async move {
            tokio::select! {
                () = stop_signal() => {}
                _ = finished => {}
            }
        };
        let show = async {
            let shown = show(address, args.seed).await;
            match shown {
                Ok(()) if !args.once => std::future::pending::<anyhow::Result<()>>().await,
                other => {
                    // The server may have ended by itself.
                    let _told = finish.send(());
                    other
                }
            }
        };
        let serve = serve(settings, listener, &database, stop);
        tokio::pin!(serve);
        tokio::select! {
            ended = &mut serve => ended,
            shown = show => {
                serve.await?;
                shown
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    done.map(|()| ExitCode::SUCCESS)
}

/// Sends the study and prints what the server says of it.
async fn show(address: SocketAddr, seed: u64) -> anyhow::Result<()> {
    let base = format!("http://{address}");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (study, body) = tokio::task::spawn_blocking(move || synthetic_study(seed)).await??;
    let sent = Instant::now();
    let answer = client
        .post(format!("{base}/dicom-web/studies"))
        .header(
            "Content-Type",
            format!("multipart/related; type=\"application/dicom\"; boundary={BOUNDARY}"),
        )
        .header("Accept", "application/dicom+json")
        .body(body)
        .send()
        .await?;
    let status = answer.status();
    if !status.is_success() {
        bail!(
            "the server answered {status} to the study: {}",
            answer.text().await?
        );
    }
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} tiles {elapsed} {msg}",
    )?);
    let analysis = loop {
        if sent.elapsed() > PATIENCE {
            bail!(
                "no answer after {} s; the server's log says why",
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let state: Value = client
            .get(format!("{base}/api/studies/{study}"))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let number = |key: &str| state["progress"][key].as_u64().unwrap_or(0);
        bar.set_length(number("total"));
        bar.set_position(number("done"));
        bar.set_message(state["state"].as_str().unwrap_or_default().to_owned());
        if state["state"] == "failed" {
            bail!(
                "the analysis failed: {}",
                state["reason"].as_str().unwrap_or("without a reason")
            );
        }
        if !state["analysis"].is_null() {
            break state["analysis"].clone();
        }
    };
    bar.finish_and_clear();
    let report: Report =
        serde_json::from_value(analysis["report"].clone()).context("the report is not understood")?;
    super::say(&format!(
        "A synthetic study was stored and analysed: {:.1} s from its last byte to the findings.",
        sent.elapsed().as_secs_f64()
    ))?;
    super::say(&analyze::summary(&report))?;
    super::say(&format!("Review it at {base}/study/{study}"))?;
    Ok(())
}

/// A bleeding head in a tilted, uneven stack, as a STOW-RS body; and its study's UID.
fn synthetic_study(seed: u64) -> anyhow::Result<(String, Vec<u8>)> {
    let folder = std::env::temp_dir().join(format!("ictus-demo-{}", std::process::id()));
    let head = Head::new(seed, Kind::Haemorrhage, Range::Training);
    let rendered = head.render(&geometry(GeometryKind::Scanner, seed, Range::Training));
    write_dicom(&head, &rendered, GeometryKind::Scanner, &folder)?;
    let mut body = Vec::new();
    let mut study = None;
    for entry in fs::read_dir(&folder)? {
        let bytes = fs::read(entry?.path())?;
        if study.is_none() {
            study = ictus::dicom::instance::Instance::from_bytes(&bytes)?
                .attributes
                .study_instance_uid;
        }
        body.extend_from_slice(format!("--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n").as_bytes());
        body.extend_from_slice(&bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    fs::remove_dir_all(&folder)?;
    let study = study.context("the synthetic study has no UID")?;
    Ok((study.as_str().to_owned(), body))
}
