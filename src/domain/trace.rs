//! The way from a source slice to the network's grid, and back.
//!
//! A 2-D plan leaves the slices where they are, so tilt and uneven steps need no resampling at all;
//! within the plane the way is one map per axis: which source axis, which direction, which scale, which offset.
//! `analysis::preprocess` lays the trace; the same [`SpatialTrace`] takes images there (averaging where the grid is coarser) and logits back (linear).

use super::{geometry::Vec3, volume::Geometry};
use rayon::prelude::*;

/// Where the samples of one network axis lie on a source axis: `source = start + step × index`, in voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxisMap {
    /// Source index of network index 0.
    pub start: f64,
    /// Source voxels a network voxel, negative when the axis is reversed.
    pub step: f64,
    /// Network voxels along this axis.
    pub len: usize,
}

impl AxisMap {
    /// The network index of a source index.
    fn inverse(&self, source: f64) -> f64 {
        (source - self.start) / self.step
    }
}

/// Everything that `preprocess` did to the geometry.
#[derive(Debug, Clone, PartialEq)]
pub struct SpatialTrace {
    /// The source grid.
    pub source: Geometry,
    /// Whether network rows run along source columns.
    pub transposed: bool,
    /// Network rows and columns on their source axes.
    pub axes: [AxisMap; 2],
    /// The slices that the network sees, ascending.
    pub slices: Vec<usize>,
}

impl SpatialTrace {
    /// Rows and columns of the network grid.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.axes[0].len, self.axes[1].len]
    }

    /// Where a network pixel of a source slice lies, LPS mm.
    #[must_use]
    pub fn point_mm(&self, slice: usize, row: f64, column: f64) -> Vec3 {
        let [first, second] = [(0, row), (1, column)].map(|(axis, at)| {
            let map: &AxisMap = &self.axes[axis];
            map.start + map.step * at
        });
        let (row, column) = if self.transposed {
            (second, first)
        } else {
            (first, second)
        };
        self.source.voxel_to_lps(slice, row, column)
    }

    /// The network row and column of a point, seen along the slice's normal.
    #[must_use]
    pub fn place_of(&self, slice: usize, point_mm: Vec3) -> [f64; 2] {
        let (row, column, _) = self.source.lps_to_voxel(slice, point_mm);
        let (first, second) = if self.transposed {
            (column, row)
        } else {
            (row, column)
        };
        [self.axes[0].inverse(first), self.axes[1].inverse(second)]
    }

    /// A source slice on the network grid; outside the source stands `outside`.
    #[must_use]
    pub fn apply(&self, slice: &[f32], outside: f32) -> Vec<f32> {
        let [row_map, column_map] = self.axes;
        let (rows, columns) = (self.source.rows, self.source.columns);
        // Network rows sample the source axis of length `first`, columns that of `second`.
        let (first, second) = if self.transposed {
            (columns, rows)
        } else {
            (rows, columns)
        };
        let row_weights = weights(&row_map, first);
        let column_weights = weights(&column_map, second);
        let at = |i: usize, j: usize| {
            if self.transposed {
                slice[j * columns + i]
            } else {
                slice[i * columns + j]
            }
        };
        let mut out = vec![outside; row_map.len * column_map.len];
        let mut line = vec![0.0f32; second];
        for (r, (from, row)) in row_weights.iter().enumerate() {
            if row.is_empty() {
                continue;
            }
            for (j, value) in line.iter_mut().enumerate() {
                *value = row.iter().enumerate().map(|(k, w)| w * at(from + k, j)).sum();
            }
            for (c, (from, column)) in column_weights.iter().enumerate() {
                if !column.is_empty() {
                    out[r * column_map.len + c] = column.iter().zip(&line[*from..]).map(|(w, v)| w * v).sum();
                }
            }
        }
        out
    }

    /// Where the pixels of a source slice lie among those of the network grid.
    #[must_use]
    pub fn way_back(&self) -> WayBack {
        let places = |axis: usize, len: usize, stride: usize| {
            let map = &self.axes[axis];
            let place = |source: usize| {
                let at = map.inverse(source as f64);
                // Half a voxel beyond the last centre still belongs to the last voxel.
                (at > -0.5 && at < map.len as f64 - 0.5).then(|| {
                    let at = at.clamp(0.0, (map.len - 1) as f64);
                    let low = floor(at).min(map.len.saturating_sub(2));
                    Between {
                        low: low * stride,
                        high: (low + 1).min(map.len - 1) * stride,
                        share: single(at - low as f64),
                    }
                })
            };
            (0..len).map(place).collect()
        };
        let width = self.axes[1].len;
        let (row, column) = if self.transposed {
            ((1, 1), (0, width))
        } else {
            ((0, width), (1, 1))
        };
        WayBack {
            rows: places(row.0, self.source.rows, row.1),
            columns: places(column.0, self.source.columns, column.1),
        }
    }

    /// A network slice brought back to the source grid, linearly; outside the network grid stands `outside`.
    #[must_use]
    pub fn invert(&self, slice: &[f32], outside: f32) -> Vec<f32> {
        let way = self.way_back();
        way.pixels()
            .map(|corners| corners.map_or(outside, |corners| corners.value(slice)))
            .collect()
    }

    /// All network slices of a volume in parallel, in the order of `slices`.
    #[must_use]
    pub fn apply_all(&self, data: &[f32], outside: f32) -> Vec<Vec<f32>> {
        let len = self.source.slice_len();
        self.slices
            .par_iter()
            .map(|s| self.apply(&data[s * len..(s + 1) * len], outside))
            .collect()
    }
}

/// The way from the network grid to a source slice: between which network pixels each source pixel lies.
#[derive(Debug, Clone, PartialEq)]
pub struct WayBack {
    rows: Vec<Option<Between>>,
    columns: Vec<Option<Between>>,
}

/// Between two lines of the network grid, as offsets into a network slice.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Between {
    low: usize,
    high: usize,
    share: f32,
}

/// The four network pixels around a source pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corners {
    row: Between,
    column: Between,
}

impl WayBack {
    /// The corners of every source pixel, row by row; none outside the network grid.
    pub fn pixels(&self) -> impl Iterator<Item = Option<Corners>> + '_ {
        self.rows.iter().flat_map(|row| {
            self.columns
                .iter()
                .map(|column| row.zip(*column).map(|(row, column)| Corners { row, column }))
        })
    }
}

impl Corners {
    /// Their places in a network slice.
    #[must_use]
    pub fn places(&self) -> [usize; 4] {
        let Self { row, column } = self;
        [
            row.low + column.low,
            row.low + column.high,
            row.high + column.low,
            row.high + column.high,
        ]
    }

    /// What a network slice is between them, linearly.
    #[must_use]
    pub fn value(&self, slice: &[f32]) -> f32 {
        let (fr, fc) = (self.row.share, self.column.share);
        let [a, b, c, d] = self.places().map(|place| slice[place]);
        let low = a * (1.0 - fc) + b * fc;
        let high = c * (1.0 - fc) + d * fc;
        low * (1.0 - fr) + high * fr
    }
}

/// For each network index: the first source index it reads and the weights, which sum to 1; empty outside the source.
///
/// The linear interpolant of the source, averaged over a box that makes up for the coarser step; a linear image stays what it is.
/// The widths of voxel and box add in quadrature, so that an equal grid is not blurred.
fn weights(map: &AxisMap, source_len: usize) -> Vec<(usize, Vec<f32>)> {
    let half = (map.step * map.step - 1.0).max(0.0).sqrt() / 2.0;
    (0..map.len)
        .map(|index| {
            let centre = map.start + map.step * index as f64;
            if centre < -0.5 || centre > source_len as f64 - 0.5 {
                return (0, Vec::new());
            }
            let from = floor((centre - half - 1.0).ceil().max(0.0));
            let to = floor((centre + half + 1.0).floor()).min(source_len - 1);
            let raw: Vec<f64> = (from..=to)
                .map(|i| {
                    let (low, high) = (centre - half - i as f64, centre + half - i as f64);
                    if half < 1e-6 {
                        (1.0 - low.abs()).max(0.0)
                    } else {
                        hat_integral(high) - hat_integral(low)
                    }
                })
                .collect();
            let sum: f64 = raw.iter().sum();
            (from, raw.iter().map(|w| single(w / sum)).collect())
        })
        .collect()
}

/// Integral of the unit triangle from −1 to x.
fn hat_integral(x: f64) -> f64 {
    let x = x.clamp(-1.0, 1.0);
    if x < 0.0 {
        (x + 1.0) * (x + 1.0) / 2.0
    } else {
        1.0 - (1.0 - x) * (1.0 - x) / 2.0
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "callers pass what was checked to be an index"
)]
fn floor(value: f64) -> usize {
    value as usize
}

#[expect(clippy::cast_possible_truncation, reason = "weights are used in f32")]
fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;
    use proptest::prelude::*;

    fn trace(rows: usize, columns: usize, step: f64, transposed: bool, flipped: bool) -> SpatialTrace {
        let source = Geometry {
            rows,
            columns,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [1.0, 1.0],
            planes: vec![SlicePlane {
                origin_mm: [0.0; 3],
                thickness_mm: 5.0,
            }],
        };
        let lens = if transposed {
            [columns, rows]
        } else {
            [rows, columns]
        };
        let axes = lens.map(|n| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small positive number"
            )]
            let len = (n as f64 / step).ceil() as usize;
            let last = (n - 1) as f64;
            if flipped {
                AxisMap {
                    start: last,
                    step: -step,
                    len,
                }
            } else {
                AxisMap {
                    start: 0.0,
                    step,
                    len,
                }
            }
        });
        SpatialTrace {
            source,
            transposed,
            axes,
            slices: vec![0],
        }
    }

    proptest! {
        #[test]
        fn a_linear_image_survives_the_way_there_and_back(
            rows in 20usize..40, columns in 20usize..40, step in 0.5f64..2.2, transposed: bool, flipped: bool,
        ) {
            let trace = trace(rows, columns, step, transposed, flipped);
            let image: Vec<f32> = (0..rows * columns).map(|i| (i / columns) as f32 * 3.0 - (i % columns) as f32).collect();
            let back = trace.invert(&trace.apply(&image, 0.0), f32::NAN);
            // Away from the border, where the average has both neighbours, a linear function is its own average.
            for r in 5..rows - 5 {
                for c in 5..columns - 5 {
                    prop_assert!((back[r * columns + c] - image[r * columns + c]).abs() < 1e-3);
                }
            }
        }
    }

    #[test]
    fn an_equal_grid_changes_nothing() {
        let trace = trace(7, 9, 1.0, false, false);
        let image: Vec<f32> = (0..63).map(|i| ((i * 31) % 17) as f32).collect();
        assert_eq!(trace.invert(&trace.apply(&image, 0.0), 0.0), image);
    }
}
