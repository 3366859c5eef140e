//! Findings on the slices that show them → pictures that every PACS shows: Secondary Capture, RGB, one an image.
//!
//! The image lies between a band above (answer, score, volume, model) and one below (slice, limits, "not for clinical use"),
//! so that no word covers a pixel of it; a finding is outlined from outside, so that none of its pixels is covered either.
//! The score is said to be one until a model is calibrated.
//! A study without findings gets the one slice that shows most of the brain.
//! Where ASPECTS is told, the slices that show most of its regions below and above the top of the basal ganglia are there too, and borders of regions are dotted.
//! No patient data is drawn: the PACS shows it from the attributes.
//!
//! Source: PS3.3 sections A.8.1 (Secondary Capture Image), C.8.6.1 and C.8.6.2, C.7.6.1; PS3.3 section C.11.2.1.2 for the window.

use super::{
    EncodeError, EncodeInput, concept,
    context::{Context, Kind, mismatch},
    element::{Dataset, Fill},
    font,
};
use crate::domain::{
    aspects::{LIMITS, Region},
    finding::{AnswerValue, Side},
    geometry::Vec3,
    volume::Volume,
};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use std::{borrow::Cow, collections::BTreeSet};

/// How the series of pictures is told from the others.
pub(super) const KIND: Kind = Kind {
    name: Cow::Borrowed("sc"),
    sop_class_uid: uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN,
    modality: "OT",
    series_number: 9004,
    shows: "summary",
};

/// Narrowest picture: forty letters of double size, and what a thumbnail still shows.
const NARROWEST: usize = 512;
/// The most pictures of a summary: at 1 MB each, what an association carries in a few seconds.
const MOST_PICTURES: usize = 40;
/// Pictures beyond the first and last slice of a finding.
const AROUND: usize = 1;
/// The most findings that are listed: a network that knows nothing finds thousands.
const MOST_FINDINGS: usize = 20;
/// Dots of a letter are squares of so many pixels.
const DOT: usize = 2;
/// Free pixels around a band's text.
const MARGIN: usize = 8;

/// A colour, red first.
type Colour = [u8; 3];
const WHITE: Colour = [255, 255, 255];
const YELLOW: Colour = [255, 220, 0];
/// The outline, told from grey and from each other's neighbours by every eye.
const OUTLINE: Colour = [255, 64, 48];
/// Borders of the regions of ASPECTS.
const BORDER: Colour = [96, 200, 255];
/// Regions that lie below the top of the basal ganglia, as places in [`Region::ALL`] from 1; the others lie above.
const BELOW: std::ops::RangeInclusive<u8> = 1..=Region::M3 as u8 + 1;

/// Makes the pictures, in the order of the slices.
pub(super) fn encode(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
    ct: &Volume<f32>,
) -> Result<Vec<DefaultDicomObject>, EncodeError> {
    if ct.geometry != *context.geometry || ct.data.len() != context.geometry.len() {
        return Err(mismatch("grids of CT and results", "different ones", "one"));
    }
    let regions = input
        .prediction
        .structures
        .as_ref()
        .filter(|_| context.aspects.is_some());
    let facts: Vec<Fact> = context
        .findings
        .iter()
        .map(|finding| (finding.segment, finding.volume_ml, finding.side))
        .collect();
    let shown = largest(&facts);
    let mut slices = slices(context, input, &shown);
    slices.extend(regions.into_iter().flat_map(most_regions));
    let above = above(context, input, &listed(&shown, facts.len()));
    slices
        .iter()
        .enumerate()
        .map(|(at, slice)| {
            let picture = picture(context, input, ct, regions, *slice, &above, &shown);
            object(context, input, at, *slice, picture)
        })
        .collect()
}

/// The slices that are drawn.
fn slices(context: &Context<'_>, input: &EncodeInput<'_>, listed: &[Fact]) -> BTreeSet<usize> {
    let count = input.segments.geometry.slices();
    let shown: Vec<usize> = (0..count)
        .filter(|slice| input.segments.slice(*slice).iter().any(|voxel| *voxel != 0))
        .collect();
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        let area = |slice: &usize| input.brain.slice(*slice).iter().filter(|inside| **inside).count();
        // The lowest of those that show as much.
        return (0..count).rev().max_by_key(area).into_iter().collect();
    };
    let from = first.saturating_sub(AROUND);
    let to = (last + AROUND).min(count - 1);
    let step = (to - from + 1).div_ceil(MOST_PICTURES);
    let mut slices: BTreeSet<usize> = (from..=to).step_by(step).collect();
    slices.extend(
        context
            .findings
            .iter()
            .filter(|finding| listed.iter().any(|(segment, ..)| *segment == finding.segment))
            .map(|finding| finding.key_slice)
            .filter(|key| *key < count),
    );
    slices
}

/// The slices with most of the regions below and above the top of the basal ganglia.
fn most_regions(regions: &Volume<u8>) -> impl Iterator<Item = usize> {
    [true, false].into_iter().filter_map(|below| {
        let counts = |slice: &usize| {
            let voxels = regions.slice(*slice).iter();
            voxels.filter(|r| **r > 0 && BELOW.contains(r) == below).count()
        };
        let most = (0..regions.geometry.slices()).max_by_key(counts)?;
        (counts(&most) > 0).then_some(most)
    })
}

/// The words above the image: the same on each.
fn above(context: &Context<'_>, input: &EncodeInput<'_>, findings: &str) -> Vec<(String, Colour)> {
    let answer = context.answer;
    let word = match answer.map(|answer| answer.answer) {
        Some(AnswerValue::Present) => "FLAGGED",
        Some(AnswerValue::Absent) => "NOT FLAGGED",
        Some(AnswerValue::Uncertain) => "UNCERTAIN",
        Some(AnswerValue::NotEvaluated) | None => "NOT EVALUATED",
    };
    let mut lines = vec![(format!("{}: {word}", input.plan.question), YELLOW)];
    let mut numbers = Vec::new();
    if let Some(score) = answer.and_then(|answer| answer.score) {
        numbers.push(format!("Score {score:.2} (not calibrated)"));
    }
    if let Some(probability) = answer.and_then(|answer| answer.probability) {
        let prevalence = input.plan.calibration.as_ref().and_then(|known| known.prevalence);
        numbers.push(match prevalence {
            Some(prevalence) => format!("Probability {probability:.2} (prevalence {prevalence})"),
            None => format!("Probability {probability:.2}"),
        });
    }
    if let Some(uncertainty) = answer.and_then(|answer| answer.uncertainty) {
        numbers.push(format!("Disagreement {uncertainty:.2}"));
    }
    if !numbers.is_empty() {
        lines.push((numbers.join(", "), WHITE));
    }
    if !findings.is_empty() {
        lines.push((findings.to_owned(), WHITE));
    }
    if let Some(shift) = context.midline_shift {
        lines.push((format!("Midline shift {shift}"), WHITE));
    }
    if let Some(aspects) = context.aspects {
        lines.extend(aspects.lines().map(|line| (line, WHITE)));
        lines.push((LIMITS.to_owned(), WHITE));
    }
    lines.push((
        format!(
            "ictus {}, {} {}",
            env!("CARGO_PKG_VERSION"),
            input.plan.id,
            input.plan.version
        ),
        WHITE,
    ));
    lines
}

/// Number, volume in mL and side of a finding.
type Fact = (u16, f64, Side);

/// So many of the largest findings as a picture has room for, in their order.
fn largest(findings: &[Fact]) -> Vec<Fact> {
    let mut shown = findings.to_vec();
    shown.sort_by(|(_, a, _), (_, b, _)| b.total_cmp(a));
    shown.truncate(MOST_FINDINGS);
    shown.sort_by_key(|(segment, ..)| *segment);
    shown
}

/// The shown of so many findings in words.
fn listed(shown: &[Fact], all: usize) -> String {
    let one = |(segment, volume_ml, side): &Fact| {
        let side = match side {
            Side::Left => " left",
            Side::Right => " right",
            Side::Midline => " midline",
            Side::Bilateral => " both sides",
            Side::Unknown => "",
        };
        format!("{segment}: {volume_ml:.1} mL{side}")
    };
    let mut words: Vec<String> = shown.iter().map(one).collect();
    match all - words.len() {
        0 => {}
        1 => words.push("one smaller one".into()),
        more => words.push(format!("{more} smaller ones")),
    }
    words.join("; ")
}

/// A picture of RGB pixels.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![0; width * height * 3],
        }
    }

    fn put(&mut self, row: usize, column: usize, colour: Colour) {
        if row < self.height && column < self.width {
            let at = (row * self.width + column) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// One line of text.
    fn write(&mut self, row: usize, column: usize, text: &str, colour: Colour) {
        for (at, c) in text.chars().enumerate() {
            for (y, dots) in font::letter(c).iter().enumerate() {
                for x in (0..font::COLUMNS).filter(|x| dots >> (font::COLUMNS - 1 - x) & 1 == 1) {
                    let (top, left) = (row + y * DOT, column + (at * font::ADVANCE + x) * DOT);
                    for dot in 0..DOT * DOT {
                        self.put(top + dot / DOT, left + dot % DOT, colour);
                    }
                }
            }
        }
    }
}

fn picture(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
    ct: &Volume<f32>,
    regions: Option<&Volume<u8>>,
    slice: usize,
    above: &[(String, Colour)],
    shown: &[Fact],
) -> Picture {
    let geometry = context.geometry;
    let (rows, columns) = (geometry.rows.max(1), geometry.columns.max(1));
    let scale = NARROWEST.div_ceil(columns).max(1);
    let width = columns * scale;
    let letters = (width - 2 * MARGIN) / (font::ADVANCE * DOT);
    let wrap = |(text, colour): &(String, Colour)| {
        let lines = font::wrapped(text, letters);
        lines.into_iter().map(|line| (line, *colour)).collect::<Vec<_>>()
    };
    let head: Vec<_> = above.iter().flat_map(wrap).collect();
    let below = [
        (
            format!(
                "Slice {} of {}. Research result of a machine.",
                slice + 1,
                geometry.slices()
            ),
            WHITE,
        ),
        ("NOT FOR CLINICAL USE".to_owned(), YELLOW),
        (input.report.disclaimer.clone(), WHITE),
    ];
    let foot: Vec<_> = below.iter().flat_map(wrap).collect();
    let band = |lines: &[(String, Colour)]| lines.len() * font::LINE * DOT + 2 * MARGIN;
    let top = band(&head);
    let mut picture = Picture::new(width, top + rows * scale + band(&foot));
    for (at, (line, colour)) in head.iter().enumerate() {
        picture.write(MARGIN + at * font::LINE * DOT, MARGIN, line, *colour);
    }
    let start = top + rows * scale + MARGIN;
    for (at, (line, colour)) in foot.iter().enumerate() {
        picture.write(start + at * font::LINE * DOT, MARGIN, line, *colour);
    }
    let (hu, segments) = (ct.slice(slice), input.segments.slice(slice));
    let window_hu = input.plan.trigger.contrast.window_hu();
    let inside = |row: usize, column: usize| segments[row * columns + column] != 0;
    let region = |row: usize, column: usize| {
        regions.map_or(0, |all| {
            all.slice(slice)[row.min(rows - 1) * columns + column.min(columns - 1)]
        })
    };
    // A line of one source pixel is too thin to be seen in a small picture and too thick in a scaled one.
    let line = scale.min(2);
    for row in 0..rows * scale {
        for column in 0..columns * scale {
            let (r, c) = (row / scale, column / scale);
            let near = |dr: isize, dc: isize| {
                let moved = (row.checked_add_signed(dr), column.checked_add_signed(dc));
                match moved {
                    (Some(row), Some(column)) if row < rows * scale && column < columns * scale => {
                        inside(row / scale, column / scale)
                    }
                    _ => false,
                }
            };
            let step = isize::try_from(line).unwrap_or(1);
            let outlined =
                !inside(r, c) && (near(step, 0) || near(-step, 0) || near(0, step) || near(0, -step));
            let here = region(r, c);
            let is_border =
                (region(r + 1, c) != here || region(r, c + 1) != here) && (r + c).is_multiple_of(2);
            let colour = if outlined {
                OUTLINE
            } else if is_border && !inside(r, c) {
                BORDER
            } else {
                [grey(hu[r * columns + c], window_hu); 3]
            };
            picture.put(top + row, column, colour);
        }
    }
    // The number of a finding beside it, where the list above has its size.
    for (segment, ..) in shown {
        let of = |at: usize| segments[at] == *segment;
        let highest = (0..rows).find(|row| (0..columns).any(|column| of(row * columns + column)));
        let rightmost = (0..columns)
            .rev()
            .find(|column| (0..rows).any(|row| of(row * columns + column)));
        if let (Some(row), Some(column)) = (highest, rightmost) {
            let number = segment.to_string();
            let wide = number.len() * font::ADVANCE * DOT;
            let left = ((column + 1) * scale + 2 * DOT).min(width.saturating_sub(wide));
            let most = rows * scale - (font::ROWS * DOT).min(rows * scale);
            picture.write(top + (row * scale).min(most), left, &number, OUTLINE);
        }
    }
    picture
}

/// HU in the window → grey.
fn grey(hu: f32, [low, high]: [f32; 2]) -> u8 {
    let share = ((hu - low) / (high - low)).clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 255; what is no number is 0"
    )]
    let grey = (share * 255.0).round() as u8;
    grey
}

fn object(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
    at: usize,
    slice: usize,
    picture: Picture,
) -> Result<DefaultDicomObject, EncodeError> {
    let side = |pixels: usize| {
        u16::try_from(pixels).map_err(|_| mismatch("pixels of a side of a picture", pixels, "at most 65535"))
    };
    let number = u16::try_from(at + 1).unwrap_or(u16::MAX);
    let mut dataset = context.dataset(&KIND)?;
    dataset.uid(
        tags::SOP_INSTANCE_UID,
        context.uid(&format!("{}.instance", KIND.name), number).as_str(),
    );
    dataset.text(tags::INSTANCE_NUMBER, VR::IS, number.to_string());
    dataset.texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED", "SECONDARY"]);
    dataset.text(tags::CONVERSION_TYPE, VR::CS, "WSD");
    dataset.text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES");
    dataset.text(tags::RECOGNIZABLE_VISUAL_FEATURES, VR::CS, "NO");
    let sides = [context.geometry.row_direction, context.geometry.column_direction].map(towards);
    dataset.texts(tags::PATIENT_ORIENTATION, VR::CS, &sides);
    match &*input.plan.trigger.body_part {
        "" => dataset.empty(tags::LATERALITY, VR::CS),
        part => dataset.text(tags::BODY_PART_EXAMINED, VR::CS, part),
    }
    dataset.text(
        tags::IMAGE_COMMENTS,
        VR::LT,
        format!(
            "Slice {} of {}. Not for clinical use.",
            slice + 1,
            context.geometry.slices()
        ),
    );
    dataset.text(
        tags::DERIVATION_DESCRIPTION,
        VR::ST,
        format!("Outline and words drawn by ictus: {}", context.maker.limits()),
    );
    let mut source = context.references[slice].item();
    source.code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &concept::SOURCE_IMAGE);
    dataset.sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    context.put_lossy_compression(&mut dataset);
    put_pixels(
        &mut dataset,
        side(picture.height)?,
        side(picture.width)?,
        picture.pixels,
    );
    context.object(dataset, &KIND)
}

/// The side of the patient that a direction leads to most (PS3.3 section C.7.6.1.1.1).
fn towards(direction: Vec3) -> &'static str {
    let axis = (0..3).max_by(|a, b| direction[*a].abs().total_cmp(&direction[*b].abs()));
    match axis.map(|axis| (axis, direction[axis] < 0.0)) {
        Some((0, false)) => "L",
        Some((0, true)) => "R",
        Some((1, false)) => "P",
        Some((1, true)) => "A",
        Some((_, false)) => "H",
        _ => "F",
    }
}

fn put_pixels(dataset: &mut Dataset, rows: u16, columns: u16, pixels: Vec<u8>) {
    dataset.us(tags::SAMPLES_PER_PIXEL, 3);
    dataset.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB");
    dataset.us(tags::PLANAR_CONFIGURATION, 0);
    dataset.us(tags::ROWS, rows);
    dataset.us(tags::COLUMNS, columns);
    dataset.us(tags::BITS_ALLOCATED, 8);
    dataset.us(tags::BITS_STORED, 8);
    dataset.us(tags::HIGH_BIT, 7);
    dataset.us(tags::PIXEL_REPRESENTATION, 0);
    let mut pixels = pixels;
    if pixels.len() % 2 == 1 {
        pixels.push(0);
    }
    dataset.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PrimitiveValue::from(pixels),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::{Geometry, SlicePlane};

    /// Reads a line back by comparing each place with each letter: what a machine can tell apart, a person can read.
    fn read_back(picture: &Picture, row: usize, column: usize, count: usize) -> String {
        let dot = |y: usize, x: usize| picture.pixels[(y * picture.width + x) * 3] > 0;
        (0..count)
            .map(|at| {
                let left = column + at * font::ADVANCE * DOT;
                (b' '..=b'_')
                    .map(char::from)
                    .find(|c| {
                        (0..font::ROWS * font::COLUMNS).all(|place| {
                            let (y, x) = (place / font::COLUMNS, place % font::COLUMNS);
                            let wanted = font::letter(*c)[y] >> (font::COLUMNS - 1 - x) & 1 == 1;
                            wanted == dot(row + y * DOT, left + x * DOT)
                        })
                    })
                    .unwrap_or('\u{fffd}')
            })
            .collect()
    }

    #[test]
    fn what_is_burnt_in_can_be_read() {
        let words = "HAEMORRHAGE: FLAGGED, 12.5 ML, NOT FOR CLINICAL USE (0.97)";
        let mut picture = Picture::new(words.len() * font::ADVANCE * DOT + 20, 40);
        picture.write(8, 8, words, WHITE);
        assert_eq!(read_back(&picture, 8, 8, words.len()), words);
    }

    #[test]
    fn of_more_findings_than_there_is_room_for_the_largest_are_listed() {
        let fact = |segment: u16| (segment, f64::from(segment % 50), Side::Left);
        let in_words = |findings: &[Fact]| listed(&largest(findings), findings.len());
        let few: Vec<_> = (1..=2).map(fact).collect();
        assert_eq!(in_words(&few), "1: 1.0 mL left; 2: 2.0 mL left");
        let many: Vec<_> = (1..=3000).map(fact).collect();
        let words = in_words(&many);
        assert!(
            words.starts_with("49: 49.0 mL left; 99: 49.0 mL left; "),
            "{words}"
        );
        assert!(words.ends_with("; 2980 smaller ones"), "{words}");
    }

    #[test]
    fn the_slices_with_most_of_the_regions_of_either_level_are_shown() {
        let plane = |z: u8| SlicePlane {
            origin_mm: [0.0, 0.0, f64::from(z)],
            thickness_mm: 5.0,
        };
        let regions = |data: &[u8]| Volume {
            geometry: Geometry {
                rows: 1,
                columns: 3,
                row_direction: [1.0, 0.0, 0.0],
                column_direction: [0.0, 1.0, 0.0],
                pixel_spacing_mm: [1.0, 1.0],
                planes: (0..4).map(plane).collect(),
            },
            data: data.into(),
        };
        let shown = |data: &[u8]| most_regions(&regions(data)).collect::<Vec<_>>();
        assert_eq!(shown(&[0, 0, 1, 7, 3, 8, 8, 9, 0, 10, 0, 0]), [1, 2]);
        assert_eq!(shown(&[0, 0, 0, 0, 0, 0, 8, 9, 0, 0, 0, 0]), [2]);
    }

    #[test]
    fn a_picture_says_where_the_patients_sides_are() {
        assert_eq!(towards([1.0, 0.0, 0.0]), "L");
        assert_eq!(towards([0.0, 0.95, -0.3]), "P");
        assert_eq!(towards([-1.0, 0.0, 0.1]), "R");
        assert_eq!(towards([0.0, 0.1, 0.99]), "H");
    }

    #[test]
    fn grey_runs_from_air_to_blood() {
        assert_eq!(
            [-1000.0, 40.0, 80.0, f32::NAN].map(|hu| grey(hu, [0.0, 80.0])),
            [0, 128, 255, 0]
        );
    }
}
