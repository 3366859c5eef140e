//! The rules of PS3.18, probed from outside: a Python client that knows nothing of ictus asks a server on a socket.

use crate::web::Server;
use std::process::Command;

/// A viewer that is let in, for the probes of the CORS protocol.
const ORIGIN: &str = "http://viewer.example";

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_rule_of_dicomweb_that_the_probes_know() {
    let python = crate::dimse_support::python();
    let server = Server::with_origins(&[ORIGIN]).await;
    let base = format!("http://{}/dicom-web", server.listen().await);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/dicomweb.py");
    let probing = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(script)
            .args([base.as_str(), "--origin", ORIGIN])
            .output()
    });
    let said = probing.await.unwrap().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
    );
    assert!(said.status.success(), "{out}{err}");
}
