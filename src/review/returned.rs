//! Masks that other tools send back → corrections by a reader, or refusals with their reason.
//!
//! A Segmentation that is not ours and lies on the images of the study's current analysis is a reader's word on it, wherever it
//! was drawn; it is recorded like one that was drawn here, stands beside the machine's and goes to the same targets.
//! What is not understood is refused in words, once, in the trail; it stays in the archive as it was sent.
//! Its regions are measured here; the Segmentation itself is kept as the tool wrote it.

use super::{ReviewError, correction as drawn};
use crate::{
    analysis::returned::{self as reading, Returned},
    archive::Archive,
    db::{
        self, Db,
        audit::{self, Act},
        correction::{self, NewCorrection},
        filing, index,
        returned::{self, ReturnedMask},
        review,
    },
    dicom::enhanced,
    domain::{failure::FailureClass, phi::redact, uid::Uid},
};
use serde_json::json;
use std::{future::Future, time::Duration};
use time::OffsetDateTime;
use uuid::Uuid;

/// A loop without work looks for some.
const POLL: Duration = Duration::from_secs(2);

/// Reads what comes back until `stop`.
pub async fn run(db: Db, archive: Archive, stop: impl Future<Output = ()> + Send) {
    let work = async {
        loop {
            match once(&db, &archive).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %redact(&error), "a mask that came back cannot be read now; it is tried again");
                }
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop => {}
    }
}

/// Reads one mask that came back; false when none waits.
///
/// # Errors
/// When the database or the archive fails; then it is tried again.
pub async fn once(db: &Db, archive: &Archive) -> Result<bool, ReviewError> {
    let Some(mask) = db.claim_returned_mask().await? else {
        return Ok(false);
    };
    match understand(db, archive, &mask).await {
        Ok((analysis, returned)) => match record(db, &mask, analysis, &returned).await {
            Err(ReviewError::Revised) => refuse(db, &mask, &ReviewError::Revised.to_string()).await?,
            done => done?,
        },
        Err(error) if error.class() == FailureClass::Transient && !mask.is_last => return Err(error),
        Err(error) => refuse(db, &mask, &redact(&error).to_string()).await?,
    }
    Ok(true)
}

async fn understand(
    db: &Db,
    archive: &Archive,
    mask: &ReturnedMask,
) -> Result<(Uuid, Returned), ReviewError> {
    let study = Uid::parse(&mask.study_instance_uid).map_err(|_| ReviewError::Drawing)?;
    let detail = db
        .study_detail(&study)
        .await?
        .ok_or(ReviewError::NothingToJudge)?;
    let analysis = detail.analysis.ok_or(ReviewError::NothingToJudge)?.id;
    let record = drawn::read(db, &study, analysis).await?;
    let file = archive.read(&mask.archive_key).await?;
    let files = archive.read_all(record.keys).await?;
    let returned = tokio::task::spawn_blocking(move || -> Result<Returned, ReviewError> {
        let instances = enhanced::read(&files).map_err(|error| ReviewError::Source(redact(&error)))?;
        Ok(reading::read(&file, instances, &record.corrected)?)
    })
    .await
    .map_err(|_| ReviewError::Drawing)??;
    Ok((analysis, returned))
}

async fn record(db: &Db, mask: &ReturnedMask, analysis: Uuid, read: &Returned) -> Result<(), ReviewError> {
    let study = Uid::parse(&mask.study_instance_uid).map_err(|_| ReviewError::Drawing)?;
    let regions = serde_json::to_value(&read.regions).map_err(|_| ReviewError::Drawing)?;
    let now = OffsetDateTime::now_utc();
    let at = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    let mut tx = db.begin().await?;
    index::lock_studies(&mut tx, &[&study]).await?;
    let current = review::current_analysis(&mut tx, &study)
        .await?
        .filter(|current| current.analysis == analysis)
        .ok_or(ReviewError::Revised)?;
    let by = read.creator.as_deref().unwrap_or(&mask.sent_by);
    let row = correction::insert(
        &mut tx,
        &NewCorrection {
            study_id: current.study_id,
            analysis,
            account_id: None,
            made_by: Some(by),
            instance_id: mask.instance_id,
            mask_sha256: &read.mask_sha256,
            kind: &read.kind,
            edited: read.edited,
            regions: &regions,
            at,
        },
    )
    .await?;
    returned::recorded(&mut tx, mask.instance_id, row.id).await?;
    let targets = filing::correction(&mut tx, row.id).await?;
    let mut detail = json!({
        "analysis": analysis,
        "kind": read.kind,
        "edited": read.edited,
        "returned": true,
        "volumes_ml": read.regions.iter().map(|r| (r.volume_ml * 10.0).round() / 10.0).collect::<Vec<_>>(),
        "sop_instance_uid": mask.sop_instance_uid,
        "sha256": hex::encode(&mask.digest),
    });
    if !targets.is_empty() {
        detail["deliver_to"] = json!(targets);
    }
    let act = Act {
        principal: &mask.sent_by,
        act: "correct",
        studies: vec![mask.study_instance_uid.clone()],
        detail,
    };
    audit::append(&mut tx, &act).await?;
    Ok(db::commit(tx).await?)
}

async fn refuse(db: &Db, mask: &ReturnedMask, why: &str) -> Result<(), ReviewError> {
    let mut tx = db.begin().await?;
    returned::refused(&mut tx, mask.instance_id, why).await?;
    let act = Act {
        principal: &mask.sent_by,
        act: "refuse_mask",
        studies: vec![mask.study_instance_uid.clone()],
        detail: json!({ "sop_instance_uid": mask.sop_instance_uid, "text": why }),
    };
    audit::append(&mut tx, &act).await?;
    Ok(db::commit(tx).await?)
}
