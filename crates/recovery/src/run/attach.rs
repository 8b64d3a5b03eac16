//! Attaching: find the session, see that it is the one we know, open its stream at the cursor.

use std::time::{Duration, Instant};

use control_plane_domain::control::{self, StreamStatus};
use control_plane_domain::run::{Failure, FailureCode};
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{Ordinal, RunState, SessionState};

use super::follow::Followed;
use super::source::{Source, Taken};
use super::{Exit, Origin, Task, detail};

/// How long the overlap's envelope may take: it is history, so it is there at once.
const OVERLAP_PATIENCE: Duration = Duration::from_secs(5);
/// How often the overlap may stay away before its absence is a fact and not a slow runtime.
const OVERLAP_ATTEMPTS: u32 = 3;

/// What the runtime says of the session.
enum Look {
    Session(SessionInfo),
    /// It knows no such session (any more).
    Missing,
    Refused(RuntimeError),
}

/// How opening the stream ended.
enum Opened {
    /// It is open, and stands where the log stands.
    Source(Source),
    /// Envelopes up to this one are gone; the log says so now.
    Gap,
    /// It could not be opened now.
    Failed(RuntimeError),
    /// The history under this session id is another one.
    Diverged(String),
}

impl Task<'_> {
    /// Attaches until the run is over.
    pub(super) async fn attach(&mut self) -> Result<(), Exit> {
        let mut overlap_misses = 0;
        let mut gap = false;
        loop {
            let began = Instant::now();
            let info = match self.look().await? {
                Look::Session(info) => info,
                Look::Missing => match self.missing().await? {
                    Some(info) => info,
                    None => return Ok(()),
                },
                Look::Refused(fault) => {
                    return self.fail(FailureCode::Forbidden, fault.message).await;
                }
            };
            if !self.ledger.session.is_same_history(&info) {
                return self.diverge("the session's start or initiator is another one").await;
            }
            self.bind(&info).await?;
            match self.open(gap).await? {
                Opened::Source(source) => {
                    overlap_misses = 0;
                    self.opened().await?;
                    match self.follow(source, info.state, gap).await? {
                        Followed::Over => return Ok(()),
                        Followed::Idle => {}
                        Followed::Compacted => gap = true,
                        Followed::Lost(fault) => {
                            self.wait_for_runtime(Instant::now(), &fault).await?;
                        }
                        Followed::Diverged => {
                            return self.diverge("an envelope differs from the recorded one").await;
                        }
                    }
                }
                Opened::Gap => gap = true,
                Opened::Failed(fault) => {
                    self.wait_for_runtime(began, &detail(&fault)).await?;
                }
                Opened::Diverged(reason) => {
                    overlap_misses += 1;
                    if overlap_misses >= OVERLAP_ATTEMPTS || reason != MISSING {
                        return self.diverge(&reason).await;
                    }
                }
            }
            let limit = self.context.config.max_retries;
            if limit > 0 && self.failures > limit {
                let message = format!("attaching failed {limit} times in a row");
                return self.fail(FailureCode::RuntimeUnavailable, message).await;
            }
        }
    }

    /// Asks for the session until there is an answer.
    async fn look(&mut self) -> Result<Look, Exit> {
        loop {
            let began = Instant::now();
            let asked = self.context.runtime.get_session(&self.ledger.session.session_id);
            let answer = tokio::select! {
                answer = asked => answer,
                () = self.context.stop.cancelled() => return Err(Exit::Stopped),
            };
            match answer {
                Ok(info) => return Ok(Look::Session(info)),
                Err(fault) if fault.kind == RuntimeErrorKind::NotFound => return Ok(Look::Missing),
                Err(fault) if fault.kind == RuntimeErrorKind::Forbidden => {
                    return Ok(Look::Refused(fault));
                }
                // Wrong credentials are for the operator to mend, and no fault of the run.
                Err(fault) => {
                    self.wait_for_runtime(began, &detail(&fault)).await?;
                    let limit = self.context.config.max_retries;
                    if limit > 0 && self.failures > limit {
                        return Ok(Look::Refused(fault));
                    }
                }
            }
        }
    }

    /// The session is not there: before it was bound that is normal, afterwards it is the end.
    async fn missing(&mut self) -> Result<Option<SessionInfo>, Exit> {
        if self.ledger.session.started_at_unix_ms.is_some() {
            self.gone().await?;
            return Ok(None);
        }
        self.wait_for_session().await
    }

    /// Waits for a session that nobody has started yet. The watch wakes us; the deadline is the
    /// run's own.
    async fn wait_for_session(&mut self) -> Result<Option<SessionInfo>, Exit> {
        let mode = self.ledger.session.mode_name.clone();
        if let Some(modes) = self.context.modes.refusal(&*self.context.runtime, &mode).await {
            let message =
                format!("the runtime does not offer {mode}; it offers {}", modes.join(", "));
            self.fail(FailureCode::ModeNotSupported, message).await?;
            return Ok(None);
        }
        let waited =
            self.ledger.run.started_at.map_or(Duration::ZERO, |started| {
                (self.now() - started).to_std().unwrap_or_default()
            });
        let patience = self.context.config.session_wait;
        let deadline = tokio::time::Instant::now() + patience.saturating_sub(waited);
        loop {
            match self.look().await? {
                Look::Session(info) => return Ok(Some(info)),
                Look::Refused(fault) => {
                    self.fail(FailureCode::Forbidden, fault.message).await?;
                    return Ok(None);
                }
                Look::Missing => {}
            }
            if tokio::time::Instant::now() >= deadline {
                let message =
                    format!("the session did not start within {} ms", patience.as_millis());
                self.fail(FailureCode::RuntimeTimeout, message).await?;
                return Ok(None);
            }
            tokio::select! {
                hint = self.listener.next() => {
                    if hint == crate::watch::Hint::Inbox {
                        self.take_inbox().await?;
                        self.commit().await?;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
                () = self.context.stop.cancelled() => return Err(Exit::Stopped),
            }
        }
    }

    /// Takes over the session's facts, once.
    async fn bind(&mut self, info: &SessionInfo) -> Result<(), Exit> {
        if self.ledger.session.started_at_unix_ms.is_none() {
            let now = self.now();
            self.ledger.bind(info, now)?;
            self.commit().await?;
        }
        Ok(())
    }

    /// Opens the stream one envelope before the log's end, so that what comes first must be what
    /// was recorded last.
    async fn open(&mut self, gap: bool) -> Result<Opened, Exit> {
        let cursor = self.ledger.session.cursor;
        let overlap = cursor > 0 && self.ledger.session.last_message_id.is_some() && !gap;
        let after: Ordinal = if overlap { cursor - 1 } else { cursor };
        let opening = self.context.runtime.subscribe(&self.ledger.session.session_id, after);
        let opened = tokio::select! {
            opened = opening => opened,
            () = self.context.stop.cancelled() => return Err(Exit::Stopped),
        };
        let mut source = match opened {
            Ok(stream) => Source::new(stream, after),
            Err(fault) => return self.not_opened(fault).await,
        };
        if !overlap {
            return Ok(Opened::Source(source));
        }
        let first = tokio::select! {
            first = tokio::time::timeout(OVERLAP_PATIENCE, source.next()) => first,
            () = self.context.stop.cancelled() => return Err(Exit::Stopped),
        };
        match first {
            Ok(Some(Ok(envelope))) => {
                let now = self.now();
                match source.take(&mut self.ledger, envelope, now) {
                    Taken::Known => Ok(Opened::Source(source)),
                    Taken::Recorded | Taken::Redelivered | Taken::Diverged => {
                        Ok(Opened::Diverged("the last envelope is another one".to_owned()))
                    }
                }
            }
            Ok(Some(Err(fault))) => self.not_opened(fault).await,
            Ok(None) => Ok(Opened::Failed(ended())),
            Err(_late) => Ok(Opened::Diverged(MISSING.to_owned())),
        }
    }

    async fn not_opened(&mut self, fault: RuntimeError) -> Result<Opened, Exit> {
        match fault.kind {
            RuntimeErrorKind::HistoryUnavailable { lowest_available } => {
                if lowest_available > self.ledger.session.cursor {
                    self.record_gap(lowest_available).await?;
                }
                Ok(Opened::Gap)
            }
            _ => Ok(Opened::Failed(fault)),
        }
    }

    /// Records that envelopes up to `to` are gone.
    pub(super) async fn record_gap(&mut self, to: Ordinal) -> Result<(), Exit> {
        let now = self.now();
        let from = self.ledger.session.cursor + 1;
        tracing::warn!(
            run.id = %self.ledger.run.id, from, to,
            "Envelopes {from} to {to} of run {} cannot be read any more", self.ledger.run.id
        );
        metrics::counter!("macp_history_gaps_total").increment(1);
        self.ledger.gap(to, "HISTORY_UNAVAILABLE", now);
        self.commit().await
    }

    /// The stream is open: the run is running, and the log says how it came to that.
    async fn opened(&mut self) -> Result<(), Exit> {
        let now = self.now();
        let first = self.ledger.run.state == RunState::BindingSession;
        if first {
            self.ledger.advance(RunState::Running, now)?;
            if self.ledger.session.state == SessionState::Open {
                self.ledger.session_state(SessionState::Open, now);
            }
        }
        let recovered = self.origin == Origin::Recovered;
        if first || recovered {
            let status = if recovered { StreamStatus::Recovered } else { StreamStatus::Opened };
            let detail = recovered.then_some("stream resumed after restart");
            let session = &self.ledger.session;
            let draft =
                control::stream_opened(&session.session_id, status, session.cursor, detail, now);
            self.ledger.event(draft, now);
            if recovered {
                metrics::counter!("macp_recovery_total", "status" => "attached").increment(1);
            }
        }
        self.origin = Origin::Launched;
        self.ledger.session.connected_at = Some(now);
        self.outage = false;
        if first || recovered {
            self.commit().await?;
        }
        Ok(())
    }

    /// Fails the run.
    pub(super) async fn fail(&mut self, code: FailureCode, message: String) -> Result<(), Exit> {
        let now = self.now();
        let bound = self.ledger.session.started_at_unix_ms.is_some();
        self.ledger.fail(&Failure { code, message }, now)?;
        if !bound {
            // A session that starts later can still be recorded.
            self.ledger.run.session_id = None;
        }
        self.commit().await
    }

    async fn diverge(&mut self, reason: &str) -> Result<(), Exit> {
        let now = self.now();
        let session = &self.ledger.session;
        let draft = control::stream_diverged(&session.session_id, session.cursor, reason, now);
        self.ledger.event(draft, now);
        let message = format!("another history stands under the session's id: {reason}");
        self.fail(FailureCode::SessionDiverged, message).await
    }
}

const MISSING: &str = "the last envelope recorded is missing";

fn ended() -> RuntimeError {
    RuntimeError {
        kind: RuntimeErrorKind::Unavailable,
        grpc_code: 14,
        message: "the stream ended".to_owned(),
    }
}
