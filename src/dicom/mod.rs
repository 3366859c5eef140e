//! dicom-rs behind our words: bytes ↔ [`instance::Instance`] and its [`attribute::Attributes`].
//!
//! What dicom-rs would do badly with bytes from outside is kept from it: [`scan`] checks every length and the depth of nesting before it allocates or recurses, [`charset`] decodes text that it reads by the first character set only, and a panic in a decoder becomes an error.

pub mod attribute;
pub mod charset;
pub mod instance;

        #[source]
        /// Byte of the file (of the inflated dataset, where it is deflated).
        /// Bytes given.
        /// PS3.6 keyword of the dataset's attribute.
        /// PS3.6 keyword.
        /// SOPClassUID, when it is there.
        /// SOPInstanceUID, when it is there.
        /// The Transfer Syntax UID, or `absent`.
        /// The Transfer Syntax UID.
        /// What the decoder said.
        /// What the reader said.
        /// What was being done.
        /// What was found and what was expected.
        FailureClass::Input
        doing: &'static str,
        keyword: &'static str,
        length: usize,
        offset: usize,
        problem: String,
        sop_class_uid: Option<Uid>,
        sop_instance_uid: Option<Uid>,
        source: Redacted,
        uid: String,
    #[error("a decoder gave up on these bytes ({doing}); send the file uncompressed")]
    #[error("the DICOM structure is broken at byte {offset}: {problem}; send the file again")]
    #[error("the dataset cannot be read")]
    #[error("the file meta information cannot be read")]
    #[error("the pixels cannot be read: {problem}")]
    #[error("the pixels of transfer syntax {uid} cannot be decoded")]
    #[error("transfer syntax {uid} cannot be decoded by this build; send it as Explicit VR Little Endian")]
    #[error("{keyword} differs between the file meta information and the dataset; expected the same value")]
    #[error("{keyword} is missing or is not a UID; every instance needs one")]
    #[error("{length} bytes without the DICM prefix at byte 128; expected a DICOM Part 10 file")]
    #[must_use]
    /// A decoder panicked; the panic was caught.
    /// A length, a delimiter or the nesting does not fit the bytes: truncated or damaged.
    /// A transfer syntax that we cannot decode.
    /// Always the input's fault: the same bytes will fail again.
    /// An identifier without which nothing can be stored.
    /// Not PS3.10: no preamble and prefix.
    /// Pixels that cannot be had.
    /// The dataset cannot be read.
    /// The decoder of a compressed transfer syntax failed.
    /// The file meta information cannot be read.
    /// The file says one thing in its meta information and another in its dataset.
    Dataset {
    Decode {
    Meta {
    MetaConflict {
    MissingUid {
    NotPart10 {
    Panic {
    Pixels {
    Structure {
    TransferSyntax {
    pub fn class(&self) -> FailureClass {
    }
    },
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
/// Why bytes are not an instance that we can work with.
impl DicomError {
mod pixels;
mod scan;
pub enum DicomError {
pub mod json;
pub mod transcode;
use crate::domain::{failure::FailureClass, phi::Redacted, uid::Uid};
}
