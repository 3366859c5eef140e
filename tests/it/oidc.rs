//! Signing in at an OpenID provider: a small one of our own, with real keys, that can be told to lie.

use crate::{
    review::{add, from_page},
    support::World,
    web::{Answer, Server},
};
use axum::{
    Form, Json, Router,
    extract::State,
    http::{Method, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ictus::{
    http::{Limits, auth::Access},
    review::{
        account::{self, AccountRole},
        oidc::{Hidden, Oidc, Settings},
    },
};
use openidconnect::{
    PrivateSigningKey,
    core::{CoreJwsSigningAlgorithm, CoreRsaPrivateSigningKey},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    process::Command,
    sync::{Arc, Mutex},
};

/// What the provider says of the one person that it knows, and how it lies.
struct Saying {
    issuer: String,
    key: CoreRsaPrivateSigningKey,
    /// The key that it publishes; another one after a change that it kept to itself.
    published: Value,
    claims: Value,
    algorithm: &'static str,
    /// By code: nonce and PKCE challenge.
    codes: HashMap<String, (String, String)>,
}

type Shared = Arc<Mutex<Saying>>;

fn key(kid: &str) -> (CoreRsaPrivateSigningKey, Value) {
    let made = Command::new("openssl")
        .args(["genrsa", "-traditional", "2048"])
        .output()
        .unwrap();
    let pem = String::from_utf8(made.stdout).unwrap();
    let kid = openidconnect::JsonWebKeyId::new(kid.to_owned());
    let key = CoreRsaPrivateSigningKey::from_pem(&pem, Some(kid)).unwrap();
    let public = serde_json::to_value(key.as_verification_key()).unwrap();
    (key, public)
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

async fn provider() -> Shared {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let (key, published) = key("first");
    let saying = Arc::new(Mutex::new(Saying {
        issuer: issuer.clone(),
        key,
        published,
        claims: json!({
            "iss": issuer, "aud": "ictus", "sub": "42", "iat": now(), "exp": now() + 60,
            "preferred_username": "anna", "name": "Dr. Anna Muster", "groups": {"ct": ["Reporting", "Other"]},
        }),
        algorithm: "RS256",
        codes: HashMap::new(),
    }));
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(configuration))
        .route(
            "/jwks",
            get(async |State(saying): State<Shared>| {
                let published = saying.lock().unwrap().published.clone();
                Json(json!({ "keys": [published] }))
            }),
        )
        .route("/token", post(token))
        .with_state(saying.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    saying
}

async fn configuration(State(saying): State<Shared>) -> Json<Value> {
    let issuer = saying.lock().unwrap().issuer.clone();
    Json(json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }))
}

/// A code is good once, and only with the verifier of its challenge and our secret.
async fn token(
    State(saying): State<Shared>,
    headers: axum::http::HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> axum::response::Response {
    let mut saying = saying.lock().unwrap();
    let Some((nonce, challenge)) = saying.codes.remove(&form["code"]) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let proves = BASE64.encode(Sha256::digest(form["code_verifier"].as_bytes())) == challenge;
    let basic = headers[header::AUTHORIZATION].to_str().unwrap().to_owned();
    let secret = basic == "Basic aWN0dXM6b3VyIHNlY3JldA==" || basic == "Basic aWN0dXM6b3VyK3NlY3JldA==";
    assert!(proves && secret, "{basic}");
    assert!(form["redirect_uri"].ends_with("/api/session/oidc/callback"));
    let mut claims = saying.claims.clone();
    if claims.get("nonce").is_none() {
        claims["nonce"] = json!(nonce);
    }
    let head = json!({"alg": saying.algorithm, "typ": "JWT", "kid": "first"});
    let signed = format!(
        "{}.{}",
        BASE64.encode(head.to_string()),
        BASE64.encode(claims.to_string())
    );
    let signature = match saying.algorithm {
        "none" => Vec::new(),
        "HS256" => {
            use hmac::{Hmac, KeyInit, Mac};
            let mut mac = Hmac::<Sha256>::new_from_slice(b"our secret").unwrap();
            mac.update(signed.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
        _ => {
            let algorithm = CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256;
            saying.key.sign(&algorithm, signed.as_bytes()).unwrap()
        }
    };
    let id_token = format!("{signed}.{}", BASE64.encode(signature));
    Json(json!({"access_token": "a", "token_type": "Bearer", "id_token": id_token})).into_response()
}

async fn server(issuer: &str) -> Server {
    ictus::deliver::install_cryptography();
    let oidc = Oidc::new(Settings {
        issuer: issuer.to_owned(),
        client_id: "ictus".to_owned(),
        client_secret: Some(Hidden("our secret".to_owned())),
        name: "Hospital".to_owned(),
        public_url: "http://localhost".to_owned(),
        scopes: vec!["profile".to_owned()],
        role_claim: "groups.ct".to_owned(),
        roles: vec![
            (AccountRole::Radiologist, "Reporting".to_owned()),
            (AccountRole::Auditor, "Audit".to_owned()),
        ],
    });
    let access = Access::new(None, [127, 0, 0, 1].into()).unwrap();
    Server::with_provider(access, Limits::default(), Some(Arc::new(oidc.unwrap()))).await
}

fn issuer(provider: &Shared) -> String {
    provider.lock().unwrap().issuer.clone()
}

/// A browser that was sent to the provider: its cookie, and what the address says.
struct Sent {
    cookie: String,
    asked: HashMap<String, String>,
}

async fn start(server: &Server, return_to: &str) -> Sent {
    let answer = server
        .get(&format!("/api/session/oidc?return={return_to}"), &[])
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    let location = answer.headers[header::LOCATION].to_str().unwrap();
    let (_, query) = location.split_once("/authorize?").unwrap();
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
    Sent {
        cookie: cookie.split(';').next().unwrap().to_owned(),
        asked: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
    }
}

/// The provider lets the person in and sends the browser back.
async fn back(server: &Server, provider: &Shared, sent: &Sent) -> Answer {
    let asked = &sent.asked;
    assert_eq!(
        (
            asked["code_challenge_method"].as_str(),
            asked["client_id"].as_str()
        ),
        ("S256", "ictus")
    );
    let held = (asked["nonce"].clone(), asked["code_challenge"].clone());
    provider.lock().unwrap().codes.insert("code".to_owned(), held);
    let path = format!("/api/session/oidc/callback?state={}&code=code", asked["state"]);
    server.get(&path, &[("cookie", &sent.cookie)]).await
}

fn leads(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    answer.headers[header::LOCATION].to_str().unwrap()
}

/// The session's cookie of an answer, if it has one.
fn session(answer: &Answer) -> Option<String> {
    let cookies = answer.headers.get_all(header::SET_COOKIE).iter();
    let cookie = cookies
        .map(|c| c.to_str().unwrap())
        .find(|c| c.starts_with("ictus_session="))?;
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    Some(cookie.split(';').next().unwrap().to_owned())
}

async fn who(server: &Server, cookie: &str) -> Value {
    server.get("/api/session", &[("cookie", cookie)]).await.json()
}

async fn accounts(world: &World) -> i64 {
    world.count("SELECT count(*) FROM account").await
}

#[tokio::test]
async fn a_person_whom_the_provider_vouches_for_signs_in_with_its_role_and_name() {
    let provider = provider().await;
    let server = server(&issuer(&provider)).await;
    let ways = server.get("/api/session/ways", &[]).await.json();
    assert_eq!(ways, json!({"oidc": "Hospital"}));
    let answer = back(&server, &provider, &start(&server, "/study/1.2.3").await).await;
    assert_eq!(leads(&answer), "/study/1.2.3");
    let cookie = session(&answer).unwrap();
    let known = who(&server, &cookie).await;
    assert_eq!(
        (
            &known["name"],
            &known["display_name"],
            &known["role"],
            &known["person"]
        ),
        (
            &json!("anna@127.0.0.1"),
            &json!("Dr. Anna Muster"),
            &json!("radiologist"),
            &json!(true)
        )
    );
    let trail = "SELECT count(*) FROM audit WHERE act = 'signed_in' AND principal = 'anna@127.0.0.1'";
    assert_eq!(server.world.count(trail).await, 1);

    // The next time it is the same account, with what the provider says now.
    provider.lock().unwrap().claims["groups"] = json!({"ct": "Audit"});
    provider.lock().unwrap().claims["name"] = json!("Dr. Anna Beispiel");
    let again = back(&server, &provider, &start(&server, "/").await).await;
    let known = who(&server, &session(&again).unwrap()).await;
    assert_eq!(
        (&known["role"], &known["display_name"]),
        (&json!("auditor"), &json!("Dr. Anna Beispiel"))
    );
    assert_eq!(accounts(&server.world).await, 1);
    // It signs out like anyone, and was never given a password.
    let out = from_page(&server, Method::DELETE, "/api/session", &cookie, &json!({})).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert_eq!(who(&server, &cookie).await["person"], json!(false));
    let body = json!({"name": "anna@127.0.0.1", "password": "correct horse battery"});
    let password = from_page(&server, Method::POST, "/api/session", "", &body).await;
    assert_eq!(password.status, StatusCode::UNAUTHORIZED);
    let set = account::set_password(
        &server.world.db,
        "test",
        "anna@127.0.0.1",
        "correct horse battery".to_owned(),
    )
    .await;
    assert!(set.is_err());
}

#[tokio::test]
async fn tokens_that_are_not_what_they_should_be_let_nobody_in() {
    let provider = provider().await;
    let server = server(&issuer(&provider)).await;
    let fine = provider.lock().unwrap().claims.clone();
    for (claim, value, code) in [
        ("nonce", json!("another"), "token"),
        ("aud", json!("another"), "token"),
        ("aud", json!(["ictus", "another"]), "token"),
        ("iss", json!("https://another.example"), "token"),
        ("exp", json!(now() - 1), "token"),
        ("nbf", json!(now() + 3600), "token"),
        ("nbf", json!("soon"), "token"),
        ("azp", json!("another"), "token"),
        ("groups", json!({"ct": ["Other"]}), "role"),
        ("groups", json!({}), "role"),
    ] {
        let mut claims = fine.clone();
        claims[claim] = value.clone();
        provider.lock().unwrap().claims = claims;
        let answer = back(&server, &provider, &start(&server, "/").await).await;
        assert_eq!(leads(&answer), format!("/?sign-in={code}"), "{claim} {value}");
        assert_eq!(session(&answer), None);
    }
    provider.lock().unwrap().claims = fine;
    for algorithm in ["none", "HS256"] {
        provider.lock().unwrap().algorithm = algorithm;
        let answer = back(&server, &provider, &start(&server, "/").await).await;
        assert_eq!(leads(&answer), "/?sign-in=token", "{algorithm}");
    }
    provider.lock().unwrap().algorithm = "RS256";
    // Signed with a key that is published under the same name later.
    let (other, published) = key("first");
    provider.lock().unwrap().key = other;
    let answer = back(&server, &provider, &start(&server, "/").await).await;
    assert_eq!(leads(&answer), "/?sign-in=token");
    assert_eq!(accounts(&server.world).await, 0);
    let refused = "SELECT count(*) FROM audit WHERE act = 'sign_in_refused' AND principal = 'unknown'";
    assert_eq!(server.world.count(refused).await, 13);
    provider.lock().unwrap().published = published;
    let answer = back(&server, &provider, &start(&server, "/").await).await;
    assert!(
        session(&answer).is_some(),
        "a changed key is known at once: {}",
        leads(&answer)
    );
}

#[tokio::test]
async fn a_sign_in_ends_once_in_the_browser_in_which_it_began_and_on_this_server() {
    let provider = provider().await;
    let server = server(&issuer(&provider)).await;
    let (mine, other) = (start(&server, "/").await, start(&server, "/").await);
    // Somebody else's cookie, and none.
    let foreign = Sent {
        cookie: other.cookie.clone(),
        asked: mine.asked.clone(),
    };
    assert_eq!(
        leads(&back(&server, &provider, &foreign).await),
        "/?sign-in=state"
    );
    let bare = Sent {
        cookie: "other=1".to_owned(),
        asked: mine.asked.clone(),
    };
    assert_eq!(leads(&back(&server, &provider, &bare).await), "/?sign-in=state");
    assert_eq!(leads(&back(&server, &provider, &mine).await), "/");
    assert_eq!(
        leads(&back(&server, &provider, &mine).await),
        "/?sign-in=state",
        "used twice"
    );
    // The provider said no.
    let path = format!(
        "/api/session/oidc/callback?state={}&error=access_denied",
        other.asked["state"]
    );
    let refused = server.get(&path, &[("cookie", &other.cookie)]).await;
    assert_eq!(leads(&refused), "/?sign-in=refused");
    // Too late, and not to another server.
    let late = start(&server, "//evil.example/").await;
    server
        .world
        .run("UPDATE oidc_attempt SET at = at - interval '11 minutes'")
        .await;
    assert_eq!(leads(&back(&server, &provider, &late).await), "/?sign-in=state");
    let open = start(&server, "https:%2F%2Fevil.example").await;
    assert_eq!(leads(&back(&server, &provider, &open).await), "/");
}

#[tokio::test]
async fn a_local_account_of_the_same_name_stays_its_own_and_a_disabled_person_stays_out() {
    let provider = provider().await;
    let server = server(&issuer(&provider)).await;
    add(&server.world, "anna@127.0.0.1", AccountRole::Admin).await;
    let answer = back(&server, &provider, &start(&server, "/").await).await;
    let known = who(&server, &session(&answer).unwrap()).await;
    let name = known["name"].as_str().unwrap().to_owned();
    assert!(
        name.starts_with("anna-") && known["role"] == "radiologist",
        "{known}"
    );
    account::disable(&server.world.db, "test", &name).await.unwrap();
    let answer = back(&server, &provider, &start(&server, "/").await).await;
    assert_eq!(leads(&answer), "/?sign-in=disabled");
}

#[tokio::test]
async fn without_its_provider_the_server_says_so_and_local_accounts_go_on() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let server = server(&format!("http://{address}")).await;
    let answer = server.get("/api/session/oidc", &[]).await;
    assert_eq!(leads(&answer), "/?sign-in=provider");
    add(&server.world, "reader", AccountRole::Radiologist).await;
    crate::review::cookie(&server, "reader").await;
    // Nobody is sent anywhere by a server that has none.
    let plain = Server::new().await;
    assert_eq!(
        plain.get("/api/session/oidc", &[]).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        plain.get("/api/session/ways", &[]).await.json(),
        json!({"oidc": null})
    );
}
