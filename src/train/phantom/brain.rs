//! The content of the cranial cavity: a point → its HU and which space it belongs to.
//!
//! Cortex with sulci, white matter, deep grey matter, ventricles and cisterns, brainstem and cerebellum, dura, venous sinuses, arteries, calcifications, and what is old: atrophy, leukoaraiosis, infarcts, hygromas.
//! Everything here is normal or at least not a fresh bleed, however bright: it is what a network must leave alone.
//!
//! HU of tissues: grey matter 33–41, white matter 24–31, CSF 2–12, dura and flowing blood 38–72 (textbook ranges, widened).

mod aspects;

use super::noise::{Draw, Field, Point, capsule, ellipsoid, mix, sq, step};
use super::past::Stratum;
use super::range::Ranges;
use super::skull::{Place, Skull};

/// Which space a point of the cavity belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// Brain tissue.
    Parenchyma,
    /// Subarachnoid CSF: sulci, fissures, cisterns.
    Subarachnoid,
    /// CSF of the ventricles.
    Ventricle,
    /// Dura, vessels, calcifications.
    Other,
}

/// A point's tissue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tissue {
    pub(super) hu: f32,
    pub(super) space: Space,
}

/// A soft blob with a noisy edge: infarct or calcification.
#[derive(Debug, Clone)]
struct Blob {
    centre: Point,
    radii: Point,
    hu: f32,
    noise: Field,
}

/// A hypodense crescent under the dura: hygroma, not fresh blood.
#[derive(Debug, Clone)]
struct Hygroma {
    direction: Point,
    extent: f32,
    thickness: f32,
    hu: f32,
}

/// Deep grey matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nucleus {
    Thalamus,
    Caudate,
    Lentiform,
}

/// Thickness of the insula's cortex, mm.
const INSULA_MM: f32 = 3.2;

/// The Sylvian fissure and the insula beside a point.
struct Insula {
    /// The insula's surface, mm from the midline.
    at: f32,
    /// The height of the fissure.
    fissure: f32,
    /// 1 between the ends of the fissure, from front to back.
    ends: f32,
    /// 1 between the lower and the upper end of the insula.
    tall: f32,
}

impl Insula {
    #[inline]
    fn beside(y: f32, z: f32, slow: f32) -> Self {
        let fissure = -9.0 + 0.32 * (y + 30.0) + 1.5 * slow;
        Self {
            at: 33.0 + 0.05 * sq(z - fissure - 6.0) + 1.5 * slow,
            fissure,
            ends: step(-42.0, -30.0, y) * step(30.0, 15.0, y),
            tall: step(fissure - 8.0, fissure - 2.0, z) * step(fissure + 22.0, fissure + 14.0, z),
        }
    }
}

/// Parameters of one brain.
#[derive(Debug, Clone)]
pub(super) struct Brain {
    grey: f32,
    white: f32,
    csf: f32,
    dura: f32,
    sinus: f32,
    artery: f32,
    cerebellum: f32,
    atrophy: f32,
    surface_csf: f32,
    sulcus_width: f32,
    sulcus_depth: f32,
    /// Cells of the folding, mm.
    fold: f32,
    ventricle: [f32; 2],
    third: f32,
    fourth: f32,
    cistern: f32,
    leukoaraiosis: f32,
    falx_thickness: f32,
    falx_drift: Field,
    falx_calcium: f32,
    tentorium_thickness: f32,
    tentorium_apex: f32,
    sinus_radius: f32,
    dominant: f32,
    choroid: [f32; 2],
    choroid_radius: f32,
    pineal_hu: f32,
    pineal_radius: f32,
    pallidum: f32,
    siphon: f32,
    basilar: [Point; 3],
    /// Arteries are drawn elsewhere.
    has_tree: bool,
    sylvian: [f32; 2],
    blobs: Vec<Blob>,
    hygromas: Vec<Hygroma>,
    folding: Field,
    slow: Field,
    grain: Field,
}

impl Brain {
    pub(super) fn draw(draw: &mut Draw, ranges: &Ranges, skull: &Skull) -> Self {
        let atrophy = draw.within(ranges.atrophy) * draw.within([0.5, 1.0]);
        let white = draw.within([22.0, 31.0]);
        let wide = if draw.chance(0.1) {
            draw.within([0.2, 0.9])
        } else {
            0.0
        };
        let ventricle = draw.within([0.6, 1.15]) + 0.9 * atrophy * draw.within([0.4, 1.0]) + wide;
        let calcium = |draw: &mut Draw, chance: f32, low: f32, high: f32, plain: f32| {
            if draw.chance(chance) {
                draw.within_log([low, high])
            } else {
                plain
            }
        };
        let mut blobs = Vec::new();
        if draw.chance(0.3) {
            // Old or subacute infarcts: hypodense territories, posterior ones as often as middle ones.
            for _ in 0..draw.count(1, 3) {
                let side = draw.sign();
                let centre = match draw.count(0, 2) {
                    0 => [
                        side * draw.within([14.0, 35.0]),
                        draw.within([38.0, 70.0]),
                        draw.within([-8.0, 22.0]),
                    ],
                    1 => [
                        side * draw.within([30.0, 58.0]),
                        draw.within([-40.0, 30.0]),
                        draw.within([-10.0, 45.0]),
                    ],
                    _ => [
                        side * draw.within([8.0, 40.0]),
                        draw.within([-50.0, 60.0]),
                        draw.within([-45.0, 60.0]),
                    ],
                };
                let size = draw.within_log([3.0, 24.0]);
                blobs.push(Blob {
                    centre,
                    radii: [
                        size * draw.within([0.6, 1.2]),
                        size * draw.within([0.8, 1.6]),
                        size * draw.within([0.6, 1.3]),
                    ],
                    hu: draw.within([6.0, 25.0]),
                    noise: draw.field(),
                });
            }
        }
        for _ in 0..(if draw.chance(0.25) { draw.count(1, 3) } else { 0 }) {
            // Scattered calcified specks: granulomas, cavernomas' calcium, old scars.
            let size = draw.within([0.8, 2.6]);
            let centre = [
                draw.around(50.0),
                draw.within([-60.0, 65.0]),
                draw.within([-30.0, 60.0]),
            ];
            blobs.push(Blob {
                centre,
                radii: [size; 3],
                hu: draw.within_log([110.0, 500.0]),
                noise: draw.field(),
            });
        }
        let mut hygromas = Vec::new();
        if draw.chance(0.06) {
            let side = draw.sign();
            hygromas.push(Hygroma {
                direction: unit([side, draw.within([-0.9, 0.2]), draw.within([0.3, 1.0])]),
                extent: draw.within([0.7, 1.2]),
                thickness: draw.within([3.0, 12.0]),
                hu: draw.within([6.0, 22.0]),
            });
        }
        let floor = skull.sella();
        let drift = draw.around(4.0);
        Self {
            grey: white + draw.within([5.0, 12.0]),
            white,
            csf: draw.within([2.0, 11.0]),
            dura: draw.within([40.0, 70.0]),
            sinus: draw.within([42.0, 76.0]),
            artery: draw.within([36.0, 62.0]),
            cerebellum: white + draw.within([2.5, 7.0]),
            atrophy,
            surface_csf: 0.3 + 3.2 * atrophy * draw.within([0.3, 1.0]),
            sulcus_width: draw.within([0.12, 0.7]) + 1.5 * atrophy,
            sulcus_depth: draw.within([10.0, 26.0]),
            fold: draw.within([2.7, 4.0]),
            ventricle: [
                ventricle * draw.within([0.8, 1.2]),
                ventricle * draw.within([0.8, 1.2]),
            ],
            third: draw.within([1.2, 2.6]) + 3.0 * atrophy,
            fourth: draw.within([0.6, 1.05]),
            cistern: draw.within([0.75, 1.0]) + 0.3 * atrophy,
            leukoaraiosis: if draw.chance(0.5) {
                draw.within([0.0, 10.0]) * atrophy.sqrt()
            } else {
                0.0
            },
            falx_thickness: draw.within([0.4, 1.5]),
            falx_drift: draw.field(),
            falx_calcium: calcium(draw, 0.3, 90.0, 600.0, 0.0),
            tentorium_thickness: draw.within([0.4, 1.5]),
            tentorium_apex: 3.0 + draw.around(6.0),
            sinus_radius: draw.within([3.0, 5.5]),
            dominant: draw.around(0.35),
            choroid: [
                calcium(draw, 0.6, 70.0, 500.0, 42.0),
                calcium(draw, 0.6, 70.0, 500.0, 42.0),
            ],
            choroid_radius: draw.within([1.8, 4.2]),
            pineal_hu: calcium(draw, 0.65, 80.0, 500.0, 42.0),
            pineal_radius: draw.within([1.8, 4.0]),
            pallidum: calcium(draw, 0.2, 55.0, 200.0, 0.0),
            siphon: calcium(draw, 0.45, 120.0, 700.0, 0.0),
            basilar: [
                [drift, 18.0 + draw.around(3.0), -56.0],
                [drift * 0.6, -2.0 + draw.around(2.0), floor - 18.0],
                [0.0, 0.0 + draw.around(2.0), floor + 3.0],
            ],
            has_tree: false,
            sylvian: [
                draw.within([0.7, 1.4]) + 2.2 * atrophy * draw.within([0.4, 1.0]),
                draw.within([0.7, 1.4]) + 2.2 * atrophy * draw.within([0.4, 1.0]),
            ],
            blobs,
            hygromas,
            folding: draw.field(),
            slow: draw.field(),
            grain: draw.field(),
        }
    }

    /// Centre and radius of a ball that holds the frontal-to-occipital body of one lateral ventricle, for lesions.
    pub(super) fn ventricle_scale(&self, left: bool) -> f32 {
        self.ventricle[usize::from(left)]
    }

    /// Leaves arteries to a drawn tree, and takes up contrast agent where there is some.
    pub(super) fn hold_vessels(&mut self, sinus_hu: Option<f32>, perfusion_hu: f32) {
        self.has_tree = true;
        self.grey += perfusion_hu;
        self.cerebellum += perfusion_hu;
        self.white += 0.4 * perfusion_hu;
        if let Some(hu) = sinus_hu {
            self.sinus = hu;
            // Dura and plexus have no barrier.
            self.dura += 3.0 * perfusion_hu;
            self.choroid = self.choroid.map(|c| c.max(0.45 * hu));
        }
    }

    /// HU of white matter.
    pub(super) fn white(&self) -> f32 {
        self.white
    }

    /// CSF of a cistern.
    pub(super) fn cistern(&self) -> Tissue {
        Tissue {
            hu: self.csf,
            space: Space::Subarachnoid,
        }
    }

    /// The strata that this brain puts a head into.
    pub(super) fn strata(&self) -> impl Iterator<Item = Stratum> {
        let specks = self.blobs.iter().any(|blob| blob.hu > 60.0);
        [
            (specks || self.pallidum > 0.0, Stratum::Calcification),
            (self.blobs.iter().any(|blob| blob.hu <= 60.0), Stratum::OldInfarct),
            (self.atrophy > 0.55, Stratum::Atrophy),
        ]
        .into_iter()
        .filter_map(|(is, stratum)| is.then_some(stratum))
    }

    /// Tissue at a point of the cavity.
    #[inline]
    pub(super) fn sample(&self, p: Point, place: Place, skull: &Skull) -> Tissue {
        let inner = place.depth.min(0.85 * place.above);
        let mut tissue = self.plain(p, place, inner, skull);
        for hygroma in &self.hygromas {
            let cos = dot(place.direction, hygroma.direction);
            let angle = (2.0 - 2.0 * cos).max(0.0) / sq(hygroma.extent);
            if angle < 1.0 && place.depth < hygroma.thickness * (1.0 - angle) {
                tissue = Tissue {
                    hu: hygroma.hu,
                    space: Space::Other,
                };
            }
        }
        if tissue.space == Space::Parenchyma || tissue.space == Space::Subarachnoid {
            for blob in &self.blobs {
                let f = ellipsoid(p, blob.centre, blob.radii);
                if f < 3.0 {
                    let edge = f.sqrt() + 0.22 * blob.noise.at(p, 4.0 / (blob.radii[0] + 8.0));
                    let share = step(1.15, 0.85, edge);
                    tissue.hu = mix(tissue.hu, tissue.hu.min(blob.hu).max(blob.hu.min(60.0)), share);
                    if blob.hu > 60.0 {
                        tissue.hu = mix(tissue.hu, blob.hu, share);
                    }
                }
            }
        }
        tissue
    }

    #[inline]
    fn plain(&self, p: Point, place: Place, inner: f32, skull: &Skull) -> Tissue {
        let [x, y, z] = p;
        let ax = x.abs();
        let left = usize::from(x > 0.0);
        let csf = |space| Tissue { hu: self.csf, space };
        let other = |hu| Tissue {
            hu,
            space: Space::Other,
        };
        // Dura on the inner table.
        if inner < 0.5 {
            return other(self.dura);
        }
        let slow = self.slow.at(p, 1.0 / 9.0);
        // Compartments: the tentorium slopes from the incisura to the transverse sinuses.
        let back = y - 22.0;
        let slope = (0.46 - 0.0035 * back).max(0.2);
        let roof = self.tentorium_apex - 0.40 * back - slope * ax + 0.8 * slow;
        let behind = y > skull.petrous_ridge(ax) - 2.0;
        let incisura = sq(x / 15.0) + sq((y - 10.0) / 21.0) < 1.0;
        let below_tentorium = z < roof && behind && y > -1.0;
        // Venous sinuses.
        let transverse = self.sinus_radius * (1.0 + self.dominant * x.signum());
        if place.depth < 1.4 * self.sinus_radius {
            if ax < 0.9 * (self.sinus_radius + 1.0) - 0.35 * place.depth
                && (z > roof || !behind)
                && y > -75.0
                && z > -2.0
            {
                return other(self.sinus);
            }
            if y > 20.0 && (z - roof).abs() < transverse && place.depth < 1.4 * transverse && ax < 62.0 {
                return other(self.sinus);
            }
        }
        // Falx and the fissure around it.
        let drift = 0.9 * self.falx_drift.at([0.0, y, z], 1.0 / 16.0);
        let from_falx = (x - drift).abs();
        if from_falx < 8.0 && (z > roof || y < 20.0) {
            let rim = sq((y - 2.0) / 50.0) + sq((z - 6.0) / 36.0);
            let callosum = sq((y - 2.0) / 42.0) + sq((z - 9.0) / 25.0);
            if rim > 1.0 && z > -8.0 {
                let calcium = if self.falx_calcium > 0.0 {
                    self.grain.at([0.0, y, z], 1.0 / 5.0)
                } else {
                    0.0
                };
                let plaque = calcium > 1.5 && from_falx < 1.6;
                if plaque || from_falx < self.falx_thickness * (0.8 + 0.3 * step(0.0, 60.0, y)) {
                    return other(if plaque { self.falx_calcium } else { self.dura });
                }
            }
            let straight = [0.0, 26.0, self.tentorium_apex + 1.0];
            let confluence = [0.0, 82.0, self.tentorium_apex - 24.0];
            if capsule(p, straight, 1.6, confluence, 2.4) < 0.0 {
                return other(self.sinus);
            }
            let gap =
                (1.5 * self.atrophy + 0.9 * slow - 0.3).clamp(0.0, 4.0) * (1.0 + step(-20.0, -50.0, y) * 0.6);
            if callosum > 1.0 && z > -12.0 && from_falx < self.falx_thickness + gap {
                return csf(Space::Subarachnoid);
            }
        }
        if !incisura && behind && y > 2.0 && (z - roof).abs() < self.tentorium_thickness && ax < 64.0 {
            return other(self.dura);
        }
        if let Some(vessel) = self.vessel(p) {
            return other(vessel);
        }
        if below_tentorium {
            return self.posterior_fossa(p, inner, slow, skull);
        }
        if let Some(tissue) = self.midbrain_cisterns(p, slow, skull) {
            return tissue;
        }
        let vent = self.lateral_ventricle(p, left);
        if vent < 0.0 {
            return self.in_ventricle(p, left);
        }
        // Third ventricle and pineal gland.
        if ax < 9.0 && (-14.0..34.0).contains(&y) && (-14.0..14.0).contains(&z) {
            if ellipsoid(p, [0.0, 25.0, 3.0], [self.pineal_radius; 3]) < 1.0 {
                let dense = self.pineal_hu < 60.0 || self.grain.at(p, 0.5) > -0.4;
                return other(if dense { self.pineal_hu } else { 42.0 });
            }
            if ellipsoid(p, [0.0, 3.0, -1.0], [self.third, 15.0, 11.0]) < 1.0 {
                return csf(Space::Ventricle);
            }
            if y > 18.0 && ellipsoid(p, [0.0, 29.0, 1.0], [8.0 * self.cistern, 4.0 * self.cistern, 6.0]) < 1.0
            {
                return csf(Space::Subarachnoid);
            }
        }
        self.hemisphere(p, place, inner, vent, slow, left)
    }

    #[inline]
    fn hemisphere(&self, p: Point, place: Place, inner: f32, vent: f32, slow: f32, left: usize) -> Tissue {
        let [x, y, z] = p;
        let ax = x.abs();
        let csf = Tissue {
            hu: self.csf,
            space: Space::Subarachnoid,
        };
        let parenchyma = |hu: f32| Tissue {
            hu: hu + 1.2 * slow,
            space: Space::Parenchyma,
        };
        let front = 1.0 + 0.8 * step(-10.0, -60.0, y);
        if inner < 0.5 + self.surface_csf * front * (1.0 + 0.4 * slow).max(0.0) {
            return csf;
        }
        // Sylvian fissure and the cistern over the insula.
        if (22.0..66.0).contains(&ax) && (-42.0..32.0).contains(&y) && (-24.0..34.0).contains(&z) {
            let width = self.sylvian[left] * (1.0 + 0.5 * slow).max(0.1);
            let Insula {
                at,
                fissure,
                ends,
                tall,
            } = Insula::beside(y, z, slow);
            if ax > 31.0 && (z - fissure).abs() < width * ends {
                return csf;
            }
            if (ax - at).abs() < width * 1.2 * ends * tall {
                return csf;
            }
            if ax < at && ax > at - INSULA_MM && ends * tall > 0.5 {
                return parenchyma(self.grey);
            }
        }
        // Sulci: sheets at right angles to the surface where the folding noise is near zero.
        let at = [
            place.direction[0] * 70.0,
            place.direction[1] * 70.0,
            place.direction[2] * 70.0 + z.min(8.0) - 8.0,
        ];
        // Slow noise bends them, so that they wind.
        let wander = 0.12 * inner + 1.6 * slow;
        let fold = self
            .folding
            .at([at[0] + wander, at[1] - wander, at[2] + wander], 1.0 / self.fold);
        // Noise of unit variance changes by about 0.75 a cell.
        let from_sulcus = fold.abs() * self.fold * 1.3;
        let depth = self.sulcus_depth * (1.0 + 0.45 * slow).max(0.1);
        let fade = 1.0 - place.depth / depth;
        if fade > 0.0 && from_sulcus < self.sulcus_width * (0.35 + fade) * (1.0 + 0.5 * slow).max(0.0) {
            return csf;
        }
        let ribbon = 3.3;
        if inner < self.surface_csf + 0.5 + ribbon || (fade > 0.0 && from_sulcus < self.sulcus_width + 2.4) {
            return parenchyma(self.grey);
        }
        if self.nucleus([ax, y, z], slow, left).is_some() {
            if self.pallidum > 0.0 {
                let f = ellipsoid([ax, y, z], [19.5, -2.0, 0.0], [4.0, 8.0, 5.0]);
                let speck = self.grain.at(p, 0.45);
                if f < 1.0 + 0.4 * speck {
                    return Tissue {
                        hu: mix(self.grey, self.pallidum, (0.6 + 0.4 * speck).clamp(0.0, 1.0)),
                        space: Space::Other,
                    };
                }
            }
            return parenchyma(self.grey);
        }
        let pale = self.leukoaraiosis * (step(16.0, 2.0, vent) + 0.35 * (slow - 0.4).max(0.0));
        parenchyma(self.white - pale)
    }

    /// The deep grey matter that holds a point, given by its distance from the midline, back and up.
    #[inline]
    fn nucleus(&self, side: Point, slow: f32, left: usize) -> Option<Nucleus> {
        let [ax, y, z] = side;
        if ax >= 40.0 || !(-36.0..30.0).contains(&y) || !(-16.0..24.0).contains(&z) {
            return None;
        }
        let caudate = [15.5 + 3.0 * self.ventricle[left], -20.0, 8.0];
        if ellipsoid(side, [11.0 + 0.5 * self.third, 8.0, 4.0], [8.5, 14.0, 9.0]) < 1.0 + 0.15 * slow {
            Some(Nucleus::Thalamus)
        } else if ellipsoid(side, caudate, [5.0, 12.0, 9.0]) < 1.0 {
            Some(Nucleus::Caudate)
        } else if ellipsoid(side, [24.5, -3.0, 0.0], [6.5, 18.0, 10.5]) < 1.0 + 0.15 * slow {
            Some(Nucleus::Lentiform)
        } else {
            None
        }
    }

    /// Signed distance from the lateral ventricle, mm; far away a large number.
    #[inline]
    pub(super) fn lateral_ventricle(&self, p: Point, left: usize) -> f32 {
        let [x, y, z] = p;
        let ax = x.abs();
        if ax > 52.0 || !(-56.0..82.0).contains(&y) || !(-40.0..46.0).contains(&z) {
            return 50.0;
        }
        let scale = self.ventricle[left];
        let spread = 0.75 + 0.25 * scale;
        // (x, y, z, radius): frontal tip, frontal horn, body, behind the body, trigone, occipital tip, temporal horn, its tip.
        const CHAIN: [[f32; 4]; 8] = [
            [7.0, -33.0, 3.0, 2.5],
            [9.0, -20.0, 11.0, 5.0],
            [9.5, 0.0, 18.0, 4.6],
            [15.0, 22.0, 16.0, 5.2],
            [24.0, 35.0, 5.0, 6.2],
            [22.0, 60.0, 1.0, 1.8],
            [32.0, 18.0, -14.0, 2.6],
            [28.0, -8.0, -22.0, 1.4],
        ];
        const LINKS: [(usize, usize); 7] = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (4, 6), (6, 7)];
        let q = [ax, y, z];
        let mut nearest = 50.0f32;
        for (a, b) in LINKS {
            let node = |i: usize| {
                (
                    [CHAIN[i][0] * spread, CHAIN[i][1], CHAIN[i][2]],
                    CHAIN[i][3] * scale,
                )
            };
            let ((start, ra), (end, rb)) = (node(a), node(b));
            nearest = nearest.min(capsule(q, start, ra, end, rb));
        }
        // The septum keeps the two sides apart.
        nearest.max(1.0 - ax)
    }

    #[inline]
    fn in_ventricle(&self, p: Point, left: usize) -> Tissue {
        let scale = self.ventricle[left];
        let spread = 0.75 + 0.25 * scale;
        let plexus = [23.0 * spread, 33.0, 5.0];
        let r = self.choroid_radius;
        let q = [p[0].abs(), p[1], p[2]];
        if ellipsoid(q, plexus, [r, 1.8 * r, 1.4 * r]) < 1.0 {
            let calcium = self.choroid[left];
            let dense = calcium < 60.0 || self.grain.at(p, 0.5) > 0.0;
            return Tissue {
                hu: if dense { calcium } else { 40.0 },
                space: Space::Other,
            };
        }
        if capsule(q, [10.0 * spread, 2.0, 15.0], 1.0, plexus, 1.6) < 0.0 {
            return Tissue {
                hu: 36.0,
                space: Space::Other,
            };
        }
        Tissue {
            hu: self.csf,
            space: Space::Ventricle,
        }
    }

    /// Arteries at the base, and the calcium in their walls.
    #[inline]
    fn vessel(&self, p: Point) -> Option<f32> {
        let [x, y, z] = p;
        let ax = x.abs();
        if self.has_tree || ax > 42.0 || !(-34.0..24.0).contains(&y) || !(-60.0..4.0).contains(&z) {
            return None;
        }
        if ax < 10.0 {
            let [low, middle, top] = self.basilar;
            if capsule(p, low, 1.6, middle, 1.9) < 0.0 || capsule(p, middle, 1.9, top, 1.8) < 0.0 {
                return Some(self.artery);
            }
        }
        let q = [ax, y, z];
        let siphon = capsule(q, [11.0, -6.0, -22.0], 2.2, [12.0, -10.0, -12.0], 2.2);
        if siphon < 0.0 {
            let wall = self.siphon > 0.0 && siphon > -1.2 && self.grain.at(p, 0.4) > 0.2;
            return Some(if wall { self.siphon } else { self.artery });
        }
        let m1 = capsule(q, [12.0, -10.0, -12.0], 1.6, [33.0, -15.0, -8.0], 1.2);
        let a1 = capsule(q, [12.0, -10.0, -12.0], 1.1, [1.5, -18.0, -8.0], 1.0);
        (m1 < 0.0 || a1 < 0.0).then_some(self.artery)
    }

    /// Midbrain, the cisterns around it, and the suprasellar star.
    #[inline]
    fn midbrain_cisterns(&self, p: Point, slow: f32, skull: &Skull) -> Option<Tissue> {
        let [x, y, z] = p;
        let ax = x.abs();
        if ax > 24.0 || !(-24.0..36.0).contains(&y) || !(-40.0..6.0).contains(&z) {
            return None;
        }
        let notch = 2.5 * step(6.0, 0.0, ax);
        let stem = sq(x / 15.0) + sq((y - 12.0 - 0.1 * z) / (12.5 - notch));
        if stem < 1.0 {
            let aqueduct = sq(x) + sq(y - 20.0) < 2.0;
            let space = if aqueduct {
                Space::Ventricle
            } else {
                Space::Parenchyma
            };
            return (z < -2.0).then_some(Tissue {
                hu: if aqueduct {
                    self.csf
                } else {
                    self.white + 4.0 + slow
                },
                space,
            });
        }
        let ring = 1.0 + 0.33 * self.cistern * (1.0 + 0.35 * slow);
        if stem < ring && z < 0.0 && y > -2.0 {
            return Some(Tissue {
                hu: self.csf,
                space: Space::Subarachnoid,
            });
        }
        let star = ellipsoid(
            p,
            [0.0, -5.0, skull.sella() + 5.0],
            [15.0 * self.cistern, 13.0, 8.0 * self.cistern],
        );
        if star < 1.0 + 0.2 * slow {
            // Optic chiasm, mamillary bodies and uncus are soft islands in it.
            let island = ellipsoid(p, [0.0, -8.0, skull.sella() + 7.0], [7.0, 4.0, 2.0]) < 1.0;
            return Some(if island {
                Tissue {
                    hu: self.white + 4.0,
                    space: Space::Parenchyma,
                }
            } else {
                Tissue {
                    hu: self.csf,
                    space: Space::Subarachnoid,
                }
            });
        }
        None
    }

    #[inline]
    fn posterior_fossa(&self, p: Point, inner: f32, slow: f32, skull: &Skull) -> Tissue {
        let [x, y, z] = p;
        let ax = x.abs();
        let csf = |space| Tissue { hu: self.csf, space };
        let parenchyma = |hu: f32| Tissue {
            hu: hu + 1.2 * slow,
            space: Space::Parenchyma,
        };
        // Brainstem: midbrain, pons, medulla.
        let axis = 12.0 + 0.28 * (-14.0 - z).max(0.0);
        let pons = ellipsoid(p, [0.0, axis - 1.0, -26.0], [16.0, 13.5, 14.0]);
        let stem = sq(x / mix(14.0, 8.0, step(-15.0, -48.0, z)))
            + sq((y - axis) / mix(12.5, 7.0, step(-15.0, -48.0, z)));
        if pons < 1.0 || stem < 1.0 {
            return parenchyma(self.white + 3.5);
        }
        if ellipsoid(
            [ax, y, z],
            [0.0, 33.0, -29.0],
            [8.0 * self.fourth, 6.0 * self.fourth, 11.0],
        ) < 1.0
        {
            return csf(Space::Ventricle);
        }
        // Cerebellar peduncles bridge the cistern beside the brainstem.
        let wall = 1.0 + 1.8 * self.cistern + 1.2 * self.atrophy;
        let front = skull.petrous_ridge(ax) + 1.5 + 2.0 * self.cistern + slow;
        let low = skull.posterior_floor() + 4.0;
        let magna = ellipsoid(
            p,
            [0.0, 62.0, low],
            [11.0 * self.cistern, 15.0, 15.0 * self.cistern],
        ) < 1.0 + 0.2 * slow;
        let bridge = ax > 12.0 && ax < 30.0 && y > 14.0;
        let superior = ellipsoid(
            p,
            [0.0, 29.0, -4.0],
            [10.0, 4.5 * self.cistern, 6.0 * self.cistern],
        ) < 1.0;
        if inner < wall || magna || superior || (y < front.max(axis) && !bridge) {
            return csf(Space::Subarachnoid);
        }
        // Folia: fine, nearly horizontal leaves.
        let folia = self.folding.at([0.25 * x, 0.25 * y, 1.1 * z], 1.0 / 2.6);
        let vermis = step(9.0, 4.0, ax) * 2.0;
        if folia.abs() < 0.10 + 0.25 * self.atrophy && inner < 9.0 {
            return csf(Space::Subarachnoid);
        }
        let core = ellipsoid([ax, y, z], [22.0, 42.0, -32.0], [14.0, 16.0, 12.0]) < 1.0;
        parenchyma(if core {
            self.cerebellum - 4.0
        } else {
            self.cerebellum + vermis
        })
    }
}

/// Scaled to length 1.
pub(super) fn unit(v: Point) -> Point {
    let length = dot(v, v).sqrt();
    [v[0] / length, v[1] / length, v[2] / length]
}

/// Scalar product.
#[inline]
pub(super) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
