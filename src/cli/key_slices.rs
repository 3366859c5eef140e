//! Key slices as PNG: the slice with most of a finding, in the window of its question, its outline in colour; or the most doubtful one.

use anyhow::Context;
use ictus::analysis::Look;
use std::{fs::File, io::BufWriter, path::Path};

/// Findings drawn at most.
const MOST: usize = 8;
/// Orange of the Okabe–Ito palette, which colour-blind readers can tell from grey.
const OUTLINE: [u8; 3] = [230, 159, 0];

/// Writes one picture a finding, or one of the most doubtful slice when there is none.
pub(crate) fn write(look: &Look, out: &Path) -> anyhow::Result<()> {
    let slices: Vec<(String, usize)> = if look.found.findings.is_empty() {
        let question = look.found.answer.as_ref().map_or("finding", |a| &a.question);
        vec![(format!("no-{question}"), most_doubtful(look))]
    } else {
        look.found
            .findings
            .iter()
            .take(MOST)
            .map(|f| (f.id.clone(), f.key_slice))
            .collect()
    };
    for (name, slice) in slices {
        picture(look, slice, &out.join(format!("key-{name}.png")))?;
    }
    Ok(())
}

/// The slice with the highest sum of entropy.
fn most_doubtful(look: &Look) -> usize {
    let sums: Vec<f32> = (0..look.volume.geometry.slices())
        .map(|s| look.prediction.entropy.slice(s).iter().sum())
        .collect();
    (0..sums.len())
        .max_by(|a, b| sums[*a].total_cmp(&sums[*b]))
        .unwrap_or(0)
}

fn picture(look: &Look, slice: usize, path: &Path) -> anyhow::Result<()> {
    let geometry = &look.volume.geometry;
    let (rows, columns) = (geometry.rows, geometry.columns);
    let (image, segments) = (look.volume.slice(slice), look.found.segments.slice(slice));
    let [low, high] = look.window_hu;
    let mut pixels = Vec::with_capacity(rows * columns * 3);
    for r in 0..rows {
        for c in 0..columns {
            let i = r * columns + c;
            let inside = |r: usize, c: usize| segments[r * columns + c] != 0;
            let edge = segments[i] != 0
                && (r == 0
                    || c == 0
                    || r + 1 == rows
                    || c + 1 == columns
                    || !(inside(r - 1, c) && inside(r + 1, c) && inside(r, c - 1) && inside(r, c + 1)));
            let share = ((image[i] - low) / (high - low)).clamp(0.0, 1.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=255")]
            let grey = (share * 255.0) as u8;
            pixels.extend(if edge { OUTLINE } else { [grey; 3] });
        }
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut encoder = png::Encoder::new(
        BufWriter::new(file),
        u32::try_from(columns)?,
        u32::try_from(rows)?,
    );
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.add_text_chunk("Comment".into(), ictus::domain::finding::DISCLAIMER.into())?;
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}
