//! Who a patient is, as it was corrected.

use super::{Db, error::DbError};
use crate::dicom::coerce::Coercion;
use sqlx::types::Json;

impl Db {
    /// What is handed out of a study instead of what is stored; `None` when that is right as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn coercion(&self, study_instance_uid: &str) -> Result<Option<Coercion>, DbError> {
        let found: Option<Option<Json<Coercion>>> =
            sqlx::query_scalar("SELECT coercion FROM study WHERE study_instance_uid = $1")
                .bind(study_instance_uid)
                .fetch_optional(&self.app)
                .await?;
        Ok(found.flatten().map(|Json(coercion)| coercion))
    }
}
