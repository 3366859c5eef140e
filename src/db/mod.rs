//! Every SQL statement, the queue, and the private Postgres.

pub mod private;
