//! A run's state: what it is made of, and how it is stored.
//!
//! **Invariant:** [`Projection::apply`] takes an event once: a `seq` that is already folded is
//! skipped, so replaying any part of a log is harmless.

use std::collections::BTreeMap;

use control_plane_domain::{CanonicalEvent, RunId, RunState, Seq};
use control_plane_storage::model::{PROJECTION_SCHEMA_VERSION, ProjectionRow, SnapshotRow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::fold;
use crate::keyed::KeyedList;
use crate::sections::{
    Decision, Graph, Llm, MAX_PARTICIPANTS, OutboundMessages, Participant, Policy, Progress,
    RunSummary, Signals, Timeline, Trace, Vote,
};
use crate::threshold::Bar;

/// A state is kept for good after every so many events. Reading the state of any moment then folds
/// fewer than that many.
pub const SNAPSHOT_DISTANCE: Seq = 2000;

/// The state of a run after the events up to its version. It serializes to what clients read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Projection {
    pub run: RunSummary,
    pub participants: KeyedList<Participant, MAX_PARTICIPANTS>,
    pub graph: Graph,
    pub decision: Decision,
    pub signals: Signals,
    pub progress: Progress,
    pub timeline: Timeline,
    pub trace: Trace,
    pub outbound_messages: OutboundMessages,
    pub policy: Policy,
    pub llm: Llm,
    #[serde(skip)]
    pub(crate) version: Seq,
    #[serde(skip)]
    pub(crate) memory: Memory,
}

/// What the fold must remember and no client sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Memory {
    /// How many participants the session declared; 0 while that is not known.
    pub(crate) declared: i64,
    /// What the policy asks for, where we know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bar: Option<Bar>,
    /// What requests ask for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) required_approvals: BTreeMap<String, i64>,
    /// Who voted what on which proposal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) votes: BTreeMap<String, BTreeMap<String, Vote>>,
}

impl Projection {
    /// The state of a run that has no events.
    pub fn empty(run_id: RunId) -> Self {
        Self {
            run: RunSummary {
                run_id,
                status: RunState::Queued,
                runtime_session_id: None,
                started_at: None,
                ended_at: None,
                trace_id: None,
                mode_name: None,
                context_id: None,
                extension_keys: None,
                error_code: None,
                error: None,
                history_gap: None,
                diverged: None,
            },
            participants: KeyedList::default(),
            graph: Graph::default(),
            decision: Decision::default(),
            signals: Signals::default(),
            progress: Progress::default(),
            timeline: Timeline::default(),
            trace: Trace::default(),
            outbound_messages: OutboundMessages::default(),
            policy: Policy::default(),
            llm: Llm::default(),
            version: 0,
            memory: Memory::default(),
        }
    }

    /// Folds `event`, unless it is folded already.
    pub fn apply(&mut self, event: &CanonicalEvent) {
        if event.seq <= self.version {
            return;
        }
        self.version = event.seq;
        fold::event(self, event);
    }

    /// The last `seq` folded; 0 before the first.
    pub fn version(&self) -> Seq {
        self.version
    }

    /// Who voted what on a proposal.
    pub fn votes(&self, proposal_id: &str) -> impl Iterator<Item = (&str, Vote)> {
        let votes = self.memory.votes.get(proposal_id).into_iter().flatten();
        votes.map(|(who, vote)| (who.as_str(), *vote))
    }

    /// The ids to start a [`control_plane_domain::normalize::Normalizer`] with.
    pub fn known_participants(&self) -> Vec<String> {
        self.participants.iter().map(|participant| participant.participant_id.clone()).collect()
    }

    /// The state as a row.
    pub fn to_row(&self) -> ProjectionRow {
        let Self {
            run,
            participants,
            graph,
            decision,
            signals,
            progress,
            timeline,
            trace,
            outbound_messages,
            policy,
            llm,
            version,
            memory,
        } = self;
        ProjectionRow {
            run_id: run.run_id,
            version: *version,
            schema_version: PROJECTION_SCHEMA_VERSION,
            run_summary: section(run),
            participants: section(participants),
            graph: section(graph),
            decision: section(decision),
            signals: section(signals),
            progress: section(progress),
            timeline: section(timeline),
            trace_summary: section(trace),
            outbound_messages: section(outbound_messages),
            policy: section(policy),
            llm: section(llm),
            fold: section(memory),
        }
    }

    /// The state as it is kept for good, if it is to be kept after its last event.
    pub fn snapshot_due(&self) -> Option<SnapshotRow> {
        let due = self.version > 0 && self.version % SNAPSHOT_DISTANCE == 0;
        if due { self.to_snapshot() } else { None }
    }

    /// The state as it is kept for good.
    pub(crate) fn to_snapshot(&self) -> Option<SnapshotRow> {
        let state = serde_json::to_string(&Kept { state: self, fold: &self.memory }).ok()?;
        Some(SnapshotRow {
            run_id: self.run.run_id,
            version: self.version,
            schema_version: PROJECTION_SCHEMA_VERSION,
            state,
        })
    }

    /// The state that was kept; `None` when another version kept it.
    pub fn from_snapshot(row: &SnapshotRow) -> Option<Self> {
        if row.schema_version != PROJECTION_SCHEMA_VERSION {
            return None;
        }
        let Found { state, fold } = serde_json::from_str(&row.state).ok()?;
        let whole = Self { version: row.version, memory: fold, ..state };
        (whole.run.run_id == row.run_id).then_some(whole)
    }

    /// The state in a row; `None` when another version wrote it, and it must be folded again.
    pub fn from_row(row: ProjectionRow) -> Option<Self> {
        if row.schema_version != PROJECTION_SCHEMA_VERSION {
            return None;
        }
        let run: RunSummary = read(row.run_summary)?;
        if run.run_id != row.run_id {
            return None;
        }
        Some(Self {
            run,
            participants: read(row.participants)?,
            graph: read(row.graph)?,
            decision: read(row.decision)?,
            signals: read(row.signals)?,
            progress: read(row.progress)?,
            timeline: read(row.timeline)?,
            trace: read(row.trace_summary)?,
            outbound_messages: read(row.outbound_messages)?,
            policy: read(row.policy)?,
            llm: read(row.llm)?,
            version: row.version,
            memory: read(row.fold)?,
        })
    }
}

/// What a kept state's text holds.
#[derive(Serialize)]
struct Kept<'a> {
    state: &'a Projection,
    fold: &'a Memory,
}

/// The same, read.
#[derive(Deserialize)]
struct Found {
    state: Projection,
    fold: Memory,
}

/// A section as JSON. Its keys are texts and its numbers finite: there is nothing to refuse, and a
/// `null` would be folded again by the next reader.
fn section(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}
