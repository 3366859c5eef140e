//! Header text → media types; what a client accepts and what we have → what is sent.
//!
//! Parameter names are case-insensitive and values may be quoted or not: `transfer-syntax=*`, `transfer-syntax="*"`
//! and `Transfer-Syntax=*` are the same (RFC 9110 section 5.6.6; PS3.18 section 8.7).
//! It does not look into datasets and does not know how a syntax is decoded.

use axum::http::{HeaderMap, header};

/// Explicit VR Little Endian: what is sent when nobody asks otherwise (PS3.18 section 8.7.3.4).
pub const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// Raw bytes.
pub const OCTETS: &str = "application/octet-stream";

/// Media types of compressed frames with their transfer syntaxes; the first is meant when none is named.
///
/// Source: PS3.18 table 8.7.3-2 and PS3.6 annex A.
const COMPRESSED: [(&str, &[&str]); 7] = [
    (
        "image/jpeg",
        &[
            "1.2.840.10008.1.2.4.70",
            "1.2.840.10008.1.2.4.50",
            "1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.57",
        ],
    ),
    ("image/dicom-rle", &["1.2.840.10008.1.2.5"]),
    ("image/jls", &["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"]),
    ("image/jp2", &["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"]),
    ("image/jpx", &["1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"]),
    (
        "image/jphc",
        &[
            "1.2.840.10008.1.2.4.201",
            "1.2.840.10008.1.2.4.202",
            "1.2.840.10008.1.2.4.203",
        ],
    ),
    (
        "image/jxl",
        &[
            "1.2.840.10008.1.2.4.110",
            "1.2.840.10008.1.2.4.111",
            "1.2.840.10008.1.2.4.112",
        ],
    ),
];

/// The media type of a compressed frame in a transfer syntax; `None` for what is not compressed, or has none.
#[must_use]
pub fn compressed(stored: &str) -> Option<&'static str> {
    let found = COMPRESSED.iter().find(|(_, syntaxes)| syntaxes.contains(&stored));
    found.map(|(essence, _)| *essence)
}

/// One media type with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    /// Names in lower case, values without their quotes.
    pub parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Reads one media type; `None` when there is no `type/subtype`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = split_unquoted(text, ';').into_iter();
        let essence = pieces.next()?.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        if kind.is_empty() || subtype.is_empty() || essence.contains(char::is_whitespace) {
            return None;
        }
        let parameters = pieces
            .filter_map(|piece| {
                let (name, value) = piece.split_once('=')?;
                Some((name.trim().to_ascii_lowercase(), unquote(value.trim())))
            })
            .collect();
        Some(Self { essence, parameters })
    }

    /// A parameter by its lower-case name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn quality(&self) -> f32 {
        self.parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0)
    }
}

/// What a request accepts, best first; whoever names nothing accepts anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Accept {
    /// By the `accept` query parameter, then by the headers, which count where nothing of the former can be sent.
    by: [Vec<MediaType>; 2],
    /// Whether something was named, be it only to be refused.
    named: bool,
}

impl Accept {
    /// From the `accept` query parameter and the headers (PS3.18 sections 8.3.3.1 and 8.7.8.1).
    #[must_use]
    pub fn new(headers: &HeaderMap, query: Option<&str>) -> Self {
        let by_headers = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(list)
            .collect();
        let mut by: [Vec<MediaType>; 2] = [query.map(list).unwrap_or_default(), by_headers];
        let named = by.iter().any(|types| !types.is_empty());
        for types in &mut by {
            types.retain(|media| media.quality() > 0.0);
            types.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
        }
        Self { by, named }
    }

    /// Whether nothing was named, so that anything may be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.named
    }

    /// How datasets may be sent: as DICOM JSON, or as XML, where a list takes one part for each dataset.
    ///
    /// A single XML document counts only where `single` says that there is one dataset (PS3.18 section 8.7.3.2).
    #[must_use]
    pub fn datasets(&self, single: bool) -> Option<Form> {
        if self.is_open() {
            return Some(Form::Json("application/dicom+json"));
        }
        self.essences().find_map(|media| match media.essence.as_str() {
            "application/dicom+json" | "*/*" | "application/*" => Some(Form::Json("application/dicom+json")),
            "application/json" => Some(Form::Json("application/json")),
            "multipart/related" | "multipart/*" => {
                let root = media.parameter("type").map(str::to_ascii_lowercase);
                let fits =
                    root.is_none_or(|root| root == DICOM_XML || root == "*/*" || root == "application/*");
                fits.then_some(Form::XmlParts)
            }
            DICOM_XML if single => Some(Form::Xml),
            _ => None,
        })
    }

    /// The media types by which the whole may be sent, best first; `*/*` and the like stay as they are.
    pub fn essences(&self) -> impl Iterator<Item = &MediaType> {
        self.by.iter().flatten()
    }

    /// How frames may be sent that are stored in `stored`: in one part or several, and whether compressed as they are stored.
    ///
    /// Compressed frames go to who names their media type; everybody else who takes octets gets them decoded.
    #[must_use]
    pub fn frames(&self, stored: &str, single: bool) -> Option<FrameForm> {
        let names = |media: &MediaType, wanted: &str| {
            let root = media.parameter("type").map(str::to_ascii_lowercase);
            let multipart = media.essence == "multipart/related" && root.as_deref() == Some(wanted);
            (multipart || single && media.essence == wanted).then_some(multipart)
        };
        let as_stored = |media: &MediaType| {
            let (essence, syntaxes) = COMPRESSED.iter().find(|(_, all)| all.contains(&stored))?;
            let multipart = names(media, essence)?;
            let asked = media.parameter("transfer-syntax").unwrap_or(syntaxes[0]);
            (asked == "*" || asked == stored).then_some(FrameForm {
                multipart,
                compressed: Some(essence),
            })
        };
        if self.is_open() {
            return Some(FrameForm {
                multipart: true,
                compressed: None,
            });
        }
        self.essences().find_map(|media| {
            let decoded = || {
                let fits = |offer: &Offer| offer.syntax.takes_as_stored(EXPLICIT_VR_LITTLE_ENDIAN);
                offer(media, OCTETS, single).filter(fits).map(|offer| FrameForm {
                    multipart: offer.multipart,
                    compressed: None,
                })
            };
            as_stored(media).or_else(decoded)
        })
    }

    /// How objects of one media type may be sent, best first: in one part or several, and in which transfer syntax.
    ///
    /// A single-part type counts only where `single` says that there is one object (PS3.18 section 10.4.4).
    #[must_use]
    pub fn offers(&self, wanted: &str, single: bool) -> Vec<Offer> {
        let default = Offer {
            multipart: true,
            syntax: Syntax::default(),
        };
        if self.is_open() {
            return vec![default];
        }
        let of = |types: &Vec<MediaType>| -> Vec<Offer> {
            types
                .iter()
                .filter_map(|media| offer(media, wanted, single))
                .collect()
        };
        self.by
            .iter()
            .map(of)
            .find(|offers| !offers.is_empty())
            .unwrap_or_default()
    }
}

/// How objects of a media type may be sent to who accepts `media`.
fn offer(media: &MediaType, wanted: &str, single: bool) -> Option<Offer> {
    let family = format!("{}/*", wanted.split('/').next().unwrap_or_default());
    let essence = media.essence.as_str();
    let multipart = match essence {
        "*/*" | "multipart/*" => true,
        "multipart/related" => {
            let root = media.parameter("type").map(str::to_ascii_lowercase);
            if !root.is_none_or(|root| root == wanted || root == family || root == "*/*") {
                return None;
            }
            true
        }
        _ if single && (essence == wanted || essence == family) => false,
        _ => return None,
    };
    let syntax = media
        .parameter("transfer-syntax")
        .map_or_else(Syntax::default, Syntax::named);
    Some(Offer { multipart, syntax })
}

/// The media type of a dataset in XML.
pub const DICOM_XML: &str = "application/dicom+xml";

/// How datasets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// DICOM JSON, under the name that the client used.
    Json(&'static str),
    /// One document of the Native DICOM Model.
    Xml,
    /// Such a document for each dataset.
    XmlParts,
}

/// One way to send objects that the client takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// As `multipart/related`, or as a body of its own.
    pub multipart: bool,
    /// The transfer syntax.
    pub syntax: Syntax,
}

/// How frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameForm {
    /// As `multipart/related`, or as a body of its own.
    pub multipart: bool,
    /// The media type of frames that are sent compressed as they are stored; decoded octets when there is none.
    pub compressed: Option<&'static str>,
}

/// A transfer syntax that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syntax {
    /// `*`: as stored.
    Any,
    /// Exactly this UID.
    Exactly(String),
}

impl Default for Syntax {
    fn default() -> Self {
        Self::Exactly(EXPLICIT_VR_LITTLE_ENDIAN.to_owned())
    }
}

impl Syntax {
    fn named(text: &str) -> Self {
        if text == "*" {
            Self::Any
        } else {
            Self::Exactly(text.to_owned())
        }
    }

    /// Whether an object stored in `stored` can be sent as asked without a change.
    #[must_use]
    pub fn takes_as_stored(&self, stored: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(uid) => uid == stored,
        }
    }
}

fn list(text: &str) -> Vec<MediaType> {
    split_unquoted(text, ',')
        .into_iter()
        .filter_map(MediaType::parse)
        .collect()
}

/// Splits at a character outside quotes.
fn split_unquoted(text: &str, at: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        } else if c == at && !quoted {
            pieces.push(&text[start..index]);
            start = index + c.len_utf8();
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// Takes the quotes and their backslashes off a parameter value.
fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        Accept::new(&headers, None)
    }

    #[test]
    fn reads_quoted_and_unquoted_parameters_alike() {
        let plain = MediaType::parse("multipart/related; type=application/dicom; boundary=abc").unwrap();
        let quoted =
            MediaType::parse("Multipart/Related;Type=\"application/dicom\" ; BOUNDARY=\"abc\"").unwrap();
        assert_eq!(plain, quoted);
        let odd = MediaType::parse("multipart/related; boundary=\"a;b,\\\"c\"").unwrap();
        assert_eq!(odd.parameter("boundary"), Some("a;b,\"c"));
        assert_eq!(MediaType::parse("multipart"), None);
        assert_eq!(MediaType::parse("a b/c"), None);
    }

    #[test]
    fn prefers_by_quality_and_drops_what_is_refused() {
        let accept =
            accept("application/dicom+xml;q=0.9, application/json;q=0.5, application/dicom+json;q=0");
        assert_eq!(accept.datasets(false), Some(Form::Json("application/json")));
        assert_eq!(
            super::Accept::new(&HeaderMap::new(), Some("text/html")).datasets(true),
            None
        );
    }

    #[test]
    fn falls_back_on_the_header_where_nothing_of_the_parameter_can_be_sent() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            "application/dicom; transfer-syntax=*".parse().unwrap(),
        );
        let offers = |query| Accept::new(&headers, Some(query)).offers("application/dicom", true);
        assert_eq!(offers("text/html")[0].syntax, Syntax::Any);
        assert_eq!(
            offers("application/dicom"),
            [Offer {
                multipart: false,
                syntax: Syntax::default()
            }]
        );
        assert!(
            accept("application/dicom;q=0")
                .offers("application/dicom", true)
                .is_empty()
        );
        assert!(accept("").is_open() && !accept("text/html;q=0").is_open());
    }

    #[test]
    fn takes_a_list_in_xml_only_in_parts() {
        let parts = accept("multipart/related; type=\"application/dicom+xml\"");
        assert_eq!(parts.datasets(false), Some(Form::XmlParts));
        let document = accept(DICOM_XML);
        assert_eq!(
            (document.datasets(false), document.datasets(true)),
            (None, Some(Form::Xml))
        );
        assert_eq!(
            accept("multipart/related; type=\"application/dicom\"").datasets(false),
            None
        );
    }

    #[test]
    fn understands_the_star_that_viewers_quote() {
        for text in [
            "multipart/related; type=\"application/octet-stream\"; transfer-syntax=\"*\"",
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
        ] {
            let offers = accept(text).offers("application/octet-stream", true);
            assert_eq!(
                offers,
                [Offer {
                    multipart: true,
                    syntax: Syntax::Any
                }]
            );
        }
    }

    #[test]
    fn gives_compressed_frames_only_to_who_names_them() {
        let (jls, rle) = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5");
        let near = "1.2.840.10008.1.2.4.81";
        let form = |multipart, compressed| {
            Some(FrameForm {
                multipart,
                compressed,
            })
        };
        for (text, stored, single, wanted) in [
            (
                "multipart/related; type=\"image/jls\"",
                jls,
                false,
                form(true, Some("image/jls")),
            ),
            ("image/jls", jls, true, form(false, Some("image/jls"))),
            ("image/jls", jls, false, None),
            ("multipart/related; type=\"image/jls\"", near, false, None),
            (
                "multipart/related; type=\"image/jls\"; transfer-syntax=*",
                near,
                false,
                form(true, Some("image/jls")),
            ),
            (
                "multipart/related; type=\"image/jls\"; transfer-syntax=1.2.840.10008.1.2.4.81",
                near,
                false,
                form(true, Some("image/jls")),
            ),
            ("multipart/related; type=\"image/jls\"", rle, false, None),
            (
                "multipart/related; type=\"application/octet-stream\"; transfer-syntax=*",
                rle,
                false,
                form(true, None),
            ),
            ("*/*", rle, false, form(true, None)),
            (
                "multipart/related; type=\"image/dicom-rle\";q=0.5, application/octet-stream",
                rle,
                true,
                form(false, None),
            ),
            (
                "multipart/related; type=\"image/jls\", */*;q=0.1",
                EXPLICIT_VR_LITTLE_ENDIAN,
                true,
                form(true, None),
            ),
        ] {
            assert_eq!(accept(text).frames(stored, single), wanted, "{text} of {stored}");
        }
    }

    #[test]
    fn takes_a_single_part_only_for_a_single_object() {
        let accept = accept(
            "application/dicom; transfer-syntax=*, multipart/related; type=\"application/dicom\";q=0.1",
        );
        assert!(!accept.offers("application/dicom", true)[0].multipart);
        assert_eq!(accept.offers("application/dicom", false).len(), 1);
        assert_eq!(
            accept.offers("application/dicom", false)[0].syntax,
            Syntax::default()
        );
        assert!(accept.offers("application/octet-stream", true).is_empty());
    }
}
