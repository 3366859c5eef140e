//! A [`Trained`] model → its folder, written whole or not at all.

use super::{ImportError, Imported, Request, Trained, card, nnunet::Labels};
use crate::{
    domain::plan::{
        Activation, Configuration, Contrast, Ensemble, Golden, Grid, Label, Plan, Provenance, SCHEMA, Trigger,
    },
    nn::{network::Network, parameters::Parameters},
};
use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// How closely a machine must reproduce the golden logits (the project's rule for f32).
const TOLERANCE: f64 = 1e-4;
/// Longest id, so that it is a file name everywhere.
const LONGEST_ID: usize = 64;
/// Seed of the golden input; any would do.
const SEED: u64 = 1;
/// nnU-Net's share of a tile by which the next one moves.
const TILE_STEP_SIZE: f64 = 0.5;

/// Checks the networks, makes the golden patch, and writes everything.
pub(super) fn write(request: &Request, trained: Trained) -> Result<Imported, ImportError> {
    let id = match &request.id {
        Some(id) => id.clone(),
        None => spelled(&trained.name),
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if id.is_empty() || id.len() > LONGEST_ID || !id.chars().all(allowed) || id.starts_with('-') {
        return Err(ImportError::damaged(
            "--id",
            format!("{id:?} is no id: 1 to {LONGEST_ID} of a-z, 0-9 and -, not beginning with -"),
        ));
    }
    let folder = request.out.join(&id);
    if folder.exists() {
        return Err(ImportError::damaged(
            folder.display().to_string(),
            "it is there already; remove it or choose another --id",
        ));
    }
    let plan = plan(&id, &trained);
    let input = golden_input(&trained)?;
    let mut golden = BTreeMap::from([("input".to_owned(), input.clone())]);
    let mut weights = BTreeMap::new();
    let mut difference = 0.0f64;
    for (i, tensors) in trained.members.iter().enumerate() {
        let (logits, worst) = answer(&trained, tensors, &input)?;
        if worst.is_nan() || worst > TOLERANCE {
            return Err(ImportError::Network(format!(
                "member {i}: the fast kernels and the plain operators differ by {worst:.1e} on this machine, at most {TOLERANCE:.0e} is allowed"
            )));
        }
        difference = difference.max(worst);
        golden.insert(format!("logits_{i}"), logits);
        for (key, tensor) in tensors {
            weights.insert(format!("member_{i}.{key}"), tensor.clone());
        }
    }
    let members = trained.members.len();
    let card = card::text(&plan, &trained, difference);
    let partial = request.out.join(format!(".{id}.partial"));
    let written = fill(&partial, &plan, &weights, &golden, &card)
        .and_then(|()| fs::rename(&partial, &folder).map_err(|source| file(&folder, source)));
    if written.is_err() {
        // What is half there would look like a model.
        let _gone = fs::remove_dir_all(&partial);
    }
    written?;
    Ok(Imported {
        id,
        folder,
        members,
        difference,
    })
}

fn file(path: &Path, source: std::io::Error) -> ImportError {
    ImportError::File {
        path: path.display().to_string(),
        source,
    }
}

fn fill(
    folder: &Path,
    plan: &Plan,
    weights: &BTreeMap<String, Tensor>,
    golden: &BTreeMap<String, Tensor>,
    card: &str,
) -> Result<(), ImportError> {
    fs::create_dir_all(folder).map_err(|source| file(folder, source))?;
    let plan = serde_json::to_vec_pretty(plan)
        .map_err(|e| ImportError::Network(format!("the plan cannot be written: {e}")))?;
    let tensors = |tensors: &BTreeMap<String, Tensor>| {
        safetensors::serialize(tensors, None)
            .map_err(|e| ImportError::Network(format!("the tensors cannot be written: {e}")))
    };
    let files: [(&str, Vec<u8>); 4] = [
        ("plan.json", plan),
        ("weights.safetensors", tensors(weights)?),
        ("golden.safetensors", tensors(golden)?),
        ("card.md", card.as_bytes().to_vec()),
    ];
    for (name, bytes) in files {
        let path: PathBuf = folder.join(name);
        fs::write(&path, bytes).map_err(|source| file(&path, source))?;
    }
    Ok(())
}

/// A name as an id: lower case, everything else a dash.
fn spelled(name: &str) -> String {
    let dashed: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    dashed
        .split('-')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// Normal noise, as normalised images roughly are, two voxels wide at the lowest level.
fn golden_input(trained: &Trained) -> Result<Tensor, ImportError> {
    let mut dims = vec![1, trained.architecture.input_channels()];
    for (size, divisor) in trained.patch_size.iter().zip(trained.architecture.divisors()) {
        dims.push((2 * divisor).max(8).next_multiple_of(divisor).min(*size));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    // The sum of twelve uniform numbers less six has variance one.
    let values: Vec<f32> = (0..dims.iter().product())
        .map(|_| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0)
        .collect();
    Tensor::from_vec(values, dims, &Device::Cpu).map_err(|e| ImportError::network(&e))
}

/// Logits of one member, and by how much the plain operators differ from them.
fn answer(
    trained: &Trained,
    tensors: &BTreeMap<String, Tensor>,
    input: &Tensor,
) -> Result<(Tensor, f64), ImportError> {
    let run = || {
        let network = Network::new(&trained.architecture, &mut Parameters::Loaded(tensors.clone()))?;
        let logits = network.forward(input)?;
        let plain = network.forward_plain(input)?;
        let difference = (&logits - plain)?
            .abs()?
            .flatten_all()?
            .max(0)?
            .to_scalar::<f32>()?;
        Ok((logits, f64::from(difference)))
    };
    run().map_err(|e: candle_core::Error| ImportError::network(&e))
}

fn plan(id: &str, trained: &Trained) -> Plan {
    let recipe = &trained.recipe;
    let activation = match recipe.labels {
        Labels::Exclusive(_) => Activation::Softmax,
        Labels::Regions(_) => Activation::Sigmoid,
    };
    Plan {
        schema: SCHEMA,
        id: id.to_owned(),
        version: "imported".to_owned(),
        question: "segmentation".to_owned(),
        configuration: Configuration {
            grid: Grid::Volume {
                transpose_forward: recipe.transpose_forward,
                use_mask_for_norm: recipe.channels.iter().map(|c| c.use_mask).collect(),
                resampling_data: recipe.resampling_data,
                resampling_probabilities: recipe.resampling_probabilities,
            },
            patch_size: trained.patch_size.clone(),
            spacing: recipe.spacing.clone(),
            normalization_schemes: recipe.channels.iter().map(|c| c.normalization.clone()).collect(),
            channel_names: recipe.channels.iter().map(|c| c.name.clone()).collect(),
            tile_step_size: TILE_STEP_SIZE,
            architecture: trained.architecture.clone(),
        },
        members: trained.members.len(),
        // nnU-Net averages the logits of its folds.
        ensemble: Ensemble::MeanLogits,
        activation,
        labels: labels(&recipe.labels),
        keep_largest: recipe.keep_largest.clone(),
        provenance: Provenance::Imported,
        // No series asks for an imported model by itself: nobody here knows what it is for.
        trigger: Trigger {
            modality: "CT".to_owned(),
            contrast: Contrast::Any,
            thickness_mm: [0.0, 0.0],
            body_part: "HEAD".to_owned(),
        },
        mirror_axes: recipe.mirror_axes.clone(),
        calibration: None,
        golden: Golden {
            tolerance: [("f32".to_owned(), TOLERANCE)].into(),
        },
    }
}

fn labels(labels: &Labels) -> Vec<Label> {
    match labels {
        Labels::Exclusive(names) => (1..=u8::MAX)
            .zip(names)
            .map(|(value, name)| Label::unexplained(value, name))
            .collect(),
        Labels::Regions(regions) => regions
            .iter()
            .map(|r| Label::unexplained(r.value, &r.name))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::spelled;

    #[test]
    fn an_id_is_made_of_the_models_own_name() {
        assert_eq!(
            spelled("Dataset901_SynthHead-3d_fullres"),
            "dataset901-synthhead-3d-fullres"
        );
        assert_eq!(spelled("__Ä b"), "b");
    }
}
