//! Frames of 16-bit values → RLE Lossless fragments.
//!
//! An entropy map is nearly everywhere nearly nothing, so that its high bytes are runs; run lengths make it several times smaller than the CT, and every DICOM reader of images knows them.
//! Each byte plane is a segment, the high bytes first; each row of a plane is coded for itself.
//!
//! Source: PS3.5 annex G.

/// Bytes of the header: the number of segments and fifteen offsets.
const HEADER: u32 = 64;
/// The same as a length.
const HEADER_BYTES: usize = HEADER as usize;
/// Longest literal or replicate run.
const LONGEST_RUN: usize = 128;

/// One frame as one fragment of even length.
///
/// # Shape
/// `values` holds whole rows of `columns` values.
pub(super) fn encode_frame(values: &[u16], columns: usize) -> Vec<u8> {
    let mut high = Vec::new();
    let mut low = Vec::new();
    let mut plane_row = Vec::with_capacity(columns);
    for row in values.chunks(columns.max(1)) {
        for (plane, byte) in [(&mut high, 1), (&mut low, 0)] {
            plane_row.clear();
            plane_row.extend(row.iter().map(|value| value.to_le_bytes()[byte]));
            pack_bits(&plane_row, plane);
        }
    }
    for plane in [&mut high, &mut low] {
        if plane.len() % 2 == 1 {
            plane.push(0);
        }
    }
    // Offsets have 32 bits: a plane would have to pass 4 GiB to saturate them, a CT's has at most a few MiB.
    let low_at = HEADER.saturating_add(u32::try_from(high.len()).unwrap_or(u32::MAX));
    let mut frame: Vec<u8> = [2, HEADER, low_at]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    frame.resize(HEADER_BYTES, 0);
    frame.append(&mut high);
    frame.append(&mut low);
    frame
}

/// Codes one row of one plane: a byte n in 0..=127 before n + 1 literal bytes, a byte 257 − n before one byte that stands n times.
fn pack_bits(row: &[u8], out: &mut Vec<u8>) {
    let run_at = |at: usize| {
        row[at..]
            .iter()
            .take(LONGEST_RUN)
            .take_while(|byte| **byte == row[at])
            .count()
    };
    let mut at = 0;
    while at < row.len() {
        let run = run_at(at);
        if run >= 2 {
            out.push(prefix(257 - run));
            out.push(row[at]);
            at += run;
            continue;
        }
        let start = at;
        // A run of two inside literals costs as much as it saves: only three stop them.
        while at < row.len() && at - start < LONGEST_RUN && run_at(at) < 3 {
            at += 1;
        }
        out.push(prefix(at - start - 1));
        out.extend_from_slice(&row[start..at]);
    }
}

/// A run's first byte; both callers stay within 255 because no run passes [`LONGEST_RUN`].
fn prefix(value: usize) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A decoder from the text of annex G, for the tests.
    fn decode(frame: &[u8]) -> Vec<u16> {
        let word = |i: usize| u32::from_le_bytes(frame[i * 4..i * 4 + 4].try_into().unwrap()) as usize;
        assert_eq!((word(0), word(1)), (2, HEADER_BYTES));
        let plane = |from: usize, to: usize| {
            let (mut bytes, mut at) = (Vec::new(), from);
            while at + 1 < to {
                let n = usize::from(frame[at]);
                if n < 128 {
                    bytes.extend_from_slice(&frame[at + 1..at + 2 + n]);
                    at += 2 + n;
                } else {
                    bytes.extend(std::iter::repeat_n(frame[at + 1], 257 - n));
                    at += 2;
                }
            }
            bytes
        };
        let (high, low) = (plane(HEADER_BYTES, word(2)), plane(word(2), frame.len()));
        high.iter()
            .zip(&low)
            .map(|(h, l)| u16::from_be_bytes([*h, *l]))
            .collect()
    }

    #[test]
    fn a_constant_row_of_128_is_one_run_a_plane() {
        let frame = encode_frame(&[0x0102; 128], 128);
        assert_eq!(frame[HEADER_BYTES..], [129, 1, 129, 2]);
    }

    proptest! {
        #[test]
        fn decode_after_encode_is_identity(
            rows in 1usize..7, columns in 1usize..300, seed in prop::collection::vec((0u16..600, 1usize..200), 1..40),
        ) {
            let mut values: Vec<u16> = seed.iter().flat_map(|(v, n)| std::iter::repeat_n(*v, *n % 7 + n / 60)).collect();
            values.resize(rows * columns, 7);
            let frame = encode_frame(&values, columns);
            prop_assert_eq!(frame.len() % 2, 0);
            prop_assert_eq!(decode(&frame)[..values.len()].to_vec(), values);
        }
    }
}
