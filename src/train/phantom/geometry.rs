//! Stacks of slices as scanners lay them: a kind and a seed → a [`Geometry`] around the nominal head.

use super::anatomy::stream;
use super::noise::Draw;
use super::range::Range;
use crate::domain::geometry::{Vec3, add, cross, dot, norm, scale, sub};
use crate::domain::volume::{Geometry, SlicePlane};

/// Where heads lie in LPS before their own shift, mm: chosen so that the positions of [`GeometryKind::Scanner`] cover a head.
pub const HEAD_CENTER_MM: Vec3 = [0.0, -5.0, 24.0];

/// How the slices lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeometryKind {
    /// Axial slices, 5 mm apart.
    Even,
    /// Gantry tilt of 18.5° or −18.5°: origins walk along z, planes lean.
    Tilted,
    /// Axial slices whose steps and thicknesses change.
    Uneven,
    /// Turned in the plane and leaning in two directions.
    Oblique,
    /// As even, but InstanceNumber falls along the normal and file names are shuffled.
    Reversed,
    /// The 28 positions, the tilt and the thicknesses of a real study.
    Scanner,
    /// 280 slices of 0.6 mm.
    Thin,
    /// 600 slices, 0.4 mm apart, from the vertex into the neck: a CT angiography.
    Angio,
    /// 110 slices of 1.5 mm.
    Fine,
    /// 80 slices of 1 mm over a part of the head, in a field that may cut the scalp.
    Part,
}

impl GeometryKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Even,
        Self::Tilted,
        Self::Uneven,
        Self::Oblique,
        Self::Reversed,
        Self::Scanner,
        Self::Thin,
        Self::Angio,
        Self::Fine,
        Self::Part,
    ];

    /// Its name on the command line and in `truth.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Tilted => "tilted",
            Self::Uneven => "uneven",
            Self::Oblique => "oblique",
            Self::Reversed => "reversed",
            Self::Scanner => "scanner",
            Self::Thin => "thin",
            Self::Angio => "angio",
            Self::Fine => "fine",
            Self::Part => "part",
        }
    }
}

/// Rows and columns of a series.
const MATRIX: usize = 512;

/// Gantry tilt, degrees: that of the study behind [`SCANNER_TABLE_MM`].
const TILT_DEGREES: f64 = 18.5;

/// z of ImagePositionPatient and SliceThickness of each slice, mm.
///
/// # Source
/// ImagePositionPatient and SliceThickness of the 28 slices of a GE HiSpeed Dual head study in neurolabusc/dcm_qa_ct (BSD-2-Clause); x and y of the position are [`SCANNER_ORIGIN_MM`] in every slice.
const SCANNER_TABLE_MM: [(f64, f64); 28] = [
    (5.8360586, 4.0),
    (10.0560586, 4.0),
    (14.2760586, 4.0),
    (18.4960586, 4.0),
    (22.7160586, 4.0),
    (26.9360586, 4.0),
    (31.1560586, 4.0),
    (35.3760586, 4.0),
    (39.5960586, 4.0),
    (43.8160586, 4.0),
    (48.0360586, 4.0),
    (52.2560586, 4.0),
    (56.4760586, 4.0),
    (60.6960586, 4.0),
    (61.8360586, 7.0),
    (69.2160586, 7.0),
    (76.5960586, 7.0),
    (83.9760586, 7.0),
    (91.3560586, 7.0),
    (98.7360586, 7.0),
    (106.1160586, 7.0),
    (113.4960586, 7.0),
    (120.8760586, 7.0),
    (128.2560586, 7.0),
    (135.6360586, 7.0),
    (143.0160586, 7.0),
    (150.3960586, 7.0),
    (157.7760586, 7.0),
];
/// x and y of ImagePositionPatient in the same study.
const SCANNER_ORIGIN_MM: [f64; 2] = [-125.0, -123.5404569];
/// PixelSpacing of the same study.
const SCANNER_SPACING_MM: f64 = 0.4882812;
/// Second half of ImageOrientationPatient of the same study, (0, cos, −sin) of the tilt.
const SCANNER_COLUMN: Vec3 = [0.0, 0.9483237, -0.3173047];

/// The top of stacks above [`HEAD_CENTER_MM`], mm: over the vertex of the largest head.
const TOP_MM: f64 = 102.0;

/// An even axial stack that holds a phantom's head: 120 × 120 pixels of 2 mm, slices from 75 mm below the nominal centre on.
#[cfg(test)]
pub(in crate::train) fn coarse(slices: u32, thickness_mm: f64) -> Geometry {
    let origin_mm = |k: u32| {
        add(
            HEAD_CENTER_MM,
            [-119.0, -119.0, thickness_mm * f64::from(k) - 75.0],
        )
    };
    Geometry {
        rows: 120,
        columns: 120,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        pixel_spacing_mm: [2.0, 2.0],
        planes: (0..slices)
            .map(|k| SlicePlane {
                origin_mm: origin_mm(k),
                thickness_mm,
            })
            .collect(),
    }
}

/// Lays a stack of full slices, as a scanner stores them.
#[must_use]
pub fn geometry(kind: GeometryKind, seed: u64, range: Range) -> Geometry {
    let mut draw = Draw::new(seed, stream::GEOMETRY);
    let spacing = round_to(f64::from(draw.within(range.table().pixel_spacing_mm)), 1e6);
    let spacing = match kind {
        GeometryKind::Scanner => SCANNER_SPACING_MM,
        GeometryKind::Part => 0.8 * spacing,
        _ => spacing,
    };
    let angle = |draw: &mut Draw, degrees: f32| f64::from(draw.around(degrees)).to_radians();
    let (row, column) = match kind {
        GeometryKind::Tilted => leaning(TILT_DEGREES * f64::from(draw.sign())),
        GeometryKind::Scanner => ([1.0, 0.0, 0.0], SCANNER_COLUMN),
        GeometryKind::Oblique => {
            let (turn, pitch, roll) = (
                angle(&mut draw, 12.0),
                angle(&mut draw, 15.0),
                angle(&mut draw, 15.0),
            );
            turned(turn, pitch, roll)
        }
        _ => leaning(0.0),
    };
    let few = if range == Range::Evaluation { 24 } else { 28 };
    // (z along the table or along the normal, thickness), from the top down.
    let mut steps: Vec<(f64, f64)> = Vec::new();
    match kind {
        GeometryKind::Scanner => {
            let planes = SCANNER_TABLE_MM
                .iter()
                .map(|&(z, thickness_mm)| SlicePlane {
                    origin_mm: [SCANNER_ORIGIN_MM[0], SCANNER_ORIGIN_MM[1], z],
                    thickness_mm,
                })
                .collect();
            return stack(row, column, spacing, MATRIX, planes);
        }
        GeometryKind::Thin => steps.extend((0..280u16).map(|i| (TOP_MM - 0.6 * f64::from(i), 0.6))),
        GeometryKind::Angio => steps.extend((0..600u16).map(|i| (TOP_MM - 0.4 * f64::from(i), 0.6))),
        GeometryKind::Fine => steps.extend((0..110u16).map(|i| (TOP_MM - 1.5 * f64::from(i), 1.5))),
        GeometryKind::Part => {
            let top = TOP_MM - f64::from(draw.within([10.0, 80.0]));
            steps.extend((0..80u16).map(|i| (top - f64::from(i), 1.0)));
        }
        GeometryKind::Uneven => {
            let mut z = TOP_MM;
            let change = f64::from(draw.within([10.0, 40.0]));
            while z > -62.0 {
                // Thick above, thin at the base; no step passes 1.5 times the thickness, which would be a missing slice.
                let thickness = if z > change { 7.0 } else { 4.0 };
                steps.push((z, thickness));
                z -= round_to(thickness * f64::from(draw.within([0.8, 1.25])), 100.0);
            }
        }
        _ => {
            let count = draw.count(few, 34);
            let mut z = TOP_MM;
            for _ in 0..count {
                steps.push((z, 5.0));
                z -= 5.0;
            }
        }
    }
    steps.reverse();
    let normal = cross(row, column);
    // A tilted gantry leaves the table's direction alone; an oblique stack walks along its normal.
    let walk = if kind == GeometryKind::Tilted {
        [0.0, 0.0, 1.0 / normal[2]]
    } else {
        normal
    };
    let centre = add(
        HEAD_CENTER_MM,
        [f64::from(draw.around(6.0)), f64::from(draw.around(6.0)), 0.0],
    );
    let planes = steps
        .into_iter()
        .map(|(z, thickness_mm)| {
            plane(
                add(centre, scale(walk, z)),
                row,
                column,
                spacing,
                MATRIX,
                thickness_mm,
            )
        })
        .collect();
    stack(row, column, spacing, MATRIX, planes)
}

/// Lays three slabs for one training sample, from the feet to the head: any tilt and thickness, on a grid of `matrix`² pixels of `spacing_mm`.
///
/// The middle one shows `through`, a point in LPS, or lies at a random height.
/// What stands beside it is what a network with slabs of `slab_mm` is shown: the next slice of a thick series, the next slab of a thin one.
#[must_use]
pub fn training_slabs(
    seed: u64,
    range: Range,
    through: Option<Vec3>,
    matrix: usize,
    spacing_mm: f64,
    slab_mm: f64,
) -> Geometry {
    let mut draw = Draw::new(seed, stream::GEOMETRY + 100);
    let (row, column) = any_lean(&mut draw);
    let slab_mm = slab_mm * f64::from(draw.within([0.85, 1.15]));
    let slice_mm = f64::from(match range {
        Range::Training => draw.within([2.5, 7.5]),
        Range::Evaluation => draw.within([2.0, 8.5]),
    });
    // A third of the series are thin, and all their slabs are averages.
    let thin = draw.chance(0.35);
    let (middle_mm, beside_mm, step_mm) = match slice_mm {
        _ if thin => (slab_mm, slab_mm, slab_mm),
        t if t < slab_mm => (t, slab_mm, slab_mm),
        t => (t, t, t * f64::from(draw.within([0.9, 1.1]))),
    };
    let normal = cross(row, column);
    let centre = add(
        HEAD_CENTER_MM,
        [f64::from(draw.around(10.0)), f64::from(draw.around(10.0)), 0.0],
    );
    let anywhere = f64::from(draw.within([-62.0, 92.0]));
    let beside_point = f64::from(draw.around(0.45)) * middle_mm;
    let height = through.map_or(anywhere, |point| dot(sub(point, centre), normal) + beside_point);
    let planes = [(-step_mm, beside_mm), (0.0, middle_mm), (step_mm, beside_mm)]
        .into_iter()
        .map(|(off, thickness)| {
            plane(
                add(centre, scale(normal, height + off)),
                row,
                column,
                spacing_mm,
                matrix,
                thickness,
            )
        })
        .collect();
    stack(row, column, spacing_mm, matrix, planes)
}

/// Lays a stack of thick slices for one training sample: even or not, with any lean, of `matrix`² pixels of `spacing_mm`.
#[must_use]
pub fn training_stack(seed: u64, matrix: usize, spacing_mm: f64) -> Geometry {
    let mut draw = Draw::new(seed, stream::GEOMETRY + 102);
    let (row, column) = any_lean(&mut draw);
    let normal = cross(row, column);
    let mut within = |range| f64::from(draw.within(range));
    let centre = add(HEAD_CENTER_MM, [within([-8.0, 8.0]), within([-8.0, 8.0]), 0.0]);
    // Thin at the base and thick above in some, as thick everywhere in the others.
    let (base_mm, change) = (within([3.0, 6.0]), within([-10.0, 60.0]));
    let above_mm = if draw.chance(0.3) {
        f64::from(draw.within([5.0, 7.5]))
    } else {
        base_mm
    };
    let uneven = if draw.chance(0.3) { 0.2 } else { 0.0 };
    let mut height = f64::from(draw.within([-78.0, -50.0]));
    let mut planes = Vec::new();
    while height < TOP_MM {
        let thickness_mm = if height > change { above_mm } else { base_mm };
        let at = add(centre, [0.0, 0.0, height / normal[2]]);
        planes.push(plane(at, row, column, spacing_mm, matrix, thickness_mm));
        height += thickness_mm * (1.0 + f64::from(draw.around(uneven)));
    }
    stack(row, column, spacing_mm, matrix, planes)
}

/// The directions of rows and columns of a training sample.
fn any_lean(draw: &mut Draw) -> (Vec3, Vec3) {
    match draw.count(0, 3) {
        0 | 1 => leaning(f64::from(draw.around(20.0))),
        2 => leaning(0.0),
        _ => {
            let mut angle = |degrees: f32| f64::from(draw.around(degrees)).to_radians();
            let (turn, pitch, roll) = (angle(12.0), angle(12.0), angle(12.0));
            turned(turn, pitch, roll)
        }
    }
}

/// Axial, leaning by a gantry tilt in degrees: positive as in the study behind [`SCANNER_TABLE_MM`], the back of the slice lower.
fn leaning(degrees: f64) -> (Vec3, Vec3) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    ([1.0, 0.0, 0.0], [0.0, cos, -sin])
}

/// Turned in the plane and leaning about both axes.
fn turned(turn: f64, pitch: f64, roll: f64) -> (Vec3, Vec3) {
    let row = [turn.cos() * roll.cos(), turn.sin() * roll.cos(), roll.sin()];
    let lean = [-turn.sin(), turn.cos() * pitch.cos(), -pitch.sin()];
    // Gram–Schmidt: the row direction stays.
    let along = row[0] * lean[0] + row[1] * lean[1] + row[2] * lean[2];
    let column = sub(lean, scale(row, along));
    (scale(row, 1.0 / norm(row)), scale(column, 1.0 / norm(column)))
}

/// The plane whose middle is `centre`; positions as DICOM writes them, to a nanometre.
fn plane(
    centre: Vec3,
    row: Vec3,
    column: Vec3,
    spacing: f64,
    matrix: usize,
    thickness_mm: f64,
) -> SlicePlane {
    #[expect(clippy::cast_precision_loss, reason = "a matrix has few rows")]
    let half = 0.5 * (matrix as f64 - 1.0) * spacing;
    let origin = sub(centre, scale(add(row, column), half));
    SlicePlane {
        origin_mm: origin.map(|v| round_to(v, 1e6)),
        thickness_mm,
    }
}

fn stack(row: Vec3, column: Vec3, spacing: f64, matrix: usize, planes: Vec<SlicePlane>) -> Geometry {
    Geometry {
        rows: matrix,
        columns: matrix,
        row_direction: row,
        column_direction: column,
        pixel_spacing_mm: [spacing, spacing],
        planes,
    }
}

fn round_to(value: f64, unit: f64) -> f64 {
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::geometry::dot;

    #[test]
    fn every_stack_is_ordered_orthonormal_and_misses_no_slice() {
        for kind in GeometryKind::ALL {
            for seed in 0..20 {
                let g = geometry(kind, seed, Range::Evaluation);
                assert!(
                    (norm(g.row_direction) - 1.0).abs() < 1e-6
                        && (norm(g.column_direction) - 1.0).abs() < 1e-6
                );
                assert!(dot(g.row_direction, g.column_direction).abs() < 1e-9);
                assert!(
                    g.normal()[2] > 45f64.to_radians().cos(),
                    "{kind:?} is not near axial"
                );
                let at = g.positions_mm();
                for i in 1..at.len() {
                    let step = at[i] - at[i - 1];
                    let local = g.planes[i].thickness_mm.max(g.planes[i - 1].thickness_mm);
                    assert!(
                        step > 0.1 && step <= 1.5 * local,
                        "{kind:?} {seed}: step {step}, thickness {local}"
                    );
                }
            }
        }
    }

    #[test]
    fn tilted_stacks_lean_by_the_tilt_and_walk_along_the_table() {
        let signs: Vec<f64> = (0..20)
            .map(|seed| {
                let g = geometry(GeometryKind::Tilted, seed, Range::Training);
                let tilt = (-g.column_direction[2]).asin().to_degrees();
                assert!((tilt.abs() - TILT_DEGREES).abs() < 1e-9);
                let walk = sub(g.planes[1].origin_mm, g.planes[0].origin_mm);
                assert!(walk[0].abs() < 1e-5 && walk[1].abs() < 1e-5);
                assert!((dot(walk, g.normal()) - 5.0).abs() < 1e-5);
                tilt.signum()
            })
            .collect();
        assert!(signs.contains(&1.0) && signs.contains(&-1.0));
    }

    #[test]
    fn the_scanner_stack_has_the_positions_of_the_study() {
        let g = geometry(GeometryKind::Scanner, 5, Range::Training);
        assert_eq!(g.slices(), 28);
        let at = g.positions_mm();
        assert!((at[0] - -33.665_494_9).abs() < 1e-6 && (at[27] - 110.422_808_0).abs() < 1e-6);
        assert!(
            (at[14] - at[13] - 1.081).abs() < 1e-3,
            "the overlap where the thickness changes"
        );
    }
}
