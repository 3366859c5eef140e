//! Signed links: what they open, what they do not, and for how long.

use crate::{
    review::{add, cookie, from_page},
    support::{Slice, uid},
    web::{Answer, Server, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use ictus::review::{
    account::AccountRole,
    link::{self, Target},
};
use serde_json::json;
use std::{io::Write as _, process::Stdio};
use time::{Duration, OffsetDateTime};

/// A server with keys, two studies `s` and `t`, and the secret of the link key `pacs`.
async fn server() -> (Server, String) {
    let server = Server::with_keys().await;
    for (study, series) in [("s", "a"), ("t", "b")] {
        server
            .world
            .send(vec![Slice::new(study, series, 1).bytes()])
            .await;
    }
    let secret = link::create(&server.world.db, "test", "pacs").await.unwrap();
    (server, secret)
}

async fn signed(server: &Server, target: Target, minutes: i64) -> String {
    let expires = OffsetDateTime::now_utc() + Duration::minutes(minutes);
    let path = link::sign(&server.world.db, "pacs", &target, expires)
        .await
        .unwrap();
    path.strip_prefix("/open?").unwrap().to_owned()
}

async fn follow(server: &Server, query: &str, cookie: Option<&str>) -> Answer {
    let body = json!({ "query": query }).to_string();
    let mut headers = vec![
        ("content-type", "application/json"),
        ("origin", "http://localhost"),
    ];
    headers.extend(cookie.map(|cookie| ("cookie", cookie)));
    server
        .send(request(
            Method::POST,
            "/api/session/link",
            &headers,
            Body::from(body),
        ))
        .await
}

fn token(answer: &Answer) -> String {
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_link_opens_its_study_to_be_looked_at_and_nothing_else() {
    let (server, _) = server().await;
    let query = signed(&server, Target::Study(uid("s").to_string()), 5).await;
    let answer = follow(&server, &query, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["study_instance_uid"], uid("s").as_str());
    let cookie = token(&answer);
    let (own, other) = (uid("s"), uid("t"));
    for (path, wanted) in [
        (format!("/api/studies/{own}"), StatusCode::OK),
        (format!("/api/studies/{own}/verdicts"), StatusCode::OK),
        (format!("/dicom-web/studies/{own}/metadata"), StatusCode::OK),
        ("/api/session".to_owned(), StatusCode::OK),
        (format!("/api/studies/{own}/audit"), StatusCode::FORBIDDEN),
        (format!("/api/studies/{other}"), StatusCode::FORBIDDEN),
        (format!("/api/studies/{own}0"), StatusCode::FORBIDDEN),
        (
            format!("/dicom-web/studies/{other}/metadata"),
            StatusCode::FORBIDDEN,
        ),
        ("/dicom-web/studies".to_owned(), StatusCode::FORBIDDEN),
        ("/dicom-web/instances".to_owned(), StatusCode::FORBIDDEN),
        ("/api/worklist".to_owned(), StatusCode::FORBIDDEN),
        ("/api/figures/cases".to_owned(), StatusCode::FORBIDDEN),
        ("/api/deliveries".to_owned(), StatusCode::FORBIDDEN),
        ("/metrics".to_owned(), StatusCode::FORBIDDEN),
    ] {
        let answer = server.get(&path, &[("cookie", &cookie)]).await;
        assert_eq!(answer.status, wanted, "{path}: {}", answer.text());
    }
    for (method, path) in [
        (Method::POST, format!("/api/studies/{own}/verdicts")),
        (Method::POST, format!("/api/studies/{own}/corrections")),
        (Method::POST, format!("/api/studies/{own}/presence")),
        (Method::POST, "/dicom-web/studies".to_owned()),
        (Method::POST, format!("/dicom-web/studies/{own}")),
    ] {
        let answer = from_page(&server, method.clone(), &path, &cookie, &json!({})).await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{method} {path}: {}",
            answer.text()
        );
    }
    let who = server.get("/api/session", &[("cookie", &cookie)]).await.json();
    assert_eq!((&who["role"], &who["person"]), (&json!("link"), &json!(false)));
    let trail = server.world.db.audit_of_study(&own).await.unwrap();
    let acts: Vec<_> = trail
        .iter()
        .filter(|row| row.principal == "link:pacs")
        .map(|row| row.act.as_str())
        .collect();
    assert!(
        acts.contains(&"link_followed") && acts.contains(&"read"),
        "{acts:?}"
    );
}

#[tokio::test]
async fn links_that_are_altered_late_foreign_or_revoked_open_nothing_and_say_why() {
    let (server, _) = server().await;
    let study = || Target::Study(uid("s").to_string());
    let fine = signed(&server, study(), 5).await;
    let late = signed(&server, study(), -1).await;
    let long = signed(&server, study(), 8 * 24 * 60).await;
    let absent = signed(&server, Target::Accession("NONE".to_owned()), 5).await;
    for (query, why) in [
        (fine.replace(uid("s").as_str(), uid("t").as_str()), "altered"),
        (fine.replace("key=pacs", "key=other"), "not in use"),
        (format!("{fine}&study={}", uid("t")), "twice"),
        (format!("{fine}&accession=A1"), "altered"),
        (fine.split("&signature").next().unwrap().to_owned(), "altered"),
        (late, "expired"),
        (long, "more than a week"),
        (absent, "not arrived"),
        (String::new(), "not in use"),
    ] {
        let answer = follow(&server, &query, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{query}");
        assert!(answer.text().contains(why), "{query}: {}", answer.text());
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
    }
    let refused = "SELECT count(*) FROM audit WHERE act = 'link_refused' AND principal = 'link:pacs'";
    assert_eq!(server.world.count(refused).await, 6);

    // The visit ends with the key, and after two hours.
    let (first, second) = (
        token(&follow(&server, &fine, None).await),
        token(&follow(&server, &fine, None).await),
    );
    let look = async |cookie: &str| {
        let path = format!("/api/studies/{}", uid("s"));
        server.get(&path, &[("cookie", cookie)]).await.status
    };
    assert_eq!(
        (look(&first).await, look(&second).await),
        (StatusCode::OK, StatusCode::OK)
    );
    server
        .world
        .run("UPDATE link_visit SET created_at = created_at - interval '2 hours' WHERE ctid = (SELECT min(ctid) FROM link_visit)")
        .await;
    let ended = [look(&first).await, look(&second).await];
    assert_eq!(
        ended
            .iter()
            .filter(|status| **status == StatusCode::UNAUTHORIZED)
            .count(),
        1
    );
    link::revoke(&server.world.db, "test", "pacs").await.unwrap();
    assert_eq!(
        (look(&first).await, look(&second).await),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
    assert_eq!(
        follow(&server, &fine, None).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn whoever_signed_in_keeps_their_own_session() {
    let (server, _) = server().await;
    add(&server.world, "reader", AccountRole::Radiologist).await;
    let own = cookie(&server, "reader").await;
    let query = signed(&server, Target::Study(uid("s").to_string()), 5).await;
    let answer = follow(&server, &query, Some(&own)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(!answer.headers.contains_key(header::SET_COOKIE));
    let path = format!("/api/studies/{}", uid("t"));
    assert_eq!(
        server.get(&path, &[("cookie", &own)]).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn another_system_signs_as_the_documentation_says() {
    let (server, secret) = server().await;
    server
        .world
        .run("UPDATE study SET accession_number = 'A/17 b'")
        .await;
    let expires = (OffsetDateTime::now_utc() + Duration::minutes(5)).unix_timestamp();
    let mut openssl = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", &secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("accession:A/17 b\nexpires:{expires}\nkey:pacs\n");
    openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = String::from_utf8(openssl.wait_with_output().unwrap().stdout).unwrap();
    let signature = said.rsplit(' ').next().unwrap().trim();
    let query = format!("expires={expires}&key=pacs&accession=A%2F17%20b&signature={signature}");
    // Both studies have that number now, and a link means one.
    let two = follow(&server, &query, None).await;
    assert!(two.text().contains("several studies"), "{}", two.text());
    server
        .world
        .run("UPDATE study SET accession_number = NULL WHERE id = (SELECT max(id) FROM study)")
        .await;
    assert_eq!(follow(&server, &query, None).await.status, StatusCode::OK);
}
