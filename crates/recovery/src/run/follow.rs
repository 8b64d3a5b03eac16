//! Following: reads the stream, commits in the background, and settles when the session is over.
//!
//! **Invariant:** reading never waits for the database. While a batch is being committed, the next
//! one fills up; when it is full, reading stops, and the stream's own flow control takes over.

use std::time::Duration;

use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::{Envelope, Ordinal, RunState, SessionState};
use control_plane_storage::model::Appended;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::source::{Source, Taken};
use super::{Exit, Task, settled};
use crate::watch::Hint;

/// How following ended.
pub(super) enum Followed {
    /// The run is over.
    Over,
    /// Nothing came for long: see whether the stream still lives.
    Idle,
    /// The history up to the cursor is compacted; the log says so now.
    Compacted,
    /// The stream is gone, and why.
    Lost(String),
    /// The log has another envelope where this stream has one.
    Diverged,
}

/// A session that is over, while the rest of its history is read.
struct Settling {
    state: SessionState,
    /// A second subscription, made after the end was known: what it brings is the rest.
    probe: Option<Source>,
    /// The last ordinal there is, when the runtime said so.
    until: Option<Ordinal>,
    /// When silence means that all is here.
    deadline: Instant,
}

/// What happened next.
enum Next {
    Frame(Option<Result<Envelope, RuntimeError>>),
    ProbeFrame(Option<Result<Envelope, RuntimeError>>),
    Hint(Hint),
    Committed(Option<Appended>),
    Quiet,
    Stop,
}

impl Task<'_> {
    /// Follows `main` until the run is over or the stream is. `state` is what the runtime said of
    /// the session before the stream was opened; `gap` tells that its history is compacted.
    pub(super) async fn follow(
        &mut self,
        main: Source,
        state: SessionState,
        gap: bool,
    ) -> Result<Followed, Exit> {
        let mut main = main;
        let mut settling: Option<Settling> = None;
        let mut in_flight: Option<oneshot::Receiver<Appended>> = None;
        let mut idle_at = self.idle_deadline();
        if state.is_over() {
            // The stream was opened after the end, so it is its own probe.
            let until = gap.then_some(self.ledger.session.cursor);
            settling = Some(self.settling(state, None, until));
        } else {
            self.lifecycle(state)?;
        }
        loop {
            if let Some(over) = &settling
                && self.is_settled(over)
            {
                return self.conclude_after(in_flight, over.state).await;
            }
            if in_flight.is_none() && self.ledger.is_dirty() {
                in_flight = Some(self.context.committer.commit(self.ledger.take_batch()));
            }
            let room = self.ledger.pending_envelopes() < self.context.config.batch_envelopes;
            let quiet_at = settling.as_ref().map_or(idle_at, |over| over.deadline);
            let probe = settling.as_mut().and_then(|over| over.probe.as_mut());
            let next = tokio::select! {
                biased;
                done = outcome(&mut in_flight), if in_flight.is_some() => Next::Committed(done),
                hint = self.listener.next() => Next::Hint(hint),
                frame = main.next(), if room => Next::Frame(frame),
                frame = probe_next(probe), if room => Next::ProbeFrame(frame),
                () = tokio::time::sleep_until(quiet_at) => Next::Quiet,
                () = self.context.stop.cancelled() => Next::Stop,
            };
            match next {
                Next::Committed(done) => {
                    in_flight = None;
                    settled(done)?;
                }
                Next::Frame(Some(Ok(envelope))) => {
                    if !self.take(&mut main, envelope) {
                        return self.after(in_flight, Followed::Diverged).await;
                    }
                    self.failures = 0;
                    self.context.backoff.succeeded();
                    idle_at = self.idle_deadline();
                    if let Some(over) = &mut settling {
                        over.deadline = self.settle_deadline(over.state, over.until);
                    } else if self.ledger.ends_with_commitment() {
                        self.look_after_commitment();
                    }
                }
                Next::Frame(end) => {
                    if let Some(over) = settling.as_mut().filter(|over| over.probe.is_some()) {
                        // The probe has the rest.
                        if let Some(probe) = over.probe.take() {
                            main = probe;
                        }
                        continue;
                    }
                    let reason = match end {
                        Some(Err(fault)) => match fault.kind {
                            RuntimeErrorKind::HistoryUnavailable { lowest_available } => {
                                return self.compacted(in_flight, lowest_available).await;
                            }
                            _ => super::detail(&fault),
                        },
                        _ => "the stream ended".to_owned(),
                    };
                    return self.after(in_flight, Followed::Lost(reason)).await;
                }
                Next::ProbeFrame(frame) => {
                    let Some(over) = settling.as_mut() else { continue };
                    match frame {
                        Some(Ok(envelope)) => {
                            let Some(mut probe) = over.probe.take() else { continue };
                            let same = self.take(&mut probe, envelope);
                            over.probe = Some(probe);
                            over.deadline = self.settle_deadline(over.state, over.until);
                            if !same {
                                return self.after(in_flight, Followed::Diverged).await;
                            }
                        }
                        Some(Err(fault)) => {
                            over.probe = None;
                            if let RuntimeErrorKind::HistoryUnavailable { lowest_available } =
                                fault.kind
                            {
                                over.until = Some(lowest_available);
                                over.deadline = self.settle_deadline(over.state, over.until);
                            }
                        }
                        None => over.probe = None,
                    }
                }
                Next::Hint(Hint::State(state)) if state.is_over() => {
                    if settling.is_none() {
                        settling = Some(self.probe(state).await?);
                    }
                }
                Next::Hint(Hint::State(state)) => self.lifecycle(state)?,
                Next::Hint(Hint::Inbox) => self.take_inbox().await?,
                Next::Hint(Hint::Look) => return self.after(in_flight, Followed::Idle).await,
                Next::Quiet => {
                    let Some(over) = settling.take() else {
                        return self.after(in_flight, Followed::Idle).await;
                    };
                    settled(outcome_now(in_flight).await)?;
                    self.commit().await?;
                    if let Some(until) =
                        over.until.filter(|until| *until > self.ledger.session.cursor)
                    {
                        self.record_gap(until).await?;
                    }
                    self.conclude(over.state).await?;
                    return Ok(Followed::Over);
                }
                Next::Stop => {
                    settled(outcome_now(in_flight).await)?;
                    self.commit().await?;
                    return Err(Exit::Stopped);
                }
            }
        }
    }

    /// Records an envelope and those that are here already; `false` when the history differs.
    fn take(&mut self, source: &mut Source, envelope: Envelope) -> bool {
        let now = self.now();
        let mut next = Some(Ok(envelope));
        while let Some(Ok(envelope)) = next {
            if source.take(&mut self.ledger, envelope, now) == Taken::Diverged {
                return false;
            }
            let room = self.ledger.pending_envelopes() < self.context.config.batch_envelopes;
            if !room || self.ledger.ends_with_commitment() {
                return true;
            }
            next = source.ready();
        }
        if let Some(Err(fault)) = next {
            source.fail_next(fault);
        }
        true
    }

    /// Suspended and resumed: the session stream never shows them.
    fn lifecycle(&mut self, state: SessionState) -> Result<(), Exit> {
        let now = self.now();
        match (state, self.ledger.run.state) {
            (SessionState::Suspended, RunState::Running) => {
                self.ledger.session_state(state, now);
                self.ledger.advance(RunState::Suspended, now)?;
            }
            (SessionState::Open, RunState::Suspended) => {
                self.ledger.session_state(state, now);
                self.ledger.advance(RunState::Running, now)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A Commitment resolves a session of a standard mode; that it did is asked, not assumed.
    fn look_after_commitment(&mut self) {
        let runtime = std::sync::Arc::clone(&self.context.runtime);
        let listeners = std::sync::Arc::clone(&self.context.listeners);
        let session = self.ledger.session.session_id.clone();
        tokio::spawn(async move {
            if let Ok(info) = runtime.get_session(&session).await {
                listeners.tell(&session, Hint::State(info.state));
            }
        });
    }

    /// The session is over although its stream did not say so: asks what is still to come.
    async fn probe(&mut self, state: SessionState) -> Result<Settling, Exit> {
        if state == SessionState::Resolved && self.ledger.ends_with_commitment() {
            return Ok(self.settling(state, None, None));
        }
        let cursor = self.ledger.session.cursor;
        let opened = self.context.runtime.subscribe(&self.ledger.session.session_id, cursor).await;
        Ok(match opened {
            Ok(stream) => self.settling(state, Some(Source::new(stream, cursor)), None),
            Err(RuntimeError {
                kind: RuntimeErrorKind::HistoryUnavailable { lowest_available },
                ..
            }) => self.settling(state, None, Some(lowest_available)),
            // The stream that is open may still bring the rest; silence decides.
            Err(_) => self.settling(state, None, None),
        })
    }

    fn settling(
        &self,
        state: SessionState,
        probe: Option<Source>,
        until: Option<Ordinal>,
    ) -> Settling {
        Settling { state, probe, until, deadline: self.settle_deadline(state, until) }
    }

    fn settle_deadline(&self, state: SessionState, until: Option<Ordinal>) -> Instant {
        let config = &self.context.config;
        // A resolved session has a last envelope, so its absence is waited for longer.
        let wait = if until.is_some() || state == SessionState::Resolved {
            config.settle_patience
        } else {
            config.settle_quiet
        };
        Instant::now() + wait
    }

    /// Whether nothing more can come.
    fn is_settled(&self, over: &Settling) -> bool {
        let all_here = over.until.is_some_and(|until| self.ledger.session.cursor >= until);
        all_here || (over.state == SessionState::Resolved && self.ledger.ends_with_commitment())
    }

    async fn conclude_after(
        &mut self,
        in_flight: Option<oneshot::Receiver<Appended>>,
        state: SessionState,
    ) -> Result<Followed, Exit> {
        settled(outcome_now(in_flight).await)?;
        self.conclude(state).await?;
        Ok(Followed::Over)
    }

    async fn compacted(
        &mut self,
        in_flight: Option<oneshot::Receiver<Appended>>,
        lowest_available: Ordinal,
    ) -> Result<Followed, Exit> {
        settled(outcome_now(in_flight).await)?;
        self.commit().await?;
        if lowest_available > self.ledger.session.cursor {
            self.record_gap(lowest_available).await?;
        }
        Ok(Followed::Compacted)
    }

    /// Commits everything, then leaves.
    async fn after(
        &mut self,
        in_flight: Option<oneshot::Receiver<Appended>>,
        followed: Followed,
    ) -> Result<Followed, Exit> {
        settled(outcome_now(in_flight).await)?;
        self.commit().await?;
        Ok(followed)
    }

    fn idle_deadline(&self) -> Instant {
        let idle = Instant::now() + self.context.config.stream_idle;
        // The runtime notices an expiry when it is asked, so we ask when it is due.
        let due = self.ledger.session.expires_at.and_then(|at| (at - self.now()).to_std().ok());
        due.map_or(idle, |due| idle.min(Instant::now() + due + Duration::from_millis(200)))
    }
}

async fn outcome(in_flight: &mut Option<oneshot::Receiver<Appended>>) -> Option<Appended> {
    match in_flight {
        Some(answer) => answer.await.ok(),
        None => std::future::pending().await,
    }
}

/// The outcome of a commit that may be under way; none under way is fine.
async fn outcome_now(in_flight: Option<oneshot::Receiver<Appended>>) -> Option<Appended> {
    match in_flight {
        Some(answer) => answer.await.ok(),
        None => Some(Appended::Committed),
    }
}

async fn probe_next(probe: Option<&mut Source>) -> Option<Result<Envelope, RuntimeError>> {
    match probe {
        Some(probe) => probe.next().await,
        None => std::future::pending().await,
    }
}
