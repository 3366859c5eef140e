//! Any network family behind one door: plain tensors in, plain logits out, whatever layout runs inside.

use super::{
    deepmedic::DeepMedic, efficientnet::EfficientNetUNet, layout, monai_dynunet::DynUNet,
    monai_segresnet::SegResNet, monai_swin_unetr::SwinUNETR, monai_unet::UNet, parameters::Parameters,
    residual_unet::ResidualEncoderUNet, unet::PlainConvUNet, unit::check_input,
};
use crate::domain::architecture::Architecture;
use candle_core::{Result, Tensor};

/// A network of any family.
#[derive(Debug, Clone)]
pub struct Network {
    family: Family,
    spatial_dims: usize,
    input_channels: usize,
    num_classes: usize,
    divisors: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Family {
    PlainConvUNet(PlainConvUNet),
    ResidualEncoderUNet(ResidualEncoderUNet),
    UNet(UNet),
    DynUNet(DynUNet),
    SegResNet(SegResNet),
    SwinUNETR(SwinUNETR),
    DeepMedic(DeepMedic),
    EfficientNetUNet(EfficientNetUNet),
}

impl Network {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter is missing or of another shape.
    pub fn new(plan: &Architecture, p: &mut Parameters) -> Result<Self> {
        let family = match plan {
            Architecture::PlainConvUNet(a) => Family::PlainConvUNet(PlainConvUNet::new(a, p)?),
            Architecture::ResidualEncoderUNet(a) => {
                Family::ResidualEncoderUNet(ResidualEncoderUNet::new(a, p)?)
            }
            Architecture::UNet(a) => Family::UNet(UNet::new(a, p)?),
            Architecture::DynUNet(a) => Family::DynUNet(DynUNet::new(a, p)?),
            Architecture::SegResNet(a) => Family::SegResNet(SegResNet::new(a, p)?),
            Architecture::SwinUNETR(a) => Family::SwinUNETR(SwinUNETR::new(a, p)?),
            Architecture::DeepMedic(a) => Family::DeepMedic(DeepMedic::new(a, p)?),
            Architecture::EfficientNetUNet(a) => Family::EfficientNetUNet(EfficientNetUNet::new(a, p)?),
        };
        Ok(Self {
            family,
            spatial_dims: plan.spatial_dims(),
            input_channels: plan.input_channels(),
            num_classes: plan.num_classes(),
            divisors: plan.divisors(),
        })
    }

    /// Spatial axes of the input: 2 or 3.
    #[must_use]
    pub fn spatial_dims(&self) -> usize {
        self.spatial_dims
    }

    /// What each spatial axis of an input must be a multiple of.
    #[must_use]
    pub fn divisors(&self) -> &[usize] {
        &self.divisors
    }

    /// Logits of a batch, on the layout that is fastest on the tensor's device.
    ///
    /// # Shape
    /// `[N, C, (D), H, W]` → `[N, classes, (D), H, W]`; of DeepMedic only the middle.
    ///
    /// # Errors
    /// Says which shape was found and which is wanted.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut heads = self.run(x, false)?;
        let last = heads.swap_remove(0);
        layout::leave(&last, self.num_classes, self.spatial_dims)
    }

    /// Logits of every head, full resolution first: for training with deep supervision.
    ///
    /// # Shape
    /// Each head halves (or as its level's stride says) the axes of the one before it.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_heads(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        self.run(x, true)?
            .iter()
            .map(|head| layout::leave(head, self.num_classes, self.spatial_dims))
            .collect()
    }

    /// [`Self::forward`] on candle's own operators: what the fast layout is held to.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_plain(&self, x: &Tensor) -> Result<Tensor> {
        check_input(x, self.input_channels, &self.divisors)?;
        Ok(self.family.run(x.clone(), false)?.swap_remove(0))
    }

    fn run(&self, x: &Tensor, all: bool) -> Result<Vec<Tensor>> {
        check_input(x, self.input_channels, &self.divisors)?;
        self.family.run(layout::enter(x)?, all)
    }
}

impl Family {
    /// At least one head, full resolution first.
    fn run(&self, x: Tensor, all: bool) -> Result<Vec<Tensor>> {
        match self {
            Self::PlainConvUNet(network) => network.run(x, all),
            Self::ResidualEncoderUNet(network) => network.run(x, all),
            Self::EfficientNetUNet(network) => network.run(x, all),
            // MONAI's heads for deep supervision are not built: there is one answer.
            Self::UNet(network) => Ok(vec![network.run(&x)?]),
            Self::DynUNet(network) => Ok(vec![network.run(&x)?]),
            Self::SegResNet(network) => Ok(vec![network.run(&x)?]),
            Self::SwinUNETR(network) => Ok(vec![network.run(&x)?]),
            Self::DeepMedic(network) => Ok(vec![network.run(&x)?]),
        }
    }
}
