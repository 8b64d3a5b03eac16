//! Settling: the session is over, and the rest of its history is read.
//!
//! **Invariant:** silence counts only after a subscription that was made after the end has shown
//! that it is being served. It is opened one envelope before the cursor, so that it has something
//! to show even when nothing is missing.

use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::{Envelope, Ordinal, SessionState};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Task;
use super::source::{Source, Stream, Taken};

/// A session that is over, while the rest of its history is read.
pub(super) struct Settling {
    pub(super) state: SessionState,
    /// When silence is taken for an answer.
    pub(super) deadline: Instant,
    /// The last ordinal there is, when the runtime said so.
    pub(super) until: Option<Ordinal>,
    /// The subscription that the end was learned after: it brings the rest.
    pub(super) probe: Probe,
    /// Whether that subscription is known to be served.
    pub(super) served: bool,
}

/// A subscription made after the end of the session was known.
pub(super) enum Probe {
    /// The stream that is followed is one.
    Main,
    Opening {
        opening: BoxFuture<'static, Result<Stream, RuntimeError>>,
        after: Ordinal,
    },
    Open(Source),
    /// There is none; the stream that is followed may still bring the rest.
    Lost,
}

/// What a probe has to say.
pub(super) enum Probed {
    Opened(Result<Stream, RuntimeError>),
    Frame(Option<Result<Envelope, RuntimeError>>),
}

impl Probe {
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Probed {
        match self {
            Self::Opening { opening, .. } => Probed::Opened(opening.await),
            Self::Open(source) => Probed::Frame(source.next().await),
            Self::Main | Self::Lost => std::future::pending().await,
        }
    }
}

impl Task<'_> {
    /// Settling on the stream that is followed, because it was opened after the end.
    pub(super) fn settling_on_main(&self, state: SessionState, served: bool) -> Settling {
        self.settling(state, Probe::Main, served)
    }

    /// Settling with a new subscription: the end was learned while following.
    pub(super) fn settling_with_probe(&self, state: SessionState) -> Settling {
        let runtime = std::sync::Arc::clone(&self.runtime);
        let session = self.ledger.session.session_id.clone();
        let after = (self.ledger.session.cursor - 1).max(0);
        let opening = async move { runtime.subscribe(&session, after).await }.boxed();
        self.settling(state, Probe::Opening { opening, after }, false)
    }

    fn settling(&self, state: SessionState, probe: Probe, served: bool) -> Settling {
        let mut over = Settling { state, deadline: Instant::now(), until: None, probe, served };
        self.wait_on(&mut over);
        over
    }

    /// Something came, so silence begins anew.
    pub(super) fn wait_on(&self, over: &mut Settling) {
        let config = &self.context.config;
        let resolved = over.state == SessionState::Resolved;
        // A resolved session has a last envelope, so its absence is waited for longer.
        let expects_more =
            over.until.is_some() || (resolved && !self.ledger.ends_with_commitment());
        let wait =
            if over.served && !expects_more { config.settle_quiet } else { config.settle_patience };
        over.deadline = Instant::now() + wait;
    }

    /// Whether nothing more can come.
    pub(super) fn is_settled(&self, over: &Settling) -> bool {
        let cursor = self.ledger.session.cursor;
        let all_here = over.until.is_some_and(|until| cursor >= until);
        all_here || self.ends_resolved(over.state)
    }

    /// Whether the last envelope recorded is the Commitment that resolved the session. One that left
    /// its session open says nothing about the end.
    pub(super) fn ends_resolved(&self, state: SessionState) -> bool {
        state == SessionState::Resolved
            && self.ledger.ends_with_commitment()
            && self.left_open != Some(self.ledger.session.cursor)
    }

    /// Whether a subscription to the last ordinal recorded has shown what is there.
    pub(super) fn is_counted(&self) -> bool {
        self.ledger.session.evidence.counted_to == self.ledger.session.cursor
    }

    /// Takes in what the probe says; `false` when the history differs.
    pub(super) fn probed(&mut self, over: &mut Settling, probed: Probed) -> bool {
        match probed {
            Probed::Opened(Ok(stream)) => {
                if let Probe::Opening { after, .. } = over.probe {
                    over.probe = Probe::Open(Source::new(stream, after));
                }
            }
            Probed::Frame(Some(Ok(envelope))) => {
                let Probe::Open(source) = &mut over.probe else { return true };
                let now = self.context.clock.now();
                let room = self.context.config.batch_envelopes;
                match source.take_all(&mut self.ledger, envelope, now, room) {
                    Taken::Diverged => return false,
                    // It has to begin with what it was opened at.
                    Taken::Redelivered if !source.has_shown() => return false,
                    Taken::Recorded | Taken::Known | Taken::Redelivered => {}
                }
                let ordinal = source.shown_to(&self.ledger);
                self.ledger.session.evidence.counted(ordinal);
                over.served = true;
            }
            Probed::Opened(Err(fault)) | Probed::Frame(Some(Err(fault))) => {
                over.probe = Probe::Lost;
                over.served = false;
                if let RuntimeErrorKind::HistoryUnavailable { lowest_available } = fault.kind {
                    over.until = Some(lowest_available);
                }
            }
            Probed::Frame(None) => {
                over.probe = Probe::Lost;
                over.served = false;
            }
        }
        self.wait_on(over);
        true
    }
}
