//! The network of a bundle: MONAI's constructor arguments → our [`Architecture`].

use super::{Config, Fields, ImportError};
use crate::domain::architecture::Architecture;
use serde_json::{Map, Value, json};

/// What a checkpoint holds beside the network's own tensors.
pub(super) struct Stored {
    /// Levels of a `DynUNet`, whose blocks stand in its state twice.
    pub(super) levels: Option<usize>,
    /// Tokens of a window along each axis, whose relative places a `SwinUNETR` stores.
    pub(super) window: Option<[usize; 3]>,
}

/// Reads the network's component.
pub(super) fn read(config: &Config, value: Value) -> Result<(Architecture, Stored), ImportError> {
    let (class, mut f) = config.component(value, &["use_checkpoint", "img_size", "use_flash_attention"])?;
    let spatial_dims = f
        .maybe::<usize>("spatial_dims")?
        .or(f.maybe("dimensions")?)
        .unwrap_or(3);
    let mut out = Map::new();
    out.insert("network_class_name".into(), json!(class));
    let mut stored = Stored {
        levels: None,
        window: None,
    };
    // Dropout does nothing at inference.
    f.ignore(&[
        "dropout",
        "dropout_prob",
        "drop_rate",
        "attn_drop_rate",
        "dropout_path_rate",
    ]);
    let required = |f: &mut Fields, out: &mut Map<String, Value>, keys: &[&str]| {
        for key in keys {
            out.insert((*key).to_owned(), f.take(key)?);
        }
        Ok::<_, ImportError>(())
    };
    let optional = |f: &mut Fields, out: &mut Map<String, Value>, keys: &[&str]| {
        for key in keys {
            if let Some(value) = f.maybe(key)? {
                out.insert((*key).to_owned(), value);
            }
        }
        Ok::<_, ImportError>(())
    };
    match class.as_str() {
        "UNet" => {
            out.insert("spatial_dims".into(), json!(spatial_dims));
            required(
                &mut f,
                &mut out,
                &["in_channels", "out_channels", "channels", "strides"],
            )?;
            optional(&mut f, &mut out, &["num_res_units", "bias"])?;
            for key in ["kernel_size", "up_kernel_size"] {
                if let Some(size) = f.maybe(key)? {
                    out.insert(key.into(), same_everywhere(f.place(), key, size)?);
                }
            }
            if let Some(strides) = out.remove("strides") {
                let each = strides.as_array().cloned().unwrap_or_default();
                let each = each.into_iter().map(|s| same_everywhere(f.place(), "strides", s));
                out.insert("strides".into(), Value::Array(each.collect::<Result<_, _>>()?));
            }
            if let Some(norm) = f.maybe("norm")? {
                out.insert("norm".into(), named(f.place(), "norm", norm)?);
            }
            if let Some(act) = f.maybe("act")? {
                let act = named(f.place(), "act", act)?;
                out.insert("act".into(), activation(f.place(), act)?);
            }
            f.expect("adn_ordering", &[Value::Null, json!("NDA")])?;
        }
        "DynUNet" => {
            out.insert("spatial_dims".into(), json!(spatial_dims));
            required(&mut f, &mut out, &["in_channels", "out_channels"])?;
            for key in ["kernel_size", "strides"] {
                let each: Vec<Value> = f.take(key)?;
                let each: Vec<Value> = each
                    .into_iter()
                    .map(|one| every_axis(one, spatial_dims))
                    .collect();
                out.insert(key.into(), Value::Array(each));
            }
            let up: Vec<Value> = f.take("upsample_kernel_size")?;
            let up: Vec<Value> = up.into_iter().map(|one| every_axis(one, spatial_dims)).collect();
            let strides = out["strides"].as_array().cloned().unwrap_or_default();
            if strides.get(1..) != Some(&up) {
                return Err(ImportError::unsupported(
                    f.place(),
                    "`upsample_kernel_size` is not `strides` without the first",
                ));
            }
            let most = if spatial_dims == 3 { 320u64 } else { 512 };
            let filters = f.maybe::<Value>("filters")?.unwrap_or_else(|| {
                (0..strides.len())
                    .map(|i| json!((32u64 << i.min(16)).min(most)))
                    .collect()
            });
            out.insert("filters".into(), filters);
            if let Some(norm) = f.maybe("norm_name")? {
                out.insert("norm_name".into(), named(f.place(), "norm_name", norm)?);
            }
            if let Some(act) = f.maybe("act_name")? {
                let act = activation(f.place(), named(f.place(), "act_name", act)?)?;
                if act != json!("LEAKYRELU") {
                    return Err(ImportError::unsupported(
                        f.place(),
                        format!("`act_name` is {act}; this build has leakyrelu of slope 0.01"),
                    ));
                }
            }
            // Its heads are idle at inference.
            f.ignore(&["deep_supervision", "deep_supr_num"]);
            optional(&mut f, &mut out, &["res_block", "trans_bias"])?;
            stored.levels = Some(strides.len());
        }
        "SegResNet" => {
            out.insert("spatial_dims".into(), json!(spatial_dims));
            for (key, default) in [
                ("init_filters", json!(8)),
                ("in_channels", json!(1)),
                ("out_channels", json!(2)),
                ("blocks_down", json!([1, 2, 2, 4])),
                ("blocks_up", json!([1, 1, 1])),
            ] {
                out.insert(key.into(), f.maybe(key)?.unwrap_or(default));
            }
            optional(&mut f, &mut out, &["upsample_mode"])?;
            if let Some(norm) = f.maybe("norm")? {
                out.insert("norm".into(), named(f.place(), "norm", norm)?);
            }
            if let Some(act) = f.maybe("act")? {
                let act = activation(f.place(), named(f.place(), "act", act)?)?;
                if act != json!("RELU") {
                    return Err(ImportError::unsupported(
                        f.place(),
                        format!("`act` is {act}; this build has RELU"),
                    ));
                }
            }
            f.expect("norm_name", &[Value::Null, json!("")])?;
            f.ignore(&["num_groups"]);
            f.expect("use_conv_final", &[Value::Null, json!(true)])?;
        }
        "SwinUNETR" => {
            if spatial_dims != 3 {
                return Err(ImportError::unsupported(f.place(), "`spatial_dims` is not 3"));
            }
            required(&mut f, &mut out, &["in_channels", "out_channels"])?;
            optional(
                &mut f,
                &mut out,
                &[
                    "depths",
                    "num_heads",
                    "qkv_bias",
                    "mlp_ratio",
                    "feature_size",
                    "normalize",
                    "downsample",
                    "use_v2",
                ],
            )?;
            let window = f.maybe("window_size")?.unwrap_or_else(|| json!(7));
            let window = every_axis(window, 3);
            stored.window = serde_json::from_value(window.clone()).ok();
            out.insert("window_size".into(), window);
            if let Some(norm) = f.maybe("norm_name")? {
                out.insert("norm_name".into(), named(f.place(), "norm_name", norm)?);
            }
            f.expect("patch_size", &[Value::Null, json!(2), json!([2, 2, 2])])?;
            f.expect("patch_norm", &[Value::Null, json!(false)])?;
            f.expect("use_hyena", &[Value::Null, json!(false)])?;
            f.expect("hyena_stages", &[Value::Null])?;
        }
        _ => {
            return Err(ImportError::unsupported(
                f.place(),
                format!("the network `{class}`; this build has UNet, DynUNet, SegResNet and SwinUNETR"),
            ));
        }
    }
    let place = f.place().to_owned();
    f.finish()?;
    let architecture = serde_json::from_value(Value::Object(out))
        .map_err(|e| ImportError::unsupported(place, format!("its arguments are not understood ({e})")))?;
    Ok((architecture, stored))
}

/// A size for all axes, or the same size for each.
fn same_everywhere(place: &str, key: &str, value: Value) -> Result<Value, ImportError> {
    match &value {
        Value::Array(list) if !list.is_empty() && list.iter().all(|one| *one == list[0]) => {
            Ok(list[0].clone())
        }
        Value::Array(_) => Err(ImportError::unsupported(
            place,
            format!("`{key}` is {value}, not the same on all axes"),
        )),
        _ => Ok(value),
    }
}

/// A size an axis.
fn every_axis(value: Value, axes: usize) -> Value {
    if value.is_array() {
        value
    } else {
        Value::Array(vec![value; axes])
    }
}

/// `"batch"` or `["group", {"num_groups": 4}]` → `{"name": …, …}`, and without arguments for an activation.
fn named(place: &str, key: &str, value: Value) -> Result<Value, ImportError> {
    let (name, kwargs) = match &value {
        Value::String(name) => (name.clone(), Map::new()),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(name)] => (name.clone(), Map::new()),
            [Value::String(name), Value::Object(kwargs)] => (name.clone(), kwargs.clone()),
            _ => return Err(ImportError::unsupported(place, format!("`{key}` is {value}"))),
        },
        _ => return Err(ImportError::unsupported(place, format!("`{key}` is {value}"))),
    };
    let mut out = kwargs;
    out.insert("name".into(), json!(name.to_uppercase()));
    Ok(Value::Object(out))
}

/// An activation in our words.
fn activation(place: &str, value: Value) -> Result<Value, ImportError> {
    let mut f = Fields::new(place, value)?;
    let name: String = f.take("name")?;
    f.ignore(&["inplace"]);
    match name.as_str() {
        "LEAKYRELU" => f
            .expect("negative_slope", &[Value::Null, json!(0.01)])
            .map(drop)?,
        "PRELU" => {
            // What it starts from; a checkpoint says what it became.
            f.ignore(&["init"]);
            f.expect("num_parameters", &[Value::Null, json!(1)])?;
        }
        _ => {}
    }
    f.finish()?;
    Ok(json!(name))
}
