//! `inference.json`: components by their class, references followed, expressions refused by name.

use super::{Fields, ImportError};
use serde_json::{Map, Value};
use std::path::Path;

/// Longest chain of references.
const DEEPEST: usize = 16;
/// What says nothing of what a component computes.
const PROSE: [&str; 3] = ["_desc_", "_requires_", "_disabled_"];
/// Where MONAI keeps its classes.
const PACKAGE: &str = "monai.";

/// A bundle's configuration.
pub(super) struct Config {
    place: String,
    root: Map<String, Value>,
}

impl Config {
    pub(super) fn read(path: &Path) -> Result<Self, ImportError> {
        let fields = Fields::read(path)?;
        Ok(Self {
            place: fields.place().to_owned(),
            root: fields.into_map(),
        })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The first of these keys that holds a component, as it stands there.
    pub(super) fn one_of(&self, keys: &[&str]) -> Result<Value, ImportError> {
        let found = keys.iter().filter_map(|key| self.root.get(*key));
        let mut resolved = Vec::new();
        for value in found {
            resolved.push(self.resolve(value.clone(), 0)?);
        }
        let component = resolved
            .into_iter()
            .find(|value| value.get("_target_").is_some() || value.is_array());
        component.ok_or_else(|| {
            ImportError::unsupported(
                &self.place,
                format!(
                    "it has no component under {}",
                    keys.iter()
                        .map(|k| format!("`{k}`"))
                        .collect::<Vec<_>>()
                        .join(" or ")
                ),
            )
        })
    }

    /// Whether a text is a reference to exactly this key.
    pub(super) fn refers_to(value: &Value, key: &str) -> bool {
        value.as_str().and_then(reference) == Some(key)
    }

    /// The value of a key as it stands, without following references inside.
    pub(super) fn raw(&self, key: &str) -> Option<&Value> {
        self.root.get(key)
    }

    /// Follows references; other expressions stay as they are.
    pub(super) fn resolve(&self, value: Value, depth: usize) -> Result<Value, ImportError> {
        if depth > DEEPEST {
            return Err(ImportError::damaged(&self.place, "its references have no end"));
        }
        Ok(match value {
            Value::String(text) => match reference(&text) {
                Some(key) => self.resolve(self.find(key, &text)?, depth + 1)?,
                None => Value::String(text),
            },
            Value::Array(list) => Value::Array(
                list.into_iter()
                    .map(|one| self.resolve(one, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(map) => {
                let mut out = Map::new();
                for (key, one) in map {
                    // What a transform undoes is named, not copied.
                    let one = if key == "transform" {
                        one
                    } else {
                        self.resolve(one, depth + 1)?
                    };
                    out.insert(key, one);
                }
                Value::Object(out)
            }
            other => other,
        })
    }

    /// A key such as `a::b` or `a#0#b`.
    fn find(&self, key: &str, text: &str) -> Result<Value, ImportError> {
        let mut parts = key.split("::").flat_map(|part| part.split('#'));
        let first = parts.next().and_then(|part| self.root.get(part));
        let found = parts.fold(first, |at, part| {
            let at = at?;
            at.get(part).or_else(|| at.get(part.parse::<usize>().ok()?))
        });
        found.cloned().ok_or_else(|| {
            ImportError::damaged(
                &self.place,
                format!("{text:?} refers to something that is not there"),
            )
        })
    }

    /// The class of a component without its package, and its arguments but those of `ignored`; no expression is left in them.
    pub(super) fn component(&self, value: Value, ignored: &[&str]) -> Result<(String, Fields), ImportError> {
        let mut fields = Fields::new(&self.place, value)?;
        let target: String = fields.take("_target_")?;
        let class = if let Some(inner) = target.strip_prefix(PACKAGE) {
            inner.rsplit('.').next().unwrap_or_default()
        } else if target.contains('.') {
            return Err(ImportError::unsupported(
                &self.place,
                format!("the class `{target}`, which is not MONAI's"),
            ));
        } else {
            &target
        };
        let mut fields = Fields::new(
            format!("{}, `{class}`", self.place),
            Value::Object(fields.into_map()),
        )?;
        fields.expect("_mode_", &[Value::Null, "default".into()])?;
        fields.ignore(&PROSE);
        fields.ignore(ignored);
        let mut map = fields.clone().into_map();
        // Components within this one are looked at when it is their turn.
        map.remove("transforms");
        if let Some((key, expression)) = map
            .iter()
            .find_map(|(key, value)| Some((key, expression(value)?)))
        {
            return Err(ImportError::unsupported(
                fields.place(),
                format!("`{key}` is the expression {expression:?}, and none is evaluated; write its value"),
            ));
        }
        Ok((class.to_owned(), fields))
    }

    /// Whether a component is left out; only what says so plainly is.
    pub(super) fn is_disabled(&self, value: &Value) -> Result<bool, ImportError> {
        match value.get("_disabled_") {
            None | Some(Value::Null | Value::Bool(false)) => Ok(false),
            Some(Value::Bool(true)) => Ok(true),
            Some(other) => Err(ImportError::unsupported(
                &self.place,
                format!("`_disabled_` is {other}, expected true or false"),
            )),
        }
    }
}

/// What `@key` or `$@key` refers to, if a text is one of these and no more.
fn reference(text: &str) -> Option<&str> {
    let key = text.strip_prefix("$@").or_else(|| text.strip_prefix('@'))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '#' | ':');
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// The first expression or macro within a value.
fn expression(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => text.starts_with(['$', '%', '@']).then_some(text),
        Value::Array(list) => list.iter().find_map(expression),
        Value::Object(map) => map.values().find_map(expression),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(root: Value) -> Config {
        Config {
            place: "inference.json".into(),
            root: root.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn references_are_followed_and_expressions_are_not() {
        let c = config(json!({"a": {"b": [1, "@d"]}, "d": 7, "loop": "@loop"}));
        let resolved = |text: &str| c.resolve(json!(text), 0);
        assert_eq!(resolved("@a::b").unwrap(), json!([1, 7]));
        assert_eq!(resolved("$@a#b#1").unwrap(), json!(7));
        assert_eq!(resolved("$@d + 1").unwrap(), json!("$@d + 1"));
        assert!(resolved("@gone").unwrap_err().to_string().contains("@gone"));
        assert!(resolved("@loop").unwrap_err().to_string().contains("no end"));
    }

    #[test]
    fn a_component_is_monais_and_its_arguments_are_values() {
        let c = config(json!({}));
        let (class, _) = c
            .component(
                json!({"_target_": "monai.networks.nets.UNet", "device": "$x"}),
                &["device"],
            )
            .unwrap();
        assert_eq!(class, "UNet");
        for (value, words) in [
            (json!({"_target_": "scripts.net.Mine"}), "scripts.net.Mine"),
            (json!({"_target_": "UNet", "x": [1, "$2 * 3"]}), "$2 * 3"),
            (json!({"_target_": "UNet", "x": "%other.json::x"}), "%other.json"),
        ] {
            let error = c.component(value, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
