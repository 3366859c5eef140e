//! The brightest voxels around a place, with where an artery is closed and what was found → PNG.

use super::super::evaluation::picture::encode;
use crate::{
    analysis::Look,
    domain::geometry::{Vec3, dot, norm, sub},
};

/// Height of what is looked through, mm, half of it above the place.
const HEIGHT_MM: f64 = 20.0;
/// Radius of the ring around the true place, mm.
const RING_MM: [f64; 2] = [7.0, 8.0];

/// Looks along the slices' normal through the slab around the true place, or else around the first finding; nothing without either.
pub(super) fn draw(look: &Look, truth: Option<Vec3>) -> Option<Vec<u8>> {
    let geometry = &look.volume.geometry;
    let place = truth.or_else(|| look.found.findings.first().map(|f| f.center_mm))?;
    let (normal, at) = (geometry.normal(), dot(geometry.normal(), place));
    let slices: Vec<usize> = (0..)
        .zip(geometry.positions_mm())
        .filter(|(_, mm)| (mm - at).abs() <= 0.5 * HEIGHT_MM)
        .map(|(slice, _)| slice)
        .collect();
    let [low, high] = look.window_hu;
    let middle = *slices.get(slices.len() / 2)?;
    let pixels = (0..geometry.slice_len()).map(|i| {
        let (row, column) = (i / geometry.columns, i % geometry.columns);
        let here = geometry.voxel_to_lps(middle, row as f64, column as f64);
        let aside = truth.map(|p| sub(p, here)).map(|v| {
            let along = dot(v, normal);
            (norm(v).powi(2) - along.powi(2)).max(0.0).sqrt()
        });
        if aside.is_some_and(|mm| (RING_MM[0]..RING_MM[1]).contains(&mm)) {
            return 254;
        }
        let of = |map: &dyn Fn(usize) -> bool| slices.iter().any(|s| map(s * geometry.slice_len() + i));
        let found = |v: usize| look.found.segments.data[v] != 0;
        let is_edge = of(&found) && (column + row).is_multiple_of(2);
        if is_edge {
            return 255;
        }
        let brightest = slices
            .iter()
            .map(|s| look.volume.slice(*s)[i])
            .fold(f32::MIN, f32::max);
        let share = (brightest - low) / (high - low);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=253")]
        let grey = (share.clamp(0.0, 1.0) * 253.0) as u8;
        grey
    });
    Some(encode(&pixels.collect::<Vec<u8>>(), geometry.columns))
}
