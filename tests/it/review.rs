//! The reading room: who signs in, what they may do, and what stays of it.

use crate::{
    queue::{Fake, Running, report, until_no_job, until_state},
    support::{Slice, World, part10, uid},
    web::{Answer, Server, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use ictus::{
    audit,
    review::account::{self, AccountRole, NewAccount},
};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";

pub(crate) async fn add(world: &World, name: &str, role: AccountRole) {
    let new = NewAccount {
        name: name.to_owned(),
        display_name: format!("Dr. {name}"),
        role,
    };
    account::create(&world.db, "test", &new, PASSWORD.to_owned())
        .await
        .unwrap();
}

async fn sign_in(server: &Server, name: &str, password: &str) -> Answer {
    let body = json!({ "name": name, "password": password }).to_string();
    let headers = [("content-type", "application/json")];
    server
        .send(request(Method::POST, "/api/session", &headers, Body::from(body)))
        .await
}

/// The cookie of somebody who signed in.
pub(crate) async fn cookie(server: &Server, name: &str) -> String {
    let answer = sign_in(server, name, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

/// A request from the server's own page.
pub(crate) async fn from_page(
    server: &Server,
    method: Method,
    path: &str,
    cookie: &str,
    body: &Value,
) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("cookie", cookie),
        ("origin", "http://localhost"),
    ];
    server
        .send(request(method, path, &headers, Body::from(body.to_string())))
        .await
}

async fn judge(server: &Server, cookie: &str, body: &Value) -> Answer {
    let path = format!("/api/studies/{}/verdicts", uid("s"));
    from_page(server, Method::POST, &path, cookie, body).await
}

/// A server with a flagged study, and the name of its analysis.
async fn flagged() -> (Server, String) {
    let server = Server::new().await;
    let worker = Running::start(&server.world, Fake::new(|_, _, _| Ok(report(Some(12.5))))).await;
    server.world.send(Slice::head("s", "a")).await;
    until_state(&server.world, "s", "flagged").await;
    until_no_job(&server.world).await;
    worker.stop().await;
    let detail = server.world.db.study_detail(&uid("s")).await.unwrap().unwrap();
    (server, detail.analysis.unwrap().id.to_string())
}

#[tokio::test]
async fn a_radiologist_signs_in_judges_and_signs_out_and_the_trail_has_it_all() {
    let (server, analysis) = flagged().await;
    add(&server.world, "reader", AccountRole::Radiologist).await;
    let cookie = cookie(&server, "reader").await;
    let who = server.get("/api/session", &[("cookie", &cookie)]).await.json();
    assert_eq!(
        (&who["display_name"], &who["person"]),
        (&json!("Dr. reader"), &json!(true))
    );

    let finding = json!({"analysis": analysis, "finding": "haemorrhage-1", "verdict": "reject",
        "reason": "calcification", "note": "choroid plexus of Mrs. Secret"});
    let answer = judge(&server, &cookie, &finding).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let whole =
        json!({"analysis": analysis, "finding": null, "verdict": "reject", "reason": null, "note": null});
    assert_eq!(judge(&server, &cookie, &whole).await.status, StatusCode::CREATED);

    let path = format!("/api/studies/{}/verdicts", uid("s"));
    let said = server.get(&path, &[]).await.json();
    assert_eq!(said.as_array().unwrap().len(), 2);
    assert_eq!(said[0]["note"], "choroid plexus of Mrs. Secret");
    let study = server.world.db.study(&uid("s")).await.unwrap().unwrap();
    let reading = study.reading.unwrap();
    assert_eq!(
        (
            reading.verdict.as_str(),
            reading.reader.as_str(),
            reading.outdated
        ),
        ("reject", "Dr. reader", false)
    );

    let trail = server.world.db.audit_of_study(&uid("s")).await.unwrap();
    let verdicts: Vec<_> = trail.iter().filter(|row| row.act == "verdict").collect();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(verdicts[0].principal, "reader");
    assert_eq!(verdicts[0].detail["reason"], "calcification");
    assert!(
        !serde_json::to_string(&trail).unwrap().contains("Secret"),
        "the trail has the note's digest only"
    );
    assert_eq!(audit::verify(&server.world.db).await.unwrap().fault, None);

    let leave = [("cookie", cookie.as_str()), ("origin", "http://localhost")];
    let answer = server
        .send(request(Method::DELETE, "/api/session", &leave, Body::empty()))
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let who = server.get("/api/session", &[("cookie", &cookie)]).await.json();
    assert_eq!(who["person"], json!(false), "the old cookie opens nothing");
}

#[tokio::test]
async fn only_a_radiologist_who_signed_in_gives_a_verdict() {
    let (server, analysis) = flagged().await;
    let verdict =
        json!({"analysis": analysis, "finding": null, "verdict": "accept", "reason": null, "note": null});
    let answer = judge(&server, "", &verdict).await;
    assert_eq!(
        answer.status,
        StatusCode::FORBIDDEN,
        "whoever sits at the machine is no person"
    );
    for (name, role) in [("auditor", AccountRole::Auditor), ("admin", AccountRole::Admin)] {
        add(&server.world, name, role).await;
        let cookie = cookie(&server, name).await;
        assert_eq!(
            judge(&server, &cookie, &verdict).await.status,
            StatusCode::FORBIDDEN,
            "{name}"
        );
    }
    assert_eq!(server.world.count("SELECT count(*) FROM verdict").await, 0);
}

#[tokio::test]
async fn a_session_changes_nothing_from_another_sites_page() {
    let (server, analysis) = flagged().await;
    add(&server.world, "reader", AccountRole::Radiologist).await;
    let cookie = cookie(&server, "reader").await;
    let body =
        json!({"analysis": analysis, "finding": null, "verdict": "accept", "reason": null, "note": null});
    let path = format!("/api/studies/{}/verdicts", uid("s"));
    for origin in [None, Some("http://evil.example"), Some("null")] {
        let mut headers = vec![("content-type", "application/json"), ("cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let answer = server
            .send(request(
                Method::POST,
                &path,
                &headers,
                Body::from(body.to_string()),
            ))
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
    }
    let headers = [
        ("content-type", "application/json"),
        ("origin", "http://evil.example"),
    ];
    let body = json!({"name": "reader", "password": PASSWORD}).to_string();
    let answer = server
        .send(request(Method::POST, "/api/session", &headers, Body::from(body)))
        .await;
    assert_eq!(
        answer.status,
        StatusCode::FORBIDDEN,
        "nobody is signed in by another site"
    );
}

#[tokio::test]
async fn refuses_verdicts_that_do_not_fit_what_is_shown() {
    let (server, analysis) = flagged().await;
    add(&server.world, "reader", AccountRole::Radiologist).await;
    let cookie = cookie(&server, "reader").await;
    let base =
        json!({"analysis": analysis, "finding": null, "verdict": "accept", "reason": null, "note": null});
    let with = |changes: &[(&str, Value)]| {
        let mut verdict = base.clone();
        for (name, value) in changes {
            verdict[*name] = value.clone();
        }
        verdict
    };
    for (verdict, status) in [
        (
            with(&[("analysis", json!(uuid::Uuid::nil()))]),
            StatusCode::CONFLICT,
        ),
        (
            with(&[("finding", json!("haemorrhage-9"))]),
            StatusCode::BAD_REQUEST,
        ),
        (
            with(&[("finding", json!("haemorrhage-1")), ("verdict", json!("reject"))]),
            StatusCode::BAD_REQUEST,
        ),
        (with(&[("verdict", json!("missed"))]), StatusCode::BAD_REQUEST),
        (with(&[("verdict", json!("cleared"))]), StatusCode::BAD_REQUEST),
        (
            with(&[("note", json!("x".repeat(2001)))]),
            StatusCode::BAD_REQUEST,
        ),
        (json!({"verdict": "accept"}), StatusCode::BAD_REQUEST),
    ] {
        let answer = judge(&server, &cookie, &verdict).await;
        assert_eq!(answer.status, status, "{verdict}: {}", answer.text());
    }
    assert_eq!(server.world.count("SELECT count(*) FROM verdict").await, 0);
    let answer = judge(&server, &cookie, &with(&[])).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[tokio::test]
async fn wrong_passwords_are_slowed_down_and_disabled_accounts_stay_out() {
    let server = Server::new().await;
    add(&server.world, "reader", AccountRole::Radiologist).await;
    let living = cookie(&server, "reader").await;
    for _ in 0..10 {
        let answer = sign_in(&server, "reader", "wrong password").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers.get(header::SET_COOKIE).is_none());
    }
    assert_eq!(
        sign_in(&server, "reader", PASSWORD).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(
        sign_in(&server, "nobody", PASSWORD).await.status,
        StatusCode::UNAUTHORIZED
    );
    account::disable(&server.world.db, "test", "reader")
        .await
        .unwrap();
    let who = server.get("/api/session", &[("cookie", &living)]).await.json();
    assert_eq!(
        who["person"],
        json!(false),
        "a disabled account's sessions have ended"
    );
}

#[tokio::test]
async fn with_a_key_file_a_session_opens_what_no_key_would() {
    let server = Server::with_keys().await;
    add(&server.world, "reader", AccountRole::Radiologist).await;
    let path = "/api/worklist";
    assert_eq!(server.get(path, &[]).await.status, StatusCode::UNAUTHORIZED);
    let cookie = cookie(&server, "reader").await;
    assert_eq!(
        server.get(path, &[("cookie", &cookie)]).await.status,
        StatusCode::OK
    );
    let other = if cookie.ends_with('0') { '1' } else { '0' };
    let forged = format!("{}{other}", &cookie[..cookie.len() - 1]);
    assert_eq!(
        server.get(path, &[("cookie", &forged)]).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn accounts_want_a_name_a_password_and_no_twin() {
    let world = World::new().await;
    let new = |name: &str| NewAccount {
        name: name.to_owned(),
        display_name: "A. Reader".to_owned(),
        role: AccountRole::Radiologist,
    };
    let create = async |name: &str, password: &str| {
        account::create(&world.db, "test", &new(name), password.to_owned()).await
    };
    assert!(create("a reader", PASSWORD).await.is_err());
    assert!(create("reader", "too short").await.is_err());
    create("reader", PASSWORD).await.unwrap();
    assert!(create("reader", PASSWORD).await.is_err());
    account::set_password(&world.db, "test", "reader", "another password".to_owned())
        .await
        .unwrap();
    assert!(
        account::sign_in(&world.db, "reader", PASSWORD.to_owned())
            .await
            .is_err()
    );
    let stored: String = sqlx::query_scalar("SELECT password_hash FROM account")
        .fetch_one(&mut world.superuser().await)
        .await
        .unwrap();
    assert!(stored.starts_with("$argon2id$"), "{stored}");
}

/// The UIDs of the studies that a query of the worklist lists.
async fn listed(server: &Server, query: &str) -> Vec<String> {
    let answer = server.get(&format!("/api/worklist?{query}"), &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let studies = answer.json()["studies"].as_array().unwrap().clone();
    let uid = |study: &Value| study["study_instance_uid"].as_str().unwrap().to_owned();
    studies.iter().map(uid).collect()
}

fn uids<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(|name| uid(name).to_string()).into()
}

#[tokio::test]
async fn what_was_read_goes_behind_what_nobody_read_until_it_is_revised() {
    let server = Server::new().await;
    add(&server.world, "reader", AccountRole::Radiologist).await;
    let cookie = cookie(&server, "reader").await;
    let fake = Fake::new(|_, instances, _| {
        let study = instances[0].attributes.study_instance_uid.clone().unwrap();
        Ok(report((study == uid("s")).then_some(3.0)))
    });
    let worker = Running::start(&server.world, fake).await;
    for study in ["first", "s", "last"] {
        server
            .world
            .send(Slice::head(study, &format!("{study} series")))
            .await;
    }
    for (study, state) in [
        ("first", "not_flagged"),
        ("s", "flagged"),
        ("last", "not_flagged"),
    ] {
        until_state(&server.world, study, state).await;
    }
    assert_eq!(listed(&server, "").await, uids(["s", "first", "last"]));
    assert_eq!(
        listed(&server, "order=newest").await,
        uids(["last", "s", "first"])
    );
    let detail = server
        .get(&format!("/api/studies/{}", uid("s")), &[])
        .await
        .json();
    let body = json!({ "analysis": detail["analysis"]["id"], "verdict": "accept" });
    assert_eq!(judge(&server, &cookie, &body).await.status, StatusCode::CREATED);
    assert_eq!(listed(&server, "").await, uids(["first", "last", "s"]));
    assert_eq!(listed(&server, "read=false").await, uids(["first", "last"]));
    assert_eq!(listed(&server, "read=true").await, uids(["s"]));
    let page = server
        .get("/api/worklist?state=flagged&limit=0", &[])
        .await
        .json();
    assert_eq!(
        (page["total"].clone(), page["lanes"].clone()),
        (
            json!(1),
            json!({ "flagged": 0, "uncertain": 0, "other": 2, "read": 1 })
        )
    );
    // A late slice revises the answer: it is to be read again.
    server.world.send(vec![Slice::new("s", "late", 1).bytes()]).await;
    server
        .world
        .receiver
        .complete(&uid("late"), "test")
        .await
        .unwrap();
    until_no_job(&server.world).await;
    assert_eq!(listed(&server, "read=false").await, uids(["s", "first", "last"]));
    worker.stop().await;
}

#[tokio::test]
async fn the_worklist_is_searched_by_words_without_case_and_marks() {
    let server = Server::new().await;
    for (study, name) in [
        ("one", "M\u{fc}ller^J\u{f6}rg"),
        ("two", "Miller^George"),
        ("three", ""),
    ] {
        let slice = Slice {
            patient_name: name.to_owned(),
            ..Slice::new(study, study, 1)
        };
        let mut object = slice.object();
        object.put(DataElement::new(
            tags::SPECIFIC_CHARACTER_SET,
            VR::CS,
            "ISO_IR 192",
        ));
        server.world.send(vec![part10(object)]).await;
    }
    assert_eq!(listed(&server, "q=jorg%20MULLER").await, uids(["one"]));
    assert_eq!(listed(&server, "q=ller").await, uids(["one", "two"]));
    assert_eq!(listed(&server, "q=m%C3%BCller").await, uids(["one"]));
    assert_eq!(listed(&server, "q=nobody").await, uids([]));
    assert_eq!(listed(&server, "q=%25").await, uids([]), "no wildcards");
    assert_eq!(listed(&server, "state=arriving,failed&q=george").await.len(), 1);
    let refused = server.get("/api/worklist?state=cleared", &[]).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(
        refused.text().contains("`cleared` is no state"),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn views_are_a_persons_own() {
    let server = Server::new().await;
    add(&server.world, "a", AccountRole::Radiologist).await;
    add(&server.world, "b", AccountRole::Auditor).await;
    let (a, b) = (cookie(&server, "a").await, cookie(&server, "b").await);
    let send = async |method: Method, path: &str, cookie: &str, body: Value| {
        from_page(&server, method, path, cookie, &body).await
    };
    let night = json!({ "name": "Night", "query": "state=flagged&q=head" });
    let answer = send(Method::PUT, "/api/views", &a, night.clone()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let views = async |cookie: &str| server.get("/api/views", &[("cookie", cookie)]).await.json();
    assert_eq!((views(&a).await, views(&b).await), (json!([night]), json!([])));
    let changed = json!({ "name": "Night", "query": "read=false" });
    send(Method::PUT, "/api/views", &a, changed.clone()).await;
    assert_eq!(views(&a).await, json!([changed]));
    let nameless = json!({ "name": " ", "query": "" });
    assert_eq!(
        send(Method::PUT, "/api/views", &b, nameless).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        send(Method::DELETE, "/api/views/Night", &b, Value::Null)
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        send(Method::DELETE, "/api/views/Night", &a, Value::Null)
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(views(&a).await, json!([]));
    // Whoever sits at the machine is nobody in particular.
    assert_eq!(server.get("/api/views", &[]).await.status, StatusCode::FORBIDDEN);
}
