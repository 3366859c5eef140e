//! Fragments of encapsulated pixel data → one a frame, whoever cut them and whichever table says how.
//!
//! A frame may be cut into several fragments; then only the Basic or the Extended Offset Table says where it begins.
//! Without a table the fragments of several frames are not guessed at.
//!
//! Source: PS3.5 annex A.4; PS3.3 section C.7.6.3.1.8.

use super::transcode::{self, TranscodeError};
use dicom_core::{DataElement, Tag, VR, value::PixelFragmentSequence, value::Value};
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;

/// ExtendedOffsetTable.
const EXTENDED_OFFSET_TABLE: Tag = Tag(0x7FE0, 0x0001);
/// Tag and length before each fragment, which offsets count, too.
const ITEM_HEAD: u64 = 8;

/// Frames of encapsulated pixel data as they are stored, whose numbers count from 1.
///
/// # Errors
/// When the file cannot be read, its pixels are not encapsulated, or a frame is not there.
pub fn stored_frames(part10: &[u8], wanted: &[u32]) -> Result<Vec<Vec<u8>>, TranscodeError> {
    let mut object = transcode::open(part10)?;
    one_a_frame(&mut object)?;
    let Some(Value::PixelSequence(sequence)) = object.get(tags::PIXEL_DATA).map(|element| element.value())
    else {
        return Err(TranscodeError::Layout("its pixel data is not encapsulated"));
    };
    let frames = sequence.fragments();
    let none = |wanted| TranscodeError::Frame {
        wanted,
        available: u32::try_from(frames.len()).unwrap_or(u32::MAX),
    };
    let index = |frame: u32| usize::try_from(frame).ok()?.checked_sub(1);
    wanted
        .iter()
        .map(|frame| {
            index(*frame)
                .and_then(|i| frames.get(i))
                .cloned()
                .ok_or_else(|| none(*frame))
        })
        .collect()
}

/// Joins the fragments of each frame.
pub(super) fn one_a_frame(object: &mut DefaultDicomObject) -> Result<(), TranscodeError> {
    let frames = object
        .get(tags::NUMBER_OF_FRAMES)
        .and_then(|element| element.to_int::<usize>().ok())
        .unwrap_or(1);
    let Some(Value::PixelSequence(sequence)) = object.get(tags::PIXEL_DATA).map(|element| element.value())
    else {
        return Ok(());
    };
    let fragments = sequence.fragments();
    if fragments.len() == frames || fragments.is_empty() {
        return Ok(());
    }
    let starts = if frames == 1 {
        vec![0]
    } else {
        starts(object, sequence.offset_table(), frames)?
    };
    let lengths: Vec<usize> = fragments.iter().map(Vec::len).collect();
    let firsts = firsts(&lengths, &starts)?;
    let joined: Vec<Vec<u8>> = firsts
        .iter()
        .enumerate()
        .map(|(frame, first)| {
            let end = firsts.get(frame + 1).copied().unwrap_or(fragments.len());
            fragments[*first..end].concat()
        })
        .collect();
    let value = PixelFragmentSequence::new(Vec::<u32>::new(), joined);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
    Ok(())
}

/// Where each frame begins, by one of the two tables.
fn starts(object: &DefaultDicomObject, basic: &[u32], frames: usize) -> Result<Vec<u64>, TranscodeError> {
    if basic.len() == frames {
        return Ok(basic.iter().map(|offset| u64::from(*offset)).collect());
    }
    let extended: Vec<u64> = object
        .get(EXTENDED_OFFSET_TABLE)
        .and_then(|element| element.to_bytes().ok())
        .map(|bytes| {
            let words = bytes.chunks_exact(8);
            words
                .map(|word| {
                    word.iter()
                        .rev()
                        .fold(0, |number, byte| number << 8 | u64::from(*byte))
                })
                .collect()
        })
        .unwrap_or_default();
    if extended.len() == frames {
        Ok(extended)
    } else {
        Err(TranscodeError::Layout(
            "its fragments are more than its frames and no offset table says which are whose",
        ))
    }
}

/// The first fragment of each frame.
fn firsts(lengths: &[usize], starts: &[u64]) -> Result<Vec<usize>, TranscodeError> {
    let mut at = 0;
    let places: Vec<u64> = lengths
        .iter()
        .map(|length| {
            let place = at;
            at += *length as u64 + ITEM_HEAD;
            place
        })
        .collect();
    let wrong = || TranscodeError::Layout("its offset table points between its fragments");
    let firsts: Vec<usize> = starts
        .iter()
        .map(|start| places.binary_search(start).map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    let ascends = firsts.first() == Some(&0) && firsts.is_sorted_by(|a, b| a < b);
    if ascends { Ok(firsts) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_begin_where_the_table_says() {
        assert_eq!(firsts(&[10, 20, 30, 40], &[0, 46]).unwrap(), [0, 2]);
        assert!(firsts(&[10, 20], &[0, 19]).is_err());
        assert!(firsts(&[10, 20], &[18, 0]).is_err());
        assert!(firsts(&[10, 20], &[18, 18]).is_err());
    }
}
