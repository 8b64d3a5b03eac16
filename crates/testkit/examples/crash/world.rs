//! A round's processes and database, and what is kept of them when it fails.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use control_plane_domain::SessionId;
use control_plane_storage::{Access, Config, Store};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::{Durability, OBSERVER_TOKEN, Options, RuntimeProcess};

/// How many events of a log are kept.
const EVENTS: i64 = 100_000;

/// What a round happens in.
pub(crate) struct World {
    pub(crate) runtime: RuntimeProcess,
    pub(crate) server: ServerProcess,
    pub(crate) database: TestDb,
}

impl World {
    pub(crate) async fn build(kind: Kind, durability: Durability) -> Self {
        let database = TestDb::new(kind);
        let runtime = RuntimeProcess::start(Options::new(durability)).await;
        let server = ServerProcess::serve()
            .env("DATABASE_URL", database.url())
            .env("RUNTIME_ADDRESS", runtime.address())
            .env("RUNTIME_BEARER_TOKEN", OBSERVER_TOKEN)
            .env("RUNTIME_ALLOW_INSECURE", "true")
            .env("STREAM_BACKOFF_BASE_MS", 20)
            .env("STREAM_BACKOFF_MAX_MS", 300)
            .env("LOG_LEVEL", "info,control_plane_recovery=debug");
        Self { server: server.start().await, runtime, database }
    }

    /// A reader of the database.
    pub(crate) fn store(&self) -> Result<Store> {
        let config = Config { access: Access::Read, ..self.database.config() };
        Ok(Store::connect(&config)?)
    }

    /// Writes everything that may explain a failure into `folder`.
    pub(crate) async fn keep(
        &self,
        folder: &Path,
        story: &str,
        sessions: &[SessionId],
    ) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder).context("no folder for a failed round")?;
        fs::write(folder.join("story.txt"), story)?;
        fs::write(folder.join("server.log"), self.server.log())?;
        copy(self.runtime.folder(), &folder.join("runtime"))?;
        if let Some(path) = self.database.url().strip_prefix("sqlite://")
            && let Some(home) = Path::new(path).parent()
        {
            copy(home, &folder.join("database"))?;
        }
        let store = self.store()?;
        for session in sessions {
            if let Ok(run) = store.run_find(session.as_str()).await {
                let events = store.events(run.id, 0, EVENTS).await?;
                let lines: Vec<String> = events
                    .iter()
                    .map(|event| {
                        format!("{}\t{}", event.position, String::from_utf8_lossy(&event.body))
                    })
                    .collect();
                fs::write(folder.join(format!("{session}.jsonl")), lines.join("\n"))?;
            }
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
