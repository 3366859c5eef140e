//! Where the machine keeps PostgreSQL's server programs.

use super::PrivatePostgresError;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian keeps one folder a major version here, off the PATH.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A folder with `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub dir: PathBuf,
    /// Their major version.
    pub major: u32,
}

/// Every server installation at hand, the preferred one first: `PG_BINDIR` alone if it is set, else those on `PATH`, then Debian's, newest first.
#[must_use]
pub fn installed() -> Vec<Binaries> {
    let bindir = std::env::var_os("PG_BINDIR");
    let path = std::env::var_os("PATH").unwrap_or_default();
    search(bindir.as_deref(), &path, Path::new(DEBIAN))
}

/// The installation for a data directory: of its major version, or the preferred one for a new directory.
pub(super) fn choose(data: &Path) -> Result<Binaries, PrivatePostgresError> {
    let found = installed();
    if found.is_empty() {
        let searched = match std::env::var_os("PG_BINDIR") {
            Some(dir) => format!("PG_BINDIR ({})", Path::new(&dir).display()),
            None => format!("PG_BINDIR (not set), PATH and {DEBIAN}/*/bin"),
        };
        return Err(PrivatePostgresError::NoBinaries { searched });
    }
    match_data(found, data)
}

fn match_data(mut found: Vec<Binaries>, data: &Path) -> Result<Binaries, PrivatePostgresError> {
    let Ok(version) = fs::read_to_string(data.join("PG_VERSION")) else {
        return Ok(found.swap_remove(0));
    };
    let version = version.trim();
    if let Some(at) = found
        .iter()
        .position(|binaries| binaries.major.to_string() == version)
    {
        return Ok(found.swap_remove(at));
    }
    let installed: Vec<String> = found.iter().map(|binaries| binaries.major.to_string()).collect();
    Err(PrivatePostgresError::OtherMajor {
        data: data.to_owned(),
        found: version.to_owned(),
        installed: installed.join(", "),
    })
}

fn search(bindir: Option<&OsStr>, path: &OsStr, debian: &Path) -> Vec<Binaries> {
    let mut found: Vec<Binaries> = Vec::new();
    let mut add = |dir: PathBuf| {
        // A link on the PATH leads to the folder that also holds what initdb needs.
        let dir = fs::canonicalize(dir.join("postgres"))
            .ok()
            .and_then(|p| p.parent().map(Path::to_owned));
        let Some(dir) = dir.filter(|dir| dir.join("initdb").is_file()) else {
            return;
        };
        if found.iter().all(|known| known.dir != dir)
            && let Some(major) = major(&dir)
        {
            found.push(Binaries { dir, major });
        }
    };
    if let Some(dir) = bindir {
        add(PathBuf::from(dir));
        return found;
    }
    std::env::split_paths(path).for_each(&mut add);
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(debian)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().for_each(|(_, dir)| add(dir));
    found
}

/// Asks `postgres --version`.
fn major(dir: &Path) -> Option<u32> {
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15; from version 10 on the major version is one number.
fn parse_major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn install(dir: &Path, version: &str) {
        fs::create_dir_all(dir).unwrap();
        for name in ["postgres", "initdb"] {
            let file = dir.join(name);
            fs::write(
                &file,
                format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"),
            )
            .unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn majors(found: &[Binaries]) -> Vec<u32> {
        found.iter().map(|binaries| binaries.major).collect()
    }

    #[test]
    fn reads_the_major_version_of_releases_and_betas() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("something else\n"), None);
    }

    #[test]
    fn pg_bindir_is_alone_then_comes_the_path_then_debian_by_number() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        install(&at("own"), "14.1");
        install(&at("path"), "16.2");
        for version in ["9", "13", "18"] {
            install(&at("debian").join(version).join("bin"), &format!("{version}.0"));
        }
        let path = std::env::join_paths([at("nothing"), at("path")]).unwrap();
        assert_eq!(majors(&search(None, &path, &at("debian"))), [16, 18, 13, 9]);
        assert_eq!(
            majors(&search(Some(at("own").as_os_str()), &path, &at("debian"))),
            [14]
        );
        assert!(search(Some(at("nothing").as_os_str()), &path, &at("debian")).is_empty());
    }

    #[test]
    fn a_data_directory_gets_the_version_that_made_it_or_a_refusal_that_names_it() {
        let data = tempfile::tempdir().unwrap();
        let found: Vec<Binaries> = [18, 15]
            .map(|major| Binaries {
                dir: format!("/{major}").into(),
                major,
            })
            .to_vec();
        assert_eq!(match_data(found.clone(), data.path()).unwrap().major, 18);
        fs::write(data.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(match_data(found.clone(), data.path()).unwrap().major, 15);
        fs::write(data.path().join("PG_VERSION"), "13\n").unwrap();
        let refusal = match_data(found, data.path()).unwrap_err().to_string();
        assert!(
            refusal.contains("PostgreSQL 13") && refusal.contains("18, 15"),
            "{refusal}"
        );
    }
}
