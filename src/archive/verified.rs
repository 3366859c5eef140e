//! Which kept files were read and found to be what they were when they were written, so that a viewer that asks for the same file
//! frame by frame does not have it hashed each time.
//!
//! A file counts as seen only while its inode, length and times are those that it had then: nothing that writes to it leaves them
//! all alone. What a disk loses by itself they do not show, so that whoever analyses or proves something reads with
//! [`super::Archive::read`], which hashes.

use super::{Archive, ArchiveError, blocking, name_of};
use bytes::Bytes;
use std::{
    collections::HashMap,
    fs::Metadata,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
};

/// Files that are remembered; beyond it all are forgotten, which costs each of them one hash.
const MOST: usize = 100_000;

/// What a file was like when its digest was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The files that were found right; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Verified(Arc<Mutex<HashMap<String, Seen>>>);

impl Verified {
    fn holds(&self, key: &str, seen: Seen) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key) == Some(&seen)
    }

    fn keep(&self, key: &str, seen: Seen) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key.to_owned(), seen);
    }
}

impl Archive {
    /// Reads a kept file to be shown: its digest is checked the first time, and again when it was touched since.
    ///
    /// # Errors
    /// As [`Archive::read`].
    pub async fn read_shown(&self, key: &str) -> Result<Bytes, ArchiveError> {
        if self.in_bucket {
            return self.read(key).await;
        }
        let path = self.folder.join(name_of(key)?.as_ref());
        let found = blocking(move || match std::fs::File::open(path) {
            Ok(mut file) => {
                let seen = Seen::of(&file.metadata()?);
                let mut bytes = Vec::with_capacity(usize::try_from(seen.length).unwrap_or(0));
                file.read_to_end(&mut bytes)?;
                // Read while nobody wrote to it.
                let still = Seen::of(&file.metadata()?) == seen;
                Ok(Some((bytes, seen, still)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        let Some((bytes, seen, still)) = found.await? else {
            return Err(self.gone(key).await);
        };
        let bytes = Bytes::from(bytes);
        if still && self.verified.holds(key, seen) {
            return Ok(bytes);
        }
        Self::check(key, &bytes)?;
        if still {
            self.verified.keep(key, seen);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_was_touched_since_it_was_seen_is_checked_again() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path()).unwrap();
        let staged = archive.stage_bytes(b"as it was".to_vec()).await.unwrap();
        archive.keep(&staged).await.unwrap();
        let key = staged.key().to_owned();
        drop(staged);
        for _ in 0..2 {
            assert_eq!(archive.read_shown(&key).await.unwrap(), b"as it was".as_slice());
        }
        std::fs::write(folder.path().join(&key), b"as it is!").unwrap();
        assert!(matches!(
            archive.read_shown(&key).await,
            Err(ArchiveError::Corrupt { .. })
        ));
        std::fs::remove_file(folder.path().join(&key)).unwrap();
        assert!(matches!(
            archive.read_shown(&key).await,
            Err(ArchiveError::Missing(_))
        ));
    }
}
