//! Sign-ins that went to an OpenID provider, and the accounts that it vouches for.

use super::{Tx, error::DbError, review::AccountRow};
use sqlx::FromRow;

/// A sign-in on its way.
#[derive(Debug, Clone, FromRow)]
pub struct Attempt {
    /// What the ID token must repeat.
    pub nonce: String,
    /// What proves to the provider that it is the same sign-in.
    pub verifier: String,
    /// Where in the page to go afterwards.
    pub return_to: String,
}

/// Somebody as a provider describes them.
#[derive(Debug, Clone, Copy)]
pub struct Vouched<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// Who it is to the provider.
    pub subject: &'a str,
    /// The name of a new account; one that exists keeps its own.
    pub name: &'a str,
    /// The name of a new account where that one is taken.
    pub other_name: &'a str,
    /// As others read it.
    pub display_name: &'a str,
    /// `radiologist`, `auditor` or `admin`.
    pub role: &'a str,
}

/// Keeps a sign-in, and forgets those that never came back.
///
/// # Errors
/// When a statement fails.
pub async fn insert_attempt(tx: &mut Tx, state_digest: &[u8; 32], attempt: &Attempt) -> Result<(), DbError> {
    sqlx::query("DELETE FROM oidc_attempt WHERE at < clock_timestamp() - interval '10 minutes'")
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "INSERT INTO oidc_attempt (state_digest, nonce, verifier, return_to) VALUES ($1, $2, $3, $4)",
    )
    .bind(state_digest.as_slice())
    .bind(&attempt.nonce)
    .bind(&attempt.verifier)
    .bind(&attempt.return_to)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes a sign-in out: nobody gets it a second time.
///
/// # Errors
/// When the statement fails.
pub async fn take_attempt(tx: &mut Tx, state_digest: &[u8; 32]) -> Result<Option<Attempt>, DbError> {
    Ok(sqlx::query_as(
        "DELETE FROM oidc_attempt WHERE state_digest = $1 AND at > clock_timestamp() - interval '10 minutes' \
         RETURNING nonce, verifier, return_to",
    )
    .bind(state_digest.as_slice())
    .fetch_optional(&mut **tx)
    .await?)
}

/// The account of somebody whom a provider vouches for, with the name and role that it gives now; none when it was disabled.
///
/// # Errors
/// When the statement fails.
pub async fn vouched_account(tx: &mut Tx, vouched: &Vouched<'_>) -> Result<Option<AccountRow>, DbError> {
    Ok(sqlx::query_as(
        "INSERT INTO account (name, display_name, role, issuer, subject) \
         SELECT CASE WHEN EXISTS (SELECT FROM account WHERE name = $3) THEN $4 ELSE $3 END, $5, $6, $1, $2 \
         ON CONFLICT (issuer, subject) DO UPDATE SET display_name = EXCLUDED.display_name, role = EXCLUDED.role \
         WHERE account.disabled_at IS NULL \
         RETURNING id, name, display_name, role",
    )
    .bind(vouched.issuer)
    .bind(vouched.subject)
    .bind(vouched.name)
    .bind(vouched.other_name)
    .bind(vouched.display_name)
    .bind(vouched.role)
    .fetch_optional(&mut **tx)
    .await?)
}
