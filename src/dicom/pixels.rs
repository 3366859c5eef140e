//! The pixel data of a single-frame grayscale object → stored values.
//!
//! Native data is read here, compressed data by the decoder of its transfer syntax; either way the values are cut to BitsStored and signed by PixelRepresentation.
//! No rescale, no window, no colour, no frames.
//!
//! Source: PS3.5 section 8; PS3.3 section C.7.6.3.1.

use super::{DicomError, instance::guarded};
use crate::domain::phi::redact;
use dicom_core::{PrimitiveValue, Tag, value::C, value::Value};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::{
    Codec, TransferSyntaxIndex,
    adapters::{PixelDataObject, RawPixelData},
};
use dicom_object::DefaultDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::borrow::Cow;

/// How stored values are laid out.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows: u16,
    columns: u16,
    bits_allocated: u16,
    bits_stored: u16,
    high_bit: u16,
    signed: bool,
}

impl Layout {
    fn of(object: &DefaultDicomObject) -> Result<Self, DicomError> {
        let number = |tag: Tag| object.get(tag).and_then(|e| e.value().to_int::<u16>().ok());
        let required = |tag: Tag, keyword: &str| {
            number(tag).ok_or_else(|| refused(format!("{keyword} is missing or is not a number")))
        };
        let bits_allocated = required(tags::BITS_ALLOCATED, "BitsAllocated")?;
        let bits_stored = number(tags::BITS_STORED).unwrap_or(bits_allocated);
        let layout = Self {
            rows: required(tags::ROWS, "Rows")?,
            columns: required(tags::COLUMNS, "Columns")?,
            bits_allocated,
            bits_stored,
            high_bit: number(tags::HIGH_BIT).unwrap_or(bits_stored.saturating_sub(1)),
            signed: number(tags::PIXEL_REPRESENTATION).unwrap_or(0) == 1,
        };
        let samples = number(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
        let frames = object
            .get(tags::NUMBER_OF_FRAMES)
            .and_then(|e| e.value().to_int::<u32>().ok());
        if samples != 1 {
            return Err(refused(format!(
                "{samples} samples per pixel; expected 1 (grayscale)"
            )));
        }
        if frames.is_some_and(|n| n != 1) {
            return Err(refused(format!(
                "{} frames; expected one frame an instance",
                frames.unwrap_or(0)
            )));
        }
        if !matches!(bits_allocated, 8 | 16 | 32) {
            return Err(refused(format!(
                "{bits_allocated} bits allocated; expected 8, 16 or 32"
            )));
        }
        let fits = bits_stored >= 1 && bits_stored <= bits_allocated;
        if !fits || layout.high_bit >= bits_allocated || layout.high_bit + 1 < bits_stored {
            return Err(refused(format!(
                "{bits_stored} bits stored with high bit {} in {bits_allocated} allocated bits",
                layout.high_bit
            )));
        }
        if layout.rows == 0 || layout.columns == 0 {
            return Err(refused(format!(
                "{} rows and {} columns",
                layout.rows, layout.columns
            )));
        }
        Ok(layout)
    }

    fn len(&self) -> usize {
        usize::from(self.rows) * usize::from(self.columns)
    }

    /// Cuts the bits between BitsStored and HighBit out of a word and extends their sign.
    fn value(&self, word: u32) -> i32 {
        let width = u32::from(self.bits_stored);
        let left = 32 - 1 - u32::from(self.high_bit);
        let shifted = word << left;
        if self.signed {
            shifted.cast_signed() >> (32 - width)
        } else {
            (shifted >> (32 - width)).cast_signed()
        }
    }

    fn words8(&self, bytes: &[u8]) -> Vec<i32> {
        bytes[..self.len()]
            .iter()
            .map(|&b| self.value(u32::from(b)))
            .collect()
    }
}

/// Stored values of the only frame.
pub(super) fn decode(object: &DefaultDicomObject) -> Result<Vec<i32>, DicomError> {
    let layout = Layout::of(object)?;
    if layout.bits_stored == 32 && !layout.signed {
        return Err(refused(
            "32 bits stored without sign; expected at most 31".to_owned(),
        ));
    }
    let element = object
        .get(tags::PIXEL_DATA)
        .ok_or_else(|| refused("there is no PixelData".to_owned()))?;
    match element.value() {
        Value::Primitive(value) => native(value, layout),
        Value::PixelSequence(sequence) => {
            let fragment = match sequence.fragments() {
                [] => return Err(refused("the encapsulated PixelData holds no fragment".to_owned())),
                [one] => Cow::Borrowed(one.as_slice()),
                several => Cow::Owned(several.concat()),
            };
            compressed(object.meta().transfer_syntax(), &fragment, layout)
        }
        Value::Sequence(_) => Err(refused("PixelData is a sequence of items".to_owned())),
    }
}

fn native(value: &PrimitiveValue, layout: Layout) -> Result<Vec<i32>, DicomError> {
    let len = layout.len();
    let missing = |found: usize| {
        refused(format!(
            "PixelData holds {found} of {len} values of {} bits",
            layout.bits_allocated
        ))
    };
    match (value, layout.bits_allocated) {
        (PrimitiveValue::U16(words), 16) => {
            let words = words.get(..len).ok_or_else(|| missing(words.len()))?;
            Ok(words.iter().map(|&w| layout.value(u32::from(w))).collect())
        }
        // OW holds two pixels of 8 bits a word, the first in the low byte.
        (PrimitiveValue::U16(words), 8) => {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            bytes
                .get(..len)
                .ok_or_else(|| missing(bytes.len()))
                .map(|b| layout.words8(b))
        }
        (PrimitiveValue::U16(words), 32) => {
            let pairs: Vec<u32> = words
                .chunks_exact(2)
                .map(|w| u32::from(w[0]) | u32::from(w[1]) << 16)
                .collect();
            let pairs = pairs.get(..len).ok_or_else(|| missing(pairs.len()))?;
            Ok(pairs.iter().map(|&w| layout.value(w)).collect())
        }
        (PrimitiveValue::U8(bytes), _) => little_endian(bytes, layout),
        _ => Err(refused("PixelData is neither OB nor OW".to_owned())),
    }
}

fn little_endian(bytes: &[u8], layout: Layout) -> Result<Vec<i32>, DicomError> {
    let width = usize::from(layout.bits_allocated / 8);
    let wanted = layout.len() * width;
    let bytes = bytes.get(..wanted).ok_or_else(|| {
        refused(format!(
            "PixelData holds {} bytes; expected {wanted}",
            bytes.len()
        ))
    })?;
    Ok(bytes
        .chunks_exact(width)
        .map(|b| layout.value(b.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))))
        .collect())
}

fn compressed(uid: &str, fragment: &[u8], layout: Layout) -> Result<Vec<i32>, DicomError> {
    let unknown = || DicomError::TransferSyntax { uid: uid.to_owned() };
    let syntax = TransferSyntaxRegistry.get(uid).ok_or_else(unknown)?;
    let Codec::EncapsulatedPixelData(Some(reader), _) = syntax.codec() else {
        return Err(unknown());
    };
    if let Some((rows, columns)) = declared_size(fragment)
        && (rows, columns) != (u32::from(layout.rows), u32::from(layout.columns))
    {
        return Err(refused(format!(
            "the compressed image is {columns} × {rows}; expected {} × {} as the header says",
            layout.columns, layout.rows
        )));
    }
    if uid == uids::RLE_LOSSLESS {
        check_rle_header(fragment)?;
    }
    let frame = Frame {
        uid,
        fragment,
        layout,
    };
    let mut bytes = Vec::new();
    guarded("decompressing pixels", || {
        reader
            .decode_frame(&frame, 0, &mut bytes)
            .map_err(|e| DicomError::Decode {
                uid: uid.to_owned(),
                source: redact(&e),
            })
    })?;
    little_endian(&bytes, layout)
}

/// Refuses a header that claims more segments than there can be: the decoder reserves memory for them before it looks further.
///
/// Source: PS3.5 annex G.5.
fn check_rle_header(fragment: &[u8]) -> Result<(), DicomError> {
    /// The number of segments and fifteen offsets.
    const HEADER_BYTES: usize = 64;
    let header = fragment.get(..HEADER_BYTES).ok_or_else(|| {
        refused(format!(
            "the RLE frame has {} bytes; its header alone has {HEADER_BYTES}",
            fragment.len()
        ))
    })?;
    let segments = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    if !(1..=15).contains(&segments) {
        return Err(refused(format!(
            "the RLE frame claims {segments} segments; expected 1 to 15"
        )));
    }
    Ok(())
}

/// Rows and columns that a JPEG or JPEG 2000 stream claims: decoders reserve memory for them before they look further.
///
/// Source: ITU-T T.81 section B.2.2 (SOFn); ITU-T T.800 section A.5.1 (SIZ).
fn declared_size(stream: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| Some(u16::from_be_bytes(stream.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(stream.get(at..at + 4)?.try_into().ok()?));
    match word(0)? {
        // SOC and SIZ: the size of the reference grid less the offset of the image.
        0xFF4F if word(2)? == 0xFF51 => Some((
            long(12)?.saturating_sub(long(20)?),
            long(8)?.saturating_sub(long(16)?),
        )),
        0xFFD8 => {
            let mut at = 2;
            loop {
                let marker = word(at)?;
                let is_frame = (0xFFC0..=0xFFCF).contains(&marker)
                    && !matches!(marker, 0xFFC4 | 0xFFC8 | 0xFFCC)
                    || marker == 0xFFF7;
                if is_frame {
                    return Some((u32::from(word(at + 5)?), u32::from(word(at + 7)?)));
                }
                if marker < 0xFF01 || marker == 0xFFDA {
                    return None;
                }
                at += 2 + usize::from(word(at + 2)?);
            }
        }
        _ => None,
    }
}

/// One frame as the decoders of dicom-rs want to see it: its fragments joined, since one frame may be cut in several.
struct Frame<'a> {
    uid: &'a str,
    fragment: &'a [u8],
    layout: Layout,
}

impl PixelDataObject for Frame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.uid
    }
    fn rows(&self) -> Option<u16> {
        Some(self.layout.rows)
    }
    fn cols(&self) -> Option<u16> {
        Some(self.layout.columns)
    }
    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }
    fn bits_allocated(&self) -> Option<u16> {
        Some(self.layout.bits_allocated)
    }
    fn bits_stored(&self) -> Option<u16> {
        Some(self.layout.bits_stored)
    }
    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }
    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }
    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }
    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.fragment))
    }
    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }
    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: C::from_vec(vec![self.fragment.to_vec()]),
            offset_table: C::new(),
        })
    }
}

fn refused(problem: String) -> DicomError {
    DicomError::Pixels { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(bits_stored: u16, high_bit: u16, signed: bool) -> Layout {
        Layout {
            rows: 1,
            columns: 2,
            bits_allocated: 16,
            bits_stored,
            high_bit,
            signed,
        }
    }

    #[test]
    fn cuts_stored_bits_and_extends_their_sign() {
        assert_eq!(layout(12, 11, true).value(0xF800), -2048);
        assert_eq!(layout(12, 11, false).value(0xF800), 2048);
        assert_eq!(layout(12, 15, true).value(0x8000), -2048);
        assert_eq!(layout(16, 15, true).value(0xFA24), -1500);
        assert_eq!(layout(16, 15, false).value(0xFA24), 64036);
    }

    #[test]
    fn a_compressed_stream_says_its_own_size() {
        let mut siz = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for number in [600u32, 500, 88, 0] {
            siz.extend(number.to_be_bytes());
        }
        assert_eq!(declared_size(&siz), Some((500, 512)));
        let jpeg = [
            0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xC3, 0, 11, 16, 2, 0, 1, 0, 1,
        ];
        assert_eq!(declared_size(&jpeg), Some((512, 256)));
        assert_eq!(declared_size(&jpeg[..14]), None);
        assert_eq!(declared_size(b"RLE"), None);
    }

    #[test]
    fn refuses_pixel_data_that_is_too_short() {
        let said = native(&PrimitiveValue::U16(C::from_vec(vec![1])), layout(16, 15, true)).unwrap_err();
        assert!(said.to_string().contains("1 of 2 values"), "{said}");
    }
}
