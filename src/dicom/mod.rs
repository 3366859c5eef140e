//! dicom-rs behind our words: bytes ↔ [`instance::Instance`] and its [`attribute::Attributes`].
//!
//! What dicom-rs would do badly with bytes from outside is kept from it: `scan` checks every length and the depth of nesting before it allocates or recurses, [`charset`] and `text` decode text that it would read by the first character set only, and a panic in a decoder becomes an error.

pub mod attribute;
pub mod build;
pub mod charset;
pub mod coerce;
pub mod enhanced;
pub mod fragments;
pub mod from_json;
mod grayscale;
pub mod identifier;
pub mod instance;
mod jpeg_dct;
mod jpeg_ls;
mod jpeg_xl;
pub mod json;
pub mod level;
pub mod part10;
mod pixels;
pub mod render;
mod scan;
mod text;
pub mod transcode;
pub mod xml;

use crate::domain::{failure::FailureClass, phi::Redacted, uid::Uid};

/// Why bytes are not an instance that we can work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DicomError {
    /// Not PS3.10: no preamble and prefix.
    #[error("{length} bytes without the DICM prefix at byte 128; expected a DICOM Part 10 file")]
    NotPart10 {
        /// Bytes given.
        length: usize,
    },
    /// A length, a delimiter or the nesting does not fit the bytes: truncated or damaged.
    #[error("the DICOM structure is broken at byte {offset}: {problem}; send the file again")]
    Structure {
        /// Byte of the file (of the inflated dataset, where it is deflated).
        offset: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// The file meta information cannot be read.
    #[error("the file meta information cannot be read")]
    Meta {
        /// What the reader said.
        #[source]
        source: Redacted,
    },
    /// The dataset cannot be read.
    #[error("the dataset cannot be read")]
    Dataset {
        /// What the reader said.
        #[source]
        source: Redacted,
    },
    /// A transfer syntax that we cannot decode.
    #[error("transfer syntax {uid} cannot be decoded by this build; send it as Explicit VR Little Endian")]
    TransferSyntax {
        /// The Transfer Syntax UID, or `absent`.
        uid: String,
    },
    /// An identifier without which nothing can be stored.
    #[error("{keyword} is missing or is not a UID; every instance needs one")]
    MissingUid {
        /// PS3.6 keyword.
        keyword: &'static str,
        /// SOPClassUID, when it is there.
        sop_class_uid: Option<Uid>,
        /// SOPInstanceUID, when it is there.
        sop_instance_uid: Option<Uid>,
    },
    /// The file says one thing in its meta information and another in its dataset.
    #[error("{keyword} differs between the file meta information and the dataset; expected the same value")]
    MetaConflict {
        /// PS3.6 keyword of the dataset's attribute.
        keyword: &'static str,
    },
    /// Pixels that cannot be had.
    #[error("the pixels cannot be read: {problem}")]
    Pixels {
        /// What was found and what was expected.
        problem: String,
    },
    /// The decoder of a compressed transfer syntax failed.
    #[error("the pixels of transfer syntax {uid} cannot be decoded")]
    Decode {
        /// The Transfer Syntax UID.
        uid: String,
        /// What the decoder said.
        #[source]
        source: Redacted,
    },
    /// A decoder panicked; the panic was caught.
    #[error("a decoder gave up on these bytes ({doing}); send the file uncompressed")]
    Panic {
        /// What was being done.
        doing: &'static str,
    },
}

impl DicomError {
    /// Always the input's fault: the same bytes will fail again.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}
