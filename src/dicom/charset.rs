//! Text bytes in a declared Specific Character Set → Unicode.
//!
//! All values of Specific Character Set count: ISO 2022 escape sequences switch code elements within a value, and every delimiter switches back.
//! What it declares for a dataset is applied by `text`.
//! What the declaration does not cover is an error; nothing is guessed from the bytes.
//!
//! Source: PS3.5 section 6.1 and annexes H to K; PS3.3 section C.12.1.1.2.

use crate::domain::failure::FailureClass;
use dicom_core::VR;
use encoding_rs::Encoding;

/// First of the private-use characters that stand for bytes which could not be decoded.
const UNDECODABLE: u32 = 0xF700;
pub(super) const ESC: u8 = 0x1B;

/// Why text cannot be decoded; says nothing of the text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CharsetError {
    /// A defined term that PS3.3 does not have.
    #[error("SpecificCharacterSet value {position} is not a defined term of PS3.3 C.12.1.1.2")]
    Term {
        /// Which value, from 1.
        position: usize,
    },
    /// A byte that the declared sets do not have.
    #[error("byte {position} of the text is not in the declared SpecificCharacterSet")]
    Byte {
        /// Which byte, from 1.
        position: usize,
    },
}

impl CharsetError {
    /// The input declares something else than it holds.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// What the bytes of one half of the code table mean.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Code {
    Ascii,
    /// JIS X 0201 Latin: ASCII with ¥ and ‾.
    Romaji,
    /// JIS X 0201 half-width Katakana.
    Katakana,
    Latin1,
    Single(&'static Encoding),
    Jis0208,
    Jis0212,
    Ksx1001,
    Gb2312,
}

/// A declared character set, ready to decode.
#[derive(Debug, Clone, PartialEq)]
pub struct Charset {
    whole: Option<&'static Encoding>,
    g0: Code,
    g1: Option<Code>,
    escapes: bool,
}

impl Default for Charset {
    /// ISO_IR 6, the default repertoire.
    fn default() -> Self {
        Self {
            whole: None,
            g0: Code::Ascii,
            g1: None,
            escapes: false,
        }
    }
}

impl Charset {
    /// Reads the values of Specific Character Set (0008,0005).
    ///
    /// # Errors
    /// Says which value is not a defined term.
    pub fn parse(values: &[String]) -> Result<Self, CharsetError> {
        let mut charset = Self::default();
        for (index, value) in values.iter().enumerate() {
            let term = value.trim_matches([' ', '\0']).to_ascii_uppercase();
            charset.escapes |= index > 0 || term.starts_with("ISO 2022");
            let whole = match term.as_str() {
                "ISO_IR 192" | "ISO-IR 192" | "ISO_IR_192" | "ISO IR 192" => Some(encoding_rs::UTF_8),
                "GB18030" => Some(encoding_rs::GB18030),
                "GBK" => Some(encoding_rs::GBK),
                _ => None,
            };
            if whole.is_some() {
                charset.whole = charset.whole.or(whole);
                continue;
            }
            let (g0, g1) = registered(&term).ok_or(CharsetError::Term { position: index + 1 })?;
            if index == 0 {
                charset.g0 = g0;
            }
            // Where value 1 leaves the upper half free, the first set that has one is what unescaped bytes can only mean.
            charset.g1 = charset.g1.or(g1);
        }
        Ok(charset)
    }

    /// Whether ASCII bytes without escapes mean what they say.
    pub(super) fn has_ascii(&self) -> bool {
        self.g0 == Code::Ascii
    }

    /// Decodes one text, delimiters included.
    ///
    /// # Errors
    /// Says which byte is not in the declared sets.
    pub fn decode(&self, bytes: &[u8], vr: VR) -> Result<String, CharsetError> {
        let mut failed = None;
        let text = self.decode_with(bytes, vr, |position, _| {
            failed = failed.or(Some(position + 1));
            None
        });
        failed.map_or(Ok(text), |position| Err(CharsetError::Byte { position }))
    }

    /// Decodes what can be; each other byte becomes U+F700 + byte, so that nothing is lost. Says whether all could.
    #[must_use]
    pub fn decode_keeping(&self, bytes: &[u8], vr: VR) -> (String, bool) {
        let mut complete = true;
        let text = self.decode_with(bytes, vr, |_, byte| {
            complete = false;
            stand_in(byte)
        });
        (text, complete)
    }

    fn decode_with(&self, bytes: &[u8], vr: VR, mut bad: impl FnMut(usize, u8) -> Option<char>) -> String {
        if let Some(encoding) = self.whole {
            if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes) {
                return text.into_owned();
            }
            let valid = ascii_prefix(bytes);
            let rest = bytes.iter().enumerate().map(|(at, &b)| {
                if b.is_ascii() {
                    Some(char::from(b))
                } else {
                    bad(at.max(valid), b)
                }
            });
            return rest.flatten().collect();
        }
        let mut text = String::with_capacity(bytes.len());
        let (mut g0, mut g1) = (self.g0, self.g1);
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if byte == ESC
                && self.escapes
                && let Some((length, half, code)) = escape(&bytes[at..])
            {
                if half == 0 {
                    g0 = code;
                } else {
                    g1 = Some(code);
                }
                at += length;
                continue;
            }
            let two_byte_g0 = matches!(g0, Code::Jis0208 | Code::Jis0212);
            if is_delimiter(byte, vr) && !two_byte_g0 || byte < 0x20 && byte != ESC {
                (g0, g1) = (self.g0, self.g1);
                text.push(char::from(byte));
                at += 1;
                continue;
            }
            let code = if byte < 0x80 { Some(g0) } else { g1 };
            match code.and_then(|code| decode_one(code, &bytes[at..])) {
                Some((character, length)) => {
                    text.push(character);
                    at += length;
                }
                None => {
                    text.extend(bad(at, byte));
                    at += 1;
                }
            }
        }
        text
    }
}

fn stand_in(byte: u8) -> Option<char> {
    char::from_u32(UNDECODABLE + u32::from(byte))
}

fn ascii_prefix(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii()).count()
}

/// The two halves that a defined term designates at the start.
fn registered(term: &str) -> Option<(Code, Option<Code>)> {
    if term.is_empty() {
        return Some((Code::Ascii, None));
    }
    let number = ["ISO_IR ", "ISO 2022 IR ", "ISO-IR ", "ISO IR ", "ISO_IR_"]
        .iter()
        .find_map(|prefix| term.strip_prefix(prefix))?;
    let upper = match number {
        "6" => return Some((Code::Ascii, None)),
        "13" => return Some((Code::Romaji, Some(Code::Katakana))),
        "87" | "159" => return Some((Code::Ascii, None)),
        "100" => Code::Latin1,
        "101" => Code::Single(encoding_rs::ISO_8859_2),
        "109" => Code::Single(encoding_rs::ISO_8859_3),
        "110" => Code::Single(encoding_rs::ISO_8859_4),
        "126" => Code::Single(encoding_rs::ISO_8859_7),
        "127" => Code::Single(encoding_rs::ISO_8859_6),
        "138" => Code::Single(encoding_rs::ISO_8859_8),
        "144" => Code::Single(encoding_rs::ISO_8859_5),
        // From A0H on these two are ISO 8859-9 and TIS 620.
        "148" => Code::Single(encoding_rs::WINDOWS_1254),
        "166" => Code::Single(encoding_rs::WINDOWS_874),
        "203" => Code::Single(encoding_rs::ISO_8859_15),
        "149" => Code::Ksx1001,
        "58" => Code::Gb2312,
        _ => return None,
    };
    Some((Code::Ascii, Some(upper)))
}

/// An escape sequence at the start of `bytes`: its length, the half it designates, and the code.
fn escape(bytes: &[u8]) -> Option<(usize, u8, Code)> {
    let single = |encoding| Some((3, 1, Code::Single(encoding)));
    match bytes {
        [ESC, b'(', b'B', ..] => Some((3, 0, Code::Ascii)),
        [ESC, b'(', b'J', ..] => Some((3, 0, Code::Romaji)),
        [ESC, b')', b'I', ..] => Some((3, 1, Code::Katakana)),
        [ESC, b'$', b'B', ..] => Some((3, 0, Code::Jis0208)),
        [ESC, b'$', b'(', b'D', ..] => Some((4, 0, Code::Jis0212)),
        [ESC, b'$', b')', b'C', ..] => Some((4, 1, Code::Ksx1001)),
        [ESC, b'$', b')', b'A', ..] => Some((4, 1, Code::Gb2312)),
        [ESC, b'-', b'A', ..] => Some((3, 1, Code::Latin1)),
        [ESC, b'-', b'B', ..] => single(encoding_rs::ISO_8859_2),
        [ESC, b'-', b'C', ..] => single(encoding_rs::ISO_8859_3),
        [ESC, b'-', b'D', ..] => single(encoding_rs::ISO_8859_4),
        [ESC, b'-', b'F', ..] => single(encoding_rs::ISO_8859_7),
        [ESC, b'-', b'G', ..] => single(encoding_rs::ISO_8859_6),
        [ESC, b'-', b'H', ..] => single(encoding_rs::ISO_8859_8),
        [ESC, b'-', b'L', ..] => single(encoding_rs::ISO_8859_5),
        [ESC, b'-', b'M', ..] => single(encoding_rs::WINDOWS_1254),
        [ESC, b'-', b'T', ..] => single(encoding_rs::WINDOWS_874),
        [ESC, b'-', b'b', ..] => single(encoding_rs::ISO_8859_15),
        _ => None,
    }
}

/// After these the designations of value 1 hold again (PS3.5 section 6.1.2.5.3).
fn is_delimiter(byte: u8, vr: VR) -> bool {
    match byte {
        b'\\' => has_values(vr),
        b'^' | b'=' => vr == VR::PN,
        _ => false,
    }
}

fn decode_one(code: Code, bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    let pair = |lead: Option<u8>, encoding: &'static Encoding| {
        let second = *bytes.get(1)?;
        let (a, b) = (first | 0x80, second | 0x80);
        // Both bytes of a 94 × 94 set lie in the same half, and between 21H and 7EH of it.
        let in_set = |byte: u8| (0xA1..=0xFE).contains(&byte);
        if (first ^ second) & 0x80 != 0 || !in_set(a) || !in_set(b) {
            return None;
        }
        let encoded: Vec<u8> = lead.into_iter().chain([a, b]).collect();
        let text = encoding.decode_without_bom_handling_and_without_replacement(&encoded)?;
        let mut characters = text.chars();
        let character = characters.next()?;
        characters.next().is_none().then_some((character, 2))
    };
    match code {
        Code::Ascii => (0x20..0x7F).contains(&first).then(|| (char::from(first), 1)),
        Code::Romaji => match first {
            b'\\' => Some(('¥', 1)),
            b'~' => Some(('‾', 1)),
            _ => decode_one(Code::Ascii, bytes),
        },
        Code::Katakana => (0xA1..=0xDF)
            .contains(&first)
            .then(|| char::from_u32(0xFF61 + u32::from(first - 0xA1)))
            .flatten()
            .map(|character| (character, 1)),
        Code::Latin1 => (first >= 0xA0).then(|| (char::from(first), 1)),
        Code::Single(encoding) => {
            if first < 0xA0 {
                return None;
            }
            let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes[..1])?;
            text.chars().next().map(|character| (character, 1))
        }
        Code::Jis0208 if first == b' ' => Some((' ', 1)),
        Code::Jis0208 => pair(None, encoding_rs::EUC_JP),
        Code::Jis0212 => pair(Some(0x8F), encoding_rs::EUC_JP),
        Code::Ksx1001 => pair(None, encoding_rs::EUC_KR),
        Code::Gb2312 => pair(None, encoding_rs::GBK),
    }
}

/// Whether a backslash separates values.
pub(super) fn has_values(vr: VR) -> bool {
    !matches!(vr, VR::LT | VR::ST | VR::UT | VR::UR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(terms: &[&str], bytes: &[u8], vr: VR) -> Result<String, CharsetError> {
        let values: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
        Charset::parse(&values)?.decode(bytes, vr)
    }

    // The names are the examples of PS3.5 annexes H to K.

    #[test]
    fn decodes_japanese_names_in_two_code_elements() {
        let bytes = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B";
        let said = decode(&["", "ISO 2022 IR 87"], bytes, VR::PN).unwrap();
        assert_eq!(said, "Yamada^Tarou=山田^太郎=やまだ^たろう");
    }

    #[test]
    fn decodes_half_width_katakana_with_a_kanji_escape() {
        let bytes = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J";
        let said = decode(&["ISO 2022 IR 13", "ISO 2022 IR 87"], bytes, VR::PN).unwrap();
        assert_eq!(said, "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう");
    }

    #[test]
    fn decodes_supplementary_kanji() {
        // JIS X 0212 row 16, cell 1 is U+4E02.
        assert_eq!(
            decode(&["", "ISO 2022 IR 159"], b"\x1b$(D\x30\x21\x1b(B", VR::LO).unwrap(),
            "丂"
        );
    }

    #[test]
    fn decodes_korean_names() {
        let bytes =
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf";
        let said = decode(&["", "ISO 2022 IR 149"], bytes, VR::PN).unwrap();
        assert_eq!(said, "Hong^Gildong=洪^吉洞=홍^길동");
    }

    #[test]
    fn decodes_chinese_in_its_three_encodings() {
        let gb18030 = b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab";
        assert_eq!(
            decode(&["GB18030"], gb18030, VR::PN).unwrap(),
            "Wang^XiaoDong=王^小东"
        );
        assert_eq!(
            decode(&["GBK"], gb18030, VR::PN).unwrap(),
            "Wang^XiaoDong=王^小东"
        );
        let gb2312 = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab";
        assert_eq!(
            decode(&["", "ISO 2022 IR 58"], gb2312, VR::PN).unwrap(),
            "Zhang^XiaoDong=张^小东"
        );
    }

    #[test]
    fn a_trail_byte_that_looks_like_a_backslash_does_not_split_a_value() {
        // 935CH is one character in GBK.
        let said = decode(&["GBK"], b"\x93\x5c\\B", VR::LO).unwrap();
        assert_eq!(said.split('\\').count(), 2, "{said}");
        let kanji = decode(&["", "ISO 2022 IR 87"], b"\x1b$B$\x5c\x1b(B\\B", VR::LO).unwrap();
        assert_eq!(kanji, "ぼ\\B");
    }

    #[test]
    fn decodes_turkish_greek_thai_and_utf_8() {
        assert_eq!(
            decode(&["ISO_IR 148"], b"\xc7avu\xfeo\xf0lu^\xdd", VR::PN).unwrap(),
            "Çavuşoğlu^İ"
        );
        assert_eq!(
            decode(&["ISO_IR 126"], b"\xc4\xe9\xef\xed", VR::PN).unwrap(),
            "Διον"
        );
        assert_eq!(decode(&["ISO_IR 166"], b"\xa1\xd2", VR::PN).unwrap(), "กา");
        assert_eq!(
            decode(&["ISO_IR 192"], "Müller^王".as_bytes(), VR::PN).unwrap(),
            "Müller^王"
        );
    }

    #[test]
    fn switches_back_at_every_delimiter() {
        let bytes = b"\x1b-Fabc\xc4^\xc4";
        assert_eq!(
            decode(&["ISO 2022 IR 100", "ISO 2022 IR 126"], bytes, VR::PN).unwrap(),
            "abcΔ^Ä"
        );
    }

    #[test]
    fn refuses_bytes_that_the_declaration_does_not_cover() {
        assert_eq!(
            decode(&[], b"M\xfcller", VR::PN),
            Err(CharsetError::Byte { position: 2 })
        );
        assert_eq!(
            decode(&["ISO_IR 192"], b"M\xfcller", VR::PN),
            Err(CharsetError::Byte { position: 2 })
        );
        assert_eq!(
            decode(&["ISO_IR 100"], b"a\x93", VR::PN),
            Err(CharsetError::Byte { position: 2 })
        );
        assert_eq!(
            decode(&["ISO_IR 6"], b"\x1b$B;3", VR::PN),
            Err(CharsetError::Byte { position: 1 })
        );
        assert_eq!(
            decode(&["LATIN"], b"a", VR::PN),
            Err(CharsetError::Term { position: 1 })
        );
    }

    #[test]
    fn keeps_each_undecodable_byte_apart() {
        let (text, complete) = Charset::default().decode_keeping(b"M\xfcller", VR::PN);
        assert_eq!((text.as_str(), complete), ("M\u{f7fc}ller", false));
    }

    proptest! {
        #[test]
        fn never_panics_and_loses_no_byte(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            term in prop::sample::select(vec!["", "ISO_IR 100", "ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO_IR 192", "GB18030", "GBK"]),
        ) {
            let charset = Charset::parse(&[term.to_owned(), "ISO 2022 IR 159".to_owned()]).unwrap();
            let (text, complete) = charset.decode_keeping(&bytes, VR::LO);
            prop_assert_eq!(complete, charset.decode(&bytes, VR::LO).is_ok());
            prop_assert!(bytes.is_empty() || !text.is_empty() || bytes.contains(&ESC));
        }
    }
}
