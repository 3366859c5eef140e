//! ictus: head CT in, masks with honest uncertainty out, beside a hospital's PACS.
//!
//! This page is the architecture.
//! `tests/architecture.rs` keeps the module graph below as a table and reads the sources: a new edge is an edit there.
//!
//! # The flow
//!
//! ```text
//!   http::dicomweb (STOW-RS)     dimse (C-STORE), fetch (by rule)
//!            └───────────┬───────────┘
//!                     receive ──► archive (Part 10 files) + db (index, job, audit row), one commit
//!                        │ job claimed
//!                     worker ──► analysis::run
//!                                  assemble ► preprocess ► infer ► uncertainty ► postprocess ► encode
//!                        │
//!   archive + db (analysis, findings, alert, outbox, audit row), one commit
//!                        ├──► deliver (STOW-RS, C-STORE, webhook, HL7, FHIR, folder) ──► PACS, archives, people
//!                        │
//!   http::api, http::dicomweb (QIDO-RS, WADO-RS) ──► web/ and everybody else
//!   http::dicomweb (UPS-RS) ◄──► workitem ◄──► task managers, who schedule what a worker does
//!   dimse (C-FIND, C-MOVE, C-GET) ──► PACS, workstations
//! ```
//!
//! An analysis is six plain functions; [`analysis::run`] calls them in order.
//! `ictus analyze` calls it without a server, [`train::evaluation`] without DICOM.
//!
//! # Who may use whom
//!
//! Edges ([`http`], [`dimse`], [`adt`], [`fetch`]) → services ([`receive`], [`worker`], [`deliver`], [`review`], [`identity`], [`workitem`], [`audit`], [`train`], [`import`]) → [`analysis`] and state ([`archive`], [`db`]) → tools ([`dicom`], [`association`], [`scu`], [`hl7`], [`nifti`], [`nn`]) → words ([`domain`]).
//! Services never use each other: they meet in the database.
//! `domain`, `dicom`, `nifti`, `nn`, `analysis`, `train` and `import` are a package of their own (`compute.rs`, `compute/Cargo.toml`), the only one that a debug build optimises; they know nothing of a server.
//! Only `http` knows axum, only `association` the DICOM upper layer and only `scu`, `dimse` and `deliver` use it, with `fetch`, only `db` knows SQL and the queue, only `nn`, `analysis::infer`, `train` and `import` know candle.
//!
//! # What must hold
//!
//! 1. A stage is a function of its arguments: no clock, no chance, no files, no database. A stage never uses another.
//! 2. Only `assemble` turns stored values into HU; only `preprocess` changes geometry, and each change is in the [`domain::trace::SpatialTrace`] that leads back.
//! 3. What is not understood is refused with a reason code; a mask in the wrong place is worse than no mask.
//! 4. What is acknowledged is on disk (or in the bucket) and committed. Nothing in the archive is ever changed; it is removed only by a policy that says so in the trail: what nothing refers to for a day, what a quota evicts, and what an admin removes with a reason.
//! 5. An act and its audit row commit together; over an association, each instance commits with a line of a journal, of which the end of the association (or the next start) makes the one row.
//! 6. A model that does not reproduce its golden patch does not serve.
//! 7. Patient data never reaches a log line, an error message or a metric.
//!
//! # Walkthroughs
//!
//! *A slice arrives.* `http::dicomweb::stow` reads a part and streams it to [`receive`], which hashes it into a staging file, checks it, moves it to its digest's name in [`archive`], and writes index row, job and audit row in one transaction; then the sender is answered.
//! Over DIMSE it is the same service, one transaction an instance, because a sender waits for each answer.
//!
//! *A result leaves.* [`worker`] commits an analysis together with one row of the outbox a target.
//! [`deliver`] claims the row under a lease, sends what the target has not got yet, and notes what it said of each instance, with its row of the trail; a row that is superseded meanwhile is withdrawn by the transaction of its successor.
//!
//! *A patient is renamed.* [`adt`] reads the hospital's message; [`identity`] relabels index and worklist, notes what is handed out instead of what is stored, and files what the targets had again, in one transaction with its row of the trail.
//!
//! *A workitem is performed.* `http::dicomweb` takes it from a task manager; [`workitem`] claims it when its images are there and asks the queue for their analysis, or finds the one that holds.
//! When a job has looked at the study since, the workitem ends with the results or with the reason; subscribers hear each step over a WebSocket, filed in the transaction of the step.
//!
//! *A mask is placed.* [`analysis::assemble`] orders the slices along their normal and keeps each one's own origin, so tilt and uneven steps need no resampling.
//! [`analysis::preprocess`] lays one map a plane axis to the network's 1 mm grid; [`analysis::infer`] runs the members on it; [`analysis::uncertainty`] brings each member's logits back through the same map before it accumulates them; [`analysis::postprocess`] measures on the source grid; [`analysis::encode`] writes frames that name their source instance.

pub use ictus_compute::{analysis, dicom, domain, import, nifti, nn, train};

pub mod adt;
pub mod archive;
pub mod association;
pub mod audit;
pub mod config;
pub mod db;
pub mod deliver;
pub mod dimse;
pub mod fetch;
pub mod hl7;
pub mod http;
pub mod identity;
pub mod receive;
pub mod review;
pub mod scu;
pub mod telemetry;
pub mod worker;
pub mod workitem;
