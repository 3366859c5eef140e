//! ASPECTS as a model tells it against the phantom's own.
//!
//! The true score comes by the same rule from the true regions, the true infarct and the head's own midsagittal plane; its range is a point.

use super::{
    judge::{Case, dice},
    statistics::{Agreement, Estimate, agreement, mean, share},
};
use crate::domain::{
    aspects::{Aspects, Region, SideReading},
    volume::Volume,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The regions and scores of a phantom.
#[derive(Debug, Clone)]
pub struct AspectsTruth {
    /// Places in [`Region::ALL`] from 1, 0 outside of all.
    pub regions: Volume<u8>,
    /// The true scores of the sides that lie on the stack.
    pub aspects: Aspects,
}

/// ASPECTS of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AspectsCase {
    /// The true scores.
    pub truth: Aspects,
    /// What was told.
    pub told: Aspects,
    /// Dice of each region, both sides together, in the order of [`Region::ALL`]; null where neither has a voxel.
    pub dice: [Option<f64>; 10],
}

impl AspectsCase {
    /// Compares what was told with the truth.
    #[must_use]
    pub fn of(truth: &AspectsTruth, told: Option<&Aspects>, structures: Option<&Volume<u8>>) -> Self {
        let mut volumes = [[0.0f64; 3]; 11];
        let geometry = &truth.regions.geometry;
        if let Some(structures) = structures {
            for (v, (a, b)) in truth.regions.data.iter().zip(&structures.data).enumerate() {
                let ml = geometry.voxel_volume_ml(v / geometry.slice_len());
                volumes[usize::from(*a)][0] += ml;
                volumes[usize::from(*b)][1] += ml;
                volumes[usize::from(*a)][2] += if a == b { ml } else { 0.0 };
            }
        }
        Self {
            truth: truth.aspects.clone(),
            told: told.cloned().unwrap_or_default(),
            dice: std::array::from_fn(|r| {
                let [truth_ml, told_ml, both] = volumes[r + 1];
                dice(truth_ml, told_ml, both)
            }),
        }
    }

    /// The sides with a true score, and what was told of each.
    fn sides(&self) -> impl Iterator<Item = (&SideReading, Option<&SideReading>)> {
        let pairs = self.truth.sides().into_iter().zip(self.told.sides());
        pairs.filter_map(|((_, truth), (_, told))| Some((truth?, told)))
    }
}

/// ASPECTS of all cases, a side at a time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AspectsMetrics {
    /// All sides.
    pub all: AspectsGroup,
    /// Those whose true score is below 10.
    pub affected: AspectsGroup,
    /// Affected regions that were told so.
    pub affected_regions_told: Estimate,
    /// Other regions that were left alone.
    pub other_regions_spared: Estimate,
    /// Mean Dice of each region.
    pub region_dice: BTreeMap<Region, Estimate>,
}

/// Some of the sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AspectsGroup {
    /// Share of them that got a score.
    pub told: Estimate,
    /// Told minus true score.
    pub error: Agreement,
    /// Share of scores that are right.
    pub exact: Estimate,
    /// Share of scores that are off by a point at most.
    pub within_one: Estimate,
    /// Share of true scores within the range that was told.
    pub within_range: Estimate,
}

/// What is told of ASPECTS; nothing where no case knows it.
#[must_use]
pub fn summarise(cases: &[Case]) -> Option<AspectsMetrics> {
    let known: Vec<&AspectsCase> = cases.iter().filter_map(|case| case.aspects.as_ref()).collect();
    if known.is_empty() {
        return None;
    }
    let sides: Vec<_> = known.iter().flat_map(|case| case.sides()).collect();
    let affected: Vec<_> = sides
        .iter()
        .copied()
        .filter(|(truth, _)| truth.score < 10)
        .collect();
    let regions = || {
        sides
            .iter()
            .filter_map(|(truth, told)| Some(truth.regions.iter().zip(&(*told)?.regions)))
            .flatten()
    };
    let of = |is_affected: bool| {
        let all = regions().filter(move |(truth, _)| truth.affected == is_affected);
        let right = all
            .clone()
            .filter(|(truth, told)| truth.affected == told.affected);
        share(right.count(), all.count())
    };
    let dice = |r: usize| mean(&known.iter().filter_map(|case| case.dice[r]).collect::<Vec<_>>());
    Some(AspectsMetrics {
        affected: group(&affected),
        all: group(&sides),
        affected_regions_told: of(true),
        other_regions_spared: of(false),
        region_dice: Region::ALL
            .into_iter()
            .enumerate()
            .map(|(r, region)| (region, dice(r)))
            .collect(),
    })
}

fn group(sides: &[(&SideReading, Option<&SideReading>)]) -> AspectsGroup {
    let told: Vec<_> = sides
        .iter()
        .filter_map(|(truth, told)| Some((*truth, (*told)?)))
        .collect();
    let errors: Vec<f64> = told
        .iter()
        .map(|(truth, told)| f64::from(told.score) - f64::from(truth.score))
        .collect();
    let up_to = |off: f64| {
        share(
            errors.iter().filter(|error| error.abs() <= off).count(),
            told.len(),
        )
    };
    let within = told
        .iter()
        .filter(|(truth, told)| (told.range[0]..=told.range[1]).contains(&truth.score));
    AspectsGroup {
        told: share(told.len(), sides.len()),
        error: agreement(&errors),
        exact: up_to(0.0),
        within_one: up_to(1.0),
        within_range: share(within.count(), told.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::aspects::Extent;

    /// A side of which some regions are affected, shown so by `shown` of them and perhaps by `maybe`.
    fn side(shown: &[Region], maybe: &[Region]) -> SideReading {
        let extents = Region::ALL.map(|region| Extent {
            volume_ml: 10.0,
            affected_ml: [false, shown.contains(&region), maybe.contains(&region)]
                .map(|is| if is { 5.0 } else { 0.0 }),
        });
        SideReading::of(&extents).unwrap()
    }

    #[test]
    fn sides_are_compared_with_their_own_truth_and_regions_one_by_one() {
        let truth = |left| Aspects {
            left: Some(left),
            right: Some(side(&[], &[])),
        };
        let told = |left, right| Aspects { left, right };
        let case = |truth, told| AspectsCase {
            truth,
            told,
            dice: [Some(0.5); 10],
        };
        let (insula, m5) = (Region::Insula, Region::M5);
        let both = [insula, m5];
        let cases = [
            // The insula is found and M5 missed, but within what may be; the right side is right.
            case(
                truth(side(&both, &both)),
                told(Some(side(&[insula], &both)), Some(side(&[], &[]))),
            ),
            // Two false regions on the left; the right side is not told.
            case(truth(side(&[], &[])), told(Some(side(&both, &both)), None)),
        ];
        let sides: Vec<_> = cases.iter().flat_map(AspectsCase::sides).collect();
        let all = group(&sides);
        assert_eq!(all.told.value, Some(0.75));
        assert_eq!(all.exact.value, Some(1.0 / 3.0));
        assert_eq!(all.within_one.value, Some(2.0 / 3.0));
        assert_eq!(all.within_range.value, Some(1.0));
        assert!((all.error.bias.value.unwrap() - (1.0 + 0.0 - 2.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_regions_dice_counts_both_sides_and_what_neither_has_is_null() {
        let geometry = crate::domain::volume::Geometry {
            rows: 1,
            columns: 6,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [1.0, 1.0],
            planes: vec![crate::domain::volume::SlicePlane {
                origin_mm: [0.0; 3],
                thickness_mm: 5.0,
            }],
        };
        let map = |data: [u8; 6]| Volume {
            geometry: geometry.clone(),
            data: data.to_vec(),
        };
        let truth = AspectsTruth {
            regions: map([1, 1, 1, 2, 0, 0]),
            aspects: Aspects::default(),
        };
        let case = AspectsCase::of(&truth, None, Some(&map([1, 0, 0, 2, 2, 0])));
        let [caudate, lentiform, capsule, ..] = case.dice;
        assert_eq!((caudate, capsule), (Some(0.5), None));
        assert!((lentiform.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    }
}
