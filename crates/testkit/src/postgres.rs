//! Databases of a PostgreSQL server: made from a migrated template, and dropped again.
//!
//! **Invariant:** a template is complete or absent. It is migrated under another name and renamed
//! at the end, and an advisory lock lets one process at a time do that.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use control_plane_storage::{Config, DatabaseUrl, Store};
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, NoTls};
use url::Url;
use uuid::Uuid;

/// Any number, as long as everybody who builds templates uses the same.
const TEMPLATE_LOCK: i64 = 0x6d61_6370_7465_7374;
const RENAME_ATTEMPTS: u32 = 200;

/// The server on which tests may create databases.
///
/// # Panics
/// When none is named.
pub(crate) fn server() -> Url {
    let text = env::var("TEST_DATABASE_URL").unwrap_or_default();
    assert!(
        !text.is_empty(),
        "TEST_DATABASE_URL is not set: run `cargo xtask test`, which starts a PostgreSQL for the \
         tests, or set it to a server where databases may be created"
    );
    Url::parse(&text).unwrap_or_else(|error| panic!("TEST_DATABASE_URL is not a URL: {error}"))
}

/// Creates an empty database; its URL.
pub(crate) async fn create_empty(server: &Url) -> Result<Url> {
    let name = fresh_name();
    execute(server, &format!("CREATE DATABASE {name}")).await?;
    Ok(database(server, &name))
}

/// Creates a database with the newest schema; its URL.
pub(crate) async fn create_migrated(server: &Url) -> Result<Url> {
    let template = template(server).await.context("the template could not be made")?;
    let name = fresh_name();
    execute(server, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
    Ok(database(server, &name))
}

/// Drops a database, whoever is still connected to it.
pub(crate) async fn drop_database(server: &Url, url: &Url) -> Result<()> {
    let name = url.path().trim_start_matches('/');
    execute(server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

fn fresh_name() -> String {
    format!("macp_test_{}", Uuid::new_v4().simple())
}

fn database(server: &Url, name: &str) -> Url {
    let mut url = server.clone();
    url.set_path(name);
    url
}

/// The template's name, which follows from the migrations.
async fn template(server: &Url) -> Result<String> {
    let name = format!("macp_template_{}", fingerprint()?);
    let client = connect(server).await?;
    // Held by this connection, so it is free again whatever happens to this process.
    client.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await?;
    let there = "SELECT 1 FROM pg_database WHERE datname = $1";
    if client.query_opt(there, &[&name]).await?.is_none() {
        let draft = format!("{name}_draft");
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await?;
        client.batch_execute(&format!("CREATE DATABASE {draft}")).await?;
        migrate(database(server, &draft).as_str()).await?;
        rename(&client, &draft, &name).await?;
    }
    Ok(name)
}

/// Brings the database to the newest schema, as the server does when it starts.
pub(crate) async fn migrate(url: &str) -> Result<()> {
    let store = Store::connect(&Config::new(DatabaseUrl::parse(url)?))?;
    store.migrate().await?;
    Ok(())
}

/// Connections that were just closed may take a moment to be gone.
async fn rename(client: &Client, from: &str, to: &str) -> Result<()> {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    let rename = format!("ALTER DATABASE {from} RENAME TO {to}");
    let mut attempt = 0;
    loop {
        client.execute(end, &[&from]).await?;
        match client.batch_execute(&rename).await {
            Ok(()) => return Ok(()),
            Err(_) if attempt < RENAME_ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) async fn execute(server: &Url, statement: &str) -> Result<()> {
    let client = connect(server).await?;
    client.batch_execute(statement).await.with_context(|| format!("`{statement}` failed"))
}

async fn connect(server: &Url) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(server.as_str(), NoTls)
        .await
        .with_context(|| format!("no connection to {server}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// A hash over every migration of PostgreSQL.
fn fingerprint() -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres");
    let mut files = Vec::new();
    collect(&folder, &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        hash.update(path.strip_prefix(&folder)?.to_string_lossy().as_bytes());
        hash.update(fs::read(&path)?);
    }
    Ok(hex::encode(hash.finalize()).chars().take(16).collect())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {folder:?}"))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
