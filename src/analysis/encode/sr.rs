//! Findings, answers, models, refusals and the other results → one TID 1500 report.
//!
//! Each finding is a volumetric group (TID 1411) that names its segment; the plan's answer for the whole study is a group of its own (TID 1501), so that its score and the ensemble's disagreement are numbers too.
//! All answers, what they do not mean, refusals and warnings stand under Qualitative Evaluations as codes and plain words.
//! There is no image library: the evidence lists every source image, and the readers that we know take it from there.
//! An answer is "flagged", "not flagged", "uncertain" or "not evaluated"; nothing is a probability until the model is calibrated.
//!
//! Source: PS3.16 TID 1500, 1001, 1204, 1411, 1501, 4019; PS3.3 sections A.35.13 and C.17.2.

use super::{
    EncodeError, EncodeInput, concept,
    content::{
        Contains, HasConceptModifier, HasObservationContext, code, container, image, number, put_root, text,
        uid_reference, under,
    },
    context::{Context, Kind, mismatch},
    element::{Dataset, Fill, reference_item},
    pm,
    seg::{self, category, laterality},
};
use crate::domain::{
    aspects::{self, Aspects, SideReading},
    code::{BRAIN, Code},
    finding::{Answer, AnswerValue, Finding, Side},
    midsagittal::MidlineShift,
    uid::Uid,
};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use std::borrow::Cow;

const KIND: Kind = Kind {
    name: Cow::Borrowed("sr"),
    sop_class_uid: uids::COMPREHENSIVE3_DSR_STORAGE,
    transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN,
    modality: "SR",
    series_number: 9003,
    shows: "report",
};

/// Makes the report over `results`, the objects that this analysis has made so far.
pub(super) fn encode(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
    results: &[DefaultDicomObject],
) -> Result<DefaultDicomObject, EncodeError> {
    // A report refers to the maps, so that one over other maps is another report.
    let kind = Kind {
        name: pm::selection("sr", input.maps).into(),
        ..KIND
    };
    let mut dataset = context.dataset(&kind)?;
    dataset.empty(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, VR::SQ);
    dataset.empty(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, VR::SQ);
    dataset.text(tags::COMPLETION_FLAG, VR::CS, "COMPLETE");
    // Nobody has read it: a reader's verdict is another report.
    dataset.text(tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED");
    dataset.text(tags::PRELIMINARY_FLAG, VR::CS, "PRELIMINARY");
    let requests = context.referenced_requests()?;
    if !requests.is_empty() {
        dataset.sequence(tags::REFERENCED_REQUEST_SEQUENCE, requests);
    }
    dataset.sequence(
        tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE,
        vec![evidence(context, results)?],
    );
    if let Some(predecessor) = input.predecessor {
        let report = reference_item(KIND.sop_class_uid, &predecessor.sop_instance_uid);
        let series = series_item(&predecessor.series_instance_uid, vec![report]);
        dataset.sequence(
            tags::PREDECESSOR_DOCUMENTS_SEQUENCE,
            vec![study_item(&context.study, vec![series])],
        );
    }
    put_root(
        &mut dataset,
        &concept::REPORT,
        "1500",
        report(context, input, results)?,
    );
    context.object(dataset, &kind)
}

fn report(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
    results: &[DefaultDicomObject],
) -> Result<Vec<Dataset>, EncodeError> {
    let device = context.uid("device", 1);
    let mut groups: Vec<Dataset> = context
        .findings
        .iter()
        .map(|f| finding_group(context, input, f))
        .collect();
    groups.push(case_group(context, input, results)?);
    groups.extend(context.midline_shift.map(|shift| midline_group(context, &shift)));
    let sides = context.aspects.into_iter().flat_map(Aspects::sides);
    groups.extend(sides.filter_map(|(side, reading)| Some(aspects_group(context, input, side, reading?))));
    Ok(vec![
        code(HasConceptModifier, &concept::LANGUAGE, &concept::ENGLISH),
        code(HasObservationContext, &concept::OBSERVER_TYPE, &concept::DEVICE),
        uid_reference(HasObservationContext, &concept::DEVICE_UID, &device),
        text(HasObservationContext, &concept::DEVICE_NAME, "ictus"),
        text(HasObservationContext, &concept::DEVICE_MANUFACTURER, "ictus"),
        text(
            HasObservationContext,
            &concept::DEVICE_MODEL,
            format!("{} {}", input.plan.id, input.plan.version),
        ),
        code(
            HasConceptModifier,
            &concept::PROCEDURE_REPORTED,
            &concept::COMPUTED_TOMOGRAPHY,
        ),
        container(&concept::IMAGING_MEASUREMENTS, None, groups),
        container(
            &concept::QUALITATIVE_EVALUATIONS,
            None,
            evaluations(context, input),
        ),
    ])
}

/// TID 1411: one finding.
fn finding_group(context: &Context<'_>, input: &EncodeInput<'_>, finding: &Finding) -> Dataset {
    let site = finding.site.clone().unwrap_or(BRAIN);
    let side = laterality(finding.side).map(|side| code(HasConceptModifier, &concept::LATERALITY, &side));
    let mut group = vec![
        text(HasObservationContext, &concept::TRACKING_IDENTIFIER, &*finding.id),
        uid_reference(
            HasObservationContext,
            &concept::TRACKING_UID,
            &context.tracking_uid(finding.segment),
        ),
        code(
            Contains,
            &concept::FINDING_CATEGORY,
            &category(input.plan, finding),
        ),
        code(Contains, &concept::FINDING, &finding.code),
        image(
            &concept::REFERENCED_SEGMENT,
            reference_item(
                seg::KIND.sop_class_uid,
                &context.uid(&format!("{}.instance", seg::KIND.name), 1),
            ),
            Some(finding.segment),
        ),
        uid_reference(Contains, &concept::SOURCE_SERIES, &context.series),
        under(
            code(HasConceptModifier, &concept::FINDING_SITE, &site),
            side.into_iter().collect(),
        ),
    ];
    group.extend(algorithm(context, input));
    group.push(millilitres(&concept::VOLUME, finding.volume_ml));
    group.extend(finding.abc2_ml.map(|ml| millilitres(&concept::ABC2, ml)));
    if let Some([lower, upper]) = finding.volume_interval_ml {
        group.push(millilitres(&concept::VOLUME_LOWER, lower));
        group.push(millilitres(&concept::VOLUME_UPPER, upper));
    }
    group.push(share(&concept::MEAN_SCORE, finding.score));
    group.push(share(&concept::MEAN_ENTROPY, finding.uncertainty));
    if let Some(probability) = finding.probability {
        group.push(share(&concept::PROBABILITY, probability));
    }
    container(&concept::MEASUREMENT_GROUP, Some("1411"), group)
}

/// A volume, to the microlitre.
fn millilitres(name: &Code, value: f64) -> Dataset {
    number(name, value, 3, &concept::MILLILITRE)
}

/// A number from 0 to 1.
fn share(name: &Code, value: f64) -> Dataset {
    number(name, value, 4, &concept::NO_UNITS)
}

/// TID 1501: the plan's answer for the study as a whole, with the maps that show where it is unsure.
fn case_group(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
    results: &[DefaultDicomObject],
) -> Result<Dataset, EncodeError> {
    let question = &input.plan.question;
    let mut group = vec![
        text(
            HasObservationContext,
            &concept::TRACKING_IDENTIFIER,
            format!("{question}-case"),
        ),
        uid_reference(
            HasObservationContext,
            &concept::TRACKING_UID,
            &context.uid("tracking.case", 1),
        ),
    ];
    group.extend(algorithm(context, input));
    if let Some(answer) = context.answer {
        for (name, value) in [
            (&concept::CASE_SCORE, answer.score),
            (&concept::CASE_DISAGREEMENT, answer.uncertainty),
            (&concept::PROBABILITY, answer.probability),
        ] {
            group.extend(value.map(|value| share(name, value)));
        }
    }
    let total_ml: f64 = context.findings.iter().map(|finding| finding.volume_ml).sum();
    if !context.findings.is_empty() {
        group.push(millilitres(&concept::VOLUME, total_ml));
    }
    group.push(code(
        Contains,
        &concept::question(question),
        &answer_code(context.answer),
    ));
    for result in results {
        let class = uid_of(result, tags::SOP_CLASS_UID)?;
        if class.as_str() == uids::PARAMETRIC_MAP_STORAGE {
            let map = reference_item(class.as_str(), &uid_of(result, tags::SOP_INSTANCE_UID)?);
            group.push(image(&concept::SOURCE_OF_MEASUREMENT, map, None));
        }
    }
    Ok(container(&concept::MEASUREMENT_GROUP, Some("1501"), group))
}

/// TID 1501: the midline, which is measured without a network.
fn midline_group(context: &Context<'_>, shift: &MidlineShift) -> Dataset {
    let [lower, upper] = shift.interval_mm;
    let millimetres = |name: &Code, value: f64| number(name, value, 1, &concept::MILLIMETRE);
    let group = vec![
        text(HasObservationContext, &concept::TRACKING_IDENTIFIER, "midline"),
        uid_reference(
            HasObservationContext,
            &concept::TRACKING_UID,
            &context.uid("tracking.midline", 1),
        ),
        text(
            HasConceptModifier,
            &concept::ALGORITHM_NAME,
            "ictus, symmetry about the septum pellucidum",
        ),
        text(
            HasConceptModifier,
            &concept::ALGORITHM_VERSION,
            env!("CARGO_PKG_VERSION"),
        ),
        millimetres(&concept::MIDLINE_SHIFT, shift.left_mm),
        millimetres(&concept::MIDLINE_LOWER, lower),
        millimetres(&concept::MIDLINE_UPPER, upper),
    ];
    container(&concept::MEASUREMENT_GROUP, Some("1501"), group)
}

/// TID 1501: ASPECTS of one side, its range, and the regions that took points off.
fn aspects_group(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
    side: Side,
    reading: &SideReading,
) -> Dataset {
    let name = format!("aspects-{}", side.name());
    let of_side = laterality(side).map(|side| code(HasConceptModifier, &concept::LATERALITY, &side));
    let mut group = vec![
        text(HasObservationContext, &concept::TRACKING_IDENTIFIER, &*name),
        uid_reference(
            HasObservationContext,
            &concept::TRACKING_UID,
            &context.uid(&format!("tracking.{name}"), 1),
        ),
        under(
            code(HasConceptModifier, &concept::FINDING_SITE, &BRAIN),
            of_side.into_iter().collect(),
        ),
    ];
    group.extend(algorithm(context, input));
    let [least, most] = reading.range;
    for (name, points) in [
        (&concept::ASPECTS, reading.score),
        (&concept::ASPECTS_LOWER, least),
        (&concept::ASPECTS_UPPER, most),
    ] {
        group.push(number(name, f64::from(points), 0, &concept::NO_UNITS));
    }
    let affected = reading.regions.iter().filter(|reading| reading.affected);
    group.extend(affected.map(|reading| code(Contains, &concept::AFFECTED_REGION, &reading.region.code())));
    container(&concept::MEASUREMENT_GROUP, Some("1501"), group)
}

/// TID 4019: which network, which weights.
fn algorithm(context: &Context<'_>, input: &EncodeInput<'_>) -> Vec<Dataset> {
    let mut items = vec![
        text(HasConceptModifier, &concept::ALGORITHM_NAME, &*input.plan.id),
        text(
            HasConceptModifier,
            &concept::ALGORITHM_VERSION,
            &*input.plan.version,
        ),
    ];
    let parameters = context.maker.parameters();
    items.extend(
        parameters
            .into_iter()
            .map(|p| text(HasConceptModifier, &concept::ALGORITHM_PARAMETERS, p)),
    );
    items
}

/// Answers, what they do not mean, refusals and warnings.
fn evaluations(context: &Context<'_>, input: &EncodeInput<'_>) -> Vec<Dataset> {
    let report = input.report;
    let question = &input.plan.question;
    let mut items: Vec<Dataset> = report
        .answers
        .iter()
        .map(|answer| {
            code(
                Contains,
                &concept::question(&answer.question),
                &answer_code(Some(answer)),
            )
        })
        .collect();
    if context.answer.is_none() {
        items.push(code(Contains, &concept::question(question), &answer_code(None)));
    }
    if context.findings.is_empty() {
        items.push(text(
            Contains,
            &concept::ABSENCE,
            format!(
                "No finding of {question} was made, and there is no segmentation. \
                 This is not a statement that there is none: the model misses lesions, small ones above all."
            ),
        ));
    }
    items.push(text(
        Contains,
        &concept::LIMITS,
        format!("{}: {}", input.plan.id, input.plan.provenance.limits()),
    ));
    if context.aspects.is_some() {
        items.push(text(Contains, &concept::LIMITS, aspects::LIMITS));
    }
    items.push(text(Contains, &concept::COMMENT, &*report.disclaimer));
    for (name, list) in [
        (&concept::REFUSAL, &report.refusals),
        (&concept::WARNING, &report.warnings),
    ] {
        items.extend(
            list.iter()
                .map(|said| text(Contains, name, format!("{}: {}", said.code, said.text))),
        );
    }
    items
}

fn answer_code(answer: Option<&Answer>) -> Code {
    match answer.map(|answer| answer.answer) {
        Some(AnswerValue::Present) => concept::FLAGGED,
        Some(AnswerValue::Absent) => concept::NOT_FLAGGED,
        Some(AnswerValue::Uncertain) => concept::UNCERTAIN,
        Some(AnswerValue::NotEvaluated) | None => concept::NOT_EVALUATED,
    }
}

/// The source images and the other results, by series.
fn evidence(context: &Context<'_>, results: &[DefaultDicomObject]) -> Result<Dataset, EncodeError> {
    let sources = context.instance_items(0..context.references.len());
    let mut series = vec![series_item(&context.series, sources)];
    for result in results {
        let class = uid_of(result, tags::SOP_CLASS_UID)?;
        let reference = reference_item(class.as_str(), &uid_of(result, tags::SOP_INSTANCE_UID)?);
        series.push(series_item(
            &uid_of(result, tags::SERIES_INSTANCE_UID)?,
            vec![reference],
        ));
    }
    Ok(study_item(&context.study, series))
}

fn uid_of(result: &DefaultDicomObject, tag: Tag) -> Result<Uid, EncodeError> {
    result
        .get(tag)
        .and_then(|element| element.to_str().ok())
        .and_then(|text| Uid::parse(&text).ok())
        .ok_or_else(|| mismatch("UIDs of a result", "none", "SOP class, instance and series"))
}

pub(super) fn study_item(study: &Uid, series: Vec<Dataset>) -> Dataset {
    let mut item = Dataset::new_empty();
    item.uid(tags::STUDY_INSTANCE_UID, study.as_str());
    item.sequence(tags::REFERENCED_SERIES_SEQUENCE, series);
    item
}

pub(super) fn series_item(series: &Uid, instances: Vec<Dataset>) -> Dataset {
    let mut item = Dataset::new_empty();
    item.uid(tags::SERIES_INSTANCE_UID, series.as_str());
    item.sequence(tags::REFERENCED_SOP_SEQUENCE, instances);
    item
}
