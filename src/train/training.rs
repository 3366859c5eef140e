//! The loop: plan and seed → a model's folder, member by member, resumable to the step.
//!
//! Members may share a trunk: its steps are done once, at a level learning rate, and each member then goes its own way with samples of its own while the rate falls.
//! That costs a fraction of independent members, and they agree more than independent ones would: the plan's card says which it was.
//! State lies in `OUT/checkpoint/{trunk,member_i}.safetensors` with its step in the metadata; a finished model's folder needs it no more.
//! A run that finds a checkpoint of the same recipe goes on after its step and ends with the same weights as one that was never stopped.
//! The next batch is drawn while the network works on this one.

use super::{
    TrainError,
    dataset::{self, Batch, Draw, Samples},
    loss::{self, Loss},
    optimizer::{AdamW, Schedule},
    start::{ENCODER, Start},
};
use crate::{
    domain::{
        architecture::Architecture,
        plan::{Activation, Plan, Precision},
    },
    nn::{self, network::Network, parameters::Parameters},
};
use candle_core::{DType, Device, Tensor, backprop::GradStore};
use safetensors::SafeTensors;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// How to train.
#[derive(Debug, Clone)]
pub struct Config {
    /// The model's plan.
    pub plan: Plan,
    /// What it learns from.
    pub samples: Arc<dyn Samples>,
    /// Where the model's folder goes.
    pub out: PathBuf,
    /// What training starts from instead of nothing.
    pub from: Option<Start>,
    /// First steps of the training, or of each member without a trunk, in which the encoder that `from` gave stays as it is.
    pub frozen_steps: usize,
    /// Steps that all members share.
    pub trunk_steps: usize,
    /// Steps of each member.
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
    /// What is asked of the network.
    pub loss: loss::Kind,
    /// What convolutions multiply, forward and back; parameters, norms, loss and optimizer are f32.
    pub precision: Precision,
    /// Set by whoever wants the training to stop after its step, with a checkpoint.
    pub stop: Arc<AtomicBool>,
}

/// A part of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the members share.
    Trunk,
    /// A member's own.
    Member(usize),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trunk => f.write_str("trunk"),
            Self::Member(i) => write!(f, "member_{i}"),
        }
    }
}

/// What is told after each step.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Which part.
    pub part: Part,
    /// Steps of this part that are done.
    pub step: usize,
    /// Steps of the whole training that are done.
    pub done: usize,
    /// Steps of the whole training.
    pub total: usize,
    /// Loss of the step.
    pub loss: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

impl Config {
    fn recipe(&self, part: Part) -> String {
        // Whatever changes the numbers; a checkpoint of another recipe is refused.
        let loss = match self.loss {
            loss::Kind::DiceCrossEntropy => String::new(),
            other => format!(" loss {other:?}"),
        };
        let frozen = match self.frozen_steps {
            0 => String::new(),
            steps => format!(" frozen {steps}"),
        };
        let precision = match self.precision {
            Precision::F32 => "",
            Precision::Bf16 => " bf16",
        };
        let structures: String = self
            .plan
            .structures
            .iter()
            .map(|structure| format!(" {}", structure.name))
            .collect();
        let from = self.from.as_ref().map(Start::sha256);
        format!(
            "{}{structures} {:?} on {} from {from:?} trunk {} steps {} batch {} seed {} {part} lr {} decay {}{loss}{frozen}{precision}",
            self.plan.id,
            self.plan.configuration,
            self.samples.name(),
            self.trunk_steps,
            match part {
                Part::Trunk => 0,
                Part::Member(_) => self.steps,
            },
            self.batch,
            self.seed,
            self.learning_rate,
            self.weight_decay
        )
    }

    fn checkpoint(&self, part: Part) -> PathBuf {
        self.out.join("checkpoint").join(format!("{part}.safetensors"))
    }

    fn total(&self) -> usize {
        self.trunk_steps + self.plan.members * self.steps
    }
}

/// Named tensors.
type Tensors = BTreeMap<String, Tensor>;

/// Trains all members and writes the model's folder.
///
/// # Errors
/// What stopped it; a later call goes on from the last checkpoint.
pub fn train(config: &Config, device: &Device, mut tell: impl FnMut(Progress)) -> Result<(), TrainError> {
    if config.trunk_steps > 0 && config.frozen_steps > config.trunk_steps {
        return Err(TrainError::Mismatch(format!(
            "found {} frozen steps and {} of the trunk; the encoder thaws before members part, so give at most as many",
            config.frozen_steps, config.trunk_steps
        )));
    }
    config.loss.check(config.plan.activation == Activation::Sigmoid)?;
    if nn::precision_on(device, config.precision)? != config.precision {
        return Err(TrainError::Mismatch(format!(
            "this machine does not multiply {}, which AVX-512 BF16 or a GPU from Ampere on does; train with --precision f32",
            config.precision.name()
        )));
    }
    let folder = config.out.join("checkpoint");
    fs::create_dir_all(&folder).map_err(|e| TrainError::file(&folder, e))?;
    if config.trunk_steps > 0 {
        run(config, Part::Trunk, device, &mut tell)?;
    }
    let mut weights = BTreeMap::new();
    let mut networks = Vec::with_capacity(config.plan.members);
    for member in 0..config.plan.members {
        // Half precision halves the file, and costs less than any member differs from another.
        let average = run(config, Part::Member(member), device, &mut tell)?
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F16)?)))
            .collect::<Result<Tensors, TrainError>>()?;
        let loaded = average
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), tensor.to_dtype(DType::F32)?)))
            .collect::<Result<Tensors, TrainError>>()?;
        let architecture = &config.plan.configuration.architecture;
        networks.push(Network::new(architecture, &mut Parameters::Loaded(loaded))?);
        for (name, tensor) in average {
            weights.insert(format!("member_{member}.{name}"), tensor);
        }
    }
    let golden = golden(config, &networks, device)?;
    save(&config.out.join("weights.safetensors"), &weights, None)?;
    save(&config.out.join("golden.safetensors"), &golden, None)?;
    let plan = serde_json::to_string_pretty(&config.plan)
        .map_err(|e| TrainError::Mismatch(format!("the plan cannot be written: {e}")))?;
    write(&config.out.join("plan.json"), plan.as_bytes())
}

/// One part from its beginning or its checkpoint to its end; the averaged parameters.
fn run(
    config: &Config,
    part: Part,
    device: &Device,
    tell: &mut impl FnMut(Progress),
) -> Result<Tensors, TrainError> {
    let trunk = config.trunk_steps;
    let (offset, before, steps, schedule) = match part {
        Part::Trunk => (999, 0, trunk, Schedule::Trunk),
        Part::Member(i) => (
            i as u64,
            trunk + i * config.steps,
            config.steps,
            if trunk > 0 {
                Schedule::Branch
            } else {
                Schedule::Whole
            },
        ),
    };
    let seed = config.seed.wrapping_mul(1000) + offset;
    let mut parameters = Parameters::trainable(seed, device);
    let network = Network::new(&config.plan.configuration.architecture, &mut parameters)?;
    let Parameters::Trainable { vars, .. } = parameters else {
        return Err(TrainError::Mismatch("trainable parameters were asked for".into()));
    };
    let taken = match config.from.as_ref().filter(|_| trunk == 0 || part == Part::Trunk) {
        Some(from) => from.give(&config.plan, &vars, device)?,
        None => BTreeSet::new(),
    };
    let mut optimizer = AdamW::new(vars, config.weight_decay)?;
    let path = config.checkpoint(part);
    let done = resume(config, part, &path, &mut optimizer, device)?;
    let branches = trunk > 0 && part != Part::Trunk;
    if done == 0 && branches {
        resume(
            config,
            Part::Trunk,
            &config.checkpoint(Part::Trunk),
            &mut optimizer,
            device,
        )?;
    }
    let draw = |step| {
        let which = Draw {
            part,
            seed,
            step,
            size: config.batch,
        };
        dataset::batch(config.samples.as_ref(), &config.plan, which, device)
    };
    std::thread::scope(|scope| {
        let mut next = (done < steps).then(|| scope.spawn(move || draw(done)));
        for step in done..steps {
            let drawn = next.take().map(std::thread::ScopedJoinHandle::join);
            let Some(Ok(batch)) = drawn else {
                return Err(TrainError::Mismatch("the next batch could not be drawn".into()));
            };
            let batch = batch?;
            if step + 1 < steps {
                next = Some(scope.spawn(move || draw(step + 1)));
            }
            let (loss, gradients) = descent(config, &network, &batch)?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged {
                    part: part.to_string(),
                    step,
                });
            }
            let learning_rate = schedule.rate(step, steps, config.learning_rate);
            let count = step + 1 + if branches { trunk } else { 0 };
            let is_frozen = |name: &str| name.starts_with(ENCODER) && taken.contains(name);
            let moves = |name: &str| step >= config.frozen_steps || !is_frozen(name);
            optimizer.step(&gradients, count, learning_rate, moves)?;
            let stop = config.stop.load(Ordering::Relaxed);
            if (step + 1) % config.checkpoint_every == 0 || step + 1 == steps || stop {
                let about = HashMap::from([
                    ("recipe".to_owned(), config.recipe(part)),
                    ("step".to_owned(), (step + 1).to_string()),
                ]);
                save(&path, &optimizer.state()?, Some(about))?;
            }
            tell(Progress {
                part,
                step: step + 1,
                done: before + step + 1,
                total: config.total(),
                loss,
                learning_rate,
            });
            if stop {
                return Err(TrainError::Stopped {
                    part: part.to_string(),
                    step: step + 1,
                });
            }
        }
        Ok(())
    })?;
    Ok(optimizer.average().clone())
}

/// The loss of a batch and the way down, in the precision of the training.
fn descent(config: &Config, network: &Network, batch: &Batch) -> Result<(f64, GradStore), TrainError> {
    nn::with_precision(config.precision, || {
        let loss = loss_of(config, network, batch)?;
        Ok((loss.value, loss.descent.backward()?))
    })
}

/// The loss of a batch: of all heads where the network has several, of both truths where samples were mixed.
fn loss_of(config: &Config, network: &Network, batch: &Batch) -> Result<Loss, TrainError> {
    let heads = if has_further_heads(&config.plan.configuration.architecture) {
        network.forward_heads(&batch.input)?
    } else {
        vec![network.forward(&batch.input)?]
    };
    let (labels, structures) = (config.plan.label_channels(), config.plan.structure_channels());
    let activation = config.plan.activation;
    if structures > 0 {
        if batch.mixed.is_some() {
            return Err(TrainError::Mismatch(format!(
                "{} has structures, which are not mixed",
                config.plan.id
            )));
        }
        let of = |from, count| {
            heads
                .iter()
                .map(move |head| head.narrow(1, from, count))
                .collect::<candle_core::Result<Vec<_>>>()
        };
        let loss = loss::of_heads(activation, config.loss, &of(0, labels)?, &batch.truth)?;
        let beside = &of(labels, structures)?;
        let beside = loss::of_heads(Activation::Softmax, config.loss, beside, &batch.structures)?;
        return Ok(loss.plus(&beside.scaled(BESIDE)?)?);
    }
    let loss = loss::of_heads(activation, config.loss, &heads, &batch.truth)?;
    let Some((other, share)) = &batch.mixed else {
        return Ok(loss);
    };
    let rest = loss::of_heads(activation, config.loss, &heads, other)?;
    Ok(loss.scaled(*share)?.plus(&rest.scaled(1.0 - share)?)?)
}

/// What a step towards the structures counts beside one towards the labels: they are many voxels, and easy.
const BESIDE: f64 = 0.2;

fn has_further_heads(architecture: &Architecture) -> bool {
    match architecture {
        Architecture::PlainConvUNet(a) => a.deep_supervision,
        Architecture::ResidualEncoderUNet(a) => a.deep_supervision,
        Architecture::UNet(_)
        | Architecture::DynUNet(_)
        | Architecture::SegResNet(_)
        | Architecture::SwinUNETR(_)
        | Architecture::DeepMedic(_)
        | Architecture::EfficientNetUNet(_) => false,
    }
}

/// The steps that a checkpoint has done, with its state taken over; 0 without one.
fn resume(
    config: &Config,
    part: Part,
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
    if about.get("recipe") != Some(&config.recipe(part)) {
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
    let which = Draw {
        part: Part::Trunk,
        seed: config.seed,
        step: usize::MAX / 4 / config.batch,
        size: 1,
    };
    let batch = dataset::batch(config.samples.as_ref(), &config.plan, which, device)?;
    let divisors = config.plan.configuration.architecture.divisors();
    let longest = match divisors.len() {
        2 => 96,
        _ => 32,
    };
    let mut input = batch.input;
    for (axis, divisor) in (2..).zip(divisors) {
        let len = input.dim(axis)?;
        let kept = (len.min(longest) / divisor).max(1) * divisor;
        input = input.narrow(axis, (len - kept) / 2, kept)?;
    }
    let input = input.contiguous()?;
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

/// Writes a file whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let partial = path.with_extension("tmp");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|e| TrainError::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::infer::bundle::Bundle,
        train::{
            dataset::HaemorrhageSlabs,
            recipe::{self, haemorrhage},
        },
    };

    fn small(out: &Path) -> Config {
        let mut plan = haemorrhage(2);
        plan.configuration.patch_size = vec![96, 96];
        let Architecture::PlainConvUNet(network) = &mut plan.configuration.architecture else {
            panic!("the recipe is a plain U-Net")
        };
        network.features_per_stage = vec![16; 5];
        Config {
            plan,
            samples: Arc::new(HaemorrhageSlabs),
            out: out.into(),
            from: None,
            frozen_steps: 0,
            trunk_steps: 3,
            steps: 3,
            batch: 1,
            seed: 3,
            learning_rate: 1e-3,
            weight_decay: 1e-2,
            checkpoint_every: 2,
            loss: loss::Kind::default(),
            precision: Precision::F32,
            stop: Arc::default(),
        }
    }

    #[test]
    fn a_run_that_was_stopped_ends_with_the_same_weights() {
        let whole = tempfile::tempdir().unwrap();
        train(&small(whole.path()), &Device::Cpu, |_| {}).unwrap();
        let weights = |dir: &Path| fs::read(dir.join("weights.safetensors")).unwrap();
        // In the trunk, and in the first member.
        for stop_at in [2, 5] {
            let stopped = tempfile::tempdir().unwrap();
            let config = small(stopped.path());
            let stop = std::panic::AssertUnwindSafe(|| {
                train(&config, &Device::Cpu, |p| assert!(p.done < stop_at, "stop here"))
            });
            std::panic::catch_unwind(stop).unwrap_err();
            let mut done = Vec::new();
            train(&config, &Device::Cpu, |p| done.push(p.done)).unwrap();
            assert_eq!(done, (stop_at + 1..=9).collect::<Vec<_>>());
            assert_eq!(weights(whole.path()), weights(stopped.path()));
        }
    }

    #[test]
    fn starts_from_another_model_whose_last_layer_differs_and_refuses_one_that_is_altogether_different() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        train(&small(first.path()), &Device::Cpu, |_| {}).unwrap();
        let mut config = small(second.path());
        config.from = Some(Start::Model(Arc::new(Bundle::read(first.path()).unwrap())));
        config.trunk_steps = 0;
        config.steps = 1;
        config.learning_rate = 0.0;
        config.plan.members = 1;
        config.plan.labels.truncate(1);
        let Architecture::PlainConvUNet(network) = &mut config.plan.configuration.architecture else {
            panic!("the recipe is a plain U-Net")
        };
        network.num_classes = 2;
        train(&config, &Device::Cpu, |_| {}).unwrap();
        let load = |dir: &Path| {
            candle_core::safetensors::load(dir.join("weights.safetensors"), &Device::Cpu).unwrap()
        };
        let key = "member_0.encoder.stages.0.0.convs.0.conv.weight";
        let values = |dir: &Path| {
            let tensor = load(dir)[key].to_dtype(DType::F32).unwrap();
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(values(first.path()), values(second.path()));

        // Outputs go by what they mean: in another order each finds its own, and a new one begins anew.
        let mut config = small(second.path());
        config.from = Some(Start::Model(Arc::new(Bundle::read(first.path()).unwrap())));
        (config.trunk_steps, config.steps, config.learning_rate) = (0, 1, 0.0);
        config.plan.members = 1;
        config.plan.labels.reverse();
        config.plan.labels[4].name = "scar".into();
        fs::remove_dir_all(second.path().join("checkpoint")).unwrap();
        train(&config, &Device::Cpu, |_| {}).unwrap();
        let key = "member_0.decoder.seg_layers.3.weight";
        let rows = |dir: &Path| {
            let tensor = load(dir)[key].to_dtype(DType::F32).unwrap();
            tensor.flatten_from(1).unwrap().to_vec2::<f32>().unwrap()
        };
        let (theirs, own) = (rows(first.path()), rows(second.path()));
        assert_eq!(own[0], theirs[0], "background");
        for k in 1..5 {
            assert_eq!(own[k], theirs[6 - k], "label {k}");
        }
        assert_ne!(own[5], theirs[1], "scar is new");

        let third = tempfile::tempdir().unwrap();
        config.out = third.path().into();
        let Architecture::PlainConvUNet(network) = &mut config.plan.configuration.architecture else {
            panic!("the recipe is a plain U-Net")
        };
        network.features_per_stage = vec![32; 5];
        let error = train(&config, &Device::Cpu, |_| {}).unwrap_err();
        assert!(error.to_string().contains("same architecture"), "{error}");
    }

    #[test]
    fn a_network_of_slices_that_was_inflated_answers_as_before_on_slices_that_are_alike() {
        let first = tempfile::tempdir().unwrap();
        let mut config = small(first.path());
        (config.trunk_steps, config.steps, config.plan.members) = (0, 1, 1);
        train(&config, &Device::Cpu, |_| {}).unwrap();
        let flat = Arc::new(Bundle::read(first.path()).unwrap());
        let start = Start::Model(flat.clone());
        let weights = candle_core::safetensors::load_buffer(&flat.weights, &Device::Cpu).unwrap();
        let own = weights.into_iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix("member_0.")?.to_owned();
            Some((name, tensor.to_dtype(DType::F32).unwrap()))
        });
        let architecture = &flat.plan.configuration.architecture;
        let slices = Network::new(architecture, &mut Parameters::Loaded(own.collect())).unwrap();
        let mut solid = recipe::haemorrhage_3d(1);
        let Architecture::PlainConvUNet(network) = &mut solid.configuration.architecture else {
            panic!("the recipe is a plain U-Net")
        };
        network.features_per_stage = vec![16; 5];
        // The recipe's own, which halves two slices; and one slice with a first kernel of three planes.
        for (kernel, halved, slices_there) in [(1, 2, 2), (3, 1, 1)] {
            network.kernel_sizes[0] = vec![kernel, 3, 3];
            network.strides[4] = vec![halved, 2, 2];
            let mut parameters = Parameters::trainable(1, &Device::Cpu);
            let architecture = Architecture::PlainConvUNet(network.clone());
            let volumes = Network::new(&architecture, &mut parameters).unwrap();
            let Parameters::Trainable { vars, .. } = parameters else {
                panic!("trainable parameters were asked for")
            };
            let plan = Plan {
                labels: flat.plan.labels.clone(),
                ..recipe::haemorrhage_3d(1)
            };
            let taken = start.give(&plan, &vars, &Device::Cpu).unwrap();
            assert_eq!(taken.len(), vars.len());
            let slice = Tensor::randn(0.0f32, 1.0, (1, 1, 32, 48), &Device::Cpu).unwrap();
            let alike = Tensor::cat(&[&slice, &slice, &slice], 1).unwrap();
            // A kernel of three planes sees nothing above and below: what the middle slab alone gave.
            let blank = slice.zeros_like().unwrap();
            let middle = Tensor::cat(&[&blank, &slice, &blank], 1).unwrap();
            let input = if kernel == 1 { alike } else { middle };
            let before = slices.forward(&input).unwrap();
            let stack = slice.unsqueeze(2).unwrap().repeat((1, 1, slices_there, 1, 1));
            let after = volumes.forward(&stack.unwrap()).unwrap();
            for plane in 0..slices_there {
                let after = after.narrow(2, plane, 1).unwrap().squeeze(2).unwrap();
                let apart = (&before - after).unwrap().abs().unwrap();
                let farthest: f32 = apart.max_all().unwrap().to_scalar().unwrap();
                assert!(farthest < 1e-3, "slice {plane}: {farthest}");
            }
        }
    }

    #[test]
    fn a_frozen_encoder_stays_as_it_was_given_until_it_is_thawed() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        train(&small(first.path()), &Device::Cpu, |_| {}).unwrap();
        let weights = |dir: &Path| {
            candle_core::safetensors::load(dir.join("weights.safetensors"), &Device::Cpu).unwrap()
        };
        let before = weights(first.path());
        let changed = |frozen_steps: usize, out: &Path| -> Vec<(bool, bool)> {
            let mut config = small(out);
            config.from = Some(Start::Model(Arc::new(Bundle::read(first.path()).unwrap())));
            config.frozen_steps = frozen_steps;
            config.trunk_steps = 0;
            config.steps = 2;
            config.plan.members = 1;
            config.learning_rate = 0.1;
            train(&config, &Device::Cpu, |_| {}).unwrap();
            let values = |t: &Tensor| {
                let all = t.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
                all.to_vec1::<f32>().unwrap()
            };
            let differs = |(name, tensor): (&String, &Tensor)| {
                (name.contains(ENCODER), values(tensor) != values(&before[name]))
            };
            weights(out).iter().map(differs).collect()
        };
        let frozen = changed(2, second.path());
        assert!(frozen.iter().all(|(encoder, moved)| !(*encoder && *moved)));
        assert!(frozen.iter().any(|(encoder, moved)| !*encoder && *moved));
        let third = tempfile::tempdir().unwrap();
        let thawed = changed(1, third.path());
        assert!(thawed.iter().any(|(encoder, moved)| *encoder && *moved));
        let mut config = small(third.path());
        config.frozen_steps = config.trunk_steps + 1;
        let error = train(&config, &Device::Cpu, |_| {}).unwrap_err().to_string();
        assert!(
            error.contains("found 4 frozen steps and 3 of the trunk"),
            "{error}"
        );
    }

    #[test]
    fn what_was_trained_loads_and_reproduces_its_golden_patch() {
        let out = tempfile::tempdir().unwrap();
        train(&small(out.path()), &Device::Cpu, |_| {}).unwrap();
        let mut bundle = Bundle::read(out.path()).unwrap();
        let model = bundle.load(&Device::Cpu).unwrap();
        assert!(bundle.check(&model, &Device::Cpu).unwrap() < 1e-5);
        // A plan that asks for bf16 says how far off it may be.
        bundle.plan.precision = Precision::Bf16;
        let coarse = bundle.load(&Device::Cpu).unwrap();
        let error = bundle.check(&coarse, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("no golden tolerance for bf16"), "{error}");
        bundle.plan.golden.tolerance.insert("bf16".into(), 0.5);
        let worst = bundle.check(&coarse, &Device::Cpu).unwrap();
        assert_eq!(
            worst > 1e-5,
            nn::has_bf16(),
            "{worst}: bf16 where the machine has it, else f32"
        );
        // One changed weight is noticed.
        bundle.plan.precision = Precision::F32;
        let at = bundle.weights.len() - 6;
        bundle.weights[at] ^= 0x40;
        let other = bundle.load(&Device::Cpu).unwrap();
        assert!(bundle.check(&other, &Device::Cpu).is_err());
    }

    #[test]
    fn bf16_goes_another_way_to_the_same_place_and_is_refused_where_nothing_multiplies_it() {
        let losses = |precision| {
            let out = tempfile::tempdir().unwrap();
            let mut config = small(out.path());
            (config.trunk_steps, config.steps, config.plan.members) = (0, 8, 1);
            config.precision = precision;
            let mut losses = Vec::new();
            train(&config, &Device::Cpu, |p| losses.push(p.loss)).map(|()| losses)
        };
        let exact = losses(Precision::F32).unwrap();
        match losses(Precision::Bf16) {
            Ok(rounded) => {
                assert!(nn::has_bf16() && rounded != exact);
                for (step, (a, b)) in exact.iter().zip(&rounded).enumerate() {
                    assert!((a - b).abs() < 0.05 * a, "step {step}: {a} and {b}");
                }
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!nn::has_bf16() && error.contains("--precision f32"), "{error}");
            }
        }
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
