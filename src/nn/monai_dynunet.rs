//! MONAI's `DynUNet` in two and three dimensions, with its key names; its heads for deep supervision are not built.
//!
//! Source: MONAI, `networks/nets/dynunet.py` and `blocks/dynunet_block.py` (names and wiring).

use super::{
    conv::{Conv, ConvTranspose},
    monai_block::{UnetBlock, UnetBlockPlan},
    parameters::Parameters,
    unit::{conv, refuse, transpose},
};
use crate::domain::architecture;
use candle_core::{Result, Tensor};

/// MONAI's dynamic U-Net.
#[derive(Debug, Clone)]
pub struct DynUNet {
    down: Vec<UnetBlock>,
    up: Vec<(ConvTranspose, UnetBlock)>,
    head: Conv,
}

impl DynUNet {
    /// Builds the network that a plan describes from its parameters.
    ///
    /// # Errors
    /// Says what in the plan does not fit, or which parameter.
    pub fn new(plan: &architecture::DynUNet, p: &mut Parameters) -> Result<Self> {
        let (n, dims) = (plan.filters.len(), plan.spatial_dims);
        let even = |list: &[Vec<usize>]| list.len() == n && list.iter().all(|axes| axes.len() == dims);
        if n < 3 || !matches!(dims, 2 | 3) || !even(&plan.kernel_size) || !even(&plan.strides) {
            return Err(refuse(format!(
                "a DynUNet of {dims} axes and {n} levels wants 2 or 3 axes, three levels or more, and a kernel and a stride a level and axis"
            )));
        }
        // MONAI pads by (kernel − stride + 1)/2, which keeps the grid only so far.
        if plan.strides[0].iter().any(|s| *s != 1)
            || plan.strides.iter().flatten().any(|s| !matches!(s, 1 | 2))
        {
            return Err(refuse(format!(
                "strides {:?} are not in this build, which has 1 or 2, and 1 on the first level",
                plan.strides
            )));
        }
        let mut down = Vec::with_capacity(n);
        for l in 0..n {
            let name = match l {
                0 => "input_block".to_owned(),
                l if l + 1 == n => "bottleneck".to_owned(),
                l => format!("downsamples.{}", l - 1),
            };
            let above = if l == 0 {
                plan.in_channels
            } else {
                plan.filters[l - 1]
            };
            let block = UnetBlockPlan {
                channels: [above, plan.filters[l]],
                kernel: &plan.kernel_size[l],
                stride: &plan.strides[l],
                norm: plan.norm_name,
                residual: plan.res_block,
            };
            down.push(UnetBlock::new(p, &name, block)?);
        }
        let ones = vec![1; dims];
        let mut up = Vec::with_capacity(n - 1);
        for i in 0..n - 1 {
            let level = n - 2 - i;
            let name = format!("upsamples.{i}");
            let (below, here) = (plan.filters[level + 1], plan.filters[level]);
            let spread = transpose(
                p,
                &format!("{name}.transp_conv.conv"),
                [below, here],
                &plan.strides[level + 1],
                plan.trans_bias,
            )?;
            let block = UnetBlockPlan {
                channels: [2 * here, here],
                kernel: &plan.kernel_size[level + 1],
                stride: &ones,
                norm: plan.norm_name,
                residual: false,
            };
            up.push((spread, UnetBlock::new(p, &format!("{name}.conv_block"), block)?));
        }
        let channels = [plan.filters[0], plan.out_channels];
        let head = conv(p, "output_block.conv.conv", channels, &ones, &ones, true)?;
        Ok(Self { down, up, head })
    }

    /// Logits in the layout of the input.
    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        let mut skips = Vec::with_capacity(self.down.len());
        for block in &self.down {
            x = block.forward(&x)?;
            skips.push(x.clone());
        }
        skips.pop();
        for ((spread, block), skip) in self.up.iter().zip(skips.iter().rev()) {
            x = block.forward_joined(&spread.forward(&x)?, skip)?;
        }
        self.head.forward(&x)
    }
}
