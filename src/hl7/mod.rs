//! HL7 v2 messages: text ↔ segments, fields and components, and the frames in which they travel (MLLP).
//!
//! What must hold: a value that is written comes back as it was, whatever it contains; what cannot be said in a message's
//! character set is an error and never a question mark, since half a name is another patient.
//! It knows neither what an event means nor who sends it, and no error repeats a value.
//!
//! Source: HL7 v2.5.1 chapter 2 (control); HL7 Lower Layer Protocol, appendix C.

pub mod charset;
pub mod mllp;

use crate::domain::failure::FailureClass;

/// Why a message cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Hl7Error {
    /// It does not begin with MSH and its separators.
    #[error("the message does not begin with an MSH segment that names its separators; expected MSH|^~\\&|")]
    NoHeader,
    /// A segment that is needed is missing.
    #[error("the message has no {0} segment; send it with one")]
    NoSegment(&'static str),
    /// A field that is needed is empty.
    #[error("{0} is empty; send the message with a value")]
    Empty(&'static str),
    /// A character set that nobody here knows.
    #[error("the message names a character set (MSH-18) that is not known here; send UNICODE UTF-8")]
    CharacterSet,
    /// Bytes that are no text in the message's character set.
    #[error("the message holds bytes that its character set (MSH-18) does not have; correct MSH-18")]
    Undecodable,
    /// A text that the target's character set cannot say.
    #[error("a value cannot be written in {0}; give the target the character set UNICODE UTF-8")]
    Unencodable(&'static str),
    /// The frame is not one.
    #[error("the bytes are not framed as MLLP: {0}")]
    Frame(&'static str),
    /// The frame is longer than allowed.
    #[error("the message is longer than {0} bytes")]
    TooLong(usize),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Connection(std::io::ErrorKind),
}

impl Hl7Error {
    /// What is done about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Connection(_) => FailureClass::Transient,
            _ => FailureClass::Input,
        }
    }
}

/// A message as it was sent: segments of fields, still escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    segments: Vec<Vec<String>>,
    separators: Separators,
}

/// The characters that part a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Separators {
    field: char,
    component: char,
    repetition: char,
    escape: char,
    subcomponent: char,
}

impl Message {
    /// Reads a message; any of CR, LF and CRLF ends a segment.
    ///
    /// # Errors
    /// When it has no header.
    pub fn parse(text: &str) -> Result<Self, Hl7Error> {
        let text = text.trim_start_matches(['\r', '\n', '\u{feff}']);
        let mut head = text.strip_prefix("MSH").ok_or(Hl7Error::NoHeader)?.chars();
        let mut next = || head.next().filter(|c| c.is_ascii_punctuation());
        let separators = Separators {
            field: next().ok_or(Hl7Error::NoHeader)?,
            component: next().ok_or(Hl7Error::NoHeader)?,
            repetition: next().ok_or(Hl7Error::NoHeader)?,
            escape: next().ok_or(Hl7Error::NoHeader)?,
            subcomponent: next().ok_or(Hl7Error::NoHeader)?,
        };
        let segments = text
            .split(['\r', '\n'])
            .filter(|line| !line.is_empty())
            .map(|line| line.split(separators.field).map(str::to_owned).collect())
            .collect();
        Ok(Self { segments, separators })
    }

    /// The first segment of this name, as a reader of its fields.
    #[must_use]
    pub fn segment(&self, name: &str) -> Option<Segment<'_>> {
        self.segments_of(name).next()
    }

    /// Every segment of this name, in order.
    pub fn segments_of<'a>(&'a self, name: &str) -> impl Iterator<Item = Segment<'a>> {
        self.segments
            .iter()
            .filter(move |fields| fields.first().is_some_and(|first| first == name))
            .map(|fields| Segment {
                fields,
                separators: self.separators,
            })
    }

    /// MSH-9: event code and trigger, `ADT` and `A08`.
    #[must_use]
    pub fn kind(&self) -> (String, String) {
        let of = |component| self.segment("MSH").and_then(|msh| msh.text(9, component));
        (of(1).unwrap_or_default(), of(2).unwrap_or_default())
    }

    /// MSH-10.
    #[must_use]
    pub fn control_id(&self) -> Option<String> {
        self.segment("MSH")?.text(10, 1)
    }
}

/// One segment.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    fields: &'a [String],
    separators: Separators,
}

impl<'a> Segment<'a> {
    /// A field as it was sent; MSH-1 is the field separator itself, so that its fields count from there.
    fn raw(&self, number: usize) -> Option<&'a str> {
        let at = if self.fields.first().is_some_and(|name| name == "MSH") {
            number.checked_sub(1)?
        } else {
            number
        };
        self.fields.get(at).map(String::as_str)
    }

    /// One component of the first repetition of a field, unescaped; empty and `""` (HL7's null) are none.
    #[must_use]
    pub fn text(&self, field: usize, component: usize) -> Option<String> {
        self.repetitions(field)
            .next()
            .and_then(|repetition| self.component(repetition, component))
    }

    /// The repetitions of a field, as they were sent.
    pub fn repetitions(&self, field: usize) -> impl Iterator<Item = &'a str> {
        self.raw(field)
            .unwrap_or_default()
            .split(self.separators.repetition)
    }

    /// One component of a repetition, its first subcomponent, unescaped.
    #[must_use]
    pub fn component(&self, repetition: &str, component: usize) -> Option<String> {
        let part = repetition
            .split(self.separators.component)
            .nth(component.checked_sub(1)?)?;
        let first = part.split(self.separators.subcomponent).next()?;
        let text = self.unescape(first).trim().to_owned();
        (!text.is_empty() && text != "\"\"").then_some(text)
    }

    /// Whether the sender asks for the value to be emptied: `""`.
    #[must_use]
    pub fn is_null(&self, field: usize) -> bool {
        self.raw(field) == Some("\"\"")
    }

    fn unescape(&self, text: &str) -> String {
        let Separators {
            field,
            component,
            repetition,
            escape,
            subcomponent,
        } = self.separators;
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(escape) {
            out.push_str(before);
            let Some((code, tail)) = after.split_once(escape) else {
                out.push(escape);
                rest = after;
                continue;
            };
            match code {
                "F" => out.push(field),
                "S" => out.push(component),
                "T" => out.push(subcomponent),
                "R" => out.push(repetition),
                "E" => out.push(escape),
                ".br" => out.push('\n'),
                // Highlighting and what is local is without meaning in a value.
                _ => out.push_str(&hexadecimal(code).unwrap_or_default()),
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

/// Bytes that were written as digits, where they are text.
fn hexadecimal(code: &str) -> Option<String> {
    String::from_utf8(hex::decode(code.strip_prefix('X')?).ok()?).ok()
}

/// A value as it stands in a message of ours, which uses the separators `|^~\&`.
#[must_use]
pub fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '|' => out.push_str("\\F\\"),
            '^' => out.push_str("\\S\\"),
            '&' => out.push_str("\\T\\"),
            '~' => out.push_str("\\R\\"),
            '\\' => out.push_str("\\E\\"),
            '\n' => out.push_str("\\.br\\"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// What an acknowledgement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// MSA-1: `AA`, `AE`, `AR`, or `CA`, `CE`, `CR` in the enhanced mode.
    pub code: String,
    /// MSA-2: the control id of what it is about.
    pub control_id: Option<String>,
    /// ERR-3 or ERR-1: an error code, which holds no patient data.
    pub error: Option<String>,
}

impl Acknowledgement {
    /// Reads an acknowledgement; its texts may quote the message and are not read.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, Hl7Error> {
        let message = Message::parse(text)?;
        let msa = message.segment("MSA").ok_or(Hl7Error::NoSegment("MSA"))?;
        let error = message.segment("ERR").and_then(|err| err.text(3, 1));
        Ok(Self {
            code: msa.text(1, 1).ok_or(Hl7Error::Empty("MSA-1"))?,
            control_id: msa.text(2, 1),
            // A code is short and has no spaces; a sentence in its place could name a patient.
            error: error.filter(|code| code.len() <= 20 && code.chars().all(|c| c.is_ascii_alphanumeric())),
        })
    }
}

/// The answer to a message: who sent it becomes who receives it.
#[must_use]
pub fn acknowledge(message: &Message, code: &str, text: Option<&str>, at: &str, control_id: &str) -> String {
    let msh = message.segment("MSH");
    let field = |number: usize| {
        let raw = msh.and_then(|msh| msh.raw(number));
        raw.unwrap_or_default().to_owned()
    };
    let (_, trigger) = message.kind();
    let version = message
        .segment("MSH")
        .and_then(|msh| msh.text(12, 1))
        .unwrap_or_else(|| "2.5.1".to_owned());
    let processing = msh
        .and_then(|msh| msh.text(11, 1))
        .unwrap_or_else(|| "P".to_owned());
    let mut answer = format!(
        "MSH|^~\\&|{}|{}|{}|{}|{at}||ACK^{}^ACK|{control_id}|{}|{}||||||UNICODE UTF-8\r",
        field(5),
        field(6),
        field(3),
        field(4),
        escaped(&trigger),
        escaped(&processing),
        escaped(&version),
    );
    let asked = message.control_id().unwrap_or_default();
    answer.push_str(&format!("MSA|{code}|{}\r", escaped(&asked)));
    if let Some(text) = text {
        answer.push_str(&format!(
            "ERR|||207^Application error^HL70357|E||||{}\r",
            escaped(text)
        ));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADT: &str = "MSH|^~\\&|HIS|WARD|ICTUS|CT|20240131||ADT^A08^ADT_A01|42|P|2.5.1||||||UNICODE UTF-8\rEVN|A08\r\
        PID|1||P\\T\\1^^^HOSP&1.2.3&ISO^MR~X9^^^OTHER||Doe\\S\\x^Jane^^^||19500102|F\r";

    #[test]
    fn fields_count_from_the_separator_in_msh_and_from_the_name_elsewhere() {
        let message = Message::parse(ADT).unwrap();
        assert_eq!(message.kind(), ("ADT".to_owned(), "A08".to_owned()));
        assert_eq!(message.control_id().as_deref(), Some("42"));
        let pid = message.segment("PID").unwrap();
        assert_eq!(pid.text(3, 1).as_deref(), Some("P&1"));
        assert_eq!(pid.text(3, 4).as_deref(), Some("HOSP"));
        assert_eq!(pid.repetitions(3).count(), 2);
        assert_eq!(pid.text(5, 1).as_deref(), Some("Doe^x"));
        assert_eq!(pid.text(5, 3), None);
        assert_eq!(pid.text(7, 1).as_deref(), Some("19500102"));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in ["", "PID|1", "MSH", "MSH|^~", "MSHabcdef"] {
            assert!(Message::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_names_what_it_answers_and_is_read_back() {
        let message = Message::parse(ADT).unwrap();
        let answer = acknowledge(&message, "AE", Some("PID-3 is empty"), "20240131101500", "7");
        assert!(answer.starts_with("MSH|^~\\&|ICTUS|CT|HIS|WARD|"), "{answer}");
        let read = Acknowledgement::parse(&answer).unwrap();
        assert_eq!(
            (read.code.as_str(), read.control_id.as_deref()),
            ("AE", Some("42"))
        );
        assert_eq!(read.error.as_deref(), Some("207"));
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was(value in "[ -~äßŁ漢]{1,40}") {
            let value = value.trim().to_owned();
            prop_assume!(!value.is_empty() && value != "\"\"");
            let message = Message::parse(&format!("MSH|^~\\&|\rPID|1||{}\r", escaped(&value))).unwrap();
            prop_assert_eq!(message.segment("PID").unwrap().text(3, 1), Some(value));
        }
    }
}
