//! Numbers by step → a file that TensorBoard reads.
//!
//! A file is a row of records: length, checksum of the length, bytes, checksum of the bytes; the bytes are an `Event` in protocol buffers' wire format, of which only a handful of fields is needed.
//!
//! Source: TensorFlow's `record_writer.cc` (framing, masked CRC-32C), `event.proto`, `summary.proto`; CRC-32C, RFC 3720 appendix B.4.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Castagnoli's polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// Added to a rotated checksum, so that a checksum of checksums is not degenerate.
const MASK: u32 = 0xA282_EAD8;

/// An open file of events.
#[derive(Debug)]
pub struct Events {
    file: File,
}

impl Events {
    /// Makes a file in a folder, which is one run in TensorBoard.
    ///
    /// # Errors
    /// The folder's or the file's.
    pub fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let now = seconds();
        // TensorBoard looks for the word in the middle; a name of its own keeps what an earlier run wrote.
        let path = folder.join(format!("events.out.tfevents.{now:.6}.ictus"));
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(&record(&event(now, 0, &Content::Version)))?;
        Ok(Self { file })
    }

    /// Adds numbers of a step.
    ///
    /// # Errors
    /// The file's.
    pub fn add(&mut self, step: usize, values: &[(&str, f64)]) -> io::Result<()> {
        let bytes = record(&event(seconds(), step as u64, &Content::Scalars(values)));
        self.file.write_all(&bytes)
    }
}

fn seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|d| d.as_secs_f64()).unwrap_or_default()
}

enum Content<'a> {
    Version,
    Scalars(&'a [(&'a str, f64)]),
}

/// An `Event`: 1 `wall_time`, 2 step, 3 `file_version`, 5 summary of values (1), each a tag (1) with a `simple_value` (2).
#[expect(clippy::cast_possible_truncation, reason = "TensorBoard's numbers are f32")]
fn event(at: f64, step: u64, content: &Content<'_>) -> Vec<u8> {
    let mut bytes = vec![0x09];
    bytes.extend(at.to_le_bytes());
    if step > 0 {
        bytes.push(0x10);
        varint(&mut bytes, step);
    }
    match content {
        Content::Version => text(&mut bytes, 3, b"brain.Event:2"),
        Content::Scalars(values) => {
            let mut summary = Vec::new();
            for (tag, value) in *values {
                let mut inner = Vec::new();
                text(&mut inner, 1, tag.as_bytes());
                inner.push(0x15);
                inner.extend((*value as f32).to_le_bytes());
                text(&mut summary, 1, &inner);
            }
            text(&mut bytes, 5, &summary);
        }
    }
    bytes
}

/// A field of bytes: its number and kind, its length, the bytes.
fn text(bytes: &mut Vec<u8>, field: u8, content: &[u8]) {
    bytes.push((field << 3) | 2);
    varint(bytes, content.len() as u64);
    bytes.extend(content);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7F {
        bytes.push(((value & 0x7F) as u8) | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7F) as u8);
}

fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(content);
    bytes.extend(masked(content).to_le_bytes());
    bytes
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(MASK)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let fold = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            }
        })
    };
    !bytes.iter().fold(!0, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        // 0x8A9136AA rotated right by 15 is 0x6D551522; 0xA282EAD8 is added, the carry lost.
        assert_eq!(masked(&[0; 32]), 0x0FD7_FFFA);
    }

    #[test]
    fn an_event_is_the_bytes_that_the_wire_format_says() {
        let bytes = event(1.0, 300, &Content::Scalars(&[("loss", 0.5)]));
        let expected = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F][..], // wall_time = 1.0
            &[0x10, 0xAC, 0x02],                       // step = 300
            &[0x2A, 0x0D, 0x0A, 0x0B],                 // summary of 13 bytes, value of 11
            &[0x0A, 0x04, b'l', b'o', b's', b's'],     // tag
            &[0x15, 0, 0, 0, 0x3F],                    // simple_value = 0.5
        ]
        .concat();
        assert_eq!(bytes, expected);
        let framed = record(&bytes);
        assert_eq!(framed.len(), 8 + 4 + bytes.len() + 4);
        assert_eq!(framed[..8], (bytes.len() as u64).to_le_bytes());
    }

    #[test]
    fn a_file_is_whole_records_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::create(folder.path()).unwrap();
        events.add(1, &[("loss", 2.0), ("learning_rate", 1e-3)]).unwrap();
        events.add(2, &[("loss", 1.0)]).unwrap();
        let entry = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert!(entry.file_name().to_string_lossy().contains("tfevents"));
        let bytes = fs::read(entry.path()).unwrap();
        let (mut at, mut count) = (0, 0);
        while at < bytes.len() {
            let length: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
            let n = usize::try_from(u64::from_le_bytes(length)).unwrap();
            let content = &bytes[at + 12..at + 12 + n];
            assert_eq!(bytes[at + 8..at + 12], masked(&length).to_le_bytes());
            assert_eq!(bytes[at + 12 + n..at + 16 + n], masked(content).to_le_bytes());
            (at, count) = (at + 16 + n, count + 1);
        }
        assert_eq!(count, 3);
    }
}
