//! A volume in HU → whether it is what the trigger wants, judged by the pixels and not by the header alone.
//!
//! Head: tissue of 0 to 80 HU enclosed by bone on all four sides of a slice, in a ring no larger than a skull, over enough height.
//! Contrast agent: several spots well above blood and away from bone, of a vessel's size, in many slices of the vault.
//! Appearance: density and noise of the brain, against what the network has learnt from.
//! These are gates against wrong series, not measurements; they know nothing of findings.
#![expect(
    clippy::cast_precision_loss,
    reason = "counts of voxels become volumes; they are far below 2^52"
)]

use super::refusal;
use crate::domain::{
    finding::Refusal,
    plan::{Contrast, Trigger},
    volume::{Geometry, Volume},
};
use rayon::prelude::*;
use std::collections::HashSet;

/// Bone from here on, HU; calcium in the brain rarely encloses anything.
const BONE_HU: f32 = 300.0;
/// Skulls are at most this long or wide, mm (the longest adult heads are 220 mm).
const LARGEST_SKULL_MM: f64 = 260.0;
/// A slice with this much enclosed tissue is a slice of a head, mm².
const LEAST_ENCLOSED_MM2: f64 = 2000.0;
/// Share of the enclosed area that is tissue of 0 to 80 HU; lungs and neck have less.
const LEAST_TISSUE_SHARE: f64 = 0.4;
/// Height of head slices that is needed, mm.
const LEAST_HEAD_MM: f64 = 30.0;
/// From here on a stack counts as a whole head, mm: an adult's brain is 110 to 150 mm high.
const WHOLE_HEAD_MM: f64 = 90.0;
/// From here on a voxel is brighter than any blood (90 HU).
const VESSEL_HU: f32 = 130.0;
/// Distance from bone and calcium at which a bright voxel is not their blurred edge, mm.
const EDGE_MM: f64 = 3.0;
/// An artery or a vein of the vault across a slice, mm².
const VESSEL_MM2: std::ops::RangeInclusive<f64> = 1.0..=40.0;
/// Share of tissue from which a slice is vault: the skull base has bone and air between.
const VAULT_TISSUE_SHARE: f64 = 0.8;
/// The lowest part of the vault does not count: orbital roofs and petrous edges, blurred by thick slices, look like vessels.
const ABOVE_BASE_MM: f64 = 15.0;
/// A slice with this many vessels shows contrast agent: a shunt or a clip is one spot.
const LEAST_VESSELS: usize = 2;
/// From this share of such slices on, contrast agent was given: vessels run through most slices, calcified plexus and falx through few.
///
/// Phantoms with agent had 0.40 or more, plain ones and a real plain head 0.09 or less.
const ENHANCED_SHARE: f64 = 0.25;

/// Side of the squares in which density and noise are measured, mm: smaller than most of what the brain is made of.
const SQUARE_MM: f64 = 4.0;
/// Which square's deviation is the noise, of all from the lowest to the highest: sulci and vessels make higher ones.
const NOISE_QUANTILE: f64 = 0.25;
/// Noise is told as slices of this thickness have it, mm: what networks on thick slabs see of thin slices.
const SLAB_MM: f64 = 5.0;
/// Squares that are needed to say anything.
const LEAST_SQUARES: usize = 100;

/// What the pixels of one slice say.
#[derive(Debug, Clone, Default)]
struct Evidence {
    is_head: bool,
    is_vault: bool,
    vessels: usize,
    /// Mean and standard deviation of squares of enclosed tissue.
    squares: Vec<[f64; 2]>,
}

/// What brain looks like in a series.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Appearance {
    /// Density in the median, HU.
    brain_hu: f64,
    /// Standard deviation where the brain is even, in slices of [`SLAB_MM`], HU.
    noise_hu: f64,
}

impl Appearance {
    /// Of the slices of a head, so thick; nothing where too little of it is seen.
    fn of(evidence: &[Evidence], thickness_mm: f64) -> Option<Self> {
        let squares: Vec<[f64; 2]> = evidence.iter().flat_map(|e| &e.squares).copied().collect();
        let quantile = |which: usize, share: f64| {
            let mut values: Vec<f64> = squares.iter().map(|square| square[which]).collect();
            values.sort_by(f64::total_cmp);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an index below the length"
            )]
            let at = (share * (values.len() - 1) as f64) as usize;
            values[at]
        };
        (squares.len() >= LEAST_SQUARES).then(|| Self {
            brain_hu: quantile(0, 0.5),
            noise_hu: quantile(1, NOISE_QUANTILE) * (thickness_mm / SLAB_MM).min(1.0).sqrt(),
        })
    }

    /// What the network has not learnt from, if anything, in words.
    fn is_foreign_to(self, trigger: &Trigger) -> Option<String> {
        let Self { brain_hu, noise_hu } = self;
        if let Some([low, high]) = trigger.brain_hu
            && !(low..=high).contains(&brain_hu)
        {
            return Some(format!(
                "brain has {brain_hu:.0} HU in the median, expected {low:.0} to {high:.0} HU"
            ));
        }
        trigger.noise_hu.filter(|most| noise_hu > *most).map(|most| {
            format!(
                "noise of the brain is {noise_hu:.1} HU in slices of {SLAB_MM:.0} mm, expected at most {most:.0} HU"
            )
        })
    }
}

/// Checks the content against the trigger and against what the header says of contrast agent.
///
/// What a reader should know all the same comes back.
pub(super) fn check(
    volume: &Volume<f32>,
    trigger: &Trigger,
    has_agent: bool,
) -> Result<Vec<Refusal>, Vec<Refusal>> {
    let evidence = looked_at(volume);
    let mut refusals = Vec::new();
    let head_mm: f64 = (0..evidence.len())
        .filter(|&slice| evidence[slice].is_head)
        .map(|slice| volume.geometry.slice_extent_mm(slice))
        .sum();
    if trigger.is_head() && head_mm < LEAST_HEAD_MM {
        refusals.push(refusal(
            "not_head",
            format!("{head_mm:.0} mm of the stack show brain within a skull; expected at least {LEAST_HEAD_MM:.0} mm."),
        ));
    }
    let share = share_with_vessels(volume, &evidence);
    let looks_enhanced = share >= ENHANCED_SHARE;
    let contradiction = match trigger.contrast {
        Contrast::Any => None,
        Contrast::Without if looks_enhanced && !has_agent => Some("ContrastBolusAgent is empty"),
        Contrast::With if !looks_enhanced && has_agent => Some("ContrastBolusAgent is set"),
        _ => None,
    };
    if let Some(header) = contradiction {
        refusals.push(refusal(
            "uncertain_phase",
            format!(
                "{header}, but {:.0} % of the slices through the vault show enhanced vessels, and with contrast agent it is {:.0} % or more; whether it was given is uncertain.",
                100.0 * share,
                100.0 * ENHANCED_SHARE
            ),
        ));
    }
    if let Some(what) = foreign(&volume.geometry, &evidence, trigger) {
        refusals.push(refusal(
            "out_of_distribution",
            format!("Out of the model's distribution: {what}; its answer would be a guess. Send another series, or name the model to run it all the same."),
        ));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let partial = trigger.is_head() && head_mm < WHOLE_HEAD_MM;
    let warning = || {
        refusal(
            "partial_head",
            format!(
                "{head_mm:.0} mm of the stack show brain within a skull, a whole head has {WHOLE_HEAD_MM:.0} mm or more: what lies outside it was not looked at."
            ),
        )
    };
    Ok(partial.then(warning).into_iter().collect())
}

/// What the network has not learnt from, if anything, in words.
fn foreign(geometry: &Geometry, evidence: &[Evidence], trigger: &Trigger) -> Option<String> {
    // Slices that overlap are thicker than the step between them.
    let thicknesses = (0..evidence.len()).map(|slice| {
        geometry
            .slice_extent_mm(slice)
            .max(geometry.planes[slice].thickness_mm)
    });
    let thickness_mm = thicknesses.sum::<f64>() / evidence.len().max(1) as f64;
    Appearance::of(evidence, thickness_mm)?.is_foreign_to(trigger)
}

/// The same of a volume that was asked for by name, whatever it looks like.
#[must_use]
pub fn foreign_to(volume: &Volume<f32>, trigger: &Trigger) -> Option<String> {
    foreign(&volume.geometry, &looked_at(volume), trigger)
}

fn looked_at(volume: &Volume<f32>) -> Vec<Evidence> {
    (0..volume.geometry.slices())
        .into_par_iter()
        .map(|slice| look(volume, slice))
        .collect()
}

/// Share of the slices of the vault that show vessels; 0 without a vault.
fn share_with_vessels(volume: &Volume<f32>, evidence: &[Evidence]) -> f64 {
    let geometry = &volume.geometry;
    let up = geometry.normal()[2].signum();
    let heights: Vec<f64> = geometry.positions_mm().iter().map(|mm| mm * up).collect();
    let vault = || (0..evidence.len()).filter(|&slice| evidence[slice].is_vault);
    let base = vault().map(|slice| heights[slice]).fold(f64::INFINITY, f64::min);
    let counted: Vec<usize> = vault()
        .filter(|&slice| heights[slice] >= base + ABOVE_BASE_MM)
        .collect();
    let with_vessels = counted
        .iter()
        .filter(|&&slice| evidence[slice].vessels >= LEAST_VESSELS)
        .count();
    with_vessels as f64 / counted.len().max(1) as f64
}

fn look(volume: &Volume<f32>, slice: usize) -> Evidence {
    let geometry = &volume.geometry;
    let (rows, columns) = (geometry.rows, geometry.columns);
    let hu = volume.slice(slice);
    let is_bone = |row: usize, column: usize| hu[row * columns + column] >= BONE_HU;
    let in_row: Vec<Option<(usize, usize)>> = (0..rows)
        .map(|row| span((0..columns).filter(|&column| is_bone(row, column))))
        .collect();
    let mut in_column: Vec<Option<(usize, usize)>> = vec![None; columns];
    for row in 0..rows {
        for column in (0..columns).filter(|&column| is_bone(row, column)) {
            let (first, _) = in_column[column].unwrap_or((row, row));
            in_column[column] = Some((first, row));
        }
    }
    let Some((top, bottom)) = span((0..rows).filter(|&row| in_row[row].is_some())) else {
        return Evidence::default();
    };
    let (left, right) = in_row
        .iter()
        .flatten()
        .fold((columns, 0), |(l, r), &(a, b)| (l.min(a), r.max(b)));
    let [row_mm, column_mm] = geometry.pixel_spacing_mm;
    let too_large = (bottom - top) as f64 * row_mm > LARGEST_SKULL_MM
        || right.saturating_sub(left) as f64 * column_mm > LARGEST_SKULL_MM;
    if too_large {
        return Evidence::default();
    }
    let is_inside = |row: usize, column: usize| {
        in_row[row].is_some_and(|(l, r)| l < column && column < r)
            && in_column[column].is_some_and(|(t, b)| t < row && row < b)
            && !is_bone(row, column)
    };
    let (mut inside, mut tissue, mut bright) = (0usize, 0usize, Vec::new());
    for row in top..=bottom {
        for column in (left..=right).filter(|&column| is_inside(row, column)) {
            let value = hu[row * columns + column];
            inside += 1;
            tissue += usize::from((0.0..=80.0).contains(&value));
            if value >= VESSEL_HU {
                bright.push((row, column));
            }
        }
    }
    let share = tissue as f64 / inside.max(1) as f64;
    let is_head = tissue as f64 * row_mm * column_mm >= LEAST_ENCLOSED_MM2 && share >= LEAST_TISSUE_SHARE;
    if !is_head {
        return Evidence::default();
    }
    let side = pixels(SQUARE_MM, row_mm.max(column_mm));
    let square = |row: usize, column: usize| {
        let all = || (row..row + side).flat_map(|r| (column..column + side).map(move |c| (r, c)));
        if !all().all(|(r, c)| is_inside(r, c)) {
            return None;
        }
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for (r, c) in all() {
            let value = f64::from(hu[r * columns + c]);
            (sum, squares) = (sum + value, squares + value * value);
        }
        let n = (side * side) as f64;
        let mean = sum / n;
        let is_tissue = (0.0..=80.0).contains(&mean);
        is_tissue.then(|| [mean, (squares / n - mean * mean).max(0.0).sqrt()])
    };
    let squares: Vec<[f64; 2]> = (top..bottom.saturating_sub(side))
        .step_by(side)
        .flat_map(|row| {
            (left..right.saturating_sub(side))
                .step_by(side)
                .map(move |column| (row, column))
        })
        .filter_map(|(row, column)| square(row, column))
        .collect();
    if share < VAULT_TISSUE_SHARE {
        return Evidence {
            is_head,
            squares,
            ..Evidence::default()
        };
    }
    let (reach_rows, reach_columns) = (pixels(EDGE_MM, row_mm), pixels(EDGE_MM, column_mm));
    let is_away_from_bone = |&&(row, column): &&(usize, usize)| {
        let near_rows = row.saturating_sub(reach_rows)..(row + reach_rows + 1).min(rows);
        near_rows.into_iter().all(|r| {
            let near = column.saturating_sub(reach_columns)..(column + reach_columns + 1).min(columns);
            near.into_iter().all(|c| hu[r * columns + c] < BONE_HU)
        })
    };
    // Noise has bright voxels, but not bright neighbourhoods.
    let is_bright_around = |&&(row, column): &&(usize, usize)| {
        let near = (row.max(1) - 1..(row + 2).min(rows))
            .flat_map(|r| (column.max(1) - 1..(column + 2).min(columns)).map(move |c| hu[r * columns + c]));
        let (count, sum) = near.fold((0u8, 0f32), |(n, sum), value| (n + 1, sum + value));
        sum / f32::from(count) >= VESSEL_HU
    };
    let bright: HashSet<(usize, usize)> = bright
        .iter()
        .filter(is_away_from_bone)
        .filter(is_bright_around)
        .copied()
        .collect();
    let is_vessel = |pixels: &usize| VESSEL_MM2.contains(&(*pixels as f64 * row_mm * column_mm));
    let vessels = spots(bright).into_iter().filter(is_vessel).count();
    Evidence {
        is_head,
        is_vault: true,
        vessels,
        squares,
    }
}

/// How many pixels each connected spot has.
fn spots(mut pixels: HashSet<(usize, usize)>) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(&start) = pixels.iter().next() {
        pixels.remove(&start);
        let (mut todo, mut size) = (vec![start], 0);
        while let Some((row, column)) = todo.pop() {
            size += 1;
            for r in row.saturating_sub(1)..=row + 1 {
                let beside = column.saturating_sub(1)..=column + 1;
                todo.extend(beside.map(|c| (r, c)).filter(|pixel| pixels.remove(pixel)));
            }
        }
        sizes.push(size);
    }
    sizes
}

/// Pixels that span a distance, at least one.
fn pixels(distance_mm: f64, spacing_mm: f64) -> usize {
    let pixels = (distance_mm / spacing_mm).ceil();
    (1..64).find(|n| *n as f64 >= pixels).unwrap_or(64)
}

fn span(indices: impl Iterator<Item = usize>) -> Option<(usize, usize)> {
    indices.fold(None, |span: Option<(usize, usize)>, index| {
        Some(span.map_or((index, index), |(first, _)| (first, index)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;

    /// Ten slices of 80 × 80 at 2.5 mm: a ring of bone around tissue, and `inner` at its centre.
    fn head(radius_mm: f64, tissue_hu: f32, inner: f32) -> Volume<f32> {
        let at = |i: usize| (i as f64 - 39.5) * 2.5;
        let plane = (0..80)
            .flat_map(|row| (0..80).map(move |column| (row, column)))
            .map(|(row, column)| {
                let r = at(row).hypot(at(column));
                match r {
                    r if r < 12.0 => inner,
                    r if r < radius_mm - 8.0 => tissue_hu,
                    r if r < radius_mm => 900.0,
                    _ => -1000.0,
                }
            });
        let plane: Vec<f32> = plane.collect();
        let planes = (0..10u32).map(|k| SlicePlane {
            origin_mm: [0.0, 0.0, 5.0 * f64::from(k)],
            thickness_mm: 5.0,
        });
        let geometry = Geometry {
            rows: 80,
            columns: 80,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [2.5, 2.5],
            planes: planes.collect(),
        };
        Volume {
            data: plane.repeat(10),
            geometry,
        }
    }

    /// The head with as many vessels through all of its slices.
    fn with_vessels(count: usize, hu: f32) -> Volume<f32> {
        let mut volume = head(80.0, 35.0, 35.0);
        let len = volume.geometry.slice_len();
        for (vessel, slice) in (0..count).flat_map(|v| (0..10).map(move |s| (v, s))) {
            for (row, column) in (0..3).flat_map(|r| (0..3).map(move |c| (r, c))) {
                volume.data[slice * len + (30 + row) * 80 + 30 + 8 * vessel + column] = hu;
            }
        }
        volume
    }

    fn trigger(contrast: Contrast) -> Trigger {
        Trigger {
            modality: "CT".into(),
            contrast,
            thickness_mm: [0.5, 8.0],
            body_part: "HEAD".into(),
            only_named: false,
            brain_hu: Some([12.0, 48.0]),
            noise_hu: Some(10.0),
        }
    }

    fn codes(volume: &Volume<f32>, contrast: Contrast, has_agent: bool) -> Vec<String> {
        let outcome = check(volume, &trigger(contrast), has_agent);
        outcome
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|r| r.code)
            .collect()
    }

    #[test]
    fn a_skull_with_brain_is_a_head_and_other_bodies_are_not() {
        let whole = head(80.0, 35.0, 35.0);
        assert!(codes(&whole, Contrast::Without, false).is_empty());
        let warnings = check(&whole, &trigger(Contrast::Without), false).unwrap();
        assert_eq!(warnings[0].code, "partial_head", "50 mm are no whole head");
        assert_eq!(
            codes(&head(30.0, 35.0, 35.0), Contrast::Without, false),
            ["not_head"]
        );
        assert_eq!(
            codes(&head(80.0, -800.0, 35.0), Contrast::Without, false),
            ["not_head"]
        );
        let mut no_bone = head(80.0, 35.0, 35.0);
        no_bone
            .data
            .iter_mut()
            .filter(|hu| **hu > 800.0)
            .for_each(|hu| *hu = 50.0);
        assert_eq!(codes(&no_bone, Contrast::Without, false), ["not_head"]);
    }

    #[test]
    fn blood_is_not_contrast_agent_and_bright_vessels_contradict_an_empty_header() {
        assert!(codes(&head(80.0, 35.0, 85.0), Contrast::Without, false).is_empty());
        let enhanced = with_vessels(3, 220.0);
        assert_eq!(codes(&enhanced, Contrast::Without, false), ["uncertain_phase"]);
        assert!(codes(&enhanced, Contrast::With, true).is_empty());
        assert_eq!(
            codes(&head(80.0, 35.0, 35.0), Contrast::With, true),
            ["uncertain_phase"]
        );
        assert!(codes(&enhanced, Contrast::Any, false).is_empty());
    }

    #[test]
    fn brain_of_another_density_or_with_more_noise_than_was_learnt_from_is_refused_unless_nobody_said() {
        let noisy = |hu: f32, deviation: f32, thickness_mm: f64| {
            let mut volume = head(80.0, hu, hu);
            for (k, plane) in (0u32..).zip(&mut volume.geometry.planes) {
                plane.origin_mm[2] = thickness_mm * f64::from(k);
                plane.thickness_mm = thickness_mm;
            }
            // Two values that are as likely: as noise of that deviation, and the same each time.
            let mut state = 1u32;
            for value in volume
                .data
                .iter_mut()
                .filter(|value| (0.0..80.0).contains(*value))
            {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *value += if state >> 31 == 0 { deviation } else { -deviation };
            }
            volume
        };
        let refused = |volume: &Volume<f32>| codes(volume, Contrast::Without, false);
        for (hu, deviation, thickness_mm) in [
            (35.0, 0.0, 5.0),
            (35.0, 8.0, 5.0),
            (16.0, 3.0, 5.0),
            (35.0, 18.0, 1.0),
        ] {
            let found = refused(&noisy(hu, deviation, thickness_mm));
            let head_alone: Vec<String> = found.into_iter().filter(|code| code != "not_head").collect();
            assert!(
                head_alone.is_empty(),
                "{hu} {deviation} {thickness_mm}: {head_alone:?}"
            );
        }
        for (deviation, thickness_mm) in [(14.0, 5.0), (34.0, 5.0), (34.0, 1.0)] {
            let found = refused(&noisy(35.0, deviation, thickness_mm));
            assert!(
                found.contains(&"out_of_distribution".to_owned()),
                "{deviation} {thickness_mm}: {found:?}"
            );
        }
        assert_eq!(refused(&noisy(60.0, 3.0, 5.0)), ["out_of_distribution"]);
        assert_eq!(refused(&noisy(6.0, 3.0, 5.0)), ["out_of_distribution"]);
        let open = Trigger {
            brain_hu: None,
            noise_hu: None,
            ..trigger(Contrast::Without)
        };
        check(&noisy(60.0, 14.0, 5.0), &open, false).unwrap();
    }

    #[test]
    fn a_shunt_a_calcified_falx_and_a_calcified_plexus_are_not_contrast_agent() {
        let plain = |volume: &Volume<f32>| codes(volume, Contrast::Without, false).is_empty();
        assert!(plain(&with_vessels(1, 250.0)), "one spot in every slice");
        assert!(plain(&with_vessels(3, 420.0)), "cores of calcium");
        assert!(plain(&head(80.0, 35.0, 220.0)), "broader than vessels");
        let (mut calcified, enhanced) = (head(80.0, 35.0, 35.0), with_vessels(3, 220.0));
        let plane = calcified.geometry.slice_len();
        calcified.data[5 * plane..6 * plane].copy_from_slice(&enhanced.data[5 * plane..6 * plane]);
        assert!(plain(&calcified), "in one slice only");
    }
}
