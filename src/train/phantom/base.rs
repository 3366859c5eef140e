//! Everything outside the cranial cavity: vault with diploe and sutures, scalp, skull base, petrous bones, orbits, sinuses, face and neck.
//!
//! The face is a caricature with the right materials at the right places: what matters is that bone, air, fat and muscle lie under and beside the brain as they do in a patient.
//! HU: cortical bone 900–1900, diploe 300–800, fat −110 to −80, muscle 45–65, air −1000 (textbook ranges).

use super::noise::{Draw, Field, Point, capsule, ellipsoid, mix, sq, step};
use super::skull::{Place, Skull};

/// Air.
pub(super) const AIR: f32 = -1000.0;

/// Parameters of bone, scalp and face.
#[derive(Debug, Clone)]
pub(super) struct Base {
    cortical: f32,
    diploe: f32,
    diploe_share: f32,
    fat: f32,
    muscle: f32,
    skin: f32,
    suture: f32,
    mastoid: [f32; 2],
    frontal_sinus: Point,
    sphenoid_sinus: f32,
    sinus_fluid: f32,
    globe: f32,
    gaze: f32,
    cord: f32,
    canal_csf: f32,
    metal: bool,
    grain: Field,
    slow: Field,
}

impl Base {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let air = draw.within([0.5, 1.1]);
        Self {
            cortical: draw.within([1000.0, 1700.0]),
            diploe: draw.within([350.0, 900.0]),
            diploe_share: draw.within([0.15, 0.65]),
            fat: draw.within([-115.0, -75.0]),
            muscle: draw.within([42.0, 64.0]),
            skin: draw.within([15.0, 60.0]),
            suture: draw.within([0.2, 0.9]),
            mastoid: [air * draw.within([0.6, 1.2]), air * draw.within([0.6, 1.2])],
            frontal_sinus: [
                draw.within([6.0, 26.0]),
                draw.within([3.0, 9.0]),
                draw.within([6.0, 20.0]),
            ],
            sphenoid_sinus: draw.within([0.4, 1.15]),
            sinus_fluid: if draw.chance(0.2) {
                draw.within([5.0, 40.0])
            } else {
                AIR
            },
            globe: draw.within([11.0, 13.0]),
            gaze: draw.around(0.3),
            cord: draw.within([26.0, 36.0]),
            canal_csf: draw.within([4.0, 14.0]),
            metal: draw.chance(0.15),
            grain: draw.field(),
            slow: draw.field(),
        }
    }

    /// Whether teeth carry metal.
    pub(super) fn metal(&self) -> bool {
        self.metal
    }

    /// HU outside the cavity.
    #[inline]
    pub(super) fn sample(&self, p: Point, place: Place, skull: &Skull) -> f32 {
        if place.above > 0.0 && place.depth <= 0.0 {
            return self.vault(p, place, skull);
        }
        self.below(p, place, -place.above, skull)
    }

    #[inline]
    fn vault(&self, p: Point, place: Place, skull: &Skull) -> f32 {
        let out = -place.depth;
        if out > skull.reach(p[2]) {
            return AIR;
        }
        let thickness = skull.thickness(p, place.direction);
        if out < thickness {
            let share = out / thickness;
            // Frontal sinus between the tables.
            let sinus = self.frontal_sinus;
            if p[1] < -60.0
                && ellipsoid(p, [3.0, -84.0, -6.0], [sinus[0], 12.0, sinus[2]]) < 1.0
                && share > 0.2
                && share < 0.8
            {
                return AIR;
            }
            let sagittal = p[0].abs() < 1.0 && p[2] > 40.0;
            let coronal = (p[1] + 18.0 + 0.15 * p[0].abs() + self.slow.at(p, 0.2)).abs() < 0.6 && p[2] > 0.0;
            let lambdoid = (p[1] - 62.0 + 0.5 * p[0].abs() - 0.35 * p[2]).abs() < 0.7 && p[0].abs() > 8.0;
            if (sagittal || coronal || lambdoid) && share < 0.95 {
                return mix(self.cortical, 120.0, self.suture);
            }
            let half = 0.5 * self.diploe_share;
            let inside = (share - 0.5).abs();
            if inside < half && thickness > 3.0 {
                let marrow = self.diploe * (1.0 + 0.25 * self.grain.at(p, 0.5));
                return mix(marrow, self.cortical, step(half * 0.6, half, inside));
            }
            return self.cortical;
        }
        self.soft(p, out - thickness, skull)
    }

    /// Scalp, temporal muscle and ears, `out` mm outside the bone.
    #[inline]
    fn soft(&self, p: Point, out: f32, skull: &Skull) -> f32 {
        let low = step(30.0, -10.0, p[2]) * step(-62.0, -45.0, p[1]) * step(28.0, 5.0, p[1]);
        let temporal = 12.0 * low * step(38.0, 52.0, p[0].abs());
        let neck = 14.0 * step(-8.0, -45.0, p[2]) * step(25.0, 55.0, p[1]);
        let muscle = temporal.max(neck);
        let scalp = skull.scalp * (1.0 + 0.15 * self.slow.at(p, 0.05)) + 0.9 * muscle;
        if out > scalp {
            return AIR;
        }
        if out > scalp - 1.8 {
            return self.skin;
        }
        if out < 0.7 || out < muscle {
            let streaks = self.grain.at([p[0], 0.4 * p[1], 0.3 * p[2]], 0.35);
            return if muscle > 4.0 && streaks > 1.1 {
                self.fat
            } else {
                self.muscle
            };
        }
        self.fat + 8.0 * self.slow.at(p, 0.3)
    }

    #[inline]
    fn below(&self, p: Point, place: Place, below: f32, skull: &Skull) -> f32 {
        let [x, y, z] = p;
        let ax = x.abs();
        let side = usize::from(x > 0.0);
        let q = [ax, y, z];
        let grain = self.grain.at(p, 0.42);
        let bone = |gain: f32| self.cortical * gain * (0.8 + 0.12 * grain);
        // Foramen magnum, canal and the vertebrae around it.
        let canal = sq(x / 14.5) + sq((y - 33.0) / 16.0);
        let floor = skull.posterior_floor();
        if z < floor + 12.0 && canal < 4.5 {
            let narrow = mix(1.0, 0.62, step(floor, floor - 14.0, z));
            if canal < narrow {
                let cord = sq(x / 7.0) + sq((y - 30.0) / 6.0) < 1.0;
                return if cord { self.cord } else { self.canal_csf };
            }
            if z < floor - 6.0 && canal < narrow * 2.4 {
                let arch = (z / 11.0).rem_euclid(1.0) > 0.35 || y < 33.0;
                if arch && grain > -1.2 {
                    return bone(if canal < narrow * 1.3 { 0.9 } else { 0.5 });
                }
            }
        }
        // The outline narrows towards the neck behind, and is drawn again here because the wall of the cavity ends at the base.
        let shell = place.depth + skull.scalp + 4.0;
        let nape = if y > 20.0 {
            0.30 * (-30.0 - z).max(0.0)
        } else {
            0.0
        };
        let surface = shell - nape;
        if surface < 0.0 {
            let nose = capsule(p, [0.0, -98.0, -48.0], 6.0, [0.0, -88.0, -20.0], 4.0);
            return if nose < 0.0 { self.muscle } else { AIR };
        }
        if surface < 1.8 {
            return self.skin;
        }
        // Petrous bones and mastoids.
        let petrous = capsule(q, [15.0, 7.0, -30.0], 7.5, [58.0, 28.0, -32.0], 12.0);
        if petrous < 0.0 || (below < 3.0 && ax > 12.0 && petrous < 6.0) {
            let cells = ellipsoid(q, [60.0, 28.0, -38.0], [16.0, 15.0, 17.0]) < self.mastoid[side];
            if cells && grain > -0.5 {
                return if grain > 0.1 { AIR } else { -300.0 };
            }
            let canal = capsule(q, [20.0, 12.0, -27.0], 2.2, [30.0, 16.0, -27.0], 1.5) < 0.0;
            let ear = capsule(q, [44.0, 12.0, -33.0], 3.0, [72.0, 12.0, -35.0], 3.5) < 0.0;
            return if ear {
                AIR
            } else if canal {
                30.0
            } else {
                bone(1.15)
            };
        }
        if ellipsoid(q, [60.0, 30.0, -50.0], [10.0, 12.0, 18.0]) < 1.0 {
            return if grain > 0.3 && self.mastoid[side] > 0.6 {
                AIR
            } else {
                bone(0.8)
            };
        }
        // Sphenoid sinus under the sella.
        let sphenoid = ellipsoid(p, [1.5, -18.0, skull.sella() - 12.0], [14.0, 14.0, 10.0])
            + 0.3 * self.slow.at(p, 0.12);
        if sphenoid < 1.35 && y > -36.0 {
            let open = sphenoid < self.sphenoid_sinus && (x - 2.0).abs() > 0.7;
            return if open {
                if z < skull.sella() - 16.0 {
                    self.sinus_fluid
                } else {
                    AIR
                }
            } else {
                bone(0.7)
            };
        }
        if let Some(hu) = self.orbit(q, x, grain) {
            return hu;
        }
        // Floor of the cavity.
        let base = if y < -30.0 && ax < 45.0 { 0.55 } else { 1.0 };
        if below < base * skull.base_thickness(p) {
            return bone(1.0);
        }
        if ax < 15.0 && (4.0..30.0).contains(&y) && below < 14.0 && z > -62.0 {
            return bone(0.55);
        }
        // Nose, ethmoid cells, maxillary sinuses, pharynx.
        if ax < 12.5 && (-88.0..-24.0).contains(&y) {
            if z > -48.0 {
                return if grain.abs() < 0.25 || ax > 11.5 {
                    bone(0.35)
                } else {
                    AIR
                };
            }
            if z > -88.0 {
                let turbinate = self.slow.at([2.0 * x, 0.4 * y, z], 0.3);
                return if ax < 0.8 {
                    bone(0.3)
                } else if turbinate > 0.5 {
                    self.muscle
                } else {
                    AIR
                };
            }
        }
        let antrum = ellipsoid(q, [29.0, -58.0, -70.0], [14.5, 17.0, 16.0]);
        if antrum < 1.25 {
            return if antrum > 1.0 {
                bone(0.8)
            } else if z < -78.0 {
                self.sinus_fluid
            } else {
                AIR
            };
        }
        if ellipsoid(p, [0.0, -10.0, -72.0], [9.0, 9.0, 20.0]) < 1.0 {
            return AIR;
        }
        // Zygoma, condyle and ramus of the jaw, teeth.
        if capsule(q, [46.0, -76.0, -46.0], 4.5, [64.0, -44.0, -47.0], 3.0) < 0.0
            || capsule(q, [64.0, -44.0, -47.0], 2.5, [65.0, -12.0, -44.0], 2.5) < 0.0
            || capsule(q, [52.0, -8.0, -48.0], 5.0, [49.0, -14.0, -85.0], 3.5) < 0.0
            || (ax < 46.0
                && ax > 38.0
                && y < -40.0
                && y > -80.0
                && (-60.0..-30.0).contains(&z)
                && grain > 0.3)
        {
            return bone(0.9);
        }
        if z < -92.0 && (sq(x / 27.0) + sq((y + 58.0) / 32.0) - 1.0).abs() < 0.3 && y < -50.0 {
            return if self.metal && grain > 1.2 { 3000.0 } else { 1900.0 };
        }
        // Muscles between sheets of fat.
        let sheet = self.slow.at([x, 0.7 * y, 0.35 * z], 0.26);
        let fatty = if surface < skull.scalp { 0.9 } else { -0.25 };
        if y > 14.0 && surface >= skull.scalp {
            // The neck's muscles lie in layers.
            let layer = ((surface + 5.0 * sheet) / 13.0).rem_euclid(1.0);
            return if layer < 0.84 {
                self.muscle + 2.0 * grain
            } else {
                self.fat
            };
        }
        if sheet > fatty {
            self.muscle + 2.0 * grain
        } else {
            self.fat
        }
    }

    /// Orbit with globe, optic nerve, muscles and bony wall.
    #[inline]
    fn orbit(&self, q: Point, x: f32, grain: f32) -> Option<f32> {
        if q[0] < 10.0 || q[0] > 56.0 || q[1] > -24.0 || !(-58.0..-8.0).contains(&q[2]) {
            return None;
        }
        // A cone that opens to the front.
        let along = ((-30.0 - q[1]) / 50.0).clamp(0.0, 1.2);
        let axis = [
            mix(14.0, 34.0, along.min(1.0)),
            q[1],
            mix(-26.0, -33.0, along.min(1.0)),
        ];
        let radius = mix(5.0, 18.5, along.min(1.0).sqrt());
        let from = (sq(q[0] - axis[0]) + sq(q[2] - axis[2])).sqrt();
        if from > radius + 2.2 {
            return None;
        }
        let centre = [34.0, -76.0, -33.0];
        let globe = (sq(q[0] - centre[0]) + sq(q[1] - centre[1]) + sq(q[2] - centre[2])).sqrt();
        if globe < self.globe {
            let lens = ellipsoid(
                q,
                [
                    centre[0] + 8.0 * self.gaze * x.signum(),
                    centre[1] - self.globe + 3.5,
                    centre[2],
                ],
                [4.5, 2.0, 4.5],
            );
            return Some(if lens < 1.0 {
                75.0
            } else if globe > self.globe - 1.4 {
                50.0
            } else {
                9.0
            });
        }
        if from > radius {
            return (q[1] > -78.0).then_some(self.cortical * (0.7 + 0.1 * grain));
        }
        if capsule(q, [34.0, -64.0, -33.0], 2.2, [13.0, -28.0, -25.0], 2.0) < 0.0 {
            return Some(36.0);
        }
        if q[1] > -72.0 && (from - 0.78 * radius).abs() < 1.6 && grain > -0.3 {
            let (horizontal, vertical) = ((q[0] - axis[0]).abs(), (q[2] - axis[2]).abs());
            if horizontal > 2.2 * vertical || vertical > 2.2 * horizontal {
                return Some(self.muscle);
            }
        }
        Some(self.fat)
    }
}
