//! Attaching: find the session, see that it is the one we know, open its stream at the cursor.

use std::sync::Arc;
use std::time::Instant;

use control_plane_domain::control::{self, StreamStatus};
use control_plane_domain::run::{Failure, FailureCode};
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{Ordinal, RunState, SessionState, time};

use super::follow::Followed;
use super::look::Look;
use super::source::{Source, Taken};
use super::{Exit, Origin, Task};

/// How often the overlap may stay away, from a runtime that answers, before that is a fact.
const OVERLAP_ATTEMPTS: u32 = 2;

/// How opening the stream ended.
enum Opened {
    /// It is open, and stands where the log stands; whether it has shown that.
    Source { source: Source, shown: bool },
    /// The session is over, and so is its history: the log says what is missing.
    Complete,
    /// The history up to the cursor is compacted; the log says so.
    Compacted,
    /// It could not be opened now.
    Failed(RuntimeError),
    /// The runtime does not let us observe the session.
    Refused(String),
    /// The runtime answers, and the last envelope recorded does not come.
    Missing,
    /// Another envelope stands at the place of the last one recorded.
    Diverged,
}

impl Task<'_> {
    /// Attaches until the run is over.
    pub(super) async fn attach(&mut self) -> Result<(), Exit> {
        let mut misses = 0;
        loop {
            let began = Instant::now();
            let info = match self.find().await? {
                Look::Session(info) => *info,
                Look::Missing => {
                    count("gone");
                    return self.gone().await;
                }
                Look::Refused(code, message) => {
                    count("refused");
                    return self.fail(code, message).await;
                }
            };
            if !self.ledger.session.is_same_history(&info) {
                return self.diverge("the session's start or initiator is another one").await;
            }
            self.note_activity(&info);
            self.bind(&info).await?;
            let opened = self.open(info.state).await?;
            self.count_attach(&opened);
            self.note_reattach(&opened);
            match opened {
                Opened::Source { source, shown } => {
                    misses = 0;
                    self.opened().await?;
                    let since = Instant::now();
                    match self.follow(source, info.state, shown).await? {
                        Followed::Over => return Ok(()),
                        Followed::Idle | Followed::Compacted => {}
                        Followed::Lost(fault) => {
                            if since.elapsed() > self.context.config.backoff_max {
                                // It lived, so this outage is a new one.
                                self.outage = false;
                                self.failures = 0;
                            }
                            // An outage that ends many streams counts once, so the attempt that
                            // failed is the one that opened this stream.
                            self.wait_for_runtime(began, &silent(&fault)).await?;
                        }
                        Followed::Refused(message) => {
                            return self.fail(FailureCode::Forbidden, message).await;
                        }
                        Followed::Diverged => {
                            return self.diverge("an envelope differs from the recorded one").await;
                        }
                    }
                }
                Opened::Complete => {
                    self.opened().await?;
                    return self.conclude(info.state).await;
                }
                Opened::Compacted => {}
                Opened::Failed(fault) => self.wait_for_runtime(began, &fault).await?,
                Opened::Refused(message) => {
                    return self.fail(FailureCode::Forbidden, message).await;
                }
                Opened::Missing => {
                    misses += 1;
                    if misses >= OVERLAP_ATTEMPTS {
                        return self.diverge("the last envelope recorded is missing").await;
                    }
                }
                Opened::Diverged => return self.diverge("the last envelope is another one").await,
            }
            if self.is_out_of_retries() {
                let limit = self.context.config.max_retries;
                let message = format!("attaching failed {limit} times in a row");
                return self.fail(FailureCode::RuntimeUnavailable, message).await;
            }
        }
    }

    /// Takes over the session's facts, once, and when it is due.
    async fn bind(&mut self, info: &SessionInfo) -> Result<(), Exit> {
        self.ledger.session.expires_at = time::from_unix_ms(info.expires_at_unix_ms);
        if self.ledger.session.started_at_unix_ms.is_none() {
            let now = self.now();
            self.ledger.bind(info, now)?;
            self.commit().await?;
        }
        Ok(())
    }

    /// Opens the stream one envelope before the log's end, so that what comes first must be what
    /// was recorded last.
    ///
    /// Where that one is compacted, the stream is opened at the end; but not when the session is
    /// over: then the runtime's refusal tells how long the history is.
    async fn open(&mut self, state: SessionState) -> Result<Opened, Exit> {
        let session = &self.ledger.session;
        let (cursor, over) = (session.cursor, state.is_over());
        let readable = cursor > self.compacted && session.last_message_id.is_some();
        let overlap = cursor > 0 && (over || readable);
        let after: Ordinal = if overlap { cursor - 1 } else { cursor };
        let mut source = match self.subscribe(after).await? {
            Ok(source) => source,
            Err(fault) => return self.not_opened(fault, over).await,
        };
        if !overlap {
            return Ok(Opened::Source { source, shown: false });
        }
        let patience = self.context.config.overlap_patience;
        match self.serving(tokio::time::timeout(patience, source.next())).await? {
            Ok(Some(Ok(envelope))) => {
                let now = self.now();
                Ok(match source.take(&mut self.ledger, envelope, now) {
                    Taken::Known => Opened::Source { source, shown: true },
                    Taken::Recorded | Taken::Redelivered | Taken::Diverged => Opened::Diverged,
                })
            }
            Ok(Some(Err(fault))) => self.not_opened(fault, over).await,
            Ok(None) => Ok(Opened::Failed(silent("the stream ended"))),
            Err(_late) => {
                drop(source);
                self.missing_overlap().await
            }
        }
    }

    async fn subscribe(&mut self, after: Ordinal) -> Result<Result<Source, RuntimeError>, Exit> {
        let session = self.ledger.session.session_id.clone();
        let runtime = Arc::clone(&self.runtime);
        let opened = self.serving(runtime.subscribe(&session, after)).await?;
        Ok(opened.map(|stream| Source::new(stream, after)))
    }

    /// The overlap did not come. A runtime that does not deliver the session's first envelope
    /// either is slow; one that does has a shorter history than ours.
    async fn missing_overlap(&mut self) -> Result<Opened, Exit> {
        let mut whole = match self.subscribe(0).await? {
            Ok(whole) => whole,
            Err(fault) => return Ok(Opened::Failed(fault)),
        };
        let patience = self.context.config.overlap_patience;
        Ok(match self.serving(tokio::time::timeout(patience, whole.next())).await? {
            Ok(Some(Ok(_first))) => Opened::Missing,
            Ok(Some(Err(fault))) => Opened::Failed(fault),
            Ok(None) | Err(_) => Opened::Failed(silent("the runtime delivers nothing")),
        })
    }

    async fn not_opened(&mut self, fault: RuntimeError, over: bool) -> Result<Opened, Exit> {
        if let RuntimeErrorKind::HistoryUnavailable { lowest_available: lowest } = fault.kind {
            let is_end = over && lowest >= self.ledger.session.cursor;
            return Ok(match self.compacted(lowest).await? {
                _any if is_end => {
                    self.note_total(lowest);
                    Opened::Complete
                }
                true => Opened::Compacted,
                false => Opened::Failed(fault),
            });
        }
        let refused = fault.kind == RuntimeErrorKind::Forbidden;
        Ok(if refused { Opened::Refused(fault.message) } else { Opened::Failed(fault) })
    }

    /// Takes note that the history up to `lowest` is compacted, and records what we miss of it.
    /// `false` when that makes no sense: then trying at once would be told the same for ever.
    pub(super) async fn compacted(&mut self, lowest: Ordinal) -> Result<bool, Exit> {
        let cursor = self.ledger.session.cursor;
        if lowest > cursor {
            self.record_gap(lowest).await?;
        }
        let known = self.compacted;
        self.compacted = known.max(lowest);
        Ok(lowest > cursor || (lowest == cursor && known < cursor))
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
        let missing = u64::try_from(to - from + 1).unwrap_or_default();
        metrics::counter!("macp_history_gap_envelopes_total").increment(missing);
        self.ledger.gap(to, "HISTORY_UNAVAILABLE", now);
        self.commit().await
    }

    /// Notes whether a stream that was opened behind something recorded has shown it. It is written
    /// with whatever is written next: a quiet run is not written for that.
    fn note_reattach(&mut self, opened: &Opened) {
        let session = &mut self.ledger.session;
        let is_shown = match opened {
            Opened::Source { shown, .. } => *shown,
            Opened::Missing | Opened::Diverged => false,
            Opened::Complete | Opened::Compacted | Opened::Failed(_) | Opened::Refused(_) => return,
        };
        if session.cursor > 0 {
            session.evidence.reattaches += 1;
            session.evidence.overlaps_shown += i64::from(is_shown);
        }
        if is_shown {
            session.evidence.counted(session.cursor);
        }
    }

    /// Counts how an attempt to attach ended.
    fn count_attach(&self, opened: &Opened) {
        count(match opened {
            Opened::Source { .. } if self.ledger.run.state == RunState::BindingSession => "opened",
            Opened::Source { .. } if self.origin == Origin::Recovered => "recovered",
            Opened::Source { .. } => "reopened",
            Opened::Complete => "complete",
            Opened::Compacted => "compacted",
            Opened::Failed(_) => "failed",
            Opened::Refused(_) => "refused",
            Opened::Missing => "missing",
            Opened::Diverged => "diverged",
        });
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
            self.ledger.trace_artifact(now);
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
        let returned = self.ledger.session.connect(now);
        if returned {
            self.ledger.touch();
        }
        if first || recovered || returned {
            self.commit().await?;
        }
        Ok(())
    }

    /// Fails the run.
    pub(super) async fn fail(&mut self, code: FailureCode, message: String) -> Result<(), Exit> {
        let now = self.now();
        let bound = self.ledger.session.started_at_unix_ms.is_some();
        self.ledger.fail(&Failure { code, message }, now)?;
        if !bound && !self.ledger.run.is_unclaimed() {
            // A session that starts later can still be recorded. One that was found is there.
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

fn count(outcome: &'static str) {
    metrics::counter!("macp_attaches_total", "outcome" => outcome).increment(1);
}

/// A stream that is gone, as a fault of the runtime.
fn silent(message: &str) -> RuntimeError {
    RuntimeError { kind: RuntimeErrorKind::Unavailable, grpc_code: 14, message: message.to_owned() }
}
