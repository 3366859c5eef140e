//! `ictus serve`: the server, its worker, and the private database when there is no other.
//!
//! Order of the start: flags, keys, port, database, schema, archive, worker, then requests; each failure ends it with a
//! sentence before anything is served.
//! Order of the end: no new requests, requests under way finish, the worker stops, the database stops last.

use super::{
    adt::{AdtArgs, AdtListener},
    analyser::{self, Analysers},
    archive::{self, QuotaArgs},
    database::{Database, DatabaseArgs, Role},
    dimse::{DimseArgs, Listener},
    engine::{EngineArgs, MapArgs},
    oidc::OidcArgs,
};
use anyhow::Context as _;
use ictus::{
    archive::Archive,
    association::requestor::Peer,
    config::DEFAULT_QUIET,
    db::{Db, events::Events, queue::Timing},
    deliver::{Deliverer, Target, target::Way},
    dimse::Provider,
    fetch::{Fetcher, Rule},
    http::{
        App, Limits,
        auth::{Access, AuthError},
        cors::Origin,
        metrics::Metrics,
    },
    receive::{Quota, Receiver},
    review::oidc::Oidc,
    worker::Worker,
    workitem::perform::Performer,
};
use std::{
    future::Future,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// How long requests under way get when the server is told to stop: a whole study over a slow line.
const REQUESTS_END_WITHIN: Duration = Duration::from_secs(120);
/// How long the worker gets to let go of its job; another worker takes it up again later.
const WORKER_ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How often files that nothing refers to are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Exit code for flags that cannot be honoured.
const USAGE: u8 = 2;

/// Run the server: DICOMweb, API and page.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; beyond loopback only with --key-file.
    #[arg(
        long,
        env = "ICTUS_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) maps: MapArgs,
    #[command(flatten)]
    quota: QuotaArgs,
    /// Serve only; other processes (`ictus worker`) analyse.
    #[arg(long)]
    pub(crate) no_worker: bool,
    /// Seconds without a new instance after which a series is taken to be complete.
    #[arg(long, env = "ICTUS_QUIET", default_value_t = DEFAULT_QUIET.as_secs(), value_name = "SECONDS")]
    pub(crate) quiet: u64,
    /// File of API keys, one `name:role:sha256` a line; see `ictus key create`.
    #[arg(long, env = "ICTUS_KEY_FILE", value_name = "PATH")]
    pub(crate) key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) dimse: DimseArgs,
    #[command(flatten)]
    pub(crate) adt: AdtArgs,
    #[command(flatten)]
    oidc: OidcArgs,
    /// An origin whose pages may use DICOMweb with a key, such as https://viewer.example; repeat it, or join with commas.
    #[arg(
        long,
        env = "ICTUS_ALLOW_ORIGIN",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub(crate) allow_origin: Vec<Origin>,
    /// File of the targets that results are sent to (JSON); all servers on one database get the same.
    #[arg(long, env = "ICTUS_DELIVER", value_name = "FILE")]
    pub(crate) deliver: Option<PathBuf>,
}

/// Runs the command until a signal ends it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Err(error) = args.dimse.check() {
        writeln!(std::io::stderr(), "{error}")?;
        return Ok(ExitCode::from(USAGE));
    }
    if let Err(error) = args.adt.check() {
        writeln!(std::io::stderr(), "{error}")?;
        return Ok(ExitCode::from(USAGE));
    }
    let access = match Access::new(args.key_file.as_deref(), args.listen.ip()) {
        Err(error @ AuthError::NotLoopback(_)) => {
            writeln!(std::io::stderr(), "{error}")?;
            return Ok(ExitCode::from(USAGE));
        }
        other => other?,
    };
    let oidc = match args.oidc.provider(args.listen) {
        Ok(oidc) => oidc,
        Err(error) => {
            writeln!(std::io::stderr(), "ictus: {error}")?;
            return Ok(ExitCode::from(USAGE));
        }
    };
    let deliver = match args
        .deliver
        .as_deref()
        .map(ictus::deliver::target::read)
        .transpose()
    {
        Ok(targets) => targets,
        Err(error) => {
            writeln!(std::io::stderr(), "ictus: {:#}", anyhow::Error::from(error))?;
            return Ok(ExitCode::from(USAGE));
        }
    };
    let listener = std::net::TcpListener::bind(args.listen)
        .with_context(|| format!("cannot listen on {}; choose another --listen", args.listen))?;
    listener.set_nonblocking(true)?;
    let neighbours = match Neighbours::read(args.deliver.as_deref(), deliver.as_deref().unwrap_or_default()) {
        Ok(neighbours) => neighbours,
        Err(error) => {
            writeln!(std::io::stderr(), "ictus: {error:#}")?;
            return Ok(ExitCode::from(USAGE));
        }
    };
    let fetch = (args.dimse.title().to_owned(), neighbours.rules);
    let dimse = args.dimse.bind(neighbours.peers)?;
    let adt = args.adt.bind()?;
    let analysers = if args.no_worker {
        Analysers::none()
    } else {
        analyser::load(&args.engine, args.maps.maps())?
    };
    // From the main thread, before the runtime: the private server ends with the thread that started it.
    let database = args.database.open(Role::Owner)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let settings = Settings {
        archive: archive::open(&args.database)?,
        quota: args.quota.quota(),
        quiet: Duration::from_secs(args.quiet),
        access,
        analysers,
        dimse,
        adt,
        deliver,
        fetch,
        oidc,
        allow_origins: args.allow_origin.clone(),
    };
    runtime.block_on(serve(settings, listener, &database, stop_signal()))?;
    // Whatever still runs on the threads of the runtime must not outlive the database.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// What the file of targets says beside the targets.
struct Neighbours {
    /// Whom this server may send instances to: the peers of the file, and its C-STORE targets.
    peers: Vec<Peer>,
    /// What is fetched.
    rules: Vec<Rule>,
}

impl Neighbours {
    fn read(file: Option<&Path>, targets: &[Target]) -> anyhow::Result<Self> {
        let Some(file) = file else {
            return Ok(Self {
                peers: Vec::new(),
                rules: Vec::new(),
            });
        };
        let document = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let mut peers = ictus::scu::peers::parse(&document)?;
        let rules = ictus::fetch::parse(&document, &peers)?;
        for target in targets {
            if let Way::CStore { peer, .. } = &target.way
                && !peers.iter().any(|other| other.title == peer.title)
            {
                peers.push(peer.clone());
            }
        }
        Ok(Self { peers, rules })
    }
}

/// What a server is made of, once its flags are read.
pub(crate) struct Settings {
    /// The files.
    pub(crate) archive: Archive,
    /// How many of them there may be.
    pub(crate) quota: Quota,
    /// When a series is complete.
    pub(crate) quiet: Duration,
    /// Who may use it.
    pub(crate) access: Access,
    /// What it analyses with.
    pub(crate) analysers: Analysers,
    /// Where it answers DICOM associations.
    pub(crate) dimse: Option<Listener>,
    /// Where it answers HL7 messages.
    pub(crate) adt: Option<AdtListener>,
    /// Who vouches for people beside local accounts.
    pub(crate) oidc: Option<Oidc>,
    /// Whose pages may use DICOMweb from their own origin.
    pub(crate) allow_origins: Vec<Origin>,
    /// Whom it sends results to; nothing about targets is changed without.
    pub(crate) deliver: Option<Vec<Target>>,
    /// As whom it fetches and is named in workitems, and by which rules it fetches.
    pub(crate) fetch: (String, Vec<Rule>),
}

/// Serves until `stop`; also what `demo` runs.
pub(crate) async fn serve(
    settings: Settings,
    listener: std::net::TcpListener,
    database: &Database,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let db = database.connect().await?;
    db.migrate().await?;
    let archive = settings.archive;
    let receiver = Receiver::new(db.clone(), archive.clone(), settings.quiet).with_quota(settings.quota);
    receiver.sweep_staging().await?;
    receiver.audit_associations(true).await?;
    let events = db.listen().await?;
    let (stopping, stopped) = watch::channel(false);

    let worker = settings.analysers.worker.map(|analyser| {
        let worker = Worker::new(db.clone(), archive.clone(), events.clone(), analyser);
        tokio::spawn(worker.run(Timing::default(), has_stopped(stopped.clone())))
    });
    let deliverer = match settings.deliver {
        Some(targets) => {
            let timing = ictus::deliver::Timing::default();
            let deliverer = Deliverer::new(db.clone(), archive.clone(), targets, timing)?;
            deliverer.register().await?;
            Some(tokio::spawn(deliverer.run(has_stopped(stopped.clone()))))
        }
        None => None,
    };
    let returning = ictus::review::returned::run(db.clone(), archive.clone(), has_stopped(stopped.clone()));
    let returning = tokio::spawn(returning);
    let (title, rules) = settings.fetch;
    let performer = Performer::new(db.clone(), events.clone(), &title, settings.quiet);
    performer.announce().await?;
    let performer = tokio::spawn(performer.run(has_stopped(stopped.clone())));
    let fetcher = if rules.is_empty() {
        None
    } else {
        let timing = ictus::fetch::Timing::default();
        let fetcher = Fetcher::new(db.clone(), receiver.clone(), &title, rules, timing)?;
        Some(tokio::spawn(fetcher.run(has_stopped(stopped.clone()))))
    };
    let sweeper = tokio::spawn(sweep(db.clone(), receiver.clone()));
    let evicting = tokio::spawn(receiver.clone().make_room_forever());
    let (dimse, dimse_address) = match settings.dimse {
        Some(Listener { socket, settings }) => {
            let called = settings.title.clone();
            let provider = Provider::new(db.clone(), archive.clone(), receiver.clone(), settings);
            let listener = tokio::net::TcpListener::from_std(socket)?;
            let address = (called, listener.local_addr()?);
            (
                Some(tokio::spawn(provider.run(listener, stopped.clone()))),
                Some(address),
            )
        }
        None => (None, None),
    };
    let adt = match settings.adt {
        Some(AdtListener { socket, settings }) => {
            let listener = tokio::net::TcpListener::from_std(socket)?;
            let address = listener.local_addr()?;
            let listening = ictus::adt::run(db.clone(), listener, settings, stopped.clone());
            Some((tokio::spawn(listening), address))
        }
        None => None,
    };
    let app = App {
        db: db.clone(),
        archive,
        receiver,
        events,
        metrics: Arc::new(Metrics::default()),
        version: Arc::new(settings.analysers.version),
        limits: Limits::default(),
        station: Arc::from(title.as_str()),
        allow_origins: settings.allow_origins.into(),
        oidc: settings.oidc.map(Arc::new),
        stopping: stopped.clone(),
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    announce(listener.local_addr()?)?;
    if let Some((title, address)) = dimse_address {
        writeln!(std::io::stdout(), "ictus listens on dicom://{title}@{address}")?;
    }
    if let Some((_, address)) = &adt {
        writeln!(std::io::stdout(), "ictus listens on mllp://{address}")?;
    }
    let router = ictus::http::router(app, settings.access);
    let serving = tokio::spawn(ictus::http::run(listener, router, has_stopped(stopped)));

    stop.await;
    tracing::info!("stopping: requests under way are finished");
    // Nobody listens any more when this fails.
    let _told = stopping.send(true);
    match tokio::time::timeout(REQUESTS_END_WITHIN, serving).await {
        Ok(ended) => ended??,
        Err(_) => tracing::warn!("some requests did not end in time and are cut off"),
    }
    if let Some(dimse) = dimse
        && tokio::time::timeout(REQUESTS_END_WITHIN, dimse).await.is_err()
    {
        tracing::warn!("some associations did not end in time and are cut off");
    }
    if let Some((listening, _)) = adt {
        listening.abort();
    }
    sweeper.abort();
    evicting.abort();
    performer.abort();
    returning.abort();
    if let Some(mut deliverer) = deliverer
        && tokio::time::timeout(WORKER_ENDS_WITHIN, &mut deliverer)
            .await
            .is_err()
    {
        deliverer.abort();
        tracing::warn!("a delivery is cut off; it is made again when a server is there");
    }
    if let Some(mut fetcher) = fetcher
        && tokio::time::timeout(WORKER_ENDS_WITHIN, &mut fetcher)
            .await
            .is_err()
    {
        fetcher.abort();
        tracing::warn!("what is being fetched is cut off; it is asked for again when a server is there");
    }
    if let Some(worker) = worker {
        match tokio::time::timeout(WORKER_ENDS_WITHIN, worker).await {
            Ok(ended) => ended??,
            Err(_) => tracing::warn!("an analysis is cut off; it runs again when a worker is there"),
        }
    }
    db.close().await;
    Ok(())
}

/// Says where the page is; scripts wait for this line.
fn announce(address: SocketAddr) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "ictus listens on http://{address}")?;
    Ok(())
}

/// Ends when the server is told to stop.
pub(crate) async fn has_stopped(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop, too.
    let _stop = stopped.wait_for(|stop| *stop).await;
}

/// Removes files that nothing refers to, from time to time.
async fn sweep(db: Db, receiver: Receiver) {
    let mut interval = tokio::time::interval(SWEEP_EVERY);
    loop {
        interval.tick().await;
        if let Err(error) = db.sweep_queues().await {
            tracing::warn!(%error, "clearing empty queues failed; it is tried again in an hour");
        }
        if let Err(error) = receiver.audit_associations(false).await {
            tracing::warn!(%error, "putting associations into the trail failed; it is tried again in an hour");
        }
        if let Err(error) = receiver.sweep_unreferenced().await {
            tracing::warn!(%error, "looking for unreferenced files failed; it is tried again in an hour");
        }
    }
}

/// Ends with SIGTERM or Ctrl-C; a second one ends the process at once.
pub(crate) async fn stop_signal() {
    signal().await;
    tokio::spawn(async {
        signal().await;
        std::process::exit(1);
    });
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be listened for; end the process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Runs a worker until `stop`, without a server.
pub(crate) async fn work(
    db: Db,
    archive: Archive,
    events: Events,
    analysers: Analysers,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let analyser = analysers
        .worker
        .context("this build has no model to analyse with")?;
    Ok(Worker::new(db, archive, events, analyser)
        .run(Timing::default(), stop)
        .await?)
}
