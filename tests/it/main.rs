//! Integration tests: real components, one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod api;
mod assemble;
mod audit;
mod commitment;
mod correction;
mod coverage;
mod deliver;
mod deliver_server;
mod deliver_support;
mod dicom;
mod dimse;
mod dimse_query;
mod dimse_retrieve;
mod dimse_support;
mod dimse_tls;
mod encode;
mod fetch;
mod import;
mod networks;
mod nnunet;
mod placement;
mod private_postgres;
mod qido;
mod queue;
mod receive;
mod replay;
mod resampling;
mod review;
mod series;
mod stow;
mod support;
mod syntaxes;
mod wado;
mod web;
