//! Integration tests: real components, one binary.

mod encode;
