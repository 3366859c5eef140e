//! `dataset.json` → channels, labels or regions, and what is known of the data.

use super::{Fields, ImportError};
use crate::domain::plan::Normalization;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, path::Path};

/// Keys that tell of the data and not of the model; they go onto the card.
const ABOUT: [&str; 9] = [
    "name",
    "description",
    "reference",
    "licence",
    "license",
    "release",
    "citation",
    "converted_by",
    "numTraining",
];

/// One input channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Channel {
    /// nnU-Net's name: `CT`.
    pub(super) name: String,
    /// How its values are normalised.
    pub(super) normalization: Normalization,
    /// Whether statistics are those of the non-zero part.
    pub(super) use_mask: bool,
}

/// One region: a set of labels with an output channel of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    /// Its name.
    pub(super) name: String,
    /// The labels that it unites.
    pub(super) labels: Vec<u8>,
    /// What `regions_class_order` writes where its score passes one half.
    pub(super) value: u8,
}

/// What the outputs mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Labels {
    /// Softmax over background and labels 1, 2, …: their names in order, without the background.
    Exclusive(Vec<String>),
    /// A sigmoid a region, in the order of the output channels; later regions overwrite earlier ones.
    Regions(Vec<Region>),
}

impl Labels {
    /// Output channels of the network.
    #[must_use]
    pub(super) fn heads(&self) -> usize {
        match self {
            Self::Exclusive(names) => names.len() + 1,
            Self::Regions(regions) => regions.len(),
        }
    }

    /// Every label but the background, in order.
    #[must_use]
    pub(super) fn foreground(&self) -> Vec<u8> {
        match self {
            Self::Exclusive(names) => (1..=u8::MAX).take(names.len()).collect(),
            Self::Regions(regions) => {
                let all: BTreeSet<u8> = regions.iter().flat_map(|r| r.labels.iter().copied()).collect();
                all.into_iter().filter(|label| *label != 0).collect()
            }
        }
    }
}

/// What a dataset says.
pub(super) struct Dataset {
    pub(super) channels: Vec<String>,
    pub(super) labels: Labels,
    pub(super) facts: Vec<(String, String)>,
}

pub(super) fn read(path: &Path) -> Result<Dataset, ImportError> {
    let mut d = Fields::read(path)?;
    // Early datasets called them modalities.
    let key = if d.has("channel_names") {
        "channel_names"
    } else {
        "modality"
    };
    let named: Map<String, Value> = d.take(key)?;
    let channels = (0..named.len())
        .map(|i| {
            named
                .get(&i.to_string())
                .and_then(Value::as_str)
                .map(str::to_owned)
        })
        .collect::<Option<Vec<_>>>()
        .filter(|c| !c.is_empty())
        .ok_or_else(|| {
            ImportError::damaged(
                d.place(),
                format!("`{key}` does not name channels 0, 1, … in a row"),
            )
        })?;
    let order: Option<Vec<u8>> = d.maybe("regions_class_order")?;
    let given: Map<String, Value> = d.take("labels")?;
    let labels = labels(d.place(), &given, order)?;
    let mut facts = vec![("channels".to_owned(), channels.join(", "))];
    for key in ABOUT {
        if let Some(value) = d.maybe::<Value>(key)? {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            facts.push((format!("dataset.json, {key}"), text));
        }
    }
    // Where the training's files lie and how they were read says nothing of the model; whatever else is there is prose too.
    Ok(Dataset {
        channels,
        labels,
        facts,
    })
}

fn labels(place: &str, given: &Map<String, Value>, order: Option<Vec<u8>>) -> Result<Labels, ImportError> {
    let mut named: Vec<(String, Vec<u8>)> = Vec::new();
    let mut united = false;
    for (name, value) in given {
        if name == "ignore" {
            return Err(ImportError::unsupported(
                place,
                "it has an `ignore` label, that is, sparse annotations",
            ));
        }
        let number = |v: &Value| v.as_u64().and_then(|n| u8::try_from(n).ok());
        let values = match value {
            Value::Array(list) => list.iter().map(number).collect::<Option<Vec<_>>>(),
            one => number(one).map(|n| vec![n]),
        };
        let values = values.filter(|v| !v.is_empty()).ok_or_else(|| {
            ImportError::damaged(
                place,
                format!("label `{name}` is {value}; labels are numbers from 0 to 255"),
            )
        })?;
        united |= values.len() > 1;
        named.push((name.clone(), values));
    }
    if !named.iter().any(|(name, v)| name == "background" && *v == [0]) {
        return Err(ImportError::damaged(
            place,
            "`labels` has no `background` of value 0",
        ));
    }
    named.retain(|(_, values)| values.iter().any(|v| *v != 0));
    let all: BTreeSet<u8> = named.iter().flat_map(|(_, v)| v.iter().copied()).collect();
    let row: BTreeSet<u8> = (u8::from(!all.contains(&0))..=u8::MAX).take(all.len()).collect();
    if all.is_empty() || all != row {
        return Err(ImportError::damaged(
            place,
            format!("the labels {all:?} are not 1, 2, … in a row"),
        ));
    }
    if united {
        let order = order.filter(|o| o.len() == named.len()).ok_or_else(|| {
            ImportError::damaged(
                place,
                format!(
                    "it has {} regions and no regions_class_order of that length",
                    named.len()
                ),
            )
        })?;
        let regions = named
            .into_iter()
            .zip(order)
            .map(|((name, labels), value)| Region { name, labels, value });
        return Ok(Labels::Regions(regions.collect()));
    }
    named.sort_by_key(|(_, values)| values[0]);
    if named.len() != all.len() {
        return Err(ImportError::damaged(place, "two labels have the same value"));
    }
    Ok(Labels::Exclusive(
        named.into_iter().map(|(name, _)| name).collect(),
    ))
}
