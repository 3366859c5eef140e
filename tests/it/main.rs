//! Integration tests: real components, one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod assemble;
mod dicom;
mod series;
