//! A dataset in nnU-Net's raw layout → a plan and samples, and a judgement on the cases that a member did not see.
//!
//! `raw` finds and checks the cases (`train::labelled` reads them), `fingerprint` measures them, `planning` chooses grid and network, `patches` brings every case to the grid once and draws from it, `validation` predicts held-out cases the way `ictus analyze` does, `card` says what is known.
//! What must hold: a case is read, cropped, normalised and resampled by the code that predicts, so that training and prediction see the same voxels.
//! What it deliberately does not do: cascades, other files than NIfTI and DICOM; each is refused by name.
//!
//! Source: nnU-Net v2 (doi:10.1038/s41592-020-01008-z), its dataset format and its rules of planning.

pub mod card;
pub mod fingerprint;
pub mod patches;
pub mod planning;
pub mod raw;
pub mod validation;

#[cfg(test)]
mod tests;
