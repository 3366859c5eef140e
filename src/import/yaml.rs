//! A YAML file → the JSON value that PyYAML's `safe_load` makes of it, or a refusal.
//!
//! PyYAML reads YAML 1.1: `yes` is true, and `1e-4`, without a point, is a text.
//! What two readers may take differently (octal and sexagesimal numbers, merges, tags, a key twice) is refused.
//!
//! Source: PyYAML 6.0, `resolver.py`.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;

/// Most values, with every alias written out.
const MOST_VALUES: usize = 100_000;
/// Most values within each other.
const DEEPEST: usize = 64;

/// A list or an object that is not closed yet.
enum Open {
    List(usize, Vec<Value>),
    Object(usize, Map<String, Value>, Option<String>),
}

/// Reads one document.
///
/// # Errors
/// Where and what, without a final stop.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let (mut open, mut known): (Vec<Open>, HashMap<usize, (Value, usize)>) = (Vec::new(), HashMap::new());
    let (mut values, mut root) = (0usize, None);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| format!("it is not YAML ({e})"))?;
        let at = |what: &str| format!("line {}: {what}", span.start.line());
        let (anchor, value, more) = match event {
            Event::Alias(anchor) => {
                let (value, more) = known
                    .get(&anchor)
                    .cloned()
                    .ok_or_else(|| at("an alias stands within what it names"))?;
                (0, value, more)
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(at("it has a tag, and none is read; write the plain value"));
            }
            Event::Scalar(text, style, anchor, None) => {
                let value = if style == ScalarStyle::Plain {
                    plain(&text).map_err(|what| at(&what))?
                } else {
                    Value::String(text.into_owned())
                };
                (anchor, value, 1)
            }
            Event::SequenceStart(anchor, None) => {
                open.push(Open::List(anchor, Vec::new()));
                deep(&open).map_err(|what| at(&what))?;
                continue;
            }
            Event::MappingStart(anchor, None) => {
                open.push(Open::Object(anchor, Map::new(), None));
                deep(&open).map_err(|what| at(&what))?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(anchor, list)) => (anchor, Value::Array(list), 1),
                Some(Open::Object(anchor, map, _)) => (anchor, Value::Object(map), 1),
                None => return Err(at("a list or an object ends that never began")),
            },
            _ => continue,
        };
        values = values.saturating_add(more);
        if values > MOST_VALUES {
            return Err(at(&format!(
                "it has more than {MOST_VALUES} values, with its aliases written out"
            )));
        }
        if anchor > 0 {
            let size = size(&value);
            known.insert(anchor, (value.clone(), size));
        }
        match open.last_mut() {
            None if root.is_some() => return Err(at("it has more than one document")),
            None => root = Some(value),
            Some(Open::List(_, list)) => list.push(value),
            Some(Open::Object(_, map, key)) => match (key.take(), value) {
                (Some(name), value) => {
                    map.insert(name, value);
                }
                (None, Value::String(name)) if name == "<<" => {
                    return Err(at(
                        "it merges objects (`<<`), which is not read; write the keys out",
                    ));
                }
                (None, Value::String(name)) if map.contains_key(&name) => {
                    return Err(at(&format!("the key {name:?} stands there twice")));
                }
                (None, Value::String(name)) => *key = Some(name),
                (None, other) => return Err(at(&format!("the key {other} is no text; put it in quotes"))),
            },
        }
    }
    root.ok_or_else(|| "it is empty".to_owned())
}

fn deep(open: &[Open]) -> Result<(), String> {
    if open.len() > DEEPEST {
        return Err(format!(
            "more than {DEEPEST} lists and objects stand within each other"
        ));
    }
    Ok(())
}

/// Values within a value, itself included.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// A text without quotes.
fn plain(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Ok(true.into()),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Ok(false.into()),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(Value::String(text.to_owned()));
    }
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    if digits(unsigned) && (unsigned == "0" || !unsigned.starts_with('0')) {
        let number = text.strip_prefix('+').unwrap_or(text).parse::<i64>();
        return number
            .map(Value::from)
            .map_err(|_| format!("the number {text} is too large"));
    }
    // With a point, and a sign where there is an exponent; a sign and then the point is a text.
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "+0"));
    let pointed = mantissa
        .split_once('.')
        .is_some_and(|(a, b)| digits(a) && digits(b) && (!a.is_empty() || !b.is_empty() && unsigned == text));
    let signed = exponent
        .strip_prefix(['-', '+'])
        .is_some_and(|e| !e.is_empty() && digits(e));
    if pointed && signed {
        let number = text.parse::<f64>().ok().and_then(Number::from_f64);
        return number
            .map(Value::Number)
            .ok_or_else(|| format!("the number {text} is too large"));
    }
    let otherwise = unsigned
        .strip_prefix(['0'])
        .is_some_and(|rest| rest.starts_with(['x', 'b', 'o']) || (digits(rest) && !rest.is_empty()));
    let spaced =
        unsigned.contains(['_', ':']) && unsigned.chars().all(|c| c.is_ascii_digit() || "_:.".contains(c));
    if otherwise || spaced || matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Err(format!(
            "{text} is written in a way that readers take differently; write a decimal number, or a text in quotes"
        ));
    }
    Ok(Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As PyYAML 6.0.4 reads it.
    #[test]
    fn values_are_pyyamls() {
        let text = "
a: [1, -2, +3, 0, 1.5, .5, -.5, 1., 1.0e-4, 1e-4, 1.0e4]
b: {c: yes, d: Off, e: ~, f: null, g: '1', h: \"x\\ty\", i: '@a#0'}
j: &j
  - $@a + 1
  - torch.float32
k: *j
l:
m: 3d
n: |
  two
  lines
o: 1.6.1
";
        assert_eq!(
            read(text).unwrap(),
            json!({
                "a": [1, -2, 3, 0, 1.5, 0.5, "-.5", 1.0, 0.0001, "1e-4", "1.0e4"],
                "b": {"c": true, "d": false, "e": null, "f": null, "g": "1", "h": "x\ty", "i": "@a#0"},
                "j": ["$@a + 1", "torch.float32"],
                "k": ["$@a + 1", "torch.float32"],
                "l": null, "m": "3d", "n": "two\nlines\n", "o": "1.6.1",
            })
        );
    }

    #[test]
    fn refuses_what_is_hostile_or_taken_differently_and_says_where() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let inner = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb += &format!("a{i}: &a{i} [{inner}]\n");
        }
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let (deep, deeper) = (nested(100), nested(2000));
        for (text, words) in [
            (bomb.as_str(), "more than 100000 values"),
            (&deep, "within each other"),
            (&deeper, "recursion limit"),
            ("a: &a [*a]", "line 1"),
            ("a: *b", "line 1"),
            ("a: 1\na: 2", "\"a\" stands there twice"),
            ("a: !!python/object/apply:os.system [x]", "line 1: it has a tag"),
            ("a: &a {b: 1}\nc: {<<: *a}", "merges objects"),
            ("a: 0x10", "differently"),
            ("a: 010", "differently"),
            ("a: 1_000", "differently"),
            ("a: 1:30", "differently"),
            ("a: .inf", "differently"),
            ("1: a", "the key 1 is no text"),
            ("a: 1\n---\nb: 2", "more than one document"),
            ("a: [1, 2", "it is not YAML"),
            ("a: 99999999999999999999", "too large"),
            ("", "it is empty"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{words} not in: {error}");
        }
    }
}
