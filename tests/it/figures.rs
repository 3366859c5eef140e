//! How the machine did against its readers: what counts, what leads to which case, what to label next.

use crate::{
    queue::{Fake, Running, report, until_no_job, until_state},
    review::{add, cookie, from_page},
    support::{Slice, uid},
    web::Server,
};
use axum::http::{Method, StatusCode};
use ictus::review::account::AccountRole;
use serde_json::{Value, json};

/// A server with three answered studies: two flagged, one not.
async fn answered() -> Server {
    let server = Server::new().await;
    let fake = Fake::new(|call, _, _| Ok(report((call != 3).then_some(12.5))));
    let worker = Running::start(&server.world, fake).await;
    for (study, series, state) in [
        ("s", "a", "flagged"),
        ("t", "b", "flagged"),
        ("u", "c", "not_flagged"),
    ] {
        server.world.send(Slice::head(study, series)).await;
        until_state(&server.world, study, state).await;
    }
    until_no_job(&server.world).await;
    worker.stop().await;
    for reader in ["one", "two"] {
        add(&server.world, reader, AccountRole::Radiologist).await;
    }
    server
}

/// What a reader says of a study, or of its finding.
async fn say(
    server: &Server,
    reader: &str,
    study: &str,
    finding: Option<&str>,
    word: &str,
    reason: Option<&str>,
) {
    let detail = server.world.db.study_detail(&uid(study)).await.unwrap().unwrap();
    let body = json!({
        "analysis": detail.analysis.unwrap().id, "finding": finding, "verdict": word, "reason": reason, "note": null,
    });
    let cookie = cookie(server, reader).await;
    let path = format!("/api/studies/{}/verdicts", uid(study));
    let answer = from_page(server, Method::POST, &path, &cookie, &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
}

async fn figures(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/api/figures{query}"), &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()
}

/// `[answer, outcome, count]` of each.
fn counted(figures: &Value, what: &str, value: &str) -> Vec<Value> {
    let all = figures[what].as_array().unwrap();
    all.iter()
        .map(|one| json!([one[value], one["outcome"], one["count"]]))
        .collect()
}

#[tokio::test]
async fn the_latest_verdict_of_each_reader_counts_and_what_nobody_read_does_not() {
    let server = answered().await;
    let none = figures(&server, "").await;
    assert_eq!((&none["answered"], &none["read"]), (&json!(3), &json!(0)));
    assert!(counted(&none, "answers", "answer").is_empty());

    say(&server, "one", "s", None, "reject", None).await;
    say(&server, "one", "s", None, "accept", None).await;
    say(&server, "one", "u", None, "missed", Some("subdural")).await;
    let some = figures(&server, "").await;
    assert_eq!((&some["answered"], &some["read"]), (&json!(3), &json!(2)));
    assert_eq!(
        counted(&some, "answers", "answer"),
        [json!(["present", "accept", 1]), json!(["absent", "missed", 1])]
    );
    assert_eq!(some["answers"][0]["models"], "fake 1");
    // A finding without a verdict of its own has that of its answer.
    assert_eq!(
        counted(&some, "findings", "kind"),
        [json!(["haemorrhage", "accept", 1])]
    );

    say(
        &server,
        "two",
        "s",
        Some("haemorrhage-1"),
        "reject",
        Some("calcification"),
    )
    .await;
    let differ = figures(&server, "").await;
    assert_eq!(
        counted(&differ, "answers", "answer")[0],
        json!(["present", "accept", 1]),
        "the second reader said nothing of the answer"
    );
    assert_eq!(
        counted(&differ, "findings", "kind"),
        [json!(["haemorrhage", "differ", 1])]
    );
    assert_eq!(
        differ["reasons"],
        json!([{"model": "fake 1", "reason": "calcification", "count": 1}])
    );
    let weeks = differ["weeks"].as_array().unwrap();
    assert_eq!(
        weeks
            .iter()
            .map(|week| week["count"].as_i64().unwrap())
            .sum::<i64>(),
        2
    );

    // Another day holds none of it, and a day that is none is refused.
    assert!(counted(&figures(&server, "?to=2020-01-01").await, "answers", "answer").is_empty());
    let wrong = server.get("/api/figures?from=yesterday", &[]).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.text());
}

#[tokio::test]
async fn each_number_leads_to_its_cases_and_looking_at_them_is_in_the_trail() {
    let server = answered().await;
    say(&server, "one", "s", None, "accept", None).await;
    say(
        &server,
        "one",
        "t",
        Some("haemorrhage-1"),
        "reject",
        Some("calcification"),
    )
    .await;
    for (query, studies) in [
        ("what=answers&outcome=accept", vec!["s"]),
        ("what=answers&model=fake%201&value=present", vec!["s"]),
        ("what=answers&model=fake%202", vec![]),
        ("what=findings", vec!["t", "s"]),
        ("what=findings&outcome=reject", vec!["t"]),
        ("what=findings&reason=calcification", vec!["t"]),
        ("what=findings&reason=artefact", vec![]),
    ] {
        let cases = server.get(&format!("/api/figures/cases?{query}"), &[]).await;
        assert_eq!(cases.status, StatusCode::OK, "{query}: {}", cases.text());
        let cases = cases.json();
        let found: Vec<_> = cases
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["study_instance_uid"].clone())
            .collect();
        let wanted: Vec<_> = studies
            .into_iter()
            .map(|study| json!(uid(study).as_str()))
            .collect();
        assert_eq!(found, wanted, "{query}");
    }
    for (study, wanted) in [("s", true), ("t", true), ("u", false)] {
        let trail = server.world.db.audit_of_study(&uid(study)).await.unwrap();
        let read = trail
            .iter()
            .any(|row| row.act == "read" && row.principal == "local");
        assert_eq!(read, wanted, "{study}");
    }
}

#[tokio::test]
async fn what_to_label_next_is_what_nobody_read_and_takes_turns_between_lanes() {
    let server = answered().await;
    let next = |answer: Value| -> Vec<String> {
        let all = answer.as_array().unwrap().clone();
        all.iter()
            .map(|one| one["state"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = server.get("/api/figures/label-next", &[]).await.json();
    assert_eq!(next(all.clone()).len(), 3);
    assert_eq!(next(all.clone())[2], "flagged", "{all}");
    // Disagreement 0.2, and a score of 0.9 is 0.2 from being undecided.
    assert!((all[0]["worth"].as_f64().unwrap() - 0.2).abs() < 1e-9, "{all}");
    say(&server, "one", "u", None, "accept", None).await;
    let rest = server.get("/api/figures/label-next?limit=5", &[]).await.json();
    assert_eq!(next(rest), ["flagged", "flagged"]);
}
