//! One analysis: the instances of a study, or a NIfTI volume → findings and DICOM results.
//!
//! Six stages in a row, plain data in, plain data out; only this file knows their order.
//! `ictus analyze`, the worker and the evaluation all come through here.

pub mod assemble;
pub mod correction;
pub mod encode;
pub mod infer;
pub mod labelled;
pub mod postprocess;
pub mod preprocess;
pub mod returned;
pub mod uncertainty;

use crate::{
    dicom::instance::Instance,
    domain::{
        failure::FailureClass,
        finding::{
            Answer, AnswerValue, DISCLAIMER, ModelRun, Refusal, Report, SCHEMA, SeriesAspects, SeriesChoice,
            SeriesMidline,
        },
        network::{Control, VolumeInput},
        plan::Grid,
        prediction::Prediction,
        uid::Uid,
        volume::Volume,
        volume_trace::{Turn, VolumeTrace},
    },
};
use assemble::{AssembleError, Assembled};
use dicom_object::DefaultDicomObject;
use encode::{EncodeInput, Maps, Predecessor, Stamp};
use infer::{Engine, InferError, bundle::Model};
use preprocess::brain::Intracranial;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// What is asked of an analysis beside its images.
#[derive(Debug, Clone)]
pub struct Request {
    /// Only these models, whatever their triggers say of contrast, thickness, density and noise; empty: every model that a series can ask for.
    pub models: Vec<String>,
    /// Models that are asked too, as their triggers say, though their plans wait to be named.
    pub also: Vec<String>,
    /// Identity of the analysis: the same key gives the same UIDs.
    pub analysis_key: [u8; 32],
    /// Every date in the results.
    pub created_at: OffsetDateTime,
    /// Which maps are made, and how they are stored.
    pub maps: Maps,
    /// The report of an earlier revision.
    pub predecessor: Option<Predecessor>,
}

/// What comes of a study.
#[derive(Debug)]
pub struct Analysis {
    /// Findings, answers, refusals.
    pub report: Report,
    /// What [`encode::encode`] makes for each model that ran: masks, maps, report and what else was asked for.
    pub objects: Vec<DefaultDicomObject>,
    /// What each model that ran made of the volume.
    pub looks: Vec<Look>,
}

/// What is looked at: channels on one grid.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The channels; most models have one.
    pub channels: Vec<Volume<f32>>,
    /// How they lie in the array that a whole-volume model was trained on.
    pub turn: Turn,
}

/// One model's look at one volume.
#[derive(Debug)]
pub struct Look {
    /// The volume, in HU.
    pub volume: Volume<f32>,
    /// Where the brain is.
    pub brain: Volume<bool>,
    /// Voxel-wise answers.
    pub prediction: Prediction,
    /// Findings, their voxels and the answer.
    pub found: postprocess::Found,
    /// The HU that a picture of it shows from black to white.
    pub window_hu: [f32; 2],
}

/// Why an analysis ended without a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The network or its device.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A stage refused the volume.
    #[error(transparent)]
    Preprocess(#[from] preprocess::PreprocessError),
    /// The members do not fit.
    #[error(transparent)]
    Uncertainty(#[from] uncertainty::UncertaintyError),
    /// The findings cannot be listed.
    #[error(transparent)]
    Postprocess(#[from] postprocess::PostprocessError),
    /// The results cannot be written.
    #[error(transparent)]
    Encode(#[from] encode::EncodeError),
}

impl AnalysisError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Infer(e) => e.class(),
            Self::Preprocess(e) => e.class(),
            Self::Uncertainty(e) => e.class(),
            Self::Postprocess(e) => e.class(),
            Self::Encode(e) => e.class(),
        }
    }

    /// A stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Infer(InferError::Cancelled) => "cancelled",
            Self::Infer(_) => "inference_failed",
            Self::Preprocess(_) => "no_head",
            Self::Uncertainty(_) => "inference_failed",
            Self::Postprocess(_) => "too_many_regions",
            Self::Encode(_) => "cannot_encode",
        }
    }
}

/// Analyses everything received of one study.
///
/// A model that refuses the study leaves a refusal and the answer `not_evaluated`; the others still run.
///
/// # Errors
/// When it was cancelled, or when we or the surroundings are at fault; an input at fault is a refusal in the report.
pub fn run(
    instances: &[Instance],
    engine: &Engine,
    request: &Request,
    control: &dyn Control,
) -> Result<Analysis, AnalysisError> {
    let mut report = empty_report(
        instances
            .iter()
            .find_map(|i| i.attributes.study_instance_uid.clone()),
    );
    let (mut objects, mut looks) = (Vec::new(), Vec::new());
    for model in asked(engine, request)? {
        let started = Instant::now();
        let mut trigger = model.plan.trigger.clone();
        if request.also.contains(&model.plan.id) && trigger.has_no_step() {
            trigger.thickness_mm = [0.0, f64::INFINITY];
        }
        if request.models.contains(&model.plan.id) {
            trigger.contrast = crate::domain::plan::Contrast::Any;
            trigger.thickness_mm = [0.0, f64::INFINITY];
            (trigger.brain_hu, trigger.noise_hu) = (None, None);
        }
        let assembled = match assemble::assemble(instances, &trigger) {
            Ok(assembled) => assembled,
            Err(AssembleError::Refused { series, refusals }) => {
                refuse(&mut report, model, series, refusals);
                continue;
            }
            Err(other) => {
                let refusal = Refusal {
                    code: "unreadable".into(),
                    text: other.to_string(),
                };
                refuse(&mut report, model, Vec::new(), vec![refusal]);
                continue;
            }
        };
        clock(&mut report.timings, "assemble", started);
        match one(instances, assembled, engine, model, request, control, &mut report) {
            Ok((look, made)) => {
                objects.extend(made);
                looks.push(look);
            }
            Err(error) if error.class() == FailureClass::Input && error.code() != "cancelled" => {
                let refusal = Refusal {
                    code: error.code().into(),
                    text: error.to_string(),
                };
                refuse(&mut report, model, Vec::new(), vec![refusal]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Analysis {
        report,
        objects,
        looks,
    })
}

/// The models that are asked: those named, or all that a series can ask for and those asked too.
fn asked<'a>(engine: &'a Engine, request: &Request) -> Result<Vec<&'a Model>, AnalysisError> {
    if request.models.is_empty() {
        let models = engine.models().map(AsRef::as_ref);
        let is_also = |model: &Model| request.also.contains(&model.plan.id);
        return Ok(models
            .filter(|model: &&Model| !model.plan.trigger.is_only_by_name() || is_also(model))
            .collect());
    }
    request
        .models
        .iter()
        .map(|id| Ok(engine.model(id)?.as_ref()))
        .collect()
}

/// Stages 2 to 6 of one model on one volume.
fn one(
    instances: &[Instance],
    assembled: Assembled,
    engine: &Engine,
    model: &Model,
    request: &Request,
    control: &dyn Control,
    report: &mut Report,
) -> Result<(Look, Vec<DefaultDicomObject>), AnalysisError> {
    let source: Vec<&Instance> = assembled.instances.iter().map(|i| &instances[*i]).collect();
    let series = assembled.series.iter().find(|s| s.chosen).map(|s| s.uid.clone());
    let series = series.unwrap_or_else(|| Uid::derive(&[b"volume without a series"]));
    let scan = Scan {
        channels: vec![assembled.volume],
        turn: Turn::DICOM,
    };
    let look = look(scan, engine, model, &series, control, report)?;
    merge_series(&mut report.series, assembled.series);
    for warning in assembled.warnings {
        // Another model may have looked at the same series.
        if !report.warnings.contains(&warning) {
            report.warnings.push(warning);
        }
    }
    let started = Instant::now();
    // Each model's results speak of that model only.
    let own = Report {
        models: report
            .models
            .iter()
            .filter(|m| m.id == model.plan.id)
            .cloned()
            .collect(),
        answers: look.found.answer.iter().cloned().collect(),
        findings: look.found.findings.clone(),
        aspects: series_aspects(&look, &series, model),
        ..report.clone()
    };
    let objects = encode::encode(&EncodeInput {
        source: &source,
        ct: Some(&look.volume),
        prediction: &look.prediction,
        segments: &look.found.segments,
        brain: &look.brain,
        report: &own,
        plan: &model.plan,
        stamp: &Stamp {
            analysis_key: request.analysis_key,
            created_at: request.created_at,
        },
        maps: &request.maps,
        predecessor: request.predecessor.as_ref(),
    })?;
    clock(&mut report.timings, "encode", started);
    Ok((look, objects))
}

/// Stages 2 to 4: what a model sees in a scan, voxel by voxel.
///
/// # Errors
/// What a stage says.
pub fn predict(
    scan: &Scan,
    engine: &Engine,
    model: &Model,
    control: &dyn Control,
) -> Result<Prediction, AnalysisError> {
    let (_, prediction, ..) = seen(scan, engine, model, control, &mut empty_report(None))?;
    Ok(prediction)
}

fn seen(
    scan: &Scan,
    engine: &Engine,
    model: &Model,
    control: &dyn Control,
    report: &mut Report,
) -> Result<Seen, AnalysisError> {
    match model.plan.configuration.grid {
        Grid::SourceSlices { .. } => on_slices(scan, engine, model, control, report),
        Grid::Volume { .. } | Grid::Oriented(_) | Grid::Window { .. } => {
            on_volume(scan, engine, model, control, report)
        }
        Grid::HeadBox { .. } => in_box(scan, engine, model, control, report),
    }
}

/// Stages 2 to 5: what a model makes of a scan, with or without DICOM around it.
///
/// # Errors
/// What a stage says.
pub fn look(
    mut scan: Scan,
    engine: &Engine,
    model: &Model,
    series: &Uid,
    control: &dyn Control,
    report: &mut Report,
) -> Result<Look, AnalysisError> {
    let (brain, prediction, cavity, duration_ms) = seen(&scan, engine, model, control, report)?;
    let started = Instant::now();
    let mut found = postprocess::find(
        &prediction,
        &scan.channels[0],
        &brain,
        &cavity,
        series,
        &model.plan,
    )?;
    if (model.plan.calibration.is_some() || found.aspects.is_some())
        && let Some(what) = assemble::foreign_to(&scan.channels[0], &model.plan.trigger)
    {
        found.forget_calibration();
        found.aspects = None;
        report.warnings.push(Refusal {
            code: "out_of_distribution".into(),
            text: format!("Out of the distribution of {}: {what}; its calibration does not hold, and neither a probability nor ASPECTS is told.", model.plan.id),
        });
    }
    // Two models may call their findings the same.
    for finding in &mut found.findings {
        if report.findings.iter().any(|other| other.id == finding.id) {
            finding.id = format!("{}-{}", model.plan.id, finding.id);
        }
    }
    clock(&mut report.timings, "postprocess", started);
    let limits = model.plan.provenance.disclaimer();
    if report.models.is_empty() {
        limits.clone_into(&mut report.disclaimer);
    } else if !report.disclaimer.contains(limits) {
        report.disclaimer = format!("{} {limits}", report.disclaimer);
    }
    report.models.push(ModelRun {
        id: model.plan.id.clone(),
        version: model.plan.version.clone(),
        weights_sha256: model.weights_sha256.clone(),
        numeric_mode: engine.numeric_mode_of(model).to_owned(),
        duration_ms,
        calibration: model.plan.calibration.as_ref().map(ToString::to_string),
    });
    // The network's buffers are large, and the next study may be hours away.
    crate::nn::release();
    report.answers.extend(found.answer.clone());
    report.findings.extend(found.findings.clone());
    let shift = found.midline_shift.map(|shift| SeriesMidline {
        series: series.clone(),
        shift,
    });
    report.midline_shift = report.midline_shift.take().or(shift);
    report.warnings.extend(found.warnings.iter().cloned());
    let look = Look {
        volume: scan.channels.swap_remove(0),
        brain,
        prediction,
        found,
        window_hu: model.plan.trigger.contrast.window_hu(),
    };
    report.aspects = report.aspects.take().or(series_aspects(&look, series, model));
    Ok(look)
}

/// What a model says of ASPECTS on a series.
fn series_aspects(look: &Look, series: &Uid, model: &Model) -> Option<SeriesAspects> {
    Some(SeriesAspects {
        series: series.clone(),
        model: model.plan.id.clone(),
        aspects: look.found.aspects.clone()?,
    })
}

/// What the stages on a grid give: the brain, the prediction, the cranial cavity, and how long the network took.
type Seen = (Volume<bool>, Prediction, Volume<bool>, u64);

fn on_slices(
    scan: &Scan,
    engine: &Engine,
    model: &Model,
    control: &dyn Control,
    report: &mut Report,
) -> Result<Seen, AnalysisError> {
    let started = Instant::now();
    let volume = &scan.channels[0];
    let preprocess::Sliced {
        input,
        trace,
        intracranial: Intracranial { brain, cavity },
    } = preprocess::preprocess(volume, &model.plan)?;
    clock(&mut report.timings, "preprocess", started);
    let started = Instant::now();
    let members = infer::infer(engine, model, &input, control)?;
    let duration_ms = clock(&mut report.timings, "infer", started);
    let started = Instant::now();
    let prediction = uncertainty::combine(&members, &trace, &model.plan)?;
    clock(&mut report.timings, "uncertainty", started);
    Ok((brain, prediction, cavity, duration_ms))
}

fn on_volume(
    scan: &Scan,
    engine: &Engine,
    model: &Model,
    control: &dyn Control,
    report: &mut Report,
) -> Result<Seen, AnalysisError> {
    let plan = &model.plan;
    let mut spent_ms = 0;
    let mut previous: Option<Volume<u8>> = None;
    for stage in &model.stages {
        let (seen, ms) = staged(scan, engine, stage, previous.as_ref(), control, report)?;
        previous = Some(seen.labels);
        spent_ms += ms;
    }
    let (mut prediction, ms) = staged(scan, engine, model, previous.as_ref(), control, report)?;
    let duration_ms = spent_ms + ms;
    postprocess::keep_largest(&mut prediction.labels, &plan.keep_largest);
    let head = plan
        .trigger
        .is_head()
        .then(|| preprocess::head_trace(&scan.channels[0]));
    let Intracranial { brain, cavity } = match head {
        Some(Ok(head)) => preprocess::brain::intracranial(&scan.channels[0], &head),
        // Nobody said that the model looks at heads, or there is none: then nothing is inside or outside a skull.
        Some(Err(_)) | None => {
            let everywhere = Volume::everywhere(&scan.channels[0].geometry);
            Intracranial {
                brain: everywhere.clone(),
                cavity: everywhere,
            }
        }
    };
    Ok((brain, prediction, cavity, duration_ms))
}

/// Stages 2 to 4 of one network of a cascade, or of the only one.
fn staged(
    scan: &Scan,
    engine: &Engine,
    model: &Model,
    previous: Option<&Volume<u8>>,
    control: &dyn Control,
    report: &mut Report,
) -> Result<(Prediction, u64), AnalysisError> {
    let started = Instant::now();
    let (input, trace) = preprocess::volume::preprocess(&scan.channels, scan.turn, &model.plan, previous)?;
    clock(&mut report.timings, "preprocess", started);
    summed(engine, model, input, &trace, control, report)
}

fn in_box(
    scan: &Scan,
    engine: &Engine,
    model: &Model,
    control: &dyn Control,
    report: &mut Report,
) -> Result<Seen, AnalysisError> {
    let started = Instant::now();
    let preprocess::head_box::Boxed {
        input,
        trace,
        intracranial: Intracranial { brain, cavity },
    } = preprocess::head_box::preprocess(&scan.channels[0], &model.plan)?;
    clock(&mut report.timings, "preprocess", started);
    let (prediction, duration_ms) = summed(engine, model, input, &trace.as_volume(), control, report)?;
    let started = Instant::now();
    let prediction = trace.back(&prediction);
    clock(&mut report.timings, "uncertainty", started);
    Ok((brain, prediction, cavity, duration_ms))
}

/// Stages 3 and 4 on a whole volume, one member after the other: the prediction, and how long the network took.
fn summed(
    engine: &Engine,
    model: &Model,
    input: VolumeInput,
    trace: &VolumeTrace,
    control: &dyn Control,
    report: &mut Report,
) -> Result<(Prediction, u64), AnalysisError> {
    let started = Instant::now();
    let mut sums = uncertainty::volume::Sums::new(&model.plan, trace)?;
    let mut summing = Duration::ZERO;
    infer::volume::infer(engine, model, &input, control, |logits| {
        let started = Instant::now();
        sums.add(&logits)?;
        summing += started.elapsed();
        Ok::<_, AnalysisError>(())
    })?;
    drop(input);
    let spent = started.elapsed().saturating_sub(summing);
    let duration_ms = add_time(&mut report.timings, "infer", spent);
    let started = Instant::now();
    let prediction = sums.finish();
    add_time(&mut report.timings, "uncertainty", summing + started.elapsed());
    Ok((prediction, duration_ms))
}

/// A report that says nothing yet.
#[must_use]
pub fn empty_report(study_instance_uid: Option<Uid>) -> Report {
    Report {
        schema: SCHEMA,
        disclaimer: DISCLAIMER.into(),
        study_instance_uid,
        series: Vec::new(),
        models: Vec::new(),
        answers: Vec::new(),
        findings: Vec::new(),
        midline_shift: None,
        aspects: None,
        refusals: Vec::new(),
        warnings: Vec::new(),
        timings: BTreeMap::new(),
    }
}

/// Records that a model was not run, and why.
fn refuse(report: &mut Report, model: &Model, series: Vec<SeriesChoice>, refusals: Vec<Refusal>) {
    merge_series(&mut report.series, series);
    report.refusals.extend(refusals);
    report.answers.push(Answer {
        question: model.plan.question.clone(),
        model: Some(model.plan.id.clone()),
        answer: AnswerValue::NotEvaluated,
        score: None,
        probability: None,
        uncertainty: None,
        lane: None,
    });
}

/// One entry a series: chosen by any model wins over not chosen.
fn merge_series(all: &mut Vec<SeriesChoice>, more: Vec<SeriesChoice>) {
    for choice in more {
        match all.iter_mut().find(|c| c.uid == choice.uid) {
            Some(known) if choice.chosen => *known = choice,
            Some(_) => {}
            None => all.push(choice),
        }
    }
}

/// Adds the time since `started` to a stage and returns it, in milliseconds.
fn clock(timings: &mut BTreeMap<String, u64>, stage: &str, started: Instant) -> u64 {
    add_time(timings, stage, started.elapsed())
}

fn add_time(timings: &mut BTreeMap<String, u64>, stage: &str, spent: Duration) -> u64 {
    let spent = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
    *timings.entry(stage.into()).or_default() += spent;
    spent
}
