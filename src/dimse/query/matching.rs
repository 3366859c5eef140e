//! A key of a query and a stored attribute → whether they match.
//!
//! | kind | VRs |
//! |---|---|
//! | wildcards `*` and `?` | AE, CS, LO, LT, PN, SH, ST, UC, UR, UT; PN without regard to case, each group by itself |
//! | range | DA, TM, DT |
//! | number | DS, IS, US, UL, SS, SL, FL, FD |
//! | the same | UI and all others |
//!
//! Several values of a key match when one of them does, and one of several stored values is enough.
//!
//! Source: PS3.4 section C.2.2.2.

use crate::dicom::from_json::text;
use dicom_core::VR;
use serde_json::Value;

/// Whether an attribute in the DICOM JSON model matches a key that has a value; one that is not there matches none.
pub(super) fn fits(stored: Option<&Value>, vr: VR, wanted: &str) -> bool {
    let stored: Vec<String> = stored
        .and_then(|attribute| attribute.get("Value")?.as_array())
        .into_iter()
        .flatten()
        .map(text)
        .filter(|text| !text.is_empty())
        .collect();
    let keeps_backslash = matches!(vr, VR::LT | VR::ST | VR::UT | VR::UR);
    let any = |wanted: &str| stored.iter().any(|stored| matches(stored, vr, wanted.trim()));
    if keeps_backslash {
        any(wanted)
    } else {
        wanted.split('\\').any(any)
    }
}

fn matches(stored: &str, vr: VR, wanted: &str) -> bool {
    match vr {
        VR::PN => name_matches(stored, wanted),
        VR::DA | VR::TM | VR::DT => {
            let Some((from, to)) = range(vr, wanted) else {
                return false;
            };
            from.is_none_or(|from| stored >= from.as_str())
                // '~' sorts after every digit: "2024~" covers all of 2024.
                && to.is_none_or(|to| stored <= format!("{to}~").as_str())
        }
        VR::DS | VR::IS | VR::US | VR::UL | VR::SS | VR::SL | VR::FL | VR::FD => {
            let number = |text: &str| text.trim().parse::<f64>().ok();
            number(stored).is_some() && number(stored) == number(wanted)
        }
        VR::AE | VR::CS | VR::LO | VR::LT | VR::SH | VR::ST | VR::UC | VR::UR | VR::UT => {
            like(&characters(wanted), &characters(stored.trim()))
        }
        _ => stored == wanted,
    }
}

/// A key of one group matches each group of a name; a key of several, each its own.
fn name_matches(stored: &str, wanted: &str) -> bool {
    let fold = |text: &str| characters(text.trim_end_matches('^').trim().to_lowercase().as_str());
    if !wanted.contains('=') {
        return stored.split('=').any(|group| like(&fold(wanted), &fold(group)));
    }
    let mut groups = stored.split('=');
    wanted.split('=').all(|wanted| {
        let group = groups.next().unwrap_or_default();
        wanted.is_empty() || like(&fold(wanted), &fold(group))
    })
}

fn characters(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// `*` is any number of characters, `?` is one.
fn like(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(&c) if c == '?' || c == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                // The last star takes one character more.
                let Some((star_at, taken)) = star else {
                    return false;
                };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                from = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|&c| c == '*')
}

/// A date, a time, or a range of them: the two ends, either of which may be open; `None` when it is none.
pub(super) fn range(vr: VR, wanted: &str) -> Option<(Option<String>, Option<String>)> {
    let (from, to) = wanted.split_once('-').unwrap_or((wanted, wanted));
    let end = |text: &str| -> Option<Option<String>> {
        // Before 1993 it was 2024.01.31 and 12:30:00 (PS3.5 table 6.2-1).
        let text: String = text
            .trim()
            .chars()
            .filter(|&c| c != ':' && !(vr == VR::DA && c == '.'))
            .collect();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = match vr {
            VR::DA => whole.len() <= 8,
            VR::TM => whole.len() <= 6,
            _ => whole.len() <= 14,
        };
        (fits && is_digits(whole) && is_digits(fraction))
            .then(|| Some(text.clone()).filter(|t| !t.is_empty()))
    };
    Some((end(from)?, end(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(values: Value) -> Value {
        json!({ "vr": "LO", "Value": values })
    }

    #[test]
    fn wildcards_are_any_number_or_one() {
        for (pattern, text, expected) in [
            ("Head*", "Head 5 mm", true),
            ("*mm", "Head 5 mm", true),
            ("H?ad*5*", "Head 5 mm", true),
            ("head*", "Head 5 mm", false),
            ("Head", "Head 5 mm", false),
            ("*a*b*", "xaxxb", true),
            ("*a*b", "xabx", false),
            ("?", "", false),
            ("**", "", true),
        ] {
            assert_eq!(
                like(&characters(pattern), &characters(text)),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn names_match_without_regard_to_case_in_each_group() {
        let name =
            json!({ "vr": "PN", "Value": [{ "Alphabetic": "Müller^Jörg", "Ideographic": "山田^太郎" }] });
        for (wanted, expected) in [
            ("müller*", true),
            ("MÜLLER^JÖRG", true),
            ("山田*", true),
            ("=山田*", true),
            ("M*=山*", true),
            ("山田*=", false),
            ("Muller*", false),
        ] {
            assert_eq!(fits(Some(&name), VR::PN, wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn lists_ranges_and_numbers() {
        let modalities = stored(json!(["CT", "SEG"]));
        assert!(fits(Some(&modalities), VR::CS, "MR\\SEG"));
        assert!(!fits(Some(&modalities), VR::CS, "MR"));
        let born = stored(json!(["19500102"]));
        assert!(fits(Some(&born), VR::DA, "1940-1950"));
        assert!(!fits(Some(&born), VR::DA, "19510101-"));
        assert!(fits(Some(&stored(json!([5]))), VR::DS, "5.0"));
        assert!(!fits(None, VR::LO, "x"));
        assert_eq!(
            range(VR::DA, "2024.01.31"),
            Some((Some("20240131".into()), Some("20240131".into())))
        );
        assert_eq!(range(VR::TM, "1230-"), Some((Some("1230".into()), None)));
        assert_eq!(range(VR::DA, "soon"), None);
    }
}
