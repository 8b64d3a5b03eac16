//! Does what the [`Machine`] says: reads, folds, waits, and packs frames into chunks.
//!
//! **Invariant:** a chunk holds whole frames, so whenever the body ends it ends between two. While
//! a connection waits it holds no buffer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web;
use bytes::{Bytes, BytesMut};
use control_plane_domain::RunId;
use control_plane_storage::{Error, Follower};

use super::machine::{Machine, Step};
use super::request::{Ask, Opening};
use super::snapshots::Shared;
use crate::context::ApiContext;

/// A chunk is sent when it has this many bytes, or when there is nothing to add.
const CHUNK: usize = 16 * 1024;
/// Most events that are read at once.
const MAX_READ: usize = 512;
/// About how many bytes of events are read at once.
const READ_BYTES: usize = 256 * 1024;
/// How long a state may take to be folded before events go on without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// What an event is thought to weigh before one was seen.
const TYPICAL_EVENT: usize = 1024;

/// One connection.
pub(super) struct Pump {
    context: web::Data<ApiContext>,
    run_id: RunId,
    machine: Machine,
    follower: Follower,
    /// The run's state, if the client wants it.
    state: Option<Arc<Shared>>,
    /// The mean size of the events that were read last.
    event_bytes: usize,
    open: Open,
}

impl Pump {
    pub(super) fn new(
        context: web::Data<ApiContext>,
        run_id: RunId,
        ask: Ask,
        opening: Opening,
    ) -> Self {
        let follower = context.store.follow(run_id, opening.after);
        let state = ask.include_snapshot.then(|| context.snapshots.of(run_id));
        let machine = Machine::new(ask, opening, retry_ms(), Instant::now());
        let open = Open::count();
        Self { context, run_id, machine, follower, state, event_bytes: TYPICAL_EVENT, open }
    }

    /// The next chunk of the body; `None` when it is over.
    pub(super) async fn chunk(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        let mut frames = 0;
        while out.len() < CHUNK {
            if self.context.stop.is_cancelled() {
                break;
            }
            let step = self.machine.step(Instant::now());
            if let Step::Send(frame) = step {
                if out.is_empty() && self.machine.waiting() > 8 {
                    out.reserve(CHUNK + TYPICAL_EVENT);
                }
                frame.write(&mut out, &*self.context.clock);
                frames += 1;
                continue;
            }
            // What is there goes out before anything that may take time.
            if !out.is_empty() {
                break;
            }
            let stop = self.context.stop.clone();
            let goes_on = tokio::select! {
                () = stop.cancelled() => false,
                goes_on = self.act(step) => goes_on,
            };
            if !goes_on {
                break;
            }
        }
        if out.is_empty() {
            return None;
        }
        self.open.sent(frames, out.len());
        Some(out.freeze())
    }

    /// Does a step that sends nothing; `false` when the stream is over.
    async fn act(&mut self, step: Step) -> bool {
        match step {
            // Sent by the caller.
            Step::Send(_) => {}
            Step::Close => return false,
            Step::Read => self.read().await,
            Step::Fold(seq) => {
                let Some(state) = &self.state else { return true };
                // Boxed, as below: a waiting connection should not carry room for a query.
                match tokio::time::timeout(PATIENCE, Box::pin(state.at_least(seq))).await {
                    Ok(Ok((version, frame))) => self.machine.folded(version, frame),
                    Ok(Err(error)) => {
                        tracing::warn!(run.id = %self.run_id, error = &error as &dyn std::error::Error, "A snapshot for a stream failed");
                        self.machine.fold_failed(Instant::now());
                    }
                    Err(_) => self.machine.fold_failed(Instant::now()),
                }
            }
            Step::AskHead => match Box::pin(self.context.store.run_head(self.run_id)).await {
                Ok(head) => self.machine.head(&head),
                Err(error) => self.failed(&error),
            },
            Step::Wait(until) => {
                let until = tokio::time::Instant::from_std(until);
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = self.follower.changed() => self.machine.woken(),
                }
            }
        }
        true
    }

    async fn read(&mut self) {
        let limit = (READ_BYTES / self.event_bytes).clamp(1, MAX_READ);
        match Box::pin(self.follower.try_next(limit)).await {
            Ok(entries) => {
                let bytes: usize = entries.iter().map(|entry| entry.body.len()).sum();
                self.event_bytes =
                    bytes.checked_div(entries.len()).unwrap_or(self.event_bytes).max(1);
                self.machine.read(entries, limit);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &Error) {
        if matches!(error, Error::NotFound { .. }) {
            self.machine.gone();
        } else {
            tracing::warn!(run.id = %self.run_id, error = error as &dyn std::error::Error, "A stream could not read");
            self.machine.failed(Instant::now());
        }
    }
}

/// One to two seconds, so that clients of a server that went away do not come back together.
fn retry_ms() -> u64 {
    1000 + u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * 4
}

/// An open connection, as the figures see it.
struct Open {
    frames: metrics::Counter,
    bytes: metrics::Counter,
}

impl Open {
    fn count() -> Self {
        metrics::gauge!("active_sse_connections").increment(1.0);
        Self {
            frames: metrics::counter!("sse_frames_total"),
            bytes: metrics::counter!("sse_bytes_total"),
        }
    }

    fn sent(&self, frames: u64, bytes: usize) {
        self.frames.increment(frames);
        self.bytes.increment(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("active_sse_connections").decrement(1.0);
    }
}
