//! `cases.jsonl`: a line that says what is judged, then a line a case, each written as soon as it is known.
//!
//! A run that was interrupted goes on after the last whole line; one with another model, weights, device or cases is refused.
//! Metrics are made from the lines as they are read back, so that they do not depend on where a run was interrupted.

use super::super::TrainError;
use crate::{
    analysis::infer::{Engine, bundle::Model},
    domain::calibration::Cases,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

/// The format of `cases.jsonl` and `metrics.json` that this build writes.
pub const SCHEMA: u32 = 4;

/// What is judged: the first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Format, [`SCHEMA`].
    pub schema: u32,
    /// Version of ictus.
    pub ictus: String,
    /// What the model is asked.
    pub question: String,
    /// The model's id.
    pub model: String,
    /// Its version.
    pub model_version: String,
    /// SHA-256 over plan and weights, hexadecimal.
    pub model_sha256: String,
    /// SHA-256 of the weights, hexadecimal.
    pub weights_sha256: String,
    /// SHA-256 of the calibration, hexadecimal; null without one.
    pub calibration_sha256: Option<String>,
    /// What computed it.
    pub numeric_mode: String,
    /// The cases.
    pub source: Cases,
}

impl Header {
    /// What is judged when `model` looks at `source` with `engine`.
    #[must_use]
    pub fn of(engine: &Engine, model: &Model, source: Cases) -> Self {
        Self {
            schema: SCHEMA,
            ictus: env!("CARGO_PKG_VERSION").into(),
            question: model.plan.question.clone(),
            model: model.plan.id.clone(),
            model_version: model.plan.version.clone(),
            model_sha256: hex::encode(model.digest),
            weights_sha256: model.weights_sha256.clone(),
            calibration_sha256: model.calibration_digest.map(hex::encode),
            numeric_mode: engine.numeric_mode_of(model).into(),
            source,
        }
    }
}

/// The open file, with a `Case` a line.
#[derive(Debug)]
pub struct Ledger<Case> {
    path: PathBuf,
    file: File,
    cases: Vec<Case>,
}

impl<Case: Serialize + DeserializeOwned> Ledger<Case> {
    /// Begins, or goes on where an earlier run of the same header stopped.
    ///
    /// # Errors
    /// When the file cannot be used, or was begun with something else.
    pub fn open(path: &Path, header: &Header) -> Result<Self, TrainError> {
        let failed = |e| TrainError::file(path, e);
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(failed(e)),
        };
        // What follows the last line's end was being written when the run stopped.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let begun = header_of(path, &text[..whole])?;
        if let Some(begun) = &begun {
            check(path, begun, header)?;
        }
        let cases = cases_of(path, &text[..whole])?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        let mut ledger = Self {
            path: path.to_owned(),
            file,
            cases,
        };
        if begun.is_none() {
            ledger.write(header)?;
        }
        Ok(ledger)
    }

    /// The cases that are judged.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Adds a case.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, case: &Case) -> Result<(), TrainError> {
        let line = self.write(case)?;
        let number = self.cases.len() + 2;
        self.cases
            .push(serde_json::from_str(&line).map_err(|_| unreadable(&self.path, number))?);
        Ok(())
    }

    fn write(&mut self, value: &impl Serialize) -> Result<String, TrainError> {
        let failed = |e| TrainError::file(&self.path, e);
        let mut line = serde_json::to_string(value).map_err(|e| failed(e.into()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(failed)?;
        Ok(line)
    }
}

/// The header of a run that came to its end.
///
/// # Errors
/// When there is none, or it was written by another build.
pub fn read_header(path: &Path) -> Result<Header, TrainError> {
    let text = fs::read_to_string(path).map_err(|e| TrainError::file(path, e))?;
    let header = header_of(path, &text)?.ok_or_else(|| unreadable(path, 1))?;
    if header.schema == SCHEMA {
        Ok(header)
    } else {
        Err(TrainError::Mismatch(format!(
            "{} has schema {}, this build reads {SCHEMA}; evaluate anew, into another folder",
            path.display(),
            header.schema
        )))
    }
}

/// The cases of a run that came to its end.
///
/// # Errors
/// When there are fewer than its header says.
pub fn read_cases<Case: DeserializeOwned>(path: &Path, header: &Header) -> Result<Vec<Case>, TrainError> {
    let text = fs::read_to_string(path).map_err(|e| TrainError::file(path, e))?;
    let cases = cases_of(path, &text)?;
    if cases.len() == header.source.count() {
        Ok(cases)
    } else {
        Err(TrainError::Mismatch(format!(
            "{} holds {} of {}; let `ictus evaluate` come to its end with the same arguments",
            path.display(),
            cases.len(),
            header.source
        )))
    }
}

/// The first line, if there is one.
fn header_of(path: &Path, text: &str) -> Result<Option<Header>, TrainError> {
    let first = text.lines().next();
    first
        .map(|line| serde_json::from_str(line).map_err(|_| unreadable(path, 1)))
        .transpose()
}

/// The lines after the first.
fn cases_of<Case: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<Case>, TrainError> {
    (2..)
        .zip(text.lines().skip(1))
        .map(|(number, line)| serde_json::from_str(line).map_err(|_| unreadable(path, number)))
        .collect()
}

fn unreadable(path: &Path, line: usize) -> TrainError {
    TrainError::Mismatch(format!(
        "line {line} of {} is not what this build writes; choose another folder or remove the file",
        path.display()
    ))
}

/// Refuses to go on with something else.
fn check(path: &Path, begun: &Header, header: &Header) -> Result<(), TrainError> {
    let words = |h: &Header| {
        [
            ("schema", h.schema.to_string()),
            ("ictus", h.ictus.clone()),
            ("model", format!("{} {}", h.model, h.model_version)),
            ("plan and weights", h.model_sha256.clone()),
            (
                "calibration",
                h.calibration_sha256.clone().unwrap_or("none".into()),
            ),
            ("numeric mode", h.numeric_mode.clone()),
            ("cases", h.source.to_string()),
        ]
    };
    let other = words(begun).into_iter().zip(words(header)).find(|(a, b)| a != b);
    match other {
        None => Ok(()),
        Some(((what, was), (_, is))) => Err(TrainError::Mismatch(format!(
            "{} was begun with {what} {was}, this run has {is}; choose another folder to begin anew, or the same arguments to go on",
            path.display()
        ))),
    }
}
