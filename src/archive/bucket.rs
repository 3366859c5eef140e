//! Kept files in a bucket of an S3 store: a staged file → an object under its digest, if none is there.
//!
//! The name says what the bytes are, so that an object that is there is the same one; a conditional put lets two writers race.
//! A store that has answered a put has the bytes for good: that answer is the durability that the archive promises.
//! The address comes from the flag, region and credentials from the environment alone; none of them is logged.

use super::{Archive, ArchiveError, StagedObject, name_of, redact};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, WriteMultipart,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path as Name,
    prefix::PrefixStore,
};
use std::{sync::Arc, time::Duration};

/// Larger files are put in parts; slices of a CT are smaller.
const WHOLE_BYTES: u64 = 16 << 20;
/// Bytes of a part; S3 takes no smaller ones than 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file that are under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Files that are put at once.
const PUT_AT_ONCE: usize = 8;

/// A store that does not answer is tried this often, and no longer than this: the sender waits.
const RETRIES: usize = 4;
const RETRY_FOR: Duration = Duration::from_secs(20);

/// Whether an object is looked for before it is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It was put a moment ago and is there but for the sweeper.
    First,
    /// It is hardly ever there.
    No,
}

/// The bucket, and the prefix in it, of an address.
///
/// `environment`: what there is of `AWS_REGION`, `AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID` and their kind.
pub(super) fn open(
    url: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Arc<dyn ObjectStore>, ArchiveError> {
    let named = url
        .strip_prefix("s3://")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .filter(|(bucket, _)| !bucket.is_empty() && !bucket.contains('@'));
    let Some((bucket, prefix)) = named else {
        // What was written there may hold a password.
        let shown = if url.contains('@') {
            "the address of --archive"
        } else {
            url
        };
        return Err(ArchiveError::Bucket(shown.to_owned()));
    };
    // Once a process: the client of the store asks for it.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut builder = AmazonS3Builder::new().with_retry(RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
        ..RetryConfig::default()
    });
    for (name, value) in environment.filter(|(name, _)| name.starts_with("AWS_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let store = builder
        .with_bucket_name(bucket)
        .build()
        .map_err(|error| ArchiveError::Store(redact(&error)))?;
    let prefix = Name::from(prefix.trim_matches('/'));
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// Puts staged files under their digests, those that are not there already.
pub(super) async fn keep_all<'s>(
    archive: &Archive,
    staged: impl IntoIterator<Item = &'s StagedObject>,
    look: Look,
) -> Result<(), ArchiveError> {
    let jobs: Vec<(Name, Name, u64)> = staged
        .into_iter()
        .map(|object| Ok((object.name.clone(), name_of(&object.key)?, object.size_bytes)))
        .collect::<Result<_, ArchiveError>>()?;
    stream::iter(jobs)
        .map(|(staged, kept, size)| async move {
            if (look == Look::First || size > WHOLE_BYTES) && is_there(&*archive.store, &kept).await? {
                return Ok(());
            }
            if size > WHOLE_BYTES {
                put_in_parts(archive, &staged, &kept).await
            } else {
                put(archive, &staged, &kept).await
            }
        })
        .buffer_unordered(PUT_AT_ONCE)
        .try_collect()
        .await
}

async fn is_there(store: &dyn ObjectStore, kept: &Name) -> Result<bool, ArchiveError> {
    match store.head(kept).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn put(archive: &Archive, staged: &Name, kept: &Name) -> Result<(), ArchiveError> {
    let bytes = archive.staging.get(staged).await?.bytes().await?;
    let options = PutOptions::from(PutMode::Create);
    match archive
        .store
        .put_opts(kept, PutPayload::from(bytes), options)
        .await
    {
        Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Two writers may both do this, with the same bytes.
async fn put_in_parts(archive: &Archive, staged: &Name, kept: &Name) -> Result<(), ArchiveError> {
    let mut pieces = archive.staging.get(staged).await?.into_stream();
    let upload = archive.store.put_multipart(kept).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    loop {
        let written = match pieces.next().await {
            None => break,
            Some(Ok(piece)) => upload
                .wait_for_capacity(PARTS_AT_ONCE)
                .await
                .map(|()| upload.put(piece)),
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = written {
            upload.abort().await?;
            return Err(error.into());
        }
    }
    upload.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_bucket_or_with_a_password_is_refused_without_repeating_it() {
        for url in ["s3://", "s3:///prefix", "https://bucket", "bucket"] {
            assert!(
                open(url, std::iter::empty())
                    .unwrap_err()
                    .to_string()
                    .contains("names no bucket"),
                "{url}"
            );
        }
        let said = open("s3://key:secret@bucket", std::iter::empty())
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("names no bucket") && !said.contains("secret"),
            "{said}"
        );
    }
}
