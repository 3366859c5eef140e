//! dicom-rs behind our words: bytes ↔ [`instance::Instance`] and its [`attribute::Attributes`].

pub mod attribute;
pub mod instance;
pub mod transcode;
