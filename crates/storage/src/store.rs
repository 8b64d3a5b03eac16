//! The public face: everything that the rest of the system asks of a database.
//!
//! **Invariant:** a write runs in a task of its own, so that a caller that goes away never leaves
//! half a transaction behind; and what is published to followers was committed before.

use std::future::Future;
use std::sync::Arc;

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Ordinal, Position, Run, RunId, Seq, Session, SessionId};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::config::{Config, DatabaseUrl};
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::model::{
    Artifact, Created, EventFilter, Head, LogEntry, NewRun, Page, ProjectionRow, RawEnvelope,
    RunFilter,
};
use crate::news::{Ears, Outgoing};
use crate::postgres::Postgres;
use crate::sqlite::Sqlite;
use crate::tail::{Follower, Hub};

/// A database of runs. Cloning it is cheap; the clones share everything.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) hub: Hub,
    pub(crate) feed: Feed,
    pub(crate) outgoing: Outgoing,
    pub(crate) ears: Ears,
    /// The number under which this process is alive, and owns runs.
    pub(crate) instance: i64,
    home: Home,
}

pub(crate) enum Backend {
    Postgres(Box<Postgres>),
    Sqlite(Box<Sqlite>),
}

/// The runtime that a store lives on; if it was opened outside of any, that of each caller.
#[derive(Clone)]
pub(crate) struct Home(Option<Handle>);

impl Home {
    fn here() -> Self {
        Self(Handle::try_current().ok())
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match &self.0 {
            Some(handle) => handle.spawn(work),
            None => tokio::spawn(work),
        }
    }
}

impl Store {
    /// Opens a store. PostgreSQL is connected to at the first query; SQLite is locked here.
    ///
    /// Its connections and its writes live on the runtime that this is called on, whoever asks for
    /// them: a caller's runtime may end before they do.
    ///
    /// # Errors
    /// [`Error::Config`] when the settings make no sense or another process has the file.
    pub fn connect(config: &Config) -> Result<Self> {
        let home = Home::here();
        let backend = match &config.url {
            DatabaseUrl::Postgres(url) => {
                Backend::Postgres(Box::new(Postgres::new(url, config, home.clone())?))
            }
            DatabaseUrl::Sqlite(path) => Backend::Sqlite(Box::new(Sqlite::new(path, config)?)),
        };
        let instance = i64::from_be_bytes(rand::random::<[u8; 8]>()) & i64::MAX;
        let (hub, feed) = (Hub::new(config.tail), Feed::new(config.feed));
        let (outgoing, ears) = (Outgoing::default(), Ears::default());
        let inner = Inner { backend, hub, feed, outgoing, ears, instance, home };
        let store = Self(Arc::new(inner));
        if let Backend::Postgres(db) = &store.0.backend {
            // The connection is the store's own, so it must not keep the store alive.
            let inner = Arc::downgrade(&store.0);
            db.tell(Arc::new(move |heard| {
                if let Some(inner) = inner.upgrade() {
                    Self(inner).hear(heard);
                }
            }));
        }
        Ok(store)
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

    /// The run of a session, if there is one.
    pub async fn run_by_session(&self, session: &SessionId) -> Result<Option<Run>> {
        let session = session.clone();
        read!(self, runs::by_session(&session))
    }

    /// A page of runs, with the number of all that match.
    pub async fn run_list(&self, filter: &RunFilter) -> Result<Page<Run>> {
        let filter = filter.clone();
        read!(self, runs::list(&filter))
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
    ///
    /// A whole log, page by page, with its hash chain checked:
    ///
    /// ```
    /// use control_plane_domain::event::ChainHash;
    ///
    /// # use control_plane_storage::{Config, DatabaseUrl, Store};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", folder.path().join("a.db").display());
    /// # let store = Store::connect(&Config::new(DatabaseUrl::parse(&url)?))?;
    /// # store.migrate().await?;
    /// # let run_id = control_plane_domain::RunId::random();
    /// let (mut after, mut head) = (0, ChainHash::EMPTY);
    /// loop {
    ///     let page = store.list_canonical_range(run_id, after, 1000).await?;
    ///     for event in &page {
    ///         head = head.then(std::str::from_utf8(&event.body)?);
    ///         assert_eq!(event.hash, head, "event {} was changed", event.seq);
    ///         after = event.seq;
    ///     }
    ///     if page.is_empty() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
        let filter = filter.clone();
        read!(self, events::list(&filter))
    }

    /// At most `limit` session envelopes of a run after ordinal `after`, in order.
    ///
    /// Ordinals that are missing between two envelopes were accepted by the runtime and could not be
    /// read any more:
    ///
    /// ```
    /// # use control_plane_storage::{Config, DatabaseUrl, Store};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", folder.path().join("a.db").display());
    /// # let store = Store::connect(&Config::new(DatabaseUrl::parse(&url)?))?;
    /// # store.migrate().await?;
    /// # let run_id = control_plane_domain::RunId::random();
    /// let mut next = 1;
    /// for raw in store.list_raw_by_run(run_id, 0, 1000).await? {
    ///     let ordinal = raw.ordinal.unwrap_or(next);
    ///     if ordinal > next {
    ///         println!("{next} to {} are missing", ordinal - 1);
    ///     }
    ///     println!("{ordinal} {} of {}", raw.envelope.message_type, raw.envelope.sender);
    ///     next = ordinal + 1;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_raw_by_run(
        &self,
        id: RunId,
        after: Ordinal,
        limit: i64,
    ) -> Result<Vec<RawEnvelope>> {
        read!(self, raw::range(id, after, limit))
    }

    /// A run's last session envelope.
    pub async fn envelope_last(&self, id: RunId) -> Result<Option<RawEnvelope>> {
        read!(self, raw::last(id))
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
        self.task(move |store: Self| async move { change!(store, derived::projection_put(&row)) })
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

    /// Follows a run's log after `after`: what is there first, then what comes.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use control_plane_storage::{Config, DatabaseUrl, Store};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", folder.path().join("a.db").display());
    /// # let store = Store::connect(&Config::new(DatabaseUrl::parse(&url)?))?;
    /// # store.migrate().await?;
    /// # let run_id = control_plane_domain::RunId::random();
    /// let mut follower = store.follow(run_id, 0);
    /// // `next` waits, and may be dropped at any time: nothing is lost.
    /// let news = tokio::time::timeout(Duration::from_millis(20), follower.next(100)).await;
    /// match news {
    ///     Ok(events) => println!("{} events, up to {}", events?.len(), follower.cursor()),
    ///     Err(_elapsed) => println!("nothing after {}", follower.cursor()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
            if let Backend::Postgres(db) = &store.0.backend {
                db.hold_once(owner).await?;
            }
            let (created, entries) = change!(store, create::create(new, owner))?;
            if let Some(last) = entries.last() {
                store.tell(|news| news.wrote(run_id, last.seq, last.position));
            }
            store.0.hub.publish(run_id, entries.into_iter());
            store.feed_news();
            Ok(created)
        })
        .await
    }

    /// Runs work in a task of its own: the caller may go away, the work ends all the same.
    pub(crate) async fn task<T, W, F>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.start(work).await.map_err(|_ended| Error::Task)?
    }

    /// Starts work that somebody waits for later.
    pub(crate) fn start<T, W, F>(&self, work: W) -> JoinHandle<Result<T>>
    where
        T: Send + 'static,
        W: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let store = self.clone();
        // The work is made where it is done: a caller's thread does not make room for it, which a
        // server with thousands of idle connections between such pieces would keep.
        self.0.home.spawn(async move { Box::pin(work(store)).await })
    }

    /// Starts work that nobody waits for.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.home.spawn(work);
    }

    pub(crate) fn postgres(&self) -> Result<&Postgres> {
        match &self.0.backend {
            Backend::Postgres(db) => Ok(db),
            Backend::Sqlite(_) => Err(Error::Config("this is not PostgreSQL".to_owned())),
        }
    }

    pub(crate) fn sqlite(&self) -> Result<&Sqlite> {
        match &self.0.backend {
            Backend::Sqlite(db) => Ok(db),
            Backend::Postgres(_) => Err(Error::Config("this is not SQLite".to_owned())),
        }
    }
}
