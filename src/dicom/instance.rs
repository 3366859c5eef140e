//! Part 10 bytes → one checked DICOM instance.
//!
//! The dataset is whole and its text is Unicode: the object then says ISO_IR 192, and bytes that its character set does not know stand as U+F700 + byte (private use) with their tags in `attributes.undecodable_text`.
//! Four identifiers must be there; everything else may be absent, and whether that is a fault is the reader's business.
//! This neither repairs nor coerces values.
//!
//! Source: PS3.10 section 7; PS3.5 sections 6.1 and 7.

use super::{
    DicomError,
    attribute::Attributes,
    pixels,
    scan::{Encoding, Scan, scan, scan_meta},
    text,
};
use crate::domain::{phi::redact, uid::Uid};
use dicom_core::{DataElement, PrimitiveValue, Tag, value::Value};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::{Codec, TransferSyntaxIndex, transfer_syntax::Endianness};
use dicom_object::{DefaultDicomObject, FileMetaTable, InMemDicomObject};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Largest dataset that a deflated file may grow to; a whole-body enhanced CT stays below.
const MAX_INFLATED_BYTES: u64 = 2 << 30;
/// Element number under which a Specific Character Set travels through dicom-rs (it has no meaning in PS3.6), so that text arrives byte for byte.
const CHARSET_IN_TRANSIT: Tag = Tag(0x0008, 0x0004);

/// One DICOM instance: the whole dataset and the attributes that ictus reads.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The dataset with its file meta information.
    pub object: DefaultDicomObject,
    /// Header values, parsed once.
    pub attributes: Attributes,
}

impl Instance {
    /// Reads a whole Part 10 file.
    ///
    /// # Errors
    /// Refuses what is not Part 10, is damaged or truncated, has an unknown transfer syntax, lacks an identifier, or contradicts itself.
    pub fn from_bytes(part10: &[u8]) -> Result<Self, DicomError> {
        let instance = read(part10, false)?;
        instance.check_identifiers()?;
        instance.check_pixels_are_there(part10.len())?;
        Ok(instance)
    }

    /// Takes an object that is in memory already; its text is taken as it is.
    ///
    /// # Errors
    /// Refuses an object that lacks an identifier, or contradicts itself.
    pub fn from_object(object: DefaultDicomObject) -> Result<Self, DicomError> {
        let instance = Self {
            attributes: Attributes::parse(&object),
            object,
        };
        instance.check_identifiers()?;
        Ok(instance)
    }

    /// Reads the dataset up to the pixels, from a whole file or from enough of its start.
    ///
    /// Identifiers may be missing: this is also how a refusal learns what it refuses.
    ///
    /// # Errors
    /// As [`Instance::from_bytes`], but for the identifiers and what follows the header.
    pub fn read_header(part10: &[u8]) -> Result<Self, DicomError> {
        read(part10, true)
    }

    /// SHA-256 of the dataset without group 0002: tag, VR and value of each element, in order; pixels and other values of 64 KiB or
    /// more are in it by their BLAKE3, which is many times as fast to make.
    ///
    /// Padding, lengths, group lengths, transfer syntax (as long as it is uncompressed and has the VRs) and the character set in which the same text was sent do not matter.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash_dataset(&self.object, &mut hash, Long::ByDigest, &|_| true);
        hash.finalize().into()
    }

    /// Whether this is the dataset whose digest was written down, hexadecimal: that of [`Instance::digest`], or the one that was
    /// written before, with all values whole.
    #[must_use]
    pub fn has_digest(&self, written: &str) -> bool {
        let before = || {
            let mut hash = Sha256::new();
            hash_dataset(&self.object, &mut hash, Long::Whole, &|_| true);
            hash.finalize()
        };
        hex::encode(self.digest()) == written || hex::encode(before()) == written
    }

    /// SHA-256 of the pixels alone (group 7FE0), to tell a change of attributes from a change of pixels.
    #[must_use]
    pub fn pixel_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash_dataset(&self.object, &mut hash, Long::ByDigest, &|tag| tag.0 == 0x7FE0);
        hash.finalize().into()
    }

    /// Stored values of the only frame, row by row, signed by PixelRepresentation, without rescale.
    ///
    /// # Errors
    /// Refuses colour, several frames, sizes that do not fit, and syntaxes that cannot be decoded.
    pub fn pixels(&self) -> Result<Vec<i32>, DicomError> {
        pixels::decode(&self.object)
    }

    /// A file that was cut between two elements is sound to the last byte; an image without pixels gives it away.
    fn check_pixels_are_there(&self, offset: usize) -> Result<(), DicomError> {
        let has = |tag: Tag| self.object.get(tag).is_some();
        let class = self.attributes.sop_class_uid.as_ref().map(Uid::as_str);
        let is_image = class == Some(uids::CT_IMAGE_STORAGE) || has(tags::ROWS) && has(tags::BITS_ALLOCATED);
        let pixels = [
            tags::PIXEL_DATA,
            tags::FLOAT_PIXEL_DATA,
            tags::DOUBLE_FLOAT_PIXEL_DATA,
            tags::PIXEL_DATA_PROVIDER_URL,
        ];
        if is_image && !pixels.into_iter().any(has) {
            let problem = "the image ends without PixelData; expected the whole dataset".to_owned();
            return Err(DicomError::Structure { offset, problem });
        }
        Ok(())
    }

    fn check_identifiers(&self) -> Result<(), DicomError> {
        let a = &self.attributes;
        let missing = [
            ("SOPClassUID", a.sop_class_uid.is_none()),
            ("SOPInstanceUID", a.sop_instance_uid.is_none()),
            ("StudyInstanceUID", a.study_instance_uid.is_none()),
            ("SeriesInstanceUID", a.series_instance_uid.is_none()),
        ];
        if let Some((keyword, _)) = missing.into_iter().find(|(_, is_missing)| *is_missing) {
            return Err(DicomError::MissingUid {
                keyword,
                sop_class_uid: a.sop_class_uid.clone(),
                sop_instance_uid: a.sop_instance_uid.clone(),
            });
        }
        let meta = self.object.meta();
        let differs = |said: &str, uid: &Option<Uid>| {
            !said.is_empty() && uid.as_ref().is_some_and(|uid| uid.as_str() != said)
        };
        if differs(meta.media_storage_sop_class_uid(), &a.sop_class_uid) {
            return Err(DicomError::MetaConflict {
                keyword: "SOPClassUID",
            });
        }
        if differs(meta.media_storage_sop_instance_uid(), &a.sop_instance_uid) {
            return Err(DicomError::MetaConflict {
                keyword: "SOPInstanceUID",
            });
        }
        Ok(())
    }
}

/// Runs a foreign decoder, whose panic becomes an error.
pub(super) fn guarded<T>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, DicomError>,
) -> Result<T, DicomError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DicomError::Panic { doing }))
}

fn read(part10: &[u8], header_only: bool) -> Result<Instance, DicomError> {
    let not_part10 = DicomError::NotPart10 { length: part10.len() };
    if part10.get(128..132) != Some(b"DICM") {
        return Err(not_part10);
    }
    let body = &part10[132..];
    let meta_end = scan_meta(body)?;
    let meta = guarded("reading the file meta information", || {
        read_meta(&body[..meta_end])
    })?;
    let uid = meta.transfer_syntax().to_owned();
    let unknown = || DicomError::TransferSyntax {
        uid: if uid.is_empty() {
            "absent".into()
        } else {
            uid.clone()
        },
    };
    let syntax = TransferSyntaxRegistry.get(&uid).ok_or_else(unknown)?;
    let encoded = match syntax.codec() {
        Codec::Dataset(_) if uid == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
            Cow::Owned(inflate(&body[meta_end..], header_only)?)
        }
        Codec::Dataset(_) => return Err(unknown()),
        _ => Cow::Borrowed(&body[meta_end..]),
    };
    let big_endian = syntax.endianness() == Endianness::Big;
    let explicit = uid != uids::IMPLICIT_VR_LITTLE_ENDIAN;
    let found = scan(&encoded, Encoding { explicit, big_endian }, header_only)?;
    let plain = match (explicit, big_endian) {
        (false, _) => uids::IMPLICIT_VR_LITTLE_ENDIAN,
        (true, false) => uids::EXPLICIT_VR_LITTLE_ENDIAN,
        (true, true) => "1.2.840.10008.1.2.2",
    };
    let mut undecodable = Vec::new();
    let dataset = guarded("reading the dataset", || {
        let raw = read_dataset(&encoded, &found, plain, big_endian, header_only)?;
        Ok(text::to_unicode(raw, CHARSET_IN_TRANSIT, &mut undecodable))
    })?;
    let object = dataset.with_exact_meta(meta);
    let mut attributes = Attributes::parse(&object);
    attributes.undecodable_text = undecodable;
    Ok(Instance { object, attributes })
}

/// Reads the elements of group 0002; their group length is made anew, because some writers get it wrong.
fn read_meta(elements: &[u8]) -> Result<FileMetaTable, DicomError> {
    let rest = match elements.get(..12) {
        Some([0x02, 0x00, 0x00, 0x00, b'U', b'L', ..]) => &elements[12..],
        _ => elements,
    };
    let mut bytes = b"DICM\x02\x00\x00\x00UL\x04\x00".to_vec();
    bytes.extend(u32::try_from(rest.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(rest);
    FileMetaTable::from_reader(bytes.as_slice()).map_err(|e| DicomError::Meta { source: redact(&e) })
}

fn inflate(deflated: &[u8], header_only: bool) -> Result<Vec<u8>, DicomError> {
    let mut dataset = Vec::new();
    let outcome = flate2::read::DeflateDecoder::new(deflated)
        .take(MAX_INFLATED_BYTES + 1)
        .read_to_end(&mut dataset);
    match outcome {
        Err(e) if !header_only => Err(DicomError::Dataset { source: redact(&e) }),
        _ if dataset.len() as u64 > MAX_INFLATED_BYTES => Err(DicomError::Structure {
            offset: 0,
            problem: format!("the deflated dataset grows past {MAX_INFLATED_BYTES} bytes"),
        }),
        _ => Ok(dataset),
    }
}

/// Reads the elements with each text byte as the character of the same number.
fn read_dataset(
    encoded: &[u8],
    found: &Scan,
    syntax_uid: &'static str,
    big_endian: bool,
    header_only: bool,
) -> Result<InMemDicomObject, DicomError> {
    let mut header = encoded[..found.pixels_at].to_vec();
    let in_transit = CHARSET_IN_TRANSIT.1;
    for &at in found.charsets_at.iter().filter(|at| **at < found.pixels_at) {
        let number = if big_endian {
            in_transit.to_be_bytes()
        } else {
            in_transit.to_le_bytes()
        };
        header[at + 2..at + 4].copy_from_slice(&number);
    }
    let rest = if header_only {
        &[][..]
    } else {
        &encoded[found.pixels_at..found.end]
    };
    let syntax = TransferSyntaxRegistry
        .get(syntax_uid)
        .ok_or_else(|| DicomError::TransferSyntax {
            uid: syntax_uid.to_owned(),
        })?;
    InMemDicomObject::read_dataset_with_ts(header.as_slice().chain(rest), syntax)
        .map_err(|e| DicomError::Dataset { source: redact(&e) })
}

/// How long values enter a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Long {
    ByDigest,
    Whole,
}

/// Bytes from which on a value is long.
const LONG_BYTES: usize = 64 << 10;

fn hash_dataset(object: &InMemDicomObject, hash: &mut Sha256, long: Long, wanted: &dyn Fn(Tag) -> bool) {
    for element in object {
        let tag = element.header().tag;
        if tag.1 == 0 || tag == tags::DATA_SET_TRAILING_PADDING || !wanted(tag) {
            continue;
        }
        hash.update(tag.0.to_be_bytes());
        hash.update(tag.1.to_be_bytes());
        hash.update(element.header().vr.to_bytes());
        hash_value(element, hash, long);
    }
}

fn hash_value(element: &DataElement<InMemDicomObject>, hash: &mut Sha256, long: Long) {
    let mut chunk = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        if long == Long::ByDigest && bytes.len() >= LONG_BYTES {
            hash.update(blake3::hash(bytes).as_bytes());
        } else {
            hash.update(bytes);
        }
    };
    match element.value() {
        Value::Primitive(value) => {
            let bytes = value.to_bytes();
            let is_text = matches!(value, PrimitiveValue::Str(_) | PrimitiveValue::Strs(_));
            let kept = if is_text { bytes.trim_ascii_end() } else { &bytes };
            let end = if is_text {
                kept.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1)
            } else {
                kept.len()
            };
            chunk(&kept[..end]);
        }
        Value::PixelSequence(fragments) => fragments.fragments().iter().for_each(|f| chunk(f)),
        Value::Sequence(sequence) => {
            chunk(&(sequence.items().len() as u64).to_be_bytes());
            for item in sequence.items() {
                let mut inner = Sha256::new();
                hash_dataset(item, &mut inner, long, &|_| true);
                hash.update(inner.finalize());
            }
        }
    }
}
