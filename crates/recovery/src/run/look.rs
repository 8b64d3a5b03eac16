//! Looking: asks the runtime for the session until there is an answer, or patience is used up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_domain::run::FailureCode;
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::session::SessionInfo;

use super::{Exit, Task};

/// What the runtime says of the session.
pub(super) enum Look {
    Session(Box<SessionInfo>),
    /// It knows no such session (any more).
    Missing,
    /// The run fails for this.
    Refused(FailureCode, String),
}

impl Task<'_> {
    /// Finds the session, which need not exist yet when it was never seen.
    pub(super) async fn find(&mut self) -> Result<Look, Exit> {
        match self.look().await? {
            // A session that was found and is gone again will not start.
            Look::Missing
                if self.ledger.session.started_at_unix_ms.is_none()
                    && !self.ledger.run.is_unclaimed() =>
            {
                self.wait_for_session().await
            }
            seen @ (Look::Session(_) | Look::Missing | Look::Refused(..)) => Ok(seen),
        }
    }

    /// Asks for the session until there is an answer.
    async fn look(&mut self) -> Result<Look, Exit> {
        loop {
            let began = Instant::now();
            let session = self.ledger.session.session_id.clone();
            let runtime = Arc::clone(&self.runtime);
            let fault: RuntimeError = match self.serving(runtime.get_session(&session)).await? {
                Ok(info) => {
                    self.note_reached();
                    self.listener.accepted(info.accepted_at_least());
                    return Ok(Look::Session(Box::new(info)));
                }
                Err(fault) => fault,
            };
            match fault.kind {
                RuntimeErrorKind::NotFound => {
                    self.note_reached();
                    return Ok(Look::Missing);
                }
                RuntimeErrorKind::Forbidden => {
                    return Ok(Look::Refused(FailureCode::Forbidden, fault.message));
                }
                // Wrong credentials are for the operator to mend, and no fault of the run.
                RuntimeErrorKind::Unauthenticated
                | RuntimeErrorKind::HistoryUnavailable { .. }
                | RuntimeErrorKind::ReceiptUnavailable
                | RuntimeErrorKind::RateLimited
                | RuntimeErrorKind::StreamLagged
                | RuntimeErrorKind::InvalidArgument
                | RuntimeErrorKind::Conflict
                | RuntimeErrorKind::Unimplemented
                | RuntimeErrorKind::Unavailable
                | RuntimeErrorKind::NoCredentials
                | RuntimeErrorKind::Timeout
                | RuntimeErrorKind::Internal
                | RuntimeErrorKind::CircuitOpen { .. } => {}
            }
            self.wait_for_runtime(began, &fault).await?;
            if self.is_out_of_retries() {
                let limit = self.context.config.max_retries;
                let message = format!("attaching failed {limit} times in a row: {fault}");
                return Ok(Look::Refused(FailureCode::RuntimeUnavailable, message));
            }
        }
    }

    /// Waits for a session that nobody has started yet. The watch wakes us; the deadline is the
    /// run's own.
    async fn wait_for_session(&mut self) -> Result<Look, Exit> {
        let (context, mode) = (self.context, self.ledger.session.mode_name.clone());
        let runtime = Arc::clone(&self.runtime);
        let refusal = self.serving(context.modes.refusal(&*runtime, &mode)).await?;
        if let Some(modes) = refusal {
            let message =
                format!("the runtime does not offer {mode}; it offers {}", modes.join(", "));
            return Ok(Look::Refused(FailureCode::ModeNotSupported, message));
        }
        let waited =
            self.ledger.run.started_at.map_or(Duration::ZERO, |started| {
                (self.now() - started).to_std().unwrap_or_default()
            });
        let patience = context.config.session_wait;
        let deadline = tokio::time::Instant::now() + patience.saturating_sub(waited);
        loop {
            match self.look().await? {
                Look::Missing => {}
                seen @ (Look::Session(_) | Look::Refused(..)) => return Ok(seen),
            }
            if tokio::time::Instant::now() >= deadline {
                let message =
                    format!("the session did not start within {} ms", patience.as_millis());
                return Ok(Look::Refused(FailureCode::RuntimeTimeout, message));
            }
            self.commit().await?;
            let listener = Arc::clone(&self.listener);
            let _any = self.serving(tokio::time::timeout_at(deadline, listener.next())).await?;
        }
    }
}
