//! `plans.json` → architecture, grid, normalisation and resampling of one configuration.

use super::{
    Fields, ImportError,
    architecture::{self, Outside},
    dataset::{Channel, Dataset},
};
use crate::domain::{
    architecture::Architecture,
    plan::{Normalization, PreviousStage, Resampling},
};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Reads of images that keep the axes as they are stored: `z, y, x`.
const READERS: [&str; 2] = ["SimpleITKIO", "NibabelIO"];
/// nnU-Net divides by no less than this.
const LEAST_STD: f64 = 1e-8;
/// Most voxels of a tile: 512 a side, far beyond what fits any device that trained it.
const MOST_VOXELS: usize = 1 << 27;
/// Longest chain of `inherits_from`.
const LONGEST_CHAIN: usize = 8;

/// What one configuration says.
pub(super) struct Plans {
    pub(super) dataset_name: String,
    pub(super) plans_name: String,
    pub(super) architecture: Architecture,
    pub(super) patch_size: Vec<usize>,
    pub(super) spacing: Vec<f64>,
    pub(super) transpose_forward: [usize; 3],
    pub(super) channels: Vec<Channel>,
    pub(super) resampling_data: Resampling,
    pub(super) resampling_probabilities: Resampling,
    /// The configuration whose label map this one is shown, and how.
    pub(super) previous: Option<(String, PreviousStage)>,
}

pub(super) fn read(path: &Path, configuration: &str, dataset: &Dataset) -> Result<Plans, ImportError> {
    let mut plans = Fields::read(path)?;
    plans.ignore(&[
        "original_median_spacing_after_transp",
        "original_median_shape_after_transp",
        "experiment_planner_used",
        "continue_training",
    ]);
    plans.expect("image_reader_writer", &READERS.map(Value::from))?;
    plans.expect("label_manager", &["LabelManager".into()])?;
    let transpose_forward: [usize; 3] = plans.take("transpose_forward")?;
    let transpose_backward: [usize; 3] = plans.take("transpose_backward")?;
    let inverse = (0..3).all(|axis| {
        let there = transpose_forward.get(axis).copied().unwrap_or(3);
        transpose_backward.get(there) == Some(&axis)
    });
    if !inverse {
        return Err(ImportError::damaged(
            plans.place(),
            format!(
                "transpose_backward {transpose_backward:?} does not undo transpose_forward {transpose_forward:?}"
            ),
        ));
    }
    let (dataset_name, plans_name) = (plans.take("dataset_name")?, plans.take("plans_name")?);
    let intensities: Map<String, Value> = plans.take("foreground_intensity_properties_per_channel")?;
    let configurations = plans.inner("configurations")?;
    plans.finish()?;

    let mut c = resolve(configurations, configuration)?;
    c.ignore(&[
        "data_identifier",
        "batch_size",
        "batch_dice",
        "median_image_size_in_voxels",
        "next_stage",
    ]);
    let previous_stage: Option<String> = c.maybe("previous_stage")?;
    c.expect("preprocessor_name", &["DefaultPreprocessor".into()])?;
    let patch_size: Vec<usize> = c.take("patch_size")?;
    let spacing: Vec<f64> = c.take("spacing")?;
    if !matches!(patch_size.len(), 2 | 3) || patch_size.contains(&0) || spacing.len() != patch_size.len() {
        return Err(ImportError::damaged(
            c.place(),
            format!("patch_size {patch_size:?} and spacing {spacing:?} do not fit each other"),
        ));
    }
    let voxels = patch_size.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    if voxels.is_none_or(|n| n > MOST_VOXELS) {
        return Err(ImportError::unsupported(
            c.place(),
            format!("patch_size {patch_size:?} has more than {MOST_VOXELS} voxels"),
        ));
    }
    if spacing.iter().any(|s| !s.is_finite() || *s <= 0.0) {
        return Err(ImportError::damaged(c.place(), format!("spacing is {spacing:?}")));
    }
    let schemes: Vec<String> = c.take("normalization_schemes")?;
    let masks: Vec<bool> = c.take("use_mask_for_norm")?;
    let channels = channels(c.place(), dataset, &schemes, &masks, &intensities)?;
    // Without a cascade, segmentations are resampled in training only.
    let previous = if let Some(name) = previous_stage {
        let labels = dataset.labels.foreground();
        let resampling = resampling_seg(&mut c)?;
        Some((name, PreviousStage { labels, resampling }))
    } else {
        c.ignore(&["resampling_fn_seg", "resampling_fn_seg_kwargs"]);
        None
    };
    let resampling_data = resampling(&mut c, "data")?;
    let resampling_probabilities = resampling(&mut c, "probabilities")?;
    let outside = Outside {
        input_channels: channels.len() + previous.as_ref().map_or(0, |(_, p)| p.labels.len()),
        num_classes: dataset.labels.heads(),
        axes: patch_size.len(),
    };
    let architecture = architecture::read(&mut c, outside)?;
    c.finish()?;
    let divisors = architecture.divisors();
    let fits = |(size, divisor): (&usize, &usize)| size.is_multiple_of(*divisor);
    if let Some(axis) = patch_size.iter().zip(&divisors).position(|pair| !fits(pair)) {
        return Err(ImportError::damaged(
            path.display().to_string(),
            format!("patch_size {patch_size:?} is no multiple of {divisors:?} on axis {axis}"),
        ));
    }
    Ok(Plans {
        dataset_name,
        plans_name,
        architecture,
        patch_size,
        spacing,
        transpose_forward,
        channels,
        resampling_data,
        resampling_probabilities,
        previous,
    })
}

/// A configuration with everything that it inherits.
fn resolve(configurations: Fields, name: &str) -> Result<Fields, ImportError> {
    let place = configurations.place().to_owned();
    let all = configurations.into_map();
    let mut merged = Map::new();
    let mut next = Some(name.to_owned());
    let mut steps = 0;
    while let Some(name) = next.take() {
        steps += 1;
        if steps > LONGEST_CHAIN {
            return Err(ImportError::damaged(
                &place,
                "configurations inherit from each other without end",
            ));
        }
        let Some(Value::Object(map)) = all.get(&name) else {
            let known: Vec<&String> = all.keys().collect();
            return Err(ImportError::damaged(
                &place,
                format!("it has no configuration `{name}`, only {known:?}"),
            ));
        };
        for (key, value) in map {
            if key == "inherits_from" {
                next = value.as_str().map(str::to_owned);
            } else if !merged.contains_key(key) {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    Fields::new(format!("{place}, `{name}`"), Value::Object(merged))
}

fn channels(
    place: &str,
    dataset: &Dataset,
    schemes: &[String],
    masks: &[bool],
    intensities: &Map<String, Value>,
) -> Result<Vec<Channel>, ImportError> {
    if schemes.len() != dataset.channels.len() || masks.len() != schemes.len() {
        return Err(ImportError::damaged(
            place,
            format!(
                "it has {} normalization_schemes and {} use_mask_for_norm for the {} channels of dataset.json",
                schemes.len(),
                masks.len(),
                dataset.channels.len()
            ),
        ));
    }
    let mut channels = Vec::new();
    for (i, ((name, scheme), mask)) in dataset.channels.iter().zip(schemes).zip(masks).enumerate() {
        let number = |key: &str| {
            let value = intensities.get(&i.to_string()).and_then(|p| p.get(key)?.as_f64());
            value.filter(|v| v.is_finite()).ok_or_else(|| {
                ImportError::damaged(
                    place,
                    format!(
                        "channel {i} has no number `{key}` in foreground_intensity_properties_per_channel"
                    ),
                )
            })
        };
        let normalization = match scheme.as_str() {
            "CTNormalization" => Normalization::CTNormalization {
                lower_hu: number("percentile_00_5")?,
                upper_hu: number("percentile_99_5")?,
                mean_hu: number("mean")?,
                std_hu: number("std")?.max(LEAST_STD),
            },
            "ZScoreNormalization" => Normalization::ZScoreNormalization,
            "NoNormalization" => Normalization::NoNormalization,
            "RescaleTo01Normalization" => Normalization::RescaleTo01Normalization,
            "RGBTo01Normalization" => Normalization::RGBTo01Normalization,
            _ => {
                return Err(ImportError::unsupported(
                    place,
                    format!(
                        "normalization scheme `{scheme}` of channel {i} ({name}); this build knows nnU-Net's own five"
                    ),
                ));
            }
        };
        if let Normalization::CTNormalization {
            lower_hu, upper_hu, ..
        } = normalization
            && lower_hu > upper_hu
        {
            return Err(ImportError::damaged(
                place,
                format!("channel {i} is clipped from {lower_hu} to {upper_hu}"),
            ));
        }
        channels.push(Channel {
            name: name.clone(),
            normalization,
            use_mask: *mask,
        });
    }
    Ok(channels)
}

/// How the label map of the stage before is resampled.
fn resampling_seg(c: &mut Fields) -> Result<Resampling, ImportError> {
    kwargs_of(c, "seg", true, &[json!(0), json!(1)], &[json!(0)])
}

/// How images or logits are resampled.
fn resampling(c: &mut Fields, of: &str) -> Result<Resampling, ImportError> {
    kwargs_of(
        c,
        of,
        false,
        &[json!(0), json!(1), json!(3)],
        &[json!(0), json!(1)],
    )
}

/// The function and its arguments.
fn kwargs_of(
    c: &mut Fields,
    of: &str,
    is_seg: bool,
    orders: &[Value],
    orders_z: &[Value],
) -> Result<Resampling, ImportError> {
    c.expect(
        &format!("resampling_fn_{of}"),
        &["resample_data_or_seg_to_shape".into()],
    )?;
    let mut kwargs = c.inner(&format!("resampling_fn_{of}_kwargs"))?;
    kwargs.expect("is_seg", &[json!(is_seg)])?;
    let order = kwargs.expect("order", orders)?;
    let order_z = kwargs.expect("order_z", orders_z)?;
    let separate = kwargs.expect("force_separate_z", &[Value::Null, json!(true), json!(false)])?;
    let small = |v: &Value| v.as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or_default();
    kwargs.finish()?;
    Ok(Resampling {
        order: small(&order),
        order_z: small(&order_z),
        force_separate_z: separate.as_bool(),
    })
}
