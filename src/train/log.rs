//! Progress → `OUT/log.csv`, `OUT/loss.svg` and `OUT/logs`, which TensorBoard reads.
//!
//! One line a step; a training that goes on takes back the lines of the steps that it does again.
//! In TensorBoard each part of a training (trunk, member) is a run.

use super::{
    TrainError,
    events::Events,
    training::{Part, Progress, write},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const HEADER: &str = "part,step,done,loss,learning_rate";
/// Steps between two writings of the files.
const EVERY: usize = 100;
/// Share of the smoothed loss that stays at a step.
const SMOOTH: f64 = 0.98;
/// Size of the picture, and its margins.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 50.0;
/// Points of a curve.
const POINTS: usize = 400;
/// One colour a part; readable to those who do not tell red from green (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// One line.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    part: String,
    step: usize,
    done: usize,
    loss: f64,
    learning_rate: f64,
}

/// The files of a training.
#[derive(Debug)]
pub struct Log {
    out: PathBuf,
    rows: Vec<Row>,
    events: BTreeMap<String, Events>,
    total: usize,
}

impl Log {
    /// Goes on with what an earlier run left.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(out: &Path) -> Result<Self, TrainError> {
        fs::create_dir_all(out).map_err(|e| TrainError::file(out, e))?;
        let text = fs::read_to_string(out.join("log.csv")).unwrap_or_default();
        Ok(Self {
            out: out.to_owned(),
            rows: text.lines().skip(1).filter_map(parse).collect(),
            events: BTreeMap::new(),
            total: 0,
        })
    }

    /// Notes a step.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn step(&mut self, p: &Progress) -> Result<(), TrainError> {
        self.total = p.total;
        while self.rows.last().is_some_and(|row| row.done >= p.done) {
            self.rows.pop();
        }
        self.rows.push(Row {
            part: p.part.to_string(),
            step: p.step,
            done: p.done,
            loss: p.loss,
            learning_rate: p.learning_rate,
        });
        let values = [("loss", p.loss), ("learning_rate", p.learning_rate)];
        self.scalars(p.part, p.step, &values)?;
        if p.done.is_multiple_of(EVERY) || p.done == p.total {
            self.write()?;
        }
        Ok(())
    }

    /// Notes numbers for TensorBoard only, as a member's validation.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars(&mut self, part: Part, step: usize, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let part = part.to_string();
        let folder = self.out.join("logs").join(&part);
        let failed = |e| TrainError::file(&folder, e);
        if !self.events.contains_key(&part) {
            self.events
                .insert(part.clone(), Events::create(&folder).map_err(failed)?);
        }
        let Some(events) = self.events.get_mut(&part) else {
            return Ok(());
        };
        events.add(step, values).map_err(failed)
    }

    /// Writes table and picture.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self) -> Result<(), TrainError> {
        let mut table = format!("{HEADER}\n");
        for row in &self.rows {
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "{},{},{},{},{}",
                row.part, row.step, row.done, row.loss, row.learning_rate
            );
        }
        write(&self.out.join("log.csv"), table.as_bytes())?;
        write(&self.out.join("loss.svg"), self.picture().as_bytes())
    }

    /// The smoothed loss of every part over the steps.
    fn picture(&self) -> String {
        let mut curves: Vec<(&str, Vec<[f64; 2]>)> = Vec::new();
        let mut smooth = 0.0;
        for row in &self.rows {
            if curves.last().is_none_or(|(part, _)| *part != row.part) {
                curves.push((&row.part, Vec::new()));
                smooth = row.loss;
            }
            smooth = SMOOTH * smooth + (1.0 - SMOOTH) * row.loss;
            if let Some((_, points)) = curves.last_mut() {
                points.push([row.done as f64, smooth]);
            }
        }
        let all = || curves.iter().flat_map(|(_, points)| points);
        let low = all().map(|p| p[1]).fold(0.0, f64::min);
        let high = all().map(|p| p[1]).fold(low + 1e-6, f64::max);
        let total = self.total.max(self.rows.last().map_or(1, |row| row.done)) as f64;
        let x = |done: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * done / total;
        let y = |loss: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * (loss - low) / (high - low);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        for i in 0..=4u8 {
            let loss = low + (high - low) * f64::from(i) / 4.0;
            let (left, right, at) = (x(0.0), x(total), y(loss));
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.2}</text>",
                left - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">step of {total}</text><text x=\"{MARGIN}\" y=\"20\">loss, smoothed</text>",
            WIDTH / 2.0,
            HEIGHT - 14.0
        );
        for (i, (part, points)) in curves.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let every = points.len().div_ceil(POINTS).max(1);
            let line: Vec<String> = points
                .iter()
                .rev()
                .step_by(every)
                .map(|[done, loss]| format!("{:.1},{:.1}", x(*done), y(*loss)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/><text x=\"{:.1}\" y=\"36\" fill=\"{colour}\">{part}</text>",
                line.join(" "),
                x(points[0][0])
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn parse(line: &str) -> Option<Row> {
    let mut cells = line.split(',');
    let row = Row {
        part: cells.next()?.to_owned(),
        step: cells.next()?.parse().ok()?,
        done: cells.next()?.parse().ok()?,
        loss: cells.next()?.parse().ok()?,
        learning_rate: cells.next()?.parse().ok()?,
    };
    cells.next().is_none().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_that_goes_on_replaces_the_steps_that_it_does_again() {
        let out = tempfile::tempdir().unwrap();
        let progress = |done: usize, loss: f64| Progress {
            part: Part::Member(0),
            step: done,
            done,
            total: 6,
            loss,
            learning_rate: 1e-3,
        };
        let mut first = Log::open(out.path()).unwrap();
        for done in 1..=4 {
            first.step(&progress(done, 2.0)).unwrap();
        }
        first.write().unwrap();
        let mut second = Log::open(out.path()).unwrap();
        for done in 3..=6 {
            second.step(&progress(done, 1.0)).unwrap();
        }
        let table = fs::read_to_string(out.path().join("log.csv")).unwrap();
        let losses: Vec<&str> = table
            .lines()
            .skip(1)
            .filter_map(|l| l.split(',').nth(3))
            .collect();
        assert_eq!(losses, ["2", "2", "1", "1", "1", "1"]);
        let picture = fs::read_to_string(out.path().join("loss.svg")).unwrap();
        assert!(picture.contains("<polyline") && picture.contains("member_0"));
        assert!(roxmltree::Document::parse(&picture).is_ok());
        assert!(out.path().join("logs/member_0").is_dir());
    }
}
