//! A message as HL7 v2.5.1 ORU^R01 over MLLP; its acknowledgement → taken, later or never.
//!
//! The result status says how far it is: `P` of an analysis that nobody has read, `C` of a later revision, `F` with a
//! reader's word.
//! The character set is stated in MSH-18 and kept to: a name that it cannot say is an error, not a question mark.
//!
//! Source: HL7 v2.5.1 chapters 2 and 7; DICOM PS3.16 code 113014 for the study.

use super::{
    message::{self, Said, hl7_time, in_code, in_words},
    way::Receiver,
};
use crate::{
    db::{letter::Letter, outbox::Attempt},
    domain::{
        aspects::{self, Aspects},
        code::Code,
    },
    hl7::{Acknowledgement, Hl7Error, charset, escaped, mllp},
};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::{io::BufReader, net::TcpStream, time::timeout};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Our coding scheme.
const SCHEME: &str = "99ICTUS";

/// Sends a message and reads what the receiver says to it.
pub(super) async fn send(to: &Receiver, letter: Letter) -> Attempt {
    let said = match Said::of(letter) {
        Ok(said) => said,
        Err(why) => return message::failed(why, true),
    };
    // MSH-10 has 20 characters; the delivery's, so that a receiver knows a repeated one.
    let control_id: String = said
        .letter
        .delivery
        .simple()
        .to_string()
        .chars()
        .take(20)
        .collect();
    let text = document(&said, to, &control_id, OffsetDateTime::now_utc());
    let bytes = match to.charset.encode(&text) {
        Ok(bytes) => bytes,
        Err(error) => return message::failed(error.to_string(), true),
    };
    let connected = timeout(CONNECT, TcpStream::connect((to.host.as_str(), to.port))).await;
    let mut stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return message::failed(format!("the target cannot be reached: {}", error.kind()), false);
        }
        Err(_) => return message::failed("the target cannot be reached: no answer".to_owned(), false),
    };
    let answered = timeout(PATIENCE, async {
        let (reader, mut writer) = stream.split();
        mllp::write(&mut writer, &bytes).await?;
        let mut reader = BufReader::new(reader);
        loop {
            let Some(answer) = mllp::read(&mut reader).await? else {
                return Err(Hl7Error::Frame(
                    "the target closed the connection without an answer",
                ));
            };
            let said = Acknowledgement::parse(&charset::decode(&answer)?)?;
            // What was asked before is no answer to this.
            if said.control_id.as_deref().is_none_or(|id| id == control_id) {
                return Ok(said);
            }
        }
    })
    .await;
    match answered {
        Ok(Ok(said)) => judge(&said),
        Ok(Err(error)) => message::failed(format!("the target's answer cannot be used: {error}"), false),
        Err(_) => message::failed("the target took too long to answer".to_owned(), false),
    }
}

/// What an acknowledgement means: an error would come back, a rejection and a system that does not know us too.
fn judge(said: &Acknowledgement) -> Attempt {
    match said.code.as_str() {
        "AA" => Attempt {
            message_taken: true,
            acknowledged: true,
            ..Attempt::default()
        },
        // A commit accept: it has it, and nobody took note yet.
        "CA" => Attempt {
            message_taken: true,
            ..Attempt::default()
        },
        code => {
            let what = match code {
                "AE" | "CE" => "error",
                "AR" | "CR" => "rejected",
                _ => "an acknowledgement code that the standard does not list",
            };
            let because = said
                .error
                .as_deref()
                .map_or_else(String::new, |error| format!(", HL7 error {error}"));
            message::failed(
                format!("the target answered {}: {what}{because}", code_word(code)),
                true,
            )
        }
    }
}

/// A code in its own letters, whatever the target sent.
fn code_word(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).take(4).collect()
}

/// The message, segment by segment.
fn document(said: &Said, to: &Receiver, control_id: &str, now: OffsetDateTime) -> String {
    let letter = &said.letter;
    let status = match (letter.subject.as_str(), letter.revision) {
        ("verdict" | "correction", _) => "F",
        (_, 1) if letter.edition == 0 => "P",
        _ => "C",
    };
    let text = |value: &Option<String>| escaped(value.as_deref().unwrap_or_default());
    let question = said
        .report
        .answers
        .first()
        .map_or("findings", |answer| &answer.question);
    let mut message = format!(
        "MSH|^~\\&|ICTUS|ICTUS|{}|{}|{}||ORU^R01^ORU_R01|{control_id}|P|2.5.1||||||{}\r",
        escaped(&to.application),
        escaped(&to.facility),
        hl7_time(now),
        to.charset.name(),
    );
    message.push_str(&format!(
        "PID|1||{}^^^{}||{}||{}|{}\r",
        text(&letter.patient_id),
        text(&letter.issuer_of_patient_id),
        person_name(letter.patient_name.as_deref().unwrap_or_default()),
        text(&letter.patient_birth_date),
        text(&letter.patient_sex),
    ));
    let observed = format!(
        "{}{}",
        letter.study_date.as_deref().unwrap_or_default(),
        letter
            .study_time
            .as_deref()
            .and_then(|time| time.get(..6))
            .unwrap_or_default()
    );
    let mut obr = vec![String::new(); 26];
    for (at, value) in [
        (1, "1".to_owned()),
        (3, format!("{}^ICTUS", letter.analysis)),
        (
            4,
            format!(
                "{}^Automatic analysis of {}^{SCHEME}",
                escaped(question),
                escaped(question)
            ),
        ),
        (7, escaped(&observed)),
        (18, text(&letter.accession_number)),
        (22, hl7_time(letter.analysed_at)),
        (24, "CT".to_owned()),
        (25, status.to_owned()),
    ] {
        obr[at] = value;
    }
    "OBR".clone_into(&mut obr[0]);
    message.push_str(&obr.join("|"));
    message.push('\r');
    let mut lines = Lines {
        status,
        said: Vec::new(),
    };
    lines.add(
        "ST",
        "113014^DICOM Study^DCM",
        "",
        &escaped(&letter.study_instance_uid),
        "",
    );
    for answer in &said.report.answers {
        let code = format!(
            "{}^{}^{SCHEME}",
            escaped(&answer.question),
            escaped(&answer.question)
        );
        let value = format!("{}^{}^{SCHEME}", in_code(answer), in_words(answer));
        lines.add("CWE", &code, "", &value, "");
        for (code, meaning, value) in [
            ("score", "Score, not calibrated", answer.score),
            ("probability", "Calibrated probability", answer.probability),
        ] {
            if let Some(value) = value {
                lines.add(
                    "NM",
                    &format!("{code}^{meaning}^{SCHEME}"),
                    "",
                    &format!("{value:.3}"),
                    "",
                );
            }
        }
    }
    if let Some(midline) = &said.report.midline_shift {
        let [lower, upper] = midline.shift.interval_mm;
        for (code, meaning, mm) in [
            (
                "midline-shift",
                "Midline shift, positive towards the patient's left",
                midline.shift.left_mm,
            ),
            (
                "midline-lower",
                "Lower end of the midline shift's interval",
                lower,
            ),
            (
                "midline-upper",
                "Upper end of the midline shift's interval",
                upper,
            ),
        ] {
            let code = format!("{code}^{meaning}^{SCHEME}");
            lines.add("NM", &code, "", &format!("{mm:.1}"), "mm^millimeter^UCUM");
        }
    }
    if let Some(told) = &said.report.aspects {
        add_aspects(&mut lines, &told.aspects);
    }
    for (at, finding) in said.findings().iter().enumerate() {
        let sub = (at + 1).to_string();
        lines.add("CWE", "121071^Finding^DCM", &sub, &coded(&finding.code), "");
        let volume = format!("{:.2}", finding.volume_ml);
        lines.add("NM", "118565006^Volume^SCT", &sub, &volume, "mL^milliliter^UCUM");
        if let Some([lower, upper]) = finding.volume_interval_ml {
            for (code, meaning, ml) in [
                ("volume-lower", "Lower end of the volume's interval", lower),
                ("volume-upper", "Upper end of the volume's interval", upper),
            ] {
                let code = format!("{code}^{meaning}^{SCHEME}");
                lines.add("NM", &code, &sub, &format!("{ml:.2}"), "mL^milliliter^UCUM");
            }
        }
        if let Some(probability) = finding.probability {
            let code = format!("probability^Calibrated probability^{SCHEME}");
            lines.add("NM", &code, &sub, &format!("{probability:.3}"), "");
        }
        lines.add("ST", "272741003^Laterality^SCT", &sub, finding.side.name(), "");
    }
    let reading = said.reading().map(|word| format!("Reader: {word}"));
    let models = said.models().iter().map(|model| match &model.calibration {
        Some(calibration) => format!(
            "Model {} {}, calibrated on {calibration}",
            model.id, model.version
        ),
        None => format!("Model {} {}", model.id, model.version),
    });
    let aspects = said.report.aspects.iter().map(|_| aspects::LIMITS.to_owned());
    let notes = reading
        .into_iter()
        .chain(models)
        .chain(aspects)
        .chain([said.disclaimer()]);
    for note in notes {
        lines.add("TX", &format!("note^Note^{SCHEME}"), "", &escaped(&note), "");
    }
    message.push_str(&lines.said.concat());
    message
}

/// ASPECTS of both sides; a side that was not scored is said not to be.
fn add_aspects(lines: &mut Lines, aspects: &Aspects) {
    for (side, reading) in aspects.sides() {
        // Not a finding's number, so that nobody takes it for one.
        let sub = format!("aspects-{}", side.name());
        let of = |code: &str, meaning: &str| format!("{code}^{meaning}^{SCHEME}");
        let Some(reading) = reading else {
            let none = of("not-evaluated", "not evaluated");
            lines.add("CWE", &of("aspects", "ASPECTS of this side"), &sub, &none, "");
            continue;
        };
        let [least, most] = reading.range;
        for (code, meaning, points) in [
            ("aspects", "ASPECTS of this side", reading.score),
            (
                "aspects-lower",
                "ASPECTS when voxels count from a score of 0.15",
                least,
            ),
            (
                "aspects-upper",
                "ASPECTS when voxels count from a score of 0.5",
                most,
            ),
        ] {
            lines.add("NM", &of(code, meaning), &sub, &points.to_string(), "");
        }
        let affected = reading.regions.iter().filter(|reading| reading.affected);
        let regions: Vec<String> = affected.map(|reading| coded(&reading.region.code())).collect();
        if !regions.is_empty() {
            let code = of("affected-region", "Affected region of ASPECTS");
            lines.add("CWE", &code, &sub, &regions.join("~"), "");
        }
        lines.add("ST", "272741003^Laterality^SCT", &sub, side.name(), "");
    }
}

/// A coded concept → CWE.
fn coded(code: &Code) -> String {
    [&code.value, &code.meaning, &code.scheme]
        .map(|part| escaped(part))
        .join("^")
}

/// OBX segments, numbered.
struct Lines {
    status: &'static str,
    said: Vec<String>,
}

impl Lines {
    fn add(&mut self, kind: &str, code: &str, sub: &str, value: &str, unit: &str) {
        let number = self.said.len() + 1;
        self.said.push(format!(
            "OBX|{number}|{kind}|{code}|{sub}|{value}|{unit}|||||{}\r",
            self.status
        ));
    }
}

/// A DICOM person name → XPN: the suffix goes before the prefix.
fn person_name(name: &str) -> String {
    let parts: Vec<String> = name.split('^').map(escaped).collect();
    let part = |at: usize| parts.get(at).map_or("", String::as_str);
    let name = [part(0), part(1), part(2), part(4), part(3)].join("^");
    name.trim_end_matches('^').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_over_with_prefix_and_suffix_in_their_places() {
        assert_eq!(person_name("Doe^Jane^M^Dr^Jr"), "Doe^Jane^M^Jr^Dr");
        assert_eq!(person_name("O|Neil^A&B"), "O\\F\\Neil^A\\T\\B");
        assert_eq!(person_name(""), "");
    }

    #[test]
    fn acknowledgements_are_taken_or_final() {
        for (code, taken, noted, is_final) in [
            ("AA", true, true, false),
            ("CA", true, false, false),
            ("AE", false, false, true),
            ("AR", false, false, true),
        ] {
            let attempt = judge(&Acknowledgement {
                code: code.to_owned(),
                control_id: None,
                error: None,
            });
            assert_eq!(
                (attempt.message_taken, attempt.acknowledged, attempt.is_final),
                (taken, noted, is_final),
                "{code}"
            );
        }
    }
}
