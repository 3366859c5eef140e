//! The way from a source volume to an even box along the patient's axes, and back.
//!
//! Forth, a voxel of the box is the mean of the source voxels whose centres lie in it: leaning, turned and uneven stacks all end up in their place.
//! Back, a source voxel takes what the box says at its place, between voxel centres linearly; outside the box nothing was said.

use super::{
    geometry::Vec3,
    prediction::Prediction,
    resample::Method,
    volume::{Geometry, SlicePlane, Volume},
    volume_trace::{Alignment, Turn, VolumeTrace},
};
use rayon::prelude::*;

/// Slices that are summed together; fixed, so that sums do not depend on the number of threads.
const SLICES_AT_ONCE: usize = 32;

/// Everything that was done to the geometry.
#[derive(Debug, Clone, PartialEq)]
pub struct BoxTrace {
    /// The source grid.
    pub source: Geometry,
    /// Voxels of the box: slices, rows, columns.
    pub shape: [usize; 3],
    /// Millimetres of a voxel along them.
    pub spacing_mm: [f64; 3],
    /// The centre of the first voxel, LPS mm.
    pub origin_mm: Vec3,
}

/// A row of source voxels in the box: coordinates (column, row, slice) of its first voxel and the step to the next.
type Line = (Vec3, Vec3);

impl BoxTrace {
    /// The box as a grid of its own: axial, columns to the left, rows to the back.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let [slices, rows, columns] = self.shape;
        Geometry {
            rows,
            columns,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [self.spacing_mm[1], self.spacing_mm[2]],
            planes: (0..slices)
                .map(|k| SlicePlane {
                    origin_mm: [
                        self.origin_mm[0],
                        self.origin_mm[1],
                        self.origin_mm[2] + k as f64 * self.spacing_mm[0],
                    ],
                    thickness_mm: self.spacing_mm[0],
                })
                .collect(),
        }
    }

    /// The way of a network's logits to the box, which is none.
    #[must_use]
    pub fn as_volume(&self) -> VolumeTrace {
        VolumeTrace {
            source: self.geometry(),
            part: None,
            alignment: Alignment::Edges,
            turn: Turn::default(),
            transpose: [0, 1, 2],
            crop: self.shape.map(|n| 0..n),
            shape: self.shape,
            method: Method {
                order: 1,
                apart: None,
            },
        }
    }

    fn line(&self, slice: usize, row: usize) -> Line {
        let (source, mm) = (&self.source, self.spacing_mm);
        let first = source.voxel_to_lps(slice, row as f64, 0.0);
        let next = source.voxel_to_lps(slice, row as f64, 1.0);
        let scale = [mm[2], mm[1], mm[0]];
        (
            std::array::from_fn(|a| (first[a] - self.origin_mm[a]) / scale[a]),
            std::array::from_fn(|a| (next[a] - first[a]) / scale[a]),
        )
    }

    /// The source in the box; what the source does not reach is `outside`.
    #[must_use]
    pub fn forth(&self, data: &[f32], outside: f32) -> Vec<f32> {
        let voxels: usize = self.shape.iter().product();
        let slices: Vec<usize> = (0..self.source.slices()).collect();
        let parts: Vec<(Vec<f32>, Vec<f32>)> = slices
            .par_chunks(SLICES_AT_ONCE)
            .map(|slices| {
                let (mut sums, mut counts) = (vec![0.0; voxels], vec![0.0; voxels]);
                for slice in slices {
                    self.sum(*slice, data, &mut sums, &mut counts);
                }
                (sums, counts)
            })
            .collect();
        let (mut sums, mut counts) = (vec![0.0f32; voxels], vec![0.0f32; voxels]);
        for (part, count) in &parts {
            for v in 0..voxels {
                sums[v] += part[v];
                counts[v] += count[v];
            }
        }
        for (sum, count) in sums.iter_mut().zip(&counts) {
            *sum /= count.max(1.0);
        }
        // Steps wider than a voxel leave gaps: each takes the mean of its neighbours, twice.
        for _ in 0..2 {
            let (values, known) = (sums.clone(), counts.clone());
            for v in (0..voxels).filter(|v| known[*v] == 0.0) {
                let near = self.beside(v).filter(|n| known[*n] > 0.0);
                let (count, sum) = near.fold((0.0f32, 0.0f32), |(n, s), i| (n + 1.0, s + values[i]));
                if count > 0.0 {
                    (sums[v], counts[v]) = (sum / count, 1.0);
                }
            }
        }
        for (sum, count) in sums.iter_mut().zip(&counts) {
            if *count == 0.0 {
                *sum = outside;
            }
        }
        sums
    }

    fn sum(&self, slice: usize, data: &[f32], sums: &mut [f32], counts: &mut [f32]) {
        let [depth, rows, columns] = self.shape;
        let limits = [columns as f64, rows as f64, depth as f64];
        let (len, width) = (self.source.slice_len(), self.source.columns);
        for row in 0..self.source.rows {
            let (start, step) = self.line(slice, row);
            for (column, value) in data[slice * len + row * width..][..width].iter().enumerate() {
                let at: Vec3 = std::array::from_fn(|a| start[a] + column as f64 * step[a] + 0.5);
                if (0..3).any(|a| at[a] < 0.0 || at[a] >= limits[a]) {
                    continue;
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked to be an index"
                )]
                let [x, y, z] = at.map(|v| v as usize);
                let v = (z * rows + y) * columns + x;
                sums[v] += value;
                counts[v] += 1.0;
            }
        }
    }

    /// The voxels above and below, before and behind, left and right.
    fn beside(&self, v: usize) -> impl Iterator<Item = usize> {
        let [depth, rows, columns] = self.shape;
        let (z, y, x) = (v / (rows * columns), v / columns % rows, v % columns);
        [
            (z > 0, v.wrapping_sub(rows * columns)),
            (z + 1 < depth, v + rows * columns),
            (y > 0, v.wrapping_sub(columns)),
            (y + 1 < rows, v + columns),
            (x > 0, v.wrapping_sub(1)),
            (x + 1 < columns, v + 1),
        ]
        .into_iter()
        .filter_map(|(inside, n)| inside.then_some(n))
    }

    /// A prediction of the box on the source grid; what lies outside is background, surely.
    #[must_use]
    pub fn back(&self, boxed: &Prediction) -> Prediction {
        let maps = [
            &boxed.score,
            &boxed.entropy,
            &boxed.mutual_information,
            &boxed.variance,
        ];
        let linear = |map: &Volume<f32>| Volume {
            geometry: self.source.clone(),
            data: self.spread(0.0, |at| self.between(&map.data, at)),
        };
        let [score, entropy, mutual_information, variance] = maps.map(linear);
        Prediction {
            labels: Volume {
                geometry: self.source.clone(),
                data: self.spread(0, |at| boxed.labels.data[self.nearest(at)]),
            },
            score,
            entropy,
            mutual_information,
            variance,
            structures: boxed.structures.as_ref().map(|structures| Volume {
                geometry: self.source.clone(),
                data: self.spread(0, |at| structures.data[self.nearest(at)]),
            }),
            disagreement: boxed.disagreement,
        }
    }

    /// A value for each source voxel: `of` its place within the box, or `outside`.
    fn spread<T: Copy + Send + Sync>(&self, outside: T, of: impl Fn(Vec3) -> T + Sync) -> Vec<T> {
        let (len, width) = (self.source.slice_len(), self.source.columns);
        let limits: Vec3 = [2, 1, 0].map(|a| self.shape[a] as f64 - 0.5);
        let mut out = vec![outside; self.source.len()];
        out.par_chunks_mut(len).enumerate().for_each(|(slice, out)| {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let (start, step) = self.line(slice, row);
                for (column, value) in out.iter_mut().enumerate() {
                    let at: Vec3 = std::array::from_fn(|a| start[a] + column as f64 * step[a]);
                    if (0..3).all(|a| at[a] >= -0.5 && at[a] < limits[a]) {
                        *value = of(at);
                    }
                }
            }
        });
        out
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least −0.5, and cut to the box"
    )]
    fn nearest(&self, at: Vec3) -> usize {
        let [x, y, z] = at.map(|v| (v + 0.5) as usize);
        let [depth, rows, columns] = self.shape;
        (z.min(depth - 1) * rows + y.min(rows - 1)) * columns + x.min(columns - 1)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "cut to the box"
    )]
    fn between(&self, data: &[f32], at: Vec3) -> f32 {
        let [depth, rows, columns] = self.shape;
        let last = [columns - 1, rows - 1, depth - 1];
        let at: Vec3 = std::array::from_fn(|a| at[a].clamp(0.0, last[a] as f64));
        let low = at.map(|v| v as usize);
        let share: [f32; 3] = std::array::from_fn(|a| (at[a] - low[a] as f64) as f32);
        let high: [usize; 3] = std::array::from_fn(|a| (low[a] + 1).min(last[a]));
        let get = |x: usize, y: usize, z: usize| data[(z * rows + y) * columns + x];
        let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let line = |y: usize, z: usize| mix(get(low[0], y, z), get(high[0], y, z), share[0]);
        let plane = |z: usize| mix(line(low[1], z), line(high[1], z), share[1]);
        mix(plane(low[2]), plane(high[2]), share[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack of `steps` mm that leans by 20 degrees.
    fn leaning(steps: &[f64]) -> Geometry {
        let (sin, cos) = 20f64.to_radians().sin_cos();
        let mut z = -30.0;
        Geometry {
            rows: 80,
            columns: 80,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, cos, -sin],
            pixel_spacing_mm: [1.0, 1.0],
            planes: steps
                .iter()
                .map(|step| {
                    z += step;
                    SlicePlane {
                        origin_mm: [-40.0, -40.0, z + 14.0],
                        thickness_mm: *step,
                    }
                })
                .collect(),
        }
    }

    #[test]
    fn a_leaning_uneven_stack_comes_to_lie_in_its_place_and_back() {
        let steps: Vec<f64> = (0..50).map(|i| if i % 3 == 0 { 1.6 } else { 1.0 }).collect();
        let trace = BoxTrace {
            source: leaning(&steps),
            shape: [12, 14, 16],
            spacing_mm: [2.0, 2.0, 2.0],
            origin_mm: [-15.0, -13.0, -11.0],
        };
        // A field that says where it was taken.
        let source = &trace.source;
        let (len, columns) = (source.slice_len(), source.columns);
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
        let value = |p: Vec3| (p[0] + 2.0 * p[1] - 3.0 * p[2]) as f32;
        let data: Vec<f32> = (0..source.len())
            .map(|v| value(source.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64)))
            .collect();
        let boxed = trace.forth(&data, f32::NAN);
        let grid = trace.geometry();
        for (v, found) in boxed.iter().enumerate() {
            let p = grid.voxel_to_lps(v / (14 * 16), (v / 16 % 14) as f64, (v % 16) as f64);
            assert!((found - value(p)).abs() < 4.0, "{v}: {found} {}", value(p));
        }
        let back = trace.spread(f32::NAN, |at| trace.between(&boxed, at));
        let inside = back.iter().zip(&data).filter(|(b, _)| !b.is_nan());
        let worst = inside.map(|(b, d)| (b - d).abs()).fold(0.0, f32::max);
        assert!(worst < 8.0, "{worst}");
        assert!(back.iter().filter(|b| !b.is_nan()).count() > 12 * 14 * 16);
    }
}
