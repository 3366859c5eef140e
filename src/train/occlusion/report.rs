//! Metrics and cases of a detector of closed arteries → `report.html`.

use super::{
    super::evaluation::report::{number, page, said, table},
    Case, Metrics,
};
use crate::{domain::finding::AnswerValue, train::phantom::Site};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Cases shown in pictures.
const MOST: usize = 12;

/// The evaluation in a paragraph.
#[must_use]
pub fn summary(metrics: &Metrics) -> String {
    format!(
        "Large closed arteries (ICA terminus, M1, basilar) flagged {}, M2 flagged {}, open ones not flagged {}; uncertain {}; \
         area under the ROC curve large {}, M2 {}; side right {}; at the place {}. {}",
        said(&metrics.sensitivity_large, 2),
        said(&metrics.sensitivity_m2, 2),
        said(&metrics.specificity, 2),
        said(&metrics.uncertain, 2),
        said(&metrics.auc_large, 3),
        said(&metrics.auc_m2, 3),
        said(&metrics.side_right, 2),
        said(&metrics.at_the_place, 2),
        metrics.about
    )
}

/// Writes the page; `picture` gives the PNG of a case that went wrong.
pub(super) fn html(metrics: &Metrics, cases: &[Case], picture: impl Fn(&Case) -> Option<Vec<u8>>) -> String {
    let wanted = |estimate: &crate::train::evaluation::statistics::Estimate, least: f64| {
        let reached = estimate
            .value
            .map_or("not known", |v| if v >= least { "yes" } else { "no" });
        [said(estimate, 3), format!("at least {least}"), reached.into()]
    };
    let told = |estimate| [said(estimate, 3), "–".into(), "–".into()];
    let rows: Vec<Vec<String>> = [
        (
            "Large closed arteries flagged",
            wanted(&metrics.sensitivity_large, 0.90),
        ),
        ("Open arteries not flagged", wanted(&metrics.specificity, 0.90)),
        (
            "Side right, flagged ICA termini and M1",
            wanted(&metrics.side_right, 0.95),
        ),
        ("M2 flagged", told(&metrics.sensitivity_m2)),
        (
            "Closed, but the clot as dense as blood: flagged",
            told(&metrics.flagged_unseen),
        ),
        ("Uncertain", told(&metrics.uncertain)),
        ("Area under the ROC curve, large", told(&metrics.auc_large)),
        ("Area under the ROC curve, M2", told(&metrics.auc_m2)),
        ("First finding at the place", told(&metrics.at_the_place)),
        (
            "Seconds an analysis, median",
            [number(metrics.median_s, 1), "–".into(), "–".into()],
        ),
    ]
    .map(|(name, cells)| [vec![name.to_owned()], cells.to_vec()].concat())
    .into();
    let mut body = table(
        "What was found",
        &["Measure", "Found", "Wanted", "Reached"],
        &rows,
    );
    let rows: Vec<Vec<String>> = Site::ALL
        .iter()
        .zip(metrics.sites)
        .map(|(site, counts)| {
            [
                vec![site.name().to_owned()],
                counts.map(|n| n.to_string()).to_vec(),
            ]
            .concat()
        })
        .collect();
    let names: Vec<&str> = ["True site"]
        .into_iter()
        .chain(Site::ALL.map(Site::name))
        .chain(["none"])
        .collect();
    body.push_str(&table(
        "Flagged closed arteries: the first finding's site",
        &names,
        &rows,
    ));
    if !metrics.artery_dice.is_empty() {
        let rows: Vec<Vec<String>> = metrics
            .artery_dice
            .iter()
            .map(|(artery, dice)| vec![artery.name().to_owned(), said(dice, 2)])
            .collect();
        body.push_str(&table("Arteries of the tree", &["Artery", "Dice, mean"], &rows));
    }
    body.push_str("<h2>Where it went wrong</h2>\n");
    let figures: Vec<String> = cases
        .iter()
        .filter(|case| case.is_wrong())
        .filter_map(|case| Some((case, picture(case)?)))
        .take(MOST)
        .map(|(case, png)| {
            let caption = caption(case);
            format!(
                r#"<figure><img alt="{caption}" src="data:image/png;base64,{}"><figcaption>{caption}</figcaption></figure>"#,
                STANDARD.encode(png)
            )
        })
        .collect();
    if figures.is_empty() {
        body.push_str("<p>No artery was told wrong.</p>\n");
    } else {
        body.push_str("<div class=\"pictures\">");
        body.push_str(&figures.join("\n"));
        body.push_str("</div>\n<p>Brightest voxels of 20 mm. Green: where the artery is closed. Orange: what the model shows.</p>\n");
    }
    page(&metrics.judged, &metrics.about, &summary(metrics), &body)
}

/// Names and numbers only, so that nothing needs escaping.
fn caption(case: &Case) -> String {
    let truth = case.site.map_or("open".to_owned(), |site| {
        let side = case.side.map_or("", |s| s.name());
        format!(
            "{side} {} closed, collaterals {}",
            site.name(),
            number(case.collaterals.map(f64::from), 2)
        )
    });
    let answer = match case.answer {
        AnswerValue::Present => "flagged",
        AnswerValue::Uncertain => "uncertain",
        _ => "not flagged",
    };
    let found = case.found_site.map_or(String::new(), |site| {
        let side = case.found_side.map_or("", |s| s.name());
        format!(", found {side} {}", site.name())
    });
    format!(
        "{} ({}): {truth}; {answer}, score {}{found}",
        case.seed,
        case.stack,
        number(Some(case.score), 2)
    )
}
