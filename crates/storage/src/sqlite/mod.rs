//! SQLite: one writer, several readers, one process.

mod append;
mod bulk;
mod checkpoint;
mod dialect;
pub(crate) mod instances;
mod lock;
mod schema;

#[path = "../queries/artifacts.rs"]
pub(crate) mod artifacts;
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
#[path = "../queries/export.rs"]
pub(crate) mod export;
#[path = "../queries/feed.rs"]
pub(crate) mod feed;
#[path = "../queries/filing.rs"]
pub(crate) mod filing;
#[path = "../queries/imports.rs"]
pub(crate) mod imports;
#[path = "../queries/loading.rs"]
pub(crate) mod loading;
#[path = "../queries/ownership.rs"]
pub(crate) mod ownership;
#[path = "../queries/raw.rs"]
pub(crate) mod raw;
#[path = "../queries/receipts.rs"]
pub(crate) mod receipts;
#[path = "../queries/rollups.rs"]
pub(crate) mod rollups;
#[path = "../queries/runs.rs"]
pub(crate) mod runs;
#[path = "../queries/sessions.rs"]
pub(crate) mod sessions;
#[path = "../queries/signals.rs"]
pub(crate) mod signals;
#[path = "../queries/snapshots.rs"]
pub(crate) mod snapshots;
#[path = "../queries/tally.rs"]
pub(crate) mod tally;
#[path = "../queries/tickets.rs"]
pub(crate) mod tickets;
#[path = "../queries/traces.rs"]
pub(crate) mod traces;

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::{ConnectionError, ConnectionResult, SqliteConnection};
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::sync::{Mutex, MutexGuard};

use crate::config::{Access, Config, Synchronous};
use crate::error::{Error, Result};

pub(crate) use append::append;

pub(crate) type Connection = SyncConnectionWrapper<SqliteConnection>;
pub(crate) type Db = diesel::sqlite::Sqlite;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// The writer, the readers, and the lock that keeps other processes out.
pub(crate) struct Sqlite {
    /// `None` until it is needed, and after it broke.
    writer: Mutex<Option<Connection>>,
    readers: Pool<Connection>,
    path: String,
    synchronous: Synchronous,
    access: Access,
    /// Only beside a writer.
    _checkpoints: Option<checkpoint::Checkpoints>,
    /// The last to go.
    _lock: Option<lock::Lock>,
}

impl Sqlite {
    pub(crate) fn new(path: &Path, config: &Config) -> Result<Self> {
        let text = path
            .to_str()
            .ok_or_else(|| Error::Config("the database's path is not UTF-8".to_owned()))?
            .to_owned();
        let lock = match config.access {
            Access::Write => Some(lock::Lock::take(path)?),
            // SQLite would make an empty one.
            Access::Read if !path.exists() => {
                return Err(Error::Config(format!("there is no database {}", path.display())));
            }
            Access::Read => None,
        };
        let mut manager = ManagerConfig::default();
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(|path| {
            let path = path.to_owned();
            Box::pin(async move {
                // There are many of them, and the system caches the file as well.
                let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; \
                               PRAGMA cache_size = -500;";
                tokio::task::spawn_blocking(move || open(&path, pragmas))
                    .await
                    .map_err(|_join| ConnectionError::BadConnection("canceled".to_owned()))?
                    .map(SyncConnectionWrapper::new)
            })
        });
        let manager = AsyncDieselConnectionManager::new_with_config(text.clone(), manager);
        let readers = Pool::builder(manager)
            .max_size(config.pool_max)
            .wait_timeout(Some(config.pool_timeout))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|fault| Error::Config(fault.to_string()))?;
        let checkpoints = lock.is_some().then(|| checkpoint::start(text.clone()));
        Ok(Self {
            writer: Mutex::new(None),
            readers,
            _checkpoints: checkpoints,
            path: text,
            synchronous: config.synchronous,
            access: config.access,
            _lock: lock,
        })
    }

    pub(crate) async fn read(&self) -> Result<Object<Connection>> {
        self.readers.get().await.map_err(|fault| Error::Unavailable(fault.to_string()))
    }

    pub(crate) async fn write(&self) -> Result<Writer<'_>> {
        if self.access == Access::Read {
            return Err(Error::Config("this store was opened for reading".to_owned()));
        }
        let mut guard = self.writer.lock().await;
        if guard.is_none() {
            *guard = Some(SyncConnectionWrapper::new(self.open_writer().await?));
        }
        Ok(Writer(guard))
    }

    async fn open_writer(&self) -> Result<SqliteConnection> {
        let synchronous = match self.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        let pragmas = format!(
            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
             PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON; \
             PRAGMA wal_autocheckpoint = 16000; PRAGMA cache_size = -8000;"
        );
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || open(&path, &pragmas))
            .await
            .map_err(|_join| Error::Task)?
            .map_err(|fault| Error::Unavailable(fault.to_string()))
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        self.with_harness(|conn| conn.run_pending_migrations(MIGRATIONS).map(drop)).await
    }

    pub(crate) async fn revert(&self) -> Result<()> {
        self.with_harness(|conn| conn.revert_all_migrations(MIGRATIONS).map(drop)).await
    }

    pub(crate) async fn migrations_pending(&self) -> Result<bool> {
        self.with_harness(|conn| conn.has_pending_migration(MIGRATIONS)).await
    }

    async fn with_harness<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + 'static,
    ) -> Result<T> {
        let mut conn = self.open_writer().await?;
        tokio::task::spawn_blocking(move || work(&mut conn))
            .await
            .map_err(|_join| Error::Task)?
            .map_err(|fault| Error::Migration(fault.to_string()))
    }
}

/// The one writing connection, for as long as one piece of work takes.
pub(crate) struct Writer<'a>(MutexGuard<'a, Option<Connection>>);

impl Writer<'_> {
    pub(crate) fn connection(&mut self) -> Result<&mut Connection> {
        self.0.as_mut().ok_or_else(|| Error::Unavailable("the writer is closed".to_owned()))
    }

    /// Drops the connection after a fault that leaves open what state its transaction is in.
    pub(crate) fn settle<T>(&mut self, done: &Result<T>) {
        if is_broken(done) {
            *self.0 = None;
        }
    }
}

/// Gives a reader's connection back, unless it is of no more use.
pub(crate) fn settle<T>(conn: Object<Connection>, done: &Result<T>) {
    if is_broken(done) {
        drop(Object::take(conn));
    }
}

fn is_broken<T>(done: &Result<T>) -> bool {
    matches!(done, Err(Error::Unavailable(_) | Error::Query(_)))
}

fn open(path: &str, pragmas: &str) -> ConnectionResult<SqliteConnection> {
    use diesel::Connection as _;
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute(pragmas).map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}
