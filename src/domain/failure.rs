//! How a failure is treated, whoever reports it.

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
