//! Part 10 files, written once: a stream of bytes → `staging/{uuid}` → `blake3/ab/{digest}`.
//!
//! The staging area is a folder; what is kept is in the same folder or in a bucket of an S3 store (`bucket`).
//! Nothing that is kept is ever changed or overwritten: its name says what the bytes are, and is made only if it is not there.
//! Names are BLAKE3 digests, since each file is hashed when it comes and whenever an analysis reads it: without instructions for
//! SHA-256 in the processor that took three quarters of what storing a slice costs. What was kept as `sha256/ab/cd/{digest}` stays.
//! A staged file may still be in memory only; [`Archive::keep`] has files and their directory entries on the disk before it returns.
//! It first names all files of a request and then syncs them, several at once: one commit of the file system's journal serves them all.
//! Removing is for the sweeper of `receive` alone; what its quota evicted leaves an empty `evicted/{digest}`, so that whoever asks for it is told.
//! It knows neither DICOM nor the database.

mod bucket;
mod verified;

use crate::domain::{
    failure::FailureClass,
    phi::{Redacted, redact},
};
use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, local::LocalFileSystem, path::Path as Name,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// Where kept files live; the name is that of the digest.
const KEPT: &str = "blake3";
/// Where they lived before, by their SHA-256.
const KEPT_BEFORE: &str = "sha256";
/// Where files wait until they are acknowledged or refused.
const STAGING: &str = "staging";
/// What says that a kept file was evicted.
const EVICTED: &str = "evicted";
/// Files that are synced to the disk at once.
const SYNCED_AT_ONCE: usize = 32;
/// Files read at once.
const READ_AT_ONCE: usize = 4;
/// Bytes gathered before they are written to the disk.
const CHUNK: usize = 1 << 20;
/// A file of no more bytes is gathered in memory, and can be read from there; a slice of a CT has half a megabyte.
const HELD: usize = 4 << 20;

/// A failed read or write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file that the index names is not there.
    #[error(
        "the archive has no object {0}; it was removed by something else than ictus: restore it from a backup"
    )]
    Missing(String),
    /// The file was evicted to make room.
    #[error(
        "object {0} was evicted from the archive, whose quota was used up: ask the archive that sent it, or send it again"
    )]
    Evicted(String),
    /// A bucket that cannot be used as it was named.
    #[error(
        "{0} names no bucket; expected s3://BUCKET or s3://BUCKET/PREFIX, with AWS_REGION and credentials in the environment"
    )]
    Bucket(String),
    /// The bytes are not those that were written.
    #[error(
        "object {key} of the archive has digest {found}: its bytes have changed; restore it from a backup"
    )]
    Corrupt {
        /// Name of the object.
        key: String,
        /// Digest of the bytes that are there.
        found: String,
    },
    /// More bytes than one object may have.
    #[error("an object of more than {limit} bytes was sent; raise the limit or send it in parts")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// The sender's stream broke.
    #[error("the stream of bytes ended before the object did")]
    Sender(#[source] Redacted),
    /// The disk or the store failed.
    #[error("the archive cannot be used; check that its folder is there, writable and not full")]
    Store(#[source] Redacted),
}

impl ArchiveError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Missing(_) | Self::Corrupt { .. } => FailureClass::Internal,
            Self::TooLarge { .. } | Self::Sender(_) | Self::Evicted(_) | Self::Bucket(_) => {
                FailureClass::Input
            }
            Self::Store(_) => FailureClass::Transient,
        }
    }
}

impl From<object_store::Error> for ArchiveError {
    fn from(error: object_store::Error) -> Self {
        Self::Store(redact(&error))
    }
}

/// The store of files; clones share it.
#[derive(Debug, Clone)]
pub struct Archive {
    /// What is kept.
    store: Arc<dyn ObjectStore>,
    /// What is not kept yet.
    staging: Arc<dyn ObjectStore>,
    /// Where the staging area is, and what is kept unless it is in a bucket.
    folder: PathBuf,
    in_bucket: bool,
    verified: verified::Verified,
}

/// A file that is on the disk but not kept yet; dropped, it goes away.
#[derive(Debug)]
pub struct StagedObject {
    name: Name,
    key: String,
    size_bytes: u64,
    store: Arc<dyn ObjectStore>,
}

impl StagedObject {
    /// The name under which [`Archive::keep`] keeps it.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its length.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Drop for StagedObject {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (store, name) = (self.store.clone(), self.name.clone());
            runtime.spawn(async move { drop(store.delete(&name).await) });
        }
    }
}

/// A kept file as the sweeper sees it.
#[derive(Debug, Clone)]
pub struct KeptObject {
    /// Its name.
    pub key: String,
    /// When it was written.
    pub written_at: SystemTime,
}

impl Archive {
    /// The archive in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made or used.
    pub fn open(folder: &Path) -> Result<Self, ArchiveError> {
        std::fs::create_dir_all(folder).map_err(|error| ArchiveError::Store(redact(&error)))?;
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder)?);
        Ok(Self {
            staging: store.clone(),
            store,
            folder: folder.to_owned(),
            in_bucket: false,
            verified: verified::Verified::default(),
        })
    }

    /// The archive in a bucket, `s3://BUCKET/PREFIX`, with its staging area in a folder.
    ///
    /// `environment`: variables by name; region, endpoint and credentials are taken from those that begin with `AWS_`.
    ///
    /// # Errors
    /// When the address names no bucket, the environment has no credentials, or the folder cannot be used.
    pub fn open_bucket(
        url: &str,
        folder: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ArchiveError> {
        Ok(Self {
            store: bucket::open(url, environment)?,
            in_bucket: true,
            ..Self::open(folder)?
        })
    }

    /// Writes a stream to the staging area and hashes it.
    ///
    /// # Errors
    /// When the stream breaks, is longer than `limit` bytes, or cannot be written; nothing stays behind.
    pub async fn stage<S, E>(&self, bytes: S, limit: u64) -> Result<StagedObject, ArchiveError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::error::Error + 'static,
    {
        Ok(self.stage_held(bytes, limit).await?.0)
    }

    /// The same; the bytes of a file that is not long are still at hand, and need not be read again.
    ///
    /// # Errors
    /// As [`Archive::stage`].
    pub async fn stage_held<S, E>(
        &self,
        mut bytes: S,
        limit: u64,
    ) -> Result<(StagedObject, Option<Bytes>), ArchiveError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::error::Error + 'static,
    {
        let mut held = BytesMut::with_capacity(CHUNK);
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|error| ArchiveError::Sender(redact(&error)))?;
            if (held.len() + chunk.len()) as u64 > limit {
                return Err(ArchiveError::TooLarge { limit });
            }
            held.extend_from_slice(&chunk);
            if held.len() > HELD {
                return Ok((self.stage_long(held.freeze(), bytes, limit).await?, None));
            }
        }
        let held = held.freeze();
        Ok((self.stage_bytes(held.clone()).await?, Some(held)))
    }

    /// Writes a long stream, of which the beginning was read, while it comes.
    async fn stage_long<S, E>(&self, begin: Bytes, rest: S, limit: u64) -> Result<StagedObject, ArchiveError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::error::Error + 'static,
    {
        let name = staged_name();
        let upload = self.staging.put_multipart(&name).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, CHUNK);
        let (mut hash, mut size_bytes) = (blake3::Hasher::new(), 0u64);
        let mut bytes = stream::iter([Ok(begin)]).chain(rest);
        while let Some(chunk) = bytes.next().await {
            let refused = match chunk {
                Ok(chunk) => {
                    size_bytes += chunk.len() as u64;
                    if size_bytes <= limit {
                        hash.update(&chunk);
                        upload.wait_for_capacity(1).await?;
                        upload.put(chunk);
                        continue;
                    }
                    ArchiveError::TooLarge { limit }
                }
                Err(error) => ArchiveError::Sender(redact(&error)),
            };
            upload.abort().await?;
            return Err(refused);
        }
        upload.finish().await?;
        Ok(StagedObject {
            name,
            key: key_of(&hash.finalize()),
            size_bytes,
            store: self.staging.clone(),
        })
    }

    /// Writes bytes that are at hand to the staging area.
    ///
    /// # Errors
    /// When they cannot be written.
    pub async fn stage_bytes(&self, bytes: impl Into<Bytes>) -> Result<StagedObject, ArchiveError> {
        let bytes = bytes.into();
        let mut staged = StagedObject {
            name: staged_name(),
            key: String::new(),
            size_bytes: bytes.len() as u64,
            store: self.staging.clone(),
        };
        let file = self.folder.join(staged.name.as_ref());
        staged.key = blocking(move || {
            in_its_folder(&file, || fs::write(&file, &bytes))?;
            Ok(key_of(&blake3::hash(&bytes)))
        })
        .await?;
        Ok(staged)
    }

    /// Reads a staged file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_staged(&self, staged: &StagedObject) -> Result<Bytes, ArchiveError> {
        Ok(self.staging.get(&staged.name).await?.bytes().await?)
    }

    /// Keeps staged files under their digests, those that are not kept already; durable when it returns.
    ///
    /// # Errors
    /// When one cannot be written.
    pub async fn keep_all<'s>(
        &self,
        staged: impl IntoIterator<Item = &'s StagedObject>,
    ) -> Result<(), ArchiveError> {
        if self.in_bucket {
            return bucket::keep_all(self, staged, bucket::Look::No).await;
        }
        // A file that was there may not be synced yet by whoever was first.
        let named = self.name_all(staged).await?;
        self.sync(named.into_iter().map(|(kept, _)| kept).collect()).await
    }

    /// The same for files that were kept a moment ago: writes only what the sweeper took away in between.
    ///
    /// # Errors
    /// When one cannot be written.
    pub async fn keep_still<'s>(
        &self,
        staged: impl IntoIterator<Item = &'s StagedObject>,
    ) -> Result<(), ArchiveError> {
        if self.in_bucket {
            return bucket::keep_all(self, staged, bucket::Look::First).await;
        }
        let named = self.name_all(staged).await?;
        let missed = named.into_iter().filter(|(_, is_new)| *is_new);
        self.sync(missed.map(|(kept, _)| kept).collect()).await
    }

    /// Gives staged files their kept names too; says which of those are new.
    ///
    /// The staged names stay until the [`StagedObject`]s are dropped, so that they can be kept again
    /// if the sweeper took an old unreferenced twin away in between.
    async fn name_all<'s>(
        &self,
        staged: impl IntoIterator<Item = &'s StagedObject>,
    ) -> Result<Vec<(PathBuf, bool)>, ArchiveError> {
        let mut files = Vec::new();
        for object in staged {
            let kept = name_of(&object.key)?;
            files.push((
                self.folder.join(object.name.as_ref()),
                self.folder.join(kept.as_ref()),
            ));
        }
        blocking(move || {
            let name = |(staged, kept): (PathBuf, PathBuf)| match in_its_folder(&kept, || {
                fs::hard_link(&staged, &kept)
            }) {
                Ok(()) => Ok((kept, true)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((kept, false)),
                Err(error) => Err(error),
            };
            files.into_iter().map(name).collect()
        })
        .await
    }

    /// Brings files and the folders above them to the disk, many at once: the disk is flushed for all of them together.
    async fn sync(&self, files: Vec<PathBuf>) -> Result<(), ArchiveError> {
        let above = |file: &PathBuf| -> Vec<PathBuf> {
            let folders = file.ancestors().skip(1);
            folders
                .take_while(|folder| folder.starts_with(&self.folder))
                .map(Path::to_owned)
                .collect()
        };
        let folders: BTreeSet<PathBuf> = files.iter().flat_map(above).collect();
        stream::iter(files.into_iter().chain(folders))
            .map(|path| blocking(move || fs::File::open(path)?.sync_all()))
            .buffer_unordered(SYNCED_AT_ONCE)
            .try_collect()
            .await
    }

    /// [`Archive::keep_all`] of one file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn keep(&self, staged: &StagedObject) -> Result<(), ArchiveError> {
        self.keep_all([staged]).await
    }

    /// Reads a kept file and makes sure that its bytes are those that were written.
    ///
    /// # Errors
    /// When it is not there, has changed, or cannot be read.
    pub async fn read(&self, key: &str) -> Result<Bytes, ArchiveError> {
        let bytes = self.get(key).await?.bytes().await?;
        Self::check(key, &bytes)?;
        Ok(bytes)
    }

    fn check(key: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let found = if key.starts_with(KEPT_BEFORE) {
            key_before(&Sha256::digest(bytes))
        } else {
            key_of(&blake3::hash(bytes))
        };
        if found == key {
            return Ok(());
        }
        Err(ArchiveError::Corrupt {
            key: key.to_owned(),
            found,
        })
    }

    /// [`Archive::read`] of several files, a few at once; the answer is in their order.
    ///
    /// # Errors
    /// As [`Archive::read`], for the first that fails.
    pub async fn read_all(&self, keys: Vec<String>) -> Result<Vec<Bytes>, ArchiveError> {
        let read = |key: String| {
            let archive = self.clone();
            async move { archive.read(&key).await }
        };
        stream::iter(keys)
            .map(read)
            .buffered(READ_AT_ONCE)
            .try_collect()
            .await
    }

    /// Reads a kept file piece by piece, without the check of [`Archive::read`].
    ///
    /// # Errors
    /// When it is not there or cannot be read, now or within the stream.
    pub async fn stream(
        &self,
        key: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, ArchiveError>>, ArchiveError> {
        Ok(self
            .get(key)
            .await?
            .into_stream()
            .map_err(ArchiveError::from)
            .boxed())
    }

    /// Every kept file, for the sweeper.
    #[must_use]
    pub fn kept(&self) -> BoxStream<'static, Result<KeptObject, ArchiveError>> {
        let store = self.store.clone();
        stream::iter([KEPT, KEPT_BEFORE])
            .flat_map(move |folder| store.list(Some(&Name::from(folder))))
            .map_ok(|object| KeptObject {
                key: object.location.to_string(),
                written_at: SystemTime::from(object.last_modified),
            })
            .map_err(ArchiveError::from)
            .boxed()
    }

    /// Removes a kept file that nothing refers to; the caller has made sure of that, and audits it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove(&self, key: &str) -> Result<(), ArchiveError> {
        // One that was evicted before has only its mark left.
        self.delete(&mark_of(key)?).await?;
        self.delete(&name_of(key)?).await
    }

    /// Removes a kept file to make room, and leaves word of that; the caller has made sure that it may go, and audits it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn evict(&self, key: &str) -> Result<(), ArchiveError> {
        let mark = mark_of(key)?;
        self.store.put(&mark, PutPayload::default()).await?;
        if !self.in_bucket {
            self.sync(vec![self.folder.join(mark.as_ref())]).await?;
        }
        self.delete(&name_of(key)?).await
    }

    async fn delete(&self, name: &Name) -> Result<(), ArchiveError> {
        match self.store.delete(name).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Bytes that are free on the disk under the staging area.
    ///
    /// # Errors
    /// When the disk does not say.
    pub fn free_bytes(&self) -> Result<u64, ArchiveError> {
        let disk = rustix::fs::statvfs(&self.folder)
            .map_err(|error| ArchiveError::Store(redact(&io::Error::from(error))))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Bytes of a kept file, without reading it.
    ///
    /// # Errors
    /// When it is not there, or the store does not answer.
    pub async fn size(&self, key: &str) -> Result<u64, ArchiveError> {
        match self.store.head(&name_of(key)?).await {
            Err(object_store::Error::NotFound { .. }) => Err(self.gone(key).await),
            other => Ok(other?.size),
        }
    }

    /// Removes what a crash left in the staging area at least `min_age` ago. Says how many.
    ///
    /// It looks at the folder itself: the store does not list files that were still being written.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not removed.
    pub async fn sweep_staging(&self, min_age: Duration) -> Result<usize, ArchiveError> {
        let staging = self.folder.join(STAGING);
        blocking(move || remove_old(&staging, min_age)).await
    }

    async fn get(&self, key: &str) -> Result<object_store::GetResult, ArchiveError> {
        match self.store.get(&name_of(key)?).await {
            Err(object_store::Error::NotFound { .. }) => Err(self.gone(key).await),
            other => Ok(other?),
        }
    }

    /// Why a kept file is not there.
    async fn gone(&self, key: &str) -> ArchiveError {
        let mark = match mark_of(key) {
            Ok(mark) => self.store.head(&mark).await.is_ok(),
            Err(error) => return error,
        };
        if mark {
            ArchiveError::Evicted(key.to_owned())
        } else {
            ArchiveError::Missing(key.to_owned())
        }
    }
}

/// Work on the disk, off the threads that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ArchiveError::Store(redact(&error)))?
        .map_err(|error| ArchiveError::Store(redact(&error)))
}

fn remove_old(folder: &Path, min_age: Duration) -> io::Result<usize> {
    let entries = match std::fs::read_dir(folder) {
        // Nothing was ever staged.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let (now, mut removed) = (SystemTime::now(), 0);
    for entry in entries {
        let entry = entry?;
        // A file that goes away meanwhile has an owner who lives.
        let age = entry.metadata().and_then(|file| file.modified()).ok();
        if age
            .and_then(|at| now.duration_since(at).ok())
            .is_some_and(|age| age >= min_age)
        {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A name that nobody else uses.
fn staged_name() -> Name {
    Name::from_iter([STAGING, &Uuid::new_v4().to_string()])
}

/// Makes a file, and the folder for it when there is none yet.
fn in_its_folder(file: &Path, make: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match (make(), file.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            make()
        }
        (made, _) => made,
    }
}

/// `blake3/ab/{64 digits}`: one level of 256 folders, each of which has to be brought to the disk with what comes into it.
fn key_of(digest: &blake3::Hash) -> String {
    let hex = digest.to_hex();
    format!("{KEPT}/{}/{hex}", &hex[..2])
}

/// `sha256/ab/cd/{64 digits}`.
fn key_before(digest: &[u8]) -> String {
    let hex = hex::encode(digest);
    format!("{KEPT_BEFORE}/{}/{}/{hex}", &hex[..2], &hex[2..4])
}

/// Where it is said that a file was evicted.
fn mark_of(key: &str) -> Result<Name, ArchiveError> {
    let digits = name_of(key)?.filename().unwrap_or_default().to_owned();
    Ok(Name::from_iter([EVICTED, &digits]))
}

/// Only names that [`key_of`] makes, or [`key_before`] made, are looked up, whatever the index says.
fn name_of(key: &str) -> Result<Name, ArchiveError> {
    let digits = key.rsplit('/').next().unwrap_or_default();
    let ours = digits.len() == 64
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (key == format!("{KEPT}/{}/{digits}", &digits[..2])
            || key == format!("{KEPT_BEFORE}/{}/{}/{digits}", &digits[..2], &digits[2..4]));
    if ours {
        Ok(Name::from(key))
    } else {
        Err(ArchiveError::Missing(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_by_its_sha256_is_still_read_checked_and_swept() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path()).unwrap();
        let key = key_before(&Sha256::digest(b"of before"));
        assert!(key.starts_with("sha256/"));
        let file = folder.path().join(&key);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, b"of before").unwrap();
        let staged = archive.stage_bytes(b"of today".as_slice()).await.unwrap();
        archive.keep(&staged).await.unwrap();
        assert_eq!(archive.read(&key).await.unwrap(), b"of before".as_slice());
        let kept: BTreeSet<String> = archive
            .kept()
            .map_ok(|object| object.key)
            .try_collect()
            .await
            .unwrap();
        assert_eq!(kept, BTreeSet::from([key.clone(), staged.key().to_owned()]));
        fs::write(&file, b"of befor!").unwrap();
        assert!(matches!(
            archive.read(&key).await,
            Err(ArchiveError::Corrupt { .. })
        ));
    }

    #[tokio::test]
    async fn a_file_that_is_too_long_to_be_held_is_staged_like_a_short_one() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path()).unwrap();
        let bytes = Bytes::from(vec![7; HELD + 5]);
        let pieces = |bytes: Bytes| {
            let chunks: Vec<_> = bytes
                .chunks(300_000)
                .map(|chunk| Ok::<_, io::Error>(Bytes::copy_from_slice(chunk)))
                .collect();
            stream::iter(chunks)
        };
        for (bytes, is_held) in [(bytes.clone(), false), (bytes.slice(..HELD), true)] {
            let (staged, held) = archive.stage_held(pieces(bytes.clone()), 1 << 30).await.unwrap();
            assert_eq!(held.is_some(), is_held);
            archive.keep(&staged).await.unwrap();
            assert_eq!(archive.read(staged.key()).await.unwrap(), bytes);
        }
        let refused = archive.stage(pieces(bytes.clone()), HELD as u64 + 4).await;
        assert!(matches!(refused, Err(ArchiveError::TooLarge { .. })));
        assert!(matches!(
            archive.stage(pieces(bytes), 10).await,
            Err(ArchiveError::TooLarge { .. })
        ));
    }
}
