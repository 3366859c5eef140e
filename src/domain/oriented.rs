//! How MONAI brings an image to a network and an answer back: its transforms by their names, and its sliding window.
//!
//! Source: MONAI 1.6.1, `transforms/spatial`, `transforms/intensity` and `inferers/utils.py`.

use serde::{Deserialize, Serialize};

/// Most voxels along an axis that a step asks for.
const MOST_VOXELS: usize = 4096;

/// The chain of a MONAI bundle, as far as this build knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oriented {
    /// `Orientationd`: towards what each axis of the network runs, three of `RLAPSI`; null: the axes of the file.
    pub axcodes: Option<String>,
    /// What is done to the image then, in this order.
    pub steps: Vec<Step>,
    /// Share of a tile that the next one covers again, by axis.
    pub overlap: [f64; 3],
    /// How tiles that overlap are weighed.
    pub blend: Blend,
    /// Whether probabilities, and not logits, are resampled on the way back.
    pub activate_first: bool,
    /// `SliceInferer`: across which axis a 2-D network is moved; null: the network has three axes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_axis: Option<usize>,
    /// With outputs that may overlap: in which order they are painted, the last on top; empty: in their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub painted: Vec<usize>,
}

/// A transform of the image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "transform")]
pub enum Step {
    /// `Spacingd`, linear, edges repeated, first voxels on each other.
    Spacing {
        /// Millimetres of a voxel along the network's axes; 0 across the slices of a 2-D network: as they lie.
        pixdim: [f64; 3],
    },
    /// `ScaleIntensityRanged`.
    ScaleIntensityRange {
        /// Becomes `b_min`.
        a_min: f64,
        /// Becomes `b_max`.
        a_max: f64,
        /// Lower end of the result.
        b_min: f64,
        /// Upper end of the result.
        b_max: f64,
        /// Whether nothing lies outside.
        clip: bool,
    },
    /// `NormalizeIntensityd` with statistics of the image itself.
    NormalizeIntensity {
        /// Whether only values other than 0 count and change.
        nonzero: bool,
        /// Whether each channel has statistics of its own.
        channel_wise: bool,
    },
    /// `CropForegroundd`: the box of what is above 0 in any channel; what is cut away is 0 in every output.
    CropForeground {
        /// Voxels around the box along each axis.
        margin: [usize; 3],
        /// Whether the box ends where the image does; else zeros are put beside it.
        allow_smaller: bool,
        /// Of what the size is made a multiple, along each axis.
        k_divisible: [usize; 3],
    },
    /// `SpatialPadd`: at least this size.
    SpatialPad {
        /// Voxels along each axis; 0: any.
        spatial_size: [usize; 3],
        /// Whether all that is missing is put behind the image, and not half of it before.
        at_end: bool,
        /// What is put there.
        value: f64,
    },
}

/// `SlidingWindowInferer`'s modes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "mode", rename_all = "lowercase")]
pub enum Blend {
    /// All voxels of a tile alike.
    Constant,
    /// More in the middle.
    Gaussian {
        /// Standard deviation in shares of a tile.
        sigma_scale: f64,
    },
}

/// A direction of the patient: which of x, y, z (LPS), and whether towards its higher end.
pub type Towards = (usize, bool);

impl Oriented {
    /// Towards what each axis runs; none for the axes of the file.
    ///
    /// # Errors
    /// A sentence, for codes that name no three axes.
    pub fn axes(&self) -> Result<Option<[Towards; 3]>, String> {
        let Some(codes) = &self.axcodes else {
            return Ok(None);
        };
        let one = |code: u8| match code {
            b'L' => Some((0, true)),
            b'R' => Some((0, false)),
            b'P' => Some((1, true)),
            b'A' => Some((1, false)),
            b'S' => Some((2, true)),
            b'I' => Some((2, false)),
            _ => None,
        };
        let axes: Option<Vec<Towards>> = codes.bytes().map(one).collect();
        let axes: Option<[Towards; 3]> = axes.and_then(|axes| axes.try_into().ok());
        match axes {
            Some(axes) if (0..3).all(|world| axes.iter().any(|(axis, _)| *axis == world)) => Ok(Some(axes)),
            _ => Err(format!(
                "axcodes are {codes:?}, expected one of each of RL, AP and SI, such as RAS"
            )),
        }
    }

    /// The spacing that the network sees.
    #[must_use]
    pub fn pixdim(&self) -> Option<[f64; 3]> {
        self.steps.iter().find_map(|step| match step {
            Step::Spacing { pixdim } => Some(*pixdim),
            _ => None,
        })
    }

    /// A size along the network's own axes as one along three.
    #[must_use]
    pub fn tile(&self, patch_size: &[usize]) -> Option<[usize; 3]> {
        match (self.slice_axis, patch_size) {
            (None, &[a, b, c]) => Some([a, b, c]),
            (Some(0), &[a, b]) => Some([1, a, b]),
            (Some(1), &[a, b]) => Some([a, 1, b]),
            (Some(2), &[a, b]) => Some([a, b, 1]),
            _ => None,
        }
    }

    /// The spacing that the network sees along its own axes.
    #[must_use]
    pub fn spacing(&self) -> Vec<f64> {
        let pixdim = self.pixdim().unwrap_or_default();
        let own = (0..3).filter(|axis| self.slice_axis != Some(*axis));
        own.map(|axis| pixdim[axis]).collect()
    }

    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        self.axes()?;
        let spacings = self
            .steps
            .iter()
            .filter(|s| matches!(s, Step::Spacing { .. }))
            .count();
        if spacings != 1 {
            return Err(format!("found {spacings} steps Spacing, expected one"));
        }
        if self.slice_axis.is_some_and(|axis| axis > 2) {
            return Err(format!("slice_axis is {:?}, expected 0, 1 or 2", self.slice_axis));
        }
        for step in &self.steps {
            let fine = match step {
                Step::Spacing { pixdim } => (0..3).all(|a| {
                    let kept = self.slice_axis == Some(a) && pixdim[a] == 0.0;
                    pixdim[a].is_finite() && (pixdim[a] > 0.0 || kept)
                }),
                Step::ScaleIntensityRange {
                    a_min,
                    a_max,
                    b_min,
                    b_max,
                    ..
                } => {
                    [a_min, a_max, b_min, b_max].iter().all(|v| v.is_finite())
                        && a_min < a_max
                        && b_min <= b_max
                }
                Step::NormalizeIntensity { .. } => true,
                Step::CropForeground {
                    margin, k_divisible, ..
                } => margin.iter().chain(k_divisible).all(|n| *n <= MOST_VOXELS) && !k_divisible.contains(&0),
                Step::SpatialPad {
                    spatial_size, value, ..
                } => value.is_finite() && spatial_size.iter().all(|n| *n <= MOST_VOXELS),
            };
            if !fine {
                return Err(format!(
                    "{step:?} is not what it should be: millimetres above 0, ranges from low to high, at most {MOST_VOXELS} voxels along an axis"
                ));
            }
        }
        if !self.overlap.iter().all(|share| (0.0..1.0).contains(share)) {
            return Err(format!(
                "overlap is {:?}, expected from 0 to below 1",
                self.overlap
            ));
        }
        match self.blend {
            Blend::Gaussian { sigma_scale } if !sigma_scale.is_finite() || sigma_scale <= 0.0 => {
                Err(format!("sigma_scale is {sigma_scale}, expected above 0"))
            }
            _ => Ok(()),
        }
    }
}
