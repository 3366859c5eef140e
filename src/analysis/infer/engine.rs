//! The device, the models on it, and the one thread that uses them.

use super::{
    InferError,
    bundle::{Bundle, Model},
};
use crate::{
    domain::{device::DeviceChoice, plan::Precision},
    nn,
};
use candle_core::{Device, Tensor};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Tiles that may wait for the device; the next caller waits.
const QUEUE: usize = 4;

/// Opens a device.
///
/// # Errors
/// When CUDA was demanded and is not there.
pub fn open(choice: DeviceChoice) -> Result<Device, InferError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(cuda().unwrap_or_else(|why| {
            if cfg!(feature = "cuda") {
                tracing::warn!(reason = why, "networks run on the CPU: there is no GPU to use");
            }
            Device::Cpu
        })),
        DeviceChoice::Cuda => cuda().map_err(|why| {
            InferError::Device(format!(
                "--device cuda was asked for, but {why}; use --device cpu or auto"
            ))
        }),
    }
}

/// The first CUDA device, or why there is none.
#[cfg(feature = "cuda")]
fn cuda() -> Result<Device, String> {
    // The bindings panic when a library is not what they were built for.
    std::panic::catch_unwind(nn::open_cuda)
        .unwrap_or_else(|_| Err("the CUDA libraries are not those that this build wants".into()))
}

/// Why there is no CUDA device.
#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Device, String> {
    Err("this build has no CUDA (build with --features cuda)".into())
}

/// One batch of tiles for one member of one model.
struct Task {
    model: String,
    member: usize,
    tiles: Vec<f32>,
    dims: Vec<usize>,
    reply: SyncSender<Result<Vec<f32>, InferError>>,
}

/// The models that serve, and the queue to the device's thread.
#[derive(Debug)]
pub struct Engine {
    models: BTreeMap<String, Arc<Model>>,
    numeric_mode: String,
    /// Of each model that serves, by id.
    modes: BTreeMap<String, String>,
    queue: SyncSender<Task>,
}

impl Engine {
    /// Loads models, holds each to its golden patch, and starts the device's thread.
    ///
    /// # Errors
    /// When a model is not what its folder says, or does not reproduce its golden patch.
    pub fn start(bundles: &[Bundle], device: DeviceChoice) -> Result<Self, InferError> {
        let device = open(device)?;
        let (mut models, mut modes) = (BTreeMap::new(), BTreeMap::new());
        for bundle in bundles {
            let model = bundle.load(&device)?;
            bundle.check(&model, &device)?;
            let mode = model
                .precision_on(&device)
                .and_then(|precision| nn::numeric_mode(&device, precision))
                .map_err(|e| InferError::network(&e))?;
            modes.insert(bundle.plan.id.clone(), mode);
            models.insert(bundle.plan.id.clone(), Arc::new(model));
        }
        let numeric_mode = nn::numeric_mode(&device, Precision::F32).map_err(|e| InferError::network(&e))?;
        let (queue, tasks) = sync_channel(QUEUE);
        let serving = models
            .values()
            .flat_map(|model: &Arc<Model>| model.stages.iter().chain([model]))
            .map(|model| (model.plan.id.clone(), Arc::clone(model)))
            .collect();
        thread::Builder::new()
            .name("device".into())
            .spawn(move || serve(&tasks, &serving, &device))
            .map_err(|source| InferError::Read {
                path: "a thread for the device".into(),
                source,
            })?;
        Ok(Self {
            models,
            numeric_mode,
            modes,
            queue,
        })
    }

    /// [`nn::numeric_mode`] in single precision: how the device computes what asks for nothing else.
    #[must_use]
    pub fn numeric_mode(&self) -> &str {
        &self.numeric_mode
    }

    /// The same for a model, whose plan may ask for bf16.
    #[must_use]
    pub fn numeric_mode_of(&self, model: &Model) -> &str {
        self.modes.get(&model.plan.id).unwrap_or(&self.numeric_mode)
    }

    /// The models that serve, by id.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// A model by id.
    ///
    /// # Errors
    /// [`InferError::Unknown`].
    pub fn model(&self, id: &str) -> Result<&Arc<Model>, InferError> {
        self.models
            .get(id)
            .ok_or_else(|| InferError::Unknown(id.to_owned()))
    }

    /// Logits of a batch of tiles; waits while the device is busy.
    ///
    /// # Shape
    /// `tiles`: `dims`, which are `[N, C, (D), H, W]`; result: `[N, classes, (D), H, W]`.
    ///
    /// # Errors
    /// What the network said, or [`InferError::Stopped`].
    pub fn forward(
        &self,
        model: &str,
        member: usize,
        tiles: Vec<f32>,
        dims: Vec<usize>,
    ) -> Result<Vec<f32>, InferError> {
        let (reply, answer) = sync_channel(1);
        let task = Task {
            model: model.to_owned(),
            member,
            tiles,
            dims,
            reply,
        };
        self.queue.send(task).map_err(|_| InferError::Stopped)?;
        answer.recv().map_err(|_| InferError::Stopped)?
    }
}

/// Answers tasks until the engine is dropped.
fn serve(tasks: &Receiver<Task>, models: &BTreeMap<String, Arc<Model>>, device: &Device) {
    while let Ok(task) = tasks.recv() {
        let answer = run(&task, models, device);
        // A caller that went away needs no answer.
        let _ = task.reply.send(answer);
    }
}

fn run(task: &Task, models: &BTreeMap<String, Arc<Model>>, device: &Device) -> Result<Vec<f32>, InferError> {
    let (model, network) = models
        .get(&task.model)
        .and_then(|model| Some((model, model.members.get(task.member)?)))
        .ok_or_else(|| InferError::Unknown(format!("{} member {}", task.model, task.member)))?;
    let logits = Tensor::from_slice(&task.tiles, task.dims.as_slice(), device)
        .and_then(|x| model.forward(network, &x)?.flatten_all()?.to_vec1::<f32>())
        .map_err(|e| InferError::network(&e))?;
    Ok(logits)
}
