//! MONAI's `SwinUNETR` in three dimensions, with its key names: a Swin transformer down, convolutions up.
//!
//! Source: MONAI 1.6.1, `networks/nets/swin_unetr.py` and `blocks/unetr_block.py` (names and wiring); Hatamizadeh et al., arXiv:2201.01266.

use super::{
    conv::{Conv, ConvTranspose},
    layout,
    monai_block::{UnetBlock, UnetBlockPlan},
    parameters::{Init, Parameters},
    swin::{Stage, StagePlan, bare_layer_norm},
    unit::{conv, refuse, transpose},
};
use crate::domain::architecture;
use candle_core::{Result, Tensor};

/// Stages of the transformer; the decoder has a level for each, and one for the image.
const STAGES: usize = 4;
/// Largest network that is built: far beyond any that was published.
const MOST_FEATURES: usize = 384;
const MOST_BLOCKS: usize = 64;
const MOST_TOKENS: usize = 4096;

/// A Swin transformer with the decoder of a U-Net.
#[derive(Debug, Clone)]
pub struct SwinUNETR {
    embed: Conv,
    /// A block of convolutions first, where there is one.
    stages: Vec<(Option<UnetBlock>, Stage)>,
    normalize: bool,
    /// `encoder1`, 2, 3, 4 and 10.
    encoders: Vec<UnetBlock>,
    /// `decoder5` to 1.
    decoders: Vec<(ConvTranspose, UnetBlock)>,
    head: Conv,
}

impl SwinUNETR {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::SwinUNETR, p: &mut Parameters) -> Result<Self> {
        check(plan)?;
        let f = plan.feature_size;
        let block = |p: &mut Parameters, name: &str, channels: [usize; 2], norm| {
            let plan = UnetBlockPlan {
                channels,
                kernel: &[3; 3],
                stride: &[1; 3],
                norm,
                residual: true,
            };
            UnetBlock::new(p, name, plan)
        };
        let embed = Conv {
            weight: p.get(
                "swinViT.patch_embed.proj.weight",
                &[f, plan.in_channels, 2, 2, 2],
                Init::Kaiming {
                    fan_in: 8 * plan.in_channels,
                },
            )?,
            bias: Some(p.get("swinViT.patch_embed.proj.bias", &[f], Init::Constant(0.0))?),
            stride: [2; 3],
            padding: [0; 3],
            dilation: [1; 3],
            groups: 1,
        };
        let mut stages = Vec::with_capacity(STAGES);
        for s in 0..STAGES {
            let channels = f << s;
            let name = format!("swinViT.layers{}", s + 1);
            let first = plan
                .use_v2
                .then(|| {
                    let norm = architecture::FeatureNorm::default();
                    block(p, &format!("{name}c.0.layer"), [channels; 2], norm)
                })
                .transpose()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be small and positive; MONAI truncates too"
            )]
            let hidden = (channels as f64 * plan.mlp_ratio) as usize;
            let stage = StagePlan {
                channels,
                depth: plan.depths[s],
                heads: plan.num_heads[s],
                window: plan.window_size,
                hidden,
                qkv_bias: plan.qkv_bias,
                merging: plan.downsample,
            };
            stages.push((first, Stage::new(p, &format!("{name}.0"), &stage)?));
        }
        let encoders = [
            ("encoder1", plan.in_channels, f),
            ("encoder2", f, f),
            ("encoder3", 2 * f, 2 * f),
            ("encoder4", 4 * f, 4 * f),
            ("encoder10", 16 * f, 16 * f),
        ]
        .into_iter()
        .map(|(name, c_in, c_out)| block(p, &format!("{name}.layer"), [c_in, c_out], plan.norm_name))
        .collect::<Result<_>>()?;
        let decoders = [
            ("decoder5", 16 * f, 8 * f),
            ("decoder4", 8 * f, 4 * f),
            ("decoder3", 4 * f, 2 * f),
            ("decoder2", 2 * f, f),
            ("decoder1", f, f),
        ]
        .into_iter()
        .map(|(name, below, here)| {
            let spread = transpose(
                p,
                &format!("{name}.transp_conv.conv"),
                [below, here],
                &[2; 3],
                false,
            )?;
            let joined = [2 * here, here];
            Ok((
                spread,
                block(p, &format!("{name}.conv_block"), joined, plan.norm_name)?,
            ))
        })
        .collect::<Result<_>>()?;
        let head = conv(p, "out.conv.conv", [f, plan.out_channels], &[1; 3], &[1; 3], true)?;
        Ok(Self {
            embed,
            stages,
            normalize: plan.normalize,
            encoders,
            decoders,
            head,
        })
    }

    /// Logits in the layout of the input.
    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        let blocked = layout::is_blocked(x);
        // Tokens have their channels last, convolutions the layout of the input.
        let as_tokens = |y: &Tensor, channels: usize| {
            layout::leave(y, channels, 3)?
                .permute((0, 2, 3, 4, 1))?
                .contiguous()
        };
        let as_image = |y: &Tensor| {
            let y = y.permute((0, 4, 1, 2, 3))?.contiguous()?;
            if blocked { layout::enter(&y) } else { Ok(y) }
        };
        let handed = |y: &Tensor| {
            if self.normalize {
                as_image(&bare_layer_norm(y)?)
            } else {
                as_image(y)
            }
        };
        let mut tokens = as_tokens(&self.embed.forward(x)?, self.embed.weight.dim(0)?)?;
        let mut hidden = vec![handed(&tokens)?];
        for (first, stage) in &self.stages {
            if let Some(block) = first {
                let channels = tokens.dim(4)?;
                tokens = as_tokens(&block.forward(&as_image(&tokens)?)?, channels)?;
            }
            tokens = stage.forward(&tokens)?;
            hidden.push(handed(&tokens)?);
        }
        // The deepest but one goes to the decoder as it is.
        let mut skips = vec![self.encoders[0].forward(x)?];
        for (encoder, state) in self.encoders[1..STAGES].iter().zip(&hidden) {
            skips.push(encoder.forward(state)?);
        }
        skips.push(hidden[STAGES - 1].clone());
        let mut y = self.encoders[STAGES].forward(&hidden[STAGES])?;
        for ((spread, block), skip) in self.decoders.iter().zip(skips.iter().rev()) {
            y = block.forward_joined(&spread.forward(&y)?, skip)?;
        }
        self.head.forward(&y)
    }
}

fn check(plan: &architecture::SwinUNETR) -> Result<()> {
    let f = plan.feature_size;
    if f == 0 || !f.is_multiple_of(12) || f > MOST_FEATURES {
        return Err(refuse(format!(
            "feature_size is {f}, wanted a multiple of 12 up to {MOST_FEATURES}"
        )));
    }
    let four = plan.depths.len() == STAGES && plan.num_heads.len() == STAGES;
    if !four || plan.depths.iter().any(|d| *d == 0 || *d > MOST_BLOCKS) {
        return Err(refuse(format!(
            "a SwinUNETR has four stages of 1 to {MOST_BLOCKS} blocks, found depths {:?} and num_heads {:?}",
            plan.depths, plan.num_heads
        )));
    }
    let heads = plan.num_heads.iter().enumerate();
    if let Some((s, heads)) = heads
        .into_iter()
        .find(|(s, n)| **n == 0 || !(f << s).is_multiple_of(**n))
    {
        return Err(refuse(format!(
            "stage {s} has {} channels, which {heads} heads do not share evenly",
            f << s
        )));
    }
    let tokens = plan.window_size.iter().try_fold(1usize, |n, w| n.checked_mul(*w));
    if !tokens.is_some_and(|n| (1..=MOST_TOKENS).contains(&n)) {
        return Err(refuse(format!(
            "window_size is {:?}, wanted 1 to {MOST_TOKENS} tokens",
            plan.window_size
        )));
    }
    if !(0.0..=64.0).contains(&plan.mlp_ratio) || plan.mlp_ratio * (f as f64) < 1.0 {
        return Err(refuse(format!(
            "mlp_ratio is {}, wanted up to 64",
            plan.mlp_ratio
        )));
    }
    Ok(())
}
