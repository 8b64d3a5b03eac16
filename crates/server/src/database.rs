//! Opening the database: waiting for it, and migrating it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use control_plane_storage::{Error, Store};

use crate::config::Config;

/// How long a database may take to come up beside us.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(4);

/// `macp-control-plane migrate`.
pub(crate) async fn migrate(config: Config, revert: bool) -> anyhow::Result<ExitCode> {
    let store = connect(&config)?;
    let database = store.kind();
    if revert {
        patiently(|| store.revert()).await.context("reverting the migrations")?;
        tracing::info!(database, "Every migration is taken back");
    } else {
        patiently(|| store.migrate()).await.context("migrating")?;
        tracing::info!(database, "The schema is up to date");
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the database and brings its schema up to date, as configured.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Store> {
    let store = connect(config)?;
    let database = store.kind();
    if config.auto_migrate {
        patiently(|| store.migrate()).await.context("migrating the database")?;
    } else if patiently(|| store.migrations_pending()).await.context("reading the schema")? {
        anyhow::bail!(
            "the database's schema is not of this version and AUTO_MIGRATE is off: run `macp-control-plane migrate`"
        );
    }
    tracing::info!(database, "The database is ready");
    Ok(store)
}

/// The log's name, from a database that may go away again as soon as it is ready.
pub(crate) async fn log_id(store: &Store) -> anyhow::Result<String> {
    patiently(|| store.log_id()).await.context("the log's id")
}

fn connect(config: &Config) -> anyhow::Result<Store> {
    Store::connect(&config.database).context("the database cannot be opened")
}

/// Does it again while the database is not there yet, and says so.
async fn patiently<T, F>(work: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, Error>>,
{
    let give_up = tokio::time::Instant::now() + PATIENCE;
    let mut wait = FIRST_WAIT;
    loop {
        match work().await {
            Err(error @ Error::Unavailable(_)) if tokio::time::Instant::now() + wait < give_up => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "The database does not answer yet; trying again in {wait:?}"
                );
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_WAIT);
            }
            settled => return Ok(settled?),
        }
    }
}
