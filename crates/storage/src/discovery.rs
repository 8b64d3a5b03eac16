//! Sessions that the runtime has, held against the runs that we have.
//!
//! **Invariant:** a session has one run, whoever makes it first. A run that discovery made belongs to
//! nobody until somebody posts its session; whoever does that first gets it, and the others are told
//! that it is taken. Both are decided by the database.

use std::collections::{HashMap, HashSet};

use control_plane_domain::{RunId, RunState, SessionId, SessionState, Timestamp};
use serde_json::Value;

use crate::error::Result;
use crate::model::{Lease, NewRun};
use crate::store::{Backend, Store};

/// What is known of some sessions.
#[derive(Debug, Clone, Default)]
pub struct KnownSessions {
    /// Those that have a run.
    pub runs: HashMap<SessionId, (RunId, RunState)>,
    /// Those whose run was deleted, and that have none now.
    pub deleted: HashSet<SessionId>,
    /// Those that have a run which is only read here: it was imported.
    pub imported: HashSet<SessionId>,
    /// Ids of runs that are ids of these sessions, too.
    pub ids: HashSet<RunId>,
}

/// A run that is not over, and its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveSession {
    pub run_id: RunId,
    pub state: RunState,
    pub session_id: SessionId,
    pub session_state: SessionState,
    /// Whether the session was seen; otherwise the run waits for it.
    pub bound: bool,
}

/// What somebody posted for a session that discovery found before.
#[derive(Debug, Clone, PartialEq)]
pub struct Adoption {
    pub request_hash: String,
    pub idempotency_key: Option<String>,
    /// The kind of the inbox item by which the run's owner learns of it.
    pub kind: &'static str,
    /// The key of that item. A run is adopted once.
    pub dedup_key: String,
    pub payload: Value,
    pub now: Timestamp,
}

/// What [`Store::run_adopt`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// The run is the caller's.
    Done,
    /// It was somebody's already.
    Taken,
    /// It failed before it saw its session, and stands in nobody's way any more.
    Released,
}

impl Store {
    /// Which of these sessions have a run, or had one that was deleted.
    pub async fn sessions_known(&self, ids: &[SessionId]) -> Result<KnownSessions> {
        let ids = ids.to_vec();
        read!(self, discovery::known(&ids))
    }

    /// Records runs for sessions that nobody registered, all in one transaction. The result has the
    /// leases of those that are new and ours; a session that has a run already, or whose run was
    /// deleted, gets none.
    ///
    /// # Errors
    /// Those of the database; after one that [is transient](crate::Error::is_transient) some may be
    /// recorded, and [`Store::run_retake`] of their first epoch tells.
    pub async fn runs_discover(&self, new: Vec<NewRun>) -> Result<Vec<Lease>> {
        self.task(move |store: Self| async move {
            let owner = store.0.instance;
            if let Backend::Postgres(db) = &store.0.backend {
                db.hold_once(owner).await?;
            }
            let entries = change!(store, discovery::create_all(new, owner))?;
            let mut leases = Vec::with_capacity(entries.len());
            for (run_id, entries) in entries {
                if let Some(last) = entries.last() {
                    store.tell(|news| news.wrote(run_id, last.seq, last.position));
                }
                store.0.hub.publish(run_id, entries.into_iter());
                leases.push(Lease { run_id, epoch: 1 });
            }
            store.feed_news();
            Ok(leases)
        })
        .await
    }

    /// Gives a run that discovery made to whoever posted its session, and tells its owner.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is no such run, [`crate::Error::Refused`] when the
    /// idempotency key is taken by now, and those of the database.
    pub async fn run_adopt(&self, id: RunId, adoption: Adoption) -> Result<Adopted> {
        self.task(move |store: Self| async move {
            let adopted = change!(store, discovery::adopt(id, &adoption))?;
            if matches!(adopted, Adopted::Done) {
                store.tell(|news| news.asked.extend([id]));
            }
            Ok(adopted)
        })
        .await
    }

    /// At most `limit` runs that are not over, after the run `after`, in the order of their ids.
    pub async fn active_sessions(
        &self,
        after: Option<RunId>,
        limit: i64,
    ) -> Result<Vec<ActiveSession>> {
        read!(self, discovery::active(after, limit))
    }
}
