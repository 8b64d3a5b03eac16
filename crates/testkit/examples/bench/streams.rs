//! What open streams cost while nothing happens, and how fast a long history is read.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use control_plane_domain::SessionId;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, play, wait_for};
use futures_util::{StreamExt, TryStreamExt, stream};
use memchr::memmem::Finder;
use serde_json::Value;

use crate::idle::resident;
use crate::ingest::descriptor;
use crate::swarm::Subscriber;
use crate::{Size, serve};

const OPENING: usize = 64;
/// How many runs the idle streams are spread over.
const RUNS: usize = 20;
const IN_FLIGHT: usize = 32;

/// Resident memory in MiB with many streams open on which nothing happens.
pub(crate) async fn idle(kind: Kind, size: Size) -> Result<f64> {
    let count = match size {
        Size::Full => 10_000,
        Size::Quick => 100,
    };
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let database = TestDb::new(kind);
    let server = serve(&runtime, &database).await;
    let mut paths = Vec::new();
    for _ in 0..RUNS {
        let session = SessionId::random();
        let run = post(&server, &session).await?;
        play::open_for_load(&cast, &session).await;
        paths.push(format!("/runs/{run}/stream?afterSeq=0"));
    }
    let streams: Vec<Subscriber> = stream::iter(paths.iter().cycle().take(count))
        .map(|path| Subscriber::open(&server, path))
        .buffer_unordered(OPENING)
        .try_collect()
        .await?;
    let pid = server.pid().context("the server does not run")?;
    let memory = resident(pid)?;
    ensure!(streams.len() == count, "not all are open");
    Ok(memory)
}

/// Frames a second from the first byte to the end of a long history, to one client.
pub(crate) async fn backlog(kind: Kind, size: Size) -> Result<f64> {
    let envelopes = match size {
        Size::Full => 100_000,
        Size::Quick => 1000,
    };
    let runtime = RuntimeProcess::in_memory().await;
    let database = TestDb::new(kind);
    let server = serve(&runtime, &database).await;
    let run = long_run(&runtime, &server, envelopes).await?;

    let path = format!("/runs/{run}/stream?afterSeq=0&includeSnapshot=false");
    let started = Instant::now();
    let mut subscriber = Subscriber::request(&server, &path).await?;
    let event = Finder::new("event: canonical_event\n");
    let caught_up = Finder::new("event: caught_up\n");
    let mut frames = 0_u32;
    loop {
        let bytes = subscriber.read().await?;
        let mut after = 0;
        for at in event.find_iter(bytes) {
            frames += 1;
            after = at + event.needle().len();
        }
        let kept = bytes.len() - after;
        if caught_up.find(bytes).is_some() {
            break;
        }
        subscriber.keep(kept.min(event.needle().len() - 1));
    }
    let took = started.elapsed().as_secs_f64();
    ensure!(usize::try_from(frames)? > envelopes, "only {frames} frames");
    Ok(f64::from(frames) / took)
}

/// A run of this many envelopes, all of them recorded.
pub(crate) async fn long_run(
    runtime: &RuntimeProcess,
    server: &ServerProcess,
    envelopes: usize,
) -> Result<String> {
    let cast = runtime.cast().await;
    let session = SessionId::random();
    play::open_for_load(&cast, &session).await;
    play::contribute_many(&cast.alice, &session, envelopes, IN_FLIGHT).await;
    let run = post(server, &session).await?;
    let path = format!("/runs/{run}/metrics");
    let ask = async || server.get(&path).await.1;
    let expected = i64::try_from(envelopes)? + 1;
    let all = |metrics: &Value| metrics["messageCount"].as_i64() == Some(expected);
    wait_for(DEADLINE, ask, all).await;
    Ok(run)
}

async fn post(server: &ServerProcess, session: &SessionId) -> Result<String> {
    let (status, run) = server.post("/runs", &descriptor(session)).await;
    ensure!(status == 201, "POST /runs answered {status}: {run}");
    Ok(run["runId"].as_str().context("the answer has no runId")?.to_owned())
}
