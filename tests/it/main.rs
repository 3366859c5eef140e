//! The integration tests, one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod api;
mod audit;
mod coverage;
mod private_postgres;
mod qido;
mod queue;
mod receive;
mod stow;
mod support;
mod wado;
mod web;
