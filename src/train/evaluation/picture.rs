//! A slice with the outlines of truth and of what was found → PNG.

use crate::{analysis::Look, domain::volume::Volume};

/// Bluish green and orange of the Okabe–Ito palette, which colour-blind readers can tell apart: truth, found.
pub(super) const OUTLINES: [[u8; 3]; 2] = [[0, 158, 115], [230, 159, 0]];
/// Pixels around the head that are kept.
const MARGIN: usize = 8;
/// Air, skin and bed are left out below this, HU.
const HEAD_HU: f32 = -200.0;

/// Draws one slice, cut to the head; grey levels below 254, then the two outlines.
pub(super) fn draw(look: &Look, truth: &Volume<u8>, slice: usize) -> Vec<u8> {
    let columns = look.volume.geometry.columns;
    let image = look.volume.slice(slice);
    let (truth, found) = (truth.slice(slice), look.found.segments.slice(slice));
    let [top, bottom, left, right] = head(image, columns);
    let edge = |inside: &dyn Fn(usize) -> bool, r: usize, c: usize| {
        let i = r * columns + c;
        inside(i)
            && (r == top
                || c == left
                || r + 1 == bottom
                || c + 1 == right
                || ![i - columns, i + columns, i - 1, i + 1].into_iter().all(inside))
    };
    let [low, high] = look.window_hu;
    let mut pixels = Vec::with_capacity((bottom - top) * (right - left));
    for r in top..bottom {
        for c in left..right {
            let share = (image[r * columns + c] - low) / (high - low);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=253")]
            let grey = (share.clamp(0.0, 1.0) * 253.0) as u8;
            pixels.push(if edge(&|i| truth[i] != 0, r, c) {
                254
            } else if edge(&|i| found[i] != 0, r, c) {
                255
            } else {
                grey
            });
        }
    }
    encode(&pixels, right - left)
}

/// Rows and columns from which to which the head reaches, with a margin.
fn head(image: &[f32], columns: usize) -> [usize; 4] {
    let rows = image.len() / columns;
    let (mut low, mut high) = ([rows, columns], [0, 0]);
    for i in (0..image.len()).filter(|i| image[*i] > HEAD_HU) {
        for (axis, at) in [i / columns, i % columns].into_iter().enumerate() {
            low[axis] = low[axis].min(at);
            high[axis] = high[axis].max(at + 1);
        }
    }
    if low[0] >= high[0] {
        return [0, rows, 0, columns];
    }
    let [top, left] = low.map(|at| at.saturating_sub(MARGIN));
    [
        top,
        (high[0] + MARGIN).min(rows),
        left,
        (high[1] + MARGIN).min(columns),
    ]
}

/// Grey levels below 254, then the two outlines → PNG.
pub(in crate::train) fn encode(pixels: &[u8], width: usize) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "grey levels of a palette")]
    let mut palette: Vec<u8> = (0..254u32).flat_map(|i| [(i * 255 / 253) as u8; 3]).collect();
    palette.extend(OUTLINES.concat());
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, size(width), size(pixels.len() / width));
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette);
    // Memory takes every byte; a picture that could not be made is left out of the report.
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(pixels));
    if written.is_err() {
        png.clear();
    }
    png
}
