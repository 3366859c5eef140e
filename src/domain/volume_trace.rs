//! The way from a source volume to the grid of a whole-volume network, and back.
//!
//! As nnU-Net goes: the array as a NIfTI file holds it (`k, j, i`), transposed, cropped to what is not zero, resampled.
//! A DICOM stack is turned as dcm2niix turns it (rows run from the back to the front), a NIfTI volume back to the order of its file, so that a network sees what its training data looked like.
//! `analysis::preprocess` lays the trace; `analysis::uncertainty` brings logits back through it, plane by plane, so that the source grid never holds all classes of all members.

use super::{
    from_first,
    resample::{Method, resample},
    volume::Geometry,
};
use std::ops::Range;

/// How a [`super::volume::Volume`] lies in the array that the network was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// Slices in reverse.
    pub slices: bool,
    /// Rows in reverse.
    pub rows: bool,
    /// Columns in reverse.
    pub columns: bool,
}

impl Turn {
    /// How dcm2niix turns an axial DICOM stack.
    pub const DICOM: Self = Self {
        slices: false,
        rows: true,
        columns: false,
    };
}

/// Where the voxels of the source lie on the network's grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Alignment {
    /// The edges of both lie on each other; [`VolumeTrace::method`] says what lies between (nnU-Net).
    Edges,
    /// The first voxels lie on each other, each source voxel so many of the network's further on; linear (MONAI).
    First([f64; 3]),
    /// The same by the nearest voxel, and so many source voxels beside (BLAST-CT).
    Nearest {
        /// Voxels of the network's grid that each source voxel is.
        ratio: [f64; 3],
        /// Source voxels between the first of the source and the first of the network's grid.
        beside: [f64; 3],
    },
}

/// A box of a grid, which may reach beyond it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The voxels of the grid that are also the box's.
    pub kept: [Range<usize>; 3],
    /// Where the grid's first voxel lies in the box.
    pub first: [isize; 3],
    /// Voxels of the box.
    pub shape: [usize; 3],
}

impl Part {
    /// All of a grid.
    #[must_use]
    pub fn whole(shape: [usize; 3]) -> Self {
        Self {
            kept: shape.map(|n| 0..n),
            first: [0; 3],
            shape,
        }
    }

    /// The part of this box from `start` on, of this size; what it has beyond is nobody's.
    #[must_use]
    pub fn within(&self, start: [isize; 3], shape: [usize; 3]) -> Self {
        let first = [0, 1, 2].map(|a| self.first[a] - start[a]);
        let kept = [0, 1, 2].map(|a| {
            let low = self.kept[a].start.max(0usize.saturating_add_signed(-first[a]));
            let high = self.kept[a].end.min(shape[a].saturating_add_signed(-first[a]));
            low..high.max(low)
        });
        Self { kept, first, shape }
    }

    /// One channel of the box on the whole grid, 0 where the box is not.
    #[must_use]
    pub fn back(&self, channel: &[f32], grid: [usize; 3]) -> Vec<f32> {
        let mut out = vec![0.0; grid.iter().product()];
        let [a, b, c] = &self.kept;
        if c.is_empty() {
            return out;
        }
        let inside = |axis: usize, at: usize| at.saturating_add_signed(self.first[axis]);
        for x in a.clone() {
            for y in b.clone() {
                let from = (inside(0, x) * self.shape[1] + inside(1, y)) * self.shape[2] + inside(2, c.start);
                let to = (x * grid[1] + y) * grid[2] + c.start;
                out[to..to + c.len()].copy_from_slice(&channel[from..from + c.len()]);
            }
        }
        out
    }
}

/// Everything that was done to the geometry.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeTrace {
    /// The source grid.
    pub source: Geometry,
    /// How the source lies in the array.
    pub turn: Turn,
    /// Which array axis (`k, j, i`) is the network's first, second and third.
    pub transpose: [usize; 3],
    /// What was kept of each network axis before resampling.
    pub crop: [Range<usize>; 3],
    /// The network's grid.
    pub shape: [usize; 3],
    /// The box of that grid that the network sees; none: all of it.
    pub part: Option<Part>,
    /// How logits are resampled.
    pub method: Method,
    /// Where the source's voxels lie on the network's grid.
    pub alignment: Alignment,
}

impl VolumeTrace {
    /// Voxels of the array along the network's axes, before the crop.
    #[must_use]
    pub fn transposed_shape(&self) -> [usize; 3] {
        let array = [self.source.slices(), self.source.rows, self.source.columns];
        self.transpose.map(|axis| array[axis])
    }

    /// Voxels of what the network sees.
    #[must_use]
    pub fn network_shape(&self) -> [usize; 3] {
        self.part.as_ref().map_or(self.shape, |part| part.shape)
    }

    /// Voxels along the network's axes after the crop.
    #[must_use]
    pub fn cropped_shape(&self) -> [usize; 3] {
        [0, 1, 2].map(|a| self.crop[a].len())
    }

    /// The index in the source volume of a voxel of the transposed array.
    #[must_use]
    pub fn source_index(&self, at: [usize; 3]) -> usize {
        let mut array = [0; 3];
        for (value, axis) in at.into_iter().zip(self.transpose) {
            array[axis] = value;
        }
        let [mut k, mut j, mut i] = array;
        if self.turn.slices {
            k = self.source.slices() - 1 - k;
        }
        if self.turn.rows {
            j = self.source.rows - 1 - j;
        }
        if self.turn.columns {
            i = self.source.columns - 1 - i;
        }
        (k * self.source.rows + j) * self.source.columns + i
    }

    /// The transposed, cropped array of a source volume.
    #[must_use]
    pub fn cut<T: Copy>(&self, data: &[T]) -> Vec<T> {
        let [a, b, c] = self.crop.clone();
        let mut out = Vec::with_capacity(self.cropped_shape().iter().product());
        for x in a {
            for y in b.clone() {
                out.extend(c.clone().map(|z| data[self.source_index([x, y, z])]));
            }
        }
        out
    }

    /// Plane `at` of the cropped grid, resampled from one channel of the network's grid.
    ///
    /// # Shape
    /// `channel`: [`Self::shape`]; result: the second and third of [`Self::cropped_shape`].
    #[must_use]
    pub fn plane(&self, channel: &[f32], at: usize) -> Vec<f32> {
        let [n, rows, columns] = self.shape;
        let cropped = self.cropped_shape();
        match self.alignment {
            Alignment::Edges => {}
            Alignment::First(ratio) => {
                return from_first::plane(channel, self.shape, at, [cropped[1], cropped[2]], ratio);
            }
            Alignment::Nearest { ratio, beside } => {
                let near = |a: usize, o: usize| nearest(self.shape[a], (o as f64 + beside[a]) * ratio[a]);
                let slice = near(0, at) * rows;
                let places = (0..cropped[1]).flat_map(|r| (0..cropped[2]).map(move |c| (r, c)));
                return places
                    .map(|(r, c)| channel[(slice + near(1, r)) * columns + near(2, c)])
                    .collect();
            }
        }
        let m = cropped[0];
        let len = rows * columns;
        let order = match self.method.apart {
            Some((0, order)) => order,
            _ => self.method.order,
        };
        let plane = |k: usize| &channel[k * len..(k + 1) * len];
        let (low, high, share) = neighbours(n, m, at, order);
        let between: Vec<f32> = if share == 0.0 {
            plane(low).to_vec()
        } else {
            let pairs = plane(low).iter().zip(plane(high));
            pairs.map(|(a, b)| a * (1.0 - share) + b * share).collect()
        };
        // The first axis is done: what is left has two.
        let apart = self.method.apart.filter(|(axis, _)| *axis > 0);
        let method = Method {
            order: self.method.order,
            apart,
        };
        resample(between, [1, rows, columns], [1, cropped[1], cropped[2]], method)
    }

    /// The source indices of a plane of the cropped grid, in the order of [`Self::plane`].
    pub fn plane_indices(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        let [a, b, c] = &self.crop;
        let x = a.start + at;
        b.clone()
            .flat_map(move |y| c.clone().map(move |z| self.source_index([x, y, z])))
    }
}

/// The voxel nearest to a coordinate, the higher one of two.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates are clamped to the array"
)]
fn nearest(n: usize, x: f64) -> usize {
    (x + 0.5).floor().clamp(0.0, (n - 1) as f64) as usize
}

/// The two input planes around an output plane, and the share of the second; order 0 or 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates are clamped to the array"
)]
fn neighbours(n: usize, m: usize, at: usize, order: u8) -> (usize, usize, f32) {
    let last = (n - 1) as f64;
    let x = ((at as f64 + 0.5) * n as f64 / m as f64 - 0.5).clamp(0.0, last);
    if order == 0 {
        let nearest = (x + 0.5).floor().min(last) as usize;
        return (nearest, nearest, 0.0);
    }
    let low = x.floor();
    (low as usize, (low + 1.0).min(last) as usize, (x - low) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;
    use proptest::prelude::*;

    fn trace(transpose: [usize; 3], turn: Turn, shape: [usize; 3]) -> VolumeTrace {
        let planes = (0..4).map(|k| SlicePlane {
            origin_mm: [0.0, 0.0, f64::from(k) * 5.0],
            thickness_mm: 5.0,
        });
        VolumeTrace {
            source: Geometry {
                rows: 6,
                columns: 5,
                row_direction: [1.0, 0.0, 0.0],
                column_direction: [0.0, 1.0, 0.0],
                pixel_spacing_mm: [1.0, 1.0],
                planes: planes.collect(),
            },
            turn,
            transpose,
            crop: [0..0, 0..0, 0..0],
            shape,
            part: None,
            method: Method {
                order: 1,
                apart: None,
            },
            alignment: Alignment::Edges,
        }
    }

    proptest! {
        #[test]
        fn what_was_cut_goes_back_where_it_was(permutation in 0usize..6, slices: bool, rows: bool, columns: bool) {
            let transpose = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][permutation];
            let mut trace = trace(transpose, Turn { slices, rows, columns }, [0; 3]);
            let full = trace.transposed_shape();
            trace.crop = [1..full[0], 0..full[1] - 1, 1..full[2] - 1];
            trace.shape = trace.cropped_shape();
            let data: Vec<f32> = (0..trace.source.len()).map(|i| i as f32).collect();
            let cut = trace.cut(&data);
            for at in 0..trace.shape[0] {
                let plane = trace.plane(&cut, at);
                for (value, index) in plane.into_iter().zip(trace.plane_indices(at)) {
                    prop_assert_eq!(value, data[index]);
                }
            }
        }
    }

    #[test]
    fn a_box_goes_back_to_its_grid_and_what_it_lacks_is_zero() {
        let part = Part::whole([1, 1, 6]).within([0, 0, 2], [1, 1, 3]);
        let padded = part.within([0, 0, -1], [1, 1, 5]);
        let back = |part: &Part, values: &[f32]| part.back(values, [1, 1, 6]);
        assert_eq!(back(&part, &[1.0, 2.0, 3.0]), [0.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
        // What the network says of the padding is nobody's.
        assert_eq!(
            back(&padded, &[9.0, 1.0, 2.0, 3.0, 9.0]),
            [0.0, 0.0, 1.0, 2.0, 3.0, 0.0]
        );
        let beyond = Part::whole([1, 1, 6]).within([0, 0, -2], [1, 1, 10]);
        assert_eq!(beyond.kept, [0..1, 0..1, 0..6]);
    }

    #[test]
    fn planes_of_another_size_are_those_of_the_whole_array_resampled() {
        let mut trace = trace([0, 1, 2], Turn::default(), [7, 3, 8]);
        let full = trace.transposed_shape();
        trace.crop = full.map(|n| 0..n);
        let data: Vec<f32> = (0..7 * 3 * 8).map(|i| ((i * 37) % 101) as f32).collect();
        for apart in [None, Some((0, 0)), Some((0, 1)), Some((2, 0))] {
            trace.method.apart = apart;
            let whole = resample(data.clone(), trace.shape, full, trace.method);
            let planes: Vec<f32> = (0..full[0]).flat_map(|at| trace.plane(&data, at)).collect();
            let worst = whole
                .iter()
                .zip(&planes)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 1e-4, "{apart:?} {worst}");
        }
    }
}
