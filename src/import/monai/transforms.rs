//! The transforms of a bundle, before and after its network: the few that are known, in the order that they allow.

use super::{Config, Fields, ImportError};
use crate::domain::{oriented::Step, plan::Activation};
use serde_json::{Value, json};

/// What is done to an image.
pub(super) struct Chain {
    pub(super) axcodes: Option<String>,
    pub(super) steps: Vec<Step>,
    /// Whether outputs are 0 where the image was cut away.
    pub(super) cropped: bool,
    /// Under which name the image goes through.
    pub(super) key: String,
    /// The same in words.
    pub(super) told: String,
}

/// What is done to an answer.
pub(super) struct After {
    pub(super) activate_first: bool,
    pub(super) activation: Activation,
    /// From which probability on an output holds; none: the highest output does.
    pub(super) threshold: Option<f64>,
    pub(super) told: String,
}

/// A dictionary transform by its name without the ending.
fn base(class: &str) -> Option<&str> {
    ["Dict", "d", "D"].iter().find_map(|end| class.strip_suffix(end))
}

/// The transforms of a `Compose`, or of a list.
fn list(config: &Config, value: Value) -> Result<Vec<Value>, ImportError> {
    let list = match value {
        Value::Array(list) => list,
        other => {
            let (class, mut f) = config.component(other, &["map_items", "unpack_items", "log_stats"])?;
            if class != "Compose" {
                return Err(ImportError::unsupported(
                    config.place(),
                    format!("`{class}` where Compose was expected"),
                ));
            }
            f.expect("lazy", &[Value::Null, json!(false)])?;
            f.expect("overrides", &[Value::Null])?;
            let list = f.take("transforms")?;
            f.finish()?;
            list
        }
    };
    let mut kept = Vec::new();
    for one in list {
        if !config.is_disabled(&one)? {
            kept.push(one);
        }
    }
    Ok(kept)
}

/// Takes `keys`, which must be one name, the same everywhere.
fn key(f: &mut Fields, known: &mut Option<String>) -> Result<(), ImportError> {
    let value: Value = f.take("keys")?;
    let name = match &value {
        Value::String(name) => Some(name.clone()),
        Value::Array(list) => match list.as_slice() {
            [Value::String(name)] => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    let name = name.ok_or_else(|| {
        ImportError::unsupported(f.place(), format!("`keys` are {value}, expected one image"))
    })?;
    if let Some(other) = known.as_ref().filter(|known| **known != name) {
        return Err(ImportError::unsupported(
            f.place(),
            format!("`keys` are {name:?}, the transforms before it have {other:?}"),
        ));
    }
    *known = Some(name);
    f.expect("allow_missing_keys", &[Value::Null, json!(false)])?;
    f.expect("lazy", &[Value::Null, json!(false)])?;
    Ok(())
}

/// A value that may stand alone or in a list of one.
fn alone(f: &mut Fields, name: &str, allowed: &[Value]) -> Result<Value, ImportError> {
    match f.maybe::<Value>(name)? {
        Some(Value::Array(list)) if list.len() == 1 && allowed.contains(&list[0]) => Ok(list[0].clone()),
        Some(value) if !allowed.contains(&value) => Err(ImportError::unsupported(
            f.place(),
            format!("`{name}` is {value}, this build knows {}", json!(allowed)),
        )),
        value => Ok(value.unwrap_or_default()),
    }
}

const F32: [&str; 4] = ["float32", "torch.float32", "np.float32", "numpy.float32"];

/// Reads what comes before the network.
///
/// `slice_axis` is across which axis a 2-D network is moved.
pub(super) fn before(config: &Config, slice_axis: Option<usize>) -> Result<Chain, ImportError> {
    let (mut axcodes, mut steps, mut name) = (None, Vec::new(), None);
    let (mut loaded, mut told) = (false, Vec::new());
    let float = || {
        let mut allowed: Vec<Value> = F32.iter().map(|t| json!(t)).collect();
        allowed.push(Value::Null);
        allowed
    };
    for value in list(
        config,
        config.one_of(&["preprocessing", "preprocessing_transforms", "pre_transforms"])?,
    )? {
        let value = plain_dtypes(value);
        let (class, mut f) = config.component(
            value,
            &[
                "device",
                "track_meta",
                "data_type",
                "image_only",
                "strict_check",
                "ensure_same_shape",
                "prune_meta_pattern",
                "prune_meta_sep",
                "wrap_sequence",
                "allow_missing_keys",
            ],
        )?;
        match base(&class) {
            Some("LoadImage") => {
                f.expect("reader", &[Value::Null, json!("NibabelReader")])?;
                f.expect("ensure_channel_first", &[Value::Null, json!(true), json!(false)])?;
                f.expect("simple_keys", &[Value::Null, json!(true), json!(false)])?;
                f.expect("dtype", &float())?;
                loaded = true;
            }
            Some("EnsureChannelFirst") => {
                f.expect("channel_dim", &[Value::Null, json!("no_channel")])?;
            }
            Some("EnsureType") => {
                f.expect("dtype", &float())?;
            }
            Some("ToTensor") => {}
            Some("Orientation") => {
                f.expect("as_closest_canonical", &[Value::Null, json!(false)])?;
                f.expect("labels", &[Value::Null])?;
                if axcodes.is_some() || steps.iter().any(|s| matches!(s, Step::Spacing { .. })) {
                    return Err(ImportError::unsupported(
                        f.place(),
                        "it comes twice, or after Spacingd, whose axes it would change",
                    ));
                }
                axcodes = Some(f.take("axcodes")?);
            }
            Some("Spacing") => {
                let mut pixdim: [f64; 3] = f.take("pixdim")?;
                if let Some(axis) = slice_axis.filter(|axis| (-1.0..=0.0).contains(&pixdim[*axis])) {
                    // MONAI's word for: as it lies.
                    pixdim[axis] = 0.0;
                }
                alone(&mut f, "mode", &[Value::Null, json!("bilinear")])?;
                alone(&mut f, "padding_mode", &[Value::Null, json!("border")])?;
                alone(&mut f, "align_corners", &[Value::Null, json!(false)])?;
                alone(
                    &mut f,
                    "dtype",
                    &[
                        Value::Null,
                        json!("float64"),
                        json!("torch.float64"),
                        json!("np.float64"),
                        json!("numpy.float64"),
                    ],
                )?;
                alone(&mut f, "scale_extent", &[Value::Null, json!(false)])?;
                for off in ["diagonal", "recompute_affine"] {
                    f.expect(off, &[Value::Null, json!(false)])?;
                }
                for absent in ["min_pixdim", "max_pixdim"] {
                    f.expect(absent, &[Value::Null])?;
                }
                steps.push(Step::Spacing { pixdim });
            }
            Some("ScaleIntensityRange") => {
                f.expect("dtype", &float())?;
                steps.push(Step::ScaleIntensityRange {
                    a_min: f.take("a_min")?,
                    a_max: f.take("a_max")?,
                    b_min: f.take("b_min")?,
                    b_max: f.take("b_max")?,
                    clip: f.maybe("clip")?.unwrap_or(false),
                });
            }
            Some("NormalizeIntensity") => {
                f.expect("dtype", &float())?;
                for absent in ["subtrahend", "divisor"] {
                    f.expect(absent, &[Value::Null])?;
                }
                steps.push(Step::NormalizeIntensity {
                    nonzero: f.maybe("nonzero")?.unwrap_or(false),
                    channel_wise: f.maybe("channel_wise")?.unwrap_or(false),
                });
            }
            Some("CropForeground") => {
                let source: String = f.take("source_key")?;
                if let Some(other) = name.as_ref().filter(|name| **name != source) {
                    return Err(ImportError::unsupported(
                        f.place(),
                        format!("`source_key` is {source:?}, the transforms before it have {other:?}"),
                    ));
                }
                for absent in ["select_fn", "channel_indices"] {
                    f.expect(absent, &[Value::Null])?;
                }
                constant(&mut f)?;
                for zero in ["value", "constant_values"] {
                    f.expect(zero, &[Value::Null, json!(0), json!(0.0)])?;
                }
                // Where they put what they found into the image's header.
                f.ignore(&["start_coord_key", "end_coord_key"]);
                steps.push(Step::CropForeground {
                    margin: each(&mut f, "margin", 0)?,
                    allow_smaller: f.maybe("allow_smaller")?.unwrap_or(false),
                    k_divisible: each(&mut f, "k_divisible", 1)?,
                });
            }
            Some("SpatialPad") => {
                if !steps.iter().any(|s| matches!(s, Step::Spacing { .. })) {
                    return Err(ImportError::unsupported(f.place(), "it comes before Spacingd"));
                }
                let method = f.expect("method", &[Value::Null, json!("symmetric"), json!("end")])?;
                constant(&mut f)?;
                f.expect("constant_values", &[Value::Null])?;
                steps.push(Step::SpatialPad {
                    spatial_size: each(&mut f, "spatial_size", 0)?,
                    at_end: method == json!("end"),
                    value: f.maybe("value")?.unwrap_or(0.0),
                });
            }
            _ => {
                return Err(ImportError::unsupported(
                    config.place(),
                    format!(
                        "the transform `{class}`; before the network this build knows LoadImaged, EnsureChannelFirstd, EnsureTyped, ToTensord, Orientationd, Spacingd, ScaleIntensityRanged, NormalizeIntensityd, CropForegroundd and SpatialPadd"
                    ),
                ));
            }
        }
        if !loaded {
            return Err(ImportError::unsupported(
                config.place(),
                format!("`{class}` comes before LoadImaged"),
            ));
        }
        key(&mut f, &mut name)?;
        f.finish()?;
        told.push(class);
    }
    if !steps.iter().any(|s| matches!(s, Step::Spacing { .. })) {
        return Err(ImportError::unsupported(
            config.place(),
            "without Spacingd before the network, which would see whatever grid comes; of bundles this build runs those that say theirs",
        ));
    }
    Ok(Chain {
        cropped: steps.iter().any(|s| matches!(s, Step::CropForeground { .. })),
        axcodes,
        steps,
        key: name.unwrap_or_default(),
        told: told.join(", "),
    })
}

/// What is put beside an image is one value.
fn constant(f: &mut Fields) -> Result<(), ImportError> {
    f.expect("mode", &[Value::Null, json!("constant")]).map(drop)
}

/// A size for all axes or for each.
fn each(f: &mut Fields, key: &str, default: usize) -> Result<[usize; 3], ImportError> {
    let value = f.maybe::<Value>(key)?.unwrap_or_else(|| json!(default));
    let list = match &value {
        Value::Array(list) if list.len() == 3 => list.clone(),
        Value::Array(_) => Vec::new(),
        one => vec![one.clone(); 3],
    };
    let sizes: Option<Vec<usize>> = list
        .iter()
        .map(|one| {
            // MONAI's word for any.
            let any = key == "spatial_size" && *one == json!(-1);
            if any {
                Some(0)
            } else {
                usize::try_from(one.as_u64()?).ok()
            }
        })
        .collect();
    sizes.and_then(|sizes| sizes.try_into().ok()).ok_or_else(|| {
        ImportError::unsupported(
            f.place(),
            format!("`{key}` is {value}, expected a number of voxels, or one for each of three axes"),
        )
    })
}

/// Types of numbers may be written as expressions, and are names all the same.
fn plain_dtypes(mut value: Value) -> Value {
    let dtype = value.get_mut("dtype");
    if let Some(Value::String(text)) = dtype
        && let Some(name) = text.strip_prefix('$')
        && ["float32", "float64"].iter().any(|end| name.ends_with(end))
    {
        *text = name.to_owned();
    }
    value
}

/// Reads what comes after the network and undoes the chain before it.
pub(super) fn after(config: &Config, chain: &Chain) -> Result<After, ImportError> {
    let (place, image) = (config.place(), &chain.key);
    let wrong = |what: &str| Err(ImportError::unsupported(place, what));
    let (mut activated, mut inverted, mut decided) = (None, false, false);
    let (mut activate_first, mut threshold) = (false, None);
    let (mut name, mut told) = (None, Vec::new());
    for value in list(
        config,
        config.one_of(&["postprocessing", "postprocessing_transforms", "post_transforms"])?,
    )? {
        if value
            .get("_target_")
            .and_then(Value::as_str)
            .is_some_and(|t| base(t) == Some("SaveImage"))
        {
            continue;
        }
        // What it undoes is compared as it stands: a reference.
        let mut value = value;
        let undone = value.as_object_mut().and_then(|map| map.remove("transform"));
        let (class, mut f) = config.component(
            value,
            &[
                "device",
                "to_tensor",
                "meta_keys",
                "orig_meta_keys",
                "meta_key_postfix",
                "track_meta",
                "data_type",
            ],
        )?;
        match base(&class) {
            Some("Activations") if activated.is_none() && !decided => {
                let (on, off) = (
                    [json!(true), json!([true])],
                    [Value::Null, json!(false), json!([false])],
                );
                let all = [&on[..], &off[..]].concat();
                let softmax = f.expect("softmax", &all)?;
                activated = if on.contains(&softmax) {
                    f.expect("sigmoid", &off)?;
                    Some(Activation::Softmax)
                } else {
                    f.expect("sigmoid", &on)?;
                    Some(Activation::Sigmoid)
                };
                f.expect("other", &off)?;
                activate_first = !inverted;
            }
            Some("Invert") if !inverted && !decided => {
                let before = ["preprocessing", "preprocessing_transforms", "pre_transforms"];
                let known = before.iter().any(|key| {
                    config.raw(key).is_some() && undone.as_ref().is_some_and(|u| Config::refers_to(u, key))
                });
                if !known {
                    return wrong("Invertd undoes something else than the preprocessing");
                }
                f.expect("orig_keys", &[Value::Null, json!(image), json!([image])])?;
                alone(&mut f, "nearest_interp", &[json!(false)])?;
                f.expect("post_func", &[Value::Null])?;
                inverted = true;
            }
            Some("AsDiscrete") if inverted && !decided => {
                let off = [Value::Null, json!(false), json!([false]), json!([null])];
                if activated == Some(Activation::Sigmoid) {
                    f.expect("argmax", &off)?;
                    let value: Value = f.take("threshold")?;
                    let one = value
                        .as_array()
                        .filter(|list| list.len() == 1)
                        .map_or(&value, |list| &list[0]);
                    let share = one.as_f64().filter(|share| *share > 0.0 && *share < 1.0);
                    threshold = Some(share.ok_or_else(|| {
                        ImportError::unsupported(
                            f.place(),
                            format!("`threshold` is {value}, expected one number between 0 and 1"),
                        )
                    })?);
                } else {
                    f.expect("argmax", &[json!(true), json!([true])])?;
                    f.expect("threshold", &off)?;
                }
                for absent in ["to_onehot", "rounding"] {
                    f.expect(absent, &off)?;
                }
                decided = true;
            }
            Some("EnsureType" | "ToTensor") => f.ignore(&["dtype"]),
            Some("Activations" | "Invert" | "AsDiscrete") => {
                return wrong("Activationsd, Invertd and AsDiscreted in another order than this one");
            }
            _ => {
                return wrong(&format!(
                    "the transform `{class}`; after the network this build knows Activationsd, Invertd, AsDiscreted, EnsureTyped, ToTensord and SaveImaged"
                ));
            }
        }
        key(&mut f, &mut name)?;
        f.finish()?;
        told.push(class);
    }
    if !inverted || !decided {
        return wrong(
            "without Invertd and AsDiscreted after the network: its answer would stay on a grid of its own, or undecided",
        );
    }
    let activation = activated.unwrap_or(Activation::Softmax);
    if activation == Activation::Sigmoid && chain.cropped && !activate_first {
        return wrong(
            "Activationsd (sigmoid) after Invertd, with CropForegroundd: what was cut away would come back as 0.5",
        );
    }
    Ok(After {
        activate_first,
        activation,
        threshold,
        told: told.join(", "),
    })
}
