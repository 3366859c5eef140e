//! Filters of the worklist that a person keeps under a name.

use super::{Db, error::DbError};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

/// The most views of one person.
pub const MOST_VIEWS: i64 = 50;

/// A filter with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow, ToSchema)]
pub struct SavedView {
    /// What the person calls it, 1 to 60 characters.
    pub name: String,
    /// The query part of the page's address, at most 500 characters.
    pub query: String,
}

impl Db {
    /// A person's views, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn saved_views(&self, account_id: i64) -> Result<Vec<SavedView>, DbError> {
        Ok(
            sqlx::query_as("SELECT name, query FROM saved_view WHERE account_id = $1 ORDER BY name")
                .bind(account_id)
                .fetch_all(&self.app)
                .await?,
        )
    }

    /// Keeps a view, in place of the one of that name; false when the person has too many.
    ///
    /// # Errors
    /// When the database does not answer, or the lengths are not [`SavedView`]'s.
    pub async fn save_view(&self, account_id: i64, view: &SavedView) -> Result<bool, DbError> {
        let done = sqlx::query(
            "INSERT INTO saved_view (account_id, name, query) SELECT $1, $2, $3 \
             WHERE (SELECT count(*) FROM saved_view WHERE account_id = $1 AND name <> $2) < $4 \
             ON CONFLICT (account_id, name) DO UPDATE SET query = EXCLUDED.query",
        )
        .bind(account_id)
        .bind(&view.name)
        .bind(&view.query)
        .bind(MOST_VIEWS)
        .execute(&self.app)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Forgets a view; false when there is none of that name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_view(&self, account_id: i64, name: &str) -> Result<bool, DbError> {
        let done = sqlx::query("DELETE FROM saved_view WHERE account_id = $1 AND name = $2")
            .bind(account_id)
            .bind(name)
            .execute(&self.app)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
