//! The server and the command line as processes: killed within a delivery, held to certificates, and asked by a person.

use crate::{
    deliver_support::{
        Delivering, Log, PythonScp, Stub, analyse, c_store, deliveries, free_port, instances,
        script_that_is_ready, trail, until_delivery,
    },
    dimse_support::{run, until},
    support::World,
};
use serde_json::{Value, json};
use std::{path::Path, process::Stdio, sync::atomic::Ordering};
use tokio::process::Command;

/// The server as a process, on a world's database and archive.
fn serve(world: &World, data: &Path, targets: &Path) -> tokio::process::Child {
    let arguments = ["serve", "--no-worker", "--listen", "127.0.0.1:0"];
    ictus(world, data, &arguments)
        .args(["--deliver", targets.to_str().unwrap()])
        .spawn()
        .unwrap()
}

pub(crate) fn ictus(world: &World, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(crate::support::ictus());
    command
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .env("DATABASE_URL", crate::dimse_support::url(world))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

pub(crate) async fn said(mut command: Command) -> (bool, String) {
    let output = command.output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_server_that_is_killed_within_a_delivery_makes_it_again_when_it_is_back() {
    let world = World::new().await;
    let (port, log, data) = (free_port(), Log::new(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(world.folder.path(), data.path().join("archive")).unwrap();
    let targets = data.path().join("targets.json");
    std::fs::write(&targets, json!({ "targets": [c_store(port)] }).to_string()).unwrap();
    let go = log.beside("go");
    let _scp = PythonScp::start(port, &log, &[&format!("hold={}", go.display())]).await;

    let mut server = serve(&world, data.path(), &targets);
    until("the target is registered", async || {
        world.count("SELECT count(*) FROM delivery_target").await == 1
    })
    .await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it is being sent", async || {
        world
            .count("SELECT count(*) FROM outbox WHERE lease_until IS NOT NULL")
            .await
            == 1
    })
    .await;
    server.kill().await.unwrap();
    assert_eq!(deliveries(&world).await[0].state, "pending");

    let _server = serve(&world, data.path(), &targets);
    std::fs::write(&go, "").unwrap();
    let delivery = until_delivery(&world, "s", "delivered").await;
    assert_eq!(delivery.attempts, 2);
    let mut arrived = log.instances();
    arrived.dedup();
    assert_eq!(arrived, instances(&delivery));
    assert_eq!(trail(&world, "deliver").await.len(), 1);
}

#[tokio::test]
async fn https_is_held_to_the_certificates_of_the_machine() {
    let world = World::new().await;
    let data = tempfile::tempdir().unwrap();
    let path = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let made = run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ],
    )
    .await;
    assert!(made.success, "{}", made.text);
    let (port, log) = (free_port(), path("log"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tls_stow.py");
    let arguments = [script, &port.to_string(), &certificate, &key, &log];
    let _target = script_that_is_ready(&arguments).await;
    std::os::unix::fs::symlink(world.folder.path(), data.path().join("archive")).unwrap();
    let targets = json!([{
        "name": "vna", "kind": "stow", "url": format!("https://localhost:{port}/dicom-web"), "results": ["seg", "sr"],
    }]);
    std::fs::write(path("targets.json"), json!({ "targets": targets }).to_string()).unwrap();

    // Nobody vouches for it.
    let stranger = Delivering::start(&world, targets).await;
    analyse(&world, &["s"], Some(12.5)).await;
    until("it was refused", async || {
        deliveries(&world).await[0].last_error.is_some()
    })
    .await;
    let refused = &deliveries(&world).await[0];
    assert!(
        refused.last_error.as_deref().unwrap().contains("certificate"),
        "{:?}",
        refused.last_error
    );
    assert!(!Path::new(&log).exists());
    drop(stranger);

    // The machine's store does.
    let arguments = [
        "serve",
        "--no-worker",
        "--listen",
        "127.0.0.1:0",
        "--deliver",
        &path("targets.json"),
    ];
    let _server = ictus(&world, data.path(), &arguments)
        .env("SSL_CERT_FILE", &certificate)
        .spawn()
        .unwrap();
    until_delivery(&world, "s", "delivered").await;
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.starts_with("/dicom-web/studies "), "{log}");
}

#[tokio::test]
async fn the_command_line_lists_deliveries_and_tries_dead_ones_again() {
    let world = World::new().await;
    let stub = Stub::new(400).await;
    let _delivering = Delivering::start(&world, json!([stub.target()])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let dead = until_delivery(&world, "s", "dead").await;
    let data = tempfile::tempdir().unwrap();
    let (success, list) = said(ictus(&world, data.path(), &["deliver", "list"])).await;
    assert!(success);
    assert!(
        list.contains(&dead.id.to_string()) && list.contains(" dead ") && list.contains("0/2 attempts 1")
    );
    let (_, list) = said(ictus(
        &world,
        data.path(),
        &["deliver", "list", "--json", "--state", "dead"],
    ))
    .await;
    let one: Value = serde_json::from_str(list.trim()).unwrap();
    assert_eq!(one["id"], json!(dead.id));
    stub.status.store(200, Ordering::SeqCst);
    let (success, text) = said(ictus(&world, data.path(), &["deliver", "retry", "--dead"])).await;
    assert!(success && text.contains("is tried now"), "{text}");
    until_delivery(&world, "s", "delivered").await;
    let (success, _) = said(ictus(
        &world,
        data.path(),
        &["deliver", "retry", &dead.id.to_string()],
    ))
    .await;
    assert!(!success);
}

#[tokio::test]
async fn a_file_that_cannot_be_meant_stops_the_server_with_a_sentence() {
    let world = World::new().await;
    let data = tempfile::tempdir().unwrap();
    let targets = data.path().join("targets.json");
    let entry =
        json!({ "name": "a", "kind": "stow", "url": "https://a.example", "token_env": "NOT_SET_ANYWHERE" });
    for (text, words) in [
        ("{".to_owned(), "line 1"),
        (
            json!({ "targets": [{ "name": "a" }] }).to_string(),
            "has no `kind`",
        ),
        (json!({ "targets": [entry] }).to_string(), "NOT_SET_ANYWHERE"),
    ] {
        std::fs::write(&targets, text).unwrap();
        let arguments = ["serve", "--no-worker", "--deliver", targets.to_str().unwrap()];
        let mut command = ictus(&world, data.path(), &arguments);
        let output = command.stderr(Stdio::piped()).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words), "{said}");
    }
}

/// What `ictus deliver list` says.
pub(crate) async fn list(world: &World) -> (bool, String) {
    let data = tempfile::tempdir().unwrap();
    said(ictus(world, data.path(), &["deliver", "list"])).await
}
