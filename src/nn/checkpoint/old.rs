//! The format that torch wrote before version 1.6: a row of pickles, then the numbers of each storage.
//!
//! The pickles: a magic number, the version of the format, what the machine was like, the value itself, the keys of its storages in the order in which they follow.
//! Source: PyTorch's `torch/serialization.py` (`_legacy_save`).

use super::{
    CheckpointError,
    pickle::{self, Object, Objects},
};
use std::{collections::BTreeMap, ops::Range};

/// How such a file begins: the pickled magic number.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
/// The version that every torch before 1.6 wrote.
const VERSION: i64 = 1001;

/// The whole file, and where the numbers of each storage lie in it.
#[derive(Debug)]
pub(super) struct Old {
    bytes: Vec<u8>,
    storages: BTreeMap<String, Range<usize>>,
}

impl Old {
    /// Reads the pickles of a file that begins with [`MAGIC`].
    pub(super) fn open(bytes: Vec<u8>) -> Result<(Self, Objects), CheckpointError> {
        let mut at = MAGIC.len();
        let mut next = || {
            let (objects, len) = pickle::read_first(bytes.get(at..).unwrap_or_default())?;
            at += len;
            Ok::<_, CheckpointError>(objects)
        };
        let (version, machine, value, keys) = (next()?, next()?, next()?, next()?);
        let found = version.get(version.root());
        if found != &Object::Int(VERSION) {
            return Err(wrong(format!("its version is {found:?}, expected {VERSION}")));
        }
        let little = machine.entry(machine.root(), "little_endian");
        if little.map(|id| machine.get(id)) != Some(&Object::Bool(true)) {
            return Err(CheckpointError::Format {
                found: "of a big-endian machine",
                wanted: "this build reads little-endian ones",
            });
        }
        let sizes: BTreeMap<&str, usize> = value.storages().collect();
        let mut storages = BTreeMap::new();
        for key in keys.texts(keys.root())? {
            let size = sizes
                .get(key)
                .ok_or_else(|| wrong(format!("storage `{key}` is not in its value")))?;
            let cut = || wrong(format!("storage `{key}` is cut off"));
            let head = bytes.get(at..at + 8).ok_or_else(cut)?;
            let count = head.iter().rev().fold(0u64, |n, b| (n << 8) | u64::from(*b));
            let from = at + 8;
            let to = usize::try_from(count)
                .ok()
                .and_then(|count| count.checked_mul(*size)?.checked_add(from))
                .filter(|to| *to <= bytes.len())
                .ok_or_else(cut)?;
            if storages.insert(key.to_owned(), from..to).is_some() {
                return Err(wrong(format!("storage `{key}` is there twice")));
            }
            at = to;
        }
        Ok((Self { bytes, storages }, value))
    }

    /// The bytes of one storage.
    pub(super) fn read(&self, key: &str) -> Result<&[u8], CheckpointError> {
        let range = self.storages.get(key);
        let found = range.and_then(|range| self.bytes.get(range.clone()));
        found.ok_or_else(|| wrong(format!("it has no storage `{key}`")))
    }
}

fn wrong(what: impl Into<String>) -> CheckpointError {
    CheckpointError::Pickle(what.into())
}
