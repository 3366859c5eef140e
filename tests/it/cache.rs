//! An archive with a quota: what is delivered and routine makes room, nothing else does, and what is evicted says so.

use crate::{
    queue::{Fake, Running, report, until_no_job, until_state},
    support::{NEVER, Slice, World, uid},
    web::Server,
};
use axum::http::StatusCode;
use bytes::Bytes;
use futures::stream;
use ictus::{
    archive::{Archive, ArchiveError},
    receive::{Quota, ReceiveError, Receiver},
};
use std::{convert::Infallible, time::Duration};

/// A world with studies of one slice each, and what a receiver with this quota makes of it.
async fn with_quota(world: &World, bytes: u64) -> Receiver {
    Receiver::new(world.db.clone(), world.archive.clone(), NEVER).with_quota(Quota {
        bytes: Some(bytes),
        free_bytes: 0,
    })
}

/// Says of a study what an analysis, a delivery and a reader would have said.
async fn say(world: &World, study: &str, answer: &str, delivered: &str, read: bool) {
    let mut connection = world.superuser().await;
    let study_uid = uid(study);
    let analysis = format!(
        "(SELECT analysis.id FROM analysis JOIN study ON study.id = analysis.study_id WHERE study_instance_uid = '{study_uid}')"
    );
    let mut statements = vec![
        format!(
            "INSERT INTO analysis (id, study_id, identity, model_digest, calibration_digest, instance_count, revision, state, \
             finished_at, waited_ms, answer, report) \
             SELECT gen_random_uuid(), id, sha256(study_instance_uid::bytea), '\\x00', '\\x00', 1, 1, 'complete', now(), 0, \
             '{answer}', '{{}}' FROM study WHERE study_instance_uid = '{study_uid}'"
        ),
        format!(
            "INSERT INTO analysis_instance SELECT {analysis}, instance.id, 'source' FROM instance \
             JOIN series ON series.id = series_id JOIN study ON study.id = series.study_id WHERE study_instance_uid = '{study_uid}'"
        ),
        "INSERT INTO delivery_target (name, kind, roles, answers, attempts, active) VALUES ('vna', 'stow', '{sr}', \
         '{present,absent}', 5, true) ON CONFLICT DO NOTHING"
            .to_owned(),
        format!(
            "INSERT INTO outbox (id, analysis_id, target, state, urgency, ended_at) \
             SELECT gen_random_uuid(), {analysis}, 'vna', '{delivered}', 2, \
             CASE WHEN '{delivered}' = 'pending' THEN NULL ELSE now() END"
        ),
    ];
    if read {
        statements.push(
            "INSERT INTO account (name, display_name, role, password_hash) VALUES ('eader', 'Dr. R. Eader', 'radiologist', 'x') \
             ON CONFLICT DO NOTHING"
                .to_owned(),
        );
        statements.push(format!(
            "INSERT INTO verdict (study_id, analysis_id, account_id, verdict) \
             SELECT study.id, {analysis}, account.id, 'accept' FROM study, account WHERE study_instance_uid = '{study_uid}'"
        ));
    }
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

async fn evicted(world: &World) -> Vec<String> {
    let query = "SELECT study_instance_uid FROM study JOIN series ON series.study_id = study.id \
                 JOIN instance ON series_id = series.id WHERE evicted_at IS NOT NULL ORDER BY evicted_at";
    sqlx::query_scalar(query)
        .fetch_all(&mut world.superuser().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_delivered_and_routine_goes_first_and_nothing_else_goes() {
    let world = World::new().await;
    let studies = ["old", "read", "flagged", "waiting", "dead", "fresh", "needed"];
    for study in studies {
        let outcome = world.send(vec![Slice::new(study, study, 1).bytes()]).await;
        assert_eq!(outcome.stored.len(), 1);
    }
    say(&world, "old", "absent", "delivered", false).await;
    say(&world, "read", "present", "delivered", true).await;
    say(&world, "flagged", "present", "delivered", false).await;
    say(&world, "waiting", "absent", "pending", false).await;
    say(&world, "dead", "absent", "dead", false).await;
    say(&world, "needed", "absent", "delivered", false).await;
    world.db.audit_read("viewer", &uid("needed")).await.unwrap();
    let used = world.db.kept_bytes().await.unwrap();
    let files = world.archive_files().await.len();
    assert_eq!(files, studies.len());

    let roomy = with_quota(&world, used * 2).await;
    assert_eq!(roomy.make_room().await.unwrap(), 0, "there is room");
    let one = used / studies.len() as u64;
    let tight = with_quota(&world, used + one / 4).await;
    assert_eq!(tight.make_room().await.unwrap(), 1, "one is enough");
    assert_eq!(evicted(&world).await, [uid("old").to_string()]);
    let full = with_quota(&world, one).await;
    assert_eq!(full.make_room().await.unwrap(), 2);
    let gone = ["old", "read", "needed"].map(|study| uid(study).to_string());
    assert_eq!(evicted(&world).await, gone);
    assert_eq!(world.archive_files().await.len(), files - 3);
    let acts = world
        .count("SELECT count(*) FROM audit WHERE act = 'evict'")
        .await;
    assert_eq!(acts, 3);
    assert_eq!(world.count("SELECT count(*) FROM instance").await, 7, "rows stay");
}

async fn stage(receiver: &Receiver, part10: Vec<u8>) -> Result<ictus::receive::Staged, ReceiveError> {
    let whole: Result<Bytes, Infallible> = Ok(Bytes::from(part10));
    receiver.stage(stream::iter([whole])).await
}

#[tokio::test]
async fn nothing_is_taken_in_when_there_is_no_room_and_the_sender_is_told_why() {
    let mut world = World::new().await;
    assert_eq!(
        world
            .send(vec![Slice::new("s", "a", 1).bytes()])
            .await
            .stored
            .len(),
        1
    );
    let full = with_quota(&world, 1).await;
    full.make_room().await.unwrap();
    let said = stage(&full, Slice::new("s", "a", 2).bytes()).await.unwrap_err();
    assert!(
        said.to_string().contains("1 bytes of its quota are in use"),
        "{said}"
    );
    let crowded = Receiver::new(world.db.clone(), world.archive.clone(), NEVER).with_quota(Quota {
        bytes: None,
        free_bytes: u64::MAX,
    });
    let said = stage(&crowded, Slice::new("s", "a", 2).bytes())
        .await
        .unwrap_err();
    assert!(said.to_string().contains("bytes are free on its disk"), "{said}");
    world.receiver = full;
    let server = Server::of(world).await;
    let answer = server.stow(&[Slice::new("s", "a", 2).bytes()]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains("the archive is full"), "{}", answer.text());
    assert_eq!(server.world.count("SELECT count(*) FROM instance").await, 1);
}

#[tokio::test]
async fn an_evicted_instance_says_so_and_is_there_again_when_it_is_sent_again() {
    let server = Server::new().await;
    let world = &server.world;
    let slice = Slice::new("s", "a", 1);
    assert_eq!(server.stow(&[slice.bytes()]).await.status, StatusCode::OK);
    say(world, "s", "absent", "delivered", false).await;
    assert_eq!(with_quota(world, 1).await.make_room().await.unwrap(), 1);
    let path = format!(
        "/dicom-web/studies/{}/series/{}/instances/{}",
        slice.study, slice.series, slice.sop
    );
    let available = async || {
        let study = format!("/dicom-web/studies/{}", slice.study);
        let mut said = Vec::new();
        for search in [
            format!("/dicom-web/studies?StudyInstanceUID={}", slice.study),
            format!("{study}/series"),
            format!("{study}/instances"),
        ] {
            let found = server.get(&search, &[]).await.json();
            said.push(found[0]["00080056"]["Value"][0].as_str().unwrap().to_owned());
        }
        said
    };
    assert_eq!(available().await, ["UNAVAILABLE"; 3]);
    for end in ["", "/frames/1", "/rendered"] {
        let answer = server.get(&format!("{path}{end}"), &[]).await;
        assert_eq!(answer.status, StatusCode::GONE, "{end}: {}", answer.text());
        assert!(answer.text().contains("was evicted"), "{}", answer.text());
    }
    let listed = server.get(&format!("{path}/metadata"), &[]).await;
    assert_eq!(listed.status, StatusCode::OK, "the index still knows it");
    let mut changed = slice.clone();
    changed.patient_name = "Doe^Joan".to_owned();
    let refused = server.stow(&[changed.bytes()]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text());
    assert_eq!(server.stow(&[slice.bytes()]).await.status, StatusCode::OK);
    let answer = server.get(&path, &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.parts()[0].1, slice.bytes());
    assert_eq!(available().await, ["ONLINE"; 3]);
    assert_eq!(
        world
            .count("SELECT count(*) FROM instance WHERE evicted_at IS NULL")
            .await,
        1
    );
}

/// Evicts the images of a study that was analysed, as if its results had been delivered.
pub(crate) async fn evict_images(world: &World, study: &str) {
    let target = "INSERT INTO delivery_target (name, kind, roles, answers, attempts, active) \
                  VALUES ('vna', 'stow', '{sr}', '{present,absent}', 5, true)";
    let delivered = "INSERT INTO outbox (id, analysis_id, target, state, urgency, ended_at) \
                     SELECT gen_random_uuid(), analysis.id, 'vna', 'delivered', 2, now() FROM analysis";
    world.run(target).await;
    world.run(delivered).await;
    assert_eq!(with_quota(world, 1).await.make_room().await.unwrap(), 1);
    let gone = evicted(world).await;
    assert!(
        !gone.is_empty()
            && gone
                .iter()
                .all(|uid| *uid == crate::support::uid(study).to_string())
    );
    // What comes next has no target.
    world.run("UPDATE delivery_target SET active = false").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_study_to_which_more_comes_says_what_to_do_and_is_analysed_when_that_is_done() {
    let world = World::with_quiet(Duration::ZERO).await;
    let counted = Fake::new(|_, instances, _| {
        assert!([30, 60].contains(&instances.len()));
        Ok(report(None))
    });
    let worker = Running::start(&world, counted.clone()).await;
    world.send(Slice::head("s", "a")).await;
    until_state(&world, "s", "not_flagged").await;
    until_no_job(&world).await;
    evict_images(&world, "s").await;

    world.send(Slice::head("s", "late")).await;
    let failed = until_state(&world, "s", "failed").await;
    let reason = failed.reason.unwrap();
    assert!(reason.contains("send the study again"), "{reason}");
    assert!(reason.contains("`fetch`"), "{reason}");
    assert_eq!(counted.calls(), 1);
    // Nothing of it goes again while it waits.
    assert_eq!(with_quota(&world, 1).await.make_room().await.unwrap(), 0);

    let again = world.send(Slice::head("s", "a")).await;
    assert_eq!(again.stored.len(), 30);
    until_state(&world, "s", "not_flagged").await;
    until_no_job(&world).await;
    worker.stop().await;
    assert_eq!(counted.calls(), 2);
    assert_eq!(evicted(&world).await, Vec::<String>::new());
    let analysed = world.db.study_detail(&uid("s")).await.unwrap().unwrap();
    assert_eq!(analysed.study.revision, Some(2));
}

#[tokio::test]
async fn a_file_that_was_evicted_is_not_one_that_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(folder.path()).unwrap();
    let staged = archive.stage_bytes(b"bytes".to_vec()).await.unwrap();
    archive.keep(&staged).await.unwrap();
    archive.evict(staged.key()).await.unwrap();
    assert!(matches!(
        archive.read(staged.key()).await,
        Err(ArchiveError::Evicted(_))
    ));
    assert!(matches!(
        archive.size(staged.key()).await,
        Err(ArchiveError::Evicted(_))
    ));
    let lost = staged.key().replace(char::is_numeric, "0");
    assert!(matches!(archive.read(&lost).await, Err(ArchiveError::Missing(_))));
    archive.keep(&staged).await.unwrap();
    assert_eq!(archive.read(staged.key()).await.unwrap(), b"bytes".as_slice());
}
