//! The entries of targets that get messages or files → how they are reached.

use super::target::{Token, Way, secret, url};
use crate::hl7::charset::Charset;
use crate::scu::entries::text;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// An HL7 v2 receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// MSH-5.
    pub application: String,
    /// MSH-6.
    pub facility: String,
    /// MSH-18, and what the message is written in.
    pub charset: Charset,
}

/// Keys of a webhook.
pub(super) const WEBHOOK: &[&str] = &["url", "secret_file", "secret_env", "patient"];
/// Keys of an HL7 v2 receiver.
pub(super) const HL7: &[&str] = &["host", "port", "application", "facility", "character_set"];
/// Keys of a FHIR server.
pub(super) const FHIR: &[&str] = &["url", "token_file", "token_env"];
/// Keys of a folder.
pub(super) const FOLDER: &[&str] = &["path"];

pub(super) fn webhook(members: &Map<String, Value>) -> Result<Way, String> {
    let secret = secret(members, "secret")?;
    if secret == Token::None {
        return Err(
            "has neither `secret_file` nor `secret_env`: without a secret nobody could tell our messages from others"
                .to_owned(),
        );
    }
    Ok(Way::Webhook {
        url: url(members, "", "https://pager.example/ictus")?,
        secret,
        names_patient: flag(members, "patient")?,
    })
}

pub(super) fn fhir(members: &Map<String, Value>) -> Result<Way, String> {
    let base = url(members, "", "https://fhir.example/r4")?;
    let token = secret(members, "token")?;
    super::target::check_token(&base, &token)?;
    Ok(Way::Fhir { base, token })
}

pub(super) fn hl7(members: &Map<String, Value>) -> Result<Way, String> {
    let named = |key: &str| -> Result<String, String> {
        let value = text(members, key)?.unwrap_or_default();
        if value.len() > 180 || value.chars().any(char::is_control) {
            return Err(format!(
                "has a `{key}` that is longer than 180 characters or not a text"
            ));
        }
        Ok(value)
    };
    let charset = match text(members, "character_set")? {
        None => Charset::default(),
        Some(name) => Charset::named(&name)
            .ok_or("has a `character_set` that is none of UNICODE UTF-8, 8859/1, ASCII")?,
    };
    Ok(Way::Hl7(Receiver {
        host: text(members, "host")?
            .filter(|host| !host.is_empty())
            .ok_or("has no `host`")?,
        port: members
            .get("port")
            .ok_or("has no `port`")?
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .ok_or("has a `port` that is not a number from 1 to 65535")?,
        application: named("application")?,
        facility: named("facility")?,
        charset,
    }))
}

pub(super) fn folder(members: &Map<String, Value>) -> Result<Way, String> {
    let path = PathBuf::from(text(members, "path")?.ok_or("has no `path`")?);
    if !path.is_absolute() {
        return Err("has a `path` that does not begin with `/`".to_owned());
    }
    Ok(Way::Folder { path })
}

fn flag(members: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match members.get(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(format!("has a `{key}` that is neither true nor false")),
    }
}
