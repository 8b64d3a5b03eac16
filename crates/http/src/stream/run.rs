//! The stream of one run: does what its [`Machine`] says.
//!
//! **Invariant:** it holds a cursor and the events it read last, and nothing else of the log.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_domain::RunId;
use control_plane_storage::{Error, Follower};

use super::frame::Frame;
use super::machine::{Machine, Page, Step};
use super::page::PageSize;
use super::pump::{Close, Producer, retry_ms};
use super::request::{Ask, Opening};
use super::snapshots::Shared;
use crate::context::ApiContext;

/// How long a state may take to be folded before events go on without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run, as one connection sees it.
pub(super) struct RunStream {
    run_id: RunId,
    machine: Machine,
    /// What the machine wants done before it has a frame again.
    next: Option<Step>,
    follower: Follower,
    /// The run's state, if the client wants it.
    state: Option<Arc<Shared>>,
    page: PageSize,
}

impl RunStream {
    pub(super) fn new(context: &ApiContext, run_id: RunId, ask: Ask, opening: Opening) -> Self {
        let follower = context.store.follow(run_id, opening.after);
        let state = ask.include_snapshot.then(|| context.snapshots.of(run_id));
        let machine = Machine::new(ask, opening, retry_ms(), Instant::now());
        Self { run_id, machine, next: None, follower, state, page: PageSize::new() }
    }

    async fn read(&mut self) {
        let limit = self.page.events();
        match Box::pin(self.follower.try_next(limit)).await {
            Ok(entries) => {
                self.page.read(entries.iter().map(|entry| entry.body.len()));
                let fell = self.follower.take_fall();
                if fell {
                    metrics::counter!("sse_store_fallbacks_total").increment(1);
                }
                let latest = self.follower.latest();
                let more = self.follower.has_more();
                self.machine.read(Page { entries, more, latest, fell });
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

impl Producer for RunStream {
    fn frame(&mut self, now: Instant) -> Option<Frame> {
        let step = self.machine.step(now);
        if let Step::Send(frame) = step {
            return Some(frame);
        }
        self.next = Some(step);
        None
    }

    fn is_busy(&self) -> bool {
        self.machine.waiting() > 8
    }

    fn lag(&self) -> Option<i64> {
        Some(self.follower.latest() - self.machine.cursor())
    }

    async fn work(&mut self, until: Instant) -> ControlFlow<Close> {
        match self.next.take() {
            // Sent by the caller.
            None | Some(Step::Send(_)) => {}
            Some(Step::Close(why)) => return ControlFlow::Break(why),
            Some(Step::Read) => self.read().await,
            Some(Step::Fold(seq)) => {
                let Some(state) = &self.state else { return ControlFlow::Continue(()) };
                // Boxed, as below: a waiting connection should not carry room for a query.
                match tokio::time::timeout(PATIENCE, Box::pin(state.at_least(seq))).await {
                    Ok(Ok((version, frame))) => self.machine.folded(version, frame),
                    Ok(Err(error @ Error::NotFound { .. })) => self.failed(&error),
                    Ok(Err(error)) => {
                        tracing::warn!(run.id = %self.run_id, error = &error as &dyn std::error::Error, "A snapshot for a stream failed");
                        self.machine.fold_failed(Instant::now());
                    }
                    Err(_) => self.machine.fold_failed(Instant::now()),
                }
            }
            Some(Step::AskHead) => match Box::pin(self.follower.head()).await {
                Ok(head) => self.machine.head(&head),
                Err(error) => self.failed(&error),
            },
            Some(Step::Wait(due)) => {
                tokio::select! {
                    () = tokio::time::sleep_until(due.min(until).into()) => {}
                    () = self.follower.turn() => self.machine.woken(),
                }
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::pump::Pump;

    #[test]
    fn a_connection_is_small_while_it_waits() {
        // What it does then is boxed or a timer; the rest is the socket's own buffers.
        assert!(size_of::<Pump<RunStream>>() <= 1024, "{}", size_of::<Pump<RunStream>>());
    }
}
