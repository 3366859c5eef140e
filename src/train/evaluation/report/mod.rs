//! Metrics and cases → `report.html`: one file with plots, tables and pictures, without scripts or anything from outside.

/// Appends formatted text; a `String` takes everything.
macro_rules! text {
    ($to:expr, $($said:tt)*) => {
        // Nothing can fail here.
        let _written = write!($to, $($said)*);
    };
}

mod failures;
mod figures;
mod plot;
mod table;

use super::{judge::Case, ledger::Header, metrics::Metrics, statistics::Estimate};
use crate::domain::calibration::Cases;
pub(in crate::train) use table::table;

/// Light and dark by what the reader's system asks for.
const STYLE: &str = include_str!("style.css");

/// Writes the page; `picture` gives the PNG of a case that went wrong.
pub(super) fn html(metrics: &Metrics, cases: &[Case], picture: impl Fn(&str) -> Option<Vec<u8>>) -> String {
    let mut body = String::new();
    if !metrics.goals.is_empty() {
        body.push_str(&table::goals(&metrics.goals));
    }
    body.push_str(&table::overall(metrics));
    body.push_str(&figures::all(metrics, cases));
    body.push_str(&table::groups(metrics));
    body.push_str(&failures::gallery(cases, picture));
    body.push_str(&table::definitions(metrics));
    page(&metrics.judged, &metrics.about, &summary(metrics), &body)
}

/// A page around its body.
pub(in crate::train) fn page(judged: &Header, about: &str, summary: &str, body: &str) -> String {
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of {model}</title><style>{STYLE}</style></head><body><main>
<h1>Evaluation of {model} {version}</h1>
<p class="banner" role="note">{about}</p>
<p>{summary}</p>
{body}<footer><p>{about}</p></footer></main></body></html>
"#,
        model = escape(&judged.model),
        version = escape(&judged.model_version),
        about = escape(about),
        summary = escape(summary),
    )
}

/// The evaluation in a paragraph.
#[must_use]
pub fn summary(metrics: &Metrics) -> String {
    let all = &metrics.overall;
    let flags = &metrics.flags;
    let what = match &metrics.judged.source {
        Cases::Phantoms { .. } => "phantoms",
        Cases::Dataset { .. } => "scans",
    };
    format!(
        "{} {what} with a lesion, {} without: mean Dice {}, normalised surface Dice {}; lesions of 1 mL or more found {}; false lesions a case {}; \
         flagged {} of the former and {} of 100 normal ones; area under the ROC curve {}; entropy tells wrong from right voxels with AUROC {}. {}",
        all.positive,
        all.cases - all.positive,
        said(&all.dice, 2),
        said(&all.nsd, 2),
        said(&all.sensitivity, 2),
        said(&all.false_lesions_per_case, 2),
        said(&flags.sensitivity, 2),
        said(&flags.false_per_100_normal, 1),
        said(&metrics.auc, 3),
        number(metrics.entropy_auroc_wrong, 3),
        metrics.about
    )
}

/// An estimate with its interval.
pub(in crate::train) fn said(estimate: &Estimate, digits: usize) -> String {
    match (estimate.value, estimate.interval) {
        (None, _) => "–".into(),
        (Some(_), None) => number(estimate.value, digits),
        (Some(_), Some([low, high])) => format!(
            "{} ({} to {})",
            number(estimate.value, digits),
            number(Some(low), digits),
            number(Some(high), digits)
        ),
    }
}

pub(in crate::train) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".into(), |v| format!("{v:.digits$}").replace('-', "−"))
}

/// A machine's name as a reader wants it.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
