//! What is said in a stored instance, as a search reads it.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::collections::BTreeMap;

/// A stored dataset in the DICOM JSON model, of which only those attributes are read that are asked for: an answer of a search
/// has a few of the dozens that an instance has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Metadata(BTreeMap<String, Box<RawValue>>);

impl Metadata {
    /// An attribute by its key, `GGGGEEEE`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value> {
        serde_json::from_str(self.0.get(key)?.get()).ok()
    }

    /// The keys of all attributes, in ascending order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
