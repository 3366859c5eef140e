//! Haemorrhages: a point and its tissue → whether it is blood, and which bleed.
//!
//! Five kinds: in the brain (with a rim of oedema, sometimes a fluid level), in the ventricles (sinking to the back), under the dura (crescent), over the dura (lens), in the subarachnoid space.
//! [`Class`] numbers them. Chronic, iso- or hypodense collections are not drawn as bleeds (see the hygromas of `brain` and the collections of `past`).

use super::Class;
use super::brain::{Brain, Space, Tissue, dot, unit};
use super::noise::{Draw, Field, Point, ellipsoid, mix, sq, step};
use super::range::Ranges;
use super::skull::{Place, Skull};

/// Volume of a crescent of 1 mm thickness and an extent of 1: a cap of chord r on a table of about 75 mm, times the mean 4/5 of its profile.
const CRESCENT_MM2: f32 = 14_100.0;
/// The same for a lens, whose profile has the mean 1/2.
const LENS_MM2: f32 = 8_800.0;

/// One bleed.
#[derive(Debug, Clone)]
pub(super) struct Bleed {
    pub(super) class: Class,
    centre: Point,
    /// Rows: principal axes divided by their radii.
    axes: [Point; 3],
    /// Of the equivalent ball.
    radius: f32,
    hu: f32,
    ragged: f32,
    rim_mm: f32,
    rim_hu: f32,
    /// Plane of a fluid level, as y in head coordinates; paler in front of it.
    level: Option<f32>,
    /// HU by which unclotted swirls are paler.
    swirl: f32,
    /// Further balls that an intraparenchymal bleed holds: centre and radius.
    satellites: Vec<(Point, f32)>,
    /// Along the falx instead of the table.
    on_falx: bool,
    /// Crescents and lenses.
    direction: Point,
    extent: f32,
    thickness: f32,
    /// Ventricles: which side, −1, 1, or 0 for both.
    side: f32,
    noise: Field,
}

/// How much a bleed pushes the midline, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shift {
    pub(super) centre: Point,
    pub(super) by: f32,
}

impl Shift {
    /// How far what is at `p` has come along x, with that much brain between it and the skull, mm.
    #[inline]
    pub(super) fn at(&self, p: Point, inner: f32) -> f32 {
        let from = sq(p[0] - self.centre[0]) + sq(p[1] - self.centre[1]) + sq(p[2] - self.centre[2]);
        // Walls hold it.
        self.by * (1.0 / (1.0 + from / 3600.0) * (inner / 15.0).min(1.0))
    }
}

impl Bleed {
    /// Draws the bleeds of one head: one, two or three.
    pub(super) fn draw_all(draw: &mut Draw, ranges: &Ranges, skull: &Skull, brain: &Brain) -> Vec<Self> {
        let count = if draw.chance(0.62) { 1 } else { draw.count(2, 3) };
        let mut bleeds: Vec<Self> = (0..count)
            .map(|_| {
                let class = match draw.within([0.0, 1.0]) {
                    x if x < 0.38 => Class::Intraparenchymal,
                    x if x < 0.50 => Class::Intraventricular,
                    x if x < 0.72 => Class::Subdural,
                    x if x < 0.82 => Class::Epidural,
                    _ => Class::Subarachnoid,
                };
                Self::draw(class, draw, ranges, skull, brain)
            })
            .collect();
        // Large deep bleeds break into the ventricles; some subdural ones come on both sides.
        let first = &bleeds[0];
        let deep = first.centre[0].abs() < 30.0 && first.radius > 11.0;
        if first.class == Class::Intraparenchymal && deep && draw.chance(0.4) {
            bleeds.push(Self::draw(Class::Intraventricular, draw, ranges, skull, brain));
        } else if first.class == Class::Subdural && !first.on_falx && draw.chance(0.15) {
            let mut other = Self::draw(Class::Subdural, draw, ranges, skull, brain);
            other.on_falx = false;
            other.direction = first.direction;
            other.direction[0] = -other.direction[0];
            other.centre = skull.on_table(other.direction, 0.5 * other.thickness);
            bleeds.push(other);
        }
        bleeds
    }

    fn draw(class: Class, draw: &mut Draw, ranges: &Ranges, skull: &Skull, brain: &Brain) -> Self {
        let volume = 1000.0 * draw.within_log(ranges.lesion_ml);
        let side = draw.sign();
        let mut bleed = Self {
            class,
            centre: [0.0; 3],
            axes: [[0.0; 3]; 3],
            radius: (volume / 4.189).cbrt(),
            hu: draw.within(ranges.blood_hu),
            ragged: draw.within([0.05, 0.24]),
            rim_mm: draw.within([1.0, 9.0]),
            rim_hu: draw.within([4.0, 14.0]),
            level: None,
            swirl: if draw.chance(0.3) {
                draw.within([5.0, 22.0])
            } else {
                0.0
            },
            satellites: Vec::new(),
            on_falx: false,
            direction: [side, 0.0, 0.0],
            extent: 1.0,
            thickness: 5.0,
            side,
            noise: draw.field(),
        };
        match class {
            Class::Intraparenchymal => bleed.place_in_brain(draw, skull),
            Class::Intraventricular => {
                bleed.side = if draw.chance(0.45) { 0.0 } else { side };
                let mean = 0.5 * (brain.ventricle_scale(true) + brain.ventricle_scale(false));
                // From a little blood in the occipital horns to a cast.
                bleed.level = Some(if draw.chance(0.3) {
                    -60.0
                } else {
                    draw.within([12.0, 46.0])
                });
                bleed.radius = 20.0 * mean;
                bleed.centre = [12.0 * bleed.side, 25.0, 8.0];
            }
            Class::Subdural => {
                bleed.direction = unit([side, draw.within([-0.9, 0.9]), draw.within([0.0, 1.1])]);
                bleed.spread(
                    volume,
                    CRESCENT_MM2,
                    draw.within([1.8, 13.0]).max(0.15 * volume.cbrt()),
                    [0.25, 1.3],
                );
                bleed.centre = skull.on_table(bleed.direction, 0.5 * bleed.thickness);
                if draw.chance(0.2) {
                    bleed.on_falx = true;
                    bleed.thickness = draw.within([2.5, 8.0]);
                    bleed.extent = draw.within([18.0, 45.0]);
                    bleed.centre = [
                        0.5 * side * bleed.thickness,
                        [draw.within([-62.0, -40.0]), draw.within([45.0, 66.0])][draw.count(0, 1)],
                        draw.within([22.0, 50.0]),
                    ];
                }
            }
            Class::Epidural => {
                bleed.direction = unit([side, draw.around(1.2), draw.within([-0.3, 0.9])]);
                bleed.spread(volume, LENS_MM2, draw.within([7.0, 30.0]), [0.15, 0.6]);
                bleed.centre = skull.on_table(bleed.direction, 0.5 * bleed.thickness);
            }
            Class::Subarachnoid => {
                bleed.centre = match draw.count(0, 6) {
                    0 | 5 => [0.0, -2.0, skull.sella() + 5.0],
                    2 => [0.0, draw.within([-60.0, 60.0]), draw.within([20.0, 55.0])],
                    3 => [0.0, 14.0, -10.0],
                    1 => [
                        side * draw.within([30.0, 46.0]),
                        draw.within([-25.0, 5.0]),
                        draw.within([-8.0, 6.0]),
                    ],
                    _ => skull.on_table(unit([side, draw.around(1.0), draw.within([0.1, 1.2])]), 8.0),
                };
                // Some are diffuse.
                bleed.radius = if draw.chance(0.2) {
                    draw.within([34.0, 70.0])
                } else {
                    draw.within([10.0, 34.0])
                };
            }
            Class::Infarct | Class::Thrombus => {}
        }
        bleed
    }

    /// Chooses extent and thickness so that the volume is about `volume` mm³ and the thickness, where the extent allows, as wanted.
    fn spread(&mut self, volume: f32, area: f32, thickness: f32, extent: [f32; 2]) {
        self.extent = (volume / (area * thickness)).sqrt().clamp(extent[0], extent[1]);
        self.thickness = (volume / (area * sq(self.extent))).clamp(0.8, 40.0);
    }

    fn place_in_brain(&mut self, draw: &mut Draw, skull: &Skull) {
        let side = self.side;
        // Deep (putamen, thalamus), lobar, posterior fossa.
        self.centre = match draw.within([0.0, 1.0]) {
            x if x < 0.38 => [
                side * draw.within([12.0, 32.0]),
                draw.within([-18.0, 16.0]),
                draw.within([-8.0, 16.0]),
            ],
            x if x < 0.88 => {
                let out = unit([
                    side * draw.within([0.25, 1.0]),
                    draw.around(1.0),
                    draw.within([-0.2, 1.0]),
                ]);
                skull.on_table(out, (self.radius + 2.0).min(24.0) + draw.within([0.0, 14.0]))
            }
            _ => [
                side * draw.within([4.0, 32.0]),
                draw.within([26.0, 58.0]),
                draw.within([-42.0, -18.0]),
            ],
        };
        if draw.chance(0.35) {
            for _ in 0..draw.count(1, 3) {
                let reach = self.radius * draw.within([0.6, 1.4]);
                let out = unit([draw.around(1.0), draw.around(1.0), draw.within([0.1, 1.0])]);
                let centre = [0, 1, 2].map(|i| self.centre[i] + reach * out[i]);
                self.satellites
                    .push((centre, self.radius * draw.within([0.2, 0.6])));
            }
        }
        if draw.chance(0.12) {
            self.level = Some(self.centre[1] + draw.within([-0.3, 0.3]) * self.radius);
        }
        let stretch = [draw.within([0.65, 1.5]), draw.within([0.65, 1.5])];
        let radii = [stretch[0], stretch[1], 1.0 / (stretch[0] * stretch[1])].map(|s| s * self.radius);
        // Three axes at right angles by Gram–Schmidt.
        let first = unit([draw.around(1.0), draw.around(1.0), draw.within([0.1, 1.0])]);
        let other = unit([draw.within([0.2, 1.0]), draw.around(1.0), 0.0]);
        let along = dot(first, other);
        let second = unit([0, 1, 2].map(|i| other[i] - along * first[i]));
        let third = [
            first[1] * second[2] - first[2] * second[1],
            first[2] * second[0] - first[0] * second[2],
            first[0] * second[1] - first[1] * second[0],
        ];
        self.axes = [
            first.map(|v| v / radii[0]),
            second.map(|v| v / radii[1]),
            third.map(|v| v / radii[2]),
        ];
    }

    /// The midline shift this bleed causes, if it is large.
    pub(super) fn shift(&self, draw: &mut Draw) -> Option<Shift> {
        let push = draw.within([0.0, 0.35]);
        let size = match self.class {
            Class::Intraparenchymal => self.radius - 12.0,
            Class::Subdural | Class::Epidural if !self.on_falx => 1.2 * self.thickness - 4.0,
            _ => 0.0,
        };
        (size > 0.0).then(|| Shift {
            centre: self.centre,
            by: -self.centre[0].signum() * push * size.min(30.0),
        })
    }

    /// HU and whether it is blood, given what would be there without the bleed.
    #[inline]
    pub(super) fn sample(&self, p: Point, place: Place, tissue: Tissue) -> Option<(f32, bool)> {
        match self.class {
            Class::Intraparenchymal => self.in_brain(p, tissue),
            Class::Intraventricular => {
                if self.side * p[0] < 0.0 || !(-56.0..82.0).contains(&p[1]) || !(-40.0..46.0).contains(&p[2])
                {
                    return None;
                }
                let level = self.level.unwrap_or(20.0) + 3.0 * self.noise.at(p, 0.12);
                let low = p[1] > level && p[2] > -16.0;
                // The upper edge is soft: half of its width counts.
                (tissue.space == Space::Ventricle && low).then(|| {
                    let share = step(level, level + 3.0, p[1]);
                    (mix(tissue.hu, self.mottled(p), share), p[1] > level + 1.5)
                })
            }
            Class::Subdural if self.on_falx => {
                let x = self.side * p[0];
                if x < 0.0 || x > 1.6 * self.thickness || tissue.space == Space::Ventricle {
                    return None;
                }
                let from = (sq(p[1] - self.centre[1]) + sq(p[2] - self.centre[2])) / sq(self.extent);
                // The falx ends above the corpus callosum.
                let rim = sq((p[1] - 2.0) / 50.0) + sq((p[2] - 6.0) / 36.0);
                let edge =
                    self.thickness * (1.0 - sq(from)) * (1.0 + 0.5 * self.ragged * self.noise.at(p, 0.1));
                (from < 1.0 && rim > 1.0 && p[2] > 0.0 && x < edge).then(|| (self.mottled(p), true))
            }
            Class::Subdural | Class::Epidural => {
                if place.depth > self.thickness || place.above < 0.5 {
                    return None;
                }
                let cos = dot(place.direction, self.direction);
                let angle = (2.0 - 2.0 * cos).max(0.0) / sq(self.extent);
                if angle >= 1.0 {
                    return None;
                }
                let profile = if self.class == Class::Subdural {
                    1.0 - sq(sq(angle))
                } else {
                    1.0 - angle
                };
                let edge = self.thickness * profile * (1.0 + 0.5 * self.ragged * self.noise.at(p, 0.1));
                (place.depth < edge).then(|| (self.mottled(p), true))
            }
            Class::Subarachnoid => {
                if tissue.space != Space::Subarachnoid {
                    return None;
                }
                let from = sq(p[0] - self.centre[0]) + sq(p[1] - self.centre[1]) + sq(p[2] - self.centre[2]);
                let edge = (from.sqrt() / self.radius) + self.ragged * self.noise.at(p, 0.12);
                (edge < 1.0).then(|| (self.mottled(p), true))
            }
            // Not bleeds: `infarct` and `arteries` draw them.
            Class::Infarct | Class::Thrombus => None,
        }
    }

    #[inline]
    fn mottled(&self, p: Point) -> f32 {
        let mut hu = self.hu + 4.0 * self.noise.at(p, 0.3);
        if self.swirl > 0.0 {
            hu -= self.swirl * step(0.3, 1.2, self.noise.at(p, 0.11));
        }
        hu.max(34.0)
    }

    #[inline]
    fn in_brain(&self, p: Point, tissue: Tissue) -> Option<(f32, bool)> {
        let from = [
            p[0] - self.centre[0],
            p[1] - self.centre[1],
            p[2] - self.centre[2],
        ];
        let f = self
            .axes
            .iter()
            .map(|axis| sq(dot(*axis, from)))
            .sum::<f32>()
            .sqrt();
        let f = self.satellites.iter().fold(f, |f, (centre, radius)| {
            f.min(1.0 + (ellipsoid(p, *centre, [*radius; 3]).sqrt() - 1.0) * radius / self.radius)
        });
        if f > 1.6 + self.rim_mm / self.radius {
            return None;
        }
        let edge = f + self.ragged
            * (0.8 * self.noise.at(p, 2.0 / (self.radius + 3.0)) + 0.4 * self.noise.at(p, 0.28));
        if edge < 1.0 {
            let mut hu = self.mottled(p);
            if self.level.is_some_and(|level| p[1] < level) {
                // Plasma above the level: still part of the bleed.
                hu -= 0.35 * (self.hu - 30.0);
            }
            // The last millimetre mixes with the brain.
            return Some((
                mix(
                    hu,
                    tissue.hu,
                    step(1.0 - 0.8 / self.radius.max(2.0), 1.0, edge) * 0.35,
                ),
                true,
            ));
        }
        let rim = (edge - 1.0) * self.radius;
        if rim < self.rim_mm && tissue.space == Space::Parenchyma {
            return Some((tissue.hu - self.rim_hu * step(self.rim_mm, 0.0, rim), false));
        }
        None
    }
}
