//! Priors and missing series by rule: from another ictus over C-GET, C-MOVE and DICOMweb, and from dcmtk's archive.

use crate::{
    cache::evict_images,
    deliver_support::{Delivering, analyse, deliveries, free_port, trail},
    dimse_support::{Scp, folder_of, peer, run, until},
    queue::{Fake, Running, report, until_no_job, until_state},
    support::{Slice, World, part10, uid},
    web::Server,
};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use ictus::{
    association::requestor::Peer,
    db::qido::Filter,
    fetch::{Fetcher, Timing, parse},
};
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};
use tokio::{process::Command, sync::oneshot};

const FAST: Timing = Timing {
    poll: Duration::from_millis(50),
    settled: Duration::from_millis(300),
    pause: Duration::from_millis(300),
};
const JOBS: &str = "SELECT count(*) FROM graphile_worker._private_jobs";

/// A fetcher that works until it is dropped.
struct Fetching {
    _stop: oneshot::Sender<()>,
}

impl Fetching {
    async fn start(world: &World, rule: Value, peers: &[Peer]) -> Self {
        let rules = parse(&json!({ "fetch": [rule] }), peers).unwrap();
        let names: Vec<_> = rules.iter().map(|rule| rule.name.clone()).collect();
        let fetcher = Fetcher::new(world.db.clone(), world.receiver.clone(), "ICTUS", rules, FAST).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(fetcher.run(async move { drop(stopped.await) }));
        for name in names {
            until("the rule holds", async || {
                let since = "SELECT count(*) FROM fetch_rule WHERE name = $1";
                let count: i64 = sqlx::query_scalar(since)
                    .bind(&name)
                    .fetch_one(&mut world.superuser().await)
                    .await
                    .unwrap();
                count == 1
            })
            .await;
        }
        Self { _stop: stop }
    }
}

/// A slice of a study of a day.
fn of_day(study: &str, series: &str, number: u32, date: &str, patient: &str) -> Vec<u8> {
    let mut slice = Slice::new(study, series, number);
    slice.patient_id = patient.to_owned();
    let mut object = slice.object();
    object.put(DataElement::new(tags::STUDY_DATE, VR::DA, date));
    object.put(DataElement::new(tags::BODY_PART_EXAMINED, VR::CS, "HEAD"));
    part10(object)
}

/// What an archive has: three priors of the patient, one too old, one later, and another patient's.
fn history() -> Vec<Vec<u8>> {
    vec![
        of_day("p2023", "p2023s", 1, "20230501", "P1"),
        of_day("p2022", "p2022s", 1, "20220501", "P1"),
        of_day("p2021", "p2021s", 1, "20210501", "P1"),
        of_day("p1999", "p1999s", 1, "19990501", "P1"),
        of_day("later", "laters", 1, "20250501", "P1"),
        of_day("other", "others", 1, "20230501", "P10"),
    ]
}

async fn studies(world: &World) -> Vec<String> {
    let found = world.db.find_studies(&Filter::default()).await.unwrap();
    found.into_iter().map(|study| study.study_instance_uid).collect()
}

async fn has(world: &World, study: &str) -> bool {
    studies(world).await.contains(&uid(study).to_string())
}

fn priors() -> Value {
    json!({ "name": "priors", "what": "priors", "when_modality": "CT", "modality": "CT", "body_part": "HEAD", "most": 2 })
}

/// Sends the study of the day and waits for its two latest priors; nothing else comes, and only that study has a job.
async fn two_priors_come(world: &World) {
    world.send(vec![of_day("now", "nows", 1, "20240131", "P1")]).await;
    until("two priors are here", async || {
        has(world, "p2023").await && has(world, "p2022").await
    })
    .await;
    until("the fetch is done", async || {
        world
            .count("SELECT count(*) FROM fetch_study WHERE state = 'done'")
            .await
            == 1
    })
    .await;
    assert_eq!(studies(world).await.len(), 3);
    assert_eq!(world.count(JOBS).await, 1);
    let rows = trail(world, "fetch").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["rule"], &rows[0]["instances"]),
        (&json!("priors"), &json!(1))
    );
    // A prior is nobody's reason to ask for its own priors.
    assert_eq!(world.count("SELECT count(*) FROM fetch_study").await, 1);
}

#[tokio::test]
async fn the_latest_priors_come_by_c_get_and_are_not_analysed() {
    let (here, there) = (World::new().await, World::new().await);
    there.send(history()).await;
    let scp = Scp::new(&there, |settings| settings.title = "PACS".to_owned()).await;
    let mut rule = priors();
    rule["from"] = json!("PACS");
    let _fetching = Fetching::start(&here, rule, &[peer("PACS", scp.address)]).await;
    two_priors_come(&here).await;
}

#[tokio::test]
async fn the_latest_priors_come_by_c_move_to_our_listener() {
    let (here, there) = (World::new().await, World::new().await);
    there.send(history()).await;
    let ours = Scp::new(&here, |_| ()).await;
    let scp = Scp::new(&there, |settings| {
        settings.title = "PACS".to_owned();
        settings.peers.push(peer("ICTUS", ours.address));
    })
    .await;
    let mut rule = priors();
    rule["from"] = json!("PACS");
    rule["how"] = json!("move");
    let _fetching = Fetching::start(&here, rule, &[peer("PACS", scp.address)]).await;
    two_priors_come(&here).await;
}

#[tokio::test]
async fn the_latest_priors_come_over_dicomweb() {
    let (here, there) = (World::new().await, Server::new().await);
    there.stow(&history()).await;
    let address = there.listen().await;
    let mut rule = priors();
    rule["url"] = json!(format!("http://{address}/dicom-web"));
    let _fetching = Fetching::start(&here, rule, &[]).await;
    two_priors_come(&here).await;
}

#[tokio::test]
async fn dcmtks_archive_gives_priors_by_c_get_and_c_move() {
    let here = World::new().await;
    let ours = Scp::new(&here, |_| ()).await;
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let storage = folder.path().join("archive");
    std::fs::create_dir(&storage).unwrap();
    let configuration = folder.path().join("dcmqrscp.cfg");
    let text = format!(
        "NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
         HostTable BEGIN\nictus = (ICTUS, 127.0.0.1, {ours})\nHostTable END\n\
         VendorTable BEGIN\nVendorTable END\n\
         AETable BEGIN\nPACS {storage} RW (200, 1024mb) ANY\nAETable END\n",
        ours = ours.port(),
        storage = storage.display(),
    );
    std::fs::write(&configuration, text).unwrap();
    let mut archive = Command::new("dcmqrscp")
        .args(["-c", configuration.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let number = port.to_string();
    until("the archive listens", async || {
        run("echoscu", &["-aec", "PACS", "127.0.0.1", &number])
            .await
            .success
    })
    .await;
    let files = folder_of(&history());
    let path = files.path().to_str().unwrap();
    let sent = run("storescu", &["-aec", "PACS", "+sd", "127.0.0.1", &number, path]).await;
    assert!(sent.success, "{}", sent.text);

    let peers = [peer("PACS", format!("127.0.0.1:{port}").parse().unwrap())];
    let mut rule = priors();
    rule["from"] = json!("PACS");
    {
        let _fetching = Fetching::start(&here, rule.clone(), &peers).await;
        two_priors_come(&here).await;
    }
    // Another patient's study, by C-MOVE.
    rule["name"] = json!("moved");
    rule["how"] = json!("move");
    let _fetching = Fetching::start(&here, rule, &peers).await;
    here.send(vec![of_day("now too", "now toos", 1, "20240131", "P10")])
        .await;
    until("the prior is here", async || has(&here, "other").await).await;
    archive.kill().await.unwrap();
}

#[tokio::test]
async fn missing_series_come_and_are_analysed_with_their_study() {
    let (here, there) = (World::new().await, World::new().await);
    let mut files: Vec<_> = (1..=3)
        .map(|n| of_day("now", "nows", n, "20240131", "P1"))
        .collect();
    files.extend((1..=2).map(|n| of_day("now", "thin", n, "20240131", "P1")));
    there.send(files).await;
    let scp = Scp::new(&there, |settings| settings.title = "PACS".to_owned()).await;
    let rule = json!({ "name": "missing", "what": "missing", "from": "PACS", "modality": "CT" });
    let _fetching = Fetching::start(&here, rule, &[peer("PACS", scp.address)]).await;
    here.send(vec![of_day("now", "nows", 1, "20240131", "P1")]).await;
    until("the series are whole", async || {
        here.count("SELECT count(*) FROM instance").await == 5
    })
    .await;
    until("the fetch is done", async || {
        here.count("SELECT count(*) FROM fetch_study WHERE state = 'done'")
            .await
            == 1
    })
    .await;
    assert_eq!(trail(&here, "fetch").await.len(), 2);
    assert_eq!(here.count(JOBS).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_images_that_a_late_series_needs_come_back_by_the_rule_for_missing_series() {
    let (here, there) = (
        World::with_quiet(Duration::from_secs(1)).await,
        World::new().await,
    );
    let now = |series: &'static str| (1..=3).map(move |n| of_day("now", series, n, "20240131", "P1"));
    there.send(now("nows").collect()).await;
    let worker = Running::start(&here, Fake::new(|_, _, _| Ok(report(None)))).await;
    here.send(now("nows").collect()).await;
    until_state(&here, "now", "not_flagged").await;
    until_no_job(&here).await;
    evict_images(&here, "now").await;
    let scp = Scp::new(&there, |settings| settings.title = "PACS".to_owned()).await;
    // The study came before the rule, which is not for it.
    let rule = json!({ "name": "missing", "what": "missing", "from": "PACS", "modality": "CT" });
    let _fetching = Fetching::start(&here, rule, &[peer("PACS", scp.address)]).await;
    here.send(now("late").collect()).await;
    until("the images are back", async || {
        here.count("SELECT count(*) FROM instance WHERE evicted_at IS NOT NULL")
            .await
            == 0
    })
    .await;
    until_state(&here, "now", "not_flagged").await;
    until_no_job(&here).await;
    worker.stop().await;
    until("the fetch is done", async || {
        here.count("SELECT count(*) FROM fetch_study WHERE state = 'done'")
            .await
            == 1
    })
    .await;
    let fetched = trail(&here, "fetch").await;
    assert_eq!(fetched[0]["instances"], json!(3));
    let analysed = here.db.study_detail(&uid("now")).await.unwrap().unwrap();
    assert_eq!(analysed.study.revision, Some(2));
}

#[tokio::test]
async fn a_rule_asks_for_no_more_than_it_may_in_an_hour() {
    let (here, there) = (World::new().await, World::new().await);
    there.send(history()).await;
    let scp = Scp::new(&there, |settings| settings.title = "PACS".to_owned()).await;
    let mut rule = priors();
    rule["from"] = json!("PACS");
    rule["per_hour"] = json!(1);
    let _fetching = Fetching::start(&here, rule, &[peer("PACS", scp.address)]).await;
    here.send(vec![of_day("now", "nows", 1, "20240131", "P1")]).await;
    until("the first prior is here", async || has(&here, "p2023").await).await;
    // Waiting is no attempt.
    until("it is looked whether more may come", async || {
        here.count("SELECT count(*) FROM fetch_study WHERE state = 'pending' AND attempts = 0")
            .await
            == 1
    })
    .await;
    assert!(!has(&here, "p2022").await);
    // An hour later it may.
    sqlx::query("UPDATE fetched SET asked_at = asked_at - interval '1 hour'")
        .execute(&mut here.superuser().await)
        .await
        .unwrap();
    until("the second prior is here", async || has(&here, "p2022").await).await;
}

#[tokio::test]
async fn a_source_that_is_away_is_said_to_be_and_asked_again() {
    let (here, there) = (World::new().await, World::new().await);
    there.send(history()).await;
    let port = free_port();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let mut rule = priors();
    rule["from"] = json!("PACS");
    let _fetching = Fetching::start(&here, rule, &[peer("PACS", address)]).await;
    here.send(vec![of_day("now", "nows", 1, "20240131", "P1")]).await;
    until("it is written down", async || {
        here.count(
            "SELECT count(*) FROM fetch_study WHERE state = 'pending' AND last_error LIKE '%cannot be reached%'",
        )
        .await
            == 1
    })
    .await;
    let forward = tokio::net::TcpListener::bind(address).await.unwrap();
    let scp = Scp::new(&there, |settings| settings.title = "PACS".to_owned()).await;
    let behind = scp.address;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = forward.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    sqlx::query("UPDATE fetch_study SET next_at = now()")
        .execute(&mut here.superuser().await)
        .await
        .unwrap();
    until("the priors are here", async || has(&here, "p2022").await).await;
}

#[tokio::test]
async fn our_own_results_that_come_with_a_prior_are_results_and_go_nowhere() {
    let (here, there) = (World::new().await, World::new().await);
    analyse(&there, &["s"], Some(12.5)).await;
    let scp = Scp::new(&there, |settings| settings.title = "PACS".to_owned()).await;
    let stub = crate::deliver_support::Stub::new(200).await;
    let _delivering = Delivering::start(&here, json!([stub.target()])).await;
    let mut rule = priors();
    rule["from"] = json!("PACS");
    rule.as_object_mut().unwrap().remove("body_part");
    // Even where priors are analysed, what we made of them is not.
    rule["analyse"] = json!(true);
    let _fetching = Fetching::start(&here, rule, &[peer("PACS", scp.address)]).await;
    here.send(vec![of_day("now", "nows", 1, "20240131", "P1")]).await;
    until("the fetch is done", async || {
        here.count("SELECT count(*) FROM fetch_study WHERE state = 'done'")
            .await
            == 1
    })
    .await;
    let results =
        "SELECT count(*) FROM instance JOIN series ON series.id = series_id WHERE origin = 'result'";
    assert_eq!(here.count(results).await, there.count(results).await);
    assert!(here.count(results).await > 0);
    // The study of the day and the head of the prior, and nothing for a result.
    assert_eq!(here.count(JOBS).await, 2);
    assert!(deliveries(&here).await.is_empty());
}
