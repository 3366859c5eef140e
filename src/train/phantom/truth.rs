//! What a phantom truly holds → `truth.nii.gz` (the class of each voxel), `aspects.nii.gz` (its region of ASPECTS) and `truth.json` (the lesions).
//!
//! The masks have the source's own grid: index (column, row, slice), slices ordered along the normal, as `sop_instance_uids` in `truth.json` lists them.
//! Read them by index. Their affine is exact only where slices lie at even steps, which `affine_exact` says; NIfTI cannot hold uneven ones.

use super::dicom::series_uids;
use super::{GeometryKind, Head, PhantomError, Range, Rendered, Site, Stratum};
use crate::domain::finding::Side;
use crate::domain::geometry::Vec3;
use crate::domain::uid::Uid;
use crate::nifti;
use serde::Serialize;
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
    /// What makes the head harder to read.
    strata: Vec<&'static str>,
    lesions: Vec<TruthLesion>,
    /// The closed artery; null when every artery is open.
    occlusion: Option<TruthOcclusion>,
}

#[derive(Serialize)]
struct TruthOcclusion {
    site: Site,
    side: Side,
    point_mm: Vec3,
    collaterals: f32,
    /// Whether the clot can be told from flowing blood by its density; null with contrast agent.
    dense: Option<bool>,
}

#[derive(Serialize)]
struct TruthLesion {
    kind: &'static str,
    volume_ml: f64,
    center_mm: Vec3,
    side: Side,
}

/// Writes `truth.nii.gz`, `aspects.nii.gz` and `truth.json` into the folder `out`; `instances` is what [`super::write_dicom`] returned.
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
    let aspects = head.aspects(&rendered.truth.geometry);
    for (name, mask) in [("truth.nii.gz", &rendered.truth), ("aspects.nii.gz", &aspects)] {
        let path = out.join(name);
        nifti::write(mask)
            .and_then(|mask| std::fs::write(&path, mask))
            .map_err(|source| PhantomError::Write { path, source })?;
    }

    let [study, series, _] = series_uids(head, kind);
    let truth = Truth {
        schema: 1,
        seed: head.seed(),
        kind: head.kind().name(),
        range: match head.range() {
            Range::Training => "training",
            Range::Evaluation => "evaluation",
        },
        geometry: kind.name(),
        study_instance_uid: &study,
        series_instance_uid: &series,
        sop_instance_uids: instances,
        affine_exact: nifti::is_exact(&rendered.truth.geometry),
        strata: head.strata().into_iter().map(Stratum::name).collect(),
        lesions: rendered
            .lesions
            .iter()
            .map(|lesion| TruthLesion {
                kind: lesion.class.name(),
                volume_ml: lesion.volume_ml,
                center_mm: lesion.center_mm,
                side: lesion.side,
            })
            .collect(),
        occlusion: head.occlusion().map(|occlusion| TruthOcclusion {
            site: occlusion.site,
            side: occlusion.side,
            point_mm: occlusion.point_mm,
            collaterals: occlusion.collaterals,
            dense: occlusion.dense,
        }),
    };
    let path = out.join("truth.json");
    serde_json::to_vec_pretty(&truth)
        .map_err(std::io::Error::from)
        .and_then(|json| std::fs::write(&path, json))
        .map_err(|source| PhantomError::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::phantom::geometry;

    #[test]
    fn says_when_the_affine_cannot_place_every_slice() {
        let exact = |kind| nifti::is_exact(&geometry(kind, 3, Range::Training));
        assert!(exact(GeometryKind::Tilted));
        assert!(!exact(GeometryKind::Uneven));
        assert!(!exact(GeometryKind::Scanner));
    }
}
