//! The application's own API at `/api`: what the page shows and what it asks for.

pub mod correction;
pub mod deliveries;
pub mod events;
pub mod figures;
pub mod oidc;
pub mod presence;
pub mod revisions;
pub mod series;
pub mod session;
pub mod study;
pub mod verdict;
pub mod version;
pub mod views;
pub mod worklist;
