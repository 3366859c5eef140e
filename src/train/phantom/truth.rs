//! What a phantom truly holds → `truth.nii.gz` (the mask) and `truth.json` (the lesions).
//!
//! The mask has the source's own grid: index (column, row, slice), slices ordered along the normal, as `sop_instance_uids` in `truth.json` lists them.
//! Read it by index. Its affine is exact only where slices lie at even steps, which `affine_exact` says; NIfTI cannot hold uneven ones.
//!
//! Source: the NIfTI-1 header (nifti1.h, 348 bytes).

use super::dicom::series_uids;
use super::{GeometryKind, Head, Kind, PhantomError, Range, Rendered};
use crate::domain::finding::Side;
use crate::domain::geometry::{Vec3, norm, scale, sub};
use crate::domain::uid::Uid;
use crate::domain::volume::Geometry;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// `truth.json`.
#[derive(Serialize)]
struct Truth<'a> {
    schema: u32,
    seed: u64,
    kind: &'static str,
    range: &'static str,
    geometry: &'static str,
    study_instance_uid: &'a Uid,
    series_instance_uid: &'a Uid,
    /// In the order of the mask's slices, which is along the normal.
    sop_instance_uids: &'a [Uid],
    affine_exact: bool,
    lesions: Vec<TruthLesion<'a>>,
}

#[derive(Serialize)]
struct TruthLesion<'a> {
    kind: &'a str,
    volume_ml: f64,
    center_mm: Vec3,
    side: Side,
}

/// Writes `truth.nii.gz` and `truth.json` into the folder `out`; `instances` is what [`super::write_dicom`] returned.
///
/// # Errors
/// When a file cannot be written, or an axis is longer than NIfTI can say.
pub fn write_truth(
    head: &Head,
    rendered: &Rendered,
    kind: GeometryKind,
    instances: &[Uid],
    out: &Path,
) -> Result<(), PhantomError> {
    let geometry = &rendered.truth.geometry;
    let (affine, affine_exact) = affine(geometry);
    let mask = out.join("truth.nii.gz");
    let header = header(geometry, affine)?;
    let write = || -> std::io::Result<()> {
        let mut file = GzEncoder::new(std::fs::File::create(&mask)?, Compression::default());
        file.write_all(&header)?;
        file.write_all(&rendered.truth.data)?;
        file.finish()?.sync_all()
    };
    write().map_err(|source| PhantomError::Write {
        path: mask.clone(),
        source,
    })?;

    let [study, series, _] = series_uids(head, kind);
    let truth = Truth {
        schema: 1,
        seed: head.seed(),
        kind: match head.kind() {
            Kind::Normal => "normal",
            Kind::Haemorrhage => "haemorrhage",
        },
        range: match head.range() {
            Range::Training => "training",
            Range::Evaluation => "evaluation",
        },
        geometry: kind.name(),
        study_instance_uid: &study,
        series_instance_uid: &series,
        sop_instance_uids: instances,
        affine_exact,
        lesions: rendered
            .lesions
            .iter()
            .map(|lesion| TruthLesion {
                kind: &lesion.kind,
                volume_ml: lesion.volume_ml,
                center_mm: lesion.center_mm,
                side: lesion.side,
            })
            .collect(),
    };
    let path = out.join("truth.json");
    serde_json::to_vec_pretty(&truth)
        .map_err(std::io::Error::from)
        .and_then(|json| std::fs::write(&path, json))
        .map_err(|source| PhantomError::Write { path, source })
}

/// Rows of the RAS affine from voxel index (column, row, slice), with the mean step between slices, and whether every step is that.
fn affine(geometry: &Geometry) -> ([[f64; 4]; 3], bool) {
    let [first, last] = [0, geometry.slices() - 1].map(|i| geometry.planes[i].origin_mm);
    #[expect(clippy::cast_precision_loss, reason = "a number of slices")]
    let steps = (geometry.slices() - 1) as f64;
    let step = if steps > 0.0 {
        scale(sub(last, first), 1.0 / steps)
    } else {
        scale(geometry.normal(), geometry.planes[0].thickness_mm)
    };
    let exact = geometry
        .planes
        .windows(2)
        .all(|pair| norm(sub(sub(pair[1].origin_mm, pair[0].origin_mm), step)) < 1e-3);
    let column = scale(geometry.row_direction, geometry.pixel_spacing_mm[1]);
    let row = scale(geometry.column_direction, geometry.pixel_spacing_mm[0]);
    // LPS → RAS turns x and y round.
    let line = |i: usize, sign: f64| [column[i], row[i], step[i], first[i]].map(|v| v * sign);
    ([line(0, -1.0), line(1, -1.0), line(2, 1.0)], exact)
}

/// The 352 bytes before the voxels of an 8-bit NIfTI-1 file.
fn header(geometry: &Geometry, affine: [[f64; 4]; 3]) -> Result<[u8; 352], PhantomError> {
    let too_large = || PhantomError::TooLarge {
        slices: geometry.slices(),
        rows: geometry.rows,
        columns: geometry.columns,
    };
    let mut bytes = [0u8; 352];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    #[expect(clippy::cast_possible_truncation, reason = "NIfTI stores single precision")]
    let single = |v: f64| (v as f32).to_le_bytes();
    put(0, &348i32.to_le_bytes());
    // dim: three axes.
    let axes = [geometry.columns, geometry.rows, geometry.slices()];
    put(40, &3i16.to_le_bytes());
    for (i, axis) in axes.into_iter().enumerate() {
        let length = i16::try_from(axis).map_err(|_| too_large())?;
        put(42 + 2 * i, &length.to_le_bytes());
    }
    for i in 3..7usize {
        put(42 + 2 * i, &1i16.to_le_bytes());
    }
    // datatype 2 is unsigned char, 8 bits.
    put(70, &2i16.to_le_bytes());
    put(72, &8i16.to_le_bytes());
    // pixdim: qfac, then the length of each column of the affine.
    put(76, &single(1.0));
    let [x, y, z] = affine;
    for (i, ((x, y), z)) in x.into_iter().zip(y).zip(z).take(3).enumerate() {
        put(80 + 4 * i, &single(norm([x, y, z])));
    }
    put(108, &single(352.0)); // vox_offset
    put(112, &single(1.0)); // scl_slope
    put(123, &[2]); // xyzt_units: mm
    put(148, b"ictus phantom: 1 = haemorrhage"); // descrip
    put(254, &1i16.to_le_bytes()); // sform_code: scanner
    for (i, row) in affine.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            put(280 + 16 * i + 4 * j, &single(*value));
        }
    }
    put(344, b"n+1\0");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::phantom::geometry;

    #[test]
    fn the_affine_places_a_tilted_stack_and_says_when_it_cannot() {
        let g = geometry(GeometryKind::Tilted, 3, Range::Training);
        let (rows, exact) = affine(&g);
        assert!(exact);
        let at = [100.0, 40.0, 7.0, 1.0];
        let ras = rows.map(|row| row.iter().zip(at).map(|(a, b)| a * b).sum::<f64>());
        let lps = g.voxel_to_lps(7, 40.0, 100.0);
        assert!(norm(sub([-ras[0], -ras[1], ras[2]], lps)) < 1e-3);
        assert!(!affine(&geometry(GeometryKind::Uneven, 3, Range::Training)).1);
        assert!(!affine(&geometry(GeometryKind::Scanner, 3, Range::Training)).1);
    }
}
