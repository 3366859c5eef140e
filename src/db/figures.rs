//! How the machine did against its readers so far, the cases behind each number, and what to label next.
//!
//! What counts as one verdict is decided by the views `judged_answer` and `judged_finding` and nowhere else.

use super::{Db, error::DbError};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use time::{Date, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};

time::serde::format_description!(day, Date, "[year]-[month]-[day]");

/// When the verdicts were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Span {
    /// The first day, UTC, `YYYY-MM-DD`; without it from the beginning.
    #[serde(default, with = "day::option")]
    #[param(value_type = Option<String>, format = Date)]
    pub from: Option<Date>,
    /// The last day, UTC, `YYYY-MM-DD`; without it until now.
    #[serde(default, with = "day::option")]
    #[param(value_type = Option<String>, format = Date)]
    pub to: Option<Date>,
}

/// How the machine did against its readers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Figures {
    /// Studies with an answer.
    pub answered: i64,
    /// Those of them that somebody read as they are now.
    pub read: i64,
    /// Answers that were read, by the models that gave them.
    pub answers: Vec<AnswerFigure>,
    /// Findings that were judged, by model and kind.
    pub findings: Vec<FindingFigure>,
    /// Reasons that readers gave against findings.
    pub reasons: Vec<ReasonFigure>,
    /// Answers that were read, by week.
    pub weeks: Vec<WeekFigure>,
}

/// Answers of one sort with one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct AnswerFigure {
    /// The models that ran with their versions, with commas between them.
    pub models: String,
    /// `present`, `absent` or `uncertain`.
    pub answer: String,
    /// `accept`, `reject`, `unsure`, `missed`, or `differ` when readers are not of one mind.
    pub outcome: String,
    /// How many.
    pub count: i64,
    /// For how many of them a reader drew a mask.
    pub corrected: i64,
}

/// Findings of one kind with one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct FindingFigure {
    /// The model with its version.
    pub model: String,
    /// Kind of the findings.
    pub kind: String,
    /// `accept`, `reject`, `unsure`, or `differ` when readers are not of one mind.
    pub outcome: String,
    /// How many.
    pub count: i64,
    /// For how many of them a reader drew another mask.
    pub edited: i64,
}

/// A reason against findings of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct ReasonFigure {
    /// The model with its version.
    pub model: String,
    /// Reason code.
    pub reason: String,
    /// How many findings.
    pub count: i64,
}

/// What was read in a week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct WeekFigure {
    /// Its Monday, UTC.
    #[serde(with = "day")]
    #[schema(value_type = String, format = Date)]
    pub week: Date,
    /// As of an answer.
    pub outcome: String,
    /// How many answers.
    pub count: i64,
}

/// Which cases stand behind a number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Behind {
    /// `answers` or `findings`.
    #[serde(default)]
    pub what: What,
    /// The models of the answer, or the model of the finding, as the figures name them.
    pub model: Option<String>,
    /// The answer, or the kind of the finding.
    pub value: Option<String>,
    /// The outcome.
    pub outcome: Option<String>,
    /// A reason that a reader gave; of findings only.
    pub reason: Option<String>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Answers for studies as a whole.
    #[default]
    Answers,
    /// Findings.
    Findings,
}

/// A study behind a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct Case {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// PatientName.
    pub patient_name: Option<String>,
    /// StudyDate, YYYYMMDD.
    pub study_date: Option<String>,
    /// StudyDescription.
    pub study_description: Option<String>,
    /// The latest verdict that counts.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// A study that nobody has read, and what its label would teach.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow, ToSchema)]
pub struct Candidate {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// PatientName.
    pub patient_name: Option<String>,
    /// StudyDate, YYYYMMDD.
    pub study_date: Option<String>,
    /// `flagged`, `uncertain` or `not_flagged`.
    pub state: String,
    /// Case score, not calibrated.
    pub score: f64,
    /// Disagreement of the members about the case, 0 to 1.
    pub uncertainty: f64,
    /// Mean of the disagreement and of how near the score is to one half, 0 to 1.
    pub worth: f64,
}

impl Db {
    /// How the machine did against its readers.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn figures(&self, span: Span) -> Result<Figures, DbError> {
        let (from, to) = bounds(span);
        let (answered, read) = sqlx::query_as(TOTALS).fetch_one(&self.app).await?;
        let answers = sqlx::query_as(ANSWERS).bind(from).bind(to).fetch_all(&self.app);
        let findings = sqlx::query_as(FINDINGS).bind(from).bind(to).fetch_all(&self.app);
        let reasons = sqlx::query_as(REASONS).bind(from).bind(to).fetch_all(&self.app);
        let weeks = sqlx::query_as(WEEKS).bind(from).bind(to).fetch_all(&self.app);
        Ok(Figures {
            answered,
            read,
            answers: answers.await?,
            findings: findings.await?,
            reasons: reasons.await?,
            weeks: weeks.await?,
        })
    }

    /// The studies behind a number, the latest judged first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn figure_cases(&self, span: Span, behind: &Behind, limit: i64) -> Result<Vec<Case>, DbError> {
        let (from, to) = bounds(span);
        let query = match behind.what {
            What::Answers => sqlx::query_as(CASES_OF_ANSWERS),
            What::Findings => sqlx::query_as(CASES_OF_FINDINGS),
        };
        Ok(query
            .bind(from)
            .bind(to)
            .bind(&behind.model)
            .bind(&behind.value)
            .bind(&behind.outcome)
            .bind(&behind.reason)
            .bind(limit)
            .fetch_all(&self.app)
            .await?)
    }

    /// Studies that nobody has read, those first whose label would teach most, taking turns between the lanes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn label_next(&self, limit: i64) -> Result<Vec<Candidate>, DbError> {
        Ok(sqlx::query_as(LABEL_NEXT)
            .bind(limit)
            .fetch_all(&self.app)
            .await?)
    }
}

/// From the beginning of the first day to the end of the last one.
pub(super) fn bounds(span: Span) -> (Option<OffsetDateTime>, Option<OffsetDateTime>) {
    let end = span.to.and_then(Date::next_day);
    let midnight = |day: Date| day.midnight().assume_utc();
    (span.from.map(midnight), end.map(midnight))
}

const TOTALS: &str = "
SELECT count(*) FILTER (WHERE answer IS NOT NULL), count(*) FILTER (WHERE answer IS NOT NULL AND read)
FROM study_state
";

const ANSWERS: &str = "
SELECT models, answer, outcome, count(*) AS count, count(*) FILTER (WHERE corrected) AS corrected
FROM judged_answer
WHERE ($1::timestamptz IS NULL OR at >= $1) AND ($2::timestamptz IS NULL OR at < $2)
GROUP BY models, answer, outcome
ORDER BY models, array_position(ARRAY['present', 'uncertain', 'absent', 'not_evaluated'], answer), outcome
";

const FINDINGS: &str = "
SELECT model, kind, outcome, count(*) AS count, count(*) FILTER (WHERE edited) AS edited
FROM judged_finding
WHERE ($1::timestamptz IS NULL OR at >= $1) AND ($2::timestamptz IS NULL OR at < $2)
GROUP BY model, kind, outcome
ORDER BY model, kind, outcome
";

const REASONS: &str = "
SELECT model, reason, count(*) AS count
FROM judged_finding CROSS JOIN unnest(reasons) AS reason
WHERE ($1::timestamptz IS NULL OR at >= $1) AND ($2::timestamptz IS NULL OR at < $2)
GROUP BY model, reason
ORDER BY model, count DESC, reason
";

const WEEKS: &str = "
SELECT date_trunc('week', at AT TIME ZONE 'UTC')::date AS week, outcome, count(*) AS count
FROM judged_answer
WHERE ($1::timestamptz IS NULL OR at >= $1) AND ($2::timestamptz IS NULL OR at < $2)
GROUP BY week, outcome
ORDER BY week, outcome
";

const CASES_OF_ANSWERS: &str = "
SELECT study_instance_uid, patient_name, study_date, study_description, max(judged_answer.at) AS at
FROM judged_answer JOIN study ON study.id = judged_answer.study_id
WHERE ($1::timestamptz IS NULL OR at >= $1) AND ($2::timestamptz IS NULL OR at < $2)
  AND ($3::text IS NULL OR models = $3) AND ($4::text IS NULL OR answer = $4)
  AND ($5::text IS NULL OR outcome = $5) AND $6::text IS NULL
GROUP BY study.id ORDER BY at DESC, study.id LIMIT $7
";

const CASES_OF_FINDINGS: &str = "
SELECT study_instance_uid, patient_name, study_date, study_description, max(judged_finding.at) AS at
FROM judged_finding JOIN study ON study.id = judged_finding.study_id
WHERE ($1::timestamptz IS NULL OR at >= $1) AND ($2::timestamptz IS NULL OR at < $2)
  AND ($3::text IS NULL OR model = $3) AND ($4::text IS NULL OR kind = $4)
  AND ($5::text IS NULL OR outcome = $5) AND ($6::text IS NULL OR $6 = ANY (reasons))
GROUP BY study.id ORDER BY at DESC, study.id LIMIT $7
";

/// A label teaches most where the members disagree or the score decides nothing; turns keep it from being all of one lane.
const LABEL_NEXT: &str = "
WITH candidate AS (
    SELECT study_instance_uid, patient_name, study_date, state, score, uncertainty,
           (uncertainty + 1 - abs(2 * score - 1)) / 2 AS worth
    FROM study_state
    WHERE NOT read AND score IS NOT NULL AND uncertainty IS NOT NULL
)
SELECT * FROM candidate
ORDER BY row_number() OVER (PARTITION BY state ORDER BY worth DESC, study_instance_uid), worth DESC, study_instance_uid
LIMIT $1
";
