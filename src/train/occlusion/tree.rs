//! How well a detector's tree of arteries is that of the phantom: Dice of each artery.
//!
//! Judged well within the box that the network sees: its borders cut arteries, and lie a little differently on each head.

use super::super::{
    evaluation::{
        judge::dice,
        statistics::{Estimate, mean},
    },
    phantom::Head,
    volumes::middle_mm,
};
use super::Case;
use crate::domain::{
    artery::Artery,
    geometry::{Vec3, add, sub},
    plan::{Grid, Plan},
    volume::Volume,
};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The part of the box near its borders that is not judged, mm: by so much it may lie beside where the head's own axes place it.
const MARGIN_MM: f64 = 13.0;
/// Values of a voxel: an artery each, and none.
const COUNT: usize = Artery::ALL.len() + 1;

/// Dice of each artery that is there or told; nothing where the plan has no arteries.
pub(super) fn judge(head: &Head, plan: &Plan, told: Option<&Volume<u8>>) -> Option<BTreeMap<Artery, f64>> {
    let told = told.filter(|_| plan.tells_arteries())?;
    let Grid::HeadBox { centre_mm } = plan.configuration.grid else {
        return None;
    };
    let grid = &told.geometry;
    let middle = add(middle_mm(head), centre_mm);
    let configuration = &plan.configuration;
    // LPS x runs along columns, y along rows, z along slices.
    let half: Vec3 = [2, 1, 0]
        .map(|axis| 0.5 * configuration.patch_size[axis] as f64 * configuration.spacing[axis] - MARGIN_MM);
    let truth = head.arteries(grid);
    let (len, columns) = (grid.slice_len(), grid.columns);
    // For each value: voxels that are truly it, told to be it, and both.
    let counts = (0..grid.slices())
        .into_par_iter()
        .map(|slice| {
            let mut counts = [[0usize; 3]; COUNT];
            for at in 0..len {
                let (truly, said) = (truth.slice(slice)[at], told.slice(slice)[at]);
                if truly == 0 && said == 0 {
                    continue;
                }
                let place = grid.voxel_to_lps(slice, (at / columns) as f64, (at % columns) as f64);
                let off = sub(place, middle);
                if (0..3).any(|a| off[a].abs() > half[a]) {
                    continue;
                }
                counts[usize::from(truly)][0] += 1;
                counts[usize::from(said)][1] += 1;
                counts[usize::from(truly)][2] += usize::from(truly == said);
            }
            counts
        })
        .reduce(
            || [[0; 3]; COUNT],
            |mut sum, part| {
                for (sum, part) in sum.iter_mut().flatten().zip(part.iter().flatten()) {
                    *sum += part;
                }
                sum
            },
        );
    let of = |(artery, [truly, said, both]): (Artery, [usize; 3])| {
        Some((artery, dice(truly as f64, said as f64, both as f64)?))
    };
    Some(
        Artery::ALL
            .into_iter()
            .zip(counts.into_iter().skip(1))
            .filter_map(of)
            .collect(),
    )
}

/// The mean of each artery.
pub(super) fn summarise(cases: &[Case]) -> BTreeMap<Artery, Estimate> {
    let of = |artery: Artery| {
        let dice: Vec<f64> = cases
            .iter()
            .filter_map(|case| case.artery_dice.as_ref()?.get(&artery).copied())
            .collect();
        (!dice.is_empty()).then(|| (artery, mean(&dice)))
    };
    Artery::ALL.into_iter().filter_map(of).collect()
}
