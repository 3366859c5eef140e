//! Activations, element by element.

use super::{
    blocked::{Held, values},
    layout,
};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// An activation function.
#[derive(Debug, Clone)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// max(x, slope · x), slope between 0 and 1.
    LeakyRelu(f64),
    /// LeakyReLU with a learned slope, one for all channels or one each.
    Prelu(Tensor),
    /// x · Φ(x), exact (Hendrycks and Gimpel, arXiv:1606.08415).
    Gelu,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
}

impl Activation {
    /// Applies the function to a tensor of any shape; `Prelu` with a slope a channel wants channels on the second axis, or a blocked tensor.
    ///
    /// # Errors
    /// candle's, for a number of slopes that does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Relu => x.relu(),
            Self::Relu6 if x.device().is_cpu() => x.contiguous()?.apply_op1(Relu6),
            Self::Relu6 => x.clamp(0f32, 6f32),
            Self::LeakyRelu(slope) => x.maximum(&(x * *slope)?),
            Self::Prelu(slope) => {
                let slope = if slope.elem_count() == 1 {
                    slope.flatten_all()?
                } else {
                    layout::per_channel(slope, x)?
                };
                x.relu()? - x.neg()?.relu()?.broadcast_mul(&slope)?
            }
            Self::Gelu => x.gelu_erf(),
            Self::Sigmoid => candle_nn::ops::sigmoid(x),
        }
    }
}

/// Values that a thread takes at a time.
const PART: usize = 1 << 14;

/// [`Activation::Relu6`] on a CPU: candle's operators would pass over the values some ten times, gradients included.
struct Relu6;

impl CustomOp1 for Relu6 {
    fn name(&self) -> &'static str {
        "relu6"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let mut y = vec![0.0f32; x.len()];
        y.par_chunks_mut(PART).zip(x.par_chunks(PART)).for_each(|(y, x)| {
            for (y, x) in y.iter_mut().zip(x) {
                *y = x.clamp(0.0, 6.0);
            }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (hx, hg) = (Held::new(x), Held::new(&grad));
        let (xv, gv) = (hx.values()?, hg.values()?);
        let mut down = vec![0.0f32; xv.len()];
        let parts = down
            .par_chunks_mut(PART)
            .zip(xv.par_chunks(PART))
            .zip(gv.par_chunks(PART));
        parts.for_each(|((down, x), g)| {
            for ((down, x), g) in down.iter_mut().zip(x).zip(g) {
                *down = if *x > 0.0 && *x < 6.0 { *g } else { 0.0 };
            }
        });
        Ok(Some(Tensor::from_vec(down, x.shape(), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn relu6_keeps_what_lies_between_and_lets_only_that_learn() {
        let x = Var::new(&[-2.0f32, 0.5, 5.5, 7.0], &Device::Cpu).unwrap();
        let y = Activation::Relu6.forward(&x).unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 0.5, 5.5, 6.0]);
        let weights = Tensor::new(&[1.0f32, 2.0, 3.0, 4.0], &Device::Cpu).unwrap();
        let grads = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(
            grads.get(&x).unwrap().to_vec1::<f32>().unwrap(),
            [0.0, 2.0, 3.0, 0.0]
        );
    }
}
