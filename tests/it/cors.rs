//! Viewers on another origin: allowed ones read and write DICOMweb with a key, and nobody comes in with a reader's session.

use crate::{
    review::{add, cookie},
    support::Slice,
    web::{Answer, MULTIPART, Server, multipart, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use ictus::review::account::AccountRole;

const VIEWER: &str = "https://viewer.example";
const STUDIES: &str = "/dicom-web/studies";

async fn ask(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.send(request(method, path, headers, Body::empty())).await
}

async fn preflight(server: &Server, origin: &str, path: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    ask(server, Method::OPTIONS, path, &headers).await
}

#[tokio::test]
async fn an_allowed_viewer_asks_first_and_then_reads_with_its_key() {
    let server = Server::with_keys_and_origins(&[VIEWER, "http://localhost:3000"]).await;
    let asked = preflight(&server, VIEWER, STUDIES).await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT, "{}", asked.text());
    assert_eq!(asked.header("access-control-allow-origin"), VIEWER);
    assert!(asked.header("access-control-allow-methods").contains("GET"));
    assert!(
        asked
            .header("access-control-allow-headers")
            .contains("authorization")
    );
    assert!(asked.header("vary").contains("origin"));

    let body = multipart(&[Slice::new("s", "a", 1).bytes()]);
    let headers = [
        ("origin", VIEWER),
        ("authorization", "Bearer operator"),
        ("content-type", MULTIPART),
    ];
    let stored = server
        .send(request(Method::POST, STUDIES, &headers, body.into()))
        .await;
    assert_eq!(stored.status, StatusCode::OK, "{}", stored.text());
    let key = [("origin", VIEWER), ("authorization", "Bearer viewer")];
    let found = ask(&server, Method::GET, STUDIES, &key).await;
    assert_eq!(found.status, StatusCode::OK);
    assert_eq!(found.header("access-control-allow-origin"), VIEWER);
    let exposed = found.header("access-control-expose-headers");
    for name in ["etag", "warning", "content-location"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    // A refusal is readable, too.
    let refused = ask(&server, Method::GET, STUDIES, &[("origin", VIEWER)]).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.header("access-control-allow-origin"), VIEWER);
    for answer in [&asked, &found, &refused] {
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
    // Without a preflight's headers OPTIONS describes what there is, as always.
    let described = ask(&server, Method::OPTIONS, "/dicom-web/", &key).await;
    assert!(
        described.header("content-type").contains("wadl"),
        "{}",
        described.text()
    );
}

#[tokio::test]
async fn no_other_origin_and_no_other_part_of_the_server_is_shared() {
    let server = Server::with_keys_and_origins(&[VIEWER]).await;
    let key = ("authorization", "Bearer viewer");
    for origin in [
        "https://evil.example",
        "http://viewer.example",
        "https://viewer.example.evil.example",
        "null",
    ] {
        let asked = preflight(&server, origin, STUDIES).await;
        let found = ask(&server, Method::GET, STUDIES, &[("origin", origin), key]).await;
        for answer in [asked, found] {
            assert!(
                !answer.headers.contains_key("access-control-allow-origin"),
                "{origin}"
            );
            assert!(answer.header("vary").contains("origin"), "{origin}");
        }
    }
    for path in ["/api/worklist", "/api/session", "/metrics", "/dicom-webs"] {
        let asked = preflight(&server, VIEWER, path).await;
        assert!(
            !asked.headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
    }
    // By default nothing is shared with anybody.
    let closed = Server::with_keys().await;
    let asked = preflight(&closed, VIEWER, STUDIES).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
    assert!(!asked.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_readers_session_is_worth_nothing_from_another_origin() {
    let server = Server::with_keys_and_origins(&[VIEWER]).await;
    add(&server.world, "keeper", AccountRole::Admin).await;
    let cookie = cookie(&server, "keeper").await;
    let session = [("origin", VIEWER), ("cookie", cookie.as_str())];
    let read = ask(&server, Method::GET, STUDIES, &session).await;
    assert_eq!(
        read.status,
        StatusCode::UNAUTHORIZED,
        "the cookie is not looked at"
    );
    let remove = ask(
        &server,
        Method::DELETE,
        "/dicom-web/studies/1.2.3?reason=duplicate",
        &session,
    )
    .await;
    assert_eq!(remove.status, StatusCode::UNAUTHORIZED);
    let judge = ask(&server, Method::POST, "/api/studies/1.2.3/verdicts", &session).await;
    assert_eq!(judge.status, StatusCode::FORBIDDEN, "the API is for our own page");
}

#[tokio::test]
async fn on_loopback_an_allowed_viewer_needs_no_key_and_others_are_refused() {
    let server = Server::with_origins(&["http://localhost:3000"]).await;
    let found = ask(
        &server,
        Method::GET,
        STUDIES,
        &[("origin", "http://localhost:3000")],
    )
    .await;
    assert_eq!(found.status, StatusCode::NO_CONTENT, "{}", found.text());
    let other = ask(
        &server,
        Method::GET,
        STUDIES,
        &[("origin", "http://localhost:3001")],
    )
    .await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    let api = ask(
        &server,
        Method::GET,
        "/api/worklist",
        &[("origin", "http://localhost:3000")],
    )
    .await;
    assert_eq!(api.status, StatusCode::FORBIDDEN);
}
