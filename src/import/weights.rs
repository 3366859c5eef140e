//! The tensors of a file, if they are exactly those that a network asks for.

use super::ImportError;
use crate::{
    domain::architecture::Architecture,
    nn::{
        checkpoint::{Checkpoint, Object, TensorRef},
        network::Network,
        parameters::Parameters,
    },
};
use candle_core::{Device, Tensor};
use std::{collections::BTreeMap, path::Path};

/// Under which names training loops keep a network's state.
const STATES: [&str; 4] = ["model", "state_dict", "network", "net"];
/// Counts of training steps, which nothing reads.
const COUNTS: &str = ".num_batches_tracked";
/// Most differences that are named.
const NAMED: usize = 4;

/// Every tensor that a network asks for, with its shape.
fn expected(architecture: &Architecture) -> Result<BTreeMap<String, Vec<usize>>, ImportError> {
    let mut parameters = Parameters::trainable(0, &Device::Cpu);
    Network::new(architecture, &mut parameters).map_err(|e| ImportError::network(&e))?;
    match parameters {
        Parameters::Trainable { vars, .. } => Ok(vars
            .into_iter()
            .map(|(name, var)| (name, var.dims().to_vec()))
            .collect()),
        Parameters::Loaded(_) => Err(ImportError::Network("trainable parameters were asked for".into())),
    }
}

/// Refuses missing, superfluous and misshapen tensors by name.
fn fit(
    place: &str,
    found: &BTreeMap<&str, &[usize]>,
    expected: &BTreeMap<String, Vec<usize>>,
) -> Result<(), ImportError> {
    let missing = expected.keys().filter(|k| !found.contains_key(k.as_str()));
    let extra = found.keys().filter(|k| !expected.contains_key(**k));
    let shapes = found.iter().filter_map(|(key, shape)| {
        let wanted = expected.get(*key)?;
        (wanted != shape).then(|| format!("`{key}` has shape {shape:?}, wanted {wanted:?}"))
    });
    let all: Vec<String> = missing
        .map(|k| format!("`{k}` is missing"))
        .chain(extra.map(|k| format!("`{k}` has no place in the network")))
        .chain(shapes)
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    let more = all.len().saturating_sub(NAMED);
    let mut text = all.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text = format!("{text}, and {more} more");
    }
    Err(ImportError::damaged(
        place,
        format!("its tensors do not fit the architecture: {text}"),
    ))
}

/// A file that holds a `state_dict`, bare or under a usual name: itself, and what it says of each tensor.
pub(super) fn state(path: &Path) -> Result<(Checkpoint, BTreeMap<String, TensorRef>), ImportError> {
    let place = path.display().to_string();
    let checkpoint = Checkpoint::open(path).map_err(|source| ImportError::Checkpoint {
        path: place.clone(),
        source,
    })?;
    let root = checkpoint.root();
    let inner = STATES.iter().find_map(|key| checkpoint.entry(root, key));
    let state = match inner {
        Some(id) if !matches!(checkpoint.object(id), Object::Tensor(_)) => id,
        _ => root,
    };
    let mut described: BTreeMap<String, TensorRef> = BTreeMap::new();
    for (key, id) in checkpoint.entries(state) {
        // Training on several GPUs puts this before every name.
        let key = key.strip_prefix("module.").unwrap_or(key);
        let Object::Tensor(tensor) = checkpoint.object(id) else {
            return Err(ImportError::damaged(
                place,
                format!("`{key}` is no tensor; a state_dict holds nothing else"),
            ));
        };
        if !key.ends_with(COUNTS) {
            described.insert(key.to_owned(), tensor.clone());
        }
    }
    if described.is_empty() {
        return Err(ImportError::damaged(place, "it holds no state_dict"));
    }
    Ok((checkpoint, described))
}

/// The tensors themselves, if they are exactly those that the network asks for.
pub(super) fn tensors(
    place: &str,
    checkpoint: &mut Checkpoint,
    described: BTreeMap<String, TensorRef>,
    architecture: &Architecture,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let shapes: BTreeMap<&str, &[usize]> = described.iter().map(|(k, t)| (k.as_str(), t.shape())).collect();
    fit(place, &shapes, &expected(architecture)?)?;
    let mut read = BTreeMap::new();
    for (key, tensor) in described {
        let tensor = checkpoint
            .tensor(&key, &tensor)
            .map_err(|source| ImportError::Checkpoint {
                path: place.to_owned(),
                source,
            })?;
        read.insert(key, tensor);
    }
    Ok(read)
}

/// A `state_dict` with nothing beside the network's own tensors.
pub(super) fn read_state(
    path: &Path,
    architecture: &Architecture,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let (mut checkpoint, described) = state(path)?;
    tensors(
        &path.display().to_string(),
        &mut checkpoint,
        described,
        architecture,
    )
}
