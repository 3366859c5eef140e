//! The arteries of a head as a tree, and its veins: a seed → tubes of flowing blood, calcium and clot.
//!
//! Internal carotid (canal, siphon, terminus), M1, two or three M2 trunks over the insula and their branches to the surface, A1 to the vault, posterior communicating, vertebral, basilar, P1 to the calcarine, superior cerebellar.
//! The circle of Willis varies (A1, posterior cerebral, communicating and vertebral arteries); calibres are textbook means with their usual spread: carotid terminus 3.8 mm, M1 2.9 mm, A1 2.2 mm, basilar 3.3 mm.
//! An occlusion takes the lumen from its site on: a clot, then what collaterals refill, thinner and fainter, from the far end back.

use super::brain::unit;
use super::noise::{Draw, Field, Point, mix, step};
use super::range::Ranges;
use super::skull::Skull;
use super::veins::veins;
use super::vessels::{Closure, Content, Met, Node, Segment, Tubes, distance, path};
use super::{Kind, Site};
use crate::domain::artery::Artery;

/// Chances of the variants.
const FETAL: f32 = 0.18;
const NO_PCOM: f32 = 0.35;
const HYPOPLASTIC_A1: f32 = 0.12;
const NO_ACOM: f32 = 0.1;
const THIRD_TRUNK: f32 = 0.25;
const STENOSIS: f32 = 0.2;
/// HU of blood without contrast agent.
const PLAIN_BLOOD_HU: [f32; 2] = [36.0, 52.0];
/// How much denser than flowing blood a clot must be to be told from it, HU.
const VISIBLE_HU: f32 = 8.0;
/// HU of still blood and thin clot on CTA: hardly above brain.
const STASIS_HU: f32 = 45.0;

/// A named stretch of artery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Carotid,
    M1,
    M2,
    A1,
    A2,
    Acom,
    Pcom,
    Vertebral,
    Basilar,
    P1,
    P2,
    Small,
}

impl Name {
    /// The artery of the tree that it belongs to.
    fn named(self) -> Option<Artery> {
        match self {
            Self::Carotid => Some(Artery::InternalCarotid),
            Self::M1 => Some(Artery::M1),
            Self::M2 => Some(Artery::M2),
            Self::A1 | Self::A2 => Some(Artery::AnteriorCerebral),
            Self::P1 | Self::P2 => Some(Artery::PosteriorCerebral),
            Self::Basilar => Some(Artery::Basilar),
            Self::Vertebral => Some(Artery::Vertebral),
            Self::Acom | Self::Pcom | Self::Small => None,
        }
    }
}

/// One artery.
#[derive(Debug, Clone)]
struct Vessel {
    name: Name,
    /// −1 right, 1 left, 0 midline.
    side: f32,
    nodes: Vec<Node>,
    /// The artery and node that it leaves from.
    from: Option<(usize, usize)>,
    /// How much of the agent reaches each node, 0 to 1.
    flow: Vec<f32>,
    /// Nodes that hold clot.
    clot: Vec<bool>,
    calcium: f32,
    cistern_mm: f32,
}

/// Vessels of one head.
#[derive(Debug, Clone)]
pub(super) struct Vessels {
    tubes: Tubes,
    pub(super) closure: Option<Closure>,
    /// HU of venous blood, for the dural sinuses.
    pub(super) sinus_hu: Option<f32>,
    /// HU that the agent adds to brain.
    pub(super) perfusion_hu: f32,
}

impl Vessels {
    /// Draws the vessels: the tree of a seed is the same before and after it is closed, with and without contrast agent.
    pub(super) fn draw(draws: &mut [Draw; 2], kind: Kind, ranges: &Ranges, skull: &Skull) -> Self {
        let [draw, event] = draws;
        let noise = draw.field();
        let mut tree = Tree {
            arteries: Vec::new(),
            noise,
            acom: !draw.chance(NO_ACOM),
            pcom: [0.0; 2],
        };
        tree.grow(draw, skull);
        let veins = veins(draw, skull, &noise);
        let contrast = kind.contrast();
        let mut closure = match kind {
            Kind::Occlusion => Some(tree.close(event, ranges, &[0.24, 0.36, 0.24, 0.16])),
            // What causes an infarct may show as a dense artery.
            Kind::Infarct => Some(tree.close(event, ranges, &[0.15, 0.45, 0.4, 0.0])),
            _ => None,
        };
        let plain = draw.within(PLAIN_BLOOD_HU);
        let full = draw.within(ranges.artery_hu);
        let venous = mix(60.0, 0.75 * full, draw.within(ranges.venous));
        let clot_hu = event.within(ranges.clot_hu);
        let dense = contrast || event.chance(0.7);
        if let Some(closure) = &mut closure {
            closure.dense = dense && clot_hu > plain + VISIBLE_HU;
        }
        let mut segments = Vec::new();
        for artery in &tree.arteries {
            for (i, pair) in artery.nodes.windows(2).enumerate() {
                let flow = 0.5 * (artery.flow[i] + artery.flow[i + 1]);
                let clot = artery.clot[i] && artery.clot[i + 1];
                let hu = match (contrast, clot) {
                    (true, true) => clot_hu.min(70.0),
                    (true, false) => mix(STASIS_HU, full, flow),
                    (false, true) if dense => clot_hu,
                    (false, _) => plain,
                };
                // A vessel that is hardly filled is also narrow.
                let narrow = if clot || !contrast {
                    1.0
                } else {
                    mix(0.7, 1.0, flow)
                };
                segments.push(Segment {
                    ends: [pair[0].at, pair[1].at],
                    radii: [pair[0].radius * narrow, pair[1].radius * narrow],
                    content: if clot { Content::Clot } else { Content::Artery },
                    hu,
                    calcium: artery.calcium,
                    cistern_mm: artery.cistern_mm,
                    artery: artery.name.named(),
                });
            }
        }
        if contrast {
            for nodes in &veins {
                segments.extend(nodes.windows(2).map(|pair| Segment {
                    ends: [pair[0].at, pair[1].at],
                    radii: [pair[0].radius, pair[1].radius],
                    content: Content::Vein,
                    hu: venous,
                    calcium: 0.0,
                    cistern_mm: 0.0,
                    artery: None,
                }));
            }
        }
        Self {
            tubes: Tubes::new(segments, noise),
            closure,
            sinus_hu: contrast.then_some(venous),
            perfusion_hu: if contrast { draw.within([2.0, 7.0]) } else { 0.0 },
        }
    }

    /// What is at a point.
    #[inline]
    pub(super) fn at(&self, p: Point) -> Option<Met> {
        self.tubes.at(p)
    }

    /// The artery that is filled at a point.
    pub(super) fn artery_at(&self, p: Point) -> Option<Artery> {
        self.tubes.artery_at(p)
    }
}

/// Arteries while they grow.
struct Tree {
    arteries: Vec<Vessel>,
    noise: Field,
    acom: bool,
    /// Radius of the posterior communicating arteries, right and left; 0 without.
    pcom: [f32; 2],
}

impl Tree {
    fn add(
        &mut self,
        (name, side): (Name, f32),
        from: Option<(usize, usize)>,
        controls: &[[f32; 4]],
        wander: f32,
    ) -> usize {
        let mut controls = controls.to_vec();
        if let Some((parent, node)) = from {
            let start = self.arteries[parent].nodes[node].at;
            controls.insert(0, [start[0], start[1], start[2], controls[0][3]]);
        }
        let nodes = path(&controls, wander, &self.noise);
        let cistern_mm = match name {
            Name::Carotid | Name::Vertebral => 0.0,
            Name::M1 | Name::Basilar | Name::P1 | Name::A1 => 1.8,
            Name::Small => 0.4,
            _ => 0.9,
        };
        self.arteries.push(Vessel {
            name,
            side,
            flow: vec![1.0; nodes.len()],
            clot: vec![false; nodes.len()],
            nodes,
            from,
            calcium: 0.0,
            cistern_mm,
        });
        self.arteries.len() - 1
    }

    fn end(&self, artery: usize) -> (usize, usize) {
        (artery, self.arteries[artery].nodes.len() - 1)
    }

    fn grow(&mut self, draw: &mut Draw, skull: &Skull) {
        let basilar = self.grow_behind(draw, skull);
        let mut a1 = [None; 2];
        let weak = draw.chance(HYPOPLASTIC_A1).then(|| draw.sign());
        for (index, side) in [(0, -1.0), (1, 1.0)] {
            let scale = draw.within([0.88, 1.14]);
            let carotid = self.grow_carotid(draw, skull, side, scale);
            let terminus = self.end(carotid);
            self.grow_middle(draw, skull, side, terminus, scale);
            // The other A1 makes up for a weak one.
            let a1_radius = 1.08
                * scale
                * match weak {
                    Some(weak) if weak == side => draw.within([0.2, 0.55]),
                    Some(_) => 1.2,
                    None => draw.within([0.88, 1.12]),
                };
            a1[index] = Some(self.grow_anterior(draw, skull, side, terminus, a1_radius));
            self.grow_posterior(draw, skull, side, carotid, basilar);
        }
        if let ([Some(right), Some(left)], true) = (a1, self.acom) {
            let (from, to) = (self.end(right), self.end(left));
            let to = self.arteries[to.0].nodes[to.1].at;
            self.add((Name::Acom, 0.0), Some(from), &[[to[0], to[1], to[2], 0.75]], 0.0);
        }
    }

    fn grow_carotid(&mut self, draw: &mut Draw, skull: &Skull, side: f32, scale: f32) -> usize {
        let sella = skull.sella();
        let mut at = |x: f32, y: f32, z: f32, r: f32| {
            let mut j = || draw.around(1.0);
            [side * (x + j()), y + j(), z + j(), r * scale]
        };
        let controls = [
            at(27.0, 12.0, -122.0, 2.5),
            at(28.0, 9.0, -85.0, 2.45),
            at(27.0, 10.0, -52.0, 2.4),
            at(25.0, 9.0, -33.0, 2.3),
            at(17.0, 5.0, sella - 12.0, 2.25),
            at(12.5, 2.0, sella - 8.0, 2.2),
            at(12.0, -3.0, sella - 3.0, 2.2),
            at(12.0, -12.0, sella - 3.0, 2.15),
            at(12.0, -17.0, sella + 1.0, 2.1),
            at(11.5, -13.0, sella + 5.0, 2.0),
            at(12.5, -8.5, sella + 8.5, 1.9),
        ];
        let carotid = self.add((Name::Carotid, side), None, &controls, 0.7);
        if draw.chance(0.4) {
            self.arteries[carotid].calcium = draw.within_log([300.0, 1000.0]);
        }
        if draw.chance(STENOSIS) {
            self.narrow(draw, carotid);
        }
        carotid
    }

    fn grow_middle(
        &mut self,
        draw: &mut Draw,
        skull: &Skull,
        side: f32,
        terminus: (usize, usize),
        scale: f32,
    ) {
        let start = self.arteries[terminus.0].nodes[terminus.1].at;
        let fissure = |y: f32| -9.0 + 0.32 * (y + 30.0);
        let lateral = draw.within([28.5, 33.5]);
        let (y, z) = (draw.within([-14.0, -6.0]), draw.within([-8.0, -3.0]));
        let bow = draw.within([-2.5, 3.0]);
        let x0 = start[0].abs();
        let r = 1.46 * scale;
        let m1 = self.add(
            (Name::M1, side),
            Some(terminus),
            &[
                [
                    side * mix(x0, lateral, 0.33),
                    mix(start[1], y, 0.33) + 0.5 * bow,
                    mix(start[2], z, 0.33) + bow,
                    r,
                ],
                [
                    side * mix(x0, lateral, 0.67),
                    mix(start[1], y, 0.67),
                    mix(start[2], z, 0.67) + 0.6 * bow,
                    0.97 * r,
                ],
                [side * lateral, y, z, 0.93 * r],
            ],
            0.6,
        );
        if draw.chance(0.3 * STENOSIS) {
            self.narrow(draw, m1);
        }
        let fork = self.end(m1);
        let trunks = if draw.chance(THIRD_TRUNK) { 3 } else { 2 };
        // Where trunks run along the insula, from the front to the back.
        for trunk in 0..trunks {
            let share = mix(
                0.0,
                1.0,
                if trunks == 2 {
                    [0.15, 0.8][trunk]
                } else {
                    [0.0, 0.5, 1.0][trunk]
                },
            );
            let r = 1.08 * scale * draw.within([0.78, 1.12]) * if trunks == 3 { 0.88 } else { 1.0 };
            let over = |y: f32, up: f32| [side * (34.3 + 0.03 * up * up), y, fissure(y) + up];
            let first = over(mix(-17.0, -1.0, share) + draw.around(2.0), 2.0 + draw.around(1.0));
            let second = over(
                mix(-16.0, 10.0, share) + draw.around(3.0),
                mix(9.0, 5.0, share) + draw.around(2.0),
            );
            let third = over(
                mix(-10.0, 21.0, share) + draw.around(3.0),
                mix(13.0, 7.5, share) + draw.around(2.0),
            );
            let m2 = self.add(
                (Name::M2, side),
                Some(fork),
                &[
                    [first[0], first[1], first[2], r],
                    [second[0], second[1], second[2], 0.9 * r],
                    [third[0], third[1], third[2], 0.75 * r],
                ],
                0.8,
            );
            let len = self.arteries[m2].nodes.len();
            for branch in 0..draw.count(2, 4) {
                let node = if branch == 0 {
                    len - 1
                } else {
                    draw.count(len / 3, len - 2)
                };
                self.grow_cortical(draw, skull, side, (m2, node), 0.68 * r, share);
            }
        }
    }

    /// From the insula round the operculum to the surface, and along it.
    fn grow_cortical(
        &mut self,
        draw: &mut Draw,
        skull: &Skull,
        side: f32,
        from: (usize, usize),
        radius: f32,
        share: f32,
    ) {
        let start = self.arteries[from.0].nodes[from.1].at;
        let fissure = -9.0 + 0.32 * (start[1] + 30.0);
        let up = draw.chance(0.62 - 0.3 * share);
        let out = |x: f32, y: f32, z: f32, r: f32| [side * x, y, z, r * radius];
        let lip = [
            out(40.0, start[1] + 2.0, fissure + 3.0, 1.0),
            out(49.0, start[1] + 4.0, fissure + 1.5, 0.95),
        ];
        let azimuth = mix(-0.55, 0.75, share) + draw.around(0.35);
        let mut controls = lip.to_vec();
        let climbs: &[f32] = if up {
            &[0.1, 0.3, 0.55, 0.85]
        } else {
            &[-0.12, -0.22, -0.3, -0.34]
        };
        for (i, climb) in (0u8..).zip(climbs) {
            let t = f32::from(i) / 3.0;
            let direction = unit([side, azimuth * (0.5 + 0.7 * t) + draw.around(0.06), *climb]);
            let p = skull.on_table(direction, 4.0 + draw.within([0.0, 5.0]));
            controls.push([p[0], p[1], p[2], mix(0.85, 0.45, t) * radius]);
        }
        self.add((Name::Small, side), Some(from), &controls, 1.2);
    }

    fn grow_anterior(
        &mut self,
        draw: &mut Draw,
        skull: &Skull,
        side: f32,
        terminus: (usize, usize),
        radius: f32,
    ) -> usize {
        let start = self.arteries[terminus.0].nodes[terminus.1].at;
        let gap = draw.within([1.2, 2.2]);
        let (y, z) = (-19.0 + draw.around(1.5), start[2] + draw.around(2.0));
        let a1 = self.add(
            (Name::A1, side),
            Some(terminus),
            &[
                [
                    side * 7.5,
                    -14.0 + draw.around(1.5),
                    start[2] + draw.around(2.0),
                    radius,
                ],
                [side * gap, y, z, 0.95 * radius],
            ],
            0.6,
        );
        let mut at = |x: f32, y: f32, z: f32, r: f32| {
            [
                side * (gap + x).max(0.8),
                y + draw.around(1.5),
                z + draw.around(1.5),
                r,
            ]
        };
        let pericallosal = [
            at(0.0, -25.0, -3.0, 1.0),
            at(0.0, -36.0, 2.0, 0.95),
            at(0.0, -42.0, 12.0, 0.9),
            at(0.0, -37.0, 25.0, 0.8),
            at(0.0, -20.0, 36.0, 0.7),
            at(0.3, 3.0, 40.0, 0.6),
            at(0.3, 24.0, 38.0, 0.45),
        ];
        let from = self.end(a1);
        let a2 = self.add((Name::A2, side), Some(from), &pericallosal, 0.6);
        for along in [-0.85f32, -0.35, 0.15] {
            let len = self.arteries[a2].nodes.len();
            let node = draw.count(len / 3, len - 2);
            let (mut controls, start) = (Vec::new(), self.arteries[a2].nodes[node].at);
            let top = skull.on_table(unit([side * 0.05, along + draw.around(0.15), 0.8]), 6.0);
            for t in [0.35f32, 0.7, 1.0] {
                let x = side * mix(gap, 5.0, t);
                let at: [f32; 2] = [mix(start[1], top[1], t), mix(start[2], top[2], t)];
                controls.push([x, at[0], at[1], mix(0.65, 0.4, t)]);
            }
            self.add((Name::Small, side), Some((a2, node)), &controls, 1.2);
        }
        a1
    }

    /// The y of the front of the brainstem over the clivus at a height.
    fn clivus(skull: &Skull, z: f32) -> f32 {
        4.6 + (skull.sella() - z) / 2.2
    }

    fn grow_behind(&mut self, draw: &mut Draw, skull: &Skull) -> usize {
        let y = |z: f32| Self::clivus(skull, z);
        let drift = draw.around(4.5);
        let (low, tip) = (-47.0 + draw.around(4.0), skull.sella() + draw.within([2.0, 6.0]));
        let r = draw.within([1.4, 1.9]);
        let basilar = self.add(
            (Name::Basilar, 0.0),
            None,
            &[
                [0.3 * drift, y(low), low, r],
                [drift, y(mix(low, tip, 0.33)), mix(low, tip, 0.33), r],
                [0.7 * drift, y(mix(low, tip, 0.67)), mix(low, tip, 0.67), 0.97 * r],
                [draw.around(1.0), y(tip).max(3.0), tip, 0.9 * r],
            ],
            0.7,
        );
        if draw.chance(0.3 * STENOSIS) {
            self.narrow(draw, basilar);
        }
        let junction = self.arteries[basilar].nodes[0].at;
        let dominant = draw.around(0.3);
        for side in [-1.0f32, 1.0] {
            let r = draw.within([1.4, 1.8]) * (1.0 + side * dominant);
            let mut at = |x: f32, y: f32, z: f32| [side * (x + draw.around(1.0)), y + draw.around(1.0), z, r];
            let controls = [
                at(26.0, 26.0, -120.0),
                at(26.0, 26.0, -92.0),
                at(27.0, 34.0, -82.0),
                at(20.0, 43.0, -78.0),
                at(11.0, 36.0, -70.0),
                at(6.5, junction[1] + 6.0, low - 10.0),
                [junction[0], junction[1], junction[2], r],
            ];
            let vertebral = self.add((Name::Vertebral, side), None, &controls, 0.6);
            if draw.chance(0.25) {
                self.arteries[vertebral].calcium = draw.within_log([250.0, 900.0]);
            }
            let below = self.arteries[basilar].nodes.len().saturating_sub(3);
            let z = tip - 3.0;
            let around = |x: f32, y: f32| [side * x, y, z, 0.6];
            self.add(
                (Name::Small, side),
                Some((basilar, below)),
                &[
                    around(8.0, 3.0),
                    around(16.5, 10.0),
                    around(15.0, 24.0),
                    around(8.0, 40.0),
                ],
                0.8,
            );
        }
        basilar
    }

    fn grow_posterior(&mut self, draw: &mut Draw, skull: &Skull, side: f32, carotid: usize, basilar: usize) {
        let tip = self.end(basilar);
        let start = self.arteries[tip.0].nodes[tip.1].at;
        let fetal = draw.chance(FETAL);
        let pcom = match fetal {
            true => draw.within([0.85, 1.15]),
            false if draw.chance(NO_PCOM) => 0.0,
            false => draw.within([0.3, 0.75]),
        };
        self.pcom[usize::from(side > 0.0)] = pcom;
        let join = [
            side * (7.5 + draw.around(1.0)),
            start[1] + 1.5,
            start[2] + 1.5 + draw.around(1.0),
        ];
        let r = draw.within([0.95, 1.2]);
        let p1_radius = if fetal { draw.within([0.2, 0.6]) } else { r };
        let p1 = self.add(
            (Name::P1, side),
            Some(tip),
            &[[join[0], join[1], join[2], p1_radius]],
            0.3,
        );
        if pcom > 0.0 {
            let len = self.arteries[carotid].nodes.len();
            let from = (carotid, len.saturating_sub(4));
            let leaves = self.arteries[carotid].nodes[from.1].at;
            let middle = [
                0.5 * (leaves[0] + join[0]),
                0.5 * (leaves[1] + join[1]),
                leaves[2].min(join[2]) - 0.5,
                pcom,
            ];
            self.add(
                (Name::Pcom, side),
                Some(from),
                &[middle, [join[0], join[1], join[2], pcom]],
                0.4,
            );
        }
        let mut at = |x: f32, y: f32, z: f32, r: f32| {
            [
                side * (x + draw.around(1.0)),
                y + draw.around(1.0),
                z + draw.around(1.0),
                r,
            ]
        };
        let controls = [
            at(15.5, 7.0, -8.0, r),
            at(19.0, 15.0, -6.0, 0.95 * r),
            at(16.5, 26.0, -3.0, 0.85 * r),
            at(12.0, 36.0, 0.0, 0.75 * r),
            at(9.0, 52.0, 3.0, 0.6 * r),
            at(6.0, 68.0, 5.0, 0.45 * r),
        ];
        let from = self.end(p1);
        let p2 = self.add((Name::P2, side), Some(from), &controls, 0.7);
        for (share, target) in [(0.45f32, [40.0, 40.0, -10.0]), (0.6, [14.0, 60.0, 20.0])] {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a few dozen nodes"
            )]
            let node = (share * self.arteries[p2].nodes.len() as f32) as usize;
            let start = self.arteries[p2].nodes[node].at;
            let target = skull.on_table(unit([side * target[0], target[1], target[2] - 8.0]), 8.0);
            let between = |t: f32, r: f32| {
                [
                    mix(start[0], target[0], t),
                    mix(start[1], target[1], t),
                    mix(start[2], target[2], t),
                    r,
                ]
            };
            self.add(
                (Name::Small, side),
                Some((p2, node)),
                &[between(0.4, 0.6), between(0.9, 0.4)],
                1.2,
            );
        }
    }

    /// A stenosis: narrower over a few millimetres, open.
    fn narrow(&mut self, draw: &mut Draw, artery: usize) {
        let len = self.arteries[artery].nodes.len();
        let (middle, least) = (draw.count(len / 3, len - 3), draw.within([0.45, 0.8]));
        for offset in 0..3usize {
            for node in [middle.saturating_sub(offset), (middle + offset).min(len - 1)] {
                let share = [least, mix(least, 1.0, 0.3), mix(least, 1.0, 0.7)][offset];
                let nodes = &mut self.arteries[artery].nodes;
                nodes[node].radius = nodes[node].radius.min(1.0f32.max(nodes[node].radius) * share);
            }
        }
    }

    fn pick(&self, draw: &mut Draw, name: Name, side: f32) -> usize {
        let all: Vec<usize> = (0..self.arteries.len())
            .filter(|i| self.arteries[*i].name == name && self.arteries[*i].side == side)
            .collect();
        all[draw.count(0, all.len() - 1)]
    }

    /// Closes one artery; `shares` are the chances of the sites in the order of [`Site::ALL`].
    fn close(&mut self, draw: &mut Draw, ranges: &Ranges, shares: &[f32; 4]) -> Closure {
        let (mut left, mut site) = (draw.within([0.0, 1.0]), Site::M1);
        for (candidate, share) in Site::ALL.into_iter().zip(shares) {
            site = candidate;
            left -= share;
            if left < 0.0 {
                break;
            }
        }
        let side = draw.sign();
        let (artery, along) = match site {
            Site::IcaTerminus => (self.pick(draw, Name::Carotid, side), [0.955, 0.985]),
            Site::M1 => (self.pick(draw, Name::M1, side), [0.08, 0.8]),
            Site::M2 => (self.pick(draw, Name::M2, side), [0.06, 0.5]),
            Site::Basilar => (self.pick(draw, Name::Basilar, 0.0), [0.05, 0.7]),
        };
        let side = if site == Site::Basilar { 0.0 } else { side };
        let collaterals = draw.within(ranges.collaterals);
        let length = draw.within_log(ranges.clot_mm);
        let last = self.arteries[artery].nodes.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few dozen nodes"
        )]
        let node = ((draw.within(along) * last as f32) as usize).min(last - 1);
        let clot = self.block(draw, (artery, node), length, collaterals);
        let at = clot[0];
        self.bypass(draw, site, side, collaterals);
        if site == Site::IcaTerminus {
            // The column below a closed terminus is still.
            let flow = draw.within([0.35, 1.0]);
            self.arteries[artery].flow.iter_mut().for_each(|f| *f *= flow);
        }
        Closure {
            site,
            side,
            at,
            clot,
            collaterals,
            dense: true,
        }
    }

    /// Fills `length` mm from a node on with clot and lowers the flow behind it; returns the clot's middle line in its artery and the main one after it.
    fn block(
        &mut self,
        draw: &mut Draw,
        (artery, node): (usize, usize),
        length: f32,
        collaterals: f32,
    ) -> Vec<Point> {
        // (artery, first node, millimetres since the clot began)
        let mut todo = vec![(artery, node, 0.0f32)];
        let mut line = Vec::new();
        while let Some((artery, first, mut walked)) = todo.pop() {
            let main = matches!(
                self.arteries[artery].name,
                Name::Carotid | Name::M1 | Name::M2 | Name::Basilar
            );
            // Into side branches a clot reaches a little.
            let reach = if main {
                length
            } else {
                length.min(walked + draw.within([0.0, 4.0]))
            };
            for i in first..self.arteries[artery].nodes.len() {
                let here = &mut self.arteries[artery];
                if i > first {
                    walked += distance(here.nodes[i].at, here.nodes[i - 1].at);
                }
                let clotted = walked <= reach || (i <= first + 1 && walked <= length);
                here.clot[i] = clotted;
                // From the far end back: least just behind the clot.
                here.flow[i] = if clotted {
                    0.0
                } else {
                    collaterals * (0.3 + 0.7 * step(0.0, 55.0, walked - length))
                };
                if clotted && main {
                    line.push(here.nodes[i].at);
                }
                for child in 0..self.arteries.len() {
                    if self.arteries[child].from == Some((artery, i)) {
                        todo.push((child, 0, walked));
                    }
                }
            }
        }
        line
    }

    /// What other arteries fill behind a closed one, by the circle of Willis.
    fn bypass(&mut self, draw: &mut Draw, site: Site, side: f32, collaterals: f32) {
        let across = if self.acom {
            draw.within([0.75, 1.0])
        } else {
            collaterals
        };
        for index in 0..self.arteries.len() {
            let (name, of) = (self.arteries[index].name, self.arteries[index].side);
            let supply = match (site, name) {
                (Site::IcaTerminus, Name::A2) if of == side => across,
                (Site::Basilar, Name::P2) if self.pcom[usize::from(of > 0.0)] > 0.0 => {
                    draw.within([0.7, 1.0]).max(collaterals)
                }
                _ => continue,
            };
            let mut filled = vec![index];
            while let Some(artery) = filled.pop() {
                self.arteries[artery]
                    .flow
                    .iter_mut()
                    .for_each(|f| *f = f.max(supply));
                self.arteries[artery].clot.fill(false);
                filled.extend(
                    (0..self.arteries.len())
                        .filter(|c| self.arteries[*c].from.is_some_and(|(p, _)| p == artery)),
                );
            }
        }
    }
}
