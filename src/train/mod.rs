//! Offline work: phantoms.

pub mod phantom;
