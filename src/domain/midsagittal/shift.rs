//! How far the middle of the brain is pushed aside: an image and its midsagittal plane → the distance of the septum pellucidum from that plane in mm, and how sure that is.
//!
//! A pushed brain pulls along the plane that was found by the whole head.
//! So plane and push are fitted once more, together: bone stays where it is, the brain is pushed by a bell about its middle, and both are moved until the image agrees best with its mirror image.
//! From that plane it is asked where the septum lies: at which distance the tissue about it agrees best with its own mirror image.
//! What is as dense as fresh blood has no say there, for a haematoma has a middle of its own.
//!
//! Source: the deformed midline as what the two sides are symmetric about: C.-C. Liao et al., "Automatic recognition of midline shift on brain CT images", Computers in Biology and Medicine 40(3), 2010.

use super::{
    super::{
        geometry::{Vec3, add, cross, dot, norm, scale, sub},
        volume::Volume,
    },
    FINE, MidsagittalPlane,
    level::{Level, TOLERANCE, better, tone},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Width of the bell by which a brain is pushed (standard deviation), mm.
const BELL_MM: f64 = 45.0;
/// Pushes from which the fit starts, mm: one side's basin may hide the other's.
const STARTS_MM: [f64; 3] = [0.0, -6.0, 6.0];
/// First steps of yaw, roll, offset and push, radians and mm.
const FIRST_STEPS: [f64; 4] = [0.02, 0.02, 1.0, 2.0];
/// Widths of step, each half of the one before.
const WIDTHS: i32 = 4;
/// Moves with one width of step.
const MOVES: usize = 12;

/// Where the septum lies, from the centre of the upper cavity: to the back and up, mm; lowest and highest.
const BACK_MM: [f64; 2] = [-26.0, 2.0];
/// See [`BACK_MM`].
const UP_MM: [f64; 2] = [-24.0, 6.0];
/// Lines through it are so far apart, mm.
const LINES_MM: f64 = 2.0;
/// Distances from the plane that are tried, mm.
const REACH_MM: usize = 15;
/// Trials a mm; a fifth is what one decimal can say.
const STEPS: usize = 5;
/// So far on both sides tissue is compared, mm; what is nearer counts more.
const BESIDE_MM: usize = 35;
/// How fast it counts less (standard deviation), mm.
const NEAR_MM: f64 = 25.0;
/// Tissue from here on has no say, HU.
const DENSE_HU: f32 = 50.0;
/// With less than this share of the tissue a distance is not tried.
const LEAST_KNOWN: f64 = 0.4;
/// How much agreement a distance loses that is this far from the fitted push, mm.
const FROM_PUSH: (f64, f64) = (4.0, 0.02);
/// Distances that agree so nearly as well as the best are as likely.
const AS_LIKELY: f64 = 0.02;
/// When those are farther apart, mm, or agree less than that above the usual, nothing is said.
const WIDEST_MM: f64 = 5.0;
/// See [`WIDEST_MM`].
const LEAST_RISE: f64 = 0.07;
/// Nor is anything said when the lower or the upper half of the lines, or the fitted push, says nothing or something else by more than this, mm.
const APART_MM: f64 = 4.0;
/// Or when the fitted plane has left the first one by more than this, mm and as the sine of an angle.
const MOVED: (f64, f64) = (10.0, 0.17);
/// What the interval has beyond these distances on both sides, mm: chosen on phantoms, of which 95 in 100 lie within it then.
const MARGIN_MM: f64 = 1.4;
/// A stack whose uppermost slice has more than this share of the largest slice's cavity does not show the vertex, which says where the septum is.
const OPEN_TOP: f64 = 0.3;
/// So far below the vertex the stack must reach, mm, for the same reason.
const LEAST_HEIGHT_MM: f64 = 80.0;

/// How far the septum pellucidum lies from the midsagittal plane, by at most 15 mm; the phantoms on which it was judged have up to 6 mm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MidlineShift {
    /// Towards the patient's left, mm; negative towards the right.
    pub left_mm: f64,
    /// Lowest and highest value that is about as likely, mm.
    pub interval_mm: [f64; 2],
}

impl std::fmt::Display for MidlineShift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sided = |mm: f64| match mm {
            mm if mm.abs() < 0.05 => "0.0 mm".to_owned(),
            mm if mm > 0.0 => format!("{mm:.1} mm left"),
            mm => format!("{:.1} mm right", -mm),
        };
        let [low, high] = self.interval_mm;
        // The end that lies nearer to the middle first.
        let (from, to) = if self.left_mm < 0.0 {
            (high, low)
        } else {
            (low, high)
        };
        write!(f, "{} ({} to {})", sided(self.left_mm), sided(from), sided(to))
    }
}

impl MidsagittalPlane {
    /// The midline shift of a head whose plane this is about, from its image, about where its brain is and what its skull encloses.
    ///
    /// `None` where the stack does not show where the septum is, where nothing about it is symmetric, and where it lies farther away than is looked.
    #[must_use]
    pub fn midline_shift(
        &self,
        brain: &Volume<bool>,
        cavity: &Volume<bool>,
        hu: &Volume<f32>,
    ) -> Option<MidlineShift> {
        let centre = centre_below_the_vertex(cavity)?;
        let centre = sub(centre, scale(self.normal, self.left_of_mm(centre)));
        let level = Level::new(hu, centre, FINE);
        let (plane, push) = self.fitted(&level, brain);
        let turned = norm(cross(self.normal, plane.normal));
        if plane.left_of_mm(centre).abs() > MOVED.0 || turned > MOVED.1 {
            return None;
        }
        let centre = sub(centre, scale(plane.normal, plane.left_of_mm(centre)));
        Lines::new(&level, &plane, centre).middle(push)
    }

    /// The plane of the skull, and how far what is in its middle is pushed from it.
    fn fitted(&self, level: &Level, brain: &Volume<bool>) -> (Self, f64) {
        let held = Held::new(brain);
        let bell: Vec<f64> = level
            .points()
            .iter()
            .map(|(p, _)| {
                let from = sub(*p, level.center_mm);
                let along = dot(from, self.normal);
                let in_plane = dot(from, from) - along * along;
                if held.at(*p) {
                    (-in_plane / (2.0 * BELL_MM * BELL_MM)).exp()
                } else {
                    0.0
                }
            })
            .collect();
        let [x, y, z] = self.normal;
        let start = |push| [y.atan2(x), z.asin(), 0.0, push];
        let agreement = |[yaw, roll, shift, push]: [f64; 4]| {
            let plane = Self::at(level.center_mm, [yaw, roll, shift]);
            level.agreement_of(|i, p| add(plane.mirror(p), scale(plane.normal, 2.0 * push * bell[i])))
        };
        let found = STARTS_MM
            .into_par_iter()
            .map(|push| {
                let start = start(push);
                downhill(&agreement, (agreement(start), start))
            })
            .collect::<Vec<_>>()
            .into_iter()
            .reduce(better)
            .map_or(start(0.0), |found| found.1);
        let [yaw, roll, shift, push] = found;
        (Self::at(level.center_mm, [yaw, roll, shift]), push)
    }
}

/// Moves one number at a time while that agrees better, with steps that become smaller.
fn downhill(agreement: &impl Fn([f64; 4]) -> f64, start: (f64, [f64; 4])) -> (f64, [f64; 4]) {
    (0..WIDTHS).fold(start, |mut best, halvings| {
        for _ in 0..MOVES {
            let before = best.0;
            for axis in 0..4 {
                for sign in [-1.0, 1.0] {
                    let mut next = best.1;
                    next[axis] += sign * FIRST_STEPS[axis] * 0.5f64.powi(halvings);
                    best = better(best, (agreement(next), next));
                }
            }
            if best.0 <= before {
                break;
            }
        }
        best
    })
}

/// Where the brain is, to be asked for a point.
struct Held<'a> {
    brain: &'a Volume<bool>,
    normal: Vec3,
    positions_mm: Vec<f64>,
}

impl<'a> Held<'a> {
    fn new(brain: &'a Volume<bool>) -> Self {
        Self {
            brain,
            normal: brain.geometry.normal(),
            positions_mm: brain.geometry.positions_mm(),
        }
    }

    /// Whether the nearest voxel is brain.
    fn at(&self, p: Vec3) -> bool {
        let geometry = &self.brain.geometry;
        let height = dot(p, self.normal);
        let above = self.positions_mm.partition_point(|z| *z < height);
        let off = |slice: usize| (self.positions_mm[slice] - height).abs();
        let near = [above.checked_sub(1), Some(above)];
        let slices = near.into_iter().flatten().filter(|s| *s < geometry.slices());
        let Some(slice) = slices.min_by(|a, b| off(*a).total_cmp(&off(*b))) else {
            return false;
        };
        let (row, column, _) = geometry.lps_to_voxel(slice, p);
        let inside = |at: f64, count: usize| (-0.5..count as f64 - 0.5).contains(&at);
        if off(slice) > geometry.slice_extent_mm(slice)
            || !inside(row, geometry.rows)
            || !inside(column, geometry.columns)
        {
            return false;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the image"
        )]
        let voxel = row.round().max(0.0) as usize * geometry.columns + column.round().max(0.0) as usize;
        self.brain.slice(slice)[voxel]
    }
}

/// Tones along lines across the plane, through where the septum is.
struct Lines {
    /// Line by line, from the patient's right to the left; not a number where nothing is known or the tissue is dense.
    tones: Vec<f32>,
    /// Tones of a line.
    length: usize,
    /// How much what lies so far from a place counts, mm by mm from 1 on.
    weights: Vec<f64>,
}

/// Steps from the middle of a line to its end.
const HALF: usize = (REACH_MM + BESIDE_MM) * STEPS;
/// Steps from the plane that are tried.
const TRIED: usize = REACH_MM * STEPS;

impl Lines {
    fn new(level: &Level, plane: &MidsagittalPlane, centre_mm: Vec3) -> Self {
        let left = plane.normal;
        let level_back = sub([0.0, 1.0, 0.0], scale(left, left[1]));
        let back = scale(level_back, 1.0 / norm(level_back));
        let up = cross(left, back);
        let dense = tone(DENSE_HU);
        let length = 2 * HALF + 1;
        let steps = |[low, high]: [f64; 2]| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a dozen")]
            let count = ((high - low) / LINES_MM) as usize;
            (0..=count).map(move |i| low + LINES_MM * i as f64)
        };
        let mut tones = Vec::new();
        for height in steps(UP_MM) {
            for depth in steps(BACK_MM) {
                let middle = add(centre_mm, add(scale(up, height), scale(back, depth)));
                tones.extend((0..length).map(|i| {
                    let along = (i as f64 - HALF as f64) / STEPS as f64;
                    let tone = level.between(add(middle, scale(left, along)));
                    if tone > dense { f32::NAN } else { tone }
                }));
            }
        }
        let weight = |mm: f64| (-mm * mm / (2.0 * NEAR_MM * NEAR_MM)).exp();
        Self {
            tones,
            length,
            weights: (1..=BESIDE_MM).map(|mm| weight(mm as f64)).collect(),
        }
    }

    /// How well the two sides agree at each distance that is tried, in mm, along some of the lines; without those at which too little is known.
    fn agreements(&self, tones: &[f32]) -> Vec<(f64, f64)> {
        (0..=2 * TRIED)
            .into_par_iter()
            .filter_map(|i| {
                Some((
                    (i as f64 - TRIED as f64) / STEPS as f64,
                    self.agreement(tones, i)?,
                ))
            })
            .collect()
    }

    /// How well the two sides of a place agree, so many steps from the right end of what is tried; nothing where too little is known.
    fn agreement(&self, tones: &[f32], tried: usize) -> Option<f64> {
        let middle = HALF - TRIED + tried;
        let (mut sum, mut known, mut all) = (0.0, 0.0, 0.0);
        for line in tones.chunks_exact(self.length) {
            for (mm, weight) in (1..).zip(&self.weights) {
                let k = mm * STEPS;
                all += weight;
                let off = (line[middle + k] - line[middle - k]) / TOLERANCE;
                if !off.is_nan() {
                    known += weight;
                    sum += weight * f64::from((1.0 + off * off).powi(-2));
                }
            }
        }
        (known > LEAST_KNOWN * all).then(|| sum / known)
    }

    /// Where the two sides agree best, near a push.
    fn middle(&self, push_mm: f64) -> Option<MidlineShift> {
        let tried = self.agreements(&self.tones);
        let likely = |(mm, agreement): &(f64, f64)| {
            let (width, loss) = FROM_PUSH;
            agreement - loss * ((mm - push_mm) / width).powi(2)
        };
        let best_of = |tried: &[(f64, f64)]| {
            let best = tried.iter().max_by(|a, b| likely(a).total_cmp(&likely(b)));
            best.copied()
        };
        let best = best_of(&tried)?;
        let (lower, upper) = self
            .tones
            .split_at(self.tones.len() / self.length / 2 * self.length);
        let others = [
            best_of(&self.agreements(lower))?.0,
            best_of(&self.agreements(upper))?.0,
            push_mm,
        ];
        if others.iter().any(|mm| (mm - best.0).abs() > APART_MM) {
            return None;
        }
        let mut sorted: Vec<f64> = tried.iter().map(|t| t.1).collect();
        sorted.sort_by(f64::total_cmp);
        let usual = sorted[sorted.len() / 2];
        let as_likely = || tried.iter().filter(|t| likely(t) >= likely(&best) - AS_LIKELY);
        let low = as_likely().map(|t| t.0).fold(f64::INFINITY, f64::min);
        let high = as_likely().map(|t| t.0).fold(f64::NEG_INFINITY, f64::max);
        let at_the_end = best.0.abs() >= REACH_MM as f64 - 0.5;
        // What one decimal says, without the crumbs of binary fractions.
        let tenths = |mm: f64| (10.0 * mm).round() / 10.0;
        (high - low <= WIDEST_MM && best.1 - usual >= LEAST_RISE && !at_the_end).then_some(MidlineShift {
            left_mm: tenths(best.0),
            interval_mm: [tenths(low - MARGIN_MM), tenths(high + MARGIN_MM)],
        })
    }
}

/// The centre of the upper cavity; `None` when the stack does not show it from its top down to the skull base.
fn centre_below_the_vertex(cavity: &Volume<bool>) -> Option<Vec3> {
    let geometry = &cavity.geometry;
    let areas: Vec<usize> = (0..geometry.slices())
        .map(|s| cavity.slice(s).iter().filter(|b| **b).count())
        .collect();
    let height = |slice: usize| {
        geometry.voxel_to_lps(slice, geometry.rows as f64 / 2.0, geometry.columns as f64 / 2.0)[2]
    };
    let last = geometry.slices().checked_sub(1)?;
    let (uppermost, lowest) = if height(last) > height(0) {
        (last, 0)
    } else {
        (0, last)
    };
    let largest = *areas.iter().max()?;
    let top = (0..=last)
        .filter(|s| areas[*s] > 0)
        .map(height)
        .reduce(f64::max)?;
    let is_open = areas[uppermost] as f64 > OPEN_TOP * largest as f64;
    if is_open || top - height(lowest) < LEAST_HEIGHT_MM {
        return None;
    }
    cavity.upper_centre_mm()
}
