//! The application's API, keys, headers, events and the page.

use crate::{
    support::{Slice, uid},
    web::{MULTIPART, Server, multipart, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use futures::StreamExt;
use serde_json::{Value, json};

async fn with_one_study() -> Server {
    let server = Server::new().await;
    assert_eq!(
        server.stow(&[Slice::new("s", "a", 1).bytes()]).await.status,
        StatusCode::OK
    );
    server
}

/// Times are checked for their form and taken out.
fn without_times(study: &mut Value) {
    for key in ["arrived_at", "updated_at"] {
        let time = study[key].as_str().unwrap();
        time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).unwrap();
        study[key] = json!("[time]");
    }
}

#[tokio::test]
async fn lists_studies_and_shows_one() {
    let server = with_one_study().await;
    let list = server.get("/api/worklist?limit=10&offset=0", &[]).await;
    assert_eq!(list.status, StatusCode::OK, "{}", list.text());
    let mut list = list.json();
    without_times(&mut list["studies"][0]);
    insta::assert_json_snapshot!("worklist", list);
    let study = server.get(&format!("/api/studies/{}", uid("s")), &[]).await;
    let mut study = study.json();
    without_times(&mut study);
    insta::assert_json_snapshot!("study", study);
    assert_eq!(
        server.get("/api/studies/1.2.3", &[]).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        server.get("/api/studies/nobody", &[]).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        server.get("/api/worklist?limit=many", &[]).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn shows_the_trail_of_a_study_with_the_read_that_shows_it() {
    let server = with_one_study().await;
    let answer = server.get(&format!("/api/studies/{}/audit", uid("s")), &[]).await;
    let acts: Vec<_> = answer
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["act"].clone())
        .collect();
    assert_eq!(acts, ["store", "read"]);
    assert_eq!(answer.json()[1]["principal"], json!("local"));
    assert_eq!(
        server.get("/api/studies/1.2.3/audit", &[]).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn completes_a_series_and_does_not_know_a_foreign_one() {
    let server = with_one_study().await;
    let complete = |series: String| {
        request(
            Method::POST,
            &format!("/api/series/{series}/complete"),
            &[],
            Body::empty(),
        )
    };
    let answer = server.send(complete(uid("a").to_string())).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, json!({})));
    assert_eq!(
        server.send(complete("1.2.3".to_owned())).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        server.send(complete("x".to_owned())).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        server
            .world
            .count("SELECT count(*) FROM audit WHERE act = 'complete'")
            .await,
        1
    );
}

#[tokio::test]
async fn tells_live_that_a_study_arrived_and_ends_when_the_server_stops() {
    let server = Server::new().await;
    let response = server
        .respond(request(Method::GET, "/api/events", &[], Body::empty()))
        .await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    assert_eq!(
        server.stow(&[Slice::new("s", "a", 1).bytes()]).await.status,
        StatusCode::OK
    );
    let first = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(first.starts_with("event: study\n"), "{first}");
    assert!(
        first.contains(&format!("\"study_instance_uid\":\"{}\"", uid("s"))),
        "{first}"
    );
    assert_eq!(
        server
            .world
            .count("SELECT count(*) FROM audit WHERE act = 'read'")
            .await,
        1
    );
    server.stop.send(true).unwrap();
    while let Some(more) = stream.next().await {
        more.unwrap();
    }
}

#[tokio::test]
async fn lets_a_key_do_what_its_role_allows() {
    let server = Server::with_keys().await;
    let body = || Body::from(multipart(&[Slice::new("s", "a", 1).bytes()]));
    for (key, store, read) in [
        ("", 401, 401),
        ("nobody", 401, 401),
        ("viewer", 403, 200),
        ("sender", 200, 403),
        ("operator", 200, 200),
    ] {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![("content-type", MULTIPART), ("host", "ictus.example")];
        if !key.is_empty() {
            headers.push(("authorization", &bearer));
        }
        let answer = server
            .send(request(Method::POST, "/dicom-web/studies", &headers, body()))
            .await;
        assert_eq!(answer.status.as_u16(), store, "{key} stores: {}", answer.text());
        let answer = server.get("/api/worklist", &headers).await;
        assert_eq!(answer.status.as_u16(), read, "{key} reads: {}", answer.text());
        if read == 401 {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
    }
    let principals = server
        .world
        .count("SELECT count(*) FROM audit WHERE principal = 'the-operator'")
        .await;
    assert!(principals >= 2);
}

#[tokio::test]
async fn answers_loopback_names_and_its_own_pages_only() {
    let server = Server::new().await;
    for (headers, status) in [
        (vec![("host", "127.0.0.1:8080")], 200),
        (vec![("host", "evil.example")], 403),
        (
            vec![("host", "localhost:8080"), ("origin", "http://localhost:8080")],
            200,
        ),
        (
            vec![("host", "localhost:8080"), ("origin", "https://evil.example")],
            403,
        ),
    ] {
        let answer = server.get("/api/worklist", &headers).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
    }
}

#[tokio::test]
async fn gives_every_answer_an_id_and_safe_headers() {
    let server = Server::new().await;
    for path in [
        "/",
        "/api/version",
        "/no/such/page",
        "/api/nothing",
        "/dicom-web/nothing",
        "/assets/none.js",
    ] {
        let answer = server.get(path, &[("x-request-id", "mine")]).await;
        assert!(answer.header("x-request-id").len() == 36, "{path}");
        assert!(
            answer
                .header("content-security-policy")
                .contains("'wasm-unsafe-eval'"),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    let lost = server.get("/api/nothing", &[]).await;
    assert_eq!(
        (lost.status, lost.json()["title"].clone()),
        (StatusCode::NOT_FOUND, json!("Not Found"))
    );
    let wrong = server
        .send(request(Method::DELETE, "/dicom-web/studies", &[], Body::empty()))
        .await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!wrong.header("allow").is_empty());
    assert_eq!(
        server.get("/api/worklist", &[]).await.header("cache-control"),
        "no-store"
    );
}

#[tokio::test]
async fn serves_a_page_or_says_how_to_make_one() {
    let server = Server::new().await;
    let answer = server.get("/study/1.2.3", &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().contains("make web") || answer.header("content-type").starts_with("text/html"));
}

#[tokio::test]
async fn tells_those_who_run_it_how_it_is() {
    let server = with_one_study().await;
    assert_eq!(
        server.get("/health/live", &[]).await.json(),
        json!({ "status": "live" })
    );
    assert_eq!(
        server.get("/health/ready", &[]).await.json(),
        json!({ "status": "ready" })
    );
    let metrics = server.get("/metrics", &[]).await.text();
    for line in [
        "ictus_stow_stored_instances_total 1",
        "ictus_http_request_duration_seconds_count{route=\"/dicom-web/studies\",method=\"POST\",status=\"200\"} 1",
        "ictus_studies{state=\"arriving\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let version = server.get("/api/version", &[]).await.json();
    assert_eq!(version["version"], json!(env!("CARGO_PKG_VERSION")));
    assert!(
        version["disclaimer"]
            .as_str()
            .unwrap()
            .contains("not for clinical use")
    );
    // A database that does not answer as it should; closing the pool would wait for the listener's connection.
    sqlx::raw_sql("DROP TABLE audit_head")
        .execute(&mut server.world.superuser().await)
        .await
        .unwrap();
    let answer = server.get("/health/ready", &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.get("/health/live", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn describes_itself_without_loading_anything_from_elsewhere() {
    let server = Server::new().await;
    let document = server.get("/api/openapi.json", &[]).await;
    insta::assert_json_snapshot!("openapi", document.json());
    let reader = server.get("/api/docs/", &[]).await;
    assert_eq!(reader.status, StatusCode::OK);
    assert!(
        !reader.text().contains("//cdn") && !reader.text().contains("https://"),
        "{}",
        reader.text()
    );
}
