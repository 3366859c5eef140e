//! A MONAI bundle, a folder or a zip of one → a trained model.
//!
//! `configs/inference.json`, or `.yaml`, says how the bundle predicts; what it names is read as what it is, and no expression is evaluated.
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

/// What says how a bundle predicts.
const INFERENCE: [&str; 3] = ["inference.json", "inference.yaml", "inference.yml"];

/// Whether a folder looks like a bundle.
pub(super) fn is_bundle(folder: &Path) -> bool {
    let mut files = INFERENCE.iter().chain(&["metadata.json", "train.json"]);
    files.any(|file| folder.join("configs").join(file).is_file())
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
///
/// `painted` is in which order outputs that may overlap are painted.
pub(super) fn read(
    folder: &Path,
    checkpoint: Option<&str>,
    painted: Option<&[usize]>,
) -> Result<Trained, ImportError> {
    let configs = folder.join("configs");
    let there: Vec<&str> = INFERENCE
        .into_iter()
        .filter(|file| configs.join(file).is_file())
        .collect();
    let [file] = there.as_slice() else {
        let what = if there.is_empty() {
            "it has no configs/inference.json or .yaml, which says how the bundle predicts".to_owned()
        } else {
            format!("it has {}, one was expected", there.join(" and "))
        };
        return Err(ImportError::unsupported(folder.display().to_string(), what));
    };
    let metadata = Metadata::read(&configs.join("metadata.json"))?;
    let config = Config::read(&configs.join(file))?;
    let (architecture, stored) = network::read(&config, config.one_of(&["network_def", "network", "net"])?)?;
    let tiles = inferer(&config, architecture.spatial_dims())?;
    let patch_size = tiles.patch_size;
    let chain = transforms::before(&config, tiles.slice_axis)?;
    let after = transforms::after(&config, &chain)?;
    let outputs = architecture.num_classes();
    let painted = order(config.place(), outputs, &after, painted)?;
    let divisors = architecture.divisors();
    if let Some(axis) = (0..patch_size.len()).find(|a| !patch_size[*a].is_multiple_of(divisors[*a])) {
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
    let labels = metadata.labels(outputs, after.activation)?;
    let grid = Oriented {
        axcodes: chain.axcodes,
        steps: chain.steps,
        overlap: tiles.overlap,
        blend: tiles.blend,
        activate_first: after.activate_first,
        slice_axis: tiles.slice_axis,
        painted,
    };
    grid.check()
        .map_err(|what| ImportError::damaged(config.place(), what))?;
    let channels = architecture.input_channels();
    let mut facts = metadata.facts;
    facts.push(("labels".to_owned(), labels.join(", ")));
    facts.push(("transforms before".to_owned(), chain.told));
    facts.push(("transforms after".to_owned(), after.told));
    facts.push((
        "tiles".to_owned(),
        format!("overlap {:?}, {:?}", grid.overlap, grid.blend),
    ));
    if let Some(axis) = grid.slice_axis {
        facts.push((
            "slices".to_owned(),
            format!("one by one along axis {axis} of the network's grid"),
        ));
    }
    if !grid.painted.is_empty() {
        let order: Vec<&str> = grid.painted.iter().map(|k| labels[*k].as_str()).collect();
        facts.push((
            "outputs that may overlap".to_owned(),
            format!(
                "painted in the order {}; where several hold, only the last is in the label map",
                order.join(", ")
            ),
        ));
    }
    let spacing = grid.spacing();
    Ok(Trained {
        name: metadata.name.unwrap_or_else(|| "monai-bundle".to_owned()),
        origin: format!("MONAI bundle, {}", architecture.class_name()),
        configuration: Configuration {
            grid: Grid::Oriented(grid),
            patch_size,
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
        activation: after.activation,
        labels: (1..=u8::MAX)
            .zip(&labels)
            .map(|(value, name)| Label {
                threshold: after.threshold.unwrap_or_default(),
                ..Label::unexplained(value, name)
            })
            .collect(),
        mirror_axes: Vec::new(),
        keep_largest: Vec::new(),
        stages: Vec::new(),
        facts,
    })
}

/// In which order outputs are painted; empty where they cannot overlap.
fn order(
    place: &str,
    outputs: usize,
    after: &transforms::After,
    painted: Option<&[usize]>,
) -> Result<Vec<usize>, ImportError> {
    let several = after.activation == Activation::Sigmoid && outputs > 1;
    match painted {
        Some(order) if several => {
            let mut sorted = order.to_vec();
            sorted.sort_unstable();
            if sorted.into_iter().eq(0..outputs) {
                return Ok(order.to_vec());
            }
            Err(ImportError::damaged(
                "--painted",
                format!(
                    "it is {order:?}, expected each output from 0 to {} once",
                    outputs - 1
                ),
            ))
        }
        Some(_) => Err(ImportError::damaged(
            "--painted",
            "the outputs of this model cannot overlap; leave it out",
        )),
        None if several => Err(ImportError::unsupported(
            place,
            format!(
                "the network has {outputs} outputs that may overlap (sigmoid), a label map holds one label a voxel, and a bundle does not say which lies on top; say it with --painted, such as --painted {}, the last on top",
                (0..outputs).map(|k| k.to_string()).collect::<Vec<_>>().join(",")
            ),
        )),
        None if after.activation == Activation::Softmax && outputs < 2 => Err(ImportError::unsupported(
            place,
            format!("the network has {outputs} output; softmax and argmax need two or more"),
        )),
        None => Ok(Vec::new()),
    }
}

/// How a volume is cut for the network.
struct Tiles {
    /// Along the network's own axes.
    patch_size: Vec<usize>,
    overlap: [f64; 3],
    blend: Blend,
    slice_axis: Option<usize>,
}

/// Tile, overlap and weights of the sliding window.
fn inferer(config: &Config, axes: usize) -> Result<Tiles, ImportError> {
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
    let slice_axis = match (class.as_str(), axes) {
        ("SlidingWindowInferer", 3) => None,
        ("SliceInferer", 2) => Some(f.maybe::<usize>("spatial_dim")?.unwrap_or(0)),
        ("SlidingWindowInferer", 2) => {
            return Err(ImportError::unsupported(
                f.place(),
                "a network of two axes takes images of one slice this way, and an analysis has volumes; SliceInferer takes those slice by slice",
            ));
        }
        ("SliceInferer", _) => {
            return Err(ImportError::unsupported(
                f.place(),
                format!("the network has {axes} axes, slice by slice goes one of two"),
            ));
        }
        _ => {
            return Err(ImportError::unsupported(
                config.place(),
                format!("inferer `{class}`; this build knows SlidingWindowInferer and SliceInferer"),
            ));
        }
    };
    let patch: Vec<usize> = f.take("roi_size")?;
    if let Some(axis) = slice_axis.filter(|axis| *axis > 2) {
        return Err(ImportError::damaged(
            f.place(),
            format!("spatial_dim is {axis}, expected 0, 1 or 2"),
        ));
    }
    if patch.len() != axes {
        return Err(ImportError::damaged(
            f.place(),
            format!("roi_size is {patch:?}, expected {axes} sizes"),
        ));
    }
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
    Ok(Tiles {
        patch_size: patch,
        overlap,
        blend,
        slice_axis,
    })
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

    /// The names of all outputs, with softmax but the first, which is background.
    fn labels(&self, outputs: usize, activation: Activation) -> Result<Vec<String>, ImportError> {
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
        Ok((usize::from(activation == Activation::Softmax)..outputs)
            .map(name)
            .collect())
    }
}
