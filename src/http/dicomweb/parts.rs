//! Parts → a body of `multipart/related`; one value → a body with its validators and byte ranges.
//!
//! Source: RFC 2387; RFC 9110 sections 8.8.3, 13.1.2 and 14; PS3.18 section 8.7.

use crate::http::error::HttpError;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::{convert::Infallible, pin::Pin, sync::Arc};

/// One part of a body.
pub(super) struct Part {
    content_type: String,
    location: Option<String>,
    bytes: Bytes,
}

impl Part {
    /// A part without an address.
    pub(super) fn new(content_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self {
            content_type: content_type.into(),
            location: None,
            bytes: bytes.into(),
        }
    }

    /// The same at an address, which must be a URL.
    pub(super) fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    /// As a body of its own, whole or the range that was asked for.
    pub(super) fn alone(self, asked: &HeaderMap) -> Response {
        let mut response = ranged(asked, self.bytes);
        if let Ok(kind) = HeaderValue::from_str(&self.content_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }
}

/// What stands between the parts of a body.
struct Boundary(String);

impl Boundary {
    fn new() -> Self {
        Self(format!("ictus-{}", uuid::Uuid::new_v4().simple()))
    }

    fn before(&self, part: &Part, is_first: bool) -> Bytes {
        let line_end = if is_first { "" } else { "\r\n" };
        let mut head = format!(
            "{line_end}--{}\r\nContent-Type: {}\r\n",
            self.0, part.content_type
        );
        if let Some(location) = &part.location {
            head.push_str(&format!("Content-Location: {location}\r\n"));
        }
        head.push_str("\r\n");
        Bytes::from(head)
    }

    fn end(&self) -> Bytes {
        Bytes::from(format!("\r\n--{}--\r\n", self.0))
    }

    /// An answer with this body.
    fn around(&self, root: &str, body: Body) -> Response {
        let mut response = body.into_response();
        let kind = format!("multipart/related; type=\"{root}\"; boundary={}", self.0);
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }
}

/// Parts that are at hand: the answer says how long it is.
pub(super) fn whole_multipart(root: &str, parts: Vec<Part>) -> Response {
    let boundary = Boundary::new();
    let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
    for part in parts {
        pieces.push(boundary.before(&part, pieces.is_empty()));
        pieces.push(part.bytes);
    }
    pieces.push(boundary.end());
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
    let mut response = boundary.around(root, body);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Parts that are made while they are sent. One that fails breaks the connection off, so that nobody takes the rest for all.
pub(super) fn multipart<S>(root: &str, parts: S) -> Response
where
    S: Stream<Item = Result<Part, HttpError>> + Send + 'static,
{
    let boundary = Arc::new(Boundary::new());
    let between = boundary.clone();
    let body = async_stream::try_stream! {
        let mut parts = std::pin::pin!(parts);
        let mut is_first = true;
        while let Some(part) = parts.next().await {
            let part = part.inspect_err(|error| {
                tracing::error!(%error, "an answer of several parts was broken off");
            })?;
            yield between.before(&part, is_first);
            yield part.bytes;
            is_first = false;
        }
        yield between.end();
    };
    let body: Pin<Box<dyn Stream<Item = Result<Bytes, HttpError>> + Send>> = Box::pin(body);
    boundary.around(root, Body::from_stream(body))
}

/// How long a browser may show what it has without asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Pixels never change under their address.
    ForGood,
    /// What is said around them may be corrected: ask each time.
    WhileTheSame,
}

/// Validators of an answer whose content is named by `name`.
pub(super) struct Validator {
    tag: String,
    keep: Keep,
}

impl Validator {
    /// From the digests and choices that make the content; the same pieces always mean the same bytes.
    pub(super) fn new(keep: Keep, pieces: &[&str]) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for piece in pieces {
            hash.update(piece.len().to_le_bytes());
            hash.update(piece.as_bytes());
        }
        let digest = hex::encode(&hash.finalize()[..16]);
        Self {
            tag: format!("\"{digest}\""),
            keep,
        }
    }

    /// Whether the client has the content already: then this is the whole answer.
    pub(super) fn not_modified(&self, asked: &HeaderMap) -> Option<Response> {
        let known = asked.get(header::IF_NONE_MATCH)?.to_str().ok()?;
        let same = |tag: &str| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.tag
        };
        known
            .split(',')
            .any(same)
            .then(|| self.mark(StatusCode::NOT_MODIFIED.into_response()))
    }

    /// Puts the validators on an answer.
    pub(super) fn mark(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(header::ETAG, tag);
        }
        let cache = match self.keep {
            Keep::ForGood => "private, max-age=86400, immutable",
            Keep::WhileTheSame => "private, no-cache",
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        // What is sent depends on what is accepted, and on who asks.
        headers.insert(
            header::VARY,
            HeaderValue::from_static("Accept, Authorization, Cookie"),
        );
        response
    }
}

/// The whole of a value, or the one range of it that was asked for.
fn ranged(asked: &HeaderMap, bytes: Bytes) -> Response {
    let length = bytes.len();
    let range = asked
        .get(header::RANGE)
        .filter(|_| asked.get(header::IF_RANGE).is_none())
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("bytes="))
        .filter(|text| !text.contains(','))
        .and_then(|text| text.split_once('-'));
    let whole = |bytes: Bytes| ([(header::ACCEPT_RANGES, "bytes")], bytes).into_response();
    let Some((first, last)) = range else {
        return whole(bytes);
    };
    let (first, last) = (
        first.trim().parse::<usize>().ok(),
        last.trim().parse::<usize>().ok(),
    );
    let (start, end) = match (first, last) {
        (Some(first), last) => (
            first,
            last.map_or(length, |last| last.saturating_add(1).min(length)),
        ),
        (None, Some(suffix)) => (length.saturating_sub(suffix), length),
        (None, None) => return whole(bytes),
    };
    if start >= end {
        let sizes = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
        return (StatusCode::RANGE_NOT_SATISFIABLE, sizes).into_response();
    }
    let sizes = [
        (
            header::CONTENT_RANGE,
            format!("bytes {start}-{}/{length}", end - 1),
        ),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    (StatusCode::PARTIAL_CONTENT, sizes, bytes.slice(start..end)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn gives_the_range_that_was_asked_for() {
        let bytes = Bytes::from_static(b"0123456789");
        for (range, status, content_range) in [
            ("bytes=2-4", StatusCode::PARTIAL_CONTENT, Some("bytes 2-4/10")),
            ("bytes=7-", StatusCode::PARTIAL_CONTENT, Some("bytes 7-9/10")),
            ("bytes=-3", StatusCode::PARTIAL_CONTENT, Some("bytes 7-9/10")),
            ("bytes=5-99", StatusCode::PARTIAL_CONTENT, Some("bytes 5-9/10")),
            ("bytes=10-", StatusCode::RANGE_NOT_SATISFIABLE, Some("bytes */10")),
            ("bytes=0-1,3-4", StatusCode::OK, None),
            ("lines=1-2", StatusCode::OK, None),
        ] {
            let answer = ranged(&asked(header::RANGE, range), bytes.clone());
            assert_eq!(answer.status(), status, "{range}");
            let said = answer.headers().get(header::CONTENT_RANGE);
            assert_eq!(
                said.map(|value| value.to_str().unwrap()),
                content_range,
                "{range}"
            );
        }
    }

    #[test]
    fn says_that_nothing_changed_only_to_who_has_the_same() {
        let validator = Validator::new(Keep::ForGood, &["a", "b"]);
        let same = validator.tag.clone();
        let list = format!("\"x\", W/{same}");
        for (value, known) in [
            (same.as_str(), true),
            (list.as_str(), true),
            ("*", true),
            ("\"x\"", false),
        ] {
            let headers =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(validator.not_modified(&headers).is_some(), known, "{value}");
        }
        assert_ne!(same, Validator::new(Keep::ForGood, &["ab", ""]).tag);
    }
}
