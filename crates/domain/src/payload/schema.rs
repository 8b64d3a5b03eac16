//! Which protobuf type a message of a mode has.
//!
//! **Invariant:** every name in the tables is in the descriptor set that the build script compiled
//! from the runtime's own files; a test holds that.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// The extension mode whose payload has an older form.
pub(super) const MULTI_ROUND: &str = "ext.multi_round.v1";

/// A protobuf type.
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) descriptor: MessageDescriptor,
}

type Table = HashMap<&'static str, Type>;
type Row = (&'static str, &'static str);

const CORE: &[Row] = &[
    ("SessionStart", "macp.v1.SessionStartPayload"),
    ("Commitment", "macp.v1.CommitmentPayload"),
    ("Signal", "macp.v1.SignalPayload"),
    ("Progress", "macp.v1.ProgressPayload"),
];

const MODES: &[(&str, &[Row])] = &[
    (
        "macp.mode.decision.v1",
        &[
            ("Proposal", "macp.modes.decision.v1.ProposalPayload"),
            ("Evaluation", "macp.modes.decision.v1.EvaluationPayload"),
            ("Objection", "macp.modes.decision.v1.ObjectionPayload"),
            ("Vote", "macp.modes.decision.v1.VotePayload"),
        ],
    ),
    (
        "macp.mode.proposal.v1",
        &[
            ("Proposal", "macp.modes.proposal.v1.ProposalPayload"),
            ("CounterProposal", "macp.modes.proposal.v1.CounterProposalPayload"),
            ("Accept", "macp.modes.proposal.v1.AcceptPayload"),
            ("Reject", "macp.modes.proposal.v1.RejectPayload"),
            ("Withdraw", "macp.modes.proposal.v1.WithdrawPayload"),
        ],
    ),
    (
        "macp.mode.task.v1",
        &[
            ("TaskRequest", "macp.modes.task.v1.TaskRequestPayload"),
            ("TaskAccept", "macp.modes.task.v1.TaskAcceptPayload"),
            ("TaskReject", "macp.modes.task.v1.TaskRejectPayload"),
            ("TaskUpdate", "macp.modes.task.v1.TaskUpdatePayload"),
            ("TaskComplete", "macp.modes.task.v1.TaskCompletePayload"),
            ("TaskFail", "macp.modes.task.v1.TaskFailPayload"),
        ],
    ),
    (
        "macp.mode.handoff.v1",
        &[
            ("HandoffOffer", "macp.modes.handoff.v1.HandoffOfferPayload"),
            ("HandoffContext", "macp.modes.handoff.v1.HandoffContextPayload"),
            ("HandoffAccept", "macp.modes.handoff.v1.HandoffAcceptPayload"),
            ("HandoffDecline", "macp.modes.handoff.v1.HandoffDeclinePayload"),
        ],
    ),
    (
        "macp.mode.quorum.v1",
        &[
            ("ApprovalRequest", "macp.modes.quorum.v1.ApprovalRequestPayload"),
            ("Approve", "macp.modes.quorum.v1.ApprovePayload"),
            ("Reject", "macp.modes.quorum.v1.RejectPayload"),
            ("Abstain", "macp.modes.quorum.v1.AbstainPayload"),
        ],
    ),
    (MULTI_ROUND, &[("Contribute", "macp.modes.multi_round.v1.ContributePayload")]),
];

struct Tables {
    core: Table,
    modes: HashMap<&'static str, Table>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/macp_descriptor.bin"));
    // Without descriptors nothing is known and everything is recorded as bytes; see the test.
    let pool = DescriptorPool::decode(descriptors.as_slice()).unwrap_or_default();
    let table = |rows: &[Row]| -> Table {
        rows.iter()
            .filter_map(|&(message_type, name)| {
                let descriptor = pool.get_message_by_name(name)?;
                Some((message_type, Type { name, descriptor }))
            })
            .collect()
    };
    Tables {
        core: table(CORE),
        modes: MODES.iter().map(|&(mode, rows)| (mode, table(rows))).collect(),
    }
});

/// The type of a message: the mode's own, else the core one.
pub(super) fn find(mode: &str, message_type: &str) -> Option<&'static Type> {
    let tables = &*TABLES;
    let own = tables.modes.get(mode).and_then(|table| table.get(message_type));
    own.or_else(|| tables.core.get(message_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_tables_is_in_the_descriptor_set() {
        for (message_type, name) in CORE {
            assert_eq!(find("", message_type).map(|known| known.name), Some(*name));
        }
        for (mode, rows) in MODES {
            for (message_type, name) in *rows {
                assert_eq!(find(mode, message_type).map(|known| known.name), Some(*name));
            }
        }
    }
}
