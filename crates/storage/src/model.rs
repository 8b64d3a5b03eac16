//! What goes in and comes out of a [`crate::Store`].

use std::collections::HashSet;

use bytes::Bytes;
use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::event::ChainHash;
use control_plane_domain::rollup::Rollups;
use control_plane_domain::{
    Envelope, EventType, Ordinal, Position, RunId, RunState, Seq, Timestamp,
};
use serde_json::Value;

/// The version of [`ProjectionRow`]'s shape that this version writes.
pub const PROJECTION_SCHEMA_VERSION: i32 = 4;

/// An event as it is stored: the exact text, beside what is queried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub run_id: RunId,
    pub seq: Seq,
    /// The place in the feed over all runs; 0 before the event is committed, and for good where it
    /// has none because its run was imported.
    pub position: Position,
    pub ts: Timestamp,
    pub received_at: Timestamp,
    pub event_type: EventType,
    pub subject: Option<(String, String)>,
    /// The chain's head after this event.
    pub hash: ChainHash,
    /// The event's JSON, shared by everybody who sends it.
    pub body: Bytes,
}

/// An envelope as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEnvelope {
    pub run_id: RunId,
    pub source: EnvelopeSource,
    /// `None` for signals.
    pub ordinal: Option<Ordinal>,
    pub received_at: Timestamp,
    /// For signals: whether the runtime vouches for the sender.
    pub sender_authenticated: bool,
    pub envelope: Envelope,
}

/// A snapshot of a run's state: one JSON value per section. The log is the truth.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectionRow {
    pub run_id: RunId,
    /// The last seq folded.
    pub version: Seq,
    pub schema_version: i32,
    pub run_summary: Value,
    pub participants: Value,
    pub graph: Value,
    pub decision: Value,
    pub signals: Value,
    pub progress: Value,
    pub timeline: Value,
    pub trace_summary: Value,
    pub outbound_messages: Value,
    pub policy: Value,
    pub llm: Value,
    /// What the fold must remember and no client sees.
    pub fold: Value,
}

/// A run's state after one event, kept for good. The log is the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    pub run_id: RunId,
    /// The last seq folded.
    pub version: Seq,
    /// As [`ProjectionRow::schema_version`].
    pub schema_version: i32,
    /// JSON, which nobody looks into here.
    pub state: String,
}

/// A file or link that belongs to a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub id: uuid::Uuid,
    pub run_id: RunId,
    pub kind: String,
    pub label: String,
    pub uri: Option<String>,
    pub inline: Option<Value>,
    pub created_at: Timestamp,
}

/// A request to change a run that somebody else than its stream made.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxItem {
    pub id: i64,
    pub run_id: RunId,
    pub kind: String,
    /// A second item with the same kind and key is not taken.
    pub dedup_key: String,
    pub payload: Value,
    pub created_at: Timestamp,
}

/// A part of what is in a run's inbox, for whoever has carried out some of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InboxPage {
    /// What is not carried out yet, oldest first.
    pub items: Vec<InboxItem>,
    /// What is carried out and not in the inbox any more.
    pub gone: HashSet<i64>,
    /// Whether `items` is not all.
    pub more: bool,
}

/// Which runs to list (spec 1.3.3).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunFilter {
    pub status: Option<RunState>,
    /// All of them.
    pub tags: Vec<String>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub include_sandbox: bool,
    pub include_archived: bool,
    pub environment: Option<String>,
    /// A part of the scenario's name, whatever its case.
    pub scenario_ref: Option<String>,
    /// A part of id, session id, scenario, environment or a tag.
    pub search: Option<String>,
    pub order: RunOrder,
    pub ascending: bool,
    pub limit: i64,
    pub offset: i64,
    /// Where the previous page ended; wins over `offset`.
    pub cursor: Option<RunCursor>,
}

/// What runs are sorted by; the id breaks ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunOrder {
    #[default]
    CreatedAt,
    UpdatedAt,
}

/// The last run of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunCursor {
    pub at: Timestamp,
    pub id: RunId,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// All matches, not only this page's.
    pub total: i64,
    /// Whether another page follows.
    pub more: bool,
}

/// Which events to list (spec 1.3.6, 1.3.7).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventFilter {
    pub run_id: Option<RunId>,
    pub scenario_ref: Option<String>,
    pub types: Vec<EventType>,
    /// Exclusive.
    pub after_ts: Option<Timestamp>,
    /// Exclusive.
    pub before_ts: Option<Timestamp>,
    /// Exclusive: a seq with `run_id`, else a position.
    pub after: i64,
    pub limit: i64,
}

/// How far a run is, and how its log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub state: RunState,
    pub last_seq: Seq,
    pub hash: ChainHash,
    /// The run was loaded from a bundle and is only read here.
    pub imported: bool,
}

impl Head {
    /// Whether no event will come any more.
    pub fn is_over(&self) -> bool {
        self.state.is_terminal() || self.imported
    }
}

/// The right to write a run: it holds as long as the run's epoch is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    pub run_id: RunId,
    pub epoch: i64,
}

/// A run that does not exist yet, with everything that is written with it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    pub run: control_plane_domain::Run,
    pub session: control_plane_domain::Session,
    /// `run.created`, from seq 1.
    pub entries: Vec<LogEntry>,
    pub metrics: control_plane_domain::metrics::RunMetrics,
    /// Where it is in its trace, which `run.trace_id` names; `None` when it has none.
    pub trace: Option<control_plane_domain::RunTrace>,
}

/// What [`crate::Store::run_create`] did.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// The run is new and ours to follow.
    New(Lease),
    /// The idempotency key had made this run before, by the same request.
    Existing(Box<control_plane_domain::Run>),
}

/// What [`crate::Store::run_delete`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The run is gone.
    Done,
    /// It is not over, so it is still there.
    Active(RunState),
}

/// A batch for one run: what was read, what follows from it, and where it leaves the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    pub lease: Lease,
    /// The log's end that the batch was made on.
    pub expected_seq: Seq,
    /// The run after the batch; `last_seq` is the new end. Its metadata count only when the batch
    /// [`Append::files`] it.
    pub run: control_plane_domain::Run,
    /// The log's head after the batch.
    pub chain: ChainHash,
    /// The session after the batch.
    pub session: control_plane_domain::Session,
    pub raw: Vec<RawEnvelope>,
    pub entries: Vec<LogEntry>,
    /// A snapshot, when one is due.
    pub projection: Option<ProjectionRow>,
    /// States on the way that are to be kept.
    pub snapshots: Vec<SnapshotRow>,
    pub metrics: control_plane_domain::metrics::RunMetrics,
    pub artifacts: Vec<Artifact>,
    /// Inbox items that the batch carries out.
    pub inbox_used: Vec<i64>,
    /// What the batch changes in the sums over runs.
    pub rollups: Rollups,
    /// The decision receipt that the run's end was learned from.
    pub receipt: Option<String>,
}

/// How one run's batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log, and published.
    Committed,
    /// The run has another owner or another end by now; nothing was written.
    Fenced,
    /// The database refuses this run's data; nothing was written. The others were.
    Refused(String),
    /// It may or may not be in the log: load the run again.
    Unknown(String),
}

impl Append {
    /// Whether the batch binds the session, so that its facts are written, and with them how the
    /// run is filed: a run that is adopted is bound a second time.
    pub fn binds(&self) -> bool {
        self.entries.iter().any(|entry| entry.event_type == EventType::SessionBound)
    }

    /// Whether the run's metadata is written: when it is bound, and when it is over.
    pub fn files(&self) -> bool {
        self.run.state.is_terminal() || self.binds()
    }
}
