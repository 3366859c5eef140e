//! The frames in which HL7 v2 messages travel over TCP: VT, the message, FS, CR.
//!
//! Source: HL7 Lower Layer Protocol, appendix C; IHE ITI TF-2 annex C.2.1.

use super::Hl7Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

/// Start of a block.
const START: u8 = 0x0B;
/// End of a block.
const END: u8 = 0x1C;
/// Longest message that is read: an ADT has some kilobytes.
pub const MOST_BYTES: usize = 1 << 20;

/// Reads one framed message; nothing when the other side has closed the connection between two.
///
/// # Errors
/// When the bytes are no frame, the frame is too long, or the connection fails.
pub async fn read<R: AsyncBufRead + Unpin>(from: &mut R) -> Result<Option<Vec<u8>>, Hl7Error> {
    let failed = |error: std::io::Error| Hl7Error::Connection(error.kind());
    let mut message = Vec::new();
    let mut started = false;
    loop {
        let chunk = from.fill_buf().await.map_err(failed)?;
        if chunk.is_empty() {
            return if started {
                Err(Hl7Error::Frame("the connection ended within a message"))
            } else {
                Ok(None)
            };
        }
        let mut used = 0;
        let mut ended = false;
        for byte in chunk {
            used += 1;
            match (started, *byte) {
                (false, START) => started = true,
                (false, b'\r' | b'\n') => {}
                (false, _) => return Err(Hl7Error::Frame("a message does not begin with VT (0B)")),
                (true, END) => {
                    ended = true;
                    break;
                }
                (true, byte) => message.push(byte),
            }
        }
        from.consume(used);
        if ended {
            // The CR after FS is taken with the next message, if it comes at all.
            return Ok(Some(message));
        }
        if message.len() > MOST_BYTES {
            return Err(Hl7Error::TooLong(MOST_BYTES));
        }
    }
}

/// Writes one framed message.
///
/// # Errors
/// When the connection fails.
pub async fn write<W: AsyncWrite + Unpin>(to: &mut W, message: &[u8]) -> Result<(), Hl7Error> {
    let failed = |error: std::io::Error| Hl7Error::Connection(error.kind());
    let mut frame = Vec::with_capacity(message.len() + 3);
    frame.push(START);
    frame.extend_from_slice(message);
    frame.extend_from_slice(&[END, b'\r']);
    to.write_all(&frame).await.map_err(failed)?;
    to.flush().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_back_one_by_one_and_what_is_no_frame_is_refused() {
        let mut bytes = Vec::new();
        write(&mut bytes, b"MSH|one").await.unwrap();
        write(&mut bytes, b"MSH|two").await.unwrap();
        let mut from = tokio::io::BufReader::with_capacity(3, &bytes[..]);
        assert_eq!(read(&mut from).await.unwrap().unwrap(), b"MSH|one");
        assert_eq!(read(&mut from).await.unwrap().unwrap(), b"MSH|two");
        assert!(read(&mut from).await.unwrap().is_none());
        for (bytes, words) in [
            (&b"GET / HTTP/1.1"[..], "begin with VT"),
            (b"\x0bMSH", "ended within"),
        ] {
            let said = read(&mut &bytes[..]).await.unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
        let long = [&[START][..], &vec![b'x'; MOST_BYTES + 2]].concat();
        assert!(matches!(read(&mut &long[..]).await, Err(Hl7Error::TooLong(_))));
    }
}
