//! `models/model.pt` of a bundle → exactly the tensors that the network asks for.

use super::{ImportError, network::Stored};
use crate::{
    domain::architecture::Architecture,
    import::weights::{state, tensors},
    nn::{
        checkpoint::{Checkpoint, TensorRef},
        relative_position_index,
    },
};
use candle_core::Tensor;
use std::{collections::BTreeMap, path::Path};

/// The places that a window's tokens have to each other.
const PLACES: &str = ".relative_position_index";

pub(super) fn read(
    path: &Path,
    architecture: &Architecture,
    stored: &Stored,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let place = path.display().to_string();
    let bad = |source| ImportError::Checkpoint {
        path: place.clone(),
        source,
    };
    let (mut checkpoint, mut described) = state(path)?;
    if let Some(window) = stored.window {
        let wanted = relative_position_index(window);
        let keys: Vec<String> = described
            .keys()
            .filter(|key| key.ends_with(PLACES))
            .cloned()
            .collect();
        for key in keys {
            if let Some(tensor) = described.remove(&key)
                && checkpoint.integers(&key, &tensor).map_err(bad)? != wanted
            {
                return Err(ImportError::unsupported(
                    &place,
                    format!("`{key}` is not that of windows of {window:?}"),
                ));
            }
        }
    }
    if let Some(levels) = stored.levels {
        described
            .retain(|key, _| !key.starts_with("deep_supervision_heads.") && !key.contains(".super_head."));
        let copies: Vec<String> = described
            .keys()
            .filter(|key| key.starts_with("skip_layers."))
            .cloned()
            .collect();
        for copy in copies {
            let Some(tensor) = described.remove(&copy) else {
                continue;
            };
            let first = original(&copy, levels).and_then(|key| Some((described.get(&key)?.clone(), key)));
            let Some((other, key)) = first else {
                return Err(ImportError::damaged(&place, format!("`{copy}` has no original")));
            };
            if other != tensor && !same(&mut checkpoint, [&copy, &key], [&tensor, &other]).map_err(bad)? {
                return Err(ImportError::damaged(
                    &place,
                    format!("`{copy}` and `{key}` are the same layer and hold different numbers"),
                ));
            }
        }
    }
    tensors(&place, &mut checkpoint, described, architecture)
}

/// Whether two tensors hold the same numbers.
fn same(
    checkpoint: &mut Checkpoint,
    names: [&str; 2],
    tensors: [&TensorRef; 2],
) -> Result<bool, crate::nn::checkpoint::CheckpointError> {
    let a = checkpoint.tensor(names[0], tensors[0])?;
    let b = checkpoint.tensor(names[1], tensors[1])?;
    let numbers = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>());
    Ok(a.dims() == b.dims() && matches!((numbers(&a), numbers(&b)), (Ok(a), Ok(b)) if a == b))
}

/// Where the block of a `DynUNet` stands that `skip_layers` holds again, one level within the other.
fn original(copy: &str, levels: usize) -> Option<String> {
    let mut rest = copy.strip_prefix("skip_layers.")?;
    let mut level = 0;
    while let Some(inner) = rest.strip_prefix("next_layer.") {
        level += 1;
        if level + 1 == levels {
            return Some(format!("bottleneck.{inner}"));
        }
        rest = inner;
    }
    if let Some(inner) = rest.strip_prefix("downsample.") {
        return Some(match level {
            0 => format!("input_block.{inner}"),
            level => format!("downsamples.{}.{inner}", level - 1),
        });
    }
    let inner = rest.strip_prefix("upsample.")?;
    Some(format!("upsamples.{}.{inner}", levels.checked_sub(level + 2)?))
}

#[cfg(test)]
mod tests {
    use super::original;

    #[test]
    fn copies_within_each_other_lead_to_their_blocks() {
        for (copy, first) in [
            (
                "skip_layers.downsample.conv1.conv.weight",
                "input_block.conv1.conv.weight",
            ),
            ("skip_layers.upsample.x", "upsamples.1.x"),
            ("skip_layers.next_layer.downsample.x", "downsamples.0.x"),
            ("skip_layers.next_layer.upsample.x", "upsamples.0.x"),
            ("skip_layers.next_layer.next_layer.x", "bottleneck.x"),
        ] {
            assert_eq!(original(copy, 3).as_deref(), Some(first), "{copy}");
        }
        assert_eq!(original("input_block.x", 3), None);
    }
}
