//! Whether a file's tensors are exactly those that a network asks for.

use super::ImportError;
use crate::{
    domain::architecture::Architecture,
    nn::{network::Network, parameters::Parameters},
};
use candle_core::Device;
use std::collections::BTreeMap;

/// Most differences that are named.
const NAMED: usize = 4;

/// Every tensor that a network asks for, with its shape.
pub(super) fn expected(architecture: &Architecture) -> Result<BTreeMap<String, Vec<usize>>, ImportError> {
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
pub(super) fn fit(
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
