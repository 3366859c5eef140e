//! A folder of BLAST-CT: its `config.json` and the checkpoints of an ensemble → a trained model.
//!
//! Source: blast-ct 2.1.0 (`read_config.py`, `console_tool.py`, `trainer/inference.py`), read and run; Monteiro et al., doi:10.1016/S2589-7500(20)30085-6.

use super::{ImportError, Trained, fields::Fields, weights};
use crate::domain::{
    architecture::{Architecture, DeepMedic},
    plan::{Activation, Configuration, Ensemble, Grid, Label, Normalization},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What checkpoints end with.
const ENDINGS: [&str; 2] = ["torch_model", "pt"];

/// Whether a folder looks like BLAST-CT's.
pub(super) fn is_blast(folder: &Path) -> bool {
    let config = std::fs::read(folder.join("config.json")).ok();
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    config.is_some_and(|c| c.get("model").is_some() && c.get("data").is_some())
}

/// Reads the folder whole.
pub(super) fn read(folder: &Path) -> Result<Trained, ImportError> {
    let mut config = Fields::read(&folder.join("config.json"))?;
    // How it was trained says nothing of what it computes.
    config.ignore(&["training", "valid", "loss", "optimizer", "scheduler"]);
    let mut data = config.inner("data")?;
    data.expect("task", &[Value::Null, json!("segmentation")])?;
    data.ignore(&["target", "sampling_mask", "sample_weight"]);
    data.expect("channels", &[json!(["image"])])?;
    data.expect("input_channels", &[json!(1)])?;
    let names: Vec<String> = data.take("class_names")?;
    let num_classes: usize = data.take("num_classes")?;
    if names.len() != num_classes || num_classes < 2 {
        return Err(ImportError::damaged(
            data.place(),
            format!("it names {} classes and has {num_classes}", names.len()),
        ));
    }
    let spacing: [f64; 3] = data.take("resolution")?;
    let mut transforms = data.inner("transformation")?;
    let mut window = transforms.inner("IntensityWindowNormalization")?;
    transforms.finish()?;
    let window_hu: [f64; 2] = [window.take("lower_bound")?, window.take("upper_bound")?];
    window.expect("map_upper_bound_to_lower_bound", &[Value::Null, json!(false)])?;
    window.finish()?;
    data.finish()?;
    let mut model = config.inner("model")?;
    let mut network = model.inner("DeepMedic")?;
    model.finish()?;
    network.ignore(&["dropout"]);
    let mut given = serde_json::Map::new();
    for key in ["scale_factors", "feature_maps", "fully_connected"] {
        if let Some(value) = network.maybe(key)? {
            given.insert(key.to_owned(), value);
        }
    }
    let place = network.place().to_owned();
    network.finish()?;
    given.insert("input_channels".to_owned(), json!(1));
    given.insert("num_classes".to_owned(), json!(num_classes));
    let network: DeepMedic = serde_json::from_value(Value::Object(given))
        .map_err(|e| ImportError::damaged(&place, format!("it is not understood ({e})")))?;
    let mut test = config.inner("test")?;
    let patch: [usize; 3] = test.take("input_patch_size")?;
    config.finish()?;
    let Some(output) = network.output_size(patch) else {
        return Err(ImportError::damaged(
            test.place(),
            format!("input_patch_size {patch:?} is not one that the network takes whole"),
        ));
    };
    let architecture = Architecture::DeepMedic(network);
    let files = checkpoints(folder)?;
    let mut members = Vec::with_capacity(files.len());
    for file in &files {
        members.push(weights::read_state(file, &architecture)?);
    }
    let labels: Vec<Label> = (1..=u8::MAX)
        .zip(&names[1..])
        .map(|(value, name)| Label::unexplained(value, name))
        .collect();
    // SimpleITK counts x, y, z; the network's axes are z, y, x.
    let [x, y, z] = spacing;
    let facts = vec![
        ("labels".to_owned(), names[1..].join(", ")),
        (
            "values".to_owned(),
            format!("{} to {} HU become −1 to 1", window_hu[0], window_hu[1]),
        ),
        (
            "tiles".to_owned(),
            format!("of {patch:?} voxels, answers for the {output:?} in the middle"),
        ),
        (
            "axes that the file runs the other way".to_owned(),
            "one voxel beside their place, as BLAST-CT has them".to_owned(),
        ),
    ];
    Ok(Trained {
        name: "blast-ct".to_owned(),
        origin: "BLAST-CT".to_owned(),
        configuration: Configuration {
            grid: Grid::Window { window_hu },
            patch_size: patch.to_vec(),
            spacing: vec![z, y, x],
            normalization_schemes: vec![Normalization::NoNormalization],
            channel_names: vec!["CT".to_owned()],
            tile_step_size: 1.0,
            architecture,
        },
        members,
        ensemble: Ensemble::MeanProbabilities,
        activation: Activation::Softmax,
        labels,
        mirror_axes: Vec::new(),
        keep_largest: Vec::new(),
        stages: Vec::new(),
        facts,
    })
}

/// The checkpoints of the ensemble, in the order of their numbers.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let mut files: Vec<(u32, PathBuf)> = Vec::new();
    for place in [folder.join("saved_models"), folder.to_owned()] {
        for path in std::fs::read_dir(place)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
        {
            let ending = path.extension().map(|e| e.to_string_lossy().into_owned());
            if !ending.is_some_and(|e| ENDINGS.contains(&e.as_str())) {
                continue;
            }
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let number = stem.rsplit_once('_').and_then(|(_, digits)| digits.parse().ok());
            files.push((number.unwrap_or(u32::MAX), path));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(ImportError::damaged(
            folder.display().to_string(),
            "it has a config.json and no checkpoints (saved_models/model_1.torch_model, …)",
        ));
    }
    Ok(files.into_iter().map(|(_, path)| path).collect())
}
