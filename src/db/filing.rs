//! What happened → rows of the outbox, in the transaction in which it happened.
//!
//! So neither is there without the other; each pair of target and subject is there once, so that a run that is repeated
//! files nothing twice.
//! Which target hears of what is its rule (`delivery_target`); after a correction of identity everything that a target had is
//! filed again as a new edition.
//! A notification is filed for each alert, ahead of everything else; one that nobody acknowledged in time is filed again for
//! another target.

use super::{Db, Tx, error::DbError};
use sqlx::FromRow;
use uuid::Uuid;

/// What [`analysis`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filed {
    /// The targets that hear of it: name and subject.
    pub targets: Vec<(String, String)>,
    /// Deliveries of superseded analyses that will not be made: target and analysis.
    pub withdrawn: Vec<(String, Uuid)>,
}

/// A notification that nobody acknowledged, and where it goes now.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Escalated {
    /// The notification.
    pub id: Uuid,
    /// Who did not take note.
    pub target: String,
    /// Who is told now.
    pub escalate_to: String,
    /// Whether it was filed: a target that knows already is not told twice.
    pub is_filed: bool,
    /// The analysis.
    pub analysis_id: Uuid,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
}

/// A delivery whose server ended while it sent something that was superseded meanwhile.
#[derive(Debug, Clone, FromRow)]
pub struct Abandoned {
    /// Its name.
    pub id: Uuid,
    /// The analysis.
    pub analysis_id: Uuid,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SOPInstanceUIDs of which nobody knows whether the target has them.
    pub instances: Vec<String>,
}

/// Files an analysis that was just completed for its targets, and withdraws what it supersedes.
///
/// A target gets the answers of its rule, and each revision of a study of which it was sent anything before.
/// `is_alert`: whether somebody has to be told.
///
/// # Errors
/// When a statement fails.
pub async fn analysis(
    tx: &mut Tx,
    analysis: Uuid,
    superseded: &[Uuid],
    is_alert: bool,
) -> Result<Filed, DbError> {
    let withdrawn = sqlx::query_as(
        "UPDATE outbox SET state = 'superseded', ended_at = clock_timestamp() \
         WHERE analysis_id = ANY($1) AND state IN ('pending', 'dead') AND subject IN ('results', 'notification') \
         RETURNING target, analysis_id",
    )
    .bind(superseded)
    .fetch_all(&mut **tx)
    .await?;
    let rows: Vec<(Uuid, String, String)> = sqlx::query_as(FILE_ANALYSIS)
        .bind(analysis)
        .bind(is_alert)
        .fetch_all(&mut **tx)
        .await?;
    let ids: Vec<Uuid> = rows.iter().map(|(id, ..)| *id).collect();
    add_results(tx, &ids).await?;
    Ok(Filed {
        targets: rows
            .into_iter()
            .map(|(_, target, subject)| (target, subject))
            .collect(),
        withdrawn,
    })
}

/// The instances of filed results.
async fn add_results(tx: &mut Tx, ids: &[Uuid]) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO outbox_instance (outbox_id, instance_id) SELECT outbox.id, instance_id \
         FROM outbox JOIN delivery_target ON name = target \
         JOIN analysis_instance ON analysis_instance.analysis_id = outbox.analysis_id AND role = ANY(roles) \
         JOIN instance ON instance.id = instance_id AND instance.state = 'current' \
         WHERE outbox.id = ANY($1) AND outbox.subject = 'results' AND NOT is_message ON CONFLICT DO NOTHING",
    )
    .bind(ids)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Files a reader's mask for the targets that take them; returns their names.
///
/// # Errors
/// When a statement fails.
pub async fn correction(tx: &mut Tx, correction: i64) -> Result<Vec<String>, DbError> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(FILE_CORRECTION)
        .bind(correction)
        .fetch_all(&mut **tx)
        .await?;
    add_corrections(tx, &rows.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await?;
    Ok(rows.into_iter().map(|(_, target)| target).collect())
}

/// The instances of filed corrections.
async fn add_corrections(tx: &mut Tx, ids: &[Uuid]) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO outbox_instance (outbox_id, instance_id) SELECT outbox.id, correction.instance_id \
         FROM outbox JOIN correction ON correction.id = correction_id \
         WHERE outbox.id = ANY($1) AND NOT is_message ON CONFLICT DO NOTHING",
    )
    .bind(ids)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Files a verdict for the targets that hear of them; who judged has taken note of what was notified. Returns the targets.
///
/// # Errors
/// When a statement fails.
pub async fn verdict(
    tx: &mut Tx,
    verdict: i64,
    analysis: Uuid,
    reader: &str,
) -> Result<Vec<String>, DbError> {
    sqlx::query(
        "UPDATE outbox SET acknowledged_at = clock_timestamp(), acknowledged_by = $2 \
         WHERE analysis_id = $1 AND subject = 'notification' AND acknowledged_at IS NULL",
    )
    .bind(analysis)
    .bind(reader)
    .execute(&mut **tx)
    .await?;
    Ok(sqlx::query_scalar(FILE_VERDICT)
        .bind(verdict)
        .fetch_all(&mut **tx)
        .await?)
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged {
    /// It is noted: target, analysis and study.
    Yes(String, Uuid, String),
    /// Somebody was faster.
    Already(String),
    /// It is no notification.
    NoNotification,
    /// There is no such delivery.
    Unknown,
}

/// Notes that a person took note of a notification.
///
/// # Errors
/// When a statement fails.
pub async fn acknowledge(tx: &mut Tx, id: Uuid, by: &str) -> Result<Acknowledged, DbError> {
    type Row = (String, Uuid, String, String, Option<String>);
    let row: Option<Row> = sqlx::query_as(
        "SELECT target, analysis_id, study_instance_uid, subject, acknowledged_by FROM outbox \
         JOIN analysis ON analysis.id = analysis_id JOIN study ON study.id = analysis.study_id \
         WHERE outbox.id = $1 FOR UPDATE OF outbox",
    )
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?;
    let Some((target, analysis, study, subject, known)) = row else {
        return Ok(Acknowledged::Unknown);
    };
    if subject != "notification" {
        return Ok(Acknowledged::NoNotification);
    }
    if let Some(known) = known {
        return Ok(Acknowledged::Already(known));
    }
    sqlx::query("UPDATE outbox SET acknowledged_at = clock_timestamp(), acknowledged_by = $2 WHERE id = $1")
        .bind(id)
        .bind(by)
        .execute(&mut **tx)
        .await?;
    Ok(Acknowledged::Yes(target, analysis, study))
}

/// Files the notifications of a target that nobody acknowledged in time for the target that its rule names.
///
/// # Errors
/// When a statement fails.
pub async fn escalate(tx: &mut Tx, target: &str) -> Result<Vec<Escalated>, DbError> {
    Ok(sqlx::query_as(ESCALATE).bind(target).fetch_all(&mut **tx).await?)
}

/// The superseded deliveries of a target whose server ended while it sent them: nobody else takes them up any more.
///
/// # Errors
/// When a statement fails.
pub async fn abandoned(tx: &mut Tx, target: &str) -> Result<Vec<Abandoned>, DbError> {
    Ok(sqlx::query_as(ABANDONED)
        .bind(target)
        .fetch_all(&mut **tx)
        .await?)
}

/// Files everything of a study again that a target had or waits for; what waits is replaced. Returns the targets.
///
/// # Errors
/// When a statement fails.
pub async fn again(tx: &mut Tx, study_id: i64) -> Result<Vec<(String, String)>, DbError> {
    let rows: Vec<(Uuid, String, String)> = sqlx::query_as(AGAIN).bind(study_id).fetch_all(&mut **tx).await?;
    let ids: Vec<Uuid> = rows.iter().map(|(id, ..)| *id).collect();
    add_results(tx, &ids).await?;
    add_corrections(tx, &ids).await?;
    Ok(rows
        .into_iter()
        .map(|(_, target, subject)| (target, subject))
        .collect())
}

impl Db {
    /// Whether a notification of a target has to be escalated now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_to_escalate(&self, target: &str) -> Result<bool, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM outbox JOIN delivery_target ON name = target \
             WHERE target = $1 AND subject = 'notification' AND escalated_at IS NULL AND acknowledged_at IS NULL \
             AND delivery_target.escalate_to IS NOT NULL AND state <> 'superseded' \
             AND (escalate_at <= clock_timestamp() OR state = 'dead'))",
        )
        .bind(target)
        .fetch_one(&self.app)
        .await?)
    }

    /// Whether a target has a superseded delivery whose server ended while it sent it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_abandoned(&self, target: &str) -> Result<bool, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM outbox WHERE target = $1 AND state = 'superseded' AND leased_by IS NOT NULL \
             AND lease_until <= clock_timestamp())",
        )
        .bind(target)
        .fetch_one(&self.app)
        .await?)
    }
}

/// What all conditions of a target on the images say, of the analysis `this`.
macro_rules! matches {
    () => {
        "NOT EXISTS (
      SELECT FROM jsonb_to_recordset(target.matching) AS wanted(tag text, patterns jsonb)
      WHERE NOT EXISTS (
          SELECT FROM analysis_instance looked JOIN instance ON instance.id = looked.instance_id,
               jsonb_array_elements_text(wanted.patterns) AS pattern
          WHERE looked.analysis_id = this.id AND looked.role = 'source'
            AND instance.metadata -> wanted.tag -> 'Value' ->> 0 ILIKE pattern))"
    };
}

const FILE_ANALYSIS: &str = concat!(
    "
INSERT INTO outbox (id, analysis_id, target, subject, is_message, urgency, edition, escalate_at)
SELECT gen_random_uuid(), this.id, target.name, heard.subject,
       target.kind IN ('webhook', 'hl7', 'fhir') OR heard.subject = 'notification',
       CASE WHEN heard.subject = 'notification' THEN -1
            ELSE coalesce(target.urgency,
                          CASE this.answer WHEN 'present' THEN 0 WHEN 'uncertain' THEN 1 ELSE 2 END) END,
       study.identity_edition,
       CASE WHEN heard.subject = 'notification'
            THEN clock_timestamp() + make_interval(secs => target.escalate_seconds) END
FROM analysis this JOIN study ON study.id = this.study_id
CROSS JOIN delivery_target target CROSS JOIN LATERAL unnest(target.subjects) AS heard(subject)
WHERE this.id = $1 AND this.superseded_at IS NULL AND target.active AND NOT study.hidden
  AND CASE heard.subject
      WHEN 'notification' THEN $2 AND this.answer = ANY(target.answers)
      WHEN 'results' THEN
          (this.answer = ANY(target.answers)
           OR EXISTS (SELECT FROM outbox earlier JOIN analysis before ON before.id = earlier.analysis_id
                      WHERE earlier.target = target.name AND before.study_id = this.study_id
                        AND earlier.subject = 'results' AND earlier.attempts > 0))
          AND (target.kind IN ('webhook', 'hl7', 'fhir')
               OR EXISTS (SELECT FROM analysis_instance WHERE analysis_id = this.id AND role = ANY(target.roles)))
      ELSE false END
  AND ",
    matches!(),
    "
ORDER BY target.name, heard.subject
ON CONFLICT DO NOTHING
RETURNING id, target, subject
"
);

const FILE_CORRECTION: &str = concat!(
    "
INSERT INTO outbox (id, analysis_id, target, subject, is_message, correction_id, urgency, edition)
SELECT gen_random_uuid(), this.id, target.name, 'correction', target.kind IN ('webhook', 'hl7', 'fhir'),
       correction.id, coalesce(target.urgency, 1), study.identity_edition
FROM correction JOIN analysis this ON this.id = correction.analysis_id JOIN study ON study.id = this.study_id
CROSS JOIN delivery_target target
WHERE correction.id = $1 AND target.active AND 'correction' = ANY(target.subjects)
  AND ",
    matches!(),
    "
ORDER BY target.name
ON CONFLICT DO NOTHING
RETURNING id, target
"
);

const FILE_VERDICT: &str = concat!(
    "
INSERT INTO outbox (id, analysis_id, target, subject, is_message, verdict_id, urgency, edition)
SELECT gen_random_uuid(), this.id, target.name, 'verdict', true, verdict.id, coalesce(target.urgency, 1),
       study.identity_edition
FROM verdict JOIN analysis this ON this.id = verdict.analysis_id JOIN study ON study.id = this.study_id
CROSS JOIN delivery_target target
WHERE verdict.id = $1 AND target.active AND 'verdict' = ANY(target.subjects)
  AND ",
    matches!(),
    "
ORDER BY target.name
ON CONFLICT DO NOTHING
RETURNING target
"
);

const ESCALATE: &str = "
WITH late AS (
    UPDATE outbox SET escalated_at = clock_timestamp(),
           note = concat('nobody acknowledged it in time: it goes to ', rule.escalate_to)
    FROM delivery_target rule
    WHERE rule.name = outbox.target AND outbox.target = $1 AND subject = 'notification'
      AND acknowledged_at IS NULL AND escalated_at IS NULL AND rule.escalate_to IS NOT NULL
      AND (escalate_at <= clock_timestamp() OR outbox.state = 'dead') AND outbox.state <> 'superseded'
    RETURNING outbox.id, outbox.target, outbox.analysis_id, outbox.urgency, outbox.edition, rule.escalate_to
), filed AS (
    INSERT INTO outbox (id, analysis_id, target, subject, is_message, urgency, edition, escalate_at, escalated_from, note)
    SELECT gen_random_uuid(), late.analysis_id, next.name, 'notification', true, late.urgency, late.edition,
           clock_timestamp() + make_interval(secs => next.escalate_seconds), late.id,
           concat('escalated: ', late.target, ' did not acknowledge it in time')
    FROM late JOIN delivery_target next ON next.name = late.escalate_to AND next.active
    ON CONFLICT DO NOTHING
    RETURNING escalated_from
)
SELECT late.id, late.target, late.escalate_to, late.analysis_id, study.study_instance_uid,
       EXISTS (SELECT FROM filed WHERE escalated_from = late.id) AS is_filed
FROM late JOIN analysis ON analysis.id = late.analysis_id JOIN study ON study.id = analysis.study_id
ORDER BY late.id
";

const ABANDONED: &str = "
WITH lost AS (
    UPDATE outbox SET leased_by = NULL, lease_until = NULL,
           note = coalesce(note, 'a server ended while it sent this: what the target took of it is not known')
    WHERE target = $1 AND state = 'superseded' AND leased_by IS NOT NULL AND lease_until <= clock_timestamp()
    RETURNING id, analysis_id
)
SELECT lost.id, lost.analysis_id, study.study_instance_uid,
       ARRAY(SELECT sop_instance_uid FROM outbox_instance JOIN instance ON instance.id = instance_id
             WHERE outbox_id = lost.id AND outbox_instance.state = 'pending' ORDER BY instance.id) AS instances
FROM lost JOIN analysis ON analysis.id = lost.analysis_id JOIN study ON study.id = analysis.study_id
";

const AGAIN: &str = "
WITH had AS (
    SELECT DISTINCT ON (outbox.analysis_id, outbox.target, subject, correction_id, verdict_id) outbox.*
    FROM outbox JOIN analysis ON analysis.id = outbox.analysis_id JOIN delivery_target ON name = target
    WHERE analysis.study_id = $1 AND outbox.state <> 'superseded' AND delivery_target.active
      AND subject <> 'notification'
    ORDER BY outbox.analysis_id, outbox.target, subject, correction_id, verdict_id, edition DESC
), withdrawn AS (
    UPDATE outbox SET state = 'superseded', ended_at = clock_timestamp()
    FROM had WHERE outbox.id = had.id AND outbox.state IN ('pending', 'dead')
)
INSERT INTO outbox (id, analysis_id, target, subject, is_message, correction_id, verdict_id, urgency, edition, note)
SELECT gen_random_uuid(), had.analysis_id, had.target, had.subject, had.is_message, had.correction_id, had.verdict_id,
       had.urgency, study.identity_edition, 'sent again: the identity of the patient was corrected'
FROM had JOIN study ON study.id = $1
ON CONFLICT DO NOTHING
RETURNING id, target, subject
";
