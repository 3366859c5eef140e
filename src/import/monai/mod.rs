//! A MONAI bundle, a folder or a zip of one → a trained model.
//!
//! `configs/inference.json` says how the bundle predicts; what it names is read as what it is, and no expression is evaluated.
//! Source: MONAI 1.6.1 (`bundle/config_parser.py`, `transforms`, `inferers`), read and run.

mod config;
mod network;
mod transforms;
mod weights;

use super::{ImportError, Trained, fields::Fields};
use crate::{
    domain::{
        oriented::{Blend, Oriented},
        plan::{Activation, Configuration, Ensemble, Grid, Label, Normalization},
    },
    nn::checkpoint,
};
use config::Config;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Most voxels of a tile, as for nnU-Net.
const MOST_VOXELS: usize = 1 << 27;
/// Most bytes that a zip may unpack to; the largest bundles have one.
const MOST_UNPACKED: u64 = 8 << 30;
/// MONAI's default share that tiles have in common.
const OVERLAP: f64 = 0.25;
/// MONAI's default deviation of the weights in shares of a tile.
const SIGMA_SCALE: f64 = 0.125;
/// Where a bundle keeps its weights.
const WEIGHTS: &str = "model.pt";

/// Whether a folder looks like a bundle.
pub(super) fn is_bundle(folder: &Path) -> bool {
    [
        "metadata.json",
        "inference.json",
        "inference.yaml",
        "inference.yml",
        "train.json",
    ]
    .iter()
    .any(|file| folder.join("configs").join(file).is_file())
}

/// Hands on the folder of a zipped bundle, unpacked below `near` for as long as it is used.
pub(super) fn unpacked<T>(
    zip: &Path,
    near: &Path,
    take: impl FnOnce(&Path) -> Result<T, ImportError>,
) -> Result<T, ImportError> {
    let folder = near.join(format!(".bundle-{}.unpacked", std::process::id()));
    let of_a_bundle = |name: &str| {
        let mut parts = name.rsplit('/');
        parts.next().is_some() && matches!(parts.next(), Some("configs" | "models"))
    };
    let used = checkpoint::unpack(zip, &folder, of_a_bundle, MOST_UNPACKED)
        .map_err(|source| ImportError::Checkpoint {
            path: zip.display().to_string(),
            source,
        })
        .and_then(|names| {
            // Zips hold the bundle's files, or one folder with them.
            let roots = names.iter().filter_map(|name| {
                let (before, _) = name.rsplit_once("configs/")?;
                Some(folder.join(before))
            });
            let mut roots: Vec<_> = roots.filter(|root| is_bundle(root)).collect();
            roots.dedup();
            match roots.as_slice() {
                [root] => take(root),
                others => Err(ImportError::Unknown {
                    path: zip.display().to_string(),
                    what: format!("it holds {} MONAI bundles, one was expected", others.len()),
                }),
            }
        });
    // Nothing of it is needed any more; what cannot be removed is in the way of nothing.
    let _gone = std::fs::remove_dir_all(&folder);
    used
}

/// Reads a bundle whole; `checkpoint` is another name of its weights' file.
pub(super) fn read(folder: &Path, checkpoint: Option<&str>) -> Result<Trained, ImportError> {
    let configs = folder.join("configs");
    let path = configs.join("inference.json");
    if !path.is_file() {
        let yaml = ["inference.yaml", "inference.yml"]
            .iter()
            .find(|f| configs.join(f).is_file());
        let what = match yaml {
            Some(file) => {
                format!("its {file} is YAML, which this build does not read; write it as inference.json")
            }
            None => "it has no configs/inference.json, which says how the bundle predicts".to_owned(),
        };
        return Err(ImportError::unsupported(folder.display().to_string(), what));
    }
    let metadata = Metadata::read(&configs.join("metadata.json"))?;
    let config = Config::read(&path)?;
    let (architecture, stored) = network::read(&config, config.one_of(&["network_def", "network", "net"])?)?;
    if architecture.spatial_dims() != 3 {
        return Err(ImportError::unsupported(
            config.place(),
            format!(
                "the network has {} spatial axes; of bundles this build runs those with 3",
                architecture.spatial_dims()
            ),
        ));
    }
    let chain = transforms::before(&config)?;
    let after = transforms::after(&config, &chain.key)?;
    let (patch_size, overlap, blend) = inferer(&config)?;
    let outputs = architecture.num_classes();
    if outputs < 2 {
        return Err(ImportError::unsupported(
            config.place(),
            format!("the network has {outputs} output; softmax and argmax need two or more"),
        ));
    }
    let divisors = architecture.divisors();
    if let Some(axis) = (0..3).find(|a| !patch_size[*a].is_multiple_of(divisors[*a])) {
        return Err(ImportError::damaged(
            config.place(),
            format!("roi_size {patch_size:?} is no multiple of {divisors:?} on axis {axis}"),
        ));
    }
    let file = folder.join("models").join(checkpoint.unwrap_or(WEIGHTS));
    if !file.is_file() {
        return Err(ImportError::damaged(
            folder.display().to_string(),
            format!(
                "it has no models/{}; a TorchScript file is not read, save the state_dict with torch.save",
                checkpoint.unwrap_or(WEIGHTS)
            ),
        ));
    }
    let tensors = weights::read(&file, &architecture, &stored)?;
    let labels = metadata.labels(outputs)?;
    let grid = Oriented {
        axcodes: chain.axcodes,
        steps: chain.steps,
        overlap,
        blend,
        activate_first: after.activate_first,
    };
    grid.check()
        .map_err(|what| ImportError::damaged(config.place(), what))?;
    let channels = architecture.input_channels();
    let mut facts = metadata.facts;
    facts.push(("labels".to_owned(), labels.join(", ")));
    facts.push(("transforms before".to_owned(), chain.told));
    facts.push(("transforms after".to_owned(), after.told));
    facts.push(("tiles".to_owned(), format!("overlap {overlap:?}, {blend:?}")));
    let spacing = grid.pixdim().map(|mm| mm.to_vec()).unwrap_or_default();
    Ok(Trained {
        name: metadata.name.unwrap_or_else(|| "monai-bundle".to_owned()),
        origin: format!("MONAI bundle, {}", architecture.class_name()),
        configuration: Configuration {
            grid: Grid::Oriented(grid),
            patch_size: patch_size.to_vec(),
            spacing,
            normalization_schemes: vec![Normalization::NoNormalization; channels],
            channel_names: metadata
                .channels
                .filter(|c| c.len() == channels)
                .unwrap_or_default(),
            tile_step_size: 1.0,
            architecture,
        },
        members: vec![tensors],
        ensemble: Ensemble::MeanProbabilities,
        activation: Activation::Softmax,
        labels: (1..=u8::MAX)
            .zip(&labels)
            .map(|(value, name)| Label::unexplained(value, name))
            .collect(),
        mirror_axes: Vec::new(),
        keep_largest: Vec::new(),
        stages: Vec::new(),
        facts,
    })
}

/// Tile, overlap and weights of the sliding window.
fn inferer(config: &Config) -> Result<([usize; 3], [f64; 3], Blend), ImportError> {
    let (class, mut f) = config.component(
        config.one_of(&["inferer"])?,
        &[
            "sw_batch_size",
            "sw_device",
            "device",
            "progress",
            "cache_roi_weight_map",
            "cpu_thresh",
            "buffer_steps",
            "buffer_dim",
        ],
    )?;
    if class != "SlidingWindowInferer" {
        return Err(ImportError::unsupported(
            config.place(),
            format!("inferer `{class}`; this build knows SlidingWindowInferer"),
        ));
    }
    let patch: [usize; 3] = f.take("roi_size")?;
    let voxels = patch.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    if !voxels.is_some_and(|n| (1..=MOST_VOXELS).contains(&n)) {
        return Err(ImportError::damaged(f.place(), format!("roi_size is {patch:?}")));
    }
    let overlap = match f.maybe::<Value>("overlap")? {
        None => [OVERLAP; 3],
        Some(Value::Array(each)) => serde_json::from_value(Value::Array(each))
            .map_err(|e| ImportError::damaged(f.place(), format!("`overlap` is not understood ({e})")))?,
        Some(one) => {
            let share = one
                .as_f64()
                .ok_or_else(|| ImportError::damaged(f.place(), format!("`overlap` is {one}")))?;
            [share; 3]
        }
    };
    let mode = f.expect("mode", &[Value::Null, json!("constant"), json!("gaussian")])?;
    let sigma_scale = f.maybe("sigma_scale")?.unwrap_or(SIGMA_SCALE);
    f.expect("padding_mode", &[Value::Null, json!("constant")])?;
    f.expect("cval", &[Value::Null, json!(0), json!(0.0)])?;
    f.expect("roi_weight_map", &[Value::Null])?;
    f.finish()?;
    let blend = if mode == json!("gaussian") {
        Blend::Gaussian { sigma_scale }
    } else {
        Blend::Constant
    };
    Ok((patch, overlap, blend))
}

/// What `metadata.json` tells of the model.
struct Metadata {
    name: Option<String>,
    channels: Option<Vec<String>>,
    /// Names of the outputs by their number.
    outputs: Map<String, Value>,
    facts: Vec<(String, String)>,
}

impl Metadata {
    fn read(path: &Path) -> Result<Self, ImportError> {
        let mut m = Fields::read(path)?;
        let name: Option<String> = m.maybe("name")?;
        let format: Value = m.maybe("network_data_format")?.unwrap_or_default();
        let named = |kind: &str| {
            let of = format.get(kind).and_then(Value::as_object)?;
            of.values().next()?.get("channel_def")?.as_object().cloned()
        };
        let channels = named("inputs").map(|all| {
            (0..all.len())
                .map(|i| {
                    all.get(&i.to_string())
                        .and_then(Value::as_str)
                        .unwrap_or("image")
                        .to_owned()
                })
                .collect()
        });
        let mut facts = Vec::new();
        for key in [
            "name",
            "version",
            "description",
            "task",
            "intended_use",
            "data_source",
            "data_type",
            "authors",
            "copyright",
            "monai_version",
            "pytorch_version",
        ] {
            let value = if key == "name" {
                name.clone().map(Value::from)
            } else {
                m.maybe::<Value>(key)?
            };
            if let Some(value) = value {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                facts.push((format!("metadata.json, {key}"), text));
            }
        }
        // All else is prose.
        Ok(Self {
            name,
            channels,
            outputs: named("outputs").unwrap_or_default(),
            facts,
        })
    }

    /// The names of all outputs but the first, which is background.
    fn labels(&self, outputs: usize) -> Result<Vec<String>, ImportError> {
        if !self.outputs.is_empty() && self.outputs.len() != outputs {
            return Err(ImportError::damaged(
                "metadata.json",
                format!(
                    "it names {} outputs, the network has {outputs}",
                    self.outputs.len()
                ),
            ));
        }
        let name = |k: usize| match self.outputs.get(&k.to_string()) {
            Some(name) => name.as_str().map_or_else(|| name.to_string(), str::to_owned),
            None => format!("channel {k}"),
        };
        Ok((1..outputs).map(name).collect())
    }
}
