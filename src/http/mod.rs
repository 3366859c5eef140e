//! EDGE: HTTP in → services, state and audit → DICOMweb, the application's API and the page out.
//!
//! Every route but health wants a principal ([`auth`]), every read is in the audit trail before its first byte leaves,
//! and every failure is a problem document ([`error`]).
//! It holds no rules about studies and writes nothing itself: [`crate::receive`] stores, [`crate::db`] reads.
//!
//! Source: PS3.18; RFC 9110; RFC 9457.

pub mod assets;
pub mod auth;
pub mod dicomweb;
pub mod error;
pub mod metrics;
