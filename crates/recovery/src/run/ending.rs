//! The end of a run: by its session's state, and by the decision receipt where history is gone.

use std::time::Instant;

use control_plane_domain::run::{Failure, FailureCode};
use control_plane_domain::runtime::RuntimeErrorKind;
use control_plane_domain::{RunState, SessionState};
use serde_json::Value;

use super::{Exit, Task};

/// What a receipt tells of a session.
enum Receipt {
    /// It resolved, and this is the document.
    Document(Value),
    /// It exists and did not resolve.
    Unresolved,
    /// The runtime has none, or gives none to us.
    None,
}

impl Task<'_> {
    /// Ends the run as its session ended. Everything that could be read is in the ledger.
    pub(super) async fn conclude(&mut self, state: SessionState) -> Result<(), Exit> {
        if state == SessionState::Resolved
            && !self.ledger.ends_with_commitment()
            && let Receipt::Document(document) = self.receipt().await?
        {
            let now = self.now();
            self.ledger.receipt(&document, now);
        }
        let now = self.now();
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

    /// The runtime does not know the session any more: the receipt tells how it ended.
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
        match self.receipt().await? {
            Receipt::Document(document) => {
                let now = self.now();
                let session = &self.ledger.session;
                let draft = control_plane_domain::control::stream_gap_open(
                    &session.session_id,
                    session.cursor + 1,
                    "SESSION_EVICTED",
                    now,
                );
                self.ledger.event(draft, now);
                self.ledger.receipt(&document, now);
                self.ledger.session_state(SessionState::Resolved, now);
                self.ledger.advance(RunState::Completed, now)?;
                self.commit().await
            }
            Receipt::Unresolved => {
                let message = "the session ended without resolving while it was not followed";
                self.fail(FailureCode::SessionEndedUnresolved, message.to_owned()).await
            }
            Receipt::None => {
                let message = "the runtime knows neither the session nor a receipt of it";
                self.fail(FailureCode::SessionGone, message.to_owned()).await
            }
        }
    }

    /// Asks for the receipt until there is an answer. It has no limit: without it, the run would
    /// have to guess how its session ended.
    async fn receipt(&mut self) -> Result<Receipt, Exit> {
        loop {
            let began = Instant::now();
            let (context, session) = (self.context, self.ledger.session.session_id.clone());
            match self.serving(context.runtime.decision_receipt(&session)).await? {
                Ok(document) => return Ok(Receipt::Document(document)),
                Err(fault) if fault.kind == RuntimeErrorKind::ReceiptUnavailable => {
                    return Ok(Receipt::Unresolved);
                }
                // Busy is no verdict, and wrong credentials are for the operator to mend.
                Err(fault)
                    if fault.kind.is_transient()
                        || fault.kind == RuntimeErrorKind::Unauthenticated =>
                {
                    let wait = self.context.backoff.failed(began, Instant::now());
                    self.serving(tokio::time::sleep(wait)).await?;
                }
                Err(_) => return Ok(Receipt::None),
            }
        }
    }
}
