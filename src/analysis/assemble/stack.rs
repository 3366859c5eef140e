//! Slices of one stack → their planes, ordered along the normal.
//!
//! Every slice has a position, the same orientation, the same matrix and spacing; no position occurs twice and none is missing.
//! The order is that of ImagePositionPatient along the normal; InstanceNumber plays no part.
//! Splitting a series into stacks is `select`'s business.
//!
//! Source: PS3.3 section C.7.6.2.1.1; design.md ("Geometry").

use super::{refusal, tilt};
use crate::{
    dicom::attribute::Attributes,
    domain::{
        finding::Refusal,
        geometry::{Vec3, add, cross, dot, norm, scale, sub},
        volume::{Geometry, SlicePlane},
    },
};

/// Two origins nearer than this along the normal are the same position: scanners write 1e-3 mm or finer.
const SAME_POSITION_MM: f64 = 0.01;
/// Largest difference of a direction cosine within a stack: what rounding to four decimals leaves.
const SAME_DIRECTION: f64 = 1e-3;
/// Largest relative difference of PixelSpacing within a stack.
const SAME_SPACING: f64 = 1e-3;
/// A step larger than this many times the local thickness leaves tissue unseen (design.md, "Geometry").
const GAP_FACTOR: f64 = 1.5;
/// How far a step may be from the median in a stack that counts as even.
const EVEN: f64 = 0.05;
/// Overlap below this is rounding.
const OVERLAP_MM: f64 = 0.1;
/// cos 45°: beyond it a stack is not axial.
const AXIAL_COSINE: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// A stack of slices, placed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stack {
    /// Where the voxels are.
    pub(super) geometry: Geometry,
    /// Of each plane, the index of its instance in the input.
    pub(super) instances: Vec<usize>,
    /// Median step along the normal, mm.
    pub(super) step_mm: f64,
}

impl Stack {
    /// Distance from the first to the last slice along the normal, mm.
    pub(super) fn coverage_mm(&self) -> f64 {
        let positions = self.geometry.positions_mm();
        positions.last().unwrap_or(&0.0) - positions.first().unwrap_or(&0.0)
    }
}

/// In-plane frame of one slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    pub(super) row_direction: Vec3,
    pub(super) column_direction: Vec3,
}

impl Frame {
    /// The orthonormal frame of ImageOrientationPatient, if it is one up to rounding.
    pub(super) fn of(orientation: [f64; 6]) -> Option<Self> {
        let [a, b, c, d, e, f] = orientation;
        let (row, column) = ([a, b, c], [d, e, f]);
        let unit = |v: Vec3| (norm(v) - 1.0).abs() < 1e-2;
        if !unit(row) || !unit(column) || dot(row, column).abs() > SAME_DIRECTION {
            return None;
        }
        let row = scale(row, 1.0 / norm(row));
        let column = sub(column, scale(row, dot(row, column)));
        Some(Self {
            row_direction: row,
            column_direction: scale(column, 1.0 / norm(column)),
        })
    }

    pub(super) fn normal(&self) -> Vec3 {
        cross(self.row_direction, self.column_direction)
    }

    /// Whether another frame is this one up to rounding.
    pub(super) fn is(&self, other: &Self) -> bool {
        let near = |a: Vec3, b: Vec3| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME_DIRECTION);
        near(self.row_direction, other.row_direction) && near(self.column_direction, other.column_direction)
    }
}

/// One slice, read and placed.
#[derive(Debug, Clone, Copy)]
struct Slice {
    instance: usize,
    frame: Frame,
    origin_mm: Vec3,
    pixel_spacing_mm: [f64; 2],
    thickness_mm: Option<f64>,
    rows: u16,
    columns: u16,
}

/// Orders the slices and checks that they are one stack; returns it with its warnings.
pub(super) fn build(slices: &[(usize, &Attributes)]) -> Result<(Stack, Vec<Refusal>), Vec<Refusal>> {
    let mut read = slices
        .iter()
        .map(|(i, a)| slice(*i, a))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|r| vec![r])?;
    let Some(&first) = read.first() else {
        return Err(vec![refusal(
            "single_slice",
            "There is no slice; at least two are needed.",
        )]);
    };
    check_alike(&read, first)?;
    if read.len() == 1 {
        return Err(vec![refusal(
            "single_slice",
            "The series has one slice; at least two are needed to know how far apart slices are.",
        )]);
    }
    let normal = first.frame.normal();
    if normal[2].abs() < AXIAL_COSINE {
        let angle = normal[2].abs().min(1.0).acos().to_degrees();
        return Err(vec![refusal(
            "not_axial",
            format!("The slices are {angle:.0}° from axial; at most 45° is allowed."),
        )]);
    }
    read.sort_by(|a, b| dot(a.origin_mm, normal).total_cmp(&dot(b.origin_mm, normal)));
    let positions: Vec<f64> = read.iter().map(|s| dot(s.origin_mm, normal)).collect();
    let steps: Vec<f64> = positions.windows(2).map(|p| p[1] - p[0]).collect();
    let repeated = steps.iter().filter(|step| **step < SAME_POSITION_MM).count();
    if repeated > 0 {
        return Err(vec![refusal(
            "duplicate_slice",
            format!(
                "{repeated} positions occur more than once; expected one slice a position. Send one reconstruction a series."
            ),
        )]);
    }
    let step_mm = median(&steps);
    let planes: Vec<SlicePlane> = read
        .iter()
        .map(|s| SlicePlane {
            origin_mm: s.origin_mm,
            thickness_mm: s.thickness_mm.unwrap_or(step_mm),
        })
        .collect();
    check_gaps(&steps, &planes, step_mm)?;
    let mut warnings = Vec::new();
    if read.iter().any(|s| s.thickness_mm.is_none()) {
        warnings.push(refusal(
            "thickness_unknown",
            format!("SliceThickness is missing on some slices; the step of {step_mm:.2} mm stands for it."),
        ));
    }
    warnings.extend(overlap(&steps, &planes));
    let geometry = Geometry {
        rows: first.rows.into(),
        columns: first.columns.into(),
        row_direction: first.frame.row_direction,
        column_direction: first.frame.column_direction,
        pixel_spacing_mm: first.pixel_spacing_mm,
        planes,
    };
    warnings.extend(tilt::warnings(&geometry));
    let instances = read.iter().map(|s| s.instance).collect();
    Ok((
        Stack {
            geometry,
            instances,
            step_mm,
        },
        warnings,
    ))
}

fn slice(instance: usize, a: &Attributes) -> Result<Slice, Refusal> {
    let origin_mm = a.image_position_patient.ok_or_else(|| {
        refusal(
            "position_unknown",
            "A slice has no ImagePositionPatient of three finite numbers.",
        )
    })?;
    let frame = a.image_orientation_patient.and_then(Frame::of).ok_or_else(|| {
        refusal(
            "orientation_unknown",
            "A slice has no ImageOrientationPatient of two perpendicular unit vectors.",
        )
    })?;
    let pixel_spacing_mm = a
        .pixel_spacing
        .filter(|s| s.iter().all(|mm| *mm > 0.0))
        .ok_or_else(|| {
            refusal(
                "spacing_unknown",
                "A slice has no PixelSpacing of two finite numbers above 0.",
            )
        })?;
    let (Some(rows @ 1..), Some(columns @ 1..)) = (a.rows, a.columns) else {
        return Err(refusal(
            "matrix_unknown",
            "A slice has no Rows and Columns above 0.",
        ));
    };
    let thickness_mm = a.slice_thickness.filter(|mm| *mm > 0.0);
    Ok(Slice {
        instance,
        frame,
        origin_mm,
        pixel_spacing_mm,
        thickness_mm,
        rows,
        columns,
    })
}

fn check_alike(slices: &[Slice], first: Slice) -> Result<(), Vec<Refusal>> {
    let mut refusals = Vec::new();
    if slices.iter().any(|s| !s.frame.is(&first.frame)) {
        refusals.push(refusal(
            "mixed_orientation",
            "The slices are not parallel; expected one orientation a stack.",
        ));
    }
    if slices
        .iter()
        .any(|s| (s.rows, s.columns) != (first.rows, first.columns))
    {
        refusals.push(refusal(
            "mixed_matrix",
            "The slices differ in Rows or Columns; expected one matrix a stack.",
        ));
    }
    let differs = |a: f64, b: f64| (a - b).abs() > SAME_SPACING * b;
    if slices.iter().any(|s| {
        let [rows, columns] = first.pixel_spacing_mm;
        differs(s.pixel_spacing_mm[0], rows) || differs(s.pixel_spacing_mm[1], columns)
    }) {
        refusals.push(refusal(
            "mixed_spacing",
            "The slices differ in PixelSpacing; expected one spacing a stack.",
        ));
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

/// Refuses a step that leaves tissue unseen, and a hole in a stack that is even otherwise.
///
/// The second rule is for overlapping reconstructions, where one missing slice leaves a step below 1.5 × thickness.
fn check_gaps(steps: &[f64], planes: &[SlicePlane], median_mm: f64) -> Result<(), Vec<Refusal>> {
    let local = |i: usize| planes[i].thickness_mm.max(planes[i + 1].thickness_mm);
    let even = |step: f64| (step / median_mm - 1.0).abs() <= EVEN;
    let odd: Vec<f64> = steps.iter().copied().filter(|step| !even(*step)).collect();
    let is_hole = |step: f64| {
        let times = step / median_mm;
        times > 1.5 && (times - times.round()).abs() <= EVEN
    };
    let holes = steps.len() >= 4 && odd.len() * 4 <= steps.len() && odd.iter().all(|step| is_hole(*step));
    let gaps: Vec<(usize, f64)> = steps
        .iter()
        .copied()
        .enumerate()
        .filter(|&(i, step)| step > GAP_FACTOR * local(i) || holes && is_hole(step))
        .collect();
    let Some(&(index, step)) = gaps.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Ok(());
    };
    Err(vec![refusal(
        "missing_slice",
        format!(
            "{} steps are too large: {step:.2} mm after slice {} where the thickness is {:.2} mm and the median step {median_mm:.2} mm. Send the missing slices.",
            gaps.len(),
            index + 1,
            local(index),
        ),
    )])
}

fn overlap(steps: &[f64], planes: &[SlicePlane]) -> Option<Refusal> {
    let depth = |i: usize| (planes[i].thickness_mm + planes[i + 1].thickness_mm) / 2.0 - steps[i];
    let depths: Vec<f64> = (0..steps.len())
        .map(depth)
        .filter(|mm| *mm > OVERLAP_MM)
        .collect();
    let deepest = depths.iter().copied().fold(0.0, f64::max);
    (!depths.is_empty()).then(|| {
        refusal(
            "overlap",
            format!(
                "{} of {} neighbouring slices overlap, by up to {deepest:.2} mm.",
                depths.len(),
                steps.len()
            ),
        )
    })
}

/// The lower median of a list that is not empty; 0 of an empty one.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(0.0)
}

/// How the origins walk from the first slice to the last.
pub(super) fn walk(geometry: &Geometry) -> Vec3 {
    match (geometry.planes.first(), geometry.planes.last()) {
        (Some(first), Some(last)) => sub(last.origin_mm, first.origin_mm),
        _ => add([0.0; 3], [0.0; 3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes(z: f64, thickness: f64) -> Attributes {
        Attributes {
            image_position_patient: Some([-10.0, -20.0, z]),
            image_orientation_patient: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            pixel_spacing: Some([0.5, 0.5]),
            slice_thickness: Some(thickness),
            rows: Some(4),
            columns: Some(4),
            ..Attributes::default()
        }
    }

    fn stack(slices: &[Attributes]) -> Result<(Stack, Vec<Refusal>), Vec<Refusal>> {
        build(&slices.iter().enumerate().collect::<Vec<_>>())
    }

    fn code(slices: &[Attributes]) -> String {
        stack(slices).unwrap_err()[0].code.clone()
    }

    #[test]
    fn a_step_is_judged_by_the_thicker_neighbour() {
        let of = |z: [f64; 4]| z.map(|z| attributes(z, if z < 9.0 { 4.0 } else { 7.0 }));
        assert!(stack(&of([0.0, 4.0, 8.0, 15.0])).is_ok());
        assert!(stack(&of([0.0, 4.0, 8.0, 18.0])).is_ok());
        assert_eq!(code(&of([0.0, 4.0, 8.0, 19.0])), "missing_slice");
        assert_eq!(code(&of([0.0, 1.5, 8.0, 15.0])), "missing_slice");
    }

    #[test]
    fn a_hole_in_an_overlapping_reconstruction_is_a_missing_slice() {
        let mut z: Vec<f64> = (0..20).map(|i| f64::from(i) * 0.6).collect();
        z.remove(7);
        let slices: Vec<_> = z.iter().map(|z| attributes(*z, 1.0)).collect();
        assert_eq!(code(&slices), "missing_slice");
    }

    #[test]
    fn overlap_is_a_warning_and_the_same_position_a_refusal() {
        let (_, warnings) = stack(&[0.0, 2.5, 5.0].map(|z| attributes(z, 5.0))).unwrap();
        assert_eq!(warnings[0].code, "overlap");
        assert_eq!(
            code(&[0.0, 2.5, 2.505].map(|z| attributes(z, 5.0))),
            "duplicate_slice"
        );
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_positions_whatever_the_order_of_the_input(
            seed in prop::collection::vec(0.0f64..1.0, 12), tilt in -30.0f64..30.0,
        ) {
            let mut order: Vec<usize> = (0..12).collect();
            order.sort_by(|a, b| seed[*a].total_cmp(&seed[*b]));
            let (sin, cos) = tilt.to_radians().sin_cos();
            let slices: Vec<Attributes> = order.iter().map(|&k| Attributes {
                image_orientation_patient: Some([1.0, 0.0, 0.0, 0.0, cos, -sin]),
                ..attributes(f64::from(u32::try_from(k).unwrap()) * 5.0, 5.0)
            }).collect();
            let (stack, _) = stack(&slices).unwrap();
            let sorted: Vec<usize> = stack.instances.iter().map(|&i| order[i]).collect();
            prop_assert_eq!(sorted, (0..12).collect::<Vec<_>>());
            prop_assert!((stack.step_mm - 5.0 * cos).abs() < 1e-9);
        }
    }
}
