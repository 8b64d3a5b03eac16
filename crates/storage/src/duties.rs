//! What one instance at a time does for all of them.
//!
//! **Invariant:** a duty saves work, it protects nothing: for a moment two instances may both believe
//! that they have it. What must happen once is decided by unique keys.

use crate::error::Result;
use crate::store::{Backend, Store};

/// Work that needs one instance, whichever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Making runs of the sessions that nobody registered.
    Discovery,
    /// Recording signals.
    Signals,
    /// Fetching decision receipts.
    Receipts,
}

impl Store {
    /// Whether this instance has the duty; it takes it when nobody has. It keeps it for as long as
    /// it lives in the database's eyes, so whoever has a duty asks again every few seconds, and at
    /// once when the database was away.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] while the database is away; then nobody has the duty for sure.
    pub async fn duty_hold(&self, duty: Duty) -> Result<bool> {
        match &self.0.backend {
            Backend::Postgres(db) => db.hold_duty(self.0.instance, duty).await,
            // The file's lock lets one process write.
            Backend::Sqlite(_) => Ok(true),
        }
    }
}
