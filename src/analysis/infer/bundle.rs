//! A model's folder: `plan.json`, `weights.safetensors`, `golden.safetensors` and, where there is one, `calibration.json` → a checked [`Model`].

use super::InferError;
use crate::{
    domain::{
        calibration::Calibration,
        plan::{Plan, Precision, SCHEMA},
    },
    nn::{self, network::Network, parameters::Parameters},
};
use candle_core::{DType, Device, Tensor, safetensors};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// What scores mean, beside the plan.
pub const CALIBRATION: &str = "calibration.json";

/// The files of a model, as bytes.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The parsed plan.
    pub plan: Plan,
    /// `weights.safetensors`
    pub weights: Vec<u8>,
    /// `golden.safetensors`: `input` and `logits_{member}`.
    pub golden: Vec<u8>,
    /// SHA-256 of `calibration.json`, if there is one; what it says is the plan's.
    pub calibration_digest: Option<[u8; 32]>,
}

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    /// Its plan.
    pub plan: Plan,
    /// SHA-256 of `weights.safetensors`, hexadecimal.
    pub weights_sha256: String,
    /// SHA-256 over plan and weights, without the calibration: the model's part of an analysis key.
    pub digest: [u8; 32],
    /// SHA-256 of `calibration.json`, if there is one.
    pub calibration_digest: Option<[u8; 32]>,
    /// One network a member.
    pub(super) members: Vec<Network>,
    /// The earlier stages of a cascade, the first one first.
    pub stages: Vec<Arc<Model>>,
}

impl Model {
    /// What it multiplies on a device: what the plan asks for, or f32 where the device cannot.
    pub(super) fn precision_on(&self, device: &Device) -> candle_core::Result<Precision> {
        nn::precision_on(device, self.plan.precision)
    }

    /// Logits of one member.
    pub(super) fn forward(&self, member: &Network, x: &Tensor) -> candle_core::Result<Tensor> {
        nn::with_precision(self.precision_on(x.device())?, || member.forward(x))
    }
}

impl Bundle {
    /// Reads a model's folder.
    ///
    /// # Errors
    /// Names the file that is missing or not understood.
    pub fn read(folder: &Path) -> Result<Self, InferError> {
        let file = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| InferError::Read {
                path: path.display().to_string(),
                source,
            })
        };
        let mut bundle = Self::parse(
            &file("plan.json")?,
            file("weights.safetensors")?,
            file("golden.safetensors")?,
        )?;
        if folder.join(CALIBRATION).exists() {
            bundle.calibrate(&file(CALIBRATION)?)?;
        }
        Ok(bundle)
    }

    /// The same from bytes.
    ///
    /// # Errors
    /// Says what in the plan is not understood.
    pub fn parse(plan: &[u8], weights: Vec<u8>, golden: Vec<u8>) -> Result<Self, InferError> {
        let wrong = |what: String| InferError::Model { id: "?".into(), what };
        let plan: Plan =
            serde_json::from_slice(plan).map_err(|e| wrong(format!("plan.json is not understood: {e}")))?;
        if plan.schema != SCHEMA {
            let what = format!("plan.json has schema {}, this build reads {SCHEMA}", plan.schema);
            return Err(InferError::Model { id: plan.id, what });
        }
        if let Err(what) = plan.check() {
            let what = format!("plan.json contradicts itself: {what}");
            return Err(InferError::Model { id: plan.id, what });
        }
        if plan.calibration.is_some() {
            let what = format!("plan.json holds a calibration; it belongs into {CALIBRATION} beside it");
            return Err(InferError::Model { id: plan.id, what });
        }
        Ok(Self {
            plan,
            weights,
            golden,
            calibration_digest: None,
        })
    }

    /// Takes over a `calibration.json`.
    ///
    /// # Errors
    /// When it is not understood, or of another model.
    pub fn calibrate(&mut self, json: &[u8]) -> Result<(), InferError> {
        let calibration: Result<Calibration, String> =
            serde_json::from_slice(json).map_err(|e| format!("it is not understood: {e}"));
        let checked = calibration.and_then(|calibration| {
            calibration.check(&self.plan.id, &hex::encode(self.digest()?))?;
            Ok(calibration)
        });
        self.plan.calibration = Some(checked.map_err(|what| InferError::Model {
            id: self.plan.id.clone(),
            what: format!("{CALIBRATION} cannot be used: {what}"),
        })?);
        self.calibration_digest = Some(Sha256::digest(json).into());
        Ok(())
    }

    /// SHA-256 over plan and weights, without the calibration.
    fn digest(&self) -> Result<[u8; 32], String> {
        let uncalibrated = Plan {
            calibration: None,
            ..self.plan.clone()
        };
        let plan =
            serde_json::to_vec(&uncalibrated).map_err(|e| format!("the plan cannot be written: {e}"))?;
        let mut digest = Sha256::new();
        digest.update(plan);
        digest.update(&self.weights);
        Ok(digest.finalize().into())
    }

    /// SHA-256 of the weights, hexadecimal.
    #[must_use]
    pub fn weights_sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.weights))
    }

    /// Builds the networks on a device.
    ///
    /// # Errors
    /// Says which parameter is missing, superfluous or of another shape.
    pub fn load(&self, device: &Device) -> Result<Model, InferError> {
        let id = &self.plan.id;
        let wrong = |what: String| InferError::Model { id: id.clone(), what };
        let tensors = safetensors::load_buffer(&self.weights, device).map_err(|e| InferError::network(&e))?;
        let stages: Vec<Plan> = (0..).map_while(|s| self.plan.of_stage(s)).collect();
        let mut by_stage: Vec<BTreeMap<String, Tensor>> = vec![BTreeMap::new(); stages.len() + 1];
        for (name, tensor) in tensors {
            // Files may be in half precision; networks compute in single.
            let tensor = tensor.to_dtype(DType::F32).map_err(|e| InferError::network(&e))?;
            let slot = name.strip_prefix("stage_").and_then(|rest| rest.split_once('.'));
            let slot = slot.and_then(|(s, key)| {
                let stage = s.parse::<usize>().ok().filter(|s| *s < stages.len())?;
                Some((stage, key.to_owned()))
            });
            let (stage, key) = slot.unwrap_or((stages.len(), name));
            by_stage[stage].insert(key, tensor);
        }
        let (digest, weights_sha256) = (self.digest().map_err(wrong)?, self.weights_sha256());
        let mut models = Vec::with_capacity(by_stage.len());
        for (plan, tensors) in stages.into_iter().chain([self.plan.clone()]).zip(by_stage) {
            models.push(Model {
                members: networks(&plan, tensors).map_err(wrong)?,
                plan,
                weights_sha256: weights_sha256.clone(),
                digest,
                calibration_digest: self.calibration_digest,
                stages: Vec::new(),
            });
        }
        let mut model = models.pop().ok_or_else(|| wrong("it has no network".into()))?;
        model.stages = models.into_iter().map(Arc::new).collect();
        Ok(model)
    }

    /// Largest absolute difference between the golden logits and what `model` answers on this machine.
    ///
    /// # Errors
    /// When the golden file lacks a tensor, or the model does not reproduce it within the plan's tolerance for the precision that it runs in.
    pub fn check(&self, model: &Model, device: &Device) -> Result<f64, InferError> {
        let wrong = |what: String| InferError::Model {
            id: self.plan.id.clone(),
            what,
        };
        let golden = safetensors::load_buffer(&self.golden, device).map_err(|e| InferError::network(&e))?;
        let tensor = |name: String| {
            golden
                .get(&name)
                .ok_or_else(|| wrong(format!("golden.safetensors has no {name:?}")))
        };
        let tolerance = |precision: Precision| {
            let name = precision.name();
            let given = self.plan.golden.tolerance.get(name).copied();
            given.ok_or_else(|| wrong(format!("the plan has no golden tolerance for {name}")))
        };
        // The error of what the plan asks for is stated, whatever this machine can.
        tolerance(self.plan.precision)?;
        let precision = model.precision_on(device).map_err(|e| InferError::network(&e))?;
        let tolerance = tolerance(precision)?;
        let stages = model.stages.iter().map(AsRef::as_ref).enumerate();
        let all = stages
            .map(|(s, stage)| (format!("stage_{s}."), stage))
            .chain([(String::new(), model)]);
        let mut worst = 0.0f64;
        for (prefix, stage) in all {
            let input = tensor(format!("{prefix}input"))?;
            for (i, member) in stage.members.iter().enumerate() {
                let expected = tensor(format!("{prefix}logits_{i}"))?;
                let found = stage
                    .forward(member, input)
                    .map_err(|e| InferError::network(&e))?;
                let difference = (found - expected)
                    .and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>())
                    .map_err(|e| InferError::network(&e))?;
                worst = worst.max(f64::from(difference));
                if difference.is_nan() || f64::from(difference) > tolerance {
                    return Err(wrong(format!(
                        "{prefix}member {i} differs from its golden patch by {difference}, at most {tolerance} is allowed; it does not serve"
                    )));
                }
            }
        }
        Ok(worst)
    }
}

/// One network a member, from tensors named `member_{i}.…`.
fn networks(plan: &Plan, tensors: BTreeMap<String, Tensor>) -> Result<Vec<Network>, String> {
    let mut by_member: Vec<BTreeMap<String, Tensor>> = vec![BTreeMap::new(); plan.members];
    for (name, tensor) in tensors {
        let slot = name.strip_prefix("member_").and_then(|rest| rest.split_once('.'));
        let slot = slot.and_then(|(i, key)| Some((by_member.get_mut(i.parse::<usize>().ok()?)?, key)));
        let Some((member, key)) = slot else {
            return Err(format!(
                "the weights hold {name:?}, the plan has {} members",
                plan.members
            ));
        };
        member.insert(key.to_owned(), tensor);
    }
    by_member
        .into_iter()
        .map(|tensors| {
            Network::new(&plan.configuration.architecture, &mut Parameters::Loaded(tensors))
                .map_err(|e| e.to_string())
        })
        .collect()
}
