//! The list `peers` of the file of targets → the application entities that this server may call.
//!
//! They are the destinations of C-MOVE, and where reports of storage commitment are sent to.
//! As strict as the list of targets: a key that is not known and a title that is there twice are refused in words.

use super::entries::{self, text};
use crate::{
    association::{
        requestor::{Peer, is_title},
        tls::{Calling, Identity},
    },
    domain::failure::FailureClass,
};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Keys of an address with TLS, wherever one is in the file.
pub const ADDRESS_KEYS: [&str; 5] = ["host", "port", "tls_ca", "tls_certificate", "tls_key"];

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the peers of the file of targets cannot be used: {0}")]
pub struct PeersError(pub String);

impl PeersError {
    /// What is done about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// Reads the list of a file that is JSON; a file without one has no peers.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(document: &Value) -> Result<Vec<Peer>, PeersError> {
    entries::optional(document, "peers")
        .and_then(|list| entries::named(list, "peer", listed, |peer: &Peer| &peer.title))
        .map_err(PeersError)
}

fn listed(members: &Map<String, Value>) -> Result<Peer, String> {
    let known = |key: &str| key == "title" || ADDRESS_KEYS.contains(&key);
    if let Some(strange) = members.keys().find(|key| !known(key)) {
        return Err(format!(
            "has the key `{}`; a peer has title, {}",
            strange.escape_debug(),
            ADDRESS_KEYS.join(", ")
        ));
    }
    peer(members, "title")
}

/// Reads who is called and where; its title is under the key `title`.
///
/// # Errors
/// Says what is wrong, as the end of a sentence.
pub fn peer(members: &Map<String, Value>, title: &str) -> Result<Peer, String> {
    let port = members.get("port").ok_or("has no `port`")?;
    Ok(Peer {
        title: self::title(members, title)?
            .ok_or_else(|| format!("has no `{title}`, the AE title of the peer"))?,
        host: text(members, "host")?
            .filter(|host| !host.is_empty())
            .ok_or("has no `host`")?,
        port: port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .ok_or("has a `port` that is not a number from 1 to 65535")?,
        tls: tls(members)?,
    })
}

/// Reads an AE title.
///
/// # Errors
/// Says what is wrong, as the end of a sentence.
pub fn title(members: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    text(members, key)?
        .map(|title| {
            is_title(&title)
                .then_some(title)
                .ok_or_else(|| format!("has a `{key}` that is no AE title: 1 to 16 characters, no backslash"))
        })
        .transpose()
}

fn tls(members: &Map<String, Value>) -> Result<Option<Calling>, String> {
    let path = |key: &str| Ok::<_, String>(text(members, key)?.map(PathBuf::from));
    let identity = match (path("tls_certificate")?, path("tls_key")?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        _ => return Err("has only one of `tls_certificate` and `tls_key`; both go together".to_owned()),
    };
    let calling = match (path("tls_ca")?, identity) {
        (Some(authorities), identity) => Calling {
            authorities,
            identity,
        },
        (None, Some(_)) => {
            return Err(
                "has `tls_certificate` and no `tls_ca`, who signs the certificate of the peer".to_owned(),
            );
        }
        (None, None) => return Ok(None),
    };
    calling
        .check()
        .map_err(|error| format!("has a file for TLS that cannot be used: {error}"))?;
    Ok(Some(calling))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(members: Value) -> Result<Peer, String> {
        parse(&json!({ "peers": [members] }))
            .map(|mut peers| peers.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn reads_peers_and_refuses_in_words_what_cannot_be_meant() {
        let good = json!({ "title": "WORK1", "host": "10.0.0.9", "port": 104 });
        assert_eq!(one(good.clone()).unwrap().to_string(), "WORK1@10.0.0.9:104");
        assert_eq!(parse(&json!({ "targets": [] })), Ok(Vec::new()));
        for (key, value, words) in [
            ("titel", json!("x"), "has the key `titel`"),
            ("title", json!("SEVENTEENLETTERSX"), "no AE title"),
            ("port", json!(0), "has a `port`"),
            ("host", json!(""), "has no `host`"),
            ("tls_key", json!("/nowhere"), "both go together"),
            ("tls_ca", json!("/nowhere"), "holds no usable certificate"),
        ] {
            let mut members = good.clone();
            members[key] = value;
            let said = one(members).unwrap_err();
            assert!(said.contains(words), "{key}: {said}");
        }
        let twice = parse(&json!({ "peers": [good, good] })).unwrap_err();
        assert!(twice.to_string().contains("two peers"), "{twice}");
    }
}
