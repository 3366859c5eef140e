//! Convolution and transposed convolution in two and three dimensions, with gradients.
//!
//! A blocked tensor takes the CPU kernels; a plain one takes cuDNN on a GPU, and candle's own operators (`plain`) elsewhere.

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    blocked::{self, tracks},
    deferred::Deferred,
    kernels::BLOCK,
    layout, plain,
};
use candle_core::{Error, Result, Tensor};

/// A convolution with PyTorch's parameters.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[O, I/groups, (kd), kh, kw]`
    pub weight: Tensor,
    /// `[O]`
    pub bias: Option<Tensor>,
    /// Step in voxels: depth, rows, columns; depth is 1 in 2-D.
    pub stride: [usize; 3],
    /// Zeros around the input, both sides of each axis; depth is 0 in 2-D.
    pub padding: [usize; 3],
    /// Step between taps; depth is 1 in 2-D.
    pub dilation: [usize; 3],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Conv {
    /// Convolves a plain or a blocked tensor.
    ///
    /// # Shape
    /// `[N, I, (D), H, W]` → `[N, O, (D'), H', W']`, or the same blocked.
    ///
    /// # Errors
    /// Says which shape was found and which the weight wants.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return cuda::convolution::convolve(x, self);
        }
        if !layout::is_blocked(x) {
            return plain::convolve(x, self);
        }
        if self.groups == 1 {
            return blocked::convolve(&[x], self);
        }
        let (c_in, dims) = (self.weight.dim(1)? * self.groups, self.weight.rank() - 2);
        layout::enter(&plain::convolve(&layout::leave(x, c_in, dims)?, self)?)
    }

    /// Convolves the concatenation of two tensors along their channels.
    ///
    /// `split` is how many channels the first one has.
    ///
    /// # Shape
    /// `[N, split, …]` and `[N, I − split, …]` → `[N, O, …]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward2(&self, a: &Tensor, b: &Tensor, split: usize) -> Result<Tensor> {
        if layout::is_blocked(a) && layout::is_blocked(b) && split.is_multiple_of(BLOCK) && self.groups == 1 {
            self.check(a)?;
            return blocked::convolve(&[a, b], self);
        }
        let channels = self.weight.dim(1)? * self.groups;
        let Some(rest) = channels.checked_sub(split) else {
            return Err(Error::Msg(format!(
                "the weight wants {channels} channels, the first part alone has {split}"
            ))
            .bt());
        };
        self.forward(&layout::cat(&[(a, split), (b, rest)], self.weight.rank() - 2)?)
    }

    /// Convolves a tensor that may not be finished.
    pub(super) fn read(&self, x: &Deferred) -> Result<Tensor> {
        if self.reads(&[x]) {
            self.check(x.raw())?;
            return Ok(blocked::convolve_deferred(&[x], self, false)?.0);
        }
        self.forward(&x.finished()?)
    }

    /// Whether the blocked kernels take these parts, without gradients.
    pub(super) fn reads(&self, parts: &[&Deferred]) -> bool {
        let fits =
            |part: &&Deferred| part.is_blocked() && part.raw().is_contiguous() && !tracks(&[part.raw()]);
        self.groups == 1
            && parts.iter().all(fits)
            && !tracks(&[&self.weight])
            && !self.bias.as_ref().is_some_and(Tensor::track_op)
    }

    pub(super) fn check(&self, x: &Tensor) -> Result<()> {
        check_rank(x, &self.weight)?;
        check_sizes(&self.weight, &[self.stride, self.dilation, [self.groups; 3]])?;
        check_bias(self.bias.as_ref(), self.weight.dim(0)?)
    }
}

/// A transposed convolution with PyTorch's parameters and one group.
#[derive(Debug, Clone)]
pub struct ConvTranspose {
    /// `[I, O, (kd), kh, kw]`
    pub weight: Tensor,
    /// `[O]`
    pub bias: Option<Tensor>,
    /// Step in voxels of the output; depth is 1 in 2-D.
    pub stride: [usize; 3],
    /// What is cut from each side of each axis of the output; depth is 0 in 2-D.
    pub padding: [usize; 3],
    /// What is added to the far side of each axis; depth is 0 in 2-D.
    pub output_padding: [usize; 3],
}

impl ConvTranspose {
    /// Spreads a plain or a blocked tensor.
    ///
    /// # Shape
    /// `[N, I, (D), H, W]` → `[N, O, (D'), H', W']` with D' = (D − 1)·stride − 2·padding + kernel + output padding, or the same blocked.
    ///
    /// # Errors
    /// Says which shape was found and which the weight wants.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return cuda::convolution::convolve_transposed(x, self);
        }
        if !layout::is_blocked(x) {
            return plain::convolve_transposed(x, self);
        }
        blocked::convolve_transposed(x, self)
    }

    /// Spreads a tensor that may not be finished.
    pub(super) fn read(&self, x: &Deferred) -> Result<Tensor> {
        // Nothing is left where gradients are wanted, and a tensor of which something is left is blocked.
        if x.lines().is_none() || tracks(&[&self.weight]) || self.bias.as_ref().is_some_and(Tensor::track_op)
        {
            return self.forward(&x.finished()?);
        }
        self.check(x.raw())?;
        blocked::convolve_transposed_deferred(x, self)
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        check_rank(x, &self.weight)?;
        check_sizes(&self.weight, &[self.stride])?;
        check_bias(self.bias.as_ref(), self.weight.dim(1)?)
    }
}

/// No axis of a kernel, stride or dilation is 0.
fn check_sizes(weight: &Tensor, sizes: &[[usize; 3]]) -> Result<()> {
    if weight.dims().contains(&0) || sizes.iter().any(|size| size.contains(&0)) {
        return Err(Error::Msg(format!(
            "a convolution has no size of 0; found a weight of {:?} with {sizes:?}",
            weight.dims()
        ))
        .bt());
    }
    Ok(())
}

fn check_bias(bias: Option<&Tensor>, channels: usize) -> Result<()> {
    match bias {
        Some(bias) if bias.dims() != [channels] => Err(Error::Msg(format!(
            "a bias of shape [{channels}] is wanted, found {:?}",
            bias.dims()
        ))
        .bt()),
        _ => Ok(()),
    }
}

/// A plain tensor has the weight's rank; a blocked one has 6.
fn check_rank(x: &Tensor, weight: &Tensor) -> Result<()> {
    if !(weight.rank() == 4 || weight.rank() == 5) {
        return Err(Error::Msg(format!(
            "a weight has rank 4 or 5, this one has shape {:?}",
            weight.dims()
        ))
        .bt());
    }
    if layout::is_blocked(x) || x.rank() == weight.rank() {
        return Ok(());
    }
    Err(Error::Msg(format!(
        "a weight of shape {:?} wants an input of rank {}, found shape {:?}",
        weight.dims(),
        weight.rank(),
        x.dims()
    ))
    .bt())
}

#[cfg(test)]
mod tests {
    use super::super::{layout, tests::largest};
    use super::*;
    use candle_core::{DType, Device, Var};

    fn random(dims: &[usize], seed: u64) -> Tensor {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..dims.iter().product())
            .map(|_| rng.random_range(-1.0..1.0))
            .collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        largest(&(a - b).unwrap())
    }

    /// Output and the three gradients of a loss that weighs every output value differently.
    fn run(
        x: &Tensor,
        w: &Var,
        b: &Var,
        blocked: bool,
        layer: impl Fn(Tensor, Tensor, &Tensor) -> Result<Tensor>,
    ) -> Vec<Tensor> {
        let x = Var::from_tensor(x).unwrap();
        let input = if blocked {
            layout::enter(&x).unwrap()
        } else {
            x.as_tensor().clone()
        };
        let y = layer(w.as_tensor().clone(), b.as_tensor().clone(), &input).unwrap();
        let y = layout::leave(&y, b.elem_count(), 2).unwrap();
        let weights = random(y.dims(), 9).to_dtype(DType::F32).unwrap();
        let grads = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let grad = |v: &Var| grads.get(v).unwrap().clone();
        vec![y, grad(&x), grad(w), grad(b)]
    }

    #[test]
    fn blocked_convolution_and_its_gradients_equal_candles() {
        for (c_in, c_out, kernel, stride, padding) in [
            (1, 16, 3, 1, 1),
            (20, 32, 3, 2, 1),
            (33, 5, 1, 1, 0),
            (16, 48, 3, 1, 1),
        ] {
            let x = random(&[2, c_in, 12, 18], 1);
            let w = Var::from_tensor(&random(&[c_out, c_in, kernel, kernel], 2)).unwrap();
            let b = Var::from_tensor(&random(&[c_out], 3)).unwrap();
            let layer = |weight, bias, x: &Tensor| {
                Conv {
                    weight,
                    bias: Some(bias),
                    stride: [1, stride, stride],
                    padding: [0, padding, padding],
                    dilation: [1; 3],
                    groups: 1,
                }
                .forward(x)
            };
            let (ours, candles) = (run(&x, &w, &b, true, layer), run(&x, &w, &b, false, layer));
            for (name, (a, b)) in ["y", "x", "w", "b"].iter().zip(ours.iter().zip(&candles)) {
                assert!(
                    difference(a, b) < 1e-3,
                    "{c_in} {c_out} {kernel} {stride}: {name} {}",
                    difference(a, b)
                );
            }
        }
    }

    #[test]
    fn blocked_transposed_convolution_and_its_gradients_equal_candles() {
        for (c_in, c_out) in [(32, 16), (20, 7)] {
            let x = random(&[2, c_in, 5, 6], 1);
            let w = Var::from_tensor(&random(&[c_in, c_out, 2, 2], 2)).unwrap();
            let b = Var::from_tensor(&random(&[c_out], 3)).unwrap();
            let layer = |weight, bias, x: &Tensor| {
                ConvTranspose {
                    weight,
                    bias: Some(bias),
                    stride: [1, 2, 2],
                    padding: [0; 3],
                    output_padding: [0; 3],
                }
                .forward(x)
            };
            let (ours, candles) = (run(&x, &w, &b, true, layer), run(&x, &w, &b, false, layer));
            for (a, b) in ours.iter().zip(&candles) {
                assert!(difference(a, b) < 1e-3, "{c_in} {c_out} {}", difference(a, b));
            }
        }
    }

    #[test]
    fn refuses_an_input_with_the_wrong_channels() {
        let layer = Conv {
            weight: random(&[8, 20, 3, 3], 1),
            bias: None,
            stride: [1; 3],
            padding: [0, 1, 1],
            dilation: [1; 3],
            groups: 1,
        };
        let x = layout::enter(&random(&[1, 16, 8, 8], 3)).unwrap();
        assert!(layer.forward(&x).unwrap_err().to_string().contains("20 channels"));
    }
}
