//! One frame of an image → an 8-bit picture, as a person would see it.
//!
//! Stored values go through the modality rescale and the window that was asked for, else the one of the object, else the
//! range of the frame itself; MONOCHROME1 is inverted and pixels that are not square are made so.
//! Nothing is burnt in. Lookup tables (modality, VOI, palette) are not applied: an object that needs one is refused, except
//! for a VOI LUT beside which a window stands or is asked for.
//!
//! Source: PS3.3 sections C.7.6.3, C.11.1 and C.11.2; PS3.18 section 8.3.5.

use super::transcode::{self, TranscodeError};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use image::{DynamicImage, GrayImage, RgbImage, imageops::FilterType};
use std::io::Cursor;

/// How wide or high a picture may become: nobody's screen has more.
pub const MAX_SIDE: u32 = 8192;

/// How values become grey (PS3.3 section C.11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// WindowCenter.
    pub center: f64,
    /// WindowWidth.
    pub width: f64,
    /// VOILUTFunction.
    pub function: Function,
}

/// The curve of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `LINEAR`
    Linear,
    /// `LINEAR_EXACT`
    LinearExact,
    /// `SIGMOID`
    Sigmoid,
}

impl Window {
    /// A window that can be applied; `None` when it has no width.
    #[must_use]
    pub fn new(center: f64, width: f64, function: Function) -> Option<Self> {
        let least = if function == Function::Linear {
            1.0
        } else {
            f64::MIN_POSITIVE
        };
        let usable = center.is_finite() && width.is_finite() && width >= least;
        usable.then_some(Self {
            center,
            width,
            function,
        })
    }

    /// 0 to 1.
    fn grey(self, value: f64) -> f64 {
        let (center, width) = (self.center, self.width);
        let grey = match self.function {
            Function::Linear if width > 1.0 => (value - (center - 0.5)) / (width - 1.0) + 0.5,
            // A width of 1 is a threshold.
            Function::Linear => f64::from(u8::from(value > center - 0.5)),
            Function::LinearExact => (value - center) / width + 0.5,
            Function::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
        };
        grey.clamp(0.0, 1.0)
    }
}

impl std::str::FromStr for Function {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "linear" => Ok(Self::Linear),
            "linear-exact" => Ok(Self::LinearExact),
            "sigmoid" => Ok(Self::Sigmoid),
            _ => Err(()),
        }
    }
}

/// Which part of the picture, and how large (PS3.18 section 8.3.5.1.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Viewport {
    /// Columns and rows into which it must fit.
    pub size: (u32, u32),
    /// Left, top, width and height of the part, in pixels of the image; a negative width or height mirrors it.
    pub region: Option<[f64; 4]>,
}

/// How a frame is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drawing {
    /// Instead of the object's own window.
    pub window: Option<Window>,
    /// Instead of the whole at its own size.
    pub viewport: Option<Viewport>,
}

/// A file format for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG at a quality from 1 to 100.
    Jpeg {
        /// 100 is best.
        quality: u8,
    },
    /// PNG, without loss.
    Png,
    /// GIF, still.
    Gif,
}

impl Format {
    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg { .. } => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
        }
    }
}

/// Draws one frame, which counts from 1; `None` is the representative one, or the first.
///
/// # Errors
/// When the frame is not there, cannot be decoded, or is of a kind that is not drawn here.
pub fn draw(
    part10: &[u8],
    frame: Option<u32>,
    drawing: &Drawing,
    format: Format,
) -> Result<Vec<u8>, TranscodeError> {
    let object = &transcode::open(part10)?;
    let frame = frame
        .or_else(|| whole(object, tags::REPRESENTATIVE_FRAME_NUMBER))
        .unwrap_or(1);
    let mut picture = picture(part10, object, frame, drawing.window)?;
    let (width, height) = (picture.width(), picture.height());
    // Rows further apart than columns make the picture higher than it has rows.
    let aspect = aspect(object, frame);
    let mut size = (f64::from(width), f64::from(height) * aspect);
    if let Some(viewport) = &drawing.viewport {
        if let Some(region) = viewport.region {
            picture = cut(picture, region).ok_or(TranscodeError::Viewport)?;
            size = (f64::from(picture.width()), f64::from(picture.height()) * aspect);
        }
        let (fit_width, fit_height) = (f64::from(viewport.size.0), f64::from(viewport.size.1));
        let scale = (fit_width / size.0).min(fit_height / size.1);
        size = (size.0 * scale, size.1 * scale);
    }
    let side = |length: f64| pixels(length.round().clamp(1.0, f64::from(MAX_SIDE)));
    let wanted = (side(size.0), side(size.1));
    if wanted != (picture.width(), picture.height()) {
        picture = picture.resize_exact(wanted.0, wanted.1, FilterType::Triangle);
    }
    encode(&picture, format)
}

fn encode(picture: &DynamicImage, format: Format) -> Result<Vec<u8>, TranscodeError> {
    let mut out = Cursor::new(Vec::new());
    let done = match format {
        Format::Jpeg { quality } => picture.write_with_encoder(
            image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, quality),
        ),
        Format::Png => picture.write_to(&mut out, image::ImageFormat::Png),
        Format::Gif => DynamicImage::ImageRgb8(picture.to_rgb8()).write_to(&mut out, image::ImageFormat::Gif),
    };
    done.map_err(|error| transcode::decode(&error))?;
    Ok(out.into_inner())
}

/// The part of a picture, mirrored where its width or height is negative.
fn cut(picture: DynamicImage, [left, top, width, height]: [f64; 4]) -> Option<DynamicImage> {
    let within = |start: f64, length: f64, side: u32| {
        let (low, high) = (start.min(start + length), start.max(start + length));
        let low = low.clamp(0.0, f64::from(side)).floor();
        let high = high.clamp(0.0, f64::from(side)).ceil();
        (high > low).then_some((pixels(low), pixels(high - low)))
    };
    let (x, columns) = within(left, width, picture.width())?;
    let (y, rows) = within(top, height, picture.height())?;
    let mut part = picture.crop_imm(x, y, columns, rows);
    if width < 0.0 {
        part = part.fliph();
    }
    if height < 0.0 {
        part = part.flipv();
    }
    Some(part)
}

fn picture(
    part10: &[u8],
    object: &DefaultDicomObject,
    frame: u32,
    window: Option<Window>,
) -> Result<DynamicImage, TranscodeError> {
    let short = || TranscodeError::Layout("the pixel data is shorter than its frames");
    let side = |tag| whole(object, tag).filter(|&side| side > 0 && side <= u32::from(u16::MAX));
    let (Some(rows), Some(columns)) = (side(tags::ROWS), side(tags::COLUMNS)) else {
        return Err(TranscodeError::NoPixels);
    };
    let bytes = transcode::frames(part10, &[frame])?
        .pop()
        .ok_or(TranscodeError::NoPixels)?;
    let pixels = rows as usize * columns as usize;
    let photometric =
        text(object, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_else(|| "MONOCHROME2".to_owned());
    if whole(object, tags::SAMPLES_PER_PIXEL).unwrap_or(1) == 3 {
        let planar = whole(object, tags::PLANAR_CONFIGURATION) == Some(1);
        let bits = whole(object, tags::BITS_ALLOCATED);
        let known = matches!(photometric.as_str(), "RGB" | "YBR_FULL");
        if !known || bits != Some(8) {
            return Err(TranscodeError::Photometric(photometric));
        }
        let bytes = bytes.get(..3 * pixels).ok_or_else(short)?;
        let of = |pixel: usize, sample: usize| {
            bytes[if planar {
                sample * pixels + pixel
            } else {
                3 * pixel + sample
            }]
        };
        let colours = (0..pixels)
            .flat_map(|pixel| {
                let samples = [of(pixel, 0), of(pixel, 1), of(pixel, 2)];
                if photometric == "RGB" {
                    samples
                } else {
                    rgb(samples)
                }
            })
            .collect();
        return RgbImage::from_raw(columns, rows, colours)
            .map(DynamicImage::ImageRgb8)
            .ok_or_else(short);
    }
    let inverted = match photometric.as_str() {
        "MONOCHROME1" => true,
        "MONOCHROME2" => false,
        _ => return Err(TranscodeError::Photometric(photometric)),
    };
    if object.get(tags::MODALITY_LUT_SEQUENCE).is_some() {
        return Err(TranscodeError::Photometric("a Modality LUT".to_owned()));
    }
    let values = values(object, frame, &bytes, pixels).ok_or_else(short)?;
    let window = match window.or_else(|| own_window(object, frame)) {
        Some(window) => window,
        None if object.get(tags::VOILUT_SEQUENCE).is_some() => {
            return Err(TranscodeError::Photometric("a VOI LUT".to_owned()));
        }
        None => full_range(&values),
    };
    let grey = |value: &f64| {
        let grey = byte(window.grey(*value) * 255.0);
        if inverted { 255 - grey } else { grey }
    };
    GrayImage::from_raw(columns, rows, values.iter().map(grey).collect())
        .map(DynamicImage::ImageLuma8)
        .ok_or_else(short)
}

/// A whole number of pixels.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, and sides are small"
)]
#[must_use]
pub fn pixels(length: f64) -> u32 {
    length as u32
}

/// The nearest value of 8 bits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and a cast of a float saturates"
)]
fn byte(value: f64) -> u8 {
    value.round() as u8
}

/// YBR_FULL → RGB (PS3.3 section C.7.6.3.1.2).
fn rgb([y, b, r]: [u8; 3]) -> [u8; 3] {
    let (y, b, r) = (f64::from(y), f64::from(b) - 128.0, f64::from(r) - 128.0);
    [y + 1.402 * r, y - 0.344_136 * b - 0.714_136 * r, y + 1.772 * b].map(byte)
}

/// The values of a frame after the modality rescale; `None` when there are too few bytes or the layout is unknown.
fn values(object: &DefaultDicomObject, frame: u32, bytes: &[u8], pixels: usize) -> Option<Vec<f64>> {
    let allocated = whole(object, tags::BITS_ALLOCATED)?;
    let (slope, intercept) = rescale(object, frame);
    let rescaled = |value: f64| value * slope + intercept;
    if object.get(tags::FLOAT_PIXEL_DATA).is_some() {
        let chunks = bytes.get(..4 * pixels)?.as_chunks::<4>().0;
        return Some(
            chunks
                .iter()
                .map(|b| rescaled(f64::from(f32::from_le_bytes(*b))))
                .collect(),
        );
    }
    if object.get(tags::DOUBLE_FLOAT_PIXEL_DATA).is_some() {
        let chunks = bytes.get(..8 * pixels)?.as_chunks::<8>().0;
        return Some(chunks.iter().map(|b| rescaled(f64::from_le_bytes(*b))).collect());
    }
    let stored = whole(object, tags::BITS_STORED).filter(|&bits| bits >= 1 && bits <= allocated)?;
    let high = whole(object, tags::HIGH_BIT).unwrap_or(stored - 1);
    if high >= allocated || high + 1 < stored || allocated > 32 {
        return None;
    }
    let signed = whole(object, tags::PIXEL_REPRESENTATION) == Some(1);
    let value = |word: u32| {
        let shifted = word << (31 - high);
        let value = if signed {
            f64::from(shifted.cast_signed() >> (32 - stored))
        } else {
            f64::from(shifted >> (32 - stored))
        };
        rescaled(value)
    };
    if allocated == 1 {
        let bit = |pixel: usize| Some(f64::from(bytes.get(pixel / 8)? >> (pixel % 8) & 1));
        return (0..pixels).map(bit).collect();
    }
    let width = match allocated {
        8 => 1,
        16 => 2,
        32 => 4,
        _ => return None,
    };
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0u32, |word, &byte| word << 8 | u32::from(byte))
    };
    let bytes = bytes.get(..width * pixels)?;
    Some(bytes.chunks_exact(width).map(|b| value(word(b))).collect())
}

fn full_range(values: &[f64]) -> Window {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let width = if high > low { high - low } else { 1.0 };
    let center = if high > low { f64::midpoint(low, high) } else { 0.5 };
    Window {
        center,
        width,
        function: Function::LinearExact,
    }
}

/// The items that say something of a frame, the nearest first: of the frame, of all frames, of the object.
fn places(object: &DefaultDicomObject, frame: u32, macro_sequence: Tag) -> Vec<&InMemDicomObject> {
    let item = |groups: Tag, index: usize| {
        let groups = object.get(groups)?.items()?.get(index)?;
        groups.get(macro_sequence)?.items()?.first()
    };
    let index = usize::try_from(frame.saturating_sub(1)).unwrap_or(usize::MAX);
    [
        item(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, index),
        item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0),
        Some(&**object),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn own_window(object: &DefaultDicomObject, frame: u32) -> Option<Window> {
    places(object, frame, tags::FRAME_VOILUT_SEQUENCE)
        .into_iter()
        .find_map(|place| {
            let function = text(place, tags::VOILUT_FUNCTION)
                .and_then(|text| text.parse().ok())
                .unwrap_or(Function::Linear);
            Window::new(
                float(place, tags::WINDOW_CENTER)?,
                float(place, tags::WINDOW_WIDTH)?,
                function,
            )
        })
}

fn rescale(object: &DefaultDicomObject, frame: u32) -> (f64, f64) {
    places(object, frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)
        .into_iter()
        .find_map(|place| {
            Some((
                float(place, tags::RESCALE_SLOPE)?,
                float(place, tags::RESCALE_INTERCEPT)?,
            ))
        })
        .unwrap_or((1.0, 0.0))
}

/// The distance of rows over that of columns.
fn aspect(object: &DefaultDicomObject, frame: u32) -> f64 {
    let ratio = |place: &InMemDicomObject, tag: Tag| {
        let pair = place.get(tag)?.to_multi_float64().ok()?;
        let ratio = pair.first()? / pair.get(1)?;
        (ratio.is_finite() && (0.01..=100.0).contains(&ratio)).then_some(ratio)
    };
    places(object, frame, tags::PIXEL_MEASURES_SEQUENCE)
        .into_iter()
        .find_map(|place| {
            ratio(place, tags::PIXEL_SPACING)
                .or_else(|| ratio(place, tags::IMAGER_PIXEL_SPACING))
                .or_else(|| ratio(place, tags::PIXEL_ASPECT_RATIO))
        })
        .unwrap_or(1.0)
}

fn whole(object: &InMemDicomObject, tag: Tag) -> Option<u32> {
    object.get(tag)?.to_int().ok()
}

fn float(object: &InMemDicomObject, tag: Tag) -> Option<f64> {
    object.get(tag)?.to_multi_float64().ok()?.first().copied()
}

fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    Some(
        object
            .get(tag)?
            .to_str()
            .ok()?
            .trim_matches([' ', '\0'])
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_as_ps3_3_computes_them() {
        // PS3.3 C.11.2.1.2: center 40, width 80 reaches from 0 to 79.
        let brain = Window::new(40.0, 80.0, Function::Linear).unwrap();
        assert_eq!((brain.grey(0.0), brain.grey(79.0)), (0.0, 1.0));
        assert!((brain.grey(39.5) - 0.5).abs() < 1e-12);
        let exact = Window::new(40.0, 80.0, Function::LinearExact).unwrap();
        assert_eq!(
            (exact.grey(0.0), exact.grey(40.0), exact.grey(80.0)),
            (0.0, 0.5, 1.0)
        );
        let sigmoid = Window::new(40.0, 80.0, Function::Sigmoid).unwrap();
        assert!((sigmoid.grey(40.0) - 0.5).abs() < 1e-12 && sigmoid.grey(-200.0) < 0.01);
        assert_eq!(Window::new(40.0, 0.5, Function::Linear), None);
        assert!(Window::new(0.5, 0.5, Function::LinearExact).is_some());
    }

    #[test]
    fn cuts_and_mirrors_a_region() {
        let picture = DynamicImage::ImageLuma8(GrayImage::from_raw(3, 2, vec![1, 2, 3, 4, 5, 6]).unwrap());
        let part = cut(picture.clone(), [1.0, 0.0, 2.0, 1.0]).unwrap();
        assert_eq!(part.into_luma8().into_raw(), [2, 3]);
        let mirrored = cut(picture.clone(), [3.0, 0.0, -2.0, 1.0]).unwrap();
        assert_eq!(mirrored.into_luma8().into_raw(), [3, 2]);
        assert!(cut(picture, [9.0, 0.0, 2.0, 1.0]).is_none());
    }

    #[test]
    fn converts_colour() {
        assert_eq!(rgb([128, 128, 128]), [128, 128, 128]);
        assert_eq!(rgb([76, 85, 255]), [254, 0, 0]);
    }
}
