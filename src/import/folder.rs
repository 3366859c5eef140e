//! A [`Trained`] model → its folder, written whole or not at all.

use super::{ImportError, Imported, Request, Trained, card};
use crate::{
    domain::{
        architecture::Architecture,
        plan::{Contrast, Golden, Plan, Precision, Provenance, SCHEMA, Stage, Trigger},
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
    plan.check()
        .map_err(|what| ImportError::damaged(&trained.name, what))?;
    let (mut golden, mut weights, mut difference) = (BTreeMap::new(), BTreeMap::new(), 0.0f64);
    let stages = trained.stages.iter().enumerate();
    let all = stages
        .map(|(s, stage)| (format!("stage_{s}."), stage))
        .chain([(String::new(), &trained)]);
    for (prefix, trained) in all {
        let input = golden_input(trained)?;
        for (i, tensors) in trained.members.iter().enumerate() {
            let (logits, worst) = answer(trained, tensors, &input)?;
            if worst.is_nan() || worst > TOLERANCE {
                return Err(ImportError::Network(format!(
                    "{prefix}member {i}: the fast kernels and the plain operators differ by {worst:.1e} on this machine, at most {TOLERANCE:.0e} is allowed"
                )));
            }
            difference = difference.max(worst);
            golden.insert(format!("{prefix}logits_{i}"), logits);
            for (key, tensor) in tensors {
                weights.insert(format!("{prefix}member_{i}.{key}"), tensor.clone());
            }
        }
        golden.insert(format!("{prefix}input"), input);
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
    let architecture = &trained.configuration.architecture;
    let mut dims = vec![1, architecture.input_channels()];
    for (size, divisor) in trained
        .configuration
        .patch_size
        .iter()
        .zip(architecture.divisors())
    {
        let least = match architecture {
            // One more than what is lost at the borders.
            Architecture::DeepMedic(a) => (2 * a.feature_maps.len() + 1) * divisor,
            _ => (2 * divisor).max(8).next_multiple_of(divisor),
        };
        dims.push(least.min(*size));
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
        let network = Network::new(
            &trained.configuration.architecture,
            &mut Parameters::Loaded(tensors.clone()),
        )?;
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
    Plan {
        schema: SCHEMA,
        id: id.to_owned(),
        version: "imported".to_owned(),
        question: "segmentation".to_owned(),
        configuration: trained.configuration.clone(),
        members: trained.members.len(),
        ensemble: trained.ensemble,
        activation: trained.activation,
        labels: trained.labels.clone(),
        structures: Vec::new(),
        keep_largest: trained.keep_largest.clone(),
        stages: trained
            .stages
            .iter()
            .map(|stage| Stage {
                configuration: stage.configuration.clone(),
                members: stage.members.len(),
                mirror_axes: stage.mirror_axes.clone(),
            })
            .collect(),
        provenance: Provenance::Imported,
        // No series asks for an imported model by itself: nobody here knows what it is for.
        trigger: Trigger {
            modality: "CT".to_owned(),
            contrast: Contrast::Any,
            thickness_mm: [0.0, 0.0],
            body_part: "HEAD".to_owned(),
            only_named: false,
            brain_hu: None,
            noise_hu: None,
        },
        mirror_axes: trained.mirror_axes.clone(),
        precision: Precision::F32,
        calibration: None,
        golden: Golden {
            tolerance: [("f32".to_owned(), TOLERANCE)].into(),
        },
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
