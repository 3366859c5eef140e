//! A JSON or YAML object that is read key by key; what nobody asked for is refused by name.

use super::{ImportError, yaml};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// Most bytes of a file; the longest of real models have a few hundred thousand.
const MOST_BYTES: u64 = 16 << 20;

/// An object, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    place: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads a file, JSON or YAML by its name.
    pub(super) fn read(path: &Path) -> Result<Self, ImportError> {
        let place = path.display().to_string();
        let file = |source| ImportError::File {
            path: place.clone(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(file)?.len();
        if bytes > MOST_BYTES {
            return Err(ImportError::damaged(
                &place,
                format!("it has {bytes} bytes, at most {MOST_BYTES} are read"),
            ));
        }
        let bytes = std::fs::read(path).map_err(file)?;
        let yaml = path.extension().is_some_and(|end| end != "json");
        let value = if yaml {
            let text = std::str::from_utf8(&bytes)
                .map_err(|_| ImportError::damaged(&place, "it is not text in UTF-8"))?;
            yaml::read(text).map_err(|what| ImportError::damaged(&place, what))?
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|e| ImportError::damaged(&place, format!("it is not JSON ({e})")))?
        };
        Self::new(place, value)
    }

    pub(super) fn new(place: impl Into<String>, value: Value) -> Result<Self, ImportError> {
        let place = place.into();
        match value {
            Value::Object(map) => Ok(Self { place, map }),
            other => Err(ImportError::damaged(
                place,
                format!("expected an object, found {other}"),
            )),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Takes a value that may be absent or null.
    pub(super) fn maybe<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, ImportError> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|e| ImportError::damaged(&self.place, format!("`{key}` is not understood ({e})"))),
        }
    }

    /// Takes a value.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, ImportError> {
        self.maybe(key)?
            .ok_or_else(|| ImportError::damaged(&self.place, format!("it has no `{key}`")))
    }

    /// Takes an inner object.
    pub(super) fn inner(&mut self, key: &str) -> Result<Self, ImportError> {
        let place = format!("{}, `{key}`", self.place);
        Self::new(place, self.take(key)?)
    }

    /// Takes a value that must be one of a few.
    pub(super) fn expect(&mut self, key: &str, allowed: &[Value]) -> Result<Value, ImportError> {
        let value = self.map.remove(key).unwrap_or(Value::Null);
        if allowed.contains(&value) {
            return Ok(value);
        }
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        Err(ImportError::unsupported(
            &self.place,
            format!("`{key}` is {value}, this build knows {}", allowed.join(", ")),
        ))
    }

    /// Drops keys that say nothing about what the model computes.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.remove(*key);
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// All keys that are left, with their values.
    pub(super) fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// Ends the reading.
    pub(super) fn finish(self) -> Result<(), ImportError> {
        let left: Vec<&String> = self.map.keys().collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(ImportError::unsupported(
            &self.place,
            format!("this build does not know {left:?}"),
        ))
    }
}
