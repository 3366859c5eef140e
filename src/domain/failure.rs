//! How a failure is treated, whoever reports it.

use std::error::Error;

/// An error and its causes in one line.
#[must_use]
pub fn sentence(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// What the caller, the queue and the operator do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The input is at fault: final, shown to the user with a reason code, never retried.
    Input,
    /// The surroundings are at fault: retried with backoff.
    Transient,
    /// We are at fault: retried once, and an alarm.
    Internal,
}
