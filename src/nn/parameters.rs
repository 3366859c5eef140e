//! Where a network's parameters come from: a safetensors file, or a seeded initialisation for training.
//!
//! Names are PyTorch's, so that a checkpoint loads without a mapping.

use candle_core::{Device, Error, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Named parameters, asked for by name and shape.
#[derive(Debug)]
pub enum Parameters {
    /// Read-only tensors, as loaded.
    Loaded(BTreeMap<String, Tensor>),
    /// Trainable variables, made when first asked for.
    Trainable {
        /// What was made so far.
        vars: BTreeMap<String, Var>,
        /// Where the initial values come from.
        rng: Box<ChaCha8Rng>,
        /// Where the variables live.
        device: Device,
    },
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Kaiming normal for LeakyReLU over the fan-in (He et al., doi:10.1109/ICCV.2015.123).
    Kaiming {
        /// Inputs that meet in one output.
        fan_in: usize,
    },
    /// The same number everywhere.
    Constant(f32),
}

impl Parameters {
    /// Trainable parameters, the same for the same seed.
    #[must_use]
    pub fn trainable(seed: u64, device: &Device) -> Self {
        Self::Trainable {
            vars: BTreeMap::new(),
            rng: Box::new(ChaCha8Rng::seed_from_u64(seed)),
            device: device.clone(),
        }
    }

    /// The parameter `name` of shape `dims`.
    ///
    /// # Errors
    /// Names what is missing or has another shape.
    pub fn get(&mut self, name: &str, dims: &[usize], init: Init) -> Result<Tensor> {
        match self {
            Self::Loaded(tensors) => {
                let tensor = tensors
                    .get(name)
                    .ok_or_else(|| Error::Msg(format!("the weights have no `{name}`")).bt())?;
                if tensor.dims() != dims {
                    return Err(Error::Msg(format!(
                        "`{name}` has shape {:?}, the plan wants {dims:?}",
                        tensor.dims()
                    ))
                    .bt());
                }
                Ok(tensor.clone())
            }
            Self::Trainable { vars, rng, device } => {
                if let Some(var) = vars.get(name) {
                    return Ok(var.as_tensor().clone());
                }
                let count = dims.iter().product();
                let values: Vec<f32> = match init {
                    Init::Constant(value) => vec![value; count],
                    Init::Kaiming { fan_in } => {
                        let std = (2.0 / (1.0 + super::norm::NEGATIVE_SLOPE.powi(2)) / fan_in as f64).sqrt();
                        (0..count).map(|_| normal(rng, std)).collect()
                    }
                };
                let var = Var::from_tensor(&Tensor::from_vec(values, dims, device)?)?;
                let tensor = var.as_tensor().clone();
                vars.insert(name.to_owned(), var);
                Ok(tensor)
            }
        }
    }
}

/// A normal deviate by Box and Muller (doi:10.1214/aoms/1177706645).
fn normal(rng: &mut ChaCha8Rng, std: f64) -> f32 {
    let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random());
    #[expect(clippy::cast_possible_truncation, reason = "parameters are f32")]
    {
        (std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}
