//! The archive in a bucket of an S3 server: acknowledged is there, what is there stays, and what fails is not acknowledged.

use crate::{
    dimse_support::python,
    support::{NEVER, Slice, World, uid},
    web::Server,
};
use axum::http::StatusCode;
use futures::TryStreamExt;
use ictus::{
    archive::{Archive, ArchiveError},
    receive::Receiver,
};
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bucket.py");

/// A server that ends with the test.
struct S3 {
    port: u16,
    _process: Child,
}

impl S3 {
    async fn start() -> Self {
        let mut process = Command::new(python())
            .arg(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("the S3 server says its port");
            if let Ok(port) = line.parse() {
                break port;
            }
        };
        Self {
            port,
            _process: process,
        }
    }
}

/// The archive in the bucket of a server on this port.
fn archive(port: u16, folder: &std::path::Path) -> Archive {
    let variables = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("HOME", "/nowhere".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    Archive::open_bucket("s3://ictus/head/ct", folder, variables.into_iter()).unwrap()
}

async fn keys(archive: &Archive) -> Vec<String> {
    archive
        .kept()
        .map_ok(|kept| kept.key)
        .try_collect()
        .await
        .unwrap()
}

async fn world(port: u16) -> World {
    let mut world = World::new().await;
    world.archive = archive(port, world.folder.path());
    world.receiver = Receiver::new(world.db.clone(), world.archive.clone(), NEVER);
    world
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_bucket_and_comes_back() {
    let s3 = S3::start().await;
    let server = Server::of(world(s3.port).await).await;
    let slices = [Slice::new("s", "a", 1), Slice::new("s", "a", 2)];
    let sent = slices.each_ref().map(Slice::bytes);
    assert_eq!(server.stow(&sent).await.status, StatusCode::OK);
    assert_eq!(
        server.stow(&sent).await.status,
        StatusCode::OK,
        "again is no fault"
    );
    let archive = &server.world.archive;
    assert_eq!(keys(archive).await.len(), 2);
    assert!(
        server.world.archive_files().await.is_empty(),
        "nothing is kept on the disk"
    );
    let answer = server.get(&format!("/dicom-web/studies/{}", uid("s")), &[]).await;
    let parts: Vec<Vec<u8>> = answer.parts().into_iter().map(|part| part.1).collect();
    assert_eq!(parts, sent);
    let unneeded = archive.stage_bytes(b"never acknowledged".to_vec()).await.unwrap();
    archive.keep(&unneeded).await.unwrap();
    assert_eq!(
        server.world.receiver.sweep_unreferenced().await.unwrap(),
        0,
        "it is too young"
    );
    let key = keys(archive).await.into_iter().next().unwrap();
    archive.evict(&key).await.unwrap();
    assert!(matches!(archive.read(&key).await, Err(ArchiveError::Evicted(_))));
}

#[tokio::test]
async fn a_file_of_many_parts_is_whole_and_is_put_once() {
    let s3 = S3::start().await;
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(s3.port, folder.path());
    let large: Vec<u8> = (0..17u32 << 20)
        .map(|at| at.to_le_bytes()[usize::try_from(at % 3).unwrap()])
        .collect();
    let staged = archive.stage_bytes(large.clone()).await.unwrap();
    archive.keep(&staged).await.unwrap();
    archive.keep(&staged).await.unwrap();
    assert_eq!(archive.size(staged.key()).await.unwrap(), large.len() as u64);
    assert_eq!(archive.read(staged.key()).await.unwrap(), large);
    assert!(matches!(
        archive.read(&staged.key().replace(char::is_numeric, "0")).await,
        Err(ArchiveError::Missing(_))
    ));
}

#[tokio::test]
async fn nothing_is_acknowledged_when_the_store_is_away() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Server::of(world(closed).await).await;
    let answer = server.stow(&[Slice::new("s", "a", 1).bytes()]).await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.text()
    );
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    assert_eq!(server.world.count("SELECT count(*) FROM instance").await, 0);
}
