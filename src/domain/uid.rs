//! DICOM unique identifiers: text from outside → checked [`Uid`]; our own → derived from what they name.
//!
//! A [`Uid`] holds 1 to 64 characters of digits and single dots and nothing else, so it is safe in a path and in SQL.
//! It does not insist on canonical components: scanners do write leading zeros.
//!
//! Source: PS3.5 section 9; PS3.5 annex B.2 (`2.25.` + UUID); RFC 9562 section 5.8 (UUIDv8).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A checked DICOM unique identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uid(String);

/// Why a text is not a DICOM unique identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UidError {
    /// Empty, or longer than 64 characters.
    #[error("a UID has 1 to 64 characters, this one has {0}")]
    Length(usize),
    /// A character other than a digit or a dot, or a misplaced dot.
    #[error("a UID is digits joined by single dots; character {0} is not")]
    Character(usize),
}

impl Uid {
    /// Checks a text; trailing padding (NUL or space) is dropped.
    ///
    /// # Errors
    /// Says whether the length or which character is wrong.
    pub fn parse(text: &str) -> Result<Self, UidError> {
        let text = text.trim_end_matches(['\0', ' ']);
        if text.is_empty() || text.len() > 64 {
            return Err(UidError::Length(text.len()));
        }
        let mut previous = b'.';
        for (at, byte) in text.bytes().enumerate() {
            if !(byte.is_ascii_digit() || byte == b'.' && previous != b'.') {
                return Err(UidError::Character(at + 1));
            }
            previous = byte;
        }
        if previous == b'.' {
            return Err(UidError::Character(text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The same parts always give the same UID: `2.25.` + a UUIDv8 of their SHA-256.
    ///
    /// Each part is length-prefixed, so that no two lists of parts collide by concatenation.
    #[must_use]
    pub fn derive(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(format!("2.25.{}", uuid::Uuid::new_v8(bytes).as_u128()))
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Uid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Uid {
    type Error = UidError;
    fn try_from(text: String) -> Result<Self, UidError> {
        Self::parse(&text)
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> Self {
        uid.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_scanners_write_and_refuses_path_tricks() {
        assert_eq!(
            Uid::parse("1.2.840.10008.1.2\0").unwrap().as_str(),
            "1.2.840.10008.1.2"
        );
        assert!(Uid::parse("1.02.3").is_ok());
        for bad in ["", "../1", "1..2", ".1", "1.", "1.2/3", "1.2 3", &"1".repeat(65)] {
            assert!(Uid::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn derives_the_same_uid_from_the_same_parts_only() {
        let uid = Uid::derive(&[b"ab", b"c"]);
        assert_eq!(uid, Uid::derive(&[b"ab", b"c"]));
        assert_ne!(uid, Uid::derive(&[b"a", b"bc"]));
        assert_eq!(Uid::parse(uid.as_str()).unwrap(), uid);
        assert!(uid.as_str().starts_with("2.25."));
    }
}
