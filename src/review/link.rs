//! Signed links: a system that shares a secret with us hands one study to a browser, to be looked at and nothing else.
//!
//! `/open?accession=A17&expires=1795000000&key=pacs&signature=…`, or `study=UID` in place of `accession`.
//! What is signed is one line `name:value` and a line feed for each parameter but the signature, values as they are before they
//! are percent-encoded, sorted by name; the signature is HMAC-SHA256 over it with the secret's text as key, in hexadecimal:
//!
//! ```text
//! printf 'accession:A17\nexpires:1795000000\nkey:pacs\n' | openssl dgst -sha256 -hmac "$SECRET"
//! ```
//!
//! A link may be followed until it expires, a week ahead at most; the visit that it begins ends after two hours, and at once
//! when the key is revoked.
//! Whoever signed in keeps their own session.
//!
//! Source: RFC 2104.

use super::{
    ReviewError,
    account::{act, digest, is_name},
};
use crate::db::{
    self, Db,
    audit::{self, Act},
    link::{self, LinkKey, Visit},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// The longest that a link may wait.
pub const LONGEST: Duration = Duration::days(7);

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// StudyInstanceUID.
    Study(String),
    /// AccessionNumber, of exactly one study.
    Accession(String),
}

/// A visit that began.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Where it may go.
    pub visit: Visit,
    /// For the browser's cookie; nobody else keeps it. None for who needs none.
    pub token: Option<String>,
}

/// Makes a key and answers its secret, which is shown once.
///
/// # Errors
/// When the name is taken or cannot be used.
pub async fn create(db: &Db, principal: &str, name: &str) -> Result<String, ReviewError> {
    if !is_name(name) {
        return Err(ReviewError::Name);
    }
    let secret = rand::random::<[u8; 32]>();
    let mut tx = db.begin().await?;
    if !link::insert_key(&mut tx, name, &secret).await? {
        return Err(ReviewError::Link(
            "there is a key of that name already; choose another name",
        ));
    }
    audit::append(
        &mut tx,
        &act(principal, "link_key_created", json!({ "key": name })),
    )
    .await?;
    db::commit(tx).await?;
    Ok(hex::encode(secret))
}

/// Revokes a key: its links and visits open nothing any more.
///
/// # Errors
/// When there is none.
pub async fn revoke(db: &Db, principal: &str, name: &str) -> Result<(), ReviewError> {
    let mut tx = db.begin().await?;
    if !link::revoke_key(&mut tx, name).await? {
        return Err(ReviewError::Link(
            "no key of that name is in use; `ictus link list` shows them",
        ));
    }
    audit::append(
        &mut tx,
        &act(principal, "link_key_revoked", json!({ "key": name })),
    )
    .await?;
    Ok(db::commit(tx).await?)
}

/// Every key.
///
/// # Errors
/// When the database does not answer.
pub async fn list(db: &Db) -> Result<Vec<LinkKey>, ReviewError> {
    Ok(db.link_keys().await?)
}

/// The path and query of a link.
///
/// # Errors
/// When the key is not in use.
pub async fn sign(
    db: &Db,
    key: &str,
    target: &Target,
    expires: OffsetDateTime,
) -> Result<String, ReviewError> {
    let secret = db.link_secret(key).await?;
    let secret = secret.ok_or(ReviewError::Link(
        "no key of that name is in use; `ictus link list` shows them",
    ))?;
    let (name, value) = match target {
        Target::Study(uid) => ("study", uid),
        Target::Accession(number) => ("accession", number),
    };
    let parameters: BTreeMap<String, String> = [
        (name, value.clone()),
        ("expires", expires.unix_timestamp().to_string()),
        ("key", key.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let signature = hex::encode(mac(&secret, &parameters)?.finalize().into_bytes());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&parameters)
        .append_pair("signature", &signature)
        .finish();
    Ok(format!("/open?{query}"))
}

/// Follows a link: `query` is the address's, and `knows` whether the visitor may look at studies anyway.
///
/// # Errors
/// [`ReviewError::Link`] says what is wrong with the link.
pub async fn follow(db: &Db, query: &str, knows: bool, now: OffsetDateTime) -> Result<Begun, ReviewError> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(ReviewError::Link("the link names a parameter twice"));
        }
    }
    let signature = parameters.remove("signature").unwrap_or_default();
    let key = parameters.get("key").cloned().unwrap_or_default();
    let Some(secret) = db.link_secret(&key).await? else {
        return Err(ReviewError::Link(
            "the link was signed with a key that is not in use here",
        ));
    };
    match open(db, &parameters, &signature, &secret, now).await {
        Ok(study_instance_uid) => {
            let visit = Visit {
                key,
                study_instance_uid,
            };
            begin(db, visit, knows).await
        }
        Err(ReviewError::Link(why)) => {
            let mut tx = db.begin().await?;
            let by = principal(&key);
            audit::append(&mut tx, &act(&by, "link_refused", json!({ "text": why }))).await?;
            db::commit(tx).await?;
            Err(ReviewError::Link(why))
        }
        Err(other) => Err(other),
    }
}

/// Where a token leads.
///
/// # Errors
/// When the database does not answer.
pub async fn of_token(db: &Db, token: &str) -> Result<Option<Visit>, ReviewError> {
    Ok(db.link_visit(&digest(token)).await?)
}

/// Whoever follows a link of a key, as the trail calls them.
#[must_use]
pub fn principal(key: &str) -> String {
    format!("link:{key}")
}

/// The study that a link opens.
async fn open(
    db: &Db,
    parameters: &BTreeMap<String, String>,
    signature: &str,
    secret: &[u8],
    now: OffsetDateTime,
) -> Result<String, ReviewError> {
    let signature = hex::decode(signature).unwrap_or_default();
    if mac(secret, parameters)?.verify_slice(&signature).is_err() {
        return Err(ReviewError::Link(
            "the link was altered, or signed with another secret",
        ));
    }
    let expires = parameters.get("expires").and_then(|text| text.parse().ok());
    let expires = expires.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let expires = expires.ok_or(ReviewError::Link(
        "the link has no `expires`, which is wanted in seconds since 1970",
    ))?;
    if expires <= now {
        return Err(ReviewError::Link(
            "the link has expired; open the study again where it came from",
        ));
    }
    if expires > now + LONGEST {
        return Err(ReviewError::Link(
            "the link would be good for more than a week; sign a shorter one",
        ));
    }
    let of = |name: &str| {
        parameters
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let (study, accession) = (of("study"), of("accession"));
    if study.is_some() == accession.is_some() {
        return Err(ReviewError::Link(
            "the link names no study, or two: give `study` or `accession`",
        ));
    }
    let mut found = db.linked_studies(study, accession).await?;
    match (found.pop(), found.pop()) {
        (Some(uid), None) => Ok(uid),
        (None, _) => Err(ReviewError::Link("the study of the link has not arrived here")),
        _ => Err(ReviewError::Link(
            "several studies have that accession number; link to one by `study`",
        )),
    }
}

async fn begin(db: &Db, visit: Visit, knows: bool) -> Result<Begun, ReviewError> {
    if knows {
        return Ok(Begun { visit, token: None });
    }
    let token = hex::encode(rand::random::<[u8; 32]>());
    let mut tx = db.begin().await?;
    if !link::insert_visit(&mut tx, &digest(&token), &visit.key, &visit.study_instance_uid).await? {
        return Err(ReviewError::Link("the study of the link has not arrived here"));
    }
    let followed = Act {
        principal: &principal(&visit.key),
        act: "link_followed",
        studies: vec![visit.study_instance_uid.clone()],
        detail: json!({}),
    };
    audit::append(&mut tx, &followed).await?;
    db::commit(tx).await?;
    Ok(Begun {
        visit,
        token: Some(token),
    })
}

/// Over every parameter but the signature, with the secret as its holder types it.
fn mac(secret: &[u8], parameters: &BTreeMap<String, String>) -> Result<Hmac<Sha256>, ReviewError> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(hex::encode(secret).as_bytes()).map_err(|_| ReviewError::Hash)?;
    for (name, value) in parameters {
        mac.update(format!("{name}:{value}\n").as_bytes());
    }
    Ok(mac)
}
