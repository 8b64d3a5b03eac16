//! A subscription, with the count that the runtime does not send.
//!
//! **Invariant:** an envelope is recorded at exactly one ordinal. What a stream delivers at or
//! below the cursor must be what is recorded there; what is delivered twice moves nothing.

use control_plane_domain::runtime::RuntimeError;
use control_plane_domain::{Envelope, Ordinal, Timestamp};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::ledger::Ledger;

/// One stream of a session's envelopes.
pub(super) struct Source {
    stream: BoxStream<'static, Result<Envelope, RuntimeError>>,
    /// The ordinal of the next envelope.
    next: Ordinal,
    last_message_id: Option<String>,
    fault: Option<RuntimeError>,
}

/// What an envelope turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is new, and recorded.
    Recorded,
    /// It stands in the log already, at this place.
    Known,
    /// It was delivered a second time.
    Redelivered,
    /// The log has another envelope at its place.
    Diverged,
}

impl Source {
    /// A stream that was opened after ordinal `after`.
    pub(super) fn new(
        stream: BoxStream<'static, Result<Envelope, RuntimeError>>,
        after: Ordinal,
    ) -> Self {
        Self { stream, next: after + 1, last_message_id: None, fault: None }
    }

    /// The next frame; `None` at the stream's end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Result<Envelope, RuntimeError>> {
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        self.stream.next().await
    }

    /// Puts a fault back that was met while draining, so that it is the next frame.
    pub(super) fn fail_next(&mut self, fault: RuntimeError) {
        self.fault = Some(fault);
    }

    /// The next frame, if it is here already.
    pub(super) fn ready(&mut self) -> Option<Result<Envelope, RuntimeError>> {
        futures_util::FutureExt::now_or_never(self.stream.next()).flatten()
    }

    /// Puts an envelope where it belongs.
    pub(super) fn take(
        &mut self,
        ledger: &mut Ledger,
        envelope: Envelope,
        now: Timestamp,
    ) -> Taken {
        if self.last_message_id.as_deref() == Some(envelope.message_id.as_str()) {
            return Taken::Redelivered;
        }
        let cursor = ledger.session.cursor;
        if self.next <= cursor {
            let recorded = ledger.session.last_message_id.as_deref();
            if self.next == cursor && recorded.is_some_and(|id| id != envelope.message_id) {
                return Taken::Diverged;
            }
            self.count(&envelope);
            return Taken::Known;
        }
        if ledger.has_seen(&envelope.message_id) {
            return Taken::Redelivered;
        }
        self.count(&envelope);
        metrics::counter!(
            "macp_inbound_messages_total",
            "mode" => mode_label(&envelope.mode),
            "message_type" => type_label(&envelope.message_type),
        )
        .increment(1);
        ledger.envelope(envelope, now);
        Taken::Recorded
    }

    fn count(&mut self, envelope: &Envelope) {
        self.next += 1;
        self.last_message_id = Some(envelope.message_id.clone());
    }
}

const MODES: [&str; 6] = [
    "macp.mode.decision.v1",
    "macp.mode.proposal.v1",
    "macp.mode.task.v1",
    "macp.mode.handoff.v1",
    "macp.mode.quorum.v1",
    "ext.multi_round.v1",
];

const TYPES: [&str; 24] = [
    "SessionStart",
    "Commitment",
    "Proposal",
    "Evaluation",
    "Objection",
    "Vote",
    "CounterProposal",
    "Accept",
    "Reject",
    "Withdraw",
    "TaskRequest",
    "TaskAccept",
    "TaskReject",
    "TaskUpdate",
    "TaskComplete",
    "TaskFail",
    "HandoffOffer",
    "HandoffContext",
    "HandoffAccept",
    "HandoffDecline",
    "ApprovalRequest",
    "Approve",
    "Abstain",
    "Contribute",
];

/// Labels are ours, so that no agent decides how many series there are.
fn mode_label(mode: &str) -> &'static str {
    MODES.into_iter().find(|known| *known == mode).unwrap_or("other")
}

fn type_label(message_type: &str) -> &'static str {
    TYPES.into_iter().find(|known| *known == message_type).unwrap_or("other")
}
