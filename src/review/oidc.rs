//! An OpenID provider vouches for people → accounts and sessions, as a name and a password make them.
//!
//! Authorization code flow with PKCE: [`Oidc::start`] sends the browser to the provider, [`Oidc::finish`] takes what it brings
//! back, once and within ten minutes, from the browser that was sent.
//! The ID token is checked in full: signature by a key that the provider publishes now, algorithm (no shared secrets, never
//! `none`), issuer, audience, authorized party, time (`exp`, `nbf`) without any tolerance, nonce.
//! The role comes from a claim that the provider makes and from nothing else: who has none of those that mean something here
//! does not get in, and who loses it at the provider loses it here at the next sign-in.
//! An account is one issuer's one subject, never that of a local account, whatever their names.
//!
//! Source: OpenID Connect Core 1.0 section 3.1; RFC 7636 (PKCE); RFC 9700 (current practice).

use super::{
    ReviewError,
    account::{Account, AccountRole, SignedIn, act, digest, is_name},
};
use crate::{
    db::{
        self, Db, audit,
        oidc::{self, Attempt, Vouched},
        review,
    },
    domain::phi::redact,
};
use openidconnect::{
    AdditionalClaims, AsyncHttpClient, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    IdTokenFields, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    StandardErrorResponse, StandardTokenResponse, TokenResponse,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType, CoreGenderClaim,
        CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{fmt, pin::Pin, time::Duration};
use time::OffsetDateTime;

/// A provider that takes longer is as good as away.
const PATIENCE: Duration = Duration::from_secs(10);
/// A provider's documents are a few thousand bytes.
const MOST_BYTES: usize = 1 << 20;
/// Keys that only the provider holds: with a shared secret we could have signed ourselves.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 7] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What is known of the provider.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its issuer URL.
    pub issuer: String,
    /// As it knows us.
    pub client_id: String,
    /// What we prove that with; none for a public client.
    pub client_secret: Option<Hidden>,
    /// Its name, as people read it.
    pub name: String,
    /// This server's address, as browsers and the provider know it.
    pub public_url: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that says what somebody may do; dots lead into objects.
    pub role_claim: String,
    /// Values of that claim and what they mean here; the first that somebody has counts.
    pub roles: Vec<(AccountRole, String)>,
}

/// A secret that no message shows.
#[derive(Clone)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("hidden")
    }
}

/// Why nobody signed in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OidcError {
    /// The settings are no good.
    #[error("{0}")]
    Settings(String),
    /// The provider does not answer as one should.
    #[error("the provider cannot be reached, or is none: {0}")]
    Provider(String),
    /// The sign-in is not one that began in this browser within ten minutes.
    #[error("the sign-in did not begin in this browser, was used before, or took longer than ten minutes")]
    State,
    /// The provider said no.
    #[error("the provider refused the sign-in")]
    Refused,
    /// The ID token is not what it should be.
    #[error("the provider's ID token is not acceptable: {0}")]
    Token(String),
    /// No role.
    #[error("the provider gives this person no role that means something here")]
    Role,
    /// Disabled here.
    #[error("the account was disabled here")]
    Disabled,
    /// Ours.
    #[error(transparent)]
    Review(#[from] ReviewError),
}

impl OidcError {
    /// A stable code: the page has a sentence for each.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Settings(_) | Self::Review(_) => "fault",
            Self::Provider(_) => "provider",
            Self::State => "state",
            Self::Refused => "refused",
            Self::Token(_) => "token",
            Self::Role => "role",
            Self::Disabled => "disabled",
        }
    }
}

impl From<db::error::DbError> for OidcError {
    fn from(error: db::error::DbError) -> Self {
        Self::Review(error.into())
    }
}

/// Every claim that we do not name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims(Map<String, Value>);

impl AdditionalClaims for Claims {}

type Fields = IdTokenFields<
    Claims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Provider = Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// A browser on its way to the provider.
#[derive(Debug, Clone)]
pub struct Started {
    /// Where to.
    pub url: String,
    /// For a cookie of its own: whoever comes back must bring it.
    pub state: String,
}

/// Who came back, and where in the page to.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The session.
    pub signed_in: SignedIn,
    /// A path of this server.
    pub return_to: String,
}

/// What the provider sends back with the browser.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    /// The state in the address.
    pub state: &'a str,
    /// The state in the browser's cookie.
    pub kept: Option<&'a str>,
    /// The code; none when the provider said no.
    pub code: Option<&'a str>,
}

/// An OpenID provider.
#[derive(Debug, Clone)]
pub struct Oidc {
    settings: Settings,
    issuer: IssuerUrl,
    redirect: RedirectUrl,
    http: Http,
}

impl Oidc {
    /// Takes the settings; the provider is not asked yet, and may be away.
    ///
    /// # Errors
    /// Says which setting is no good.
    pub fn new(settings: Settings) -> Result<Self, OidcError> {
        let wrong = |what: String| OidcError::Settings(what);
        let issuer = IssuerUrl::new(settings.issuer.clone())
            .map_err(|_| wrong(format!("--oidc-issuer {} is no URL", settings.issuer)))?;
        let redirect = format!(
            "{}/api/session/oidc/callback",
            settings.public_url.trim_end_matches('/')
        );
        let redirect = RedirectUrl::new(redirect)
            .map_err(|_| wrong(format!("--public-url {} is no URL", settings.public_url)))?;
        for (flag, url) in [("--oidc-issuer", issuer.url()), ("--public-url", redirect.url())] {
            let host = url.host_str().unwrap_or_default();
            if url.scheme() != "https" && !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
                return Err(wrong(format!(
                    "{flag} {url} is not https: whoever listens on the line could sign in"
                )));
            }
        }
        if settings.roles.is_empty() {
            return Err(wrong(
                "no --oidc-role says which of the provider's roles mean something here, so nobody could sign in; \
                 give for example --oidc-role radiologist=Radiology"
                    .to_owned(),
            ));
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .user_agent(concat!("ictus/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| OidcError::Provider(redact(&error).to_string()))?;
        Ok(Self {
            settings,
            issuer,
            redirect,
            http: Http(http),
        })
    }

    /// The provider's name, as people read it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Begins a sign-in that ends at a path of the page.
    ///
    /// # Errors
    /// When the provider cannot be reached.
    pub async fn start(&self, db: &Db, return_to: &str) -> Result<Started, OidcError> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let provider = self.provider().await?;
        let mut request = provider.authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            CsrfToken::new_random,
            Nonce::new_random,
        );
        for scope in &self.settings.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let (url, state, nonce) = request.set_pkce_challenge(challenge).url();
        let attempt = Attempt {
            nonce: nonce.secret().clone(),
            verifier: verifier.secret().clone(),
            return_to: if is_path(return_to) { return_to } else { "/" }.to_owned(),
        };
        let mut tx = db.begin().await?;
        oidc::insert_attempt(&mut tx, &digest(state.secret()), &attempt).await?;
        db::commit(tx).await?;
        Ok(Started {
            url: url.to_string(),
            state: state.secret().clone(),
        })
    }

    /// Ends a sign-in: the session of whom the provider vouches for, with its row in the trail, as a refusal has one.
    ///
    /// # Errors
    /// Says why nobody signed in.
    pub async fn finish(&self, db: &Db, returned: Returned<'_>) -> Result<Finished, OidcError> {
        match self.admit(db, returned).await {
            Err(error @ OidcError::Review(_)) => Err(error),
            Err(error) => {
                let mut tx = db.begin().await?;
                let detail = json!({ "issuer": self.settings.issuer, "code": error.code() });
                audit::append(&mut tx, &act("unknown", "sign_in_refused", detail)).await?;
                db::commit(tx).await?;
                Err(error)
            }
            done => done,
        }
    }

    async fn admit(&self, db: &Db, returned: Returned<'_>) -> Result<Finished, OidcError> {
        if returned.kept != Some(returned.state) {
            return Err(OidcError::State);
        }
        let mut tx = db.begin().await?;
        let attempt = oidc::take_attempt(&mut tx, &digest(returned.state)).await?;
        db::commit(tx).await?;
        let attempt = attempt.ok_or(OidcError::State)?;
        let code = returned.code.ok_or(OidcError::Refused)?;
        let token = |why: String| OidcError::Token(why);
        // The documents are fetched anew, so that a key which was changed meanwhile is known.
        let provider = self.provider().await?;
        let answer = provider
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|error| OidcError::Provider(redact(&error).to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier))
            .request_async(&self.http)
            .await
            .map_err(|error| token(redact(&error).to_string()))?;
        let id_token = answer
            .id_token()
            .ok_or_else(|| token("there is none in its answer".to_owned()))?;
        let verifier = provider.id_token_verifier().set_allowed_algs(ALGORITHMS);
        let claims = id_token
            .claims(&verifier, &Nonce::new(attempt.nonce))
            .map_err(|error| token(redact(&error).to_string()))?;
        // The library checks neither.
        let party = claims.authorized_party().map(|party| party.as_str());
        if party.is_some_and(|party| party != self.settings.client_id) {
            return Err(token("it was made for another client (azp)".to_owned()));
        }
        let begins = claims.additional_claims().0.get("nbf");
        let now = OffsetDateTime::now_utc().unix_timestamp();
        if begins.is_some_and(|begins| begins.as_i64().is_none_or(|begins| begins > now)) {
            return Err(token("it is not good yet (nbf)".to_owned()));
        }
        let role = self.role(&claims.additional_claims().0).ok_or(OidcError::Role)?;
        let subject = claims.subject().as_str();
        let called = claims.preferred_username().map(|name| name.as_str());
        let display_name = claims
            .name()
            .and_then(|name| name.get(None))
            .map(|name| name.as_str())
            .or(called)
            .unwrap_or(subject);
        let [name, other_name] = names(called.unwrap_or(subject), &self.issuer, subject);
        let display_name: String = display_name.trim().chars().take(100).collect();
        let vouched = Vouched {
            issuer: &self.settings.issuer,
            subject,
            name: &name,
            other_name: &other_name,
            display_name: if display_name.is_empty() {
                &name
            } else {
                &display_name
            },
            role: role.as_str(),
        };
        let mut tx = db.begin().await?;
        let row = oidc::vouched_account(&mut tx, &vouched).await?;
        let account = Account::try_from(row.ok_or(OidcError::Disabled)?)?;
        let session = hex::encode(rand::random::<[u8; 32]>());
        review::insert_session(&mut tx, &digest(&session), account.id).await?;
        let detail = json!({ "issuer": self.settings.issuer, "role": role.as_str() });
        audit::append(&mut tx, &act(&account.name, "signed_in", detail)).await?;
        db::commit(tx).await?;
        Ok(Finished {
            signed_in: SignedIn {
                account,
                token: session,
            },
            return_to: attempt.return_to,
        })
    }

    /// What the provider publishes now.
    async fn provider(&self) -> Result<Provider, OidcError> {
        let published = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.http).await;
        let published = published.map_err(|error| OidcError::Provider(redact(&error).to_string()))?;
        let client = Provider::from_provider_metadata(
            published,
            ClientId::new(self.settings.client_id.clone()),
            self.settings
                .client_secret
                .clone()
                .map(|Hidden(secret)| ClientSecret::new(secret)),
        );
        Ok(client.set_redirect_uri(self.redirect.clone()))
    }

    /// The first role here that one of the claim's values stands for.
    fn role(&self, claims: &Map<String, Value>) -> Option<AccountRole> {
        let mut path = self.settings.role_claim.split('.');
        let mut claim = claims.get(path.next()?)?;
        for name in path {
            claim = claim.get(name)?;
        }
        let has = |wanted: &str| match claim {
            Value::String(one) => one == wanted,
            Value::Array(all) => all.iter().any(|one| one.as_str() == Some(wanted)),
            _ => false,
        };
        let found = self.settings.roles.iter().find(|(_, value)| has(value));
        found.map(|(role, _)| *role)
    }
}

/// How the provider is asked.
#[derive(Debug, Clone)]
struct Http(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = Away;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Away>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(send(&self.0, request))
    }
}

async fn send(http: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, Away> {
    let away = |error: reqwest::Error| Away(redact(&error.without_url()).to_string());
    let request = reqwest::Request::try_from(request).map_err(away)?;
    let mut answer = http.execute(request).await.map_err(away)?;
    let mut made = openidconnect::http::Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        made = made.header(name, value);
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(away)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(Away(format!("its answer is longer than {MOST_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    made.body(body).map_err(|error| Away(redact(&error).to_string()))
}

/// Why the provider could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Away(String);

/// Whether something is a path of this server and no way to another one.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.starts_with("//") && !text.contains(['\\', '\r', '\n', '\t'])
}

/// The name of an account, `who@provider`, and another one in case it is taken.
fn names(called: &str, issuer: &IssuerUrl, subject: &str) -> [String; 2] {
    let fine = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
            .collect()
    };
    let host = fine(issuer.url().host_str().unwrap_or_default());
    let who = called.split('@').next().unwrap_or_default();
    let (who, host): (String, String) = (
        fine(who).chars().take(28).collect(),
        host.chars().take(24).collect(),
    );
    let mark = hex::encode(&Sha256::digest(format!("{} {subject}", issuer.as_str()))[..4]);
    let name = format!("{who}@{host}");
    let other = format!("{who}-{mark}@{host}");
    if who.is_empty() || !is_name(&name) {
        return [other.clone(), other];
    }
    [name, other]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_is_a_path_of_this_server() {
        for fine in ["/", "/study/1.2", "/?read=false"] {
            assert!(is_path(fine), "{fine}");
        }
        for wrong in [
            "",
            "study",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nSet-Cookie: x",
        ] {
            assert!(!is_path(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn accounts_are_named_by_person_and_provider() {
        let issuer = IssuerUrl::new("https://id.hospital.example/realm".to_owned()).unwrap();
        let [name, other] = names("anna.muster@hospital.example", &issuer, "42");
        assert_eq!(name, "anna.muster@id.hospital.example");
        assert!(
            is_name(&other) && other.starts_with("anna.muster-") && other.ends_with("@id.hospital.example")
        );
        let [name, _] = names("☃", &issuer, "42");
        assert!(is_name(&name), "{name}");
    }

    #[test]
    fn refuses_settings_that_let_nobody_in_or_anybody() {
        let settings = |issuer: &str, roles: usize| Settings {
            issuer: issuer.to_owned(),
            client_id: "ictus".to_owned(),
            client_secret: None,
            name: "Hospital".to_owned(),
            public_url: "https://ictus.example".to_owned(),
            scopes: Vec::new(),
            role_claim: "roles".to_owned(),
            roles: vec![(AccountRole::Radiologist, "R".to_owned()); roles],
        };
        for (issuer, roles, why) in [
            ("http://id.example", 1, "https"),
            ("no url", 1, "no URL"),
            ("https://id.example", 0, "--oidc-role"),
        ] {
            let error = Oidc::new(settings(issuer, roles)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
