//! A file of targets → checked [`Target`]s.
//!
//! The file is strict: a key that is not known, a value that cannot be meant and a name that is there twice are refused
//! in words, because a result that silently goes nowhere is found out too late.
//! It holds no secret: a token is named by its file or its environment variable, and read at each delivery, so that it
//! may be changed while the server runs.

use crate::{
    association::requestor::Peer, db::outbox::TargetRule, domain::failure::FailureClass, scu::peers,
};
use reqwest::{Url, header::HeaderValue};
use serde_json::{Map, Value};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

/// How often a delivery is tried when the file does not say: after the first ten attempts, which take three
/// quarters of an hour, every half hour for three days, which is a weekend with a holiday.
const DEFAULT_ATTEMPTS: i32 = 155;
/// The most attempts that a file may ask for.
const MOST_ATTEMPTS: i64 = 10_000;
/// The longest name of a target.
const LONGEST_NAME: usize = 32;
/// Results that there are.
const RESULTS: [&str; 4] = ["seg", "pm", "sr", "other"];
/// Keys of the file; the other lists are read by who uses them.
const KEYS: [&str; 3] = ["targets", "peers", "fetch"];
/// Keys of every target.
const COMMON_KEYS: [&str; 5] = ["name", "kind", "results", "when", "attempts"];

/// Why a file of targets cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It cannot be read.
    #[error("cannot read the file of targets {path}; name an existing file")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no JSON.
    #[error("the file of targets is not JSON: the mistake is in line {line}, column {column}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// It is JSON that does not describe targets.
    #[error("the file of targets cannot be used: {0}")]
    Meaning(String),
    /// A token is not where the file says.
    #[error("the token of the target {target} {problem}")]
    Token {
        /// Name of the target.
        target: String,
        /// What is wrong and where, without the token.
        problem: String,
    },
}

impl TargetError {
    /// What is done about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// Where a bearer token is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// No token.
    None,
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// How results get to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// STOW-RS (PS3.18 section 10.5).
    Stow {
        /// The studies resource: the URL of the file with `/studies`.
        studies: Url,
        /// What it wants to see.
        token: Token,
    },
    /// C-STORE (PS3.4 annex B).
    CStore {
        /// Who is called, and where.
        peer: Peer,
        /// Who calls.
        calling: String,
        /// Whether an instance is delivered only when the target has committed to it (PS3.4 annex J).
        commit: bool,
    },
}

impl Way {
    /// The word for it in the file and the database.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stow { .. } => "stow",
            Self::CStore { .. } => "cstore",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stow { studies, .. } => write!(f, "{studies}"),
            Self::CStore { peer, .. } => write!(f, "{peer}"),
        }
    }
}

/// Somebody who gets results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How it is reached.
    pub way: Way,
    /// What it gets; its name too.
    pub rule: TargetRule,
}

impl Target {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.rule.name
    }

    /// The Authorization header that the target wants, read now.
    pub(super) fn authorization(&self, token: &Token) -> Result<Option<HeaderValue>, TargetError> {
        let failed = |problem: String| TargetError::Token {
            target: self.name().to_owned(),
            problem,
        };
        let text = match token {
            Token::None => return Ok(None),
            Token::File(path) => std::fs::read_to_string(path)
                .map_err(|error| failed(format!("cannot be read from its file: {}", error.kind())))?,
            Token::Variable(name) => std::env::var(name)
                .map_err(|_| failed(format!("is not in the environment variable {name}; set it")))?,
        };
        let token = text.lines().next().unwrap_or_default().trim();
        if token.is_empty() {
            return Err(failed("is empty".to_owned()));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| failed("holds characters that no header may hold".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Reads a file of targets; tokens that are not there are found out now.
///
/// # Errors
/// Says what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<Target>, TargetError> {
    let text = std::fs::read_to_string(path).map_err(|source| TargetError::Read {
        path: path.display().to_string(),
        source,
    })?;
    let targets = parse(&text)?;
    for target in &targets {
        if let Way::Stow { token, .. } = &target.way {
            target.authorization(token)?;
        }
    }
    Ok(targets)
}

/// Reads the text of such a file.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Target>, TargetError> {
    let document: Value = serde_json::from_str(text).map_err(|error| TargetError::Json {
        line: error.line(),
        column: error.column(),
    })?;
    targets(&document).map_err(TargetError::Meaning)
}

fn targets(document: &Value) -> Result<Vec<Target>, String> {
    let list = document
        .as_object()
        .filter(|members| members.keys().all(|key| KEYS.contains(&key.as_str())))
        .and_then(|members| members.get("targets"))
        .and_then(Value::as_array)
        .ok_or(
            "it must be an object with the key `targets`, a list, and beside it at most `peers` and `fetch`",
        )?;
    let mut found: Vec<Target> = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        let number = index + 1;
        let members = entry
            .as_object()
            .ok_or_else(|| format!("target {number} is not an object"))?;
        let target = target(members).map_err(|problem| format!("target {number} {problem}"))?;
        if found.iter().any(|other| other.name() == target.name()) {
            return Err(format!("two targets are called {}", target.name()));
        }
        found.push(target);
    }
    Ok(found)
}

fn target(members: &Map<String, Value>) -> Result<Target, String> {
    let name = text(members, "name")?.ok_or("has no `name`")?;
    let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(named) {
        return Err(format!(
            "has a `name` that is not 1 to {LONGEST_NAME} letters, digits, `.`, `_` and `-`"
        ));
    }
    let kind = text(members, "kind")?.ok_or("has no `kind`: `stow` or `cstore`")?;
    let (way, own): (_, &[&str]) = match kind.as_str() {
        "stow" => (stow(members)?, &["url", "token_file", "token_env"]),
        "cstore" => (
            c_store(members)?,
            &[
                "host",
                "port",
                "called",
                "calling",
                "commit",
                "tls_ca",
                "tls_certificate",
                "tls_key",
            ],
        ),
        _ => return Err("has a `kind` that is neither `stow` nor `cstore`".to_owned()),
    };
    let known = |key: &str| COMMON_KEYS.contains(&key) || own.contains(&key);
    if let Some(strange) = members.keys().find(|key| !known(key)) {
        return Err(format!(
            "has the key `{}`; a target of the kind {kind} has {} and {}",
            strange.escape_debug(),
            COMMON_KEYS.join(", "),
            own.join(", ")
        ));
    }
    let attempts = match members.get("attempts") {
        None => DEFAULT_ATTEMPTS,
        Some(value) => value
            .as_i64()
            .filter(|count| (1..=MOST_ATTEMPTS).contains(count))
            .and_then(|count| i32::try_from(count).ok())
            .ok_or_else(|| format!("has `attempts` that are not a number from 1 to {MOST_ATTEMPTS}"))?,
    };
    Ok(Target {
        rule: TargetRule {
            name,
            kind: way.kind().to_owned(),
            roles: roles(members)?,
            answers: answers(members)?,
            attempts,
        },
        way,
    })
}

fn stow(members: &Map<String, Value>) -> Result<Way, String> {
    let base = text(members, "url")?.ok_or("has no `url`, the one below which `/studies` is")?;
    let problem = "has a `url` that is not like https://pacs.example/dicom-web";
    let studies = Url::parse(&format!("{}/studies", base.trim_end_matches('/'))).map_err(|_| problem)?;
    let plain = studies.query().is_none() && studies.fragment().is_none();
    if !matches!(studies.scheme(), "http" | "https") || studies.host().is_none() || !plain {
        return Err(problem.to_owned());
    }
    if !studies.username().is_empty() || studies.password().is_some() {
        return Err("has a `url` with a name or password in it; use `token_file` or `token_env`".to_owned());
    }
    let token = match (text(members, "token_file")?, text(members, "token_env")?) {
        (None, None) => Token::None,
        (Some(path), None) => Token::File(PathBuf::from(path)),
        (None, Some(name)) => Token::Variable(name),
        (Some(_), Some(_)) => return Err("has both `token_file` and `token_env`; keep one".to_owned()),
    };
    let near = matches!(studies.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    if token != Token::None && studies.scheme() == "http" && !near {
        return Err("would send its token over http, where everybody can read it; use https".to_owned());
    }
    Ok(Way::Stow { studies, token })
}

fn c_store(members: &Map<String, Value>) -> Result<Way, String> {
    let commit = match members.get("commit") {
        None => false,
        Some(value) => value
            .as_bool()
            .ok_or("has a `commit` that is neither true nor false")?,
    };
    Ok(Way::CStore {
        peer: peers::peer(members, "called")?,
        calling: peers::title(members, "calling")?.unwrap_or_else(|| "ICTUS".to_owned()),
        commit,
    })
}

fn roles(members: &Map<String, Value>) -> Result<Vec<String>, String> {
    let problem = || {
        format!(
            "has `results` that are not a list of some of {}",
            RESULTS.join(", ")
        )
    };
    let Some(value) = members.get("results") else {
        return Ok(["pm", "seg", "sr"].map(str::to_owned).to_vec());
    };
    let list = value
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(problem)?;
    let roles: Option<BTreeSet<String>> = list
        .iter()
        .map(|role| {
            role.as_str()
                .filter(|role| RESULTS.contains(role))
                .map(str::to_owned)
        })
        .collect();
    Ok(roles.ok_or_else(problem)?.into_iter().collect())
}

fn answers(members: &Map<String, Value>) -> Result<Vec<String>, String> {
    let answers: &[&str] = match text(members, "when")?.as_deref() {
        None | Some("always") => &["absent", "not_evaluated", "present", "uncertain"],
        Some("flagged") => &["present"],
        Some("flagged_or_uncertain") => &["present", "uncertain"],
        Some(_) => {
            return Err("has a `when` that is none of always, flagged, flagged_or_uncertain".to_owned());
        }
    };
    Ok(answers.iter().map(|answer| (*answer).to_owned()).collect())
}

fn text(members: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match members.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("has a `{key}` that is not a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(members: Value) -> Result<Target, String> {
        parse(&json!({ "targets": [members] }).to_string())
            .map(|mut targets| targets.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn reads_a_target_of_each_kind() {
        let stow = one(json!({
            "name": "vna", "kind": "stow", "url": "https://vna.example/dicom-web/", "token_env": "VNA_TOKEN",
            "results": ["sr", "seg", "sr"], "when": "flagged", "attempts": 3
        }))
        .unwrap();
        assert_eq!(stow.way.to_string(), "https://vna.example/dicom-web/studies");
        assert_eq!(stow.rule.roles, ["seg", "sr"]);
        assert_eq!(
            (stow.rule.answers, stow.rule.attempts),
            (vec!["present".to_owned()], 3)
        );
        let pacs = one(
            json!({ "name": "pacs", "kind": "cstore", "host": "10.0.0.5", "port": 104, "called": "PACS" }),
        );
        let pacs = pacs.unwrap();
        assert_eq!(pacs.way.to_string(), "PACS@10.0.0.5:104");
        assert_eq!(pacs.rule.answers.len(), 4);
        assert!(parse(r#"{"targets": []}"#).unwrap().is_empty());
    }

    #[test]
    fn refuses_in_words_what_cannot_be_meant() {
        let stow = json!({ "name": "a", "kind": "stow", "url": "https://a.example/dicom-web" });
        let c_store = json!({ "name": "b", "kind": "cstore", "host": "h", "port": 104, "called": "B" });
        for (base, key, value, words) in [
            (&stow, "tokn", json!("x"), "has the key `tokn`"),
            (&stow, "port", json!(1), "has the key `port`"),
            (&stow, "name", json!("a b"), "has a `name`"),
            (&stow, "kind", json!("ftp"), "neither"),
            (&stow, "url", json!("ftp://a"), "has a `url`"),
            (&stow, "url", json!("https://u:p@a/x"), "password"),
            (&stow, "url", json!("https://a/x?key=1"), "has a `url`"),
            (&stow, "token_env", json!(7), "not a text"),
            (&stow, "results", json!([]), "has `results`"),
            (&stow, "results", json!(["ct"]), "has `results`"),
            (&stow, "when", json!("never"), "has a `when`"),
            (&stow, "attempts", json!(0), "has `attempts`"),
            (&c_store, "port", json!(70000), "has a `port`"),
            (&c_store, "called", json!("SEVENTEENLETTERSX"), "no AE title"),
            (&c_store, "url", json!("https://a"), "has the key `url`"),
        ] {
            let mut members = base.clone();
            members[key] = value;
            let said = one(members).unwrap_err();
            assert!(said.contains(words), "{key}: {said}");
        }
        let open = json!({ "name": "a", "kind": "stow", "url": "http://a.example/x", "token_env": "T" });
        assert!(one(open).unwrap_err().contains("over http"));
        let twice = json!({ "targets": [stow, stow] });
        assert!(
            parse(&twice.to_string())
                .unwrap_err()
                .to_string()
                .contains("two targets")
        );
        assert!(parse("{").unwrap_err().to_string().contains("line 1"));
        assert!(parse(r#"{"target": []}"#).is_err());
    }
}
