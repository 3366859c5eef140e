//! An analysis from the trail, run again: the same, or a sentence that says why not.

use crate::{
    queue::{Fake, Running, report, until_no_job, until_state},
    support::{Slice, World, uid},
};
use ictus::{
    audit,
    db::audit::AuditEntry,
    domain::network::Unattended,
    worker::replay::{Recorded, ReplayError, Verdict},
};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};
use uuid::Uuid;

/// A study that was analysed once.
async fn analysed(fake: &Arc<Fake>) -> (World, Uuid) {
    let world = World::new().await;
    let worker = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    until_state(&world, "s", "flagged").await;
    until_no_job(&world).await;
    worker.stop().await;
    let detail = world.db.study_detail(&uid("s")).await.unwrap().unwrap();
    (world, detail.analysis.unwrap().id)
}

async fn trail(world: &World) -> Vec<AuditEntry> {
    world.db.audit_of_study(&uid("s")).await.unwrap()
}

#[tokio::test]
async fn an_analysis_that_is_run_again_gives_the_same_results_and_says_so_in_the_trail() {
    let fake = Fake::new(|_, instances, _| {
        assert_eq!(instances.len(), 30);
        Ok(report(Some(12.5)))
    });
    let (world, analysis) = analysed(&fake).await;
    let recorded = Recorded::read(&world.db, &world.archive, analysis).await.unwrap();
    assert_eq!(recorded.results().len(), 2);
    let replay = recorded.replay(&*fake, &Unattended).unwrap();
    assert!(replay.holds(), "{replay:?}");
    assert_eq!((replay.sources, replay.identical()), (30, 2));
    let results = world.count("SELECT count(*) FROM analysis_instance").await;
    replay.record(&world.db, "auditor").await.unwrap();
    let rows = trail(&world).await;
    let last = rows.last().unwrap();
    assert_eq!(
        (last.act.as_str(), last.principal.as_str()),
        ("replay", "auditor")
    );
    assert_eq!(last.detail["identical"], 2);
    assert_eq!(
        world.count("SELECT count(*) FROM analysis_instance").await,
        results,
        "a replay stores nothing"
    );
    assert_eq!(audit::verify(&world.db).await.unwrap().fault, None);
}

#[tokio::test]
async fn another_answer_is_seen() {
    let fake = Fake::new(|_, _, _| Ok(report(Some(12.5))));
    let (world, analysis) = analysed(&fake).await;
    let recorded = Recorded::read(&world.db, &world.archive, analysis).await.unwrap();
    let drifted = Fake::drifted(|_, _, _| Ok(report(Some(12.5))));
    let replay = recorded.replay(&*drifted, &Unattended).unwrap();
    assert!(!replay.holds());
    let verdicts: Vec<_> = replay.results.iter().map(|r| r.verdict).collect();
    assert_eq!(verdicts, [Verdict::Differs, Verdict::Differs]);
}

#[tokio::test]
async fn refuses_other_models_and_analyses_that_are_not_there() {
    let fake = Fake::new(|_, _, _| Ok(report(Some(12.5))));
    let (world, analysis) = analysed(&fake).await;
    let recorded = Recorded::read(&world.db, &world.archive, analysis).await.unwrap();
    let other = Fake::with_model(b"another model", |_, _, _| Ok(report(Some(12.5))));
    let error = recorded.replay(&*other, &Unattended).unwrap_err();
    assert!(error.to_string().contains("fake 1 on cpu-test-f32"), "{error}");
    let error = Recorded::read(&world.db, &world.archive, Uuid::nil())
        .await
        .unwrap_err();
    assert!(matches!(error, ReplayError::Unknown(_)), "{error}");
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[tokio::test]
async fn sees_a_changed_file_a_changed_index_and_an_instance_that_was_taken_away() {
    let fake = Fake::new(|_, _, _| Ok(report(Some(12.5))));
    let (world, analysis) = analysed(&fake).await;
    let read = async || Recorded::read(&world.db, &world.archive, analysis).await;
    assert!(read().await.is_ok());

    let mut superuser = world.superuser().await;
    let mut run = async |sql: &'static str| {
        sqlx::query(sql).execute(&mut superuser).await.unwrap();
    };
    // The index says that another dataset was analysed.
    run("UPDATE instance SET digest = decode(repeat('ab', 32), 'hex') WHERE id = 3").await;
    let error = read().await.unwrap_err();
    assert!(matches!(error, ReplayError::Changed { .. }), "{error}");
    run("UPDATE instance SET digest = (SELECT digest FROM instance WHERE id = 4) WHERE id = 3").await;
    run("UPDATE instance SET archive_key = (SELECT archive_key FROM instance WHERE id = 4) WHERE id = 3")
        .await;
    // File and index agree with each other, and not with the trail.
    let error = read().await.unwrap_err();
    assert!(matches!(error, ReplayError::OtherInstances(_)), "{error}");
    run("DELETE FROM analysis_instance WHERE instance_id = 3").await;
    let error = read().await.unwrap_err();
    assert!(matches!(error, ReplayError::OtherInstances(_)), "{error}");

    // A byte on the disk.
    let mut kept = Vec::new();
    files(world.folder.path(), &mut kept);
    for path in kept {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let error = read().await.unwrap_err();
    assert!(matches!(error, ReplayError::Archive(_)), "{error}");
}
