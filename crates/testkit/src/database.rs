//! A database for each test: of either kind, dropped when the test passes, kept when it fails.

use std::fmt::Display;
use std::thread;

use anyhow::Result;
use control_plane_storage::{Config, DatabaseUrl, Store};
use diesel::SqliteConnection;
use diesel::connection::{Connection as _, SimpleConnection as _};
use tempfile::TempDir;
use url::Url;

use crate::postgres;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Sqlite,
}

impl Kind {
    /// Both, for tests that must hold on either.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];
}

/// A database of its own, with the newest schema.
#[derive(Debug)]
pub struct TestDb {
    url: String,
    kind: Kind,
    home: Option<Home>,
}

#[derive(Debug)]
enum Home {
    Postgres { server: Url, url: Url },
    Sqlite(TempDir),
}

impl TestDb {
    /// A migrated database of this kind.
    ///
    /// # Panics
    /// When it cannot be made; for PostgreSQL, when `TEST_DATABASE_URL` is not set.
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => Self::postgres(),
            Kind::Sqlite => Self::sqlite(),
        }
    }

    /// A migrated PostgreSQL database, cloned from a template.
    ///
    /// # Panics
    /// When it cannot be made, or `TEST_DATABASE_URL` is not set.
    pub fn postgres() -> Self {
        let server = postgres::server();
        let at = server.clone();
        let url = block(async move || postgres::create_migrated(&at).await);
        Self::of_postgres(server, url)
    }

    /// A PostgreSQL database without any table.
    ///
    /// # Panics
    /// When it cannot be made, or `TEST_DATABASE_URL` is not set.
    pub fn postgres_empty() -> Self {
        let server = postgres::server();
        let at = server.clone();
        let url = block(async move || postgres::create_empty(&at).await);
        Self::of_postgres(server, url)
    }

    /// A migrated SQLite database in a temporary folder.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn sqlite() -> Self {
        let database = Self::sqlite_empty();
        let url = database.url.clone();
        block(async move || postgres::migrate(&url).await);
        database
    }

    /// The place of a SQLite database that does not exist yet.
    ///
    /// # Panics
    /// When there is no temporary folder.
    pub fn sqlite_empty() -> Self {
        let folder = TempDir::with_prefix("macp-sqlite-")
            .unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self { url, kind: Kind::Sqlite, home: Some(Home::Sqlite(folder)) }
    }

    fn of_postgres(server: Url, url: Url) -> Self {
        let home = Some(Home::Postgres { server, url: url.clone() });
        Self { url: url.into(), kind: Kind::Postgres, home }
    }

    /// What goes into `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Which database it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The settings of a store on it.
    ///
    /// # Panics
    /// Never for a URL that was made here.
    pub fn config(&self) -> Config {
        let url = DatabaseUrl::parse(&self.url);
        Config::new(url.unwrap_or_else(|error| panic!("{}: {error}", self.url)))
    }

    /// Does something to a database behind the stores' backs.
    ///
    /// # Panics
    /// When it fails.
    pub async fn tamper(&self, statement: &str) {
        let done = match &self.home {
            Some(Home::Postgres { url, .. }) => postgres::execute(url, statement).await,
            Some(Home::Sqlite(_)) | None => self.tamper_sqlite(statement),
        };
        done.unwrap_or_else(|error| panic!("{statement}: {error:#}"));
    }

    fn tamper_sqlite(&self, statement: &str) -> Result<()> {
        let path = self.url.trim_start_matches("sqlite://");
        let mut connection = SqliteConnection::establish(path)?;
        connection.batch_execute("PRAGMA busy_timeout = 5000")?;
        Ok(connection.batch_execute(statement)?)
    }

    /// A store on it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn store(&self) -> Store {
        let store = Store::connect(&self.config());
        store.unwrap_or_else(|error| panic!("{} cannot be opened: {error}", self.url))
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        if thread::panicking() {
            match home {
                Home::Postgres { url, .. } => crate::say(&format!("the database is kept: {url}")),
                Home::Sqlite(folder) => {
                    let folder = folder.keep();
                    crate::say(&format!("the database is kept in {}", folder.display()));
                }
            }
            return;
        }
        if let Home::Postgres { server, url } = home {
            block(async move || postgres::drop_database(&server, &url).await);
        }
    }
}

/// Runs it on a thread and a runtime of its own, so that it fits every kind of test.
fn block<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: AsyncFnOnce() -> Result<T> + Send + 'static,
{
    let thread = thread::spawn(move || {
        // Several threads, because migrating blocks one.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap_or_else(|error| fail(&error));
        runtime.block_on(work()).unwrap_or_else(|error| fail(&format!("{error:#}")))
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn fail(error: &impl Display) -> ! {
    panic!("the test's database: {error}")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Whether a store can be opened at a URL without making anything.
    fn exists(url: &str) -> bool {
        match url.strip_prefix("sqlite://") {
            Some(path) => std::path::Path::new(path).exists(),
            None => {
                let url = url.to_owned();
                block(async move || Ok(tokio_postgres::connect(&url, tokio_postgres::NoTls).await))
                    .is_ok()
            }
        }
    }

    #[test]
    fn a_database_is_migrated_and_gone_after_its_test() {
        for kind in Kind::ALL {
            let database = TestDb::new(kind);
            let url = database.url().to_owned();
            let store = database.store();
            let pending = block(async move || Ok(store.migrations_pending().await?));

            assert!(!pending, "{kind:?}");
            assert!(exists(&url), "{kind:?}");
            drop(database);
            assert!(!exists(&url), "{kind:?}");
        }
    }

    #[test]
    fn a_database_is_kept_when_its_test_fails() {
        for kind in Kind::ALL {
            let (sender, receiver) = mpsc::channel();
            let failing = thread::spawn(move || {
                let database = TestDb::new(kind);
                sender.send(database.url().to_owned()).unwrap();
                panic!("a test that fails");
            });
            assert!(failing.join().is_err());
            let url = receiver.recv().unwrap();

            assert!(exists(&url), "{kind:?}");
            clean_up(&url);
        }
    }

    fn clean_up(url: &str) {
        match url.strip_prefix("sqlite://") {
            Some(path) => {
                let folder = std::path::Path::new(path).parent().unwrap();
                std::fs::remove_dir_all(folder).unwrap();
            }
            None => {
                let (server, url) = (postgres::server(), Url::parse(url).unwrap());
                block(async move || postgres::drop_database(&server, &url).await);
            }
        }
    }

    #[tokio::test]
    async fn a_database_can_be_made_inside_of_a_runtime() {
        let database = TestDb::sqlite();

        assert!(database.store().ping().await.is_ok());
    }
}
