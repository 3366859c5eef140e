//! How MONAI brings an image to a network and an answer back: its transforms by their names, and its sliding window.
//!
//! Source: MONAI 1.6.1, `transforms/spatial`, `transforms/intensity` and `inferers/utils.py`.

use serde::{Deserialize, Serialize};

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
}

/// A transform of the image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "transform")]
pub enum Step {
    /// `Spacingd`, linear, edges repeated, first voxels on each other.
    Spacing {
        /// Millimetres of a voxel along the network's axes.
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
        for step in &self.steps {
            let fine = match step {
                Step::Spacing { pixdim } => pixdim.iter().all(|mm| mm.is_finite() && *mm > 0.0),
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
            };
            if !fine {
                return Err(format!(
                    "{step:?} is not what it should be: millimetres above 0, ranges from low to high"
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
