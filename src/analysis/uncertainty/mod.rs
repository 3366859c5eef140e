//! Stage 4: member logits on the network's grid → [`Prediction`] on the source grid.
//!
//! Each member's logits are brought back to the source slice first, then turned into probabilities and accumulated;
//! the mask comes from the plan's ensemble rule, the uncertainty always from the members' probabilities.
//! Entropies are in units of log K, so 0 is certain and 1 is a coin with K sides.
//! Nothing here is calibrated.
//!
//! Source: predictive entropy and mutual information as in Depeweg et al., arXiv:1710.07283; pairwise Dice as case measure, Zenk et al., arXiv:2406.03323.

pub mod case;
pub mod volume;

use crate::domain::{
    failure::FailureClass,
    network::Members,
    plan::{Ensemble, Label, Plan},
    prediction::Prediction,
    trace::SpatialTrace,
    volume::Volume,
};
use rayon::prelude::*;
use std::ops::Range;

/// Why members cannot be combined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UncertaintyError {
    /// The members do not belong to the trace.
    #[error(
        "found logits for {found} slices of {classes} channels, expected {expected} slices of {outputs}, for labels, background and structures"
    )]
    Shape {
        /// Slices with logits.
        found: usize,
        /// Slices of the trace.
        expected: usize,
        /// Channels of the logits.
        classes: usize,
        /// Channels that the plan has.
        outputs: usize,
    },
    /// The network has other classes than the plan has labels.
    #[error("the network answers with {classes} channels, the plan has {labels} labels")]
    Classes {
        /// Channels of the logits.
        classes: usize,
        /// Labels of the plan.
        labels: usize,
    },
    /// A logit is not a number.
    #[error("slice {0} has a logit that is not finite")]
    NotFinite(usize),
}

impl UncertaintyError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Internal
    }
}

/// One slice of a prediction.
struct Slice {
    labels: Vec<u8>,
    score: Vec<f32>,
    entropy: Vec<f32>,
    mutual_information: Vec<f32>,
    variance: Vec<f32>,
    /// Empty where the plan has none.
    structures: Vec<u8>,
    /// For each pair of members: voxels in both, voxels in either summed.
    overlap: Vec<[u64; 2]>,
}

/// Combines the members of an ensemble.
///
/// # Errors
/// When the members do not belong to the trace, or a logit is not finite.
pub fn combine(members: &Members, trace: &SpatialTrace, plan: &Plan) -> Result<Prediction, UncertaintyError> {
    let outputs = plan.label_channels() + plan.structure_channels();
    if members.slices.len() != trace.slices.len()
        || members.classes != outputs
        || members.shape != trace.shape()
    {
        return Err(UncertaintyError::Shape {
            found: members.slices.len(),
            expected: trace.slices.len(),
            classes: members.classes,
            outputs,
        });
    }
    for (slice, logits) in trace.slices.iter().zip(&members.slices) {
        if logits.iter().flatten().any(|v| !v.is_finite()) {
            return Err(UncertaintyError::NotFinite(*slice));
        }
    }
    let geometry = &trace.source;
    let blank = |value: f32| Volume {
        geometry: geometry.clone(),
        data: vec![value; geometry.len()],
    };
    let mut prediction = Prediction {
        labels: Volume {
            geometry: geometry.clone(),
            data: vec![0; geometry.len()],
        },
        score: blank(0.0),
        entropy: blank(0.0),
        mutual_information: blank(0.0),
        variance: blank(0.0),
        structures: (!plan.structures.is_empty()).then(|| Volume {
            geometry: geometry.clone(),
            data: vec![0; geometry.len()],
        }),
        disagreement: 0.0,
    };
    let pairs = plan.members * plan.members.saturating_sub(1) / 2;
    let mut overlap = vec![[0u64; 2]; pairs];
    let len = geometry.slice_len();
    // A few slices at a time bound the memory beside the volumes themselves.
    for (indices, logits) in trace.slices.chunks(16).zip(members.slices.chunks(16)) {
        let done: Vec<Slice> = logits.par_iter().map(|l| combine_slice(l, trace, plan)).collect();
        for (index, slice) in indices.iter().zip(done) {
            let range = index * len..(index + 1) * len;
            prediction.labels.data[range.clone()].copy_from_slice(&slice.labels);
            prediction.score.data[range.clone()].copy_from_slice(&slice.score);
            prediction.entropy.data[range.clone()].copy_from_slice(&slice.entropy);
            prediction.mutual_information.data[range.clone()].copy_from_slice(&slice.mutual_information);
            if let Some(structures) = &mut prediction.structures {
                structures.data[range.clone()].copy_from_slice(&slice.structures);
            }
            prediction.variance.data[range].copy_from_slice(&slice.variance);
            for (sum, part) in overlap.iter_mut().zip(&slice.overlap) {
                sum[0] += part[0];
                sum[1] += part[1];
            }
        }
    }
    prediction.disagreement = case::disagreement(&overlap);
    Ok(prediction)
}

/// Margin of the background's logit from which a voxel is background beyond doubt: each other class has less than one part in 160,000.
const SURE: f32 = 12.0;

/// Where all members are sure that none of their channels but the first of `channels` is meant; between such pixels there is nothing to work out, and they are most of a head.
fn sure(logits: &[Vec<f32>], channels: Range<usize>, pixels: usize) -> Vec<bool> {
    let (first, others) = (channels.start, channels.start + 1..channels.end);
    (0..pixels)
        .map(|i| {
            logits.iter().all(|z| {
                let none = z[first * pixels + i];
                others.clone().all(|k| none - z[k * pixels + i] > SURE)
            })
        })
        .collect()
}

/// The structure with the highest mean probability at each voxel of a slice, "none" included.
fn structures(logits: &[Vec<f32>], channels: Range<usize>, trace: &SpatialTrace) -> Vec<u8> {
    let [rows, columns] = trace.shape();
    let pixels = rows * columns;
    let sure = sure(logits, channels.clone(), pixels);
    let mut structures = vec![0; trace.source.slice_len()];
    let mut p = vec![0.0f32; channels.len()];
    let mut sum = vec![0.0f32; channels.len()];
    for (v, corners) in trace.way_back().pixels().enumerate() {
        let Some(corners) = corners.filter(|c| !c.places().iter().all(|i| sure[*i])) else {
            continue;
        };
        sum.fill(0.0);
        for member in logits {
            for (p, k) in p.iter_mut().zip(channels.clone()) {
                *p = corners.value(&member[k * pixels..(k + 1) * pixels]);
            }
            softmax(&mut p);
            sum.iter_mut().zip(&p).for_each(|(sum, p)| *sum += p);
        }
        let best = (0u8..).zip(&sum).max_by(|a, b| a.1.total_cmp(b.1));
        structures[v] = best.map_or(0, |(structure, _)| structure);
    }
    structures
}

fn combine_slice(logits: &[Vec<f32>], trace: &SpatialTrace, plan: &Plan) -> Slice {
    let [rows, columns] = trace.shape();
    let pixels = rows * columns;
    let len = trace.source.slice_len();
    let count = logits.len() as f32;
    let classes = plan.label_channels();
    let sure = sure(logits, 0..classes, pixels);
    let mut slice = Slice {
        labels: vec![0; len],
        score: vec![0.0; len],
        entropy: vec![0.0; len],
        mutual_information: vec![0.0; len],
        variance: vec![0.0; len],
        structures: match plan.structure_channels() {
            0 => Vec::new(),
            more => structures(logits, classes..classes + more, trace),
        },
        overlap: vec![[0; 2]; logits.len() * logits.len().saturating_sub(1) / 2],
    };
    let mut p = vec![0.0f32; classes];
    let mut decided = vec![0.0f32; classes];
    let mut mean = vec![0.0f32; classes];
    let mut mask = vec![false; logits.len()];
    for (v, corners) in trace.way_back().pixels().enumerate() {
        let Some(corners) = corners.filter(|c| !c.places().iter().all(|i| sure[*i])) else {
            continue;
        };
        mean.fill(0.0);
        decided.fill(0.0);
        let (mut sum_entropy, mut sum_square) = (0.0, 0.0);
        for (member, in_mask) in logits.iter().zip(&mut mask) {
            for (k, p) in p.iter_mut().enumerate() {
                *p = corners.value(&member[k * pixels..(k + 1) * pixels]);
                decided[k] += *p;
            }
            softmax(&mut p);
            for (mean, p) in mean.iter_mut().zip(&p) {
                *mean += p;
            }
            sum_entropy += entropy(&p);
            let foreground = 1.0 - p[0];
            sum_square += foreground * foreground;
            *in_mask = foreground >= 0.5;
        }
        case::add_voxel(&mask, &mut slice.overlap);
        mean.iter_mut().for_each(|p| *p /= count);
        let foreground = (1.0 - mean[0]).clamp(0.0, 1.0);
        let total = entropy(&mean);
        slice.score[v] = foreground;
        slice.entropy[v] = total.clamp(0.0, 1.0);
        slice.mutual_information[v] = (total - sum_entropy / count).clamp(0.0, 1.0);
        slice.variance[v] = (sum_square / count - foreground * foreground).max(0.0);
        match plan.ensemble {
            Ensemble::MeanProbabilities => decided.copy_from_slice(&mean),
            Ensemble::MeanLogits => {
                decided.iter_mut().for_each(|z| *z /= count);
                softmax(&mut decided);
            }
        }
        slice.labels[v] = decide(&plan.labels, &decided);
    }
    slice
}

/// The label of a voxel by the probabilities of background and labels; 0 for background.
///
/// Whether it is anything is asked of all labels together, which it is of each: blood of an uncertain kind is blood.
/// Where nobody chose a threshold, the highest class wins, and the first of equals, as argmax takes it.
fn decide(labels: &[Label], p: &[f32]) -> u8 {
    let best = (2..p.len()).fold(1, |best, k| if p[k] > p[best] { k } else { best });
    let Some(label) = labels.get(best - 1) else {
        return 0;
    };
    let wins = if label.threshold > 0.0 {
        f64::from(p[1..].iter().sum::<f32>()) >= label.threshold
    } else {
        p[best] > p[0]
    };
    if wins { label.value } else { 0 }
}

/// Logits → probabilities, in place.
fn softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in &mut *logits {
        *value = (*value - highest).exp();
        sum += *value;
    }
    logits.iter_mut().for_each(|p| *p /= sum);
}

/// Entropy of a distribution in units of log K.
fn entropy(p: &[f32]) -> f32 {
    let sum: f32 = p.iter().map(|p| if *p > 0.0 { -p * p.ln() } else { 0.0 }).sum();
    #[expect(clippy::cast_precision_loss, reason = "a handful of classes")]
    {
        sum / (p.len() as f32).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        trace::AxisMap,
        volume::{Geometry, SlicePlane},
    };

    #[test]
    fn entropy_is_one_for_a_fair_coin_and_zero_for_certainty() {
        assert!((entropy(&[0.5, 0.5]) - 1.0).abs() < 1e-6);
        assert!(entropy(&[1.0, 0.0]).abs() < 1e-6);
        assert!((entropy(&[0.25; 4]) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn kinds_share_a_threshold_and_without_one_the_highest_class_wins() {
        let mut labels = crate::train::recipe::haemorrhage(1).labels;
        labels.truncate(2);
        let told = |labels: &[Label], p: [f32; 3]| decide(labels, &p);
        assert_eq!(told(&labels, [0.55, 0.2, 0.25]), 2);
        assert_eq!(told(&labels, [0.65, 0.2, 0.15]), 0);
        labels.iter_mut().for_each(|label| label.threshold = 0.0);
        assert_eq!(told(&labels, [0.55, 0.2, 0.25]), 0);
        assert_eq!(told(&labels, [0.2, 0.4, 0.4]), 1);
        assert_eq!(told(&labels, [0.4, 0.4, 0.2]), 0);
    }

    #[test]
    fn structures_are_told_by_their_own_channels() {
        let map = |len: usize| AxisMap {
            len,
            start: 0.0,
            step: 1.0,
        };
        let trace = SpatialTrace {
            source: Geometry {
                rows: 1,
                columns: 3,
                row_direction: [1.0, 0.0, 0.0],
                column_direction: [0.0, 1.0, 0.0],
                pixel_spacing_mm: [1.0, 1.0],
                planes: vec![SlicePlane {
                    origin_mm: [0.0; 3],
                    thickness_mm: 5.0,
                }],
            },
            transposed: false,
            axes: [map(1), map(3)],
            slices: vec![0],
        };
        // Channels: background, a label, none, two structures; the second member is surer than the first.
        let first = [
            [9.0, 0.0, 0.0],
            [0.0, 9.0, 9.0],
            [0.0, 20.0, 2.0],
            [1.0, 0.0, 0.0],
            [0.0; 3],
        ];
        let second = [
            [9.0, 0.0, 0.0],
            [0.0, 9.0, 9.0],
            [0.0, 20.0, 0.0],
            [0.0; 3],
            [6.0, 0.0, 9.0],
        ];
        let members = [first.concat(), second.concat()];
        assert_eq!(structures(&members, 2..5, &trace), [2, 0, 2]);
        assert_eq!(structures(&members[..1], 2..5, &trace), [1, 0, 0]);
    }
}
