//! A folder → a PostgreSQL server of our own, run from the machine's binaries, for when no `DATABASE_URL` is given.
//!
//! What must hold:
//! the folder is 0700 and the server listens on a Unix socket in it, never on a port, so that file permissions are the password;
//! one process owns the server, marked by a file lock that the kernel drops with it;
//! the server dies with its owner, even by SIGKILL, and the next owner waits for it;
//! what a COMMIT has acknowledged is on disk (`fsync`, `synchronous_commit`);
//! its log holds no client error, since those quote values.
//!
//! It does not upgrade a data directory of another major version, run outside Linux, or restart a server that died by itself.
//!
//! ```text
//! DIR/owner.lock      held by the process that owns the server
//! DIR/data/           the cluster; DIR/data.new/ while initdb works
//! DIR/postgres.log    the server's own messages
//! DIR/.s.PGSQL.5432   the socket, elsewhere when this path is too long for one
//! ```
//!
//! Source: PostgreSQL's manual, "Server Setup and Operation" and "postmaster.pid" (`src/include/utils/pidfile.h`); prctl(2); unix(7).

mod binaries;
mod error;
mod pid_file;
mod place;
mod user;

pub use binaries::{Binaries, installed};
pub use error::PrivatePostgresError;

use pid_file::PidFile;
use place::Place;
use sqlx::postgres::PgConnectOptions;
use std::{
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use user::User;

/// The bootstrap superuser: owns the schema, the migrations and the queue.
pub const OWNER_ROLE: &str = "ictus_owner";
/// The database that [`PrivatePostgres`] makes.
pub const DATABASE: &str = "ictus";

/// Port in the socket's name; nothing listens on it.
const PORT: u16 = 5432;
/// How long a killed predecessor's owner lock or server may take to go.
const PREDECESSOR: Duration = Duration::from_secs(60);
/// How long the owner lock of a process that is just being killed may stay: its memory is torn down first.
const LOCK: Duration = Duration::from_secs(10);
/// How long a start may take; crash recovery replays at most one checkpoint interval of WAL.
const READY: Duration = Duration::from_secs(120);
/// How long a fast shutdown may take before the server is told to stop at once and recover later.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// Between two looks at a file or a process.
const POLL: Duration = Duration::from_millis(20);

/// Given on the command line, so that they win over an edited `postgresql.conf`.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "max_connections=200",
    "timezone=UTC",
    "log_timezone=UTC",
    // Client errors (below LOG) quote values, and so do their DETAIL and STATEMENT lines: none of them is logged.
    "log_min_messages=log",
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
    "log_statement=none",
    "log_min_duration_statement=-1",
];

/// A private server that is ready for connections: ours, or that of another process of this data folder.
#[derive(Debug)]
pub struct PrivatePostgres {
    socket_dir: PathBuf,
    /// Nothing when the server belongs to another process.
    keeper: Option<Keeper>,
}

impl PrivatePostgres {
    /// Starts the server in `dir` and owns it: for `serve` and `demo`.
    ///
    /// Blocks for a fraction of a second, some seconds the first time.
    ///
    /// # Errors
    /// No usable binaries, a folder that cannot be used, another owner, or a server that does not come up.
    pub fn start(dir: &Path) -> Result<Self, PrivatePostgresError> {
        let place = Place::prepare(dir)?;
        let deadline = Instant::now() + LOCK;
        loop {
            if let Some(lock) = place.try_own()? {
                return Self::own(place, lock);
            }
            if Instant::now() > deadline {
                return Err(PrivatePostgresError::InUse {
                    dir: place.dir.clone(),
                    pid: place.owner(),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Joins the server that another process runs in `dir`, or starts one when none lives: for every other command.
    ///
    /// # Errors
    /// As [`PrivatePostgres::start`]; another owner whose server does not become ready is an error too.
    pub fn attach(dir: &Path) -> Result<Self, PrivatePostgresError> {
        let place = Place::prepare(dir)?;
        let deadline = Instant::now() + READY;
        loop {
            // The lock first: without an owner, a server that still answers is about to stop.
            if let Some(lock) = place.try_own()? {
                return Self::own(place, lock);
            }
            if let Some(socket_dir) = PidFile::read(&place.data).and_then(|file| file.ready_socket_dir()) {
                return Ok(Self {
                    socket_dir,
                    keeper: None,
                });
            }
            if Instant::now() > deadline {
                return Err(PrivatePostgresError::NotReady {
                    seconds: READY.as_secs(),
                    log: place.log_path(),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// What [`PrivatePostgres::start`] would use, without starting anything.
    ///
    /// A folder that is not there is not made, so only the programs are looked for then.
    ///
    /// # Errors
    /// As [`PrivatePostgres::start`], as far as it can be known before.
    pub fn check(dir: &Path) -> Result<Binaries, PrivatePostgresError> {
        if !dir.exists() {
            let user = User::choose(dir)?;
            let path = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
            let above = path.ancestors().find_map(|folder| folder.canonicalize().ok());
            let closed = above
                .and_then(|above| user.first_closed(&above))
                .filter(|_| user.other);
            return match closed {
                Some(directory) => Err(PrivatePostgresError::NotSearchable {
                    directory,
                    uid: user.uid,
                }),
                None => binaries::choose(dir),
            };
        }
        let place = Place::prepare(dir)?;
        place.socket_dir()?;
        Ok(place.binaries)
    }

    fn own(place: Place, lock: File) -> Result<Self, PrivatePostgresError> {
        let socket_dir = place.socket_dir()?;
        let keeper = Keeper::start(place, lock, socket_dir.clone())?;
        Ok(Self {
            socket_dir,
            keeper: Some(keeper),
        })
    }

    /// Whether this process owns the server.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.keeper.is_some()
    }

    /// The folder of the socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// How sqlx connects.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(PORT)
            .username(OWNER_ROLE)
            .database(DATABASE)
    }

    /// The same as a `DATABASE_URL`: the folder of the socket stands, percent-encoded, where a host would.
    #[must_use]
    pub fn url(&self) -> String {
        let mut host = String::new();
        for byte in self.socket_dir.as_os_str().as_encoded_bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                host.push(char::from(*byte));
            } else {
                host.push_str(&format!("%{byte:02X}"));
            }
        }
        format!("postgres://{OWNER_ROLE}@{host}:{PORT}/{DATABASE}")
    }
}

/// The thread that started the server and stays until it has stopped.
///
/// Linux sends the parent-death signal when the *thread* that forked ends, whatever the rest of the process does: so the thread is ours, and any thread may call [`PrivatePostgres::start`].
#[derive(Debug)]
struct Keeper {
    /// Dropped to say stop.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(place: Place, lock: File, socket_dir: PathBuf) -> Result<Self, PrivatePostgresError> {
        let (stop, stopped) = mpsc::channel();
        let (started, start) = mpsc::channel();
        let dir = place.dir.clone();
        let thread = thread::Builder::new()
            .name("private-postgres".to_owned())
            .spawn(move || {
                match place.initialise().and_then(|()| launch(&place, &socket_dir)) {
                    Ok(server) => {
                        // The receiver waits just below.
                        let _ = started.send(Ok(()));
                        keep(server, &stopped);
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
                drop(lock);
            })
            .map_err(|source| PrivatePostgresError::io("start a thread for the server in", &dir, source))?;
        let keeper = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        match start.recv() {
            Ok(Ok(())) => Ok(keeper),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(PrivatePostgresError::KeeperDied),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A keeper that panicked has taken its server with it.
            let _ = thread.join();
        }
    }
}

/// Waits until told to stop, then stops the server.
fn keep(mut server: Child, stopped: &mpsc::Receiver<()>) {
    /// How soon a server that died by itself is reported.
    const GLANCE: Duration = Duration::from_millis(250);
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(GLANCE) {
        if let Ok(Some(status)) = server.try_wait() {
            tracing::error!(state = %status, "the private Postgres has stopped by itself; restart ictus");
            return;
        }
    }
    for (signal, patience) in [
        (libc::SIGINT, SHUTDOWN),
        (libc::SIGQUIT, SHUTDOWN),
        (libc::SIGKILL, Duration::MAX),
    ] {
        send(server.id(), signal);
        if wait_for(&mut server, patience).is_some() {
            return;
        }
    }
}

fn wait_for(server: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < patience {
        match server.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => thread::sleep(POLL),
            Err(_) => return None,
        }
    }
    None
}

/// Starts the server and waits until it takes connections.
fn launch(place: &Place, socket_dir: &Path) -> Result<Child, PrivatePostgresError> {
    await_predecessor(place)?;
    let deadline = Instant::now() + READY;
    // Orphaned backends of a killed server hold its shared memory for a moment, and the next one refuses to start meanwhile.
    let retry_until = Instant::now() + Duration::from_secs(10);
    let mut server = spawn(place, socket_dir)?;
    loop {
        if let Some(status) = server
            .try_wait()
            .map_err(|e| place.io("wait for the server in", e))?
        {
            if Instant::now() > retry_until {
                return Err(PrivatePostgresError::Exited {
                    status,
                    reason: place.last_complaint(),
                    log: place.log_path(),
                });
            }
            thread::sleep(Duration::from_millis(250));
            server = spawn(place, socket_dir)?;
        }
        if PidFile::read(&place.data).is_some_and(|file| file.pid == server.id() && file.ready) {
            return Ok(server);
        }
        if Instant::now() > deadline {
            send(server.id(), libc::SIGQUIT);
            let _ = wait_for(&mut server, SHUTDOWN);
            return Err(PrivatePostgresError::NotReady {
                seconds: READY.as_secs(),
                log: place.log_path(),
            });
        }
        thread::sleep(POLL);
    }
}

/// Waits for the server of an owner that was killed. We hold the lock, so whatever still runs here is an orphan.
fn await_predecessor(place: &Place) -> Result<(), PrivatePostgresError> {
    let begin = Instant::now();
    let mut told = None;
    while let Some(file) = PidFile::read(&place.data) {
        if !file.is_alive() {
            return Ok(());
        }
        if !file.is_server_of(&place.data) {
            // The machine or the container restarted and the number now is another process's, or a zombie's: Postgres would take it for a living server.
            return file
                .remove(&place.data)
                .map_err(|e| place.io("remove the stale lock file in", e));
        }
        if told != Some(file.pid) {
            send(file.pid, libc::SIGINT);
            told = Some(file.pid);
        }
        if begin.elapsed() > PREDECESSOR {
            return Err(PrivatePostgresError::StillRunning {
                dir: place.dir.clone(),
                pid: file.pid,
            });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

fn spawn(place: &Place, socket_dir: &Path) -> Result<Child, PrivatePostgresError> {
    let log = place.open_log()?;
    let errors = log.try_clone().map_err(|e| place.io("open the log in", e))?;
    let mut command = place.command("postgres");
    command
        .arg("-D")
        .arg(&place.data)
        .arg("-k")
        .arg(place::as_list_item(socket_dir));
    for setting in SETTINGS {
        command.arg("-c").arg(setting);
    }
    command
        .arg("-c")
        .arg(format!("port={PORT}"))
        .stdout(log)
        .stderr(errors);
    // Its own process group: the terminal's Ctrl-C is for ictus, which then stops the server in order.
    command.process_group(0);
    die_with_us(&mut command, libc::SIGINT);
    command.spawn().map_err(|e| place.io("start postgres in", e))
}

/// Runs a program of Postgres to its end; its complaint is the error.
fn finish(
    place: &Place,
    mut command: Command,
    input: &str,
    what: &'static str,
) -> Result<(), PrivatePostgresError> {
    die_with_us(&mut command, libc::SIGTERM);
    let fail = |e| place.io("prepare the database in", e);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(fail)?;
    }
    let output = child.wait_with_output().map_err(fail)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(PrivatePostgresError::Prepare {
        program: what,
        status: output.status,
        text,
    })
}

/// Makes the kernel send `signal` to the child when the thread that spawns it ends.
#[expect(
    unsafe_code,
    reason = "the hook that ties Postgres to our life runs between fork and exec"
)]
fn die_with_us(command: &mut Command, signal: libc::c_int) {
    let parent = std::process::id();
    let hook = move || {
        // SAFETY: prctl and getppid are plain system calls, and nothing here allocates or locks.
        let (failed, orphaned) = unsafe {
            let failed = libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0;
            (failed, u32::try_from(libc::getppid()) != Ok(parent))
        };
        if failed {
            return Err(std::io::Error::last_os_error());
        }
        if orphaned {
            // We died between fork and prctl: no signal would come any more.
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the hook makes only async-signal-safe calls, as the time between fork and exec demands.
    unsafe { command.pre_exec(hook) };
}

#[expect(unsafe_code, reason = "std can only kill, not ask a process to shut down")]
fn send(pid: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    // SAFETY: a plain system call; the number is a child that we have not reaped, or was checked to be a server of this folder.
    unsafe { libc::kill(pid, signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_means_the_same_as_the_options_whatever_the_folder_is_called() {
        let server = PrivatePostgres {
            socket_dir: "/tmp/a b/50%,é".into(),
            keeper: None,
        };
        let parsed: PgConnectOptions = server.url().parse().unwrap();
        assert_eq!(
            server.url(),
            "postgres://ictus_owner@%2Ftmp%2Fa%20b%2F50%25%2C%C3%A9:5432/ictus"
        );
        assert_eq!(parsed.get_socket(), Some(&PathBuf::from("/tmp/a b/50%,é")));
        assert_eq!(parsed.get_socket(), server.options().get_socket());
        assert_eq!(parsed.get_username(), OWNER_ROLE);
        assert_eq!(parsed.get_database(), Some(DATABASE));
    }
}
