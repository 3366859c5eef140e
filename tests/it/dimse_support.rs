//! A DICOM listener in this process, and peers that call it: our own requestor, raw bytes, dcmtk and pynetdicom.

use crate::support::World;
use ictus::{
    association::{
        Association, Timeouts, Wire,
        command::{Command, element, field},
        requestor::{Peer, Proposal, request},
        syntax,
    },
    dicom::part10,
    dimse::{Provider, Settings},
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{net::TcpListener, process::Command as Process, sync::watch, task::JoinHandle};

/// CT Image Storage.
pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

/// A listener that answers until it is dropped.
pub(crate) struct Scp {
    pub(crate) address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Scp {
    /// A listener with these settings changed.
    pub(crate) async fn new(world: &World, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            title: "ICTUS".to_owned(),
            allowed: Vec::new(),
            associations: 32,
            timeouts: Timeouts::default(),
            peers: Vec::new(),
            tls: None,
        };
        change(&mut settings);
        let provider = Provider::new(
            world.db.clone(),
            world.archive.clone(),
            world.receiver.clone(),
            settings,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(provider.run(listener, stopped));
        Self { address, stop, task }
    }

    /// It, as a peer.
    pub(crate) fn peer(&self) -> Peer {
        peer("ICTUS", self.address)
    }

    /// Tells it to stop and waits until all is said.
    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }

    /// Its port, for programs.
    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }
}

pub(crate) fn peer(title: &str, address: SocketAddr) -> Peer {
    Peer {
        title: title.to_owned(),
        host: address.ip().to_string(),
        port: address.port(),
        tls: None,
    }
}

/// A context to store a class in.
pub(crate) fn proposal(class: &str, syntaxes: &[&str]) -> Proposal {
    Proposal {
        abstract_syntax: class.to_owned(),
        transfer_syntaxes: syntaxes.iter().map(|uid| (*uid).to_owned()).collect(),
        we_provide: false,
    }
}

/// An association of `CT1` for CT in Explicit VR Little Endian.
pub(crate) async fn call(scp: &Scp) -> Association<Wire> {
    call_as(scp, "CT1", &[proposal(CT, &[syntax::EXPLICIT])]).await
}

/// An association of somebody for something.
pub(crate) async fn call_as(scp: &Scp, calling: &str, proposals: &[Proposal]) -> Association<Wire> {
    request(&scp.peer(), calling, proposals, Timeouts::default())
        .await
        .unwrap()
}

/// A C-STORE-RQ.
pub(crate) fn store_command(class: &str, instance: &str) -> Command {
    Command::new(field::C_STORE)
        .with_u16(element::MESSAGE_ID, 1)
        .with_u16(element::PRIORITY, 0)
        .with_uid(element::AFFECTED_SOP_CLASS_UID, class)
        .with_uid(element::AFFECTED_SOP_INSTANCE_UID, instance)
}

/// Stores a Part 10 file on the first context; what it was answered.
pub(crate) async fn store(association: &mut Association<Wire>, file: &[u8]) -> Command {
    let object = dicom_object::from_reader(file).unwrap();
    let command = store_command(
        object.meta().media_storage_sop_class_uid(),
        object.meta().media_storage_sop_instance_uid(),
    );
    exchange(association, &command, Some(part10::dataset(file).unwrap())).await
}

/// Sends a message on the first context and reads the answer.
pub(crate) async fn exchange(
    association: &mut Association<Wire>,
    command: &Command,
    dataset: Option<&[u8]>,
) -> Command {
    let id = association.contexts[0].id;
    association.link.send(id, command, dataset).await.unwrap();
    let answer = association.link.next().await.unwrap().unwrap();
    assert_eq!(answer.context, id);
    answer.command
}

/// Writes files into a folder, as a modality's disk would hold them.
pub(crate) fn folder_of(files: &[Vec<u8>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, file) in files.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number:04}.dcm")), file).unwrap();
    }
    folder
}

/// What a program said, and whether it succeeded.
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) text: String,
}

/// Runs a program of another maker to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Said {
    let output = Process::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), output)
        .await
        .unwrap_or_else(|_| panic!("{program} does not end"))
        .unwrap_or_else(|error| panic!("{program} is not installed: run `make setup` ({error})"));
    Said {
        success: output.status.success(),
        text: format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// The Python with pynetdicom.
pub(crate) fn python() -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    assert!(
        path.exists(),
        "the outside peers are not installed: run `make setup`"
    );
    path.to_str().unwrap().to_owned()
}

/// Waits until something holds; fails after a minute.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

/// The database of a world, for processes.
pub(crate) fn url(world: &World) -> String {
    let options = &world.options;
    format!(
        "postgres://{}@{}/{}",
        options.get_username(),
        options
            .get_socket()
            .map(|path| path.to_str().unwrap().replace('/', "%2F"))
            .unwrap_or_else(|| options.get_host().replace('/', "%2F")),
        options.get_database().unwrap()
    )
}
