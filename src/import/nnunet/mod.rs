//! A results folder of nnU-Net v2, `<Trainer>__<Plans>__<configuration>/` → a trained model.
//!
//! `plans.json` and `dataset.json` beside the folds say what the network is and what surrounds it; each fold's checkpoint is one member.
//! Source: nnU-Net 2.8.1 (`plans_handler.py`, `label_handling.py`, `predict_from_raw_data.py`), read and run; Isensee et al., doi:10.1038/s41592-020-01008-z.

mod architecture;
mod dataset;
mod plans;
mod postprocessing;
mod weights;

use super::{ImportError, Trained, fields::Fields};
use crate::{
    domain::plan::{Activation, Configuration, Ensemble, Grid, Label},
    nn::checkpoint::Checkpoint,
};
use dataset::Labels;
use std::path::{Path, PathBuf};

/// What nnU-Net calls the weights of a finished training.
const CHECKPOINT: &str = "checkpoint_final.pth";
/// nnU-Net's share of a tile by which the next one moves.
const TILE_STEP_SIZE: f64 = 0.5;

/// Trainers of the package that change how a network is trained and nothing of what it computes.
///
/// # Source
/// nnU-Net 2.8.1, `training/nnUNetTrainer/variants`: none of them overrides `build_network_architecture` (`nnUNetTrainerBN` does, as do the Primus trainers).
const TRAINERS: &[&str] = &[
    "nnUNetTrainer",
    "nnUNetTrainerAdam",
    "nnUNetTrainerAdam1en3",
    "nnUNetTrainerAdam3en4",
    "nnUNetTrainerAdan",
    "nnUNetTrainerAdan1en1",
    "nnUNetTrainerAdan1en3",
    "nnUNetTrainerAdan3en4",
    "nnUNetTrainerAdanCosAnneal",
    "nnUNetTrainerBenchmark_5epochs",
    "nnUNetTrainerCELoss",
    "nnUNetTrainerCELoss_5epochs",
    "nnUNetTrainerCosAnneal",
    "nnUNetTrainerDA5",
    "nnUNetTrainerDA5Segord0",
    "nnUNetTrainerDA5_10epochs",
    "nnUNetTrainerDA5ord0",
    "nnUNetTrainerDiceCELoss_noSmooth",
    "nnUNetTrainerDiceLoss",
    "nnUNetTrainerDiceTopK10Loss",
    "nnUNetTrainerNoDA",
    "nnUNetTrainerNoDeepSupervision",
    "nnUNetTrainerNoMirroring",
    "nnUNetTrainerTopk10Loss",
    "nnUNetTrainerTopk10LossLS01",
    "nnUNetTrainerVanillaAdam",
    "nnUNetTrainerVanillaAdam1en3",
    "nnUNetTrainerVanillaAdam3en4",
    "nnUNetTrainer_100epochs",
    "nnUNetTrainer_10epochs",
    "nnUNetTrainer_1epoch",
    "nnUNetTrainer_2000epochs",
    "nnUNetTrainer_2000epochs_NoMirroring",
    "nnUNetTrainer_20epochs",
    "nnUNetTrainer_250epochs",
    "nnUNetTrainer_250epochs_NoMirroring",
    "nnUNetTrainer_4000epochs",
    "nnUNetTrainer_4000epochs_NoMirroring",
    "nnUNetTrainer_500epochs",
    "nnUNetTrainer_50epochs",
    "nnUNetTrainer_5epochs",
    "nnUNetTrainer_750epochs",
    "nnUNetTrainer_8000epochs",
    "nnUNetTrainer_8000epochs_NoMirroring",
    "nnUNetTrainer_DASegOrd0",
    "nnUNetTrainer_DASegOrd0_NoMirroring",
    "nnUNetTrainer_noDummy2DDA",
    "nnUNetTrainer_onlyMirror01",
    "nnUNetTrainer_onlyMirror01_1500ep",
    "nnUNetTrainer_onlyMirror01_DA5",
    "nnUNetTrainer_onlyMirror01_DASegOrd0",
    "nnUNetTrainer_probabilisticOversampling",
    "nnUNetTrainer_probabilisticOversampling_010",
    "nnUNetTrainer_probabilisticOversampling_033",
    "nnUNetTrainer_warmup",
];

/// What a checkpoint says beside its weights.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    trainer: String,
    configuration: String,
    mirror_axes: Vec<usize>,
}

/// Reads a results folder whole, and that of the stage before beside it.
pub(super) fn read(path: &Path, checkpoint: Option<&str>) -> Result<Trained, ImportError> {
    let checkpoint = checkpoint.unwrap_or(CHECKPOINT);
    let (mut trained, previous) = read_one(path, checkpoint)?;
    let Some((previous, folder)) = previous else {
        return Ok(trained);
    };
    let place = path.display().to_string();
    let (first, before) = read_one(&folder, checkpoint)?;
    let at = folder.display().to_string();
    if let Some((before, _)) = before {
        return Err(ImportError::unsupported(
            at,
            format!("it is itself a stage after `{before}`; a cascade of nnU-Net has two"),
        ));
    }
    let (own, other) = (&trained.configuration, &first.configuration);
    let same_outputs = first.labels == trained.labels && first.activation == trained.activation;
    if !same_outputs || own.channel_names != other.channel_names {
        return Err(ImportError::damaged(
            at,
            format!("its labels or channels are not those of {place}, whose first stage it is"),
        ));
    }
    trained.facts.push((
        "first stage".to_owned(),
        format!(
            "{previous}: {} × {}, grid {:?} mm, tiles of {:?}",
            first.members.len(),
            other.architecture.class_name(),
            other.spacing,
            other.patch_size
        ),
    ));
    if !first.keep_largest.is_empty() {
        trained.facts.push((
            "postprocessing of the first stage".to_owned(),
            "not applied between the stages, as nnU-Net does not".to_owned(),
        ));
    }
    trained.stages = vec![first];
    Ok(trained)
}

/// The results folder of another configuration of the same trainer and plans.
fn folder_of(path: &Path, configuration: &str) -> Result<PathBuf, ImportError> {
    let place = path.display().to_string();
    let whole = path.canonicalize().map_err(|source| ImportError::File {
        path: place.clone(),
        source,
    })?;
    let name = whole.file_name().map(|n| n.to_string_lossy().into_owned());
    let sibling = name
        .as_deref()
        .and_then(|name| name.rsplit_once("__"))
        .map(|(stem, _)| whole.with_file_name(format!("{stem}__{configuration}")));
    match sibling {
        Some(folder) if folder.join("plans.json").is_file() => Ok(folder),
        Some(folder) => Err(ImportError::damaged(
            place,
            format!(
                "it is the second stage of a cascade after `{configuration}`, and {} with a plans.json is not there; put it beside this folder",
                folder.display()
            ),
        )),
        None => Err(ImportError::damaged(
            place,
            format!(
                "it is the second stage of a cascade after `{configuration}`; name the folders as nnU-Net does (Trainer__Plans__configuration), so that the first stage is found beside it"
            ),
        )),
    }
}

/// Reads one results folder; also the name and folder of the configuration that comes before it.
fn read_one(path: &Path, checkpoint: &str) -> Result<(Trained, Option<(String, PathBuf)>), ImportError> {
    let files = folds(path, checkpoint)?;
    let mut opened = Vec::with_capacity(files.len());
    for file in &files {
        let place = file.display().to_string();
        let checkpoint = Checkpoint::open(file).map_err(|source| ImportError::Checkpoint {
            path: place.clone(),
            source,
        })?;
        let said = said(&checkpoint, &place)?;
        opened.push((place, checkpoint, said));
    }
    let Some((first_place, _, first)) = opened.first() else {
        return Err(ImportError::damaged(
            path.display().to_string(),
            "it has no folds",
        ));
    };
    if let Some((place, _, other)) = opened.iter().find(|(_, _, said)| said != first) {
        return Err(ImportError::damaged(
            place,
            format!("it says {other:?}, {first_place} says {first:?}; folds belong together"),
        ));
    }
    let said = first.clone();
    if !TRAINERS.contains(&said.trainer.as_str()) {
        return Err(ImportError::unsupported(
            first_place,
            format!(
                "trainer `{}` is none of those that are known to change only the training",
                said.trainer
            ),
        ));
    }
    let dataset = dataset::read(&path.join("dataset.json"))?;
    let plans = plans::read(&path.join("plans.json"), &said.configuration, &dataset)?;
    if let Some(axis) = said.mirror_axes.iter().find(|a| **a >= plans.patch_size.len()) {
        return Err(ImportError::damaged(
            first_place,
            format!("it mirrors axis {axis} of {}", plans.patch_size.len()),
        ));
    }
    let (previous, previous_stage) = plans.previous.unzip();
    let previous = match previous {
        Some(name) => Some((name.clone(), folder_of(path, &name)?)),
        None => None,
    };
    let keep_largest = postprocessing::read(path)?;
    let mut members = Vec::with_capacity(opened.len());
    for (place, checkpoint, _) in &mut opened {
        members.push(weights::read(checkpoint, place, &plans.architecture)?);
    }
    let names: Vec<String> = files
        .iter()
        .filter_map(|f| Some(f.parent()?.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let mut facts = vec![
        ("nnU-Net's dataset".to_owned(), plans.dataset_name.clone()),
        ("configuration".to_owned(), said.configuration.clone()),
        ("plans".to_owned(), plans.plans_name.clone()),
        ("trainer".to_owned(), said.trainer.clone()),
        ("folds".to_owned(), format!("{} ({checkpoint})", names.join(", "))),
    ];
    facts.extend(dataset.facts.iter().cloned());
    let (activation, labels) = match &dataset.labels {
        Labels::Exclusive(names) => {
            facts.push(("labels".to_owned(), names.join(", ")));
            let labels = (1..=u8::MAX).zip(names);
            (
                Activation::Softmax,
                labels
                    .map(|(value, name)| Label::unexplained(value, name))
                    .collect(),
            )
        }
        Labels::Regions(regions) => {
            let all = regions.iter().map(|r| format!("{} = {:?}", r.name, r.labels));
            facts.push(("regions".to_owned(), all.collect::<Vec<_>>().join(", ")));
            let labels = regions.iter().map(|r| Label::unexplained(r.value, &r.name));
            (Activation::Sigmoid, labels.collect())
        }
    };
    let channels = plans.channels;
    let trained = Trained {
        name: format!("{}-{}", plans.dataset_name, said.configuration),
        origin: format!("nnU-Net v2, {}", said.configuration),
        configuration: Configuration {
            grid: Grid::Volume {
                transpose_forward: plans.transpose_forward,
                use_mask_for_norm: channels.iter().map(|c| c.use_mask).collect(),
                resampling_data: plans.resampling_data,
                resampling_probabilities: plans.resampling_probabilities,
                previous_stage,
            },
            patch_size: plans.patch_size,
            spacing: plans.spacing,
            normalization_schemes: channels.iter().map(|c| c.normalization.clone()).collect(),
            channel_names: channels.into_iter().map(|c| c.name).collect(),
            tile_step_size: TILE_STEP_SIZE,
            architecture: plans.architecture,
        },
        members,
        // nnU-Net averages the logits of its folds.
        ensemble: Ensemble::MeanLogits,
        activation,
        labels,
        mirror_axes: said.mirror_axes,
        keep_largest,
        stages: Vec::new(),
        facts,
    };
    Ok((trained, previous))
}

/// The checkpoint of every fold, in order; all folds must have one.
fn folds(path: &Path, checkpoint: &str) -> Result<Vec<PathBuf>, ImportError> {
    let place = path.display().to_string();
    let entries = std::fs::read_dir(path).map_err(|source| ImportError::File {
        path: place.clone(),
        source,
    })?;
    let mut folds: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| {
            p.is_dir()
                && p.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with("fold_"))
        })
        .collect();
    folds.sort();
    if folds.len() > 1 && folds.iter().any(|f| f.ends_with("fold_all")) {
        return Err(ImportError::unsupported(
            place,
            "it has `fold_all` beside other folds, and nnU-Net uses either; move one away",
        ));
    }
    let missing = folds.iter().find(|f| !f.join(checkpoint).is_file());
    if let Some(fold) = missing {
        return Err(ImportError::damaged(
            fold.display().to_string(),
            format!(
                "it has no {checkpoint}; finish its training, name another with --checkpoint, or move the fold away"
            ),
        ));
    }
    if folds.is_empty() {
        return Err(ImportError::damaged(place, "it has no folds (fold_0, fold_1, …)"));
    }
    Ok(folds.iter().map(|f| f.join(checkpoint)).collect())
}

fn said(checkpoint: &Checkpoint, place: &str) -> Result<Said, ImportError> {
    let bad = |source| ImportError::Checkpoint {
        path: place.to_owned(),
        source,
    };
    let missing = |what: &str| {
        ImportError::damaged(
            place,
            format!("it has no `{what}`, which nnU-Net v2 writes into its checkpoints"),
        )
    };
    let root = checkpoint.root();
    let text = |id, what: &str| {
        let value = checkpoint.json(id).map_err(bad)?;
        value.as_str().map(str::to_owned).ok_or_else(|| missing(what))
    };
    let trainer = checkpoint
        .entry(root, "trainer_name")
        .ok_or_else(|| missing("trainer_name"))?;
    let configuration = checkpoint
        .entry(root, "init_args")
        .and_then(|args| checkpoint.entry(args, "configuration"))
        .ok_or_else(|| missing("init_args.configuration"))?;
    let mirror_axes = match checkpoint.entry(root, "inference_allowed_mirroring_axes") {
        None => Vec::new(),
        Some(id) => serde_json::from_value::<Option<Vec<usize>>>(checkpoint.json(id).map_err(bad)?)
            .map_err(|e| ImportError::damaged(place, format!("its mirror axes are not understood ({e})")))?
            .unwrap_or_default(),
    };
    Ok(Said {
        trainer: text(trainer, "trainer_name")?,
        configuration: text(configuration, "init_args.configuration")?,
        mirror_axes,
    })
}
