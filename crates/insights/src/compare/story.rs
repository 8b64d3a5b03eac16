//! A run as a story: who did what about which proposal, in order.
//!
//! **Invariant:** a story has a bound, whatever the log's length, and says where it stops.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_domain::event::ChainHash;
use control_plane_domain::{CanonicalEvent, EventType, Seq};
use serde_json::{Map, Value};

use super::value::{self, COMMITMENT_IDS, Fields, Known, PROPOSAL_IDS, SUPERSEDED_IDS, clip, text};

/// Most steps of a story.
pub(super) const MAX_STEPS: usize = 10_000;
/// Most events that are read for one.
const MAX_EVENTS: usize = 200_000;
/// About the most bytes that one keeps.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most names of signals.
const MAX_SIGNALS: usize = 1000;
/// Longest name, of whatever, in bytes.
const MAX_NAME: usize = 256;
/// Longest label of a proposal, in bytes.
const MAX_LABEL: usize = 120;
/// Most words by which a proposal's text is told from another.
const MAX_WORDS: usize = 64;
const QUORUM: &str = "macp.mode.quorum.v1";

/// What kind of step it is. Steps that can stand in for each other are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Start,
    Proposal,
    Evaluation,
    Objection,
    Vote,
    /// Accepting or rejecting an offer.
    Response,
    Withdrawal,
    /// Approving, rejecting or abstaining.
    Ballot,
    TaskResponse,
    TaskUpdate,
    TaskResult,
    HandoffContext,
    HandoffResponse,
    Contribution,
    Commitment,
    /// Of a mode that we do not know.
    Other(String),
}

impl Kind {
    fn of(mode: &str, message_type: &str) -> Self {
        match message_type {
            "SessionStart" => Self::Start,
            "Proposal" | "CounterProposal" | "ApprovalRequest" | "TaskRequest" | "HandoffOffer" => {
                Self::Proposal
            }
            "Evaluation" => Self::Evaluation,
            "Objection" => Self::Objection,
            "Vote" => Self::Vote,
            "Approve" | "Abstain" => Self::Ballot,
            "Reject" if mode == QUORUM => Self::Ballot,
            "Accept" | "Reject" => Self::Response,
            "Withdraw" => Self::Withdrawal,
            "TaskAccept" | "TaskReject" => Self::TaskResponse,
            "TaskUpdate" => Self::TaskUpdate,
            "TaskComplete" | "TaskFail" => Self::TaskResult,
            "HandoffContext" => Self::HandoffContext,
            "HandoffAccept" | "HandoffDecline" => Self::HandoffResponse,
            "Contribute" => Self::Contribution,
            "Commitment" => Self::Commitment,
            other => Self::Other(clip(other, MAX_NAME).to_owned()),
        }
    }

    /// The name on the wire.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Start => "start",
            Self::Proposal => "proposal",
            Self::Evaluation => "evaluation",
            Self::Objection => "objection",
            Self::Vote => "vote",
            Self::Response => "response",
            Self::Withdrawal => "withdrawal",
            Self::Ballot => "ballot",
            Self::TaskResponse => "taskResponse",
            Self::TaskUpdate => "taskUpdate",
            Self::TaskResult => "taskResult",
            Self::HandoffContext => "handoffContext",
            Self::HandoffResponse => "handoffResponse",
            Self::Contribution => "contribution",
            Self::Commitment => "commitment",
            Self::Other(message_type) => message_type,
        }
    }
}

/// Something that somebody did.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) seq: Seq,
    /// Unknown for a commitment that only a receipt tells of.
    pub(super) participant: Option<String>,
    pub(super) kind: Kind,
    pub(super) message_type: String,
    /// What it is about, as an index into [`Story::proposals`].
    pub(super) proposal: Option<usize>,
    /// What it replaces.
    pub(super) supersedes: Option<usize>,
    pub(super) fields: Fields,
}

/// Something that was proposed, known by its content.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    /// For people.
    pub(super) label: String,
    /// What it is a proposal for: an offer, an approval, a task, a handoff; or nothing that the log has.
    pub(super) group: &'static str,
    pub(super) proposer: String,
    pub(super) content: ChainHash,
    /// The words of the content, in order of the alphabet.
    pub(super) words: BTreeSet<String>,
}

/// The calls of language models that a run has reported.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Calls {
    pub(super) count: i64,
    /// How many of them have said how long they took.
    pub(super) timed: i64,
    pub(super) latency_ms: f64,
}

/// A run as a story.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub(super) steps: Vec<Step>,
    pub(super) proposals: Vec<Proposal>,
    /// Where each proposal's id leads.
    pub(super) ids: BTreeMap<String, usize>,
    pub(super) signals: BTreeSet<String>,
    pub(super) calls: Calls,
    /// The last event that was read, if the log goes on and the story does not.
    pub(super) stops_at: Option<Seq>,
}

/// Makes a story out of a log's events, in their order.
#[derive(Debug, Default)]
pub struct Teller {
    story: Story,
    known: Known,
    events: usize,
    bytes: usize,
    unseen: usize,
}

impl Teller {
    /// Starts with nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event; `false` when the story is as long as it may be, and the event is not in it.
    pub fn hear(&mut self, event: &CanonicalEvent) -> bool {
        if self.story.stops_at.is_some()
            || self.events >= MAX_EVENTS
            || self.story.steps.len() >= MAX_STEPS
            || self.bytes >= MAX_BYTES
        {
            self.story.stops_at.get_or_insert(event.seq - 1);
            return false;
        }
        self.events += 1;
        match event.event_type {
            EventType::MessageReceived if !event.data.contains_key("senderAuthenticated") => {
                self.step(event);
            }
            EventType::DecisionFinalized if text(&event.data, &["source"]) == Some("receipt") => {
                self.step(event);
            }
            EventType::RunCreated | EventType::SessionBound => {
                let session = text(&event.data, &["sessionId"]).map(str::to_owned);
                self.known.sessions.extend(session);
                self.known.sessions.insert(event.run_id.to_string());
            }
            EventType::SignalEmitted => self.signal(event),
            EventType::LlmCallCompleted => self.call(event),
            EventType::MessageReceived
            | EventType::DecisionFinalized
            | EventType::RunStarted
            | EventType::RunCompleted
            | EventType::RunFailed
            | EventType::RunCancelled
            | EventType::RunSuspended
            | EventType::RunResumed
            | EventType::SessionStreamOpened
            | EventType::SessionStreamGap
            | EventType::SessionStreamDiverged
            | EventType::SessionStateChanged
            | EventType::ParticipantSeen
            | EventType::MessageSent
            | EventType::MessageSendFailed
            | EventType::SignalAcknowledged
            | EventType::ProposalCreated
            | EventType::ProposalUpdated
            | EventType::DecisionProposed
            | EventType::ProgressReported
            | EventType::ToolCalled
            | EventType::ToolCompleted
            | EventType::ArtifactCreated
            | EventType::PolicyResolved
            | EventType::PolicyCommitmentEvaluated
            | EventType::PolicyDenied => {}
        }
        true
    }

    /// The story so far.
    #[must_use]
    pub fn finish(self) -> Story {
        self.story
    }

    fn step(&mut self, event: &CanonicalEvent) {
        let nothing = Map::new();
        let payload = payload(event).unwrap_or(&nothing);
        let named = |name: &str| text(&event.data, &[name]).unwrap_or("");
        let (mode, message_type) = (named("modeName"), named("messageType"));
        let kind = Kind::of(mode, message_type);
        let sender = Some(clip(named("sender"), MAX_NAME)).filter(|sender| !sender.is_empty());
        let fields = value::fields(message_type, payload, &self.known);
        let proposal = if kind == Kind::Proposal {
            self.propose(message_type, sender.unwrap_or_default(), payload, &fields)
        } else if kind == Kind::Commitment {
            // An agent may name what it commits to after the proposal, or otherwise.
            text(payload, COMMITMENT_IDS).and_then(|id| self.story.ids.get(id).copied())
        } else {
            text(payload, PROPOSAL_IDS).map(|id| self.proposal(id))
        };
        let supersedes = text(payload, SUPERSEDED_IDS).map(|id| self.proposal(id));
        let message_id = named("messageId");
        if !message_id.is_empty() {
            self.known.messages.insert(message_id.to_owned());
        }
        self.bytes +=
            256 + message_id.len() + fields.values().map(value::Field::size).sum::<usize>();
        self.story.steps.push(Step {
            seq: event.seq,
            participant: sender.map(str::to_owned),
            kind,
            message_type: clip(message_type, MAX_NAME).to_owned(),
            proposal,
            supersedes,
            fields,
        });
    }

    /// A new proposal; one whose id is taken stays what it was.
    fn propose(
        &mut self,
        message_type: &str,
        proposer: &str,
        payload: &Map<String, Value>,
        fields: &Fields,
    ) -> Option<usize> {
        let id = text(payload, PROPOSAL_IDS)?;
        if let Some(known) = self.story.ids.get(id) {
            return Some(*known);
        }
        let (group, parts) = content(message_type, payload);
        let mut parts: Vec<String> = parts.into_iter().map(str::to_owned).collect();
        if parts.is_empty() {
            parts =
                fields.iter().map(|(name, field)| format!("{name}: {}", field.mark())).collect();
        }
        let label = match group {
            "handoff" => parts.join(" → "),
            _ => parts.first().cloned().unwrap_or_default(),
        };
        let words = parts.iter().flat_map(|part| part.split(|c: char| !c.is_alphanumeric()));
        let words = words.filter(|word| !word.is_empty()).take(MAX_WORDS).map(str::to_lowercase);
        Some(self.add(
            id,
            Proposal {
                label: shorten(&label),
                group,
                proposer: proposer.to_owned(),
                content: ChainHash::EMPTY.then(&serde_json::to_string(&parts).unwrap_or_default()),
                words: words.collect(),
            },
        ))
    }

    /// The proposal with this id; if the log has none, one of which nothing else is known.
    fn proposal(&mut self, id: &str) -> usize {
        if let Some(known) = self.story.ids.get(id) {
            return *known;
        }
        self.unseen += 1;
        let proposal = Proposal {
            label: format!("a proposal that is not in the log ({})", self.unseen),
            group: "",
            proposer: String::new(),
            content: ChainHash::EMPTY,
            words: BTreeSet::new(),
        };
        self.add(id, proposal)
    }

    fn add(&mut self, id: &str, proposal: Proposal) -> usize {
        self.bytes += 512 + id.len() + MAX_LABEL;
        let index = self.story.proposals.len();
        self.known.proposals.insert(id.to_owned(), proposal.label.clone());
        self.story.ids.insert(id.to_owned(), index);
        self.story.proposals.push(proposal);
        index
    }

    fn signal(&mut self, event: &CanonicalEvent) {
        let name = payload(event)
            .and_then(|payload| text(payload, &["signalType", "signal_type"]))
            .or_else(|| text(&event.data, &["messageType"]))
            .unwrap_or("Signal");
        if self.story.signals.len() < MAX_SIGNALS {
            self.story.signals.insert(clip(name, MAX_NAME).to_owned());
        }
    }

    fn call(&mut self, event: &CanonicalEvent) {
        if event.data.get("senderAuthenticated") == Some(&Value::Bool(false)) {
            return;
        }
        let calls = &mut self.story.calls;
        calls.count += 1;
        let latency = payload(event).and_then(|call| call.get("latencyMs")?.as_f64());
        if let Some(latency) = latency.filter(|latency| latency.is_finite() && *latency >= 0.0) {
            calls.timed += 1;
            calls.latency_ms += latency;
        }
    }
}

fn payload(event: &CanonicalEvent) -> Option<&Map<String, Value>> {
    event.data.get("decodedPayload").or_else(|| event.data.get("payload"))?.as_object()
}

/// What a proposal is known by: nothing, where we do not know the form.
fn content<'a>(
    message_type: &str,
    payload: &'a Map<String, Value>,
) -> (&'static str, Vec<&'a str>) {
    let (group, names): (_, &[&[&str]]) = match message_type {
        "ApprovalRequest" => ("approval", &[&["action"]]),
        "TaskRequest" => ("task", &[&["title"], &["instructions"]]),
        "HandoffOffer" => ("handoff", &[&["scope"], &["targetParticipant", "target_participant"]]),
        _ if text(payload, &["option"]).is_some() => ("offer", &[&["option"]]),
        _ => ("offer", &[&["title"], &["summary"]]),
    };
    (group, names.iter().filter_map(|names| text(payload, names)).collect())
}

fn shorten(label: &str) -> String {
    let kept = clip(label, MAX_LABEL);
    if kept.len() == label.len() { kept.to_owned() } else { format!("{kept}…") }
}
