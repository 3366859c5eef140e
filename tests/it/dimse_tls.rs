//! Associations over TLS: dcmtk on the other side, certificates that are trusted and such that are not.

use crate::{
    deliver_support::{Delivering, analyse, c_store, free_port, until_delivery},
    dimse_support::{CT, Scp, folder_of, proposal, run, store, until},
    support::{Slice, World},
};
use ictus::association::{
    AssociationError, Timeouts,
    command::status,
    requestor::request,
    syntax,
    tls::{Calling, Identity, Listening},
};
use serde_json::json;
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::{io::AsyncReadExt, net::TcpStream, process::Command};

/// An authority and two certificates of it, one for each side, and another authority.
struct Keys(tempfile::TempDir);

impl Keys {
    async fn new() -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        for authority in ["ca", "other"] {
            let (key, certificate) = (
                keys.text(&format!("{authority}.key")),
                keys.text(&format!("{authority}.pem")),
            );
            let subject = format!("/CN={authority}");
            let said = run(
                "openssl",
                &[
                    "req",
                    "-x509",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "30",
                    "-subj",
                    &subject,
                    "-keyout",
                    &key,
                    "-out",
                    &certificate,
                ],
            )
            .await;
            assert!(said.success, "{}", said.text);
        }
        let names = keys.text("names");
        std::fs::write(&names, "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        for side in ["server", "client"] {
            let [key, asked, certificate] =
                ["key", "csr", "pem"].map(|end| keys.text(&format!("{side}.{end}")));
            let said = run(
                "openssl",
                &[
                    "req",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-subj",
                    "/CN=localhost",
                    "-keyout",
                    &key,
                    "-out",
                    &asked,
                ],
            )
            .await;
            assert!(said.success, "{}", said.text);
            let (ca, ca_key) = (keys.text("ca.pem"), keys.text("ca.key"));
            let said = run(
                "openssl",
                &[
                    "x509",
                    "-req",
                    "-in",
                    &asked,
                    "-CA",
                    &ca,
                    "-CAkey",
                    &ca_key,
                    "-CAcreateserial",
                    "-days",
                    "30",
                    "-extfile",
                    &names,
                    "-out",
                    &certificate,
                ],
            )
            .await;
            assert!(said.success, "{}", said.text);
        }
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn identity(&self, side: &str) -> Identity {
        Identity {
            certificate: self.path(&format!("{side}.pem")),
            key: self.path(&format!("{side}.key")),
        }
    }

    /// A listener that wants to see certificates of the authority.
    async fn listen(&self, world: &World) -> Scp {
        let tls = Listening::new(&self.identity("server"), Some(&self.path("ca.pem"))).unwrap();
        Scp::new(world, |settings| {
            settings.tls = Some(tls);
            settings.timeouts.establish = Duration::from_secs(3);
            settings.associations = 4;
        })
        .await
    }
}

#[tokio::test]
async fn dcmtk_stores_over_tls_and_nobody_does_without_a_certificate() {
    let (world, keys) = (World::new().await, Keys::new().await);
    let scp = keys.listen(&world).await;
    let folder = folder_of(&[Slice::new("s", "a", 1).bytes(), Slice::new("s", "a", 2).bytes()]);
    let (port, path) = (scp.port(), folder.path().to_str().unwrap().to_owned());
    let (key, certificate, ca) = (
        keys.text("client.key"),
        keys.text("client.pem"),
        keys.text("ca.pem"),
    );
    let to = ["-aec", "ICTUS", "127.0.0.1", &port];
    let with = ["+tls", &key, &certificate, "+cf", &ca];
    let sent = run("storescu", &[&with[..], &["-v", "+sd"], &to, &[&path]].concat()).await;
    assert!(sent.success, "{}", sent.text);
    assert_eq!(world.count("SELECT count(*) FROM instance").await, 2);
    for refused in [
        [&["+tla", "+cf", &ca][..], &to].concat(),
        to.to_vec(),
        [
            &[
                "+tls",
                &keys.text("other.key"),
                &keys.text("other.pem"),
                "+cf",
                &ca,
            ][..],
            &to,
        ]
        .concat(),
    ] {
        let said = run("echoscu", &refused).await;
        assert!(!said.success, "{refused:?}: {}", said.text);
    }
    let said = run("echoscu", &[&with[..], &to].concat()).await;
    assert!(said.success, "{}", said.text);
}

#[tokio::test]
async fn we_call_over_tls_whom_we_can_trust_and_nobody_else() {
    let (world, keys) = (World::new().await, Keys::new().await);
    let scp = keys.listen(&world).await;
    let proposals = [proposal(CT, &[syntax::EXPLICIT])];
    let call = async |authorities: &str, identity: Option<Identity>| {
        let mut peer = scp.peer();
        peer.tls = Some(Calling {
            authorities: keys.path(authorities),
            identity,
        });
        request(&peer, "CT1", &proposals, Timeouts::default()).await
    };
    let mut association = call("ca.pem", Some(keys.identity("client"))).await.unwrap();
    let slice = Slice::new("s", "a", 1).bytes();
    assert_eq!(store(&mut association, &slice).await.status(), status::SUCCESS);
    association.link.release().await.unwrap();
    let strange = call("other.pem", Some(keys.identity("client"))).await;
    assert!(matches!(strange, Err(AssociationError::Tls(_))));
    assert!(call("ca.pem", None).await.is_err());
    let open = request(&scp.peer(), "CT1", &proposals, Timeouts::default()).await;
    assert!(open.is_err());
}

#[tokio::test]
async fn silent_handshakes_hold_their_places_for_a_bounded_time_only() {
    let (world, keys) = (World::new().await, Keys::new().await);
    let scp = keys.listen(&world).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(scp.address).await.unwrap());
    }
    // They are all places of their host; each is closed when its time is over.
    for stream in &mut silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    }
    let mut peer = scp.peer();
    peer.tls = Some(Calling {
        authorities: keys.path("ca.pem"),
        identity: Some(keys.identity("client")),
    });
    let proposals = [proposal(CT, &[syntax::EXPLICIT])];
    until("a place is free", async || {
        request(&peer, "CT1", &proposals, Timeouts::default())
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn results_go_to_a_target_over_tls() {
    let (world, keys) = (World::new().await, Keys::new().await);
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate, ca) = (
        keys.text("server.key"),
        keys.text("server.pem"),
        keys.text("ca.pem"),
    );
    let port = free_port();
    let number = port.to_string();
    let mut storing = Command::new("storescp")
        .args(["+tls", &key, &certificate, "+cf", &ca, "+xa", "-pm", "-od"])
        .args([folder.path().to_str().unwrap(), &number])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut target = c_store(port);
    target["tls_ca"] = json!(ca);
    target["tls_certificate"] = json!(keys.text("client.pem"));
    target["tls_key"] = json!(keys.text("client.key"));
    let _delivering = Delivering::start(&world, json!([target])).await;
    analyse(&world, &["s"], Some(12.5)).await;
    let delivery = until_delivery(&world, "s", "delivered").await;
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, delivery.instances.len());
    storing.kill().await.unwrap();
}
