//! Read-only questions about runs: their figures, and whether their record is sound.
//!
//! **Invariant:** nothing here writes, and nothing here needs a runtime: an answer follows from
//! what is stored.

pub mod compare;
pub mod diagnosis;
pub mod integrity;
mod metrics;
pub mod signals;

pub use metrics::metrics;
