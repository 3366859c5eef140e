//! Stage 4 for whole-volume plans: the logits of one member after the other → [`Prediction`] on the source grid.
//!
//! Each member's logits come back plane by plane and are summed voxel by voxel: logits (when they decide), probabilities, squares, entropies.
//! So the source grid holds two sums a class, however many members there are.
//! The label is decided as on slices; regions are painted one over the other, each where it is more likely than not.
//! Entropies are in units of log K; of regions, the mean over them in bits.
//! Structures have channels of their own, a softmax of their own and are no foreground.

use super::{UncertaintyError, case, decide, entropy, softmax};
use crate::domain::{
    plan::{Activation, Ensemble, Grid, Plan},
    prediction::Prediction,
    volume::Volume,
    volume_trace::VolumeTrace,
};
use rayon::prelude::*;

/// Planes that are brought back at once: bounds the memory beside the sums.
const PLANES_AT_ONCE: usize = 8;
/// Region probability from which a voxel belongs to the region, as in nnU-Net.
const REGION_THRESHOLD: f32 = 0.5;

/// The sums of an ensemble.
#[derive(Debug)]
pub struct Sums<'a> {
    plan: &'a Plan,
    trace: &'a VolumeTrace,
    classes: usize,
    members: usize,
    /// `[class][voxel]`; empty when probabilities decide.
    logits: Vec<f32>,
    /// `[class][voxel]`
    probabilities: Vec<f32>,
    /// Of the foreground.
    squares: Vec<f32>,
    entropies: Vec<f32>,
    /// Of the structures, none of them first: `[channel][voxel]`.
    structures: Vec<f32>,
    /// The foreground of each member, for their agreement.
    masks: Vec<Vec<bool>>,
}

/// What one member says of one plane.
struct Plane {
    /// `[class][voxel]`
    logits: Vec<Vec<f32>>,
    probabilities: Vec<Vec<f32>>,
    foreground: Vec<f32>,
    entropy: Vec<f32>,
    structures: Vec<Vec<f32>>,
}

impl<'a> Sums<'a> {
    /// Nothing summed yet.
    ///
    /// # Errors
    /// When the plan's labels and structures are not what the network puts out.
    pub fn new(plan: &'a Plan, trace: &'a VolumeTrace) -> Result<Self, UncertaintyError> {
        let outputs = plan.configuration.architecture.num_classes();
        let (classes, further) = (plan.label_channels(), plan.structure_channels());
        if outputs != classes + further {
            return Err(UncertaintyError::Classes {
                classes: outputs.saturating_sub(further),
                labels: plan.labels.len(),
            });
        }
        let voxels = trace.source.len();
        let decided_by_logits = plan.ensemble == Ensemble::MeanLogits && plan.members > 1;
        Ok(Self {
            plan,
            trace,
            classes,
            members: 0,
            logits: vec![0.0; if decided_by_logits { classes * voxels } else { 0 }],
            probabilities: vec![0.0; classes * voxels],
            squares: vec![0.0; voxels],
            entropies: vec![0.0; voxels],
            structures: vec![0.0; further * voxels],
            masks: Vec::new(),
        })
    }

    /// Adds a member's logits, `[channel][first axis][second][third]` of the network's grid: labels, then structures.
    ///
    /// # Errors
    /// When there are too few of them, or one is not finite.
    pub fn add(&mut self, logits: &[f32]) -> Result<(), UncertaintyError> {
        let whole: usize = self.trace.shape.iter().product();
        let seen = self.trace.network_shape();
        let per_class: usize = seen.iter().product();
        if logits.len() != (self.classes + self.plan.structure_channels()) * per_class {
            return Err(UncertaintyError::Classes {
                classes: logits.len() / per_class.max(1),
                labels: self.plan.labels.len(),
            });
        }
        if let Some(bad) = logits.iter().position(|v| !v.is_finite()) {
            let plane = bad % per_class / (seen[1] * seen[2]);
            return Err(UncertaintyError::NotFinite(plane));
        }
        let activated = self.activate_first().then(|| {
            let mut all = logits.to_vec();
            let mut p = vec![0.0; self.classes];
            for v in 0..per_class {
                (0..self.classes).for_each(|k| p[k] = all[k * per_class + v]);
                activate(self.plan.activation, &mut p);
                (0..self.classes).for_each(|k| all[k * per_class + v] = p[k]);
            }
            all
        });
        let logits = activated.as_deref().unwrap_or(logits);
        let spread: Option<Vec<f32>> = self.trace.part.as_ref().map(|part| {
            let channels = logits.chunks_exact(per_class);
            channels
                .flat_map(|channel| part.back(channel, self.trace.shape))
                .collect()
        });
        let logits = spread.as_deref().unwrap_or(logits);
        let planes = self.trace.cropped_shape()[0];
        let voxels = self.trace.source.len();
        let mut mask = vec![false; voxels];
        for first in (0..planes).step_by(PLANES_AT_ONCE) {
            let done: Vec<Plane> = (first..planes.min(first + PLANES_AT_ONCE))
                .into_par_iter()
                .map(|at| self.plane(logits, whole, at))
                .collect();
            for (at, plane) in (first..).zip(done) {
                for (i, v) in self.trace.plane_indices(at).enumerate() {
                    for k in 0..self.classes {
                        self.probabilities[k * voxels + v] += plane.probabilities[k][i];
                        if !self.logits.is_empty() {
                            self.logits[k * voxels + v] += plane.logits[k][i];
                        }
                    }
                    let foreground = plane.foreground[i];
                    self.squares[v] += foreground * foreground;
                    self.entropies[v] += plane.entropy[i];
                    for (k, channel) in plane.structures.iter().enumerate() {
                        self.structures[k * voxels + v] += channel[i];
                    }
                    mask[v] = foreground >= REGION_THRESHOLD;
                }
            }
        }
        self.members += 1;
        self.masks.push(mask);
        Ok(())
    }

    /// Whether what is resampled are probabilities already.
    fn activate_first(&self) -> bool {
        matches!(&self.plan.configuration.grid, Grid::Oriented(chain) if chain.activate_first)
    }

    /// One plane of a member on the source grid.
    fn plane(&self, logits: &[f32], per_class: usize, at: usize) -> Plane {
        let mut logits: Vec<Vec<f32>> = logits
            .chunks_exact(per_class)
            .map(|channel| self.trace.plane(channel, at))
            .collect();
        let mut structures = logits.split_off(self.classes);
        let len = logits[0].len();
        let mut probabilities = vec![vec![0.0; len]; self.classes];
        let mut foregrounds = Vec::with_capacity(len);
        let mut entropies = Vec::with_capacity(len);
        let mut p = vec![0.0; self.classes];
        for i in 0..len {
            for (value, channel) in p.iter_mut().zip(&logits) {
                *value = channel[i];
            }
            if !self.activate_first() {
                activate(self.plan.activation, &mut p);
            }
            for (channel, p) in probabilities.iter_mut().zip(&p) {
                channel[i] = *p;
            }
            let (foreground, entropy) = self.told(&mut p);
            foregrounds.push(foreground);
            entropies.push(entropy);
        }
        let mut p = vec![0.0; structures.len()];
        for i in 0..structures.first().map_or(0, Vec::len) {
            for (value, channel) in p.iter_mut().zip(&structures) {
                *value = channel[i];
            }
            softmax(&mut p);
            for (channel, p) in structures.iter_mut().zip(&p) {
                channel[i] = *p;
            }
        }
        Plane {
            logits,
            probabilities,
            foreground: foregrounds,
            entropy: entropies,
            structures,
        }
    }

    /// The ensemble's prediction; what was cropped away is background, surely.
    #[must_use]
    pub fn finish(self) -> Prediction {
        let geometry = &self.trace.source;
        let voxels = geometry.len();
        let count = self.members.max(1) as f32;
        let blank = || Volume {
            geometry: geometry.clone(),
            data: vec![0.0f32; voxels],
        };
        let mut labels = vec![0u8; voxels];
        let (mut score, mut entropy) = (blank(), blank());
        let (mut mutual_information, mut variance) = (blank(), blank());
        let (mut p, mut decided) = (vec![0.0; self.classes], vec![0.0; self.classes]);
        for at in 0..self.trace.cropped_shape()[0] {
            for v in self.trace.plane_indices(at) {
                for k in 0..self.classes {
                    p[k] = self.probabilities[k * voxels + v] / count;
                    decided[k] = self.logits.get(k * voxels + v).copied().unwrap_or(p[k]);
                }
                if !self.logits.is_empty() {
                    decided.iter_mut().for_each(|sum| *sum /= count);
                    activate(self.plan.activation, &mut decided);
                }
                labels[v] = self.label(&decided);
                let (foreground, total) = self.told(&mut p);
                score.data[v] = foreground.clamp(0.0, 1.0);
                entropy.data[v] = total.clamp(0.0, 1.0);
                mutual_information.data[v] = (total - self.entropies[v] / count).clamp(0.0, 1.0);
                variance.data[v] = (self.squares[v] / count - foreground * foreground).max(0.0);
            }
        }
        Prediction {
            labels: Volume {
                geometry: geometry.clone(),
                data: labels,
            },
            score,
            entropy,
            mutual_information,
            variance,
            structures: self.structures(),
            disagreement: case::disagreement(&case::overlaps(&self.masks)),
        }
    }

    /// The structure with the highest mean at each voxel, "none" included; nothing where the plan has none.
    fn structures(&self) -> Option<Volume<u8>> {
        let geometry = &self.trace.source;
        let voxels = geometry.len();
        let channels = u8::try_from(self.plan.structure_channels()).unwrap_or(u8::MAX);
        (channels > 0).then(|| Volume {
            geometry: geometry.clone(),
            data: (0..voxels)
                .into_par_iter()
                .map(|v| {
                    let sum = |k: u8| self.structures[usize::from(k) * voxels + v];
                    // The first of equals, as of labels.
                    (1..channels).fold(0, |best, k| if sum(k) > sum(best) { k } else { best })
                })
                .collect(),
        })
    }

    /// How surely a voxel is foreground, and its entropy.
    ///
    /// Where the network saw nothing MONAI has 0 for every class, background too; what lacks to 1 is background here.
    fn told(&self, p: &mut [f32]) -> (f32, f32) {
        if self.trace.part.is_some() && self.plan.activation == Activation::Softmax {
            p[0] += (1.0 - p.iter().sum::<f32>()).max(0.0);
        }
        (
            foreground(self.plan.activation, p),
            uncertainty(self.plan.activation, p),
        )
    }

    fn label(&self, decided: &[f32]) -> u8 {
        let labels = &self.plan.labels;
        match self.plan.activation {
            Activation::Softmax => decide(labels, decided),
            Activation::Sigmoid => match &self.plan.configuration.grid {
                // Each with the bundle's threshold, which belongs to the mask.
                Grid::Oriented(chain) => (0..labels.len())
                    .map(|i| chain.painted.get(i).copied().unwrap_or(i))
                    .filter(|k| f64::from(decided[*k]) >= labels[*k].threshold)
                    .map(|k| labels[k].value)
                    .next_back()
                    .unwrap_or(0),
                _ => labels
                    .iter()
                    .zip(decided)
                    .filter(|(_, p)| **p > REGION_THRESHOLD)
                    .map(|(label, _)| label.value)
                    .next_back()
                    .unwrap_or(0),
            },
        }
    }
}

/// Logits of a voxel → probabilities, in place.
fn activate(activation: Activation, logits: &mut [f32]) {
    match activation {
        Activation::Softmax => softmax(logits),
        Activation::Sigmoid => logits.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
    }
}

/// How surely a voxel is anything but background.
fn foreground(activation: Activation, p: &[f32]) -> f32 {
    match activation {
        Activation::Softmax => 1.0 - p[0],
        Activation::Sigmoid => p.iter().copied().fold(0.0, f32::max),
    }
}

/// The entropy of a voxel, 0 to 1.
fn uncertainty(activation: Activation, p: &[f32]) -> f32 {
    match activation {
        Activation::Softmax => entropy(p),
        Activation::Sigmoid => {
            let bits = |p: &f32| entropy(&[*p, 1.0 - *p]);
            p.iter().map(bits).sum::<f32>() / p.len().max(1) as f32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{artery::Artery, head_box::BoxTrace},
        train::{
            phantom::{GeometryKind, Range, geometry},
            recipe::occlusion,
        },
    };

    /// Three voxels in a row: a clot in an M1, the filled basilar artery, nothing.
    #[test]
    fn structures_are_told_beside_the_labels_and_come_back_with_them() {
        let plan = occlusion(2);
        let source = BoxTrace {
            source: geometry(GeometryKind::Even, 1, Range::Training),
            shape: [1, 1, 6],
            spacing_mm: [2.0, 2.0, 1.0],
            origin_mm: [-0.5, 0.0, 0.0],
        };
        let trace = BoxTrace {
            source: source.geometry(),
            shape: [1, 1, 3],
            spacing_mm: [2.0; 3],
            origin_mm: [0.0; 3],
        };
        let volume = trace.as_volume();
        let mut sums = Sums::new(&plan, &volume).unwrap();
        let channels = plan.label_channels() + plan.structure_channels();
        let basilar = plan.label_channels() + 1 + Artery::Basilar as usize;
        let member = |label: f32, structure: f32| {
            let mut logits = vec![0.0; channels * 3];
            logits[0..3].fill(5.0);
            logits[2 * 3] = label;
            logits[plan.label_channels() * 3..][..3].fill(2.0);
            logits[basilar * 3 + 1] = structure;
            logits
        };
        // The second member is not sure of the artery; the mean is.
        sums.add(&member(12.0, 9.0)).unwrap();
        sums.add(&member(12.0, 3.0)).unwrap();
        let boxed = sums.finish();
        let m1 = plan.labels[1].value;
        assert_eq!(boxed.labels.data, [m1, 0, 0]);
        let told = Artery::Basilar as u8 + 1;
        assert_eq!(boxed.structures.as_ref().unwrap().data, [0, told, 0]);
        // What is known of structures is no doubt about labels.
        assert!((boxed.score.data[1] - boxed.score.data[2]).abs() < 1e-6);
        let back = trace.back(&boxed);
        assert_eq!(back.structures.unwrap().data, [0, 0, told, told, 0, 0]);
        assert_eq!(back.labels.data, [m1, m1, 0, 0, 0, 0]);
        let labels_only = vec![0.0; plan.label_channels() * 3];
        assert!(Sums::new(&plan, &volume).unwrap().add(&labels_only).is_err());
    }
}
