//! A mask that a reader drew → a Segmentation in the archive, a row, and one in the trail.
//!
//! The machine's mask stays as it is: the reader's has its own series and names the machine's when it began with it.
//! It is of the current analysis, like a verdict, and lies on the slices that the analysis used, by their UIDs.
//! Volume, centre and side are measured as the machine's are.

use super::{ReviewError, account::Account};
use crate::{
    analysis::correction::{self as drawing, Corrected, Drawn, MachineMask, Reader, Runs},
    archive::Archive,
    db::{
        self, Db,
        audit::{self, Act},
        correction::{self, CorrectionRow, NewCorrection},
        filing,
        index::{self, NewInstance, Origin},
        review,
        worklist::StudyAnalysis,
    },
    dicom::enhanced,
    domain::{phi::redact, uid::Uid},
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A mask as a page sends it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// The analysis that the reader looked at.
    pub analysis: Uuid,
    /// What was drawn: `haemorrhage`, or a kind of the analysis's findings.
    pub kind: String,
    /// Whether it began with the machine's mask.
    pub edited: bool,
    /// The slices that hold any of it; all others hold none.
    pub slices: Vec<SliceMask>,
}

/// A mask on one slice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SliceMask {
    /// The image.
    pub sop_instance_uid: String,
    /// The frame, from 1, of an image with several.
    #[serde(default)]
    pub frame: Option<u32>,
    /// First pixel and number of pixels of each run, row by row, ascending: `[start, length, start, length, …]`.
    pub runs: Vec<u32>,
}

/// What the database knows of the analysis that is corrected.
pub(super) struct OnRecord {
    pub(super) identity: Vec<u8>,
    pub(super) corrected: Corrected,
    pub(super) keys: Vec<String>,
}

/// Saves a mask. One that equals the reader's latest is answered with that.
///
/// # Errors
/// When it is not of the current analysis, lies elsewhere than its slices, or holds nothing.
pub async fn save(
    db: &Db,
    archive: &Archive,
    reader: &Account,
    study: &Uid,
    mask: Mask,
) -> Result<CorrectionRow, ReviewError> {
    let digest = digest(&mask);
    let OnRecord {
        identity,
        corrected,
        keys,
    } = read(db, study, mask.analysis).await?;
    let mut tx = db.begin().await?;
    let before = correction::latest(&mut tx, mask.analysis, reader.id).await?;
    drop(tx);
    if let Some(same) = before.as_ref().filter(|row| row.mask_sha256 == digest) {
        return Ok(same.clone());
    }
    let mut key = Sha256::new_with_prefix(b"ictus correction");
    key.update(&identity);
    key.update(digest);
    key.update(reader.id.to_be_bytes());
    // The same mask again, after another one, is another act.
    key.update(before.map_or(0, |row| row.id).to_be_bytes());
    let now = OffsetDateTime::now_utc();
    let at = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    let by = Reader {
        name: reader.display_name.clone(),
        key: key.finalize().into(),
        at,
    };
    let (analysis, kind) = (mask.analysis, mask.kind.clone());
    let files = archive.read_all(keys).await?;
    let drawn = tokio::task::spawn_blocking(move || draw(&files, &corrected, &mask, &by))
        .await
        .map_err(|_| ReviewError::Drawing)??;
    let regions = serde_json::to_value(&drawn.regions).map_err(|_| ReviewError::Drawing)?;
    let staged = archive.stage_bytes(drawn.bytes).await?;
    let new = NewInstance::of(&drawn.instance, Origin::Reader, staged.key(), staged.size_bytes())
        .ok_or(ReviewError::Drawing)?;
    let mut tx = db.begin().await?;
    index::lock_studies(&mut tx, &[study]).await?;
    let current = review::current_analysis(&mut tx, study)
        .await?
        .filter(|current| current.analysis == analysis)
        .ok_or(ReviewError::Revised)?;
    archive.keep(&staged).await?;
    let instance_id = index::put_made(&mut tx, &new).await?;
    let row = correction::insert(
        &mut tx,
        &NewCorrection {
            study_id: current.study_id,
            analysis,
            account_id: Some(reader.id),
            made_by: None,
            instance_id,
            mask_sha256: &digest,
            kind: &kind,
            edited: drawn.edited,
            regions: &regions,
            at,
        },
    )
    .await?;
    let targets = filing::correction(&mut tx, row.id).await?;
    let mut detail = json!({
        "analysis": row.analysis,
        "kind": row.kind,
        "edited": row.edited,
        "volumes_ml": drawn.regions.iter().map(|r| (r.volume_ml * 10.0).round() / 10.0).collect::<Vec<_>>(),
        "sop_instance_uid": new.sop_instance_uid,
        "sha256": hex::encode(new.digest),
    });
    if !targets.is_empty() {
        detail["deliver_to"] = json!(targets);
    }
    let act = Act {
        principal: &reader.name,
        act: "correct",
        studies: vec![study.to_string()],
        detail,
    };
    audit::append(&mut tx, &act).await?;
    db::commit(tx).await?;
    Ok(row)
}

fn digest(mask: &Mask) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(mask.kind.as_bytes());
    hash.update([u8::from(mask.edited)]);
    for slice in &mask.slices {
        hash.update(slice.sop_instance_uid.as_bytes());
        if let Some(frame) = slice.frame {
            hash.update(frame.to_be_bytes());
        }
        hash.update((slice.runs.len() as u64).to_be_bytes());
        slice.runs.iter().for_each(|run| hash.update(run.to_be_bytes()));
    }
    hash.finalize().into()
}

/// What is on record of the analysis, if it is the study's current one.
pub(super) async fn read(db: &Db, study: &Uid, analysis: Uuid) -> Result<OnRecord, ReviewError> {
    let detail = db.study_detail(study).await?.ok_or(ReviewError::NothingToJudge)?;
    let current = detail.analysis.ok_or(ReviewError::NothingToJudge)?;
    if current.id != analysis {
        return Err(ReviewError::Revised);
    }
    let recorded = db.recorded_analysis(analysis).await?;
    let recorded = recorded.ok_or(ReviewError::NothingToJudge)?;
    let instances = db.recorded_instances(analysis).await?;
    let StudyAnalysis { report, objects, .. } = current;
    let uid = |text: &str| Uid::parse(text).map_err(|_| ReviewError::Drawing);
    let mut masks = Vec::new();
    for object in objects.into_iter().filter(|object| object.role == "seg") {
        let (Some(question), Some(source_series)) = (object.question, object.source_series) else {
            continue;
        };
        masks.push(MachineMask {
            question,
            source_series,
            series_instance_uid: uid(&object.series_instance_uid)?,
            sop_instance_uid: uid(&object.sop_instance_uid)?,
        });
    }
    let corrected = Corrected {
        report: serde_json::from_value(report).map_err(|_| ReviewError::Drawing)?,
        masks,
    };
    let sources = instances
        .into_iter()
        .filter(|instance| instance.role == "source" && instance.conflict.is_none());
    Ok(OnRecord {
        identity: recorded.identity,
        corrected,
        keys: sources.map(|instance| instance.archive_key).collect(),
    })
}

/// Blocks.
fn draw(
    files: &[bytes::Bytes],
    corrected: &Corrected,
    mask: &Mask,
    reader: &Reader,
) -> Result<Drawn, ReviewError> {
    let instances = enhanced::read(files).map_err(|error| ReviewError::Source(redact(&error)))?;
    let slices: Vec<_> = mask
        .slices
        .iter()
        .map(|slice| Runs {
            sop_instance_uid: &slice.sop_instance_uid,
            frame: slice.frame,
            runs: &slice.runs,
        })
        .collect();
    let edited = mask.edited;
    Ok(drawing::correct(
        instances, corrected, &mask.kind, &slices, edited, reader,
    )?)
}
