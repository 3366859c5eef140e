//! Walks the OpenAPI document: every route refuses who may not use it, and every read leaves its row in the trail.

use crate::{
    support::{Slice, uid},
    web::{Server, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use serde_json::Value;

/// Every method and path of the document, with parameters that name the stored slice.
fn routes(slice: &Slice) -> Vec<(Method, String, Value)> {
    let document = serde_json::to_value(ictus::http::document()).unwrap();
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{study}", slice.study.as_str())
            .replace("{series}", slice.series.as_str())
            .replace("{instance}", slice.sop.as_str())
            .replace("{frames}", "1")
            .replace("{delivery}", "00000000-0000-4000-8000-000000000000")
            .replace("{path}", "7FE00010")
            .replace("{name}", "night")
            .replace("{workitem}", "1.2.826.0.1.3680043.8.498.7")
            .replace("{title}", "WATCH")
            .replace("{transaction}", "1.2.826.0.1.3680043.8.498.8");
        let filled = if filled == "/dicom-web/wado" {
            let (study, series, sop) = (&slice.study, &slice.series, &slice.sop);
            format!("{filled}?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={sop}")
        } else {
            filled
        };
        assert!(
            !filled.contains('{'),
            "{path} has a parameter that this test does not know"
        );
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            routes.push((method, filled.clone(), operation.clone()));
        }
    }
    assert!(routes.len() >= 29, "{} routes", routes.len());
    routes
}

/// What anyone may ask: it says nothing about anyone.
fn is_open(path: &str) -> bool {
    path.starts_with("/health/")
}

/// Where people say who they are; its own tests are those of the reading room.
const SESSION: &str = "/api/session";

/// What holds no patient data, so that reading it is no act.
fn is_impersonal(path: &str) -> bool {
    is_open(path)
        || path.starts_with("/dicom-web/commitment-requests/")
        || path.starts_with("/api/session/")
        || matches!(
            path,
            "/api/version"
                | "/api/deliveries"
                | "/api/revisions"
                | "/metrics"
                | "/api/views"
                | "/api/figures"
                | SESSION
        )
}

/// What speaks only of studies that were answered, or of workitems: `figures.rs` and `workitem.rs` have some.
fn has_own_test(path: &str) -> bool {
    path.starts_with("/api/figures/") || path.starts_with("/dicom-web/workitems") || is_channel(path)
}

/// A WebSocket, over which nothing about a patient goes.
fn is_channel(path: &str) -> bool {
    path.starts_with("/dicom-web/subscribers/")
}

#[tokio::test]
async fn every_route_but_health_refuses_a_request_without_a_key() {
    let server = Server::with_keys().await;
    for (method, path, operation) in routes(&Slice::new("s", "a", 1)) {
        let answer = server
            .send(request(method.clone(), &path, &[], Body::empty()))
            .await;
        if is_open(&path) {
            assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
            continue;
        }
        // Ways in are open: without a provider, or with nothing to follow, they lead nowhere.
        if path.starts_with("/api/session/") && method == Method::GET {
            assert!(
                matches!(answer.status, StatusCode::OK | StatusCode::NOT_FOUND),
                "{method} {path}"
            );
            continue;
        }
        if path.starts_with(SESSION) && method == Method::POST {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
            continue;
        }
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert!(
            operation["responses"].get("401").is_some(),
            "{method} {path} does not document its refusal"
        );
    }
}

#[tokio::test]
async fn every_route_refuses_a_role_that_may_not_use_it() {
    let server = Server::with_keys().await;
    for (method, path, _) in routes(&Slice::new("s", "a", 1)) {
        if path.starts_with(SESSION) {
            continue;
        }
        let role = if method == Method::GET {
            "Bearer sender"
        } else {
            "Bearer viewer"
        };
        let answer = server
            .send(request(
                method.clone(),
                &path,
                &[("authorization", role)],
                Body::empty(),
            ))
            .await;
        let wanted = if is_open(&path) {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(answer.status, wanted, "{method} {path}");
    }
}

#[tokio::test]
async fn every_route_documents_only_statuses_that_name_a_problem() {
    for (method, path, operation) in routes(&Slice::new("s", "a", 1)) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let is_problem = response["content"].as_object().is_some_and(|content| {
                content
                    .values()
                    .any(|body| body["schema"]["$ref"] == "#/components/schemas/Problem")
            });
            // STOW answers 409 with what became of each instance.
            let stored = status == "409" && method == Method::POST && path.starts_with("/dicom-web/studies");
            let failed = status.starts_with(['4', '5']) && !stored;
            assert_eq!(failed, is_problem, "{method} {path} {status}");
        }
    }
}

#[tokio::test]
async fn every_read_of_a_study_is_in_the_trail() {
    for (method, path, _) in routes(&Slice::new("s", "a", 1)) {
        if method != Method::GET || is_impersonal(&path) || path == "/api/events" || has_own_test(&path) {
            continue;
        }
        // A server each: a read covers the reads of the next ten minutes.
        let server = Server::new().await;
        let slice = Slice::new("s", "a", 1);
        assert_eq!(server.stow(&[slice.bytes()]).await.status, StatusCode::OK);
        let answer = server.get(&path, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        let trail = server.world.db.audit_of_study(&uid("s")).await.unwrap();
        let reads = trail
            .iter()
            .filter(|row| row.act == "read" && row.principal == "local")
            .count();
        assert_eq!(reads, 1, "{path}");
    }
}
