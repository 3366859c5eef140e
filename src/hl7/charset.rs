//! Text ↔ bytes in the character set that MSH-18 names.
//!
//! The header is read first, in ASCII, since it says how the rest is to be read.
//!
//! Source: HL7 v2.5.1 table 0211.

use super::Hl7Error;
use encoding_rs::Encoding;

/// A character set of a message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Charset {
    /// `UNICODE UTF-8`.
    #[default]
    Utf8,
    /// `8859/1`.
    Latin1,
    /// `ASCII`.
    Ascii,
}

impl Charset {
    /// The charset that table 0211 calls so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Utf8, Self::Latin1, Self::Ascii]
            .into_iter()
            .find(|charset| charset.name() == name)
    }

    /// Its name in MSH-18.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UNICODE UTF-8",
            Self::Latin1 => "8859/1",
            Self::Ascii => "ASCII",
        }
    }

    /// The bytes of a text.
    ///
    /// # Errors
    /// When it has a character that the set has not.
    pub fn encode(self, text: &str) -> Result<Vec<u8>, Hl7Error> {
        let most = match self {
            Self::Utf8 => return Ok(text.as_bytes().to_vec()),
            Self::Latin1 => 0xFF,
            Self::Ascii => 0x7F,
        };
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).ok().filter(|byte| *byte <= most))
            .collect::<Option<_>>()
            .ok_or(Hl7Error::Unencodable(self.name()))
    }
}

/// Reads a message in the character set that it names; without one it is ASCII, or UTF-8 if it is that.
///
/// # Errors
/// When the set is not known, or the bytes are not of it.
pub fn decode(bytes: &[u8]) -> Result<String, Hl7Error> {
    let end = bytes
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
        .unwrap_or(bytes.len());
    let header = String::from_utf8_lossy(&bytes[..end]);
    let separator = header.chars().nth(3).unwrap_or('|');
    let named = header.split(separator).nth(17).unwrap_or_default();
    let named = named
        .split(['~', '^'])
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_uppercase();
    let label = match named.as_str() {
        "" | "ASCII" | "UNICODE UTF-8" | "UTF-8" => "utf-8",
        // The standard's 8859/1; the label below would read its unused control bytes as others do.
        "8859/1" => return Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        "8859/2" => "iso-8859-2",
        "8859/3" => "iso-8859-3",
        "8859/4" => "iso-8859-4",
        "8859/5" => "iso-8859-5",
        "8859/6" => "iso-8859-6",
        "8859/7" => "iso-8859-7",
        "8859/8" => "iso-8859-8",
        "8859/9" => "windows-1254",
        "8859/15" => "iso-8859-15",
        "GB 18030-2000" => "gb18030",
        "KS X 1001" => "euc-kr",
        "BIG-5" => "big5",
        _ => return Err(Hl7Error::CharacterSet),
    };
    let encoding = Encoding::for_label(label.as_bytes()).ok_or(Hl7Error::CharacterSet)?;
    encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .map(std::borrow::Cow::into_owned)
        .ok_or(Hl7Error::Undecodable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(charset: &str, name: &[u8]) -> Vec<u8> {
        let mut bytes =
            format!("MSH|^~\\&|A|B|C|D|1||ADT^A08|1|P|2.5||||||{charset}\rPID|1||P||").into_bytes();
        bytes.extend_from_slice(name);
        bytes
    }

    #[test]
    fn a_name_is_read_in_the_set_that_the_header_names() {
        for (charset, name) in [
            ("8859/1", &b"M\xfcller"[..]),
            ("UNICODE UTF-8", "Müller".as_bytes()),
            ("", "Müller".as_bytes()),
            ("8859/15", b"M\xfcller"),
        ] {
            assert!(
                decode(&message(charset, name)).unwrap().ends_with("|Müller"),
                "{charset}"
            );
        }
        assert!(matches!(
            decode(&message("", b"M\xfcller")),
            Err(Hl7Error::Undecodable)
        ));
        assert!(matches!(
            decode(&message("EBCDIC", b"x")),
            Err(Hl7Error::CharacterSet)
        ));
    }

    #[test]
    fn what_a_set_cannot_say_is_an_error_and_no_question_mark() {
        assert_eq!(Charset::Latin1.encode("Müller").unwrap(), b"M\xfcller");
        assert!(Charset::Latin1.encode("漢").is_err());
        assert!(Charset::Ascii.encode("Müller").is_err());
        assert_eq!(Charset::named("8859/1"), Some(Charset::Latin1));
    }
}
