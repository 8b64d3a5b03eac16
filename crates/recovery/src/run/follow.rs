//! Following: reads the stream, commits in the background, and settles when the session is over.
//!
//! **Invariant:** reading never waits for the database nor for the runtime's other answers. While a
//! batch is being committed, the next one fills up; when it is full, reading stops, and the stream's
//! own flow control takes over.

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{Envelope, Ordinal, RunState, SessionState, time};
use control_plane_storage::model::Appended;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::inbox::Fetched;
use super::settle::{Probe, Probed, Settling};
use super::source::{Source, Taken};
use super::{Exit, Task, detail, settled};
use crate::listeners::Hint;

/// How following ended. Everything that was read is committed.
pub(super) enum Followed {
    /// The run is over.
    Over,
    /// Nothing came for long, or something has to be seen anew.
    Idle,
    /// The history up to the cursor is compacted; the log says so now.
    Compacted,
    /// The stream is gone, and why.
    Lost(String),
    /// The runtime does not let us observe the session.
    Refused(String),
    /// The log has another envelope where this stream has one.
    Diverged,
}

/// What goes on besides reading.
#[derive(Default)]
struct Beside {
    /// The session is over.
    settling: Option<Settling>,
    /// The batch that is being committed.
    in_flight: Option<oneshot::Receiver<Appended>>,
    /// What the session is, being asked.
    looking: Option<Looking>,
    /// What is in the inbox, being read.
    fetching: Option<BoxFuture<'static, Fetched>>,
}

/// A question of what the session is.
struct Looking {
    answer: BoxFuture<'static, Result<SessionInfo, RuntimeError>>,
    /// The last ordinal recorded when it was asked.
    cursor: Ordinal,
    /// Whether the session changed since then.
    stale: bool,
}

/// What happened next.
enum Next {
    Stop,
    Recalled,
    Committed(Option<Appended>),
    Looked(Result<SessionInfo, RuntimeError>),
    Asked,
    Fetched(Fetched),
    Hint(Hint),
    Frame(Option<Result<Envelope, RuntimeError>>),
    Probed(Probed),
    Quiet,
}

impl Task<'_> {
    /// Follows `main` until the run is over or the stream is. `state` is what the runtime said of
    /// the session before the stream was opened; `served` tells that the stream has shown the
    /// overlap already.
    pub(super) async fn follow(
        &mut self,
        main: Source,
        state: SessionState,
        served: bool,
    ) -> Result<Followed, Exit> {
        let mut beside = Beside::default();
        if state.is_over() {
            beside.settling = Some(self.settling_on_main(state, served));
        } else {
            self.lifecycle(state)?;
        }
        let ended = match self.read(main, &mut beside).await {
            // What was read before is kept.
            ended @ (Ok(_) | Err(Exit::Stopped | Exit::Recalled)) => ended,
            Err(exit) => return Err(exit),
        };
        // Nobody waits for these any more, and a reading that nobody polls keeps its turn for ever.
        (beside.fetching, beside.looking) = (None, None);
        settled(answer(beside.in_flight.take()).await)?;
        self.commit().await?;
        if let (Ok(Followed::Over), Some(over)) = (&ended, beside.settling) {
            // Nothing comes behind the Commitment that resolved it: what is missing is before.
            let until = over.until.filter(|_| !self.ends_resolved(over.state));
            if let Some(until) = until.filter(|until| *until > self.ledger.session.cursor) {
                self.record_gap(until).await?;
            }
            if let Some(until) = until.filter(|until| *until >= self.ledger.session.cursor) {
                self.note_total(until);
            }
            self.conclude(over.state).await?;
        }
        ended
    }

    async fn read(&mut self, main: Source, beside: &mut Beside) -> Result<Followed, Exit> {
        let mut main = main;
        let mut idle_at = self.idle_deadline();
        loop {
            if beside.settling.as_ref().is_some_and(|over| self.is_settled(over)) {
                return Ok(Followed::Over);
            }
            if beside.in_flight.is_none() && self.ledger.is_dirty() {
                beside.in_flight = Some(self.hand_over());
            }
            self.listener.has_read(self.ledger.session.cursor);
            let quiet_at = beside.settling.as_ref().map_or(idle_at, |over| over.deadline);
            match self.next(&mut main, beside, quiet_at).await {
                Next::Stop => return Err(Exit::Stopped),
                Next::Recalled => return Err(Exit::Recalled),
                Next::Committed(done) => {
                    let was_full = !self.ledger.has_room(self.context.config.batch_envelopes);
                    beside.in_flight = None;
                    self.ledger.committed();
                    settled(done)?;
                    // While a batch was full nobody listened: silence begins anew.
                    if was_full {
                        idle_at = self.idle_deadline();
                        if let Some(over) = &mut beside.settling {
                            self.wait_on(over);
                        }
                    }
                }
                Next::Frame(Some(Ok(envelope))) => {
                    if !self.take(&mut main, envelope) {
                        return Ok(Followed::Diverged);
                    }
                    idle_at = self.idle_deadline();
                    if let Some(over) = &mut beside.settling {
                        over.served |= matches!(over.probe, Probe::Main);
                        self.wait_on(over);
                    } else if self.ledger.ends_with_commitment() {
                        // A Commitment resolves a session of a standard mode; that it did is
                        // asked, not assumed.
                        self.look_beside(beside);
                    }
                }
                Next::Frame(end) => match self.ended(&mut main, beside, end).await? {
                    Some(followed) => return Ok(followed),
                    None => idle_at = self.idle_deadline(),
                },
                Next::Probed(probed) => {
                    if let Some(over) = &mut beside.settling
                        && !self.probed(over, probed)
                    {
                        return Ok(Followed::Diverged);
                    }
                }
                Next::Hint(hint) => {
                    if self.heard(hint, beside)? {
                        return Ok(Followed::Idle);
                    }
                }
                Next::Looked(answer) => {
                    let asked = beside.looking.take();
                    if self.looked(answer, asked, beside)? {
                        return Ok(Followed::Idle);
                    }
                    idle_at = self.idle_deadline();
                }
                Next::Asked => beside.fetching = Some(self.fetch_inbox()),
                Next::Fetched(fetched) => {
                    beside.fetching = None;
                    match fetched {
                        Ok(inbox) => self.carry_out_all(inbox),
                        // It is still there, and we are told of it again.
                        Err(fault) => {
                            tracing::warn!(run.id = %self.ledger.run.id, error = %fault, "Could not read an inbox");
                        }
                    }
                }
                Next::Quiet => {
                    if let Some(over) = &beside.settling
                        && over.served
                        && matches!(over.probe, Probe::Main)
                        && !self.is_counted()
                    {
                        // The silence of one stream: a second one shows where the first has ended.
                        beside.settling = Some(self.settling_with_probe(over.state));
                        continue;
                    }
                    return Ok(match &beside.settling {
                        None => Followed::Idle,
                        Some(over) if over.served || over.until.is_some() => Followed::Over,
                        Some(_) => Followed::Lost("a subscription is not served".to_owned()),
                    });
                }
            }
        }
    }

    /// Waits for what comes next. Whatever is dropped here loses nothing: every branch either is
    /// a future that stays where it is, or takes in one step what it gives.
    async fn next(&self, main: &mut Source, beside: &mut Beside, quiet_at: Instant) -> Next {
        let Beside { settling, in_flight, looking, fetching } = beside;
        let room = self.ledger.has_room(self.context.config.batch_envelopes);
        let looking = looking.as_mut().map(|looking| &mut looking.answer);
        let probe = settling.as_mut().map(|over| &mut over.probe);
        let may_fetch = room && fetching.is_none();
        tokio::select! {
            biased;
            () = self.context.stop.cancelled() => Next::Stop,
            () = self.listener.recalled() => Next::Recalled,
            done = some(in_flight.as_mut()) => Next::Committed(done.ok()),
            answer = some(looking) => Next::Looked(answer),
            fetched = some(fetching.as_mut()) => Next::Fetched(fetched),
            () = self.listener.asked(), if may_fetch => Next::Asked,
            hint = self.listener.next() => Next::Hint(hint),
            frame = main.next(), if room => Next::Frame(frame),
            probed = probed(probe), if room => Next::Probed(probed),
            // Who does not listen hears no silence.
            () = tokio::time::sleep_until(quiet_at), if room => Next::Quiet,
        }
    }

    /// Records an envelope and those that are here already; `false` when the history differs.
    fn take(&mut self, source: &mut Source, envelope: Envelope) -> bool {
        let (now, before) = (self.now(), self.ledger.session.cursor);
        let room = self.context.config.batch_envelopes;
        let taken = source.take_all(&mut self.ledger, envelope, now, room);
        if self.ledger.session.cursor > before {
            self.attached_well();
        }
        taken != Taken::Diverged
    }

    /// The stream gave an error or its end. `None` when the probe takes its place.
    async fn ended(
        &mut self,
        main: &mut Source,
        beside: &mut Beside,
        end: Option<Result<Envelope, RuntimeError>>,
    ) -> Result<Option<Followed>, Exit> {
        if let Some(over) = &mut beside.settling
            && let Probe::Open(_) = over.probe
            && let Probe::Open(probe) = std::mem::replace(&mut over.probe, Probe::Main)
        {
            *main = probe;
            return Ok(None);
        }
        let Some(Err(fault)) = end else {
            return Ok(Some(Followed::Lost("the stream ended".to_owned())));
        };
        if let RuntimeErrorKind::HistoryUnavailable { lowest_available } = fault.kind {
            if let Some(over) = &mut beside.settling {
                // Nothing is accepted any more, so this is where the history ends.
                over.until = Some(lowest_available);
                return Ok(Some(Followed::Over));
            }
            settled(answer(beside.in_flight.take()).await)?;
            self.commit().await?;
            if self.compacted(lowest_available).await? {
                return Ok(Some(Followed::Compacted));
            }
        }
        Ok(Some(match fault.kind == RuntimeErrorKind::Forbidden {
            true => Followed::Refused(fault.message),
            false => Followed::Lost(detail(&fault)),
        }))
    }

    /// Takes in a hint; `true` when everything has to be seen anew.
    fn heard(&mut self, hint: Hint, beside: &mut Beside) -> Result<bool, Exit> {
        match hint {
            Hint::Look => return Ok(true),
            Hint::Became(state) | Hint::Seen(state) if state.is_over() => {
                self.over(state, beside);
            }
            Hint::Became(state) => {
                if let Some(looking) = &mut beside.looking {
                    looking.stale = true;
                }
                if beside.settling.is_none() {
                    let moved = self.is_news(state);
                    self.lifecycle(state)?;
                    if moved && state == SessionState::Open {
                        // Its time goes on from where it stood, so it ends at another moment now.
                        self.look_beside(beside);
                    }
                }
            }
            // What was seen may be past, so the present is asked for.
            Hint::Seen(state) => {
                if beside.settling.is_none() && self.is_news(state) {
                    self.look_beside(beside);
                }
            }
        }
        Ok(false)
    }

    fn over(&self, state: SessionState, beside: &mut Beside) {
        if beside.settling.is_none() {
            beside.settling = Some(self.settling_with_probe(state));
        }
    }

    /// Asks what the session is, while reading goes on.
    fn look_beside(&self, beside: &mut Beside) {
        if let Some(looking) = &mut beside.looking {
            looking.stale = true;
            return;
        }
        let runtime = Arc::clone(&self.runtime);
        let session = self.ledger.session.session_id.clone();
        let answer = async move { runtime.get_session(&session).await }.boxed();
        let cursor = self.ledger.session.cursor;
        beside.looking = Some(Looking { answer, cursor, stale: false });
    }

    /// Takes in what the session is; `true` when everything has to be seen anew.
    fn looked(
        &mut self,
        answer: Result<SessionInfo, RuntimeError>,
        asked: Option<Looking>,
        beside: &mut Beside,
    ) -> Result<bool, Exit> {
        let info = match answer {
            Ok(info) if self.ledger.session.is_same_history(&info) => info,
            Ok(_other) => return Ok(true),
            // The stream, the watch and the sweep go on; a session that is gone has to be looked at.
            Err(fault) => return Ok(fault.kind == RuntimeErrorKind::NotFound),
        };
        self.ledger.session.expires_at = time::from_unix_ms(info.expires_at_unix_ms);
        if info.state.is_over() {
            self.note_activity(&info);
            self.over(info.state, beside);
            return Ok(false);
        }
        let Some(Looking { cursor, stale, .. }) = asked else { return Ok(false) };
        if stale {
            self.look_beside(beside);
        } else if beside.settling.is_none() {
            self.lifecycle(info.state)?;
        }
        if info.state == SessionState::Open && self.ledger.session.cursor == cursor {
            self.left_open = Some(cursor);
        }
        Ok(false)
    }

    fn is_news(&self, state: SessionState) -> bool {
        matches!(
            (state, self.ledger.run.state),
            (SessionState::Suspended, RunState::Running)
                | (SessionState::Open, RunState::Suspended)
        )
    }

    /// Suspended and resumed: the session stream never shows them.
    fn lifecycle(&mut self, state: SessionState) -> Result<(), Exit> {
        if !self.is_news(state) {
            return Ok(());
        }
        let now = self.now();
        let suspended = state == SessionState::Suspended;
        self.ledger.session_state(state, now);
        let to = if suspended { RunState::Suspended } else { RunState::Running };
        Ok(self.ledger.advance(to, now)?)
    }

    fn idle_deadline(&self) -> Instant {
        let idle = Instant::now() + self.context.config.stream_idle;
        // The runtime notices an expiry when it is asked, so we ask when it is due.
        let due = self.ledger.session.expires_at.and_then(|at| (at - self.now()).to_std().ok());
        due.map_or(idle, |due| idle.min(Instant::now() + due + Duration::from_millis(200)))
    }
}

/// A future that may not be there; then it never ends.
async fn some<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn probed(probe: Option<&mut Probe>) -> Probed {
    match probe {
        Some(probe) => probe.next().await,
        None => std::future::pending().await,
    }
}

/// The outcome of a commit that may be under way; none under way is fine.
async fn answer(in_flight: Option<oneshot::Receiver<Appended>>) -> Option<Appended> {
    match in_flight {
        Some(answer) => answer.await.ok(),
        None => Some(Appended::Committed),
    }
}
