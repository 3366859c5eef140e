//! What a message says, whatever it is written in, and what an HTTP answer to one means.
//!
//! Every message says that it is not for clinical use, and calls a score a score.

use crate::{
    db::{letter::Letter, outbox::Attempt},
    domain::finding::{Answer, Finding, ModelRun, Report},
};
use reqwest::StatusCode;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

/// What every message says.
const NOT_FOR_CLINICAL_USE: &str = "Not for clinical use.";

/// A letter with its report read.
pub(super) struct Said {
    /// What is on record.
    pub(super) letter: Letter,
    /// What the analysis found.
    pub(super) report: Report,
}

impl Said {
    /// Reads the report of a letter.
    pub(super) fn of(letter: Letter) -> Result<Self, String> {
        let report = serde_json::from_value(letter.report.clone())
            .map_err(|_| "the stored report cannot be read; this is a fault of ictus".to_owned())?;
        Ok(Self { letter, report })
    }

    /// The disclaimer, which says that it is not for clinical use whatever the models say.
    pub(super) fn disclaimer(&self) -> String {
        let said = &self.report.disclaimer;
        if said.to_ascii_lowercase().contains("not for clinical use") {
            said.clone()
        } else {
            format!("{said} {NOT_FOR_CLINICAL_USE}").trim().to_owned()
        }
    }

    /// One line for people: `haemorrhage: flagged, 12.5 mL`.
    pub(super) fn headline(&self) -> String {
        let answers = self.report.answers.iter().map(|answer| {
            let volume: f64 = self
                .report
                .findings
                .iter()
                .filter(|finding| answer.model.as_ref() == Some(&finding.model))
                .map(|finding| finding.volume_ml)
                .sum();
            let said = format!("{}: {}", answer.question, in_words(answer));
            if volume > 0.0 {
                format!("{said}, {volume:.1} mL")
            } else {
                said
            }
        });
        let mut line = answers.collect::<Vec<_>>().join("; ");
        if line.is_empty() {
            "not evaluated".clone_into(&mut line);
        }
        if let Some(word) = self.reading() {
            line = format!("{line}; {word}");
        }
        line
    }

    /// What a reader said or drew, if the message is about it.
    pub(super) fn reading(&self) -> Option<String> {
        let letter = &self.letter;
        let about = letter.verdict_finding.as_deref().unwrap_or("the answer");
        match (letter.subject.as_str(), letter.verdict.as_deref()) {
            ("verdict", Some("accept")) => Some(format!("a reader accepts {about}")),
            ("verdict", Some("reject")) => Some(format!("a reader rejects {about}")),
            ("verdict", Some("missed")) => Some("a reader found something that was missed".to_owned()),
            ("verdict", Some(_)) => Some(format!("a reader is unsure about {about}")),
            ("correction", _) => {
                let volumes: Vec<f64> = letter
                    .drawn
                    .as_ref()
                    .and_then(|drawn| serde_json::from_value(drawn.clone()).ok())
                    .unwrap_or_default();
                Some(format!(
                    "a reader drew {} region(s), {:.1} mL",
                    volumes.len(),
                    volumes.iter().sum::<f64>()
                ))
            }
            _ => None,
        }
    }

    /// The models that ran, by name.
    pub(super) fn models(&self) -> &[ModelRun] {
        &self.report.models
    }

    /// The findings.
    pub(super) fn findings(&self) -> &[Finding] {
        &self.report.findings
    }
}

/// An answer as people read it.
pub(super) fn in_words(answer: &Answer) -> &'static str {
    use crate::domain::finding::AnswerValue;
    match answer.answer {
        AnswerValue::Present => "flagged",
        AnswerValue::Absent => "not flagged",
        AnswerValue::Uncertain => "uncertain",
        AnswerValue::NotEvaluated => "not evaluated",
    }
}

/// The same as a code.
pub(super) fn in_code(answer: &Answer) -> &'static str {
    use crate::domain::finding::AnswerValue;
    match answer.answer {
        AnswerValue::Present => "present",
        AnswerValue::Absent => "absent",
        AnswerValue::Uncertain => "uncertain",
        AnswerValue::NotEvaluated => "not_evaluated",
    }
}

/// RFC 3339.
pub(super) fn instant(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// `YYYYMMDDHHMMSS+0000`, as HL7 v2 writes it.
pub(super) fn hl7_time(at: OffsetDateTime) -> String {
    let format = format_description!("[year][month][day][hour][minute][second]+0000");
    at.to_offset(time::UtcOffset::UTC)
        .format(format)
        .unwrap_or_default()
}

/// What the status of an answer to a message means; the words of the answer itself may name a patient and are not kept.
pub(super) fn judge(status: StatusCode) -> Attempt {
    let mut attempt = Attempt::default();
    if status.is_success() {
        attempt.message_taken = true;
        // 202 says that it has it, not that anybody took note (RFC 9110 section 15.3.3).
        attempt.acknowledged = status != StatusCode::ACCEPTED;
        return attempt;
    }
    let (words, is_final) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ("it does not let us in; check the secret", false)
        }
        StatusCode::NOT_FOUND => ("it has no such resource; check the URL", false),
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::LOCKED
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => ("it has no time for us now", false),
        _ if status.is_redirection() => (
            "it is elsewhere; name the last address in the file of targets",
            true,
        ),
        _ if status.is_client_error() => ("it does not understand the message", true),
        _ => ("it has a problem of its own", false),
    };
    attempt.error = Some(format!("the target answered {}: {words}", status.as_u16()));
    attempt.is_final = is_final;
    attempt
}

/// An attempt that ended with a sentence.
pub(super) fn failed(why: String, is_final: bool) -> Attempt {
    Attempt {
        error: Some(why),
        is_final,
        ..Attempt::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_taken_noted_later_or_never() {
        for (status, taken, noted, is_final) in [
            (200, true, true, false),
            (204, true, true, false),
            (202, true, false, false),
            (400, false, false, true),
            (401, false, false, false),
            (409, false, false, false),
            (410, false, false, true),
            (429, false, false, false),
            (503, false, false, false),
            (302, false, false, true),
        ] {
            let attempt = judge(StatusCode::from_u16(status).unwrap());
            assert_eq!(
                (attempt.message_taken, attempt.acknowledged, attempt.is_final),
                (taken, noted, is_final),
                "{status}"
            );
        }
    }
}
