//! nnU-Net's `PlainConvUNet` in two dimensions, with its key names.
//!
//! Encoder stages of convolution → instance norm → LeakyReLU, the first of a stage strided; a decoder of 2× transposed convolutions and skips; a 1×1 head.
//! Source: dynamic-network-architectures, `plain_conv_unet.py` (names and wiring); Isensee et al., doi:10.1038/s41592-020-01008-z.

use super::{
    activation::Activation,
    conv::{Conv, ConvTranspose},
    layout,
    norm::{EPS, NEGATIVE_SLOPE, Norm, NormAct},
    parameters::{Init, Parameters},
};
use crate::domain::plan::Architecture;
use candle_core::{Error, Result, Tensor};

/// Convolution, norm, activation: nnU-Net's `ConvDropoutNormReLU`.
#[derive(Debug, Clone)]
struct Unit {
    conv: Conv,
    norm: NormAct,
}

impl Unit {
    fn new(
        p: &mut Parameters,
        name: &str,
        c_in: usize,
        c_out: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<Self> {
        let fan_in = c_in * kernel * kernel;
        Ok(Self {
            conv: Conv {
                weight: p.get(
                    &format!("{name}.conv.weight"),
                    &[c_out, c_in, kernel, kernel],
                    Init::Kaiming { fan_in },
                )?,
                bias: Some(p.get(&format!("{name}.conv.bias"), &[c_out], Init::Constant(0.0))?),
                stride: [1, stride, stride],
                padding: [0, kernel / 2, kernel / 2],
                dilation: [1; 3],
                groups: 1,
            },
            norm: NormAct {
                norm: Norm::Instance {
                    weight: Some(p.get(&format!("{name}.norm.weight"), &[c_out], Init::Constant(1.0))?),
                    bias: Some(p.get(&format!("{name}.norm.bias"), &[c_out], Init::Constant(0.0))?),
                    eps: EPS,
                },
                activation: Activation::LeakyRelu(NEGATIVE_SLOPE),
            },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(&self.conv.forward(x)?)
    }
}

/// One level of the way up.
#[derive(Debug, Clone)]
struct Up {
    transpose: ConvTranspose,
    units: Vec<Unit>,
}

/// A 2-D U-Net.
#[derive(Debug, Clone)]
pub struct PlainConvUNet {
    encoder: Vec<Vec<Unit>>,
    decoder: Vec<Up>,
    head: Conv,
    input_channels: usize,
    num_classes: usize,
    divisor: usize,
}

impl PlainConvUNet {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what the plan asks for that is not built, or which parameter does not fit.
    pub fn new(plan: &Architecture, p: &mut Parameters) -> Result<Self> {
        let n = plan.n_stages;
        let fits = plan.features_per_stage.len() == n
            && plan.kernel_sizes.len() == n
            && plan.strides.len() == n
            && plan.n_conv_per_stage.len() == n
            && plan.n_conv_per_stage_decoder.len() + 1 == n;
        if n < 2 || !fits {
            return Err(Error::Msg(format!("the plan's lists do not fit its {n} stages")).bt());
        }
        if let Some(odd) = plan.features_per_stage.iter().find(|f| **f % 16 != 0) {
            // Skips are joined block by block.
            return Err(Error::Msg(format!(
                "features per stage are multiples of 16 in this build, found {odd}"
            ))
            .bt());
        }
        let square = |axes: &[usize], allowed: &[usize], what: &str| match axes {
            &[a, b] if a == b && allowed.contains(&a) => Ok(a),
            _ => Err(Error::Msg(format!(
                "{what} {axes:?} is not in this build, which has {allowed:?} on both axes"
            ))
            .bt()),
        };
        let mut encoder = Vec::with_capacity(n);
        let mut channels = plan.input_channels;
        for s in 0..n {
            let features = plan.features_per_stage[s];
            let kernel = square(&plan.kernel_sizes[s], &[1, 3], "kernel size")?;
            let stride = square(&plan.strides[s], if s == 0 { &[1] } else { &[2] }, "stride")?;
            let mut units = Vec::with_capacity(plan.n_conv_per_stage[s]);
            for c in 0..plan.n_conv_per_stage[s] {
                let name = format!("encoder.stages.{s}.0.convs.{c}");
                units.push(Unit::new(
                    p,
                    &name,
                    channels,
                    features,
                    kernel,
                    if c == 0 { stride } else { 1 },
                )?);
                channels = features;
            }
            encoder.push(units);
        }
        let mut decoder = Vec::with_capacity(n - 1);
        for d in 0..n - 1 {
            let level = n - 2 - d;
            let (below, features) = (plan.features_per_stage[level + 1], plan.features_per_stage[level]);
            let transpose = ConvTranspose {
                weight: p.get(
                    &format!("decoder.transpconvs.{d}.weight"),
                    &[below, features, 2, 2],
                    Init::Kaiming { fan_in: below },
                )?,
                bias: Some(p.get(
                    &format!("decoder.transpconvs.{d}.bias"),
                    &[features],
                    Init::Constant(0.0),
                )?),
                stride: [1, 2, 2],
                padding: [0; 3],
                output_padding: [0; 3],
            };
            let kernel = square(&plan.kernel_sizes[level], &[1, 3], "kernel size")?;
            let units = (0..plan.n_conv_per_stage_decoder[d])
                .map(|c| {
                    Unit::new(
                        p,
                        &format!("decoder.stages.{d}.convs.{c}"),
                        if c == 0 { 2 * features } else { features },
                        features,
                        kernel,
                        1,
                    )
                })
                .collect::<Result<_>>()?;
            decoder.push(Up { transpose, units });
        }
        let features = plan.features_per_stage[0];
        // nnU-Net numbers one head a decoder level; only the last one is used at inference.
        let name = format!("decoder.seg_layers.{}", n - 2);
        let head = Conv {
            weight: p.get(
                &format!("{name}.weight"),
                &[plan.num_classes, features, 1, 1],
                Init::Kaiming { fan_in: features },
            )?,
            bias: Some(p.get(&format!("{name}.bias"), &[plan.num_classes], Init::Constant(0.0))?),
            stride: [1; 3],
            padding: [0; 3],
            dilation: [1; 3],
            groups: 1,
        };
        Ok(Self {
            encoder,
            decoder,
            head,
            input_channels: plan.input_channels,
            num_classes: plan.num_classes,
            divisor: 1 << (n - 1),
        })
    }

    /// Logits of a batch, on the layout that is fastest on the tensor's device.
    ///
    /// # Shape
    /// `[N, C, H, W]` → `[N, classes, H, W]`; H and W are multiples of 2^(stages − 1).
    ///
    /// # Errors
    /// Says which shape was found and which is wanted.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        self.run(layout::enter(x)?)
    }

    /// The same on candle's own operators: what [`Self::forward`] is held to.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_plain(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        self.run(x.clone())
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let (_, c, h, w) = x.dims4()?;
        if c != self.input_channels || h % self.divisor != 0 || w % self.divisor != 0 {
            let (want, step) = (self.input_channels, self.divisor);
            return Err(Error::Msg(format!(
                "found {c} channels of {h}×{w}, wanted {want} of multiples of {step}"
            ))
            .bt());
        }
        Ok(())
    }

    fn run(&self, mut x: Tensor) -> Result<Tensor> {
        let mut skips = Vec::with_capacity(self.encoder.len());
        for stage in &self.encoder {
            for unit in stage {
                x = unit.forward(&x)?;
            }
            skips.push(x.clone());
        }
        skips.pop();
        for up in &self.decoder {
            let skip = skips
                .pop()
                .ok_or_else(|| Error::Msg("one skip a level".into()).bt())?;
            // Channels are the second axis in both layouts; features are multiples of a block in the blocked one.
            x = Tensor::cat(&[&up.transpose.forward(&x)?, &skip], 1)?;
            for unit in &up.units {
                x = unit.forward(&x)?;
            }
        }
        layout::leave(&self.head.forward(&x)?, self.num_classes, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_layouts_give_the_same_logits() {
        let plan = Architecture {
            input_channels: 1,
            n_stages: 3,
            features_per_stage: vec![16, 32, 48],
            kernel_sizes: vec![vec![3, 3]; 3],
            strides: vec![vec![1, 1], vec![2, 2], vec![2, 2]],
            n_conv_per_stage: vec![2; 3],
            n_conv_per_stage_decoder: vec![1, 2],
            num_classes: 2,
        };
        let network = PlainConvUNet::new(&plan, &mut Parameters::trainable(3, &Device::Cpu)).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 1, 24, 36), &Device::Cpu).unwrap();
        let difference = (network.forward(&x).unwrap() - network.forward_plain(&x).unwrap()).unwrap();
        let worst = difference
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!(worst < 1e-4, "{worst}");
        let odd = Tensor::zeros((1, 1, 24, 37), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(network.forward(&odd).unwrap_err().to_string().contains("24×37"));
    }
}
