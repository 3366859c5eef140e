//! What a training begins with instead of nothing: a model's first member, or an encoder that has seen photographs.

use super::{TrainError, imagenet::ImageNet};
use crate::{
    analysis::infer::bundle::Bundle,
    domain::plan::{Activation, Plan},
};
use candle_core::{DType, Device, Tensor, Var};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// Where training starts.
#[derive(Debug, Clone)]
pub enum Start {
    /// A model: its first member, as far as names and shapes agree.
    Model(Arc<Bundle>),
    /// An encoder that has seen photographs; what comes after it begins with nothing.
    Photographs(Arc<ImageNet>),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => write!(f, "{} {}", model.plan.id, model.plan.version),
            Self::Photographs(encoder) => write!(
                f,
                "EfficientNet-Lite0, trained on the photographs of ImageNet, Apache-2.0 (SHA-256 of its weights {})",
                encoder.sha256
            ),
        }
    }
}

/// Where the names of an encoder's parameters begin.
pub(super) const ENCODER: &str = "encoder.";

/// Where those of the layers begin that answer; of deep supervision there are several.
const OUTPUTS: &str = "decoder.seg_layers.";

/// Where those begin that bring a level to the size of the next.
const ENLARGES: &str = "decoder.transpconvs.";

impl Start {
    /// SHA-256 of the weights, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> String {
        match self {
            Self::Model(model) => model.weights_sha256(),
            Self::Photographs(encoder) => encoder.sha256.clone(),
        }
    }

    /// The plan of the model, if it is one.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Model(model) => Some(&model.plan),
            Self::Photographs(_) => None,
        }
    }

    /// Gives a network's parameters what there is for them; the names of those that got something.
    pub(super) fn give(
        &self,
        plan: &Plan,
        vars: &BTreeMap<String, Var>,
        device: &Device,
    ) -> Result<BTreeSet<String>, TrainError> {
        match self {
            Self::Model(model) => of_model(model, plan, vars, device),
            Self::Photographs(encoder) => of_photographs(encoder, vars, device),
        }
    }
}

/// The whole encoder, or an error.
fn of_photographs(
    encoder: &ImageNet,
    vars: &BTreeMap<String, Var>,
    device: &Device,
) -> Result<BTreeSet<String>, TrainError> {
    let mut taken = BTreeSet::new();
    for (name, var) in vars.iter().filter(|(name, _)| name.starts_with(ENCODER)) {
        let given = encoder.parameter(name, var.dims())?;
        let Some(tensor) = given.filter(|tensor| tensor.dims() == var.dims()) else {
            return Err(TrainError::Mismatch(format!(
                "the network has `{name}` of shape {:?}, which EfficientNet-Lite0 has not; an encoder of photographs is for an EfficientNetUNet",
                var.dims()
            )));
        };
        var.set(&tensor.to_device(device)?)?;
        taken.insert(name.clone());
    }
    Ok(taken)
}

/// The first member of a model, wherever name and shape are the same, and of what answers those outputs that mean the same.
fn of_model(
    bundle: &Bundle,
    plan: &Plan,
    vars: &BTreeMap<String, Var>,
    device: &Device,
) -> Result<BTreeSet<String>, TrainError> {
    let (theirs, ours) = (outputs(&bundle.plan), outputs(plan));
    let tensors = candle_core::safetensors::load_buffer(&bundle.weights, device)?;
    let mut taken = BTreeSet::new();
    for (name, var) in vars {
        let Some(tensor) = tensors.get(&format!("member_0.{name}")) else {
            continue;
        };
        let tensor = inflated(name, tensor.to_dtype(DType::F32)?, var.dims())?;
        let answers = name.starts_with(OUTPUTS) && tensor.dim(0)? == theirs.len();
        if answers && tensor.dims()[1..] == var.dims()[1..] {
            let rows = ours.iter().enumerate().map(|(own, output)| {
                match theirs.iter().position(|their| their == output) {
                    Some(known) => tensor.narrow(0, known, 1),
                    None => var.as_tensor().copy()?.narrow(0, own, 1),
                }
            });
            var.set(&Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)?;
            taken.insert(name.clone());
        } else if tensor.dims() == var.dims() {
            var.set(&tensor)?;
            taken.insert(name.clone());
        }
    }
    if 2 * taken.len() < vars.len() {
        return Err(TrainError::Mismatch(format!(
            "{}: {} of {} parameters have the name and shape that this plan wants, at least half must; choose a model of the same architecture",
            bundle.plan.id,
            taken.len(),
            vars.len()
        )));
    }
    Ok(taken)
}

/// A kernel of slices as one of volumes, where that is wanted: itself in the middle plane, nothing in the others.
///
/// One that enlarges has as many planes as it makes slices of each, and is in all of them.
/// Channels that were slabs of one scan become the planes of a kernel that has as many, or else their sum, which is what slices that are alike gave.
/// A network that was inflated answers for slices that are alike as it did before, and learns from there what lies between slices.
///
/// Source: Carreira and Zisserman, arXiv:1705.07750, who inflated networks of pictures to ones of films.
fn inflated(name: &str, kernel: Tensor, wanted: &[usize]) -> Result<Tensor, TrainError> {
    let (&[_, channels, _, _], &[_, wanted_channels, depth, _, _]) = (kernel.dims(), wanted) else {
        return Ok(kernel);
    };
    let planes = match (channels, wanted_channels) {
        (slabs, 1) if slabs > 1 && slabs == depth => return Ok(kernel.unsqueeze(1)?),
        (slabs, 1) if slabs > 1 => kernel.sum_keepdim(1)?.unsqueeze(2)?,
        _ => kernel.unsqueeze(2)?,
    };
    if name.starts_with(ENLARGES) {
        return Ok(planes.repeat((1, 1, depth, 1, 1))?);
    }
    let beside = depth / 2;
    Ok(planes.pad_with_zeros(2, beside, depth - 1 - beside)?)
}

/// What each output of a plan's network means, in their order.
fn outputs(plan: &Plan) -> Vec<(&'static str, &str)> {
    let labels = plan.labels.iter().map(|label| ("label", &*label.name));
    let mut outputs: Vec<(&str, &str)> = match plan.activation {
        Activation::Softmax => vec![("label", "")],
        Activation::Sigmoid => Vec::new(),
    };
    outputs.extend(labels);
    if !plan.structures.is_empty() {
        outputs.push(("structure", ""));
        outputs.extend(plan.structures.iter().map(|s| ("structure", &*s.name)));
    }
    outputs
}
