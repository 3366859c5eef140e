//! From queued to answered: workers that succeed, fail, stop, die and meet each other.

use crate::support::{SENDER, Slice, World, uid};
use dicom_core::{DataElement, VR, value::DataSetSequence};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use ictus::{
    audit,
    db::{
        qido::Filter,
        queue::Timing,
        worklist::{self, ResultObject, Study, StudyDetail},
    },
    dicom::instance::Instance,
    domain::{
        aspects::{Aspects, Extent, Region, SideReading},
        code::HEMORRHAGE,
        failure::FailureClass,
        finding::{
            Answer, AnswerValue, DISCLAIMER, Finding, ModelRun, Report, SCHEMA, SeriesAspects, SeriesMidline,
            Side,
        },
        midsagittal::MidlineShift,
        network::Control,
        uid::Uid,
    },
    worker::{Analyser, Failure, Output, Request, Worker},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// The default timing, faster.
const FAST: Timing = Timing {
    heartbeat: Duration::from_millis(200),
    sweep: Duration::from_millis(300),
    threshold: Duration::from_millis(1500),
    poll: Duration::from_millis(100),
};

type Answering = dyn Fn(usize, &[Instance], &dyn Control) -> Result<Report, Failure> + Send + Sync;

/// What a stand-in answers.
pub(crate) trait Answers:
    Fn(usize, &[Instance], &dyn Control) -> Result<Report, Failure> + Send + Sync + 'static
{
}

impl<F> Answers for F where
    F: Fn(usize, &[Instance], &dyn Control) -> Result<Report, Failure> + Send + Sync + 'static
{
}

/// A stand-in for the stages: answers by its number of calls, and makes a SEG and an SR.
pub(crate) struct Fake {
    model: &'static [u8],
    /// Stands in every result; another one makes other results of the same input.
    version: &'static str,
    calls: AtomicUsize,
    previous: Mutex<Vec<Option<String>>>,
    answer: Box<Answering>,
}

impl Fake {
    pub(crate) fn new(answer: impl Answers) -> Arc<Self> {
        Arc::new(Self::of(b"model", "1", answer))
    }

    /// The same model by name, whose results differ.
    pub(crate) fn drifted(answer: impl Answers) -> Arc<Self> {
        Arc::new(Self::of(b"model", "2", answer))
    }

    pub(crate) fn with_model(model: &'static [u8], answer: impl Answers) -> Arc<Self> {
        Arc::new(Self::of(model, "1", answer))
    }

    fn of(model: &'static [u8], version: &'static str, answer: impl Answers) -> Self {
        Self {
            model,
            version,
            calls: AtomicUsize::new(0),
            previous: Mutex::default(),
            answer: Box::new(answer),
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Analyser for Fake {
    fn model_digest(&self) -> Vec<u8> {
        self.model.to_vec()
    }

    fn calibration_digest(&self) -> Vec<u8> {
        Vec::new()
    }

    fn analyse(
        &self,
        instances: &[Instance],
        request: &Request,
        control: &dyn Control,
    ) -> Result<Output, Failure> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let report = (self.answer)(call, instances, control)?;
        let previous = request.previous_report.as_ref();
        self.previous
            .lock()
            .unwrap()
            .push(previous.map(|report| report.sop_instance_uid.to_string()));
        let objects = [
            ("seg", "1.2.840.10008.5.1.4.1.1.66.4"),
            ("sr", "1.2.840.10008.5.1.4.1.1.88.34"),
        ];
        Ok(Output {
            report,
            objects: objects
                .map(|(part, class)| result(&instances[0], request, part, class, self.version))
                .to_vec(),
        })
    }
}

/// Something to store: the header of a source under new UIDs.
fn result(
    source: &Instance,
    request: &Request,
    part: &str,
    class: &str,
    version: &str,
) -> DefaultDicomObject {
    let derived = |part: &str| Uid::derive(&[&request.analysis_key, part.as_bytes()]);
    let mut object = source.object.clone();
    for (tag, uid) in [
        (tags::SOP_CLASS_UID, class),
        (tags::SOP_INSTANCE_UID, derived(part).as_str()),
        (
            tags::SERIES_INSTANCE_UID,
            derived(&format!("series of {part}")).as_str(),
        ),
    ] {
        object.put(DataElement::new(tag, VR::UI, uid));
    }
    object.put(DataElement::new(tags::SOFTWARE_VERSIONS, VR::LO, version));
    let description = format!("ictus haemorrhage {part}");
    object.put(DataElement::new(tags::SERIES_DESCRIPTION, VR::LO, description));
    let lies_on = source.attributes.series_instance_uid.as_ref().unwrap();
    let lies_on = DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, lies_on.as_str());
    object.put(DataElement::new(
        tags::REFERENCED_SERIES_SEQUENCE,
        VR::SQ,
        DataSetSequence::from(vec![InMemDicomObject::from_element_iter([lies_on])]),
    ));
    // Without its matrix it is no image, and may have no pixels.
    object.remove_element(tags::PIXEL_DATA);
    object.remove_element(tags::ROWS);
    object.meta_mut().media_storage_sop_class_uid = class.to_owned();
    object.meta_mut().media_storage_sop_instance_uid = derived(part).to_string();
    object.meta_mut().update_information_group_length();
    object
}

/// A report with one finding of this volume by a calibrated model, or with none by one that is not.
pub(crate) fn report(volume_ml: Option<f64>) -> Report {
    let value = if volume_ml.is_some() {
        AnswerValue::Present
    } else {
        AnswerValue::Absent
    };
    answered(value, volume_ml)
}

fn answered(answer: AnswerValue, volume_ml: Option<f64>) -> Report {
    let finding = |volume_ml| Finding {
        id: "haemorrhage-1".to_owned(),
        kind: "haemorrhage".to_owned(),
        code: HEMORRHAGE,
        model: "fake".to_owned(),
        series: uid("a"),
        segment: 1,
        volume_ml,
        abc2_ml: None,
        volume_interval_ml: Some([0.5 * volume_ml, 2.0 * volume_ml]),
        center_mm: [0.0; 3],
        bounding_box_mm: [[0.0; 3]; 2],
        side: Side::Left,
        site: None,
        score: 0.9,
        probability: Some(0.91),
        uncertainty: 0.1,
        key_slice: 0,
    };
    Report {
        schema: SCHEMA,
        disclaimer: DISCLAIMER.to_owned(),
        study_instance_uid: None,
        series: Vec::new(),
        models: vec![ModelRun {
            id: "fake".to_owned(),
            version: "1".to_owned(),
            weights_sha256: "00".to_owned(),
            numeric_mode: "cpu-test-f32".to_owned(),
            duration_ms: 1,
            calibration: volume_ml.map(|_| "100 cases of a clinic".to_owned()),
        }],
        answers: vec![Answer {
            question: "haemorrhage".to_owned(),
            model: Some("fake".to_owned()),
            answer,
            score: Some(0.9),
            probability: volume_ml.map(|_| 0.83),
            uncertainty: Some(0.2),
            lane: None,
        }],
        findings: volume_ml.map(finding).into_iter().collect(),
        midline_shift: volume_ml.map(|_| SeriesMidline {
            series: uid("a"),
            shift: MidlineShift {
                left_mm: -4.2,
                interval_mm: [-6.4, -2.6],
            },
        }),
        aspects: volume_ml.map(|_| SeriesAspects {
            series: uid("a"),
            model: "fake".to_owned(),
            aspects: Aspects {
                left: Some(aspects()),
                right: None,
            },
        }),
        refusals: Vec::new(),
        warnings: Vec::new(),
        timings: BTreeMap::from([("infer".to_owned(), 7)]),
    }
}

/// ASPECTS of 8, or 7 to 9: the insula and M5 are affected.
fn aspects() -> SideReading {
    let mut extents = [Extent {
        volume_ml: 10.0,
        affected_ml: [0.0; 3],
    }; 10];
    extents[Region::Insula as usize].affected_ml = [5.0; 3];
    extents[Region::M5 as usize].affected_ml = [0.0, 5.0, 5.0];
    extents[Region::M6 as usize].affected_ml = [0.0, 0.0, 5.0];
    SideReading::of(&extents).unwrap()
}

/// A worker that runs until it is told to stop or dropped.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(world: &World, analyser: Arc<dyn Analyser>) -> Self {
        let events = world.db.listen().await.unwrap();
        let worker = Worker::new(world.db.clone(), world.archive.clone(), events, analyser);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            worker
                .run(FAST, async move { drop(stopped.await) })
                .await
                .unwrap();
        });
        Self {
            stop: Some(stop),
            task,
        }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

/// Looks until something is so; a test that waits in vain says for what.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain: {what}");
}

pub(crate) async fn until_state(world: &World, study: &str, state: &str) -> Study {
    until(&format!("{study} is {state}"), async || {
        world
            .db
            .study(&uid(study))
            .await
            .unwrap()
            .filter(|study| study.state == state)
    })
    .await
}

async fn until_revision(world: &World, study: &str, revision: i32) -> StudyDetail {
    until(&format!("{study} has revision {revision}"), async || {
        let detail = world.db.study_detail(&uid(study)).await.unwrap();
        detail.filter(|detail| {
            detail
                .analysis
                .as_ref()
                .is_some_and(|analysis| analysis.revision == revision)
        })
    })
    .await
}

pub(crate) async fn until_no_job(world: &World) {
    until("the queue is empty", async || {
        (world
            .count("SELECT count(*) FROM graphile_worker._private_jobs")
            .await
            == 0)
            .then_some(())
    })
    .await;
}

async fn alerts(world: &World) -> Vec<String> {
    sqlx::query_scalar("SELECT reason FROM alert ORDER BY id")
        .fetch_all(&mut world.superuser().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_whole_head_is_analysed_and_its_results_are_stored_once() {
    let world = World::new().await;
    let fake = Fake::new(|_, instances, control| {
        assert_eq!(instances.len(), 30);
        control.progress(3, 9);
        Ok(report(Some(12.5)))
    });
    let worker = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    let study = until_state(&world, "s", "flagged").await;
    assert_eq!(
        (study.findings, study.volume_ml, study.score),
        (Some(1), Some(12.5), Some(0.9))
    );
    assert_eq!(
        (study.series_count, study.instance_count, study.progress),
        (1, 30, None)
    );

    let detail = world.db.study_detail(&uid("s")).await.unwrap().unwrap();
    let analysis = detail.analysis.unwrap();
    assert_eq!((analysis.revision, analysis.superseded), (1, false));
    assert!(analysis.waited_ms >= 0 && analysis.duration_ms.is_some());
    assert_eq!(analysis.report["findings"][0]["id"], "haemorrhage-1");
    let seg = analysis.objects.iter().find(|o| o.role == "seg").unwrap();
    let filter = Filter::exactly(
        &uid("s"),
        Some(&Uid::parse(&seg.series_instance_uid).unwrap()),
        None,
    );
    let stored = world.db.find_instances(&filter).await.unwrap();
    assert_eq!(stored[0].sop_instance_uid, seg.sop_instance_uid);
    let file = world.archive.read(&stored[0].archive_key).await.unwrap();
    assert_eq!(
        Instance::read_header(&file)
            .unwrap()
            .attributes
            .study_instance_uid,
        Some(uid("s"))
    );
    assert_eq!(
        detail
            .series
            .iter()
            .map(|series| series.origin.as_str())
            .collect::<Vec<_>>(),
        ["received", "result", "result"]
    );

    // Told again, nothing is to be done.
    until_no_job(&world).await;
    assert!(world.receiver.complete(&uid("a"), SENDER).await.unwrap());
    until_no_job(&world).await;
    worker.stop().await;
    assert_eq!(fake.calls(), 1);
    assert_eq!(alerts(&world).await, ["first"]);
    let acts: Vec<_> = world
        .db
        .audit_of_study(&uid("s"))
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.act)
        .collect();
    assert_eq!(acts, ["store", "analyse", "complete"]);
    assert_eq!(audit::verify(&world.db).await.unwrap().fault, None);
}

fn report_of(study: &StudyDetail) -> ResultObject {
    let mut objects = study.analysis.as_ref().unwrap().objects.iter();
    objects.find(|object| object.role == "sr").unwrap().clone()
}

#[tokio::test]
async fn late_slices_revise_the_case_which_alerts_again_only_when_it_is_worse() {
    let world = World::new().await;
    let volumes = [Some(10.0), Some(11.0), Some(14.0), None, Some(2.0)];
    let fake = Fake::new(move |call, _, _| Ok(report(volumes[call - 1])));
    let worker = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    let mut reports = vec![report_of(&until_revision(&world, "s", 1).await)];
    for revision in 2..=5 {
        world
            .send(vec![
                Slice::new("s", "late", u32::try_from(revision).unwrap()).bytes(),
            ])
            .await;
        world.receiver.complete(&uid("late"), SENDER).await.unwrap();
        let detail = until_revision(&world, "s", revision).await;
        reports.push(report_of(&detail));
        assert_eq!(detail.revisions.len(), usize::try_from(revision).unwrap());
        assert!(
            !detail.revisions[0].superseded && detail.revisions[1..].iter().all(|older| older.superseded)
        );
    }
    worker.stop().await;
    assert_eq!(alerts(&world).await, ["first", "grown", "reappeared"]);
    // Each report can name the one that it replaces.
    let previous = fake.previous.lock().unwrap().clone();
    let replaced = reports.into_iter().map(|report| Some(report.sop_instance_uid));
    assert_eq!(previous[0], None);
    assert_eq!(previous[1..], replaced.take(4).collect::<Vec<_>>());
    assert_eq!(
        world
            .count("SELECT count(*) FROM analysis WHERE superseded_at IS NULL")
            .await,
        1
    );
}

#[tokio::test]
async fn a_study_that_cannot_be_analysed_fails_at_once_and_says_why() {
    let world = World::new().await;
    let fake = Fake::new(|_, _, _| {
        Err(Failure::input(
            "missing_slice",
            "a step of 10 mm between slices of 5 mm",
        ))
    });
    let worker = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    let study = until_state(&world, "s", "failed").await;
    assert_eq!(
        study.reason.as_deref(),
        Some("missing_slice: a step of 10 mm between slices of 5 mm")
    );
    until_no_job(&world).await;
    worker.stop().await;
    assert_eq!(fake.calls(), 1);
    assert_eq!(
        world.count("SELECT count(*) FROM audit WHERE act = 'fail'").await,
        1
    );
}

#[tokio::test]
async fn a_quarantined_study_is_not_analysed() {
    let world = World::new().await;
    let fake = Fake::new(|_, _, _| Ok(report(None)));
    let worker = Running::start(&world, fake.clone()).await;
    let other = Slice {
        patient_id: "P2".to_owned(),
        ..Slice::new("s", "a", 2)
    };
    world
        .send(vec![Slice::new("s", "a", 1).bytes(), other.bytes()])
        .await;
    world.receiver.complete(&uid("a"), SENDER).await.unwrap();
    let study = until_state(&world, "s", "failed").await;
    assert!(study.reason.unwrap().starts_with("identity_conflict"));
    worker.stop().await;
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_later() {
    let world = World::new().await;
    let fake = Fake::new(|call, _, _| match call {
        1 => Err(Failure {
            class: FailureClass::Transient,
            code: "device".to_owned(),
            text: "the device is busy".to_owned(),
        }),
        _ => Ok(report(None)),
    });
    let worker = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    until_state(&world, "s", "not_flagged").await;
    worker.stop().await;
    assert_eq!(fake.calls(), 2);
    assert_eq!(world.count("SELECT attempts::bigint FROM analysis").await, 2);
}

#[tokio::test]
async fn a_fault_of_ours_is_tried_once_more_and_then_final() {
    let world = World::new().await;
    let fake = Fake::new(|call, _, _| {
        assert!(call == 1, "panics the second time, is an error the first time");
        Err(Failure {
            class: FailureClass::Internal,
            code: "internal".to_owned(),
            text: "a bug".to_owned(),
        })
    });
    let worker = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    let study = until_state(&world, "s", "failed").await;
    assert!(
        study
            .reason
            .unwrap()
            .starts_with("internal: the analysis panicked")
    );
    until_no_job(&world).await;
    worker.stop().await;
    assert_eq!(fake.calls(), 2);
}

#[tokio::test]
async fn an_analysis_stops_between_two_steps_when_someone_asks() {
    let world = World::new().await;
    let fake = Fake::new(|_, _, control| {
        for step in 0.. {
            if control.cancelled() {
                break;
            }
            control.progress(step, 1000);
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure {
            class: FailureClass::Internal,
            code: "stopped".to_owned(),
            text: "stopped".to_owned(),
        })
    });
    let worker = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    until("progress is seen", async || {
        let study = world.db.study(&uid("s")).await.unwrap()?;
        study
            .progress
            .filter(|progress| progress.done > 0 && progress.total == 1000)
    })
    .await;
    assert_eq!(
        world.db.study(&uid("s")).await.unwrap().unwrap().state,
        "analysing"
    );
    assert!(world.receiver.cancel(&uid("s"), "dr-a").await.unwrap());
    let study = until_state(&world, "s", "failed").await;
    assert_eq!(
        study.reason.as_deref(),
        Some("cancelled: someone stopped the analysis")
    );
    assert!(!world.receiver.cancel(&uid("s"), "dr-a").await.unwrap());
    until_no_job(&world).await;
    worker.stop().await;
}

/// Starts a worker on a runtime of its own, waits until it runs the job, and lets it die without a word.
async fn die(world: &World, fake: &Arc<Fake>, calls: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (options, folder) = (world.options.clone(), world.folder.path().to_owned());
    let analyser: Arc<dyn Analyser> = fake.clone();
    runtime.spawn(async move {
        let db = ictus::db::Db::connect(options).await.unwrap();
        let events = db.listen().await.unwrap();
        let worker = Worker::new(
            db,
            ictus::archive::Archive::open(&folder).unwrap(),
            events,
            analyser,
        );
        worker.run(FAST, std::future::pending()).await.unwrap();
    });
    until("the worker runs the job", async || {
        (fake.calls() == calls).then_some(())
    })
    .await;
    runtime.shutdown_background();
}

fn hanging() -> Arc<Fake> {
    Fake::new(|_, _, control| {
        while !control.cancelled() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Failure::input("stopped", "stopped"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_a_dead_worker_is_taken_over() {
    let world = World::new().await;
    world.send(Slice::head("s", "a")).await;
    die(&world, &hanging(), 1).await;
    assert_eq!(
        world.db.study(&uid("s")).await.unwrap().unwrap().state,
        "analysing"
    );
    let fake = Fake::new(|_, _, _| Ok(report(None)));
    let worker = Running::start(&world, fake.clone()).await;
    until_state(&world, "s", "not_flagged").await;
    worker.stop().await;
    assert_eq!(fake.calls(), 1);
    assert_eq!(world.count("SELECT count(*) FROM analysis").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_kills_its_workers_ends_after_its_attempts() {
    let world = World::new().await;
    world.send(Slice::head("s", "a")).await;
    sqlx::raw_sql("UPDATE graphile_worker._private_jobs SET max_attempts = 2")
        .execute(&mut world.superuser().await)
        .await
        .unwrap();
    let killer = hanging();
    die(&world, &killer, 1).await;
    die(&world, &killer, 2).await;
    let fake = Fake::new(|_, _, _| Ok(report(None)));
    let worker = Running::start(&world, fake.clone()).await;
    let study = until_state(&world, "s", "failed").await;
    assert!(
        study
            .reason
            .unwrap()
            .starts_with("worker_died: the worker ended 2 times")
    );
    worker.stop().await;
    assert_eq!(fake.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_taken_for_dead_and_ends_late_changes_nothing() {
    let world = World::new().await;
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = gate.clone();
    let fake = Fake::new(move |call, _, _| {
        if call == 1 {
            let (open, opened) = &*held;
            drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        }
        Ok(report(Some(f64::from(u32::try_from(call).unwrap()))))
    });
    let slow = Running::start(&world, fake.clone()).await;
    world.send(Slice::head("s", "a")).await;
    until("the first run is under way", async || {
        (fake.calls() == 1).then_some(())
    })
    .await;
    sqlx::raw_sql(
        "UPDATE graphile_worker._private_jobs SET locked_at = NULL, locked_by = NULL; \
         UPDATE graphile_worker._private_job_queues SET locked_at = NULL, locked_by = NULL;",
    )
    .execute(&mut world.superuser().await)
    .await
    .unwrap();
    let fast = Running::start(&world, fake.clone()).await;
    let study = until_state(&world, "s", "flagged").await;
    assert_eq!(study.volume_ml, Some(2.0));
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    slow.stop().await;
    fast.stop().await;
    assert_eq!(fake.calls(), 2);
    assert_eq!(
        world.db.study(&uid("s")).await.unwrap().unwrap().volume_ml,
        Some(2.0)
    );
    assert_eq!(world.count("SELECT count(*) FROM analysis").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM finding").await, 1);
    assert_eq!(
        world
            .count("SELECT count(*) FROM audit WHERE act = 'analyse'")
            .await,
        1
    );
    assert_eq!(alerts(&world).await, ["first"]);
}

#[tokio::test]
async fn the_worklist_puts_flagged_before_uncertain_and_all_others_in_the_order_of_their_arrival() {
    let world = World::new().await;
    let fake = Fake::new(|_, instances, _| {
        let study = instances[0].attributes.study_instance_uid.clone().unwrap();
        match () {
            () if study == uid("clear-1") || study == uid("clear-2") => Ok(report(None)),
            () if study == uid("bleed-1") || study == uid("bleed-2") => Ok(report(Some(3.0))),
            () if study == uid("doubt") => Ok(answered(AnswerValue::Uncertain, None)),
            () => Err(Failure::input("hu_unknown", "no rescale slope")),
        }
    });
    let worker = Running::start(&world, fake).await;
    for study in ["clear-1", "bleed-1", "doubt", "broken", "clear-2", "bleed-2"] {
        world.send(Slice::head(study, &format!("{study} series"))).await;
    }
    world.send(vec![Slice::new("waiting", "w", 1).bytes()]).await;
    for (study, state) in [
        ("clear-2", "not_flagged"),
        ("bleed-2", "flagged"),
        ("broken", "failed"),
        ("doubt", "uncertain"),
    ] {
        until_state(&world, study, state).await;
    }
    until_state(&world, "clear-1", "not_flagged").await;
    until_state(&world, "bleed-1", "flagged").await;
    worker.stop().await;
    let names = [
        "bleed-1", "bleed-2", "doubt", "clear-1", "broken", "clear-2", "waiting",
    ];
    let listed = |studies: Vec<Study>| {
        studies
            .into_iter()
            .map(|study| study.study_instance_uid)
            .collect::<Vec<_>>()
    };
    let all = world
        .db
        .worklist(&worklist::Filter::default(), 50, 0)
        .await
        .unwrap();
    assert_eq!(all.total, 7);
    assert_eq!(listed(all.studies), names.map(|name| uid(name).to_string()));
    let page = world
        .db
        .worklist(&worklist::Filter::default(), 2, 1)
        .await
        .unwrap();
    assert_eq!(
        listed(page.studies),
        ["bleed-2", "doubt"].map(|name| uid(name).to_string())
    );
}

#[tokio::test]
async fn a_newer_run_hides_no_flag_while_it_runs_or_when_it_fails() {
    let world = World::new().await;
    let fake = Fake::new(|call, _, control| match call {
        1 => Ok(report(Some(5.0))),
        _ => {
            while !control.cancelled() {
                control.progress(1, 2);
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Failure::input("stopped", "stopped"))
        }
    });
    let worker = Running::start(&world, fake).await;
    world.send(Slice::head("s", "a")).await;
    until_state(&world, "s", "flagged").await;
    world.send(vec![Slice::new("s", "late", 1).bytes()]).await;
    world.receiver.complete(&uid("late"), SENDER).await.unwrap();
    until("the second run is seen", async || {
        world.db.study(&uid("s")).await.unwrap()?.progress
    })
    .await;
    assert_eq!(world.db.study(&uid("s")).await.unwrap().unwrap().state, "flagged");
    world.receiver.cancel(&uid("s"), "dr-a").await.unwrap();
    let study = until("the second run has ended", async || {
        world
            .db
            .study(&uid("s"))
            .await
            .unwrap()
            .filter(|study| study.reason.is_some())
    })
    .await;
    assert_eq!((study.state.as_str(), study.volume_ml), ("flagged", Some(5.0)));
    worker.stop().await;
}
