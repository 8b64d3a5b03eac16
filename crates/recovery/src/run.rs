//! The task of one run: attach, follow, settle, finish.
//!
//! **Invariant:** this task alone writes its run. Whenever it does not know what was written, it
//! renews its lease and loads the run again; it never guesses.

mod attach;
mod count;
mod ending;
mod follow;
mod inbox;
mod look;
mod settle;
mod source;

pub(crate) use inbox::{ARTIFACT, CANCEL, SESSION_SEEN};

use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_domain::run::IllegalTransition;
use control_plane_domain::runtime::{Runtime, RuntimeError, RuntimeErrorKind};
use control_plane_domain::trace::{LiveSpan, SpanKind};
use control_plane_domain::{Ordinal, RunState, Timestamp};
use control_plane_storage::Error;
use control_plane_storage::model::{Append, Appended, Lease};
use tokio::sync::oneshot;

use crate::engine::Context;
use crate::ledger::Ledger;
use crate::listeners::Listener;

/// Why a run's task was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The run is new.
    Launched,
    /// The run was left by a process that is gone.
    Recovered,
    /// The run is over, and something is in its inbox.
    Inbox,
}

/// How a task ends before its run does.
#[derive(Debug)]
enum Exit {
    /// The server stops.
    Stopped,
    /// Another instance is to follow the run.
    Recalled,
    /// The run ended while its session was still waited for; that is committed.
    Over,
    /// The run has another owner.
    Fenced,
    /// The database refuses the run's data.
    Parked(String),
    /// The in-memory state may differ from the database's.
    Reload(String),
}

/// The engine stops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopped;

impl From<IllegalTransition> for Exit {
    /// Only a ledger that is not what it should be asks for an illegal move.
    fn from(fault: IllegalTransition) -> Self {
        Self::Parked(fault.to_string())
    }
}

/// Follows a run to its end, through reloads.
pub(crate) async fn supervise(context: Arc<Context>, lease: Lease, origin: Origin) {
    let id = lease.run_id;
    let (mut lease, mut origin) = (lease, origin);
    loop {
        let began = Instant::now();
        // Boxed, and nothing of it is in here: what reading a run takes is given back when it is read.
        let (ended, now) = Box::pin(live(&context, lease, origin)).await;
        origin = now;
        let Err(exit) = ended else { return };
        match exit {
            Exit::Stopped | Exit::Over => return,
            Exit::Recalled => return release(&context, lease).await,
            // Whether it has, the renewal tells.
            Exit::Fenced => tracing::info!(run.id = %id, "Run {id} may have another owner now"),
            Exit::Parked(reason) => return park(&context, lease, reason).await,
            Exit::Reload(reason) => {
                tracing::warn!(run.id = %id, reason, "Loading run {id} again");
                metrics::counter!("macp_run_reloads_total").increment(1);
            }
        }
        // One failure in a row waits long enough for a database to come back, not for people.
        let wait = if began.elapsed() < Duration::from_secs(1) { 500 } else { 0 };
        if pause(&context, Duration::from_millis(wait)).await.is_err() {
            return;
        }
        lease = match renew(&context, lease).await {
            Some(lease) => lease,
            None => return,
        };
        context.renewed(lease);
    }
}

/// Follows a run until it is over, or until it has to be read again; and why it is followed now.
async fn live(context: &Context, lease: Lease, origin: Origin) -> (Result<(), Exit>, Origin) {
    match Box::pin(load(context, lease, origin)).await {
        Ok(mut task) => (task.run().await, task.origin),
        Err(exit) => (Err(exit), origin),
    }
}

/// The task of a run as it is in the database.
async fn load(context: &Context, lease: Lease, origin: Origin) -> Result<Box<Task<'_>>, Exit> {
    let loaded = context.loader.load(lease).await.ok_or(Exit::Stopped)?.map_err(unread)?;
    let asked = loaded.asked;
    let ledger = {
        // A long tail is read apart. Turns are never closed.
        let _turn = context.readers.acquire().await;
        let prices = &context.config.prices;
        Ledger::of(&context.store, lease, loaded, prices).await.map_err(unread)?
    };
    // What was read before is read again, or is in the database.
    context.committer.lag().forget(lease.run_id);
    let mut task = Box::new(Task::new(context, ledger.within(&context.budget), origin));
    task.asked = asked;
    if context.is_recalled(lease.run_id) {
        // It was told while there was nobody to hear it.
        context.listeners.recall(lease.run_id);
    }
    Ok(task)
}

fn unread(fault: Error) -> Exit {
    if matches!(fault, Error::NotFound { .. }) {
        Exit::Fenced
    } else if fault.is_transient() {
        Exit::Reload(fault.to_string())
    } else {
        Exit::Parked(fault.to_string())
    }
}

/// Gives a run up until the next start, and says why.
pub(crate) async fn park(context: &Context, lease: Lease, reason: String) {
    tracing::error!(run.id = %lease.run_id, reason, "Run {} is parked", lease.run_id);
    metrics::counter!("macp_parked_runs_total").increment(1);
    loop {
        match context.store.run_park(lease, reason.clone()).await {
            Err(fault) if fault.is_transient() => {
                if pause(context, Duration::from_secs(1)).await.is_err() {
                    return;
                }
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// Leaves a run to another instance. What was read of it is committed.
async fn release(context: &Context, lease: Lease) {
    loop {
        match context.store.run_release(lease).await {
            Ok(true) => {
                tracing::debug!(run.id = %lease.run_id, "Left run {} to others", lease.run_id);
                metrics::counter!("macp_recovery_total", "status" => "handed_over").increment(1);
                return;
            }
            // It has another owner already.
            Ok(false) => return,
            Err(fault) if fault.is_transient() => {
                if pause(context, Duration::from_millis(500)).await.is_err() {
                    return;
                }
            }
            Err(fault) => {
                tracing::error!(run.id = %lease.run_id, error = %fault, "Could not leave a run");
                return;
            }
        }
    }
}

/// A lease under which nothing of ours is under way any more; `None` when the run is not ours.
pub(crate) async fn renew(context: &Context, lease: Lease) -> Option<Lease> {
    loop {
        match context.store.run_retake(lease).await {
            Ok(lease) => return lease,
            Err(fault) if fault.is_transient() => {
                pause(context, Duration::from_millis(500)).await.ok()?;
            }
            Err(fault) => {
                tracing::error!(run.id = %lease.run_id, error = %fault, "Could not renew a lease");
                return None;
            }
        }
    }
}

/// Waits, but not longer than the engine lives.
pub(crate) async fn pause(context: &Context, wait: Duration) -> Result<(), Stopped> {
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        () = context.stop.cancelled() => Err(Stopped),
    }
}

/// A run under way.
struct Task<'a> {
    context: &'a Context,
    ledger: Ledger,
    /// Its calls are part of the run's trace.
    runtime: Arc<dyn Runtime>,
    origin: Origin,
    listener: Arc<Listener>,
    /// Whether something was in the inbox when the run was read.
    asked: bool,
    /// Whether the log says already that the stream is down.
    outage: bool,
    /// The runtime refused our token the last time.
    is_refused: bool,
    /// Failures to attach in a row.
    failures: u32,
    /// When the last of them was counted.
    counted_at: Instant,
    /// The runtime has no envelopes up to here.
    compacted: Ordinal,
    /// The session was still open when this ordinal was the last one, so it does not end there.
    left_open: Option<Ordinal>,
}

impl<'a> Task<'a> {
    fn new(context: &'a Context, ledger: Ledger, origin: Origin) -> Self {
        let listener = context.listen(&ledger.session.session_id, ledger.run.id);
        listener.has_read(ledger.session.cursor);
        Self {
            context,
            runtime: context.runtime_within(ledger.trace.as_ref()),
            ledger,
            origin,
            listener: Arc::new(listener),
            asked: false,
            outage: false,
            is_refused: false,
            failures: 0,
            counted_at: Instant::now(),
            compacted: 0,
            left_open: None,
        }
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    async fn run(&mut self) -> Result<(), Exit> {
        // What comes in from here on is told to the listener.
        if self.asked {
            self.take_inbox().await?;
        }
        if self.ledger.run.state.is_terminal() {
            return self.commit().await;
        }
        if self.ledger.run.state == RunState::Queued {
            let now = self.now();
            self.ledger.advance(RunState::Starting, now)?;
            self.commit().await?;
        }
        match self.attach().await {
            Ok(()) | Err(Exit::Over) => {}
            Err(exit) => return Err(exit),
        }
        // What came in while the run ended.
        self.take_inbox().await?;
        self.commit().await
    }

    /// Writes what waits, and waits for it.
    async fn commit(&mut self) -> Result<(), Exit> {
        if !self.ledger.is_dirty() {
            return Ok(());
        }
        let completes = self.ledger.run.state == RunState::Completed;
        let done = self.hand_over().await.ok();
        self.ledger.committed();
        if completes {
            self.context.receipts.look();
        }
        settled(done)
    }

    /// Hands what waits to the writers.
    fn hand_over(&mut self) -> oneshot::Receiver<Appended> {
        let batch = self.ledger.take_batch();
        let span = self.persist_span(&batch);
        self.context.committer.commit(batch, span)
    }

    /// The span of writing a batch.
    fn persist_span(&self, batch: &Append) -> Option<LiveSpan> {
        let tracer = self.context.config.tracer.as_ref()?;
        let trace = self.ledger.trace.as_ref()?;
        let span = LiveSpan::begin(tracer, Some(trace), "run-event.persist", SpanKind::Internal);
        Some(
            span.with("run_id", batch.run.id.to_string())
                .with("macp.event_count", batch.entries.len())
                .with("macp.envelope_count", batch.raw.len()),
        )
    }

    /// Waits for `work`. What is asked of the run meanwhile is done.
    async fn serving<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Exit> {
        let mut work = std::pin::pin!(work);
        loop {
            let listener = Arc::clone(&self.listener);
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return Err(Exit::Stopped),
                done = &mut work => return Ok(done),
                () = listener.recalled() => return Err(Exit::Recalled),
                () = listener.asked() => {}
            }
            let inbox = tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return Err(Exit::Stopped),
                () = listener.recalled() => return Err(Exit::Recalled),
                inbox = self.fetch_inbox() => inbox,
            };
            self.carry_out_all(inbox.map_err(|fault| Exit::Reload(fault.to_string()))?);
            self.commit().await?;
            if self.ledger.run.state.is_terminal() {
                return Err(Exit::Over);
            }
        }
    }

    /// Waits after a fault of the runtime, as long as the back-off says. The log says so once.
    async fn wait_for_runtime(&mut self, began: Instant, fault: &RuntimeError) -> Result<(), Exit> {
        let refused = matches!(fault.kind, RuntimeErrorKind::CircuitOpen { .. });
        // What the circuit breaker refuses is no attempt, but it must not make patience endless.
        if !refused || self.counted_at.elapsed() >= self.context.config.backoff_max {
            self.failures += 1;
            self.counted_at = Instant::now();
        }
        let detail = detail(fault);
        // That our token is refused is told whatever was wrong before, and also before the run runs:
        // somebody has to do something about it.
        let is_refused = fault.kind == RuntimeErrorKind::Unauthenticated;
        if is_refused && !std::mem::replace(&mut self.is_refused, is_refused) {
            self.outage = false;
        }
        self.is_refused = is_refused;
        let has_begun =
            self.ledger.session.cursor > 0 || self.ledger.run.state == RunState::Running;
        if is_refused || has_begun {
            self.note_outage(&detail);
        }
        self.note_disconnected();
        self.commit().await?;
        tracing::debug!(run.id = %self.ledger.run.id, fault = detail, "Waiting for the runtime");
        self.pause_after(began, fault).await
    }

    /// Waits after a fault of the runtime, until it makes sense to try again.
    async fn pause_after(&mut self, began: Instant, fault: &RuntimeError) -> Result<(), Exit> {
        let backoff = &self.context.backoff;
        if let RuntimeErrorKind::CircuitOpen { retry_after } = fault.kind {
            self.serving(backoff.sleep(retry_after)).await
        } else {
            self.serving(backoff.pause(began)).await
        }
    }

    fn is_out_of_retries(&self) -> bool {
        let limit = self.context.config.max_retries;
        limit > 0 && self.failures > limit
    }

    /// Something new was received: what was wrong is over.
    fn attached_well(&mut self) {
        self.failures = 0;
        self.outage = false;
        self.context.backoff.succeeded();
    }

    fn note_outage(&mut self, detail: &str) {
        if self.outage {
            return;
        }
        self.outage = true;
        metrics::counter!("macp_stream_reconnects_total").increment(1);
        let now = self.now();
        let session = &self.ledger.session;
        let draft = control_plane_domain::control::stream_opened(
            &session.session_id,
            control_plane_domain::control::StreamStatus::Reconnecting,
            session.cursor,
            Some(detail),
            now,
        );
        self.ledger.event(draft, now);
    }

    /// The session's row tells since when it cannot be followed: other instances see no more.
    fn note_disconnected(&mut self) {
        let now = self.now();
        if self.ledger.session.disconnect(now) {
            self.ledger.touch();
        }
    }

    /// The runtime has answered. What is missing to follow the session is not the runtime.
    fn note_reached(&mut self) {
        let session = &mut self.ledger.session;
        if session.connected_at.is_none() && session.disconnected_at.take().is_some() {
            self.ledger.touch();
        }
    }
}

/// What a commit's outcome means for the task.
fn settled(outcome: Option<Appended>) -> Result<(), Exit> {
    match outcome {
        Some(Appended::Committed) => Ok(()),
        Some(Appended::Fenced) => Err(Exit::Fenced),
        Some(Appended::Refused(reason)) => Err(Exit::Parked(reason)),
        Some(Appended::Unknown(reason)) => Err(Exit::Reload(reason)),
        None => Err(Exit::Reload("the writer went away".to_owned())),
    }
}

/// A runtime error as a detail for people: the runtime's own sentence.
fn detail(fault: &RuntimeError) -> String {
    fault.message.clone()
}

#[cfg(test)]
mod tests;
