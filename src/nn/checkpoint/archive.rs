//! Just enough zip for torch's checkpoints: stored entries, found through the central directory, each checked by its CRC-32.
//!
//! Entries lie side by side inside the file and are not inflated, so all of them together are no larger than the file; only [`Archive::inflate`], for archives of files, does, up to a limit.

use super::CheckpointError;
use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
};

/// Bytes of the end record without its comment.
const END: u64 = 22;
/// The end record with the longest comment.
const LONGEST_END: u64 = END + 65535;
/// Zip's number for deflate.
const DEFLATE: u64 = 8;
/// A network has some hundred tensors, its optimiser's state twice as many.
const MOST_ENTRIES: u64 = 100_000;
/// Central directories of [`MOST_ENTRIES`] names of ordinary length.
const LONGEST_DIRECTORY: u64 = 64 << 20;

/// One entry as the central directory has it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    header: u64,
    len: u64,
    /// Whether its bytes stand for others.
    packed: bool,
    /// Its length in the file, and how it is packed.
    stored: u64,
    method: u64,
    crc: u32,
}

/// An opened zip.
#[derive(Debug)]
pub(super) struct Archive<R> {
    file: R,
    len: u64,
    entries: BTreeMap<String, Entry>,
}

/// A little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64, CheckpointError> {
    let part = bytes
        .get(at..at + N)
        .ok_or_else(|| wrong("a record is cut off"))?;
    let mut whole = [0u8; 8];
    whole[..N].copy_from_slice(part);
    Ok(u64::from_le_bytes(whole))
}

fn wrong(what: impl Into<String>) -> CheckpointError {
    CheckpointError::Archive(what.into())
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the directory.
    pub(super) fn open(mut file: R) -> Result<Self, CheckpointError> {
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(|e| wrong(format!("it cannot be read ({e})")))?;
        let mut archive = Self {
            file,
            len,
            entries: BTreeMap::new(),
        };
        let head = archive.bytes(0, len.min(2))?;
        if !head.starts_with(b"PK") {
            return Err(wrong("it does not begin like one"));
        }
        let (directory, count) = archive.directory()?;
        archive.read_directory(&directory, count)?;
        Ok(archive)
    }

    /// The names of the entries.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The bytes of one entry.
    pub(super) fn read(&mut self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let entry = *self
            .entries
            .get(name)
            .ok_or_else(|| wrong(format!("it has no entry `{name}`")))?;
        if entry.packed {
            return Err(wrong(format!(
                "entry `{name}` is compressed; torch stores its numbers plainly, and nothing is inflated here"
            )));
        }
        let data = self.stored(name, entry)?;
        check(name, &data, entry)?;
        Ok(data)
    }

    /// The bytes of one entry, inflated if need be; refused where they would be more than `most`.
    pub(super) fn inflate(&mut self, name: &str, most: u64) -> Result<Vec<u8>, CheckpointError> {
        let entry = *self
            .entries
            .get(name)
            .ok_or_else(|| wrong(format!("it has no entry `{name}`")))?;
        if entry.len > most {
            return Err(wrong(format!(
                "entry `{name}` would have {} bytes, at most {most} are unpacked",
                entry.len
            )));
        }
        let stored = self.stored(name, entry)?;
        let data = match entry.method {
            0 if !entry.packed => stored,
            DEFLATE => {
                let mut data = Vec::new();
                // One more than it claims, so that a longer one is noticed.
                flate2::read::DeflateDecoder::new(stored.as_slice())
                    .take(entry.len + 1)
                    .read_to_end(&mut data)
                    .map_err(|e| wrong(format!("entry `{name}` cannot be inflated ({e})")))?;
                data
            }
            other => {
                return Err(wrong(format!(
                    "entry `{name}` is packed by method {other}, deflate was expected"
                )));
            }
        };
        check(name, &data, entry)?;
        Ok(data)
    }

    /// What of an entry is in the file.
    fn stored(&mut self, name: &str, entry: Entry) -> Result<Vec<u8>, CheckpointError> {
        let local = self.bytes(entry.header, 30)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(wrong(format!("entry `{name}` is not where the directory says")));
        }
        let skip = 30 + number::<2>(&local, 26)? + number::<2>(&local, 28)?;
        self.bytes(entry.header + skip, entry.stored)
    }

    /// `len` bytes from `from`; never more than the file has.
    fn bytes(&mut self, from: u64, len: u64) -> Result<Vec<u8>, CheckpointError> {
        if from.checked_add(len).is_none_or(|to| to > self.len) {
            return Err(wrong(format!(
                "it ends after {} bytes, in the middle of something; it is truncated or damaged",
                self.len
            )));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| wrong("an entry is larger than memory"))?];
        self.file
            .seek(SeekFrom::Start(from))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| wrong(format!("it cannot be read ({e})")))?;
        Ok(bytes)
    }

    /// The central directory and its number of entries.
    fn directory(&mut self) -> Result<(Vec<u8>, u64), CheckpointError> {
        let start = self.len.saturating_sub(LONGEST_END);
        let tail = self.bytes(start, self.len - start)?;
        let at = tail
            .windows(4)
            .rposition(|w| w == b"PK\x05\x06")
            .ok_or_else(|| wrong("its directory is missing; it is truncated"))?;
        let end = &tail[at..];
        if end.len() as u64 != END + number::<2>(end, 20).unwrap_or_default() {
            return Err(wrong("its end is cut off; it is truncated"));
        }
        let (mut count, mut size, mut offset) = (
            number::<2>(end, 10)?,
            number::<4>(end, 12)?,
            number::<4>(end, 16)?,
        );
        let locator = at.checked_sub(20).map(|l| &tail[l..at]);
        if let Some(locator) = locator.filter(|l| l.starts_with(b"PK\x06\x07")) {
            let record = self.bytes(number::<8>(locator, 8)?, 56)?;
            if !record.starts_with(b"PK\x06\x06") {
                return Err(wrong("its 64-bit directory is not where it says"));
            }
            count = number::<8>(&record, 32)?;
            size = number::<8>(&record, 40)?;
            offset = number::<8>(&record, 48)?;
        }
        if count > MOST_ENTRIES || size > LONGEST_DIRECTORY {
            return Err(wrong(format!(
                "its directory has {count} entries in {size} bytes, at most {MOST_ENTRIES} in {LONGEST_DIRECTORY} are read"
            )));
        }
        Ok((self.bytes(offset, size)?, count))
    }

    fn read_directory(&mut self, directory: &[u8], count: u64) -> Result<(), CheckpointError> {
        let mut at = 0;
        let mut spans = Vec::new();
        for _ in 0..count {
            let record = directory
                .get(at..)
                .filter(|r| r.starts_with(b"PK\x01\x02"))
                .ok_or_else(|| wrong("its directory is cut off"))?;
            let crc = u32::try_from(number::<4>(record, 16)?).map_err(|_| wrong("a checksum is too long"))?;
            let (name_len, extra_len, comment_len) = (
                number::<2>(record, 28)?,
                number::<2>(record, 30)?,
                number::<2>(record, 32)?,
            );
            let name_end = 46 + usize::try_from(name_len).unwrap_or(usize::MAX);
            let extra_end = name_end + usize::try_from(extra_len).unwrap_or(usize::MAX);
            let part = |from, to| {
                record
                    .get(from..to)
                    .ok_or_else(|| wrong("its directory is cut off"))
            };
            let name = String::from_utf8(part(46, name_end)?.to_vec())
                .map_err(|_| wrong("an entry's name is not UTF-8"))?;
            let extra = part(name_end, extra_end)?;
            let mut wide = wide_fields(extra)?.into_iter();
            let mut field = |value: u64| {
                if value == u64::from(u32::MAX) {
                    wide.next()
                        .ok_or_else(|| wrong(format!("entry `{name}` lacks its 64-bit size")))
                } else {
                    Ok(value)
                }
            };
            let len = field(number::<4>(record, 24)?)?;
            let packed = field(number::<4>(record, 20)?)?;
            let header = field(number::<4>(record, 42)?)?;
            let (flags, method) = (number::<2>(record, 8)?, number::<2>(record, 10)?);
            if flags & 1 != 0 {
                return Err(wrong(format!("entry `{name}` is encrypted")));
            }
            spans.push((header, packed));
            if self
                .entries
                .insert(
                    name.clone(),
                    Entry {
                        header,
                        len,
                        packed: method != 0 || packed != len,
                        stored: packed,
                        method,
                        crc,
                    },
                )
                .is_some()
            {
                return Err(wrong(format!("it has entry `{name}` twice")));
            }
            at += extra_end + usize::try_from(comment_len).unwrap_or(usize::MAX);
        }
        // Entries over each other are how a small file pretends to be large.
        spans.sort_unstable();
        for pair in spans.windows(2) {
            if pair[0].0.saturating_add(pair[0].1) > pair[1].0 {
                return Err(wrong("its entries lie over each other"));
            }
        }
        Ok(())
    }
}

/// Whether an entry's bytes are those that were written.
fn check(name: &str, data: &[u8], entry: Entry) -> Result<(), CheckpointError> {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    if crc.sum() == entry.crc && data.len() as u64 == entry.len {
        return Ok(());
    }
    Err(wrong(format!(
        "entry `{name}` has another checksum than it was written with"
    )))
}

/// The numbers of the 64-bit extra field.
fn wide_fields(mut extra: &[u8]) -> Result<Vec<u64>, CheckpointError> {
    while extra.len() >= 4 {
        let (tag, len) = (number::<2>(extra, 0)?, number::<2>(extra, 2)?);
        let end = 4 + usize::try_from(len).unwrap_or(usize::MAX);
        let body = extra
            .get(4..end)
            .ok_or_else(|| wrong("an extra field is cut off"))?;
        if tag == 1 {
            return (0..body.len() / 8).map(|i| number::<8>(body, i * 8)).collect();
        }
        extra = &extra[end..];
    }
    Ok(Vec::new())
}
