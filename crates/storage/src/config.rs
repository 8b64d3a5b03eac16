//! Which database, and how to talk to it.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// Where the data is.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `postgres://user:password@host/database?sslmode=…&sslrootcert=…`
    Postgres(String),
    /// `sqlite://relative/path.db`, `sqlite:///absolute/path.db`
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// Reads `DATABASE_URL`.
    ///
    /// # Errors
    /// [`Error::Config`] for any other scheme, or an empty path.
    pub fn parse(text: &str) -> Result<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            url::Url::parse(text)
                .map_err(|fault| Error::Config(format!("not a PostgreSQL URL: {fault}")))?;
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite://").ok_or_else(|| {
            Error::Config("the database URL must start with postgres:// or sqlite://".to_owned())
        })?;
        // SQLite would take `:memory:` and `file:…` for something else than a file's name.
        let special = path.starts_with(':') || path.starts_with("file:");
        if path.is_empty() || special || path.contains(['?', '#', '\0']) {
            return Err(Error::Config("sqlite:// must be followed by a plain path".to_owned()));
        }
        Ok(Self::Sqlite(PathBuf::from(path)))
    }

    /// `postgres` or `sqlite`, for people and labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }
}

/// A URL may hold a password.
impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres(_) => f.write_str("postgres://…"),
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}

/// What this process wants of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything. On SQLite one process at a time.
    Write,
    /// Only reading, beside a process that writes.
    Read,
}

/// How much a SQLite commit waits for (`PRAGMA synchronous`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// A commit survives a power failure.
    Full,
    /// A commit survives the process; the last ones may be lost with the power.
    Normal,
}

/// Settings of a [`crate::Store`].
#[derive(Debug, Clone)]
pub struct Config {
    pub url: DatabaseUrl,
    pub access: Access,
    /// Most connections at once (PostgreSQL), or readers (SQLite).
    pub pool_max: usize,
    /// How long a call waits for a connection.
    pub pool_timeout: Duration,
    pub synchronous: Synchronous,
    /// How much of the log of each run that is followed is kept in memory.
    pub tail: TailLimits,
    /// The same for the feed over all runs, once for all who follow it.
    pub feed: TailLimits,
}

/// How much of a log is kept in memory for those who follow it. At least one event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLimits {
    /// Most events.
    pub events: usize,
    /// Most bytes, each event in its stored form and in the one that is sent.
    pub bytes: usize,
}

impl Default for TailLimits {
    fn default() -> Self {
        Self { events: 1024, bytes: 2 * 1024 * 1024 }
    }
}

impl Config {
    /// The defaults: 10 connections, 5 s, durable commits.
    pub fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            access: Access::Write,
            pool_max: 10,
            pool_timeout: Duration::from_secs(5),
            synchronous: Synchronous::Full,
            tail: TailLimits::default(),
            feed: TailLimits { events: 4096, bytes: 4 * 1024 * 1024 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_is_postgres_or_a_path() {
        assert_eq!(
            DatabaseUrl::parse("sqlite://data/a.db").unwrap(),
            DatabaseUrl::Sqlite("data/a.db".into())
        );
        assert_eq!(
            DatabaseUrl::parse("sqlite:///tmp/a.db").unwrap(),
            DatabaseUrl::Sqlite("/tmp/a.db".into())
        );
        assert!(matches!(
            DatabaseUrl::parse("postgresql://u:p@h/d").unwrap(),
            DatabaseUrl::Postgres(_)
        ));
        for bad in [
            "",
            "mysql://x",
            "sqlite://",
            "sqlite://a?mode=ro",
            "sqlite://:memory:",
            "sqlite://file:a",
            "postgres://:x:y",
        ] {
            assert!(matches!(DatabaseUrl::parse(bad), Err(Error::Config(_))), "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = DatabaseUrl::parse("postgres://u:secret@h/d").unwrap();
        assert!(!format!("{url:?}").contains("secret"));
    }
}
