//! Attaching: launch, follow, settle and recover runs.
//!
//! **Invariant:** attach is the only way in. A new run, a run after a restart and a run whose
//! stream broke take the same path (the module `run`), so recovery is never the untested one. A run's task
//! is the only writer of its state.

mod adopt;
mod artifacts;
mod backoff;
mod budget;
mod catch_up;
mod claim;
mod committer;
mod config;
mod discover;
mod drift;
mod engine;
mod import;
mod lag;
mod launch;
mod ledger;
mod lifecycle;
mod listeners;
mod loader;
mod modes;
mod receipts;
mod run;
mod signals;
mod traces;
mod watch;

pub use artifacts::{ArtifactError, MAX_ARTIFACTS, NewArtifact};
pub use config::Config;
pub use control_plane_projection::PriceTable;
pub use drift::{Drift, DriftError, Listed, Missing, StateDrift, Untracked};
pub use engine::{AskError, Engine};
pub use import::{ImportError, Imported, import};
pub use launch::{LaunchError, Launched};
pub use lifecycle::{Changed, LifecycleError};
