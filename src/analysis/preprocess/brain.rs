//! Where the brain is: the soft tissue that the skull encloses.
//!
//! Used for the frames of the maps, the midsagittal plane, and to leave out what lies outside the head's cavity (chewing muscles are as dense as blood).
//! Slice by slice on the network's grid: what cannot be reached from outside without crossing bone, opened to cut thin bridges; of the whole stack the largest connected part stays.
//! Where the skull is open (skull base, thin bone, craniectomy) the slice may have no brain: the mask is a help, not a segmentation.
//! The cavity must not have such holes, for what lies outside it is left out: there the outline of the nearest closed slice stands for it.

use super::AIR_HU;
use crate::domain::{trace::SpatialTrace, volume::Volume};
use rayon::prelude::*;

/// Bone from here on, HU, on a grid of about 1 mm.
const BONE_HU: f32 = 160.0;
/// Brain, blood and fluid lie between these, HU.
const SOFT_HU: [f32; 2] = [-20.0, 120.0];
/// Bone is thickened by this many network voxels, which closes sutures and thin plates.
const CLOSE: usize = 2;
/// Bridges thinner than twice this many voxels are cut.
const OPEN: usize = 3;

/// The cavity reaches this many network voxels beyond the brain: blood along the inner table belongs to it.
const CAVITY: usize = 4;
/// With less brain than this the skull is open or not there, and nothing is left out, mL.
const LEAST_BRAIN_ML: f64 = 400.0;

/// A slice with less than this share of the brain of a closed slice beside it has an open skull.
const OPEN_SHARE: f64 = 0.2;
/// That is said beside slices with so much brain, network voxels: towards the vertex the brain ends by itself.
const CLOSED_VOXELS: usize = 6000;
/// So far from a closed slice its outline stands for the cavity, mm: the height of the skull base with the posterior fossa.
const BASE_MM: f64 = 60.0;

/// What the skull encloses, on the source grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Intracranial {
    /// Brain, blood and fluid.
    pub brain: Volume<bool>,
    /// The brain and its surroundings up to the inner table; everything when too little brain was recognised.
    pub cavity: Volume<bool>,
}

/// Where the brain is, and what lies outside the cavity for sure.
#[must_use]
pub fn intracranial(ct: &Volume<f32>, trace: &SpatialTrace) -> Intracranial {
    within(&trace.apply_all(&ct.data, AIR_HU), ct, trace)
}

/// The same of the slices on the network's grid, where they are there already.
pub(super) fn within(images: &[Vec<f32>], ct: &Volume<f32>, trace: &SpatialTrace) -> Intracranial {
    let shape = trace.shape();
    let cores: Vec<Vec<bool>> = images
        .par_iter()
        .map(|image| {
            let inside = enclosed(image, shape);
            let other: Vec<bool> = image
                .iter()
                .zip(&inside)
                .map(|(hu, inside)| !(*inside && (SOFT_HU[0]..SOFT_HU[1]).contains(hu)))
                .collect();
            dilate(&other, shape, OPEN).iter().map(|o| !o).collect()
        })
        .collect();
    let kept = largest_part(&cores, shape);
    let brain = place(&kept, OPEN, ct, trace);
    let ml: f64 = (0..ct.geometry.slices())
        .map(|s| brain.slice(s).iter().filter(|b| **b).count() as f64 * ct.geometry.voxel_volume_ml(s))
        .sum();
    let cavity = if ml >= LEAST_BRAIN_ML {
        place(&bridged(&kept, ct, trace), OPEN + CAVITY, ct, trace)
    } else {
        Volume::everywhere(&ct.geometry)
    };
    Intracranial { brain, cavity }
}

/// The masks with the outline of the nearest closed slice where the skull is open, going out from the largest.
fn bridged(kept: &[Vec<bool>], ct: &Volume<f32>, trace: &SpatialTrace) -> Vec<Vec<bool>> {
    let voxels: Vec<usize> = kept
        .iter()
        .map(|mask| mask.iter().filter(|inside| **inside).count())
        .collect();
    let largest = (0..kept.len()).max_by_key(|i| voxels[*i]).unwrap_or(0);
    let positions_mm = ct.geometry.positions_mm();
    let place_mm = |i: usize| positions_mm[trace.slices[i]];
    let mut out = kept.to_vec();
    let mut walk = |order: &mut dyn Iterator<Item = usize>| {
        let mut closed = largest;
        for i in order {
            let is_open =
                voxels[closed] >= CLOSED_VOXELS && (voxels[i] as f64) < OPEN_SHARE * voxels[closed] as f64;
            if !is_open {
                closed = i;
            } else if (place_mm(i) - place_mm(closed)).abs() <= BASE_MM {
                for (inside, outline) in out[i].iter_mut().zip(&kept[closed]) {
                    *inside |= outline;
                }
            }
        }
    };
    walk(&mut (largest..kept.len()));
    walk(&mut (0..largest).rev());
    out
}

/// Masks of network slices, grown by `reach` voxels, on the source grid.
fn place(masks: &[Vec<bool>], reach: usize, ct: &Volume<f32>, trace: &SpatialTrace) -> Volume<bool> {
    let mut data = vec![false; ct.geometry.len()];
    let len = ct.geometry.slice_len();
    let placed: Vec<Vec<bool>> = masks
        .par_iter()
        .map(|mask| {
            let grown: Vec<f32> = dilate(mask, trace.shape(), reach)
                .iter()
                .map(|b| f32::from(u8::from(*b)))
                .collect();
            trace.invert(&grown, 0.0).iter().map(|v| *v >= 0.5).collect()
        })
        .collect();
    for (mask, slice) in placed.iter().zip(&trace.slices) {
        data[slice * len..(slice + 1) * len].copy_from_slice(mask);
    }
    Volume {
        geometry: ct.geometry.clone(),
        data,
    }
}

/// Pixels that cannot be reached from the border without crossing (thickened) bone.
fn enclosed(image: &[f32], [rows, columns]: [usize; 2]) -> Vec<bool> {
    let wall = dilate(
        &image.iter().map(|hu| *hu > BONE_HU).collect::<Vec<_>>(),
        [rows, columns],
        CLOSE,
    );
    let mut outside = vec![false; image.len()];
    let mut todo: Vec<usize> = (0..image.len())
        .filter(|i| {
            let (r, c) = (i / columns, i % columns);
            (r == 0 || c == 0 || r + 1 == rows || c + 1 == columns) && !wall[*i]
        })
        .collect();
    for i in &todo {
        outside[*i] = true;
    }
    while let Some(i) = todo.pop() {
        let (r, c) = (i / columns, i % columns);
        let visit = |j: usize| {
            if !outside[j] && !wall[j] {
                outside[j] = true;
                todo.push(j);
            }
        };
        beside(i, [r, c], [rows, columns]).for_each(visit);
    }
    outside.iter().map(|o| !o).collect()
}

/// The indices beside index `i`, which lies at row and column `at` of its slice.
fn beside(i: usize, [r, c]: [usize; 2], [rows, columns]: [usize; 2]) -> impl Iterator<Item = usize> {
    let (up, down) = ((r > 0).then(|| i - columns), (r + 1 < rows).then(|| i + columns));
    let (left, right) = ((c > 0).then(|| i - 1), (c + 1 < columns).then(|| i + 1));
    [up, down, left, right].into_iter().flatten()
}

/// Dilation by a square of (2 reach + 1)², one axis after the other.
fn dilate(mask: &[bool], [rows, columns]: [usize; 2], reach: usize) -> Vec<bool> {
    let mut wide = vec![false; mask.len()];
    for r in 0..rows {
        for c in (0..columns).filter(|c| mask[r * columns + c]) {
            let (from, to) = (c.saturating_sub(reach), (c + reach).min(columns - 1));
            wide[r * columns + from..=r * columns + to].fill(true);
        }
    }
    let mut out = wide.clone();
    for r in 0..rows {
        for other in r.saturating_sub(reach)..=(r + reach).min(rows - 1) {
            for c in 0..columns {
                out[r * columns + c] |= wide[other * columns + c];
            }
        }
    }
    out
}

/// Of a stack of masks, the largest part connected through faces.
fn largest_part(masks: &[Vec<bool>], [rows, columns]: [usize; 2]) -> Vec<Vec<bool>> {
    let len = rows * columns;
    let mut part = vec![0u32; masks.len() * len];
    let total = part.len();
    let (mut best, mut best_size, mut next) = (0, 0, 0);
    let mut todo = Vec::new();
    for start in 0..total {
        if part[start] != 0 || !masks[start / len][start % len] {
            continue;
        }
        next += 1;
        let mut size = 0usize;
        part[start] = next;
        todo.push(start);
        while let Some(i) = todo.pop() {
            size += 1;
            let (r, c) = (i % len / columns, i % columns);
            let mut visit = |j: usize| {
                if part[j] == 0 && masks[j / len][j % len] {
                    part[j] = next;
                    todo.push(j);
                }
            };
            beside(i, [r, c], [rows, columns]).for_each(&mut visit);
            if i >= len {
                visit(i - len);
            }
            if i + len < total {
                visit(i + len);
            }
        }
        if size > best_size {
            (best, best_size) = (next, size);
        }
    }
    part.chunks_exact(len.max(1))
        .map(|slice| slice.iter().map(|p| best != 0 && *p == best).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_tissue_outside_the_skull_is_not_brain() {
        let shape = [40, 40];
        let image: Vec<f32> = (0..1600)
            .map(|i| {
                let (r, c) = ((i / 40) as f32 - 20.0, (i % 40) as f32 - 20.0);
                match r.hypot(c) {
                    d if d < 12.0 => 35.0,
                    d if d < 15.0 => 900.0,
                    d if d < 18.0 => 40.0,
                    _ => -1000.0,
                }
            })
            .collect();
        let inside = enclosed(&image, shape);
        assert!(inside[20 * 40 + 20] && !inside[20 * 40 + 3] && !inside[0]);
    }

    #[test]
    fn only_the_largest_part_stays() {
        let mut a = vec![false; 25];
        a[0] = true;
        a[12] = true;
        let mut b = vec![false; 25];
        b[12] = true;
        let kept = largest_part(&[a, b], [5, 5]);
        assert!(!kept[0][0] && kept[0][12] && kept[1][12]);
    }
}
