//! Readers' masks as rows.
//!
//! Rules about them are [`crate::review::correction`]'s; nothing is changed or deleted here.

use super::{Db, Tx, error::DbError, events};
use crate::domain::uid::Uid;
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A mask that a reader saved.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow, ToSchema)]
pub struct CorrectionRow {
    /// Number, ascending in time.
    pub id: i64,
    /// The analysis that the reader looked at.
    pub analysis: Uuid,
    /// What was drawn: `haemorrhage`.
    pub kind: String,
    /// Whether it began with the machine's mask.
    pub edited: bool,
    /// Connected regions, largest first, as findings are: segment, volume_ml, center_mm, bounding_box_mm, side, key_slice.
    pub regions: Value,
    /// Who, as others read it.
    pub reader: String,
    /// Who, as they sign in; null when it was drawn in another tool.
    pub reader_name: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Series of the Segmentation.
    pub series_instance_uid: String,
    /// The Segmentation.
    pub sop_instance_uid: String,
    /// Digest of the mask.
    #[serde(skip)]
    pub mask_sha256: Vec<u8>,
}

/// A mask on its way in; its Segmentation is indexed already.
#[derive(Debug, Clone, Copy)]
pub struct NewCorrection<'a> {
    /// Row of the study.
    pub study_id: i64,
    /// The analysis.
    pub analysis: Uuid,
    /// The account; none when it was drawn in another tool.
    pub account_id: Option<i64>,
    /// Who drew it in another tool.
    pub made_by: Option<&'a str>,
    /// Row of the Segmentation.
    pub instance_id: i64,
    /// Digest of the mask.
    pub mask_sha256: &'a [u8; 32],
    /// What was drawn.
    pub kind: &'a str,
    /// Whether it began with the machine's mask.
    pub edited: bool,
    /// Its regions.
    pub regions: &'a Value,
    /// The date in the Segmentation.
    pub at: OffsetDateTime,
}

/// Adds a mask and tells the pages that show the study.
///
/// # Errors
/// When a statement fails.
pub async fn insert(tx: &mut Tx, new: &NewCorrection<'_>) -> Result<CorrectionRow, DbError> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO correction (study_id, analysis_id, account_id, instance_id, mask_sha256, kind, edited, regions, at, \
         made_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
    )
    .bind(new.study_id)
    .bind(new.analysis)
    .bind(new.account_id)
    .bind(new.instance_id)
    .bind(new.mask_sha256.as_slice())
    .bind(new.kind)
    .bind(new.edited)
    .bind(new.regions)
    .bind(new.at)
    .bind(new.made_by)
    .fetch_one(&mut **tx)
    .await?;
    events::touch_study(tx, new.study_id).await?;
    Ok(sqlx::query_as(BY_ID).bind(id).fetch_one(&mut **tx).await?)
}

/// The latest mask of a reader for an analysis.
///
/// # Errors
/// When the statement fails.
pub async fn latest(tx: &mut Tx, analysis: Uuid, account_id: i64) -> Result<Option<CorrectionRow>, DbError> {
    Ok(sqlx::query_as(LATEST)
        .bind(analysis)
        .bind(account_id)
        .fetch_optional(&mut **tx)
        .await?)
}

impl Db {
    /// The masks of a study, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn corrections(&self, study: &Uid) -> Result<Vec<CorrectionRow>, DbError> {
        Ok(sqlx::query_as(OF_STUDY)
            .bind(study.as_str())
            .fetch_all(&self.app)
            .await?)
    }
}

/// The columns of [`CorrectionRow`], followed by what chooses the rows.
macro_rules! rows {
    ($which:literal) => {
        concat!(
            "SELECT correction.id, correction.analysis_id AS analysis, kind, edited, regions, ",
            "coalesce(account.display_name, made_by) AS reader, account.name AS reader_name, correction.at, ",
            "series_instance_uid, sop_instance_uid, mask_sha256 ",
            "FROM correction LEFT JOIN account ON account.id = account_id JOIN instance ON instance.id = instance_id ",
            "JOIN series ON series.id = series_id JOIN study ON study.id = correction.study_id ",
            $which
        )
    };
}

const BY_ID: &str = rows!("WHERE correction.id = $1");
const LATEST: &str =
    rows!("WHERE correction.analysis_id = $1 AND account_id = $2 ORDER BY correction.id DESC LIMIT 1");
const OF_STUDY: &str = rows!("WHERE study.study_instance_uid = $1 ORDER BY correction.id");
