//! A body of `multipart/related`, chunk by chunk → its parts, each with its headers and a stream of its bytes.
//!
//! A delimiter counts only at the start of a line and only when a line end or `--` follows it, so binary data that
//! happens to hold the boundary text stays data.
//! A part is complete only when the delimiter behind it was seen; whatever the body ends in before that is [`MultipartError::Truncated`].
//! At no time is more than one chunk and one header block in memory.
//!
//! It does not decode Content-Transfer-Encoding (HTTP forbids it) and takes CRLF as the only line end.
//!
//! Source: RFC 2046 section 5.1.1, RFC 2387, PS3.18 section 8.6.1.2.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use std::time::Duration;

/// The longest boundary that is taken: RFC 2046 allows 70, and Orthanc sends 73.
const MAX_BOUNDARY: usize = 128;
/// The longest header block of a part; real ones have under 300 bytes.
const MAX_HEADERS: usize = 16 * 1024;
/// The most blanks allowed between a boundary and its line end (RFC 2046 transport padding).
const MAX_PADDING: usize = 256;
/// A body that sends nothing for this long is given up, so that a dead client does not hold its staged files.
const IDLE: Duration = Duration::from_secs(60);

/// Why the rest of a multipart body cannot be read. The parts that were complete before it stand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MultipartError {
    /// The boundary parameter cannot be one.
    #[error("the boundary parameter has {0} characters; 1 to {MAX_BOUNDARY} printable ones are allowed")]
    Boundary(usize),
    /// The body ended before the delimiter behind part `part`.
    #[error("the body ended inside part {part}: its closing boundary is missing; send the request again")]
    Truncated {
        /// The part, counted from 1; 0 is the text before the first.
        part: usize,
    },
    /// No delimiter at all.
    #[error("the body holds no line with the boundary that Content-Type names")]
    NoBoundary,
    /// A header line that is none.
    #[error("part {part} has a header line that is not `name: value`, or no blank line after its headers")]
    Headers {
        /// The part, counted from 1.
        part: usize,
    },
    /// Headers beyond any use.
    #[error("the headers of part {part} pass {MAX_HEADERS} bytes")]
    HeadersTooLong {
        /// The part, counted from 1.
        part: usize,
    },
    /// The request as a whole is too large.
    #[error("the request passes the limit of {limit} bytes; send the study in several requests")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The connection broke.
    #[error("the connection broke inside part {part}")]
    Disconnected {
        /// The part, counted from 1; 0 is the text before the first.
        part: usize,
    },
    /// The client fell silent.
    #[error("nothing came for {} s inside part {part}", IDLE.as_secs())]
    Idle {
        /// The part, counted from 1; 0 is the text before the first.
        part: usize,
    },
}

/// The headers of one part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartHeaders {
    /// Names in lower case, values trimmed, in the order they came.
    pub lines: Vec<(String, String)>,
}

impl PartHeaders {
    /// The first value of a header; `name` in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter; what is here is dropped.
    Preamble,
    /// At the first header line of a part.
    Headers,
    /// At the line end that closes the headers: it may itself begin the next delimiter (a part without a body).
    BodyStart,
    /// In the body of a part.
    Body,
    /// Behind a delimiter that ended a part, before its headers are asked for.
    Between,
    /// Behind the closing delimiter, or after an error.
    Done,
}

/// What the buffer holds next.
#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// A delimiter starts at `at` and ends before `end`.
    Delimiter { at: usize, end: usize, closes: bool },
    /// The first `safe` bytes are data for sure; for the rest more input must be seen.
    Data { safe: usize },
}

/// A multipart body being read.
#[derive(Debug)]
pub struct Multipart<S> {
    source: S,
    buffer: BytesMut,
    delimiter: Vec<u8>,
    state: State,
    part: usize,
    received: u64,
    limit: u64,
}

impl<S, E> Multipart<S>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
{
    /// Starts on a body with the boundary of its Content-Type and a limit on all its bytes.
    ///
    /// # Errors
    /// When the boundary is empty, too long or not printable.
    pub fn new(source: S, boundary: &str, limit: u64) -> Result<Self, MultipartError> {
        let printable =
            boundary.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !boundary.ends_with(' ');
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY || !printable {
            return Err(MultipartError::Boundary(boundary.len()));
        }
        // The first delimiter may stand at the very start of the body: give it the line end it lacks.
        Ok(Self {
            source,
            buffer: BytesMut::from(&b"\r\n"[..]),
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            state: State::Preamble,
            part: 0,
            received: 0,
            limit,
        })
    }

    /// The headers of the next part; what was left unread of the part before is passed over. `None` after the last.
    ///
    /// # Errors
    /// When the body cannot be read on; every later call gives `None`.
    pub async fn next_part(&mut self) -> Result<Option<PartHeaders>, MultipartError> {
        while matches!(self.state, State::Preamble | State::BodyStart | State::Body) {
            self.chunk().await?;
        }
        if self.state == State::Done {
            return Ok(None);
        }
        self.part += 1;
        self.state = State::Headers;
        let mut headers = PartHeaders::default();
        let mut used = 0;
        loop {
            let Some(line_end) = find(&self.buffer, b"\r\n") else {
                if used + self.buffer.len() > MAX_HEADERS {
                    return Err(self.fail(MultipartError::HeadersTooLong { part: self.part }));
                }
                self.fill().await?;
                continue;
            };
            if line_end == 0 {
                self.state = State::BodyStart;
                return Ok(Some(headers));
            }
            used += line_end + 2;
            if used > MAX_HEADERS {
                return Err(self.fail(MultipartError::HeadersTooLong { part: self.part }));
            }
            let line = self.buffer.split_to(line_end + 2);
            match header_line(&line[..line_end], &self.delimiter[2..]) {
                Some(header) => headers.lines.push(header),
                None => return Err(self.fail(MultipartError::Headers { part: self.part })),
            }
        }
    }

    /// The next bytes of the current part; `None` when the delimiter behind it was seen.
    ///
    /// # Errors
    /// When the body cannot be read on; the part is then not complete.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, MultipartError> {
        loop {
            match self.state {
                State::Headers | State::Between | State::Done => return Ok(None),
                State::Preamble | State::Body | State::BodyStart => {}
            }
            match scan(&self.buffer, &self.delimiter) {
                Scan::Delimiter { at: 0, end, closes } => {
                    let _delimiter = self.buffer.split_to(end);
                    self.state = if closes { State::Done } else { State::Between };
                    return Ok(None);
                }
                Scan::Data { safe: 0 } => self.fill().await?,
                Scan::Delimiter { at: safe, .. } | Scan::Data { safe } => {
                    if self.state == State::BodyStart {
                        let _blank_line = self.buffer.split_to(2);
                        self.state = State::Body;
                        continue;
                    }
                    let data = self.buffer.split_to(safe).freeze();
                    if self.state == State::Body {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The rest of the current part as a stream that ends behind its last byte.
    pub fn body(&mut self) -> impl Stream<Item = Result<Bytes, MultipartError>> + Send + Unpin + '_ {
        Box::pin(futures::stream::unfold(self, |multipart| async move {
            let item = multipart.chunk().await.transpose()?;
            Some((item, multipart))
        }))
    }

    /// Reads and drops what the client still sends, so that it gets to read the answer instead of a broken pipe.
    pub async fn drain(&mut self) {
        self.buffer.clear();
        self.state = State::Done;
        while self.received <= self.limit {
            match tokio::time::timeout(IDLE, self.source.next()).await {
                Ok(Some(Ok(bytes))) => self.received += bytes.len() as u64,
                Ok(None | Some(Err(_))) | Err(_) => return,
            }
        }
    }

    /// Takes one more chunk from the source.
    async fn fill(&mut self) -> Result<(), MultipartError> {
        match tokio::time::timeout(IDLE, self.source.next()).await {
            Err(_) => Err(self.fail(MultipartError::Idle { part: self.part })),
            Ok(Some(Err(_))) => Err(self.fail(MultipartError::Disconnected { part: self.part })),
            Ok(None) if self.part == 0 => Err(self.fail(MultipartError::NoBoundary)),
            Ok(None) => Err(self.fail(MultipartError::Truncated { part: self.part })),
            Ok(Some(Ok(bytes))) => {
                self.received += bytes.len() as u64;
                if self.received > self.limit {
                    return Err(self.fail(MultipartError::TooLarge { limit: self.limit }));
                }
                self.buffer.extend_from_slice(&bytes);
                Ok(())
            }
        }
    }

    fn fail(&mut self, error: MultipartError) -> MultipartError {
        self.state = State::Done;
        self.buffer.clear();
        error
    }
}

/// `name: value`, or nothing when the line is no header or is the delimiter itself.
fn header_line(line: &[u8], dash_boundary: &[u8]) -> Option<(String, String)> {
    if line.starts_with(dash_boundary) {
        return None;
    }
    let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let valid = !name.is_empty() && name.bytes().all(token);
    valid.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// Looks for the first delimiter and says how many bytes before it are data.
fn scan(buffer: &[u8], delimiter: &[u8]) -> Scan {
    let mut from = 0;
    while let Some(step) = memchr::memchr(b'\r', &buffer[from..]) {
        let at = from + step;
        let here = &buffer[at..];
        if here.len() < delimiter.len() {
            if delimiter.starts_with(here) {
                return Scan::Data { safe: at };
            }
        } else if let Some(tail) = here.strip_prefix(delimiter) {
            match delimiter_end(tail) {
                Some((length, closes)) => {
                    return Scan::Delimiter {
                        at,
                        end: at + delimiter.len() + length,
                        closes,
                    };
                }
                None if tail.len() <= MAX_PADDING && undecided(tail) => return Scan::Data { safe: at },
                None => {}
            }
        }
        from = at + 1;
    }
    Scan::Data { safe: buffer.len() }
}

/// How many bytes behind the boundary text belong to the delimiter, and whether it closes the body.
fn delimiter_end(tail: &[u8]) -> Option<(usize, bool)> {
    if tail.starts_with(b"--") {
        return Some((2, true));
    }
    let padding = tail
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    tail[padding..]
        .starts_with(b"\r\n")
        .then_some((padding + 2, false))
}

/// Whether more bytes could still make `tail` the end of a delimiter.
fn undecided(tail: &[u8]) -> bool {
    let padding = tail
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    matches!(&tail[padding..], [] | [b'\r']) || tail == b"-"
}

fn find(buffer: &[u8], pattern: &[u8]) -> Option<usize> {
    buffer.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    type Read = (Vec<(PartHeaders, Vec<u8>)>, Option<MultipartError>);

    fn read(chunks: Vec<Bytes>, boundary: &str, limit: u64) -> Read {
        let source = futures::stream::iter(chunks.into_iter().map(Ok::<_, Infallible>));
        let mut multipart = Multipart::new(source, boundary, limit).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut parts = Vec::new();
            loop {
                let headers = match multipart.next_part().await {
                    Ok(Some(headers)) => headers,
                    Ok(None) => return (parts, None),
                    Err(error) => return (parts, Some(error)),
                };
                let mut data = Vec::new();
                let mut body = multipart.body();
                while let Some(chunk) = body.next().await {
                    match chunk {
                        Ok(bytes) => data.extend_from_slice(&bytes),
                        Err(error) => return (parts, Some(error)),
                    }
                }
                drop(body);
                parts.push((headers, data));
            }
        })
    }

    fn whole(body: &[u8]) -> Read {
        read(vec![Bytes::copy_from_slice(body)], "b", 1 << 20)
    }

    #[test]
    fn reads_parts_between_a_preamble_and_an_epilogue() {
        let (parts, error) = whole(b"hello\r\n--b \t\r\nContent-TYPE: application/dicom\r\n\r\nab\r\ncd\r\n--b\r\nX: 1\r\n\r\n\r\n--b--\r\nbye");
        assert!(error.is_none());
        assert_eq!(parts[0].0.get("content-type"), Some("application/dicom"));
        assert_eq!(parts[0].1, b"ab\r\ncd");
        assert_eq!(parts[1].1, b"");
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn keeps_data_that_only_resembles_a_delimiter() {
        let (parts, error) = whole(b"--b\r\n\r\nx\r\n--bb\r\ny--b\r\n--b -\r\n--b--");
        assert!(error.is_none());
        assert!(parts[0].0.lines.is_empty());
        assert_eq!(parts[0].1, b"x\r\n--bb\r\ny--b\r\n--b -");
    }

    #[test]
    fn takes_a_part_without_headers_for_itself_and_not_for_the_next() {
        let (parts, error) = whole(b"--b\r\n\r\nfirst\r\n--b\r\nA: 1\r\n\r\nsecond\r\n--b--");
        assert!(error.is_none());
        assert_eq!(parts[0], (PartHeaders::default(), b"first".to_vec()));
        assert_eq!(parts[1].1, b"second");
    }

    #[test]
    fn reads_a_part_that_has_headers_and_no_body() {
        let (parts, error) = whole(b"--b\r\nA: 1\r\n\r\n--b\r\nA: 2\r\n\r\nx\r\n--b--");
        assert!(error.is_none());
        assert_eq!(parts.iter().map(|part| part.1.len()).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn keeps_the_complete_parts_of_a_truncated_body() {
        let full = b"--b\r\nA: 1\r\n\r\nfirst\r\n--b\r\nA: 2\r\n\r\nsecond\r\n--b--";
        for length in 0..full.len() {
            let (parts, error) = whole(&full[..length]);
            let complete = usize::from(length >= b"--b\r\nA: 1\r\n\r\nfirst\r\n--b\r\n".len());
            assert_eq!(parts.len(), complete, "{length}");
            assert!(
                matches!(
                    error,
                    Some(MultipartError::Truncated { .. } | MultipartError::NoBoundary)
                ),
                "{length}"
            );
        }
    }

    #[test]
    fn refuses_broken_headers_and_oversized_bodies() {
        assert!(matches!(
            whole(b"--b\r\nno colon\r\n\r\nx\r\n--b--").1,
            Some(MultipartError::Headers { part: 1 })
        ));
        assert!(matches!(
            whole(b"--b\r\nA: 1\r\n--b--\r\n").1,
            Some(MultipartError::Headers { part: 1 })
        ));
        let long = [b"--b\r\nA: ".as_slice(), &[b'x'; 20_000]].concat();
        assert!(matches!(
            whole(&long).1,
            Some(MultipartError::HeadersTooLong { part: 1 })
        ));
        let body = vec![Bytes::from_static(b"--b\r\nA: 1\r\n\r\n0123456789")];
        assert!(matches!(
            read(body, "b", 10).1,
            Some(MultipartError::TooLarge { limit: 10 })
        ));
        for length in [0, MAX_BOUNDARY + 1] {
            let none = futures::stream::empty::<Result<Bytes, Infallible>>();
            assert!(matches!(
                Multipart::new(none, &"b".repeat(length), 1),
                Err(MultipartError::Boundary(found)) if found == length
            ));
        }
    }

    #[test]
    fn takes_the_boundary_of_orthanc_which_is_longer_than_the_rfc_allows() {
        let boundary = "9456b065-4a74-4f79-8a02-ff5b92849def-9456b065-4a74-4f79-8a02-ff5b92849def";
        let body = format!("--{boundary}\r\nA: 1\r\n\r\nx\r\n--{boundary}--");
        let (parts, error) = read(vec![Bytes::from(body)], boundary, 1000);
        assert_eq!((parts.len(), error.is_none()), (1, true));
    }

    fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Bytes from a small alphabet, so that look-alikes of the delimiter are frequent.
        let byte = prop::sample::select(b"\r\n-b x".to_vec());
        prop::collection::vec(prop::collection::vec(byte, 0..40), 1..5)
    }

    fn is_delimiter_free(data: &[u8]) -> bool {
        let framed = [b"\r\n", data, b"\r\n"].concat();
        !(0..framed.len()).any(|at| {
            framed[at..]
                .strip_prefix(b"\r\n--bb".as_slice())
                .is_some_and(|tail| delimiter_end(tail).is_some())
        })
    }

    proptest! {
        #[test]
        fn reads_the_same_parts_wherever_the_chunks_are_cut(
            parts in parts().prop_filter("holds a delimiter", |parts| parts.iter().all(|part| is_delimiter_free(part))),
            cuts in prop::collection::vec(1usize..9, 1..80),
        ) {
            let mut body = Vec::new();
            for part in &parts {
                body.extend_from_slice(b"--bb\r\nContent-Type: application/dicom\r\n\r\n");
                body.extend_from_slice(part);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"--bb--\r\n");
            let mut chunks = Vec::new();
            let mut rest = body.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(Bytes::copy_from_slice(chunk));
                rest = tail;
            }
            let (read, error) = read(chunks, "bb", 1 << 20);
            prop_assert!(error.is_none(), "{error:?}");
            prop_assert_eq!(read.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), parts);
        }

        #[test]
        fn never_panics_on_noise(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10)) {
            let chunks = chunks.into_iter().map(Bytes::from).collect();
            let _ = read(chunks, "b", 300);
        }
    }
}
