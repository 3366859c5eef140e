//! UPS-RS from end to end: a task manager schedules, watches and cancels; another performer claims and completes.

use crate::{
    queue::{Fake, Running, report, until, until_no_job, until_state},
    support::{Slice, uid},
    web::request,
    workitem_support::{Desk, JSON, code, dataset, scheduled, value},
};
use axum::http::{Method, StatusCode};
use ictus::{
    audit,
    receive::removal::Target,
    worker::Failure,
    workitem::{FILTERED_WORKLIST, WORKLIST},
};
use serde_json::{Value, json};
use std::sync::Arc;

const LOCK: &str = "1.2.826.0.1.3680043.8.498.77";

#[tokio::test(flavor = "multi_thread")]
async fn a_task_manager_schedules_an_analysis_and_hears_of_it_to_the_end() {
    let desk = Desk::open().await;
    let fake = Fake::new(|_, _, _| Ok(report(Some(12.5))));
    let worker = Running::start(&desk.server.world, fake.clone()).await;
    let answer = desk.subscribe(WORKLIST, "MANAGER", "").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    assert_eq!(
        answer.header("content-location"),
        "ws://localhost/dicom-web/subscribers/MANAGER"
    );
    let mut channel = desk.listen("MANAGER").await;

    let mut task = scheduled("ICTUS", "s", "a");
    task["00404041"]["Value"][0] = json!("INCOMPLETE");
    let answer = desk.create("one", &task).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let location = format!("http://localhost/dicom-web/workitems/{}", uid("one"));
    assert_eq!(answer.header("location"), location);
    let one = uid("one").to_string();
    assert_eq!(channel.heard().await, (1, one.clone(), "SCHEDULED".to_owned()));
    let assigned = channel.next().await;
    assert_eq!(assigned["00001002"]["Value"][0], json!(5));
    assert_eq!(value(&assigned["00404025"]["Value"][0], "00080100"), "ICTUS");

    // The images come, and then the manager says so.
    desk.server.world.send(Slice::head("s", "a")).await;
    assert_eq!(value(&desk.get("one").await, "00741000"), "SCHEDULED");
    let ready = dataset(&[("00404041", "CS", json!("READY"))]);
    let path = format!("workitems/{one}");
    let answer = desk.send(Method::POST, &path, &ready).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(channel.heard().await, (1, one.clone(), "SCHEDULED".to_owned()));
    assert_eq!(channel.heard().await, (1, one.clone(), "IN PROGRESS".to_owned()));
    let last = loop {
        let heard = channel.heard().await;
        if heard.0 != 3 {
            break heard;
        }
    };
    assert_eq!(last, (1, one.clone(), "COMPLETED".to_owned()));

    let done = desk.get("one").await;
    assert_eq!(done["00081195"], Value::Null, "its lock is nobody's business");
    assert_eq!(value(&done["00741002"]["Value"][0], "00741004"), "100");
    let performed = &done["00741216"]["Value"][0];
    assert_eq!(value(&performed["00404028"]["Value"][0], "00080100"), "ICTUS");
    let output = performed["00404033"]["Value"].as_array().unwrap();
    let classes: Vec<&str> = output
        .iter()
        .map(|series| value(&series["00081199"]["Value"][0], "00081150"))
        .collect();
    assert_eq!(
        classes,
        ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"]
    );
    // Each is where it is said to be.
    for series in output {
        let url = value(&series["0040E025"]["Value"][0], "00081190");
        let path = url.strip_prefix("http://localhost").unwrap();
        let metadata = desk.server.get(&format!("{path}/metadata"), &[]).await;
        assert_eq!(
            value(&metadata.json()[0], "00080018"),
            value(&series["00081199"]["Value"][0], "00081155")
        );
    }

    // The same again takes the analysis that is there.
    assert_eq!(
        desk.create("two", &scheduled("ICTUS", "s", "a")).await.status,
        StatusCode::CREATED
    );
    let again = desk.until("two", "COMPLETED").await;
    assert_eq!(again["00741216"]["Value"][0]["00404033"], performed["00404033"]);
    until_no_job(&desk.server.world).await;
    worker.stop().await;
    assert_eq!(fake.calls(), 1);
    let trail = desk.server.world.db.audit_of_study(&uid("s")).await.unwrap();
    let states: Vec<&str> = trail
        .iter()
        .filter(|row| row.act == "change_workitem" && row.detail["workitem"] == json!(one))
        .map(|row| row.detail["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["IN PROGRESS", "COMPLETED"]);
    assert_eq!(audit::verify(&desk.server.world.db).await.unwrap().fault, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_analysed_is_cancelled_with_its_reason() {
    let desk = Desk::open().await;
    let refusing = Fake::new(|_, _, _| Err(Failure::input("missing_slice", "slice 7 of 30 is not there")));
    let worker = Running::start(&desk.server.world, refusing).await;
    desk.server.world.send(Slice::head("s", "a")).await;
    until_state(&desk.server.world, "s", "failed").await;
    let mut derived = Slice::new("t", "b", 1);
    derived.image_type = "DERIVED\\SECONDARY";
    desk.server.world.send(vec![derived.bytes()]).await;

    let mut reading = scheduled("ICTUS", "s", "a");
    reading["00404018"]["Value"][0] = code("110005", "DCM");
    let mut empty = scheduled("ICTUS", "s", "a");
    empty["00404021"] = json!({ "vr": "SQ" });
    for (name, task, code, words) in [
        (
            "refused",
            scheduled("ICTUS", "s", "a"),
            "110531",
            "missing_slice: slice 7 of 30",
        ),
        (
            "derived",
            scheduled("ICTUS", "t", "b"),
            "110522",
            "no original CT",
        ),
        ("reading", reading, "110530", "110004"),
        ("empty", empty, "110523", "names no study"),
    ] {
        assert_eq!(desk.create(name, &task).await.status, StatusCode::CREATED);
        let given_up = desk.until(name, "CANCELED").await;
        let progress = &given_up["00741002"]["Value"][0];
        assert!(value(progress, "00741238").contains(words), "{name}: {progress}");
        assert_eq!(
            value(&progress["0074100E"]["Value"][0], "00080100"),
            code,
            "{name}"
        );
        assert!(!value(progress, "00404052").is_empty());
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_may_be_arriving_still_are_waited_for_unless_each_is_named() {
    let desk = Desk::with_quiet(crate::support::NEVER).await;
    desk.server.world.send(Slice::head("s", "a")).await;
    let mut named = scheduled("ICTUS", "s", "a");
    let references: Vec<Value> = (0..30)
        .map(|number| {
            dataset(&[
                ("00081150", "UI", json!("1.2.840.10008.5.1.4.1.1.2")),
                ("00081155", "UI", json!(Slice::new("s", "a", number).sop)),
            ])
        })
        .collect();
    named["00404021"]["Value"][0]["00081199"] = json!({ "vr": "SQ", "Value": references });
    let mut lacking = named.clone();
    lacking["00404021"]["Value"][0]["00081199"]["Value"][0]["00081155"]["Value"][0] = json!("1.2.3");
    for (name, task) in [
        ("whole", scheduled("ICTUS", "s", "a")),
        ("lacking", lacking),
        ("named", named),
    ] {
        assert_eq!(desk.create(name, &task).await.status, StatusCode::CREATED);
    }
    // They are looked at in the order in which they came.
    desk.until("named", "IN PROGRESS").await;
    for name in ["whole", "lacking"] {
        assert_eq!(value(&desk.get(name).await, "00741000"), "SCHEDULED", "{name}");
    }
}

#[tokio::test]
async fn another_performer_claims_updates_and_completes_its_workitem() {
    let desk = Desk::open().await;
    let created = desk.create("w", &scheduled("CAD7", "s", "a")).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let path = format!("workitems/{}", uid("w"));
    // It is nobody's here: it stays as it is.
    assert_eq!(
        desk.change("w", "COMPLETED", LOCK).await.status,
        StatusCode::CONFLICT
    );
    let missing = desk.change("w", "IN PROGRESS", "").await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        missing.header("warning"),
        "299 ictus: The Transaction UID is missing."
    );
    assert_eq!(desk.change("w", "IN PROGRESS", LOCK).await.status, StatusCode::OK);
    let twice = desk.change("w", "IN PROGRESS", LOCK).await;
    assert_eq!(twice.status, StatusCode::CONFLICT);
    assert_eq!(
        twice.header("warning"),
        "299 ictus: The submitted request is inconsistent with the state of the UPS Instance."
    );
    for (transaction, words) in [("1.2.3", "incorrect"), ("", "missing")] {
        let answer = desk.change("w", "COMPLETED", transaction).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(
            answer.header("warning"),
            format!("299 ictus: The Transaction UID is {words}.")
        );
    }
    let early = desk.change("w", "COMPLETED", LOCK).await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    assert!(
        early
            .text()
            .contains("UnifiedProcedureStepPerformedProcedureSequence"),
        "{}",
        early.text()
    );

    let mut performed = dataset(&[
        ("00404028", "SQ", code("CAD7", "99HOSPITAL")),
        ("00404050", "DT", json!("20261128101600")),
        ("00404019", "SQ", code("110004", "DCM")),
        ("00404051", "DT", json!("20261128101700")),
    ]);
    performed["00404033"] = json!({ "vr": "SQ" });
    let mut update = json!({ "00741216": { "vr": "SQ", "Value": [performed] } });
    let unlocked = desk.send(Method::POST, &path, &update).await;
    assert_eq!(unlocked.status, StatusCode::BAD_REQUEST);
    update["00081195"] = json!({ "vr": "UI", "Value": [LOCK] });
    assert_eq!(
        desk.send(Method::POST, &path, &update).await.status,
        StatusCode::OK
    );
    // By the query, too.
    let progress =
        json!({ "00741002": { "vr": "SQ", "Value": [{ "00741004": { "vr": "DS", "Value": ["50"] } }] } });
    let by_query = desk
        .send(Method::POST, &format!("{path}?{LOCK}"), &progress)
        .await;
    assert_eq!(by_query.status, StatusCode::OK, "{}", by_query.text());
    assert_eq!(desk.change("w", "COMPLETED", LOCK).await.status, StatusCode::OK);
    let again = desk.change("w", "COMPLETED", LOCK).await;
    assert_eq!(
        (again.status, again.header("warning")),
        (
            StatusCode::OK,
            "299 ictus: The UPS is already in the requested state of COMPLETED."
        )
    );
    let late = desk.send(Method::POST, &path, &update).await;
    assert_eq!(
        (late.status, late.header("warning")),
        (
            StatusCode::BAD_REQUEST,
            "299 ictus: The submitted request is inconsistent with the current state of the Workitem."
        )
    );
    let cancel = desk
        .send(Method::POST, &format!("{path}/cancelrequest"), &Value::Null)
        .await;
    assert_eq!(
        (cancel.status, cancel.header("warning")),
        (StatusCode::CONFLICT, "299 ictus: The UPS is already COMPLETED.")
    );
    assert_eq!(
        value(&desk.get("w").await["00741002"]["Value"][0], "00741004"),
        "50"
    );
}

#[tokio::test]
async fn a_workitem_that_lacks_what_it_needs_is_refused_in_words() {
    let desk = Desk::open().await;
    let good = scheduled("CAD7", "s", "a");
    for (spoil, words) in [
        (json!({ "00741204": null }), "ProcedureStepLabel"),
        (
            json!({ "00741200": { "vr": "CS", "Value": ["URGENT"] } }),
            "HIGH or MEDIUM or LOW",
        ),
        (
            json!({ "00741000": { "vr": "CS", "Value": ["COMPLETED"] } }),
            "SCHEDULED",
        ),
        (
            json!({ "00081195": { "vr": "UI", "Value": ["1.2"] } }),
            "empty TransactionUID",
        ),
        (json!({ "00741216": { "vr": "SQ", "Value": [{}] } }), "Performed"),
        (
            json!({ "00080018": { "vr": "UI", "Value": ["1.2.3"] } }),
            "differ",
        ),
        (json!({ "00741204": { "vr": "XX", "Value": ["1.2.3"] } }), "VR"),
    ] {
        let mut bad = good.clone();
        for (tag, value) in spoil.as_object().unwrap() {
            if value.is_null() {
                bad.as_object_mut().unwrap().remove(tag);
            } else {
                bad[tag] = value.clone();
            }
        }
        let answer = desk.create("w", &bad).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{words}");
        assert!(answer.text().contains(words), "{words}: {}", answer.text());
        assert!(!answer.text().contains("Phantom"), "a refusal names no patient");
    }
    assert_eq!(desk.create("w", &good).await.status, StatusCode::CREATED);
    assert_eq!(desk.create("w", &good).await.status, StatusCode::CONFLICT);
    let path = format!("workitems/{}", uid("w"));
    let renamed = json!({ "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Somebody^Else" }] } });
    let answer = desk.send(Method::POST, &path, &renamed).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(
        answer.text().contains("PatientName cannot be changed"),
        "{}",
        answer.text()
    );
    let early = desk
        .send(Method::POST, &format!("{path}?{LOCK}"), &json!({}))
        .await;
    assert_eq!(
        (early.status, early.header("warning")),
        (
            StatusCode::CONFLICT,
            "299 ictus: The target URI did not reference a claimed Workitem."
        )
    );
    let text = request(
        Method::POST,
        "/dicom-web/workitems",
        &[("content-type", "text/plain")],
        "x".into(),
    );
    assert_eq!(
        desk.server.send(text).await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
}

#[tokio::test]
async fn workitems_are_found_by_their_attributes_and_reading_them_is_in_the_trail() {
    let desk = Desk::open().await;
    desk.create("w", &scheduled("CAD7", "s", "a")).await;
    let mut other = scheduled("CAD8", "t", "b");
    other["00404005"]["Value"][0] = json!("20261129101500");
    desk.create("x", &other).await;
    let find = async |query: &str| -> Vec<String> {
        let answer = desk
            .server
            .get(&format!("/dicom-web/workitems?{query}"), &[("accept", JSON)])
            .await;
        if answer.status == StatusCode::NO_CONTENT {
            return Vec::new();
        }
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text());
        let list = answer.json();
        let uids = list
            .as_array()
            .unwrap()
            .iter()
            .map(|item| value(item, "00080018").to_owned());
        uids.collect()
    };
    let (w, x) = (uid("w").to_string(), uid("x").to_string());
    for (query, wanted) in [
        ("".to_owned(), vec![x.clone(), w.clone()]),
        ("limit=1".to_owned(), vec![x.clone()]),
        ("limit=1&offset=1".to_owned(), vec![w.clone()]),
        (
            "ScheduledStationNameCodeSequence.CodeValue=CAD7".to_owned(),
            vec![w.clone()],
        ),
        (
            "00404021.0020000D=".to_owned() + uid("t").as_str(),
            vec![x.clone()],
        ),
        (
            "ScheduledProcedureStepStartDateTime=20261128-20261128".to_owned(),
            vec![w.clone()],
        ),
        ("ProcedureStepState=COMPLETED".to_owned(), vec![]),
        (
            "PatientName=phantom*&WorklistLabel=A?".to_owned(),
            vec![x.clone(), w.clone()],
        ),
        (format!("SOPInstanceUID={w},1.2.3"), vec![w.clone()]),
    ] {
        assert_eq!(find(&query).await, wanted, "{query}");
    }
    let lock = desk
        .server
        .get("/dicom-web/workitems?TransactionUID=1.2", &[])
        .await;
    assert_eq!(lock.status, StatusCode::BAD_REQUEST);
    let trail = desk.server.world.db.audit_of_study(&uid("s")).await.unwrap();
    let acts: Vec<&str> = trail.iter().map(|row| row.act.as_str()).collect();
    assert_eq!(acts, ["schedule", "read"]);
    // In XML, too.
    let path = format!("/dicom-web/workitems/{w}");
    let xml = desk
        .server
        .get(&path, &[("accept", "application/dicom+xml")])
        .await;
    assert!(
        xml.text().contains("keyword=\"ProcedureStepLabel\""),
        "{}",
        xml.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_subscribed_hears_what_matches_and_nothing_after_it_ends() {
    let desk = Desk::open().await;
    desk.create("before", &scheduled("CAD7", "s", "a")).await;
    let filter = "?deletionlock=true&filter=ScheduledStationNameCodeSequence.CodeValue=CAD7,00741202=AI";
    let answer = desk.subscribe(FILTERED_WORKLIST, "WATCH", filter).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    assert_eq!(
        desk.subscribe(FILTERED_WORKLIST, "WATCH", "").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        desk.subscribe("1.2.3", "WATCH", "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        desk.subscribe(WORKLIST, "AN-AE-TITLE-THAT-IS-TOO-LONG", "")
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
    // What was filed before the channel is opened waits for it.
    let mut channel = desk.listen("WATCH").await;
    let heard = |kind, workitem: &str, state: &str| (kind, uid(workitem).to_string(), state.to_owned());
    assert_eq!(channel.heard().await, heard(1, "before", "SCHEDULED"));
    desk.create("other", &scheduled("CAD8", "s", "a")).await;
    desk.create("match", &scheduled("CAD7", "s", "a")).await;
    assert_eq!(channel.heard().await, heard(1, "match", "SCHEDULED"));
    assert_eq!(channel.heard().await, heard(5, "match", ""));

    // A wish to cancel what somebody performs is handed on; what nobody performs is cancelled.
    assert_eq!(
        desk.change("match", "IN PROGRESS", LOCK).await.status,
        StatusCode::OK
    );
    assert_eq!(channel.heard().await, heard(1, "match", "IN PROGRESS"));
    let wish = dataset(&[("00741238", "LT", json!("the patient went home"))]);
    let cancel = async |workitem: &str| {
        let path = format!("workitems/{}/cancelrequest", uid(workitem));
        desk.send(Method::POST, &path, &wish).await
    };
    assert_eq!(cancel("match").await.status, StatusCode::ACCEPTED);
    let asked = channel.next().await;
    assert_eq!(
        (
            &asked["00001002"]["Value"][0],
            value(&asked, "00741236"),
            value(&asked, "00741238")
        ),
        (&json!(2), "local", "the patient went home")
    );
    assert_eq!(cancel("before").await.status, StatusCode::ACCEPTED);
    assert_eq!(channel.heard().await, heard(2, "before", ""));
    assert_eq!(channel.heard().await, heard(1, "before", "IN PROGRESS"));
    let end = channel.next().await;
    assert_eq!(
        (value(&end, "00741000"), value(&end, "00741238")),
        ("CANCELED", "the patient went home")
    );
    let again = cancel("before").await;
    assert_eq!(
        (again.status, again.header("warning")),
        (
            StatusCode::ACCEPTED,
            "299 ictus: The UPS is already in the requested state of CANCELED."
        )
    );
    // Nobody would hear of it.
    assert_eq!(
        desk.change("other", "IN PROGRESS", LOCK).await.status,
        StatusCode::OK
    );
    let alone = cancel("other").await;
    assert_eq!(
        (alone.status, alone.header("warning")),
        (
            StatusCode::CONFLICT,
            "299 ictus: The performer cannot be contacted."
        )
    );

    // Suspended, it hears of what it is subscribed to and of nothing new.
    let suspend = format!("workitems/{FILTERED_WORKLIST}/subscribers/WATCH/suspend");
    let done = desk.send(Method::POST, &suspend, &Value::Null).await;
    assert_eq!(done.status, StatusCode::OK);
    let none = desk.send(Method::POST, &suspend, &Value::Null).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    desk.create("new", &scheduled("CAD7", "s", "a")).await;
    assert_eq!(
        desk.change("match", "CANCELED", LOCK).await.status,
        StatusCode::OK
    );
    assert_eq!(channel.heard().await, heard(1, "match", "CANCELED"));
    // A channel that is lost goes on where it was noted to be, which is after each event was sent.
    let noted = "SELECT count(*) FROM workitem_channel WHERE ae_title = 'WATCH' \
                 AND sent_to = (SELECT max(id) FROM workitem_event WHERE 'WATCH' = ANY (receivers))";
    until("what was heard is noted", async || {
        (desk.server.world.count(noted).await == 1).then_some(())
    })
    .await;
    drop(channel);
    assert_eq!(
        desk.subscribe(uid("new").as_str(), "WATCH", "").await.status,
        StatusCode::CREATED
    );
    let mut channel = desk.listen("WATCH").await;
    assert_eq!(channel.heard().await, heard(1, "new", "SCHEDULED"));
    let path = format!("workitems/{}/subscribers/WATCH", uid("new"));
    assert_eq!(
        desk.send(Method::DELETE, &path, &Value::Null).await.status,
        StatusCode::OK
    );
    assert_eq!(
        desk.send(Method::DELETE, &path, &Value::Null).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        desk.change("new", "IN PROGRESS", LOCK).await.status,
        StatusCode::OK
    );
    let receivers = "SELECT count(*) FROM workitem_event WHERE report #>> '{00741000,Value,0}' = 'IN PROGRESS' \
                     AND 'WATCH' = ANY (receivers)";
    assert_eq!(desk.server.world.count(receivers).await, 2);
    // A server that starts again says so to whoever is subscribed to anything.
    desk.performer.announce().await.unwrap();
    assert_eq!(channel.heard().await, (4, WORKLIST.to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_workitem_of_ours_leaves_the_analysis_alone() {
    let desk = Desk::open().await;
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = go.clone();
    let slow = Fake::new(move |_, _, _| {
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(async { drop(gate.acquire().await.unwrap()) });
        Ok(report(Some(3.0)))
    });
    let worker = Running::start(&desk.server.world, slow).await;
    desk.server.world.send(Slice::head("s", "a")).await;
    desk.create("w", &scheduled("ICTUS", "s", "a")).await;
    desk.until("w", "IN PROGRESS").await;
    // Its lock is ours: nobody else can end or change it.
    assert_eq!(
        desk.change("w", "CANCELED", LOCK).await.status,
        StatusCode::BAD_REQUEST
    );
    let path = format!("workitems/{}/cancelrequest", uid("w"));
    let answer = desk.send(Method::POST, &path, &Value::Null).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    desk.until("w", "CANCELED").await;
    go.add_permits(10);
    until_state(&desk.server.world, "s", "flagged").await;
    worker.stop().await;
    assert_eq!(value(&desk.get("w").await, "00741000"), "CANCELED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_settles_the_workitems_that_nobody_has_begun_and_that_name_what_is_gone() {
    let desk = Desk::open().await;
    let world = &desk.server.world;
    world.send(Slice::head("s", "a")).await;
    world
        .send(vec![
            Slice::new("s", "b", 1).bytes(),
            Slice::new("t", "c", 1).bytes(),
        ])
        .await;
    let mut whole = scheduled("OTHER", "s", "a");
    whole["00404021"]["Value"][0]
        .as_object_mut()
        .unwrap()
        .remove("0020000E");
    let mut image = scheduled("OTHER", "s", "b");
    image["00404021"]["Value"][0]["00081199"] = json!({ "vr": "SQ", "Value": [dataset(&[
        ("00081150", "UI", json!("1.2.840.10008.5.1.4.1.1.2")),
        ("00081155", "UI", json!(Slice::new("s", "a", 7).sop)),
    ])] });
    for (name, task) in [
        ("series", scheduled("OTHER", "s", "a")),
        ("begun", scheduled("OTHER", "s", "a")),
        ("image", image),
        ("beside", scheduled("OTHER", "s", "b")),
        ("whole", whole),
        ("elsewhere", scheduled("OTHER", "t", "c")),
    ] {
        assert_eq!(desk.create(name, &task).await.status, StatusCode::CREATED);
    }
    assert_eq!(
        desk.change("begun", "IN PROGRESS", LOCK).await.status,
        StatusCode::OK
    );
    desk.subscribe(uid("series").as_str(), "MANAGER", "").await;
    let mut heard = desk.listen("MANAGER").await;
    assert_eq!(heard.heard().await.2, "SCHEDULED");
    let remove = async |series: Option<&str>| {
        let target = Target {
            study: uid("s"),
            series: series.map(uid),
            instance: None,
            reason: "duplicate".to_owned(),
            discard_undelivered: false,
        };
        world.receiver.remove(&target, "keeper").await.unwrap()
    };
    let states = async |names: &[&str]| {
        let mut states = Vec::new();
        for name in names {
            states.push(value(&desk.get(name).await, "00741000").to_owned());
        }
        states
    };
    remove(Some("a")).await;
    for name in ["series", "image"] {
        let given_up = desk.until(name, "CANCELED").await;
        let progress = &given_up["00741002"]["Value"][0];
        assert_eq!(
            value(progress, "00741238"),
            "what it names was removed from ictus (duplicate)"
        );
        assert_eq!(value(&progress["0074100E"]["Value"][0], "00080100"), "110523");
    }
    assert_eq!(heard.heard().await.2, "IN PROGRESS");
    assert_eq!(heard.heard().await.2, "CANCELED");
    assert_eq!(
        states(&["begun", "beside", "whole", "elsewhere"]).await,
        ["IN PROGRESS", "SCHEDULED", "SCHEDULED", "SCHEDULED"]
    );
    remove(None).await;
    for name in ["beside", "whole"] {
        desk.until(name, "CANCELED").await;
    }
    assert_eq!(
        states(&["begun", "elsewhere"]).await,
        ["IN PROGRESS", "SCHEDULED"]
    );
    assert_eq!(world.count("SELECT count(*) FROM removed_input").await, 0);
    assert_eq!(audit::verify(&world.db).await.unwrap().fault, None);
}
