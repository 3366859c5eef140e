//! What goes into a network and what comes out, and how a long computation is steered.

/// What a network is given.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkInput {
    /// Rows and columns of each slice.
    pub shape: [usize; 2],
    /// Channels of each slice.
    pub channels: usize,
    /// `[channel][row][column]`, normalised, for each entry of [`super::trace::SpatialTrace::slices`].
    pub slices: Vec<Vec<f32>>,
    /// What air looks like after normalisation: tiles are padded with it.
    pub outside: f32,
}

/// What a whole-volume network is given.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeInput {
    /// Channels.
    pub channels: usize,
    /// Voxels along the network's axes.
    pub shape: [usize; 3],
    /// Normalised values, `[channel][first axis][second][third]`.
    pub data: Vec<f32>,
}

/// The logits of every member of an ensemble, on the network's grid.
///
/// # Shape
/// `slices[slice][member]` holds `classes × rows × columns` values.
#[derive(Debug, Clone, PartialEq)]
pub struct Members {
    /// Classes, background included.
    pub classes: usize,
    /// Rows and columns of the network's grid.
    pub shape: [usize; 2],
    /// Logits by slice and member.
    pub slices: Vec<Vec<Vec<f32>>>,
}

/// What a long computation is told and asked between tiles.
pub trait Control: Sync {
    /// Whether to stop at the next tile.
    fn cancelled(&self) -> bool;
    /// How many of how many tiles are done.
    fn progress(&self, done: usize, total: usize);
}

/// Runs to the end and tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Unattended;

impl Control for Unattended {
    fn cancelled(&self) -> bool {
        false
    }
    fn progress(&self, _done: usize, _total: usize) {}
}
