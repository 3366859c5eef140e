//! What an ensemble says of a volume, voxel by voxel and as a case.

use super::volume::Volume;

/// What the ensemble says of every voxel, on the source grid.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// Foreground label of each voxel, 0 = background.
    pub labels: Volume<u8>,
    /// Mean foreground score (1 − mean background probability), 0 to 1, not calibrated.
    pub score: Volume<f32>,
    /// Predictive entropy of the mean, in units of log K, 0 to 1.
    pub entropy: Volume<f32>,
    /// Mutual information between voxel label and member, in units of log K, 0 to 1.
    pub mutual_information: Volume<f32>,
    /// Variance of the members' foreground probability.
    pub variance: Volume<f32>,
    /// Anatomical structure of each voxel, its place among the plan's from 1, 0 = none of them; nothing where the plan has none.
    pub structures: Option<Volume<u8>>,
    /// Disagreement of the members about the case, 0 to 1: 1 − mean pairwise Dice of their masks.
    pub disagreement: f64,
}

/// ContentLabel of a Segmentation of structures, by which it is told from those of findings: no question may be called so.
pub const STRUCTURES_LABEL: &str = "STRUCTURES";

/// Whether an object with this ContentLabel holds anatomical structures, and no findings.
#[must_use]
pub fn holds_structures(content_label: &str) -> bool {
    content_label.trim() == STRUCTURES_LABEL
}
