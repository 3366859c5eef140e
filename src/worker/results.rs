//! The output of an analysis → archive, index, findings, alert, outbox and audit row, in one transaction.

use super::{Output, Run, WorkerError};
use crate::{
    archive::StagedObject,
    db::{
        self, analysis, audit, filing,
        index::{self, NewInstance, Origin},
    },
    dicom::instance::Instance,
    domain::{
        phi::{redact, redact_text},
        prediction::holds_structures,
    },
};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use serde_json::json;

/// An object with its bytes on the disk.
struct Written {
    staged: StagedObject,
    new: NewInstance,
}

/// Stores what an analysis found; does nothing when another run of the same analysis was faster.
pub(super) async fn store(run: &Run<'_>, output: Output) -> Result<(), WorkerError> {
    let Output { report, objects } = output;
    let mut written = Vec::with_capacity(objects.len());
    for object in objects {
        written.push(write(run, object).await?);
    }
    let mut tx = run.worker.db.begin().await?;
    let studies: Vec<_> = written
        .iter()
        .map(|written| &written.new.study_instance_uid)
        .collect();
    index::lock_studies(&mut tx, &studies).await?;
    if !analysis::lock_running(&mut tx, run.running).await? {
        return Ok(());
    }
    let (mut results, mut log) = (Vec::new(), Vec::new());
    for Written { staged, new } in &written {
        run.worker.archive.keep(staged).await?;
        results.push((index::put_made(&mut tx, new).await?, role(new)));
        log.push(json!({
            "role": role(new),
            "sop_instance_uid": new.sop_instance_uid,
            "sha256": hex::encode(new.digest),
        }));
    }
    let completed = analysis::complete(&mut tx, run.running, &report, &results).await?;
    let is_alert = completed.alert.is_some();
    let filed = filing::analysis(&mut tx, run.running.id, &completed.superseded, is_alert).await?;
    let models: Vec<_> = report
        .models
        .iter()
        .map(|model| {
            json!({
                "id": model.id,
                "version": model.version,
                "weights_sha256": model.weights_sha256,
                "numeric_mode": model.numeric_mode,
            })
        })
        .collect();
    let mut detail = json!({
        "analysis": run.running.id,
        "identity": hex::encode(run.identity),
        "models": models,
        "answer": completed.answer,
        "findings": report.findings.len(),
        "alert": completed.alert,
        "superseded": completed.superseded,
        "results": log,
    });
    for (key, subject) in [("deliver_to", "results"), ("notify", "notification")] {
        let targets: Vec<&String> = filed
            .targets
            .iter()
            .filter(|(_, filed)| filed == subject)
            .map(|(target, _)| target)
            .collect();
        if !targets.is_empty() {
            detail[key] = json!(targets);
        }
    }
    if !filed.withdrawn.is_empty() {
        detail["withdrawn"] = filed
            .withdrawn
            .iter()
            .map(|(target, analysis)| json!({ "target": target, "analysis": analysis }))
            .collect();
    }
    audit::append(&mut tx, &run.act("analyse", detail)).await?;
    Ok(db::commit(tx).await?)
}

/// Float pixels and single bits cannot be compressed, but deflated they take a fiftieth; whoever does not ask for that gets them inflated.
fn deflate(object: &mut DefaultDicomObject) {
    let label = object.get(tags::CONTENT_LABEL).and_then(|e| e.to_str().ok());
    if label.is_some_and(|label| holds_structures(&label)) || object.get(tags::FLOAT_PIXEL_DATA).is_some() {
        let deflated = uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
        object.update_meta(|meta| deflated.clone_into(&mut meta.transfer_syntax));
    }
}

async fn write(run: &Run<'_>, mut object: DefaultDicomObject) -> Result<Written, WorkerError> {
    deflate(&mut object);
    let (bytes, instance) = tokio::task::spawn_blocking(move || -> Result<_, WorkerError> {
        let mut bytes = Vec::new();
        object
            .write_all(&mut bytes)
            .map_err(|error| WorkerError::Result(redact(&error)))?;
        let instance = Instance::from_object(object).map_err(|error| WorkerError::Result(redact(&error)))?;
        Ok((bytes, instance))
    })
    .await
    .map_err(|_| WorkerError::Panicked)??;
    let staged = run.worker.archive.stage_bytes(bytes).await?;
    let new =
        NewInstance::of(&instance, Origin::Result, staged.key(), staged.size_bytes()).ok_or_else(|| {
            WorkerError::Result(redact(&std::io::Error::other(redact_text(
                "an identifier is missing",
            ))))
        })?;
    Ok(Written { staged, new })
}

/// What a result is to its analysis, by SOP class (PS3.6 annex A) and, of Segmentations, by ContentLabel.
fn role(new: &NewInstance) -> &'static str {
    match new.sop_class_uid.as_str() {
        "1.2.840.10008.5.1.4.1.1.66.4" => {
            let label = new.metadata.pointer("/00700080/Value/0");
            match label.and_then(|label| label.as_str()) {
                Some(label) if holds_structures(label) => "structures",
                _ => "seg",
            }
        }
        "1.2.840.10008.5.1.4.1.1.66.7" => "labelmap",
        "1.2.840.10008.5.1.4.1.1.30" => "pm",
        "1.2.840.10008.5.1.4.1.1.7" => "sc",
        "1.2.840.10008.5.1.4.1.1.88.59" => "kos",
        class if class.starts_with("1.2.840.10008.5.1.4.1.1.88.") => "sr",
        _ => "other",
    }
}
