//! Fetching by rule as rows: which studies a rule is for, what was asked for, and how it went.

use super::{Db, Tx, analysis::EVICTED, error::DbError};
use crate::domain::uid::Uid;
use sqlx::FromRow;
use std::time::Duration;
use uuid::Uuid;

/// How often a study is tried: with the pauses of [`Db::claim_fetch`] about a day.
const ATTEMPTS: i32 = 30;

/// Which studies a rule is for.
#[derive(Debug, Clone)]
pub struct Trigger<'a> {
    /// Name of the rule.
    pub rule: &'a str,
    /// Modality of a series that came.
    pub modality: Option<&'a str>,
    /// BodyPartExamined of such a series.
    pub body_part: Option<&'a str>,
    /// How long nothing has come for the study.
    pub settled: Duration,
}

/// A study that something is to be fetched for.
#[derive(Debug, Clone, FromRow)]
pub struct Claimed {
    /// The row.
    pub id: Uuid,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// PatientID.
    pub patient_id: String,
    /// IssuerOfPatientID.
    pub issuer_of_patient_id: Option<String>,
    /// StudyDate as written.
    pub study_date: Option<String>,
}

/// Something that is about to be asked for.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Name of the rule.
    pub rule: &'a str,
    /// StudyInstanceUID.
    pub study: &'a str,
    /// SeriesInstanceUID; all of the study without.
    pub series: Option<&'a str>,
    /// Whether it is analysed when it comes.
    pub analyse: bool,
}

/// Whether a study was fetched to be looked at only.
///
/// # Errors
/// When the statement fails.
pub async fn is_prior(tx: &mut Tx, study_id: i64) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM fetched JOIN study USING (study_instance_uid) WHERE study.id = $1 AND NOT analysed)",
    )
    .bind(study_id)
    .fetch_one(&mut **tx)
    .await?)
}

impl Db {
    /// Makes a rule known; it holds from now on, or since it was first known.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn know_fetch_rule(&self, name: &str) -> Result<(), DbError> {
        sqlx::query("INSERT INTO fetch_rule (name) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(name)
            .execute(&self.app)
            .await?;
        Ok(())
    }

    /// Files the studies that a rule is for; those that were fetched themselves are not among them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn file_fetches(&self, trigger: &Trigger<'_>) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO fetch_study (id, rule, study_id) \
             SELECT gen_random_uuid(), fetch_rule.name, study.id \
             FROM fetch_rule JOIN study ON study.arrived_at >= since \
             WHERE fetch_rule.name = $1 AND patient_id IS NOT NULL \
             AND study.received_at <= clock_timestamp() - make_interval(secs => $4) \
             AND EXISTS (SELECT FROM series WHERE series.study_id = study.id AND origin = 'received' \
                         AND conflict IS NULL AND ($2::text IS NULL OR modality = $2) \
                         AND ($3::text IS NULL OR body_part_examined = $3)) \
             AND NOT EXISTS (SELECT FROM fetched WHERE fetched.study_instance_uid = study.study_instance_uid \
                             AND series_instance_uid = '') \
             AND NOT EXISTS (SELECT FROM fetch_study filed WHERE filed.rule = $1 AND filed.study_id = study.id) \
             ON CONFLICT DO NOTHING",
        )
        .bind(trigger.rule)
        .bind(trigger.modality)
        .bind(trigger.body_part)
        .bind(trigger.settled.as_secs_f64())
        .execute(&self.app)
        .await?;
        Ok(())
    }

    /// Files, again if need be, the studies whose analysis failed for want of files that were evicted: once a failure.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn file_restores(&self, trigger: &Trigger<'_>) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO fetch_study (id, rule, study_id, failed_at) \
             SELECT gen_random_uuid(), $1, study.id, max(finished_at) \
             FROM analysis JOIN study ON study.id = analysis.study_id \
             WHERE analysis.state = 'failed' AND failure_code = $4 AND patient_id IS NOT NULL \
             AND EXISTS (SELECT FROM series WHERE series.study_id = study.id AND origin = 'received' \
                         AND conflict IS NULL AND ($2::text IS NULL OR modality = $2) \
                         AND ($3::text IS NULL OR body_part_examined = $3)) \
             GROUP BY study.id \
             ON CONFLICT (rule, study_id) DO UPDATE SET failed_at = EXCLUDED.failed_at, state = 'pending', \
             attempts = 0, next_at = clock_timestamp(), last_error = NULL \
             WHERE fetch_study.failed_at IS DISTINCT FROM EXCLUDED.failed_at",
        )
        .bind(trigger.rule)
        .bind(trigger.modality)
        .bind(trigger.body_part)
        .bind(EVICTED)
        .execute(&self.app)
        .await?;
        Ok(())
    }

    /// Series of a study that lack files because these were evicted.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn evicted_series(&self, study: &Uid) -> Result<Vec<String>, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT DISTINCT series_instance_uid FROM instance JOIN series ON series.id = series_id \
             JOIN study ON study.id = series.study_id WHERE study_instance_uid = $1 AND origin = 'received' \
             AND evicted_at IS NOT NULL AND instance.state = 'current'",
        )
        .bind(study.as_str())
        .fetch_all(&self.app)
        .await?)
    }

    /// Takes a study that is due; unless it is ended, it is tried again later each time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_fetch(&self, rule: &str) -> Result<Option<Claimed>, DbError> {
        Ok(sqlx::query_as(
            "UPDATE fetch_study SET attempts = attempts + 1, \
             state = CASE WHEN attempts + 1 >= $2 THEN 'dead' ELSE state END, \
             next_at = clock_timestamp() + least(make_interval(secs => 30 * 2 ^ least(attempts, 20)), '1 hour') \
             FROM study WHERE study.id = fetch_study.study_id AND fetch_study.id = \
             (SELECT id FROM fetch_study due WHERE due.rule = $1 AND due.state = 'pending' \
              AND due.next_at <= clock_timestamp() ORDER BY due.next_at LIMIT 1 FOR UPDATE SKIP LOCKED) \
             RETURNING fetch_study.id, study_instance_uid, patient_id, issuer_of_patient_id, study_date",
        )
        .bind(rule)
        .bind(ATTEMPTS)
        .fetch_optional(&self.app)
        .await?)
    }

    /// Ends one, or notes why it did not come to its end.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_fetch(&self, id: Uuid, error: Option<&str>) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE fetch_study SET last_error = $2, state = CASE WHEN $2 IS NULL THEN 'done' ELSE state END WHERE id = $1",
        )
        .bind(id)
        .bind(error)
        .execute(&self.app)
        .await?;
        Ok(())
    }

    /// Lets one wait: the rule has asked for as much as it may for now. Such a wait is no attempt.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn postpone_fetch(&self, id: Uuid, delay: Duration) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE fetch_study SET attempts = attempts - 1, state = 'pending', \
             next_at = clock_timestamp() + make_interval(secs => $2) WHERE id = $1",
        )
        .bind(id)
        .bind(delay.as_secs_f64())
        .execute(&self.app)
        .await?;
        Ok(())
    }

    /// How much a rule has asked for within this time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn fetched_within(&self, rule: &str, time: Duration) -> Result<i64, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT count(*) FROM fetched WHERE rule = $1 \
             AND asked_at > clock_timestamp() - make_interval(secs => $2)",
        )
        .bind(rule)
        .bind(time.as_secs_f64())
        .fetch_one(&self.app)
        .await?)
    }

    /// Notes what is about to be asked for.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_fetched(&self, asked: &Asked<'_>) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO fetched (rule, study_instance_uid, series_instance_uid, analysed) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (rule, study_instance_uid, series_instance_uid) \
             DO UPDATE SET asked_at = clock_timestamp()",
        )
        .bind(asked.rule)
        .bind(asked.study)
        .bind(asked.series.unwrap_or_default())
        .bind(asked.analyse)
        .execute(&self.app)
        .await?;
        Ok(())
    }
}
