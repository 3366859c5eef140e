//! The list `fetch` of the file of targets → checked rules.
//!
//! As strict as the list of targets: what is not known or cannot be meant is refused in words.

use crate::{
    association::requestor::Peer,
    domain::failure::FailureClass,
    scu::entries::{self, text},
};
use reqwest::Url;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Keys of every rule.
const KEYS: [&str; 14] = [
    "name",
    "what",
    "from",
    "how",
    "url",
    "token_file",
    "when_modality",
    "when_body_part",
    "modality",
    "body_part",
    "within_days",
    "most",
    "per_hour",
    "analyse",
];
/// Priors that are fetched, when the file does not say.
const DEFAULT_MOST: u64 = 2;
/// Studies or series an hour, when the file does not say.
const DEFAULT_PER_HOUR: u64 = 60;
/// How old a prior may be, when the file does not say: five years.
const DEFAULT_DAYS: u64 = 1826;

/// Why a list of rules cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the rules for fetching in the file of targets cannot be used: {0}")]
pub struct RuleError(pub(crate) String);

impl RuleError {
    /// What is done about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Earlier studies of the same patient.
    Priors,
    /// Series of the same study that did not come.
    Missing,
}

/// Who it is fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// C-FIND, then C-MOVE to our listener.
    Move(Peer),
    /// C-FIND, then C-GET.
    Get(Peer),
    /// QIDO-RS, then WADO-RS.
    Web {
        /// The address below which `/studies` is.
        base: Url,
        /// File of a bearer token.
        token_file: Option<PathBuf>,
    },
}

/// A checked rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What is fetched.
    pub what: What,
    /// Who it is fetched from.
    pub source: Source,
    /// Modality of a study that it is for.
    pub when_modality: Option<String>,
    /// BodyPartExamined of a study that it is for.
    pub when_body_part: Option<String>,
    /// Modality of what is fetched.
    pub modality: Option<String>,
    /// BodyPartExamined of what is fetched.
    pub body_part: Option<String>,
    /// How many days before the study.
    pub within_days: u64,
    /// Priors at most; the latest first.
    pub most: usize,
    /// Studies or series an hour.
    pub per_hour: i64,
    /// Whether what comes is analysed.
    pub analyse: bool,
}

/// Reads the rules of a file that is JSON; `peers` are those of the same file.
///
/// # Errors
/// Says what is wrong with them.
pub fn parse(document: &Value, peers: &[Peer]) -> Result<Vec<Rule>, RuleError> {
    entries::optional(document, "fetch")
        .and_then(|list| {
            entries::named(
                list,
                "rule",
                |members| rule(members, peers),
                |rule: &Rule| &rule.name,
            )
        })
        .map_err(RuleError)
}

fn rule(members: &Map<String, Value>, peers: &[Peer]) -> Result<Rule, String> {
    if let Some(strange) = members.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!(
            "has the key `{}`; a rule has {}",
            strange.escape_debug(),
            KEYS.join(", ")
        ));
    }
    let name = text(members, "name")?.filter(|name| !name.is_empty());
    let what = match text(members, "what")?.as_deref() {
        Some("priors") => What::Priors,
        Some("missing") => What::Missing,
        _ => return Err("has a `what` that is neither `priors` nor `missing`".to_owned()),
    };
    let within_days = number(members, "within_days", DEFAULT_DAYS)?;
    let most = number(members, "most", DEFAULT_MOST)?;
    let per_hour = number(members, "per_hour", DEFAULT_PER_HOUR)?;
    let analyse = match members.get("analyse") {
        None => what == What::Missing,
        Some(value) => value
            .as_bool()
            .ok_or("has an `analyse` that is neither true nor false")?,
    };
    Ok(Rule {
        name: name.ok_or("has no `name`")?,
        what,
        source: source(members, peers)?,
        when_modality: text(members, "when_modality")?,
        when_body_part: text(members, "when_body_part")?,
        modality: text(members, "modality")?,
        body_part: text(members, "body_part")?,
        within_days,
        most: usize::try_from(most).unwrap_or(usize::MAX),
        per_hour: i64::try_from(per_hour).unwrap_or(i64::MAX),
        analyse,
    })
}

fn source(members: &Map<String, Value>, peers: &[Peer]) -> Result<Source, String> {
    let token_file = text(members, "token_file")?.map(PathBuf::from);
    match (text(members, "from")?, text(members, "url")?) {
        (Some(title), None) => {
            let peer = peers
                .iter()
                .find(|peer| peer.title == title)
                .cloned()
                .ok_or("is `from` somebody who is not among the `peers`")?;
            match text(members, "how")?.as_deref() {
                None | Some("get") => Ok(Source::Get(peer)),
                Some("move") => Ok(Source::Move(peer)),
                Some(_) => Err("has a `how` that is neither `get` nor `move`".to_owned()),
            }
        }
        (None, Some(url)) => {
            let problem = "has a `url` that is not like https://pacs.example/dicom-web";
            let base = Url::parse(url.trim_end_matches('/')).map_err(|_| problem)?;
            let is_plain = base.query().is_none() && base.fragment().is_none() && base.username().is_empty();
            if !matches!(base.scheme(), "http" | "https") || base.host().is_none() || !is_plain {
                return Err(problem.to_owned());
            }
            let is_near = matches!(base.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
            if token_file.is_some() && base.scheme() == "http" && !is_near {
                return Err(
                    "would send its token over http, where everybody can read it; use https".to_owned(),
                );
            }
            Ok(Source::Web { base, token_file })
        }
        _ => Err("needs `from`, the title of a peer, or `url`, and not both".to_owned()),
    }
}

fn number(members: &Map<String, Value>, key: &str, default: u64) -> Result<u64, String> {
    match members.get(key) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|number| (1..=100_000).contains(number))
            .ok_or_else(|| format!("has a `{key}` that is not a number from 1 to 100000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_rules_and_refuses_in_words_what_cannot_be_meant() {
        let peers = ["PACS@10.0.0.5:104".parse().unwrap()];
        let one = |members: &Value| {
            parse(&json!({ "fetch": [members] }), &peers)
                .map(|mut rules| rules.remove(0))
                .map_err(|error| error.to_string())
        };
        let good = json!({ "name": "priors", "what": "priors", "from": "PACS", "modality": "CT" });
        let rule = one(&good).unwrap();
        assert_eq!((rule.most, rule.analyse), (2, false));
        assert!(matches!(rule.source, Source::Get(_)));
        for (key, value, words) in [
            ("form", json!("x"), "has the key `form`"),
            ("what", json!("all"), "neither `priors` nor `missing`"),
            ("from", json!("VNA"), "not among the `peers`"),
            ("url", json!("https://a/b"), "not both"),
            ("how", json!("push"), "neither `get` nor `move`"),
            ("most", json!(0), "has a `most`"),
            ("analyse", json!("yes"), "neither true nor false"),
        ] {
            let mut members = good.clone();
            members[key] = value;
            let said = one(&members).unwrap_err();
            assert!(said.contains(words), "{key}: {said}");
        }
        let web = json!({ "name": "m", "what": "missing", "url": "http://127.0.0.1:8080/dicom-web/" });
        assert!(one(&web).unwrap().analyse);
    }
}
