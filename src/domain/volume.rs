//! A stack of parallel slices with one value a voxel, placed in the patient.
//!
//! The slices share an in-plane basis; each has its own origin and thickness, so that gantry tilt (origins that walk sideways) and uneven steps are kept as they are.
//! Planes are ordered along the normal, `row_direction × column_direction`.
//! Nothing here resamples: that is `analysis::preprocess` only.
//!
//! Source: PS3.3 section C.7.6.2.1.1 (the image plane equation).

use super::geometry::{Vec3, add, cross, dot, norm, scale, sub};

/// Where one slice lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlicePlane {
    /// ImagePositionPatient: the centre of the first voxel, LPS mm.
    pub origin_mm: Vec3,
    /// SliceThickness in mm: what the scanner averaged over, which may differ from the step to the neighbour.
    pub thickness_mm: f64,
}

/// Steps that differ by no more than this are one step: positions are given in micrometres at best.
const STEP_TOLERANCE_MM: f64 = 0.005;

/// The grid of a [`Volume`]: `slices, rows, columns`.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Rows of a slice.
    pub rows: usize,
    /// Columns of a slice.
    pub columns: usize,
    /// Unit vector along a row, towards higher columns (first half of ImageOrientationPatient).
    pub row_direction: Vec3,
    /// Unit vector along a column, towards higher rows (second half of ImageOrientationPatient).
    pub column_direction: Vec3,
    /// PixelSpacing in mm: between rows, between columns.
    pub pixel_spacing_mm: [f64; 2],
    /// One plane a slice, ordered along [`Geometry::normal`].
    pub planes: Vec<SlicePlane>,
}

impl Geometry {
    /// Number of slices.
    #[must_use]
    pub fn slices(&self) -> usize {
        self.planes.len()
    }

    /// Voxels of one slice.
    #[must_use]
    pub fn slice_len(&self) -> usize {
        self.rows * self.columns
    }

    /// Voxels of the volume.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices() * self.slice_len()
    }

    /// Whether there is no voxel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Unit normal of the slices.
    #[must_use]
    pub fn normal(&self) -> Vec3 {
        cross(self.row_direction, self.column_direction)
    }

    /// Signed distance of each slice along the normal, mm, ascending.
    #[must_use]
    pub fn positions_mm(&self) -> Vec<f64> {
        let normal = self.normal();
        self.planes.iter().map(|p| dot(p.origin_mm, normal)).collect()
    }

    /// The centre of voxel (`row`, `column`) of slice `slice`, LPS mm; fractions of a voxel are allowed in the plane.
    #[must_use]
    pub fn voxel_to_lps(&self, slice: usize, row: f64, column: f64) -> Vec3 {
        let in_plane = add(
            scale(self.row_direction, column * self.pixel_spacing_mm[1]),
            scale(self.column_direction, row * self.pixel_spacing_mm[0]),
        );
        add(self.planes[slice].origin_mm, in_plane)
    }

    /// The (row, column) of a point's foot on slice `slice`, and its signed distance from the slice in mm.
    #[must_use]
    pub fn lps_to_voxel(&self, slice: usize, point_mm: Vec3) -> (f64, f64, f64) {
        let offset = sub(point_mm, self.planes[slice].origin_mm);
        (
            dot(offset, self.column_direction) / self.pixel_spacing_mm[0],
            dot(offset, self.row_direction) / self.pixel_spacing_mm[1],
            dot(offset, self.normal()),
        )
    }

    /// The share of the normal that belongs to a slice: half the distance to each neighbour, mirrored at the ends, mm.
    ///
    /// A single slice has only its thickness.
    #[must_use]
    pub fn slice_extent_mm(&self, slice: usize) -> f64 {
        let at = |i: usize| dot(self.planes[i].origin_mm, self.normal());
        let last = self.slices() - 1;
        if last == 0 {
            return self.planes[0].thickness_mm;
        }
        let below = (slice > 0).then(|| at(slice) - at(slice - 1));
        let above = (slice < last).then(|| at(slice + 1) - at(slice));
        (below.or(above).unwrap_or(0.0) + above.or(below).unwrap_or(0.0)) / 2.0
    }

    /// The median step between slices along the normal, mm; 0 where there is only one.
    #[must_use]
    pub fn median_step_mm(&self) -> f64 {
        let positions = self.positions_mm();
        let mut steps: Vec<f64> = positions.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied().unwrap_or_default()
    }

    /// The step between slices, mm, if there is one for all and nothing walks sideways.
    #[must_use]
    pub fn regular_step_mm(&self) -> Option<f64> {
        let normal = self.normal();
        let steps = self
            .planes
            .windows(2)
            .map(|pair| sub(pair[1].origin_mm, pair[0].origin_mm));
        let steps: Vec<Vec3> = steps.collect();
        let first = dot(*steps.first()?, normal);
        let regular = steps.iter().all(|step| {
            let along = dot(*step, normal);
            (along - first).abs() <= STEP_TOLERANCE_MM
                && norm(sub(*step, scale(normal, along))) <= STEP_TOLERANCE_MM
        });
        regular.then_some(first)
    }

    /// Volume of one voxel of a slice in millilitres: pixel area × half the distance to each neighbour, never SliceThickness.
    #[must_use]
    pub fn voxel_volume_ml(&self, slice: usize) -> f64 {
        self.pixel_spacing_mm[0] * self.pixel_spacing_mm[1] * self.slice_extent_mm(slice) / 1000.0
    }
}

/// One value a voxel, stored slice by slice, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume<T> {
    /// Where the voxels are.
    pub geometry: Geometry,
    /// `slices × rows × columns` values.
    pub data: Vec<T>,
}

impl<T> Volume<T> {
    /// The values of one slice, row by row.
    #[must_use]
    pub fn slice(&self, slice: usize) -> &[T] {
        let len = self.geometry.slice_len();
        &self.data[slice * len..(slice + 1) * len]
    }
}

/// Height of a head below its top that every head CT shows, mm.
const UPPER_MM: f64 = 100.0;

impl Volume<bool> {
    /// The mask that holds every voxel.
    #[must_use]
    pub fn everywhere(geometry: &Geometry) -> Self {
        Self {
            geometry: geometry.clone(),
            data: vec![true; geometry.len()],
        }
    }

    /// The centre of mass of what is inside a mask of a head, of its upper part only: stacks end at different heights of the neck. LPS mm.
    #[must_use]
    pub fn upper_centre_mm(&self) -> Option<Vec3> {
        let geometry = &self.geometry;
        let (len, columns) = (geometry.slice_len(), geometry.columns);
        let place =
            |v: usize| geometry.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64);
        let inside = || {
            (0..)
                .zip(&self.data)
                .filter_map(|(v, inside)| inside.then_some(v))
        };
        let top = inside().map(|v| place(v)[2]).fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut weight) = ([0.0; 3], 0.0);
        for v in inside() {
            let p = place(v);
            if p[2] >= top - UPPER_MM {
                let ml = geometry.voxel_volume_ml(v / len);
                sum = add(sum, scale(p, ml));
                weight += ml;
            }
        }
        (weight > 0.0).then(|| scale(sum, 1.0 / weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_even_unsheared_stack_has_a_step() {
        let stack = |origins_mm: &[Vec3]| {
            let plane = |origin_mm: &Vec3| SlicePlane {
                origin_mm: *origin_mm,
                thickness_mm: 5.0,
            };
            Geometry {
                rows: 2,
                columns: 2,
                row_direction: [1.0, 0.0, 0.0],
                column_direction: [0.0, 1.0, 0.0],
                pixel_spacing_mm: [1.0, 1.0],
                planes: origins_mm.iter().map(plane).collect(),
            }
            .regular_step_mm()
        };
        assert_eq!(stack(&[[0.0; 3], [0.0, 0.0, 5.0], [0.0, 0.0, 10.0]]), Some(5.0));
        assert_eq!(stack(&[[0.0; 3], [0.0, 0.0, 5.0], [0.0, 0.0, 12.0]]), None);
        assert_eq!(stack(&[[0.0; 3], [0.0, 1.7, 5.0], [0.0, 3.4, 10.0]]), None);
        assert_eq!(stack(&[[0.0; 3]]), None);
    }

    fn tilted() -> Geometry {
        let tilt = 18.5f64.to_radians();
        Geometry {
            rows: 4,
            columns: 6,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, tilt.cos(), -tilt.sin()],
            pixel_spacing_mm: [0.5, 0.25],
            planes: [0.0, 4.0, 11.0]
                .map(|z| SlicePlane {
                    origin_mm: [-10.0, 5.0, z],
                    thickness_mm: 4.0,
                })
                .to_vec(),
        }
    }

    #[test]
    fn index_and_lps_are_inverse_on_a_tilted_uneven_stack() {
        let geometry = tilted();
        for slice in 0..3 {
            let (row, column, off) = geometry.lps_to_voxel(slice, geometry.voxel_to_lps(slice, 2.25, 4.5));
            assert!((row - 2.25).abs() < 1e-9 && (column - 4.5).abs() < 1e-9 && off.abs() < 1e-9);
        }
    }

    #[test]
    fn millilitres_come_from_the_distance_to_the_neighbours() {
        let geometry = tilted();
        let cos = 18.5f64.to_radians().cos();
        let extents: Vec<f64> = (0..3).map(|i| geometry.slice_extent_mm(i) / cos).collect();
        for (extent, expected) in extents.iter().zip([4.0, 5.5, 7.0]) {
            assert!((extent - expected).abs() < 1e-9, "{extents:?}");
        }
        assert!((geometry.voxel_volume_ml(0) - 0.125 * 4.0 * cos / 1000.0).abs() < 1e-12);
    }
}
