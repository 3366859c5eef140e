//! Encoded dataset → proof that its structure fits its bytes, and where the text and the pixels are.
//!
//! Every length lies within its parent, sequences nest at most [`MAX_DEPTH`] deep, and encapsulated pixel data ends with its delimiter.
//! dicom-rs reserves and clears what a length field claims (up to 4 GiB), recurses once an item, and takes a file cut inside a fragment for whole; so this runs first, without allocating or recursing.
//! It does not look at values.
//!
//! Source: PS3.5 sections 7.1, 7.5 and A.4.

use super::DicomError;
use dicom_core::{DataDictionary, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

/// Sequences within sequences; a deep TID 1500 report has about ten.
const MAX_DEPTH: usize = 32;
/// The length that means "until the delimiter".
const UNDEFINED: u32 = u32::MAX;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITATION_ITEM: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITATION_ITEM: Tag = Tag(0xFFFE, 0xE0DD);

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// VR in the header.
    pub(super) explicit: bool,
    /// Byte order.
    pub(super) big_endian: bool,
}

/// What was found on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Offset of the first top-level element of group 7FE0, or the end.
    pub(super) pixels_at: usize,
    /// Offset of the end: trailing zeros are not part of the dataset.
    pub(super) end: usize,
    /// Offset of the tag of each Specific Character Set, at any depth.
    pub(super) charsets_at: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    is_item: bool,
    end: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    tag: Tag,
    vr: VR,
    length: u32,
    value_at: usize,
}

/// Walks the whole dataset, or up to the pixels.
pub(super) fn scan(data: &[u8], encoding: Encoding, stop_at_pixels: bool) -> Result<Scan, DicomError> {
    let mut levels: Vec<Level> = Vec::new();
    let mut found = Scan {
        pixels_at: data.len(),
        end: data.len(),
        charsets_at: Vec::new(),
    };
    let mut at = 0;
    loop {
        while let Some(level) = levels.last() {
            match level.end {
                Some(end) if at == end => levels.pop(),
                Some(end) if at > end => return Err(broken(at, "an element runs past the end of its item")),
                _ => break,
            };
        }
        let Some(&level) = levels.last() else {
            if data[at..].iter().all(|&byte| byte == 0) {
                found.end = at;
                found.pixels_at = found.pixels_at.min(at);
                return Ok(found);
            }
            let header = read_header(data, at, encoding)?;
            if header.tag.0 >= 0x7FE0 && found.pixels_at == data.len() {
                found.pixels_at = at;
                if stop_at_pixels {
                    found.end = at;
                    return Ok(found);
                }
            }
            at = enter(data, header, at, &mut levels, &mut found, encoding)?;
            continue;
        };
        if level.is_item {
            let header = read_header(data, at, encoding)?;
            if header.tag == ITEM_DELIMITATION_ITEM {
                levels.pop();
                at = header.value_at;
            } else {
                at = enter(data, header, at, &mut levels, &mut found, encoding)?;
            }
        } else {
            let (tag, length) = read_item_header(data, at, encoding)?;
            at += 8;
            match tag {
                ITEM => {
                    let end = bounded_end(data, at, length, level.end)?;
                    levels.push(Level { is_item: true, end });
                }
                SEQUENCE_DELIMITATION_ITEM => {
                    levels.pop();
                }
                _ => return Err(broken(at - 8, "a sequence holds something that is not an item")),
            }
        }
    }
}

/// Steps over a primitive value or pixel fragments, or into a sequence; returns where to go on.
fn enter(
    data: &[u8],
    header: Header,
    header_at: usize,
    levels: &mut Vec<Level>,
    found: &mut Scan,
    encoding: Encoding,
) -> Result<usize, DicomError> {
    let parent_end = levels.iter().rev().find_map(|level| level.end);
    if header.tag.0 == 0xFFFE {
        return Err(broken(header_at, "a delimiter where an element was expected"));
    }
    if header.tag == tags::PIXEL_DATA && header.length == UNDEFINED {
        return skip_fragments(data, header.value_at, encoding);
    }
    if header.vr == VR::SQ || header.length == UNDEFINED {
        if levels.len() >= 2 * MAX_DEPTH {
            return Err(broken(
                header_at,
                &format!("sequences nest more than {MAX_DEPTH} deep"),
            ));
        }
        let end = bounded_end(data, header.value_at, header.length, parent_end)?;
        levels.push(Level { is_item: false, end });
        return Ok(header.value_at);
    }
    if header.tag == tags::SPECIFIC_CHARACTER_SET {
        found.charsets_at.push(header_at);
    }
    let end = bounded_end(data, header.value_at, header.length, parent_end)?;
    Ok(end.unwrap_or(header.value_at))
}

fn skip_fragments(data: &[u8], mut at: usize, encoding: Encoding) -> Result<usize, DicomError> {
    loop {
        let (tag, length) = read_item_header(data, at, encoding)?;
        at += 8;
        match tag {
            SEQUENCE_DELIMITATION_ITEM => return Ok(at),
            ITEM if length != UNDEFINED => {
                at = bounded_end(data, at, length, None)?.unwrap_or(at);
            }
            _ => {
                return Err(broken(
                    at - 8,
                    "the pixel data holds something that is not a fragment",
                ));
            }
        }
    }
}

/// Where a value of this length ends; `None` when it runs to its delimiter.
fn bounded_end(
    data: &[u8],
    at: usize,
    length: u32,
    parent: Option<usize>,
) -> Result<Option<usize>, DicomError> {
    if length == UNDEFINED {
        return Ok(None);
    }
    let room = parent.unwrap_or(data.len()).saturating_sub(at);
    let wanted = length as usize;
    if wanted > room {
        return Err(broken(
            at,
            &format!("a length field claims {wanted} bytes where {room} are left"),
        ));
    }
    Ok(Some(at + wanted))
}

fn read_item_header(data: &[u8], at: usize, encoding: Encoding) -> Result<(Tag, u32), DicomError> {
    let bytes = take::<8>(data, at)?;
    let tag = Tag(
        word([bytes[0], bytes[1]], encoding),
        word([bytes[2], bytes[3]], encoding),
    );
    Ok((tag, long([bytes[4], bytes[5], bytes[6], bytes[7]], encoding)))
}

fn read_header(data: &[u8], at: usize, encoding: Encoding) -> Result<Header, DicomError> {
    let bytes = take::<8>(data, at)?;
    let tag = Tag(
        word([bytes[0], bytes[1]], encoding),
        word([bytes[2], bytes[3]], encoding),
    );
    let length = [bytes[4], bytes[5], bytes[6], bytes[7]];
    if tag.0 == 0xFFFE {
        return Ok(Header {
            tag,
            vr: VR::UN,
            length: long(length, encoding),
            value_at: at + 8,
        });
    }
    if !encoding.explicit {
        let vr = StandardDataDictionary
            .by_tag(tag)
            .map_or(VR::UN, |entry| entry.vr.relaxed());
        return Ok(Header {
            tag,
            vr,
            length: long(length, encoding),
            value_at: at + 8,
        });
    }
    let vr = VR::from_binary([bytes[4], bytes[5]]).unwrap_or(VR::UN);
    if has_short_length(vr) {
        let length = u32::from(word([bytes[6], bytes[7]], encoding));
        return Ok(Header {
            tag,
            vr,
            length,
            value_at: at + 8,
        });
    }
    let length = long(take::<4>(data, at + 8)?, encoding);
    Ok(Header {
        tag,
        vr,
        length,
        value_at: at + 12,
    })
}

/// Whether the explicit header has a length of 16 bits (PS3.5 table 7.1-2).
fn has_short_length(vr: VR) -> bool {
    use VR::{AE, AS, AT, CS, DA, DS, DT, FD, FL, IS, LO, LT, PN, SH, SL, SS, ST, TM, UI, UL, US};
    matches!(
        vr,
        AE | AS
            | AT
            | CS
            | DA
            | DS
            | DT
            | FD
            | FL
            | IS
            | LO
            | LT
            | PN
            | SH
            | SL
            | SS
            | ST
            | TM
            | UI
            | UL
            | US
    )
}

/// Reads the file meta group (Explicit VR Little Endian), which starts after the prefix; returns where it ends.
pub(super) fn scan_meta(data: &[u8]) -> Result<usize, DicomError> {
    let encoding = Encoding {
        explicit: true,
        big_endian: false,
    };
    let mut at = 0;
    while data.len() - at >= 8 && data[at..at + 2] == [0x02, 0x00] {
        let header = read_header(data, at, encoding)?;
        at = bounded_end(data, header.value_at, header.length, None)?
            .ok_or_else(|| broken(at, "the file meta information holds a value of undefined length"))?;
    }
    if at == 0 {
        return Err(broken(
            0,
            "no file meta information (group 0002) after the prefix",
        ));
    }
    Ok(at)
}

fn take<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], DicomError> {
    data.get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| broken(at, "the bytes end inside an element header"))
}

fn word(bytes: [u8; 2], encoding: Encoding) -> u16 {
    if encoding.big_endian {
        u16::from_be_bytes(bytes)
    } else {
        u16::from_le_bytes(bytes)
    }
}

fn long(bytes: [u8; 4], encoding: Encoding) -> u32 {
    if encoding.big_endian {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    }
}

fn broken(offset: usize, problem: &str) -> DicomError {
    DicomError::Structure {
        offset,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPLICIT: Encoding = Encoding {
        explicit: true,
        big_endian: false,
    };
    const IMPLICIT: Encoding = Encoding {
        explicit: false,
        big_endian: false,
    };

    #[test]
    fn refuses_a_length_of_four_gibibytes() {
        let mut data = vec![0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0];
        data.extend(0xFFFF_FFFE_u32.to_le_bytes());
        data.extend([0; 64]);
        let said = scan(&data, EXPLICIT, false).unwrap_err().to_string();
        assert!(
            said.contains("claims 4294967294 bytes where 64 are left"),
            "{said}"
        );
    }

    #[test]
    fn refuses_nesting_that_would_exhaust_the_stack() {
        let mut data = Vec::new();
        for _ in 0..50_000 {
            data.extend([0x40, 0x00, 0x30, 0xA7]);
            data.extend(UNDEFINED.to_le_bytes());
            data.extend([0xFE, 0xFF, 0x00, 0xE0]);
            data.extend(UNDEFINED.to_le_bytes());
        }
        let said = scan(&data, IMPLICIT, false).unwrap_err().to_string();
        assert!(said.contains("nest more than 32 deep"), "{said}");
    }

    #[test]
    fn refuses_fragments_without_their_delimiter() {
        let mut data = vec![0xE0, 0x7F, 0x10, 0x00, b'O', b'B', 0, 0];
        data.extend(UNDEFINED.to_le_bytes());
        data.extend([0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0]);
        assert!(scan(&data, EXPLICIT, false).is_err());
        data.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        assert_eq!(scan(&data, EXPLICIT, false).unwrap().pixels_at, 0);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_points_outside(
            data in prop::collection::vec(any::<u8>(), 0..400), explicit: bool, big_endian: bool,
        ) {
            if let Ok(found) = scan(&data, Encoding { explicit, big_endian }, false) {
                prop_assert!(found.pixels_at <= data.len() && found.end <= data.len());
            }
            let _ = scan_meta(&data);
        }
    }
}
