//! Soft Dice of the foreground plus cross-entropy.
//!
//! Source: Milletari et al., arXiv:1606.04797, with nnU-Net's smoothing and equal weights.

use candle_core::{Result, Tensor};

/// Loss of a two-class network.
///
/// # Shape
/// `logits`: `[N, 2, H, W]`; `truth`: `[N, 1, H, W]` of 0 and 1; result: a scalar.
///
/// # Errors
/// candle's, for shapes that do not fit.
pub fn dice_and_cross_entropy(logits: &Tensor, truth: &Tensor) -> Result<Tensor> {
    let (background, foreground) = (logits.narrow(1, 0, 1)?, logits.narrow(1, 1, 1)?);
    // For two classes everything follows from the difference of the logits.
    let difference = (foreground - background)?;
    let p = candle_nn::ops::sigmoid(&difference)?;
    // log(1 + e^d) − t d, kept finite for large |d|.
    let softplus = (difference.relu()? + (difference.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let cross_entropy = (softplus - (truth * &difference)?)?.mean_all()?;
    let both = (&p * truth)?.sum_all()?;
    let sum = (p.sum_all()? + truth.sum_all()?)?;
    let dice = ((both * 2.0)? + 1.0)?.div(&(sum + 1.0)?)?;
    cross_entropy + (1.0 - dice)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn equals_the_definition_and_falls_towards_the_truth() {
        let logits: Vec<f32> = vec![0.5, -1.0, 2.0, 0.0, 1.5, 0.25, -3.0, 1.0];
        let truth: Vec<f32> = vec![1.0, 0.0, 0.0, 1.0];
        let (mut ce, mut both, mut sum) = (0.0f64, 0.0f64, 0.0f64);
        for i in 0..4 {
            let d = f64::from(logits[4 + i] - logits[i]);
            let (p, t) = (1.0 / (1.0 + (-d).exp()), f64::from(truth[i]));
            ce -= t * p.ln() + (1.0 - t) * (1.0 - p).ln();
            both += p * t;
            sum += p + t;
        }
        let expected = ce / 4.0 + 1.0 - (2.0 * both + 1.0) / (sum + 1.0);
        let logits = Var::from_vec(logits, (1, 2, 2, 2), &Device::Cpu).unwrap();
        let truth = Tensor::from_vec(truth, (1, 1, 2, 2), &Device::Cpu).unwrap();
        let loss = dice_and_cross_entropy(&logits, &truth).unwrap();
        let value = f64::from(loss.to_scalar::<f32>().unwrap());
        assert!((value - expected).abs() < 1e-5, "{value} {expected}");
        let grads = loss.backward().unwrap();
        let moved = (logits.as_tensor() - (grads.get(&logits).unwrap() * 0.1).unwrap()).unwrap();
        let after = dice_and_cross_entropy(&moved, &truth)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!(f64::from(after) < value);
    }
}
