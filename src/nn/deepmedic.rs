//! DeepMedic as BLAST-CT has it, with its key names: paths that see the same place at several scales, joined by layers of kernel 1.
//!
//! Nothing is padded: an image of 110 voxels gives an answer for the 30 in its middle.
//! Source: blast-ct 2.1.0, `models/deepmedic.py` and `base.py` (names and wiring); Kamnitsas et al., doi:10.1016/j.media.2016.10.004.

use super::{
    activation::Activation,
    conv::Conv,
    layout,
    norm::{EPS, Norm, NormAct},
    parameters::{Init, Parameters},
    unit::refuse,
    upsample::Upsample,
};
use crate::domain::architecture;
use candle_core::{Result, Tensor};

/// Slope that PyTorch's PReLU starts with.
const PRELU_START: f32 = 0.25;
/// Far beyond what was published.
const MOST: usize = 64;
const MOST_FEATURES: usize = 4096;

/// Batch norm, PReLU, a convolution without padding, and around them a skip where the channels stay.
#[derive(Debug, Clone)]
struct Block {
    norm: NormAct,
    conv: Conv,
    /// What the convolution takes from each side.
    margin: usize,
    skip: bool,
}

impl Block {
    fn new(p: &mut Parameters, name: &str, [c_in, c_out]: [usize; 2], kernel: usize) -> Result<Self> {
        let mut get = |key: &str, dims: &[usize], init| p.get(&format!("{name}.{key}"), dims, init);
        let fan_in = c_in * kernel.pow(3);
        Ok(Self {
            norm: NormAct {
                norm: Norm::Batch {
                    weight: get("bn.weight", &[c_in], Init::Constant(1.0))?,
                    bias: get("bn.bias", &[c_in], Init::Constant(0.0))?,
                    running_mean: get("bn.running_mean", &[c_in], Init::Constant(0.0))?,
                    running_var: get("bn.running_var", &[c_in], Init::Constant(1.0))?,
                    eps: EPS,
                },
                activation: Activation::Prelu(get("prelu.weight", &[1], Init::Constant(PRELU_START))?),
            },
            conv: Conv {
                weight: get(
                    "conv.weight",
                    &[c_out, c_in, kernel, kernel, kernel],
                    Init::Kaiming { fan_in },
                )?,
                bias: None,
                stride: [1; 3],
                padding: [0; 3],
                dilation: [1; 3],
                groups: 1,
            },
            margin: kernel / 2,
            skip: c_in == c_out,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.conv.forward(&self.norm.forward(x)?)?;
        if !self.skip {
            return Ok(y);
        }
        let mut kept = x.clone();
        for (_, at) in layout::spatial_axes(x)? {
            kept = kept.narrow(at, self.margin, y.dim(at)?)?;
        }
        y + kept.contiguous()?
    }
}

/// One scale.
#[derive(Debug, Clone)]
struct Path {
    scale: [usize; 3],
    blocks: Vec<Block>,
}

impl Path {
    /// The middle of a tensor, `size` along depth, rows and columns.
    fn middle(x: &Tensor, size: [usize; 3]) -> Result<Tensor> {
        let mut y = x.clone();
        for (axis, at) in layout::spatial_axes(x)? {
            let (found, wanted) = (x.dim(at)?, size[axis]);
            y = y.narrow(at, found / 2 - wanted / 2, wanted)?;
        }
        y.contiguous()
    }

    fn forward(&self, x: &Tensor, output: [usize; 3], margin: usize) -> Result<Tensor> {
        let input: [usize; 3] =
            std::array::from_fn(|a| (output[a].div_ceil(self.scale[a]) + margin) * self.scale[a]);
        let mut y = Self::middle(x, input)?;
        for (axis, at) in layout::spatial_axes(x)? {
            let scale = self.scale[axis];
            if scale > 1 {
                let size = u32::try_from(y.dim(at)?).map_err(candle_core::Error::wrap)?;
                let first = u32::try_from(scale / 2).map_err(candle_core::Error::wrap)?;
                let every: Vec<u32> = (first..size).step_by(scale).collect();
                let count = every.len();
                y = y.index_select(&Tensor::from_vec(every, count, y.device())?, at)?;
            }
        }
        let mut y = y.contiguous()?;
        for block in &self.blocks {
            y = block.forward(&y)?;
        }
        let y = Upsample::Nearest { scale: self.scale }.forward(&y)?;
        Self::middle(&y, output)
    }
}

/// BLAST-CT's network.
#[derive(Debug, Clone)]
pub struct DeepMedic {
    plan: architecture::DeepMedic,
    paths: Vec<Path>,
    joined: Vec<Block>,
}

impl DeepMedic {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::DeepMedic, p: &mut Parameters) -> Result<Self> {
        let fine = |sizes: &[usize]| {
            (1..=MOST).contains(&sizes.len()) && sizes.iter().all(|n| (1..=MOST_FEATURES).contains(n))
        };
        let scales = &plan.scale_factors;
        let descending = scales
            .windows(2)
            .all(|pair| (0..3).all(|a| pair[0][a] >= pair[1][a]));
        let small = scales.iter().flatten().all(|s| (1..=MOST).contains(s));
        if scales.is_empty() || scales.len() > MOST || !descending || !small {
            return Err(refuse(format!(
                "scale_factors are {scales:?}, wanted some, each no larger than the one before"
            )));
        }
        if !fine(&plan.feature_maps) || !fine(&plan.fully_connected) {
            return Err(refuse(format!(
                "feature_maps are {:?} and fully_connected {:?}, wanted 1 to {MOST} sizes up to {MOST_FEATURES}",
                plan.feature_maps, plan.fully_connected
            )));
        }
        let mut paths = Vec::with_capacity(scales.len());
        for (i, scale) in scales.iter().enumerate() {
            let [a, b, c] = scale;
            let name = format!("path({a}, {b}, {c}){i}.path");
            let mut blocks = Vec::with_capacity(plan.feature_maps.len());
            let mut above = plan.input_channels;
            for (b, features) in plan.feature_maps.iter().enumerate() {
                blocks.push(Block::new(
                    p,
                    &format!("{name}.{}", b + 1),
                    [above, *features],
                    3,
                )?);
                above = *features;
            }
            paths.push(Path {
                scale: *scale,
                blocks,
            });
        }
        let mut joined = Vec::with_capacity(plan.fully_connected.len() + 1);
        let mut above = plan.last_features() * scales.len();
        for (i, features) in plan.fully_connected.iter().chain([&plan.num_classes]).enumerate() {
            joined.push(Block::new(
                p,
                &format!("fully_connected.{i}"),
                [above, *features],
                1,
            )?);
            above = *features;
        }
        Ok(Self {
            plan: plan.clone(),
            paths,
            joined,
        })
    }

    /// Logits of the middle, in the layout of the input.
    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mut size = [0; 3];
        for (axis, at) in layout::spatial_axes(x)? {
            size[axis] = x.dim(at)?;
        }
        let Some(output) = self.plan.output_size(size) else {
            return Err(refuse(format!(
                "an image of {size:?} voxels is not one that this DeepMedic takes whole; BLAST-CT's is 110 along each axis"
            )));
        };
        let margin = 2 * self.plan.feature_maps.len();
        let features = self.plan.last_features();
        let seen = self
            .paths
            .iter()
            .map(|path| path.forward(x, output, margin))
            .collect::<Result<Vec<_>>>()?;
        let parts: Vec<(&Tensor, usize)> = seen.iter().map(|y| (y, features)).collect();
        let mut y = layout::cat(&parts, 3)?;
        for block in &self.joined {
            y = block.forward(&y)?;
        }
        Ok(y)
    }
}
