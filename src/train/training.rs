//! The loop: plan and seed → a model's folder, member by member, resumable to the step.
//!
//! State lies in `OUT/checkpoint/member_{i}.safetensors` with its step in the metadata; a finished model's folder needs it no more.
//! A run that finds a checkpoint of the same recipe goes on after its step and ends with the same weights as one that was never stopped.

use super::{
    TrainError, dataset,
    loss::dice_and_cross_entropy,
    optimizer::{AdamW, schedule},
};
use crate::{
    domain::plan::Plan,
    nn::{network::Network, parameters::Parameters},
};
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// How to train.
#[derive(Debug, Clone)]
pub struct Config {
    /// The model's plan.
    pub plan: Plan,
    /// Where the model's folder goes.
    pub out: PathBuf,
    /// Steps a member.
    pub steps: usize,
    /// Samples a step.
    pub batch: usize,
    /// First seed; members differ in theirs.
    pub seed: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
}

/// What is told after each step.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Which member.
    pub member: usize,
    /// Steps of this member that are done.
    pub step: usize,
    /// Loss of the step.
    pub loss: f32,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

impl Config {
    fn recipe(&self, member: usize) -> String {
        // Whatever changes the numbers; a checkpoint of another recipe is refused.
        format!(
            "{} {:?} steps {} batch {} seed {} member {member} lr {} decay {}",
            self.plan.id,
            self.plan.configuration,
            self.steps,
            self.batch,
            self.seed,
            self.learning_rate,
            self.weight_decay
        )
    }

    fn checkpoint(&self, member: usize) -> PathBuf {
        self.out
            .join("checkpoint")
            .join(format!("member_{member}.safetensors"))
    }
}

/// Trains all members and writes the model's folder.
///
/// # Errors
/// What stopped it; a later call goes on from the last checkpoint.
pub fn train(config: &Config, device: &Device, mut tell: impl FnMut(Progress)) -> Result<(), TrainError> {
    let folder = config.out.join("checkpoint");
    fs::create_dir_all(&folder).map_err(|e| TrainError::file(&folder, e))?;
    let mut weights = BTreeMap::new();
    let mut networks = Vec::with_capacity(config.plan.members);
    for member in 0..config.plan.members {
        let (network, parameters) = train_member(config, member, device, &mut tell)?;
        for (name, tensor) in parameters {
            weights.insert(format!("member_{member}.{name}"), tensor);
        }
        networks.push(network);
    }
    let golden = golden(config, &networks, device)?;
    save(&config.out.join("weights.safetensors"), &weights, None)?;
    save(&config.out.join("golden.safetensors"), &golden, None)?;
    let plan = serde_json::to_string_pretty(&config.plan)
        .map_err(|e| TrainError::Mismatch(format!("the plan cannot be written: {e}")))?;
    write(&config.out.join("plan.json"), plan.as_bytes())
}

type Trained = (Network, BTreeMap<String, Tensor>);

fn train_member(
    config: &Config,
    member: usize,
    device: &Device,
    tell: &mut impl FnMut(Progress),
) -> Result<Trained, TrainError> {
    let seed = config.seed.wrapping_mul(1000) + member as u64;
    let mut parameters = Parameters::trainable(seed, device);
    let network = Network::new(&config.plan.configuration.architecture, &mut parameters)?;
    let Parameters::Trainable { vars, .. } = parameters else {
        return Err(TrainError::Mismatch("trainable parameters were asked for".into()));
    };
    let mut optimizer = AdamW::new(vars.clone(), config.weight_decay)?;
    let path = config.checkpoint(member);
    let done = resume(config, member, &path, &mut optimizer, device)?;
    for step in done..config.steps {
        let batch = dataset::batch(&config.plan, seed, step, config.batch, device)?;
        let loss = dice_and_cross_entropy(&network.forward(&batch.input)?, &batch.truth)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(TrainError::Diverged { member, step });
        }
        let learning_rate = schedule(step, config.steps, config.learning_rate);
        optimizer.step(&loss.backward()?, step + 1, learning_rate)?;
        tell(Progress {
            member,
            step: step + 1,
            loss: value,
            learning_rate,
        });
        if (step + 1) % config.checkpoint_every == 0 || step + 1 == config.steps {
            let about = HashMap::from([
                ("recipe".to_owned(), config.recipe(member)),
                ("step".to_owned(), (step + 1).to_string()),
            ]);
            save(&path, &optimizer.state()?, Some(about))?;
        }
    }
    let tensors = vars
        .into_iter()
        .map(|(name, var)| (name, var.as_tensor().clone()))
        .collect();
    Ok((network, tensors))
}

/// The steps that a checkpoint has done, with its state taken over; 0 without one.
fn resume(
    config: &Config,
    member: usize,
    path: &Path,
    optimizer: &mut AdamW,
    device: &Device,
) -> Result<usize, TrainError> {
    if !path.exists() {
        return Ok(0);
    }
    let bytes = fs::read(path).map_err(|e| TrainError::file(path, e))?;
    let broken =
        |what: &str| TrainError::Mismatch(format!("{}: {what}; delete it to start again", path.display()));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|_| broken("the checkpoint is damaged"))?;
    let about = header.metadata().clone().unwrap_or_default();
    if about.get("recipe") != Some(&config.recipe(member)) {
        return Err(broken("the checkpoint is of another recipe"));
    }
    let step = about
        .get("step")
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| broken("the checkpoint does not say its step"))?;
    let state = candle_core::safetensors::load_buffer(&bytes, device)?;
    optimizer.restore(&state.into_iter().collect())?;
    Ok(step)
}

/// A fixed input and what each member answers: what every machine is held to.
fn golden(
    config: &Config,
    networks: &[Network],
    device: &Device,
) -> Result<BTreeMap<String, Tensor>, TrainError> {
    // A part of a tile keeps the file small and still runs every layer.
    let batch = dataset::batch(
        &config.plan,
        config.seed,
        usize::MAX / 4 / config.batch,
        1,
        device,
    )?;
    let (_, _, rows, columns) = batch.input.dims4()?;
    let (high, wide) = (rows.min(96), columns.min(96));
    let input = batch
        .input
        .narrow(2, (rows - high) / 2, high)?
        .narrow(3, (columns - wide) / 2, wide)?
        .contiguous()?;
    let mut golden = BTreeMap::new();
    for (i, network) in networks.iter().enumerate() {
        golden.insert(format!("logits_{i}"), network.forward(&input)?);
    }
    golden.insert("input".into(), input);
    Ok(golden)
}

/// Writes tensors whole or not at all.
fn save(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    about: Option<HashMap<String, String>>,
) -> Result<(), TrainError> {
    let bytes = safetensors::serialize(tensors, about)
        .map_err(|e| TrainError::Mismatch(format!("{}: {e}", path.display())))?;
    write(path, &bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let partial = path.with_extension("tmp");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|e| TrainError::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::infer::bundle::Bundle, domain::architecture::Architecture, train::recipe::haemorrhage_2d,
    };

    fn small(out: &Path) -> Config {
        let mut plan = haemorrhage_2d(1);
        plan.configuration.patch_size = vec![96, 96];
        let Architecture::PlainConvUNet(network) = &mut plan.configuration.architecture else {
            panic!("the recipe is a plain U-Net")
        };
        network.features_per_stage = vec![16; 5];
        Config {
            plan,
            out: out.into(),
            steps: 6,
            batch: 1,
            seed: 3,
            learning_rate: 1e-3,
            weight_decay: 1e-2,
            checkpoint_every: 2,
        }
    }

    #[test]
    fn a_run_that_was_stopped_ends_with_the_same_weights() {
        let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        train(&small(whole.path()), &Device::Cpu, |_| {}).unwrap();
        let config = small(stopped.path());
        let stop = std::panic::AssertUnwindSafe(|| {
            train(&config, &Device::Cpu, |p| assert!(p.step < 5, "stop here"))
        });
        std::panic::catch_unwind(stop).unwrap_err();
        let mut steps = Vec::new();
        train(&config, &Device::Cpu, |p| steps.push(p.step)).unwrap();
        assert_eq!(steps, [5, 6]);
        let weights = |dir: &Path| fs::read(dir.join("weights.safetensors")).unwrap();
        assert_eq!(weights(whole.path()), weights(stopped.path()));
    }

    #[test]
    fn what_was_trained_loads_and_reproduces_its_golden_patch() {
        let out = tempfile::tempdir().unwrap();
        train(&small(out.path()), &Device::Cpu, |_| {}).unwrap();
        let mut bundle = Bundle::read(out.path()).unwrap();
        let model = bundle.load(&Device::Cpu).unwrap();
        assert!(bundle.check(&model, &Device::Cpu).unwrap() < 1e-5);
        // One changed weight is noticed.
        let at = bundle.weights.len() - 6;
        bundle.weights[at] ^= 0x40;
        let other = bundle.load(&Device::Cpu).unwrap();
        assert!(bundle.check(&other, &Device::Cpu).is_err());
    }

    #[test]
    fn refuses_a_checkpoint_of_another_recipe() {
        let out = tempfile::tempdir().unwrap();
        let mut config = small(out.path());
        train(&config, &Device::Cpu, |_| {}).unwrap();
        config.seed = 4;
        let error = train(&config, &Device::Cpu, |_| {}).unwrap_err();
        assert!(error.to_string().contains("another recipe"), "{error}");
    }
}
