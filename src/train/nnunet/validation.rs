//! A trained model and the cases that a member did not see → the Dice coefficient of each label.
//!
//! Each member predicts the cases of its own fold alone, through the stages that `ictus analyze` runs, on the grid that the case was read on.
//! What comes out is about one member a case; the ensemble, which has no case that it did not see, may be better and was not measured.
//! A model without folds saw every case: then there is nothing to measure, and that is said.

use super::{patches::fold_of, raw::RawDataset};
use crate::{
    analysis::{
        self,
        infer::{Engine, bundle::Bundle},
    },
    domain::{
        device::DeviceChoice,
        network::Unattended,
        plan::{Plan, Provenance},
    },
    train::{TrainError, labelled::Region, loss::IGNORE, training::write},
};
use candle_core::{Device, Tensor};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// `validation.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// What these numbers are about.
    pub about: String,
    /// Mean Dice of each label over the cases that have it or were said to; null when there is none.
    pub mean_dice: BTreeMap<String, Option<f64>>,
    /// Each case.
    pub cases: Vec<ValidatedCase>,
}

/// One held-out case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValidatedCase {
    /// Its name.
    pub name: String,
    /// The member that predicted it.
    pub member: usize,
    /// Dice of each label; null when neither truth nor prediction has it.
    pub dice: BTreeMap<String, Option<f64>>,
}

/// Predicts every case by a member that did not see it, and writes `OUT/validation.json`.
///
/// # Errors
/// When the model or a case cannot be read, or a stage fails.
pub fn validate(
    dataset: &RawDataset,
    out: &Path,
    folds: usize,
    from: Option<&Plan>,
    device: DeviceChoice,
    mut tell: impl FnMut(&ValidatedCase, usize),
) -> Result<Validation, TrainError> {
    let bundle = Bundle::read(out)?;
    let mut cases = Vec::new();
    // With one fold, every member saw every case.
    let judged = if folds > 1 {
        bundle.plan.members.min(folds)
    } else {
        0
    };
    for member in 0..judged {
        let engine = Engine::start(&[alone(&bundle, member)?], device)?;
        let model = engine.model(&bundle.plan.id)?;
        for (i, raw) in dataset.cases.iter().enumerate() {
            if fold_of(i, dataset.cases.len(), folds) != member {
                continue;
            }
            let case = dataset
                .read(raw)
                .map_err(|fault| TrainError::Dataset(vec![fault]))?;
            let seen = analysis::predict(&case.scan, &engine, model, &Unattended).map_err(|what| {
                TrainError::Mismatch(format!("case {} cannot be predicted: {what}", raw.name))
            })?;
            let done = ValidatedCase {
                name: raw.name.clone(),
                member,
                dice: dice(&dataset.regions, &case.labels.data, &seen.labels.data),
            };
            tell(&done, dataset.cases.len());
            cases.push(done);
        }
    }
    let names: Vec<&String> = bundle.plan.labels.iter().map(|l| &l.name).collect();
    let mean = |name: &str| {
        let all: Vec<f64> = cases.iter().filter_map(|case| case.dice[name]).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    };
    let about = if judged == 0 {
        "Every case was used for training (--folds 1): nothing was held out, and nothing is known of how well the model does.".to_owned()
    } else {
        format!(
            "{} of {} cases, each predicted by the one member that was not trained on it. The ensemble was not measured, and no patients of other hospitals were.{}{}",
            cases.len(),
            dataset.cases.len(),
            if dataset.ignore().is_some() {
                " Only labelled voxels count: what was found where nobody labelled is not held against it."
            } else {
                ""
            },
            match from.filter(|plan| plan.provenance == Provenance::Dataset) {
                None => String::new(),
                Some(plan) => format!(
                    " Training started from {}, which was trained on scans itself: where these are among them, it has seen what is held out here, and the Dice is too high.",
                    plan.id
                ),
            }
        )
    };
    let validation = Validation {
        about,
        mean_dice: names.into_iter().map(|name| (name.clone(), mean(name))).collect(),
        cases,
    };
    let path = out.join("validation.json");
    let text = serde_json::to_vec_pretty(&validation)
        .map_err(|e| TrainError::Mismatch(format!("{}: {e}", path.display())))?;
    write(&path, &text)?;
    Ok(validation)
}

/// A model of one of a model's members.
fn alone(bundle: &Bundle, member: usize) -> Result<Bundle, TrainError> {
    let load = |bytes: &[u8]| candle_core::safetensors::load_buffer(bytes, &Device::Cpu);
    let prefix = format!("member_{member}.");
    let weights: BTreeMap<String, Tensor> = load(&bundle.weights)?
        .into_iter()
        .filter_map(|(name, tensor)| Some((format!("member_0.{}", name.strip_prefix(&prefix)?), tensor)))
        .collect();
    let golden: BTreeMap<String, Tensor> = load(&bundle.golden)?
        .into_iter()
        .filter_map(|(name, tensor)| match name.as_str() {
            "input" => Some((name, tensor)),
            logits if logits == format!("logits_{member}") => Some(("logits_0".into(), tensor)),
            _ => None,
        })
        .collect();
    let bytes = |tensors: &BTreeMap<String, Tensor>| {
        safetensors::serialize(tensors, None)
            .map_err(|e| TrainError::Mismatch(format!("member {member}: {e}")))
    };
    Ok(Bundle {
        plan: Plan {
            members: 1,
            ..bundle.plan.clone()
        },
        weights: bytes(&weights)?,
        golden: bytes(&golden)?,
        calibration_digest: None,
    })
}

fn dice(regions: &[Region], truth: &[u8], found: &[u8]) -> BTreeMap<String, Option<f64>> {
    let of = |region: &Region| {
        let is_in = |value: &u8| region.values.contains(value);
        let (mut both, mut sum) = (0usize, 0usize);
        for (t, f) in truth.iter().zip(found).filter(|(t, _)| **t != IGNORE) {
            both += usize::from(is_in(t) && is_in(f));
            sum += usize::from(is_in(t)) + usize::from(is_in(f));
        }
        (sum > 0).then(|| 2.0 * both as f64 / sum as f64)
    };
    regions
        .iter()
        .map(|region| (region.name.clone(), of(region)))
        .collect()
}
