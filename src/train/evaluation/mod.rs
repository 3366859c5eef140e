//! Held-out cases → how well a model segments, detects and doubts: `cases.jsonl`, `metrics.json` and `report.html`.
//!
//! Every case goes through the real stages on a whole stack: phantoms from the wider evaluation ranges, or scans with labels that somebody brings.
//! Each is judged at once and written down, so that an interrupted run goes on where it stopped.
//! What comes out of phantoms is about phantoms and says nothing of patients.

pub mod aspects;
pub mod calibration;
pub mod judge;
pub mod ledger;
pub mod metrics;
pub(in crate::train) mod picture;
pub(in crate::train) mod report;
pub mod source;
pub mod statistics;
pub mod surface;

use super::TrainError;
use crate::{
    analysis::{
        self,
        infer::{Engine, bundle::Model},
    },
    domain::{calibration::SMALLEST_ML, network::Unattended, uid::Uid},
};
use judge::{Case, judge};
use ledger::{Header, Ledger};
use metrics::{Metrics, summarise};
pub use report::summary;
use source::Source;
use std::{collections::BTreeMap, fs, path::Path, time::Instant};

/// Folder of the pictures of cases that went wrong, below the results.
const PICTURES: &str = "pictures";
/// A positive case with less Dice than this gets a picture too.
const POOR_DICE: f64 = 0.5;

/// Judges a model on all cases of a source; `out` may hold the cases of a run that stopped.
///
/// # Errors
/// When a case cannot be judged, `out` cannot be written or holds the cases of another run.
pub fn evaluate(
    engine: &Engine,
    model: &Model,
    source: &Source,
    out: &Path,
    tell: impl FnMut(&[Case]),
) -> Result<Metrics, TrainError> {
    let header = Header::of(engine, model, source.description()?);
    run(
        &header,
        &source.names(),
        source.count(),
        out,
        |index| one(engine, model, source, index),
        tell,
    )
}

/// Makes or reads a case, looks at it and judges it; with a picture when it went wrong.
fn one(
    engine: &Engine,
    model: &Model,
    source: &Source,
    index: usize,
) -> Result<(Case, Option<Vec<u8>>), TrainError> {
    let started = Instant::now();
    let drawn = source.draw(index, &model.plan)?;
    let name = drawn.subject.name.clone();
    let series = Uid::derive(&[name.as_bytes()]);
    let mut report = analysis::empty_report(None);
    let look = analysis::look(drawn.scan, engine, model, &series, &Unattended, &mut report).map_err(|e| {
        TrainError::Stage {
            case: name,
            what: e.to_string(),
        }
    })?;
    let mut case = judge(drawn.subject, &drawn.truth, &look, &model.plan);
    case.seconds = started.elapsed().as_secs_f64();
    let poor = case.is_positive() && case.dice.unwrap_or(0.0) < POOR_DICE;
    let largest = || {
        case.lesions
            .iter()
            .max_by(|a, b| a.volume_ml.total_cmp(&b.volume_ml))
    };
    let slice = case
        .failures(SMALLEST_ML)
        .next()
        .or_else(|| largest().filter(|_| poor).map(|lesion| lesion.slice));
    let picture = slice.map(|slice| picture::draw(&look, &drawn.truth.classes, slice));
    Ok((case, picture))
}

/// Judges what is not yet judged with `one`, then writes the metrics and the report.
fn run(
    header: &Header,
    names: &BTreeMap<u8, String>,
    count: usize,
    out: &Path,
    mut one: impl FnMut(usize) -> Result<(Case, Option<Vec<u8>>), TrainError>,
    mut tell: impl FnMut(&[Case]),
) -> Result<Metrics, TrainError> {
    let pictures = out.join(PICTURES);
    fs::create_dir_all(&pictures).map_err(|e| TrainError::file(&pictures, e))?;
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(|e| TrainError::file(path, e));
    let mut ledger = Ledger::open(&out.join("cases.jsonl"), header)?;
    tell(ledger.cases());
    for index in ledger.cases().len()..count {
        let (case, picture) = one(index)?;
        if let Some(png) = picture {
            write(&pictures.join(format!("{}.png", case.subject.name)), &png)?;
        }
        ledger.append(&case)?;
        tell(ledger.cases());
    }
    let metrics = summarise(header, names, ledger.cases());
    let path = out.join("metrics.json");
    let json = serde_json::to_vec_pretty(&metrics).map_err(|e| TrainError::file(&path, e.into()))?;
    write(&path, &json)?;
    let html = report::html(&metrics, ledger.cases(), |name| {
        fs::read(pictures.join(format!("{name}.png"))).ok()
    });
    write(&out.join("report.html"), html.as_bytes())?;
    Ok(metrics)
}

#[cfg(test)]
mod tests;
