//! Measures how many envelopes per second one writer appends, durably.
//!
//! ```text
//! DATABASE_URL=sqlite:///tmp/rate.db \
//!     cargo run --release -p control-plane-storage --example append_rate -- [envelopes] [runs] [participants]
//! ```
//!
//! Every envelope comes with two events of about 600 bytes, every batch with 1,000 envelopes over
//! all runs (20 unless given). The database should be empty: what is written stays there.

use std::error::Error;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use bytes::Bytes;
use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::{Amount, Figure, Figures, Filing, Rollups, Sign};
use control_plane_domain::run::{RunMode, RunState};
use control_plane_domain::session::{Session, SessionState};
use control_plane_domain::time::from_unix_ms;
use control_plane_domain::{Envelope, EventType, Run, RunId, SessionId};
use control_plane_storage::model::{
    Append, Appended, Created, Lease, LogEntry, NewRun, RawEnvelope,
};
use control_plane_storage::{Config, DatabaseUrl, Store};

/// Envelopes of a transaction.
const BATCH: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_missing| "DATABASE_URL is not set")?;
    let mut arguments = std::env::args().skip(1);
    let total: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let runs: usize = arguments.next().map_or(Ok(20), |text| text.parse())?;
    let participants: usize = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let store = Store::connect(&Config::new(DatabaseUrl::parse(&url)?))?;
    store.migrate().await?;

    let mut writers = Vec::new();
    for _ in 0..runs {
        writers.push(Writer::create(&store).await?);
    }
    let mut taken = Vec::new();
    let mut making = Duration::ZERO;
    let mut written = 0;
    while written < total {
        let start = Instant::now();
        let each = (BATCH / runs).max(1);
        let batches: Vec<Append> =
            writers.iter_mut().map(|writer| writer.batch(each, participants)).collect();
        making += start.elapsed();
        let start = Instant::now();
        let outcomes = store.append(batches).await;
        taken.push(start.elapsed());
        if let Some(failed) = outcomes.iter().find(|outcome| **outcome != Appended::Committed) {
            return Err(format!("not committed: {failed:?}").into());
        }
        written += each * runs;
    }
    let spent: Duration = taken.iter().sum();
    taken.sort();
    let part = |percent: usize| taken.get(taken.len() * percent / 100).copied().unwrap_or_default();
    writeln!(
        stdout(),
        "{}: {:.0} envelopes/s; batches p50 {:?} p99 {:?}; making the batches took {making:?} of its own",
        store.kind(),
        f64::from(u32::try_from(written)?) / spent.as_secs_f64(),
        part(50),
        part(99),
    )?;
    Ok(())
}

/// A run's writer.
struct Writer {
    lease: Lease,
    run: Run,
    session: Session,
    chain: ChainHash,
    metrics: RunMetrics,
}

impl Writer {
    async fn create(store: &Store) -> Result<Self, Box<dyn Error>> {
        let new = new_run();
        let NewRun { run, session, metrics, .. } = new.clone();
        match store.run_create(new).await? {
            Created::New(lease) => {
                Ok(Self { lease, run, session, chain: ChainHash::EMPTY, metrics })
            }
            Created::Existing(_) => Err("the run is there already".into()),
        }
    }

    fn batch(&mut self, count: usize, participants: usize) -> Append {
        let run_id = self.run.id;
        let expected_seq = self.run.last_seq;
        let now = self.run.created_at;
        let mut raw = Vec::with_capacity(count);
        let mut entries = Vec::with_capacity(2 * count);
        for _ in 0..count {
            self.session.cursor += 1;
            raw.push(RawEnvelope {
                run_id,
                source: EnvelopeSource::Session,
                ordinal: Some(self.session.cursor),
                received_at: now,
                sender_authenticated: true,
                envelope: Envelope {
                    macp_version: "1.0".to_owned(),
                    mode: self.session.mode_name.clone(),
                    message_type: "Evaluation".to_owned(),
                    message_id: RunId::random().to_string(),
                    session_id: self.session.session_id.as_str().to_owned(),
                    sender: "agent://evaluator".to_owned(),
                    timestamp_unix_ms: now.timestamp_millis(),
                    payload: vec![b'p'; 200],
                    sanitized: false,
                },
            });
            for event_type in [EventType::MessageReceived, EventType::ProposalUpdated] {
                self.run.last_seq += 1;
                let seq = self.run.last_seq;
                let body = format!("{{\"seq\":{seq},\"data\":\"{}\"}}", "x".repeat(570));
                self.chain = self.chain.then(&body);
                entries.push(LogEntry {
                    run_id,
                    seq,
                    position: 0,
                    ts: now,
                    received_at: now,
                    event_type,
                    subject: Some(("message".to_owned(), seq.to_string())),
                    hash: self.chain,
                    body: Bytes::from(body),
                });
            }
        }
        Append {
            lease: self.lease,
            expected_seq,
            run: self.run.clone(),
            chain: self.chain,
            session: self.session.clone(),
            raw,
            entries,
            projection: None,
            snapshots: Vec::new(),
            metrics: self.metrics.clone(),
            artifacts: Vec::new(),
            inbox_used: Vec::new(),
            rollups: self.said(count, participants),
            receipt: None,
        }
    }
}

impl Writer {
    /// What so many messages of these participants, each with its confidence, change in the sums.
    fn said(&self, count: usize, participants: usize) -> Rollups {
        let mut figures = Figures::default();
        for message in 0..count {
            let Some(number) = message.checked_rem(participants) else { break };
            let sender = format!("agent://{number}");
            for (figure, amount) in [
                (Figure::AgentMessages, Amount::new(1, 0)),
                (Figure::AgentConfidence, Amount::new(1, 500_000)),
            ] {
                figures.add(figure, &sender, self.run.created_at, amount);
            }
        }
        let mut rollups = Rollups::default();
        rollups.file(&Filing::of(&self.run), &figures, Sign::Plus);
        rollups
    }
}

fn new_run() -> NewRun {
    let now = from_unix_ms(1_795_000_000_000).unwrap_or_default();
    let (id, session_id) = (RunId::random(), SessionId::random());
    let run = Run {
        id,
        state: RunState::Running,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 0,
        source_kind: None,
        source_ref: None,
        tags: Vec::new(),
        metadata: serde_json::Map::new(),
        error_code: None,
        error_message: None,
        created_at: now,
        started_at: None,
        ended_at: None,
        updated_at: now,
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    };
    let session = Session {
        run_id: id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: "macp.mode.decision.v1".to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "c1".to_owned(),
        policy_version: "p1".to_owned(),
        initiator: Some("agent://planner".to_owned()),
        state: SessionState::Open,
        participants: vec!["agent://evaluator".to_owned()],
        context_id: None,
        extension_keys: Vec::new(),
        started_at_unix_ms: Some(now.timestamp_millis()),
        expires_at: None,
        last_seen_at: None,
        cursor: 0,
        last_message_id: None,
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at: now,
        updated_at: now,
        evidence: control_plane_domain::evidence::Evidence::default(),
    };
    NewRun { run, session, entries: Vec::new(), metrics: RunMetrics::empty(id), trace: None }
}
