//! Tubes: tapered segments in a grid of cells → what a point meets, at the cost of the few segments near it.

use super::Site;
use super::noise::{Field, Point, capsule, sq};
use crate::domain::artery::Artery;

/// Where an artery is closed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Closure {
    pub(super) site: Site,
    /// −1 right, 1 left, 0 midline.
    pub(super) side: f32,
    /// Where the lumen ends, in head coordinates.
    pub(super) at: Point,
    /// The middle line of the clot in its main artery.
    pub(super) clot: Vec<Point>,
    /// How well the far branches are refilled, 0 to 1.
    pub(super) collaterals: f32,
    /// Whether the clot can be told from flowing blood by its density on a plain scan; of no meaning with contrast agent.
    pub(super) dense: bool,
}

/// What fills a tube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Flowing arterial blood.
    Artery,
    /// A clot where arterial blood should flow.
    Clot,
    /// Venous blood.
    Vein,
}

/// A straight piece of a tube.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) ends: [Point; 2],
    pub(super) radii: [f32; 2],
    pub(super) content: Content,
    pub(super) hu: f32,
    /// HU of calcium in the wall; 0 without.
    pub(super) calcium: f32,
    /// CSF around it where it runs through a cistern, mm.
    pub(super) cistern_mm: f32,
    /// Which artery it is a piece of, if it is of one with a name.
    pub(super) artery: Option<Artery>,
}

/// What a point meets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Met {
    /// The inside of a tube: HU and what it is.
    Lumen(f32, Content),
    /// The CSF around one.
    Cistern,
}

/// Edge of a cell, mm.
const CELL_MM: f32 = 5.0;
/// Cells along each axis, and the corner of the first.
const CELLS: [usize; 3] = [36, 44, 46];
const CORNER: Point = [-90.0, -110.0, -125.0];
/// An artery of the tree is told from here on: one voxel of a coarse grid, mm.
const LEAST_RADIUS_MM: f32 = 1.0;
/// HU of an artery that contrast agent fills.
const FILLED_HU: f32 = 120.0;
/// How thick a plaque is, mm.
const PLAQUE_MM: f32 = 0.9;

/// Segments, findable by place.
#[derive(Debug, Clone)]
pub(super) struct Tubes {
    segments: Vec<Segment>,
    /// Where each cell's segments start in `listed`; one more than cells.
    first: Vec<u32>,
    listed: Vec<u16>,
    grain: Field,
}

impl Tubes {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a head has a few thousand segments"
    )]
    pub(super) fn new(segments: Vec<Segment>, grain: Field) -> Self {
        let mut cells: Vec<Vec<u16>> = vec![Vec::new(); CELLS.iter().product()];
        for (index, segment) in segments.iter().enumerate() {
            let radius = segment.radii[0].max(segment.radii[1]).max(LEAST_RADIUS_MM);
            let reach = radius + segment.cistern_mm;
            let (mut from, mut to) = ([0.0; 3], [0.0; 3]);
            for axis in 0..3 {
                let [a, b] = segment.ends.map(|end| end[axis]);
                from[axis] = a.min(b) - reach;
                to[axis] = a.max(b) + reach;
            }
            let (from, to) = (corner_cell(from), corner_cell(to));
            for z in from[2]..=to[2] {
                for y in from[1]..=to[1] {
                    for x in from[0]..=to[0] {
                        cells[(z * CELLS[1] + y) * CELLS[0] + x].push(index as u16);
                    }
                }
            }
        }
        let mut first = vec![0];
        for cell in &cells {
            first.push(first[first.len() - 1] + cell.len() as u32);
        }
        Self {
            segments,
            first,
            listed: cells.concat(),
            grain,
        }
    }

    /// What is at `p`: the artery or clot that it lies deepest in, else a vein, else the CSF around an artery.
    #[inline]
    pub(super) fn at(&self, p: Point) -> Option<Met> {
        let (mut met, mut deepest, mut vein, mut cistern) = (None, 0.0f32, None, false);
        for segment in self.near(p)? {
            let [a, b] = segment.ends;
            let from = capsule(p, a, segment.radii[0], b, segment.radii[1]);
            if from >= 0.0 {
                cistern |= from < segment.cistern_mm;
            } else if segment.content == Content::Vein {
                vein = Some(Met::Lumen(segment.hu, Content::Vein));
            } else if from < deepest {
                deepest = from;
                let plaque = segment.calcium > 0.0 && from > -PLAQUE_MM && self.grain.at(p, 0.3) > 0.1;
                let hu = if plaque { segment.calcium } else { segment.hu };
                met = Some(Met::Lumen(hu, segment.content));
            }
        }
        met.or(vein).or(cistern.then_some(Met::Cistern))
    }

    /// The artery that is filled at `p`, thin ones as if they were [`LEAST_RADIUS_MM`] wide; the one that it lies deepest in.
    pub(super) fn artery_at(&self, p: Point) -> Option<Artery> {
        let filled = |s: &&Segment| s.content == Content::Artery && s.hu >= FILLED_HU;
        let depth = |s: &Segment| {
            let [a, b] = s.radii.map(|radius| radius.max(LEAST_RADIUS_MM));
            -capsule(p, s.ends[0], a, s.ends[1], b)
        };
        self.near(p)?
            .filter(filled)
            .filter_map(|s| Some((depth(s), s.artery?)))
            .filter(|(depth, _)| *depth > 0.0)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, artery)| artery)
    }

    /// The segments near `p`; nothing outside of all cells.
    #[inline]
    fn near(&self, p: Point) -> Option<impl Iterator<Item = &Segment>> {
        let mut cell = [0; 3];
        for axis in 0..3 {
            let at = (p[axis] - CORNER[axis]) / CELL_MM;
            if at < 0.0 {
                return None;
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not below 0, and cut to the cells"
            )]
            let at = at as usize;
            if at >= CELLS[axis] {
                return None;
            }
            cell[axis] = at;
        }
        let cell = (cell[2] * CELLS[1] + cell[1]) * CELLS[0] + cell[0];
        let listed = &self.listed[self.first[cell] as usize..self.first[cell + 1] as usize];
        Some(listed.iter().map(|index| &self.segments[usize::from(*index)]))
    }
}

/// The cell of a point, the nearest one for a point outside.
fn corner_cell(p: Point) -> [usize; 3] {
    std::array::from_fn(|axis| {
        let at = ((p[axis] - CORNER[axis]) / CELL_MM).max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not below 0"
        )]
        let at = at as usize;
        at.min(CELLS[axis] - 1)
    })
}

/// A point of a tube and its radius there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Node {
    pub(super) at: Point,
    pub(super) radius: f32,
}

/// Millimetres between nodes of a drawn path.
const NODE_MM: f32 = 1.6;

/// A smooth path through control points (x, y, z, radius), wandering by about `wander` mm.
pub(super) fn path(controls: &[[f32; 4]], wander: f32, noise: &Field) -> Vec<Node> {
    let mut nodes = Vec::new();
    let last = controls.len() - 1;
    let start = controls[0];
    let mut walked = 0.0;
    for i in 0..last {
        let (p0, p1, p2, p3) = (
            controls[i.saturating_sub(1)],
            controls[i],
            controls[i + 1],
            controls[(i + 2).min(last)],
        );
        let length = (0..3).map(|a| sq(p2[a] - p1[a])).sum::<f32>().sqrt();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few centimetres"
        )]
        let count = (length / NODE_MM).ceil().clamp(1.0, 64.0) as u8;
        for k in 0..count {
            let t = f32::from(k) / f32::from(count);
            // Catmull–Rom: passes through the controls without corners.
            let mut at: [f32; 4] = std::array::from_fn(|a| {
                let (a0, a1, a2, a3) = (p0[a], p1[a], p2[a], p3[a]);
                0.5 * (2.0 * a1
                    + (a2 - a0) * t
                    + (2.0 * a0 - 5.0 * a1 + 4.0 * a2 - a3) * t * t
                    + (3.0 * a1 - a0 - 3.0 * a2 + a3) * t * t * t)
            });
            let along = walked + length * t;
            let amount = wander * (along / 6.0).min(1.0);
            for (axis, value) in (0u8..).zip(at.iter_mut().take(3)) {
                let of_axis = [start[0] + along, start[1] + 40.0 * f32::from(axis), start[2]];
                *value += amount * noise.at(of_axis, 1.0 / 4.0);
            }
            nodes.push(Node {
                at: [at[0], at[1], at[2]],
                radius: at[3].max(0.15),
            });
        }
        walked += length;
    }
    let end = controls[last];
    nodes.push(Node {
        at: [end[0], end[1], end[2]],
        radius: end[3],
    });
    nodes
}

/// Distance of two points.
pub(super) fn distance(a: Point, b: Point) -> f32 {
    (sq(a[0] - b[0]) + sq(a[1] - b[1]) + sq(a[2] - b[2])).sqrt()
}
