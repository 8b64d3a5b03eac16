//! Loading a run that another server recorded, to be read here.
//!
//! **Invariant:** an imported run is there as a whole or not at all, and from its first moment on it
//! says that it was imported: nobody follows it, nothing is asked of it, and its events have no
//! place in the feed.

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Run, Session};
use tokio::sync::mpsc::Receiver;

use crate::error::Result;
use crate::model::{Artifact, LogEntry, ProjectionRow, RawEnvelope, SnapshotRow};
use crate::store::Store;

/// What there is one of in an imported run.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedRun {
    /// With `imported_at`, and `last_seq` as its log will be.
    pub run: Run,
    pub session: Option<Session>,
    /// The log's head.
    pub chain: ChainHash,
    pub metrics: RunMetrics,
}

/// What there is much of: it comes in pages.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportPage {
    Artifacts(Vec<Artifact>),
    Events(Vec<LogEntry>),
    Envelopes(Vec<RawEnvelope>),
    /// States on the way that are kept.
    Snapshots(Vec<SnapshotRow>),
    /// The state at the end. It is the last page: without it nothing is written.
    End(Box<ProjectionRow>),
}

impl ImportPage {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Artifacts(items) => items.is_empty(),
            Self::Events(items) => items.is_empty(),
            Self::Envelopes(items) => items.is_empty(),
            Self::Snapshots(items) => items.is_empty(),
            Self::End(_) => false,
        }
    }
}

impl Store {
    /// Writes a run with its pages, in one transaction that lasts until [`ImportPage::End`] comes.
    /// Meanwhile SQLite writes nothing else.
    ///
    /// # Errors
    /// [`crate::Error::SessionTaken`] when there is a run of this id or of its session,
    /// [`crate::Error::Refused`] when the pages end without the last one, and those of the database.
    pub async fn run_import(&self, new: ImportedRun, pages: Receiver<ImportPage>) -> Result<()> {
        self.task(move |store: Self| async move {
            let mut pages = pages;
            change!(store, imports::import(&new, &mut pages))
        })
        .await
    }
}
