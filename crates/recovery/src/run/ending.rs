//! The end of a run: by its session's state, and by the decision receipt where history is gone.
//!
//! What happens once in a run's life is boxed here: unboxed, it would be part of what every quiet
//! run's task takes.

use std::sync::Arc;
use std::time::Instant;

use control_plane_domain::run::{Failure, FailureCode};
use control_plane_domain::runtime::RuntimeErrorKind;
use control_plane_domain::{RunState, SessionState, control, receipt};

use super::{Exit, Task};
use crate::backoff::Backoff;

/// What a receipt tells of a session.
enum Receipt {
    /// It resolved, and this is the document.
    Document(receipt::Receipt),
    /// It exists and did not resolve.
    Unresolved,
    /// The runtime knows nothing of it.
    Unknown,
    /// It gives none to us, and why.
    Withheld(String),
}

impl Task<'_> {
    /// Ends the run as its session ended. Everything that could be read is in the ledger.
    pub(super) async fn conclude(&mut self, state: SessionState) -> Result<(), Exit> {
        let asks = state == SessionState::Resolved && !self.ledger.ends_with_commitment();
        let receipt = if asks { Some(Box::pin(self.receipt()).await?) } else { None };
        Box::pin(self.look_back(state)).await?;
        // What ends the run is one batch: of a part of it, the next process would not know.
        let now = self.now();
        if let Some(Receipt::Document(document)) = receipt {
            self.ledger.receipt(&document, now);
        }
        self.ledger.session_state(state, now);
        match state {
            SessionState::Cancelled => self.ledger.advance(RunState::Cancelled, now)?,
            SessionState::Expired => {
                let message = "the session expired".to_owned();
                self.ledger.fail(&Failure { code: FailureCode::SessionExpired, message }, now)?;
            }
            SessionState::Resolved
            | SessionState::Open
            | SessionState::Suspended
            | SessionState::Unspecified => self.ledger.advance(RunState::Completed, now)?,
        }
        self.commit().await
    }

    /// The runtime does not know the session any more: the receipt tells how it ended, and the log
    /// tells from where on something may be missing.
    pub(super) async fn gone(&mut self) -> Result<(), Exit> {
        // A run that was found and never bound gets there, too: the receipt may say that it resolved.
        for (from, to) in [
            (RunState::Starting, RunState::BindingSession),
            (RunState::BindingSession, RunState::Running),
        ] {
            if self.ledger.run.state == from {
                let now = self.now();
                self.ledger.advance(to, now)?;
            }
        }
        if self.ledger.ends_with_commitment() {
            return self.conclude(SessionState::Resolved).await;
        }
        let receipt = Box::pin(self.receipt()).await?;
        self.open_gap(match receipt {
            Receipt::Document(_) | Receipt::Unresolved => "SESSION_EVICTED",
            Receipt::Unknown | Receipt::Withheld(_) => "SESSION_GONE",
        });
        match receipt {
            Receipt::Document(document) => {
                let now = self.now();
                self.ledger.receipt(&document, now);
                self.ledger.session_state(SessionState::Resolved, now);
                self.ledger.advance(RunState::Completed, now)?;
                self.commit().await
            }
            Receipt::Unresolved => {
                // Extension modes have no receipts, however they end.
                let message = "the session ended while it was not followed, and there is no receipt that it resolved";
                self.fail(FailureCode::SessionEndedUnresolved, message.to_owned()).await
            }
            Receipt::Unknown => {
                let message = "the runtime knows neither the session nor a receipt of it";
                self.fail(FailureCode::SessionGone, message.to_owned()).await
            }
            Receipt::Withheld(why) => {
                let message = format!(
                    "the runtime does not know the session, and gives no receipt of it: {why}"
                );
                self.fail(FailureCode::SessionGone, message).await
            }
        }
    }

    /// Records that whatever came after the last envelope recorded cannot be read any more. How
    /// much that is, nobody can say.
    fn open_gap(&mut self, reason: &str) {
        let now = self.now();
        let session = &self.ledger.session;
        let from = session.cursor + 1;
        tracing::warn!(
            run.id = %self.ledger.run.id, from, reason,
            "Envelopes of run {} from {from} on, if there are any, cannot be read any more", self.ledger.run.id
        );
        metrics::counter!("macp_history_gaps_total").increment(1);
        let draft = control::stream_gap_open(&session.session_id, from, reason, now);
        self.ledger.event(draft, now);
    }

    /// Asks for the receipt until there is an answer. It has no limit: without it, the run would
    /// have to guess how its session ended.
    async fn receipt(&mut self) -> Result<Receipt, Exit> {
        let (base, max) = (self.context.config.backoff_base, self.context.config.backoff_max);
        // Of its own: that receipts are rationed is no outage, and must not hold up other runs.
        let ration = Backoff::new(base, max);
        loop {
            let began = Instant::now();
            let session = self.ledger.session.session_id.clone();
            let runtime = Arc::clone(&self.runtime);
            match self.serving(runtime.decision_receipt(&session)).await? {
                Ok(document) => return Ok(Receipt::Document(document)),
                Err(fault) if fault.kind == RuntimeErrorKind::ReceiptUnavailable => {
                    return Ok(Receipt::Unresolved);
                }
                Err(fault) if fault.kind == RuntimeErrorKind::NotFound => {
                    return Ok(Receipt::Unknown);
                }
                // Busy is no verdict.
                Err(fault) if fault.kind == RuntimeErrorKind::RateLimited => {
                    self.serving(ration.pause(began)).await?;
                }
                // Wrong credentials are for the operator to mend.
                Err(fault)
                    if fault.kind.is_transient()
                        || fault.kind == RuntimeErrorKind::Unauthenticated =>
                {
                    self.pause_after(began, &fault).await?;
                }
                Err(fault) => return Ok(Receipt::Withheld(fault.message)),
            }
        }
    }
}
