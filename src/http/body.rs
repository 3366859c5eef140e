//! Request bodies that are more than a few fields: read within bounds, or read and dropped so that the client reads our answer.
//!
//! A server that answers and closes while the client still sends makes most clients report a broken pipe instead of
//! the answer; so what is left of a refused body is taken off the wire, within bounds.

use super::error::HttpError;
use axum::body::{Body, to_bytes};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The most that is read of a refused body; a client that sends more gets its broken pipe.
const MOST_BYTES: u64 = 256 << 20;
/// The longest that a refused body may take.
const LONGEST: Duration = Duration::from_secs(30);

/// Reads and drops a body, within bounds.
pub(super) async fn drain(body: Body) {
    let mut stream = body.into_data_stream();
    let reading = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            read += chunk.len() as u64;
            if read > MOST_BYTES {
                return;
            }
        }
    };
    // Whether it ended or the time did, there is nothing more to do.
    let _ended = tokio::time::timeout(LONGEST, reading).await;
}

/// Reads a JSON body of at most so many bytes.
///
/// # Errors
/// When it is longer, breaks off, or is not what is wanted.
pub(super) async fn json<T: DeserializeOwned>(body: Body, longest: usize) -> Result<T, HttpError> {
    let bytes = to_bytes(body, longest).await.map_err(|_| {
        let text = format!("the body breaks off, or is longer than {longest} bytes");
        HttpError::TooLarge(text)
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| HttpError::BadRequest(format!("the body is not what is taken here: {error}")))
}
