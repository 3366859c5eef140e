//! Stage 2: HU volume → normalised slices on the network's grid, and the [`SpatialTrace`] that leads back.
//!
//! Reorients in the plane (rows towards the patient's left, columns towards the back), crops to the head, resamples to the plan's spacing, normalises.
//! Only this stage changes geometry; whatever it does is in the trace.

mod blast;
pub mod brain;
pub mod even;
pub mod head_box;
mod mirror;
pub mod normalize;
mod oriented;
pub mod slab;
pub mod volume;

use crate::domain::{
    failure::FailureClass,
    midsagittal::MidsagittalPlane,
    network::NetworkInput,
    plan::{Grid, Plan},
    trace::{AxisMap, SpatialTrace},
    volume::{Geometry, Volume},
};

use brain::Intracranial;
use normalize::normalize;
use rayon::prelude::*;

/// Tissue from here on belongs to the head rather than to air; between fat (−100 HU) and air.
const HEAD_HU: f32 = -300.0;
/// Air kept around the head so that its edge is not the image's edge, mm.
const MARGIN_MM: f64 = 6.0;
/// A row or column belongs to the head when this share of the fullest one's tissue is in it: leaves table and head rest out.
const HEAD_SHARE: f64 = 0.05;
/// Nearest to one axis of the patient: more than 45° from the others.
const ALONG: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// What stands outside the field of view, HU.
pub const AIR_HU: f32 = -1024.0;

/// Why a volume cannot be brought onto the network's grid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// Nothing in the volume is denser than fat.
    #[error(
        "no tissue above {HEAD_HU} HU was found, a head was expected; check that the series is a head CT in HU"
    )]
    NoHead,
    /// The plan wants a grid that this build does not make.
    #[error("the plan has {0} spatial axes, this build runs plans with 2")]
    Dimensions(usize),
    /// The plan wants other channels than its grid gives.
    #[error(
        "the plan's grid gives {expected} channels of one normalisation, its normalization_schemes are {found} or differ"
    )]
    Channels {
        /// Schemes of the plan.
        found: usize,
        /// Channels of the grid.
        expected: usize,
    },
    /// The plan is for whole volumes.
    #[error("the plan is for whole volumes, source slices were asked for")]
    Grid,
    /// The plan wants statistics of the whole image on slices.
    #[error("a plan on the source's slices normalises with CTNormalization or NoNormalization")]
    Normalization,
    /// The channels are not those of the plan.
    #[error("found {found} channels, the plan has {expected}: {names}")]
    ChannelCount {
        /// Channels that came in.
        found: usize,
        /// Channels of the plan.
        expected: usize,
        /// What they hold.
        names: String,
    },
    /// A later stage of a cascade without the label map of the one before.
    #[error(
        "the plan is a later stage of a cascade, and the label map of the one before is not there or lies on another grid"
    )]
    PreviousStage,
    /// The plan's chain of transforms is not understood.
    #[error("{0}")]
    Chain(String),
    /// No axis of the patient is nearest.
    #[error(
        "the slices lie 45° or more from the patient's axes, and the model wants them along its own; resample the series along the patient's axes"
    )]
    Oblique,
    /// The channels lie on different grids.
    #[error("channel {0} lies on another grid than the first; resample it to that grid")]
    ChannelGrid(usize),
    /// No affine describes the stack.
    #[error(
        "the slices are uneven or sheared (gantry tilt), and the model needs a regular grid; resample the series, or use a model that runs on the source's slices"
    )]
    Irregular,
    /// The plan's resampling is not one that is built.
    #[error("the plan resamples with order {0}, this build has 0, 1 and 3 for images and 0 and 1 for logits")]
    Order(u8),
    /// Nothing but zeros.
    #[error("the image is 0 everywhere; a scan was expected")]
    Empty,
}

impl PreprocessError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoHead
            | Self::ChannelCount { .. }
            | Self::ChannelGrid(_)
            | Self::Irregular
            | Self::Oblique
            | Self::Empty => FailureClass::Input,
            Self::Dimensions(_)
            | Self::Channels { .. }
            | Self::Grid
            | Self::Normalization
            | Self::PreviousStage
            | Self::Chain(_)
            | Self::Order(_) => FailureClass::Internal,
        }
    }
}

/// A head, ready for its network.
#[derive(Debug)]
pub struct Sliced {
    /// Normalised slices.
    pub input: NetworkInput,
    /// The way back.
    pub trace: SpatialTrace,
    /// Where the brain is.
    pub intracranial: Intracranial,
}

/// Brings a volume onto the grid of a plan.
///
/// # Errors
/// [`PreprocessError::NoHead`] when there is nothing to look at.
pub fn preprocess(ct: &Volume<f32>, plan: &Plan) -> Result<Sliced, PreprocessError> {
    // Which slice is above which, and what lies in front, rounding would say.
    if ct.geometry.normal()[2].abs() <= ALONG {
        return Err(PreprocessError::Oblique);
    }
    let &[row_spacing, column_spacing] = plan.configuration.spacing.as_slice() else {
        return Err(PreprocessError::Dimensions(plan.configuration.spacing.len()));
    };
    let Grid::SourceSlices {
        slab_mm,
        neighbours,
        mirrored,
    } = plan.configuration.grid
    else {
        return Err(PreprocessError::Grid);
    };
    let expected = 2 * neighbours + 1 + usize::from(mirrored);
    let schemes = &plan.configuration.normalization_schemes;
    // One tissue, one scale: all channels are the same scan.
    let normalization = schemes
        .first()
        .filter(|first| schemes.len() == expected && schemes.iter().all(|s| s == *first))
        .ok_or(PreprocessError::Channels {
            found: schemes.len(),
            expected,
        })?;
    let normalization = normalize::by_slice(normalization)?;
    let trace = place(ct, [row_spacing, column_spacing])?;
    let images = trace.apply_all(&ct.data, AIR_HU);
    let recipes = slab::recipes(&ct.geometry, &trace.slices, slab_mm, neighbours);
    let mut slices: Vec<Vec<f32>> = recipes
        .par_iter()
        .map(|channels| {
            let slabs = channels.iter().flat_map(|members| slab::mean(&images, members));
            slabs.collect()
        })
        .collect();
    let intracranial = brain::within(&images, ct, &trace);
    if mirrored {
        let plane = MidsagittalPlane::estimate(&intracranial.brain, ct);
        let len = images[0].len();
        let own: Vec<&[f32]> = slices
            .iter()
            .map(|slabs| &slabs[neighbours * len..(neighbours + 1) * len])
            .collect();
        let reflected = mirror::reflect(&trace, &own, plane.as_ref());
        for (slabs, image) in slices.iter_mut().zip(reflected) {
            slabs.extend(image);
        }
    }
    slices
        .par_iter_mut()
        .for_each(|slabs| normalize(slabs, normalization, None));
    let mut air = [AIR_HU];
    normalize(&mut air, normalization, None);
    Ok(Sliced {
        input: NetworkInput {
            shape: trace.shape(),
            channels: schemes.len(),
            slices,
            outside: air[0],
        },
        trace,
        intracranial,
    })
}

/// The trace to the slices of the head at 1 mm, for plans that have no such grid of their own.
///
/// # Errors
/// [`PreprocessError::NoHead`] when there is nothing to look at.
pub fn head_trace(ct: &Volume<f32>) -> Result<SpatialTrace, PreprocessError> {
    place(ct, [1.0, 1.0])
}

/// The trace from a volume to a grid of `spacing_mm` (rows, columns) that just holds the head.
fn place(ct: &Volume<f32>, spacing_mm: [f64; 2]) -> Result<SpatialTrace, PreprocessError> {
    let geometry = &ct.geometry;
    let head = HeadBox::find(ct).ok_or(PreprocessError::NoHead)?;
    let transposed = geometry.row_direction[0].abs() < geometry.column_direction[0].abs();
    // Canonical: network rows advance towards the back (+y), columns towards the left (+x).
    let (row_axis, column_axis) = if transposed { (1, 0) } else { (0, 1) };
    let direction = |axis: usize| {
        if axis == 0 {
            geometry.column_direction
        } else {
            geometry.row_direction
        }
    };
    let map = |source_axis: usize, lps_axis: usize, spacing: f64| {
        let step = spacing / geometry.pixel_spacing_mm[source_axis];
        let [low, high] = head.ranges[source_axis];
        let len = ((high - low) / step).ceil().max(1.0);
        // The head's centre stays the centre.
        let half = (len - 1.0) / 2.0 * step;
        let centre = f64::midpoint(low, high);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let len = len as usize;
        if direction(source_axis)[lps_axis] >= 0.0 {
            AxisMap {
                start: centre - half,
                step,
                len,
            }
        } else {
            AxisMap {
                start: centre + half,
                step: -step,
                len,
            }
        }
    };
    let axes = [
        map(row_axis, 1, spacing_mm[0]),
        map(column_axis, 0, spacing_mm[1]),
    ];
    Ok(SpatialTrace {
        source: geometry.clone(),
        transposed,
        axes,
        slices: head.slices,
    })
}

/// Where the head is, in source voxels.
struct HeadBox {
    /// Lowest and highest row, lowest and highest column, margin included, within the source.
    ranges: [[f64; 2]; 2],
    /// Slices with tissue.
    slices: Vec<usize>,
}

impl HeadBox {
    fn find(ct: &Volume<f32>) -> Option<Self> {
        let Geometry { rows, columns, .. } = ct.geometry;
        let (mut by_row, mut by_column) = (vec![0u32; rows], vec![0u32; columns]);
        let mut slices = Vec::new();
        for s in 0..ct.geometry.slices() {
            let mut any = false;
            for (r, row) in ct.slice(s).chunks_exact(columns).enumerate() {
                for (c, value) in row.iter().enumerate() {
                    if *value > HEAD_HU {
                        by_row[r] += 1;
                        by_column[c] += 1;
                        any = true;
                    }
                }
            }
            if any {
                slices.push(s);
            }
        }
        let range = |counts: &[u32], spacing: f64| {
            let most = f64::from(*counts.iter().max()?);
            let belongs = |n: &u32| f64::from(*n) > 0.0 && f64::from(*n) >= most * HEAD_SHARE;
            let margin = MARGIN_MM / spacing;
            let low = counts.iter().position(belongs)? as f64 - margin;
            let high = counts.iter().rposition(belongs)? as f64 + margin;
            Some([low.max(0.0), high.min((counts.len() - 1) as f64)])
        };
        let [row_spacing, column_spacing] = ct.geometry.pixel_spacing_mm;
        Some(Self {
            ranges: [range(&by_row, row_spacing)?, range(&by_column, column_spacing)?],
            slices,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;

    /// A head-like ellipse with one bright spot to the patient's left and front, in any in-plane orientation.
    fn head(row_direction: [f64; 3], column_direction: [f64; 3]) -> Volume<f32> {
        let (rows, columns) = (120, 120);
        let origin_mm = std::array::from_fn(|i| -60.0 * (row_direction[i] + column_direction[i]) * 1.5);
        let geometry = Geometry {
            rows,
            columns,
            row_direction,
            column_direction,
            pixel_spacing_mm: [1.5, 1.5],
            planes: vec![SlicePlane {
                origin_mm,
                thickness_mm: 5.0,
            }],
        };
        let mut data = vec![AIR_HU; rows * columns];
        for r in 0..rows {
            for c in 0..columns {
                let p = geometry.voxel_to_lps(0, r as f64, c as f64);
                if (p[0] / 60.0).powi(2) + (p[1] / 75.0).powi(2) < 1.0 {
                    data[r * columns + c] = 30.0;
                }
                if (p[0] - 30.0).powi(2) + (p[1] + 40.0).powi(2) < 60.0 {
                    data[r * columns + c] = 80.0;
                }
            }
        }
        Volume { geometry, data }
    }

    #[test]
    fn every_orientation_is_shown_to_the_network_the_same_way() {
        let directions = [
            ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
            ([-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]),
            ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
            ([0.0, -1.0, 0.0], [1.0, 0.0, 0.0]),
        ];
        for (row, column) in directions {
            let ct = head(row, column);
            let trace = place(&ct, [1.0, 1.0]).unwrap();
            let image = trace.apply(ct.slice(0), AIR_HU);
            let [rows, columns] = trace.shape();
            assert!(
                (150..180).contains(&rows) && (120..150).contains(&columns),
                "{rows} {columns}"
            );
            let (mut sum, mut r_sum, mut c_sum) = (0.0, 0.0, 0.0);
            for (i, v) in image.iter().enumerate() {
                if *v > 60.0 {
                    sum += 1.0;
                    r_sum += (i / columns) as f64;
                    c_sum += (i % columns) as f64;
                }
            }
            // Left of the patient is towards higher columns, the front towards lower rows.
            assert!(
                (c_sum / sum - (columns as f64 / 2.0 + 30.0)).abs() < 3.0,
                "{row:?}"
            );
            assert!((r_sum / sum - (rows as f64 / 2.0 - 40.0)).abs() < 3.0, "{row:?}");
        }
    }

    #[test]
    fn refuses_a_volume_of_air() {
        let mut ct = head([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]);
        ct.data.fill(AIR_HU);
        assert!(matches!(place(&ct, [1.0, 1.0]), Err(PreprocessError::NoHead)));
    }
}
