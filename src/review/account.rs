//! Names and passwords → accounts and sessions.
//!
//! Passwords are kept as Argon2id with the library's parameters, tokens as SHA-256: a stolen database opens nothing.
//! An unknown name takes as long as a wrong password.
//! Every sign-in, sign-out, refusal and change of an account is in the trail, with the account's name only.
//!
//! Source: RFC 9106; OWASP Session Management Cheat Sheet (token of 256 bits, absolute and idle end).

use super::ReviewError;
use crate::db::{
    self, Db,
    audit::{self, Act},
    error::DbError,
    review::{self, AccountRow},
};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{ops::RangeInclusive, str::FromStr};

/// Characters of a password. Source: NIST SP 800-63B section 5.1.1 wants 8 at least, and long ones allowed.
pub const PASSWORD_CHARACTERS: RangeInclusive<usize> = 10..=200;
/// Wrong passwords for one name within a quarter of an hour before it has to wait.
const MOST_FAILURES: i64 = 10;

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountRole {
    /// Reads studies and gives verdicts.
    Radiologist,
    /// Reads studies and the trail.
    Auditor,
    /// Reads, and runs the server.
    Admin,
}

impl AccountRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Radiologist, Self::Auditor, Self::Admin];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Radiologist => "radiologist",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

/// Not a role.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an account's role is `radiologist`, `auditor` or `admin`")]
pub struct AccountRoleError;

impl FromStr for AccountRole {
    type Err = AccountRoleError;
    fn from_str(text: &str) -> Result<Self, AccountRoleError> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or(AccountRoleError)
    }
}

/// A person who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Row.
    pub id: i64,
    /// What they type, and what the trail says.
    pub name: String,
    /// What others read.
    pub display_name: String,
    /// What they may do.
    pub role: AccountRole,
}

impl TryFrom<AccountRow> for Account {
    type Error = ReviewError;
    fn try_from(row: AccountRow) -> Result<Self, ReviewError> {
        let role = row.role.parse().map_err(|_| DbError::Stored("role"))?;
        Ok(Self {
            id: row.id,
            name: row.name,
            display_name: row.display_name,
            role,
        })
    }
}

/// A new session.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Who.
    pub account: Account,
    /// For the browser's cookie; nobody else keeps it.
    pub token: String,
}

/// A person to be added.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// What they type.
    pub name: String,
    /// What others read.
    pub display_name: String,
    /// What they may do.
    pub role: AccountRole,
}

/// Whether a name can be an account's or a key's.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(fine)
}

/// Adds an account; `principal` does so.
///
/// # Errors
/// When the name is taken or cannot be used, or the password is too short or too long.
pub async fn create(db: &Db, principal: &str, new: &NewAccount, password: String) -> Result<(), ReviewError> {
    if !is_name(&new.name) {
        return Err(ReviewError::Name);
    }
    if !(1..=100).contains(&new.display_name.trim().chars().count()) {
        return Err(ReviewError::DisplayName);
    }
    let hash = hash(password).await?;
    let mut tx = db.begin().await?;
    let role = new.role.as_str();
    if !review::insert_account(&mut tx, &new.name, new.display_name.trim(), role, &hash).await? {
        return Err(ReviewError::NameTaken);
    }
    let detail = json!({ "account": new.name, "role": role });
    audit::append(&mut tx, &act(principal, "account_created", detail)).await?;
    Ok(db::commit(tx).await?)
}

/// Sets a password, enables the account and ends its sessions.
///
/// # Errors
/// When there is no such account, or the password is too short or too long.
pub async fn set_password(db: &Db, principal: &str, name: &str, password: String) -> Result<(), ReviewError> {
    let hash = hash(password).await?;
    let mut tx = db.begin().await?;
    if !review::set_password(&mut tx, name, &hash).await? {
        return Err(ReviewError::NoAccount);
    }
    let detail = json!({ "account": name });
    audit::append(&mut tx, &act(principal, "password_set", detail)).await?;
    Ok(db::commit(tx).await?)
}

/// Disables an account and ends its sessions; its verdicts stay.
///
/// # Errors
/// When there is no such account.
pub async fn disable(db: &Db, principal: &str, name: &str) -> Result<(), ReviewError> {
    let mut tx = db.begin().await?;
    if !review::disable_account(&mut tx, name).await? {
        return Err(ReviewError::NoAccount);
    }
    let detail = json!({ "account": name });
    audit::append(&mut tx, &act(principal, "account_disabled", detail)).await?;
    Ok(db::commit(tx).await?)
}

/// Begins a session for whoever knows the password.
///
/// # Errors
/// [`ReviewError::SignIn`] without saying which of the two was wrong, or [`ReviewError::Throttled`].
pub async fn sign_in(db: &Db, name: &str, password: String) -> Result<SignedIn, ReviewError> {
    if db.failed_sign_ins(name).await? >= MOST_FAILURES {
        return Err(ReviewError::Throttled);
    }
    let known = db.credentials(name).await?.filter(|found| !found.disabled);
    let kept = known.as_ref().map(|known| known.password_hash.clone());
    let mut tx = db.begin().await?;
    let (Some(known), true) = (known, verify(password, kept).await?) else {
        // The name may be a password typed into the wrong field: the trail has none of it.
        review::insert_failed_sign_in(&mut tx, name).await?;
        audit::append(&mut tx, &act("unknown", "sign_in_refused", json!({}))).await?;
        db::commit(tx).await?;
        return Err(ReviewError::SignIn);
    };
    let account = Account::try_from(known.account)?;
    let token = hex::encode(rand::random::<[u8; 32]>());
    review::insert_session(&mut tx, &digest(&token), account.id).await?;
    audit::append(&mut tx, &act(&account.name, "signed_in", json!({}))).await?;
    db::commit(tx).await?;
    Ok(SignedIn { account, token })
}

/// Who a token belongs to, if its session lives.
///
/// # Errors
/// When the database does not answer.
pub async fn of_session(db: &Db, token: &str) -> Result<Option<Account>, ReviewError> {
    let row = db.session_account(&digest(token)).await?;
    row.map(Account::try_from).transpose()
}

/// Ends a session; one that has ended is left alone.
///
/// # Errors
/// When the database does not answer.
pub async fn sign_out(db: &Db, token: &str) -> Result<(), ReviewError> {
    let digest = digest(token);
    let Some(account) = db.session_account(&digest).await? else {
        return Ok(());
    };
    let mut tx = db.begin().await?;
    if review::end_session(&mut tx, &digest).await? {
        audit::append(&mut tx, &act(&account.name, "signed_out", json!({}))).await?;
    }
    Ok(db::commit(tx).await?)
}

pub(super) fn act<'a>(principal: &'a str, act: &'a str, detail: serde_json::Value) -> Act<'a> {
    Act {
        principal,
        act,
        studies: Vec::new(),
        detail,
    }
}

pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Hashes on a thread of its own: it is meant to take long.
async fn hash(password: String) -> Result<String, ReviewError> {
    if !PASSWORD_CHARACTERS.contains(&password.chars().count()) {
        return Err(ReviewError::Password);
    }
    let hashed = tokio::task::spawn_blocking(move || hash_now(&password)).await;
    hashed.map_err(|_| ReviewError::Hash)?
}

fn hash_now(password: &str) -> Result<String, ReviewError> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|_| ReviewError::Hash)?.to_string())
}

/// Whether a password belongs to a hash; without one it takes as long and is wrong.
async fn verify(password: String, hash: Option<String>) -> Result<bool, ReviewError> {
    let verified = tokio::task::spawn_blocking(move || {
        let Some(hash) = hash else {
            hash_now(&password)?;
            return Ok(false);
        };
        let hash = PasswordHash::new(&hash).map_err(|_| DbError::Stored("password hash"))?;
        Ok(Argon2::default()
            .verify_password(password.as_bytes(), &hash)
            .is_ok())
    });
    verified.await.map_err(|_| ReviewError::Hash)?
}
