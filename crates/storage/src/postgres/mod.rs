//! PostgreSQL: connections, and what only it needs.

mod append;
mod bulk;
mod connect;
mod dialect;
pub(crate) mod instances;
mod liveness;
mod schema;

#[path = "../queries/create.rs"]
pub(crate) mod create;
#[path = "../queries/deletion.rs"]
pub(crate) mod deletion;
#[path = "../queries/derived.rs"]
pub(crate) mod derived;
#[path = "../queries/diagnosis.rs"]
pub(crate) mod diagnosis;
#[path = "../queries/discovery.rs"]
pub(crate) mod discovery;
#[path = "../queries/events.rs"]
pub(crate) mod events;
#[path = "../queries/feed.rs"]
pub(crate) mod feed;
#[path = "../queries/filing.rs"]
pub(crate) mod filing;
#[path = "../queries/loading.rs"]
pub(crate) mod loading;
#[path = "../queries/ownership.rs"]
pub(crate) mod ownership;
#[path = "../queries/raw.rs"]
pub(crate) mod raw;
#[path = "../queries/runs.rs"]
pub(crate) mod runs;
#[path = "../queries/sessions.rs"]
pub(crate) mod sessions;
#[path = "../queries/signals.rs"]
pub(crate) mod signals;
#[path = "../queries/snapshots.rs"]
pub(crate) mod snapshots;
#[path = "../queries/tickets.rs"]
pub(crate) mod tickets;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use diesel::ConnectionError;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::sync::Mutex;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Home;

pub(crate) use append::append;
use liveness::{Ears, Liveness};
pub(crate) use liveness::{Heard, TAKERS};

pub(crate) type Connection = AsyncPgConnection;
pub(crate) type Db = diesel::pg::Pg;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
/// The advisory lock of migrations: any fixed number will do.
const MIGRATION_LOCK: i64 = 0x6d61_6370_0000_0001;

/// Most appends at once.
const APPENDERS: usize = 2;

/// Two pools, and the connection that keeps our advisory locks.
pub(crate) struct Postgres {
    pool: Pool<Connection>,
    /// For appends alone: however many wait for an answer, what comes in is recorded.
    appenders: Pool<Connection>,
    url: String,
    /// Shows for as long as we live that we do.
    liveness: Mutex<Liveness>,
    /// Who is told of hints.
    ears: OnceLock<Arc<Ears>>,
}

impl Postgres {
    pub(crate) fn new(url: &str, config: &Config, home: Home) -> Result<Self> {
        connect::check(url)?;
        Ok(Self {
            pool: pool(url, config, &home, config.pool_max)?,
            appenders: pool(url, config, &home, APPENDERS)?,
            url: url.to_owned(),
            liveness: Mutex::default(),
            ears: OnceLock::new(),
        })
    }

    pub(crate) async fn appender(&self) -> Result<Object<Connection>> {
        self.appenders.get().await.map_err(|fault| Error::Unavailable(chain(&fault)))
    }

    /// Hints are told to `ears` from now on.
    pub(crate) fn tell(&self, ears: Arc<Ears>) {
        // The store does this once, when it is opened.
        let _ = self.ears.set(ears);
    }

    pub(crate) async fn connection(&self) -> Result<Object<Connection>> {
        self.pool.get().await.map_err(|fault| Error::Unavailable(chain(&fault)))
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        self.with_migration_lock(|harness| harness.run_pending_migrations(MIGRATIONS).map(drop))
            .await
    }

    pub(crate) async fn revert(&self) -> Result<()> {
        self.with_migration_lock(|harness| harness.revert_all_migrations(MIGRATIONS).map(drop))
            .await
    }

    pub(crate) async fn migrations_pending(&self) -> Result<bool> {
        let conn = connect::establish(self.url.clone()).await.map_err(unavailable)?;
        let work = tokio::task::spawn_blocking(move || {
            AsyncMigrationHarness::new(conn).has_pending_migration(MIGRATIONS)
        });
        work.await
            .map_err(|_join| Error::Task)?
            .map_err(|fault| Error::Migration(fault.to_string()))
    }

    async fn with_migration_lock<F>(&self, work: F) -> Result<()>
    where
        F: FnOnce(
                &mut AsyncMigrationHarness<Connection>,
            ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
            + Send
            + 'static,
    {
        let mut conn = connect::establish(self.url.clone()).await.map_err(unavailable)?;
        // Released with the connection, whatever happens.
        diesel::sql_query("SELECT pg_advisory_lock($1)")
            .bind::<diesel::sql_types::BigInt, _>(MIGRATION_LOCK)
            .execute(&mut conn)
            .await?;
        let task = tokio::task::spawn_blocking(move || work(&mut AsyncMigrationHarness::new(conn)));
        task.await
            .map_err(|_join| Error::Task)?
            .map_err(|fault| Error::Migration(fault.to_string()))
    }
}

/// Connections that are opened when they are needed, at most `size`.
fn pool(url: &str, config: &Config, home: &Home, size: usize) -> Result<Pool<Connection>> {
    let mut manager = ManagerConfig::default();
    // One that is closed is never given out; a ping per checkout would be a round trip.
    manager.recycling_method = RecyclingMethod::Fast;
    // A connection is driven by the runtime that opened it, so it is opened at home.
    let home = home.clone();
    manager.custom_setup = Box::new(move |url| {
        let task = home.spawn(connect::establish(url.to_owned()));
        Box::pin(async move {
            let ended = |_| ConnectionError::BadConnection("its task ended early".to_owned());
            task.await.map_err(ended)?
        })
    });
    let manager = AsyncDieselConnectionManager::new_with_config(url, manager);
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(config.pool_timeout))
        .create_timeout(Some(config.pool_timeout.max(Duration::from_secs(5))))
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .map_err(|fault| Error::Config(fault.to_string()))
}

/// Gives a connection back, unless it broke: it may not have noticed yet.
pub(crate) fn settle<T>(conn: Object<Connection>, done: &Result<T>) {
    if let Err(Error::Unavailable(_)) = done {
        drop(Object::take(conn));
    }
}

fn unavailable(fault: ConnectionError) -> Error {
    Error::Unavailable(fault.to_string())
}

/// An error with its causes, on one line.
fn chain(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
