//! What happens to instances that come in.

use crate::support::{NEVER, SENDER, Slice, World, part10, uid};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use futures::StreamExt;
use ictus::{
    archive::Archive,
    db::{events::Event, qido::Filter, qido::Range},
    domain::{failure::FailureClass, uid::Uid},
    receive::{Receiver, outcome::reason},
};
use serde_json::Value;
use sqlx::Row;
use std::{collections::BTreeSet, path::Path};

/// Names of the files below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// Stored objects only: what is staged goes away in its own time.
fn kept(world: &World) -> usize {
    files(world.folder.path())
        .iter()
        .filter(|name| name.starts_with("blake3/"))
        .count()
}

async fn jobs(world: &World) -> Vec<(String, f64)> {
    let rows = sqlx::query(
        "SELECT key, extract(epoch FROM run_at - now())::float8 AS delay FROM graphile_worker._private_jobs",
    )
    .fetch_all(&mut world.superuser().await)
    .await
    .unwrap();
    rows.iter()
        .map(|row| (row.get("key"), row.get("delay")))
        .collect()
}

#[tokio::test]
async fn a_stored_instance_is_indexed_queued_audited_and_read_back_bit_for_bit() {
    let world = World::new().await;
    let slice = Slice::new("s", "a", 3);
    let outcome = world.send(vec![slice.bytes()]).await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (1, 0));
    assert_eq!(outcome.stored[0].sop_instance_uid, slice.sop);
    assert_eq!(outcome.stored[0].warning, None);

    let found = world
        .db
        .find_instances(&Filter::exactly(
            &slice.study,
            Some(&slice.series),
            Some(&slice.sop),
        ))
        .await;
    let [instance] = &found.unwrap()[..] else {
        panic!("one instance is stored")
    };
    assert_eq!(
        world.archive.read(&instance.archive_key).await.unwrap(),
        slice.bytes()
    );
    assert_eq!((instance.rows, instance.columns), (Some(8), Some(8)));
    assert_eq!(
        instance.metadata.get("00200013").unwrap()["Value"][0],
        Value::from(3)
    );
    assert_eq!(
        instance.metadata.get("7FE00010").unwrap()["BulkDataURI"],
        Value::from("7FE00010")
    );

    let jobs = jobs(&world).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].0, format!("study:{}", slice.study));
    let trail = world.db.audit_of_study(&slice.study).await.unwrap();
    assert_eq!(
        (trail.len(), trail[0].act.as_str(), trail[0].principal.as_str()),
        (1, "store", SENDER)
    );
    assert_eq!(trail[0].detail["series"][0]["instances"][0]["became"], "new");
    assert_eq!(
        trail[0].detail["series"][0]["instances"][0]["sop_instance_uid"],
        slice.sop.as_str()
    );
}

#[tokio::test]
async fn sending_an_instance_again_changes_nothing_and_is_acknowledged() {
    let world = World::new().await;
    let slice = Slice::new("s", "a", 1).bytes();
    world.send(vec![slice.clone()]).await;
    let before = files(world.folder.path())
        .into_iter()
        .filter(|name| name.starts_with("blake3"))
        .collect::<Vec<_>>();
    let outcome = world.send(vec![slice.clone(), slice]).await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (2, 0));
    assert_eq!(outcome.stored[0].warning, None);
    assert_eq!(world.count("SELECT count(*) FROM instance").await, 1);
    assert_eq!(before.len(), kept(&world));
    assert_eq!(world.count("SELECT count(*) FROM audit").await, 2);
}

#[tokio::test]
async fn a_request_is_acknowledged_part_by_part() {
    let world = World::new().await;
    let mut no_uid = Slice::new("s", "a", 2).object();
    no_uid.remove_element(tags::STUDY_INSTANCE_UID);
    let mut truncated = Slice::new("s", "a", 3).bytes();
    truncated.truncate(truncated.len() - 40);
    let parts = vec![
        b"this is not DICOM".to_vec(),
        Slice::new("s", "a", 1).bytes(),
        part10(no_uid),
        truncated,
        Vec::new(),
        Slice::new("s", "a", 4).bytes(),
    ];
    let outcome = world.send(parts).await;
    let stored: Vec<_> = outcome
        .stored
        .iter()
        .map(|stored| stored.sop_instance_uid.clone())
        .collect();
    assert_eq!(stored, [uid("a/1"), uid("a/4")]);
    let reasons: Vec<_> = outcome
        .failed
        .iter()
        .map(|failed| failed.failure_reason)
        .collect();
    let (not_understood, mismatch) = (reason::CANNOT_UNDERSTAND, reason::DATASET_MISMATCHES_SOP_CLASS);
    assert_eq!(
        reasons,
        [not_understood, mismatch, not_understood, not_understood]
    );
    assert_eq!(outcome.failed[1].sop_instance_uid, Some(uid("a/2")));
    let acts: Vec<String> = sqlx::query_scalar("SELECT act FROM audit ORDER BY seq")
        .fetch_all(&mut world.superuser().await)
        .await
        .unwrap();
    assert_eq!(acts, ["store", "refuse"]);
}

#[tokio::test]
async fn path_tricks_in_uids_are_refused_and_touch_no_file() {
    let world = World::new().await;
    let mut parts = Vec::new();
    for (tag, bad) in [
        (tags::STUDY_INSTANCE_UID, "../../../../etc/x"),
        (tags::SERIES_INSTANCE_UID, "1.2/../3"),
        (tags::SOP_INSTANCE_UID, "..\\1"),
        (tags::SOP_INSTANCE_UID, "1.2.3'; DROP TABLE study; --"),
    ] {
        let mut object = Slice::new("s", "a", 1).object();
        object.put(DataElement::new(tag, VR::UI, PrimitiveValue::from(bad)));
        parts.push(part10(object));
    }
    let outcome = world.send(parts).await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (0, 4));
    assert_eq!(world.count("SELECT count(*) FROM study").await, 0);
    assert_eq!(kept(&world), 0);
}

#[tokio::test]
async fn an_instance_of_another_study_than_the_request_names_is_refused() {
    let world = World::new().await;
    let staged = vec![
        world.stage(Slice::new("s", "a", 1).bytes()).await,
        world.stage(Slice::new("other", "b", 1).bytes()).await,
    ];
    let outcome = world
        .receiver
        .store(staged, Some(&uid("s")), SENDER)
        .await
        .unwrap();
    assert_eq!(outcome.stored.len(), 1);
    assert_eq!(outcome.failed[0].failure_reason, reason::STUDY_MISMATCH);
    assert_eq!(world.count("SELECT count(*) FROM study").await, 1);
}

#[tokio::test]
async fn the_same_uid_with_other_attributes_is_kept_beside_and_with_other_pixels_refused() {
    let world = World::new().await;
    let first = Slice::new("s", "a", 1);
    world.send(vec![first.bytes()]).await;
    let renamed = Slice {
        series_description: "Head, renamed".to_owned(),
        ..first.clone()
    };
    let repainted = Slice {
        pixel: 1025,
        ..first.clone()
    };
    let outcome = world.send(vec![renamed.bytes(), repainted.bytes()]).await;
    assert_eq!(
        outcome.stored[0].warning.as_ref().unwrap().reason,
        reason::COERCION
    );
    assert_eq!(outcome.failed[0].failure_reason, reason::DUPLICATE_SOP_INSTANCE);
    assert_eq!(outcome.failed[0].sop_instance_uid, Some(first.sop.clone()));

    // The first one stays in use, the second is kept and waits.
    let found = world
        .db
        .find_instances(&Filter::exactly(&first.study, None, None))
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        world.archive.read(&found[0].archive_key).await.unwrap(),
        first.bytes()
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM instance WHERE state = 'pending'")
            .await,
        1
    );
    let trail = world.db.audit_of_study(&first.study).await.unwrap();
    assert_eq!(trail[1].detail["series"][0]["instances"][0]["became"], "pending");
    assert_eq!(trail[2].act, "refuse");
    assert_eq!(trail[2].detail["failed"][0]["failure_reason"], "0111");

    // Sent once more, the pending one is a duplicate.
    let outcome = world.send(vec![renamed.bytes()]).await;
    assert_eq!(outcome.stored[0].warning, None);
    assert_eq!(world.count("SELECT count(*) FROM instance").await, 2);
}

#[tokio::test]
async fn a_series_with_two_patients_frames_or_studies_is_stored_and_quarantined() {
    let world = World::new().await;
    let base = |study: &str, series: &str, number| Slice::new(study, series, number);
    world
        .send(vec![
            base("s", "patients", 1).bytes(),
            Slice {
                patient_id: "P2".to_owned(),
                ..base("s", "patients", 2)
            }
            .bytes(),
            base("s", "frames", 1).bytes(),
            Slice {
                frame_of_reference: uid("another"),
                ..base("s", "frames", 2)
            }
            .bytes(),
            base("s", "fine", 1).bytes(),
            base("s", "fine", 2).bytes(),
            base("s", "studies", 1).bytes(),
        ])
        .await;
    let outcome = world.send(vec![base("t", "studies", 2).bytes()]).await;
    assert_eq!(
        outcome.stored[0].warning.as_ref().unwrap().reason,
        reason::QUARANTINED
    );
    let rows = sqlx::query("SELECT series_instance_uid AS uid, conflict FROM series ORDER BY id")
        .fetch_all(&mut world.superuser().await)
        .await
        .unwrap();
    let quarantined: Vec<(String, bool)> = rows
        .iter()
        .map(|row| (row.get("uid"), row.get::<Option<String>, _>("conflict").is_some()))
        .collect();
    let expected = [
        ("patients", true),
        ("frames", true),
        ("fine", false),
        ("studies", true),
        ("studies", true),
    ];
    assert_eq!(
        quarantined,
        expected.map(|(name, conflict)| (uid(name).to_string(), conflict))
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM audit WHERE act = 'quarantine'")
            .await,
        3
    );
    let page = world.db.study_detail(&uid("s")).await.unwrap().unwrap();
    assert!(
        page.series[0]
            .reason
            .as_ref()
            .unwrap()
            .starts_with("identity_conflict")
    );
}

#[tokio::test]
async fn a_result_of_ours_that_comes_back_is_known_and_not_analysed() {
    let world = World::new().await;
    let mut object = Slice::new("s", "results", 1).object();
    object.put(DataElement::new(
        tags::SOP_CLASS_UID,
        VR::UI,
        "1.2.840.10008.5.1.4.1.1.66.4",
    ));
    object.put(DataElement::new(
        tags::SOP_INSTANCE_UID,
        VR::UI,
        Uid::derive(&[b"a mask"]).as_str(),
    ));
    let outcome = world.send(vec![part10(object)]).await;
    assert_eq!(outcome.stored.len(), 1);
    assert_eq!(
        world
            .count("SELECT count(*) FROM series WHERE origin = 'result'")
            .await,
        1
    );
    assert_eq!(jobs(&world).await, []);
}

#[tokio::test]
async fn only_original_ct_is_queued_and_a_whole_head_at_once() {
    let world = World::new().await;
    let derived = Slice {
        image_type: "DERIVED\\SECONDARY\\MPR",
        ..Slice::new("derived", "d", 1)
    };
    world.send(vec![derived.bytes()]).await;
    assert_eq!(jobs(&world).await, []);
    let study = world.db.study(&uid("derived")).await.unwrap().unwrap();
    assert_eq!(study.state, "failed");
    assert!(study.reason.unwrap().starts_with("no_ct"));

    world.send(Slice::head("whole", "w")).await;
    world
        .send(Slice::head("part", "p").into_iter().take(12).collect())
        .await;
    let by_key = |jobs: &[(String, f64)], name| {
        jobs.iter()
            .find(|job| job.0.ends_with(uid(name).as_str()))
            .unwrap()
            .1
    };
    let queued = jobs(&world).await;
    assert!(by_key(&queued, "whole") <= 0.0, "{queued:?}");
    assert!(by_key(&queued, "part") > NEVER.as_secs_f64() - 60.0, "{queued:?}");
    assert_eq!(
        world.db.study(&uid("part")).await.unwrap().unwrap().state,
        "arriving"
    );

    // Told, it does not wait any longer; a series that nobody knows is not complete.
    assert!(world.receiver.complete(&uid("p"), SENDER).await.unwrap());
    assert!(by_key(&jobs(&world).await, "part") <= 0.0);
    assert!(!world.receiver.complete(&uid("nobody"), SENDER).await.unwrap());
}

#[tokio::test]
async fn each_further_slice_moves_the_one_job_of_its_study() {
    let world = World::new().await;
    for number in 0..3 {
        world.send(vec![Slice::new("s", "a", number).bytes()]).await;
    }
    assert_eq!(jobs(&world).await.len(), 1);
}

#[tokio::test]
async fn a_request_that_fails_midway_leaves_nothing_behind() {
    let world = World::new().await;
    let mut superuser = world.superuser().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'; \
         CREATE TRIGGER refuse BEFORE INSERT ON audit EXECUTE FUNCTION refuse();",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    let staged = world.stage(Slice::new("s", "a", 1).bytes()).await;
    let error = world
        .receiver
        .store(vec![staged], None, SENDER)
        .await
        .unwrap_err();
    assert_eq!(error.class(), FailureClass::Internal);
    for table in [
        "SELECT count(*) FROM study",
        "SELECT count(*) FROM instance",
        "SELECT count(*) FROM graphile_worker._private_jobs",
        "SELECT count(*) FROM audit",
    ] {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    sqlx::raw_sql("DROP TRIGGER refuse ON audit")
        .execute(&mut superuser)
        .await
        .unwrap();
    assert_eq!(
        world
            .send(vec![Slice::new("s", "a", 1).bytes()])
            .await
            .stored
            .len(),
        1
    );
}

#[tokio::test]
async fn two_senders_of_the_same_study_at_once_store_everything_once() {
    let world = World::new().await;
    let (one, two) = (
        Slice::head("s", "a"),
        Slice::head("s", "a").into_iter().rev().collect(),
    );
    let (one, two) = tokio::join!(world.send(one), world.send(two));
    assert_eq!((one.stored.len(), two.stored.len()), (30, 30));
    assert_eq!(world.count("SELECT count(*) FROM instance").await, 30);
    assert_eq!(
        world
            .count("SELECT count(*) FROM audit WHERE seq = (SELECT seq FROM audit_head)")
            .await,
        1
    );
}

/// As if it had been written 25 hours ago.
fn make_old(path: &Path) {
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(long_ago).unwrap();
}

#[tokio::test]
async fn what_a_crash_left_staged_is_swept_and_what_is_being_staged_is_not() {
    let world = World::new().await;
    let left = world.stage(Slice::new("s", "a", 1).bytes()).await;
    std::mem::forget(left);
    let staging = world.folder.path().join("staging");
    // Half of an upload: the store writes it under a name that it does not list.
    std::fs::write(staging.join("half#1"), b"half").unwrap();
    for name in files(&staging) {
        make_old(&staging.join(name));
    }
    let under_way = world.stage(Slice::new("s", "a", 2).bytes()).await;
    let again = Receiver::new(
        world.db.clone(),
        Archive::open(world.folder.path()).unwrap(),
        NEVER,
    );
    assert_eq!(again.sweep_staging().await.unwrap(), 2);
    assert_eq!(files(&staging).len(), 1);
    let outcome = world.receiver.store(vec![under_way], None, SENDER).await.unwrap();
    assert_eq!(outcome.stored.len(), 1);
}

#[tokio::test]
async fn a_stream_that_breaks_or_is_too_long_leaves_nothing_staged() {
    let world = World::new().await;
    let broken = futures::stream::iter([
        Ok(bytes::Bytes::from_static(b"half of it")),
        Err(std::io::Error::other("the sender went away, she is \"Doe^Jane\"")),
    ]);
    let error = world.receiver.stage(broken).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Input);
    assert!(!format!("{error:?}").contains("Doe"), "{error:?}");
    let long =
        futures::stream::iter([1, 2]).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![0; 600])));
    let error = world.archive.stage(long, 1000).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Input);
    assert_eq!(
        files(world.folder.path())
            .iter()
            .filter(|name| name.starts_with("blake3"))
            .count(),
        0
    );
}

#[tokio::test]
async fn an_archived_file_that_was_changed_is_not_read() {
    let world = World::new().await;
    let slice = Slice::new("s", "a", 1);
    world.send(vec![slice.bytes()]).await;
    let found = world
        .db
        .find_instances(&Filter::exactly(&slice.study, None, None))
        .await
        .unwrap();
    let path = world.folder.path().join(&found[0].archive_key);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = world.archive.read(&found[0].archive_key).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Internal);
}

#[tokio::test]
async fn only_old_files_that_nothing_refers_to_are_swept_and_the_trail_says_so() {
    let world = World::new().await;
    world.send(vec![Slice::new("s", "a", 1).bytes()]).await;
    let orphan = world
        .archive
        .stage_bytes(b"left by a request that was never acknowledged".to_vec())
        .await
        .unwrap();
    world.archive.keep(&orphan).await.unwrap();
    assert_eq!(
        world.receiver.sweep_unreferenced().await.unwrap(),
        0,
        "it is not a day old"
    );
    for name in files(world.folder.path())
        .iter()
        .filter(|name| name.starts_with("blake3"))
    {
        make_old(&world.folder.path().join(name));
    }
    assert_eq!(world.receiver.sweep_unreferenced().await.unwrap(), 1);
    assert_eq!(kept(&world), 1);
    assert_eq!(
        world
            .count("SELECT count(*) FROM audit WHERE act = 'remove'")
            .await,
        1
    );
}

#[tokio::test]
async fn studies_series_and_instances_are_found_by_what_they_say() {
    let world = World::new().await;
    world
        .send(vec![
            Slice::new("s", "a", 1).bytes(),
            Slice::new("s", "a", 2).bytes(),
            Slice::new("s", "b", 1).bytes(),
        ])
        .await;
    let other = Slice {
        patient_name: "Other_%".to_owned(),
        patient_id: "X".to_owned(),
        ..Slice::new("t", "c", 1)
    };
    world.send(vec![other.bytes()]).await;
    let studies = async |filter: Filter| -> Vec<String> {
        world
            .db
            .find_studies(&filter)
            .await
            .unwrap()
            .into_iter()
            .map(|study| study.study_instance_uid)
            .collect()
    };
    let (s, t) = (uid("s").to_string(), uid("t").to_string());
    // The latest first.
    assert_eq!(studies(Filter::default()).await, [t.clone(), s.clone()]);
    let name = |name: &str| Filter {
        patient_name: Some(name.to_owned()),
        ..Filter::default()
    };
    assert_eq!(studies(name("phantom*")).await, std::slice::from_ref(&s));
    assert_eq!(studies(name("Phantom^On?")).await, std::slice::from_ref(&s));
    assert_eq!(studies(name("%")).await, Vec::<String>::new());
    assert_eq!(studies(name("Other_%")).await, [t]);
    let dated = |from: Option<&str>, to: Option<&str>| Filter {
        study_date: Range {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
        },
        ..Filter::default()
    };
    assert_eq!(studies(dated(Some("20240131"), Some("20240131"))).await.len(), 2);
    assert_eq!(studies(dated(None, Some("20240130"))).await.len(), 0);
    assert_eq!(
        studies(Filter {
            modalities_in_study: Some("MR".to_owned()),
            ..Filter::default()
        })
        .await
        .len(),
        0
    );
    assert_eq!(
        studies(Filter {
            limit: Some(1),
            offset: 1,
            ..Filter::default()
        })
        .await,
        [s]
    );

    let found = &world.db.find_studies(&name("phantom*")).await.unwrap()[0];
    assert_eq!((found.series_count, found.instance_count), (2, 3));
    assert_eq!(found.modalities, ["CT"]);
    assert_eq!(found.metadata.get("00100020").unwrap()["Value"][0], "P1");
    let series = world
        .db
        .find_series(&Filter::exactly(&uid("s"), Some(&uid("a")), None))
        .await
        .unwrap();
    assert_eq!((series.len(), series[0].instance_count), (1, 2));
    let second = Filter {
        instance_number: Some(2),
        ..Filter::exactly(&uid("s"), None, None)
    };
    let instances = world.db.find_instances(&second).await.unwrap();
    assert_eq!(
        instances
            .iter()
            .map(|instance| instance.sop_instance_uid.as_str())
            .collect::<Vec<_>>(),
        [uid("a/2").as_str()]
    );
}

#[tokio::test]
async fn a_name_in_the_data_stays_out_of_errors_and_notifications() {
    let world = World::new().await;
    let events = world.db.listen().await.unwrap();
    let mut heard = events.subscribe();
    let name = "Geheim^Person";
    let good = Slice {
        patient_name: name.to_owned(),
        ..Slice::new("s", "a", 1)
    };
    let repainted = Slice {
        pixel: 7,
        ..good.clone()
    };
    let mut number = good.object();
    number.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, name));
    let mut broken = good.bytes();
    broken.truncate(900);
    let outcome = world
        .send(vec![good.bytes(), repainted.bytes(), part10(number), broken])
        .await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (1, 3));
    let said = format!("{outcome:?}");
    assert!(!said.contains("Geheim") && !said.contains("Person"), "{said}");
    let Event::Study(event) = heard.recv().await.unwrap() else {
        panic!("a study changed")
    };
    assert_eq!(
        (event.study_instance_uid, event.state.as_str()),
        (uid("s").to_string(), "arriving")
    );
    let trail: String = sqlx::query_scalar("SELECT string_agg(detail::text, ' ') FROM audit")
        .fetch_one(&mut world.superuser().await)
        .await
        .unwrap();
    assert!(!trail.contains("Geheim"), "{trail}");
    // Postgres quotes values in its own messages: they are taken out on the way.
    let mut superuser = world.superuser().await;
    sqlx::raw_sql("ALTER TABLE study ADD CONSTRAINT no_secrets CHECK (patient_name <> 'Geheim^Zwei')")
        .execute(&mut superuser)
        .await
        .unwrap();
    let second = Slice {
        patient_name: "Geheim^Zwei".to_owned(),
        ..Slice::new("u", "d", 1)
    };
    let staged = world.stage(second.bytes()).await;
    let error = world
        .receiver
        .store(vec![staged], None, SENDER)
        .await
        .unwrap_err();
    assert!(!format!("{error:?}").contains("Geheim"), "{error:?}");
}
