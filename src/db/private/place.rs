//! The folder of a private server: its permissions, its owner's lock, its data and its log.

use super::{
    DATABASE, OWNER_ROLE, PORT, PrivatePostgresError, binaries, binaries::Binaries, finish, user::User,
};
use sha2::{Digest as _, Sha256};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Longest path of a Unix socket: 108 bytes with the closing NUL (unix(7)).
const SOCKET_PATH: usize = 107;
/// From which size on the log of earlier runs is set aside at a start.
const LOG_BYTES: u64 = 1 << 20;

/// A folder that is ours, the programs for it and the user to run them as.
#[derive(Debug)]
pub(super) struct Place {
    /// Canonical.
    pub(super) dir: PathBuf,
    /// The cluster.
    pub(super) data: PathBuf,
    pub(super) binaries: Binaries,
    user: User,
}

impl Place {
    /// Makes the folder if it is missing and checks all that can be checked before anything runs.
    pub(super) fn prepare(dir: &Path) -> Result<Self, PrivatePostgresError> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(|e| PrivatePostgresError::io("create", parent, e))?;
        }
        let user = User::choose(&dir.join("data"))?;
        make_private(dir, user)?;
        let dir = fs::canonicalize(dir).map_err(|e| PrivatePostgresError::io("find", dir, e))?;
        let data = dir.join("data");
        let binaries = binaries::choose(&data)?;
        let place = Self {
            dir,
            data,
            binaries,
            user,
        };
        place.check_reach()?;
        Ok(place)
    }

    /// Whether the server's user can reach folder and programs, by trying.
    fn check_reach(&self) -> Result<(), PrivatePostgresError> {
        let tried = self
            .command("postgres")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        match tried {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let closed = self.user.first_closed(&self.dir);
                let closed = closed.or_else(|| self.user.first_closed(&self.binaries.dir));
                Err(PrivatePostgresError::NotSearchable {
                    directory: closed.unwrap_or_else(|| self.dir.clone()),
                    uid: self.user.uid,
                })
            }
            Err(error) => Err(self.io("run postgres in", error)),
            Ok(_) => Ok(()),
        }
    }

    /// A program of the chosen installation, as the server's user, with an environment of our own.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.dir.join(program));
        self.user.apply(&mut command);
        command
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null());
        command
    }

    /// Takes the lock that marks the owner; nothing when another process has it.
    pub(super) fn try_own(&self) -> Result<Option<File>, PrivatePostgresError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(self.lock_path())
            .map_err(|e| self.io("open the lock in", e))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(self.io("lock", error)),
            Ok(()) => {}
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|e| self.io("write the lock in", e))?;
        Ok(Some(file))
    }

    /// The owner's process number, as far as it is known.
    pub(super) fn owner(&self) -> String {
        let text = fs::read_to_string(self.lock_path()).unwrap_or_default();
        if text.trim().is_empty() {
            "unknown".to_owned()
        } else {
            text.trim().to_owned()
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("owner.lock")
    }

    /// Makes the cluster if there is none: elsewhere first, so that a half-made one is never taken for whole.
    pub(super) fn initialise(&self) -> Result<(), PrivatePostgresError> {
        if self.data.exists() {
            return Ok(());
        }
        let new = self.dir.join("data.new");
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.io("remove the half-made database in", error));
            }
            _ => {}
        }
        let mut initdb = self.command("initdb");
        initdb
            .arg("-D")
            .arg(&new)
            .args(["-U", OWNER_ROLE, "--auth=trust", "--encoding=UTF8"]);
        // Sorts by code point, and yet knows upper and lower case beyond ASCII.
        initdb.args(["--locale=C.UTF-8", "--data-checksums", "--no-instructions"]);
        finish(self, initdb, "", "initdb")?;
        let mut first = self.command("postgres");
        first.arg("--single").arg("-D").arg(&new).arg("postgres");
        finish(
            self,
            first,
            &format!("CREATE DATABASE {DATABASE};\n"),
            "postgres --single",
        )?;
        fs::rename(&new, &self.data)
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(|e| self.io("move the new database into", e))
    }

    /// Where the socket goes: here, or to a short path when this one is too long.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, PrivatePostgresError> {
        if socket_path_len(&self.dir) <= SOCKET_PATH {
            return Ok(self.dir.clone());
        }
        let digest = Sha256::digest(self.dir.as_os_str().as_bytes());
        let name = hex::encode(&digest[..8]);
        let bases = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .into_iter()
            .chain(["/run".into()]);
        bases
            .filter(|base| base.is_absolute() && self.user.first_closed(base).is_none())
            .map(|base| base.join(format!("ictus-{name}")))
            .find(|dir| socket_path_len(dir) <= SOCKET_PATH && make_private(dir, self.user).is_ok())
            .ok_or_else(|| PrivatePostgresError::PathTooLong {
                dir: self.dir.clone(),
                bytes: socket_path_len(&self.dir),
                allowed: SOCKET_PATH,
            })
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// The server's log, to append to; one earlier file is kept.
    pub(super) fn open_log(&self) -> Result<File, PrivatePostgresError> {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES) {
            fs::rename(&path, path.with_extension("log.1"))
                .map_err(|e| self.io("set the log aside in", e))?;
        }
        let open = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        open.map_err(|e| self.io("open the log in", e))
    }

    /// The last line of the log by which the server gave up.
    pub(super) fn last_complaint(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let complaint = log.lines().rev().find_map(|line| {
            let at = line.find("FATAL").or_else(|| line.find("PANIC"))?;
            Some(line[at..].to_owned())
        });
        complaint.unwrap_or_else(|| "it did not say why".to_owned())
    }

    pub(super) fn io(&self, action: &'static str, source: io::Error) -> PrivatePostgresError {
        PrivatePostgresError::io(action, &self.dir, source)
    }
}

/// Makes a folder that only `user` may enter, or closes one that is there.
fn make_private(dir: &Path, user: User) -> Result<(), PrivatePostgresError> {
    let fail = |e| PrivatePostgresError::io("make a private folder of", dir, e);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
        _ => {}
    }
    let mut owner = fs::metadata(dir).map_err(fail)?.uid();
    if owner == 0 && user.other {
        chown(dir, Some(user.uid), Some(user.gid)).map_err(fail)?;
        owner = user.uid;
    }
    if owner != user.uid {
        return Err(PrivatePostgresError::WrongOwner {
            directory: dir.to_owned(),
            owner,
            uid: user.uid,
        });
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(fail)
}

fn socket_path_len(dir: &Path) -> usize {
    dir.as_os_str().len() + format!("/.s.PGSQL.{PORT}").len()
}

/// A folder as one item of `unix_socket_directories`, where commas separate and double quotes protect.
pub(super) fn as_list_item(dir: &Path) -> OsString {
    let mut item = vec![b'"'];
    for byte in dir.as_os_str().as_bytes() {
        if *byte == b'"' {
            item.push(b'"');
        }
        item.push(*byte);
    }
    item.push(b'"');
    OsString::from_vec(item)
}
