//! Activations, element by element.

use super::layout;
use candle_core::{Result, Tensor};

/// An activation function.
#[derive(Debug, Clone)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
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
