//! What a reader says of an answer or a finding → a row that stays, and one in the trail.
//!
//! A verdict is of the current analysis: one that was revised meanwhile is refused, so that nobody signs what they did not see.
//! A later verdict of the same reader stands beside the earlier one and holds instead of it.
//! The note stays out of the trail, which has its digest: the trail goes to places where patients' data must not.

use super::{ReviewError, account::Account};
use crate::{
    db::{
        self, Db,
        audit::{self, Act},
        filing,
        review::{self, NewVerdict, VerdictRow},
    },
    domain::uid::Uid,
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// The longest note.
pub const NOTE_CHARACTERS: usize = 2000;

/// Why a finding is not one.
pub const REJECT_REASONS: &[&str] = &[
    "artefact",
    "calcification",
    "normal_anatomy",
    "postoperative",
    "old_blood",
    "tumour",
    "wrong_place",
    "wrong_size",
    "other",
];
/// What was missed.
pub const MISSED_REASONS: &[&str] = &[
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
    "epidural",
    "infarct",
    "occlusion",
    "other",
];

/// A reader's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The machine is right.
    Accept,
    /// The machine is wrong.
    Reject,
    /// The reader cannot tell.
    Unsure,
    /// The machine missed something.
    Missed,
}

impl Word {
    /// The word in the database and the trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Unsure => "unsure",
            Self::Missed => "missed",
        }
    }
}

/// A verdict as a reader gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The analysis that the reader looked at.
    pub analysis: Uuid,
    /// The finding; null: the answer for the whole study, which is then read.
    pub finding: Option<String>,
    /// The word.
    pub verdict: Word,
    /// Why: wanted when a finding is rejected or something was missed.
    pub reason: Option<String>,
    /// In the reader's own words.
    pub note: Option<String>,
}

impl Verdict {
    fn check(&self) -> Result<(), ReviewError> {
        if self.verdict == Word::Missed && self.finding.is_some() {
            return Err(ReviewError::MissedFinding);
        }
        let (known, wanted): (&[&str], bool) = match self.verdict {
            Word::Reject => (REJECT_REASONS, self.finding.is_some()),
            Word::Missed => (MISSED_REASONS, true),
            Word::Accept | Word::Unsure => (&[], false),
        };
        let fine = match &self.reason {
            Some(reason) => known.contains(&reason.as_str()),
            None => !wanted,
        };
        if !fine {
            let list = if known.is_empty() {
                "none goes with it".to_owned()
            } else {
                known.join(", ")
            };
            return Err(ReviewError::Reason(list));
        }
        let note = self.note.as_deref().unwrap_or_default();
        if note.chars().count() > NOTE_CHARACTERS {
            return Err(ReviewError::Note);
        }
        Ok(())
    }
}

/// Records a verdict.
///
/// # Errors
/// When it does not fit the current analysis, or lacks its reason.
pub async fn give(
    db: &Db,
    reader: &Account,
    study: &Uid,
    verdict: &Verdict,
) -> Result<VerdictRow, ReviewError> {
    verdict.check()?;
    let mut tx = db.begin().await?;
    let current = review::current_analysis(&mut tx, study)
        .await?
        .ok_or(ReviewError::NothingToJudge)?;
    if current.analysis != verdict.analysis {
        return Err(ReviewError::Revised);
    }
    let finding = verdict.finding.as_deref();
    if finding.is_some_and(|name| !current.findings.iter().any(|known| known == name)) {
        return Err(ReviewError::NoFinding);
    }
    let note = verdict.note.as_deref().map(str::trim).filter(|n| !n.is_empty());
    let row = review::insert_verdict(
        &mut tx,
        &NewVerdict {
            study_id: current.study_id,
            analysis: verdict.analysis,
            finding,
            account_id: reader.id,
            verdict: verdict.verdict.as_str(),
            reason: verdict.reason.as_deref(),
            note,
        },
    )
    .await?;
    let targets = filing::verdict(&mut tx, row.id, row.analysis, &reader.name).await?;
    let mut detail = json!({
        "verdict": row.verdict,
        "analysis": row.analysis,
        "finding": row.finding,
        "reason": row.reason,
        "note_sha256": note.map(|note| hex::encode(Sha256::digest(note.as_bytes()))),
    });
    if !targets.is_empty() {
        detail["deliver_to"] = json!(targets);
    }
    let act = Act {
        principal: &reader.name,
        act: "verdict",
        studies: vec![study.to_string()],
        detail,
    };
    audit::append(&mut tx, &act).await?;
    db::commit(tx).await?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(word: Word, finding: Option<&str>, reason: Option<&str>) -> Verdict {
        Verdict {
            analysis: Uuid::nil(),
            finding: finding.map(str::to_owned),
            verdict: word,
            reason: reason.map(str::to_owned),
            note: None,
        }
    }

    #[test]
    fn a_rejected_finding_and_a_missed_one_want_a_reason_that_is_known() {
        for (word, finding, reason, fine) in [
            (Word::Accept, None, None, true),
            (Word::Accept, Some("a"), None, true),
            (Word::Accept, Some("a"), Some("artefact"), false),
            (Word::Reject, Some("a"), None, false),
            (Word::Reject, Some("a"), Some("artefact"), true),
            (Word::Reject, Some("a"), Some("because"), false),
            (Word::Reject, None, None, true),
            (Word::Unsure, Some("a"), None, true),
            (Word::Missed, None, None, false),
            (Word::Missed, None, Some("subdural"), true),
            (Word::Missed, Some("a"), Some("subdural"), false),
        ] {
            let verdict = verdict(word, finding, reason);
            assert_eq!(verdict.check().is_ok(), fine, "{verdict:?}");
        }
    }
}
