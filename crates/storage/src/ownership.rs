//! Who follows which run, and what others ask of it (architecture, ideas 2 and 5).
//!
//! **Invariant:** taking a run raises its epoch first, so that what its former owner still writes
//! is fenced off; and whoever asks something of a run writes a row, never the run.

use control_plane_domain::{RunId, Timestamp};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{InboxItem, Lease};
use crate::store::{Backend, Store};

impl Store {
    /// Makes this process alive for others to see, or checks that it still is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the database is away.
    pub async fn instance_hold(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Postgres(db) => db.hold(self.0.instance).await,
            Backend::Sqlite(_) => Ok(()),
        }
    }

    /// Takes every active run whose owner is dead, or that has none.
    pub async fn runs_claim(&self) -> Result<Vec<Lease>> {
        let mut leases = Vec::new();
        for owner in read!(self, ownership::active_owners())? {
            let dead = match (owner, &self.0.backend) {
                (Some(owner), _) if owner == self.0.instance => false,
                (None, _) | (Some(_), Backend::Sqlite(_)) => true,
                (Some(owner), Backend::Postgres(db)) => db.is_dead(owner).await?,
            };
            if dead {
                let to = self.0.instance;
                let taken = self.task(move |store: Self| async move {
                    change!(store, ownership::take_over(owner, to))
                });
                leases.extend(taken.await?);
            }
        }
        Ok(leases)
    }

    /// Takes one run, whoever has it: for a run that is over, or for one of our own whose
    /// in-memory state was given up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn run_take(&self, id: RunId) -> Result<Lease> {
        let owner = self.0.instance;
        let taken = self
            .task(move |store: Self| async move { change!(store, ownership::take_run(id, owner)) });
        self.0.hub.forget(id);
        taken.await?.ok_or_else(|| Error::run_not_found(id))
    }

    /// Renews a lease of our own: what was written under the old one, and is still on its way, is
    /// either in the log by then or fenced off. `None` when the run has another owner by now.
    pub async fn run_retake(&self, lease: Lease) -> Result<Option<Lease>> {
        let owner = self.0.instance;
        self.0.hub.forget(lease.run_id);
        self.task(move |store: Self| async move { change!(store, ownership::retake(lease, owner)) })
            .await
    }

    /// Parks a run, with its reason, which [`Store::run_get`] shows until it is claimed again; `false` when the lease is over.
    pub async fn run_park(&self, lease: Lease, reason: String) -> Result<bool> {
        self.task(move |store: Self| async move { change!(store, ownership::park(lease, &reason)) })
            .await
    }

    /// Asks something of a run; `false` when the same was asked already.
    pub async fn inbox_push(
        &self,
        id: RunId,
        kind: &'static str,
        dedup_key: String,
        payload: Value,
        now: Timestamp,
    ) -> Result<bool> {
        self.task(move |store: Self| async move {
            change!(store, ownership::inbox_push(id, kind, &dedup_key, &payload, now))
        })
        .await
    }

    /// What is asked of a run, oldest first.
    pub async fn inbox_list(&self, id: RunId) -> Result<Vec<InboxItem>> {
        read!(self, ownership::inbox_list(id))
    }

    /// Which runs something is asked of.
    pub async fn inbox_runs(&self) -> Result<Vec<RunId>> {
        read!(self, ownership::inbox_runs())
    }
}
