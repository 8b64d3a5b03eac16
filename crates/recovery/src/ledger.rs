//! A run in memory: its record, its state, and what is not committed yet.
//!
//! **Invariant:** only the run's task has its ledger, and a ledger is ahead of the database by
//! exactly its pending batch and the one under way. Whenever a commit does not clearly succeed,
//! the ledger is dropped and loaded again.

mod adopt;
mod artifacts;
mod figures;
pub(crate) mod load;
mod metadata;
mod seen;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::event::{ChainHash, Trace};
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::normalize::Normalizer;
use control_plane_domain::receipt::Receipt;
use control_plane_domain::run::{Failure, IllegalTransition};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{
    Envelope, EventDraft, EventType, Ordinal, Run, RunId, RunState, RunTrace, Seq, Session,
    SessionState, Timestamp, TraceContext, control,
};

use control_plane_projection::{PriceTable, Projection};
use control_plane_storage::Recorded;
use control_plane_storage::model::{
    Append, Artifact, Lease, LogEntry, NewRun, RawEnvelope, SnapshotRow,
};
use figures::Counted;
use metadata::Packed;
use seen::Seen;
use uuid::Uuid;

use crate::budget::{Budget, Share};

/// The type of the message that resolves a session.
const COMMITMENT: &str = "Commitment";
/// A batch of fewer envelopes than this is a quiet moment.
const QUIET_ENVELOPES: usize = 64;
/// Events between snapshots while a run goes along quietly, and at most.
const SNAPSHOT_EVENTS: Seq = 256;
const SNAPSHOT_EVENTS_MAX: Seq = 4096;
/// Most bytes of payloads and events in a batch, but for its last envelope.
const MAX_PENDING_BYTES: usize = 8 * 1024 * 1024;

/// See the module.
pub(crate) struct Ledger {
    pub(crate) lease: Lease,
    /// With what [`metadata::kept`] keeps of its metadata.
    pub(crate) run: Run,
    metadata: Packed,
    pub(crate) session: Session,
    /// The run's root span, if it has a trace.
    pub(crate) trace: Option<TraceContext>,
    chain: ChainHash,
    projection: Projection,
    metrics: RunMetrics,
    prices: Arc<PriceTable>,
    counted: Counted,
    normalizer: Normalizer,
    seen: Seen,
    /// Inbox items carried out by this ledger that may still be there.
    done_items: HashSet<i64>,
    /// Artifacts added by this ledger, and the items that asked for them.
    artifacts: HashMap<Uuid, i64>,
    /// Whether the last envelope recorded is a Commitment.
    commitment_last: bool,
    /// The log's end that the pending batch starts from.
    base: Seq,
    snapshot_at: Seq,
    pending: Pending,
    /// What the batch under way holds.
    under_way: Option<Share>,
}

#[derive(Default)]
struct Pending {
    raw: Vec<RawEnvelope>,
    entries: Vec<LogEntry>,
    snapshots: Vec<SnapshotRow>,
    artifacts: Vec<Artifact>,
    inbox_used: Vec<i64>,
    /// What the run's end was learned from.
    receipt: Option<String>,
    /// How much there is in `raw`, `entries` and `snapshots`.
    held: Share,
    touched: bool,
}

/// What a ledger is made of.
pub(crate) struct Parts {
    pub(crate) lease: Lease,
    pub(crate) run: Run,
    pub(crate) session: Session,
    /// The head of the log's chain.
    pub(crate) chain: ChainHash,
    pub(crate) projection: Projection,
    pub(crate) metrics: RunMetrics,
    pub(crate) prices: Arc<PriceTable>,
    /// Whether the run may be filed elsewhere before it is read again.
    pub(crate) may_move: bool,
    /// The envelopes recorded last, oldest first.
    pub(crate) recorded: Vec<Recorded>,
    /// Whether the last envelope recorded is a Commitment.
    pub(crate) commitment_last: bool,
    /// The version of the snapshot that is stored.
    pub(crate) snapshot_at: Seq,
    /// The run's root span, if it has a trace.
    pub(crate) trace: Option<TraceContext>,
}

impl Ledger {
    /// A ledger without anything to commit.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { lease, mut run, session, chain, projection, metrics, prices, .. } = parts;
        let metadata = std::mem::take(&mut run.metadata);
        run.metadata = metadata::kept(&metadata);
        Self {
            metadata: Packed::pack(metadata),
            seen: Seen::new(&parts.recorded, session.cursor),
            normalizer: Normalizer::new(projection.known_participants(), session.last_event_ts),
            done_items: HashSet::new(),
            artifacts: HashMap::new(),
            base: run.last_seq,
            pending: Pending::default(),
            under_way: None,
            commitment_last: parts.commitment_last,
            snapshot_at: parts.snapshot_at,
            trace: parts.trace,
            counted: Counted::new(&run, &metrics, parts.may_move),
            prices,
            lease,
            run,
            session,
            chain,
            projection,
            metrics,
        }
    }

    /// The same, counted with what other ledgers of `budget` hold.
    pub(crate) fn within(mut self, budget: &Arc<Budget>) -> Self {
        self.pending.held = Share::of(budget);
        self
    }

    /// Whether the last envelope recorded is a Commitment: a resolved session has no more.
    pub(crate) fn ends_with_commitment(&self) -> bool {
        self.commitment_last
    }

    /// Where this message stands, when it was recorded lately.
    pub(crate) fn place(&self, message_id: &str) -> Option<Ordinal> {
        self.seen.place(message_id)
    }

    /// Whether a message that has no [`Ledger::place`] cannot stand at `ordinal`.
    pub(crate) fn knows_all_at(&self, ordinal: Ordinal) -> bool {
        self.seen.knows_all_at(ordinal)
    }

    /// Whether the pending batch takes more, when it may have this many envelopes.
    pub(crate) fn has_room(&self, envelopes: usize) -> bool {
        let Pending { raw, held, .. } = &self.pending;
        raw.len() < envelopes && held.bytes() < MAX_PENDING_BYTES && held.may_grow()
    }

    /// The rows of run and session have news that no event tells.
    pub(crate) fn touch(&mut self) {
        self.pending.touched = true;
    }

    /// Whether anything waits to be committed.
    pub(crate) fn is_dirty(&self) -> bool {
        self.pending.touched
    }

    /// Takes over the session's facts, and declares its participants.
    pub(crate) fn bind(
        &mut self,
        info: &SessionInfo,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        self.session.bind(info, now);
        self.advance(RunState::BindingSession, now)?;
        let known: HashSet<String> = self.projection.known_participants().into_iter().collect();
        for draft in control::session_bound(&self.session, now) {
            // Who was declared when the run was adopted is known already.
            let seen = draft.event_type == EventType::ParticipantSeen;
            if !seen || draft.subject.as_ref().is_none_or(|subject| !known.contains(&subject.id)) {
                self.event(draft, now);
            }
        }
        let declared = self.projection.known_participants();
        self.normalizer = Normalizer::new(declared, self.session.last_event_ts);
        Ok(())
    }

    /// Records the next accepted envelope and what follows from it.
    pub(crate) fn envelope(&mut self, envelope: Envelope, now: Timestamp) {
        let ordinal: Ordinal = self.session.cursor + 1;
        for draft in self.normalizer.envelope(&envelope, now) {
            self.event(draft, now);
        }
        self.seen.remember(&envelope.message_id, ordinal);
        self.pending.held.add(envelope.payload.len());
        self.commitment_last = is_commitment(&envelope);
        self.session.cursor = ordinal;
        self.session.last_message_id = Some(envelope.message_id.clone());
        self.session.last_event_ts = self.normalizer.last_ts();
        self.session.last_seen_at = Some(now);
        self.session.updated_at = now;
        self.pending.raw.push(RawEnvelope {
            run_id: self.run.id,
            source: EnvelopeSource::Session,
            ordinal: Some(ordinal),
            received_at: now,
            sender_authenticated: true,
            envelope,
        });
        self.pending.touched = true;
    }

    /// Records a signal and what follows from it, carrying out inbox item `item`.
    pub(crate) fn signal(
        &mut self,
        envelope: Envelope,
        sender_authenticated: bool,
        item: i64,
        now: Timestamp,
    ) {
        for draft in self.normalizer.signal(&envelope, sender_authenticated, now) {
            self.event(draft, now);
        }
        self.session.last_event_ts = self.normalizer.last_ts();
        self.pending.raw.push(RawEnvelope {
            run_id: self.run.id,
            source: EnvelopeSource::Signal,
            ordinal: None,
            received_at: now,
            sender_authenticated,
            envelope,
        });
        self.inbox_done(item);
    }

    /// Records that ordinals up to `to` cannot be read any more.
    pub(crate) fn gap(&mut self, to: Ordinal, reason: &str, now: Timestamp) {
        let from = self.session.cursor + 1;
        let draft = control::stream_gap(&self.session.session_id, from, to, reason, now);
        self.event(draft, now);
        self.session.cursor = to;
        self.session.last_message_id = None;
        self.seen.skip_to(to);
        self.commitment_last = false;
    }

    /// Records the `decision.finalized` that a receipt attests; `false` when it holds none.
    pub(crate) fn receipt(&mut self, receipt: &Receipt, now: Timestamp) -> bool {
        match self.normalizer.receipt(&self.session, &receipt.document, now) {
            Some(draft) => {
                self.event(draft, now);
                self.pending.receipt = Some(receipt.text.clone());
                true
            }
            None => false,
        }
    }

    /// Gives an event its place in the log, and folds it.
    pub(crate) fn event(&mut self, draft: EventDraft, now: Timestamp) {
        self.run.last_seq += 1;
        self.run.updated_at = now;
        let mut draft = draft;
        if draft.trace.is_none() {
            draft.trace = self.trace.as_ref().map(within);
        }
        let event = draft.into_event(self.run.id, self.run.last_seq, now);
        self.projection.apply(&event);
        if let Some(snapshot) = self.projection.snapshot_due() {
            self.pending.held.add(snapshot.state.len());
            self.pending.snapshots.push(snapshot);
        }
        control_plane_projection::apply_metrics(&mut self.metrics, &event, &self.prices);
        self.counted.event(&self.run, &event);
        let body = event.encode();
        self.chain = self.chain.then(&body);
        self.pending.held.add(body.len());
        self.pending.entries.push(LogEntry {
            run_id: self.run.id,
            seq: event.seq,
            position: 0,
            ts: event.ts,
            received_at: event.received_at,
            event_type: event.event_type,
            subject: event.subject.map(|subject| (subject.kind.as_str().to_owned(), subject.id)),
            hash: self.chain,
            body: Bytes::from(body),
        });
        self.pending.touched = true;
    }

    /// Moves the run on, with the event of the move where there is one.
    pub(crate) fn advance(
        &mut self,
        to: RunState,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        let from = self.run.state;
        self.run.advance(to, now)?;
        self.transitioned(from, now);
        Ok(())
    }

    /// Fails the run.
    pub(crate) fn fail(
        &mut self,
        failure: &Failure,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        let from = self.run.state;
        self.run.fail(failure, now)?;
        self.transitioned(from, now);
        Ok(())
    }

    fn transitioned(&mut self, from: RunState, now: Timestamp) {
        let to = self.run.state;
        metrics::counter!("run_state_transitions_total", "status" => to.as_str()).increment(1);
        if to.is_terminal() {
            self.enrich(now);
        }
        let draft = match (from, to) {
            (_, RunState::Starting) => {
                Some(control::run_started(&self.run, &self.session.mode_name, now))
            }
            // Becoming `running` for the first time is told by the session's state.
            (RunState::BindingSession, RunState::Running) => None,
            _ => control::run_state(&self.run, now),
        };
        match draft {
            Some(draft) => self.event(draft, now),
            None => self.pending.touched = true,
        }
    }

    /// Notes the session's state, with its event when it is news.
    pub(crate) fn session_state(&mut self, state: SessionState, now: Timestamp) {
        self.session.state = state;
        let draft = control::session_state_changed(&self.run, &self.session.session_id, state, now);
        self.event(draft, now);
    }

    /// Whether inbox item `item` is carried out already, and only not committed yet.
    pub(crate) fn has_done(&self, item: i64) -> bool {
        self.done_items.contains(&item)
    }

    /// What [`Ledger::has_done`] says of all items.
    pub(crate) fn done_items(&self) -> &HashSet<i64> {
        &self.done_items
    }

    /// Forgets items that are not in the inbox any more: they are committed, and their numbers do
    /// not come again.
    pub(crate) fn forget_done(&mut self, gone: &HashSet<i64>) {
        self.done_items.retain(|item| !gone.contains(item));
        self.artifacts.retain(|_, item| !gone.contains(item));
    }

    /// Drops inbox item `item` with the next batch.
    pub(crate) fn inbox_done(&mut self, item: i64) {
        self.pending.inbox_used.push(item);
        self.done_items.insert(item);
        self.pending.touched = true;
    }

    /// The batch that was under way is over.
    pub(crate) fn committed(&mut self) {
        self.under_way = None;
    }

    /// Takes what waits, as a batch to commit.
    pub(crate) fn take_batch(&mut self) -> Append {
        let next = Pending { held: self.pending.held.another(), ..Pending::default() };
        let pending = std::mem::replace(&mut self.pending, next);
        self.under_way = Some(pending.held);
        let expected_seq = std::mem::replace(&mut self.base, self.run.last_seq);
        let since_snapshot = self.run.last_seq - self.snapshot_at;
        let due = self.run.state.is_terminal()
            || since_snapshot >= SNAPSHOT_EVENTS_MAX
            || (since_snapshot >= SNAPSHOT_EVENTS && pending.raw.len() < QUIET_ENVELOPES);
        let projection = due.then(|| self.projection.to_row());
        if due {
            self.snapshot_at = self.run.last_seq;
        }
        let mut batch = Append {
            lease: self.lease,
            expected_seq,
            run: self.run.clone(),
            chain: self.chain,
            session: self.session.clone(),
            raw: pending.raw,
            entries: pending.entries,
            projection,
            snapshots: pending.snapshots,
            metrics: self.metrics.clone(),
            artifacts: pending.artifacts,
            inbox_used: pending.inbox_used,
            rollups: self.counted.take(&self.run, &self.metrics),
            receipt: pending.receipt,
        };
        if batch.files() {
            batch.run.metadata = self.metadata.unpack();
        }
        batch
    }
}

/// A run that does not exist yet, with its first event.
pub(crate) fn new_run(run: Run, session: Session, trace: Option<RunTrace>) -> NewRun {
    let id: RunId = run.id;
    let now = run.created_at;
    let mut run = run;
    run.last_seq = 1;
    run.trace_id = trace.as_ref().map(|trace| trace.context.trace_id.to_string());
    let event = control::run_created(&run, &session.mode_name).into_event(id, 1, now);
    let mut metrics = RunMetrics::empty(id);
    // It is no call of a model.
    control_plane_projection::apply_metrics(&mut metrics, &event, &PriceTable::default());
    let body = event.encode();
    let entry = LogEntry {
        run_id: id,
        seq: 1,
        position: 0,
        ts: event.ts,
        received_at: event.received_at,
        event_type: event.event_type,
        subject: event.subject.map(|subject| (subject.kind.as_str().to_owned(), subject.id)),
        hash: ChainHash::EMPTY.then(&body),
        body: Bytes::from(body),
    };
    NewRun { run, session, entries: vec![entry], metrics, trace }
}

/// What an event says of the trace that it is part of.
fn within(trace: &TraceContext) -> Trace {
    Trace {
        trace_id: Some(trace.trace_id.to_string()),
        span_id: Some(trace.span_id.to_string()),
        parent_span_id: None,
    }
}

fn is_commitment(envelope: &Envelope) -> bool {
    envelope.message_type == COMMITMENT
}
