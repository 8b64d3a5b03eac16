//! Moves the write-ahead log into the database beside the writer, so that no commit waits for it.
//!
//! **Invariant:** the thread ends with the store that started it. It never blocks the writer: a
//! passive checkpoint leaves to the next one what it cannot have now.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use diesel::connection::SimpleConnection;

/// How long the log grows before it is moved: a short log makes a short checkpoint.
const EVERY: Duration = Duration::from_millis(250);
const NAME: &str = "sqlite-checkpoint";

/// Dropping it ends the thread.
pub(super) struct Checkpoints {
    _stop: mpsc::Sender<()>,
}

/// Starts the thread. Without it, which only a process without threads to spare has to do, the
/// writer's own checkpoints bound the log.
pub(super) fn start(path: String) -> Checkpoints {
    let (stop, stopped) = mpsc::channel::<()>();
    let work = move || {
        let mut conn = None;
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            if conn.is_none() {
                conn = super::open(&path, "PRAGMA busy_timeout = 0;").ok();
            }
            let moved =
                conn.as_mut().map(|conn| conn.batch_execute("PRAGMA wal_checkpoint(PASSIVE)"));
            // Busy is an answer; after anything else the next turn opens the database anew.
            if let Some(Err(fault)) = moved {
                tracing::debug!(error = %fault, "Could not move the write-ahead log");
                conn = None;
            }
        }
    };
    if let Err(fault) = std::thread::Builder::new().name(NAME.to_owned()).spawn(work) {
        tracing::warn!(error = %fault, "No thread for checkpoints; commits will make them");
    }
    Checkpoints { _stop: stop }
}
