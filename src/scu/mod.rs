//! Our side as a service class user: what is asked of another application entity on an association, whoever asks.
//!
//! Deliveries, C-MOVE and C-GET send instances with [`store`]; storage commitment is worded by [`commitment`];
//! priors are found and fetched with [`retrieve`]; [`peers`] says who is where, read as [`entries`] of the file of targets are.
//! It knows no database and no archive.
//!
//! Source: PS3.4 annexes B, C and J; PS3.7 sections 9 and 10.

pub mod commitment;
pub mod entries;
pub mod peers;
pub mod retrieve;
pub mod store;
