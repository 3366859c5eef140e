//! `postprocessing.pkl` (or its JSON twin) → which labels keep only their largest component.
//!
//! nnU-Net writes it into `crossval_results_folds_…`, and exports put it beside the folds.

use super::{Fields, ImportError};
use crate::nn::checkpoint;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The only function that nnU-Net has for this.
const KEEP_LARGEST: &str = "remove_all_but_largest_component_from_segmentation";

/// Reads what there is; nothing when there is nothing.
pub(super) fn read(folder: &Path) -> Result<Vec<Vec<u8>>, ImportError> {
    let mut places = vec![folder.to_owned()];
    let inner = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut crossval: Vec<PathBuf> = inner
        .map(|entry| entry.path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("crossval_results"))
        })
        .collect();
    crossval.sort();
    places.extend(crossval);
    let mut found: Option<(String, Vec<Vec<u8>>)> = None;
    for place in places {
        let (pickle, json) = (
            place.join("postprocessing.pkl"),
            place.join("postprocessing.json"),
        );
        let (file, steps) = if pickle.is_file() {
            let file = pickle.display().to_string();
            let value = checkpoint::read_plain(&pickle).map_err(|source| ImportError::Checkpoint {
                path: file.clone(),
                source,
            })?;
            let Some([functions, kwargs]) = value.as_array().map(Vec::as_slice) else {
                return Err(ImportError::damaged(
                    file,
                    "it is no pair of functions and arguments",
                ));
            };
            let steps = steps(&file, functions, kwargs)?;
            (file, steps)
        } else if json.is_file() {
            let mut fields = Fields::read(&json)?;
            let (functions, kwargs) = (
                fields.take::<Value>("postprocessing_fns")?,
                fields.take::<Value>("postprocessing_kwargs")?,
            );
            let file = json.display().to_string();
            let steps = steps(&file, &functions, &kwargs)?;
            (file, steps)
        } else {
            continue;
        };
        if let Some((other, before)) = &found
            && *before != steps
        {
            return Err(ImportError::damaged(
                file,
                format!("it says another postprocessing than {other}"),
            ));
        }
        found = Some((file, steps));
    }
    Ok(found.map(|(_, steps)| steps).unwrap_or_default())
}

fn steps(file: &str, functions: &Value, kwargs: &Value) -> Result<Vec<Vec<u8>>, ImportError> {
    let (Some(functions), Some(kwargs)) = (functions.as_array(), kwargs.as_array()) else {
        return Err(ImportError::damaged(file, "it holds no lists"));
    };
    if functions.len() != kwargs.len() {
        return Err(ImportError::damaged(
            file,
            format!(
                "it has {} functions and {} arguments",
                functions.len(),
                kwargs.len()
            ),
        ));
    }
    let mut all = Vec::new();
    for (function, kwargs) in functions.iter().zip(kwargs) {
        let name = function.as_str().and_then(|f| f.rsplit('.').next());
        if name != Some(KEEP_LARGEST) {
            return Err(ImportError::unsupported(
                file,
                format!("postprocessing by {function}; this build knows {KEEP_LARGEST}"),
            ));
        }
        let mut kwargs = Fields::new(file, kwargs.clone())?;
        kwargs.expect("background_label", &[Value::Null, 0.into()])?;
        // A label, a region, or a list of either: the mask is their union in each case.
        let mut labels = Vec::new();
        let mut open = vec![kwargs.take::<Value>("labels_or_regions")?];
        while let Some(value) = open.pop() {
            match value {
                Value::Array(list) => open.extend(list),
                one => labels.push(one.as_u64().and_then(|n| u8::try_from(n).ok()).ok_or_else(|| {
                    ImportError::damaged(file, format!("a label of the postprocessing is {one}"))
                })?),
            }
        }
        kwargs.finish()?;
        labels.sort_unstable();
        labels.dedup();
        all.push(labels);
    }
    Ok(all)
}
