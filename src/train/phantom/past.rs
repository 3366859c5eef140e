//! What happened to a head before the scan: a point → what an operation, an old collection or a tumour left there.
//!
//! Nothing here is fresh blood and nothing here is labelled, however bright: it is what a network must leave alone.
//! Clips, calcified tumours and missing bone flaps are drawn for evaluation only, so that it meets what training never drew.
//!
//! HU: chronic subdural collections 8–42, meningiomas 45–62, catheters 150–500, clips and coils above 3000 (textbook ranges).

use super::brain::{Space, Tissue, dot, unit};
use super::noise::{Draw, Field, Point, capsule, ellipsoid, mix, sq, step};
use super::range::Ranges;
use super::skull::{Place, Skull};

/// What makes a head harder to read than a plain one; a head can have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stratum {
    /// Calcified deep grey matter or specks, beyond choroid plexus and pineal gland.
    Calcification,
    /// A hypodense territory.
    OldInfarct,
    /// Wide sulci and ventricles.
    Atrophy,
    /// A hypo- or isodense collection under the dura.
    ChronicSubdural,
    /// Burr hole, bone flap, missing bone, resection cavity or catheter.
    PostOperative,
    /// The head moved during slices.
    Motion,
    /// A clip or coil with streaks.
    Metal,
    /// A dense tumour on the dura.
    Tumour,
}

impl Stratum {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Calcification,
        Self::OldInfarct,
        Self::Atrophy,
        Self::ChronicSubdural,
        Self::PostOperative,
        Self::Motion,
        Self::Metal,
        Self::Tumour,
    ];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calcification => "calcification",
            Self::OldInfarct => "old_infarct",
            Self::Atrophy => "atrophy",
            Self::ChronicSubdural => "chronic_subdural",
            Self::PostOperative => "post_operative",
            Self::Motion => "motion",
            Self::Metal => "metal",
            Self::Tumour => "tumour",
        }
    }
}

/// An old collection under the dura.
#[derive(Debug, Clone)]
struct Chronic {
    direction: Point,
    extent: f32,
    thickness: f32,
    hu: f32,
    /// HU gained from front to back: cells sink.
    layers: f32,
    /// HU of membranes within it.
    membrane: f32,
}

/// A hole or flap in the vault.
#[derive(Debug, Clone)]
struct Opening {
    direction: Point,
    /// On the table, mm.
    radius: f32,
    /// Width of the cut around a flap, mm; none where bone is missing.
    cut: Option<f32>,
    plates: bool,
    scar: f32,
}

/// A round thing with a centre.
#[derive(Debug, Clone)]
struct Ball {
    centre: Point,
    radius: f32,
    hu: f32,
}

/// All that one head went through.
#[derive(Debug, Clone)]
pub(super) struct Past {
    chronic: Option<Chronic>,
    opening: Option<Opening>,
    /// Of a resection, or an arachnoid cyst.
    cavity: Option<Ball>,
    catheter: Option<[Point; 2]>,
    catheter_hu: f32,
    tumour: Option<Ball>,
    tumour_calcium: f32,
    clip: Option<Ball>,
    streaks: f32,
    noise: Field,
}

impl Past {
    pub(super) fn draw(draw: &mut Draw, ranges: &Ranges, skull: &Skull) -> Self {
        let chronic = draw.chance(0.09).then(|| Chronic {
            direction: unit([draw.sign(), draw.within([-0.8, 0.6]), draw.within([0.1, 1.0])]),
            extent: draw.within([0.6, 1.3]),
            thickness: draw.within([3.0, 20.0]),
            hu: draw.within(ranges.chronic_hu),
            layers: draw.within([0.0, 10.0]),
            membrane: if draw.chance(0.4) {
                draw.within([3.0, 12.0])
            } else {
                0.0
            },
        });
        let mut past = Self {
            chronic,
            opening: None,
            cavity: None,
            catheter: None,
            catheter_hu: draw.within_log([150.0, 500.0]),
            tumour: None,
            tumour_calcium: 0.0,
            clip: None,
            streaks: draw.within([20.0, 90.0]),
            noise: draw.field(),
        };
        let missing = draw.chance(ranges.foreign);
        if missing || draw.chance(0.09) {
            past.operate(draw, skull, missing);
        }
        if past.cavity.is_none() && draw.chance(0.05) {
            // An arachnoid cyst at a temporal pole or behind the cerebellum.
            let side = draw.sign();
            past.cavity = Some(Ball {
                centre: if draw.chance(0.6) {
                    [side * 36.0, -30.0, -22.0]
                } else {
                    [side * draw.within([0.0, 14.0]), 64.0, -42.0]
                },
                radius: draw.within([7.0, 20.0]),
                hu: draw.within([2.0, 12.0]),
            });
        }
        if draw.chance(ranges.foreign) {
            let radius = draw.within([6.0, 20.0]);
            let out = unit([draw.sign(), draw.around(1.0), draw.within([0.0, 1.0])]);
            past.tumour = Some(Ball {
                centre: skull.on_table(out, 0.7 * radius),
                radius,
                hu: draw.within([42.0, 60.0]),
            });
            past.tumour_calcium = draw.within([60.0, 400.0]);
        }
        if draw.chance(ranges.foreign) {
            past.clip = Some(Ball {
                centre: [
                    draw.around(34.0),
                    draw.within([-22.0, 4.0]),
                    skull.sella() + draw.within([6.0, 14.0]),
                ],
                radius: draw.within([1.5, 5.0]),
                hu: draw.within([3000.0, 7000.0]),
            });
        }
        past
    }

    fn operate(&mut self, draw: &mut Draw, skull: &Skull, missing: bool) {
        let flap = missing || draw.chance(0.55);
        let direction = unit([draw.sign(), draw.within([-0.9, 0.5]), draw.within([0.3, 1.3])]);
        self.opening = Some(Opening {
            direction,
            radius: if flap {
                draw.within([18.0, 42.0])
            } else {
                draw.within([4.0, 8.0])
            },
            cut: (flap && !missing).then(|| draw.within([0.8, 3.0])),
            plates: draw.chance(0.6),
            scar: draw.within([25.0, 55.0]),
        });
        if flap && draw.chance(0.4) {
            let radius = draw.within([6.0, 20.0]);
            self.cavity = Some(Ball {
                centre: skull.on_table(direction, 0.8 * radius + 3.0),
                radius,
                hu: draw.within([4.0, 16.0]),
            });
        } else if !flap && draw.chance(0.6) {
            let tip = [
                direction[0].signum() * draw.within([4.0, 9.0]),
                draw.within([-24.0, 2.0]),
                draw.within([4.0, 14.0]),
            ];
            self.catheter = Some([skull.on_table(direction, -4.0), tip]);
        }
    }

    /// The strata that this past puts a head into.
    pub(super) fn strata(&self) -> impl Iterator<Item = Stratum> {
        [
            (self.chronic.is_some(), Stratum::ChronicSubdural),
            (self.opening.is_some(), Stratum::PostOperative),
            (self.clip.is_some(), Stratum::Metal),
            (self.tumour.is_some(), Stratum::Tumour),
        ]
        .into_iter()
        .filter_map(|(is, stratum)| is.then_some(stratum))
    }

    /// What is in the cavity now, given what was there.
    #[inline]
    pub(super) fn within(&self, p: Point, place: Place, tissue: Tissue) -> Tissue {
        let mut now = tissue;
        let other = |hu| Tissue {
            hu,
            space: Space::Other,
        };
        if let Some(chronic) = &self.chronic
            && place.depth < chronic.thickness
            && place.depth > 0.5
            && place.above > 0.5
        {
            let cos = dot(place.direction, chronic.direction);
            let angle = (2.0 - 2.0 * cos).max(0.0) / sq(chronic.extent);
            let edge = chronic.thickness * (1.0 - sq(angle)) * (1.0 + 0.08 * self.noise.at(p, 0.1));
            if angle < 1.0 && place.depth < edge {
                let membrane = self.noise.at(p, 0.12).abs() < 0.12;
                now = other(
                    chronic.hu
                        + chronic.layers * step(-40.0, 60.0, p[1])
                        + if membrane { chronic.membrane } else { 0.0 },
                );
            }
        }
        if let Some(ball) = &self.cavity
            && ellipsoid(p, ball.centre, [ball.radius; 3]) < 1.0 + 0.2 * self.noise.at(p, 0.1)
        {
            now = other(ball.hu);
        }
        if let Some(ball) = &self.tumour {
            let f = ellipsoid(p, ball.centre, [ball.radius; 3]).sqrt() + 0.06 * self.noise.at(p, 0.15);
            if f < 1.0 {
                let dense = self.noise.at(p, 0.35) > 1.2;
                now = other(if dense {
                    self.tumour_calcium.max(ball.hu)
                } else {
                    ball.hu
                });
            } else if now.space == Space::Parenchyma {
                now.hu -= 9.0 * step(1.7, 1.1, f);
            }
        }
        if let Some(hu) = self.foreign(p) {
            now = other(hu);
        }
        now
    }

    /// HU of the vault now, given what was there; `out` mm outside the inner table of a bone of this thickness.
    #[inline]
    pub(super) fn vault(&self, p: Point, place: Place, skull: &Skull, hu: f32) -> f32 {
        let Some(opening) = &self.opening else {
            return self.foreign(p).unwrap_or(hu);
        };
        let out = -place.depth;
        let cos = dot(place.direction, opening.direction);
        let from = 75.0 * (2.0 - 2.0 * cos).max(0.0).sqrt();
        if place.above <= 0.0 || from > opening.radius + 6.0 || out > 30.0 {
            return hu;
        }
        let thickness = skull.thickness(p, place.direction);
        if let Some(hu) = self.foreign(p) {
            return hu;
        }
        let rim = (from - opening.radius).abs();
        if opening.plates && opening.cut.is_some() && rim < 5.0 && (out - thickness - 0.4).abs() < 0.5 {
            // Plates hold the flap at some places of its rim.
            if self.noise.at(p, 0.08) > 0.6 {
                return 2600.0;
            }
        }
        if out < thickness && opening.cut.map_or(from < opening.radius, |cut| rim < 0.5 * cut) {
            return mix(
                opening.scar,
                hu,
                step(opening.radius - 1.0, opening.radius, from)
                    * if opening.cut.is_none() { 1.0 } else { 0.0 },
            );
        }
        hu
    }

    /// Catheters and clips, which stay what they are wherever they lie.
    #[inline]
    fn foreign(&self, p: Point) -> Option<f32> {
        if let Some([start, tip]) = self.catheter
            && capsule(p, start, 1.3, tip, 1.3) < 0.0
        {
            return Some(self.catheter_hu);
        }
        self.clip
            .as_ref()
            .filter(|ball| ellipsoid(p, ball.centre, [ball.radius, ball.radius, 0.8 * ball.radius]) < 1.0)
            .map(|ball| ball.hu)
    }

    /// HU that the streaks of a clip add at a point.
    #[inline]
    pub(super) fn streak(&self, p: Point) -> f32 {
        let Some(ball) = &self.clip else { return 0.0 };
        let [x, y, z] = [0, 1, 2].map(|i| p[i] - ball.centre[i]);
        let near = (-sq(z / (ball.radius + 3.0))).exp();
        if near < 0.01 {
            return 0.0;
        }
        let far = (sq(x) + sq(y)).sqrt();
        self.streaks * near * self.noise.at([5.0 * y.atan2(x), 0.3 * z, 0.0], 1.0) / (1.0 + far / 18.0)
    }
}
