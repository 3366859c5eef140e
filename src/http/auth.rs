//! A request → who sends it and whether they may.
//!
//! People sign in and have a session in a cookie; programs have keys. What a person does is done in their name.
//! With a key file every route but health and the page's own files (which hold no data) wants `Authorization: Bearer KEY`.
//! Without one the server listens on loopback only, and every request must name a loopback host and come from the same
//! origin, so that a web page elsewhere cannot reach it through a rebound DNS name.
//! Keys are kept as SHA-256 digests and compared in constant time.
//! A session may change something only from a page of this server: the Origin header must say so.
//! Pages of origins that the server was started with come with a key, and get no further than DICOMweb ([`super::cors`]).
//!
//! Source: RFC 6750; RFC 9110 section 7.2; "DNS rebinding" in the Fetch and CORS sense: RFC 6454.

use super::{cors::FromAllowedOrigin, error::HttpError};
use crate::{
    db::{Db, link::Visit},
    review::{
        account::{self, Account, AccountRole},
        link,
    },
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hex::FromHex;
use sha2::{Digest, Sha256};
use std::{net::IpAddr, path::Path, str::FromStr, sync::Arc};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads studies and results.
    Viewer,
    /// Sends instances and says when a series is complete; reads nothing.
    Sender,
    /// Looks at the one study that a signed link handed over.
    Link,
    /// Everything that a program may do.
    Operator,
    /// A person who reads studies and gives verdicts.
    Radiologist,
    /// A person who reads studies and the trail.
    Auditor,
    /// A person who reads studies and runs the server.
    Admin,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Reads.
    Read,
    /// Stores or triggers.
    Store,
    /// Says what a reader thinks.
    Review,
    /// Decides how the server runs.
    Run,
    /// Removes what is stored.
    Remove,
}

/// Whether a path is about who someone is.
fn is_session(path: &str) -> bool {
    path == SESSION || path.starts_with("/api/session/")
}

/// What a request of this kind needs; nothing for what everyone may do with themselves.
fn needed(method: &Method, path: &str) -> Option<Permission> {
    if is_session(path) || path == VIEWS || path.starts_with(&format!("{VIEWS}/")) {
        return None;
    }
    Some(match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Permission::Read,
        Method::DELETE if path.starts_with("/dicom-web/studies/") => Permission::Remove,
        // To say who is there tells no more than to look.
        _ if path.starts_with("/api/studies/") && path.ends_with("/presence") => Permission::Read,
        _ if path.starts_with("/api/studies/")
            && (path.ends_with("/verdicts") || path.ends_with("/corrections")) =>
        {
            Permission::Review
        }
        _ if path.starts_with("/api/deliveries/") || path.starts_with("/api/revisions/") => Permission::Run,
        _ => Permission::Store,
    })
}

/// Where people sign in and out.
const SESSION: &str = "/api/session";
/// Where people keep their filters of the worklist.
const VIEWS: &str = "/api/views";
/// The name of the cookie.
const COOKIE: &str = "ictus_session";
/// What makes a browser forget it.
pub(super) const NO_COOKIE: &str = "ictus_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0";

impl Role {
    /// Whether the role includes a permission.
    #[must_use]
    pub fn allows(self, permission: Permission) -> bool {
        match self {
            Self::Viewer | Self::Link | Self::Auditor => permission == Permission::Read,
            Self::Sender => permission == Permission::Store,
            Self::Operator => !matches!(permission, Permission::Review | Permission::Remove),
            Self::Admin => permission != Permission::Review,
            Self::Radiologist => matches!(permission, Permission::Read | Permission::Review),
        }
    }

    /// The word in the key file, or of the account.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Link => "link",
            Self::Sender => "sender",
            Self::Operator => "operator",
            Self::Radiologist => "radiologist",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

impl From<AccountRole> for Role {
    fn from(role: AccountRole) -> Self {
        match role {
            AccountRole::Radiologist => Self::Radiologist,
            AccountRole::Auditor => Self::Auditor,
            AccountRole::Admin => Self::Admin,
        }
    }
}

// The roles that a key can have: none of a person's.
impl FromStr for Role {
    type Err = AuthError;
    fn from_str(text: &str) -> Result<Self, AuthError> {
        [Self::Viewer, Self::Sender, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(AuthError::Role)
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// It cannot be read.
    #[error("cannot read the key file {path}; name an existing file or make one with `ictus key create`")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line that is no key.
    #[error("line {line} of the key file is not `name:role:sha256` with 64 hexadecimal digits: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No keys at all.
    #[error("the key file holds no key, so nobody could use the server; make one with `ictus key create`")]
    Empty,
    /// An unknown role.
    #[error("a role is `viewer`, `sender` or `operator`")]
    Role,
    /// A name that would break the file or the audit trail.
    #[error("a key's name has 1 to 64 characters: letters, digits, `.`, `_`, `-` and `@`")]
    Name,
    /// Keys are missing where they are needed.
    #[error(
        "without a key file the server listens on loopback only, and {0} is not loopback; give --key-file"
    )]
    NotLoopback(IpAddr),
}

/// Who sends a request; stands in the request's extensions behind the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The account's or the key's name, or `local` without either.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
    /// The person, if it is one.
    pub account: Option<Arc<Account>>,
    /// The one study that they may look at; none: all.
    pub only: Option<Arc<str>>,
}

impl Principal {
    /// Somebody who signed in.
    #[must_use]
    pub fn person(account: Account) -> Self {
        Self {
            name: Arc::from(account.name.as_str()),
            role: account.role.into(),
            account: Some(Arc::new(account)),
            only: None,
        }
    }

    /// Whoever followed a signed link.
    #[must_use]
    pub fn visitor(visit: &Visit) -> Self {
        Self {
            name: Arc::from(link::principal(&visit.key)),
            role: Role::Link,
            account: None,
            only: Some(Arc::from(visit.study_instance_uid.as_str())),
        }
    }

    /// Whether a path says nothing of other studies than the one they may look at.
    fn may_go(&self, path: &str) -> bool {
        let Some(study) = self.only.as_deref() else {
            return true;
        };
        let within = |root: &str| {
            let rest = path.strip_prefix(root).and_then(|rest| rest.strip_prefix(study));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // The trail says what everyone did, and events are held back one by one.
        is_session(path)
            || matches!(path, "/api/version" | "/api/events")
            || within("/dicom-web/studies/")
            || within("/api/studies/") && !path.ends_with("/audit")
    }

    fn program(name: &str, role: Role) -> Self {
        Self {
            name: Arc::from(name),
            role,
            account: None,
            only: None,
        }
    }
}

#[derive(Debug)]
struct Key {
    digest: [u8; 32],
    principal: Principal,
}

/// Who may use the server.
#[derive(Debug)]
pub enum Access {
    /// Whoever can reach loopback on this machine.
    Loopback,
    /// Whoever holds a key.
    Keys(Keys),
}

/// The keys of a key file.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

impl Access {
    /// Keys from the file, or loopback when there is none and `listen` allows it.
    ///
    /// # Errors
    /// When the file is unusable, or when there is none and `listen` is not loopback.
    pub fn new(key_file: Option<&Path>, listen: IpAddr) -> Result<Self, AuthError> {
        match key_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| AuthError::Read {
                    path: path.display().to_string(),
                    source,
                })?;
                Keys::parse(&text).map(Self::Keys)
            }
            None if listen.is_loopback() => Ok(Self::Loopback),
            None => Err(AuthError::NotLoopback(listen)),
        }
    }

    /// The principal of a request.
    ///
    /// # Errors
    /// 401 without a known key.
    fn principal(&self, headers: &HeaderMap) -> Result<Principal, HttpError> {
        match self {
            Self::Keys(keys) => {
                let bearer = headers
                    .get(header::AUTHORIZATION)
                    .and_then(|value| value.to_str().ok());
                let key = bearer.and_then(|value| {
                    let (scheme, key) = value.split_once(' ')?;
                    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
                });
                keys.find(key.ok_or(HttpError::Unauthorized)?)
                    .ok_or(HttpError::Unauthorized)
            }
            Self::Loopback => Ok(Principal::program("local", Role::Operator)),
        }
    }
}

impl Keys {
    /// Reads `name:role:sha256hex` lines; blank lines and lines from `#` are passed over.
    ///
    /// # Errors
    /// Says which line is wrong, or that there is none.
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |problem| AuthError::Line {
                line: index + 1,
                problem,
            };
            let fields: Vec<&str> = line.split(':').collect();
            let [name, role, digest] = fields[..] else {
                return Err(fault("it has not three fields"));
            };
            check_name(name).map_err(|_| fault("the name is not usable"))?;
            let role = role
                .parse()
                .map_err(|_| fault("the role is not viewer, sender or operator"))?;
            let digest = <[u8; 32]>::from_hex(digest)
                .map_err(|_| fault("the digest is not SHA-256 in hexadecimal"))?;
            keys.push(Key {
                digest,
                principal: Principal::program(name, role),
            });
        }
        if keys.is_empty() {
            Err(AuthError::Empty)
        } else {
            Ok(Self(keys))
        }
    }

    /// Looks at every key whatever the answer, and at every byte of its digest.
    fn find(&self, key: &str) -> Option<Principal> {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        self.0.iter().fold(None, |found, known| {
            if equal_in_constant_time(&digest, &known.digest) {
                Some(known.principal.clone())
            } else {
                found
            }
        })
    }
}

/// Checks the name of a key.
///
/// # Errors
/// When it is empty, long, or holds a character that the file or the audit trail could trip over.
pub fn check_name(name: &str) -> Result<(), AuthError> {
    if account::is_name(name) {
        Ok(())
    } else {
        Err(AuthError::Name)
    }
}

/// The line of a key file for a key.
///
/// # Errors
/// When the name is not usable.
pub fn key_line(name: &str, role: Role, key: &str) -> Result<String, AuthError> {
    check_name(name)?;
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    Ok(format!("{name}:{}:{}", role.as_str(), hex::encode(digest)))
}

fn equal_in_constant_time(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    // Without this the optimiser may turn the fold into a loop that ends at the first difference.
    std::hint::black_box(difference) == 0
}

/// The token in a request's cookie.
pub(super) fn session_token(headers: &HeaderMap) -> Option<&str> {
    cookie_value(headers, COOKIE)
}

/// What a browser keeps under a name.
pub(super) fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// What makes a cookie travel over TLS only, unless the server is this machine.
pub(super) fn secure(headers: &HeaderMap) -> &'static str {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    if host.is_some_and(is_loopback_name) {
        ""
    } else {
        "; Secure"
    }
}

/// The cookie of a new session.
pub(super) fn cookie(token: &str, headers: &HeaderMap) -> String {
    let secure = secure(headers);
    // Half a day, as the session itself at the longest.
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200{secure}")
}

/// Refuses what a page of another site sends.
pub(super) fn same_origin(headers: &HeaderMap) -> Result<(), HttpError> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
        let authority = origin.as_ref().and_then(Uri::authority);
        let same = authority
            .zip(host)
            .is_some_and(|(a, h)| a.as_str().eq_ignore_ascii_case(h));
        if !same {
            let text = "requests of other sites are refused; the Origin header is not this server";
            return Err(HttpError::Forbidden(text.to_owned()));
        }
    }
    Ok(())
}

/// A session changes something only from our own page, which browsers say in Origin.
fn our_page(method: &Method, headers: &HeaderMap) -> Result<(), HttpError> {
    same_origin(headers)?;
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let text =
        "a request with a session that changes something needs the Origin header of this server's page";
    Err(HttpError::Forbidden(text.to_owned()))
}

/// Refuses requests that reached loopback through a foreign name, or from a foreign page.
fn same_machine(request: &Request) -> Result<(), HttpError> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
        .or_else(|| request.uri().authority().map(ToString::to_string))
        .ok_or_else(|| HttpError::BadRequest("the request has no Host header".to_owned()))?;
    if !is_loopback_name(&host) {
        let text = "without a key file this server answers to localhost and loopback addresses only; \
                    the Host header names another";
        return Err(HttpError::Forbidden(text.to_owned()));
    }
    // Whoever started the server named that origin.
    if request.extensions().get::<FromAllowedOrigin>().is_none() {
        same_origin(request.headers())?;
    }
    Ok(())
}

/// Whether `host[:port]` is this machine whatever DNS says.
fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else {
        return false;
    };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a path is open to everyone that reaches the server: health, and the files of the page.
fn is_open(method: &Method, path: &str) -> bool {
    let served = ["/api", "/dicom-web", "/metrics"];
    let is_page = !served
        .iter()
        .any(|root| path == *root || path.starts_with(&format!("{root}/")));
    path.starts_with("/health/")
        || is_page && matches!(*method, Method::GET | Method::HEAD)
        || is_session(path) && (path != SESSION || *method == Method::POST)
}

/// What the guard knows: the keys, and where the sessions are.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) access: Arc<Access>,
    pub(super) db: Db,
}

impl Door {
    /// Who sends a request: a person with a session before a program with a key.
    async fn principal(&self, method: &Method, headers: &HeaderMap) -> Result<Principal, HttpError> {
        if let Some(token) = session_token(headers)
            && !headers.contains_key(header::AUTHORIZATION)
        {
            let found = account::of_session(&self.db, token).await;
            let found = found.map_err(|error| HttpError::of(error.class(), "reading a session", error))?;
            if let Some(account) = found {
                our_page(method, headers)?;
                return Ok(Principal::person(account));
            }
            let found = link::of_token(&self.db, token).await;
            let found = found.map_err(|error| HttpError::of(error.class(), "reading a visit", error))?;
            if let Some(visit) = found {
                our_page(method, headers)?;
                return Ok(Principal::visitor(&visit));
            }
        }
        self.access.principal(headers)
    }
}

/// Middleware: lets a request through with its [`Principal`], or refuses it.
pub(super) async fn guard(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path());
    let keyed = matches!(*door.access, Access::Keys(_));
    if keyed && is_open(&method, path) || path.starts_with("/health/") {
        return next.run(request).await;
    }
    let needed = needed(&method, path);
    if !keyed && let Err(error) = same_machine(&request) {
        return error.into_response();
    }
    // A body cannot be shared between threads, and so not be held while the session is looked up.
    let headers = request.headers().clone();
    match door.principal(&method, &headers).await {
        Ok(principal) if !principal.may_go(request.uri().path()) => {
            let text = "a signed link opens one study and nothing else; sign in to see more";
            HttpError::Forbidden(text.to_owned()).into_response()
        }
        Ok(principal) if needed.is_none_or(|permission| principal.role.allows(permission)) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Ok(principal) => {
            let role = principal.role.as_str();
            let text = match needed {
                Some(Permission::Review) => {
                    format!(
                        "a verdict is a person's: role `{role}` may not give one; sign in with a radiologist's account"
                    )
                }
                Some(Permission::Remove) => {
                    format!("removing is an admin's: role `{role}` may not; sign in with an admin's account")
                }
                _ => format!("role `{role}` may not do this"),
            };
            HttpError::Forbidden(text).into_response()
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(host: &str, origin: Option<&str>) -> Request {
        let mut builder = Request::builder().uri("/api/worklist").header(header::HOST, host);
        if let Some(origin) = origin {
            builder = builder.header(header::ORIGIN, origin);
        }
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn finds_a_key_by_its_digest_only() {
        let line = key_line("ct-1", Role::Sender, "secret").unwrap();
        let keys = Keys::parse(&format!("# keys\n\n{line}\n")).unwrap();
        assert_eq!(keys.find("secret").unwrap().role, Role::Sender);
        assert_eq!(keys.find("Secret"), None);
        assert!(!line.contains("secret"));
    }

    #[test]
    fn refuses_key_files_that_do_not_mean_what_they_should() {
        let digest = "0".repeat(64);
        for text in [
            "",
            "# only a comment",
            "name:viewer",
            &format!("name:root:{digest}"),
            &format!(":viewer:{digest}"),
            &format!("na me:viewer:{digest}"),
            "name:viewer:00",
            &format!("name:viewer:{}zz", &digest[2..]),
        ] {
            assert!(Keys::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listens_beyond_loopback_only_with_keys() {
        assert!(Access::new(None, "127.0.0.1".parse().unwrap()).is_ok());
        assert!(Access::new(None, "::1".parse().unwrap()).is_ok());
        assert!(matches!(
            Access::new(None, "0.0.0.0".parse().unwrap()),
            Err(AuthError::NotLoopback(_))
        ));
        assert!(matches!(
            Access::new(Some(Path::new("/nonexistent")), "0.0.0.0".parse().unwrap()),
            Err(AuthError::Read { .. })
        ));
    }

    #[test]
    fn refuses_foreign_names_and_pages_on_loopback() {
        for host in [
            "localhost:8080",
            "127.0.0.1",
            "127.8.8.8:1",
            "[::1]:8080",
            "LOCALHOST",
        ] {
            assert!(same_machine(&request(host, None)).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "10.0.0.1",
            "x@localhost",
        ] {
            assert!(same_machine(&request(host, None)).is_err(), "{host}");
        }
        assert!(same_machine(&request("localhost:8080", Some("http://localhost:8080"))).is_ok());
        for origin in ["http://evil.example", "null", "http://localhost:9999"] {
            assert!(
                same_machine(&request("localhost:8080", Some(origin))).is_err(),
                "{origin}"
            );
        }
    }

    #[test]
    fn keeps_everything_but_health_and_the_page_behind_a_key() {
        for path in ["/health/live", "/", "/assets/a.js", "/study/1.2"] {
            assert!(is_open(&Method::GET, path), "{path}");
        }
        for path in [
            "/api/worklist",
            "/api",
            "/dicom-web/studies",
            "/metrics",
            "/api/docs/",
        ] {
            assert!(!is_open(&Method::GET, path), "{path}");
        }
        assert!(!is_open(&Method::POST, "/"));
    }
}
