//! As whom the server runs: it refuses root, so root hands it to someone else.

use super::PrivatePostgresError;
use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

/// The user that runs the server and owns its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether it is someone else than this process.
    pub(super) other: bool,
}

impl User {
    /// Ourselves; when that is root, the owner of an existing database, else `postgres`, else `nobody`.
    pub(super) fn choose(data: &Path) -> Result<Self, PrivatePostgresError> {
        let me = current();
        if me.uid != 0 {
            return Ok(me);
        }
        if let Ok(existing) = fs::metadata(data)
            && existing.uid() != 0
        {
            return Ok(Self {
                uid: existing.uid(),
                gid: existing.gid(),
                other: true,
            });
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::in_passwd(&passwd, name))
            .ok_or(PrivatePostgresError::NoUser)
    }

    fn in_passwd(passwd: &str, name: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        let (uid, gid) = (ids.next()?.ok()?, ids.next()?.ok()?);
        (uid != 0).then_some(Self {
            uid,
            gid,
            other: true,
        })
    }

    /// Makes a command run as this user; supplementary groups are dropped with root.
    pub(super) fn apply(self, command: &mut Command) {
        if self.other {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// The topmost folder on the way to `path` that this user may not enter, by its permission bits.
    pub(super) fn first_closed(self, path: &Path) -> Option<PathBuf> {
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        way.into_iter()
            .find(|folder| {
                fs::metadata(folder).is_ok_and(|found| {
                    let shift = if found.uid() == self.uid {
                        6
                    } else if found.gid() == self.gid {
                        3
                    } else {
                        0
                    };
                    found.is_dir() && found.mode() >> shift & 1 == 0
                })
            })
            .map(Path::to_owned)
    }
}

#[expect(unsafe_code, reason = "std does not tell the effective user")]
fn current() -> User {
    // SAFETY: both are plain system calls that always succeed.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    User {
        uid,
        gid,
        other: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn finds_a_user_by_its_whole_name_and_never_takes_root() {
        let passwd = "root:x:0:0::/:/bin/sh\npostgres2:x:7:7::/:/bin/sh\npostgres:x:101:104::/:/bin/bash\n";
        let postgres = User::in_passwd(passwd, "postgres").unwrap();
        assert_eq!((postgres.uid, postgres.gid, postgres.other), (101, 104, true));
        assert_eq!(User::in_passwd(passwd, "nobody"), None);
        assert_eq!(User::in_passwd(passwd, "root"), None);
    }

    #[test]
    fn names_the_topmost_folder_that_another_user_may_not_enter() {
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (closed, below) = (top.path().join("closed"), top.path().join("closed/below"));
        fs::create_dir_all(&below).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = User {
            uid: 65_533,
            gid: 65_533,
            other: true,
        };
        assert_eq!(stranger.first_closed(&below), Some(closed.clone()));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(stranger.first_closed(&below), None);
    }
}
