//! A list of the file of targets → its entries, each an object with a name of its own.

use serde_json::{Map, Value};

/// Reads the entries of a list one by one; `one` is what an entry is called.
///
/// # Errors
/// Says which entry is wrong, and how: `read` gives the end of that sentence.
pub fn named<T>(
    list: &[Value],
    one: &str,
    read: impl Fn(&Map<String, Value>) -> Result<T, String>,
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>, String> {
    let mut found: Vec<T> = Vec::new();
    for (number, entry) in (1..).zip(list) {
        let wrong = |problem: String| format!("{one} {number} {problem}");
        let members = entry
            .as_object()
            .ok_or_else(|| wrong("is not an object".to_owned()))?;
        let entry = read(members).map_err(wrong)?;
        if found.iter().any(|other| name(other) == name(&entry)) {
            return Err(format!("two {one}s are called {}", name(&entry)));
        }
        found.push(entry);
    }
    Ok(found)
}

/// A list that the file need not have.
///
/// # Errors
/// When there is something else in its place.
pub fn optional<'a>(document: &'a Value, key: &str) -> Result<&'a [Value], String> {
    match document.get(key) {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(format!("`{key}` is not a list")),
    }
}

/// A text that an entry need not have.
///
/// # Errors
/// Says what is wrong, as the end of a sentence.
pub fn text(members: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match members.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("has a `{key}` that is not a text")),
    }
}
