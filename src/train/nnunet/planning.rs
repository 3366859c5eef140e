//! A fingerprint → a plan: grid, normalisation, tile and network, by nnU-Net's rules.
//!
//! Spacing: the median of the cases; of an axis that is much coarser than the others, the tenth percentile.
//! Tile: as large as the budget allows, in the shape of the median case; the network halves an axis as long as it is fine and long enough.
//! What differs from nnU-Net: the budget on a CPU, which computes a step in seconds with a smaller network and not at all with theirs; slices with slabs beside them; and an encoder that has seen photographs.
//!
//! Source: nnU-Net v2, `default_experiment_planner.py` and `network_topology.py` (rules and constants).

use super::{
    fingerprint::{CaseFingerprint, Fingerprint, percentile},
    raw::RawDataset,
};
use crate::{
    domain::{
        architecture::{Architecture, EfficientNetUNet, PlainConvUNet, ResidualBlock, ResidualEncoderUNet},
        code::Code,
        plan::{
            Activation, Configuration, Contrast, Ensemble, Golden, Grid, Label, Normalization, Plan,
            Precision, Provenance, Resampling, SCHEMA, Trigger,
        },
    },
    train::TrainError,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// An axis this many times as coarse as the others is treated apart.
const ANISOTROPY: f64 = 3.0;
/// Share of the cases whose step a coarse axis takes.
const COARSE_SHARE: f64 = 0.1;
/// Voxels that an axis keeps at the lowest level.
const SHORTEST_EDGE: usize = 4;
/// The same behind EfficientNet-Lite0, whose last blocks should see more than the padding around them.
const SHORTEST_EFFICIENTNET_EDGE: usize = 2;
/// Axes whose steps differ by less than this are halved and convolved together.
const SAME_STEP: f64 = 2.0;
/// Levels whose lists nnU-Net gives; a longer list goes on with the last.
const RESIDUAL_BLOCKS: [usize; 5] = [1, 3, 4, 6, 6];
/// Channels of the decoder behind EfficientNet-Lite0, whose own are 16, 24, 40, 112 and 320 from half the resolution on.
const BEHIND_EFFICIENTNET: [usize; 6] = [16, 16, 32, 48, 96, 160];
/// Least height of the slabs that a network of slices sees, mm: thinner ones are mostly noise.
const THINNEST_SLAB_MM: f64 = 3.0;
/// Greatest height of them: what a plan allows.
const THICKEST_SLAB_MM: f64 = 20.0;
/// When the crop keeps less than this of the median case, the zeros were made, and statistics leave them out.
const MADE_ZEROS: f64 = 0.75;

/// Which of nnU-Net's configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Slice by slice.
    Flat,
    /// Slice by slice of the scanner, each with the slabs above and below it; stacks may lean and be uneven.
    Slabs,
    /// Whole volumes.
    Full,
}

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// nnU-Net's default.
    PlainConvUNet,
    /// The same with residual blocks on the way down.
    ResidualEncoderUNet,
    /// nnU-Net's decoder behind EfficientNet-Lite0: in two dimensions.
    EfficientNetUNet,
}

/// What a step may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Values of all feature maps of one sample in 2-D.
    pub flat: usize,
    /// The same in 3-D.
    pub full: usize,
    /// Channels of the first level.
    pub base_features: usize,
    /// Most channels of a level, in 2-D and in 3-D.
    pub most_features: [usize; 2],
}

impl Budget {
    /// nnU-Net's, for a GPU of 8 GB and more: 560 million values for two samples in 3-D, 85 million for twelve in 2-D.
    pub const GPU: Self = Self {
        flat: 85_000_000 / 12,
        full: 560_000_000 / 2,
        base_features: 32,
        most_features: [512, 320],
    };
    /// A sixteenth of the values in 3-D, half in 2-D, and half the channels: a step takes seconds on a few cores.
    pub const CPU: Self = Self {
        flat: Self::GPU.flat / 2,
        full: Self::GPU.full / 16,
        base_features: 16,
        most_features: [128, 128],
    };
}

/// What a model is called and what its labels mean.
#[derive(Debug, Clone)]
pub struct Named {
    /// The model's id.
    pub id: String,
    /// Networks in the ensemble.
    pub members: usize,
    /// Codes of labels by name.
    pub codes: BTreeMap<String, LabelCodes>,
    /// Whether left and right mean nothing for any label.
    pub sideless: bool,
}

/// What somebody chose.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What the model is called and what its labels mean.
    pub named: Named,
    /// 2-D or 3-D.
    pub shape: Shape,
    /// Which network.
    pub family: Family,
    /// What a step may cost.
    pub budget: Budget,
    /// A tile of this size, whatever it costs.
    pub patch: Option<Vec<usize>>,
}

impl Choice {
    /// What can be said of a choice before any case was read.
    ///
    /// # Errors
    /// When it does not fit the dataset or itself.
    pub fn check(&self, dataset: &RawDataset) -> Result<(), TrainError> {
        let sees_pictures = self.family == Family::EfficientNetUNet;
        if sees_pictures && self.shape == Shape::Full {
            return Err(TrainError::Mismatch(
                "EfficientNet-Lite0 sees pictures; give --configuration 2d or 2.5d with --encoder".into(),
            ));
        }
        if self.shape == Shape::Slabs && (dataset.channels().len() != 1 || !dataset.is_ct(0)) {
            return Err(TrainError::Mismatch(format!(
                "2.5d is for one channel of CT, dataset.json names {}; give --configuration 2d",
                dataset.channels().join(", ")
            )));
        }
        if self.shape == Shape::Slabs && dataset.overlap() {
            return Err(TrainError::Mismatch(
                "2.5d answers with one label a voxel, dataset.json names regions that overlap; give --configuration 2d or 3d_fullres".into(),
            ));
        }
        let least = SHORTEST_EFFICIENTNET_EDGE << (BEHIND_EFFICIENTNET.len() - 1);
        let patch = self.patch.as_ref().filter(|_| sees_pictures);
        if let Some(patch) = patch.filter(|patch| patch.iter().any(|size| *size < least)) {
            return Err(TrainError::Mismatch(format!(
                "found --patch {patch:?}; EfficientNet-Lite0 halves a tile five times, so give at least {least} voxels along each axis"
            )));
        }
        Ok(())
    }
}

/// What a file says of a label.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelCodes {
    /// Segmented property category.
    pub category: Code,
    /// Segmented property type.
    #[serde(rename = "type")]
    pub kind: Code,
}

/// The levels of a network.
#[derive(Debug, Clone, PartialEq)]
struct Levels {
    strides: Vec<Vec<usize>>,
    kernels: Vec<Vec<usize>>,
    /// The tile, made a multiple of all strides.
    patch: Vec<usize>,
}

/// Makes the plan.
///
/// # Errors
/// When a choice does not fit the dataset or itself.
pub fn plan(dataset: &RawDataset, fingerprint: &Fingerprint, choice: &Choice) -> Result<Plan, TrainError> {
    let bad = |what: String| TrainError::Mismatch(what);

    choice.check(dataset)?;
    let (target, shape) = target(fingerprint);
    let slabs = choice.shape == Shape::Slabs;
    // Slabs go through the slices as they were scanned.
    let transpose = if slabs { [0, 1, 2] } else { transpose(target) };
    let spacing = transpose.map(|axis| target[axis]);
    // Sizes of the median case on the new grid.
    let median = transpose.map(|axis| shape[axis]);
    let first = match choice.shape {
        Shape::Flat | Shape::Slabs => 1,
        Shape::Full => 0,
    };
    let (spacing, median) = (spacing[first..].to_vec(), median[first..].to_vec());
    let levels = match &choice.patch {
        Some(patch) if patch.len() != spacing.len() || patch.contains(&0) => {
            return Err(bad(format!(
                "--patch {patch:?} has {} axes, the configuration has {} of at least one voxel",
                patch.len(),
                spacing.len()
            )));
        }
        Some(patch) => levels(&spacing, patch, choice.family),
        None => fitted(&spacing, &median, choice, dataset.outputs()),
    };
    if levels.strides.len() < 2 {
        return Err(bad(format!(
            "a tile of {:?} voxels at {spacing:?} mm cannot be halved once; give a larger one with --patch",
            levels.patch
        )));
    }
    let zeros_were_made = kept_share(fingerprint) < MADE_ZEROS;
    let resampling = |order| Resampling {
        order,
        order_z: 0,
        force_separate_z: None,
    };
    let mut schemes: Vec<Normalization> = (0..dataset.channels().len())
        .map(|c| scheme(dataset, fingerprint, c))
        .collect::<Result<_, _>>()?;
    let mut channel_names = dataset.channels().to_vec();
    let grid = if slabs {
        channel_names = ["slab below", "slice", "slab above"].map(String::from).into();
        schemes = vec![schemes[0].clone(); channel_names.len()];
        Grid::SourceSlices {
            slab_mm: median_step_mm(fingerprint).clamp(THINNEST_SLAB_MM, THICKEST_SLAB_MM),
            neighbours: 1,
            mirrored: false,
        }
    } else {
        Grid::Volume {
            transpose_forward: transpose,
            use_mask_for_norm: (0..schemes.len())
                .map(|c| !dataset.is_ct(c) && zeros_were_made)
                .collect(),
            resampling_data: resampling(3),
            resampling_probabilities: resampling(1),
            previous_stage: None,
        }
    };
    let configuration = Configuration {
        grid,
        patch_size: levels.patch.clone(),
        spacing,
        architecture: network(&levels, choice, channel_names.len(), dataset.outputs()),
        normalization_schemes: schemes,
        channel_names,
        tile_step_size: 0.5,
    };
    with(configuration, Ensemble::MeanLogits, dataset, &choice.named)
}

/// The plan of a model that is trained further: its grid and its network, for the labels of a dataset.
///
/// Labels that the model has too keep what they mean; when they are found and flagged is nobody's choice yet.
///
/// # Errors
/// When the model cannot be trained here, or the dataset has other channels than it wants.
pub fn of_model(model: &Plan, dataset: &RawDataset, named: &Named) -> Result<Plan, TrainError> {
    let mut configuration = model.configuration.clone();
    let id = &model.id;
    let bad = |what: &str| {
        Err(TrainError::Mismatch(format!(
            "{id} cannot be trained further here: {what}"
        )))
    };
    if matches!(configuration.grid, Grid::Oriented(_) | Grid::Window { .. }) {
        return bad("images are brought to its grid by MONAI's or BLAST-CT's rules");
    }
    if !model.stages.is_empty() || configuration.previous_stage().is_some() {
        return bad("it is the second stage of a cascade");
    }
    if model.activation != Activation::Softmax {
        return bad("its outputs overlap, and what is trained further has one label a voxel");
    }
    if dataset.overlap() {
        return bad("dataset.json names regions that overlap, and the model has one label a voxel");
    }
    if configuration.scans() != dataset.channels().len() {
        return bad(&format!(
            "it wants {} channels a case, dataset.json names {}",
            configuration.scans(),
            dataset.channels().len()
        ));
    }
    let all_ct = (0..dataset.channels().len()).all(|c| dataset.is_ct(c));
    let wanted = &configuration.channel_names;
    let same = |(a, b): (&String, &String)| a.eq_ignore_ascii_case(b);
    let differs = configuration.scans() > 1 && !wanted.iter().zip(dataset.channels()).all(same);
    if configuration.is_ct() != all_ct || differs {
        return bad(&format!(
            "it wants {}, dataset.json names {}",
            if configuration.is_ct() {
                "CT".to_owned()
            } else {
                wanted.join(", ")
            },
            dataset.channels().join(", ")
        ));
    }
    let outputs = dataset.outputs();
    match &mut configuration.architecture {
        Architecture::PlainConvUNet(network) => network.num_classes = outputs,
        Architecture::ResidualEncoderUNet(network) => network.num_classes = outputs,
        Architecture::EfficientNetUNet(network) => network.num_classes = outputs,
        other => return bad(&format!("it is a {}", other.class_name())),
    }
    let mut plan = with(configuration, model.ensemble, dataset, named)?;
    for label in &mut plan.labels {
        let known = model.labels.iter().find(|known| known.name == label.name);
        if let Some(known) = known.filter(|_| !named.codes.contains_key(&label.name)) {
            label.category = known.category.clone();
            label.kind = known.kind.clone();
            label.site = known.site.clone();
            label.side_aware = known.side_aware && !named.sideless;
        }
    }
    Ok(plan)
}

/// The plan around a configuration.
fn with(
    configuration: Configuration,
    ensemble: Ensemble,
    dataset: &RawDataset,
    named: &Named,
) -> Result<Plan, TrainError> {
    let names: Vec<&String> = dataset.regions.iter().map(|region| &region.name).collect();
    if let Some(stranger) = named.codes.keys().find(|name| !names.contains(name)) {
        return Err(TrainError::Mismatch(format!(
            "the file of codes names {stranger:?}, dataset.json has the labels {names:?}"
        )));
    }
    let is_ct = (0..dataset.channels().len()).any(|c| dataset.is_ct(c));
    let tolerance = match configuration.architecture {
        // No norm keeps what its encoder adds up small.
        Architecture::EfficientNetUNet(_) => 1e-3,
        _ => 1e-4,
    };
    let plan = Plan {
        schema: SCHEMA,
        id: named.id.clone(),
        version: "1".into(),
        question: "segmentation".into(),
        configuration,
        members: named.members,
        ensemble,
        activation: if dataset.overlap() {
            Activation::Sigmoid
        } else {
            Activation::Softmax
        },
        labels: dataset
            .regions
            .iter()
            .map(|region| label(region.painted, &region.name, named))
            .collect(),
        structures: Vec::new(),
        keep_largest: Vec::new(),
        // No series asks for it by itself: nobody has said which it is for.
        trigger: Trigger {
            modality: if is_ct { "CT" } else { "MR" }.into(),
            contrast: Contrast::Any,
            thickness_mm: [0.0, 0.0],
            // The brain is found by HU.
            body_part: if is_ct { "HEAD" } else { "" }.into(),
            only_named: false,
            brain_hu: None,
            noise_hu: None,
        },
        stages: Vec::new(),
        mirror_axes: Vec::new(),
        provenance: Provenance::Dataset,
        precision: Precision::F32,
        calibration: None,
        golden: Golden {
            tolerance: [("f32".to_owned(), tolerance)].into(),
        },
    };
    plan.check().map_err(TrainError::Mismatch)?;
    Ok(plan)
}

fn label(value: u8, name: &str, named: &Named) -> Label {
    let mut label = Label::unexplained(value, name);
    label.side_aware = !named.sideless;
    if let Some(codes) = named.codes.get(name) {
        label.category = codes.category.clone();
        label.kind = codes.kind.clone();
    }
    label
}

/// The spacing of the new grid in the order of the file's axes, and the median size of a case on it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of arrays"
)]
fn target(fingerprint: &Fingerprint) -> ([f64; 3], [usize; 3]) {
    let step = |axis: usize, share| over_cases(fingerprint, |case| case.spacing_mm[axis], share);
    let size = |axis: usize| over_cases(fingerprint, |case| case.shape[axis] as f64, 0.5);
    let mut target = [0, 1, 2].map(|axis| step(axis, 0.5));
    let coarsest = most(target);
    let others = [0, 1, 2].into_iter().filter(|axis| *axis != coarsest);
    let (mut widest, mut shortest) = (0.0f64, f64::INFINITY);
    for axis in others {
        widest = widest.max(target[axis]);
        shortest = shortest.min(size(axis));
    }
    if target[coarsest] > ANISOTROPY * widest && size(coarsest) * ANISOTROPY < shortest {
        let fine = step(coarsest, COARSE_SHARE);
        target[coarsest] = if fine < widest { widest + 1e-5 } else { fine };
    }
    let shape = [0, 1, 2].map(|axis| {
        let on_grid =
            |case: &CaseFingerprint| (case.spacing_mm[axis] / target[axis] * case.shape[axis] as f64).round();
        over_cases(fingerprint, on_grid, 0.5).round().max(1.0) as usize
    });
    (target, shape)
}

/// The value of a case below which a share of the cases lies.
fn over_cases(fingerprint: &Fingerprint, value: impl Fn(&CaseFingerprint) -> f64, share: f64) -> f64 {
    let mut all: Vec<f64> = fingerprint.cases.iter().map(value).collect();
    all.sort_by(f64::total_cmp);
    percentile(&all, share)
}

/// The step of the median case from slice to slice, mm.
fn median_step_mm(fingerprint: &Fingerprint) -> f64 {
    over_cases(fingerprint, |case| case.spacing_mm[0], 0.5)
}

fn most(values: [f64; 3]) -> usize {
    (0..3)
        .max_by(|a, b| values[*a].total_cmp(&values[*b]).then(b.cmp(a)))
        .unwrap_or(0)
}

/// The coarsest axis first, the others as they are.
fn transpose(spacing_mm: [f64; 3]) -> [usize; 3] {
    let coarsest = most(spacing_mm);
    let mut rest = (0..3).filter(|axis| *axis != coarsest);
    [coarsest, rest.next().unwrap_or(1), rest.next().unwrap_or(2)]
}

/// Share of the volume that the crop keeps in the median case.
fn kept_share(fingerprint: &Fingerprint) -> f64 {
    over_cases(fingerprint, |case| case.kept, 0.5)
}

fn scheme(
    dataset: &RawDataset,
    fingerprint: &Fingerprint,
    channel: usize,
) -> Result<Normalization, TrainError> {
    let named = dataset.channels()[channel].to_lowercase();
    match named.as_str() {
        "nonorm" => return Ok(Normalization::NoNormalization),
        "rescale_to_0_1" => return Ok(Normalization::RescaleTo01Normalization),
        "rgb_to_0_1" => return Ok(Normalization::RGBTo01Normalization),
        _ if !dataset.is_ct(channel) => return Ok(Normalization::ZScoreNormalization),
        _ => {}
    }
    let mut values: Vec<f64> = fingerprint
        .cases
        .iter()
        .flat_map(|case| &case.foreground[channel])
        .map(|v| f64::from(*v))
        .collect();
    if values.is_empty() {
        return Err(TrainError::Dataset(vec!["no case has a labelled voxel".into()]));
    }
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    Ok(Normalization::CTNormalization {
        lower_hu: percentile(&values, 0.005),
        upper_hu: percentile(&values, 0.995),
        mean_hu: mean,
        // One value throughout would blow everything up.
        std_hu: variance.sqrt().max(1.0),
    })
}

/// The largest tile within the budget, in the shape of the median case.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of tiles"
)]
fn fitted(spacing: &[f64], median: &[usize], choice: &Choice, classes: usize) -> Levels {
    // nnU-Net starts from a cube in millimetres of more voxels than any budget allows.
    let start: f64 = if spacing.len() == 3 { 256.0 } else { 2048.0 };
    let scale = spacing.iter().product::<f64>().powf(1.0 / spacing.len() as f64);
    let mut patch: Vec<usize> = spacing
        .iter()
        .zip(median)
        .map(|(mm, most)| ((start * scale / mm).round().max(1.0) as usize).min(*most))
        .collect();
    let budget = if spacing.len() == 3 {
        choice.budget.full
    } else {
        choice.budget.flat
    };
    loop {
        let levels = levels(spacing, &patch, choice.family);
        if cost(&levels, choice, classes) <= budget {
            return levels;
        }
        // The axis that is longest beside the median case gives way by the step that its levels need.
        let relative = |axis: usize| levels.patch[axis] as f64 / median[axis] as f64;
        let step = |axis: usize| -> usize { levels.strides.iter().map(|s| s[axis]).product() };
        // An axis that cannot shrink any more would come back for ever.
        let least = |axis: usize| match choice.family {
            Family::EfficientNetUNet => SHORTEST_EFFICIENTNET_EDGE * step(axis),
            Family::PlainConvUNet | Family::ResidualEncoderUNet => step(axis).max(2 * SHORTEST_EDGE),
        };
        let axis = (0..patch.len())
            .filter(|axis| levels.patch[*axis] > least(*axis))
            .max_by(|a, b| relative(*a).total_cmp(&relative(*b)));
        let Some(axis) = axis else { return levels };
        patch.clone_from(&levels.patch);
        patch[axis] = patch[axis].saturating_sub(step(axis)).max(SHORTEST_EDGE);
    }
}

/// Strides and kernels for a tile, and the tile as a multiple of them.
fn levels(spacing: &[f64], patch: &[usize], family: Family) -> Levels {
    let axes = spacing.len();
    if family == Family::EfficientNetUNet {
        let count = BEHIND_EFFICIENTNET.len();
        return Levels {
            strides: (0..count)
                .map(|s| vec![if s == 0 { 1 } else { 2 }; axes])
                .collect(),
            kernels: vec![vec![3; axes]; count],
            patch: patch
                .iter()
                .map(|size| size.next_multiple_of(1 << (count - 1)))
                .collect(),
        };
    }
    let (mut step, mut size) = (spacing.to_vec(), patch.to_vec());
    let mut kernel = vec![1; axes];
    let (mut strides, mut kernels) = (vec![vec![1; axes]], Vec::new());
    let finest = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    loop {
        let long: Vec<usize> = (0..axes).filter(|a| size[*a] >= 2 * SHORTEST_EDGE).collect();
        let least = finest(&long.iter().map(|a| step[*a]).collect::<Vec<_>>());
        let halved: Vec<usize> = long
            .into_iter()
            .filter(|a| step[*a] / least < SAME_STEP)
            .collect();
        if halved.is_empty() || (halved.len() == 1 && size[halved[0]] < 3 * SHORTEST_EDGE) {
            break;
        }
        let least = finest(&step);
        for (kernel, step) in kernel.iter_mut().zip(&step) {
            // A coarse axis is convolved from the level on where the others are as coarse.
            if step / least < SAME_STEP {
                *kernel = 3;
            }
        }
        kernels.push(kernel.clone());
        let mut stride = vec![1; axes];
        for axis in halved {
            stride[axis] = 2;
            step[axis] *= 2.0;
            size[axis] = size[axis].div_ceil(2);
        }
        strides.push(stride);
    }
    kernels.push(vec![3; axes]);
    let patch = (0..axes).map(|axis| {
        let divisor: usize = strides.iter().map(|s| s[axis]).product();
        patch[axis].next_multiple_of(divisor)
    });
    Levels {
        patch: patch.collect(),
        strides,
        kernels,
    }
}

fn features(levels: &Levels, choice: &Choice) -> Vec<usize> {
    if choice.family == Family::EfficientNetUNet {
        return BEHIND_EFFICIENTNET.into();
    }
    let most = choice.budget.most_features[usize::from(levels.patch.len() == 3)];
    (0..levels.strides.len())
        .map(|level| (choice.budget.base_features << level.min(16)).min(most))
        .collect()
}

/// Convolutions of a level: on the way down (residual blocks have two each), and on the way up.
fn layers(choice: &Choice, level: usize) -> (usize, usize) {
    match choice.family {
        Family::PlainConvUNet => (2, 2),
        // Inside a block of the encoder are six times as many channels; of the full resolution one layer tells.
        Family::EfficientNetUNet => (if level == 0 { 1 } else { 12 }, 1),
        Family::ResidualEncoderUNet => (2 * RESIDUAL_BLOCKS[level.min(RESIDUAL_BLOCKS.len() - 1)], 1),
    }
}

/// Values of all feature maps of one sample.
fn cost(levels: &Levels, choice: &Choice, classes: usize) -> usize {
    let features = features(levels, choice);
    let mut size = levels.patch.clone();
    let last = features.len() - 1;
    let mut sum = 0;
    for (level, stride) in levels.strides.iter().enumerate() {
        for (size, stride) in size.iter_mut().zip(stride) {
            *size /= stride;
        }
        let voxels: usize = size.iter().product();
        let (down, up) = layers(choice, level);
        sum += down * features[level] * voxels;
        if level < last {
            // What comes up, its convolutions, and a head.
            sum += (up + 1) * features[level] * voxels + classes * voxels;
        }
    }
    sum
}

fn network(levels: &Levels, choice: &Choice, channels: usize, classes: usize) -> Architecture {
    let n_stages = levels.strides.len();
    let (kernel_sizes, strides) = (levels.kernels.clone(), levels.strides.clone());
    let features_per_stage = features(levels, choice);
    match choice.family {
        Family::PlainConvUNet => Architecture::PlainConvUNet(PlainConvUNet {
            input_channels: channels,
            n_stages,
            features_per_stage,
            kernel_sizes,
            strides,
            n_conv_per_stage: vec![2; n_stages],
            n_conv_per_stage_decoder: vec![2; n_stages - 1],
            num_classes: classes,
            conv_bias: true,
            deep_supervision: true,
        }),
        Family::ResidualEncoderUNet => Architecture::ResidualEncoderUNet(ResidualEncoderUNet {
            input_channels: channels,
            n_stages,
            features_per_stage,
            kernel_sizes,
            strides,
            n_blocks_per_stage: (0..n_stages).map(|s| layers(choice, s).0 / 2).collect(),
            n_conv_per_stage_decoder: vec![1; n_stages - 1],
            num_classes: classes,
            conv_bias: true,
            deep_supervision: true,
            block: ResidualBlock::BasicBlockD,
            bottleneck_channels: None,
            stem_channels: None,
        }),
        Family::EfficientNetUNet => Architecture::EfficientNetUNet(EfficientNetUNet {
            input_channels: channels,
            features_per_stage,
            num_classes: classes,
        }),
    }
}
