//! Who has a run, as any instance can tell from the database.
//!
//! **Invariant:** looking changes nothing: whether an instance lives is read from the locks that
//! are held, never by trying to take one.

use control_plane_domain::{EventType, Run, RunId, Session};

use crate::error::Result;
use crate::model::LogEntry;
use crate::store::{Backend, Store};

/// Who follows a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The instance that took it last; `None` when nobody did.
    pub owner: Option<Owner>,
    /// How often it changed hands.
    pub epoch: i64,
    /// How many things are asked of the run and not done yet.
    pub asked: i64,
}

/// An instance, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The number under which it is alive; another one after each start.
    pub instance: i64,
    pub alive: bool,
    /// Whether it is this process.
    pub here: bool,
}

/// A run's rows, as one statement reads them.
pub(crate) struct Rows {
    pub(crate) run: Run,
    pub(crate) session: Option<Session>,
    pub(crate) owner: Option<i64>,
    pub(crate) epoch: i64,
    pub(crate) asked: i64,
}

impl Store {
    /// A run, its session and who follows it.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], and those of the database.
    pub async fn run_ownership(&self, id: RunId) -> Result<(Run, Option<Session>, Ownership)> {
        let rows = read!(self, diagnosis::rows(id))?;
        let owner = match rows.owner {
            Some(instance) => Some(self.owner(instance).await?),
            None => None,
        };
        Ok((rows.run, rows.session, Ownership { owner, epoch: rows.epoch, asked: rows.asked }))
    }

    /// The last event of a type in a run's log. It is looked for from the log's end, so this is for
    /// what stands close to it.
    pub async fn event_last(&self, id: RunId, event_type: EventType) -> Result<Option<LogEntry>> {
        read!(self, diagnosis::last_event(id, event_type))
    }

    async fn owner(&self, instance: i64) -> Result<Owner> {
        let here = instance == self.0.instance;
        let alive = match &self.0.backend {
            Backend::Postgres(db) => db.is_held(instance).await?,
            // One process at a time has the file.
            Backend::Sqlite(_) => here,
        };
        Ok(Owner { instance, alive, here })
    }
}
