//! Integration tests: real components, one binary.

mod assemble;
mod dicom;
mod series;
