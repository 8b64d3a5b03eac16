//! A subscription, with the count that the runtime does not send.
//!
//! **Invariant:** an envelope is recorded at exactly one ordinal. What a stream delivers at or
//! below the cursor must be what is recorded there; what is delivered twice moves nothing.

use control_plane_domain::runtime::RuntimeError;
use control_plane_domain::{Envelope, Ordinal, Timestamp};
use futures_util::stream::{BoxStream, Fuse};
use futures_util::{FutureExt, StreamExt};

use crate::ledger::Ledger;

/// What a runtime gives to a subscriber.
pub(super) type Stream = BoxStream<'static, Result<Envelope, RuntimeError>>;

/// One stream of a session's envelopes.
pub(super) struct Source {
    /// Fused, because a stream must not be asked again after its end, and [`Source::ready`] may
    /// have met it.
    stream: Fuse<Stream>,
    /// The ordinal of the next envelope.
    next: Ordinal,
    last_message_id: Option<String>,
    fault: Option<RuntimeError>,
    /// Whether it has delivered something that was recorded before.
    has_shown: bool,
}

/// What an envelope turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub(super) fn new(stream: Stream, after: Ordinal) -> Self {
        Self {
            stream: stream.fuse(),
            next: after + 1,
            last_message_id: None,
            fault: None,
            has_shown: false,
        }
    }

    /// Whether it has delivered, where it stands, something that was recorded before.
    pub(super) fn has_shown(&self) -> bool {
        self.has_shown
    }

    /// Up to where it has shown that the log counts as it does; 0 when it has not.
    pub(super) fn shown_to(&self, ledger: &Ledger) -> Ordinal {
        if self.has_shown { (self.next - 1).min(ledger.session.cursor) } else { 0 }
    }

    /// The next frame; `None` at the stream's end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Result<Envelope, RuntimeError>> {
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        self.stream.next().await
    }

    /// Records an envelope and those that are here already, as long as there is room for them.
    pub(super) fn take_all(
        &mut self,
        ledger: &mut Ledger,
        envelope: Envelope,
        now: Timestamp,
        room: usize,
    ) -> Taken {
        let mut taken = self.take(ledger, envelope, now);
        // What follows a Commitment is read after it was asked what the Commitment did.
        while taken != Taken::Diverged && ledger.has_room(room) && !ledger.ends_with_commitment() {
            match self.stream.next().now_or_never().flatten() {
                Some(Ok(envelope)) => taken = self.take(ledger, envelope, now),
                Some(Err(fault)) => {
                    self.fault = Some(fault);
                    break;
                }
                None => break,
            }
        }
        taken
    }

    /// Puts an envelope where it belongs.
    pub(super) fn take(
        &mut self,
        ledger: &mut Ledger,
        envelope: Envelope,
        now: Timestamp,
    ) -> Taken {
        if self.last_message_id.as_deref() == Some(envelope.message_id.as_str()) {
            return redelivered();
        }
        let cursor = ledger.session.cursor;
        let taken = match ledger.place(&envelope.message_id) {
            Some(place) if place < self.next => return redelivered(),
            Some(place) if place == self.next => Taken::Known,
            Some(_later) => return Taken::Diverged,
            None if self.next > cursor => Taken::Recorded,
            None if ledger.knows_all_at(self.next) => return Taken::Diverged,
            None => Taken::Known,
        };
        self.next += 1;
        self.has_shown |= taken == Taken::Known;
        self.last_message_id = Some(envelope.message_id.clone());
        if taken == Taken::Recorded {
            metrics::counter!(
                "macp_inbound_messages_total",
                "mode" => mode_label(&envelope.mode),
                "message_type" => type_label(&envelope.message_type),
            )
            .increment(1);
            ledger.envelope(envelope, now);
        }
        taken
    }
}

fn redelivered() -> Taken {
    metrics::counter!("macp_redeliveries_total").increment(1);
    Taken::Redelivered
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

#[cfg(test)]
mod tests;
