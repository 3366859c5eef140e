//! Keeps patient data out of errors and logs.
//!
//! Foreign errors (dicom-rs, sqlx, serde) quote the values they choke on; [`redact`] is what they pass before they become a source of ours.
//! Tags, VRs, UIDs and numbers stay; quoted text goes.

use std::fmt;

/// A foreign error whose quoted values were taken out.
#[derive(Debug)]
pub struct Redacted(String);

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Redacted {}

/// Flattens an error and its causes into one line without the text they quote.
///
/// Whatever stands between quotes, and every word with a letter beyond ASCII or a `^` (a person name), becomes `…`.
/// A source's own words, identifiers, tags and numbers stay.
#[must_use]
pub fn redact(error: &(dyn std::error::Error + 'static)) -> Redacted {
    let mut lines = Vec::new();
    let mut cause = Some(error);
    while let Some(e) = cause {
        // Some errors print a backtrace below their sentence.
        let text = redact_text(e.to_string().lines().next().unwrap_or_default());
        if !lines.contains(&text) {
            lines.push(text);
        }
        cause = e.source();
    }
    Redacted(lines.join(": "))
}

/// The same for a text that is already at hand.
#[must_use]
pub fn redact_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(end) if c == end => {
                quote = None;
                out.push(c);
            }
            Some(_) => {}
            None if matches!(c, '"' | '`' | '“' | '«') => {
                quote = Some(match c {
                    '“' => '”',
                    '«' => '»',
                    same => same,
                });
                out.push(c);
                out.push('…');
            }
            None => out.push(c),
        }
    }
    out.split(' ')
        .map(|word| {
            let personal = word.contains('^') || word.chars().any(|c| c.is_alphabetic() && !c.is_ascii());
            if personal { "…" } else { word }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_quoted_values_and_person_names_out() {
        let said = redact_text("invalid value \"Doe^Jane\" for (0010,0010) PN near Müller, 12 bytes");
        assert_eq!(said, "invalid value \"…\" for (0010,0010) PN near … 12 bytes");
    }
}
