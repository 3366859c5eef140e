//! One head as a function of a point: head coordinates → HU, blood, and whether it is inside the cranial cavity.

use super::arteries::Vessels;
use super::base::Base;
use super::brain::{Brain, Space, Tissue};
use super::infarct::Infarct;
use super::lesion::{Bleed, Shift};
use super::noise::{Draw, Point};
use super::past::{Past, Stratum};
use super::range::Ranges;
use super::skull::{Place, Skull};
use super::vessels::{Content, Met};
use super::{Class, HEAD_CENTER_MM, Kind};
use crate::domain::{
    artery::Artery,
    aspects::Region,
    geometry::{Vec3, sub},
};

/// Where the septum pellucidum lies above the foramina of Monro: back and up in head coordinates, mm.
const SEPTUM: [f32; 2] = [-8.0, 14.0];

/// Streams of random numbers, one a purpose, so that a new draw in one leaves the others alone.
pub(super) mod stream {
    pub(in super::super) const SKULL: u64 = 1;
    pub(in super::super) const BRAIN: u64 = 2;
    pub(in super::super) const BASE: u64 = 3;
    pub(in super::super) const POSE: u64 = 4;
    pub(in super::super) const LESION: u64 = 5;
    pub(in super::super) const SCANNER: u64 = 6;
    pub(in super::super) const GEOMETRY: u64 = 7;
    pub(in super::super) const SERIES: u64 = 8;
    pub(in super::super) const PAST: u64 = 9;
    pub(in super::super) const VESSELS: u64 = 20;
    pub(in super::super) const CLOSURE: u64 = 21;
    /// Plus the slice's index.
    pub(in super::super) const PIXELS: u64 = 1000;
}

/// What one point of the head is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) hu: f32,
    /// Inside the cranial cavity.
    pub(super) cavity: bool,
    /// 0, or 1 + the index of the lesion.
    pub(super) bleed: u8,
}

/// Parameters of one head.
#[derive(Debug, Clone)]
pub(super) struct Anatomy {
    skull: Skull,
    brain: Brain,
    base: Base,
    past: Past,
    pub(super) bleeds: Vec<Bleed>,
    pub(super) vessels: Option<Vessels>,
    infarct: Option<Infarct>,
    shift: Option<Shift>,
    /// Brightening of what lies under bone, HU at the table.
    brightening: f32,
    /// The same under the vertex, where a slice is a small disc of brain in thick bone, HU.
    vertex: f32,
    /// How deep it reaches, mm.
    brightening_depth: f32,
    /// Rows: the head's axes in LPS.
    axes: [Point; 3],
    /// The head's origin in LPS, relative to the nominal one.
    shift_mm: Point,
}

impl Anatomy {
    pub(super) fn draw(seed: u64, kind: Kind, ranges: &Ranges) -> Self {
        let skull = Skull::draw(&mut Draw::new(seed, stream::SKULL), ranges);
        let mut brain = Brain::draw(&mut Draw::new(seed, stream::BRAIN), ranges, &skull);
        let base = Base::draw(&mut Draw::new(seed, stream::BASE));
        let past = Past::draw(&mut Draw::new(seed, stream::PAST), ranges, &skull);
        let mut lesion = Draw::new(seed, stream::LESION);
        let bleeds = match kind {
            Kind::Normal | Kind::Infarct | Kind::Open | Kind::Cta | Kind::Occlusion => Vec::new(),
            Kind::Haemorrhage => Bleed::draw_all(&mut lesion, ranges, &skull, &brain),
        };
        let shift = bleeds.iter().find_map(|bleed| bleed.shift(&mut lesion));
        // The caricature of arteries that plain heads have gives way to a drawn tree.
        let vessels = (!matches!(kind, Kind::Normal | Kind::Haemorrhage)).then(|| {
            let mut draws = [stream::VESSELS, stream::CLOSURE].map(|s| Draw::new(seed, s));
            Vessels::draw(&mut draws, kind, ranges, &skull)
        });
        let mut infarct = None;
        if let Some(vessels) = &vessels {
            brain.hold_vessels(vessels.sinus_hu, vessels.perfusion_hu);
            let mut draw = Draw::new(seed, stream::CLOSURE + 1);
            let cause = vessels.closure.as_ref().map(|c| (c.site, c.side));
            infarct = match kind {
                // A quarter has another cause than a large artery.
                Kind::Infarct => {
                    let cause = cause.filter(|_| draw.chance(0.75));
                    Some(Infarct::draw(&mut draw, cause))
                }
                Kind::Occlusion if draw.chance(0.6) => Some(Infarct::draw(&mut draw, cause)),
                _ => None,
            };
        }
        let mut pose = Draw::new(seed, stream::POSE);
        let limit = ranges.rotation_degrees;
        // Most heads lie nearly straight.
        let mut angle = || (pose.around(limit) * pose.within([0.2, 1.0])).to_radians();
        let axes = rotation(angle(), angle(), angle());
        let mut place = || pose.around(ranges.shift_mm);
        let shift_mm = [place(), place(), place()];
        Self {
            brightening: pose.within(ranges.brightening_hu),
            vertex: pose.within(ranges.vertex_hu),
            brightening_depth: pose.within([3.5, 9.0]),
            skull,
            brain,
            base,
            past,
            bleeds,
            vessels,
            infarct,
            shift,
            axes,
            shift_mm,
        }
    }

    /// The class of each lesion, in the order of [`Sample::bleed`].
    pub(super) fn lesions(&self) -> Vec<Class> {
        let bleeds = self.bleeds.iter().map(|bleed| bleed.class);
        let infarct = self.infarct.iter().map(|_| Class::Infarct);
        let closure = self.vessels.iter().filter_map(|v| v.closure.as_ref());
        bleeds
            .chain(infarct)
            .chain(closure.map(|_| Class::Thrombus))
            .collect()
    }

    /// A point in LPS, in head coordinates.
    #[expect(clippy::cast_possible_truncation, reason = "millimetres")]
    pub(super) fn point(&self, lps_mm: Vec3) -> Point {
        self.to_head(sub(lps_mm, HEAD_CENTER_MM).map(|v| v as f32))
    }

    /// What the vessels hold at a point in LPS: see [`super::Head::vessel_at`].
    pub(super) fn vessel_at(&self, lps_mm: Vec3) -> u8 {
        let p = self.point(lps_mm);
        match self.vessels.as_ref().and_then(|v| v.at(p)) {
            Some(Met::Lumen(_, Content::Artery)) => 1,
            Some(Met::Lumen(_, Content::Clot)) => 2,
            Some(Met::Lumen(_, Content::Vein)) => 3,
            _ => 0,
        }
    }

    /// The artery that contrast agent fills at a point in LPS.
    pub(super) fn artery_at(&self, lps_mm: Vec3) -> Option<Artery> {
        let p = self.point(lps_mm);
        self.vessels.as_ref()?.artery_at(p)
    }

    /// The ASPECTS region at a point in LPS.
    pub(super) fn aspects_at(&self, lps_mm: Vec3) -> Option<Region> {
        let p = self.point(lps_mm);
        let place = self.place(p);
        let inner = place.depth.min(place.above);
        (inner > 0.0).then(|| {
            self.brain
                .aspects(self.before_shift(p, inner), place, &self.skull)
        })?
    }

    /// What is at a point now was there before the brain was pushed aside.
    #[inline]
    fn before_shift(&self, p: Point, inner: f32) -> Point {
        self.shift
            .map_or(p, |shift| [p[0] - shift.at(p, inner), p[1], p[2]])
    }

    /// What the head has had, and what its brain shows.
    pub(super) fn strata(&self) -> Vec<Stratum> {
        self.brain.strata().chain(self.past.strata()).collect()
    }

    /// How far the septum pellucidum above the foramina of Monro is pushed to the left, mm.
    pub(super) fn midline_shift_mm(&self) -> f32 {
        let [back, up] = SEPTUM;
        self.shift.map_or(0.0, |shift| {
            // What was in the middle is where the push towards a point is as long as its way from the middle.
            (0..20).fold(0.0, |x, _| {
                let p = [x, back, up];
                let place = self.place(p);
                shift.at(p, place.depth.min(place.above))
            })
        })
    }

    /// Pushes the brain so many times as far, for tests of what is measured.
    #[cfg(test)]
    pub(super) fn push_harder(&mut self, times: f32) {
        if let Some(shift) = &mut self.shift {
            shift.by *= times;
        }
    }

    /// HU that streaks of metal within the head add at a point.
    #[inline]
    pub(super) fn streak(&self, p: Point) -> f32 {
        self.past.streak(p)
    }

    /// Whether teeth carry metal.
    pub(super) fn metal(&self) -> bool {
        self.base.metal()
    }

    /// A direction in LPS, in head coordinates.
    pub(super) fn turn(&self, v: Point) -> Point {
        self.axes
            .map(|axis| axis[0] * v[0] + axis[1] * v[1] + axis[2] * v[2])
    }

    /// A point in LPS relative to the nominal centre of heads, in head coordinates.
    pub(super) fn to_head(&self, p: Point) -> Point {
        self.turn([
            p[0] - self.shift_mm[0],
            p[1] - self.shift_mm[1],
            p[2] - self.shift_mm[2],
        ])
    }

    /// A point in head coordinates, in LPS relative to the nominal centre of heads.
    pub(super) fn to_lps(&self, p: Point) -> Point {
        std::array::from_fn(|a| {
            self.shift_mm[a] + (0..3).map(|axis| self.axes[axis][a] * p[axis]).sum::<f32>()
        })
    }

    /// The place of a point relative to the skull.
    #[inline]
    pub(super) fn place(&self, p: Point) -> Place {
        self.skull.place(p)
    }

    /// Whether nothing of the head is within `margin` mm of `p`.
    #[inline]
    pub(super) fn is_far(&self, p: Point, margin: f32) -> bool {
        if self
            .skull
            .is_outside_box(p, self.skull.reach(0.0) + margin + 18.0)
        {
            return true;
        }
        // The nose stands out of the outline.
        let nose = if p[1] < -70.0 && p[2] < 0.0 { 18.0 } else { 0.0 };
        self.skull.place_roughly(p).0 < -(self.skull.reach(p[2] - margin) + margin + nose)
    }

    /// 1 + the place of the infarct in [`Self::lesions`], or that of the clot without one.
    fn infarct_index(&self) -> u8 {
        u8::try_from(self.bleeds.len()).map_or(u8::MAX, |bleeds| bleeds + 1)
    }

    /// What is at `p`, whose place is `place`.
    #[inline]
    pub(super) fn sample(&self, p: Point, place: Place) -> Sample {
        let inner = place.depth.min(place.above);
        let met = self.vessels.as_ref().and_then(|vessels| vessels.at(p));
        if inner <= 0.0 {
            return Sample {
                hu: match met {
                    Some(Met::Lumen(hu, _)) => hu,
                    _ => self
                        .past
                        .vault(p, place, &self.skull, self.base.sample(p, place, &self.skull)),
                },
                cavity: false,
                bleed: 0,
            };
        }
        let q = self.before_shift(p, inner);
        let mut tissue: Tissue = self
            .past
            .within(q, place, self.brain.sample(q, place, &self.skull));
        if met == Some(Met::Cistern) && tissue.space == Space::Parenchyma {
            tissue = self.brain.cistern();
        }
        let mut sample = Sample {
            hu: tissue.hu,
            cavity: true,
            bleed: 0,
        };
        if let Some(infarct) = &self.infarct
            && let Some(changed) = infarct.at(p, tissue, self.brain.white())
        {
            tissue = changed;
            sample.hu = changed.hu;
            sample.bleed = self.infarct_index();
        }
        if let Some(Met::Lumen(hu, content)) = met {
            tissue.space = Space::Other;
            sample.hu = hu;
            sample.bleed = if content == Content::Clot {
                self.infarct_index() + u8::from(self.infarct.is_some())
            } else {
                0
            };
        }
        for (at, bleed) in (1u8..).zip(&self.bleeds) {
            if let Some((hu, blood)) = bleed.sample(p, place, tissue) {
                if blood {
                    sample.hu = hu;
                    sample.bleed = at;
                    break;
                }
                sample.hu = sample.hu.min(hu);
            }
        }
        if inner < 40.0 && tissue.space != Space::Other {
            sample.hu += self.brightening * (-inner / self.brightening_depth).exp();
        }
        let below = self.skull.below_vertex(p[2]);
        if below < 60.0 {
            // Falls to a third in 12 mm, as in the real study that the histograms were compared with.
            sample.hu += self.vertex * (-below.max(0.0) / 12.0).exp();
        }
        sample
    }
}

/// Rotation about x, y, z in turn, angles in radians; rows are the turned axes.
fn rotation(pitch: f32, roll: f32, yaw: f32) -> [Point; 3] {
    let ((sp, cp), (sr, cr), (sy, cy)) = (pitch.sin_cos(), roll.sin_cos(), yaw.sin_cos());
    [
        [cr * cy, cr * sy, -sr],
        [sp * sr * cy - cp * sy, sp * sr * sy + cp * cy, sp * cr],
        [cp * sr * cy + sp * sy, cp * sr * sy - sp * cy, cp * cr],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::phantom::Range;

    #[test]
    fn rotations_keep_lengths_and_handedness() {
        let [a, b, c] = rotation(0.2, -0.1, 0.25);
        let dot = |p: Point, q: Point| p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
        let cross = [
            a[1] * b[2] - a[2] * b[1],
            a[2] * b[0] - a[0] * b[2],
            a[0] * b[1] - a[1] * b[0],
        ];
        assert!((dot(a, a) - 1.0).abs() < 1e-5 && dot(a, b).abs() < 1e-5);
        assert!((dot(cross, c) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_normal_head_holds_no_blood_and_has_brain_bone_and_air_where_they_belong() {
        for seed in 0..20 {
            let head = Anatomy::draw(seed, Kind::Normal, Range::Training.table());
            let at = |p: Point| head.sample(p, head.place(p));
            let white = at([22.0, -20.0, 34.0]);
            assert!(
                white.cavity && white.bleed == 0 && (-10.0..80.0).contains(&white.hu),
                "{white:?}"
            );
            let air = at([0.0, 0.0, 130.0]);
            assert!(!air.cavity && air.hu < -900.0, "{air:?}");
            let bone = (0..200u8)
                .map(|i| at([0.0, 0.0, 60.0 + 0.2 * f32::from(i)]).hu)
                .fold(f32::MIN, f32::max);
            assert!(bone > 800.0, "{bone}");
        }
    }
}
