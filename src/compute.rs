//! The half of ictus that computes: words, DICOM, networks, analysis and training; `lib.rs` is the other half, and says how all is built.
//!
//! A package of its own (`src/compute/Cargo.toml`), because it alone is optimised in every build.
//! Nothing in it knows a server, a database or a network.

pub mod analysis;
pub mod dicom;
pub mod domain;
pub mod import;
pub mod nifti;
pub mod nn;
pub mod train;

/// Activations of 100 MB come and go layer by layer: their pages are kept.
#[global_allocator]
static ALLOCATOR: nn::KeepLarge = nn::KeepLarge;
