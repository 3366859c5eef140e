//! One NIfTI volume → the same [`Volume`] that a DICOM series gives.
//!
//! RAS+ becomes LPS; `i` runs along rows, `j` along columns, `k` through the planes, turned round where it runs against their normal.
//! A sheared `k` is a gantry tilt and is kept; a sheared plane is refused, because a [`Volume`] has perpendicular rows and columns.
//! NIfTI says nothing of HU, patients or contrast agent: only the histogram is checked, and the trigger is not.

use super::{AssembleError, hu, refusal};
use crate::{
    domain::{
        finding::Refusal,
        geometry::{Vec3, add, cross, dot, norm, scale},
        phi::redact,
        volume::{Geometry, SlicePlane, Volume},
    },
    nifti,
};

/// Largest cosine between rows and columns that is rounding of 32-bit floats.
const PERPENDICULAR: f64 = 1e-3;
/// cos 45°.
const AXIAL_COSINE: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// What the values of a volume are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Hounsfield units of a scan of a patient: checked by their histogram.
    Hu,
    /// Whatever the model was trained on.
    Any,
}

/// Reads `.nii` or `.nii.gz`.
///
/// # Errors
/// [`AssembleError::Nifti`] for bytes that are no NIfTI-1 volume; [`AssembleError::Refused`] for one that cannot be placed or is not HU where it should be.
pub fn from_nifti(bytes: &[u8], values: Values) -> Result<Volume<f32>, AssembleError> {
    let image = nifti::read(bytes).map_err(|e| AssembleError::Nifti { source: redact(&e) })?;
    place(image, values).map_err(|r| AssembleError::Refused {
        series: Vec::new(),
        refusals: vec![r],
    })
}

fn place(image: nifti::NiftiImage, values: Values) -> Result<Volume<f32>, Refusal> {
    let is_reversed = image.is_reversed();
    let lps = |v: Vec3| [-v[0], -v[1], v[2]];
    let [row, column, step] = image.steps_mm.map(lps);
    let [columns, rows, slices] = image.shape;
    let spacing = [norm(column), norm(row)];
    if spacing.iter().any(|mm| *mm <= 0.0) {
        return Err(refusal(
            "spacing_unknown",
            "The affine has an axis without length.",
        ));
    }
    let (row_direction, column_direction) = (scale(row, 1.0 / spacing[1]), scale(column, 1.0 / spacing[0]));
    if dot(row_direction, column_direction).abs() > PERPENDICULAR {
        return Err(refusal(
            "sheared_plane",
            "Rows and columns of the affine are not perpendicular; resample the volume to a grid without shear.",
        ));
    }
    let normal = cross(row_direction, column_direction);
    let step_mm = dot(step, normal).abs();
    if slices < 2 {
        return Err(refusal(
            "single_slice",
            "The volume has one slice; at least two are needed.",
        ));
    }
    if step_mm <= 0.0 {
        return Err(refusal(
            "duplicate_slice",
            "The affine puts all slices at the same position.",
        ));
    }
    if normal[2].abs() < AXIAL_COSINE {
        let angle = normal[2].abs().min(1.0).acos().to_degrees();
        return Err(refusal(
            "not_axial",
            format!(
                "The slices (third axis) are {angle:.0}° from axial; at most 45° is allowed. Reorder the axes."
            ),
        ));
    }
    if !image.data.iter().all(|value| value.is_finite()) {
        return Err(refusal("hu_unknown", "Some values are not finite."));
    }
    if values == Values::Hu {
        hu::check_histogram(&image.data)?;
    }
    let origin = lps(image.origin_mm);
    let mut planes: Vec<SlicePlane> = (0..slices)
        .scan(0.0, |k, _| {
            let plane = SlicePlane {
                origin_mm: add(origin, scale(step, *k)),
                thickness_mm: step_mm,
            };
            *k += 1.0;
            Some(plane)
        })
        .collect();
    let mut data = image.data;
    if is_reversed {
        planes.reverse();
        data = data
            .chunks_exact(rows * columns)
            .rev()
            .flatten()
            .copied()
            .collect();
    }
    let geometry = Geometry {
        rows,
        columns,
        row_direction,
        column_direction,
        pixel_spacing_mm: spacing,
        planes,
    };
    Ok(Volume { geometry, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nifti::NiftiImage;

    fn image(steps_mm: [Vec3; 3]) -> NiftiImage {
        let value = |n: u16| {
            if n.is_multiple_of(2) {
                -1000.0
            } else {
                f32::from(n)
            }
        };
        NiftiImage {
            shape: [4, 3, 2],
            steps_mm,
            origin_mm: [1.0, 2.0, 3.0],
            data: (0..24).map(value).collect(),
        }
    }

    #[test]
    fn a_voxel_keeps_its_place_whichever_way_the_slices_run() {
        for k in [[0.0, 0.5, 4.0], [0.0, 0.5, -4.0]] {
            let source = image([[-0.5, 0.0, 0.0], [0.0, 0.75, 0.0], k]);
            let volume = place(source.clone(), Values::Hu).unwrap();
            let geometry = &volume.geometry;
            let positions = geometry.positions_mm();
            assert!(positions[0] < positions[1]);
            // Voxel (i, j, k) = (3, 1, 1), value 19: RAS (1 − 1.5, 2 + 0.75 + 0.5, 3 ± 4).
            let slice = (0..2).find(|&s| volume.slice(s)[7] == 19.0).unwrap();
            let expected = [0.5, -3.25, 3.0 + k[2]];
            let at = geometry.voxel_to_lps(slice, 1.0, 3.0);
            assert!(
                at.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9),
                "{at:?}"
            );
        }
    }

    #[test]
    fn refuses_shear_in_the_plane_and_slices_that_are_not_axial() {
        let sheared = image([[0.5, 0.1, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 4.0]]);
        assert_eq!(place(sheared, Values::Hu).unwrap_err().code, "sheared_plane");
        let coronal = image([[0.5, 0.0, 0.0], [0.0, 0.0, 0.5], [0.0, 4.0, 0.0]]);
        assert_eq!(place(coronal, Values::Hu).unwrap_err().code, "not_axial");
    }

    #[test]
    fn what_was_turned_round_is_written_back_on_the_grid_of_the_input() {
        let source = image([[-0.5, 0.0, 0.0], [0.0, 0.75, 0.0], [0.0, 0.0, 4.0]]);
        assert!(source.is_reversed());
        let volume = place(source.clone(), Values::Hu).unwrap();
        let back = nifti::read(&nifti::write_like(&source, &volume).unwrap()).unwrap();
        assert_eq!(back, source);
    }
}
