//! `network_weights` of a checkpoint → exactly the tensors that the network asks for.
//!
//! nnU-Net's modules register some tensors twice; the copies must say the same and are dropped.

use super::ImportError;
use crate::{
    domain::architecture::Architecture,
    import::weights::tensors,
    nn::checkpoint::{Checkpoint, Object, TensorRef},
};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The name under which a copy stands for the first time; `None` for a first name.
///
/// `convs.0.all_modules.0` is its `conv`, `.1` its `norm`; `decoder.encoder` is the encoder.
fn original(key: &str) -> Option<String> {
    let outside = key
        .strip_prefix("decoder.encoder.")
        .map(|rest| format!("encoder.{rest}"));
    let named = outside.as_deref().unwrap_or(key);
    let inside = [(".all_modules.0.", ".conv."), (".all_modules.1.", ".norm.")]
        .into_iter()
        .find(|(copy, _)| named.contains(copy))
        .map(|(copy, first)| named.replace(copy, first));
    inside.or(outside)
}

/// Reads one member's tensors.
pub(super) fn read(
    checkpoint: &mut Checkpoint,
    place: &str,
    architecture: &Architecture,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let weights = checkpoint
        .entry(checkpoint.root(), "network_weights")
        .ok_or_else(|| ImportError::damaged(place, "it has no `network_weights`"))?;
    let mut described: BTreeMap<String, TensorRef> = BTreeMap::new();
    for (key, id) in checkpoint.entries(weights) {
        // Training on several GPUs puts this before every name; nnU-Net removes it too.
        let key = key.strip_prefix("module.").unwrap_or(key);
        let Object::Tensor(tensor) = checkpoint.object(id) else {
            return Err(ImportError::damaged(place, format!("`{key}` is no tensor")));
        };
        described.insert(key.to_owned(), tensor.clone());
    }
    if described.is_empty() {
        return Err(ImportError::damaged(place, "its `network_weights` are empty"));
    }
    let bad = |source| ImportError::Checkpoint {
        path: place.to_owned(),
        source,
    };
    let mut firsts = BTreeMap::new();
    for (key, tensor) in &described {
        let Some(first) = original(key) else {
            firsts.insert(key.clone(), tensor.clone());
            continue;
        };
        let Some(other) = described.get(&first) else {
            return Err(ImportError::damaged(place, format!("`{key}` has no `{first}`")));
        };
        if other == tensor {
            continue;
        }
        // Saved apart: then the numbers themselves are compared.
        let (a, b) = (
            checkpoint.tensor(key, tensor).map_err(bad)?,
            checkpoint.tensor(&first, other).map_err(bad)?,
        );
        let same = a.dims() == b.dims()
            && a.flatten_all()
                .and_then(|a| Ok(a.to_vec1::<f32>()? == b.flatten_all()?.to_vec1::<f32>()?))
                .map_err(|e| ImportError::network(&e))?;
        if !same {
            return Err(ImportError::damaged(
                place,
                format!("`{key}` and `{first}` are the same layer and hold different numbers"),
            ));
        }
    }
    tensors(place, checkpoint, firsts, architecture)
}

#[cfg(test)]
mod tests {
    use super::original;

    #[test]
    fn copies_lead_to_their_first_name() {
        for (key, first) in [
            ("encoder.stages.0.0.convs.0.conv.weight", None),
            (
                "encoder.stages.0.0.convs.0.all_modules.0.weight",
                Some("encoder.stages.0.0.convs.0.conv.weight"),
            ),
            (
                "decoder.encoder.stages.1.blocks.0.conv1.all_modules.1.bias",
                Some("encoder.stages.1.blocks.0.conv1.norm.bias"),
            ),
            (
                "decoder.encoder.stem.convs.0.norm.bias",
                Some("encoder.stem.convs.0.norm.bias"),
            ),
            ("decoder.seg_layers.0.weight", None),
        ] {
            assert_eq!(original(key).as_deref(), first, "{key}");
        }
    }
}
