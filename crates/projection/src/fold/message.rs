//! Who said something to whom (spec 6.6 and 6.7).
//!
//! **Invariant:** the graph grows with the participants, not with the messages: an edge that is
//! there already only gets a later time.

use control_plane_domain::{CanonicalEvent, Timestamp};

use crate::projection::Projection;
use crate::read::{self, push_capped};
use crate::sections::{Edge, MAX_EDGES, Node, Participant, Status};

const START: &str = "__start";
const PROPOSAL: &str = "__proposal";
const DECISION: &str = "__decision";
const OUTCOME: &str = "__outcome";

/// `participant.seen`.
pub(super) fn participant_seen(state: &mut Projection, event: &CanonicalEvent) {
    let id = read::text(&event.data, &["participantId"]).or_else(|| super::subject_id(event));
    if let Some(id) = id {
        introduce(state, read::id(id));
    }
}

/// `message.sent`: by us.
pub(super) fn sent(state: &mut Projection, event: &CanonicalEvent) {
    let sender = read::kept_id(&event.data, &["sender"]).unwrap_or_default();
    let summary = read::kept_id(&event.data, &["messageType"]);
    let summary = summary.as_deref().unwrap_or(event.event_type.as_str());
    touch(state, &sender, event.ts, Status::Active, Some(summary));
    let to = addressees(event);
    for recipient in &to {
        touch(state, recipient, event.ts, Status::Waiting, None);
    }
    connect_all(state, &sender, &to, event.event_type.as_str(), event.ts);
    let outbound = &mut state.outbound_messages;
    outbound.total = outbound.total.saturating_add(1);
    outbound.accepted = outbound.accepted.saturating_add(1);
}

/// `message.received`: what the session's participants say.
pub(super) fn received(state: &mut Projection, event: &CanonicalEvent) {
    let sender = read::kept_id(&event.data, &["sender"]).unwrap_or_default();
    let message_type = read::kept_id(&event.data, &["messageType"]);
    let message_type = message_type.as_deref().unwrap_or(event.event_type.as_str());
    if message_type == "SessionStart" {
        declare(state, event);
    }
    touch(state, &sender, event.ts, Status::Active, Some(message_type));
    let recipients = recipients(state, event, message_type, &sender);
    for recipient in &recipients {
        touch(state, recipient, event.ts, Status::Waiting, None);
    }
    step(state, event.ts, message_type, &sender, &recipients);
    connect_all(state, &sender, &recipients, message_type, event.ts);
}

/// The participants that a `SessionStart` declares, for a run that was never bound by us.
fn declare(state: &mut Projection, event: &CanonicalEvent) {
    let declared = read::texts(read::payload(event), "participants").unwrap_or_default();
    if state.memory.declared == 0 {
        state.memory.declared = i64::try_from(declared.len()).unwrap_or(i64::MAX);
    }
}

fn addressees(event: &CanonicalEvent) -> Vec<String> {
    let to = read::texts(&event.data, "to").unwrap_or_default();
    to.into_iter().map(str::to_owned).collect()
}

fn recipients(
    state: &Projection,
    event: &CanonicalEvent,
    message_type: &str,
    sender: &str,
) -> Vec<String> {
    let to = addressees(event);
    if !to.is_empty() {
        return to;
    }
    let everybody: Vec<&str> = match message_type {
        "SessionStart" => {
            let payload = read::payload(event);
            let named = read::texts(payload, "participants");
            named.or_else(|| read::texts(payload, "participantIds")).unwrap_or_default()
        }
        "Proposal" => state.participants.iter().map(|one| one.participant_id.as_str()).collect(),
        _ => Vec::new(),
    };
    everybody.into_iter().filter(|one| *one != sender).map(str::to_owned).collect()
}

/// The steps of a session's life in the graph.
fn step(
    state: &mut Projection,
    ts: Timestamp,
    message_type: &str,
    sender: &str,
    recipients: &[String],
) {
    raise(state, START, "start", Status::Completed);
    match message_type {
        "SessionStart" => {
            connect(state, START, sender, "session.bound", ts);
            connect_all(state, sender, recipients, "fanout", ts);
        }
        "Proposal" => {
            raise(state, PROPOSAL, "proposal", Status::Completed);
            connect(state, sender, PROPOSAL, "proposes", ts);
            connect_all(state, PROPOSAL, recipients, "review", ts);
        }
        "Vote" | "Evaluation" | "Objection" => {
            raise(state, DECISION, "decision", Status::Active);
            connect(state, sender, DECISION, &message_type.to_lowercase(), ts);
        }
        "Commitment" => {
            raise(state, DECISION, "decision", Status::Completed);
            raise(state, OUTCOME, "output", Status::Completed);
            connect(state, DECISION, OUTCOME, "commits", ts);
        }
        _ => {}
    }
}

fn introduce(state: &mut Projection, id: &str) {
    if id.is_empty() || state.participants.get(id).is_some() {
        return;
    }
    let participant = Participant {
        participant_id: id.to_owned(),
        status: Status::Idle,
        latest_activity_at: None,
        latest_summary: None,
    };
    if state.participants.entry(id, || participant).is_some() {
        raise(state, id, "participant", Status::Idle);
    }
}

fn touch(state: &mut Projection, id: &str, ts: Timestamp, status: Status, summary: Option<&str>) {
    introduce(state, id);
    let is_over = state.run.status.is_terminal();
    let Some(participant) = state.participants.get_mut(id) else { return };
    participant.latest_activity_at = Some(ts);
    if let Some(summary) = summary {
        participant.latest_summary = Some(summary.to_owned());
    }
    // What is heard late does not bring anybody back to work.
    if is_over && participant.status.is_final() {
        return;
    }
    participant.status = status;
    if let Some(node) = state.graph.nodes.get_mut(id) {
        node.status = status;
    }
}

/// Adds a node, or raises its status; it never falls.
fn raise(state: &mut Projection, id: &str, kind: &str, status: Status) {
    let new = || Node { id: id.to_owned(), kind: kind.to_owned(), status };
    if let Some(node) = state.graph.nodes.entry(id, new)
        && node.status < status
    {
        node.status = status;
    }
}

fn connect_all(state: &mut Projection, from: &str, to: &[String], kind: &str, ts: Timestamp) {
    // More than there is room for would only push each other out.
    let skipped = to.len().saturating_sub(MAX_EDGES);
    for recipient in to.iter().skip(skipped) {
        connect(state, from, recipient, kind, ts);
    }
}

fn connect(state: &mut Projection, from: &str, to: &str, kind: &str, ts: Timestamp) {
    if from.is_empty() || to.is_empty() || from == to {
        return;
    }
    let known = state
        .graph
        .edges
        .iter_mut()
        .find(|edge| edge.from == from && edge.to == to && edge.kind == kind);
    if let Some(edge) = known {
        edge.ts = ts;
        return;
    }
    let edge = Edge { from: from.to_owned(), to: to.to_owned(), kind: kind.to_owned(), ts };
    push_capped(&mut state.graph.edges, edge, MAX_EDGES);
}
