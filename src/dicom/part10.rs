//! The head of a Part 10 file: preamble, prefix and group 0002 around a dataset that came or goes without them.
//!
//! The bytes of the dataset are never touched.
//!
//! Source: PS3.10 section 7.1.

use super::DicomError;
use dicom_core::Tag;

/// Preamble and prefix.
const MAGIC: usize = 132;

/// What group 0002 says of a dataset.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// MediaStorageSOPClassUID.
    pub sop_class_uid: &'a str,
    /// MediaStorageSOPInstanceUID.
    pub sop_instance_uid: &'a str,
    /// TransferSyntaxUID.
    pub transfer_syntax_uid: &'a str,
    /// ImplementationClassUID of who writes the file.
    pub implementation_class_uid: &'a str,
}

impl Head<'_> {
    /// The bytes that come before the dataset.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut elements = b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01".to_vec();
        for (number, uid) in [
            (0x0002u16, self.sop_class_uid),
            (0x0003, self.sop_instance_uid),
            (0x0010, self.transfer_syntax_uid),
            (0x0012, self.implementation_class_uid),
        ] {
            let mut value = uid.as_bytes().to_vec();
            if value.len() % 2 == 1 {
                value.push(0);
            }
            elements.extend_from_slice(&[2, 0]);
            elements.extend_from_slice(&number.to_le_bytes());
            elements.extend_from_slice(b"UI");
            // A UID has at most 64 characters.
            elements.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
            elements.extend_from_slice(&value);
        }
        let mut head = vec![0; MAGIC - 4];
        head.extend_from_slice(b"DICM\x02\x00\x00\x00UL\x04\x00");
        head.extend_from_slice(&u32::try_from(elements.len()).unwrap_or(u32::MAX).to_le_bytes());
        head.extend_from_slice(&elements);
        head
    }
}

/// The dataset of a file, without preamble, prefix and group 0002.
///
/// # Errors
/// When it is no Part 10 file.
pub fn dataset(part10: &[u8]) -> Result<&[u8], DicomError> {
    if part10.get(MAGIC - 4..MAGIC) != Some(b"DICM") {
        return Err(DicomError::NotPart10 { length: part10.len() });
    }
    let body = &part10[MAGIC..];
    Ok(&body[super::scan::scan_meta(body)?..])
}

/// The transfer syntax that a file says it is in.
///
/// # Errors
/// When it is no Part 10 file, or does not say.
pub fn transfer_syntax(part10: &[u8]) -> Result<String, DicomError> {
    let end = part10.len() - dataset(part10)?.len();
    let mut at = MAGIC;
    while let Some(head) = part10.get(at..at + 8).filter(|_| at < end) {
        let tag = Tag(
            u16::from_le_bytes([head[0], head[1]]),
            u16::from_le_bytes([head[2], head[3]]),
        );
        let long = matches!(&head[4..6], b"OB" | b"OW" | b"UN" | b"SQ" | b"UT");
        let (length, start) = match (long, part10.get(at + 8..at + 12)) {
            (true, Some(length)) => (
                u32::from_le_bytes([length[0], length[1], length[2], length[3]]),
                at + 12,
            ),
            (true, None) => break,
            (false, _) => (u32::from(u16::from_le_bytes([head[6], head[7]])), at + 8),
        };
        let value = part10.get(start..start + length as usize);
        match value {
            Some(value) if tag == Tag(0x0002, 0x0010) => {
                let text = String::from_utf8_lossy(value);
                return Ok(text.trim_matches([' ', '\0']).to_owned());
            }
            Some(value) => at = start + value.len(),
            None => break,
        }
    }
    Err(DicomError::TransferSyntax {
        uid: "absent".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back_and_the_dataset_is_untouched() {
        let head = Head {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid: "1.2.3",
            transfer_syntax_uid: "1.2.840.10008.1.2",
            implementation_class_uid: "1.2.4",
        };
        let mut file = head.encode();
        file.extend_from_slice(b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100");
        assert_eq!(
            dataset(&file).unwrap(),
            b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100"
        );
        assert_eq!(transfer_syntax(&file).unwrap(), "1.2.840.10008.1.2");
        let read = dicom_object::from_reader(file.as_slice()).unwrap();
        assert_eq!(read.meta().media_storage_sop_instance_uid(), "1.2.3");
        assert!(dataset(&file[..100]).is_err());
    }
}
