//! A file of targets → checked [`Target`]s.
//!
//! The file is strict: a key that is not known, a value that cannot be meant and a name that is there twice are refused
//! in words, because a result that silently goes nowhere is found out too late.
//! It holds no secret: a token is named by its file or its environment variable, and read at each delivery, so that it
//! may be changed while the server runs.

use super::{
    profile::Profile,
    way::{self, Receiver},
};
use crate::{
    association::requestor::Peer,
    db::{outbox::TargetRule, pattern::like_pattern},
    domain::failure::FailureClass,
    scu::{
        entries::{self, text},
        peers,
    },
};
use dicom_core::{VR, dictionary::DataDictionary};
use dicom_dictionary_std::StandardDataDictionary;
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
const RESULTS: [&str; 8] = ["seg", "labelmap", "structures", "pm", "sr", "sc", "kos", "other"];
/// What a target may hear of, as the file and the database word it.
const SUBJECTS: [(&str, &str); 4] = [
    ("notification", "notification"),
    ("results", "results"),
    ("corrections", "correction"),
    ("verdicts", "verdict"),
];
/// Kinds that get words instead of instances.
const MESSENGERS: [&str; 3] = ["webhook", "hl7", "fhir"];
/// Keys of the file; the other lists are read by who uses them.
const KEYS: [&str; 3] = ["targets", "peers", "fetch"];
/// Keys of every target.
const COMMON_KEYS: [&str; 10] = [
    "name", "kind", "send", "results", "when", "match", "urgency", "escalate", "profile", "attempts",
];
/// The longest time that a notification waits for somebody, in seconds: a day.
const LONGEST_WAIT: i64 = 86_400;

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
    /// A signed JSON message.
    Webhook {
        /// Where it is posted.
        url: Url,
        /// What it is signed with.
        secret: Token,
        /// Whether it says who the patient is.
        names_patient: bool,
    },
    /// HL7 v2 ORU^R01 over MLLP.
    Hl7(Receiver),
    /// FHIR R4, a transaction.
    Fhir {
        /// The base.
        base: Url,
        /// What it wants to see.
        token: Token,
    },
    /// Files in a folder.
    Folder {
        /// The folder; it must be there.
        path: PathBuf,
    },
}

impl Way {
    /// The word for it in the file and the database.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stow { .. } => "stow",
            Self::CStore { .. } => "cstore",
            Self::Webhook { .. } => "webhook",
            Self::Hl7(_) => "hl7",
            Self::Fhir { .. } => "fhir",
            Self::Folder { .. } => "folder",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stow { studies, .. } => write!(f, "{studies}"),
            Self::CStore { peer, .. } => write!(f, "{peer}"),
            Self::Webhook { url, .. } => write!(f, "{url}"),
            Self::Hl7(receiver) => write!(f, "mllp://{}:{}", receiver.host, receiver.port),
            Self::Fhir { base, .. } => write!(f, "{base}"),
            Self::Folder { path } => write!(f, "{}", path.display()),
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
    /// What it takes.
    pub profile: Profile,
}

impl Target {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.rule.name
    }

    /// Whether it can be told something that is no DICOM instance.
    fn hears_words(&self) -> bool {
        hears_words(self.way.kind())
    }

    /// A secret of the target, read now; nothing when it has none.
    pub(super) fn secret(&self, token: &Token) -> Result<Option<String>, TargetError> {
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
        Ok(Some(token.to_owned()))
    }

    /// The Authorization header that the target wants, read now.
    pub(super) fn authorization(&self, token: &Token) -> Result<Option<HeaderValue>, TargetError> {
        let failed = |problem: String| TargetError::Token {
            target: self.name().to_owned(),
            problem,
        };
        let Some(token) = self.secret(token)? else {
            return Ok(None);
        };
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
        match &target.way {
            Way::Stow { token, .. } | Way::Fhir { token, .. } => drop(target.authorization(token)?),
            Way::Webhook { secret, .. } => drop(target.secret(secret)?),
            Way::CStore { .. } | Way::Hl7(_) | Way::Folder { .. } => {}
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
    let found = entries::named(list, "target", target, |target: &Target| target.name())?;
    for target in &found {
        let Some(next) = &target.rule.escalate_to else {
            continue;
        };
        let takes = found
            .iter()
            .any(|other| other.name() == next && other.name() != target.name() && other.hears_words());
        if !takes {
            return Err(format!(
                "target {} escalates to {}, which is no other target that takes notifications (webhook, hl7, fhir, folder)",
                target.name(),
                next.escape_debug()
            ));
        }
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
    let kinds = "`stow`, `cstore`, `webhook`, `hl7`, `fhir` or `folder`";
    let kind = text(members, "kind")?.ok_or_else(|| format!("has no `kind`: {kinds}"))?;
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
        "webhook" => (way::webhook(members)?, way::WEBHOOK),
        "hl7" => (way::hl7(members)?, way::HL7),
        "fhir" => (way::fhir(members)?, way::FHIR),
        "folder" => (way::folder(members)?, way::FOLDER),
        _ => return Err(format!("has a `kind` that is none of {kinds}")),
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
    let subjects = subjects(members, &kind)?;
    let (escalate_seconds, escalate_to) = escalation(members)?.unzip();
    if escalate_to.is_some() && !hears_words(&kind) {
        return Err("has `escalate`, which is for targets that take notifications".to_owned());
    }
    Ok(Target {
        rule: TargetRule {
            name,
            kind,
            subjects,
            roles: roles(members, &way)?,
            answers: answers(members)?,
            matching: matching(members)?,
            urgency: urgency(members)?,
            escalate_seconds,
            escalate_to,
            attempts,
        },
        profile: Profile::parse(members)?,
        way,
    })
}

/// Whether targets of this kind can be told something that is no DICOM instance.
fn hears_words(kind: &str) -> bool {
    MESSENGERS.contains(&kind) || kind == "folder"
}

/// What a target hears of: a list, or what is usual for its kind.
fn subjects(members: &Map<String, Value>, kind: &str) -> Result<Vec<String>, String> {
    let usual: &[&str] = match kind {
        "webhook" => &["notification"],
        "hl7" | "fhir" => &["results"],
        _ => &["correction", "results"],
    };
    let Some(value) = members.get("send") else {
        return Ok(usual.iter().map(|subject| (*subject).to_owned()).collect());
    };
    let problem = || {
        let known: Vec<&str> = SUBJECTS.iter().map(|(word, _)| *word).collect();
        format!("has a `send` that is not a list of some of {}", known.join(", "))
    };
    let list = value
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(problem)?;
    let mut found = BTreeSet::new();
    for word in list {
        let known = SUBJECTS.iter().find(|(known, _)| word.as_str() == Some(known));
        let (_, subject) = known.ok_or_else(problem)?;
        if matches!(*subject, "notification" | "verdict") && !hears_words(kind) {
            return Err(format!(
                "would `send` {}, which is no DICOM instance; use webhook, hl7, fhir or folder for it",
                word.as_str().unwrap_or_default()
            ));
        }
        found.insert((*subject).to_owned());
    }
    Ok(found.into_iter().collect())
}

/// Conditions on the images by the keyword of an attribute: `{"InstitutionName": ["North*"]}`.
fn matching(members: &Map<String, Value>) -> Result<Value, String> {
    let Some(value) = members.get("match") else {
        return Ok(Value::Array(Vec::new()));
    };
    let conditions = value.as_object().ok_or(
        "has a `match` that is not an object of attributes by keyword, such as {\"StationName\": \"ER*\"}",
    )?;
    let mut found = Vec::new();
    for (keyword, patterns) in conditions {
        let entry = StandardDataDictionary.by_name(keyword);
        let tag = entry
            .filter(|entry| !matches!(entry.vr.relaxed(), VR::SQ | VR::PN | VR::OB | VR::OW | VR::UN))
            .map(|entry| entry.tag.inner())
            .ok_or_else(|| {
                format!(
                    "has a `match` on `{}`, which is no attribute of text or number by its keyword in PS3.6",
                    keyword.escape_debug()
                )
            })?;
        let patterns = match patterns {
            Value::String(one) => vec![one.clone()],
            Value::Array(list) => list
                .iter()
                .map(|one| one.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        if patterns.is_empty() {
            return Err(format!(
                "has a `match` on {keyword} that is neither a text nor a list of texts"
            ));
        }
        let patterns: Vec<String> = patterns.iter().map(|pattern| like_pattern(pattern)).collect();
        found.push(serde_json::json!({ "tag": format!("{:04X}{:04X}", tag.0, tag.1), "patterns": patterns }));
    }
    Ok(Value::Array(found))
}

fn urgency(members: &Map<String, Value>) -> Result<Option<i32>, String> {
    match text(members, "urgency")?.as_deref() {
        None | Some("by_answer") => Ok(None),
        Some("stat") => Ok(Some(0)),
        Some("routine") => Ok(Some(2)),
        Some(_) => Err("has an `urgency` that is none of by_answer, stat, routine".to_owned()),
    }
}

/// After how many seconds without acknowledgement a notification goes where.
fn escalation(members: &Map<String, Value>) -> Result<Option<(i32, String)>, String> {
    let Some(value) = members.get("escalate") else {
        return Ok(None);
    };
    let problem = || {
        format!(
            "has an `escalate` that is not like {{\"after_seconds\": 60, \"to\": \"pager\"}}, with 1 to {LONGEST_WAIT} seconds"
        )
    };
    let members = value
        .as_object()
        .filter(|members| members.len() == 2)
        .ok_or_else(problem)?;
    let seconds = members
        .get("after_seconds")
        .and_then(Value::as_i64)
        .filter(|seconds| (1..=LONGEST_WAIT).contains(seconds))
        .and_then(|seconds| i32::try_from(seconds).ok())
        .ok_or_else(problem)?;
    let to = members.get("to").and_then(Value::as_str).ok_or_else(problem)?;
    Ok(Some((seconds, to.to_owned())))
}

fn stow(members: &Map<String, Value>) -> Result<Way, String> {
    let studies = url(members, "/studies", "https://pacs.example/dicom-web")?;
    let token = secret(members, "token")?;
    check_token(&studies, &token)?;
    Ok(Way::Stow { studies, token })
}

/// The `url` of a target with something added to its path.
pub(super) fn url(members: &Map<String, Value>, below: &str, like: &str) -> Result<Url, String> {
    let base = text(members, "url")?.ok_or("has no `url`")?;
    let problem = || format!("has a `url` that is not like {like}");
    let url = Url::parse(&format!("{}{below}", base.trim_end_matches('/'))).map_err(|_| problem())?;
    let plain = url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || !plain {
        return Err(problem());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a `url` with a name or password in it; use `token_file` or `token_env`".to_owned());
    }
    Ok(url)
}

/// Where a secret is read from: `NAME_file` or `NAME_env`.
pub(super) fn secret(members: &Map<String, Value>, name: &str) -> Result<Token, String> {
    let (file, variable) = (format!("{name}_file"), format!("{name}_env"));
    match (text(members, &file)?, text(members, &variable)?) {
        (None, None) => Ok(Token::None),
        (Some(path), None) => Ok(Token::File(PathBuf::from(path))),
        (None, Some(name)) => Ok(Token::Variable(name)),
        (Some(_), Some(_)) => Err(format!("has both `{file}` and `{variable}`; keep one")),
    }
}

/// A token travels in the clear only on this machine.
pub(super) fn check_token(url: &Url, token: &Token) -> Result<(), String> {
    let near = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    if *token != Token::None && url.scheme() == "http" && !near {
        return Err("would send its token over http, where everybody can read it; use https".to_owned());
    }
    Ok(())
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

/// Which results a target gets. Every PACS shows a secondary capture, and nobody knows what else this one shows until the
/// file says so.
fn roles(members: &Map<String, Value>, way: &Way) -> Result<Vec<String>, String> {
    let problem = || {
        format!(
            "has `results` that are not a list of some of {}",
            RESULTS.join(", ")
        )
    };
    let Some(value) = members.get("results") else {
        let usual: &[&str] = match way {
            Way::Stow { .. } | Way::CStore { .. } => &["sc"],
            _ => &["kos", "labelmap", "pm", "sc", "seg", "sr", "structures"],
        };
        return Ok(usual.iter().map(|role| (*role).to_owned()).collect());
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
        Some("escalated") => &[],
        Some(_) => {
            return Err(
                "has a `when` that is none of always, flagged, flagged_or_uncertain, escalated".to_owned(),
            );
        }
    };
    Ok(answers.iter().map(|answer| (*answer).to_owned()).collect())
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
        assert_eq!(stow.rule.subjects, ["correction", "results"]);
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
        // Of a PACS that nobody knows it is known that it shows pictures.
        assert_eq!(pacs.rule.roles, ["sc"]);
        assert!(parse(r#"{"targets": []}"#).unwrap().is_empty());
    }

    #[test]
    fn a_condition_is_an_attribute_by_its_keyword() {
        let stow = json!({
            "name": "a", "kind": "stow", "url": "https://a.example", "match": { "StationName": ["ER*", "100%"] },
        });
        let matching = one(stow).unwrap().rule.matching;
        assert_eq!(
            matching,
            json!([{ "tag": "00081010", "patterns": ["ER%", "100\\%"] }])
        );
    }

    #[test]
    fn refuses_in_words_what_cannot_be_meant() {
        let stow = json!({ "name": "a", "kind": "stow", "url": "https://a.example/dicom-web" });
        let c_store = json!({ "name": "b", "kind": "cstore", "host": "h", "port": 104, "called": "B" });
        for (base, key, value, words) in [
            (&stow, "tokn", json!("x"), "has the key `tokn`"),
            (&stow, "port", json!(1), "has the key `port`"),
            (&stow, "name", json!("a b"), "has a `name`"),
            (&stow, "kind", json!("ftp"), "none of"),
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
            (&c_store, "send", json!(["notification"]), "no DICOM instance"),
            (&stow, "send", json!(["everything"]), "has a `send`"),
            (&stow, "match", json!({ "PatientName": "A*" }), "has a `match`"),
            (&stow, "match", json!({ "StationName": 7 }), "neither a text"),
            (&stow, "urgency", json!("asap"), "has an `urgency`"),
            (
                &stow,
                "escalate",
                json!({ "after_seconds": 60, "to": "b" }),
                "take notifications",
            ),
            (&stow, "profile", json!({ "max": 7 }), "has a `profile`"),
        ] {
            let mut members = base.clone();
            members[key] = value;
            let said = one(members).unwrap_err();
            assert!(said.contains(words), "{key}: {said}");
        }
        let open = json!({ "name": "a", "kind": "stow", "url": "http://a.example/x", "token_env": "T" });
        assert!(one(open).unwrap_err().contains("over http"));
        let pager = json!({
            "name": "pager", "kind": "webhook", "url": "https://p.example/x", "secret_env": "S",
            "escalate": { "after_seconds": 60, "to": "b" },
        });
        let said = parse(&json!({ "targets": [pager, c_store] }).to_string())
            .unwrap_err()
            .to_string();
        assert!(said.contains("escalates to b"), "{said}");
        let mut unsigned = pager.clone();
        unsigned.as_object_mut().unwrap().remove("secret_env");
        assert!(one(unsigned).unwrap_err().contains("without a secret"));
        let folder = json!({ "name": "f", "kind": "folder", "path": "drop" });
        assert!(one(folder).unwrap_err().contains("does not begin with"));
        let hl7 =
            json!({ "name": "h", "kind": "hl7", "host": "his", "port": 2575, "character_set": "EBCDIC" });
        assert!(one(hl7).unwrap_err().contains("UNICODE UTF-8"));
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
