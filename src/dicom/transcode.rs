//! A Part 10 file in any transfer syntax → the same file in Explicit VR Little Endian; or its single frames and values.
//!
//! Every byte that need not change is kept: of a compressed file only the pixel data and group 0002 are replaced, so
//! text in any character set survives.
//! Files whose elements are encoded another way (implicit, big-endian, deflated) are written anew by dicom-rs, and those
//! with ISO 2022 text are refused then, because dicom-rs would not give it back unchanged.
//! Compressed colour is refused: its decoded samples would contradict the photometric interpretation of the header.
//!
//! Source: PS3.5 sections 7, 8 and annex A; PS3.10 section 7.1.

use super::fragments;
use crate::domain::{
    failure::FailureClass,
    phi::{Redacted, redact},
};
use bytes::Bytes;
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::{Codec, TransferSyntaxIndex};
use dicom_object::{DefaultDicomObject, FileMetaTable};
use dicom_pixeldata::PixelDecoder;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::{io::Cursor, ops::Range};

/// Bytes before the file meta information: a preamble and `DICM`.
const MAGIC_END: usize = 132;
/// The length that says that it is not known.
const UNDEFINED: u32 = u32::MAX;
/// Sequences in sequences; deeper ones are taken for an attack on the stack.
const MAX_DEPTH: usize = 32;

/// Why an object cannot be given in another form.
#[derive(Debug, thiserror::Error)]
pub enum TranscodeError {
    /// The transfer syntax has no decoder here.
    #[error(
        "transfer syntax {0} cannot be decoded here; ask for transfer-syntax=* to get the object as it is stored"
    )]
    Syntax(String),
    /// Compressed samples that a viewer would show in wrong colours.
    #[error(
        "compressed pixels with {0} samples are not decoded; ask for transfer-syntax=* to get them as stored"
    )]
    Samples(u16),
    /// Text that dicom-rs does not write back unchanged.
    #[error(
        "text with several character sets is not re-encoded; ask for transfer-syntax=* to get it as stored"
    )]
    CharacterSet,
    /// The bytes are not laid out as Part 10 says.
    #[error("the stored file is not laid out as PS3.10 says: {0}")]
    Layout(&'static str),
    /// A frame that is not there.
    #[error("frame {wanted} was asked for, the object has {available}")]
    Frame {
        /// The frame asked for, from 1.
        wanted: u32,
        /// How many there are.
        available: u32,
    },
    /// Samples whose colours or greys are not understood here.
    #[error("the object cannot be drawn: its pixels are {0}; get the object itself instead")]
    Photometric(String),
    /// A part of the picture that is empty.
    #[error("the viewport shows no part of the image")]
    Viewport,
    /// No pixel data at all.
    #[error("the object has no pixel data, so it has no frames")]
    NoPixels,
    /// Not one run of bytes.
    #[error(
        "this is a sequence or compressed pixel data; get the frames, or the instance with transfer-syntax=*"
    )]
    NotBulk,
    /// The decoder failed.
    #[error("the object cannot be decoded")]
    Decode(#[source] Redacted),
}

impl TranscodeError {
    /// What the caller does about it: all of these lie in the object.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

pub(super) fn decode(error: &(dyn std::error::Error + 'static)) -> TranscodeError {
    TranscodeError::Decode(redact(error))
}

pub(super) fn open(part10: &[u8]) -> Result<DefaultDicomObject, TranscodeError> {
    dicom_object::from_reader(Cursor::new(part10)).map_err(|error| decode(&error))
}

/// Whether objects stored in a transfer syntax can be given in Explicit VR Little Endian at all.
#[must_use]
pub fn is_decodable(transfer_syntax: &str) -> bool {
    TransferSyntaxRegistry
        .get(trim(transfer_syntax))
        .is_some_and(|syntax| syntax.can_decode_all())
}

/// The same object in Explicit VR Little Endian; one that is so already comes back byte for byte.
///
/// # Errors
/// When it cannot be decoded, or could not be decoded without a change to what it says.
pub fn to_explicit_vr_little_endian(part10: &[u8]) -> Result<Vec<u8>, TranscodeError> {
    let mut object = open(part10)?;
    let stored = trim(object.meta().transfer_syntax()).to_owned();
    if stored == uids::EXPLICIT_VR_LITTLE_ENDIAN {
        return Ok(part10.to_vec());
    }
    let syntax = TransferSyntaxRegistry
        .get(&stored)
        .ok_or_else(|| TranscodeError::Syntax(stored.clone()))?;
    if !syntax.can_decode_all() {
        return Err(TranscodeError::Syntax(stored));
    }
    if matches!(syntax.codec(), Codec::EncapsulatedPixelData(..)) {
        fragments::one_a_frame(&mut object)?;
        return replace_pixels(part10, &object);
    }
    write_anew(&mut object, uids::EXPLICIT_VR_LITTLE_ENDIAN, part10.len())
}

/// The same object in Implicit VR Little Endian, which every application entity can read.
///
/// # Errors
/// As [`to_explicit_vr_little_endian`].
pub fn to_implicit_vr_little_endian(part10: &[u8]) -> Result<Vec<u8>, TranscodeError> {
    let explicit = to_explicit_vr_little_endian(part10)?;
    write_anew(
        &mut open(&explicit)?,
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        explicit.len(),
    )
}

/// Another encoding of the elements, by dicom-rs.
fn write_anew(
    object: &mut DefaultDicomObject,
    transfer_syntax: &str,
    length: usize,
) -> Result<Vec<u8>, TranscodeError> {
    let several = |text: &str| text.contains('\\') || text.contains("2022");
    if object
        .get(tags::SPECIFIC_CHARACTER_SET)
        .and_then(|e| e.to_str().ok())
        .is_some_and(|text| several(&text))
    {
        return Err(TranscodeError::CharacterSet);
    }
    object.update_meta(|meta| transfer_syntax.clone_into(&mut meta.transfer_syntax));
    let mut out = Vec::with_capacity(length + 4096);
    object.write_all(&mut out).map_err(|error| decode(&error))?;
    Ok(out)
}

/// Single frames of a file, decoded to native little-endian bytes; `wanted` counts from 1.
///
/// # Shape
/// Each is one frame as Explicit VR Little Endian would hold it; a frame of 1-bit samples starts at the lowest bit of
/// its first byte even where it starts inside a byte of the object.
///
/// # Errors
/// When a frame is not there or cannot be decoded.
pub fn frames(part10: &[u8], wanted: &[u32]) -> Result<Vec<Vec<u8>>, TranscodeError> {
    let mut object = open(part10)?;
    let available = number_of_frames(&object);
    if let Some(&missing) = wanted.iter().find(|&&frame| frame == 0 || frame > available) {
        return Err(TranscodeError::Frame {
            wanted: missing,
            available,
        });
    }
    let stored = trim(object.meta().transfer_syntax()).to_owned();
    let syntax = TransferSyntaxRegistry
        .get(&stored)
        .ok_or_else(|| TranscodeError::Syntax(stored.clone()))?;
    if matches!(syntax.codec(), Codec::EncapsulatedPixelData(..)) {
        if !syntax.can_decode_all() {
            return Err(TranscodeError::Syntax(stored));
        }
        one_sample(&object)?;
        fragments::one_a_frame(&mut object)?;
        let object = &object;
        let length = usize::try_from(frame_bits(object)? / 8).unwrap_or(usize::MAX);
        return wanted
            .iter()
            .map(|&frame| {
                let pixels = object
                    .decode_pixel_data_frame(frame - 1)
                    .map_err(|error| decode(&error))?;
                let data = pixels.into_data();
                if data.len() == length {
                    Ok(data)
                } else {
                    Err(TranscodeError::Layout("a frame has another size"))
                }
            })
            .collect();
    }
    let pixels = [
        tags::PIXEL_DATA,
        tags::FLOAT_PIXEL_DATA,
        tags::DOUBLE_FLOAT_PIXEL_DATA,
    ]
    .into_iter()
    .find_map(|tag| object.get(tag))
    .ok_or(TranscodeError::NoPixels)?;
    let bytes = pixels.to_bytes().map_err(|error| decode(&error))?;
    let bits = frame_bits(&object)?;
    wanted
        .iter()
        .map(|&frame| {
            let start = u64::from(frame - 1) * bits;
            take_bits(&bytes, start, bits).ok_or(TranscodeError::Layout(
                "the pixel data is shorter than its frames",
            ))
        })
        .collect()
}

/// The same as [`frames`]; those of a plain file are cut out of its bytes without reading the rest of it.
///
/// # Errors
/// As [`frames`].
pub fn cut_frames(part10: &Bytes, wanted: &[u32]) -> Result<Vec<Bytes>, TranscodeError> {
    let Some(plain) = plain_pixels(part10) else {
        return Ok(frames(part10, wanted)?.into_iter().map(Bytes::from).collect());
    };
    let cut = |&frame: &u32| {
        let none = || TranscodeError::Frame {
            wanted: frame,
            available: plain.frames,
        };
        let index = frame
            .checked_sub(1)
            .filter(|_| frame <= plain.frames)
            .ok_or_else(none)?;
        let start = usize::try_from(index).ok().and_then(|index| {
            index
                .checked_mul(plain.frame_bytes)?
                .checked_add(plain.pixels.start)
        });
        start
            .and_then(|start| Some(start..start.checked_add(plain.frame_bytes)?))
            .filter(|range| range.end <= plain.pixels.end)
            .map(|range| part10.slice(range))
            .ok_or(TranscodeError::Layout(
                "the pixel data is shorter than its frames",
            ))
    };
    wanted.iter().map(cut).collect()
}

/// Native pixels in frames of whole bytes, in a file of Explicit VR Little Endian.
struct PlainPixels {
    pixels: Range<usize>,
    frames: u32,
    frame_bytes: usize,
}

/// Walks over the top level of a dataset; `None` for whatever is not as plain as this, which [`frames`] understands.
fn plain_pixels(part10: &[u8]) -> Option<PlainPixels> {
    let mut at = MAGIC_END;
    let mut in_explicit = false;
    let (mut frames, mut samples, mut rows, mut columns, mut bits) = (1, 1, 0, 0, 0);
    while at < part10.len() {
        let element = element(part10, at).ok()?;
        let value = part10.get(element.value.clone());
        let text = || std::str::from_utf8(value?).ok().map(trim);
        let short = || Some(usize::from(u16::from_le_bytes(value?.try_into().ok()?)));
        match element.tag {
            tags::TRANSFER_SYNTAX_UID => in_explicit = text()? == uids::EXPLICIT_VR_LITTLE_ENDIAN,
            tags::NUMBER_OF_FRAMES => frames = text()?.trim().parse().ok()?,
            tags::SAMPLES_PER_PIXEL => samples = short()?,
            tags::ROWS => rows = short()?,
            tags::COLUMNS => columns = short()?,
            tags::BITS_ALLOCATED => bits = short()?,
            tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA => {
                let frame_bits = samples
                    .checked_mul(rows)?
                    .checked_mul(columns)?
                    .checked_mul(bits)?;
                let plain = in_explicit
                    && element.length != UNDEFINED
                    && frame_bits > 0
                    && frame_bits.is_multiple_of(8);
                return (plain && value.is_some()).then_some(PlainPixels {
                    pixels: element.value,
                    frames,
                    frame_bytes: frame_bits / 8,
                });
            }
            _ => {}
        }
        if element.tag.group() > 2 && !in_explicit {
            return None;
        }
        at = if element.length == UNDEFINED {
            end_of_items(
                part10,
                element.value.start,
                element.vr == *b"SQ" || element.vr == *b"UN",
                0,
            )
            .ok()?
        } else {
            element.value.end
        };
    }
    None
}

/// All frames of a file behind one another, decoded.
///
/// # Errors
/// As [`frames`].
pub fn all_frames(part10: &[u8]) -> Result<Vec<u8>, TranscodeError> {
    let wanted: Vec<u32> = (1..=number_of_frames(&open(part10)?)).collect();
    Ok(frames(part10, &wanted)?.concat())
}

/// The bytes of one binary value of a file; `path` leads through items of sequences to its tag. `None` when it is not there.
///
/// # Errors
/// When the value is no plain binary value: a sequence, or compressed pixels.
pub fn value_at(part10: &[u8], path: &[(Tag, Option<usize>)]) -> Result<Option<Vec<u8>>, TranscodeError> {
    let object = open(part10)?;
    let mut dataset: &dicom_object::InMemDicomObject = &object;
    for &(tag, item) in path {
        let Some(element) = dataset.get(tag) else {
            return Ok(None);
        };
        match item {
            Some(item) => match element.items().and_then(|items| items.get(item)) {
                Some(inner) => dataset = inner,
                None => return Ok(None),
            },
            None => {
                let bytes = element.to_bytes().map_err(|_| TranscodeError::NotBulk)?;
                return Ok(Some(bytes.into_owned()));
            }
        }
    }
    Ok(None)
}

/// How many frames an object has: 1 where it does not say, 0 where it has no pixels.
fn number_of_frames(object: &DefaultDicomObject) -> u32 {
    let pixels = [
        tags::PIXEL_DATA,
        tags::FLOAT_PIXEL_DATA,
        tags::DOUBLE_FLOAT_PIXEL_DATA,
    ];
    if !pixels.into_iter().any(|tag| object.get(tag).is_some()) {
        return 0;
    }
    object
        .get(tags::NUMBER_OF_FRAMES)
        .and_then(|element| element.to_int().ok())
        .unwrap_or(1)
}

fn number(object: &DefaultDicomObject, tag: Tag) -> Option<u64> {
    object.get(tag).and_then(|element| element.to_int::<u64>().ok())
}

fn frame_bits(object: &DefaultDicomObject) -> Result<u64, TranscodeError> {
    let samples = number(object, tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    [tags::ROWS, tags::COLUMNS, tags::BITS_ALLOCATED]
        .into_iter()
        .try_fold(samples, |product, tag| product.checked_mul(number(object, tag)?))
        .filter(|&bits| bits > 0)
        .ok_or(TranscodeError::Layout(
            "rows, columns or bits allocated are missing",
        ))
}

fn one_sample(object: &DefaultDicomObject) -> Result<(), TranscodeError> {
    let samples = object
        .get(tags::SAMPLES_PER_PIXEL)
        .and_then(|element| element.to_int().ok())
        .unwrap_or(1);
    if samples == 1 {
        Ok(())
    } else {
        Err(TranscodeError::Samples(samples))
    }
}

/// `count` bits from bit `start` on, lowest bit of a byte first, as bytes of their own.
fn take_bits(bytes: &[u8], start: u64, count: u64) -> Option<Vec<u8>> {
    let first = usize::try_from(start / 8).ok()?;
    let end = usize::try_from((start + count).div_ceil(8)).ok()?;
    let source = bytes.get(first..end)?;
    let shift = start % 8;
    if shift == 0 && count.is_multiple_of(8) {
        return Some(source.to_vec());
    }
    let length = usize::try_from(count.div_ceil(8)).ok()?;
    let mut out: Vec<u8> = (0..length)
        .map(|index| {
            let low = source[index] >> shift;
            let high = source
                .get(index + 1)
                .map_or(0, |byte| byte.checked_shl(8 - shift as u32).unwrap_or(0));
            low | if shift == 0 { 0 } else { high }
        })
        .collect();
    let rest = count % 8;
    if let Some(last) = out.last_mut().filter(|_| rest != 0) {
        *last &= (1u8 << rest) - 1;
    }
    Some(out)
}

/// Copies a compressed file with its pixel data decoded.
fn replace_pixels(part10: &[u8], object: &DefaultDicomObject) -> Result<Vec<u8>, TranscodeError> {
    let start = dataset_start(part10)?;
    let dataset = part10.get(start..).ok_or(TranscodeError::Layout("no dataset"))?;
    let mut meta = object.meta().clone();
    meta.transfer_syntax = uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned();
    meta.update_information_group_length();
    let mut out = file_head(&meta)?;
    let Some(place) = find_pixel_data(dataset)? else {
        out.extend_from_slice(dataset);
        return Ok(out);
    };
    one_sample(object)?;
    let mut pixels = object
        .decode_pixel_data()
        .map_err(|error| decode(&error))?
        .into_data();
    let expected = frame_bits(object)? / 8 * u64::from(number_of_frames(object));
    if pixels.len() as u64 != expected {
        return Err(TranscodeError::Layout(
            "the decoded pixels have another size than rows, columns and frames say",
        ));
    }
    if pixels.len() % 2 == 1 {
        pixels.push(0);
    }
    let length = u32::try_from(pixels.len())
        .ok()
        .filter(|&length| length != UNDEFINED)
        .ok_or(TranscodeError::Layout("the decoded pixels pass 4 GiB"))?;
    out.extend_from_slice(&dataset[..place.start]);
    // OW holds for any BitsAllocated in Explicit VR Little Endian (PS3.5 section 8.1.2, annex A.2).
    out.extend_from_slice(&[0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&pixels);
    out.extend_from_slice(&dataset[place.end..]);
    Ok(out)
}

fn file_head(meta: &FileMetaTable) -> Result<Vec<u8>, TranscodeError> {
    let mut out = vec![0; MAGIC_END - 4];
    out.extend_from_slice(b"DICM");
    meta.write(&mut out).map_err(|error| decode(&error))?;
    Ok(out)
}

/// Where the dataset starts: behind the last element of group 0002.
fn dataset_start(part10: &[u8]) -> Result<usize, TranscodeError> {
    if part10.get(MAGIC_END - 4..MAGIC_END) != Some(b"DICM".as_slice()) {
        return Err(TranscodeError::Layout("no DICM prefix"));
    }
    let mut at = MAGIC_END;
    while at < part10.len() {
        let element = element(part10, at)?;
        if element.tag.group() != 2 {
            break;
        }
        at = element.value.end;
    }
    Ok(at)
}

/// An element of an Explicit VR Little Endian dataset.
struct Place {
    tag: Tag,
    vr: [u8; 2],
    length: u32,
    value: Range<usize>,
}

/// The byte range of the top-level encapsulated Pixel Data, header and delimiter included.
fn find_pixel_data(dataset: &[u8]) -> Result<Option<Range<usize>>, TranscodeError> {
    let mut at = 0;
    while at < dataset.len() {
        let element = element(dataset, at)?;
        let end = if element.length == UNDEFINED {
            end_of_items(
                dataset,
                element.value.start,
                element.vr == *b"SQ" || element.vr == *b"UN",
                0,
            )?
        } else {
            element.value.end
        };
        if element.tag == tags::PIXEL_DATA {
            return Ok(Some(at..end));
        }
        at = end;
    }
    Ok(None)
}

/// Reads the header of the element at `at`; items and delimiters have no VR.
fn element(bytes: &[u8], at: usize) -> Result<Place, TranscodeError> {
    const SHORT: TranscodeError = TranscodeError::Layout("an element ends behind the end of the file");
    let head: [u8; 8] = bytes
        .get(at..at + 8)
        .and_then(|head| head.try_into().ok())
        .ok_or(SHORT)?;
    let tag = Tag(
        u16::from_le_bytes([head[0], head[1]]),
        u16::from_le_bytes([head[2], head[3]]),
    );
    let vr = [head[4], head[5]];
    let (length, start) = if tag.group() == 0xFFFE {
        (u32::from_le_bytes([head[4], head[5], head[6], head[7]]), at + 8)
    } else if [
        *b"OB", *b"OD", *b"OF", *b"OL", *b"OV", *b"OW", *b"SQ", *b"SV", *b"UC", *b"UN", *b"UR", *b"UT",
        *b"UV",
    ]
    .contains(&vr)
    {
        let long: [u8; 4] = bytes
            .get(at + 8..at + 12)
            .and_then(|long| long.try_into().ok())
            .ok_or(SHORT)?;
        (u32::from_le_bytes(long), at + 12)
    } else {
        (u32::from(u16::from_le_bytes([head[6], head[7]])), at + 8)
    };
    let end = if length == UNDEFINED {
        start
    } else {
        usize::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length))
            .filter(|&end| end <= bytes.len())
            .ok_or(SHORT)?
    };
    Ok(Place {
        tag,
        vr,
        length,
        value: start..end,
    })
}

/// The end of a value of undefined length, behind its sequence delimiter.
fn end_of_items(bytes: &[u8], mut at: usize, datasets: bool, depth: usize) -> Result<usize, TranscodeError> {
    if depth > MAX_DEPTH {
        return Err(TranscodeError::Layout("sequences are nested too deep"));
    }
    loop {
        let item = element(bytes, at)?;
        at = match item.tag {
            Tag(0xFFFE, 0xE0DD) => return Ok(item.value.start),
            Tag(0xFFFE, 0xE000) if item.length != UNDEFINED => item.value.end,
            Tag(0xFFFE, 0xE000) if datasets => end_of_dataset(bytes, item.value.start, depth)?,
            _ => {
                return Err(TranscodeError::Layout(
                    "something other than an item stands in a sequence",
                ));
            }
        };
    }
}

/// The end of an item of undefined length, behind its delimiter.
fn end_of_dataset(bytes: &[u8], mut at: usize, depth: usize) -> Result<usize, TranscodeError> {
    loop {
        let inner = element(bytes, at)?;
        at = match inner.tag {
            Tag(0xFFFE, 0xE00D) => return Ok(inner.value.start),
            _ if inner.length == UNDEFINED => end_of_items(bytes, inner.value.start, true, depth + 1)?,
            _ => inner.value.end,
        };
    }
}

fn trim(uid: &str) -> &str {
    uid.trim_end_matches(['\0', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value, value::PixelFragmentSequence};
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
    use proptest::prelude::*;

    fn image(syntax: &str, pixels: DataElement<InMemDicomObject>) -> Vec<u8> {
        let mut object = InMemDicomObject::new_empty();
        for (tag, value) in [
            (tags::ROWS, 2u16),
            (tags::COLUMNS, 3),
            (tags::SAMPLES_PER_PIXEL, 1),
            (tags::BITS_ALLOCATED, 8),
            (tags::BITS_STORED, 8),
            (tags::HIGH_BIT, 7),
            (tags::PIXEL_REPRESENTATION, 0),
        ] {
            object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
        }
        object.put(DataElement::new(
            tags::PHOTOMETRIC_INTERPRETATION,
            VR::CS,
            "MONOCHROME2",
        ));
        object.put(DataElement::new(
            tags::SOP_CLASS_UID,
            VR::UI,
            uids::CT_IMAGE_STORAGE,
        ));
        object.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3"));
        let inner = InMemDicomObject::from_element_iter([DataElement::new(
            tags::PIXEL_DATA,
            VR::OB,
            PrimitiveValue::from(vec![9u8, 9]),
        )]);
        object.put(DataElement::new(
            tags::ICON_IMAGE_SEQUENCE,
            VR::SQ,
            dicom_core::value::DataSetSequence::from(vec![inner]),
        ));
        object.put(pixels);
        let meta = FileMetaTableBuilder::new().transfer_syntax(syntax);
        let mut out = Vec::new();
        object.with_meta(meta).unwrap().write_all(&mut out).unwrap();
        out
    }

    fn pixels_of(part10: &[u8]) -> Vec<u8> {
        let object = dicom_object::from_reader(Cursor::new(part10)).unwrap();
        assert_eq!(
            trim(object.meta().transfer_syntax()),
            uids::EXPLICIT_VR_LITTLE_ENDIAN
        );
        object.get(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().to_vec()
    }

    #[test]
    fn leaves_an_explicit_file_byte_for_byte() {
        let native = DataElement::new(
            tags::PIXEL_DATA,
            VR::OB,
            PrimitiveValue::from(vec![1u8, 2, 3, 4, 5, 6]),
        );
        let file = image(uids::EXPLICIT_VR_LITTLE_ENDIAN, native);
        assert_eq!(to_explicit_vr_little_endian(&file).unwrap(), file);
    }

    #[test]
    fn rewrites_implicit_and_deflated_files() {
        for syntax in [
            uids::IMPLICIT_VR_LITTLE_ENDIAN,
            uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        ] {
            let native = DataElement::new(
                tags::PIXEL_DATA,
                VR::OW,
                dicom_value!(U16, [0x0201, 0x0403, 0x0605]),
            );
            let out = to_explicit_vr_little_endian(&image(syntax, native)).unwrap();
            assert_eq!(pixels_of(&out), [1, 2, 3, 4, 5, 6], "{syntax}");
        }
    }

    #[test]
    fn decodes_rle_and_keeps_every_other_byte() {
        // PS3.5 annex G: one segment, a literal run of 6 bytes.
        let mut fragment = vec![0u8; 64];
        fragment[0] = 1;
        fragment[4] = 64;
        fragment.extend_from_slice(&[5, 1, 2, 3, 4, 5, 6, 0]);
        let value = PixelFragmentSequence::new(vec![0u32], vec![fragment]);
        let file = image(
            uids::RLE_LOSSLESS,
            DataElement::new(tags::PIXEL_DATA, VR::OB, value),
        );
        let out = to_explicit_vr_little_endian(&file).unwrap();
        assert_eq!(pixels_of(&out), [1, 2, 3, 4, 5, 6]);
        let (before, after) = (dataset_start(&file).unwrap(), dataset_start(&out).unwrap());
        let place = find_pixel_data(&file[before..]).unwrap().unwrap();
        assert_eq!(
            file[before..before + place.start],
            out[after..after + place.start]
        );
        assert_eq!(frames(&file, &[1]).unwrap(), [[1, 2, 3, 4, 5, 6]]);
        assert!(matches!(
            frames(&file, &[2]),
            Err(TranscodeError::Frame {
                wanted: 2,
                available: 1
            })
        ));
    }

    #[test]
    fn refuses_what_it_cannot_decode() {
        let value = PixelFragmentSequence::new(vec![0u32], vec![vec![0u8; 8]]);
        let file = image(uids::MPEG2MPML, DataElement::new(tags::PIXEL_DATA, VR::OB, value));
        assert!(matches!(
            to_explicit_vr_little_endian(&file),
            Err(TranscodeError::Syntax(_))
        ));
        assert!(!is_decodable(uids::MPEG2MPML));
        assert!(!is_decodable("1.2.3"));
        assert!(is_decodable("1.2.840.10008.1.2\0"));
    }

    proptest! {
        #[test]
        fn takes_frames_of_single_bits_from_anywhere(bits in prop::collection::vec(any::<bool>(), 1..200), cut in 1usize..50) {
            let pack = |bits: &[bool]| -> Vec<u8> {
                bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |b, (i, &bit)| b | u8::from(bit) << i)).collect()
            };
            let packed = pack(&bits);
            for (index, frame) in bits.chunks_exact(cut.min(bits.len())).enumerate() {
                let start = (index * frame.len()) as u64;
                prop_assert_eq!(take_bits(&packed, start, frame.len() as u64).unwrap(), pack(frame));
            }
            prop_assert_eq!(take_bits(&packed, packed.len() as u64 * 8, 1), None);
        }

        #[test]
        fn never_panics_on_a_broken_layout(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = find_pixel_data(&noise);
            let _ = dataset_start(&[&[0; 128], b"DICM".as_slice(), &noise].concat());
        }
    }
}
