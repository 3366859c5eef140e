//! Deliveries under test: analysed studies, a deliverer in this process, and targets of other makers that come and go.

use crate::{
    dimse_support::{python, until},
    queue::{Fake, Running, report, until_state},
    support::{Slice, World, uid},
};
use axum::{Router, http::StatusCode, routing::post};
use dicom_core::{DataElement, VR, value::PixelFragmentSequence};
use dicom_dictionary_std::tags;
use ictus::{
    db::outbox::{Delivery, Filter},
    deliver::{Deliverer, Timing, target},
    dicom::instance::Instance,
    domain::{network::Control, uid::Uid},
    worker::{Analyser, Failure, Output, Request},
};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::oneshot,
};

/// The default timing, faster.
pub(crate) const FAST: Timing = Timing {
    lease: Duration::from_millis(1500),
    renew: Duration::from_millis(300),
    poll: Duration::from_millis(50),
    first_delay: Duration::from_millis(100),
    longest_delay: Duration::from_millis(400),
};
/// Segmentation Storage.
pub(crate) const SEG: &str = "1.2.840.10008.5.1.4.1.1.66.4";
/// Comprehensive 3D SR Storage.
pub(crate) const SR: &str = "1.2.840.10008.5.1.4.1.1.88.34";

/// A deliverer that works until it is dropped.
pub(crate) struct Delivering {
    _stop: oneshot::Sender<()>,
}

impl Delivering {
    /// To these targets, as a file would name them.
    pub(crate) async fn start(world: &World, targets: Value) -> Self {
        let targets = target::parse(&json!({ "targets": targets }).to_string()).unwrap();
        let deliverer = Deliverer::new(world.db.clone(), world.archive.clone(), targets, FAST).unwrap();
        deliverer.register().await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(deliverer.run(async move { drop(stopped.await) }));
        Self { _stop: stop }
    }
}

/// The entry of a C-STORE target on this machine.
pub(crate) fn c_store(port: u16) -> Value {
    json!({
        "name": "peer", "kind": "cstore", "host": "127.0.0.1", "port": port, "called": "PEER",
        "results": ["pm", "seg", "sr"],
    })
}

/// Sends a head of each study and analyses it: a finding of this volume, or none.
pub(crate) async fn analyse(world: &World, studies: &[&str], volume_ml: Option<f64>) {
    let worker = Running::start(world, Fake::new(move |_, _, _| Ok(report(volume_ml)))).await;
    for study in studies {
        world
            .send(Slice::head(study, &format!("series of {study}")))
            .await;
    }
    let state = if volume_ml.is_some() {
        "flagged"
    } else {
        "not_flagged"
    };
    for study in studies {
        until_state(world, study, state).await;
    }
    worker.stop().await;
}

/// The same for one study and an analyser that finds something.
pub(crate) async fn analyse_with(world: &World, study: &str, analyser: Arc<dyn Analyser>) {
    let worker = Running::start(world, analyser).await;
    world
        .send(Slice::head(study, &format!("series of {study}")))
        .await;
    until_state(world, study, "flagged").await;
    worker.stop().await;
}

/// An analyser whose one result is a Parametric Map of 8 by 8 pixels in RLE.
pub(crate) struct Compressed;

impl Analyser for Compressed {
    fn model_digest(&self) -> Vec<u8> {
        b"compressed".to_vec()
    }

    fn calibration_digest(&self) -> Vec<u8> {
        Vec::new()
    }

    fn analyse(&self, instances: &[Instance], request: &Request, _: &dyn Control) -> Result<Output, Failure> {
        const PM: &str = "1.2.840.10008.5.1.4.1.1.30";
        let uid = |part: &str| Uid::derive(&[&request.analysis_key, part.as_bytes()]).to_string();
        // Two segments of one run each: 64 high bytes, 64 low bytes (PS3.5 annex G).
        let mut frame = vec![0; 64];
        for (at, value) in [(0, 2u8), (4, 64), (8, 66)] {
            frame[at] = value;
        }
        frame.extend_from_slice(&[193, 0x04, 193, 0x00]);
        let mut object = instances[0].object.clone();
        object.put(DataElement::new(tags::SOP_CLASS_UID, VR::UI, PM));
        object.put(DataElement::new(tags::MODALITY, VR::CS, "OT"));
        object.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, uid("map")));
        object.put(DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, uid("series")));
        object.put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OB,
            PixelFragmentSequence::new(vec![], vec![frame]),
        ));
        object.update_meta(|meta| {
            meta.transfer_syntax = "1.2.840.10008.1.2.5".to_owned();
            meta.media_storage_sop_class_uid = PM.to_owned();
            meta.media_storage_sop_instance_uid = uid("map");
        });
        Ok(Output {
            report: report(Some(12.5)),
            objects: vec![object],
        })
    }
}

/// Secondary Capture Image Storage.
pub(crate) const SC: &str = "1.2.840.10008.5.1.4.1.1.7";

/// An analyser whose results are a SEG, an SR and a picture.
pub(crate) struct Pictured;

impl Analyser for Pictured {
    fn model_digest(&self) -> Vec<u8> {
        b"pictured".to_vec()
    }

    fn calibration_digest(&self) -> Vec<u8> {
        Vec::new()
    }

    fn analyse(&self, instances: &[Instance], request: &Request, _: &dyn Control) -> Result<Output, Failure> {
        let uid = |part: &str| Uid::derive(&[&request.analysis_key, part.as_bytes()]).to_string();
        let object = |class: &str| {
            let mut object = instances[0].object.clone();
            object.put(DataElement::new(tags::SOP_CLASS_UID, VR::UI, class));
            object.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, uid(class)));
            object.put(DataElement::new(
                tags::SERIES_INSTANCE_UID,
                VR::UI,
                uid(&format!("series of {class}")),
            ));
            if class != SC {
                // Without its matrix it is no image, and may have no pixels.
                object.remove_element(tags::PIXEL_DATA);
                object.remove_element(tags::ROWS);
            }
            object.update_meta(|meta| {
                meta.media_storage_sop_class_uid = class.to_owned();
                meta.media_storage_sop_instance_uid = uid(class);
            });
            object
        };
        Ok(Output {
            report: report(Some(12.5)),
            objects: [SEG, SR, SC].map(object).to_vec(),
        })
    }
}

/// One more slice of a study that [`analyse`] sent, analysed.
pub(crate) async fn revise(world: &World, study: &str, volume_ml: Option<f64>) {
    let series = format!("series of {study}");
    world.send(vec![Slice::new(study, &series, 30).bytes()]).await;
    world.receiver.complete(&uid(&series), "test").await.unwrap();
    let worker = Running::start(world, Fake::new(move |_, _, _| Ok(report(volume_ml)))).await;
    crate::queue::until_no_job(world).await;
    worker.stop().await;
}

/// All deliveries, the latest first.
pub(crate) async fn deliveries(world: &World) -> Vec<Delivery> {
    world.db.deliveries(&Filter::default(), 1000, 0).await.unwrap()
}

/// Waits until a study has a delivery in this state.
pub(crate) async fn until_delivery(world: &World, study: &str, state: &str) -> Delivery {
    let mut found = None;
    until(&format!("a delivery of {study} is {state}"), async || {
        let filter = Filter {
            state: Some(state.to_owned()),
            target: None,
            study_instance_uid: Some(uid(study).to_string()),
        };
        found = world.db.deliveries(&filter, 1, 0).await.unwrap().pop();
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// What the rows of the trail of one act say.
pub(crate) async fn trail(world: &World, act: &str) -> Vec<Value> {
    let rows = world.db.audit_rows(0, 10_000).await.unwrap();
    rows.into_iter()
        .filter(|row| row.act == act)
        .map(|row| serde_json::from_str(&row.detail).unwrap())
        .collect()
}

/// A port that nobody listens on, for now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Runs a Python script and waits until it says that it is ready; dropped, it is killed.
pub(crate) async fn script_that_is_ready(arguments: &[&str]) -> Child {
    let mut child = Command::new(python())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    child
}

/// pynetdicom as a storage SCP; dropped, it is killed.
pub(crate) struct PythonScp {
    child: Child,
    /// It ends when this is closed.
    _stdin: ChildStdin,
}

impl PythonScp {
    /// Starts it with modes of `store_scp.py`; it listens when this returns.
    pub(crate) async fn start(port: u16, log: &Log, modes: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/store_scp.py");
        let (port, log) = (port.to_string(), log.path());
        let arguments = [&[script, &port, log.to_str().unwrap()], modes].concat();
        let mut child = script_that_is_ready(&arguments).await;
        let stdin = child.stdin.take().unwrap();
        Self { child, _stdin: stdin }
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn has_ended(&mut self) {
        self.child.wait().await.unwrap();
    }
}

/// What a [`PythonScp`] answered, over all its lives.
pub(crate) struct Log(tempfile::TempDir);

impl Log {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// A file beside it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// SOP instance UID, transfer syntax and status of each answer.
    pub(crate) fn answers(&self) -> Vec<[String; 3]> {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        text.lines()
            .map(|line| {
                let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                words.try_into().unwrap()
            })
            .collect()
    }

    /// The SOP instance UIDs, sorted.
    pub(crate) fn instances(&self) -> Vec<String> {
        let mut uids: Vec<String> = self.answers().into_iter().map(|[uid, ..]| uid).collect();
        uids.sort();
        uids
    }
}

/// SOP instance UIDs of a delivery, sorted.
pub(crate) fn instances(delivery: &Delivery) -> Vec<String> {
    let mut uids: Vec<String> = delivery
        .instances
        .iter()
        .map(|instance| instance.sop_instance_uid.clone())
        .collect();
    uids.sort();
    uids
}

/// A STOW target that answers what it is told, and counts.
pub(crate) struct Stub {
    pub(crate) url: String,
    pub(crate) status: Arc<AtomicU16>,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Stub {
    /// One that answers this status until it is told another.
    pub(crate) async fn new(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let asked = Arc::new(AtomicUsize::new(0));
        let (says, counts) = (status.clone(), asked.clone());
        let router = Router::new().route(
            "/dicom-web/studies",
            post(move |_body: axum::body::Bytes| async move {
                counts.fetch_add(1, Ordering::SeqCst);
                let status = StatusCode::from_u16(says.load(Ordering::SeqCst)).unwrap();
                // A target may say anything, a patient's name for one: none of it may be kept.
                (status, "Phantom^One was here")
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/dicom-web", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, status, asked }
    }

    /// Its entry in the file.
    pub(crate) fn target(&self) -> Value {
        json!({ "name": "stub", "kind": "stow", "url": self.url, "results": ["pm", "seg", "sr"] })
    }
}
