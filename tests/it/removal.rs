//! Removing what is stored: by an admin with a reason, refused in words while something stands against it, and told by the trail.

use crate::{
    deliver_support::{Delivering, c_store, trail},
    queue::{Fake, Running, report, until_no_job, until_state},
    review::{add, cookie},
    support::{Slice, uid},
    web::{Answer, Server, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use ictus::{audit, review::account::AccountRole, worker::replay::Recorded};
use serde_json::json;
use std::sync::Arc;

/// Studies that were analysed, and an admin's session.
struct Archive {
    server: Server,
    admin: String,
}

impl Archive {
    async fn open() -> Self {
        let server = Server::new().await;
        add(&server.world, "keeper", AccountRole::Admin).await;
        let admin = cookie(&server, "keeper").await;
        Self { server, admin }
    }

    async fn remove(&self, path: &str) -> Answer {
        let headers = [("cookie", self.admin.as_str()), ("origin", "http://localhost")];
        let path = format!("/dicom-web/{path}");
        self.server
            .send(request(Method::DELETE, &path, &headers, Body::empty()))
            .await
    }

    async fn analyse(&self, fake: &Arc<Fake>) {
        let worker = Running::start(&self.server.world, fake.clone()).await;
        self.server.world.send(Slice::head("s", "a")).await;
        until_state(&self.server.world, "s", "flagged").await;
        until_no_job(&self.server.world).await;
        worker.stop().await;
    }

    async fn files(&self) -> usize {
        self.server.world.archive_files().await.len()
    }
}

fn study() -> String {
    format!("studies/{}", uid("s"))
}

fn finder() -> Arc<Fake> {
    Fake::new(|_, _, _| Ok(report(Some(12.5))))
}

#[tokio::test]
async fn a_removed_study_is_gone_everywhere_and_the_trail_says_by_whom_and_why() {
    let archive = Archive::open().await;
    archive.analyse(&finder()).await;
    let world = &archive.server.world;
    let analysis = world
        .db
        .study_detail(&uid("s"))
        .await
        .unwrap()
        .unwrap()
        .analysis
        .unwrap()
        .id;
    let before = archive.files().await;
    assert_eq!(before, 32);
    let answer = archive
        .remove(&format!("{}?reason=erasure_request", study()))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["instances"], json!(32));
    assert_eq!(archive.files().await, 0, "the bytes are gone");
    for path in ["/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances"] {
        assert_eq!(archive.server.get(path, &[]).await.status, StatusCode::NO_CONTENT);
    }
    let metadata = format!("/dicom-web/{}/metadata", study());
    assert_eq!(
        archive.server.get(&metadata, &[]).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        archive.server.get("/api/worklist", &[]).await.json()["studies"],
        json!([])
    );
    // Nothing about the patient is left in the index.
    let left = "SELECT count(*) FROM study WHERE patient_name IS NOT NULL OR patient_id IS NOT NULL";
    assert_eq!(world.count(left).await, 0);
    assert_eq!(
        world
            .count("SELECT count(*) FROM instance WHERE metadata <> '{}'")
            .await,
        0
    );
    let removed = trail(world, "remove").await;
    assert_eq!(
        (
            removed[0]["reason"].as_str(),
            removed[0]["instances"].as_array().map(Vec::len),
            &removed[0]["analyses"][0]
        ),
        (Some("erasure_request"), Some(32), &json!(analysis))
    );
    let row = world.db.audit_of_study(&uid("s")).await.unwrap();
    assert_eq!(row.last().unwrap().principal, "keeper");
    assert_eq!(audit::verify(&world.db).await.unwrap().fault, None);
    let replay = Recorded::read(&world.db, &world.archive, analysis)
        .await
        .unwrap_err();
    assert!(
        replay
            .to_string()
            .contains("by keeper (erasure_request): its bytes are gone"),
        "{replay}"
    );
    // Twice there is nothing to remove.
    let again = archive.remove(&format!("{}?reason=duplicate", study())).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_was_removed_may_come_again_and_is_analysed_with_the_same_results() {
    let archive = Archive::open().await;
    let fake = finder();
    archive.analyse(&fake).await;
    let files = archive.server.world.archive_files().await;
    archive.remove(&format!("{}?reason=test_data", study())).await;
    archive.analyse(&fake).await;
    assert_eq!(fake.calls(), 2);
    assert_eq!(archive.server.world.archive_files().await, files, "byte for byte");
    let found = archive.server.get("/dicom-web/studies", &[]).await.json();
    assert_eq!(found[0]["00100020"]["Value"], json!(["P1"]));
    assert_eq!(
        archive
            .server
            .world
            .count("SELECT count(*) FROM series WHERE conflict IS NOT NULL")
            .await,
        0
    );
    let analysis = archive
        .server
        .world
        .db
        .study_detail(&uid("s"))
        .await
        .unwrap()
        .unwrap();
    let world = &archive.server.world;
    let recorded = Recorded::read(&world.db, &world.archive, analysis.analysis.unwrap().id).await;
    assert_eq!(recorded.unwrap().results().len(), 2);
}

#[tokio::test]
async fn an_instance_or_a_series_is_removed_alone_and_what_is_left_is_analysed_again() {
    let archive = Archive::open().await;
    let fake = finder();
    archive.analyse(&fake).await;
    let world = &archive.server.world;
    let slice = Slice::new("s", "a", 7);
    let path = format!("{}/series/{}/instances/{}", study(), slice.series, slice.sop);
    let answer = archive.remove(&format!("{path}?reason=poor_quality")).await;
    assert_eq!(answer.json()["instances"], json!(1), "{}", answer.text());
    let worker = Running::start(world, fake.clone()).await;
    until_no_job(world).await;
    worker.stop().await;
    assert_eq!(fake.calls(), 2);
    let detail = world.db.study_detail(&uid("s")).await.unwrap().unwrap();
    assert_eq!(detail.study.revision, Some(2));
    // A result is no image: it goes with its images.
    let results = archive
        .server
        .get(&format!("/dicom-web/{}/series?Modality=CT", study()), &[])
        .await
        .json();
    let result = results
        .as_array()
        .unwrap()
        .iter()
        .map(|series| series["0020000E"]["Value"][0].as_str().unwrap())
        .find(|series| *series != slice.series.as_str())
        .unwrap()
        .to_owned();
    let refused = archive
        .remove(&format!("{}/series/{result}?reason=duplicate", study()))
        .await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(
        refused.text().contains("go with the images"),
        "{}",
        refused.text()
    );
    // The last images take everything with them.
    let path = format!("{}/series/{}?reason=duplicate", study(), slice.series);
    assert_eq!(archive.remove(&path).await.status, StatusCode::OK);
    assert_eq!(archive.files().await, 0);
    assert_eq!(audit::verify(&world.db).await.unwrap().fault, None);
}

#[tokio::test]
async fn nobody_but_an_admin_removes_and_not_without_a_reason() {
    let archive = Archive::open().await;
    archive.server.world.send(Slice::head("s", "a")).await;
    add(&archive.server.world, "reader", AccountRole::Radiologist).await;
    let reader = cookie(&archive.server, "reader").await;
    let path = format!("/dicom-web/{}?reason=duplicate", study());
    for headers in [
        vec![],
        vec![("cookie", reader.as_str()), ("origin", "http://localhost")],
    ] {
        let answer = archive
            .server
            .send(request(Method::DELETE, &path, &headers, Body::empty()))
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(
            answer.text().contains("removing is an admin's"),
            "{}",
            answer.text()
        );
    }
    // A page of another site cannot use the session.
    let foreign = [
        ("cookie", archive.admin.as_str()),
        ("origin", "http://evil.example"),
    ];
    let answer = archive
        .server
        .send(request(Method::DELETE, &path, &foreign, Body::empty()))
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    for query in [
        "",
        "?reason=",
        "?reason=because",
        "?reason=duplicate&undelivered=maybe",
    ] {
        let answer = archive.remove(&format!("{}{query}", study())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(archive.files().await, 30);
    assert_eq!(
        archive.remove("studies/1.2.3?reason=duplicate").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn undelivered_results_stand_against_a_removal_until_they_are_given_up() {
    let archive = Archive::open().await;
    let world = &archive.server.world;
    // Nobody listens there.
    let delivering = Delivering::start(world, json!([c_store(9)])).await;
    archive.analyse(&finder()).await;
    drop(delivering);
    let path = format!("{}?reason=retention_expired", study());
    let refused = archive.remove(&path).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(
        refused.text().contains("1 deliveries of its results wait"),
        "{}",
        refused.text()
    );
    assert_eq!(archive.files().await, 32);
    assert_eq!(trail(world, "refuse_removal").await.len(), 1);
    let done = archive.remove(&format!("{path}&undelivered=discard")).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    assert_eq!(trail(world, "remove").await[0]["withdrawn"], json!(1));
    assert_eq!(
        world
            .count("SELECT count(*) FROM outbox WHERE state = 'superseded'")
            .await,
        1
    );
    assert_eq!(
        archive
            .server
            .get("/api/deliveries?state=pending", &[])
            .await
            .json(),
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_analysed_is_not_removed() {
    let archive = Archive::open().await;
    let world = &archive.server.world;
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = go.clone();
    let slow = Fake::new(move |_, _, _| {
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(async { drop(gate.acquire().await.unwrap()) });
        Ok(report(Some(3.0)))
    });
    let worker = Running::start(world, slow).await;
    world.send(Slice::head("s", "a")).await;
    until_state(world, "s", "analysing").await;
    let path = format!("{}?reason=duplicate&undelivered=discard", study());
    let refused = archive.remove(&path).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text().contains("being analysed"), "{}", refused.text());
    go.add_permits(10);
    until_state(world, "s", "flagged").await;
    until_no_job(world).await;
    assert_eq!(archive.remove(&path).await.status, StatusCode::OK);
    worker.stop().await;
    // A job that comes too late has nothing to do.
    world.send(Slice::head("t", "b")).await;
    let path = format!("studies/{}?reason=duplicate", uid("t"));
    assert_eq!(archive.remove(&path).await.status, StatusCode::OK);
    let analyses = "SELECT count(*) FROM analysis WHERE state <> 'removed'";
    let worker = Running::start(world, finder()).await;
    until_no_job(world).await;
    worker.stop().await;
    assert_eq!(world.count(analyses).await, 0);
}
