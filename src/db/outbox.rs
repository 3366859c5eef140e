//! Deliveries as rows: filed by `db::filing`, claimed under a lease, ended as delivered, dead or superseded.
//!
//! A claimed row has a lease that its server renews; when the server dies another one takes the row after the lease.
//! What the target said of each instance is kept, so that an attempt sends only what is not there yet.
//! Instances whose SOP class a target does not take are replaced by the secondary capture of the analysis, and the row says so.
//! Nothing here knows an address or a secret: those are in the servers' files (`deliver`).

use super::{Db, Tx, error::DbError};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, Row, types::Json};
use std::time::Duration;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// The rule of one target.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct TargetRule {
    /// Its name.
    pub name: String,
    /// `stow`, `cstore`, `webhook`, `hl7`, `fhir` or `folder`.
    pub kind: String,
    /// What it hears of: `notification`, `results`, `correction`, `verdict`.
    pub subjects: Vec<String>,
    /// Which results it gets.
    pub roles: Vec<String>,
    /// The answers of analyses that it gets.
    pub answers: Vec<String>,
    /// Conditions on the images: `[{"tag": "00080080", "patterns": ["North%"]}]`.
    pub matching: Value,
    /// How urgent its deliveries are; by the answer when it does not say.
    pub urgency: Option<i32>,
    /// After how many seconds a notification that nobody acknowledged goes to `escalate_to`.
    pub escalate_seconds: Option<i32>,
    /// Another target.
    pub escalate_to: Option<String>,
    /// How often a delivery is tried.
    pub attempts: i32,
}

/// An instance on its way out.
#[derive(Debug, Clone, FromRow)]
pub struct Outgoing {
    /// Row.
    pub instance_id: i64,
    /// `seg`, `labelmap`, `structures`, `pm`, `sr`, `sc`, `kos`, `reader` or `other`.
    pub role: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Transfer syntax of the file.
    pub transfer_syntax_uid: String,
    /// Its file.
    pub archive_key: String,
    /// Bytes of the file.
    pub size_bytes: i64,
}

/// A delivery that this server holds.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its name.
    pub id: Uuid,
    /// The analysis.
    pub analysis: Uuid,
    /// What it is about: `notification`, `results`, `correction` or `verdict`.
    pub subject: String,
    /// Whether it is words, and has no instances.
    pub is_message: bool,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// This is the so-manieth attempt, from 1.
    pub attempt: i32,
    /// Attempts in all.
    pub max_attempts: i32,
    /// Whether a series that the analysis looked at is quarantined.
    pub quarantined: bool,
    /// What the target has not got yet.
    pub instances: Vec<Outgoing>,
}

/// What an attempt ends with.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// Instances that the target has now.
    pub delivered: Vec<i64>,
    /// Instances that it will never take, and why.
    pub refused: Vec<(i64, String)>,
    /// Instances that it may take later, and why not now.
    pub postponed: Vec<(i64, String)>,
    /// Those of the refused whose SOP class it does not take: the secondary capture may go instead.
    pub unsupported: Vec<i64>,
    /// Whether the target has the message.
    pub message_taken: bool,
    /// Whether the target took note of the notification, rather than only having it.
    pub acknowledged: bool,
    /// Why the rest did not get there, without patient data.
    pub error: Option<String>,
    /// Whether another attempt would end like this one.
    pub is_final: bool,
    /// When it is tried again, if it is.
    pub delay: Duration,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// All of it is there.
    Delivered,
    /// It is given up.
    Dead,
    /// It is tried again.
    Pending,
    /// The secondary capture goes now, instead of what the target does not take.
    Degraded,
    /// A later revision goes instead.
    Superseded,
    /// Another server has it now: this one was silent for too long.
    Lost,
}

/// A delivery as the API shows it.
#[derive(Debug, Clone, Serialize, ToSchema, FromRow)]
pub struct Delivery {
    /// Its name.
    pub id: Uuid,
    /// Name of the target.
    pub target: String,
    /// Whether the file that the server was started with still names the target.
    pub target_active: bool,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// The analysis.
    pub analysis: Uuid,
    /// Revision of the analysis.
    pub revision: i32,
    /// What it is about: `notification`, `results`, `correction` or `verdict`.
    pub subject: String,
    /// What is different from what was asked for: the secondary capture instead of what the target does not take, an
    /// escalation.
    pub note: Option<String>,
    /// When the target or a person took note of a notification.
    #[serde(with = "time::serde::rfc3339::option")]
    pub acknowledged_at: Option<OffsetDateTime>,
    /// Who took note: the target, or a person.
    pub acknowledged_by: Option<String>,
    /// When it went to another target because nobody had taken note.
    #[serde(with = "time::serde::rfc3339::option")]
    pub escalated_at: Option<OffsetDateTime>,
    /// `pending`, `delivered`, `dead` or `superseded`.
    pub state: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the analysis was committed.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it is tried next; null when it is not.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_at: Option<OffsetDateTime>,
    /// When it came to its end.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// What the target said of each instance.
    #[schema(value_type = Vec<DeliveredInstance>)]
    pub instances: Json<Vec<DeliveredInstance>>,
}

/// An instance of a delivery as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
pub struct DeliveredInstance {
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// `seg`, `labelmap`, `structures`, `pm`, `sr`, `sc`, `kos`, `reader` or `other`.
    pub role: String,
    /// `pending`, `delivered`, `refused` or `replaced`.
    pub state: String,
    /// Why it is not there.
    pub last_error: Option<String>,
}

/// Which deliveries are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this state.
    pub state: Option<String>,
    /// Only this target.
    pub target: Option<String>,
    /// Only this study.
    pub study_instance_uid: Option<String>,
}

/// What [`retry`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// It is tried now: target, analysis and study.
    Yes(String, Uuid, String),
    /// It is at an end that cannot be undone.
    Ended(String),
    /// There is no such delivery.
    Unknown,
}

/// Makes the rules those of a file; returns the rules before, if they were others.
///
/// # Errors
/// When a statement fails.
pub async fn set_targets(tx: &mut Tx, rules: &[TargetRule]) -> Result<Option<Vec<TargetRule>>, DbError> {
    sqlx::query("LOCK TABLE delivery_target IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut **tx)
        .await?;
    let before: Vec<TargetRule> = sqlx::query_as(
        "SELECT name, kind, subjects, roles, answers, matching, urgency, escalate_seconds, escalate_to, attempts \
         FROM delivery_target WHERE active ORDER BY name",
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut wanted = rules.to_vec();
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    if before == wanted {
        return Ok(None);
    }
    for rule in rules {
        sqlx::query(
            "INSERT INTO delivery_target (name, kind, subjects, roles, answers, matching, urgency, escalate_seconds, \
             escalate_to, attempts, active) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, true) \
             ON CONFLICT (name) DO UPDATE SET kind = $2, subjects = $3, roles = $4, answers = $5, matching = $6, \
             urgency = $7, escalate_seconds = $8, escalate_to = $9, attempts = $10, active = true, \
             changed_at = clock_timestamp()",
        )
        .bind(&rule.name)
        .bind(&rule.kind)
        .bind(&rule.subjects)
        .bind(&rule.roles)
        .bind(&rule.answers)
        .bind(&rule.matching)
        .bind(rule.urgency)
        .bind(rule.escalate_seconds)
        .bind(&rule.escalate_to)
        .bind(rule.attempts)
        .execute(&mut **tx)
        .await?;
    }
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    sqlx::query(
        "UPDATE delivery_target SET active = false, changed_at = clock_timestamp() WHERE active AND name <> ALL($1)",
    )
    .bind(names)
    .execute(&mut **tx)
    .await?;
    Ok(Some(before))
}

/// Ends an attempt: what was delivered is noted whoever holds the row now, the row's own state only by its holder.
///
/// # Errors
/// When a statement fails.
pub async fn finish(tx: &mut Tx, id: Uuid, server: Uuid, attempt: &Attempt) -> Result<Became, DbError> {
    let row =
        sqlx::query("SELECT state, is_message, leased_by = $2 AS ours FROM outbox WHERE id = $1 FOR UPDATE")
            .bind(id)
            .bind(server)
            .fetch_one(&mut **tx)
            .await?;
    let (state, ours): (String, Option<bool>) = (row.try_get("state")?, row.try_get("ours")?);
    let is_message: bool = row.try_get("is_message")?;
    sqlx::query(
        "UPDATE outbox_instance SET state = 'delivered', last_error = NULL \
         WHERE outbox_id = $1 AND instance_id = ANY($2)",
    )
    .bind(id)
    .bind(&attempt.delivered)
    .execute(&mut **tx)
    .await?;
    for (instances, state) in [(&attempt.refused, "refused"), (&attempt.postponed, "pending")] {
        for (instance, why) in instances {
            sqlx::query(
                "UPDATE outbox_instance SET state = $3, last_error = $4 \
                 WHERE outbox_id = $1 AND instance_id = $2 AND state = 'pending'",
            )
            .bind(id)
            .bind(instance)
            .bind(state)
            .bind(why)
            .execute(&mut **tx)
            .await?;
        }
    }
    let degraded = state == "pending" && substitute(tx, id, &attempt.unsupported).await?;
    let (waiting, refused): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'refused') \
         FROM outbox_instance WHERE outbox_id = $1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    let is_there = if is_message {
        attempt.message_taken
    } else {
        (waiting, refused) == (0, 0)
    };
    let became = match (waiting, refused) {
        _ if is_there => Became::Delivered,
        _ if state == "superseded" => {
            // What was sent of it is in the trail now: nobody has to find out what became of it.
            sqlx::query(
                "UPDATE outbox SET leased_by = NULL, lease_until = NULL WHERE id = $1 AND leased_by = $2",
            )
            .bind(id)
            .bind(server)
            .execute(&mut **tx)
            .await?;
            return Ok(Became::Superseded);
        }
        _ if ours != Some(true) || state != "pending" => return Ok(Became::Lost),
        _ if degraded => Became::Degraded,
        (0, _) if !is_message => Became::Dead,
        _ if attempt.is_final => Became::Dead,
        _ => Became::Pending,
    };
    sqlx::query(
        "UPDATE outbox SET state = $2, last_error = $3, leased_by = NULL, lease_until = NULL, \
         ended_at = CASE WHEN $2 = 'pending' THEN NULL ELSE clock_timestamp() END, \
         attempts = CASE WHEN $6 THEN 0 ELSE attempts END, \
         next_at = clock_timestamp() + make_interval(secs => $4), \
         acknowledged_at = CASE WHEN $5 THEN coalesce(acknowledged_at, clock_timestamp()) ELSE acknowledged_at END, \
         acknowledged_by = CASE WHEN $5 THEN coalesce(acknowledged_by, target) ELSE acknowledged_by END \
         WHERE id = $1",
    )
    .bind(id)
    .bind(match became {
        Became::Delivered => "delivered",
        Became::Dead => "dead",
        _ => "pending",
    })
    .bind(attempt.error.as_deref().filter(|_| became != Became::Delivered))
    .bind(if became == Became::Degraded {
        0.0
    } else {
        attempt.delay.as_secs_f64()
    })
    .bind(attempt.acknowledged)
    .bind(became == Became::Degraded)
    .execute(&mut **tx)
    .await?;
    Ok(became)
}

/// Puts the secondary capture of the analysis in the place of refused instances; false when there is none to put.
async fn substitute(tx: &mut Tx, id: Uuid, unsupported: &[i64]) -> Result<bool, DbError> {
    if unsupported.is_empty() {
        return Ok(false);
    }
    let added = sqlx::query(
        "INSERT INTO outbox_instance (outbox_id, instance_id) SELECT outbox.id, made.instance_id \
         FROM outbox JOIN analysis_instance made ON made.analysis_id = outbox.analysis_id AND made.role = 'sc' \
         JOIN instance ON instance.id = made.instance_id AND instance.state = 'current' \
         WHERE outbox.id = $1 AND outbox.subject = 'results' ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .execute(&mut **tx)
    .await?
    .rows_affected();
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM outbox_instance sent JOIN outbox ON outbox.id = outbox_id \
         JOIN analysis_instance made ON made.analysis_id = outbox.analysis_id AND made.role = 'sc' \
         AND made.instance_id = sent.instance_id WHERE sent.outbox_id = $1 AND sent.state <> 'refused')",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    if !there {
        return Ok(false);
    }
    sqlx::query(
        "WITH replaced AS (UPDATE outbox_instance sent SET state = 'replaced' FROM analysis_instance made, outbox, instance \
             WHERE sent.outbox_id = $1 AND sent.instance_id = ANY($2) AND sent.state = 'refused' AND outbox.id = $1 \
             AND made.analysis_id = outbox.analysis_id AND made.instance_id = sent.instance_id AND made.role <> 'sc' \
             AND instance.id = sent.instance_id RETURNING made.role, instance.sop_class_uid) \
         UPDATE outbox SET note = (SELECT concat('degraded: the target does not take ', \
             string_agg(DISTINCT concat(role, ' (', sop_class_uid, ')'), ', '), '; the secondary capture goes instead') \
             FROM replaced) WHERE id = $1 AND EXISTS (SELECT FROM replaced)",
    )
    .bind(id)
    .bind(unsupported)
    .execute(&mut **tx)
    .await?;
    Ok(added > 0)
}

/// Tries a delivery now: one that waits, or a dead one with all its attempts and refused instances again.
///
/// # Errors
/// When a statement fails.
pub async fn retry(tx: &mut Tx, id: Uuid) -> Result<Retried, DbError> {
    let row: Option<(String, Uuid, String, String)> = sqlx::query_as(
        "SELECT target, analysis_id, study_instance_uid, outbox.state FROM outbox \
         JOIN analysis ON analysis.id = analysis_id JOIN study ON study.id = analysis.study_id \
         WHERE outbox.id = $1 FOR UPDATE OF outbox",
    )
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?;
    let Some((target, analysis, study, state)) = row else {
        return Ok(Retried::Unknown);
    };
    match state.as_str() {
        "pending" => {
            sqlx::query("UPDATE outbox SET next_at = clock_timestamp() WHERE id = $1")
                .bind(id)
                .execute(&mut **tx)
                .await?;
        }
        "dead" => {
            sqlx::query(
                "UPDATE outbox SET state = 'pending', ended_at = NULL, attempts = 0, next_at = clock_timestamp() \
                 WHERE id = $1",
            )
            .bind(id)
            .execute(&mut **tx)
            .await?;
            sqlx::query(
                "UPDATE outbox_instance SET state = 'pending' WHERE outbox_id = $1 AND state = 'refused'",
            )
            .bind(id)
            .execute(&mut **tx)
            .await?;
        }
        _ => return Ok(Retried::Ended(state)),
    }
    Ok(Retried::Yes(target, analysis, study))
}

impl Db {
    /// Takes the most urgent due delivery of a target for as long as `lease`; `None` when none is due.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_delivery(
        &self,
        server: Uuid,
        target: &str,
        lease: Duration,
    ) -> Result<Option<Claimed>, DbError> {
        let row = sqlx::query(CLAIM)
            .bind(server)
            .bind(target)
            .bind(lease.as_secs_f64())
            .fetch_optional(&self.app)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let id: Uuid = row.try_get("id")?;
        let instances = sqlx::query_as(
            "SELECT outbox_instance.instance_id, coalesce(role, 'reader') AS role, sop_class_uid, sop_instance_uid, \
             transfer_syntax_uid, archive_key, size_bytes FROM outbox_instance JOIN outbox ON outbox.id = outbox_id \
             JOIN instance ON instance.id = outbox_instance.instance_id \
             LEFT JOIN analysis_instance ON analysis_instance.analysis_id = outbox.analysis_id \
             AND analysis_instance.instance_id = outbox_instance.instance_id \
             WHERE outbox_id = $1 AND outbox_instance.state = 'pending' ORDER BY outbox_instance.instance_id",
        )
        .bind(id)
        .fetch_all(&self.app)
        .await?;
        Ok(Some(Claimed {
            id,
            analysis: row.try_get("analysis_id")?,
            subject: row.try_get("subject")?,
            is_message: row.try_get("is_message")?,
            study_instance_uid: row.try_get("study_instance_uid")?,
            attempt: row.try_get("attempts")?,
            max_attempts: row.try_get("max_attempts")?,
            quarantined: row.try_get("quarantined")?,
            instances,
        }))
    }

    /// Renews a lease; false when another server has the delivery. One that is superseded meanwhile is still sent to its end,
    /// so that what the target took is known.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn renew_delivery(&self, id: Uuid, server: Uuid, lease: Duration) -> Result<bool, DbError> {
        let renewed = sqlx::query(
            "UPDATE outbox SET lease_until = clock_timestamp() + make_interval(secs => $3) \
             WHERE id = $1 AND leased_by = $2",
        )
        .bind(id)
        .bind(server)
        .bind(lease.as_secs_f64())
        .execute(&self.app)
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Deliveries, the latest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn deliveries(
        &self,
        filter: &Filter,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Delivery>, DbError> {
        Ok(sqlx::query_as(LIST)
            .bind(&filter.state)
            .bind(&filter.target)
            .bind(&filter.study_instance_uid)
            .bind(limit)
            .bind(offset)
            .fetch_all(&self.app)
            .await?)
    }

    /// How many deliveries there are: target, state, number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_deliveries(&self) -> Result<Vec<(String, String, i64)>, DbError> {
        Ok(sqlx::query_as(
            "SELECT target, state, count(*) FROM outbox GROUP BY target, state ORDER BY target, state",
        )
        .fetch_all(&self.app)
        .await?)
    }

    /// The deliveries that were given up, of one target or of all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn dead_deliveries(&self, target: Option<&str>) -> Result<Vec<Uuid>, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT id FROM outbox WHERE state = 'dead' AND ($1::text IS NULL OR target = $1) ORDER BY created_at",
        )
        .bind(target)
        .fetch_all(&self.app)
        .await?)
    }
}

impl TargetRule {
    /// For the trail.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "name": self.name,
            "kind": self.kind,
            "send": self.subjects,
            "results": self.roles,
            "answers": self.answers,
            "match": self.matching,
            "urgency": self.urgency,
            "escalate_to": self.escalate_to,
        })
    }
}

const CLAIM: &str = "
UPDATE outbox SET leased_by = $1, lease_until = clock_timestamp() + make_interval(secs => $3),
       attempts = outbox.attempts + 1
FROM delivery_target, analysis JOIN study ON study.id = analysis.study_id
WHERE outbox.id = (SELECT id FROM outbox due
                   WHERE due.target = $2 AND due.state = 'pending' AND due.next_at <= clock_timestamp()
                     AND (due.lease_until IS NULL OR due.lease_until <= clock_timestamp())
                   ORDER BY due.urgency, due.next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
  AND delivery_target.name = outbox.target AND analysis.id = outbox.analysis_id
RETURNING outbox.id, outbox.analysis_id, outbox.subject, outbox.is_message, study_instance_uid, outbox.attempts,
          delivery_target.attempts AS max_attempts,
          EXISTS (SELECT FROM analysis_instance JOIN instance ON instance.id = instance_id
                  JOIN series ON series.id = series_id
                  WHERE analysis_instance.analysis_id = outbox.analysis_id AND role = 'source'
                    AND conflict IS NOT NULL) AS quarantined
";

const LIST: &str = "
SELECT outbox.id, target, delivery_target.active AS target_active, study_instance_uid, analysis_id AS analysis, revision,
       outbox.subject, note, acknowledged_at, acknowledged_by, escalated_at,
       outbox.state, outbox.attempts, outbox.created_at, ended_at, last_error,
       CASE outbox.state WHEN 'pending' THEN next_at END AS next_at,
       (SELECT coalesce(json_agg(json_build_object('sop_instance_uid', sop_instance_uid, 'role', coalesce(role, 'reader'),
                                                   'state', sent.state, 'last_error', sent.last_error)
                                 ORDER BY instance.id), '[]')
        FROM outbox_instance sent JOIN instance ON instance.id = sent.instance_id
        LEFT JOIN analysis_instance made
            ON made.instance_id = sent.instance_id AND made.analysis_id = outbox.analysis_id
        WHERE sent.outbox_id = outbox.id) AS instances
FROM outbox JOIN delivery_target ON delivery_target.name = target
JOIN analysis ON analysis.id = analysis_id JOIN study ON study.id = analysis.study_id
WHERE ($1::text IS NULL OR outbox.state = $1) AND ($2::text IS NULL OR target = $2)
  AND ($3::text IS NULL OR study_instance_uid = $3)
ORDER BY outbox.created_at DESC, outbox.id LIMIT $4 OFFSET $5
";
