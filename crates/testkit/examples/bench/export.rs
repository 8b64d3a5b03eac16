//! What it takes to export a long run, to verify its bundle and to import it elsewhere: how soon it
//! begins, how fast it goes, and how much memory is needed for it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use control_plane_domain::event::{ChainHash, EventDraft, Source, Subject, SubjectKind};
use control_plane_domain::evidence::Evidence;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::Rollups;
use control_plane_domain::run::RunMode;
use control_plane_domain::{
    CanonicalEvent, Clock, EventType, Run, RunId, RunState, Session, SessionId, SessionState,
    SystemClock,
};
use control_plane_projection::{PriceTable, apply_metrics};
use control_plane_storage::Store;
use control_plane_storage::model::{Append, Appended, Created, LogEntry, NewRun};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::process::{ServerProcess, program};
use control_plane_testkit::runtime::RuntimeProcess;
use serde_json::{Map, json};

use crate::idle::resident;
use crate::{Size, serve};

/// Events of a commit.
const BATCH: i64 = 5_000;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Long enough for what starts late.
const SETTLE: Duration = Duration::from_secs(1);

/// Of one shape.
pub(crate) struct Figures {
    pub(crate) shape: &'static str,
    pub(crate) first_byte_ms: f64,
    pub(crate) seconds: f64,
    pub(crate) megabytes_per_second: f64,
    /// More than before it began, in MiB.
    pub(crate) memory: f64,
    pub(crate) verified: Effort,
    pub(crate) imported: Effort,
}

/// What a command took.
pub(crate) struct Effort {
    pub(crate) seconds: f64,
    /// In all, in MiB.
    pub(crate) memory: f64,
}

/// Exports one long run in both shapes.
pub(crate) async fn measure(kind: Kind, size: Size) -> Result<Vec<Figures>> {
    let events = match size {
        Size::Full => 1_000_000,
        Size::Quick => 20_000,
    };
    let runtime = RuntimeProcess::in_memory().await;
    let database = TestDb::new(kind);
    let run = record(&database.store(), events).await?;
    let mut server = serve(&runtime, &database).await;
    // What the ingest would have kept of the state on its way; what that took is not to be counted.
    let path = format!("/runs/{run}/projection/rebuild");
    let (status, answer) = server.post(&path, &json!({})).await;
    ensure!(status == 201, "the rebuild answered {status}: {answer}");

    let mut figures = Vec::new();
    for (shape, path) in [("json", "export"), ("ndjson", "export/stream")] {
        server.restart().await;
        tokio::time::sleep(SETTLE).await;
        figures.push(export(&server, shape, &format!("/runs/{run}/{path}"), events, kind).await?);
    }
    Ok(figures)
}

async fn export(
    server: &ServerProcess,
    shape: &'static str,
    path: &str,
    events: i64,
    kind: Kind,
) -> Result<Figures> {
    let pid = server.pid().context("the server does not run")?;
    let before = resident(pid)?;
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut most: f64 = 0.0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(resident(pid).unwrap_or_default());
                tokio::time::sleep(LOOK).await;
            }
            most
        }
    });

    let client = reqwest::Client::builder().no_proxy().build()?;
    let started = Instant::now();
    let mut response = client.get(server.url(path)).send().await?.error_for_status()?;
    let (mut first, mut bytes) = (None, 0_u64);
    let mut end = Vec::new();
    let mut file = tempfile::NamedTempFile::new()?;
    while let Some(chunk) = response.chunk().await? {
        first.get_or_insert_with(|| started.elapsed());
        bytes += u64::try_from(chunk.len())?;
        file.write_all(&chunk)?;
        end.extend_from_slice(&chunk);
        end.drain(..end.len().saturating_sub(8192));
    }
    let seconds = started.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let most = watching.await?;

    let end = String::from_utf8_lossy(&end);
    ensure!(end.contains(&format!("\"to\":{{\"seq\":{events},")), "not all events: {end}");
    Ok(Figures {
        shape,
        first_byte_ms: first.context("nothing came")?.as_secs_f64() * 1000.0,
        seconds,
        megabytes_per_second: f64::from(u32::try_from(bytes / 1000)?) / 1000.0 / seconds,
        memory: most - before,
        verified: command("verify", file.path(), None).await?,
        imported: command("import", file.path(), Some(&TestDb::new(kind))).await?,
    })
}

/// What a command with a bundle takes, from the start of its process to the end.
async fn command(task: &str, bundle: &Path, database: Option<&TestDb>) -> Result<Effort> {
    let mut command = Command::new(program());
    command.arg(task).arg(bundle).stdout(Stdio::null());
    command.envs(database.map(|database| ("DATABASE_URL", database.url())));
    command.envs([
        ("APP_ENV", "development"),
        ("RUNTIME_ALLOW_INSECURE", "true"),
        ("LOG_LEVEL", "error"),
    ]);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut memory: f64 = 0.0;
    let status = loop {
        memory = memory.max(resident(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            break status;
        }
        tokio::time::sleep(LOOK).await;
    };
    ensure!(status.success(), "`{task}` ended with {status}");
    Ok(Effort { seconds: started.elapsed().as_secs_f64(), memory })
}

/// A run that is over, of this many events of about 700 bytes.
async fn record(store: &Store, events: i64) -> Result<RunId> {
    let (mut run, session) = subject();
    let id = run.id;
    let (mut figures, prices) = (RunMetrics::empty(id), PriceTable::default());
    let new = NewRun {
        run: run.clone(),
        session: session.clone(),
        entries: vec![],
        metrics: figures.clone(),
        trace: None,
    };
    let Created::New(lease) = store.run_create(new).await? else { bail!("the run is there") };
    let mut chain = ChainHash::EMPTY;
    while run.last_seq < events {
        let expected_seq = run.last_seq;
        let until = (expected_seq + BATCH).min(events);
        let mut entries = Vec::new();
        for seq in expected_seq + 1..=until {
            let kind =
                if seq == events { EventType::RunCompleted } else { EventType::MessageReceived };
            let (event, entry) = entry(id, &session.session_id, seq, kind, chain);
            apply_metrics(&mut figures, &event, &prices);
            chain = entry.hash;
            entries.push(entry);
        }
        run.last_seq = until;
        if until == events {
            run.state = RunState::Completed;
            run.ended_at = Some(run.created_at);
        }
        let batch = Append {
            lease,
            expected_seq,
            run: run.clone(),
            chain,
            session: session.clone(),
            raw: vec![],
            entries,
            projection: None,
            snapshots: vec![],
            metrics: figures.clone(),
            artifacts: vec![],
            inbox_used: vec![],
            rollups: Rollups::default(),
            receipt: None,
        };
        let appended = store.append(vec![batch]).await;
        ensure!(appended == [Appended::Committed], "not committed: {appended:?}");
    }
    Ok(id)
}

fn entry(
    run_id: RunId,
    session: &SessionId,
    seq: i64,
    event_type: EventType,
    before: ChainHash,
) -> (CanonicalEvent, LogEntry) {
    let now = SystemClock.now();
    let message_id = format!("message-{seq}");
    let data = json!({
        "modeName": "macp.mode.multi_round.v1",
        "messageType": "Contribute",
        "messageId": message_id,
        "sessionId": session,
        "sender": "alice",
        "decodedPayload": { "value": "x".repeat(250) },
    });
    let draft = EventDraft {
        event_type,
        ts: now,
        subject: Some(Subject::new(SubjectKind::Message, message_id)),
        source: Source::control_plane("bench"),
        trace: None,
        data: data.as_object().cloned().unwrap_or_default(),
    };
    let event = draft.into_event(run_id, seq, now);
    let body = event.encode();
    let subject = event.subject.as_ref();
    let entry = LogEntry {
        run_id,
        seq,
        position: 0,
        ts: event.ts,
        received_at: event.received_at,
        event_type,
        subject: subject.map(|it| (it.kind.as_str().to_owned(), it.id.clone())),
        hash: before.then(&body),
        body: Bytes::from(body),
    };
    (event, entry)
}

fn subject() -> (Run, Session) {
    let now = SystemClock.now();
    let session_id = SessionId::random();
    let run = Run {
        id: RunId::random(),
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
        tags: vec![],
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: now,
        started_at: Some(now),
        ended_at: None,
        updated_at: now,
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    };
    let session = Session {
        run_id: run.id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: "macp.mode.multi_round.v1".to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "1".to_owned(),
        policy_version: "policy.default".to_owned(),
        initiator: Some("alice".to_owned()),
        state: SessionState::Resolved,
        participants: vec!["alice".to_owned(), "bob".to_owned()],
        context_id: None,
        extension_keys: vec![],
        started_at_unix_ms: Some(now.timestamp_millis()),
        expires_at: None,
        last_seen_at: Some(now),
        cursor: 0,
        last_message_id: None,
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at: now,
        updated_at: now,
        evidence: Evidence::default(),
    };
    (run, session)
}
