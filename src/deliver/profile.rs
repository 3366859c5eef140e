//! What a target takes, and a delivery made to fit it before it is sent.
//!
//! An instance that does not fit is refused here, in words, as the target would refuse it; the secondary capture may go in its
//! place.
//! Text, series description and a corrected identity are changed in a copy that is handed out; the archive stays as it is.

use super::archive_failure;
use crate::{
    archive::{Archive, ArchiveError},
    association::syntax,
    db::outbox::{Attempt, Outgoing},
    dicom::{
        coerce::{Changes, Coercion, apply},
        transcode,
    },
    domain::phi::redact,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::{collections::HashMap, sync::Arc};

/// Character sets of a dataset of ours: what the text is written in.
const CHARACTER_SETS: [&str; 3] = ["ISO_IR 192", "ISO_IR 100", "ISO_IR 6"];
/// Keys of a profile.
const KEYS: [&str; 5] = [
    "sop_classes",
    "transfer_syntaxes",
    "character_set",
    "series_description",
    "max_bytes",
];

/// What a target takes; what is `None` is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// SOP Class UIDs.
    pub sop_classes: Option<Vec<String>>,
    /// Transfer Syntax UIDs.
    pub transfer_syntaxes: Option<Vec<String>>,
    /// The character set that it reads.
    pub character_set: Option<String>,
    /// The name of the series there, with `{role}` for the kind of result.
    pub series_description: Option<String>,
    /// The largest file.
    pub max_bytes: Option<i64>,
}

impl Profile {
    /// Reads the `profile` of a target.
    ///
    /// # Errors
    /// Says what cannot be meant, as the end of a sentence about the target.
    pub(super) fn parse(members: &Map<String, Value>) -> Result<Self, String> {
        let Some(profile) = members.get("profile") else {
            return Ok(Self::default());
        };
        let members = profile
            .as_object()
            .ok_or("has a `profile` that is not an object")?;
        if let Some(strange) = members.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!(
                "has a `profile` with the key `{}`; it may have {}",
                strange.escape_debug(),
                KEYS.join(", ")
            ));
        }
        let text = |key: &str| match members.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
            Some(_) => Err(format!("has a `{key}` in its `profile` that is not a text")),
        };
        let character_set = text("character_set")?;
        if let Some(other) = character_set
            .as_deref()
            .filter(|set| !CHARACTER_SETS.contains(set))
        {
            return Err(format!(
                "has the `character_set` `{}`; results can be written in {}",
                other.escape_debug(),
                CHARACTER_SETS.join(", ")
            ));
        }
        let max_bytes = match members.get("max_bytes") {
            None => None,
            Some(value) => Some(
                value
                    .as_i64()
                    .filter(|bytes| *bytes > 0)
                    .ok_or("has a `max_bytes` in its `profile` that is not a positive number")?,
            ),
        };
        Ok(Self {
            sop_classes: uids(members, "sop_classes")?,
            transfer_syntaxes: uids(members, "transfer_syntaxes")?,
            character_set,
            series_description: text("series_description")?,
            max_bytes,
        })
    }

    /// Why an instance does not fit at all.
    fn refusal(&self, instance: &Outgoing) -> Option<String> {
        if let Some(classes) = &self.sop_classes
            && !classes.contains(&instance.sop_class_uid)
        {
            return Some(format!(
                "the target's profile does not take SOP class {}",
                instance.sop_class_uid
            ));
        }
        let most = self.max_bytes.filter(|most| instance.size_bytes > *most)?;
        Some(format!(
            "the instance has {} bytes and the target's profile takes {most}",
            instance.size_bytes
        ))
    }

    /// The transfer syntax in which an instance goes out: its own, or one of the plain ones.
    fn syntax<'a>(&self, stored: &'a str) -> Option<&'a str> {
        let Some(taken) = &self.transfer_syntaxes else {
            return Some(stored);
        };
        let decodable = transcode::is_decodable(stored);
        [stored, syntax::EXPLICIT, syntax::IMPLICIT]
            .into_iter()
            .find(|form| taken.iter().any(|taken| taken == form) && (*form == stored || decodable))
    }
}

fn uids(members: &Map<String, Value>, key: &str) -> Result<Option<Vec<String>>, String> {
    let problem = || format!("has `{key}` in its `profile` that are not a list of UIDs");
    let Some(value) = members.get(key) else {
        return Ok(None);
    };
    let list = value
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(problem)?;
    let uids: Option<Vec<String>> = list
        .iter()
        .map(|uid| {
            uid.as_str()
                .filter(|uid| uid.contains('.') && uid.chars().all(|c| c.is_ascii_digit() || c == '.'))
                .map(str::to_owned)
        })
        .collect();
    uids.ok_or_else(problem).map(Some)
}

/// The files of a delivery as they go out: from the archive, or as they were made to fit; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Files {
    archive: Archive,
    adapted: Arc<HashMap<String, Bytes>>,
}

impl Files {
    /// One file.
    pub(super) async fn read(&self, key: &str) -> Result<Bytes, ArchiveError> {
        match self.adapted.get(key) {
            Some(bytes) => Ok(bytes.clone()),
            None => self.archive.read(key).await,
        }
    }
}

/// A delivery that fits its target.
pub(super) struct Fitted {
    /// The files.
    pub(super) files: Files,
    /// What can be sent.
    pub(super) instances: Vec<Outgoing>,
    /// What cannot, and why.
    pub(super) attempt: Attempt,
}

/// Makes a delivery fit.
pub(super) async fn fit(
    profile: &Profile,
    coercion: Option<Coercion>,
    archive: &Archive,
    instances: &[Outgoing],
) -> Fitted {
    let mut attempt = Attempt::default();
    let mut adapted = HashMap::new();
    let mut sent = Vec::with_capacity(instances.len());
    for instance in instances {
        if let Some(why) = profile.refusal(instance) {
            attempt.refused.push((instance.instance_id, why));
            attempt.unsupported.push(instance.instance_id);
            continue;
        }
        let stored = instance.transfer_syntax_uid.as_str();
        let Some(form) = profile.syntax(stored) else {
            let why =
                format!("the target's profile takes no transfer syntax that {stored} can be brought into");
            attempt.refused.push((instance.instance_id, why));
            attempt.unsupported.push(instance.instance_id);
            continue;
        };
        let is_as_stored = form == stored
            && coercion.is_none()
            && profile.character_set.is_none()
            && profile.series_description.is_none();
        if is_as_stored {
            sent.push(instance.clone());
            continue;
        }
        let file = match archive.read(&instance.archive_key).await {
            Ok(file) => file,
            Err(error) => {
                let (why, is_final) = archive_failure(&error);
                attempt.error = Some(why);
                attempt.is_final = is_final;
                break;
            }
        };
        match adapt(file, profile, coercion.clone(), form, &instance.role).await {
            Ok(bytes) => {
                let mut instance = instance.clone();
                instance.size_bytes = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
                form.clone_into(&mut instance.transfer_syntax_uid);
                adapted.insert(instance.archive_key.clone(), bytes);
                sent.push(instance);
            }
            Err(why) => attempt.refused.push((instance.instance_id, why)),
        }
    }
    Fitted {
        files: Files {
            archive: archive.clone(),
            adapted: Arc::new(adapted),
        },
        instances: sent,
        attempt,
    }
}

async fn adapt(
    file: Bytes,
    profile: &Profile,
    coercion: Option<Coercion>,
    form: &str,
    role: &str,
) -> Result<Bytes, String> {
    let form = form.to_owned();
    let character_set = profile.character_set.clone();
    let description = profile
        .series_description
        .as_ref()
        .map(|pattern| pattern.replace("{role}", role));
    let made = tokio::task::spawn_blocking(move || {
        let mut bytes = file.to_vec();
        if coercion.is_some() || description.is_some() || character_set.is_some() {
            let changes = Changes {
                coercion: coercion.as_ref(),
                series_description: description.as_deref(),
                character_set: character_set.as_deref(),
            };
            bytes = apply(&bytes, &changes).map_err(|error| {
                format!(
                    "the result cannot be made to fit the target's profile: {}",
                    redact(&error)
                )
            })?;
        }
        let stored = crate::dicom::part10::transfer_syntax(&bytes).unwrap_or_default();
        let transcoded = match form.as_str() {
            same if same == stored => Ok(bytes),
            syntax::EXPLICIT => transcode::to_explicit_vr_little_endian(&bytes),
            syntax::IMPLICIT => transcode::to_implicit_vr_little_endian(&bytes),
            _ => Ok(bytes),
        };
        transcoded.map_err(|error| {
            format!(
                "the result cannot be brought into a transfer syntax of the target's profile: {}",
                redact(&error)
            )
        })
    })
    .await;
    match made {
        Ok(Ok(bytes)) => Ok(Bytes::from(bytes)),
        Ok(Err(why)) => Err(why),
        Err(_) => Err("preparing a result failed; this is a fault of ictus".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(profile: Value) -> Result<Profile, String> {
        Profile::parse(json!({ "profile": profile }).as_object().unwrap())
    }

    #[test]
    fn a_profile_is_read_strictly() {
        let profile = parsed(json!({
            "sop_classes": ["1.2.840.10008.5.1.4.1.1.7"], "character_set": "ISO_IR 100", "max_bytes": 1000,
        }))
        .unwrap();
        assert_eq!(profile.max_bytes, Some(1000));
        for (profile, words) in [
            (json!([]), "not an object"),
            (json!({ "classes": [] }), "the key `classes`"),
            (json!({ "sop_classes": [] }), "list of UIDs"),
            (json!({ "sop_classes": ["SEG"] }), "list of UIDs"),
            (json!({ "character_set": "KOI8" }), "can be written in"),
            (json!({ "max_bytes": 0 }), "positive"),
        ] {
            let said = parsed(profile).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn an_instance_goes_as_it_is_or_plain_or_not_at_all() {
        const RLE: &str = "1.2.840.10008.1.2.5";
        let profile = |syntaxes: &[&str]| Profile {
            transfer_syntaxes: Some(syntaxes.iter().map(|s| (*s).to_owned()).collect()),
            ..Profile::default()
        };
        assert_eq!(Profile::default().syntax(RLE), Some(RLE));
        assert_eq!(profile(&[syntax::IMPLICIT]).syntax(RLE), Some(syntax::IMPLICIT));
        assert_eq!(profile(&["1.2.840.10008.1.2.4.50"]).syntax(RLE), None);
    }
}
