//! Stage 2 for plans on a box of the head: HU volume → the network's box around the skull base, and the [`BoxTrace`] that leads back.
//!
//! Where the head lies is seen on a coarse copy: the box is placed from the centre of mass of the upper cranial cavity, never from where vessels are bright.
//! Brain and cavity are the coarse ones, spread to the source grid: enough to tell left from right, and chewing muscles from what lies in the skull.

use super::{
    AIR_HU, PreprocessError,
    brain::{Intracranial, intracranial},
    head_trace,
    normalize::normalize,
};
use crate::domain::{
    geometry::{Vec3, add},
    head_box::BoxTrace,
    network::VolumeInput,
    plan::{Grid, Plan},
    volume::{Geometry, SlicePlane, Volume},
};
use rayon::prelude::*;

/// Voxels of the coarse copy are about this large, mm.
const COARSE_MM: f64 = 2.0;
/// Slices of the coarse copy are about this far apart, mm.
const COARSE_STEP_MM: f64 = 3.0;

/// A head, ready for its network.
#[derive(Debug)]
pub struct Boxed {
    /// Normalised values.
    pub input: VolumeInput,
    /// The way back.
    pub trace: BoxTrace,
    /// Where the brain is, and what its cavity, roughly; of plans about arteries everything counts as cavity.
    pub intracranial: Intracranial,
}

/// Brings a volume into the box of a plan.
///
/// # Errors
/// [`PreprocessError::NoHead`] when there is nothing to look at; otherwise a plan that is not for boxes.
pub fn preprocess(ct: &Volume<f32>, plan: &Plan) -> Result<Boxed, PreprocessError> {
    let configuration = &plan.configuration;
    let Grid::HeadBox { centre_mm } = configuration.grid else {
        return Err(PreprocessError::Grid);
    };
    let (&[depth, rows, columns], &[step, row_mm, column_mm]) = (
        configuration.patch_size.as_slice(),
        configuration.spacing.as_slice(),
    ) else {
        return Err(PreprocessError::Dimensions(configuration.spacing.len()));
    };
    let copy = Coarse::new(ct);
    let Intracranial { brain, cavity } = intracranial(&copy.volume, &head_trace(&copy.volume)?);
    let middle = cavity.upper_centre_mm().ok_or(PreprocessError::NoHead)?;
    let trace = lay(
        ct.geometry.clone(),
        add(middle, centre_mm),
        [depth, rows, columns],
        [step, row_mm, column_mm],
    );
    let mut data = trace.forth(&ct.data, AIR_HU);
    let scheme = configuration
        .normalization_schemes
        .first()
        .ok_or(PreprocessError::Normalization)?;
    normalize(&mut data, scheme, None);
    Ok(Boxed {
        input: VolumeInput {
            channels: 1,
            shape: trace.shape,
            data,
        },
        intracranial: Intracranial {
            brain: copy.spread(&brain, &ct.geometry),
            // Arteries enter through the skull base: for them everything counts.
            cavity: if plan.labels.iter().any(|label| label.site.is_some()) {
                Volume::everywhere(&ct.geometry)
            } else {
                copy.spread(&cavity, &ct.geometry)
            },
        },
        trace,
    })
}

/// A box around a centre.
#[must_use]
pub fn lay(source: Geometry, centre_mm: Vec3, shape: [usize; 3], spacing_mm: [f64; 3]) -> BoxTrace {
    let origin_mm = std::array::from_fn(|a| {
        // LPS x runs along columns, y along rows, z along slices.
        let axis = 2 - a;
        centre_mm[a] - 0.5 * (shape[axis] as f64 - 1.0) * spacing_mm[axis]
    });
    BoxTrace {
        source,
        shape,
        spacing_mm,
        origin_mm,
    }
}

/// Every so-manieth slice, and means of square blocks of its pixels.
struct Coarse {
    volume: Volume<f32>,
    block: usize,
    every: usize,
}

impl Coarse {
    fn new(ct: &Volume<f32>) -> Self {
        let source = &ct.geometry;
        let positions = source.positions_mm();
        let length = positions[positions.len() - 1] - positions[0];
        let step = length / (positions.len().max(2) - 1) as f64;
        let times = |target: f64, mm: f64| {
            (1..32usize)
                .take_while(|n| (*n as f64) * mm <= target)
                .last()
                .unwrap_or(1)
        };
        let block = times(
            COARSE_MM,
            source.pixel_spacing_mm[0].max(source.pixel_spacing_mm[1]),
        );
        let every = times(COARSE_STEP_MM, step.max(0.01));
        let (rows, columns) = (source.rows / block, source.columns / block);
        let middle = 0.5 * (block as f64 - 1.0);
        let taken: Vec<usize> = (0..source.slices()).step_by(every).collect();
        let data = taken
            .par_iter()
            .flat_map_iter(|slice| {
                let hu = ct.slice(*slice);
                let mut out = vec![0.0f32; rows * columns];
                for row in 0..rows * block {
                    for column in 0..columns * block {
                        out[row / block * columns + column / block] += hu[row * source.columns + column];
                    }
                }
                let share = 1.0 / (block * block) as f32;
                out.into_iter().map(move |sum| sum * share)
            })
            .collect();
        let geometry = Geometry {
            rows,
            columns,
            pixel_spacing_mm: source.pixel_spacing_mm.map(|mm| mm * block as f64),
            planes: taken
                .iter()
                .map(|slice| SlicePlane {
                    origin_mm: source.voxel_to_lps(*slice, middle, middle),
                    thickness_mm: source.planes[*slice].thickness_mm.max(step * every as f64),
                })
                .collect(),
            ..source.clone()
        };
        Self {
            volume: Volume { geometry, data },
            block,
            every,
        }
    }

    /// A coarse mask on the source grid.
    fn spread(&self, mask: &Volume<bool>, source: &Geometry) -> Volume<bool> {
        let (rows, columns) = (mask.geometry.rows, mask.geometry.columns);
        let mut data = vec![false; source.len()];
        data.par_chunks_mut(source.slice_len())
            .enumerate()
            .for_each(|(slice, out)| {
                let coarse = mask.slice((slice / self.every).min(mask.geometry.slices() - 1));
                for (row, out) in out.chunks_exact_mut(source.columns).enumerate() {
                    let row = (row / self.block).min(rows - 1);
                    for (column, inside) in out.iter_mut().enumerate() {
                        *inside = coarse[row * columns + (column / self.block).min(columns - 1)];
                    }
                }
            });
        Volume {
            geometry: source.clone(),
            data,
        }
    }
}
