//! The public face: everything that the rest of the system asks of a database.
//!
//! **Invariant:** a write runs in a task of its own, so that a caller that goes away never leaves
//! half a transaction behind; and what is published to followers was committed before.

use std::future::Future;
use std::sync::Arc;

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Ordinal, Position, Run, RunId, Seq, Session, SessionId, Timestamp};
use serde_json::Value;

use crate::config::{Config, DatabaseUrl};
use crate::error::{Error, Result};
use crate::model::{
    Artifact, Created, EventFilter, Head, InboxItem, Lease, LogEntry, NewRun, Page, ProjectionRow,
    RawEnvelope, RunFilter,
};
use crate::postgres::{self, Postgres};
use crate::sqlite::{self, Sqlite};
use crate::tail::{Follower, Hub};

/// A database of runs. Cloning it is cheap; the clones share everything.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) hub: Hub,
    /// The number under which this process is alive, and owns runs.
    instance: i64,
}

pub(crate) enum Backend {
    Postgres(Postgres),
    Sqlite(Sqlite),
}

/// Runs one query of the shared modules on a connection that reads.
macro_rules! read {
    ($self:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {
        match &$self.0.backend {
            Backend::Postgres(db) => {
                let done = postgres::$module::$function(&mut *db.read().await?, $($argument),*).await;
                match done {
                    // The server was restarted while the connection was idle: a read is free to
                    // try another one.
                    Err(Error::Unavailable(_)) => {
                        postgres::$module::$function(&mut *db.read().await?, $($argument),*).await
                    }
                    settled => settled,
                }
            }
            Backend::Sqlite(db) => {
                let mut reader = db.read().await?;
                let done = sqlite::$module::$function(reader.connection()?, $($argument),*).await;
                reader.settle(&done);
                done
            }
        }
    };
}

/// The same on a connection that writes. The caller is already in a task of its own.
macro_rules! write {
    ($store:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {
        match &$store.0.backend {
            Backend::Postgres(db) => {
                postgres::$module::$function(&mut *db.write().await?, $($argument),*).await
            }
            Backend::Sqlite(db) => {
                let mut writer = db.write().await?;
                let done =
                    sqlite::$module::$function(writer.connection()?, $($argument),*).await;
                writer.settle(&done);
                done
            }
        }
    };
}

impl Store {
    /// Opens a store. PostgreSQL is connected to at the first query; SQLite is locked here.
    ///
    /// # Errors
    /// [`Error::Config`] when the settings make no sense or another process has the file.
    pub fn connect(config: &Config) -> Result<Self> {
        let backend = match &config.url {
            DatabaseUrl::Postgres(url) => Backend::Postgres(Postgres::new(url, config)?),
            DatabaseUrl::Sqlite(path) => Backend::Sqlite(Sqlite::new(path, config)?),
        };
        let instance = i64::from_be_bytes(rand::random::<[u8; 8]>()) & i64::MAX;
        Ok(Self(Arc::new(Inner { backend, hub: Hub::default(), instance })))
    }

    /// `postgres` or `sqlite`.
    pub fn kind(&self) -> &'static str {
        match &self.0.backend {
            Backend::Postgres(_) => "postgres",
            Backend::Sqlite(_) => "sqlite",
        }
    }

    /// Brings the schema up to this version, under a lock.
    ///
    /// # Errors
    /// [`Error::Migration`], or [`Error::Unavailable`].
    pub async fn migrate(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Postgres(db) => db.migrate().await,
            Backend::Sqlite(db) => db.migrate().await,
        }
    }

    /// Takes every migration back: an empty database is left.
    ///
    /// # Errors
    /// As [`Store::migrate`].
    pub async fn revert(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Postgres(db) => db.revert().await,
            Backend::Sqlite(db) => db.revert().await,
        }
    }

    /// Whether [`Store::migrate`] has something to do.
    ///
    /// # Errors
    /// As [`Store::migrate`].
    pub async fn migrations_pending(&self) -> Result<bool> {
        match &self.0.backend {
            Backend::Postgres(db) => db.migrations_pending().await,
            Backend::Sqlite(db) => db.migrations_pending().await,
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        read!(self, events::feed_head()).map(drop)
    }

    /// The name of this log; another one when a database was made anew.
    ///
    /// # Errors
    /// Those of the database, here and below.
    pub async fn log_id(&self) -> Result<String> {
        Ok(read!(self, events::feed_head())?.0)
    }

    /// The last position of the feed over all runs.
    pub async fn feed_end(&self) -> Result<Position> {
        Ok(read!(self, events::feed_head())?.1)
    }

    /// Loads a run.
    pub async fn run_get(&self, id: RunId) -> Result<Run> {
        read!(self, runs::get(id))
    }

    /// Loads a run by its id or its session's.
    pub async fn run_find(&self, id: &str) -> Result<Run> {
        if let Ok(run_id) = id.parse::<RunId>() {
            match self.run_get(run_id).await {
                Err(Error::NotFound { .. }) => {}
                found => return found,
            }
        }
        let session_id = SessionId::trusted(id);
        read!(self, runs::by_session(&session_id))?.ok_or_else(|| Error::run_not_found(id))
    }

    /// A page of runs, with the number of all that match.
    pub async fn run_list(&self, filter: &RunFilter) -> Result<Page<Run>> {
        read!(self, runs::list(filter))
    }

    /// How far a run is.
    pub async fn run_head(&self, id: RunId) -> Result<Head> {
        read!(self, runs::head(id))
    }

    /// A run's session.
    pub async fn session_get(&self, id: RunId) -> Result<Option<Session>> {
        read!(self, sessions::get(id))
    }

    /// At most `limit` events of a run after `after`, in order.
    pub async fn list_canonical_range(
        &self,
        id: RunId,
        after: Seq,
        limit: i64,
    ) -> Result<Vec<LogEntry>> {
        read!(self, events::range(id, after, limit))
    }

    /// The same, by a shorter name.
    pub async fn events(&self, id: RunId, after: Seq, limit: i64) -> Result<Vec<LogEntry>> {
        self.list_canonical_range(id, after, limit).await
    }

    /// A page of events of one run or of all.
    pub async fn event_list(&self, filter: &EventFilter) -> Result<Page<LogEntry>> {
        read!(self, events::list(filter))
    }

    /// At most `limit` session envelopes of a run after ordinal `after`, in order.
    pub async fn list_raw_by_run(
        &self,
        id: RunId,
        after: Ordinal,
        limit: i64,
    ) -> Result<Vec<RawEnvelope>> {
        read!(self, raw::range(id, after, limit))
    }

    /// The message ids of a run's last `limit` session envelopes, oldest first.
    pub async fn last_message_ids(&self, id: RunId, limit: i64) -> Result<Vec<String>> {
        read!(self, raw::last_message_ids(id, limit))
    }

    /// A run's snapshot, if one was taken.
    pub async fn projection_get(&self, id: RunId) -> Result<Option<ProjectionRow>> {
        read!(self, derived::projection_get(id))
    }

    /// Writes a run's snapshot, whatever was there.
    pub async fn projection_put(&self, row: ProjectionRow) -> Result<()> {
        self.task(move |store: Self| async move { write!(store, derived::projection_put(&row)) })
            .await
    }

    /// A run's figures.
    pub async fn metrics_get(&self, id: RunId) -> Result<Option<RunMetrics>> {
        read!(self, derived::metrics_get(id))
    }

    /// A run's artifacts, oldest first.
    pub async fn artifact_list(&self, id: RunId) -> Result<Vec<Artifact>> {
        read!(self, derived::artifact_list(id))
    }

    /// Follows a run's log after `after`.
    pub fn follow(&self, id: RunId, after: Seq) -> Follower {
        Follower::new(self.clone(), &self.0.hub, id, after)
    }

    /// Records a run, or finds the one that its idempotency key made.
    ///
    /// # Errors
    /// [`Error::SessionTaken`], [`Error::IdempotencyConflict`], and those of the database.
    pub async fn run_create(&self, new: NewRun) -> Result<Created> {
        self.task(move |store: Self| async move {
            let owner = store.0.instance;
            let run_id = new.run.id;
            let (created, entries) = write!(store, create::create(new, owner))?;
            store.0.hub.publish(run_id, entries.into_iter());
            Ok(created)
        })
        .await
    }

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
                    write!(store, ownership::take_over(owner, to))
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
            .task(move |store: Self| async move { write!(store, ownership::take_run(id, owner)) });
        self.0.hub.forget(id);
        taken.await?.ok_or_else(|| Error::run_not_found(id))
    }

    /// Renews a lease of our own: what was written under the old one, and is still on its way, is
    /// either in the log by then or fenced off. `None` when the run has another owner by now.
    pub async fn run_retake(&self, lease: Lease) -> Result<Option<Lease>> {
        let owner = self.0.instance;
        self.0.hub.forget(lease.run_id);
        self.task(move |store: Self| async move { write!(store, ownership::retake(lease, owner)) })
            .await
    }

    /// Parks a run, with its reason; `false` when the lease is over.
    pub async fn run_park(&self, lease: Lease, reason: String) -> Result<bool> {
        self.task(move |store: Self| async move { write!(store, ownership::park(lease, &reason)) })
            .await
    }

    /// Why a run is parked, if it is.
    pub async fn run_parked_reason(&self, id: RunId) -> Result<Option<String>> {
        read!(self, ownership::parked_reason(id))
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
            write!(store, ownership::inbox_push(id, kind, &dedup_key, &payload, now))
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

    /// Runs work in a task of its own: the caller may go away, the work ends all the same.
    pub(crate) async fn task<T, W, F>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let store = self.clone();
        tokio::spawn(work(store)).await.map_err(|_ended| Error::Task)?
    }
}
