//! The image about a brain in even voxels, and how well it agrees with its mirror image at a plane.

use super::MidsagittalPlane;
use crate::domain::{
    geometry::{Vec3, add, dot, norm, scale, sub},
    volume::Volume,
};
use rayon::prelude::*;

/// Moves downhill with one width of step: more than a basin needs.
const MOVES: usize = 12;
/// No plane is looked for beyond this yaw, roll and offset, radians and mm: across a large bleed one that lies quite otherwise may agree better.
const REACH: [f64; 3] = [0.5, 0.5, 30.0];
/// So far below the brain's centre the image is compared, mm: the skull base lies within it; jaw and neck, which turn by themselves, do not.
const BASE_MM: f64 = 95.0;
/// So far in the other directions, mm: short of the vault's poles.
const MIDDLE_MM: f64 = 70.0;
/// Tones change most about the density of brain, HU.
const BRAIN_HU: f32 = 30.0;
/// They saturate this far from it, HU: brain is told from CSF, and bone or air from brain weighs only a few times that.
const SOFT_HU: f32 = 25.0;
/// Half of an agreement is left at about two thirds of this difference of tones.
pub(super) const TOLERANCE: f32 = 0.3;
/// So much a point agrees whose mirror image lies outside the stack: about as much as by chance.
const CHANCE: f64 = 0.4;

/// A trial of yaw, roll and offset, and how well the image agrees with its mirror image there.
pub(super) type Scored = (f64, [f64; 3]);

/// The first of equals, so that the answer does not depend on threads.
pub(super) fn better<T>(best: (f64, T), next: (f64, T)) -> (f64, T) {
    if next.0 > best.0 { next } else { best }
}

/// How finely a level looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fineness {
    /// Width of a voxel, mm.
    pub(super) step_mm: f64,
    /// About so many points are compared with their mirror images at each trial.
    pub(super) points: usize,
    /// How much points count whose mirror images are not in the stack: 1 where planes far apart are compared, or the search would flee to where little is to be compared; 0 close to the plane, which they would turn along the slices.
    pub(super) unknown: f64,
}

/// The image about the brain's centre as tones, in even voxels along the patient's axes.
pub(super) struct Level {
    pub(super) center_mm: Vec3,
    /// The first voxel's centre.
    corner_mm: Vec3,
    step_mm: f64,
    /// Voxels along each axis.
    side: usize,
    /// x fastest; not a number outside the stack.
    tones: Vec<f32>,
    /// See [`Fineness::unknown`].
    unknown: f64,
    /// What is compared.
    points: Vec<(Vec3, f32)>,
}

impl Level {
    pub(super) fn new(hu: &Volume<f32>, center_mm: Vec3, fineness: Fineness) -> Self {
        let Fineness {
            step_mm,
            points: wanted,
            unknown,
        } = fineness;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few dozen"
        )]
        let half = (BASE_MM / step_mm).ceil() as usize;
        let side = 2 * half + 1;
        let corner_mm = sub(center_mm, [half as f64 * step_mm; 3]);
        let place = |v: usize| {
            let at = [v % side, v / side % side, v / (side * side)];
            add(corner_mm, at.map(|i| i as f64 * step_mm))
        };
        let stack = Stack::new(hu, step_mm);
        let tones: Vec<f32> = (0..side * side * side)
            .into_par_iter()
            .map(|v| stack.tone(place(v)))
            .collect();
        let mut points: Vec<(Vec3, f32)> = (0..).map(place).zip(tones.iter().copied()).collect();
        points.retain(|(p, tone)| {
            let from = sub(*p, center_mm);
            let far = norm(from);
            !tone.is_nan() && far < BASE_MM && (far < MIDDLE_MM || from[2] < -0.5 * far)
        });
        let every = (points.len() / wanted).max(1);
        Self {
            center_mm,
            corner_mm,
            step_mm,
            side,
            tones,
            unknown,
            points: points.into_iter().step_by(every).collect(),
        }
    }

    /// The trials on a grid about one.
    pub(super) fn around(&self, middle: [f64; 3], reach: [i32; 3], step: [f64; 3]) -> Vec<Scored> {
        let [yaws, rolls, shifts] = reach.map(|n| -n..=n);
        let mut trials = Vec::new();
        for yaw in yaws {
            for roll in rolls.clone() {
                for shift in shifts.clone() {
                    let by = [yaw, roll, shift].map(f64::from);
                    trials.push(std::array::from_fn(|axis| middle[axis] + by[axis] * step[axis]));
                }
            }
        }
        trials.retain(|trial: &[f64; 3]| trial.iter().zip(REACH).all(|(at, reach)| at.abs() < reach));
        trials.into_par_iter().map(|t| (self.agreement(t), t)).collect()
    }

    /// Moves to better trials nearby until there are none, with steps halved `widths` − 1 times.
    pub(super) fn downhill(&self, start: Scored, step: [f64; 3], widths: i32) -> Scored {
        (0..widths).fold(start, |mut best, halvings| {
            let step = step.map(|s| s * 0.5f64.powi(halvings));
            for _ in 0..MOVES {
                let before = best.0;
                best = self.around(best.1, [1; 3], step).into_iter().fold(best, better);
                if best.0 <= before {
                    break;
                }
            }
            best
        })
    }

    /// How well the points agree with their mirror images, 0 to 1.
    pub(super) fn agreement(&self, trial: [f64; 3]) -> f64 {
        let plane = MidsagittalPlane::at(self.center_mm, trial);
        self.agreement_of(|_, p| plane.mirror(p))
    }

    /// How well the points agree with where each is mapped to, 0 to 1.
    pub(super) fn agreement_of(&self, map: impl Fn(usize, Vec3) -> Vec3) -> f64 {
        let (mut sum, mut known) = (0.0, 0.0);
        for (i, (p, tone)) in self.points.iter().enumerate() {
            let off = (self.between(map(i, *p)) - tone) / TOLERANCE;
            if !off.is_nan() {
                sum += f64::from((1.0 + off * off).powi(-2));
                known += 1.0;
            }
        }
        let unknown = self.unknown * (self.points.len() as f64 - known);
        (sum + CHANCE * unknown) / (known + unknown).max(1.0)
    }

    /// What is compared with its mirror image: places and tones.
    pub(super) fn points(&self) -> &[(Vec3, f32)] {
        &self.points
    }

    /// The tone at a point, linearly between voxels.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within"
    )]
    pub(super) fn between(&self, p: Vec3) -> f32 {
        let at = sub(p, self.corner_mm).map(|mm| mm / self.step_mm);
        if at.iter().any(|i| *i < 0.0 || *i >= (self.side - 1) as f64) {
            return f32::NAN;
        }
        let [x, y, z] = at.map(|i| i as usize);
        let share = at.map(|i| i.fract() as f32);
        let (row, layer) = (self.side, self.side * self.side);
        let line = |v: usize| mix(self.tones[v], self.tones[v + 1], share[0]);
        let plane = |v: usize| mix(line(v), line(v + row), share[1]);
        let first = z * layer + y * row + x;
        mix(plane(first), plane(first + layer), share[2])
    }
}

/// A stack of slices, to be asked for the mean tone about a point.
struct Stack<'a> {
    hu: &'a Volume<f32>,
    normal: Vec3,
    positions_mm: Vec<f64>,
    /// A third of the cube to average over, mm.
    third_mm: f64,
}

impl<'a> Stack<'a> {
    fn new(hu: &'a Volume<f32>, step_mm: f64) -> Self {
        Self {
            hu,
            normal: hu.geometry.normal(),
            positions_mm: hu.geometry.positions_mm(),
            third_mm: step_mm / 3.0,
        }
    }

    /// The mean over a cube of 3³ points; not a number where the stack does not reach.
    fn tone(&self, p: Vec3) -> f32 {
        let heights = [-1.0, 0.0, 1.0].map(|k| add(p, scale(self.normal, k * self.third_mm)));
        heights.map(|q| self.layer(q)).iter().sum::<f32>() / 3.0
    }

    /// The mean over a square, linearly between the slices beside it.
    fn layer(&self, p: Vec3) -> f32 {
        let at = &self.positions_mm;
        let height = dot(p, self.normal);
        let above = at.partition_point(|z| *z < height);
        match (above.checked_sub(1), at.get(above)) {
            (Some(below), Some(upper)) => {
                #[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
                let share = ((height - at[below]) / (upper - at[below])) as f32;
                mix(self.square(below, p), self.square(above, p), share)
            }
            (Some(last), None) if height - at[last] <= self.half_mm(last) => self.square(last, p),
            (None, Some(first)) if first - height <= self.half_mm(0) => self.square(0, p),
            _ => f32::NAN,
        }
    }

    fn half_mm(&self, slice: usize) -> f64 {
        self.hu.geometry.slice_extent_mm(slice) / 2.0
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "cut to the image"
    )]
    fn square(&self, slice: usize, p: Vec3) -> f32 {
        let geometry = &self.hu.geometry;
        let (row, column, _) = geometry.lps_to_voxel(slice, p);
        let (last_row, last_column) = (geometry.rows as f64 - 1.0, geometry.columns as f64 - 1.0);
        if !(-0.5..=last_row + 0.5).contains(&row) || !(-0.5..=last_column + 0.5).contains(&column) {
            return f32::NAN;
        }
        let near = |centre: f64, spacing: f64, last: f64| {
            [-1.0, 0.0, 1.0].map(|k| (centre + k * self.third_mm / spacing).round().clamp(0.0, last) as usize)
        };
        let rows = near(row, geometry.pixel_spacing_mm[0], last_row);
        let columns = near(column, geometry.pixel_spacing_mm[1], last_column);
        let image = self.hu.slice(slice);
        let pixel = |r: usize, c: usize| tone(image[r * geometry.columns + c]);
        rows.iter()
            .flat_map(|r| columns.map(|c| pixel(*r, c)))
            .sum::<f32>()
            / 9.0
    }
}

/// HU from −1, air, over 0, brain, to 1, bone.
#[inline]
pub(super) fn tone(hu: f32) -> f32 {
    let x = (hu - BRAIN_HU) / SOFT_HU;
    x / (1.0 + x * x).sqrt()
}

#[inline]
fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}
