//! A head and a geometry → voxels: each averages samples over its slice's thickness and its pixel.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "millimetres and pixel indices fit f32 with micrometres to spare"
)]

use super::anatomy::stream;
use super::noise::{Draw, Point};
use super::{Class, HEAD_CENTER_MM, Head, Lesion, Rendered};
use crate::domain::finding::Side;
use crate::domain::geometry::{Vec3, add, scale, sub};
use crate::domain::midsagittal::MidsagittalPlane;
use crate::domain::volume::{Geometry, SlicePlane, Volume};
use rayon::prelude::*;

/// Samples along the normal are at most this far apart, mm.
const SAMPLE_STEP_MM: f32 = 1.7;
/// Where the samples of a voxel lie in its pixel, in pixels: no two in line; the mean of the first 3, 5 and 7 is 0.
const JITTER: [[f32; 2]; 7] = [
    [-0.33, 0.17],
    [0.02, -0.36],
    [0.31, 0.19],
    [0.12, 0.40],
    [-0.12, -0.40],
    [0.40, -0.27],
    [-0.40, 0.27],
];
/// Points that are tried before a bleed counts as not met: of one of 1 mL a point in 4300 is met.
const TRIES: usize = 12_000;
/// A share of a bleed's volume on the smaller side from which it counts as bilateral.
const BILATERAL_SHARE: f64 = 0.25;
/// A bleed whose centre is this near to the midsagittal plane, and that has both sides, is on the midline.
const MIDLINE_MM: f64 = 4.0;

/// One slice before it is put into the volume.
struct Slice {
    hu: Vec<f32>,
    bleed: Vec<u8>,
    brain: Vec<bool>,
}

impl Head {
    /// Renders a stack, slices in parallel.
    ///
    /// The result depends on the head and the geometry only, not on the number of threads; noise depends on the slice's index in the stack.
    #[must_use]
    pub fn render(&self, geometry: &Geometry) -> Rendered {
        let slices: Vec<Slice> = (0..geometry.slices())
            .into_par_iter()
            .map(|slice| self.render_slice(geometry, slice, slice))
            .collect();
        let mut hu = Vec::with_capacity(geometry.len());
        let mut bleed = Vec::with_capacity(geometry.len());
        let mut brain = Vec::with_capacity(geometry.len());
        for slice in slices {
            hu.extend(slice.hu);
            bleed.extend(slice.bleed);
            brain.extend(slice.brain);
        }
        let lesions = self.lesions(geometry, &bleed);
        let kinds = self.anatomy.lesions();
        let classes = |bleed: u8| match usize::from(bleed).checked_sub(1) {
            Some(index) => kinds[index] as u8,
            None => 0,
        };
        let truth = bleed.into_iter().map(classes).collect();
        Rendered {
            hu: Volume {
                geometry: geometry.clone(),
                data: hu,
            },
            truth: Volume {
                geometry: geometry.clone(),
                data: truth,
            },
            brain: Volume {
                geometry: geometry.clone(),
                data: brain,
            },
            lesions,
        }
    }

    /// HU of a slice of a stack as the other half of the head shows it, mirrored at a plane; its noise is that of no slice of the stack.
    #[must_use]
    pub fn render_mirrored(&self, geometry: &Geometry, slice: usize, plane: &MidsagittalPlane) -> Vec<f32> {
        let own = geometry.planes[slice];
        let mirrored = Geometry {
            row_direction: plane.mirror_direction(geometry.row_direction),
            column_direction: plane.mirror_direction(geometry.column_direction),
            planes: vec![SlicePlane {
                origin_mm: plane.mirror(own.origin_mm),
                ..own
            }],
            ..geometry.clone()
        };
        self.render_slice(&mirrored, 0, geometry.slices() + slice).hu
    }

    /// A point of LPS within one of the lesions, or of those of one class, each as likely as the other; nothing when none is met.
    #[must_use]
    pub fn point_in_a_lesion(&self, class: Option<Class>, seed: u64) -> Option<Vec3> {
        let lesions: Vec<usize> = (1..)
            .zip(self.anatomy.lesions())
            .filter(|(_, lesion)| class.is_none_or(|class| class == *lesion))
            .map(|(at, _)| at)
            .collect();
        let mut draw = Draw::new(seed, stream::GEOMETRY + 101);
        let wanted = *lesions.get(draw.count(1, lesions.len().max(1)) - 1)?;
        let mut at = || [draw.around(82.0), draw.around(105.0), draw.within([-70.0, 100.0])];
        (0..TRIES)
            .map(|_| at())
            .find(|lps| {
                let p = self.anatomy.to_head(*lps);
                usize::from(self.anatomy.sample(p, self.anatomy.place(p)).bleed) == wanted
            })
            .map(|lps| add(HEAD_CENTER_MM, lps.map(f64::from)))
    }

    fn render_slice(&self, geometry: &Geometry, slice: usize, noise: usize) -> Slice {
        let (anatomy, scanner) = (&self.anatomy, &self.scanner);
        let spacing = geometry.pixel_spacing_mm.map(|s| s as f32);
        let thickness = geometry.planes[slice].thickness_mm as f32;
        // Odd, so that half a voxel of blood is never a tie.
        let count = ((thickness / SAMPLE_STEP_MM).ceil() as usize | 1).clamp(3, JITTER.len());
        let single = |v: Vec3| v.map(|x| x as f32);
        let along_row = single(scale(geometry.row_direction, geometry.pixel_spacing_mm[1]));
        let along_column = single(scale(geometry.column_direction, geometry.pixel_spacing_mm[0]));
        let normal = single(geometry.normal());
        let origin = single(sub(geometry.planes[slice].origin_mm, HEAD_CENTER_MM));
        // Offsets of the samples, in head coordinates.
        let offsets: Vec<Point> =
            (0..count)
                .map(|i| {
                    let share = (i as f32 + 0.5) / count as f32 - 0.5;
                    let moved = scanner.moved(share);
                    let (column, row) = (
                        JITTER[i][0] + moved[0] / spacing[1],
                        JITTER[i][1] + moved[1] / spacing[0],
                    );
                    anatomy.turn([0, 1, 2].map(|a| {
                        normal[a] * share * thickness + along_row[a] * column + along_column[a] * row
                    }))
                })
                .collect();
        let reach = 0.5 * thickness + 3.0;
        let len = geometry.slice_len();
        let mut out = Slice {
            hu: Vec::with_capacity(len),
            bleed: Vec::with_capacity(len),
            brain: Vec::with_capacity(len),
        };
        let mut weight = Vec::with_capacity(len);
        let metal = anatomy.metal();
        for row in 0..geometry.rows {
            for column in 0..geometry.columns {
                let (r, c) = (row as f32, column as f32);
                let lps = [0, 1, 2].map(|a| origin[a] + along_row[a] * c + along_column[a] * r);
                let centre = anatomy.to_head(lps);
                if anatomy.is_far(centre, reach) {
                    out.hu.push(scanner.around_head(lps));
                    out.bleed.push(0);
                    out.brain.push(false);
                    weight.push(0.6);
                    continue;
                }
                let (mut sum, mut cavity, mut blood, mut which, mut outside) = (0.0, 0, 0, 0, true);
                for offset in &offsets {
                    let p = [
                        centre[0] + offset[0],
                        centre[1] + offset[1],
                        centre[2] + offset[2],
                    ];
                    let sample = anatomy.sample(p, anatomy.place(p));
                    sum += sample.hu;
                    cavity += usize::from(sample.cavity);
                    outside &= sample.hu < -990.0;
                    if sample.bleed > 0 {
                        blood += 1;
                        which = sample.bleed;
                    }
                }
                let hu = if outside {
                    scanner.around_head(lps)
                } else {
                    sum / count as f32 + scanner.artefact(centre, metal) + anatomy.streak(centre)
                };
                out.hu.push(hu);
                out.bleed.push(if 2 * blood >= count { which } else { 0 });
                out.brain.push(2 * cavity >= count);
                weight.push(scanner.noise_weight(centre));
            }
        }
        scanner.finish(noise, geometry.columns, spacing, &mut out.hu, &weight);
        out
    }

    /// Volume, centre and side of each lesion that has voxels.
    fn lesions(&self, geometry: &Geometry, bleed: &[u8]) -> Vec<Lesion> {
        let kinds = self.anatomy.lesions();
        let bleeds = kinds.len();
        let mut volume = vec![0.0; bleeds];
        let mut moment = vec![[0.0; 3]; bleeds];
        // Millilitres on the patient's right and left of the head's own midsagittal plane, and the moment of x there.
        let mut sides = vec![[0.0; 2]; bleeds];
        let mut across = vec![0.0; bleeds];
        for slice in 0..geometry.slices() {
            let ml = geometry.voxel_volume_ml(slice);
            let start = slice * geometry.slice_len();
            for (at, &which) in bleed[start..start + geometry.slice_len()].iter().enumerate() {
                let Some(index) = usize::from(which).checked_sub(1) else {
                    continue;
                };
                let (row, column) = (at / geometry.columns, at % geometry.columns);
                let lps = geometry.voxel_to_lps(slice, row as f64, column as f64);
                let x = f64::from(self.anatomy.point(lps)[0]);
                volume[index] += ml;
                moment[index] = add(moment[index], scale(lps, ml));
                sides[index][usize::from(x > 0.0)] += ml;
                across[index] += x * ml;
            }
        }
        (0..bleeds)
            .filter(|&i| volume[i] > 0.0)
            .map(|i| {
                let [right, left] = sides[i];
                let both = right.min(left) >= BILATERAL_SHARE * volume[i];
                let side = match both {
                    true if (across[i] / volume[i]).abs() < MIDLINE_MM && volume[i] < 5.0 => Side::Midline,
                    true => Side::Bilateral,
                    false if left > right => Side::Left,
                    false => Side::Right,
                };
                Lesion {
                    class: kinds[i],
                    volume_ml: volume[i],
                    center_mm: scale(moment[i], 1.0 / volume[i]),
                    side,
                }
            })
            .collect()
    }
}
