//! How long an envelope takes from the agent's call to each of many subscribers.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control_plane_domain::SessionId;
use control_plane_testkit::agent::Agent;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{message, play};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use crate::ingest::descriptor;
use crate::latency::Figures;
use crate::serve;
use crate::swarm::Subscriber;

/// How many connections are opened at once.
const OPENING: usize = 64;
/// How many envelopes are under way to the runtime at most.
const IN_FLIGHT: usize = 64;

/// One run and who watches it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) subscribers: usize,
    pub(crate) envelopes: usize,
    /// Between two envelopes.
    pub(crate) every: Duration,
}

type Sent = Arc<RwLock<HashMap<Vec<u8>, Instant>>>;

/// The clock starts before the agent sends, so the runtime's own time is part of it. Fails when
/// one subscriber misses one envelope.
pub(crate) async fn measure(kind: Kind, load: Load) -> Result<Figures> {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let database = TestDb::new(kind);
    let server = serve(&runtime, &database).await;
    let session = SessionId::random();
    let (status, run) = server.post("/runs", &descriptor(&session)).await;
    ensure!(status == 201, "POST /runs answered {status}: {run}");
    play::open_for_load(&cast, &session).await;
    let id = run["runId"].as_str().context("the answer has no runId")?;
    let path = format!("/runs/{id}/stream?afterSeq=0&includeSnapshot=false");
    let subscribers: Vec<Subscriber> = stream::iter(0..load.subscribers)
        .map(|_| Subscriber::open(&server, &path))
        .buffer_unordered(OPENING)
        .try_collect()
        .await?;

    let sent = Sent::default();
    let watching: Vec<_> = subscribers
        .into_iter()
        .map(|subscriber| tokio::spawn(watch(subscriber, Arc::clone(&sent), load.envelopes)))
        .collect();
    talk(&cast.alice, &session, load, &sent).await?;
    let mut times = Vec::new();
    for watcher in watching {
        times.extend(watcher.await??);
    }
    ensure!(times.len() == load.subscribers * load.envelopes, "somebody missed something");
    Ok(Figures::of(times))
}

/// Milliseconds per envelope.
async fn watch(subscriber: Subscriber, sent: Sent, envelopes: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(envelopes);
    let seen = |id: &[u8], now: Instant| {
        let sent = sent.read().ok().and_then(|sent| sent.get(id).copied());
        // The session's start was not sent by the measurement.
        times.extend(sent.map(|sent| now.duration_since(sent).as_secs_f64() * 1000.0));
        times.len() == envelopes
    };
    subscriber.message_ids(seen).await?;
    Ok(times)
}

async fn talk(alice: &Agent, session: &SessionId, load: Load, sent: &Sent) -> Result<()> {
    let mut ticks = interval(load.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let ticks = stream::unfold(ticks, |mut ticks| async move {
        ticks.tick().await;
        Some(((), ticks))
    });
    ticks
        .take(load.envelopes)
        .enumerate()
        .map(|(number, ())| async move {
            let contribution = message::multi_round::contribute(&format!("value {number}"));
            let envelope = alice.envelope(session.as_str(), message::MULTI_ROUND, contribution);
            let id = envelope.message_id.clone().into_bytes();
            if let Ok(mut sent) = sent.write() {
                sent.insert(id, Instant::now());
            }
            let accepted = alice.send(envelope).await;
            accepted.map(drop).map_err(|refusal| anyhow::anyhow!("refused: {refusal:?}"))
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}
