//! The shape of the skull: a point in head coordinates → how deep inside the inner table, and how high above the skull base.
//!
//! Head coordinates are millimetres with the origin near the middle of the third ventricle: +x to the patient's left, +y to the back, +z to the vertex.
//! The vault is a rounded, egg-shaped surface; below its centre the walls go on downwards and the base is a height map: anterior fossa high, middle fossae, posterior fossa lowest, with sella, clivus, petrous and sphenoid ridges.
//! Depth is measured along the ray from the centre: within a few per cent of the distance for a shape this round.

use super::noise::{Draw, Field, Point, mix, sq, step};
use super::range::Ranges;

/// Shape parameters of one skull.
#[derive(Debug, Clone)]
pub(super) struct Skull {
    /// Half widths of the cavity, right (−x) and left (+x).
    half_width: [f32; 2],
    /// Half lengths of the cavity, front (−y) and back (+y).
    half_length: [f32; 2],
    /// Height of the vault above its centre.
    height: f32,
    /// The centre of the vault.
    centre: Point,
    /// 0: boxy; 2: ellipsoid.
    roundness: f32,
    /// The same within a slice.
    plane_roundness: f32,
    /// How much wider the back is than the front.
    egg: f32,
    /// Plagiocephaly: how far y moves with x.
    shear: f32,
    /// Mean thickness of the vault.
    thickness: f32,
    /// Extra thickness of the frontal bone (hyperostosis).
    frontal: f32,
    /// Mean thickness of the base.
    base: f32,
    /// Thickness of the scalp.
    pub(super) scalp: f32,
    floor: Floor,
    /// Narrowing below the centre, as a share at 100 mm below.
    taper: f32,
    surface: Field,
    thickness_noise: Field,
}

/// Heights of the skull base.
#[derive(Debug, Clone)]
struct Floor {
    anterior: f32,
    middle: f32,
    posterior: f32,
    sella: f32,
    crest: f32,
    sphenoid_y: f32,
    petrous_y: f32,
    orbit_bump: f32,
    roughness: Field,
}

/// Where a point lies relative to the inner table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Millimetres inside the wall of the cavity; negative outside.
    pub(super) depth: f32,
    /// Millimetres above the base of the cavity; negative below it.
    pub(super) above: f32,
    /// Unit direction from the centre of the vault (below the centre: horizontal).
    pub(super) direction: Point,
}

impl Skull {
    pub(super) fn draw(draw: &mut Draw, ranges: &Ranges) -> Self {
        let size = draw.within(ranges.size);
        let width = 67.5 * size * draw.within([0.96, 1.05]);
        let asymmetry = draw.around(0.02);
        Self {
            half_width: [width * (1.0 + asymmetry), width * (1.0 - asymmetry)],
            half_length: [
                85.0 * size * draw.within([0.95, 1.04]),
                84.0 * size * draw.within([0.95, 1.05]),
            ],
            height: 74.0 * size * draw.within([0.94, 1.06]),
            centre: [0.0, 4.0, 8.0],
            roundness: draw.within([0.7, 1.7]),
            plane_roundness: draw.within([1.35, 2.0]),
            egg: draw.within([0.0, 0.055]),
            shear: draw.around(0.05),
            thickness: draw.within([4.2, 8.5]),
            frontal: if draw.chance(0.15) {
                draw.within([1.5, 5.0])
            } else {
                0.0
            },
            base: draw.within([2.5, 5.0]),
            scalp: draw.within([4.0, 9.0]),
            floor: Floor {
                anterior: -13.0 + draw.around(4.0),
                middle: -37.0 + draw.around(4.0),
                posterior: -60.0 + draw.around(5.0),
                sella: -16.0 + draw.around(2.5),
                crest: -21.0 + draw.around(4.0),
                sphenoid_y: -4.0 + draw.around(4.0),
                petrous_y: 7.0 + draw.around(4.0),
                orbit_bump: draw.within([3.0, 8.0]),
                roughness: draw.field(),
            },
            taper: draw.within([0.05, 0.18]),
            surface: draw.field(),
            thickness_noise: draw.field(),
        }
    }

    /// Whether `p` is more than `margin` mm outside the box around the cavity: a cheap first test.
    #[inline]
    pub(super) fn is_outside_box(&self, p: Point, margin: f32) -> bool {
        let y = p[1] - self.centre[1] + self.shear * p[0];
        p[0] > self.half_width[1] + margin
            || p[0] < -self.half_width[0] - margin
            || y > self.half_length[1] + margin
            || y < -self.half_length[0] - margin
            || p[2] > self.centre[2] + self.height + margin
    }

    /// The depth without the table's small bumps, the direction from the centre, and the share of the way to the table.
    #[inline]
    pub(super) fn place_roughly(&self, p: Point) -> (f32, Point, f32) {
        let x = p[0] - self.centre[0];
        let y = p[1] - self.centre[1] + self.shear * p[0];
        let z = p[2] - self.centre[2];
        let length = self.half_length[usize::from(y > 0.0)];
        let back = (y / length).clamp(-1.0, 1.0);
        let mut width = self.half_width[usize::from(x > 0.0)] * (1.0 + self.egg * (back - 0.6 * sq(back)));
        let (mut length, mut t) = (length, 0.0);
        if z > 0.0 {
            t = sq(z / self.height);
        } else {
            let taper = 1.0 - self.taper * sq(z / 100.0).min(1.5);
            width *= taper;
            length *= taper;
        }
        // Between an ellipse (2) and a box in the plane, too: foreheads are flatter than an ellipse.
        let (across, along) = (sq(x / width), sq(y / length));
        let s = (across * across + along * along + self.plane_roundness * across * along).sqrt();
        let q = (s * s + t * t + self.roundness * s * t).sqrt().sqrt().max(1e-3);
        let flat = if z > 0.0 { z } else { 0.0 };
        let distance = (x * x + y * y + flat * flat).sqrt().max(1e-3);
        let far = distance.recip();
        (distance * (q.recip() - 1.0), [x * far, y * far, flat * far], q)
    }

    /// Places a point.
    #[inline]
    pub(super) fn place(&self, p: Point) -> Place {
        let (mut depth, direction, q) = self.place_roughly(p);
        if depth.abs() < 30.0 {
            let at = [
                direction[0] * 70.0,
                direction[1] * 70.0,
                direction[2] * 70.0 + p[2].min(0.0),
            ];
            depth += 1.1 * self.surface.at(at, 1.0 / 14.0);
        }
        let above = if p[2] < self.centre[2] {
            let inside = if q > 1.0 { 0.97 / q } else { 1.0 };
            p[2] - self.floor.height(p[0] * inside, p[1] * inside)
        } else {
            100.0
        };
        Place {
            depth,
            above,
            direction,
        }
    }

    /// How far bone and scalp reach beyond the inner table at this height at most, mm; the nose and the neck included.
    #[inline]
    pub(super) fn reach(&self, z: f32) -> f32 {
        1.6 * (self.thickness + self.frontal + self.scalp) + if z < 32.0 { 16.0 } else { 2.0 }
    }

    /// Millimetres from `z` up to the highest point of the cavity.
    #[inline]
    pub(super) fn below_vertex(&self, z: f32) -> f32 {
        self.centre[2] + self.height - z
    }

    /// Thickness of the vault in this direction, mm.
    #[inline]
    pub(super) fn thickness(&self, p: Point, direction: Point) -> f32 {
        let at = [
            direction[0] * 70.0,
            direction[1] * 70.0,
            direction[2] * 70.0 + p[2].min(0.0),
        ];
        let noise = self.thickness_noise.at(at, 1.0 / 12.0);
        // The temporal squama is the thinnest part, the middle of the back and of the front the thickest.
        let temporal = step(0.75, 0.97, direction[0].abs()) * step(30.0, 5.0, p[2]);
        let midline = step(0.35, 0.0, direction[0].abs());
        let front = step(-0.3, -0.9, direction[1]);
        (self.thickness * (1.0 + 0.16 * noise) * (1.0 - 0.5 * temporal) * (1.0 + 0.25 * midline)
            + self.frontal * front * (0.6 + 0.4 * noise).max(0.0))
        .max(1.6)
    }

    /// Thickness of the base at a point, mm.
    #[inline]
    pub(super) fn base_thickness(&self, p: Point) -> f32 {
        (self.base * (1.0 + 0.35 * self.floor.roughness.at(p, 1.0 / 5.0))).max(1.0)
    }

    /// The y of the petrous ridge at this distance from the midline: the posterior fossa is behind it.
    #[inline]
    pub(super) fn petrous_ridge(&self, ax: f32) -> f32 {
        self.floor.petrous_y + 0.45 * (ax - 12.0)
    }

    /// Height of the sella's floor.
    pub(super) fn sella(&self) -> f32 {
        self.floor.sella
    }

    /// Height of the floor of the posterior fossa.
    pub(super) fn posterior_floor(&self) -> f32 {
        self.floor.posterior
    }

    /// The inner table in direction (x, y, z) from the vault's centre, as a point; `inset` mm inside it.
    pub(super) fn on_table(&self, direction: Point, inset: f32) -> Point {
        let at = |d: f32| {
            [
                self.centre[0] + direction[0] * d,
                self.centre[1] + direction[1] * d,
                self.centre[2] + direction[2] * d,
            ]
        };
        // Bisection: depth falls along the ray.
        let (mut low, mut high) = (0.0f32, 140.0f32);
        for _ in 0..20 {
            let middle = 0.5 * (low + high);
            let place = self.place(at(middle));
            if place.depth.min(place.above) > inset {
                low = middle
            } else {
                high = middle
            }
        }
        at(low)
    }
}

impl Floor {
    #[inline]
    fn height(&self, x: f32, y: f32) -> f32 {
        let ax = x.abs();
        let ridge = self.sphenoid_y - 0.5 * ax;
        let petrous = self.petrous_y + 0.45 * (ax - 12.0);
        let lateral = step(11.0, 19.0, ax);
        let in_front = step(ridge + 4.0, ridge - 4.0, y);
        let behind = step(petrous - 4.0, petrous + 4.0, y);
        let anterior = self.anterior + self.orbit_bump * (1.0 - sq((ax - 28.0) / 16.0)).max(0.0)
            - 5.0 * (1.0 - sq(ax / 9.0)).max(0.0);
        let middle = self.middle + 15.0 * sq(sq((ax - 36.0) / 26.0)).min(1.5);
        let rho = sq(x / 58.0) + sq((y - 32.0) / 52.0);
        let bowl = self.posterior + 34.0 * sq(rho.min(1.0));
        let clivus = self.sella - 2.2 * (y - 2.0);
        let posterior = bowl.max(clivus - 25.0 * lateral);
        let floor = mix(
            mix(mix(self.sella, middle, lateral), posterior, behind),
            anterior,
            in_front,
        );
        let crest = self.crest + 0.06 * (ax - 30.0) - 1.6 * (y - petrous).abs();
        let floor = if ax > 11.0 && y < 50.0 {
            floor.max(crest - 25.0 * (1.0 - lateral))
        } else {
            floor
        };
        floor + 0.7 * self.roughness.at([x, y, 0.0], 1.0 / 5.0)
    }
}
