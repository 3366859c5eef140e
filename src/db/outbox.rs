//! Deliveries as rows: filed with the analysis, claimed under a lease, ended as delivered, dead or superseded.
//!
//! [`file()`] runs in the transaction that commits an analysis, so neither is there without the other; the pair of analysis
//! and target is unique, so a run that is repeated files nothing twice.
//! A claimed row has a lease that its server renews; when the server dies another one takes the row after the lease.
//! What the target said of each instance is kept, so that an attempt sends only what is not there yet.
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
    /// `stow` or `cstore`.
    pub kind: String,
    /// Which results it gets.
    pub roles: Vec<String>,
    /// The answers of analyses that it gets.
    pub answers: Vec<String>,
    /// How often a delivery is tried.
    pub attempts: i32,
}

/// What [`file()`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filed {
    /// The targets that get this analysis.
    pub targets: Vec<String>,
    /// Deliveries of superseded analyses that will not be made: target and analysis.
    pub withdrawn: Vec<(String, Uuid)>,
}

/// An instance on its way out.
#[derive(Debug, Clone, FromRow)]
pub struct Outgoing {
    /// Row.
    pub instance_id: i64,
    /// `seg`, `pm`, `sr` or `other`.
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
    /// `seg`, `pm`, `sr` or `other`.
    pub role: String,
    /// `pending`, `delivered` or `refused`.
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
        "SELECT name, kind, roles, answers, attempts FROM delivery_target WHERE active ORDER BY name",
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
            "INSERT INTO delivery_target (name, kind, roles, answers, attempts, active) VALUES ($1, $2, $3, $4, $5, true) \
             ON CONFLICT (name) DO UPDATE SET kind = $2, roles = $3, answers = $4, attempts = $5, active = true, \
             changed_at = clock_timestamp()",
        )
        .bind(&rule.name)
        .bind(&rule.kind)
        .bind(&rule.roles)
        .bind(&rule.answers)
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

/// Files an analysis that was just completed for its targets, and withdraws what it supersedes.
///
/// A target gets the answers of its rule, and each revision of a study of which it was sent anything before.
///
/// # Errors
/// When a statement fails.
pub async fn file(tx: &mut Tx, analysis: Uuid, superseded: &[Uuid]) -> Result<Filed, DbError> {
    let withdrawn = sqlx::query_as(
        "UPDATE outbox SET state = 'superseded', ended_at = clock_timestamp() \
         WHERE analysis_id = ANY($1) AND state IN ('pending', 'dead') RETURNING target, analysis_id",
    )
    .bind(superseded)
    .fetch_all(&mut **tx)
    .await?;
    let rows: Vec<(Uuid, String)> = sqlx::query_as(FILE).bind(analysis).fetch_all(&mut **tx).await?;
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| *id).collect();
    sqlx::query(
        "INSERT INTO outbox_instance (outbox_id, instance_id) SELECT outbox.id, instance_id \
         FROM outbox JOIN delivery_target ON name = target \
         JOIN analysis_instance ON analysis_instance.analysis_id = outbox.analysis_id AND role = ANY(roles) \
         WHERE outbox.id = ANY($1)",
    )
    .bind(ids)
    .execute(&mut **tx)
    .await?;
    Ok(Filed {
        targets: rows.into_iter().map(|(_, target)| target).collect(),
        withdrawn,
    })
}

/// Ends an attempt: what was delivered is noted whoever holds the row now, the row's own state only by its holder.
///
/// # Errors
/// When a statement fails.
pub async fn finish(tx: &mut Tx, id: Uuid, server: Uuid, attempt: &Attempt) -> Result<Became, DbError> {
    let row = sqlx::query("SELECT state, leased_by = $2 AS ours FROM outbox WHERE id = $1 FOR UPDATE")
        .bind(id)
        .bind(server)
        .fetch_one(&mut **tx)
        .await?;
    let (state, ours): (String, Option<bool>) = (row.try_get("state")?, row.try_get("ours")?);
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
    let (waiting, refused): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'refused') \
         FROM outbox_instance WHERE outbox_id = $1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    let became = match (waiting, refused) {
        (0, 0) => Became::Delivered,
        _ if state == "superseded" => return Ok(Became::Superseded),
        _ if ours != Some(true) || state != "pending" => return Ok(Became::Lost),
        (0, _) => Became::Dead,
        _ if attempt.is_final => Became::Dead,
        _ => Became::Pending,
    };
    sqlx::query(
        "UPDATE outbox SET state = $2, last_error = $3, leased_by = NULL, lease_until = NULL, \
         ended_at = CASE WHEN $2 = 'pending' THEN NULL ELSE clock_timestamp() END, \
         next_at = clock_timestamp() + make_interval(secs => $4) WHERE id = $1",
    )
    .bind(id)
    .bind(match became {
        Became::Delivered => "delivered",
        Became::Dead => "dead",
        _ => "pending",
    })
    .bind(attempt.error.as_deref().filter(|_| became != Became::Delivered))
    .bind(attempt.delay.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(became)
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
            "SELECT outbox_instance.instance_id, role, sop_class_uid, sop_instance_uid, transfer_syntax_uid, \
             archive_key, size_bytes FROM outbox_instance JOIN outbox ON outbox.id = outbox_id \
             JOIN instance ON instance.id = outbox_instance.instance_id \
             JOIN analysis_instance ON analysis_instance.analysis_id = outbox.analysis_id \
             AND analysis_instance.instance_id = outbox_instance.instance_id \
             WHERE outbox_id = $1 AND outbox_instance.state = 'pending' ORDER BY outbox_instance.instance_id",
        )
        .bind(id)
        .fetch_all(&self.app)
        .await?;
        Ok(Some(Claimed {
            id,
            analysis: row.try_get("analysis_id")?,
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
            "results": self.roles,
            "answers": self.answers,
        })
    }
}

const FILE: &str = "
INSERT INTO outbox (id, analysis_id, target, urgency)
SELECT gen_random_uuid(), this.id, target.name,
       CASE this.answer WHEN 'present' THEN 0 WHEN 'uncertain' THEN 1 ELSE 2 END
FROM analysis this CROSS JOIN delivery_target target
WHERE this.id = $1 AND this.superseded_at IS NULL AND target.active
  AND (this.answer = ANY(target.answers)
       OR EXISTS (SELECT FROM outbox earlier JOIN analysis before ON before.id = earlier.analysis_id
                  WHERE earlier.target = target.name AND before.study_id = this.study_id AND earlier.attempts > 0))
  AND EXISTS (SELECT FROM analysis_instance WHERE analysis_id = this.id AND role = ANY(target.roles))
ORDER BY target.name
ON CONFLICT (analysis_id, target) DO NOTHING
RETURNING id, target
";

const CLAIM: &str = "
UPDATE outbox SET leased_by = $1, lease_until = clock_timestamp() + make_interval(secs => $3),
       attempts = outbox.attempts + 1
FROM delivery_target, analysis JOIN study ON study.id = analysis.study_id
WHERE outbox.id = (SELECT id FROM outbox due
                   WHERE due.target = $2 AND due.state = 'pending' AND due.next_at <= clock_timestamp()
                     AND (due.lease_until IS NULL OR due.lease_until <= clock_timestamp())
                   ORDER BY due.urgency, due.next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
  AND delivery_target.name = outbox.target AND analysis.id = outbox.analysis_id
RETURNING outbox.id, outbox.analysis_id, study_instance_uid, outbox.attempts,
          delivery_target.attempts AS max_attempts,
          EXISTS (SELECT FROM analysis_instance JOIN instance ON instance.id = instance_id
                  JOIN series ON series.id = series_id
                  WHERE analysis_instance.analysis_id = outbox.analysis_id AND role = 'source'
                    AND conflict IS NOT NULL) AS quarantined
";

const LIST: &str = "
SELECT outbox.id, target, delivery_target.active AS target_active, study_instance_uid, analysis_id AS analysis, revision,
       outbox.state, outbox.attempts, outbox.created_at, ended_at, last_error,
       CASE outbox.state WHEN 'pending' THEN next_at END AS next_at,
       (SELECT coalesce(json_agg(json_build_object('sop_instance_uid', sop_instance_uid, 'role', role,
                                                   'state', sent.state, 'last_error', sent.last_error)
                                 ORDER BY instance.id), '[]')
        FROM outbox_instance sent JOIN instance ON instance.id = sent.instance_id
        JOIN analysis_instance made ON made.instance_id = sent.instance_id AND made.analysis_id = outbox.analysis_id
        WHERE sent.outbox_id = outbox.id) AS instances
FROM outbox JOIN delivery_target ON delivery_target.name = target
JOIN analysis ON analysis.id = analysis_id JOIN study ON study.id = analysis.study_id
WHERE ($1::text IS NULL OR outbox.state = $1) AND ($2::text IS NULL OR target = $2)
  AND ($3::text IS NULL OR study_instance_uid = $3)
ORDER BY outbox.created_at DESC, outbox.id LIMIT $4 OFFSET $5
";
