//! `postmaster.pid`, the file by which a server says who and where it is, and whether it is ready.
//!
//! Source: PostgreSQL's `src/include/utils/pidfile.h`: process, data directory, start time, port, socket directory, listen address, shared memory key, status.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

const NAME: &str = "postmaster.pid";

/// The lines that we need.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    /// The server takes connections.
    pub(super) ready: bool,
    socket_dir: PathBuf,
    port: u16,
}

impl PidFile {
    /// Nothing when there is no file or it is only half written.
    pub(super) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data.join(NAME)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        Some(Self {
            // The number is negative in a stand-alone backend, which takes no connections.
            pid: lines.first()?.trim().trim_start_matches('-').parse().ok()?,
            ready: lines.get(7).is_some_and(|status| status.trim() == "ready"),
            socket_dir: PathBuf::from(lines.get(4).copied().unwrap_or_default()),
            port: lines
                .get(3)
                .and_then(|port| port.trim().parse().ok())
                .unwrap_or_default(),
        })
    }

    /// The folder of the socket, when the server is ready and does answer on it.
    pub(super) fn ready_socket_dir(self) -> Option<PathBuf> {
        (self.ready && UnixStream::connect(self.socket_path()).is_ok()).then_some(self.socket_dir)
    }

    fn socket_path(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Whether a process has this number.
    pub(super) fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// Whether that process is a server of this data directory: a server's working directory is its data.
    pub(super) fn is_server_of(&self, data: &Path) -> bool {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).is_ok_and(|cwd| cwd == data)
    }

    /// Removes what a server that is gone has left: this file, its socket and the socket's lock.
    pub(super) fn remove(&self, data: &Path) -> io::Result<()> {
        let socket = self.socket_path();
        for path in [
            data.join(NAME),
            socket.with_extension(format!("{}.lock", self.port)),
            socket,
        ] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = "812\n/d/data\n1763860000\n5432\n/d\n\n  5432001        7\nready   \n";

    #[test]
    fn reads_process_socket_and_status() {
        let file = PidFile::parse(LIVE).unwrap();
        assert_eq!(
            file,
            PidFile {
                pid: 812,
                ready: true,
                socket_dir: "/d".into(),
                port: 5432
            }
        );
        assert_eq!(file.socket_path(), Path::new("/d/.s.PGSQL.5432"));
    }

    #[test]
    fn a_server_that_starts_or_stops_or_has_not_written_all_is_not_ready() {
        assert!(!PidFile::parse(&LIVE.replace("ready", "stopping")).unwrap().ready);
        assert!(!PidFile::parse("812\n/d/data\n").unwrap().ready);
        assert_eq!(PidFile::parse(""), None);
    }

    #[test]
    fn removes_the_leftovers_of_a_server_that_is_gone_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = PidFile {
            pid: 1,
            ready: true,
            socket_dir: dir.path().into(),
            port: 5432,
        };
        for name in [NAME, ".s.PGSQL.5432", ".s.PGSQL.5432.lock", "PG_VERSION"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        file.remove(dir.path()).unwrap();
        file.remove(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["PG_VERSION"]);
    }
}
