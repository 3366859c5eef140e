//! Unified Procedure Steps as rows: workitems, who is subscribed to them, and the events that each subscriber gets.
//!
//! What a workitem may become is decided by [`crate::workitem`]; here it is locked, written and found.
//! Events get their numbers in the order of their commits, so that a reader that goes on behind a number misses none.

use super::{Db, Tx, error::DbError, events, qido::Other};
use serde_json::{Map, Value};
use sqlx::{FromRow, QueryBuilder, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

/// Lock that numbers events in the order of their commits.
const EVENT_LOCK: i64 = 7_261_990_004;
/// Events older than this are not kept for who was away.
const KEPT_HOURS: i32 = 1;

/// A workitem.
#[derive(Debug, Clone, FromRow)]
pub struct Workitem {
    /// Its SOPInstanceUID.
    pub uid: String,
    /// ProcedureStepState.
    pub state: String,
    /// DICOM JSON.
    pub attributes: Json<Map<String, Value>>,
    /// StudyInstanceUIDs that it names.
    pub studies: Vec<String>,
    /// Whether this system performs it.
    pub ours: bool,
    /// What its performer locks it with.
    pub transaction_uid: Option<String>,
    /// The study whose analysis it waits for.
    pub study_instance_uid: Option<String>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When its performer began.
    pub claimed_at: Option<OffsetDateTime>,
    /// When the analysis was last asked for.
    pub asked_at: Option<OffsetDateTime>,
}

/// An event report on its way.
#[derive(Debug, Clone, FromRow)]
pub struct Event {
    /// Its number.
    pub id: i64,
    /// DICOM JSON.
    pub report: Json<Map<String, Value>>,
}

/// What is stored of the input of a workitem.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct Stored {
    /// Row of the study.
    pub study_id: i64,
    /// Seconds since its latest instance came.
    pub quiet_seconds: f64,
    /// Series that are named and there.
    pub series: i64,
    /// Instances that are named and there.
    pub instances: i64,
    /// Original CT images of the series that are named, or of the study when none is.
    pub images: i64,
}

/// How far the analysis of a study is since somebody asked for it.
#[derive(Debug, Clone, FromRow)]
pub struct Outcome {
    /// Which.
    pub analysis: Uuid,
    /// `running`, `complete`, `failed` or `cancelled`.
    pub state: String,
    /// Steps that are done.
    pub progress_done: i32,
    /// Steps in all.
    pub progress_total: i32,
    /// Reason code of a failure.
    pub failure_code: Option<String>,
    /// Its sentence.
    pub failure_text: Option<String>,
    /// The answer of a complete one.
    pub answer: Option<String>,
    /// `findings.json`.
    pub report: Option<Value>,
}

/// A result of an analysis.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ResultReference {
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
}

const COLUMNS: &str = "uid, state, attributes, studies, ours, transaction_uid, study_instance_uid, created_at, \
                       claimed_at, asked_at";

/// Stores a new workitem; false when there is one of that UID.
///
/// # Errors
/// When the statement fails.
pub async fn insert(tx: &mut Tx, new: &Workitem) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO workitem (uid, state, attributes, studies, ours) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (uid) DO NOTHING",
    )
    .bind(&new.uid)
    .bind(&new.state)
    .bind(&new.attributes)
    .bind(&new.studies)
    .bind(new.ours)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Reads a workitem and keeps others from changing it until the transaction ends.
///
/// # Errors
/// When the statement fails.
pub async fn lock(tx: &mut Tx, uid: &str) -> Result<Option<Workitem>, DbError> {
    let mut statement = QueryBuilder::new("SELECT ");
    statement
        .push(COLUMNS)
        .push(" FROM workitem WHERE uid = ")
        .push_bind(uid.to_owned())
        .push(" FOR UPDATE");
    Ok(statement.build_query_as().fetch_optional(&mut **tx).await?)
}

/// Writes a locked workitem.
///
/// # Errors
/// When the statement fails.
pub async fn save(tx: &mut Tx, workitem: &Workitem) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE workitem SET state = $2, attributes = $3, studies = $4, ours = $5, transaction_uid = $6, \
         study_instance_uid = $7, claimed_at = $8, asked_at = $9 WHERE uid = $1",
    )
    .bind(&workitem.uid)
    .bind(&workitem.state)
    .bind(&workitem.attributes)
    .bind(&workitem.studies)
    .bind(workitem.ours)
    .bind(&workitem.transaction_uid)
    .bind(&workitem.study_instance_uid)
    .bind(workitem.claimed_at)
    .bind(workitem.asked_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The time by the database, which dates of analyses are compared with.
///
/// # Errors
/// When the statement fails.
pub async fn now(tx: &mut Tx) -> Result<OffsetDateTime, DbError> {
    Ok(sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(&mut **tx)
        .await?)
}

/// What was removed, for the workitems that name it.
#[derive(Debug, Clone, FromRow)]
pub struct RemovedInput {
    /// The row.
    pub id: i64,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// Series and instances of it that are gone; nothing: all of it.
    pub uids: Option<Vec<String>>,
    /// Reason code.
    pub reason: String,
}

/// Takes the oldest word of a removal, which is forgotten when the transaction commits.
///
/// # Errors
/// When the statement fails.
pub async fn take_removed_input(tx: &mut Tx) -> Result<Option<RemovedInput>, DbError> {
    Ok(sqlx::query_as(
        "DELETE FROM removed_input WHERE id = \
         (SELECT id FROM removed_input ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) \
         RETURNING id, study_instance_uid, uids, reason",
    )
    .fetch_optional(&mut **tx)
    .await?)
}

/// Workitems that nobody has begun and that name what was removed.
///
/// # Errors
/// When the statement fails.
pub async fn scheduled_on(tx: &mut Tx, removed: &RemovedInput) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT uid FROM workitem WHERE state = 'SCHEDULED' AND studies @> ARRAY[$1] \
         AND ($2::text[] IS NULL OR EXISTS (SELECT FROM unnest($2) AS gone (uid) WHERE jsonb_path_exists( \
              attributes, '$.**.Value[*] ? (@ == $uid)', jsonb_build_object('uid', gone.uid)))) ORDER BY uid",
    )
    .bind(&removed.study_instance_uid)
    .bind(&removed.uids)
    .fetch_all(&mut **tx)
    .await?)
}

/// Who hears of a workitem.
///
/// # Errors
/// When the statement fails.
pub async fn subscribers(tx: &mut Tx, uid: &str) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT ae_title FROM workitem_subscription WHERE workitem_uid = $1 ORDER BY ae_title",
    )
    .bind(uid)
    .fetch_all(&mut **tx)
    .await?)
}

/// Subscribes a title to a workitem, or changes its lock.
///
/// # Errors
/// When the statement fails.
pub async fn subscribe(tx: &mut Tx, uid: &str, title: &str, deletion_lock: bool) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO workitem_subscription (workitem_uid, ae_title, deletion_lock) VALUES ($1, $2, $3) \
         ON CONFLICT (workitem_uid, ae_title) DO UPDATE SET deletion_lock = $3",
    )
    .bind(uid)
    .bind(title)
    .bind(deletion_lock)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends the subscription of a title to a workitem; false when there was none.
///
/// # Errors
/// When the statement fails.
pub async fn unsubscribe(tx: &mut Tx, uid: &str, title: &str) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM workitem_subscription WHERE workitem_uid = $1 AND ae_title = $2")
        .bind(uid)
        .bind(title)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Subscribes a title to new workitems, those that match when there are keys, and to the ones that are there and that
/// it is not subscribed to. Returns these.
///
/// # Errors
/// When a statement fails.
pub async fn subscribe_worklist(
    tx: &mut Tx,
    title: &str,
    keys: Option<&[Other]>,
    deletion_lock: bool,
) -> Result<Vec<String>, DbError> {
    sqlx::query(
        "INSERT INTO worklist_subscription (ae_title, filtered, keys, deletion_lock) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (ae_title, filtered) DO UPDATE SET keys = $3, deletion_lock = $4",
    )
    .bind(title)
    .bind(keys.is_some())
    .bind(Json(keys.unwrap_or_default()))
    .bind(deletion_lock)
    .execute(&mut **tx)
    .await?;
    let mut statement = QueryBuilder::new(
        "INSERT INTO workitem_subscription (workitem_uid, ae_title, deletion_lock) SELECT uid, ",
    );
    statement
        .push_bind(title.to_owned())
        .push(", ")
        .push_bind(deletion_lock)
        .push(" FROM workitem WHERE true");
    super::qido::put_others(&mut statement, "workitem.attributes", keys.unwrap_or_default());
    statement.push(" ON CONFLICT DO NOTHING RETURNING workitem_uid");
    Ok(statement.build_query_scalar().fetch_all(&mut **tx).await?)
}

/// Ends the subscription of a title to new workitems; false when there was none.
///
/// # Errors
/// When the statement fails.
pub async fn suspend(tx: &mut Tx, title: &str, filtered: bool) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM worklist_subscription WHERE ae_title = $1 AND filtered = $2")
        .bind(title)
        .bind(filtered)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends every subscription of a title to workitems.
///
/// # Errors
/// When the statement fails.
pub async fn unsubscribe_all(tx: &mut Tx, title: &str) -> Result<(), DbError> {
    sqlx::query("DELETE FROM workitem_subscription WHERE ae_title = $1")
        .bind(title)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Subscribes to a new workitem whoever is subscribed to all new ones or to those that match like it.
///
/// # Errors
/// When a statement fails.
pub async fn subscribe_to_new(tx: &mut Tx, uid: &str) -> Result<(), DbError> {
    let subscriptions: Vec<(String, Json<Vec<Other>>, bool)> =
        sqlx::query_as("SELECT ae_title, keys, deletion_lock FROM worklist_subscription ORDER BY ae_title")
            .fetch_all(&mut **tx)
            .await?;
    for (title, keys, deletion_lock) in subscriptions {
        let mut statement = QueryBuilder::new("SELECT EXISTS (SELECT FROM workitem WHERE uid = ");
        statement.push_bind(uid.to_owned());
        super::qido::put_others(&mut statement, "workitem.attributes", &keys.0);
        statement.push(")");
        if statement.build_query_scalar().fetch_one(&mut **tx).await? {
            subscribe(tx, uid, &title, deletion_lock).await?;
        }
    }
    Ok(())
}

/// Everybody who is subscribed to anything.
///
/// # Errors
/// When the statement fails.
pub async fn all_subscribers(tx: &mut Tx) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT ae_title FROM worklist_subscription UNION SELECT ae_title FROM workitem_subscription ORDER BY 1",
    )
    .fetch_all(&mut **tx)
    .await?)
}

/// Files event reports for their receivers; the channels hear of them when the transaction commits.
///
/// # Errors
/// When a statement fails.
pub async fn file_events(
    tx: &mut Tx,
    receivers: &[String],
    reports: &[Map<String, Value>],
) -> Result<(), DbError> {
    if receivers.is_empty() || reports.is_empty() {
        return Ok(());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(EVENT_LOCK)
        .execute(&mut **tx)
        .await?;
    // Who has no channel yet gets what is filed from here on.
    sqlx::query(
        "INSERT INTO workitem_channel (ae_title, sent_to) \
         SELECT unnest($1::text[]), (SELECT coalesce(max(id), 0) FROM workitem_event) ON CONFLICT DO NOTHING",
    )
    .bind(receivers)
    .execute(&mut **tx)
    .await?;
    for report in reports {
        sqlx::query("INSERT INTO workitem_event (receivers, report) VALUES ($1, $2)")
            .bind(receivers)
            .bind(Json(report))
            .execute(&mut **tx)
            .await?;
    }
    // Old ones are never sent again; a few go with each that comes.
    sqlx::query(
        "DELETE FROM workitem_event WHERE id < (SELECT min(id) + 10 FROM workitem_event) \
         AND at < clock_timestamp() - make_interval(hours => 2 * $1)",
    )
    .bind(KEPT_HOURS)
    .execute(&mut **tx)
    .await?;
    events::notify_workitem(tx).await
}

/// What is stored of a study, and of the series and instances of it that are named; nothing when it is not there.
///
/// # Errors
/// When the statement fails.
pub async fn stored(
    tx: &mut Tx,
    study: &str,
    series: &[String],
    instances: &[String],
) -> Result<Option<Stored>, DbError> {
    Ok(sqlx::query_as(STORED)
        .bind(study)
        .bind(series)
        .bind(instances)
        .fetch_optional(&mut **tx)
        .await?)
}

/// The analysis of a study that began, or was found to hold, since then.
///
/// # Errors
/// When the statement fails.
pub async fn outcome(tx: &mut Tx, study: &str, since: OffsetDateTime) -> Result<Option<Outcome>, DbError> {
    Ok(sqlx::query_as(OUTCOME)
        .bind(study)
        .bind(since)
        .fetch_optional(&mut **tx)
        .await?)
}

/// What an analysis made.
///
/// # Errors
/// When the statement fails.
pub async fn results(tx: &mut Tx, analysis: Uuid) -> Result<Vec<ResultReference>, DbError> {
    Ok(sqlx::query_as(
        "SELECT series_instance_uid, sop_class_uid, sop_instance_uid FROM analysis_instance \
         JOIN instance ON instance.id = instance_id JOIN series ON series.id = series_id \
         WHERE analysis_id = $1 AND role <> 'source' AND instance.state = 'current' ORDER BY instance.id",
    )
    .bind(analysis)
    .fetch_all(&mut **tx)
    .await?)
}

impl Db {
    /// A workitem.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn workitem(&self, uid: &str) -> Result<Option<Workitem>, DbError> {
        let mut statement = QueryBuilder::new("SELECT ");
        statement
            .push(COLUMNS)
            .push(" FROM workitem WHERE uid = ")
            .push_bind(uid.to_owned());
        Ok(statement.build_query_as().fetch_optional(&self.app).await?)
    }

    /// Workitems that match, the latest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_workitems(
        &self,
        keys: &[Other],
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Workitem>, DbError> {
        let mut statement = QueryBuilder::new("SELECT ");
        statement.push(COLUMNS).push(" FROM workitem WHERE true");
        super::qido::put_others(&mut statement, "workitem.attributes", keys);
        statement
            .push(" ORDER BY created_at DESC, uid LIMIT ")
            .push_bind(limit)
            .push(" OFFSET ")
            .push_bind(offset);
        Ok(statement.build_query_as().fetch_all(&self.app).await?)
    }

    /// How many workitems match behind the first `passed` ones, counted to `most` and no further.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_more_workitems(&self, keys: &[Other], passed: i64, most: i64) -> Result<i64, DbError> {
        let mut statement = QueryBuilder::new("SELECT count(*) FROM (SELECT FROM workitem WHERE true");
        super::qido::put_others(&mut statement, "workitem.attributes", keys);
        super::qido::put_rest(&mut statement, passed, most);
        Ok(statement.build_query_scalar().fetch_one(&self.app).await?)
    }

    /// Our own workitems that have not ended, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_workitems(&self) -> Result<Vec<String>, DbError> {
        Ok(sqlx::query_scalar(
            "SELECT uid FROM workitem WHERE ours AND state IN ('SCHEDULED', 'IN PROGRESS') ORDER BY created_at",
        )
        .fetch_all(&self.app)
        .await?)
    }

    /// Opens the channel of a title: the number behind which its events are still to be sent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_channel(&self, title: &str) -> Result<i64, DbError> {
        Ok(sqlx::query_scalar(
            "INSERT INTO workitem_channel (ae_title, sent_to) \
             VALUES ($1, (SELECT coalesce(max(id), 0) FROM workitem_event)) \
             ON CONFLICT (ae_title) DO UPDATE SET sent_to = workitem_channel.sent_to RETURNING sent_to",
        )
        .bind(title)
        .fetch_one(&self.app)
        .await?)
    }

    /// Events of a title behind a number, in their order; what is old is left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn workitem_events(&self, title: &str, after: i64) -> Result<Vec<Event>, DbError> {
        Ok(sqlx::query_as(
            "SELECT id, report FROM workitem_event WHERE id > $2 AND $1 = ANY (receivers) \
             AND at > clock_timestamp() - make_interval(hours => $3) ORDER BY id LIMIT 100",
        )
        .bind(title)
        .bind(after)
        .bind(KEPT_HOURS)
        .fetch_all(&self.app)
        .await?)
    }

    /// Notes how far the events of a title are sent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn workitem_events_sent(&self, title: &str, to: i64) -> Result<(), DbError> {
        sqlx::query("UPDATE workitem_channel SET sent_to = greatest(sent_to, $2) WHERE ae_title = $1")
            .bind(title)
            .bind(to)
            .execute(&self.app)
            .await?;
        Ok(())
    }
}

const STORED: &str = "
SELECT study.id AS study_id,
       extract(epoch FROM clock_timestamp() - study.received_at)::double precision AS quiet_seconds, counts.*
FROM study CROSS JOIN LATERAL (
    SELECT count(DISTINCT series_instance_uid) FILTER (WHERE series_instance_uid = ANY ($2)) AS series,
           count(*) FILTER (WHERE sop_instance_uid = ANY ($3)) AS instances,
           count(*) FILTER (WHERE original_ct AND (cardinality($2) = 0 OR series_instance_uid = ANY ($2))) AS images
    FROM series JOIN instance ON instance.series_id = series.id
    WHERE series.study_id = study.id AND series.origin = 'received' AND instance.state = 'current'
) counts
WHERE study_instance_uid = $1
";

const OUTCOME: &str = "
SELECT analysis.id AS analysis, state, progress_done, progress_total, failure_code, failure_text, answer, report
FROM analysis JOIN study ON study.id = analysis.study_id
WHERE study_instance_uid = $1 AND (started_at >= $2 OR confirmed_at >= $2)
ORDER BY analysis.created_at DESC, revision DESC LIMIT 1
";
