//! Numbers → small SVG plots that need nothing from outside; colours come from the page's style sheet.
//!
//! Each plot is an image with a title for screen readers; its numbers stand in the tables or the caption beside it.

use super::{super::statistics::Estimate, escape};
use std::fmt::Write as _;

/// Size of a plot with axes.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 320.0;
/// Room for labels: left, top, right, bottom.
const ROOM: [f64; 4] = [56.0, 12.0, 14.0, 46.0];
/// Height of a row of a plot of intervals, and room for its name.
const ROW: f64 = 24.0;
const NAME: f64 = 190.0;

/// A plot with two axes.
#[derive(Debug)]
pub(super) struct Plot {
    title: String,
    x: [f64; 2],
    y: [f64; 2],
    marks: String,
    axes: String,
}

impl Plot {
    /// Lays out the axes: their names and ranges.
    pub(super) fn new(title: &str, x: (&str, [f64; 2]), y: (&str, [f64; 2])) -> Self {
        let mut plot = Self {
            title: title.into(),
            x: x.1,
            y: y.1,
            marks: String::new(),
            axes: String::new(),
        };
        let (left, right) = (ROOM[0], WIDTH - ROOM[2]);
        let (top, bottom) = (ROOM[1], HEIGHT - ROOM[3]);
        let mut axes = String::new();
        for value in ticks(x.1) {
            let at = plot.at(value, y.1[0])[0];
            text!(
                axes,
                r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{top}" y2="{bottom}"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                short(value)
            );
        }
        for value in ticks(y.1) {
            let at = plot.at(x.1[0], value)[1];
            text!(
                axes,
                r#"<line class="grid" x1="{left}" x2="{right}" y1="{at:.1}" y2="{at:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 6.0,
                at + 4.0,
                short(value)
            );
        }
        let middle = [f64::midpoint(left, right), f64::midpoint(top, bottom)];
        text!(
            axes,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text x="14" y="{:.1}" text-anchor="middle" transform="rotate(-90 14 {:.1})">{}</text>"#,
            middle[0],
            HEIGHT - 8.0,
            escape(x.0),
            middle[1],
            middle[1],
            escape(y.0)
        );
        plot.axes = axes;
        plot
    }

    fn at(&self, x: f64, y: f64) -> [f64; 2] {
        let share = |v: f64, [low, high]: [f64; 2]| ((v - low) / (high - low)).clamp(0.0, 1.0);
        let (left, right) = (ROOM[0], WIDTH - ROOM[2]);
        let (top, bottom) = (ROOM[1], HEIGHT - ROOM[3]);
        [
            left + share(x, self.x) * (right - left),
            bottom - share(y, self.y) * (bottom - top),
        ]
    }

    /// Joins points by a line.
    pub(super) fn line(&mut self, class: &str, points: &[[f64; 2]]) {
        let places: Vec<String> = points
            .iter()
            .map(|[x, y]| self.at(*x, *y))
            .map(|[x, y]| format!("{x:.1},{y:.1}"))
            .collect();
        text!(
            self.marks,
            r#"<polyline class="{class}" points="{}"/>"#,
            places.join(" ")
        );
    }

    /// A dot.
    pub(super) fn dot(&mut self, x: f64, y: f64) {
        let [x, y] = self.at(x, y);
        text!(
            self.marks,
            r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="3"/>"#
        );
    }

    /// The interval of a value at `x`.
    pub(super) fn interval(&mut self, x: f64, [low, high]: [f64; 2]) {
        self.line("bar", &[[x, low], [x, high]]);
    }

    /// The plot as an element.
    pub(super) fn svg(&self) -> String {
        format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{}</title>{}{}</svg>"#,
            escape(&self.title),
            self.axes,
            self.marks
        )
    }
}

/// Named values with their intervals, one below the other, on an axis from 0 to 1; those without a value are left out.
pub(super) fn intervals(title: &str, axis: &str, rows: &[(String, Estimate)]) -> String {
    let rows: Vec<(&str, f64, Estimate)> = rows
        .iter()
        .filter_map(|(name, e)| Some((name.as_str(), e.value?, *e)))
        .collect();
    let bottom = 8.0 + ROW * rows.len() as f64;
    let (width, height) = (WIDTH + NAME - ROOM[0], bottom + ROOM[3]);
    let at = |share: f64| NAME + share.clamp(0.0, 1.0) * (width - NAME - ROOM[2]);
    let mut marks = String::new();
    for value in ticks([0.0, 1.0]) {
        let x = at(value);
        text!(
            marks,
            r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="4" y2="{bottom}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 16.0,
            short(value)
        );
    }
    for (i, (name, value, estimate)) in rows.iter().enumerate() {
        let y = 8.0 + ROW * (i as f64 + 0.5);
        text!(
            marks,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{} (n = {})</text>"#,
            NAME - 8.0,
            y + 4.0,
            escape(name),
            estimate.n
        );
        if let Some([low, high]) = estimate.interval {
            text!(
                marks,
                r#"<polyline class="bar" points="{:.1},{y:.1} {:.1},{y:.1}"/>"#,
                at(low),
                at(high)
            );
        }
        text!(
            marks,
            r#"<circle class="dot" cx="{:.1}" cy="{y:.1}" r="4"/>"#,
            at(*value)
        );
    }
    text!(
        marks,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        at(0.5),
        height - 8.0,
        escape(axis)
    );
    format!(
        r#"<svg viewBox="0 0 {width} {height}" role="img"><title>{}</title>{marks}</svg>"#,
        escape(title)
    )
}

/// About five round numbers within a range.
fn ticks([low, high]: [f64; 2]) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(rough);
    let first = (low / step).ceil();
    (0..12)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|value| *value <= high + step * 1e-9)
        .collect()
}

/// A number as short as it can be said.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.replace('-', "−")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let said = |range| ticks(range).iter().map(|t| short(*t)).collect::<Vec<_>>();
        assert_eq!(said([0.0, 1.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(said([-7.0, 12.0]), ["−5", "0", "5", "10"]);
    }

    #[test]
    fn values_without_an_estimate_are_left_out_of_the_plot() {
        let rows = [
            ("a < b".to_owned(), super::super::super::statistics::share(3, 4)),
            ("none".to_owned(), Estimate::default()),
        ];
        let svg = intervals("t", "x", &rows);
        assert!(svg.contains("a &lt; b (n = 4)") && !svg.contains("none"));
    }
}
