//! A U-Net in two dimensions whose encoder is EfficientNet-Lite0, which has seen photographs before it sees scans.
//!
//! The encoder is the original without its batch norms, which are folded into the convolutions before them: it begins with what they were and learns on without statistics of a batch.
//! Of the full resolution, which it does not have, a layer of its own tells; each level is brought to the decoder's channels, and its values to zero mean, by a convolution of kernel 1.
//!
//! Source: Tan and Le, arXiv:1905.11946, and TensorFlow's `efficientnet_lite_builder.py` (layers); dynamic-network-architectures (the decoder).

use super::{
    activation::Activation,
    conv::Conv,
    deferred::Deferred,
    depthwise::{Depthwise, padded},
    parameters::{Init, Parameters},
    unet_decoder::{Decoder, DecoderPlan},
    unit::{Unit, UnitPlan, conv, refuse},
};
use crate::domain::architecture;
use candle_core::{Result, Tensor};

/// Channels of the stem.
const STEM: usize = 32;
/// The stages: blocks, kernel, stride of the first block, how many times as many channels are inside, channels.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
];

/// A block as the stages list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPlan {
    /// Channels that come in.
    pub c_in: usize,
    /// Channels between its convolutions; as many as come in where nothing expands them.
    pub inside: usize,
    /// Channels that go out.
    pub c_out: usize,
    /// Kernel of the depthwise convolution.
    pub kernel: usize,
    /// Its stride.
    pub stride: usize,
}

/// The blocks of EfficientNet-Lite0, in order.
#[must_use]
pub fn blocks() -> Vec<BlockPlan> {
    let mut c_in = STEM;
    let mut blocks = Vec::new();
    for (count, kernel, first, wider, c_out) in STAGES {
        for i in 0..count {
            blocks.push(BlockPlan {
                c_in,
                inside: wider * c_in,
                c_out,
                kernel,
                stride: if i == 0 { first } else { 1 },
            });
            c_in = c_out;
        }
    }
    blocks
}

/// After which blocks the size is about to be halved, and the last.
fn ends(blocks: &[BlockPlan]) -> Vec<usize> {
    let ends = |i: &usize| blocks.get(i + 1).is_none_or(|next| next.stride > 1);
    (0..blocks.len()).filter(ends).collect()
}

/// Expansion, depthwise convolution, projection; with a skip where the shape stays.
#[derive(Debug, Clone)]
struct Block {
    expand: Option<Conv>,
    depthwise: Depthwise,
    project: Conv,
    skips: bool,
}

impl Block {
    fn new(p: &mut Parameters, name: &str, plan: BlockPlan) -> Result<Self> {
        let BlockPlan {
            c_in,
            inside,
            c_out,
            kernel,
            stride,
        } = plan;
        let expand = (inside != c_in)
            .then(|| pointwise(p, &format!("{name}.expand"), [c_in, inside]))
            .transpose()?;
        let dims = [inside, 1, kernel, kernel];
        let fan_in = kernel * kernel;
        let name_of = |what| format!("{name}.depthwise.{what}");
        Ok(Self {
            expand,
            depthwise: Depthwise {
                weight: p.get(&name_of("weight"), &dims, Init::Kaiming { fan_in })?,
                bias: p.get(&name_of("bias"), &[inside], Init::Constant(0.0))?,
                stride,
            },
            project: pointwise(p, &format!("{name}.project"), [inside, c_out])?,
            skips: stride == 1 && c_in == c_out,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inside = match &self.expand {
            Some(expand) => Activation::Relu6.forward(&expand.forward(x)?)?,
            None => x.clone(),
        };
        let seen = Activation::Relu6.forward(&self.depthwise.forward(&inside)?)?;
        let y = self.project.forward(&seen)?;
        if self.skips { y + x } else { Ok(y) }
    }
}

fn pointwise(p: &mut Parameters, name: &str, channels: [usize; 2]) -> Result<Conv> {
    conv(p, name, channels, &[1, 1], &[1, 1], true)
}

/// EfficientNet-Lite0 without its head.
#[derive(Debug, Clone)]
pub struct Encoder {
    stem: Conv,
    blocks: Vec<Block>,
    ends: Vec<usize>,
}

impl Encoder {
    /// Builds the encoder from parameters under `encoder.`.
    ///
    /// # Errors
    /// Names a parameter that is missing or of another shape.
    pub fn new(input_channels: usize, p: &mut Parameters) -> Result<Self> {
        let mut stem = conv(p, "encoder.stem", [input_channels, STEM], &[3, 3], &[2, 2], true)?;
        // The zeros that SAME wants are not the same on both sides: they are put there before.
        stem.padding = [0; 3];
        let plans = blocks();
        let ends = ends(&plans);
        let named = |(i, plan)| Block::new(p, &format!("encoder.blocks.{i}"), plan);
        Ok(Self {
            stem,
            blocks: plans.into_iter().enumerate().map(named).collect::<Result<_>>()?,
            ends,
        })
    }

    /// The features of half the input's resolution, of a quarter, and so on to 1/32, in its layout.
    ///
    /// # Shape
    /// `[N, C, H, W]` → `[N, 16, H/2, W/2]`, 24, 40, 112 and 320 channels, or the same blocked; sizes are multiples of 32.
    ///
    /// # Errors
    /// candle's, for shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let mut x = Activation::Relu6.forward(&self.stem.forward(&padded(x, 3, 2)?)?)?;
        let mut levels = Vec::with_capacity(self.ends.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            if self.ends.contains(&i) {
                levels.push(x.clone());
            }
        }
        Ok(levels)
    }
}

/// The whole network.
#[derive(Debug, Clone)]
pub struct EfficientNetUNet {
    full: Unit,
    encoder: Encoder,
    lateral: Vec<Unit>,
    decoder: Decoder,
}

impl EfficientNetUNet {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::EfficientNetUNet, p: &mut Parameters) -> Result<Self> {
        let blocks = blocks();
        let found: Vec<usize> = ends(&blocks).into_iter().map(|i| blocks[i].c_out).collect();
        let levels = found.len() + 1;
        let features = &plan.features_per_stage;
        if features.len() != levels {
            return Err(refuse(format!(
                "EfficientNet-Lite0 has {levels} levels, the full resolution among them; the plan lists the decoder's channels for {}",
                features.len()
            )));
        }
        let kernels = vec![vec![3, 3]; levels];
        let strides: Vec<Vec<usize>> = (0..levels).map(|s| vec![if s == 0 { 1 } else { 2 }; 2]).collect();
        let (down, up) = (vec![1; levels], vec![1; levels - 1]);
        let decoder = DecoderPlan {
            features_per_stage: features,
            kernel_sizes: &kernels,
            strides: &strides,
            n_conv_per_stage_decoder: &up,
            num_classes: plan.num_classes,
            conv_bias: true,
            deep_supervision: false,
        };
        decoder.check(levels, &down)?;
        let mut unit = |name: &str, c_in: usize, c_out: usize, size: usize| {
            let unit = UnitPlan {
                c_in,
                c_out,
                kernel: &[size, size],
                stride: &[1, 1],
                bias: true,
                activate: true,
            };
            Unit::new(p, name, unit)
        };
        let full = unit("full", plan.input_channels, features[0], 3)?;
        let brought = found.iter().zip(&features[1..]).enumerate();
        let lateral = brought
            .map(|(i, (c_in, c_out))| unit(&format!("lateral.{i}"), *c_in, *c_out, 1))
            .collect::<Result<_>>()?;
        Ok(Self {
            full,
            encoder: Encoder::new(plan.input_channels, p)?,
            lateral,
            decoder: Decoder::new(p, decoder)?,
        })
    }

    /// Logits in the layout of the input.
    pub(super) fn run(&self, x: Tensor, all: bool) -> Result<Vec<Tensor>> {
        let levels = self.encoder.forward(&x)?;
        let mut skips = vec![self.full.forward(&Deferred::from(x))?];
        for (level, unit) in levels.into_iter().zip(&self.lateral) {
            skips.push(unit.forward(&level.into())?);
        }
        self.decoder.forward(skips, all)
    }
}
