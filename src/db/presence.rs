//! Who looks at which study now.

use super::{Db, error::DbError, events};
use crate::domain::uid::Uid;
use serde::Serialize;
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Somebody else on the same study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct Present {
    /// Who, as others read it.
    pub name: String,
    /// When they opened it.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Whether they have a mask in the hand.
    pub drawing: bool,
}

impl Db {
    /// Notes that a person's page is open on a study, and says who else is there; none when there is no such study.
    ///
    /// Whoever looks at the study is told of a change, not of every sign of life.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn be_present(
        &self,
        study: &Uid,
        account_id: i64,
        drawing: bool,
    ) -> Result<Option<Vec<Present>>, DbError> {
        let mut tx = self.begin().await?;
        let here: Option<(i64, bool)> = sqlx::query_as(BE_PRESENT)
            .bind(study.as_str())
            .bind(account_id)
            .bind(drawing)
            .fetch_optional(&mut *tx)
            .await?;
        let Some((study_id, is_news)) = here else {
            return Ok(None);
        };
        let left: Vec<i64> = sqlx::query_scalar(FORGET).fetch_all(&mut *tx).await?;
        for changed in left.into_iter().chain(is_news.then_some(study_id)) {
            events::notify_study(&mut tx, changed).await?;
        }
        let others = sqlx::query_as(
            "SELECT name, since, drawing FROM present WHERE study_id = $1 AND account_id <> $2 ORDER BY since, name",
        )
        .bind(study_id)
        .bind(account_id)
        .fetch_all(&mut *tx)
        .await?;
        super::commit(tx).await?;
        Ok(Some(others))
    }

    /// Notes that a person's page on a study was closed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn leave(&self, study: &Uid, account_id: i64) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let left: Option<i64> = sqlx::query_scalar(
            "DELETE FROM presence USING study WHERE study.id = presence.study_id \
             AND study_instance_uid = $1 AND account_id = $2 RETURNING presence.study_id",
        )
        .bind(study.as_str())
        .bind(account_id)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(study_id) = left {
            events::notify_study(&mut tx, study_id).await?;
        }
        super::commit(tx).await
    }
}

/// The study, and whether it is news: nobody knew, they were thought to be gone, or they took up or put down a mask.
const BE_PRESENT: &str = "
WITH before AS (
    SELECT study.id AS study_id, present.drawing
    FROM study LEFT JOIN present ON present.study_id = study.id AND present.account_id = $2
    WHERE study_instance_uid = $1
), now AS (
    INSERT INTO presence (study_id, account_id, drawing) SELECT study_id, $2, $3 FROM before
    ON CONFLICT (study_id, account_id) DO UPDATE SET seen_at = clock_timestamp(), drawing = EXCLUDED.drawing,
        since = CASE WHEN (SELECT drawing FROM before) IS NULL THEN clock_timestamp() ELSE presence.since END
)
SELECT study_id, drawing IS DISTINCT FROM $3 FROM before
";

const FORGET: &str = "
DELETE FROM presence WHERE seen_at <= clock_timestamp() - interval '45 seconds' RETURNING study_id
";
