//! The private Postgres on the machine's own binaries: its life, its end, and what it refuses.

use ictus::{
    db::private::{PrivatePostgres, PrivatePostgresError},
    domain::failure::FailureClass,
};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Names the folder in a child process of a test: see [`owner_process`].
const OWN: &str = "ICTUS_TEST_OWN_POSTGRES";

/// A folder that the server's user may enter, whoever runs the tests.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("postgres")
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn ask(options: PgConnectOptions, question: &'static str) -> String {
    let mut connection = options.connect().await.unwrap();
    let answer = sqlx::query(question)
        .fetch_one(&mut connection)
        .await
        .unwrap()
        .get(0);
    connection.close().await.unwrap();
    answer
}

async fn run(options: PgConnectOptions, statement: &'static str) {
    let mut connection: PgConnection = options.connect().await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn postmaster(dir: &Path) -> u32 {
    let file = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}

fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{what}: not within 30 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Not a test of its own: the process that other tests start, in which it owns a server until it is killed.
#[test]
fn owner_process() {
    let Some(dir) = std::env::var_os(OWN) else { return };
    let server = PrivatePostgres::start(Path::new(&dir)).unwrap_or_else(|error| panic!("{error}"));
    println!("\nready {}", server.url());
    std::thread::sleep(Duration::from_secs(600));
}

/// The command of [`owner_process`] in this very binary.
fn owner_command(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "private_postgres::owner_process", "--nocapture"])
        .env(OWN, dir);
    command
}

/// Starts an owner in a process of its own and waits until its server is ready.
fn start_owner(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.starts_with("ready "));
    assert!(ready, "the owner's server did not start");
    child
}

#[test]
fn starts_answers_by_socket_and_by_url_and_stops_with_its_owner() {
    let folder = Folder::new();
    let server = PrivatePostgres::start(&folder.dir()).unwrap();
    let pid = postmaster(&folder.dir());
    block_on(async {
        assert_eq!(
            ask(server.options(), "SELECT current_user::text").await,
            "ictus_owner"
        );
        let by_url = server.url().parse().unwrap();
        assert_eq!(ask(by_url, "SELECT current_database()::text").await, "ictus");
        for (setting, value) in [
            ("SELECT current_setting('fsync')", "on"),
            ("SELECT current_setting('synchronous_commit')", "on"),
            ("SELECT current_setting('full_page_writes')", "on"),
            ("SELECT current_setting('listen_addresses')", ""),
            ("SELECT current_setting('data_checksums')", "on"),
            ("SELECT lower('ÄÖ')", "äö"),
        ] {
            assert_eq!(ask(server.options(), setting).await, value, "{setting}");
        }
    });
    drop(server);
    assert!(!lives(pid));
    assert!(!folder.dir().join("data/postmaster.pid").exists());
}

#[test]
fn nobody_else_may_enter_its_folders_and_it_does_not_run_as_root() {
    let folder = Folder::new();
    let _server = PrivatePostgres::start(&folder.dir()).unwrap();
    assert_eq!(mode(&folder.dir()), 0o700);
    assert_eq!(mode(&folder.dir().join("data")), 0o700);
    assert_eq!(mode(&folder.dir().join("postgres.log")), 0o600);
    let uid = fs::metadata(format!("/proc/{}", postmaster(&folder.dir())))
        .unwrap()
        .uid();
    assert_ne!(uid, 0);
    assert_eq!(uid, fs::metadata(folder.dir()).unwrap().uid());
}

#[test]
fn closes_a_folder_that_was_open() {
    let folder = Folder::new();
    fs::create_dir(folder.dir()).unwrap();
    fs::set_permissions(folder.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let _server = PrivatePostgres::start(&folder.dir()).unwrap();
    assert_eq!(mode(&folder.dir()), 0o700);
}

#[test]
fn dies_with_a_killed_owner_and_restarts_at_once_with_its_data() {
    let folder = Folder::new();
    let mut owner = start_owner(owner_command(&folder.dir()));
    let first = postmaster(&folder.dir());
    let attached = PrivatePostgres::attach(&folder.dir()).unwrap();
    assert!(!attached.is_owner());
    block_on(run(
        attached.options(),
        "CREATE TABLE kept AS SELECT 'acknowledged' AS word",
    ));

    // A client that stays connected would hold up any but a fast shutdown.
    let held = block_on(attached.options().connect()).unwrap();
    owner.kill().unwrap();
    let server = PrivatePostgres::start(&folder.dir()).unwrap();
    owner.wait().unwrap();
    assert!(!lives(first), "two servers on one data directory");
    assert_ne!(postmaster(&folder.dir()), first);
    assert_eq!(
        block_on(ask(server.options(), "SELECT word FROM kept")),
        "acknowledged"
    );
    drop(held);
}

#[test]
fn dies_with_a_killed_owner_when_nobody_starts_another() {
    let folder = Folder::new();
    let mut owner = start_owner(owner_command(&folder.dir()));
    let pid = postmaster(&folder.dir());
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the server of a killed owner ends", || !lives(pid));
}

#[test]
fn starts_after_the_server_itself_was_killed() {
    let folder = Folder::new();
    let mut owner = start_owner(owner_command(&folder.dir()));
    let kill = Command::new("kill")
        .args(["-KILL", &postmaster(&folder.dir()).to_string()])
        .status();
    assert!(kill.unwrap().success());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let server = PrivatePostgres::start(&folder.dir()).unwrap();
    assert_eq!(
        block_on(ask(server.options(), "SELECT current_database()::text")),
        "ictus"
    );
}

#[test]
fn a_lock_file_whose_number_now_is_another_process_is_not_a_living_server() {
    let folder = Folder::new();
    drop(PrivatePostgres::start(&folder.dir()).unwrap());
    let file = format!("{}\n", std::process::id());
    fs::write(folder.dir().join("data/postmaster.pid"), file).unwrap();
    let server = PrivatePostgres::start(&folder.dir()).unwrap();
    assert_eq!(
        block_on(ask(server.options(), "SELECT current_database()::text")),
        "ictus"
    );
}

#[test]
fn a_half_made_database_is_made_anew() {
    let folder = Folder::new();
    fs::create_dir_all(folder.dir().join("data.new/base")).unwrap();
    fs::write(folder.dir().join("data.new/PG_VERSION"), "15\n").unwrap();
    let server = PrivatePostgres::start(&folder.dir()).unwrap();
    assert_eq!(
        block_on(ask(server.options(), "SELECT current_database()::text")),
        "ictus"
    );
    assert!(!folder.dir().join("data.new").exists());
}

#[test]
fn a_second_owner_is_refused_and_told_who_the_first_is() {
    let folder = Folder::new();
    let _first = PrivatePostgres::start(&folder.dir()).unwrap();
    let refusal = PrivatePostgres::start(&folder.dir()).unwrap_err();
    assert!(matches!(refusal, PrivatePostgresError::InUse { .. }), "{refusal}");
    assert!(
        refusal.to_string().contains(&std::process::id().to_string()),
        "{refusal}"
    );
    assert_eq!(refusal.class(), FailureClass::Transient);
}

#[test]
fn attaching_joins_a_living_server_and_starts_one_only_when_none_lives() {
    let folder = Folder::new();
    let alone = PrivatePostgres::attach(&folder.dir()).unwrap();
    assert!(alone.is_owner());
    let joined = PrivatePostgres::attach(&folder.dir()).unwrap();
    assert!(!joined.is_owner());
    let pid = postmaster(&folder.dir());
    assert_eq!(joined.socket_dir(), alone.socket_dir());
    drop(joined);
    assert!(lives(pid), "one that only joined must not stop the server");
    drop(alone);
    assert!(!lives(pid));
}

#[test]
fn refuses_a_database_of_another_major_version_and_leaves_it_as_it_was() {
    let folder = Folder::new();
    drop(PrivatePostgres::start(&folder.dir()).unwrap());
    fs::write(folder.dir().join("data/PG_VERSION"), "9\n").unwrap();
    let refusal = PrivatePostgres::start(&folder.dir()).unwrap_err();
    assert!(
        matches!(&refusal, PrivatePostgresError::OtherMajor { found, .. } if found == "9"),
        "{refusal}"
    );
    assert!(refusal.to_string().contains("postgresql-9"), "{refusal}");
    assert_eq!(refusal.class(), FailureClass::Input);
    assert_eq!(
        fs::read_to_string(folder.dir().join("data/PG_VERSION")).unwrap(),
        "9\n"
    );
}

#[test]
fn missing_binaries_are_named_with_the_package_and_the_way_around() {
    let folder = Folder::new();
    // The environment of a process is read-only while its threads run: so the question is put in a child.
    let output = owner_command(&folder.dir())
        .env("PG_BINDIR", folder.0.path())
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success());
    for word in ["PG_BINDIR", "apt-get install postgresql", "DATABASE_URL"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn a_path_too_long_for_a_socket_moves_the_socket_and_others_find_it() {
    let (folder, runtime) = (Folder::new(), Folder::new());
    let deep = folder.0.path().join("a".repeat(120));
    let mut command = owner_command(&deep);
    command.env("XDG_RUNTIME_DIR", runtime.0.path());
    let mut owner = start_owner(command);
    let joined = PrivatePostgres::attach(&deep).unwrap();
    assert_eq!(joined.socket_dir().parent(), Some(runtime.0.path()));
    assert_eq!(mode(joined.socket_dir()), 0o700);
    let by_url = joined.url().parse().unwrap();
    assert_eq!(block_on(ask(by_url, "SELECT current_database()::text")), "ictus");
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the killed owner's server takes its socket along", || {
        fs::read_dir(joined.socket_dir()).unwrap().next().is_none()
    });
}

#[test]
fn a_folder_with_commas_quotes_and_spaces_works() {
    let folder = Folder::new();
    let server = PrivatePostgres::start(&folder.0.path().join("a, \"b\" é%41")).unwrap();
    let by_url = server.url().parse().unwrap();
    assert_eq!(block_on(ask(by_url, "SELECT current_database()::text")), "ictus");
}

#[test]
fn its_log_quotes_no_values() {
    let folder = Folder::new();
    let server = PrivatePostgres::start(&folder.dir()).unwrap();
    block_on(async {
        let mut connection = server.options().connect().await.unwrap();
        sqlx::query("CREATE TABLE patient (name text UNIQUE)")
            .execute(&mut connection)
            .await
            .unwrap();
        let insert = "INSERT INTO patient VALUES ('Planted^Name')";
        sqlx::query(insert).execute(&mut connection).await.unwrap();
        sqlx::query(insert).execute(&mut connection).await.unwrap_err();
        sqlx::query("SELECT 'Planted^Name'::int")
            .execute(&mut connection)
            .await
            .unwrap_err();
    });
    drop(server);
    let log = fs::read_to_string(folder.dir().join("postgres.log")).unwrap();
    assert!(log.contains("ready to accept connections"), "{log}");
    assert!(!log.contains("Planted"), "{log}");
}

#[test]
fn says_which_folder_the_servers_user_may_not_enter() {
    let folder = Folder::new();
    let closed = folder.0.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let foreseen = PrivatePostgres::check(&closed.join("postgres"));
    assert!(!closed.join("postgres").exists(), "a check makes nothing");
    let attempt = PrivatePostgres::start(&closed.join("postgres"));
    // An ordinary user runs the server itself and may enter its own folder.
    if fs::metadata(&closed).unwrap().uid() != 0 {
        foreseen.unwrap();
        drop(attempt.unwrap());
        return;
    }
    for refusal in [foreseen.unwrap_err(), attempt.unwrap_err()] {
        assert!(
            matches!(&refusal, PrivatePostgresError::NotSearchable { directory, .. } if *directory == closed),
            "{refusal}"
        );
    }
}
